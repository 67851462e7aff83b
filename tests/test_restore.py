"""A database from a tree: of this store to the letter, of the earlier service all that is in it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings

from sessionstore.admin.restore import NotEmpty, Restored, restore
from sessionstore.store.owner import CannotStart
from tests.appliance import Appliance
from tests.commands import export
from tests.databases import Database, drafted
from tests.peers import eventually
from tests.repeats import repeated
from tests.trees import apply, contents, derived, differences, histories, purge_all, temporary_folder, write_tree


@pytest.fixture
def source(tmp_path: Path) -> Database:
    (tmp_path / "source").mkdir()
    database = Database(tmp_path / "source" / "sessions.db")
    database.append(drafted("session_created", "parent", {"initial": {"input": "Build"}}, user_id="alice"))
    database.append(drafted("session_created", "child", {"initial": {}, "parentSession": "parent"}, user_id="bob"))
    for number in range(3):
        database.append(drafted("action", "child", {"type": "file_write", "lines": number}))
        database.append(drafted("response", "parent", {"type": "tool_result", "text": "é" * number}))
    database.append(drafted("state_updated", "parent", {"phase": "done"}))
    database.append(drafted("session_finalized", "parent", {"status": "success"}))
    return database


def restored_tree(source: Database, folder: Path, **how: Any) -> tuple[Restored, dict[str, Any]]:
    """What a restore into `folder` says, and the tree of it."""
    restored = restore(source.path.parent, folder, **how)
    return restored, write_tree(folder / "sessions.db", folder / "again")


# -------------------------------------------------------------- our own tree


@repeated("examples", few=10, many=150, variable="TREE_EXAMPLES")
def test_a_database_survives_being_a_tree(examples: int) -> None:
    settings(max_examples=examples)(given(histories)(make_a_tree_and_restore_it))()


def make_a_tree_and_restore_it(history: list[Any]) -> None:
    with temporary_folder() as folder:
        database = Database(folder / "sessions.db")
        for written in history:
            if isinstance(written, tuple):
                apply(database, written)
        purge_all(database)
        tree = write_tree(database.path, folder / "tree")
        restored = restore(folder / "tree", folder / "restored")
        assert restored.odd == []
        assert write_tree(folder / "restored" / "sessions.db", folder / "again") == tree
        assert derived(folder / "restored" / "sessions.db") == derived(database.path)
        database.close()


def test_cursors_are_kept_and_none_is_given_twice(source: Database, tmp_path: Path) -> None:
    source.append(drafted("session_deleted", "child"))
    purge_all(source)
    write_tree(source.path, source.path.parent)
    restore(source.path.parent, tmp_path / "restored")
    again = Database(tmp_path / "restored" / "sessions.db")
    cursors = [cursor for (cursor,) in source.rows("SELECT cursor FROM events ORDER BY cursor")]
    assert [cursor for (cursor,) in again.rows("SELECT cursor FROM events ORDER BY cursor")] == cursors
    assert 2 not in cursors
    newest = max(cursors)
    assert again.append(drafted("action", "parent", {"type": "x"}, event_id="mine")).event.cursor == newest + 1
    again.close()


def test_a_subsession_that_was_deleted_stays_named_at_the_end_of_its_parent(source: Database, tmp_path: Path) -> None:
    source.append(drafted("session_deleted", "child"))
    purge_all(source)
    tree = write_tree(source.path, source.path.parent)
    assert json.loads(tree["sessions/parent/final.json"])["subsessions"] == ["child"]
    _, again = restored_tree(source, tmp_path / "restored")
    assert again["sessions/parent/final.json"] == tree["sessions/parent/final.json"]


def test_a_database_with_events_is_left_alone_unless_told(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    folder = tmp_path / "restored"
    restore(source.path.parent, folder)
    before = (folder / "sessions.db").read_bytes()
    with pytest.raises(NotEmpty, match="has events already"):
        restore(source.path.parent, folder)
    assert contents(folder).keys() == {".lock", "sessions.db"}
    assert (folder / "sessions.db").read_bytes() == before
    restore(source.path.parent, folder, is_forced=True)
    assert (folder / "sessions.db.before-restore-1").read_bytes() == before


def test_a_database_that_cannot_be_read_is_put_beside_when_told(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "sessions.db").write_bytes(b"not a database " * 500)
    (folder / "sessions.db-wal").write_bytes(b"a log of it")
    with pytest.raises(NotEmpty, match="cannot be read"):
        restore(source.path.parent, folder)
    restore(source.path.parent, folder, is_forced=True)
    assert (folder / "sessions.db.before-restore-1-wal").read_bytes() == b"a log of it"
    assert not (folder / "sessions.db-wal").exists()
    assert differences(folder / "sessions.db", source.path.parent) == []


def test_a_folder_that_a_server_has_is_refused(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    with Appliance(tmp_path / "served") as server, pytest.raises(CannotStart, match=str(server.process.pid)):
        restore(source.path.parent, tmp_path / "served", is_newer=True)
    restore(source.path.parent, tmp_path / "served")


def test_newer_lines_are_added_to_an_older_copy(source: Database, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    folder.mkdir()
    source.connection.execute("VACUUM INTO ?", (str(folder / "sessions.db"),))
    source.append(drafted("action", "child", {"type": "x"}))
    source.append(drafted("session_deleted", "child"))
    source.append(drafted("session_created", "child", {"initial": {"input": "again"}}, user_id="carol"))
    source.append(drafted("response", "new", {"type": "y"}))
    purge_all(source)
    tree = write_tree(source.path, source.path.parent)
    restored, again = restored_tree(source, folder, is_newer=True)
    assert restored.odd == []
    assert {name: found for name, found in again.items() if "sessions.db" not in name} == {
        name: found for name, found in tree.items() if "sessions.db" not in name
    }
    assert restore(source.path.parent, folder, is_newer=True).events == 0


def test_a_restore_that_was_killed_is_begun_anew(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "sessions.db.part").write_bytes(b"half of it")
    (folder / "sessions.db.part-wal").write_bytes(b"and its log")
    restore(source.path.parent, folder)
    assert contents(folder).keys() == {".lock", "sessions.db"}


@pytest.mark.parametrize("renames", [1, 2, 3])
def test_a_database_and_its_log_are_put_beside_together_though_it_is_killed(
    source: Database, tmp_path: Path, renames: int
) -> None:
    write_tree(source.path, source.path.parent)
    folder = tmp_path / "restored"
    folder.mkdir()
    (folder / "sessions.db").write_bytes(b"not a database " * 500)
    (folder / "sessions.db-wal").write_bytes(b"a log of it")
    assert killed_before_rename(renames, lambda: restore(source.path.parent, folder, is_forced=True))
    restore(source.path.parent, folder, is_forced=True)
    assert {path.name for path in folder.glob("*before*")} == {
        "sessions.db.before-restore-1",
        "sessions.db.before-restore-1-wal",
    }
    assert differences(folder / "sessions.db", source.path.parent) == []


def killed_before_rename(number: int, work: Callable[[], object]) -> bool:
    """Do it in a process of its own, up to there; whether it came to that."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    renames = itertools.count(1)

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and next(renames) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(kill)
        work()
    finally:
        os._exit(0)


# -------------------------------------------------------------- a damaged tree


def test_half_a_line_is_said_and_the_rest_restored(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    log = source.path.parent / "sessions" / "child" / "events.jsonl"
    log.write_bytes(log.read_bytes()[:-10])
    restored, tree = restored_tree(source, tmp_path / "restored")
    assert [odd.split(": is half a line")[0] for odd in restored.odd] == ["sessions/child/events.jsonl: line 4"]
    assert tree["sessions/child/actions.jsonl"].count(b"\n") == 2
    assert tree["sessions/parent/responses.jsonl"] == (tmp_path / "source/sessions/parent/responses.jsonl").read_bytes()


def test_a_session_without_its_beginning_is_shown_again(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    log = source.path.parent / "sessions" / "parent" / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[2:]))
    restored, tree = restored_tree(source, tmp_path / "restored")
    assert len(restored.odd) == 1 and "creation is lost" in restored.odd[0]
    lines = [json.loads(line) for line in tree["sessions/parent/events.jsonl"].splitlines()]
    assert [line["type"] for line in lines] == [
        "session_created", "response", "response", "state_updated", "session_finalized"
    ]  # fmt: skip
    assert json.loads(tree["sessions/parent/initial.json"])["input"] == "Build"


BAD_LINES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "not JSON": (lambda line: b"{" + line, "not an event"),
    "no cursor": (lambda line: line.replace(b'"cursor"', b'"curser"'), "missing required field `cursor`"),
    "a type that there is not": (lambda line: line.replace(b'"action"', b'"faction"', 1), "there is no type"),
    "an id that cannot be": (lambda line: line.replace(b'"sessionId":"child"', b'"sessionId":"../x"'), "is no id"),
    "a time that is none": (lambda line: line.replace(b"2026-02-14T", b"2026-02-14 ", 1), "is no time"),
    "no seq": (lambda line: line.replace(b'"seq":1,', b""), "does not begin with its seq"),
    "data that is no object": (lambda line: line[: line.index(b'"data":')] + b'"data":[]}\n', "left out"),
    "a byte that is not UTF-8": (lambda line: line.replace(b"file_write", b"file\xff"), "invalid start byte"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_left_out_and_said(source: Database, tmp_path: Path, name: str) -> None:
    write_tree(source.path, source.path.parent)
    log = source.path.parent / "sessions" / "child" / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    change, said = BAD_LINES[name]
    lines[1] = change(lines[1])
    log.write_bytes(b"".join(lines))
    restored, tree = restored_tree(source, tmp_path / "restored")
    assert len(restored.odd) == 1 and said in restored.odd[0], restored.odd
    assert [json.loads(line)["seq"] for line in tree["sessions/child/actions.jsonl"].splitlines()] == [2, 3]


STRANGERS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "of another session": ("sessions/child/events.jsonl", lambda log: log.replace(b'"child"', b'"other"', 1), "other"),
    "a deletion": ("sessions/child/events.jsonl", lambda log: deletion_of("child"), "has no place there"),
    "a deletion of another": ("sessions/child/events.jsonl", lambda log: deletion_of("parent"), "left out"),
    "no deletion": ("deleted.jsonl", lambda log: deletion_of("x").replace(b"_deleted", b"_created"), "no place there"),
    "endless": ("sessions/child/events.jsonl", lambda log: b" " * (6 << 20) + b"\n" + log, "SESSIONS_MAX_EVENT_BYTES"),
}


def deletion_of(session_id: str) -> bytes:
    event = {
        "cursor": 900,
        "type": "session_deleted",
        "sessionId": session_id,
        "userId": "x",
        "eventId": "d",
        "data": {},
    }
    at = {"agentId": None, "timestamp": "2026-02-14T00:00:00.000Z", "receivedAt": "2026-02-14T00:00:00.000Z"}
    return json.dumps(event | at).encode() + b"\n"


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_of_the_tree_brings_back_what_belongs_there_and_nothing_else(
    source: Database, tmp_path: Path, name: str
) -> None:
    write_tree(source.path, source.path.parent)
    place, change, said = STRANGERS[name]
    path = source.path.parent / place
    log = path.read_bytes()
    path.write_bytes(log + change(log).partition(b"\n")[0] + b"\n" if name != "endless" else change(log))
    restored, tree = restored_tree(source, tmp_path / "restored")
    assert len(restored.odd) == 1 and said in restored.odd[0], restored.odd
    path.write_bytes(log)
    assert tree.keys() == write_tree(source.path, tmp_path / "untouched").keys()


# -------------------------------------------------------- the earlier service


def earlier_tree(folder: Path) -> Path:
    """As the earlier service leaves it, whole and in every way that it breaks."""
    sessions = folder / "sessions"
    files: dict[str, Any] = {
        "whole/metadata.json": {
            "$schema": "session-metadata-v1", "sessionId": "whole", "userId": "alice",
            "created": "2026-02-13T20:00:00.000Z", "updated": "2026-02-13T20:09:00.000Z", "status": "completed",
            "model": "opus", "yoloMode": True, "tokenUsage": {"input": 5, "output": 6, "total": 11},
            "metrics": {"toolCalls": 9, "filesModified": 1}, "tags": ["x"], "parentSession": "half", "subsessions": [],
            "team": {"name": "blue"},
        },
        "whole/initial.json": {"$schema": "session-initial-v1", "timestamp": "2026-02-13T20:00:00.000Z",
                               "source": "cli", "input": "Build", "config": {"model": "opus"}, "mine": 1},
        "whole/state.json": {"$schema": "session-state-v1", "version": 4, "phase": "testing", "goals": [
            {"id": "goal-1", "description": "Build", "status": "completed"}], "timestamp": "2026-02-13T20:08:00.000Z"},
        "whole/final.json": {"$schema": "session-final-v1", "timestamp": "2026-02-13T20:09:00.000Z",
                             "status": "success", "outcome": "built", "finalResponse": "done", "odd": True},
        "half/metadata.json": {"sessionId": "half", "userId": "bob", "created": "2026-02-12T20:00:00.000Z",
                               "status": "active", "model": 7},
        "alone/metadata.json": {"userId": "carol", "created": "2026-02-11T20:00:00.000Z"},
    }  # fmt: skip
    for name, value in files.items():
        path = sessions / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2))
    (sessions / "whole/actions.jsonl").write_text(
        '{"seq":1,"timestamp":"2026-02-13T20:01:00.000Z","type":"file_write","path":"a.js"}\n'
        '{"seq":2,"timestamp":"2026-02-13T21:03:00+01:00","type":"tool_call","agentId":"agent-1"}\n'
    )
    (sessions / "whole/responses.jsonl").write_text(
        '{"seq":1,"timestamp":"2026-02-13T20:02:00.000Z","type":"tool_result","ok":true}\n'
    )
    (sessions / "half/actions.jsonl").write_text(
        '{"seq":1,"timestamp":"2026-02-12T20:01:00.000Z","type":"a"}\n'
        '{"seq":1,"timestamp":"2026-02-12T20:02:00.000Z","type":"b"}\n'
        '{"seq":4,"type":"c"}\n'
        '{"seq":5,"timestamp":"yesterday"}\n'
        '{"seq":6,"timest'
    )
    (sessions / "half/state.json").write_text('{"phase": "torn"')
    return folder


def test_all_of_an_earlier_tree_is_restored_and_what_is_odd_is_said(tmp_path: Path) -> None:
    restored = restore(earlier_tree(tmp_path / "earlier"), tmp_path / "restored")
    assert restored.earlier == 3
    assert [odd.removeprefix("sessions/half/") for odd in restored.odd if "/half/" in odd] == [
        "initial.json: is missing",
        "state.json: is not a JSON object",
        "responses.jsonl: is missing",
        "actions.jsonl: line 2: has seq 1 where 2 should be",
        "actions.jsonl: line 3: has seq 4 where 2 should be",
        "actions.jsonl: line 3: has no time",
        "actions.jsonl: line 4: has no type",
        "actions.jsonl: line 4: has no time",
        "actions.jsonl: line 5: is half a line, and is left out",
        "metadata.json: is kept as `earlier`, because model: expected `str | null`, got `int`",
    ]
    assert [odd for odd in restored.odd if "/alone/" in odd] == [
        f"sessions/alone/{name}: is missing"
        for name in ("initial.json", "state.json", "actions.jsonl", "responses.jsonl")
    ]


def test_a_server_over_an_earlier_tree_says_how_it_is_brought_in(tmp_path: Path) -> None:
    folder = earlier_tree(tmp_path)
    with Appliance(folder) as server:
        assert server.said("has 3 sessions that are not in the database")
        command = f"python -m export restore {folder} --newer"
        assert server.said(f"`{command}`")
        httpx.put(f"{server.url}/api/sessions/mine", json={"userId": "alice"}).raise_for_status()
    assert (ended := export(folder, *command.split()[3:])).returncode in (0, 1), ended
    with Appliance(folder) as server:
        assert not server.said("not in the database", 0)
        recent = httpx.get(f"{server.url}/api/query/recent").json()
    assert {session["sessionId"] for session in recent} == {"mine", "whole", "half", "alone"}


def test_an_earlier_tree_is_served(tmp_path: Path) -> None:
    restore(earlier_tree(tmp_path / "earlier"), tmp_path / "restored")
    with Appliance(tmp_path / "restored") as server, httpx.Client(base_url=server.url) as http:
        whole, half = (http.get(f"/api/sessions/{name}").json() for name in ("whole", "half"))
        recent = [session["sessionId"] for session in http.get("/api/query/recent").json()]
        creation, *_ = http.get("/api/sessions/whole/events").json()["items"]
    assert recent == ["whole", "half", "alone"]
    metadata = {
        "userId": "alice", "created": "2026-02-13T20:00:00.000Z", "updated": "2026-02-13T20:09:00.000Z",
        "status": "completed", "model": "opus", "yoloMode": True, "parentSession": "half", "tags": ["x"],
        "tokenUsage": {"input": 5, "output": 6, "total": 11}, "team": {"name": "blue"}, "phase": "testing",
    }  # fmt: skip
    assert {name: whole["metadata"][name] for name in metadata} == metadata
    assert whole["metadata"]["metrics"]["toolCalls"] == 9
    assert whole["initial"]["source"] == "cli" and whole["initial"]["mine"] == 1
    assert whole["state"]["goals"][0]["status"] == "completed"
    assert [entry["timestamp"] for entry in whole["actions"]] == [
        "2026-02-13T20:01:00.000Z",
        "2026-02-13T21:03:00+01:00",
    ]
    assert whole["responses"][0]["cursor"] == whole["actions"][0]["cursor"] + 1
    assert (whole["final"]["outcome"], whole["final"]["finalResponse"]) == ("built", "done")
    assert creation["data"]["earlier"]["final"]["odd"] is True
    assert half["metadata"]["subsessions"] == ["whole"]
    assert [entry["type"] for entry in half["actions"]] == ["a", "b", "c", "unknown"]
    assert half["metadata"]["earlier"]["model"] == 7


@pytest.mark.parametrize("name", ["metadata.json", "initial.json", "state.json", "final.json", "actions.jsonl"])
def test_an_earlier_session_without_one_of_its_files_is_restored(tmp_path: Path, name: str) -> None:
    tree = earlier_tree(tmp_path / "earlier")
    (tree / "sessions" / "whole" / name).unlink()
    restored = restore(tree, tmp_path / "restored")
    assert restored.earlier == 3
    assert (f"sessions/whole/{name}: is missing" in restored.odd) == (name != "final.json")


def test_what_the_earlier_service_left_is_not_written_over(tmp_path: Path) -> None:
    """Its folder can be taken as SESSIONS_DIR as it is: its files are put aside, not lost."""
    folder = earlier_tree(tmp_path / "sessions")
    (folder / "index.json").write_text('{"whole": {"userId": "alice"}}')
    before = contents(folder)
    with Appliance(folder) as server:
        httpx.put(f"{server.url}/api/sessions/whole", json={"userId": "dora"}).raise_for_status()
        eventually(lambda: (folder / "sessions" / "whole" / "events.jsonl").exists())
        server.stop()
    after = contents(folder)
    assert after["set-aside/index.json.1"] == before["index.json"]
    for name, found in before.items():
        if name.startswith("sessions/whole/"):
            assert after[name.replace("sessions/whole/", "set-aside/sessions.whole.1/")] == found
        elif name not in ("index.json", "sessions/whole"):
            assert after[name] == found


# --------------------------------------------------------------------- command


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return export(Path(os.devnull), *arguments)


def test_the_command_says_what_it_did_and_whether_all_was_well(source: Database, tmp_path: Path) -> None:
    write_tree(source.path, source.path.parent)
    into = tmp_path / "restored"
    done = command("restore", source.path.parent, "--into", into)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"10 events are in {into / 'sessions.db'}\n"
    again = command("restore", source.path.parent, "--into", into)
    assert again.returncode == 1 and "--newer" in again.stderr
    odd = command("restore", earlier_tree(tmp_path / "earlier"), "--into", tmp_path / "other")
    assert odd.returncode == 1 and "sessions/alone/initial.json: is missing" in odd.stdout


def test_a_tree_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = command("restore", tmp_path / "nowhere", "--into", tmp_path / "restored")
    assert done.returncode == 1 and "nowhere" in done.stderr
