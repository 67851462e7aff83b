"""What stands in the tree: every file's bytes, as the database has them. LAYOUT.md says the same for people.

Everything here is a query: one database gives one tree, byte for byte. SQLite
builds the lines, many at a time, because each row that is handed over costs
more than its text; but never very many, so that a long session needs no more
memory than a short one.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

PIECE_LINES = 2000
PIECE_BYTES = 8 << 20
"""Of a log, that is taken at once; more only where a single line is larger."""
MAX_BYTES = 1_000_000_000
RECENT = 10

METADATA = "metadata.json"
SUBSESSIONS = "subsessions"
INDEX, DELETED, PROGRESS = "index.json", "deleted.jsonl", ".mirror.json"
SESSIONS, RECENTS = "sessions", "recent"

Step = Callable[[int, int], object]
"""Is told how much is done, and of how much; 0: nobody knows."""


def unseen(done: int, total: int) -> None:
    """A step that is shown to nobody."""


# -------------------------------------------------------------------- database


def open_reader(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that changes nothing, neither in the database nor beside it. Raises sqlite3.Error.

    Where no write-ahead log is there, SQLite makes one to read, and only a
    connection that may write removes it again.
    """
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "rw"
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=check_same_thread)
    for pragma in ("query_only = ON", "busy_timeout = 5000", "wal_autocheckpoint = 0", "cache_size = -16384"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def snapshot(database: sqlite3.Connection) -> Iterator[int]:
    """The database as it is now, whatever is written meanwhile; its newest cursor."""
    database.execute("BEGIN")
    try:
        ((head,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
        yield head
    finally:
        database.execute("ROLLBACK")


# ------------------------------------------------------------------------ logs


class Log(NamedTuple):
    """A JSONL file of a session: its lines in order, and how a line says its position."""

    name: str
    position: re.Pattern[bytes]
    lines: str
    """Query of (position, document) for the session :id after :after."""


def entries_log(name: str, log: str) -> Log:
    return Log(
        name,
        re.compile(rb'\{"seq":([0-9]{1,19}),'),
        f"SELECT seq AS position, document FROM entries WHERE session_id = :id AND log = '{log}' AND seq > :after",
    )


EVENTS = Log(
    "events.jsonl",
    re.compile(rb'\{"cursor":([0-9]{1,19}),'),
    "SELECT cursor AS position, document FROM timeline WHERE session_id = :id AND cursor > :after",
)
ACTIONS = entries_log("actions.jsonl", "action")
RESPONSES = entries_log("responses.jsonl", "response")
LOGS = (EVENTS, ACTIONS, RESPONSES)
"""In the order in which they are written: the one that all others could be made from comes first."""

PIECE = """
SELECT max(position), CAST(group_concat(document, char(10)) AS BLOB)
FROM ({lines} AND position <= :last ORDER BY position LIMIT :lines)"""


def pieces(
    database: sqlite3.Connection, log: Log, session_id: str, after: int, last: int
) -> Iterator[tuple[int, bytes]]:
    """The lines of a log after a position and up to its last, some at a time: where each piece ends, and its bytes.

    Without a snapshot, they may end early where the session is deleted meanwhile.
    """
    query = PIECE.format(lines=log.lines)
    lines = PIECE_LINES
    while after < last:
        with limited(database, PIECE_BYTES if lines else MAX_BYTES):
            try:
                values = {"id": session_id, "after": after, "last": last, "lines": lines or 1}
                ((after, piece),) = database.execute(query, values).fetchall()
            except sqlite3.DataError:  # too large for one piece
                if not lines:
                    raise
                lines //= 8
                continue
        if piece is None:
            return
        yield after, piece + b"\n"


@contextmanager
def limited(database: sqlite3.Connection, size: int) -> Iterator[None]:
    """SQLite makes no text longer than this."""
    before = database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)
    try:
        yield
    finally:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)


# ------------------------------------------------------------------- documents


class TreeSession(NamedTuple):
    """A session's row, as far as the tree depends on it, and its documents."""

    session_id: str
    created_cursor: int
    last_cursor: int
    actions: int
    responses: int
    parent: str | None
    metadata: str

    def last(self, log: Log) -> int:
        """The position of the last line of a log."""
        return {EVENTS.name: self.last_cursor, ACTIONS.name: self.actions, RESPONSES.name: self.responses}[log.name]

    def before_first(self, log: Log) -> int:
        return self.created_cursor - 1 if log is EVENTS else 0


def session(database: sqlite3.Connection, session_id: str) -> TreeSession | None:
    row = database.execute(SESSION, (session_id,)).fetchone()
    return TreeSession(*row) if row else None


SESSION = """
SELECT s.session_id, s.created_cursor, s.last_cursor, s.actions, s.responses, s.parent_session, m.document
FROM sessions s JOIN metadata m ON m.session_id = s.session_id WHERE s.session_id = ?"""


def documents(database: sqlite3.Connection, session_id: str) -> dict[str, bytes | None]:
    """The whole JSON files of a session but for metadata.json; None: there is no such file."""
    rows = database.execute("SELECT name, document FROM documents WHERE session_id = ?", (session_id,))
    texts = dict(rows.fetchall())
    return {f"{name}.json": pretty(texts[name]) if name in texts else None for name in ("initial", "state", "final")}


def pretty(text: str) -> bytes:
    """JSON as people like to read it; numbers and texts stay as they are, to the letter."""
    formatted: str = msgspec.json.format(text, indent=2)
    return formatted.encode() + b"\n"


def subsessions(database: sqlite3.Connection, session_id: str) -> dict[str, str]:
    """The links in a session's `subsessions`, and where they point."""
    rows = database.execute("SELECT session_id FROM sessions WHERE parent_session = ?", (session_id,))
    return {child: f"../../{child}" for (child,) in rows}


def has_changes(database: sqlite3.Connection, session_id: str, after: int) -> bool:
    """Whether anything but log entries has come to a session after a cursor."""
    query = "SELECT EXISTS (SELECT 1 FROM events WHERE session_id = ? AND cursor > ? AND seq IS NULL)"
    ((found,),) = database.execute(query, (session_id, after)).fetchall()
    return bool(found)


# ----------------------------------------------------------------- whole store


def changed(database: sqlite3.Connection, after: int, limit: int = -1) -> list[tuple[str, int]]:
    """Sessions with events after a cursor, and the newest of each, in the order of these."""
    query = "SELECT session_id, last_cursor FROM sessions WHERE last_cursor > ? ORDER BY last_cursor LIMIT ?"
    return database.execute(query, (after, limit)).fetchall()


def remade(database: sqlite3.Connection) -> int:
    """Up to which cursor documents were made anew by a newer version, without a newer event."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'remade'").fetchall():  # of an older version
        return 0
    ((cursor,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM remade").fetchall()
    return int(cursor)


def recent(database: sqlite3.Connection) -> dict[str, str]:
    """The links in `recent`, and where they point."""
    rows = database.execute("SELECT session_id FROM sessions ORDER BY last_cursor DESC LIMIT ?", (RECENT,))
    return {f"{number:02}-{session_id}": f"../{SESSIONS}/{session_id}" for number, (session_id,) in enumerate(rows, 1)}


def index(database: sqlite3.Connection) -> bytes:
    """index.json: a session a line."""
    rows = database.execute("SELECT session_id, user_id, created FROM sessions ORDER BY created_cursor")
    lines = ",\n".join(
        f'"{session_id}": {json.dumps({"userId": user_id, "created": created}, ensure_ascii=False)}'
        for session_id, user_id, created in rows
    )
    return f"{{\n{lines}\n}}\n".encode()


class DeletedSession(NamedTuple):
    cursor: int
    session_id: str
    document: str


def deletions(database: sqlite3.Connection, after: int, until: int) -> list[DeletedSession]:
    """The session_deleted events after a cursor and up to another, of each session the newest."""
    ((number,),) = database.execute(
        "SELECT number FROM counts WHERE what = 'events' AND name = 'session_deleted'"
    ).fetchall()
    if not number:  # nearly always: the search would look at every event
        return []
    rows = database.execute(
        "SELECT cursor, session_id, document FROM timeline"
        " WHERE type = 'session_deleted' AND cursor > ? AND cursor <= ? ORDER BY cursor",
        (after, until),
    )
    newest = {session_id: DeletedSession(cursor, session_id, document) for cursor, session_id, document in rows}
    return sorted(newest.values())


def was_deleted(database: sqlite3.Connection, session_id: str, after: int) -> bool:
    """Whether a session of this id was deleted after a cursor."""
    query = "SELECT EXISTS (SELECT 1 FROM events WHERE session_id = ? AND cursor > ? AND type = 'session_deleted')"
    ((found,),) = database.execute(query, (session_id, after)).fetchall()
    return bool(found)
