"""A daily verify: the database held against itself and its file tree, in a process that waits for all others.

SQLite has no checksums: a byte that changes on the disk within a text is found by no check of its own, but by a
comparison with the tree, which says the same in other files.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from contextlib import suppress

from export import drilled
from sessionstore import EXPORT, ROOT
from sessionstore.lifeline import COMMAND, lifeline
from sessionstore.settings import Settings
from sessionstore.store.folder import Ground, Moved

logger = logging.getLogger(__name__)

FIRST_SECONDS = 600.0
"""After a start nothing is compared for so long: there is enough to do."""
RETRY_SECONDS = 3600.0
MOST_SECONDS = 4 * 3600.0
"""Beyond, it is given up, and that is said."""
NICENESS = 19


class Comparison:
    """Compares while it is started, and knows what came of it last, whoever did it."""

    def __init__(self, settings: Settings, ground: Ground) -> None:
        self.settings = settings
        self.ground = ground
        self.error: str | None = None
        """Why nothing could be compared."""
        self.process: subprocess.Popen[str] | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="comparison", daemon=True)

    @property
    def last(self) -> drilled.Compared | None:
        return drilled.last_comparison(self.settings.directory)

    @property
    def status(self) -> str:
        """`off`, `pending` until something was compared, `ok`, `failed`."""
        last = self.last
        if self.error or (last and last.differences):
            return "failed"
        if self.settings.verify_every is None:
            return "off"
        return "ok" if last else "pending"

    @property
    def said(self) -> str | None:
        """What is wrong, for people."""
        last = self.last
        if self.error or last is None or not last.differences:
            return self.error
        return f"{last.differences} differences between database and file tree, the first: {last.first}"

    def start(self) -> None:
        if self.settings.verify_every is not None:
            self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if (process := self.process) is not None:
            with suppress(ProcessLookupError):
                process.kill()
        if self.thread.is_alive():
            self.thread.join(2.0)

    # ----------------------------------------------------------- on the thread

    def run(self) -> None:
        assert self.settings.verify_every is not None
        wait = min(FIRST_SECONDS, self.settings.verify_every)
        while not self.stopping.wait(max(wait, self.due_in())):
            self.compare()
            wait = min(RETRY_SECONDS, self.settings.verify_every)

    def due_in(self) -> float:
        """Seconds until the last one is as old as one may be; a clock that was set does not put it off for longer."""
        every = self.settings.verify_every or 0.0
        last = self.last
        return min(max(0.0, last.at.timestamp() + every - time.time()), every) if last and not self.error else 0.0

    def compare(self) -> None:
        """Once. What goes wrong is said, and tried again."""
        said = self.failure()
        if self.stopping.is_set():
            return
        if said and said != self.said:
            logger.error("The verification failed: %s", said)
        self.error = said
        if self.said and not said:
            logger.error("The verification has found %s: see `%s verify --full`", self.said, EXPORT)

    def failure(self) -> str | None:
        """Why nothing could be compared; None: it was, and its process has left word of it."""
        before = self.last
        try:
            self.ground.check()
            with lifeline() as line:
                self.process = process = self.begin(line)
                _, errors = process.communicate(timeout=MOST_SECONDS)
        except (Moved, OSError) as error:
            return f"{error}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"it took longer than {MOST_SECONDS:.0f} s"
        if self.last != before:
            return None
        return errors.strip()[-500:] or f"its process ended with {process.returncode}"

    def begin(self, line: int) -> subprocess.Popen[str]:
        """Its own process: what is large, or damaged, does no harm here."""
        command = [*COMMAND, "export", "verify", "--full", "--dir", str(self.settings.directory)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
        process = subprocess.Popen(
            command if self.settings.tree else [*command, "--no-tree"],
            cwd=ROOT,
            env={**inherited, "SESSIONS_UMASK": f"{self.settings.umask:03o}"},
            stdin=line,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process
