"""Every difference between tree and database is found and named; a tree that is only behind has none."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.databases import Database, drafted
from tests.peers import children_of, eventually, is_running
from tests.repeats import marked
from tests.test_restore import command
from tests.trees import contents, differences, write_tree


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A store and its tree: a parent with a child, and one that has ended."""
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("session_created", "parent", {"initial": {"input": "Build"}}))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}))
    for number in range(5):
        database.append(drafted("action", "child", {"type": "file_write", "lines": number}))
    database.append(drafted("session_finalized", "child", {"status": "success"}))
    database.append(drafted("session_created", "gone", {"initial": {}}))
    database.append(drafted("session_deleted", "gone"))
    write_tree(database.path, tmp_path)
    yield database
    database.close()


def cut(path: Path, size: int) -> None:
    os.truncate(path, path.stat().st_size - size)


def without_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def replace_with_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_with_file(path: Path) -> None:
    path.rename(path.with_name("was-here"))
    path.write_text("")


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc")


def change_byte(path: Path) -> None:
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"lines":2', b'"lines":7').replace(b'"active"', b'"ACTIVE"'))


DAMAGES: list[tuple[str, Callable[[Path], object], set[str]]] = [
    ("sessions/child/actions.jsonl", change_byte, {"sessions/child/actions.jsonl: differs at line 3"}),
    ("sessions/child/events.jsonl", change_byte, {"sessions/child/events.jsonl: differs at line 4"}),
    ("sessions/parent/metadata.json", change_byte, {"sessions/parent/metadata.json: differs at line 7"}),
    ("sessions/child/actions.jsonl", lambda path: cut(path, 5), {"sessions/child/actions.jsonl: torn at line 5"}),
    ("sessions/child/actions.jsonl", without_last_line, {"sessions/child/actions.jsonl: short at line 5"}),
    ("sessions/child/actions.jsonl", lambda path: os.truncate(path, 0),
     {"sessions/child/actions.jsonl: short at line 1"}),
    ("sessions/child/actions.jsonl", lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
     {"sessions/child/actions.jsonl: long at line 6"}),
    ("sessions/child/actions.jsonl", Path.unlink, {"sessions/child/actions.jsonl: missing"}),
    ("sessions/child/state.json", Path.unlink, {"sessions/child/state.json: missing"}),
    ("sessions/child/state.json", lambda path: cut(path, 3), {"sessions/child/state.json: torn at line 31"}),
    ("sessions/child/final.json", Path.unlink, {"sessions/child/final.json: missing"}),
    ("sessions/parent/final.json", Path.touch, {"sessions/parent/final.json: extra"}),
    ("sessions/parent/notes.txt", Path.touch, {"sessions/parent/notes.txt: extra"}),
    ("sessions/child/state.json", replace_with_link,
     {"sessions/child/state.json: is no file of its own", "sessions/child/elsewhere: extra"}),
    ("sessions/child/events.jsonl", replace_with_folder, {"sessions/child/events.jsonl: is no file of its own"}),
    ("sessions/child", replace_with_link, {"sessions/child: is no folder", "sessions/elsewhere: extra"}),
    ("sessions/child", replace_with_file, {"sessions/child: is no folder", "sessions/was-here: extra"}),
    ("sessions/unknown", Path.mkdir, {"sessions/unknown: extra"}),
    ("sessions/parent/subsessions/child", relink, {"sessions/parent/subsessions/child: points elsewhere"}),
    ("sessions/parent/subsessions/child", Path.unlink, {"sessions/parent/subsessions/child: missing"}),
    ("sessions/parent/subsessions/other", lambda path: path.symlink_to("../../child"),
     {"sessions/parent/subsessions/other: extra"}),
    ("sessions/child/subsessions", Path.mkdir, {"sessions/child/subsessions: extra"}),
    ("recent/01-child", Path.unlink, {"recent/01-child: missing"}),
    ("recent/01-child", replace_with_folder, {"recent/01-child: is no link"}),
    ("recent/03-x", Path.touch, {"recent/03-x: extra"}),
    ("index.json", lambda path: cut(path, 4), {"index.json: torn at line 3"}),
    ("deleted.jsonl", lambda path: path.write_bytes(b""), {"deleted.jsonl: short at line 1"}),
    (".mirror.json", lambda path: path.write_text('{"cursor":3}'), {".mirror.json: has cursor 3, the database 10"}),
    (".mirror.json", Path.unlink, {".mirror.json: has cursor 0, the database 10"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "found"), DAMAGES)
def test_a_difference_is_named_and_mended(
    database: Database, tmp_path: Path, name: str, damage: Callable[[Path], object], found: set[str]
) -> None:
    whole = contents(tmp_path)
    assert differences(database.path, tmp_path) == []
    damage(tmp_path / name)
    assert set(differences(database.path, tmp_path)) == found
    assert set(differences(database.path, tmp_path, is_full=False)) == found
    write_tree(database.path, tmp_path)
    unknown = {line.removesuffix(": extra") for line in found if line.endswith("extra") and "subsessions" not in line}
    assert {line.removesuffix(": extra") for line in differences(database.path, tmp_path)} <= unknown
    ours = {path for path in whole if path.startswith(("sessions/", "recent/", "index.json", "deleted.jsonl"))}
    mended = contents(tmp_path)
    assert {path: mended[path] for path in ours} == {path: whole[path] for path in ours}


def test_what_has_not_changed_is_not_read_again(database: Database, tmp_path: Path) -> None:
    said = [command("verify", "--dir", tmp_path).stdout for _ in range(2)]
    assert said == [
        "0 differences in 2 sessions\n",
        "0 differences in 2 sessions, of which 2 have not changed since they were last found right\n",
    ]
    log = tmp_path / "sessions" / "child" / "actions.jsonl"
    before = log.stat()
    change_byte(log)
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert command("verify", "--dir", tmp_path).stdout.startswith("sessions/child/actions.jsonl: differs at line 3\n")
    assert command("verify", "--full", "--dir", tmp_path).stdout.endswith("1 differences in 2 sessions\n")


def test_the_exit_code_says_whether_there_are_differences(database: Database, tmp_path: Path) -> None:
    assert command("verify", "--dir", tmp_path).returncode == 0
    (tmp_path / "sessions" / "child" / "state.json").unlink()
    done = command("verify", "--dir", tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert command("verify", "--nonsense").returncode == 2
    assert command("verify", "--dir", tmp_path / "nowhere").returncode == 1


def test_a_tree_goes_into_a_folder_that_is_not_there_yet(database: Database, tmp_path: Path) -> None:
    there, tree = ("--dir", database.path.parent), tmp_path / "for/the/archive"
    assert command("tree", "--to", tree, *there).returncode == 0
    assert command("verify", "--tree", tree, *there).returncode == 0


def test_a_tree_that_is_behind_without_a_server_differs(database: Database, tmp_path: Path) -> None:
    database.append(drafted("action", "parent", {"type": "x"}))
    assert set(differences(database.path, tmp_path)) == {
        ".mirror.json: has cursor 10, the database 11",
        "recent/01-child: missing",
        "recent/01-parent: missing",
        "recent/02-child: missing",
        "recent/02-parent: extra",
        "sessions/parent/actions.jsonl: short at line 1",
        "sessions/parent/events.jsonl: short at line 2",
        "sessions/parent/metadata.json: differs at line 6",
    } - {"recent/01-child: missing"} | {"recent/01-child: extra"}


@pytest.mark.long
def test_a_tree_that_a_server_keeps_is_compared_while_agents_write(tmp_path: Path) -> None:
    with Appliance(tmp_path) as server:
        ended = threading.Event()
        writing = threading.Thread(target=write_until, args=(server.url, ended))
        writing.start()
        log = tmp_path / "sessions" / "quiet" / "actions.jsonl"
        try:
            eventually(lambda: log.exists() and log.read_bytes())
            done = command("verify", "--full", "--dir", tmp_path)
            log.write_bytes(log.read_bytes().replace(b"first", b"wrong"))
            damaged = command("verify", "--dir", tmp_path)
        finally:
            ended.set()
            writing.join()
        assert done.returncode == 0, done.stdout
        assert re.match(r"0 differences in 4 sessions", done.stdout)
        assert damaged.returncode == 1
        assert damaged.stdout.splitlines()[0] == "sessions/quiet/actions.jsonl: differs at line 1"
        assert damaged.stdout.splitlines()[1].startswith("1 differences in 4 sessions")


def write_until(url: str, ended: threading.Event) -> None:
    with httpx.Client(base_url=url) as http:
        http.post("/api/actions/quiet", json={"type": "x", "text": "first"}).raise_for_status()
        while not ended.is_set():
            for number in range(3):
                http.post(f"/api/actions/busy-{number}", json={"type": "x"}).raise_for_status()


# ------------------------------------------------------------------ unasked


def health(server: Appliance) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{server.url}/health").json()
    return document


def metric(server: Appliance, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"sessionstore_{name}"))


def flip(database: Path, text: bytes) -> None:
    """Change one byte within a text, as a disk does that forgets."""
    content = database.read_bytes()
    place = content.index(text) + len(text) // 2
    database.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.long
def test_a_byte_that_the_disk_has_changed_is_found_unasked_and_said(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_VERIFY_EVERY": "1s"}) as server:
        body = {"type": "note", "text": "needle-in-a-text-of-an-event"}
        assert httpx.post(f"{server.url}/api/actions/s", json=body).status_code == 200
        eventually(lambda: health(server)["verify"]["status"] == "ok")
        assert health(server)["checks"]["verify"] == "pass" and metric(server, "verify_differences") == 0
        assert metric(server, "verify_last_timestamp_seconds") > 1.7e9
        server.stop()
        flip(folder / "sessions.db", b"needle-in-a-text-of-an-event")
        server.start(until="/ready")
        eventually(lambda: health(server)["verify"]["status"] == "failed", 30)
        found = health(server)
        assert found["checks"]["verify"] == "warn" and "sessions/s/" in found["verify"]["error"]
        assert metric(server, "verify_differences") > 0
        eventually(lambda: "verify --full" in server.output)
        assert server.output.count("The verification has found") == 1
        ended = command("verify", "--dir", folder, "--full")
        assert ended.returncode == 1 and "sessions/s/events.jsonl: differs at line 2" in ended.stdout


def test_without_a_tree_what_sqlite_can_find_is_found(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_VERIFY_EVERY": "1s", "SESSIONS_TREE": "off"}) as server:
        httpx.post(f"{server.url}/api/actions/s", json={"type": "note"})
        eventually(lambda: health(server)["verify"]["status"] == "ok")
        (verify,) = [health(server)["verify"]]
        assert verify["error"] is None


@pytest.mark.long
def test_what_keeps_it_from_being_compared_is_said(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_VERIFY_EVERY": "1s"}) as server:
        eventually(lambda: health(server)["verify"]["status"] == "ok")
        (folder / ".compared.json").unlink()
        (folder / ".compared.json.part").mkdir()  # in the way of what is noted
        eventually(lambda: ".compared.json" in (health(server)["verify"]["error"] or ""), 30)
        assert health(server)["verify"]["status"] == "failed" and metric(server, "verify_failing") == 1
        (folder / ".compared.json.part").rmdir()
        eventually(lambda: health(server)["verify"]["status"] == "ok", 30)
        assert server.output.count("The verification failed") <= 2


def test_it_can_be_left_to_others(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_VERIFY_EVERY": "off"}) as server:
        assert health(server)["verify"] == {"status": "off", "last": None, "error": None}
        assert command("verify", "--dir", folder, "--full").returncode == 0
        assert health(server)["verify"]["last"] is not None and metric(server, "verify_differences") == 0


@pytest.mark.parametrize("is_killed", marked([False, True], long={True}))
def test_the_end_of_the_server_is_that_of_a_comparison(folder: Path, is_killed: bool) -> None:
    with Appliance(folder, {"SESSIONS_VERIFY_EVERY": "1s"}) as server:
        lines = b'{"type":"action","sessionId":"s","data":{"type":"x"}}\n' * 20_000
        headers = {"content-type": "application/x-ndjson"}
        httpx.post(f"{server.url}/api/events", content=lines, headers=headers, timeout=60)
        eventually(lambda: children_of(server.process.pid), 30)
        (child, *_) = children_of(server.process.pid)
        assert is_running(child)
        if is_killed:
            server.kill()
        else:
            assert server.stop().seconds < 10
        eventually(lambda: not is_running(child))


def test_a_folder_without_a_store_is_named_with_the_setting(tmp_path: Path) -> None:
    for name in ("verify", "backup", "tree"):
        ended = command(name, "--dir", tmp_path / "nowhere", *([tmp_path / "copy.db"] if name == "backup" else []))
        assert ended.returncode == 1 and str(tmp_path / "nowhere") in ended.stderr, ended
        assert name == "backup" or "SESSIONS_DIR" in ended.stderr
