"""Asking the lake: each view and each canned question says of it what SQLite says of the shards that sealed into it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from lake.asking import LIVE_ONLY, Answer, ask, open_lake, other_words, question
from lake.dialects import of_shards
from sessionstore.analytics.catalogue import questions, views
from sessionstore.model.events import Draft, text_of_time
from sessionstore.store.appender import Appender
from sessionstore.store.schema import open_writer
from tests.askable import Json, seal_all, tell, together
from tests.repeats import marked, repeated

EVENTS = 1500
"""Of each shard."""
SHARDS = ("berlin", "munich")
JOINED = {"users", "reasons", "types", "session_ids", "them", "tags"}
"""Columns of several values with commas, in no order."""
UNTIL_NOW = {"minutes", "longest"}
"""Columns of what may go on still."""


class Asked(NamedTuple):
    """Shards of the same events in SQLite, and the lake of them."""

    paths: dict[str, Path]
    url: str
    sqlite: sqlite3.Connection
    lake: duckdb.DuckDBPyConnection
    given: dict[str, str]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with made(tmp_path_factory.mktemp("asked"), EVENTS) as asked:
        yield asked


@contextmanager
def made(folder: Path, events: int) -> Iterator[Asked]:
    paths = {shard: folder / f"{shard}.db" for shard in SHARDS}
    url = f"file://{folder}/lake"
    for seed, (shard, path) in enumerate(paths.items()):
        tell(path, shard, events, seed)
        seal_all(path, url, shard)
    with closing(together(paths)) as sqlite, open_lake(url) as lake:
        longest = "SELECT session_id FROM events GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
        yield Asked(paths, url, sqlite, lake, {"session": sqlite.execute(longest).fetchone()[0], "word": "E"})


def given_for(name: str, asked: Asked) -> dict[str, str]:
    return {parameter: asked.given[parameter] for parameter in questions()[name].parameters if parameter in asked.given}


def by_sqlite(connection: sqlite3.Connection, name: str, given: dict[str, str]) -> Answer:
    """Of several shards. In the words of SQLite the last of a lost session is found by a cursor, which each has."""
    sql = other_words()[name] if name == "lost-sessions" else of_shards(questions()[name].sql)
    return answered(connection, sql, name, given)


def answered(connection: sqlite3.Connection, sql: str, name: str, given: dict[str, str]) -> Answer:
    values = {parameter: given.get(parameter, "") for parameter in questions()[name].parameters}
    found = connection.execute(sql, values)
    return Answer([column[0] for column in found.description], found.fetchall())


# ----------------------------------------------------------------------- comparing


def differences(there: Answer, here: Answer) -> list[str]:
    """Between what SQLite and an engine answer; the order of rows apart, which ties leave open."""
    if there.columns != [column.rpartition(".")[2] for column in here.columns]:
        return [f"columns {there.columns} and {here.columns}"]
    rows = [sorted(map(plain, answer.rows, [there.columns] * len(answer.rows)), key=repr) for answer in (there, here)]
    if len(rows[0]) != len(rows[1]):
        return [f"{len(rows[0])} rows and {len(rows[1])}"]
    return [f"{one} and {other}" for one, other in zip(*rows, strict=True) if not alike(one, other, there.columns)]


def plain(row: Sequence[Any], columns: Sequence[str]) -> tuple[Any, ...]:
    return tuple(plain_value(value, column) for value, column in zip(row, columns, strict=False))


def plain_value(value: Any, column: str) -> Any:
    """A number is one also where it is the text of a member, as it was written; SQLite ends a text where a NUL is."""
    if isinstance(value, str):
        value = value.partition("\0")[0]
        if column in JOINED:
            return ",".join(sorted(re.split(", ?", value)))
        if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false", value):
            return value
        value = {"true": 1, "false": 0}.get(value, value)
    return value if value is None else float(f"{float(value):.12g}")


def alike(one: Sequence[Any], other: Sequence[Any], columns: Sequence[str]) -> bool:
    """What is still waited for grows between two answers: by less than a minute each."""
    pairs = zip(one, other, columns, strict=True)
    return all(a == b or (column in UNTIL_NOW and abs(a - b) < 60) or halved(a, b) for a, b, column in pairs)


def halved(one: Any, other: Any) -> bool:
    """Half of the last digit is rounded up by some, and to even by others."""
    digits = len(repr(one).partition(".")[2].rstrip("0")) if isinstance(one, float) and isinstance(other, float) else 0
    return bool(digits) and abs(one - other) < 1.01 * 10.0**-digits


def test_a_row_that_differs_is_noticed() -> None:
    there = Answer(["users", "text", "n"], [("a,b", "x\0y", 2), (None, "1e3", 1)])
    assert differences(there, Answer(["users", "text", "n"], [(None, "1000.0", 1.0), ("b,a", "x", 2)])) == []
    for row in (("a,c", "x", 2), ("a,b", "y", 2), ("a,b", "x", 3), ("a,b", "x", None)):
        assert differences(there, Answer(["users", "text", "n"], [(None, "1000.0", 1.0), row]))
    assert differences(there, Answer(["users", "text", "n"], there.rows[:1]))
    assert differences(there, Answer(["users", "n", "text"], there.rows))


# ------------------------------------------------------------------------ equality


@pytest.mark.parametrize("name", [name for name in views() if name not in LIVE_ONLY])
def test_a_view_has_the_rows_that_sqlite_has(asked: Asked, name: str) -> None:
    columns = ", ".join(f'"{column}"' for column in [*views()[name].columns, "shard"])
    there = asked.sqlite.execute(f"SELECT {columns} FROM {name}").fetchall()
    assert there
    here = ask(asked.lake, f"SELECT * FROM {name}")
    assert set(here.columns) - {*views()[name].columns, "shard"} <= {"received_at", "received_on"}
    assert here.columns[: len(views()[name].columns)] == list(views()[name].columns)
    names = [*views()[name].columns, "shard"]
    assert differences(Answer(names, there), ask(asked.lake, f"SELECT {columns} FROM {name}")) == []


@pytest.mark.parametrize("name", list(questions()))
def test_a_question_is_answered_as_sqlite_answers_it(asked: Asked, name: str) -> None:
    there = by_sqlite(asked.sqlite, name, given_for(name, asked))
    assert there.rows
    assert differences(there, ask(asked.lake, question(name, given_for(name, asked)))) == []


@pytest.mark.parametrize("name", marked(questions(), long=questions().keys() - other_words().keys()))
def test_one_shard_is_asked_as_its_database_is(asked: Asked, name: str) -> None:
    given = given_for(name, asked)
    with closing(together({"munich": asked.paths["munich"]})) as database, open_lake(asked.url, "munich") as lake:
        there = answered(database, questions()[name].sql, name, given)
        assert differences(there, ask(lake, question(name, given))) == []


@repeated("events", many=100_000, variable="ASKED_EVENTS")
@pytest.mark.timeout(1800)
def test_many_events_are_asked_for_as_sqlite_asks_for_them(tmp_path: Path, events: int) -> None:
    with made(tmp_path, events) as asked:
        for name in questions():
            given = given_for(name, asked)
            found = differences(by_sqlite(asked.sqlite, name, given), ask(asked.lake, question(name, given)))
            assert not found, f"{name}: {found[:3]}"


# ----------------------------------------------------------------- several shards


def say(path: Path, session: str, *said: tuple[str, str, Json]) -> None:
    """Events, each its type, its name and its data, in a database that is there or not."""
    with closing(open_writer(path)) as connection:
        clock = count(int(datetime(2026, 11, 30, tzinfo=UTC).timestamp()))
        appender = Appender(connection, clock=lambda: text_of_time(next(clock)), ids=iter(()), auto_create=True)
        appender.begin()
        for kind, event_id, data in said:
            appender.append(Draft(type=kind, session_id=session, event_id=event_id, data=data))
        appender.commit()


NOTES: list[tuple[str, str, Json]] = [
    ("session_created", "e-0", {}),
    *(("action", f"e-{number}", {"type": "note", "text": f"{number}"}) for number in range(1, 6)),
]


def test_an_event_that_two_shards_have_is_told_once(tmp_path: Path) -> None:
    """The agent went on elsewhere, and sent again what it had no answer for."""
    for shard, said in (("old", NOTES[:5]), ("new", [("session_created", "e-9", {}), *NOTES[3:]])):
        say(tmp_path / f"{shard}.db", "s-1", *said)
        seal_all(tmp_path / f"{shard}.db", tmp_path.as_uri(), shard)
    with open_lake(tmp_path.as_uri()) as lake:
        assert ask(lake, "SELECT count(*) FROM events").rows == [(9,)]
        told = ask(lake, "SELECT event_id FROM story WHERE session_id = 's-1'").rows
        assert sorted(told) == [(f"e-{number}",) for number in (0, 1, 2, 3, 4, 5, 9)]


def test_a_session_that_moved_is_in_the_shard_that_has_it(tmp_path: Path) -> None:
    """As long as that seals elsewhere, or not yet, what was sealed before is here."""
    say(tmp_path / "old.db", "s-1", *NOTES)
    seal_all(tmp_path / "old.db", tmp_path.as_uri(), "old")
    say(tmp_path / "old.db", "s-1", ("session_deleted", "gone", {"reason": "moved", "movedTo": "http://new"}))
    seal_all(tmp_path / "old.db", tmp_path.as_uri(), "old")
    where = "SELECT DISTINCT shard FROM actions UNION ALL SELECT shard FROM sessions"
    with open_lake(tmp_path.as_uri()) as lake:
        assert ask(lake, where).rows == [("old",), ("old",)]
    say(tmp_path / "new.db", "s-1", *NOTES)
    seal_all(tmp_path / "new.db", tmp_path.as_uri(), "new")
    with open_lake(tmp_path.as_uri()) as lake:
        assert ask(lake, where).rows == [("new",), ("new",)]
