"""The circuit breaker: what agents do is held against rules, and who breaks one is asked about, paused or stopped.

What an agent has done is known since the server started. A rule orders once while its order is open.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from sessionstore.breaker_rules import Rule
from sessionstore.log import faults
from sessionstore.model.events import Event, text_of_time
from sessionstore.model.folds import decode
from sessionstore.store.control import GiveOrders, tripped
from sessionstore.store.reader import Reader
from sessionstore.store.selection import Which, conditions
from sessionstore.store.writer import Writer
from sessionstore.text import for_people, shortened
from sessionstore.upkeep.notices import CALLS, MAX_RUNS, OF_ONE_CALL, Run

logger = logging.getLogger(__name__)

ENDS = ("tool_result", "tool_error")
LOOK_SECONDS = 5.0
OPEN = """
SELECT 1 FROM orders r JOIN events x ON x.cursor = r.cursor WHERE r.session_id = ? AND r.is_open AND x.actor = ?"""
QUIET = "SELECT s.session_id, s.last_cursor FROM sessions s WHERE s.status = 'active' AND s.heard < ? LIMIT 1000"


class Broken(NamedTuple):
    """A rule that a session has broken, and how."""

    rule: Rule
    session_id: str
    cursor: int
    why: str


class Breaker:
    """Looks at what comes, on the event loop; it orders by the writer."""

    def __init__(
        self, rules: Iterable[Rule], reader: Reader, writer: Writer, is_reachable: Callable[[str], bool]
    ) -> None:
        self.rules = tuple(rules)
        self.reader = reader
        self.writer = writer
        self.is_reachable = is_reachable
        self.most = max((rule.of_calls for rule in self.rules if rule.error_rate is not None), default=0)
        self.counts = any(rule.same_call_times for rule in self.rules)
        self.runs: dict[tuple[str, str | None], Run] = {}
        self.ends: dict[tuple[str, str | None], deque[bool]] = {}
        """Whether each of the last calls has failed."""
        self.broken: asyncio.Queue[Broken] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.rules:
            self.task = asyncio.create_task(self.run())

    async def stop(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait([self.task])

    # ---- what comes

    def wake(self, events: list[Event]) -> None:
        if self.task is None:
            return
        for event in events:
            if event.kind in CALLS and event.type == "action" and self.counts:
                self.call(event)
            elif event.kind in ENDS and event.type == "response" and self.most:
                self.end(event)

    def call(self, event: Event) -> None:
        run, data = self.run_of(event), decode(event.data)
        tool = data.get("tool") or event.kind
        given = data.get("input") or {name: it for name, it in data.items() if name not in OF_ONE_CALL}
        digest = hashlib.sha256(msgspec.json.encode([tool, given])).hexdigest()
        run.times = run.times + 1 if digest == run.digest else 1
        run.digest = digest
        for rule in self.rules:
            if rule.same_call_times and run.times % rule.same_call_times == 0:
                self.breaks(rule, event, f"{for_people(str(tool))} was called the same way {run.times} times in a row")

    def run_of(self, event: Event) -> Run:
        if len(self.runs) >= MAX_RUNS:
            self.runs.clear()
        return self.runs.setdefault((event.session_id, event.agent_id), Run("", 0))

    def end(self, event: Event) -> None:
        if len(self.ends) >= MAX_RUNS:
            self.ends.clear()
        ends = self.ends.setdefault((event.session_id, event.agent_id), deque(maxlen=self.most))
        ends.append(event.kind == "tool_error")
        for rule in self.rules:
            if rule.error_rate is None or len(ends) < rule.of_calls:
                continue
            failed = sum(list(ends)[-rule.of_calls :])
            if failed >= rule.error_rate * rule.of_calls:
                self.breaks(rule, event, f"{failed} of the last {rule.of_calls} calls have failed")
                ends.clear()

    def breaks(self, rule: Rule, event: Event, why: str) -> None:
        self.broken.put_nowait(Broken(rule, event.session_id, event.cursor, why))

    # ---- what is done

    async def run(self) -> None:
        patience = [rule.no_progress_minutes * 15 for rule in self.rules if rule.no_progress_minutes]
        while True:
            try:
                async with asyncio.timeout(min([LOOK_SECONDS, *patience]) if patience else None):
                    broken = [await self.broken.get()]
            except TimeoutError:
                broken = []
            try:
                for one in broken or await self.quiet():
                    await self.act(one)
            except Exception as error:  # the next is looked at, whatever it was
                faults["breaker"] += 1
                logger.warning("What a rule orders cannot be ordered: %s", error)

    async def quiet(self) -> list[Broken]:
        found: list[Broken] = []
        for rule in self.rules:
            if rule.no_progress_minutes:
                heard = text_of_time(time.time() - 60 * rule.no_progress_minutes)
                why = f"nothing was heard of it for {rule.no_progress_minutes:g} minutes"
                rows = await self.reader.rows(QUIET, (heard,))
                found += [Broken(rule, session_id, cursor, why) for session_id, cursor in rows]
        return found

    async def act(self, broken: Broken) -> None:
        rule, session_id = broken.rule, broken.session_id
        if not await self.concerns(rule, session_id):
            return
        name = f"{rule.name} {session_id} {broken.cursor}"
        order_id = f"rule-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
        text = shortened(f"The rule {rule.name}: {broken.why}", 500)
        draft = tripped(session_id, rule.then, f"rule:{rule.name}", order_id, text)
        await self.writer.submit(GiveOrders([draft]), [draft])

    async def concerns(self, rule: Rule, session_id: str) -> bool:
        """Whether it is for this session, which can be reached, and of which it has ordered nothing that is open."""
        if not self.is_reachable(session_id):
            return False
        which = Which(user_id=rule.user, project=rule.project, tag=rule.tag)
        where, values = conditions(("s.session_id = ?", session_id), *which.terms())
        actor = f"rule:{rule.name}"
        is_meant: Any = await self.reader.row(f"SELECT 1 FROM sessions s WHERE {where}", values)
        return is_meant is not None and await self.reader.row(OPEN, (session_id, actor)) is None
