"""`batches`: events a second in NDJSON batches, against SQLite taking the same rows into the same schema."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx

from sessionstore.store.schema import open_writer
from tests.appliance import Appliance, Server
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import closed_loop, one_by_one, own_process
from tests.wire import NDJSON, http_request

BATCHES = 20
EVENTS = 1000
SESSIONS = 8
SMALL_EVENTS = 100
SMALL_CONNECTIONS = 8
FEW_EVENTS = 3
FEW_CONNECTIONS = 64
"""What the agents of a busy fleet send."""
SMALL_WARM_UP_SECONDS = 0.5
SMALL_SECONDS = 2.0
DATA = '{"type":"file_write","path":"src/server.js","lines":42}'
MOMENT = "2026-01-01T00:00:00.000Z"
INSERT = """
INSERT INTO events (cursor, type, session_id, user_id, event_id, agent_id,
                    timestamp, received_at, patch, seq, kind, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
Row = tuple[int, str, str, str, str, None, str, str, None, int | None, str | None, str]


def measure(rounds: int) -> list[Figure]:
    posted, inserted, small, few = [], [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        appliance = stack.enter_context(Appliance(folder / "store"))
        generator = stack.enter_context(own_process())
        raw = stack.enter_context(closing(open_writer(folder / "raw.db", durability="full")))
        _create_sessions(raw)
        for number in range(rounds):
            posted.append(_post(generator, appliance, number))
            inserted.append(_insert(raw, number))
            small.append(_post_small(generator, appliance, SMALL_EVENTS, SMALL_CONNECTIONS))
            few.append(_post_small(generator, appliance, FEW_EVENTS, FEW_CONNECTIONS))
    compared = f"NDJSON of {EVENTS:,} events against executemany of the same into the same schema"
    load = f"NDJSON of {SMALL_EVENTS} events, {SMALL_CONNECTIONS} connections"
    fleet = f"NDJSON of {FEW_EVENTS} events, {FEW_CONNECTIONS} connections"
    return [
        Figure("batches", compared, "events a second", posted, Target(0.5), inserted),
        Figure("batches", load, "events a second", small, Target(20_000)),
        Figure("batches", fleet, "events a second", few, Target(6_000)),
    ]


def _post(generator: Executor, appliance: Server, number: int) -> float:
    before = _actions_in(appliance)
    events = range(number * BATCHES * EVENTS, (number + 1) * BATCHES * EVENTS)
    requests = [_batch([_line(event) for event in events[at : at + EVENTS]]) for at in range(0, len(events), EVENTS)]
    seconds = sum(generator.submit(one_by_one, appliance.port, requests).result())
    if (kept := _actions_in(appliance) - before) != len(events):
        raise Unsound(f"{kept} events of {len(events)} were kept")
    return len(events) / seconds


def _post_small(generator: Executor, appliance: Server, events: int, connections: int) -> float:
    """Without eventId, so that the same request is new events each time."""
    line = f'{{"type":"action","sessionId":"bench-0","data":{DATA}}}'
    load = generator.submit(
        closed_loop,
        appliance.port,
        [_batch([line] * events)],
        connections,
        SMALL_WARM_UP_SECONDS,
        SMALL_SECONDS,
    )
    return load.result().rate * events


def _batch(lines: Sequence[str]) -> bytes:
    return http_request("POST", "/api/events", "\n".join(lines).encode(), NDJSON)


def _line(event: int) -> str:
    return f'{{"type":"action","sessionId":"bench-{event % SESSIONS}","eventId":"batch-{event}","data":{DATA}}}'


def _actions_in(appliance: Server) -> int:
    stats: dict[str, int] = httpx.get(f"{appliance.url}/api/query/stats", trust_env=False).raise_for_status().json()
    return stats["actions"]


def _create_sessions(raw: sqlite3.Connection) -> None:
    rows: list[Row] = [
        (n + 1, "session_created", f"bench-{n}", "unknown", "created", None, MOMENT, MOMENT, None, None, None, "{}")
        for n in range(SESSIONS)
    ]
    raw.executemany(INSERT, rows)


def _insert(raw: sqlite3.Connection, number: int) -> float:
    events = range(number * BATCHES * EVENTS, (number + 1) * BATCHES * EVENTS)
    rows = [_row(event) for event in events]
    begun = time.perf_counter()
    for at in range(0, len(rows), EVENTS):
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(INSERT, rows[at : at + EVENTS])
        raw.execute("COMMIT")
    return len(rows) / (time.perf_counter() - begun)


def _row(event: int) -> Row:
    cursor, session, seq = event + SESSIONS + 1, f"bench-{event % SESSIONS}", event // SESSIONS + 1
    return (
        cursor, "action", session, "unknown", f"batch-{event}", None, MOMENT, MOMENT, None, seq, "file_write", DATA
    )  # fmt: skip
