"""The file tree: what stands in it, and that one database gives one tree, however it came to be."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count, product
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given, settings

from export import layout
from export.layout import open_reader
from export.tree import Tree, TreeAhead, TreeBusy, TreeProgress
from sessionstore.model.events import TOLD_ABOUT, EventType
from sessionstore.store.schema import migrate
from tests.appliance import REPOSITORY, Appliance
from tests.databases import Database, drafted
from tests.peers import eventually
from tests.repeats import marked, repeated
from tests.test_database import aged, with_goals_and_a_wait
from tests.trees import (
    apply,
    contents,
    differences,
    follow,
    histories,
    purge_all,
    temporary_folder,
    tree_in,
    write_tree,
)


@pytest.fixture
def database() -> Iterator[Database]:
    with temporary_folder() as folder:
        database = Database(folder / "sessions.db")
        yield database
        database.close()


def fill(database: Database) -> None:
    """A parent with a child, and a session that has ended; each has something in its logs."""
    database.append(drafted("session_created", "parent", {"initial": {"input": "Build"}}, user_id="alice"))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}, user_id="bob"))
    database.append(drafted("session_created", "ended", {"initial": {}}, user_id="carol"))
    for name in ("parent", "child", "ended"):
        database.append(drafted("action", name, {"type": "file_write", "path": "é\u2028.js"}))
        database.append(drafted("response", name, {"type": "tool_result", "timestamp": "2026-02-13T21:59:12+01:00"}))
    database.append(drafted("session_finalized", "ended", {"status": "success"}))


# ----------------------------------------------------------------- one database


@repeated("examples", few=10, many=150, variable="TREE_EXAMPLES")
def test_a_tree_that_follows_is_the_tree_that_is_made_at_once(examples: int) -> None:
    settings(max_examples=examples)(given(histories)(follow_and_make_at_once))()


def follow_and_make_at_once(history: list[Any]) -> None:
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


@pytest.mark.long
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
    assert set(seen) | set(TOLD_ABOUT) == set(get_args(EventType))
    assert not set(seen).isdisjoint(TOLD_ABOUT)  # any of them: to the tree they are alike


CHANGES: dict[str, tuple[list[Any], set[str]]] = {
    "a child is deleted": ([drafted("session_deleted", "child")], {"parent"}),
    "a child goes to another parent": (
        [drafted("metadata_updated", "child", {"parentSession": "ended"})], {"parent", "ended"}),
    "a child has no parent any more": ([drafted("metadata_updated", "child", {"parentSession": None})], {"parent"}),
    "a child is born": ([drafted("session_created", "new", {"initial": {}, "parentSession": "ended"})], {"ended"}),
    "a parent is deleted": ([drafted("session_deleted", "parent")], set()),
    "a child is deleted and born again": (
        [drafted("session_deleted", "child"), drafted("session_created", "child", {"initial": {}})], {"parent"}),
    "an ended session goes on": ([drafted("session_created", "ended", {"initial": {}})], {"ended"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_in_one_session_is_shown_by_the_others(database: Database, name: str) -> None:
    """These others have no event of their own that would say so."""
    fill(database)
    folder = database.path.parent / "tree"
    folder.mkdir()
    follow(database.path, folder)
    before = contents(folder)
    drafts, shown = CHANGES[name]
    for draft in drafts:
        database.append(draft)
    follow(database.path, folder)
    after = contents(folder)
    assert differences(database.path, folder) == []
    for session in shown:
        assert before[f"sessions/{session}/metadata.json"] != after[f"sessions/{session}/metadata.json"]
    assert after | {"skipped": {}} == write_tree(database.path, database.path.parent / "made")


def test_a_log_that_is_right_is_not_written_again(database: Database) -> None:
    fill(database)
    folder = database.path.parent
    write_tree(database.path, folder)
    before = {path: path.stat().st_ino for path in folder.rglob("*.json*")}
    database.append(drafted("action", "child", {"type": "x"}))
    write_tree(database.path, folder)
    after = {path: path.stat().st_ino for path in folder.rglob("*.json*")}
    changed = {str(path.relative_to(folder)) for path in after if after[path] != before[path]}
    assert changed == {".mirror.json", "sessions/child/metadata.json"}


def test_half_a_line_is_cut_off_and_the_log_continued(database: Database) -> None:
    fill(database)
    folder = database.path.parent
    write_tree(database.path, folder)
    whole = tree_in(folder)
    logs = sorted(folder.glob("sessions/child/*.jsonl"))
    for number, log in enumerate(logs):
        os.truncate(log, log.stat().st_size - 5 - number)
    (folder / "sessions/child/metadata.json").unlink()
    (folder / ".mirror.json").write_text('{"cursor":1}')
    inodes = [log.stat().st_ino for log in logs]
    follow(database.path, folder)
    assert tree_in(folder) == whole
    assert [log.stat().st_ino for log in logs] == inodes


def test_a_deleted_session_that_cannot_be_removed_is_tried_again(database: Database) -> None:
    """The way aside is blocked: what is in its place cannot be moved, and the rest goes on."""
    fill(database)
    folder = database.path.parent
    follow(database.path, folder)
    (folder / "sessions" / "ended").rename(folder / "moved")
    (folder / "sessions" / "ended").write_text("in the way")
    (folder / "set-aside").write_text("in the way of what is in the way")
    database.append(drafted("session_deleted", "ended"))
    with closing(open_reader(database.path)) as reader, closing(Tree(folder)) as tree:
        assert tree.follow(reader)
        assert list(tree.skipped) == ["ended"]
    assert differences(database.path, folder) == ["sessions/ended: extra"]
    (folder / "set-aside").unlink()
    follow(database.path, folder)
    assert differences(database.path, folder) == []


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_folder_that_was_just_begun_goes_with_its_session(database: Database, is_begun: bool) -> None:
    """As after a kill between the making of the folder and its first line."""
    fill(database)
    folder = database.path.parent
    (folder / "sessions" / "child").mkdir(parents=True)
    if is_begun:
        (folder / "sessions" / "child" / "events.jsonl").write_text('{"cur')
    database.append(drafted("session_deleted", "child"))
    follow(database.path, folder)
    assert differences(database.path, folder) == []


def test_what_is_wrong_is_set_aside_and_not_lost(database: Database) -> None:
    fill(database)
    folder = database.path.parent
    write_tree(database.path, folder)
    whole = tree_in(folder)
    log = folder / "sessions" / "child" / "actions.jsonl"
    log.write_text('{"seq":1,"something":"else"}\n')
    said: list[str] = []
    write_tree(database.path, folder, said.append)
    assert (folder / "set-aside" / "child.actions.jsonl.1").read_text() == '{"seq":1,"something":"else"}\n'
    assert {path: found for path, found in tree_in(folder).items() if not path.startswith("set-aside")} == whole
    assert len(said) == 1 and "set-aside/child.actions.jsonl.1" in said[0]


def test_large_events_are_written_in_little_memory_and_whole(database: Database) -> None:
    """Nine at once are more than one piece of a log, and the last is more than one piece by itself."""
    for number in range(9):
        database.append(drafted("action", "s", {"type": "x", "text": str(number) * (1 << 20)}))
    database.append(drafted("action", "s", {"type": "x", "text": "z" * (layout.PIECE_BYTES + 1)}))
    folder = database.path.parent
    write_tree(database.path, folder)
    lines = (folder / "sessions/s/actions.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"][:1] for line in lines] == [*"012345678", "z"]
    assert differences(database.path, folder) == []


def test_a_long_line_of_descent_is_followed_from_its_end(database: Database) -> None:
    """The youngest changed first, and all of them are new to the tree."""
    for number in range(700):
        database.append(drafted("session_created", f"s{number}", {"initial": {}, "parentSession": f"s{number - 1}"}))
    for number in reversed(range(700)):
        database.append(drafted("action", f"s{number}", {"type": "x"}, event_id=f"e{number}"))
    folder = database.path.parent
    follow(database.path, folder)
    assert differences(database.path, folder) == []
    write_tree(database.path, folder / "made")
    assert differences(database.path, folder / "made") == []


def test_a_tree_has_one_writer(database: Database) -> None:
    tree = Tree(database.path.parent)
    with pytest.raises(TreeBusy):
        Tree(database.path.parent)
    tree.close()
    Tree(database.path.parent).close()


def test_a_tree_that_has_seen_more_than_the_database_is_not_written_to(database: Database) -> None:
    fill(database)
    folder = database.path.parent
    write_tree(database.path, folder)
    (folder / ".mirror.json").write_text('{"cursor":1000}')
    before = contents(folder / "sessions")
    database.append(drafted("action", "child", {"type": "x"}))
    with pytest.raises(TreeAhead, match="seen cursor 1000, the database has only 11"):
        follow(database.path, folder)
    with pytest.raises(TreeAhead):
        write_tree(database.path, folder)
    assert contents(folder / "sessions") == before


def test_what_the_database_has_lost_for_good_is_set_aside(database: Database, tmp_path: Path) -> None:
    fill(database)
    folder = database.path.parent
    older = tmp_path / "older.db"
    database.connection.execute("VACUUM INTO ?", (str(older),))
    database.append(drafted("action", "child", {"type": "lost"}))
    database.append(drafted("action", "new", {"type": "lost"}))
    write_tree(database.path, folder)
    lost = (folder / "sessions/child/events.jsonl").read_bytes()
    with closing(open_reader(older)) as reader, closing(Tree(folder)) as tree:
        tree.accept(10)
        assert tree.progress == TreeProgress(10, {}, suspect=True)
        while not tree.follow(reader):
            pass
    assert differences(older, folder) == ["sessions/new: extra"]
    assert (folder / "set-aside/child.events.jsonl.1").read_bytes() == lost


# --------------------------------------------------------------- what stands in it


def test_the_documents_and_logs_are_what_the_api_answers(tmp_path: Path) -> None:
    with Appliance(tmp_path) as server, httpx.Client(base_url=server.url) as http:
        http.put("/api/sessions/s", json={"userId": "alice", "initial": {"input": "Build"}, "tags": ["x"]})
        http.put("/api/sessions/kid", json={"userId": "alice", "parentSession": "s"})
        for number in range(3):
            http.post("/api/actions/s", json={"type": "file_write", "lines": number})
            http.post("/api/actions/s/responses", json={"type": "tool_result", "text": "é"})
        http.post("/api/state/s/goals", json={"description": "Build"})
        http.post("/api/sessions/s/finalize", json={"outcome": "done"})
        session = http.get("/api/sessions/s").json()
        events = http.get("/api/sessions/s/events").json()["items"]
        state = http.get("/api/state/s").json()
        recent = [found["sessionId"] for found in http.get("/api/query/recent").json()]
    folder = tmp_path / "sessions" / "s"
    for name in ("metadata", "initial", "state", "final"):
        assert json.loads((folder / f"{name}.json").read_text()) == session[name]
    assert json.loads((folder / "state.json").read_text()) == state
    assert lines(folder / "actions.jsonl") == session["actions"]
    assert lines(folder / "responses.jsonl") == session["responses"]
    assert lines(folder / "events.jsonl") == events
    assert (folder / "subsessions" / "kid" / "metadata.json").exists()
    assert [path.name for path in sorted((tmp_path / "recent").iterdir())] == [
        f"{number:02}-{name}" for number, name in enumerate(recent, 1)
    ]
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["s"] == {"userId": "alice", "created": session["metadata"]["created"]}
    assert list(index) == ["s", "kid"]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_events_jsonl_is_what_the_api_takes(tmp_path: Path) -> None:
    with Appliance(tmp_path / "one") as server:
        httpx.post(f"{server.url}/api/actions/s", json={"type": "x", "timestamp": "2026-02-13T21:59:12+01:00"})
        httpx.post(f"{server.url}/api/actions/s", json={"type": "y"})
        httpx.patch(f"{server.url}/api/state/s", json={"phase": "done"})
    written = (tmp_path / "one/sessions/s/events.jsonl").read_bytes()
    with Appliance(tmp_path / "two") as server:
        posted = httpx.post(
            f"{server.url}/api/events", content=written, headers={"content-type": "application/x-ndjson"}
        )
        assert posted.json()["accepted"] == 4, posted.text
    again = lines(tmp_path / "two/sessions/s/events.jsonl")
    for one, other in zip(lines(tmp_path / "one/sessions/s/events.jsonl"), again, strict=True):
        assert one | {"receivedAt": None} == other | {"receivedAt": None}


def test_the_layout_that_is_described_is_the_one_that_is_written(database: Database) -> None:
    fill(database)
    folder = database.path.parent
    database.append(drafted("session_deleted", "child"))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}))
    (folder / "sessions").mkdir()
    (folder / "sessions" / "ended").touch()
    write_tree(database.path, folder)
    assert differences(database.path, folder) == []
    text = (REPOSITORY / "export" / "LAYOUT.md").read_text()
    described = set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))
    ids = re.compile(r"(?<![a-z])(parent|ended)(?![a-z])")
    found = {re.sub(r"subsessions/\w+", "subsessions/CHILD", path) for path in contents(folder)}
    found = {ids.sub("ID", path).replace("sessions/child", "sessions/ID") for path in found}
    found = {re.sub(r"^recent/.*", "recent/NN-ID", path) for path in found}
    found = {re.sub(r"^set-aside/.*", "set-aside/NAME.N", path) for path in found}
    folders = {str(Path(path).parent) for path in found} | {".new", "sessions/.new"}
    assert described == (found - folders - {"sessions.db", "sessions.db-wal", "sessions.db-shm"}) | {
        ".new",
        "sessions/.new",
    }


# ---------------------------------------------------------- what is in the way

NAMES = [
    "sessions",
    "sessions/.new",
    "sessions/parent",
    *(f"sessions/parent/{name}" for name in (*(log.name for log in layout.LOGS), "metadata.json", "initial.json")),
    "sessions/parent/state.json",
    "sessions/parent/final.json",
    "sessions/parent/subsessions",
    "sessions/parent/subsessions/child",
    "recent",
    "recent/01-child",
    "index.json",
    "deleted.jsonl",
    ".mirror.json",
    ".new",
    "set-aside",
]


def plant_link_to_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def plant_link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "folder")


def plant_link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def plant_second_name(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "file")


def plant_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def plant_folder_of_links(path: Path, outside: Path) -> None:
    path.mkdir()
    for name in ("file", "folder"):
        (path / name).symlink_to(outside / name)


PLANTS = [
    plant_link_to_file,
    plant_link_to_folder,
    plant_link_to_nothing,
    plant_second_name,
    plant_pipe,
    plant_folder_of_links,
]


OFTENER = [(plant, False) for plant in PLANTS if plant not in (plant_link_to_folder, plant_second_name)]
"""Into a new tree the others, too, go in `make test-long`."""


def make_outside(folder: Path) -> dict[str, Any]:
    """Something to be left alone: what it is, and when it was last changed."""
    (folder / "outside" / "folder").mkdir(parents=True)
    (folder / "outside" / "folder" / "events.jsonl").write_text("theirs\n")
    (folder / "outside" / "file").write_text("theirs\n")
    return seen_outside(folder)


def seen_outside(folder: Path) -> dict[str, Any]:
    times = {str(path): path.lstat().st_mtime_ns for path in (folder / "outside").rglob("*")}
    return {"contents": contents(folder / "outside"), "times": times}


def replace(path: Path) -> None:
    """Make room for what is planted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        path.rename(path.with_name(f"{path.name}-before"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("plant", "is_there"), marked(list(product(PLANTS, [True, False])), long=OFTENER))
def test_nothing_that_is_planted_has_anything_written_outside(
    database: Database, name: str, plant: Callable[[Path, Path], None], is_there: bool
) -> None:
    folder = database.path.parent / "tree"
    folder.mkdir()
    before = make_outside(database.path.parent)
    fill(database)
    if is_there:
        follow(database.path, folder)
    replace(folder / name)
    plant(folder / name, database.path.parent / "outside")
    database.append(drafted("action", "parent", {"type": "x"}))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}))
    database.append(drafted("session_deleted", "ended"))
    if is_there and name.startswith("sessions/parent"):
        database.append(drafted("session_deleted", "parent"))
    with suppress(OSError):  # where not even what is in the way can be set aside
        follow(database.path, folder)
    with suppress(OSError):
        write_tree(database.path, folder)
    assert seen_outside(database.path.parent) == before
    if name != "set-aside":
        left = [line for line in differences(database.path, folder) if not line.endswith((": extra", "final.json"))]
        assert left == []


def test_a_writer_that_takes_no_care_is_found_out(database: Database) -> None:
    """The control: that what is planted does lead outside, and that it is seen there."""
    folder = database.path.parent
    before = make_outside(folder)
    for number, plant in enumerate((plant_link_to_file, plant_link_to_nothing, plant_second_name)):
        path = folder / f"events-{number}.jsonl"
        plant(path, folder / "outside")
        with open(path, "ab") as file:
            file.write(b"ours\n")
        assert seen_outside(folder) != before
        before = seen_outside(folder)


@repeated("times", few=20, many=100, variable="SWAPS")
def test_a_folder_that_is_swapped_while_it_is_written_leads_nowhere(database: Database, times: int) -> None:
    fill(database)
    folder = database.path.parent / "tree"
    folder.mkdir()
    follow(database.path, folder)
    before = make_outside(database.path.parent)
    ended = threading.Event()
    swaps = Counter[str]()
    swapping = threading.Thread(
        target=swap_until,
        args=(folder / "sessions" / "parent", database.path.parent / "outside" / "folder", ended, swaps),
    )
    swapping.start()
    until = time.monotonic() + 20 + times / 10
    rounds = 0
    while time.monotonic() < until and (rounds < times or swaps["swaps"] < times):
        database.append(drafted("action", "parent", {"type": "x"}))
        with suppress(OSError):
            follow(database.path, folder, steps=1)
        rounds += 1
    ended.set()
    swapping.join()
    assert swaps["swaps"] >= times
    assert seen_outside(database.path.parent) == before
    write_tree(database.path, folder)
    assert [line for line in differences(database.path, folder) if not line.endswith(": extra")] == []


def swap_until(path: Path, outside: Path, ended: threading.Event, swaps: Counter[str]) -> None:
    """Put a link in the place of a folder and take it away again; what has been made there meanwhile stays."""
    for number in count():
        if ended.is_set():
            return
        aside = path.with_name(f"moved-{number}")
        with suppress(OSError):
            path.rename(aside)
            path.symlink_to(outside)
            swaps["swaps"] += 1
            path.unlink()
            aside.rename(path)


def test_two_ids_that_a_file_system_takes_for_one_are_not_mixed(database: Database, tmp_path: Path) -> None:
    """As on a file system that ignores case, where the folder of `abc` is found under `ABC`, too."""
    database.append(drafted("action", "ABC", {"type": "x"}))
    folder = database.path.parent
    follow(database.path, folder)
    (folder / "sessions" / "ABC").rename(folder / "sessions" / "abc")
    before = contents(folder / "sessions" / "abc")
    database.append(drafted("action", "abc", {"type": "y"}))
    with closing(open_reader(database.path)) as reader, closing(Tree(folder)) as tree:
        assert tree.follow(reader)
        assert list(tree.skipped) == ["abc"]
        assert "ignores case" in tree.skipped["abc"]
    assert contents(folder / "sessions" / "abc") == before
    (folder / "sessions" / "abc").rename(folder / "sessions" / "ABC")
    follow(database.path, folder)
    assert differences(database.path, folder) == []


# --------------------------------------------------------------------- command


def test_the_command_waits_for_a_tree_that_a_server_keeps(tmp_path: Path) -> None:
    from tests.test_restore import command

    with Appliance(tmp_path) as server:
        httpx.post(f"{server.url}/api/actions/s", json={"type": "x"})
        done = command("tree", "--dir", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"The server keeps the tree in {tmp_path}: it is at cursor 2\n"
        eventually(lambda: (tmp_path / ".mirror.json").read_bytes() == b'{"cursor":2}\n')
    done = command("tree", "--dir", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"The tree in {tmp_path} is at cursor 2\n")


def test_documents_that_a_newer_version_has_made_anew_are_written_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    with_goals_and_a_wait(database)
    folder = tmp_path / "tree"
    wanted = write_tree(database.path, folder)
    aged(database)
    final = folder / "sessions/ended/final.json"
    final.write_text(final.read_text().replace("one", "as the older version had it"))
    migrate(database.connection)
    for written in (True, False):  # and once a process, as long as nothing is newer
        with closing(Tree(folder)) as tree, closing(open_reader(database.path)) as reader:
            while not tree.follow(reader):
                pass
            assert tree.written == written
        assert contents(folder) | {"skipped": {}} == wanted
    database.close()
