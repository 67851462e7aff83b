"""The write-ahead log stays small: what reads for long is interrupted, hurried or given up, and then it is emptied."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sessionstore import backups as copying
from sessionstore import reader as reading
from sessionstore import writer as writing
from sessionstore.backups import Backups
from sessionstore.disk import Disk, size_of
from sessionstore.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store import Store
from tests.disks import small_disk
from tests.test_writer import answers, run, store_in, until, word, writes

MIB = 1 << 20
SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000000) SELECT max(x) FROM n"


@contextmanager
def pinned(database: Path) -> Iterator[None]:
    """Somebody else reads, and goes on reading."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        yield


async def write(store: Store, size: int) -> None:
    await answers([store.writer.submit(writes(word(text="x" * 100_000))) for _ in range(size // 100_000)])


def test_a_log_that_a_reader_keeps_is_said_and_emptied_once_it_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writing, "LOG_BYTES", 5 * MIB)
    monkeypatch.setattr(writing, "MAX_LOG_BYTES", 8 * MIB)
    monkeypatch.setattr(writing, "LOG_INTERVAL", 0.1)

    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            log = store.writer.log_path
            with pinned(store.settings.database):
                await write(store, 20 * MIB)
                await until(lambda: store.writer.busy_logs > 1)
                assert size_of(log) > 8 * MIB, "while it is read it cannot be emptied"
                await write(store, MIB)
            await until(lambda: size_of(log) < 5 * MIB)
        assert [entry.getMessage() for entry in caplog.records if "write-ahead log" in entry.getMessage()] != []

    run(test)


def test_all_queries_of_one_loan_together_have_one_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DEADLINE", 0.5)

    async def test() -> None:
        async with store_in(folder) as store:
            async with store.reader.snapshot() as connection:
                await asyncio.sleep(0.6)
                assert store.reader.oldest() >= 0.6
                with pytest.raises(Problem, match="took too long"):
                    await connection.rows(SLOW)
            assert store.reader.oldest() == 0
            assert await store.reader.row("SELECT 1") == (1,), "the next loan has a deadline of its own"

    run(test)


def backups_of(folder: Path, to: Path) -> Backups:
    return Backups(Settings(directory=folder, backup_directory=to), Disk(folder))


@pytest.mark.parametrize(("size", "haste"), [(1 * MIB, False), (65 * MIB, True)])
def test_a_copy_makes_haste_when_the_log_has_grown(folder: Path, size: int, haste: bool) -> None:
    backups = backups_of(with_log(folder, size), folder)
    assert backups.go_on(1, 2) is haste


def test_a_copy_for_which_the_log_grows_too_large_is_given_up_and_said(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            await write(store, 4 * MIB)
            backups = backups_of(folder, tmp_path / "backups")
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(copying, "MAX_LOG_BYTES", 1)
                await asyncio.to_thread(backups.make)
            assert "is tried again" in (backups.error or "") and backups.failures == 1
            assert list((tmp_path / "backups").iterdir()) == []
            await asyncio.to_thread(backups.make)
            assert backups.status == "ok"

    run(test)


def test_a_copy_that_has_no_room_is_not_begun(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            await write(store, 4 * MIB)
            with pinned(store.settings.database):
                pass
            await until(lambda: size_of(store.settings.database) > 2 * MIB)
            with small_disk(tmp_path / "backups", MIB) as to:
                backups = backups_of(folder, to)
                await asyncio.to_thread(backups.make)
                assert "There is no room in " in (backups.error or "")
                assert list(to.iterdir()) == []

    run(test)


def with_log(folder: Path, size: int) -> Path:
    folder.mkdir()
    with open(folder / "sessions.db-wal", "wb") as log:
        log.truncate(size)
    return folder
