"""What the appliance is compared with: servers that store nothing, behind the same uvicorn settings.

`python -m tests.bench.baselines NAME` serves one of them on 127.0.0.1:PORT.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import uvicorn
from litestar import Litestar, get, post
from litestar.enums import ScopeType
from litestar.params import Body
from litestar.types import Receive, Scope, Send

from tests.appliance import Server

CONSTANT_ANSWER = b'{"success":true,"seq":1}'


class Action(msgspec.Struct):
    type: str
    path: str | None = None
    lines: int | None = None


class Logged(msgspec.Struct):
    success: bool = True
    seq: int = 1


@post("/api/actions/{session_id:str}", status_code=200)
async def log_action(session_id: str, data: Annotated[Action, Body()]) -> Logged:
    return Logged()


@get("/health")
async def health() -> Logged:
    return Logged()


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers the same few bytes, whatever the request is."""
    await _read(receive)
    await _answer(send, CONSTANT_ANSWER)


class BareFeed:
    """Gives every request a cursor, and sends it to every WebSocket as it is."""

    EVENT = (
        b'{"cursor":%d,"type":"action","sessionId":"bench-0","userId":"unknown","eventId":"feed-0","agentId":null,'
        b'"timestamp":"2026-01-01T00:00:00.000Z","receivedAt":"2026-01-01T00:00:00.000Z",'
        b'"data":{"seq":1,"type":"file_write","path":"src/server.js","lines":42}}'
    )
    ANSWER = b'{"cursor":%d,"websocket":{"totalConnections":%d}}'

    def __init__(self) -> None:
        self._cursor = 0
        self._readers: set[asyncio.Queue[str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.WEBSOCKET:
            await self._serve_reader(receive, send)
            return
        await _read(receive)
        if scope["method"] == "POST":
            self._publish()
        await _answer(send, self.ANSWER % (self._cursor, len(self._readers)))

    def _publish(self) -> None:
        self._cursor += 1
        event = (self.EVENT % self._cursor).decode()
        for reader in self._readers:
            reader.put_nowait(event)

    async def _serve_reader(self, receive: Receive, send: Send) -> None:
        events: asyncio.Queue[str] = asyncio.Queue()
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await send({"type": "websocket.send", "text": '{"type":"connected","cursor":0}', "bytes": None})
        self._readers.add(events)
        sending = asyncio.create_task(self._send_all(events, send))
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self._readers.remove(events)
        sending.cancel()

    async def _send_all(self, events: asyncio.Queue[str], send: Send) -> None:
        while True:
            await send({"type": "websocket.send", "text": await events.get(), "bytes": None})


async def _read(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def baseline(name: str) -> Server:
    return Server([sys.executable, "-m", "tests.bench.baselines", name], dict(os.environ))


def serve(name: str) -> None:
    apps: dict[str, Callable[..., Any]] = {
        "typed": Litestar([log_action, health]),
        "bare": bare,
        "bare-feed": BareFeed(),
    }
    uvicorn.run(
        apps[name],
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    serve(sys.argv[1])
