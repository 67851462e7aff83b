"""Sessions that the store closes: lost, since nobody hears of them; deleted, unless they have moved on."""

from __future__ import annotations

from collections.abc import Container

from sessionstore.model import endings
from sessionstore.model.events import STORE, Draft, Event
from sessionstore.model.problems import Problem
from sessionstore.store import material
from sessionstore.store.appender import Appended, Appender


def lose_silent(appender: Appender, heard_before: str, spared: Container[str] = ()) -> list[Event]:
    """Say of the active sessions that they are lost whose last word came before `heard_before`; their events.

    One that waits for a person is silent for a good reason, and stays as it is, as do those that are `spared`. One
    whose graph has come to its end, and in which nobody is at work, has ended with its last word.
    """
    silent = appender.connection.execute(SILENT, (heard_before,)).fetchall()
    return [
        appender.append(end_of(session_id, last, has_completed and not at_work)).event
        for session_id, last, has_completed in silent
        if session_id not in spared
        for at_work in (endings.agents_at_work(appender.connection, session_id),)
    ]


def end_of(session_id: str, last: str, has_completed: bool) -> Draft:
    """What is said of a session of which nothing was heard since then."""
    if not has_completed:
        return Draft(type="session_lost", session_id=session_id, actor=STORE, data={})
    done = dict(COMPLETED_IN_SILENCE)
    return Draft(type="session_finalized", session_id=session_id, timestamp=last, actor=STORE, data=done)


SILENT = """
SELECT s.session_id, e.timestamp, s.phase IS 'completed'
FROM sessions s CROSS JOIN events e ON e.cursor = s.last_cursor WHERE s.status = 'active' AND s.heard < ?"""
COMPLETED_IN_SILENCE = {"status": "success", "reason": "Its phase was completed, and nothing came after it"}


UNSEALED = "The lake does not have all of it yet"
"""Why a session cannot make room."""


class DeleteUnchanged:
    """Work: delete a session unless it, or its material, of which `stamp` is that of before, has moved on; then Problem
    412, and it stays."""

    def __init__(self, draft: Draft, last_cursor: int, stamp: str | None) -> None:
        self.draft = draft
        self.last_cursor = last_cursor
        self.stamp = stamp

    def __call__(self, appender: Appender) -> Appended:
        appender.insert_entries()
        row = appender.connection.execute(
            "SELECT last_cursor FROM sessions WHERE session_id = ?", (self.draft.session_id,)
        ).fetchone()
        if row and row[0] != self.last_cursor:
            raise Problem(412, f"The session has moved on: its last cursor is {row[0]} now")
        if row and self.stamp is not None:
            material.check_unchanged(appender.connection, self.draft.session_id, self.stamp)
        return appender.append(self.draft)
