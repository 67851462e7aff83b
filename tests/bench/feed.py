"""`feed`: how long after its commit an event is with every reader of /ws."""

from __future__ import annotations

import selectors
import tempfile
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec

from tests.appliance import Appliance, Server
from tests.bench.baselines import baseline
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import GRACE_SECONDS, Posted, one_by_one, open_loop, own_process, percentile
from tests.wire import WsReader, http_request

SECONDS = 10
LONGEST_SECONDS = 60.0
CONNECTIONS = 16
SESSIONS = 8
PAGE = 1000
POLL_SECONDS = 0.02
LOOK_SECONDS = 0.005
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'
REQUESTS = [http_request("POST", f"/api/actions/bench-{n}", ACTION) for n in range(SESSIONS)]


class Crowd(NamedTuple):
    readers: int
    events_per_second: int

    def __str__(self) -> str:
        return f"{self.readers} readers, {self.events_per_second:,} events a second"


USUAL = Crowd(100, 500)


@dataclass(frozen=True)
class Heard:
    """What one reader received: the cursors, and CLOCK_MONOTONIC (ns) when each arrived."""

    cursors: array[int]
    received_ns: array[int]
    close_code: int | None


@dataclass(frozen=True)
class Round:
    posted: Sequence[Posted]
    heard: Sequence[Heard]
    committed_ns: Mapping[int, int]
    """By cursor, what the store says of when it committed it; empty for one that does not say."""

    @property
    def rate(self) -> float:
        answered = [event.answered_ns for event in self.posted]
        return (len(answered) - 1) / (max(answered) - min(answered)) * 1e9

    @property
    def whole(self) -> int:
        """How many readers had every event, in cursor order."""
        cursors = sorted(event.cursor for event in self.posted)
        return sum(reader.cursors.tolist() == cursors for reader in self.heard)

    @property
    def p99_ms(self) -> float:
        """From the answer to the writer, or from `receivedAt`, whichever is longer."""
        answered_ns = {event.cursor: event.answered_ns for event in self.posted}
        views = [view for view in (answered_ns, self.committed_ns) if view]
        return max(percentile(list(_delays_ms(self.heard, view)), 0.99) for view in views)


class _Event(msgspec.Struct, rename="camel"):
    cursor: int
    received_at: datetime


class _Page(msgspec.Struct):
    items: list[_Event]


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        appliance, bare = stack.enter_context(Appliance(folder)), stack.enter_context(baseline("bare-feed"))
        poster, readers = stack.enter_context(own_process()), stack.enter_context(own_process())
        poster.submit(one_by_one, appliance.port, REQUESTS).result()
        served, compared = [], []
        for _ in range(rounds):
            served.append(round_of(appliance, poster, readers, USUAL))
            compared.append(Round(*_feed(bare, poster, readers, USUAL), {}))
    return _figures(served, compared)


def round_of(appliance: Appliance, poster: Executor, readers: Executor, crowd: Crowd, others: int = 0) -> Round:
    """One round, while so many others are connected."""
    posted, heard = _feed(appliance, poster, readers, crowd, others)
    return Round(posted, heard, _committed_ns(appliance, min(posted).cursor))


def _figures(served: Sequence[Round], compared: Sequence[Round]) -> list[Figure]:
    bare = "the same from a bare ASGI feed that stores nothing"
    within, paced = Target(100, at_most=True), Target(0.98 * USUAL.events_per_second)
    whole = [min(measured.whole for measured in served)]
    return [
        Figure("feed", f"p99 from commit to receipt, {USUAL}", "ms", [r.p99_ms for r in served], within),
        Figure("feed", bare, "ms", [r.p99_ms for r in compared], within),
        Figure("feed", "events that were taken meanwhile", "a second", [r.rate for r in served], paced),
        Figure("feed", bare, "a second", [r.rate for r in compared], paced),
        Figure("feed", "readers that got all, in cursor order (worst round)", "", whole, Target(USUAL.readers)),
    ]


def _feed(
    server: Server, poster: Executor, readers: Executor, crowd: Crowd, others: int = 0
) -> tuple[list[Posted], list[Heard]]:
    requests = REQUESTS * (crowd.events_per_second * SECONDS // SESSIONS)
    wait_for_readers(server, others)
    listening = readers.submit(listen, server.port, crowd.readers, len(requests), LONGEST_SECONDS)
    wait_for_readers(server, others + crowd.readers)
    posted = poster.submit(open_loop, server.port, requests, crowd.events_per_second, CONNECTIONS).result()
    return posted, listening.result()


def wait_for_readers(server: Server, count: int) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        while (connected := client.get("/health").json()["websocket"]["totalConnections"]) != count:
            if time.monotonic() > deadline:
                raise Unsound(f"{connected} readers are connected where {count} should be")
            time.sleep(POLL_SECONDS)


def _committed_ns(server: Server, first: int) -> dict[int, int]:
    """`receivedAt` of the events from `first` on, in CLOCK_MONOTONIC."""
    wall_ahead_ns = time.time_ns() - time.monotonic_ns()
    return {event.cursor: int(event.received_at.timestamp() * 1e9) - wall_ahead_ns for event in _events(server, first)}


def _events(server: Server, first: int) -> Iterator[_Event]:
    after = first - 1
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        while True:
            answer = client.get("/api/events", params={"after": after, "limit": PAGE})
            page = msgspec.json.decode(answer.raise_for_status().content, type=_Page).items
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].cursor


def _delays_ms(heard: Sequence[Heard], since_ns: Mapping[int, int]) -> Iterator[float]:
    for reader in heard:
        for cursor, received_ns in zip(reader.cursors, reader.received_ns, strict=True):
            yield (received_ns - since_ns[cursor]) / 1e6


class _Reader(WsReader):
    """Notes the cursor of every event after the greeting, and when it came."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.cursors = array("q")
        self.received_ns = array("q")
        self._greeted = False
        self._now_ns = 0

    def take(self) -> bool:
        self._now_ns = time.monotonic_ns()
        return super().take()

    def message(self, payload: bytes) -> None:
        if not self._greeted:
            self._greeted = True
            return
        start = payload.find(b'"cursor":') + 9
        self.cursors.append(int(payload[start : payload.find(b",", start)]))
        self.received_ns.append(self._now_ns)


def listen(port: int, readers: int, expected: int, seconds: float) -> list[Heard]:
    """Read /ws `readers` times over, until each has `expected` events or has ended, at most `seconds`.

    They look every 5 ms: taking several events at a time costs the two cores much less than taking each as it comes,
    and the wait is part of what is measured.
    """
    deadline = time.monotonic() + seconds
    connected = [_Reader(port) for _ in range(readers)]
    with selectors.DefaultSelector() as selector:
        for reader in connected:
            selector.register(reader, selectors.EVENT_READ, reader)
        while selector.get_map() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            for key, _ in selector.select(LOOK_SECONDS):
                if not key.data.take() or len(key.data.cursors) >= expected:
                    selector.unregister(key.data)
    for reader in connected:
        reader.close()
    return [Heard(reader.cursors, reader.received_ns, reader.close_code) for reader in connected]
