"""Fan-out over the other appliances of a fleet, with a deadline. Nothing is stored, and nothing is asked unasked.

What a shard answers is a stranger's: so long, so large, of that shape and no other, and no redirect is followed. Each
request has a thread of its own, which is let go at the deadline, so that one that hangs holds up nobody.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from sessionstore import __version__
from sessionstore.model.events import ID_PATTERN, now
from sessionstore.shards import FleetShard
from sessionstore.text import for_people
from sessionstore.upkeep.webhooks import cut_off

LOOK_SECONDS = 1.0
"""What a shard may take for its summary; so long the last ones are new enough, too."""
SEARCH_SECONDS = 1.5
SUMMARY_BYTES, SEARCH_BYTES = 256 << 10, 2 << 20
MOST_UNDER_WAY = 8
"""Requests to one shard at once: one that hangs is not asked any more until it has let some go."""
MOST_WAITING = 200

MOST_MARKED = 1000
"""Characters that a search shows of an event: several times what a store does, in however many pieces."""

Text = Annotated[str, msgspec.Meta(max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Answer = TypeVar("Answer")
Read = Callable[[int, bytes], Answer]
"""Makes something of the status and the body of an answer. Raises Unanswered."""


class WaitingThere(msgspec.Struct, rename="camel"):
    """A session of a shard that waits for a person."""

    session_id: Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    user_id: Text
    since: Text | None = None
    title: Text | None = None
    project: Text | None = None
    reason: Text | None = None
    message: Text | None = None


class ShardSummary(msgspec.Struct, rename="camel"):
    """GET /api/query/summary of a shard."""

    version: Text
    cursor: Count
    sessions: Annotated[dict[Text, Count], msgspec.Meta(max_length=20)]
    events_today: Count
    events_last_minute: Count
    waiting: Annotated[list[WaitingThere], msgspec.Meta(max_length=50)]


class EventThere(msgspec.Struct, rename="camel"):
    """As much of an event as a search has to show."""

    session_id: Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
    cursor: Count
    type: Text
    timestamp: Text
    user_id: Text | None = None


class FoundThere(msgspec.Struct):
    """What a search found."""

    event: EventThere
    marked: Annotated[list[Text], msgspec.Meta(max_length=MOST_MARKED)]

    def __post_init__(self) -> None:
        if sum(map(len, self.marked)) > MOST_MARKED:
            raise ValueError("more text than a store shows")


class SearchThere(msgspec.Struct):
    """GET /api/query/search of a shard."""

    items: Annotated[list[FoundThere], msgspec.Meta(max_length=100)]
    total: Count
    behind: Count = 0


class Unanswered(Exception):
    """A shard did not answer as it should. The message says how, for people."""


# ----------------------------------------------------------------------- one request


class ShardRequest(Generic[Answer]):
    """GET, or HEAD, of one shard, on a thread of its own: `outcome` is what `read` makes of its status and body, or
    an Unanswered."""

    def __init__(self, shard: FleetShard, path: str, most: int, read: Read[Answer], method: str = "GET"):
        self.shard, self.path, self.most, self.read, self.method = shard, path, most, read, method
        self.connection: http.client.HTTPConnection | None = None
        self.outcome: Answer | Unanswered | None = None
        self.seconds = 0.0

    def begin(self, seconds: float, on_end: Callable[[], None]) -> None:
        threading.Thread(target=self.run, args=(seconds, on_end), name=f"fleet {self.shard.name}", daemon=True).start()

    def run(self, seconds: float, on_end: Callable[[], None]) -> None:
        begun = time.monotonic()
        try:
            self.outcome = self.ask(seconds)
        except Unanswered as why:
            self.outcome = why
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            self.outcome = Unanswered(why_not(error))
        finally:
            self.seconds = time.monotonic() - begun
            on_end()

    def ask(self, seconds: float) -> Answer:
        at = urlsplit(self.shard.url)
        self.connection = (
            http.client.HTTPSConnection(at.hostname or "", at.port, timeout=seconds, context=tls())
            if at.scheme == "https"
            else http.client.HTTPConnection(at.hostname or "", at.port, timeout=seconds)
        )
        headers = {"accept": "application/json", "user-agent": f"session-store/{__version__}"}
        if token := self.shard.token:
            headers["authorization"] = f"Bearer {token}"
        try:
            self.connection.request(self.method, at.path + self.path, headers=headers)
            with self.connection.getresponse() as response:
                body = response.read(self.most + 1)
        finally:
            self.connection.close()
        if len(body) > self.most:
            raise Unanswered(f"its answer has more than {self.most} bytes")
        return self.read(response.status, body)

    def give_up(self) -> None:
        """The thread ends soon, whatever it waits for."""
        if self.connection is not None:
            cut_off(self.connection)


@cache
def tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def why_not(error: Exception) -> str:
    if isinstance(error, msgspec.MsgspecError | UnicodeDecodeError | RecursionError):
        return "what it answers is not what a store answers"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror | ConnectionError | ssl.SSLError):
        return f"it cannot be reached: {error.strerror or type(error).__name__}"
    return f"it cannot be asked: {type(error).__name__}: {error}"


def of_shape(shape: type[Answer]) -> Read[Answer]:
    """Reads an answer of 200, and nothing in it but what is known."""
    decoder = msgspec.json.Decoder(shape)

    def read(status: int, body: bytes) -> Answer:
        if status in (401, 403):
            raise Unanswered(f"it answers {status}: is the token in token_file one of its role read?")
        if status != 200:
            raise Unanswered(f"it answers {status}")
        return decoder.decode(body)

    return read


def is_there(status: int, _: bytes) -> bool:
    if status not in (200, 404):
        raise Unanswered(f"it answers {status}")
    return status == 200


SUMMARY, SEARCH = of_shape(ShardSummary), of_shape(SearchThere)

# ------------------------------------------------------------------------- the fleet


class ShardState:
    """A shard, and what it said last."""

    def __init__(self, shard: FleetShard) -> None:
        self.shard = shard
        self.summary: ShardSummary | None = None
        self.seen: str | None = None
        """When it said that."""
        self.trouble: str | None = "not asked yet"
        """Why it did not answer when it was asked last."""
        self.under_way = 0

    def link(self, session_id: str) -> str:
        return f"{self.shard.url}/#/session/{quote(session_id, safe='')}"

    def end_request(self) -> None:
        self.under_way -= 1


class ShardReply(NamedTuple, Generic[Answer]):
    """What one shard said to something that all were asked."""

    member: ShardState
    answer: Answer | None
    trouble: str | None
    seconds: float


class Fleet:
    """All shards. One round of summaries serves everybody who looks."""

    def __init__(self, shards: Iterable[FleetShard]) -> None:
        self.members = [ShardState(shard) for shard in shards]
        self.looking: asyncio.Task[None] | None = None
        self.looked_at = float("-inf")

    @property
    def silent(self) -> list[ShardState]:
        return [member for member in self.members if member.trouble is not None]

    async def refresh(self) -> None:
        """Ask all of them, unless that was done just now."""
        if self.looking is None or (self.looking.done() and time.monotonic() - self.looked_at >= LOOK_SECONDS):
            self.looking = asyncio.create_task(self.look())
        await asyncio.shield(self.looking)

    async def look(self) -> None:
        self.looked_at = time.monotonic()
        for told in await self.ask_all("/api/query/summary", LOOK_SECONDS, SUMMARY_BYTES, SUMMARY):
            told.member.trouble = told.trouble
            if told.answer is not None:
                told.member.summary, told.member.seen = told.answer, now()

    async def ask_all(
        self, path: str, seconds: float, most: int, read: Read[Answer], method: str = "GET"
    ) -> list[ShardReply[Answer]]:
        """What each says within so many seconds, in the order of the file."""
        waiting = [asyncio.create_task(self.ask(one, path, seconds, most, read, method)) for one in self.members]
        return list(await asyncio.gather(*waiting))

    async def ask(
        self, member: ShardState, path: str, seconds: float, most: int, read: Read[Answer], method: str
    ) -> ShardReply[Answer]:
        if member.under_way >= MOST_UNDER_WAY:
            return ShardReply(member, None, "it has not answered what it was asked before", 0.0)
        member.under_way += 1
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        request = ShardRequest(member.shard, path, most, read, method)

        def end() -> None:
            member.end_request()
            ended.set()

        try:
            request.begin(seconds, lambda: call_if_open(loop, end))
        except RuntimeError as error:  # this machine has no thread left
            member.end_request()
            return ShardReply(member, None, str(error), 0.0)
        try:
            await asyncio.wait_for(ended.wait(), seconds)
        except TimeoutError:
            return ShardReply(member, None, "no answer in time", seconds)
        finally:
            if not ended.is_set():
                request.give_up()
        if isinstance(request.outcome, Unanswered):
            return ShardReply(member, None, for_people(str(request.outcome), is_one_line=True), request.seconds)
        return ShardReply(member, request.outcome, None, request.seconds)


def call_if_open(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    """On the loop; when that has ended, nobody waits any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return
