"""The server keeps the file tree: soon, after whatever end, and never at the cost of its agents."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.settings import Settings
from sessionstore.upkeep.tree import Mirror
from tests.appliance import Appliance
from tests.databases import Database, drafted
from tests.peers import descriptors_of, eventually
from tests.repeats import repeated
from tests.trees import contents, differences, tree_in, write_tree

DISK_BYTES = 1 << 20


def post(server: Appliance, session: str, **members: Any) -> int:
    """The cursor of an action that was stored."""
    answer = httpx.post(f"{server.url}/api/actions/{session}", json={"type": "x"} | members)
    cursor: int = answer.raise_for_status().json()["cursor"]
    return cursor


def health(server: Appliance) -> dict[str, Any]:
    tree: dict[str, Any] = httpx.get(f"{server.url}/health").json()["tree"]
    return tree


def metric(server: Appliance, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"sessionstore_{name}"))


def is_level(server: Appliance) -> bool:
    answer = httpx.get(f"{server.url}/health").json()
    return bool(answer["tree"]["cursor"] == answer["cursor"] and answer["tree"]["status"] == "ok")


# ------------------------------------------------------------------- following


def test_the_tree_follows_what_is_written(tmp_path: Path) -> None:
    log = tmp_path / "sessions" / "s" / "actions.jsonl"
    with Appliance(tmp_path) as server:
        for number in range(1, 6):
            post(server, "s", number=number)
            eventually(lambda number=number: log.exists() and log.read_bytes().count(b"\n") == number)  # type: ignore[misc]
        eventually(lambda: is_level(server))
        assert health(server) == {"status": "ok", "cursor": 6, "lag": 0, "error": None}
        assert metric(server, "export_lag_events") == metric(server, "export_lag_seconds") == 0
        httpx.delete(f"{server.url}/api/sessions/s").raise_for_status()
        eventually(lambda: not log.parent.exists())
        eventually(lambda: is_level(server))
        assert not list((tmp_path / "recent").iterdir())


def test_the_tree_is_whole_when_the_server_has_ended(tmp_path: Path) -> None:
    with Appliance(tmp_path) as server:
        lines = "".join(f'{{"type":"action","sessionId":"s{n % 7}","data":{{"type":"x"}}}}\n' for n in range(5000))
        headers = {"content-type": "application/x-ndjson"}
        httpx.post(f"{server.url}/api/events", content=lines, headers=headers).raise_for_status()
        assert server.stop().code == 0
    assert not (tmp_path / "sessions.db-wal").exists()
    assert differences(tmp_path / "sessions.db", tmp_path) == []


def test_what_came_while_the_tree_was_off_is_caught_up_with(tmp_path: Path) -> None:
    with Appliance(tmp_path, {"SESSIONS_TREE": "off"}) as server:
        post(server, "s")
        assert health(server) == {"status": "off", "cursor": 0, "lag": 0, "error": None}
    assert not (tmp_path / "sessions").exists() and not (tmp_path / ".mirror.json").exists()
    with Appliance(tmp_path) as server:
        eventually(lambda: is_level(server))
    assert differences(tmp_path / "sessions.db", tmp_path) == []


def test_the_database_is_opened_by_nobody_but_sqlite(tmp_path: Path) -> None:
    """A second name of it, planted in the tree, is not even opened: closing it would drop SQLite's locks."""
    with Appliance(tmp_path) as server:
        post(server, "s")
        eventually(lambda: is_level(server))
        before = sorted(target for target in descriptors_of(server.process.pid) if "sessions.db" in target)
        state = tmp_path / "sessions" / "s" / "metadata.json"
        state.unlink()
        state.hardlink_to(tmp_path / "sessions.db")
        post(server, "s")
        eventually(lambda: is_level(server))
        assert (tmp_path / "set-aside" / "s.metadata.json.1").samefile(tmp_path / "sessions.db")
        assert sorted(target for target in descriptors_of(server.process.pid) if "sessions.db" in target) == before
        locks = Path("/proc/locks").read_text()
        inode = (tmp_path / "sessions.db").stat().st_ino
        assert [line for line in locks.splitlines() if f"{server.process.pid} " in line and f":{inode} " in line]
    assert (tmp_path / "sessions.db").read_bytes().startswith(b"SQLite format 3")


# ------------------------------------------------------------------------ kills


@repeated("kills", many=10, variable="TREE_KILLS")
def test_a_tree_outlives_kills_in_the_middle_of_it(tmp_path: Path, kills: int) -> None:
    moments = random.Random(7)
    with Appliance(tmp_path / "store") as server:
        for _ in range(kills):
            ended = threading.Event()
            writing = threading.Thread(target=write_until, args=(server.url, ended, moments.randrange(1 << 30)))
            writing.start()
            time.sleep(moments.uniform(0.2, 1.2))
            server.kill()
            ended.set()
            writing.join()
            server.start(until="/ready")
        eventually(lambda: is_level(server))
        cursor = health(server)["cursor"]
    assert cursor > kills
    assert differences(tmp_path / "store" / "sessions.db", tmp_path / "store") == []
    made = write_tree(tmp_path / "store" / "sessions.db", tmp_path / "made")
    made.pop("skipped")
    assert tree_in(tmp_path / "store") == {path: found for path, found in made.items() if not path.startswith(".")}


def write_until(url: str, ended: threading.Event, seed: int) -> None:
    """All kinds of writes, until the server is gone."""
    choices = random.Random(seed)
    with httpx.Client(base_url=url) as http, suppress(httpx.HTTPError):
        while not ended.is_set():
            name = f"s{choices.randrange(6)}"
            match choices.randrange(7):
                case 0:
                    http.patch(f"/api/state/{name}", json={"phase": "x" * choices.randrange(20_000)})
                case 1:
                    http.put(
                        f"/api/sessions/{name}", json={"userId": "alice", "parentSession": f"s{choices.randrange(6)}"}
                    )
                case 2:
                    http.delete(f"/api/sessions/{name}")
                case 3:
                    http.post(f"/api/sessions/{name}/finalize", json={"outcome": "x"})
                case _:
                    http.post(f"/api/actions/{name}", json={"type": "x", "text": "é" * choices.randrange(20_000)})


def test_what_a_kill_leaves_of_half_a_file_is_mended(tmp_path: Path) -> None:
    """As it would be found after a power cut, which can leave less than a kill does."""
    with Appliance(tmp_path) as server:
        post(server, "s")
        eventually(lambda: is_level(server))
        mark = (tmp_path / ".mirror.json").read_bytes()
        for number in range(3):
            post(server, "s", number=number)
        eventually(lambda: is_level(server))
        server.kill()
        (tmp_path / ".mirror.json").write_bytes(mark)
        for log in (tmp_path / "sessions" / "s").glob("*.jsonl"):
            os.truncate(log, max(0, log.stat().st_size - 20))
        (tmp_path / "sessions" / "s" / "metadata.json").write_bytes(b"")
        (tmp_path / "sessions" / ".new" / "7").write_text("half")
        server.start()
        eventually(lambda: is_level(server))
    assert differences(tmp_path / "sessions.db", tmp_path) == []
    assert not list((tmp_path / "sessions" / ".new").iterdir())


def test_a_hole_that_a_power_cut_leaves_in_a_log_is_found(tmp_path: Path) -> None:
    """How the log ends is as it should be."""
    with Appliance(tmp_path) as server:
        post(server, "s")
        eventually(lambda: is_level(server))
        mark = (tmp_path / ".mirror.json").read_bytes()
        for number in range(3):
            post(server, "s", text="x" * 5000, number=number)
        eventually(lambda: is_level(server))
        server.kill()
        (tmp_path / ".mirror.json").write_bytes(mark)
        for log in (tmp_path / "sessions" / "s").glob("*.jsonl"):
            if log.stat().st_size > 10_000:
                spoil(log, 7000)
        server.start()
        eventually(lambda: is_level(server))
    assert differences(tmp_path / "sessions.db", tmp_path) == []
    assert list((tmp_path / "set-aside").iterdir()), "the hole was there"


def spoil(log: Path, offset: int) -> None:
    with log.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(512))


def test_what_a_database_that_is_served_has_lost_is_set_aside(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("action", "s", {"type": "x"}))
    write_tree(database.path, tmp_path)
    with (tmp_path / "sessions" / "s" / "events.jsonl").open("a") as log:
        log.write('{"cursor":3,"type":"action","sessionId":"s","lost":true}\n')
    (tmp_path / ".mirror.json").write_text('{"cursor":3}')
    mirror = Mirror(Settings(directory=tmp_path))
    mirror.start(2)
    cursor = database.append(drafted("action", "s", {"type": "y"}, event_id="later")).event.cursor
    mirror.wake(cursor)
    eventually(lambda: mirror.cursor == cursor)
    mirror.stop()
    assert mirror.error is None
    assert differences(database.path, tmp_path) == []
    assert b'"lost":true' in (tmp_path / "set-aside" / "s.events.jsonl.1").read_bytes()
    database.close()


# --------------------------------------------------------------------- trouble


def test_a_tree_that_cannot_be_written_holds_nobody_up_and_heals(tmp_path: Path) -> None:
    with Appliance(tmp_path) as server:
        post(server, "s")
        eventually(lambda: is_level(server))
        (tmp_path / "set-aside").write_text("in the way of what is in the way")
        (tmp_path / "sessions").rename(tmp_path / "moved")
        (tmp_path / "sessions").write_text("in the way")
        server.kill()
        server.start(until="/ready")
        eventually(lambda: health(server)["status"] == "failed")
        cursor = post(server, "s")
        assert "set-aside" in health(server)["error"]
        assert health(server)["lag"] >= 1
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
        assert metric(server, "export_errors_total") >= 1
        assert metric(server, "export_lag_events") >= 1 and metric(server, "export_lag_seconds") > 0
        (tmp_path / "set-aside").unlink()
        eventually(lambda: is_level(server))
        assert health(server)["cursor"] == cursor
    assert (tmp_path / "set-aside" / "sessions.1").read_text() == "in the way"
    assert differences(tmp_path / "sessions.db", tmp_path) == []


def test_a_session_that_cannot_be_written_is_said_and_tried_again(tmp_path: Path) -> None:
    """A mount in its place can neither be written to nor set aside; the others go on."""
    with Appliance(tmp_path) as server, obstacle(tmp_path / "sessions" / "s"):
        post(server, "s")
        post(server, "other")
        eventually(lambda: (tmp_path / "sessions" / "other" / "metadata.json").exists())
        eventually(lambda: health(server)["status"] == "failed")
        assert "s: " in health(server)["error"]
        assert not (tmp_path / "sessions" / "s" / "events.jsonl").exists()
    with Appliance(tmp_path) as server:
        eventually(lambda: is_level(server))
    assert differences(tmp_path / "sessions.db", tmp_path) == []


@contextmanager
def obstacle(path: Path) -> Iterator[None]:
    """Another file system in the place of a folder, with something in it; where nothing can be mounted, the folder of
    an id that differs in case only, as a file system that ignores case would give it."""
    path.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], capture_output=True).returncode == 0:
        try:
            (path / "theirs").touch()
            yield
        finally:
            subprocess.run(["umount", path], check=True)
        return
    events = path / "events.jsonl"
    events.write_text('{"cursor":1,"type":"session_created","sessionId":"S",\n')
    yield
    events.unlink()


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", path], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_under_the_tree_is_a_pause(tmp_path: Path) -> None:
    ballast = tmp_path / "sessions" / ".ballast"
    with small_disk(tmp_path / "sessions"), Appliance(tmp_path) as server:
        ballast.write_bytes(b"x" * (DISK_BYTES - (128 << 10)))
        for _ in range(8):
            cursor = post(server, "s", text="x" * 50_000)
        eventually(lambda: health(server)["status"] == "failed")
        assert "No space left" in health(server)["error"]
        assert metric(server, 'export_errors_total{errno="ENOSPC"}') >= 1
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert post(server, "other") == cursor + 2
        for document in (tmp_path / "sessions").glob("*/*.json"):
            assert document.read_bytes().endswith(b"}\n")
        os.truncate(ballast, 0)
        eventually(lambda: is_level(server))
        ballast.unlink()
        server.stop()
        assert differences(tmp_path / "sessions.db", tmp_path) == []


def test_the_mirror_leaves_alone_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "sessions" / "s").mkdir(parents=True)
    (tmp_path / "sessions" / "notes.txt").write_text("mine")
    (tmp_path / "recent").mkdir()
    (tmp_path / "recent" / "notes.txt").write_text("mine")
    with Appliance(tmp_path) as server:
        post(server, "s")
        eventually(lambda: is_level(server))
        (tmp_path / "sessions" / "s" / "notes.txt").write_text("mine")
        post(server, "s")
        eventually(lambda: is_level(server))
    mine = {path: found for path, found in contents(tmp_path).items() if path.endswith("notes.txt")}
    assert mine == {
        "recent/notes.txt": b"mine",
        "sessions/notes.txt": b"mine",
        "sessions/s/notes.txt": b"mine",
    }
