"""From a Litestar request to a call of the store, and the answer of a write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection

from sessionstore.appliance import Store
from sessionstore.model.drafts import Headers, claim_title, object_in
from sessionstore.model.events import Draft, is_id
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem, no_session
from sessionstore.store.appender import Appended
from sessionstore.store.rights import OWNER, check_readable
from sessionstore.store.writer import LARGE
from sessionstore.web.asgi import Receive
from sessionstore.web.gate import READERS, READS, Caller, beyond_role
from sessionstore.web.openapi import JSON
from sessionstore.web.shares import ROLE as SHARE
from sessionstore.web.shares import ShareBook


def session_in_path(text: str) -> str:
    """A session id in a path. Raises Problem 404 for what cannot be one."""
    if is_id(text):
        return text
    raise no_session(text)


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises Problem 413 past `limit` bytes, 400 if the caller goes away."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "The request ended before its body did")
        parts.append(body := message.get("body", b""))
        size += len(body)
        if size > limit:
            raise Problem(413, f"The body may have at most {limit} bytes")
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def split(values: list[str] | None) -> list[str]:
    """The values of a query parameter that may repeat, or have several values with commas between them."""
    return [name for text in values or () for name in text.split(",") if name]


def check_media_type(headers: Headers, *allowed: str) -> str:
    """The media type of the body. Raises Problem 415 for any but `allowed`, in UTF-8, and not compressed."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        refused = {"accept-encoding": "identity"}
        raise Problem(415, "The body must be sent as it is: gzip and the like are not understood", headers=refused)
    said = headers.get(b"content-type", b"").decode("latin-1").lower()
    if said in allowed:
        return said
    media_type, _, parameters = said.partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters)
    if media_type.strip() not in allowed or (charset and charset[1] not in ("utf-8", "utf8")):
        raise Problem(415, f"The body must be sent as {' or '.join(allowed)}, in UTF-8", headers={"accept": allowed[0]})
    return media_type.strip()


def if_match(headers: Headers) -> frozenset[int] | None:
    """The versions in If-Match; None: there is none, or `*`. A tag that is no version matches nothing."""
    value = headers.get(b"if-match")
    if value is None or value.strip() == b"*":
        return None
    return frozenset(versions(value.decode("latin-1").split(",")))


def versions(tags: Iterable[str]) -> Iterator[int]:
    for tag in tags:
        match = re.fullmatch(r'\s*"([0-9]{1,18})"\s*', tag)
        if match:
            yield int(match[1])


JSONResponse = Response[bytes]


Call = Request[Any, Any, Any]


def store_of(request: Call) -> Store:
    store: Store = request.app.state.store
    return store


def shares_of(request: Call) -> ShareBook:
    shares: ShareBook = request.app.state.gate.shares
    return shares


def caller_of(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    caller: Caller = request.scope["state"]["caller"]
    return caller


def headers_of(request: Call) -> Headers:
    return dict(request.scope["headers"])


async def body_of(request: Call, *media_types: str, limit: int | None = None) -> bytes:
    """The body, of one of these media types. Raises Problem 413, 415."""
    check_media_type(headers_of(request), *media_types or (JSON,))
    limit = store_of(request).settings.max_event_bytes if limit is None else limit
    return await read_body(request.receive, limit)  # type: ignore[arg-type]


async def object_of(request: Call, *media_types: str) -> Document:
    """The body as a JSON object. Raises Problem 400, 413, 415, 422."""
    return await decoded(request, await body_of(request, *media_types))


async def decoded(request: Call, body: bytes) -> Document:
    """A JSON object; a large one is decoded beside the event loop. Raises Problem 400, 413, 422."""
    request.scope["state"]["bytes"] = len(body)
    return object_in(body) if len(body) <= LARGE else await store_of(request).writer.beside(object_in, body)


def answer(content: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    body = content.encode() if isinstance(content, str) else content
    return Response(body, status_code=status, media_type=JSON, headers=headers)


def done(appended: Appended, members: Document | None = None) -> JSONResponse:
    """The answer to a write: `success`, `cursor`, `eventId`, and whatever else there is to say."""
    head = {"success": True, "cursor": appended.event.cursor, "eventId": appended.event.event_id}
    return answer(msgspec.json.encode(head | (members or {})))


def joined(members: dict[str, str]) -> str:
    """A JSON object of members that are JSON text already."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


def is_person(request: Call) -> bool:
    """Whether a person asks: by a log-in or, where nobody needs one, from the page."""
    caller = caller_of(request)
    return caller.login is not None or (caller.token is None and b"origin" in headers_of(request))


async def append(request: Call, draft: Draft) -> Appended:
    caller_of(request).sign(draft)
    source = "person" if is_person(request) else "caller"
    claim_title(draft, source, source)
    return await store_of(request).writer.append(draft, request.scope["state"].get("bytes", 0))


async def check_bounds(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    """A guard of every route: what a bound token may not read is not there. What it writes the writer looks at.

    Raises Problem 404.
    """
    token = caller_of(connection).token
    session_id = connection.path_params.get("session_id")
    if token is None or token.bounds is None or session_id is None or connection.scope.get("method") not in READS:
        return
    store: Store = connection.app.state.store
    check_readable(token.bounds, session_id, await store.reader.row(OWNER, (session_id,)))
    if token.place == SHARE:
        shares: ShareBook = connection.app.state.gate.shares
        if not shares.is_of(token, await store.reader.created(session_id)):
            raise no_session(session_id)


# Material: an agent has what its own token wrote, and, if that is bound, what belongs to sessions that are its own.


async def may_have(request: Call, written_by: str | None, session_id: str | None) -> bool:
    """Whether material that a token of this name wrote, and that belongs to this session, is there for who asks."""
    caller = caller_of(request)
    if caller.role != "ingest" or caller.token is None or caller.token.name == written_by:
        return True
    bounds = caller.token.bounds
    if bounds is None or session_id is None:
        return False
    owner = await store_of(request).reader.row(OWNER, (session_id,))
    return owner is not None and bounds.hold(session_id, *owner)


async def check_may_belong(request: Call, session_id: str | None) -> None:
    """Whether he may say that material belongs to this session, which may be still to come. Raises Problem 404."""
    token = caller_of(request).token
    if session_id is None or token is None or (bounds := token.bounds) is None:
        return
    own = (next(iter(bounds.users), None), next(iter(bounds.projects), None))
    owner = await store_of(request).reader.row(OWNER, (session_id,))
    if not bounds.hold(session_id, *(owner or own)):
        raise no_session(session_id)


def check_may_list(request: Call) -> None:
    """Raises Problem 403 for an agent that is not bound: it has no list of others' material."""
    caller = caller_of(request)
    if caller.role == "ingest" and caller.token is not None and caller.token.bounds is None:
        raise beyond_role(caller, (*READERS, "ingest, bound"))


async def optional_object_of(request: Call) -> Document:
    """The body as a JSON object; no body at all is an empty one."""
    headers = headers_of(request)
    is_empty = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"
    if is_empty and b"content-type" not in headers:
        return {}
    body = await body_of(request)
    return await decoded(request, body) if body else {}
