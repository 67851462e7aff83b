"""What leaves the store unasked: old sessions, too many sessions; archived first, and never for want of a clock."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.layout import open_reader
from sessionstore.appliance import Store
from sessionstore.settings import Settings
from sessionstore.store.material import Key, Provenance
from sessionstore.store.schema import INCREMENTAL
from sessionstore.upkeep.retention import ANY, OLDEST, Ended, Retention, used_bytes
from tests.appliance import Appliance
from tests.commands import export, is_done, is_refused
from tests.databases import MIDNIGHT, Database, drafted
from tests.disks import small_disk
from tests.peers import eventually
from tests.test_writer import run, store_in

A_DAY = 86_400.0
MIB = 1 << 20


def fill(
    path: Path, sessions: int, *, entries: int = 1, size: int = 10, ended: bool = True, days_ago: float = 40
) -> None:
    """A store of so many sessions, all of them old."""
    path.mkdir(exist_ok=True)
    noise = random.Random(1)
    with closing(Database(path / "sessions.db", clock=time.time() - days_ago * A_DAY)) as database:
        for number in range(sessions):
            session = f"s{number:03}"
            with database.transaction() as appender:
                for entry in range(entries):
                    text = f"{entry} {number} {noise.randbytes(size // 2).hex()}"
                    appender.append(drafted("action", session, {"type": "x", "text": text}))
                if ended:
                    appender.append(drafted("session_finalized", session))


def sessions_in(server: Appliance) -> list[str]:
    items = httpx.get(f"{server.url}/api/sessions?limit=500").json()["items"]
    return sorted(item["sessionId"] for item in items)


def retention(server: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/health").json()["retention"]
    return found


@contextmanager
def kept_by(path: Path, **settings: str) -> Iterator[Appliance]:
    with Appliance(path, {f"SESSIONS_{name}": value for name, value in settings.items()}) as server:
        yield server
    assert "Traceback" not in server.output


def test_sessions_that_have_ended_leave_when_they_are_old_and_no_others(folder: Path) -> None:
    fill(folder, 3)
    with kept_by(folder, RETENTION_DAYS="30") as server:
        httpx.put(f"{server.url}/api/sessions/new", json={"userId": "alice"})
        httpx.post(f"{server.url}/api/sessions/new/finalize", json={})
        httpx.post(f"{server.url}/api/actions/going-on", json={"type": "x"})
        eventually(lambda: sessions_in(server) == ["going-on", "new"])
        assert retention(server) == {"status": "ok", "deleted": 3, "error": None}


def test_after_a_start_with_a_clock_that_is_years_ahead_nothing_leaves_for_its_age(folder: Path) -> None:
    """Or after a year of silence, which looks the same; a start after a new event says that the clock is right."""
    fill(folder, 2, days_ago=400)
    with kept_by(folder, RETENTION_DAYS="30") as server:
        httpx.post(f"{server.url}/api/actions/new", json={"type": "x"})
        eventually(lambda: retention(server)["status"] == "failed")
        assert "no event had come for 400 days" in retention(server)["error"]
        assert len(sessions_in(server)) == 3
        server.stop()
        server.start()
        eventually(lambda: sessions_in(server) == ["new"])
        assert retention(server)["error"] is None


def test_for_their_size_sessions_leave_by_any_clock(folder: Path) -> None:
    fill(folder, 4, entries=20, size=12_000, days_ago=400)
    with kept_by(folder, RETENTION_DAYS="30", RETENTION_BYTES="1M", TREE="off") as server:
        eventually(lambda: len(sessions_in(server)) < 3, within=60)
        eventually(lambda: bytes_used(folder / "sessions.db") < MIB, within=60)
        assert sessions_in(server) != []


def test_without_a_setting_nothing_ever_leaves(folder: Path) -> None:
    fill(folder, 3)
    with kept_by(folder, ARCHIVE_DIR=str(folder / "archives")) as server:
        assert retention(server) == {"status": "off", "deleted": 0, "error": None}
        assert len(sessions_in(server)) == 3
        assert not (folder / "archives").exists()


def test_a_session_is_archived_before_it_is_deleted_and_comes_back_from_there(folder: Path, tmp_path: Path) -> None:
    fill(folder, 3, entries=20)
    archives = tmp_path / "archives"
    with kept_by(folder, RETENTION_DAYS="30", ARCHIVE_DIR=str(archives)) as server:
        eventually(lambda: sessions_in(server) == [])
    assert [path.name.partition("@")[0] for path in sorted(archives.iterdir())] == ["s000", "s001", "s002"]
    restored = tmp_path / "restored"
    assert is_done(export(restored, "restore", *sorted(archives.iterdir())))
    with closing(Database(restored / "sessions.db")) as database:
        assert database.value("SELECT count(*) FROM sessions") == 3
        assert database.value("SELECT count(*) FROM events WHERE type = 'action'") == 60


@pytest.mark.long
def test_while_the_archive_cannot_be_written_nothing_is_deleted(folder: Path, tmp_path: Path) -> None:
    fill(folder, 3, entries=10, size=20_000)
    with small_disk(tmp_path / "archives", MIB) as archives:
        ballast = archives / "ballast"
        ballast.write_bytes(bytes(MIB - (8 << 10)))
        with kept_by(folder, RETENTION_DAYS="30", ARCHIVE_DIR=str(archives)) as server:
            eventually(lambda: retention(server)["status"] == "failed")
            assert "No space left" in retention(server)["error"]
            assert len(sessions_in(server)) == 3
            assert [path.name for path in archives.iterdir()] == ["ballast"], "no piece of an archive is left"
            assert httpx.get(f"{server.url}/ready").json()["checks"]["retention"] == "warn"
            ballast.unlink()
            eventually(lambda: sessions_in(server) == [])
            eventually(lambda: retention(server)["error"] is None)
        assert len(list(archives.iterdir())) == 3


def test_an_archive_that_is_damaged_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    fill(folder, 1)
    with closing(Database(folder / "sessions.db")) as database:
        last = database.value("SELECT last_cursor FROM sessions")
    (tmp_path / f"s000@{last}.tar.gz").write_bytes(b"not what it says")
    with kept_by(folder, RETENTION_DAYS="30", ARCHIVE_DIR=str(tmp_path)) as server:
        eventually(lambda: retention(server)["status"] == "failed")
        assert "damaged" in retention(server)["error"]
        assert sessions_in(server) == ["s000"]


@pytest.mark.long
def test_a_database_that_is_too_large_loses_its_oldest_sessions_and_gives_the_space_back(folder: Path) -> None:
    fill(folder, 40, entries=50, size=20_000)
    path = folder / "sessions.db"
    with kept_by(folder, RETENTION_BYTES="20M", TREE="off") as server:
        httpx.post(f"{server.url}/api/actions/going-on", json={"type": "x"})
        eventually(lambda: bytes_used(path) <= 20 * MIB, within=60)
        eventually(lambda: path.stat().st_size <= 37 * MIB, within=60)
        left = sessions_in(server)
        deleted = retention(server)["deleted"]
        assert left == ["going-on", *(f"s{number:03}" for number in range(deleted, 40))], "the oldest went"
        assert bytes_used(path) > 12 * MIB, "and not more than had to"


def test_of_a_database_that_is_too_large_material_goes_first(folder: Path, tmp_path: Path) -> None:
    fill(folder, 2, entries=5)
    lines, archives = random.Random(1).randbytes(4 * MIB), tmp_path / "archives"
    with Appliance(folder) as server, httpx.Client(base_url=server.url) as http:
        for session in ("s000", "s001"):
            headers = {"content-type": "application/x-ndjson", "x-session-id": session}
            assert http.post(f"/api/transcripts/f/{session}", content=lines, headers=headers).status_code == 200
    with kept_by(folder, RETENTION_BYTES="7M", ARCHIVE_DIR=str(archives), TREE="off") as server:
        eventually(lambda: bytes_used(folder / "sessions.db") < 7 * MIB, within=60)
        assert sessions_in(server) == ["s000", "s001"]
        found = [httpx.get(f"{server.url}/api/transcripts/f/{name}").status_code for name in ("s000", "s001")]
        assert found == [404, 200]
    (packed,) = archives.iterdir()
    assert packed.stat().st_size > 4 * MIB


def test_a_database_that_is_too_large_with_nothing_ended_says_so(folder: Path) -> None:
    fill(folder, 5, entries=20, size=20_000, ended=False)
    with kept_by(folder, RETENTION_BYTES="1M", TREE="off") as server:
        eventually(lambda: retention(server)["status"] == "failed")
        assert "no session has ended" in retention(server)["error"]
        assert len(sessions_in(server)) == 5


def bytes_used(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return used_bytes(database)


def test_a_new_database_can_give_pages_back(folder: Path) -> None:
    fill(folder, 1)
    with closing(Database(folder / "sessions.db")) as database:
        assert database.value("PRAGMA auto_vacuum") == INCREMENTAL


def test_a_database_of_before_is_compacted_by_command_and_gives_pages_back_from_then_on(folder: Path) -> None:
    fill(folder, 10, entries=20, size=20_000)
    path = folder / "sessions.db"
    with closing(Database(path)) as database:
        for pragma in ("PRAGMA auto_vacuum = NONE", "VACUUM"):
            database.connection.execute(pragma)
    with kept_by(folder, RETENTION_BYTES="2M", TREE="off") as server:
        eventually(lambda: bytes_used(path) <= 2 * MIB, within=60)
        left = sessions_in(server)
        server.stop()
    before = path.stat().st_size
    assert before > 4 * MIB, "what is free is kept"
    assert is_done(export(folder, "compact"))
    assert path.stat().st_size < before / 2
    with closing(Database(path)) as database:
        assert database.value("PRAGMA auto_vacuum") == INCREMENTAL
        assert database.value("PRAGMA integrity_check") == "ok"
        assert [session for (session,) in database.rows("SELECT session_id FROM sessions ORDER BY 1")] == left
    with Appliance(folder):
        assert is_refused(export(folder, "compact"))


# ------------------------------------------------------------------------ the choice


@pytest.fixture
def store(folder: Path) -> Iterator[Database]:
    folder.mkdir()
    database = Database(folder / "sessions.db")
    yield database
    database.close()


def chosen(store: Database, clock: Callable[[], float] = time.time, **settings: Any) -> list[str]:
    unused: Any = None
    keeper = Retention(Settings(directory=store.path.parent, **settings), unused, clock)
    found = [*keeper.old(store.connection), *keeper.too_many(store.connection)]
    return [ended.session_id for ended in found]


def test_a_word_after_the_end_keeps_a_session_longer(store: Database) -> None:
    def two_days_later() -> float:
        return MIDNIGHT + 2 * A_DAY

    store.append(drafted("action", "ended", {"type": "x"}))
    store.append(drafted("session_finalized", "ended"))
    store.append(drafted("action", "active", {"type": "x"}))
    assert chosen(store, two_days_later, retention_days=1) == ["ended"]
    assert chosen(store, two_days_later, retention_days=2) == []
    store.ticks = iter(range(2 * int(A_DAY), 3 * int(A_DAY)))  # type: ignore[assignment]
    store.append(drafted("action", "ended", {"type": "afterthought"}))
    assert chosen(store, two_days_later, retention_days=1) == []


@pytest.mark.parametrize("is_archived", [True, False])
def test_a_session_that_goes_on_after_it_was_chosen_stays(folder: Path, tmp_path: Path, is_archived: bool) -> None:
    fill(folder, 2)

    async def test() -> None:
        settings = {"archive_directory": tmp_path / "archives"} if is_archived else {}
        async with store_in(folder, **settings) as store:
            with closing(open_reader(folder / "sessions.db")) as database:
                ended = [Ended(*row) for row in database.execute(OLDEST, (ANY, 10))]
                await store.writer.append(drafted("action", "s000", {"type": "back again"}))
                for one in ended:
                    await asyncio.to_thread(let_go, store, one)
                assert store.retention.deleted == 1
                assert database.execute("SELECT session_id FROM sessions").fetchall() == [("s000",)]

    run(test)


def test_material_that_comes_after_the_archive_was_made_keeps_its_session(folder: Path, tmp_path: Path) -> None:
    fill(folder, 2)

    async def test() -> None:
        async with store_in(folder, archive_directory=tmp_path / "archives") as store:
            with closing(open_reader(folder / "sessions.db")) as database:
                ended = [Ended(*row) for row in database.execute(OLDEST, (ANY, 10))]
                seen = [store.retention.archive(database, one.session_id) for one in ended]
                await store.intake.take(Key("f", "s000"), Provenance(session_id="s000"), None, lines())
                for pair in zip(ended, seen, strict=True):
                    await asyncio.to_thread(store.retention.delete, *pair)
                assert store.retention.deleted == 1
                assert database.execute("SELECT session_id FROM sessions").fetchall() == [("s000",)]
                kept = database.execute("SELECT count(*) FROM transcripts WHERE NOT is_deleted").fetchone()
                assert kept == (1,), "no archive has it"

    run(test)


async def lines() -> AsyncIterator[bytes]:
    yield b'{"type":"user"}\n'


def let_go(store: Store, ended: Ended) -> None:
    with closing(open_reader(store.settings.database)) as database:
        store.retention.let_go(database, ended)


@pytest.mark.parametrize(("days", "expected"), [(0.5, ["s"]), (1.5, []), (3650.0, []), (-1.5, [])])
def test_a_clock_that_jumps_by_more_than_a_day_deletes_nothing(
    store: Database, days: float, expected: list[str]
) -> None:
    store.append(drafted("action", "s", {"type": "x"}))
    store.append(drafted("session_finalized", "s"))
    jumps = iter([0.0])

    def clock() -> float:
        return time.time() + next(jumps, days * A_DAY)

    assert chosen(store, clock, retention_days=30) == expected


def test_of_sessions_that_are_too_much_only_as_many_go_as_hold_it(store: Database) -> None:
    for session, size in (("large", 2_000_000), ("small", 1000), ("new", 1000)):
        store.append(drafted("action", session, {"type": "x", "text": "x" * size}))
        store.append(drafted("session_finalized", session))
    assert chosen(store, retention_bytes=1 * MIB) == ["large"]
    assert chosen(store, retention_bytes=3 * MIB) == []
    assert Ended("large", 3) in chosen_with_cursor(store)


def chosen_with_cursor(store: Database) -> list[Ended]:
    unused: Any = None
    return list(
        Retention(Settings(directory=store.path.parent, retention_bytes=MIB), unused).too_many(store.connection)
    )
