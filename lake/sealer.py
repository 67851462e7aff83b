"""Seals one range of cursors of one shard: what has come since the last seal, in one commit, exactly once.

It keeps no state of its own. Where the next range begins is read from the table itself, so that a sealer that was
killed anywhere, or whose answer was lost, goes on where the table says.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from export.layout import open_reader, snapshot
from lake.columns import DAYS, EVENTS, SESSIONS, batches, select
from lake.table import append, open_table, sealed_cursor
from sessionstore import ROOT

MAX_EVENTS, MAX_BYTES, MAX_DAYS = 50_000, 32 << 20, 32
"""Of a commit, which holds its text twice in memory, long texts (LONG) four times, and a file for each day."""
LONG = 4096
UNSEALED = f"SELECT cursor, length(data), {DAYS} FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?"
NEW_EVENTS = select(
    EVENTS,
    """FROM main.events e WHERE cursor > :sealed AND cursor <= :upto
       AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = e.session_id AND e.cursor < p.cursor)
       ORDER BY session_id, cursor""",
)
CHANGED_SESSIONS = select(SESSIONS, "FROM sessions WHERE last_cursor > :sealed ORDER BY session_id")


def open_store(path: Path) -> sqlite3.Connection:
    """The database, read only, with the views of views.sql in front. deltalake reads from it on a thread of its own."""
    database = open_reader(path, check_same_thread=False)
    database.execute("PRAGMA query_only = OFF")
    database.executescript((ROOT / "views.sql").read_text())
    database.execute("PRAGMA query_only = ON")
    return database


def seal(path: Path, url: str, shard: str) -> int | None:
    """One range, the oldest that is not sealed; the cursor up to which it goes, or None where everything is sealed.

    Raises sqlite3.Error, OSError, and what deltalake says of the bucket.
    """
    events = open_table(f"{url}/events", EVENTS, ["day", "shard"])
    sealed = sealed_cursor(events, shard)
    with closing(open_store(path)) as database, snapshot(database):
        if (upto := end_of_range(database, sealed)) is None:
            return None
        values = {"sealed": sealed, "upto": upto, "shard": shard}
        sessions = open_table(f"{url}/sessions", SESSIONS, ["shard"])
        if sealed_cursor(sessions, shard) < upto:
            append(sessions, batches(database.execute(CHANGED_SESSIONS, values), SESSIONS), SESSIONS, shard, upto)
        append(events, batches(database.execute(NEW_EVENTS, values), EVENTS), EVENTS, shard, upto)
    return upto


def end_of_range(database: sqlite3.Connection, sealed: int) -> int | None:
    """The last cursor that goes into the next commit; None where everything is sealed."""
    upto, characters, days = None, 0, set()
    for cursor, length, day in database.execute(UNSEALED, (sealed, MAX_EVENTS)):
        characters += length * (2 if length > LONG else 1)
        days.add(day)
        if upto is not None and (characters > MAX_BYTES or len(days) > MAX_DAYS):
            break
        upto = cursor
    return upto
