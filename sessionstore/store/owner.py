"""One owner of a folder: the server, or a command that writes to the database."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

OF_THE_DATABASE = ("sessions.db", "sessions.db-wal", "sessions.db-shm")


class CannotStart(Exception):
    """The message says why, and what to do."""


def own_folder(folder: Path) -> int:
    """Become the only process on this folder, for life. Raises CannotStart."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        for path in folder.glob("sessions.db*"):
            if path.name in OF_THE_DATABASE and not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        raise CannotStart(f"The folder {folder} cannot be written: {error.strerror}. {remedy(folder, error)}") from None
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


def remedy(folder: Path, error: OSError) -> str:
    """What whoever starts it can do. Of rights that are missing the two users are named: a volume that is another's is
    what happens most."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return "Set SESSIONS_DIR to another, or mount it so that it can be written"
    at, found = nearest(Path(os.fsdecode(error.filename or folder)))
    return (
        f"{at} belongs to uid {found.st_uid} (mode {stat.S_IMODE(found.st_mode):o}), and this is uid {os.geteuid()}: "
        f"`chown -R {os.geteuid()} {shlex.quote(str(folder))}`, or run it as uid {found.st_uid}, or set SESSIONS_DIR"
    )


def nearest(path: Path) -> tuple[Path, os.stat_result]:
    """What keeps one from a path: itself, or the first folder above it that can be looked at."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return place, place.stat()
    return Path("/"), os.stat("/")
