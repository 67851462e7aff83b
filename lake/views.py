"""The views of a lake, for each engine: those of lake/views.sql, in its words."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lake.dialects import DIALECTS, Dialect, translated
from sessionstore.store.schema import statements

VERSION = 1
"""Of the views and of the tables' columns: raised with every change of theirs."""
VIEWS = Path(__file__).with_name("views.sql")
TABLES = ("events", "sessions", "details", "deletions")
NAME = re.compile(r"CREATE VIEW (\w+) AS\n")


def views(dialect: Dialect, tables: str) -> dict[str, str]:
    """What makes each, in an order in which they can be made. `tables` names a table: {name}."""
    return views_in(dialect.name, tables)


@cache
def views_in(language: str, tables: str) -> dict[str, str]:
    made, dialect = {}, DIALECTS[language]
    for statement in statements(VIEWS.read_text()):
        _, name, query = NAME.split(statement.strip().removesuffix(";"), maxsplit=1)
        for table in TABLES:
            query = query.replace(f"{{{table}}}", tables.format(name=table))
        made[name] = f"{dialect.view.format(name=name)}\n{translated(query, dialect)}"
    return made


def script(dialect: Dialect, url: str) -> str:
    """What a person has an engine run before asking."""
    made = views(dialect, dialect.table.replace("{url}", url))
    head = f"-- Views of a lake, version {VERSION}, for {dialect.name}: those of views.sql, and `shard`.\n"
    return head + dialect.settings + "".join(f"\n{sql};\n" for sql in made.values())
