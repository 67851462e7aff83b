"""A database on disk without a server: an appender with a clock and ids that repeat, and counts made from scratch."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sessionstore.model.events import TOLD_ABOUT, Draft, text_of_time
from sessionstore.store.appender import Appended, Appender
from sessionstore.store.schema import drop_views_and_triggers, open_writer

MIDNIGHT = 1_771_027_200.0  # 2026-02-14T00:00:00Z
SECONDS_A_TICK = 7.5

OF_ASKS = ("asks", "retold_asks", "ended_asks", "orders")
DERIVED = ("sessions", "documents", "goals", "agents", *OF_ASKS, "status_changes", "counts", "users", "minutes")

RECOUNTS = {
    "counts": """
        SELECT 'events' AS what, type AS name, count(*) AS number FROM events GROUP BY type
        UNION ALL SELECT 'sessions', status, count(*) FROM sessions GROUP BY status
        UNION ALL SELECT 'goals', status, count(*) FROM goals GROUP BY status
        UNION ALL SELECT 'agents', status, count(*) FROM agents GROUP BY status ORDER BY 1, 2""",
    "users": "SELECT user_id, count(*) FROM sessions GROUP BY user_id ORDER BY 1",
    "logs": """
        SELECT s.session_id, count(*) FILTER (WHERE type = 'action'), count(*) FILTER (WHERE type = 'response'),
               max(e.cursor), max(e.received_at)
        FROM sessions s JOIN events e ON e.session_id = s.session_id AND e.cursor >= s.created_cursor
        GROUP BY 1 ORDER BY 1""",
    "goals": """
        SELECT d.session_id, count(DISTINCT value ->> '$.id') FROM documents d, json_each(d.document, '$.goals')
        WHERE name = 'state' AND json_type(document, '$.goals') = 'array' AND type = 'object'
          AND json_type(value, '$.id') = 'text' GROUP BY 1 ORDER BY 1""",
    "agents": """
        SELECT d.session_id, count(DISTINCT value ->> '$.agentId')
        FROM documents d, json_each(d.document, '$.agents.spawned')
        WHERE name = 'state' AND json_type(document, '$.agents.spawned') = 'array' AND type = 'object'
          AND json_type(value, '$.agentId') = 'text' GROUP BY 1 ORDER BY 1""",
}
"""What the triggers keep, counted anew from the rows themselves."""

KEPT = {
    "counts": "SELECT * FROM counts WHERE number <> 0 ORDER BY 1, 2",
    "users": "SELECT * FROM users ORDER BY 1",
    "logs": "SELECT session_id, actions, responses, last_cursor, updated FROM sessions ORDER BY 1",
    "goals": "SELECT session_id, goals FROM sessions WHERE goals <> 0 ORDER BY 1",
    "agents": "SELECT session_id, agents FROM sessions WHERE agents <> 0 ORDER BY 1",
}


class Database:
    """One file, and the appender on it. The clock, seconds since 1970, ticks once a transaction."""

    def __init__(self, path: Path, auto_create: bool = True, clock: float = MIDNIGHT) -> None:
        self.path = path
        self.begun = clock
        self.connection = open_writer(path, durability="normal")
        self.ticks = count()
        ids = (f"event-{number}" for number in count(1))
        self.appender = Appender(self.connection, clock=self.tick, ids=ids, auto_create=auto_create)

    def tick(self) -> str:
        return text_of_time(self.begun + SECONDS_A_TICK * next(self.ticks))

    @contextmanager
    def transaction(self) -> Iterator[Appender]:
        self.appender.begin()
        try:
            yield self.appender
        finally:
            self.appender.commit()

    def append(self, draft: Draft) -> Appended:
        """One write in a transaction of its own, refused by name where it cannot be stored."""
        self.appender.buffers = False
        try:
            with self.transaction() as appender:
                return appender.append(draft)
        finally:
            self.appender.buffers = True

    def rows(self, query: str, *values: Any) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        ((value,),) = self.rows(query, *values)
        return value

    def document(self, session_id: str, name: str) -> str:
        return str(self.value("SELECT document FROM documents WHERE session_id = ? AND name = ?", session_id, name))

    def kept(self) -> dict[str, list[Any]]:
        return {name: self.rows(query) for name, query in KEPT.items()}

    def recounted(self) -> dict[str, list[Any]]:
        return {name: self.rows(query) for name, query in RECOUNTS.items()}

    def dump(self, *tables: str) -> dict[str, list[Any]]:
        return {table: sorted(self.rows(f"SELECT * FROM {table}"), key=repr) for table in tables or DERIVED}

    def close(self) -> None:
        self.connection.close()


def without_actors(connection: sqlite3.Connection) -> None:
    """Take the events back to what they were before version 10."""
    drop_views_and_triggers(connection)
    connection.execute("ALTER TABLE events DROP COLUMN actor")
    connection.execute("DELETE FROM counts WHERE name IN (SELECT value FROM json_each(?))", (json.dumps(TOLD_ABOUT),))


@contextmanager
def temporary_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "sessions.db")
        try:
            yield database
        finally:
            database.close()


def drafted(event_type: str, session_id: str, data: dict[str, Any] | None = None, **members: Any) -> Draft:
    return Draft(type=event_type, session_id=session_id, data=data or {}, **members)


def view(connection: sqlite3.Connection, name: str) -> list[str]:
    return [document for (document,) in connection.execute(f"SELECT document FROM {name} ORDER BY cursor")]
