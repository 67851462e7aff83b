"""`python -m export scrub`: what should not have been stored leaves database, index, free pages, log and tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from langgraph.checkpoint.base import empty_checkpoint

from containers.langgraph_checkpointer import SessionStoreSaver
from tests.agents import Json
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done, is_refused
from tests.peers import eventually

SECRET = "Xyzzy-4711-Plugh"
MARK = "[redacted:scrubbed]"
UNREDACTED = {"SESSIONS_REDACT": "off"}


def say_everything(http: httpx.Client, session: str) -> None:
    """The secret in every kind of event, and beside it what stays."""
    answers = [
        http.put(
            f"/api/sessions/{session}",
            json={"userId": f"u {SECRET}", "initial": {"a": SECRET}, "tags": [SECRET], "metadata": {"m": {SECRET: 1}}},
        ),
        http.post(f"/api/actions/{session}", json={"type": "a", "text": f"one {SECRET} two", "n": 1}),
        http.post(f"/api/actions/{session}/responses", json={"type": "r", "deep": [{"er": SECRET}], "kept": "kept"}),
        http.patch(f"/api/state/{session}", json={"phase": SECRET, "workspace": {"note": SECRET}, "other": "kept"}),
        http.patch(f"/api/sessions/{session}/metadata", json={"own.note": SECRET}),
        http.post(f"/api/state/{session}/goals", json={"description": SECRET}),
        http.patch(f"/api/state/{session}/goals/goal-1", json={"status": "completed"}),
        http.post(f"/api/state/{session}/agents", json={"type": "worker", "task": SECRET}),
        http.post(f"/api/actions/{session}", json={"type": "ask", "attention": {"reason": "input", "message": SECRET}}),
        http.post(
            f"/api/actions/{session}",
            json={"type": "ask", "tool": SECRET, "attention": {"reason": SECRET, "message": SECRET}},
        ),
        http.post(f"/api/sessions/{session}/finalize", json={"outcome": SECRET}),
    ]
    assert [answer.status_code for answer in answers] == [201] + [200] * 10, [answer.text for answer in answers]


def has(folder: Path, text: str) -> list[Path]:
    """The files with this text in any case, as the index has it."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if text.lower().encode() in path.read_bytes().lower()]


def leave(server: Appliance) -> None:
    """Once the tree and the index are there; by a kill, so that the log is left, too."""
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/api/query/search", params={"q": "Plugh"}).json()["items"]
        head = http.get("/health").json()["cursor"]
    eventually(lambda: json.loads((server.folder / ".mirror.json").read_bytes())["cursor"] == head)
    server.kill()


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the secret everywhere: in two sessions, in one that was deleted, and beside one without it."""
    folder = tmp_path_factory.mktemp("careless") / "sessions"
    with Appliance(folder, UNREDACTED) as server:
        with httpx.Client(base_url=server.url) as http:
            for session in ("first", "second", "deleted"):
                say_everything(http, session)
            http.post("/api/actions/clean", json={"type": "a", "text": "kept"})
        server.stop()
        server.start()
        assert httpx.delete(f"{server.url}/api/sessions/deleted").status_code == 200
        leave(server)
    return folder


@pytest.fixture
def store(left_behind: Path, folder: Path) -> Path:
    """A copy of it."""
    shutil.copytree(left_behind, folder, symlinks=True)
    return folder


def all_of(folder: Path) -> tuple[list[Json], list[str]]:
    """The events of a served folder, and what searches find."""
    with Appliance(folder) as server, httpx.Client(base_url=server.url) as http:
        events = http.get("/api/events", params={"limit": 1000}).json()["items"]
        found = [
            str(item["event"]["cursor"])
            for words in ("Plugh", "scrubbed", "kept")
            for item in http.get("/api/query/search", params={"q": words, "limit": 100}).json()["items"]
        ]
        for session in ("first", "second", "clean"):
            head = http.get(f"/api/sessions/{session}").json()["metadata"]["lastCursor"]
            assert http.get(f"/api/state/{session}").json() == http.get(f"/api/state/{session}?at={head}").json()
        assert server.stop().code == 0
    return events, found


def test_nothing_is_left_of_it(store: Path) -> None:
    before = {path.name for path in has(store, SECRET)}
    assert {"sessions.db", "events.jsonl", "state.json", "metadata.json", "index.json"} <= before
    told = export(store, "scrub", SECRET, "--literal")
    assert (told.returncode, SECRET in told.stdout + told.stderr) == (0, False), told
    assert "first: 11 events" in told.stdout and "in 3 sessions are redacted" in told.stdout
    assert has(store, SECRET) == has(store, "Plugh") == []
    assert is_done(export(store, "verify", "--full"))

    events, found = all_of(store)
    assert [event["cursor"] for event in events] == sorted(event["cursor"] for event in events)
    assert events[0]["cursor"] == 1 and events[1]["data"]["text"] == f"one {MARK} two"
    assert found and "kept" in (store / "sessions/clean/actions.jsonl").read_text()
    state = json.loads((store / "sessions/first/state.json").read_bytes())
    assert (state["phase"], state["goals"][0]["description"], state["other"]) == (MARK, MARK, "kept")
    assert state["goals"][0]["status"] == "completed"
    metadata = json.loads((store / "sessions/first/metadata.json").read_bytes())
    assert (metadata["userId"], metadata["tags"], metadata["m"]) == (f"u {MARK}", [MARK], {MARK: 1})
    assert (metadata["goals"], metadata["agents"], metadata["phase"]) == (1, 1, MARK)
    assert has(store, SECRET) == [] and is_done(export(store, "verify", "--full"))


def test_all_but_the_secret_is_as_it_was(store: Path, tmp_path: Path) -> None:
    before, _ = all_of(store)
    assert export(store, "scrub", SECRET).returncode == 0
    after, _ = all_of(store)
    assert json.loads(json.dumps(before).replace(SECRET, MARK)) == after != before
    assert export(tmp_path / "again", "restore", store).returncode == 0
    assert has(tmp_path / "again", SECRET) == []


def test_a_dry_run_says_the_same_and_changes_nothing(store: Path) -> None:
    with Appliance(store, UNREDACTED) as server:
        told = export(store, "scrub", "Xyzzy-[0-9]+-Plugh", "--dry-run")
        assert server.stop().code == 0
    counted = told.stdout.replace("would be", "are")
    assert told.returncode == 0 and "in 3 sessions would be redacted" in told.stdout
    assert has(store, SECRET)
    assert export(store, "scrub", "Xyzzy-[0-9]+-Plugh").stdout == counted
    assert "0 texts in 0 sessions" in export(store, "scrub", SECRET).stdout


def test_a_running_server_is_not_worked_behind(store: Path) -> None:
    with Appliance(store, UNREDACTED):
        assert is_refused(export(store, "scrub", SECRET), "has the folder", str(store))
    assert has(store, SECRET)


def test_what_it_may_not_change_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    with Appliance(folder, UNREDACTED) as server:
        httpx.post(f"{server.url}/api/actions/s-{SECRET}", json={"type": "a", "text": SECRET})
        httpx.post(f"{server.url}/api/actions/other", json={"type": "a", "text": SECRET})
        assert is_done(export(folder, "backup", tmp_path / "backups" / "sessions-20260101T000000Z.db"))
        leave(server)
    (folder / "note.txt").write_text(f"it was {SECRET}\n")
    told = export(folder, "scrub", SECRET, SESSIONS_BACKUP_DIR=str(tmp_path / "backups"))
    assert told.returncode == 1
    (backup,) = (tmp_path / "backups").glob("*.db")
    for words in (f"the session s-{SECRET}", "note.txt still has it", f"{backup} was made before, and has it"):
        assert words in told.stderr
    assert "the session other" not in told.stderr


def test_copies_and_archives_that_have_it_are_named_and_no_others(folder: Path, tmp_path: Path) -> None:
    places = {"SESSIONS_BACKUP_DIR": str(tmp_path / "backups"), "SESSIONS_ARCHIVE_DIR": str(tmp_path / "archives")}
    (tmp_path / "backups").mkdir()
    with Appliance(folder, UNREDACTED) as server:
        for session, text in (("with", f"{'x' * 9000} {SECRET} {'y' * 9000}"), ("without", "nothing")):
            httpx.post(f"{server.url}/api/actions/{session}", json={"type": "a", "text": text})
            httpx.post(f"{server.url}/api/sessions/{session}/finalize")
        httpx.post(f"{server.url}/api/actions/late", json={"type": "a", "text": "Plugh"})
        assert is_done(export(folder, "backup", tmp_path / "backups" / "sessions-20260101T000000Z.db"))
        assert is_done(export(folder, "archive", "--before", "2999-01-01", "--to", tmp_path / "archives"))
        httpx.delete(f"{server.url}/api/sessions/with")
        eventually(lambda: SECRET not in httpx.get(f"{server.url}/api/events?limit=100").text)
        assert is_done(export(folder, "backup", tmp_path / "backups" / "sessions-20260102T000000Z.db"))
        server.stop()
    shutil.copy(tmp_path / "backups" / "sessions-20260101T000000Z.db", folder / "sessions.db.before-restore-1")
    told = export(folder, "scrub", SECRET, **places)
    named = {path.name for path in tmp_path.rglob("*") if f"{path} " in told.stderr and path.is_file()}
    assert told.returncode == 1
    assert {name.partition("@")[0] for name in named} >= {"sessions-20260101T000000Z.db", "with"}
    assert "sessions.db.before-restore-1" in named
    assert "without" not in {name.partition("@")[0] for name in named}


@pytest.mark.long
def test_a_large_file_is_looked_through_in_little_memory(folder: Path) -> None:
    with Appliance(folder, UNREDACTED):
        pass
    with open(folder / "large", "wb") as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.seek(4 << 20)
        file.write(SECRET.encode())
        file.seek((8 << 20) - 5)
        file.write(b"Q-4712-R" * 2)
    line = ["prlimit", f"--as={400 << 20}", sys.executable, "-m", "export", "scrub", "--dir", str(folder)]
    for secret, code in ((SECRET, 1), ("R(?=Q-4712)", 1), ("no such text", 0)):
        ended = subprocess.run([*line, secret], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == code, ended


def test_known_formats_go_without_a_pattern(folder: Path) -> None:
    token = "ghp_" + "a1B2" * 9
    with Appliance(folder, UNREDACTED) as server:
        httpx.post(f"{server.url}/api/actions/s", json={"type": "a", "text": f"Plugh {token}", "password": "abc"})
        leave(server)
    assert has(folder, token)
    assert "2 texts in 1 sessions are redacted" in export(folder, "scrub", "--known").stdout
    assert has(folder, token) == []
    entry = json.loads((folder / "sessions/s/actions.jsonl").read_text())
    assert (entry["text"], entry["password"]) == ("Plugh [redacted:github]", "[redacted:password]")


def test_the_pattern_can_be_kept_out_of_the_history(store: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "export", "scrub", "-", "--dir", str(store)],
        cwd=REPOSITORY,
        input=f"{SECRET}\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0 and has(store, SECRET) == [], ended


@pytest.mark.parametrize("arguments", [["("], ["x*"], ["redacted"], [], [SECRET, "--known"]])
def test_it_is_used_wrongly_without_a_pattern_that_ends(folder: Path, arguments: list[str]) -> None:
    with Appliance(folder):
        pass
    assert export(folder, "scrub", *arguments).returncode == 2


@pytest.mark.long
def test_killed_half_way_it_has_only_to_be_run_again(store: Path) -> None:
    command = [sys.executable, "-m", "export", "scrub", SECRET, "--dir", str(store)]
    begun = time.monotonic()
    export(store, "scrub", "no such text")
    whole = time.monotonic() - begun
    for part in (0.5, 0.7, 0.8, 0.9):
        running = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * part)  # wherever that is: none of its moments may be a bad one
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert export(store, "scrub", SECRET).returncode == 0
    assert has(store, SECRET) == [] and is_done(export(store, "verify", "--full"))
    all_of(store)


def test_it_leaves_conversations_and_checkpoints_too(folder: Path) -> None:
    signed = {"type": "thinking", "thinking": f"the {SECRET}", "signature": "x"}
    lines = "".join(json.dumps(line) + "\n" for line in ({"a": f"one {SECRET} two"}, {"b": "kept"}, [signed]))
    lines += f"no json: {SECRET}\n" + "x" * 600_000 + f"{SECRET}\n"
    place: Json = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint() | {"channel_values": {"c": [SECRET, "kept"]}, "channel_versions": {"c": "1"}}
    with Appliance(folder, UNREDACTED) as server, httpx.Client(base_url=server.url) as http:
        http.post("/api/transcripts/f/s", content=lines, headers={"content-type": "application/x-ndjson"})
        http.put("/api/transcripts/f/s/summary", json={"data": SECRET})
        saver = SessionStoreSaver(server.url)
        stored = saver.put(place, checkpoint, {"source": "loop", "note": SECRET}, {"c": "1"})  # type: ignore
    counted = export(folder, "scrub", SECRET, "--literal", "--dry-run").stdout
    assert counted.startswith("3 texts in 0 sessions")
    assert export(folder, "scrub", SECRET, "--literal").stdout.split(" are ")[0] == counted.split(" would ")[0]
    assert has(folder, SECRET) == []
    with Appliance(folder, UNREDACTED) as server, httpx.Client(base_url=server.url) as http:
        found = http.get("/api/transcripts/f/s")
        assert SECRET not in found.text and found.text.count(MARK) == 4
        assert found.headers["x-kept-digest"] == hashlib.sha256(found.content).hexdigest()
        assert http.get("/api/transcripts/f/s/summary").json() == {"data": MARK}
        step = SessionStoreSaver(server.url).get_tuple(stored)
        assert step is not None and step.checkpoint["channel_values"] == {"c": ["*" * len(SECRET), "kept"]}
        assert step.metadata["note"] == "*" * len(SECRET)  # type: ignore[typeddict-item]
