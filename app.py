"""The session store: one SQLite file, one folder, one process and its child. Start it with `python app.py`.

This file is the map; what it names stands in sessionstore/, in a wing for each concern.

    agents ── small batches, ──▶ FastPath ─┐          people ── /, /api, /ws ──▶ Gate ──▶ Litestar ──▶ /datasette/
              single entries     (ASGI)    │                                who may       │    │      a child process
                                           ▼                                              │    │      of Datasette
                             Writer: one thread,  ◀───────────────────────────────────────┘    ▼
                             group commit, schema.sql                             Reader: read-only connections
                                           │
                                           ▼ after the commit
               ┌───────────────────────────┴────────────────────────────────┐
         Broadcaster, a ring buffer                     the followers, a thread each, never in a write's way:
          ──▶ /ws, /api/events/stream                   tree, backups, retention, webhooks, push; once a day
                                                        comparison, in a process that waits for all others; where
                                                        SESSIONS_LAKE is set, another that seals into the lake

Threads: the event loop (everything above), the writer with its chores (search index, purge, checkpoints), the
followers, one for each read connection, one that decodes what is large. Where SESSIONS_ACK is bucket, a child process
has what the writer commits in the bucket before it does. `App` builds all of it from the settings, in production and in
tests.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import ModuleType

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler

from sessionstore import __version__
from sessionstore.admin import tokens as commands
from sessionstore.appliance import Store
from sessionstore.log import logging_as, tell
from sessionstore.model.problems import Problem
from sessionstore.settings import BadSetting, Settings, read_settings
from sessionstore.store.folder import close_to_others, doubt_about
from sessionstore.store.owner import CannotStart, own_folder
from sessionstore.store.schema import DatabaseUnusable
from sessionstore.web import (
    api,
    checkpoints,
    control,
    conversation,
    datasette_mount,
    health,
    imports,
    live,
    moving,
    pages,
    push,
    sharing,
    telemetry,
    transcripts,
    usage,
)
from sessionstore.web.asgi import Allowed, Heads, NoEmptyNames, Paths, Receive, Scope, Send
from sessionstore.web.fast_path import FastPath
from sessionstore.web.forwarded import Forwarded
from sessionstore.web.gate import MATERIAL, OF_USERS, Gate
from sessionstore.web.request import check_bounds
from sessionstore.web.request_metrics import Counted, Traffic
from sessionstore.web.server import Server, certificate_of, listen
from sessionstore.web.tokens import Tokens

logger = logging.getLogger(__name__)

GARBAGE_THRESHOLD = 20_000
"""New containers that make the garbage collector look; Python's 700 costs a tenth of the event loop's time."""
SWITCH_INTERVAL = 0.0005
"""Seconds for which the event loop may keep the interpreter while the writer, between two statements, waits for it.
With Python's 0.005 a commit takes 12 ms under load, nearly all of it waiting."""


ROOMS = (
    health,
    api,
    transcripts,
    conversation,
    sharing,
    imports,
    moving,
    checkpoints,
    telemetry,
    usage,
    control,
    push,
    live,
    pages,
    datasette_mount,
)
"""Of the routes: every handler that stands in one of these is served."""


def rooms(settings: Settings) -> tuple[ModuleType, ...]:
    """Those that everybody has, and that of a fleet where there is one."""
    if not settings.fleet:
        return ROOMS
    from sessionstore.web import fleet

    return (*ROOMS, fleet)


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """For whoever asks meanwhile, a package that nobody has imported yet is not installed."""
    is_unread = sys.modules.setdefault(package, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if is_unread:
            del sys.modules[package]


class App:
    """The appliance as one ASGI app, and what it works on. Nothing is opened before `prepare`, or its lifespan."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings)
        self.tokens = Tokens(settings)
        self.traffic = Traffic()
        self.listeners = live.Listeners()
        self.questions = datasette_mount.DatasetteMount(self.store)
        routes = [
            found for room in rooms(settings) for found in vars(room).values() if isinstance(found, BaseRouteHandler)
        ]
        for route in routes:  # read once, or Litestar reads it in each of its copies: a sixth of the time that it takes
            _ = route.parsed_fn_signature
        with hidden("pydantic"):  # or Litestar reads it at each start: 0.07 s and 9 MB; what prices needs it later
            self.litestar = Litestar(
                route_handlers=routes,
                lifespan=[self.lifespan],
                guards=[check_bounds],
                openapi_config=pages.OPENAPI,
                exception_handlers={
                    Problem: api.on_problem,
                    HTTPException: api.on_http_exception,
                    Exception: api.on_failure,
                },
                logging_config=None,
            )
        named = NoEmptyNames(health.Sound(Heads(Allowed(self.litestar)), self.store), *MATERIAL)  # type: ignore[arg-type]
        self.gate = Gate(named, settings, self.tokens)
        self.store.push.bounds_of = push.Rights(self.gate)
        fast_path = FastPath(Counted(self.gate, self.traffic), self.gate, self.store, self.traffic)
        self.asgi = Paths(Forwarded(fast_path, settings), *MATERIAL, OF_USERS)
        for name in ("store", "listeners", "traffic", "questions", "gate"):
            self.litestar.state[name] = getattr(self, name)
        self.is_prepared = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self.asgi(scope, receive, send)

    def prepare(self) -> None:
        """Take the folder, the tokens and the database. Raises where it cannot start, with a message for people."""
        if self.is_prepared:
            return
        doubt = doubt_about(self.settings)
        lock = own_folder(self.settings.directory)
        warnings = close_to_others(self.settings)
        self.tokens.prepare()
        self.store.prepare()
        self.store.ground.begin(lock, doubt, warnings)
        self.is_prepared = True

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        self.prepare()
        try:
            await self.store.start()
        except BaseException as error:
            logger.critical("The server cannot start: %s", error)
            await self.store.stop()  # or what has begun keeps the process, and with it the folder
            raise
        watch = asyncio.create_task(live.watch(self.gate, self.listeners))
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        try:
            yield
        finally:
            await self.questions.stop()
            watch.cancel()
            self.tokens.save_use()
            self.gate.logins.save()
            await self.store.stop()


def create_app(settings: Settings) -> App:
    """The whole appliance, for production and tests alike. Its WebSockets need the protocol of web/server.py."""
    return App(settings)


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
    elif controls := tokens.made("control"):
        access += f"; who answers and orders needs the token in {controls}"
    if short := tokens.short():
        access += f"; too short, and may be guessed: {', '.join(short)}"
    return {"Dashboard": dashboard, "API": f"{at}/schema", "Data": str(settings.directory), "Access": access}


def outer_address() -> str:
    """By which others reach this machine, as far as it knows: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()


def greet(settings: Settings, known: dict[str, str]) -> None:
    """Say it on stdout, unless that is where the log goes; the log says it too."""
    if settings.log == "text":
        print(
            f"Session store {__version__}",
            *(f"  {name:15}{fact}" for name, fact in known.items()),
            sep="\n",
            flush=True,
        )
    tell("started", version=__version__, **{name.lower(): fact for name, fact in known.items()})


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises where it cannot start, with a message for people."""
    app = create_app(settings)
    app.prepare()
    certificate = certificate_of(settings)
    listener = listen(settings.host, settings.port)
    server = Server(app, app.gate, app.traffic, certificate, app.store.drain)
    greet(settings, facts(settings, listener.getsockname()[1], app.tokens))
    is_served = server.serve_until_told(listener)
    tell("stopped", seconds=round(app.store.uptime(), 1))
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
