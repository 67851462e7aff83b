"""The types of ASGI, and a plain answer or problem sent without the framework."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sessionstore.model.problems import MEDIA_TYPE, Problem, invalid

Scope = MutableMapping[str, Any]


Message = MutableMapping[str, Any]


Receive = Callable[[], Awaitable[Message]]


Send = Callable[[Message], Awaitable[None]]


ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


class Paths:
    """ASGI: from here on a path is spelt as the router reads it, with single slashes and none at its end: whoever may
    is asked of what is then done. Below some prefixes names may be of any characters, so a path there is split before
    it is decoded."""

    def __init__(self, app: ASGI, *undecoded: str) -> None:
        self.app = app
        self.undecoded = undecoded

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            raw = plain(scope.get("raw_path", b"").decode("latin-1"))
            scope["path"] = raw if raw.startswith(self.undecoded) else plain(scope["path"])
        return self.app(scope, receive, send)


def plain(path: str) -> str:
    if path.startswith("/") and not path.endswith("/") and "//" not in path:  # as nearly all do
        return path
    return "/" + SLASHES.sub("/", path.strip("/"))


SLASHES = re.compile("//+")


class NoEmptyNames:
    """ASGI: below some prefixes no name may be empty, or the path would be another's. A list may end with a slash."""

    def __init__(self, app: ASGI, *prefixes: str) -> None:
        self.app = app
        self.prefixes = prefixes

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = "/" + scope.get("raw_path", b"").decode("latin-1").lstrip("/")
        path = path.rstrip("/") if scope.get("method") in ("GET", "HEAD") else path
        if path.startswith(self.prefixes) and path != plain(path):
            return refuse(invalid("$.path", "has a name that is empty"), scope, receive, send)
        return self.app(scope, receive, send)


WHOLE_ANSWER = "sessionstore.whole_answer"
"""An extension of ASGI by web/server.py: called with headers and a body answers 200; False: it cannot."""


def answered_whole(scope: Scope, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Answer 200 in one piece, where the server can."""
    whole = scope.get("extensions", {}).get(WHOLE_ANSWER)
    return whole is not None and whole(headers, body)


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    """One whole plain ASGI response."""
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


def problem_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    return [*headers, (b"content-type", MEDIA_TYPE.encode())]


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a problem in plain ASGI, also to a WebSocket that has not been accepted."""
    headers = problem_headers(problem)
    if scope["type"] == "http":
        await answer(send, problem.status, headers, problem.body())
        return
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
        return
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body()})


class Allowed:
    """ASGI: names by `Allow` all methods that a path takes, where it is asked and where it does not take one; RFC 9110,
    sections 9.3.7 and 15.5.6."""

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asked = scope.get("method") == "OPTIONS"
        is_over = False

        async def send_allowed(message: Message) -> None:
            nonlocal is_over
            if message.get("status") == 405:
                message = {**message, "headers": with_methods(message["headers"])}
                if is_asked:
                    is_over = True
                    await answer(send, 204, [header for header in message["headers"] if header[0] == b"allow"])
            if not is_over:
                await send(message)

        # No path takes TRACE, and the framework names those of a path only where it does not take one.
        await self.app({**scope, "method": "TRACE"} if is_asked else scope, receive, send_allowed)


def with_methods(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with HEAD beside GET in `Allow`, and nothing that is no method."""
    said = {name.strip() for header, value in headers if header == b"allow" for name in value.split(b",")}
    known = {name for name in said if name.isupper()} | {b"OPTIONS"} | ({b"HEAD"} if b"GET" in said else set())
    return [*((name, value) for name, value in headers if name != b"allow"), (b"allow", b", ".join(sorted(known)))]


class Heads:
    """ASGI: answers HEAD as GET, but for the body; RFC 9110, section 9.3.2."""

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self.app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        is_over = False

        async def send_head(message: Message) -> None:
            """The answer is over with its head: a stream is then told that nobody is there."""
            nonlocal is_over
            if not is_over:
                await send(message)
            if not is_over and message["type"] == "http.response.start":
                is_over = True
                await send({"type": "http.response.body"})

        try:
            await self.app(as_get, receive, send_head)
        finally:
            scope.update({name: as_get[name] for name in ("path_template", "path_params") if name in as_get})
