"""Push subscriptions: which browsers hear of open asks and of failures, in batches, and when nothing is open any more.

What a browser shows of asks is told as a whole each time: a message that is lost, or comes late, is mended by the next.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Annotated, NamedTuple
from urllib.parse import quote

import msgspec

from export.layout import open_reader
from sessionstore.log import faults
from sessionstore.model.folds import Document, decode, encode
from sessionstore.model.problems import Problem
from sessionstore.model.rights import Bounds
from sessionstore.secret_files import write_secret
from sessionstore.settings import Settings
from sessionstore.store import control
from sessionstore.store.rights import owner_of
from sessionstore.text import for_people, shortened
from sessionstore.upkeep.notices import AT_ONCE as AT_MOST
from sessionstore.upkeep.notices import TURNS, Notice, turn_notice
from sessionstore.upkeep.push_service import PushService, ServerKey, endpoint_in

logger = logging.getLogger(__name__)

FILE = ".push.json"
"""Beside the database, as log-ins are: a copy of that hears nothing."""
KEY_FILE = ".push-key.pem"
SECONDS = 30 * 86_400
"""A subscription lasts; whenever the page is opened it begins anew."""
MOST = 1000
MOST_OF_ONE = 20
"""Of one actor: beyond, the oldest ends."""
PAUSE = 2.0
"""Seconds for which what comes together is gathered."""
NEWS_SECONDS = 60.0
"""From one message with something new to the next, for one browser."""
FEWER_SECONDS = 10.0
"""From one message to another that only takes away what is not open any more."""
LOOK_SECONDS = 5.0
LONGEST_PAUSE = 3600.0
AT_ONCE = 4
"""Messages under way; a service that is slow keeps no other waiting for long."""
GONE = (404, 410)
LINES = 3
SHORTENED = (160, 80, 40)
"""Characters of a line: the most with which a message is not too long."""
MAX_BYTES = 3900
"""Of a message: a push service takes 4,096, encrypted."""
MAX_OPEN = 200
"""Open asks, the newest, of which a browser is told."""

OPEN = f"SELECT cursor, session_id FROM asks WHERE reason <> 'input' ORDER BY cursor DESC LIMIT {MAX_OPEN}"
SHOWN = control.asks(
    f"{control.DOCUMENT} AS document, a.cursor", "a.cursor IN (SELECT value FROM json_each(?))", of=["open"]
)
TITLE = "SELECT document ->> '$.title' FROM documents WHERE session_id = ? AND name = 'metadata'"
FAILED = encode(["failed", "lost"])


class Subscription(msgspec.Struct, rename="camel", kw_only=True):
    """One browser, and by whose right it hears. Times are seconds since 1970."""

    endpoint: Annotated[str, msgspec.Meta(max_length=1024)]
    p256dh: str
    auth: str
    actor: str | None
    """None: nobody needed a token."""
    token: str = ""
    """The digest of the token, in hexadecimal; empty for one whom a proxy names."""
    login: str | None = None
    """SHA-256 of the cookie of the log-in."""
    ends: int
    told: list[int] = []
    """Cursors of the asks that it shows."""
    cursor: int
    """Up to which it knows what has failed."""

    @property
    def subscription_id(self) -> str:
        return hashlib.sha256(self.endpoint.encode()).hexdigest()[:32]


class PushState(msgspec.Struct):
    """How it stands with a browser since the server started; moments are of time.monotonic()."""

    is_busy: bool = False
    news_at: float = 0.0
    fewer_at: float = 0.0
    failures: int = 0


class PushMessage(NamedTuple):
    """What a browser is told, and what it knows then."""

    body: bytes
    topic: str | None
    is_new: bool
    told: list[int]
    cursor: int


# -------------------------------------------------------------------------- words


def line(text: object, most: int) -> str:
    return shortened(for_people(str(text), is_one_line=True), most)


def named(database: sqlite3.Connection, session_id: str, user_id: str | None) -> str:
    """A session as people know it."""
    row = database.execute(TITLE, (session_id,)).fetchone()
    title = row[0] if row and isinstance(row[0], str) else ""
    return line(title or f"{session_id[:12]} {user_id or ''}", 60)


def asked_in_words(database: sqlite3.Connection, ask: Document, most: int) -> str:
    """Who asks, and for what."""
    given = ask["input"] if isinstance(ask["input"], dict) else {}
    what = next((given[name] for name in ("command", "file_path", "url") if isinstance(given.get(name), str)), "")
    said = f"{ask['tool']}: {what}" if ask["tool"] and what else ask["text"] or ask["tool"] or "asks"
    return f"{named(database, ask['sessionId'], ask['userId'])}: {line(said, most)}"


def asks_in_words(database: sqlite3.Connection, cursors: list[int], most: int) -> Document:
    """What a browser shows of what is open; `n` is 0 where it is to take that away."""
    if not cursors:
        return {"n": 0}
    rows = database.execute(SHOWN, (encode(sorted(cursors)[-LINES:]),)).fetchall()
    asks = [decode(document) for document, _ in rows]
    hash = f"#/?ask={quote(asks[0]['askId'], safe='')}" if len(cursors) == len(asks) == 1 else "#/"
    title = "An agent asks" if len(cursors) == 1 else f"{len(cursors)} agents ask"
    lines = [asked_in_words(database, ask, most) for ask in asks]
    return {"n": len(cursors), "title": title, "body": "\n".join(lines), "hash": hash}


def failures_in_words(database: sqlite3.Connection, notices: list[Notice], most: int) -> Document:
    said = [f"{named(database, one.session_id, one.user_id)}: {line(one.message, most)}" for one in notices[-LINES:]]
    title = "An agent has failed" if len(notices) == 1 else f"{len(notices)} agents have failed"
    hash = f"#/session/{quote(notices[0].session_id, safe='')}" if len(notices) == 1 else "#/"
    return {"n": len(notices), "title": title, "body": "\n".join(said), "hash": hash}


def message_in_words(
    database: sqlite3.Connection, own: list[int], told: list[int], failed: list[Notice], most: int
) -> bytes:
    """JSON as dashboard/sw.js reads it. `own`: what is open; `told`: what the browser shows."""
    said: Document = {"isSilent": not {*own} - {*told}}
    if {*own} != {*told}:
        said["asks"] = asks_in_words(database, own, most)
    if failed:
        said["failures"] = failures_in_words(database, failed, most)
    return msgspec.json.encode(said)


# ------------------------------------------------------------------ subscriptions


class PushBook:
    """Those that last, also over a restart."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.directory / FILE
        self.lock = threading.Lock()
        self.all: dict[str, Subscription] = {}

    def read(self) -> None:
        """What cannot be read hears nothing: the page subscribes anew when it is opened."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=list[Subscription])
        except (OSError, msgspec.MsgspecError, UnicodeError):
            found = []
        self.all = {one.subscription_id: one for one in found}

    def add(self, subscription: Subscription) -> str:
        """Its id. Raises Problem 409, 503."""
        with self.lock:
            before = self.all.get(subscription.subscription_id)
            if before is not None and before.actor == subscription.actor:
                subscription.told, subscription.cursor = before.told, before.cursor
            own = [one for one in self.all.values() if one.actor == subscription.actor and one is not before]
            others = {one.subscription_id for one in own[: max(0, len(own) + 1 - MOST_OF_ONE)]}
            kept = {name: one for name, one in self.all.items() if name not in others and one is not before}
            kept[subscription.subscription_id] = subscription
            if len(kept) > MOST:
                raise Problem(409, f"{MOST:,} browsers are told already")
            self.keep(kept)
            return subscription.subscription_id

    def end(self, subscription_id: str, actor: str | None) -> bool:
        """Whether this actor had it. Raises Problem 503."""
        with self.lock:
            found = self.all.get(subscription_id)
            if found is None or found.actor != actor:
                return False
            self.keep({name: one for name, one in self.all.items() if one is not found})
            return True

    def keep(self, kept: dict[str, Subscription]) -> None:
        """Raises Problem 503, and then leaves all as it was."""
        try:
            write_secret(self.path, msgspec.json.encode([*kept.values()]))
        except OSError as error:
            raise Problem(503, f"Subscriptions cannot be kept: {error.strerror}") from None
        self.all = kept

    def note(self, subscription: Subscription, told: list[int], cursor: int) -> None:
        """What it has been told. Where that cannot be kept, it may be told once more after a restart."""
        with self.lock:
            if (now := self.all.get(subscription.subscription_id)) is not None:
                now.told, now.cursor = told, cursor
                self.keep(self.all)


# ------------------------------------------------------------------------- telling


class Push:
    """Tells every browser that has subscribed, from `start` to `stop`, on threads of its own."""

    def __init__(self, settings: Settings, service: PushService | None = None) -> None:
        self.settings = settings
        self.key = ServerKey(settings.directory / KEY_FILE)
        self.service = service or PushService(self.key, settings.public_url)
        self.book = PushBook(settings)
        self.bounds_of: Callable[[Subscription], Bounds | None] = lambda _: None
        """What a browser may hear of; None: its right has ended. The web wing knows."""
        self.states: dict[str, PushState] = {}
        self.head = 0
        self.awake = threading.Event()
        self.stopping = threading.Event()
        self.slots = threading.BoundedSemaphore(AT_ONCE)
        self.thread: threading.Thread | None = None

    def start(self, head: int) -> None:
        self.head = head
        self.book.read()
        for subscription in self.book.all.values():
            subscription.cursor = min(subscription.cursor, head)  # the database may be an older one, restored
        if self.book.all:
            self.begin()

    def begin(self) -> None:
        """The thread is there when somebody listens."""
        if self.thread is None and not self.stopping.is_set():
            self.thread = threading.Thread(target=self.run, name="push", daemon=True)
            self.thread.start()
        self.awake.set()

    def wake(self, head: int) -> None:
        self.head = head
        if self.book.all and not self.awake.is_set():
            self.awake.set()

    def stop(self) -> None:
        """A message under way is not waited for: it is sent again after the next start."""
        self.stopping.set()
        self.awake.set()
        if self.thread is not None:
            self.thread.join(1.0)

    # ---- on the thread

    def run(self) -> None:
        while not self.stopping.is_set():
            self.awake.wait(LOOK_SECONDS if self.book.all else None)
            self.awake.clear()
            try:
                self.look()
            except Exception as error:  # the next look is another
                faults["push"] += 1
                logger.warning("What browsers are to be told cannot be made out: %s", error)
            self.stopping.wait(PAUSE)

    def look(self) -> None:
        """Tell what there is to tell. Nobody is waited for while the database is open."""
        with closing(open_reader(self.settings.database)) as database:
            found = [*self.messages(database, self.head)]
        for subscription, state, message in found:
            self.send(subscription, state, message)

    def messages(
        self, database: sqlite3.Connection, head: int
    ) -> Iterator[tuple[Subscription, PushState, PushMessage]]:
        opened = database.execute(OPEN).fetchall()
        self.states = {name: state for name, state in self.states.items() if name in self.book.all}
        for name, subscription in [*self.book.all.items()]:
            bounds = self.bounds_of(subscription) if subscription.ends > time.time() else None
            if bounds is None:
                self.end(subscription, "its right has ended")
                continue
            state = self.states.setdefault(name, PushState())
            own = [cursor for cursor, session in opened if is_heard(database, bounds, session)]
            if message := self.message_for(database, subscription, state, own, bounds, head):
                yield subscription, state, message

    def message_for(
        self,
        database: sqlite3.Connection,
        subscription: Subscription,
        state: PushState,
        own: list[int],
        bounds: Bounds,
        head: int,
    ) -> PushMessage | None:
        """What there is to tell it now. `own`: what is open, and it may hear of."""
        moment = time.monotonic()
        if state.is_busy or moment < state.fewer_at:
            return None
        failed, until = failures_after(database, subscription.cursor, head, bounds)
        if not failed:
            subscription.cursor = until
        is_new = bool(failed) or not {*own} <= {*subscription.told}
        if is_new and moment < state.news_at:
            own, failed, until = [one for one in own if one in subscription.told], [], subscription.cursor
            is_new = False
        if not is_new and {*own} == {*subscription.told}:
            return None
        bodies = (message_in_words(database, own, subscription.told, failed, most) for most in SHORTENED)
        body = next(body for body in bodies if len(body) <= MAX_BYTES)
        return PushMessage(body, None if failed else "asks", is_new, own, until)

    def send(self, subscription: Subscription, state: PushState, message: PushMessage) -> None:
        while not self.slots.acquire(timeout=0.5):
            if self.stopping.is_set():
                return
        state.is_busy = True
        threading.Thread(target=self.deliver, args=(subscription, state, message), daemon=True).start()

    def deliver(self, subscription: Subscription, state: PushState, message: PushMessage) -> None:
        """One attempt: where it fails, what there is to tell is made out anew later."""
        try:
            self.attempt(subscription, state, message)
        except Exception as error:
            self.rest(subscription, state, f"{type(error).__name__}: {error}")
        finally:
            state.is_busy = False
            self.slots.release()

    def attempt(self, subscription: Subscription, state: PushState, message: PushMessage) -> None:
        urgency = "high" if message.is_new else "normal"
        keys = subscription.p256dh, subscription.auth
        status = self.service.push(subscription.endpoint, *keys, message.body, message.topic, urgency)
        if status in GONE:
            self.end(subscription, "the push service does not know it any more")
        elif 200 <= status < 300:
            state.failures = 0
            state.fewer_at = time.monotonic() + FEWER_SECONDS
            if message.is_new:
                state.news_at = time.monotonic() + NEWS_SECONDS
            self.book.note(subscription, message.told, message.cursor)
        else:
            self.rest(subscription, state, f"it answers {status}")

    def rest(self, subscription: Subscription, state: PushState, why: str) -> None:
        """Nothing for a while, and longer each time."""
        state.failures += 1
        state.fewer_at = time.monotonic() + min(LONGEST_PAUSE, NEWS_SECONDS * 2 ** min(state.failures - 1, 8))
        faults["push"] += 1
        logger.warning("A browser cannot be told by %s: %s", endpoint_in(subscription.endpoint).host, why)

    def end(self, subscription: Subscription, why: str) -> None:
        logger.info("A browser of %s is not told any more: %s", subscription.actor or "somebody", why)
        with suppress(Problem):  # it is tried again with the next look
            self.book.end(subscription.subscription_id, subscription.actor)


def is_heard(database: sqlite3.Connection, bounds: Bounds, session_id: str) -> bool:
    if not bounds:
        return True
    owner = owner_of(database, session_id)
    return owner is not None and bounds.hold(session_id, *owner)


def failures_after(database: sqlite3.Connection, cursor: int, head: int, bounds: Bounds) -> tuple[list[Notice], int]:
    """Of what has failed since, or was lost, what it may hear of; and up to where."""
    rows = database.execute(TURNS, (cursor, FAILED)).fetchall()
    notices = [turn_notice(row) for row in rows if is_heard(database, bounds, row[1])]
    return notices, rows[-1][0] if len(rows) == AT_MOST else max(cursor, head, *(row[0] for row in rows))
