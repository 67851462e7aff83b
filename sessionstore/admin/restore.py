"""A database from a tree.

A tree of this store has every event in its events.jsonl and deleted.jsonl, with
its cursor: the database that comes of them gives the same tree again. Of a folder
of the earlier service new events are made, after all others.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import UNSET, UnsetType, structs

from export.folders import Folder, InTheWay, lines_of, open_folder, pieces_of
from export.layout import DELETED, EVENTS, INDEX, SESSIONS, Step, open_reader, unseen
from sessionstore.admin.legacy_tree import DOCUMENT_BYTES, Reading
from sessionstore.model.events import EVENT_TYPES, LOGS, Draft, Event, is_id, is_user, now
from sessionstore.model.folds import Document, decode, encode
from sessionstore.model.lines import longest_line
from sessionstore.model.problems import Problem
from sessionstore.store.appender import INSERTS, Appender, is_of_the_disk, values_of
from sessionstore.store.maintenance import purge
from sessionstore.store.owner import own_folder
from sessionstore.store.schema import open_writer
from sessionstore.store.write_ahead_log import checkpoint

DATABASE = "sessions.db"
BESIDE = ("-wal", "-shm", "-journal")
PART = "sessions.db.part"
TRANSACTION = 5000
"""Events a transaction."""
INDEX_BYTES = 256 << 20
"""The index of half a million sessions."""
LONGEST = longest_line(1 << 20)
"""Bytes of a line, where SESSIONS_MAX_EVENT_BYTES is as it is from the start."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
SEQ = re.compile(rb'\{"seq":([0-9]{1,18}),')


class NotEmpty(Exception):
    """There are events already where the database should go. The message says what can be done."""


class TreeLine(msgspec.Struct, rename="camel"):
    """A line of events.jsonl: its data is kept as it stands."""

    cursor: int
    type: str
    session_id: str
    user_id: str
    event_id: str
    agent_id: str | None
    timestamp: str
    received_at: str
    data: msgspec.Raw
    actor: str | UnsetType | None = UNSET
    patch: str | None = None

    @property
    def by(self) -> str | None:
        """Its actor as an event has it."""
        return None if self.actor is UNSET else self.actor or ""


class Restored(msgspec.Struct):
    """What became of it."""

    events: int = 0
    earlier: int = 0
    """Sessions of the earlier service."""
    odd: list[str] = []
    """What was not as it should be, and what was done about it."""


def restore(
    tree: Path,
    into: Path,
    *,
    is_forced: bool = False,
    is_newer: bool = False,
    longest: int = LONGEST,
    step: Step = unseen,
) -> Restored:
    """Make the database of the folder `into` from a tree.

    `is_forced`: a database that is there is put beside. `is_newer`: it stays, and
    gets the events after its newest. `longest`: bytes of a line. `step` is told how many events are done, and of how
    many; 0: that is not known yet. Raises NotEmpty, CannotStart if a server has
    the folder, sqlite3.Error, OSError.
    """
    lock = own_folder(into)
    try:
        with open_folder(tree) as root:
            if is_newer:
                return write(root, into / DATABASE, longest, step)
            check_empty(into, is_forced)
            part = into / PART
            for suffix in ("", *BESIDE):
                part.with_name(part.name + suffix).unlink(missing_ok=True)
            restored = write(root, part, longest, step)
            put_beside(into)
            put_in_place(part, into)
            return restored
    finally:
        os.close(lock)


def write(root: Folder, path: Path, longest: int, step: Step) -> Restored:
    with closing(open_writer(path, durability="normal")) as database:
        restored = Restoration(database, root, longest, step).run()
        checkpoint(database, "TRUNCATE")
    return restored


class Insertion:
    """Events on their way into one database, in the order of their cursors: what one does can depend on others."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self.restored = Restored()
        self.live: set[str] = {name for (name,) in database.execute("SELECT session_id FROM sessions")}
        ((self.head,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
        database.execute("PRAGMA temp_store = FILE")
        database.execute("PRAGMA temp.cache_size = -65536")
        database.execute("CREATE TEMP TABLE lines (cursor INTEGER PRIMARY KEY, line BLOB NOT NULL)")

    def odd(self, path: str, what: str) -> None:
        self.restored.odd.append(f"{path}: {what}")

    def insert(self, event: Event) -> None:
        try:
            if event.session_id not in self.live and event.type not in ("session_created", "session_deleted"):
                self.make_beginning(event)
            self.database.execute(INSERTS[1], values_of(event))
        except (sqlite3.DatabaseError, ValueError) as error:
            if is_of_the_disk(error):
                raise
            self.leave_out(event.session_id, event.cursor, error)
            return
        self.restored.events += 1
        if event.type == "session_deleted":
            self.live.discard(event.session_id)
        else:
            self.live.add(event.session_id)

    def leave_out(self, session_id: str, cursor: int, error: Exception) -> None:
        self.odd(f"{SESSIONS}/{session_id}/{EVENTS.name}", f"cursor {cursor}: is left out: {error}")

    def make_beginning(self, event: Event) -> None:
        """Of a session whose first events are lost, so that what came after them is shown."""
        row = self.database.execute(LAST_FREE, (event.cursor,)).fetchone()
        if row is None:
            raise ValueError("the beginning of its session is lost, and no cursor before it is free")
        path = f"{SESSIONS}/{event.session_id}/{EVENTS.name}"
        self.odd(path, f"begins with cursor {event.cursor}: the session's creation is lost, and made anew")
        creation = structs.replace(
            event,
            cursor=row[0],
            type="session_created",
            event_id=f"restored-{row[0]}",
            agent_id=None,
            patch=None,
            seq=None,
            kind=None,
            data=encode({"initial": self.document(event.session_id, "initial.json"), "implicit": True}),
        )
        self.database.execute(INSERTS[1], values_of(creation))
        self.restored.events += 1

    def document(self, session_id: str, name: str) -> Document:
        """A JSON file of a session, where there are such; empty where it cannot be read."""
        return {}


class Restoration(Insertion):
    """One tree on its way into one database."""

    def __init__(self, database: sqlite3.Connection, root: Folder, longest: int, step: Step) -> None:
        super().__init__(database)
        self.root = root
        self.longest = longest
        self.step = step

    def run(self) -> Restored:
        earlier = self.collect()
        self.insert_lines()
        self.keep_subsessions()
        while purge(self.database):
            pass
        self.append_earlier(earlier)
        return self.restored

    # -------------------------------------------------------------- what is there

    def collect(self) -> list[str]:
        """Put all lines of this store in the order of their cursors; the names of the earlier service's folders."""
        earlier = []
        self.database.execute("BEGIN")
        self.collect_lines(self.root, DELETED, DELETED)
        try:
            sessions = self.root.folder(SESSIONS)
        except (FileNotFoundError, InTheWay):
            self.odd(SESSIONS, "there is no such folder")
            self.database.execute("COMMIT")
            return []
        with sessions:
            for name in sessions.names():
                if name.startswith("."):
                    continue
                try:
                    with sessions.folder(name) as folder:
                        path = f"{SESSIONS}/{name}/{EVENTS.name}"
                        if not self.collect_lines(folder, EVENTS.name, path):
                            earlier.append(name)
                except InTheWay:
                    self.odd(f"{SESSIONS}/{name}", "is no folder")
                self.step(self.database.total_changes, 0)  # lines, so far
        self.database.execute("COMMIT")
        return earlier

    def collect_lines(self, folder: Folder, name: str, path: str) -> bool:
        """False where there is no such file."""
        try:
            descriptor = folder.open(name)
        except FileNotFoundError:
            return False
        except InTheWay as error:
            self.odd(path, error.strerror or "cannot be read")
            return True
        with os.fdopen(descriptor, "rb") as file:
            self.database.executemany(
                "INSERT OR IGNORE INTO lines VALUES (?, ?)",
                self.events_of(file, path, folder.name if name == EVENTS.name else None),
            )
        return True

    def events_of(self, file: BinaryIO, path: str, session_id: str | None) -> Iterator[tuple[int, bytes]]:
        """What may stand there: in a session's folder its own, in deleted.jsonl deletions. All else is said."""
        for number, text in enumerate(lines_of(pieces_of(file), self.longest), 1):
            if text is None:
                self.odd(path, f"line {number}: has more than {self.longest:,} bytes: see SESSIONS_MAX_EVENT_BYTES")
                continue
            try:
                line = LINE.decode(text)
                check(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
                torn = "" if text.endswith(b"\n") else "half a line, and "
                self.odd(path, f"line {number}: is {torn}not an event: {error}")
                continue
            if session_id is not None and line.session_id != session_id:
                self.odd(path, f"line {number}: is of the session {line.session_id}, and is left out")
            elif (line.type == "session_deleted") != (session_id is None):
                self.odd(path, f"line {number}: is a {line.type}, which has no place there, and is left out")
            elif line.cursor > self.head:
                yield line.cursor, text

    # ----------------------------------------------------------------- the events

    def insert_lines(self) -> None:
        """Whatever session they are of."""
        after = self.head
        ((number,),) = self.database.execute("SELECT count(*) FROM lines").fetchall()
        while lines := self.database.execute(
            "SELECT cursor, line FROM lines WHERE cursor > ? ORDER BY cursor LIMIT ?", (after, TRANSACTION)
        ).fetchall():
            self.database.execute("BEGIN IMMEDIATE")
            for _, text in lines:
                self.insert_line(LINE.decode(text))
            self.database.execute("COMMIT")
            after = lines[-1][0]
            self.step(self.restored.events, number)

    def insert_line(self, line: TreeLine) -> None:
        try:
            event = event_of(line)
        except (msgspec.MsgspecError, ValueError) as error:
            self.leave_out(line.session_id, line.cursor, error)
        else:
            self.insert(event)

    def document(self, session_id: str, name: str) -> Document:
        """A JSON file of a session in the tree; empty where it cannot be read."""
        try:
            with self.root.folder(SESSIONS) as sessions, sessions.folder(session_id) as folder:
                return msgspec.json.decode(folder.read(name, DOCUMENT_BYTES) or b"{}", type=Document)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}

    def keep_subsessions(self) -> None:
        """final.json names the sub-sessions that there were at the end; of those deleted since nothing else tells."""
        finals = self.database.execute("SELECT session_id, document FROM documents WHERE name = 'final'").fetchall()
        for session_id, document in finals:
            kept, made = self.document(session_id, "final.json"), decode(document)
            if kept.get("timestamp") == made["timestamp"] and isinstance(kept.get("subsessions"), list):
                self.database.execute(
                    "UPDATE documents SET document = ? WHERE session_id = ? AND name = 'final'",
                    (encode(made | {"subsessions": kept["subsessions"]}), session_id),
                )

    # -------------------------------------------------------- the earlier service

    def append_earlier(self, names: list[str]) -> None:
        """Those that changed first come first, so that the newest are the newest again."""
        if not names:
            return
        index = self.index()
        with self.root.folder(SESSIONS) as sessions:
            order = sorted((self.updated(sessions, name, index), name) for name in names)
            ids = (f"restored-{number}" for number in count(self.head + self.restored.events + 1))
            appender = Appender(self.database, clock=now, ids=ids)
            appender.buffers = False
            for _, name in order:
                self.append_session(appender, self.reading(sessions, name, index, self.odd))

    def updated(self, sessions: Folder, name: str, index: Document) -> str:
        return self.reading(sessions, name, index, lambda path, what: None).updated

    def reading(self, sessions: Folder, name: str, index: Document, odd: Callable[[str, str], None]) -> Reading:
        indexed = index.get(name)
        with sessions.folder(name) as folder:
            return Reading(
                folder,
                name,
                indexed if isinstance(indexed, dict) else {},
                lambda file, what: odd(f"{SESSIONS}/{name}/{file}", what),
            )

    def append_session(self, appender: Appender, reading: Reading) -> None:
        path = f"{SESSIONS}/{reading.session_id}"
        if not is_id(reading.session_id):
            self.odd(path, "is no id that a session can have, and is left out")
            return
        if reading.session_id in self.live:
            self.odd(path, "there is a session of this id, and this one is left out")
            return
        appender.begin()
        for draft in reading.drafts():
            self.append(appender, draft, path)
        appender.commit()
        self.restored.earlier += 1
        self.step(self.restored.events, 0)

    def append(self, appender: Appender, draft: Draft, path: str) -> None:
        try:
            appender.append(draft)
        except Problem as problem:
            if draft.type != "metadata_updated" or "earlier" in draft.data:
                self.odd(path, f"a {draft.type} is left out: {problem.detail}")
                return
            self.odd(f"{path}/metadata.json", f"is kept as `earlier`, because {problem.detail}")
            draft.data = {"earlier": draft.data}
            self.append(appender, draft, path)
            return
        self.restored.events += 1

    def index(self) -> Document:
        try:
            return msgspec.json.decode(self.root.read(INDEX, INDEX_BYTES) or b"{}", type=Document)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self.odd(INDEX, "cannot be read")
            return {}


LINE = msgspec.json.Decoder(TreeLine)
LAST_FREE = """
SELECT cursor + 1 FROM (SELECT 0 AS cursor UNION ALL SELECT cursor FROM events) AS used
WHERE cursor + 1 < ? AND NOT EXISTS (SELECT 1 FROM events WHERE events.cursor = used.cursor + 1)
  AND NOT EXISTS (SELECT 1 FROM lines WHERE lines.cursor = used.cursor + 1)
ORDER BY cursor DESC LIMIT 1"""
"""The last cursor before another that nothing has."""


def check(line: TreeLine) -> None:
    """Raises ValueError for what the schema leaves to the server to check."""
    if line.cursor < 1:
        raise ValueError(f"its cursor is {line.cursor}")
    if line.type not in EVENT_TYPES:
        raise ValueError(f"there is no type {line.type!r}")
    for name in (line.session_id, line.event_id, *([line.agent_id] if line.agent_id is not None else [])):
        if not is_id(name):
            raise ValueError(f"{name!r} is no id")
    if not is_user(line.user_id):
        raise ValueError(f"{line.user_id!r} is no userId")
    if line.by and not is_user(line.by):
        raise ValueError(f"{line.by!r} is no actor")
    for time in (line.timestamp, line.received_at):
        if not TIME.fullmatch(time):
            raise ValueError(f"{time!r} is no time in UTC and milliseconds")


def event_of(line: TreeLine) -> Event:
    """The event whose line in the view `timeline` this is, to the letter. Raises ValueError."""
    data, seq, kind = bytes(line.data), None, None
    if line.type in LOGS:
        if not (found := SEQ.match(data)):
            raise ValueError("its data does not begin with its seq")
        data, seq = b"{" + data[found.end() :], int(found[1])
        kind = msgspec.json.decode(data, type=Kind).type
    return Event(
        line.cursor,
        line.type,
        line.session_id,
        line.user_id,
        line.event_id,
        line.agent_id,
        line.timestamp,
        line.received_at,
        line.by,
        line.patch,
        seq,
        kind,
        data.decode(),
    )


class Kind(msgspec.Struct):
    type: str


# ------------------------------------------------------------------------- files


def check_empty(folder: Path, is_forced: bool) -> None:
    path = folder / DATABASE
    if is_forced or not path.exists():
        return
    try:
        with closing(open_reader(path)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'events'").fetchall()
            if not tables or database.execute("SELECT 1 FROM events LIMIT 1").fetchone() is None:
                return
    except sqlite3.DatabaseError as error:
        raise NotEmpty(f"The database {path} cannot be read ({error}): --force puts it beside the new one") from None
    raise NotEmpty(
        f"The database {path} has events already: --newer adds what only the tree has, --force puts it beside the"
        " new one"
    )


def put_beside(folder: Path) -> None:
    """The database that is there, with its log: a log left beside another database would destroy that. So it goes last:
    whoever is killed meanwhile puts it beside its log the next time."""
    taken = next(number for number in count(1) if not (folder / f"{DATABASE}.before-restore-{number}").exists())
    for suffix in (*BESIDE, ""):
        path = folder / f"{DATABASE}{suffix}"
        if path.exists():
            path.rename(folder / f"{DATABASE}.before-restore-{taken}{suffix}")


def put_in_place(part: Path, folder: Path) -> None:
    """Whole, and on disk, before it has its name."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(folder / DATABASE)
    with open_folder(folder) as opened:
        opened.sync()
