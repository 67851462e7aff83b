"""Alert rules over sessions: those that wait, are lost or failed, that stand still or go in circles.

A notice follows from the database alone, and from how far a target has been
told; so none is lost with the process, and told again it has the same id.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, NamedTuple

import msgspec

from sessionstore.model.events import text_of_time
from sessionstore.model.folds import Document, decode
from sessionstore.text import for_people, shortened
from sessionstore.webhook_targets import Target

AT_ONCE = 500
"""Rows looked at in one go."""
MAX_RUNS = 10_000
MESSAGE_LENGTH = 500
CALLS = "('tool_call', 'mcp_call', 'bash_exec')"
"""The types of actions that are calls."""
OF_ONE_CALL = "'$.toolUseId', '$.timestamp', '$.agentId', '$.prompt_id'"

TURNS = f"""
SELECT t.cursor, t.session_id, t.status, e.user_id, e.timestamp, e.data
FROM status_changes t JOIN events e USING (cursor)
WHERE t.cursor > ? AND t.status IN (SELECT value FROM json_each(?)) ORDER BY t.cursor LIMIT {AT_ONCE}"""
CROSSINGS = f"""
SELECT e.cursor, e.session_id, e.user_id, e.timestamp, e.data FROM budget_crossings b JOIN events e USING (cursor)
WHERE b.cursor > ? AND b.cursor <= ? ORDER BY b.cursor LIMIT {AT_ONCE}"""
PENDING = "SELECT count(*) FROM status_changes WHERE cursor > ? AND status IN (SELECT value FROM json_each(?))"
CALL = f"""
SELECT cursor, session_id, coalesce(agent_id, ''), user_id, timestamp, coalesce(data ->> '$.tool', kind),
       coalesce(data -> '$.input', json_remove(data, {OF_ONE_CALL}))
FROM events WHERE type = 'action' AND kind IN {CALLS}"""
NEXT_CALLS = f"{CALL} AND cursor > ? AND cursor <= ? ORDER BY cursor LIMIT {AT_ONCE}"
CALLS_BEFORE = f"{CALL} AND session_id = ? AND cursor < ? AND coalesce(agent_id, '') = ? ORDER BY cursor DESC LIMIT ?"
QUIET = """
SELECT last_cursor, session_id, user_id, heard FROM sessions
WHERE status = 'active' AND heard < ? ORDER BY heard, session_id LIMIT 1000"""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to tell."""

    cursor: int
    """Of the event from which it follows."""
    type: str
    session_id: str
    user_id: str
    timestamp: str
    message: str
    details: Document = {}

    @property
    def name(self) -> str:
        """The same whenever it is told; another for any other notice."""
        whole = f"{self.cursor} {self.type} {self.session_id} {self.timestamp}"
        return f"msg_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def turn_notice(row: tuple[Any, ...]) -> Notice:
    """A session that came to a status at which somebody should look."""
    cursor, session_id, status, user_id, timestamp, text = row
    data = decode(text)
    attention = data.get("attention") if isinstance(data.get("attention"), dict) else {}
    said = {
        "waiting": attention.get("message") or "It waits for a person",
        "failed": data.get("outcome") or "It failed",
        "lost": "Nothing was heard of it any more",
    }[status]
    details = {name: readable(attention[name]) for name in ("reason", "tool") if isinstance(attention.get(name), str)}
    return Notice(
        cursor=cursor,
        type=f"session.{status}",
        session_id=session_id,
        user_id=user_id,
        timestamp=timestamp,
        message=readable(said),
        details=details,
    )


def budget_notice(row: tuple[Any, ...]) -> Notice:
    """A budget of which so much was used that somebody is to know."""
    cursor, session_id, user_id, timestamp, text = row
    said = decode(text)
    return Notice(
        cursor=cursor,
        type="budget.crossed",
        session_id=session_id,
        user_id=user_id,
        timestamp=timestamp,
        message=readable(spent_of(said)),
        details={name: said[name] for name in ("name", "key", "period", "status", "unit", "spent", "limit")},
    )


def spent_of(said: Document) -> str:
    """How a budget stands, in a sentence."""
    amounts = (said["spent"], said["limit"])
    spent, limit = (f"${amount:,.2f}" if said["unit"] == "usd" else f"{amount:,.0f} tokens" for amount in amounts)
    whose = f" of {said['key']}" if said["key"] else ""
    return f"The budget {said['name']}{whose}: {spent} of {limit} used"


def readable(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shortened(for_people(text), MESSAGE_LENGTH)


class ToolCall(NamedTuple):
    """A row of NEXT_CALLS."""

    cursor: int
    session_id: str
    agent_id: str
    user_id: str
    timestamp: str
    tool: str
    given: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.tool} {self.given}".encode()).hexdigest()


class Run(msgspec.Struct):
    """How often a session, or an agent in it, has made its last call, one after the other."""

    digest: str
    times: int


class Watch:
    """Finds in the database what a target is to be told, beginning after a cursor."""

    def __init__(self, target: Target) -> None:
        self.on = msgspec.json.encode(target.on).decode()
        self.hears_of_budgets = "budget" in target.on
        self.quiet_minutes = target.rules.no_progress_minutes
        self.times = target.rules.same_call_times
        self.runs: dict[tuple[str, str], Run] = {}

    @property
    def patience(self) -> float:
        """Seconds that it may take until somebody's quiet is noticed."""
        return float("inf") if self.quiet_minutes is None else self.quiet_minutes * 15

    def after(self, database: sqlite3.Connection, cursor: int, head: int) -> tuple[list[Notice], int]:
        """The next notices in order, and how far the events have been looked through with them."""
        rows = database.execute(TURNS, (cursor, self.on)).fetchall()
        until = rows[-1][0] if len(rows) == AT_ONCE else head
        crossings = database.execute(CROSSINGS, (cursor, until)).fetchall() if self.hears_of_budgets else []
        until = crossings[-1][0] if len(crossings) == AT_ONCE else until
        repeats, until = self.repeats(database, cursor, until) if self.times else ([], until)
        told = [turn_notice(row) for row in rows if row[0] <= until]
        told += [budget_notice(row) for row in crossings if row[0] <= until]
        return sorted([*told, *repeats], key=lambda notice: notice.cursor), until

    def repeats(self, database: sqlite3.Connection, cursor: int, until: int) -> tuple[list[Notice], int]:
        """Calls that were made once too often, and how far the events have been looked through for them."""
        calls = [ToolCall._make(row) for row in database.execute(NEXT_CALLS, (cursor, until))]
        found = [notice for call in calls if (notice := self.repeat(call, self.run_before(database, call)))]
        return found, calls[-1].cursor if len(calls) == AT_ONCE else until

    def repeat(self, call: ToolCall, run: Run) -> Notice | None:
        run.times = run.times + 1 if call.digest == run.digest else 1
        run.digest = call.digest
        if run.times != self.times:
            return None
        tool = readable(call.tool)
        return Notice(
            cursor=call.cursor,
            type="session.repeating",
            session_id=call.session_id,
            user_id=call.user_id,
            timestamp=call.timestamp,
            message=f"It has made the same call of {tool} {run.times} times, one after the other",
            details={"tool": tool, "times": run.times},
        )

    def run_before(self, database: sqlite3.Connection, call: ToolCall) -> Run:
        """As it was before this call; after a restart the calls before it tell."""
        agent = call.session_id, call.agent_id
        if run := self.runs.get(agent):
            return run
        rows = database.execute(CALLS_BEFORE, (call.session_id, call.cursor, call.agent_id, self.times)).fetchall()
        digests = [ToolCall._make(row).digest for row in rows]
        same = next((number for number, one in enumerate(digests) if one != digests[0]), len(digests))
        if len(self.runs) >= MAX_RUNS:
            self.runs.clear()
        run = self.runs[agent] = Run(digests[0] if digests else "", same)
        return run

    def quiet(self, database: sqlite3.Connection, now: float) -> list[Notice]:
        """Sessions that are active, and of which nothing has been heard for too long."""
        if self.quiet_minutes is None:
            return []
        rows = database.execute(QUIET, (text_of_time(now - 60 * self.quiet_minutes),)).fetchall()
        return [
            Notice(
                cursor=cursor,
                type="session.quiet",
                session_id=session_id,
                user_id=user_id,
                timestamp=heard,
                message=f"Nothing was heard of it for {self.quiet_minutes:g} minutes",
            )
            for cursor, session_id, user_id, heard in rows
        ]

    def pending(self, database: sqlite3.Connection, cursor: int) -> int:
        """How many turns it has not been told of."""
        ((number,),) = database.execute(PENDING, (cursor, self.on)).fetchall()
        return int(number)
