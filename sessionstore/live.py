"""Events as they happen, by WebSocket and as server-sent events: what was missed first, then what comes.

Both read on from a cursor: from the database while they are far behind, from
the broadcaster's ring once they are near, so that the one joins the other
without a gap or a repeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, WebSocket, get, websocket
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Stream
from websockets.frames import Frame, Opcode

from .broadcaster import Item
from .events import now
from .store import Store

PATIENCE = 10.0
"""Seconds for which a reader may take nothing at all."""
SLOW = 1.0
"""Seconds after which a reader that also lags behind the ring counts as too slow."""
PAGE = 1000
HEARTBEAT = 15.0
MAX_MESSAGES = 200
"""How many messages a client may send in ten seconds."""


class Wanted:
    """Which events a reader asked for: of some sessions, of some users, or all."""

    def __init__(self, sessions: Sequence[str] = (), users: Sequence[str] = (), types: Sequence[str] = ()) -> None:
        self.sessions = set(sessions)
        self.users = set(users)
        self.types = set(types)
        self.is_all = not sessions and not users

    def __call__(self, item: Item) -> bool:
        if self.types and item.type not in self.types:
            return False
        return self.is_all or item.session_id in self.sessions or item.user_id in self.users

    @property
    def is_everything(self) -> bool:
        return self.is_all and not self.types

    def plus(self, other: Wanted) -> Wanted:
        """What either wants; a reader that never named anything wants only what it names now."""
        if self.is_all or other.is_all:
            return other
        return Wanted([*self.sessions, *other.sessions], [*self.users, *other.users])

    def minus(self, other: Wanted) -> Wanted:
        left = Wanted([*self.sessions - other.sessions], [*self.users - other.users])
        left.is_all = self.is_all and not other.is_all
        return left


async def missed(store: Store, wanted: Wanted, after: int, until: int) -> AsyncIterator[tuple[list[Item], int]]:
    """Pages of what the database has after one cursor, at most until another; with each, how far it goes."""
    while after < until and not store.draining:
        page = await store.reader.items(
            after=after,
            limit=PAGE,
            types=[*wanted.types],
            session_ids=[] if wanted.is_all else [*wanted.sessions],
            user_ids=[] if wanted.is_all else [*wanted.users],
        )
        after = page.following
        yield [item for item in page.items if item.cursor <= until], min(after, until)


async def follow(store: Store, wanted: Callable[[], Wanted], after: int) -> AsyncIterator[tuple[list[Item], int]]:
    """Everything after a cursor, for ever, in cursor order; ends when the server closes."""
    broadcaster = store.broadcaster
    while not store.draining:
        if after < broadcaster.forgotten:
            async for items, after in missed(store, wanted(), after, broadcaster.forgotten):
                yield items, after
        elif items := await broadcaster.after(after):
            after = items[-1].cursor
            yield items, after


# ---------------------------------------------------------------------- WebSocket


class Frames:
    """Events as WebSocket frames. Most readers want the same piece, so the last one is kept."""

    def __init__(self) -> None:
        self.piece: list[Item] = []
        self.bytes = b""

    def of(self, piece: list[Item]) -> bytes:
        if piece is not self.piece:
            self.bytes = b"".join(frame(item.text) for item in piece)
            self.piece = piece
        return self.bytes


def frame(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)


class Listeners:
    """The WebSocket clients."""

    def __init__(self) -> None:
        self.all: set[Listener] = set()
        self.frames = Frames()
        self.closed_slow = 0

    def counts(self) -> dict[str, int]:
        return {
            "totalConnections": len(self.all),
            "users": len({user for listener in self.all for user in listener.wanted.users}),
            "sessions": len({session for listener in self.all for session in listener.wanted.sessions}),
        }


class TooSlow(Exception):
    """A reader that does not keep up."""


class Gone(Exception):
    """A reader that went away."""


class Listener:
    """One WebSocket client: what it wants, and the cursor up to which it has it."""

    def __init__(self, socket: WebSocket[Any, Any, Any], store: Store, listeners: Listeners) -> None:
        self.socket = socket
        self.store = store
        self.listeners = listeners
        query = socket.query_params
        self.wanted = Wanted(query.getall("session", []), query.getall("user", []))
        self.after = cursor_in(query.get("after"))
        self.head = store.broadcaster.head
        self.cursor = self.head if self.after is None else min(self.after, self.head)
        self.began = self.cursor
        self.sending = asyncio.Lock()
        extensions: dict[str, Any] = socket.scope.get("extensions") or {}
        self.write_frames = extensions.get("sessionstore.frames")
        self.heard: list[float] = []

    async def run(self) -> None:
        await self.socket.accept()
        await self.say(
            {
                "type": "connected",
                "userId": next(iter(self.wanted.users), None),
                "sessionId": next(iter(self.wanted.sessions), None),
                "timestamp": now(),
                "cursor": self.head,
            }
        )
        listening = asyncio.create_task(self.listen())
        speaking = asyncio.create_task(self.speak())
        try:
            done, _ = await asyncio.wait({listening, speaking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self.socket.close(code=1001, reason="The server is shutting down")
        except TooSlow:
            self.listeners.closed_slow += 1
            await self.socket.close(code=1013, reason="Too slow: come back with after")
        except Flood:
            await self.socket.close(code=1008, reason="Too many messages")
        except Gone:
            pass
        finally:
            listening.cancel()
            speaking.cancel()
            await asyncio.gather(listening, speaking, return_exceptions=True)

    # ---- speaking

    async def speak(self) -> None:
        waited = 0.0
        async for items, cursor in follow(self.store, lambda: self.wanted, self.cursor):
            if waited > SLOW and cursor < self.store.broadcaster.forgotten:
                raise TooSlow
            async with self.sending:
                started = time.monotonic()
                await self.send([item for item in items if item.cursor > self.cursor])
                self.cursor = max(self.cursor, cursor)
                waited = time.monotonic() - started

    async def send(self, items: list[Item]) -> None:
        wanted = self.wanted
        if not wanted.is_everything:
            items = [item for item in items if wanted(item)]
        if items:
            await self.write(items)

    async def write(self, items: list[Item]) -> None:
        """Raises TooSlow where the client takes nothing, Gone where there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self.write_frames is not None:
                    await self.write_frames(self.listeners.frames.of(items))
                    return
                for item in items:
                    await self.socket.send_text(item.text.decode())
        except TimeoutError:
            raise TooSlow from None

    async def say(self, message: dict[str, Any]) -> None:
        async with self.sending:
            await self.write([Item(0, "", "", "", msgspec.json.encode(message))])

    # ---- listening

    async def listen(self) -> None:
        while True:
            event: Any = await self.socket.receive()
            if event["type"] == "websocket.disconnect":
                raise Gone
            self.count_message()
            if (message := command_in(event.get("text"))) is not None:
                await self.obey(message)

    def count_message(self) -> None:
        """Raises Flood."""
        self.heard = [*(t for t in self.heard if t > time.monotonic() - 10), time.monotonic()]
        if len(self.heard) > MAX_MESSAGES:
            raise Flood

    async def obey(self, message: Command) -> None:
        named = Wanted(texts(message.session), texts(message.user))
        if message.type == "ping":
            await self.say({"type": "pong"})
        elif message.type == "unsubscribe":
            self.wanted = self.wanted.minus(named)
        else:
            await self.subscribe(named, message.after)

    async def subscribe(self, named: Wanted, after: int | None) -> None:
        """From now on what is named comes too; before that, what of it came after `after` and was not sent yet."""
        async with self.sending:
            had = self.wanted
            self.wanted = had.plus(named)
            if after is None:
                return
            async for items, _ in missed(self.store, named, after, self.cursor):
                new = [item for item in items if item.cursor <= self.began or not had(item)]
                if new:
                    await self.write(new)


class Flood(Exception):
    """A client that sends too many messages."""


class Command(msgspec.Struct):
    """What a client may say."""

    type: Literal["subscribe", "unsubscribe", "ping"]
    session: str | list[str] | None = None
    user: str | list[str] | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


def command_in(text: str | None) -> Command | None:
    """Anything that is not a command is ignored."""
    try:
        return msgspec.json.decode(text or "", type=Command)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def texts(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def cursor_in(text: str | None) -> int | None:
    """A cursor in a query or header; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


@websocket("/ws")
async def live_feed(socket: WebSocket[Any, Any, Any]) -> None:
    """Events as they happen: `?session=`, `?user=`, `?after=`."""
    listeners: Listeners = socket.app.state.listeners
    listener = Listener(socket, socket.app.state.store, listeners)
    listeners.all.add(listener)
    try:
        await listener.run()
    finally:
        listeners.all.discard(listener)


# ------------------------------------------------------------- server-sent events


@get(
    "/api/events/stream",
    media_type="text/event-stream",
    responses={200: ResponseSpec(str, description="Server-sent events", media_type="text/event-stream")},
    tags=["events"],
)
async def stream_events(
    request: Request[Any, Any, Any],
    after: Annotated[int | None, Parameter(ge=0, le=2**63 - 1)] = None,
    types: Annotated[list[str] | None, Parameter(query="type")] = None,
    session_id: Annotated[list[str] | None, Parameter(query="sessionId")] = None,
    user_id: Annotated[list[str] | None, Parameter(query="userId")] = None,
) -> Stream:
    """Events as they happen, as server-sent events. `Last-Event-ID` wins over `after`; with neither, from now on."""
    store: Store = request.app.state.store
    head = store.broadcaster.head
    last_id = cursor_in(request.headers.get("last-event-id"))
    begin = next((cursor for cursor in (last_id, after) if cursor is not None), head)
    wanted = Wanted(session_id or (), user_id or (), types or ())
    return Stream(
        sse(store, wanted, min(begin, head)),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def sse(store: Store, wanted: Wanted, after: int) -> AsyncIterator[bytes]:
    yield b": connected\n\n"
    pages = follow(store, lambda: wanted, after)
    pending: asyncio.Task[tuple[list[Item], int]] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(pages))
            done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT)
            if not done:
                yield b": still here\n\n"
                continue
            items, _ = pending.result()
            pending = None
            if text := b"".join(b"id: %d\ndata: %b\n\n" % (item.cursor, item.text) for item in items if wanted(item)):
                yield text
    except StopAsyncIteration:
        return
    finally:
        if pending is not None:
            pending.cancel()
