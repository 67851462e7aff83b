"""The views for people and the questions that are asked often: what they say of what happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore.catalogue import questions, views
from sessionstore.walls import Query, Walled
from tests.appliance import REPOSITORY
from tests.databases import Database, drafted
from tests.hostile import LOOKS_BEHIND_THE_VIEWS


class Asked:
    """A database that things happen in, and somebody who asks about it."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.walled = Walled(path)

    def happens(self, event_type: str, session: str = "s", data: dict[str, Any] | None = None, **more: Any) -> int:
        return self.database.append(drafted(event_type, session, data or {}, **more)).event.cursor

    def rows(self, sql: str, **parameters: Any) -> list[list[Any]]:
        found = self.walled.answer(Query(sql, parameters, 10.0, 1000))
        assert not found.error, found.error
        return found.rows

    def question(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        question = questions()[name]
        values = dict.fromkeys(question.parameters, "") | parameters
        found = self.walled.answer(Query(question.sql, values, 10.0, 1000))
        assert not found.error, found.error
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]

    def calls(self, name: str, outcome: str | None = "tool_result", tool: str = "Bash", **more: Any) -> int:
        """A tool call and what came of it; the cursor of the call."""
        call = {"type": "tool_call", "toolUseId": name, "tool": tool, "input": {"command": f"do {name}"}}
        cursor = self.happens("action", data=call)
        if outcome:
            self.happens("response", data={"type": outcome, "toolUseId": name, "tool": tool, **more})
        return cursor


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    made = Asked(tmp_path / "sessions.db")
    yield made
    made.walled.connection.close()
    made.database.close()


# ------------------------------------------------------------------------ views


@pytest.mark.parametrize("name", list(views()))
def test_every_column_of_a_view_is_described(asked: Asked, name: str) -> None:
    found = asked.walled.answer(Query(f"SELECT * FROM {name}", [], 1.0, 1))
    assert found.columns == list(views()[name].columns)
    assert views()[name].description.endswith(".")


def test_the_views_work_in_the_sqlite_shell_too(asked: Asked) -> None:
    asked.happens("action", data={"type": "prompt", "prompt": "hello"})
    connection = sqlite3.connect(f"{asked.database.path.as_uri()}?mode=ro", uri=True)
    connection.executescript((REPOSITORY / "views.sql").read_text())
    assert connection.execute("SELECT text FROM actions").fetchall() == [("hello",)]
    connection.close()


def test_a_session_is_one_row(asked: Asked) -> None:
    initial = {"input": "Build it", "config": {"model": "large"}}
    asked.happens("session_created", data={"initial": initial, "tags": ["a", "b"]}, user_id="alice")
    asked.calls("one")
    asked.happens(
        "metadata_updated", data={"tokenUsage.input": "+12", "attention": {"reason": "input", "message": "?"}}
    )
    (row,) = asked.rows(
        "SELECT user_id, status, input, model, tags, tool_calls, tokens_input, waiting_for, waiting_message, ended"
        " FROM sessions"
    )
    assert row == ["alice", "waiting", "Build it", "large", "a, b", 1, 12, "input", "?", None]
    asked.happens("session_finalized", data={"status": "success", "outcome": "it runs"})
    columns = "status, outcome, waiting_for, duration_s"
    assert asked.rows(f"SELECT {columns} FROM sessions") == [["completed", "it runs", None, 30.0]]


def test_a_tool_call_and_its_result_are_one_row(asked: Asked) -> None:
    done = asked.calls("done", durationMs=5, output="fine")
    failed = asked.calls("failed", "tool_error", error="no")
    left = asked.calls("left", None)
    nameless = asked.happens("action", data={"type": "tool_call", "tool": "Read", "input": {"file_path": "a.py"}})
    asked.happens("response", data={"type": "tool_result", "toolUseId": "done", "output": "told again"})
    asked.happens("response", "other", {"type": "tool_result", "toolUseId": "left", "output": "of another session"})
    rows = asked.rows(
        "SELECT cursor, outcome, duration_ms, command, path, output, error FROM tool_calls ORDER BY cursor"
    )
    assert rows == [
        [done, "ok", 5, "do done", None, "fine", None],
        [failed, "failed", 7500, "do failed", None, None, "no"],
        [left, "open", None, "do left", None, None, None],
        [nameless, "unknown", None, None, "a.py", None, None],
    ]


def test_what_has_been_deleted_is_not_shown_though_it_is_still_there(asked: Asked) -> None:
    asked.happens("action", data={"type": "prompt", "prompt": "a secret"})
    asked.happens("session_deleted")
    assert asked.database.value("SELECT count(*) FROM events WHERE kind = 'prompt'") == 1
    for view in ("actions", "responses", "tool_calls", "state_changes"):
        assert asked.rows(f"SELECT * FROM {view}") == []
    assert asked.rows("SELECT type FROM events") == [["session_deleted"]]


def test_goals_agents_and_what_changed_them(asked: Asked) -> None:
    asked.happens("goal_added", data={"description": "Run"})
    asked.happens("agent_spawned", data={"agentId": "a", "type": "explorer", "task": "look"})
    asked.happens("agent_spawned", data={"agentId": "b", "type": "explorer", "parentAgentId": "a"})
    asked.happens("agent_completed", data={"agentId": "a", "status": "completed", "result": "seen"})
    asked.happens("goal_updated", data={"goalId": "goal-1", "status": "completed"})
    asked.happens("state_updated", data={"phase": "testing"})
    assert asked.rows("SELECT goal_id, description, status, session_status FROM goals") == [
        ["goal-1", "Run", "completed", "active"]
    ]
    assert asked.rows("SELECT agent_id, parent_agent_id, task, status, duration_s, result FROM agents") == [
        ["a", None, "look", "completed", 15.0, "seen"],
        ["b", "a", None, "spawned", None, None],
    ]
    assert asked.rows(
        "SELECT type, goal_id, agent_id, phase, status FROM state_changes ORDER BY cursor DESC LIMIT 3"
    ) == [
        ["state_updated", None, None, "testing", None],
        ["goal_updated", "goal-1", None, None, "completed"],
        ["agent_completed", None, "a", None, "completed"],
    ]
    (row,) = asked.question("sub-agents")
    assert (row["agents"], row["depth"], row["unfinished"], row["seconds"]) == (2, 2, 1, 15.0)
    (row,) = asked.question("goals-by-outcome")
    assert (row["session_status"], row["status"], row["goals"]) == ("active", "completed", 1)


# -------------------------------------------------------------------- questions


def test_every_question_has_a_title_and_says_what_its_parameters_mean() -> None:
    for question in questions().values():
        assert question.title and question.description.endswith((".", "it."))
        assert not set(question.name) - set("abcdefghijklmnopqrstuvwxyz-")
        assert all(f"`{parameter}`" in question.description for parameter in question.parameters), question.name
    assert len(questions()) >= 15
    assert not questions().keys() & views().keys(), "both have the same addresses"


def test_tools_are_ranked_by_how_long_most_of_their_calls_take(asked: Asked) -> None:
    for number in range(1, 101):
        asked.calls(f"bash-{number}", durationMs=number)
    asked.calls("read", "tool_error", tool="Read", durationMs=1000)
    slowest, other = asked.question("slowest-tools")
    assert (slowest["tool"], slowest["p50"], slowest["p95"], slowest["failed"]) == ("Read", 1000, 1000, 1)
    assert (other["tool"], other["p50"], other["p95"], other["longest"], other["failed"]) == ("Bash", 50, 95, 100, 0)
    assert [row["tool"] for row in asked.question("failing-tools")] == ["Read", "Bash"]
    assert [row["duration_ms"] for row in asked.question("slowest-calls", tool="Bash")[:2]] == [100, 99]
    assert len(asked.question("slowest-calls", newest="2")) == 2


def test_a_call_that_never_returned_is_found(asked: Asked) -> None:
    asked.calls("done")
    left = asked.calls("left", None)
    assert [row["cursor"] for row in asked.question("open-calls")] == [left]


def test_a_wait_lasts_from_the_question_to_the_next_word_that_asks_nothing(asked: Asked) -> None:
    waits = {"attention": {"reason": "permission", "message": "May I?"}}
    begins = asked.happens("action", data={"type": "permission_request", **waits})
    asked.happens("action", data={"type": "notification", **waits})
    asked.happens("response", data={"type": "tool_result"})
    asked.happens("action", data={"type": "note"})
    (row,) = asked.question("longest-waits")
    assert (row["session_id"], row["waits"], row["reasons"], row["cursor"]) == ("s", 1, "permission", begins)
    assert row["minutes"] == round(2 * 7.5 / 60, 1)


def test_files_are_ranked_by_how_often_they_were_written(asked: Asked) -> None:
    for user, session in (("alice", "s"), ("bob", "t")):
        asked.happens("session_created", session, {"initial": {}}, user_id=user)
        asked.happens("action", session, {"type": "file_write", "path": "a.py"})
    asked.happens("action", data={"type": "tool_call", "tool": "Edit", "input": {"file_path": "b.py"}})
    asked.happens("action", data={"type": "tool_call", "tool": "Read", "input": {"file_path": "c.py"}})
    first, second = asked.question("most-written-files")
    assert (first["path"], first["writes"], first["sessions"], first["users"]) == ("a.py", 2, 2, "bob,alice")
    assert (second["path"], second["writes"]) == ("b.py", 1)


def test_what_came_late_is_found(asked: Asked) -> None:
    asked.happens("action", data={"type": "note"})
    late = asked.happens("action", data={"type": "note"}, timestamp="2026-02-13T00:00:00.000Z")
    assert [row["cursor"] for row in asked.question("late-events")] == [late]
    assert asked.question("late-events", seconds="100000000") == []


def test_prompts_and_failures_are_found_by_what_they_say(asked: Asked) -> None:
    said = asked.happens("action", data={"type": "prompt", "prompt": "Make the Tests pass"})
    asked.happens("action", data={"type": "prompt", "prompt": "Something else"})
    asked.calls("x", "tool_error", error="boom")
    assert [row["cursor"] for row in asked.question("prompts-with", word="tests")] == [said]
    assert [row["error"] for row in asked.question("tool-failures", tool="Bash")] == ["boom"]
    assert asked.question("tool-failures", tool="Read") == []


# ------------------------------------------------------------------------ walls


def test_what_lies_behind_the_views_could_be_read_without_the_walls(asked: Asked) -> None:
    """The questions of the tests are worth asking: a plain connection answers many of them."""
    connection = sqlite3.connect(f"{asked.database.path.as_uri()}?mode=ro", uri=True)
    connection.executescript((REPOSITORY / "views.sql").read_text())
    assert sum(is_answered(connection, sql) for sql in LOOKS_BEHIND_THE_VIEWS) > 40
    connection.close()


def is_answered(connection: sqlite3.Connection, sql: str) -> bool:
    try:
        return connection.execute(sql).fetchall() is not None
    except sqlite3.Error:
        return False


@pytest.mark.parametrize("form", ["EXPLAIN QUERY PLAN SELECT * FROM sessions", "EXPLAIN SELECT * FROM events"])
def test_the_name_under_which_the_database_is_attached_stays_secret(asked: Asked, form: str) -> None:
    assert asked.rows(f"SELECT count(*) FROM {asked.walled.store}.documents") == [[0]], "who knew it could read all"
    assert "store_" not in str(asked.rows(form))


def test_a_query_names_its_parts_as_it_likes(asked: Asked) -> None:
    asked.happens("action", data={"type": "note"})
    named = "WITH actions AS (SELECT * FROM events WHERE type = 'action'), total AS (SELECT count(*) AS n FROM actions)"
    assert asked.rows(f"{named} SELECT n, (SELECT count(*) FROM total) FROM total") == [[1, 1]]


def test_an_answer_is_cut_where_it_has_enough_rows_or_bytes(asked: Asked) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    found = asked.walled.answer(Query(f"{numbers} SELECT i FROM n", [], 5.0, 10))
    assert (len(found.rows), found.is_cut) == (10, True)
    found = asked.walled.answer(Query(f"{numbers} SELECT hex(zeroblob(1000000)) FROM n", [], 5.0, 10))
    assert (len(found.rows), found.is_cut) == (4, True)
    found = asked.walled.answer(Query("SELECT 1", [], 5.0, 10))
    assert (found.rows, found.is_cut) == ([[1]], False)
