"""Events: many at once, over all sessions, of one session, and back again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.problems import assert_problem

NDJSON = {"content-type": "application/x-ndjson"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MEBIBYTE = 1 << 20

# ------------------------------------------------------------------ what is asked


def line(session_id: str, event_type: str = "action", **members: Any) -> Any:
    data = {"type": "note"} if event_type in ("action", "response") else {}
    return {"type": event_type, "sessionId": session_id, "data": data} | members


def post_lines(http: httpx.Client, *lines: Any) -> httpx.Response:
    """Post `lines`: bytes as they are, all else as JSON."""
    texts = [text if isinstance(text, bytes) else json.dumps(text).encode() for text in lines]
    return http.post("/api/events", content=b"\n".join(texts), headers=NDJSON)


def batch(http: httpx.Client, *lines: Any) -> Any:
    answer = post_lines(http, *lines)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["success"] is True
    return body


def events_of(http: httpx.Client, session_id: str, **query: Any) -> Any:
    answer = http.get(f"/api/sessions/{session_id}/events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def cursors(http: httpx.Client, session_id: str, **query: Any) -> list[int]:
    return [event["cursor"] for event in events_of(http, session_id, **query)]


def page(http: httpx.Client, **query: Any) -> Any:
    answer = http.get("/api/events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def head(http: httpx.Client) -> int:
    """The newest cursor of the store."""
    cursor: int = http.get("/health").json()["cursor"]
    return cursor


def pages(http: httpx.Client, **query: Any) -> Iterator[Any]:
    """Pages of GET /api/events until all that is there now was looked at."""
    until = head(http)
    while True:
        found = page(http, **query)
        yield found["items"]
        if found["nextAfter"] >= until:
            return
        assert found["nextAfter"] > query.get("after", 0), "it does not go on"
        query["after"] = found["nextAfter"]


def live_a_life(http: httpx.Client, session_id: str) -> None:
    """A session in which everything happens that can."""
    at, state = f"/api/sessions/{session_id}", f"/api/state/{session_id}"
    initial = {"input": {"prompt": "Begin"}, "config": {"model": "claude-opus"}}
    answers = [
        http.put(at, json={"userId": "Zoë", "initial": initial, "tags": ["a"], "metadata": {"cwd": "/src"}}),
        http.post(f"/api/actions/{session_id}", json={"type": "tool_call", "tool": "Bash", "agentId": "agent-1"}),
        http.post(f"/api/actions/{session_id}", json={"type": "file_write", "timestamp": "2026-02-13t21:59:12+01:00"}),
        http.post(f"/api/actions/{session_id}/responses", json={"type": "tool_result", "text": "a\0b 😀"}),
        http.patch(state, json={"phase": "implementation", "own": {"a": None, "b": 1}}),
        http.patch(state, json={"own": {"b": None}}, headers={"content-type": "application/merge-patch+json"}),
        http.post(f"{state}/goals", json={"description": "Build REST API"}),
        http.post(f"{state}/goals", json={"description": "Another", "id": "mine", "priority": "high"}),
        http.patch(f"{state}/goals/goal-1", json={"status": "completed"}),
        http.post(f"{state}/agents", json={"type": "backend-dev"}),
        http.post(f"{state}/agents", json={"type": "tester", "task": {"any": "thing"}}),
        http.patch(f"{state}/agents/agent-2", json={"status": "running"}),
        http.post(f"{state}/agents/agent-1/complete", json={"result": ["done"]}),
        http.patch(f"{at}/metadata", json={"tokenUsage.input": "+7", "metrics.toolCalls": "+2", "note": "kept"}),
        http.post(f"{at}/finalize", json={"status": "failed", "outcome": "first try"}),
        http.put(at, json={"userId": "Zoë", "tags": ["b"]}),
        http.patch(f"{at}/metadata", json={"attention": {"reason": "permission", "message": "May I?"}}),
        http.post(f"/api/actions/{session_id}", json={"type": "prompt", "text": "Yes"}),
        http.post(f"{at}/finalize", json={"status": "success", "outcome": {"merged": True}, "exitCode": 0}),
    ]
    assert [answer.status_code for answer in answers] == [201] + [200] * (len(answers) - 1)


def timeless(document: Any) -> Any:
    """`document` without the cursors, and the times of commits, that every store gives itself."""
    if isinstance(document, dict):
        return {
            name: timeless(value)
            for name, value in document.items()
            if name not in ("cursor", "lastCursor", "receivedAt", "updated")
        }
    return [timeless(item) for item in document] if isinstance(document, list) else document


# ------------------------------------------------------------------ many at once


def test_a_batch_is_stored_in_its_order(http: httpx.Client, session_id: str) -> None:
    answer = batch(http, *(line(session_id, data={"type": "note", "n": n}) for n in range(5)))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (5, 0, [])
    assert [entry["n"] for entry in http.get(f"/api/actions/{session_id}").json()] == list(range(5))
    assert answer["cursor"] == cursors(http, session_id)[-1]


def test_a_batch_may_speak_of_many_sessions_in_every_way(http: httpx.Client, session_id: str) -> None:
    one, two = f"{session_id}-1", f"{session_id}-2"
    answer = batch(
        http,
        line(one, "session_created", userId="Zoë", data={"initial": {"input": 1}, "tags": ["a"]}),
        line(two, "response", agentId="agent-7", timestamp="2026-02-13T21:59:12+01:00"),
        line(one, "state_updated", data={"phase": "x", "own": {"a": 1, "b": 2}}),
        line(one, "state_updated", data={"own": {"a": None}}, patch="merge-patch"),
        line(one, "goal_added", data={"description": "d"}),
        line(one, "agent_spawned", agentId="worker", data={"type": "t"}),
        line(one, "agent_completed", data={"agentId": "worker", "result": 1}),
        line(one, "metadata_updated", data={"note": "n"}),
        line(two, "session_finalized", data={"status": "failed"}),
    )
    assert (answer["accepted"], answer["rejected"]) == (9, [])
    first = http.get(f"/api/sessions/{one}").json()
    assert (first["metadata"]["userId"], first["metadata"]["tags"], first["metadata"]["note"]) == ("Zoë", ["a"], "n")
    assert (first["state"]["phase"], first["state"]["own"]) == ("x", {"b": 2})
    assert first["state"]["goals"][0]["id"] == "goal-1"
    assert first["state"]["agents"]["completed"] == ["worker"]
    second = http.get(f"/api/sessions/{two}").json()
    assert second["metadata"]["status"] == "failed"
    assert second["responses"][0]["agentId"] == "agent-7"
    (event,) = events_of(http, two, type="response")
    assert event["timestamp"] == "2026-02-13T20:59:12.000Z"
    assert second["responses"][0]["timestamp"] == "2026-02-13T21:59:12+01:00"


def test_a_state_can_be_replaced(http: httpx.Client, session_id: str) -> None:
    batch(http, line(session_id, "state_updated", data={"phase": "x", "own": 1}))
    batch(http, line(session_id, "state_updated", data={"phase": "y"}, patch="replace"))
    state = http.get(f"/api/state/{session_id}").json()
    assert TIME.fullmatch(state.pop("timestamp"))
    assert state == {"$schema": "session-state-v1", "phase": "y", "version": 3}
    assert events_of(http, session_id)[-1]["patch"] == "replace"


def test_a_session_and_a_user_together_are_both_meant(http: httpx.Client, session_id: str) -> None:
    """The session is bob's from its second event on."""
    http.post(f"/api/actions/{session_id}", json={"type": "note"}, headers={"X-User-Id": "unknown"})
    http.put(f"/api/sessions/{session_id}", json={"userId": "bob"})
    http.post("/api/actions/another-of-bob", json={"type": "note"}, headers={"X-User-Id": "bob"})
    found = http.get("/api/events", params={"sessionId": session_id, "userId": "bob"}).json()["items"]
    assert [(event["sessionId"], event["type"]) for event in found] == [(session_id, "session_resumed")]


def test_good_lines_are_kept_whatever_the_bad_ones_are(http: httpx.Client, session_id: str) -> None:
    batch(http, line(session_id, eventId="taken"))
    bad: list[tuple[Any, int]] = [
        (b"nonsense", 400),
        (b'{"type":"action"', 400),
        (b"\xff\xfe", 400),
        (b"[" * 5000, 400),
        ([], 422),
        (None, 422),
        ({}, 422),
        (line(session_id, "no_such_type"), 422),
        (line("a..b"), 422),
        (line(""), 422),
        ({"type": "action", "data": {"type": "note"}}, 422),
        (line(session_id, eventId="taken", data={"type": "other"}), 422),
        (line(f"{session_id}-other", "session_deleted"), 404),
    ]
    lines: list[Any] = []
    for text, _ in bad:
        lines += [line(session_id, data={"type": "good"}), text]
    answer = batch(http, *lines)
    assert [(told["line"], told["status"]) for told in answer["rejected"]] == [
        (2 * number, status) for number, (_, status) in enumerate(bad, 1)
    ]
    assert all(isinstance(told["detail"], str) and told["detail"] for told in answer["rejected"])
    assert answer["accepted"] == len(bad)
    assert len(http.get(f"/api/actions/{session_id}", params={"type": "good"}).json()) == len(bad)
    assert_problem(http.get(f"/api/sessions/{session_id}-other"), 404)


def test_empty_lines_are_counted_and_passed_over(http: httpx.Client, session_id: str) -> None:
    good = json.dumps(line(session_id)).encode()
    answer = batch(http, b"", good + b"\r", b"  ", b"bad", good, b"")
    assert answer["accepted"] == 2
    assert [told["line"] for told in answer["rejected"]] == [4]


def test_an_empty_batch_is_taken(http: httpx.Client) -> None:
    answer = batch(http)
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, 0, [])
    assert answer["cursor"] == head(http)


def test_a_batch_with_nothing_new_stores_nothing(http: httpx.Client, session_id: str) -> None:
    first = batch(http, *(line(session_id, eventId=f"e-{n}") for n in range(3)))
    again = batch(http, *(line(session_id, eventId=f"e-{n}") for n in range(3)), b"bad")
    assert (again["accepted"], again["duplicates"], len(again["rejected"])) == (0, 3, 1)
    assert again["cursor"] == first["cursor"]


def test_a_duplicate_within_a_batch_is_stored_once(http: httpx.Client, session_id: str) -> None:
    answer = batch(http, line(session_id, eventId="e"), line(session_id, eventId="e"), line(session_id))
    assert (answer["accepted"], answer["duplicates"]) == (2, 1)
    assert len(http.get(f"/api/actions/{session_id}").json()) == 2


def test_a_duplicate_of_the_word_that_made_the_session_is_one(http: httpx.Client, session_id: str) -> None:
    answer = batch(http, *(line(session_id, eventId=event_id) for event_id in ("e", "f", "e")))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, [])


def test_what_was_sent_alone_is_a_duplicate_in_a_batch(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note", "eventId": "e"}).raise_for_status()
    assert batch(http, line(session_id, eventId="e"))["duplicates"] == 1


@pytest.mark.parametrize(
    "media_type", ["", "application/json", "text/plain", "application/x-ndjson; charset=latin-1"], ids=str
)
def test_a_batch_of_another_media_type_answers_415(http: httpx.Client, session_id: str, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    answer = http.post("/api/events", content=json.dumps(line(session_id)).encode(), headers=headers)
    assert_problem(answer, 415)
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


def test_a_batch_over_32_mebibytes_answers_413_and_keeps_nothing(http: httpx.Client, session_id: str) -> None:
    good = json.dumps(line(session_id)).encode()
    content = (good + b"\n" + b" " * (32 * MEBIBYTE))[: 32 * MEBIBYTE + 1]
    assert_problem(http.post("/api/events", content=content, headers=NDJSON), 413)
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)
    assert http.post("/api/events", content=content[:-1], headers=NDJSON).json()["accepted"] == 1


def test_limits_are_settings(folder: Path) -> None:
    limits = {"SESSIONS_MAX_EVENT_BYTES": "1024", "SESSIONS_MAX_BATCH_BYTES": "4096"}
    with Appliance(folder, limits) as appliance, httpx.Client(base_url=appliance.url) as http:
        assert_problem(http.post("/api/actions/a", json={"type": "note", "text": "x" * 1024}), 413)
        answer = batch(http, line("a", data={"type": "note", "text": "x" * 1024}), line("a"))
        assert (answer["accepted"], answer["rejected"]) == (2, [])
        long, _ = http.get("/api/actions/a").json()
        assert long["truncated"]["bytes"] > 1024
        assert len(long["text"]) < 1024
        assert_problem(post_lines(http, b" " * 4097), 413)


# ------------------------------------------------------------------ back again


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a second, empty server."""
    with (
        Appliance(tmp_path_factory.mktemp("second")) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        yield client


def test_the_events_of_a_session_make_the_same_session_elsewhere(
    http: httpx.Client, second: httpx.Client, session_id: str
) -> None:
    live_a_life(http, session_id)
    lines = events_of(http, session_id)
    assert len({event["type"] for event in lines}) == 12  # all but session_lost and session_deleted
    answer = batch(second, *lines)
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (len(lines), 0, [])
    here, there = (store.get(f"/api/sessions/{session_id}").json() for store in (http, second))
    assert timeless(there) == timeless(here)
    assert timeless(events_of(second, session_id)) == timeless(lines)
    assert there["metadata"]["metrics"]["toolCalls"] == 3


def test_a_session_that_began_with_its_first_word_comes_back_as_that(
    http: httpx.Client, second: httpx.Client, session_id: str
) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note"}, headers={"X-User-Id": "test-user-bob"})
    assert batch(second, *events_of(http, session_id))["rejected"] == []
    for store in (http, second):
        body = {"userId": "test-user-alice", "initial": {"input": "claimed"}}
        assert store.put(f"/api/sessions/{session_id}", json=body).status_code == 200
    here, there = (store.get(f"/api/sessions/{session_id}").json() for store in (http, second))
    assert there["initial"]["input"] == here["initial"]["input"] == "claimed"
    assert there["metadata"]["userId"] == here["metadata"]["userId"] == "test-user-alice"


def test_the_events_of_a_session_are_duplicates_where_they_came_from(http: httpx.Client, session_id: str) -> None:
    live_a_life(http, session_id)
    lines = events_of(http, session_id)
    before, newest = http.get(f"/api/sessions/{session_id}").json(), head(http)
    answer = batch(http, *lines)
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, len(lines), [])
    assert http.get(f"/api/sessions/{session_id}").json() == before
    assert head(http) == newest


# -------------------------------------------------------------- over all sessions


def test_events_are_given_in_the_order_of_their_cursors(http: httpx.Client, session_id: str) -> None:
    begin = head(http)
    for n in range(7):
        http.post(f"/api/actions/{session_id}-{n % 2}", json={"type": "note"}).raise_for_status()
    found = list(pages(http, after=begin, limit=4))
    assert [len(items) for items in found[:3]] == [4, 4, 1]
    flat = [event for items in found for event in items]
    assert [event["cursor"] for event in flat] == list(range(begin + 1, begin + 10))
    both = [*events_of(http, f"{session_id}-0"), *events_of(http, f"{session_id}-1")]
    assert flat == sorted(both, key=lambda event: int(event["cursor"]))


def test_events_are_found_by_type_session_and_user(http: httpx.Client, session_id: str) -> None:
    begin, user = head(http), f"{session_id}-user"
    batch(http, line(f"{session_id}-1", userId=user), line(f"{session_id}-2"), line(f"{session_id}-2", "response"))

    def found(**query: Any) -> list[tuple[str, str]]:
        items = page(http, after=begin, **query)["items"]
        return [(event["sessionId"][-1], event["type"]) for event in items]

    created = "session_created"
    everything = [("1", created), ("1", "action"), ("2", created), ("2", "action"), ("2", "response")]
    assert found() == everything
    assert found(type="action") == [("1", "action"), ("2", "action")]
    assert found(type=["response", created]) == [("1", created), ("2", created), ("2", "response")]
    assert found(sessionId=f"{session_id}-2") == everything[2:]
    assert found(userId=user) == everything[:2]
    assert found(sessionId=f"{session_id}-2", type="action") == [("2", "action")]
    assert found(sessionId=f"{session_id}-3") == found(userId="nobody") == found(type="session_lost") == []


def test_asking_with_next_after_goes_on_also_after_an_empty_page(http: httpx.Client, session_id: str) -> None:
    """The noise is more than one page looks at, so that the needle is on a later one."""
    begin = head(http)
    batch(http, *[line(f"{session_id}-noise")] * 10_500)
    batch(http, line(session_id))
    first = page(http, after=begin, sessionId=session_id)
    assert first["items"] == []
    assert begin < first["nextAfter"] <= head(http)
    found = [event["type"] for items in pages(http, after=begin, sessionId=session_id) for event in items]
    assert found == ["session_created", "action"]


def test_at_the_end_next_after_stays_where_it_is(http: httpx.Client, session_id: str) -> None:
    end = batch(http, line(session_id))["cursor"]
    assert page(http, after=end) == {"items": [], "nextAfter": end}
    assert page(http, after=end, type="response") == {"items": [], "nextAfter": end}
    then = batch(http, line(session_id))["cursor"]
    assert [event["cursor"] for event in page(http, after=end)["items"]] == [then]


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "1001"}, {"after": "-1"}, {"after": "9" * 30}, {"after": "x"}], ids=str
)
def test_bad_parameters_are_refused(http: httpx.Client, session_id: str, query: dict[str, str]) -> None:
    batch(http, line(session_id))
    for path in ("/api/events", f"/api/sessions/{session_id}/events", f"/api/state/{session_id}/history"):
        assert_problem(http.get(path, params=query), 422, f"$.{next(iter(query))}")


# ---------------------------------------------------------------- of one session


def test_the_timeline_of_a_session_is_given_by_every_parameter(http: httpx.Client, session_id: str) -> None:
    batch(
        http,
        line(session_id, agentId="agent-1"),
        line(f"{session_id}-other"),
        line(session_id, "response"),
        line(session_id, "state_updated"),
        line(session_id, agentId="agent-1"),
    )
    everything = cursors(http, session_id)
    assert len(everything) == 5
    assert everything == sorted(everything)
    assert cursors(http, session_id, order="desc") == everything[::-1]
    assert cursors(http, session_id, limit=2) == everything[:2]
    assert cursors(http, session_id, limit=2, order="desc") == everything[:2:-1]
    assert cursors(http, session_id, after=everything[1]) == everything[2:]
    assert cursors(http, session_id, before=everything[1]) == everything[:1]
    assert cursors(http, session_id, after=everything[0], before=everything[3]) == everything[1:3]
    assert cursors(http, session_id, type="action") == [everything[1], everything[4]]
    assert cursors(http, session_id, type=["response", "session_created"]) == [everything[0], everything[2]]
    assert cursors(http, session_id, agentId="agent-1") == [everything[1], everything[4]]
    assert cursors(http, session_id, agentId="agent-2") == []


def test_the_timeline_is_walked_with_next_after(http: httpx.Client, session_id: str) -> None:
    batch(http, *[line(session_id)] * 6)
    found: list[int] = []
    after = 0
    while True:
        answer = http.get(f"/api/sessions/{session_id}/events", params={"after": after, "limit": 3}).json()
        if not answer["items"]:
            assert answer["nextAfter"] == after
            break
        found += [event["cursor"] for event in answer["items"]]
        after = answer["nextAfter"]
    assert found == cursors(http, session_id)


def test_every_event_has_the_shape_of_the_contract(http: httpx.Client, session_id: str) -> None:
    live_a_life(http, session_id)
    for event in events_of(http, session_id):
        assert set(event) - {"patch"} == {
            "cursor", "type", "sessionId", "userId", "eventId", "agentId", "timestamp", "receivedAt",
            "actor", "data",
        }  # fmt: skip
        assert type(event["cursor"]) is int
        assert (event["sessionId"], event["userId"]) == (session_id, "Zoë")
        assert TIME.fullmatch(event["timestamp"]) and TIME.fullmatch(event["receivedAt"])
        assert isinstance(event["data"], dict)
        assert ("seq" in event["data"]) == (event["type"] in ("action", "response"))


def test_an_event_says_what_was_given_completed_by_the_store(http: httpx.Client, session_id: str) -> None:
    live_a_life(http, session_id)
    data = {event["type"]: event["data"] for event in reversed(events_of(http, session_id))}
    assert data["session_created"]["initial"]["input"] == {"prompt": "Begin"}
    assert data["session_created"]["sessionId"] == session_id
    assert data["goal_added"] == {
        "id": "goal-1", "description": "Build REST API", "priority": "medium", "status": "pending",
    }  # fmt: skip
    assert data["goal_updated"] == {"goalId": "goal-1", "status": "completed"}
    assert data["agent_spawned"]["agentId"] == "agent-1"
    assert data["agent_updated"] == {"agentId": "agent-2", "status": "running"}
    assert data["agent_completed"] == {"agentId": "agent-1", "result": ["done"]}
    finalized = {"status": "failed", "outcome": "first try", "cancelledAgents": ["agent-2"]}
    assert data["session_finalized"] == finalized


# -------------------------------------------------------------------- large answers


@pytest.mark.long
def test_an_answer_holds_a_bounded_number_of_bytes_and_says_how_to_go_on(folder: Path, session_id: str) -> None:
    text = "x" * (MEBIBYTE - 4096)
    large = [{"type": "note", "text": text} for _ in range(80)]
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url, timeout=60) as http:
        for begin in range(0, len(large), 20):
            batch(http, *(line(session_id, data=data) for data in large[begin : begin + 20]))
        first = page(http, limit=1000, sessionId=session_id)
        second = page(http, limit=1000, sessionId=session_id, after=first["nextAfter"])
        assert 60 <= len(first["items"]) < len(large)
        assert len(first["items"]) + len(second["items"]) == len(large) + 1  # the session_created
        log = http.get(f"/api/actions/{session_id}", params={"limit": 1000})
        rest = http.get(log.links["next"]["url"])
        assert [entry["seq"] for entry in log.json() + rest.json()] == list(range(1, len(large) + 1))
        whole = http.get(f"/api/sessions/{session_id}", params={"limit": 1000}).json()
        assert whole["actions"][-1]["seq"] == len(large)
        assert whole["truncated"] == {"actions": len(large) - len(whole["actions"]), "responses": 0}
        assert len(whole["actions"]) < len(large)


# --------------------------------------------------------------- lists that are light


def test_entries_are_picked_by_their_own_type(http: httpx.Client, session_id: str) -> None:
    for kind in ("prompt", "note", "prompt"):
        http.post(f"/api/actions/{session_id}", json={"type": kind}).raise_for_status()
    http.post(f"/api/actions/{session_id}/responses", json={"type": "answer"}).raise_for_status()
    assert [event["data"]["type"] for event in events_of(http, session_id, kind="prompt,answer")] == [
        "prompt",
        "prompt",
        "answer",
    ]
    assert events_of(http, session_id, kind="session_created") == []


def test_what_went_wrong_is_picked_in_any_of_its_words(http: httpx.Client, session_id: str) -> None:
    wrong: list[Any] = [
        {"type": "tool_error"},
        {"type": "error"},
        {"type": "permission_denied"},
        {"type": "x", "ok": False},
        {"type": "x", "success": False},
        {"type": "x", "status": "failed"},
        {"type": "x", "exitCode": 2},
        {"type": "x", "error": "boom"},
        {"type": "x", "error": {"code": 5}},
        {"type": "x", "exitCode": "1"},
        {"type": "tool_error", "error": ""},
    ]
    right: list[Any] = [
        {"type": "x"},
        {"type": "x", "ok": True, "success": True, "status": "completed", "exitCode": 0},
        {"type": "x", "error": None},
        {"type": "x", "error": False},
        {"type": "x", "ok": True, "error": ""},
        {"type": "x", "error": {}},
        {"type": "x", "error": []},
        {"type": "x", "exitCode": "0"},
        {"type": "tool_error", "rejected": True, "error": "no"},
        {"type": "tool_error", "is_interrupt": True, "error": "Exit code 137"},
        {"type": "tool_error", "error": "The user doesn't want to proceed with this tool use."},
    ]
    for data in (*wrong, *right):
        http.post(f"/api/actions/{session_id}/responses", json=data).raise_for_status()
    http.post(f"/api/sessions/{session_id}/finalize", json={"status": "failed"}).raise_for_status()
    found = events_of(http, session_id, errors=True)
    assert [event["data"]["seq"] for event in found if event["type"] == "response"] == [*range(1, len(wrong) + 1)]
    assert [event["type"] for event in found if event["type"] != "response"] == ["session_finalized"]


def test_a_brief_list_cuts_what_is_long_and_says_so(http: httpx.Client, session_id: str) -> None:
    short = {"type": "note", "text": "x" * 300}
    long = {"type": "note", "text": "x" * 1000, "list": [*range(100)], "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}}
    for data in (short, long):
        http.post(f"/api/actions/{session_id}", json=data).raise_for_status()
    whole = events_of(http, session_id, type="action")
    first, second = events_of(http, session_id, type="action", brief=True)
    assert first == whole[0]
    assert second.pop("brief") is True
    data = second.pop("data")
    deep: Any = {"a": {"b": {"c": {}}}}
    assert data == {"seq": 2, "type": "note", "text": "x" * 300 + "…", "list": [0, 1, 2, 3, 4], "deep": deep}
    assert second == {name: value for name, value in whole[1].items() if name != "data"}
