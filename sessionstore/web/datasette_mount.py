"""SQL for people at /datasette/: a reverse proxy to Datasette over the live database, read only, within bounds.

It runs as a process of its own with as little claim to the processor as there is,
because making a page of a thousand rows would hold up whoever writes at that
moment. It starts when it is first asked, and ends when nobody has asked for long.
"""

from __future__ import annotations

from asyncio import StreamReader
from typing import Any

from litestar import asgi
from litestar.types import Receive, Scope, Send

from sessionstore.analytics.datasette_process import DatasetteProcess
from sessionstore.appliance import Store
from sessionstore.model.problems import Problem, unavailable
from sessionstore.web.asgi import answer, refuse
from sessionstore.web.forwarded import prefix_in

MOUNT = b"/datasette"
METHODS = ("GET", "HEAD")
PASSED = frozenset({b"host", b"accept", b"if-none-match"})
"""Headers that make a difference, and none that tells who asks."""
CHUNK = 65_536


class DatasetteMount:
    """Datasette, once somebody asks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.datasette = DatasetteProcess(store.settings.database)
        self.stop = self.datasette.stop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, mount = scope["raw_path"].removeprefix(MOUNT), prefix_in(scope).encode() + MOUNT
        if scope["type"] == "http" and not path:
            await answer(send, 307, [(b"location", mount + b"/")])
            return
        try:
            self.check(scope, path)
            async with self.datasette.asked(request_for(scope, path)) as (head, body):
                await pass_on(head, body, mount, send)
        except Problem as problem:
            await refuse(problem, scope, receive, send)

    def check(self, scope: Any, path: bytes) -> None:
        """Raises Problem."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            raise Problem(405, "Datasette can only be read", headers={"allow": ", ".join(METHODS)})
        if is_internal(path):
            raise Problem(404, "There is no such page")
        if self.store.finding or self.store.draining:
            raise unavailable(self.store.why_not_ready() or "")


def is_internal(path: bytes) -> bool:
    """Datasette's own pages about itself: paths, versions, threads."""
    return path.startswith(b"/-/") and not path.startswith(b"/-/static/")


def request_for(scope: Any, path: bytes) -> bytes:
    headers = [header for header in scope["headers"] if header[0] in PASSED]
    headers += [(b"x-forwarded-prefix", prefix_in(scope).encode()), (b"connection", b"close")]
    target = path + b"?" + scope["query_string"]
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (target, b"".join(b"%s: %s\r\n" % header for header in headers))


async def pass_on(head: bytes, body: StreamReader, mount: bytes, send: Any) -> None:
    """Raises EOFError where there is less of the body than there should be."""
    first, *lines = head.strip().split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    del headers[b"connection"]
    if headers.get(b"location", b"").startswith(b"/") and MOUNT + b"/" not in headers[b"location"]:
        headers[b"location"] = mount + headers[b"location"]  # of an odd path: as if it stood at the root
    await send({"type": "http.response.start", "status": int(first.split()[1]), "headers": list(headers.items())})
    left = int(headers.get(b"content-length", 0))
    while left:
        chunk = await body.readexactly(min(left, CHUNK))
        left -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asgi(MOUNT.decode(), is_mount=True, copy_scope=True)
async def questions(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever Datasette answers."""
    await scope["litestar_app"].state.questions(scope, receive, send)
