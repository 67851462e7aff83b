"""An SQLite authorizer and limits for the SQL of strangers: they can read the views of views.sql, and do nothing else.

What a connection is asked comes from people, who may mean ill or only be wrong. So
the database is attached under a name that nobody can know, and what no view shows is
hidden behind empty tables; SQLite asks here before it reads a column, calls a
function, or does anything else; and its own limits hold values, statements and memory
small. A name alone proves nothing: a common table expression may be called as a view is.
"""

from __future__ import annotations

import secrets
import sqlite3
import weakref
from pathlib import Path
from typing import Any

from sessionstore.analytics.catalogue import views

MAX_BYTES = 16 << 20
"""About how much one answer holds."""
MAX_HEAP = 192 << 20
"""What SQLite takes in the whole process."""
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
PRAGMAS = {"schema_version", "table_info", "table_xinfo", "foreign_key_list", "index_list"}
"""By which Datasette looks at the views; people can ask none."""
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


class Walls:
    """Around one connection, whose `main` is an empty database in memory."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        connection.execute("PRAGMA temp_store = MEMORY")  # first: it drops the temporary views that are there
        self.store = f"store_{secrets.token_hex(16)}"
        connection.execute(f"ATTACH ? AS {self.store}", (f"{path.as_uri()}?mode=ro",))
        self.hidden = self.hide_tables(connection)
        for view in views().values():
            connection.execute(view.sql.replace("main.", f"{self.store}."))
            connection.execute(view.sql.replace("CREATE TEMP VIEW", "CREATE VIEW"))  # is only listed
        connection.execute("SELECT * FROM json_each('[]'), json_tree('[]')")  # known from now on
        for pragma in ("query_only = 1", "busy_timeout = 500", f"hard_heap_limit = {MAX_HEAP}"):
            connection.execute(f"PRAGMA {pragma}")
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.text_factory = self.text_of
        connection.row_factory = self.row_of
        connection.set_authorizer(self.allows)
        self.cursor = weakref.ref(connection.cursor())
        self.size = 0

    def hide_tables(self, connection: sqlite3.Connection) -> set[str]:
        """A name without a schema is looked for among what is temporary first."""
        found = connection.execute(f"SELECT name FROM {self.store}.sqlite_master WHERE type IN ('table', 'view')")
        names = {name for (name,) in found.fetchall() if not name.startswith("sqlite_")} - views().keys()
        for name in names:
            connection.execute(f'CREATE TEMP TABLE "{name}" (hidden)')
        return names

    def allows(self, action: int, name: str | None, inner: str | None, schema: str | None, within: str | None) -> int:
        """https://sqlite.org/c3ref/set_authorizer.html; `within`: the view, or whatever else it stands in."""
        if action == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if name in PRAGMAS else sqlite3.SQLITE_IGNORE
        allowed = (
            action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
            or (action == sqlite3.SQLITE_FUNCTION and inner in FUNCTIONS)
            or (action == sqlite3.SQLITE_READ and self.may_read(name, inner, schema))
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def may_read(self, table: str | None, column: str | None, schema: str | None) -> bool:
        """What a view reads by the name that nobody else knows, the views themselves, and what a query has made."""
        is_view = schema == "temp" and table in views()
        is_list = schema == "main" and table == "sqlite_master"  # of views, as views.sql has them
        is_hidden = table in self.hidden or str(table).startswith(("sqlite_", "pragma_"))
        is_of_the_query = schema is None and not column and not is_hidden  # count(*) of a common table expression
        return schema == self.store or is_view or is_list or table in TABLES or is_of_the_query

    def text_of(self, text: bytes) -> str:
        """EXPLAIN QUERY PLAN would tell the name of the database."""
        return text.decode(errors="replace").replace(f"{self.store}.", "")

    def row_of(self, cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> sqlite3.Row:
        if cursor is not self.cursor():
            self.cursor, self.size = weakref.ref(cursor), 0
        self.size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in values)
        if self.size > MAX_BYTES:
            raise sqlite3.OperationalError("The answer is too large: ask for fewer rows or columns")
        return sqlite3.Row(cursor, values)
