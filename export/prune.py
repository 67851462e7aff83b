"""What is archived leaves the store: through its server, or, where none runs, straight from the database."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from sessionstore.access import tokens_folder
from sessionstore.database import Appender, DeleteUnchanged, open_writer, purge
from sessionstore.events import Draft, event_ids, now
from sessionstore.owner import CannotStart, own_folder
from sessionstore.problems import Problem
from sessionstore.settings import Settings

from .layout import PROGRESS, Session, open_reader
from .tree import Tree

SECONDS = 60.0
"""How long the server may take for one deletion."""
GONE = (200, 404)


class NotPruned(Exception):
    """It is still there. The message says why."""


def prune(settings: Settings, sessions: list[Session], url: str | None, report: Callable[[str], None]) -> int:
    """Delete the sessions that are still as they were archived; how many went. Raises NotPruned where none can go."""
    try:
        owned = own_folder(settings.directory)
    except CannotStart:
        return ask_server(settings, sessions, url, report)
    try:
        return delete(settings, sessions, report)
    finally:
        os.close(owned)


# ------------------------------------------------------------- without a server


def delete(settings: Settings, sessions: list[Session], report: Callable[[str], None]) -> int:
    gone = 0
    with closing(open_writer(settings.database)) as connection:
        appender = Appender(connection, clock=now, ids=event_ids())
        for session in sessions:
            draft = Draft(type="session_deleted", session_id=session.session_id, data={})
            appender.begin()
            try:
                DeleteUnchanged(draft, session.last_cursor)(appender)
                gone += 1
            except Problem as problem:
                report(f"{session.session_id} stays: {problem.detail}")
            while purge(connection, session_id=session.session_id):
                pass
            appender.commit()
    if gone and (settings.directory / PROGRESS).exists():
        follow(settings.directory)
    return gone


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


def ask_server(settings: Settings, sessions: list[Session], url: str | None, report: Callable[[str], None]) -> int:
    at = urlsplit(url or f"http://{settings.host if settings.is_loopback else '127.0.0.1'}:{settings.port}")
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    with closing(kind(at.hostname or "", at.port, timeout=SECONDS)) as connection:
        answers = [ask(connection, session, admin_token(settings)) for session in sessions]
    for session, (status, detail) in zip(sessions, answers, strict=True):
        if status not in GONE:
            report(f"{session.session_id} stays: {detail}")
    return sum(status in GONE for status, _ in answers)


def ask(connection: http.client.HTTPConnection, session: Session, token: str | None) -> tuple[int, str]:
    """The status, and the detail of what is wrong. Raises NotPruned where there is no use in asking again."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(
            "DELETE", f"/api/sessions/{session.session_id}?lastCursor={session.last_cursor}", headers=headers
        )
        answer = connection.getresponse()
        document = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotPruned(
            f"A server has the store, and cannot be reached at {connection.host}:{connection.port} ({error}): "
            "say with --url where it is"
        ) from None
    if answer.status in (401, 403):
        raise NotPruned(f"The server does not let this be deleted: set SESSIONS_TOKEN ({document['detail']})")
    return answer.status, document.get("detail", "")


def admin_token(settings: Settings) -> str | None:
    """The one that is set, or that the server made."""
    if settings.admin_token:
        return settings.admin_token
    made = tokens_folder(settings) / "admin"
    return made.read_text().strip() if made.exists() else None
