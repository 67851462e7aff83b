"""Scrub in material: lines of conversations by their texts, what is opaque by writing over it, as long as it was.

Here a signed part is no exception: what should not be there goes, and with it what its signature was good for.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from sessionstore.model.verbatim import TOKEN
from sessionstore.store import checkpoints, material
from sessionstore.store.material import COMPRESSION, PIECE

Text = Callable[[str], str]
"""A text to what may stay of it."""

MARKER = re.compile(r"\[redacted:[^\]]*\]")
PART = 4 * PIECE
SCRATCH = -1
"""The transcript that pieces are of until all are written."""


def scrub_material(database: sqlite3.Connection, text: Text) -> int:
    """In the transaction that is open; how many conversations, values and checkpoints had something."""
    while checkpoints.purge(database, float(2**40)):
        pass
    return scrub_transcripts(database, text) + scrub_values(database, text) + scrub_steps(database, text)


def look_at_material(database: sqlite3.Connection, text: Text) -> int:
    """The same number, where nothing may be changed."""
    copy = sqlite3.connect("", isolation_level=None)  # SQLite has it in a temporary file
    with closing(copy):
        for table in TABLES:
            (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            copy.execute(sql)
            rows = database.execute(f"SELECT * FROM {table}")
            marks = ", ".join("?" for _ in rows.description)
            copy.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        return scrub_material(copy, text)


TABLES = (
    *("transcripts", "transcript_pieces", "transcript_batches"),
    *("checkpoint_threads", "checkpoints", "checkpoint_channels", "checkpoint_writes"),
    *("checkpoint_values", "checkpoint_pieces"),
)


# -------------------------------------------------------------------- conversations


def scrub_transcripts(database: sqlite3.Connection, text: Text) -> int:
    number = 0
    for (transcript,) in database.execute("SELECT transcript FROM transcripts").fetchall():
        number += scrub_lines(database, transcript, text)
        scrub_column(database, "transcripts", "summary", "transcript", transcript, text)
    return number


def scrub_lines(database: sqlite3.Connection, transcript: int, text: Text) -> bool:
    """Write the pieces of a transcript anew, where any of its lines has something."""
    if all(line_without(line, text) == line for line in lines_of(database, transcript)):
        return False
    size = stored = pieces = 0
    digest = hashlib.sha256()
    for part in gathered(line_without(line, text) for line in lines_of(database, transcript)):
        digest.update(part)
        size += len(part)
        for piece in material.packed(part):
            material.put_aside(database, SCRATCH, pieces, [piece])
            stored, pieces = stored + len(piece), pieces + 1
    database.execute("DELETE FROM transcript_pieces WHERE transcript = ?", (transcript,))
    database.execute("UPDATE transcript_pieces SET transcript = ? WHERE transcript = ?", (transcript, SCRATCH))
    database.execute(
        "UPDATE transcripts SET bytes = ?, pieces = ?, stored_bytes = ? + length(coalesce(summary, '')), digest = ?"
        " WHERE transcript = ?",
        (size, pieces, stored, digest.hexdigest(), transcript),
    )
    return True


def lines_of(database: sqlite3.Connection, transcript: int) -> Iterator[bytes]:
    (pieces,) = database.execute("SELECT pieces FROM transcripts WHERE transcript = ?", (transcript,)).fetchone()
    rest = b""
    for (piece,) in database.execute(material.PIECES, (transcript, 0, pieces)):
        *lines, rest = (rest + zlib.decompress(piece)).split(b"\n")
        yield from (line + b"\n" for line in lines)


def gathered(lines: Iterator[bytes]) -> Iterator[bytes]:
    part = bytearray()
    for line in lines:
        part += line
        if len(part) >= PART:
            whole = len(part) // PIECE * PIECE
            yield bytes(part[:whole])
            del part[:whole]
    yield bytes(part)


def line_without(line: bytes, text: Text) -> bytes:
    """The line, of whose texts those that have something are written anew; what is no text, as it stands."""

    def changed(token: re.Match[bytes]) -> bytes:
        if token[0][:1] != b'"':
            return token[0]
        try:
            said = json.loads(token[0])
        except ValueError:
            return token[0]
        return token[0] if (kept := text(said)) == said else json.dumps(kept).encode()

    found = TOKEN.sub(changed, line)
    plain = found.decode(errors="surrogateescape")
    return found if (kept := text(plain)) == plain else kept.encode(errors="surrogateescape")


# ---------------------------------------------------------------------------- opaque


def scrub_values(database: sqlite3.Connection, text: Text) -> int:
    number = 0
    for value, pieces in database.execute("SELECT value, pieces FROM checkpoint_values").fetchall():
        packed = [row[0] for row in database.execute(checkpoints.PIECES, (value, 0, pieces))]
        data = material.unpacked(packed)
        if (kept := bytes_without(data, text)) != data:
            checkpoints.put_pieces(database, value, 0, material.packed(kept))
            database.execute("UPDATE checkpoint_values SET digest = randomblob(32) WHERE value = ?", (value,))
            number += 1
    return number


def scrub_steps(database: sqlite3.Connection, text: Text) -> int:
    number = 0
    rows = database.execute("SELECT thread_row, ns, checkpoint, about, packed FROM checkpoints").fetchall()
    for *key, about, packed in rows:
        both = [typed_without(part, text) for part in msgspec.msgpack.decode(zlib.decompress(packed), type=TYPED)]
        anew = zlib.compress(msgspec.msgpack.encode(both), COMPRESSION)
        shown = json_without(about, text)
        if (anew, shown) != (packed, about):
            database.execute(
                "UPDATE checkpoints SET about = ?, packed = ? WHERE thread_row = ? AND ns = ? AND checkpoint = ?",
                (shown, anew, *key),
            )
            number += 1
    return number


TYPED = list[checkpoints.Typed]


def typed_without(part: checkpoints.Typed, text: Text) -> checkpoints.Typed:
    return checkpoints.Typed(part.type, bytes_without(part.data, text))


def bytes_without(data: bytes, text: Text) -> bytes:
    """Of the same length, so that what surrounds it can still be read; all of it, where its place is in doubt."""
    said = data.decode("latin-1")
    kept = text(said)
    if kept == said:
        return data
    at, parts = 0, []
    for left in MARKER.split(kept):
        found = said.find(left, at) if left else at
        parts += ["*" * (found - at), left]
        at = found + len(left)
    masked = "".join(parts) + "*" * (len(said) - at)
    is_done = len(masked) == len(said) and text(masked) == masked
    return masked.encode("latin-1") if is_done else b"*" * len(data)


def scrub_column(database: sqlite3.Connection, table: str, column: str, key: str, row: int, text: Text) -> None:
    (said,) = database.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", (row,)).fetchone()
    if said is not None and (kept := json_without(said, text)) != said:
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (kept, row))


def json_without(document: str, text: Text) -> str:
    return line_without(document.encode(), text).decode()
