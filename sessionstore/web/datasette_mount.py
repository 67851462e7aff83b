"""SQL for people at /datasette/: Datasette over the live database, read only, within bounds.

It runs as a process of its own with as little claim to the processor as there is,
because making a page of a thousand rows would hold up whoever writes at that
moment. It starts when it is first asked, and ends when nobody has asked for long.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import asgi
from litestar.types import Receive, Scope, Send

from sessionstore.analytics.worker_process import Child, Gone
from sessionstore.appliance import Store
from sessionstore.model.problems import Problem, unavailable
from sessionstore.web.asgi import answer, refuse
from sessionstore.web.forwarded import prefix_in

MOUNT = b"/datasette"
ANSWER_SECONDS = 30.0
"""More than Datasette ever takes: one that takes longer is stuck, and started anew."""
IDLE_SECONDS = 600.0
METHODS = ("GET", "HEAD")


class Questions:
    """Datasette, once somebody asks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.explorer = Child("sessionstore.analytics.datasette_app", str(store.settings.database))
        self.failures = 0
        """Questions without an answer."""
        self.idle: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["raw_path"].removeprefix(MOUNT)
        if scope["type"] == "http" and not path:
            await answer(send, 307, [(b"location", prefix_in(scope).encode() + MOUNT + b"/")])
            return
        try:
            status, headers, body = await self.ask(scope, path)
        except Problem as problem:
            await refuse(problem, scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def ask(self, scope: Any, path: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body. Raises Problem."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            raise Problem(405, "Datasette can only be read", headers={"allow": ", ".join(METHODS)})
        if is_internal(path):
            raise Problem(404, "There is no such page")
        if self.store.finding or self.store.draining:
            raise unavailable(self.store.why_not_ready() or "")
        self.stay()
        request = {
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"],
            "headers": headers_of(scope),
            "prefix": prefix_in(scope),
        }
        try:
            said = await self.explorer.ask(request, ANSWER_SECONDS)
        except Gone as gone:
            self.failures += 1
            raise unavailable(f"Datasette gave no answer: {gone}") from None
        response = msgspec.msgpack.decode(said)
        return response["status"], [below_mount(*header) for header in response["headers"]], response["body"]

    def stay(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
        self.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.explorer.kill)

    async def stop(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
        await self.explorer.stop()


def is_internal(path: bytes) -> bool:
    """Datasette's own pages about itself: paths, versions, threads."""
    return path.startswith(b"/-/") and not path.startswith(b"/-/static/")


def below_mount(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A header; Datasette redirects some odd paths as if it stood at the root."""
    is_outside = name.lower() == b"location" and value.startswith(b"/") and MOUNT + b"/" not in value
    return name, MOUNT + value if is_outside else value


def headers_of(scope: Any) -> list[tuple[bytes, bytes]]:
    """Those of the request that make a difference, and none that tells who asks."""
    return [(name, value) for name, value in scope["headers"] if name in (b"host", b"accept", b"if-none-match")]


@asgi(MOUNT.decode(), is_mount=True, copy_scope=True)
async def questions(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever Datasette answers."""
    await scope["litestar_app"].state.questions(scope, receive, send)


ROUTES = (questions,)
