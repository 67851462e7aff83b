"""The store's name in a lake, kept in its database: what is sealed under one name is never sealed under another."""

from __future__ import annotations

import secrets
import sqlite3

from sessionstore.settings import BadSetting


def kept_shard(database: sqlite3.Connection) -> str | None:
    """None: it has never been told of a lake."""
    row = database.execute("SELECT shard FROM lake").fetchone()
    return str(row[0]) if row else None


def keep_shard(writer: sqlite3.Connection, wanted: str | None) -> str:
    """The name from now on: what is kept, else what is wanted, else one that nobody has. Raises BadSetting where two
    differ: every event would be in the lake twice."""
    kept = kept_shard(writer)
    if kept is None:
        kept = wanted or f"store-{secrets.token_hex(6)}"
        writer.execute("INSERT INTO lake VALUES (1, ?)", (kept,))
    if wanted not in (None, kept):
        raise BadSetting(f"SESSIONS_SHARD={wanted!r}: this store's events are in the lake as {kept!r}: leave it so")
    return kept
