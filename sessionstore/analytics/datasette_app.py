"""Datasette over the views for people: a process of its own, `python -m sessionstore.analytics.datasette_app FILE FD`.

It is Datasette as it comes, with what is ours by its hooks. It answers HTTP at the
socket that it is given, without any guard: who asks is the parent's business.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import resource
import shutil
import socket
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote

import datasette
import uvicorn
from datasette import Response, hookimpl
from datasette.app import Datasette
from datasette.database import Database, Results
from datasette.plugins import pm
from datasette.utils.asgi import Base400
from datasette.views.base import DatasetteError
from markupsafe import Markup

from sessionstore.analytics.catalogue import DATABASE, questions, topics, views
from sessionstore.analytics.datasette_process import STUCK, STUCK_SECONDS
from sessionstore.analytics.sandbox import Walls
from sessionstore.text import for_people, for_spreadsheet, shortened

TEMPLATES = Path(__file__).resolve().parent / "templates"
TEMPLATES_OF_DATASETTE = Path(datasette.__file__).parent / "templates"
MAX_ADDRESS_SPACE = 512 << 20
QUERY_SECONDS = 1.2
COUNT_SECONDS = 0.3
AT_ONCE = 20
"""How many questions are answered or wait; one more is refused."""
SETTINGS: dict[str, Any] = {
    "base_url": "/datasette/",
    "sql_time_limit_ms": int(QUERY_SECONDS * 1000),
    "facet_time_limit_ms": 200,
    "max_returned_rows": 1000,
    "num_sql_threads": 5,
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
    "asks": {"sort_desc": "cursor", "facets": ["status", "kind", "answered_by"]},
    "orders": {"sort_desc": "cursor", "facets": ["status", "kind", "actor"]},
    "minutes": {"sort_desc": "minute"},
}
"""How the page of a view begins."""

prefix: ContextVar[str] = ContextVar("prefix", default="")
"""The path below which a proxy shows the store to who asks at the moment."""


class Views(Database):  # type: ignore[misc]
    """An empty database in memory, with the views for people in it."""

    async def execute(self, sql: str, params: Any = None, truncate: bool = False, **options: Any) -> Results:
        """A page is of use without the count of all rows; and what people ask wrongly is not for the log."""
        if sql.startswith("select count(*) from ") and not truncate:
            options["custom_time_limit"] = COUNT_SECONDS * 1000
        return await super().execute(sql, params, truncate, **{**options, "log_sql_errors": False})

    async def execute_fn(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        """The process ends where that takes too long: nothing else stops a single step of SQLite."""

        def watched(connection: sqlite3.Connection) -> Any:
            alarm = threading.Timer(STUCK_SECONDS, os._exit, [STUCK])
            alarm.start()
            try:
                return fn(connection)
            finally:
                alarm.cancel()

        return await super().execute_fn(watched)


class Explorer(Datasette):  # type: ignore[misc]
    """Datasette with that database alone; its links are as whoever asks needs them."""

    def __init__(self, store: Path) -> None:
        self.store = store
        super().__init__(settings=SETTINGS, metadata=metadata(), template_dir=str(TEMPLATES))
        self.remove_database("_memory")
        self.add_database(Views(self, is_memory=True), name=DATABASE)

    def setting(self, key: str) -> Any:
        return f"{prefix.get()}/datasette/" if key == "base_url" else super().setting(key)

    def absolute_url(self, request: Any, path: str) -> str:
        """None is absolute: only a proxy knows how people reach us."""
        return path


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


def csv_of(columns: list[str], rows: list[Any], data: dict[str, Any], request: Any) -> Response:
    """Datasette's own CSV has no hook."""
    if data.get("error"):
        return Response.text(data["error"], status=400)
    text = io.StringIO()
    csv.writer(text).writerows(map(for_spreadsheet, cells) for cells in (columns, *rows))
    attached = {"content-disposition": f'attachment; filename="{data.get("table") or DATABASE}.csv"'}
    is_download = bool(request.args.get("_dl"))
    return Response(
        text.getvalue(),
        headers=attached if is_download else {},
        content_type=f"text/{'csv' if is_download else 'plain'}; charset=utf-8",
    )


def link_to_dashboard(row: Any, column: str, value: Any) -> str | None:
    """Where the dashboard shows what a cell names."""
    if not isinstance(value, str | int) or value == "":
        return None
    text, home = quote(str(value), safe=""), f"{prefix.get()}/"
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


def named(row: Any, column: str, shown: Any) -> Any:
    """What people know a session by, where its row says that; else the first part of its id, if that is a UUID."""
    if not isinstance(shown, str) or "session" not in column:
        return shown
    title = row["title"] if column == "session_id" and "title" in row.keys() else None  # noqa: SIM118
    return (
        shortened(for_people(title), 60)
        if title
        else re.sub(r"^([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", r"\1", shown)
    )


def told(error: Exception) -> tuple[int, str]:
    """The status for an error, and what to say of it: an address that makes no sense is no fault of Datasette's."""
    if isinstance(error, MemoryError):
        return 400, "There is not enough memory for this question"
    if isinstance(error, DatasetteError) and error.message_is_html:
        return 400, f"The question took longer than {QUERY_SECONDS:g} seconds, and was given up"
    if isinstance(error, Base400 | DatasetteError) and error.status != 500:
        return error.status, str(error)
    if isinstance(error, ValueError | KeyError | OverflowError | sqlite3.Error | DatasetteError):
        return 400, f"This address cannot be understood: {error}"
    traceback.print_exception(error)
    return 500, "Datasette cannot answer this"


# ------------------------------------------------------- what is ours in its pages and connections


@hookimpl  # type: ignore[untyped-decorator]
def prepare_connection(conn: sqlite3.Connection, database: str, datasette: Any) -> None:
    if database == DATABASE:
        Walls(conn, datasette.store)


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(row: Any, value: Any, column: str) -> Markup | None:
    shown = for_people(value) if isinstance(value, str) else value
    if link := link_to_dashboard(row, column, value):
        return Markup('<a href="{}" title="{}">{}</a>').format(link, shown, named(row, column, shown))
    if shown == value:
        return None
    return Markup.escape(shortened(shown, SETTINGS["truncate_cells_html"])) or Markup("&nbsp;")


@hookimpl  # type: ignore[untyped-decorator]
def extra_template_vars() -> dict[str, Any]:
    return {"home": f"{prefix.get()}/", "database": DATABASE, "topics": topics(), "views": [*views().values()]}


@hookimpl  # type: ignore[untyped-decorator]
def register_output_renderer() -> dict[str, Any]:
    return {"extension": CSV, "render": csv_of, "can_render": lambda: False}


@hookimpl  # type: ignore[untyped-decorator]
def handle_exception(datasette: Any, request: Any, exception: Exception) -> Any:
    async def answer() -> Response:
        status, said = told(exception)
        document = {"ok": False, "error": said, "status": status, "title": None}
        if request.path.endswith(".json"):
            return Response.json(document, status=status)
        return Response.html(await datasette.render_template("error.html", document), status=status)

    return answer


@hookimpl  # type: ignore[untyped-decorator]
def asgi_wrapper() -> type[Answers]:
    return Answers


# --------------------------------------------------------------------- answering

CSV = "cells"
"""The ending by which Datasette knows our CSV."""


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


class Answers:
    """ASGI: knows the prefix of who asks, and sends what is whole with its length, so that a part is known as one."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        prefix.set(dict(scope["headers"]).get(b"x-forwarded-prefix", b"").decode())
        if scope["raw_path"].endswith(b".csv"):
            scope["raw_path"] = scope["raw_path"].removesuffix(b"csv") + CSV.encode()
            scope["query_string"] += b"&_nofacet=1&_nocount=1"
        head: dict[str, Any] = {}

        async def send_whole(message: dict[str, Any]) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = {**message, "headers": [*message["headers"], *self.headers]}
                return
            if head:
                if not any(name.lower() == b"content-length" for name, _ in head["headers"]):
                    head["headers"].append((b"content-length", str(len(message["body"])).encode()))
                await send(head)
                head = {}
            await send(message)

        await self.app(scope, receive, send_whole)


def end_with_parent(listener: socket.socket) -> None:
    """Our stdin ends with it; nobody else takes the folder of the socket away."""
    os.read(0, 1)
    shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
    os._exit(0)


def main(path: str, descriptor: str) -> None:
    with suppress(AttributeError, OSError, ValueError):  # a Mac has no such limit, or does not let it be set
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    listener = socket.socket(fileno=int(descriptor))
    threading.Thread(target=end_with_parent, args=[listener], daemon=True).start()
    pm.unregister(name="datasette.handle_exception")  # which prints what stands in memory around a refused query
    pm.register(sys.modules[__name__], name="sessionstore")
    config = uvicorn.Config(Explorer(Path(path)).app(), limit_concurrency=AT_ONCE, log_level="error", ws="none")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
