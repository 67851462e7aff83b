"""What runs beside an agent and tells the session store what the agent does.

One file, to be copied into each container: Python 3.9 or newer, the standard library only at import.

    Claude Code's hooks     the pure mapping: one hook payload becomes one event of the store
"""

from __future__ import annotations

import json
import re
import time

TYPE_CHECKING = False  # not typing's own: every hook starts an interpreter, and importing typing would slow each start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeGuard
    from uuid import UUID

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


# ---------------------------------------------------------------------------------------------------------------------
# LangChain and LangGraph
# ---------------------------------------------------------------------------------------------------------------------

_ENTRY_LENGTH = 32_000  # characters that the values of one entry may have: a graph's state can be of any size
_OUTPUT_LENGTH = 8_000  # of a graph's output in the state, which the store writes again with every change
_RESULT_LENGTH = 1_000  # of what an agent gave, which stands there too
_TASK_LENGTH = 200
_ITEMS_SHOWN = 100
_MESSAGES_SHOWN = 10  # the newest of a list of messages
_LEVELS_SHOWN = 16
_TRACEBACK_LINES = 12
_RUNS_KEPT = 10_000  # that have begun: those that are never said to have ended would pile up

_ROLES = {"human": "user", "HumanMessageChunk": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_BLOCKS_UNSHOWN = _names("tool_use tool_call tool_call_chunk function_call thinking reasoning")
_ASKING_MEMBERS = ("question", "message", "prompt", "description", "query", "task", "action")
_PAUSING = _names("GraphInterrupt GraphDrained")
_CANCELLING = _names("CancelledError KeyboardInterrupt GeneratorExit")


# Any value as JSON for people to read. Classes are known by what they have, so that nothing need be imported.


def _is_message(value: object) -> bool:
    return "Message" in type(value).__name__ and hasattr(value, "content") and hasattr(value, "type")


def _content_text(content: object) -> str:
    """The text of a message's content, which is a text or a list of blocks; of an image, [image]."""
    return "\n".join(filter(None, map(_block_text, content))) if isinstance(content, list) else _text(content)


def _block_text(block: object) -> str:
    if not isinstance(block, dict):
        return _text(block)
    kind = _text(block.get("type"))
    return _text(block.get("text")) or ("" if kind in _BLOCKS_UNSHOWN else f"[{kind}]")


def _message_members(message: Any) -> Members:
    members = {
        "role": getattr(message, "role", None) or _ROLES.get(message.type, message.type),
        "name": getattr(message, "name", None),
        "text": _content_text(message.content),
        "toolCalls": _tool_calls(message),
        "toolUseId": getattr(message, "tool_call_id", None),
    }
    return {name: member for name, member in members.items() if member or name == "text"}


def _tool_calls(message: Any) -> list[Members]:
    return [
        {"toolUseId": call.get("id"), "tool": call.get("name"), "input": call.get("args")}
        for call in getattr(message, "tool_calls", None) or []
    ]


def _members_of(value: Any) -> Members | None:
    """The members of what has some: a dict, a message, a named tuple, a dataclass, a pydantic model; else None."""
    import dataclasses

    if isinstance(value, dict):
        return value
    if _is_message(value):
        return _message_members(value)
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return {name: it for name, it in members.items() if it} if type(value).__name__ == "Command" else members
    fields = getattr(type(value), "model_fields", None) or getattr(type(value), "__fields__", None)
    return {name: getattr(value, name, None) for name in fields} if isinstance(fields, dict) else None


def _items_of(value: Any) -> Sequence[Any] | None:
    """The items of a list, a set, or a small array (as of numpy); else None."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "tolist") and isinstance(getattr(value, "size", None), int) and value.size <= _ITEMS_SHOWN:
        items = value.tolist()
        return items if isinstance(items, list) else [items]
    return None


def _named(value: Any) -> str:
    """What is neither text nor number nor made of parts, in words, without addresses in memory."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{type(value).__name__} of {value.dtype}, {'x'.join(map(str, value.shape))}>"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


class _Reading:
    """Any values as JSON, together of about `length` characters; `is_cut` says that something was left out.

    One text has half of that, and less the deeper it lies, so that the last of many messages has room as well.
    """

    def __init__(self, length: int) -> None:
        self.length = self.left = length
        self.is_cut = False

    def of(self, value: object, level: int = 0) -> object:
        """Never raises, and looks at no more of the value than it shows."""
        if value is None or isinstance(value, (bool, int, float)):
            self.left -= 8
            return value
        if level > _LEVELS_SHOWN or self.left <= 0:
            self.is_cut = True
            return "…"
        try:
            return self._text(value, level) if isinstance(value, str) else self._parts(value, level)
        except Exception:  # of the value's own code
            return f"<{type(value).__name__}>"

    def _text(self, value: str, level: int) -> str:
        room = max(0, min(self.left, self.length // 2 >> level))
        self.is_cut |= room < len(value)
        self.left -= min(room, len(value)) + 3  # quotes and comma
        return value if len(value) <= room else value[:room] + "…"

    def _parts(self, value: object, level: int) -> object:
        if (members := _members_of(value)) is not None:
            return {
                self._text(str(name), 0): self.of(member, level + 1) for name, member in self._some(members.items())
            }
        if (items := _items_of(value)) is not None:
            return [self.of(item, level + 1) for item in self._some(self._newest(items))]
        return self._text(_named(value), level)

    def _some(self, parts: Iterable[Any]) -> Iterator[Any]:
        for number, part in enumerate(parts):
            if number == _ITEMS_SHOWN or self.left <= 0:
                self.is_cut = True
                return
            yield part

    def _newest(self, items: Sequence[Any]) -> Sequence[Any]:
        if len(items) <= _MESSAGES_SHOWN or not _is_message(items[-1]):
            return items
        self.is_cut = True
        return items[-_MESSAGES_SHOWN:]


def _readable(length: int, /, **members: object) -> Members:
    """The members that are not None, as JSON of about `length` characters; `truncated` where they had more."""
    reading = _Reading(length)
    data = {name: reading.of(member) for name, member in members.items() if member is not None}
    return {**data, "truncated": True} if reading.is_cut else data


def _last_message(value: Any) -> Any:
    """The last message in what a node takes or gives, or None."""
    if type(value).__name__ == "Command":
        value = value.update
    value = value.get("messages", value) if isinstance(value, dict) else getattr(value, "messages", value)
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return value if _is_message(value) else None


def _summary(value: object, length: int) -> str:
    """What a value says in one short text: of messages the last, of anything else its JSON."""
    message = _last_message(value)
    if message is not None:
        tools = ", ".join(_text(call["tool"]) for call in _tool_calls(message))
        return (_content_text(message.content) or (f"calls {tools}" if tools else ""))[:length]
    shown = _Reading(length).of(value)
    if isinstance(shown, str):
        return shown
    return "" if shown is None else json.dumps(shown, ensure_ascii=False)[:length]


def _question(value: object) -> str:
    """What an interrupt asks a person, as a sentence."""
    asked = value.get("action_requests", value) if isinstance(value, dict) else value  # as LangChain's middleware asks
    if isinstance(asked, list) and asked:
        asked = asked[0]
    if isinstance(asked, dict):
        asked = next((asked[name] for name in _ASKING_MEMBERS if _text(asked.get(name))), asked)
    return _summary(asked, _QUOTE_LENGTH) or "The graph has paused"


def _error_members(error: BaseException) -> Members:
    import traceback

    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    return {"error": str(error), "errorType": type(error).__name__, "traceback": lines[-_TRACEBACK_LINES:]}


def _run_status(error: BaseException) -> str:
    """The status of a run that ended so. LangGraph raises exceptions for what is no failure, too."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _PAUSING:
        return "paused"
    if kinds & _CANCELLING:
        return "cancelled"
    return "completed" if "GraphBubbleUp" in kinds else "failed"  # ParentCommand: it hands over to another node


# What models say


def _model_members(metadata: Members, parameters: Members, name: str) -> Members:
    tools = [tool.get("function", tool) for tool in parameters.get("tools") or [] if isinstance(tool, dict)]
    return {
        "name": name,
        "model": metadata.get("ls_model_name") or parameters.get("model") or parameters.get("model_name"),
        "provider": metadata.get("ls_provider"),
        "temperature": metadata.get("ls_temperature"),
        "maxTokens": metadata.get("ls_max_tokens"),
        "tools": [tool.get("name") for tool in tools] or None,
    }


def _usage(message: Any, output: Members) -> dict[str, int]:
    """Tokens; the input's include those that were read from a cache or written to it."""
    told = getattr(message, "usage_metadata", None) or output.get("token_usage") or output.get("usage") or {}
    into, out_of = told.get("input_token_details") or {}, told.get("output_token_details") or {}
    counts = {
        "inputTokens": told.get("input_tokens", told.get("prompt_tokens")),
        "outputTokens": told.get("output_tokens", told.get("completion_tokens")),
        "totalTokens": told.get("total_tokens"),
        "cacheReadTokens": into.get("cache_read"),
        "cacheCreationTokens": into.get("cache_creation"),
        "reasoningTokens": out_of.get("reasoning"),
    }
    usage = {name: count for name, count in counts.items() if isinstance(count, int)}
    if usage:
        usage.setdefault("totalTokens", usage.get("inputTokens", 0) + usage.get("outputTokens", 0))
    return usage


def _result_members(response: Any) -> Members:
    generation = next((some[0] for some in response.generations if some), None)
    message = getattr(generation, "message", None)
    output = response.llm_output or {}
    about = {**output, **(getattr(generation, "generation_info", None) or {})}
    about.update(getattr(message, "response_metadata", None) or {})
    return {
        "model": about.get("model_name") or about.get("model"),
        "usage": _usage(message, output) or None,
        "finishReason": about.get("finish_reason") or about.get("stop_reason"),
        "toolCalls": _tool_calls(message) or None,
        "text": _content_text(getattr(message, "content", None)) or getattr(generation, "text", ""),
    }


# The callbacks


class _Run:
    """One run of LangChain's that has begun: a graph, a node, a model, a tool, or one that makes no event."""

    def __init__(self, run_id: UUID, name: str, parent: _Run | None, options: Members, agent_id: str | None) -> None:
        metadata = options.get("metadata") or {}
        self.id = str(run_id)
        self.name = name
        self.root: _Run = parent.root if parent else self
        self.agent_id: str | None = parent.agent_id if parent else agent_id
        self.namespace: str = metadata.get("langgraph_checkpoint_ns") or (parent.namespace if parent else "")
        self.path: tuple[Any, ...] = tuple(metadata.get("langgraph_path") or ())
        self.is_node = (
            parent is not None
            and self.namespace != parent.namespace
            and _names_node(self.namespace)
            and "langsmith:hidden" not in (options.get("tags") or ())
        )
        self.thread = metadata.get("thread_id")
        self.asked: set[str] = set()  # of a graph: the interrupts by which it has paused
        self.tool_use_id = ""
        self.model: object = None
        self.begun = time.monotonic()

    def duration(self) -> int:
        """Milliseconds since it began."""
        return round((time.monotonic() - self.begun) * 1000)


def _names_node(namespace: str) -> bool:
    """Whether a checkpoint namespace is a node's, `outer:id|inner:id`; that of a node's second subgraph ends in |1."""
    return ":" in namespace.rpartition("|")[2]


def _worker_id(run: _Run) -> str:
    """The id of the agent that a node is, in each of its turns the same: the names of the nodes that it is inside of.

    What is sent to one node several times at once is numbered as LangGraph numbers it, so also when it is resumed.
    """
    sent = [str(run.path[1])] if run.path[:1] == ("__pregel_push",) and isinstance(run.path[1], int) else []
    named = ".".join([*filter(None, [run.agent_id]), run.name, *sent])
    if _is_id(named):
        return named
    safe = "".join(sign if sign in _ID_ALPHABET else "-" for sign in named).replace("..", "--")
    return f"node-{safe[: _ID_LENGTH // 2]}-{_digest(named)}".replace("..", ".-")


def _run_name(serialized: Members | None, options: Members) -> str:
    serialized = serialized or {}
    return options.get("name") or serialized.get("name") or str((serialized.get("id") or ["run"])[-1])


def _call(run: _Run) -> Members:
    return {"runId": run.id, "toolUseId": run.tool_use_id, "tool": run.name}


def _ended_call(run: _Run) -> Members:
    return {**_call(run), "durationMs": run.duration()}


def _forget_oldest(kept: dict[Any, Any]) -> None:
    if len(kept) > _RUNS_KEPT:
        kept.pop(next(iter(kept)), None)


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """The callback, but whatever goes wrong in it stays out of the graph."""

    def guarded(*args: Any, **options: Any) -> None:
        try:
            callback(*args, **options)
        except Exception:
            import logging

            logging.getLogger("hook_agent").debug("%s failed", callback.__name__, exc_info=True)

    return guarded


class _GraphLog:
    """LangChain's callbacks, as events of an agent's session; one for any number of runs, in any threads at once."""

    raise_error = False
    run_inline = True  # else an async graph waits for one of a pool's threads, each of which a tool may have

    def __init__(self, agent: Any, agent_id: str | None = None) -> None:
        import threading

        super().__init__()
        self._agent = agent
        self._agent_id = agent_id
        self._lock = threading.Lock()
        self._runs: dict[Any, _Run] = {}  # by their ids
        self._spawned: set[str] = set()  # agents that the store knows from here
        self._working: set[str] = set()
        self._paused: dict[str, str] = {}  # agents by the namespace of the node's turn that goes on later
        self._waiting: set[Any] = set()  # threads of graphs that wait for a person
        self._step: str | None = None  # as last said
        self._model: object = None

    # graphs and nodes

    @_guarded
    def on_chain_start(self, serialized: Members | None, inputs: object, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        if run.root is run:
            self._graph_begins(run, inputs)
        elif run.is_node:
            self._node_begins(run, inputs)

    @_guarded
    def on_chain_end(self, outputs: object, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        if run.is_node:
            self._node_ends(run, "completed", _summary(outputs, _RESULT_LENGTH))
        elif run.root is run:
            self._graph_ends(run, "paused" if run.asked else "completed", outputs)

    @_guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run, status = self._runs.pop(run_id), _run_status(error)
        if status == "paused" and run.root is not run:
            self._asks(run, error.args[0] if error.args else ())
        if run.is_node:
            handed_over = error.args[0] if status == "completed" and error.args else None
            said = f"{type(error).__name__}: {error}" if status == "failed" else _summary(handed_over, _RESULT_LENGTH)
            self._node_ends(run, status, said[:_RESULT_LENGTH])
        elif run.root is run:
            self._graph_ends(run, status, error)

    @_guarded
    def on_interrupt(self, event: Any) -> None:
        """Of LangGraph 1.2 and later: the only word of a breakpoint, which no node runs into."""
        run = self._runs.get(event.run_id)
        if run and (event.interrupts or not run.asked):
            self._asks(run, event.interrupts)

    def _graph_begins(self, run: _Run, inputs: object) -> None:
        data = _readable(_ENTRY_LENGTH, runId=run.id, graph=run.name, threadId=run.thread, input=inputs)
        self._waiting.discard(run.thread)
        if not self._waiting:
            data["attention"] = None
        self._log("action", "graph_start", run, data)
        self._step = None
        # The null makes room: the store merges objects, and the last output is no part of the next.
        self._record("state_updated", {"phase": "running", "currentStep": None, "output": None}, run)

    def _graph_ends(self, run: _Run, status: str, outcome: object) -> None:
        said: Members = {"runId": run.id, "graph": run.name, "status": status, "durationMs": run.duration()}
        state: Members = {"phase": status}
        if status == "completed":
            said["output"] = outcome
            output = _Reading(_OUTPUT_LENGTH)
            state.update(currentStep=None, output=output.of(outcome), outputTruncated=output.is_cut)
        if isinstance(outcome, BaseException) and status == "failed":
            said.update(_error_members(outcome))
        kind = "graph_error" if status == "failed" else "graph_end"
        self._log("response", kind, run, _readable(_ENTRY_LENGTH, **said))
        self._record("state_updated", state, run)

    def _node_begins(self, run: _Run, inputs: object) -> None:
        parent = run.agent_id
        with self._lock:
            run.agent_id = self._free_id(self._paused.pop(run.namespace, "") or _worker_id(run))
            is_known = run.agent_id in self._spawned
            self._spawned.add(run.agent_id)
            self._working.add(run.agent_id)
        task = _summary(inputs, _TASK_LENGTH) or None
        if is_known:
            said: Members = {"status": "running", "task": task, "result": None}
        else:
            said = {"type": run.name, "task": task, "status": "running"}
            said.update({"parentAgentId": parent} if parent else {})
        self._record("agent_updated" if is_known else "agent_spawned", {"agentId": run.agent_id, **said}, run)
        if self._step != run.name:
            self._step = run.name
            self._record("state_updated", {"currentStep": run.name}, run)

    def _node_ends(self, run: _Run, status: str, result: str) -> None:
        agent_id = run.agent_id or ""
        if status == "paused":
            self._record("agent_updated", {"agentId": agent_id, "status": status}, run)
        else:
            self._record("agent_completed", {"agentId": agent_id, "status": status, "result": result or None}, run)
        with self._lock:  # only now may another turn go by this id
            self._working.discard(agent_id)
            if status == "paused":
                self._paused[run.namespace] = agent_id
                _forget_oldest(self._paused)

    def _free_id(self, agent_id: str) -> str:
        """The same node can be at work twice at once, where two runs of a graph share a session."""
        names = (f"{agent_id[: _ID_LENGTH - 5]}-{number}" for number in range(2, 10_000))
        return next(name for name in (agent_id, *names) if name not in self._working)

    def _asks(self, run: _Run, interrupts: Any) -> None:
        """A person is waited for. What a node asks comes up through the graphs around it, but is asked once."""
        graph = run.root
        asked = {str(getattr(it, "id", None) or getattr(it, "interrupt_id", None) or it): it for it in interrupts}
        new = {name: it for name, it in asked.items() if name not in graph.asked}
        if not new and graph.asked:
            return
        graph.asked.update(new or {"breakpoint"})
        self._waiting.add(graph.thread)
        values = [{"id": name, "value": getattr(it, "value", it)} for name, it in new.items()]
        message = " / ".join(_question(it["value"]) for it in values) or f"{graph.name} has stopped at a breakpoint"
        data = _readable(_ENTRY_LENGTH, runId=graph.id, threadId=graph.thread, interrupts=values)
        data["attention"] = {"reason": "question", "message": message[:_QUOTE_LENGTH]}
        self._log("action", "interrupt", run, data)

    # tools

    @_guarded
    def on_tool_start(self, serialized: Members | None, input_str: str, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        run.tool_use_id = options.get("tool_call_id") or run.id
        inputs = options.get("inputs")
        self._say("action", "tool_call", run, **_call(run), input=input_str if inputs is None else inputs)

    @_guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        if _is_message(output) and getattr(output, "status", None) == "error":  # it told the model, and did not raise
            self._say("response", "tool_error", run, **_ended_call(run), error=_content_text(output.content))
        else:
            said = output.content if _is_message(output) else output
            self._say("response", "tool_result", run, **_ended_call(run), output=said)

    @_guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run, status = self._runs.pop(run_id), _run_status(error)
        if status == "paused":  # it asks a person, and is called anew when the answer is there
            return
        if status == "completed":
            self._say("response", "tool_result", run, **_ended_call(run), output=error.args[0] if error.args else None)
        else:
            self._say("response", "tool_error", run, **_ended_call(run), **_error_members(error))

    # models

    @_guarded
    def on_chat_model_start(
        self, serialized: Members | None, messages: list[list[Any]], *, run_id: UUID, **options: Any
    ) -> None:
        run = self._begin(run_id, serialized, options)
        self._model_called(run, "chat", options, [message for batch in messages for message in batch])

    @_guarded
    def on_llm_start(self, serialized: Members | None, prompts: list[str], *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        self._model_called(run, "text_completion", options, prompts)

    @_guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        result = _result_members(response)
        model = result.pop("model") or run.model
        self._say("response", "model_result", run, runId=run.id, model=model, durationMs=run.duration(), **result)
        self._count_tokens(run, model, result["usage"] or {})

    @_guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        said = {"runId": run.id, "model": run.model, "durationMs": run.duration(), **_error_members(error)}
        self._say("response", "model_error", run, **said)

    def _model_called(self, run: _Run, operation: str, options: Members, messages: list[Any]) -> None:
        about = _model_members(options.get("metadata") or {}, options.get("invocation_params") or {}, run.name)
        run.model = about["model"]
        last = messages[-1] if messages else None
        said = {"runId": run.id, "operation": operation, **about, "messages": len(messages), "lastMessage": last}
        self._say("action", "model_call", run, **said)

    def _count_tokens(self, run: _Run, model: object, usage: dict[str, int]) -> None:
        counts = {"input": "inputTokens", "output": "outputTokens", "total": "totalTokens"}
        data: Members = {f"tokenUsage.{name}": f"+{usage[it]}" for name, it in counts.items() if usage.get(it, 0) > 0}
        if model and model != self._model:
            data["model"] = self._model = model
        if data:
            self._record("metadata_updated", data, run)

    # retrievers, what a program says itself, agents of old

    @_guarded
    def on_retriever_start(self, serialized: Members | None, query: str, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        self._say("action", "retriever_call", run, runId=run.id, retriever=run.name, query=query)

    @_guarded
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        found = [{"id": getattr(it, "id", None), "text": it.page_content, "metadata": it.metadata} for it in documents]
        said = {"runId": run.id, "retriever": run.name, "durationMs": run.duration(), "documents": found}
        self._say("response", "retriever_result", run, **said)

    @_guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run = self._runs.pop(run_id)
        said = {"runId": run.id, "retriever": run.name, "durationMs": run.duration(), **_error_members(error)}
        self._say("response", "retriever_error", run, **said)

    @_guarded
    def on_custom_event(self, name: str, data: object, *, run_id: UUID, **options: Any) -> None:
        self._say("action", "custom_event", self._runs.get(run_id), name=name, data=data)

    @_guarded
    def on_agent_action(self, action: Any, *, run_id: UUID, **options: Any) -> None:
        said = {"tool": action.tool, "input": action.tool_input, "log": action.log}
        self._say("action", "agent_action", self._runs.get(run_id), **said)

    @_guarded
    def on_agent_finish(self, finish: Any, *, run_id: UUID, **options: Any) -> None:
        self._say("response", "agent_finish", self._runs.get(run_id), output=finish.return_values, log=finish.log)

    # what all of them need

    def _begin(self, run_id: UUID, serialized: Members | None, options: Members) -> _Run:
        with self._lock:
            parent = self._runs.get(options.get("parent_run_id"))
            run = _Run(run_id, _run_name(serialized, options), parent, options, self._agent_id)
            self._runs[run_id] = run
            _forget_oldest(self._runs)
        return run

    def _say(self, event_type: str, entry_type: str, run: _Run | None, /, **members: object) -> None:
        self._log(event_type, entry_type, run, _readable(_ENTRY_LENGTH, **members))

    def _log(self, event_type: str, entry_type: str, run: _Run | None, data: Members) -> None:
        self._record(event_type, {"type": entry_type, **data}, run)

    def _record(self, event_type: str, data: Members, run: _Run | None) -> None:
        self._agent._record(event_type, data, agent_id=run.agent_id if run else self._agent_id)


_langchain_handler_class: Any = None  # made when it is first asked for: importing LangChain takes most of a second


def _langchain_handler(agent: Any, agent_id: str | None = None) -> Any:
    """A LangChain callback handler that logs to the session of `agent`; ImportError where there is no LangChain."""
    global _langchain_handler_class
    if _langchain_handler_class is None:
        _langchain_handler_class = type("SessionCallbackHandler", (_GraphLog, _callback_base()), {})
    return _langchain_handler_class(agent, agent_id)


def _callback_base() -> type:
    try:
        from langchain_core.callbacks import BaseCallbackHandler
    except ImportError as error:
        raise ImportError("langchain_handler() needs LangChain: pip install langchain-core") from error
    try:
        from langgraph.callbacks import GraphCallbackHandler
    except ImportError:  # no LangGraph, or one before 1.2
        return BaseCallbackHandler
    return GraphCallbackHandler
