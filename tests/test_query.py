"""Questions over the whole store: recent, active, stats, search."""

from __future__ import annotations

import json
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.appliance import Appliance
from tests.peers import eventually, has_midnight_come
from tests.problems import assert_problem
from tests.repeats import examples

# ------------------------------------------------------------------ what is asked


def act(http: httpx.Client, session_id: str, **action: Any) -> Any:
    answer = http.post(f"/api/actions/{session_id}", json={"type": "note"} | action)
    assert answer.status_code == 200, answer.text
    return answer.json()


def enter(http: httpx.Client, session_id: str, user: str = "test-user-alice") -> None:
    http.put(f"/api/sessions/{session_id}", json={"userId": user}).raise_for_status()


def wait_for_a_person(http: httpx.Client, session_id: str) -> None:
    body = {"attention": {"reason": "permission", "message": "May I?"}}
    http.patch(f"/api/sessions/{session_id}/metadata", json=body).raise_for_status()


def ids(items: list[Any]) -> list[str]:
    return [item["sessionId"] for item in items]


def search(http: httpx.Client, q: str, **query: Any) -> list[Any]:
    answer = http.get("/api/query/search", params={"q": q} | query)
    assert answer.status_code == 200, answer.text
    items: list[Any] = answer.json()["items"]
    return items


def found(http: httpx.Client, q: str, **query: Any) -> list[str]:
    return [item["event"]["sessionId"] for item in search(http, q, **query)]


# ---------------------------------------------------------------- recent, active


def test_recent_sessions_are_those_with_the_newest_change(http: httpx.Client, session_id: str) -> None:
    names = [f"{session_id}-{n}" for n in range(12)]
    for name in names:
        enter(http, name)
    act(http, names[0])
    recent = http.get("/api/query/recent").json()
    assert ids(recent) == [names[0], *names[:2:-1]]
    assert recent[0] == http.get(f"/api/sessions/{names[0]}").json()["metadata"]
    assert ids(http.get("/api/query/recent", params={"limit": 2}).json()) == [names[0], names[11]]
    for limit in ("0", "501", "x", "9" * 30):
        assert_problem(http.get("/api/query/recent", params={"limit": limit}), 422, "$.limit")


def test_active_sessions_begin_with_those_that_wait_the_longest(http: httpx.Client, session_id: str) -> None:
    names = [f"{session_id}-{name}" for name in ("working", "asked-first", "asked-later", "ended")]
    working, first, later, ended = names
    for name in names:
        enter(http, name)
    wait_for_a_person(http, first)
    time.sleep(0.002)  # `since` counts milliseconds
    wait_for_a_person(http, later)
    http.post(f"/api/sessions/{ended}/finalize", json={}).raise_for_status()
    act(http, working)
    act(http, first)  # still waits, and since the same moment
    active = http.get("/api/query/active").json()
    assert [name for name in ids(active) if name in names] == [first, later, working]
    waiting = [item["status"] == "waiting" for item in active]
    assert waiting == sorted(waiting, reverse=True)
    assert {item["status"] for item in active} == {"active", "waiting"}


def test_active_sessions_say_what_they_are_at(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="prompt", prompt="Tidy up " + "x" * 400)
    act(http, session_id, type="tool_call", tool="Bash", input={"command": "make clean"})
    act(http, session_id, type="message_display", delta="Working on it")
    for members in ({"error": "no"}, {"error": "No, use tabs", "rejected": True}):
        http.post(f"/api/actions/{session_id}/responses", json={"type": "tool_error", **members}).raise_for_status()
    for status in ("completed", "pending"):
        http.post(f"/api/state/{session_id}/goals", json={"description": "d", "status": status}).raise_for_status()
    for agent in ("a", "b"):
        http.post(f"/api/state/{session_id}/agents", json={"agentId": agent, "type": "t"}).raise_for_status()
    http.post(f"/api/state/{session_id}/agents/a/complete").raise_for_status()
    enter(http, f"{session_id}-new")
    (item, new) = (at_what(http, name) for name in (session_id, f"{session_id}-new"))
    assert item["lastPrompt"] == ("Tidy up " + "x" * 400)[:300]
    assert item["lastAction"] == {"type": "tool_call", "tool": "Bash", "text": "make clean"}
    assert (item["goalsCompleted"], item["goals"], item["agentsActive"], item["agents"]) == (1, 2, 1, 2)
    assert (item["errors"], new["errors"]) == (1, 0), "what a person rejected is none"
    assert (new["lastPrompt"], new["lastAction"], new["goalsCompleted"], new["agentsActive"]) == (None, None, 0, 0)
    plain = {name: value for name, value in item.items() if name not in DETAILS}
    assert plain == http.get(f"/api/sessions/{session_id}").json()["metadata"]
    assert len(http.get("/api/query/active", params={"limit": 1}).json()) == 1
    assert_problem(http.get("/api/query/active", params={"limit": 1001}), 422, "$.limit")


def test_the_last_prompt_is_what_a_person_said(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="prompt", prompt="Build the shop")
    for said in (
        "<task-notification>\n<task-id>a</task-id>",
        "\n<command-name>/clear</command-name>",
        "<local-command-x>",
    ):
        act(http, session_id, type="prompt", prompt=said)
    act(http, session_id, type="prompt", prompt="Wake up", machineMade=True)
    assert at_what(http, session_id)["lastPrompt"] == "Build the shop"
    act(http, session_id, type="prompt", prompt="What is <task-notification>?")
    assert at_what(http, session_id)["lastPrompt"] == "What is <task-notification>?"


def test_a_list_has_what_was_noted_last(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="prompt", prompt="Go")
    assert at_what(http, session_id)["lastNote"] is None
    for words in ("Look at the cart", "Ask Bob\u202e"):
        http.post(f"/api/sessions/{session_id}/notes", json={"text": words}).raise_for_status()
    http.post(f"/api/state/{session_id}/goals", json={"description": "d"}).raise_for_status()
    assert at_what(http, session_id)["lastNote"] == "Ask Bob"


def test_sessions_are_asked_for_by_their_ids(http: httpx.Client, session_id: str) -> None:
    names = [f"{session_id}-{number}" for number in range(3)]
    for name in names:
        enter(http, name)
    asked = {"sessionId": [names[0], names[2], "none-such"]}
    assert [item["sessionId"] for item in http.get("/api/sessions", params=asked).json()["items"]] == [
        names[2],
        names[0],
    ]


def test_no_agent_is_active_in_a_session_that_has_ended(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/state/{session_id}/agents", json={"agentId": "a", "type": "t"}).raise_for_status()
    http.post(f"/api/sessions/{session_id}/finalize", json={}).raise_for_status()
    items = http.get("/api/sessions", params={"details": "true", "q": session_id}).json()["items"]
    assert [item["agentsActive"] for item in items] == [0]


DETAILS = ("lastPrompt", "lastAction", "end", "errors", "goalsCompleted", "agentsActive", "lastNote")


def at_what(http: httpx.Client, session_id: str) -> Any:
    """What both lists say that a session is at."""
    (item,) = (item for item in http.get("/api/query/active").json() if item["sessionId"] == session_id)
    listed = http.get("/api/sessions", params={"details": True, "limit": 500}).json()["items"]
    assert item in listed
    return item


def test_a_session_that_failed_says_why(http: httpx.Client, session_id: str) -> None:
    error = {"type": "error", "error": "rate_limit", "message": "API Error: 429"}
    for status, reason in (("failed", "other"), ("cancelled", None), ("success", "other")):
        name = f"{session_id}-{status}"
        http.post(f"/api/actions/{name}/responses", json=error).raise_for_status()
        http.post(f"/api/sessions/{name}/finalize", json={"status": status, "reason": reason}).raise_for_status()
    listed = http.get("/api/sessions", params={"details": True, "q": session_id, "limit": 500}).json()["items"]
    ends = {item["status"]: item["end"] for item in listed if item["sessionId"].startswith(f"{session_id}-")}
    why = {"outcome": None, "exitCode": None, "error": "API Error: 429"}
    assert ends == {"failed": why | {"reason": "other"}, "cancelled": why | {"reason": None}, "completed": None}


# ------------------------------------------------------------------------- stats


@pytest.fixture
def alone(folder: Path) -> Iterator[httpx.Client]:
    """A client of a server that nobody else writes to."""
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as client:
        yield client


def test_stats_of_an_empty_store_are_all_there(alone: httpx.Client) -> None:
    stats = alone.get("/api/query/stats").json()
    assert type(stats.pop("databaseBytes")) is int
    assert stats == {
        "total": 0,
        "active": 0,
        "completed": 0,
        "activeSessions": [],
        "completedSessions": [],
        "sessions": {},
        "users": 0,
        "actions": 0,
        "responses": 0,
        "goals": {},
        "agents": {},
        "events": 0,
        "eventsToday": 0,
        "eventsPerMinute": [0] * 60,
    }


def test_stats_are_what_was_written(alone: httpx.Client) -> None:
    for number in range(12):
        enter(alone, f"done-{number}", user=f"user-{number % 2}")
        alone.post(f"/api/sessions/done-{number}/finalize", json={}).raise_for_status()
    for name in ("works", "waits", "failed", "gone"):
        enter(alone, name)
    wait_for_a_person(alone, "waits")
    alone.post("/api/sessions/failed/finalize", json={"status": "failed"}).raise_for_status()
    for _ in range(3):
        act(alone, "works")
    alone.post("/api/actions/works/responses", json={"type": "note"}).raise_for_status()
    act(alone, "gone")
    for status in ("pending", "completed", "completed"):
        alone.post("/api/state/works/goals", json={"description": "d", "status": status}).raise_for_status()
    for name in ("works", "gone"):
        alone.post(f"/api/state/{name}/agents", json={"type": "t"}).raise_for_status()
    alone.post("/api/state/works/agents/agent-1/complete").raise_for_status()
    alone.delete("/api/sessions/gone").raise_for_status()

    stats = alone.get("/api/query/stats").json()
    assert (stats["total"], stats["active"], stats["completed"]) == (15, 2, 12)
    assert stats["activeSessions"] == ["works", "waits"]
    assert sorted(stats["completedSessions"]) == sorted(f"done-{number}" for number in range(2, 12))
    assert stats["sessions"] == {"active": 1, "waiting": 1, "failed": 1, "completed": 12}
    assert stats["users"] == 3
    assert (stats["goals"], stats["agents"]) == ({"pending": 1, "completed": 2}, {"completed": 1})
    assert stats["responses"] == 1
    assert len(stats["eventsPerMinute"]) == 60
    assert sum(stats["eventsPerMinute"]) == alone.get("/health").json()["cursor"]
    assert stats["eventsToday"] == sum(stats["eventsPerMinute"]) or has_midnight_come(alone)
    assert stats["databaseBytes"] > 4096
    assert purged(alone) == {"actions": 3, "events": len(alone.get("/api/events?limit=1000").json()["items"])}


def purged(http: httpx.Client) -> dict[str, int]:
    """The counts that follow a deletion, once its events have been removed."""
    eventually(lambda: http.get("/api/query/stats").json()["actions"] == 3)
    stats = http.get("/api/query/stats").json()
    return {name: stats[name] for name in ("actions", "events")}


# ------------------------------------------------------------------------ search


def test_an_event_is_found_as_soon_as_it_was_answered(http: httpx.Client, session_id: str) -> None:
    for number in range(20):
        cursor = act(http, session_id, text=f"needle{number}{session_id[5:]}")["cursor"]
        (item,) = search(http, f"needle{number}{session_id[5:]}")
        assert item["event"]["cursor"] == cursor


def test_what_is_found_is_the_event_and_a_snippet(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, path="src/server.js", text="x " * 500 + f"needle-{session_id} " + "y " * 500)
    (item,) = search(http, f"needle-{session_id}")
    (event,) = http.get(f"/api/sessions/{session_id}/events", params={"type": "action"}).json()["items"]
    assert item["event"] == event
    assert f"needle-{session_id}" in item["snippet"]
    assert len(item["snippet"]) < 500


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("src/server.js", ["src/server.js", "server.js", "server", "SRC/SERVER.JS", "src/serv", "server.js src"]),
        ("getUserById", ["getUserById", "getuserbyid", "getUser"]),
        ("ÖBB", ["ÖBB", "öbb", "ÖB*", "obb"]),
        ("Grüße aus Köln", ["grüße", "KÖLN", "Grüße Köln", "Köln Grüße"]),
        ("дом 東京 ☃", ["дом", "ДОМ", "東京"]),
        ("--force -x user@example.com", ["--force", "user@example.com", "-x"]),
        ("a_snake_case_name", ["a_snake_case_name", "a_snake"]),
        ('say "hello" (twice)*', ['"hello"', "(twice)", "twice)*", '"hello', "say*"]),
    ],
    ids=str,
)
def test_words_are_found_as_people_write_them(
    http: httpx.Client, session_id: str, text: str, queries: list[str]
) -> None:
    act(http, session_id, text=text)
    for query in queries:
        assert session_id in found(http, query, sessionId=session_id), query


def test_every_kind_of_event_is_found(http: httpx.Client, session_id: str) -> None:
    word = "needle" + session_id.replace("-", "")
    http.put(f"/api/sessions/{session_id}", json={"userId": "u", "initial": {"input": {"prompt": f"1 {word}"}}})
    act(http, session_id, deep={"list": [{"text": word}]})
    http.post(f"/api/actions/{session_id}/responses", json={"type": "tool_result", "output": word})
    http.patch(f"/api/state/{session_id}", json={"currentStep": word})
    http.post(f"/api/state/{session_id}/goals", json={"description": word})
    http.post(f"/api/sessions/{session_id}/finalize", json={"outcome": word})
    types = {item["event"]["type"] for item in search(http, word)}
    assert types == {"session_created", "action", "response", "state_updated", "goal_added", "session_finalized"}
    assert [item["event"]["type"] for item in search(http, word, type="goal_added")] == ["goal_added"]
    assert len(search(http, word, type=["goal_added", "action"])) == 2
    assert len(search(http, word, limit=2)) == 2


def test_numbers_are_found_and_other_words_are_not(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, lines=4217, text="present")
    assert found(http, "4217", sessionId=session_id) == [session_id]
    assert found(http, "present", sessionId=session_id) == [session_id]
    assert found(http, "absent", sessionId=session_id) == []
    assert found(http, "present absent", sessionId=session_id) == []
    assert found(http, "present", sessionId=f"{session_id}-other") == []
    assert found(http, "ent", sessionId=session_id) == []


def test_the_best_comes_first(http: httpx.Client, session_id: str) -> None:
    word = "needle" + session_id.replace("-", "")
    act(http, session_id, text=word + " and a lot of other words" * 20)
    best = act(http, session_id, text=word)["cursor"]
    assert search(http, word)[0]["event"]["cursor"] == best


ODD = (
    "", " ", '"', '""', "'", "*", "a*b", "^a", "-a", "+a", "a AND", "OR", "NOT", "NEAR(a b)", "NEAR/2", "text:a",
    "{a}:b", "(", ")", "((", "\0", "a\0b", "\x1b", "😀", "\u202e", "%", "_", "\\", ";--", "a" * 1000, '" OR 1=1',
    "\ufeff", "1e999",
)  # fmt: skip


@pytest.mark.parametrize("q", ODD, ids=repr)
def test_nothing_that_is_asked_is_an_error(http: httpx.Client, session_id: str, q: str) -> None:
    act(http, session_id)
    search(http, q)


@given(q=st.one_of(st.text(max_size=60), st.text(alphabet="\"*^-+():{}\\' \0" + string.ascii_uppercase, max_size=60)))
@settings(
    max_examples=examples(100),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_text_at_all_is_an_error(http: httpx.Client, q: str) -> None:
    search(http, q)


def test_a_long_question_is_refused(http: httpx.Client) -> None:
    assert_problem(http.get("/api/query/search", params={"q": "a" * 1001}), 422, "$.q")
    for limit in ("0", "x", "9" * 30):
        assert_problem(http.get("/api/query/search", params={"q": "a", "limit": limit}), 422, "$.limit")


def test_what_came_in_one_batch_is_found(http: httpx.Client, session_id: str) -> None:
    word = "needle" + session_id.replace("-", "")
    line = {"type": "action", "sessionId": session_id, "data": {"type": "note", "text": "hay"}}
    last = line | {"data": {"type": "note", "text": word}}
    content = "\n".join(json.dumps(each) for each in [line] * 2000 + [last])
    http.post("/api/events", content=content, headers={"content-type": "application/x-ndjson"}).raise_for_status()
    assert found(http, word) == [session_id]
