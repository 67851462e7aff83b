"""Seals one range of cursors of one shard: what has come since the last seal, in one commit, exactly once.

It keeps no state that counts. Where the next range begins is read from the table itself, so that a sealer that was
killed anywhere, or whose answer was lost, goes on where the table says.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from deltalake import DeltaTable

from export.layout import open_reader, snapshot
from lake.columns import DETAILS, EVENTS, SESSIONS, batches, details, select
from lake.forgetting import hide
from lake.published import publish
from lake.table import Displaced, append, open_table, sealed_by
from lake.witness import doubt
from sessionstore import ROOT
from sessionstore.store.shard import kept_shard

MAX_EVENTS, MAX_BYTES, MAX_DAYS = 50_000, 24 << 20, 32
"""Of a commit, which holds its text twice in memory, long texts (LONG) four times, and a file for each day."""
LONG = 4096
UNSEALED = (
    "SELECT cursor, length(data), substr(received_at, 1, 16) FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?"
)
NEW_EVENTS = select(
    EVENTS,
    """FROM (SELECT cursor AS place FROM main.events WHERE cursor > :sealed AND cursor <= :upto
             ORDER BY session_id, cursor LIMIT -1) CROSS JOIN main.events e ON e.cursor = place
       WHERE NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = e.session_id AND e.cursor < p.cursor)""",
)
"""Their cursors are put in order, not the events, which are large."""
NEW_DETAILS = details()
CHANGED_SESSIONS = select(
    SESSIONS, "FROM sessions WHERE last_cursor > :sealed AND last_cursor <= :upto ORDER BY session_id"
)
"""One that has moved on since is in the range that has its newest event."""


def open_store(path: Path) -> sqlite3.Connection:
    """The database, read only, with the views of views.sql in front. deltalake reads from it on a thread of its own."""
    database = open_reader(path, check_same_thread=False)
    database.execute("PRAGMA query_only = OFF")
    database.executescript((ROOT / "views.sql").read_text())
    database.execute("PRAGMA query_only = ON")
    database.execute("PRAGMA cache_size = -4096")  # each page is read about once
    return database


class Stretch(NamedTuple):
    """Of what is not sealed: up to which cursor, and the first and the last minute in which it came."""

    upto: int
    first: str
    last: str


class Sealer:
    """Seals the events of the database at `path` as `shard` of the lake at `url`. What goes wrong is tried again."""

    def __init__(self, path: Path, url: str, shard: str) -> None:
        self.path, self.url, self.shard = path, url, shard
        with closing(open_reader(path)) as database:
            kept = kept_shard(database)
        self.store = kept.store if kept else ""
        self.known: set[int] = set()
        """Where the table may say that this shard is sealed up to, if nobody else seals it; empty: anywhere."""

    def sealed(self) -> int:
        """Up to which cursor. Raises Displaced, and what deltalake says of the bucket."""
        return self.checked(self.open_events())

    def open_events(self) -> DeltaTable:
        return open_table(f"{self.url}/events", EVENTS, ["day", "shard"])

    def checked(self, events: DeltaTable) -> int:
        sealed = sealed_by(events, self.shard, self.store, self.own)
        if self.known and sealed not in self.known:
            raise Displaced(
                f"A copy of this store seals as {self.shard!r} too: the lake is at cursor {sealed}, and this one has "
                f"sealed up to {max(self.known)}"
            )
        if not self.known and (found := doubt(self.path, events, self.shard, sealed)):
            raise Displaced(f"The lake {self.url} has something else than this store as {self.shard!r}: {found}")
        self.known = {sealed}
        return sealed

    @property
    def own(self) -> int:
        """The cursor of this one's last commit, if it is known that it was done; else 0."""
        return max(self.known) if len(self.known) == 1 else 0

    def seal(self) -> int | None:
        """The oldest range that is not sealed; the cursor up to which it goes, or None where everything is sealed.

        Raises Displaced, sqlite3.Error, OSError, and what deltalake says of the bucket.
        """
        events = self.open_events()
        sealed = self.checked(events)
        with closing(open_store(self.path)) as database, snapshot(database):
            if (part := next_part(database, sealed)) is None:
                return None
            upto = part.upto
            self.known.add(upto)
            values = {"sealed": sealed, "shard": self.shard, **part._asdict()}
            hide(database, self.url, values)
            sessions = open_table(f"{self.url}/sessions", SESSIONS, ["shard"])
            if sealed_by(sessions, self.shard, self.store, sealed) < upto:
                rows = batches(database.execute(CHANGED_SESSIONS, values), SESSIONS)
                append(sessions, rows, SESSIONS, self.shard, upto, self.store)
            lists = open_table(f"{self.url}/details", DETAILS, ["what", "shard"])
            if sealed_by(lists, self.shard, self.store, sealed) < upto:
                rows = batches(database.execute(NEW_DETAILS, values), DETAILS)
                append(lists, rows, DETAILS, self.shard, upto, self.store)
            rows = batches(database.execute(NEW_EVENTS, values), EVENTS)
            append(events, rows, EVENTS, self.shard, upto, self.store)
        self.known = {upto}
        publish(self.url, self.shard)
        return upto


def next_part(database: sqlite3.Connection, sealed: int) -> Stretch | None:
    """What goes into the next commit; None where everything is sealed."""
    upto, characters, days, minutes = None, 0, set(), set()
    for cursor, length, minute in database.execute(UNSEALED, (sealed, MAX_EVENTS)):
        characters += length * (2 if length > LONG else 1)
        days.add(minute[:10])
        if upto is not None and (characters > MAX_BYTES or len(days) > MAX_DAYS):
            break
        upto = cursor
        minutes.add(minute)
    return None if upto is None else Stretch(upto, min(minutes), max(minutes))
