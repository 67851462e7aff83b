"""A store that an earlier version has filled is served as if nothing had happened: tests/upgrade holds such stores.

Each archive has a database as its server left it, what that server answered about it, and the newer ones its tree.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.store.schema import MIGRATIONS, open_writer
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done
from tests.peers import eventually
from tests.repeats import marked
from tests.trees import contents, temporary_folder

ARCHIVES = sorted((Path(__file__).parent / "upgrade").glob("*.tar.xz"), key=lambda path: (len(path.name), path.name))
NEWEST = len(MIGRATIONS) + 1
LOGGED = ("/api/events", "/api/actions")
"""What is answered of these is the events themselves, which stay as they are to the letter."""
TOLD = ("events.jsonl", "actions.jsonl", "responses.jsonl", "initial.json", "state.json", "final.json", "deleted.jsonl")
"""The files of a tree that have what was said; in the others there is more now."""


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """A client of a server of today over it, and the answers of then, by their paths."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    answers = json.loads((tmp_path / "answers.json").read_text())
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        yield http, answers


def test_it_answers_as_before(upgraded: tuple[httpx.Client, dict[str, Any]]) -> None:
    http, answers = upgraded
    assert len(answers) > 30
    for path, answer in answers.items():
        now = http.get(path).raise_for_status().json()
        assert now == answer if path.startswith(LOGGED) else has_all(now, answer), path


def has_all(now: Any, then: Any) -> bool:
    """Whether every member is as it was: there may be more of them now."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and has_all(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(has_all, now, then))
    return bool(now == then)


def test_a_member_that_is_missed_is_noticed() -> None:
    assert has_all({"a": [{"b": 1, "new": 2}]}, {"a": [{"b": 1}]})
    assert not has_all({"a": [{"b": 1}]}, {"a": [{"b": 1, "old": 2}]})
    assert not has_all({"a": [{"b": 1}]}, {"a": [{"b": 2}]})


def test_it_takes_up_where_it_was(upgraded: tuple[httpx.Client, dict[str, Any]], tmp_path: Path) -> None:
    http, answers = upgraded
    again = {"type": "file_write", "path": "a0.py", "lines": 0, "eventId": "e-0"}
    assert http.post("/api/actions/built", json=again).json()["seq"] == 1
    added = http.post("/api/actions/built", json={"type": "after"}).raise_for_status().json()
    assert added["seq"] == 4
    assert added["cursor"] == answers["/api/events?limit=1000"]["nextAfter"] + 1
    eventually(lambda: http.get("/health").json()["tree"]["lag"] == 0)
    is_done(export(tmp_path, "verify"))


# ------------------------------------------------------------------------ the tree


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder


def told_in(folder: Path) -> dict[str, bytes | str]:
    return {path: content for path, content in contents(folder).items() if path.endswith(TOLD)}


def timeline_of(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return [text for (text,) in connection.execute("SELECT document FROM timeline ORDER BY cursor")]
    finally:
        connection.close()


def test_a_tree_of_then_is_that_of_now_and_comes_back_as_it_was(tmp_path: Path) -> None:
    """Nothing is known of who wrote what was written before anybody was noted, and so nothing is said of it."""
    then = unpacked(ARCHIVES[-1], tmp_path / "then")
    told, before = told_in(then), timeline_of(then / "sessions.db")
    assert len(told) > 30 and not any('"actor"' in event for event in before)
    with Appliance(then) as appliance, httpx.Client(base_url=appliance.url) as http:
        http.post("/api/actions/new", json={"type": "x"}).raise_for_status()
        eventually(lambda: http.get("/health").json()["tree"]["lag"] == 0)
    now = told_in(then)
    assert {path: now[path] for path in told} == told
    assert b'"actor":null' in (then / "sessions/new/events.jsonl").read_bytes()
    (tmp_path / "back").mkdir()
    assert export(tmp_path / "back", "restore", str(then)).returncode == 0
    assert timeline_of(tmp_path / "back/sessions.db") == timeline_of(then / "sessions.db")
    assert timeline_of(then / "sessions.db")[: len(before)] == before


# ----------------------------------------------------------------- a migration dies

DYING = """
import os, resource, shutil, signal, sqlite3, sys
from pathlib import Path
from sessionstore.store.schema import open_writer, prepare_writer

source, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def dies(kind, at):
    "Whether the migration is killed: at a statement, or at the byte of the log that it is about to write."
    path = folder / f"{kind}-{at}.db"
    shutil.copy(source, path)
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    connection, told = sqlite3.connect(path, isolation_level=None), [0]
    def count(statement):
        told[0] += 1
        if told[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "statement":
        connection.set_trace_callback(count)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    prepare_writer(connection, "full")
    os._exit(0)

for kind, step in (("statement", 9 * steps), ("byte", 8000 * steps)):
    at = 1 if kind == "statement" else 33_000
    while dies(kind, at):
        at += step
"""


@pytest.mark.parametrize("steps", marked([1, 2], long=[1]))
def test_a_migration_that_is_killed_anywhere_loses_nothing(tmp_path: Path, steps: int) -> None:
    source = unpacked(ARCHIVES[0], tmp_path / "then") / "sessions.db"
    wanted, (version,) = timeline_of(source), the_only(source, "PRAGMA user_version")
    with temporary_folder() as killed:
        subprocess.run([sys.executable, "-c", DYING, source, killed, str(steps)], check=True, cwd=REPOSITORY)
        check_killed(killed, wanted, version)


def check_killed(folder: Path, wanted: list[str], version: int) -> None:
    found = {path: the_only(path, "PRAGMA user_version")[0] for path in folder.glob("*.db")}
    for kind in ("statement", "byte"):
        assert len([path for path in found if path.name.startswith(kind)]) > 10
    assert set(found.values()) == {version, NEWEST}
    for path, reached in found.items():
        assert timeline_of(path) == wanted
        assert reached == NEWEST or "actor" not in the_only(path, SAID_OF_EVENTS)[0]
        open_writer(path, durability="normal").close()
        assert (timeline_of(path), the_only(path, "PRAGMA user_version")) == (wanted, (NEWEST,)), path
        assert the_only(path, "PRAGMA integrity_check") == ("ok",) and "actor" in the_only(path, SAID_OF_EVENTS)[0]


SAID_OF_EVENTS = "SELECT sql FROM sqlite_schema WHERE name = 'events'"


def the_only(database: Path, query: str) -> Any:
    connection = sqlite3.connect(database)
    try:
        (row,) = connection.execute(query)
        return row
    finally:
        connection.close()
