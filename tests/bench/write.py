"""`write`: what the store takes, what it keeps up with, and what that costs; alone, and with 100 readers.

`acknowledged` is what was answered 200 a second. `level` is the same events by the time until all of them are in the
search index and in the file tree, and with every reader that wants them: what can be sustained. The lags are those at
0.6 of the largest rate.

`--against PATH` runs the server of another working tree beside this one, load by load in turn.
"""

from __future__ import annotations

import json
import random
import selectors
import sqlite3
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from itertools import chain, product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx

from tests.appliance import REPOSITORY, Appliance
from tests.bench.feed import LOOK_SECONDS, wait_for_readers
from tests.bench.figures import Figure, Target, Unsound, number_of, rows_of
from tests.bench.load import NUMBER, cpu_of_all, fresh_loop, fresh_open_loop, own_process, percentile
from tests.wire import NDJSON, RECEIVE_BYTES, WsReader, http_request

SESSIONS = 60
READERS = 100
TENTH = 10
"""Each reader names every tenth session."""
EVENT_BYTES = 600
WORDS = 2000
SHARE = 0.6
"""Of the largest rate, at which lags are measured."""
PATIENCE = 120.0
POLL_SECONDS = 0.02
LOOK_AT_LAG_SECONDS = 0.05
END = "bench-end"
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
PACED = ((LOADS["single-16"], 0), (LOADS["single-64"], 0), (LOADS["batch-10"], READERS))


class Measured(NamedTuple):
    """A closed loop: each connection sends the next request when it has its answer."""

    acknowledged: float
    level: float
    cpu_us: float
    """Of the server and its children for an event, until level."""
    p99_ms: float


class Paced(NamedTuple):
    """An open loop: so many events a second are offered, whatever the answers take."""

    rate: float
    p99_ms: float
    index_lag: float
    """Seconds, at most."""
    tree_lag: float
    feed_p99_ms: float
    """From commit to receipt, of the oldest event that a reader takes at once."""


Rounds = dict[tuple[Load, int, Path], list[Measured]]
"""By load, number of readers, and version."""


def measure(rounds: int, options: Any) -> list[Figure]:
    roots = [REPOSITORY, *([options.against.resolve()] if options.against else [])]
    loads = [LOADS[name] for name in options.loads]
    found: Rounds = {}
    with ExitStack() as stack:
        processes = [stack.enter_context(own_process()) for _ in range(2)]
        for number in range(rounds):
            with serving(roots) as servers:
                for load, readers in product(loads, (0, READERS)):
                    for root in roots if number % 2 else reversed(roots):
                        measured = Bench(servers[root], *processes).run(load, readers, options.seconds)
                        found.setdefault((load, readers, root), []).append(measured)
        with serving(roots) as servers:
            paced = {
                (load, readers, root): Bench(servers[root], *processes).pace(load, readers, rate, options.paced_seconds)
                for load, readers in PACED
                for root in roots
                if (rate := SHARE * largest_rate(found, load, readers, root))
            }
    print(rate_table(found, roots), lag_table(paced, roots), sep="\n\n", end="\n\n")
    return list(figures(found, loads, roots))


@contextmanager
def serving(roots: Sequence[Path]) -> Iterator[Mapping[Path, Appliance]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield {root: stack.enter_context(Appliance(folder / f"{n}", root=root)) for n, root in enumerate(roots)}


def largest_rate(found: Rounds, load: Load, readers: int, root: Path) -> float:
    """For singles what is acknowledged of them on as many connections; for batches the highest level of any size."""
    if not load.events:
        return median_of(found.get((load, readers, root), ()), "acknowledged")
    batches = [
        measured for (other, number, at), measured in found.items() if other.events and (number, at) == (readers, root)
    ]
    return max((median_of(measured, "level") for measured in batches), default=0.0)


def median_of(measured: Sequence[Measured], field: str) -> float:
    return median(of(measured, field)) if measured else 0.0


def of(measured: Sequence[Measured], field: str) -> list[float]:
    return [getattr(one, field) for one in measured]


# ------------------------------------------------------------------------- runs


class Bench:
    """What is done to one server."""

    def __init__(self, server: Appliance, generator: Executor, readers: Executor) -> None:
        self.server = server
        self.generator = generator
        self.readers = readers
        self.client = httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE)

    def run(self, load: Load, readers: int, seconds: float) -> Measured:
        before, cpu = self.begin(), cpu_of_all(self.server.process.pid)
        requests = list(requests_of(load, f"{before}"))
        listening = self.listen(readers)
        begun = time.perf_counter()
        done = self.generator.submit(fresh_loop, self.server.port, requests, load.connections, seconds).result()
        events = self.finish(listening, before)[0] - before
        took = time.perf_counter() - begun
        cpu = cpu_of_all(self.server.process.pid) - cpu
        return Measured(done.rate * max(1, load.events), events / took, cpu / events * 1e6, done.p99_ms)

    def pace(self, load: Load, readers: int, rate: float, seconds: float) -> Paced:
        before = self.begin()
        requests = list(requests_of(load, f"{before}"))
        listening = self.listen(readers)
        requests_a_second = rate / max(1, load.events)
        with self.watching() as lags:
            posted = self.generator.submit(
                fresh_open_loop, self.server.port, requests, requests_a_second, load.connections, seconds
            ).result()
        _, delays = self.finish(listening, before)
        answered = [request.answered_ns for request in posted]
        taken = (len(posted) - 1) / (max(answered) - min(answered)) * 1e9 * max(1, load.events)
        p99_ms = percentile([request.took_ms for request in posted], 0.99)
        index_lag, tree_lag = (max(lag, default=0.0) for lag in lags)
        return Paced(taken, p99_ms, index_lag, tree_lag, percentile(delays, 0.99) if delays else 0.0)

    def begin(self) -> int:
        """The newest cursor, once all is level."""
        cursor = self.post(END)
        self.wait_until_level(cursor)
        return cursor

    def finish(self, listening: Future[list[Heard]] | None, before: int) -> tuple[int, list[float]]:
        """The newest cursor, once index, tree and readers have it; and after how many ms readers had events.

        Raises Unsound where they have not.
        """
        newest = self.post(END)
        self.wait_until_level(newest)
        heard = listening.result() if listening else []
        self.check(heard, before)
        return newest, list(chain.from_iterable(reader.delays_ms for reader in heard))

    def listen(self, count: int) -> Future[list[Heard]] | None:
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

    @contextmanager
    def watching(self) -> Iterator[tuple[list[float], list[float]]]:
        """For how many seconds index and tree lacked what they had not."""
        seen: list[tuple[float, int]] = []
        lags: tuple[list[float], list[float]] = ([], [])
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(LOOK_AT_LAG_SECONDS):
                health, now = self.health(), time.monotonic()
                seen.append((now, health["cursor"]))
                for lag, has in zip(
                    lags, (health["cursor"] - health["searchLag"], health["tree"]["cursor"]), strict=True
                ):
                    lag.append(
                        now - next(moment for moment, cursor in seen if cursor >= min(has + 1, health["cursor"]))
                    )

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield lags
        finally:
            ended.set()
            thread.join()

    def check(self, heard: Sequence[Heard], before: int) -> None:
        """Raises Unsound unless each reader got as many events as its sessions have."""
        numbers = "SELECT session_id, count(*) FROM events WHERE cursor > ? GROUP BY 1"
        with closing(sqlite3.connect(f"file:{self.server.folder / 'sessions.db'}?mode=ro", uri=True)) as database:
            stored = dict(database.execute(numbers, (before,)).fetchall())
        for reader, got in enumerate(heard):
            if got.events != (expected := sum(stored.get(name, 0) for name in names_of(reader))):
                raise Unsound(f"reader {reader} got {got.events} events of {expected}")

    def health(self) -> Any:
        return self.client.get("/health").raise_for_status().json()

    def post(self, session: str) -> int:
        answer = self.client.post(f"/api/actions/{session}", json={"type": "end"}).raise_for_status().json()
        cursor: int = answer["cursor"]
        return cursor


def requests_of(load: Load, prefix: str) -> Iterator[bytes]:
    """One for each session; the same events with other ids when its NUMBER is another one."""
    chance = random.Random(prefix)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 11))) for _ in range(WORDS)]
    event_id = f"{prefix}-{NUMBER.decode()}"
    for name in (f"bench-{session}" for session in range(SESSIONS)):
        if load.events:
            lines = [event_of(chance, words, event_id=f"{event_id}-{n}", session=name) for n in range(load.events)]
            yield http_request("POST", "/api/events", b"\n".join(lines), NDJSON)
        else:
            yield http_request("POST", f"/api/actions/{name}", event_of(chance, words, event_id=event_id))


def event_of(chance: random.Random, words: Sequence[str], event_id: str, session: str | None = None) -> bytes:
    """Of EVENT_BYTES: a line of a batch, if it names its session."""
    text = " ".join(chance.choices(words, k=EVENT_BYTES // 3))

    def encoded(text: str) -> bytes:
        entry: dict[str, Any] = {"type": "tool_result", "tool": "Bash", "text": text}
        if session is None:
            entry |= {"eventId": event_id}
        else:
            moment = "2026-01-01T00:00:00.000Z"
            entry = {"type": "action", "sessionId": session, "eventId": event_id, "timestamp": moment, "data": entry}
        return json.dumps(entry, separators=(",", ":")).encode()

    return encoded(text[: EVENT_BYTES - len(encoded(""))])


# ---------------------------------------------------------------------- readers


class Heard(NamedTuple):
    events: int
    delays_ms: array[float]
    """Since the commit, of the first event of all that arrived together."""


def names_of(reader: int) -> list[str]:
    return [*(f"bench-{session}" for session in range(reader % TENTH, SESSIONS, TENTH)), END]


class Reader(WsReader):
    """Counts events without taking frames apart, which would cost more than to send them."""

    EVENT = b'{"cursor":'
    RECEIVED_AT = b'"receivedAt":"'
    END = f'"sessionId":"{END}"'.encode()

    def __init__(self, port: int, number: int) -> None:
        super().__init__(port, "/ws?session=" + "&session=".join(names_of(number)))
        self.events = 0
        self.delays_ms = array("d")
        self.rest = b""

    def take(self) -> bool:
        """False once it has had the end."""
        if not (more := self._socket.recv(RECEIVE_BYTES)):
            raise Unsound(f"a reader was let go after {self.events} events")
        data = self.rest + more
        self.events += data.count(self.EVENT) - self.rest.count(self.EVENT)
        self.rest = data[-len(self.END) :]
        at = more.find(self.RECEIVED_AT) + len(self.RECEIVED_AT)
        if at >= len(self.RECEIVED_AT) and len(moment := more[at : at + 24]) == 24:
            self.delays_ms.append((time.time() - datetime.fromisoformat(moment.decode()).timestamp()) * 1000)
        return self.END not in data


def listen(port: int, count: int, patience: float) -> list[Heard]:
    """What each of so many readers had when all had the end. They look every 5 ms, as those of `feed`."""
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
    return [Heard(reader.events, reader.delays_ms) for reader in readers]


# ------------------------------------------------------------- tables and figures


def rate_table(found: Rounds, roots: Sequence[Path]) -> str:
    """Medians; with two versions `this (that, ratio)`."""
    head = ("load", "readers", "acknowledged/s", "level/s", "of acknowledged", "CPU µs an event", "p99 ms")
    rows = []
    for load, readers, root in found:
        if root == roots[-1]:
            both = [found[load, readers, version] for version in roots]
            cells = [compared([median_of(one, field) for one in both]) for field in Measured._fields]
            shares = compared([median_of(one, "level") / median_of(one, "acknowledged") for one in both])
            rows.append((f"{load}", f"{readers}", *cells[:2], shares, *cells[2:]))
    return rows_of(head, rows)


def lag_table(paced: Mapping[tuple[Load, int, Path], Paced], roots: Sequence[Path]) -> str:
    head = (
        f"at {SHARE} of the largest rate",
        "readers",
        "events/s",
        "p99 ms",
        "index lag s",
        "tree lag s",
        "feed p99 ms",
    )
    rows = []
    for load, readers, root in paced:
        if root == roots[-1]:
            both = [paced[load, readers, version] for version in roots]
            rows.append((f"{load}", f"{readers}", *(compared(values) for values in zip(*both, strict=True))))
    return rows_of(head, rows)


def compared(values: Sequence[float]) -> str:
    here, *others = values
    return number_of(here) + "".join(f" ({number_of(one)}, {here / one if one else 0:.2f})" for one in others)


WANTED = {LOADS["single-64"]: 1.6, LOADS["batch-3"]: 1.8, LOADS["batch-10"]: 2.0, LOADS["batch-100"]: 2.5}
"""Level against that of the version before."""
WANTED_WITH_READERS = {LOADS["batch-10"]: 0.6, LOADS["batch-100"]: 0.5}
"""What is acknowledged with readers against without."""


def figures(found: Rounds, loads: Sequence[Load], roots: Sequence[Path]) -> Iterator[Figure]:
    unit = "events a second"
    here, *others = roots
    for load in loads:
        alone, among = found[load, 0, here], found[load, READERS, here]
        level = of(alone, "level")
        yield Figure(
            "write", f"{load}: level against acknowledged", unit, level, Target(0.8), of(alone, "acknowledged")
        )
        if load in WANTED:
            for other in others:
                before = of(found[load, 0, other], "level")
                yield Figure("write", f"{load}: level against {other.name}", unit, level, Target(WANTED[load]), before)
        if load in WANTED_WITH_READERS:
            what, target = f"{load}: with {READERS} readers against none", Target(WANTED_WITH_READERS[load])
            yield Figure("write", what, unit, of(among, "acknowledged"), target, of(alone, "acknowledged"))
