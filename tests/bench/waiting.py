"""`waiting`: a thousand agents wait for answers at once: what they take of the server, and of those who write."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import own_process, percentile
from tests.peers import resident_bytes

AGENTS, ANSWERED = 1000, 100
SECONDS = 2.0
WAIT = 50
AT_ONCE = 500
"""Of a batch; and asks of a page."""
POST = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {}\r\n{}Content-Length: {}\r\n\r\n"


class Peer(NamedTuple):
    """A connection that is kept, and costs the client little."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def ask(self, path: str, body: Any, kind: str = "application/json", headers: str = "") -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.writer.write(POST.format(path, kind, headers, len(text)).encode() + text.encode())

    async def answer(self) -> bytes:
        """The body. Raises Unsound for any answer but 200."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise Unsound(head.decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return await self.reader.readexactly(int(length.partition(b":")[2]))


class Round(NamedTuple):
    alone_ms: float
    among_ms: float
    grown: float
    """MiB."""
    delivered_ms: float


def measure(rounds: int) -> list[Figure]:
    found: list[Round] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as server, own_process() as clients:
            token = (Path(folder) / "tokens" / "control").read_text().strip()
            work = clients.submit(run, server.port, server.process.pid, token, number % 2 == 1)
            found.append(work.result())
    memory = f"the server's memory for {AGENTS:,} agents that wait for an answer"
    return [
        Figure("waiting", memory, "MiB", [one.grown for one in found], Target(64, at_most=True)),
        Figure(
            "waiting",
            f"p99 of a writer beside {AGENTS:,} agents that wait, against none",
            "ms",
            [one.among_ms for one in found],
            Target(1.2, at_most=True),
            [one.alone_ms for one in found],
        ),
        Figure(
            "waiting",
            "p99 from an answer until the agent has it",
            "ms",
            [one.delivered_ms for one in found],
            Target(500, at_most=True),
        ),
    ]


def run(port: int, pid: int, token: str, is_after: bool) -> Round:
    return asyncio.run(round_of(port, pid, token, is_after))


async def round_of(port: int, pid: int, token: str, is_after: bool) -> Round:
    """`is_after`: the writer alone is measured last."""
    await prepare(port)
    alone = [] if is_after else await writing(port)
    before = resident_bytes(pid)
    agents = await waiting(port)
    grown = (resident_bytes(pid) - before) / (1 << 20)
    among = await writing(port)
    delivered = [await delivering(port, token, number, agents[number]) for number in range(ANSWERED)]
    for agent in agents:
        agent.writer.close()
    await until(lambda: asks_that_wait(port, lambda can: not can), AGENTS - ANSWERED, 20.0)
    alone = alone or await writing(port)
    return Round(p99_ms(alone), p99_ms(among), grown, p99_ms(delivered))


def p99_ms(seconds: list[float]) -> float:
    return percentile(seconds, 0.99) * 1000


async def prepare(port: int) -> None:
    peer = await Peer.to(port)
    for begin in range(0, AGENTS, AT_ONCE):
        lines = "\n".join(map(ask_of, range(begin, begin + AT_ONCE)))
        peer.ask("/api/events", lines, "application/x-ndjson")
        if json.loads(await peer.answer())["accepted"] != AT_ONCE:
            raise Unsound("not all asks were taken")
    peer.writer.close()


def ask_of(number: int) -> str:
    attention = {"reason": "permission", "message": "May I?"}
    data = {"type": "permission_request", "tool": "Bash", "input": {"command": "ls"}, "attention": attention}
    return json.dumps({"type": "action", "sessionId": f"w{number}", "eventId": f"ask-{number}", "data": data})


async def waiting(port: int) -> list[Peer]:
    agents = []
    for number in range(AGENTS):
        agents.append(agent := await Peer.to(port))
        agent.ask(f"/api/sessions/w{number}/control", {"ask": f"ask-{number}", "wait": WAIT})
    await until(lambda: asks_that_wait(port, bool), AGENTS, 30.0)
    return agents


async def asks_that_wait(port: int, wanted: Callable[[bool], bool]) -> int:
    """How many open asks can be answered, or cannot."""
    number, cursor = 0, 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        while cursor is not None:
            page = (await http.get("/api/asks", params={"limit": AT_ONCE, "cursor": cursor})).json()
            number += sum(wanted(ask["canAnswer"]) for ask in page["items"])
            cursor = page["nextCursor"]
    return number


async def until(count: Callable[[], Awaitable[int]], wanted: int, seconds: float) -> None:
    begun = time.monotonic()
    while (number := await count()) < wanted:
        if time.monotonic() > begun + seconds:
            raise Unsound(f"{number} of {wanted} agents")
        await asyncio.sleep(0.2)


async def writing(port: int) -> list[float]:
    """Seconds of each write of one who writes as fast as it is answered."""
    peer, times, begun = await Peer.to(port), [], time.monotonic()
    while time.monotonic() < begun + SECONDS:
        sent = time.perf_counter()
        peer.ask("/api/actions/writer", {"type": "note", "text": "hello"})
        await peer.answer()
        times.append(time.perf_counter() - sent)
    peer.writer.close()
    return times


async def delivering(port: int, token: str, number: int, agent: Peer) -> float:
    """Seconds from an answer that is sent until the agent has it."""
    person = await Peer.to(port)
    begun = time.perf_counter()
    person.ask(f"/api/asks/ask-{number}/answer", {"decision": "allow"}, headers=f"Authorization: Bearer {token}\r\n")
    (item,) = json.loads(await agent.answer())["items"]
    seconds = time.perf_counter() - begun
    await person.answer()
    person.writer.close()
    if item["decision"] != "allow":
        raise Unsound(f"{item}")
    return seconds
