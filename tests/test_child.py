"""A process of our own that is asked and answers: what becomes of a question where none can be started."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sessionstore.analytics.datasette_app import WALLS, Interrupted, Walls
from sessionstore.analytics.sandbox import Found, Query
from sessionstore.analytics.worker_process import Child, Gone
from sessionstore.store.schema import open_writer

ONE = Query("SELECT 1 AS one", {}, 1.0, 10)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """So that no process can be started: its pipes cannot be made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filling = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            filling.append(os.dup(0))
    except OSError:
        yield
    finally:
        for descriptor in filling:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "sessions.db"
    open_writer(path, durability="normal").close()
    return str(path)


def test_who_asks_a_process_that_cannot_be_started_is_told_so(database: str) -> None:
    async def test() -> None:
        child = Child("sessionstore.analytics.sandbox", database)
        with no_more_descriptors():
            for _ in range(3):
                with pytest.raises(Gone, match="could not be started: Too many open files"):
                    await child.ask(ONE, 1.0)
        assert msgspec.msgpack.decode(await child.ask(ONE, 5.0), type=Found).rows == [[1]]
        await child.end()

    asyncio.run(test())


def test_a_worker_that_cannot_be_started_is_not_lost(database: str) -> None:
    """After as many such moments as there are workers, every question was one too many."""

    async def test() -> None:
        walls = Walls(database)
        await walls.open()
        assert (await walls.find(ONE)).rows == [[1]]
        for child in walls.children:
            child.kill()
        with no_more_descriptors():
            for _ in range(2 * WALLS):
                with pytest.raises(Interrupted, match="could not be started"):
                    await walls.find(ONE)
        for _ in range(2 * WALLS):
            assert (await walls.find(ONE)).rows == [[1]]
        await asyncio.gather(*walls.tasks)
        assert walls.free.qsize() == WALLS
        await walls.stop()

    asyncio.run(test())
