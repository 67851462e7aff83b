"""The ASGI fast path: what agents send most, small batches and single entries, answered before the framework.

The way through the framework costs more than storing does. What comes the plain way (of a known length, not large, of
somebody known, from no page of another origin) is answered here; all else goes to the ordinary handlers of api.py,
which are built of the same functions. Tests hold the two against each other.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from sessionstore.adapters import claude_code
from sessionstore.appliance import Store
from sessionstore.model import lines as batches
from sessionstore.model.drafts import Headers, claim_title, entry_draft, object_in
from sessionstore.model.events import Draft, is_id
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem, fault
from sessionstore.store.appender import Appended, Appender
from sessionstore.store.turns import WHO
from sessionstore.store.writer import LARGE, Append
from sessionstore.web.asgi import ASGI, Receive, Scope, Send, answer, answered_whole, problem_headers
from sessionstore.web.bodies import BodyUnderWay
from sessionstore.web.gate import Asked, Caller, Gate, asked_in
from sessionstore.web.health import unsound
from sessionstore.web.request import check_media_type, read_body
from sessionstore.web.request_metrics import Traffic

logger = logging.getLogger(__name__)

HOT = re.compile(r"/api/(?:events|actions/([A-Za-z0-9._-]+)(/responses)?)")
ROUTES = {
    "batch": "/api/events",
    "action": "/api/actions/{session_id}",
    "response": "/api/actions/{session_id}/responses",
}
MAX_LINES = 500
"""Of a batch. More, or a body of more than LARGE bytes, is read on another thread, so that it holds nobody up."""
MOST_SECONDS = 8.0
"""Of the processor, for the lines of one batch: they are one transaction, and all others who write wait for it. The
50,000 that it may have take one to three."""
UNUSUAL = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers that only the ordinary way heeds."""
NDJSON = "application/x-ndjson"
JSON = [(b"content-type", b"application/json")]


def entry(log: str, session_id: str, headers: Headers, body: bytes) -> Draft:
    """What is to be stored of an entry of a log (`action` or `response`). Raises Problem."""
    check_media_type(headers, "application/json")
    return entry_draft(log, session_id, object_in(body), headers)


def logged(appended: Appended) -> bytes:
    """The body of the answer to it."""
    event = appended.event
    return f'{{"success":true,"seq":{event.seq},"cursor":{event.cursor},"eventId":"{event.event_id}"}}'.encode()


async def stored_batch(body: bytes, caller: Caller, store: Store) -> bytes:
    """Store the lines of a batch; the answer, once all is on disk. Raises Problem."""
    return msgspec.json.encode(await stored_lines(body, caller, store))


async def stored_lines(body: bytes, caller: Caller, store: Store) -> Document:
    """The members of the same."""
    is_small = batches.lines_of_batch(body) <= MAX_LINES and len(body) <= LARGE
    work, found = (
        batch_in(body, caller, store) if is_small else await store.writer.beside(batch_in, body, caller, store)
    )
    members: Document = await store.writer.submit_in_turn(work, found, len(body))
    return members


def batch_in(body: bytes, caller: Caller, store: Store) -> tuple[BatchWork, list[Draft]]:
    """What is to be stored of a batch, without secrets. Raises Problem."""
    bounds = claude_code.Limits(store.settings.max_event_bytes, store.writer.redactor.data)
    lines = batches.drafts_of_batch(
        body,
        max_event_bytes=bounds.max_event_bytes,
        is_admin=caller.role == "admin",
        redacted=bounds.redacted,
        hook=partial(claude_code.drafts_of_line, bounds=bounds),
    )
    found = [draft for _, those in lines.drafts for draft in those]
    for draft in found:
        caller.sign(draft)
        claim_title(draft, "caller", "person" if caller.role == "admin" else "caller")
        store.writer.redactor(draft)
    return BatchWork(lines), found


class BatchWork:
    """Work for the writer: the lines of one batch, each for itself. A line is a duplicate if it says nothing new."""

    def __init__(self, lines: batches.EventLines) -> None:
        self.lines = lines

    def __call__(self, appender: Appender) -> Document:
        accepted = duplicates = 0
        refused = batches.Rejections()
        until = time.thread_time() + MOST_SECONDS
        for number, drafts_of_line in self.lines.drafts:
            try:
                check_time(drafts_of_line, until)
                if sum(not appender.append(draft).duplicate for draft in drafts_of_line):
                    accepted += 1
                else:
                    duplicates += 1
            except Problem as problem:
                refused.note(number, problem)
        unread = self.lines.rejections
        for status, number in unread.statuses.items():
            appender.untold[f"{status}"] += number
        return {
            "success": True,
            "accepted": accepted,
            "duplicates": duplicates,
            "rejected": unread.and_of(refused),
            "rejectedTotal": unread.statuses.total() + refused.statuses.total(),
            "cursor": appender.cursor,
        }


def check_time(drafts: Sequence[Draft], until: float) -> None:
    """Raises Problem 429 for a line of a batch that has taken too long by now; what was stored once already is not put
    off."""
    if time.thread_time() > until and not any(draft.received_at for draft in drafts):
        detail = "The lines before it took as long as a batch may: the same again is taken later"
        raise Problem(429, detail, headers={"retry-after": "1"})


def is_put_off(said: Document) -> bool:
    """Whether a line of a batch was not taken yet, by the members of the answer."""
    return any(line.status == 429 for line in said["rejected"])


async def stored_at_last(body: bytes, caller: Caller, store: Store) -> Document:
    """As `stored_lines`, for who can wait: of what is too much in one second, the rest comes in the next."""
    accepted = 0
    while is_put_off(said := await stored_lines(body, caller, store)):
        accepted += said["accepted"]
        await asyncio.sleep(1.0)
    return said | {"accepted": accepted + said["accepted"]}


class HotRequest(NamedTuple):
    """A request that the fast path answers."""

    begun: float
    """By time.perf_counter."""
    kind: Literal["batch", "action", "response"]
    session_id: str | None
    asked: Asked
    size: int
    """The bytes of its body."""
    expected: BodyUnderWay
    """Counted from the beginning, as if all of it were here."""


class FastPath:
    """ASGI: answers what is hot, and passes on everything else."""

    def __init__(self, app: ASGI, gate: Gate, store: Store, traffic: Traffic) -> None:
        self.app = app
        self.gate = gate
        self.store = store
        self.traffic = traffic
        self.max_bytes = min(LARGE, store.settings.max_event_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (taken := self.take(scope)) is None:
            await self.app(scope, receive, send)
            return
        try:
            body = await read_body(receive, taken.size)
            taken.expected.let_go()
            caller = scope["state"]["caller"] = self.gate.admit(taken.asked)
            said = await self.keep(taken, body, caller)
            status, headers = 200, JSON
        except Exception as error:
            problem = error if isinstance(error, Problem) else fault()
            if problem is not error:
                logger.exception("%s failed", scope["path"])
            status, headers, said = problem.status, problem_headers(problem), problem.body()
        finally:
            taken.expected.let_go()
        seconds = time.perf_counter() - taken.begun
        if status != 200 or not answered_whole(scope, headers, said):
            await answer(send, status, headers, said)
        scope["path_template"], scope["path_params"] = ROUTES[taken.kind], {"session_id": taken.session_id}
        self.traffic.note(scope, status, seconds, len(said))

    def take(self, scope: Scope) -> HotRequest | None:
        """None: it is not hot, and goes the ordinary way, as does that of a stranger, whose body nobody waits for."""
        hot = HOT.fullmatch(scope["path"]) if scope.get("method") == "POST" and not scope["query_string"] else None
        if hot is None or (hot[1] and not is_id(hot[1])):
            return None
        asked = asked_in(scope)
        length = asked.headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > self.max_bytes or not asked.headers.keys().isdisjoint(UNUSUAL):
            return None
        if (expected := self.gate.expected(asked, int(length))) is None:
            return None
        kind: Literal["batch", "action", "response"] = "batch" if not hot[1] else "response" if hot[2] else "action"
        return HotRequest(time.perf_counter(), kind, hot[1], asked, int(length), expected)

    async def keep(self, taken: HotRequest, body: bytes, caller: Caller) -> bytes:
        """Store it; the answer, once all is on disk. Raises Problem."""
        store, headers = self.store, taken.asked.headers
        if store.finding:
            raise unsound(store)
        if taken.kind == "batch" or taken.session_id is None:
            check_media_type(headers, NDJSON)
            WHO.set(taken.expected.who)
            return await stored_batch(body, caller, store)
        draft = entry(taken.kind, taken.session_id, headers, body)
        caller.sign(draft)
        return logged(await store.writer.submit(Append(draft), (draft,), len(body)))
