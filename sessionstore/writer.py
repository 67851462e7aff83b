"""The one thread that writes: whatever waits goes into one transaction, and one fsync serves them all."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .database import (
    Appended,
    Appender,
    DatabaseUnusable,
    EntryRefused,
    checkpoint,
    delete_old,
    index_search,
    lose_silent,
    open_writer,
    purge,
)
from .events import Draft, Event, text_of_time
from .mark import Mark
from .problems import Problem, fault, unavailable

log = logging.getLogger("sessionstore.writer")

MAX_GROUP = 512
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 128 << 20
MAX_SEARCH_CATCH_UP, SEARCH_WAITS = 5_000, 1.0
"""How many events that are not in the index yet a search waits for, and how many seconds at most."""
INDEX_AT_ONCE = 100
"""How many events one chore brings into the index: what a write may have to wait for."""
CHORE_INTERVAL = 0.25
"""Seconds between looks at what is to do besides writing, while there is nothing."""
A_DAY = 86_400.0
QUIET = 0.01
"""Seconds for which nobody must have written before a chore goes on."""
PUT_OFF = 0.05
"""Seconds for which writing may put a chore off: so the index keeps up with what is a steady load."""
MARK_INTERVAL = 1.0
"""Seconds between putting the newest cursor on disk, beside the database: what a power cut may take of it."""
RECOVERY_INTERVAL = 1.0
"""Seconds between attempts to write again after a failure."""

Work = Callable[[Appender], Any]
"""What a caller wants done, in a transaction, on the writer's thread. What it appends is committed or, if it raises,
not there; so it appends one draft, or several of which each stands for itself."""


class Append:
    """Work: one draft."""

    __slots__ = ("draft",)

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __call__(self, appender: Appender) -> Appended:
        return appender.append(self.draft)


class Job(NamedTuple):
    work: Work
    drafts: Sequence[Draft]
    """What it will append, as far as that is known."""
    answer: asyncio.Future[Any]
    size: int


class Outcome(NamedTuple):
    job: Job
    value: Any
    failure: BaseException | None = None


class Writer:
    """Takes work from the event loop, commits it, and then answers and publishes, in the order of the commits."""

    def __init__(
        self,
        path: Path,
        *,
        publish: Callable[[list[Event]], None],
        ids: Iterator[str],
        clock: Callable[[], float] = time.time,
        durability: str = "full",
        auto_create: bool = True,
        lost_after: float = 900.0,
        retention_days: int | None = None,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.publish = publish
        self.ids = ids
        self.clock = clock
        self.durability = durability
        self.auto_create = auto_create
        self.lost_after = lost_after
        self.retention_days = retention_days
        self.mark = Mark(path.parent)
        self.at_end = at_end
        """Called once the last write is committed, while the database is still open."""
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.waiting = 0
        self.waiting_bytes = 0
        self.closing = False
        self.trouble: str | None = None
        """Why the last commit failed; None while commits succeed."""
        self.cursor = 0
        """The newest that is committed."""
        self.commits = 0
        self.commit_seconds = 0.0
        self.committed_events = 0
        self.failures = 0
        self.searched = 0
        """What full-text search finds: everything at or below this cursor."""
        self.chores_at = 0.0
        self.synchronise_at = 0.0
        self.look_at = time.monotonic() + lost_after
        self.clock_drift = self.clock() - time.monotonic()
        self.thread = threading.Thread(target=self.run, name="writer", daemon=True)

    # ------------------------------------------------------- on the event loop

    async def start(self) -> None:
        """Open the database, bring it to the newest version, and begin. Raises what opening it raises."""
        self.loop = asyncio.get_running_loop()
        self.mark.open()
        self.appender = await self.loop.run_in_executor(None, self.open)
        self.note_progress()
        self.thread.start()

    async def stop(self) -> None:
        """Take no more, finish what was taken, and leave a database with nothing in its log."""
        self.closing = True
        self.jobs.put(None)
        await self.loop.run_in_executor(None, self.thread.join)

    def submit(self, work: Work, drafts: Sequence[Draft] = (), size: int = 0) -> asyncio.Future[Any]:
        """Have `work` done on `drafts`, which hold `size` bytes. Raises Problem 503 if it cannot be taken.

        The future has its value, or what it raised, once all is on disk. A caller
        that goes away does not stop it.
        """
        if self.closing:
            raise unavailable("The server is shutting down")
        if self.waiting >= MAX_WAITING or self.waiting_bytes > MAX_WAITING_BYTES:
            raise unavailable("Too many writes are waiting")
        self.waiting += 1
        self.waiting_bytes += size
        answer = self.loop.create_future()
        self.jobs.put(Job(work, drafts, answer, size))
        return answer

    async def append(self, draft: Draft, size: int = 0) -> Appended:
        """Store one draft. Raises Problem."""
        appended: Appended = await self.submit(Append(draft), (draft,), size)
        return appended

    @property
    def search_lag(self) -> int:
        """How many of the newest events full-text search may not find yet."""
        return max(0, self.cursor - self.searched)

    async def catch_up_search(self) -> None:
        """Have full-text search find what is stored by now, unless that is very much.

        A little at a time, so that no write waits longer than for a chore.
        """
        wanted, until = self.cursor, time.monotonic() + SEARCH_WAITS
        is_behind = 0 < self.search_lag <= MAX_SEARCH_CATCH_UP
        while is_behind and self.searched < wanted and time.monotonic() < until and not self.closing:
            is_behind = await self.submit(lambda appender: self.index(appender, INDEX_AT_ONCE))

    def settle(self, outcomes: list[Outcome], events: list[Event]) -> None:
        try:
            if events:
                self.publish(events)
        finally:
            for outcome in outcomes:
                self.answer(outcome)

    def answer(self, outcome: Outcome) -> None:
        job, value, failure = outcome
        self.waiting -= 1
        self.waiting_bytes -= job.size
        if job.answer.done():  # its caller went away
            return
        if failure is None:
            job.answer.set_result(value)
        else:
            job.answer.set_exception(failure)

    # ----------------------------------------------------------- on the thread

    def open(self) -> Appender:
        connection = open_writer(self.path, durability=self.durability)
        clock = lambda: text_of_time(self.clock())  # noqa: E731
        return Appender(connection, clock=clock, ids=self.ids, auto_create=self.auto_create, used=self.mark.cursor)

    def run(self) -> None:
        while (group := self.next_group()) is not None:
            if group:
                self.commit(group)
            if not group or time.monotonic() > self.chores_at + PUT_OFF:
                self.do_chores()
        self.at_end()
        self.close()

    def close(self) -> None:
        try:
            checkpoint(self.appender.connection, "TRUNCATE")
        except sqlite3.Error as error:
            log.warning("The last checkpoint failed: %s", error)
        self.appender.connection.close()
        self.mark.close()

    def next_group(self) -> list[Job] | None:
        """What waits now, or at most until the next chore; None when all is done and the end has come."""
        group: list[Job] = []
        try:
            while len(group) < MAX_GROUP:
                wait = 0.0 if group else max(QUIET, self.chores_at - time.monotonic())
                job = self.jobs.get(block=wait > 0, timeout=wait or None)
                if job is None:
                    self.jobs.put(None)  # the end: found again once what came before it is committed
                    return group or None
                group.append(job)
        except queue.Empty:
            pass
        return group

    def commit(self, group: list[Job]) -> None:
        started = time.monotonic()
        try:
            outcomes, events = self.transact(group)
        except Exception as error:  # whatever it is, the one thread that writes goes on
            self.fail(group, error)
            return
        self.trouble = None
        self.note_progress()
        self.commits += 1
        self.committed_events += len(events)
        self.commit_seconds += time.monotonic() - started
        self.loop.call_soon_threadsafe(self.settle, outcomes, events)

    def note_progress(self) -> None:
        """Called after a commit: only then is it true."""
        self.cursor = self.appender.cursor
        self.mark.note(self.cursor)
        self.searched = self.appender.searched

    def transact(self, group: list[Job]) -> tuple[list[Outcome], list[Event]]:
        """One transaction for all. Where the database refuses an entry, again with each entry for itself."""
        for puts_off in (True, False):
            appender = self.begin()
            appender.puts_off = puts_off
            try:
                appender.look_up(draft for job in group for draft in job.drafts)
                outcomes = [self.do(job) for job in group]
                return outcomes, appender.commit()
            except EntryRefused:
                appender.rollback()
        raise AssertionError("an entry can be refused only where entries are put off")

    def do(self, job: Job) -> Outcome:
        """Raises anything but Problem where the whole transaction must go."""
        try:
            return Outcome(job, job.work(self.appender))
        except Problem as problem:
            return Outcome(job, None, problem)

    def fail(self, group: list[Job], error: Exception) -> None:
        """Nothing of this group is stored, and everyone in it is told so."""
        is_fault = not isinstance(error, sqlite3.Error | DatabaseUnusable)
        log.error("A commit of %d writes failed: %s", len(group), error, exc_info=is_fault)
        self.failures += 1
        self.trouble = f"{error}"
        self.chores_at = time.monotonic() + RECOVERY_INTERVAL
        with suppress(sqlite3.Error):
            self.appender.connection.close()
        problem = fault() if is_fault else unavailable(f"The database cannot take writes now: {error}", retry_after=2)
        outcomes = [Outcome(job, None, problem) for job in group]
        self.loop.call_soon_threadsafe(self.settle, outcomes, [])

    def begin(self) -> Appender:
        """Begin a transaction; after trouble, on a new connection. Raises sqlite3.Error or DatabaseUnusable."""
        if self.trouble:
            self.appender = self.open()
        self.appender.begin()
        return self.appender

    # ------------------------------------------------------------------ chores

    def do_chores(self) -> None:
        """What is done while nobody writes, a little at a time; after trouble, first a look whether it is over."""
        try:
            if self.trouble:
                self.recover()
            is_busy = self.chore()
            self.synchronise_mark()
        except Exception as error:
            self.fail([], error)
            return
        self.chores_at = time.monotonic() + (QUIET if is_busy else CHORE_INTERVAL)

    def synchronise_mark(self) -> None:
        if time.monotonic() >= self.synchronise_at:
            self.synchronise_at = time.monotonic() + MARK_INTERVAL
            self.mark.synchronise()

    def recover(self) -> None:
        """Write something, so that a store to which nobody writes, because it is not ready, becomes ready again."""
        appender = self.begin()
        appender.open_transaction()
        appender.connection.execute("UPDATE progress SET searched = searched")
        appender.commit()
        self.trouble = None

    def chore(self) -> bool:
        """One piece of what is to be done. False: nothing more is."""
        appender = self.begin()
        if time.monotonic() >= self.look_at:
            self.look_at = time.monotonic() + min(1.0, self.lost_after / 4)
            self.look_at_sessions(appender)
        appender.open_transaction()
        is_busy = purge(appender.connection) or self.index(appender, INDEX_AT_ONCE)
        events = appender.commit()
        self.note_progress()
        self.loop.call_soon_threadsafe(self.settle, [], events)
        return is_busy

    def look_at_sessions(self, appender: Appender) -> None:
        """Find those that are lost, and those that nobody keeps any longer.

        Silence counts from the start of this process at the earliest: before, nobody could be heard. A clock that
        has jumped by more than a day deletes nothing.
        """
        now = self.clock()
        lose_silent(appender, text_of_time(now - self.lost_after))
        if self.retention_days and abs(now - time.monotonic() - self.clock_drift) < A_DAY:
            delete_old(appender, text_of_time(now - self.retention_days * A_DAY))

    def index(self, appender: Appender, limit: int) -> bool:
        appender.insert_entries()
        appender.open_transaction()
        appender.searched, is_behind = index_search(appender.connection, limit=limit)
        return is_behind
