"""A connection for the SQL of strangers: the views of views.sql can be read with it, and nothing else can be done.

What it is asked comes from people, who may mean ill or only be wrong. So the
database is attached under a name that nobody can know, and what no view shows is
hidden behind empty tables; SQLite asks here before it reads a column, calls a
function, or does anything else; and its own limits hold values, statements and
memory small. A single step of SQLite cannot be interrupted, however long it
takes: this module is run as a process of its own, `python -m sessionstore.analytics.sandbox
DATABASE`, which can be killed.
"""

from __future__ import annotations

import resource
import secrets
import sqlite3
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from sessionstore.analytics.catalogue import views
from sessionstore.analytics.worker_process import serve

MAX_BYTES = 8 << 20
"""About how much one answer holds."""
MAX_ADDRESS_SPACE = 512 << 20
MAX_RESIDENT_KILOBYTES = 128 << 10
STEPS = 1000
"""Instructions of SQLite between two looks at the clock."""
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 5_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 50,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 200,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
TABLES = {"json_each", "json_tree"}
CORE = """abs char coalesce format glob hex ifnull iif instr length like likelihood likely lower ltrim max min
nullif printf quote random replace round rtrim sign soundex sqlite_version substr substring trim typeof unicode unlikely
upper zeroblob"""
OF_ROWS = """avg count group_concat sum total cume_dist dense_rank first_value lag last_value lead nth_value ntile
percent_rank rank row_number"""
OF_TIME = "date time datetime julianday strftime unixepoch current_date current_time current_timestamp"
OF_JSON = """-> ->> json json_array json_array_length json_extract json_group_array json_group_object json_insert
json_object json_patch json_quote json_remove json_replace json_set json_type json_valid"""
OF_NUMBERS = """acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi
pow power radians sin sinh sqrt tan tanh trunc"""
FUNCTIONS = frozenset(f"{CORE} {OF_ROWS} {OF_TIME} {OF_JSON} {OF_NUMBERS}".split())


class Query(msgspec.Struct):
    sql: str
    parameters: dict[str, Any] | list[Any]
    seconds: float
    max_rows: int


class Found(msgspec.Struct):
    """The rows; `is_cut`: there were more. Or an error, `interrupted` if it took too long.

    `has_grown`: the process has become larger than it need be, and another may take its place.
    """

    columns: list[str] = []
    rows: list[list[Any]] = []
    is_cut: bool = False
    error: str = ""
    has_grown: bool = False


class Walled:
    """The connection, and what it answers."""

    def __init__(self, path: Path) -> None:
        self.deadline = 0.0
        self.connection = sqlite3.connect(":memory:", uri=True, isolation_level=None)
        self.connection.text_factory = lambda text: text.decode(errors="replace")
        self.connection.execute("PRAGMA temp_store = MEMORY")  # first: it drops the temporary views that are there
        self.store = f"store_{secrets.token_hex(16)}"
        self.connection.execute(f"ATTACH ? AS {self.store}", (f"{path.as_uri()}?mode=ro",))
        self.hidden = self.hide_tables()
        for view in views().values():
            self.connection.execute(view.sql.replace("main.", f"{self.store}."))
        self.connection.execute("SELECT * FROM json_each('[]'), json_tree('[]')")  # known from now on
        for pragma in ("query_only = 1", "busy_timeout = 500"):
            self.connection.execute(f"PRAGMA {pragma}")
        for limit, value in LIMITS.items():
            self.connection.setlimit(limit, value)
        self.connection.set_authorizer(self.allows)
        self.connection.set_progress_handler(self.is_late, STEPS)

    def hide_tables(self) -> set[str]:
        """A name without a schema is looked for in the attached database last."""
        found = self.connection.execute(f"SELECT name FROM {self.store}.sqlite_master WHERE type IN ('table', 'view')")
        names = {name for (name,) in found.fetchall() if not name.startswith("sqlite_")} - views().keys()
        for name in names:
            self.connection.execute(f'CREATE TABLE main."{name}" (hidden)')
        return names

    def allows(self, action: int, name: str | None, inner: str | None, schema: str | None, within: str | None) -> int:
        """https://sqlite.org/c3ref/set_authorizer.html; `within`: the view, or whatever else it stands in."""
        allowed = (
            action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
            or (action == sqlite3.SQLITE_FUNCTION and inner in FUNCTIONS)
            or (action == sqlite3.SQLITE_READ and self.may_read(name, inner, schema))
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def may_read(self, table: str | None, column: str | None, schema: str | None) -> bool:
        """What a view reads by the name that nobody else knows, the views themselves, and what a query has made."""
        is_view = schema == "temp" and table in views()
        is_hidden = table in self.hidden or str(table).startswith("sqlite_")
        is_of_the_query = schema is None and not column and not is_hidden  # count(*) of a common table expression
        return schema == self.store or is_view or table in TABLES or is_of_the_query

    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def without_secret(self, value: Any) -> Any:
        """EXPLAIN QUERY PLAN would tell the name of the database."""
        return value.replace(f"{self.store}.", "") if isinstance(value, str) else value

    def answer(self, query: Query) -> Found:
        self.deadline = time.monotonic() + query.seconds
        found = self.found_or_refused(query)
        found.has_grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MAX_RESIDENT_KILOBYTES
        return found

    def found_or_refused(self, query: Query) -> Found:
        try:
            return self.find(query)
        except MemoryError:
            return Found(error="This takes more memory than a question may have")
        except (sqlite3.Error, sqlite3.Warning) as error:
            return Found(error=str(error))
        except (OverflowError, ValueError) as error:
            return Found(error=f"A parameter cannot be used: {error}")

    def find(self, query: Query) -> Found:
        cursor = self.connection.execute(query.sql, query.parameters)
        found = Found(columns=[column for column, *_ in cursor.description or ()])
        size = 0
        for row in cursor:
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if len(found.rows) >= query.max_rows or size > MAX_BYTES:
                found.is_cut = True
                break
            found.rows.append([self.without_secret(value) for value in row])
        cursor.close()
        return found


def main() -> None:
    with suppress(AttributeError, OSError, ValueError):  # a Mac has no such limit, or does not let it be set
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    walled = Walled(Path(sys.argv[1]))
    serve(Query, walled.answer)


if __name__ == "__main__":
    main()
