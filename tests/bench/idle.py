"""`idle`: how long an action takes while thousands of connections say nothing, or say it slowly."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path

import uvloop

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import Posted, open_loop, own_process, percentile
from tests.peers import sockets_of
from tests.wire import http_request

IDLE = int(os.environ.get("IDLE_CONNECTIONS", 5000))
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 2 + IDLE // 625)]
"""Each has fewer than the server takes of one, so that all of them stay until their time is over."""
EVENTS_PER_SECOND = 300
SECONDS = 8
CONNECTIONS = 16
DRIP_SECONDS = 1.0
SETTLE_SECONDS = 8.0
MOST_SECONDS = 60.0
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'
REQUESTS = [http_request("POST", f"/api/actions/bench-{n % 8}", ACTION) for n in range(EVENTS_PER_SECOND * SECONDS)]
WORDS = (b"", REQUESTS[0][:20], REQUESTS[0][:-1], b"GET /health HTTP/1.1\r\nX: ")
"""What they say: nothing, half the headers, nearly a whole body, a header that goes on and on."""


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        generator, crowd = (stack.enter_context(own_process()) for _ in range(2))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        appliance = stack.enter_context(Appliance(folder))
        alone, among = [], []
        for _ in range(rounds):
            alone.append(generator.submit(open_loop, appliance.port, REQUESTS, EVENTS_PER_SECOND, CONNECTIONS).result())
            holding = crowd.submit(hold, appliance.port, SETTLE_SECONDS + SECONDS + 4)
            wait_for_crowd(appliance.process.pid)
            among.append(generator.submit(open_loop, appliance.port, REQUESTS, EVENTS_PER_SECOND, CONNECTIONS).result())
            holding.result()
    compared = f"p99 of an action among {IDLE:,} idle and slow connections, against without them"
    return [
        Figure("idle", compared, "ms", [p99(of) for of in among], Target(2, at_most=True), [p99(of) for of in alone])
    ]


def p99(posted: list[Posted]) -> float:
    return percentile([event.took_ms for event in posted], 0.99)


def wait_for_crowd(pid: int) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while sockets_of(pid) < IDLE * 0.9:
        if time.monotonic() > deadline:
            raise Unsound(f"only {sockets_of(pid)} connections are held")
        time.sleep(0.1)


# --------------------------------------------------------------------- the crowd


def hold(port: int, seconds: float) -> None:
    """Keep so many connections; whichever is closed is opened again."""
    uvloop.run(_hold(port, seconds))


async def _hold(port: int, seconds: float) -> None:
    async def one(number: int, address: str, words: bytes) -> None:
        await asyncio.sleep(number / IDLE * SETTLE_SECONDS)
        while True:
            with suppress(OSError):
                await one_connection(port, address, words)

    kinds = islice(zip(cycle(ADDRESSES), cycle(WORDS), strict=False), IDLE)
    ones = [asyncio.create_task(one(n, *kind)) for n, kind in enumerate(kinds)]
    await asyncio.sleep(seconds)
    for task in ones:
        task.cancel()
    await asyncio.gather(*ones, return_exceptions=True)


async def one_connection(port: int, address: str, words: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(words)
        while words.endswith(b"X: ") and not reader.at_eof():
            writer.write(b"x")
            await asyncio.sleep(DRIP_SECONDS)
        await reader.read()
    finally:
        writer.transport.abort()
