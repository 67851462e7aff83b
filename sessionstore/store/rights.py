"""Whether a bound token may write to a session, or read it: asked here alone, of what is in the database.

What is not within a token's bounds is to it as what is not there: Problem 404, in the same words.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sessionstore.model import coercion
from sessionstore.model.events import UNKNOWN_USER, Draft
from sessionstore.model.folds import Document, path_of
from sessionstore.model.problems import no_session
from sessionstore.model.rights import Bounds, Right

OWNER = """
SELECT s.user_id, (SELECT document ->> '$.project' FROM documents d
                   WHERE d.session_id = s.session_id AND d.name = 'metadata')
FROM sessions s WHERE s.session_id = ?"""
"""Of a session: whose it is, and of which project. No row: there is no such session."""


def owner_of(connection: sqlite3.Connection, session_id: str) -> Any:
    return connection.execute(OWNER, (session_id,)).fetchone()


def is_within(connection: sqlite3.Connection, right: Right | None, session_id: str) -> bool:
    """Whether a session is there, and within the bounds of a token (None: of whom nothing is bound)."""
    owner = owner_of(connection, session_id)
    bounds = None if right is None else right.bounds
    return owner is not None and (bounds is None or bounds.hold(session_id, *owner))


def check_readable(bounds: Bounds, session_id: str, owner: Any) -> None:
    """`owner`: the row that OWNER finds, or None. Raises Problem 404."""
    if owner is None or not bounds.hold(session_id, *owner):
        raise no_session(session_id)


def check_writable(connection: sqlite3.Connection, draft: Draft) -> None:
    """Before a draft is looked at in any other way: whether its session is within the bounds of its token.

    A session that is not there yet may begin within them, and is that of the first user where the draft names none.
    Raises Problem 404, also for a user, a project or a parent that is not within them.
    """
    if draft.by is None or (bounds := draft.by.bounds) is None:
        return
    if bounds.users and draft.user_id in (None, UNKNOWN_USER):
        draft.user_id = bounds.users[0]
    owner = owner_of(connection, draft.session_id) or (draft.user_id, next(iter(bounds.projects), None))
    is_own = bounds.hold(draft.session_id, *owner) and (not bounds.users or draft.user_id in bounds.users)
    if not is_own or not all(project in bounds.projects for project in projects_in(draft) if bounds.projects):
        raise no_session(draft.session_id)
    parent = draft.data.get("parentSession") if is_about_session(draft) else None
    if isinstance(parent, str) and (parents := owner_of(connection, parent)):
        check_readable(bounds, parent, parents)


def stay_within(connection: sqlite3.Connection, draft: Draft) -> None:
    """What begins a session, or takes it up, says of which project it is: if no other, that of its token."""
    bounds = None if draft.by is None else draft.by.bounds
    if bounds is None or not bounds.projects or draft.type not in coercion.BEGINNINGS or projects_in(draft):
        return
    _, project = owner_of(connection, draft.session_id) or (None, bounds.projects[0])
    metadata: Document = draft.data.get("metadata") or {}
    draft.data = draft.data | {"metadata": metadata | {"project": project}}


def projects_in(draft: Draft) -> list[Any]:
    """What a draft makes of its session's project: no text, where it makes something else of it."""
    members = coercion.in_metadata(draft.type, draft.data)
    return [value if name == "project" else None for name, value in members.items() if path_of(name)[0] == "project"]


def is_about_session(draft: Draft) -> bool:
    return draft.type in coercion.BEGINNINGS or draft.type == "metadata_updated"
