"""HTTP and WebSocket clients that handle bytes and little else, so that a measurement is of the server, not of them."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

JSON = "application/json"
NDJSON = "application/x-ndjson"
UPGRADE_SECONDS = 60.0
RECEIVE_BYTES = 1 << 18
# RFC 6455, section 5.2: the first byte of a frame that is not one of several, and the lengths that say "see below".
WS_TEXT, WS_CLOSE, WS_PING, WS_PONG = 0x81, 0x88, 0x89, 0x8A
WS_MASKED = 0x80
WS_LENGTH_16, WS_LENGTH_64 = 126, 127
WS_NO_CODE = 1005

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


class WsReader:
    """A WebSocket connection that only listens; subclasses say what to do with a message."""

    def __init__(self, port: int, path: str = "/ws") -> None:
        """Connect, and wait for the upgrade; what follows it is left for `take`."""
        self.close_code: int | None = None
        self._received = b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=UPGRADE_SECONDS)
        self._socket.sendall(_upgrade_request(path))
        self._take_upgrade()
        self._socket.setblocking(False)

    def message(self, payload: bytes) -> None:
        raise NotImplementedError

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def take(self) -> bool:
        """Handle what has arrived; call it when the socket can be read. False once the connection has ended."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except ConnectionError:
            return False
        self._received = self._take_frames(self._received + data)
        return bool(data) and self.close_code is None

    def _take_upgrade(self) -> None:
        """Byte by byte, so as not to read beyond it."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                break
            head += byte
        if not head.startswith(b"HTTP/1.1 101"):
            self.close()
            raise WireError(f"no upgrade but {head!r}")

    def _take_frames(self, received: bytes) -> bytes:
        """Handle every whole frame; what is left of the last one is returned."""
        at, have = 0, len(received)
        while have - at >= 2:
            length, start = received[at + 1], at + 2
            if length == WS_LENGTH_16:
                length, start = int.from_bytes(received[start : start + 2], "big"), start + 2
            elif length == WS_LENGTH_64:
                length, start = int.from_bytes(received[start : start + 8], "big"), start + 8
            end = start + length
            if have < end:
                break
            if received[at] == WS_TEXT:
                self.message(received[start:end])
            else:
                self._control(received[at], received[start:end])
            at = end
        return received[at:]

    def _control(self, kind: int, payload: bytes) -> None:
        if kind == WS_PING:
            self._socket.send(_pong(payload))
        elif kind == WS_CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else WS_NO_CODE
        else:
            raise WireError(f"a frame that begins with {kind:#x}: fragments and binary are not expected here")


def _upgrade_request(path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    return head.encode()


def _pong(payload: bytes) -> bytes:
    # A client must mask; a key of zeros leaves the payload as it is.
    return bytes((WS_PONG, WS_MASKED | len(payload))) + bytes(4) + payload
