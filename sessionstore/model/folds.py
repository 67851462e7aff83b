"""Folds: what an event does to a document, as pure functions, JSON text in and JSON text out.

The triggers of schema.sql call them as SQL functions; the API folds the same
events again to show a state as it was at some cursor.
"""

from __future__ import annotations

import gc
import re
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sessionstore.model import names

Document = dict[str, Any]

LARGE = 64 << 10
"""Of JSON: what is longer may be so many containers that the garbage collector would look at them again and again."""
METRICS = ("agentsSpawned", "toolCalls", "mcpCalls", "filesModified", "bashCommands")
DONE = ("completed", "failed", "cancelled")
OF_THE_TRIGGERS = ("status", "attention", "parentSession", "cancelledAgents")
"""Members of a metadata update that are no part of the document: they change the session's row, or its state."""
INCREMENT = re.compile(r"\+[0-9]{1,15}(?:\.[0-9]{1,15})?\Z")

NEW_STATE = """
{"$schema": "session-state-v1", "version": 1, "timestamp": null, "phase": "initialization", "currentStep": null,
 "goals": [], "priorities": {"current": null, "queue": [], "blocked": []}, "expectedOutcome": {},
 "agents": {"spawned": [], "active": [], "completed": []}, "mcp": {"swarm": {}, "memory": {"keys": []}},
 "workspace": {"cwd": "/workspace", "filesCreated": [], "filesModified": [], "gitStatus": {}}, "errors": []}"""


def decode(text: str | bytes, kind: Any = Any) -> Any:
    """What JSON says. Raises what msgspec raises."""
    if len(text) <= LARGE:
        return msgspec.json.decode(text, type=kind)
    gc.disable()
    try:
        return msgspec.json.decode(text, type=kind)
    finally:
        gc.enable()


def encode(value: object) -> str:
    """Compact JSON text, members in the order they have."""
    return msgspec.json.encode(value).decode()


# ---------------------------------------------------------------------- merging


def deep_merge(old: Document, new: Document) -> Document:
    """`old` with `new` laid over it: objects merge, all else replaces, null is a value."""
    merged = dict(old)
    for name, value in new.items():
        below = merged.get(name)
        both_objects = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = deep_merge(below, value) if both_objects else value  # type: ignore[arg-type]
    return merged


def merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7396: as a deep merge, but null removes."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


# ------------------------------------------------------------- initial, metadata


def initial_document(data: str, timestamp: str) -> str:
    """initial.json of the session that `data`, the data of its session_created, makes."""
    head = {"$schema": "session-initial-v1", "timestamp": timestamp, "source": "api", "input": {}, "config": {}}
    return encode(head | (decode(data).get("initial") or {}))


def metadata_after(document: str, metrics: str, event_type: str, data: str) -> str:
    """The metadata that callers set, after one more event.

    `metrics` are the session's metrics as shown. The document keeps what callers
    changed about them, as differences from what was counted.
    """
    metadata, counted = decode(document), decode(metrics)
    shown = metadata_shown(metadata, counted, event_type, decode(data))
    return encode(shown | {"metrics": own_metrics(metadata.get("metrics", {}), counted, shown["metrics"])})


def metadata_shown(metadata: Document, metrics: Document, event_type: str, said: Document) -> Document:
    """The same with the metrics as shown; what callers may make of it is checked before it becomes an event."""
    if event_type == "metadata_updated":
        return with_members(metadata | {"metrics": metrics}, said)
    if event_type == "session_created":
        initial = said.get("initial") or {}
        metadata = names.with_input(new_metadata(initial) | changed_metadata(metadata), initial)
    tags = list(dict.fromkeys([*metadata["tags"], *(said.get("tags") or [])]))
    return with_members(metadata | {"tags": tags, "metrics": metrics}, said.get("metadata") or {})


def new_metadata(initial: Document) -> Document:
    config = initial.get("config")
    config = config if isinstance(config, dict) else {}
    model = config.get("model")
    return {
        "sandboxId": None,
        "model": model if isinstance(model, str) else None,
        "yoloMode": config.get("dangerouslySkipPermissions") is True,
        "tokenUsage": {"input": 0, "output": 0, "total": 0},
        "tags": [],
        "metrics": {},
        **names.UNNAMED,
    }


def changed_metadata(metadata: Document) -> Document:
    """What callers have changed since a session was made by its first word."""
    untouched = new_metadata({})
    return {name: value for name, value in metadata.items() if name not in untouched or value != untouched[name]}


def own_metrics(before: Document, counted: Document, shown: Document) -> Document:
    """The metrics to keep so that `shown` is shown: what callers added, and their differences from what is counted."""
    differences = {name: shown.get(name, 0) - counted.get(name, 0) + before.get(name, 0) for name in METRICS}
    others = {name: value for name, value in shown.items() if name not in METRICS}
    return others | {name: value for name, value in differences.items() if value}


def with_members(metadata: Document, members: Document) -> Document:
    """`metadata` with `members` set: `a.b` goes into an object, `"+N"` on a number adds."""
    for name, value in members.items():
        if name not in OF_THE_TRIGGERS and (path := names.place(path_of(name), value)):
            metadata = with_member(metadata, path, value)
    return names.settled(metadata, members)


def metadata_with_prompt(document: str, data: str, is_first: int) -> str:
    """The metadata after a prompt, which may name the session."""
    return encode(names.with_prompt(decode(document), decode(data), is_first == 1))


def path_of(name: str) -> list[str]:
    """The steps of a dotted name; a name with an empty step is a plain name."""
    steps = name.split(".")
    return steps if all(steps) else [name]


def with_member(owner: Document, path: list[str], value: Any) -> Document:
    name, *rest = path
    old = owner.get(name)
    if rest:
        return owner | {name: with_member(old if isinstance(old, dict) else {}, rest, value)}
    if isinstance(value, str) and INCREMENT.match(value) and isinstance(old, int | float) and not isinstance(old, bool):
        return owner | {name: total(old, float(value) if "." in value else int(value))}
    if name in ("tokenUsage", "metrics") and isinstance(value, dict) and isinstance(old, dict):
        return owner | {name: old | value}
    return owner | {name: value}


def total(number: int | float, more: int | float) -> int | float:
    """Their sum; past 64 bits a number is a float, as in every document that is read."""
    added = number + more
    return added if abs(added) < 2**63 else float(added)


# ----------------------------------------------------------------------- state


def state_after(document: str, event_type: str, patch: str | None, data: str, timestamp: str) -> str:
    """The state document after one more event (`patch` as in the event; `timestamp` of the event)."""
    return encode(next_state(decode(document), event_type, patch, data, timestamp))


def next_state(state: Document, event_type: str, patch: str | None, data: str, timestamp: str) -> Document:
    if event_type == "session_created":
        return new_state(decode(data), timestamp)
    changed = STATE_FOLDS[event_type](state, decode(data), patch, timestamp)
    return changed | {"version": state["version"] + 1, "timestamp": timestamp}


def new_state(said: Document, timestamp: str) -> Document:
    """The state that a session begins with: its folder is the one that its creation says it is in."""
    state: Document = decode(NEW_STATE) | {"timestamp": timestamp}
    where = (said.get("metadata") or {}).get("where")
    if isinstance(where, dict) and isinstance(cwd := where.get("cwd"), str):
        state["workspace"] |= {"cwd": cwd}
    return state


def state_at(events: Iterable[tuple[str, str | None, str, str]], state: Document | None = None) -> Document:
    """The state after `events` (type, patch, data, timestamp), of which the first is the session_created, unless it
    goes on from `state`."""
    state = state or {}
    for event in events:
        state = next_state(state, *event)
    return state


def update_state(state: Document, data: Document, patch: str | None, timestamp: str) -> Document:
    if patch == "replace":
        return {"$schema": "session-state-v1"} | data
    if patch == "merge-patch":
        merged: Document = merge_patch(state, data)
        return merged
    return deep_merge(state, data)


def add_goal(state: Document, goal: Document, patch: str | None, timestamp: str) -> Document:
    if goal.get("status") == "completed":
        goal = {"completedAt": timestamp} | goal
    if position_of(goals_of(state), "id", goal["id"]) is not None:  # its end came first, or it is told of again
        return update_goal(state, goal | {"goalId": goal["id"]}, patch, timestamp)
    return state | {"goals": [*goals_of(state), goal]}


def update_goal(state: Document, data: Document, patch: str | None, timestamp: str) -> Document:
    goal_id = data["goalId"]
    change = {name: value for name, value in data.items() if name not in ("goalId", "id")}
    goals = goals_of(state)
    position = position_of(goals, "id", goal_id)
    if position is None:  # its beginning never came: what is known of it is kept
        goal = {"id": goal_id, "description": goal_id, "priority": "medium", "status": "pending"} | change
        return add_goal(state, goal, patch, timestamp)
    goals[position] = with_end(goals[position] | change, change, timestamp, ("completed",))
    return state | {"goals": goals}


def with_end(record: Document, change: Document, timestamp: str, ends: tuple[str, ...]) -> Document:
    """`record` with `completedAt` true to a status that `change` gave it: its first end is its end."""
    if "status" not in change or "completedAt" in change:
        return record
    if change["status"] in ends:
        return record if "completedAt" in record else record | {"completedAt": timestamp}
    return {name: value for name, value in record.items() if name != "completedAt"}


def spawn_agent(state: Document, agent: Document, patch: str | None, timestamp: str) -> Document:
    spawned = agents_of(state)["spawned"]
    position = position_of(spawned, "agentId", agent["agentId"])
    known = {} if position is None else spawned[position]
    if ended_before(timestamp, known):  # it goes on
        known = without_end(known) | {"status": "spawned"}
    elif had_ended(known, timestamp):
        agent = without_turn(agent)
    agent = cancelled(agent)
    ended = {"completedAt": timestamp} if agent.get("status") in DONE else {}
    return with_agent(state, ended | known | agent)


def ended_before(timestamp: str, agent: Document) -> bool:
    """Whether an agent had come to an end. One of which only the end is known began and ended at the same time."""
    ended = agent.get("completedAt")
    return isinstance(ended, str) and agent.get("spawnedAt") != ended and ended < timestamp


def without_end(agent: Document) -> Document:
    return {name: value for name, value in agent.items() if name not in ("status", "completedAt", "result", "endedBy")}


def update_agent(state: Document, data: Document, patch: str | None, timestamp: str) -> Document:
    """What is told of an agent: what was before its end does not bring it back."""
    known = known_agent(state, data["agentId"], timestamp)
    if "endedBy" in known and data.get("status") in DONE and "endedBy" not in data:
        known = without_end(known)  # that was only its session's end
    elif had_ended(known, timestamp):
        data = without_turn(data)
    elif "status" in data:
        known = {name: value for name, value in known.items() if name != "endedBy"}
    data = cancelled(data)
    return with_agent(state, with_end(known | data, data, timestamp, DONE))


def known_agent(state: Document, agent_id: str, timestamp: str) -> Document:
    spawned = agents_of(state)["spawned"]
    position = position_of(spawned, "agentId", agent_id)
    if position is None:
        return {"agentId": agent_id, "type": "agent", "task": None, "status": "spawned", "spawnedAt": timestamp}
    known: Document = spawned[position]
    return known


def cancelled(change: Document) -> Document:
    """What is told of an agent after the end of its session, though it was before: the store has said `endedBy`."""
    return change | {"status": "cancelled"} if "endedBy" in change else change


def without_turn(change: Document) -> Document:
    """What is told of an agent, but that it goes on, or goes with its session: it had ended by itself."""
    if change.get("status") in DONE and "endedBy" not in change:
        return change
    return {name: value for name, value in change.items() if name not in ("status", "completedAt", "endedBy")}


def had_ended(agent: Document, timestamp: str) -> bool:
    """Whether an agent was to have ended after this moment, or with its session in this very moment."""
    ended = agent.get("completedAt")
    if agent.get("status") not in DONE or not isinstance(ended, str):
        return False
    return timestamp < ended or (timestamp == ended and "endedBy" in agent)


def complete_agent(state: Document, data: Document, patch: str | None, timestamp: str) -> Document:
    """The first end of an agent is its end, unless that was only the session's; a later one adds nothing."""
    known = known_agent(state, data["agentId"], timestamp)
    if known.get("status") in DONE and "endedBy" not in known:
        return state
    return update_agent(state, {"status": "completed"} | data, patch, timestamp)


def cancel_agents(state: Document, data: Document, patch: str | None, timestamp: str) -> Document:
    """The end of a session is that of the agents that were still at work, which the store has named in it."""
    for agent_id in data["cancelledAgents"]:
        position = position_of(agents_of(state)["spawned"], "agentId", agent_id)
        if position is not None and (agent := agents_of(state)["spawned"][position]).get("status") not in DONE:
            end = {"status": "cancelled", "completedAt": timestamp, "endedBy": "session"}
            state = with_agent(state, agent | end)
    return state


def with_agent(state: Document, agent: Document) -> Document:
    """`state` with `agent` in its three lists: all ever spawned, the ids that work, the ids that are done."""
    agents, agent_id = agents_of(state), agent["agentId"]
    position = position_of(agents["spawned"], "agentId", agent_id)
    if position is None:
        agents["spawned"].append(agent)
    else:
        agents["spawned"][position] = agent
    here, there = ("completed", "active") if agent.get("status") in DONE else ("active", "completed")
    agents[there] = [other for other in agents[there] if other != agent_id]
    if agent_id not in agents[here]:
        agents[here].append(agent_id)
    return state | {"agents": agents}


def goals_of(state: Document) -> list[Any]:
    """A copy of the list of goals, whatever callers have put in its place."""
    goals = state.get("goals")
    return list(goals) if isinstance(goals, list) else []


def agents_of(state: Document) -> Document:
    agents = state.get("agents")
    agents = dict(agents) if isinstance(agents, dict) else {}
    for name in ("spawned", "active", "completed"):
        agents[name] = list(agents[name]) if isinstance(agents.get(name), list) else []
    return agents


def position_of(records: list[Any], key: str, value: str) -> int | None:
    for position, record in enumerate(records):
        if isinstance(record, dict) and record.get(key) == value:
            return position
    return None


StateFold = Callable[[Document, Document, str | None, str], Document]

STATE_FOLDS: dict[str, StateFold] = {
    "state_updated": update_state,
    "goal_added": add_goal,
    "goal_updated": update_goal,
    "agent_spawned": spawn_agent,
    "agent_updated": update_agent,
    "agent_completed": complete_agent,
    "session_finalized": cancel_agents,
    "metadata_updated": cancel_agents,
}


def register(connection: sqlite3.Connection) -> None:
    """Make the functions that the triggers call known to the connection that writes."""
    connection.create_function("initial_document", 2, initial_document, deterministic=True)
    connection.create_function("metadata_after", 4, metadata_after, deterministic=True)
    connection.create_function("metadata_with_prompt", 3, metadata_with_prompt, deterministic=True)
    connection.create_function("state_after", 5, state_after, deterministic=True)
