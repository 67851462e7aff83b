"""Budget alerts: what was used is held against the budgets, and each crossing is told once, as an event.

What has been told stands in the events, so that nobody is told again after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from sessionstore.budget_rules import Budget
from sessionstore.log import faults
from sessionstore.model.events import Draft, Event
from sessionstore.model.folds import Document, decode
from sessionstore.model.problems import Problem
from sessionstore.store.ledger import KEYS, TOTAL_TOKENS, By, joined_for
from sessionstore.store.reader import Reader
from sessionstore.store.writer import Writer

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds from one look to the next, however much is used."""
TOLD = "SELECT data FROM budget_crossings"
QUARTER = 900
"""Seconds."""


class Standing(NamedTuple):
    """How much of a budget is used, by whom or what it counts for."""

    budget: Budget
    period: str
    """`2026-11-30`, `2026-11`; empty for all the time that a session takes."""
    key: str | None
    """Whose: a name where each has its own, the session where it is one's; None: it is one for all."""
    session_id: str
    """That used something of it last."""
    spent: float
    unpriced: int
    """Requests whose price nobody knows: they are not in it."""

    @property
    def share(self) -> float:
        return self.spent / self.budget.limit

    @property
    def level(self) -> str:
        """`ok`, `warn`, `over`."""
        return "over" if self.share >= 1 else "warn" if self.share >= self.budget.warn else "ok"

    def document(self) -> Document:
        """As GET /api/budgets has it."""
        budget = self.budget
        scope = dict([budget.scope]) if budget.scope else {}
        return {
            "name": budget.name,
            "scope": scope,
            "per": budget.per,
            "period": self.period or None,
            "key": self.key,
            "unit": budget.unit,
            "limit": budget.limit,
            "spent": round(self.spent, 10),
            "share": round(self.share, 4),
            "status": self.level,
            "unpricedRequests": self.unpriced,
            "then": budget.then,
        }


Crossing = tuple[str, str | None, str, str]
"""The budget's name, the key, the period, and the level that was reached."""


class BudgetWatch:
    """Looks whenever something was used; all of it on the event loop, by the readers and the writer of the store."""

    def __init__(self, budgets: Iterable[Budget], reader: Reader, writer: Writer) -> None:
        self.budgets = tuple(budgets)
        self.reader = reader
        self.writer = writer
        self.told: set[Crossing] = set()
        self.used = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self.budgets:
            self.told = {crossing_in(decode(data)) for (data,) in await self.reader.rows(TOLD)}
            self.used.set()
            self.task = asyncio.create_task(self.run())

    def wake(self, events: list[Event]) -> None:
        if self.task and any(event.type == "usage_reported" for event in events):
            self.used.set()

    async def stop(self) -> None:
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task

    async def run(self) -> None:
        while await self.used.wait():
            self.used.clear()
            try:
                await self.look()
            except Exception as error:  # the next look is taken, whatever it was
                faults["budgets"] += 1
                logger.warning("The budgets cannot be held against what was used: %s", error)
            await asyncio.sleep(PAUSE)

    async def look(self) -> None:
        for standing in await self.standings():
            for level in ("warn", "over"):
                crossing = standing.budget.name, standing.key, standing.period, level
                if standing.share >= (1 if level == "over" else standing.budget.warn) and crossing not in self.told:
                    await self.tell(standing, crossing)
                    self.told.add(crossing)

    async def tell(self, standing: Standing, crossing: Crossing) -> None:
        name = hashlib.sha256(repr(crossing).encode()).hexdigest()[:24]
        data = standing.document() | {"status": crossing[-1]}
        draft = Draft(
            type="budget_crossed",
            session_id=standing.session_id,
            event_id=f"budget-{name}",
            actor=f"budget:{standing.budget.name}",
            names_something=True,
            data=data,
        )
        try:
            await self.writer.append(draft)
        except Problem as problem:
            if problem.status != 404:  # its session was deleted meanwhile
                raise

    async def standings(self) -> list[Standing]:
        """Of each budget, for everybody whose it is."""
        now = time.time()
        return [standing for budget in self.budgets for standing in await self.standings_of(budget, now)]

    async def standings_of(self, budget: Budget, now: float) -> Iterator[Standing]:
        period, since = period_at(budget, now)
        rows = await self.reader.rows(*spending(budget, since))
        return (Standing(budget, period, *row) for row in rows)


def crossing_in(data: Document) -> Crossing:
    return data["name"], data["key"], data["period"] or "", data["status"]


def period_at(budget: Budget, now: float) -> tuple[str, int]:
    """The name of the period at a time, and its first quarter of an hour, of the server's time zone."""
    if budget.per == "session":
        return "", 0
    moment = datetime.fromtimestamp(now)
    begun = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.per == "month":
        begun = begun.replace(day=1)
    return begun.strftime("%Y-%m-%d" if budget.per == "day" else "%Y-%m"), int(begun.timestamp()) // QUARTER


def spending(budget: Budget, since: int) -> tuple[str, dict[str, object]]:
    """The query of what was used of a budget: key, session, how much, unpriced requests."""
    kind, name = budget.scope or (None, None)
    by: By | None = kind  # type: ignore[assignment]
    key = KEYS["session"] if budget.per == "session" else KEYS[by] if by and name == "*" else "NULL"
    where = f"AND {KEYS[by]} = :name" if by and name != "*" else ""
    amount = "sum(cost_usd)" if budget.unit == "usd" else f"sum({TOTAL_TOKENS})"
    query = f"""
SELECT key, session_id, amount, unpriced FROM (
  SELECT {key} AS key, u.session_id, max(quarter), {amount} AS amount,
         sum(unpriced) AS unpriced
  FROM usage_counted u {joined_for(by)} WHERE quarter >= :since {where} GROUP BY 1)
WHERE amount > 0"""
    return query, {"since": since, "name": name}
