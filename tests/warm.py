"""A fork server: `python app.py` and `python -m export` without the time that their imports take, for many tests.

Starting the server takes half a second of a processor, two thirds of it for imports and the routes, each time the same.
Here one process has them, waits, and forks: what runs in the fork is the program from its first line on, with the
environment, files and umask that it is given. What changes how Python itself runs (LD_PRELOAD, PYTHONPATH, a command
in front) starts it from nothing, as do the tests of starting and ending (the fixture `cold`).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
MESSAGE = 1 << 17
"""Bytes: more than an environment has."""
PER_PROGRAM = ("SESSIONS_", "AWS_", "PORT", "PYTEST_CURRENT_TEST")
"""What may be otherwise in the environment of a program than in that of the fork server."""


class Forked:
    """A process of the fork server, as far as tests use `subprocess.Popen`."""

    def __init__(self, number: int) -> None:
        self.args = number
        self.pid = 0
        self.stdout: IO[bytes] | None = None
        self.returncode: int | None = None
        self.has_begun, self.has_ended = threading.Event(), threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self.has_ended.wait(timeout):
            raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """One for each process of pytest; it ends with that, and all that it has started too."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, "-m", "tests.warm", str(other.fileno())]
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
            self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=[other.fileno()], **quiet)  # type: ignore[call-overload]
        self.lock = threading.Lock()
        self.forks: list[Forked] = []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def takes(self, command: Sequence[str], env: Mapping[str, str], root: Path) -> bool:
        """Whether it can run this, so that nobody can tell."""
        names = {name for name in env.keys() | self.environment if env.get(name) != self.environment.get(name)}
        if env.get("PYTHONPATH") == str(ROOT):  # which it has
            names.discard("PYTHONPATH")
        return root == ROOT and command[0] == sys.executable and all(name.startswith(PER_PROGRAM) for name in names)

    def start(
        self, arguments: Sequence[str], env: Mapping[str, str], out: int, errors: int, cwd: Path = ROOT
    ) -> Forked:
        """Run `python ARGUMENTS` in the folder `cwd`; its output goes to these descriptors."""
        asked = {"arguments": list(arguments), "env": dict(env), "umask": umask(), "cwd": str(cwd)}
        with self.lock, open(os.devnull, "rb") as nothing:
            self.forks.append(fork := Forked(len(self.forks)))
            socket.send_fds(self.socket, [json.dumps(asked).encode()], [nothing.fileno(), out, errors])
        assert fork.has_begun.wait(60)
        return fork

    def listen(self) -> None:
        while said := self.socket.recv(MESSAGE):
            number, pid, code = json.loads(said)
            fork = self.forks[number]
            fork.pid, fork.returncode = pid, code
            fork.has_begun.set()
            if code is not None:
                fork.has_ended.set()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.process.wait(60)
        self.socket.close()


def umask() -> int:
    """Of this process, also while other threads make files."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")]
    return int(line.split()[1], 8)


# ------------------------------------------------------------------ in the fork server


def serve(peer: socket.socket) -> dict[str, Any]:
    """Fork whenever it is asked to; returns in the fork, with what that is to run. With its peer all of them end."""
    poll, running = select.poll(), dict[int, tuple[int, int]]()
    poll.register(peer, select.POLLIN)
    asked_for = 0
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != peer.fileno():
                number, pid = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                tell(peer, number, pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            said, files, _, _ = socket.recv_fds(peer, MESSAGE, 3)
            if not said:
                for _, pid in running.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            if not (pid := os.fork()):
                for kept in (peer.fileno(), *running):
                    os.close(kept)
                become(files)
                found: dict[str, Any] = json.loads(said)
                return found
            for file in files:
                os.close(file)
            pidfd = os.pidfd_open(pid)
            running[pidfd] = asked_for, pid
            poll.register(pidfd, select.POLLIN)
            tell(peer, asked_for, pid, None)
            asked_for += 1


def tell(peer: socket.socket, *what: int | None) -> None:
    with suppress(OSError):  # whoever asked has gone
        peer.send(json.dumps(what).encode())


def become(files: Sequence[int]) -> None:
    for at, file in enumerate(files):
        os.dup2(file, at)
        os.close(file)


def warm_up() -> None:
    """Import what the programs import, and do once what they do first."""
    import app
    import export.__main__
    from sessionstore.settings import Settings

    assert export.__main__.cli
    app.create_app(Settings(directory=Path("/nowhere")))
    assert threading.active_count() == 1  # a fork has one thread alone
    gc.collect()
    gc.freeze()


def run(arguments: Sequence[str], env: Mapping[str, str], umask: int, cwd: str) -> None:
    os.umask(umask)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if arguments[0] == "-m":
        sys.argv = ["", *arguments[2:]]
        for read in (arguments[1], f"{arguments[1]}.__main__"):
            sys.modules.pop(read, None)  # what runs is not also imported
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*arguments]
        runpy.run_path(arguments[0], run_name="__main__")


def leave(ended: BaseException | None) -> NoReturn:
    """End as Python does, without taking apart all that was imported: that takes longer than most commands."""
    code = 0 if ended is None else 1
    if isinstance(ended, SystemExit) and isinstance(ended.code, int | None):
        code = ended.code or 0
    elif isinstance(ended, SystemExit):
        print(ended.code, file=sys.stderr)
    elif ended is not None:
        sys.excepthook(type(ended), ended, ended.__traceback__)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    warm_up()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        run(**asked)
    except BaseException as error:
        leave(error)
    leave(None)
