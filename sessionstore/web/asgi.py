"""The types of ASGI, and a plain answer or problem sent without the framework."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sessionstore.model.problems import MEDIA_TYPE, Problem

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
    return "/" + SLASHES.sub("/", path.strip("/"))


SLASHES = re.compile("//+")


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
