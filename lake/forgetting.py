"""Forgets sessions: hides them with the next seal, and takes their rows out of the files (an erasure by cursor).

Whoever is killed meanwhile begins again: a hidden session stays hidden until nothing of it is there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arro3.core import Array, RecordBatch, Table
from deltalake import DeltaTable

from lake.columns import DELETIONS, FORGETS, INTEGER, TEXT, Column, batches, schema_of, select
from lake.rewriting import KEPT, Rewritable, T, again, merging, opened, quoted, rows_of, spans
from lake.table import WRITING, append, open_table, sealed_cursor

SESSIONS_AT_ONCE = 500

DELETED = select(DELETIONS, f"FROM main.events e WHERE cursor > :since AND cursor <= :upto AND {FORGETS}")
SOURCE = (Column("id", TEXT, "", False), Column("before", INTEGER, "", False))


def hide(database: sqlite3.Connection, url: str, values: Mapping[str, Any]) -> None:
    """Before a range is sealed (`shard`, `sealed`, `upto`): say in the lake which sessions are to be seen no more."""
    deletions = open_table(f"{url}/deletions", DELETIONS, ["shard"])
    shard, upto = values["shard"], values["upto"]
    since = max(values["sealed"], sealed_cursor(deletions, shard))
    rows = database.execute(DELETED, {"shard": shard, "since": since, "upto": upto})
    coming = list(batches(rows, DELETIONS))
    if coming:
        append(deletions, iter(coming), DELETIONS, shard, upto)


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


def erasures(
    table: DeltaTable, kept: Rewritable, shard: str, before: Mapping[str, int]
) -> Iterator[tuple[set[str], int]]:
    older = f"t.session_id = s.id AND t.{kept.newest} < s.before"
    listed = ", ".join(f"({quoted(name)}, {cursor})" for name, cursor in before.items())
    where = (
        f"FROM t JOIN (VALUES {listed}) AS s (id, before) ON {older}"
        f" WHERE t.shard = {quoted(shard)} AND t.session_id IN ({', '.join(map(quoted, before))})"
    )
    found = set(rows_of(table, f"SELECT DISTINCT {'t.day' if kept.by_day else 'NULL'}, t.session_id {where}"))
    for span in spans(table, kept, shard, {day for day, _ in found}):
        ((number,),) = rows_of(table, f"SELECT count(*) {where} AND {span}")
        if number:
            merging(table, source_of(before), f"{span} AND {older}").when_matched_delete().execute()
        yield {session_id for _, session_id in found}, number


def source_of(before: Mapping[str, int]) -> Table:
    arrays = [Array(list(before), TEXT), Array(list(before.values()), INTEGER)]
    return Table.from_batches([RecordBatch.from_arrays(arrays, schema=schema_of(SOURCE))])


def groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
