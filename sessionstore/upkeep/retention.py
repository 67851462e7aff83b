"""Retention: sessions that have ended leave the store when they are old, or when the database is too large.

Where there is a folder for archives, a session is archived there and read back
first; one whose archive cannot be made stays. A thread of its own looks and
archives, the writer deletes: only what has not moved on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from typing import NamedTuple

from export import archive
from export.layout import open_reader
from sessionstore.model.events import STORE, Draft, text_of_time
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.appender import Appender
from sessionstore.store.closing import DeleteUnchanged
from sessionstore.store.folder import Moved
from sessionstore.store.material import check_unchanged, delete_of_session, stamp_of
from sessionstore.store.writer import Writer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.5
"""While there is more to delete."""
AT_ONCE = 500
"""Sessions that one look deletes at most for their age, and for their size."""
SLACK = 0.05
"""Of the size that is wanted: what is deleted at once, since the full-text index is written anew each time."""
BYTES_A_BYTE = 2.5
"""What a byte of text takes in the database, with its words in the index and all that stands around it: rather too
much, so that too few sessions go, and more at the next look, than too many."""
ANY = 2**63 - 1
"""A cursor that no event is beyond."""
A_DAY = 86_400.0
A_YEAR = 365 * A_DAY
NICENESS = 10
WAIT_SECONDS = 60.0
"""How long the writer may take for one deletion."""


OLD = """
SELECT session_id, last_cursor FROM sessions
WHERE ended IS NOT NULL AND updated < ? AND last_cursor <= ? ORDER BY last_cursor LIMIT ?"""
OLDEST = """
SELECT session_id, last_cursor FROM sessions
WHERE ended IS NOT NULL AND last_cursor <= ? ORDER BY last_cursor LIMIT ?"""
BEING_PURGED = """
SELECT 1 FROM purges UNION ALL SELECT 1 FROM transcripts WHERE is_deleted
UNION ALL SELECT 1 FROM checkpoint_threads WHERE is_deleted LIMIT 1"""
UNUSED = "SELECT coalesce(sum(stored_bytes), 0) FROM checkpoint_values WHERE uses = 0"
WITH_MATERIAL = """
SELECT s.session_id, m.bytes FROM sessions s JOIN material_sizes m ON m.scope = s.session_id
WHERE s.ended IS NOT NULL AND m.bytes > 0
  AND (EXISTS (SELECT 1 FROM transcripts t WHERE t.session_id = s.session_id AND NOT t.is_deleted)
       OR EXISTS (SELECT 1 FROM checkpoint_threads t WHERE t.session_id = s.session_id AND NOT t.is_deleted))
ORDER BY s.last_cursor LIMIT ?"""
"""What of it is not deleted yet."""
NEWEST = "SELECT received_at FROM events ORDER BY cursor DESC LIMIT 1"


class NothingToDelete(Exception):
    """The database is too large, and nobody's session has ended."""


class ClockInDoubt(Exception):
    """By the clock sessions may be old, but it may be wrong."""


EXPECTED = (OSError, sqlite3.Error, archive.ArchiveFailed, Problem, NothingToDelete, ClockInDoubt, Moved)
"""What is said without a traceback."""


class Ended(NamedTuple):
    """A session that may go."""

    session_id: str
    last_cursor: int


class Retention:
    """Deletes while it is started, if the settings say so, and knows how it went."""

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        clock: Callable[[], float] = time.time,
        sealed: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.sealed = sealed
        """What is newer than this cursor stays, for a lake does not have it yet; None: there is no lake."""
        self.folder = settings.archive_directory
        self.writer = writer
        self.clock = clock
        self.deleted = 0
        self.archived = 0
        self.failures = 0
        self.error: str | None = None
        """Why it could not do what it should."""
        self.drift = clock() - time.monotonic()
        self.rested = 0.0
        """By the clock, how long no event had come when the server started: seconds."""
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="retention", daemon=True)

    @property
    def is_on(self) -> bool:
        return bool(self.settings.retention_days or self.settings.retention_bytes)

    @property
    def status(self) -> str:
        """`off`, `ok`, `failed`."""
        if not self.is_on:
            return "off"
        return "failed" if self.error else "ok"

    def start(self) -> None:
        """Called on the event loop, once the writer takes work."""
        self.loop = asyncio.get_running_loop()
        if self.is_on:
            with closing(open_reader(self.settings.database)) as database:
                self.rested = rest(database, self.clock())
            self.thread.start()

    def stop(self, within: float = 2.0) -> None:
        """Called when the writer takes no more work: the session under way stays."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join(within)

    # ----------------------------------------------------------- on the thread

    def run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # Linux: of this thread alone
        while not self.stopping.is_set():
            is_done = self.look()
            self.stopping.wait(LOOK_SECONDS if is_done else LOOK_AGAIN_SECONDS)

    def look(self) -> bool:
        """Delete some of what has to go. False: there is more. What goes wrong is said, and tried again."""
        try:
            self.writer.ground.check()
            with closing(open_reader(self.settings.database)) as database:
                database.set_progress_handler(self.stopping.is_set, 10_000)  # true: what is being read is given up
                is_done = self.delete_some(database)
        except Exception as error:  # whatever it is, the next look is taken
            self.fail(error)
            return True
        if is_done:
            self.error = None
        return is_done

    def fail(self, error: Exception) -> None:
        if self.stopping.is_set():
            return
        self.failures += 1
        said = str(error) or type(error).__name__
        if said != self.error:
            logger.error("Retention cannot do what it should: %s", said, exc_info=not isinstance(error, EXPECTED))
        self.error = said

    def delete_some(self, database: sqlite3.Connection) -> bool:
        """Raises what keeps it from going on."""
        if self.writer.merge or database.execute(BEING_PURGED).fetchone():
            return False  # what is deleted already goes first: only then it shows how large the database is
        old, too_many, doubt = self.old(database), list(self.too_many(database)), self.doubt()
        for ended in dict.fromkeys(old + too_many):
            if self.stopping.is_set():
                return True
            self.let_go(database, ended)
        if too_many:
            self.writer.merge = "begin"
        if doubt and not too_many:
            raise ClockInDoubt(f"{doubt}: no session is deleted for its age until the server is started again")
        return not old and not too_many

    def old(self, database: sqlite3.Connection) -> list[Ended]:
        """Those that are too old; none by a clock that is in doubt."""
        if not self.settings.retention_days or self.doubt():
            return []
        before = text_of_time(self.clock() - self.settings.retention_days * A_DAY)
        return [Ended(*row) for row in database.execute(OLD, (before, self.newest(), AT_ONCE))]

    def newest(self) -> int:
        """The newest event that a session may have which goes."""
        sealed = self.sealed()
        return ANY if sealed is None else sealed

    def doubt(self) -> str:
        """Why the clock may be wrong: it has been set since the start, or skipped a year before it. Empty: it is right,
        or nothing goes by it."""
        if not self.settings.retention_days:
            return ""
        if abs(set_by := self.clock() - time.monotonic() - self.drift) >= A_DAY:
            return f"The clock has been set by {set_by / A_DAY:+,.0f} days since the start"
        if self.rested >= A_YEAR:
            return f"By the clock of the start, no event had come for {self.rested / A_DAY:,.0f} days"
        return ""

    def too_many(self, database: sqlite3.Connection) -> Iterator[Ended]:
        """Those that make the database too large, oldest first: not more than hold what is too much and a little.

        Raises NothingToDelete.
        """
        limit = self.settings.retention_bytes
        if limit is None or (used := used_bytes(database)) <= limit:
            return
        oldest = [Ended(*row) for row in database.execute(OLDEST, (self.newest(), AT_ONCE))]
        if not oldest:
            raise NothingToDelete(
                f"The database has {used:,} bytes, {limit:,} at most are wanted, and no session has ended"
                + ("" if self.sealed() is None else " that is wholly in the lake")
            )
        excess = used - limit * (1 - SLACK)
        if database.execute(UNUSED).fetchone()[0] > excess:
            return  # that goes by itself
        if freed := self.let_material_go(database, excess):
            logger.warning("The material of sessions that have ended was deleted: %s bytes", f"{freed:,}")
            return
        for ended in oldest:
            if excess > 0:
                yield ended
                excess -= held_bytes(database, ended.session_id) * BYTES_A_BYTE

    def let_material_go(self, database: sqlite3.Connection, excess: float) -> int:
        """Delete the material of sessions that ended first, of at least so many bytes, if there is any: it goes before
        their events. How many bytes."""
        freed = 0
        for session_id, size in database.execute(WITH_MATERIAL, (AT_ONCE,)).fetchall():
            if freed < excess and not self.stopping.is_set():
                seen = self.archive(database, session_id)
                is_gone = self.have_done(partial(delete_material, session_id=session_id, seen=seen))
                freed += size if is_gone else 0
        return freed

    def let_go(self, database: sqlite3.Connection, ended: Ended) -> None:
        """Archive one session, if there is a folder for that, and have it deleted, unless it has moved on."""
        with suppress(archive.NoSession):
            self.delete(ended, self.archive(database, ended.session_id))

    def archive(self, database: sqlite3.Connection, session_id: str) -> str:
        """If there is a folder for that; and what its material was before. Raises ArchiveFailed, OSError."""
        seen = stamp_of(database, session_id)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.archived += archive.keep(database, session_id, self.folder)[1]
        return seen

    def delete(self, ended: Ended, seen: str) -> None:
        why = {"reason": "retention"}
        draft = Draft(type="session_deleted", session_id=ended.session_id, actor=STORE, data=why)
        self.deleted += self.have_done(DeleteUnchanged(draft, ended.last_cursor, seen), draft)

    def have_done(self, work: Callable[[Appender], object], *drafts: Draft) -> bool:
        """Have the writer do it, unless the session, or its material, has moved on. Whether it was done."""

        async def submit() -> None:
            await self.writer.submit(work, drafts)

        try:
            asyncio.run_coroutine_threadsafe(submit(), self.loop).result(WAIT_SECONDS)
        except Problem as problem:
            if problem.status not in (404, 412):
                raise
            return False
        return True


def delete_material(appender: Appender, session_id: str, seen: str) -> None:
    check_unchanged(appender.connection, session_id, seen)
    appender.insert_entries()
    appender.open_transaction()
    delete_of_session(appender.connection, session_id)


def used_bytes(database: sqlite3.Connection) -> int:
    """Of the database, without the pages that are free."""
    (pages,), (free,), (size,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def rest(database: sqlite3.Connection, now: float) -> float:
    """How long ago the newest event came: seconds, 0 where there is none."""
    newest = database.execute(NEWEST).fetchone()
    return now - datetime.fromisoformat(newest[0]).timestamp() if newest else 0.0


def held_bytes(database: sqlite3.Connection, session_id: str) -> int:
    """The text of a session."""
    (size,) = database.execute("SELECT sum(length(data)) FROM events WHERE session_id = ?", (session_id,)).fetchone()
    return size or 0
