"""The process around the app: one owner of a folder, the socket, deadlines for requests, signals."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from asyncio import TimerHandle
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .problems import MEDIA_TYPE, Problem, title, unavailable

HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
DRAIN_SECONDS = 8
DEAD_PEER_MILLISECONDS = 8000
"""How long a peer may leave sent bytes unacknowledged before the kernel gives the connection up."""


class CannotStart(Exception):
    """The message says why, and what to do."""


# -------------------------------------------------------------------------- lock


def own_folder(folder: Path) -> int:
    """Become the only process on this folder, for life. Raises CannotStart."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"The folder {folder} cannot be written: {error.strerror}. Set SESSIONS_DIR") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CannotStart(f"Another session store (process {owner}) has the folder {folder} already") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


# ------------------------------------------------------------------------ socket


def listen(host: str, port: int) -> socket.socket:
    """The listening socket; a peer that stops reading is given up by the kernel. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MILLISECONDS)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise CannotStart(
            f"Cannot listen on {host} port {port}: {error.strerror}. Set PORT or SESSIONS_HOST"
        ) from None
    return listener


# --------------------------------------------------------------------- protocols


class Http(HttpToolsProtocol):
    """HTTP with deadlines: for the first byte and the headers, and for the body."""

    deadline: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.set_deadline(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self.clear_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.deadline is None:
            self.set_deadline(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        self.clear_deadline()
        super().on_headers_complete()
        self.set_deadline(BODY_SECONDS)

    def on_message_complete(self) -> None:
        self.clear_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self.clear_deadline()
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """The server ends: a request that has not come whole by now is not waited for."""
        if self.cycle is not None and self.cycle.more_body:
            self.give_up(unavailable("The server is shutting down"))
        super().shutdown()

    def set_deadline(self, seconds: float) -> None:
        self.deadline = self.loop.call_later(seconds, self.give_up, Problem(408, "The request did not come in time"))

    def clear_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def give_up(self, problem: Problem) -> None:
        """Tell the problem, if nothing has been told yet, and end the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started:
            self.transport.write(answer_to(problem))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is told in the same shape as every other error."""
        self.transport.write(answer_to(Problem(400, msg)))
        self.transport.close()


def answer_to(problem: Problem) -> bytes:
    """The whole answer, for where there is no app to give it."""
    body = problem.body()
    headers = {"content-type": MEDIA_TYPE, "content-length": f"{len(body)}", "connection": "close"} | problem.headers
    lines = [f"HTTP/1.1 {problem.status} {title(problem.status)}", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class WebSockets(WebSocketsSansIOProtocol):
    """WebSockets that let the app write many ready-made frames at once: the same bytes go to every reader."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions["sessionstore.frames"] = self.send_frames

    async def send_frames(self, frames: bytes) -> None:
        """Write whole frames once the peer has taken most of what went before. Raises ClientDisconnected."""
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        self.transport.write(frames)


# ------------------------------------------------------------------------ server


class Server(uvicorn.Server):
    """uvicorn that tells the app of the end before it waits for it, and leaves with exit code 0."""

    def __init__(self, app: Any, on_exit: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Http,
                ws=WebSockets,
                loop="uvloop",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                ws_max_size=65536,
                ws_per_message_deflate=False,
                backlog=1024,
            )
        )
        self.on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self.on_exit)
        super().handle_exit(sig, frame)

    def serve_until_told(self, listener: socket.socket) -> bool:
        """Serve until SIGTERM or SIGINT. False: the app did not start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # uvicorn raises the signal again once it has ended in order
        try:
            self.run(sockets=[listener])
        except SystemExit:
            return False
        return self.started
