"""The data folder: a file system that carries it, closed to other users, and still the same one."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from sessionstore.settings import Settings
from sessionstore.store.owner import CannotStart

logger = logging.getLogger(__name__)

# ------------------------------------------------------------------- file systems

MOUNTS = Path("/proc/self/mountinfo")
UNSAFE = re.compile(
    r"(fuse\.)?(nfs4?|cifs|smb[23]?|smbfs|smbnetfs|9p|virtiofs|drvfs|wslfs|vboxsf|prl_fsd?|vmhgfs(-fuse)?"
    r"|fakeowner|osxfs|grpcfuse|portal|sshfs|s3fs|mount-s3|goofys|rclone|gcsfuse|blobfuse2?|davfs2?|curlftpfs|juicefs"
    r"|seaweedfs|moosefs|ceph|glusterfs|lustre|orangefs|beegfs|gpfs|gfs2|ocfs2|afs|coda|ncpfs)"
)
"""What shares files with other machines or with the host of a virtual one. Their locks, and memory that is shared
through a file, do not hold for what runs on the other side: SQLite's log is lost or torn there.
https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html"""
UNKNOWN = re.compile(r"fuse\.(?!fuse-overlayfs|ntfs-3g).*|fuse")
"""May be anything. An overlay, as under the root of a container, is on one machine and carries a database."""
ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo(5)."""

    point: str
    kind: str


def mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) > 4 and kinds[0]:
            yield Mount(ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]), kinds[0])


def mount_of(folder: Path, text: str) -> Mount | None:
    """What a folder lies on: the longest mount point above it, and of several there the last."""
    path = os.path.realpath(folder)
    above = [mount for mount in mounts(text) if is_below(path, mount.point)]
    return max(reversed(above), key=lambda mount: len(mount.point), default=None)


def is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def doubt_about(settings: Settings) -> str | None:
    """What is to be feared of the file system of SESSIONS_DIR; None: nothing. Raises CannotStart."""
    try:
        mount = mount_of(settings.directory, MOUNTS.read_text(errors="surrogateescape"))
    except OSError:  # not Linux
        return None
    is_unsafe = mount is not None and UNSAFE.fullmatch(mount.kind)
    if mount is None or not (is_unsafe or UNKNOWN.fullmatch(mount.kind)):
        return None
    said = f"SESSIONS_DIR={str(settings.directory)!r} is on {mount.kind}, mounted at {mount.point}"
    if not is_unsafe:
        return f"{said}: it is not known whether its locks and its shared memory hold, which SQLite needs"
    if settings.allows_unsafe:
        return f"{said}, where SQLite's log can be lost or torn: SESSIONS_ALLOW_UNSAFE_FS takes it all the same"
    raise CannotStart(
        f"{said}. Files shared with another machine, or with the host of a virtual one, lose SQLite's log: name a "
        "folder on a local disk (in a container: a volume, no folder of the host), or set SESSIONS_ALLOW_UNSAFE_FS=1"
    )


# ------------------------------------------------------------------ other users

OURS = ("sessions.db*", ".*.json", ".new", "*.json", "*.jsonl", "sessions", "recent", "set-aside", "tokens")
"""What stands at the top of the folder; below a folder that is closed nobody comes."""


def close_to_others(settings: Settings) -> list[str]:
    """Take from other users what SESSIONS_UMASK does not leave them, and what is to be said of it.

    A folder of an earlier version was open.
    """
    closed: list[Path] = []
    left: list[Path] = []
    for path in things_of_ours(settings):
        if is_open(path, settings.umask):
            (closed if close(path, settings.umask) else left).append(path)
    told = []
    if closed:
        told.append(
            f"Other users could read {summed_up(closed)}: closed now. SESSIONS_UMASK=027 leaves a group its right"
        )
    if left:
        told.append(f"Other users can read {summed_up(left)}: it belongs to another user, and cannot be closed")
    return told


def summed_up(paths: list[Path]) -> str:
    return f"{paths[0]}" + (f" and {len(paths) - 1} more beside or in it" if len(paths) > 1 else "")


def things_of_ours(settings: Settings) -> Iterator[Path]:
    folder = settings.directory
    if is_ours(folder):
        yield folder
    yield from chain.from_iterable(folder.glob(name) for name in OURS)
    for elsewhere, name in ((settings.backup_directory, "sessions-*.db*"), (settings.archive_directory, "*@*.tar.gz")):
        with suppress(OSError):  # a disk that is away keeps nobody from starting
            yield from elsewhere.glob(name) if elsewhere else ()


def is_ours(folder: Path) -> bool:
    """Whether a folder is for the store alone: /tmp, or somebody's home, is not closed to those who live there."""
    is_shared = folder.stat().st_mode & stat.S_ISVTX
    return not is_shared and ((folder / "sessions.db").exists() or {*os.listdir(folder)} <= {".lock", "lost+found"})


def is_open(path: Path, umask: int) -> bool:
    """Whether other users may do what the umask does not leave them; not so where nobody can say."""
    with suppress(OSError):
        return not path.is_symlink() and bool(path.stat().st_mode & umask)
    return False


def close(path: Path, umask: int) -> bool:
    try:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~umask)
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- still the same

LOOK_INTERVAL = 0.5
"""Seconds between looks, at least."""


class Moved(Exception):
    """What stands at the store's names is not the store any more."""


class Ground:
    """The folder and what is open in it, held against what stands at these names now.

    A folder that is removed, replaced, or unmounted under a running server takes what is written with it, while every
    write succeeds: a file that is open stays, whatever becomes of its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of_a_connection = folder / "sessions.db-wal", folder / "sessions.db-shm"
        """The log and its index. Who opens the database without that index makes another, and then sees nothing of what
        is written here, nor is seen."""
        self.doubt: str | None = None
        """About the file system: a warning."""
        self.why: str | None = None
        """Why nothing may be written; None while all is where it was."""
        self.known: dict[Path, tuple[int, int]] = {}
        self.look_at = 0.0

    def begin(self, lock: int, doubt: str | None, warnings: list[str]) -> None:
        """`lock`: the file by which this process owns the folder. `doubt`: about its file system."""
        self.known[self.folder / ".lock"] = identity(os.fstat(lock))
        self.doubt = doubt
        for warning in [doubt, *warnings] if doubt else warnings:
            logger.warning("%s", warning)

    def take(self) -> None:
        """The database has been opened: what is there now is what has to stay. Only the log may be another than before:
        who opens a database that nobody else has open makes a new one."""
        for path in (self.folder, self.folder / "sessions.db", *self.of_a_connection):
            with suppress(FileNotFoundError):
                self.known.setdefault(path, identity(path.stat()))

    def let_go(self) -> None:
        """The database is closed: if nobody else has it open, its log is gone."""
        for path in self.of_a_connection:
            self.known.pop(path, None)

    def check(self) -> None:
        """Raises Moved: whoever opens the database by its name would open another."""
        if self.why:
            raise Moved(self.why)

    def look_if_due(self) -> None:
        if time.monotonic() >= self.look_at:
            self.look_at = time.monotonic() + LOOK_INTERVAL
            self.look()

    def look(self) -> None:
        moved = next((said for path, then in self.known.items() if (said := changed(path, then))), None)
        if moved is None:
            if self.why:
                logger.warning("%s is as it was: writes are taken again", self.folder)
            self.why = None
            return
        if self.why is None:
            logger.critical("%s", self.reason(moved))
        self.why = self.reason(moved)

    def reason(self, moved: str) -> str:
        return (
            f"{moved} while the server runs, so nothing is written any more: put back what was there, and it goes on; "
            "or stop the server, see what the folder should be, and start it again"
        )


def identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def changed(path: Path, then: tuple[int, int]) -> str | None:
    """How what stands at a path is not what stood there; None: it is."""
    try:
        now = identity(path.stat())
    except OSError as error:
        return None if isinstance(error, PermissionError) else f"{path} has gone ({error.strerror})"
    return None if now == then else f"{path} has been replaced"
