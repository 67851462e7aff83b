"""Material out of archives back into a store at rest, under numbers of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from export import material as archived
from sessionstore.store import checkpoints

Row = dict[str, Any]


class NameTaken(Exception):
    """Something has this name already. The message says what."""


class Numbers:
    """By which rows name each other here, for those that they have in an archive."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.transcripts: dict[int, int] = {}
        self.threads: dict[int, int] = {}
        self.values: dict[int, int] = {}
        self.known: set[int] = set()
        """Values that are here already, in the archive's numbers."""


def bring_back_material(database: sqlite3.Connection, session_id: str, lines: Iterable[bytes]) -> int:
    """Insert what lines of an archive say, in the transaction that is open; how many rows. Raises NameTaken,
    ValueError, KeyError, sqlite3.Error."""
    numbers, rows = Numbers(session_id), 0
    for line in lines:
        table, row = archived.row_in(line)
        BACK[table](database, numbers, row)
        rows += 1
    for thread_row in numbers.threads.values():
        checkpoints.measure(database, thread_row)
    return rows


def insert(database: sqlite3.Connection, table: str, row: Row) -> int:
    """The row as it is; its number, where it has one of its own."""
    names = [name for name in row if name.isidentifier()]
    marks = ", ".join("?" for _ in names)
    done = database.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", [row[name] for name in names])
    return int(done.lastrowid or 0)


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def transcript(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
    key = [row[name] for name in ("folder", "session", "subpath", "generation")]
    which = "folder = ? AND session = ? AND subpath = ? AND generation = ? AND NOT is_deleted"
    if database.execute(f"SELECT 1 FROM transcripts WHERE {which}", key).fetchone():
        raise NameTaken(f"the conversation {row['session']!r} is here already")
    fresh = without(row, "transcript", "stored_bytes") | {"session_id": numbers.session_id, "is_deleted": 0}
    number = numbers.transcripts[row["transcript"]] = insert(database, "transcripts", fresh)
    database.execute("UPDATE transcripts SET stored_bytes = ? WHERE transcript = ?", (row["stored_bytes"], number))


def thread(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
    there = "SELECT 1 FROM checkpoint_threads WHERE thread = ? AND NOT is_deleted"
    if database.execute(there, (row["thread"],)).fetchone():
        raise NameTaken(f"the thread {row['thread']!r} is here already")
    fresh = without(row, "thread_row") | {"session_id": numbers.session_id, "is_deleted": 0}
    numbers.threads[row["thread_row"]] = insert(database, "checkpoint_threads", fresh)


def value(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
    scope = numbers.session_id
    found = database.execute(
        "SELECT value FROM checkpoint_values WHERE scope = ? AND digest = ? AND pieces > 0", (scope, row["digest"])
    ).fetchone()
    if found:
        numbers.known.add(row["value"])
        numbers.values[row["value"]] = found[0]
        return
    fresh = without(row, "value", "stored_bytes") | {"scope": scope, "uses": 0}
    number = numbers.values[row["value"]] = insert(database, "checkpoint_values", fresh)
    database.execute("UPDATE checkpoint_values SET stored_bytes = ? WHERE value = ?", (row["stored_bytes"], number))


def of_transcript(table: str) -> Any:
    def back(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
        insert(database, table, row | {"transcript": numbers.transcripts[row["transcript"]]})

    return back


def of_thread(table: str) -> Any:
    def back(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
        value = {"value": numbers.values[row["value"]]} if "value" in row else {}
        insert(database, table, row | value | {"thread_row": numbers.threads[row["thread_row"]]})

    return back


def value_piece(database: sqlite3.Connection, numbers: Numbers, row: Row) -> None:
    if row["value"] not in numbers.known:
        insert(database, "checkpoint_pieces", row | {"value": numbers.values[row["value"]]})


BACK: dict[str, Any] = {
    "transcripts": transcript,
    "transcript_pieces": of_transcript("transcript_pieces"),
    "transcript_batches": of_transcript("transcript_batches"),
    "checkpoint_threads": thread,
    "checkpoint_values": value,
    "checkpoint_pieces": value_piece,
    "checkpoints": of_thread("checkpoints"),
    "checkpoint_channels": of_thread("checkpoint_channels"),
    "checkpoint_writes": of_thread("checkpoint_writes"),
}
