"""The outbox of answers and orders: long polls of agents' sides, leases, and at-least-once delivery.

What there is to carry out is in the database; here is only who waits for it, and what has been offered whom a moment
ago. A poll that waits holds no thread and no connection to the database: it looks when something was committed in its
session, and whenever a lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sessionstore.log import faults
from sessionstore.model.control import Poll
from sessionstore.model.events import STORE, Draft, Event, now
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem
from sessionstore.store.control import AWAITED, DUE, OPEN_ITEMS, Ask, Item, Settle
from sessionstore.store.reader import Reader
from sessionstore.store.writer import Writer

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after which what was offered, and of which nothing was heard, is offered again."""
REACHABLE = 60.0
"""Seconds for which a session is reachable after a poll."""
LINGERS = 15.0
"""Seconds for which somebody who has waited for an answer is taken to be about to wait for it again."""
NEARBY = 0.2
"""Seconds after which those who wait hear of what else was said in their session."""
LOOK_SECONDS = 2.0
"""How often it is looked for what has expired."""
TELLING = frozenset(("answered", "ask_closed", "ordered", "order_delivered", "order_closed", "session_deleted"))


class SessionLine:
    """To the agent's side of one session."""

    __slots__ = ("asks", "changes", "is_due", "leases", "polled", "waiting")

    def __init__(self) -> None:
        self.polled = 0.0
        """When it was last heard of, by time.monotonic."""
        self.changes = 0
        """Rises when there may be something new."""
        self.waiting: set[asyncio.Future[None]] = set()
        self.leases: dict[tuple[str, str], float] = {}
        """Until when what was offered is not offered again: by its id, and for what holds many calls by call."""
        self.asks: dict[int, list[float]] = {}
        """By the cursor of an ask: how many wait for its answer, and when one last did."""
        self.is_due = False

    def wake(self) -> None:
        self.is_due = False
        self.changes += 1
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()

    async def changed(self, since: int, seconds: float) -> None:
        """Until there may be something new since then, or the time is over."""
        if self.changes != since or seconds <= 0:
            return
        future = asyncio.get_running_loop().create_future()
        self.waiting.add(future)
        timer = asyncio.get_running_loop().call_later(seconds, done_unless, future)
        try:
            await future
        finally:
            timer.cancel()
            self.waiting.discard(future)

    def lease(self, items: list[Item], at: str, moment: float) -> tuple[list[Item], float]:
        """What of it nobody has been offered just now, which is leased by that; and when the next lease ends."""
        self.leases = {key: until for key, until in self.leases.items() if until > moment}
        free = [item for item in items if lease_key(item, at) not in self.leases]
        for item in free:
            self.leases[lease_key(item, at)] = moment + LEASE
        taken = [self.leases[lease_key(item, at)] for item in items if item not in free]
        return free, min(taken, default=float("inf"))


def done_unless(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def lease_key(item: Item, at: str) -> tuple[str, str]:
    return item.item_id, at if item.kind in ("pause", "release") else ""


class Outbox:
    """All of them; on the event loop."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer
        self.lines: dict[str, SessionLine] = {}
        self.is_closed = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.run())

    def close(self) -> None:
        """Let all go who wait."""
        self.is_closed = True
        for line in self.lines.values():
            line.wake()

    async def stop(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait([self.task])

    def wake(self, events: list[Event]) -> None:
        for event in events:
            if (line := self.lines.get(event.session_id)) is None or not line.waiting:
                continue
            if event.type in TELLING:
                line.wake()
            elif not line.is_due:
                line.is_due = True
                asyncio.get_running_loop().call_later(NEARBY, line.wake)

    # ---- who can be reached

    def is_reachable(self, session_id: str) -> bool:
        line = self.lines.get(session_id)
        return line is not None and (bool(line.waiting) or time.monotonic() - line.polled < REACHABLE)

    def reachable(self) -> frozenset[str]:
        """Called on another thread, too."""
        return frozenset(session_id for session_id in list(self.lines) if self.is_reachable(session_id))

    def last_poll(self, session_id: str) -> float | None:
        """How many seconds ago a session was last heard of; None: not for long."""
        line = self.lines.get(session_id)
        return None if line is None else time.monotonic() - line.polled

    def can_answer(self, session_id: str, ask: int) -> bool:
        """Whether somebody waits for the answer to the ask with this cursor."""
        line = self.lines.get(session_id)
        waits, last = line.asks.get(ask, (0, 0.0)) if line else (0, 0.0)
        return waits > 0 or (last > 0 and time.monotonic() - last < LINGERS)

    # ---- a poll

    async def changed(self, session_id: str, seconds: float) -> None:
        """Until something was committed in a session, or the time is over."""
        line = self.lines.setdefault(session_id, SessionLine())
        await line.changed(line.changes, seconds)

    async def poll(self, session_id: str, poll: Poll, until: float) -> list[Document]:
        """What there is to carry out; nothing, where there is none until then, by time.monotonic."""
        line = self.lines.setdefault(session_id, SessionLine())
        line.polled = time.monotonic()
        with waiting_for(line) as wait_for:
            while True:
                since = line.changes
                ask, items = await self.look(session_id, poll)
                if ask is not None:
                    wait_for(ask.cursor)
                free, leased_until = line.lease(items, poll.at or "", time.monotonic())
                found = [item.document() | ({"askId": poll.ask} if item.ask_id else {}) for item in free]
                if ask is not None and ask.status != "open" and not any(item.ask_id for item in items):
                    found.append({"id": poll.ask, "kind": "closed", "askId": poll.ask, "why": why_ended(ask)})
                if found or time.monotonic() >= until or self.is_closed:
                    return found
                await line.changed(since, min(until, leased_until) - time.monotonic())

    async def look(self, session_id: str, poll: Poll) -> tuple[Ask | None, list[Item]]:
        """The ask that is waited for, as far as it is known, and what is open for this poll."""
        values: dict[str, Any] = {"id": session_id, "agent": poll.agent_id, "now": now(), "done": encode(poll.done)}
        async with self.reader.lend() as connection:
            ask = None
            if poll.ask is not None:
                found = await connection.rows(AWAITED, {"name": poll.ask, "session": session_id, "at": poll.at})
                ask = max((Ask(*row) for row in found), key=lambda ask: ask.cursor, default=None)
            rows = await connection.rows(OPEN_ITEMS, values | {"ask": None if ask is None else ask.cursor})
        items = [Item(*row) for row in rows]
        settled = {*poll.done, *poll.refused}
        return ask, [item for item in items if item.item_id not in settled]

    async def settle(self, drafts: list[Draft]) -> None:
        """Keep what was carried out, or refused. Raises Problem."""
        if drafts:
            await self.writer.submit(Settle(drafts), drafts)

    # ---- what nobody says

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.expire()
            except Exception as error:  # the next look is taken, whatever it was
                faults["outbox"] += 1
                logger.warning("What has expired cannot be made out: %s", error)

    async def expire(self) -> None:
        self.forget()
        for kind, session_id, name in await self.reader.rows(DUE, {"now": now()}):
            data = {"orderId": name, "why": "expired"} if kind == "order_closed" else {"askId": name, "why": "deadline"}
            draft = Draft(type=kind, session_id=session_id, actor=STORE, data=data, names_something=True)
            with suppress(Problem):
                await self.writer.append(draft)

    def forget(self) -> None:
        """Those of whom nothing was heard for long."""
        moment = time.monotonic()
        for session_id, line in list(self.lines.items()):
            is_waited_for = line.waiting or any(waits for waits, _ in line.asks.values())
            if not is_waited_for and moment - line.polled > 2 * REACHABLE:
                del self.lines[session_id]


WaitFor = Callable[[int], None]


@contextmanager
def waiting_for(line: SessionLine) -> Iterator[WaitFor]:
    """What is called with the ask that is waited for, once that is known."""
    asks: set[int] = set()

    def wait_for(ask: int) -> None:
        if ask not in asks:
            asks.add(ask)
            line.asks.setdefault(ask, [0, 0.0])[0] += 1

    try:
        yield wait_for
    finally:
        moment = time.monotonic()
        for ask in asks:
            line.asks[ask][0] -= 1
            line.asks[ask][1] = moment
        line.asks = {ask: held for ask, held in line.asks.items() if held[0] or moment - held[1] < LINGERS}


def why_ended(ask: Ask) -> str:
    return ask.ended_by or ask.status
