"""`backup`: how much longer a write takes at the worst while the server makes one backup after the other."""

from __future__ import annotations

import re
import tempfile
import time
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import open_loop, own_process, percentile
from tests.bench.reads import fill
from tests.wire import http_request

SESSIONS, EVENTS = 300, 500
EVENTS_PER_SECOND = 500
SECONDS = 8
CONNECTIONS = 64
QUIET_SECONDS = 2.0
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'
REQUESTS = [http_request("POST", f"/api/actions/bench-{n % 8}", ACTION) for n in range(EVENTS_PER_SECOND * SECONDS)]


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        with Appliance(folder / "store") as appliance:
            generator.submit(fill, appliance.port, [(f"large-{n}", EVENTS) for n in range(SESSIONS)]).result()
        backups = {"SESSIONS_BACKUP_DIR": str(folder / "backups"), "SESSIONS_BACKUP_EVERY": "1"}
        added, added_p99, took = [], [], []
        for _ in range(rounds):
            with Appliance(folder / "store") as appliance:
                quiet = _latencies(generator, appliance)
            with Appliance(folder / "store", backups) as appliance:
                backing = _latencies(generator, appliance)
                took.append(_seconds_of_backup(appliance))
            added.append(max(backing) - max(quiet))
            added_p99.append(percentile(backing, 0.99) - percentile(quiet, 0.99))
        size = max(path.stat().st_size for path in (folder / "backups").glob("*.db")) >> 20
    during = f"at {EVENTS_PER_SECOND} events a second, with backups of {size} MB one after the other"
    return [
        Figure("backup", f"added to the slowest write {during}", "ms", added, Target(50, at_most=True)),
        Figure("backup", f"added to the p99 of a write {during}", "ms", added_p99, Target(50, at_most=True)),
        Figure("backup", f"a backup of {size} MB, checked, meanwhile", "s", took, Target(SECONDS, at_most=True)),
    ]


def _latencies(generator: Executor, appliance: Appliance) -> list[float]:
    """Milliseconds, of every write."""
    time.sleep(QUIET_SECONDS)
    posted = generator.submit(open_loop, appliance.port, REQUESTS, EVENTS_PER_SECOND, CONNECTIONS).result()
    return [event.took_ms for event in posted]


def _seconds_of_backup(appliance: Appliance) -> float:
    """Raises Unsound where none was made."""
    metrics = httpx.get(f"{appliance.url}/metrics", timeout=30).text
    if found := re.search(r"^sessionstore_backup_duration_seconds ([\d.]+)$", metrics, re.MULTILINE):
        return float(found[1])
    raise Unsound("no backup was made")
