"""Datasette's process: started at the first question, asked by HTTP over a socket, given up when stuck, large or idle.

The kernel gives it the processor only when nobody else wants it. Whatever becomes of
it, the next question starts it anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from sessionstore import ROOT
from sessionstore.model.problems import Problem, unavailable

NICENESS = 10
"""Besides that of its parent; 19 is the most there is."""
ANSWER_SECONDS = 30.0
"""More than Datasette ever takes, its start included."""
END_SECONDS = 1.0
IDLE_SECONDS = 600.0
MAX_RESIDENT_BYTES = 256 << 20
MAX_HEAD_BYTES = 1 << 20
STUCK, STUCK_SECONDS = 3, 1.5
"""Its exit code where a query takes so long, because a single step of it cannot be interrupted."""
TRIES = 3

Answer = tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]


class WorkerDied(Exception):
    """The process has given no answer."""


class Stuck(WorkerDied):
    """It has ended itself, because a query did not: perhaps of this question, for it is as old."""


class Bystander(WorkerDied):
    """The same, but of another question."""


class DatasetteProcess:
    """Runs `python -m sessionstore.analytics.datasette_app DATABASE`."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.folder: TemporaryDirectory[str] | None = None
        self.process: Process | None = None
        self.starting = asyncio.Lock()
        self.asking = 0
        self.idle: asyncio.TimerHandle | None = None
        self.ending: asyncio.Task[None] | None = None
        self.starts = 0
        self.failures = 0
        """Questions without an answer."""

    @asynccontextmanager
    async def asked(self, request: bytes) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
        """The head of its answer, and where the body is to be read from. Raises Problem where there is none."""
        self.asking += 1
        try:
            head, reader, writer = await self.ask_again(request)
            try:
                yield head, reader
            finally:
                writer.close()
        finally:
            self.asking -= 1
            self.rest()

    async def ask_again(self, request: bytes) -> Answer:
        """Ask anew where another question than this ended the process."""
        try:
            for _ in range(TRIES):
                with suppress(Bystander):
                    return await self.ask(request)
            raise WorkerDied("its process has ended")
        except Stuck:
            raise Problem(400, "The question, or another at the same time, took too long, and was given up") from None
        except WorkerDied as gone:
            self.failures += 1
            raise unavailable(f"Datasette gave no answer: {gone}") from None

    async def ask(self, request: bytes) -> Answer:
        """Raises Gone."""
        process, writer = await self.running(), None
        begun = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.address, limit=MAX_HEAD_BYTES)
                writer.write(request)
                return await reader.readuntil(b"\r\n\r\n"), reader, writer
        except (OSError, EOFError) as error:
            seconds = time.monotonic() - begun
            if writer is not None:
                writer.close()
            with suppress(TimeoutError):  # what is killed as it ends by itself has no exit code
                await asyncio.wait_for(process.wait(), END_SECONDS)
            await end(process)
            if process.returncode == STUCK:
                raise Stuck if seconds >= STUCK_SECONDS else Bystander from None
            raise WorkerDied(
                "it took too long" if isinstance(error, TimeoutError) else "its process has ended"
            ) from None

    async def running(self) -> Process:
        """Raises Gone where it cannot be started: no more processes, descriptors or memory at the moment."""
        async with self.starting:
            if self.process is None or self.process.returncode is not None:
                self.starts += 1
                try:
                    self.process = await self.start()
                except OSError as error:
                    raise WorkerDied(f"its process could not be started: {error.strerror or error}") from None
            return self.process

    async def start(self) -> Process:
        """It has the socket from its parent, so it can be asked at once."""
        if self.folder is not None:
            self.folder.cleanup()  # also one that somebody has taken away
        self.folder = TemporaryDirectory(prefix="session-store-", ignore_cleanup_errors=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sessionstore.analytics.datasette_app", self.database, str(listener.fileno())),
                cwd=ROOT,
                env={**inherited, "DATASETTE_LOAD_PLUGINS": "", "MALLOC_ARENA_MAX": "2"},
                stdin=PIPE,  # it ends when that does
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent
            )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        return process

    @property
    def address(self) -> str:
        """Of the socket, in a folder that nobody else can enter."""
        assert self.folder is not None
        return f"{self.folder.name}/socket"

    def rest(self) -> None:
        """It ends when nobody has asked for long, or at once if it has become large, and nobody asks."""
        if self.idle is not None:
            self.idle.cancel()
        is_large = self.process is not None and resident_bytes(self.process.pid) > MAX_RESIDENT_BYTES
        self.idle = asyncio.get_running_loop().call_later(0 if is_large else IDLE_SECONDS, self.end_if_idle)

    def end_if_idle(self) -> None:
        if self.process is not None and not self.asking:
            self.ending, self.process = asyncio.create_task(end(self.process)), None

    async def stop(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
        if self.ending is not None:
            await self.ending
        if self.process is not None:
            await end(self.process)
        if self.folder is not None:
            self.folder.cleanup()


async def end(process: Process) -> None:
    """Kill it, unless it has ended, and wait until it is gone."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def resident_bytes(pid: int) -> int:
    """0 where the system does not say so."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
