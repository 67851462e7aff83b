"""HTTP and WebSocket clients that handle bytes and little else, so that a measurement is of the server, not of them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

JSON = "application/json"
NDJSON = "application/x-ndjson"
WS_TEXT, WS_CLOSE, WS_PING = 0x1, 0x8, 0x9
WS_PONG_HEAD = 0x8A
WS_MASKED = 0x80
WS_FINAL = 0x80

P = TypeVar("P", bound=asyncio.Protocol)


class WireError(ConnectionError):
    """The server sent something these clients do not take."""


class Answer(NamedTuple):
    status: int
    body: bytes


def http_request(method: str, path: str, body: bytes = b"", content_type: str = JSON) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def connect(port: int, protocol: Callable[[], P]) -> P:
    _, connected = await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", port)
    return connected


class HttpConnection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way; subclasses say what follows an answer."""

    def __init__(self) -> None:
        self._received = b""
        self._fault: WireError | None = None
        self._transport: asyncio.WriteTransport | None = None

    def answered(self, status: int, body: bytes) -> None:
        raise NotImplementedError

    def lost(self, error: Exception) -> None:
        """The connection ended, or the answer cannot be read; called once, also after `close`."""
        raise NotImplementedError

    def send(self, request: bytes) -> None:
        if self._transport is None:
            raise ConnectionError("not connected")
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost(self._fault or exc or ConnectionError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            self._received = received
            return
        length = _content_length(received[:head_end])
        if length is None:
            self._fault = WireError(f"an answer without content-length: {received[:head_end]!r}")
            self.close()
            return
        body_start = head_end + 4
        if len(received) - body_start < length:
            self._received = received
            return
        self._received = b""
        self.answered(int(received[9:12]), received[body_start:])


def _content_length(head: bytes) -> int | None:
    _, named, value = head.lower().partition(b"\r\ncontent-length:")
    return int(value.partition(b"\r\n")[0]) if named else None


class HttpClient(HttpConnection):
    """The connection as a coroutine: `await client.ask(request)`."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError if the connection ends first: whether the server took the request is then unknown."""
        self._waiting = asyncio.get_running_loop().create_future()
        self.send(request)
        return await self._waiting

    def answered(self, status: int, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(status, body))

    def lost(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class WsReader(asyncio.Protocol):
    """A WebSocket connection that only listens; subclasses say what to do with a message."""

    def __init__(self, path: str = "/ws") -> None:
        self._path = path
        self._received = b""
        self._upgraded = False
        self.close_code: int | None = None

    def message(self, payload: bytes) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """The connection ended; `close_code` is what the server said, or None if it said nothing."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(_upgrade_request(self._path))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        if not self._upgraded:
            received = self._take_upgrade(received)
        self._received = self._take_frames(received) if self._upgraded else received

    def _take_upgrade(self, received: bytes) -> bytes:
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            return received
        if not head.startswith(b"HTTP/1.1 101"):
            self.close()
            return b""
        self._upgraded = True
        return rest

    def _take_frames(self, received: bytes) -> bytes:
        """Handle every whole frame; what is left of the last one is returned."""
        at, have = 0, len(received)
        while have - at >= 2:
            length, start = received[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(received[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(received[start : start + 8], "big"), start + 8
            if have < start + length:
                break
            self._frame(received[at], received[start : start + length])
            at = start + length
        return received[at:]

    def _frame(self, first: int, payload: bytes) -> None:
        if first == WS_FINAL | WS_TEXT:
            self.message(payload)
        elif first == WS_FINAL | WS_PING:
            self._transport.write(_pong(payload))
        elif first == WS_FINAL | WS_CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else None
            self.close()
        else:
            raise WireError(f"a frame that begins with {first:#x}: fragments and binary are not expected here")


def _upgrade_request(path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    return head.encode()


def _pong(payload: bytes) -> bytes:
    # A client must mask; a key of zeros leaves the payload as it is.
    return bytes((WS_PONG_HEAD, WS_MASKED | len(payload))) + bytes(4) + payload
