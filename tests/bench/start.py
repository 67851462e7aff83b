"""`start`: how soon a store of a gigabyte is ready, after an end that left 64 MiB in its log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from sessionstore.model.events import Draft, event_ids
from sessionstore.store.appender import Appender
from sessionstore.store.disk import size_of
from sessionstore.store.maintenance import index_search
from sessionstore.store.schema import open_writer
from tests.appliance import REPOSITORY, Appliance
from tests.bench.figures import Figure, Target, Unsound

DATABASE_BYTES = 1 << 30
LOG_BYTES = 64 << 20
EVENT_BYTES = 20_000
EVENTS_AT_ONCE = 500
SESSIONS = 1000
STARTS_A_ROUND = 4


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        subprocess.run([sys.executable, "-m", __name__, str(made)], cwd=REPOSITORY, check=True)
        starts = [start(made, Path(folder) / "copy") for _ in range(rounds * STARTS_A_ROUND)]
    what = f"from exec to ready with {DATABASE_BYTES >> 30} GiB and {LOG_BYTES >> 20} MiB in the log"
    soon = Target(2, at_most=True)
    return [
        Figure("start", what, "s", starts, soon),
        Figure("start", f"{what}, the slowest of {len(starts)}", "s", [max(starts)], soon),
    ]


def start(made: Path, copy: Path) -> float:
    shutil.copytree(made, copy)
    try:
        if size_of(copy / "sessions.db-wal") < LOG_BYTES:
            raise Unsound("there is nothing in the log that a start has to read")
        server = Appliance(copy, {"SESSIONS_TREE": "off"})
        seconds = server.start(until="/ready")
        server.kill()
        return seconds
    finally:
        shutil.rmtree(copy)


def make(folder: Path) -> None:
    """A store as a kill leaves it: nothing of the last 64 MiB is in the database itself. Does not return."""
    folder.mkdir(parents=True)
    path = folder / "sessions.db"
    connection = open_writer(path, durability="normal")
    appender = Appender(connection, clock=lambda: "2026-02-14T00:00:00.000Z", ids=event_ids())
    numbers = count()
    while size_of(path) < DATABASE_BYTES:
        fill(appender, numbers)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    while size_of(path.with_name(f"{path.name}-wal")) < LOG_BYTES:
        fill(appender, numbers)
    os._exit(0)


def fill(appender: Appender, numbers: count[int]) -> None:
    appender.begin()
    for number in (next(numbers) for _ in range(EVENTS_AT_ONCE)):
        data = {"type": "file_write", "path": f"src/{number}.js", "text": "x" * EVENT_BYTES}
        appender.append(Draft(type="action", session_id=f"s-{number % SESSIONS}", data=data))
    appender.commit()
    index_search(appender.connection, limit=EVENTS_AT_ONCE * 2)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
