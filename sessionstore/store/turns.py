"""Fair queueing: what is scarce goes round robin to those who wait for it, however many waits one of them has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar

WHO: ContextVar[Hashable] = ContextVar("who", default=None)
"""The client of a request: its token, or its address; None: the store itself."""


class Turns:
    """Room for so much at a time; on the event loop. What is larger than all of it has it alone."""

    def __init__(self, room: int) -> None:
        self.room = self.free = room
        self.waiting: dict[Hashable, deque[tuple[int, asyncio.Future[None]]]] = {}
        """By client, whose turn is next first: the sizes that it waits for, in the order in which they came."""

    @asynccontextmanager
    async def of(self, size: int = 1) -> AsyncIterator[None]:
        """Have so much of it."""
        size = min(size, self.room)
        await self.take(size)
        try:
            yield
        finally:
            self.give(size)

    async def take(self, size: int) -> None:
        if not self.waiting and size <= self.free:
            self.free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(WHO.get(), deque()).append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self.give(0 if turn.cancelled() else size)  # it may have been given, and not heard of yet
            raise

    def give(self, size: int) -> None:
        """So much is free again: for those whose turn it is, as far as it goes."""
        self.free += size
        while self.waiting:
            who = next(iter(self.waiting))
            size, turn = self.waiting[who][0]
            if size > self.free and not turn.cancelled():
                return
            line = self.waiting.pop(who)
            line.popleft()
            if not turn.cancelled():
                self.free -= size
                turn.set_result(None)
            if line:
                self.waiting[who] = line
