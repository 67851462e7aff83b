"""Datasette's process: what becomes of a question where none can be started, and of those that hold it up."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sessionstore.analytics import datasette_process
from sessionstore.analytics.datasette_process import DatasetteProcess
from sessionstore.model.problems import Problem
from sessionstore.store.schema import open_writer
from tests.peers import SECONDS


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


async def ask(datasette: DatasetteProcess, sql: str = "select+1+as+one") -> bytes:
    """Head and body."""
    request = b"GET /sessions.json?_shape=arrays&sql=%s HTTP/1.1\r\nconnection: close\r\n\r\n" % sql.encode()
    async with datasette.asked(request) as (head, body):
        return head + await body.read()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.db"
    open_writer(path, durability="normal").close()
    return path


def test_who_asks_a_process_that_cannot_be_started_is_told_so(database: Path) -> None:
    async def test() -> None:
        datasette = DatasetteProcess(database)
        with no_more_descriptors():
            for _ in range(3):
                with pytest.raises(Problem, match="could not be started: Too many open files"):
                    await ask(datasette)
        assert b'"rows": [[1]]' in await ask(datasette)
        assert datasette.failures == 3
        await datasette.stop()

    asyncio.run(test())


def test_one_that_has_become_large_is_replaced_when_nobody_asks(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        datasette = DatasetteProcess(database)
        await ask(datasette)
        monkeypatch.setattr(datasette_process, "MAX_RESIDENT_BYTES", 1 << 20)
        for number in range(2):
            answers = await asyncio.gather(*(ask(datasette) for _ in range(4)))
            assert all(b'"rows": [[1]]' in answer for answer in answers)
            async with asyncio.timeout(SECONDS):
                while datasette.process is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert datasette.starts == number + 1
            assert datasette.folder is not None
            datasette.folder.cleanup()  # as those do that tidy /tmp
        assert datasette.failures == 0
        await datasette.stop()

    asyncio.run(test())


LETTERS = "replace(hex(zeroblob(1200000)),'0','a')"
UNINTERRUPTIBLE = f"select+instr({LETTERS},substr({LETTERS},1,1000000)||'b')".replace("|", "%7C")


@pytest.mark.long
def test_who_asks_beside_a_question_that_cannot_be_interrupted_is_answered(database: Path) -> None:
    async def test() -> None:
        datasette = DatasetteProcess(database)
        endless = asyncio.create_task(ask(datasette, UNINTERRUPTIBLE))
        others = []
        while not endless.done():
            others.append(await ask(datasette))
        with pytest.raises(Problem, match="took too long"):
            await endless
        assert datasette.starts > 1, "it had to be ended"
        assert len(others) > 5 and all(b'"rows": [[1]]' in other for other in others)
        await datasette.stop()

    asyncio.run(test())
