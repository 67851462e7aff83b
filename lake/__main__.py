"""`python -m lake`: seals as long as its server runs, and says on stdout, a JSON object a line, how that goes.

    {"sealed": 1200, "events": 200, "seconds": 0.8}     up to which cursor; how many, and how long it took
    {"failed": "…", "again": 4.0}                       it is tried again after so many seconds
    {"kept": true}                                      what was deleted is erased, small files are large (keeping.py)
    {"displaced": "…"}                                  another store has this one's name: this one seals no more

On stdin the server says `end` when it ends: what is not sealed is then, once. Where stdin ends, there is no server any
more, and so is this; it may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from export.layout import open_reader
from lake.sealer import Sealer
from lake.table import Displaced

DUE_EVENTS, DUE_CHARACTERS = 100_000, 64 << 20
"""So many are sealed before they are old."""
JITTER = 0.7, 0.95
"""Of the age that an event may have: shards that were started together do not commit together."""
POLL_SECONDS = 0.05, 5.0
RETRY_SECONDS = 1.0, 60.0
KEEP_SECONDS = 6 * 3600.0
"""How often it has the lake kept (keeping.py), by a process of its own: erasing takes memory."""
FIRST_KEPT_SECONDS = 60.0, 600.0
NEW = "SELECT max(cursor), count(*), total(length(data)), min(cursor) FROM events WHERE cursor > ?"
SAID_AT = "SELECT received_at FROM events WHERE cursor = ?"


class Backlog:
    """What is not sealed yet, counted as it comes."""

    def __init__(self, path: Path, sealed: int) -> None:
        self.path = path
        self.head = sealed
        self.events, self.characters = 0, 0.0
        self.since = 0.0
        """By the monotonic clock, when the oldest of it came."""
        self.share = random.uniform(*JITTER)

    def look(self) -> None:
        with closing(open_reader(self.path)) as database:
            head, events, characters, first = database.execute(NEW, (self.head,)).fetchone()
            if not events:
                return
            if not self.events:
                ((said,),) = database.execute(SAID_AT, (first,)).fetchall()
                self.since = time.monotonic() - max(0.0, time.time() - datetime.fromisoformat(said).timestamp())
        self.head = head
        self.events += events
        self.characters += characters

    def is_due(self, every: float) -> bool:
        is_much = self.events >= DUE_EVENTS or self.characters >= DUE_CHARACTERS
        return bool(self.events) and (is_much or time.monotonic() - self.since >= every * self.share)


class Keeper:
    """Has the lake kept every so often. Its process ends when this one does."""

    def __init__(self, *arguments: str) -> None:
        self.command = [sys.executable, "-m", "lake.keeping", *arguments]
        self.due = time.monotonic() + random.uniform(*FIRST_KEPT_SECONDS)
        self.process: subprocess.Popen[str] | None = None

    def look(self) -> None:
        if self.process and self.process.poll() is not None:
            self.hear(self.process)
            self.process = None
        if not self.process and time.monotonic() >= self.due:
            self.due = time.monotonic() + KEEP_SECONDS * random.uniform(0.9, 1.1)
            pipe, none = subprocess.PIPE, subprocess.DEVNULL
            self.process = subprocess.Popen(self.command, stdin=pipe, stdout=none, stderr=pipe, text=True)

    def hear(self, ended: subprocess.Popen[str]) -> None:
        with ended:
            assert ended.stderr is not None
            said = ended.stderr.read().strip().rpartition("\n")[2]
        why = f"What was deleted in the store is not erased yet: {said or ended.returncode}"
        say(kept=ended.returncode == 0, **({"failed": why[:2000], "again": KEEP_SECONDS} if ended.returncode else {}))


class Child:
    """Looks every so often, and seals what is due."""

    def __init__(self, path: Path, url: str, shard: str, every: float, days: str) -> None:
        self.sealer = Sealer(path, url, shard)
        self.path = path
        self.every = every
        self.keeper = Keeper(str(path), url, shard, days)
        self.ending = threading.Event()

    def run(self) -> None:
        """Until the server ends. Raises Displaced."""
        retry = RETRY_SECONDS[0]
        while True:
            try:
                self.seal_on()
                return
            except Displaced:
                raise
            except Exception as error:  # whatever it is, it is tried again
                rest = retry * random.uniform(0.5, 1.0)
                say(failed=sentence(error), again=round(rest, 1))
                if self.ending.wait(rest):
                    return
                retry = min(retry * 2, self.every, RETRY_SECONDS[1])

    def seal_on(self) -> None:
        backlog = Backlog(self.path, self.sealer.sealed())
        say(sealed=backlog.head, events=0, seconds=0.0)
        while not self.ending.is_set():
            backlog.look()
            if backlog.is_due(self.every):
                backlog = Backlog(self.path, self.seal_up_to(backlog.head))
            self.keeper.look()
            self.ending.wait(min(max(self.every / 60, POLL_SECONDS[0]), POLL_SECONDS[1]))
        self.seal_up_to(None)

    def seal_up_to(self, head: int | None) -> int:
        """All that is there, or up to a cursor; up to which cursor all is sealed then."""
        upto = max(self.sealer.known)
        while head is None or upto < head:
            begun = time.monotonic()
            if (sealed := self.sealer.seal()) is None:
                break
            say(sealed=sealed, events=sealed - upto, seconds=round(time.monotonic() - begun, 3))
            upto = sealed
        return upto

    def listen(self) -> None:
        """The thread that hears of the server's end."""
        for line in sys.stdin:
            if line.strip() == "end":
                self.ending.set()
        os._exit(0)


def sentence(error: Exception) -> str:
    """deltalake says things in several lines, in colours, with an arrow before each."""
    return re.sub(r"(\x1b\[\d+m|\s|↳)+", " ", f"{type(error).__name__}: {error}").strip()[:1000]


def say(**members: Any) -> None:
    print(json.dumps(members), flush=True)


def main(path: str, url: str, shard: str, every: str, days: str) -> int:
    child = Child(Path(path), url, shard, float(every), days)
    threading.Thread(target=child.listen, name="listen", daemon=True).start()
    try:
        child.run()
    except Displaced as displaced:
        say(displaced=str(displaced))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
