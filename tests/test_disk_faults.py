"""A disk that fails for a moment, at any call, is a pause: nothing is lost, and nothing has to be mended."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx

from tests import crash
from tests.appliance import Appliance
from tests.commands import export, is_done
from tests.insistent import Insistent, Reader, load
from tests.peers import eventually
from tests.repeats import repeated
from tests.tracing import Injection, failing

LOAD_SECONDS = 0.3
HEALTHY_SECONDS = 5.0
"""After the fault has ended."""
CALLS = {"pwrite64": 200, "fdatasync": 20, "openat": 60, "renameat": 20, "ftruncate": 4, "fsync": 6}
"""What fails, and up to which number of it the failing begins."""


def all_faults(runs: int, seed: int = 0) -> Iterator[list[Injection]]:
    """One or two at a time, once or from then on."""
    chance = random.Random(seed)
    for _ in range(runs):
        yield [injection(chance) for _ in range(chance.choice((1, 1, 2)))]


def injection(chance: random.Random) -> Injection:
    call = chance.choice([*CALLS, "pwrite64", "fdatasync"])
    when = f"{chance.randint(1, CALLS[call])}{chance.choice(('', '+'))}"
    return Injection(call, chance.choice(("EIO", "ENOSPC")), when)


def metric(server: Appliance, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"sessionstore_{name}"))


def is_ready(server: Appliance) -> bool:
    return httpx.get(f"{server.url}/ready").status_code == 200


def tree_is_level(server: Appliance) -> bool:
    tree = httpx.get(f"{server.url}/health").json()["tree"]
    return (tree["status"], tree["lag"]) == ("ok", 0)


@repeated("runs", few=2, many=30, variable="DISK_FAULTS")
def test_a_disk_that_fails_at_any_call_loses_nothing_and_is_a_pause(tmp_path: Path, runs: int) -> None:
    writers = [Insistent(f"w-{number}", f"faulty-{number % 2}") for number in range(4)]
    reader = Reader("/api/actions/faulty-0?limit=5&order=desc")
    with Appliance(tmp_path) as server:
        asyncio.run(load(server.port, writers, LOAD_SECONDS))
        for faults in all_faults(runs):
            with failing(server.process.pid, *faults), suppress(OSError):
                asyncio.run(load(server.port, [*writers, reader], LOAD_SECONDS))
            if not server.running:  # seldom: see test_wal.py
                assert "Nothing is lost" in server.output
                server.start()
            eventually(lambda: is_ready(server), HEALTHY_SECONDS)
        eventually(lambda: tree_is_level(server))
        assert metric(server, "commit_failures_total") > runs / 3, "the faults came through"
        assert metric(server, "export_errors_total") > 0 or runs < 30, "one in some runs meets the tree"
        logs = asyncio.run(crash.action_logs(server.port, sorted({writer.session for writer in writers})))
        assert server.stop().code == 0
        assert "Traceback" not in server.output
    statuses = sum((writer.statuses for writer in writers), Counter[int]())
    assert (set(statuses), set(reader.statuses)) == ({200, 503}, {200})
    assert crash.report(0, [], writers, logs).faults == []
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert is_done(export(tmp_path, "verify", "--full"))
