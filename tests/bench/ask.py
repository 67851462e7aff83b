"""`ask`: how long a lake takes for each question that is asked often, with DuckDB on two processors.

The lake is that of a database as tests.bench.million makes it; ASK_EVENTS says of how many events (200,000), and
ASK_LAKE names a folder that keeps both for the next time. Beside it the same questions are asked of the database, which
has indexes for them.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from lake.asking import ask, open_lake, question
from lake.sealer import open_store
from sessionstore.analytics.catalogue import questions
from tests.bench import million
from tests.bench.figures import Figure, Target, Unsound
from tests.lakes import seal

EVENTS = int(os.environ.get("ASK_EVENTS", "200000"))
SHARD = "bench"
GIVEN = {"session": million.session_id(20), "word": "token", "days": "3650", "from": "2026-01-01"}


def measure(rounds: int) -> list[Figure]:
    took: dict[str, list[float]] = {name: [] for name in questions()}
    here: dict[str, list[float]] = {name: [] for name in questions()}
    with (
        folder_of_lake() as folder,
        open_lake((folder / "lake").as_uri()) as lake,
        closing(open_store(folder / "sessions.db")) as database,
    ):
        for _ in range(rounds):
            for name, known in questions().items():
                given = {parameter: GIVEN.get(parameter, "") for parameter in known.parameters}
                took[name].append(seconds(partial(ask, lake, question(name, given))))
                here[name].append(seconds(partial(answered, database, known.sql, given)))
    return [*figures(took, here)]


def answered(database: sqlite3.Connection, sql: str, given: dict[str, str]) -> list[tuple[object, ...]]:
    return database.execute(sql, given).fetchall()


def seconds(run: Callable[[], object]) -> float:
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def figures(took: dict[str, list[float]], here: dict[str, list[float]]) -> Iterator[Figure]:
    """The slowest, which has to be soon enough, and the half of them that is not so slow; beside what SQLite took."""
    by_time = sorted(took, key=lambda name: median(took[name]))
    for name, what, most in ((by_time[-1], "the slowest", 5.0), (by_time[len(by_time) // 2], "the median", 1.0)):
        compared = f"{name}, {what} of the questions, of a lake of {EVENTS:,} events"
        yield Figure("ask", compared, "s", took[name], Target(most, at_most=True))
        yield Figure("ask", f"{name}, of the database instead", "s", here[name], Target(5, at_most=True))


@contextmanager
def folder_of_lake() -> Iterator[Path]:
    """Made where it is not there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("ASK_LAKE", temporary))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "sessions.db").exists():
            million.fill(folder / "sessions.db", million.drafts(EVENTS))
        while seal(folder / "sessions.db", (folder / "lake").as_uri(), SHARD):
            pass
        with open_lake((folder / "lake").as_uri()) as lake:
            if ask(lake, "SELECT count(*) FROM events").rows != [(EVENTS,)]:
                raise Unsound(f"{folder} has another lake than one of {EVENTS:,} events")
        yield folder
