"""Coercion by Postel's law: a line of a batch that is not quite valid becomes what it can be.

Nobody is there any more to be told that a line was refused, so its event is kept; and each member that cannot be what
it should be is kept, too, as it was given, under `given`. This is the one rule book: clients need none of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from math import isfinite
from typing import Any

import msgspec

import hook_agent
from sessionstore.model.events import EVENT_TYPES, MAX_DEPTH, depth_of, is_id, is_user, utc
from sessionstore.model.folds import Document, encode, path_of
from sessionstore.model.problems import Problem

Shape = type[msgspec.Struct]
Check = Callable[[Any], bool]

GIVEN = "given"
LONGEST_TEXT = 256
"""Characters of the text that stands for what should have been one."""
LONGEST_ID = 128
LONGEST_USER = 256
NEEDED: dict[str, Document] = {
    "action": {"type": "action"},
    "response": {"type": "response"},
    "goal_added": {"description": ""},
    "agent_spawned": {"type": "agent"},
    "note_added": {"text": "note"},
}
"""What stands for a member without which there is no such event."""
NAMED_BY = {"goal_updated": "goalId", "agent_updated": "agentId", "agent_completed": "agentId"}
"""The member that says what an event changes: without it, it is only something that happened."""
BEGINNINGS = ("session_created", "session_resumed")
TYPED = frozenset(("model", "yoloMode", "tokenUsage", "metrics", "tags"))
"""Members of the metadata that cannot be anything."""
MOST_TYPED = 100
"""Of one event, that are looked at one by one."""
COUNTS = (
    *("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "cacheWrite1hTokens", "reasoningTokens"),
    *("contextTokens", "contextLimit"),
)
"""Members of a usage report that are numbers of tokens."""
WELL = frozenset(["success", "succeeded", "successful", "completed", "complete", "done", "ok", "finished"])
CANCELLED = frozenset(["cancelled", "canceled", "cancel", "aborted", "interrupted"])


def is_attributable(event: Document) -> bool:
    """Whether it says of what kind it is and of which session, so that it can be kept at all."""
    event_type, session_id = event.get("type"), event.get("sessionId")
    return (
        isinstance(event_type, str)
        and event_type in EVENT_TYPES
        and session_id is not None
        and is_id_or_none(session_id)
    )


def settled(event: Document, envelope: Shape, body: Shape | None, is_settable: Check) -> Document:
    """An attributable event as it can be: `envelope` and `body` say what its members must be, and `is_settable` which
    names the metadata can have. Settling it again changes nothing."""
    event_type = event["type"]
    head, misplaced = sifted(without(event, ["data"]), checks_of(envelope), event_type)
    whole, checks = event.get("data"), checks_of_data(event_type, body)
    if whole is not None and not isinstance(whole, dict):
        misplaced["data"] = whole
    data, misfits = sifted(whole if isinstance(whole, dict) else {}, checks, event_type)
    if "eventId" in misplaced | misfits and not (head.get("eventId") or ("eventId" in checks and data.get("eventId"))):
        head["eventId"] = id_by_content(event)
    name = NAMED_BY.get(event_type)
    if name and not (data.get(name) or (name == "agentId" and head.get(name))):
        return head | {"type": "action", "data": happened(event_type, data, misfits, misplaced)}
    unset = {name: value for name, value in in_metadata(event_type, data).items() if not is_settable(name)}
    data = beside_metadata(event_type, NEEDED.get(event_type, {}) | data, unset)
    return head | {"data": with_given(with_given(data, misfits), misplaced)}


def with_given(data: Document, given: Document) -> Document:
    """The data, which keeps what was given; nothing of what it keeps already, or is called so by chance, is lost."""
    if not given:
        return data
    kept = data.get(GIVEN, {})
    is_apart = isinstance(kept, dict) and kept.keys().isdisjoint(given)
    return data | {GIVEN: kept | given if is_apart else {GIVEN: kept, **given}}


def happened(event_type: str, data: Document, *given: Document) -> Document:
    """The entry of an event that changes what it does not name."""
    entry: Document = {"type": event_type, **{name: data[name] for name in data if name in ("eventId", "timestamp")}}
    for members in (data, *given):
        entry = with_given(entry, members)
    return entry


def id_by_content(event: Document) -> str:
    """An id for an event whose own cannot be one: the same for the same line, sent again."""
    return f"{GIVEN}-{hashlib.sha256(encode(event).encode()).hexdigest()[:32]}"


def without(members: Document, names: Iterable[str]) -> Document:
    return {name: value for name, value in members.items() if name not in names}


# ----------------------------------------------------------------------- metadata


def in_metadata(event_type: str, data: Document) -> Document:
    """The members that an event sets in the metadata."""
    if event_type == "metadata_updated":
        return data
    return (data.get("metadata") or {}) if event_type in BEGINNINGS else {}


def beside_metadata(event_type: str, data: Document, unset: Document) -> Document:
    """The data, whose `unset` members are kept, and not set."""
    if not unset:
        return data
    if event_type == "metadata_updated":
        return with_given(without(data, unset), unset)
    return with_given(data | {"metadata": without(data["metadata"], unset)}, {"metadata": unset})


def holdable(event_type: str, data: Document, is_held: Callable[[Document], bool]) -> Document:
    """The data with only those members that the metadata can hold as it is now; the others beside it."""
    members = in_metadata(event_type, data)
    typed = {name: value for name, value in members.items() if path_of(name)[0] in TYPED}
    held: Document = {}
    for name in [*typed] if len(typed) <= MOST_TYPED else []:
        tried = held | {name: typed[name]}
        if is_held(tried if event_type == "metadata_updated" else data | {"metadata": tried}):
            held = tried
    kept = beside_metadata(event_type, data, without(typed, held))
    is_deep = depth_of(encode(kept).encode()) >= MAX_DEPTH  # of it alone: the event is around it
    return hook_agent._Plain().value(kept) if is_deep else kept


def told(event_type: str, data: Document) -> Document:
    """What was said, wherever it is kept: by this a line that comes again is known."""
    if event_type not in (*BEGINNINGS, "metadata_updated"):
        return data
    given = data.get(GIVEN)
    if not isinstance(given, dict):
        return data
    rest = without(data, [GIVEN])
    if event_type == "metadata_updated":
        return told(event_type, rest | given)
    unset = given.get("metadata")
    if isinstance(unset, dict):
        rest["metadata"] = in_metadata(event_type, rest) | unset
        given = without(given, ["metadata"])
    deeper = given.get(GIVEN)
    if not isinstance(deeper, dict):
        return rest | ({GIVEN: given} if given else {})
    return told(event_type, rest | {GIVEN: deeper | without(given, [GIVEN])})


# ------------------------------------------------------------------------ members


def sifted(members: Document, checks: Mapping[str, Check], event_type: str) -> tuple[Document, Document]:
    """The members, with what comes nearest to those that do not pass, and those as they were."""
    given = {
        name: members[name] for name, is_right in checks.items() if name in members and not is_right(members[name])
    }
    near = ((name, nearest(name, value, event_type, checks[name])) for name, value in given.items())
    return without(members, given) | {name: value for name, value in near if value is not None}, given


@cache
def checks_of(shape: Shape) -> Mapping[str, Check]:
    """What the members of a shape must be, each for itself, by their names on the wire."""
    checks = {field.encode_name: check_of(field.type) for field in msgspec.structs.fields(shape)}
    return checks | {name: is_time for name in ("timestamp", "at") if name in checks}


def checks_of_data(event_type: str, body: Shape | None) -> Mapping[str, Check]:
    checks = {} if body is None else checks_of(body)
    name = NAMED_BY.get(event_type)
    return {**checks, name: is_id_or_none} if name else checks


def check_of(kind: Any) -> Check:
    one = msgspec.defstruct("Member", [("value", kind)])

    def is_right(value: Any) -> bool:
        try:
            msgspec.convert({"value": value}, one)
        except msgspec.ValidationError:
            return False
        return True

    return is_right


def is_id_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(is_id(value)))


def is_time(value: Any) -> bool:
    try:
        return value is None or bool(utc(value))
    except Problem:
        return False


def nearest(name: str, value: Any, event_type: str, is_right: Check) -> Any:
    """What a member can be instead; None: nothing."""
    ways = WAYS.get(name, ()) if name != "status" else [*STATUSES.get(event_type, [text_of])]
    return next((found for way in ways if value is not None and (found := way(value)) and is_right(found)), None)


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else encode(value)[:LONGEST_TEXT]


def id_of(value: Any) -> str:
    """The id that is nearest; empty: there is none."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return ""
    text = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in str(value)
    )
    while ".." in text:
        text = text.replace("..", ".")
    return text.lstrip("._-")[:LONGEST_ID]


def ids_of(value: Any) -> list[str]:
    return [found for found in map(id_of, value if isinstance(value, list) else [value]) if found]


def user_of(value: Any) -> str:
    text = text_of(value)
    return "".join(letter for letter in text[: 4 * LONGEST_USER] if is_user(letter))[:LONGEST_USER]


def number_of(value: Any) -> int | float | None:
    """The number that a text is, or a whole one that came as a float; what is not finite is none."""
    with suppress(ValueError, TypeError, OverflowError):
        number = float(value)
        return int(number) if number.is_integer() else number if isfinite(number) else None
    return None


def tags_of(value: Any) -> list[str]:
    return [text_of(tag)[:LONGEST_TEXT] for tag in (value if isinstance(value, list) else [value])]


def outcome_of(value: Any) -> str:
    """How something ended, by the word for it: what went neither well nor was cancelled has failed."""
    word = text_of(value).strip().lower()
    return "success" if word in WELL else "cancelled" if word in CANCELLED else "failed"


def end_of(value: Any) -> str:
    outcome = outcome_of(value)
    return "completed" if outcome == "success" else outcome


WAYS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    **dict.fromkeys(("type", "description", "priority", "text"), (text_of,)),
    **dict.fromkeys(("agentId", "goalId", "id", "parentAgentId", "parentSession", "subsession"), (id_of,)),
    "userId": (user_of,),
    "tags": (tags_of,),
    "cancelledAgents": (ids_of,),
    **dict.fromkeys(("source", "requestKey", "messageId", "promptId", "provider", "model", "speed"), (text_of,)),
    **dict.fromkeys(COUNTS, (number_of,)),
    "costUsd": (number_of,),
}
"""By its name, what may come nearest to a member."""
STATUSES: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "session_finalized": (outcome_of,),
    "agent_completed": (end_of,),
    "metadata_updated": (),
}
