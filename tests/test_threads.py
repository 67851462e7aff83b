"""Threads of checkpoints on a real writer: much is removed some at a time, and nothing that is named goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sessionstore.appliance import Store
from sessionstore.store.checkpoints import REMOVED_AT_ONCE
from sessionstore.store.material import Provenance
from tests.test_writer import run, store_in, until

EMPTY = {"type": "x", "data": ""}
VALUE = {"value": {"channel": "c", "version": 1, "value": EMPTY}}
COUNTS = "SELECT (SELECT count(*) FROM checkpoints), (SELECT count(*) FROM checkpoint_channels)"
SIZES = "SELECT sum(bytes) FROM material_sizes WHERE scope LIKE 'rows of %'"
MEASURED = """
SELECT (SELECT sum(length(packed) + length(about) + length(versions)) FROM checkpoints)
     + (SELECT coalesce(sum(length(ns) + length(channel)), 0) FROM checkpoint_channels)"""


def checkpoint(number: int, run_id: str = "r", **versions: int) -> dict[str, Any]:
    about = {"run_id": run_id}
    what = {"id": f"{number:08}", "checkpoint": EMPTY, "metadata": EMPTY, "versions": versions, "about": about}
    return {"checkpoint": what}


async def take(store: Store, *lines: dict[str, Any]) -> None:
    async def each() -> AsyncIterator[bytes]:
        for line in lines:
            yield json.dumps(line).encode()

    await store.threads.take("t", Provenance(), each())


async def remove_all_but_the_last(store: Store, number: int) -> int:
    """How many commits it took."""
    found = await store.threads.find("t")
    assert found is not None
    before = store.writer.commits
    assert await store.threads.prune(found, {"": [f"{number:08}"]}) == number
    return store.writer.commits - before


def test_a_thread_is_pruned_some_checkpoints_at_a_time(tmp_path: Path) -> None:
    """Others who write wait for one step of it, not for a million checkpoints."""
    number = 2 * REMOVED_AT_ONCE + 1

    async def test() -> None:
        async with store_in(tmp_path) as store:
            await take(store, VALUE, *(checkpoint(at) for at in range(number)))
            await take(store, checkpoint(number))
            assert await remove_all_but_the_last(store, number) >= 3
            assert await store.reader.row(COUNTS) == (1, 0)
            assert await store.reader.row(SIZES) == await store.reader.row(MEASURED)

    run(test)


def test_what_a_run_made_goes_from_its_threads_and_nothing_else(tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(tmp_path) as store:
            await take(store, VALUE, checkpoint(1, "other", c=1), *(checkpoint(at) for at in range(2, 9)))
            found = await store.threads.find("t")
            assert found is not None
            assert await store.threads.delete_runs([found.thread_row], ["r"]) == 7
            assert await store.reader.row(COUNTS) == (1, 1)

    run(test)


def test_a_value_stays_that_a_checkpoint_names_while_it_is_swept(tmp_path: Path) -> None:
    """It comes when all others have been looked at, and before what they do not name is removed."""

    async def test() -> None:
        async with store_in(tmp_path) as store:
            await take(store, VALUE, checkpoint(1))
            found = await store.threads.find("t")
            assert found is not None
            async with store.intake.turn.of():
                tasks = [asyncio.create_task(take(store, checkpoint(2, c=1)))]
                await until(lambda: waiting(store) == 1)
                tasks += [asyncio.create_task(store.threads.forget_channels(found.thread_row, ""))]
                await until(lambda: waiting(store) == 2)
            await asyncio.gather(*tasks)
            assert await store.reader.row(COUNTS) == (2, 1)
            await store.threads.prune(found, {"": ["00000002"]})
            assert await store.reader.row(COUNTS) == (1, 1)

    run(test)


def waiting(store: Store) -> int:
    return sum(map(len, store.intake.turn.waiting.values()))
