"""Where a tree and the database differ, file by file.

A tree that a server keeps is a little behind all the time. What differs in it is
looked at again, until it is as the database has it, or the tree has come to the
database and differs still. Of a session to which agents write all the time only
the logs are compared, as far as both have them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from export import layout
from export.folders import Folder, InTheWay, closing
from export.layout import DELETED, INDEX, LOGS, METADATA, PROGRESS, RECENTS, SESSIONS, SUBSESSIONS, Log, TreeSession
from export.tree import SCRATCH, progress_of

RECORD = ".verified.json"
WAIT_SECONDS = 3.0
"""How long a tree that a server keeps is waited for."""
POLL_SECONDS = 0.1
WHOLE = ""
"""In the place of a session id: what concerns all sessions."""


class Difference(NamedTuple):
    """One file or link that is not as the database has it."""

    path: str
    """From the tree's folder."""
    kind: str
    """`missing`, `extra`, `differs`, `torn` (ends within a line), `short` (ends before a line), `long` (goes on with a
    line of its own), `points elsewhere`, `is no file of its own`, `is no folder`, `is no link`."""
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}" + (f" at line {self.line}" if self.line is not None else "")


class Verified(NamedTuple):
    """What was found."""

    differences: list[Difference]
    sessions: int
    unchanged: int
    """Sessions that were not read: neither database nor tree has changed since they were found right."""
    moving: int
    """Sessions to which agents wrote all the time: only their logs were compared."""


class Look(NamedTuple):
    """What one look at a session, or at the whole, has found."""

    differences: list[Difference]
    head: int
    """The newest cursor of the database then."""
    shown: str | None
    """The session's metadata then: while it is the same, nothing of the session has changed."""


class Verification:
    """One comparison of a tree with the database. `is_full`: read also what has not changed since it was right."""

    def __init__(self, database: sqlite3.Connection, root: Folder, *, is_full: bool = False) -> None:
        self.database = database
        self.root = root
        self.known = {} if is_full else recorded(root)
        self.right: dict[str, str] = {}
        """By session, how it looked in the database and on disk when it was found right."""
        self.unchanged = self.moving = 0

    def run(self, step: layout.Step = layout.unseen) -> Verified:
        """`step` is told how many sessions are done, and of how many."""
        is_kept = not lock(self.root)
        with layout.snapshot(self.database):
            ids = [session_id for session_id, _ in layout.changed(self.database, 0)]
        odd: dict[str, Look] = {}
        for number, session_id in enumerate(ids, 1):
            if (look := self.look(session_id)).differences:
                odd[session_id] = look
            step(number, len(ids))
        if (look := self.look(WHOLE)).differences:
            odd[WHOLE] = look
        if is_kept:
            self.look_again(odd)
        record(self.root, self.right)
        differences = sorted(difference for look in odd.values() for difference in look.differences)
        return Verified(differences, len(ids), self.unchanged, self.moving)

    def look(self, session_id: str) -> Look:
        with layout.snapshot(self.database) as head:
            if session_id == WHOLE:
                return Look(list(self.whole(head)), head, None)
            session = layout.session(self.database, session_id)
            return Look(list(self.session(session)) if session else [], head, session.metadata if session else None)

    def look_again(self, odd: dict[str, Look]) -> None:
        """Until what is odd is right, or wrong for certain: it is, if the tree has come past where it was found."""
        until = time.monotonic() + WAIT_SECONDS
        doubtful = list(odd)
        while doubtful and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            for name in list(doubtful):
                before, reached = odd[name], self.tree_cursor()
                odd[name] = look = self.look(name)
                is_same = look.shown == before.shown if name else look.head == before.head
                if is_same and reached >= before.head:
                    doubtful.remove(name)
                elif is_same:
                    odd[name] = look._replace(head=before.head)
                if not look.differences:
                    del odd[name]
                    doubtful = [other for other in doubtful if other != name]
        for name in doubtful:
            odd[name] = odd[name]._replace(differences=list(self.certain(name, odd[name].differences)))

    def certain(self, session_id: str, differences: Iterable[Difference]) -> Iterator[Difference]:
        """Of the differences those that no tree has that is only behind, or a step ahead of what was read."""
        if session_id == WHOLE:
            yield from (difference for difference in differences if difference.path.startswith(SESSIONS))
            return
        with layout.snapshot(self.database):
            session = layout.session(self.database, session_id)
            if session is None or session.last_cursor <= self.tree_cursor():
                yield from self.session(session) if session else ()
                return
        self.moving += 1
        logs = tuple(log.name for log in LOGS)
        for difference in differences:
            if difference.path.endswith(logs) and difference.kind not in ("missing", "torn", "short", "long"):
                yield difference

    def tree_cursor(self) -> int:
        progress = None
        with suppress(OSError):
            progress = progress_of(self.root)
        return progress.cursor if progress else 0

    # -------------------------------------------------------------- the whole

    def whole(self, head: int) -> Iterator[Difference]:
        """What concerns more than one session."""
        deleted = "".join(f"{deletion.document}\n" for deletion in layout.deletions(self.database, 0, head))
        yield from self.document(self.root, INDEX, layout.index(self.database))
        yield from self.document(self.root, DELETED, deleted.encode())
        yield from self.links(self.root, RECENTS, layout.recent(self.database), is_always_there=True)
        if (cursor := self.tree_cursor()) != head:
            yield Difference(PROGRESS, f"has cursor {cursor}, the database {head}")
        try:
            with self.root.folder(SESSIONS) as sessions:
                known = {session_id for session_id, _ in layout.changed(self.database, 0)} | {SCRATCH}
                yield from (Difference(f"{SESSIONS}/{name}", "extra") for name in sessions.names() if name not in known)
        except FileNotFoundError:
            yield Difference(SESSIONS, "missing")
        except InTheWay:
            yield Difference(SESSIONS, "is no folder")

    # ------------------------------------------------------------- one session

    def session(self, session: TreeSession) -> Iterator[Difference]:
        session_id = session.session_id
        path = f"{SESSIONS}/{session_id}"
        try:
            with self.root.folder(SESSIONS) as sessions, sessions.folder(session_id) as folder:
                looks = fingerprint(session, folder)
                if self.known.get(session_id) == looks:
                    self.unchanged += 1
                    self.right[session_id] = looks
                    return
                differences = list(self.files(session, folder))
        except FileNotFoundError:
            yield Difference(path, "missing")
            return
        except InTheWay:
            yield Difference(path, "is no folder")
            return
        if not differences:
            self.right[session_id] = looks
        yield from (Difference(f"{path}/{name}", kind, line) for name, kind, line in differences)

    def files(self, session: TreeSession, folder: Folder) -> Iterator[Difference]:
        """The differences of a session's folder, by the names in it."""
        documents = layout.documents(self.database, session.session_id) | {METADATA: layout.pretty(session.metadata)}
        for log in LOGS:
            yield from self.log(session, folder, log)
        for name, content in documents.items():
            if content is not None:
                yield from self.document(folder, name, content)
        links = layout.subsessions(self.database, session.session_id)
        yield from self.links(folder, SUBSESSIONS, links)
        known = {name for name, content in documents.items() if content is not None}
        known |= {log.name for log in LOGS} | {SUBSESSIONS}
        yield from (Difference(name, "extra") for name in folder.names() if name not in known)

    def log(self, session: TreeSession, folder: Folder, log: Log) -> Iterator[Difference]:
        try:
            descriptor = folder.open(log.name)
        except FileNotFoundError:
            yield Difference(log.name, "missing")
            return
        except InTheWay:
            yield Difference(log.name, "is no file of its own")
            return
        with closing(descriptor) as file:
            offset = lines = 0
            pieces = layout.pieces(self.database, log, session.session_id, session.before_first(log), session.last(log))
            for _, piece in pieces:
                found = os.pread(file, len(piece), offset)
                if found != piece:
                    kind, line = difference_in(piece, found)
                    yield Difference(log.name, kind, lines + line)
                    return
                offset += len(piece)
                lines += piece.count(b"\n")
            if os.pread(file, 1, offset):
                yield Difference(log.name, "long", lines + 1)

    def document(self, folder: Folder, name: str, content: bytes) -> Iterator[Difference]:
        try:
            found = folder.read(name)
        except InTheWay:
            yield Difference(name, "is no file of its own")
            return
        if found is None:
            yield Difference(name, "missing")
        elif found.startswith(content) and found != content:
            yield Difference(name, "long", content.count(b"\n") + 1)
        elif found != content:
            yield Difference(name, *difference_in(content, found))

    def links(
        self, folder: Folder, name: str, wanted: Mapping[str, str], *, is_always_there: bool = False
    ) -> Iterator[Difference]:
        try:
            with folder.folder(name) as links:
                if not wanted and not is_always_there:
                    yield Difference(name, "extra")
                yield from (Difference(f"{name}/{link}", "extra") for link in links.names() if link not in wanted)
                for link, target in wanted.items():
                    yield from self.link(links, f"{name}/{link}", link, target)
        except FileNotFoundError:
            if wanted or is_always_there:
                yield Difference(name, "missing")
        except InTheWay:
            yield Difference(name, "is no folder")

    def link(self, links: Folder, path: str, name: str, target: str) -> Iterator[Difference]:
        try:
            found = links.target(name)
        except InTheWay:
            yield Difference(path, "is no link")
            return
        if found != target:
            yield Difference(path, "missing" if found is None else "points elsewhere")


def difference_in(wanted: bytes, found: bytes) -> tuple[str, int]:
    """How what was found differs from what was wanted, and at which line."""
    if wanted.startswith(found):
        line = found.count(b"\n") + 1
        return ("short" if not found or found.endswith(b"\n") else "torn"), line
    line = next(
        number
        for number, (one, other) in enumerate(zip(wanted.split(b"\n"), found.split(b"\n"), strict=False), 1)
        if one != other
    )
    return "differs", line


def lock(root: Folder) -> bool:
    """Keep others from writing to the tree until it is closed; False where one does already."""
    try:
        fcntl.flock(root.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ------------------------------------------------------------ what was right before


def fingerprint(session: TreeSession, folder: Folder) -> str:
    """Changes whenever the session changes in the database, or anything of it on disk."""
    digest = hashlib.blake2b(session.metadata.encode(), digest_size=16)
    for name in [".", *folder.names()]:
        found = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        part = name, stat.S_IFMT(found.st_mode), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        digest.update(repr(part).encode())
    return digest.hexdigest()


def recorded(root: Folder) -> dict[str, str]:
    try:
        return msgspec.json.decode(root.read(RECORD) or b"{}", type=dict[str, str])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def record(root: Folder, right: dict[str, str]) -> None:
    """For the next time, unless the tree cannot be written to."""
    name = f"{RECORD}.{os.getpid()}"
    with suppress(OSError):
        root.write_new(name, msgspec.json.encode(right) + b"\n")
        root.rename(name, root, RECORD)
