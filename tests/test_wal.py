"""The write-ahead log stays small, whoever reads: SQLite itself only adds to it while anybody does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from sessionstore.appliance import Store
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store import reader as reading
from sessionstore.store import write_ahead_log as log_file
from sessionstore.store import writer as writing
from sessionstore.store.disk import size_of
from tests.appliance import Appliance
from tests.databases import drafted
from tests.repeats import marked
from tests.tracing import Injection, failing

BOUND = 256 << 10
NEVER = 1 << 60
WRITES = 300
WRITE_BYTES = 10_000
TURN_SECONDS = 0.005
LARGE_BYTES = 400_000


def run(folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
    async def around() -> None:
        store = Store(Settings(directory=folder, tree=False))
        await store.start()
        try:
            await asyncio.wait_for(test(store), 60)
        finally:
            await store.stop()

    asyncio.run(around())


async def largest_log(store: Store) -> int:
    """While many times the bound is written."""
    largest = 0
    for _ in range(WRITES):
        await store.writer.append(drafted("action", "s", {"type": "x", "text": "y" * WRITE_BYTES}))
        largest = max(largest, size_of(store.writer.log.path))
    return largest


def begin_to_read(database: Path) -> sqlite3.Connection:
    reader = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    return reader


@contextmanager
def overlapping_readers(database: Path) -> Iterator[None]:
    """One of them has always been reading since before the last one began."""
    done = threading.Event()

    def take_turns() -> None:
        last = begin_to_read(database)
        while not done.wait(TURN_SECONDS):
            following = begin_to_read(database)
            last.close()
            last = following
        last.close()

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("bound", [BOUND, NEVER], ids=["bounded", "not bounded"])
def test_readers_that_overlap_all_the_time_do_not_let_the_log_grow(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    async def test(store: Store) -> None:
        with overlapping_readers(store.settings.database):
            largest = await largest_log(store)
        assert (largest < 16 * BOUND) is (bound == BOUND), largest

    monkeypatch.setattr(log_file, "LOG_BYTES", bound)
    monkeypatch.setattr(writing, "CHORE_INTERVAL", 0.01)
    monkeypatch.setattr(writing, "PUT_OFF", 0.0)
    monkeypatch.setattr(log_file, "LOG_PAUSE", 1)
    run(folder, test)


def test_a_reader_that_stays_lets_the_log_grow_holds_writers_up_for_moments_and_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program's: the server cannot end it, and goes on taking writes."""

    async def test(store: Store) -> None:
        reader = begin_to_read(store.settings.database)
        assert await largest_log(store) > 8 * BOUND
        while "somebody has been reading one state for long" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        reader.close()
        while size_of(store.writer.log.path) >= BOUND:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    monkeypatch.setattr(log_file, "LOG_BYTES", BOUND)
    monkeypatch.setattr(log_file, "MOST_LOG_PATIENCE", 0.1)
    run(folder, test)


def fill(server: Appliance, number: int) -> Iterator[int]:
    """Write more than one checkpoint takes; the cursors that were acknowledged until the server ended."""
    for _ in range(number):
        try:
            answer = httpx.post(f"{server.url}/api/actions/s", json={"type": "x", "text": "y" * LARGE_BYTES})
        except httpx.TransportError:
            return
        yield answer.raise_for_status().json()["cursor"]


@pytest.mark.parametrize("is_in_parts", marked([True, False], long=[False]))
def test_the_server_ends_where_a_failed_sync_may_have_lost_what_the_log_gives_only_once(
    tmp_path: Path, is_in_parts: bool
) -> None:
    """What was put into the database while somebody read is not synced, and not put there again; all else is."""
    database = tmp_path / "sessions.db"
    more = log_file.PAGES * log_file.PAGE_BYTES // LARGE_BYTES + 1
    with Appliance(tmp_path, {"SESSIONS_TREE": "off"}) as server:
        stored = list(fill(server, 1))
        reader = begin_to_read(database) if is_in_parts else None
        stored += fill(server, more)
        if reader:
            reader.close()
        with failing(server.process.pid, Injection("fdatasync", "EIO", "1+"), path=database):
            stored += fill(server, more)
            assert server.said("Nothing is lost" if is_in_parts else "could not be put into the database")
            if is_in_parts:
                assert server.process.wait(10) == 1
        if is_in_parts:
            server.start()
        stored += fill(server, 1)
        assert len(stored) > more + 2
        assert server.stop().code == 0
    with closing(sqlite3.connect(database)) as connection:
        assert [cursor for (cursor,) in connection.execute("SELECT cursor FROM events WHERE seq > 0")] == stored


def test_several_queries_on_one_state_have_one_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DEADLINE", 0.2)
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT count(*) FROM n"

    async def test(store: Store) -> None:
        with pytest.raises(Problem, match="took too long"):
            async with store.reader.snapshot() as connection:
                for _ in range(1000):
                    await connection.rows(slow)
        assert await store.reader.rows("SELECT 1") == [(1,)]

    run(folder, test)
