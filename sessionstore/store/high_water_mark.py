"""The high-water mark: the newest cursor that was ever committed, in a small file beside the database.

A database that loses the end of its log passes every check that SQLite has. What
is missing shows only against something that is not in it: this file, the file
tree, the backups.
"""

from __future__ import annotations

import logging
import mmap
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from export.backup import synchronise

logger = logging.getLogger(__name__)

NAME = ".newest.json"
LENGTH = 64
"""Of the file, whatever the cursor: it is written in place."""


class Newest(msgspec.Struct, omit_defaults=True):
    """What the file says."""

    cursor: int
    accepted: int | None = None
    """What is lost above this cursor a person has accepted: a database that ends here is not behind."""

    def record(self) -> bytes:
        return msgspec.json.encode(self).ljust(LENGTH - 1) + b"\n"


def read_newest(folder: Path) -> Newest:
    """Cursor 0 where the file is not there, or says nothing that can be read."""
    path = folder / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Newest)
    except FileNotFoundError:
        return Newest(0)
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("%s cannot be read, and is made anew: %s", path, error)
        return Newest(0)


def write_newest(folder: Path, newest: Newest) -> None:
    """Wholly or not at all, and on disk."""
    part = folder / f"{NAME}.part"
    part.write_bytes(newest.record())
    synchronise(part)
    part.rename(folder / NAME)
    synchronise(folder)


class HighWaterMark:
    """The file while the server runs. What is noted outlives the process at once, a power cut once it is synchronised.

    Noting is a store into memory: it is done with every commit, by the thread that
    everybody waits for, and a system call there would give the interpreter away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cursor = 0
        self.memory: mmap.mmap | None = None
        self.is_new = False

    def open(self) -> None:
        """Go on where the file ends. Without room for it there is no mark, and a warning."""
        newest = read_newest(self.folder)
        self.cursor = newest.cursor
        path = self.folder / NAME
        try:
            if not path.exists() or path.read_bytes() != newest.record():
                write_newest(self.folder, newest)
            self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self.memory = mmap.mmap(self.descriptor, LENGTH)
        except OSError as error:
            logger.warning("The newest cursor cannot be kept in %s: %s", path, error)

    def note(self, cursor: int) -> None:
        """Called after a commit, and before anybody is told of it."""
        if cursor <= self.cursor:
            return
        self.cursor = cursor
        self.is_new = True
        if self.memory is not None:
            self.memory[:] = (b'{"cursor":%d}' % cursor).ljust(LENGTH - 1) + b"\n"

    def spend(self, head: int) -> None:
        """Called when a database that ends with `head` lacks nothing, though greater cursors are spent."""
        if head < self.cursor and self.memory is not None:
            self.is_new = True
            self.memory[:] = Newest(self.cursor, accepted=head).record()

    def synchronise(self) -> None:
        """Put on disk what was noted."""
        if self.memory is not None and self.is_new:
            self.is_new = False
            with suppress(OSError):
                os.fsync(self.descriptor)

    def close(self) -> None:
        self.synchronise()
        if self.memory is not None:
            self.memory.close()
            self.memory = None
            os.close(self.descriptor)
