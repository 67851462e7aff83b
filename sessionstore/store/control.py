"""Asks, answers and orders in the database: queries, and work for the writer.

What is offered to an agent's side is read here, as it stands; who has been offered what, and who waits, is known in
memory alone (upkeep/outbox.py): after a restart all that is open is offered again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from sessionstore.model.control import Answer, answered, check_answer
from sessionstore.model.events import Draft
from sessionstore.model.folds import Document, decode, encode
from sessionstore.model.problems import Problem, invalid, no_session
from sessionstore.model.redaction import Redactor
from sessionstore.store.appender import Appended, Appender

# -------------------------------------------------------------------------- asks

KIND = """
CASE WHEN 'interrupt' IN (o.kind, t.kind) THEN 'interrupt' WHEN 'elicitation' IN (o.kind, t.kind) THEN 'elicitation'
     WHEN a.reason IN ('permission', 'plan', 'budget', 'interrupt', 'elicitation') THEN a.reason ELSE 'question' END"""
ANSWER = """
(SELECT json_object('answerId', x.event_id, 'decision', x.data ->> '$.decision', 'message', x.data ->> '$.message',
                    'answers', json(x.data -> '$.answers'), 'input', json(x.data -> '$.input'),
                    'by', nullif(x.actor, ''), 'at', x.timestamp, 'status', r.status, 'settledAt', f.timestamp)
 FROM events x LEFT JOIN orders r ON r.cursor = x.cursor LEFT JOIN events f ON f.cursor = r.settled
 WHERE x.cursor = a.ended AND x.type = 'answered')"""
DOCUMENT = f"""
json_object('askId', o.event_id, 'sessionId', a.session_id, 'userId', s.user_id, 'project', l.project,
            'agentId', a.agent_id, 'kind', {KIND},
            'tool', coalesce(t.data ->> '$.tool', t.data ->> '$.attention.tool', o.data ->> '$.tool'),
            'input', json(coalesce(t.data -> '$.input', o.data -> '$.input', t.data -> '$.requested_schema',
                                   t.data -> '$.interrupts')),
            'text', coalesce(CAST(t.data ->> '$.attention.message' AS TEXT), ''),
            'options', json(coalesce(t.data -> '$.attention.options', o.data -> '$.attention.options', '[]')),
            'toolUseId', a.tool_use_id, 'since', o.timestamp, 'deadline', a.deadline, 'status', a.status,
            'endedBy', (SELECT coalesce(x.kind, x.type) FROM events x WHERE x.cursor = a.ended),
            'answer', json({ANSWER}))"""
STANDING = f"""
a.cursor, a.session_id, o.event_id, {KIND}, a.reason, a.agent_id, a.status,
(SELECT coalesce(x.kind, x.type) FROM events x WHERE x.cursor = a.ended),
(SELECT x.timestamp FROM events x WHERE x.cursor = a.ended), (SELECT x.actor FROM events x WHERE x.cursor = a.ended)"""
COLUMNS = "cursor, session_id, told, agent_id, reason, tool_use_id, deadline"
TABLES = {
    "open": f"(SELECT {COLUMNS}, NULL AS ended, 'open' AS status FROM asks WHERE reason <> 'input')",
    "ended": f"(SELECT {COLUMNS}, ended, status FROM ended_asks)",
}


def asks(what: str, where: str, *, of: Iterable[str] = TABLES, around: str = "") -> str:
    """A query of asks (a), of those that are open, of those that have ended; o is what asked first, t what told most.
    Both tables have them in the order of their cursors: none is sorted."""
    return " UNION ALL ".join(
        f"SELECT * FROM (SELECT {what} FROM {TABLES[name]} a CROSS JOIN events o ON o.cursor = a.cursor"
        f" CROSS JOIN events t ON t.cursor = a.told CROSS JOIN sessions s ON s.session_id = a.session_id"
        f" CROSS JOIN labels l ON l.session_id = a.session_id WHERE {where} {around})"
        for name in of
    )


LISTED = f"{DOCUMENT} AS document, a.cursor, a.session_id, a.status, a.reason"
NAMED = "SELECT ask FROM named_asks WHERE event_id = :name AND (:session IS NULL OR session_id = :session)"
FOUND = asks(STANDING, f"a.cursor IN ({NAMED})")
"""The asks that an event of this name, in this session or any, has told of: rows of Ask."""
AWAITED = asks(
    STANDING,
    f"""a.cursor IN ({NAMED} UNION SELECT cursor FROM asks WHERE session_id = :session AND tool_use_id = :at
                UNION SELECT cursor FROM ended_asks WHERE session_id = :session AND tool_use_id = :at)""",
)
"""The same of one that waits in a session, and may also say of which call."""


class Ask(NamedTuple):
    """What is asked, and how that stands."""

    cursor: int
    session_id: str
    ask_id: str
    kind: str
    reason: str
    agent_id: str | None
    status: Literal["open", "answered", "closed"]
    ended_by: str | None
    ended_at: str | None
    actor: str | None


def asks_named(connection: sqlite3.Connection, ask_id: str, session_id: str | None) -> list[Ask]:
    """Those of this id, which sessions may have in common."""
    return [Ask(*row) for row in connection.execute(FOUND, {"name": ask_id, "session": session_id})]


def one_ask(found: Sequence[Ask], ask_id: str) -> Ask:
    """The one that is meant, which is the one that is open. Raises Problem 404, 409."""
    if not found:
        raise Problem(404, f"There is no ask {ask_id!r}")
    is_open = [ask for ask in found if ask.status == "open"]
    if len(is_open) > 1:
        raise Problem(409, f"{len(is_open)} sessions have an open ask {ask_id!r}: say sessionId")
    return is_open[0] if is_open else max(found, key=lambda ask: ask.cursor)


def not_open(ask: Ask) -> Problem:
    """409: somebody was faster, who, and when; or it is not asked any more."""
    if ask.status == "answered":
        members = {"answeredBy": ask.actor or None, "at": ask.ended_at}
        return Problem(409, f"{ask.actor or 'Somebody'} has answered the ask {ask.ask_id!r} already", members=members)
    members = {"endedBy": ask.ended_by, "at": ask.ended_at}
    return Problem(409, f"The ask {ask.ask_id!r} is not open any more: {ask.ended_by}", members=members)


class GiveAnswer:
    """Work: answer an ask, if it is open. Raises Problem 404, 409, 422."""

    def __init__(self, ask: Ask, answer: Answer, draft: Draft, redactor: Redactor) -> None:
        self.ask = ask
        self.answer = answer
        self.draft = draft
        check_answer(answer, ask.kind)
        draft.data = answered(answer, ask.ask_id)
        check_whole(draft.data, redactor)
        self.order = draft_that_follows(ask, answer, draft)
        if self.order is not None:
            redactor(self.order)

    def __call__(self, appender: Appender) -> Appended:
        appender.insert_entries()
        if not is_known(appender, self.draft):
            ask = one_ask(asks_named(appender.connection, self.ask.ask_id, self.ask.session_id), self.ask.ask_id)
            if ask.status != "open":
                raise not_open(ask)
        appended = appender.append(self.draft)
        if self.order is not None and not appended.duplicate:
            appender.append(self.order)
        return appended


def draft_that_follows(ask: Ask, answer: Answer, draft: Draft) -> Draft | None:
    """What carries out the answer to a budget's ask, or a rule's: what is paused goes on, or is stopped."""
    if ask.reason != "budget":
        return None
    data: Document = {"order": "release", "releases": ask.ask_id}
    if answer.decision == "deny":
        data = {"order": "stop", "text": answer.message or "It may not go on"}
    return Draft(type="ordered", session_id=ask.session_id, actor=draft.actor, by=draft.by, data=data)


def check_whole(data: Document, redactor: Redactor) -> None:
    """Raises Problem 422 for what would reach the agent otherwise than as it was said: secrets are not stored."""
    for name in ("answers", "input"):
        part: Document = {name: data[name]} if name in data else {}
        if part and redactor.data(part) != part:
            raise invalid(f"$.{name}", "holds what looks like a secret: it is not stored, and so not handed on")
        if "[redacted:" in encode(part):
            raise invalid(f"$.{name}", "holds what stands for a secret that was not stored: the agent said another")


# ------------------------------------------------------------------------ orders

ORDER = """
SELECT json_object('orderId', r.order_id, 'sessionId', r.session_id, 'userId', s.user_id, 'order', r.kind,
                   'text', x.data ->> '$.text', 'agentId', r.agent_id, 'releases', x.data ->> '$.releases',
                   'expires', r.expires, 'by', nullif(x.actor, ''), 'since', x.timestamp, 'status', r.status,
                   'isOpen', json(iif(r.is_open, 'true', 'false')), 'settledAt', f.timestamp,
                   'at', f.data ->> '$.at', 'why', coalesce(f.data ->> '$.reason', f.data ->> '$.why', iif(
                     r.status IN ('waiting', 'delivered'), NULL, f.type))), r.cursor
FROM orders r CROSS JOIN events x ON x.cursor = r.cursor LEFT JOIN events f ON f.cursor = r.settled
CROSS JOIN sessions s ON s.session_id = r.session_id CROSS JOIN labels l ON l.session_id = r.session_id
WHERE r.kind <> 'answer' AND {where} ORDER BY r.cursor DESC LIMIT ?"""
"""The newest first: the document, the cursor."""
STATUS = "SELECT status FROM sessions WHERE session_id = ?"
PAUSE = "SELECT is_open FROM orders WHERE session_id = ? AND order_id = ? AND kind = 'pause'"
PAUSED = "SELECT session_id FROM orders WHERE order_id = ? AND kind = 'pause' AND is_open"
OVER = ("completed", "failed", "cancelled", "lost")


class GiveOrder:
    """Work: order something of a session. Raises Problem 404, and 409 where it is over, or nothing is released."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __call__(self, appender: Appender) -> Appended:
        appender.insert_entries()
        if not is_known(appender, self.draft):
            self.check(appender.connection)
        return appender.append(self.draft)

    def check(self, connection: sqlite3.Connection) -> None:
        session_id, releases = self.draft.session_id, self.draft.data.get("releases")
        row = connection.execute(STATUS, (session_id,)).fetchone()
        if row is None:
            raise no_session(session_id)
        if row[0] in OVER:
            raise unreachable(f"The session {session_id!r} is {row[0]}")
        if releases is not None:
            pause = connection.execute(PAUSE, (session_id, releases)).fetchone()
            if pause is None:
                raise Problem(404, f"There is no pause {releases!r} in this session")
            if not pause[0]:
                raise Problem(409, f"The pause {releases!r} is released already, or has expired")


class GiveOrders:
    """Work: the same of many sessions; which of them take it."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts

    def __call__(self, appender: Appender) -> list[str]:
        taken = []
        for draft in self.drafts:
            with suppress(Problem):
                GiveOrder(draft)(appender)
                taken.append(draft.session_id)
        return taken


def tripped(session_id: str, then: str, actor: str, order_id: str, text: str) -> Draft:
    """What a budget or a rule orders: a stop, a pause, or (`ask`) a pause that a person is asked about."""
    data: Document = {"order": "stop" if then == "stop" else "pause", "text": text}
    if then == "ask":
        data["attention"] = {"reason": "budget", "message": text, "id": order_id}
    draft = Draft(type="ordered", session_id=session_id, event_id=order_id, actor=actor, data=data)
    draft.names_something = draft.is_same_by_id = True
    return draft


def unreachable(why: str) -> Problem:
    return Problem(409, f"{why}: an order would not reach it", members={"reach": "none"})


def is_known(appender: Appender, draft: Draft) -> bool:
    """Whether this is said again."""
    if draft.event_id is None:
        return False
    return appender.event("session_id = ? AND event_id = ?", draft.session_id, draft.event_id) is not None


# ------------------------------------------------------------------------- poll

WRITTEN_BY = """
SELECT s.session_id, s.user_id, (SELECT document ->> '$.project' FROM documents d
                                 WHERE d.session_id = s.session_id AND d.name = 'metadata'),
  EXISTS (SELECT 1 FROM events e WHERE e.cursor = s.created_cursor AND (e.actor IS NULL OR e.actor = :actor))
  OR EXISTS (SELECT 1 FROM (SELECT actor FROM events e WHERE e.session_id = s.session_id
                            ORDER BY e.cursor DESC LIMIT 500) WHERE actor = :actor)
FROM sessions s WHERE s.session_id = :id"""
"""Whose a session is, and whether a token has written it: has begun it, or is among those who wrote last."""

ITEM = """
SELECT r.cursor, r.order_id, r.kind, r.agent_id, r.about, r.expires, r.status, x.data, x.actor, p.order_id, o.event_id
FROM orders r CROSS JOIN events x ON x.cursor = r.cursor LEFT JOIN orders p ON p.cursor = r.about AND r.kind = 'release'
LEFT JOIN events o ON o.cursor = r.about AND r.kind = 'answer'"""
OPEN_ITEMS = f"""
{ITEM} WHERE r.session_id = :id AND r.is_open AND (r.expires IS NULL OR r.expires > :now)
  AND (r.kind <> 'answer' OR r.about = :ask)
  AND (r.agent_id IS NULL OR :agent IS NULL OR r.agent_id = :agent)
UNION ALL
{ITEM} WHERE r.session_id = :id AND r.kind = 'release' AND NOT r.is_open
  AND p.order_id IN (SELECT value FROM json_each(:done))
ORDER BY 1 LIMIT 100"""
"""What there is to carry out; a release also for whoever says that he is held by what it frees."""


class Item(NamedTuple):
    """An order, or an answer, that is offered."""

    cursor: int
    item_id: str
    kind: str
    agent_id: str | None
    about: int | None
    expires: str | None
    status: str
    data: str
    actor: str | None
    releases: str | None
    ask_id: str | None

    def document(self) -> Document:
        said, by = decode(self.data), self.actor or None
        if self.kind == "answer":
            told = {name: said[name] for name in ("decision", "message", "answers", "input") if name in said}
            return {"id": self.item_id, "kind": "answer", "askId": self.ask_id, **told, "by": by}
        told = {"text": said.get("text"), "agentId": self.agent_id, "releases": said.get("releases")}
        told = {name: value for name, value in told.items() if value is not None}
        return {"id": self.item_id, "kind": "order", "order": self.kind, **told, "expires": self.expires, "by": by}


SETTLED = """
SELECT o.status, f.cursor FROM orders o LEFT JOIN events f ON f.cursor = o.settled
WHERE o.session_id = ? AND o.order_id = ?"""


class Settle:
    """Work: what the agent's side says that became of what it was offered. The same again changes nothing."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.drafts = drafts

    def __call__(self, appender: Appender) -> int:
        appender.insert_entries()
        settled = 0
        for draft in self.drafts:
            row = appender.connection.execute(SETTLED, (draft.session_id, draft.data["orderId"])).fetchone()
            able = ("waiting", "expired") if draft.type == "order_delivered" else ("waiting",)
            if row and row[0] in able:
                appender.append(draft)
                settled += 1
        return settled


def settlements(
    session_id: str, done: Sequence[str], refused: Document, more: Document, sign: Callable[[Draft], None]
) -> list[Draft]:
    """The drafts of what a call says that was carried out, or refused."""
    drafts = [Draft(type="order_delivered", session_id=session_id, data={"orderId": one, **more}) for one in done]
    drafts += [
        Draft(type="order_closed", session_id=session_id, data={"orderId": one, "why": "refused", "reason": why[:500]})
        for one, why in refused.items()
    ]
    for draft in drafts:
        sign(draft)
    return drafts


DUE = """
SELECT 'order_closed', session_id, order_id FROM orders WHERE is_open AND expires IS NOT NULL AND expires <= :now
UNION ALL
SELECT 'ask_closed', a.session_id, o.event_id FROM asks a CROSS JOIN events o ON o.cursor = a.cursor
WHERE a.deadline IS NOT NULL AND a.deadline <= :now LIMIT 500"""
"""What was to be carried out, or answered, by now: the type of the event that says so, the session, the id."""
