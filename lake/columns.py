"""What a row of the lake has, as an Arrow schema, and the query that reads it from a store's database.

Columns are only ever added, nullable, and never renamed or retyped: versions of the store that know different ones
seal into the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from arro3.core import Array, DataType, Field, RecordBatch, Schema

TEXT, INTEGER, REAL = DataType.utf8(), DataType.int64(), DataType.float64()
DAY, TIME = DataType.date32(), DataType.timestamp("us", tz="UTC")
BATCH_ROWS, BATCH_CHARACTERS = 1_000, 1 << 20
"""How much is Python objects at the same time: beyond either, a batch ends."""


class Column(NamedTuple):
    """`sql` reads it; times come as milliseconds since 1970, days as days since then."""

    name: str
    type: DataType
    sql: str
    nullable: bool = True


def milliseconds(text: str) -> str:
    """SQL for the milliseconds since 1970 that a time of the store says; exact, as floating days are not."""
    return f"CAST(strftime('%s', {text}) AS INTEGER) * 1000 + CAST(substr({text}, 21, 3) AS INTEGER)"


DAYS = "CAST(strftime('%s', received_at) AS INTEGER) / 86400"
EVENTS = (
    Column("shard", TEXT, ":shard", False),
    Column("day", DAY, DAYS, False),
    Column("cursor", INTEGER, "cursor", False),
    Column("type", TEXT, "type", False),
    Column("session_id", TEXT, "session_id", False),
    Column("user_id", TEXT, "user_id", False),
    Column("event_id", TEXT, "event_id", False),
    Column("agent_id", TEXT, "agent_id"),
    Column("timestamp", TIME, milliseconds("timestamp"), False),
    Column("received_at", TIME, milliseconds("received_at"), False),
    Column("patch", TEXT, "patch"),
    Column("seq", INTEGER, "seq"),
    Column("kind", TEXT, "kind"),
    Column("tool", TEXT, "iif(json_type(data, '$.tool') = 'text', data ->> '$.tool', NULL)"),
    Column("tool_use_id", TEXT, "iif(json_type(data, '$.toolUseId') = 'text', data ->> '$.toolUseId', NULL)"),
    Column(
        "duration_ms",
        REAL,
        "iif(json_type(data, '$.durationMs') IN ('integer', 'real'), CAST(data ->> '$.durationMs' AS REAL), NULL)",
    ),
    Column("actor", TEXT, "actor"),
    Column("failed", INTEGER, "(SELECT is_failed FROM main.verdicts v WHERE v.cursor = e.cursor)"),
    Column("data", TEXT, "data", False),
)
"""Of the table `events`: those of the database, and what questions ask of `data` most: no engine parses JSON for it."""

SESSIONS = (
    Column("shard", TEXT, ":shard", False),
    Column("sealed", INTEGER, ":upto", False),
    Column("session_id", TEXT, "session_id", False),
    *(Column(name, TEXT, name) for name in ("user_id", "status", "input", "model", "phase", "current_step")),
    *(Column(name, TEXT, name) for name in ("waiting_for", "waiting_message")),
    *(Column(name, TIME, milliseconds(name)) for name in ("waiting_since", "created", "updated", "ended")),
    Column("duration_s", REAL, "duration_s"),
    Column("outcome", TEXT, "outcome"),
    *(Column(name, INTEGER, name) for name in ("actions", "responses", "tool_calls", "files_modified")),
    *(Column(name, INTEGER, name) for name in ("bash_commands", "agents", "goals", "goals_completed")),
    *(Column(name, REAL, f"CAST({name} AS REAL)") for name in ("tokens_input", "tokens_output", "cost_usd")),
    Column("resumes", INTEGER, "resumes"),
    *(Column(name, TEXT, name) for name in ("tags", "title", "project", "branch", "host")),
    Column("pinned", INTEGER, "pinned"),
    Column("parent_session", TEXT, "parent_session"),
    Column("last_cursor", INTEGER, "last_cursor", False),
)
"""Of the table `sessions`: what the view of that name in views.sql says when the shard is sealed up to `sealed`; a row
for each seal that found the session changed. Of one session the row with the highest `sealed` counts."""


def schema_of(columns: Sequence[Column]) -> Schema:
    return Schema([Field(column.name, column.type, nullable=column.nullable) for column in columns])


def select(columns: Sequence[Column], rest: str) -> str:
    return f"SELECT {', '.join(f'{column.sql} AS {column.name}' for column in columns)} {rest}"


def array_of(values: Sequence[Any], column: Column) -> Array:
    if column.type == TIME:
        return Array([value if value is None else value * 1000 for value in values], INTEGER).cast(TIME)
    if column.type == DAY:
        return Array(values, DataType.int32()).cast(DAY)
    return Array(values, column.type)


def batches(rows: sqlite3.Cursor, columns: Sequence[Column]) -> Iterator[RecordBatch]:
    """The rows of a query that `select` has made, a bounded number at a time."""
    schema = schema_of(columns)
    while some := list(bounded(rows)):
        arrays = [array_of(values, column) for values, column in zip(zip(*some, strict=True), columns, strict=True)]
        yield RecordBatch.from_arrays(arrays, schema=schema)


def bounded(rows: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    """The next ones, by their number and by the last column, which is the longest where it is a text."""
    characters = 0
    for row in islice(rows, BATCH_ROWS):
        yield row
        characters += len(row[-1]) if isinstance(row[-1], str) else 0
        if characters >= BATCH_CHARACTERS:
            return
