"""`material`: conversations shipped and taken back, what a step of a graph costs on disk, what events pay for it."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from langgraph.checkpoint.base import empty_checkpoint

from containers.langgraph_checkpointer import SessionStoreSaver
from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import own_process
from tests.wire import NDJSON

BATCH = 1 << 20
SHIPPED, RESTORED = 100_000_000, 50_000_000
SHIPPERS = 10
ACTIONS = 300
STEPS = 100
LINE = json.dumps({"type": "assistant", "message": {"content": "The words of a model, and what it has read. " * 20}})
HEADERS = {"content-type": NDJSON}


def measure(rounds: int) -> list[Figure]:
    shipped, restored, alone, beside, steps = [], [], [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Appliance(folder, {"SESSIONS_MAX_MATERIAL": "20G,20G"}))
        generator = stack.enter_context(own_process())
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))
        for number in range(rounds):
            shipped.append(_ship(http, f"{number}", SHIPPED))
            restored.append(_take_back(http, f"{number}"))
            alone.append(_actions(http))
            beside.append(_beside_shippers(generator, server, http, number))
            steps.append(_step(server, f"{number}"))
    return [
        Figure("material", "lines of a conversation, in batches of 1 MiB", "MB a second", shipped, Target(20)),
        Figure("material", "50 MB of it back", "s", restored, Target(5, at_most=True)),
        Figure("material", f"p99 of actions while {SHIPPERS} ship", "ms", beside, Target(1.5, at_most=True), alone),
        Figure("material", "a step of 50 kB of which 1 kB is new", "bytes on disk", steps, Target(4000, at_most=True)),
    ]


def _lines(size: int) -> bytes:
    return (LINE.encode() + b"\n") * (size // (len(LINE) + 1))


def _ship(http: httpx.Client, name: str, size: int) -> float:
    lines = _lines(BATCH)
    begun = time.perf_counter()
    for number in range(size // len(lines)):
        http.post(f"/api/transcripts/bench/{name}", content=lines, headers=HEADERS | {"idempotency-key": f"{number}"})
    seconds = time.perf_counter() - begun
    kept = int(http.head(f"/api/transcripts/bench/{name}").headers["content-length"])
    if kept < size - len(lines):
        raise Unsound(f"{kept} bytes of {size} were kept")
    return kept / seconds / 1e6


def _take_back(http: httpx.Client, name: str) -> float:
    begun, size = time.perf_counter(), 0
    with http.stream("GET", f"/api/transcripts/bench/{name}") as answer:
        for piece in answer.iter_bytes():
            size += len(piece)
            if size >= RESTORED:
                break
    return time.perf_counter() - begun


def _actions(http: httpx.Client) -> float:
    """Milliseconds within which 99 of 100 are on disk."""
    taken = []
    for _ in range(ACTIONS):
        begun = time.perf_counter()
        http.post("/api/actions/bench", json={"type": "file_write", "path": "src/server.js"}).raise_for_status()
        taken.append((time.perf_counter() - begun) * 1000)
    return quantiles(taken, n=100)[98]


def _ship_all(url: str, number: int, until: str) -> None:
    """Ten agents that ship what a busy one says, a batch of 20 kB ten times a second each; while a file is there."""

    def ship(shipper: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while os.path.exists(until):
                http.post(f"/api/transcripts/busy-{number}/{shipper}", content=_lines(20_000), headers=HEADERS)
                time.sleep(0.1)

    threads = [threading.Thread(target=ship, args=(shipper,)) for shipper in range(SHIPPERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _beside_shippers(generator: Executor, server: Appliance, http: httpx.Client, number: int) -> float:
    with tempfile.NamedTemporaryFile() as until:
        shipping = generator.submit(_ship_all, server.url, number, until.name)
        while http.head(f"/api/transcripts/busy-{number}/0").status_code != 200:
            time.sleep(0.05)
        taken = _actions(http)
    shipping.result()
    return taken


def _step(server: Appliance, thread: str) -> float:
    saver = SessionStoreSaver(server.url)
    values: dict[str, Any] = {f"channel-{number}": os.urandom(5_000) for number in range(10)}
    versions: Any = {name: saver.get_next_version(None, None) for name in values}
    config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    config = saver.put(config, _checkpoint(values, versions), {"step": 0}, versions)
    before = _used(server)
    for number in range(STEPS):
        values["channel-0"] = os.urandom(1_000)
        versions["channel-0"] = saver.get_next_version(versions["channel-0"], None)
        config = saver.put(
            config, _checkpoint(values, versions), {"step": number}, {"channel-0": versions["channel-0"]}
        )
        saver.put_writes(config, [("channel-0", values["channel-0"])], "task")
    return (_used(server) - before) / STEPS


def _checkpoint(values: dict[str, Any], versions: Any) -> Any:
    return empty_checkpoint() | {"channel_values": dict(values), "channel_versions": dict(versions)}


def _used(server: Appliance) -> int:
    database = sqlite3.connect(f"file:{server.folder / 'sessions.db'}?mode=ro", uri=True)
    ((pages,), (free,), (size,)) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    database.close()
    return int((pages - free) * size)
