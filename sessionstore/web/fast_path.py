"""The two hottest routes, one action and one response, taken from the HTTP protocol before ASGI.

Posting one entry is what happens most, and the way through ASGI and the framework costs more
than storing it. What comes the plain way (of a known length, not large, from no page of another
origin) is answered here; all else goes to the ordinary handlers of api.py, which are built of the
same functions. Tests hold the two against each other.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable

from sessionstore.appliance import Store
from sessionstore.model.drafts import Headers, entry_draft, object_in
from sessionstore.model.events import Draft, is_id
from sessionstore.model.problems import Problem, fault, unavailable
from sessionstore.store.appender import Appended
from sessionstore.store.writer import LARGE, Append, Job
from sessionstore.web.asgi import ASGI, Message, Receive, Scope, Send, problem_headers, refuse
from sessionstore.web.bodies import Body
from sessionstore.web.gate import Asked, Gate
from sessionstore.web.request import check_media_type

log = logging.getLogger("sessionstore.web.fast_path")

HOT = re.compile(rb"/api/actions/([A-Za-z0-9._-]+)(/responses)?")
MAX_BYTES = LARGE
"""Of a body: what is larger is decoded, and looked through for secrets, on another thread."""
OUT_OF_THE_ORDINARY = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers that only the ordinary way heeds."""
JSON = [(b"content-type", b"application/json")]
OF_THE_DATABASE = re.compile(r"/(?:api/(?!login)|ws|datasette)")
"""What cannot be answered without the database."""

Respond = Callable[[int, list[tuple[bytes, bytes]], bytes, bool], None]
"""Writes a whole response: status, headers, body, and whether the connection stays."""


def entry(log: str, session_id: str, headers: Headers, body: bytes) -> Draft:
    """What is to be stored of an entry of a log (`action` or `response`). Raises Problem."""
    check_media_type(headers, "application/json")
    return entry_draft(log, session_id, object_in(body), headers)


def logged(appended: Appended) -> bytes:
    """The body of the answer to it."""
    event = appended.event
    return f'{{"success":true,"seq":{event.seq},"cursor":{event.cursor},"eventId":"{event.event_id}"}}'.encode()


class Door:
    """Takes the requests that are hot, has their entries stored, and answers them."""

    def __init__(self, gate: Gate, store: Store) -> None:
        self.gate = gate
        self.store = store
        self.max_bytes = min(MAX_BYTES, store.settings.max_event_bytes)

    def call(self, url: bytes, scope: Scope, respond: Respond) -> Call | None:
        """The request whose headers `scope` has, a POST; None: it is not hot, and goes the ordinary way, as does that
        of a stranger, whose body nobody waits for."""
        if not (hot := HOT.fullmatch(url)) or not is_id(session_id := hot[1].decode()):
            return None
        headers: Headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > self.max_bytes or not headers.keys().isdisjoint(OUT_OF_THE_ORDINARY):
            return None
        client = scope.get("client") or ("",)
        asked = Asked("POST", url.decode(), scope["headers"], headers, client[0], scope["scheme"])
        if (body := self.gate.expected(asked, int(length))) is None:
            return None
        return Call(self, asked, "response" if hot[2] else "action", session_id, respond, body)

    def take(self, call: Call) -> None:
        """Have it stored, and answered once it is. Raises Problem."""
        store = self.store
        caller = self.gate.admit(call.asked)
        if store.finding:
            raise unsound(store)
        draft = entry(call.log, call.session_id, call.asked.headers, call.body)
        draft.by = caller.token
        store.writer.put(Job(Append(draft), (draft,), call, len(call.body)))


class Call:
    """One entry on its way into a log.

    To uvicorn's protocol it is the cycle of a request and its response, so that pipelining, keep-alive and
    the end of the server go on as ever; to the writer it is whom to answer.
    """

    message_event = asyncio.Event()
    """Set by uvicorn for an app that waits for the body; here nobody does."""
    response_started = False

    def __init__(self, door: Door, asked: Asked, log: str, session_id: str, respond: Respond, expected: Body) -> None:
        self.door = door
        self.asked = asked
        self.log = log
        self.session_id = session_id
        self.respond = respond
        self.expected = expected
        """Counted from the beginning, as if all of it were here."""
        self.body = b""
        self.more_body = True
        self.response_complete = False
        self.keep_alive = True
        self.disconnected = False

    def begin(self) -> None:
        """The whole request is here."""
        self.expected.let_go()
        try:
            self.door.take(self)
        except Problem as problem:
            self.set_exception(problem)
        except Exception:
            log.exception("A fault while an entry was taken")
            self.set_exception(fault())

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.disconnected

    def set_result(self, appended: Appended) -> None:
        self.answer(200, JSON, logged(appended))

    def set_exception(self, problem: Problem) -> None:
        self.answer(problem.status, problem_headers(problem), problem.body())

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.response_complete = True
        self.respond(status, headers, body, self.keep_alive)


class Sound:
    """ASGI: lets nobody to a database that is not sound."""

    def __init__(self, app: ASGI, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.store.finding and scope["type"] != "lifespan" and OF_THE_DATABASE.match(scope["path"]):
            await refuse(unsound(self.store), scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Heads:
    """ASGI: answers HEAD as GET, but for the body; RFC 9110, section 9.3.2."""

    def __init__(self, app: ASGI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD":
            await self.app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        is_over = False

        async def send_head(message: Message) -> None:
            """The answer is over with its head: a stream is then told that nobody is there."""
            nonlocal is_over
            if not is_over:
                await send(message)
            if not is_over and message["type"] == "http.response.start":
                is_over = True
                await send({"type": "http.response.body"})

        try:
            await self.app(as_get, receive, send_head)
        finally:
            scope.update({name: as_get[name] for name in ("path_template", "path_params") if name in as_get})


def unsound(store: Store) -> Problem:
    assert store.finding is not None
    return unavailable(store.finding.detail, retry_after=30)
