"""One session as one tar: what it holds, how it is kept, and when it may leave the store."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from containers.langgraph_checkpointer import SessionStoreSaver
from export import archive, layout
from sessionstore.admin import prune
from sessionstore.settings import Settings
from sessionstore.store.material import stamp_of
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done, is_refused
from tests.databases import Database
from tests.peers import eventually

ADMIN = "admin-token-of-this-test"
FAR = "2999-01-01"
NAMES = [
    "actions.jsonl",
    "events.jsonl",
    "final.json",
    "initial.json",
    "metadata.json",
    "responses.jsonl",
    "state.json",
]


def enter(
    http: httpx.Client, session_id: str, *, entries: int = 5, parent: str | None = None, ends: bool = True
) -> None:
    body = {"userId": "alice", "initial": {"input": "ünïcode"}} | ({"parentSession": parent} if parent else {})
    assert http.put(f"/api/sessions/{session_id}", json=body).status_code == 201
    lines = "".join(
        json.dumps({"type": "action", "sessionId": session_id, "data": {"type": "file_write", "text": "é" * n}}) + "\n"
        for n in range(entries)
    )
    answer = http.post("/api/events", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["accepted"] == entries
    http.post(f"/api/actions/{session_id}/responses", json={"type": "tool_result"})
    if ends:
        assert http.post(f"/api/sessions/{session_id}/finalize").status_code == 200


def ids(http: httpx.Client) -> set[str]:
    return {item["sessionId"] for item in http.get("/api/sessions?limit=500").json()["items"]}


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name: file.read() for name, file in files.items() if file}


def fetch(http: httpx.Client, session_id: str) -> bytes:
    answer = http.get(f"/api/sessions/{session_id}/archive")
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return tmp_path / "archives"


@pytest.fixture
def client(folder: Path) -> Iterator[httpx.Client]:
    """Of a server whose store is this test's alone."""
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        yield http


# ------------------------------------------------------------------- a download


def test_a_download_has_the_folder_of_the_session_and_a_manifest_as_the_last_file(
    http: httpx.Client, session_id: str
) -> None:
    enter(http, session_id)
    enter(http, f"{session_id}-child", parent=session_id)
    answer = http.get(f"/api/sessions/{session_id}/archive")
    cursor = http.get(f"/api/sessions/{session_id}").json()["metadata"]["lastCursor"]
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{session_id}@{cursor}.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert [member.name for member in tar] == [
            *(f"{session_id}/{name}" for name in NAMES),
            f"{session_id}/subsessions/{session_id}-child",
            f"{session_id}/manifest.json",
        ]
        link = tar.getmember(f"{session_id}/subsessions/{session_id}-child")
        assert link.issym() and link.linkname == f"../../{session_id}-child"
        assert {(member.uid, member.gid, member.uname, member.gname) for member in tar} == {(0, 0, "", "")}
        assert len({member.mtime for member in tar}) == 1


def test_every_file_is_what_the_api_and_the_manifest_say(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    files = members(fetch(http, session_id))
    session = http.get(f"/api/sessions/{session_id}").json()
    for name in ("metadata", "initial", "state", "final"):
        assert json.loads(files[f"{session_id}/{name}.json"]) == session[name], name
    for name in ("actions", "responses"):
        assert [json.loads(line) for line in files[f"{session_id}/{name}.jsonl"].splitlines()] == session[name], name
    events = http.get(f"/api/sessions/{session_id}/events?limit=1000").json()["items"]
    assert [json.loads(line) for line in files[f"{session_id}/events.jsonl"].splitlines()] == events
    manifest = json.loads(files.pop(f"{session_id}/manifest.json"))
    assert (manifest["sessionId"], manifest["lastCursor"]) == (session_id, session["metadata"]["lastCursor"])
    assert manifest["files"] == {
        name.partition("/")[2]: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }


def test_the_same_session_gives_the_same_bytes_until_it_changes(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    first = fetch(http, session_id)
    time.sleep(1.1)  # a clock in a head would show
    assert fetch(http, session_id) == first
    http.post(f"/api/actions/{session_id}", json={"type": "x"})
    assert fetch(http, session_id) != first


def test_a_long_session_comes_whole_while_it_is_written_to(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id, entries=2000, ends=False)
    with http.stream("GET", f"/api/sessions/{session_id}/archive") as answer:
        pieces = answer.iter_raw()
        content = [next(pieces)]
        http.post(f"/api/actions/{session_id}", json={"type": "late"})
        content += pieces
    files = members(b"".join(content))
    assert len(files[f"{session_id}/actions.jsonl"].splitlines()) == 2000
    assert json.loads(files[f"{session_id}/metadata.json"])["actions"] == 2000


def test_an_id_as_long_as_may_be_is_a_name_in_the_tar(http: httpx.Client) -> None:
    parent, child = "p" * 128, "c" * 128
    enter(http, parent)
    enter(http, child, parent=parent)
    with tarfile.open(fileobj=io.BytesIO(fetch(http, parent))) as tar:
        assert tar.getmember(f"{parent}/subsessions/{child}").linkname == f"../../{child}"


@pytest.mark.parametrize("name", ["nobody", "..", "a%2Fb"])
def test_what_is_no_session_is_404(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/api/sessions/{name}/archive")
    assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_readers_who_go_away_leave_nothing_open(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id, entries=2000)
    for _ in range(20):
        with http.stream("GET", f"/api/sessions/{session_id}/archive") as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
    assert len(fetch(http, session_id)) > 0


# -------------------------------------------------------------------- a folder


def test_only_sessions_that_ended_and_last_changed_before_the_time_are_archived(
    client: httpx.Client, folder: Path, archives: Path
) -> None:
    enter(client, "early")
    enter(client, "goes-on", ends=False)
    boundary = client.get("/api/sessions/early").json()["metadata"]["updated"]
    while client.get("/api/query/stats").status_code == 200 and layout_now() <= boundary:
        time.sleep(0.002)
    enter(client, "late")
    updated = client.get("/api/sessions/late").json()["metadata"]["updated"]
    assert is_done(export(folder, "archive", "--before", updated, "--to", archives))
    assert [path.name.partition("@")[0] for path in archives.iterdir()] == ["early"]
    assert is_done(export(folder, "archive", "--before", "2000-01-01", "--to", archives / "none"))
    assert list((archives / "none").iterdir()) == []


def layout_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03}Z"


def test_an_archive_in_a_folder_is_the_download_and_is_written_once(
    client: httpx.Client, folder: Path, archives: Path
) -> None:
    for number in range(3):
        enter(client, f"s-{number}")
    assert (
        is_done(ended := export(folder, "archive", "--before", FAR, "--to", archives)) and "3 of them" in ended.stdout
    )
    written = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in archives.iterdir()}
    assert {name.partition("@")[0]: content for name, (content, _) in written.items()} == {
        session_id: fetch(client, session_id) for session_id in ids(client)
    }
    (archives / sorted(written)[0]).unlink()
    assert (
        is_done(ended := export(folder, "archive", "--before", FAR, "--to", archives)) and "1 of them" in ended.stdout
    )
    again = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in archives.iterdir()}
    assert {name: content for name, (content, _) in again.items()} == {
        name: content for name, (content, _) in written.items()
    }
    assert sum(again[name] == written[name] for name in again) == 2


@pytest.mark.long
def test_a_command_that_is_killed_leaves_no_half_archive_under_its_name(
    client: httpx.Client, folder: Path, archives: Path
) -> None:
    for number in range(4):
        enter(client, f"s-{number}", entries=3000)
    command = [sys.executable, "-m", "export", "archive", "--before", FAR, "--to", str(archives)]
    for _ in range(4):
        running = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"SESSIONS_DIR": str(folder)})
        found = set(archives.glob("*")) if archives.exists() else set()
        while running.poll() is None and not (archives.exists() and set(archives.glob(".*.part")) - found):
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        running.wait()
        for path in archives.glob("*.tar.gz"):
            assert archive.manifest_in(path).session_id == path.name.partition("@")[0]
    assert is_done(export(folder, "archive", "--before", FAR, "--to", archives))
    assert sorted(path.name.partition("@")[0] for path in archives.iterdir()) == [f"s-{number}" for number in range(4)]


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_an_archive_that_is_not_the_session_keeps_it_in_the_store(
    client: httpx.Client, folder: Path, archives: Path, damage: str
) -> None:
    enter(client, "good")
    enter(client, "bad", entries=50)
    assert is_done(export(folder, "archive", "--before", FAR, "--to", archives))
    (path,) = archives.glob("bad@*")
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "flip": content[:200] + bytes([content[200] ^ 8]) + content[201:],
            "other": next(archives.glob("good@*")).read_bytes(),
        }[damage]
    )
    spoilt = path.read_bytes()
    ended = export(folder, "archive", "--before", FAR, "--to", archives, "--prune", PORT=str(client.base_url.port))
    assert is_refused(ended, str(path))
    assert ids(client) == {"bad"} and path.read_bytes() == spoilt


def test_what_is_pruned_has_left_the_store_and_its_archive_has_all_of_it(
    client: httpx.Client, folder: Path, archives: Path
) -> None:
    enter(client, "old")
    enter(client, "child", parent="old")
    enter(client, "active", ends=False)
    held = members(fetch(client, "old"))
    port = str(client.base_url.port)
    assert is_done(export(folder, "archive", "--before", FAR, "--to", archives, "--prune", PORT=port))
    assert ids(client) == {"active"}
    assert members(next(archives.glob("old@*")).read_bytes()) == held
    assert client.get("/api/query/search?q=file_write&sessionId=old").json()["items"] == []
    enter(client, "old")
    assert is_done(export(folder, "archive", "--before", FAR, "--to", archives))
    assert len(list(archives.glob("old@*"))) == 2, "an id that is used again has an archive of its own"


def test_a_parent_whose_children_left_is_still_what_its_archive_says(
    client: httpx.Client, folder: Path, archives: Path
) -> None:
    enter(client, "parent")
    enter(client, "child", parent="parent")
    assert is_done(export(folder, "archive", "--before", FAR, "--to", archives))
    client.delete("/api/sessions/child")
    assert (
        is_done(ended := export(folder, "archive", "--before", FAR, "--to", archives)) and "0 of them" in ended.stdout
    )


def test_without_a_server_the_command_deletes_by_itself(folder: Path, archives: Path) -> None:
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        enter(http, "old")
        enter(http, "active", ends=False)
        appliance.stop()
        assert is_done(ended := export(folder, "archive", "--before", FAR, "--to", archives, "--prune"))
        assert "1 of them are gone" in ended.stdout
        appliance.start(until="/ready")
        assert ids(http) == {"active"}
        assert http.get("/api/query/search?q=file_write&sessionId=old").json()["items"] == []
        deleted = http.get("/api/events?type=session_deleted").json()["items"]
        assert [event["sessionId"] for event in deleted] == ["old"]


def test_what_a_killed_prune_has_left_the_next_one_takes_away(folder: Path, archives: Path) -> None:
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        for number in range(5):
            enter(http, f"old-{number}", entries=30)
        enter(http, "active", ends=False)
        eventually(lambda: http.get("/health").json()["tree"]["lag"] == 0)
        appliance.stop()
    arguments = ["archive", "--before", FAR, "--to", str(archives), "--prune", "--dir", str(folder)]
    for killed_in in ("follow", "finish"):  # once the sessions are deleted: the tree, or their events, are not yet gone
        code = (
            f"import os; from sessionstore.admin import prune; prune.{killed_in} = lambda *_: os._exit(137)\n"
            f"from export.__main__ import main; main({arguments})"
        )
        assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 137
        assert len(list((folder / "sessions").glob("old-*"))) == 5
    ended = export(folder, *arguments)
    assert ended.returncode == 0 and "0 of them are gone" in ended.stdout, ended
    assert list((folder / "sessions").glob("old-*")) == []
    assert is_done(export(folder, "verify", "--full"))
    with closing(layout.open_reader(folder / "sessions.db")) as database:
        assert database.execute("SELECT count(*) FROM purges").fetchone() == (0,)


def test_a_session_that_has_moved_on_is_not_deleted(client: httpx.Client) -> None:
    enter(client, "s")
    cursor = client.get("/api/sessions/s").json()["metadata"]["lastCursor"]
    client.post("/api/actions/s", json={"type": "one more word"})
    refused = client.delete(f"/api/sessions/s?lastCursor={cursor}")
    assert refused.status_code == 412 and str(cursor + 1) in refused.json()["detail"]
    assert client.delete(f"/api/sessions/s?lastCursor={cursor + 1}").status_code == 200
    assert client.delete(f"/api/sessions/s?lastCursor={cursor + 1}").status_code == 404
    assert client.delete("/api/sessions/s?lastCursor=x").status_code == 422


def test_a_conversation_that_comes_after_its_archive_was_made_keeps_its_session(folder: Path, archives: Path) -> None:
    """What comes between the two is in no archive; with a server, and without."""
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        enter(http, "old")
        of_old = NDJSON | {"x-session-id": "old"}
        arguments = ["archive", "--before", FAR, "--to", str(archives), "--prune", "--dir", str(folder)]
        code = (
            "import httpx; from sessionstore.admin import prune; ask_server = prune.ask_server\n"
            f"tell = lambda: httpx.post('{appliance.url}/api/transcripts/f/c', content={LINES!r}, headers={of_old})\n"
            "prune.ask_server = lambda *rest: tell().raise_for_status() and ask_server(*rest)\n"
            f"from export.__main__ import main; main({arguments})"
        )
        port = {"PORT": f"{http.base_url.port}"}
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env=os.environ | port,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "0 of them are gone" in ended.stdout and "conversations or checkpoints" in ended.stderr, ended
        appliance.stop()
        with closing(layout.open_reader(folder / "sessions.db")) as database:
            session, stamp = layout.session(database, "old"), stamp_of(database, "old")
        assert session is not None
        said: list[str] = []
        for stamp_then, gone in ("0" * 32, 0), (stamp, 1):
            settings = Settings(directory=folder)
            assert prune.prune(settings, [(session, stamp_then)], None, said.append, lambda _: None) == gone
        assert len(said) == 1 and "conversations or checkpoints" in said[0]


def test_a_server_that_asks_for_a_token_gets_it_or_the_command_says_what_is_missing(
    folder: Path, archives: Path
) -> None:
    with Appliance(folder, {"SESSIONS_TOKEN": ADMIN}) as appliance:
        headers = {"authorization": f"Bearer {ADMIN}"}
        with httpx.Client(base_url=appliance.url, headers=headers) as http:
            enter(http, "s")
            arguments = ("archive", "--before", FAR, "--to", archives, "--prune")
            assert is_refused(export(folder, *arguments, PORT=str(appliance.port)), "SESSIONS_TOKEN")
            assert is_refused(export(folder, *arguments, "--url", "http://127.0.0.1:9"), "--url")
            assert ids(http) == {"s"}
            assert is_done(export(folder, *arguments, "--url", appliance.url, SESSIONS_TOKEN=ADMIN))
            assert ids(http) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "x"),
        ("--before", FAR),
        ("--before", "yesterday", "--to", "x"),
        ("--before", "2026-02-31", "--to", "x"),
        ("--before", FAR, "--to", ""),
        ("--before", FAR, "--to", "x", "--dir", ""),
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = export(tmp_path, "archive", *arguments)
    assert ended.returncode == 2 and "Usage:" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_kept_the_place_is_named(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.touch()
    assert is_refused(export(tmp_path, "archive", "--before", FAR, "--to", tmp_path / "new"), "There is no database")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
    folder.mkdir(exist_ok=True)
    Database(folder / "sessions.db").close()
    assert is_refused(export(folder, "archive", "--before", FAR, "--to", place), f"{place}: File exists")


# -------------------------------------------------------------- reading it back


def test_every_damage_to_an_archive_is_noticed(client: httpx.Client, tmp_path: Path) -> None:
    enter(client, "s", entries=20)
    content = gzip.decompress(fetch(client, "s"))
    path = tmp_path / "s.tar.gz"
    path.write_bytes(gzip.compress(content))
    files = archive.manifest_in(path).files
    for name in files:
        place = content.index(f"s/{name}".encode()) + 512 + files[name].bytes // 2
        if files[name].bytes:
            path.write_bytes(gzip.compress(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]))
            with pytest.raises(archive.ArchiveFailed):
                archive.manifest_in(path)
    for end in range(0, len(content) - 1024, 512):
        path.write_bytes(gzip.compress(content[:end]))
        with pytest.raises(archive.ArchiveFailed):
            archive.manifest_in(path)


@pytest.mark.long
def test_memory_does_not_grow_with_the_session(client: httpx.Client, folder: Path) -> None:
    line = json.dumps({"type": "action", "sessionId": "big", "data": {"type": "x", "text": "z" * 100_000}}) + "\n"
    for _ in range(4):
        client.post("/api/events", content=line * 100, headers={"content-type": "application/x-ndjson"})
    copy = shutil.copytree(folder, folder.with_name("copy"))
    with closing(layout.open_reader(copy / "sessions.db")) as database:
        pieces = archive.tar_of(archive.take(database, "big"))
        sizes = [len(piece) for piece in pieces]
    assert sum(sizes) > 80e6 and max(sizes) < 4e6


# ------------------------------------------------------------------------------------ material

LINES = b'{"a": 1}\nno json \xff\n' * 1000
NDJSON = {"content-type": "application/x-ndjson"}


def with_material(http: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that has ended, with a conversation, what is beside it, and a thread of checkpoints."""
    enter(http, "s")
    of_s = NDJSON | {"x-session-id": "s", "idempotency-key": "k"}
    for path in ("/api/transcripts/f/c", "/api/transcripts/f/c?subpath=a%2Fb"):
        assert http.post(path, content=LINES, headers=of_s).status_code == 200
    assert http.put("/api/transcripts/f/c/summary", json={"n": 1}).status_code == 200
    monkeypatch.setenv("SESSION_ID", "s")
    saver, place = SessionStoreSaver(url), {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint: Any = empty_checkpoint() | {"channel_values": {"c": "x" * 1000}, "channel_versions": {"c": "1"}}
    stored = saver.put(place, checkpoint, {"step": 1}, {"c": "1"})  # type: ignore[arg-type]
    saver.put_writes(stored, [("c", "x" * 1000)], "task")


def material_of(http: httpx.Client) -> list[Any]:
    """All of it, as it is given back."""
    lines = [http.get(path).content for path in ("/api/transcripts/f/c", "/api/transcripts/f/c?subpath=a%2Fb")]
    summary = http.get("/api/transcripts/f/c/summary")
    parts = [json.loads(line) for line in http.get("/api/checkpoints/t").text.splitlines()]
    values = {part["value"]["number"]: part["value"]["data"] for part in parts if "value" in part}
    found = [part["checkpoint"] for part in parts if "checkpoint" in part]
    return [lines, summary.json(), sorted(values.values()), [(step["id"], step["metadata"]) for step in found]]


def test_material_goes_into_the_archive_and_comes_back(
    tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, bare = (tmp_path / name for name in ("first", "second", "bare"))
    with Appliance(first) as server, httpx.Client(base_url=server.url) as http:
        with_material(http, server.url, monkeypatch)
        before = material_of(http)
        assert "1 of them new" in export(first, "archive", "--before", FAR, "--to", archives).stdout
        assert "0 of them new" in export(first, "archive", "--before", FAR, "--to", archives).stdout
        http.post("/api/transcripts/f/c", content=b"more\n", headers=NDJSON)  # no event tells of it
        assert "1 of them new" in export(first, "archive", "--before", FAR, "--to", archives).stdout
        assert "s/material.jsonl" in members(fetch(http, "s"))
        is_done(export(first, "archive", "--before", FAR, "--to", bare, "--without-material"))
        lossy = export(first, "archive", "--before", FAR, "--to", bare, "--without-material", "--prune")
        assert lossy.returncode == 2 and "deletes the material" in lossy.stderr
    (packed,), (without,) = archives.glob("*.tar.gz"), bare.glob("*.tar.gz")
    assert without.stat().st_size < packed.stat().st_size
    with Appliance(second):
        pass
    is_done(export(second, "restore", packed))
    with Appliance(second) as server, httpx.Client(base_url=server.url) as http:
        after = material_of(http)
        assert after[0] == [before[0][0] + b"more\n", before[0][1]] and after[1:] == before[1:]
        again = http.post("/api/transcripts/f/c", content=LINES, headers=NDJSON | {"idempotency-key": "k"})
        assert again.json()["duplicates"] == 2000
        monkeypatch.setenv("SESSION_ID", "s")
        assert http.get("/health").json()["material"]["bytes"] > 0
        http.delete("/api/sessions/s")
        assert http.get("/api/transcripts/f/c").status_code == http.get("/api/checkpoints/t").status_code == 404
        eventually(lambda: http.get("/health").json()["material"]["transcripts"] == 0)
    told = export(second, "restore", without)
    assert told.returncode == 0, told
    told = export(second, "restore", packed)
    assert "there is a session s already" in told.stdout
