"""The lines of a batch: nearly all are plain entries, read by typed decoding; any other is kept as what it can be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

import hook_agent
from sessionstore.model import bounds, coercion
from sessionstore.model.drafts import (
    BODIES,
    SPECIAL,
    Id,
    Time,
    UserId,
    checked,
    draft_of,
    is_named,
    why_not_settable,
)
from sessionstore.model.events import (
    BY_ADMIN_ALONE,
    LOGS,
    Draft,
    EventType,
    decoded,
    is_id,
    is_stored_time,
    is_too_deep,
    is_user,
    json_object,
    known_user,
    utc,
)
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem, invalid, not_json


class EventLine(msgspec.Struct, rename="camel"):
    """One line of a batch: an event of section 2 of the contract."""

    type: EventType
    session_id: Id
    data: Document = {}
    user_id: UserId | None = None
    event_id: Id | None = None
    agent_id: Id | None = None
    timestamp: Time | None = None
    received_at: Any = None
    patch: Literal["merge-patch", "replace"] | None = None


class EntryLine(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The same of an entry of a log that has nothing else: so nearly all lines are."""

    type: Literal["action", "response"]
    session_id: str
    data: Document
    user_id: str | None = None
    event_id: str | None = None
    agent_id: str | None = None
    timestamp: str | None = None


def draft_of_line(event: Document) -> Draft:
    """The draft of one event as section 2 of the contract has it. Raises Problem 422."""
    line = checked(event, EventLine)
    draft = draft_of(
        line.type,
        line.session_id,
        line.data,
        user_id=line.user_id,
        event_id=line.event_id,
        agent_id=line.agent_id,
        timestamp=utc(line.timestamp) if line.timestamp else None,
        patch=line.patch if line.type == "state_updated" else None,
        is_lenient=True,
    )
    if line.type in LOGS and line.timestamp not in (None, draft.timestamp):
        draft.data.setdefault("timestamp", line.timestamp)
    draft.is_same_by_id = is_named(draft.event_id, draft.data)
    return draft


ENVELOPE_BYTES = 4096
"""What an event has around its data at the most, so that every event that was stored can be posted back."""
GROWTH = 5
"""How many times as long as it was sent the data of an event may be stored: `1e15` becomes 1000000000000000.0."""


def longest_line(max_event_bytes: int) -> int:
    """Bytes of the longest line that an event in a tree or an archive can have."""
    return GROWTH * max_event_bytes + ENVELOPE_BYTES


MAX_LINES = 50_000
"""Of a batch."""
MAX_VALUES = 4_000_000
"""Of a batch of several lines: an empty list has two bytes here, and 64 of memory. As many lines as there may be, each
as deep as it may be, have fewer."""
MAX_REJECTED = 1_000
"""Lines of a batch of which the answer tells why they were not taken; it always tells how many."""


class RejectedLine(msgspec.Struct, gc=False, rename="camel"):
    """A line of a batch that was not taken: no exception, whose traceback would hold all that was around it."""

    line: int
    status: int
    detail: str
    moved_to: str | UnsetType = UNSET
    """Of 421: which store has its session now."""


class Rejections:
    """The lines of a batch that were not taken: the first of them, and how many of each status."""

    def __init__(self) -> None:
        self.first: list[RejectedLine] = []
        self.statuses: Counter[int] = Counter()

    def note(self, line: int, problem: Problem) -> None:
        self.statuses[problem.status] += 1
        if len(self.first) < MAX_REJECTED:
            moved_to = problem.members.get("movedTo", UNSET)
            self.first.append(RejectedLine(line, problem.status, problem.detail, moved_to))

    def and_of(self, others: Rejections) -> list[RejectedLine]:
        """The first of both, by line."""
        return sorted([*self.first, *others.first], key=lambda rejected: rejected.line)[:MAX_REJECTED]


class EventLines(NamedTuple):
    """A batch: the drafts of each line, which are one but for hooks, and the lines that are none."""

    drafts: list[tuple[int, list[Draft]]]
    rejections: Rejections


def lines_of_batch(body: bytes) -> int:
    """How many there are. Raises Problem 413 for too many."""
    number = body.count(b"\n") + (not body.endswith(b"\n"))
    if number > MAX_LINES:
        raise Problem(413, f"A batch may have at most {MAX_LINES} lines: send what is longer in several")
    return number


def check_values(lines: list[bytes]) -> None:
    """One line alone is cut where it has too much, and kept. Raises Problem 413 for several."""
    if len(lines) > 1 and sum(map(values_in, lines)) > MAX_VALUES:
        raise Problem(413, f"A batch may have at most {MAX_VALUES} values: send what has more in several")


LOOK = 1 << 20
"""Bytes that are looked through in one go: a line may have 32 times as many, and each of its texts would be a piece."""


def values_in(line: bytes) -> int:
    """About how many objects, lists and members there are in a line of JSON, by what stands outside of its texts."""
    text, number, is_inside = line.replace(b"\\\\", b"").replace(b'\\"', b""), 0, 0
    for at in range(0, len(text), LOOK):
        parts = text[at : at + LOOK].split(b'"')
        outside = b"".join(parts[is_inside::2])
        number += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        is_inside = (is_inside + len(parts) - 1) % 2
    return number


Redacted = Callable[[Document], Document]
Adapter = Callable[[bytes], list[Draft]]
"""What a line stands for that is no event itself. Raises Problem."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HOOK = b'"hook"'
"""The type of a line whose data is the payload of a hook, as it is."""
HOOK_LINE = b'{"type":"hook",'
"""With which our own agents begin it, so that it need not be read twice."""


def drafts_of_batch(
    body: bytes, *, max_event_bytes: int, is_admin: bool, redacted: Redacted, hook: Adapter
) -> EventLines:
    """The lines of a batch that are not empty, by number from 1. Raises Problem 413 where several have too much."""
    found = EventLines([], Rejections())
    lines = body.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    if len(body) > MAX_VALUES:
        check_values([line[: max_event_bytes + ENVELOPE_BYTES] for line in lines if line.strip()])
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            drafts = drafts_in(line, max_event_bytes, redacted, hook)
            if drafts and drafts[0].type in BY_ADMIN_ALONE and not is_admin:
                raise Problem(403, f"Only the role admin may send a {drafts[0].type}")
            found.drafts.append((number, drafts))
        except Problem as problem:
            found.rejections.note(number, problem)
    return found


MOVED = "moved:"
"""Before the name of whom another store knows as the actor: no name has a colon, so nobody here is taken for him."""


def drafts_of_history(body: bytes, session_id: str) -> EventLines:
    """The lines of events.jsonl of this session, from another store, as they were stored there."""
    found = EventLines([], Rejections())
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.drafts.append((number, [draft_of_history(json_object(line), session_id)]))
        except Problem as problem:
            found.rejections.note(number, problem)
    return found


def draft_of_history(event: Document, session_id: str) -> Draft:
    """Raises Problem 422."""
    draft = draft_of_line(event)
    if draft.session_id != session_id or draft.type == "session_deleted" or draft.event_id is None:
        raise invalid("$", f"must be an event of the session {session_id}, with its eventId, and not its deletion")
    draft.received_at, draft.is_same_by_id = utc(event.get("receivedAt"), "$.receivedAt"), True
    by = known_user(event.get("actor") or "unknown", "$.actor")
    draft.actor = by if by.startswith(MOVED) else f"{MOVED}{by[:200]}"
    return draft


def drafts_in(line: bytes, limit: int, redacted: Redacted, hook: Adapter) -> list[Draft]:
    """The drafts of a line. Raises Problem 400, 422."""
    if line.startswith(HOOK_LINE):
        return hook(line)
    if draft := plain_draft(line, limit):
        return [draft]
    if HOOK in line and event_in(line, limit).get("type") == "hook":
        return hook(line)
    return [special_draft(line, limit, redacted)]


FEW_TEXTS_BYTES = 3 * hook_agent.MOST_TEXTS
"""A line that is no longer cannot have too many."""
entry_line = msgspec.json.Decoder(EntryLine).decode


def plain_draft(line: bytes, limit: int) -> Draft | None:
    """The draft of a line that is an entry with nothing special about it, as `special_draft` has it; None: it is not.

    Typed decoding finds most of what is special by itself, all else is looked for here.
    """
    if len(line) > limit or len(line) > FEW_TEXTS_BYTES or is_too_deep(line):
        return None
    try:
        entry = entry_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    data = entry.data
    if not isinstance(data.get("type"), str) or not data.keys().isdisjoint(SPECIAL) or not is_named_plainly(entry):
        return None
    if entry.agent_id is not None:
        data["agentId"] = entry.agent_id
    return Draft(
        type=entry.type,
        session_id=entry.session_id,
        data=data,
        user_id=entry.user_id,
        event_id=entry.event_id,
        agent_id=entry.agent_id,
        timestamp=entry.timestamp,
        is_lenient=True,
        is_same_by_id=is_named(entry.event_id, data),
    )


def is_named_plainly(entry: EntryLine) -> bool:
    """Whether it says whose it is, and when it was, as the store does."""
    return bool(
        is_id(entry.session_id)
        and (entry.event_id is None or is_id(entry.event_id))
        and (entry.agent_id is None or is_id(entry.agent_id))
        and (entry.user_id is None or is_user(entry.user_id))
        and (entry.timestamp is None or is_stored_time(entry.timestamp))
    )


def special_draft(line: bytes, limit: int, redacted: Redacted) -> Draft:
    """The draft of any line, which is kept as what it can be.

    Raises Problem 400 for what cannot be read, 422 where it does not say of what kind it is, and of which session.
    """
    event = event_in(line, limit)
    try:
        return draft_of_line(fitting(event, line, limit, redacted))
    except Problem:
        event = settled(event)
    return draft_of_line(fitting(event, encode(event).encode(), limit, redacted))


def settled(event: Document) -> Document:
    """The event as it can be. Raises Problem 422 for one that does not say of what kind it is, and of which session."""
    if event.get("type") == "session_deleted" or not coercion.is_attributable(event):
        checked(event, EventLine)  # nobody deletes by mistake
    shape = BODIES.get(event["type"])
    return coercion.settled(event, EventLine, shape, lambda name: not why_not_settable(name))


def event_in(line: bytes, limit: int) -> Document:
    """A line's event, as much of it as can be read. Raises Problem 400, 422."""
    try:
        event = decoded(line if len(line) <= limit + ENVELOPE_BYTES else bounded(line))
    except RecursionError:
        event = decoded(bounded(line))
    if not isinstance(event, dict):
        raise invalid("$", "must be a JSON object")
    return event


def fitting(event: Document, line: bytes, limit: int, redacted: Redacted) -> Document:
    """The event of a line. What is too deep, too large or too much in its data is cut, and says so."""
    data = event.get("data")
    if isinstance(data, dict) and is_too_deep(line):
        whole = hashlib.sha256(line).hexdigest()
        event["data"] = hook_agent._Plain().value(data) | {"truncated": {"bytes": len(line), "sha256": whole}}
    if isinstance(data, dict) and hook_agent.may_have_many_texts(line):
        event["data"] = hook_agent.with_few_texts(event["data"])
    return fitted(event, limit, redacted) if len(line) > limit else event


def bounded(line: bytes) -> bytes:
    """The line without what would take more memory than it is worth, or cannot be read. Raises Problem 400."""
    try:
        return bounds.bounded(line.decode()).encode()
    except UnicodeDecodeError:
        raise not_json("it is not UTF-8") from None


def fitted(event: Document, limit: int, redacted: Redacted) -> Document:
    """The event, whose data is cut where it is larger than that; its secrets are taken out before, while whole."""
    data = event.get("data")
    if not isinstance(data, dict) or len(encode(data).encode()) <= limit:
        return event
    return event | {"data": hook_agent._fitted(event | {"data": redacted(data)}, limit)}
