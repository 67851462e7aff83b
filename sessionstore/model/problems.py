"""Every error that the API tells, as RFC 9457 problem details."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
import msgspec.inspect

MEDIA_TYPE = "application/problem+json"
MAX_TEXT = 1000


class Problem(Exception):
    """An error for the caller: an HTTP status, a sentence that names the thing and the remedy, and bad fields."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        path: str | None = None,
        headers: dict[str, str] | None = None,
        limit: int | None = None,
        members: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = bounded(detail)
        self.path = path and bounded(path)
        self.headers = headers or {}
        self.limit = limit
        """Bytes that there may be, where there were more."""
        self.members = members or {}
        """What else the document says."""

    def document(self) -> dict[str, Any]:
        """The members of the problem document; `error` repeats `detail` for older clients."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        if self.path is not None:
            document["errors"] = [{"path": self.path, "message": self.detail}]
        if self.limit is not None:
            document["limit"] = self.limit
        return document | self.members

    def body(self) -> bytes:
        return msgspec.json.encode(self.document())


def bounded(text: str) -> str:
    """What a caller wrote, such as the name of a member, may stand in it, and may have a megabyte."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def title(status: int) -> str:
    return HTTPStatus(status).phrase


def invalid(path: str, message: str) -> Problem:
    """422: well-formed, but the member at `path` (`$.userId`) is not valid."""
    name = "the body" if path == "$" else path.removeprefix("$.")
    return Problem(422, f"{name}: {message}", path=path)


def invalid_value(error: msgspec.ValidationError, shape: Any = None) -> Problem:
    """The same of what msgspec says of a value that is to be of this shape, in words for people:

    `Invalid enum value 'x' - at `$.status`` becomes `status: must be one of success, failed, cancelled`.
    """
    message, _, path = str(error).partition(" - at `")
    path = path.rstrip("`") or "$"
    return invalid(path, in_words(message, shape, path))


FOR_PROGRAMS = re.compile("Invalid enum value|.* matching regex")
STEPS = re.compile(r"\.([^.\[]+)|\[")


def in_words(message: str, shape: Any, path: str = "$") -> str:
    rule = FOR_PROGRAMS.match(message) and rule_of(shape, path)
    return f"must be {rule}" if rule else message[:1].lower() + message[1:]


@lru_cache(1000)
def rule_of(shape: Any, path: str) -> str:
    """What the value at this path has to be: one of some words, or what its type says as `rule`; else empty."""
    kinds = list(alternatives(msgspec.inspect.type_info(shape)))
    for step in STEPS.finditer(path):
        kinds = [kind for outer in kinds for inner in within(outer, step[1]) for kind in alternatives(inner)]
    kinds += [kind for outer in kinds for inner in within(outer, None) for kind in alternatives(inner)]
    for kind in kinds:
        if isinstance(kind, msgspec.inspect.Metadata) and kind.extra:
            return str(kind.extra["rule"])
    words = [str(word) for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType) for word in kind.values]
    return f"one of {', '.join(words)}" if words else ""


def alternatives(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    yield kind
    inner = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (getattr(kind, "type", None),)
    for one in inner:
        if isinstance(one, msgspec.inspect.Type):
            yield from alternatives(one)


def within(kind: msgspec.inspect.Type, name: str | None) -> Iterator[msgspec.inspect.Type]:
    """Of the member of this name, or of whatever it has many of."""
    yield from (field.type for field in getattr(kind, "fields", ()) if field.encode_name == name)
    yield from (inner for inner in (getattr(kind, "item_type", None), getattr(kind, "value_type", None)) if inner)


def not_json(why: str) -> Problem:
    return Problem(400, f"The body is not JSON that can be taken: {why}")


def no_session(session_id: str) -> Problem:
    return Problem(404, f"There is no session {session_id!r}")


def moved(session_id: str, url: str) -> Problem:
    """421: the store at `movedTo` has this session now; the caller goes on there."""
    return Problem(421, f"The session {session_id!r} has moved to {url}", members={"movedTo": url})


def unavailable(why: str, retry_after: int = 1) -> Problem:
    """503: writes cannot be taken now; the caller keeps what it has and comes back after `retry_after` seconds."""
    return Problem(503, why, headers={"retry-after": str(retry_after)})


def fault() -> Problem:
    """500: a fault of ours, which the log tells whole."""
    return Problem(500, "The server has a fault: its log says more")
