"""Alert rules over sessions: those that wait or no longer do, are lost or failed, stand still or go in circles.

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
CALLS = ("tool_call", "mcp_call", "bash_exec")
"""The types of actions that are calls."""
OF_ONE_CALL = ("toolUseId", "timestamp", "agentId", "prompt_id")
"""Members in which two calls differ that are the same."""

TURN = """
SELECT t.cursor, t.session_id, t.status, e.user_id, e.timestamp, e.data,
       CASE WHEN t.status = 'waiting' AND (EXISTS (SELECT 1 FROM ended_asks WHERE cursor = t.cursor)
         OR EXISTS (SELECT 1 FROM asks WHERE cursor = t.cursor AND reason <> 'input')) THEN e.event_id END
FROM status_changes t JOIN events e USING (cursor)"""
TURNS = f"""{TURN}
WHERE t.cursor > ? AND t.status IN (SELECT value FROM json_each(?)) ORDER BY t.cursor LIMIT {AT_ONCE}"""
SAME_TURNS = f"{TURN} WHERE t.cursor IN (SELECT value FROM json_each(?))"
OPEN_ASKS = "SELECT cursor FROM asks WHERE cursor IN (SELECT value FROM json_each(?))"
ENDED_ASKS = """
SELECT a.cursor, a.session_id, a.status, a.ended, w.timestamp, w.actor, o.user_id, o.event_id, o.data
FROM ended_asks a JOIN events w ON w.cursor = a.ended JOIN events o ON o.cursor = a.cursor
WHERE a.cursor IN (SELECT value FROM json_each(?)) ORDER BY a.ended, a.cursor"""
CROSSINGS = f"""
SELECT e.cursor, e.session_id, e.user_id, e.timestamp, e.data FROM budget_crossings b JOIN events e USING (cursor)
WHERE b.cursor > ? AND b.cursor <= ? ORDER BY b.cursor LIMIT {AT_ONCE}"""
PENDING = "SELECT count(*) FROM status_changes WHERE cursor > ? AND status IN (SELECT value FROM json_each(?))"
CALL = f"""
SELECT cursor, session_id, coalesce(agent_id, ''), user_id, timestamp, coalesce(data ->> '$.tool', kind),
       coalesce(data -> '$.input', json_remove(data, {", ".join(f"'$.{name}'" for name in OF_ONE_CALL)}))
FROM events WHERE type = 'action' AND kind IN {CALLS!r}"""
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
    ask: int = 0
    """Cursor of the ask that it is about; 0: it is about none."""
    ask_id: str = ""

    @property
    def name(self) -> str:
        """The same whenever it is told; another for any other notice."""
        whole = f"{self.cursor} {self.type} {self.session_id} {self.timestamp}"
        return name_of(f"{whole} {self.ask}" if self.occasion == "answered" else whole)

    @property
    def occasion(self) -> str:
        """One of webhook_targets.Urgent."""
        return self.type.removeprefix("session.") if self.type.startswith("session.") else "budget"

    @property
    def is_a_turn(self) -> bool:
        return self.occasion in ("waiting", "failed", "lost")

    @property
    def is_told_anew(self) -> bool:
        """Whether what it says, which agents did, is in the database, and need not be kept elsewhere."""
        return self.is_a_turn or self.occasion == "answered"


def name_of(whole: str) -> str:
    return f"msg_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def turn_notice(row: tuple[Any, ...]) -> Notice:
    """A session that came to a status at which somebody should look."""
    cursor, session_id, status, user_id, timestamp, text, ask_id = row
    data = decode(text)
    attention = attention_in(data)
    said = {
        "waiting": asked_in(data),
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
        ask=cursor if ask_id else 0,
        ask_id=ask_id or "",
    )


def attention_in(data: Document) -> Document:
    attention = data.get("attention")
    return attention if isinstance(attention, dict) else {}


def asked_in(data: Document) -> Any:
    return attention_in(data).get("message") or "It waits for a person"


def ended_notice(row: tuple[Any, ...]) -> Notice:
    """An ask that nobody needs to answer any more."""
    ask, session_id, status, cursor, timestamp, actor, user_id, ask_id, text = row
    return Notice(
        cursor=cursor,
        type="session.answered",
        session_id=session_id,
        user_id=user_id,
        timestamp=timestamp,
        message=shortened(f"{how_ended(status, actor)}: {readable(asked_in(decode(text)))}", MESSAGE_LENGTH),
        details={"askId": ask_id, "status": status, "answeredBy": actor or None if status == "answered" else None},
        ask=ask,
        ask_id=ask_id,
    )


def how_ended(status: str, actor: str | None) -> str:
    if status != "answered":
        return "No longer waits"
    return f"Answered by {shortened(for_people(actor, is_one_line=True), 100)}" if actor else "Answered"


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
    unpriced = said.get("unpricedRequests", 0) if said["unit"] == "usd" else 0
    more = f", and {unpriced:,} request{'s' if unpriced > 1 else ''} unpriced" if unpriced else ""
    return f"The budget {said['name']}{whose}: {spent} of {limit} used{more}"


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
        self.hears_of_answers = "answered" in target.on
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

    def ended(self, database: sqlite3.Connection, told: list[int]) -> tuple[list[Notice], list[int]]:
        """What has become of the asks with these cursors, of which it was told; and those that are still open."""
        if not told:
            return [], []
        cursors = msgspec.json.encode(told).decode()
        is_open = [cursor for (cursor,) in database.execute(OPEN_ASKS, (cursors,))]
        return [ended_notice(row) for row in database.execute(ENDED_ASKS, (cursors,))], sorted(is_open)

    def as_it_stands(self, database: sqlite3.Connection, held: list[Notice]) -> list[Notice]:
        """The same with their texts, as far as their sessions are still there; what is answered already says so."""
        cursors = msgspec.json.encode([notice.cursor for notice in held if notice.is_a_turn]).decode()
        turns = {row[0]: turn_notice(row) for row in database.execute(SAME_TURNS, (cursors,))}
        asks = msgspec.json.encode([notice.ask for notice in held if notice.ask]).decode()
        ended = {row[0]: ended_notice(row) for row in database.execute(ENDED_ASKS, (asks,))}
        found = []
        for notice in held:
            if notice.ask in ended:
                found.append(ended[notice.ask])
            elif notice.cursor in turns and notice.is_a_turn:
                found.append(turns[notice.cursor])
            elif not notice.is_told_anew:
                found.append(notice)
        return found

    def pending(self, database: sqlite3.Connection, cursor: int) -> int:
        """How many turns it has not been told of."""
        ((number,),) = database.execute(PENDING, (cursor, self.on)).fetchall()
        return int(number)
