"""By what a store is told from others. Its name in a lake is kept in its database: what is sealed under one name never
is under another."""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import NamedTuple

from sessionstore.settings import BadSetting


class Shard(NamedTuple):
    """`name` is SESSIONS_SHARD; `store` says which of two stores that share a name this is."""

    name: str
    store: str


def kept_shard(database: sqlite3.Connection) -> Shard | None:
    """None: it has never been told of a lake."""
    row = database.execute("SELECT shard, store FROM lake").fetchone()
    return Shard(*row) if row else None


def keep_shard(writer: sqlite3.Connection, wanted: str | None) -> Shard:
    """From now on: what is kept, else the name that is wanted, else one that nobody has. Raises BadSetting where two
    names differ: every event would be in the lake twice."""
    if (kept := kept_shard(writer)) is None:
        kept = Shard(wanted or f"store-{secrets.token_hex(6)}", secrets.token_hex(8))
        writer.execute("INSERT INTO lake VALUES (1, ?, ?)", kept)
    if wanted not in (None, kept.name):
        raise BadSetting(f"SESSIONS_SHARD={wanted!r}: this store's events are in the lake as {kept.name!r}: leave that")
    return kept


FIRST = "SELECT event_id FROM events ORDER BY cursor LIMIT 1"


def mark_of(database: Path, first: str) -> str:
    """What tells a store from any other: its file, and the id of the first event in it."""
    found = os.stat(database)
    return hashlib.sha256(f"{found.st_dev} {found.st_ino} {first}".encode()).hexdigest()
