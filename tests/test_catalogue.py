"""The views for people and the questions that are asked often: what they say of what happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore.analytics import sandbox
from sessionstore.analytics.catalogue import questions, topics, views
from sessionstore.analytics.sandbox import Walls
from tests.appliance import REPOSITORY
from tests.databases import Database, drafted
from tests.hostile import LOOKS_BEHIND_THE_VIEWS


class Asked:
    """A database that things happen in, and somebody who asks about it."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.connection = sqlite3.connect(":memory:", uri=True)
        self.walls = Walls(self.connection, path)

    def happens(self, event_type: str, session: str = "s", data: dict[str, Any] | None = None, **more: Any) -> int:
        return self.database.append(drafted(event_type, session, data or {}, **more)).event.cursor

    def rows(self, sql: str, **parameters: Any) -> list[list[Any]]:
        return [list(row) for row in self.connection.execute(sql, parameters)]

    def question(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        question = questions()[name]
        values = dict.fromkeys(question.parameters, "") | parameters
        return [dict(row) for row in self.connection.execute(question.sql, values)]

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
    made.connection.close()
    made.database.close()


# ------------------------------------------------------------------------ views


@pytest.mark.parametrize("name", list(views()))
def test_every_column_of_a_view_is_described(asked: Asked, name: str) -> None:
    found = asked.connection.execute(f"SELECT * FROM {name}")
    assert [name for name, *_ in found.description] == list(views()[name].columns)
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


Told = tuple[str, str | None, str]


def told(asked: Asked, *words: Told) -> list[list[Any]]:
    """What becomes of the calls in these words: `call`, or what a result says; the run; when."""
    for word, run, at in words:
        data = {"type": "tool_call" if word == "call" else "tool_result", "toolUseId": "call_0", "output": word}
        log = "action" if word == "call" else "response"
        moment = f"2026-02-14T10:00:{at}.000Z"
        asked.happens(log, data=data | ({"runId": run} if run else {}), timestamp=moment)
    return asked.rows("SELECT outcome, output, duration_ms FROM tool_calls ORDER BY cursor")


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (["call", "one", "call", "two"], ["one", "two"]),
        (["call", "call", "last", "first"], ["first", "last"]),
        (["call", "call", "last"], [None, "last"]),
        (["call", "call", "last", "call", "third", "first"], ["first", "last", "third"]),
        (["call", "one", "told again"], ["one"]),
        (["early", "call"], ["early"]),
        (["early", "call", "late"], ["late"]),
        (["early", "call", "call"], ["early", None]),
        (["call", "one", "call"], ["one", None]),
        (["call"] * 300 + ["last"], [None] * 299 + ["last"]),
    ],
    ids=lambda words: "-".join(map(str, words[:6])),
)
def test_each_result_is_of_the_last_call_with_its_id_that_has_none(
    asked: Asked, words: list[str], calls: list[str | None]
) -> None:
    found = told(asked, *((word, None, f"{number % 60:02}") for number, word in enumerate(words)))
    assert [output for _, output, _ in found] == calls


def test_a_result_is_of_a_call_of_its_own_run(asked: Asked) -> None:
    found = told(
        asked,
        ("call", "a", "00"),
        ("call", "b", "01"),
        ("of a", "a", "02"),
        ("of none", None, "03"),
        ("call", None, "04"),
        ("of c", "c", "05"),
        ("call", "c", "06"),
    )
    assert found == [["ok", "of a", 2000], ["open", None, None], ["ok", "of none", None], ["ok", "of c", None]]


def test_no_duration_is_negative(asked: Asked) -> None:
    assert told(asked, ("call", None, "30"), ("back", None, "00")) == [["ok", "back", None]]
    asked.calls("said", durationMs=-5)
    asked.happens("agent_spawned", data={"agentId": "a"}, timestamp="2026-02-14T10:00:30.000Z")
    asked.happens("agent_completed", data={"agentId": "a"}, timestamp="2026-02-14T10:00:00.000Z")
    asked.happens("session_created", "t", timestamp="2026-02-14T10:00:00.000Z")
    asked.happens("session_finalized", "t", timestamp="2026-02-14T09:00:00.000Z")
    for view, column in (
        ("tool_calls", "duration_ms"),
        ("responses", "duration_ms"),
        ("agents", "duration_s"),
        ("sessions", "duration_s"),
        ("events", "delay_s"),
    ):
        assert asked.rows(f"SELECT {column} FROM {view} WHERE {column} < 0") == []
    assert asked.rows("SELECT duration_s FROM agents") == [[None]]
    assert asked.rows("SELECT delay_s FROM events WHERE session_id = 't' ORDER BY cursor LIMIT 1") == [[None]]


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        (("response", {"type": "assistant_message"}, None), "cancelled"),
        (("response", {"type": "error", "hook_event_name": "StopFailure"}, None), "cancelled"),
        (("session_finalized", {}, None), "cancelled"),
        (("response", {"type": "assistant_message"}, "sub"), "open"),
        (("agent_completed", {"agentId": "sub"}, None), "open"),
        (("response", {"type": "error"}, None), "open"),
        (("action", {"type": "prompt", "prompt": "go on"}, None), "open"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_call_is_open_until_its_agent_stops(asked: Asked, ends: Any, outcome: str) -> None:
    asked.calls("left", None)
    event_type, data, agent = ends
    asked.happens(event_type, data=data, agent_id=agent)
    assert asked.rows("SELECT outcome FROM tool_calls") == [[outcome]]
    asked.happens("session_resumed")
    assert asked.rows("SELECT outcome FROM tool_calls") == [[outcome]]
    asked.happens("response", data={"type": "tool_result", "toolUseId": "left"})
    assert asked.rows("SELECT outcome FROM tool_calls") == [["ok"]]


def test_a_call_of_an_agent_is_open_until_that_is_done(asked: Asked) -> None:
    call = {"type": "tool_call", "toolUseId": "t"}
    asked.happens("action", data=call, agent_id="sub")
    asked.happens("response", data={"type": "assistant_message"})
    assert asked.rows("SELECT outcome FROM tool_calls") == [["open"]]
    asked.happens("agent_completed", data={"agentId": "sub"})
    assert asked.rows("SELECT outcome FROM tool_calls") == [["cancelled"]]


def test_no_agent_is_at_work_in_a_session_that_has_ended(asked: Asked) -> None:
    for agent in ("one", "two"):
        asked.happens("agent_spawned", data={"agentId": agent})
    asked.happens("agent_completed", data={"agentId": "one", "status": "failed"})
    asked.happens("session_finalized")
    assert asked.rows("SELECT agent_id, status FROM agents") == [["one", "failed"], ["two", "cancelled"]]


NOT_WANTED = "The user doesn\u2019t want to proceed with this tool use. The tool use was rejected"


@pytest.mark.parametrize(
    "data",
    [
        {"rejected": True, "error": "no"},
        {"is_interrupt": True, "error": "Exit code 137"},
        {"error": NOT_WANTED},
        {"error": f"\n {NOT_WANTED.replace(chr(0x2019), chr(39))}"},
        {"error": "[Request interrupted by user for tool use]"},
    ],
    ids=str,
)
def test_what_a_person_said_no_to_is_rejected_and_no_failure(asked: Asked, data: dict[str, Any]) -> None:
    asked.calls("one", "tool_error", **data)
    assert asked.rows("SELECT outcome FROM tool_calls") == [["rejected"]]
    assert asked.rows("SELECT failed, rejected FROM responses") == [[0, 1]]
    for question in ("slowest-tools", "failing-tools", "tools"):
        assert [row["failed"] for row in asked.question(question)] in ([0], [])
    assert asked.question("tool-failures") == []
    assert [row["outcome"] for row in asked.question("story", session="s") if row["does"] == "uses Bash"] == [
        "rejected"
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"error": "boom"},
        {"error": ""},
        {"rejected": False, "error": "no"},
        {"refused": True, "error": "<tool_use_error>no such tool</tool_use_error>"},
        {"error": "grep: The user doesn't want to"},
    ],
    ids=str,
)
def test_any_other_error_of_a_tool_is_a_failure(asked: Asked, data: dict[str, Any]) -> None:
    asked.calls("one", "tool_error", **data)
    assert asked.rows("SELECT outcome FROM tool_calls") == [["failed"]]
    assert len(asked.question("tool-failures")) == 1


@pytest.mark.parametrize("nothing", [None, "", False, {}, []])
def test_an_empty_error_is_none(asked: Asked, nothing: object) -> None:
    asked.calls("one", ok=True, error=nothing, exitCode="0")
    asked.calls("two", ok=True, error="boom")
    assert asked.rows("SELECT outcome FROM tool_calls ORDER BY cursor") == [["ok"], ["failed"]]


MACHINE_MADE = [
    {"prompt": "<task-notification>\n<task-id>a</task-id>"},
    {"prompt": "<command-name>/clear</command-name>"},
    {"prompt": "<command-message>init is running</command-message>"},
    {"prompt": "<local-command-stdout>ok</local-command-stdout>"},
    {"text": "<system-reminder>remember</system-reminder>"},
    {"prompt": "Wake up", "machineMade": True},
]


@pytest.mark.parametrize("data", MACHINE_MADE, ids=str)
def test_what_a_machine_says_as_a_prompt_is_no_persons(asked: Asked, data: dict[str, Any]) -> None:
    said = asked.happens("action", data={"type": "prompt", "prompt": "Explain <task-notification> to me"})
    asked.happens("action", data={"type": "prompt", **data})
    assert asked.rows("SELECT machine_made FROM actions ORDER BY cursor") == [[0], [1]]
    assert [row["cursor"] for row in asked.question("prompts-with", word="")] == [said]
    told = [row["does"] for row in asked.question("story", session="s")]
    assert told[-2:] == ["is told", "is notified"]


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
    assert sorted(each.name for topic in topics().values() for each in topic) == sorted(questions())
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
    assert asked.rows(f"SELECT count(*) FROM {asked.walls.store}.documents") == [[0]], "who knew it could read all"
    assert "store_" not in str(asked.rows(form))


def test_a_query_names_its_parts_as_it_likes(asked: Asked) -> None:
    asked.happens("action", data={"type": "note"})
    named = "WITH actions AS (SELECT * FROM events WHERE type = 'action'), total AS (SELECT count(*) AS n FROM actions)"
    assert asked.rows(f"{named} SELECT n, (SELECT count(*) FROM total) FROM total") == [[1, 1]]


def test_an_answer_that_is_too_large_is_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_BYTES", 10_000)
    for _ in range(3):
        assert len(asked.rows("SELECT hex(zeroblob(2000)) FROM json_each('[1, 2]')")) == 2
    with pytest.raises(sqlite3.OperationalError, match="too large"):
        asked.rows("SELECT hex(zeroblob(2000)) FROM json_each('[1, 2, 3]')")


def test_nobody_is_kept_from_the_log_by_an_answer_that_was_given(asked: Asked) -> None:
    """A cursor that is remembered would hold its read transaction open, and the log could not be taken back."""
    for is_kept in (True, False):
        asked.happens("action", data={"type": "note"})
        cursor = asked.connection.execute("SELECT cursor FROM events")
        cursor.fetchone()
        kept = [cursor] if is_kept else []
        del cursor
        asked.happens("action", data={"type": "note"})
        (_, pages, taken_back) = asked.database.rows("PRAGMA wal_checkpoint(PASSIVE)")[0]
        assert (taken_back < pages) == is_kept
        kept.clear()


def test_the_list_of_views_is_that_of_views_sql(asked: Asked) -> None:
    listed = asked.rows("SELECT type, name, sql FROM sqlite_master ORDER BY rowid")
    assert [(kind, name) for kind, name, _ in listed] == [("view", name) for name in views()]
    for _, name, sql in listed:
        assert sql.partition("VIEW")[2] in views()[name].sql


def test_what_was_used_is_asked_by_day_model_session_and_prompt(asked: Asked) -> None:
    asked.happens("session_created", user_id="alice", data={"metadata": {"project": "shop"}})
    asked.happens("action", data={"type": "prompt", "prompt": "Build it", "prompt_id": "p1"})
    for tool in ("Bash", "Bash", "Read", "Bash"):
        asked.happens("action", data={"type": "tool_call", "tool": tool, "prompt_id": "p1"})
    asked.happens("agent_spawned", data={"agentId": "w", "type": "reviewer"})
    told: dict[str, Any] = {"source": "transcript", "model": "m", "inputTokens": 100, "cacheReadTokens": 300}
    each: list[dict[str, Any]] = [{"costUsd": 2, "promptId": "p1"}, {"costUsd": 3, "agentId": "w"}, {"model": "x"}]
    for number, more in enumerate(each):
        data = told | {"requestKey": f"r{number}", "costFrom": "unpriced"} | more
        asked.happens("usage_reported", data=data | ({"costFrom": "reported"} if "costUsd" in more else {}))
    asked.happens(
        "usage_reported", data={"source": "otlp_spans", "inputTokens": 10**6, "requestKey": "the same by a span"}
    )
    asked.happens("usage_reported", "cheap", {"costUsd": 0.5, "costFrom": "own"})
    (row,) = asked.rows("SELECT tokens_input, cost_usd FROM sessions WHERE session_id = 's'")
    assert row == [300, 5.0]
    assert asked.rows("SELECT count(*), sum(total_tokens), sum(cost_usd) FROM usage WHERE session_id = 's'") == [
        [3, 1200, 5]
    ]
    day = asked.question("costs-by-day", days="100000", user="alice")
    assert [(row["requests"], row["cost_usd"], row["unpriced"]) for row in day] == [(3, 5, 1)]
    models = {row["model"]: row["cache_hits"] for row in asked.question("costs-by-model", days="100000")}
    assert models["m"] == models["x"] == 0.75
    dearest = asked.question("dearest-sessions")
    assert [(row["session_id"], row["cost_usd"], row["of_agents"]) for row in dearest] == [
        ("s", 5, 3),
        ("cheap", 0.5, 0),
    ]
    users = {row["user_id"]: row for row in asked.question("costs-by-user", days="100000")}
    assert (users["alice"]["cost_usd"], users["alice"]["of_agents"], users["alice"]["cache_hits"]) == (5, 3, 0.75)
    projects = {row["project"]: row for row in asked.question("costs-by-project", days="100000")}
    assert (projects["shop"]["cost_usd"], projects["shop"]["unpriced"]) == (5, 1)
    delegated = {
        row["agent"]: (row["cost_usd"], row["share"]) for row in asked.question("delegated-costs", days="100000")
    }
    assert delegated == {"reviewer": (3, 0.545), "the main agent": (2.5, 0.455)}
    tools = {row["tool"]: (row["calls"], row["cost_usd"]) for row in asked.question("costs-by-tool")}
    assert tools == {"Bash": (3, 1.5), "Read": (1, 0.5)}
    prompts = asked.question("dearest-prompts", session="s")
    assert ("p1", "Build it", 2) in [(row["prompt_id"], row["text"], row["cost_usd"]) for row in prompts]
    assert [row["model"] for row in asked.question("unpriced-models")] == ["x"]
    assert asked.question("dear-outliers") == []
