"""Housekeeping between group commits: purge, the search index, the room that is given back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from sessionstore.store import search
from sessionstore.store.schema import INCREMENTAL

SEARCHED_AT_ONCE = 1 << 18
"""Characters of events that one call brings into the index or takes out of it, or one event of more."""


MERGED_AT_LEAST = 50


CHARACTERS_PER_PAGE = 1000
"""How many pages of the index are merged with each call: left to itself, FTS5 merges seldom, and then very many."""


def purge(connection: sqlite3.Connection, *, session_id: str | None = None, limit: int = 500) -> bool:
    """Remove some events of a deleted session (of any, or of this one). False when there is nothing left to do."""
    row = connection.execute(
        "SELECT session_id, cursor FROM purges WHERE session_id = coalesce(?, session_id) LIMIT 1", (session_id,)
    ).fetchone()
    if row is None:
        return False
    gone, has_more = some_of(connection, "session_id = ? AND cursor < ?", *row, limit=limit)
    (searched,) = connection.execute("SELECT searched FROM progress").fetchone()
    connection.executemany(
        f"INSERT INTO search (search, rowid, {search.COLUMNS}) VALUES ('delete', ?, ?, ?, ?)",
        (search.entry(*event) for event in gone if event[0] <= searched),
    )
    merge_search(connection, pages=pages_of(gone))
    connection.executemany("DELETE FROM events WHERE cursor = ?", (event[:1] for event in gone))
    if not has_more:
        connection.execute("DELETE FROM purges WHERE session_id = ?", row[:1])
    return True


def index_search(connection: sqlite3.Connection, *, limit: int, size: int = SEARCHED_AT_ONCE) -> tuple[int, bool]:
    """Bring the full-text index forward by some events, of so many characters: how far it is then, and whether there is
    more."""
    (searched,) = connection.execute("SELECT searched FROM progress").fetchone()
    coming, has_more = some_of(connection, "cursor > ?", searched, limit=limit, size=size)
    if not coming:
        return searched, False
    connection.executemany(
        f"INSERT INTO search (rowid, {search.COLUMNS}) VALUES (?, ?, ?, ?)", (search.entry(*event) for event in coming)
    )
    merge_search(connection, pages=pages_of(coming))
    searched = coming[-1][0]
    connection.execute("UPDATE progress SET searched = ?", (searched,))
    return searched, has_more


def pages_of(events: list[Any]) -> int:
    """How many pages of the index are to be merged because of these events."""
    return MERGED_AT_LEAST + sum(len(event[-1]) for event in events) // CHARACTERS_PER_PAGE


def some_of(
    connection: sqlite3.Connection, which: str, *values: object, limit: int, size: int = SEARCHED_AT_ONCE
) -> tuple[list[Any], bool]:
    """Events for `search.entry`, at most `limit`, fewer where they are large; and whether there may be more."""
    some: list[Any] = []
    query = f"SELECT {search.EVENT} FROM events WHERE {which} ORDER BY cursor LIMIT ?"
    with closing(connection.execute(query, (*values, limit))) as events:
        for event in events:
            some.append(event)
            size -= len(event[-1])
            if size < 0:
                return some, True
    return some, len(some) == limit


def merge_search(connection: sqlite3.Connection, *, pages: int) -> bool:
    """Bring pieces of the index together, by writing about so many pages of it anew. So words of deleted events go,
    which stand beside a word that they are deleted: all of them where it begins with a negative number. False: nothing
    is left to do.

    https://www.sqlite.org/fts5.html#the_merge_command
    """
    before = connection.total_changes
    connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
    return connection.total_changes - before >= 2


def give_back(connection: sqlite3.Connection, *, keep: int, limit: int) -> bool:
    """Return some of the free pages to the file system, but for so many; outside of any transaction. False when there
    is nothing left to return."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != INCREMENTAL or free <= keep:
        return False
    connection.executescript(
        f"PRAGMA incremental_vacuum({min(limit, free - keep)})"
    )  # `execute` would stop at the first
    return True
