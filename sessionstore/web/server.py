"""The process around the app: the socket, deadlines for requests, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from asyncio import TimerHandle
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from sessionstore.model.problems import MEDIA_TYPE, Problem, unavailable
from sessionstore.settings import Settings
from sessionstore.store.owner import CannotStart
from sessionstore.web.asgi import WHOLE_ANSWER, Scope, problem_headers
from sessionstore.web.connections import ConnectionTable, Rest
from sessionstore.web.gate import MATERIAL, Caller, Gate
from sessionstore.web.request_metrics import OTHER, Traffic

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0
MUTE_SECONDS = 1.0
"""After which one that has said nothing makes room for others before those do that have."""
BODY_SECONDS = 30.0
MATERIAL_PIECE = 1 << 20
"""Of material, which may be of any size and is kept as it comes, so much has to come within BODY_SECONDS."""
MAX_HEAD_BYTES = 64 << 10
"""Of a request's target and headers together."""
MATERIAL_URLS = tuple(path.encode() for path in (*MATERIAL, "/api/import"))
TICKS_A_SECOND = 10
"""Of uvicorn."""
DRAIN_SECONDS = 8
LINGER_SECONDS = 3.0
"""How long a peer that was told to go may take to say that it goes."""
DEAD_PEER_MILLISECONDS = 8000
"""How long a peer may leave sent bytes unacknowledged before the kernel gives the connection up."""


# ------------------------------------------------------------------------ socket


def listen(host: str, port: int) -> socket.socket:
    """The listening socket; a peer that stops reading is given up by the kernel. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # not on a Mac
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MILLISECONDS)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise CannotStart(f"Cannot listen on {host} port {port}: {error.strerror}. Set PORT or SESSIONS_HOST") from None
    return listener


class Certificate:
    """The certificate of the server; one that is renewed is taken while it runs, for whoever connects from then on."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises CannotStart."""
        self.files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 and 1.3, with Python's choice of ciphers
        try:
            self.seen = self.state()
            self.context.load_cert_chain(*self.files, password=no_passphrase)
        except (OSError, ValueError) as error:
            raise CannotStart(f"SESSIONS_TLS_CERT, SESSIONS_TLS_KEY: {certificate}, {key}: {error}") from None

    def state(self) -> list[tuple[int, int]]:
        """Changes when the files do. Raises OSError."""
        return [(state.st_ino, state.st_mtime_ns) for state in map(os.stat, self.files)]

    def refresh(self) -> None:
        """Take the files up if they have changed; a pair that does not fit, as in the middle of a change, not yet."""
        try:
            if (state := self.state()) == self.seen:
                return
            self.seen = state
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self.files, password=no_passphrase)
            self.context.load_cert_chain(*self.files, password=no_passphrase)
        except (OSError, ValueError) as error:
            logger.warning("The certificate stays as it was: %s", error)
        else:
            logger.warning("A new certificate is used: %s", self.files[0])


def certificate_of(settings: Settings) -> Certificate | None:
    """The one that is set, if any. Raises CannotStart."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)


def no_passphrase() -> str:
    """Without it OpenSSL would ask the terminal."""
    raise ValueError("the key has a passphrase")


# --------------------------------------------------------------------- protocols

CLOSE = (b"connection", b"close")


Headers = Iterable[tuple[bytes, bytes]]


def message(status: int, headers: Headers, body: bytes) -> bytes:
    """A whole response."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (STATUS_LINE[status], lines, len(body), body)


def refusal(problem: Problem) -> bytes:
    """The whole response to a request that never reaches the app, in the shape of every other error."""
    return message(problem.status, [*problem_headers(problem), CLOSE], problem.body())


def head_too_large() -> Problem:
    """Made anew each time: an exception that is kept and raised again keeps the frames of every raise, and all they
    hold."""
    return Problem(431, f"The target and the headers may have at most {MAX_HEAD_BYTES} bytes together")


class Gathering:
    """A transport that gathers what is written in one turn of the event loop: an answer's head and body leave as one
    packet, by one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self.pieces:
            self.loop.call_soon(self.flush)
        self.pieces.append(data)

    def write_whole(self, data: bytes) -> None:
        """What nothing follows: it need not wait for the end of the turn."""
        self.pieces.append(data)
        self.flush()

    def flush(self) -> None:
        pieces, self.pieces = self.pieces, []
        if pieces and not self.transport.is_closing():
            self.transport.write(b"".join(pieces))

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class Http(HttpToolsProtocol):
    """HTTP with bounds: for the time and the size of the headers, and for the time of the body.

    A request that comes whole, as nearly all do, costs no timer.
    """

    allowed: float | None = HEADER_SECONDS
    """How long what is awaited now may take, from its beginning; None: nothing is awaited."""
    running: float | None = None
    """The same for the timer that runs."""
    deadline: TimerHandle | None = None
    head_bytes = 0
    piece_bytes = 0
    is_lost = False
    """Whether what comes cannot be read any more; what came before is still answered."""

    def __init__(self, gate: Gate, connections: ConnectionTable, traffic: Traffic, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = gate
        self.all_connections = connections
        self.traffic = traffic

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.gathering = Gathering(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self.gathering))
        self.set_deadline()
        self.connected_at = self.loop.time()
        if problem := self.all_connections.enter(self):
            self.end(problem)

    @property
    def rest(self) -> Rest | None:
        if self.cycle is None:
            return Rest.MUTE if self.loop.time() > self.connected_at + MUTE_SECONDS else Rest.NEW
        if self.cycle.response_complete:
            return Rest.BETWEEN
        return Rest.UNKNOWN if awaits_stranger(self.cycle) else None

    def let_go(self) -> None:
        if self.rest is Rest.UNKNOWN:
            self.end(Problem(408, "The request did not come in time, and others wait"))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.all_connections.leave(self)
        self.allowed = None
        self.set_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_lost:
            return
        super().data_received(data)
        if self.allowed == HEADER_SECONDS:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.end(head_too_large())
        elif self.allowed is None and self.is_idle:  # empty lines, or bytes after an upgrade that was not taken
            self.allowed = HEADER_SECONDS
        if self.allowed != self.running:
            self.set_deadline()

    @property
    def is_idle(self) -> bool:
        """Whether no answer is owed, and nothing limits the wait for the next request."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.timeout_keep_alive_task is None
            and self.transport.get_protocol() is self
            and not self.transport.is_closing()
        )

    def on_message_begin(self) -> None:
        self.allowed = HEADER_SECONDS
        super().on_message_begin()
        self.head_bytes = 0

    def on_headers_complete(self) -> None:
        self.allowed = BODY_SECONDS
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            raise head_too_large()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            cast(Scope, self.scope)["extensions"] = {WHOLE_ANSWER: partial(answer_whole, self.cycle, self.gathering)}

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.piece_bytes += len(body)
        if self.piece_bytes >= MATERIAL_PIECE and self.url.startswith(MATERIAL_URLS):
            self.piece_bytes = 0
            self.set_deadline()

    def on_message_complete(self) -> None:
        self.allowed = None
        super().on_message_complete()
        if self.cycle is not None:
            self.cycle.more_body = False  # uvicorn says so only where nothing was answered yet

    def handle_websocket_upgrade(self) -> None:
        self.allowed = None
        self.gathering.flush()
        self.transport = self.gathering.transport  # a WebSocket gathers its frames itself
        super().handle_websocket_upgrade()
        successor = cast(WebSockets, self.transport.get_protocol())
        successor.all_connections = self.all_connections
        self.all_connections.replace(self, successor)

    def set_deadline(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
        self.running = self.allowed
        self.deadline = None if self.allowed is None else self.loop.call_later(self.allowed, self.give_up)

    def give_up(self) -> None:
        self.deadline = self.running = None
        self.end(Problem(408, "The request did not come in time"))

    def end(self, problem: Problem) -> None:
        """Close the connection, and say why, unless this would stand in the middle of an answer."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        is_between = cycle is None or (cycle.response_complete and not cycle.more_body)
        if is_between or not cycle.response_started:
            self.transport.write(refusal(problem))
            self.traffic.of(OTHER, OTHER).note(problem.status, 0.0)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read. A whole request before it is answered first, and the connection then closed."""
        self.is_lost = True
        self.gate.note_unreadable(self.client[0] if self.client else "")
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            return
        cause = getattr(sys.exception(), "__context__", None)
        self.end(cause if isinstance(cause, Problem) else Problem(400, msg))

    def shutdown(self) -> None:
        """A request that has not come is not waited for; what else does not end is cut off before it is cancelled."""
        super().shutdown()
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            self.end(unavailable("The server is shutting down"))
        self.loop.call_later(DRAIN_SECONDS - LINGER_SECONDS, self.transport.abort)


def answer_whole(cycle: RequestResponseCycle, gathering: Gathering, headers: Headers, body: bytes) -> bool:
    """Answer 200 in one piece: what uvicorn makes of two messages, for half of what that costs. False: it has to go
    uvicorn's way, for nobody is there, or takes what is sent."""
    if cycle.disconnected or cycle.flow.write_paused:
        return False
    cycle.response_started = cycle.response_complete = True
    close = () if cycle.keep_alive else (CLOSE,)
    gathering.write_whole(message(200, (*cycle.default_headers, *headers, *close), body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def awaits_stranger(cycle: RequestResponseCycle) -> bool:
    """Whether it waits for the rest of a request of somebody whom the gate has not recognised."""
    caller: Caller | None = cast(Scope, cycle.scope)["state"].get("caller")
    return cycle.more_body and caller is not None and caller.role is None


class Handshake(ServerProtocol):
    """The opening of a WebSocket, whose refusals have the shape of every other error."""

    def reject(self, status: StatusLike, text: str) -> Response:
        response = super().reject(status, text)
        problem = Problem(response.status_code, " ".join(text.split()) or "This is not a WebSocket that is served here")
        response.body = problem.body()
        del response.headers["Content-Type"], response.headers["Content-Length"]
        response.headers["Content-Type"] = MEDIA_TYPE
        response.headers["Content-Length"] = str(len(response.body))
        return response


class WebSockets(WebSocketsSansIOProtocol):
    """WebSockets that let the app write ready-made frames, the same bytes to every reader, and hang up on a peer
    that takes nothing."""

    all_connections: ConnectionTable
    rest = None
    ends_by = 0.0
    """When it is cut off, where it was told to go."""

    def let_go(self) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.all_connections.leave(self)
        super().connection_lost(exc)

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.conn = Handshake(max_size=config.ws_max_size, logger=self.logger)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.ends_by:
            self.linger()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.refuse_handshake()

    def refuse_handshake(self) -> None:
        """For a request that does not even parse uvicorn does nothing: the connection would stay for ever."""
        if not self.transport.is_closing():
            refused = b"".join(self.conn.data_to_send())
            self.transport.write(refused or refusal(Problem(400, "The request to open a WebSocket is not valid HTTP")))
            self.transport.close()

    def handle_parser_exception(self) -> None:
        """What breaks the protocol, or its bounds: an end that the peer hears of, also one that is still sending."""
        if self.close_sent:
            return
        told = self.conn.close_sent  # None: the handshake is not answered yet
        self.queue.put_nowait({"type": "websocket.disconnect", "code": told.code if told else 1006})
        self.say_end(BODY_SECONDS)
        if told is None:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions["sessionstore.wire"] = self

    def handle_ping(self) -> None:
        """Pings of a peer that does not read are not answered: their pongs would pile up here."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def write_frames(self, frames: bytes) -> None:
        """Whole frames. Wait for `writable` first. Raises ClientDisconnected."""
        if self.disconnected or self.close_sent or self.transport.is_closing():
            raise ClientDisconnected
        self.transport.write(frames)

    def hang_up(self, code: int, reason: str) -> None:
        """Close without waiting for the peer to take what it was sent; cut it off if it does not answer."""
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.say_end()

    def say_end(self, patience: float = LINGER_SECONDS) -> None:
        """Send the close frame and read on for a while: a connection that is closed while something is unread is
        reset, and the peer may then never see why."""
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.ends_by = self.loop.time() + patience
        self.linger()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def linger(self) -> None:
        """Cut it off once it has said nothing for a while."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        end = min(self.ends_by, self.loop.time() + LINGER_SECONDS)
        self.close_timer = self.loop.call_at(end, self.transport.abort)

    def shutdown(self) -> None:
        super().shutdown()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)


# ------------------------------------------------------------------------ server


OF_REQUESTS = frozenset(
    {
        "Invalid HTTP request received.",
        "Unsupported upgrade request.",
        "Invalid UTF-8 sequence received from client.",  # which is closed with 1007
        "ASGI callable returned without completing handshake.",  # which uvicorn says of every one that is refused
    }
)


def is_of_the_server(record: logging.LogRecord) -> bool:
    """What uvicorn says of a single request, a line each and without an address, is counted, and told sparingly."""
    return record.msg not in OF_REQUESTS


class Server(uvicorn.Server):
    """uvicorn that tells the app of the end before it waits for it, and leaves with exit code 0."""

    def __init__(
        self, app: Any, gate: Gate, traffic: Traffic, certificate: Certificate | None, on_exit: Callable[[], None]
    ) -> None:
        connections = ConnectionTable(gate.settings, gate.refused)
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=cast(type[Http], partial(Http, gate, connections, traffic)),
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
        logging.getLogger("uvicorn.error").addFilter(is_of_the_server)
        self.certificate = certificate
        self.on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it; but a handshake of TLS, which comes before any other bound holds, has one too."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        protocol = partial(
            cast(Callable[..., Http], self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        tls: dict[str, Any] = {}
        if self.certificate:
            tls = {"ssl": self.certificate.context, "ssl_handshake_timeout": HEADER_SECONDS}
            tls["ssl_shutdown_timeout"] = LINGER_SECONDS
        serve = asyncio.get_running_loop().create_server
        self.servers = [await serve(protocol, sock=one, backlog=self.config.backlog, **tls) for one in sockets or ()]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        if self.certificate and counter % TICKS_A_SECOND == 0:
            self.certificate.refresh()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self.on_exit)
        super().handle_exit(sig, frame)

    def end_soon(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True

    def serve_until_told(self, listener: socket.socket) -> bool:
        """Serve until SIGTERM or SIGINT. False: the app did not start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(
                number, self.end_soon
            )  # until uvicorn listens, and when it raises the signal again at the end
        try:
            self.run(sockets=[listener])
        except SystemExit:
            return False
        return self.started
