"""What is archived leaves the store: through its server, or, where none runs, straight from the database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from export.layout import PROGRESS, TreeSession, open_reader
from export.tree import Tree
from sessionstore.admin.offline import appending
from sessionstore.admin.served import served
from sessionstore.model.events import STORE, Draft
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.appender import Appender
from sessionstore.store.closing import UNSEALED, DeleteUnchanged
from sessionstore.store.maintenance import purge
from sessionstore.store.owner import CannotStart

GONE = (200, 404)

Archived = tuple[TreeSession, str]
"""A session as it was archived, and what `material.stamp_of` said of its material before."""


def prune(
    settings: Settings,
    archived: list[Archived],
    url: str | None,
    report: Callable[[str], None],
    sealed_in_lake: Callable[[Settings], int | None],
) -> int:
    """Delete the sessions that are still as they were archived; how many went. Raises NotServed where none can go.

    What the lake, where there is one, does not have yet stays: a server knows how far it is sealed.

    What an earlier run began, and was killed before it had done, is done as well.
    """
    try:
        with appending(settings) as appender:
            sealed = sealed_in_lake(settings)
            gone = sum(delete(appender, each, sealed, report) for each in archived)
            finish(appender)
    except CannotStart:
        return ask_server(settings, archived, url, report)
    if (settings.directory / PROGRESS).exists():
        follow(settings.directory)
    return gone


# ------------------------------------------------------------- without a server


def delete(appender: Appender, archived: Archived, sealed: int | None, report: Callable[[str], None]) -> bool:
    session, stamp = archived
    if sealed is not None and session.last_cursor > sealed:
        report(f"{session.session_id} stays: {UNSEALED}")
        return False
    appender.begin()
    try:
        why = {"reason": "prune"}
        draft = Draft(type="session_deleted", session_id=session.session_id, actor=STORE, data=why)
        DeleteUnchanged(draft, session.last_cursor, stamp)(appender)
    except Problem as problem:
        report(f"{session.session_id} stays: {problem.detail}")
        return False
    finally:
        while purge(appender.connection, session_id=session.session_id):
            pass
        appender.commit()
    return True


def finish(appender: Appender) -> None:
    """Take out what is left of sessions that are deleted already."""
    appender.begin()
    appender.open_transaction()
    while purge(appender.connection):
        pass
    appender.commit()


def follow(folder: Path) -> None:
    """Bring the tree up to the database, as the server would."""
    tree = Tree(folder)
    try:
        with closing(open_reader(folder / "sessions.db")) as database:
            while not tree.follow(database):
                pass
    finally:
        tree.close()


# --------------------------------------------------------- through a server


def ask_server(settings: Settings, archived: list[Archived], url: str | None, report: Callable[[str], None]) -> int:
    with served(settings, url) as server:
        answers = [server.ask("DELETE", path_of(*each)) for each in archived]
    for (session, _), (status, said) in zip(archived, answers, strict=True):
        if status not in GONE:
            report(f"{session.session_id} stays: {said.get('detail', '')}")
    return sum(status in GONE for status, _ in answers)


def path_of(session: TreeSession, stamp: str) -> str:
    return f"/api/sessions/{session.session_id}?lastCursor={session.last_cursor}&material={stamp}&reason=prune"
