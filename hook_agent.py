"""What runs beside an agent and tells the session store what the agent does.

One file, to be copied into each container: Python 3.9 or newer, the standard library only at import.

    Claude Code's hooks     the pure mapping: one hook payload becomes one event of the store
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False  # not typing's own: every hook starts an interpreter, and importing typing would slow each start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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


# ---------------------------------------------------------------------------------------------------------------------
# Claude Code's settings
# ---------------------------------------------------------------------------------------------------------------------

# Not among them: WorktreeCreate (a hook there replaces git's worktrees), FileChanged (wants names of files),
# PreModelSwitch (its timeout blocks) and MessageDisplay (what is shown waits for it).
_HOOKED = """
    SessionStart Setup InstructionsLoaded UserPromptSubmit UserPromptExpansion PreToolUse PermissionRequest
    PermissionDenied PostToolUse PostToolUseFailure PostToolBatch Notification SubagentStart SubagentStop TaskCreated
    TaskCompleted Stop StopFailure TeammateIdle ConfigChange CwdChanged DirectoryAdded WorktreeRemove PreCompact
    PostCompact PostModelSwitch Elicitation ElicitationResult SessionEnd
"""
_HOOK_SECONDS = 5
_END_SECONDS = 10
_END_BUDGET = "CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS"  # without it, older clients end all of SessionEnd after 1.5 s
_END_BUDGET_MS = "10500"  # a little more than the hook's own, and a number that nobody else writes: so it is known as ours
_BYTE_ORDER_MARK = "\ufeff"
_MANAGED_SETTINGS = "/etc/claude-code/managed-settings.d/50-session-store.json"
_OUR_COMMAND = r"\bhook_agent(\.hook\(\)|\.py['\"]? hook\b)"


class _Refused(Exception):
    """The settings are left as they are. The message says why, and where."""


def _hook_command() -> str:
    """The shell command of each hook: silent and 0 whatever happens, also when the interpreter or this file is gone.

    A module is compiled once and a script each time, so this file is imported. Its folder comes last in the path:
    what else lies there must not take the place of the standard library.
    """
    import json
    import shlex

    python = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)  # outlives a venv
    folder = json.dumps(os.path.dirname(os.path.abspath(__file__)), ensure_ascii=False)
    code = f"import sys; sys.path.append({folder}); import hook_agent; hook_agent.hook()"
    return f"{shlex.quote(python)} -I -S -c {shlex.quote(code)} >/dev/null 2>&1 || :"


# The text of the settings. It is changed in place, element by element, so that all else stays as it is to the byte, and
# taking out what was put in gives back what was there. Whether a container was there before, though empty, shows in
# its line breaks: one that is made here has as many before its first element as after its last; one that is found
# empty gets one more before.


class _Element:
    """One element of an array or object in a text: its name if it is a member, its value, and where all of it is."""

    def __init__(self, name: str, value: Any, start: int, value_start: int, end: int) -> None:
        self.name, self.value = name, value
        self.start, self.value_start, self.end = start, value_start, end


def _skip(text: str, at: int) -> int:
    """The next place that is not white space."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def _elements(text: str, opening: int) -> tuple[list[_Element], int]:
    """The elements of the container that opens at `opening` in this JSON text, and where it closes."""
    import json

    value_at = json.JSONDecoder().raw_decode
    elements = []
    at = _skip(text, opening + 1)
    while text[at] not in "]}":
        start, name = at, ""
        if text[opening] == "{":
            name, at = value_at(text, at)
            at = _skip(text, _skip(text, at) + 1)
        value, end = value_at(text, at)
        elements.append(_Element(name, value, start, at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return elements, at


def _root(text: str) -> int:
    return _skip(text, text.startswith(_BYTE_ORDER_MARK))


def _line(text: str, at: int) -> str:
    """The line break and the white space that this place's line begins with."""
    begin = text.rfind("\n", 0, at) + 1
    margin = text[begin:at]
    return ("\r\n" if "\r\n" in text else "\n") + margin[: len(margin) - len(margin.lstrip(" \t"))]


def _indent(text: str) -> str:
    """How much deeper each level stands: as much as the first member of all, if it has a line of its own."""
    return _line(text, _skip(text, _root(text) + 1)).lstrip("\r\n") or "  "


def _with_element(text: str, opening: int, element: str) -> str:
    """The text with one more element at the end of that container, spaced as the one before it."""
    elements, closing = _elements(text, opening)
    if not elements:
        lead = text[opening + 1 : closing] + _line(text, opening) + _indent(text)
        return text[: opening + 1] + lead + element + text[opening + 1 :]
    last = elements[-1]
    line = _line(text, last.start)
    space = line if text[: last.start].endswith(line) else " "
    return text[: last.end] + "," + space + element + text[last.end :]


def _with_inner_element(text: str, opening: int, path: tuple[str, ...], element: str) -> str:
    """The text with one more element at the end of the container that `path` leads to, which is made if need be.

    Each step is the name of a member and, as its last character, the bracket that its value begins with.
    """
    if not path:
        return _with_element(text, opening, element)
    name, bracket, further = path[0][:-1], path[0][-1], path[1:]
    elements, _ = _elements(text, opening)
    there = [member for member in elements if member.name == name][-1:]  # where a name stands twice, the last counts
    if not there:
        line = _line(text, elements[-1].start if elements else opening) + _indent(text) * (not elements)
        return _with_element(text, opening, _wrapped(path, element, line, _indent(text)))
    if text[there[0].value_start] != bracket:
        line_number = text.count("\n", 0, there[0].value_start) + 1
        kind = {"{": "an object", "[": "an array"}[bracket]
        raise _Refused(f'line {line_number}: "{name}" should be {kind}')
    return _with_inner_element(text, there[0].value_start, further, element)


def _wrapped(path: tuple[str, ...], element: str, line: str, indent: str) -> str:
    """The element inside new containers: an array on the line of its member, an object with a line for each of its."""
    if not path:
        return element
    name = f'"{path[0][:-1]}": ' if path[0][:-1] else ""
    if path[0].endswith("["):
        return f"{name}[{_wrapped(path[1:], element, line, indent)}]"
    return f"{name}{{{line}{indent}{_wrapped(path[1:], element, line + indent, indent)}{line}}}"


def _places(
    text: str, opening: int, path: tuple[str, ...], wanted: Callable[[Any], bool]
) -> Iterator[list[tuple[int, int]]]:
    """Where the wanted values at `path` are: for each, the containers on the way to it, each with the index in it.

    A step is the name of a member, or empty for every element.
    """
    for index, element in enumerate(_elements(text, opening)[0]):
        if path[0] not in ("", element.name):
            continue
        if len(path) == 1:
            if wanted(element.value):
                yield [(opening, index)]
        elif isinstance(element.value, (dict, list)):
            for further in _places(text, element.value_start, path[1:], wanted):
                yield [(opening, index), *further]


def _without_element(text: str, place: list[tuple[int, int]]) -> str:
    """The text without the element at this place, and without the containers made for it alone; "" if that is all."""
    for opening, index in reversed(place):
        elements, closing = _elements(text, opening)
        if index:
            return text[: elements[index - 1].end] + text[elements[index].end :]
        if len(elements) > 1:
            return text[: elements[0].start] + text[elements[1].start :]
        before, after = text[opening + 1 : elements[0].start], text[elements[0].end : closing]
        if before.count("\n") != after.count("\n"):
            return text[: opening + 1] + text[elements[0].end :]
    return ""


# What install puts into it, and uninstall takes out


def _is_ours(hook: object) -> bool:
    return isinstance(hook, dict) and bool(re.search(_OUR_COMMAND, _text(hook.get("command"))))


def _installed(text: str, command: str) -> str:
    """The settings, empty if there are none, with our hooks, each of which has this command. Raises _Refused."""
    for event in _HOOKED.split():
        seconds = _END_SECONDS if event == "SessionEnd" else _HOOK_SECONDS
        text = _with_hook(text, event, {"type": "command", "command": command, "timeout": seconds})
    if any(_places(text, _root(text), ("env", _END_BUDGET), lambda _: True)):
        return text
    return _with_inner_element(text, _root(text), ("env{",), f'"{_END_BUDGET}": "{_END_BUDGET_MS}"')


def _with_hook(text: str, event: str, hook: dict[str, Any]) -> str:
    import json

    group = json.dumps({"hooks": [hook]}, ensure_ascii=False)
    path = ("hooks{", f"{event}[")
    if not text:
        return _wrapped(("{", *path), group, "\n", "  ") + "\n"
    there = [place[-1] for place in _places(text, _root(text), ("hooks", event, "", "hooks", ""), _is_ours)]
    for opening, index in reversed(there):
        older = _elements(text, opening)[0][index]
        if older.value != hook:
            text = text[: older.start] + json.dumps(hook, ensure_ascii=False) + text[older.end :]
    return text if there else _with_inner_element(text, _root(text), path, group)


def _uninstalled(text: str) -> str:
    """The settings without our hooks; empty if there was nothing else."""
    for path, wanted in (
        (("hooks", "", "", "hooks", ""), _is_ours),
        (("env", _END_BUDGET), lambda value: value == _END_BUDGET_MS),
    ):
        while text and (place := next(_places(text, _root(text), path, wanted), None)):
            text = _without_element(text, place)
    return text


# The file of the settings


def _settings_file(where: str, project: str) -> str:
    """The file to write for `user`, `project` (in this folder) or `managed`: not a link to it, but itself."""
    if where == "managed":
        return os.path.realpath(_MANAGED_SETTINGS)
    if where == "user":
        folder = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.join(os.path.expanduser("~"), ".claude")
    elif os.path.isdir(project):
        folder = os.path.join(project, ".claude")
    else:
        raise _Refused(f"There is no folder {project}")
    return os.path.realpath(os.path.join(folder, "settings.json"))


def _read_settings(path: str) -> str:
    """The text of the settings; empty if there is no such file. Raises _Refused where it is no JSON object."""
    import json

    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        if not isinstance(json.loads(text.lstrip(_BYTE_ORDER_MARK)), dict):
            raise _Refused(f"{path} line 1 column 1: the settings should be an object")
    except FileNotFoundError:
        return ""
    except json.JSONDecodeError as error:
        raise _Refused(f"{path} line {error.lineno} column {error.colno} is not JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _Refused(f"{path} cannot be read: {error}") from None
    return text


def _write_settings(path: str, text: str) -> None:
    """In place of the old file, with its mode and owner, at one instant."""
    unfinished = f"{path}.{os.getpid()}.tmp"
    with open(unfinished, "x", encoding="utf-8", newline="") as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            _take_after(path, file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise


def _take_after(path: str, descriptor: int) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _make_folder(path: str) -> int:
    """Makes a folder, and those above it; how many it had to make."""
    if os.path.isdir(path):
        return 0
    above = _make_folder(os.path.dirname(path))
    os.mkdir(path)
    return above + 1


def _install_into(path: str) -> bool:
    """Whether that changed anything. A new file ends with a blank line for each folder that was made for it."""
    old = _read_settings(path)
    new = _installed(old, _hook_command())
    if new == old:
        return False
    made = _make_folder(os.path.dirname(path))
    _write_settings(path, new + ("" if old else "\n" * made))
    return True


def _uninstall_from(path: str) -> bool:
    old = _read_settings(path)
    new = old and _uninstalled(old)
    if new == old:
        return False
    if new:
        _write_settings(path, new)
        return True
    os.unlink(path)
    for _ in range(len(old) - len(old.rstrip("\n")) - 1):
        path = os.path.dirname(path)
        if os.listdir(path):
            break
        os.rmdir(path)
    return True


def _compile() -> str:
    """Compiles this file, so that also the first hook finds it compiled; why that could not be, else empty."""
    import py_compile

    source = os.path.abspath(__file__)
    name = f"hook_agent.{sys.implementation.cache_tag}.pyc"
    try:
        py_compile.compile(source, os.path.join(os.path.dirname(source), "__pycache__", name), doraise=True)
    except OSError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def _tell_installed(path: str, changed: bool) -> None:
    uncompiled = _compile()
    if not changed:
        print(f"The hooks are in {path} already: nothing to change.")
    else:
        print(f"{len(_HOOKED.split())} hooks are in {path} now; what else stands there is as it was.")
        print("Each runs:\n  " + _hook_command())
    if uncompiled:
        print(f"This file could not be compiled beforehand, so each hook takes a little longer: {uncompiled}")
    print(
        "Next, in the environment in which Claude Code starts:\n"
        "  SESSION_SERVICE_URL   where the store is, unless at http://localhost:9000\n"
        "  SESSION_TOKEN         or SESSION_TOKEN_FILE, if the store wants a token\n"
        "  SESSION_USER_ID       whose sessions these are\n"
        "`test` tells whether the store answers there. Sessions of Claude Code that run already take the hooks up when\n"
        "they are started anew."
    )


# `run`


class _Output:
    """What a command writes: passed on byte for byte, while its last lines are kept."""

    _LINE_BYTES = 4096
    _SECONDS = 1.0  # how long to wait for the end of what is written once the command is gone: its children may go on

    def __init__(self, lines: int) -> None:
        import collections

        self._lines: collections.deque[bytes] = collections.deque(maxlen=lines)
        self._threads: list[threading.Thread] = []
        self._writing: list[int] = []

    def redirections(self) -> list[tuple[int, int, int]]:
        """What posix_spawn has to do so that the command writes here."""
        return [self._redirection(1), self._redirection(2)] if self._lines.maxlen else []

    def _redirection(self, to: int) -> tuple[int, int, int]:
        import threading

        reading, writing = os.pipe()
        self._writing.append(writing)
        self._threads.append(threading.Thread(target=self._pass_on, args=(reading, to), daemon=True))
        self._threads[-1].start()
        return os.POSIX_SPAWN_DUP2, writing, to

    def command_has_it(self) -> None:
        """Only the command, and whom it lets, writes here from now on."""
        for writing in self._writing:
            os.close(writing)

    def _pass_on(self, reading: int, to: int) -> None:
        line = b""
        try:
            while piece := os.read(reading, 1 << 16):
                _write_all(to, piece)
                *whole, line = (line + piece).split(b"\n")
                self._lines.extend(text[: self._LINE_BYTES] for text in whole)
                line = line[: self._LINE_BYTES]
        except OSError:  # nobody reads it any more, and so the command gets SIGPIPE as it would without us
            pass
        finally:
            os.close(reading)
            if line:
                self._lines.append(line)

    def last_lines(self) -> str | None:
        """The last lines of a command that has ended; None if they are not kept."""
        deadline = time.monotonic() + self._SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return b"\n".join(self._lines).decode(errors="replace") if self._lines.maxlen else None


def _write_all(to: int, data: bytes) -> None:
    import select

    while data:
        try:
            data = data[os.write(to, data) :]
        except BlockingIOError:  # whoever started us shares it, and has made it so
            select.select([], [to], [])


def _passed_on_signals() -> set[signal.Signals]:
    import signal

    return {getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")}


def _typed(info: signal.struct_siginfo) -> bool:
    """Whether a signal came from the keyboard or the window: the terminal has sent it to the command as well."""
    import signal

    from_kernel = 128  # SI_KERNEL
    return info.si_code == from_kernel and info.si_signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)


def _exit_code_of(process: int) -> int:
    """Waits for the end of a process and passes signals on to it until then: its exit code, negative if by a signal.

    Reaps whatever else ends: as process 1 of a container there is nobody else to do it. Needs the signals blocked.
    """
    import signal

    awaited = {*_passed_on_signals(), signal.SIGCHLD}
    while True:
        info = signal.sigwaitinfo(awaited)
        if info.si_signo != signal.SIGCHLD:
            if not _typed(info):
                os.kill(process, info.si_signo)  # not yet reaped, so nobody else has its number
            continue
        ended = dict(_ended_processes())
        if process in ended:
            return os.waitstatus_to_exitcode(ended[process])


def _ended_processes() -> Iterator[tuple[int, int]]:
    """The number and the wait status of each child that has ended."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended
    except ChildProcessError:
        return


def _start(command: list[str], session_id: str, output: _Output, mask: Iterable[int]) -> int:
    """Starts a command with the signal mask and handlers that we were started with. Raises OSError."""
    import signal

    try:
        return os.posix_spawnp(
            command[0],
            command,
            {**os.environ, "SESSION_ID": session_id},
            file_actions=output.redirections(),
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python itself ignores these two
        )
    finally:
        output.command_has_it()


def _ending(command: list[str], session_id: str, output: _Output, mask: Iterable[int]) -> tuple[int, str | None]:
    """Runs a command to its end: the exit code as a shell gives it, and what went wrong."""
    import signal

    try:
        code = _exit_code_of(_start(command, session_id, output, mask))
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
        print(f"hook_agent.py run: {reason}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126, reason
    if code < 0:
        return 128 - code, f"killed by {signal.Signals(-code).name}"
    return code, f"exit code {code}" if code else None


def _run(command: list[str], output_lines: int = 0) -> int:
    """Runs a command as a session of the store, whether or not the store is there; its exit code."""
    import signal

    # First of all, so that none is missed, and the threads that begin later have them blocked, too.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_passed_on_signals(), signal.SIGCHLD})
    initial = {"source": "run", "command": command, "cwd": os.getcwd(), "host": os.uname().nodename, "start": _now()}
    output = _Output(output_lines)
    with SessionHookAgent(initial=initial).sync as session:
        code, outcome = _ending(command, session.session_id, output, mask)
        for passed_on in _passed_on_signals():
            signal.signal(passed_on, lambda number, frame: None)  # it is for the command, which is gone
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        final = {"status": "failed" if code else "success", "outcome": outcome, "exitCode": code}
        session.finalize({**final, "response": output.last_lines()})
    return code
