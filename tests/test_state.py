"""The state of a session: the document, its history, its goals and its agents."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.problems import assert_problem

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MERGE_PATCH = {"content-type": "application/merge-patch+json"}
NEW_STATE = {
    "$schema": "session-state-v1",
    "version": 1,
    "phase": "initialization",
    "currentStep": None,
    "goals": [],
    "priorities": {"current": None, "queue": [], "blocked": []},
    "expectedOutcome": {},
    "agents": {"spawned": [], "active": [], "completed": []},
    "mcp": {"swarm": {}, "memory": {"keys": []}},
    "workspace": {"cwd": "/workspace", "filesCreated": [], "filesModified": [], "gitStatus": {}},
    "errors": [],
}

# ------------------------------------------------------------------ what is asked


@pytest.fixture
def at(http: httpx.Client, session_id: str) -> str:
    """The path of the state of a session that has just been created."""
    http.put(f"/api/sessions/{session_id}", json={"userId": "test-user-alice"}).raise_for_status()
    return f"/api/state/{session_id}"


def state(http: httpx.Client, at: str) -> Any:
    answer = http.get(at)
    assert answer.status_code == 200, answer.text
    return answer.json()


def merge(http: httpx.Client, at: str, document: Any, headers: Any = None) -> httpx.Response:
    return http.patch(at, json=document, headers=headers)


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["success"] is True
    assert type(body["cursor"]) is int
    assert isinstance(body["eventId"], str)
    return body


def add_goal(http: httpx.Client, at: str, **goal: Any) -> Any:
    return ok(http.post(f"{at}/goals", json={"description": "Build REST API"} | goal))["goal"]


def spawn(http: httpx.Client, at: str, **agent: Any) -> Any:
    return ok(http.post(f"{at}/agents", json={"type": "backend-dev"} | agent))


def history(http: httpx.Client, at: str, **query: Any) -> Any:
    answer = http.get(f"{at}/history", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -------------------------------------------------------------------- the document


def test_a_new_state_is_the_one_of_the_contract(http: httpx.Client, at: str) -> None:
    found = state(http, at)
    assert TIME.fullmatch(found.pop("timestamp"))
    assert found == NEW_STATE


def test_the_etag_is_the_version(http: httpx.Client, at: str) -> None:
    assert http.get(at).headers["etag"] == '"1"'
    assert ok(merge(http, at, {"phase": "a"}))["version"] == 2
    assert http.get(at).headers["etag"] == '"2"'
    assert state(http, at)["version"] == 2


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": {"b": None}}, {"a": {"b": None}}),
    ],
    ids=str,
)
def test_a_patch_merges_deeply(http: httpx.Client, at: str, before: Any, patch: Any, after: Any) -> None:
    ok(merge(http, at, {"own": before}))
    ok(merge(http, at, {"own": patch}))
    assert state(http, at)["own"] == after


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [  # RFC 7396, appendix A, as far as the target is a member of an object
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
    ids=str,
)
def test_a_merge_patch_is_that_of_rfc_7396(http: httpx.Client, at: str, before: Any, patch: Any, after: Any) -> None:
    ok(merge(http, at, {"own": before}))
    ok(merge(http, at, {"own": patch}, MERGE_PATCH))
    assert state(http, at)["own"] == after


def test_the_event_says_how_the_state_was_changed(http: httpx.Client, at: str) -> None:
    ok(merge(http, at, {"a": {"b": None}}))
    ok(merge(http, at, {"a": None}, MERGE_PATCH))
    deep, removed = history(http, at)["items"]
    assert deep["type"] == removed["type"] == "state_updated"
    assert (deep["data"], removed["data"]) == ({"a": {"b": None}}, {"a": None})
    assert "patch" not in deep
    assert removed["patch"] == "merge-patch"


def test_version_and_timestamp_belong_to_the_store(http: httpx.Client, at: str) -> None:
    for headers in (None, MERGE_PATCH):
        before = state(http, at)["version"]
        ok(merge(http, at, {"version": 99, "timestamp": "never"}, headers))
        found = state(http, at)
        assert found["version"] == before + 1
        assert TIME.fullmatch(found["timestamp"])
    ok(merge(http, at, {"version": None, "timestamp": None}, MERGE_PATCH))
    assert state(http, at)["version"] == 4


def test_the_time_of_a_change_can_be_said_in_a_header(http: httpx.Client, at: str) -> None:
    ok(merge(http, at, {"phase": "a"}, {"X-Timestamp": "2026-02-13T21:59:12+01:00"}))
    assert state(http, at)["timestamp"] == "2026-02-13T20:59:12.000Z"
    (event,) = history(http, at)["items"]
    assert event["timestamp"] == "2026-02-13T20:59:12.000Z" < event["receivedAt"]


def test_the_members_of_a_state_are_its_own_whatever_their_names(http: httpx.Client, at: str) -> None:
    own = {"eventId": "not an id!", "seq": 7, "cursor": "x", "receivedAt": 1, "sessionId": "..", "patch": "replace"}
    ok(merge(http, at, own))
    found = state(http, at)
    assert {name: found[name] for name in own} == own


def test_a_state_may_be_made_of_anything(http: httpx.Client, at: str) -> None:
    odd = {"goals": "none", "agents": 5, "phase": [], "currentStep": {}, "workspace": None, "": "", "a.b": 1}
    ok(merge(http, at, odd))
    found = state(http, at)
    assert {name: found[name] for name in odd} == odd
    assert add_goal(http, at)["id"] == "goal-1"
    assert spawn(http, at)["agentId"] == "agent-1"
    found = state(http, at)
    assert [goal["id"] for goal in found["goals"]] == ["goal-1"]
    assert found["agents"]["active"] == ["agent-1"]


def test_a_state_of_a_session_that_is_not_there_answers_404(http: httpx.Client, session_id: str) -> None:
    for path in ("", "/history", "?at=1"):
        assert_problem(http.get(f"/api/state/{session_id}{path}"), 404)
    assert_problem(http.get("/api/state/a..b"), 404)
    assert_problem(merge(http, "/api/state/a..b", {}), 404)


def test_a_change_of_state_creates_a_session(http: httpx.Client, session_id: str) -> None:
    assert ok(merge(http, f"/api/state/{session_id}", {"phase": "a"}))["version"] == 2
    assert state(http, f"/api/state/{session_id}")["phase"] == "a"
    assert http.get(f"/api/sessions/{session_id}").json()["metadata"]["userId"] == "unknown"


def test_a_state_that_is_no_object_is_refused(http: httpx.Client, at: str) -> None:
    for content in (b"[]", b'"text"', b"null", b"5"):
        assert_problem(http.patch(at, content=content, headers={"content-type": "application/json"}), 422, "$")
        assert_problem(http.patch(at, content=content, headers=MERGE_PATCH), 422, "$")
    assert_problem(http.patch(at, content=b"{", headers=MERGE_PATCH), 400)
    assert_problem(http.patch(at, content=b"{}", headers={"content-type": "application/json-patch+json"}), 415)
    assert state(http, at)["version"] == 1


# ------------------------------------------------------------------------ If-Match


def test_if_match_lets_through_who_has_the_newest(http: httpx.Client, at: str) -> None:
    tag = http.get(at).headers["etag"]
    ok(merge(http, at, {"n": 1}, {"If-Match": tag}))
    assert_problem(merge(http, at, {"n": 2}, {"If-Match": tag}), 412)
    assert state(http, at)["n"] == 1


@pytest.mark.parametrize("value", ["*", '"2"', '"1", "2"', '"x","2"'])
def test_if_match_with_the_version_among_its_tags_passes(http: httpx.Client, at: str, value: str) -> None:
    ok(merge(http, at, {"n": 1}))
    assert ok(merge(http, at, {"n": 2}, {"If-Match": value}))["version"] == 3


@pytest.mark.parametrize("value", ['"1"', '"3"', "2", 'W/"2"', '"two"', "", '"02x"', '"99999999999999999999999"'])
def test_if_match_without_the_version_answers_412(http: httpx.Client, at: str, value: str) -> None:
    ok(merge(http, at, {"n": 1}))
    assert_problem(merge(http, at, {"n": 2}, {"If-Match": value}), 412)
    assert state(http, at)["n"] == 1


@pytest.mark.parametrize("value", ["*", '"1"', '"7"'])
def test_if_match_makes_no_session(http: httpx.Client, session_id: str, value: str) -> None:
    path = f"/api/state/{session_id}-gone"
    assert_problem(merge(http, path, {"n": 1}, {"If-Match": value}), 404)
    assert http.get(path).status_code == 404
    ok(merge(http, path, {"n": 1}))


def test_of_many_who_had_the_same_version_one_wins(http: httpx.Client, at: str) -> None:
    answers = [merge(http, at, {"winner": n}, {"If-Match": '"1"'}) for n in range(5)]
    assert [answer.status_code for answer in answers] == [200, 412, 412, 412, 412]
    assert state(http, at)["winner"] == 0


def test_a_retry_of_a_conditional_change_is_answered_as_the_first_time(http: httpx.Client, at: str) -> None:
    headers = {"If-Match": '"1"', "Idempotency-Key": "change-1"}
    first = ok(merge(http, at, {"n": 1}, headers))
    ok(merge(http, at, {"n": 2}))
    assert ok(merge(http, at, {"n": 1}, headers)) == first
    assert state(http, at)["n"] == 2


# ------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    "write",
    [
        lambda http, at, key: http.patch(at, json={"n": 1}, headers={"Idempotency-Key": key}),
        lambda http, at, key: http.patch(at, json={"n": None}, headers={"Idempotency-Key": key, **MERGE_PATCH}),
        lambda http, at, key: http.post(f"{at}/goals", json={"description": "d", "eventId": key}),
        lambda http, at, key: http.post(f"{at}/goals", json={"description": "d", "id": "mine", "eventId": key}),
        lambda http, at, key: http.patch(f"{at}/goals/goal-1", json={"status": "completed", "eventId": key}),
        lambda http, at, key: http.post(f"{at}/agents", json={"type": "t", "eventId": key}),
        lambda http, at, key: http.post(f"{at}/agents", json={"type": "t", "agentId": "mine", "eventId": key}),
        lambda http, at, key: http.patch(f"{at}/agents/agent-1", json={"status": "running", "eventId": key}),
        lambda http, at, key: http.post(f"{at}/agents/agent-1/complete", json={"result": 5, "eventId": key}),
        lambda http, at, key: http.post(f"{at}/agents/agent-1/complete", headers={"Idempotency-Key": key}),
    ],
    ids=[
        "merge",
        "merge patch",
        "goal",
        "goal with an id",
        "change of a goal",
        "agent",
        "agent with an id",
        "change of an agent",
        "end of an agent",
        "end without a body",
    ],
)
def test_a_retry_is_answered_as_the_first_time(
    http: httpx.Client, at: str, write: Callable[[httpx.Client, str, str], httpx.Response]
) -> None:
    add_goal(http, at)
    spawn(http, at)
    first = ok(write(http, at, "once"))
    assert first["eventId"] == "once"
    ok(merge(http, at, {"goals": [{"id": "goal-1", "status": "changed since"}], "n": "changed since"}))
    ok(http.patch(f"{at}/agents/agent-1", json={"status": "failed", "task": "changed since"}))
    before = state(http, at)
    assert ok(write(http, at, "once")) == first
    assert state(http, at) == before
    other = http.patch(at, json={"other": "content"}, headers={"Idempotency-Key": "once"})
    assert_problem(other, 422, "$.eventId")
    assert state(http, at) == before


# --------------------------------------------------------------------------- goals


def test_goals_are_numbered_and_pending(http: httpx.Client, at: str) -> None:
    first = add_goal(http, at, description="Build REST API", priority="high", note={"kept": True})
    assert first == {
        "id": "goal-1",
        "description": "Build REST API",
        "priority": "high",
        "status": "pending",
        "note": {"kept": True},
    }
    second = add_goal(http, at)
    assert (second["id"], second["status"], second["priority"]) == ("goal-2", "pending", "medium")
    assert state(http, at)["goals"] == [first, second]


def test_a_goal_may_bring_its_own_id(http: httpx.Client, at: str) -> None:
    assert add_goal(http, at, id="goal-2")["id"] == "goal-2"
    assert add_goal(http, at)["id"] == "goal-3"  # goal-2 is taken
    assert add_goal(http, at, id="mine", status="in_progress")["status"] == "in_progress"
    assert_problem(http.post(f"{at}/goals", json={"description": "again", "id": "mine"}), 409)
    assert len(state(http, at)["goals"]) == 3


def test_completing_a_goal_says_when(http: httpx.Client, at: str) -> None:
    add_goal(http, at)
    goal = ok(http.patch(f"{at}/goals/goal-1", json={"status": "completed", "note": 1}))["goal"]
    assert TIME.fullmatch(goal["completedAt"])
    assert (goal["status"], goal["note"], goal["description"]) == ("completed", 1, "Build REST API")
    assert state(http, at)["goals"] == [goal]
    later = ok(http.patch(f"{at}/goals/goal-1", json={"note": 2}))["goal"]
    assert later == goal | {"note": 2}
    again = ok(http.patch(f"{at}/goals/goal-1", json={"status": "in_progress"}))["goal"]
    assert "completedAt" not in again


def test_a_goal_is_completed_at_the_callers_time(http: httpx.Client, at: str) -> None:
    add_goal(http, at)
    body = {"status": "completed", "timestamp": "2026-02-13T21:00:00+01:00"}
    goal = ok(http.patch(f"{at}/goals/goal-1", json=body))["goal"]
    assert goal["completedAt"] == "2026-02-13T20:00:00.000Z"
    assert "timestamp" not in goal


def test_a_goal_keeps_its_id(http: httpx.Client, at: str) -> None:
    add_goal(http, at)
    goal = ok(http.patch(f"{at}/goals/goal-1", json={"id": "goal-9", "goalId": "goal-8", "note": 1}))["goal"]
    assert goal["id"] == "goal-1"
    assert "goalId" not in goal


@pytest.mark.parametrize("own", [[None], {"a": 1}, "goal-8", 7])
def test_a_member_goal_id_of_a_new_goal_is_the_callers_own(http: httpx.Client, at: str, own: Any) -> None:
    assert add_goal(http, at, goalId=own)["id"] == "goal-1"
    again = {"id": "goal-1", "description": "again", "goalId": own}
    events = json.dumps({"sessionId": at.split("/")[-1], "type": "goal_added", "data": again})
    answer = http.post("/api/events", content=events, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["accepted"] == 1, answer.text
    assert [goal["description"] for goal in state(http, at)["goals"]] == ["again"]


def test_a_goal_that_is_not_there_answers_404(http: httpx.Client, at: str, session_id: str) -> None:
    add_goal(http, at)
    for goal in ("goal-2", "a..b", "%00", "GOAL-1"):
        assert_problem(http.patch(f"{at}/goals/{goal}", json={"status": "completed"}), 404)
    assert_problem(http.patch(f"/api/state/{session_id}-other/goals/goal-1", json={}), 404)
    assert_problem(http.get(f"/api/state/{session_id}-other"), 404)


@pytest.mark.parametrize(
    ("goal", "path"),
    [
        ({}, "$"),
        ({"description": 5}, "$.description"),
        ({"description": "d", "id": "../x"}, "$.id"),
        ({"description": "d", "id": 1}, "$.id"),
        ({"description": "d", "status": 5}, "$.status"),
        ({"description": "d", "priority": 5}, "$.priority"),
    ],
    ids=str,
)
def test_a_goal_that_is_not_valid_answers_422(http: httpx.Client, at: str, goal: Any, path: str) -> None:
    assert_problem(http.post(f"{at}/goals", json=goal), 422, path)
    assert state(http, at)["goals"] == []


# -------------------------------------------------------------------------- agents


def test_a_spawned_agent_is_answered_with_every_member(http: httpx.Client, at: str) -> None:
    answer = spawn(http, at, type="backend-dev", task="Implement authentication", subsession="child-1", own=[1])
    agent = {name: answer[name] for name in ("agentId", "type", "task", "status", "spawnedAt", "subsession", "own")}
    assert TIME.fullmatch(agent["spawnedAt"])
    assert agent == {
        "agentId": "agent-1",
        "type": "backend-dev",
        "task": "Implement authentication",
        "status": "spawned",
        "spawnedAt": agent["spawnedAt"],
        "subsession": "child-1",
        "own": [1],
    }
    assert state(http, at)["agents"] == {"spawned": [agent], "active": ["agent-1"], "completed": []}


def test_an_agent_may_bring_its_own_id(http: httpx.Client, at: str) -> None:
    assert spawn(http, at, agentId="worker", parentAgentId="agent-0")["agentId"] == "worker"
    assert_problem(http.post(f"{at}/agents", json={"type": "t", "agentId": "worker"}), 409)
    agents = state(http, at)["agents"]
    assert agents["spawned"][0]["parentAgentId"] == "agent-0"
    assert agents["active"] == ["worker"]


@pytest.mark.parametrize(
    ("body", "status", "result"),
    [
        (None, "completed", None),
        ({}, "completed", None),
        ({"result": {"files": 3}}, "completed", {"files": 3}),
        ({"result": "no", "status": "failed"}, "failed", "no"),
        ({"status": "cancelled"}, "cancelled", None),
    ],
    ids=str,
)
def test_a_completed_agent_goes_from_active_to_completed(
    http: httpx.Client, at: str, body: Any, status: str, result: Any
) -> None:
    spawn(http, at)
    spawn(http, at)
    answer = http.post(f"{at}/agents/agent-1/complete", **({} if body is None else {"json": body}))
    agent = ok(answer)["agent"]
    assert (agent["agentId"], agent["status"], agent.get("result")) == ("agent-1", status, result)
    assert TIME.fullmatch(agent["completedAt"])
    agents = state(http, at)["agents"]
    assert (agents["active"], agents["completed"]) == (["agent-2"], ["agent-1"])
    assert agents["spawned"][0] == agent


def test_an_agent_that_is_told_of_once_it_is_done_has_an_end(http: httpx.Client, at: str) -> None:
    body = {"type": "reviewer", "status": "failed", "timestamp": "2026-02-13T21:00:00Z"}
    ok(http.post(f"{at}/agents", json=body))
    ok(http.post(f"{at}/agents", json=body | {"completedAt": "2026-02-13T21:05:00.000Z"}))
    agents = state(http, at)["agents"]
    assert [agent["completedAt"][11:] for agent in agents["spawned"]] == ["21:00:00.000Z", "21:05:00.000Z"]
    assert (agents["active"], agents["completed"]) == ([], ["agent-1", "agent-2"])


def test_an_updated_agent_stays_where_it_is(http: httpx.Client, at: str) -> None:
    spawn(http, at, task="first")
    agent = ok(http.patch(f"{at}/agents/agent-1", json={"status": "running", "task": "second", "result": 1}))["agent"]
    assert (agent["status"], agent["task"], agent["result"], agent["type"]) == ("running", "second", 1, "backend-dev")
    agents = state(http, at)["agents"]
    assert agents == {"spawned": [agent], "active": ["agent-1"], "completed": []}


def test_an_agent_that_is_not_there_answers_404(http: httpx.Client, at: str, session_id: str) -> None:
    spawn(http, at)
    for agent in ("agent-2", "a..b", "AGENT-1"):
        assert_problem(http.patch(f"{at}/agents/{agent}", json={}), 404)
        assert_problem(http.post(f"{at}/agents/{agent}/complete", json={}), 404)
    assert_problem(http.post(f"/api/state/{session_id}-other/agents/agent-1/complete"), 404)
    assert_problem(http.get(f"/api/state/{session_id}-other"), 404)


@pytest.mark.parametrize(
    ("agent", "path"),
    [
        ({}, "$"),
        ({"type": 5}, "$.type"),
        ({"type": "t", "agentId": "../x"}, "$.agentId"),
        ({"type": "t", "parentAgentId": ""}, "$.parentAgentId"),
        ({"type": "t", "subsession": "a b"}, "$.subsession"),
    ],
    ids=str,
)
def test_an_agent_that_is_not_valid_answers_422(http: httpx.Client, at: str, agent: Any, path: str) -> None:
    assert_problem(http.post(f"{at}/agents", json=agent), 422, path)
    assert state(http, at)["agents"]["spawned"] == []


def test_an_end_that_there_is_not_answers_422(http: httpx.Client, at: str) -> None:
    spawn(http, at)
    assert_problem(http.post(f"{at}/agents/agent-1/complete", json={"status": "running"}), 422, "$.status")
    assert state(http, at)["agents"]["active"] == ["agent-1"]


# ------------------------------------------------------------------------- history


def test_history_is_every_event_that_changed_the_state_and_no_other(http: httpx.Client, at: str) -> None:
    session = at.rpartition("/")[2]
    ok(merge(http, at, {"phase": "a"}))
    http.post(f"/api/actions/{session}", json={"type": "note"}).raise_for_status()
    add_goal(http, at)
    ok(http.patch(f"{at}/goals/goal-1", json={"status": "completed"}))
    spawn(http, at)
    ok(http.patch(f"{at}/agents/agent-1", json={"status": "running"}))
    ok(http.patch(f"/api/sessions/{session}/metadata", json={"model": "m"}))
    ok(http.post(f"{at}/agents/agent-1/complete"))
    types = ["state_updated", "goal_added", "goal_updated", "agent_spawned", "agent_updated", "agent_completed"]
    page = history(http, at)
    assert [event["type"] for event in page["items"]] == types
    cursors = [event["cursor"] for event in page["items"]]
    assert page["nextAfter"] == cursors[-1]
    assert page["items"][2]["data"]["goalId"] == "goal-1"
    assert page["items"][4]["data"]["agentId"] == page["items"][5]["data"]["agentId"] == "agent-1"
    assert [event["cursor"] for event in history(http, at, order="desc", limit=2)["items"]] == cursors[:3:-1]
    assert [event["cursor"] for event in history(http, at, after=cursors[1], before=cursors[4])["items"]] == cursors[
        2:4
    ]


def test_an_end_that_is_that_of_agents_is_in_the_history_and_no_other_end(http: httpx.Client, at: str) -> None:
    session = f"/api/sessions/{at.rpartition('/')[2]}"
    ok(http.post(f"{session}/finalize"))
    spawn(http, at)
    before = state(http, at)
    cursor = ok(http.post(f"{session}/finalize"))["cursor"]
    page = history(http, at)["items"]
    assert [event["type"] for event in page] == ["agent_spawned", "session_finalized"]
    assert page[1]["data"]["cancelledAgents"] == ["agent-1"]
    assert http.get(at, params={"at": cursor}).json() == state(http, at)
    assert http.get(at, params={"at": cursor - 1}).json() == before
    assert before["agents"]["active"] == ["agent-1"]
    assert state(http, at)["agents"]["active"] == []


def test_a_state_is_given_as_it_was_at_every_cursor(http: httpx.Client, at: str) -> None:
    """Random writes; after each the state is kept, and all are asked for again at the end."""
    dice = random.Random(7)
    session = at.rpartition("/")[2]
    then = {http.get(f"/api/sessions/{session}").json()["metadata"]["lastCursor"]: http.get(at)}
    for _ in range(60):
        answer = write_anything(dice, http, at)
        assert answer.status_code in (200, 404, 409), answer.text
        if answer.status_code == 200:
            then[answer.json()["cursor"]] = http.get(at)
    assert len(then) > 30
    for cursor, answer in then.items():
        past = http.get(at, params={"at": cursor})
        assert past.content == answer.content
        assert past.headers["etag"] == answer.headers["etag"]
    last = max(then)
    assert http.get(at, params={"at": last + 1_000_000}).json() == then[last].json()
    assert_problem(http.get(at, params={"at": min(then) - 1}), 404)


def write_anything(dice: random.Random, http: httpx.Client, at: str) -> httpx.Response:
    number = dice.randint(1, 6)
    writes: list[Callable[[], httpx.Response]] = [
        lambda: merge(http, at, anything(dice)),
        lambda: merge(http, at, anything(dice), MERGE_PATCH),
        lambda: http.post(f"{at}/goals", json={"description": "d", "status": dice.choice(["pending", "completed"])}),
        lambda: http.post(f"{at}/goals", json={"description": "d", "id": f"goal-{number}"}),
        lambda: http.patch(f"{at}/goals/goal-{number}", json={"status": dice.choice(["completed", "pending"])}),
        lambda: http.post(f"{at}/agents", json={"type": "t", "agentId": f"agent-{number}"}),
        lambda: http.patch(f"{at}/agents/agent-{number}", json={"status": dice.choice(["running", "failed"])}),
        lambda: http.post(f"{at}/agents/agent-{number}/complete"),
        lambda: http.post(at.replace("state", "actions"), json={"type": "note"}),
    ]
    return dice.choice(writes)()


def anything(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    """A document that also hits what the store itself keeps in the state."""
    names = ["phase", "goals", "agents", "workspace", "spawned", "active", "a", "b", "version"]
    values: list[Callable[[], Any]] = [
        lambda: None,
        lambda: dice.randint(0, 9),
        lambda: "text",
        lambda: [{"id": "goal-1", "status": 5}, {"agentId": "agent-1"}, "goal-2"],
        lambda: anything(dice, depth + 1) if depth < 3 else {},
    ]
    return {name: dice.choice(values)() for name in dice.sample(names, dice.randint(0, 3))}


# ---------------------------------------------------------------- how large it gets


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("state", lambda http, at, text: http.patch(at, json={f"a{len(text)}-{time.time_ns()}": text})),
        ("state", lambda http, at, text: http.post(f"{at}/goals", json={"description": text})),
        ("state", lambda http, at, text: http.post(f"{at}/agents", json={"type": "t", "task": text})),
        (
            "metadata",
            lambda http, at, text: http.patch(
                f"{at.replace('state', 'sessions')}/metadata", json={f"a{time.time_ns()}": text}
            ),
        ),
    ],
    ids=["state", "goals", "agents", "metadata"],
)
def test_a_document_grows_to_a_bound(http: httpx.Client, at: str, name: str, change: Callable[..., Any]) -> None:
    """Every change reads and writes all of it: without a bound, a few of them hold everybody up for seconds."""
    statuses = [change(http, at, "x" * 1_000_000).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [413] * 2
    refusal = change(http, at, "y")
    assert_problem(refusal, 413)
    assert f"The {name} of this session" in refusal.json()["detail"]
    session_id = at.rsplit("/", 1)[1]
    assert http.post(f"/api/actions/{session_id}", json={"type": "x"}).status_code == 200
    assert http.post(f"/api/sessions/{session_id}/finalize", json={}).status_code == 200


def test_a_state_that_has_grown_too_large_can_be_replaced(http: httpx.Client, at: str) -> None:
    for number in range(5):
        http.patch(at, json={f"a{number}": "x" * 1_000_000}).raise_for_status()
    assert http.patch(at, json={"a": 1}).status_code == 413
    line = {"type": "state_updated", "sessionId": at.rsplit("/", 1)[1], "patch": "replace", "data": {"phase": "new"}}
    ndjson = {"content-type": "application/x-ndjson"}
    assert http.post("/api/events", content=json.dumps(line), headers=ndjson).json()["accepted"] == 1
    assert http.patch(at, json={"a": 1}).status_code == 200
    assert (http.get(at).json()["phase"], http.get(at).json()["a"]) == ("new", 1)
