"""The sealer's process: started where SESSIONS_LAKE is set, heard, started anew when it ends; nothing of it runs here.

It may be killed at any moment, and so may the server: what is sealed is what the lake says.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import datetime
from typing import Any

import msgspec

from export.layout import open_reader
from sessionstore import ROOT
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.closing import UNSEALED
from sessionstore.store.lake import check_installed
from sessionstore.store.shard import Shard, keep_shard

logger = logging.getLogger(__name__)

NICENESS = 10
END_SECONDS = 6.0
"""How long the end of the server waits for what is sealed last."""
RESTART_SECONDS = 1.0, 60.0
OLDEST = "SELECT received_at FROM events WHERE cursor > ? ORDER BY cursor LIMIT 1"
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "TOKIO_WORKER_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
}
"""What a seal has used is given back to the system at once, and it takes one processor at most."""


class Lake:
    """Has the store sealed while it is started, if the settings say so, and knows how that goes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shard: Shard | None = None
        self.sealed: int | None = None
        """Up to which cursor the lake has said that it has all; None: it has not been reached yet."""
        self.begun = 0.0
        """By the monotonic clock."""
        self.events = 0
        """Sealed by this server."""
        self.last: float | None = None
        """When something was, in seconds since 1970."""
        self.failures = 0
        self.error: str | None = None
        self.is_kept = True
        """What was deleted in the store was erased in the lake, when that was last to be done."""
        self.is_displaced = False
        """Another store seals under this one's name: nothing is sealed any more."""
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="lake", daemon=True)

    @property
    def is_on(self) -> bool:
        return self.settings.lake is not None

    @property
    def status(self) -> str:
        """`off`, `pending` until the lake has been reached, `ok`, `failed`, `displaced`."""
        if not self.is_on:
            return "off"
        if self.is_displaced:
            return "displaced"
        if self.error:
            return "failed"
        return "pending" if self.sealed is None else "ok"

    @property
    def prunable(self) -> int | None:
        """What is newer than this cursor is not in the lake yet, and stays; None: there is no lake."""
        return (self.sealed or 0) if self.is_on else None

    def check_sealed(self, last_cursor: int | None) -> None:
        """Raises Problem for a session, known by its newest event, that is to make room before the lake has it."""
        if (sealed := self.prunable) is not None and (last_cursor is None or last_cursor > sealed):
            raise Problem(412, UNSEALED)

    def unsealed_seconds(self) -> float:
        """The age of the oldest event that is not in the lake; until that is reached, how long it has not been."""
        if self.sealed is None:
            return time.monotonic() - self.begun if self.begun else 0.0
        with suppress(sqlite3.Error), closing(open_reader(self.settings.database)) as database:
            for (said,) in database.execute(OLDEST, (self.sealed,)):
                return max(0.0, time.time() - datetime.fromisoformat(said).timestamp())
        return 0.0

    def prepare(self, writer: sqlite3.Connection) -> None:
        """Give the store its name. Raises CannotStart where the extra is not installed, BadSetting for another name."""
        if not self.is_on:
            return
        check_installed()
        self.shard = keep_shard(writer, self.settings.shard)

    def start(self) -> None:
        if self.is_on:
            self.begun = time.monotonic()
            self.thread.start()

    def end(self) -> None:
        """Have it seal what is left, while others finish; `stop` waits for it."""
        self.stopping.set()
        if (process := self.process) is not None and process.stdin is not None:
            with suppress(OSError, ValueError):  # it has ended
                process.stdin.write(b"end\n")
                process.stdin.flush()

    def end_at_once(self) -> None:
        """Seal nothing more."""
        self.stopping.set()
        if (process := self.process) is not None:
            process.kill()

    def stop(self, within: float = END_SECONDS) -> None:
        """What is not sealed in time is sealed after the next start."""
        self.end()
        if self.thread.is_alive():
            self.thread.join(within)
        if (process := self.process) is not None:
            process.kill()
            process.wait()

    # ----------------------------------------------------------- on the thread

    def run(self) -> None:
        rest = RESTART_SECONDS[0]
        while not self.is_displaced:
            begun = time.monotonic()
            try:
                said = self.follow(self.begin())
            except OSError as error:
                said = f"its process could not be started: {error.strerror}"
            if self.stopping.is_set():
                return
            if not self.is_displaced:
                self.fail(said)
                rest = RESTART_SECONDS[0] if time.monotonic() - begun > RESTART_SECONDS[1] else rest * 2
                self.stopping.wait(min(rest, RESTART_SECONDS[1]))

    def begin(self) -> subprocess.Popen[bytes]:
        settings, shard = self.settings, self.shard
        assert shard is not None and settings.lake is not None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        days = str(settings.lake_days or "off")
        said = (str(settings.database), settings.lake, shard.name, str(settings.lake_every), days)
        process = subprocess.Popen(
            [sys.executable, "-m", "lake", *said],
            cwd=ROOT,
            env={**inherited, **ENVIRONMENT},
            stdin=subprocess.PIPE,  # it ends when that does
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        self.process = process
        if self.stopping.is_set():
            self.end()
        return process

    def follow(self, process: subprocess.Popen[bytes]) -> str:
        """Until it ends; why that may be."""
        assert process.stdout is not None and process.stdin is not None
        with process.stdin, process.stdout:
            for line in process.stdout:
                with suppress(msgspec.DecodeError):
                    self.hear(msgspec.json.decode(line, type=dict[str, Any]))
        return f"its process has ended with {process.wait()}"

    def hear(self, said: Mapping[str, Any]) -> None:
        if (sealed := said.get("sealed")) is not None:
            self.sealed, self.error = sealed, None
            self.events += said["events"]
            self.last = time.time()
        if displaced := said.get("displaced"):
            self.is_displaced = True
            self.fail(displaced)
        if failed := said.get("failed"):
            self.fail(failed)
        self.is_kept = said.get("kept", self.is_kept)

    def fail(self, said: str) -> None:
        self.failures += 1
        if self.error is None or self.is_displaced:
            logger.error("The lake: %s", said)
        self.error = said
