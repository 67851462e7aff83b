"""`groups`: what it costs to group and to filter 10,000 sessions, the latter against the newest of all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop

from tests.appliance import Appliance, Server
from tests.bench.figures import Figure, Target
from tests.bench.load import expect_200, one_by_one, own_process
from tests.wire import NDJSON, HttpClient, connect, http_request

SESSIONS, AT_ONCE = 10_000, 1000
REQUESTS = 40
STATUSES = ("success", "success", "failed", "cancelled")
RECENT = "/api/query/recent?limit=50"
FILTERS = ("project=project-7", "project=large", "host=host-3&branch=main", "pinned=true", "tag=tag-3")
KEYS = ("project", "user", "branch", "host", "tag")


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        store = stack.enter_context(Appliance(folder))
        generator.submit(fill, store.port).result()
        groups = [_figure(generator, store, f"/api/sessions?groupBy={key}", rounds) for key in KEYS]
        return groups + [_against(generator, store, f"/api/sessions?{which}", rounds) for which in FILTERS]


def _figure(generator: Executor, store: Server, path: str, rounds: int) -> Figure:
    times = [_p50_ms(generator, store, path) for _ in range(rounds)]
    return Figure("groups", f"p50 of GET {path}, {SESSIONS:,} sessions", "ms", times, Target(50, at_most=True))


def _against(generator: Executor, store: Server, path: str, rounds: int) -> Figure:
    pairs = [(_p50_ms(generator, store, path), _p50_ms(generator, store, RECENT)) for _ in range(rounds)]
    filtered, recent = zip(*pairs, strict=True)
    return Figure("groups", f"p50 of GET {path} against {RECENT}", "ms", filtered, Target(2, at_most=True), recent)


def _p50_ms(generator: Executor, store: Server, path: str) -> float:
    return median(generator.submit(one_by_one, store.port, [http_request("GET", path)] * REQUESTS).result()) * 1000


def fill(port: int) -> None:
    uvloop.run(_fill(port))


async def _fill(port: int) -> None:
    client = await connect(port, HttpClient)
    for begin in range(0, SESSIONS, AT_ONCE):
        body = b"".join(line for number in range(begin, begin + AT_ONCE) for line in _lines(number))
        expect_200(await client.ask(http_request("POST", "/api/events", body, NDJSON)))
    client.close()


def _lines(number: int) -> Iterator[bytes]:
    """A session with a call; half of them are of one project, and three of four are over."""
    where = {"host": f"host-{number % 50}", "branch": "main" if number % 3 else f"branch-{number % 100}"}
    project = "large" if number % 2 else f"project-{number % 400}"
    metadata = {"project": project, "where": where, "pinned": number % 500 == 0}
    data = {"initial": {}, "metadata": metadata, "tags": [f"tag-{number % 20}"]}
    head = {"sessionId": f"groups-{number}", "userId": f"user-{number % 100}"}
    yield json.dumps({"type": "session_created", **head, "data": data}).encode() + b"\n"
    yield json.dumps({"type": "action", **head, "data": {"type": "tool_call", "tool": "Bash"}}).encode() + b"\n"
    if number % 4:
        end = {"status": STATUSES[number // 4 % len(STATUSES)]}
        yield json.dumps({"type": "session_finalized", **head, "data": end}).encode() + b"\n"
