"""Checks a lake against a store (an audit): each sealed event once, byte for byte; what waits to be erased; files that
are nobody's; and whether the bucket keeps what is removed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import obstore
from deltalake import DeltaTable

from export.layout import snapshot
from lake.bucket import open_bucket, told_of
from lake.columns import EVENTS, batches, select
from lake.keeping import KEEP_HOURS, TABLES
from lake.rewriting import Row, opened, quoted, rows_of
from lake.scrubbing import name_of
from lake.sealer import open_store
from lake.table import sealed_cursor

AT_ONCE = 20_000
"""Cursors that are compared at a time."""
SAID = 20
"""Of what is wrong, so many are said by their cursors."""
THERE = ", ".join("encode(sha256(data), 'hex')" if column.name == "data" else column.name for column in EVENTS)
DAY, CURSOR, TYPE, DATA = map([column.name for column in EVENTS].index, ("day", "cursor", "type", "data"))
HERE = select(
    EVENTS,
    """FROM main.events e WHERE cursor >= :first AND cursor <= :last
       AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = e.session_id AND e.cursor < p.cursor)
       ORDER BY cursor""",
)
VERSIONED = (
    "The bucket keeps versions of what is removed: what is erased stays in them until a lifecycle rule lets noncurrent "
    "versions expire, after a day, below {url}"
)


class Checked(NamedTuple):
    """`faults` are what must not be; `notes` what is to be known. In words."""

    events: int
    sealed: int
    faults: list[str]
    notes: list[str]


def check(path: Path, url: str, shard: str, since: date = date.min) -> Checked:
    """Compare what the shard has sealed with its database, which may be written to meanwhile; of days before `since`
    the lake need not have anything. Raises sqlite3.Error, BucketAway, BucketRefused, and what deltalake says."""
    table = opened(f"{url}/events")
    if table is None:
        return Checked(0, 0, [f"There is no lake at {url}: it comes with the first seal"], [])
    sealed = sealed_cursor(table, shard)
    with closing(open_store(path)) as database, snapshot(database):
        compared = list(comparison(database, table, shard, sealed, since))
        pending = [name for (name,) in database.execute("SELECT DISTINCT scrub FROM scrubs")]
    faults = [fault for _, fault in compared if fault]
    if len(faults) > SAID:
        faults[SAID:] = [f"and {len(faults) - SAID:,} more"]
    notes = [*waiting(url, shard), *left_behind(url), *versions(url)]
    if unfollowed := sum(table.transaction_version(name_of(name)) is None for name in pending):
        notes.append(f"{unfollowed} scrubs have not come to the lake yet: with the next `lake erase`, or by its server")
    return Checked(sum(events for events, _ in compared), sealed, faults, notes)


# ------------------------------------------------------------------------- events


def comparison(
    database: sqlite3.Connection, table: DeltaTable, shard: str, sealed: int, since: date
) -> Iterator[tuple[int, str]]:
    """How many events were compared, and what is wrong."""
    of_shard = f"FROM t WHERE shard = {quoted(shard)}"
    ((beyond,),) = rows_of(table, f"SELECT count(*) {of_shard} AND cursor > {sealed}")
    if beyond:
        yield 0, f"{beyond:,} events are beyond cursor {sealed}, up to which the table says it is sealed"
    for first in range(1, sealed + 1, AT_ONCE):
        last = min(first + AT_ONCE - 1, sealed)
        there: dict[int, list[Row]] = {}
        between = f"cursor BETWEEN {first} AND {last}"
        for row in rows_of(table, f"SELECT {THERE} {of_shard} AND {between}"):
            there.setdefault(row[CURSOR], []).append(row)
        yield from ((0, f"cursor {one}: {len(rows)} times") for one, rows in there.items() if len(rows) > 1)
        here = database.execute(HERE, {"shard": shard, "first": first, "last": last})
        for batch in batches(here, EVENTS):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                found = there.get(row[CURSOR], [])
                if found or row[DAY] >= since:
                    yield 1, difference(row, found)


def difference(row: Row, found: list[Row]) -> str:
    """Empty: none."""
    if not found:  # a deletion that keeps what is sealed goes by `lake erase`, with the rest of the session
        return "" if row[TYPE] == "session_deleted" else f"cursor {row[CURSOR]}: it is missing"
    digested = (sha256(value.encode()).hexdigest() if at == DATA else value for at, value in enumerate(row))
    names = [column.name for column, here, there in zip(EVENTS, digested, found[0], strict=True) if here != there]
    return f"cursor {row[CURSOR]}: {', '.join(names)} differ" if names else ""


# -------------------------------------------------------------------- around them


def waiting(url: str, shard: str) -> Iterator[str]:
    if deletions := opened(f"{url}/deletions"):
        ((number,),) = rows_of(deletions, f"SELECT count(*) FROM t WHERE shard = {quoted(shard)}")
        if number:
            yield f"{number:,} sessions are hidden, and not erased yet"


def left_behind(url: str) -> Iterator[str]:
    tables = [table for name in TABLES if (table := opened(f"{url}/{name}"))]
    old = sum(len(table.vacuum(KEEP_HOURS, full=True)) for table in tables)
    if old:
        yield f"{old:,} files have been nobody's for more than a day: the next `lake compact` removes them"


def versions(url: str) -> Iterator[str]:
    """A store says the version of an object that is created if it keeps them."""
    with told_of(url):
        bucket = open_bucket(url)
        version = obstore.put(bucket, "probe/versions", b"")["version"]
        obstore.delete(bucket, "probe/versions")
    if version not in (None, "null"):
        yield VERSIONED.format(url=url)
