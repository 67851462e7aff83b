"""The database written anew: without the room of what was deleted, and able to give such room back by itself."""

from __future__ import annotations

from itertools import count

from export.layout import Step, unseen
from sessionstore.admin.offline import appending
from sessionstore.settings import Settings

STEPS = 1_000_000
"""Of SQLite's machine, between two words of it."""


def compact(settings: Settings, step: Step = unseen) -> tuple[int, int]:
    """The bytes of the database before and after. Takes twice its room meanwhile. Raises CannotStart, Unsound.

    One that was made by an early version keeps its free pages for what is written next, and is made able to give them
    back by this alone. `step` is told how many million steps are done; of how many, SQLite does not know.
    """
    before, done = settings.database.stat().st_size, count()

    def tick() -> None:
        step(next(done), 0)

    with appending(settings) as appender:
        appender.connection.set_progress_handler(tick, STEPS)
        appender.connection.execute("INSERT INTO search (search) VALUES ('optimize')")
        appender.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        appender.connection.execute("VACUUM")
    return before, settings.database.stat().st_size
