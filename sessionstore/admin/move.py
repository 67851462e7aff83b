"""A session moves to another store: copied while it is written to, until nothing is missing; then deleted here.

The other store has each event once, by its eventId, and this one deletes the session only as it was copied: so what is
broken off, wherever, is simply started again. From then on what is said of it here is told where it is (421).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

from export.layout import EVENTS, PROGRESS, open_reader
from sessionstore.admin.offline import appending
from sessionstore.admin.prune import finish, follow
from sessionstore.admin.served import NotServed, Served, served, served_at
from sessionstore.model.events import STORE, Draft
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.appender import MOVED_TO, Appender
from sessionstore.store.closing import DeleteUnchanged
from sessionstore.store.material import stamp_of
from sessionstore.store.owner import CannotStart
from sessionstore.store.shard import FIRST, mark_of

AT_ONCE, BYTES = 500, 4 << 20
"""Events of one request, and of these about so many bytes."""
MATERIAL = """
SELECT (SELECT count(*) FROM transcripts WHERE session_id = :id AND NOT is_deleted)
     + (SELECT count(*) FROM checkpoint_threads WHERE session_id = :id AND NOT is_deleted)"""


class NotMoved(Exception):
    """The session stays where it is. What the other store has of it already, it has once. The message says why."""


def move(
    settings: Settings,
    session_id: str,
    to: str,
    token: str | None,
    *,
    url: str | None = None,
    without_material: bool = False,
    step: Callable[[int], object] = lambda done: None,
) -> int:
    """How many events the other store was told; 0 of what had moved there before.

    Raises NotMoved, NotServed, Unsound, sqlite3.Error.
    """
    to = to.rstrip("/")
    with closing(open_reader(settings.database)) as database, served_at(to, token) as other:
        copied, after = 0, 0
        while stamp := stamp_if_here(database, session_id, to, without_material):
            mark = mark_of(settings.database, *database.execute(FIRST).fetchone())
            while lines := next_lines(database, session_id, after):
                hand_over(other, f"/api/sessions/{session_id}/history?from={mark}", [line for _, line in lines])
                after, copied = lines[-1][0], copied + len(lines)
                step(copied)
            if has_let_go(settings, session_id, {"lastCursor": after, "material": stamp}, to, url):
                break
    return copied


def stamp_if_here(database: sqlite3.Connection, session_id: str, to: str, without_material: bool) -> str:
    """Of its material, which goes with it; empty: it has moved there before. Raises NotMoved for one that is nowhere
    known, and for one with material."""
    known, stamp = {"id": session_id}, stamp_of(database, session_id)
    if not database.execute("SELECT 1 FROM sessions WHERE session_id = :id", known).fetchone():
        (gone,) = database.execute(MOVED_TO, (session_id,)).fetchone() or (None,)
        if gone == to:
            return ""
        where = f": it has moved to {gone}" if gone else ""
        raise NotMoved(f"There is no session {session_id!r} here{where}")
    (material,) = database.execute(MATERIAL, known).fetchone()
    if material and not without_material:
        raise NotMoved(
            f"The session {session_id!r} has {material} conversations or threads, which do not move and would be "
            "deleted here: archive it first, and say --without-material"
        )
    return stamp


def next_lines(database: sqlite3.Connection, session_id: str, after: int) -> list[tuple[int, str]]:
    """The next events of a session, with their cursors."""
    query = f"{EVENTS.lines} ORDER BY cursor LIMIT {AT_ONCE}"
    found, size = [], 0
    for cursor, document in database.execute(query, {"id": session_id, "after": after}):
        found.append((cursor, document))
        size += len(document)
        if size > BYTES:
            break
    return found


def hand_over(other: Served, path: str, lines: list[str]) -> None:
    """Raises NotMoved unless the other store has all of them."""
    try:
        status, said = other.ask("POST", path, "\n".join(lines).encode(), "application/x-ndjson")
    except NotServed as error:
        needs = "it has to be there, and to know the token in --token-file as one of its role admin"
        raise NotMoved(f"{other.at} takes nothing: {needs} ({error})") from None
    if status != 200:
        raise NotMoved(f"{other.at} does not take it ({status}): {said.get('detail', '')}")
    if rejected := said["rejected"]:
        raise NotMoved(f"{other.at} does not take an event of it ({rejected[0]['status']}): {rejected[0]['detail']}")
    if said["accepted"] + said["duplicates"] != len(lines):
        raise NotMoved(f"{other.at} does not account for each event")


def has_let_go(settings: Settings, session_id: str, seen: dict[str, Any], to: str, url: str | None) -> bool:
    """Delete it here, by its server where one runs, if it is as `seen`: what the route takes of it. False: something
    more has come of it meanwhile."""
    why = {"reason": "moved", "movedTo": to}
    try:
        with appending(settings) as appender:
            draft = Draft(type="session_deleted", session_id=session_id, actor=STORE, data=why)
            is_gone = is_deleted(appender, DeleteUnchanged(draft, seen["lastCursor"], seen["material"]))
            finish(appender)
    except CannotStart:
        return asked_to_let_go(settings, session_id, seen | why, url)
    if (settings.directory / PROGRESS).exists():
        follow(settings.directory)
    return is_gone


def is_deleted(appender: Appender, deletion: DeleteUnchanged) -> bool:
    appender.begin()
    try:
        deletion(appender)
    except Problem:
        return False
    finally:
        appender.commit()
    return True


def asked_to_let_go(settings: Settings, session_id: str, why: dict[str, Any], url: str | None) -> bool:
    with served(settings, url) as server:
        status, said = server.ask("DELETE", f"/api/sessions/{session_id}?{urlencode(why)}")
    if status not in (200, 412):
        raise NotMoved(f"It is copied, but {server.at} does not let it go ({status}): {said.get('detail', '')}")
    return status == 200
