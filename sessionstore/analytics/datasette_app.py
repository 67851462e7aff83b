"""Datasette over the views for people: a process of its own, `python -m sessionstore.analytics.datasette_app FILE`.

It never opens the database. Each of its queries goes to one of a few processes
behind walls, which are killed when they do not answer in time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sqlite3
import sys
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import datasette
import msgspec
from datasette import hookimpl
from datasette.app import Datasette
from datasette.database import Database, QueryInterrupted, Results
from datasette.plugins import pm
from datasette.utils import Column
from datasette.utils.asgi import BadRequest, Forbidden
from datasette.views.base import DatasetteError
from markupsafe import Markup

from sessionstore.analytics.catalogue import DATABASE, questions, views
from sessionstore.analytics.sandbox import Found, Query
from sessionstore.analytics.worker_process import Child, Gone, serve_many
from sessionstore.text import for_people, shortened

TEMPLATES = Path(__file__).resolve().parent / "templates"
TEMPLATES_OF_DATASETTE = Path(datasette.__file__).parent / "templates"
WALLS = 5
"""How many questions are answered at the same time."""
WAIT_SECONDS = 1.0
"""How long a question may wait for its turn."""
QUERY_SECONDS = 1.2
COUNT_SECONDS = 0.3
GRACE_SECONDS = 0.2
"""How much longer one step of SQLite may take, which cannot be interrupted."""
SETTINGS: dict[str, Any] = {
    "base_url": "/datasette/",
    "sql_time_limit_ms": int(QUERY_SECONDS * 1000),
    "facet_time_limit_ms": 200,
    "max_returned_rows": 1000,
    "num_sql_threads": 0,
    "default_cache_ttl": 0,
    "allow_download": False,
    "allow_csv_stream": False,
    "allow_signed_tokens": False,
    "suggest_facets": False,
    "truncate_cells_html": 1000,
}
SHOWN_FIRST: dict[str, dict[str, Any]] = {
    "sessions": {"sort_desc": "last_cursor", "facets": ["status", "user_id", "model"]},
    "events": {"sort_desc": "cursor", "facets": ["type"]},
    "actions": {"sort_desc": "cursor", "facets": ["kind"]},
    "responses": {"sort_desc": "cursor", "facets": ["kind"]},
    "tool_calls": {"sort_desc": "cursor", "facets": ["outcome", "tool"]},
    "goals": {"facets": ["status", "session_status"]},
    "agents": {"sort_desc": "spawned_at", "facets": ["status", "type"]},
    "state_changes": {"sort_desc": "cursor", "facets": ["type"]},
    "notes": {"sort_desc": "cursor", "facets": ["actor"]},
    "minutes": {"sort_desc": "minute"},
}
"""How the page of a view begins."""


class Request(msgspec.Struct):
    """What the person's browser asks, below /datasette."""

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    prefix: str = ""
    """The path below which a proxy shows the store."""

    @property
    def is_for_csv(self) -> bool:
        return self.path.endswith(b".csv")

    @property
    def is_for_view(self) -> bool:
        return self.path.count(b"/") > 1


asked: ContextVar[Request] = ContextVar("asked")
"""What the query is for that Datasette makes at the moment."""


class Response(msgspec.Struct):
    status: int = 500
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""


# ------------------------------------------------------------------------ asking


class Interrupted(QueryInterrupted, sqlite3.OperationalError):  # type: ignore[misc]
    """Datasette knows the first as what took too long, and shows the second as what it says."""

    def __init__(self, reason: str, query: Query) -> None:
        super().__init__(reason, query.sql, query.parameters)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Walls:
    """The processes that answer, each one question at a time; those that are free are ready."""

    def __init__(self, database: str) -> None:
        self.children = [Child("sessionstore.analytics.sandbox", database) for _ in range(WALLS)]
        self.free: asyncio.LifoQueue[Child] = asyncio.LifoQueue()
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Have them started, and wait for the first."""
        for child in self.children:
            self.prepare(child)
        await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)

    def prepare(self, child: Child) -> None:
        task = asyncio.create_task(self.free_when_ready(child))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def free_when_ready(self, child: Child) -> None:
        """Whatever comes of it: one that could not be started is started by the next question."""
        try:
            with suppress(Gone):
                await child.ready()
        finally:
            self.free.put_nowait(child)

    async def find(self, query: Query) -> Found:
        """Raises Interrupted past the time that it has, sqlite3.OperationalError for what cannot be answered."""
        try:
            child = await asyncio.wait_for(self.free.get(), WAIT_SECONDS)
        except TimeoutError:
            raise Interrupted("Too many questions at once: ask again in a moment", query) from None
        try:
            found = msgspec.msgpack.decode(await child.ask(query, query.seconds + GRACE_SECONDS), type=Found)
        except Gone as gone:
            raise Interrupted(f"The question was given up: {gone}", query) from None
        finally:
            self.prepare(child)
        if found.has_grown:
            child.kill()
        if found.error == "interrupted":
            raise Interrupted(f"The question took longer than {query.seconds:g} seconds, and was given up", query)
        if found.error:
            raise sqlite3.OperationalError(found.error)
        return found

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*(child.end() for child in self.children))


class Row(tuple[Any, ...]):
    """A row as Datasette expects it: by place, and by the names that its class has."""

    names: dict[str, int]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names[key] if isinstance(key, str) else key)

    def keys(self) -> list[str]:
        return list(self.names)


class People(Database):  # type: ignore[misc]
    """The database as people are to see it: views, and nothing besides."""

    def __init__(self, explorer: Datasette, path: str) -> None:
        super().__init__(explorer, path=path, is_mutable=True)
        self.walls = Walls(path)

    async def execute(
        self,
        sql: str,
        params: Any = None,
        truncate: bool = False,
        custom_time_limit: int | None = None,
        page_size: int | None = None,
        log_sql_errors: bool = True,
    ) -> Results:
        seconds = min(QUERY_SECONDS, (custom_time_limit or 60_000) / 1000)
        if asked.get().is_for_view and sql.startswith("select count(*) from "):
            seconds = COUNT_SECONDS  # the page is of use without it
        parameters = dict(params) if isinstance(params, dict) else list(params or ())
        query = Query(sql, parameters, seconds, self.ds.max_returned_rows)
        try:
            found = await self.walls.find(query)
        except sqlite3.OperationalError as error:
            if asked.get().is_for_csv:  # of which Datasette would make an empty table
                raise DatasetteError(str(error), title="Invalid SQL", status=400) from error
            raise
        names = {name: place for place, name in reversed(list(enumerate(found.columns)))}
        row = type("Row", (Row,), {"names": {name: names[name] for name in found.columns}})
        if asked.get().is_for_csv:
            found.columns, *found.rows = ([*map(for_spreadsheet, cells)] for cells in (found.columns, *found.rows))
        return Results(list(map(row, found.rows)), found.is_cut, [(name,) for name in found.columns])

    async def execute_fn(self, fn: Any) -> Any:
        raise Forbidden("Nothing but queries")

    def connect(self, write: bool = False) -> Any:
        raise Forbidden("Nothing but queries")

    async def attached_databases(self) -> list[Any]:
        return []

    async def table_exists(self, table: str) -> bool:
        return False

    async def table_names(self) -> list[str]:
        return []

    async def hidden_table_names(self) -> list[str]:
        return []

    async def view_names(self) -> list[str]:
        return list(views())

    async def table_columns(self, table: str) -> list[str]:
        return list(views()[table].columns) if table in views() else []

    async def table_column_details(self, table: str) -> list[Column]:
        return [Column(place, name, "", 0, None, 0, 0) for place, name in enumerate(await self.table_columns(table))]

    async def primary_keys(self, table: str) -> list[str]:
        return []

    async def fts_table(self, table: str) -> None:
        return None

    async def foreign_keys_for_table(self, table: str) -> list[Any]:
        return []

    async def get_all_foreign_keys(self) -> dict[str, Any]:
        return {}

    async def get_table_definition(self, table: str, type_: str = "view") -> str | None:
        return views()[table].sql.strip() if type_ == "view" and table in views() else None


class Explorer(Datasette):  # type: ignore[misc]
    """Datasette with that database alone."""

    def __init__(self, path: str) -> None:
        super().__init__(settings=SETTINGS, metadata=metadata(), template_dir=str(TEMPLATES))
        for name in ("_memory", "_internal"):
            self.remove_database(name)
        self.people = People(self, path)
        self.add_database(self.people, name=DATABASE)

    async def refresh_schemas(self) -> None:
        """They are not looked up: views.sql has them."""

    def setting(self, key: str) -> Any:
        """All of Datasette's links begin with its base_url, which depends on who asks."""
        return prefix() + SETTINGS["base_url"] if key == "base_url" else super().setting(key)

    def absolute_url(self, request: Any, path: str) -> str:
        """None is absolute: only a proxy knows how people reach us."""
        return path

    async def permission_allowed(self, actor: Any, action: str, resource: Any = None, default: bool = False) -> bool:
        """Who gets here may read; nobody may do anything else."""
        return action in ("view-instance", "view-database", "view-table", "view-query", "execute-sql")


# ----------------------------------------------------------------------- showing


def metadata() -> dict[str, Any]:
    """What Datasette says about views and questions: what their comments say."""
    tables = {
        view.name: {"description": view.description, "columns": view.columns, **SHOWN_FIRST.get(view.name, {})}
        for view in views().values()
    }
    queries = {
        question.name: {
            "title": question.title,
            "description": question.description,
            "params": question.parameters,
            "sql": question.sql,
            "hide_sql": True,
        }
        for question in questions().values()
    }
    return {
        "title": "Session store",
        "description": "What agents did, in SQL. The database is live, and can only be read.",
        "databases": {DATABASE: {"queries": queries, "tables": tables}},
    }


def prefix() -> str:
    request = asked.get(None)
    return request.prefix if request else ""


RUN_BY_SPREADSHEETS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
"""What a text begins with that Excel and others take for a formula, as https://owasp.org/www-community/attacks/CSV_Injection
has it."""


def for_spreadsheet(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = for_people(cell)
    return f"'{text}" if text.startswith(RUN_BY_SPREADSHEETS) else text


def link_to_dashboard(row: Any, column: str, value: Any) -> str | None:
    """Where the dashboard shows what a cell names."""
    if not isinstance(value, str | int) or value == "":
        return None
    text, home = quote(str(value), safe=""), f"{prefix()}/"
    session = row["session_id"] if "session_id" in row.keys() else None  # noqa: SIM118
    if column.endswith("session_id") or column in ("parent_session", "subsession", "last_session"):
        return f"{home}#/session/{text}/log"
    if column == "user_id":
        return f"{home}#/sessions?userId={text}"
    if not isinstance(session, str):
        return None
    log = f"{home}#/session/{quote(session, safe='')}/log"
    if column in ("cursor", "result_cursor", "last_cursor") and isinstance(value, int):
        return f"{log}?entry={text}"
    return f"{log}?agent={text}" if column == "agent_id" else None


class Hooks:
    """What is ours in Datasette's pages."""

    @staticmethod
    @hookimpl  # type: ignore[untyped-decorator]
    def render_cell(row: Any, value: Any, column: str) -> Markup | None:
        shown = for_people(value) if isinstance(value, str) else value
        if link := link_to_dashboard(row, column, value):
            return Markup('<a href="{}">{}</a>').format(link, shown)
        if shown == value:
            return None
        return Markup.escape(shortened(shown, SETTINGS["truncate_cells_html"])) or Markup("&nbsp;")

    @staticmethod
    @hookimpl  # type: ignore[untyped-decorator]
    def extra_template_vars() -> dict[str, Any]:
        return {"home": f"{prefix()}/"}

    @staticmethod
    @hookimpl  # type: ignore[untyped-decorator]
    def handle_exception(datasette: Any, request: Any, exception: Exception) -> Any:
        """An address that makes no sense is 400: Datasette would take some of them for faults of its own."""
        if (
            not isinstance(exception, ValueError | KeyError | DatasetteError)
            or getattr(exception, "status", 500) != 500
        ):
            return None
        said = getattr(exception, "message", "") or f"This address cannot be understood: {exception}"
        return pm.get_plugin("datasette.handle_exception").handle_exception(datasette, request, BadRequest(said))


def scripts() -> list[str]:
    """The scripts that stand in Datasette's own pages, none of which has anything of ours in it."""
    names = ("_close_open_menus.html", "_codemirror_foot.html")
    pages = [(TEMPLATES_OF_DATASETTE / name).read_text() for name in names]
    found = [script for page in pages for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]
    return [*found, "DATASETTE_ALLOW_FACET = true;"]


def policy() -> str:
    """The Content-Security-Policy under which only they run, and those in files."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts())
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {hashes};"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    )


# --------------------------------------------------------------------- answering


class Pages:
    """Answers requests with what Datasette makes of them."""

    def __init__(self, path: str) -> None:
        self.explorer = Explorer(path)
        self.app = self.explorer.app()
        self.headers = [
            (b"content-security-policy", policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def answer(self, request: Request) -> Response:
        asked.set(request)
        response = Response()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                response.status, response.headers = message["status"], [*message["headers"], *self.headers]
            else:
                response.body += message.get("body", b"")

        await self.app(scope_of(request), receive, send)
        return response


def scope_of(request: Request) -> dict[str, Any]:
    """The path without the prefix, which Datasette would write twice into its links."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
    }


async def run(path: str) -> None:
    # it would print every refused query with all that stands in memory around it
    pm.get_plugin("datasette.handle_exception").rich = None
    pm.register(Hooks, name="sessionstore")
    pages = Pages(path)
    await pages.explorer.invoke_startup()
    await pages.explorer.people.walls.open()
    await serve_many(Request, pages.answer)
    await pages.explorer.people.walls.stop()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
