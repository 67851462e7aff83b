"""The material of a session in its archive: rows of the database, a line of JSON each, bytes in base64.

    ["transcripts", {"transcript": 1, "folder": …}]
    ["transcript_pieces", {"transcript": 1, "number": 0, "packed": "…"}]

The numbers by which rows name each other are those of the database that they come from.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

NAME = "material.jsonl"

THREADS = "SELECT thread_row FROM checkpoint_threads WHERE session_id = :id AND NOT is_deleted"
TRANSCRIPTS = "SELECT transcript FROM transcripts WHERE session_id = :id AND NOT is_deleted"
VALUES = f"""
SELECT value FROM checkpoint_channels WHERE thread_row IN ({THREADS})
UNION SELECT value FROM checkpoint_writes WHERE thread_row IN ({THREADS})"""
ROWS = {
    "transcripts": f"transcript IN ({TRANSCRIPTS}) ORDER BY transcript",
    "transcript_pieces": f"""transcript IN ({TRANSCRIPTS})
      AND number < (SELECT pieces FROM transcripts t WHERE t.transcript = transcript_pieces.transcript)
      ORDER BY transcript, number""",
    "transcript_batches": f"transcript IN ({TRANSCRIPTS}) ORDER BY transcript, batch, part",
    "checkpoint_threads": f"thread_row IN ({THREADS}) ORDER BY thread_row",
    "checkpoint_values": f"value IN ({VALUES}) ORDER BY value",
    "checkpoint_pieces": f"value IN ({VALUES}) ORDER BY value, number",
    "checkpoints": f"thread_row IN ({THREADS}) ORDER BY thread_row, ns, checkpoint",
    "checkpoint_channels": f"thread_row IN ({THREADS}) ORDER BY thread_row, ns, channel, version",
    "checkpoint_writes": f"thread_row IN ({THREADS}) ORDER BY thread_row, ns, checkpoint, task, number",
}
"""What belongs to the session :id, what is named before what names it."""
BYTES = frozenset({"packed"})
DIGESTS = {("transcript_batches", "digest"), ("checkpoint_values", "digest")}


def lines(database: sqlite3.Connection, session_id: str) -> Iterator[bytes]:
    """None in a database of a version that had no material."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'transcripts'").fetchone():
        return
    for table, which in ROWS.items():
        cursor = database.execute(f"SELECT * FROM {table} WHERE {which}", {"id": session_id})
        names = [name for name, *_ in cursor.description]
        for row in cursor:
            yield msgspec.json.encode([table, dict(zip(names, row, strict=True))]) + b"\n"


def row_in(line: bytes) -> tuple[str, dict[str, Any]]:
    """The table and the row that a line says. Raises ValueError where it says none."""
    table, row = msgspec.json.decode(line, type=tuple[str, dict[str, Any]])
    if table not in ROWS:
        raise ValueError(f"{table!r} is no table of material")
    for name in row:
        if name in BYTES or (table, name) in DIGESTS:
            row[name] = base64.b64decode(row[name], validate=True)
    return table, row
