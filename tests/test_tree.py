"""The file tree: what stands in it, and that one database gives one tree, however it came to be."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, get_args

from hypothesis import given, settings

from sessionstore.events import EventType
from tests.databases import Database
from tests.trees import apply, contents, differences, follow, histories, purge_all, temporary_folder, write_tree

EXAMPLES = int(os.environ.get("TREE_EXAMPLES", "150"))


# ----------------------------------------------------------------- one database


@settings(max_examples=EXAMPLES)
@given(histories)
def test_a_tree_that_follows_is_the_tree_that_is_made_at_once(history: list[Any]) -> None:
    with temporary_folder() as folder:
        database = Database(folder / "sessions.db")
        followed, made = folder / "followed", folder / "made"
        followed.mkdir()
        for written in history:
            if written == "follow":
                follow(database.path, followed)
            elif written == "step":
                follow(database.path, followed, steps=1)
            elif written == "purge":
                purge_all(database)
            else:
                apply(database, written)
        follow(database.path, followed)
        assert contents(followed) | {"skipped": {}} == write_tree(database.path, made)
        assert differences(database.path, followed) == []
        database.close()


def test_the_histories_hold_every_type_of_event() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=150, database=None)
    @given(histories)
    def look(history: list[Any]) -> None:
        with temporary_folder() as folder:
            database = Database(folder / "sessions.db")
            for written in history:
                if isinstance(written, tuple):
                    apply(database, written)
            seen.update(name for (name,) in database.rows("SELECT type FROM events"))
            database.close()

    look()
    assert set(seen) == set(get_args(EventType))
