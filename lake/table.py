"""The Delta tables of a lake: made where they are not, opened, and how far each shard is sealed.

A commit carries the cursor up to which its shard is sealed, as the transaction of the Delta protocol that has the
shard's name: so whoever reads the table reads the cursor with it, and of two commits of one shard at the same time
one fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arro3.core import RecordBatch, RecordBatchReader
from deltalake import (
    BloomFilterProperties,
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import TableNotFoundError

from lake.columns import Column, schema_of

ROW_GROUP = 32_768
COMMIT_TRIES = 15
"""How often a commit is tried anew because another shard's came first."""
CONFIGURATION = {
    # No text of an event stands in the log, which outlives the files.
    "delta.dataSkippingStatsColumns": "cursor,session_id,received_at,sealed",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 days",
    # Whoever opens a table reads all commits since the last checkpoint, several times.
    "delta.checkpointInterval": "20",
}
WRITING = WriterProperties(
    compression="ZSTD",
    compression_level=3,
    max_row_group_size=ROW_GROUP,
    column_properties={
        "session_id": ColumnProperties(bloom_filter_properties=BloomFilterProperties(True, ndv=ROW_GROUP // 16)),
        **dict.fromkeys(("event_id", "data"), ColumnProperties(dictionary_enabled=False)),  # hardly any is there twice
        **dict.fromkeys(
            ("cursor", "seq", "timestamp", "received_at", "bytes"),
            ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED"),
        ),
    },
)


PATIENCE = {"max_retries": "3", "retry_timeout": "30s", "timeout": "60s", "connect_timeout": "5s"}
"""With a bucket that does not answer: whoever seals says so, and comes again."""


def open_table(url: str, columns: Sequence[Column], partitions: Sequence[str]) -> DeltaTable:
    """As it is now; made where there is none. Raises what the bucket or deltalake says."""
    try:
        return DeltaTable(url, storage_options=PATIENCE)
    except TableNotFoundError:
        DeltaTable.create(
            url,
            schema_of(columns),
            mode="ignore",
            partition_by=list(partitions),
            configuration=CONFIGURATION,
            storage_options=PATIENCE,
        )
        return DeltaTable(url, storage_options=PATIENCE)


class Displaced(Exception):
    """Another store seals under this one's name: only one of them may. The message says what to do."""


def sealed_cursor(table: DeltaTable, shard: str) -> int:
    """Up to where the shard's events are in it; 0 where none are."""
    return table.transaction_version(shard) or 0


def sealed_by(table: DeltaTable, shard: str, store: str, own: int = 0) -> int:
    """The same, for the store that seals them. Raises Displaced where the last commit is not this one's; `own` is the
    cursor of one that is known to be: each thing that is asked of a table has its log read anew."""
    sealed = sealed_cursor(table, shard)
    if store and sealed != own and table.transaction_version(signature(shard, store)) != sealed:
        raise Displaced(
            f"Another store seals as {shard!r}: the lake has its events up to cursor {sealed}. Give this one a "
            "SESSIONS_SHARD of its own"
        )
    return sealed


def signature(shard: str, store: str) -> str:
    """What a store signs its commits with: no shard has a space in its name."""
    return f"{shard} {store}"


def append(
    table: DeltaTable, rows: Iterator[RecordBatch], columns: Sequence[Column], shard: str, cursor: int, store: str = ""
) -> None:
    """One commit, which also says that the shard is sealed up to the cursor, and by which store.

    Raises deltalake's CommitFailedError where another commit of the same shard has come since `table` was opened:
    that may also be this one, if its answer was lost. So open it again, and read the cursor.
    """
    schema = schema_of(columns)
    signed = [Transaction(signature(shard, store), cursor)] if store else []
    write_deltalake(
        table,
        RecordBatchReader.from_batches(schema, rows),
        mode="append",
        schema_mode="merge",  # an older version of the store writes null into what it does not know
        writer_properties=WRITING,
        commit_properties=CommitProperties(
            app_transactions=[Transaction(shard, cursor), *signed], max_commit_retries=COMMIT_TRIES
        ),
    )
