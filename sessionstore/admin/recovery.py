"""A backup, or archives, back into a store whose server does not run."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from export import archive, backup, material
from export.folders import lines_of
from export.layout import EVENTS, Step, unseen
from sessionstore.admin.material_back import NameTaken, bring_back_material
from sessionstore.admin.offline import appending
from sessionstore.admin.restore import LINE, PART, Restored, TreeLine, check, check_empty, put_beside, put_in_place
from sessionstore.model.events import json_object
from sessionstore.model.lines import draft_of_line, longest_line
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.appender import Appender
from sessionstore.store.owner import own_folder

SQLITE_HEAD = b"SQLite format 3\0"
GZIP_HEAD = b"\x1f\x8b"
LONGEST_ROW = 64 << 20


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


def put_back(copy: Path, into: Path, *, is_forced: bool = False) -> backup.BackupManifest:
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


def check_is_same(part: Path, manifest: backup.BackupManifest) -> None:
    """Raises BackupFailed unless a copy is what was made."""
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != manifest.sha256:
        raise backup.BackupFailed("The copy is not what its manifest says: it has changed since it was made")


# --------------------------------------------------------------------- archives


def bring_back(
    archives: list[Path],
    settings: Settings,
    step: Step = unseen,
    *,
    with_material: bool = True,
) -> Restored:
    """Append the sessions in archives to a store, with their times and event ids.

    They get new cursors: what has the old ones are the sessions as they were before
    they left. Raises ArchiveFailed before anything is written, CannotStart, Unsound.
    """
    longest = longest_line(settings.max_event_bytes)
    manifests = [checked(path, longest) for path in archives]
    restored = Restored()
    with appending(settings) as appender:
        appender.buffers = False
        for number, (path, manifest) in enumerate(zip(archives, manifests, strict=True), 1):
            if appender.session(manifest.session_id):
                restored.odd.append(f"{path}: there is a session {manifest.session_id} already, and it stays as it is")
                continue
            try:
                restored.events += append_all(appender, events_in(path, manifest.session_id, longest))
            except Problem as problem:
                restored.odd.append(f"{path}: is left out: {problem.detail}")
                continue
            if with_material and (why := material_left_out(appender, path, manifest.session_id)):
                restored.odd.append(f"{path}: the material is left out: {why}")
            step(number, len(archives))
    return restored


def checked(path: Path, longest: int) -> archive.ArchiveManifest:
    """The manifest of an archive whose events are those of its own session. Raises ArchiveFailed."""
    manifest = archive.manifest_in(path)
    for _ in events_in(path, manifest.session_id, longest):
        pass
    return manifest


def append_all(appender: Appender, events: Iterator[tuple[TreeLine, bytes]]) -> int:
    """One session, wholly or not at all; the number of its events. Raises Problem, ArchiveFailed."""
    appender.begin()
    try:
        for event, line in events:
            draft = draft_of_line(json_object(line))
            appender.append(msgspec.structs.replace(draft, received_at=event.received_at, actor=event.by))
        return len(appender.commit())
    except BaseException:
        appender.rollback()
        raise


def material_left_out(appender: Appender, path: Path, session_id: str) -> str:
    """Bring the material of an archived session back, wholly or not at all; why not, if so."""
    appender.begin()
    appender.open_transaction()
    try:
        bring_back_material(appender.connection, session_id, material_in(path))
    except (NameTaken, ValueError, KeyError, sqlite3.Error, msgspec.MsgspecError) as error:
        appender.rollback()
        return f"{error}"
    appender.commit()
    return ""


def material_in(path: Path) -> Iterator[bytes]:
    """Its lines. Raises ValueError for one that is too long."""
    for _, name, pieces in archive.files_in(path):
        if name == material.NAME:
            for line in lines_of(pieces, LONGEST_ROW):
                if line is None:
                    raise ValueError(f"a line has more than {LONGEST_ROW:,} bytes")
                yield line


def events_in(path: Path, session_id: str, longest: int) -> Iterator[tuple[TreeLine, bytes]]:
    """The events of an archived session, in their order, each with its line.

    Raises ArchiveFailed at the first that is of another session, ends one, or is none: whoever hands over an archive
    may say what its own session was, and no more.
    """
    for _, name, pieces in archive.files_in(path):
        if name == EVENTS.name:
            for number, line in enumerate(lines_of(pieces, longest), 1):
                place = f"{path}: line {number} of {name}"
                if line is None:
                    raise archive.ArchiveFailed(
                        f"{place} has more than {longest:,} bytes: see SESSIONS_MAX_EVENT_BYTES"
                    )
                yield event_of_line(line, session_id, place), line


def event_of_line(line: bytes, session_id: str, place: str) -> TreeLine:
    try:
        event = LINE.decode(line)
        check(event)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise archive.ArchiveFailed(f"{place} is not an event: {error}") from None
    if event.session_id != session_id:
        raise archive.ArchiveFailed(f"{place} is of the session {event.session_id}, and the archive of {session_id}")
    if event.type == "session_deleted":
        raise archive.ArchiveFailed(f"{place} deletes its session: no archive that was made here has that")
    return event
