"""What runs beside an agent and tells the session store what the agent does.

One file, to be copied into each container: Python 3.9 or newer, the standard library only at import.

    Claude Code's hooks     the pure mapping: one hook payload becomes one event of the store
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False  # not typing's own: every hook starts an interpreter, and importing typing would slow each start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeGuard

    Members = dict[str, Any]
    # Takes what it renames out of the members that are left of a payload, and knows Claude Code's own session id where
    # the session has another (else ""). None: the payload does not name what the event needs.
    Builder = Callable[[Members, str], "tuple[str, Members] | None"]

# ---------------------------------------------------------------------------------------------------------------------
# Claude Code's hooks
# ---------------------------------------------------------------------------------------------------------------------


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ID_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ID_RULE = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit, no '..'"
_ID_LENGTH = 128
_DIGEST_LENGTH = 16  # hex digits: enough to tell apart the payloads of one session

# What the store gives an entry or a record, or reads a meaning into: no leftover member may pose as one of these.
_ENTRY_HAS = _names("type seq cursor receivedAt timestamp eventId sessionId agentId userId attention payload")
_AGENT_HAS = _names("task status result spawnedAt completedAt parentAgentId subsession")
_GOAL_HAS = _names("id goalId description details priority status completedAt")
_RECORD_HAS = {
    "agent_spawned": _AGENT_HAS,
    "agent_completed": _AGENT_HAS,
    "goal_added": _GOAL_HAS,
    "goal_updated": _GOAL_HAS,
    "session_finalized": _names("status outcome response exitCode"),
}
_METADATA_HAS = _names(
    """$schema sessionId sandboxId userId created updated status yoloMode tokenUsage metrics tags parentSession
    subsessions phase currentStep attention goals agents actions responses ended duration resumes lastCursor payload"""
)

_ASKING_NOTIFICATIONS = {
    "permission_prompt": "permission",
    "idle_prompt": "input",
    "agent_needs_input": "input",
    "elicitation_dialog": "question",
    "elicitation_url_dialog": "question",
}
_UNSAID = {
    "permission": "Claude asks for permission",
    "input": "Claude is done and waits for the next prompt",
    "question": "Claude has a question",
}
_TELLING_INPUTS = ("command", "file_path", "notebook_path", "path", "url", "pattern", "query", "description", "prompt")
_GIST_LENGTH = 200
_QUOTE_LENGTH = 300


def snake_case(name: str) -> str:
    """A hook's name as the type of an entry, never empty: PreCompact is pre_compact."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", parted).strip("_").lower() or "hook"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_id(value: object) -> TypeGuard[str]:
    """Whether the store takes this as an id; no regular expression, so that a hook need not compile one."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _ID_LENGTH
        and value[0] not in "._-"
        and ".." not in value
        and _ID_ALPHABET.issuperset(value)
    )


def _digest(text: str) -> str:
    import hashlib  # here, because a hook that brings its own event id never gets this far

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def _renamed(left: Members, **names: str) -> Members:
    return {new: left.pop(old) for old, new in names.items() if old in left}


def _renamed_texts(left: Members, **names: str) -> Members:
    """As `_renamed`, for members that the store takes only as text: anything else stays left."""
    return _renamed(left, **{old: new for old, new in names.items() if _text(left.get(old))})


def _keep(left: Members, home: Members, reserved: Iterable[str]) -> None:
    """Moves all that is left into `home`, as it is; what would pose as something else goes together under `payload`."""
    taken = frozenset(home).union(reserved)
    aside = {name: left.pop(name) for name in list(left) if name in taken}
    home.update(left)
    if aside:
        home["payload"] = aside
    left.clear()


# For whom or what the session waits


def _attention(reason: str, message: object, **more: str) -> Members:
    said = _text(message) if _text(message).strip() else _UNSAID[reason]
    return {"attention": {"reason": reason, "message": said, **more}}


def _gist(tool_input: object) -> str:
    """The text in a tool's input that tells a person most, on one line; empty if there is none."""
    if not isinstance(tool_input, dict):
        return ""
    values = [tool_input.get(name) for name in _TELLING_INPUTS] + list(tool_input.values())
    words = next(filter(None, (_text(value).split() for value in values)), [])
    return " ".join(words)[:_GIST_LENGTH]


def _asks_nobody(left: Members) -> Members:
    return {}


def _asks_no_longer(left: Members) -> Members:
    return {"attention": None}


def _asks_permission(left: Members) -> Members:
    tool = _text(left.get("tool_name"))
    message = ": ".join(filter(None, (tool, _gist(left.get("tool_input")))))
    return _attention("permission", message, **({"tool": tool} if tool else {}))


def _asks_if_so_notified(left: Members) -> Members:
    reason = _ASKING_NOTIFICATIONS.get(_text(left.get("notification_type")))
    return _attention(reason, left.get("message")) if reason else {}


def _asks_question(left: Members) -> Members:
    return _attention("question", left.get("message"))


def _asks_next_prompt(left: Members) -> Members:
    return _attention("input", _text(left.get("last_assistant_message"))[:_QUOTE_LENGTH])


# One builder for each kind of event


def _logs(
    event_type: str, entry_type: str, asks: Callable[[Members], Members] = _asks_nobody, /, **renamed: str
) -> Builder:
    def build(left: Members, claude_id: str) -> tuple[str, Members]:
        attention = asks(left)
        return event_type, {"type": entry_type, **_renamed(left, **renamed), **attention}

    return build


def _named_action(left: Members, claude_id: str) -> tuple[str, Members]:
    return "action", {"type": snake_case(left["hook_event_name"])}


def _session_created(left: Members, claude_id: str) -> tuple[str, Members]:
    initial: Members = {"source": "claude-code"}
    reserved = {*_METADATA_HAS, *(name for name in left if "." in name)}  # a dotted name would reach into an object
    if isinstance(left.get("model"), str):
        initial["config"] = {"model": left["model"]}
    else:
        reserved.add("model")
    metadata = {"claudeSessionId": claude_id} if claude_id else {}
    _keep(left, metadata, reserved)
    return "session_created", {"initial": initial, "metadata": metadata}


def _session_finalized(left: Members, claude_id: str) -> tuple[str, Members]:
    return "session_finalized", {"status": "success"}


def _agent(left: Members) -> Members:
    return {**_renamed(left, agent_id="agentId"), **_renamed_texts(left, agent_type="type")}


def _agent_spawned(left: Members, claude_id: str) -> tuple[str, Members] | None:
    if not _is_id(left.get("agent_id")):
        return None
    return "agent_spawned", {"type": "subagent", **_agent(left)}


def _agent_completed(left: Members, claude_id: str) -> tuple[str, Members] | None:
    if not _is_id(left.get("agent_id")):
        return None
    result = _renamed(left, last_assistant_message="result")
    return "agent_completed", {"type": "internal", **_agent(left), "status": "completed", **result}


def _goal_id(task_id: str, claude_id: str) -> str:
    """Claude Code counts tasks from 1 in each of its sessions, and several of those may share one of the store's."""
    named = "-".join(filter(None, ("task", claude_id[:8], task_id)))
    safe = re.sub(r"[^A-Za-z0-9._-]|(?<=\.)\.", "-", named)
    if len(safe) <= _ID_LENGTH:
        return safe
    return f"{safe[: _ID_LENGTH - _DIGEST_LENGTH - 1]}-{_digest(named)}"


def _task(left: Members) -> Members:
    return {**_renamed_texts(left, task_subject="description"), **_renamed(left, task_description="details")}


def _goal_added(left: Members, claude_id: str) -> tuple[str, Members] | None:
    task_id = _text(left.get("task_id"))
    if not task_id:
        return None
    return "goal_added", {"id": _goal_id(task_id, claude_id), "description": task_id, **_task(left)}


def _goal_updated(left: Members, claude_id: str) -> tuple[str, Members] | None:
    task_id = _text(left.get("task_id"))
    if not task_id:
        return None
    return "goal_updated", {"goalId": _goal_id(task_id, claude_id), "status": "completed", **_task(left)}


# The mapping

_TOOL = {"tool_name": "tool", "tool_input": "input"}
_CALL = {"tool_use_id": "toolUseId", **_TOOL}
_ENDED_CALL = {**_CALL, "duration_ms": "durationMs"}

# Members that keep their name (prompt, error, message, reason …) need no mention: whatever is left is kept.
_BUILDERS: dict[str, Builder] = {
    "SessionStart": _session_created,
    "UserPromptSubmit": _logs("action", "prompt"),
    "PreToolUse": _logs("action", "tool_call", **_CALL),
    "PostToolUse": _logs("response", "tool_result", tool_response="output", **_ENDED_CALL),
    "PostToolUseFailure": _logs("response", "tool_error", **_ENDED_CALL),
    "PermissionRequest": _logs("action", "permission_request", _asks_permission, **_TOOL),
    "Notification": _logs("action", "notification", _asks_if_so_notified, notification_type="notificationType"),
    "Elicitation": _logs("action", "elicitation", _asks_question),
    "ElicitationResult": _logs("action", "elicitation_result", _asks_no_longer),
    "Stop": _logs("response", "assistant_message", _asks_next_prompt, last_assistant_message="message"),
    "StopFailure": _logs("response", "error", error_details="errorDetails", last_assistant_message="message"),
    "SubagentStart": _agent_spawned,
    "SubagentStop": _agent_completed,
    "TaskCreated": _goal_added,
    "TaskCompleted": _goal_updated,
    "SessionEnd": _session_finalized,
}

# What names the one thing that a payload is about, so that a second delivery can be recognised.
_NATURAL_KEYS = {
    "PreToolUse": ("tool_use_id",),
    "PostToolUse": ("tool_use_id",),
    "PostToolUseFailure": ("tool_use_id",),
    "PermissionDenied": ("tool_use_id",),
    "SubagentStart": ("agent_id",),
    "TaskCreated": ("task_id",),
    "MessageDisplay": ("message_id", "index"),
    "Elicitation": ("elicitation_id",),
    "ElicitationResult": ("elicitation_id",),
}


def _typed_data(payload: Members, claude_id: str) -> tuple[str, Members]:
    left = dict(payload)
    build = _BUILDERS.get(payload["hook_event_name"], _named_action)
    event_type, data = build(left, claude_id) or _named_action(left, claude_id)
    _keep(left, data, _ENTRY_HAS | _RECORD_HAS.get(event_type, frozenset()))
    return event_type, data


def _natural_key(payload: Members) -> str | None:
    hook: str = payload["hook_event_name"]
    parts = [payload.get(name) for name in _NATURAL_KEYS.get(hook, ())]
    if not parts or not all(isinstance(part, (str, int)) and part != "" for part in parts):
        return None
    try:
        digest = _digest(json.dumps(payload, sort_keys=True, separators=(",", ":")))
    except RecursionError:  # nested deeper than the store takes anyway
        return None
    key = "-".join([hook, *map(str, parts), digest])
    return key if _is_id(key) else f"{hook}-{digest}"


def _checked_session_id(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("session_id must be a string")
    if not _is_id(value):
        raise ValueError(f"session_id must be {_ID_RULE}: {value!r:.80}")
    return value


def _replaced_id(payload: Members, session: str) -> str:
    own = _text(payload.get("session_id"))
    return "" if own == session else own


def claude_code_events(
    payload: object,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    event_id: str | None = None,
    timestamp: str | None = None,
) -> list[dict[str, Any]]:
    """The events, as lines of a batch, that one Claude Code hook payload (decoded JSON) stands for: exactly one.

    `session_id` replaces Claude Code's own. Without `event_id` a payload that names one thing gets an id made from it.
    Raises ValueError, naming the field, if the payload is not an object, or its hook or its session is not named.
    """
    if not isinstance(payload, dict):
        raise ValueError("payload must be a JSON object")
    if not _text(payload.get("hook_event_name")):
        raise ValueError("hook_event_name must be a non-empty string")
    session = _checked_session_id(payload.get("session_id") if session_id is None else session_id)
    event_type, data = _typed_data(payload, claude_id=_replaced_id(payload, session))
    agent_id = payload.get("agent_id")
    event = {
        "type": event_type,
        "sessionId": session,
        "eventId": _natural_key(payload) if event_id is None else event_id,
        "userId": user_id,
        "agentId": agent_id if _is_id(agent_id) else None,
        "timestamp": timestamp,
        "data": data,
    }
    return [{name: value for name, value in event.items() if value is not None}]
