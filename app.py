"""The session store: one process, one SQLite file, one folder. Start it with `python app.py`.

This file is the map; what it names stands in sessionstore/, a module for each noun.

    agents, people ── HTTP, WebSocket ──▶ Door ──▶ Gate ──▶ Litestar
                                     one action,    who may   every other
                                     one response             route
                                            │                    │
                                            ▼                    ▼
                                   Writer: one thread,    Reader: read-only
                                   one commit for all     connections
                                   that waits, schema.sql
                                                       │
                                                       ▼ after the commit
                                              Broadcaster ──▶ /ws, /api/events/stream
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from sessionstore import __version__
from sessionstore.admin import tokens as commands
from sessionstore.appliance import Store
from sessionstore.log import logging_as, tell
from sessionstore.model.problems import Problem
from sessionstore.settings import BadSetting, Settings, read_settings
from sessionstore.store.folder import close_to_others, doubt_about
from sessionstore.store.owner import CannotStart, own_folder
from sessionstore.store.schema import DatabaseUnusable
from sessionstore.web import api, live, pages
from sessionstore.web import datasette_mount as questions
from sessionstore.web.fast_path import Door, Heads, Sound
from sessionstore.web.gate import Gate
from sessionstore.web.request_metrics import Counted, Traffic
from sessionstore.web.server import Server, certificate_of, listen
from sessionstore.web.tokens import Tokens

GARBAGE_THRESHOLD = 20_000
"""New containers that make the garbage collector look; Python's 700 costs a tenth of the event loop's time."""
SWITCH_INTERVAL = 0.0005
"""Seconds for which the event loop may keep the interpreter while the writer, between two statements, waits for it.
With Python's 0.005 a commit takes 12 ms under load, nearly all of it waiting."""


def create_app(store: Store, tokens: Tokens, traffic: Traffic | None = None) -> Gate:
    """The appliance as an ASGI app, for production and tests alike. Nothing is opened before its lifespan begins."""
    listeners = live.Listeners()
    asked = questions.Questions(store)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await store.start()
        watch = asyncio.create_task(live.watch(gate, listeners))
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        try:
            yield
        finally:
            await asked.stop()
            watch.cancel()
            tokens.save_use()
            gate.logins.save()
            await store.stop()

    app = Litestar(
        route_handlers=[*api.ROUTES, *live.ROUTES, *pages.ROUTES, *questions.ROUTES],
        lifespan=[lifespan],
        state=State(
            {
                "store": store,
                "listeners": listeners,
                "traffic": traffic or Traffic(),
                "questions": asked,
            }
        ),
        openapi_config=pages.OPENAPI,
        exception_handlers={
            Problem: api.on_problem,
            HTTPException: api.on_http_exception,
            Exception: api.on_failure,
        },
        logging_config=None,
    )
    gate = Gate(Sound(Heads(app), store), store.settings, tokens)  # type: ignore[arg-type]
    app.state.gate = gate
    return gate


def facts(settings: Settings, port: int, tokens: Tokens) -> dict[str, str]:
    """What the person who starts it wants to know."""
    scheme = "https" if settings.tls_certificate else "http"
    is_everywhere = settings.host in ("0.0.0.0", "::")
    here = "127.0.0.1" if settings.host == "localhost" or is_everywhere else settings.host
    at = f"{scheme}://{f'[{here}]' if ':' in here else here}:{port}"
    dashboard = f"{at}/"
    if settings.public_url or is_everywhere:
        dashboard += f", from elsewhere {settings.public_url or f'{scheme}://{outer_address()}:{port}'}/"
    access = "open: only this machine can reach it"
    if reading := tokens.made("read"):
        admin = tokens.made("admin")
        access = f"by token: the dashboard asks for one: {reading}" + (
            f", or {admin.name}, to delete too" if admin else ""
        )
    elif tokens:
        access = "by the tokens that are set"
    return {"Dashboard": dashboard, "API": f"{at}/schema", "Data": str(settings.directory), "Access": access}


def outer_address() -> str:
    """By which others reach this machine, as far as it knows: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()


def greet(settings: Settings, known: dict[str, str]) -> None:
    """Say it on stdout, unless that is where the log goes; the log says it too."""
    if settings.log == "text" or settings.log_file:
        print(
            f"Session store {__version__}",
            *(f"  {name:15}{fact}" for name, fact in known.items()),
            sep="\n",
            flush=True,
        )
    tell("started", version=__version__, **{name.lower(): fact for name, fact in known.items()})


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises where it cannot start, with a message for people."""
    doubt = doubt_about(settings)
    lock = own_folder(settings.directory)
    warnings = close_to_others(settings)
    tokens = Tokens(settings)
    tokens.prepare()
    certificate = certificate_of(settings)
    listener = listen(settings.host, settings.port)
    store = Store(settings)
    store.prepare()
    store.ground.begin(lock, doubt, warnings)
    traffic = Traffic()
    gate = create_app(store, tokens, traffic)
    server = Server(Counted(gate, traffic), Door(gate, store), traffic, certificate, store.drain)
    greet(settings, facts(settings, listener.getsockname()[1], tokens))
    is_served = server.serve_until_told(listener)
    tell("stopped", seconds=round(store.uptime(), 1))
    return 0 if is_served else 1


def serve() -> int:
    """Run the appliance until it is told to stop. The exit code: 0, or 1 where it could not start."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.set_threshold(GARBAGE_THRESHOLD)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # told to end before it serves
    try:
        settings = read_settings()
        os.umask(settings.umask)
        with logging_as(settings):
            return run(settings)
    except (BadSetting, CannotStart, DatabaseUnusable, OSError) as error:
        print(f"session store: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(commands.main(sys.argv[1:]) if sys.argv[1:] else serve())
