"""Keeps the tables of a lake: old files and log entries removed for good (vacuum), small files made large (compaction),
days that are over dropped."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial

from deltalake import DeltaTable

from lake.forgetting import again, opened, quoted
from lake.table import WRITING

TABLES = ("events", "sessions", "details", "deletions")
KEEP_HOURS = 24
"""For so long a reader may go on with the files that it began with."""
FILE_BYTES = 64 << 20
"""Of a file that is made of small ones. Not more: to erase from it takes memory for all of it."""
SMALL_FILES = 4
"""So many in one partition are left as they are."""


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
    """Make large files of small ones, in partitions that have many, of one shard or of all: how many fewer."""
    return sum(again(partial(compact_table, f"{url}/{name}", shard, size)) for name in TABLES)


def compact_table(url: str, shard: str | None, size: int) -> int:
    table = opened(url)
    if table is None:
        return 0
    gone = 0
    for partition in sorted(many_small(table, shard, size)):
        done = table.optimize.compact(list(partition), size, max_concurrent_tasks=1, writer_properties=WRITING)
        gone += done["numFilesRemoved"] - done["numFilesAdded"]
    return gone


def many_small(table: DeltaTable, shard: str | None, size: int) -> set[tuple[tuple[str, str, str], ...]]:
    """Partitions, as deltalake takes them, with more than a few small files."""
    actions = table.get_add_actions(flatten=True)
    names = [name for name in actions.schema.names if name.startswith("partition.")]
    partitions = zip(*(actions.column(name).to_pylist() for name in names), strict=True)
    counts: dict[tuple[tuple[str, str, str], ...], int] = {}
    for partition, bytes_ in zip(partitions, actions.column("size_bytes").to_pylist(), strict=True):
        key = tuple(
            (name.removeprefix("partition."), "=", str(value)) for name, value in zip(names, partition, strict=True)
        )
        if bytes_ < size // 2 and (shard is None or ("shard", "=", shard) in key):
            counts[key] = counts.get(key, 0) + 1
    return {key for key, number in counts.items() if number > SMALL_FILES}


def drop_days(url: str, shard: str, days: int, today: date) -> None:
    """Whole days of the shard that are older: their files are taken out of the table as they are, not read. And the
    sessions that have not changed since."""
    before = today - timedelta(days=days)
    of_shard = f"shard = {quoted(shard)}"
    if events := opened(f"{url}/events"):
        events.delete(f"{of_shard} AND day < DATE '{before}'", WRITING)
    if sessions := opened(f"{url}/sessions"):
        first = f"arrow_cast('{before}T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        sessions.delete(f"{of_shard} AND updated < {first}", WRITING)
