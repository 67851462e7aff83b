"""A database from the lake: the events of one shard in the order of their cursors, and all that follows from them.

They are read a window of cursors at a time, each sorted where it is read, so that a long history needs no more memory
than a short one. Log entries of sessions that are deleted by now are not brought back only to be removed: of a shard
with a short retention nearly all is such.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

from export.layout import SESSIONS, Step, unseen
from lake import columns
from lake.bucket import BucketAway, BucketRefused, told_of
from lake.chain import Sealed, Tail, insert, tail_of
from lake.table import open_table, sealed_cursor
from lake.witness import contradiction
from sessionstore.admin.restore import (
    BESIDE,
    DATABASE,
    PART,
    Insertion,
    Restored,
    check_empty,
    put_beside,
    put_in_place,
)
from sessionstore.model.events import Event, is_id, is_user
from sessionstore.store.appender import INSERTS, MAX_ROWS, is_of_the_disk
from sessionstore.store.high_water_mark import Newest, read_newest, write_newest
from sessionstore.store.maintenance import purge
from sessionstore.store.owner import own_folder
from sessionstore.store.schema import open_writer
from sessionstore.store.shard import kept_shard
from sessionstore.store.write_ahead_log import checkpoint

T = TypeVar("T")
MOST_ROWS, MOST_BYTES = 10_000, 32 << 20
"""Of events that are read at once: as many, or as many as the last ones let expect to have so many bytes."""
WIDEST = 1 << 20
"""Cursors that are looked through at once where few of them are wanted."""
UNSEEN = 1_000_000_000
"""Cursors that a lost database may have given after the last that was sealed, and that nobody may give again: more
than any shard takes while its bucket is away."""
SHARD = {"shard": "{shard}"}
"""Left to whoever knows it."""
TABLES = {
    "events": (columns.EVENTS, ["day", "shard"]),
    "sessions": (columns.SESSIONS, ["shard"]),
    "details": (columns.DETAILS, ["what", "shard"]),
    "deletions": (columns.DELETIONS, ["shard"]),
}
READING = {"datafusion.execution.target_partitions": "1", "datafusion.execution.batch_size": "1024"}


class NotInLake(Exception):
    """The lake does not have what is asked for. The message says what it has."""


class Range(NamedTuple):
    """Which events of a shard: those after a cursor that `which`, SQL, chooses."""

    after: int
    which: str = "true"


class Origin:
    """One shard of a lake, as it was when it was opened."""

    def __init__(self, url: str, shard: str | None) -> None:
        """Raises NotInLake, and what the bucket or deltalake says."""
        self.url = url
        with as_not_in_lake(url):
            self.tails = tail_of(url)  # before the tables: what is gone from there by then is in them
        self.tables = {name: open_or_say(url, name, bool(self.tails)) for name in TABLES}
        self.shard = shard or self.only_shard()
        self.sealed = sealed_cursor(self.tables["events"], self.shard)
        self.tail = self.tails.get(self.shard, [])
        with as_not_in_lake(url):
            newest = Tail(url, self.shard).get(self.tail[-1]).link if self.tail else None
        self.newest = max(self.sealed, newest.upto if newest else 0)
        """The newest cursor that the bucket has."""
        self.keeper = newest.store if newest else ""
        if not self.sealed and not self.tail:
            raise NotInLake(f"{url} has no shard {self.shard!r}: it has {', '.join(self.shards()) or 'none'}")
        self.queries = QueryBuilder(READING)
        for name, table in self.tables.items():
            self.queries.register(name, table)

    def shards(self) -> list[str]:
        return sorted({*self.tails, *(str(partition["shard"]) for partition in self.tables["events"].partitions())})

    def only_shard(self) -> str:
        found = self.shards()
        if len(found) != 1:
            raise NotInLake(f"{self.url} has {len(found)} shards: say which with --shard: {', '.join(found)}")
        return found[0]

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Of a query in which {shard} is the shard's name."""
        for batch in self.queries.execute(query.format(shard=f"'{self.shard}'")):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def value(self, query: str) -> Any:
        ((value,),) = self.rows(query)
        return value

    def events(self, wanted: Range) -> Iterator[list[tuple[Any, ...]]]:
        """Those that are wanted, in the order of their cursors, a bounded number at a time, as `Event` has them."""
        after, width, most = wanted.after, MOST_ROWS, MOST_ROWS // 10
        while after < self.sealed:
            upto = min(after + width, self.sealed)
            some = list(self.rows(SOME.format(after=after, upto=upto, which=wanted.which, most=most, **SHARD)))
            if some:
                yield some
            elif width == WIDEST:  # after a loss very many cursors in a row may have no event
                upto = (self.value(NEXT.format(after=upto, **SHARD)) or self.sealed + 1) - 1
            if is_full := len(some) == most:
                upto = some[-1][0]
            width = max(1, upto - after) if is_full else min(2 * width, WIDEST)
            most = fitting(some, most)
            after = upto

    def whole_range(self, after: int) -> Range:
        """All but log entries from before the first session that still lives."""
        first = 0 if after else self.value(FIRST_OF_WHAT_LIVES) or self.sealed + 1
        return Range(after, f"seq IS NULL OR cursor >= {first}")

    def open_range(self) -> Range:
        """All of the sessions that have not ended."""
        names = ", ".join(f"'{name}'" for (name,) in self.rows(OPEN) if is_id(name))
        which = f"session_id IN ({names or 'NULL'})"
        return Range((self.value(FIRST_OF.format(which=which)) or self.sealed + 1) - 1, which)

    def store(self) -> str:
        """What the store calls itself; a new name where the lake does not know."""
        rows = [(self.keeper,)] if self.keeper else list(self.rows(STORE))
        return str(rows[0][0]) if rows else secrets.token_hex(8)

    def acknowledged(self, after: int) -> Iterator[list[Event]]:
        """What came after a cursor, and after the last seal, where the bucket acknowledges. Raises NotInLake."""
        chain = Tail(self.url, self.shard)
        after = max(after, self.sealed)
        with as_not_in_lake(self.url):
            yield from chain.events(chain.since(self.tail, after), after)


TIME = "to_char({}, '%Y-%m-%dT%H:%M:%S%.3fZ')"
SOME = f"""
SELECT cursor, type, session_id, user_id, event_id, agent_id, {TIME.format("timestamp")}, {TIME.format("received_at")},
       actor, patch, seq, kind, data
FROM events WHERE shard = {{shard}} AND cursor > {{after}} AND cursor <= {{upto}} AND ({{which}})
ORDER BY cursor LIMIT {{most}}"""
NEXT = "SELECT min(cursor) FROM events WHERE shard = {shard} AND cursor > {after}"
FORGOTTEN = "SELECT session_id, cursor FROM deletions WHERE shard = {shard}"
DELETED = f"""
SELECT session_id, max(cursor) AS cursor FROM (
  SELECT session_id, cursor FROM events WHERE shard = {{shard}} AND type = 'session_deleted'
  UNION ALL {FORGOTTEN})
GROUP BY session_id"""
FIRST_OF_WHAT_LIVES = f"""
SELECT min(e.cursor) FROM events e LEFT JOIN ({DELETED}) d ON d.session_id = e.session_id
WHERE e.shard = {{shard}} AND (d.cursor IS NULL OR e.cursor > d.cursor)"""
MONTHS = "SELECT DISTINCT substr(minute, 1, 7) FROM details WHERE shard = {shard} AND what = 'minutes'"
MINUTES = """
SELECT minute, max(events) FROM details
WHERE shard = {{shard}} AND what = 'minutes' AND substr(minute, 1, 7) = '{month}' GROUP BY minute"""
STORE = "SELECT record FROM details WHERE shard = {shard} AND what = 'store' LIMIT 1"
OPEN = f"""
SELECT s.session_id FROM (
  SELECT session_id, status, last_cursor, row_number() OVER (PARTITION BY session_id ORDER BY sealed DESC) AS age
  FROM sessions WHERE shard = {{shard}}) s
LEFT JOIN ({DELETED}) d ON d.session_id = s.session_id
WHERE s.age = 1 AND s.status IN ('active', 'waiting') AND (d.cursor IS NULL OR s.last_cursor > d.cursor)"""
FIRST_OF = "SELECT min(cursor) FROM events WHERE shard = {{shard}} AND {which}"


@contextmanager
def as_not_in_lake(url: str) -> Iterator[None]:
    """What keeps the chain from being read."""
    try:
        with told_of(url):
            yield
    except Sealed as gone:
        raise NotInLake(f"It is being sealed meanwhile, and {gone}: begin again") from None
    except (BucketAway, BucketRefused) as error:
        raise NotInLake(str(error)) from None


@cache
def folder_of_nothing() -> Path:
    """For tables without a row, as long as this process is there: who restores may only be allowed to read."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def open_or_say(url: str, name: str, is_made: bool) -> DeltaTable:
    """`is_made`: where there is none, as nothing is sealed yet."""
    try:
        return DeltaTable(f"{url}/{name}")
    except TableNotFoundError:
        if is_made:
            return open_table((folder_of_nothing() / name).as_uri(), *TABLES[name])
        raise NotInLake(f"There is no lake in {url}: nothing has been sealed there") from None
    except (DeltaError, OSError) as error:
        raise NotInLake(f"The lake {url} cannot be read: {str(error).partition(chr(10))[0]}") from None


def ahead(pieces: Iterator[T]) -> Iterator[T]:
    """The next one is read while one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece


def fitting(some: list[tuple[Any, ...]], most: int) -> int:
    """How many rows may be read next, if they are as large as these; not many more at once."""
    size = sum(len(row[-1]) for row in some)
    return max(1, min(MOST_ROWS, 2 * most, MOST_BYTES * len(some) // size if size else MOST_ROWS))


# ----------------------------------------------------------------------- inserting


class Return(Insertion):
    """One shard on its way into one database."""

    def __init__(self, database: sqlite3.Connection, source: Origin, step: Step) -> None:
        super().__init__(database)
        self.source = source
        self.step = step
        database.execute("CREATE TEMP TABLE gone (session_id TEXT PRIMARY KEY, cursor INTEGER NOT NULL) WITHOUT ROWID")
        database.execute("CREATE TEMP TABLE forgotten (session_id TEXT NOT NULL, cursor INTEGER PRIMARY KEY)")
        self.gone = lru_cache(10_000)(self.gone_at)

    def run(self, wanted: Range) -> Restored:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany("INSERT INTO gone VALUES (?, ?)", self.source.rows(DELETED))
        self.database.executemany("INSERT INTO forgotten VALUES (?, ?)", self.source.rows(FORGOTTEN))
        self.database.execute("COMMIT")
        for some in ahead(self.source.events(wanted)):
            self.database.execute("BEGIN IMMEDIATE")
            self.insert_all(some)
            self.database.execute("COMMIT")
            self.step(self.restored.events, 0)
        self.database.execute("BEGIN IMMEDIATE")
        while purge(self.database):
            pass
        self.database.execute("COMMIT")
        return self.restored

    def count_minutes(self) -> None:
        """As the store had them: they count what is deleted, too. A month at a time: years have millions."""
        for (month,) in list(self.source.rows(MONTHS)):
            self.database.execute("BEGIN IMMEDIATE")
            self.database.executemany(COUNT_MINUTE, self.source.rows(MINUTES.format(month=month)))
            self.database.execute("COMMIT")

    def add_acknowledged(self) -> None:
        """What was not sealed."""
        for events in self.source.acknowledged(self.head):
            insert(self, events)

    def gone_at(self, session_id: str) -> int:
        """The cursor by which it was deleted last; 0: it is not."""
        found = self.database.execute("SELECT cursor FROM gone WHERE session_id = ?", (session_id,)).fetchone()
        return int(found[0]) if found else 0

    def named(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """A deletion says nowhere in the lake but in `deletions` whose it is, and there only until that is erased."""
        cursor, event_type, session_id, *_ = row
        if event_type != "session_deleted" or session_id != f"forgotten-{cursor}":
            return row
        found = self.database.execute("SELECT session_id FROM forgotten WHERE cursor = ?", (cursor,)).fetchone()
        if found is None:
            return row
        return (*row[:2], found[0], *row[3:-1], row[-1].replace(f'"{session_id}"', f'"{found[0]}"'))

    def insert_all(self, rows: list[tuple[Any, ...]]) -> None:
        """Many at once, but for those that have to be looked at: what has lost its beginning."""
        waiting: list[tuple[Any, ...]] = []
        for row in map(self.named, rows):
            cursor, event_type, session_id = row[:3]
            if row[SEQ] is not None and self.gone(session_id) > cursor:
                self.database.execute("INSERT OR IGNORE INTO lines VALUES (?, '')", (cursor,))
            elif why := fault_of(row):
                self.odd(f"{SESSIONS}/{session_id}", f"cursor {cursor}: is left out: {why}")
            elif session_id in self.live or event_type in BOUNDS:
                waiting.append(row)
                (self.live.discard if event_type == "session_deleted" else self.live.add)(session_id)
            else:
                self.flush(waiting)
                self.insert(Event(*row))
            if len(waiting) == MAX_ROWS:
                self.flush(waiting)
        self.flush(waiting)

    def flush(self, waiting: list[tuple[Any, ...]]) -> None:
        try:
            if waiting:
                self.database.execute(INSERTS[len(waiting)], [value for row in waiting for value in row])
                self.restored.events += len(waiting)
        except sqlite3.DatabaseError as error:
            if is_of_the_disk(error):
                raise
            for row in waiting:
                self.insert(Event(*row))
        waiting.clear()


SEQ = Event.__struct_fields__.index("seq")
BOUNDS = ("session_created", "session_deleted")
COUNT_MINUTE = "INSERT INTO minutes VALUES (?, ?) ON CONFLICT DO UPDATE SET events = max(events, excluded.events)"


def fault_of(row: tuple[Any, ...]) -> str:
    """What the schema leaves to the server to check. Nothing: an empty text."""
    _, _, session_id, user_id, event_id, agent_id, _, _, actor, *_ = row
    for name in (session_id, event_id, agent_id):
        if name is not None and not is_id(name):
            return f"{name!r} is no id"
    for name in (user_id, actor):
        if name and not is_user(name):
            return f"{name!r} is no user"
    return ""


# -------------------------------------------------------------------------- the whole


def restore(
    url: str,
    into: Path,
    shard: str | None = None,
    *,
    is_forced: bool = False,
    is_newer: bool = False,
    is_open: bool = False,
    step: Step = unseen,
) -> tuple[Restored, Origin]:
    """Make the database of the folder `into` from a shard of the lake; `shard` may be left out where there is one.

    `is_forced`: a database that is there is put beside. `is_newer`: it stays, and gets what came after its newest.
    `is_open`: only sessions that had not ended. Raises NotInLake, NotEmpty, CannotStart if a server has the folder,
    sqlite3.Error, OSError, and what deltalake says.
    """
    lock = own_folder(into)
    try:
        if is_newer:
            source = source_for(into / DATABASE, url, shard)
            restored = write(source, into / DATABASE, step)
        else:
            check_empty(into, is_forced)
            source = Origin(url, shard)
            if is_open and source.tail:
                raise NotInLake(f"The bucket acknowledges for {source.shard}: all of it comes back, without --open")
            part = into / PART
            for suffix in ("", *BESIDE):
                part.with_name(part.name + suffix).unlink(missing_ok=True)
            restored = write(source, part, step, is_new=True, is_open=is_open)
            put_beside(into)
            put_in_place(part, into)
        spend_cursors(into, source.newest)
        return restored, source
    finally:
        os.close(lock)


def source_for(database: Path, url: str, shard: str | None) -> Origin:
    """The shard of a database that is there. Raises NotInLake where the lake has another store's."""
    with closing(open_writer(database)) as kept:
        name = kept_shard(kept)
        source = Origin(url, name.name if name else shard)
        if found := contradiction(kept, source.tables["events"], source.shard, source.sealed):
            raise NotInLake(f"The lake {url} has other events as {source.shard} than {database}: {found}")
    return source


def write(source: Origin, path: Path, step: Step, *, is_new: bool = False, is_open: bool = False) -> Restored:
    with closing(open_writer(path, durability="normal")) as database:
        if is_new:  # one that is interrupted is begun anew
            for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
                database.execute(f"PRAGMA {pragma}")
        back = Return(database, source, step)
        if kept_shard(database) is None:
            database.execute("INSERT INTO lake VALUES (1, ?, ?)", (source.shard, source.store()))
        restored = back.run(source.open_range() if is_open else source.whole_range(back.head))
        if not is_open:
            back.count_minutes()
            back.add_acknowledged()
        checkpoint(database, "TRUNCATE")
    return restored


def spend_cursors(into: Path, sealed: int) -> None:
    """What came after the seal is lost, and nobody knows how much that was, unless the folder is that of the machine
    itself: its mark says. One that says what is accepted as lost is of a restore, and nobody has written since."""
    newest = read_newest(into)
    if newest.cursor >= sealed and newest.accepted is None:
        return
    with closing(sqlite3.connect(into / DATABASE)) as database:
        ((head,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
    spent = newest.cursor if newest.cursor >= sealed else sealed + UNSEEN
    write_newest(into, Newest(spent, accepted=head))
