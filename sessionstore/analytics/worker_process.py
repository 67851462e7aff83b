"""A process of our own that is asked and answers: frames over its stdin and stdout. It ends when its stdin does.

What may take long, or all the memory there is, runs in one: it can be killed, and
the kernel gives it the processor only when nobody else wants it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, BinaryIO, TypeVar

import msgspec

from sessionstore import ROOT

HEAD = struct.Struct(">IQ")
"""Of a frame: how long it is, and which question it belongs to."""
NICENESS = 10
"""Besides that of its parent, from its start on; 19 is the most there is."""
START_SECONDS = 20.0
END_SECONDS = 2.0

Question = TypeVar("Question")

encode = msgspec.msgpack.encode


class Gone(Exception):
    """The child has ended without an answer, or was killed because it gave none in time."""


class Child:
    """Runs `python -m MODULE ARGUMENTS`, from the first question on, and again after it has ended."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = asyncio.Event()
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.numbers = count(1)
        self.starting = asyncio.Lock()
        self.starts = 0

    async def ask(self, question: Any, within: float) -> bytes:
        """Its answer. Raises Gone where there is none within so many seconds, not counting its start."""
        process = await self.ready()
        assert process.stdin is not None
        number, answer = next(self.numbers), asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        frame = encode(question)
        process.stdin.write(HEAD.pack(len(frame), number) + frame)
        try:
            return await asyncio.wait_for(answer, within)
        except TimeoutError:
            self.kill()
            raise Gone("it took too long") from None
        finally:
            self.waiting.pop(number, None)

    async def ready(self) -> asyncio.subprocess.Process:
        """The process, once it can be asked. Raises Gone if it cannot be started."""
        async with self.starting:
            try:
                process = self.process or await self.start()
            except OSError as error:  # no more processes, descriptors or memory at the moment
                raise Gone(f"its process could not be started: {error.strerror}") from None
            try:
                await asyncio.wait_for(self.is_ready.wait(), START_SECONDS)
            except TimeoutError:
                self.kill()
            if self.process is not process:
                raise Gone("its process could not be started")
        return process

    async def start(self) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        self.is_ready.clear()
        self.starts += 1
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *self.command,
            cwd=ROOT,
            env={**inherited, "DATASETTE_LOAD_PLUGINS": ""},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
        self.process = process
        self.listener = asyncio.create_task(self.listen(process))
        return process

    async def listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand out the answers until there are no more."""
        assert process.stdout is not None
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length, number = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
                answer = await process.stdout.readexactly(length)
                self.is_ready.set()
                if number in self.waiting and not self.waiting[number].done():
                    self.waiting[number].set_result(answer)
        if self.process is process:
            self.forget()
        await process.wait()

    def forget(self) -> None:
        self.process = None
        self.is_ready.set()  # whoever waits for it sees that it is gone
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(Gone("its process has ended"))
        self.waiting = {}

    def kill(self) -> None:
        """Whoever waits for an answer hears that there is none; the next question starts it anew."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.forget()

    async def stop(self) -> None:
        """Let it end by itself, with what it has started; kill it if it does not."""
        process = self.process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
        await self.end()

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        process = self.process
        self.kill()
        if process is not None:
            await process.wait()


# -------------------------------------------------------------- inside the child


def frames() -> tuple[BinaryIO, BinaryIO]:
    """Where questions come from and answers go, an empty one first: the child is ready. All else goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our stdin
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    reply(answers, 0, b"")
    return questions, answers


def reply(answers: BinaryIO, number: int, said: bytes) -> None:
    try:
        answers.write(HEAD.pack(len(said), number) + said)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)  # whoever asked was killed


def serve(kind: type[Question], answer: Callable[[Question], Any]) -> None:
    """Answer one question after the other, until there are no more."""
    questions, answers = frames()
    decoder = msgspec.msgpack.Decoder(kind)
    while head := questions.read(HEAD.size):
        length, number = HEAD.unpack(head)
        reply(answers, number, encode(answer(decoder.decode(questions.read(length)))))


async def serve_many(kind: type[Question], answer: Callable[[Question], Awaitable[Any]]) -> None:
    """Answer many questions at once, until there are no more."""
    questions, answers = frames()
    decoder = msgspec.msgpack.Decoder(kind)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), questions)
    tasks = set()

    async def find(number: int, question: Question) -> None:
        """A fault in `answer` ends the process: whoever asks hears so at once, and not after a time."""
        try:
            said = encode(await answer(question))
        except Exception:
            traceback.print_exc()
            os._exit(1)
        reply(answers, number, said)

    with suppress(asyncio.IncompleteReadError):
        while True:
            length, number = HEAD.unpack(await reader.readexactly(HEAD.size))
            task = asyncio.create_task(find(number, decoder.decode(await reader.readexactly(length))))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
