"""`python -m lake.chain DATABASE URL SHARD STORE`: the chain of what a store has acknowledged, object by object.

    tail/SHARD/000000000057      a line about it (Link), and after that its events, compressed, a JSON array a line

Each number is created once, by whoever knows the one before: of two servers of one shard one finds the number taken,
and stops before it has told anybody. A server begins with a claim, which has no events: one that was here before, and
was only asleep, runs into it, so claims stay for ever, and of all else the newest object. The rest goes once it is
sealed. No clock and no lease is in it.

The server (sessionstore/store/chain.py) says on stdin, a JSON object a line, and is answered with one on stdout:

    {"take": true}                            bring the database up to the chain, and claim it; false: it was mine
    {"put": 800, "upto": 62, "last": "e-9"}   and 800 bytes of lines: the next object
    {"sealed": 40}                            what the table has up to here may go

    {"upto": 62}   {"away": "…"}: try again, beginning with `take`   {"lost": "…"}: nothing more may be written here

Where stdin ends, so does this, also in the middle of a `take`: the next server takes the chain then. Whatever was not
answered is found by the next `take`.
"""

from __future__ import annotations

import hashlib
import os
import select
import sqlite3
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import obstore

from lake.bucket import BucketAway, BucketRefused, create, folder_of, ignoring, is_folder, open_bucket, read, told_of
from sessionstore import EXPORT
from sessionstore.admin.restore import Insertion
from sessionstore.model.events import Event
from sessionstore.store.appender import COLUMNS
from sessionstore.store.maintenance import purge
from sessionstore.store.schema import open_writer

SECONDS = 5.0
"""For one request, and for all that it is tried again."""
LOOKS = 20
"""How often the end of the chain is looked for while another server writes on."""
AT_ONCE = 16
"""Objects that are read at the same time."""
AHEAD = 2_000
"""Events of an object that brings the chain up to a database that was written to without it."""
ROOT = "tail"


class Link(msgspec.Struct):
    """What an object says of itself and of all before it."""

    store: str
    by: str = ""
    """The server that wrote it, by a name that it has made up for this run."""
    after: int = 0
    """The chain's newest cursor before it."""
    upto: int = 0
    """The same with it."""
    last: str = ""
    """By what the event of `upto` is known; not its id, for this may outlive its session."""
    claim: int = 0
    """The number of the claim under which it was written."""
    claims: list[int] = msgspec.field(default_factory=list)
    """Of a claim: all there are, with itself."""


def known(event_id: str) -> str:
    return hashlib.sha256(event_id.encode()).hexdigest()[:16]


class Linked(NamedTuple):
    link: Link
    events: list[Event]


class Lost(Exception):
    """The chain is not, or no longer, this server's."""


class Sealed(Exception):
    """What is asked for was sealed, and is not in the chain any more."""


def tail_of(url: str) -> dict[str, list[int]]:
    """The shards that have a chain in a lake, and the numbers of their objects, in order."""
    found: dict[str, list[int]] = {}
    if is_folder(url) and not Path(folder_of(url)).exists():
        return found
    with told_of(url):
        for page in obstore.list(open_bucket(url), f"{ROOT}/"):
            for entry in page:
                _, shard, number = entry["path"].split("/")
                found.setdefault(shard, []).append(int(number))
    return {shard: sorted(numbers) for shard, numbers in found.items()}


class Tail:
    """The objects of one shard."""

    def __init__(self, url: str, shard: str) -> None:
        self.url = url
        self.folder = f"{ROOT}/{shard}"
        self.bucket = open_bucket(url, SECONDS)

    def path(self, number: int) -> str:
        return f"{self.folder}/{number:012d}"

    def numbers(self) -> list[int]:
        pages = obstore.list(self.bucket, f"{self.folder}/")
        return sorted(int(entry["path"].rpartition("/")[2]) for page in pages for entry in page)

    def get(self, number: int) -> Linked:
        """Raises Sealed where it is gone."""
        try:
            head, _, packed = read(self.bucket, self.path(number)).partition(b"\n")
        except FileNotFoundError:
            raise Sealed(f"{self.path(number)} is gone") from None
        lines = zlib.decompress(packed).splitlines() if packed else ()
        return Linked(msgspec.json.decode(head, type=Link), [Event(*msgspec.json.decode(line)) for line in lines])

    def put(self, number: int, link: Link, lines: bytes = b"") -> bool:
        """False: something else has the number. One whose answer was lost is there, and is it."""
        body = msgspec.json.encode(link) + b"\n" + (zlib.compress(lines, 1) if lines else b"")
        return create(self.bucket, self.path(number), body) is not None or read(self.bucket, self.path(number)) == body

    def delete(self, numbers: Iterable[int]) -> None:
        if paths := [self.path(number) for number in numbers]:
            obstore.delete(self.bucket, paths)

    def since(self, numbers: list[int], head: int) -> list[int]:
        """Of its numbers those that a database lacks that ends with a cursor. Raises Sealed where some are gone."""
        lacking = numbers[bisect_right(numbers, head, key=lambda number: self.get(number).link.upto) :]
        if lacking and (lacking[-1] - lacking[0] >= len(lacking) or self.get(lacking[0]).link.after > head):
            raise Sealed("the chain begins after what the database has")
        return lacking

    def events(self, numbers: list[int], after: int) -> Iterator[list[Event]]:
        """Those after a cursor, an object at a time, in order."""
        with ThreadPoolExecutor(AT_ONCE) as readers:
            for at in range(0, len(numbers), AT_ONCE):
                for found in readers.map(self.get, numbers[at : at + AT_ONCE]):
                    yield [event for event in found.events if event.cursor > after]


def insert(into: Insertion, events: Iterable[Event]) -> None:
    """In one transaction. What deletes a session takes effect at once, so that its id can be used again."""
    into.database.execute("BEGIN IMMEDIATE")
    for event in events:
        into.insert(event)
        while event.type == "session_deleted" and purge(into.database):
            pass
    into.database.execute("COMMIT")


class Holder:
    """One server's end of the chain."""

    def __init__(self, path: Path, url: str, shard: str, store: str, by: str) -> None:
        self.path, self.shard = path, shard
        self.chain = Tail(url, shard)
        self.mine = Link(store, by)
        """What the next object says of itself."""
        self.number = 0
        """The newest of the chain."""
        self.is_bare = True
        """It has no events."""
        self.is_in_doubt = True
        """There may be one after it that was not answered."""
        self.claims: set[int] = set()
        self.held: dict[int, int] = {}
        """Which objects are there beside claims, and up to which cursor they go, in order."""
        self.deleting = ThreadPoolExecutor(1)
        self.go_on: Callable[[], None] = lambda: None
        """Called before anything is done that would be wrong beside the next server of this store."""

    # ------------------------------------------------------------------ taking

    @contextmanager
    def database(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        """That of the server, which keeps its hands off meanwhile, and the newest cursor in it."""
        with closing(open_writer(self.path)) as database:
            database.execute("PRAGMA wal_autocheckpoint = 0")  # the server puts the log into it
            ((head,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
            yield database, head

    def take(self, *, is_first: bool) -> None:
        """Raises Lost, sqlite3.Error, and what the bucket says."""
        for _ in range(LOOKS):
            self.go_on()
            numbers = self.chain.numbers()
            number = numbers[-1] if numbers else 0
            try:
                newest = self.chain.get(number).link if number else Link(self.mine.store)
                self.check_mine(newest, is_first=is_first)
                self.replay(numbers, newest)
            except Sealed as gone:
                if self.chain.numbers() == numbers:
                    raise Lost(BEHIND.format(url=self.chain.url, gone=gone)) from None
                continue  # whoever writes has gone on meanwhile
            if not self.is_in_doubt and number == self.number:
                self.bring_up()
                return
            claims = [*(self.chain.get(newest.claim).link.claims if number else ()), number + 1]
            claim = self.following(newest, upto=newest.upto, last=newest.last, claim=number + 1, claims=claims)
            if self.chain.put(number + 1, claim) and self.chain.numbers()[-1] == number + 1:
                self.begin(claim, numbers)
                return
        raise BucketAway(f"{self.chain.url}: the end of {self.chain.folder} moves on all the time")

    def check_mine(self, newest: Link, *, is_first: bool) -> None:
        if newest.store != self.mine.store:
            raise Lost(f"another store acknowledges as {self.shard!r}: give this one a SESSIONS_SHARD of its own")
        if not is_first and newest.by != self.mine.by:
            raise Lost(f"another server has taken over {self.shard!r}, up to cursor {newest.upto}")

    def replay(self, numbers: list[int], newest: Link) -> None:
        """Into the database, what it lacks. Raises Sealed where some of that is gone."""
        with self.database() as (database, head):
            odd = self.insert_since(database, numbers, head) if newest.upto > head else []
            found = database.execute("SELECT event_id FROM events WHERE cursor = ?", (newest.upto,)).fetchone()
            if odd or (found and known(found[0]) != newest.last):
                raise Lost(OTHER.format(url=self.chain.url, upto=newest.upto, shard=self.shard))

    def insert_since(self, database: sqlite3.Connection, numbers: list[int], head: int) -> list[str]:
        """What is odd about it."""
        into = Insertion(database)
        for events in self.chain.events(self.chain.since(numbers, head), head):
            self.go_on()
            insert(into, events)
        return into.restored.odd

    def begin(self, claim: Link, before: list[int]) -> None:
        """Go on after a claim."""
        if create(self.chain.bucket, self.chain.path(claim.claim), b"?") is not None:
            raise Lost(ignoring(self.chain.url, "ignores If-None-Match"))
        self.number, self.is_bare, self.is_in_doubt = claim.claim, True, False
        self.mine, self.claims = claim, set(claim.claims)
        self.held = {number: claim.upto for number in before if number not in self.claims}
        self.bring_up()

    def bring_up(self) -> None:
        """What was acknowledged before there was a chain, and is not sealed, is put into it."""
        with self.database() as (database, head):
            if head == self.mine.upto:
                return
            after = max(self.mine.upto, sealed_up_to(self.chain.url, self.shard))
            rows = database.execute(f"SELECT {COLUMNS} FROM events WHERE cursor > ? ORDER BY cursor", (after,))
            while some := list(islice(rows, AHEAD)):
                self.put(some[-1][0], known(some[-1][4]), b"\n".join(map(msgspec.json.encode, some)))

    def following(self, link: Link, **changed: Any) -> Link:
        return msgspec.structs.replace(link, by=self.mine.by, after=link.upto, **changed)

    # ----------------------------------------------------------------- writing

    def put(self, upto: int, last: str, lines: bytes) -> None:
        """The next object. Raises Lost where another has its number."""
        if self.is_in_doubt:
            raise BucketAway("what the chain ends with is to be looked up first")
        link = self.following(self.mine, upto=upto, last=last, claims=[])
        self.is_in_doubt = True
        if not self.chain.put(self.number + 1, link, lines):
            self.check_mine(self.chain.get(self.number + 1).link, is_first=False)
            raise BucketAway(f"{self.chain.path(self.number + 1)} is there already")
        self.number, self.mine, self.is_bare, self.is_in_doubt = self.number + 1, link, not lines, False
        self.held[self.number] = upto

    def sealed(self, cursor: int) -> None:
        """Let go of what the table has; the newest stays, so that is made one that has no events."""
        if not self.is_bare and not self.is_in_doubt and self.mine.upto <= cursor:
            self.put(self.mine.upto, self.mine.last, b"")
        gone = [number for number, upto in self.held.items() if upto <= cursor and number != self.number]
        for number in gone:
            del self.held[number]
        self.deleting.submit(self.chain.delete, gone)

    # ------------------------------------------------------------- conversation

    def run(self, asked: IO[bytes], answers: IO[bytes]) -> None:
        for line in asked:
            command = msgspec.json.decode(line)
            try:
                with told_of(self.chain.url):
                    self.obey(command, asked)
                said: dict[str, Any] = {"upto": self.mine.upto}
            except Lost as lost:
                said = {"lost": str(lost)}
            except (BucketAway, BucketRefused, sqlite3.Error) as away:
                said = {"away": str(away)}
            answers.write(msgspec.json.encode(said) + b"\n")
            answers.flush()

    def obey(self, command: dict[str, Any], asked: IO[bytes]) -> None:
        if "take" in command:
            self.take(is_first=command["take"])
        elif "put" in command:
            self.put(command["upto"], known(command["last"]), asked.read(command["put"]))
        else:
            self.sealed(command["sealed"])


BEHIND = (
    "the bucket has acknowledged more than the database has, and {gone}: stop the server, and bring back what is "
    f"missing: `{EXPORT} restore "
    "{url} --newer`"
)
OTHER = (
    "{url} has other events as {shard} than the database, up to cursor {upto}: put this one aside and bring back what "
    f"was acknowledged: `{EXPORT} restore "
    "{url} --force --shard {shard}`"
)


def sealed_up_to(url: str, shard: str) -> int:
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    from lake.table import PATIENCE, sealed_cursor

    try:
        return sealed_cursor(DeltaTable(f"{url}/events", storage_options=PATIENCE), shard)
    except TableNotFoundError:
        return 0


def end_with_server() -> None:
    """One that was killed may have a successor: its chain is not to be claimed, nor its database written to."""
    asker = select.poll()
    asker.register(sys.stdin, 0)  # that nobody can write to it any more is told unasked
    if asker.poll(0):
        os._exit(0)


def main(path: str, url: str, shard: str, store: str, by: str) -> None:
    holder = Holder(Path(path), url, shard, store, by)
    holder.go_on = end_with_server
    holder.run(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
