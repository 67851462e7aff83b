"""The requests: every one counted, and logged where that is asked for, by its route and never by what it carries."""

from __future__ import annotations

import logging
import time
from itertools import count

from sessionstore.histogram import Histogram
from sessionstore.log import of_requests
from sessionstore.web.asgi import ASGI, Message, Receive, Scope, Send
from sessionstore.web.gate import Caller

OTHER = "other"
"""The route of what matches none, or was refused before that was looked for."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Seen:
    """The requests of one method on one route: how many by status, and how long it was until the answer began."""

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.seconds = Histogram()

    def note(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.note(seconds)


class Traffic:
    """All that came."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Seen] = {}
        self.numbers = count(1)
        self.prefix = f"{time.time_ns() // 1_000_000:x}"

    def of(self, method: str, route: str) -> Seen:
        """`route` is a template: never a path, of which there are as many as callers like."""
        seen = self.routes.get((method, route))
        if seen is None:
            seen = self.routes[method, route] = Seen()
        return seen

    def errors(self) -> dict[str, int]:
        """How many were answered with an error: of the caller, of the server."""
        found = {"4xx": 0, "5xx": 0}
        for seen in self.routes.values():
            for status, number in seen.statuses.items():
                if status >= 400:
                    found[f"{status // 100}xx"] += number
        return found

    def note(self, scope: Scope, status: int, seconds: float, size: int) -> None:
        """A request was answered with so many bytes; it is logged where requests are."""
        method, route = scope.get("method", "GET"), scope.get("path_template") or OTHER
        method = method if method in METHODS else OTHER
        self.of(method, route).note(status, seconds)
        if not of_requests.isEnabledFor(logging.INFO):
            return
        of_requests.info(
            "request",
            extra={
                "fields": {
                    "request_id": f"{self.prefix}-{next(self.numbers)}",
                    "method": method,
                    "route": route,
                    "status": status,
                    "duration_ms": round(seconds * 1000, 3),
                    "path": scope["path"],
                    "client": (scope.get("client") or (None,))[0],
                    "actor": actor_of(scope.get("state", {}).get("caller")),
                    "session_id": (scope.get("path_params") or {}).get("session_id"),
                    "bytes": size,
                }
            },
        )


class Counted:
    """ASGI: has what passes through it counted; what got no answer, since its caller went away, as status 499."""

    def __init__(self, app: ASGI, traffic: Traffic) -> None:
        self.app = app
        self.traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        watched = Watched(scope, send)
        try:
            await self.app(scope, receive, watched.send)
        finally:
            watched.count(self.traffic)


class Watched:
    """One request on its way through the app."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.pass_on = send
        self.begun = time.perf_counter()
        self.status = 499
        self.seconds: float | None = None
        self.bytes = 0

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.seconds is None:
            self.seconds = time.perf_counter() - self.begun
            self.status = message.get("status") or (101 if kind == "websocket.accept" else 403)
        self.bytes += len(message.get("body") or b"")
        await self.pass_on(message)

    def count(self, traffic: Traffic) -> None:
        seconds = self.seconds if self.seconds is not None else time.perf_counter() - self.begun
        traffic.note(self.scope, self.status, seconds, self.bytes)


def actor_of(caller: Caller | None) -> str | None:
    """Who asked, by the name of the token where one was needed; None: the gate has recognised nobody."""
    if caller is None:
        return None
    return caller.token.name if caller.token else caller.role
