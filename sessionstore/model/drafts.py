"""From what a caller sends to drafts of events: every rule of a write that needs no look at the database."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

import hook_agent
from sessionstore.model import coercion, names
from sessionstore.model.events import (
    ID_PATTERN,
    ID_RULE,
    LOGS,
    TOLD_ABOUT,
    USER_PATTERN,
    USER_RULE,
    Draft,
    is_id,
    json_object,
    known_id,
    known_user,
    utc,
)
from sessionstore.model.folds import Document, path_of
from sessionstore.model.problems import invalid, invalid_value
from sessionstore.model.redaction import check_texts

Headers = dict[bytes, bytes]

Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN, examples=["test-1771012854"], extra={"rule": ID_RULE})]
UserId = Annotated[str, msgspec.Meta(pattern=USER_PATTERN, examples=["test-user-alice"], extra={"rule": USER_RULE})]
Time = Annotated[
    str,
    msgspec.Meta(
        description="RFC 3339, any offset",
        examples=["2026-02-13T20:59:12.345Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
Tags = list[Annotated[str, msgspec.Meta(max_length=256)]]
Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@?#\x00-\x1f]{1,500}$")]
"""Of a store, without user, query and fragment."""
Ended = Literal["completed", "failed", "cancelled"]
Reason = Literal["person", "retention", "prune", "moved"]

MAX_STEPS = 8
"""How many steps a dotted name in a metadata update may have."""

# ------------------------------------------------------------------------ bodies


class Body(msgspec.Struct, rename="camel", kw_only=True):
    """What any write may carry. Members that are not named are the caller's own, and are kept."""

    event_id: Id | None = None
    timestamp: Time | None = None


class SessionBeginning(Body, kw_only=True):
    """What creates a session or resumes it, whoever's it is."""

    user_id: UserId | None = None
    initial: Document = {}
    parent_session: Id | None = None
    tags: Tags = []
    metadata: Document = {}


class SessionEntry(SessionBeginning, kw_only=True):
    """How an agent comes in: creates the session, or resumes it."""

    user_id: UserId


class NewSession(SessionEntry, kw_only=True):
    """A session to be created."""

    session_id: Id
    initial: Document


class LogEntry(Body, kw_only=True):
    """An entry of the action or the response log."""

    type: Annotated[str, msgspec.Meta(examples=["file_write"])]
    agent_id: Id | None = None


class NewGoal(Body, kw_only=True):
    """Something that the session sets out to do."""

    description: Annotated[str, msgspec.Meta(examples=["Build REST API"])]
    id: Id | None = None
    priority: str | None = "medium"
    status: str = "pending"


class GoalChange(Body, kw_only=True):
    """What is new about a goal."""

    status: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    priority: str | UnsetType | None = UNSET


class NewAgent(Body, kw_only=True):
    """A worker inside the session."""

    type: Annotated[str, msgspec.Meta(examples=["backend-dev"])]
    task: Any = None
    agent_id: Id | None = None
    parent_agent_id: Id | None = None
    subsession: Id | None = None


class AgentChange(Body, kw_only=True):
    """What is new about an agent."""

    status: str | UnsetType = UNSET
    task: Any = None
    result: Any = None


class AgentEnd(AgentChange, kw_only=True):
    """How an agent ended."""

    status: Ended = "completed"


class Finalization(Body, kw_only=True):
    """How a session ended."""

    status: Literal["success", "failed", "cancelled"] = "success"
    outcome: Any = None
    response: Any = None
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    cancelled_agents: list[Id] | UnsetType = UNSET


class Deletion(Body, kw_only=True):
    """Why a session goes; who lets it go is known."""

    reason: Reason = "person"
    moved_to: Address | None = None
    """Where the session is now; what is said of it here is not taken any more, and told so."""


class Note(Body, kw_only=True):
    """What a person has to say about a session, or about an event of it."""

    text: Annotated[str, msgspec.Meta(examples=["Look at this again"])]
    at: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1, description="The cursor of the event")] | None = None


Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class UsageReport(Body, kw_only=True):
    """One request to a model: its tokens, and what it cost. Input is without cache, output with reasoning."""

    source: Word | UnsetType = UNSET
    request_key: Word | None = None
    message_id: Word | None = None
    agent_id: Id | None = None
    prompt_id: Word | None = None
    provider: Word | None = None
    model: Word | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: Count | None = msgspec.field(default=None, name="cacheWrite1hTokens")
    reasoning_tokens: Count | None = None
    speed: Word | None = None
    cost_usd: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    cost_from: Literal["reported", "own", "computed", "unpriced"] | UnsetType = UNSET
    at: Time | None = None
    context_tokens: Count | None = None
    """In the context of the main agent, after this request or after `compaction`."""
    context_limit: Count | None = None
    """That its model takes; the store adds it where it knows it."""
    compaction: Document | None = None
    """It tells of no request, but that the context has been made smaller."""


class MetadataChange(msgspec.Struct, rename="camel"):
    """Members to set. A dotted name goes into an object; a value "+N" on a number adds."""

    status: Literal["active", "waiting", "completed", "failed", "cancelled"] | UnsetType = UNSET
    attention: Document | None = None
    parent_session: Id | None = None


class Login(msgspec.Struct):
    """A token, in exchange for a cookie."""

    token: str


class HookPayload(msgspec.Struct):
    """One payload of a Claude Code hook, as it is."""

    hook_event_name: Annotated[str, msgspec.Meta(min_length=1)]
    session_id: Id


class Anything(msgspec.Struct):
    """Any JSON object."""


BODIES: dict[str, type[msgspec.Struct]] = {
    "session_created": SessionBeginning,
    "session_resumed": SessionBeginning,
    "session_finalized": Finalization,
    "metadata_updated": MetadataChange,
    "action": LogEntry,
    "response": LogEntry,
    "goal_added": NewGoal,
    "goal_updated": GoalChange,
    "agent_spawned": NewAgent,
    "agent_updated": AgentChange,
    "agent_completed": AgentEnd,
    "session_lost": Body,
    "session_deleted": Deletion,
    **dict.fromkeys(TOLD_ABOUT, Body),
    "note_added": Note,
    "usage_reported": UsageReport,
}

KEPT_BY_THE_STORE = frozenset(
    (
        *("$schema", "userId", "created", "updated", "ended", "duration", "resumes", "lastCursor"),
        *("subsessions", "goals", "agents", "actions", "responses", "phase", "currentStep"),
    )
)
"""Members of the metadata that nobody can set: they follow from events."""

OF_THE_STORE = ("seq", "cursor", "receivedAt", "sessionId", "eventId")
"""Members of a body that do not belong to its content: ignored, or (eventId) kept beside it."""


Shape = TypeVar("Shape", bound=msgspec.Struct)


SPECIAL = frozenset((*OF_THE_STORE, "timestamp", "agentId"))
"""Members of an entry that mean something to the store, besides its type."""
TELLING = frozenset((b"idempotency-key", b"x-timestamp", b"x-user-id"))
"""Headers that say something about an event."""


def checked(body: Document, shape: type[Shape]) -> Shape:
    """`body` as `shape`. Raises Problem 422 that names the member."""
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        raise invalid_value(error, shape) from None


# ------------------------------------------------------------------------ drafts


def draft_of(event_type: str, session_id: str, body: Document, headers: Headers | None = None, **members: Any) -> Draft:
    """The draft of an event of this type with `body` as its data. Raises Problem 422.

    `eventId` and `timestamp` come from the body, or else from the headers
    Idempotency-Key and X-Timestamp; `members` are further fields of the draft.
    """
    if (shape := BODIES.get(event_type)) is not None:
        checked(body, shape)
    draft = Draft(type=event_type, session_id=session_id, data=body, **members)
    if event_type not in DOCUMENTS:
        draft.data = {name: value for name, value in body.items() if name not in OF_THE_STORE}
        draft.event_id = draft.event_id or body.get("eventId")
        take_timestamp(draft)
    if headers:
        told = told_in(headers)
        draft.event_id = draft.event_id or told.event_id
        draft.timestamp = draft.timestamp or told.timestamp
        draft.user_id = draft.user_id or told.user_id
    if (settle := SETTLED.get(event_type)) is not None:
        settle(draft)
    return draft


def entry_draft(log: str, session_id: str, body: Document, headers: Headers) -> Draft:
    """The same for an entry of a log; one that has nothing of special meaning but its id, as most are, is quick."""
    data = body.copy()
    event_id = data.pop("eventId", None)
    is_valid = isinstance(body.get("type"), str) and (
        event_id is None or (isinstance(event_id, str) and is_id(event_id))
    )
    if is_valid and data.keys().isdisjoint(SPECIAL) and headers.keys().isdisjoint(TELLING):
        return Draft(type=log, session_id=session_id, data=data, event_id=event_id)
    return draft_of(log, session_id, body, headers)


def take_timestamp(draft: Draft) -> None:
    """The time at the caller: an entry keeps it as it was given, for all others it is the event's."""
    given = draft.data.get("timestamp")
    if given is not None and draft.timestamp is None:
        draft.timestamp = utc(given)
    if given is None or draft.type not in LOGS:
        draft.data.pop("timestamp", None)


def claim_title(draft: Draft, source: str, most: str) -> None:
    """Note beside a title who gave it: who asks decides that, not the body."""
    if draft.type == "metadata_updated":
        draft.data = names.claimed(draft.data, source, most)
    elif draft.type in coercion.BEGINNINGS and (said := draft.data.get("metadata")):
        draft.data = draft.data | {"metadata": names.claimed(said, source, most)}


class EventHeaders(NamedTuple):
    """What the headers of a write say."""

    event_id: str | None
    timestamp: str | None
    user_id: str | None


def told_in(headers: Headers) -> EventHeaders:
    """Raises Problem 422 that names the header."""
    if headers.keys().isdisjoint(TELLING):
        return EventHeaders(None, None, None)
    key, time, user = (headers.get(name) for name in (b"idempotency-key", b"x-timestamp", b"x-user-id"))
    return EventHeaders(
        None if key is None else known_id(unquoted(key.decode("latin-1")), "Idempotency-Key"),
        None if time is None else utc(time.decode("latin-1"), "X-Timestamp"),
        None if user is None else known_user(header_text(user), "X-User-Id"),
    )


def unquoted(text: str) -> str:
    """A key may come as the string of a structured header (RFC 9651), too."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text


def header_text(value: bytes) -> str:
    """A header's text; one that is UTF-8 is taken as that."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def settle_entry(draft: Draft) -> None:
    """The agent of an entry stands in the entry and beside it."""
    draft.agent_id = draft.agent_id or draft.data.get("agentId")
    if draft.agent_id is not None:
        draft.data["agentId"] = draft.agent_id
    else:
        draft.data.pop("agentId", None)


def settle_session(draft: Draft) -> None:
    draft.user_id = draft.user_id or draft.data.get("userId")
    check_members(draft.data.get("metadata") or {}, "$.metadata")


def settle_end(draft: Draft) -> None:
    """Claude Code's SessionEnd does not know whether it was a success, though older clients say so."""
    if draft.data.get("hook_event_name") == "SessionEnd" and draft.data.get("status") == "success":
        del draft.data["status"]


def settle_usage(draft: Draft) -> None:
    """Where the report does not say which agent asked, the event's own agentId does. Members that say nothing go."""
    draft.data = {name: value for name, value in draft.data.items() if value is not None}
    draft.agent_id = draft.agent_id or draft.data.get("agentId")
    if "at" in draft.data:
        draft.data["at"] = utc(draft.data["at"], "$.at")


def settle_goal_change(draft: Draft) -> None:
    draft.data["goalId"] = known_id(draft.data.get("goalId"), "$.goalId")


def settle_agent(draft: Draft) -> None:
    """Where data does not say which agent it is, the event's own agentId does."""
    agent_id = draft.data.get("agentId") or draft.agent_id
    if agent_id is not None or draft.type != "agent_spawned":
        draft.data["agentId"] = known_id(agent_id, "$.agentId")
    else:
        draft.data.pop("agentId", None)  # null is as good as nothing: the store gives one


def settle_deletion(draft: Draft) -> None:
    draft.data.pop("by", None)  # the store says it


def settle_goal(draft: Draft) -> None:
    if draft.data.get("id") is None:
        draft.data.pop("id", None)


def settle_metadata(draft: Draft) -> None:
    """Raises Problem 422 for members that follow from events."""
    draft.data.pop("sessionId", None)
    check_members(draft.data, "$")


def check_members(members: Document, owner: str) -> None:
    for name in members:
        if why := why_not_settable(name):
            raise invalid(f"{owner}.{name}", why)


def why_not_settable(name: str) -> str:
    """Why no caller can set a member of the metadata that has this name; empty if one can."""
    path = path_of(name)
    if path[0] in KEPT_BY_THE_STORE:
        return "is kept by the store and cannot be set"
    if len(path) > MAX_STEPS or (len(path) > 1 and path[0] in ("status", "attention", "parentSession")):
        return f"cannot be set by a dotted name; at most {MAX_STEPS} steps are possible"
    return ""


OF_HOOKS = (
    *("PreToolUse", "PostToolUse", "PostToolUseFailure", "PermissionDenied", "SubagentStart", "TaskCreated"),
    *("MessageDisplay", "Elicitation", "ElicitationResult"),
)
NAMED = {
    **dict.fromkeys(OF_HOOKS, "hook_event_name"),
    **dict.fromkeys(("lg.call", "lg.result", "lg.turn"), "runId"),
}
"""What begins an id that was made from what the event is about, and the member that such an event has."""


def is_named(event_id: str | None, data: Document) -> bool:
    """Whether an event's id was made from what it is about: whoever has the id says the same, in whatever words."""
    return event_id is not None and NAMED.get(event_id.partition("-")[0]) in data


DOCUMENTS = ("state_updated", "metadata_updated")
"""Events whose data is the caller's own document: all its members are content."""

SETTLED = {
    "session_created": settle_session,
    "session_resumed": settle_session,
    "action": settle_entry,
    "response": settle_entry,
    "session_finalized": settle_end,
    "session_deleted": settle_deletion,
    "usage_reported": settle_usage,
    "goal_added": settle_goal,
    "goal_updated": settle_goal_change,
    "agent_spawned": settle_agent,
    "agent_updated": settle_agent,
    "agent_completed": settle_agent,
    "metadata_updated": settle_metadata,
}


def object_in(body: bytes) -> Document:
    """A body that must be an object. Raises Problem 400, 413 for too many texts, 422."""
    value = json_object(body)
    if hook_agent.may_have_many_texts(body):
        check_texts(value)
    return value
