"""File trees in tests: what is in one, stores to make them of, and the steps by which they are made."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from export.folders import open_folder
from export.layout import open_reader
from export.tree import Tree
from export.verify import Verification
from sessionstore.model.drafts import draft_of
from sessionstore.model.events import TOLD_ABOUT, Draft
from sessionstore.model.problems import Problem
from sessionstore.store.appender import Appended
from sessionstore.store.maintenance import purge
from tests.databases import Database

MEMORY = Path("/dev/shm")
ROOM = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
"""Where many small trees are made: in memory, if the machine has room there."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=ROOM) as name:
        yield Path(name)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder by its path: a file's bytes, where a link points, that it is a folder."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def content(path: Path) -> bytes | str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"-> {path.readlink()}"
    if stat.S_ISDIR(mode):
        return "folder"
    return path.read_bytes() if stat.S_ISREG(mode) else f"mode {mode:o}"


def tree_in(folder: Path) -> dict[str, bytes | str]:
    """The tree beside a database, without the database and what the server keeps besides."""
    everything = contents(folder)
    return {path: found for path, found in everything.items() if not path.startswith((".", "sessions.db", "tokens"))}


def write_tree(database: Path, folder: Path, report: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Compare and write all of it; what is in the folder then."""
    folder.mkdir(exist_ok=True)
    with closing(open_reader(database)) as reader:
        tree = Tree(folder, report)
        try:
            tree.rebuild(reader)
            return contents(folder) | {"skipped": tree.skipped}
        finally:
            tree.close()


def follow(database: Path, folder: Path, steps: int | None = None) -> None:
    """As the server does it: to the end, or so many of the smallest steps."""
    with closing(open_reader(database)) as reader:
        tree = Tree(folder)
        try:
            seconds = 10.0 if steps is None else 0.0
            number = 0
            while not tree.follow(reader, seconds) and (steps is None or number < steps):
                number += 1
        finally:
            tree.close()


def differences(database: Path, folder: Path, *, is_full: bool = True) -> list[str]:
    with closing(open_reader(database)) as reader, open_folder(folder) as root:
        return [str(difference) for difference in Verification(reader, root, is_full=is_full).run().differences]


def derived(path: Path) -> dict[str, list[Any]]:
    """What the database keeps of all events, but for the order in which documents changed."""
    queries = {
        "events": "SELECT * FROM events ORDER BY cursor",
        "sessions": "SELECT * FROM sessions ORDER BY 1",
        "documents": "SELECT session_id, name, version, document FROM documents ORDER BY 1, 2",
        "counts": "SELECT * FROM counts WHERE number <> 0 ORDER BY 1, 2",
        "goals": "SELECT * FROM goals ORDER BY 1, 2",
        "agents": "SELECT * FROM agents ORDER BY 1, 2",
        "users": "SELECT * FROM users ORDER BY 1",
    }
    with closing(sqlite3.connect(path)) as database:
        return {name: database.execute(query).fetchall() for name, query in queries.items()}


# ----------------------------------------------------------------- odd stores

SESSION_IDS = ("a", "B", "b.c", "0", "x-_.Z", "n" * 128)
odd = st.sampled_from(
    ["\x00", "\x1f", "\x7f", '"', "\\", "\\u0000", "\u2028", "\u00e9", "\U0001f9ff", "'", "{", "\n", "\r"]
)
texts = st.lists(odd | st.text(max_size=4), max_size=4).map("".join)
users = st.sampled_from(["alice", "b\u00f6b\u2028", '"', "\\", "\U0001f9ff" * 64])
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=6,
)
deep = st.integers(1, 40).map(lambda depth: nested(depth))
own = st.dictionaries(texts, values | deep, max_size=3)
sessions = st.sampled_from(SESSION_IDS)
ids = st.sampled_from(["one", "two", "g.3"])
large = st.integers(1, 200_000).map(lambda size: {"text": "\u00e9" * size})


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else {}


def body(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with some of these members, and others."""
    return st.builds(lambda rest, named: rest | named, own, st.fixed_dictionaries({}, optional=members))


def write(event_type: str, bodies: st.SearchStrategy[dict[str, Any]], **members: Any) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(event_type), sessions, bodies, st.fixed_dictionaries(members) if members else st.just({}))


statuses = st.sampled_from(["pending", "in_progress", "completed", "failed", "cancelled"])
actors = st.sampled_from([None, "", "someone", "budget:\u00fc"])
kinds = st.sampled_from(["tool_call", "file_write", "prompt", "tool_result", "x\ny"])
beginnings = body(
    initial=own,
    userId=users,
    parentSession=sessions,
    tags=st.lists(texts, max_size=2),
    metadata=st.dictionaries(
        st.sampled_from(["colour", "a.b", "tokenUsage.input", "n"]), st.integers(0, 9), max_size=2
    ),
)
writes = st.one_of(
    write("session_created", beginnings),
    write("action", st.builds(lambda rest, kind: rest | {"type": kind}, own, kinds), user_id=users),
    write("response", st.builds(lambda rest, kind: rest | {"type": kind}, own | large, kinds)),
    write("state_updated", own, patch=st.sampled_from([None, "merge-patch", "replace"])),
    write("metadata_updated", st.fixed_dictionaries({}, optional={"parentSession": sessions, "note": values})),
    write("metadata_updated", st.fixed_dictionaries({"status": st.sampled_from(["active", "waiting", "failed"])})),
    write("goal_added", body(description=texts, id=ids, status=statuses)),
    write("goal_updated", st.builds(lambda rest, name: rest | {"goalId": name}, body(status=statuses), ids)),
    write("agent_spawned", body(type=texts, agentId=ids)),
    write("agent_updated", st.builds(lambda rest, name: rest | {"agentId": name}, own, ids)),
    write("agent_completed", st.builds(lambda rest, name: rest | {"agentId": name}, own, ids)),
    write("session_finalized", body(outcome=values, status=st.sampled_from(["success", "failed"]))),
    write("session_lost", st.just({})),
    write("session_deleted", st.just({}), actor=actors),
    st.tuples(st.sampled_from(TOLD_ABOUT), sessions, body(text=texts), st.fixed_dictionaries({"actor": actors})),
)
histories = st.lists(st.one_of(writes, st.sampled_from(["follow", "step", "purge"])), max_size=25)
"""Writes, and between them what happens to the tree and in the background."""


def apply(database: Database, written: tuple[str, str, dict[str, Any], dict[str, Any]]) -> Appended | None:
    """Store one write as the API would; what it would refuse changes nothing, and gives None."""
    event_type, session_id, data, members = written
    try:
        checked = draft_of(event_type, session_id, dict(data))
        draft = Draft(
            type=event_type,
            session_id=session_id,
            data=checked.data,
            user_id=members.get("user_id") or checked.user_id,
            agent_id=checked.agent_id,
            timestamp=checked.timestamp,
            patch=members.get("patch"),
            actor=members.get("actor", ""),
            event_id=checked.event_id,
        )
        return database.append(draft)
    except Problem:
        return None


def purge_all(database: Database) -> None:
    database.connection.execute("BEGIN IMMEDIATE")
    while purge(database.connection):
        pass
    database.connection.execute("COMMIT")
