"""Pace: a rate limit on how much of one session's documents is written anew, for everybody waits meanwhile."""

from __future__ import annotations

from collections import Counter

from sessionstore.model.events import Draft
from sessionstore.model.problems import Problem

MAX_REWRITTEN, OF_LISTS = 128 << 20, 3
"""Characters that are written anew in one second, of one session: two seconds of a processor, so that who sends one
after the other hardly comes as far. A change of a list, which has a row for each of its goals or agents, counts for so
much more."""
LISTS = ("goal", "agent")


class Pace:
    """Of all sessions; on the writer's thread."""

    def __init__(self) -> None:
        self.second = ""
        self.rewritten: Counter[str] = Counter()
        """Characters in this second, by session."""
        self.underway: Counter[str] = Counter()
        """The same of this transaction, which may have to be run again."""
        self.behind: set[str] = set()
        """Sessions of which this transaction takes nothing more: what follows from a word is not taken before it."""

    def begin(self, received_at: str) -> None:
        """A transaction, at this time."""
        self.behind.clear()
        self.underway.clear()
        if self.second != received_at[:19]:
            self.second = received_at[:19]
            self.rewritten.clear()

    def commit(self) -> None:
        self.rewritten.update(self.underway)
        self.underway.clear()

    def check(self, draft: Draft) -> None:
        """Raises Problem 429 where an earlier word of its session was put off."""
        if draft.session_id in self.behind:
            raise put_off(draft.session_id)

    def note(self, draft: Draft, size: int) -> None:
        """It changes a document of so many characters. Raises Problem 429 where this is too much in this second."""
        is_of_list = draft.type.startswith(LISTS) or not draft.data.keys().isdisjoint(("goals", "agents"))
        size *= OF_LISTS if is_of_list else 1
        before = self.rewritten[draft.session_id] + self.underway[draft.session_id]
        if before and before + size > MAX_REWRITTEN:
            self.behind.add(draft.session_id)
            raise put_off(draft.session_id)
        self.underway[draft.session_id] += size


def put_off(session_id: str) -> Problem:
    detail = f"The state of {session_id!r} is changed faster than it can be written: the same again is taken later"
    return Problem(429, detail, headers={"retry-after": "1"})
