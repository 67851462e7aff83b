"""The lake forgets: hidden with the next seal, erased, gone from every object; and nothing else with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from export.layout import unseen
from lake import keeping, table
from lake.asking import ask, open_lake
from lake.checking import check
from lake.forgetting import erase, forget
from lake.rewriting import WHOLE, again, rows_of
from lake.scrubbing import follow
from sessionstore import ROOT
from sessionstore.admin.scrub import pattern, scrub
from sessionstore.settings import Settings
from sessionstore.store.maintenance import purge
from sessionstore.store.shard import keep_shard
from tests import lakes
from tests.databases import Database, drafted
from tests.lake_objects import holding, kinds
from tests.lakes import Place
from tests.tracing import tool

Row = tuple[Any, ...]
GONE = "00-gone"
"""Its id comes before all others: so it stands in the statistics of files, too."""
SECRET = "the-text-that-is-to-go"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "sessions.db")) as made:
        yield made


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return (tmp_path / "lake").as_uri()


def talk(database: Database, session_id: str, text: str = "said", actions: int = 5) -> None:
    with database.transaction() as appender:
        appender.append(drafted("session_created", session_id, {"initial": {"input": text}}, user_id="alice"))
        for step in range(actions):
            data = {"type": "tool_call", "tool": "Bash", "toolUseId": f"call-{step}", "input": {"command": text}}
            appender.append(drafted("action", session_id, data))
        appender.append(drafted("goal_added", session_id, {"id": "goal-1", "description": text, "status": "pending"}))


def delete(database: Database, session_id: str, **data: str) -> None:
    database.append(drafted("session_deleted", session_id, data, actor="bob", event_id="deletion"))
    with database.transaction() as appender:
        appender.open_transaction()
        while purge(database.connection):
            pass


def head(database: Database) -> int:
    return int(database.value("SELECT max(cursor) FROM events"))


def seal(database: Database, lake: str, shard: str = "berlin") -> None:
    while again(lambda: lakes.seal(database.path, lake, shard)):
        pass


def rows(lake: str, name: str = "events", what: str = "*", shard: str = "berlin") -> list[Row]:
    order = {"events": "cursor", "sessions": "sealed, last_cursor", "details": "sealed", "deletions": "cursor"}[name]
    query = f"SELECT {what} FROM t WHERE shard = '{shard}' ORDER BY {order}"
    return list(rows_of(DeltaTable(f"{lake}/{name}"), query))


def visible(lake: str) -> set[str]:
    """Sessions of which people see anything."""
    with open_lake(lake) as views:
        seen = "SELECT session_id FROM events UNION SELECT session_id FROM sessions UNION SELECT session_id FROM goals"
        return {str(session_id) for (session_id,) in ask(views, seen).rows}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables whose logs need not be kept for a day."""
    monkeypatch.setitem(table.CONFIGURATION, "delta.logRetentionDuration", "interval 0 days")


def test_what_a_person_deletes_is_hidden_with_the_next_seal_and_then_in_no_object(
    bucket: Place, database: Database, at_once: None
) -> None:
    """In the values of Parquet, its statistics and all else of its footers, in the log and its checkpoints."""
    lake = bucket.url
    for name in (GONE, "10-stays", "20-stays"):
        talk(database, name, SECRET if name == GONE else "said")
    seal(database, lake)
    keeping.clean(lake)
    before = [row for row in rows(lake) if row[4] != GONE]
    everywhere = {
        f"{name}/{kind}" for name in ("events", "sessions", "details") for kind in ("parquet", "log", "checkpoint")
    }
    assert kinds(holding(lake, GONE)) == everywhere  # what is looked for is found
    assert kinds(holding(lake, SECRET)) == {"events/parquet", "sessions/parquet", "details/parquet"}

    delete(database, GONE)
    seal(database, lake)
    assert visible(lake) == {"10-stays", "20-stays", f"forgotten-{head(database)}"}
    assert rows(lake, "deletions") == [("berlin", GONE, head(database))]

    assert forget(lake, "berlin") == 7 + 1 + 1
    assert kinds(holding(lake, GONE)) == everywhere | {"deletions/parquet", "deletions/log"}  # in what was replaced
    assert forget(lake, "berlin") == 0
    assert rows(lake, "deletions") == []
    assert keeping.clean(lake, hours=0) > 0
    keeping.clean(lake, hours=0)  # the first one's own commits
    assert holding(lake, GONE, SECRET) == set()
    assert rows(lake)[:-1] == before
    assert rows(lake, what="session_id, user_id, event_id, data")[-1][:3] == (
        f"forgotten-{head(database)}",
        "unknown",
        f"forgotten-{head(database)}",
    )


def test_three_days_later_it_is_gone_by_itself(lake: str, tmp_path: Path) -> None:
    """What the sealer's process does every six hours, with the clock set on."""
    with closing(Database(tmp_path / "sessions.db")) as database:
        for name in (GONE, "10-stays"):
            talk(database, name, SECRET if name == GONE else "said")
        seal(database, lake)
        before = [row for row in rows(lake) if row[4] != GONE]
        delete(database, GONE)
        seal(database, lake)
    for hours in (6, 12):  # erased; then the next one sees that it is
        keep_at(hours, tmp_path, lake)
        assert kinds(holding(lake, GONE)) > {"events/parquet", "sessions/parquet", "deletions/parquet", "events/log"}
    keep_at(72, tmp_path, lake)
    assert holding(lake, GONE, SECRET) == set()
    assert rows(lake)[:-1] == before


def keep_at(hours: int, folder: Path, lake: str) -> None:
    library = next(Path(tool("faketime")).resolve().parent.parent.glob("lib/**/faketime/libfaketimeMT.so.1"))
    clock = {"LD_PRELOAD": str(library), "FAKETIME": f"+{hours}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    command = [sys.executable, "-m", "lake.keeping", str(folder / "sessions.db"), lake, "berlin", "off"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **clock}, stdin=subprocess.PIPE) as keeping:
        assert keeping.wait() == 0


@pytest.mark.parametrize("reason", ["retention", "prune", "moved"])
def test_what_makes_room_leaves_the_history_sealed(reason: str, lake: str, database: Database) -> None:
    talk(database, "s-1")
    talk(database, "s-2")
    seal(database, lake)
    before = rows(lake)
    delete(database, "s-1", reason=reason)
    seal(database, lake)
    assert forget(lake, "berlin") == 0
    assert rows(lake)[:-1] == before
    assert rows(lake, "deletions") == []
    assert rows(lake, what="session_id, type")[-1] == ("s-1", "session_deleted")


@pytest.mark.parametrize("data", ["{}", '{"reason": "person"}', '{"reason": "else"}', '{"reason": null}'])
def test_a_deletion_of_which_nobody_knows_why_forgets(data: str, lake: str, database: Database) -> None:
    talk(database, "s-1")
    seal(database, lake)
    delete(database, "s-1")
    database.connection.execute("UPDATE events SET data = ? WHERE type = 'session_deleted'", (data,))
    seal(database, lake)
    assert forget(lake, "berlin") == 9


def test_a_session_that_came_again_keeps_what_is_new(lake: str, database: Database) -> None:
    talk(database, "s-1", "old")
    seal(database, lake)
    delete(database, "s-1")
    talk(database, "s-1", "new")
    seal(database, lake)
    assert forget(lake, "berlin") == 9
    assert forget(lake, "berlin") == 0
    assert ["old" in data for (data,) in rows(lake, what="data")] == [False] * 8
    assert [input for (input,) in rows(lake, "sessions", "input")] == ["new"]


def test_nothing_is_hidden_of_which_nothing_was_ever_sealed(lake: str, database: Database) -> None:
    talk(database, "s-1")
    delete(database, "s-1")
    talk(database, "s-2")
    seal(database, lake)
    assert {session_id for (session_id,) in rows(lake, what="session_id")} == {"s-2", "forgotten-8"}
    assert forget(lake, "berlin") == 0
    assert rows(lake, "deletions") == []


def test_another_shard_goes_on_sealing_meanwhile(lake: str, tmp_path: Path, database: Database) -> None:
    """Each commit that takes rows out makes one that adds some fail, and is made to fail by another."""
    names = [f"s-{number}" for number in range(8)]
    for name in names:
        talk(database, name)
        seal(database, lake)
    with closing(Database(tmp_path / "munich.db")) as munich:
        erasing = threading.Thread(target=lambda: list(map(partial(erase_whole, lake), names)))
        erasing.start()
        for number in range(12):
            talk(munich, f"m-{number}")
            seal(munich, lake, "munich")
        erasing.join()
        assert rows(lake, what="cursor, data", shard="munich") == munich.rows("SELECT cursor, data FROM events")
    assert rows(lake) == []


def erase_whole(lake: str, name: str) -> None:
    again(lambda: erase(lake, "berlin", {name: WHOLE}))


# ------------------------------------------------------------------------- scrub


def test_what_was_scrubbed_in_the_store_is_in_no_object(lake: str, tmp_path: Path, at_once: None) -> None:
    store = Settings(directory=tmp_path)
    with closing(Database(store.database)) as database:
        keep_shard(database.connection, "berlin")
        talk(database, "s-1", SECRET)
        talk(database, "s-2")
        seal(database, lake)
        talk(database, "s-3", SECRET)
        database.append(drafted("action", "s-1", {"type": "note", "text": SECRET}))  # another row of the session
        seal(database, lake)
        talk(database, "s-4", SECRET)  # not sealed yet
    before = rows(lake, what="cursor, session_id, type")
    scrub(store, pattern(SECRET, is_literal=True), unseen, print)
    assert kinds(holding(lake, SECRET)) == {"events/parquet", "sessions/parquet", "details/parquet"}
    assert [said.partition(": ")[2] for said in check(store.database, lake, "berlin").faults] == [
        "bytes, data differ"
    ] * 15

    assert follow(store.database, lake, "berlin") == 1
    assert follow(store.database, lake, "berlin") == 0
    for _ in range(2):
        keeping.clean(lake, hours=0)
    assert holding(lake, SECRET) == set()
    assert rows(lake, what="cursor, session_id, type") == before
    assert check(store.database, lake, "berlin")[:3] == (len(before), len(before), [])
    with open_lake(lake) as views:
        assert ask(views, "SELECT session_id, description FROM goals ORDER BY 1").rows == [
            ("s-1", "[redacted:scrubbed]"),
            ("s-2", "said"),
            ("s-3", "[redacted:scrubbed]"),
        ]


def test_what_was_scrubbed_and_then_made_room_goes(lake: str, tmp_path: Path) -> None:
    """The store has no more what could stand in its place."""
    store = Settings(directory=tmp_path)
    with closing(Database(store.database)) as database:
        keep_shard(database.connection, "berlin")
        for name in ("s-1", "s-2"):
            talk(database, name, SECRET if name == "s-1" else "said")
        seal(database, lake)
    scrub(store, pattern(SECRET, is_literal=True), unseen, print)
    with closing(Database(store.database)) as database:
        delete(database, "s-1", reason="retention")
        seal(database, lake)
        assert follow(database.path, lake, "berlin") == 1
        assert not any(SECRET in data for (data,) in rows(lake, what="data"))
        assert visible(lake) == {"s-1", "s-2"}
        assert [session_id for (session_id,) in rows(lake, "sessions", "session_id")] == ["s-2"]


def test_a_store_without_a_lake_keeps_no_record_of_scrubs(tmp_path: Path) -> None:
    store = Settings(directory=tmp_path)
    with closing(Database(store.database)) as database:
        talk(database, "s-1", SECRET)
    scrub(store, pattern(SECRET, is_literal=True), unseen, print)
    with closing(Database(store.database)) as database:
        assert database.rows("SELECT * FROM scrubs") == []
