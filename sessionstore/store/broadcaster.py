"""A ring buffer of committed events, from which every listener reads at its own cursor.

A listener has no queue of its own: it knows the cursor that it has seen, and
reads on from there. So publishing costs the same for one listener and for a
thousand, and one that stops reading costs nobody anything.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from sessionstore.model.events import Event

MAX_EVENTS = 8192
MAX_BYTES = 32 << 20
PIECE_BYTES = 128 << 10
PIECE_EVENTS = 1024
"""About how much is handed to a listener at once: what it must be able to take before it is given more."""
TICK = 0.005
"""Seconds for which what is published is gathered, so that a thousand commits do not wake a thousand listeners each."""


class Item(NamedTuple):
    """An event as listeners get it."""

    cursor: int
    type: str
    session_id: str
    user_id: str
    text: bytes


def item_of(event: Event) -> Item:
    return Item(event.cursor, event.type, event.session_id, event.user_id, event.document().encode())


class Broadcaster:
    """The newest committed events, in cursor order."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.bytes = 0
        """Of the data of the events in the ring."""
        self.head = 0
        """The newest cursor published."""
        self.forgotten = 0
        """The newest cursor that the ring does not hold any more."""
        self.piece_of = (0, 0)
        self.piece: list[Item] = []
        self.published = asyncio.Event()
        self.is_waking = False
        self.published_at = 0.0
        """`time.monotonic()` of the first of what was gathered last."""
        self.closing = False

    def start(self, head: int) -> None:
        self.head = self.forgotten = head

    def publish(self, events: list[Event]) -> None:
        """Called on the event loop, in the order of the commits."""
        self.head = events[-1].cursor
        self.events.extend(events)
        self.bytes += sum(len(event.data) for event in events)
        while len(self.events) > MAX_EVENTS or self.bytes > MAX_BYTES:
            oldest = self.events.popleft()
            self.bytes -= len(oldest.data)
            self.forgotten = oldest.cursor
        if not self.is_waking:
            self.is_waking = True
            self.published_at = time.monotonic()
            asyncio.get_running_loop().call_later(TICK, self.wake)

    def wake(self) -> None:
        self.is_waking = False
        awaited, self.published = self.published, asyncio.Event()
        awaited.set()

    def close(self) -> None:
        """Let every listener go."""
        self.closing = True
        self.wake()

    async def after(self, cursor: int) -> list[Item]:
        """What came after `cursor`: at once if there is something, else when there is.

        At most about PIECE_BYTES of it. Empty, if the server closes, or if `cursor` has been forgotten: then the
        database has it.
        """
        while cursor >= self.head and not self.closing:
            await self.published.wait()
        if self.closing or cursor < self.forgotten:
            return []
        if (cursor, self.head) != self.piece_of:  # most listeners ask for the same piece
            missing = len(self.events) - bisect_right(self.events, cursor, key=cursor_of)
            self.piece_of = cursor, self.head
            events = list(islice(reversed(self.events), missing))[::-1]
            self.piece = next(pieces([item_of(event) for event in events[:PIECE_EVENTS]]))
        return self.piece


def cursor_of(event: Event) -> int:
    return event.cursor


def pieces(items: list[Item]) -> Iterator[list[Item]]:
    """The items in lists of about PIECE_BYTES; a list that is not longer as it is."""
    begin = size = 0
    for end, item in enumerate(items):
        if size > PIECE_BYTES:
            yield items[begin:end]
            begin, size = end, 0
        size += len(item.text)
    if begin < len(items):
        yield items[begin:] if begin else items
