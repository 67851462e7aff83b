"""A database that has fallen behind is taken as it is: the server starts with it, and what is missing stays missing."""

from __future__ import annotations

import os
from pathlib import Path

from export.folders import InTheWay
from export.tree import Tree
from sessionstore.settings import Settings
from sessionstore.store.high_water_mark import Newest, write_newest
from sessionstore.store.integrity import check_integrity, tree_cursor, witnesses
from sessionstore.store.lake import ask_lake
from sessionstore.store.owner import own_folder


class NothingLost(Exception):
    """There is nothing to accept. The message says why."""


def accept_loss(settings: Settings) -> str:
    """Have the server start again; what was accepted, in a sentence. Raises NothingLost, CannotStart, OSError."""
    owned = own_folder(settings.directory)
    try:
        lake = ask_lake(settings)
        if lake.away:
            raise NothingLost(f"{lake.away}. What it has of this store cannot be known: try again once it answers")
        finding = check_integrity(settings)
        if finding is None:
            raise NothingLost("The database has all that was ever seen of it: there is no loss to accept")
        if finding.status == "damaged":
            raise NothingLost(f"What is damaged cannot be gone on with. {finding.detail}")
        seen = max(witness.cursor for witness in witnesses(settings, lake))
        set_lost_aside(settings.directory, finding.cursor)
        write_newest(settings.directory, Newest(seen, accepted=finding.cursor))
    finally:
        os.close(owned)
    return f"What came after cursor {finding.cursor}, up to {seen}, is accepted as lost; new events go on after that"


def set_lost_aside(folder: Path, cursor: int) -> None:
    """Sessions that began after `cursor`, and so are in the tree alone, leave it, but not the disk."""
    if not tree_cursor(folder):
        return
    tree = Tree(folder)
    try:
        for name in tree.sessions.names():
            if not name.startswith(".") and began_after(tree, name, cursor):
                tree.set_aside(tree.sessions, name)
    finally:
        tree.close()


def began_after(tree: Tree, name: str, cursor: int) -> bool:
    try:
        with tree.sessions.folder(name) as folder:
            birth = tree.birth(folder)
    except InTheWay:
        return False
    return birth is not None and birth.cursor > cursor
