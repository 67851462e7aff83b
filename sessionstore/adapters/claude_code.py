"""Adapter of Claude Code's hooks: a hook's payload in, events out. Pure, and without memory.

What only the agent's side knows stands beside the payload, in a line of a batch. One payload becomes one event; a batch
of tool calls becomes what no other hook has told, which may be none, or several. The same line always becomes the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeGuard

import msgspec

import hook_agent
from sessionstore.model.bounds import decoded_in_part
from sessionstore.model.drafts import EventHeaders
from sessionstore.model.events import ID_LENGTH, ID_RULE, Draft, is_id, is_too_deep
from sessionstore.model.folds import Document
from sessionstore.model.lines import GROWTH, Redacted, draft_of_line, fitted, settled
from sessionstore.model.problems import Problem, invalid, not_json

Builder = Callable[[Document, str], tuple[str, Document] | None]
"""Takes what it renames out of the members that are left of a payload, and knows Claude Code's own session id where the
session has another (else ""). None: the payload does not name what the event needs."""


def names(words: str) -> frozenset[str]:
    return frozenset(words.split())


DIGEST_LENGTH = 16  # hex digits: enough to tell apart the payloads of one session

# What the store gives an entry or a record, or reads a meaning into: no leftover member may pose as one of these.
ENTRY_HAS = names(
    """type seq cursor receivedAt timestamp eventId sessionId agentId userId attention attentionId machineMade rejected
    refused payload"""
)
AGENT_HAS = names("task status result spawnedAt completedAt parentAgentId subsession")
GOAL_HAS = names("id goalId description details priority status completedAt")
RECORD_HAS = {
    "agent_spawned": AGENT_HAS,
    "agent_completed": AGENT_HAS,
    "goal_added": GOAL_HAS,
    "goal_updated": GOAL_HAS,
    "session_finalized": names("status outcome response exitCode error"),
}
METADATA_HAS = names(
    """$schema sessionId sandboxId userId created updated status yoloMode tokenUsage metrics tags parentSession
    subsessions phase currentStep attention goals agents actions responses ended duration resumes lastCursor title
    titleFrom project projectFrom pinned where asks cost context given payload"""
)

ASKING_NOTIFICATIONS = {
    "permission_prompt": "permission",
    "idle_prompt": "input",
    "agent_needs_input": "input",
    "elicitation_dialog": "question",
    "elicitation_url_dialog": "question",
}
# What clients say that name no type, the first that fits.
ASKING_WORDS = (
    ("approval for the plan", "plan"),
    ("your permission", "permission"),
    ("your approval", "permission"),
    ("has a question", "question"),
    ("waiting for your input", "input"),
    ("needs your input", "input"),
    ("needs your attention", "input"),
)
UNSAID = {
    "permission": "Claude asks for permission",
    "input": "Claude is done and waits for the next prompt",
    "question": "Claude has a question",
    "plan": "Claude has a plan to be approved",
}
ENDED_TASKS = names("completed failed killed stopped cancelled")  # of background tasks: any other status runs on
OWN_WORDS = (  # with which a program begins what it says as if a person had typed it
    "<task-notification>",
    "<command-name>",
    "<command-message>",
    "<local-command-",
    "<system-reminder>",
    "<teammate-message",
    "<bash-",
)
PEOPLE = ("user", "sdk")  # sources of a prompt
# With which Claude Code begins the result of a call that a person said no to, or interrupted.
REJECTION_WORDS = (
    "The user doesn't want to ",
    "[Request interrupted by user",
    "Request interrupted by user",
    "Tool use rejected",
    "User rejected",
)
CHANGES_OF_CONVERSATION = ("clear", "resume")  # of SessionEnd: the process goes on with another session id
TELLING_INPUTS = ("command", "file_path", "notebook_path", "path", "url", "pattern", "query", "description", "prompt")
BLOCKS_UNSHOWN = names("tool_use tool_call tool_call_chunk function_call thinking reasoning")
GIST_LENGTH = 200
QUOTE_LENGTH = 300
OPTIONS_SHOWN = 20
ASKED_LENGTH = 1000  # of a question or a plan, of which a person wants to know more


def snake_case(name: str) -> str:
    """A hook's name as the type of an entry, never empty: PreCompact is pre_compact."""

    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", parted).strip("_").lower() or "hook"


def is_one(value: object) -> TypeGuard[str]:
    """Whether it is an id that the store takes."""
    return isinstance(value, str) and bool(is_id(value))


def text_in(value: object) -> str:
    return value if isinstance(value, str) else ""


def content_text(content: object) -> str:
    """The text of a message's content, which is a text or a list of blocks; of an image, [image]."""
    return "\n".join(filter(None, map(block_text, content))) if isinstance(content, list) else text_in(content)


def block_text(block: object) -> str:
    if not isinstance(block, dict):
        return text_in(block)
    kind = text_in(block.get("type"))
    return text_in(block.get("text")) or ("" if kind in BLOCKS_UNSHOWN else f"[{kind}]")


def digest(text: str) -> str:

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def renamed(left: Document, **names: str) -> Document:
    return {new: left.pop(old) for old, new in names.items() if old in left}


def renamed_texts(left: Document, **names: str) -> Document:
    """As `renamed`, for members that the store takes only as text: anything else stays left."""
    return renamed(left, **{old: new for old, new in names.items() if text_in(left.get(old))})


def keep(left: Document, home: Document, reserved: Iterable[str]) -> None:
    """Moves all that is left into `home`, as it is; what would pose as something else goes together under `payload`."""
    taken = frozenset(home).union(reserved)
    aside = {name: left.pop(name) for name in list(left) if name in taken}
    home.update(left)
    if aside:
        home["payload"] = aside
    left.clear()


# For whom or what the session waits


def attention(reason: str, message: object, **more: Any) -> Document:
    said = text_in(message) if text_in(message).strip() else UNSAID[reason]
    return {"attention": {"reason": reason, "message": said, **{name: it for name, it in more.items() if it}}}


def gist(tool_input: object) -> str:
    """The text in a tool's input that tells a person most, on one line; empty if there is none."""
    if not isinstance(tool_input, dict):
        return ""
    values = [tool_input.get(name) for name in TELLING_INPUTS] + list(tool_input.values())
    words = next(filter(None, (text_in(value).split() for value in values)), [])
    return " ".join(words)[:GIST_LENGTH]


def asks_by_tool(left: Document) -> Document:
    """Of the tools that are themselves a question to a person."""
    tool, given = text_in(left.get("tool_name")), left.get("tool_input")
    given = given if isinstance(given, dict) else {}
    if tool == "ExitPlanMode":
        return attention("plan", text_in(given.get("plan"))[:ASKED_LENGTH], tool=tool)
    if tool == "AskUserQuestion":
        return attention("question", asked(given)[:ASKED_LENGTH], tool=tool, options=options(given))
    return {}


def questions(given: Document) -> list[Document]:
    questions = given.get("questions")
    return [it for it in questions if isinstance(it, dict)] if isinstance(questions, list) else []


def asked(given: Document) -> str:
    return " / ".join(filter(None, (text_in(it.get("question")) for it in questions(given))))


def options(given: Document) -> list[str]:
    """What there is to choose from, where one thing is asked."""
    asked = questions(given)
    found = asked[0].get("options") if len(asked) == 1 else None
    labels = [it.get("label") if isinstance(it, dict) else it for it in found] if isinstance(found, list) else []
    return [text_in(label)[:GIST_LENGTH] for label in labels[:OPTIONS_SHOWN] if text_in(label)]


def asks_permission(left: Document) -> Document:
    tool = text_in(left.get("tool_name"))
    message = ": ".join(filter(None, (tool, gist(left.get("tool_input")))))
    return asks_by_tool(left) or attention("permission", message, tool=tool)


def asks_if_so_notified(left: Document) -> Document:
    kind, message = left.get("notification_type"), text_in(left.get("message"))
    reason = ASKING_NOTIFICATIONS.get(text_in(kind), "")
    if kind is None:
        reason = next((reason for words, reason in ASKING_WORDS if words in message.lower()), "")
    if kind == "agent_needs_input" and left.get("agent_id"):
        reason = "question"
    if not reason:
        return {}
    _, _, tool = message.partition("permission to use ") if reason == "permission" else ("", "", "")
    return attention(reason, message, tool=tool if tool.isidentifier() else "")


def is_answered(left: Document) -> Document:
    return {"attention": None, **({"attentionId": elicitation(left)} if elicitation(left) else {})}


def elicitation(left: Document) -> str:
    """A form has no id; its server asks one thing at a time."""
    return text_in(left.get("elicitation_id")) or text_in(left.get("mcp_server_name"))


def asks_next_prompt(left: Document) -> Document:
    if works_on(left):
        return {}
    return attention("input", text_in(left.get("last_assistant_message"))[:QUOTE_LENGTH])


def works_on(left: Document) -> bool:
    """Whether something runs in the background, or is to wake it up."""
    tasks = left.get("background_tasks")
    running = (
        [it for it in tasks if isinstance(it, dict) and it.get("status") not in ENDED_TASKS]
        if isinstance(tasks, list)
        else []
    )
    return bool(running or left.get("session_crons"))


def asks_what_to_do_about_it(left: Document) -> Document:
    members = [text_in(left.get(name)) for name in ("last_assistant_message", "error_details", "error")]
    return attention("input", next(filter(str.strip, members), "Claude has failed")[:QUOTE_LENGTH], error=members[2])


# Who said it, and how it went


def is_by_machine(left: Document) -> Document:
    source, prompt = left.get("source"), text_in(left.get("prompt")).lstrip()
    is_own = prompt.startswith(OWN_WORDS) or (isinstance(source, str) and source not in PEOPLE)
    return {"machineMade": True} if is_own else {}


def is_rejected(left: Document) -> Document:
    return {"rejected": True} if left.get("is_interrupt") is True or says_no(text_in(left.get("error"))) else {}


def says_no(result: str) -> bool:
    return result.replace("\u2019", "'").lstrip().startswith(REJECTION_WORDS)


# One builder for each kind of event


def logs(
    event_type: str, entry_type: str, more: Callable[[Document], Document] = lambda left: {}, /, **new_names: str
) -> Builder:
    def build(left: Document, claude_id: str) -> tuple[str, Document]:
        said = more(left)
        return event_type, {"type": entry_type, **renamed(left, **new_names), **said}

    return build


def named_action(left: Document, claude_id: str) -> tuple[str, Document]:
    return "action", {"type": snake_case(left["hook_event_name"])}


def session_created(left: Document, claude_id: str) -> tuple[str, Document]:
    initial: Document = {"source": "claude-code"}
    reserved = {*METADATA_HAS, *(name for name in left if "." in name)}  # a dotted name would reach into an object
    if isinstance(left.get("model"), str):
        initial["config"] = {"model": left["model"]}
    else:
        reserved.add("model")
    metadata: Document = {"claudeSessionId": claude_id} if claude_id else {}
    if title := text_in(left.get("session_title")):
        metadata.update(title=title, titleFrom="agent")
    if cwd := text_in(left.get("cwd")):
        metadata["where"] = {"cwd": cwd}
    keep(left, metadata, reserved)
    return "session_created", {"initial": initial, "metadata": metadata}


def session_finalized(left: Document, claude_id: str) -> tuple[str, Document] | None:
    """A conversation that another takes the place of is not the end of a session that holds both."""
    if claude_id and left.get("reason") in CHANGES_OF_CONVERSATION:
        return None
    return "session_finalized", {}  # how it ended follows from what was said before


def agent(event_type: str, kind: str, **more: str) -> Builder:
    def build(left: Document, claude_id: str) -> tuple[str, Document] | None:
        if not is_one(left.get("agent_id")):
            return None
        named = {**renamed(left, agent_id="agentId"), **renamed_texts(left, agent_type="type")}
        result = renamed(left, last_assistant_message="result") if event_type == "agent_completed" else {}
        return event_type, {"type": kind, **named, **more, **result}

    return build


def goal_id(task_id: str, claude_id: str) -> str:
    """Claude Code counts tasks from 1 in each of its sessions, and several of those may share one of the store's."""

    named = "-".join(filter(None, ("task", claude_id[:8], task_id)))
    safe = re.sub(r"[^A-Za-z0-9._-]|(?<=\.)\.", "-", named)
    if len(safe) <= ID_LENGTH:
        return safe
    return f"{safe[: ID_LENGTH - DIGEST_LENGTH - 1]}-{digest(named)}"


def goal(event_type: str, id_name: str, **more: str) -> Builder:
    def build(left: Document, claude_id: str) -> tuple[str, Document] | None:
        task_id = text_in(left.get("task_id"))
        if not task_id:
            return None
        told = {**renamed_texts(left, task_subject="description"), **renamed(left, task_description="details")}
        default = {"description": task_id} if event_type == "goal_added" else {}
        return event_type, {id_name: goal_id(task_id, claude_id), **default, **more, **told}

    return build


# The mapping

AGENT_TOOLS = ("Agent", "Task")
TOOL = {"tool_name": "tool", "tool_input": "input"}
CALL = {"tool_use_id": "toolUseId", **TOOL}
ENDED_CALL = {**CALL, "duration_ms": "durationMs"}

# Members that keep their name (prompt, error, message, reason …) need no mention: whatever is left is kept.
BUILDERS: dict[str, Builder] = {
    "SessionStart": session_created,
    "UserPromptSubmit": logs("action", "prompt", is_by_machine),
    "PreToolUse": logs("action", "tool_call", asks_by_tool, **CALL),
    "PostToolUse": logs("response", "tool_result", tool_response="output", **ENDED_CALL),
    "PostToolUseFailure": logs("response", "tool_error", is_rejected, **ENDED_CALL),
    "PermissionRequest": logs("action", "permission_request", asks_permission, **TOOL),
    "PermissionDenied": logs("action", "permission_denied", **CALL),
    "Notification": logs("action", "notification", asks_if_so_notified, notification_type="notificationType"),
    "Elicitation": logs(
        "action", "elicitation", lambda left: attention("question", left.get("message"), id=elicitation(left))
    ),
    "ElicitationResult": logs("action", "elicitation_result", is_answered),
    "Stop": logs("response", "assistant_message", asks_next_prompt, last_assistant_message="message"),
    "StopFailure": logs(
        "response", "error", asks_what_to_do_about_it, error_details="errorDetails", last_assistant_message="message"
    ),
    "SubagentStart": agent("agent_spawned", "subagent"),
    "SubagentStop": agent("agent_completed", "internal", status="completed"),
    "TaskCreated": goal("goal_added", "id"),
    "TaskCompleted": goal("goal_updated", "goalId", status="completed"),
    "SessionEnd": session_finalized,
}


def typed_data(payload: Document, claude_id: str, lane: str | None) -> tuple[str, Document]:
    left, hook = dict(payload), payload["hook_event_name"]
    builder = BUILDERS.get(hook, named_action)
    built = builder(left, claude_id) if lane is None else built_in_lane(left, claude_id, lane)
    event_type, data = built or named_action(left, claude_id)
    if event_type in ("action", "response") and agent_of(payload, lane):
        if (data.get("attention") or {}).get("reason") == "input":  # an agent at its prompt waits for no person,
            del data["attention"]
        if data.get("type") == "prompt":  # and it is another agent that prompts it
            data["machineMade"] = True
    keep(left, data, ENTRY_HAS | RECORD_HAS.get(event_type, frozenset()))
    return event_type, data


def agent_of(payload: Document, lane: str | None) -> str | None:
    """Who said it; None: the agent that the session is about."""
    agent_id = payload.get("agent_id")
    return agent_id if is_one(agent_id) else lane or None


def built_in_lane(left: Document, claude_id: str, lane: str) -> tuple[str, Document] | None:
    """What another program of Claude Code does in a session that is not about it: it is an agent there.

    The lane "" is for one that is over, and that another has taken the place of.
    """
    hook = left["hook_event_name"]
    if hook == "SessionEnd":
        return ("agent_completed", {"agentId": lane, "type": "claude", "status": "completed"}) if lane else None
    if hook == "SessionStart" and lane:
        if left.get("source") == "compact":  # it has begun before
            return None
        return "agent_spawned", {"agentId": lane, "type": "claude"}
    built = BUILDERS.get(hook, named_action)(left, claude_id)
    if built and built[0] == "agent_spawned" and lane:
        built[1]["parentAgentId"] = lane
    return built


# What names the one thing that a payload is about, so that the same told again is recognised, whatever else it says.
NATURAL_KEYS = {
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
# What tells apart those that have one id because ids begin anew (`call_0` with each reply, an agent that is resumed).
TELLING_APART = ("prompt_id", "tool_name", "tool_input", "task_subject", "message", "action")
UNIQUE_LENGTH = 12  # characters, with a digit among them, that nobody counts up to


def is_unique(key: str) -> bool:
    """Whether an id is one of those that are made up, and not counted."""
    parts = key.replace("-", "_").split("_")
    return any(len(part) >= UNIQUE_LENGTH and not part.isalpha() for part in parts) or len("".join(parts)) >= 32


def natural_key(payload: Document) -> str | None:
    """The id of the event that a payload stands for, made from what it names; None where it names nothing."""
    hook: str = payload["hook_event_name"]
    parts = [payload.get(name) for name in NATURAL_KEYS.get(hook, ())]
    if not parts or not all(isinstance(part, (str, int)) and part != "" for part in parts):
        return None
    key = "-".join([hook, *map(str, parts)])
    if is_one(key) and is_unique(str(parts[0])) and hook != "SubagentStart":
        return key
    try:
        about = digest(json.dumps([parts, *map(payload.get, TELLING_APART)], sort_keys=True))
    except RecursionError:  # nested deeper than the store takes anyway
        return None
    key = f"{key}-{about}"
    return key if is_one(key) else f"{hook}-{about}"


def own_key(payload: Document) -> str | None:
    """The same for what comes with an id: only where the key needs no digest, of what begins anew."""
    key = natural_key(payload)
    name = NATURAL_KEYS.get(payload["hook_event_name"], ("",))[0]
    return key if key and name != "agent_id" and is_unique(str(payload.get(name))) else None


def claude_code_events(
    payload: object,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    event_id: str | None = None,
    timestamp: str | None = None,
    lane: str | None = None,
) -> list[dict[str, Any]]:
    """The events, as lines of a batch, that one Claude Code hook payload (decoded JSON) stands for: exactly one.

    `session_id` replaces Claude Code's own. Without `event_id` a payload that names one thing gets an id made from it.
    `lane` is the agent that the payload's program is there, where the session is about another program.
    Raises ValueError, naming the field, if the payload is not an object, or its hook or its session is not named.
    """
    payload, session = named(payload, session_id)
    own = text_in(payload.get("session_id"))
    event_type, data = typed_data(payload, "" if own == session else own, lane)
    event = {
        "type": event_type,
        "sessionId": session,
        "eventId": natural_key(payload) if event_id is None else event_id,
        "userId": user_id,
        "agentId": agent_of(payload, lane),
        "timestamp": timestamp,
        "data": data,
    }
    return [{name: value for name, value in event.items() if value is not None}]


def named(payload: object, session: object = None) -> tuple[Document, str]:
    """The payload, and the session that it is of. Raises ValueError, naming the field."""
    if not isinstance(payload, dict):
        raise ValueError("payload must be a JSON object")
    if not text_in(payload.get("hook_event_name")):
        raise ValueError("hook_event_name must be a non-empty string")
    session = payload.get("session_id") if session is None else session
    if not isinstance(session, str):
        raise ValueError("session_id must be a string")
    if not is_one(session):
        raise ValueError(f"session_id must be {ID_RULE}: {session!r:.80}")
    return payload, session


# What is known of calls only when all of a reply are through

DENIAL_WORDS = (
    "Permission to use ",
    "Claude requested permissions to ",
    "This command requires approval",
    "This Bash command contains multiple operations. The following part",
    "Auto mode is unavailable: ",
)


def told_by_batch(payload: Document) -> Iterator[tuple[Document, Document]]:
    """The payloads that hooks would have had for the calls that none ran for, and what their entries have besides."""
    calls = payload.get("tool_calls")
    common = {name: it for name, it in payload.items() if name != "tool_calls"}
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict):
            continue
        error = content_text(call.get("tool_response")) or text_in(call.get("tool_response"))
        about = {name: it for name, it in call.items() if name in CALL}
        failed = {**common, **about, "hook_event_name": "PostToolUseFailure", "error": error}
        if error.startswith("<tool_use_error>"):  # before any hook ran
            failed["error"] = error[len("<tool_use_error>") :].replace("</tool_use_error>", "")
            begun = {name: it for name, it in failed.items() if name != "error"}
            yield {**begun, "hook_event_name": "PreToolUse"}, {"refused": True}
            yield failed, {"refused": True}
        elif says_no(error):
            yield failed, {}
        elif error.startswith(DENIAL_WORDS):  # by a rule
            yield failed, {"refused": True}


# A line of a batch


def events_of_line(line: Document, payload: Any) -> list[Document]:
    """The events that a payload stands for, of which a line says what only the agent's side knows.

    That is `eventId` `timestamp` `userId`, and `sessionId` in the place of Claude Code's own; `agentId`: whom a program
    is in a session about another; `isReplaced`: another has taken its place; `isWithin`: one that has begun the session
    goes on, and is to end it; `parentSession` `tags` `where`: of a session that begins; `metadata`: what a transcript
    says of it; `error`: with which it ended; `waits`: the hook waits for a person's answer, so that what it asks is an
    ask of its own, however alike another is.

    The id of an ask is the eventId of its event: of a PermissionRequest that of its line; of what names a call or a
    form what `own_key` makes of that, where it can (`PreToolUse-toolu_…`), else that of the line.
    Raises ValueError for what names no session.
    """
    lane = "" if line.get("isReplaced") is True else line.get("agentId")
    given = {
        "session_id": line.get("sessionId"),
        "user_id": line.get("userId"),
        "timestamp": line.get("timestamp"),
        "lane": lane if is_one(lane) or lane == "" else None,
    }
    try:
        named(payload, given["session_id"])
    except ValueError:
        return [unnamed(line, payload)]
    if payload["hook_event_name"] == "PostToolBatch":
        return list(told_late(payload, line.get("eventId"), **given))
    (event,) = claude_code_events(payload, **given, event_id=own_key(payload) or line.get("eventId"))
    complete(event, line)
    return [event, *found_out(event, payload, line)]


FACTS = ("title", "claudeCodeVersion", "forkedFrom")


def found_out(event: Document, payload: Document, line: Document) -> Iterator[Document]:
    """What else follows: what the agent's side has found in the transcript; and for what an agent was called, which its
    start does not say, but the result of the call."""
    head = {name: event[name] for name in ("sessionId", "userId", "timestamp") if name in event}
    event_id, found = event.get("eventId"), line.get("metadata")
    facts = {name: text for name in FACTS if (text := text_in(found.get(name)))} if isinstance(found, dict) else {}
    if facts and event_id:
        source = {"titleFrom": "agent"} if "title" in facts else {}
        yield head | {"type": "metadata_updated", "eventId": f"{event_id}-facts", "data": facts | source}
    called, result = payload.get("tool_input"), payload.get("tool_response")
    if event["type"] == "response" and isinstance(called, dict) and isinstance(result, dict):
        agent_id, task = result.get("agentId"), text_in(called.get("description"))
        if payload.get("tool_name") in AGENT_TOOLS and is_one(agent_id) and task and event_id:
            data = {"agentId": agent_id, "task": task, "toolUseId": payload.get("tool_use_id")}
            yield head | {"type": "agent_updated", "eventId": f"{event_id}-task", "data": data}


def unnamed(line: Document, payload: Any) -> Document:
    """What is no payload as an action, if it is known of which session. Raises ValueError."""
    members = dict(payload) if isinstance(payload, dict) else {}
    session = line.get("sessionId") or members.get("session_id")
    if not is_one(session):
        named(payload)  # which says why
    data: Document = {"type": "hook"} if isinstance(payload, dict) else {"type": "hook", "payload": payload}
    keep(members, data, ENTRY_HAS)
    known = {name: line[name] for name in ("eventId", "timestamp", "userId", "agentId") if line.get(name)}
    return {"type": "action", "sessionId": session, **known, "data": data}


def told_late(payload: Document, event_id: str | None, **given: Any) -> Iterator[Document]:
    for number, (told, more) in enumerate(told_by_batch(payload)):
        (event,) = claude_code_events(told, **given, event_id=own_key(told) or (event_id and f"{event_id}-{number}"))
        event["data"].update(more, hook_event_name=payload["hook_event_name"])
        yield event


def complete(event: Document, line: Document) -> None:
    """By what the line says of how a session began, and how it ended."""
    data = event["data"]
    if line.get("waits") is True and isinstance(data.get("attention"), dict) and event.get("eventId"):
        data["attention"].setdefault("id", event["eventId"])
    if event["type"] == "session_created":
        data.update({name: line[name] for name in ("parentSession", "tags") if line.get(name)})
        data["metadata"].update({"where": line["where"]} if isinstance(line.get("where"), dict) else {})
    if event["type"] == "session_finalized":
        data.update({"error": line["error"]} if isinstance(line.get("error"), str) else {})
        if line.get("isWithin") is True:
            event.update(type="action", data={**data, "type": "program_ended"})


# Drafts


SHALLOW = 50
"""Levels of a payload that make an event of none too many, whatever is put around it."""
DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
LARGE_NUMBER = b"0" * 19
"""What digits are translated to, and so many of them: a number may be more than 64 bits have room for."""


class Limits(NamedTuple):
    """What becomes of what is too large, and of secrets."""

    max_event_bytes: int
    redacted: Redacted


def drafts_of_line(body: bytes, bounds: Limits) -> list[Draft]:
    """What a line of a batch stands for that has a payload as its `data`. Raises Problem 400, 422."""
    line, is_plain = document_in(body)
    if not isinstance(line, dict):
        raise invalid("$", "must be a JSON object")
    payload = line.pop("data", None)
    line = {name: it if is_plain else hook_agent._Plain().value(it) for name, it in line.items() if it is not None}
    found = drafts_of(payload, lambda payload: events_of_line(line, payload), body, is_plain, bounds)
    for draft in found:
        draft.is_same_by_id = draft.is_same_by_id or "eventId" in line
    return found


def drafts_of_payload(body: bytes, told: EventHeaders, bounds: Limits) -> list[Draft]:
    """The same for a payload that was posted by itself."""
    payload, is_plain = document_in(body)
    if not isinstance(payload, dict):
        raise invalid("$", "must be a JSON object")
    known = {"event_id": told.event_id, "user_id": told.user_id, "timestamp": told.timestamp}
    return drafts_of(payload, lambda payload: events_of_payload(payload, **known), body, is_plain, bounds)


def events_of_payload(payload: Document, **known: Any) -> list[Document]:
    (event,) = claude_code_events(payload, **known)
    return [event, *found_out(event, payload, {})]


def document_in(body: bytes) -> tuple[Any, bool]:
    """The JSON, and whether it is as JSON should be: nearly all is, and need not be cleaned. Raises Problem 400."""
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        if not is_large(body) and not is_too_deep(body, SHALLOW) and LARGE_NUMBER not in body.translate(DIGITS):
            return msgspec.json.decode(body), True
    try:
        return decoded_in_part(body), False
    except ValueError as error:
        raise not_json(str(error)) from None


def is_large(body: bytes) -> bool:
    return len(body) > hook_agent._EVENT_BYTES or hook_agent.may_have_many_texts(body)


def drafts_of(
    payload: Any, events_of: Callable[[Any], list[Document]], body: bytes, is_plain: bool, bounds: Limits
) -> list[Draft]:
    """Cut and cleaned as `hook_agent.py hook` does it; its secrets are taken out before anything of it is cut."""
    if not is_plain:
        payload = hook_agent._Plain().value(payload)
    if isinstance(payload, dict):
        if hook_agent.may_have_many_texts(body):
            payload = hook_agent.with_few_texts(payload)
        payload = bounds.redacted(payload)
    try:
        events = events_of(payload)
    except ValueError as error:
        raise Problem(422, str(error)) from None
    for event in events:
        if not is_plain:
            event["data"] = hook_agent._Plain().value(event["data"])
    return [draft_of(event, len(body), bounds) for event in events]


def draft_of(event: Document, size: int, bounds: Limits) -> Draft:
    if size * GROWTH > min(hook_agent._EVENT_BYTES, bounds.max_event_bytes):
        event = hook_agent._fit(event | {"data": bounds.redacted(event["data"])})
        event = fitted(event, bounds.max_event_bytes, bounds.redacted)
    try:
        return draft_of_line(event)
    except Problem:
        return draft_of_line(settled(event))
