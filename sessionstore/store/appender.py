"""Appending one event: who exists, which seq, which id, what was said before.

`append` is a plain function of a connection and a draft. It decides what the
event becomes (who exists, which seq, which id), and inserts it; the triggers of
schema.sql do the rest. It may be called only inside a transaction, by the one
connection that writes.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from sessionstore.model import coercion, delegations, endings, folds
from sessionstore.model.events import (
    LOGS,
    NEW_SESSIONS,
    STATE_TYPES,
    UNKNOWN_USER,
    Draft,
    Event,
    is_absurd,
    known_id,
)
from sessionstore.model.folds import DONE, Document, encode
from sessionstore.model.metadata import fit_for_metadata
from sessionstore.model.problems import Problem, fault, invalid, moved, no_session
from sessionstore.model.retries import is_same
from sessionstore.model.rights import Right
from sessionstore.prices import Prices
from sessionstore.store import rights
from sessionstore.store.maintenance import purge
from sessionstore.store.pace import Pace
from sessionstore.store.schema import OF_STATE

logger = logging.getLogger(__name__)


COLUMNS = ", ".join(Event.__struct_fields__)
ROW = f"({', '.join('?' for _ in Event.__struct_fields__)})"
MAX_ROWS = 64
INSERTS = [f"INSERT INTO events ({COLUMNS}) VALUES {', '.join([ROW] * number)}" for number in range(MAX_ROWS + 1)]
"""The one statement that changes anything, for so many rows; each is compiled once."""

MAX_TRUSTED = 256
"""Drafts of a transaction that are done twice if one of them turns out to be there already."""

values_of = msgspec.structs.astuple
replace = msgspec.structs.replace
MAX_SESSIONS_KNOWN = 10_000
USED_IDS = """
SELECT e.session_id, e.event_id FROM json_each(?) wanted
JOIN events e ON e.session_id = wanted.value ->> 0 AND e.event_id = wanted.value ->> 1"""
MOVED_TO = """
SELECT data ->> '$.movedTo' FROM events WHERE session_id = ? AND seq IS NULL AND type = 'session_deleted'
ORDER BY cursor DESC LIMIT 1"""
STATE_VERSION = f"SELECT count(*) FROM events e {OF_STATE}"
RECORD_EVENTS = {
    table: f"""
SELECT type, patch, data, timestamp FROM events e {OF_STATE}
  AND (type = 'session_created'
       OR type = 'state_updated' AND (patch = 'replace' OR json_type(data, '$.{table}') IS NOT NULL)
       OR type = '{begins}' AND data ->> '$.{key}' = ? OR type IN ({others}) AND data ->> '$.{other_key}' = ?
       OR type IN ('session_finalized', 'metadata_updated'))
ORDER BY cursor"""
    for table, begins, key, others, other_key in (
        ("goals", "goal_added", "id", "'goal_updated'", "goalId"),
        ("agents", "agent_spawned", "agentId", "'agent_updated', 'agent_completed'", "agentId"),
    )
}
"""Those of them that have to do with one goal or agent; values: session id, cursor, its id, and again."""

MAX_DOCUMENT = 4 << 20
"""Characters of a session's state or metadata beyond which they take no change."""


DISK_ERRORS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
"""What no single write is to blame for."""


def is_of_the_disk(error: Exception) -> bool:
    """Whether the whole transaction is in doubt."""
    if not isinstance(error, sqlite3.Error):
        return False
    code: int | None = getattr(error, "sqlite_errorcode", None)  # none: the connection itself cannot be used
    return code is None or code & 0xFF in DISK_ERRORS


def unstorable(error: Exception) -> Problem:
    if isinstance(error, sqlite3.IntegrityError):
        return Problem(422, f"The store cannot hold this: {error}")
    return fault()


class Appended(NamedTuple):
    """What became of a draft: the event as stored, and what the answer to the caller needs besides."""

    event: Event
    duplicate: bool = False
    version: int | None = None
    """The version of the state, where the event changed it."""
    record: Document | None = None
    """The goal or agent as it is after the event."""


class KnownSession(msgspec.Struct):
    """What the next event of a session has to know about it."""

    user_id: str
    is_implicit: bool
    actions: int
    responses: int
    goals: int
    agents: int


class EntryRefused(Exception):
    """The database refused entries that were put off; none of the transaction is stored."""


class Appender:
    """Appends drafts on the one connection that writes; knows the clock, the ids and the newest cursor.

    An entry of a log needs nothing but its place, and that is known here: entries
    are put off and inserted many to a statement, because each statement gives the
    interpreter away and waits to have it back. A transaction of nothing else is
    one INSERT, which SQLite commits by itself.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        clock: Callable[[], str],
        ids: Iterator[str],
        auto_create: bool = True,
        used: int = 0,
        redacted: Callable[[Document], Document] = lambda data: data,
        prices: Prices | None = None,
        tally: Counter[str] | None = None,
        keep: Callable[[list[Event]], None] | None = None,
    ) -> None:
        self.connection = connection
        self.clock = clock
        self.ids = ids
        self.auto_create = auto_create
        self.used = used
        """Cursors up to here are never given, though the database may end below: what had them is lost."""
        self.redacted = redacted
        """What becomes of data that is stored now; it was stored as it came if that was before secrets were removed."""
        self.prices = prices or Prices()
        self.tally: Counter[str] = Counter() if tally is None else tally
        """Drafts that were not stored: `duplicate`, or the status of what was wrong with them."""
        self.keep = keep
        """Called with what is new before it is committed; if it raises, nothing is."""
        self.untold: Counter[str] = Counter()
        """The same of this transaction, which may have to be run again."""
        self.buffers = True
        """False: every entry is inserted at once, so that one that is refused fails alone."""
        self.is_open = False
        """Whether SQLite has been told to begin."""
        self.fresh: list[Event] = []
        self.pace = Pace()
        self.beginners: list[Right] = []
        """By whose right sessions were begun in this transaction."""
        self.reload()

    # ---- transactions

    def begin(self) -> None:
        """What is appended from now on is committed together. SQLite hears of it when there is more than entries."""
        self.received_at = self.clock()
        self.has_purged = False
        self.pace.begin(self.received_at)

    def open_transaction(self) -> None:
        if not self.is_open:
            self.connection.execute("BEGIN IMMEDIATE")
            self.is_open = True

    @property
    def is_undone(self) -> bool:
        """Whether SQLite has rolled back by itself."""
        return self.is_open and not self.connection.in_transaction

    def commit(self) -> list[Event]:
        """Put everything on disk; the events that are new, in cursor order. Raises EntryRefused."""
        if len(self.entries) > MAX_ROWS or (self.keep is not None and self.entries):
            self.open_transaction()
        self.insert_rows()
        if self.keep is not None and self.fresh:
            self.keep(self.fresh)
        if self.is_open:
            self.connection.execute("COMMIT")
            self.is_open = False
        events, self.fresh = self.fresh, []
        self.unused_ids.clear()
        self.tally.update(self.untold)
        self.untold.clear()
        self.pace.commit()
        self.beginners.clear()
        return events

    def rollback(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.is_open = False
        for right in self.beginners:
            right.created -= 1
        self.beginners.clear()
        self.reload()

    def reload(self) -> None:
        """Know nothing but what the database has."""
        self.cursor, self.searched = self.connection.execute(
            "SELECT coalesce((SELECT max(cursor) FROM events), 0), searched FROM progress"
        ).fetchone()
        self.cursor = max(self.cursor, self.used)
        (self.is_purging,) = self.connection.execute("SELECT EXISTS (SELECT 1 FROM purges)").fetchone()
        """Whether there may be events of deleted sessions."""
        self.has_purged = False
        """Whether some of them have been removed in this transaction."""
        self.received_at = self.clock()
        self.fresh = []
        self.untold.clear()
        self.unused_ids: set[tuple[str, str]] = set()
        self.entries: list[Event] = []
        self.entry_ids: set[tuple[str, str]] = set()
        self.sessions: dict[str, KnownSession] = {}

    # ---- appending

    def note_event_ids(self, drafts: Sequence[Draft], *, trusts: bool) -> None:
        """Find out in one query which of the drafts' eventIds nobody has used, so that they need not be asked for.

        `trusts`: a few entries of sessions that are known need no query, for the query takes as long as much of the
        rest. They are taken to be new, as they nearly always are; the database refuses what is not, and all of the
        transaction with it.
        """
        wanted = {(draft.session_id, draft.event_id) for draft in drafts if draft.event_id is not None}
        if trusts and len(drafts) <= MAX_TRUSTED and all(map(self.is_entry_of_known, drafts)):
            self.unused_ids = wanted
        elif len(wanted) > 1:
            used = self.connection.execute(USED_IDS, (encode(list(wanted)),)).fetchall()
            self.unused_ids = wanted.difference(used) - self.entry_ids

    def is_entry_of_known(self, draft: Draft) -> bool:
        return draft.type in LOGS and draft.session_id in self.sessions

    def append(self, draft: Draft) -> Appended:
        """Store one draft. Raises Problem, and then nothing of it is stored; after all else the transaction must go."""
        cursor = self.cursor
        if draft.type not in LOGS:
            self.doubt(draft)
        try:
            return self.append_draft(draft)
        except Problem as problem:
            self.untold[f"{problem.status}"] += 1
            raise
        except EntryRefused:
            raise
        except Exception as error:
            if self.cursor != cursor or self.is_undone or is_of_the_disk(error):
                raise
            logger.exception("A write that was let in could not be stored: %s", draft.type)
            refusal = unstorable(error)
            self.untold[f"{refusal.status}"] += 1
            raise refusal from error

    def doubt(self, draft: Draft) -> Draft:
        """An entry keeps the time that it was told; but when a session began or ended does not follow from an absurd
        one. What is restored is as it was."""
        is_new = draft.received_at is None
        if is_new and draft.timestamp is not None and is_absurd(draft.timestamp, self.received_at):
            draft.timestamp = None
        return draft

    def append_draft(self, draft: Draft) -> Appended:
        session = self.session(draft.session_id)
        if draft.by is not None and draft.by.bounds is not None:
            rights.check_writable(self.connection, draft)
        if earlier := self.duplicate_of(draft, session):
            return self.replay(draft, earlier)
        self.pace.check(draft)
        if session is None and draft.received_at is None:
            self.check_moved(draft.session_id)
        if draft.type in coercion.BEGINNINGS:
            rights.stay_within(self.connection, draft)
        if session is None and draft.type != "session_created":
            return self.append_first_word(draft)
        return self.append_to(session, draft)

    def check_moved(self, session_id: str) -> None:
        """Raises Problem 421 for a session that was here, and is elsewhere now."""
        row = self.connection.execute(MOVED_TO, (session_id,)).fetchone()
        if row and row[0]:
            raise moved(session_id, row[0])

    def append_to(self, session: KnownSession | None, draft: Draft) -> Appended:
        """One INSERT, so it needs no savepoint: SQLite undoes a statement that fails, triggers and all."""
        if session is not None and draft.type in LOGS:
            return Appended(self.log(draft, session))
        self.insert_entries()
        self.open_transaction()
        if session is None:
            self.check_rate(draft)
            draft = self.begin_session(fit_for_metadata({}, {}, draft.type, draft))
        else:
            self.check_room(draft)
            draft = self.decide(draft, session)
        event = self.insert(draft, session)
        version, record = self.outcome(event) if event.type in STATE_TYPES else (None, None)
        return Appended(event, version=version, record=record)

    def check_room(self, draft: Draft) -> None:
        """Every change reads and writes the whole document, so one that has grown too large holds everybody up.

        Raises Problem 413, and 429 for too many changes at once. What was stored once already is let in.
        """
        name = "state" if draft.type in STATE_TYPES else "metadata" if draft.type == "metadata_updated" else ""
        if not name or draft.received_at is not None:
            return
        (length,) = self.connection.execute(
            "SELECT length(document) FROM documents WHERE session_id = ? AND name = ?", (draft.session_id, name)
        ).fetchone()
        if length > MAX_DOCUMENT and draft.patch != "replace":
            remedy = ': replace it by a line of a batch with "patch": "replace"' if name == "state" else ""
            raise Problem(413, f"The {name} of this session has {length} characters, of {MAX_DOCUMENT} at most{remedy}")
        self.pace.note(draft, length)

    def append_first_word(self, draft: Draft) -> Appended:
        """The first word of a session that nobody created: both are stored, or neither."""
        if draft.names_something or not self.auto_create or draft.type == "session_deleted":
            raise no_session(draft.session_id)
        self.check_rate(draft)
        self.insert_entries()
        self.open_transaction()
        cursor, length = self.cursor, len(self.fresh)
        self.connection.execute("SAVEPOINT first_word")
        try:
            creation = self.doubt(creation_of(draft))
            rights.stay_within(self.connection, creation)
            self.insert(creation, None)
            appended = self.append_to(self.session(draft.session_id), draft)
            self.insert_entries()
        except BaseException:
            if not self.is_undone:
                self.connection.execute("ROLLBACK TO first_word")
                self.connection.execute("RELEASE first_word")
            self.cursor = cursor
            self.sessions.pop(draft.session_id, None)
            del self.fresh[length:]
            raise
        self.connection.execute("RELEASE first_word")
        return appended

    def check_rate(self, draft: Draft) -> None:
        """Raises Problem 429 for more new sessions than its token may begin in a second. All of a transaction is in
        one second, so that no event of a session is taken after an earlier one was not."""
        if draft.by is None:
            return
        self.beginners.append(draft.by)
        if not draft.by.may_create(self.received_at[:19]):
            detail = f"One token may begin {NEW_SESSIONS} sessions a second: the same again is taken later"
            raise Problem(429, detail, headers={"retry-after": "1"})

    def session(self, session_id: str) -> KnownSession | None:
        if known := self.sessions.get(session_id):
            return known
        row = self.connection.execute(
            "SELECT user_id, is_implicit, actions, responses, goals, agents FROM sessions WHERE session_id = ?",
            (session_id,),
        ).fetchone()
        if row is None:
            return None
        if len(self.sessions) >= MAX_SESSIONS_KNOWN:
            self.insert_entries()
            self.sessions.clear()
        self.sessions[session_id] = KnownSession(*row)
        return self.sessions[session_id]

    def log(self, draft: Draft, session: KnownSession) -> Event:
        """Give an entry its place in its log, and put off its INSERT."""
        log = f"{draft.type}s"
        event = self.event_of(draft, session.user_id, getattr(session, log) + 1)
        setattr(session, log, event.seq)
        self.entries.append(event)
        self.entry_ids.add((event.session_id, event.event_id))
        self.noted(event)
        if not self.buffers:
            self.insert_entries()
        return event

    def insert_entries(self) -> None:
        """Insert the entries that were put off, because something else follows. Raises as `insert_rows`."""
        if self.entries:
            self.open_transaction()
            self.insert_rows()

    def insert_rows(self) -> None:
        """Raises EntryRefused where any of several entries may be to blame."""
        entries, self.entries = self.entries, []
        self.entry_ids.clear()
        try:
            for begin in range(0, len(entries), MAX_ROWS):
                rows = entries[begin : begin + MAX_ROWS]
                self.connection.execute(INSERTS[len(rows)], [value for row in rows for value in values_of(row)])
        except Exception as error:
            self.forget_last(rows[0].cursor)
            if self.buffers and not self.is_undone and not is_of_the_disk(error):
                raise EntryRefused(str(error)) from error
            raise

    def forget_last(self, cursor: int) -> None:
        """What was noted from this cursor on is not in the database."""
        self.cursor = cursor - 1
        self.fresh = [event for event in self.fresh if event.cursor < cursor]
        self.sessions.clear()

    # ---- retries

    def duplicate_of(self, draft: Draft, session: KnownSession | None) -> Event | None:
        """The event that this draft repeats, if it does: by its eventId, or a session's creation in every part."""
        if session is None:  # of a deleted session only its deletion is left
            self.unused_ids.discard((draft.session_id, draft.event_id or ""))
            deletion = "session_id = ? AND event_id = ? AND type = 'session_deleted'"
            return self.event(deletion, draft.session_id, draft.event_id) if draft.event_id else None
        if draft.event_id is not None:
            name = draft.session_id, draft.event_id
            if name in self.unused_ids:
                self.unused_ids.remove(name)
                return None
            if name in self.entry_ids:
                self.insert_entries()
            return self.event("session_id = ? AND event_id = ?", draft.session_id, draft.event_id)
        if not draft.must_be_new or draft.type != "session_created":
            return None
        creation = self.event("cursor = (SELECT created_cursor FROM sessions WHERE session_id = ?)", draft.session_id)
        return creation if creation and is_same(draft, creation) and draft.user_id == session.user_id else None

    def event(self, condition: str, *values: str | int) -> Event | None:
        row = self.connection.execute(f"SELECT {COLUMNS} FROM events WHERE {condition}", values).fetchone()
        return Event(*row) if row else None

    def replay(self, draft: Draft, earlier: Event) -> Appended:
        """The answer to a retry: that of the first time. Raises Problem 422 where the content is another."""
        if not (draft.is_same_by_id or is_same(draft, earlier) or is_same(draft, self.as_of_now(earlier))):
            raise Problem(
                422,
                f"The event {draft.event_id!r} of this session has other content: give a new event a new eventId",
                path="$.eventId",
            )
        self.untold["duplicate"] += 1
        version, record = self.outcome_then(earlier) if earlier.type in STATE_TYPES else (None, None)
        return Appended(earlier, duplicate=True, version=version, record=record)

    def as_of_now(self, event: Event) -> Event:
        return replace(event, data=encode(self.redacted(folds.decode(event.data))))

    # ---- decisions

    def decide(self, draft: Draft, session: KnownSession) -> Draft:
        """The draft as it will be stored. Raises Problem where the session or its state forbids it."""
        if draft.if_match is not None:
            self.check_version(draft)
        decision = DECISIONS.get(draft.type)
        return decision(self, draft, session) if decision else draft

    def check_version(self, draft: Draft) -> None:
        version = self.state_version(draft.session_id)
        if version not in (draft.if_match or ()):
            raise Problem(412, f"The state has moved on: it is at version {version} now; get it and try again")

    def state_version(self, session_id: str) -> int:
        (version,) = self.connection.execute(
            "SELECT version FROM documents WHERE session_id = ? AND name = 'state'", (session_id,)
        ).fetchone()
        return int(version)

    def resume(self, draft: Draft, session: KnownSession) -> Draft:
        """What creates a session that is there resumes it; one that was made by its first word is claimed by it."""
        if draft.must_be_new:
            raise Problem(409, f"There is a session {draft.session_id!r} already: PUT resumes it")
        keeps_user = not session.is_implicit or draft.user_id in (None, UNKNOWN_USER)
        resumed = replace(draft, user_id=session.user_id if keeps_user else draft.user_id)
        resumed = self.fit_for_metadata(resumed, "session_created" if session.is_implicit else "session_resumed")
        return replace(resumed, type="session_resumed")

    def begin_session(self, draft: Draft) -> Draft:
        """A conversation that takes the place of one that was just cleared goes on from that."""
        start = draft.data.get("metadata") or {}
        if start.get("source") != "clear" or "continues" in start:
            return draft
        moment, user_id = draft.timestamp or self.received_at, draft.user_id or UNKNOWN_USER
        found = endings.cleared_before(self.connection, draft.session_id, user_id, moment, start)
        if found and not rights.is_within(self.connection, draft.by, found):
            return draft
        return replace(draft, data=draft.data | {"metadata": start | {"continues": found}}) if found else draft

    def update_metadata(self, draft: Draft, session: KnownSession) -> Draft:
        draft = self.fit_for_metadata(draft, draft.type)
        return self.cancel_agents(draft) if draft.data.get("status") in DONE else draft

    def finalize(self, draft: Draft, session: KnownSession) -> Draft:
        """An end that does not say what became of the session is completed by what was said in it."""
        if endings.is_undecided(draft.data):
            ending = endings.decided(self.connection, draft.session_id, draft.data)
            draft = replace(draft, data=draft.data | ending)
        return self.cancel_agents(draft)

    def cancel_agents(self, draft: Draft) -> Draft:
        """What ends leaves nobody at work: its event says who was, unless it has been stored before."""
        if draft.received_at is not None or "cancelledAgents" in draft.data:
            return draft
        at_work = endings.agents_at_work(self.connection, draft.session_id)
        return replace(draft, data=draft.data | {"cancelledAgents": at_work}) if at_work else draft

    def add_note(self, draft: Draft, session: KnownSession) -> Draft:
        """Raises Problem 422 for an empty note, or one about no event of this session; a batch line is as it is."""
        at = draft.data.get("at")
        if draft.names_something and not draft.data["text"].strip():
            raise invalid("$.text", "must say something")
        if (
            draft.names_something
            and at is not None
            and not self.event("session_id = ? AND cursor = ?", draft.session_id, at)
        ):
            raise invalid("$.at", "must be the cursor of an event of this session")
        return draft

    def fit_for_metadata(self, draft: Draft, event_type: str) -> Draft:
        """The draft, if callers make nothing else of the metadata than what it is. Raises as the function."""
        (document,), (metrics,) = (
            self.connection.execute(query, (draft.session_id,)).fetchone()
            for query in (
                "SELECT document FROM documents WHERE session_id = ? AND name = 'metadata'",
                "SELECT metrics FROM counted WHERE session_id = ?",
            )
        )
        return fit_for_metadata(folds.decode(document), folds.decode(metrics), event_type, draft)

    def price(self, draft: Draft, session: KnownSession) -> Draft:
        """A report that does not say what the request cost, or how much its model takes, is completed by that; one
        that was stored before is not."""
        if draft.received_at is not None or "compaction" in draft.data:
            return draft
        data = draft.data
        if "costFrom" not in data:
            is_said = "costUsd" in data
            data = data | (
                {"costFrom": "reported"} if is_said else self.prices.members(data, draft.timestamp or self.received_at)
            )
        if "contextTokens" in data and "contextLimit" not in data and (limit := self.prices.limit(data)):
            data = data | {"contextLimit": limit}
        return replace(draft, data=data)

    def add_goal(self, draft: Draft, session: KnownSession) -> Draft:
        goal_id = draft.data.get("id")
        if goal_id is None:
            goal_id = self.free_id("goals", "goal", draft.session_id, session.goals)
        elif self.record("goals", draft.session_id, known_id(goal_id, "$.id")):
            if draft.must_be_new:
                raise Problem(409, f"There is a goal {goal_id!r} in this session already")
            return draft
        goal = {
            "id": goal_id,
            "description": draft.data.get("description"),
            "priority": "medium",
            "status": "pending",
        } | {name: value for name, value in draft.data.items() if name != "id"}
        return replace(draft, data=goal)

    def spawn_agent(self, draft: Draft, session: KnownSession) -> Draft:
        agent_id, moment = draft.data.get("agentId"), draft.timestamp or self.received_at
        if agent_id is None:
            agent_id = self.free_id("agents", "agent", draft.session_id, session.agents)
        elif self.record("agents", draft.session_id, known_id(agent_id, "$.agentId")):
            if draft.must_be_new:
                raise Problem(409, f"There is an agent {agent_id!r} in this session already")
            return self.end_late(replace(draft, data={"spawnedAt": moment} | draft.data))
        if draft.data.get("hook_event_name") == "SubagentStart" and draft.received_at is None:
            draft = replace(draft, data=delegations.found(self.connection, draft.session_id, draft.data) | draft.data)
        agent = {
            "agentId": agent_id,
            "type": draft.data.get("type"),
            "task": None,
            "status": "spawned",
            "spawnedAt": moment,
            "subsession": None,
        } | {name: value for name, value in draft.data.items() if name != "agentId"}
        return self.end_late(replace(draft, data=agent))

    def end_late(self, draft: Draft) -> Draft:
        """Of an agent that was at work before the end of its session, and is told of after it: it ended with that."""
        if draft.data.get("status") in DONE:
            return draft
        row = self.connection.execute(
            "SELECT ended FROM sessions WHERE session_id = ? AND ended >= ?",
            (draft.session_id, draft.timestamp or self.received_at),
        ).fetchone()
        return replace(draft, data=draft.data | {"completedAt": row[0], "endedBy": "session"}) if row else draft

    def change_goal(self, draft: Draft, session: KnownSession) -> Draft:
        return self.change("goals", "goal", draft.data["goalId"], draft)

    def change_agent(self, draft: Draft, session: KnownSession) -> Draft:
        agent_id = draft.data["agentId"]
        draft = self.change("agents", "agent", agent_id, draft)
        is_at_work = "status" in draft.data or self.record("agents", draft.session_id, agent_id) is None
        return self.end_late(draft) if draft.type == "agent_updated" and is_at_work else draft

    def change(self, table: str, noun: str, name: str, draft: Draft) -> Draft:
        if draft.names_something and self.record(table, draft.session_id, name) is None:
            raise Problem(404, f"There is no {noun} {name!r} in this session")
        return draft

    def free_id(self, table: str, noun: str, session_id: str, taken: int) -> str:
        """`goal-1`, `goal-2`, …: the next that nobody has."""
        number = taken + 1
        while self.record(table, session_id, f"{noun}-{number}"):
            number += 1
        return f"{noun}-{number}"

    def record(self, table: str, session_id: str, name: str) -> Document | None:
        row = self.connection.execute(
            f"SELECT record FROM {table} WHERE session_id = ? AND {table[:-1]}_id = ?", (session_id, name)
        ).fetchone()
        record: Document | None = folds.decode(row[0]) if row else None
        return record

    # ---- the one statement that changes anything

    def insert(self, draft: Draft, session: KnownSession | None) -> Event:
        if draft.type == "session_created":
            self.finish_purge(draft.session_id)
        if draft.type in ("session_created", "session_deleted"):
            draft = replace(draft, data={"sessionId": draft.session_id} | draft.data)
        if draft.type == "session_deleted":
            draft = replace(draft, data={"reason": "person"} | draft.data | {"by": draft.actor or None})
        keeps_user = session is not None and draft.type != "session_resumed"
        event = self.event_of(draft, session.user_id if session and keeps_user else draft.user_id or UNKNOWN_USER)
        self.connection.execute(INSERTS[1], values_of(event))
        self.sessions.pop(draft.session_id, None)
        self.is_purging = self.is_purging or event.type == "session_deleted"
        self.noted(event)
        return event

    def event_of(self, draft: Draft, user_id: str, seq: int | None = None) -> Event:
        received_at = draft.received_at or self.received_at
        return Event(
            self.cursor + 1,
            draft.type,
            draft.session_id,
            user_id,
            draft.event_id or next(self.ids),
            draft.agent_id,
            draft.timestamp or received_at,
            received_at,
            draft.actor,
            draft.patch,
            seq,
            None if seq is None else draft.data["type"],
            encode(draft.data),
        )

    def noted(self, event: Event) -> None:
        self.cursor = event.cursor
        self.fresh.append(event)

    def finish_purge(self, session_id: str) -> None:
        """Before an id is used again, what was deleted under it is gone: at once, where nobody has waited for it."""
        while purge(self.connection, session_id=session_id):
            pass

    def is_free(self, session_ids: Iterable[str]) -> bool:
        """Whether nothing is left of sessions that were deleted under these ids. Some of it is removed now, once a
        transaction: so who wants to use such an id can come again."""
        (left,) = self.connection.execute(
            "SELECT min(session_id) FROM purges WHERE session_id IN (SELECT value FROM json_each(?))",
            (encode(list(session_ids)),),
        ).fetchone()
        if left is None:
            return True
        if self.has_purged:
            return False
        self.insert_entries()
        self.open_transaction()
        purge(self.connection, session_id=left)
        self.has_purged = True
        return self.is_free(session_ids)

    def purge(self) -> bool:
        """Remove some events of a deleted session. False when there is nothing left to do."""
        is_busy = purge(self.connection)
        self.is_purging = is_busy
        return is_busy

    # ---- answers

    def outcome(self, event: Event) -> tuple[int, Document | None]:
        """The version of the state and the goal or agent that `event` changed, just now."""
        table, name = changed_record(event)
        return self.state_version(event.session_id), self.record(table, event.session_id, name) if table else None

    def outcome_then(self, event: Event) -> tuple[int, Document | None]:
        """The same for an event of long ago: what it changed, as it was after it."""
        then = event.session_id, event.cursor
        (version,) = self.connection.execute(STATE_VERSION, then).fetchone()
        table, name = changed_record(event)
        if not table:
            return version, None
        state = folds.state_at(self.connection.execute(RECORD_EVENTS[table], (*then, name, name)))
        records = folds.goals_of(state) if table == "goals" else folds.agents_of(state)["spawned"]
        position = folds.position_of(records, "id" if table == "goals" else "agentId", name)
        return version, None if position is None else records[position]


def changed_record(event: Event) -> tuple[str, str]:
    """The table and the id of the goal or agent that an event changed; empty where it changed none."""
    data = folds.decode(event.data)
    if event.type.startswith("goal_"):
        return "goals", data["id" if event.type == "goal_added" else "goalId"]
    if event.type.startswith("agent_"):
        return "agents", data["agentId"]
    return "", ""


def creation_of(draft: Draft) -> Draft:
    """What creates a session by its first word; a hook says in each of its words where it is."""
    cwd = draft.data.get("cwd")
    begun = (
        {"metadata": {"cwd": cwd, "where": {"cwd": cwd}}}
        if isinstance(cwd, str) and "hook_event_name" in draft.data
        else {}
    )
    return Draft(
        type="session_created",
        session_id=draft.session_id,
        user_id=draft.user_id,
        timestamp=draft.timestamp,
        received_at=draft.received_at,
        actor=draft.actor,
        by=draft.by,
        data={"initial": {}, "implicit": True, **begun},
    )


Decision = Callable[[Appender, Draft, KnownSession], Draft]

DECISIONS: dict[str, Decision] = {
    "session_created": Appender.resume,
    "session_resumed": Appender.resume,
    "metadata_updated": Appender.update_metadata,
    "session_finalized": Appender.finalize,
    "usage_reported": Appender.price,
    "goal_added": Appender.add_goal,
    "goal_updated": Appender.change_goal,
    "agent_spawned": Appender.spawn_agent,
    "agent_updated": Appender.change_agent,
    "agent_completed": Appender.change_agent,
    "note_added": Appender.add_note,
}
