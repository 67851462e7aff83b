"""The appliance as its users run it: a child process, started, stopped and killed from outside."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from tests.warm import Forked, ForkServer

REPOSITORY = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.005
OUTPUT_LINES = 2000
OUTPUT_LINE_BYTES = 4096

fork_server: ForkServer | None = None
"""What runs Python programs of this checkout; where there is none, they are started from nothing."""


class Stopped(NamedTuple):
    code: int
    seconds: float


class ServerError(Exception):
    """The child did not start or end as it should; the message carries what it printed."""


class Server:
    """A program that serves HTTP at 127.0.0.1:PORT. Use it in a `with`: it is started there, and gone afterwards."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], root: Path = REPOSITORY) -> None:
        self._command = command
        self._root = root
        self._reservation = reserve_port()
        self.port: int = self._reservation.getsockname()[1]
        self._env = {**env, "PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._lines: deque[bytes] = deque(maxlen=OUTPUT_LINES)
        self._collector = threading.Thread()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked:
        if self._process is None:
            raise ServerError("the server has not been started")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """The end of what it wrote to stdout and stderr, over all its starts."""
        return b"".join(self._lines.copy()).decode(errors="replace")

    def said(self, words: str, within: float = 60.0) -> bool:
        """True once it has written `words`: its log is written beside what it answers, so an answer may come first."""
        deadline = time.monotonic() + within
        while words not in self.output:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._reservation.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self._last_words())
        try:
            if self.running:
                self.stop()
        finally:
            self._reservation.close()

    def start(self, until: str = "/health", within: float = 90.0) -> float:
        """Start, wait for GET `until` to be 200, and return the seconds from exec to that answer."""
        if self.running:
            raise ServerError(f"already running as process {self.process.pid}")
        begun = time.monotonic()
        self._process = self._begin()
        self._collect_output()
        try:
            self._wait_for(until, begun + within)
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - begun

    def _begin(self) -> subprocess.Popen[bytes] | Forked:
        if fork_server and fork_server.takes(self._command, self._env, self._root):
            read, write = os.pipe()
            forked = fork_server.start(self._command[1:], self._env, write, write)
            os.close(write)
            forked.stdout = open(read, "rb")  # noqa: SIM115
            return forked
        return subprocess.Popen(
            self._command,
            cwd=self._root,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def stop(self, within: float = 60.0) -> Stopped:
        """Ask it to end with SIGTERM; one that has not ended `within` seconds is killed, and that is an error."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"still running {within:g} s after SIGTERM:\n{self.output}") from None
        self._collector.join(within)
        return Stopped(code, time.monotonic() - begun)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._collector.join(POLL_SECONDS)

    def _last_words(self) -> str:
        state = "is running" if self.running else f"has ended with {self.process.returncode}"
        return f"{' '.join(self._command)} on port {self.port} {state}; it wrote: {self.output or 'nothing'}"

    def _collect_output(self) -> None:
        assert self.process.stdout is not None
        self._collector = threading.Thread(target=_collect, args=(self.process.stdout, self._lines), daemon=True)
        self._collector.start()

    def _wait_for(self, path: str, deadline: float) -> None:
        while not self._answers(path):
            if (code := self.process.poll()) is not None:
                self._collector.join(1.0)
                raise ServerError(f"ended with {code} before GET {path} was 200:\n{self.output}")
            if time.monotonic() > deadline:
                raise ServerError(f"GET {path} was not 200 in time:\n{self.output}")
            time.sleep(POLL_SECONDS)

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Appliance(Server):
    """`python app.py` over `folder`; only the settings given here reach it, none from the environment of the caller.

    `under`: a command that starts the one after it in its own place, such as `prlimit`. `root`: of which version.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        root: Path = REPOSITORY,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        settings = {"SESSIONS_DIR": str(folder), "SESSIONS_HOST": "127.0.0.1", "SESSIONS_DURABILITY": "full"}
        super().__init__([*under, sys.executable, "app.py"], {**inherited, **settings, **(env or {})}, root)
        self.folder = folder


def reserve_port() -> socket.socket:
    """A bound socket that never listens.

    While it is held the kernel gives the port to no other bind(0), and to no connect() as its source port: a client
    that tries to reach a server that is down could otherwise reach itself. SO_REUSEADDR lets the server bind it too.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    return reservation


def _collect(stream: IO[bytes], lines: deque[bytes]) -> None:
    with stream:
        while line := stream.readline(OUTPUT_LINE_BYTES):
            lines.append(line)
