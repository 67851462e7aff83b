"""`lake`: what sealing costs: processor, memory and bytes an event, and the time of an action beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from resource import struct_rusage
from subprocess import PIPE
from typing import Any, NamedTuple

import obstore

from lake.bucket import open_bucket
from sessionstore.store.schema import open_writer
from sessionstore.store.shard import keep_shard
from sessionstore.upkeep.lake import ENVIRONMENT
from tests.appliance import REPOSITORY, Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import cpu_seconds, fresh_open_loop, own_process, percentile
from tests.bench.million import drafts, fill
from tests.lakes import Place, storage
from tests.peers import most_resident_bytes, resident_bytes
from tests.wire import http_request

EVENTS = int(os.environ.get("LAKE_EVENTS", 2_000_000))
MOST_BYTES, MOST_MICROSECONDS, MOST_MEBIBYTES = 260, 25, 250
MOST_TO_RESTORE, MOST_MEBIBYTES_TO_RESTORE = 40, 300
RATE, SECONDS, CONNECTIONS = 2000, 8.0, 16
EVERY = 5
"""Seconds an event waits for its seal: a sixtieth of the default; the S3 server has the same two processors."""
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'
REQUESTS = [http_request("POST", f"/api/actions/bench-{number % 8}", ACTION) for number in range(8)]


class Cost(NamedTuple):
    """Of sealing all events of one database, or bringing them back."""

    microseconds: float
    mebibytes: float
    bytes: float


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        running = stack.enter_context(storage())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        whole = running.place()
        cost = cost_of_sealing(folder / "large", whole)
        back = cost_of_restoring(folder / "back", whole)
        places = [{}, settings_of(running.place())]
        servers = [
            stack.enter_context(Appliance(folder / name, place))
            for name, place in zip(("without", "with"), places, strict=True)
        ]
        generator = stack.enter_context(own_process())
        waits: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for server, waited in zip(servers, waits, strict=True):
                load = (server.port, REQUESTS, RATE, CONNECTIONS, SECONDS)
                posted = generator.submit(fresh_open_loop, *load).result()
                waited.append(percentile([event.took_ms for event in posted], 0.99))
        memory = [resident_bytes(server.process.pid) / (1 << 20) for server in servers]
    of = f"of {EVENTS:,} events"
    return [
        Figure(
            "lake", f"processor to seal one {of}", "µs", [cost.microseconds], Target(MOST_MICROSECONDS, at_most=True)
        ),
        Figure("lake", f"memory of the sealer {of}", "MB", [cost.mebibytes], Target(MOST_MEBIBYTES, at_most=True)),
        Figure(
            "lake",
            f"processor to bring one back {of}",
            "µs",
            [back.microseconds],
            Target(MOST_TO_RESTORE, at_most=True),
        ),
        Figure(
            "lake",
            f"memory of bringing them back {of}",
            "MB",
            [back.mebibytes],
            Target(MOST_MEBIBYTES_TO_RESTORE, at_most=True),
        ),
        Figure("lake", f"bytes in the bucket of one {of}", "B", [cost.bytes], Target(MOST_BYTES, at_most=True)),
        Figure(
            "lake",
            f"p99 of an action at {RATE:,} a second with SESSIONS_LAKE, sealed every {EVERY} s, against without",
            "ms",
            waits[1],
            Target(1.3, at_most=True),
            waits[0],
        ),
        Figure(
            "lake",
            "memory of the server itself with SESSIONS_LAKE, against without",
            "MB",
            [memory[1]],
            Target(1.05, at_most=True),
            [memory[0]],
        ),
    ]


def settings_of(place: Place) -> dict[str, str]:
    return {"SESSIONS_LAKE": place.url, "SESSIONS_LAKE_EVERY": f"{EVERY}", **place.environment}


def cost_of_sealing(folder: Path, place: Place) -> Cost:
    folder.mkdir()
    fill(folder / "sessions.db", drafts(EVENTS))
    with closing(open_writer(folder / "sessions.db")) as writer:
        keep_shard(writer, "bench")
        ((events,),) = writer.execute("SELECT max(cursor) FROM events").fetchall()
    microseconds, memory = seal_all(folder / "sessions.db", place, events)
    os.environ.update(place.environment)
    stored = sum(found["size"] for page in obstore.list(open_bucket(place.url)) for found in page)
    return Cost(microseconds, memory / (1 << 20), stored / events)


def seal_all(path: Path, place: Place, head: int) -> tuple[float, int]:
    """By the server's child: microseconds of processor an event, and the most memory in bytes."""
    command = [sys.executable, "-m", "lake", str(path), place.url, "bench", "1", "off"]
    env = {**os.environ, **ENVIRONMENT, **place.environment}
    with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdin=PIPE, stdout=PIPE, text=True) as sealer:
        assert sealer.stdout is not None
        said: dict[str, Any] = {}
        while said.get("sealed") != head:
            if not (line := sealer.stdout.readline()):
                raise Unsound(f"the sealer ended after {said}")
            said = json.loads(line)
        found = cpu_seconds(sealer.pid) / head * 1e6, most_resident_bytes(sealer.pid)
        sealer.kill()
    return found


def cost_of_restoring(folder: Path, place: Place) -> Cost:
    used = used_by("restore", place.url, "--into", str(folder), env={**os.environ, **place.environment})
    with closing(open_writer(folder / "sessions.db")) as restored:
        ((events,),) = restored.execute("SELECT count(*) FROM events").fetchall()
    size = (folder / "sessions.db").stat().st_size
    return Cost((used.ru_utime + used.ru_stime) / events * 1e6, used.ru_maxrss / 1024, size / events)


def used_by(*command: str, env: Mapping[str, str]) -> struct_rusage:
    """What a command of `python -m export` has used of the machine."""
    ours = [sys.executable, "-m", "export", *command]
    running = subprocess.Popen(ours, cwd=REPOSITORY, env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise Unsound(f"{' '.join(command)} ended with {running.returncode}")
    return used
