"""The write-ahead log: when what is in it is put into the database (a checkpoint), and what may go wrong with that.

Left to itself, SQLite does it inside of a commit, for which somebody waits, and tells nobody of a checkpoint that
fails. One must be told of: while a reader stands in the way, SQLite writes a part into the database, syncs nothing, and
never writes that part again. If the sync of the rest then fails, the kernel may have dropped all of it; the next one
succeeds, the log is begun anew, and a power cut takes what was acknowledged. So where that may be, the process ends
before there is a next one: whoever opens the database then, with nobody else at it, puts all of its log into it once
more.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from sessionstore.histogram import Histogram
from sessionstore.log import last_words
from sessionstore.store.disk import in_mib, size_of
from sessionstore.store.schema import ATTEMPT_MILLISECONDS, BUSY_MILLISECONDS

logger = logging.getLogger(__name__)

PAGE_BYTES = 4096
PAGES, MOST_PAGES = 2000, 4000
"""About how many pages of the log are put into the database at once, 8 MiB; and where somebody always waits."""
PAGES_OF_A_COMMIT, CHANGES_OF_A_PAGE = 8, 5
"""About how many a commit writes, besides one for so many rows that it changes."""
LOG_BYTES = 64 << 20
"""From this size on the write-ahead log is emptied as soon as nobody reads it."""
LOG_PATIENCE = 0.05
"""Seconds to wait for those who read it, at LOG_BYTES; for a log twice as large eight times as long."""
MOST_LOG_PATIENCE = 5.0
"""Nobody who reads for the server reads one state for longer."""
LOG_PAUSE = 20
"""How long the next attempt waits after one that failed, in times what that took: writers wait meanwhile."""


def checkpoint(connection: sqlite3.Connection, mode: str = "PASSIVE") -> bool:
    """False: somebody reads what stands in the way."""
    (is_busy, _, _) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return not is_busy


def end_at_once() -> None:
    """Nothing is closed: whoever closes the database would put the log into it, and delete the log."""
    last_words()
    os._exit(1)


class WriteAheadLog:
    """That of a database, for the one connection that writes; outside of its transactions."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}-wal")
        self.end: Callable[[], None] = end_at_once
        self.is_part_unsynced = False
        """Whether a part of it was put into the database, while somebody read what came after that."""
        self.pages = 0
        """About how many have been written since the last checkpoint, besides those of `changes`."""
        self.changes = 0
        """Of the connection, at the last checkpoint."""
        self.empty_at = 0.0
        self.emptying_seconds = Histogram()
        self.times_busy = 0
        """How often a reader has kept it from being emptied."""

    def take(self, connection: sqlite3.Connection) -> None:
        """From now on it is put into the database by this connection, and only by what is here."""
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.connection = connection
        self.changes = connection.total_changes

    def note(self, size: int) -> None:
        """A commit of so many bytes."""
        self.pages += PAGES_OF_A_COMMIT + size // PAGE_BYTES

    def is_due(self, *, somebody_waits: bool) -> bool:
        changes = self.connection.total_changes - self.changes
        return self.pages + changes // CHANGES_OF_A_PAGE >= (MOST_PAGES if somebody_waits else PAGES)

    def put(self, mode: str = "PASSIVE") -> bool:
        """Put it into the database. False: somebody reads what stands in the way. Raises sqlite3.Error; ends the
        process where what was put there may be lost."""
        self.pages, self.changes = 0, self.connection.total_changes
        try:
            is_busy, pages, copied = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.OperationalError as error:
            if self.is_part_unsynced and error.sqlite_errorcode == sqlite3.SQLITE_IOERR_FSYNC:
                logger.critical(
                    "The disk did not keep what was put into the database (%s). Nothing is lost as long as that is put "
                    "there again from the log, which happens at a start: the server ends, start it anew",
                    error,
                )
                self.end()
            raise
        self.is_part_unsynced = 0 < copied < pages
        return not is_busy

    def bound(self) -> None:
        """Empty it where it has grown large: while anybody reads, SQLite only adds to it, and readers that overlap all
        the time would let it grow for ever."""
        size = size_of(self.path)
        if size < LOG_BYTES or time.monotonic() < self.empty_at:
            return
        patience = min(MOST_LOG_PATIENCE, LOG_PATIENCE * (size / LOG_BYTES) ** 3)
        began = time.monotonic()
        is_empty = self.empty(patience)
        self.emptying_seconds.note(time.monotonic() - began)
        if is_empty:
            return
        self.times_busy += 1
        self.empty_at = time.monotonic() + LOG_PAUSE * patience
        if patience == MOST_LOG_PATIENCE:
            logger.warning("The write-ahead log has %s: somebody has been reading one state for long", in_mib(size))

    def empty(self, patience: float) -> bool:
        """Put all of it into the database. False: somebody goes on reading it after so many seconds.

        In many short attempts: in one, SQLite goes on waiting for the place of a reader that has left, though it has
        been taken by others who are not in the way.
        """
        until = time.monotonic() + patience
        self.connection.execute(f"PRAGMA busy_timeout = {ATTEMPT_MILLISECONDS}")
        try:
            while not (is_empty := self.put("TRUNCATE")) and time.monotonic() < until:
                pass
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        return is_empty
