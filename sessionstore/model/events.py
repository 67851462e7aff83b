"""The words of the contract: ids, times, JSON that can be taken, and the event."""

from __future__ import annotations

import re
import secrets
import time
from array import array
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count
from typing import Any, Literal, get_args

import msgspec

from sessionstore.model.folds import Document, decode, encode
from sessionstore.model.problems import Problem, invalid, not_json
from sessionstore.model.rights import Right

EventType = Literal[
    "session_created",
    "session_resumed",
    "metadata_updated",
    "session_finalized",
    "session_lost",
    "session_deleted",
    "action",
    "response",
    "state_updated",
    "goal_added",
    "goal_updated",
    "agent_spawned",
    "agent_updated",
    "agent_completed",
    "note_added",
    "usage_reported",
    "budget_crossed",
    "answered",
    "ask_closed",
    "ordered",
    "order_delivered",
    "order_closed",
]
EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))
STATE_TYPES = ("state_updated", "goal_added", "goal_updated", "agent_spawned", "agent_updated", "agent_completed")
LOGS = ("action", "response")
SAID_BY_THE_STORE = ("budget_crossed", "answered", "ask_closed", "ordered", "order_delivered", "order_closed")
TOLD_ABOUT = ("note_added", "usage_reported", *SAID_BY_THE_STORE)
"""What is told about a session, and is no word of its agent: it revives nothing."""
BY_ADMIN_ALONE = frozenset(["session_deleted", *SAID_BY_THE_STORE])
"""What a line of a batch may be only if it is an admin's: nobody else says it but the store."""
STORE = "store"
"""The actor of what the store does of its own accord."""
UNKNOWN_USER = "unknown"

MAX_DEPTH = 64
ID_LENGTH = 128
ID_RULE = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit, without '..'"
USER_RULE = "1 to 256 characters, and no control characters"
ID_PATTERN = r"^(?!.{0,126}\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}$(?!\n)"
USER_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{1,256}$(?!\n)"
is_id = re.compile(ID_PATTERN).match
is_user = re.compile(USER_PATTERN).match
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
PLAIN_TIME = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", re.ASCII)
"""As the store writes one."""


NEW_SESSIONS = 100
"""A second, that one token may begin: each is ten files of the tree, and a loop that makes ids is soon a million."""


class Draft(msgspec.Struct, kw_only=True):
    """An event that somebody wants stored: checked as far as that goes without looking at the database."""

    type: str
    session_id: str
    data: Document
    user_id: str | None = None
    event_id: str | None = None
    agent_id: str | None = None
    timestamp: str | None = None
    """UTC, milliseconds; None: when it is committed."""
    patch: str | None = None
    received_at: str | None = None
    """Only for a restore, which keeps the times at which events were first committed."""
    actor: str | None = ""
    """Who causes it, by whom the request is made and never by what it says; empty: nobody is known; None: only for a
    restore, of an event that was written before there were actors."""
    names_something: bool = False
    """What it changes must be there already (404), as for most REST calls; a batch line or a hook never fails so."""
    must_be_new: bool = False
    """What it makes must not be there yet (409), as for most REST calls; a batch line or a hook never fails so."""
    is_lenient: bool = False
    """What metadata cannot hold is kept beside it, where most REST calls are refused (422)."""
    if_match: frozenset[int] | None = None
    """The versions of the state that the caller has in hand; None: any."""
    is_redacted: bool = False
    """Whether its data has been looked through for secrets."""
    is_same_by_id: bool = False
    """Whether its id was made from what it is about, so that what has that id says the same, in whatever words."""
    by: Right | None = None
    """By which right it came; None where none is needed, or the store says it itself."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event as it is stored: section 2 of the contract."""

    cursor: int
    type: str
    session_id: str
    user_id: str
    event_id: str
    agent_id: str | None
    timestamp: str
    received_at: str
    actor: str | None
    """Empty: nobody is known; None: it was written before there were actors."""
    patch: str | None
    seq: int | None
    kind: str | None
    data: str

    @property
    def text(self) -> bytes:
        return self.document().encode()

    def document(self) -> str:
        """Its JSON text, to the letter as the view `timeline` has it."""
        data = self.data if self.seq is None else f'{{"seq":{self.seq},{self.data[1:]}'
        patch = "" if self.patch is None else f',"patch":"{self.patch}"'
        actor = "" if self.actor is None else f',"actor":{encode(self.actor or None)}'
        return (
            f'{{"cursor":{self.cursor},"type":"{self.type}","sessionId":"{self.session_id}",'
            f'"userId":{encode(self.user_id)},"eventId":"{self.event_id}","agentId":{encode(self.agent_id)},'
            f'"timestamp":"{self.timestamp}","receivedAt":"{self.received_at}"{actor},"data":{data}{patch}}}'
        )


# ------------------------------------------------------------------- ids, times


EPOCH = "1970"
A_DAY = timedelta(days=1)


def event_ids() -> Any:
    """An endless supply of event ids that nobody else has, short, and in the order in which they were made."""
    prefix = secrets.token_hex(5)
    return (f"{prefix}-{number:x}" for number in count(1))


def now() -> str:
    return text_of_time(time.time())


def text_of_time(seconds: float) -> str:
    return in_milliseconds(datetime.fromtimestamp(seconds, UTC))


def in_milliseconds(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def utc(text: object, path: str = "$.timestamp") -> str:
    """Any RFC 3339 time in UTC, milliseconds, `Z`. Raises Problem 422 with `path` for anything else."""
    if isinstance(text, str) and is_stored_time(text):
        return text
    match = TIME.match(text) if isinstance(text, str) else None
    if not match:
        raise invalid(path, "must be an RFC 3339 time such as 2026-02-13T20:59:12.345Z")
    date, minute, second, fraction, zone = match.groups()
    second = min(second, "59")  # a leap second has no place in datetime
    try:
        moment = datetime.fromisoformat(
            f"{date}T{minute}:{second}{(fraction or '.0')[:7]:0<7}{zone.upper()}",
        ).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise invalid(path, f"is not a time that exists ({error})") from None
    return in_milliseconds(moment)


def is_stored_time(text: str) -> bool:
    """Whether it is a time as the store writes it."""
    if not PLAIN_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_absurd(timestamp: str, moment: str) -> bool:
    """Whether a time cannot be that of anything that was told at this moment: before 1970, or more than a day later."""
    if EPOCH <= timestamp <= moment:
        return False
    return timestamp < EPOCH or datetime.fromisoformat(timestamp) - datetime.fromisoformat(moment) > A_DAY


def known_id(value: object, path: str) -> str:
    if isinstance(value, str) and is_id(value):
        return value
    raise invalid(path, f"must be {ID_RULE}")


def known_user(value: object, path: str = "$.userId") -> str:
    if isinstance(value, str) and is_user(value):
        return value
    raise invalid(path, "must be text of 1 to 256 characters without control characters")


# ------------------------------------------------------------------------- JSON


HEX = "[0-9a-fA-F]"
HALF = re.compile(
    rf"(?:\\(?:[^u]|u(?![dD][89a-fA-F])|u[dD][89abAB]{HEX}{{2}}\\u[dD][c-fC-F]{HEX}{{2}})[^\\]*)++"
    rf"|(\\u[dD][89a-fA-F]{HEX}{{2}})".encode(),
    re.DOTALL,
)
"""Escapes in JSON, as many at once as are right, or one that is half of a surrogate pair without the other."""


def read_json(body: bytes) -> Any:
    """Decode a body. Raises Problem 400 for what is not JSON, not UTF-8, or nested deeper than 64."""
    try:
        value = decoded(body)
    except RecursionError:
        raise too_deep() from None
    if is_too_deep(body):
        raise too_deep()
    return value


def decoded(body: bytes, kind: Any = Any) -> Any:
    """JSON in which half a surrogate pair is U+FFFD. Raises Problem 400 for what is not JSON, or not UTF-8.

    Raises RecursionError for what is too deep to be read, msgspec.ValidationError for what is not of the kind.
    """
    try:
        return decode(body, kind)
    except UnicodeDecodeError:
        raise not_json("it is not UTF-8") from None
    except msgspec.ValidationError as error:
        if kind is not Any:
            raise
        raise not_json(str(error)) from None
    except msgspec.DecodeError as error:
        whole = with_whole_pairs(body)
        if whole == body:
            raise not_json(str(error)) from None
    return decoded(whole, kind)


def with_whole_pairs(body: bytes) -> bytes:
    """JSON in which half a surrogate pair is U+FFFD."""
    return HALF.sub(lambda found: rb"\ufffd" if found[1] else found[0], body)


def is_too_deep(body: bytes, most: int = MAX_DEPTH) -> bool:
    """Whether JSON is nested deeper than 64, or `most`."""
    return body.count(b"[") + body.count(b"{") > most and depth_of(body) > most


STEPS = bytes({ord("["): 1, ord("{"): 1, ord("]"): 255, ord("}"): 255}.get(byte, 0) for byte in range(256))
NO_BRACKETS = bytes(byte for byte in range(256) if not STEPS[byte])


def depth_of(text: bytes) -> int:
    """How deep JSON is nested, counted without a step of Python for each of a million values."""
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(text.split(b'"')[::2])  # of strings
    return max(accumulate(array("b", outside.translate(STEPS, NO_BRACKETS))), default=0)


def too_deep() -> Problem:
    return not_json(f"it is nested deeper than {MAX_DEPTH}")


def json_object(body: bytes) -> Document:
    """Decode a body that must be an object: Problem 400 if it is not JSON, 422 if it is something else."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise invalid("$", "must be a JSON object")
    return value
