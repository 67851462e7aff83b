"""Read-only connections, and every query of the API. Answers are JSON text, as the views make it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite

from sessionstore.model import folds
from sessionstore.model.events import LOGS, now
from sessionstore.model.problems import Problem, invalid, no_session, unavailable
from sessionstore.store import search
from sessionstore.store.broadcaster import FeedItem
from sessionstore.store.resumption import ERRORS, FILES, KNOWN, completed
from sessionstore.store.schema import CHANGES_STATE, STATE_EVENTS_AFTER
from sessionstore.store.search import Narrowed
from sessionstore.store.selection import (
    ACTIVE,
    ALONG_CHANGES,
    COMMON,
    DETAILS,
    SESSIONS,
    Which,
    conditions,
    either,
    groups,
    one_of,
)
from sessionstore.store.turns import Turns
from sessionstore.text import for_people, shortened

CONNECTIONS = 3
DEADLINE = 5.0
"""Seconds after which a query is given up: a long reader keeps the log from being folded back into the database."""
PAGE_BYTES = 32 << 20
"""About how much one answer holds: events may have a megabyte each, and a page thousands of events."""
FOLDED_BYTES = 8 << 20
"""About how much of a state's events is held at once, where it is made as it was."""
FETCHED_AT_ONCE = 64
OPENS_ALL_FILES = "SELECT count(*) FROM sqlite_master"
"""SQLite would do that with the first query, when there may be no descriptor left for it."""
LOOKAHEAD = 10_000
"""How many cursors one page of a filtered list looks at before it answers with what it has."""

HEAD_AND_NEXT = """
SELECT coalesce(max(cursor), 0), (SELECT coalesce(min(cursor), 1) FROM events WHERE cursor > ?) FROM events"""
"""After a loss very many cursors in a row may have no event."""
LOOKED_AT = 5_000
"""How many of the events that have what is searched for are looked at, the newest."""
RANKED = 100
"""How many of these, the shortest, are read and ranked."""
SEARCHES_AT_ONCE = 2
"""Fewer than the connections, so that other queries always have one."""

Values = Sequence[object] | dict[str, object]


class Page(NamedTuple):
    """Some rows of a list: their JSON texts, and from where to go on (None: there is no more)."""

    documents: list[str]
    following: int | None

    def array(self) -> str:
        return f"[{','.join(self.documents)}]"


class Rows(NamedTuple):
    """The rows of a query, the JSON text first in each; `is_cut`: there were more than an answer holds."""

    rows: list[Any]
    is_cut: bool

    def page(self, limit: int) -> Page:
        """The first `limit` of them; what follows is the second column of the last."""
        rows = self.rows[:limit]
        more = self.is_cut or len(self.rows) > limit
        return Page([row[0] for row in rows], rows[-1][1] if rows and more else None)


class Items(NamedTuple):
    """Some events, and the last cursor that was looked at for them."""

    items: list[FeedItem]
    following: int


class SearchHit(NamedTuple):
    """What a search found, the best first, as JSON texts; and how many events have it, of those that it looked at."""

    items: list[str]
    total: int


class Reader:
    """A few read-only connections, lent to one query at a time."""

    def __init__(self, path: Path, connections: int = CONNECTIONS) -> None:
        self.path = path
        self.number = connections
        self.turns = Turns(connections)
        self.free: list[Deadlined] = []
        self.all: list[Deadlined] = []
        self.searching = Turns(SEARCHES_AT_ONCE)
        self.comparing = Turns(1)
        """Whoever compares what came of a session holds tens of megabytes of it."""
        self.mending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for _ in range(self.number):
            connection = Deadlined(await aiosqlite.connect(f"{self.path.as_uri()}?mode=ro", uri=True))
            self.all.append(connection)  # also one that cannot be used: its thread has to end
            await connection.prepare()
            self.free.append(connection)

    async def stop(self) -> None:
        await asyncio.gather(*self.mending, return_exceptions=True)
        for connection in self.all:
            await connection.close()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Deadlined]:
        await self.turns.take(1)
        connection = self.free.pop(0)
        connection.since = time.monotonic()
        try:
            yield connection
        except BaseException:
            task = asyncio.create_task(self.mend(connection))
            self.mending.add(task)
            task.add_done_callback(self.mending.discard)
            raise
        self.take_back(connection)

    async def mend(self, connection: Deadlined) -> None:
        """Its borrower has left in the middle: it is lent again once nothing of that is left."""
        try:
            await connection.clear()
        finally:
            self.take_back(connection)

    def take_back(self, connection: Deadlined) -> None:
        connection.since = None
        self.free.append(connection)
        self.turns.give(1)

    def oldest(self) -> float:
        """For how many seconds the query under way for longest has been."""
        now = time.monotonic()
        return max((now - connection.since for connection in self.all if connection.since is not None), default=0.0)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Deadlined]:
        """A connection whose queries all see the same moment."""
        async with self.lend() as connection:
            await connection.rows("BEGIN")
            yield connection
            await connection.rows("COMMIT")

    async def rows(self, query: str, values: Values = ()) -> list[Any]:
        """Raises Problem 503 past the deadline."""
        async with self.lend() as connection:
            return await connection.rows(query, values)

    async def some(self, query: str, values: Values = (), most: int = PAGE_BYTES) -> Rows:
        """As `rows`, but not more than an answer holds."""
        async with self.lend() as connection:
            return await connection.some(query, values, most)

    async def row(self, query: str, values: Values = ()) -> Any:
        rows = await self.rows(query, values)
        return rows[0] if rows else None

    # ------------------------------------------------------------ one session

    async def session(self, session_id: str, limit: int) -> dict[str, str]:
        """The members of GET /api/sessions/ID, each as JSON text; of each log the newest `limit` entries."""
        async with self.snapshot() as connection:
            found = await connection.rows(SESSION, {"id": session_id})
            if not found:
                raise no_session(session_id)
            metadata, initial, state, final, *totals = found[0]
            logs = [await connection.some(NEWEST, (session_id, log, limit), PAGE_BYTES // 2) for log in LOGS]
        members = {"metadata": metadata, "initial": initial, "state": state}
        for log, (rows, _) in zip(LOGS, logs, strict=True):
            members[f"{log}s"] = f"[{','.join(row[0] for row in reversed(rows))}]"
        members["final"] = final or "null"
        left_out = [total - len(rows) for total, (rows, _) in zip(totals, logs, strict=True)]
        if any(left_out):
            members["truncated"] = f'{{"actions":{left_out[0]},"responses":{left_out[1]}}}'
        return members

    async def resume(self, session_id: str) -> dict[str, str]:
        members = await self.session(session_id, 20)
        about: dict[str, object] = {"id": session_id}
        files, errors, known = [await self.rows(query, about) for query in (FILES, ERRORS, KNOWN)]
        return {
            "metadata": members["metadata"],
            "initial": members["initial"],
            "state": completed(members["state"], members["metadata"], files, errors, known[0]),
            "lastActions": members["actions"],
            "lastResponses": members["responses"],
        }

    async def metadata(self, session_id: str) -> str:
        row = await self.row("SELECT document FROM metadata WHERE session_id = ?", (session_id,))
        if row is None:
            raise no_session(session_id)
        return str(row[0])

    async def state(self, session_id: str) -> tuple[str, int]:
        """The state document and its version."""
        row = await self.row(
            "SELECT document, version FROM documents WHERE session_id = ? AND name = 'state'", (session_id,)
        )
        if row is None:
            raise no_session(session_id)
        return row[0], row[1]

    async def state_at(self, session_id: str, cursor: int) -> tuple[str, int]:
        """The state document as it was after the event `cursor`, and its version then."""
        created, after = await self.created(session_id), 0
        state: folds.Document = {}
        while True:
            rows, is_cut = await self.some(STATE_EVENTS_AFTER, (session_id, cursor, after), FOLDED_BYTES)
            events = [(kind, patch, data, timestamp) for data, kind, patch, timestamp, _ in rows]
            state = await asyncio.to_thread(folds.state_at, events, state)
            if not is_cut:
                break
            after = rows[-1][-1]
        if not state:
            raise Problem(404, f"The session {session_id!r} did not exist yet at cursor {cursor}")
        if created != await self.created(session_id):  # half of this was of another
            raise no_session(session_id)
        return folds.encode(state), state["version"]

    async def created(self, session_id: str) -> int:
        """The cursor with which it began. Raises Problem 404."""
        row = await self.row("SELECT created_cursor FROM sessions WHERE session_id = ?", (session_id,))
        if row is None:
            raise no_session(session_id)
        return int(row[0])

    async def known(self, session_id: str) -> None:
        await self.created(session_id)

    async def entries(
        self,
        session_id: str,
        log: str,
        *,
        limit: int,
        after: int | None,
        before: int | None,
        order: str,
        kinds: Sequence[str],
        agent_id: str | None,
    ) -> Page:
        """A page of a log (`action` or `response`) by seq; what follows is the seq to go on from."""
        await self.known(session_id)
        where, values = conditions(
            ("session_id = ?", session_id),
            ("log = ?", log),
            ("seq > ?", after),
            ("seq < ?", before),
            ("agent_id = ?", agent_id),
            one_of("kind", kinds),
        )
        rows = await self.some(
            f"SELECT document, seq FROM entries WHERE {where} ORDER BY seq {order} LIMIT ?", [*values, limit + 1]
        )
        return rows.page(limit)

    async def session_events(
        self,
        session_id: str,
        *,
        limit: int,
        after: int,
        before: int | None,
        order: str,
        types: Sequence[str] = (),
        kinds: Sequence[str] = (),
        agent_id: str | None = None,
        errors: bool = False,
        of_state: bool = False,
        brief: bool = False,
    ) -> Page:
        """A page of a session's timeline by cursor; what follows is the last cursor given. `brief` cuts long data;
        `of_state`: only what changed the state."""
        created = await self.created(session_id)
        where, values = conditions(
            ("e.session_id = ?", session_id),
            ("e.cursor > ?", max(after, created - 1)),
            ("e.cursor < ?", before),
            ("e.agent_id = ?", agent_id),
            one_of("e.type", types),
            one_of("e.kind", kinds),
            (IS_ERROR, [] if errors else None),
            (CHANGES_STATE, [] if of_state else None),
        )
        rows, _ = await self.some(
            "SELECT t.document, e.cursor FROM events e CROSS JOIN timeline t ON t.cursor = e.cursor"
            f" WHERE {where} ORDER BY e.cursor {order} LIMIT ?",
            [*values, limit],
        )
        documents = [row[0] for row in rows]
        if brief:
            documents = await asyncio.to_thread(lambda: [in_brief(document) for document in documents])
        return Page(documents, rows[-1][1] if rows else None)

    # ------------------------------------------------------------ all sessions

    async def sessions(self, which: Which, *, limit: int, before: int | None = None, details: bool = False) -> Page:
        """Metadata, newest change first; what follows is the cursor of the last one's newest event."""
        counts = await self.row(*which.counted()) if which.labels() else ()
        where, values = conditions(*which.terms(counts), ("s.last_cursor < ?", before))
        index = ALONG_CHANGES if counts and min(counts) == COMMON else ""
        query = SESSIONS.format(what=DETAILS if details else "m.document", where=where, index=index)
        rows = await self.some(query, [*values, limit + 1])
        page = rows.page(limit)
        return Page(list(map(fit_card, page.documents)), page.following) if details else page

    async def groups(self, by: str, which: Which) -> Page:
        """How many sessions each project, user, branch, host or tag has, by status, those with the most trouble first;
        `key` is null for what has none."""
        where, values = conditions(*which.terms())
        return Page([row[0] for row in await self.rows(groups(by, where), values)], None)

    async def sessions_of_user(self, user_id: str) -> Page:
        rows = await self.rows(
            "SELECT json_object('sessionId', session_id, 'userId', user_id, 'created', created)"
            " FROM sessions WHERE user_id = ? ORDER BY created_cursor DESC",
            (user_id,),
        )
        return Page([row[0] for row in rows], None)

    async def active(self, limit: int) -> Page:
        """The sessions that go on and what they are at, those that wait for a person first, the longest wait on top."""
        rows = await self.rows(ACTIVE, {"limit": limit})
        return Page([fit_card(row[0]) for row in rows], None)

    async def stats(self, now: str) -> str:
        """The counts of GET /api/query/stats, without the size of the database; `now` ends the last minute."""
        row = await self.row(STATS, {"now": now})
        return str(row[0])

    async def summary(self, now: str) -> str:
        """The members of GET /api/query/summary that the database has, without the last brace."""
        row = await self.row(SUMMARY, {"now": now})
        return str(row[0])[:-1]

    async def head(self) -> int:
        row = await self.row("SELECT coalesce(max(cursor), 0) FROM events")
        return int(row[0])

    async def events(self, **which: Any) -> Page:
        """As `items`, for a list."""
        found = await self.items(**which)
        return Page([item.text.decode() for item in found.items], found.following)

    async def items(
        self,
        *,
        after: int,
        limit: int,
        types: Sequence[str] = (),
        session_ids: Sequence[str] = (),
        user_ids: Sequence[str] = (),
        user_id: str | None = None,
    ) -> Items:
        """Events of all sessions after a cursor, in cursor order, and the last cursor looked at.

        `session_ids` and `user_ids`: what matches either; none: all. `user_id`: of
        these only the user's. One call looks at a bounded piece of the store, so it
        may find nothing and yet go on.
        """
        who, names = either(("session_id", session_ids), ("user_id", user_ids))
        async with self.lend() as connection:
            ((head, first),) = await connection.rows(HEAD_AND_NEXT, [after])
            until = first - 1 + LOOKAHEAD
            where, values = conditions(
                ("cursor > ?", after), ("cursor <= ?", until), ("user_id = ?", user_id), one_of("type", types)
            )
            rows, is_cut = await connection.some(
                f"SELECT CAST(document AS BLOB), cursor, type, session_id, user_id FROM timeline"
                f" WHERE {where} AND {who} ORDER BY cursor LIMIT ?",
                [*values, *names, limit],
            )
        found = [FeedItem(cursor, kind, session, user, text) for text, cursor, kind, session, user in rows]
        if is_cut or len(found) == limit:
            return Items(found, found[-1].cursor)
        last = found[-1].cursor if found else after
        return Items(found, max(last, min(until, head)))

    async def search(self, question: str, narrowed: Narrowed, *, limit: int, brief: bool = False) -> SearchHit:
        """Events that have what `question` asks for, best first."""
        sought = search.terms(question)
        if len(sought) > search.MAX_TERMS:
            raise invalid("$.q", f"must have at most {search.MAX_TERMS} words")
        if not sought:
            return SearchHit([], 0)
        where, values = conditions(
            ("e.session_id = ?", narrowed.session_id),
            ("e.user_id = ?", narrowed.user_id),
            ("e.agent_id = ?", narrowed.agent_id),
            one_of("e.type", narrowed.types),
            one_of("e.kind", narrowed.kinds),
            ("e.timestamp >= ?", narrowed.since),
            ("e.timestamp < ?", narrowed.until),
        )
        marks = list(narrowed.marks(now()))
        async with self.searching.of(), self.snapshot() as connection:
            for reading in search.readings(sought):
                found = [search.match_of(reading, marks), *values, LOOKED_AT, RANKED]
                chosen = await connection.rows(CHOSEN.format(where=where), found)
                if len(chosen) == RANKED:
                    break
            documents, _ = await connection.some(DOCUMENTS, (folds.encode([cursor for cursor, _ in chosen]),))
        found = [document for (document,) in documents]
        items = await asyncio.to_thread(best_first, found, reading, limit, in_brief if brief else str)
        return SearchHit(items, chosen[0][1] if chosen else 0)


class Deadlined:
    """One read-only connection whose queries, all of one loan together, end at a deadline."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection
        self.since: float | None = None
        """When it was lent; None: it is not."""
        self.until = 0.0

    async def prepare(self) -> None:
        for pragma in ("query_only = ON", "busy_timeout = 5000"):
            await self.connection.execute(f"PRAGMA {pragma}")
        await self.connection.set_progress_handler(self.is_late, 10_000)
        await self.connection.execute_fetchall(OPENS_ALL_FILES)

    def is_late(self) -> bool:
        return time.monotonic() > self.until

    async def rows(self, query: str, values: Values = ()) -> list[Any]:
        with self.deadline():
            return list(await self.connection.execute_fetchall(query, values))

    async def some(self, query: str, values: Values = (), most: int = PAGE_BYTES) -> Rows:
        """The rows up to about so many bytes, fetched a few at a time."""
        found: list[Any] = []
        size = 0
        with self.deadline():
            async with self.connection.execute(query, values) as cursor:
                while size <= most:
                    rows = list(await cursor.fetchmany(FETCHED_AT_ONCE))
                    found += rows
                    size += sum(len(row[0]) for row in rows)
                    if len(rows) < FETCHED_AT_ONCE:
                        return Rows(found, False)
        return Rows(found, True)

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Raises Problem 503 where the query takes too long, or the database cannot be read."""
        self.until = (self.since or time.monotonic()) + DEADLINE
        try:
            yield
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise unavailable("The query took too long: ask for less") from None
            raise unavailable(f"The database cannot be read now: {error}") from error

    async def clear(self) -> None:
        """End the query that is under way, and the transaction."""
        self.until = 0.0
        await self.connection.rollback()

    async def close(self) -> None:
        await self.connection.close()


# ------------------------------------------------------------ pieces of queries


def best_first(
    documents: list[str], sought: Sequence[search.Term], limit: int, shown: Callable[[str], str]
) -> list[str]:
    """The best of some events, each with the piece of it that was asked for."""
    texts = map(text_of_event, documents)
    within = search.looked_at(len(documents), sought)
    ranked = sorted(zip(texts, documents, strict=True), key=lambda found: -search.score(found[0], sought, within))
    within = search.looked_at(limit, sought)
    return [with_snippet(shown(document), search.snippet(text, sought, within)) for text, document in ranked[:limit]]


def text_of_event(document: str) -> str:
    """What was said in it: without the seq, which is the store's."""
    event = folds.decode(document)
    return search.line_of({**event["data"], "seq": None} if event["type"] in LOGS else event["data"])


def with_snippet(document: str, found: search.Snippet) -> str:
    return f'{{"event":{document},"snippet":{folds.encode(found.text)},"marked":{folds.encode(found.marked)}}}'


BRIEF = 300
"""Characters that are left of a text, and members and items of an object or a list, where they are cut."""
BRIEF_MEMBERS, BRIEF_ITEMS, BRIEF_DEPTH = 40, 5, 4


def in_brief(document: str) -> str:
    """An event with long parts of its data cut, so that a list of many is light; `brief` says that something was."""
    if len(document) <= 2 * BRIEF:
        return document
    event = folds.decode(document)
    short = event | {"data": cut(event["data"])}
    return document if short == event else folds.encode(short | {"brief": True})


def cut(value: Any, depth: int = BRIEF_DEPTH) -> Any:
    if isinstance(value, str):
        return shortened(value, BRIEF)
    if isinstance(value, dict):
        return {name: cut(value[name], depth - 1) for name in list(value)[: BRIEF_MEMBERS if depth else 0]}
    if isinstance(value, list):
        return [cut(item, depth - 1) for item in value[: BRIEF_ITEMS if depth else 0]]
    return value


UNFIT = re.compile(r"\\u00[01]|\\[bfr]|[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def fit_card(document: str) -> str:
    """A session's metadata as a list for people has it: what is quoted of an agent is made fit for them."""
    if not UNFIT.search(document):
        return document
    card = folds.decode(document)
    asked = card.get("attention")
    others = asked.get("others") if isinstance(asked, dict) else None
    for quoted in (card, card.get("lastAction"), card.get("end"), asked, *(others if isinstance(others, list) else ())):
        for name in ("lastPrompt", "lastNote", "text", "message", "error"):
            if isinstance(quoted, dict) and isinstance(quoted.get(name), str):
                quoted[name] = for_people(quoted[name])
    return folds.encode(card)


def document(name: str) -> str:
    return f"(SELECT document FROM documents WHERE session_id = :id AND name = '{name}')"


SESSION = f"""
SELECT m.document, {document("initial")}, {document("state")}, {document("final")},
  s.actions, s.responses
FROM metadata m JOIN sessions s ON s.session_id = m.session_id WHERE m.session_id = :id"""

NEWEST = "SELECT document FROM entries WHERE session_id = ? AND log = ? ORDER BY seq DESC LIMIT ?"

IS_ERROR = "(SELECT is_failed FROM verdicts v WHERE v.cursor = e.cursor)"
"""What went wrong."""

STATS = """
WITH RECURSIVE
  by_status AS (SELECT what, json_group_object(name, number) FILTER (WHERE number > 0) AS numbers,
                       sum(number) AS total
                FROM counts GROUP BY what),
  live(number) AS (SELECT coalesce(sum(number), 0) FROM counts
                   WHERE what = 'sessions' AND name IN ('active', 'waiting')),
  last_hour(back, minute) AS (
    SELECT 59, strftime('%Y-%m-%dT%H:%M', :now, '-59 minutes')
    UNION ALL SELECT back - 1, strftime('%Y-%m-%dT%H:%M', :now, '-' || (back - 1) || ' minutes')
    FROM last_hour WHERE back > 0)
SELECT json_object(
  'total', coalesce((SELECT total FROM by_status WHERE what = 'sessions'), 0),
  'active', (SELECT number FROM live),
  'completed', (SELECT coalesce(sum(number), 0) FROM counts WHERE what = 'sessions' AND name = 'completed'),
  'activeSessions', (SELECT json_group_array(session_id) FROM (
     SELECT session_id FROM (
       SELECT session_id FROM sessions, live
       WHERE number >= 100 AND +status IN ('active', 'waiting') ORDER BY last_cursor DESC LIMIT 100)
     UNION ALL SELECT session_id FROM (
       SELECT session_id FROM live CROSS JOIN sessions
       WHERE number < 100 AND status IN ('active', 'waiting') ORDER BY last_cursor DESC))),
  'completedSessions', (SELECT json_group_array(session_id) FROM (
     SELECT session_id FROM sessions WHERE ended IS NOT NULL AND status = 'completed' ORDER BY ended DESC LIMIT 10)),
  'sessions', json(coalesce((SELECT numbers FROM by_status WHERE what = 'sessions'), '{}')),
  'users', (SELECT count(*) FROM users),
  'actions', (SELECT coalesce(sum(number), 0) FROM counts WHERE what = 'events' AND name = 'action'),
  'responses', (SELECT coalesce(sum(number), 0) FROM counts WHERE what = 'events' AND name = 'response'),
  'goals', json(coalesce((SELECT numbers FROM by_status WHERE what = 'goals'), '{}')),
  'agents', json(coalesce((SELECT numbers FROM by_status WHERE what = 'agents'), '{}')),
  'events', coalesce((SELECT total FROM by_status WHERE what = 'events'), 0),
  'eventsToday', (SELECT coalesce(sum(events), 0) FROM minutes WHERE minute >= substr(:now, 1, 10)),
  'eventsPerMinute', (SELECT json_group_array(events) FROM (
     SELECT coalesce(m.events, 0) AS events FROM last_hour LEFT JOIN minutes m USING (minute) ORDER BY back DESC)))"""

SUMMARY = """
SELECT json_object(
  'cursor', (SELECT coalesce(max(cursor), 0) FROM events),
  'sessions', json(coalesce((SELECT json_group_object(name, number) FROM counts
                             WHERE what = 'sessions' AND number > 0), '{}')),
  'eventsToday', (SELECT coalesce(sum(events), 0) FROM minutes WHERE minute >= substr(:now, 1, 10)),
  'eventsLastMinute', coalesce((SELECT events FROM minutes
                                WHERE minute = strftime('%Y-%m-%dT%H:%M', :now, '-1 minutes')), 0),
  'waiting', (SELECT json_group_array(json_object(
       'sessionId', chosen.session_id, 'userId', chosen.user_id, 'since', chosen.since,
       'title', (SELECT substr(d.document ->> '$.title', 1, 200) FROM documents d
                 WHERE d.session_id = chosen.session_id AND d.name = 'metadata'),
       'project', (SELECT substr(l.project, 1, 200) FROM labels l WHERE l.session_id = chosen.session_id),
       'reason', substr(chosen.document ->> '$.reason', 1, 200),
       'message', substr(chosen.document ->> '$.message', 1, 300)))
     FROM (SELECT s.session_id, s.user_id, a.since, a.document
           FROM sessions s CROSS JOIN attention a ON a.session_id = s.session_id
           WHERE s.status = 'waiting' ORDER BY a.since LIMIT 50) chosen))"""
"""What a fleet asks every other second: little."""

CHOSEN = """
SELECT cursor, count(*) OVER ()
FROM (SELECT e.cursor, size.sz
      FROM search s CROSS JOIN events e ON e.cursor = s.rowid CROSS JOIN search_docsize size ON size.id = s.rowid
      WHERE search MATCH ? AND {where}
        AND NOT EXISTS (SELECT 1 FROM purges p WHERE p.session_id = e.session_id AND e.cursor < p.cursor)
      ORDER BY s.rowid DESC LIMIT ?)
ORDER BY sz, cursor DESC LIMIT ?"""
"""The shortest of the newest: the more there is beside what was asked for, the less it is about that. FTS5 keeps
the numbers of words as varints, which sort as they stand. Its own ranking counts each word in the whole index first."""

DOCUMENTS = """
SELECT t.document FROM json_each(?) chosen CROSS JOIN timeline t ON t.cursor = chosen.value ORDER BY t.cursor DESC"""
