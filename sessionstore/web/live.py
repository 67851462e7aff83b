"""Events as they happen, by WebSocket and as server-sent events: what was missed first, then what comes.

Both read on from a cursor: from the database while they are far behind, from
the broadcaster's ring once they are near, so that the one joins the other
without a gap or a repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from functools import cached_property, partial
from typing import Annotated, Any, Literal, Protocol

import msgspec
from litestar import Request, WebSocket, get, websocket
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream
from websockets.frames import Frame, Opcode

from sessionstore.appliance import Store
from sessionstore.histogram import Histogram
from sessionstore.log import faults
from sessionstore.model.events import Event, decoded, now
from sessionstore.model.problems import Problem, invalid, no_session, unavailable
from sessionstore.store.broadcaster import FeedItem, Piece, pieces
from sessionstore.web.asgi import refuse
from sessionstore.web.gate import Caller, Gate
from sessionstore.web.openapi_models import problems
from sessionstore.web.request import split

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds within which a reader must take most of the piece before, so that the next can be sent."""
PAGE = 200
"""How many events are read from the database at once: few, for each may have a megabyte."""
HEARTBEAT = 15.0
WATCH = 1.0
"""Seconds after which a change of the tokens is noticed, at most."""
MAX_MESSAGES = 1000
"""How many messages a client may send in ten seconds."""
MAX_NAMES = 1000
"""How many sessions and users a reader may name."""
MAX_NAME = 256
"""Characters of one; what is longer names nothing, and is not kept."""


class Leave(Exception):
    """The reader has to go: a close code of RFC 6455, and why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ReaderLeft(Exception):
    """The reader went away."""


class Wanted(msgspec.Struct, frozen=True, dict=True):
    """Which events a reader asked for: everything, or of some sessions and some users; each since which cursor."""

    everything: int | None = None
    sessions: dict[str, int] = {}
    users: dict[str, int] = {}
    types: frozenset[str] = frozenset()
    """Of these alone, if any are named."""
    only_of: frozenset[str] = frozenset()
    """Of these users alone, if any are named."""

    @classmethod
    def of(cls, sessions: Iterable[str], users: Iterable[str], since: int) -> Wanted:
        """What matches either; no names at all: everything."""
        named = cls(None, known(sessions, since), known(users, since))
        return msgspec.structs.replace(named, everything=since) if named.is_nothing else named

    def __call__(self, item: Event | FeedItem) -> bool:
        if (self.types and item.type not in self.types) or (self.only_of and item.user_id not in self.only_of):
            return False
        since = earliest(self.everything, self.sessions.get(item.session_id), self.users.get(item.user_id))
        return since is not None and since < item.cursor

    def places(self, piece: Piece, after: int) -> Sequence[int]:
        """Where in a piece the events are that are wanted, of those after a cursor."""
        named = range(len(piece.items)) if self.everything is not None else self.places_of_names(piece)
        if not self.is_narrowed and self.latest <= after < piece.items[0].cursor:
            return named
        return [place for place in named if after < piece.items[place].cursor and self(piece.items[place])]

    def places_of_names(self, piece: Piece) -> list[int]:
        """Looks at as many names as the reader or the piece has, whichever has less."""
        found: set[int] = set()
        for name in self.sessions.keys() & piece.by_session.keys():
            found.update(piece.by_session[name])
        for name in self.users.keys() & piece.by_user.keys():
            found.update(piece.by_user[name])
        return sorted(found)

    @property
    def is_narrowed(self) -> bool:
        """Whether more decides than names and cursors."""
        return bool(self.types or self.only_of)

    @cached_property
    def latest(self) -> int:
        """After which cursor the names alone decide."""
        return max(self.everything or 0, *self.sessions.values(), *self.users.values(), 0)

    @property
    def names(self) -> int:
        return len(self.sessions) + len(self.users)

    @property
    def is_nothing(self) -> bool:
        return self.everything is None and not self.sessions and not self.users

    def plus(self, named: Wanted) -> Wanted:
        """What either wants; but one that wanted everything wants only what is named now."""
        if named.everything is not None:
            return self.for_names(earliest(named.everything, self.everything), {}, {})

        def joined(mine: dict[str, int], more: dict[str, int]) -> dict[str, int]:
            return mine | {name: earliest(since, mine.get(name), self.everything) or 0 for name, since in more.items()}

        return self.for_names(None, joined(self.sessions, named.sessions), joined(self.users, named.users))

    def minus(self, named: Wanted) -> Wanted:
        """What is left without what is named; one that wants everything can only be without everything."""
        if named.everything is not None:
            return self.for_names(None, {}, {})

        def left(mine: dict[str, int], less: dict[str, int]) -> dict[str, int]:
            return {name: since for name, since in mine.items() if name not in less}

        return self.for_names(self.everything, left(self.sessions, named.sessions), left(self.users, named.users))

    def for_names(self, everything: int | None, sessions: dict[str, int], users: dict[str, int]) -> Wanted:
        return msgspec.structs.replace(self, everything=everything, sessions=sessions, users=users)


def known(names: Iterable[str], since: int) -> dict[str, int]:
    return {name[: MAX_NAME + 1]: since for name in names}


def earliest(*cursors: int | None) -> int | None:
    return min((cursor for cursor in cursors if cursor is not None), default=None)


async def beginning(store: Store, after: int | None) -> int:
    """The cursor from which a reader reads on: now, or the one it names, if that is not beyond all that is stored.

    The database may be ahead of the broadcaster for a moment, and who read it is right.
    """
    head = store.broadcaster.head
    if after is None or after <= head:
        return head if after is None else after
    return min(after, max(head, await store.reader.head()))


async def following(store: Store, wanted: Wanted, after: int) -> tuple[Iterable[Piece], int]:
    """The next events after a cursor, at least those that are wanted, and how far that goes; waits until there are any.

    Raises Leave when the server closes, Problem where the database cannot be read.
    """
    if after >= store.broadcaster.forgotten and (piece := await store.broadcaster.after(after)):
        return (piece,), piece.last
    if store.draining:
        raise Leave(1001, "The server is shutting down")
    return await stored(store, wanted, after)


async def stored(store: Store, wanted: Wanted, after: int) -> tuple[Iterable[Piece], int]:
    """The same from the database; it may find nothing in one part of the store, and yet go on."""
    if wanted.is_nothing:
        return (), max(after, store.broadcaster.head)
    page = await store.reader.items(
        after=after,
        limit=PAGE,
        types=[*wanted.types],
        session_ids=[*wanted.sessions],
        user_ids=[*wanted.users],
    )
    return pieces(page.items), page.following


# ---------------------------------------------------------------------- WebSocket


class Wire(Protocol):
    """What process.WebSockets offers beside ASGI."""

    writable: asyncio.Event

    def write_frames(self, frames: bytes) -> None: ...

    def hang_up(self, code: int, reason: str) -> None: ...


def frame(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)


class Listeners:
    """The WebSocket clients."""

    def __init__(self) -> None:
        self.all: set[Listener] = set()
        self.streams = 0
        """Server-sent events beside them."""
        self.closed: Counter[int] = Counter()
        """Those that the server has closed, by code."""
        self.unsent = 0
        """Events that those had not had who were closed as too slow."""
        self.fanout = Histogram()
        """Seconds from a commit until its events were handed to a listener's socket."""
        self.users: Counter[str] = Counter()
        self.sessions: Counter[str] = Counter()
        """How many listeners name each."""

    async def streaming(self, stream: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        """The stream, counted while it lasts."""
        self.streams += 1
        try:
            async with aclosing(stream):
                async for piece in stream:
                    yield piece
        finally:
            self.streams -= 1

    def check_room(self, gate: Gate) -> None:
        """Raises Problem 503 where as many listen as may."""
        if len(self.all) + self.streams >= gate.settings.max_listeners:
            gate.refused["listeners"] += 1
            raise unavailable("Too many listen already: see SESSIONS_MAX_LISTENERS", retry_after=5)

    def dismiss(self, gate: Gate) -> None:
        """Let those go whose token or log-in has ended."""
        for listener in [listener for listener in self.all if not gate.still_lets_in(listener.caller)]:
            listener.wire.hang_up(1008, "The token is not valid any more")

    def most_behind(self) -> int:
        """How many events the slowest has yet to be sent, wanted or not."""
        return max((listener.behind for listener in self.all), default=0)

    def counts(self) -> dict[str, int]:
        return {
            "totalConnections": len(self.all),
            "users": len(self.users),
            "sessions": len(self.sessions),
        }

    def change(self, had: Wanted, wants: Wanted) -> None:
        """What one listener wants is another thing now."""
        for count, before, after in (
            (self.users, had.users.keys(), wants.users.keys()),
            (self.sessions, had.sessions.keys(), wants.sessions.keys()),
        ):
            count.update(after - before)
            for name in before - after:
                count[name] -= 1
                if not count[name]:
                    del count[name]


class Listener:
    """One WebSocket client: what it wants, and the cursor up to which it has that."""

    def __init__(self, socket: WebSocket[Any, Any, Any], store: Store, listeners: Listeners) -> None:
        self.socket = socket
        self.store = store
        self.listeners = listeners
        extensions: Any = socket.scope["extensions"]
        self.wire: Wire = extensions["sessionstore.wire"]
        self.caller: Caller = socket.scope["state"]["caller"]
        self.wanted = Wanted()
        self.cursor = store.broadcaster.head
        self.sending = asyncio.Lock()
        """Held while something is sent, and while what is wanted changes."""
        self.heard: list[float] = []

    @property
    def behind(self) -> int:
        return max(0, self.store.broadcaster.head - self.cursor)

    async def run(self) -> None:
        """Until the client goes, or has to."""
        try:
            await self.begin()
            await until_first(self.listen(), self.speak())
        except Leave as leave:
            self.leave(leave.code, leave.reason)
        except Problem as problem:
            logger.warning("A live feed ended: %s", problem.detail)
            self.leave(1013, "The database cannot be read now: come back with after")
        except (ReaderLeft, OSError):  # uvicorn's ClientDisconnected is an OSError
            pass

    def leave(self, code: int, reason: str) -> None:
        self.listeners.closed[code] += 1
        if code == 1013:
            self.listeners.unsent += self.behind
        self.wire.hang_up(code, reason)

    async def begin(self) -> None:
        query = self.socket.query_params
        sessions, users = (list(filter(None, query.getall(name, []))) for name in ("session", "user"))
        self.cursor = await beginning(self.store, cursor_in(query.get("after")))
        await self.socket.accept()
        self.want(Wanted.of(sessions, users, self.cursor))
        await self.say(
            {
                "type": "connected",
                "userId": next(iter(users), None),
                "sessionId": next(iter(sessions), None),
                "timestamp": now(),
                "cursor": max(self.cursor, self.store.broadcaster.head),
            }
        )

    def want(self, wanted: Wanted) -> None:
        """Raises Leave for too many names."""
        if wanted.names > MAX_NAMES:
            raise Leave(1008, f"At most {MAX_NAMES} names")
        self.listeners.change(self.wanted, wanted)
        self.wanted = wanted

    # ---- speaking

    async def speak(self) -> None:
        while True:
            wanted = self.wanted
            found, cursor = await following(self.store, wanted, self.cursor)
            async with self.sending:
                if self.wanted is not wanted:
                    continue  # and look again: what was read may lack what is wanted by now
                for piece in found:
                    await self.send(piece, wanted.places(piece, self.cursor))
                self.cursor = cursor

    async def send(self, piece: Piece, places: Sequence[int]) -> None:
        if not places:
            return
        await self.write(b"".join([piece.frames[place] for place in places]))
        if piece.last == self.store.broadcaster.sealed and piece.published_at:
            self.listeners.fanout.note(time.monotonic() - piece.published_at)

    async def write(self, frames: bytes) -> None:
        """Raises Leave where the client takes nothing."""
        if not self.wire.writable.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.wire.writable.wait()
            except TimeoutError:
                raise Leave(1013, "Too slow: come back with after") from None
        self.wire.write_frames(frames)

    async def say(self, message: dict[str, Any]) -> None:
        async with self.sending:
            await self.write(frame(msgspec.json.encode(message)))

    # ---- listening

    async def listen(self) -> None:
        while True:
            event: Any = await self.socket.receive()
            if event["type"] == "websocket.disconnect":
                raise ReaderLeft
            self.count_message()
            if (message := command_in(event.get("text"))) is not None:
                await self.obey(message)

    def count_message(self) -> None:
        self.heard = [*(t for t in self.heard if t > time.monotonic() - 10), time.monotonic()]
        if len(self.heard) > MAX_MESSAGES:
            raise Leave(1008, "Too many messages")

    async def obey(self, message: Command) -> None:
        if message.type == "ping":
            await self.say({"type": "pong"})
            return
        async with self.sending:
            head = self.store.broadcaster.head
            since = head if message.after is None else min(message.after, head)
            named = Wanted.of(texts(message.session), texts(message.user), since)
            if message.type == "unsubscribe":
                self.want(self.wanted.minus(named))
            else:
                await self.subscribe(named, since)

    async def subscribe(self, named: Wanted, since: int) -> None:
        """From now on what is named comes too; before that, what of it came after `since` and was not sent yet."""
        had = self.wanted
        self.want(had.plus(named))
        while since < self.cursor:
            found, last = await stored(self.store, named, since)
            for piece in found:
                places = (place for place in named.places(piece, since) if not had(piece.items[place]))
                await self.send(piece, [place for place in places if piece.items[place].cursor <= self.cursor])
            since = last


async def watch(gate: Gate, listeners: Listeners) -> None:
    """Notice what changes of tokens and log-ins, and let those go who may not listen any more."""
    said = ""
    while True:
        await asyncio.sleep(WATCH)
        try:
            gate.tokens.refresh()
            listeners.dismiss(gate)
            await asyncio.to_thread(gate.logins.save)
        except Exception as error:
            faults["tokens"] += 1
            if said != (said := str(error)):
                logger.exception("A fault while the tokens were looked at")


async def until_first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them side by side until one ends; what it raised is raised here, the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Command(msgspec.Struct):
    """What a client may say."""

    type: Literal["subscribe", "unsubscribe", "ping"]
    session: str | list[str] | None = None
    user: str | list[str] | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


def command_in(text: str | None) -> Command | None:
    """Anything that is not a command is ignored."""
    try:
        command: Command = decoded((text or "").encode(), Command)
    except (msgspec.MsgspecError, Problem, RecursionError, UnicodeError):
        return None
    return command


def texts(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def cursor_in(text: str | None) -> int | None:
    """A cursor in a query or header; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


@websocket("/ws")
async def live_feed(socket: WebSocket[Any, Any, Any]) -> None:
    """Events as they happen: `?session=`, `?user=`, `?after=`."""
    listeners: Listeners = socket.app.state.listeners
    try:
        listeners.check_room(socket.app.state.gate)
    except Problem as problem:
        await refuse(problem, socket.scope, socket.receive, socket.send)  # type: ignore[arg-type]
        return
    listener = Listener(socket, socket.app.state.store, listeners)
    listeners.all.add(listener)
    try:
        await listener.run()
    finally:
        listeners.all.discard(listener)
        listeners.change(listener.wanted, Wanted())


@get("/ws", include_in_schema=False)
async def live_feed_by_http() -> None:
    """What is not a WebSocket has nothing to hear here: RFC 9110, section 15.5.22."""
    raise Problem(426, "Open a WebSocket here", headers={"upgrade": "websocket", "connection": "upgrade"})


# ------------------------------------------------------------- server-sent events


@get(
    "/api/events/stream",
    media_type="text/event-stream",
    responses=problems(400, 401, 422, 503)
    | {200: ResponseSpec(str, description="Server-sent events", media_type="text/event-stream")},
    tags=["events"],
)
async def stream_events(
    request: Request[Any, Any, Any],
    after: Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1)] = None,
    types: Annotated[list[str] | None, QueryParameter(name="type")] = None,
    session_id: Annotated[list[str] | None, QueryParameter(name="sessionId")] = None,
    user_id: Annotated[list[str] | None, QueryParameter(name="userId")] = None,
) -> Stream:
    """Events as they happen, as server-sent events. `Last-Event-ID` wins over `after`; with neither, from now on."""
    store: Store = request.app.state.store
    listeners: Listeners = request.app.state.listeners
    listeners.check_room(request.app.state.gate)
    last_id = cursor_in(request.headers.get("last-event-id"))
    begin = after if last_id is None else last_id
    cursor = await beginning(store, begin)
    sessions, users = readable(request.scope["state"]["caller"], session_id), frozenset(user_id or ())
    if len(sessions) + len(users) > MAX_NAMES:
        raise invalid("$.sessionId", f"at most {MAX_NAMES} sessions and users may be named")
    wanted = msgspec.structs.replace(
        Wanted.of(sessions, () if sessions else users, cursor), types=frozenset(split(types)), only_of=users
    )
    gate: Gate = request.app.state.gate
    is_welcome = partial(gate.still_lets_in, request.scope["state"]["caller"])
    return Stream(
        listeners.streaming(sse(store, wanted, cursor, is_welcome)),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


def readable(caller: Caller, asked: Sequence[str] | None) -> frozenset[str]:
    """The sessions that are asked for; who may read but some gets those. Raises Problem 404 for any other."""
    bounds = None if caller.token is None else caller.token.bounds
    sessions = frozenset(asked or ())
    if bounds is None:
        return sessions
    for session_id in sorted(sessions - {*bounds.sessions}):
        raise no_session(session_id)
    return sessions or frozenset(bounds.sessions)


async def sse(store: Store, wanted: Wanted, after: int, is_welcome: Callable[[], bool]) -> AsyncGenerator[bytes]:
    """What is wanted.

    Ends when the server closes, where the database cannot be read, and within a heartbeat of the reader's token: an
    EventSource comes back by itself.
    """
    yield b": connected\n\n"
    due = time.monotonic() + HEARTBEAT
    while is_welcome():
        found: Iterable[Piece] = ()
        cursor = after
        try:
            async with asyncio.timeout(due - time.monotonic()):
                found, cursor = await following(store, wanted, after)
        except TimeoutError:
            pass
        except Leave:
            return
        except Problem as problem:
            logger.warning("An event stream ended: %s", problem.detail)
            return
        if found and not is_welcome():  # while it waited
            return
        for piece in found:
            if places := wanted.places(piece, after):
                yield b"".join([piece.messages[place] for place in places])
                due = time.monotonic() + HEARTBEAT
        after = cursor
        if time.monotonic() >= due:
            yield b": still here\n\n"
            due = time.monotonic() + HEARTBEAT
