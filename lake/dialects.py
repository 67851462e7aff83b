"""SQL of SQLite made into that of DuckDB, Spark or ClickHouse: views and canned questions are written once.

No parser of SQL: what is not of the standard is found by its shape (a call, `->>`, a number with a point) and replaced.
tests/test_lake_ask.py asks every question in each dialect, and compares the answers with SQLite's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

TOKEN = re.compile(r"/\*.*?\*/|'(?:[^']|'')*'|\d+\.\d+|\w+|\s+|.", re.DOTALL)
JSON_MEMBER = re.compile(r"([\w.]+) ->> ('\$[^']*')")
JOIN_IN_ORDER = re.compile(r"CROSS JOIN (\w+ \w+) ON\b")
IS_ANSWER = re.compile(r"[=<>]|\b(IN|IS)\b", re.IGNORECASE)

NEWEST = re.compile(r"ORDER BY (\w+\.)?cursor DESC(?=\s+LIMIT)")
NEWEST_SESSION = re.compile(r"ORDER BY (\w+\.)?last_cursor DESC")
SAME_CURSOR = re.compile(r"\b(\w+)\.cursor = (\w+)\.cursor\b")

Rule = Callable[[Sequence[str]], str]
"""The SQL that stands for a call with these arguments."""


class Dialect(NamedTuple):
    name: str
    rules: Mapping[str, Rule]
    text: Callable[[str], str]
    """A literal that means just this text."""
    table: str
    """How a Delta table is named: {url}, {name}."""
    view: str
    """How a view's definition begins: {name}."""
    settings: str = ""
    """What is said before."""
    ends: Callable[[str], str] = str
    """What is done to a question that is translated."""
    quote: str = '"{}"'
    """A name that is a word of the language as well."""


def plain(template: str) -> Rule:
    """{0}, {1} … are the arguments."""
    return lambda given: template.format(*given)


def counted(given: Sequence[str]) -> str:
    """The sum of answers is how often it is yes."""
    (value,) = given
    return f"sum(CASE WHEN {value} THEN 1 ELSE 0 END)" if IS_ANSWER.search(outer(value)) else f"sum({value})"


def outer(sql: str) -> str:
    """Without what stands in parentheses, between CASE and END, or is a text."""
    shown, depth = "", 0
    for token in TOKEN.findall(sql):
        depth += (token == "(" or token.upper() == "CASE") - (token == ")" or token.upper() == "END")
        shown += "" if depth or token.startswith("'") else token
    return shown


def one_or_many(one: str, many: str) -> Rule:
    """`max` of several values is no aggregate."""
    return lambda given: f"{one if len(given) == 1 else many}({', '.join(given)})"


def days_ago(template: str) -> Rule:
    """Of strftime, the forms that questions have: what it is now, and a day so many days ago."""
    forms = dict(part.split(" => ") for part in template.split("\n"))

    def rule(given: Sequence[str]) -> str:
        if len(given) == 2:
            return forms["now"]
        number = given[2].removeprefix("'-' || ").removesuffix(" || ' days'")
        return forms["day"].format(number)

    return rule


def julian(now: str, moment: str) -> Rule:
    """Days, of which differences are taken; both forms give milliseconds."""
    return lambda given: f"({now if given[0] == QUOTED_NOW else moment.format(*given)} / 86400000.0e0)"


QUOTED_NOW = "'now'"


def joined(plainly: str, distinctly: str) -> Rule:
    """group_concat: {0} is the value, {1} what stands between."""

    def rule(given: Sequence[str]) -> str:
        value, between = given[0], given[1] if len(given) > 1 else "','"
        is_distinct = value.startswith("DISTINCT ")
        return (distinctly if is_distinct else plainly).format(value.removeprefix("DISTINCT "), between)

    return rule


def path_of(literal: str) -> list[str]:
    """'$.a.b' is a, b."""
    return literal.strip("'").removeprefix("$.").split(".")


def characters(given: Sequence[str]) -> str:
    return "concat(" + ", ".join(f"chr({code})" for code in given) + ")"


COMMON: dict[str, Rule] = {
    "iif": plain("CASE WHEN {0} THEN {1} ELSE {2} END"),
    "sum": counted,
    "max": one_or_many("max", "greatest"),
    "min": one_or_many("min", "least"),
    "char": characters,
}

DUCKDB = Dialect(
    "duckdb",
    COMMON
    | {
        "json_text": plain("({0} ->> {1})"),
        "json_type": plain("lower(json_type({0}, {1}))"),
        "rfc3339": plain("strftime({0} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ')"),
        "seconds": plain("((epoch_ms({0}) - epoch_ms({1})) / 1000.0e0)"),
        "epoch": plain("CAST(epoch(CAST({0} AS TIMESTAMP)) AS BIGINT)"),
        "time_of": plain("strftime(make_timestamp(({0}) * 1000000), '%Y-%m-%dT%H:%M:%SZ')"),
        "epoch_now": plain("CAST(epoch(now()) AS BIGINT)"),
        "julianday": julian("epoch_ms(now())", "epoch_ms(CAST({0} AS TIMESTAMP))"),
        "strftime": days_ago(
            "now => strftime(now() AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ')\n"
            "day => strftime((now() AT TIME ZONE 'UTC') - to_days({0}), '%Y-%m-%d')"
        ),
        "group_concat": joined("string_agg({0}, {1})", "string_agg(DISTINCT {0}, {1})"),
    },
    lambda text: "'" + text.replace("'", "''") + "'",
    "delta_scan('{url}/{name}')",
    "CREATE OR REPLACE VIEW {name} AS",
    "SET default_null_order = 'nulls_first_on_asc_last_on_desc';\n",
)


def ordered_outside(sql: str) -> str:
    """ClickHouse takes a name in ORDER BY for a column rather than for what is selected under it."""
    selected, found, order = sql.rpartition("\nORDER BY ")
    plain_names = re.fullmatch(r"(?:(?!received_at)\w+(?: DESC)?(?:, |\s*\Z|(?=\s+LIMIT)))+(?:\s*LIMIT \d+)?\s*", order)
    return f"SELECT * FROM (\n{selected}) answered\nORDER BY {order}" if found and plain_names else sql


def backslashed(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SPARK = Dialect(
    "spark",
    COMMON
    | {
        "json_text": plain("get_json_object({0}, {1})"),
        "json_type": plain("CASE WHEN get_json_object({0}, {1}) LIKE '{{%' THEN 'object' END"),
        "rfc3339": plain("date_format({0}, \"yyyy-MM-dd'T'HH:mm:ss.SSS'Z'\")"),
        "seconds": plain("((unix_millis({0}) - unix_millis({1})) / 1000.0e0)"),
        "epoch": plain("unix_seconds(CAST({0} AS TIMESTAMP))"),
        "time_of": plain("date_format(timestamp_seconds({0}), \"yyyy-MM-dd'T'HH:mm:ss'Z'\")"),
        "epoch_now": plain("unix_seconds(now())"),
        "julianday": julian("unix_millis(now())", "unix_millis(CAST({0} AS TIMESTAMP))"),
        "strftime": days_ago(
            "now => date_format(now(), \"yyyy-MM-dd'T'HH:mm:ss.SSS'Z'\")\n"
            "day => date_format(date_sub(current_date(), {0}), 'yyyy-MM-dd')"
        ),
        "group_concat": joined("concat_ws({1}, collect_list({0}))", "concat_ws({1}, collect_set({0}))"),
        "ltrim": lambda given: f"trim(LEADING {given[1]} FROM {given[0]})" if len(given) > 1 else f"ltrim({given[0]})",
        "trim": lambda given: f"trim(BOTH {given[1]} FROM {given[0]})" if len(given) > 1 else f"trim({given[0]})",
    },
    backslashed,
    "delta.`{url}/{name}`",
    "CREATE OR REPLACE TEMPORARY VIEW {name} AS",
    "SET TIME ZONE 'UTC';\n",
    quote="`{}`",
)


def clickhouse_member(given: Sequence[str]) -> str:
    steps = ", ".join(f"'{step}'" for step in path_of(given[1]))
    return f"JSONExtract({given[0]}, {steps}, 'Nullable(String)')"


def rounded_half_up(given: Sequence[str]) -> str:
    """Its own `round` takes the half of a floating number to the even one."""
    value, scale = given[0], f"1e{given[1]}" if len(given) > 1 else "1"
    return f"(sign({value}) * floor(abs({value}) * {scale} + 0.5) / {scale})"


CLICKHOUSE = Dialect(
    "clickhouse",
    COMMON
    | {
        "json_text": clickhouse_member,
        "json_type": lambda given: (
            f"lower(toString(JSONType({given[0]}, " + ", ".join(f"'{step}'" for step in path_of(given[1])) + ")))"
        ),
        "rfc3339": plain("concat(replaceOne(toString(toDateTime64({0}, 3, 'UTC')), ' ', 'T'), 'Z')"),
        "seconds": plain(
            "((toUnixTimestamp64Milli(toDateTime64({0}, 3)) - toUnixTimestamp64Milli(toDateTime64({1}, 3))) / 1000.0)"
        ),
        "epoch": plain("toUnixTimestamp(parseDateTimeBestEffort({0}, 'UTC'))"),
        "time_of": plain("formatDateTime(toDateTime({0}, 'UTC'), '%Y-%m-%dT%H:%i:%SZ')"),
        "epoch_now": plain("toUnixTimestamp(now())"),
        "julianday": julian(
            "toUnixTimestamp64Milli(now64(3))",
            "toUnixTimestamp64Milli(parseDateTime64BestEffortOrNull({0}, 3, 'UTC'))",
        ),
        "strftime": days_ago(
            "now => concat(replaceOne(toString(now64(3, 'UTC')), ' ', 'T'), 'Z')\n"
            "day => toString(toDate(now('UTC')) - {0})"
        ),
        "group_concat": joined(
            "arrayStringConcat(groupArray({0}), {1})", "arrayStringConcat(groupUniqArray({0}), {1})"
        ),
        "substr": lambda given: f"substringUTF8({', '.join(given)})",
        "instr": plain("positionUTF8({0}, {1})"),
        "ltrim": lambda given: f"trimLeft({', '.join(given)})",
        "trim": lambda given: f"trimBoth({', '.join(given)})",
        "round": rounded_half_up,
        "lead": plain("lead(toNullable({0}))"),  # else what comes after the last is empty, not null
        "replace": plain("replaceAll({0}, {1}, {2})"),
        "char": lambda given: f"char({', '.join(given)})",
    },
    backslashed,
    "deltaLake('{url}/{name}')",
    "CREATE OR REPLACE VIEW {name} AS",
    "SET join_use_nulls = 1, prefer_column_name_to_alias = 1;\n",
    ordered_outside,
)

DIALECTS = {dialect.name: dialect for dialect in (DUCKDB, SPARK, CLICKHOUSE)}


def translated(sql: str, dialect: Dialect) -> str:
    """The same question, in that dialect."""
    sql = JSON_MEMBER.sub(r"json_text(\1, \2)", sql)
    sql = JOIN_IN_ORDER.sub(r"JOIN \1 ON", sql)
    sql = re.sub(r"\bLIKE\b", "ILIKE", sql)  # which means the case of A to Z as well
    return rewritten(TOKEN.findall(sql), dialect)


def of_shards(sql: str) -> str:
    """A question to one store, to several: cursors are in order, and mean an event, within one shard alone."""
    sql = NEWEST.sub(r"ORDER BY \1received_at DESC, \1shard DESC, \1cursor DESC", sql)
    sql = NEWEST_SESSION.sub(r"ORDER BY \1updated DESC, \1shard DESC, \1last_cursor DESC", sql)
    return SAME_CURSOR.sub(r"\1.cursor = \2.cursor AND \1.shard = \2.shard", sql)


def rewritten(tokens: list[str], dialect: Dialect) -> str:
    said, at = [], 0
    while at < len(tokens):
        token = tokens[at]
        rule = dialect.rules.get(token.lower())
        if rule and tokens[at + 1 : at + 2] == ["("]:
            given, at = arguments(tokens, at + 2)
            said.append(rule([rewritten(part, dialect).strip() for part in given]))
            continue
        said.append(literal(token, dialect))
        at += 1
    return "".join(said)


def literal(token: str, dialect: Dialect) -> str:
    """SQLite's numbers with a point are floating, its texts have no escapes, and `at` is a name like others."""
    if token.startswith("'"):
        return dialect.text(token[1:-1].replace("''", "'"))
    if token == "at":
        return dialect.quote.format(token)
    return f"{token}e0" if re.fullmatch(r"\d+\.\d+", token) else token


def arguments(tokens: list[str], at: int) -> tuple[list[list[str]], int]:
    """Of a call whose first one begins there; and where what follows the call begins."""
    given: list[list[str]] = [[]]
    depth = 1
    while depth:
        token = tokens[at]
        depth += (token == "(") - (token == ")")
        if depth == 1 and token == ",":
            given.append([])
        elif depth:
            given[-1].append(token)
        at += 1
    return given, at
