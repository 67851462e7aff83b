"""Conversations from before there was a store: what they say becomes events, once, and never what hooks have told."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.commands import export, is_done, is_refused
from tests.peers import eventually, resident_bytes
from tests.test_conversation import calls, got, hook, says, text, user

numbers = count(1)
TAR = {"content-type": "application/x-tar"}
NDJSON = {"content-type": "application/x-ndjson"}
Lines = list[dict[str, Any]]


@pytest.fixture
def claude_id() -> str:
    return str(uuid.uuid4())


def jsonl(lines: Lines) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def imported(http: httpx.Client, files: dict[str, bytes], **query: str) -> dict[str, Any]:
    answer = http.post("/api/import", content=tar(files), headers=TAR, params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000Z"


def gives(tool_use_id: str, content: Any, structured: Any = None, **more: Any) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": tool_use_id, "content": content} | more
    return user([result], toolUseResult=structured)


def conversation(claude_id: str) -> Lines:
    """With a call, one that fails, a sub-agent; a second apart each."""
    key = claude_id[:8]
    lines = [
        {"type": "ai-title", "aiTitle": "Build a thing"},
        user("Build it", promptId=f"p-{key}", cwd="/work/web"),
        says(f"m1-{key}", text("I look"), tokens=2),
        says(f"m1-{key}", calls("Bash", f"toolu_{key}aaaa0001", command="ls"), tokens=9),
        gives(f"toolu_{key}aaaa0001", "a.py", {"stdout": "a.py"}),
        says(f"m2-{key}", calls("Agent", f"toolu_{key}aaaa0002", description="look", subagent_type="Explore")),
        gives(f"toolu_{key}aaaa0002", "found", {"agentId": f"ag{key}", "content": []}),
        says(f"m3-{key}", calls("Read", f"toolu_{key}aaaa0003", file_path="b")),
        gives(f"toolu_{key}aaaa0003", "no such file", is_error=True),
        says(f"m4-{key}", text("Done")),
    ]
    return [line | {"timestamp": at(n), "sessionId": claude_id} for n, line in enumerate(lines)]


def inner(claude_id: str) -> Lines:
    key = claude_id[:8]
    lines = [
        user("look"),
        says(f"n1-{key}", calls("Bash", f"toolu_{key}bbbb0001", command="pwd"), tokens=1),
        gives(f"toolu_{key}bbbb0001", "/work"),
        says(f"n2-{key}", text("found"), tokens=1),
    ]
    return [line | {"timestamp": at(6), "agentId": f"ag{key}", "isSidechain": True} for line in lines]


def folder_of(claude_id: str) -> dict[str, bytes]:
    beside = f"projects/-work-web/{claude_id}/subagents/agent-ag{claude_id[:8]}"
    return {
        f"projects/-work-web/{claude_id}.jsonl": jsonl(conversation(claude_id)),
        f"{beside}.jsonl": jsonl(inner(claude_id)),
        f"{beside}.meta.json": json.dumps({"toolUseId": f"toolu_{claude_id[:8]}aaaa0002"}).encode(),
        f"projects/-work-web/{claude_id}/tool-results/x.txt": b"large",
    }


def events_of(http: httpx.Client, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get(f"/api/sessions/{session}/events?limit=1000").json()["items"]
    return found


def kinds(http: httpx.Client, session: str) -> list[str]:
    return [event["data"].get("type", event["type"]) for event in events_of(http, session) if event["type"] in LOGGED]


LOGGED = ("action", "response")


def test_a_folder_of_conversations_comes_in_whole_and_once(http: httpx.Client, claude_id: str) -> None:
    files = folder_of(claude_id)
    told = imported(http, files, userId="alice")
    assert (told["files"], told["passedOver"], told["refused"], told["sessions"]) == (3, 1, [], 1)
    assert (told["lines"], told["usage"]) == (14, 6)
    expected = ["prompt", "tool_call", "tool_result", "tool_call", "tool_result", "tool_call", "tool_error"]
    expected += ["assistant_message", "tool_call", "tool_result"]
    assert kinds(http, claude_id) == expected
    document = http.get(f"/api/sessions/{claude_id}").json()
    metadata = document["metadata"]
    assert (metadata["userId"], metadata["title"], metadata["status"]) == ("alice", "Build a thing", "completed")
    assert (metadata["created"], metadata["ended"]) == (at(1), at(9))
    assert metadata["where"]["cwd"] == "/work/web"
    (agent,) = document["state"]["agents"]["spawned"]
    assert (agent["type"], agent["task"], agent["status"]) == ("Explore", "look", "completed")
    assert metadata["tokenUsage"]["output"] == 11
    shown = got(http, claude_id)
    assert shown["items"][2]["blocks"][0]["agent"]["messages"][-1]["blocks"] == [text("found")]
    before = (events_of(http, claude_id), shown, http.get(f"/api/sessions/{claude_id}/usage").json())
    again = imported(http, files, userId="bob")
    assert (again["lines"], again["events"], again["usage"], again["refused"]) == (0, 0, 0, [])
    after = (events_of(http, claude_id), got(http, claude_id), http.get(f"/api/sessions/{claude_id}/usage").json())
    assert after == before


def test_an_agents_conversation_may_come_before_that_of_its_caller(http: httpx.Client, claude_id: str) -> None:
    files = dict(reversed(folder_of(claude_id).items()))
    assert imported(http, files)["refused"] == []
    (agent,) = http.get(f"/api/sessions/{claude_id}").json()["state"]["agents"]["spawned"]
    assert (agent["type"], agent["task"], agent["status"]) == ("Explore", "look", "completed")
    assert imported(http, files)["events"] == 0


def test_a_file_that_has_grown_goes_on(http: httpx.Client, claude_id: str) -> None:
    lines = conversation(claude_id)
    path = f"-work/{claude_id}.jsonl"
    whole = jsonl(lines)
    cut = whole[: len(jsonl(lines[:5])) + 20]
    assert imported(http, {path: cut})["lines"] == 5
    assert kinds(http, claude_id) == ["prompt", "tool_call", "tool_result"]
    told = imported(http, {path: whole})
    assert (told["lines"], told["refused"]) == (5, [])
    assert kinds(http, claude_id)[3:] == ["tool_call", "tool_result", "tool_call", "tool_error", "assistant_message"]
    metadata = http.get(f"/api/sessions/{claude_id}").json()["metadata"]
    assert (metadata["status"], metadata["ended"]) == ("completed", at(9))
    older = imported(http, {path: cut})
    assert (older["lines"], older["events"]) == (0, 0)
    assert "longer" in older["refused"][0]["why"]
    other = imported(http, {path: whole.replace(b"Build it", b"Break it") + whole})
    assert other["lines"] == 0
    assert "another file" in other["refused"][0]["why"]
    lines_there = http.get(f"/api/transcripts/{path.removesuffix('.jsonl')}".replace("/-work/", "/-work/"))
    assert lines_there.content == whole


def tell_by_hooks(http: httpx.Client, session: str, claude_id: str) -> None:
    """The same as the lines say, as far as the first call."""
    key = claude_id[:8]
    bash = {"tool_name": "Bash", "tool_use_id": f"toolu_{key}aaaa0001", "tool_input": {"command": "ls"}}
    payloads: Lines = [
        {"hook_event_name": "SessionStart", "source": "startup"},
        {"hook_event_name": "UserPromptSubmit", "prompt": "Build it", "prompt_id": f"p-{key}"},
        {"hook_event_name": "PreToolUse", **bash},
        {"hook_event_name": "PostToolUse", "tool_response": {"stdout": "a.py", "stderr": ""}, **bash},
    ]
    lines = [{"type": "hook", "sessionId": session, "data": one | {"session_id": claude_id}} for one in payloads]
    answer = http.post("/api/events", content=jsonl(lines), headers=NDJSON)
    assert answer.json()["accepted"] == 4, answer.text


@pytest.mark.parametrize("has_another_name", [False, True])
def test_what_hooks_have_told_is_not_told_again(http: httpx.Client, claude_id: str, has_another_name: bool) -> None:
    session = f"run-{claude_id}" if has_another_name else claude_id
    tell_by_hooks(http, session, claude_id)
    before = events_of(http, session)
    told = imported(http, folder_of(claude_id))
    assert told["refused"] == []
    added = [event for event in events_of(http, session) if event["cursor"] > before[-1]["cursor"]]
    logged = [event["data"]["type"] for event in added if event["type"] in LOGGED]
    assert logged == ["tool_call", "tool_result", "tool_call", "tool_error", "tool_call", "tool_result"]
    assert not [event for event in added if event["type"] in ("session_created", "session_finalized")]
    assert http.get(f"/api/sessions/{session}").json()["metadata"]["status"] != "completed"
    assert got(http, session)["from"] == "transcript"
    if has_another_name:
        assert http.get(f"/api/sessions/{claude_id}").status_code == 404


def test_a_hook_that_comes_later_changes_nothing(http: httpx.Client, claude_id: str) -> None:
    imported(http, folder_of(claude_id))
    before = [event["data"].get("toolUseId") for event in events_of(http, claude_id)]
    key = claude_id[:8]
    bash = {"tool_name": "Bash", "tool_use_id": f"toolu_{key}aaaa0001", "tool_input": {"command": "ls"}}
    hook(http, claude_id, "PreToolUse", **bash)
    hook(http, claude_id, "PostToolUse", tool_response={"stdout": "a.py", "stderr": ""}, duration_ms=5, **bash)
    assert [event["data"].get("toolUseId") for event in events_of(http, claude_id)] == before


def test_lines_that_are_kept_already_still_tell_what_no_hook_has(http: httpx.Client, claude_id: str) -> None:
    body = jsonl(conversation(claude_id))
    headers = NDJSON | {"x-session-id": f"of-{claude_id}"}
    http.post(f"/api/transcripts/-work/{claude_id}", content=body, headers=headers).raise_for_status()
    told = imported(http, {f"-work/{claude_id}.jsonl": body})
    assert (told["lines"], told["refused"]) == (0, [])
    assert "tool_call" in kinds(http, f"of-{claude_id}")


def test_lines_with_their_keys(http: httpx.Client, claude_id: str) -> None:
    query = {"folder": "-work", "session": claude_id, "userId": "carol"}
    answer = http.post("/api/import", content=jsonl(conversation(claude_id)), headers=NDJSON, params=query)
    assert (answer.status_code, answer.json()["lines"]) == (200, 10)
    assert http.get(f"/api/sessions/{claude_id}").json()["metadata"]["userId"] == "carol"
    assert http.post("/api/import", content=b"{}\n", headers=NDJSON).status_code == 422


def test_an_execution_file_of_a_ci_action(http: httpx.Client, claude_id: str) -> None:
    main = [line for line in conversation(claude_id) if "message" in line]
    messages = [{"type": "system", "subtype": "init"}, *main]
    messages += [line | {"parent_tool_use_id": f"toolu_{claude_id[:8]}aaaa0002"} for line in inner(claude_id)]
    messages += [{"type": "result", "total_cost_usd": 1}]
    document = json.dumps([one | {"session_id": claude_id} for one in messages], indent=2).encode()
    told = imported(http, {"claude-execution-output.json": document})
    assert told["refused"] == []
    assert kinds(http, claude_id).count("tool_call") == 4
    shown = got(http, claude_id)["items"]
    assert shown[2]["blocks"][0]["agent"]["messages"][-1]["blocks"] == [text("found")]
    assert imported(http, {"claude-execution-output.json": document})["events"] == 0


def test_flat_files_of_old_versions_belong_to_their_session(http: httpx.Client, claude_id: str) -> None:
    lines = [line | {"sessionId": claude_id} for line in inner(claude_id)]
    told = imported(
        http, {"-work/agent-1a2b.jsonl": jsonl(lines), f"-work/{claude_id}.jsonl": jsonl(conversation(claude_id))}
    )
    assert told["refused"] == []
    assert {agent["agentId"] for agent in got(http, claude_id)["agents"]} == {"1a2b"}


@pytest.mark.parametrize("version", ["new", "old", "older"])
def test_a_fork_is_a_session_of_its_own(http: httpx.Client, claude_id: str, version: str) -> None:
    imported(http, folder_of(claude_id))
    fork = str(uuid.uuid4())
    about: dict[str, Any] = {"forkedFrom": {"sessionId": claude_id}, "sessionId": fork}
    new: dict[str, Any] = {"sessionId": fork, "promptId": f"p-{fork}"}
    copied = [line | {"new": new, "old": about, "older": {}}[version] for line in conversation(claude_id)]
    copied[1] |= {"promptSource": "sdk"}
    own = [
        user("Go on", promptId=f"p-{fork}", promptSource="sdk"),
        says(f"f1-{fork}", calls("Bash", f"toolu_{fork[:8]}cccc0001", command="id")),
    ]
    before = kinds(http, claude_id)
    told = imported(http, {f"-work/{fork}.jsonl": jsonl([*copied, *(line | {"sessionId": fork} for line in own)])})
    assert told["refused"] == []
    assert kinds(http, fork) == ["prompt", "tool_call"]
    assert kinds(http, claude_id) == before
    assert len(got(http, fork)["items"]) == 7
    assert http.get(f"/api/sessions/{fork}").json()["metadata"]["tokenUsage"]["output"] == 0  # it counts where it was


def test_odd_lines_are_kept_and_passed_over(http: httpx.Client, claude_id: str) -> None:
    odd = [b"{", b"\xff", b'{"type":"user","message":{"content":7}}', b'{"type":"assistant","message":{"content":[5]}}']
    odd += [b'{"type":"user","timestamp":"never","message":{"content":"\\ud800"}}', b"[" * 5000]
    odd += [b'{"type":"assistant","message":{"content":[{"type":"tool_use","id":7,"name":[]}]}}', b'"']
    body = b"\n".join(odd) + b"\n"
    told = imported(http, {f"-work/{claude_id}.jsonl": body})
    assert (told["lines"], told["refused"]) == (8, [])
    assert http.get(f"/api/transcripts/-work/{claude_id}").content == body


@pytest.mark.parametrize(
    "path",
    [
        f"{'x' * 600}/5c1f2f1e-0000-4000-8000-000000000000.jsonl",
        ".../5c1f2f1e-0000-4000-8000-000000000000.jsonl",
        "-\udcff/5c1f2f1e-0000-4000-8000-000000000000.jsonl",
        "-w/5c1f2f1e-0000-4000-8000-000000000000/subagents/..jsonl",
        f"-w/5c1f2f1e-0000-4000-8000-000000000000/subagents/{'x' * 600}.meta.json",
    ],
)
def test_a_file_that_nobody_could_ask_for_is_refused_and_the_others_come_in(
    http: httpx.Client, claude_id: str, path: str
) -> None:
    told = imported(http, {path: b'{"type":"x"}\n', f"-work/{claude_id}.jsonl": b'{"type":"x"}\n'})
    assert (told["lines"], len(told["refused"])) == (1, 1)


@pytest.mark.parametrize("call", ["../../x", "x" * 600, "a\0b"])
def test_a_call_of_an_execution_file_leads_nowhere(http: httpx.Client, claude_id: str, call: str) -> None:
    message = {"type": "user", "session_id": claude_id, "message": {"content": "x"}}
    told = imported(
        http, {"claude-execution-output.json": json.dumps([message | {"parent_tool_use_id": call}]).encode()}
    )
    assert (told["lines"], len(told["refused"])) == (0, 1)
    assert http.get(f"/api/transcripts/ci/{claude_id}/subkeys").json() == []


# ---------------------------------------------------------------------------- hostile


def with_member(kind: bytes, name: str, link: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return packed.getvalue()


NAME = "-work/5c1f2f1e-0000-4000-8000-000000000000.jsonl"


def long_header(kind: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 30
    return info.tobuf() + b"27 path=x\n" * 1000


HOSTILE = {
    "a symbolic link": with_member(tarfile.SYMTYPE, NAME, "/etc/passwd"),
    "a hard link": with_member(tarfile.LNKTYPE, NAME, "../x"),
    "a pipe": with_member(tarfile.FIFOTYPE, NAME),
    "a device": with_member(tarfile.CHRTYPE, NAME),
    "no path below": tar({f"../{NAME}": b"{}\n"}, "w"),
    "is no path below": tar({f"/root/{NAME}": b"{}\n"}, "w"),
    "path below its": tar({f"a/../../{NAME}": b"{}\n"}, "w"),
    "is no tar": b"x" * 2048,
    "ends in the middle": tar({NAME: b"{}\n" * 4000}, "w")[:3000],
    "not compressed as": b"\x1f\x8b" + b"x" * 600,
    "more than 250 times": gzip.compress(tar({"big.bin": bytes(100 << 20)}, "w"), 9),
    "name in it is too long": long_header(tarfile.XHDTYPE),
    "name in it is too": long_header(tarfile.GNUTYPE_LONGNAME),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_a_hostile_tar_is_refused_with_clear_words(http: httpx.Client, why: str) -> None:
    answer = http.post("/api/import", content=HOSTILE[why], headers=TAR)
    assert (answer.status_code, why in answer.json()["detail"]) == (422, True), answer.text


def test_what_is_no_conversation_is_passed_over(http: httpx.Client) -> None:
    files = {"a/b.txt": b"x", "a/b/settings.json": b"{}", "x.jsonl": b"{}\n", f"{'d/' * 90}{'n' * 90}.bin": b"y"}
    told = imported(http, files)
    assert (told["files"], told["passedOver"]) == (0, 4)
    assert http.post("/api/import", content=b"", headers=TAR).json()["files"] == 0
    assert http.post("/api/import", content=b"{}", headers={"content-type": "application/json"}).status_code == 415


def test_only_who_may_delete_may_import(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = {"SESSIONS_TOKEN": "a" * 24, "SESSIONS_INGEST_TOKEN": "i" * 24, "SESSIONS_READ_TOKEN": "r" * 24}
    with Appliance(tmp_path_factory.mktemp("guarded"), env) as server:
        for letter, status in {"i": 403, "r": 403, "a": 200}.items():
            headers = TAR | {"authorization": f"Bearer {letter * 24}"}
            assert httpx.post(f"{server.url}/api/import", content=tar({}), headers=headers).status_code == status


@pytest.mark.long
def test_two_hundred_megabytes_come_in_and_are_read_in_constant_memory(tmp_path: Path) -> None:
    def lines(session: str, part: int) -> bytes:
        turns: Lines = []
        for n in range(20):
            name = f"00{part:05}{n:02}"
            turns += [user(f"prompt {name}", timestamp=at(1)), says(f"m{name}", text("a " * 2000))]
            turns += [says(f"m{name}", calls("Read", f"toolu_{session}{name}", file_path="x"))]
            turns += [
                gives(f"toolu_{session}{name}", "out " * 3000),
                {"type": "api-request-blob", "message": "x" * 8000},
            ]
        return jsonl(turns)

    def parts(session: str, megabytes: int) -> Iterator[bytes]:
        return (lines(session, part) for part in range(megabytes * 1_000_000 // len(lines(session, 0))))

    def settled(server: Appliance) -> int:
        eventually(lambda: httpx.get(f"{server.url}/health").json()["searchLag"] == 0)
        return resident_bytes(server.process.pid)

    with Appliance(tmp_path / "sessions") as server, httpx.Client(base_url=server.url, timeout=300) as client:
        befores = []
        for session, megabytes in (("warm", 100), ("whole", 200)):
            query = {"folder": "f", "session": session}
            answer = client.post("/api/import", params=query, content=parts(session, megabytes), headers=NDJSON)
            assert answer.status_code == 200, answer.text
            befores.append(settled(server))
        before, after = befores
        assert after < before + (64 << 20)
        for form in ("html", "markdown", "jsonl"):
            with client.stream("GET", f"/api/sessions/whole/conversation?format={form}") as written:
                assert sum(map(len, written.iter_bytes())) > 40_000_000
        assert settled(server) < before + (64 << 20)
        assert len(client.get("/api/sessions/whole/conversation?before=end").json()["items"]) > 50


# ---------------------------------------------------------------------------- command


def test_the_command_brings_a_folder_in(
    http: httpx.Client, appliance: Appliance, tmp_path: Path, claude_id: str
) -> None:
    for name, content in folder_of(claude_id).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"projects/-work-web/{uuid.uuid4()}.jsonl").symlink_to("/etc/passwd")
    command = ("import", tmp_path / "projects", "--user", "dora", "--url", appliance.url)
    ended = export(appliance.folder, *command)
    assert is_done(ended)
    assert ended.stdout.startswith("3 files: 14 lines, ")
    assert http.get(f"/api/sessions/{claude_id}").json()["metadata"]["userId"] == "dora"
    assert is_done(again := export(appliance.folder, *command))
    assert again.stdout == "3 files: 0 lines, 0 events and 0 reports of usage are new\n"


def test_the_command_says_what_is_wrong(appliance: Appliance, tmp_path: Path, claude_id: str) -> None:
    folder = appliance.folder
    assert is_refused(export(folder, "import", tmp_path / "none"), "There is no")
    assert is_refused(export(folder, "import", tmp_path), "There is no conversation in")
    (tmp_path / f"{claude_id}.jsonl").write_bytes(jsonl(conversation(claude_id)))
    assert is_refused(export(folder, "import", tmp_path, "--url", "http://127.0.0.1:9"), "cannot be reached", "--url")
