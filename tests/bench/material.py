"""`material`: transcripts shipped and written back, what a step of a graph costs on disk, what events pay for it."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import Executor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any
from unittest import mock

import httpx
from langgraph.checkpoint.base import empty_checkpoint

import hook_agent
from containers.langgraph_checkpointer import SessionStoreSaver
from hook_agent import Spool, _Link
from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import own_process

ship: Any = hook_agent._beside("hook_agent_ship", "to ship")
restore: Any = hook_agent._beside("hook_agent_restore", "to restore")
names = (f"transcript-{number}" for number in count())
SHIPPED, RESTORED = 100_000_000, 50_000_000
SHIPPERS = 10
ACTIONS = 300
STEPS = 100
LINE = json.dumps({"type": "assistant", "message": {"content": "The words of a model, and what it has read. " * 20}})


def measure(rounds: int) -> list[Figure]:
    shipped, restored, alone, beside, steps = [], [], [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Appliance(folder, {"SESSIONS_MAX_MATERIAL": "20G,20G"}))
        generator = stack.enter_context(own_process())
        http = stack.enter_context(httpx.Client(base_url=server.url, timeout=60))
        for number in range(rounds):
            shipped.append(_ship(http, server, folder, SHIPPED))
            restored.append(_write_back(http, server, folder))
            alone.append(_actions(http))
            beside.append(_beside_shippers(generator, server, http, number))
            steps.append(_step(server, f"{number}"))
    return [
        Figure("material", "a transcript of 100 MB, shipped", "MB a second", shipped, Target(20)),
        Figure("material", "one of 50 MB, written back", "s", restored, Target(5, at_most=True)),
        Figure("material", f"p99 of actions while {SHIPPERS} ship", "ms", beside, Target(1.5, at_most=True), alone),
        Figure("material", "a step of 50 kB of which 1 kB is new", "bytes on disk", steps, Target(4000, at_most=True)),
    ]


def _lines(size: int) -> bytes:
    return (LINE.encode() + b"\n") * (size // (len(LINE) + 1))


def _shipper(url: str, path: Path) -> Any:
    """What ships this transcript, once it has heard of it."""
    (path.parents[3] / "spool").mkdir(parents=True, exist_ok=True)
    spool = Spool(url, str(path.parents[3] / "spool"))
    spool.settle()
    made = ship.Shipper(spool, _Link(url, ""))
    payload = {"session_id": path.stem, "hook_event_name": "UserPromptSubmit", "transcript_path": str(path)}
    made.hear([({}, payload, path.stem)])
    return made


def _transcript(folder: Path, name: str, lines: bytes = b"") -> Path:
    path = folder / name / "projects" / "bench" / f"{name}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(lines)
    return path


def _ship(http: httpx.Client, server: Appliance, folder: Path, size: int) -> float:
    name = next(names)
    path = _transcript(folder, name, _lines(size))
    shipper = _shipper(server.url, path)
    begun = time.perf_counter()
    while shipper.step():
        pass
    seconds = time.perf_counter() - begun
    shipper.link.close()
    kept = int(http.head(f"/api/transcripts/bench/{name}").headers["content-length"])
    if kept != path.stat().st_size:
        raise Unsound(f"{kept} bytes of {size} were kept")
    path.unlink()
    return kept / seconds / 1e6


def _write_back(http: httpx.Client, server: Appliance, folder: Path) -> float:
    _ship(http, server, folder, RESTORED)
    name = f"transcript-{int(next(names).rpartition('-')[2]) - 1}"
    http.post(f"/api/actions/{name}", json={"type": "x"}).raise_for_status()
    back = str(folder / f"{name}-back")
    env = {"SESSION_SERVICE_URL": server.url, "CLAUDE_CONFIG_DIR": back, "CLAUDE_CODE_PROJECT_DIR_NAME": "bench"}
    begun = time.perf_counter()
    with mock.patch.dict(os.environ, env):
        restore.restored(name, back)
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
    """Ten agents at work, each with its shipper: 20 kB more ten times a second; while a file is there."""

    def work(agent: int, folder: Path) -> None:
        path = _transcript(folder, f"busy-{number}-{agent}")
        shipper = _shipper(url, path)
        while os.path.exists(until):
            with path.open("ab") as file:
                file.write(_lines(20_000))
            shipper.step()
            time.sleep(0.1)
        shipper.link.close()

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=work, args=(agent, Path(folder))) for agent in range(SHIPPERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _beside_shippers(generator: Executor, server: Appliance, http: httpx.Client, number: int) -> float:
    with tempfile.NamedTemporaryFile() as until:
        shipping = generator.submit(_ship_all, server.url, number, until.name)
        while http.head(f"/api/transcripts/bench/busy-{number}-0").status_code != 200:
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
