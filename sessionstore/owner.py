"""One owner of a folder: the server, or a command that writes to the database."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class CannotStart(Exception):
    """The message says why, and what to do."""


def own_folder(folder: Path) -> int:
    """Become the only process on this folder, for life. Raises CannotStart."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"The folder {folder} cannot be written: {error.strerror}. Set SESSIONS_DIR") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise CannotStart(f"Another session store (process {owner}) has the folder {folder} already") from None
    with suppress(OSError):  # a disk that is full keeps nobody from reading what is there
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
