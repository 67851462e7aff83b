"""An integrity check at the start: whether the database can be served, before anything opens it to write.

SQLite finds pages that are damaged, and cannot find what is missing: a database
that has lost its last commits, with the log that held them, is sound. Therefore
its newest cursor is compared with what others have seen.
"""

from __future__ import annotations

import logging
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from export.backup import BackupFailed, BackupManifest, manifest_of, newest_cursor, read_manifest
from export.folders import open_folder
from export.tree import progress_of
from sessionstore import EXPORT
from sessionstore.settings import Settings
from sessionstore.store import high_water_mark as mark
from sessionstore.store.lake import LakeSaid, ask_lake
from sessionstore.store.schema import APPLICATION_ID

logger = logging.getLogger(__name__)

SECONDS = 0.7
"""How long the pages of the database are looked at. Every backup looks at all of them, however long it takes."""
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""The last one: what stands where JSON, or a table, should be is not."""
MARK = f"the file {mark.NAME}"


class Fault(NamedTuple):
    """Why the database is not served: it is told at /health, at /ready, and instead of every answer."""

    status: Literal["behind", "damaged", "displaced"]
    cursor: int
    """The newest that the database has, as far as that can be read."""
    detail: str
    """What is wrong, and the ways out."""


class Evidence(NamedTuple):
    """Somebody who has seen a cursor."""

    cursor: int
    name: str
    holder: Path | str | None = None
    """What can be restored up to this cursor: a file, a folder, the URL of a lake."""


def check_integrity(settings: Settings) -> Fault | None:
    """None: nothing is wrong, or what is wrong is something that opening the database says better.

    Raises CannotStart for a lake that cannot be one.
    """
    lake = ask_lake(settings)
    seen = sorted(witnesses(settings, lake), key=lambda witness: (-witness.cursor, witness.holder is None))
    newest = mark.read_newest(settings.directory)
    looked = look(settings.database, is_ours=bool(seen))
    if looked is None:
        return None
    cursor, faults = looked
    if faults:
        return Fault("damaged", cursor, f"The database is damaged: {faults}. {ways_out(settings, seen, None)}")
    if lake.other:
        return Fault("behind", cursor, OTHER.format(shard=lake.shard, url=settings.lake, said=lake.other))
    ahead = [witness for witness in seen if witness.cursor > cursor]
    if not ahead or cursor == newest.accepted:
        return None
    if settings.durability == "normal" and all(witness.name == MARK for witness in ahead):  # nobody has it any more
        logger.warning("A power cut took what came after cursor %d, up to %d", cursor, ahead[0].cursor)
        return None
    detail = (
        f"The database ends with cursor {cursor}, but {ahead[0].name} has seen {ahead[0].cursor}: what came between "
        f"is missing. {ways_out(settings, seen, cursor)}, or go on without it: `{EXPORT} accept-loss`"
    )
    return Fault("behind", cursor, detail)


OTHER = (
    "The lake {url} has other events as {shard} than the database: {said}. Nothing is served and nothing is written. "
    "If this is another store, name it with SESSIONS_SHARD; if it is an old copy that went on by itself, put it aside "
    f"and bring back what the lake has: `{EXPORT} restore "
    "{url} --force --shard {shard}`"
)


def witnesses(settings: Settings, lake: LakeSaid) -> Iterator[Evidence]:
    """Whoever has seen a cursor of this store."""
    if lake.cursor:
        yield Evidence(lake.cursor, f"the lake {settings.lake}", settings.lake)
    if newest := mark.read_newest(settings.directory).cursor:
        yield Evidence(newest, MARK)
    if progress := tree_cursor(settings.directory):
        yield Evidence(progress, "the file tree", settings.directory)
    for path, manifest in manifests(settings.backup_directory):
        yield Evidence(manifest.cursor, f"the backup {path}", path)


def ways_out(settings: Settings, seen: list[Evidence], cursor: int | None) -> str:
    """In words, for a database that ends with a cursor; None: for one that cannot be used any more."""
    holders = [witness for witness in seen if witness.holder and witness.cursor > (cursor or 0)]
    commands = [way_out(witness.holder, settings.directory, is_kept=cursor is not None) for witness in holders[:2]]
    found = " or ".join(commands) or f"nothing here has it, so restore a backup: `{EXPORT} restore FILE`"
    return f"Nothing is served and nothing is written. Stop the server, and bring back what is missing: {found}"


def way_out(holder: Path | str | None, folder: Path, *, is_kept: bool) -> str:
    how = "--newer" if is_kept and (holder == folder or isinstance(holder, str)) else "--force"
    return f"`{EXPORT} restore {shlex.quote(str(holder))} {how}`"


def tree_cursor(folder: Path) -> int:
    """How far the file tree has come; 0 where there is none."""
    with suppress(OSError), open_folder(folder) as root:
        return progress.cursor if (progress := progress_of(root)) else 0
    return 0


def manifests(folder: Path | None) -> Iterator[tuple[Path, BackupManifest]]:
    """The copies in a folder of backups, and what is known of each."""
    try:
        paths = sorted(folder.glob("*.db")) if folder and folder.is_dir() else []
    except OSError as error:  # of another disk, perhaps: the store does without
        logger.warning("The backups in %s cannot be looked at: %s", folder, error)
        return
    for path in paths:
        try:
            yield path, read_manifest(manifest_of(path))
        except (BackupFailed, OSError) as error:
            logger.warning("The backup %s has no manifest that can be read: %s", path, error)


# -------------------------------------------------------------------- database


def look(database: Path, *, is_ours: bool) -> tuple[int, str] | None:
    """The newest cursor, as far as it can be read, and what is wrong with the file. Changes nothing.

    `is_ours`: there has been a session store here, so that a file that says otherwise is damaged. None: something that
    is not wrong with the file, like a lock or a missing right, keeps it from being read.
    """
    if not database.exists() or not database.stat().st_size:
        return 0, ""
    cursor = 0
    try:
        with open_to_look(database) as connection:
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            if owner != APPLICATION_ID:
                return 0, "its head is not that of a session store" if is_ours else ""
            is_ours = True
            cursor = newest_cursor(connection)
            return cursor, faults_of(connection, SECONDS)
    except sqlite3.DatabaseError as error:
        return (cursor, f"{error}") if is_ours and error.sqlite_errorcode & 0xFF in DAMAGED else None


@contextmanager
def open_to_look(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, and yet may: one that is opened to read does not look at CHECK constraints.

    Whoever closes a database last folds the log into it and deletes the log, damaged
    or not. Here this is a connection that can do neither.
    """
    uri = database.absolute().as_uri()
    with (
        closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as last,
        closing(sqlite3.connect(f"{uri}?mode=rw", uri=True, check_same_thread=False)) as connection,
    ):
        with suppress(sqlite3.DatabaseError):
            last.execute("SELECT 1 FROM sqlite_master").fetchone()
        connection.execute("PRAGMA query_only = ON")
        yield connection


def faults_of(connection: sqlite3.Connection, seconds: float) -> str:
    """What SQLite finds wrong in so many seconds, beginning with what it finds fastest; nothing: an empty text."""
    with interrupted_after(connection, seconds):
        for check in ("quick_check", "integrity_check"):
            try:
                faults = [fault for (fault,) in connection.execute(f"PRAGMA {check}(3)")]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                break
            if faults != ["ok"]:
                return "; ".join(faults)
    return ""


@contextmanager
def interrupted_after(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
