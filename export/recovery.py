"""A backup, or archives, back into a store whose server does not run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sessionstore.database import Appender
from sessionstore.events import Draft, json_object
from sessionstore.owner import own_folder
from sessionstore.problems import Problem
from sessionstore.requests import draft_of_line
from sessionstore.settings import Settings

from . import archive, backup
from .layout import EVENTS
from .offline import appending
from .restore import PART, Restored, check_empty, put_beside, put_in_place

SQLITE_HEAD = b"SQLite format 3\0"
GZIP_HEAD = b"\x1f\x8b"


class Unknown(Exception):
    """What is to be restored is none of the things that can be. The message says so."""


def kind_of(source: Path) -> str:
    """`tree`, `backup` or `archive`. Raises Unknown, OSError."""
    if source.is_dir():
        return "tree"
    with open(source, "rb") as file:
        head = file.read(len(SQLITE_HEAD))
    if head == SQLITE_HEAD:
        return "backup"
    if head.startswith(GZIP_HEAD):
        return "archive"
    raise Unknown(f"{source} is neither a file tree, nor a backup, nor an archive")


# --------------------------------------------------------------------- a backup


def put_back(copy: Path, into: Path, *, is_forced: bool = False) -> backup.Manifest:
    """Make a copy the database of the folder `into`. Raises BackupFailed, NotEmpty, CannotStart, OSError.

    `is_forced`: a database that is there is put beside, with its log.
    """
    lock = own_folder(into)
    try:
        check_empty(into, is_forced)
        part = into / PART
        try:
            shutil.copyfile(copy, part)
            manifest = backup.examine(part)
            if (beside := backup.manifest_of(copy)).exists():
                check_is_same(part, backup.read_manifest(beside))
            put_beside(into)
            put_in_place(part, into)
        finally:
            backup.remove(part)
        return manifest
    finally:
        os.close(lock)


def check_is_same(part: Path, manifest: backup.Manifest) -> None:
    """Raises BackupFailed unless a copy is what was made."""
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != manifest.sha256:
        raise backup.BackupFailed("The copy is not what its manifest says: it has changed since it was made")


# --------------------------------------------------------------------- archives


def bring_back(archives: list[Path], settings: Settings, step: Callable[[int], None] = lambda number: None) -> Restored:
    """Append the sessions in archives to a store, with their times and event ids.

    They get new cursors: what has the old ones are the sessions as they were before
    they left. Raises ArchiveFailed before anything is written, CannotStart, Unsound.
    """
    manifests = [archive.manifest_in(path) for path in archives]
    restored = Restored()
    with appending(settings) as appender:
        appender.puts_off = False
        for path, manifest in zip(archives, manifests, strict=True):
            if appender.session(manifest.session_id):
                restored.odd.append(f"{path}: there is a session {manifest.session_id} already, and it stays as it is")
                continue
            try:
                restored.events += append_all(appender, path)
            except Problem as problem:
                restored.odd.append(f"{path}: is left out: {problem.detail}")
            step(restored.events)
    return restored


def append_all(appender: Appender, path: Path) -> int:
    """One session, wholly or not at all; the number of its events. Raises Problem."""
    appender.begin()
    try:
        for draft in drafts_in(path):
            appender.append(draft)
        return len(appender.commit())
    except Problem:
        appender.rollback()
        raise


def drafts_in(path: Path) -> Iterator[Draft]:
    """The events of an archived session, in their order. Raises Problem."""
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        for member in tar:
            if member.isreg() and member.name.partition("/")[2] == EVENTS.name:
                for line in tar.extractfile(member) or ():
                    event = json_object(line)
                    yield msgspec.structs.replace(draft_of_line(event), received_at=event["receivedAt"])
