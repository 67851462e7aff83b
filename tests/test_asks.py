"""What a session waits for, each ask for itself, opened and closed by what is said; and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore.model.lines import draft_of_line
from sessionstore.store.closing import lose_silent
from sessionstore.upkeep.notices import Watch
from sessionstore.webhook_targets import Target
from tests.databases import OF_ASKS, Database, drafted

Json = dict[str, Any]
BASH: Json = {"tool": "Bash", "input": {"command": "rm x"}}
OTHER: Json = {"tool": "Bash", "input": {"command": "rm y"}}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("session_created", "s", {"initial": {}}))
    yield database
    database.close()


def act(database: Database, kind: str, agent: str | None = None, **data: Any) -> str:
    return database.append(drafted("action", "s", {"type": kind} | data, agent_id=agent)).event.event_id


def respond(database: Database, kind: str, agent: str | None = None, **data: Any) -> str:
    return database.append(drafted("response", "s", {"type": kind} | data, agent_id=agent)).event.event_id


def ask(
    database: Database, message: str, agent: str | None = None, kind: str = "permission_request", **data: Any
) -> str:
    asked = {"reason": data.pop("reason", "permission"), "message": message}
    if deadline := data.pop("deadline", None):
        asked["deadline"] = deadline
    if own_id := data.pop("own_id", None):
        asked["id"] = own_id
    return act(database, kind, agent, attention=asked, **data)


def status(database: Database) -> str:
    return str(database.value("SELECT status FROM sessions WHERE session_id = 's'"))


def attention(database: Database) -> Any:
    return json.loads(database.value("SELECT document FROM metadata WHERE session_id = 's'"))["attention"]


def messages(database: Database) -> list[str]:
    """What it waits for, the oldest first."""
    shown = attention(database)
    assert (shown is not None) == (status(database) == "waiting")
    return [one["message"] for one in (shown, *shown.get("others", []))] if shown else []


# ----------------------------------------------------------------------- each ask for itself


def test_two_asks_of_two_agents_are_both_shown_and_closed_one_by_one(database: Database) -> None:
    first, second = ask(database, "x?", "a1", **BASH), ask(database, "y?", "a2", **OTHER)
    shown = attention(database)
    assert (shown["askId"], shown["agentId"], shown["tool"], shown["reason"]) == (first, "a1", "Bash", "permission")
    assert [(other["askId"], other["agentId"]) for other in shown["others"]] == [(second, "a2")]
    respond(database, "tool_result", "a1", toolUseId="t1", **BASH)
    assert messages(database) == ["y?"] and "others" not in attention(database)
    respond(database, "tool_error", "a2", toolUseId="t2", **OTHER)
    assert status(database) == "active"


def test_asks_of_one_agent_are_told_apart_by_their_input_or_their_call(database: Database) -> None:
    ask(database, "x?", **BASH)
    ask(database, "y?", **OTHER)
    ask(database, "call 1?", toolUseId="t1", tool="Write")
    ask(database, "call 2?", toolUseId="t2", tool="Write")
    respond(database, "tool_result", toolUseId="t9", **OTHER)
    assert messages(database) == ["x?", "call 1?", "call 2?"]
    respond(database, "tool_result", toolUseId="t2", tool="Write")
    assert messages(database) == ["x?", "call 1?"]
    respond(database, "tool_result", toolUseId="t3", tool="Write")
    assert messages(database) == ["x?", "call 1?"], "the call is another"


def test_of_two_that_a_result_fits_the_oldest_is_closed(database: Database) -> None:
    ask(database, "first?", tool="Bash", input={"command": "a"})
    ask(database, "second?", tool="Bash", input={"command": "b"})
    respond(database, "tool_result", tool="Bash")
    assert messages(database) == ["second?"]


def test_a_permission_and_an_elicitation_are_two_and_interrupts_have_names_of_their_own(database: Database) -> None:
    ask(database, "May I?", **BASH)
    ask(database, "Which colour?", reason="question", kind="elicitation", own_id="e1")
    ask(database, "How many?", reason="question", kind="interrupt", own_id="i1")
    ask(database, "How large?", reason="question", kind="interrupt", own_id="i2")
    assert len(messages(database)) == 4
    act(database, "elicitation_result", attention=None, attentionId="e1")
    assert messages(database) == ["May I?", "How many?", "How large?"]
    act(database, "resumed", attention=None)
    assert status(database) == "active"


@pytest.mark.parametrize("agent", [None, "a1"])
def test_a_question_that_is_told_three_times_is_one_in_its_most_exact_words(
    database: Database, agent: str | None
) -> None:
    question: Json = {"tool": "AskUserQuestion", "input": {"questions": [{"question": "Which database?"}]}}
    first = ask(database, "Which database?", agent, "tool_call", reason="question", toolUseId="q1", **question)
    ask(database, "AskUserQuestion", agent, **question)
    ask(database, "Claude needs your attention", kind="notification")
    assert messages(database) == ["Which database?"]
    assert (attention(database)["reason"], attention(database)["askId"]) == ("question", first)
    assert database.rows("SELECT cursor FROM status_changes") == [(2,)], "told once"
    respond(database, "tool_result", agent, toolUseId="q1", **question)
    assert status(database) == "active"


def test_exact_words_replace_those_of_a_notification_and_its_time_stays(database: Database) -> None:
    ask(database, "Claude needs your permission", kind="notification")
    since = attention(database)["since"]
    ask(database, "Bash: rm x", **BASH)
    assert messages(database) == ["Bash: rm x"]
    assert attention(database)["since"] == since


def test_a_session_has_at_most_a_hundred_open_asks_and_keeps_little_of_each(database: Database) -> None:
    """Each word is held against all of them: neither their number nor their size may make that long."""
    large = "x" * 100_000
    for number in range(130):
        ask(database, f"{number} {large}", own_id=f"{number}", tool="Write", input={"content": large})
    assert len(messages(database)) == 100
    shown = messages(database)
    assert shown[0] == f"30 {large}", "shown whole"
    assert max(map(len, shown[1:])) == 500
    assert max(len(str(row)) for row in database.rows("SELECT * FROM asks")) < 3000


def test_each_ask_is_told_of_and_the_same_not_twice(database: Database) -> None:
    for asked in (BASH, OTHER, BASH):
        ask(database, str(asked["input"]["command"]), None, **asked)
    watch = Watch(Target(url="http://a", on=("waiting",)))
    notices, _ = watch.after(database.connection, 0, 99)
    assert [(notice.type, notice.message) for notice in notices] == [
        ("session.waiting", "rm x"),
        ("session.waiting", "rm y"),
    ]


# ------------------------------------------------------------------------- who closes what


def test_a_sub_agents_word_touches_nothing_of_the_main_agent(database: Database) -> None:
    act(database, "tool_call", toolUseId="m1", **BASH)
    ask(database, "main?", **BASH)
    for kind in ("prompt", "tool_call", "post_tool_batch"):
        act(database, kind, "a1", toolUseId="s1", prompt="x", **BASH)
    respond(database, "tool_result", "a1", toolUseId="s1", **BASH)
    respond(database, "assistant_message", "a1", message="done", attention={"reason": "input", "message": "?"})
    act(database, "own", "a1", attention=None)
    database.append(drafted("agent_completed", "s", {"agentId": "a1"}))
    assert messages(database) == ["main?"]


def test_a_sub_agents_stop_has_nobody_wait(database: Database) -> None:
    respond(database, "assistant_message", "a1", message="x", attention={"reason": "input", "message": "x"})
    assert status(database) == "active"


def test_a_prompt_answers_the_main_agent_and_the_machines_own_prompt_does_not(database: Database) -> None:
    ask(database, "main?", **BASH)
    ask(database, "sub?", "a1", **BASH)
    act(database, "prompt", prompt="<task-notification>\n<task-id>a</task-id>")
    act(database, "prompt", prompt="go on", machineMade=True)
    assert messages(database) == ["main?", "sub?"]
    act(database, "prompt", prompt="never mind")
    assert messages(database) == ["sub?"]


def test_a_machines_prompt_shows_that_the_agent_works_on(database: Database) -> None:
    respond(database, "assistant_message", message="Done?", attention={"reason": "input", "message": "Done?"})
    assert status(database) == "waiting"
    act(database, "prompt", prompt="<task-notification>", machineMade=True)
    assert status(database) == "active"


@pytest.mark.parametrize(("kind", "left"), [("assistant_message", []), ("error", [])])
def test_a_stop_closes_all_where_nothing_runs_behind(database: Database, kind: str, left: list[str]) -> None:
    ask(database, "main?", **BASH)
    ask(database, "sub?", "a1", **BASH)
    respond(database, kind, message="started", background_tasks=[{"id": "b1"}])
    assert messages(database) == ["sub?"]
    respond(database, kind, message="done", background_tasks=[])
    assert messages(database) == left


def test_a_refusal_closes_what_it_refuses(database: Database) -> None:
    ask(database, "x?", **BASH)
    ask(database, "y?", **OTHER)
    act(database, "permission_denied", tool_name="Bash", tool_input=OTHER["input"], tool_use_id="t2")
    assert messages(database) == ["x?"]
    act(database, "post_tool_batch")
    assert status(database) == "active"


@pytest.mark.parametrize(
    "end", [("agent_completed", {}), ("agent_updated", {"status": "failed"}), ("agent_completed", {"status": "failed"})]
)
def test_the_end_of_an_agent_closes_its_own(database: Database, end: tuple[str, Json]) -> None:
    ask(database, "main?", **BASH)
    ask(database, "sub?", "a1", **BASH)
    event_type, data = end
    database.append(drafted(event_type, "s", {"agentId": "a1"} | data))
    assert messages(database) == ["main?"]


@pytest.mark.parametrize("event_type", ["session_finalized", "session_lost", "session_resumed"])
def test_an_end_closes_all(database: Database, event_type: str) -> None:
    ask(database, "main?", **BASH)
    respond(database, "own", attention={"reason": "input", "message": "?"})
    database.append(drafted(event_type, "s"))
    assert messages(database) == [] and database.rows("SELECT * FROM asks") == []


def test_asks_come_before_that_the_agent_sits_at_its_prompt(database: Database) -> None:
    ask(database, "sub?", "a1", **BASH)
    respond(
        database,
        "assistant_message",
        message="?",
        attention={"reason": "input", "message": "?"},
        background_tasks=[{"id": "b1"}],
    )
    assert messages(database) == ["sub?"]
    respond(database, "tool_result", "a1", toolUseId="t", **BASH)
    assert (messages(database), attention(database)["reason"]) == (["?"], "input")
    assert "askId" not in attention(database)


def test_the_attention_of_a_member_of_a_state_is_no_ask(database: Database) -> None:
    database.append(drafted("state_updated", "s", {"attention": {"reason": "permission"}}))
    assert status(database) == "active"
    ask(database, "x?", **BASH)
    database.append(drafted("state_updated", "s", {"attention": None}))
    assert messages(database) == ["x?"]


def test_spaces_in_the_text_of_an_event_change_nothing(database: Database) -> None:
    """As another program may write it; the fold reads JSON, not the text of it."""
    row = "3, 'action', 's', 'u', 'e', NULL, '2027-01-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z', NULL, 1, 'x'"
    spaced = json.dumps({"type": "x", "attention": {"reason": "permission", "message": "May I?"}}, indent=2)
    database.connection.execute(f"INSERT INTO events VALUES ({row}, ?, NULL)", (spaced,))
    assert messages(database) == ["May I?"]


# ------------------------------------------------------------ what became of asks


def ended(database: Database) -> list[tuple[str, str]]:
    """Of asks that are not open any more, the oldest first: the message, and by what kind of word they ended."""
    return database.rows(
        "SELECT t.data ->> '$.attention.message', coalesce(e.kind, e.type) FROM ended_asks a"
        " JOIN events t ON t.cursor = a.told JOIN events e ON e.cursor = a.ended ORDER BY a.cursor"
    )


def test_what_ends_an_ask_is_kept_and_goes_with_its_session(database: Database) -> None:
    first = ask(database, "x?", **BASH)
    second = ask(database, "y?", own_id="y", deadline="2026-02-14T01:00:00+01:00")
    respond(database, "tool_result", **BASH)
    assert database.rows("SELECT deadline FROM asks") == [("2026-02-14T00:00:00.000Z",)]
    database.append(drafted("ask_closed", "s", {"askId": second, "why": "deadline"}))
    ask(database, "z?")
    database.append(drafted("session_finalized", "s", {}))
    assert ended(database) == [("x?", "tool_result"), ("y?", "ask_closed"), ("z?", "session_finalized")]
    database.append(drafted("answered", "s", {"askId": first, "decision": "allow"}))
    assert database.rows("SELECT * FROM orders") == [], "it is answered too late"
    database.append(drafted("session_deleted", "s"))
    assert database.dump(*OF_ASKS) == {table: [] for table in OF_ASKS}


def test_an_answer_ends_its_own_ask_alone_and_a_notification_of_before_asks_nothing_anew(database: Database) -> None:
    first, _ = ask(database, "x?", own_id="1", **BASH), ask(database, "x?", own_id="2", **BASH)
    database.append(drafted("answered", "s", {"askId": first, "decision": "allow"}, actor="carol"))
    assert messages(database) == ["x?"] and attention(database)["askId"] == "event-3"
    database.append(drafted("answered", "s", {"askId": "event-3", "decision": "deny"}, actor="carol"))
    assert status(database) == "active"
    told = {"type": "notification", "attention": {"reason": "permission", "message": "It needs your permission"}}
    database.append(drafted("action", "s", told, timestamp="2026-02-14T00:00:10.000Z"))
    assert status(database) == "active"
    database.append(drafted("action", "s", told, timestamp="2026-02-15T00:00:00.000Z"))
    assert status(database) == "waiting"
    assert database.rows("SELECT order_id, kind, status FROM orders ORDER BY cursor") == [
        ("event-4", "answer", "waiting"),
        ("event-5", "answer", "waiting"),
    ]


def test_who_says_that_nothing_is_asked_ends_what_is_his_own(database: Database) -> None:
    asked = {"type": "ask", "attention": {"reason": "permission", "message": "x?"}}
    database.append(drafted("action", "s", asked, actor="agent"))
    no_more = drafted("metadata_updated", "s", {"attention": None}, actor="another")
    database.append(no_more)
    assert messages(database) == ["x?"]
    database.append(drafted("metadata_updated", "s", {"attention": None}, actor="agent"))
    assert status(database) == "active"
    database.append(drafted("action", "s", asked | {"attention": {"reason": "input"}}, actor="agent"))
    assert status(database) == "waiting"
    database.append(drafted("metadata_updated", "s", {"attention": None}, actor="another"))
    assert status(database) == "active", "that it sits at its prompt anybody may end"


def test_who_asks_for_orders_is_not_lost(database: Database) -> None:
    database.append(drafted("session_created", "t", {"initial": {}}))
    with database.transaction() as appender:
        (lost,) = lose_silent(appender, "9", {"t"})
    assert (lost.session_id, lost.type) == ("s", "session_lost")


# --------------------------------------------------------------- what became of it at its end


def end(database: Database, **data: Any) -> Json:
    data = {"hook_event_name": "SessionEnd", "reason": "other"} | data
    line = {"type": "session_finalized", "sessionId": "s", "data": data}
    return final(database, database.append(draft_of_line(line)).event.data)


def final(database: Database, data: str) -> Json:
    made: Json = json.loads(database.document("s", "final"))
    assert made["status"] == json.loads(data)["status"]
    completed = {"success": "completed"}.get(made["status"], made["status"])
    assert status(database) == completed
    return made


def prompt(database: Database, text: str = "go") -> None:
    act(database, "prompt", prompt=text)


def answer(database: Database, text: str = "done", agent: str | None = None) -> None:
    respond(database, "assistant_message", agent, message=text, attention={"reason": "input", "message": text})


def test_an_end_after_an_answer_is_a_success_with_the_answer(database: Database) -> None:
    prompt(database)
    act(database, "tool_call", toolUseId="t1", tool="Bash")
    respond(database, "tool_result", toolUseId="t1", tool="Bash")
    answer(database, "All built.")
    made = end(database)
    assert (made["status"], made["reason"], made["finalResponse"]) == ("success", "other", "All built.")


@pytest.mark.parametrize("given", [{"response": "Own words"}, {"response": None}])
def test_the_final_response_is_the_callers_where_it_gives_one(database: Database, given: Json) -> None:
    answer(database, "All built.")
    answer(database, "said by a worker", agent="a1")
    assert end(database, **given)["finalResponse"] == (given["response"] or "All built.")


def test_an_end_after_an_error_is_a_failure_with_its_text(database: Database) -> None:
    prompt(database)
    respond(database, "error", error="rate_limit", errorDetails="429", message="API Error: 429")
    respond(database, "assistant_message", "a1", message="a worker's answer is not the main agent's")
    assert (made := end(database))["status"] == "failed"
    assert made["outcome"] == "API Error: 429"


def test_an_error_that_only_the_end_tells_is_a_failure(database: Database) -> None:
    prompt(database)
    assert (made := end(database, error="API Error: 400"))["status"] == "failed"
    assert made["outcome"] == "API Error: 400"


@pytest.mark.parametrize("empty", ["", None, {}, [], False])
def test_an_empty_error_is_none(database: Database, empty: Any) -> None:
    prompt(database)
    answer(database)
    assert end(database, error=empty)["status"] == "success"


def test_an_error_that_was_overcome_is_none(database: Database) -> None:
    prompt(database)
    respond(database, "error", message="API Error: 529")
    prompt(database)
    answer(database)
    assert end(database)["status"] == "success"


@pytest.mark.parametrize("said", ["", "call", "result", "machine"])
def test_an_end_without_an_answer_is_a_cancellation(database: Database, said: str) -> None:
    prompt(database)
    if said in ("call", "result"):
        act(database, "tool_call", toolUseId="t1", tool="Bash")
    if said == "result":
        respond(database, "tool_result", toolUseId="t1", tool="Bash")
    if said == "machine":
        prompt(database, "<task-notification>…")
    assert end(database)["status"] == "cancelled"


def test_an_end_with_an_open_ask_or_an_open_call_is_a_cancellation(database: Database) -> None:
    ask(database, "sub?", "a1", **BASH)
    assert end(database)["status"] == "cancelled"
    act(database, "tool_call", toolUseId="t1", tool="Bash")
    assert end(database)["status"] == "cancelled"


def test_a_call_is_open_only_until_the_next_stop(database: Database) -> None:
    prompt(database)
    act(database, "tool_call", toolUseId="t1", tool="Bash")
    act(database, "tool_call", "a1", toolUseId="t2", tool="Bash")
    answer(database)
    act(database, "tool_call", "a1", toolUseId="t3", tool="Bash")
    assert end(database)["status"] == "success", "and a worker's is not the main agent's"


def test_an_end_that_is_told_twice_says_the_same(database: Database) -> None:
    prompt(database)
    ask(database, "x?", **BASH)
    assert [end(database)["status"] for _ in "123"] == ["cancelled"] * 3
    prompt(database)
    answer(database)
    assert end(database)["status"] == "success"


def test_what_older_clients_say_of_the_end_counts_for_nothing(database: Database) -> None:
    prompt(database)
    assert end(database, status="success")["status"] == "cancelled"
    assert end(database, status="failed")["status"] == "failed"


def test_a_retry_of_an_end_is_recognised(database: Database) -> None:
    database.append(drafted("agent_spawned", "s", {"type": "x", "agentId": "a1"}))
    prompt(database)
    for status_said in ({}, {"status": "success"}):
        data = {"hook_event_name": "SessionEnd", "reason": "other"} | status_said
        line = {"type": "session_finalized", "sessionId": "s", "eventId": "end", "data": data}
        appended = database.append(draft_of_line(line))
    assert appended.duplicate
    assert json.loads(appended.event.data) == {
        "hook_event_name": "SessionEnd",
        "reason": "other",
        "status": "cancelled",
        "cancelledAgents": ["a1"],
    }
    posted_back = line | {"data": json.loads(appended.event.data)}
    assert database.append(draft_of_line(posted_back)).duplicate


# ---------------------------------------------------------------- nobody is left at work


def agent(database: Database, agent_id: str = "a1") -> Json:
    record: Json = json.loads(database.value("SELECT record FROM agents WHERE agent_id = ?", agent_id))
    return record


def at(second: int) -> str:
    return f"2026-02-14T00:10:0{second}.000Z"


def tell(database: Database, event_type: str, second: int, **data: Any) -> None:
    database.append(drafted(event_type, "s", data, timestamp=at(second)))


@pytest.mark.parametrize(
    ("event_type", "data"), [("session_finalized", {}), ("metadata_updated", {"status": "completed"})]
)
def test_an_end_is_that_of_everybody_at_work(database: Database, event_type: str, data: Json) -> None:
    tell(database, "agent_spawned", 1, type="x", agentId="a1")
    tell(database, "agent_spawned", 1, type="x", agentId="a2")
    tell(database, "agent_completed", 2, agentId="a2", result="done")
    version = database.appender.state_version("s")
    tell(database, event_type, 3, **data)
    assert (agent(database)["status"], agent(database)["completedAt"]) == ("cancelled", at(3))
    assert (agent(database, "a2")["status"], agent(database, "a2")["completedAt"]) == ("completed", at(2))
    state = json.loads(database.document("s", "state"))
    assert (state["version"], state["agents"]["active"]) == (version + 1, [])
    tell(database, event_type, 4, **data)
    assert database.appender.state_version("s") == version + 1, "nobody was left"
    assert "cancelledAgents" not in database.value("SELECT document FROM metadata")


@pytest.mark.parametrize("second", [2, 3, 4])
def test_a_word_of_its_own_wins_over_the_end_of_its_session(database: Database, second: int) -> None:
    tell(database, "agent_spawned", 1, type="x", agentId="a1")
    tell(database, "session_finalized", 3)
    assert agent(database)["endedBy"] == "session"
    tell(database, "agent_completed", second, agentId="a1", result="done after all")
    assert (agent(database)["status"], agent(database)["result"]) == ("completed", "done after all")
    assert (agent(database)["completedAt"], "endedBy" in agent(database)) == (at(second), False)
    assert status(database) == "completed"


def test_a_start_from_before_the_end_that_comes_late_leaves_nobody_at_work(database: Database) -> None:
    tell(database, "session_finalized", 3)
    tell(database, "agent_spawned", 2, type="x", agentId="a1")
    tell(database, "agent_updated", 2, agentId="a1", status="running")
    assert (agent(database)["status"], agent(database)["completedAt"]) == ("cancelled", at(3))
    tell(database, "agent_updated", 2, agentId="unheard", status="running")
    assert agent(database, "unheard")["status"] == "cancelled"
    assert status(database) == "completed"
    tell(database, "agent_spawned", 4, type="x", agentId="a2")
    assert (agent(database, "a2")["status"], status(database)) == ("spawned", "active")


def test_what_was_at_work_again_before_the_end_and_comes_late_is_cancelled(database: Database) -> None:
    for agent_id in ("a1", "a2", "a3"):
        tell(database, "agent_spawned", 1, type="x", agentId=agent_id)
        tell(database, "agent_completed", 3, agentId=agent_id)
    tell(database, "session_finalized", 5)
    tell(database, "agent_spawned", 4, type="x", agentId="a1")
    tell(database, "agent_updated", 4, agentId="a2", status="running")
    tell(database, "agent_updated", 2, agentId="a3", status="running")
    assert [agent(database, agent_id)["status"] for agent_id in ("a1", "a2", "a3")] == [
        "cancelled",
        "cancelled",
        "completed",
    ]
    assert agent(database, "a3")["completedAt"] == at(3)


def test_a_retry_of_what_came_late_is_recognised(database: Database) -> None:
    tell(database, "session_finalized", 5)
    for event_type in ("agent_spawned", "agent_updated"):
        data = {"agentId": "a1", "status": "running", "type": "x"}
        draft = drafted(event_type, "s", data, timestamp=at(4), event_id=f"once-{event_type}")
        assert [database.append(draft).duplicate for _ in "12"] == [False, True]


def test_the_first_end_of_an_agent_is_its_end(database: Database) -> None:
    tell(database, "agent_spawned", 1, type="x", agentId="a1")
    tell(database, "agent_completed", 2, agentId="a1", result="A")
    tell(database, "agent_completed", 5, agentId="a1", result="B", status="failed")
    assert (agent(database)["completedAt"], agent(database)["result"]) == (at(2), "A")
    assert agent(database)["status"] == "completed"
    tell(database, "agent_spawned", 6, type="x", agentId="a1")
    assert (agent(database)["status"], "completedAt" in agent(database)) == ("spawned", False)
    tell(database, "agent_completed", 7, agentId="a1", result="C")
    assert (agent(database)["completedAt"], agent(database)["result"]) == (at(7), "C")


def test_the_first_end_of_a_goal_is_its_end(database: Database) -> None:
    tell(database, "goal_added", 1, id="g", description="x")
    for second in (2, 5):
        tell(database, "goal_updated", second, goalId="g", status="completed")
    assert json.loads(database.value("SELECT record FROM goals"))["completedAt"] == at(2)


# ------------------------------------------------------------------------------ in silence


def test_a_graph_that_has_ended_well_is_completed_in_silence(database: Database) -> None:
    for session in ("done", "working", "asking", "elsewhere"):
        database.append(drafted("state_updated", session, {"phase": "completed"}))
    last = database.append(drafted("state_updated", "done", {"currentStep": "end"})).event.timestamp
    database.append(drafted("agent_spawned", "working", {"type": "x"}))
    database.append(drafted("action", "asking", {"type": "x", "attention": {"reason": "question"}}))
    database.append(drafted("state_updated", "elsewhere", {"phase": "implementation"}))
    with database.transaction() as appender:
        lose_silent(appender, "9")
    statuses = dict(database.rows("SELECT session_id, status FROM sessions WHERE session_id <> 's'"))
    assert statuses == {"done": "completed", "working": "lost", "asking": "waiting", "elsewhere": "lost"}
    made = json.loads(database.document("done", "final"))
    assert (made["status"], made["timestamp"]) == ("success", last)
    assert "phase" in made["reason"]


# --------------------------------------------------------------------- a cleared conversation


def start(database: Database, session: str, second: int, *, user: str | None = None, **metadata: Any) -> Json:
    data = {"initial": {}, "metadata": metadata}
    draft = drafted("session_created", session, data, timestamp=at(second), user_id=user, event_id=f"start-{session}")
    made: Json = json.loads(database.append(draft).event.data)
    assert database.append(draft).duplicate
    return made


def clear(database: Database, session: str, second: int, **data: Any) -> None:
    database.append(drafted("session_finalized", session, {"reason": "clear"} | data, timestamp=at(second)))


def test_what_takes_the_place_of_a_cleared_conversation_says_so(database: Database) -> None:
    start(database, "old", 0, cwd="/p", source="startup")
    clear(database, "old", 1)
    made = start(database, "new", 2, cwd="/p", source="clear")
    assert made["metadata"]["continues"] == "old"
    assert json.loads(database.value("SELECT document FROM metadata WHERE session_id = 'new'"))["continues"] == "old"


@pytest.mark.parametrize(
    ("end", "begin"),
    [
        ({"cwd": "/elsewhere"}, {}),
        ({"reason": "other"}, {}),
        ({}, {"source": "startup"}),
        ({}, {"user": "alice"}),
        ({"second": 3}, {"second": 1}),
    ],
)
def test_what_is_of_another_place_or_time_continues_nothing(database: Database, end: Json, begin: Json) -> None:
    start(database, "old", 0, source="startup")
    clear(database, "old", end.pop("second", 1), **({"cwd": "/p"} | end))
    made = start(database, "new", begin.pop("second", 2), **({"cwd": "/p", "source": "clear"} | begin))
    assert "continues" not in made["metadata"]


def test_the_folder_of_the_transcript_tells_as_well(database: Database) -> None:
    clear(database, "s", 1, transcript_path="/home/.claude/projects/p/one.jsonl")
    made = start(database, "new", 2, source="clear", transcript_path="/home/.claude/projects/p/two.jsonl")
    assert made["metadata"]["continues"] == "s"
