"""Checkpoints of LangGraph in the database, as plain functions of a connection; all that is in them is opaque.

A value is kept once for the same content within a scope, in compressed pieces, and goes some time after nobody uses it
any more. A channel of a thread has a value for each of its versions, and a checkpoint names the version of each.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from sessionstore.model.problems import Problem, invalid, unavailable
from sessionstore.store import material
from sessionstore.store.material import COMPRESSION, Provenance, owner, packed

UNUSED_MILLISECONDS = 60_000
"""For which a value that nobody uses stays: it may be that what uses it is still on its way."""
ROWS_AT_ONCE, REMOVED_AT_ONCE = 200, 4_000
"""Checkpoints that one step of a copy makes, with their writes; and rows that one step or chore removes."""
VALUES_AT_ONCE = 16

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
Namespace = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\x00]*$")]
"""Has the name of each graph around, and an id behind it."""
Channel = Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
"""Some have the name of a node in theirs."""
Version = str | int | float

# ---------------------------------------------------------------- what a program sends


class Typed(msgspec.Struct, forbid_unknown_fields=True):
    """Opaque bytes, and how the program reads them. In JSON the bytes are base64."""

    type: Name
    data: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.type.encode() + b"\0" + self.data).digest()


class Value(msgspec.Struct, forbid_unknown_fields=True):
    """A channel's value at a version."""

    channel: Channel
    version: Version
    value: Typed
    ns: Namespace = ""


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    id: Name
    checkpoint: Typed
    """Without its values and versions."""
    metadata: Typed
    versions: dict[str, Version]
    parent: Name | None = None
    about: dict[str, Any] = {}
    """What of the metadata people may read."""
    ns: Namespace = ""


class Write(msgspec.Struct, forbid_unknown_fields=True):
    """What a task wrote to a channel, after a checkpoint and before the next."""

    checkpoint: Name
    task: Name
    number: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
    channel: Channel
    value: Typed
    path: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    ns: Namespace = ""


class CheckpointLine(msgspec.Struct, forbid_unknown_fields=True):
    """One of these."""

    value: Value | None = None
    checkpoint: Checkpoint | None = None
    write: Write | None = None


class PackedLine(NamedTuple):
    """A line, and its value in pieces."""

    line: Value | Checkpoint | Write
    digest: bytes
    type: str
    pieces: list[bytes]
    row: int
    """What its row takes beside them."""

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


def packed_line(line: CheckpointLine) -> PackedLine:
    """Raises Problem 422."""
    said = [one for one in (line.value, line.checkpoint, line.write) if one is not None]
    if len(said) != 1:
        raise invalid("$", "must have a value, a checkpoint or a write, and one of them alone")
    found = said[0]
    if isinstance(found, Checkpoint):
        both = msgspec.msgpack.encode([found.checkpoint, found.metadata])
        row = len(json_of(found.about)) + len(json_of(found.versions))
        return PackedLine(found, b"", "", [zlib.compress(both, COMPRESSION)], row)
    row = len(found.ns) + len(found.channel)
    row += len(found.path) + len(found.task) if isinstance(found, Write) else 0
    pieces = packed(found.value.data) or [zlib.compress(b"")]
    return PackedLine(found, found.value.digest, found.value.type, pieces, row)


# --------------------------------------------------------------------------- threads


class ThreadRow(NamedTuple):
    """A row of checkpoint_threads."""

    thread_row: int
    session_id: str | None
    written_by: str | None


THREAD = "SELECT thread_row, session_id, written_by FROM checkpoint_threads WHERE thread = ? AND NOT is_deleted"
THREADS = """
SELECT t.thread, t.session_id, t.created, t.updated, t.written_by,
       (SELECT count(*) FROM checkpoints c WHERE c.thread_row = t.thread_row)
FROM checkpoint_threads t
WHERE NOT t.is_deleted AND t.thread > :after AND (:session IS NULL OR t.session_id = :session)
ORDER BY t.thread LIMIT :limit"""


def find(connection: sqlite3.Connection, thread: str) -> ThreadRow | None:
    row = connection.execute(THREAD, (thread,)).fetchone()
    return ThreadRow(*row) if row else None


def begin(connection: sqlite3.Connection, thread: str, said: Provenance, now: int) -> ThreadRow:
    """The thread that is written to, made if it is not there."""
    found = find(connection, thread)
    if found is None:
        known = said.session_id or owner(connection, f"langgraph:{thread}", thread, said.written_by)
        connection.execute(
            "INSERT INTO checkpoint_threads (thread, session_id, written_by, created, updated) VALUES (?, ?, ?, ?, ?)",
            (thread, known, said.written_by, now, now),
        )
    else:
        connection.execute(
            "UPDATE checkpoint_threads SET updated = max(?, updated), session_id = coalesce(?, session_id)"
            " WHERE thread_row = ?",
            (now, said.session_id, found.thread_row),
        )
    found = find(connection, thread)
    assert found is not None
    return found


def no_thread(thread: str) -> Problem:
    return Problem(404, f"There are no checkpoints of a thread {thread!r}")


# --------------------------------------------------------------------------- writing


def value_of(connection: sqlite3.Connection, scope: str, one: PackedLine, now: int) -> tuple[int, int]:
    """The number of a value, made if it is not there, and how many pieces of it count."""
    connection.execute(
        "INSERT INTO checkpoint_values (scope, digest, type, touched) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET touched = excluded.touched",
        (scope, one.digest, one.type, now),
    )
    value, pieces = connection.execute(
        "SELECT value, pieces FROM checkpoint_values WHERE scope = ? AND digest = ?", (scope, one.digest)
    ).fetchone()
    return value, pieces


def put_pieces(connection: sqlite3.Connection, value: int, first: int, pieces: Iterable[bytes]) -> None:
    """Write pieces of a value, which count once `complete` says so."""
    connection.executemany(
        "INSERT OR REPLACE INTO checkpoint_pieces (value, number, packed) VALUES (?, ?, ?)",
        ((value, number, piece) for number, piece in enumerate(pieces, first)),
    )


def complete(connection: sqlite3.Connection, value: int, one: PackedLine) -> None:
    connection.execute(
        "UPDATE checkpoint_values SET pieces = ?, stored_bytes = ? WHERE value = ?", (len(one.pieces), one.size, value)
    )


def keep_value(connection: sqlite3.Connection, scope: str, one: PackedLine, now: int) -> int:
    """The number of a value that is there then. Raises Problem 503 where it was, and is not any more."""
    value, pieces = value_of(connection, scope, one, now)
    if not pieces:
        if not one.pieces:
            raise unavailable("A value has gone meanwhile: the same again is taken now")
        put_pieces(connection, value, 0, one.pieces)
        complete(connection, value, one)
    return value


def put(connection: sqlite3.Connection, thread: ThreadRow, scope: str, one: PackedLine, now: int) -> int:
    """One line; by how much the rows of its thread have grown. The same again changes nothing."""
    if isinstance(one.line, Checkpoint):
        return one.row + one.size - put_checkpoint(connection, thread, one.line, one.pieces[0], now)
    value = keep_value(connection, scope, one, now)
    if isinstance(one.line, Value):
        return one.row * put_value(connection, thread, one.line, value)
    return one.row * put_write(connection, thread, one.line, value)


def put_checkpoint(connection: sqlite3.Connection, thread: ThreadRow, line: Checkpoint, both: bytes, now: int) -> int:
    """What the row took that was there before."""
    run_id = line.about.get("run_id")
    before = connection.execute(
        f"SELECT {ROWS['checkpoints']} FROM checkpoints WHERE thread_row = ? AND ns = ? AND checkpoint = ?",
        (thread.thread_row, line.ns, line.id),
    ).fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO checkpoints (thread_row, ns, checkpoint, parent, run_id, created, about, versions,"
        " packed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            thread.thread_row,
            line.ns,
            line.id,
            line.parent,
            run_id if isinstance(run_id, str) else None,
            now,
            json_of(line.about),
            json_of(line.versions),
            both,
        ),
    )
    return int(before[0]) if before else 0


def put_value(connection: sqlite3.Connection, thread: ThreadRow, line: Value, value: int) -> int:
    """How many rows more there are."""
    key = (thread.thread_row, line.ns, line.channel, json_of(line.version))
    which = "thread_row = ? AND ns = ? AND channel = ? AND version = ?"
    gone = connection.execute(f"DELETE FROM checkpoint_channels WHERE {which} AND value <> ?", (*key, value))
    made = connection.execute("INSERT OR IGNORE INTO checkpoint_channels VALUES (?, ?, ?, ?, ?)", (*key, value))
    return made.rowcount - gone.rowcount


def put_write(connection: sqlite3.Connection, thread: ThreadRow, line: Write, value: int) -> int:
    """Of a special kind the last counts, of all others the first. How many rows more there are."""
    key = (thread.thread_row, line.ns, line.checkpoint, line.task, line.number)
    gone = 0
    if line.number < 0:
        which = "thread_row = ? AND ns = ? AND checkpoint = ? AND task = ? AND number = ?"
        gone = connection.execute(f"DELETE FROM checkpoint_writes WHERE {which}", key).rowcount
    made = connection.execute(
        "INSERT OR IGNORE INTO checkpoint_writes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*key, line.path, line.channel, value),
    )
    return made.rowcount - gone


ROWS = {
    "checkpoints": "length(packed) + length(about) + length(versions)",
    "checkpoint_channels": "length(ns) + length(channel)",
    "checkpoint_writes": "length(ns) + length(path) + length(task) + length(channel)",
}
"""What the rows of a thread take beside the values that they name."""
SIZE = " + ".join(
    f"(SELECT coalesce(sum({size}), 0) FROM {table} WHERE thread_row = :thread)" for table, size in ROWS.items()
)


def scope_of_rows(thread_row: int) -> str:
    """In material_sizes, whosever the thread is then."""
    return f"rows of {thread_row}"


ROWS_OF = "SELECT coalesce(sum(bytes), 0) FROM material_sizes WHERE scope = ?"


def grow(connection: sqlite3.Connection, thread_row: int, size: int) -> None:
    connection.execute(
        "INSERT INTO material_sizes VALUES ('', :size), (:scope, :size)"
        " ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        {"size": size, "scope": scope_of_rows(thread_row)},
    )


def measure(connection: sqlite3.Connection, thread_row: int) -> None:
    """The rows of a thread, of which some have come or gone."""
    (size,) = connection.execute(f"SELECT {SIZE}", {"thread": thread_row}).fetchone()
    (before,) = connection.execute(ROWS_OF, (scope_of_rows(thread_row),)).fetchone()
    grow(connection, thread_row, size - before)


def json_of(value: object) -> str:
    return msgspec.json.encode(value).decode()


# --------------------------------------------------------------------------- reading

PAGE_BYTES = 16 << 20
"""Of what is read for one page, or the first of it."""


def page_of(column: str) -> str:
    """The newest first, as rows of CheckpointRow; and how many more there are within the limit."""
    return f"""
SELECT c.ns, c.checkpoint, c.parent, c.created, c.about, c.versions, {column}, number - place
FROM (SELECT ns, checkpoint, row_number() OVER newest AS place, sum(size) OVER newest AS size,
             count(*) OVER () AS number
      FROM (SELECT ns, checkpoint, length(about) + length(versions) + length({column}) AS size FROM checkpoints c
            WHERE thread_row = :thread AND (:ns IS NULL OR ns = :ns) AND (:id IS NULL OR checkpoint = :id)
              AND (:before IS NULL OR checkpoint < :before)
            ORDER BY checkpoint DESC, ns LIMIT :limit)
      WINDOW newest AS (ORDER BY checkpoint DESC, ns)) chosen
CROSS JOIN checkpoints c ON c.thread_row = :thread AND c.ns = chosen.ns AND c.checkpoint = chosen.checkpoint
WHERE size <= {PAGE_BYTES} OR place = 1 ORDER BY place"""


CHECKPOINTS, STEPS = page_of("c.packed"), page_of("x''")
CHANNELS = """
SELECT c.channel, c.value FROM json_each(?) wanted JOIN checkpoint_channels c
  ON c.thread_row = ? AND c.ns = ? AND c.channel = wanted.value ->> 0 AND c.version = wanted.value ->> 1"""
WRITES = """
SELECT task, channel, number, path, value FROM checkpoint_writes
WHERE thread_row = ? AND ns = ? AND checkpoint = ? ORDER BY path, task, number"""
WRITTEN = """
SELECT channel FROM checkpoint_writes
WHERE thread_row = ? AND ns = ? AND checkpoint = ? ORDER BY channel <> '__interrupt__', path, task, number LIMIT 1000"""
"""Where there are more, what asks a person is among them."""
IS_NEWEST = "SELECT NOT EXISTS (SELECT 1 FROM checkpoints WHERE thread_row = ? AND ns = ? AND checkpoint > ?)"
VALUE = "SELECT type, pieces FROM checkpoint_values WHERE value = ?"
PIECES = "SELECT packed FROM checkpoint_pieces WHERE value = ? AND number >= ? AND number < ? ORDER BY number"


def wanted(versions: dict[str, Version]) -> str:
    """What CHANNELS looks for."""
    return json_of([[channel, json_of(version)] for channel, version in versions.items()])


# -------------------------------------------------------- copying, pruning, deleting


def copy(
    connection: sqlite3.Connection, source: ThreadRow, target: ThreadRow, after: tuple[str, str]
) -> tuple[str, str] | None:
    """Some checkpoints of a thread with their writes, and where to go on; None: that was all. Values are shared."""
    rows = connection.execute(
        "SELECT ns, checkpoint FROM checkpoints WHERE thread_row = ? AND (ns, checkpoint) > (?, ?)"
        " ORDER BY ns, checkpoint LIMIT ?",
        (source.thread_row, *after, ROWS_AT_ONCE),
    ).fetchall()
    for row in rows:
        for table, columns in (
            ("checkpoints", "parent, run_id, created, about, versions, packed"),
            ("checkpoint_writes", "task, number, path, channel, value"),
        ):
            made = connection.execute(
                f"INSERT OR IGNORE INTO {table} (thread_row, ns, checkpoint, {columns})"
                f" SELECT ?, ns, checkpoint, {columns} FROM {table} WHERE thread_row = ? AND ns = ? AND checkpoint = ?"
                f" RETURNING {ROWS[table]}",
                (target.thread_row, source.thread_row, *row),
            )
            grow(connection, target.thread_row, sum(size for (size,) in made))
    return None if len(rows) < ROWS_AT_ONCE else rows[-1]


def copy_channels(
    connection: sqlite3.Connection, source: ThreadRow, target: ThreadRow, after: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The same of values of versions."""
    rows = connection.execute(CHANNELS_AFTER, (source.thread_row, *after, REMOVED_AT_ONCE)).fetchall()
    insert = "INSERT OR IGNORE INTO checkpoint_channels VALUES (?, ?, ?, ?, ?)"
    made = [row for row in rows if connection.execute(insert, (target.thread_row, *row)).rowcount]
    grow(connection, target.thread_row, sum(len(ns) + len(channel) for ns, channel, *_ in made))
    return None if len(rows) < REMOVED_AT_ONCE else rows[-1][:3]


CHANNELS_AFTER = """
SELECT ns, channel, version, value FROM checkpoint_channels
WHERE thread_row = ? AND (ns, channel, version) > (?, ?, ?) ORDER BY ns, channel, version LIMIT ?"""
VERSIONS_AFTER = """
SELECT versions, checkpoint FROM checkpoints WHERE thread_row = ? AND ns = ? AND checkpoint > ?
ORDER BY checkpoint LIMIT ?"""
OLDER = "thread_row = ? AND ns = ? AND checkpoint < ? AND checkpoint NOT IN (SELECT value FROM json_each(?))"
OF_RUNS = """
run_id IN (SELECT value FROM json_each(?)) AND thread_row IN (SELECT value FROM json_each(?))"""
OF_VERSIONS = """
thread_row = ? AND ns = ? AND (channel, version) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"""
OF_CHECKPOINTS = "thread_row = ? AND ns = ? AND checkpoint IN (SELECT value FROM json_each(?))"


def remove(connection: sqlite3.Connection, table: str, which: str, values: Sequence[object]) -> list[Any]:
    """Remove some rows of threads; their keys. Where they are less than REMOVED_AT_ONCE, that was all."""
    some = f"SELECT {KEYS[table]} FROM {table} WHERE {which} LIMIT {REMOVED_AT_ONCE}"
    gone = connection.execute(
        f"DELETE FROM {table} WHERE ({KEYS[table]}) IN ({some}) RETURNING {KEYS[table]}, {ROWS[table]}", values
    ).fetchall()
    sizes = Counter[int]()
    for thread_row, *_, size in gone:
        sizes[thread_row] += size
    for thread_row, size in sizes.items():
        grow(connection, thread_row, -size)
    return gone


def forget(connection: sqlite3.Connection, thread_row: int, ns: str, some: Sequence[Any], named: set[int]) -> None:
    """Remove the values of versions that are not named."""
    unnamed = [one for one in some if hash(one) not in named]
    remove(connection, "checkpoint_channels", OF_VERSIONS, (thread_row, ns, json_of(unnamed)))


def named_by(versions: Iterable[str]) -> set[int]:
    """The versions of channels that checkpoints name: their hashes, as there may be millions. Should two be the same,
    one more is kept."""
    return {hash((name, json_of(one))) for text in versions for name, one in msgspec.json.decode(text).items()}


RUNS = """
SELECT DISTINCT t.thread_row, t.written_by, t.session_id FROM checkpoints c JOIN checkpoint_threads t USING (thread_row)
WHERE c.run_id IN (SELECT value FROM json_each(?)) AND NOT t.is_deleted"""


def delete(connection: sqlite3.Connection, thread: str) -> int:
    done = connection.execute(
        "UPDATE checkpoint_threads SET is_deleted = 1 WHERE thread = ? AND NOT is_deleted", (thread,)
    )
    return done.rowcount


def purge(connection: sqlite3.Connection, seconds: float) -> bool:
    """Remove some material that is deleted, or used by nobody, at this time. False: nothing of it is left."""
    milliseconds = int(seconds * 1000)
    return material.purge(connection) or purge_thread(connection) or purge_values(connection, milliseconds)


def purge_thread(connection: sqlite3.Connection) -> bool:
    row = connection.execute("SELECT thread_row FROM checkpoint_threads WHERE is_deleted LIMIT 1").fetchone()
    if row is None:
        return False
    if any(remove(connection, table, "thread_row = ?", row) for table in KEYS):
        return True
    measure(connection, *row)
    connection.execute("DELETE FROM material_sizes WHERE scope = ?", (scope_of_rows(*row),))
    connection.execute("DELETE FROM checkpoint_threads WHERE thread_row = ?", row)
    return True


KEYS = {
    "checkpoint_writes": "thread_row, ns, checkpoint, task, number",
    "checkpoint_channels": "thread_row, ns, channel, version",
    "checkpoints": "thread_row, ns, checkpoint",
}


def purge_values(connection: sqlite3.Connection, now: int) -> bool:
    rows = connection.execute(
        "SELECT value, pieces FROM checkpoint_values WHERE uses = 0 AND touched < ? LIMIT ?",
        (now - UNUSED_MILLISECONDS, VALUES_AT_ONCE),
    ).fetchall()
    for value, _ in rows:
        some = f"SELECT rowid FROM checkpoint_pieces WHERE value = ? LIMIT {VALUES_AT_ONCE}"
        gone = connection.execute(f"DELETE FROM checkpoint_pieces WHERE rowid IN ({some})", (value,)).rowcount
        if gone == VALUES_AT_ONCE:
            return True
        connection.execute("DELETE FROM checkpoint_values WHERE value = ?", (value,))
    return bool(rows)
