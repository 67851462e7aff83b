"""SESSIONS_ACK=bucket: what is committed is in the bucket first, as the next object of a chain (lake/chain.py).

The writer's thread hands a transaction's events over before it commits them, and waits. If that fails, or nobody knows
whether it did, it rolls back, as after any failure; before it writes again the database is brought up to the chain:
what the bucket has after all is then in it, and shown. So the database never has what the chain has not. A child
process speaks to the bucket.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from sessionstore import ROOT
from sessionstore.model.events import Event
from sessionstore.settings import Settings
from sessionstore.store.appender import COLUMNS
from sessionstore.store.schema import DatabaseUnusable
from sessionstore.store.shard import Shard

logger = logging.getLogger(__name__)

SECONDS, END_SECONDS = 12.0, 3.0
"""For which the child is waited for: longer than it waits for the bucket. What is replayed has no such bound."""
TAKE_SECONDS = 600.0
PAUSES = 0.5, 5.0
"""Between attempts to reach the bucket."""
GATHERED, MOST_GATHERED = 0.05, 0.02
"""For how long writes are gathered, as a share of what the last object took, and in seconds."""
PENDING = "what was acknowledged is looked up in the bucket"
SHOWN_AT_ONCE = 1000
MISSED = f"SELECT {COLUMNS} FROM events WHERE cursor > ? ORDER BY cursor"


class NotInBucket(DatabaseUnusable):
    """The bucket does not have it, or nobody knows. The message says why."""


class Chain:
    """The writer's end of the chain; all but what tells of it is called on the writer's thread."""

    def __init__(
        self,
        settings: Settings,
        shard: Callable[[], Shard | None],
        sealed: Callable[[], int | None],
        on_lost: Callable[[str], None],
    ) -> None:
        """`sealed`: up to which cursor the table has all. `on_lost` is called once: another server has the chain, and
        nothing more may be written here, or shown."""
        self.settings, self.shard, self.sealed, self.on_lost = settings, shard, sealed, on_lost
        self.by = secrets.token_hex(8)
        self.is_first = True
        """This server has never had the chain."""
        self.told = 0
        """Up to which cursor the child knows that events are sealed."""
        self.lost: str | None = None
        self.away: str | None = PENDING
        self.again_at, self.pause = 0.0, PAUSES[0]
        self.took = 0.0
        """Seconds that the bucket took for the last object."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def status(self) -> str:
        """`pending` at the start, `ok`, `away`, `lost`."""
        if self.lost:
            return "lost"
        return "ok" if self.away is None else "pending" if self.is_first else "away"

    def take(self) -> None:
        """Have the database, which nobody writes to, brought up to the chain, and go on there. Raises NotInBucket."""
        if self.away and time.monotonic() < self.again_at:
            raise NotInBucket(self.away)
        self.ask({"take": self.is_first}, within=TAKE_SECONDS)
        self.is_first, self.told = False, 0

    def keep(self, events: list[Event]) -> None:
        """Called before they are committed. Raises NotInBucket."""
        begun = time.monotonic()
        lines = b"\n".join([msgspec.json.encode(msgspec.structs.astuple(event)) for event in events])
        self.ask({"put": len(lines), "upto": events[-1].cursor, "last": events[-1].event_id}, lines)
        self.took = time.monotonic() - begun

    def gather(self) -> None:
        """Called when all are answered: who comes again at once is to share the next object, not to wait for it."""
        time.sleep(min(GATHERED * self.took, MOST_GATHERED))

    def let_go(self) -> None:
        """What is sealed meanwhile need not stay. Raises NotInBucket."""
        if self.away is None and (sealed := self.sealed() or 0) > self.told:
            self.ask({"sealed": sealed})
            self.told = sealed

    def missed(self, database: sqlite3.Connection, cursor: int) -> Iterator[list[Event]]:
        """What has come into the database after a cursor, a bounded number at a time."""
        rows = database.execute(MISSED, (cursor,))
        while some := [Event(*row) for row in rows.fetchmany(SHOWN_AT_ONCE)]:
            yield some

    def close(self) -> None:
        with suppress(NotInBucket):
            self.let_go()
        if (process := self.process) is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            self.end(process)

    # --------------------------------------------------------------- the child

    def ask(self, command: dict[str, Any], body: bytes = b"", within: float = SECONDS) -> None:
        """Raises NotInBucket."""
        if self.lost:
            raise NotInBucket(self.lost)
        said = self.answer(msgspec.json.encode(command) + b"\n" + body, within)
        if lost := said.get("lost"):
            self.lost = lost
            self.on_lost(lost)
            raise NotInBucket(lost)
        if away := said.get("away"):
            self.away = away
            self.again_at = time.monotonic() + self.pause
            self.pause = min(2 * self.pause, PAUSES[1])
            raise NotInBucket(away)
        self.away, self.pause = None, PAUSES[0]

    def answer(self, asked: bytes, within: float) -> dict[str, Any]:
        if self.process and self.process.poll() is not None:
            self.end(self.process)
        process = self.process or self.begin()
        assert process.stdin is not None and process.stdout is not None
        too_late = threading.Timer(within, process.kill)
        too_late.start()
        try:
            process.stdin.write(asked)
            process.stdin.flush()
            return msgspec.json.decode(process.stdout.readline(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            self.end(process)
            return {"away": f"the process that speaks to {self.settings.lake} has ended with {process.returncode}"}
        finally:
            too_late.cancel()

    def begin(self) -> subprocess.Popen[bytes]:
        shard = self.shard()
        assert shard is not None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        said = (str(self.settings.database), str(self.settings.lake), shard.name, shard.store, self.by)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lake.chain", *said],
            cwd=ROOT,
            env={**inherited, "TOKIO_WORKER_THREADS": "1"},
            stdin=subprocess.PIPE,  # it ends when that does
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        return self.process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self.process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
