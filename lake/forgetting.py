"""Forgets sessions: hides them with the next seal, and takes their rows out of the files (an erasure by cursor).

What a command says stands in the log of a Delta table, longer than what it has erased. So no command names a session:
a query, which leaves no trace, finds where its rows stand, and the commit names days and cursors; the sessions come
as rows, of which the log has the number. Files are written anew a bounded number of bytes at a time; whoever is killed
meanwhile begins again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeVar

from arro3.core import Array, RecordBatch, Table
from deltalake import CommitProperties, DeltaTable, QueryBuilder
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from lake.columns import DELETIONS, FORGETS, INTEGER, TEXT, Column, batches, schema_of, select
from lake.table import COMMIT_TRIES, WRITING, append, open_table, sealed_cursor

AT_ONCE_BYTES = 64 << 20
"""Of files that one commit writes anew, unless one alone is larger."""
SESSIONS_AT_ONCE = 500
TRIES = 20
"""How often something is begun again because another commit has changed files that it read."""
WHOLE = 2**63 - 1
"""Before this cursor is all of a session."""

DELETED = select(DELETIONS, f"FROM main.events e WHERE cursor > :since AND cursor <= :upto AND {FORGETS}")
Row = tuple[Any, ...]
T = TypeVar("T")


class Kept(NamedTuple):
    """A table that has rows of sessions."""

    name: str
    newest: str
    """The column that says how new a row is: a cursor."""
    along: str
    """The column, a cursor too, by which its files follow each other."""
    by_day: bool = False


KEPT = (
    Kept("events", "cursor", "cursor", by_day=True),
    Kept("sessions", "last_cursor", "sealed"),
    Kept("details", "sealed", "sealed"),
)
SOURCE = (Column("id", TEXT, "", False), Column("before", INTEGER, "", False))


def opened(url: str) -> DeltaTable | None:
    try:
        return DeltaTable(url)
    except TableNotFoundError:
        return None


def again(work: Callable[[], T]) -> T:
    """What `work` gives, which opens the table anew each time: it read files that are not there any more.

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


# ------------------------------------------------------------------------- hide


def hide(database: sqlite3.Connection, url: str, values: Mapping[str, Any]) -> None:
    """Before a range is sealed (`shard`, `sealed`, `upto`): say in the lake which sessions are to be seen no more."""
    deletions = open_table(f"{url}/deletions", DELETIONS, ["shard"])
    shard, upto = values["shard"], values["upto"]
    since = max(values["sealed"], sealed_cursor(deletions, shard))
    rows = database.execute(DELETED, {"shard": shard, "since": since, "upto": upto})
    coming = list(batches(rows, DELETIONS))
    if coming:
        append(deletions, iter(coming), DELETIONS, shard, upto)


# ------------------------------------------------------------------------ erase


def forget(url: str, shard: str) -> int:
    """Erase the sessions of the shard that are hidden; how many rows. A hidden one of which nothing was left when this
    began is taken out of what hides it: who reads both tables at once has seen it go."""
    return again(lambda: forget_hidden(url, shard))


def forget_hidden(url: str, shard: str) -> int:
    deletions = opened(f"{url}/deletions")
    if deletions is None:
        return 0
    hidden: dict[str, list[int]] = {}
    for session_id, cursor in rows_of(deletions, f"SELECT session_id, cursor FROM t WHERE shard = {quoted(shard)}"):
        hidden.setdefault(session_id, []).append(cursor)
    erased = 0
    for some in groups(sorted(hidden), SESSIONS_AT_ONCE):
        found, rows = erase(url, shard, {session_id: max(hidden[session_id]) for session_id in some})
        erased += rows
        if gone := [str(cursor) for session_id in some if session_id not in found for cursor in hidden[session_id]]:
            deletions.delete(f"shard = {quoted(shard)} AND cursor IN ({', '.join(gone)})", WRITING)
    return erased


def erase(url: str, shard: str, before: Mapping[str, int]) -> tuple[set[str], int]:
    """Take out of the tables what is older of each session than a cursor; of which something was there, and how many
    rows. Raises CommitFailedError where another commit came in between: what is done by then is done."""
    found: set[str] = set()
    erased = 0
    for kept in KEPT:
        if table := opened(f"{url}/{kept.name}"):
            for some, rows in erasures(table, kept, shard, before):
                found |= some
                erased += rows
    return found, erased


def erasures(table: DeltaTable, kept: Kept, shard: str, before: Mapping[str, int]) -> Iterator[tuple[set[str], int]]:
    day = "t.day" if kept.by_day else "NULL"
    older = f"t.session_id = s.id AND t.{kept.newest} < s.before"
    listed = ", ".join(f"({quoted(name)}, {cursor})" for name, cursor in before.items())
    where = (
        f"FROM t JOIN (VALUES {listed}) AS s (id, before) ON {older}"
        f" WHERE t.shard = {quoted(shard)} AND t.session_id IN ({', '.join(map(quoted, before))})"
    )
    found = set(rows_of(table, f"SELECT DISTINCT {day}, t.session_id {where}"))
    for span in spans(table, kept, shard, {day for day, _ in found}):
        ((number,),) = rows_of(table, f"SELECT count(*) {where} AND {span}")
        if number:
            remove(table, f"t.shard = {quoted(shard)} AND {span} AND {older}", before)
        yield {session_id for _, session_id in found}, number


def remove(table: DeltaTable, condition: str, before: Mapping[str, int]) -> None:
    """What is in `table` (t) and meets a condition with one of the sessions (s: id, before).

    The sessions are a stream: of a source that is none, deltalake writes the smallest and the largest value into the
    log, to read only the files that can have them; here the condition says which these are.
    """
    arrays = [Array(list(before), TEXT), Array(list(before.values()), INTEGER)]
    table.merge(
        Table.from_batches([RecordBatch.from_arrays(arrays, schema=schema_of(SOURCE))]),
        condition,
        source_alias="s",
        target_alias="t",
        streamed_exec=True,
        writer_properties=WRITING,
        commit_properties=CommitProperties(max_commit_retries=COMMIT_TRIES),
    ).when_matched_delete().execute()


# ------------------------------------------------------------- a bounded number of bytes


class Span(NamedTuple):
    """Rows that stand in files of a bounded size: of a day, if the table has days, from one value to another."""

    day: date | None
    along: str
    first: int
    last: int

    def __str__(self) -> str:
        day = f"t.day = DATE '{self.day}' AND " if self.day else ""
        return f"{day}t.{self.along} BETWEEN {self.first} AND {self.last}"


def spans(table: DeltaTable, kept: Kept, shard: str, days: Iterable[date | None]) -> list[Span]:
    """That together have all rows of the shard on these days."""
    columns = ["partition.shard", "partition.day", f"min.{kept.along}", f"max.{kept.along}", "size_bytes"]
    actions = table.get_add_actions(flatten=True)
    lists = [
        actions.column(name).to_pylist() if name in actions.schema.names else [None] * actions.num_rows
        for name in columns
    ]
    files = [
        (day, 0 if first is None else first, WHOLE if last is None else last, size)
        for of, day, first, last, size in zip(*lists, strict=True)
        if of == shard
    ]
    return [
        Span(day, kept.along, first, last)
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


def groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
