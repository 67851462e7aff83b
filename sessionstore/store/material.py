"""Material: the lines of conversations in the database, as plain functions of a connection.

Kept beside the events and apart from them. A transcript is a run of bytes, whole lines, cut into pieces of PIECE bytes
and compressed. What counts is what its row says counts: pieces behind that are of a batch that was broken off, and the
next one writes over them. So a batch of any size goes in by small transactions, and is seen only when it is whole.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

import msgspec

from sessionstore.model.problems import Problem, invalid

PIECE = 256 << 10
"""Bytes of a transcript that are compressed together."""
COMPRESSION = 3
MAX_KEY = 512
HALF = re.compile("[\ud800-\udfff]")
"""Of a surrogate pair: what stands for bytes that are no UTF-8."""
PURGED_AT_ONCE = 16
"""Pieces that one chore removes."""


class Key(NamedTuple):
    """What a transcript is found by; `subpath` is empty for the conversation itself."""

    folder: str
    session: str
    subpath: str = ""


def checked_key(name: str, text: str) -> str:
    """One of its parts. Raises Problem 422."""
    if not 1 <= len(text) <= MAX_KEY or "\0" in text:
        raise invalid(f"$.{name}", f"must have 1 to {MAX_KEY} characters, and no NUL")
    if not text.isprintable() and HALF.search(text):
        raise invalid(f"$.{name}", "must be UTF-8")
    if not text.strip("."):
        raise invalid(f"$.{name}", "must not be of dots alone")
    return text


def checked_subpath(text: str) -> str:
    """A subpath becomes a path when a conversation is written back. Raises Problem 422."""
    if any(part and not part.strip(".") for part in text.replace("\\", "/").split("/")):
        raise invalid("$.subpath", "must not have a part of dots alone")
    return checked_key("subpath", text)


def checked(key: Key) -> Key:
    """Raises Problem 422."""
    for name in ("folder", "session"):
        checked_key(name, getattr(key, name))
    if key.subpath:
        checked_subpath(key.subpath)
    return key


class Transcript(msgspec.Struct):
    """A row of transcripts."""

    transcript: int
    folder: str
    session: str
    subpath: str
    generation: int
    source: str
    session_id: str | None
    written_by: str | None
    created: int
    updated: int
    lines: int
    bytes: int
    pieces: int
    stored_bytes: int
    digest: str
    source_bytes: int
    source_digest: str | None
    summary: str | None
    summary_version: int
    summarized: int | None


COLUMNS = ", ".join(Transcript.__struct_fields__)
NEWEST = f"""
SELECT {COLUMNS} FROM transcripts WHERE folder = ? AND session = ? AND subpath = ? AND NOT is_deleted
ORDER BY generation DESC LIMIT 1"""
IS_THERE = """
lines > 0 AND NOT is_deleted
  AND generation = (SELECT max(generation) FROM transcripts n WHERE n.folder = t.folder AND n.session = t.session
                      AND n.subpath = t.subpath AND NOT n.is_deleted)"""
"""Of transcripts t: the newest at its key, and something is in it."""
SESSIONS = f"""
SELECT session, updated, transcript, written_by, session_id FROM transcripts t
WHERE folder = ? AND subpath = '' AND {IS_THERE}"""
SUMMARY = "SELECT summary, summary_version, summarized FROM transcripts WHERE transcript = ?"
SUBPATHS = """
SELECT subpath, max(written_by), max(session_id) FROM transcripts
WHERE folder = ? AND session = ? AND subpath > '' AND lines > 0 AND NOT is_deleted
GROUP BY subpath ORDER BY subpath"""
OF_A_SESSION = f"""
SELECT folder, session, source, lines, bytes, updated, written_by, session_id FROM transcripts t
WHERE session_id = ? AND subpath = '' AND {IS_THERE} ORDER BY updated"""
PIECES = "SELECT packed FROM transcript_pieces WHERE transcript = ? AND number >= ? AND number < ? ORDER BY number"
PARTS = """
SELECT b.part, b.lines, b.digest FROM transcripts t JOIN transcript_batches b USING (transcript)
WHERE t.folder = ? AND t.session = ? AND t.subpath = ? AND NOT t.is_deleted AND b.batch = ?"""


class Provenance(NamedTuple):
    """What a caller says of what it sends."""

    source: str = "sdk"
    session_id: str | None = None
    written_by: str | None = None
    offset: int | None = None
    """Where in its source the first line stands; None: behind what is there."""


class Part(NamedTuple):
    """Some whole lines of a batch, compressed."""

    batch: str | None
    number: int
    lines: int
    size: int
    digest: bytes
    """Of them as they came."""
    pieces: list[bytes]


class PartProgress(NamedTuple):
    """How far a transcript is with a part, and its source."""

    digest: str
    source_bytes: int
    source_digest: str | None


def packed(lines: bytes) -> list[bytes]:
    """Lines in the pieces that they are kept in."""
    view = memoryview(lines)
    return [zlib.compress(view[at : at + PIECE], COMPRESSION) for at in range(0, len(view), PIECE)]


def unpacked(pieces: Iterable[bytes]) -> bytes:
    return b"".join(map(zlib.decompress, pieces))


# ------------------------------------------------------------------------ finding


def find(connection: sqlite3.Connection, key: Key) -> Transcript | None:
    row = connection.execute(NEWEST, key).fetchone()
    return Transcript(*row) if row else None


def begins_anew(found: Transcript, said: Provenance) -> bool:
    """Whether what comes is of a source that took the place of the other. Raises Problem 412 where it fits nowhere."""
    if said.offset is None or said.offset in (found.source_bytes, found.bytes):
        return False
    if said.offset == 0:
        return True
    raise ends_at(found.source_bytes)


def ends_at(size: int) -> Problem:
    headers = {"x-source-bytes": f"{size}"}
    return Problem(412, f"The lines that are kept end at byte {size} of their source", headers=headers)


def begin(connection: sqlite3.Connection, key: Key, said: Provenance, now: int) -> Transcript:
    """The transcript that a batch goes to, made if it is not there. Raises Problem 409, 412."""
    found = find(connection, key)
    if found is not None and found.source != said.source:
        raise Problem(409, f"This conversation is kept by {found.source!r}: {said.source!r} may not write to it")
    if found is None and said.offset:
        raise ends_at(0)
    if found is None or begins_anew(found, said):
        insert(connection, key, said, now, found)
        found = find(connection, key)
    assert found is not None
    return found


def insert(connection: sqlite3.Connection, key: Key, said: Provenance, now: int, before: Transcript | None) -> None:
    known = before.session_id if before else owner(connection, f"claude:{key.session}", key.session, said.written_by)
    connection.execute(
        "INSERT INTO transcripts (folder, session, subpath, generation, source, session_id, written_by, created,"
        " updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key,
            before.generation + 1 if before else 1,
            said.source,
            said.session_id or known,
            said.written_by,
            now,
            now,
        ),
    )


OWNER = """
SELECT session_id FROM claims WHERE name = :claim AND claimed_by = :by
UNION ALL
SELECT s.session_id FROM sessions s JOIN events e ON e.cursor = s.created_cursor
WHERE s.session_id = :name AND coalesce(e.actor, '') = :by"""


def owner(connection: sqlite3.Connection, claim: str, name: str, written_by: str | None) -> str | None:
    """The session that has claimed what nobody says the session of, or that has its name, by the same token."""
    found = connection.execute(OWNER, {"claim": claim, "name": name, "by": written_by or ""}).fetchone()
    return str(found[0]) if found else None


# ------------------------------------------------------------------------ writing


def put_aside(connection: sqlite3.Connection, transcript: int, first: int, pieces: Iterable[bytes]) -> None:
    """Write pieces that do not count yet, from number `first` on."""
    connection.executemany(
        "INSERT OR REPLACE INTO transcript_pieces (transcript, number, packed) VALUES (?, ?, ?)",
        ((transcript, number, piece) for number, piece in enumerate(pieces, first)),
    )


def keep(
    connection: sqlite3.Connection, found: Transcript, part: Part, progress: PartProgress, said: Provenance, now: int
) -> Transcript:
    """Have a part count whose pieces are there. The transcript as it is then."""
    connection.execute(
        "UPDATE transcripts SET updated = max(?, updated), lines = lines + ?, bytes = bytes + ?, pieces = pieces + ?,"
        " stored_bytes = stored_bytes + ?, digest = ?, source_bytes = ?, source_digest = ?,"
        " session_id = coalesce(?, session_id) WHERE transcript = ?",
        (
            now,
            part.lines,
            part.size,
            len(part.pieces),
            sum(map(len, part.pieces)),
            *progress,
            said.session_id,
            found.transcript,
        ),
    )
    if part.batch is not None:
        connection.execute(
            "INSERT INTO transcript_batches (transcript, batch, part, lines, digest) VALUES (?, ?, ?, ?, ?)",
            (found.transcript, part.batch, part.number, part.lines, part.digest),
        )
    row = connection.execute(f"SELECT {COLUMNS} FROM transcripts WHERE transcript = ?", (found.transcript,)).fetchone()
    return Transcript(*row)


def summarize(connection: sqlite3.Connection, key: Key, summary: str, versions: frozenset[int] | None, now: int) -> int:
    """Set the summary; its new version. Raises Problem 404, and 412 where it is at none of `versions`."""
    found = find(connection, key)
    if found is None:
        raise nothing_at(key)
    if versions is not None and found.summary_version not in versions:
        raise Problem(
            412, f"The summary has moved on: it is at version {found.summary_version} now; get it and fold again"
        )
    connection.execute(
        "UPDATE transcripts SET summary = :new, summary_version = summary_version + 1, summarized = max(:now, updated),"
        " stored_bytes = max(0, stored_bytes + length(:new) - length(coalesce(summary, ''))) WHERE transcript = :it",
        {"new": summary, "now": now, "it": found.transcript},
    )
    return found.summary_version + 1


def nothing_at(key: Key) -> Problem:
    where = "/".join(part for part in key if part)
    return Problem(404, f"There are no lines of a conversation at {where!r}")


# ----------------------------------------------------------------------- deleting


def delete_of_session(connection: sqlite3.Connection, session_id: str) -> None:
    """All that belongs to a session."""
    for table in ("transcripts", "checkpoint_threads"):
        connection.execute(f"UPDATE {table} SET is_deleted = 1 WHERE session_id = ? AND NOT is_deleted", (session_id,))


STAMP = """
SELECT 'transcript', transcript, updated, stored_bytes FROM transcripts WHERE session_id = :id AND NOT is_deleted
UNION ALL
SELECT 'thread', thread_row, updated, coalesce(m.bytes, 0)
FROM checkpoint_threads LEFT JOIN material_sizes m ON m.scope = 'rows of ' || thread_row
WHERE session_id = :id AND NOT is_deleted ORDER BY 1, 2"""


def stamp_of(connection: sqlite3.Connection, session_id: str) -> str:
    """32 characters, others whenever the material of a session has become another, which no event tells."""
    rows = connection.execute(STAMP, {"id": session_id}).fetchall()
    return sha256(repr(rows).encode()).hexdigest()[:32]


def check_unchanged(connection: sqlite3.Connection, session_id: str, stamp: str) -> None:
    """Raises Problem 412 where the material of a session has another stamp."""
    if stamp_of(connection, session_id) != stamp:
        raise Problem(412, "The session has moved on: its conversations or checkpoints are others now")


OF_NOBODY = (
    "updated < ? AND NOT is_deleted AND (session_id IS NULL OR session_id NOT IN (SELECT session_id FROM sessions))"
)


def expire(connection: sqlite3.Connection, before: int) -> int:
    """Delete what belongs to no session, and has not changed since a time; how much."""
    return sum(
        connection.execute(f"UPDATE {table} SET is_deleted = 1 WHERE {OF_NOBODY}", (before,)).rowcount
        for table in ("transcripts", "checkpoint_threads")
    )


def delete(connection: sqlite3.Connection, key: Key) -> int:
    """Delete what is at a key; at that of a conversation itself, with all that is beside it. How many there were."""
    which = f"folder = ? AND session = ?{' AND subpath = ?' if key.subpath else ''}"
    values = key if key.subpath else key[:2]
    done = connection.execute(f"UPDATE transcripts SET is_deleted = 1 WHERE {which} AND NOT is_deleted", values)
    return done.rowcount


def purge(connection: sqlite3.Connection) -> bool:
    """Remove some of what is deleted. False: nothing of it is left."""
    row = connection.execute("SELECT transcript FROM transcripts WHERE is_deleted LIMIT 1").fetchone()
    if row is None:
        return False
    pieces = "SELECT rowid FROM transcript_pieces WHERE transcript = ? LIMIT ?"
    done = connection.execute(f"DELETE FROM transcript_pieces WHERE rowid IN ({pieces})", (*row, PURGED_AT_ONCE))
    if done.rowcount < PURGED_AT_ONCE:
        connection.execute("DELETE FROM transcript_batches WHERE transcript = ?", row)
        connection.execute("DELETE FROM transcripts WHERE transcript = ?", row)
    return True


def pieces_of(connection: sqlite3.Connection, transcript: Transcript) -> Iterator[bytes]:
    """Its bytes, a piece at a time."""
    for (piece,) in connection.execute(PIECES, (transcript.transcript, 0, transcript.pieces)):
        yield zlib.decompress(piece)
