"""Datasette over the live database: SQL for people, read only, within bounds. It is loaded when first asked for."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any
from urllib.parse import unquote

from litestar import asgi
from litestar.types import Receive, Scope, Send

from .access import ASGI, answer
from .store import Store

MOUNT = "/datasette"
SETTINGS = {
    "base_url": f"{MOUNT}/",
    "sql_time_limit_ms": 1000,
    "max_returned_rows": 1000,
    "num_sql_threads": 2,
    "default_cache_ttl": 0,
    "allow_download": False,
    "allow_csv_stream": False,
    "suggest_facets": False,
}
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 5_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
}
"""What one query may ask of SQLite: its time limit does not stop a single step that makes a huge value."""


class Questions:
    """Datasette, once somebody asks."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.app: ASGI | None = None
        self.loading = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self.loading:
            if self.app is None:
                self.app = await self.load()
        path = scope["raw_path"].removeprefix(MOUNT.encode())
        if not path:
            await answer(send, 307, [(b"location", f"{MOUNT}/".encode())])
            return
        # without the prefix, which Datasette would write twice into its links
        await self.app({**scope, "path": unquote(path), "raw_path": path, "root_path": ""}, receive, send)

    async def load(self) -> ASGI:
        datasette = await asyncio.to_thread(make_datasette, self.store)
        await datasette.invoke_startup()
        app: ASGI = datasette.app()
        return app


def make_datasette(store: Store) -> Any:
    from datasette.app import Datasette  # first: it loads the plugins
    from datasette import handle_exception, hookimpl  # isort: skip
    from datasette.plugins import pm  # isort: skip

    class Bounds:
        @staticmethod
        @hookimpl  # type: ignore[untyped-decorator]
        def prepare_connection(conn: sqlite3.Connection, database: str) -> None:
            for limit, value in LIMITS.items() if database != "_internal" else ():
                conn.setlimit(limit, value)

    handle_exception.rich = None  # it would print every refused query with all that stands in memory around it
    if not pm.has_plugin("sessionstore"):
        pm.register(Bounds, name="sessionstore")
    return Datasette([str(store.settings.database)], settings=SETTINGS, memory=False)


@asgi(MOUNT, is_mount=True, copy_scope=True)
async def questions(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever Datasette answers."""
    await scope["litestar_app"].state.questions(scope, receive, send)


ROUTES = (questions,)
