"""What listeners share: sealed pieces of the newest events, of which each reader takes just what it wants, once."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from contextlib import aclosing
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from sessionstore.appliance import Store
from sessionstore.model.events import Event
from sessionstore.store import broadcaster as sharing
from sessionstore.store.broadcaster import Broadcaster, FeedItem
from sessionstore.web.live import Wanted, sse
from tests import peers
from tests.databases import drafted
from tests.repeats import repeated
from tests.test_writer import store_in, until, writes

SESSIONS = {f"s-{n}": f"u-{n % 4}" for n in range(12)}
"""And whose they are."""
TYPES = ("action", "response")
numbers = count(1)


def event(session: str = "s-0", data: str = '{"type":"x"}') -> Event:
    cursor = next(numbers)
    user = SESSIONS.get(session, "u")
    return Event(cursor, "action", session, user, f"e-{cursor}", None, "t", "t", None, None, 1, "x", data)


class Sort(NamedTuple):
    """What a reader may ask for, in the plainest words."""

    after: int
    sessions: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def has(self, item: FeedItem) -> bool:
        is_named = item.session_id in self.sessions or item.user_id in self.users
        is_its_type = not self.types or item.type in self.types
        return item.cursor > self.after and is_its_type and (is_named or not (self.sessions or self.users))


def some_sort(chance: random.Random, newest: int) -> Sort:
    sessions = frozenset(chance.sample([*SESSIONS], chance.choice((0, 1, 1, 3))))
    users = frozenset(chance.sample(sorted({*SESSIONS.values()}), chance.choice((0, 0, 1, 2))))
    types = frozenset(chance.sample(TYPES, chance.choice((0, 0, 1))))
    return Sort(chance.randint(0, newest), sessions, users, types)


# ----------------------------------------------------- every stream, a small ring


BURSTS = (3, 1, 40, 7, 100, 1, 1, 25, 150, 2, 60, 5)
"""Of events, some of them longer than the ring."""


def write_some(store: Store, chance: random.Random, number: int) -> None:
    for _ in range(number):
        session, user = chance.choice([*SESSIONS.items()])
        store.writer.submit(writes(drafted(chance.choice(TYPES), session, {"type": "x"}, user_id=user)))


async def follow(store: Store, sort: Sort, heard: list[int]) -> None:
    wanted = Wanted.of(sort.sessions, sort.users, sort.after)
    wanted = msgspec.structs.replace(wanted, types=sort.types)
    async with aclosing(sse(store, wanted, sort.after, lambda: True)) as stream:
        async for portion in stream:
            messages = (json.loads(text) for text in re.findall(rb"(?m)^data: (.*)$", portion))
            heard += [message["cursor"] for message in messages]


@repeated("rounds", few=1, many=20, variable="FEED_ROUNDS")
def test_every_stream_gets_what_it_asked_for_in_order_and_once(
    tmp_path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MAX_EVENTS": 90, "PIECE_EVENTS": 11, "RECENT": 3}.items():
        monkeypatch.setattr(sharing, name, value)

    async def scenario(chance: random.Random, folder: Path) -> None:
        readers: list[tuple[Sort, list[int]]] = []
        async with store_in(folder, tree=False) as store, asyncio.timeout(peers.SECONDS), asyncio.TaskGroup() as tasks:
            following = []
            for burst in BURSTS:
                for _ in range(4):
                    readers.append((some_sort(chance, store.broadcaster.head), []))
                    following.append(tasks.create_task(follow(store, *readers[-1])))
                    await asyncio.sleep(chance.choice((0, 0.001)))
                write_some(store, chance, burst)
                await asyncio.sleep(chance.choice((0, 0.004, 0.012)))
            for session in SESSIONS:
                for kind in TYPES:
                    newest = await store.writer.append(drafted(kind, session, {"type": "last"}))
            stored = (await store.reader.items(after=0, limit=10_000)).items
            assert stored[-1].cursor == newest.event.cursor
            for sort, heard in readers:
                expected = [item.cursor for item in stored if sort.has(item)]
                await until(partial(heard.__contains__, expected[-1]))
                assert heard == expected, sort
            for task in following:
                task.cancel()

    for seed in range(rounds):
        asyncio.run(scenario(random.Random(seed), tmp_path / str(seed)))


# --------------------------------------------------------------------- the ring


def published(*groups: list[Event]) -> Broadcaster:
    """One to which each group came in a tick of its own."""
    broadcaster = Broadcaster()

    async def publish() -> None:
        for group in groups:
            broadcaster.publish(group)
            await asyncio.wait_for(broadcaster.after(broadcaster.sealed), peers.SECONDS)

    asyncio.run(publish())
    return broadcaster


def test_a_tick_is_one_piece_and_rendered_once() -> None:
    broadcaster = published([event("s-0"), event("s-1")], [event("s-0")])
    assert [len(piece.items) for piece in broadcaster.pieces] == [2, 1]
    piece = broadcaster.pieces[0]
    one, two = (Wanted.of(names, (), 0) for names in (["s-1"], ["s-1", "s-0"]))
    assert (list(one.places(piece, 0)), list(two.places(piece, 0))) == ([1], [0, 1])
    assert piece.frames is piece.frames
    assert piece.frames[1].endswith(piece.items[1].text)


def test_the_ring_is_bound_by_events_and_bytes_and_forgets_whole_pieces() -> None:
    many = [event() for _ in range(3 * sharing.MAX_EVENTS)]
    broadcaster = published(many[:100], many[100:])
    assert sharing.MAX_EVENTS - sharing.PIECE_EVENTS < broadcaster.events <= sharing.MAX_EVENTS
    large = [event(data="x" * (1 << 20)) for _ in range(40)]
    broadcaster = published(many[:10], large)
    assert sharing.MAX_BYTES - (2 << 20) < broadcaster.bytes <= sharing.MAX_BYTES
    held = [item.cursor for piece in broadcaster.pieces for item in piece.items]
    assert held == list(range(broadcaster.forgotten + 1, large[-1].cursor + 1))
    too_large = published([event(data="x" * (sharing.MAX_BYTES + 1))])
    assert (too_large.pieces, too_large.bytes, too_large.forgotten) == ([], 0, too_large.head)


def test_many_small_pieces_become_few_once_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "RECENT", 4)
    events = [event() for _ in range(10 * sharing.RECENT)]
    broadcaster = published(*([one] for one in events))
    assert len(broadcaster.pieces) <= 2 * sharing.RECENT + 8
    assert all(len(piece.items) == 1 for piece in broadcaster.pieces[-sharing.RECENT :])
    assert [item for piece in broadcaster.pieces for item in piece.items] == events
    assert broadcaster.events == len(events)


def test_of_a_deleted_session_only_its_deletion_is_left() -> None:
    broadcaster = published([event("s-1"), event("s-0")], [event("s-0"), event("s-0")])
    kept = broadcaster.pieces[0].items[0]

    async def scenario() -> None:
        last, deletion, again = event("s-0"), event("s-0"), event("s-0")
        deletion = msgspec.structs.replace(deletion, type="session_deleted")
        broadcaster.publish([last, deletion, again])
        found = []
        for cursor in range(kept.cursor - 1, again.cursor):
            piece = await broadcaster.after(cursor)
            assert piece is not None
            found.append([item for item in piece.items if item.cursor > cursor])
        assert found == [[kept], *[[deletion, again]] * 5, [again]]
        assert (broadcaster.events, broadcaster.bytes) == (3, sum(piece.size for piece in broadcaster.pieces))

    asyncio.run(scenario())


def test_listeners_whose_turn_took_long_wait_longer_for_the_next() -> None:
    broadcaster = Broadcaster()

    async def waits(turn: float) -> float:
        """For what is published right after a turn that took so many seconds of the event loop."""
        broadcaster.publish([event()])
        await broadcaster.after(broadcaster.sealed)
        time.sleep(turn)  # noqa: ASYNC251 (it is the loop's time)
        await asyncio.sleep(0)
        begun = time.monotonic()
        broadcaster.publish([event()])
        await broadcaster.after(broadcaster.sealed)
        return time.monotonic() - begun

    async def scenario() -> None:
        assert await waits(0.02) > 2 * 0.02
        assert min([await waits(0) for _ in range(5)]) < 2 * 0.02

    asyncio.run(scenario())
