"""A database that has fallen behind is taken as it is: the server starts with it, and what is missing stays missing."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from sessionstore.mark import Newest, write_newest
from sessionstore.owner import own_folder
from sessionstore.settings import Settings
from sessionstore.soundness import examine, tree_cursor, witnesses

from .layout import DELETED, INDEX, PROGRESS, RECENTS, SESSIONS
from .tree import SET_ASIDE

OF_THE_TREE = (SESSIONS, RECENTS, INDEX, DELETED, PROGRESS)


class NothingLost(Exception):
    """There is nothing to accept. The message says why."""


def accept_loss(settings: Settings) -> str:
    """Have the server start again; what was accepted, in a sentence. Raises NothingLost, CannotStart, OSError."""
    owned = own_folder(settings.directory)
    try:
        finding = examine(settings)
        if finding is None:
            raise NothingLost("The database has all that was ever seen of it: there is no loss to accept")
        if finding.status == "damaged":
            raise NothingLost(f"What is damaged cannot be gone on with. {finding.detail}")
        seen = max(witness.cursor for witness in witnesses(settings))
        aside = set_tree_aside(settings.directory) if tree_cursor(settings.directory) > finding.cursor else None
        write_newest(settings.directory, Newest(seen, accepted=finding.cursor))
    finally:
        os.close(owned)
    accepted = (
        f"What came after cursor {finding.cursor}, up to {seen}, is accepted as lost; new events go on after that"
    )
    return f"{accepted}. The file tree, which has seen more, is in {aside} now" if aside else accepted


def set_tree_aside(folder: Path) -> Path:
    """Where the tree is then: it may be all that is left of what is lost. The server writes a new one."""
    places = (folder / SET_ASIDE / f"tree.{number}" for number in count(1))
    place = next(place for place in places if not place.exists())
    place.mkdir(parents=True)
    for name in OF_THE_TREE:
        if os.path.lexists(folder / name):
            (folder / name).rename(place / name)
    return place
