"""What brings a store back: backups, archives, and the ways out that a server names which does not serve."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.store import high_water_mark as mark
from tests.appliance import Appliance
from tests.commands import export, is_done, is_refused
from tests.repeats import marked

FAR = "2999-01-01"
COMMAND = re.compile(r"`python -m export ([^`]*)`")


class Store:
    """A folder, a server on it when it is started, and its backups."""

    def __init__(self, path: Path, **environment: str) -> None:
        self.folder = path / "store"
        self.backups = path / "backups"
        self.environment = {"SESSIONS_BACKUP_DIR": str(self.backups), "SESSIONS_BACKUP_EVERY": "1h", **environment}
        self.appliance = Appliance(self.folder, self.environment)

    def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        return httpx.request(method, self.appliance.url + path, json=body)

    def log(self, session_id: str = "s", number: int = 1) -> int:
        for _ in range(number):
            cursor = self.call("POST", f"/api/actions/{session_id}", {"type": "x", "text": "y" * 500}).json()["cursor"]
        return int(cursor)

    def health(self) -> Any:
        return self.call("GET", "/health").json()

    def events(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.call("GET", "/api/events?limit=1000").json()["items"]
        return items

    def export(self, *arguments: str | Path) -> Any:
        return export(self.folder, *arguments, **self.environment)

    def way_out(self) -> list[str]:
        """The first command that the server names."""
        assert self.call("GET", "/ready").status_code == 503
        found = COMMAND.search(self.call("GET", "/ready").json()["detail"])
        assert found is not None
        return shlex.split(found[1])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    with store.appliance:
        yield store


@pytest.fixture
def without_tree(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, SESSIONS_TREE="off")
    with store.appliance:
        yield store


def remove_database(store: Store) -> None:
    for path in store.folder.glob("sessions.db*"):
        path.unlink()


def spoil_database(store: Store) -> None:
    path = store.folder / "sessions.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(path.stat().st_size - 4096))


# ------------------------------------------------------- the ways out of a finding


HARMS = pytest.mark.parametrize("harm", marked([spoil_database, remove_database], long=[remove_database]))


@HARMS
def test_the_way_out_that_is_named_brings_all_back_from_the_tree(store: Store, harm: Any) -> None:
    store.log(number=30)
    events = store.events()
    store.appliance.stop()
    harm(store)
    store.appliance.start()
    command = store.way_out()
    assert command[:2] == ["restore", str(store.folder)]
    store.appliance.stop()
    assert is_done(store.export(*command))
    store.appliance.start(until="/ready")
    assert store.events() == events
    assert store.log() == events[-1]["cursor"] + 1


@HARMS
def test_the_way_out_that_is_named_brings_back_what_a_backup_has(without_tree: Store, harm: Any) -> None:
    store = without_tree
    store.log(number=30)
    store.appliance.stop()
    assert is_done(store.export("backup", store.backups / "mine.db"))
    store.appliance.start()
    events = store.events()
    store.appliance.stop()
    harm(store)
    store.appliance.start()
    command = store.way_out()
    assert command[:2] == ["restore", str(store.backups / "mine.db")]
    store.appliance.stop()
    assert is_done(store.export(*command))
    store.appliance.start(until="/ready")
    assert store.events() == events


def test_a_backup_with_less_than_was_seen_is_not_served_before_somebody_says_so(without_tree: Store) -> None:
    store = without_tree
    kept = store.log(number=10)
    assert is_done(store.export("backup", store.backups / "mine.db"))
    lost = store.log(number=5)
    store.appliance.stop()
    remove_database(store)
    ended = store.export("restore", store.backups / "mine.db")
    assert ended.returncode == 0 and "accept-loss" in ended.stderr
    store.appliance.start()
    assert (store.health()["database"]["status"], store.health()["cursor"]) == ("behind", kept)
    assert is_refused(store.export("accept-loss"), "has the folder")
    store.appliance.stop()
    assert is_done(ended := store.export("accept-loss")) and str(lost) in ended.stdout
    assert is_refused(store.export("accept-loss"), "no loss to accept")
    store.appliance.start(until="/ready")
    assert store.log() == lost + 1, "no cursor is given twice"
    store.appliance.stop()
    assert is_refused(store.export("accept-loss"), "no loss to accept")


@pytest.mark.long
def test_a_loss_that_is_accepted_leaves_a_tree_that_tells_of_the_database_again(store: Store) -> None:
    store.log(number=10)
    assert is_done(store.export("backup", store.backups / "mine.db"))
    lost = store.log("lost", number=5)
    store.appliance.stop()
    assert is_done_or_says(store.export("restore", store.backups / "mine.db", "--force"), "--newer")
    assert is_done(store.export("accept-loss"))
    store.appliance.start(until="/ready")
    assert store.log() == lost + 1
    store.appliance.stop()
    assert is_done(store.export("tree"))
    assert is_done(store.export("verify", "--full"))
    assert list((store.folder / "set-aside").glob("*lost*/events.jsonl")), "it may be all that is left of it"


def is_done_or_says(ended: Any, word: str) -> bool:
    assert ended.returncode == 0, ended
    return word in ended.stderr


def test_damage_is_not_a_loss_that_can_be_accepted(store: Store) -> None:
    store.log()
    store.appliance.stop()
    spoil_database(store)
    assert is_refused(store.export("accept-loss"), "damaged", "python -m export restore")


# -------------------------------------------------------------------- backups


def test_a_database_that_is_there_is_put_beside_and_only_when_told(store: Store) -> None:
    store.log(number=3)
    assert is_done(store.export("backup", store.backups / "mine.db"))
    store.log("later")
    assert is_refused(store.export("restore", store.backups / "mine.db", "--force"), "has the folder")
    store.appliance.stop()
    before = (store.folder / "sessions.db").read_bytes()
    assert is_refused(store.export("restore", store.backups / "mine.db"), "--force")
    assert (store.folder / "sessions.db").read_bytes() == before
    assert store.export("restore", store.backups / "mine.db", "--force").returncode == 0
    (beside,) = store.folder.glob("sessions.db.before-restore-*")
    assert beside.read_bytes() == before
    assert not list(store.folder.glob("*.part*"))


@pytest.mark.parametrize("offset", marked([100, 60_000], long=[60_000]))
def test_a_backup_that_has_changed_is_not_restored(store: Store, tmp_path: Path, offset: int) -> None:
    store.log(number=100)
    copy = tmp_path / "copy.db"
    assert is_done(store.export("backup", copy))
    with copy.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    assert export(tmp_path / "new", "restore", copy).returncode == 1
    assert not list((tmp_path / "new").glob("sessions.db*"))


def test_a_backup_can_go_to_another_folder_also_without_its_manifest(store: Store, tmp_path: Path) -> None:
    cursor = store.log(number=3)
    assert is_done(store.export("backup", tmp_path / "copy.db"))
    (tmp_path / "copy.db.json").unlink()
    assert is_done(store.export("restore", tmp_path / "copy.db", "--into", tmp_path / "new"))
    with Appliance(tmp_path / "new") as appliance:
        assert httpx.get(f"{appliance.url}/health").json()["cursor"] == cursor


@pytest.mark.parametrize("content", [b"", b"neither of them", b"\x1f\x8bnot really"])
def test_what_cannot_be_restored_is_said(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    assert is_refused(export(tmp_path / "new", "restore", source), str(source))
    assert is_refused(export(tmp_path / "new", "restore", tmp_path / "nothing"), "nothing")
    assert not (tmp_path / "new" / "sessions.db").exists()


# -------------------------------------------------------------------- archives


def without_cursors(value: Any) -> Any:
    """A document without what a store gives anew: cursors."""
    if isinstance(value, dict):
        return {name: without_cursors(held) for name, held in value.items() if name not in ("cursor", "lastCursor")}
    return [without_cursors(held) for held in value] if isinstance(value, list) else value


def live_through(store: Store, session_id: str) -> None:
    calls: tuple[tuple[str, str, object], ...] = (
        ("PUT", f"/api/sessions/{session_id}", {"userId": "älice", "initial": {"input": "x"}, "tags": ["a"]}),
        (
            "POST",
            f"/api/actions/{session_id}",
            {"type": "tool_call", "tool": "Bash", "timestamp": "2026-02-13T21:00:00+01:00"},
        ),
        ("POST", f"/api/actions/{session_id}/responses", {"type": "tool_result", "n": 2**60}),
        ("PATCH", f"/api/state/{session_id}", {"phase": "x", "nested": {"a": None}}),
        ("POST", f"/api/state/{session_id}/goals", {"description": "done"}),
        ("PATCH", f"/api/state/{session_id}/goals/goal-1", {"status": "completed"}),
        ("POST", f"/api/state/{session_id}/agents", {"type": "worker"}),
        ("PATCH", f"/api/sessions/{session_id}/metadata", {"tokenUsage.input": "+7"}),
        ("POST", f"/api/sessions/{session_id}/finalize", {"status": "failed", "outcome": {"why": "x"}}),
        ("PUT", f"/api/sessions/{session_id}", {"userId": "älice"}),
        ("POST", f"/api/sessions/{session_id}/finalize", None),
    )
    for method, path, body in calls:
        assert store.call(method, path, body).is_success, path


def test_archived_sessions_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        live_through(store, name)
    kept = store.log("stays")
    before = {name: store.call("GET", f"/api/sessions/{name}").json() for name in ("one", "two")}
    timelines = {name: store.call("GET", f"/api/sessions/{name}/events?limit=1000").json()["items"] for name in before}
    archives = tmp_path / "archives"
    store.appliance.stop()
    assert is_done(store.export("archive", "--before", FAR, "--to", archives, "--prune"))
    files = sorted(archives.iterdir())
    assert is_done(ended := store.export("restore", *files)) and "2 archives" in ended.stdout
    store.appliance.start(until="/ready")
    for name, session in before.items():
        assert without_cursors(store.call("GET", f"/api/sessions/{name}").json()) == without_cursors(session)
        timeline = store.call("GET", f"/api/sessions/{name}/events?limit=1000").json()["items"]
        assert without_cursors(timeline) == without_cursors(timelines[name])
        assert timeline[0]["cursor"] > kept
    store.appliance.stop()
    assert is_refused_with(store.export("restore", *files), "there is a session one already")
    store.appliance.start(until="/ready")
    assert store.call("GET", "/api/sessions/one").json()["metadata"]["actions"] == 1


def is_refused_with(ended: Any, words: str) -> bool:
    assert ended.returncode == 1, ended
    return words in ended.stdout


def test_of_several_archives_one_that_is_damaged_keeps_all_out(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        live_through(store, name)
    archives = tmp_path / "archives"
    assert is_done(store.export("archive", "--before", FAR, "--to", archives))
    first, second = sorted(archives.iterdir())
    second.write_bytes(second.read_bytes()[:-40])
    assert is_refused(export(tmp_path / "new", "restore", first, second), str(second))
    assert not (tmp_path / "new" / "sessions.db").exists()
    assert is_done(export(tmp_path / "new", "restore", first))
    with closing(sqlite3.connect(tmp_path / "new" / "sessions.db")) as connection:
        assert connection.execute("SELECT session_id FROM sessions").fetchall() == [("one",)]
        newest = connection.execute("SELECT max(cursor) FROM events").fetchone()[0]
    assert mark.read_newest(tmp_path / "new").cursor == newest


# ------------------------------------------------------- archives of strangers


def line_of(session_id: str, cursor: int, type_: str = "action", **members: Any) -> bytes:
    data = {"seq": cursor, "type": "x"} if type_ == "action" else {"initial": {}}
    event = {
        "cursor": cursor,
        "type": type_,
        "sessionId": session_id,
        "userId": "mallory",
        "eventId": f"e-{cursor}",
        "agentId": None,
        "timestamp": "2026-02-14T00:00:00.000Z",
        "receivedAt": "2026-02-14T00:00:00.000Z",
        "data": data,
    }
    return json.dumps(event | members).encode() + b"\n"


def forged(path: Path, session_id: str, content: bytes, **files: bytes) -> Path:
    """An archive with these events whose manifest has the right sums."""
    named = {"events.jsonl": content} | {name.replace("_", "."): text for name, text in files.items()}
    sums = {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in named.items()}
    manifest = {"$schema": "session-archive-v1", "sessionId": session_id, "lastCursor": 9, "files": sums}
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, text in {**named, "manifest.json": json.dumps(manifest).encode()}.items():
            member = tarfile.TarInfo(f"o-1/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return path


OWN = line_of("o-1", 1, "session_created") + line_of("o-1", 2)
FORGERIES = {
    "an event of another session": (OWN + line_of("victim-1", 3, "session_created"), "victim-1"),
    "a word in a session that is there": (OWN + line_of("t-1", 3), "t-1"),
    "a deletion of another": (OWN + line_of("t-1", 3, "session_deleted", data={}), "t-1"),
    "a deletion of its own": (OWN + line_of("o-1", 3, "session_deleted", data={}), "deletes"),
    "no event": (OWN + b"{}\n", "not an event"),
    "a time that is none": (OWN + line_of("o-1", 3, receivedAt="yesterday"), "is no time"),
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that has ended, and has the session t-1."""
    store = Store(tmp_path_factory.mktemp("lived"))
    with store.appliance:
        live_through(store, "t-1")
    return store.folder


@pytest.mark.parametrize("name", FORGERIES)
def test_an_archive_brings_back_its_own_session_and_no_other(lived: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(lived, tmp_path / "sessions", symlinks=True)
    content, said = FORGERIES[name]
    good = forged(tmp_path / "good.tar.gz", "o-1", OWN)
    before = (folder / "sessions.db").read_bytes()
    assert is_refused(export(folder, "restore", good, forged(tmp_path / "bad.tar.gz", "o-1", content)), said)
    assert (folder / "sessions.db").read_bytes() == before, "not even the good one was written"
    assert is_done(export(folder, "restore", good))


def test_an_archive_of_two_folders_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "two.tar.gz", "o-2", line_of("o-2", 1, "session_created"))
    assert is_refused(export(tmp_path / "new", "restore", path), "more than the session 'o-2'")


def endless(path: Path, head: tarfile.TarInfo, size: int) -> Path:
    """An archive that begins with this head and so many zeros."""
    head.size = size
    mebibyte = gzip.compress(bytes(1 << 20), compresslevel=1)
    path.write_bytes(gzip.compress(head.tobuf(tarfile.USTAR_FORMAT)) + mebibyte * (size >> 20))
    return path


def endless_line(path: Path) -> Path:
    return forged(path, "o-1", OWN + b" " * (400 << 20))


def endless_manifest(path: Path) -> Path:
    return endless(path, tarfile.TarInfo("o-1/manifest.json"), 400 << 20)


def endless_head(path: Path) -> Path:
    head = tarfile.TarInfo("o-1/x")
    head.type = tarfile.XHDTYPE
    return endless(path, head, 400 << 20)


def endless_name(path: Path) -> Path:
    head = tarfile.TarInfo("././@LongLink")
    head.type = tarfile.GNUTYPE_LONGNAME
    return endless(path, head, 400 << 20)


ENDLESS = [endless_line, endless_head, endless_manifest, endless_name]


@pytest.mark.parametrize("make", marked(ENDLESS, long=ENDLESS[2:]))
def test_an_archive_that_unpacks_to_very_much_takes_little_memory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "bomb.tar.gz")
    assert path.stat().st_size < 4 << 20
    command = ["prlimit", f"--as={350 << 20}", sys.executable, "-m", "export", "restore", str(path)]
    environment = {**os.environ, "SESSIONS_DIR": str(tmp_path / "new")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert is_refused(ended, str(path))


def test_a_store_that_is_not_sound_is_neither_pruned_nor_added_to(without_tree: Store, tmp_path: Path) -> None:
    store = without_tree
    live_through(store, "one")
    assert is_done(store.export("archive", "--before", FAR, "--to", tmp_path / "archives"))
    assert is_done(store.export("backup", tmp_path / "copy.db"))
    lost = store.log(number=3)
    store.appliance.stop()
    assert store.export("restore", tmp_path / "copy.db", "--force").returncode == 0
    before = (store.folder / "sessions.db").read_bytes()
    prune = ("archive", "--before", FAR, "--to", tmp_path / "archives", "--prune")
    assert is_refused(store.export(*prune), "accept-loss")
    assert is_refused(store.export("restore", *(tmp_path / "archives").iterdir()), "accept-loss")
    assert (store.folder / "sessions.db").read_bytes() == before
    assert is_done(store.export("accept-loss"))
    assert is_done(store.export(*prune))
    assert mark.read_newest(store.folder).cursor == lost + 1, "no cursor is given twice"
    store.appliance.start(until="/ready")
    assert store.log() == lost + 3  # the session is created anew


def test_what_cannot_be_meant_so_is_exit_code_2(store: Store, tmp_path: Path) -> None:
    live_through(store, "one")
    assert is_done(store.export("archive", "--before", FAR, "--to", tmp_path / "archives"))
    assert is_done(store.export("backup", tmp_path / "copy.db"))
    (session,) = (tmp_path / "archives").iterdir()
    for arguments in (
        (tmp_path / "copy.db", "--newer"),
        (tmp_path / "copy.db", session),
        (session, "--force"),
        (store.folder, store.folder),
        (),
    ):
        assert store.export("restore", *arguments, "--into", tmp_path / "new").returncode == 2, arguments
    assert not (tmp_path / "new").exists()
