"""Appending to a store whose server does not run, as carefully as the server does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sessionstore.model.events import event_ids, now
from sessionstore.settings import Settings
from sessionstore.store.appender import Appender
from sessionstore.store.high_water_mark import Newest, read_newest, write_newest
from sessionstore.store.integrity import check_integrity
from sessionstore.store.owner import own_folder
from sessionstore.store.schema import open_writer
from sessionstore.store.write_ahead_log import checkpoint


class Unsound(Exception):
    """The server would not serve this database. The message says why, and the ways out."""


@contextmanager
def appending(settings: Settings) -> Iterator[Appender]:
    """Raises CannotStart where a server runs, Unsound."""
    lock = own_folder(settings.directory)
    try:
        if finding := check_integrity(settings):
            raise Unsound(finding.detail)
        used = read_newest(settings.directory).cursor
        with closing(open_writer(settings.database)) as database:
            appender = Appender(database, clock=now, ids=event_ids(), used=used)
            try:
                yield appender
            finally:
                checkpoint(database, "TRUNCATE")
                if appender.cursor > used:
                    write_newest(settings.directory, Newest(appender.cursor))
    finally:
        os.close(lock)
