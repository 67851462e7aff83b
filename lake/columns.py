"""What a row of the lake has, as an Arrow schema, and the query that reads it from a store's database.

Columns are only ever added, nullable, and never renamed or retyped: versions of the store that know different ones
seal into the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from arro3.core import Array, DataType, Field, RecordBatch, Schema

from sessionstore.model.events import UNKNOWN_USER

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
ENDS = """
  CASE type WHEN 'session_finalized' THEN '*' WHEN 'agent_completed' THEN data ->> '$.agentId'
    WHEN 'session_deleted' THEN iif(data ->> '$.reason' = 'moved', '>', NULL)
    WHEN 'response' THEN iif(kind = 'assistant_message'
                               OR (kind = 'error' AND data ->> '$.hook_event_name' = 'StopFailure'),
                             coalesce(agent_id, ''), NULL) END"""
"""Whose turn is over with it, so that calls without a result will have none: an agent's, the main agent's (empty),
everybody's (*); or that the session has moved to another store (>)."""
KEEPING = ("retention", "prune", "moved")
"""Reasons of a `session_deleted` by which what is sealed stays. By all others, and where none is said, it goes."""
FORGETS = f"type = 'session_deleted' AND coalesce(data ->> '$.reason', '') NOT IN {KEEPING}"


def unnamed(column: str, otherwise: str) -> str:
    """SQL for what is said instead in the event that has a session forgotten: it stays, and names it no more."""
    return f"iif({FORGETS}, {otherwise}, {column})"


NOBODY = "'forgotten-' || cursor"
EVENTS = (
    Column("shard", TEXT, ":shard", False),
    Column("day", DAY, DAYS, False),
    Column("cursor", INTEGER, "cursor", False),
    Column("type", TEXT, "type", False),
    Column("session_id", TEXT, unnamed("session_id", NOBODY), False),
    Column("user_id", TEXT, unnamed("user_id", f"'{UNKNOWN_USER}'"), False),
    Column("event_id", TEXT, unnamed("event_id", NOBODY), False),
    Column("agent_id", TEXT, "agent_id"),
    Column("timestamp", TIME, milliseconds("timestamp"), False),
    Column("received_at", TIME, milliseconds("received_at"), False),
    Column("patch", TEXT, "patch"),
    Column("seq", INTEGER, "seq"),
    Column("kind", TEXT, "kind"),
    Column("tool", TEXT, "data ->> '$.tool'"),
    Column("tool_use_id", TEXT, "data ->> '$.toolUseId'"),
    Column("run_id", TEXT, "data ->> '$.runId'"),
    Column(
        "duration_ms",
        REAL,
        "iif(json_type(data, '$.durationMs') IN ('integer', 'real'), data ->> '$.durationMs', NULL)",
    ),
    Column("actor", TEXT, "actor"),
    Column("failed", INTEGER, "(SELECT is_failed FROM main.verdicts v WHERE v.cursor = e.cursor)"),
    Column(
        "rejected",
        INTEGER,
        "iif(kind = 'tool_error', (SELECT is_rejected FROM main.verdicts v WHERE v.cursor = e.cursor), 0)",
    ),
    Column(
        "machine_made",
        INTEGER,
        "iif(kind = 'prompt', (SELECT is_machine_made FROM main.words w WHERE w.cursor = e.cursor), 0)",
    ),
    Column("ends", TEXT, ENDS),
    Column("bytes", INTEGER, "length(data)", False),
    Column(
        "data",
        TEXT,
        unnamed("data", f"json_object('sessionId', {NOBODY}, 'reason', 'person', 'by', data -> '$.by')"),
        False,
    ),
)
"""Of the table `events`: those of the database, and what questions ask of `data` most, so that no engine parses JSON
for it, nor has the rules of schema.sql a second time."""

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
    *(Column(name, REAL, name) for name in ("tokens_input", "tokens_output", "cost_usd")),
    Column("resumes", INTEGER, "resumes"),
    *(Column(name, TEXT, name) for name in ("tags", "title", "project", "branch", "host")),
    Column("pinned", INTEGER, "pinned"),
    Column("parent_session", TEXT, "parent_session"),
    Column("last_cursor", INTEGER, "last_cursor", False),
)
"""Of the table `sessions`: what the view of that name in views.sql says when the shard is sealed up to `sealed`; a row
for each seal that found the session changed. Of one session the row with the highest `sealed` counts."""


DETAILS = (
    Column("shard", TEXT, ":shard", False),
    Column("what", TEXT, "", False),
    Column("sealed", INTEGER, ":upto", False),
    *(Column(name, TEXT, "NULL") for name in ("session_id", "goal_id", "agent_id", "parent_agent_id", "request_key")),
    *(Column(name, INTEGER, "NULL") for name in ("position", "cursor", "family", "is_copy")),
    *(Column(name, TEXT, "NULL") for name in ("description", "priority", "type", "task", "status", "spawned_at")),
    *(Column(name, TEXT, "NULL") for name in ("completed_at", "subsession", "result", "record")),
    Column("duration_s", REAL, "NULL"),
    *(Column(name, TEXT, "NULL") for name in ("at", "prompt_id", "provider", "model", "source", "cost_from")),
    *(Column(name, INTEGER, "NULL") for name in ("requests", "unpriced", "input_tokens", "output_tokens")),
    *(Column(name, INTEGER, "NULL") for name in ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")),
    *(Column(name, INTEGER, "NULL") for name in ("reasoning_tokens", "total_tokens")),
    Column("cost_usd", REAL, "NULL"),
    Column("minute", TEXT, "NULL"),
    Column("events", INTEGER, "NULL"),
)
"""Of the table `details`: rows of several kinds, told apart by `what`, each with some of the columns, so that a seal
has one commit more and not five. Of `goals`, `agents` and `costs` a seal that found those of a session changed has all
of them, and the rows with the highest `sealed` of their session count; of `usage` (session, request) and of `minutes`
each row by itself. They are sealed because what makes them of events is long: the triggers of schema.sql. `store` is
what the store calls itself, told once: whoever makes its database again is that store."""

CHANGED = "SELECT session_id FROM main.events WHERE cursor > :sealed AND cursor <= :upto AND seq IS NULL"
REPORTED = "SELECT r.request_key FROM main.reports r WHERE r.cursor > :sealed AND r.cursor <= :upto"


class Detail(NamedTuple):
    """Rows of `details`: `columns` that it has, each with the SQL that reads it, and where from."""

    what: str
    columns: dict[str, str]
    rest: str


OF_CHANGED = f"session_id IN ({CHANGED} AND type <> 'usage_reported')"
OF_CHARGED = f"session_id IN (SELECT u.session_id FROM main.usage u WHERE u.request_key IN ({REPORTED}))"


def same(names: str, **others: str) -> dict[str, str]:
    """Columns that are called alike there and here, and others."""
    return {name: name for name in names.split()} | others


KINDS = (
    Detail(
        "goals",
        same(
            "session_id goal_id position status record",
            description="record ->> '$.description'",
            priority="record ->> '$.priority'",
            completed_at="record ->> '$.completedAt'",
        ),
        f"FROM main.goals WHERE {OF_CHANGED}",
    ),
    Detail(
        "agents",
        same(
            "session_id agent_id parent_agent_id position type task spawned_at completed_at duration_s subsession"
            " result record",
            status="(SELECT a.status FROM main.agents a WHERE a.session_id = v.session_id AND a.agent_id = v.agent_id)",
        ),
        f"FROM agents v WHERE {OF_CHANGED}",
    ),
    Detail(
        "costs",
        same(
            "session_id family cost_from requests unpriced input_tokens output_tokens cache_read_tokens",
            agent_id="nullif(agent_id, '')",
            model="nullif(model, '')",
            at="strftime('%Y-%m-%dT%H:%M:00.000Z', quarter * 900, 'unixepoch')",
            cache_write_tokens="cache_write_tokens + cache_write_1h_tokens",
            cost_usd="iif(cost_from = 'unpriced', NULL, cost_usd)",
        ),
        f"FROM main.usage_counted WHERE {OF_CHARGED}",
    ),
    Detail(
        "usage",
        same(
            "session_id request_key family is_copy cursor at agent_id prompt_id provider model source cost_usd"
            " cost_from input_tokens output_tokens cache_read_tokens cache_write_tokens cache_write_1h_tokens"
            " reasoning_tokens total_tokens",
        ),
        f"FROM main.usage WHERE request_key IN ({REPORTED})",
    ),
    Detail("store", {"record": "store"}, "FROM main.lake WHERE :sealed = 0"),
    Detail(
        "minutes",
        same("minute events"),
        """FROM main.minutes WHERE minute BETWEEN min(
             coalesce((SELECT substr(received_at, 1, 16) FROM main.events
                       WHERE cursor <= :sealed ORDER BY cursor DESC LIMIT 1), ''), :first) AND :last""",
    ),
)
"""What of it is new in a range of cursors, which came from minute :first to :last. What had counted in a deleted
session, and another has copied, counts in the lake once that one tells of it again: no event says that it does."""


def details(kinds: Iterable[Detail] = KINDS) -> str:
    """The query of several kinds."""
    return "\nUNION ALL\n".join(select([of_kind(column, kind) for column in DETAILS], kind.rest) for kind in kinds)


def of_kind(column: Column, kind: Detail) -> Column:
    return column._replace(sql=f"'{kind.what}'" if column.name == "what" else kind.columns.get(column.name, column.sql))


DELETIONS = (
    Column("shard", TEXT, ":shard", False),
    Column("session_id", TEXT, "session_id", False),
    Column("cursor", INTEGER, "cursor", False),
)
"""Of the table `deletions`: of the session in that shard, what stands before that cursor is not to be seen. A row goes
once nothing that it means is in the tables any more."""


def schema_of(columns: Sequence[Column]) -> Schema:
    return Schema([Field(column.name, column.type, nullable=column.nullable) for column in columns])


AFFINITIES = {TEXT: "TEXT", INTEGER: "INTEGER", REAL: "REAL", DAY: "INTEGER", TIME: "INTEGER"}


def select(columns: Sequence[Column], rest: str) -> str:
    """Whatever type an agent has given a value, it has that of its column."""
    values = (f"CAST({column.sql} AS {AFFINITIES[column.type]}) AS {column.name}" for column in columns)
    return f"SELECT {', '.join(values)} {rest}"


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
