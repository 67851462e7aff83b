"""Seals one range of cursors of one shard: what has come since the last seal, in one commit, exactly once.

It keeps no state of its own. Where the next range begins is read from the table itself, so that a sealer that was
killed anywhere, or whose answer was lost, goes on where the table says.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from export.layout import open_reader, snapshot
from lake.columns import DETAILS, EVENTS, SESSIONS, batches, details, select
from lake.forgetting import hide
from lake.table import append, open_table, sealed_cursor
from sessionstore import ROOT

MAX_EVENTS = 100_000
MAX_BYTES = 64 << 20
"""Of a range: what a seal holds at most."""

RANGE = """
SELECT max(cursor) FROM (
  SELECT cursor, sum(length(data)) OVER (ORDER BY cursor) AS bytes, row_number() OVER (ORDER BY cursor) AS number
  FROM (SELECT cursor, data FROM events WHERE cursor > :sealed ORDER BY cursor LIMIT :events))
WHERE bytes <= :bytes OR number = 1"""
NEW_EVENTS = select(
    EVENTS,
    """FROM main.events e WHERE cursor > :sealed AND cursor <= :upto
       AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = e.session_id AND e.cursor < p.cursor)
       ORDER BY session_id, cursor""",
)
NEW_DETAILS = details()
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
        limits = {"sealed": sealed, "events": MAX_EVENTS, "bytes": MAX_BYTES}
        ((upto,),) = database.execute(RANGE, limits).fetchall()
        if upto is None:
            return None
        values = {"sealed": sealed, "upto": upto, "shard": shard}
        hide(database, url, values)
        sessions = open_table(f"{url}/sessions", SESSIONS, ["shard"])
        if sealed_cursor(sessions, shard) < upto:
            append(sessions, batches(database.execute(CHANGED_SESSIONS, values), SESSIONS), SESSIONS, shard, upto)
        lists = open_table(f"{url}/details", DETAILS, ["what", "shard"])
        if sealed_cursor(lists, shard) < upto:
            append(lists, batches(database.execute(NEW_DETAILS, values), DETAILS), DETAILS, shard, upto)
        append(events, batches(database.execute(NEW_EVENTS, values), EVENTS), EVENTS, shard, upto)
    return int(upto)
