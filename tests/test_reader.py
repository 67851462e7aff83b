"""The read-only connections: lent to one query at a time, and whole again whatever becomes of who borrowed one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sessionstore.model.problems import Problem
from sessionstore.store.reader import CONNECTIONS, Reader
from sessionstore.store.schema import open_writer

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def with_reader(tmp_path: Path, test: Callable[[Reader, sqlite3.Connection], Awaitable[None]]) -> None:
    async def run() -> None:
        path = tmp_path / "sessions.db"
        with closing(open_writer(path, durability="normal")) as writer:
            reader = Reader(path)
            await reader.start()
            try:
                await test(reader, writer)
            finally:
                await reader.stop()

    asyncio.run(run())


async def cancelled(work: Awaitable[object], after: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(after)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_a_query_that_is_cancelled_costs_the_next_borrower_nothing(tmp_path: Path) -> None:
    """It would run on for its five seconds, and whoever comes next would wait for it."""

    async def test(reader: Reader, _: sqlite3.Connection) -> None:
        await asyncio.gather(*(cancelled(reader.rows(ENDLESS), 0.1) for _ in range(CONNECTIONS)))
        begun = time.monotonic()
        assert await asyncio.gather(*(reader.row("SELECT 1") for _ in range(2 * CONNECTIONS))) == [(1,)] * 6
        assert time.monotonic() - begun < 2.0

    with_reader(tmp_path, test)


@pytest.mark.parametrize("after", [0.0, 0.0001, 0.001, 0.01])
def test_a_snapshot_that_is_cancelled_leaves_no_transaction(tmp_path: Path, after: float) -> None:
    """At any moment, also while it begins: all that follows would see one state for ever."""

    async def look(reader: Reader) -> None:
        async with reader.snapshot() as connection:
            await connection.rows("SELECT count(*) FROM sessions")
            await connection.rows(ENDLESS)

    async def test(reader: Reader, writer: sqlite3.Connection) -> None:
        for number in range(20):
            await asyncio.gather(*(cancelled(look(reader), after) for _ in range(CONNECTIONS)))
            writer.execute(f"PRAGMA user_version = {number + 100}")
            seen = await asyncio.gather(*(reader.row("PRAGMA user_version") for _ in range(CONNECTIONS)))
            assert seen == [(number + 100,)] * CONNECTIONS
            async with reader.snapshot() as connection:
                assert await connection.rows("SELECT 1") == [(1,)]
        await asyncio.gather(*reader.mending)
        assert len(reader.free) == CONNECTIONS
        assert not any(connection.connection.in_transaction for connection in reader.all)

    with_reader(tmp_path, test)


def test_a_snapshot_that_ends_in_an_error_leaves_none_either(tmp_path: Path) -> None:
    async def test(reader: Reader, writer: sqlite3.Connection) -> None:
        for _ in range(2 * CONNECTIONS):
            with pytest.raises(Problem, match="There is no session 'nowhere'"):
                await reader.session("nowhere", 10)
            with pytest.raises(Problem, match="too long"):
                async with reader.snapshot() as connection:
                    connection.since = time.monotonic() - 60
                    await connection.rows(ENDLESS)
        await asyncio.gather(*reader.mending)
        assert len(reader.free) == CONNECTIONS
        assert not any(connection.connection.in_transaction for connection in reader.all)

    with_reader(tmp_path, test)


def test_the_end_waits_for_what_was_cancelled(tmp_path: Path) -> None:
    async def test(reader: Reader, _: sqlite3.Connection) -> None:
        await cancelled(reader.rows(ENDLESS), 0.05)

    with_reader(tmp_path, test)
