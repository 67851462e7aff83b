"""`tree`: what the file tree costs, and how far it is behind.

Writing it from nothing and comparing it are measured on a database of a thousand sessions with a thousand events
each, written by turns, as agents write; that it takes no more memory than for a tenth of that is measured, too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx

from sessionstore.store.schema import open_writer
from tests.appliance import REPOSITORY, Appliance, Server
from tests.bench.actions import ACTION, CONNECTIONS, SECONDS, WARM_UP_SECONDS
from tests.bench.batches import INSERT, Row
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import closed_loop, open_loop, own_process
from tests.wire import http_request

SESSIONS = 1000
EVENTS = 1_000_000
SMALL_EVENTS = 100_000
EVENTS_PER_SECOND = 500
PACED_SECONDS = 8
BUSY_SESSIONS = 8
POLL_SECONDS = 0.02
MOMENT = "2026-01-01T00:00:00.000Z"
REQUESTS = [http_request("POST", f"/api/actions/bench-{n}", ACTION) for n in range(BUSY_SESSIONS)]
CURSOR = re.compile(rb'"cursor":([0-9]+)')


def measure(rounds: int) -> list[Figure]:
    return [*_command_figures(rounds), *_server_figures(rounds)]


# --------------------------------------------------------------------- commands


class Run:
    """One run of a command: the seconds it took, and the most memory that it had at any time."""

    def __init__(self, *arguments: str | Path) -> None:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "export", *map(str, arguments)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise Unsound(f"{process.args!r} ended with {process.returncode}")
        self.megabytes = usage.ru_maxrss / 1024


def _command_figures(rounds: int) -> list[Figure]:
    written, compared, small, large = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "large", EVENTS)
        fill(folder / "small", SMALL_EVENTS)
        for number in range(rounds):
            tree = folder / f"tree-{number}"
            tree.mkdir()
            writing = Run("tree", "--dir", folder / "large", "--to", tree)
            comparing = Run("verify", "--full", "--dir", folder / "large", "--tree", tree)
            shutil.rmtree(tree)
            tree.mkdir()
            small.append(Run("tree", "--dir", folder / "small", "--to", tree).megabytes)
            shutil.rmtree(tree)
            written.append(EVENTS / writing.seconds)
            compared.append(EVENTS / comparing.seconds)
            large.append(writing.megabytes)
    what = f"a tree of {SESSIONS:,} sessions and {EVENTS:,} events"
    return [
        Figure("tree", f"{what}, written", "events a second", written, Target(100_000)),
        Figure("tree", f"{what}, compared, against written", "events a second", compared, Target(1.0), written),
        Figure("tree", "memory for it, against a tenth of the events", "MB", large, Target(1.2, at_most=True), small),
    ]


def fill(folder: Path, events: int) -> None:
    """A database of SESSIONS sessions that take turns, without their search index."""
    folder.mkdir()
    with closing(open_writer(folder / "sessions.db", durability="normal")) as database:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(INSERT, _rows(events))
        database.execute("COMMIT")


def _rows(events: int) -> Iterator[Row]:
    for cursor in range(1, events + 1):
        turn, session = divmod(cursor - 1, SESSIONS)
        named = f"bench-{session}", "alice", f"event-{turn}", None, MOMENT, MOMENT, None
        if turn == 0:
            yield cursor, "session_created", *named, None, None, '{"initial":{"input":"Build a REST API"}}'
        else:
            log, kind = (("response", "tool_result"), ("action", "file_write"))[turn % 2]
            data = f'{{"type":"{kind}","path":"src/module-{cursor}.js","lines":{turn}}}'
            yield cursor, log, *named, (turn + 1) // 2, kind, data


# ----------------------------------------------------------------------- server


def _server_figures(rounds: int) -> list[Figure]:
    on: list[float] = []
    off: list[float] = []
    lags: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        with_tree = stack.enter_context(Appliance(folder / "on"))
        without = stack.enter_context(Appliance(folder / "off", {"SESSIONS_TREE": "off"}))
        for number in range(rounds):
            pair = [(with_tree, on), (without, off)]
            for server, rates in pair if number % 2 else reversed(pair):
                rates.append(_rate(generator, server))
            _wait_until_level(with_tree, folder / "on")
            lags.append(_longest_lag(generator, with_tree, folder / "on"))
    compared = f"single actions, {CONNECTIONS} connections, with the tree kept against without"
    paced = f"longest time from the answer to the tree, {EVENTS_PER_SECOND} events a second"
    return [
        Figure("tree", compared, "a second", on, Target(0.85), off),
        Figure("tree", paced, "s", lags, Target(1.0, at_most=True)),
    ]


def _rate(generator: Executor, server: Server) -> float:
    return generator.submit(closed_loop, server.port, REQUESTS, CONNECTIONS, WARM_UP_SECONDS, SECONDS).result().rate


def _wait_until_level(server: Server, folder: Path) -> None:
    head: int = httpx.get(f"{server.url}/health", trust_env=False).json()["cursor"]
    while _tree_cursor(folder) < head:
        time.sleep(POLL_SECONDS)


def _tree_cursor(folder: Path) -> int:
    found = CURSOR.search((folder / ".mirror.json").read_bytes())
    return int(found[1]) if found else 0


def _longest_lag(generator: Executor, server: Server, folder: Path) -> float:
    """Watches `.mirror.json`, which is written after all else, as the last thing of each look at the database."""
    seen: list[tuple[int, int]] = []
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(folder, seen, ended))
    watching.start()
    requests = REQUESTS * (EVENTS_PER_SECOND * PACED_SECONDS // BUSY_SESSIONS)
    posted = generator.submit(open_loop, server.port, requests, EVENTS_PER_SECOND, 16).result()
    _wait_until_level(server, folder)
    time.sleep(2 * POLL_SECONDS)
    ended.set()
    watching.join()
    arrivals = iter(seen)
    cursor, at = next(arrivals)
    longest = 0
    for event in sorted(posted):
        while cursor < event.cursor:
            cursor, at = next(arrivals)
        longest = max(longest, at - event.answered_ns)
    return longest / 1e9


def _watch(folder: Path, seen: list[tuple[int, int]], ended: threading.Event) -> None:
    while not ended.wait(POLL_SECONDS):
        cursor = _tree_cursor(folder)
        if not seen or cursor > seen[-1][0]:
            seen.append((cursor, time.monotonic_ns()))
