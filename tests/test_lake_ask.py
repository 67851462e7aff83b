"""Asking the lake: each view and each canned question says of it what SQLite says of the shards that sealed into it."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import duckdb_extension_delta
import pytest
from click.testing import CliRunner

from export.__main__ import cli
from lake import published
from lake.asking import LIVE_ONLY, NOT_OF_SPARK, AskedRows, AskFailed, ask, open_lake, other_words, question, shown
from lake.bucket import folder_of, open_bucket, read
from lake.dialects import CLICKHOUSE, DUCKDB, SPARK, of_shards
from lake.views import VERSION
from lake.views import views as lake_views
from sessionstore.analytics.catalogue import questions, views
from sessionstore.model.events import Draft, text_of_time
from sessionstore.store.appender import Appender
from sessionstore.store.schema import open_writer
from tests.askable import Json, seal_all, tell, together
from tests.lakes import Place
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


def by_sqlite(connection: sqlite3.Connection, name: str, given: dict[str, str]) -> AskedRows:
    """Of several shards. In the words of SQLite the last of a lost session is found by a cursor, which each has."""
    sql = other_words()[name] if name == "lost-sessions" else of_shards(questions()[name].sql)
    return answered(connection, sql, name, given)


def answered(connection: sqlite3.Connection, sql: str, name: str, given: dict[str, str]) -> AskedRows:
    values = {parameter: given.get(parameter, "") for parameter in questions()[name].parameters}
    found = connection.execute(sql, values)
    return AskedRows([column[0] for column in found.description], found.fetchall())


# ----------------------------------------------------------------------- comparing


def differences(there: AskedRows, here: AskedRows) -> list[str]:
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
    return all(a == b or (column in UNTIL_NOW and abs(a - b) < 60) or is_tie(a, b) for a, b, column in pairs)


def is_tie(one: Any, other: Any) -> bool:
    """Whether both are what one sum may be rounded to: of 2207.15, added in other orders, 2207.1 and 2207.2 come."""
    if not (isinstance(one, float) and isinstance(other, float)):
        return False
    decimals = max(len(f"{number:.12g}".partition(".")[2]) for number in (one, other))
    is_rounded = not (one.is_integer() and other.is_integer()) and decimals <= 6
    return is_rounded and abs(one - other) < 1.5 * 10**-decimals


def test_a_row_that_differs_is_noticed() -> None:
    there = AskedRows(["users", "text", "n"], [("a,b", "x\0y", 2), (None, "1e3", 1)])
    assert differences(there, AskedRows(["users", "text", "n"], [(None, "1000.0", 1.0), ("b,a", "x", 2)])) == []
    for row in (("a,c", "x", 2), ("a,b", "y", 2), ("a,b", "x", 3), ("a,b", "x", None)):
        assert differences(there, AskedRows(["users", "text", "n"], [(None, "1000.0", 1.0), row]))
    assert differences(there, AskedRows(["users", "text", "n"], there.rows[:1]))
    assert [is_tie(2207.2, other) for other in (2207.1, 2207.0, 2207.15, 2207.9)] == [True, False, False, False]
    assert not is_tie(2.0, 3.0) and is_tie(2.0, 2.1) and not is_tie(2.0, 2.0002)
    assert differences(there, AskedRows(["users", "n", "text"], there.rows))


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
    assert differences(AskedRows(names, there), ask(asked.lake, f"SELECT {columns} FROM {name}")) == []


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
    wrong = {}
    with made(tmp_path, events) as asked:
        for name in questions():
            given = given_for(name, asked)
            wrong[name] = differences(by_sqlite(asked.sqlite, name, given), ask(asked.lake, question(name, given)))[:2]
    assert not {name: found for name, found in wrong.items() if found}


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


# --------------------------------------------------------------------- the command


def test_an_answer_is_shown_as_table_json_and_csv(asked: Asked) -> None:
    sql = "SELECT '=1' AS a, 2.0 AS b, NULL AS c, DATE '2026-11-30' AS d, now() > TIMESTAMPTZ '2026-01-01' AS e"
    assert shown(ask(asked.lake, sql), "json") == '[{"a": "=1", "b": 2, "c": null, "d": "2026-11-30", "e": true}]\n'
    assert shown(ask(asked.lake, sql), "csv") == "a,b,c,d,e\n'=1,2,,2026-11-30,True\n"
    wide = ask(asked.lake, "SELECT 'x' AS a, chr(27) || '[2Jlong ' || repeat('y', 99) AS b, now() AS c")
    assert re.fullmatch(r"x  long y{54}…  20\d\d-.*\+00", shown(wide, "table").splitlines()[-1])


def test_the_command_asks_sql_and_questions(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONS_LAKE", asked.url)
    assert all(f"{name} " in said("--list") for name in questions())
    assert said("slowest-tools", "newest=5", "--format", "csv").startswith("tool,calls,p50")
    few = CliRunner().invoke(
        cli, ["ask", "--rows", "3", "--shard", "berlin", "SELECT DISTINCT minute, shard FROM minutes"]
    )
    assert [line.split()[-1] for line in few.stdout.splitlines()[2:]] == ["berlin"] * 3
    assert "the first 3 rows: --rows says how many" in few.stderr


def said(*arguments: str, code: int = 0) -> str:
    """What the command says, on stdout where it succeeds."""
    result = CliRunner().invoke(cli, ["ask", *arguments])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT 1; SELECT 2", "One SELECT at a time"),
        ("DROP VIEW events", "One SELECT at a time"),
        ("COPY (SELECT 1) TO 'x.csv'", "One SELECT at a time"),
        ("SELECT missing FROM events", 'DuckDB: Binder Error: Referenced column "missing" not found'),
        ("SELECT * FROM read_text('/etc/passwd')", "file system operations are disabled"),
        ("SELECT * FROM glob('/*')", "file system operations are disabled"),
        ("SELECT * FROM read_csv('https://example.com/x')", "file system operations are disabled"),
        ("SELECT * FROM duckdb_secrets()", "file system operations are disabled"),
    ],
)
def test_nothing_but_the_lake_is_read(asked: Asked, sql: str, why: str) -> None:
    with pytest.raises(AskFailed, match=re.escape(why)):
        ask(asked.lake, sql)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("nothing-known",), "`ask --list` says which there are"),
        (("story",), "story needs session=…"),
        (("story", "session=x", "color=red"), "story takes session=…, not color"),
        (("slowest-tools", "newest=many"), "newest must be a whole number"),
        (("story", "session"), "KEY=VALUE"),
        ((), "--list says which there are"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_what_can(arguments: tuple[str, ...], remedy: str) -> None:
    assert remedy in said("--lake", "file:///nowhere", *arguments, code=2)


def test_where_no_lake_is_it_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSIONS_LAKE", raising=False)
    assert "SESSIONS_LAKE" in said("SELECT 1", code=2)
    assert "comes with the first seal" in said("--lake", tmp_path.as_uri(), "SELECT 1", code=1)
    assert "views/*.sql" in said("--lake", "gs://bucket", "SELECT 1", code=1)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "lake.asking")
    monkeypatch.delattr("lake.asking")
    assert "pip install 'session-store[ask]'" in said("SELECT 1", code=2)


HOSTILE = ("' OR 1=1 --", "x'; DROP VIEW events; --", ":user", "\\", "a ->> '$.b'", "ORDER BY cursor DESC LIMIT 1")


def test_a_value_is_no_part_of_the_question(asked: Asked) -> None:
    for hostile in HOSTILE:
        assert ask(asked.lake, question("story", {"session": hostile})).rows == []
        for dialect in (SPARK, CLICKHOUSE):
            assert dialect.text(hostile) in question("story", {"session": hostile}, dialect)


def test_it_is_asked_in_a_bucket_too(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    say(tmp_path / "old.db", "s-1", *NOTES)
    seal_all(tmp_path / "old.db", place.url, "old")
    with open_lake(place.url) as lake:
        assert ask(lake, "SELECT text FROM actions ORDER BY cursor").rows == [(str(number),) for number in range(1, 6)]
        with pytest.raises(AskFailed, match="disabled"):
            ask(lake, f"SELECT * FROM read_text('{place.url}-other/x')")


# ------------------------------------------------------------------- what is there


def test_every_view_and_question_is_asked_of_the_lake_or_has_a_reason() -> None:
    made = lake_views(DUCKDB, "{name}")
    assert views().keys() - made.keys() == LIVE_ONLY.keys()
    assert other_words().keys() <= questions().keys()
    assert NOT_OF_SPARK.keys() <= questions().keys()


def test_a_newer_shard_replaces_the_views_and_an_older_one_never(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    bucket = open_bucket(place.url)
    published.publish(place.url, "berlin")
    first = read(bucket, "views/spark.sql").decode()
    assert first.startswith(f"-- Views of a lake, version {VERSION}, for spark")
    assert place.url in first
    monkeypatch.setattr(published, "VERSION", VERSION + 1)
    monkeypatch.setattr(published, "script", lambda *_: f"-- Views of a lake, version {VERSION + 1}")
    published.publish(place.url, "munich")
    monkeypatch.undo()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    published.publish(place.url, "old")
    assert read(bucket, "views/duckdb.sql").decode() == f"-- Views of a lake, version {VERSION + 1}"
    assert json.loads(read(bucket, "shards.json")) == {
        "berlin": {"version": VERSION},
        "munich": {"version": VERSION + 1},
        "old": {"version": VERSION},
    }


def test_a_person_loads_the_views_that_the_bucket_has(asked: Asked) -> None:
    script = Path(folder_of(asked.url), "views/duckdb.sql").read_text()
    with closing(duckdb.connect()) as lake:
        (extension,) = Path(str(duckdb_extension_delta.__file__)).parent.rglob("*.duckdb_extension")
        lake.execute(f"LOAD '{extension}'")
        lake.execute(script)
        there = asked.sqlite.execute("SELECT count(*) FROM tool_calls").fetchall()
        assert lake.execute("SELECT count(*) FROM tool_calls").fetchall() == there
