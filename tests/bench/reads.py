"""`reads`: what the queries of the dashboard cost with a thousand events in the store, and with a million.

The same ten small sessions are in both stores and are what is asked for, so that the answers are of one size and only
the store is larger. The large one is filled the way agents fill it: every session has its next event in every batch.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop

from tests.appliance import Appliance, Server
from tests.bench.figures import Figure, Target
from tests.bench.load import cpu_seconds, expect_200, one_by_one, own_process
from tests.wire import NDJSON, HttpClient, connect, http_request

SMALL_SESSIONS, SMALL_EVENTS = 10, 100
LARGE_SESSIONS, LARGE_EVENTS = 990, 1010
LOADERS = 2
REQUESTS = 100
QUIET_SHARE = 0.05
QUIET_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 120.0
PATHS = (
    "/api/query/recent",
    "/api/query/stats",
    "/api/sessions/small-3",
    "/api/sessions/small-3/events?limit=100",
)


def measure(rounds: int) -> list[Figure]:
    few = [(f"small-{n}", SMALL_EVENTS) for n in range(SMALL_SESSIONS)]
    many = few + [(f"large-{n}", LARGE_EVENTS) for n in range(LARGE_SESSIONS)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        small = stack.enter_context(Appliance(folder / "small"))
        large = stack.enter_context(Appliance(folder / "large"))
        generator.submit(fill, small.port, few).result()
        generator.submit(fill, large.port, many).result()
        _wait_until_quiet(small)
        _wait_until_quiet(large)
        return [_figure(generator, small, large, path, rounds) for path in PATHS]


def _figure(generator: Executor, small: Server, large: Server, path: str, rounds: int) -> Figure:
    pairs = [(_p50_ms(generator, large, path), _p50_ms(generator, small, path)) for _ in range(rounds)]
    with_million, with_thousand = zip(*pairs, strict=True)
    compared = f"p50 of GET {path}, a million events against a thousand"
    return Figure("reads", compared, "ms", with_million, Target(2, at_most=True), with_thousand)


def _p50_ms(generator: Executor, server: Server, path: str) -> float:
    return median(generator.submit(one_by_one, server.port, [http_request("GET", path)] * REQUESTS).result()) * 1000


def _wait_until_quiet(server: Server) -> None:
    """Until what follows the writing (the file tree, the search index) has caught up, as far as it does in time."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while time.monotonic() < deadline:
        before = cpu_seconds(server.process.pid)
        time.sleep(QUIET_SECONDS)
        if cpu_seconds(server.process.pid) - before < QUIET_SHARE * QUIET_SECONDS:
            return


def fill(port: int, sessions: Sequence[tuple[str, int]]) -> None:
    """Give each session its number of actions, through POST /api/events."""
    uvloop.run(_fill(port, sessions))


async def _fill(port: int, sessions: Sequence[tuple[str, int]]) -> None:
    batches = _batches(sessions)
    async with asyncio.TaskGroup() as loading:
        for _ in range(LOADERS):
            loading.create_task(_post_all(port, batches))


async def _post_all(port: int, batches: Iterator[bytes]) -> None:
    client = await connect(port, HttpClient)
    for batch in batches:
        expect_200(await client.ask(http_request("POST", "/api/events", batch, NDJSON)))
    client.close()


def _batches(sessions: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    for number in range(max(events for _, events in sessions)):
        yield b"".join(_line(session, number) for session, events in sessions if number < events)


def _line(session: str, number: int) -> bytes:
    return (
        f'{{"type":"action","sessionId":"{session}","eventId":"read-{number}",'
        f'"data":{{"type":"file_write","path":"src/module-{number}.js","lines":{number}}}}}\n'
    ).encode()
