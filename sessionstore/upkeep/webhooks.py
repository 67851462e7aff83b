"""Telling targets: webhooks, in the way of Standard Webhooks (https://www.standardwebhooks.com), and messengers.

A target, on a thread of its own, is told in order, each notice until it is
taken; it never holds up the store or another target. One that has quiet hours,
or is told at most once in so long a time, has what came meanwhile in one digest.
How far it has been told, and what it is told later, is in a file beside the
database: after whatever end, telling goes on there, so that a notice may come
twice, under the same `webhook-id`, and none is left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from export.layout import open_reader
from sessionstore import __version__
from sessionstore.log import faults
from sessionstore.messengers import messenger_of, send
from sessionstore.model.events import now
from sessionstore.settings import Settings
from sessionstore.upkeep.messages import MOST_ITEMS, NoticeText, message
from sessionstore.upkeep.notices import Notice, Watch
from sessionstore.upkeep.positions import FILE, Position, Positions
from sessionstore.webhook_targets import Target

logger = logging.getLogger(__name__)

PAUSE = 0.25
"""Seconds from one look at the database to the next, however much comes."""
LOOK_SECONDS = 5.0
"""How often it is looked at the least, though nothing has come: for sessions that are quiet."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 300.0
LONGEST_RETRY_AFTER = 3600.0
STOP_SECONDS = 1.0
REFUSED = (400, 413, 415, 422)
"""What is wrong is in the notice: it would be refused again and again, and keep all others waiting."""


# ----------------------------------------------------------------------- requests


def signature(key: bytes, name: str, seconds: int, body: bytes) -> str:
    signed = b".".join((name.encode(), str(seconds).encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


class Reply(NamedTuple):
    status: int
    retry_after: float | None = None


def post(target: Target, name: str, body: bytes) -> Reply:
    """One attempt; redirects are not followed. Raises OSError, http.client.HTTPException."""
    parts = urlsplit(target.address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=target.timeout_seconds)
    with ended_after(connection, target.timeout_seconds):
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        connection.request("POST", path, body, headers_for(target, name, body))
        response = connection.getresponse()
        return Reply(response.status, seconds_in(response.getheader("retry-after")))


@contextmanager
def ended_after(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """However slowly its other end goes on, it is closed then; and at the end of the block."""
    limit = threading.Timer(seconds, cut_off, [connection])
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()
        connection.close()


def cut_off(connection: http.client.HTTPConnection) -> None:
    """One who answers a letter at a time would never be done."""
    with suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def headers_for(target: Target, name: str, body: bytes) -> dict[str, str]:
    seconds = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": f"session-store/{__version__}",
        "webhook-id": name,
        "webhook-timestamp": str(seconds),
    }
    if target.key is not None:
        headers["webhook-signature"] = signature(target.key, name, seconds, body)
    parts = urlsplit(target.address)
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return headers


def seconds_in(text: str | None) -> float | None:
    return min(float(text), LONGEST_RETRY_AFTER) if text and text.isascii() and text.isdigit() else None


# ---------------------------------------------------------------------- deliveries


class WebhookSender:
    """Tells one target, from `start` to `stop`."""

    def __init__(self, target: Target, settings: Settings, positions: Positions) -> None:
        self.target = target
        self.settings = settings
        self.positions = positions
        self.watch = Watch(target)
        self.messenger = messenger_of(target.apprise) if target.apprise else None
        self.position = Position(0)
        self.head = 0
        self.pending = 0
        """Turns that are in the database, and of which it has not been told."""
        self.results: Counter[str] = Counter({"delivered": 0, "failed": 0, "refused": 0})
        self.failures = 0
        """Attempts that failed since the last one that did not."""
        self.last_delivery: str | None = None
        self.error: str | None = None
        self.next_release = 0.0
        """By time.monotonic: after a failure what is held waits, too."""
        self.awake = threading.Event()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name=f"webhook {target.title}", daemon=True)

    # ------------------------------------------------------------ seen from outside

    @property
    def held(self) -> int:
        """How much it is told later."""
        return len(self.position.held) + self.position.more

    def start(self, head: int) -> None:
        """A new target is told of what comes from now on."""
        self.head = head
        known = self.positions.known.get(self.target.title)
        self.position = known or Position(head)
        self.position.cursor = min(self.position.cursor, head)
        if known is None:
            self.keep()
        self.awake.set()
        self.thread.start()

    def wake(self, head: int) -> None:
        self.head = head
        if not self.awake.is_set():
            self.awake.set()

    def stop(self) -> None:
        self.stopping.set()
        self.awake.set()

    # ------------------------------------------------------------- on the thread

    def run(self) -> None:
        while not self.stopping.is_set():
            self.awake.wait(min(LOOK_SECONDS, self.watch.patience, self.held_for()))
            self.awake.clear()
            try:
                self.look()
            except Exception as error:  # the next look is taken, whatever it was
                faults["webhooks"] += 1
                self.next_release = time.monotonic() + LOOK_SECONDS
                is_expected = isinstance(error, sqlite3.Error | OSError)
                said = "Webhook %s: what it is to be told cannot be made out: %s"
                logger.warning(said, self.target.title, error, exc_info=not is_expected)
            self.stopping.wait(PAUSE)

    def look(self) -> None:
        """Tell what there is to tell. No connection is open while somebody is waited for."""
        head = self.head
        while not self.stopping.is_set():
            with closing(open_reader(self.settings.database)) as database:
                notices, until = self.watch.after(database, self.position.cursor, head)
                quiet = self.watch.quiet(database, time.time()) if until == head else []
                self.pending = self.watch.pending(database, self.position.cursor)
            if not self.tell_all(notices):
                return
            self.position.cursor = until
            if until == head:
                self.tell_quiet(quiet)
                self.tell_ended()
                self.release()
                return

    def tell_all(self, notices: list[Notice]) -> bool:
        if self.target.holds and notices:
            self.position.hold(notices)
            self.position.cursor = notices[-1].cursor
            self.pending = max(0, self.pending - len(notices))
            self.keep()
            return True
        for number, notice in enumerate(notices):
            if not self.tell(notice):
                return False
            if number + 1 == len(notices) or notices[number + 1].cursor > notice.cursor:
                self.position.cursor = notice.cursor
                self.keep()
            self.pending = max(0, self.pending - 1)
        return True

    def tell_quiet(self, quiet: list[Notice]) -> None:
        known = self.position.quiet
        self.position.quiet = {
            notice.session_id: notice.cursor for notice in quiet if known.get(notice.session_id) == notice.cursor
        }
        for notice in quiet:
            if notice.session_id not in self.position.quiet and self.tell(notice):
                self.position.quiet[notice.session_id] = notice.cursor
                self.keep()

    def tell_ended(self) -> None:
        """What became of the asks of which it was told."""
        if not self.watch.hears_of_answers or not self.position.asks:
            return
        with closing(open_reader(self.settings.database)) as database:
            notices, still_open = self.watch.ended(database, self.position.asks)
        for notice in notices:
            if not self.tell(notice):
                return
            self.position.asks = [ask for ask in self.position.asks if ask != notice.ask]
            self.keep()
        self.position.asks = still_open

    def tell(self, notice: Notice) -> bool:
        """Until it is taken, refused for good, or held; False: the server ends first."""
        if self.target.holds:
            self.position.hold([notice])
            return True
        told = message([notice], 0, self.target, self.settings.public_url)
        while not self.stopping.is_set():
            reply = self.attempt(told)
            if self.is_done(reply, [notice]):
                return True
            self.stopping.wait(self.pause(reply))
        return False

    def is_done(self, reply: Reply | None, notices: list[Notice]) -> bool:
        """Whether it has taken what it was told, or never will."""
        if reply and 200 <= reply.status < 300:
            self.note("delivered", None)
            self.last_delivery = now()
            self.position.told(notices)
            return True
        if reply and reply.status in REFUSED:
            self.note("refused", f"it refuses a notice with {reply.status}")
            return True
        return False

    # -------------------------------------------------------- what is told later

    def ready(self) -> list[Notice]:
        """What is held, and may be told at this time of day."""
        is_quiet = self.target.is_quiet(time.time())
        return [one for one in self.position.held if not is_quiet or one.occasion in self.target.urgent]

    def held_for(self) -> float:
        """Seconds until what is ready may be told."""
        if not self.ready():
            return float("inf")
        since = time.time() - self.position.told_at
        waits = self.target.at_most_seconds - since if since >= 0 else 0.0  # the clock was set back
        return max(0.0, waits, self.next_release - time.monotonic())

    def release(self) -> None:
        """Tell it as it stands now, all at once."""
        if self.held_for() > 0:
            return
        ready = self.ready() if self.messenger else self.ready()[:MOST_ITEMS]
        more = 0 if self.target.is_quiet(time.time()) else self.position.more
        with closing(open_reader(self.settings.database)) as database:
            notices = self.watch.as_it_stands(database, ready)
        if notices or more:
            told = message(notices, more, self.target, self.settings.public_url)
            reply = self.attempt(told)
            if not self.is_done(reply, notices[: told.shown]):
                self.next_release = time.monotonic() + self.pause(reply)
                return
            self.position.told_at = time.time()
        self.position.held = [one for one in self.position.held if one not in ready]
        self.position.more -= more
        self.keep()

    def keep(self) -> None:
        self.positions.keep(self.target.title, self.position)

    # ----------------------------------------------------------------- attempts

    def attempt(self, told: NoticeText) -> Reply | None:
        try:
            reply = self.post(told)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self.note("failed", f"it cannot be reached: {type(error).__name__}: {error}")
            return None
        if not 200 <= reply.status < 300 and reply.status not in REFUSED:
            self.note("failed", f"it answers {reply.status}")
        return reply

    def post(self, told: NoticeText) -> Reply:
        if self.messenger is None:
            return post(self.target, told.name, told.body.encode())
        return Reply(send(self.messenger, told.title, told.body, self.target.timeout_seconds))

    def note(self, result: str, error: str | None) -> None:
        self.results[result] += 1
        self.failures = self.failures + 1 if result == "failed" else 0
        if error != self.error and error:
            logger.warning("Webhook %s at %s: %s", self.target.title, self.target.place, error)
        self.error = error

    def pause(self, reply: Reply | None) -> float:
        if reply and reply.retry_after is not None:
            return reply.retry_after
        return random.uniform(0.5, 1.0) * float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self.failures, 12)))


class Webhooks:
    """All targets."""

    def __init__(self, settings: Settings) -> None:
        self.positions = Positions(settings.directory / FILE)
        self.all = [WebhookSender(target, settings, self.positions) for target in settings.webhooks]

    @property
    def status(self) -> str:
        """`off`, `ok`, or `failing` where a target does not take what it is told."""
        if not self.all:
            return "off"
        return "failing" if any(webhook.failures for webhook in self.all) else "ok"

    @property
    def pending(self) -> int:
        return sum(webhook.pending for webhook in self.all)

    def start(self, head: int) -> None:
        if self.all:
            self.positions.read()
        for webhook in self.all:
            webhook.start(head)

    def wake(self, head: int) -> None:
        for webhook in self.all:
            webhook.wake(head)

    def stop(self) -> None:
        """An attempt under way is not waited for: it is made again after the next start."""
        for webhook in self.all:
            webhook.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for webhook in self.all:
            if webhook.thread.is_alive():
                webhook.thread.join(max(0.0, deadline - time.monotonic()))
