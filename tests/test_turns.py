"""Fair queueing: one client's flood makes no other wait for all of it, neither to write nor to read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sessionstore.store.reader import CONNECTIONS
from sessionstore.store.turns import WHO, Turns
from sessionstore.store.writer import LARGE_AT_ONCE, Append
from tests.test_writer import held, run, store_in, until, word


async def of_client(name: str, work: Coroutine[Any, Any, Any], done: list[str]) -> None:
    WHO.set(name)
    await work
    done.append(name)


def tasks_of(name: str, works: list[Coroutine[Any, Any, Any]], done: list[str]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(of_client(name, work, done)) for work in works]


def test_small_writes_wait_for_few_of_many_large_ones(tmp_path: Path) -> None:
    """They are handed to the thread some at a time; large ones of another client are next, however many wait."""

    async def test() -> None:
        async with store_in(tmp_path) as store:
            writer, done = store.writer, list[str]()

            def large() -> Coroutine[Any, Any, Any]:
                draft = word()
                return writer.submit_in_turn(Append(draft), (draft,), LARGE_AT_ONCE // 2)

            with held(writer):
                tasks = tasks_of("flood", [large() for _ in range(30)], done)
                await asyncio.sleep(0)
                tasks += tasks_of("small", [writer.append(word())], done) + tasks_of("large", [large()], done)
                await until(lambda: sum(map(len, writer.large.waiting.values())) == 29)
            await asyncio.gather(*tasks)
            assert done.index("small") <= 2
            assert done.index("large") <= 5

    run(test)


def test_a_client_with_many_reads_leaves_the_next_connection_to_another(tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(tmp_path) as store:
            reader, begun = store.reader, list[str]()

            async def look() -> None:
                async with reader.lend() as connection:
                    begun.append(str(WHO.get()))
                    await connection.rows("SELECT 1")

            tasks = tasks_of("flood", [look() for _ in range(50)], [])
            await asyncio.sleep(0)
            tasks += tasks_of("other", [look()], [])
            await asyncio.gather(*tasks)
            assert begun.index("other") <= 2 * CONNECTIONS + 1
            assert len(reader.free) == CONNECTIONS

    run(test)


def test_what_is_larger_than_all_has_it_alone() -> None:
    async def test() -> None:
        turns, most, now = Turns(3), 0, 0

        async def take(size: int) -> None:
            nonlocal most, now
            async with turns.of(size):
                now += size
                most = max(most, now)
                await asyncio.sleep(0)
                now -= size

        await asyncio.gather(*map(take, [1, 2, 1, 9, 1, 3, 2]))
        assert (most, turns.free, turns.waiting) == (9, 3, {})

    run(test)


def test_who_goes_away_holds_nothing() -> None:
    """While he waits, and at the moment in which it is his turn."""

    async def test() -> None:
        turns = Turns(1)
        await turns.take(1)
        waiting = [asyncio.create_task(turns.take(1)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        turns.give(1)
        waiting[1].cancel()  # he was given it, and has not heard of it yet
        await waiting[2]
        assert turns.free == 0
        turns.give(1)
        assert (turns.free, turns.waiting) == (1, {})

    run(test)
