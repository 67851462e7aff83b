"""The database written anew: without the room of what was deleted, and able to give such room back by itself."""

from __future__ import annotations

from sessionstore.admin.offline import appending
from sessionstore.settings import Settings


def compact(settings: Settings) -> tuple[int, int]:
    """The bytes of the database before and after. Takes twice its room meanwhile. Raises CannotStart, Unsound.

    One that was made by an early version keeps its free pages for what is written
    next, and is made able to give them back by this alone.
    """
    before = settings.database.stat().st_size
    with appending(settings) as appender:
        appender.connection.execute("INSERT INTO search (search) VALUES ('optimize')")
        appender.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        appender.connection.execute("VACUUM")
    return before, settings.database.stat().st_size
