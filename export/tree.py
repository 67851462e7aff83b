"""The tree on disk, brought up to the database and kept there.

The tree itself says how far it has come, so that whoever goes on with it, after
whatever end, needs nothing else: the last line of a JSONL file says which comes
next; a session's metadata.json, written after all else of it, says up to which
cursor the session is right; and `.mirror.json`, written last of all, names a
cursor such that every session without newer events is as it should be.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from export import layout
from export.folders import OF_THE_DISK, Folder, InTheWay, closing, open_folder, write_all
from export.layout import (
    DELETED,
    EVENTS,
    INDEX,
    LOGS,
    METADATA,
    PROGRESS,
    RECENTS,
    SESSIONS,
    SUBSESSIONS,
    Log,
    Step,
    TreeSession,
)

SCRATCH = ".new"
"""Where files are before they have their place, and where removed folders wait for their end."""
SET_ASIDE = "set-aside"
"""Where goes what stands in the way. What is there is never touched again."""

AT_ONCE = 500
"""How many sessions are asked for at a time."""
UNSETTLED = 64
"""How many sessions' documents are put on disk at once: one sync serves all."""
TAIL_BYTES = 64 << 10
RETRY_SECONDS = 5.0
"""How often a session that had to be left out is tried again."""
NEVER = float("inf")

Found = TypeVar("Found")


class TreeBusy(Exception):
    """Another process keeps this tree."""


class TreeAhead(Exception):
    """The tree has seen more than the database has: it may be all that is left, so nothing is written to it."""

    def __init__(self, cursor: int, head: int) -> None:
        super().__init__(
            f"The tree has seen cursor {cursor}, the database has only {head}: `restore --newer` adds what is missing"
        )


class Wrong(InTheWay):
    """A log holds something else than the database."""


class TreeProgress(msgspec.Struct, omit_defaults=True):
    """.mirror.json"""

    cursor: int
    """Every session without newer events is as it should be; and the database has had this cursor."""
    skipped: dict[str, str] = {}
    """Sessions that had to be left out, and why. They are tried again."""
    suspect: bool = False
    """The tree has seen what the database has lost for good: all of it has to be compared."""


class Old(msgspec.Struct, rename="camel"):
    """What a session's metadata.json in the tree says that is needed to go on."""

    last_cursor: int = -1
    parent_session: str | None = None


class Birth(NamedTuple):
    """How a folder's events.jsonl begins: whose it is."""

    cursor: int
    session_id: str


class Pending(NamedTuple):
    """A file that is written, and has yet to get its place."""

    scratch: Folder
    scratch_name: str
    folder: Folder
    name: str


class Tree:
    """The tree in a folder, and its only writer. Raises TreeBusy, OSError."""

    def __init__(self, path: Path, report: Callable[[str], None] = lambda text: None) -> None:
        self.report = report
        """Told in one sentence what stood in the way, and what became of it."""
        self.numbers = count(1)
        self.written = 0
        """Files that were given their place, or pieces of logs that were added."""
        self.pending: list[Pending] = []
        self.unsettled: list[Folder] = []
        self.brought: set[str] = set()
        """The sessions that are as the present snapshot of the database has them."""
        self.doubtful: set[str] | None = None
        """The sessions whose logs a predecessor may have left with holes: a power cut keeps what it likes of what was
        not on the disk, and how a log ends does not say so. None: it is not known yet."""
        self.index_is_old = True
        self.is_renewed = False
        """Whether the documents are written anew that a newer version has made anew, without a newer event."""
        self.retry_at = 0.0
        self.root = open_folder(path)
        try:
            self.own()
            self.prepare()
        except BaseException:
            self.root.close()
            raise

    def own(self) -> None:
        try:
            fcntl.flock(self.root.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TreeBusy(f"Another process keeps the tree in {self.root.path}") from None

    def prepare(self) -> None:
        found = self.cleared(self.root, PROGRESS, lambda: progress_of(self.root))
        if found is None and self.root.has(INDEX):  # an earlier service's: it may be all that says whose a session is
            self.set_aside(self.root, INDEX)
        self.progress = found or TreeProgress(0)
        self.skipped = dict(self.progress.skipped)
        self.sessions = self.made(self.root, SESSIONS)
        self.scratch = self.made(self.sessions, SCRATCH)
        self.root_scratch = self.made(self.root, SCRATCH)
        for scratch in (self.scratch, self.root_scratch):
            for name in scratch.names():
                scratch.remove_all(name)

    def close(self) -> None:
        """Let others have it. What is there is right as far as `.mirror.json` says."""
        self.drop_pending()
        for folder in (self.scratch, self.root_scratch, self.sessions, self.root):
            folder.close()

    @property
    def cursor(self) -> int:
        return self.progress.cursor

    # ---------------------------------------------------------- the whole tree

    def follow(self, database: sqlite3.Connection, seconds: float = 1.0) -> bool:
        """Bring the tree nearer to the database, for about so many seconds. True: it is there.

        Raises TreeAhead; OSError where the disk is to blame, and then the next call goes on.
        """
        if self.progress.suspect:
            self.rebuild(database)
        if not self.is_renewed:
            self.renew(database)
        deadline = time.monotonic() + seconds
        with self.snapshot(database) as head:
            if self.doubtful is None:
                self.doubtful = {session_id for session_id, _ in layout.changed(database, self.cursor)}
            self.retry(database)
            reached = self.bring_changed(database, head, deadline)
            self.remove_deleted(database, self.cursor, reached)
            if reached == head:
                self.show_all(database)
            self.settle()
        self.note(reached)
        return reached == head

    def rebuild(self, database: sqlite3.Connection, step: Step = layout.unseen) -> None:
        """Compare everything with the database, and write anew what is not as it should be.

        `step` is told how many sessions are done, and of how many. Raises TreeAhead, OSError.
        """
        with self.snapshot(database) as head:
            ids = [session_id for session_id, _ in layout.changed(database, 0)]
        for begin in range(0, len(ids), UNSETTLED):
            with self.snapshot(database):
                for session_id in ids[begin : begin + UNSETTLED]:
                    if layout.session(database, session_id):  # else it was deleted meanwhile: `follow` sees to it
                        self.try_to_bring(database, session_id, is_compared=True)
                self.settle()
            step(min(begin + UNSETTLED, len(ids)), len(ids))
        with self.snapshot(database):
            self.remove_deleted(database, 0, head)
            self.settle()
        self.index_is_old = True
        self.note(head)
        while not self.follow(database):
            pass

    def renew(self, database: sqlite3.Connection) -> None:
        """Write all documents again where they may be those of an older version: as long as nothing is newer."""
        with self.snapshot(database):
            is_older = 0 < self.cursor <= layout.remade(database)
            ids = [session_id for session_id, _ in layout.changed(database, 0)] if is_older else []
        for begin in range(0, len(ids), UNSETTLED):
            with self.snapshot(database):
                for session_id in ids[begin : begin + UNSETTLED]:
                    if layout.session(database, session_id):
                        self.try_to_bring(database, session_id, is_renewed=True)
                self.settle()
        self.is_renewed = True

    @contextmanager
    def snapshot(self, database: sqlite3.Connection) -> Iterator[int]:
        """The database as it is now, while the tree is brought to it; its newest cursor. Raises TreeAhead."""
        with layout.snapshot(database) as head:
            if head < self.cursor:
                raise TreeAhead(self.cursor, head)
            try:
                yield head
            finally:
                self.brought.clear()
                self.drop_pending()

    def bring_changed(self, database: sqlite3.Connection, head: int, deadline: float) -> int:
        """The cursor up to which all is right then."""
        reached = self.cursor
        while changed := layout.changed(database, reached, AT_ONCE):
            for session_id, cursor in changed:
                is_doubtful = session_id in (self.doubtful or ())
                until = NEVER if is_doubtful else deadline  # what is compared begins anew each time
                if not self.try_to_bring(database, session_id, until, is_compared=is_doubtful):
                    return reached
                if self.doubtful:
                    self.doubtful.discard(session_id)
                reached = cursor
                if time.monotonic() > deadline:
                    return reached
        return head

    def retry(self, database: sqlite3.Connection) -> None:
        if self.skipped and time.monotonic() >= self.retry_at:
            self.retry_at = time.monotonic() + RETRY_SECONDS
            for session_id in list(self.skipped):
                self.try_to_bring(database, session_id)

    def show_all(self, database: sqlite3.Connection) -> None:
        """What concerns more than one session."""
        if self.index_is_old:
            self.put(self.root, INDEX, layout.index(database), self.root_scratch)
            self.index_is_old = False
        with self.made(self.root, RECENTS) as folder:
            self.show_links(folder, layout.recent(database), self.root_scratch)

    def accept(self, head: int) -> None:
        """The database ends here, and will not have again what it has lost: go on with what it has.

        What is only in the tree is set aside as it is come upon.
        """
        self.note(head, is_suspect=True)

    def note(self, cursor: int, *, is_suspect: bool = False) -> None:
        """Say how far the tree has come, once this is true also after a power cut."""
        progress = TreeProgress(cursor, dict(self.skipped), is_suspect)
        if progress == self.progress and self.root.has(PROGRESS):
            return
        self.sessions.sync_file_system()
        self.put(self.root, PROGRESS, msgspec.json.encode(progress) + b"\n", self.root_scratch)
        self.settle()
        self.root.sync()
        self.progress = progress

    # ------------------------------------------------------------- one session

    def try_to_bring(
        self,
        database: sqlite3.Connection,
        session_id: str,
        deadline: float = NEVER,
        *,
        is_compared: bool = False,
        is_renewed: bool = False,
    ) -> bool:
        """As `bring`; a session that cannot be brought is left out, and the rest goes on."""
        try:
            is_whole = self.bring(database, session_id, deadline, is_compared=is_compared, is_renewed=is_renewed)
            self.skipped.pop(session_id, None)
        except OSError as error:
            if error.errno in OF_THE_DISK:
                raise
            if session_id not in self.skipped:
                self.report(f"The session {session_id} is left out of the tree: {error}")
            self.skipped[session_id] = str(error)
            return True
        if len(self.unsettled) >= UNSETTLED:
            self.settle()
        return is_whole

    def bring(
        self,
        database: sqlite3.Connection,
        session_id: str,
        deadline: float,
        *,
        is_compared: bool = False,
        is_renewed: bool = False,
    ) -> bool:
        """Make a session's folder as the database has it. False: there was not time enough for all of it.

        `is_compared`: look at all that is there; else only at how the logs end. `is_renewed`: its documents may be
        others, whatever the logs say.
        """
        self.brought.add(session_id)
        session = layout.session(database, session_id)
        if session is None:
            self.remove_if_deleted(database, session_id)
            return True
        folder = self.folder_of(database, session)
        try:
            old = self.old(folder)
            if old.last_cursor < 0 or old.parent_session != session.parent:
                self.bring_parents(database, old.parent_session, session.parent)
        finally:
            self.unsettled.append(folder)
        is_old = is_compared or old.last_cursor != session.last_cursor
        if is_old and not all(self.write_log(database, folder, session, log, deadline, is_compared) for log in LOGS):
            return False
        if is_renewed or (is_old and (is_compared or layout.has_changes(database, session_id, old.last_cursor))):
            self.index_is_old = True
            for name, content in layout.documents(database, session_id).items():
                self.put(folder, name, content)
        self.show_subsessions(folder, layout.subsessions(database, session_id))
        self.put(folder, METADATA, layout.pretty(session.metadata))
        return True

    def bring_parents(self, database: sqlite3.Connection, *session_ids: str | None) -> None:
        """The parent that the tree has of a session, and the new one, before the session itself: once that is right,
        nothing tells any more which they were. Those that have newer events of their own are still to come anyway."""
        for session_id in filter(None, session_ids):
            session = layout.session(database, session_id)
            if session and session_id not in self.brought and session.last_cursor <= self.cursor:
                self.bring(database, session_id, NEVER)

    def old(self, folder: Folder) -> Old:
        content = self.cleared(folder, METADATA, lambda: folder.read(METADATA))
        try:
            return Old() if content is None else msgspec.json.decode(content, type=Old)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Old()

    def folder_of(self, database: sqlite3.Connection, session: TreeSession) -> Folder:
        """The session's own folder, made if need be: not that of one that was deleted, nor of another store."""
        folder = self.made(self.sessions, session.session_id)
        try:
            birth = self.birth(folder)
            if birth is None and folder.is_empty():
                return folder
            if birth is not None:
                check_case(birth.session_id, session.session_id)
            if birth in (Birth(0, session.session_id), Birth(session.created_cursor, session.session_id)):
                return folder
        except BaseException:
            folder.close()
            raise
        folder.close()
        if birth is not None and birth.session_id and layout.was_deleted(database, session.session_id, birth.cursor):
            self.discard(database, session.session_id)
        else:
            self.set_aside(self.sessions, session.session_id)
        return self.made(self.sessions, session.session_id)

    def birth(self, folder: Folder) -> Birth | None:
        """None: there is no events.jsonl. A cursor of 0: its first line never became whole."""
        try:
            descriptor = self.cleared(folder, EVENTS.name, lambda: folder.open(EVENTS.name))
        except FileNotFoundError:
            return None
        with closing(descriptor):
            head = os.pread(descriptor, BIRTH_BYTES, 0)
        if found := BIRTH.match(head):
            return Birth(int(found[1]), found[2].decode())
        is_torn = len(head) < BIRTH_BYTES and b"\n" not in head
        return Birth(0, folder.name) if is_torn else Birth(-1, "")

    # ------------------------------------------------------------------- logs

    def write_log(
        self,
        database: sqlite3.Connection,
        folder: Folder,
        session: TreeSession,
        log: Log,
        deadline: float,
        is_compared: bool,
    ) -> bool:
        """Write what a log lacks. False: there was not time enough for all of it."""

        def write() -> bool:
            with closing(folder.open(log.name, os.O_RDWR | os.O_CREAT | os.O_APPEND)) as file:
                first = session.before_first(log)
                after = first if is_compared else end_of(file, log, first)
                offset = 0 if is_compared else os.fstat(file).st_size
                if after > session.last(log):
                    raise Wrong
                for end, piece in layout.pieces(database, log, session.session_id, after, session.last(log)):
                    write_all(file, missing := lacking(file, offset, piece))
                    self.written += bool(missing)
                    offset += len(piece)
                    if time.monotonic() > deadline:
                        return end == session.last(log)
                if os.fstat(file).st_size != offset:
                    raise Wrong
            return True

        return self.cleared(folder, log.name, write)

    # -------------------------------------------------------------- deletions

    def remove_deleted(self, database: sqlite3.Connection, after: int, until: int) -> None:
        """Remove the sessions that were deleted after a cursor and up to another, and note that they were."""
        deleted = layout.deletions(database, after, until)
        for deletion in deleted:
            if layout.session(database, deletion.session_id) is None:
                self.try_to_bring(database, deletion.session_id)
        if deleted or after == 0:
            lines = {} if after == 0 else self.noted_deletions()
            lines |= {deletion.session_id: deletion for deletion in deleted}
            text = "".join(f"{deletion.document}\n" for deletion in sorted(lines.values()))
            self.put(self.root, DELETED, text.encode(), self.root_scratch)

    def noted_deletions(self) -> dict[str, layout.DeletedSession]:
        content = self.cleared(self.root, DELETED, lambda: self.root.read(DELETED)) or b""
        lines = [(BIRTH.match(line), line) for line in content.splitlines()]
        return {
            found[2].decode(): layout.DeletedSession(int(found[1]), found[2].decode(), line.decode())
            for found, line in lines
            if found
        }

    def remove_if_deleted(self, database: sqlite3.Connection, session_id: str) -> None:
        """Unless what is there never was of this store."""
        try:
            folder = self.cleared(self.sessions, session_id, lambda: self.sessions.folder(session_id))
        except FileNotFoundError:
            return
        with folder:
            birth, is_empty = self.birth(folder), folder.is_empty()
        if birth is None and not is_empty:
            return
        check_case(birth.session_id if birth else session_id, session_id)
        if layout.was_deleted(database, session_id, birth.cursor if birth else 0):
            self.discard(database, session_id)

    def discard(self, database: sqlite3.Connection, session_id: str) -> None:
        """Remove a session's folder, once its parent does not show it any more: nothing else tells who that was."""
        with self.sessions.folder(session_id) as folder:
            parent = self.old(folder).parent_session
        self.bring_parents(database, parent)
        self.settle()
        name = self.next_name()
        self.sessions.rename(session_id, self.scratch, name)
        self.scratch.remove_all(name)
        self.index_is_old = True

    # ------------------------------------------------------- files in their place

    def put(self, folder: Folder, name: str, content: bytes | None, scratch: Folder | None = None) -> None:
        """Have a file with this content, or none, when all is settled."""
        scratch = scratch or self.scratch
        found = self.cleared(folder, name, lambda: folder.read(name))
        if content is None and found is not None:
            folder.remove(name)
        if content is None or found == content:
            return
        scratch_name = self.next_name()
        scratch.write_new(scratch_name, content)
        self.pending.append(Pending(scratch, scratch_name, folder, name))

    def settle(self) -> None:
        """Give the files that are written their places, once they are on disk whole."""
        if self.pending:
            for scratch in {pending.scratch for pending in self.pending}:
                scratch.sync_file_system()
        while self.pending:
            pending = self.pending[0]
            pending.scratch.rename(pending.scratch_name, pending.folder, pending.name)
            self.written += 1
            del self.pending[0]
        self.drop_pending()

    def drop_pending(self) -> None:
        for pending in self.pending:
            pending.scratch.remove(pending.scratch_name)
        self.pending.clear()
        for folder in self.unsettled:
            folder.close()
        self.unsettled.clear()

    def next_name(self) -> str:
        return str(next(self.numbers))

    def show_subsessions(self, folder: Folder, wanted: Mapping[str, str]) -> None:
        if wanted or folder.has(SUBSESSIONS):
            with self.made(folder, SUBSESSIONS) as links:
                self.show_links(links, wanted, self.scratch)
                is_empty = links.is_empty()
            if is_empty:
                folder.remove_empty(SUBSESSIONS)

    def show_links(self, folder: Folder, wanted: Mapping[str, str], scratch: Folder) -> None:
        """Have these links in a folder, and no others."""
        for name in folder.names():
            if name not in wanted and folder.is_link(name):
                folder.remove(name)
        for name, target in wanted.items():
            if self.cleared(folder, name, lambda name=name: folder.target(name)) != target:  # type: ignore[misc]
                scratch_name = self.next_name()
                scratch.link(scratch_name, target)
                scratch.rename(scratch_name, folder, name)

    # ---------------------------------------------------- what stands in the way

    def made(self, folder: Folder, name: str) -> Folder:
        return self.cleared(folder, name, lambda: folder.make(name))

    def cleared(self, folder: Folder, name: str, action: Callable[[], Found]) -> Found:
        """What `action` gives; once more, where something stood in its way that can be set aside."""
        try:
            return action()
        except InTheWay:
            self.set_aside(folder, name)
            return action()

    def set_aside(self, folder: Folder, name: str) -> None:
        with self.root.make(SET_ASIDE) as aside:
            taken = set(aside.names())
            owner = "" if folder is self.root else f"{folder.name}."
            new_name = next(candidate for number in count(1) if (candidate := f"{owner}{name}.{number}") not in taken)
            folder.rename(name, aside, new_name)
        self.report(f"{folder.path}/{name} was not of this tree: it is {SET_ASIDE}/{new_name} now")


BIRTH_BYTES = 512
BIRTH = re.compile(rb'\{"cursor":([0-9]{1,19}),"type":"[a-z_]+","sessionId":"([A-Za-z0-9._-]{1,128})",')


def progress_of(folder: Folder) -> TreeProgress | None:
    """None: there is no tree of ours, or it does not say how far it has come. Raises InTheWay."""
    content = folder.read(PROGRESS)
    try:
        return None if content is None else msgspec.json.decode(content, type=TreeProgress)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def check_case(found: str, wanted: str) -> None:
    """Raises OSError where the file system takes two ids for one."""
    if found.lower() == wanted.lower() and found != wanted:
        raise OSError(errno.EEXIST, f"here its folder would be that of {found}: the file system ignores case")


def end_of(file: int, log: Log, first: int) -> int:
    """The position of the last line of a log, or `first` where there is none; half a line is cut off. Raises Wrong."""
    size = os.fstat(file).st_size
    end = last_newline(file, size) + 1
    if end < size:
        os.ftruncate(file, end)
    if end == 0:
        return first
    head = os.pread(file, BIRTH_BYTES, last_newline(file, end - 1) + 1)
    if not (found := log.position.match(head)):
        raise Wrong
    return int(found[1])


def last_newline(file: int, end: int) -> int:
    """Where the last newline before `end` is; -1: nowhere."""
    while end > 0:
        begin = max(0, end - TAIL_BYTES)
        place = os.pread(file, end - begin, begin).rfind(b"\n")
        if place >= 0:
            return begin + place
        end = begin
    return -1


def lacking(file: int, offset: int, piece: bytes) -> bytes:
    """What a log lacks of a piece that belongs at `offset`; half a line is cut off. Raises Wrong."""
    found = os.pread(file, len(piece), offset)
    if not found:
        return piece
    if found == piece:
        return b""
    whole = found.rfind(b"\n") + 1
    if len(found) == len(piece) or not piece.startswith(found[:whole]):
        raise Wrong
    os.ftruncate(file, offset + whole)
    return piece[whole:]
