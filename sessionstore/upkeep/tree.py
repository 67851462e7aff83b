"""The follower that exports the file tree: on a thread and a connection of its own, a second behind, three at most.

It never holds anybody up: it is told of the newest cursor and looks for itself,
many events at a time, so that however much comes, a file is written anew at most
a few times a second. What goes wrong with it is said at /health, and tried again.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from collections import Counter
from contextlib import suppress

from export.layout import SESSIONS, open_reader
from export.tree import Tree, TreeAhead, TreeBusy
from sessionstore import EXPORT
from sessionstore.settings import Settings
from sessionstore.store.folder import Ground, Moved
from sessionstore.store.integrity import tree_cursor

logger = logging.getLogger(__name__)

PAUSE = 0.4
"""Seconds from the beginning of one look to that of the next, so that what comes meanwhile is written as one."""
REST = 6.0
"""How long it rests after a look, in times what the look took: writers go first."""
MOST_REST, LATE_REST = 0.7, 0.5
"""Seconds at most, and where a look was not enough: so it keeps up with whatever comes."""
STEP_SECONDS = 1.0
"""How long it may hold one state of the database: the log grows meanwhile."""
RETRY_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 5.0
"""How often it looks though nothing has come: for what had to be left out."""
LAST_SECONDS = 5.0
"""How long the server waits at its end for the tree to catch up."""


class Mirror:
    """Follows the database with the tree, from `start` to `stop`."""

    def __init__(self, settings: Settings, ground: Ground | None = None) -> None:
        self.settings = settings
        self.ground = ground or Ground(settings.directory)
        self.tree: Tree | None = None
        self.database: sqlite3.Connection | None = None
        self.head = 0
        """The newest cursor that it was told of."""
        self.cursor = 0
        """The newest that the tree has."""
        self.files = 0
        """Written so far."""
        self.lost_after: int | None = None
        """The newest cursor of a database that had less than the tree when it was opened."""
        self.level_at = time.monotonic()
        """When the tree last had everything."""
        self.error: str | None = None
        self.errors: Counter[str] = Counter()
        """By the name of the errno, or of the exception where there is none."""
        self.awake = threading.Event()
        self.stopping = threading.Event()
        self.stop_at = float("inf")
        self.thread = threading.Thread(target=self.run, name="mirror", daemon=True)

    # ------------------------------------------------------------ seen from outside

    @property
    def status(self) -> str:
        """`off`, `ok`, `behind` by more than what is being written just now, `failed`."""
        if not self.settings.tree:
            return "off"
        if self.error:
            return "failed"
        return "behind" if self.lag_seconds() > LOOK_AGAIN_SECONDS else "ok"

    @property
    def lag(self) -> int:
        """By how many events the tree is behind."""
        return max(0, self.head - self.cursor) if self.settings.tree else 0

    def lag_seconds(self) -> float:
        return time.monotonic() - self.level_at if self.lag else 0.0

    def start(self, head: int) -> None:
        """`head`: the newest cursor of the database, to which nobody has written yet."""
        self.head = head
        if not head and (strangers := self.sessions_of_others()):
            logger.warning(
                "%s has %d sessions that are not in the database, as the earlier service keeps them: stop this server, "
                f"and `{EXPORT} restore %s --newer` brings them in",
                *(self.settings.directory / SESSIONS, strangers, self.settings.directory),
            )
        if self.settings.tree:
            self.lost_after = head if tree_cursor(self.settings.directory) > head else None
            self.awake.set()
            self.thread.start()

    def sessions_of_others(self) -> int:
        return sum(1 for _ in (self.settings.directory / SESSIONS).glob("*/metadata.json"))

    def wake(self, head: int) -> None:
        if self.head == self.cursor:
            self.level_at = time.monotonic()
        self.head = head
        if not self.awake.is_set():
            self.awake.set()

    def stop(self) -> None:
        """Catch up with what is committed, within a bound, and let go of the database."""
        self.stop_at = time.monotonic() + LAST_SECONDS
        self.stopping.set()
        self.awake.set()
        if self.thread.is_alive():
            self.thread.join(LAST_SECONDS + STEP_SECONDS)

    # ------------------------------------------------------------- on the thread

    def run(self) -> None:
        while not self.stopping.is_set():
            self.awake.wait(LOOK_AGAIN_SECONDS)
            self.awake.clear()
            begun = time.monotonic()
            is_level = self.look()
            took = time.monotonic() - begun
            if not is_level:
                self.awake.set()
            rest = min(REST * took, MOST_REST if is_level else LATE_REST)
            self.stopping.wait(max(PAUSE - took, rest, RETRY_SECONDS if self.error else 0.0))
        while not self.look() and time.monotonic() < self.stop_at and not self.error:
            pass
        self.let_go()

    def look(self) -> bool:
        """Bring the tree nearer to the database; True: it is there."""
        try:
            is_level = self.follow()
        except Exception as error:
            self.fail(error)
            return False
        if self.error:
            logger.warning("The file tree is written again")
        self.error = self.left_out()
        return is_level

    def follow(self) -> bool:
        self.ground.check()
        if self.database is None:
            self.database = open_reader(self.settings.database)
        if self.tree is None:
            self.tree = Tree(self.settings.directory, logger.warning)
        if self.lost_after is not None:  # and yet the database is served: what it has lost was given up
            logger.warning(
                "What the file tree has after cursor %d, and the database has not, is set aside", self.lost_after
            )
            self.tree.accept(self.lost_after)
            self.lost_after = None
        before = self.tree.written
        try:
            is_level = self.tree.follow(self.database, STEP_SECONDS)
        finally:
            self.files += self.tree.written - before
        self.cursor = self.tree.cursor
        if is_level:
            self.level_at = time.monotonic()
        return is_level

    def left_out(self) -> str | None:
        """What is to be said of sessions that could not be written."""
        skipped = self.tree.skipped if self.tree else {}
        for session_id, why in sorted(skipped.items()):
            return f"{len(skipped)} sessions are left out, the first is {session_id}: {why}"
        return None

    def fail(self, error: Exception) -> None:
        """Say it, let go of everything, and try again."""
        is_expected = isinstance(error, OSError | sqlite3.Error | TreeBusy | TreeAhead | Moved)
        if str(error) != self.error:
            logger.error("The file tree cannot be written: %s", error, exc_info=not is_expected)
        self.error = str(error) or type(error).__name__
        code = error.errno if isinstance(error, OSError) else None
        self.errors[errno.errorcode.get(code, type(error).__name__) if code else type(error).__name__] += 1
        self.let_go()

    def let_go(self) -> None:
        with suppress(OSError, sqlite3.Error):
            if self.tree is not None:
                self.tree.close()
        with suppress(sqlite3.Error):
            if self.database is not None:
                self.database.close()
        self.tree = self.database = None
