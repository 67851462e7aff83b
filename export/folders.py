"""File work that never leaves the folder it is given.

Every step goes from the descriptor of one directory to a name in it, and no
step follows a symbolic link; a file that has a second name elsewhere is not
written to. So whatever has been planted in a tree, or is swapped while it is
written, nothing outside of it changes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: a FIFO holds nobody up
PIECE_BYTES = 1 << 18
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

OF_THE_DISK = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ESTALE,
        errno.EFBIG,
    )
)
"""Errors that no single file is to blame for."""


class InTheWay(OSError):
    """Something stands where a file or a folder of ours should, and it is neither."""


class Folder:
    """A directory, held by its descriptor. Names are single steps, never paths."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path
        """For messages."""
        self.name = os.path.basename(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    # ---------------------------------------------------------------- folders

    def folder(self, name: str) -> Folder:
        """Raises FileNotFoundError, InTheWay."""
        try:
            descriptor = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise InTheWay(errno.ENOTDIR, "not a folder", f"{self.path}/{name}") from None
            raise
        return Folder(descriptor, f"{self.path}/{name}")

    def make(self, name: str) -> Folder:
        """The folder of this name, made if it is not there. Raises InTheWay."""
        try:
            return self.folder(name)
        except FileNotFoundError:
            os.mkdir(name, dir_fd=self.descriptor)
            return self.folder(name)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.descriptor))

    def is_empty(self) -> bool:
        with os.scandir(self.descriptor) as entries:
            return next(entries, None) is None

    def has(self, name: str) -> bool:
        """Whether there is anything of this name."""
        try:
            os.lstat(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return False
        return True

    def remove_empty(self, name: str) -> None:
        os.rmdir(name, dir_fd=self.descriptor)

    # ------------------------------------------------------------------ files

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """The descriptor of a regular file that has no other name. Raises FileNotFoundError, InTheWay.

        It is looked at before it is opened: a second name of the database must not
        even be opened and closed again in the process that has it open, because
        that drops SQLite's locks.
        """
        try:
            found = os.lstat(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            flags |= os.O_EXCL
        else:
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise InTheWay(errno.EEXIST, "not a file of its own", f"{self.path}/{name}")
        return os.open(name, flags | FILE, 0o666, dir_fd=self.descriptor)

    def read(self, name: str, limit: int = -1) -> bytes | None:
        """All of a file; None if there is none. Raises InTheWay, also for one of more than `limit` bytes."""
        try:
            descriptor = self.open(name)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(limit + 1) if limit >= 0 else file.read()
        if 0 <= limit < len(content):
            raise InTheWay(errno.EFBIG, f"larger than {limit:,} bytes", f"{self.path}/{name}")
        return content

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file that is not there yet; after an error none is."""
        descriptor = os.open(name, NEW_FILE, 0o666, dir_fd=self.descriptor)
        try:
            write_all(descriptor, content)
        except BaseException:
            self.remove(name)
            raise
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def rename(self, name: str, folder: Folder, new_name: str) -> None:
        """Put what is here under `name` into another folder, in the place of the file that is there."""
        os.rename(name, new_name, src_dir_fd=self.descriptor, dst_dir_fd=folder.descriptor)

    def remove_all(self, name: str) -> None:
        """A file, a link, or a folder with all that is in it."""
        if stat.S_ISDIR(os.lstat(name, dir_fd=self.descriptor).st_mode):
            shutil.rmtree(name, dir_fd=self.descriptor)
        else:
            self.remove(name)

    # ------------------------------------------------------------------ links

    def target(self, name: str) -> str | None:
        """Where a symbolic link points; None if there is none of this name."""
        try:
            return os.readlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise InTheWay(errno.EEXIST, "not a link", f"{self.path}/{name}") from None
            raise

    def is_link(self, name: str) -> bool:
        return stat.S_ISLNK(os.lstat(name, dir_fd=self.descriptor).st_mode)

    def link(self, name: str, target: str) -> None:
        os.symlink(target, name, dir_fd=self.descriptor)

    # ------------------------------------------------------------------- disk

    def sync(self) -> None:
        """Return when the folder's own entries are on disk."""
        os.fsync(self.descriptor)

    def sync_file_system(self) -> None:
        """Return when all that was written to this file system is on disk: one call for many files."""
        if sync_file_system(self.descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self.path)


def sync_all(descriptor: int) -> int:
    os.sync()
    return 0


def find_sync() -> Callable[[int], int]:
    """syncfs(2) (Linux); elsewhere what syncs every file system."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return sync_all
    return found


sync_file_system = find_sync()


def open_folder(path: Path) -> Folder:
    """The one step that follows links: where the store lies is for its owner to say."""
    return Folder(os.open(path, FOLDER), str(path))


def write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def lines_of(pieces: Iterable[bytes], limit: int) -> Iterator[bytes | None]:
    """The lines of a text that comes in pieces, each with its end; None: one of more than `limit` bytes."""
    rest, is_long = b"", False
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield None if is_long or len(line) > limit else line + b"\n"
            is_long = False
        if is_long or len(rest) > limit:
            rest, is_long = b"", True
    if rest or is_long:
        yield None if is_long else rest


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(PIECE_BYTES), b"")


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
