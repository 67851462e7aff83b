"""Backpressure of the disk: its room is known before there is none, so that writes end with a word, not an error.

What is kept in reserve is for what makes room: deleting needs some.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.25
"""Seconds between looks, at least: asking costs microseconds, and a disk can fill within a second."""
RESERVE = 64 << 20
RESERVED_SHARE = 0.02
"""Of a disk so small that this is less than RESERVE."""
LOW = 1 << 30
LOW_SHARE = 0.10
"""The disk is said to be low below the smaller of these, and below twice the reserve."""
RESERVED_FILES, LOW_FILES = 2_000, 50_000
"""The same of inodes, of which a session takes about ten, and a file system can have few."""
HEALED = 1.125
"""Room is there again with so many times what was too little, so that it does not come and go."""

Status = Literal["ok", "low", "full"]
STATUSES: tuple[Status, ...] = ("ok", "low", "full")


class Disk:
    """The file system of a folder, as it was when it was last looked at."""

    def __init__(self, folder: Path, reserve: int | None = None) -> None:
        self.folder = folder
        self.asked_reserve = reserve
        self.status: Status = "ok"
        self.is_full = False
        """Whether what does not make room is refused."""
        self.free = self.total = self.reserve = 0
        self.free_files = self.total_files = 0
        """Inodes; of no use where the file system makes them as it needs them, and says 0."""
        self.look_at = 0.0
        self.error: str | None = None
        """Why it does not say how full it is."""

    def look_if_due(self) -> None:
        if time.monotonic() >= self.look_at:
            self.look_at = time.monotonic() + LOOK_INTERVAL
            self.look()

    def look(self) -> None:
        """Ask the file system. One that does not say is not full: writing will show."""
        try:
            found = os.statvfs(self.folder)
        except OSError as error:
            if str(error) != self.error:
                logger.warning("The disk of %s does not say how full it is: %s", self.folder, error)
            self.error = str(error)
            return
        self.error = None
        if not found.f_blocks:
            return
        self.free, self.total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        self.reserve = reserve_of(self.total) if self.asked_reserve is None else self.asked_reserve
        self.free_files, self.total_files = found.f_favail, found.f_files
        self.note(max(self.status_of_bytes(), self.status_of_files(), key=STATUSES.index))

    def status_of_bytes(self) -> Status:
        low = max(2 * self.reserve, min(LOW, int(self.total * LOW_SHARE)))
        return self.status_now(self.free, self.reserve, low)

    def status_of_files(self) -> Status:
        if not self.total_files or self.asked_reserve == 0:
            return "ok"
        reserve = min(RESERVED_FILES, int(self.total_files * RESERVED_SHARE))
        return self.status_now(self.free_files, reserve, min(LOW_FILES, int(self.total_files * LOW_SHARE)))

    def status_now(self, free: int, reserve: int, low: int) -> Status:
        if free < reserve * (HEALED if self.status == "full" else 1):
            return "full"
        return "low" if free < low * (1 if self.status == "ok" else HEALED) else "ok"

    def note(self, status: Status) -> None:
        if status == self.status:
            return
        self.status, self.is_full = status, status == "full"
        if status == "ok":
            logger.warning("There is room on the disk again: %s", self.said())
        else:
            logger.log(logging.ERROR if self.is_full else logging.WARNING, "%s", self.said())

    def said(self) -> str:
        """In words, for people."""
        room = f"{in_mib(self.free)} of {in_mib(self.total)} are free on the disk of {self.folder}"
        if self.total_files and self.status_of_files() != "ok":
            room += f", and {self.free_files:,} of {self.total_files:,} files (inodes)"
        if self.is_full:
            return (
                f"The disk is full: {room}; writes are refused below {in_mib(self.reserve)} or "
                f"{RESERVED_FILES:,} files. Make room there, delete sessions, or set SESSIONS_RETENTION_BYTES"
            )
        return f"The disk is getting full: {room}" if self.status == "low" else room


def reserve_of(total: int) -> int:
    return min(RESERVE, int(total * RESERVED_SHARE))


def in_mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def size_of(path: Path) -> int:
    """Asked of the file system: opening a file of the database in this process would drop SQLite's locks on it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
