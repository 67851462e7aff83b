"""Budget alerts: what was used is held against the budgets, and each crossing is told once, as an event.

What has been told stands in the events, so that nobody is told again after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sessionstore.budget_rules import Budget
from sessionstore.log import faults
from sessionstore.model.events import Draft, Event
from sessionstore.model.folds import Document, decode
from sessionstore.model.problems import Problem
from sessionstore.store.control import GiveOrders, tripped
from sessionstore.store.ledger import KEYS, TOTAL_TOKENS, By, joined_for
from sessionstore.store.reader import Reader
from sessionstore.store.selection import Which, conditions, one_of
from sessionstore.store.writer import Writer
from sessionstore.text import shortened
from sessionstore.upkeep.notices import spent_of

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds from one look to the next, however much is used."""
IDLE = 20
"""How many times as long as a look took nobody looks again."""
MOST = 1000
"""Of those whose budget it is, the ones that GET /api/budgets names: who has used most."""
NEARLY = 1 - 1e-9
"""What SQLite and Python may sum up differently."""
TOLD = "SELECT data FROM budget_crossings"
AT_ONCE = 100
"""Orders that the writer is given at once."""
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

    def said(self) -> str:
        """For people."""
        return spent_of(self.document())

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

    def __init__(
        self, budgets: Iterable[Budget], reader: Reader, writer: Writer, is_reachable: Callable[[str], bool]
    ) -> None:
        self.budgets = tuple(budgets)
        self.reader = reader
        self.writer = writer
        self.is_reachable = is_reachable
        self.told: set[Crossing] = set()
        self.acted: set[tuple[Crossing, str]] = set()
        """What was ordered of which session; that it was before a restart the writer knows."""
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
            await asyncio.wait([self.task])

    async def run(self) -> None:
        while await self.used.wait():
            self.used.clear()
            began = time.monotonic()
            try:
                await self.look()
            except Exception as error:  # the next look is taken, whatever it was
                faults["budgets"] += 1
                logger.warning("The budgets cannot be held against what was used: %s", error)
            await asyncio.sleep(max(PAUSE, IDLE * (time.monotonic() - began)))

    async def look(self) -> None:
        now = time.time()
        near = [
            one for budget in self.budgets for one in await self.standings_of(budget, now, budget.warn * NEARLY, -1)
        ]
        for standing in near:
            if standing.level == "over" and standing.budget.then != "notify":
                await self.act(standing)
            for level in ("warn", "over"):
                crossing = standing.budget.name, standing.key, standing.period, level
                if standing.share >= (1 if level == "over" else standing.budget.warn) and crossing not in self.told:
                    await self.tell(standing, crossing)
                    self.told.add(crossing)

    async def tell(self, standing: Standing, crossing: Crossing) -> None:
        data = standing.document() | {"status": crossing[-1]}
        draft = Draft(
            type="budget_crossed",
            session_id=standing.session_id,
            event_id=f"budget-{name_of(crossing)}",
            actor=f"budget:{standing.budget.name}",
            names_something=True,
            data=data,
        )
        try:
            await self.writer.append(draft)
        except Problem as problem:
            if problem.status != 404:  # its session was deleted meanwhile
                raise

    async def act(self, standing: Standing) -> None:
        """Ask about, pause or stop whoever goes on with it and can be reached, each session once a period."""
        budget, crossing = standing.budget, (standing.budget.name, standing.key, standing.period, "over")
        rows = await self.reader.rows(*concerned(standing))
        found = [one for (one,) in rows if (crossing, one) not in self.acted and self.is_reachable(one)]
        actor, text = f"budget:{budget.name}", shortened(standing.said(), 500)
        for at in range(0, len(found), AT_ONCE):
            some = found[at : at + AT_ONCE]
            drafts = [tripped(one, budget.then, actor, f"budget-{name_of((*crossing, one))}", text) for one in some]
            await self.writer.submit(GiveOrders(drafts), drafts)
            self.acted.update((crossing, one) for one in some)

    async def standings(self) -> list[Standing]:
        """Of each budget, for everybody whose it is; what is one for all also where nothing is used of it."""
        now = time.time()
        return [one for budget in self.budgets for one in await self.standings_of(budget, now, 0, MOST)]

    async def standings_of(self, budget: Budget, now: float, share: float, most: int) -> Iterator[Standing]:
        """Of those who have used at least this share of it; -1: of all of them."""
        period, since = period_at(budget, now)
        rows = await self.reader.rows(*spending(budget, since, share * budget.limit, most))
        return (Standing(budget, period, *row) for row in rows or untouched(budget))


def name_of(crossing: tuple[str | None, ...]) -> str:
    return hashlib.sha256(repr(crossing).encode()).hexdigest()[:24]


def concerned(standing: Standing) -> tuple[str, list[Any]]:
    """The query of the sessions that go on, and whose budget it is."""
    kind, name = ("session", "*") if standing.budget.per == "session" else standing.budget.scope or ("", "")
    name = standing.key or "" if name == "*" else name
    which = Which(
        user_id=name if kind == "user" else None,
        project=name if kind == "project" else None,
        tag=name if kind == "tag" else None,
    )
    where, values = conditions(
        one_of("s.session_id", [name] if kind == "session" else ()),
        one_of("s.status", ("active", "waiting")),
        *which.terms(),
    )
    return f"SELECT s.session_id FROM sessions s WHERE {where} LIMIT 10000", values


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


def untouched(budget: Budget) -> list[tuple[str | None, str, float, int]]:
    """A row as those of `spending`, where it is known whose the budget is before anything is used of it."""
    kind, name = budget.scope or (None, None)
    is_one = kind == "session" or budget.per != "session"
    return [(name if budget.per == "session" else None, "", 0.0, 0)] if is_one and name != "*" else []


def spending(budget: Budget, since: int, least: float, most: int) -> tuple[str, dict[str, object]]:
    """The query of what was used of a budget: key, session, how much, unpriced requests; who has used most first."""
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
WHERE amount >= :least AND (amount > 0 OR unpriced > 0)
ORDER BY amount DESC LIMIT :most"""
    return query, {"since": since, "name": name, "least": least, "most": most}
