"""Generators of load, each meant to run in a process of its own; and how much processor a process used."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from tests.bench.figures import Unsound
from tests.wire import Answer, HttpClient, HttpConnection, connect

GRACE_SECONDS = 10.0


def own_process() -> ProcessPoolExecutor:
    """One worker, started afresh rather than forked, so that it has no threads or sockets of the caller."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far (Linux)."""
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of_all(pid: int) -> float:
    """The same of a process and of those that it has started, as far as they run."""
    parents = {int(other.name): int(stat_of(int(other.name))[1]) for other in Path("/proc").glob("[0-9]*")}
    return cpu_seconds(pid) + sum(cpu_of_all(child) for child, parent in parents.items() if parent == pid)


def stat_of(pid: int) -> list[str]:
    """From its state on; of one that is gone, nothing but zeros."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["0"] * 20


def percentile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@dataclass(frozen=True)
class Throughput:
    """What a closed loop saw between the end of its warm-up and the end of its time."""

    answers: int
    seconds: float
    p99_ms: float
    cpu_share: float

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


class _Tally:
    """What the connections of a closed loop have in common."""

    def __init__(self) -> None:
        self.measuring = False
        self.finished = False
        self.latencies = array("d")
        self.failures: Counter[str] = Counter()
        self.open = 0
        self.all_closed = asyncio.Event()


class _Caller(HttpConnection):
    """Sends the next request as soon as it has the answer."""

    def __init__(self, requests: Iterator[bytes], tally: _Tally) -> None:
        super().__init__()
        self._requests = requests
        self._tally = tally
        self._sent = 0.0

    def call(self) -> None:
        self._tally.open += 1
        self._sent = time.perf_counter()
        self.send(next(self._requests))

    def answered(self, status: int, body: bytes) -> None:
        tally = self._tally
        now = time.perf_counter()
        if status != 200:
            tally.failures[f"{status} {body[:200]!r}"] += 1
        elif tally.measuring:
            tally.latencies.append(now - self._sent)
        if tally.finished:
            self.close()
            return
        self._sent = now
        self.send(next(self._requests))

    def lost(self, error: Exception) -> None:
        self._tally.open -= 1
        if not self._tally.open:
            self._tally.all_closed.set()
        if not self._tally.finished:
            self._tally.failures[repr(error)] += 1


def closed_loop(port: int, requests: Sequence[bytes], connections: int, warm_up: float, seconds: float) -> Throughput:
    """Each connection sends one of `requests` over and over; raises Unsound if any answer is not 200."""
    senders = [repeat(requests[number % len(requests)]) for number in range(connections)]
    return uvloop.run(_closed_loop(port, senders, warm_up, seconds))


NUMBER = b"########"


def numbered(requests: Sequence[bytes]) -> Iterator[bytes]:
    """Each in turn, for ever; the NUMBER in it is another one each time."""
    return (request.replace(NUMBER, b"%08d" % number) for number, request in enumerate(cycle(requests)))


def fresh_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Throughput:
    """The same with `numbered` requests, and without a warm-up."""
    return uvloop.run(_closed_loop(port, [numbered(requests)] * connections, 0.0, seconds))


async def _closed_loop(port: int, senders: Sequence[Iterator[bytes]], warm_up: float, seconds: float) -> Throughput:
    tally = _Tally()
    for requests in senders:
        caller = await connect(port, partial(_Caller, requests, tally))
        caller.call()
    await asyncio.sleep(warm_up)
    begun, cpu = time.perf_counter(), time.process_time()
    tally.measuring = True
    await asyncio.sleep(seconds)
    tally.measuring = False
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    tally.finished = True
    await asyncio.wait_for(tally.all_closed.wait(), GRACE_SECONDS)
    if tally.failures:
        raise Unsound(f"answers that were not 200: {tally.failures.most_common(3)}")
    return Throughput(len(tally.latencies), took, percentile(tally.latencies, 0.99) * 1000, cpu / took)


def one_by_one(port: int, requests: Sequence[bytes]) -> list[float]:
    """The seconds each request took on one connection, the next sent when the last was answered."""
    return uvloop.run(_one_by_one(port, requests))


async def _one_by_one(port: int, requests: Sequence[bytes]) -> list[float]:
    client = await connect(port, HttpClient)
    took = []
    for request in requests:
        begun = time.perf_counter()
        expect_200(await client.ask(request))
        took.append(time.perf_counter() - begun)
    client.close()
    return took


def expect_200(answer: Answer) -> bytes:
    if answer.status != 200:
        raise Unsound(f"answered {answer.status}: {answer.body[:500]!r}")
    return answer.body


class Posted(NamedTuple):
    """An event that was acknowledged: its cursor, and CLOCK_MONOTONIC (ns) when the answer arrived, and it was sent."""

    cursor: int
    answered_ns: int
    sent_ns: int

    @property
    def took_ms(self) -> float:
        return (self.answered_ns - self.sent_ns) / 1e6


class _Written(msgspec.Struct):
    cursor: int


def open_loop(port: int, requests: Iterable[bytes], rate: float, connections: int) -> list[Posted]:
    """Send `rate` requests a second whatever the answers take, as long as one of the connections is free."""
    return uvloop.run(_open_loop(port, requests, rate, connections))


def fresh_open_loop(
    port: int, requests: Sequence[bytes], rate: float, connections: int, seconds: float
) -> list[Posted]:
    """As `open_loop`, with `numbered` requests."""
    return open_loop(port, islice(numbered(requests), round(rate * seconds)), rate, connections)


async def _open_loop(port: int, requests: Iterable[bytes], rate: float, connections: int) -> list[Posted]:
    free: asyncio.Queue[HttpClient] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await connect(port, HttpClient))
    posted: list[Posted] = []
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number, request in enumerate(requests):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks.create_task(_post(await free.get(), request, free, posted))
    while not free.empty():
        free.get_nowait().close()
    return posted


async def _post(client: HttpClient, request: bytes, free: asyncio.Queue[HttpClient], posted: list[Posted]) -> None:
    sent_ns = time.monotonic_ns()
    answer = await client.ask(request)
    answered_ns = time.monotonic_ns()
    free.put_nowait(client)
    posted.append(Posted(msgspec.json.decode(expect_200(answer), type=_Written).cursor, answered_ns, sent_ns))
