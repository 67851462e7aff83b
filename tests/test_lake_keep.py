"""A lake is kept: killed meanwhile it is whole, small files become large, days go, and a check says what is amiss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from deltalake import DeltaTable

from lake import checking, columns, keeping, rewriting, sealer
from lake.__main__ import Keeper
from lake.asking import ask, open_lake
from lake.checking import check
from lake.columns import TEXT, Column
from lake.forgetting import forget
from lake.table import append
from sessionstore import ROOT
from sessionstore.store.shard import keep_shard
from tests.commands import export
from tests.databases import Database
from tests.lakes import Place, Storage
from tests.peers import eventually
from tests.test_lake_forget import GONE, delete, head, rows, seal, talk

A_DAY = 86_400.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "sessions.db")) as made:
        keep_shard(made.connection, "berlin")
        yield made


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return (tmp_path / "lake").as_uri()


def log_of(lake: str) -> list[Path]:
    return sorted(Path(urlsplit(lake).path, "events", "_delta_log").glob("*.json"))


def has_commits(lake: str, number: int) -> bool:
    return len(log_of(lake)) >= number


def talk_for_days(database: Database, days: int, *names: str) -> None:
    """A day each."""
    for _ in range(days):
        database.begun += A_DAY
        for name in names:
            talk(database, name)


# ------------------------------------------------------------------------- killed


def test_killed_while_it_erases_it_has_only_to_be_run_again(lake: str, database: Database) -> None:
    """Each day is a commit: it is killed after the first of what is left, twice, and then comes to an end."""
    talk_for_days(database, 4, GONE, "10-stays")
    seal(database, lake)
    others = [row for row in rows(lake) if row[4] != GONE]
    delete(database, GONE)
    seal(database, lake)
    for _ in range(2):
        commits = len(log_of(lake))
        with keeping_process(database, lake) as process:
            eventually(partial(has_commits, lake, commits + 1))
            process.kill()
        assert process.wait() == -signal.SIGKILL
        assert [row for row in rows(lake)[:-1] if row[4] != GONE] == others
        assert len(rows(lake)) > len(others) + 1
    keeping.keep(database.path, lake, "berlin", None)
    assert rows(lake)[:-1] == others
    assert check(database.path, lake, "berlin").faults == []


def keeping_process(database: Database, lake: str, days: str = "off") -> subprocess.Popen[bytes]:
    arguments = (str(database.path), lake, "berlin", days)
    return subprocess.Popen(
        [sys.executable, "-m", "lake.keeping", *arguments], cwd=ROOT, stdin=subprocess.PIPE, env=dict(os.environ)
    )


def test_the_sealers_process_has_it_kept(lake: str, database: Database) -> None:
    talk(database, GONE)
    seal(database, lake)
    delete(database, GONE)
    seal(database, lake)
    keeper = Keeper(str(database.path), lake, "berlin", "off")
    keeper.look()
    assert keeper.process is None  # not yet: first it seals
    keeper.due = 0.0
    keeper.look()
    assert keeper.process is not None
    assert keeper.process.wait() == 0
    keeper.look()
    assert keeper.process is None
    assert [session_id for (session_id,) in rows(lake, what="session_id")] == [f"forgotten-{head(database)}"]


def test_why_it_could_not_be_kept_is_said(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    keeper = Keeper(str(database.path), "s3://no-such-place", "berlin", "many")
    keeper.due = 0.0
    keeper.look()
    assert keeper.process is not None
    keeper.process.wait()
    keeper.look()
    said = json.loads(capfd.readouterr().out)
    assert not said["kept"] and "not erased yet: ValueError: invalid literal for int" in said["failed"]


# ------------------------------------------------------------------- two versions


def test_a_newer_and_an_older_version_seal_into_one_table(
    lake: str, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer one has a column more. Of what the older one seals it is null, before it was there and after."""

    talk(database, "s-1")
    seal(database, lake)
    with closing(Database(tmp_path / "newer.db")) as other:
        for name in ("n-1", GONE):
            talk(other, name)
        with monkeypatch.context() as patch:
            newer = (*columns.EVENTS, Column("colour", TEXT, "'red'"))
            query = sealer.NEW_EVENTS.replace(columns.select(columns.EVENTS, ""), columns.select(newer, ""))
            patch.setattr("lake.sealer.EVENTS", newer)
            patch.setattr("lake.sealer.NEW_EVENTS", query)
            seal(other, lake, "newer")
        talk(database, "s-2")
        seal(database, lake)  # it does not know the column that is there now
        colours = {colour for (colour,) in rows(lake, what="colour", shard="newer")}
        assert colours == {"red"}
        assert {colour for (colour,) in rows(lake, what="colour")} == {None}
        delete(other, GONE)
        seal(other, lake, "newer")
        assert forget(lake, "newer") == 9  # and an older one erases
        assert [colour for (colour,) in rows(lake, what="colour", shard="newer")] == ["red"] * 7 + [None]
        assert check(database.path, lake, "berlin").faults == []
        assert check(other.path, lake, "newer").faults == []
        with open_lake(lake) as views:
            assert ask(views, "SELECT count(*) FROM sessions").rows == [(3,)]


# --------------------------------------------------------------------- compaction


def test_small_files_become_large_ones_and_no_reader_notices(lake: str, database: Database) -> None:
    for number in range(8):
        talk(database, f"s-{number}")
        seal(database, lake)
    before, reader = rows(lake), DeltaTable(f"{lake}/events")
    files = len(reader.file_uris())
    assert keeping.compact(lake, "munich") == 0
    assert keeping.compact(lake, "berlin") >= 7
    assert len(DeltaTable(f"{lake}/events").file_uris()) == files - 7
    assert rows(lake) == before
    assert keeping.clean(lake) == 0
    assert reader.count() == len(before)  # of files that are not in the table any more
    assert keeping.compact(lake) == 0  # they are large, or few
    assert check(database.path, lake, "berlin")[2:] == ([], [])


def test_it_is_compacted_while_it_is_sealed_and_erased(lake: str, database: Database) -> None:
    for number in range(6):
        talk(database, f"s-{number}")
        seal(database, lake)
    done = threading.Event()

    def compacting() -> None:
        while not done.is_set():
            keeping.compact(lake)

    other = threading.Thread(target=compacting)
    other.start()
    try:
        for number in range(6):
            talk(database, f"t-{number}")
            delete(database, f"s-{number}")
            seal(database, lake)
            forget(lake, "berlin")
    finally:
        done.set()
        other.join()
    forget(lake, "berlin")
    assert check(database.path, lake, "berlin")[:4] == (6 * 8, head(database), [], [])
    assert {session_id[:2] for (session_id,) in rows(lake, what="session_id")} == {"t-", "fo"}


def test_erasing_takes_a_bounded_number_of_bytes_at_a_time(
    lake: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        talk(database, GONE)
        talk(database, "10-stays")
        seal(database, lake)
    monkeypatch.setattr(rewriting, "AT_ONCE_BYTES", 1)
    delete(database, GONE)
    seal(database, lake)
    others = [row for row in rows(lake) if row[4] != GONE]
    version = DeltaTable(f"{lake}/events").version()
    forget(lake, "berlin")
    assert DeltaTable(f"{lake}/events").version() == version + 4  # a file each
    assert rows(lake) == others


# --------------------------------------------------------------------------- days


def test_days_that_are_over_are_dropped_whole(lake: str, database: Database) -> None:
    talk(database, "old")
    talk_for_days(database, 3, "long", "new")
    seal(database, lake)
    talk_for_days(database, 1, "long")
    seal(database, lake)
    today = datetime.fromtimestamp(database.begun, UTC).date()
    first = today - timedelta(days=1)
    keeping.drop_days(lake, "munich", first)
    assert len({day for (day,) in rows(lake, what="day")}) == 5
    keeping.drop_days(lake, "berlin", first)
    assert {day for (day,) in rows(lake, what="day")} == {first, today}
    assert {session_id for (session_id,) in rows(lake, "sessions", "session_id")} == {"long", "new"}
    assert all(session_id in ("long", "new") for (session_id,) in rows(lake, "details", "session_id") if session_id)
    (operation,) = DeltaTable(f"{lake}/events").history(1)
    assert operation["operationMetrics"]["num_copied_rows"] == 0
    assert check(database.path, lake, "berlin").faults != []  # the store keeps more
    assert check(database.path, lake, "berlin", first).faults == []


# -------------------------------------------------------------------------- check


def test_a_check_finds_what_is_missing_twice_and_other_than_it_was(lake: str, database: Database) -> None:
    talk(database, "s-1")
    seal(database, lake)
    assert check(database.path, lake, "berlin") == (7, 7, [], [])
    table = DeltaTable(f"{lake}/events")
    twice = sealer.open_store(database.path).execute(sealer.NEW_EVENTS, {"shard": "berlin", "sealed": 2, "upto": 3})
    append(table, columns.batches(twice, columns.EVENTS), columns.EVENTS, "else", 1)
    table.delete("shard = 'berlin' AND cursor = 5")
    database.connection.execute("UPDATE events SET data = '{\"type\": \"x\"}', actor = 'eve' WHERE cursor = 4")
    assert check(database.path, lake, "berlin").faults == [
        "cursor 3: 2 times",
        "cursor 4: tool, tool_use_id, actor, bytes, data differ",
        "cursor 5: it is missing",
    ]


def test_a_check_says_what_waits(lake: str, database: Database) -> None:
    talk(database, "s-1")
    seal(database, lake)
    delete(database, "s-1")
    seal(database, lake)
    orphan = next(Path(urlsplit(lake).path, "events").rglob("*.parquet")).with_name("orphan.parquet")
    orphan.write_bytes(b"killed before its commit")
    assert check(database.path, lake, "berlin").notes == ["1 sessions are hidden, and not erased yet"]
    os.utime(orphan, (1e9, 1e9))
    assert [note[:48] for note in check(database.path, lake, "berlin").notes] == [
        "1 sessions are hidden, and not erased yet",
        "1 files have been nobody's for more than a day: ",
    ]
    assert keeping.clean(lake) == 1
    assert not orphan.exists()


def test_a_check_says_that_the_bucket_keeps_what_is_removed(
    bucket: Place, storage: Storage, database: Database
) -> None:
    versioned = bucket.url.replace("s3://lakes/", "s3://versioned/")
    assert list(checking.versions(bucket.url)) == []
    assert list(checking.versions(versioned)) == []
    storage.shell("s3.bucket.versioning -name versioned -enable")
    (said,) = checking.versions(versioned)
    assert "noncurrent" in said


# ----------------------------------------------------------------------- commands


def test_the_commands_do_it_too(lake: str, tmp_path: Path, database: Database) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        done = export(tmp_path, "lake", *arguments, SESSIONS_LAKE=lake)
        return done.returncode, done.stdout, done.stderr

    for name in (GONE, "old", "stays"):
        talk(database, name)
    seal(database, lake)
    delete(database, GONE)
    delete(database, "old", reason="retention")
    seal(database, lake)
    assert command("check") == (
        0,
        "1 sessions are hidden, and not erased yet\n"
        f"{lake} has berlin up to cursor 23: 9 events compared, each there once\n",
        "",
    )
    assert command("erase") == (0, "9 rows of deleted sessions are erased, 0 scrubs followed\n", "")
    assert command("erase", "--session", "stays") == (
        1, "", f"export: The store in {tmp_path} has stays: delete it there, and the lake follows\n"
    )  # fmt: skip
    assert command("erase", "--session", "old", "--shard", "else")[0] == 1
    assert command("erase", "--session", "old") == (0, "berlin: 10 rows are erased\n", "")
    assert command("erase", "--session", "old") == (1, "", f"export: {lake} has nothing of old\n")
    assert command("erase", "--session", "../old")[0] == 2
    assert {session_id for (session_id,) in rows(lake, what="session_id")} == {"stays", "forgotten-22"}
    assert command("compact") == (
        0, f"{lake} has 0 files less to read; 0 that nobody reads any more are removed\n", ""
    )  # fmt: skip
    database.connection.execute("UPDATE events SET actor = 'eve' WHERE cursor = 20")
    code, said, why = command("check")
    assert (code, said.splitlines()[:1]) == (1, ["cursor 20: actor differ"])
    assert why == f"export: {lake} is not what {database.path} has\n"
