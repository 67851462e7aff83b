"""Follows scrubs into the lake: rows replaced by what the store has now (merges that update), by cursor.

Which scrubs it has followed the table of events says itself, by a transaction of each that has its name. Whoever is
killed meanwhile does one again from its beginning, which changes nothing more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from arro3.core import RecordBatchReader
from deltalake import DeltaTable

from export.layout import snapshot
from lake.columns import DETAILS, EVENTS, KINDS, SESSIONS, Column, batches, details, schema_of, select
from lake.forgetting import SESSIONS_AT_ONCE, groups, source_of
from lake.rewriting import DETAILS_KEPT, EVENTS_KEPT, SESSIONS_KEPT, WHOLE, again, merging, opened, spans
from lake.sealer import open_store
from lake.table import append, open_table, sealed_cursor

Values = Mapping[str, Any]

OF_SCRUB = "FROM main.scrubs WHERE scrub = :scrub"
OF_SPAN = f"{OF_SCRUB} AND cursor BETWEEN :first AND :last AND substr(received_at, 1, 10) = :day"
DAYS = f"SELECT DISTINCT substr(received_at, 1, 10) {OF_SCRUB}"
IDS = f"SELECT DISTINCT session_id {OF_SCRUB}"
EVENTS_NOW = select(EVENTS, f"FROM main.events e WHERE cursor IN (SELECT cursor {OF_SPAN})")
SESSIONS_NOW = select(SESSIONS, f"FROM sessions WHERE session_id IN ({IDS})")
LISTS = ("goals", "agents")
"""Of `details`, what has text."""
LISTS_NOW = details(
    kind._replace(rest=f"{kind.rest.partition(' WHERE ')[0]} WHERE session_id IN ({IDS})")
    for kind in KINDS
    if kind.what in LISTS
)
# What the store has not any more cannot be replaced: it goes.
NUMBER = Column("number", EVENTS[2].type, "cursor")
GONE_EVENTS = select([NUMBER], f"{OF_SPAN} AND cursor NOT IN (SELECT cursor FROM main.events)")
GONE_SESSIONS = f"{IDS} AND session_id NOT IN (SELECT session_id FROM main.sessions)"


def follow(path: Path, url: str, shard: str) -> int:
    """Do in the lake what scrubs have done in the store, and were not followed; how many. What is not sealed yet is
    sealed as it is then."""
    with closing(open_store(path)) as database, snapshot(database):
        names = [name for (name,) in database.execute("SELECT DISTINCT scrub FROM scrubs")]
        return sum(again(partial(follow_one, database, url, shard, name)) for name in names)


def follow_one(database: sqlite3.Connection, url: str, shard: str, scrub: str) -> bool:
    events = opened(f"{url}/events")
    if events is None or events.transaction_version(name_of(scrub)) is not None:
        return False
    values = {"shard": shard, "scrub": scrub, "upto": sealed_cursor(events, shard)}
    replace_events(database, events, values)
    replace_sessions(database, url, values)
    replace_lists(database, url, values)
    append(events, iter(()), EVENTS, name_of(scrub), 1)
    return True


def name_of(scrub: str) -> str:
    """Of the transaction that says that it is followed. No shard has such a name."""
    return f"lake/scrubbed/{scrub}"


def replace_events(database: sqlite3.Connection, table: DeltaTable, values: Values) -> None:
    days = [date.fromisoformat(day) for (day,) in database.execute(DAYS, values)]
    for span in spans(table, EVENTS_KEPT, values["shard"], days):
        of_span = {**values, "first": span.first, "last": span.last, "day": str(span.day)}
        replace(table, f"{span} AND t.cursor = s.cursor", read(database, EVENTS_NOW, of_span, EVENTS), EVENTS)
        if database.execute(GONE_EVENTS, of_span).fetchone():
            gone = read(database, GONE_EVENTS, of_span, [NUMBER])
            merging(table, gone, f"{span} AND t.cursor = s.number").when_matched_delete().execute()


def replace_sessions(database: sqlite3.Connection, url: str, values: Values) -> None:
    """All rows of a session, also those that do not count any more."""
    table = open_table(f"{url}/sessions", SESSIONS, ["shard"])
    for span in spans(table, SESSIONS_KEPT, values["shard"]):
        rows = read(database, SESSIONS_NOW, values, SESSIONS)
        replace(table, f"{span} AND t.session_id = s.session_id", rows, SESSIONS)
        for gone in ids(database, GONE_SESSIONS, values):
            merging(table, source_of(gone), f"{span} AND t.session_id = s.id").when_matched_delete().execute()


def replace_lists(database: sqlite3.Connection, url: str, values: Values) -> None:
    """Those that there were are taken out, for what was in them then need not be in them now."""
    table = open_table(f"{url}/details", DETAILS, ["what", "shard"])
    of_list = f"t.what IN {LISTS} AND t.session_id = s.id"
    for span in spans(table, DETAILS_KEPT, values["shard"]):
        for some in ids(database, IDS, values):
            merging(table, source_of(some), f"{span} AND {of_list}").when_matched_delete().execute()
    rows = batches(database.execute(LISTS_NOW, values), DETAILS)
    append(table, rows, DETAILS, name_of(values["scrub"]), 1)


def read(database: sqlite3.Connection, query: str, values: Values, columns: Sequence[Column]) -> RecordBatchReader:
    return RecordBatchReader.from_batches(schema_of(columns), batches(database.execute(query, values), columns))


def ids(database: sqlite3.Connection, query: str, values: Values) -> list[dict[str, int]]:
    """A bounded number at a time, as `source_of` takes them."""
    found = [session_id for (session_id,) in database.execute(query, values)]
    return [dict.fromkeys(some, WHOLE) for some in groups(found, SESSIONS_AT_ONCE)]


KEYS = {"shard", "day", "cursor", "sealed", "session_id"}


def replace(table: DeltaTable, condition: str, rows: RecordBatchReader, columns: Sequence[Column]) -> None:
    """Of the rows that match, every value but for what tells them apart, as far as the table has the column."""
    known = {field.name for field in table.schema().fields}
    names = [column.name for column in columns if column.name in known - KEYS]
    merging(table, rows, condition).when_matched_update({name: f"s.{name}" for name in names}).execute()
