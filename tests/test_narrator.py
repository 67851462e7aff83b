"""What several hooks, programs and prompts tell of one session is told once, by whom it was, and why it ended.

The agent's side says what only it knows, and the store makes events of it: here both are at work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hook_agent import HookNarrator, tells_something_new
from sessionstore.adapters.claude_code import events_of_line

Json = dict[str, Any]

TOOL = "toolu_01AbCdEfGhIjKlMnOpQrStUv"
MAIN, OTHER, THIRD = "11111111-aaaa", "22222222-bbbb", "33333333-cccc"


class Told:
    """Records of hooks as the hook command writes them, each a second after the other, and what is told of them."""

    def __init__(self, session: str | None = None) -> None:
        self.session = session
        self.narrator = HookNarrator()
        self.records = 0

    def record(self, payload: Json, at: float | None = None, **known: object) -> bytes:
        self.records += 1
        seconds = 3 * self.records if at is None else at
        moment = f"2026-02-13T20:{int(seconds // 60):02}:{seconds % 60:06.3f}Z"
        head = {"sessionId": self.session, "eventId": f"event-{self.records}", "timestamp": moment, **known}
        return f'{json.dumps(head)[:-1]},"hook":{json.dumps(payload)}}}'.encode()

    def tell(self, name: str, claude: str = MAIN, at: float | None = None, **members: object) -> list[Json]:
        known = {"ppid": members.pop("ppid")} if "ppid" in members else {}
        payload = {"session_id": claude, "cwd": "/work", "hook_event_name": name, **members}
        told = self.narrator.line(self.record(payload, at, **known))
        line: Json = json.loads(told or "{}")
        return events_of_line(line, line.pop("data")) if line else []

    def one(self, name: str, claude: str = MAIN, **members: Any) -> Json:
        (event,) = self.tell(name, claude, **members)
        return event


def kinds(events: list[Json]) -> list[str]:
    return [event["data"].get("type", event["type"]) for event in events]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def shared() -> Told:
    """SESSION_ID is set."""
    return Told("build-7")


# ------------------------------------------------------------------------ once


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("UserPromptSubmit", {"prompt": "go on"}),
        ("Stop", {"last_assistant_message": "Done", "background_tasks": []}),
        ("SessionStart", {"source": "startup"}),
        ("SubagentStart", {"agent_id": "a5b6727b527703f7d", "agent_type": "Explore"}),
        ("TaskCreated", {"task_id": "1", "task_subject": "Build"}),
        ("PreToolUse", {"tool_name": "Bash", "tool_use_id": "call_0", "tool_input": {"command": "ls"}}),
    ],
)
def test_what_two_hooks_tell_within_two_seconds_is_one(told: Told, name: str, members: Json) -> None:
    assert len(told.tell(name, at=10.0, **members)) == 1
    assert told.tell(name, at=11.9, **members) == []
    assert len(told.tell(name, at=12.1, **members)) == 1  # a person may say the same again
    assert len(told.tell(name, at=12.2, **members, more=1)) == 1
    assert len(told.tell(name, OTHER, at=12.2, **members)) == 1


def test_what_comes_again_after_another_turn_is_not_the_same(told: Told) -> None:
    """A session that is resumed twice within two seconds, by programs that answer at once."""
    order = [
        ("SessionStart", {"source": "resume"}),
        ("UserPromptSubmit", {"prompt": "go"}),
        ("Stop", {}),
        ("SessionEnd", {}),
    ]
    ids = [e["eventId"] for _ in range(2) for name, more in order for e in told.tell(name, at=10.0, **more)]
    assert len(set(ids)) == len(ids) == 8
    twice = [name for name, more in order for _ in range(2) for _ in told.tell(name, at=10.0, **more)]
    assert twice == [name for name, _ in order]  # each told by two hooks


def test_the_same_record_again_is_the_same_event_and_not_a_second_hooks(told: Told) -> None:
    record = told.record({"session_id": MAIN, "hook_event_name": "UserPromptSubmit", "prompt": "go"})
    first = told.narrator.line(record)
    assert first and told.narrator.line(record) == first


def test_a_call_with_an_id_of_its_own_has_the_id_of_its_event_from_it(told: Told) -> None:
    call: Json = {"tool_name": "Bash", "tool_use_id": TOOL, "tool_input": {"command": "ls"}}
    before, again = told.one("PreToolUse", **call), told.one("PreToolUse", **call, prompt_id="p", slug="x")
    assert before["eventId"] == again["eventId"] == f"PreToolUse-{TOOL}"
    assert told.one("PostToolUse", **call)["eventId"] == f"PostToolUse-{TOOL}"


def test_calls_whose_ids_begin_anew_are_calls_of_their_own(told: Told) -> None:
    call: Json = {"tool_name": "Bash", "tool_use_id": "call_0", "tool_input": {"command": "date"}, "prompt_id": "p"}
    order = ["PreToolUse", "PreToolUse", "PostToolUse", "PostToolUse"]
    ids = [e["eventId"] for _ in range(2) for name in order for e in told.tell(name, at=10.0, **call)]
    assert len(set(ids)) == len(ids) == 4


def test_what_is_no_hooks_record_stays_as_it_is(told: Told) -> None:
    line = b'{"type":"action","sessionId":"s","data":{"type":"x","hook":1}}'
    assert told.narrator.line(line) == line
    with pytest.raises(ValueError, match="Extra data"):
        told.narrator.line(told.record({})[:-1] + b',"sessionId":{}}')


def test_the_state_is_json_and_all_that_is_known(shared: Told) -> None:
    shared.one("SessionStart", source="startup", ppid=os.getpid())
    shared.one("SessionStart", OTHER, source="startup")
    told_at = shared.tell("UserPromptSubmit", at=50.0, prompt="go")
    assert len(told_at) == 1
    shared.narrator = HookNarrator(json.loads(json.dumps(shared.narrator.state)))
    assert shared.tell("UserPromptSubmit", at=50.5, prompt="go") == []
    assert shared.one("PreToolUse", OTHER)["agentId"] == "claude-22222222"
    assert "agentId" not in shared.one("PreToolUse")


def test_what_is_kept_does_not_grow_for_ever(told: Told) -> None:
    for number in range(1000):
        told.tell("SessionEnd", f"claude-{number}", reason="clear")
    assert len(json.dumps(told.narrator.state)) < 100_000


# ---------------------------------------------------------------------- batches


def batch(*results: tuple[str, object], **members: object) -> Json:
    calls = [
        {"tool_name": "Bash", "tool_input": {"n": n}, "tool_use_id": f"{TOOL}{n}", "tool_response": response}
        for n, (_, response) in enumerate(results)
    ]
    return {"hook_event_name": "PostToolBatch", "tool_calls": calls, **members}


REFUSED = ("refused", "<tool_use_error>Error: No such tool available: Grep</tool_use_error>")
REJECTED = ("rejected", "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. …)")
DENIED = ("denied", [{"type": "text", "text": "Permission to use Bash with command rm has been denied."}])
TOLD = ("told", "hello"), ("told", [{"type": "text", "text": "hello"}]), ("told", None), ("told", "Exit code 3\nboom")


def test_of_a_batch_only_those_calls_are_told_that_no_other_hook_tells(told: Told) -> None:
    calls = batch(TOLD[0], REFUSED, REJECTED, DENIED, *TOLD[1:])["tool_calls"]
    events = told.tell("PostToolBatch", tool_calls=calls)
    assert kinds(events) == ["tool_call", "tool_error", "tool_error", "tool_error"]
    refused, failed, rejected, denied = (event["data"] for event in events)
    assert (refused["refused"], refused["input"], "error" in refused) == (True, {"n": 1}, False)
    assert (failed["refused"], failed["error"]) == (True, "Error: No such tool available: Grep")
    assert (rejected["rejected"], "refused" in rejected) == (True, False)
    assert (denied["refused"], denied["error"].startswith("Permission to use")) == (True, True)
    assert [event["eventId"].partition("-")[0] for event in events] == ["PreToolUse", *["PostToolUseFailure"] * 3]
    assert {event["data"]["hook_event_name"] for event in events} == {"PostToolBatch"}


@pytest.mark.parametrize("calls", [None, {}, "x", [None, 5, "x"], [{}], [{"tool_response": {}}], [{"tool_use_id": {}}]])
def test_an_odd_batch_tells_nothing(told: Told, calls: object) -> None:
    assert told.tell("PostToolBatch", tool_calls=calls) == []


@pytest.mark.parametrize("spaces", [None, (",", ":"), (" , ", " : ")])
def test_a_batch_that_tells_nothing_is_known_by_its_bytes(spaces: tuple[str, str] | None) -> None:
    def is_told(payload: Json) -> bool:
        return tells_something_new(json.dumps({"session_id": MAIN, **payload}, separators=spaces).encode())

    assert not any(is_told(batch(result)) for result in TOLD)
    assert all(is_told(batch(TOLD[0], result)) for result in (REFUSED, REJECTED, DENIED))
    assert is_told({"hook_event_name": "UserPromptSubmit", "prompt": "why is there no PostToolBatch hook?"})
    quoted = '{"hook_event_name":"PostToolBatch"}'
    assert is_told({"prompt": quoted, "hook_event_name": "UserPromptSubmit"})
    assert is_told({"hook_event_name": "PreToolUse", "tool_input": {"content": quoted}})
    assert tells_something_new(b"") and tells_something_new(b"\xff{")


# ---------------------------------------------------- programs of one session


def test_another_program_beside_the_one_that_goes_on_is_a_lane(shared: Told) -> None:
    shared.one("SessionStart", source="startup")
    lane = "claude-22222222"
    begun = shared.one("SessionStart", OTHER, source="startup")
    assert (begun["type"], begun["agentId"], begun["data"]["agentId"]) == ("agent_spawned", lane, lane)
    prompt = shared.one("UserPromptSubmit", OTHER, prompt="look")
    assert (prompt["agentId"], prompt["data"]["machineMade"]) == (lane, True)
    assert shared.one("SessionStart", OTHER, source="compact")["data"]["type"] == "session_start"
    asked = shared.one("PermissionRequest", OTHER, tool_name="Bash", tool_input={"command": "rm x"})
    assert (asked["agentId"], asked["data"]["attention"]["message"]) == (lane, "Bash: rm x")
    assert "attention" not in shared.one("Stop", OTHER, last_assistant_message="done")["data"]
    below = shared.one("SubagentStart", OTHER, agent_id="a1", agent_type="Explore")
    assert (below["agentId"], below["data"]["parentAgentId"]) == ("a1", lane)
    ended = shared.one("SessionEnd", OTHER, reason="other")
    assert (ended["type"], ended["data"]["agentId"], ended["data"]["status"]) == ("agent_completed", lane, "completed")
    assert "attention" in shared.one("Stop", last_assistant_message="done")["data"]
    assert shared.one("SessionEnd", reason="other")["type"] == "session_finalized"


def test_without_a_session_of_its_own_each_program_has_its_session(told: Told) -> None:
    told.one("SessionStart", source="startup")
    assert told.one("SessionStart", OTHER, source="startup")["type"] == "session_created"


@pytest.mark.parametrize("reason", ["clear", "resume", "other", "prompt_input_exit"])
def test_who_comes_after_the_end_goes_on(shared: Told, reason: str) -> None:
    shared.one("SessionStart", source="startup")
    shared.one("SessionEnd", reason=reason)
    assert "agentId" not in shared.one("UserPromptSubmit", OTHER, prompt="go")
    assert shared.one("SessionEnd", OTHER, reason="other")["type"] == "session_finalized"


def test_a_cleared_conversation_goes_on_also_where_its_start_comes_before_the_end(shared: Told) -> None:
    shared.one("SessionStart", source="startup")
    assert shared.one("SessionStart", OTHER, source="clear")["type"] == "session_created"
    assert shared.one("SessionEnd", reason="clear")["data"]["type"] == "session_end"
    assert "attention" in shared.one("Stop", OTHER)["data"]


def test_the_late_end_of_a_program_does_not_end_the_one_that_took_its_place(shared: Told) -> None:
    shared.one("SessionStart", source="startup")
    shared.one("SessionStart", OTHER, source="clear")
    assert shared.one("SessionEnd", reason="other")["data"]["type"] == "session_end"
    assert shared.one("SessionEnd", OTHER, reason="other")["type"] == "session_finalized"


def test_a_compacted_or_resumed_conversation_is_the_one_that_it_was(shared: Told) -> None:
    shared.one("SessionStart", source="startup", ppid=os.getpid())
    assert shared.one("SessionStart", source="compact")["type"] == "session_created"
    shared.one("SessionStart", source="startup", ppid=os.getpid())
    assert shared.one("SessionStart", OTHER, source="resume", ppid=os.getpid())["type"] == "session_created"
    assert shared.one("SessionStart", THIRD, source="resume", ppid=os.getppid())["type"] == "agent_spawned"


def test_who_comes_after_a_program_that_was_killed_goes_on(shared: Told) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        shared.one("SessionStart", source="startup", ppid=process.pid)
        shared.one("UserPromptSubmit", prompt="go", ppid=process.pid)
        assert shared.one("SessionStart", OTHER, source="startup", ppid=os.getpid())["type"] == "agent_spawned"
        process.kill()
    shared.one("PreToolUse", ppid=process.pid)  # which was said before that
    assert shared.one("SessionStart", THIRD, source="startup", ppid=os.getpid())["type"] == "session_created"
    assert shared.one("PreToolUse", OTHER)["agentId"] == "claude-22222222"  # what was a lane stays one


def test_a_parent_that_changes_was_a_shell_and_says_nothing(shared: Told) -> None:
    for name in ("SessionStart", "UserPromptSubmit"):
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            pass
        shared.one(name, source="startup", ppid=process.pid)
    assert shared.one("SessionStart", OTHER, source="startup", ppid=os.getpid())["type"] == "agent_spawned"


# --------------------------------------------------------------- why it ended


def transcript(path: Path, *entries: Json) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def api_error(text: str) -> Json:
    message = {"role": "assistant", "model": "<synthetic>", "content": [{"type": "text", "text": text}]}
    return {"type": "assistant", "isApiErrorMessage": True, "error": "unknown", "message": message}


PROMPT: Json = {"type": "user", "message": {"role": "user", "content": "go"}}
SAID: Json = {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": "Done"}]}}
COST: Json = {"type": "cost-state", "totalCostUSD": 0.1}


def test_an_error_of_the_api_that_no_hook_told_is_told_at_the_end(told: Told, tmp_path: Path) -> None:
    aside = {**SAID, "isSidechain": True}
    path = transcript(tmp_path / "a.jsonl", PROMPT, api_error("API Error: 400 no"), aside, COST)
    ended = told.one("SessionEnd", reason="other", transcript_path=path)
    assert (ended["type"], ended["data"]["error"], ended["data"]["reason"]) == (
        "session_finalized",
        "API Error: 400 no",
        "other",
    )
    assert "status" not in ended["data"]


def test_an_error_is_told_in_text_that_can_be(told: Told, tmp_path: Path) -> None:
    path = transcript(tmp_path / "a.jsonl", api_error("half \ud83d of a smile"))
    ended = told.one("SessionEnd", reason="other", transcript_path=path)
    assert ended["data"]["error"] == "half \ufffd of a smile"


@pytest.mark.parametrize(
    "entries", [[api_error("x"), PROMPT, SAID], [api_error("x"), PROMPT], [PROMPT, SAID, COST], []]
)
def test_an_error_that_was_got_over_is_not_told(told: Told, tmp_path: Path, entries: list[Json]) -> None:
    path = transcript(tmp_path / "a.jsonl", *entries)
    assert "error" not in told.one("SessionEnd", reason="other", transcript_path=path)["data"]


def test_an_error_that_was_told_is_not_told_again(told: Told, tmp_path: Path) -> None:
    path = transcript(tmp_path / "a.jsonl", PROMPT, api_error("API Error: 429"))
    told.one("UserPromptSubmit", prompt="go")
    told.one("StopFailure", error="rate_limit", last_assistant_message="API Error: 429")
    assert "error" not in told.one("SessionEnd", reason="other", transcript_path=path)["data"]
    told.one("UserPromptSubmit", prompt="again")
    assert "error" in told.one("SessionEnd", reason="other", transcript_path=path)["data"]


def test_a_transcript_is_a_file_and_only_its_end_is_read(told: Told, tmp_path: Path) -> None:
    good = transcript(tmp_path / "a.jsonl", PROMPT, api_error("x"))
    (tmp_path / "link.jsonl").symlink_to(good)
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "a.txt").write_text(Path(good).read_text())
    (tmp_path / "half.jsonl").write_bytes(b'\xff\n{"type":"assistant"\n[' + b"[" * 100_000 + b'"assistant"\n')
    for name in ("link.jsonl", "fifo.jsonl", "folder.jsonl", "a.txt", "half.jsonl", "none.jsonl", "\0.jsonl"):
        path = f"{tmp_path}/{name}"
        assert "error" not in told.one("SessionEnd", reason="other", transcript_path=path)["data"], name
    for odd in (None, 5, "", ".jsonl"):
        assert "error" not in told.one("SessionEnd", reason="other", transcript_path=odd)["data"]
    long = transcript(tmp_path / "long.jsonl", api_error("early"), {"type": "x", "text": "x" * (300 << 10)})
    assert "error" not in told.one("SessionEnd", reason="other", transcript_path=long)["data"]
    whole = transcript(tmp_path / "whole.jsonl", {"type": "x", "text": "x" * (300 << 10)}, api_error("late"))
    assert told.one("SessionEnd", reason="other", transcript_path=whole)["data"]["error"] == "late"


# ------------------------------------------------------ what only a transcript says


def compact(path: Path, *entries: Any) -> str:
    """As Claude Code writes it."""
    path.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))
    return str(path)


def facts(told: Told, hook: str, path: str) -> list[Json]:
    return [e["data"] for e in told.tell(hook, transcript_path=path) if e["type"] == "metadata_updated"]


def test_the_title_of_a_transcript_is_told_when_it_is_new(told: Told, tmp_path: Path) -> None:
    said: list[Json] = [{"type": "user", "version": "2.1.330", "forkedFrom": {"sessionId": OTHER, "messageUuid": "m"}}]
    path = compact(tmp_path / "t.jsonl", *said)
    assert facts(told, "UserPromptSubmit", path) == []
    assert facts(told, "Stop", path) == [{"claudeCodeVersion": "2.1.330", "forkedFrom": OTHER}]
    assert facts(told, "Stop", path) == []
    said.append({"type": "ai-title", "aiTitle": 'Mend the "cart"'})
    path = compact(tmp_path / "t.jsonl", *said)
    (new,) = facts(told, "Stop", path)
    assert (new["title"], new["titleFrom"]) == ('Mend the "cart"', "agent")
    said += [{"type": "custom-title", "customTitle": "By /rename"}, {"type": "ai-title", "aiTitle": "Later"}]
    (new,) = facts(told, "SessionEnd", compact(tmp_path / "t.jsonl", *said))
    assert new["title"] == "By /rename"


@pytest.mark.parametrize("entry", [{"type": "user", "message": '{"type":"ai-title","aiTitle":"No"}'}, ["ai-title"], 5])
def test_what_is_said_in_a_transcript_is_no_title(told: Told, tmp_path: Path, entry: Any) -> None:
    assert facts(told, "Stop", compact(tmp_path / "t.jsonl", entry)) == []


def test_a_transcript_has_no_title_where_there_is_none(told: Told, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"type":"ai-title","aiTitle":\n{"type":"ai-title"}\n[]')
    assert facts(told, "Stop", str(tmp_path / "t.jsonl")) == []
    assert facts(told, "Stop", "/dev/zero.jsonl") == []
