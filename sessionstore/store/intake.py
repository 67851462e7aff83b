"""Material in and out of the store, a bounded piece at a time, so that it holds up nobody who writes events.

One piece of all material waits for the writer at any time, so no commit holds more than TRANSACTION bytes of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from sessionstore.model.problems import Problem, unavailable
from sessionstore.model.redaction import Redaction
from sessionstore.model.verbatim import lines_without_secrets
from sessionstore.store import material
from sessionstore.store.appender import Appender
from sessionstore.store.material import PIECE, Key, Part, PartProgress, Provenance, Transcript
from sessionstore.store.reader import Reader
from sessionstore.store.turns import Turns
from sessionstore.store.writer import Writer

PART = 4 * PIECE
"""Bytes of a batch that are kept together, and as much more as ends the last line of them."""
TRANSACTION = PIECE
"""Compressed bytes that one commit may hold, or one piece of more."""
READ_AT_ONCE = 4
"""Pieces."""
DIGESTS_KNOWN = SCOPES_KNOWN = 1_000
ROOM_SECONDS, PLENTY = 5.0, 64 << 20

HOUSEKEEPING_SECONDS = 60.0
SIZES_SECONDS = 0.25
A_DAY = 86_400.0
SIZES = """
SELECT (SELECT count(*) FROM transcripts WHERE NOT is_deleted),
       (SELECT coalesce(sum(lines), 0) FROM transcripts WHERE NOT is_deleted),
       (SELECT count(*) FROM checkpoint_threads WHERE NOT is_deleted),
       coalesce((SELECT bytes FROM material_sizes WHERE scope = ''), 0)"""

SIZES_WITHIN = """
SELECT scope, bytes FROM material_sizes WHERE scope IN ('', :scope)
UNION ALL
SELECT :scope, bytes FROM checkpoint_threads t JOIN material_sizes m ON m.scope = 'rows of ' || t.thread_row
WHERE t.session_id = :scope
UNION ALL
SELECT :scope, bytes FROM checkpoint_threads t JOIN material_sizes m ON m.scope = 'rows of ' || t.thread_row
WHERE 'thread ' || t.thread = :scope AND t.thread = substr(:scope, 8) AND t.session_id IS NULL AND NOT t.is_deleted"""

Result = TypeVar("Result")


class Sizes(NamedTuple):
    """How much material there is; `stored`: bytes on disk."""

    transcripts: int = 0
    lines: int = 0
    threads: int = 0
    stored: int = 0


Check = Callable[[Transcript | None], Awaitable[None]]
"""Raises Problem where what is there is not to be touched."""


async def anything(_: Transcript | None) -> None:
    pass


class Kept(NamedTuple):
    """What became of a batch: lines that were kept, and those of it that had been before."""

    lines: int
    duplicates: int
    transcript: Transcript | None


class Digests:
    """SHA-256 of what is kept of a transcript, and of its source, as far as they are known."""

    def __init__(self) -> None:
        self.kept = hashlib.sha256()
        self.source: Any = hashlib.sha256()

    def after(self, kept: bytes, source: bytes) -> Digests:
        """Those with some more bytes."""
        new = Digests()
        new.kept, new.source = self.kept.copy(), self.source and self.source.copy()
        new.kept.update(kept)
        if new.source:
            new.source.update(source)
        return new


class PackedPart(NamedTuple):
    part: Part
    digests: Digests


class Intake:
    """Takes batches of lines in order, one at a time of each transcript, and gives transcripts back."""

    def __init__(
        self, writer: Writer, reader: Reader, redaction: Redaction | None, limits: tuple[int, int | None]
    ) -> None:
        """`redaction`: what takes secrets out of lines; None: nothing does. `limits`: the bytes on disk of one session
        and of all; None: a quarter of the disk."""
        self.limits = limits
        self.redaction = redaction
        self.writer = writer
        self.reader = reader
        self.locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self.turn = Turns(1)
        self.last_sizes = Sizes()
        self.room: dict[str, tuple[float, int]] = {}
        """By scope: until when it is known, and how many bytes of it are left."""
        self.digests: OrderedDict[int, Digests] = OrderedDict()
        """By transcript, the last used last."""
        self.looked_through: OrderedDict[int, None] = OrderedDict()
        """Transcripts all of whose usage is told, as is known: a long one is not read again with each batch."""
        self.thread = ThreadPoolExecutor(1, "material")

    def stop(self) -> None:
        self.thread.shutdown(wait=False)

    async def keep_house(self, days: int | None) -> None:
        """Every so often delete what is old and belongs to no session, while the clock can be trusted."""
        drift = self.writer.clock() - time.monotonic()
        while days is not None:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            if abs(self.writer.clock() - time.monotonic() - drift) < A_DAY:
                with suppress(Problem):
                    await self.change(partial(material.expire, before=int((self.writer.clock() - days * A_DAY) * 1000)))

    async def sizes(self) -> Sizes:
        """How much there is, or was when it could last be found out in no time."""
        with suppress(Problem, TimeoutError):
            async with asyncio.timeout(SIZES_SECONDS):
                self.last_sizes = Sizes(*await self.reader.row(SIZES))
        return self.last_sizes

    async def beside(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """What it returns; done on the thread that has nothing to do with events."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)

    # ---------------------------------------------------------------------- in

    async def take(
        self, key: Key, said: Provenance, batch: str | None, parts: AsyncIterator[bytes], check: Check = anything
    ) -> Kept:
        """Keep the lines of a batch, which come in parts, if what is there passes the check. Raises Problem; the parts
        before it are kept then."""
        lock = self.locks.setdefault(key, asyncio.Lock())
        async with lock:
            found = await self.find(key)
            await check(found)
            before = await self.parts_of(key, batch)
            count = duplicates = number = 0
            async for lines in parts:
                if number in before:
                    known, digest = before[number]
                    check_same(digest, lines)
                    duplicates += known
                else:
                    found = await self.take_part(key, said, batch, number, lines, found)
                    said = said._replace(offset=None)
                    count += lines.count(b"\n") + (not lines.endswith(b"\n"))
                number += 1
            return Kept(count, duplicates, found)

    async def parts_of(self, key: Key, batch: str | None) -> dict[int, tuple[int, bytes]]:
        """The parts of a batch that are kept already: their lines and digests."""
        if batch is None:
            return {}
        rows = await self.reader.rows(material.PARTS, (*key, batch))
        return {number: (lines, digest) for number, lines, digest in rows}

    async def take_part(
        self, key: Key, said: Provenance, batch: str | None, number: int, lines: bytes, found: Transcript | None
    ) -> Transcript:
        found = await self.begun(key, said, found)
        digests = await self.digests_of(found, said)
        part, after = await self.beside(pack, batch, number, lines, digests, self.redaction)
        source_bytes = len(lines) + (found.bytes if said.offset == found.bytes else found.source_bytes)
        progress = PartProgress(after.kept.hexdigest(), source_bytes, after.source and after.source.hexdigest())
        await self.check_room(said.session_id or found.session_id or "-", sum(map(len, part.pieces)))
        kept = await self.write(key, said, found, part, progress)
        self.digests[kept.transcript] = after
        self.digests.move_to_end(kept.transcript)
        if len(self.digests) > DIGESTS_KNOWN:
            self.digests.popitem(last=False)
        return kept

    async def begun(self, key: Key, said: Provenance, found: Transcript | None) -> Transcript:
        """The transcript that goes on: as it is, where it can."""
        if found is not None and found.source == said.source and not material.begins_anew(found, said):
            return found
        return await self.change(partial(material.begin, key=key, said=said, now=now()))

    async def write(
        self, key: Key, said: Provenance, found: Transcript, part: Part, progress: PartProgress
    ) -> Transcript:
        """All pieces but the last few first, which do not count until those do."""
        first, groups = found.pieces, list(grouped(part.pieces))
        for group in groups[:-1]:
            await self.submit(aside(key, found, first, group), sum(map(len, group)))
            first += len(group)

        def finish(appender: Appender) -> Transcript:
            aside(key, found, first, groups[-1])(appender)
            return material.keep(appender.connection, found, part, progress, said, now())

        return await self.submit(finish, sum(map(len, groups[-1])))

    async def check_room(self, scope: str, size: int) -> None:
        """Raises Problem 413 where so much more is too much, for the session or for all of them. Where there was plenty
        of room a moment ago, nobody looks."""
        until, left = self.room.get(scope, (0.0, 0))
        if time.monotonic() < until and (left := left - size) > PLENTY:
            self.room[scope] = until, left
            return
        rows = await self.reader.rows(SIZES_WITHIN, {"scope": scope})
        sizes = {name: sum(size for other, size in rows if other == name) for name, _ in rows}
        of_one, of_all = self.limits
        lefts = [1 << 60]
        for scope_, limit in ((scope, None if scope == "-" else of_one), ("", of_all or self.writer.disk.total // 4)):
            has = sizes.get(scope_, 0)
            if limit and has + size > limit:
                whose = f"of {scope_!r} " if scope_ else ""
                detail = f"The material {whose}has {has:,} bytes, of {limit:,} at most: see SESSIONS_MAX_MATERIAL"
                raise Problem(413, detail, limit=limit)
            lefts.append(limit - has if limit else 1 << 60)
        if len(self.room) > SCOPES_KNOWN:
            self.room.clear()
        self.room[scope] = time.monotonic() + ROOM_SECONDS, min(lefts) - size

    async def submit(self, work: Callable[[Appender], Result], size: int = 0) -> Result:
        """Have it done by the writer, when no other piece waits for it. Raises Problem."""

        def in_transaction(appender: Appender) -> Result:
            appender.open_transaction()
            return work(appender)

        async with self.turn.of():
            result: Result = await self.writer.submit(in_transaction, size=size)
        return result

    async def change(self, work: Callable[[sqlite3.Connection], Result], size: int = 0) -> Result:
        """The same for a plain function of the connection."""
        return await self.submit(lambda appender: work(appender.connection), size)

    async def digests_of(self, found: Transcript, said: Provenance) -> Digests:
        """Those of a transcript as it is; made anew of what is kept where they are not known."""
        known = self.digests.get(found.transcript)
        if known is not None and known.kept.hexdigest() == found.digest:
            digests = known
        else:
            digests = Digests()
            async for lines in self.bytes_of(found):
                digests = await self.beside(digests.after, lines, b"")
            is_source = (found.source_bytes, found.source_digest) == (found.bytes, found.digest)
            digests.source = digests.kept.copy() if is_source or not found.bytes else None
        if said.offset is not None and said.offset == found.bytes != found.source_bytes:
            digests = digests.after(b"", b"")  # its source is now a file that was made of what is kept
            digests.source = digests.kept.copy()
        return digests

    # --------------------------------------------------------------------- out

    async def find(self, key: Key) -> Transcript | None:
        row = await self.reader.row(material.NEWEST, key)
        return Transcript(*row) if row else None

    async def bytes_of(self, found: Transcript) -> AsyncIterator[bytes]:
        """What is kept, some pieces at a time. Nothing is held between two of them: where it is deleted meanwhile this
        ends with an error, so that a half of it is not taken for all."""
        for first in range(0, found.pieces, READ_AT_ONCE):
            yield await self.beside(material.unpacked, await self.pieces_of(found, first, READ_AT_ONCE))

    async def pieces_of(self, found: Transcript, first: int, most: int) -> list[bytes]:
        """Packed, as far as there are any. Raises ConnectionAbortedError where it was deleted meanwhile."""
        end = min(first + most, found.pieces)
        rows = await self.reader.rows(material.PIECES, (found.transcript, first, end))
        if len(rows) < end - first:
            raise ConnectionAbortedError(f"transcript {found.transcript} was deleted while it was read")
        return [row[0] for row in rows]

    async def summarize(self, key: Key, summary: str, versions: frozenset[int] | None) -> int:
        """Set it; its new version. Raises Problem 404, 412."""
        if self.redaction is not None:
            summary = (await self.beside(lines_without_secrets, self.redaction, summary.encode())).decode()
        found = await self.find(key)
        if found and len(summary) > len(found.summary or ""):
            await self.check_room(found.session_id or "-", len(summary))
        work = partial(material.summarize, key=key, summary=summary, versions=versions, now=now())
        return await self.change(work, len(summary))

    async def delete(self, key: Key) -> int:
        """How many transcripts there were."""
        return await self.change(partial(material.delete, key=key))


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def check_same(digest: bytes, lines: bytes) -> None:
    if hashlib.sha256(lines).digest() != digest:
        raise Problem(422, "The batch of this Idempotency-Key has other lines: give a new batch a new key")


def pack(batch: str | None, number: int, lines: bytes, digests: Digests, redaction: Redaction | None) -> PackedPart:
    kept = lines if redaction is None else lines_without_secrets(redaction, lines)
    kept = kept if kept.endswith(b"\n") else kept + b"\n"
    digest = hashlib.sha256(lines).digest()
    part = Part(batch, number, kept.count(b"\n"), len(kept), digest, material.packed(kept))
    return PackedPart(part, digests.after(kept, lines))


def grouped(pieces: list[bytes]) -> list[list[bytes]]:
    """One after the other, in groups of TRANSACTION bytes at most."""
    groups: list[list[bytes]] = [[]]
    size = 0
    for piece in pieces:
        if groups[-1] and size + len(piece) > TRANSACTION:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += len(piece)
    return groups


def aside(key: Key, found: Transcript, first: int, pieces: list[bytes]) -> Callable[[Appender], None]:
    """Work: write pieces of a transcript that do not count yet, if it still is as it was."""

    def work(appender: Appender) -> None:
        if material.find(appender.connection, key) != found:
            raise unavailable("The conversation has changed meanwhile: the same again is taken now")
        material.put_aside(appender.connection, found.transcript, first, pieces)

    return work
