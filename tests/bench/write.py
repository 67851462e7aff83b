"""`write`: what the store takes, what it keeps up with, and what that costs; alone, and with 100 readers.

`acknowledged` is what was answered 200 a second. `level` is the same events by the time until all of them are in the
search index and in the file tree, and with every reader that wants them: what can be sustained.

`--against PATH` runs the server of another working tree beside this one, load by load in turn; it is the baseline.
"""

from __future__ import annotations

import json
import random
import selectors
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.appliance import REPOSITORY, Appliance
from tests.bench.feed import LOOK_SECONDS, wait_for_readers
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import NUMBER, cpu_of_all, fresh_loop, own_process
from tests.wire import NDJSON, RECEIVE_BYTES, WsReader, http_request

SESSIONS = 60
READERS = 100
TENTH = 10
"""Each reader names every tenth session."""
EVENT_BYTES = 600
WORDS = 2000
SECONDS = 2.0
PATIENCE = 120.0
POLL_SECONDS = 0.02
MARK = "bench-end"
"""The session whose event tells the readers that there is no more."""


class Load(NamedTuple):
    events: int
    """In a batch; 0: single actions."""
    connections: int

    def __str__(self) -> str:
        what = f"batches of {self.events:,}" if self.events else "single actions"
        return f"{what}, {self.connections} connection{'s' * (self.connections > 1)}"


LOADS = {
    "single-1": Load(0, 1),
    "single-16": Load(0, 16),
    "single-64": Load(0, 64),
    "batch-1": Load(1, 64),
    "batch-3": Load(3, 64),
    "batch-10": Load(10, 16),
    "batch-100": Load(100, 16),
    "batch-1000": Load(1000, 8),
}


class Measured(NamedTuple):
    acknowledged: float
    level: float
    cpu_us: float
    """Of the server and its children for an event, until level."""
    p99_ms: float


Rounds = dict[tuple[str, int, Path], list[Measured]]


def measure(rounds: int, against: Path | None, names: Sequence[str], seconds: float) -> list[Figure]:
    roots = [REPOSITORY, *([against.resolve()] if against else [])]
    found: Rounds = {}
    with ExitStack() as stack:
        generator, readers = stack.enter_context(own_process()), stack.enter_context(own_process())
        for number in range(rounds):
            with ExitStack() as running:
                folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
                servers = {
                    root: running.enter_context(Appliance(folder / f"{place}", root=root))
                    for place, root in enumerate(roots)
                }
                for name in names:
                    for count in (0, READERS):
                        for root in roots if number % 2 else reversed(roots):
                            bench = Bench(servers[root], generator, readers)
                            key = (name, count, root)
                            found.setdefault(key, []).append(bench.run(LOADS[name], count, seconds))
    return list(figures(found, names, roots))


class Bench:
    """One load on one server."""

    def __init__(self, server: Appliance, generator: Executor, readers: Executor) -> None:
        self.server = server
        self.generator = generator
        self.readers = readers
        self.client = httpx.Client(base_url=server.url, trust_env=False)

    def run(self, load: Load, readers: int, seconds: float) -> Measured:
        before, cpu = self.health()["cursor"], cpu_of_all(self.server.process.pid)
        requests = list(requests_of(load, f"{before}"))
        listening = self.listen(readers)
        begun = time.perf_counter()
        done = self.generator.submit(fresh_loop, self.server.port, requests, load.connections, seconds).result()
        newest: int = self.post(MARK)["cursor"]
        self.wait_until_level(newest)
        heard = listening.result() if listening else []
        took = time.perf_counter() - begun
        events = newest - before
        self.check(heard, before)
        each = max(1, load.events)
        cpu = cpu_of_all(self.server.process.pid) - cpu
        return Measured(done.rate * each, events / took, cpu / events * 1e6, done.p99_ms)

    def listen(self, count: int) -> Future[list[int]] | None:
        if not count:
            return None
        wait_for_readers(self.server, 0)
        listening = self.readers.submit(listen, self.server.port, count, PATIENCE)
        wait_for_readers(self.server, count)
        return listening

    def wait_until_level(self, cursor: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while (health := self.health())["searchLag"] or health["tree"]["cursor"] < cursor:
            if time.monotonic() > deadline:
                raise Unsound(f"not level: {health}")
            time.sleep(POLL_SECONDS)

    def check(self, heard: list[int], before: int) -> None:
        """Raises Unsound unless each reader got as many events as its sessions have."""
        with closing(sqlite3.connect(f"file:{self.server.folder / 'sessions.db'}?mode=ro", uri=True)) as database:
            numbers = dict(
                database.execute("SELECT session_id, count(*) FROM events WHERE cursor > ? GROUP BY 1", (before,))
            )
        for reader, events in enumerate(heard):
            if events != (expected := sum(numbers.get(name, 0) for name in names_of(reader))):
                raise Unsound(f"reader {reader} got {events} events of {expected}")

    def health(self) -> Any:
        return self.client.get("/health").raise_for_status().json()

    def post(self, session: str) -> Any:
        return self.client.post(f"/api/actions/{session}", json={"type": "end"}).raise_for_status().json()


def requests_of(load: Load, prefix: str) -> Iterator[bytes]:
    """One for each session; the same events with other ids when its NUMBER is another one."""
    chance = random.Random(prefix)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 11))) for _ in range(WORDS)]
    for session in range(SESSIONS):
        if not load.events:
            body = event_of(chance, words, {"type": "tool_result", "eventId": f"{prefix}-{NUMBER.decode()}"})
            yield http_request("POST", f"/api/actions/bench-{session}", body)
            continue
        lines = (
            event_of(chance, words, {"type": "tool_result"}, f"bench-{session}", f"{prefix}-{NUMBER.decode()}-{n}")
            for n in range(load.events)
        )
        yield http_request("POST", "/api/events", b"\n".join(lines), NDJSON)


def event_of(
    chance: random.Random, words: Sequence[str], data: dict[str, str], session: str = "", id: str = ""
) -> bytes:
    """Of EVENT_BYTES; a line of a batch, if it names its session."""
    line = {"type": "action", "sessionId": session, "eventId": id, "timestamp": "2026-01-01T00:00:00.000Z"}
    text = " ".join(chance.choices(words, k=EVENT_BYTES // 3))

    def encoded(text: str) -> bytes:
        event = data | {"text": text}
        return json.dumps(line | {"data": event} if session else event, separators=(",", ":")).encode()

    return encoded(text[: EVENT_BYTES - len(encoded(""))])


# ---------------------------------------------------------------------- readers


def names_of(reader: int) -> list[str]:
    return [*(f"bench-{session}" for session in range(reader % TENTH, SESSIONS, TENTH)), MARK]


class Reader(WsReader):
    """Counts events without taking frames apart, which would cost more than to send them."""

    EVENT = b'{"cursor":'
    END = f'"sessionId":"{MARK}"'.encode()

    def __init__(self, port: int, number: int) -> None:
        super().__init__(port, "/ws?session=" + "&session=".join(names_of(number)))
        self.events = 0
        self.rest = b""

    def take(self) -> bool:
        """False once it has had the end."""
        if not (more := self._socket.recv(RECEIVE_BYTES)):
            raise Unsound(f"a reader was let go after {self.events} events")
        data = self.rest + more
        self.events += data.count(self.EVENT) - self.rest.count(self.EVENT)
        self.rest = data[-len(self.END) :]
        return self.END not in data


def listen(port: int, count: int, patience: float) -> list[int]:
    """How many events each of so many readers had when all had the end. They look every 5 ms, as those of `feed`."""
    deadline = time.monotonic() + patience
    readers = [Reader(port, number) for number in range(count)]
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ, reader)
        while selector.get_map():
            if time.monotonic() > deadline:
                raise Unsound("not all readers had the end in time")
            time.sleep(LOOK_SECONDS)
            for key, _ in selector.select(LOOK_SECONDS):
                if not key.data.take():
                    selector.unregister(key.data)
    for reader in readers:
        reader.close()
    return [reader.events for reader in readers]


# ---------------------------------------------------------------------- figures


WANTED = {  # against the tree of another version
    "single-64": 1.6, "batch-3": 1.8, "batch-10": 2.0, "batch-100": 2.5
}  # fmt: skip
WANTED_WITH_READERS = {"batch-10": 0.6, "batch-100": 0.5}


def figures(found: Rounds, names: Sequence[str], roots: Sequence[Path]) -> Iterator[Figure]:
    here, *others = roots
    for name in names:
        for count in (0, READERS):
            what = f"{LOADS[name]}" + (f", {count} readers" if count else "")
            measured = found[name, count, here]
            baseline = found[name, count, others[0]] if others else []
            for field, unit in UNITS.items():
                target = (
                    Target(WANTED[name]) if field == "level" and baseline and not count and name in WANTED else None
                )
                yield Figure("write", f"{what}: {field}", unit, of(measured, field), target, of(baseline, field))
            yield Figure("write", f"{what}: level against acknowledged", "", shares(measured), Target(0.8))
        for root in roots:
            alone, among = of(found[name, 0, root], "acknowledged"), of(found[name, READERS, root], "acknowledged")
            what = f"{LOADS[name]}, acknowledged: {READERS} readers against none{', before' * (root != here)}"
            target = Target(WANTED_WITH_READERS[name]) if name in WANTED_WITH_READERS and root == here else None
            yield Figure("write", what, "events a second", among, target, alone)


UNITS = {"acknowledged": "events a second", "level": "events a second", "cpu_us": "µs an event", "p99_ms": "ms"}


def of(measured: Sequence[Measured], field: str) -> list[float]:
    return [getattr(one, field) for one in measured]


def shares(measured: Sequence[Measured]) -> list[float]:
    return [one.level / one.acknowledged for one in measured]
