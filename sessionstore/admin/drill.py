"""Whether all that comes back, tried out on a server and a folder of its own.

load ── backup ── load ── kill -9, database gone ── restore the backup, then what the tree has since ── start
load ── sealed into a lake ── kill -9, folder gone ── restore from the lake ── start
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from export import backup
from export.drilled import DrillSucceeded
from sessionstore import ROOT
from sessionstore.admin import recovery
from sessionstore.admin.loss import accept_loss
from sessionstore.admin.restore import DATABASE, restore
from sessionstore.lifeline import COMMAND
from sessionstore.settings import Settings

BATCH = 200
SESSIONS = 20
SHARD = "drill"
PAGE = 1000
PATIENCE = 60.0
"""Seconds for anything that is waited for."""


class DrillFailed(Exception):
    """It could not be carried out. The message says why."""


class DrillResult(NamedTuple):
    """What was there in the end."""

    acknowledged: int
    lost: list[str]
    """Names of events that were acknowledged and are gone, or are not what they were."""
    from_backup: int
    from_tree: int
    seconds: float
    """From the beginning of the restore until the server is ready: the recovery time."""
    since_backup: float
    """Seconds from the backup to the end of the server."""
    from_lake: int = 0

    @property
    def succeeded(self) -> DrillSucceeded:
        return DrillSucceeded(datetime.now(UTC), self.since_backup if self.lost else 0.0, self.seconds)


class DrilledServer:
    """`python app.py` on a folder."""

    def __init__(self, folder: Path, has_tree: bool, lake: str | None = None) -> None:
        self.folder = folder
        of_lake = {"SESSIONS_LAKE": lake, "SESSIONS_SHARD": SHARD, "SESSIONS_LAKE_EVERY": "1s"} if lake else {}
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        line, self.line = os.pipe()  # it ends with this process
        self.process = subprocess.Popen(
            [*COMMAND, "app"],
            cwd=ROOT,
            env={
                **ours,
                **of_lake,
                "SESSIONS_DIR": str(folder),
                "SESSIONS_TREE": "on" if has_tree else "off",
                "PORT": "0",
            },
            stdin=line,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.close(line)
        self.port = self.port_told()
        self.wait_for("it is ready", lambda: self.ask("GET", "/ready")[0] == 200)

    def port_told(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/$", line):
                return int(found[1])
        raise DrillFailed(f"The server ended with exit code {self.process.wait()}")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {"content-type": "application/x-ndjson"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def get(self, path: str) -> dict[str, object]:
        status, body = self.ask("GET", path)
        document: dict[str, object] = json.loads(body)
        if status != 200:
            raise DrillFailed(f"GET {path} is answered {status}: {document.get('detail')}")
        return document

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise DrillFailed(f"It did not come about that {what}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.line)

    def end(self) -> None:
        """With all that it has started."""
        self.process.terminate()
        self.process.communicate()
        os.close(self.line)


def drill(folder: Path, events: int, say: Callable[[str], None], *, has_tree: bool = True) -> DrillResult:
    """Lose the database of a server in an empty folder, and bring it back. Raises DrillFailed, and what that raises.

    `has_tree` False: there is no file tree, and what came after the backup is lost and accepted as lost.
    """
    store, copy = folder / "store", folder / "copy.db"
    acknowledged: dict[str, int] = {}
    server = DrilledServer(store, has_tree)
    try:
        load(server, acknowledged, events // 2)
        manifest = backup.back_up(store / DATABASE, copy)
        backed_up = time.monotonic()
        say(f"{len(acknowledged):,} events are acknowledged, and a backup is made")
        load(server, acknowledged, events - events // 2)
        if has_tree:
            server.wait_for("the file tree is as far as the database", lambda: has_followed(server))
        say(f"{len(acknowledged):,} events are acknowledged{' and in the file tree' if has_tree else ''}")
    finally:
        server.kill()
    for path in store.glob(f"{DATABASE}*"):
        path.unlink()
    say("The server is killed, and its database is gone")

    begun = time.monotonic()
    recovery.put_back(copy, store)
    say(f"The backup is back: it ends with cursor {manifest.cursor}")
    restored = restore(store, store, is_newer=True) if has_tree else None
    if restored is None:
        say(accept_loss(Settings(directory=store)))
    server = DrilledServer(store, has_tree)
    try:
        seconds = time.monotonic() - begun
        lost = missing(server, acknowledged)
    finally:
        server.kill()
    from_tree = restored.events if restored else 0
    return DrillResult(len(acknowledged), lost, manifest.counts["events"], from_tree, seconds, begun - backed_up)


def drill_lake(folder: Path, lake: str, events: int, say: Callable[[str], None]) -> DrillResult:
    """Lose the whole folder of a server whose events are in a lake that is empty now, and make it again from there."""
    store = folder / "store"
    acknowledged: dict[str, int] = {}
    server = DrilledServer(store, True, lake)
    try:
        load(server, acknowledged, events)
        server.wait_for("the lake is as far as the database", lambda: has_sealed(server))
        say(f"{len(acknowledged):,} events are acknowledged, and in {lake}")
    finally:
        server.kill()
    shutil.rmtree(store)
    say("The server is killed, and its folder is gone")

    begun = time.monotonic()
    command = [sys.executable, "-m", "export", "restore", lake, "--into", str(store), "--shard", SHARD]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    restored = re.search(r"^(\d+) events are in", done.stdout, re.MULTILINE)
    if done.returncode or restored is None:
        raise DrillFailed(f"The restore has failed: {done.stdout}{done.stderr}")
    server = DrilledServer(store, True, lake)
    try:
        seconds = time.monotonic() - begun
        lost = missing(server, acknowledged)
    finally:
        server.end()
    return DrillResult(len(acknowledged), lost, 0, 0, seconds, 0.0, int(restored[1]))


def load(server: DrilledServer, acknowledged: dict[str, int], events: int) -> None:
    """Post events in batches; what is acknowledged is noted with what it said."""
    first = len(acknowledged)
    for begin in range(first, first + events, BATCH):
        numbers = range(begin, min(begin + BATCH, first + events))
        status, body = server.ask("POST", "/api/events", b"".join(map(line, numbers)))
        if status != 200 or json.loads(body)["accepted"] != len(numbers):
            raise DrillFailed(f"A batch is answered {status}: {body.decode()}")
        acknowledged |= {f"drill-{number}": number for number in numbers}


def line(number: int) -> bytes:
    event = {
        "type": ("action", "response", "state_updated")[number % 3],
        "sessionId": f"session-{number % SESSIONS}",
        "eventId": f"drill-{number}",
        "data": {"type": "drill", "number": number},
    }
    return json.dumps(event).encode() + b"\n"


def has_followed(server: DrilledServer) -> bool:
    health = server.get("/health")
    tree = health["tree"]
    return isinstance(tree, dict) and tree["cursor"] == health["cursor"]


def has_sealed(server: DrilledServer) -> bool:
    health = server.get("/health")
    lake = health["lake"]
    return isinstance(lake, dict) and lake["sealed"] == health["cursor"]


def missing(server: DrilledServer, acknowledged: dict[str, int]) -> list[str]:
    """What of it the server does not have as it was."""
    left = dict(acknowledged)
    after = 0
    while True:
        page: dict[str, object] = server.get(f"/api/events?after={after}&limit={PAGE}")
        items = page["items"]
        if not isinstance(items, list) or not items:
            return sorted(left)
        for event in items:
            if left.get(event["eventId"]) == event["data"].get("number"):
                left.pop(event["eventId"], None)
        after = items[-1]["cursor"]
