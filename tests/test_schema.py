"""The schema by itself: what the triggers keep is what a recount finds, and the views are JSON to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from sessionstore.model.events import STATE_TYPES, TOLD_ABOUT, Draft, Event, EventType, text_of_time
from sessionstore.model.folds import state_at
from sessionstore.model.problems import Problem
from sessionstore.store.appender import COLUMNS
from sessionstore.store.closing import lose_silent
from sessionstore.store.maintenance import index_search, purge
from sessionstore.store.schema import STATE_EVENTS
from tests.databases import DERIVED, MIDNIGHT, Database, drafted, temporary_database, view

# ------------------------------------------------------------- the views' texts

odd = st.sampled_from(["\x00", "\x1f", "\x7f", '"', "\\", "\\u0000", "\u2028", "\u00e9", "\U0001f9ff", "'", "{", "\n"])
texts = st.lists(odd | st.text(max_size=4), max_size=4).map("".join)
ids = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]|\.[A-Za-z0-9]){0,5}", fullmatch=True)
users = texts.filter(lambda text: 0 < len(text) <= 256 and all(c >= " " and not "\x7f" <= c <= "\x9f" for c in text))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)
own = st.dictionaries(
    texts.filter(lambda name: name not in ("seq", "cursor", "eventId", "timestamp", "type")), values, max_size=4
)
times = st.floats(0, 4e9).map(text_of_time)


@given(own, ids, users, ids | st.none(), times, st.sampled_from(["action", "response"]), texts)
def test_an_entry_is_the_same_text_in_the_feed_and_in_the_views(
    data: dict[str, Any], event_id: str, user: str, agent: str | None, time: str, log: str, kind: str
) -> None:
    members = {"event_id": event_id, "user_id": user, "agent_id": agent, "timestamp": time}
    with temporary_database() as database:
        event = database.append(drafted(log, "s", {"type": kind} | data, **members)).event
        creation, logged = view(database.connection, "timeline")
        assert event.document() == logged
        assert json.loads(creation)["userId"] == user
        read = json.loads(logged)
        assert read["data"] == {"seq": 1, "type": kind} | data
        assert (read["userId"], read["eventId"], read["agentId"]) == (user, event_id, agent)
        (entry,) = view(database.connection, "entries")
        own_members = {"seq": 1, "timestamp": time, "type": kind, "cursor": 2, "eventId": event_id}
        assert json.loads(entry) == own_members | data


@given(own, st.sampled_from(STATE_TYPES), st.sampled_from([None, "merge-patch", "replace"]))
def test_a_change_is_the_same_text_in_the_feed_and_in_the_views(
    data: dict[str, Any], event_type: str, patch: str | None
) -> None:
    names = {"goalId": "goal-1"} if event_type == "goal_updated" else {}
    names |= {"agentId": "agent-1"} if event_type in ("agent_updated", "agent_completed") else {}
    data = {name: value for name, value in data.items() if name not in ("id", "agentId", "goalId")} | names
    with temporary_database() as database:
        database.append(drafted("session_created", "s", {"initial": {}}))
        event = database.append(
            drafted(event_type, "s", data, patch=patch if event_type == "state_updated" else None)
        ).event
        assert event.document() == view(database.connection, "timeline")[-1]
        state = json.loads(database.document("s", "state"))
        assert state["version"] == 2 == database.value("SELECT version FROM documents WHERE name = 'state'")


def test_an_entry_keeps_the_time_that_its_caller_wrote(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    given_ = "2026-02-13T21:59:12.3+01:00"
    database.append(drafted("action", "s", {"timestamp": given_, "type": "x"}, timestamp="2026-02-13T20:59:12.300Z"))
    (entry,) = view(database.connection, "entries")
    assert json.loads(entry, object_pairs_hook=list) == [
        ("seq", 1),
        ("timestamp", given_),
        ("type", "x"),
        ("cursor", 2),
        ("eventId", "event-2"),
    ]
    database.close()


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    exact = {"type": "x", "max": 2**64 - 1, "min": -(2**63), "pi": 3.141592653589793, "tiny": 5e-324, "one": 1.0}
    database.append(drafted("action", "s", dict(exact)))
    text = view(database.connection, "entries")[0]
    assert json.loads(text).items() >= exact.items()
    assert '"one":1.0' in text
    database.close()


@given(st.dictionaries(st.sampled_from(["goals", "agents", "phase", "currentStep", "errors"]), values))
def test_metadata_is_json_whatever_the_state_is(document: dict[str, Any]) -> None:
    with temporary_database() as database:
        database.append(drafted("state_updated", "s", document, patch="replace"))
        (metadata,) = view_of_metadata(database)
        assert metadata["sessionId"] == "s"
        assert metadata["goals"] == database.value("SELECT count(*) FROM goals")
        assert metadata["agents"] == database.value("SELECT count(*) FROM agents")


def view_of_metadata(database: Database) -> list[dict[str, Any]]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a member stands there twice"
        return dict(pairs)

    rows = database.rows("SELECT document FROM metadata ORDER BY session_id")
    return [json.loads(document, object_pairs_hook=without_repeats) for (document,) in rows]


# --------------------------------------------------- lists of the state, as rows


@pytest.mark.parametrize(
    ("goals", "rows"),
    [
        ([{"id": "a"}, {"id": "b", "status": "done"}], [("a", 0, "pending"), ("b", 1, "done")]),
        ([5, None, "x", [], {"id": 7}, {"id": "a"}], [("a", 5, "pending")]),
        ([{"id": "a", "status": "first"}, {"id": "a", "status": "second"}], [("a", 0, "first")]),
        ([{"id": "a", "status": 1.5}, {"id": "b", "status": {}}, {"id": "c", "status": None}],
         [("a", 0, "1.5"), ("b", 1, "{}"), ("c", 2, "pending")]),
        ({"a": {"id": "a"}}, []),
        ({"id": "a"}, []),
        ("text", []),
        (None, []),
    ],
)  # fmt: skip
def test_goals_are_rows_where_the_state_has_a_list_of_them(tmp_path: Path, goals: Any, rows: list[Any]) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("state_updated", "s", {"goals": goals}))
    assert database.rows("SELECT goal_id, position, status FROM goals ORDER BY position") == rows
    assert database.value("SELECT goals FROM sessions") == len(rows)
    database.append(drafted("state_updated", "s", {"agents": {"spawned": goals}}))
    assert database.rows("SELECT * FROM agents") == []
    database.append(drafted("state_updated", "s", {"goals": None}, patch="merge-patch"))
    assert database.rows("SELECT * FROM goals") == []
    database.close()


def test_an_end_says_which_goals_were_reached(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("goal_added", "s", {"description": "one"}))
    database.append(drafted("goal_added", "s", {"description": "two"}))
    database.append(drafted("goal_updated", "s", {"goalId": "goal-2", "status": "completed"}))
    database.append(drafted("session_finalized", "s", {"status": "failed", "outcome": [1], "exitCode": 2**64 - 1}))
    final = json.loads(database.document("s", "final"))
    _, goal_two = json.loads(database.document("s", "state"))["goals"]
    assert (final["goalsAchieved"], final["status"], final["outcome"]) == ([goal_two], "failed", [1])
    assert final["exitCode"] == 2**64 - 1
    database.close()


# ------------------------------------------------ the model: a recount from scratch

goal_ids = st.sampled_from(["goal-1", "goal-2", "g"])
agent_ids = st.sampled_from(["agent-1", "agent-2", "a"])
statuses = st.sampled_from(["pending", "completed", "failed", "running"])
kinds = st.sampled_from(["tool_call", "file_write", "bash_exec", "task_spawn", "mcp_call", "prompt", "tool_result",
                         "assistant_message", "error", "permission_request", "notification",
                         "post_tool_batch"])  # fmt: skip
tools = st.sampled_from(["Write", "Bash", "mcp__x__y", "Other"])
asked = st.none() | st.fixed_dictionaries(
    {"reason": st.sampled_from(["input", "permission", "question"])}, optional={"id": ids, "message": texts}
)
entries = st.fixed_dictionaries(
    {"type": kinds},
    optional={"tool": tools, "attention": asked, "toolUseId": st.sampled_from(["t1", "t2"]), "attentionId": ids},
)
mangled = st.dictionaries(st.sampled_from(["goals", "agents", "phase"]), values | st.lists(
    st.fixed_dictionaries({"id": goal_ids, "status": statuses | values}), max_size=3), max_size=2)  # fmt: skip
entry_into: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"initial": st.just({})}, optional={"parentSession": st.sampled_from(["s0", "s1"])}
)

DATA: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "session_created": entry_into,
    "session_resumed": entry_into,
    "metadata_updated": st.fixed_dictionaries({}, optional={
        "status": st.sampled_from(["active", "waiting", "completed", "failed", "cancelled"]),
        "attention": asked, "metrics.toolCalls": st.just("+2"), "note": values}),
    "session_finalized": st.fixed_dictionaries({"status": st.sampled_from(["success", "failed", "cancelled"])})
    | st.just({"hook_event_name": "SessionEnd", "reason": "other"}),
    "session_lost": st.just({}),
    "session_deleted": st.just({}),
    "action": entries,
    "response": entries,
    "state_updated": mangled,
    "goal_added": st.fixed_dictionaries({"description": texts}, optional={"id": goal_ids, "status": statuses}),
    "goal_updated": st.fixed_dictionaries({"goalId": goal_ids, "status": statuses}),
    "agent_spawned": st.fixed_dictionaries({"type": texts}, optional={"agentId": agent_ids}),
    "agent_updated": st.fixed_dictionaries({"agentId": agent_ids, "status": statuses}),
    "agent_completed": st.fixed_dictionaries({"agentId": agent_ids}),
    **dict.fromkeys(TOLD_ABOUT, st.fixed_dictionaries({}, optional={
        "text": texts, "status": statuses, "attention": asked, "error": values, "askId": ids})),
}  # fmt: skip

drafts = st.sampled_from(sorted(DATA)).flatmap(
    lambda event_type: st.builds(
        Draft,
        type=st.just(event_type),
        session_id=st.sampled_from(["s0", "s1", "s2"]),
        data=DATA[event_type],
        user_id=st.sampled_from([None, "alice", "bob"]),
        event_id=st.none() | st.sampled_from(["once", "twice"]),
        actor=st.sampled_from([None, "", "mail-agent", 'budget:team \u00fc "x"']),
        agent_id=st.none() | agent_ids,
        timestamp=st.none() | st.sampled_from([text_of_time(MIDNIGHT + seconds) for seconds in (-60, 0, 60)]),
        patch=st.sampled_from([None, "merge-patch", "replace"]) if event_type == "state_updated" else st.none(),
    )
)


def test_the_model_knows_every_type_of_event() -> None:
    assert set(DATA) == set(get_args(EventType))


def check_minutes(database: Database, inserted: list[Event]) -> None:
    """Minutes count what came in, and are not taken back by a deletion."""
    expected: dict[str, int] = {}
    for event in inserted:
        expected[event.received_at[:16]] = expected.get(event.received_at[:16], 0) + 1
    assert dict(database.rows("SELECT * FROM minutes")) == expected


def check_waiting(database: Database) -> None:
    """A session waits as long as something is asked for or its agent sits at its prompt, and says for what."""
    waiting = database.rows("SELECT session_id FROM sessions WHERE status = 'waiting' ORDER BY 1")
    assert waiting == database.rows("SELECT DISTINCT session_id FROM asks ORDER BY 1")
    for metadata in view_of_metadata(database):
        attention = metadata["attention"]
        assert (attention is not None) == (metadata["status"] == "waiting")
        if attention is not None:
            shown = [attention, *attention.get("others", [])]
            assert all(type(ask[name]) is str for ask in shown for name in ("reason", "message", "since"))
            assert len(shown) == 1 or "input" not in [ask["reason"] for ask in shown]
    assert database.rows(
        "SELECT session_id FROM sessions WHERE (status IN ('completed', 'failed', 'cancelled')) <> (ended IS NOT NULL)"
    ) == []  # fmt: skip


def check_ends(database: Database, written: list[Event]) -> None:
    """Nobody is at work in what has ended, unless callers wrote the list of agents themselves."""
    own = {event.session_id for event in written if event.type == "state_updated" and '"agents"' in event.data}
    at_work = database.rows(
        "SELECT session_id, agent_id FROM agents JOIN sessions s USING (session_id)"
        " WHERE s.ended IS NOT NULL AND agents.status NOT IN ('completed', 'failed', 'cancelled')"
    )
    assert [row for row in at_work if row[0] not in own] == []
    for session_id, document in database.rows("SELECT session_id, document FROM documents WHERE name = 'state'"):
        events = database.rows(STATE_EVENTS, session_id, 2**63 - 1)
        assert state_at(events) == json.loads(document), "the state is what its events make"


def check_metrics(database: Database) -> None:
    for session_id, tool_calls in database.rows("SELECT session_id, tool_calls FROM sessions"):
        counted = database.value(
            "SELECT count(*) FROM events WHERE type = 'action' AND kind = 'tool_call' AND session_id = ?1"
            " AND cursor >= (SELECT created_cursor FROM sessions WHERE session_id = ?1)",
            session_id,
        )
        assert tool_calls == counted


@given(st.lists(st.lists(drafts, min_size=1, max_size=4), max_size=12))
def test_what_the_triggers_keep_is_what_a_recount_finds(transactions: list[list[Draft]]) -> None:
    inserted: list[Event] = []
    with temporary_database() as database:
        for transaction in transactions:
            with database.transaction() as appender:
                for draft in transaction:
                    try:
                        appended = appender.append(draft)
                    except Problem as problem:
                        note(f"{draft.type}: {problem.status}")
                        assert problem.status < 500
                        continue
                    assert appended.duplicate or appended.event.cursor == appender.cursor
                inserted += appender.fresh
            assert database.kept() == database.recounted()
            check_waiting(database)
            check_ends(database, inserted)
            purge(database.connection, limit=3)
            index_search(database.connection, limit=3)
        assert database.kept() == database.recounted()
        check_minutes(database, inserted)
        check_metrics(database)
        assert [event.cursor for event in inserted] == list(range(1, len(inserted) + 1))
        assert len(view_of_metadata(database)) == database.value("SELECT count(*) FROM sessions")
        texts_read = [
            json.loads(document) for name in ("timeline", "entries") for document in view(database.connection, name)
        ]
        assert all(isinstance(read, dict) for read in texts_read)
        assert database.rows("PRAGMA foreign_key_check") == []
        check_rebuilt(database, inserted)


def check_rebuilt(database: Database, inserted: list[Event]) -> None:
    """All events again, in their order, into a new file: every derived table comes out the same."""
    marks = ", ".join("?" for _ in Event.__struct_fields__)
    with temporary_database() as rebuilt:
        for event in inserted:
            if event.type == "session_created":
                while purge(rebuilt.connection, session_id=event.session_id):
                    pass
            rebuilt.connection.execute(
                f"INSERT INTO events ({COLUMNS}) VALUES ({marks})", msgspec.structs.astuple(event)
            )
        for either in (rebuilt, database):
            while purge(either.connection):
                pass
        assert {**rebuilt.dump(), "counts": rebuilt.kept()["counts"]} == {
            **database.dump(),
            "counts": database.kept()["counts"],
        }
        assert view(rebuilt.connection, "timeline") == view(database.connection, "timeline")


def test_a_count_that_is_off_would_be_found(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("action", "s", {"type": "x"}))
    assert database.kept() == database.recounted()
    for table in ("sessions", "events"):
        database.connection.execute("UPDATE counts SET number = number + 1 WHERE what = ?", (table,))
        assert database.kept() != database.recounted()
    database.close()


# ------------------------------------------------------------- what CHECKs refuse


@pytest.mark.parametrize(
    "column_and_value",
    [
        ("type", "'made_up'"),
        ("data", "'[]'"),
        ("data", "'{'"),
        ("patch", "'replace'"),
        ("seq", "NULL"),
        ("kind", "NULL"),
    ],
)
def test_the_database_refuses_what_is_no_event(tmp_path: Path, column_and_value: tuple[str, str]) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("action", "s", {"type": "x"}))
    column, value = column_and_value
    row = dict(
        zip(COLUMNS.split(", "), database.rows(f"SELECT {COLUMNS} FROM events WHERE cursor = 2")[0], strict=True)
    )
    row |= {"cursor": 3, "event_id": "other", "seq": 2}
    literal = {name: f":{name}" for name in row} | {column: value}
    before = database.dump("events", *DERIVED)
    with pytest.raises(database.connection.Error):
        database.connection.execute(f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join(literal.values())})", row)
    assert database.dump("events", *DERIVED) == before
    database.close()


def test_silence_is_told_by_the_last_word_not_by_the_last_change(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    word = database.append(drafted("action", "s", {"type": "x"})).event.received_at
    database.append(drafted("metadata_updated", "s", {"note": "seen by somebody else"}))
    assert database.value("SELECT heard FROM sessions") == word < database.value("SELECT updated FROM sessions")
    with database.transaction() as appender:
        assert lose_silent(appender, word) == []
        assert len(lose_silent(appender, text_of_time(MIDNIGHT + 3600))) == 1
    database.close()
