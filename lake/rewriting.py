"""Rows of a lake's tables, found and written anew a bounded number of bytes at a time (copy on write, by merges).

What a command says stands in the log of a Delta table, longer than the rows that it has taken out. So no command names
a session or quotes a text: a query, which leaves no trace, finds where rows stand; conditions name days and cursors;
and names come as rows of a stream. Of a source that is no stream deltalake writes the smallest and the largest value
into the log, to read only the files that can have them; here the condition says which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any, NamedTuple, TypeVar

from arro3.core import RecordBatchReader, Table
from deltalake import CommitProperties, DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.table import TableMerger

from lake.table import COMMIT_TRIES, WRITING

AT_ONCE_BYTES = 64 << 20
"""Of files that one commit writes anew, unless one alone is larger."""
TRIES = 20
"""How often something is begun again because another commit has changed files that it read."""
WHOLE = 2**63 - 1
"""A cursor that is newer than all."""

Row = tuple[Any, ...]
T = TypeVar("T")


class Rewritable(NamedTuple):
    """A table that has rows of sessions."""

    name: str
    newest: str
    """The column that says how new a row is: a cursor."""
    along: str
    """The column, a cursor too, by which its files follow each other."""
    by_day: bool = False


EVENTS_KEPT = Rewritable("events", "cursor", "cursor", by_day=True)
SESSIONS_KEPT = Rewritable("sessions", "last_cursor", "sealed")
DETAILS_KEPT = Rewritable("details", "sealed", "sealed")
KEPT = (EVENTS_KEPT, SESSIONS_KEPT, DETAILS_KEPT)


def opened(url: str) -> DeltaTable | None:
    try:
        return DeltaTable(url)
    except TableNotFoundError:
        return None


def shards_of(url: str) -> list[str]:
    """That have anything in the lake."""
    tables = [table for kept in KEPT if (table := opened(f"{url}/{kept.name}"))]
    return sorted({partition["shard"] for table in tables for partition in table.partitions()})


def again(work: Callable[[], T]) -> T:
    """What `work` gives, which opens its tables anew each time: it read files that are not there any more.

    Raises CommitFailedError if that happens again and again.
    """
    for _ in range(TRIES - 1):
        try:
            return work()
        except CommitFailedError:
            pass
    return work()


def rows_of(table: DeltaTable, query: str) -> Iterator[Row]:
    """Of a query over one table, `t`. Nothing of it is ever written down."""
    for batch in QueryBuilder().register("t", table).execute(query):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def merging(table: DeltaTable, source: RecordBatchReader | Table, condition: str) -> TableMerger:
    """To be told what becomes of rows of the table (`t`) that meet a condition with one of the source (`s`)."""
    return table.merge(
        source,
        condition,
        source_alias="s",
        target_alias="t",
        streamed_exec=True,
        writer_properties=WRITING,
        commit_properties=CommitProperties(max_commit_retries=COMMIT_TRIES),
    )


# ------------------------------------------------------------- a bounded number of bytes


class Span(NamedTuple):
    """Rows of a shard that stand in files of a bounded size: of a day, if the table has days, and from one value of a
    column to another. As text, the condition."""

    shard: str
    day: date | None
    along: str
    first: int
    last: int

    def __str__(self) -> str:
        day = f" AND t.day = DATE '{self.day}'" if self.day else ""
        return f"t.shard = {quoted(self.shard)}{day} AND t.{self.along} BETWEEN {self.first} AND {self.last}"


def spans(table: DeltaTable, kept: Rewritable, shard: str, days: Iterable[date | None] = (None,)) -> list[Span]:
    """That together have all rows of the shard on these days."""
    names = ["partition.shard", "partition.day", f"min.{kept.along}", f"max.{kept.along}", "size_bytes"]
    actions = table.get_add_actions(flatten=True)
    known = actions.schema.names
    columns = [actions.column(name).to_pylist() if name in known else [None] * actions.num_rows for name in names]
    files = [
        (day, 0 if first is None else first, WHOLE if last is None else last, size)
        for of, day, first, last, size in zip(*columns, strict=True)
        if of == shard
    ]
    return [
        Span(shard, day, kept.along, first, last)
        for day in sorted(days, key=str)
        for first, last in pieces((first, last, size) for of, first, last, size in files if of == day)
    ]


def pieces(files: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that no file reaches out of, of so many bytes at most where that can be; of (first, last, bytes)."""
    begin = end = size = 0
    for first, last, more in sorted(files):
        if size and first > end and size + more > AT_ONCE_BYTES:
            yield begin, end
            size = 0
        begin, end, size = (begin, max(end, last), size + more) if size else (first, last, more)
    if size:
        yield begin, end
