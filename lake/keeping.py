"""Keeps a lake: what was deleted and scrubbed is erased, days that are over are dropped, small files made large
(compaction), and what was replaced removed for good (vacuum), with the log that tells of it.

    python -m lake.keeping DATABASE URL SHARD DAYS      all of it once; DAYS: how many the lake keeps, or off

Every part may be killed, and be done by several at once: one of them finds the other's files gone, and begins again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from lake.columns import EVENTS
from lake.forgetting import forget, source_of
from lake.rewriting import DETAILS_KEPT, WHOLE, again, merging, opened, quoted, rows_of, spans
from lake.scrubbing import follow
from lake.sealer import Sealer
from lake.table import WRITING, append

TABLES = ("events", "sessions", "details", "deletions")
KEEP_HOURS = 24
"""For so long a reader may go on with the files that it began with."""
CLEAN_SECONDS = 5 * 3600.0
"""After one of many shards has removed what is over, none of the others looks for it."""
CLEANED = "lake/cleaned"
"""The transaction that says when it was, in seconds since 1970. No shard has such a name."""
FILE_BYTES = 64 << 20
"""Of a file that is made of small ones. Not more: to erase from it takes memory for all of it."""
SMALL_FILES = 4
"""So many in one partition are left as they are."""

Partition = tuple[tuple[str, str, str], ...]
"""As deltalake takes one: (column, =, value)."""


def keep(path: Path, url: str, shard: str, days: int | None) -> None:
    """Raises Displaced, sqlite3.Error, OSError, and what deltalake says of the bucket."""
    Sealer(path, url, shard).sealed()  # what another store has sealed is not this one's to replace
    follow(path, url, shard)
    forget(url, shard)
    if days:
        drop_days(url, shard, first_day(days))
    compact(url, shard)
    if is_to_be_cleaned(url):
        clean(url)


def is_to_be_cleaned(url: str) -> bool:
    """Nobody has done it lately, nor begins with it at the same time."""
    events = opened(f"{url}/events")
    now = int(time.time())
    if events is None or now < (events.transaction_version(CLEANED) or 0) + CLEAN_SECONDS:
        return False
    try:
        append(events, iter(()), EVENTS, CLEANED, now)
    except CommitFailedError:
        return False
    return True


def clean(url: str, hours: int = KEEP_HOURS) -> int:
    """Remove what has been replaced or left behind for so long, from the bucket itself; how many files.

    The log is cut off before a checkpoint that is written for that, as far as it is older than a day
    (`delta.logRetentionDuration`).
    """
    removed = 0
    for name in TABLES:
        if table := opened(f"{url}/{name}"):
            removed += len(
                table.vacuum(hours, dry_run=False, enforce_retention_duration=hours >= KEEP_HOURS, full=True)
            )
            table.create_checkpoint()
            table.cleanup_metadata()
    return removed


def compact(url: str, shard: str | None = None, size: int = FILE_BYTES) -> int:
    """Make large files of small ones in partitions that have many, of one shard or of all: how many fewer there are."""
    return sum(again(partial(compact_table, f"{url}/{name}", shard, size)) for name in TABLES)


def compact_table(url: str, shard: str | None, size: int) -> int:
    table = opened(url)
    if table is None:
        return 0
    fewer = 0
    for partition in many_small(table, shard, size):
        done = table.optimize.compact(list(partition), size, max_concurrent_tasks=1, writer_properties=WRITING)
        fewer += done["numFilesRemoved"] - done["numFilesAdded"]
    return fewer


def many_small(table: DeltaTable, shard: str | None, size: int) -> list[Partition]:
    """Partitions with more than a few small files."""
    actions = table.get_add_actions(flatten=True)
    names = [name for name in actions.schema.names if name.startswith("partition.")]
    values = zip(*(actions.column(name).to_pylist() for name in names), strict=True)
    sizes = actions.column("size_bytes").to_pylist()
    counts = Counter(
        tuple((name.removeprefix("partition."), "=", str(value)) for name, value in zip(names, found, strict=True))
        for found, bytes_ in zip(values, sizes, strict=True)
        if bytes_ < size // 2
    )
    wanted = (partition for partition in counts if shard is None or ("shard", "=", shard) in partition)
    return sorted(partition for partition in wanted if counts[partition] > SMALL_FILES)


def first_day(days: int | None) -> date:
    """That is kept, of so many; None: all."""
    return datetime.now(UTC).date() - timedelta(days=days) if days else date.min


def drop_days(url: str, shard: str, first: date) -> None:
    """Whole days of the shard before that: their files leave the table as they are, not read. And the sessions, with
    their details, that have not changed since."""
    again(partial(drop_before, url, shard, first))


def drop_before(url: str, shard: str, day: date) -> None:
    of_shard = f"shard = {quoted(shard)}"
    first = f"arrow_cast('{day}T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if events := opened(f"{url}/events"):
        events.delete(f"{of_shard} AND day < DATE '{day}'", WRITING)
    sessions, details = (opened(f"{url}/{name}") for name in ("sessions", "details"))
    if sessions and details:
        old = f"SELECT session_id FROM t WHERE {of_shard} GROUP BY session_id HAVING max(updated) < {first}"
        if gone := {session_id: WHOLE for (session_id,) in rows_of(sessions, old)}:
            for span in spans(details, DETAILS_KEPT, shard):
                merging(details, source_of(gone), f"{span} AND t.session_id = s.id").when_matched_delete().execute()
        details.delete(f"{of_shard} AND what = 'minutes' AND minute < '{day}'", WRITING)
        sessions.delete(f"{of_shard} AND updated < {first}", WRITING)


def end_with_parent() -> None:
    """Where its stdin ends, there is no server any more."""
    sys.stdin.read()
    os._exit(0)


def main(path: str, url: str, shard: str, days: str) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    keep(Path(path), url, shard, None if days == "off" else int(days))


if __name__ == "__main__":
    main(*sys.argv[1:])
