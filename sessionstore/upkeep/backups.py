"""Scheduled backups: every so often a copy of the database into a folder, on a thread of its own."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from export.backup import BackupFailed, BackupManifest, back_up, name_for, thin_out
from sessionstore.settings import Settings
from sessionstore.store.disk import Disk, in_mib, size_of
from sessionstore.store.folder import Ground, Moved
from sessionstore.store.integrity import manifests

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""After a failure, or sooner where backups are made more often."""
HASTE_BYTES = 64 << 20
"""A copy is of one moment, and the log is kept from then on: once that has grown so large, the copying goes faster."""
MAX_LOG_BYTES = 192 << 20
"""Once it has grown so large, the copy is given up."""
LOG_SHARE = 16
"""Or, of a database so large that its copy takes long, to one part of so many of it."""
MOST_HALVINGS = 3
"""How often the number of copies that are kept is halved, where there is no room for all."""
TIME_SHARE = 4
"""One part of so many of the time goes into copying, at the most."""
NICENESS = 10
"""The copying waits for whoever answers agents."""


class Stopping(Exception):
    """The server ends: there will be no copy."""


class LastBackup(NamedTuple):
    """The newest copy."""

    manifest: BackupManifest
    seconds: float | None
    """How long it took; None: another process made it."""


class Backups:
    """Makes them while it is started, thins them out, and knows how it went."""

    def __init__(
        self, settings: Settings, disk: Disk, ground: Ground | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = settings.database
        self.log_path = settings.database.with_name(f"{settings.database.name}-wal")
        self.disk = disk
        self.ground = ground or Ground(settings.directory)
        self.folder = settings.backup_directory
        self.every = settings.backup_every
        self.settings = settings
        self.clock = clock
        self.last: LastBackup | None = None
        self.error: str | None = None
        self.failures = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="backups", daemon=True)

    @property
    def status(self) -> str:
        """`off`, `pending` until there is one, `ok`, `failed`."""
        if self.folder is None:
            return "off"
        if self.error:
            return "failed"
        return "ok" if self.last else "pending"

    def start(self) -> None:
        if self.folder is not None:
            self.last = newest_in(self.folder)
            self.thread.start()

    def stop(self, within: float = 2.0) -> None:
        """A copy that is being made is given up: it has no name yet, and the next start removes it."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join(within)

    # ----------------------------------------------------------- on the thread

    def run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # Linux: of this thread alone
        while not self.stopping.wait(self.due_in()):
            self.make()

    def due_in(self) -> float:
        """Seconds until the next one."""
        if self.error:
            return min(RETRY_SECONDS, self.every)
        if self.last is None:
            return 0.0
        made = datetime.fromisoformat(self.last.manifest.made_at).timestamp()
        every = max(self.every, (self.last.seconds or 0.0) * TIME_SHARE)
        return min(max(0.0, made + every - self.clock()), every)

    def make(self) -> None:
        """One copy. What goes wrong is said, and tried again; nothing is thinned out then."""
        assert self.folder is not None
        begun = time.monotonic()
        try:
            self.ground.check()
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_remains(self.folder)
            self.make_room(self.folder)
            self.check_room(self.folder)
            target = self.folder / name_for(datetime.fromtimestamp(self.clock(), UTC))
            manifest = back_up(self.database, target, self.go_on)
            thin_out(self.folder, target)
        except Stopping:
            return
        except Exception as error:  # whatever it is, the next one is tried
            self.error = str(error) or type(error).__name__
            self.failures += 1
            logger.error("The backup failed: %s", error, exc_info=not isinstance(error, BackupFailed | OSError | Moved))
            return
        self.last, self.error = LastBackup(manifest, time.monotonic() - begun), None

    def make_room(self, folder: Path) -> None:
        """Where there is none for one more copy, older ones go, and fewer are kept."""
        for halvings in range(1, MOST_HALVINGS + 1):
            if self.free_in(folder) >= self.needed():
                return
            thin_out(folder, None, halvings)

    def needed(self) -> int:
        """Bytes that a copy has at the most: what is in the log may be new."""
        return size_of(self.database) + size_of(self.log_path)

    def free_in(self, folder: Path) -> float:
        """Bytes, without what is kept in reserve for the database."""
        disk = os.statvfs(folder)
        is_shared = folder.stat().st_dev == self.database.stat().st_dev
        free = disk.f_bavail * disk.f_frsize - (self.disk.reserve if is_shared else 0)
        return free if disk.f_blocks else math.inf

    def check_room(self, folder: Path) -> None:
        """Raises BackupFailed where a copy would take what is kept in reserve for the database."""
        size, free = self.needed(), self.free_in(folder)
        if free < size:
            raise BackupFailed(
                f"There is no room in {folder} for a copy of {in_mib(size)}: {in_mib(max(0, int(free)))} are free"
            )

    def go_on(self, done: int, total: int) -> bool:
        if self.stopping.is_set():
            raise Stopping
        size = size_of(self.log_path)
        if size > max(MAX_LOG_BYTES, size_of(self.database) // LOG_SHARE):
            raise BackupFailed(
                f"So much was written during the copying that the log has {in_mib(size)}: it is tried again"
            )
        return size > HASTE_BYTES


def newest_in(folder: Path) -> LastBackup | None:
    found = [manifest for _, manifest in manifests(folder)]
    return LastBackup(max(found, key=lambda manifest: manifest.made_at), None) if found else None


def remove_remains(folder: Path) -> None:
    """Of copies that were not finished."""
    for path in folder.glob("sessions-*.part*"):
        path.unlink(missing_ok=True)
