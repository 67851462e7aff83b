"""A ring buffer of committed events, from which every listener reads at its own cursor.

What is published within a tick is sealed into pieces. A piece is rendered once, for all who read it, and knows where
in it each session's and user's events are, so that one that filters takes just its own. A listener has no queue: it
knows the cursor that it has seen. So publishing costs the same for one listener and for a thousand, and one that stops
reading costs nobody anything.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple, TypeVar

from websockets.frames import Frame, Opcode

from sessionstore.model.events import Event

MAX_EVENTS = 8192
MAX_BYTES = 16 << 20
"""Of the events in the ring; what they are rendered as may be twice as much beside it."""
PIECE_BYTES = 128 << 10
PIECE_EVENTS = 1024
"""About how much is handed to a listener at once: what it must be able to take before it is given more."""
TICK = 0.005
"""Seconds for which what is published is gathered, so that a thousand commits do not wake a thousand listeners each."""
REST = 3
"""How many times as long as many listeners took is gathered next, so that most of the event loop is left to writes."""
LONGEST_REST = 0.1
RECENT = 64
"""Pieces that stay as they were sealed. Many small ones become few when they are older, for who is that far behind."""
ENVELOPE = 300
"""About how many bytes an event's text has beside its data."""


class FeedItem(NamedTuple):
    """An event as listeners get it, read from the database."""

    cursor: int
    type: str
    session_id: str
    user_id: str
    text: bytes


Told = TypeVar("Told", Event, FeedItem, Event | FeedItem)


class Piece:
    """Some events in cursor order, for all listeners; what is made of them is made when first asked for."""

    def __init__(self, items: Sequence[Event | FeedItem], published_at: float = 0.0) -> None:
        self.items = items
        self.last = items[-1].cursor
        self.published_at = published_at
        """`time.monotonic()` of the first of them, while it is recent."""

    @cached_property
    def size(self) -> int:
        return sum(map(size_of, self.items))

    @cached_property
    def frames(self) -> list[bytes]:
        """Each as a text frame of RFC 6455."""
        return [Frame(Opcode.TEXT, item.text).serialize(mask=False) for item in self.items]

    @cached_property
    def messages(self) -> list[bytes]:
        """Each as a server-sent event."""
        return [b"id: %d\ndata: %b\n\n" % (item.cursor, item.text) for item in self.items]

    @cached_property
    def by_session(self) -> Mapping[str, list[int]]:
        """Where in the piece the events of each session are."""
        return places_by(item.session_id for item in self.items)

    @cached_property
    def by_user(self) -> Mapping[str, list[int]]:
        return places_by(item.user_id for item in self.items)


def places_by(names: Iterable[str]) -> Mapping[str, list[int]]:
    places = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    return places


def size_of(item: Event | FeedItem) -> int:
    """About the bytes of its text."""
    return len(item.data) + ENVELOPE if isinstance(item, Event) else len(item.text)


def pieces(items: Sequence[Event | FeedItem], published_at: float = 0.0) -> Iterator[Piece]:
    """All of them, about PIECE_BYTES in each."""
    begin = size = 0
    for end, item in enumerate(items):
        if size > PIECE_BYTES or end - begin == PIECE_EVENTS:
            yield Piece(items[begin:end], published_at)
            begin, size = end, 0
        size += size_of(item)
    if items:
        yield Piece(items[begin:], published_at)


def without(gone: Mapping[str, int], items: Sequence[Told]) -> list[Told]:
    """Those that are not of deleted sessions: by session, the cursor of its deletion."""
    return [item for item in items if item.cursor >= gone.get(item.session_id, 0)]


class Broadcaster:
    """The newest committed events, in cursor order."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.events = self.bytes = 0
        """In the pieces."""
        self.gathered: list[Event] = []
        """What is published, and in no piece yet."""
        self.gathered_since = 0.0
        self.rests_until = 0.0
        self.head = 0
        """The newest cursor published."""
        self.sealed = 0
        """The newest cursor in a piece."""
        self.forgotten = 0
        """The newest cursor that the ring does not hold any more."""
        self.seals = 0
        self.published = asyncio.Event()
        self.closing = False

    def start(self, head: int) -> None:
        self.head = self.sealed = self.forgotten = head

    def publish(self, events: list[Event]) -> None:
        """Called on the event loop, in the order of the commits."""
        self.head = events[-1].cursor
        if not self.gathered:
            self.gathered_since = time.monotonic()
            asyncio.get_running_loop().call_later(max(TICK, self.rests_until - self.gathered_since), self.wake)
        self.gathered += events
        if gone := {event.session_id: event.cursor for event in events if event.type == "session_deleted"}:
            self.take_out(gone)

    def wake(self) -> None:
        """Let listeners have what was gathered."""
        gathered, self.gathered = self.gathered, []
        for piece in pieces(gathered, self.gathered_since):
            self.seal(piece)
        self.let_go()
        asyncio.get_running_loop().call_soon(self.rest, time.monotonic())

    def let_go(self) -> None:
        """All who wait."""
        awaited, self.published = self.published, asyncio.Event()
        awaited.set()

    def rest(self, woken_at: float) -> None:
        """Called when all who were woken have had their turn."""
        now = time.monotonic()
        self.rests_until = now + min(LONGEST_REST, REST * (now - woken_at))

    def seal(self, piece: Piece) -> None:
        """Keep it, and forget the oldest for it."""
        self.pieces.append(piece)
        self.sealed = piece.last
        self.events += len(piece.items)
        self.bytes += piece.size
        self.seals += 1
        if self.seals % RECENT == 0:
            self.join_small()
        while self.events > MAX_EVENTS or self.bytes > MAX_BYTES:
            oldest = self.pieces.pop(0)
            self.events -= len(oldest.items)
            self.bytes -= oldest.size
            self.forgotten = oldest.last

    def take_out(self, gone: Mapping[str, int]) -> None:
        """What is deleted is gone for those, too, who come later."""
        self.gathered = without(gone, self.gathered)
        left: list[Piece] = []
        for piece in self.pieces:
            is_touched = gone.keys() & piece.by_session.keys()
            left += pieces(without(gone, piece.items), piece.published_at) if is_touched else [piece]
        self.pieces = left
        self.sealed = left[-1].last if left else self.forgotten
        self.events = sum(len(piece.items) for piece in left)
        self.bytes = sum(piece.size for piece in left)

    def join_small(self) -> None:
        older = slice(-2 * RECENT, -RECENT)
        items = list(chain.from_iterable(piece.items for piece in self.pieces[older]))
        self.pieces[older] = pieces(items)

    def close(self) -> None:
        """Let every listener go."""
        self.closing = True
        self.let_go()

    async def after(self, cursor: int) -> Piece | None:
        """The next piece with something after `cursor`: at once if there is one, else when there is.

        None, if the server closes, or if `cursor` has been forgotten: then the database has it.
        """
        while cursor >= self.sealed and not self.closing:
            await self.published.wait()
        if self.closing or cursor < self.forgotten:
            return None
        return self.pieces[bisect_right(self.pieces, cursor, key=lambda piece: piece.last)]
