"""What Claude Code really sends, in any order and any number of times, reads as what really happened."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

import hook_agent
from sessionstore.adapters import claude_code
from sessionstore.adapters.claude_code import claude_code_events, events_of_payload
from tests.repeats import marked
from tests.test_hook_mapping import CORPUS, NATURALLY_KEYED, TABLE, hook, lost, names, rest

Json = dict[str, Any]

HOOKS = "/api/hooks/claude-code"
NDJSON = {"content-type": "application/x-ndjson"}
SEEDS = (1, 2, 3)
ODD_MEMBERS = """
    prompt tool_use_id tool_name tool_input tool_response duration_ms error message notification_type source model cwd
    last_assistant_message agent_id agent_type task_id task_subject task_description elicitation_id reason type seq
    attention metadata initial status tags userId payload data
"""
ODD_VALUES: tuple[object, ...] = (None, 5, -0.5, True, "", "x", "+5", "a/b", [], [[1]], {}, {"a": {"reason": 7}}, 2**70)


class Delivery(NamedTuple):
    """One payload as a client delivers it: with a key of its own, unless that is empty, and when it happened."""

    key: str
    timestamp: str
    payload: Json


def corpus(prefix: str) -> list[Delivery]:
    """Every real payload, in the order in which they came, in sessions of which no other test knows."""
    lines = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    for line in lines:
        line["payload"]["session_id"] = prefix + line["payload"]["session_id"]
    return [Delivery(f"hook-{number}", utc(line["t"]), line["payload"]) for number, line in enumerate(lines)]


def utc(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def shuffled(deliveries: Iterable[Delivery], seed: int) -> list[Delivery]:
    order = list(deliveries)
    random.Random(seed).shuffle(order)
    return order


def by_session(deliveries: Iterable[Delivery]) -> dict[str, list[Json]]:
    sessions = defaultdict(list)
    for delivery in deliveries:
        sessions[delivery.payload["session_id"]].append(delivery.payload)
    return sessions


def deliver(http: httpx.Client, delivery: Delivery) -> httpx.Response:
    headers = {"Idempotency-Key": delivery.key, "X-Timestamp": delivery.timestamp}
    return http.post(HOOKS, json=delivery.payload, headers=headers)


def deliver_all(http: httpx.Client, deliveries: Iterable[Delivery]) -> None:
    """One after the other on one connection, with a client that costs less than the server."""
    connection = HTTPConnection(http.base_url.host, http.base_url.port or 80, timeout=30)
    with closing(connection):
        for delivery in deliveries:
            headers = {"Content-Type": "application/json"}
            if delivery.key:
                headers |= {"Idempotency-Key": delivery.key, "X-Timestamp": delivery.timestamp}
            connection.request("POST", HOOKS, json.dumps(delivery.payload), headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b""), delivery


def tell(http: httpx.Client, session_id: str, name: str, **members: object) -> None:
    """One hook without a key, as an http hook of Claude Code itself posts it."""
    answer = http.post(HOOKS, json={**hook(name, **members), "session_id": session_id})
    assert (answer.status_code, answer.content) == (200, b""), answer.text


def lines_of(deliveries: Iterable[Delivery], **given: str) -> str:
    """The batch that the client makes of them."""
    return "".join(
        json.dumps(event) + "\n"
        for key, timestamp, payload in deliveries
        for event in events_of_payload(payload, event_id=key, timestamp=timestamp, **given)
    )


def post_batch(http: httpx.Client, lines: str) -> Json:
    answer: Json = http.post("/api/events", content=lines, headers=NDJSON).raise_for_status().json()
    return answer


def cursor_of(http: httpx.Client) -> int:
    cursor: int = http.get("/health").json()["cursor"]
    return cursor


def events_of(http: httpx.Client, session_id: str) -> list[Json]:
    events: list[Json] = http.get(f"/api/sessions/{session_id}/events", params={"limit": 1000}).json()["items"]
    return events


def session_of(http: httpx.Client, session_id: str) -> Json:
    session: Json = http.get(f"/api/sessions/{session_id}").raise_for_status().json()
    return session


def metadata_of(http: httpx.Client, session_id: str) -> Json:
    metadata: Json = session_of(http, session_id)["metadata"]
    return metadata


@pytest.fixture(scope="module")
def replayed(http: httpx.Client) -> list[Delivery]:
    """The whole corpus, delivered once, in order."""
    deliveries = corpus("once-")
    deliver_all(http, deliveries)
    return deliveries


# ---------------------------------------------------------- nothing lost or added


def test_every_payload_becomes_the_event_that_the_contract_says(http: httpx.Client, replayed: list[Delivery]) -> None:
    stored = {e["eventId"]: e for session_id in by_session(replayed) for e in events_of(http, session_id)}
    for key, timestamp, payload in replayed:
        event = stored.pop(key)
        event_type, data = TABLE[payload["hook_event_name"]](payload)
        if event["type"] == "session_resumed":
            event["type"] = "session_created"
        assert event["type"] == event_type, payload
        event["data"].get("metadata", {}).pop("continues", None)
        given = {name: value for name, value in data.items() if event_type != "session_finalized" or name != "status"}
        assert {name: event["data"].get(name) for name in given} == given
        assert (event["sessionId"], event["timestamp"]) == (payload["session_id"], timestamp)
        assert event["agentId"] == payload.get("agent_id")
        assert lost(payload, event) == []
    begun = [event["data"] for event in stored.values() if event["type"] == "session_created"]
    assert [data for data in begun if rest(data, "sessionId", "metadata") != {"initial": {}, "implicit": True}] == []
    assert all(
        data["metadata"] == {"cwd": data["metadata"]["cwd"], "where": {"cwd": data["metadata"]["cwd"]}}
        for data in begun
    )
    tasks = [event for event in stored.values() if event["type"] != "session_created"]
    assert {event["type"] for event in tasks} == {"agent_updated"}
    assert all(event["eventId"].endswith("-task") and event["data"]["task"] for event in tasks)
    began_otherwise = [s for s in by_session(replayed).values() if s[0]["hook_event_name"] != "SessionStart"]
    assert len(begun) == len(began_otherwise) > 0


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_delivering_all_of_it_again_changes_nothing(http: httpx.Client, replayed: list[Delivery], seed: int) -> None:
    def everything() -> tuple[int, Json, list[Json]]:
        stats = http.get("/api/query/stats").json()
        del stats["databaseBytes"], stats["eventsPerMinute"]
        return cursor_of(http), stats, [session_of(http, session_id) for session_id in by_session(replayed)]

    before = everything()
    deliver_all(http, shuffled(replayed, seed))
    assert everything() == before


def test_a_key_that_comes_back_with_another_payload_is_refused(http: httpx.Client, replayed: list[Delivery]) -> None:
    prompt = next(d for d in replayed if d.payload["hook_event_name"] == "UserPromptSubmit")
    cursor = cursor_of(http)
    answer = deliver(http, prompt._replace(payload=prompt.payload | {"prompt": "Something else"}))
    assert answer.status_code == 422
    assert prompt.key in answer.json()["detail"]
    assert cursor_of(http) == cursor


def test_without_keys_what_names_itself_is_recognised(http: httpx.Client) -> None:
    deliveries = [delivery._replace(key="") for delivery in corpus("keyless-")]
    deliver_all(http, deliveries)
    named = [delivery for delivery in deliveries if delivery.payload["hook_event_name"] in NATURALLY_KEYED]
    assert {"PreToolUse", "PostToolUse", "SubagentStart"} <= {d.payload["hook_event_name"] for d in named}
    cursor = cursor_of(http)
    deliver_all(http, shuffled(named, seed=1))
    assert cursor_of(http) == cursor

    prompt = next(d for d in deliveries if d.payload["hook_event_name"] == "UserPromptSubmit")
    deliver_all(http, [prompt])
    assert cursor_of(http) == cursor + 1


CALL: Json = {"tool_name": "Bash", "tool_use_id": "toolu_01AbCdEfGhIjKlMn", "tool_input": {"command": "ls"}}


@pytest.mark.parametrize(
    "more", [{}, {"slug": "x"}, {"permission_mode": "plan", "effort": None}, {"cwd": "/elsewhere"}]
)
@pytest.mark.parametrize("given", [CALL, CALL | {"tool_use_id": "call_0"}, {"agent_id": "a5b6727b527703f7d"}])
def test_the_same_told_in_other_words_is_one(http: httpx.Client, session_id: str, given: Json, more: Json) -> None:
    name = "SubagentStart" if "agent_id" in given else "PreToolUse"
    tell(http, session_id, name, **given)
    cursor = cursor_of(http)
    tell(http, session_id, name, **given, **more)
    assert cursor_of(http) == cursor
    tell(http, session_id, name, **{member: f"{it}x" if "_id" in member else it for member, it in given.items()})
    assert cursor_of(http) == cursor + 1


def test_what_a_posted_hook_and_the_client_tell_is_one(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "PreToolUse", **CALL)
    payload = hook("PreToolUse", **CALL, slug="x") | {"session_id": session_id}
    (event,) = claude_code_events(payload, timestamp="2026-02-13T20:59:12.345Z")
    assert post_batch(http, json.dumps(event))["duplicates"] == 1


def test_another_ids_content_is_compared_as_ever(http: httpx.Client, session_id: str) -> None:
    for event_id, data in (("PreToolUse-x1", {}), ("lg.call-x1", {}), ("mine-1", {"hook_event_name": "Stop"})):
        line = {"type": "action", "sessionId": session_id, "eventId": event_id, "data": {"type": "a", **data}}
        assert post_batch(http, json.dumps(line))["accepted"] == 1
        line["data"] = {"type": "b", **data}
        (rejected,) = post_batch(http, json.dumps(line))["rejected"]
        assert rejected["status"] == 422


def test_a_cleared_conversation_says_which_it_continues(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SessionStart", source="startup", cwd=f"/{session_id}")
    tell(http, session_id, "SessionEnd", reason="clear", cwd=f"/{session_id}")
    for source, parent in (("clear", session_id), ("startup", None)):
        tell(http, f"{session_id}-{source}", "SessionStart", source=source, cwd=f"/{session_id}")
        assert metadata_of(http, f"{session_id}-{source}").get("continues") == parent


# ------------------------------------------------------------ sessions read true


def test_a_replayed_session_reads_as_it_went(http: httpx.Client, replayed: list[Delivery]) -> None:
    for session_id, payloads in by_session(replayed).items():
        session = session_of(http, session_id)
        names = [payload["hook_event_name"] for payload in payloads]
        metadata = session["metadata"]
        has_ended = names[-1] == "SessionEnd"
        assert metadata["status"] == (status_after(payloads) if has_ended else "active"), session_id
        assert metadata["attention"] is None
        starts = [payload["source"] for payload in payloads if payload["hook_event_name"] == "SessionStart"]
        assert metadata["resumes"] == starts[1:].count("resume")
        assert (session["final"] is not None) == has_ended
        assert metadata["metrics"]["toolCalls"] == names.count("PreToolUse")
        assert metadata["metrics"]["agentsSpawned"] == names.count("SubagentStart")
        assert metadata["goals"] == names.count("TaskCreated")
        agents = session["state"]["agents"]
        assert {agent["agentId"] for agent in agents["spawned"]} == named_in(payloads, "SubagentStart", "SubagentStop")
        assert set(agents["completed"]) == named_in(payloads, "SubagentStop")


def status_after(payloads: list[Json]) -> str:
    """What has become of a session that ended: by an error, without an answer to its last prompt, or as it should."""
    said = [p["hook_event_name"] for p in payloads if not p.get("prompt", "").startswith("<") and "agent_id" not in p]
    last = next((name for name in reversed(said) if name in ("UserPromptSubmit", "Stop", "StopFailure")), "Stop")
    return {"UserPromptSubmit": "cancelled", "Stop": "completed", "StopFailure": "failed"}[last]


def named_in(payloads: list[Json], *names: str) -> set[str]:
    return {payload["agent_id"] for payload in payloads if payload["hook_event_name"] in names}


def test_the_goal_of_a_task_is_there_and_done(http: httpx.Client, replayed: list[Delivery]) -> None:
    task = next(d for d in replayed if d.payload["hook_event_name"] == "TaskCreated").payload
    end = next(d for d in replayed if d.payload["hook_event_name"] == "TaskCompleted")
    (goal,) = session_of(http, task["session_id"])["state"]["goals"]
    assert (goal["description"], goal["status"], goal["completedAt"]) == (
        task["task_subject"],
        "completed",
        end.timestamp,
    )


def test_where_a_session_began_is_in_its_metadata(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SessionStart", source="startup", model="claude-opus-5-5", cwd="/work", transcript_path="/t")
    metadata = metadata_of(http, session_id)
    assert {name: metadata[name] for name in ("source", "model", "cwd", "transcript_path")} == {
        "source": "startup",
        "model": "claude-opus-5-5",
        "cwd": "/work",
        "transcript_path": "/t",
    }
    assert metadata["userId"] == "unknown"


def test_the_user_is_the_one_in_the_header(http: httpx.Client, session_id: str) -> None:
    payload = hook("SessionStart", source="startup") | {"session_id": session_id}
    http.post(HOOKS, json=payload, headers={"X-User-Id": "alice"}).raise_for_status()
    assert metadata_of(http, session_id)["userId"] == "alice"


def test_a_session_waits_when_it_is_the_turn_of_its_user(http: httpx.Client, session_id: str) -> None:
    def reads() -> tuple[str, str | None]:
        metadata = metadata_of(http, session_id)
        return metadata["status"], (metadata["attention"] or {}).get("reason")

    bash = {"tool_name": "Bash", "tool_input": {"command": "make"}, "tool_use_id": "toolu_1"}
    read = {"tool_name": "Read", "tool_input": {"file_path": "a"}, "tool_use_id": "toolu_2"}
    tell(http, session_id, "SessionStart", source="startup")
    assert reads() == ("active", None)
    tell(http, session_id, "UserPromptSubmit", prompt="Build it")
    tell(http, session_id, "Stop", last_assistant_message="What shall I build?")
    assert reads() == ("waiting", "input")
    assert metadata_of(http, session_id)["attention"]["message"] == "What shall I build?"
    tell(http, session_id, "MessageDisplay", message_id="m", index=0, delta="What shall I build?")
    assert reads() == ("waiting", "input")
    waiting = http.get("/api/query/active").json()
    assert session_id in [session["sessionId"] for session in waiting if session["status"] == "waiting"]
    statuses = [session["status"] for session in waiting]
    assert statuses == sorted(statuses, reverse=True)

    tell(http, session_id, "UserPromptSubmit", prompt="A house")
    assert reads() == ("active", None)
    tell(http, session_id, "PreToolUse", **bash)
    tell(http, session_id, "PermissionRequest", tool_name="Bash", tool_input={"command": "make"})
    assert reads() == ("waiting", "permission")
    assert metadata_of(http, session_id)["attention"]["message"] == "Bash: make"
    tell(http, session_id, "Notification", notification_type="permission_prompt", message="Claude needs you")
    tell(http, session_id, "PostToolUse", **read, tool_response="text")
    assert reads() == ("waiting", "permission")
    tell(http, session_id, "PostToolUse", **bash, tool_response={"stdout": ""})
    assert reads() == ("active", None)

    tell(http, session_id, "Notification", notification_type="auth_success", message="Logged in")
    assert reads() == ("active", None)
    tell(http, session_id, "Notification", notification_type="idle_prompt", message="Claude is waiting")
    assert reads() == ("waiting", "input")
    tell(http, session_id, "PostToolUseFailure", **read, error="gone")
    assert reads() == ("active", None)

    tell(http, session_id, "Elicitation", mcp_server_name="forms", message="Which colour?")
    assert reads() == ("waiting", "question")
    tell(http, session_id, "ElicitationResult", mcp_server_name="forms", action="accept")
    assert reads() == ("active", None)


def test_a_session_ends_and_comes_back(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SessionStart", source="startup")
    tell(http, session_id, "Stop", last_assistant_message="Done")
    tell(http, session_id, "SessionEnd", reason="prompt_input_exit")
    session = session_of(http, session_id)
    assert (session["metadata"]["status"], session["metadata"]["attention"]) == ("completed", None)
    assert (session["final"]["status"], session["final"]["reason"]) == ("success", "prompt_input_exit")

    tell(http, session_id, "Stop", last_assistant_message="Done, again")
    tell(http, session_id, "Notification", notification_type="idle_prompt", message="Claude is waiting")
    assert metadata_of(http, session_id)["status"] == "waiting"

    tell(http, session_id, "SessionStart", source="resume")
    session = session_of(http, session_id)
    assert (session["metadata"]["status"], session["metadata"]["resumes"], session["final"]) == ("active", 1, None)
    assert session["metadata"]["source"] == "resume"
    tell(http, session_id, "SessionEnd", reason="other")
    assert metadata_of(http, session_id)["status"] == "completed"
    types = [event["type"] for event in events_of(http, session_id) if event["type"].startswith("session_")]
    assert types == ["session_created", "session_finalized", "session_resumed", "session_finalized"]


def test_a_session_that_is_started_after_its_first_word_was_not_resumed(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "InstructionsLoaded", file_path="/work/CLAUDE.md")
    tell(http, session_id, "SessionStart", source="startup", model="claude-opus-5-5")
    metadata = metadata_of(http, session_id)
    assert (metadata["resumes"], metadata["model"], metadata["source"]) == (0, "claude-opus-5-5", "startup")


def test_a_session_that_is_compacted_was_not_resumed(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SessionStart", source="startup")
    tell(http, session_id, "PreCompact", trigger="manual")
    tell(http, session_id, "SessionStart", source="compact", model="claude-opus-5-5")
    metadata = metadata_of(http, session_id)
    assert (metadata["resumes"], metadata["status"], metadata["model"]) == (0, "active", "claude-opus-5-5")


def test_a_start_in_a_session_that_was_lost_resumes_it(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SessionStart", source="startup")
    lost = {"type": "session_lost", "sessionId": session_id, "eventId": "lost", "data": {}}
    assert post_batch(http, json.dumps(lost))["accepted"] == 1
    assert metadata_of(http, session_id)["status"] == "lost"
    tell(http, session_id, "SessionStart", source="startup")
    metadata = metadata_of(http, session_id)
    assert (metadata["status"], metadata["resumes"]) == ("active", 1)


def test_conversations_that_share_a_session_end_it_with_the_last(http: httpx.Client, session_id: str) -> None:
    def tell_of(conversation: str, name: str, **members: object) -> tuple[str, int]:
        payload = {**hook(name, **members), "session_id": conversation}
        moment = f"2026-02-13T20:59:12.{next(moments):03}Z"
        lines = lines_of([Delivery(f"{moment[-4:-1]}-{name}", moment, payload)], session_id=session_id)
        assert post_batch(http, lines)["accepted"] == 1
        metadata = metadata_of(http, session_id)
        return metadata["status"], metadata["resumes"]

    moments = count(1)
    http.put(f"/api/sessions/{session_id}", json={"userId": "alice"}).raise_for_status()
    assert tell_of("first", "SessionStart", source="startup") == ("active", 0)
    assert tell_of("first", "SessionEnd", reason="clear") == ("active", 0)
    assert tell_of("second", "SessionStart", source="clear") == ("active", 0)
    assert tell_of("second", "SessionEnd", reason="other") == ("completed", 0)
    assert tell_of("third", "SessionStart", source="startup") == ("active", 1)
    assert tell_of("third", "SessionEnd", reason="resume") == ("active", 1)
    assert tell_of("first", "SessionStart", source="resume") == ("active", 2)
    assert tell_of("first", "SessionEnd", reason="prompt_input_exit") == ("completed", 2)
    assert metadata_of(http, session_id)["claudeSessionId"] == "first"
    assert [action["reason"] for action in session_of(http, session_id)["actions"]] == ["clear", "resume"]


# ---------------------------------------------------------------------- any order


def agent_in(http: httpx.Client, session_id: str) -> Json:
    (agent,) = session_of(http, session_id)["state"]["agents"]["spawned"]
    assert isinstance(agent, dict)
    return agent


def test_an_agent_that_stops_without_a_start_is_no_error(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SubagentStop", agent_id="a1", agent_type="", last_assistant_message="Summed up")
    agent = agent_in(http, session_id)
    assert (agent["type"], agent["status"], agent["result"]) == ("internal", "completed", "Summed up")


def test_an_agent_whose_start_comes_late_stays_done(http: httpx.Client, session_id: str) -> None:
    tell(http, session_id, "SubagentStop", agent_id="a1", agent_type="Explore", last_assistant_message="Found it")
    tell(http, session_id, "SubagentStart", agent_id="a1", agent_type="Explore", prompt_id="p1")
    agent = agent_in(http, session_id)
    assert (agent["type"], agent["status"], agent["result"]) == ("Explore", "completed", "Found it")
    assert session_of(http, session_id)["state"]["agents"]["completed"] == ["a1"]


def test_an_agent_that_is_started_again_works_again(http: httpx.Client, session_id: str) -> None:
    def deliver_at(second: int, name: str, **members: object) -> None:
        payload = hook(name, agent_id="a1", agent_type="Explore", **members) | {"session_id": session_id}
        answer = deliver(http, Delivery(f"{session_id}-{second}-{name}", f"2026-02-13T20:59:{second:02}.000Z", payload))
        assert answer.status_code == 200, answer.text

    deliver_at(1, "SubagentStart")
    deliver_at(5, "SubagentStop", last_assistant_message="Found it")
    deliver_at(3, "SubagentStart")
    assert agent_in(http, session_id)["status"] == "completed"
    deliver_at(7, "SubagentStart")
    agent = agent_in(http, session_id)
    assert (agent["status"], "completedAt" in agent, "result" in agent) == ("spawned", False, False)
    assert session_of(http, session_id)["state"]["agents"]["active"] == ["a1"]
    deliver_at(9, "SubagentStop", last_assistant_message="Found more")
    agent = agent_in(http, session_id)
    assert (agent["status"], agent["result"]) == ("completed", "Found more")


def test_a_task_that_is_created_after_its_end_stays_done(http: httpx.Client, session_id: str) -> None:
    task = {"task_id": "1", "task_subject": "Build", "task_description": "All of it"}
    tell(http, session_id, "TaskCompleted", task_id="1")
    tell(http, session_id, "TaskCreated", **task)
    (goal,) = session_of(http, session_id)["state"]["goals"]
    assert (goal["id"], goal["description"], goal["details"]) == ("task-1", "Build", "All of it")
    assert (goal["status"], goal["priority"]) == ("completed", "medium")
    assert goal["completedAt"]


def test_the_api_itself_still_refuses_an_id_that_is_taken(http: httpx.Client, session_id: str) -> None:
    for path, body in (
        ("goals", {"id": "g1", "description": "Build"}),
        ("agents", {"agentId": "a1", "type": "backend-dev"}),
    ):
        assert http.post(f"/api/state/{session_id}/{path}", json=body).status_code == 200
        assert http.post(f"/api/state/{session_id}/{path}", json=body).status_code == 409


@pytest.mark.parametrize("seed", marked(SEEDS, long=SEEDS[1:]))
def test_in_any_order_every_payload_is_taken(http: httpx.Client, replayed: list[Delivery], seed: int) -> None:
    deliveries = corpus(f"shuffled-{seed}-")
    deliver_all(http, shuffled(deliveries, seed))
    for once, again in zip(by_session(replayed), by_session(deliveries), strict=True):
        session, in_order = session_of(http, again), session_of(http, once)
        assert {e["eventId"] for e in events_of(http, again)} >= {
            e["eventId"] for e in events_of(http, once) if e["eventId"].startswith("hook-")
        }
        assert session["metadata"]["metrics"] == in_order["metadata"]["metrics"]
        for name in ("actions", "responses", "goals", "agents"):
            assert session["metadata"][name] == in_order["metadata"][name]
        ended = {agent["agentId"]: agent["status"] for agent in session["state"]["agents"]["spawned"]}
        assert ended == {agent["agentId"]: agent["status"] for agent in in_order["state"]["agents"]["spawned"]}
        assert [g["status"] for g in session["state"]["goals"]] == [g["status"] for g in in_order["state"]["goals"]]


# ------------------------------------------------------------------- bad payloads


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"\xef\xbb\xbf", 400),
        (b'{"session_id": "bad", "hook_event_name": "Stop", "deep": ' + b"[" * 50_000, 400),
        (b'{"session_id": "bad", "hook_event_name": "Stop"}}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"Stop"', 422),
        (b"{}", 422),
        (b'{"session_id": "bad"}', 422),
        (b'{"hook_event_name": "Stop"}', 422),
        (b'{"session_id": "bad", "hook_event_name": ""}', 422),
        (b'{"session_id": "bad", "hook_event_name": 5}', 422),
        (b'{"session_id": 5, "hook_event_name": "Stop"}', 422),
        (b'{"session_id": "../bad", "hook_event_name": "Stop"}', 422),
        (b'{"session_id": "a..b", "hook_event_name": "Stop"}', 422),
        (b'{"session_id": "' + b"x" * 129 + b'", "hook_event_name": "Stop"}', 422),
        (b'{"session_id": "\\ud800", "hook_event_name": "Stop"}', 422),
        (b'{"session_id": "bad", "hook_event_name": "Stop", "long": "' + b"x" * (32 << 20) + b'"}', 413),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_payload_is_a_problem_and_changes_nothing(http: httpx.Client, body: bytes, status: int) -> None:
    cursor = cursor_of(http)
    answer = http.post(HOOKS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == answer.json()["error"] != ""
    assert cursor_of(http) == cursor


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Idempotency-Key", b"a/b"),
        ("Idempotency-Key", b"a..b"),
        ("Idempotency-Key", b"\xfc"),
        ("X-Timestamp", b"yesterday"),
        ("X-Timestamp", b"2026-02-30T00:00:00Z"),
        ("X-User-Id", b"\x80"),
        ("X-User-Id", b"u" * 257),
    ],
)
def test_a_bad_header_is_told_by_its_name(http: httpx.Client, session_id: str, header: str, value: bytes) -> None:
    payload = hook("Stop") | {"session_id": session_id}
    answer = http.post(HOOKS, json=payload, headers={header.encode(): value})
    assert answer.status_code == 422
    assert header in answer.json()["detail"]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_odd_members_of_a_known_hook_are_kept_and_never_a_fault(http: httpx.Client, session_id: str, name: str) -> None:
    payloads = [
        hook(name, **dict.fromkeys(names(ODD_MEMBERS), value)) | {"session_id": session_id} for value in ODD_VALUES
    ]
    deliver_all(http, [Delivery(f"odd-{n}", "2026-02-13T20:59:12.345Z", payload) for n, payload in enumerate(payloads)])
    assert len([e for e in events_of(http, session_id) if e["eventId"].startswith("odd-")]) == len(ODD_VALUES)
    assert session_of(http, session_id)["metadata"]["sessionId"] == session_id


# ---------------------------------------------------------- as the client sends it


SECRET = b"ghp_" + b"a1B2" * 9
ODD_TEXTS: dict[str, bytes] = {
    "a lone surrogate": rb'"a\ud99c b"',
    "a lone surrogate in a name": rb'{"\udc00": {"\ud83d\ude00": "\ud83d"}}',
    "not quite UTF-8": b'"caf\xe9 \xff\xfe \xed\xa0\x80"',
    "control characters": b'"a\x00\x01\x1b[31m\tb"',
    "numbers that are none": b"[NaN, -Infinity, 1e999, 1e-999, -0, 1E5]",
    "large numbers": b"[18446744073709551615, -9223372036854775809, 9223372036854775807]",
    "thousands of digits": b"1" * 5000,
    "80 deep": b"[" * 80 + b"]" * 80,
    "900 deep": b'{"a":' * 900 + b"1" + b"}" * 900,
    "50,000 deep": b'["]"' + b",[1" * 50_000 + b"]" * 50_000 + b',"["]',
    "an image": b'[{"type":"text","text":"taken"},{"type":"image","data":"iVBORw0' + b"A" * (2 << 20) + b'"}]',
    "a secret where it is cut": b'"%b%b %b"' % (b"x " * ((1 << 19) - 2060), SECRET, b"y" * (1 << 20)),
    "a secret among what is deep": b'{"token":"%b","deep":%b}' % (SECRET, b"[" * 400 + b"]" * 400),
    "many texts": b"[" + b'"x",' * 400_000 + b'"x"]',
    "many numbers": b"[" + b"1e15," * 200_000 + b"1]",
    "a long name": b'{"%b":1}' % (b"n" * (3 << 20)),
}
ODD_BODIES = {
    name: b'{"hook_event_name":"PostToolUse","session_id":"SESSION","tool_name":"T","tool_use_id":"t1","tool_input":%b,'
    b'"tool_response":{"stdout":%b},"seq":%b}' % (text, text, text if len(text) < 9999 else b"1")
    for name, text in ODD_TEXTS.items()
} | {
    "a byte-order mark": b'\xef\xbb\xbf{"hook_event_name":"Stop","session_id":"SESSION"}',
    "of 20 MB": b'{"hook_event_name":"Stop","session_id":"SESSION","last_assistant_message":"%b"}'
    % (b"word " * 3_000_000),
    "a hook that nobody knows": rb'{"hook_event_name":"\ud800New","session_id":"SESSION"}',
}


def both_ways(http: httpx.Client, name: str, body: bytes) -> tuple[Json, Json]:
    """What the store has of a payload that came by the hook command, and of the same posted."""
    payload = body.replace(b"SESSION", name.encode())
    line = hook_agent.HookNarrator().line(hook_agent._hook_record(payload).removesuffix(b"\n"))
    answer = http.post("/api/events", content=line, headers=NDJSON).raise_for_status().json()
    assert (answer["accepted"], answer["rejected"]) == (1, [])
    by_hook = told_alone(http, name)
    headers = {"x-timestamp": by_hook["timestamp"], "idempotency-key": by_hook["eventId"]}
    answer = http.post(HOOKS, content=payload, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == 200, answer.text
    return by_hook, told_alone(http, name)


def told_alone(http: httpx.Client, session_id: str) -> Json:
    """The event that the store has of a session, apart from its beginning; the session is then deleted."""
    events = events_of(http, session_id)
    found = events[0] if len(events) == 1 else events[1]
    assert len(events) == 1 or "implicit" in events[0]["data"]
    found["data"].get("metadata", {}).pop("where", None)  # the command alone knows it
    http.delete(f"/api/sessions/{session_id}").raise_for_status()
    return found | {"cursor": 0, "receivedAt": ""}


@pytest.mark.parametrize("name", marked(ODD_BODIES, long=("many numbers", "of 20 MB")))
def test_an_odd_payload_is_the_same_event_by_either_way(http: httpx.Client, session_id: str, name: str) -> None:
    by_hook, by_http = both_ways(http, session_id, ODD_BODIES[name])
    assert by_http == by_hook
    assert SECRET not in json.dumps(by_http).encode()


@pytest.mark.parametrize("which", marked(["one of each kind", "all"], long=["all"]))
def test_every_real_payload_is_the_same_event_by_either_way(http: httpx.Client, which: str) -> None:
    deliveries = corpus("")
    if which != "all":
        kinds = {(one.payload["hook_event_name"], one.payload.get("tool_name")): one for one in deliveries}
        deliveries = [*kinds.values()]
    for number, delivery in enumerate(deliveries):
        if delivery.payload["hook_event_name"] == "PostToolBatch":
            continue  # of which the command tells only what no other hook has told
        body = json.dumps({**delivery.payload, "session_id": "SESSION"}).encode()
        by_hook, by_http = both_ways(http, f"either-{which[:3]}-{number}", body)
        assert by_http == by_hook


def comparable(http: httpx.Client, session_id: str, prefix: str) -> Any:
    """A session and its timeline, without what differs from one telling to the next."""
    session = session_of(http, session_id)
    timeline = [
        {name: event[name] for name in ("type", "eventId", "agentId", "timestamp", "data", "userId")}
        for event in events_of(http, session_id)
        if event["eventId"].startswith("hook-")
    ]
    for name in ("updated", "lastCursor", "created"):
        del session["metadata"][name]
    for entry in session["actions"] + session["responses"]:
        del entry["cursor"]
    return json.loads(json.dumps([session, timeline]).replace(prefix, ""))


def test_a_batch_of_the_client_tells_the_same(http: httpx.Client, replayed: list[Delivery]) -> None:
    deliveries = corpus("batch-")
    lines = lines_of(deliveries, user_id="unknown")
    answer = post_batch(http, lines)
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (lines.count("\n"), 0, [])
    assert (again := post_batch(http, lines))["duplicates"] == lines.count("\n")
    assert (again["accepted"], again["rejected"], again["cursor"]) == (0, [], answer["cursor"])
    for once, batched in zip(by_session(replayed), by_session(deliveries), strict=True):
        assert comparable(http, batched, "batch-") == comparable(http, once, "once-")


# ------------------------------------------------------------- as lines of a batch


def hook_line(event_id: str, payload: object, **known: object) -> str:
    return json.dumps(
        {"type": "hook", "eventId": event_id, "timestamp": "2026-02-13T20:59:12Z", **known, "data": payload}
    )


def test_hooks_in_a_batch_are_what_they_are_when_posted(http: httpx.Client, replayed: list[Delivery]) -> None:
    """Also told again, in another form, and with what other events there are before and after, in order."""
    named = {
        (d.payload["session_id"], claude_code.own_key(d.payload) or d.key): d
        for d in reversed(corpus("lines-"))
        if d.payload["hook_event_name"] != "PostToolBatch"  # of which a line tells only what no other hook has told
    }
    ids = {d.key: event_id for (_, event_id), d in reversed(named.items())}
    deliveries = list(reversed(named.values()))
    lines = [hook_line(d.key, d.payload, timestamp=d.timestamp, userId="unknown") for d in deliveries]
    step = '{"type":"action","sessionId":"lines-step","eventId":"step-%d","data":{"type":"step"}}'
    answer = post_batch(http, "\n".join(f"{step % number}\n{line}" for number, line in enumerate(lines)))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2 * len(lines), 0, [])
    packed = [json.dumps(json.loads(line), separators=(",", ":")) for line in lines]
    assert packed[0].startswith('{"type":"hook",') and not lines[0].startswith('{"type":"hook",')
    again = post_batch(http, "\n".join(packed))
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, len(lines), [])
    stored = {event["eventId"]: event for session in by_session(deliveries) for event in events_of(http, session)}
    steps = [event["cursor"] for event in http.get("/api/events?sessionId=lines-step&limit=1000").json()["items"]]
    order = [cursor for pair in zip(steps[1:], map(stored.get, ids.values()), strict=True) for cursor in pair]
    cursors = [it if isinstance(it, int) else it["cursor"] for it in order if it]
    assert len(cursors) == 2 * len(lines) and cursors == sorted(cursors)
    for session in by_session(replayed):
        for event in events_of(http, session):
            if event["eventId"] in ids:
                by_line = stored[ids[event["eventId"]]]
                assert told_in(by_line, "lines-") == told_in(event, "once-")


def told_in(event: Json, prefix: str) -> Json:
    """What of an event is the same by whichever way it came."""
    told = {name: event[name] for name in ("type", "agentId", "timestamp", "userId")}
    told["data"] = rest(event["data"], "seq", "task", "toolUseId" if event["type"] == "agent_spawned" else "seq")
    without_prefix: Json = json.loads(json.dumps(told).replace(prefix, ""))
    return without_prefix


def test_a_batch_of_calls_is_what_no_other_hook_has_told(http: httpx.Client, session_id: str) -> None:
    refused = {"tool_name": "Grep", "tool_use_id": "call_0", "tool_response": "<tool_use_error>No</tool_use_error>"}
    told = {"tool_name": "Bash", "tool_use_id": "call_1", "tool_response": "fine"}
    payload = hook("PostToolBatch", tool_calls=[told, refused]) | {"session_id": session_id}
    lines = hook_line("batch-1", payload), hook_line("batch-2", {**payload, "tool_calls": [told]})
    answer = post_batch(http, "\n".join(lines))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (1, 1, [])
    assert [event["eventId"] for event in events_of(http, session_id)[1:]] == ["batch-1-0", "batch-1-1"]
    again = post_batch(http, lines[0])
    assert (again["accepted"], again["duplicates"], again["cursor"]) == (0, 1, answer["cursor"])


def test_a_hook_that_comes_again_is_known_by_its_id_whatever_becomes_of_it_now(
    http: httpx.Client, session_id: str
) -> None:
    """The store may have been renewed in between, and map it otherwise."""
    payload = hook("UserPromptSubmit", prompt="go") | {"session_id": session_id}
    post_batch(http, hook_line("p-1", payload))
    again = post_batch(http, hook_line("p-1", payload, agentId="claude-2"))
    assert (again["duplicates"], again["rejected"]) == (1, [])


@pytest.mark.parametrize(
    ("payload", "kept"),
    [
        ({"hook_event_name": 7, "text": "a"}, {"hook_event_name": 7, "text": "a"}),
        ({"text": "a", "type": "odd"}, {"text": "a", "payload": {"type": "odd"}}),
        ([1, {"a": 2}], {"payload": [1, {"a": 2}]}),
        ("Stop", {"payload": "Stop"}),
        (None, {"payload": None}),
    ],
)
def test_what_is_no_payload_is_kept_where_its_session_is_known(
    http: httpx.Client, session_id: str, payload: object, kept: Json
) -> None:
    answer = post_batch(http, hook_line("odd-1", payload, sessionId=session_id, userId="u" * 300, timestamp="soon"))
    assert (answer["accepted"], answer["rejected"]) == (1, [])
    (entry,) = session_of(http, session_id)["actions"]
    assert entry["type"] == "hook" and {name: entry[name] for name in kept} == kept
    rejected = post_batch(http, hook_line("odd-1", payload))["rejected"]
    assert [line["status"] for line in rejected] == [422]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"hook","sessionId":"%b","eventId":"e","data":{"hook_event_name":"Odd","session_id":"x","t":"caf\xe9"}}',
        b'{"type":"hook","sessionId":"%b","data":{"hook_event_name":"Odd","session_id":"x","t":'
        + b"[" * 900
        + b"]" * 900
        + b"}}",
        b'{"type":"hook","sessionId":"%b","data":{"hook_event_name":"Odd","session_id":"x","t":"'
        + b"x" * (2 << 20)
        + b'"}}',
        b'\xef\xbb\xbf{"data":{"hook_event_name":"Odd","session_id":"x","t":"\\ud800"},"sessionId":"%b","type":"hook"}',
    ],
    ids=["not UTF-8", "deep", "large", "byte-order mark"],
)
def test_no_line_of_a_hook_is_refused_for_its_form(http: httpx.Client, session_id: str, line: bytes) -> None:
    answer = http.post("/api/events", content=line.replace(b"%b", session_id.encode()), headers=NDJSON).json()
    assert (answer["accepted"], answer["rejected"]) == (1, [])
    (entry,) = session_of(http, session_id)["actions"]
    assert entry["type"] == "odd" and len(entry["t"]) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shuffled_batch_is_taken_whole(http: httpx.Client, seed: int) -> None:
    deliveries = shuffled(corpus(f"mixed-{seed}-"), seed)
    lines = lines_of(deliveries, user_id="alice")
    answer = post_batch(http, lines)
    assert (answer["accepted"], answer["rejected"]) == (lines.count("\n"), [])


def resumes_of(payloads: Iterable[Json]) -> int:
    """How often a session that holds all of these was taken up again after an end, or because Claude Code says so."""
    resumes, has_ended = 0, False
    for payload in payloads:
        if payload["hook_event_name"] == "SessionStart":
            resumes += has_ended or payload["source"] == "resume"
            has_ended = False
        if payload["hook_event_name"] == "SessionEnd":
            has_ended = has_ended or payload["reason"] not in ("clear", "resume")
    return resumes


def test_all_of_it_fits_into_the_one_session_of_a_container(http: httpx.Client, session_id: str) -> None:
    deliveries = corpus("contained-")
    lines = lines_of(deliveries, session_id=session_id)
    answer = post_batch(http, lines)
    assert (answer["accepted"], answer["rejected"]) == (lines.count("\n"), [])
    metadata = metadata_of(http, session_id)
    starts = [d.payload for d in deliveries if d.payload["hook_event_name"] == "SessionStart"]
    assert metadata["claudeSessionId"] == starts[-1]["session_id"]
    assert metadata["resumes"] == resumes_of(d.payload for d in deliveries)
    assert metadata["metrics"]["toolCalls"] == sum(d.payload["hook_event_name"] == "PreToolUse" for d in deliveries)
