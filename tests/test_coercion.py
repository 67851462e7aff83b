"""Coercion: what becomes of lines of a batch that are not quite valid, and of what was given in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hook_agent import MOST_TEXTS, number_of_texts
from sessionstore.model.drafts import BODIES
from sessionstore.model.events import EVENT_TYPES
from sessionstore.model.lines import drafts_of_batch
from tests.repeats import examples
from tests.test_events import batch, events_of, line

Json = dict[str, Any]
LIMIT = 1 << 20

# ------------------------------------------------------------------ what becomes of it


def stored(http: httpx.Client, *lines: Any) -> Any:
    """The event that the last line becomes."""
    answer = batch(http, *lines)
    assert (answer["accepted"], answer["rejected"]) == (len(lines), [])
    return events_of(http, lines[-1]["sessionId"])[-1]


@pytest.mark.parametrize(
    ("event_type", "data", "becomes"),
    [
        ("action", {}, {"type": "action"}),
        ("response", {"n": 1}, {"type": "response", "n": 1}),
        ("action", {"type": 5}, {"type": "5", "given": {"type": 5}}),
        ("action", {"type": None}, {"type": "action", "given": {"type": None}}),
        ("action", {"type": ["a"]}, {"type": '["a"]', "given": {"type": ["a"]}}),
        ("action", {"type": 3, "given": "mine"}, {"type": "3", "given": {"type": 3, "given": "mine"}}),
        ("action", {"type": 3, "given": {"a": 1}}, {"type": "3", "given": {"type": 3, "a": 1}}),
        ("action", {"type": 3, "given": {"type": 1}}, {"type": "3", "given": {"type": 3, "given": {"type": 1}}}),
        ("action", "text", {"type": "action", "given": {"data": "text"}}),
        ("action", {"type": "a", "timestamp": "noon"}, {"type": "a", "given": {"timestamp": "noon"}}),
        (
            "action",
            {"type": "a", "agentId": "Agent Smith"},
            {"type": "a", "agentId": "Agent-Smith", "given": {"agentId": "Agent Smith"}},
        ),
        ("action", {"type": "a", "agentId": {}}, {"type": "a", "given": {"agentId": {}}}),
        ("goal_added", {"id": "g"}, {"id": "g", "description": "", "priority": "medium", "status": "pending"}),
        (
            "goal_added",
            {"id": 7, "description": ["x"], "priority": 1, "status": None},
            {
                "id": "7",
                "description": '["x"]',
                "priority": "1",
                "status": "pending",
                "given": {"id": 7, "description": ["x"], "priority": 1, "status": None},
            },
        ),
        ("goal_updated", {"status": "completed"}, {"type": "goal_updated", "given": {"status": "completed"}}),
        ("goal_updated", {"goalId": "a/b"}, {"goalId": "a-b", "given": {"goalId": "a/b"}}),
        ("goal_updated", {"goalId": "nobody's"}, {"goalId": "nobody-s", "given": {"goalId": "nobody's"}}),
        (
            "goal_updated",
            {"goalId": "never-added", "status": "completed"},
            {"goalId": "never-added", "status": "completed"},
        ),
        ("agent_completed", {"result": 1}, {"type": "agent_completed", "given": {"result": 1}}),
        (
            "agent_completed",
            {"agentId": [], "type": "x"},
            {"type": "agent_completed", "given": {"agentId": [], "type": "x"}},
        ),
        (
            "agent_completed",
            {"agentId": "w", "status": "error"},
            {"agentId": "w", "status": "failed", "given": {"status": "error"}},
        ),
        (
            "agent_completed",
            {"agentId": "w", "status": "Done"},
            {"agentId": "w", "status": "completed", "given": {"status": "Done"}},
        ),
        ("agent_updated", {"agentId": "w", "status": 4}, {"agentId": "w", "status": "4", "given": {"status": 4}}),
        ("session_finalized", {"status": "done"}, {"status": "success", "given": {"status": "done"}}),
        ("session_finalized", {"status": "canceled"}, {"status": "cancelled", "given": {"status": "canceled"}}),
        ("session_finalized", {"status": "timeout"}, {"status": "failed", "given": {"status": "timeout"}}),
        ("session_finalized", {"status": None}, {"given": {"status": None}}),
        ("session_finalized", {"exitCode": "3"}, {"given": {"exitCode": "3"}}),
        ("session_finalized", {"exitCode": True}, {"given": {"exitCode": True}}),
        (
            "session_finalized",
            {"cancelledAgents": ["a", 7, {}]},
            {"cancelledAgents": ["a", "7"], "given": {"cancelledAgents": ["a", 7, {}]}},
        ),
        ("metadata_updated", {"userId": "mallory", "note": 1}, {"note": 1, "given": {"userId": "mallory"}}),
        ("metadata_updated", {"status": "splendid"}, {"given": {"status": "splendid"}}),
        ("metadata_updated", {"model": 5, "b": 1}, {"b": 1, "given": {"model": 5}}),
        ("metadata_updated", {"tokenUsage.input": "+x"}, {"given": {"tokenUsage.input": "+x"}}),
        ("metadata_updated", {"metrics": 3, "phase": "p"}, {"given": {"metrics": 3, "phase": "p"}}),
    ],
)
def test_data_that_is_not_quite_valid_becomes_what_it_can_be(
    http: httpx.Client, session_id: str, event_type: str, data: Any, becomes: Json
) -> None:
    event = stored(http, line(session_id), line(session_id, event_type, data=data, eventId="e"))
    found = {name: value for name, value in event["data"].items() if name not in ("seq", "completedAt")}
    assert found == becomes
    assert event["type"] == (event_type if event_type == "response" or becomes.get("type") != event_type else "action")
    assert batch(http, line(session_id, event_type, data=data, eventId="e"))["duplicates"] == 1


def test_a_session_begins_whatever_it_begins_with(http: httpx.Client, session_id: str) -> None:
    data = {
        "userId": "a\nb",
        "initial": 3,
        "parentSession": "the parent",
        "tags": ["one", 2],
        "metadata": {"phase": "mine", "model": 5, "own": 1},
    }
    for _ in range(2):
        answer = batch(http, line(session_id, "session_created", data=data, eventId="e"))
        assert answer["rejected"] == []
    assert answer["duplicates"] == 1
    (event,) = events_of(http, session_id)
    assert event["userId"] == "ab"
    kept = event["data"]
    assert (kept["tags"], kept["metadata"], kept["parentSession"]) == (["one", "2"], {"own": 1}, "the-parent")
    assert {"a\nb", 3, "the parent", 2, "phase", "mine", "model", 5} <= set(leaves(kept["given"]))
    assert http.get(f"/api/sessions/{session_id}").json()["metadata"]["own"] == 1


@pytest.mark.parametrize(
    ("members", "given_members"),
    [
        ({"timestamp": "yesterday"}, {"timestamp": "yesterday"}),
        ({"agentId": 5.5}, {"agentId": 5.5}),
        ({"userId": []}, {"userId": []}),
        ({"patch": "sideways"}, {"patch": "sideways"}),
        ({"timestamp": 1767323045}, {"timestamp": 1767323045}),
    ],
)
def test_what_stands_around_the_data_is_kept_in_it(
    http: httpx.Client, session_id: str, members: Json, given_members: Json
) -> None:
    assert stored(http, line(session_id, **members))["data"]["given"] == given_members


def test_an_event_whose_id_cannot_be_one_is_still_stored_once(http: httpx.Client, session_id: str) -> None:
    lines = [line(session_id, eventId="a b", data={"type": "x", "n": n}) for n in (1, 2)]
    answer = batch(http, *lines, lines[0])
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, [])
    assert [event["data"]["given"] for event in events_of(http, session_id)[1:]] == [{"eventId": "a b"}] * 2


def test_callers_of_the_api_are_told_as_ever(http: httpx.Client, session_id: str) -> None:
    assert http.post(f"/api/actions/{session_id}", json={"type": 5}).status_code == 422
    batch(http, line(session_id))
    for body in ({"model": 5}, {"phase": "mine"}, {"status": "splendid"}):
        assert http.patch(f"/api/sessions/{session_id}/metadata", json=body).status_code == 422
    assert http.post(f"/api/sessions/{session_id}/finalize", json={"status": "done"}).status_code == 422


# ------------------------------------------------------------------ whatever it is

NAMES = sorted(
    {field.encode_name for shape in BODIES.values() for field in __import__("msgspec").structs.fields(shape)}
)
texts = st.text(max_size=8) | st.sampled_from(["success", "done", "x", "2026-02-13T20:59:12Z", "+1", "goal-1", "a b"])
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(plain, lambda of: st.lists(of, max_size=3) | st.dictionaries(texts, of, max_size=3), max_leaves=6)
held = [
    "model",
    "yoloMode",
    "tokenUsage",
    "tokenUsage.input",
    "metrics",
    "metrics.toolCalls",
    "tags",
    "phase",
    "goals.x",
]
owns = st.dictionaries(
    st.sampled_from([*held, "agents", "status", "given", "metadata", "own"]) | texts, values, max_size=4
)
members = st.dictionaries(
    st.sampled_from([*NAMES, "goalId", "agentId", "given", "seq"]) | texts, values | owns, max_size=5
)
envelopes = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(EVENT_TYPES - {"session_deleted"}))},
    optional={
        "data": members | owns | values,
        "eventId": values,
        **dict.fromkeys(("agentId", "userId", "timestamp", "patch", "receivedAt", "cursor"), values),
    },
)
numbers = count()
TAKEN: Json = {"max_event_bytes": LIMIT, "is_admin": True, "redacted": lambda data: data, "hook": lambda line: []}


def leaves(value: Any) -> Iterator[Any]:
    """What is told: the names of members, and all values that are neither objects nor arrays."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


@settings(max_examples=examples(150))
@given(st.lists(envelopes, max_size=30))
@example([{"type": "agent_spawned", "data": {"agentId": None}}, {"type": "goal_added", "data": {"id": None}}])
def test_no_event_with_a_kind_and_a_session_is_rejected_and_again_it_is_the_same(
    http: httpx.Client, events: list[Json]
) -> None:
    session_id = f"any-{next(numbers)}"
    lines = [
        event | {"sessionId": session_id} | ({"eventId": f"e-{n}"} if event.get("eventId") is None else {})
        for n, event in enumerate(events)
    ]
    first = batch(http, *lines)
    others = [bad for bad in first["rejected"] if "has other content" not in bad["detail"]]
    assert others == []
    again = batch(http, *lines)
    assert again["accepted"] == 0
    assert [bad["line"] for bad in again["rejected"]] == [bad["line"] for bad in first["rejected"]], lines
    assert http.get("/ready").status_code == 200


@settings(max_examples=examples(400))
@given(envelopes)
def test_nothing_of_an_event_is_lost(event: Json) -> None:
    line = json.dumps(event | {"sessionId": "s"}).encode()
    ((_, (draft,)),), rejections = drafts_of_batch(line, **TAKEN)
    assert rejections.statuses == {}
    kept = [draft.event_id, draft.user_id, draft.agent_id, draft.type, draft.patch, *leaves(draft.data)]
    data = event.get("data")
    told = {name: value for name, value in event.items() if name not in ("receivedAt", "cursor", "data", "timestamp")}
    if isinstance(data, dict) and event["type"] not in ("state_updated", "metadata_updated"):
        data = {
            name: value
            for name, value in data.items()
            if name not in ("seq", "timestamp", "userId") and value is not None
        }
    for leaf in [*leaves(list(told.values())), *leaves(data)]:
        assert leaf is None or leaf in kept, leaf


@settings(max_examples=examples(400))
@given(envelopes)
def test_what_has_become_of_a_line_stays_as_it_is(event: Json) -> None:
    line = json.dumps(event | {"sessionId": "s"}).encode()
    drafts = []
    for _ in range(2):
        ((_, (draft,)),), _ = drafts_of_batch(line, **TAKEN)
        drafts.append(draft)
        line = json.dumps(
            {
                "type": draft.type,
                "sessionId": draft.session_id,
                "userId": draft.user_id,
                "eventId": draft.event_id,
                "agentId": draft.agent_id,
                "timestamp": draft.timestamp,
                "data": draft.data,
                "patch": draft.patch,
            }
        ).encode()
    assert drafts[0] == drafts[1]


# ------------------------------------------------------------------ however much it is


def deep(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    "members",
    [
        {"eventId": [f"text {n}" for n in range(30_000)]},
        {"data": "x" * (3 * LIMIT)},
        {"data": {"type": ["x" * LIMIT, "y" * LIMIT]}},
        {"data": {"type": [f"text {n}" for n in range(30_000)]}},
        {"userId": "x" * LIMIT, "agentId": "x" * LIMIT},
        {"userId": deep(63)},
        {"userId": deep(90)},
        {"data": {"agentId": deep(62)}},
        {"type": "goal_updated", "data": {"note": deep(62)}},
        {"type": "session_created", "data": {"metadata": {"phase": deep(61)}}},
        {"type": "metadata_updated", "data": {"model": deep(62)}},
    ],
    ids=[f"{n}" for n in range(11)],
)
def test_what_is_given_has_the_bounds_of_all_data_and_comes_back_as_it_was_stored(
    http: httpx.Client, session_id: str, members: Json
) -> None:
    event = stored(http, line(session_id), line(session_id, **members))
    assert len(json.dumps(event["data"])) <= LIMIT + 1000
    assert number_of_texts(event["data"]) <= MOST_TEXTS
    answer = batch(http, event)
    assert (answer["duplicates"], answer["rejected"]) == (1, [])
