"""ClickHouse and Sail, which speaks Spark's SQL, say of a lake what SQLite says of the shards; `make soak` has them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lake.asking import NOT_OF_SPARK, AskedRows, question
from lake.bucket import folder_of
from lake.dialects import CLICKHOUSE, SPARK, Dialect
from lake.views import script
from lake.views import views as lake_views
from sessionstore.analytics.catalogue import questions
from tests.repeats import repeated
from tests.test_lake_ask import by_sqlite, differences, given_for, made

Run = Callable[[str], AskedRows]


@contextmanager
def clickhouse(folder: Path) -> Iterator[Run]:
    """It reads files of the folder that it was started in alone."""
    chdb = pytest.importorskip("chdb", reason="make soak installs it")
    os.chdir(folder)
    engine = chdb.connect(":memory:")

    def run(sql: str) -> AskedRows:
        if not sql.lstrip().startswith(("SELECT", "WITH")):
            engine.query(sql)
            return AskedRows([], [])
        found: dict[str, Any] = json.loads(str(engine.query(sql, "JSONCompact")))
        return AskedRows([column["name"] for column in found["meta"]], [tuple(row) for row in found["data"]])

    run("SET output_format_json_quote_64bit_integers = 0")
    run("CREATE DATABASE lake")
    run("USE lake")
    yield run
    engine.close()


@contextmanager
def sail(folder: Path) -> Iterator[Run]:
    spark = pytest.importorskip("pysail.spark", reason="make soak installs it")
    from pyspark.sql import SparkSession  # type: ignore[import-not-found, unused-ignore]

    server = spark.SparkConnectServer()
    server.start(background=True)
    _, port = server.listening_address
    session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")

    def run(sql: str) -> AskedRows:
        if sql.startswith("SET TIME ZONE"):  # which Sail does not know
            return AskedRows([], [])
        found = session.sql(sql)
        return AskedRows(found.columns, [tuple(row) for row in found.collect()])

    yield run
    session.stop()
    server.stop()


ENGINES: dict[str, tuple[Dialect, Callable[[Path], Any], str, set[str]]] = {
    "clickhouse": (CLICKHOUSE, clickhouse, "deltaLakeLocal('{folder}/{{name}}')", set()),
    "sail": (SPARK, sail, "delta.`file://{folder}/{{name}}`", set(NOT_OF_SPARK)),
}


@pytest.mark.parametrize("dialect", [CLICKHOUSE, SPARK], ids=lambda dialect: dialect.name)
def test_no_word_of_sqlite_alone_is_left(dialect: Dialect) -> None:
    sqlite = "iif|julianday|group_concat|strftime|rfc3339|seconds|epoch|time_of|json_text"
    words = rf"\b({sqlite}) ?\(|->>|'now'|:(user|days|newest|session)\b"
    for name in questions():
        given = dict.fromkeys(questions()[name].parameters, "1")
        assert not re.search(words, question(name, given, dialect)), name
    assert not re.search(words, script(dialect, "s3://bucket"))
    assert re.search(words, questions()["story"].sql)


@repeated("events", many=3_000, variable="ASKED_BY_ENGINES")
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.timeout(3600)
def test_an_engine_answers_every_question_as_sqlite_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, events: int
) -> None:
    dialect, started, table, not_asked = ENGINES[name]
    monkeypatch.chdir(tmp_path)
    with made(tmp_path, events) as asked, started(tmp_path) as run:
        tables = table.format(folder=folder_of(asked.url))
        for setting in re.findall(r"[^;\n]+", dialect.settings):
            run(setting)
        for sql in lake_views(dialect, tables).values():
            run(sql)
        for known in questions().keys() - not_asked:
            given = given_for(known, asked)
            found = differences(by_sqlite(asked.sqlite, known, given), run(question(known, given, dialect)))
            assert not found, f"{known}: {found[:3]}"
