"""A disk that fails for a moment, at any call, is a pause: nothing acknowledged is lost, and nothing has to be mended."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests import crash
from tests.appliance import Appliance
from tests.commands import export, is_done
from tests.peers import eventually
from tests.tracing import Injection, failing
from tests.wire import HttpClient, connect, http_request

RUNS = int(os.environ.get("DISK_FAULTS", 36))
LOAD_SECONDS = 0.3
HEALTHY_SECONDS = 5.0
"""After the fault has ended."""
CALLS = {"pwrite64": 200, "fdatasync": 20, "openat": 60, "renameat": 20, "ftruncate": 4, "fsync": 6}
"""What fails, and up to which number of it the failing begins."""
SESSIONS = 2


@dataclass
class Insistent(crash.Writer):
    """Sends again what was refused with 503, until it is told to stop."""

    statuses: Counter[int] = field(default_factory=Counter)

    async def insist(self, port: int, until: float) -> None:
        client = await connect(port, HttpClient)
        while time.monotonic() < until:
            event_id = f"{self.name}-{len(self.acknowledged) + 1}"
            answer = await client.ask(crash.action(self.session, event_id))
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.acknowledged[event_id] = crash.acknowledged_seq(answer)
            else:
                await asyncio.sleep(0.01)
        client.close()


@dataclass
class Reader:
    """Reads one page after the other."""

    statuses: Counter[int] = field(default_factory=Counter)

    async def insist(self, port: int, until: float) -> None:
        client = await connect(port, HttpClient)
        while time.monotonic() < until:
            answer = await client.ask(http_request("GET", "/api/actions/faulty-0?limit=5&order=desc"))
            self.statuses[answer.status] += 1
        client.close()


def injections(seed: int) -> Iterator[tuple[Injection, ...]]:
    """One fault or two at a time, once or from then on."""
    chance = random.Random(seed)
    for _ in range(RUNS):
        yield tuple(injection(chance) for _ in range(chance.choice((1, 1, 2))))


def injection(chance: random.Random) -> Injection:
    call = chance.choice([*CALLS, "pwrite64", "fdatasync"])
    return Injection(call, chance.choice(("EIO", "ENOSPC")), f"{chance.randint(1, CALLS[call])}{chance.choice(('', '+'))}")


def metric(server: Appliance, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"sessionstore_{name}"))


def is_ready(server: Appliance) -> bool:
    return httpx.get(f"{server.url}/ready", timeout=30).status_code == 200


def is_level(server: Appliance) -> bool:
    return bool(httpx.get(f"{server.url}/health", timeout=30).json()["tree"]["status"] == "ok") and not metric(server, "export_lag_events")


async def load(server: Appliance, clients: list[Insistent | Reader]) -> None:
    until = time.monotonic() + LOAD_SECONDS
    await asyncio.gather(*(client.insist(server.port, until) for client in clients))


def test_a_disk_that_fails_at_any_call_loses_nothing_and_is_a_pause(tmp_path: Path) -> None:
    writers = [Insistent(f"w-{number}", f"faulty-{number % SESSIONS}") for number in range(4)]
    reader = Reader()
    slowest = 0.0
    with Appliance(tmp_path) as server:
        asyncio.run(load(server, [*writers]))
        for faults in injections(0):
            with failing(server.process.pid, *faults):
                asyncio.run(load(server, [*writers, reader]))
            begun = time.monotonic()
            eventually(lambda: is_ready(server), HEALTHY_SECONDS)
            asyncio.run(load(server, [*writers]))
            slowest = max(slowest, time.monotonic() - begun)
            print([str(f) for f in faults], time.monotonic() - begun, metric(server, "commit_failures_total"), metric(server, "export_errors_total"))
        assert metric(server, "commit_failures_total") > RUNS / 4
        eventually(lambda: is_level(server))
        logs = asyncio.run(crash.action_logs(server.port, sorted({w.session for w in writers})))
        statuses = sum((writer.statuses for writer in writers), Counter())
        assert statuses.keys() == {200, 503}
        assert reader.statuses.keys() == {200}
        assert server.stop().code == 0
    found = crash.report(0, [], writers, logs)
    assert found.faults == []
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert is_done(export(tmp_path, "verify", "--full"))
