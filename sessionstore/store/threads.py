"""Threads of checkpoints in and out of the store, by the same bounded pieces as other material."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from sessionstore.model.lines import values_in
from sessionstore.model.problems import Problem, invalid_value, not_json
from sessionstore.store import checkpoints, material
from sessionstore.store.checkpoints import (
    CHANNELS_AFTER,
    CHECKPOINTS,
    OF_CHECKPOINTS,
    OF_RUNS,
    OLDER,
    REMOVED_AT_ONCE,
    STEPS,
    VERSIONS_AFTER,
    Checkpoint,
    CheckpointLine,
    PackedLine,
    ThreadRow,
    Version,
    json_of,
    named_by,
)
from sessionstore.store.intake import READ_AT_ONCE, TRANSACTION, Intake, grouped, now
from sessionstore.store.material import Provenance
from sessionstore.store.turns import Turns

CHECKPOINTS_AT_ONCE = 20
MAX_LINES = 10_000
"""Of what is sent at once, for it is kept in one transaction: a step of a graph has some."""
MAX_VALUES = 100_000
"""Of one line, as the channels of a checkpoint: an empty list has two bytes there, and 64 of memory."""
MAX_HELD = 32 << 20
"""Bytes that are held for it: of checkpoints, and beside values, which go in before."""


class CheckpointRow(NamedTuple):
    """A row of CHECKPOINTS."""

    ns: str
    checkpoint: str
    parent: str | None
    created: int
    about: str
    versions: str
    packed: bytes
    more: int
    """How many there are behind it, within what was asked for."""


class Chosen(NamedTuple):
    """Which checkpoints of a thread, the newest first."""

    ns: str | None = None
    id: str | None = None
    before: str | None = None
    limit: int = 1


class Threads:
    """Takes what a saver sends, and gives it back."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.reader = intake.reader
        self.sweeping = Turns(1)
        self.swept: int | None = None
        self.named: set[int] = set()
        """Of the thread that is swept: what its checkpoints name."""

    async def find(self, thread: str) -> ThreadRow | None:
        row = await self.reader.row(checkpoints.THREAD, (thread,))
        return ThreadRow(*row) if row else None

    # ---------------------------------------------------------------------- in

    async def take(self, thread: str, said: Provenance, lines: AsyncIterator[bytes]) -> int:
        """Keep what lines of JSON say, all of it or nothing; how many there were. Raises Problem 400, 422.

        Only the values of what is large go in before the rest: nobody uses them until that is there."""
        scope = await self.scope_of(thread, said)
        put: list[PackedLine] = []
        begun = size = held = kept = 0
        async for line in lines:
            one = await self.intake.beside(read, line)
            size += one.size + one.row
            await self.intake.check_room(scope, size)
            if held + one.size > TRANSACTION:
                await self.keep_values(scope, put[begun:] if one.size <= TRANSACTION else [*put[begun:], one])
                put[begun:] = map(without_pieces, put[begun:])
                one = without_pieces(one) if one.size > TRANSACTION else one
                begun, held = len(put), 0
            held += one.size
            kept += one.row + (one.size if isinstance(one.line, Checkpoint) else 0)
            put.append(one)
            if len(put) > MAX_LINES or (kept > MAX_HELD and len(put) > 1):
                raise Problem(413, f"At most {MAX_LINES} lines may come at once, and {MAX_HELD} bytes beside values")
        if not put:
            return 0

        def keep(connection: sqlite3.Connection) -> None:
            moment = now()
            found = checkpoints.begin(connection, thread, said, moment)
            grown = sum(checkpoints.put(connection, found, scope, one, moment) for one in put)
            checkpoints.grow(connection, found.thread_row, grown)
            if found.thread_row == self.swept:
                lines = (one.line for one in put)
                self.named.update(named_by(json_of(line.versions) for line in lines if isinstance(line, Checkpoint)))

        await self.intake.change(keep, sum(one.size for one in put))
        return len(put)

    async def scope_of(self, thread: str, said: Provenance) -> str:
        """Within which a value is kept once."""
        found = await self.find(thread)
        return said.session_id or (found.session_id if found else None) or f"thread {thread}"

    async def keep_values(self, scope: str, some: Sequence[PackedLine]) -> None:
        for one in some:
            if isinstance(one.line, Checkpoint):
                continue
            value, pieces = await self.intake.change(partial(checkpoints.value_of, scope=scope, one=one, now=now()))
            first = 0
            for group in [] if pieces else grouped(one.pieces):
                put = partial(checkpoints.put_pieces, value=value, first=first, pieces=group)
                await self.intake.change(put, sum(map(len, group)))
                first += len(group)
            await self.intake.change(partial(checkpoints.complete, value=value, one=one))

    # --------------------------------------------------------------------- out

    async def checkpoints(self, thread: ThreadRow, chosen: Chosen) -> AsyncIterator[bytes]:
        """Lines of JSON: each checkpoint behind the values that it names and the lines before have not had."""
        sent: set[int] = set()
        before, left = chosen.before, chosen.limit
        while left > 0:
            page = await self.page(thread, chosen._replace(before=before, limit=min(left, CHECKPOINTS_AT_ONCE)))
            for found in page:
                async for line in self.whole(thread, found, sent):
                    yield line
            if not page or (len(page) < min(left, CHECKPOINTS_AT_ONCE) and not page[-1].more):
                return
            before, left = page[-1].checkpoint, left - len(page)

    async def page(self, thread: ThreadRow, chosen: Chosen, query: str = CHECKPOINTS) -> list[CheckpointRow]:
        values = {"thread": thread.thread_row, **chosen._asdict()}
        return [CheckpointRow(*row) for row in await self.reader.rows(query, values)]

    async def steps(self, thread: ThreadRow, chosen: Chosen) -> list[CheckpointRow]:
        """The same without what is packed."""
        return await self.page(thread, chosen, STEPS)

    async def whole(self, thread: ThreadRow, found: CheckpointRow, sent: set[int]) -> AsyncIterator[bytes]:
        versions: dict[str, Version] = msgspec.json.decode(found.versions)
        named = checkpoints.wanted(versions)
        async with self.reader.lend() as connection:
            channels = await connection.rows(checkpoints.CHANNELS, (named, thread.thread_row, found.ns))
            writes = await connection.rows(checkpoints.WRITES, (thread.thread_row, found.ns, found.checkpoint))
        for value in [row[-1] for row in (*channels, *writes)]:
            if value not in sent:
                sent.add(value)
                yield await self.value(value)
        checkpoint, metadata = msgspec.msgpack.decode(
            await self.intake.beside(material.unpacked, [found.packed]), type=list[checkpoints.Typed]
        )
        yield encoded(
            checkpoint={
                "ns": found.ns,
                "id": found.checkpoint,
                "parent": found.parent,
                "checkpoint": checkpoint,
                "metadata": metadata,
                "versions": msgspec.Raw(found.versions.encode()),
                "values": dict(channels),
                "writes": [[task, channel, number, path, value] for task, channel, number, path, value in writes],
            }
        )

    async def value(self, number: int) -> bytes:
        """Ends with an error where it has gone meanwhile, so that a half is not taken for all."""
        row = await self.reader.row(checkpoints.VALUE, (number,))
        parts: list[bytes] = []
        for first in range(0, row[1] if row else 0, READ_AT_ONCE):
            end = min(first + READ_AT_ONCE, row[1])
            rows = await self.reader.rows(checkpoints.PIECES, (number, first, end))
            parts.append(await self.intake.beside(material.unpacked, [packed for (packed,) in rows]))
        if row is None or not parts:
            raise ConnectionAbortedError(f"value {number} was deleted while its thread was read")
        return await self.intake.beside(encoded_value, number, row[0], parts)

    # ------------------------------------------------------ copying, pruning, deleting

    async def copy(self, source: ThreadRow, target: str, said: Provenance) -> None:
        """All that a thread has, into another, some at a time. Values are shared. Raises Problem 413."""
        (size,) = await self.reader.row(checkpoints.ROWS_OF, (checkpoints.scope_of_rows(source.thread_row),))
        await self.intake.check_room(await self.scope_of(target, said), size)
        to = await self.intake.change(partial(checkpoints.begin, thread=target, said=said, now=now()))
        steps: list[tuple[Callable[..., Any], Any]] = [
            (checkpoints.copy_channels, ("", "", "")),
            (checkpoints.copy, ("", "")),
        ]
        for step, after in steps:
            while after is not None:
                after = await self.intake.change(partial(step, source=source, target=to, after=after))

    async def prune(self, thread: ThreadRow, keep: dict[str, list[str]]) -> int:
        """Remove all that is older than the newest of what is kept, in each namespace; how many checkpoints. Some at a
        time: a checkpoint goes before its writes, so that none is there without them."""
        gone = 0
        for ns, ids in keep.items():
            older = (thread.thread_row, ns, max(ids), json_of(ids))
            gone += len([one async for some in self.removed("checkpoints", OLDER, older) for one in some])
            async for _ in self.removed("checkpoint_writes", OLDER, older):
                pass
            await self.forget_channels(thread.thread_row, ns)
        return gone

    async def delete(self, thread: str) -> int:
        return await self.intake.change(partial(checkpoints.delete, thread=thread))

    async def delete_runs(self, threads: list[int], run_ids: list[str]) -> int:
        """Remove what these runs made in some threads. How many checkpoints there were."""
        gone, places = 0, set[tuple[int, str]]()
        of_runs = (json_of(run_ids), json_of(threads))
        async for some in self.removed("checkpoints", OF_RUNS, of_runs):
            gone += len(some)
            for thread_row, ns in (here := {(thread_row, ns) for thread_row, ns, *_ in some}):
                names = [name for *place, name, _ in some if place == [thread_row, ns]]
                values = (thread_row, ns, json_of(names))
                async for _ in self.removed("checkpoint_writes", OF_CHECKPOINTS, values):
                    pass
            places |= here
        for thread_row, ns in places:
            await self.forget_channels(thread_row, ns)
        return gone

    async def removed(self, table: str, which: str, values: tuple[object, ...]) -> AsyncIterator[list[Any]]:
        """The keys of rows, as they are removed, some at a time."""
        remove, gone = partial(checkpoints.remove, table=table, which=which, values=values), REMOVED_AT_ONCE
        while gone == REMOVED_AT_ONCE:
            yield (some := await self.intake.change(remove))
            gone = len(some)

    async def forget_channels(self, thread_row: int, ns: str) -> None:
        """Remove the values of versions that no checkpoint of the namespace names, also none that comes meanwhile: all
        those of one come together."""
        async with self.sweeping.of():
            self.swept, self.named = thread_row, set()
            try:
                last, is_cut = "", True
                while is_cut:
                    page = await self.reader.some(VERSIONS_AFTER, (thread_row, ns, last, REMOVED_AT_ONCE))
                    self.named.update(await self.intake.beside(named_by, [versions for versions, _ in page.rows]))
                    is_cut = page.is_cut or len(page.rows) == REMOVED_AT_ONCE
                    last = page.rows[-1][1] if page.rows else ""
                after: tuple[str, ...] = (ns, "", "")
                while rows := await self.reader.rows(CHANNELS_AFTER, (thread_row, *after, REMOVED_AT_ONCE)):
                    there = [(channel, version) for space, channel, version, _ in rows if space == ns]
                    if any(hash(one) not in self.named for one in there):
                        forget = partial(checkpoints.forget, thread_row=thread_row, ns=ns, some=there, named=self.named)
                        await self.intake.change(forget)
                    after = rows[-1][:3]
                    if after[0] != ns:
                        break
            finally:
                self.swept = None


def read(line: bytes) -> PackedLine:
    """Raises Problem 400, 413, 422."""
    if len(line) > MAX_VALUES and values_in(line) > MAX_VALUES:
        raise Problem(413, f"A line may have at most {MAX_VALUES} members and items, beside what is opaque")
    try:
        return checkpoints.packed_line(LINES.decode(line))
    except msgspec.ValidationError as error:
        raise invalid_value(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(str(error)) from None


LINES = msgspec.json.Decoder(CheckpointLine)


def without_pieces(one: PackedLine) -> PackedLine:
    """What is left to do once a value is there."""
    if isinstance(one.line, Checkpoint):
        return one
    bare = checkpoints.Typed(one.line.value.type, b"")
    return one._replace(pieces=[], line=msgspec.structs.replace(one.line, value=bare))


def encoded(**members: Any) -> bytes:
    return msgspec.json.encode(members) + b"\n"


def encoded_value(number: int, kind: str, parts: list[bytes]) -> bytes:
    data = base64.b64encode(b"".join(parts)).decode()
    return encoded(value={"number": number, "type": kind, "data": data})
