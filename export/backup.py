"""A consistent copy of the database, made while the server writes, checked, with a manifest beside it.

    sessions.db ── SQLite's backup API ──▶ FILE.part ── checks ──▶ FILE.json, then FILE

Under its final name a copy is always whole, on disk, and has its manifest. Which
of many copies may go is decided by `superfluous`, from their names alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from export.layout import open_reader

STEP_PAGES = 256
"""Pages copied at a time, 1 MiB, and then put on disk: a file system that is left to gather a whole copy makes every
other `fsync` wait for it."""
KEPT = {"%Y-%m-%d %H": 24, "%Y-%m-%d": 14, "%G week %V": 8}
"""Of the newest so many hours, days and weeks that have a copy, the last one of each is kept."""
NAME = re.compile(r"sessions-(\d{8}T\d{6}Z)\.db(\.json)?", re.ASCII)
TIME = "%Y%m%dT%H%M%SZ"
MANIFEST_BYTES = 16 << 20
"""No manifest, of a backup or an archive, is larger: what is, is none."""

sync_content: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # a Mac has the second alone

Progress = Callable[[int, int], object]
"""Told how many pages are copied, of how many; true: there is haste. What it raises stops the copying."""


class BackupFailed(Exception):
    """There is no copy under the final name. The message says why."""


class BackupManifest(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What is known of a copy: FILE.json."""

    schema: str = msgspec.field(default="session-backup-v1", name="$schema")
    made_at: str
    cursor: int
    """The newest that it holds."""
    counts: dict[str, int]
    """Rows by table."""
    bytes: int
    sha256: str
    sqlite_version: str
    schema_version: int

    def __post_init__(self) -> None:
        datetime.fromisoformat(self.made_at)


# ---------------------------------------------------------------------- copying


def back_up(database: Path, target: Path, progress: Progress = lambda done, total: None) -> BackupManifest:
    """Copy `database` to `target`, which must not exist. Raises BackupFailed, and OSError as from a full disk."""
    if target.exists():
        raise BackupFailed(f"{target} is there already: nothing is overwritten")
    if not database.exists():
        raise BackupFailed(f"There is no database {database}")
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    part.touch()  # SQLite would not say that it is this that it cannot write
    try:
        cursor = copy(database, part, progress)
        manifest = examine(part)
        if manifest.cursor != cursor:
            raise BackupFailed(f"The copy has cursor {manifest.cursor}, and {cursor} was copied")
        put_in_place(part, target, manifest)
    except sqlite3.Error as error:
        raise BackupFailed(f"{database} could not be copied: {error}") from error
    finally:
        remove(part)
    return manifest


def copy(database: Path, part: Path, progress: Progress) -> int:
    """The newest cursor of what was copied: one snapshot, which holds no writer up."""
    with closing(open_reader(database)) as source:
        source.execute("BEGIN")  # without a snapshot, the copying would begin anew with every commit of the server
        cursor = newest_cursor(source)
        with closing(sqlite3.connect(part)) as copied:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = 100"):
                copied.execute(f"PRAGMA {pragma}")
            with open(part, "rb") as file:

                def step(status: int, remaining: int, total: int) -> None:
                    begun = time.monotonic()
                    sync_content(file.fileno())
                    took = time.monotonic() - begun
                    if not progress(total - remaining, total):
                        time.sleep(took)  # the disk is as long for others

                source.backup(copied, pages=STEP_PAGES, progress=step)
    return cursor


def newest_cursor(connection: sqlite3.Connection) -> int:
    (cursor,) = connection.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchone()
    return int(cursor)


def examine(part: Path) -> BackupManifest:
    """Check every page and reference of a copy, and make it a file that needs nothing beside it."""
    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        check(connection)
        tables = connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for (name,) in sorted(tables)}
        cursor = newest_cursor(connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BackupManifest(
        made_at=datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
        cursor=cursor,
        counts=counts,
        bytes=part.stat().st_size,
        sha256=digest,
        sqlite_version=sqlite3.sqlite_version,
        schema_version=version,
    )


def check(connection: sqlite3.Connection) -> None:
    """Raises BackupFailed for a database that is not sound."""
    faults = [fault for (fault,) in connection.execute("PRAGMA integrity_check(3)")]
    if faults != ["ok"]:
        raise BackupFailed(f"The database is damaged: {'; '.join(faults)}")
    if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise BackupFailed(f"The database is damaged: a row of {broken[0]} refers to nothing in {broken[2]}")


def put_in_place(part: Path, target: Path, manifest: BackupManifest) -> None:
    """The manifest first, so that there is no copy without one."""
    beside = manifest_of(target)
    described = beside.with_name(f"{beside.name}.part")
    described.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    for path in (described, part):
        synchronise(path)
    described.rename(beside)
    part.rename(target)
    synchronise(target.parent)


def manifest_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def read_manifest(path: Path) -> BackupManifest:
    """Raises BackupFailed for a file that is none."""
    with open(path, "rb") as file:
        text = file.read(MANIFEST_BYTES + 1)
    if len(text) > MANIFEST_BYTES:
        raise BackupFailed(f"{path} is no manifest of a backup: it has more than {MANIFEST_BYTES:,} bytes")
    try:
        return msgspec.json.decode(text, type=BackupManifest)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BackupFailed(f"{path} is no manifest of a backup: {error}") from None


def synchronise(path: Path) -> None:
    """Have the kernel put a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(part: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        part.with_name(part.name + ending).unlink(missing_ok=True)


# ---------------------------------------------------------------------- keeping


def name_for(moment: datetime) -> str:
    """What a copy that is made unasked is called; names sort by time."""
    return f"sessions-{moment.astimezone(UTC):{TIME}}.db"


def superfluous(names: Iterable[str], halvings: int = 0) -> list[str]:
    """Of the names in a folder of copies, those that may go, each copy before its manifest. For want of room
    half as many stay of each kind, after two `halvings` a quarter.

    What is not named as `name_for` names it is somebody else's, and is never among
    them. Time is what the names say: a clock that jumps deletes nothing.
    """
    times = {name: moment for name in sorted(names) if (moment := time_of(name)) is not None}
    kept: set[datetime] = set()
    for period, number in KEPT.items():
        newest = {moment.strftime(period): moment for moment in times.values()}
        kept.update(sorted(newest.values())[-(max(1, number >> halvings)) :])
    return [name for name, moment in times.items() if moment not in kept]


def time_of(name: str) -> datetime | None:
    """When a copy, or its manifest, was made, as its name says; None where the name is not of that kind."""
    match = NAME.fullmatch(name)
    try:
        return datetime.strptime(match[1], TIME).replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def thin_out(folder: Path, made: Path | None, halvings: int = 0) -> None:
    """Delete what is superfluous in a folder of copies, but not the one just made: its clock may have been set back."""
    for name in superfluous(os.listdir(folder), halvings):
        if made is None or name not in (made.name, manifest_of(made).name):
            (folder / name).unlink()
