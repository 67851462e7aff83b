"""Events that are made to keep a store busy, and how long others wait beside them."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.appliance import Server

MIB = 1 << 20
STALL = 0.05
"""Seconds of work that others may wait for beside one event: 20 ms are wanted, and this machine is not always quiet."""
TRIES = 5
NEAR = "token=a1b2c3d4e5f6g7"


def long_text(unit: str) -> dict[str, Any]:
    return {"type": "x", "hint": "token=a", "text": unit * ((MIB - 256) // len(unit.encode()))}


def nested(depth: int, core: Any) -> Any:
    for _ in range(depth):
        core = [core, "x"]
    return core


EVENTS: dict[str, dict[str, Any]] = {
    "SECRET= over and over": long_text("SECRET="),
    "250,000 empty texts": {"type": "x", "texts": [""] * 250_000, "hint": "token=a"},
    "40,000 tokens": {"type": "x", "texts": [NEAR] * 40_000},
    "19,000 tokens": {"type": "x", "texts": [NEAR] * 19_000},
    "2,500 tokens": {"type": "x", "texts": [NEAR] * 2_500},
    "650 tokens, through the door": {"type": "x", "texts": [NEAR] * 650},
    "members named token": {"type": "x", "texts": [{"token": NEAR}] * 19_000},
    "deep": {"type": "x", "hint": "token=a", "deep": [nested(60, "token=a1")] * 300},
    "wide": {"type": "x", "hint": "token=a", "wide": [[]] * 250_000},
    "long names": {"type": "x", "hint": "token=a", "names": {f"{n:05}" + "token=" * 100: "x" for n in range(1_600)}},
    "one long line": long_text('token="a1' + "a" * (MIB - 300)),
    "base64": long_text("QUJDa1+/"),
    "words of secrets": long_text("a token, the password of an api key, https://a:b task-12 secret_access_key "),
    "schemes": long_text("://a:"),
    "prefixes": long_text("sk-a "),
    "no ASCII": long_text("é token=a1 "),
    "marks": long_text("_-_@"),
    "prose": long_text("The build went well, and all of it took twelve seconds. "),
}
"""By name, the data of an action; each has at most 1 MiB."""


def body_of(name: str) -> bytes:
    return json.dumps(EVENTS[name], ensure_ascii=False, separators=(",", ":")).encode()


def post(server: Server, path: str, body: bytes, media_type: str = "application/json") -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60.0)
    try:
        connection.request("POST", path, body, {"content-type": media_type})
        return connection.getresponse().status
    finally:
        connection.close()


class Wait(NamedTuple):
    """Of one who asks for /health while the server has other things to do."""

    seconds: float
    """As the clock has it; on a machine that is busy with others, too, mostly theirs."""
    work: float
    """Seconds of processor time that the server spent meanwhile."""


class Clock:
    """The time that passes for a thread of ours and a server, without that in which the machine runs others: not only
    its event loop may have to wait for a processor, but also a thread that it waits for, which has the interpreter."""

    def __init__(self, server: Server) -> None:
        self.tasks = Path(f"/proc/{server.process.pid}/task")
        self.mine = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}")

    def now(self) -> float:
        return time.monotonic() - sum(scheduled(task).in_queue for task in (self.mine, *self.tasks.iterdir()))


class Scheduled(NamedTuple):
    """Of one thread, in seconds, to the nanosecond."""

    on_processor: float
    in_queue: float
    """In which it could have run."""


def scheduled(task: Path) -> Scheduled:
    with suppress(OSError):  # a thread that has just ended
        on_processor, in_queue, _ = map(int, (task / "schedstat").read_text().split())
        return Scheduled(on_processor / 1e9, in_queue / 1e9)
    return Scheduled(0.0, 0.0)


def worst_wait(server: Server, meanwhile: Callable[[], object]) -> Wait:
    """The longest of those who ask again and again, by the clock and by work."""
    waits: list[Wait] = []
    is_over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60.0)
        while not is_over.is_set():
            begun, work = time.perf_counter(), processor_seconds(server.process.pid)
            connection.request("GET", "/health")
            connection.getresponse().read()
            waits.append(Wait(time.perf_counter() - begun, processor_seconds(server.process.pid) - work))
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        meanwhile()
    finally:
        is_over.set()
        asking.join()
    return Wait(max(wait.seconds for wait in waits), max(wait.work for wait in waits))


def least_wait(server: Server, meanwhile: Callable[[], object]) -> float:
    """The least of several worst waits, or the first that is as it should be."""
    waits: list[float] = []
    while len(waits) < TRIES and min(waits, default=1.0) > STALL:
        waits.append(worst_wait(server, meanwhile).work)
    return min(waits)


def processor_seconds(pid: int) -> float:
    """Of all its threads that are there now."""
    return sum(scheduled(task).on_processor for task in Path(f"/proc/{pid}/task").iterdir())
