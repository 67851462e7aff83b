"""A database from the lake: nothing of it differs from the one that was lost, and no cursor is given twice."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings

from lake import back
from lake.back import NotInLake, restore
from lake.forgetting import forget
from sessionstore.store.high_water_mark import Newest, read_newest, write_newest
from sessionstore.store.shard import keep_shard
from tests.appliance import REPOSITORY
from tests.askable import tell
from tests.databases import Database, drafted
from tests.lakes import Place, seal
from tests.repeats import repeated
from tests.trees import apply, differences, histories, purge_all, temporary_folder, write_tree

TABLES = (
    *("events", "sessions", "documents", "goals", "agents", "asks", "retold_asks", "ended_asks", "orders"),
    *("status_changes", "counts", "users", "minutes", "usage", "usage_sums", "contexts", "purges", "lake"),
)


def contents_of(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as database:
        found = {name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr) for name in TABLES}
    found["counts"] = [row for row in found["counts"] if row[2]]
    found["events"] = [known(row) for row in found["events"]]
    return found


def known(event: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the lake has of an event: of one by which a person has a session forgotten not its id, and whose it was."""
    return event if event[1] != "session_deleted" else (*event[:3], *event[5:-2], event[-1])


def seal_all(database: Database, url: str, shard: str = "berlin") -> None:
    while seal(database.path, url, shard):
        pass


def made(folder: Path, shard: str = "berlin") -> Database:
    folder.mkdir()
    database = Database(folder / "sessions.db")
    keep_shard(database.connection, shard)
    return database


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[Database]:
    """A store with sessions that have ended, that go on, and that are deleted."""
    database = made(tmp_path / "lost")
    database.append(drafted("session_created", "parent", {"initial": {"input": "Build"}}, user_id="alice"))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}, user_id="bob"))
    database.append(drafted("session_created", "ended", {"initial": {}}))
    for number in range(20):
        database.append(drafted("action", "child", {"type": "tool_call", "tool": "Bash", "toolUseId": f"t{number}"}))
        database.append(drafted("response", "parent", {"type": "tool_result", "text": "é\u2028" * number}))
        database.append(drafted("action", "ended", {"type": "prompt", "prompt": f"{number}"}, user_id="bob"))
    database.append(drafted("agent_spawned", "child", {"agentId": "helper", "type": "search"}))
    database.append(drafted("action", "child", {"type": "notification", "attention": {"reason": "permission"}}))
    database.append(drafted("goal_added", "parent", {"description": "Done", "id": "g"}))
    database.append(drafted("session_finalized", "parent", {"status": "success"}))
    database.append(drafted("session_finalized", "ended", {"status": "success"}))
    yield database
    database.close()


# ------------------------------------------------------------------- all of it


def test_a_database_from_the_lake_is_the_one_that_was_lost(place: Place, lost: Database, tmp_path: Path) -> None:
    seal_all(lost, place.url)
    lost.append(drafted("session_deleted", "child"))
    lost.append(drafted("action", "another", {"type": "prompt"}))
    lost.append(drafted("session_created", "child", {"initial": {}}))  # of the same name
    lost.append(drafted("agent_spawned", "child", {"agentId": "helper", "type": "search"}))
    seal_all(lost, place.url)
    purge_all(lost)
    restored, _ = restore(place.url, tmp_path / "back")
    assert restored.odd == []
    write_tree(tmp_path / "back" / "sessions.db", tmp_path / "back")
    assert differences(tmp_path / "back" / "sessions.db", tmp_path / "back") == []
    again, before = contents_of(tmp_path / "back" / "sessions.db"), contents_of(lost.path)
    assert {name for name in TABLES if again[name] != before[name]} == set()
    assert all(before[name] for name in ("goals", "agents", "counts", "users", "minutes", "lake"))


def test_events_of_all_kinds_come_back(tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    lost = made(tmp_path / "lost")
    tell(lost.path, "berlin", 1500, seed=7)
    seal_all(lost, lake)
    purge_all(lost)
    restored, _ = restore(lake, tmp_path / "back")
    again, before = contents_of(tmp_path / "back" / "sessions.db"), contents_of(lost.path)
    assert restored.odd == []
    assert {name for name in TABLES if again[name] != before[name]} == set()
    assert {name for name in TABLES if not before[name]} <= {
        "orders",
        "ended_asks",
        "retold_asks",
        "contexts",
        "purges",
    }
    lost.close()


@repeated("examples", few=3, many=60, variable="LAKE_EXAMPLES")
def test_any_history_comes_back(examples: int) -> None:
    settings(max_examples=examples)(given(histories)(seal_a_history_and_restore_it))()


def seal_a_history_and_restore_it(history: list[Any]) -> None:
    with temporary_folder() as folder:
        lake = (folder / "lake").as_uri()
        database = made(folder / "lost")
        for written in history:
            if isinstance(written, tuple):
                apply(database, written)
            if written == "step":
                seal_all(database, lake)
        if not database.value("SELECT count(*) FROM events"):
            database.append(drafted("action", "a", {"type": "prompt"}))
        seal_all(database, lake)
        purge_all(database)
        restored, _ = restore(lake, folder / "back")
        again, before = contents_of(folder / "back" / "sessions.db"), contents_of(database.path)
        assert restored.odd == []
        assert {name: again[name] for name in TABLES} == {name: before[name] for name in TABLES}
        database.close()


def test_no_cursor_is_given_twice_that_the_lost_machine_may_have_given(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    head = lost.value("SELECT max(cursor) FROM events")
    lost.append(drafted("action", "child", {"type": "prompt"}))  # and is lost with the machine
    restore(lake, tmp_path / "back")
    assert read_newest(tmp_path / "back") == Newest(head + back.UNSEEN, accepted=head)
    (tmp_path / "same").mkdir()
    write_newest(tmp_path / "same", Newest(head + 1))  # here the machine is still there, and says what is missing
    restore(lake, tmp_path / "same")
    assert read_newest(tmp_path / "same") == Newest(head + 1)


def test_one_read_at_a_time_is_the_same_as_many(
    lost: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    monkeypatch.setattr(back, "MOST_ROWS", 10)
    monkeypatch.setattr(back, "MOST_BYTES", 100)
    restore(lake, tmp_path / "back")
    assert contents_of(tmp_path / "back" / "sessions.db") == contents_of(lost.path)


def test_log_entries_of_deleted_sessions_are_not_brought_back_to_be_removed(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    for session_id in ("parent", "child", "ended"):
        lost.append(drafted("session_deleted", session_id, {"reason": "retention"}))
    purge_all(lost)
    lost.append(drafted("session_created", "young", {"initial": {}}))
    seal_all(lost, lake)
    restored, _ = restore(lake, tmp_path / "back")
    assert contents_of(tmp_path / "back" / "sessions.db") == contents_of(lost.path)
    assert restored.events == 3 + 4 + 3 + 1  # beginnings, an agent, goal and ends, deletions, the young one


def test_of_what_has_lost_its_beginning_the_rest_comes_back(lost: Database, tmp_path: Path) -> None:
    """Days that are over are dropped from a lake, whoever goes on after them."""
    lake = (tmp_path / "lake").as_uri()
    lost.append(drafted("session_created", "young", {"initial": {}}))
    seal_all(lost, lake)
    DeltaTable(f"{lake}/events").delete("cursor <= 10")
    restored, _ = restore(lake, tmp_path / "back")
    assert [odd.partition(": ")[2] for odd in restored.odd] == [
        f"begins with cursor {cursor}: the session's creation is lost, and made anew" for cursor in (11, 12, 13)
    ]
    with closing(sqlite3.connect(tmp_path / "back" / "sessions.db")) as database:
        found = database.execute("SELECT cursor, data FROM events WHERE cursor > 10 ORDER BY cursor").fetchall()
    assert found == lost.rows("SELECT cursor, data FROM events WHERE cursor > 10 ORDER BY cursor")


def test_of_several_shards_one_is_named(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    other = made(tmp_path / "other", "munich")
    other.append(drafted("action", "theirs", {"type": "prompt"}))
    seal_all(other, lake, "munich")
    with pytest.raises(NotInLake, match="2 shards: say which with --shard: berlin, munich"):
        restore(lake, tmp_path / "back")
    with pytest.raises(NotInLake, match="no shard 'rome': it has berlin, munich"):
        restore(lake, tmp_path / "back", "rome")
    restore(lake, tmp_path / "back", "munich")
    assert contents_of(tmp_path / "back" / "sessions.db") == contents_of(other.path)
    other.close()


def test_what_is_no_lake_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotInLake, match="nothing has been sealed there"):
        restore((tmp_path / "nothing").as_uri(), tmp_path / "back")


def test_what_a_person_had_forgotten_stays_so(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    lost.append(drafted("session_deleted", "child"))
    seal_all(lost, lake)
    restore(lake, tmp_path / "hidden")
    purge_all(lost)
    assert contents_of(tmp_path / "hidden" / "sessions.db") == contents_of(lost.path)
    forget(lake, "berlin")
    forget(lake, "berlin")  # now that nothing of it is there, not even what hid it
    restored, _ = restore(lake, tmp_path / "erased")
    assert restored.odd == []
    with closing(sqlite3.connect(tmp_path / "erased" / "sessions.db")) as database:
        left = "".join(database.iterdump())
        assert (
            database.execute("SELECT max(cursor) FROM events").fetchone()
            == lost.rows("SELECT max(cursor) FROM events")[0]
        )
    assert "'child'" not in left and "'parent'" in left


# ---------------------------------------------------------------------- what is newer


def test_an_old_backup_gets_what_the_lake_has_beyond_it(place: Place, lost: Database, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    shutil.copy(lost.path, tmp_path / "old" / "sessions.db")
    shutil.copy(f"{lost.path}-wal", tmp_path / "old" / "sessions.db-wal")
    seal_all(lost, place.url)
    lost.append(drafted("session_deleted", "child"))
    lost.append(drafted("action", "another", {"type": "prompt"}))
    seal_all(lost, place.url)
    purge_all(lost)
    restored, _ = restore(place.url, tmp_path / "old", is_newer=True)
    assert (restored.events, restored.odd) == (3, [])  # the deletion, and a session with its first word
    assert contents_of(tmp_path / "old" / "sessions.db") == contents_of(lost.path)
    restored, _ = restore(place.url, tmp_path / "old", is_newer=True)
    assert restored.events == 0


def test_a_copy_that_has_gone_on_by_itself_gets_nothing(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    (tmp_path / "copy").mkdir()
    shutil.copy(lost.path, tmp_path / "copy" / "sessions.db")
    shutil.copy(f"{lost.path}-wal", tmp_path / "copy" / "sessions.db-wal")
    lost.append(drafted("action", "another", {"type": "prompt"}))
    seal_all(lost, lake)
    copy = Database(tmp_path / "copy" / "sessions.db")
    copy.append(drafted("action", "elsewhere", {"type": "prompt"}, event_id="mine"))
    copy.close()
    with pytest.raises(NotInLake, match=r"other events as berlin .* in the lake, and "):
        restore(lake, tmp_path / "copy", is_newer=True)


# -------------------------------------------------------------- open sessions first


def test_sessions_that_had_not_ended_come_back_alone(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    restored, _ = restore(lake, tmp_path / "back", is_open=True)
    assert restored.odd == []
    with closing(sqlite3.connect(tmp_path / "back" / "sessions.db")) as database:
        found = database.execute("SELECT DISTINCT session_id FROM events UNION SELECT session_id FROM sessions")
        assert found.fetchall() == [("child",)]
        again = database.execute("SELECT * FROM sessions").fetchall()
    assert again == lost.rows("SELECT * FROM sessions WHERE session_id = 'child'")
    head = lost.value("SELECT max(cursor) FROM events")
    assert read_newest(tmp_path / "back").cursor > head  # what is new comes after all that the lake has


# ------------------------------------------------------------------------ the command


@repeated("kills", many=20, variable="LAKE_KILLS")
def test_a_restore_may_be_killed_anywhere(kills: int, bucket: Place, tmp_path: Path) -> None:
    """Into an empty folder it begins anew; what adds to a database goes on where that is."""
    lost = made(tmp_path / "lost")
    for number in range(40):
        with lost.transaction() as appender:
            for step in range(500):
                appender.append(drafted("action", f"s-{number % 7}", {"type": "prompt", "prompt": f"{number} {step}"}))
        if number == 10:
            (tmp_path / "old").mkdir()
            lost.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(lost.path, tmp_path / "old" / "sessions.db")
    seal_all(lost, bucket.url)
    for folder, how in {"back": [], "old": ["--newer"]}.items():
        command = [sys.executable, "-m", "export", "restore", bucket.url, "--into", str(tmp_path / folder), *how]
        seconds, ends = 0.0, list[int]()
        for kill in range(kills):
            with subprocess.Popen(
                command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as running:
                try:
                    begun = time.monotonic()
                    ends.append(running.wait(seconds * kill / kills if seconds else None))
                    seconds = seconds or time.monotonic() - begun
                except subprocess.TimeoutExpired:
                    running.kill()
                    ends.append(running.wait())
            if folder == "back":
                for path in (tmp_path / folder).glob("sessions.db"):
                    path.unlink()
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert -signal.SIGKILL in ends
        assert contents_of(tmp_path / folder / "sessions.db") == contents_of(lost.path)
    lost.close()


def test_a_restore_that_was_killed_is_done_again_from_the_beginning(lost: Database, tmp_path: Path) -> None:
    lake = (tmp_path / "lake").as_uri()
    seal_all(lost, lake)
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / "sessions.db.part").write_bytes(b"half of one")
    (folder / "sessions.db.part-journal").write_bytes(b"and its log")
    command = [sys.executable, "-m", "export", "restore", lake, "--into", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "events are in" in done.stdout and "berlin, which was sealed up to cursor" in done.stdout
    assert contents_of(folder / "sessions.db") == contents_of(lost.path)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", ".newest.json", "sessions.db"]
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 1
    assert "--newer adds what only the tree has, --force puts it beside" in again.stderr
