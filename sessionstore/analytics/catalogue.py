"""Canned queries and views: those of queries.sql and views.sql, with what their comments say."""

from __future__ import annotations

import re
from functools import cache

import msgspec

from sessionstore import ROOT
from sessionstore.store.schema import statements

VIEWS = ROOT / "views.sql"
QUESTIONS = ROOT / "queries.sql"
DATABASE = "sessions"
"""What the database is called in addresses."""
PATH = f"/datasette/{DATABASE}"

COMMENT = re.compile(r"/\*(.*?)\*/", re.DOTALL)
VIEW = re.compile(r"CREATE TEMP VIEW (\w+) \(\n(.*?)\n\) AS\n", re.DOTALL)
COLUMN = re.compile(r"^ +(\w+),? +-- (.*)$", re.MULTILINE)
HEADING = re.compile(r"([a-z-]+): (.+?)\n(.*)", re.DOTALL)
PARAMETER = re.compile(r":([a-z_]+)\b")


TOPICS = {
    "Sessions": "story status-mix users models longest-sessions lost-sessions sub-sessions sub-agents sessions-by-day",
    "People": "waiting-sessions longest-waits held-up prompts-with goals-by-outcome unreached-goals",
    "Failures": "failure-groups tool-failures failing-tools open-calls",
    "Tools and files": "tools slowest-tools slowest-calls most-written-files",
    "Tokens and cost": "costs-by-day costs-by-user costs-by-project costs-by-model costs-by-tool delegated-costs"
    " dearest-sessions dearest-prompts dear-outliers unpriced-models tokens",
    "The store": "activity busiest-hours late-events database-growth",
}
"""The questions as the first page has them."""


class View(msgspec.Struct, frozen=True):
    """A view for people; `sql` makes it, as a temporary one over the database that is called `main`."""

    name: str
    description: str
    columns: dict[str, str]
    """Their names and what they mean, in their order."""
    sql: str


class CannedQuery(msgspec.Struct, frozen=True):
    """A question that is asked often. Its name stays: others link to it."""

    name: str
    title: str
    description: str
    path: str
    """Where it is answered: as a page, and with .json or .csv after it for programs."""
    parameters: list[str]
    sql: str


@cache
def views() -> dict[str, View]:
    """Those of views.sql, in their order."""
    found = {}
    for sql in statements(VIEWS.read_text()):
        match = VIEW.search(sql)
        assert match, f"views.sql has a statement that is no view: {sql[:100]}"
        columns = dict(COLUMN.findall(match[2]))
        found[match[1]] = View(match[1], last_comment(sql[: match.start()]), columns, sql)
    return found


@cache
def questions() -> dict[str, CannedQuery]:
    """Those of queries.sql, in their order."""
    found = {}
    for statement in statements(QUESTIONS.read_text()):
        comments, _, sql = statement.rpartition("*/")
        heading = HEADING.fullmatch(last_comment(comments + "*/", keep_lines=True))
        assert heading, f"queries.sql has a question without a name and a title: {statement[:100]}"
        name, title, description = heading.groups()
        sql = sql.strip().removesuffix(";")
        parameters = list(dict.fromkeys(PARAMETER.findall(sql)))
        found[name] = CannedQuery(name, title, one_line(description), f"{PATH}/{name}", parameters, sql)
    return found


def topics() -> dict[str, list[CannedQuery]]:
    """The questions of each topic."""
    return {topic: [questions()[name] for name in names.split()] for topic, names in TOPICS.items()}


def last_comment(sql: str, *, keep_lines: bool = False) -> str:
    comment = COMMENT.findall(sql)[-1].strip()
    return comment if keep_lines else one_line(comment)


def one_line(text: str) -> str:
    return " ".join(text.split())
