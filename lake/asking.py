"""`python -m export ask`: DuckDB over the lake, with its views loaded; SQL of one's own, or a canned question.

It reads the lake and nothing else: no file, no address, no extension but the two that come as packages. What does not
fit into its memory goes into a folder of its own, which is gone afterwards.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import duckdb
import duckdb_extension_delta
import duckdb_extension_httpfs

from lake.dialects import DUCKDB, Dialect, of_shards, translated
from lake.views import TABLES, views
from sessionstore.analytics.catalogue import CannedQuery, questions
from sessionstore.store.schema import statements
from sessionstore.text import for_people, for_spreadsheet

quoted = DUCKDB.text
OTHER_WORDS = Path(__file__).with_name("questions.sql")
MEMORY = "1GB"
SPILLED = "20GB"
MOST_ROWS = 1_000_000
WIDEST = 60
"""Characters of a cell in a table."""
NUMBER = re.compile(r"coalesce\(nullif\(:([a-z_]+), ''\), (\d+)\)")
MAY_BE_EMPTY = "nullif(:{}, '')"
LIVE_ONLY = {
    "asks": "what waits for an answer is a matter of the moment: ask the shard",
    "orders": "what is offered to agents is a matter of the moment: ask the shard",
}
"""Views of views.sql that a lake does not have, and why not."""
NOT_OF_SPARK = {"sub-agents": "Spark before 4.1, and Sail, know no recursion"}
"""Questions that an engine is not asked, and why not."""


class AskFailed(Exception):
    """The lake cannot be asked, or not this. The message says why, and the remedy."""


class AskedWrongly(AskFailed):
    """There is no such question, or it is not asked so."""


class AskedRows(NamedTuple):
    columns: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool = False


# ------------------------------------------------------------------------ the lake


@contextmanager
def open_lake(url: str, shard: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
    """Its views, of one shard where one is named, for as long as this lasts, as they are now. Raises AskFailed."""
    with tempfile.TemporaryDirectory(prefix="ask-") as spill, closing(connect(Path(spill))) as lake:
        try:
            let_in(lake, url)
            for table in TABLES:
                lake.execute(f"ATTACH {quoted(f'{url}/{table}')} AS lake_{table} (TYPE delta, PIN_SNAPSHOT)")
            for sql in views(DUCKDB, tables_of(shard)).values():
                lake.execute(sql)
            shut(lake, url)
        except duckdb.Error as error:
            raise AskFailed(not_opened(url, error)) from None
        yield lake


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    lake = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "max_temp_directory_size": SPILLED,
            "extension_directory": str(spill),
        }
    )
    for package in (duckdb_extension_httpfs, duckdb_extension_delta):
        (extension,) = Path(str(package.__file__)).parent.rglob("*.duckdb_extension")
        lake.execute(f"LOAD {quoted(str(extension))}")
    lake.execute("SET TimeZone = 'UTC'")
    lake.execute(DUCKDB.settings)
    return lake


def let_in(lake: duckdb.DuckDBPyConnection, url: str) -> None:
    """By the credentials of the environment, as what seals has them."""
    if urlsplit(url).scheme != "s3":
        return
    names = {"KEY_ID": "ACCESS_KEY_ID", "SECRET": "SECRET_ACCESS_KEY", "SESSION_TOKEN": "SESSION_TOKEN"}
    given = {option: os.environ.get(f"AWS_{name}") for option, name in names.items()}
    given["REGION"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        parts = urlsplit(endpoint)
        given |= {"ENDPOINT": parts.netloc, "URL_STYLE": "path", "USE_SSL": str(parts.scheme == "https").lower()}
    options = "".join(f", {option} {quoted(value)}" for option, value in given.items() if value)
    lake.execute(f"CREATE SECRET (TYPE s3{options})")


def tables_of(shard: str) -> str:
    """How the views name a table: {name}."""
    table = "lake_{name}.lake_{name}"
    return f"(SELECT * FROM {table} WHERE shard = {quoted(shard)})" if shard else table


def shut(lake: duckdb.DuckDBPyConnection, url: str) -> None:
    """From now on it reads what is below the lake's URL, and nothing can change that."""
    places = [f"{url}/", f"{urlsplit(url).path}/"] if urlsplit(url).scheme == "file" else [f"{url}/"]
    lake.execute(f"SET allowed_directories = [{', '.join(map(quoted, places))}]")
    lake.execute("SET enable_external_access = false")
    lake.execute("SET lock_configuration = true")


def not_opened(url: str, error: Exception) -> str:
    said = first_line(error)
    if urlsplit(url).scheme not in ("s3", "file"):
        return (
            f"DuckDB reads lakes of s3:// and file:// here, not {url}; views/*.sql in the bucket are for other engines"
        )
    see = (
        "see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL; for a "
        "machine's role `aws configure export-credentials --format env` says them"
        if urlsplit(url).scheme == "s3"
        else "a lake comes with the first seal of a store with SESSIONS_LAKE"
    )
    return f"There is no lake at {url} that can be read: {said}. Name it with --lake or SESSIONS_LAKE; {see}"


# ------------------------------------------------------------------------- asking


def ask(lake: duckdb.DuckDBPyConnection, sql: str, most: int = MOST_ROWS) -> AskedRows:
    """Raises AskFailed for anything but one question, and where DuckDB says why not."""
    try:
        parsed = duckdb.extract_statements(sql)
        if [statement.type for statement in parsed] not in (
            [duckdb.StatementType.SELECT],
            [duckdb.StatementType.EXPLAIN],
        ):
            raise AskFailed("One SELECT at a time: a lake is only read. Its views are those of views.sql: SHOW TABLES")
        asked = lake.sql(sql) if parsed[0].type == duckdb.StatementType.SELECT else lake.execute(sql)
        if isinstance(asked, duckdb.DuckDBPyRelation):
            asked = with_plain_times(asked)
        columns = [column[0] for column in asked.description or ()]
        rows = asked.fetchmany(most + 1)
    except duckdb.OutOfMemoryException as error:
        raise AskFailed(f"{first_line(error)}. Ask for fewer days (received_on) or columns") from None
    except duckdb.Error as error:
        raise AskFailed(f"DuckDB: {first_line(error)}") from None
    return AskedRows(columns, rows[:most], len(rows) > most)


def with_plain_times(asked: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Times with a zone as texts: Python has them only with a package more."""
    if not any("WITH TIME ZONE" in str(kind) for kind in asked.types):
        return asked
    names = ['"' + name.replace('"', '""') + '"' for name in asked.columns]
    kinds = zip(names, asked.types, strict=True)
    return asked.project(", ".join(f"{n}::VARCHAR AS {n}" if "WITH TIME ZONE" in str(kind) else n for n, kind in kinds))


def answer(url: str, words: Sequence[str], shard: str = "", most: int = MOST_ROWS) -> AskedRows:
    """To SQL, or to a canned question and what it is asked with. Raises AskedWrongly."""
    if not words:
        raise AskedWrongly("Say what to ask: a SELECT, or the name of a question; --list says which there are")
    is_name = re.fullmatch(r"[a-z-]+", words[0])
    sql = question(words[0], parts_of(words[1:])) if is_name else words[0]
    if not is_name:
        parts_of(words[1:])
    with open_lake(url, shard) as lake:
        return ask(lake, sql, most)


@cache
def other_words() -> dict[str, str]:
    found = {}
    for statement in statements(OTHER_WORDS.read_text()):
        comments, _, sql = statement.rpartition("*/")
        found[comments.rpartition("/*")[2].strip()] = sql.strip().removesuffix(";")
    return found


def question(name: str, given: Mapping[str, str], dialect: Dialect = DUCKDB) -> str:
    """The SQL of a canned question. Raises AskedWrongly: it is unknown, or asked with what it does not know."""
    known = questions().get(name)
    if known is None:
        raise AskedWrongly(f"There is no question {name}: `ask --list` says which there are")
    check(known, given)
    sql = of_shards(other_words().get(name, known.sql))
    sql = NUMBER.sub(lambda match: number(match[1], given.get(match[1]) or match[2]), sql)
    sql = dialect.ends(translated(sql, dialect))
    if not known.parameters:
        return sql
    parameter = re.compile(rf":({'|'.join(known.parameters)})\b")
    return parameter.sub(lambda match: dialect.text(given.get(match[1], "")), sql)


def check(known: CannedQuery, given: Mapping[str, str]) -> None:
    takes = f"{known.name} takes {', '.join(f'{name}=…' for name in known.parameters) or 'nothing'}"
    if unknown := given.keys() - set(known.parameters):
        raise AskedWrongly(f"{takes}, not {', '.join(sorted(unknown))}")
    needed = [name for name in known.parameters if MAY_BE_EMPTY.format(name) not in known.sql]
    if missing := [name for name in needed if not given.get(name)]:
        raise AskedWrongly(f"{known.name} needs {', '.join(f'{name}=…' for name in missing)}")


def number(name: str, text: str) -> str:
    if not re.fullmatch(r"\d{1,12}", text):
        raise AskedWrongly(f"{name} must be a whole number, not {text}")
    return text


def parts_of(words: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE. Raises AskedWrongly."""
    if odd := [word for word in words if "=" not in word]:
        raise AskedWrongly(
            f"{odd[0]!r}: what a question is asked with is KEY=VALUE, and SQL is one argument, in quotes"
        )
    return dict(word.split("=", 1) for word in words)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removesuffix(".")


# ------------------------------------------------------------------------- showing


def shown(answer: AskedRows, form: str) -> str:
    return {"json": as_json, "csv": as_csv, "table": as_table}[form](answer)


def as_json(answer: AskedRows) -> str:
    """A list of objects, a line each."""
    lines = (
        json.dumps(dict(zip(answer.columns, map(simple, row), strict=True)), ensure_ascii=False) for row in answer.rows
    )
    return "[" + ",\n".join(lines) + "]\n"


def as_csv(answer: AskedRows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        map(for_spreadsheet, map(simple, cells)) for cells in (answer.columns, *answer.rows)
    )
    return text.getvalue()


def as_table(answer: AskedRows) -> str:
    cells = [[cell_of(value) for value in row] for row in (answer.columns, *answer.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]]) + "\n"


def cell_of(value: Any) -> str:
    text = "" if value is None else for_people(str(simple(value)), is_one_line=True)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def simple(value: Any) -> Any:
    """As JSON has it: a whole number is one, also where DuckDB counts with a point."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | list | dict) or value is None else str(value)


def listed() -> str:
    """The canned questions, and what each takes."""
    return "".join(
        f"{known.name:22} {known.title}" + "".join(f" {name}=…" for name in known.parameters) + "\n"
        for known in questions().values()
    )
