"""What an event does to a document: pure functions, on documents that callers have made anything of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.model.folds import (
    METRICS,
    STATE_FOLDS,
    deep_merge,
    encode,
    initial_document,
    merge_patch,
    metadata_after,
    path_of,
    state_after,
    state_at,
    with_members,
)
from sessionstore.model.names import UNNAMED

THEN = "2026-02-13T20:59:12.345Z"
LATER = "2026-02-13T21:00:00.000Z"

names = st.sampled_from(["a", "b", "c", "goals", "agents", "status"]) | st.text(max_size=3)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.booleans() | numbers | st.text(max_size=8)
values = st.recursive(
    st.none() | scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(names, below, max_size=3)
)
objects = st.dictionaries(names, values, max_size=4)
objects_without_null = st.dictionaries(
    names,
    st.recursive(scalars, lambda below: st.dictionaries(names, below, max_size=3)),
    max_size=4,
)

# ------------------------------------------------------------------ deep merge


@given(objects)
def test_merging_nothing_changes_nothing(document: dict[str, Any]) -> None:
    assert deep_merge(document, {}) == document
    assert deep_merge({}, document) == document


@given(objects, objects)
def test_merging_twice_is_merging_once(old: dict[str, Any], new: dict[str, Any]) -> None:
    once = deep_merge(old, new)
    assert deep_merge(once, new) == once


@given(objects, objects, objects)
def test_merging_in_pieces_gives_the_same_members(
    first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]
) -> None:
    left = deep_merge(deep_merge(first, second), third)
    right = deep_merge(first, deep_merge(second, third))
    assert set(left) == set(right)
    assert all(left[name] == right[name] for name in third if not isinstance(third[name], dict))


@given(objects, objects)
def test_what_is_merged_in_is_found_in_the_result(old: dict[str, Any], new: dict[str, Any]) -> None:
    def is_within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(name in whole and is_within(value, whole[name]) for name, value in part.items())
        return bool(part == whole)

    assert is_within(new, deep_merge(old, new))


@given(objects, objects)
def test_merging_leaves_both_documents_as_they_were(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = encode([old, new])
    deep_merge(old, new)
    merge_patch(old, new)
    assert encode([old, new]) == before


def test_null_is_a_value_in_a_deep_merge() -> None:
    assert deep_merge({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"b": None, "c": 2}}


def test_lists_are_replaced_not_joined() -> None:
    assert deep_merge({"a": [1, 2]}, {"a": [3]}) == {"a": [3]}


# ------------------------------------------------------- RFC 7396, appendix A

RFC_7396 = [
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
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("original", "patch", "result"), RFC_7396)
def test_merge_patch_is_that_of_rfc_7396(original: Any, patch: Any, result: Any) -> None:
    assert merge_patch(original, patch) == result


@given(objects_without_null, objects_without_null)
def test_a_merge_patch_without_null_is_a_deep_merge(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merge_patch(old, new) == deep_merge(old, new)


@given(objects, objects)
def test_a_merge_patch_twice_is_once(old: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(old, patch)
    assert merge_patch(once, patch) == once


# -------------------------------------------------------------------- metadata


def after(document: dict[str, Any], members: dict[str, Any], counted: dict[str, int] | None = None) -> dict[str, Any]:
    shown = dict.fromkeys(METRICS, 0) | (counted or {})
    result: dict[str, Any] = json.loads(
        metadata_after(encode(document), encode(shown), "metadata_updated", encode(members))
    )
    return result


def created(**said: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(metadata_after("{}", "{}", "session_created", encode({"initial": {}} | said)))
    return result


def test_new_metadata_has_its_members() -> None:
    config = {"model": "opus", "dangerouslySkipPermissions": True}
    assert created(initial={"config": config}, tags=["x", "x", "y"], metadata={"team": "red"}) == {
        "sandboxId": None,
        "model": "opus",
        "yoloMode": True,
        "tokenUsage": {"input": 0, "output": 0, "total": 0},
        "tags": ["x", "y"],
        "metrics": {},
        **UNNAMED,
        "team": "red",
    }


@pytest.mark.parametrize("config", [None, 5, "text", [], {"model": 7, "dangerouslySkipPermissions": "yes"}])
def test_a_config_that_is_something_else_says_nothing(config: Any) -> None:
    metadata = created(initial={"config": config})
    assert (metadata["model"], metadata["yoloMode"]) == (None, False)


def test_a_session_claimed_after_its_first_word_takes_what_its_creation_says() -> None:
    first = encode(created() | {"team": "red"})
    said = encode({"initial": {"config": {"model": "opus"}}, "tags": ["x"]})
    claimed = json.loads(metadata_after(first, "{}", "session_created", said))
    assert (claimed["model"], claimed["tags"], claimed["team"]) == ("opus", ["x"], "red")


def test_what_a_caller_has_set_outlives_the_claim() -> None:
    first = encode(created() | {"model": "haiku"})
    claimed = json.loads(
        metadata_after(first, "{}", "session_created", encode({"initial": {"config": {"model": "opus"}}}))
    )
    assert claimed["model"] == "haiku"


def test_a_resumed_session_gains_tags_and_keeps_its_model() -> None:
    first = encode(created(initial={"config": {"model": "opus"}}, tags=["x"]))
    said = encode({"initial": {"config": {"model": "other"}}, "tags": ["y", "x"], "metadata": {"n": 1}})
    resumed = json.loads(metadata_after(first, "{}", "session_resumed", said))
    assert (resumed["model"], resumed["tags"], resumed["n"]) == ("opus", ["x", "y"], 1)


@pytest.mark.parametrize(
    ("owner", "members", "result"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({}, {"a.b": 1}, {"a": {"b": 1}}),
        ({"a": {"c": 2}}, {"a.b": 1}, {"a": {"c": 2, "b": 1}}),
        ({"a": 5}, {"a.b": 1}, {"a": {"b": 1}}),
        ({"a": 5}, {"a": "+3"}, {"a": 8}),
        ({"a": 0.5}, {"a": "+3"}, {"a": 3.5}),
        ({"a": {"b": 5}}, {"a.b": "+3"}, {"a": {"b": 8}}),
        ({"a": "text"}, {"a": "+3"}, {"a": "+3"}),
        ({"a": True}, {"a": "+3"}, {"a": "+3"}),
        ({}, {"a": "+3"}, {"a": "+3"}),
        ({"a": 5}, {"a": "+3x"}, {"a": "+3x"}),
        ({"a": 5}, {"a": "-3"}, {"a": "-3"}),
        ({"a": 5}, {"a": "+٣"}, {"a": "+٣"}),
        ({"a": 5}, {"a": "+" + "9" * 16}, {"a": "+" + "9" * 16}),
        ({"a": 2**64 - 1}, {"a": "+1"}, {"a": float(2**64)}),
        ({}, {"a..b": 1, ".": 2, "": 3}, {"a..b": 1, ".": 2, "": 3}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"c": 2}}),
        (
            {"tokenUsage": {"input": 1, "output": 2}},
            {"tokenUsage": {"input": 3}},
            {"tokenUsage": {"input": 3, "output": 2}},
        ),
    ],
)
def test_members_are_set(owner: dict[str, Any], members: dict[str, Any], result: dict[str, Any]) -> None:
    assert with_members(owner, members) == result


def test_a_name_with_an_empty_step_is_a_plain_name() -> None:
    assert [path_of(name) for name in ("a.b", "a..b", ".a", "a.", "")] == [["a", "b"], ["a..b"], [".a"], ["a."], [""]]


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_metrics_that_callers_set_are_kept_as_differences(counted: int, said: int, more: int) -> None:
    """So that what is counted later comes on top."""
    document = after(created(), {"metrics.toolCalls": said}, {"toolCalls": counted})
    assert document["metrics"].get("toolCalls", 0) + counted == said
    document = after(document, {"metrics.toolCalls": f"+{more}"}, {"toolCalls": said})
    assert document["metrics"].get("toolCalls", 0) + counted == said + more


def test_metrics_of_the_callers_own_are_kept_as_they_are() -> None:
    assert after(created(), {"metrics": {"coffee": 3}})["metrics"] == {"coffee": 3}


def test_columns_of_the_session_are_not_members() -> None:
    assert "status" not in after(created(), {"status": "waiting", "attention": {}, "parentSession": "p"})


# --------------------------------------------------------------------- initial


def test_initial_has_its_members_and_what_was_given() -> None:
    given_ = {"input": {"task": "x"}, "own": [1]}
    assert json.loads(initial_document(encode({"initial": given_}), THEN)) == {
        "$schema": "session-initial-v1",
        "timestamp": THEN,
        "source": "api",
        "input": {"task": "x"},
        "config": {},
        "own": [1],
    }


# ----------------------------------------------------------------------- state

CHANGES: dict[str, dict[str, Any]] = {
    "goal_added": {"id": "goal-1", "description": "d", "status": "pending"},
    "goal_updated": {"goalId": "goal-1", "status": "completed"},
    "agent_spawned": {"agentId": "agent-1", "type": "t", "status": "spawned"},
    "agent_updated": {"agentId": "agent-1", "status": "running"},
    "agent_completed": {"agentId": "agent-1", "result": 1},
}

new_state = state_after("{}", "session_created", None, "{}", THEN)


def fold(state: str, event_type: str, data: dict[str, Any], patch: str | None = None) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(state_after(state, event_type, patch, encode(data), LATER))
    return result


def test_there_is_a_fold_for_every_change_tested_here() -> None:
    assert {*CHANGES, "state_updated", "session_finalized", "metadata_updated"} == set(STATE_FOLDS)


@given(st.sampled_from(sorted(CHANGES)), values, values, st.sampled_from(["spawned", "active", "completed", "other"]))
def test_every_change_is_folded_into_a_state_that_is_anything(
    kind: str, goals: Any, agents: Any, list_name: str
) -> None:
    for mangled in ({"goals": goals, "agents": agents}, {"goals": [goals], "agents": {list_name: agents}}):
        state = fold(new_state, "state_updated", mangled)
        after_change = fold(encode(state), kind, CHANGES[kind])
        name, key = ("goals", "id") if kind.startswith("goal") else ("agents", "agentId")
        records = after_change["goals"] if name == "goals" else after_change["agents"]["spawned"]
        mine = [record for record in records if isinstance(record, dict) and record.get(key) == f"{name[:-1]}-1"]
        assert mine, "what was said of the goal or agent is in the state"
        assert after_change["version"] == 3


@given(objects, st.sampled_from([None, "merge-patch", "replace"]))
def test_the_version_rises_whatever_is_written_over_it(document: dict[str, Any], patch: str | None) -> None:
    for own in ({}, {"version": "x"}, {"version": 99}, {"version": None}):
        assert fold(new_state, "state_updated", document | own, patch)["version"] == 2


@given(objects)
def test_a_replaced_state_is_what_was_given(document: dict[str, Any]) -> None:
    state = fold(new_state, "state_updated", document, "replace")
    expected = {"$schema": "session-state-v1"} | json.loads(encode(document)) | {"version": 2, "timestamp": LATER}
    assert state == expected


def test_a_completed_goal_has_the_time_of_it_and_loses_it_when_it_is_opened_again() -> None:
    state = encode(fold(new_state, "goal_added", CHANGES["goal_added"]))
    done = fold(state, "goal_updated", {"goalId": "goal-1", "status": "completed"})
    assert done["goals"][0]["completedAt"] == LATER
    assert (
        "completedAt" not in fold(encode(done), "goal_updated", {"goalId": "goal-1", "status": "pending"})["goals"][0]
    )


def test_a_change_of_something_else_leaves_the_end_of_a_goal() -> None:
    state = encode(fold(new_state, "goal_added", CHANGES["goal_added"] | {"status": "completed"}))
    assert fold(state, "goal_updated", {"goalId": "goal-1", "priority": "low"})["goals"][0]["completedAt"] == LATER


def test_a_goal_cannot_be_given_another_id() -> None:
    state = encode(fold(new_state, "goal_added", CHANGES["goal_added"]))
    assert fold(state, "goal_updated", {"goalId": "goal-1", "id": "other"})["goals"][0]["id"] == "goal-1"


def test_an_agent_goes_from_active_to_completed_and_back() -> None:
    state = fold(new_state, "agent_spawned", CHANGES["agent_spawned"])
    assert (state["agents"]["active"], state["agents"]["completed"]) == (["agent-1"], [])
    state = fold(encode(state), "agent_completed", {"agentId": "agent-1"})
    assert (state["agents"]["active"], state["agents"]["completed"]) == ([], ["agent-1"])
    assert state["agents"]["spawned"][0]["completedAt"] == LATER
    state = fold(encode(state), "agent_updated", {"agentId": "agent-1", "status": "running"})
    assert (state["agents"]["active"], state["agents"]["completed"]) == (["agent-1"], [])
    assert len(state["agents"]["spawned"]) == 1


def test_an_end_without_a_beginning_is_kept() -> None:
    agent = fold(new_state, "agent_completed", {"agentId": "x", "status": "failed"})["agents"]["spawned"][0]
    assert agent == {
        "agentId": "x",
        "type": "agent",
        "task": None,
        "status": "failed",
        "spawnedAt": LATER,
        "completedAt": LATER,
    }
    assert fold(new_state, "goal_updated", {"goalId": "x", "status": "completed"})["goals"][0]["completedAt"] == LATER


def test_the_state_at_a_cursor_is_the_fold_of_what_came_before() -> None:
    events = [("session_created", None, "{}", THEN)]
    events += [(kind, None, encode(data), LATER) for kind, data in CHANGES.items()]
    document = new_state
    for kind, data in CHANGES.items():
        document = encode(fold(document, kind, data))
    assert state_at(events) == json.loads(document)
