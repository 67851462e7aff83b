"""What should not have been stored leaves it: rows, documents, index, free pages, write-ahead log and file tree.

Only texts change: `[redacted:scrubbed]` stands where something was. Every event
keeps its cursor, and all that can be made of the events is made of them again.
Whoever stops it half-way has only to run it again.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from export.archive import ArchiveFailed, files_in
from export.folders import Folder, InTheWay, lines_of, pieces_of
from export.layout import PROGRESS, Step, open_reader, unseen
from export.tree import Tree
from hook_agent import Redaction, names_something
from sessionstore.admin.offline import Unsound
from sessionstore.admin.recovery import GZIP_HEAD, SQLITE_HEAD
from sessionstore.admin.scrub_material import look_at_material, scrub_material
from sessionstore.model import folds
from sessionstore.model.folds import Document, decode, encode
from sessionstore.settings import Settings
from sessionstore.store.integrity import check_integrity, manifests
from sessionstore.store.maintenance import index_search, purge
from sessionstore.store.owner import own_folder
from sessionstore.store.schema import STATE_EVENTS, open_writer
from sessionstore.store.write_ahead_log import checkpoint

MARK = "[redacted:scrubbed]"
PIECE, OVERLAP = 4 << 20, 1 << 16
"""Of a file, that is in memory at a time; of it that is looked at twice, so that nothing is cut in two."""
AT_ONCE = 1000
"""Events looked at, or brought into the index, at a time."""
OF_THE_DATABASE = ("sessions.db", "sessions.db-wal", "sessions.db-shm", ".lock", ".newest.json")

Replace = Callable[[str, str], str]
"""The name of a member and its text (a name without one: empty) to the text that may stay."""


class BadPattern(ValueError):
    """The message says why."""


class SecretFound(NamedTuple):
    """What had something to be taken out."""

    events: dict[str, int]
    """How many, by session."""
    texts: int
    named: list[str]
    """Sessions in whose ids, or those of their events, it stands: these stay as they are."""


# ----------------------------------------------------------------------- patterns


def pattern(text: str, *, is_literal: bool = False) -> Replace:
    """Replaces what a regular expression matches, or a text as it is. Raises BadPattern."""
    try:
        regex = re.compile(re.escape(text) if is_literal else text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"It is not a regular expression: {error}") from None
    if regex.search("") or regex.search(MARK):
        raise BadPattern(f"It matches an empty text or {MARK}, and so would never be done")
    return lambda name, text: regex.sub(lambda match: MARK, text)


def known() -> Replace:
    """Replaces the keys, tokens and passwords that the server takes out of what is said to it."""
    redaction = Redaction()
    return redaction.member


class Scrubber:
    """Replaces in documents, and counts."""

    def __init__(self, replace: Replace) -> None:
        self.replace = replace
        self.texts = 0

    def text(self, text: str, name: str = "") -> str:
        replaced = self.replace(name, text)
        self.texts += replaced != text
        return replaced

    def value(self, value: Any, name: str = "") -> Any:
        """Texts and names of members, however deep."""
        if isinstance(value, str):
            return self.text(value, name)
        if isinstance(value, dict):
            return {self.text(name): self.value(part, name) for name, part in value.items()}
        return [self.value(part) for part in value] if isinstance(value, list) else value

    def data(self, data: Document) -> Document:
        """The same for the data of an event, whose ids stay."""
        ids = set(ids_in(data))
        return {
            name if name in ids else self.text(name): value if name in ids else self.value(value, name)
            for name, value in data.items()
        }

    def holds(self, value: Any) -> bool:
        looking = Scrubber(self.replace)
        looking.value(value)
        return looking.texts > 0


def ids_in(data: Document) -> list[str]:
    """The members of an event's data by which the store finds things. Whose a session is may be any text."""
    return [name for name in data if names_something(name) and name != "userId"]


# ----------------------------------------------------------------------- database


class StoredRow(NamedTuple):
    """Of `events`."""

    cursor: int
    session_id: str
    user_id: str
    event_id: str
    agent_id: str | None
    data: str


def rows_of(database: sqlite3.Connection, step: Step) -> Iterator[StoredRow]:
    after = 0
    ((newest,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
    while rows := database.execute(
        f"SELECT {', '.join(StoredRow._fields)} FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?", (after, AT_ONCE)
    ).fetchall():
        yield from map(StoredRow._make, rows)
        after = rows[-1][0]
        step(after, newest)


def look(database: sqlite3.Connection, replace: Replace, step: Step = unseen) -> SecretFound:
    """What would be replaced. Changes nothing."""
    found = go_through(database, Scrubber(replace), lambda row, data, user_id: None, step)
    return found._replace(texts=found.texts + look_at_material(database, lambda text: replace("", text)))


def go_through(
    database: sqlite3.Connection, scrubber: Scrubber, change: Callable[[StoredRow, str, str], object], step: Step
) -> SecretFound:
    events: Counter[str] = Counter()
    named: dict[str, None] = {}
    for row in rows_of(database, step):
        before = scrubber.texts
        data, user_id = scrubber.data(decode(row.data)), scrubber.text(row.user_id)
        if scrubber.texts > before:
            events[row.session_id] += 1
            change(row, encode(data), user_id)
        ids = [row.session_id, row.event_id, row.agent_id, *(data[name] for name in ids_in(data))]
        if scrubber.holds(ids):
            named[row.session_id] = None
    return SecretFound(dict(events), scrubber.texts, list(named))


def scrub_rows(database: sqlite3.Connection, replace: Replace, step: Step) -> SecretFound:
    """In one transaction, events and what follows from them."""
    scrubber, name = Scrubber(replace), secrets.token_hex(8)

    def change(row: StoredRow, data: str, user_id: str) -> None:
        database.execute("UPDATE events SET data = ?, user_id = ? WHERE cursor = ?", (data, user_id, row.cursor))
        database.execute(SCRUBBED, (name, row.cursor))

    with transaction(database):
        while purge(database):
            pass
        found = go_through(database, scrubber, change, step)
        for session_id in found.events:
            scrub_session(database, Scrubber(replace), session_id)
        if found.events:
            index_anew(database)
        in_material = scrub_material(database, lambda text: replace("", text))
    return found._replace(texts=found.texts + in_material)


SCRUBBED = """
INSERT INTO scrubs SELECT ?, cursor, session_id, received_at FROM events
WHERE cursor = ? AND EXISTS (SELECT 1 FROM lake)"""
"""What the lake has as it was."""


ASKED_ANEW = """
UPDATE asks SET (reason, message, own_id, tool_use_id, tool, input) = (
  SELECT reason, message, own_id, tool_use_id, tool, input FROM words WHERE words.cursor = asks.told)
WHERE session_id = ?"""


ENDED_ANEW = """
UPDATE ended_asks SET (reason, tool_use_id) = (
  SELECT reason, tool_use_id FROM words WHERE words.cursor = ended_asks.told)
WHERE session_id = ?"""


TITLED_ANEW = """
UPDATE documents SET document = metadata_with_prompt(
  json_set(document, '$.title', NULL, '$.titleFrom', NULL), coalesce(
    (SELECT json_object('prompt', iif(json_type(i.document, '$.input') = 'object', coalesce(
              i.document ->> '$.input.prompt', i.document ->> '$.input.text', i.document ->> '$.input.content'),
              i.document ->> '$.input'))
     FROM documents i WHERE i.session_id = ?1 AND i.name = 'initial'
       AND json_type(i.document, '$.input') IN ('text', 'object') AND i.document -> '$.input' NOT IN ('{}', '""')),
    (SELECT e.data FROM events e CROSS JOIN words w ON w.cursor = e.cursor
     WHERE e.session_id = ?1 AND e.type = 'action' AND e.kind = 'prompt' AND e.agent_id IS NULL
       AND NOT w.is_machine_made ORDER BY e.seq LIMIT 1), '{}'), 1)
WHERE session_id = ?1 AND name = 'metadata' AND document ->> '$.titleFrom' = 'prompt'"""
"""A title that was cut may end within what is looked for."""


def scrub_session(database: sqlite3.Connection, scrubber: Scrubber, session_id: str) -> None:
    """What is derived from its events. The lists of the state follow by their triggers."""
    for name, document in database.execute(
        "SELECT name, document FROM documents WHERE session_id = ?", (session_id,)
    ).fetchall():
        if name == "state":
            events = database.execute(STATE_EVENTS, (session_id, 2**63 - 1)).fetchall()
            changed = encode(folds.state_at(events))
        else:
            changed = encode(scrubber.value(decode(document)))
        if changed != document:
            database.execute(
                "UPDATE documents SET document = ? WHERE session_id = ? AND name = ?", (changed, session_id, name)
            )
    for asked_anew in (ASKED_ANEW, ENDED_ANEW):
        database.execute(asked_anew, (session_id,))
    database.execute(TITLED_ANEW, (session_id,))
    for (user_id,) in database.execute("SELECT user_id FROM sessions WHERE session_id = ?", (session_id,)).fetchall():
        database.execute("UPDATE sessions SET user_id = ? WHERE session_id = ?", (scrubber.text(user_id), session_id))


def index_anew(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO search (search) VALUES ('delete-all')")
    database.execute("UPDATE progress SET searched = 0")
    while index_search(database, limit=AT_ONCE)[1]:
        pass


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def write_anew(database: sqlite3.Connection) -> None:
    """The whole file, so that no free page and no log has what was in it before."""
    database.execute("PRAGMA temp_store = FILE")
    database.execute("VACUUM")
    checkpoint(database, "TRUNCATE")


# --------------------------------------------------------------------------- tree


def scrub_tree(settings: Settings, scrubber: Scrubber, sessions: set[str], report: Callable[[str], None]) -> None:
    """Write anew the folders of these sessions, and of all others in which it is found."""
    tree = Tree(settings.directory, report)
    try:
        for name in tree.sessions.names():
            if not name.startswith(".") and (name in sessions or is_in_folder(tree.sessions, name, scrubber)):
                discarded = tree.next_name()
                tree.sessions.rename(name, tree.scratch, discarded)
                tree.scratch.remove_all(discarded)
        with closing(open_reader(settings.database)) as database:
            tree.rebuild(database)
    finally:
        tree.close()


def is_in_folder(sessions: Folder, name: str, scrubber: Scrubber) -> bool:
    try:
        with sessions.folder(name) as folder:
            return any(is_in_file(Path(folder.path) / file, scrubber) for file in folder.names())
    except (InTheWay, OSError):
        return False  # it is nothing of ours: what is left of it in the end is named


def is_in_file(path: Path, scrubber: Scrubber) -> bool:
    """In a text of its JSON, in a line as it stands, in a row of a copied database, in a file of an archive.

    Whatever its size, a few pieces of it are in memory.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(len(SQLITE_HEAD))
        file.seek(0)
        if head == SQLITE_HEAD:
            with suppress(sqlite3.Error):
                if is_in_copy(path, scrubber):
                    return True
        if head.startswith(GZIP_HEAD):
            with suppress(ArchiveFailed):
                return any(is_in_parts(lines_of(pieces, PIECE), scrubber) for _, _, pieces in files_in(path))
        if is_whole_json(file, scrubber):
            return True
        file.seek(0)
        return is_in_parts(lines_of(pieces_of(file), PIECE), scrubber) or is_in_windows(file, scrubber)


def is_in_copy(path: Path, scrubber: Scrubber) -> bool:
    """Row by row: in the file a long text is in pieces. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        return any(scrubber.holds([row.user_id, decode(row.data)]) for row in rows_of(database, unseen))


def is_whole_json(file: BinaryIO, scrubber: Scrubber) -> bool:
    """Whether a file is one piece of JSON, not very large, and has it."""
    content = file.read(PIECE + 1)
    return len(content) <= PIECE and isinstance(value := value_of(content), dict | list) and scrubber.holds(value)


def is_in_parts(lines: Iterator[bytes | None], scrubber: Scrubber) -> bool:
    return any(scrubber.holds(value_of(line)) for line in lines if line is not None)


def is_in_windows(file: BinaryIO, scrubber: Scrubber) -> bool:
    """As text, in pieces that overlap: what has no lines."""
    file.seek(0)
    before = b""
    while piece := file.read(PIECE):
        if scrubber.holds((before + piece).decode(errors="replace")):
            return True
        before = piece[-OVERLAP:]
    return False


def value_of(text: bytes) -> Any:
    """Of JSON what it says; of all else the text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.decode(errors="replace")


# ----------------------------------------------------------------------- the whole


def scrub(settings: Settings, replace: Replace, step: Step, report: Callable[[str], None]) -> SecretFound:
    """Take it out of everything in the folder of a store whose server does not run. Raises CannotStart, Unsound."""
    lock = own_folder(settings.directory)
    try:
        if finding := check_integrity(settings):
            raise Unsound(finding.detail)
        with closing(open_writer(settings.database)) as database:
            database.execute("PRAGMA secure_delete = ON")
            found = scrub_rows(database, replace, step)
            write_anew(database)
        if (settings.directory / PROGRESS).exists():
            scrub_tree(settings, Scrubber(replace), set(found.events), report)
    finally:
        os.close(lock)
    return found


def left_in(folder: Path, replace: Replace) -> list[Path]:
    """The files in the folder, besides the database, in which it still is."""
    scrubber = Scrubber(replace)
    files = (path for path in sorted(folder.rglob("*")) if path.relative_to(folder).parts[0] not in OF_THE_DATABASE)
    return [path for path in files if is_in_file(path, scrubber)]


def copies_with(settings: Settings, replace: Replace) -> Iterator[Path]:
    """Backups and archives that have it: nothing is taken out of these."""
    scrubber = Scrubber(replace)
    archives = sorted(settings.archive_directory.glob("*.tar.gz")) if settings.archive_directory else ()
    for path in (*(path for path, _ in manifests(settings.backup_directory)), *archives):
        if is_in_file(path, scrubber):
            yield path
