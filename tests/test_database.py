"""The SQLite file on its own, without a server: how it is opened, and how an event gets into it."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.model.drafts import draft_of
from sessionstore.model.events import TOLD_ABOUT
from sessionstore.model.problems import Problem
from sessionstore.store.appender import RECORD_EVENTS, STATE_VERSION
from sessionstore.store.closing import lose_silent
from sessionstore.store.maintenance import index_search, purge
from sessionstore.store.reader import CONNECTIONS
from sessionstore.store.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    STATE_EVENTS,
    DatabaseUnusable,
    create_schema,
    migrate,
    open_writer,
    statements,
    views_and_triggers,
    views_and_triggers_of,
)
from tests.appliance import REPOSITORY, Appliance
from tests.databases import DERIVED, Database, drafted, temporary_database, without_actors
from tests.peers import descriptors_of, eventually
from tests.repeats import examples
from tests.trees import apply, ids, statuses, write

NEWEST = len(MIGRATIONS) + 1


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "sessions.db")
    yield opened
    opened.close()


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


# --------------------------------------------------------------------- opening


def test_a_new_database_is_of_the_newest_version_and_marked_as_ours(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "new.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST,)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
def test_durability_is_what_sqlite_is_told(tmp_path: Path, durability: str, synchronous: int) -> None:
    connection = open_writer(tmp_path / "new.db", durability=durability)
    assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connection.close()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    first = Database(path)
    first.append(drafted("action", "s", {"type": "x"}))
    before = first.dump("events", *DERIVED)
    first.close()
    second = Database(path)
    assert second.dump("events", *DERIVED) == before
    second.close()


def test_views_and_triggers_are_as_the_program_has_them(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    first = open_writer(path)
    first.executescript("DROP VIEW reports; DROP TRIGGER usage_gone; CREATE VIEW reports AS SELECT 1 AS request_key")
    first.close()
    second = open_writer(path)
    assert views_and_triggers_of(second) == set(views_and_triggers())
    before = second.execute("PRAGMA schema_version").fetchone()
    second.close()
    again = open_writer(path)
    assert again.execute("PRAGMA schema_version").fetchone() == before, "nothing is written where they are so already"
    again.close()


def test_a_database_of_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    connection = open_writer(path)
    connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        DatabaseUnusable, match=rf"of version {NEWEST + 1}, this program knows {NEWEST}: use a newer program"
    ):
        open_writer(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 1, 9])
def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "sessions.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE theirs (a); PRAGMA user_version = {version};")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="another program"):
        open_writer(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["sessions.db"]


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    open_writer(path).close()
    assert version_of(path) == NEWEST


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"some text, and rather much of it. " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_writer(path)


# ------------------------------------------------------------------ migrations


def add_colour(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE users ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey' /* of the page */")


def break_half_way(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE half (a)")
    connection.execute("INSERT INTO nowhere VALUES (1)")


def schema_of(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))


def test_a_database_of_version_eleven_becomes_like_a_new_one(database: Database) -> None:
    """The table of events is said in other words, of which no row knows."""
    database.append(drafted("action", "s", {"type": "x"}, event_id="once"))
    wanted, events = schema_of(database.connection), database.rows("SELECT * FROM events")
    database.connection.executescript("""
        DROP TABLE lake; DROP TABLE scrubs; DROP INDEX events_of_notes; PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(sql, 'type IN (''action'', ''response'')
                      OR type IN (', 'type IN (''action'', ''response'', ') WHERE name = 'events';
        PRAGMA writable_schema = RESET; PRAGMA user_version = 11""")
    missing = {name for name, _ in wanted - schema_of(database.connection)}
    assert missing == {"events", "events_of_notes", "lake", "scrubs"}
    migrate(database.connection)
    assert schema_of(database.connection) == wanted
    assert database.rows("SELECT * FROM events") == events
    assert database.value("PRAGMA integrity_check") == "ok"
    database.append(drafted("metadata_updated", "s", {"note": "y"}))
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint"):
        database.connection.execute("UPDATE events SET type = 'another'")


def test_a_database_of_version_one_becomes_like_a_new_one(database: Database) -> None:
    database.append(drafted("action", "s", {"type": "x"}, event_id="once"))
    wanted = schema_of(database.connection)
    without_actors(database.connection)
    database.connection.executescript("""
        DROP TABLE asks; DROP TABLE remade; DROP TABLE transcripts; DROP TABLE transcript_pieces;
        DROP TABLE transcript_batches; DROP TABLE checkpoint_threads; DROP TABLE checkpoints;
        DROP TABLE checkpoint_channels; DROP TABLE checkpoint_writes; DROP TABLE checkpoint_values;
        DROP TABLE checkpoint_pieces; DROP TABLE material_sizes;
        DROP TABLE claims; ALTER TABLE sessions ADD COLUMN attention TEXT;
        DROP TABLE status_changes; DROP TABLE search; CREATE VIRTUAL TABLE search USING fts5 (text, content = '');
        INSERT INTO search (rowid, text) VALUES (1, 'x'), (2, 'x'); UPDATE progress SET searched = 2;
        DROP INDEX events_by_tool_use; DROP INDEX events_of_prompts; DROP INDEX events_of_failures;
        DROP INDEX events_of_documents;
        DROP INDEX events_by_event_id; CREATE UNIQUE INDEX events_by_event_id ON events (session_id, event_id);
        CREATE VIEW timeline AS SELECT 1 AS old;
        PRAGMA user_version = 1""")
    assert schema_of(database.connection) != wanted
    migrate(database.connection)
    assert schema_of(database.connection) == wanted
    assert database.value("PRAGMA user_version") == NEWEST
    assert database.append(drafted("action", "s", {"type": "x"}, event_id="once")).duplicate
    assert database.append(drafted("action", "s", {"type": "x"})).event.seq == 2
    index_search(database.connection, limit=10)
    assert found(database, "x") == [2, 3]


def aged(database: Database) -> None:
    """As version 6 has it: one slot for what a session waits for, and goals by their ids."""
    without_actors(database.connection)
    database.connection.executescript("""
        ALTER TABLE sessions ADD COLUMN attention TEXT;
        UPDATE sessions SET attention = '{"reason":"permission"}' WHERE status = 'waiting';
        UPDATE documents SET document = json_set(document, '$.goalsAchieved', (
            SELECT json_group_array(value ->> '$.id') FROM json_each(document, '$.goalsAchieved')))
        WHERE name = 'final';
        DROP TABLE asks; DROP TABLE remade; DROP TABLE transcripts; DROP TABLE transcript_pieces;
        DROP TABLE transcript_batches; DROP TABLE checkpoint_threads; DROP TABLE checkpoints;
        DROP TABLE checkpoint_channels; DROP TABLE checkpoint_writes; DROP TABLE checkpoint_values;
        DROP TABLE checkpoint_pieces; DROP TABLE material_sizes;
        DROP TABLE claims; PRAGMA user_version = 6""")


def with_goals_and_a_wait(database: Database) -> tuple[str, str]:
    """The final document and the metadata of one that waits, as they are now."""
    database.append(drafted("goal_added", "ended", {"id": "a", "description": "one", "status": "completed"}))
    database.append(drafted("goal_added", "ended", {"id": "b", "description": "two"}))
    database.append(drafted("session_finalized", "ended", {"outcome": "x"}))
    database.append(drafted("goal_updated", "ended", {"goalId": "a", "description": "changed since"}))
    database.append(drafted("action", "waits", {"type": "x", "attention": {"reason": "permission", "message": "?"}}))
    database.append(drafted("action", "waits", {"type": "y"}))
    database.append(drafted("metadata_updated", "asked", {"status": "waiting"}))
    return database.document("ended", "final"), metadata_of(database)


def metadata_of(database: Database) -> str:
    return str(database.value("SELECT document FROM metadata WHERE session_id = 'waits'"))


def test_goals_of_an_older_version_become_whole_and_waits_become_asks(database: Database) -> None:
    final, metadata = with_goals_and_a_wait(database)
    assert '"description":"one"' in final
    aged(database)
    assert json.loads(database.document("ended", "final"))["goalsAchieved"] == ["a"]
    migrate(database.connection)
    assert (database.document("ended", "final"), metadata_of(database)) == (final, metadata)
    assert database.value("SELECT count(*) FROM asks JOIN sessions USING (session_id) WHERE status = 'waiting'") == 2
    assert database.kept() == database.recounted()


def test_a_migration_that_is_killed_half_way_is_made_again(database: Database) -> None:
    final, _ = with_goals_and_a_wait(database)
    aged(database)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(database.connection, (*MIGRATIONS, break_half_way))
    assert database.value("PRAGMA user_version") == 6
    assert json.loads(database.document("ended", "final"))["goalsAchieved"] == ["a"]
    migrate(database.connection)
    assert database.document("ended", "final") == final


def test_a_migration_is_applied_once(database: Database) -> None:
    database.append(drafted("action", "s", {"type": "x"}, user_id="alice"))
    for _ in range(2):
        migrate(database.connection, (*MIGRATIONS, add_colour))
        assert database.rows("SELECT * FROM users") == [("alice", 1, "grey")]
        assert database.value("PRAGMA user_version") == NEWEST + 1


def test_a_migration_that_fails_leaves_the_old_version_untouched(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(database.connection, (*MIGRATIONS, add_colour, break_half_way))
    assert not database.connection.in_transaction
    assert database.value("PRAGMA user_version") == NEWEST
    assert database.rows("SELECT name FROM sqlite_master WHERE name = 'half'") == []
    assert database.rows("SELECT name FROM pragma_table_info('users') WHERE name = 'colour'") == []


def test_a_schema_that_fails_half_way_leaves_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "schema.sql"
    broken.write_text("CREATE TABLE one (a);\nCREATE TABLE one (a);\n")
    monkeypatch.setattr("sessionstore.store.schema.SCHEMA", broken)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        open_writer(tmp_path / "new.db")
    connection = sqlite3.connect(tmp_path / "new.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_statements_are_told_apart_through_triggers_strings_and_comments() -> None:
    script = """CREATE TABLE a (b); -- one; two
CREATE TRIGGER t AFTER INSERT ON a BEGIN
  SELECT ';';
  SELECT 1;
END;
/* ; */
SELECT 2;
"""
    assert [statement.split()[-1] for statement in statements(script)] == ["two", "END;", "2;"]


def test_the_schema_has_no_statement_without_an_end() -> None:
    script = (REPOSITORY / "schema.sql").read_text()
    assert "".join(statements(script)).strip() == script.strip()
    connection = sqlite3.connect(":memory:")
    create_schema(connection)
    connection.close()


# -------------------------------------------------------------------- appending


def test_a_first_word_makes_its_session_in_the_same_write(database: Database) -> None:
    appended = database.append(drafted("action", "s", {"type": "x"}, user_id="alice"))
    assert [row[0] for row in database.rows("SELECT type FROM events ORDER BY cursor")] == ["session_created", "action"]
    assert (appended.event.cursor, appended.event.seq, appended.event.user_id) == (2, 1, "alice")
    assert database.value("SELECT is_implicit FROM sessions") == 1


def test_a_first_word_that_cannot_be_stored_leaves_no_session(database: Database) -> None:
    before = database.dump("events", *DERIVED)
    with database.transaction() as appender:
        with pytest.raises(Problem) as refused:
            appender.append(drafted("goal_added", "s", {"description": "d", "id": "not an id"}))
        assert (appender.cursor, appender.fresh) == (0, [])
    assert refused.value.status == 422
    assert database.dump("events", *DERIVED) == before


@pytest.mark.parametrize(
    ("event_type", "data", "status"),
    [
        ("session_created", {"initial": {}, "metadata": {"metrics": 5}}, 422),
        ("session_created", {"initial": {}, "metadata": {"tags": "x"}}, 422),
        ("session_created", {"initial": {}, "metadata": {"model": 7}}, 422),
        ("metadata_updated", {"metrics": []}, 422),
        ("metadata_updated", {"metrics.toolCalls": None}, 422),
        ("metadata_updated", {"metrics.toolCalls": 2**63}, 422),
        ("metadata_updated", {"metrics.toolCalls": 0.5}, 422),
        ("metadata_updated", {"tokenUsage.input": "many"}, 422),
        ("metadata_updated", {"status": "asleep"}, 422),
        ("state_updated", {"phase": "\ud800"}, 500),
        ("action", {"type": "x", "data": object()}, 500),
    ],
)
def test_a_write_that_cannot_be_stored_is_refused_alone(
    database: Database, event_type: str, data: dict[str, object], status: int
) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    before = database.dump("events", *DERIVED)
    with database.transaction() as appender, pytest.raises(Problem) as refused:
        appender.append(drafted(event_type, "s", data))
    assert refused.value.status == status
    assert database.dump("events", *DERIVED) == before
    with database.transaction() as appender:
        with pytest.raises(Problem):
            appender.append(drafted(event_type, "s", data))
        appender.append(drafted("action", "s", {"type": "beside it"}))
    assert database.value("SELECT actions FROM sessions") == 2


@pytest.mark.parametrize("name", ["userId", "created", "goals", "phase", "lastCursor.x"])
def test_what_the_store_keeps_cannot_be_set_by_whoever_creates_a_session(name: str) -> None:
    with pytest.raises(Problem) as refused:
        draft_of("session_created", "s", {"userId": "alice", "initial": {}, "metadata": {name: "mine"}})
    assert (refused.value.status, refused.value.path) == (422, f"$.metadata.{name}")


def test_a_write_that_the_disk_refuses_is_nobodys_fault(database: Database) -> None:
    """It must not be told as a refusal: the whole transaction has to go."""
    database.append(drafted("action", "s", {"type": "x"}))
    database.connection.execute(f"PRAGMA max_page_count = {database.value('PRAGMA page_count')}")
    database.appender.buffers = False
    for session in ("s", "new"):
        with database.transaction() as appender, pytest.raises(sqlite3.OperationalError, match="full"):
            appender.append(drafted("action", session, {"type": "x", "text": "x" * 2_000_000}))
    assert database.value("SELECT count(*) FROM events") == 2


def test_what_a_trigger_cannot_fold_fails_alone(database: Database) -> None:
    database.append(drafted("state_updated", "s", {"a": 1}))
    before = database.dump("events", *DERIVED)
    database.connection.execute("CREATE TRIGGER refuses AFTER UPDATE ON documents BEGIN SELECT json('{'); END")
    with database.transaction() as appender:
        with pytest.raises(Problem) as refused:
            appender.append(drafted("state_updated", "s", {"a": 2}))
        assert appender.append(drafted("action", "s", {"type": "x"})).event.cursor == 3
    assert refused.value.status == 500
    assert database.dump("documents") == {"documents": before["documents"]}


def test_without_auto_create_an_unknown_session_is_not_found(tmp_path: Path) -> None:
    strict = Database(tmp_path / "strict.db", auto_create=False)
    with pytest.raises(Problem) as refused:
        strict.append(drafted("action", "s", {"type": "x"}))
    assert (refused.value.status, strict.value("SELECT count(*) FROM events")) == (404, 0)
    strict.close()


# ------------------------------------------------------------- told about a session


@pytest.mark.parametrize("event_type", TOLD_ABOUT)
@pytest.mark.parametrize("end", [None, "session_finalized", "session_lost"])
def test_what_is_told_about_a_session_is_no_word_of_its_agent(
    database: Database, event_type: str, end: str | None
) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    if end:
        database.append(drafted(end, "s"))
    before = database.rows(AS_IT_IS)
    database.append(drafted(event_type, "s", {"text": "t", "status": "active", "attention": {"reason": "plan"}}))
    assert database.rows(AS_IT_IS) == before
    assert database.value("SELECT last_cursor FROM sessions") == database.value("SELECT max(cursor) FROM events")
    assert database.kept() == database.recounted()
    database.append(drafted("action", "s", {"type": "x"}))  # which a word does
    assert database.rows(AS_IT_IS) != before


AS_IT_IS = """
SELECT status, heard, ended, actions, responses, goals, agents, phase,
       (SELECT group_concat(name || version || document) FROM documents), (SELECT count(*) FROM asks) FROM sessions"""


# ------------------------------------------------------------------ idempotency

FIRST: dict[str, dict[str, object]] = {
    "action": {"type": "x", "n": 1},
    "response": {"type": "x", "n": 1},
    "state_updated": {"phase": "work"},
    "metadata_updated": {"note": "n"},
    "goal_added": {"description": "d"},
    "agent_spawned": {"type": "t"},
    "goal_updated": {"goalId": "g", "status": "completed"},
    "agent_updated": {"agentId": "a", "status": "running"},
    "agent_completed": {"agentId": "a"},
    "session_created": {"initial": {"input": {}}},
    "session_finalized": {"status": "success"},
}
NAMED = {
    "goal_added": "id",
    "goal_updated": "goalId",
    "agent_spawned": "agentId",
    "agent_updated": "agentId",
    "agent_completed": "agentId",
}
"""Where each has the id of what it changes."""


@pytest.mark.parametrize("event_type", sorted(FIRST))
def test_a_retry_changes_nothing_and_is_answered_as_the_first_time(database: Database, event_type: str) -> None:
    database.append(drafted("session_created", "s", {"initial": {}}))
    first = database.append(drafted(event_type, "s", dict(FIRST[event_type]), event_id="once"))
    database.append(drafted("goal_updated", "s", {"goalId": "g", "status": "later"}))
    database.append(drafted("agent_updated", "s", {"agentId": "a", "status": "later"}))
    before = database.dump("events", *DERIVED)
    again = database.append(drafted(event_type, "s", dict(FIRST[event_type]), event_id="once"))
    assert again == first._replace(duplicate=True)
    assert database.dump("events", *DERIVED) == before


records = st.lists(st.fixed_dictionaries({}, optional={"id": ids, "agentId": ids, "status": statuses}), max_size=2)
lists = records | st.none() | st.just("no list")
overwritten = st.fixed_dictionaries(
    {}, optional={"goals": lists, "agents": lists | st.dictionaries(st.sampled_from(["spawned", "active"]), lists)}
)
state_writes = st.lists(
    st.one_of(
        *(write(name, st.fixed_dictionaries({key: ids}, optional={"status": statuses})) for name, key in NAMED.items()),
        write("state_updated", overwritten, patch=st.sampled_from([None, "merge-patch", "replace"])),
    ),
    max_size=30,
)


@settings(max_examples=examples(200))
@given(state_writes)
@pytest.mark.long
def test_of_any_change_of_a_state_a_retry_hears_what_was_heard_the_first_time(written: list[Any]) -> None:
    with temporary_database() as database:
        heard = [appended for one in written if (appended := apply(database, (one[0], "s", *one[2:])))]
        for appended in heard:
            assert database.appender.outcome_then(appended.event) == (appended.version, appended.record)


def test_a_retry_does_not_read_all_that_was_said_in_a_session(database: Database) -> None:
    for query in (STATE_EVENTS, STATE_VERSION, *RECORD_EVENTS.values()):
        plan = database.rows(f"EXPLAIN QUERY PLAN {query}", *["s", 9, "x", "x"][: query.count("?")])
        assert "INDEX events_of_documents" in plan[0][3], plan


@pytest.mark.parametrize("event_type", sorted(FIRST))
def test_the_same_event_id_with_other_content_is_refused(database: Database, event_type: str) -> None:
    database.append(drafted("session_created", "s", {"initial": {}}))
    database.append(drafted(event_type, "s", dict(FIRST[event_type]), event_id="once"))
    before = database.dump("events", *DERIVED)
    for other in (
        drafted(event_type, "s", FIRST[event_type] | {"other": True}, event_id="once"),
        drafted("action", "s", {"type": "something else"}, event_id="once"),
    ):
        with pytest.raises(Problem) as refused:
            database.append(other)
        assert refused.value.status == 422
    assert database.dump("events", *DERIVED) == before


def test_event_ids_belong_to_their_session(database: Database) -> None:
    for session in ("s", "t"):
        assert not database.append(drafted("action", session, {"type": "x"}, event_id="once")).duplicate


def test_a_deletion_that_is_told_again_is_answered_as_the_first_time(database: Database) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    first = database.append(drafted("session_deleted", "s", event_id="once"))
    again = database.append(drafted("session_deleted", "s", event_id="once"))
    assert again == first._replace(duplicate=True)
    with pytest.raises(Problem) as refused:
        database.append(drafted("action", "s", {"type": "x"}, event_id="once"))
    assert refused.value.status == 422
    with pytest.raises(Problem) as unknown:
        database.append(drafted("session_deleted", "s"))
    assert unknown.value.status == 404


# --------------------------------------------------------------------- deleting


def found(database: Database, word: str) -> list[int]:
    return [row[0] for row in database.rows("SELECT rowid FROM search WHERE search MATCH ? ORDER BY 1", word)]


def test_a_deleted_session_is_gone_at_once_and_its_events_in_pieces(database: Database) -> None:
    for number in range(10):
        database.append(drafted("action", "s", {"type": "x", "n": number}))
    database.append(drafted("action", "kept", {"type": "x"}))
    deletion = database.append(drafted("session_deleted", "s")).event
    assert database.rows("SELECT session_id FROM sessions") == [("kept",)]
    assert database.rows("SELECT type FROM timeline WHERE session_id = 's'") == [("session_deleted",)]
    left = []
    while purge(database.connection, limit=4):
        left.append(database.value("SELECT count(*) FROM events WHERE session_id = 's'"))
    assert left == [8, 4, 1]
    assert database.value("SELECT cursor FROM events WHERE session_id = 's'") == deletion.cursor
    assert database.rows("SELECT * FROM purges") == []
    assert database.value("SELECT count(*) FROM events WHERE session_id = 'kept'") == 2


def test_search_entries_go_with_their_events(database: Database) -> None:
    """Also where the index had not come as far as the events, when the session was deleted."""
    for _ in range(6):
        database.append(drafted("action", "s", {"type": "x", "text": "needle"}))
        database.append(drafted("action", "kept", {"type": "x", "text": "needle"}))
    assert index_search(database.connection, limit=7) == (7, True)
    assert found(database, "needle") == [2, 4, 5, 6, 7]
    database.append(drafted("session_deleted", "s"))
    while purge(database.connection, limit=2):
        pass
    while index_search(database.connection, limit=2)[1]:
        pass
    kept = [row[0] for row in database.rows("SELECT cursor FROM events WHERE session_id = 'kept' AND seq IS NOT NULL")]
    assert found(database, "needle") == kept
    database.connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")


def test_an_id_can_be_used_again_and_nothing_of_the_old_session_comes_back(database: Database) -> None:
    for _ in range(3):
        database.append(drafted("action", "s", {"type": "old"}, event_id=None))
    database.append(drafted("state_updated", "s", {"phase": "old"}))
    last = database.append(drafted("session_deleted", "s")).event.cursor
    again = database.append(drafted("action", "s", {"type": "new"}))
    assert (again.event.seq, again.event.cursor) == (1, last + 2)
    assert database.rows("SELECT kind FROM entries") == [("new",)]
    assert json.loads(database.document("s", "state"))["phase"] == "initialization"


def test_a_cursor_is_never_given_twice(database: Database) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    deletion = database.append(drafted("session_deleted", "s")).event.cursor
    while purge(database.connection):
        pass
    assert database.append(drafted("action", "t", {"type": "x"})).event.cursor == deletion + 2


def test_sub_sessions_outlive_the_session_that_started_them(database: Database) -> None:
    database.append(drafted("session_created", "parent", {"initial": {}}))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}))
    assert json.loads(database.value("SELECT subsessions FROM counted WHERE session_id = 'parent'")) == ["child"]
    database.append(drafted("session_deleted", "parent"))
    assert database.rows("SELECT session_id, parent_session FROM sessions") == [("child", "parent")]


def test_a_kill_while_a_deleted_id_is_made_free_loses_nothing(database: Database) -> None:
    for _ in range(1200):
        database.append(drafted("action", "s", {"type": "x"}))
    database.append(drafted("session_deleted", "s"))
    with database.transaction() as appender:
        assert not appender.is_free(["s"])
        assert not appender.is_free(["s", "other"]), "not more in one transaction"
        assert appender.is_free(["other"])
    assert database.value("SELECT count(*) FROM events WHERE type = 'action'") == 701
    database.appender.reload()  # what a process that starts anew knows
    assert database.appender.is_purging
    turns, is_free = 0, False
    while not is_free:
        turns += 1
        with database.transaction() as appender:
            is_free = appender.is_free(["s"])
    assert turns == 2
    database.append(drafted("session_created", "s", {"initial": {}}))
    assert database.rows("SELECT type FROM events ORDER BY cursor") == [("session_deleted",), ("session_created",)]
    assert database.kept() == database.recounted()


# ------------------------------------------------------------------------- lost


def test_only_active_sessions_are_lost(database: Database) -> None:
    for session in ("active", "waiting", "finished", "busy"):
        database.append(drafted("action", session, {"type": "x"}))
    database.append(drafted("metadata_updated", "waiting", {"attention": {"reason": "input"}}))
    database.append(drafted("session_finalized", "finished"))
    heard = database.append(drafted("action", "busy", {"type": "x"})).event.received_at
    with database.transaction() as appender:
        lost = lose_silent(appender, heard)
    assert [(event.type, event.session_id) for event in lost] == [("session_lost", "active")]
    statuses = dict(database.rows("SELECT session_id, status FROM sessions"))
    assert statuses == {"active": "lost", "waiting": "waiting", "finished": "completed", "busy": "active"}


@pytest.mark.parametrize("event_type", ["action", "response", "state_updated", "goal_added", "session_created"])
def test_the_next_word_brings_a_lost_session_back(database: Database, event_type: str) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    with database.transaction() as appender:
        lose_silent(appender, "9")
    assert database.value("SELECT status FROM sessions") == "lost"
    database.append(drafted(event_type, "s", dict(FIRST[event_type])))
    assert database.value("SELECT status FROM sessions") == "active"


def test_what_others_say_about_a_lost_session_does_not_bring_it_back(database: Database) -> None:
    database.append(drafted("action", "s", {"type": "x"}))
    with database.transaction() as appender:
        lose_silent(appender, "9")
    database.append(drafted("metadata_updated", "s", {"note": "who has seen it?"}))
    assert database.value("SELECT status FROM sessions") == "lost"


# ------------------------------------------- the locks that SQLite has on the file

FILE_CALL = re.compile(
    r"(?<![.\w])open\(|\.open\(|os\.open|read_bytes|read_text|write_bytes|write_text|shutil|sendfile|FileResponse|tarfile"
    r"|zipfile|\bFile\(|mmap"
)
"""Opening or closing the database by any of these inside the process drops SQLite's locks on it (howtocorrupt, 2.2)."""

ALLOWED = (
    ("tokens.py", "os.open(folder"),  # its own files, in a folder of their own
    ("tokens.py", "path.read_bytes()"),
    ("tokens.py", "path.read_text()"),
    ("schema.py", "SCHEMA.read_text()"),
    ("catalogue.py", "VIEWS.read_text()"),
    ("catalogue.py", "QUESTIONS.read_text()"),
    ("datasette_app.py", "(TEMPLATES_OF_DATASETTE / name).read_text()"),  # and it is another process
    ("datasette_app.py", "shutil"),
    ("datasette_process.py", '/statm").read_text()'),
    ("metrics.py", "/proc/self/statm"),
    ("pages.py", "path.read_bytes()"),
    ("pages.py", '(ROOT / "dashboard.html").read_text()'),
    ("pages.py", '"static" / name).read_bytes()'),
    ("folders.py", "os.open(name, "),  # what has no second name: seen before it is opened
    ("folders.py", "os.open(path, FOLDER)"),
    ("folders.py", "shutil"),  # to remove folders
    ("folders.py", "self.open(name)"),
    ("folders.py", "def open("),
    ("tree.py", "folder.open("),
    ("high_water_mark.py", ""),  # the file beside the database
    ("folder.py", "MOUNTS.read_text("),  # of /proc
    ("logins.py", "read_bytes()"),  # another file beside the database
    ("owner.py", 'os.open(folder / ".lock", '),
    ("webhook_targets.py", ".read_text()"),  # the file of webhooks, and that of a secret
    ("budget_rules.py", "path.read_text()"),  # the file of budgets
    ("shards.py", "open(self.token_file, "),  # a token
    ("settings.py", "own_prices(path_of(text).read_text())"),
    ("positions.py", "self.path.read_bytes()"),  # a file beside the database
    ("shares.py", "path.read_bytes()"),  # another
    ("secret_files.py", "open(os.open(part, "),  # such files are written
    ("push_service.py", "self.path.read_bytes()"),  # a key
    ("push_service.py", "self.open((self.address, "),  # a connection
    ("push.py", "self.path.read_bytes()"),  # subscriptions
    ("tar_stream.py", "tarfile"),  # what is sent, never a file
    ("imports.py", "File("),  # what is named in it
    ("import_paths.py", "File("),
    ("writer.py", "def open("),  # the connection that writes
    ("writer.py", "self.open()"),
    ("writer.py", "self.mark.open()"),
)


def file_calls(name: str, source: str) -> list[str]:
    """Lines of `source` that open files, apart from those that are known to open others than the database."""
    return [
        f"{name}:{number}: {line.strip()}"
        for number, line in enumerate(source.splitlines(), 1)
        if FILE_CALL.search(line) and not any(name == file and call in line for file, call in ALLOWED)
    ]


def test_no_code_of_the_server_opens_files_that_could_be_the_database() -> None:
    kept_tree = [REPOSITORY / "export" / name for name in ("folders.py", "layout.py", "tree.py")]
    server = [path for path in (REPOSITORY / "sessionstore").rglob("*.py") if path.parent.name != "admin"]
    sources = [REPOSITORY / "app.py", *server, *kept_tree]
    assert len(server) > 40
    assert [call for path in sources for call in file_calls(path.name, path.read_text())] == []


@pytest.mark.parametrize(
    "line", ["shutil.copy(database, to)", "with open(database) as file:", "database.read_bytes()", "path.open('rb')"]
)
def test_code_that_opens_the_database_would_be_found(line: str) -> None:
    assert file_calls("store.py", line) == [f"store.py:1: {line}"]


def test_a_running_server_has_the_database_open_by_sqlite_alone(tmp_path: Path) -> None:
    """One descriptor of each file per connection: the writer's, the readers', the mirror's; the log likewise."""
    with Appliance(tmp_path) as appliance:
        eventually(lambda: (tmp_path / "index.json").exists())
        ours = descriptors_of_database(appliance.process.pid)
    assert ours.count("sessions.db") == CONNECTIONS + 2
    assert ours.count("sessions.db-shm") == 1, "SQLite shares the index among the connections of a process"
    assert set(ours) == {"sessions.db", "sessions.db-wal", "sessions.db-shm"}


def descriptors_of_database(pid: int) -> list[str]:
    names = (Path(target).name for target in descriptors_of(pid))
    return sorted(name for name in names if name.startswith("sessions.db"))


def test_the_server_loads_one_sqlite_library() -> None:
    """Datasette, which takes pysqlite3 where it is installed, runs in a process of its own."""
    loads = "import app, sys; print(*sorted({'datasette', 'pysqlite3'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", loads], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
