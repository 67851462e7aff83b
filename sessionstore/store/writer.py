"""Group commit: one thread writes, whatever waits goes into one transaction, and one fsync serves them all."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from sessionstore.histogram import NUMBERS, Histogram
from sessionstore.model.events import Draft, Event, text_of_time
from sessionstore.model.problems import Problem, fault, unavailable
from sessionstore.model.redaction import Redactor
from sessionstore.prices import Prices
from sessionstore.store.appender import Appended, Appender, EntryRefused
from sessionstore.store.checkpoints import purge as purge_material
from sessionstore.store.closing import lose_silent
from sessionstore.store.disk import Disk
from sessionstore.store.folder import Ground
from sessionstore.store.high_water_mark import HighWaterMark
from sessionstore.store.maintenance import (
    SEARCHED_AT_ONCE,
    give_back,
    index_search,
    merge_search,
)
from sessionstore.store.schema import DatabaseUnusable, open_writer
from sessionstore.store.turns import Turns
from sessionstore.store.write_ahead_log import WriteAheadLog

if TYPE_CHECKING:
    from sessionstore.store.chain import Chain

logger = logging.getLogger(__name__)

LARGE = 16 << 10
"""Bytes: what has more is decoded, and looked through for secrets, beside the event loop."""
LARGE_AT_ONCE, A_DRAFT = 1 << 20, 512
"""Bytes of large writes that the thread is handed at the same time, or one of more, since small ones wait for all of
them; a draft, however short, counts for so many."""
MAX_GROUP = 512
MIN_GROUP, LONG_GROUP = 16, 16 << 10
"""Where what waits has more bytes than that, half of it is committed, of so many writes at least, while the event loop
answers and reads the other half; in place of each waiting for the other. With less there is too little to gain: most
of it is Python, which one thread runs at a time."""
DOUBTS = 100
"""For how many transactions eventIds are looked up, once one that was taken to be new was not."""
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 128 << 20
MAX_SEARCH_CATCH_UP, SEARCH_WAITS = 5_000, 1.0
"""How many events that are not in the index yet a search waits for, and how many seconds at most."""
INDEX_AT_ONCE = 100
"""How many events are brought into the index at once, beside those that have been written since the last time: what a
write may have to wait for."""
INDEX_FROM = 300
"""From so many new ones on they are not put off. A third as many, three times as often, cost half as much again."""
CHORE_INTERVAL = 0.25
"""Seconds between looks at what is to do besides writing, while there is nothing."""
A_JUMP = 1.0
"""Seconds by which the clock may go wrong between two looks; by more, it has been set."""
QUIET = 0.01
"""Seconds for which nobody must have written before a chore goes on."""
PUT_OFF = 0.05
"""Seconds for which writing may put a chore off."""
PAGES_AT_ONCE = 128
"""Pages, of 4 KiB, that one chore returns to the file system: what a write may have to wait for."""
INDEX_PAGES_AT_ONCE = 64
"""Pages of the full-text index that one chore merges."""
PAGES_KEPT = 4096
"""Free pages that stay while the disk has room: what is written next goes there."""
MARK_INTERVAL = 1.0
"""Seconds between putting the newest cursor on disk, beside the database: what a power cut may take of it."""
GAP = "events_dropped"
"""The kind of the action by which an agent says what it had to drop."""
RETRY_FULL = 2
"""Seconds after which one whose write was refused for want of room may come back."""
RECOVERY_INTERVAL = 1.0
"""Seconds between attempts to write again after a failure."""

UNREDACTED = Redactor(None)

Result = TypeVar("Result")

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


class JobFuture(Protocol):
    """Who is told what came of it: a future, or what behaves like one."""

    def done(self) -> bool: ...
    def set_result(self, value: Any, /) -> None: ...
    def set_exception(self, problem: Any, /) -> None: ...


class Job(NamedTuple):
    work: Work
    drafts: Sequence[Draft]
    """What it will append, as far as that is known."""
    answer: JobFuture
    size: int


def makes_room(job: Job) -> bool:
    """Whether it only deletes: what the reserve of the disk is for."""
    return bool(job.drafts) and all(draft.type == "session_deleted" for draft in job.drafts)


class Outcome(NamedTuple):
    job: Job
    value: Any
    failure: BaseException | None = None


@dataclass
class WriterCounts:
    """Since the start."""

    accepted: Counter[str] = field(default_factory=Counter)
    """Events that are stored, by type."""
    accepted_bytes: int = 0
    gaps: int = 0
    """Times that an agent said what it had to drop."""
    tally: Counter[str] = field(default_factory=Counter)
    """As the appender's."""
    commit_seconds: Histogram = field(default_factory=Histogram)
    commit_sizes: Histogram = field(default_factory=partial(Histogram, NUMBERS))
    failures: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Commits and chores that failed, by SQLite's name for it, or Python's."""

    def take(self, events: list[Event]) -> None:
        for event in events:
            self.accepted[event.type] += 1
            self.accepted_bytes += len(event.data)
            self.gaps += event.kind == GAP


@dataclass(eq=False)
class Writer:
    """Takes work from the event loop, commits it, and then answers and publishes, in the order of the commits."""

    path: Path
    _: KW_ONLY
    publish: Callable[[list[Event]], None]
    ids: Iterator[str]
    disk: Disk
    ground: Ground
    clock: Callable[[], float] = time.time
    durability: str = "full"
    auto_create: bool = True
    lost_after: float = 900.0
    redactor: Redactor = UNREDACTED
    prices: Prices = field(default_factory=Prices)
    spared: Callable[[], Container[str]] = frozenset
    """Sessions that are not lost, though nothing was said in them: their agents ask for orders."""
    chain: Chain | None = None
    """Has each transaction before it is committed; None: only the disk has it."""
    at_end: Callable[[], None] = lambda: None
    """Called once the last write is committed, while the database is still open."""
    counts: WriterCounts = field(default_factory=WriterCounts)
    trouble: str | None = None
    """Why the last commit failed; None while commits succeed."""
    cursor: int = 0
    """The newest that is committed."""
    searched: int = 0
    """What full-text search finds: everything at or below this cursor."""
    waiting: int = 0
    waiting_bytes: int = 0
    closing: bool = False
    merge: Literal["", "begin", "go on"] = ""
    """`begin`: whoever has deleted much wants the full-text index to be smaller by it. Empty: that is done."""

    def __post_init__(self) -> None:
        self.log = WriteAheadLog(self.path)
        self.mark = HighWaterMark(self.path.parent)
        self.jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self.arrived: list[Job] = []
        """Those of this turn of the event loop, which the thread is handed at its end, all at once."""
        self.held: list[Job] = []
        """Those that begin a session anew of which something is left, and what came for it after them."""
        self.emptied_at = self.emptied_before = time.monotonic()
        """When the queue was last seen empty, and the time before: what waits has come since then."""
        self.indexed_at = (0, 0)
        """The newest cursor, and the characters stored, when the index was last brought forward."""
        self.chores_at = self.synchronise_at = 0.0
        self.is_returning = False
        self.doubts = 0
        """For how many transactions eventIds are looked up."""
        self.look_at = time.monotonic() + self.lost_after
        self.clock_drift = self.clock() - time.monotonic()
        self.thread = threading.Thread(target=self.run, name="writer", daemon=True)
        self.large, self.reading = Turns(LARGE_AT_ONCE), Turns(1)
        self.readers = ThreadPoolExecutor(1, "large")
        """One, so that however many large events come, the event loop waits for one thread's turn at the most."""

    # ------------------------------------------------------- on the event loop

    async def start(self) -> None:
        """Open the database, bring it to the newest version, and begin. Raises what opening it raises."""
        self.loop = asyncio.get_running_loop()
        self.mark.open()
        self.disk.look_if_due()
        self.appender = await self.loop.run_in_executor(None, self.open)
        self.note_progress()
        self.indexed_at = self.cursor, self.counts.accepted_bytes
        self.trouble = self.chain.away if self.chain else None  # until the thread has looked into the bucket
        self.thread.start()

    async def stop(self) -> None:
        """Take no more, finish what was taken, and leave a database with nothing in its log."""
        self.closing = True
        self.hand_over()
        self.jobs.put(None)
        await self.loop.run_in_executor(None, self.thread.join)
        self.readers.shutdown(wait=False)

    def submit(self, work: Work, drafts: Sequence[Draft] = (), size: int = 0) -> asyncio.Future[Any]:
        """Have `work` done on `drafts`, which hold `size` bytes. Raises Problem 503 if it cannot be taken.

        From here on the drafts are without secrets. The future has its value, or what it raised, once all is on disk.
        A caller that goes away does not stop it.
        """
        answer = self.loop.create_future()
        self.put(Job(work, drafts, answer, size))
        return answer

    def put(self, job: Job) -> None:
        """The same for one who is told by other means than a future."""
        if self.closing:
            raise unavailable("The server is shutting down")
        if self.waiting >= MAX_WAITING or self.waiting_bytes > MAX_WAITING_BYTES:
            raise unavailable("Too many writes are waiting")
        if self.ground.why:
            raise unavailable(self.ground.why, retry_after=RETRY_FULL)
        if self.disk.is_full and not makes_room(job):
            raise unavailable(self.disk.said(), retry_after=RETRY_FULL)
        for draft in job.drafts:
            self.redactor(draft)
        self.waiting += 1
        self.waiting_bytes += job.size
        if not self.arrived:
            self.loop.call_soon(self.hand_over)
        self.arrived.append(job)

    def hand_over(self) -> None:
        arrived, self.arrived = self.arrived, []
        for at in range(0, len(arrived), MIN_GROUP):
            self.jobs.put(arrived[at : at + MIN_GROUP])

    async def append(self, draft: Draft, size: int = 0) -> Appended:
        """Store one draft. Raises Problem."""
        if size > LARGE:
            await self.beside(self.redactor, draft)
        appended: Appended = await self.submit_in_turn(Append(draft), (draft,), size)
        return appended

    async def submit_in_turn(self, work: Work, drafts: Sequence[Draft], size: int) -> Any:
        """What comes of it, as of `submit`; what is large waits for its client's turn first."""
        weight = max(size, len(drafts) * A_DRAFT)
        if weight <= LARGE:
            return await self.submit(work, drafts, size)
        async with self.large.of(weight):
            return await self.submit(work, drafts, size)

    async def beside(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """What it returns, or raises; it is done on another thread, one large event after the other."""
        async with self.reading.of():
            return await self.loop.run_in_executor(self.readers, work, *arguments)

    @property
    def commits(self) -> int:
        return self.counts.commit_seconds.count

    def oldest(self) -> float:
        """For how many seconds the write that waits for longest has waited, at most."""
        return time.monotonic() - self.emptied_before if self.waiting else 0.0

    @property
    def search_lag(self) -> int:
        """How many of the newest events full-text search may not find yet."""
        return max(0, self.cursor - self.searched)

    async def catch_up_search(self) -> None:
        """Have full-text search find what is stored by now, unless that is very much, or nothing can be written.

        A little at a time, so that no write waits longer than for a chore.
        """
        wanted, until = self.cursor, time.monotonic() + SEARCH_WAITS
        is_behind = 0 < self.search_lag <= MAX_SEARCH_CATCH_UP
        with suppress(Problem):
            while is_behind and self.searched < wanted and time.monotonic() < until:
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
        self.log.take(connection)
        self.ground.take()
        clock = lambda: text_of_time(self.clock())  # noqa: E731
        return Appender(
            connection,
            clock=clock,
            ids=self.ids,
            auto_create=self.auto_create,
            used=self.mark.cursor,
            redacted=self.redactor.data,
            prices=self.prices,
            tally=self.counts.tally,
            keep=self.chain.keep if self.chain else None,
        )

    def run(self) -> None:
        while (group := self.next_group()) is not None:
            is_quiet = not group
            if group:
                self.commit(group)
                if self.chain is not None:
                    self.chain.gather()
            del group  # what was asked for may be large, and chores may take long
            if not self.trouble and not self.appender.is_open:
                self.shorten_log()
            if is_quiet or time.monotonic() > self.chores_at + PUT_OFF:
                self.attempt(self.do_chores)
            elif self.cursor - self.indexed_at[0] >= INDEX_FROM and not self.trouble:
                self.attempt(self.keep_up)  # in the transaction of those who write next: one sync serves both
        if not self.ground.why:
            self.attempt(self.conclude)
        self.at_end()
        self.close()

    def attempt(self, chore: Callable[[], object]) -> None:
        try:
            chore()
        except Exception as error:  # whatever it is, the one thread that writes goes on
            self.fail([], error)

    def close(self) -> None:
        try:
            self.log.put("TRUNCATE")
        except sqlite3.Error as error:
            logger.warning("The last checkpoint failed: %s", error)
        self.appender.connection.close()
        self.mark.close()
        if self.chain is not None:
            self.chain.close()

    def next_group(self) -> list[Job] | None:
        """What waits now, or at most until the next chore; None when all is done and the end has come."""
        group, self.held = self.held, []
        held = len(group)
        try:
            while len(group) - held < self.most_at_once():
                wait = 0.0 if group else max(QUIET, self.chores_at - time.monotonic())
                jobs = self.jobs.get(block=wait > 0, timeout=wait or None)
                if jobs is None:
                    self.jobs.put(None)  # the end: found again once what came before it is committed
                    return group or None
                group += jobs
        except queue.Empty:
            self.emptied_before, self.emptied_at = self.emptied_at, time.monotonic()
        return group

    def most_at_once(self) -> int:
        """How many writes the next group may have, by what waits now."""
        most = max(MIN_GROUP, self.waiting // 2) if self.waiting_bytes > LONG_GROUP else MAX_GROUP
        return min(MAX_GROUP, most)

    def commit(self, group: list[Job]) -> None:
        if self.ground.why:
            self.tell(group, partial(unavailable, self.ground.why, retry_after=RETRY_FULL))
            return
        started = time.monotonic()
        try:
            outcomes, events = self.transact(group)
        except Exception as error:  # whatever it is, the one thread that writes goes on
            self.fail(group, error)
            return
        self.trouble = None
        if self.closing:  # what has to wait for more than this would hold up the end
            outcomes += [Outcome(job, None, unavailable("The server is shutting down")) for job in self.held]
            self.held = []
        self.note_progress()
        self.log.note(sum(job.size for job in group))
        self.counts.take(events)
        self.counts.commit_sizes.note(len(group))
        self.counts.commit_seconds.note(time.monotonic() - started)
        self.loop.call_soon_threadsafe(self.settle, outcomes, events)

    def note_progress(self) -> None:
        """Called after a commit: only then is it true."""
        self.cursor = self.appender.cursor
        self.mark.note(self.cursor)
        self.searched = self.appender.searched

    def transact(self, group: list[Job]) -> tuple[list[Outcome], list[Event]]:
        """One transaction for all. Where the database refuses an entry, again: after a look at what is there already,
        and at last with each entry for itself."""
        drafts = [draft for job in group for draft in job.drafts]
        self.doubts = max(0, self.doubts - 1)
        for trusts, buffers in ((not self.doubts, True), (False, True), (False, False)):
            appender = self.begin()
            appender.buffers = buffers
            try:
                appender.note_event_ids(drafts, trusts=trusts)
                outcomes, held = self.do_all(group)
                events = appender.commit()
                self.held = held
                return outcomes, events
            except EntryRefused:
                self.doubts = DOUBTS
                appender.rollback()
        raise AssertionError("an entry can be refused only where entries are put off")

    def do_all(self, group: list[Job]) -> tuple[list[Outcome], list[Job]]:
        """What came of each, and those that have to come again, in their order."""
        outcomes, held, names = [], [], set[str]()
        for job in group:
            ids = {draft.session_id for draft in job.drafts} if names or self.appender.is_purging else set()
            if ids and (not names.isdisjoint(ids) or not self.appender.is_free(ids)):
                held.append(job)
                names |= ids
            else:
                outcomes.append(self.do(job))
        return outcomes, held

    def do(self, job: Job) -> Outcome:
        """Raises anything but Problem where the whole transaction must go."""
        try:
            return Outcome(job, job.work(self.appender))
        except Problem as problem:
            return Outcome(job, None, problem.with_traceback(None))  # which leads to the job, and to its answer

    def fail(self, group: list[Job], error: Exception) -> None:
        """Nothing of this group is stored, and everyone in it is told so."""
        is_fault = not isinstance(error, sqlite3.Error | DatabaseUnusable)
        if self.chain is None or self.trouble != f"{error}":  # a bucket that is away is said once an attempt
            logger.error("A commit of %d writes failed: %s", len(group), error, exc_info=is_fault)
        self.counts.failures += 1
        self.counts.errors[getattr(error, "sqlite_errorname", type(error).__name__)] += 1
        self.trouble = f"{error}"
        self.chores_at = time.monotonic() + RECOVERY_INTERVAL
        self.let_go()
        why = f"The database cannot take writes now: {error}"
        self.tell(group, fault if is_fault else partial(unavailable, why, retry_after=2))

    def tell(self, group: list[Job], problem: Callable[[], Problem]) -> None:
        """Everyone in it that nothing of it is stored; each gets a problem of his own."""
        outcomes = [Outcome(job, None, problem()) for job in group]
        self.loop.call_soon_threadsafe(self.settle, outcomes, [])

    def begin(self) -> Appender:
        """Begin a transaction; after trouble, on a new connection. Raises sqlite3.Error or DatabaseUnusable."""
        if self.trouble:
            self.ground.look()
            if self.ground.why:  # what stands there now is not ours to write to
                raise DatabaseUnusable(self.ground.why)
            if self.chain is not None:
                self.let_go()
                self.chain.take()
            self.appender = self.open()
            if self.chain is not None:
                self.show_missed(self.chain)
        self.appender.begin()
        return self.appender

    def let_go(self) -> None:
        """Close the connection. Unless somebody else has one, the log goes with it, and the next makes a new one."""
        self.ground.let_go()
        with suppress(sqlite3.Error):
            self.appender.connection.close()

    def show_missed(self, chain: Chain) -> None:
        """What the bucket had, and nobody was told of."""
        for events in chain.missed(self.appender.connection, self.cursor):
            self.mark.spend(events[-1].cursor)
            self.loop.call_soon_threadsafe(self.settle, [], events)
        self.note_progress()

    # ------------------------------------------------------------------ chores

    def do_chores(self) -> None:
        """What is done while nobody writes, a little at a time; after trouble, first a look whether it is over."""
        self.disk.look_if_due()
        self.ground.look_if_due()
        is_busy = False
        if not self.ground.why:
            if self.trouble:
                self.recover()
            self.conclude()
            self.log.bound()
            is_busy = self.chore() or self.make_room()
            self.synchronise_mark()
            if self.chain is not None:
                self.chain.let_go()
        self.chores_at = time.monotonic() + (QUIET if is_busy else CHORE_INTERVAL)

    def synchronise_mark(self) -> None:
        if time.monotonic() >= self.synchronise_at:
            self.synchronise_at = time.monotonic() + MARK_INTERVAL
            self.mark.synchronise()

    def shorten_log(self) -> None:
        """What is put into the database without success is put there later: until then the log is only longer."""
        try:
            if self.log.is_due(somebody_waits=not self.jobs.empty()):
                self.log.put()
        except sqlite3.Error as error:
            self.counts.errors[error.sqlite_errorname] += 1
            logger.warning("The write-ahead log could not be put into the database: %s", error)

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
        is_purging = appender.purge() or purge_material(appender.connection, self.clock())
        events = appender.commit()
        self.note_progress()
        self.counts.take(events)
        self.loop.call_soon_threadsafe(self.settle, [], events)
        is_behind = self.keep_up()
        self.conclude()
        return is_behind or is_purging

    def conclude(self) -> None:
        """Commit what has come into the index, if it is not committed."""
        if self.appender.is_open and not self.trouble:
            self.appender.commit()
            self.note_progress()

    def keep_up(self) -> bool:
        """Bring the index forward by as much as has been written since the last time, and a little more: whoever
        writes waits for it, so that what is owed only becomes less, however much comes. False: nothing is owed.

        It is synced as all else: what is not could be lost with a sync that fails, and with it all that comes after.
        """
        appender, (cursor, characters) = self.begin(), self.indexed_at
        self.indexed_at = self.cursor, self.counts.accepted_bytes
        if not self.search_lag:
            return False
        events = INDEX_AT_ONCE + self.cursor - cursor
        return self.index(appender, events, SEARCHED_AT_ONCE + self.counts.accepted_bytes - characters)

    def look_at_sessions(self, appender: Appender) -> None:
        """Find those that are lost. Silence counts from the start of this process at the earliest: before, nobody could
        be heard; and from when the clock was set: what was heard by another clock says nothing of it."""
        now = self.clock()
        if self.clock_was_set(now):
            self.look_at = time.monotonic() + self.lost_after
            return
        lose_silent(appender, text_of_time(now - self.lost_after), self.spared())

    def make_room(self) -> bool:
        """Return some pages of what was deleted to the file system; all of them where it has need of them."""
        if self.merge:
            pages = -INDEX_PAGES_AT_ONCE if self.merge == "begin" else INDEX_PAGES_AT_ONCE
            self.merge = "go on" if merge_search(self.appender.connection, pages=pages) else ""
            return True
        keep = PAGES_KEPT if self.disk.status == "ok" else 0
        is_busy = give_back(self.appender.connection, keep=keep, limit=PAGES_AT_ONCE)
        if self.is_returning and not is_busy:
            self.log.put()  # only now the file is shorter
        self.is_returning = is_busy
        return is_busy

    def clock_was_set(self, now: float) -> bool:
        before, self.clock_drift = self.clock_drift, now - time.monotonic()
        return abs(self.clock_drift - before) > A_JUMP

    def index(self, appender: Appender, limit: int, size: int = SEARCHED_AT_ONCE) -> bool:
        appender.insert_entries()
        appender.open_transaction()
        appender.searched, is_behind = index_search(appender.connection, limit=limit, size=size)
        return is_behind
