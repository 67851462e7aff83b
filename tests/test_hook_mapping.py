"""One Claude Code hook payload becomes one event of the store, and nothing of it is lost."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.adapters.claude_code import NATURAL_KEYS, Limits, claude_code_events, drafts_of_line, snake_case
from sessionstore.model.drafts import NAMED
from sessionstore.model.problems import Problem
from tests.repeats import examples

Json = dict[str, Any]

SOURCE = Path(__file__).parent.parent / "hook_agent.py"
CORPUS = Path(__file__).parent / "corpus" / "claude-code-hooks-2.1.330.jsonl"
PAYLOADS: list[Json] = [json.loads(line)["payload"] for line in CORPUS.read_text().splitlines()]
BY_HOOK: dict[str, list[Json]] = defaultdict(list)
for _payload in PAYLOADS:
    BY_HOOK[_payload["hook_event_name"]].append(_payload)


def names(text: str) -> list[str]:
    return text.split()


HOOKS = names(
    """PreToolUse PostToolUse PostToolUseFailure PostToolBatch Notification UserPromptSubmit UserPromptExpansion
    SessionStart SessionEnd Stop StopFailure SubagentStart SubagentStop PreCompact PostCompact PreModelSwitch
    PostModelSwitch PermissionRequest PermissionDenied Setup TeammateIdle TaskCreated TaskCompleted Elicitation
    ElicitationResult ConfigChange WorktreeCreate WorktreeRemove InstructionsLoaded CwdChanged FileChanged
    DirectoryAdded MessageDisplay"""
)
OWN_WORDS = ("<task-notification>", "<command-name>", "<command-message>", "<local-command-", "<system-reminder>")
NATURALLY_KEYED = names(
    "PreToolUse PostToolUse PostToolUseFailure PermissionDenied SubagentStart TaskCreated MessageDisplay"
)
TELLING_ID = {"SubagentStart": "agent_id", "TaskCreated": "task_id", "MessageDisplay": "message_id"}
TELLING_ID |= dict.fromkeys(names("PreToolUse PostToolUse PostToolUseFailure PermissionDenied"), "tool_use_id")
STORE_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def event_of(payload: Json, **given: str) -> Json:
    (event,) = claude_code_events(payload, **given)
    return event


def hook(name: str, **members: object) -> Json:
    return {"session_id": "5f2c", "hook_event_name": name, **members}


def data_of(payload: Json, **given: str) -> Json:
    data: Json = event_of(payload, **given)["data"]
    return data


def is_store_id(value: object) -> bool:
    return isinstance(value, str) and STORE_ID.fullmatch(value) is not None


# The table


def rest(payload: Json, *renamed: str) -> Json:
    return {name: value for name, value in payload.items() if name not in renamed}


def started(p: Json) -> tuple[str, Json]:
    config = {"config": {"model": p["model"]}} if "model" in p else {}
    there = {"where": {"cwd": p["cwd"]}}
    return "session_created", {"initial": {"source": "claude-code", **config}, "metadata": {**there, **p}}


def called(p: Json) -> Json:
    return {
        "toolUseId": p["tool_use_id"],
        "tool": p["tool_name"],
        "input": p["tool_input"],
        **rest(p, "tool_use_id", "tool_name", "tool_input", "tool_response", "duration_ms"),
    }


def notified(p: Json) -> tuple[str, Json]:
    kind = p["notification_type"]
    asks = {"attention": {"reason": "input", "message": p["message"]}} if kind == "idle_prompt" else {}
    return "action", {"type": "notification", "notificationType": kind, **asks, **rest(p, "notification_type")}


def permission_asked(p: Json) -> tuple[str, Json]:
    tool, tool_input = p["tool_name"], p["tool_input"]
    attention = {"reason": "permission", "message": f"{tool}: {tool_input['command']}", "tool": tool}
    own = {"type": "permission_request", "tool": tool, "input": tool_input, "attention": attention}
    return "action", {**own, **rest(p, "tool_name", "tool_input")}


def stopped(p: Json) -> tuple[str, Json]:
    said = p["last_assistant_message"]
    asks = {"attention": {"reason": "input", "message": said[:300]}}
    own = {"type": "assistant_message", "message": said, **({} if p["background_tasks"] else asks)}
    return "response", {**own, **rest(p, "last_assistant_message")}


def failed(p: Json) -> tuple[str, Json]:
    said = p["last_assistant_message"]
    attention = {"reason": "input", "message": said, "error": p["error"]}
    return "response", {"type": "error", "message": said, "attention": attention, **rest(p, "last_assistant_message")}


def agent_stopped(p: Json) -> tuple[str, Json]:
    typed = {"type": p["agent_type"], **rest(p, "agent_type")} if p["agent_type"] else {"type": "internal", **p}
    own = {"agentId": p["agent_id"], "status": "completed", "result": p["last_assistant_message"]}
    return "agent_completed", {**own, **rest(typed, "agent_id", "last_assistant_message")}


def task_is(p: Json, **own: str) -> Json:
    own.update(description=p["task_subject"], details=p["task_description"])
    return {**own, **rest(p, "task_subject", "task_description")}


TABLE: dict[str, Callable[[Json], tuple[str, Json]]] = {
    "SessionStart": started,
    "UserPromptSubmit": lambda p: (
        "action",
        {"type": "prompt", **({"machineMade": True} if p["prompt"].startswith(OWN_WORDS) else {}), **p},
    ),
    "PreToolUse": lambda p: ("action", {"type": "tool_call", **called(p)}),
    "PostToolUse": lambda p: (
        "response",
        {"type": "tool_result", **called(p), "output": p["tool_response"], "durationMs": p["duration_ms"]},
    ),
    "PostToolUseFailure": lambda p: (
        "response",
        {"type": "tool_error", **called(p), "error": p["error"], "durationMs": p["duration_ms"]},
    ),
    "PermissionRequest": permission_asked,
    "Notification": notified,
    "Elicitation": lambda p: (
        "action",
        {
            "type": "elicitation",
            "attention": {"reason": "question", "message": p["message"], "id": p["mcp_server_name"]},
            **p,
        },
    ),
    "ElicitationResult": lambda p: (
        "action",
        {"type": "elicitation_result", "attention": None, "attentionId": p["mcp_server_name"], **p},
    ),
    "Stop": stopped,
    "StopFailure": failed,
    "SubagentStart": lambda p: (
        "agent_spawned",
        {"agentId": p["agent_id"], "type": p["agent_type"], **rest(p, "agent_id", "agent_type")},
    ),
    "SubagentStop": agent_stopped,
    "TaskCreated": lambda p: ("goal_added", task_is(p, id=f"task-{p['task_id']}")),
    "TaskCompleted": lambda p: ("goal_updated", task_is(p, goalId=f"task-{p['task_id']}", status="completed")),
    "SessionEnd": lambda p: ("session_finalized", {**p}),
    "PostToolBatch": lambda p: ("action", {"type": "post_tool_batch", **p}),
    "UserPromptExpansion": lambda p: ("action", {"type": "user_prompt_expansion", **p}),
    "PreCompact": lambda p: ("action", {"type": "pre_compact", **p}),
    "PostCompact": lambda p: ("action", {"type": "post_compact", **p}),
    "PreModelSwitch": lambda p: ("action", {"type": "pre_model_switch", **p}),
    "PostModelSwitch": lambda p: ("action", {"type": "post_model_switch", **p}),
    "PermissionDenied": lambda p: ("action", {"type": "permission_denied", **called(p)}),
    "Setup": lambda p: ("action", {"type": "setup", **p}),
    "TeammateIdle": lambda p: ("action", {"type": "teammate_idle", **p}),
    "ConfigChange": lambda p: ("action", {"type": "config_change", **p}),
    "WorktreeCreate": lambda p: ("action", {"type": "worktree_create", **p}),
    "WorktreeRemove": lambda p: ("action", {"type": "worktree_remove", **p}),
    "InstructionsLoaded": lambda p: ("action", {"type": "instructions_loaded", **p}),
    "CwdChanged": lambda p: ("action", {"type": "cwd_changed", **p}),
    "FileChanged": lambda p: ("action", {"type": "file_changed", **p}),
    "DirectoryAdded": lambda p: ("action", {"type": "directory_added", **p}),
    "MessageDisplay": lambda p: ("action", {"type": "message_display", **p}),
}


def test_the_corpus_and_the_table_have_every_hook() -> None:
    assert sorted(BY_HOOK) == sorted(TABLE) == sorted(HOOKS)
    assert len(HOOKS) == 33


@pytest.mark.parametrize("name", HOOKS)
def test_every_real_payload_becomes_the_event_that_the_table_says(name: str) -> None:
    for payload in BY_HOOK[name]:
        event_type, data = TABLE[name](payload)
        event = event_of(payload)
        assert rest(event, "eventId", "agentId") == {
            "type": event_type,
            "sessionId": payload["session_id"],
            "data": data,
        }
        assert ("eventId" in event) == (name in NATURALLY_KEYED)
        assert event.get("agentId") == payload.get("agent_id")


def test_a_tool_call_reads_as_the_store_wants_it() -> None:
    payload = hook("PreToolUse", tool_name="Bash", tool_input={"command": "ls"}, tool_use_id="toolu_01", cwd="/work")
    assert claude_code_events(payload, user_id="alice", event_id="e-1", timestamp="2026-02-13T20:59:12.345Z") == [
        {
            "type": "action",
            "sessionId": "5f2c",
            "eventId": "e-1",
            "userId": "alice",
            "timestamp": "2026-02-13T20:59:12.345Z",
            "data": {
                "type": "tool_call",
                "toolUseId": "toolu_01",
                "tool": "Bash",
                "input": {"command": "ls"},
                "session_id": "5f2c",
                "hook_event_name": "PreToolUse",
                "cwd": "/work",
            },
        }
    ]


def test_what_happens_inside_a_sub_agent_carries_its_id() -> None:
    event = event_of(hook("PreToolUse", agent_id="a5b6", agent_type="general-purpose"))
    assert (event["agentId"], event["data"]["agent_id"]) == ("a5b6", "a5b6")


def test_an_agent_id_that_the_store_would_refuse_stays_in_the_entry() -> None:
    event = event_of(hook("PreToolUse", agent_id="../a"))
    assert "agentId" not in event
    assert event["data"]["agent_id"] == "../a"


def test_no_nulls_are_invented() -> None:
    assert data_of(hook("PostToolUse")) == {"type": "tool_result", **hook("PostToolUse")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PreCompact", "pre_compact"),
        ("HTTPServerStarted", "http_server_started"),
        ("already_snake", "already_snake"),
        ("Two  words-and.dots", "two_words_and_dots"),
        ("!!!", "hook"),
        ("\ud800", "hook"),
    ],
)
def test_a_hook_that_does_not_exist_yet_is_an_action_named_after_it(name: str, expected: str) -> None:
    assert snake_case(name) == expected
    event = event_of(hook(name, novelty=[1]))
    assert event["type"] == "action"
    assert event["data"] == {"type": expected, "novelty": [1], **hook(name)}


# Whom a session waits for


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("permission_prompt", "permission"),
        ("idle_prompt", "input"),
        ("agent_needs_input", "input"),
        ("elicitation_dialog", "question"),
        ("elicitation_url_dialog", "question"),
    ],
)
def test_a_notification_that_asks_says_for_what(kind: str, reason: str) -> None:
    data = data_of(hook("Notification", notification_type=kind, message="Please"))
    assert data["attention"] == {"reason": reason, "message": "Please"}


@pytest.mark.parametrize("kind", ["auth_success", "elicitation_complete", "agent_completed", "of_tomorrow", {}, None])
def test_a_notification_that_only_tells_asks_for_nothing(kind: object) -> None:
    data = data_of(hook("Notification", notification_type=kind, message="Done"))
    assert "attention" not in data
    assert data["notificationType"] == kind


@pytest.mark.parametrize(
    ("tool_input", "message"),
    [
        ({"description": "list", "command": "ls -l\n  /tmp"}, "Bash: ls -l /tmp"),
        ({"content": "long", "file_path": "/work/a.py"}, "Bash: /work/a.py"),
        ({"depth": 3, "selector": "#main"}, "Bash: #main"),
        ({"command": "x" * 1000}, "Bash: " + "x" * 200),
        ({"questions": []}, "Bash"),
        ("ls", "Bash"),
    ],
)
def test_a_permission_request_says_in_one_line_what_it_is_for(tool_input: object, message: str) -> None:
    data = data_of(hook("PermissionRequest", tool_name="Bash", tool_input=tool_input))
    assert data["attention"] == {"reason": "permission", "message": message, "tool": "Bash"}


QUESTION: Json = {"question": "Which database?", "options": [{"label": "A"}, {"label": "B", "description": "new"}]}
ASKED: Json = {"reason": "question", "message": "Which database?", "tool": "AskUserQuestion", "options": ["A", "B"]}
TWO: Json = {"reason": "question", "message": "Which database? / Sure?", "tool": "AskUserQuestion"}


@pytest.mark.parametrize("name", ["PreToolUse", "PermissionRequest"])
@pytest.mark.parametrize(
    ("tool", "tool_input", "attention"),
    [
        ("AskUserQuestion", {"questions": [QUESTION]}, ASKED),
        ("AskUserQuestion", {"questions": [QUESTION, {"question": "Sure?"}]}, TWO),
        (
            "AskUserQuestion",
            {"questions": [None, {"question": 5}, QUESTION | {"options": {}}]},
            ASKED | {"options": None},
        ),
        ("AskUserQuestion", {"questions": {}}, {"message": "Claude has a question", "options": None}),
        ("ExitPlanMode", {"plan": "1. do it", "planFilePath": "/p.md"}, {"reason": "plan", "message": "1. do it"}),
        ("ExitPlanMode", {"plan": ["odd"]}, {"reason": "plan", "message": "Claude has a plan to be approved"}),
        ("ExitPlanMode", None, {"reason": "plan"}),
        ("ExitPlanMode", {"plan": "x" * 5000}, {"message": "x" * 1000}),
    ],
)
def test_a_tool_that_asks_a_person_says_what(name: str, tool: str, tool_input: object, attention: Json) -> None:
    data = data_of(hook(name, tool_name=tool, tool_input=tool_input))
    assert {member: data["attention"].get(member) for member in attention} == attention
    assert (data["attention"]["tool"], data["input"]) == (tool, tool_input)


def test_any_other_tool_asks_nobody_when_it_is_called() -> None:
    assert "attention" not in data_of(hook("PreToolUse", tool_name="Bash", tool_input={"questions": [QUESTION]}))


@pytest.mark.parametrize(
    ("message", "attention"),
    [
        ("Claude needs your permission to use Bash", {"reason": "permission", "tool": "Bash"}),
        ("Claude needs your permission to use shop - cart (MCP)", {"reason": "permission", "tool": None}),
        ("Claude Code needs your approval for the plan", {"reason": "plan"}),
        ("Claude is waiting for your input", {"reason": "input"}),
        ("Claude Code needs your attention", {"reason": "input"}),
        ("Permission was granted", {}),
        ("Done", {}),
        ("", {}),
    ],
)
def test_a_notification_without_a_type_is_read_by_its_words(message: str, attention: Json) -> None:
    found = data_of(hook("Notification", message=message)).get("attention", {})
    assert {member: found.get(member) for member in attention} == attention
    assert bool(found) == bool(attention)
    assert "attention" not in data_of(hook("Notification", message=message, notification_type="auth_success"))


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("Stop", {"last_assistant_message": "sub done"}),
        ("StopFailure", {"error": "rate_limit"}),
        ("Notification", {"notification_type": "idle_prompt", "message": "Claude is waiting for your input"}),
        ("Notification", {"message": "Claude is waiting for your input"}),
    ],
)
def test_that_a_sub_agent_sits_at_its_prompt_is_no_reason_to_wait(name: str, members: Json) -> None:
    assert data_of(hook(name, **members))["attention"]["reason"] == "input"
    event = event_of(hook(name, agent_id="a5b6", **members))
    assert (event["agentId"], "attention" in event["data"]) == ("a5b6", False)


@pytest.mark.parametrize(
    ("name", "members", "reason"),
    [
        ("PermissionRequest", {"tool_name": "Bash", "tool_input": {"command": "rm x"}}, "permission"),
        ("Notification", {"notification_type": "permission_prompt", "message": "Please"}, "permission"),
        ("Notification", {"notification_type": "agent_needs_input", "message": "Which?"}, "question"),
        ("Elicitation", {"message": "Which?"}, "question"),
    ],
)
def test_what_a_sub_agent_asks_is_asked_by_it(name: str, members: Json, reason: str) -> None:
    event = event_of(hook(name, agent_id="a5b6", **members))
    assert (event["agentId"], event["data"]["attention"]["reason"]) == ("a5b6", reason)


TASK: Json = {"id": "b1", "type": "subagent", "status": "running", "description": "research"}


@pytest.mark.parametrize(
    ("members", "waits"),
    [
        ({"background_tasks": [], "session_crons": []}, True),
        ({"background_tasks": [TASK]}, False),
        ({"background_tasks": [TASK | {"status": "completed"}]}, True),
        ({"background_tasks": [TASK | {"status": "killed"}, TASK | {"type": "monitor"}]}, False),
        ({"session_crons": [{"id": "c", "schedule": "* * * * *", "recurring": True, "prompt": "look"}]}, False),
        ({"background_tasks": "x", "session_crons": None}, True),
        ({"background_tasks": [None, 5]}, True),
    ],
)
def test_a_stop_with_something_at_work_behind_it_waits_for_nobody(members: Json, waits: bool) -> None:
    assert ("attention" in data_of(hook("Stop", last_assistant_message="started", **members))) == waits


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"last_assistant_message": "API Error: 429", "error": "rate_limit", "error_details": "429"}, "API Error: 429"),
        ({"error": "billing_error", "error_details": "no credit"}, "no credit"),
        ({"error": "overloaded"}, "overloaded"),
        ({}, "Claude has failed"),
    ],
)
def test_a_failed_turn_waits_and_says_why(members: Json, message: str) -> None:
    data = data_of(hook("StopFailure", **members))
    kind = {"error": members["error"]} if members else {}
    assert data["attention"] == {"reason": "input", "message": message, **kind}


@pytest.mark.parametrize(
    ("own", "attention_id"), [({"elicitation_id": "e-1"}, "e-1"), ({}, "forms"), ({"elicitation_id": 5}, "forms")]
)
def test_an_answer_is_to_the_question_of_its_server(own: Json, attention_id: str) -> None:
    asked = data_of(hook("Elicitation", mcp_server_name="forms", message="Who?", **own))
    answered = data_of(hook("ElicitationResult", mcp_server_name="forms", action="accept", **own))
    assert asked["attention"]["id"] == answered["attentionId"] == attention_id
    assert answered["attention"] is None
    assert "attentionId" not in data_of(hook("ElicitationResult"))


# Who said it, and how it went


@pytest.mark.parametrize(
    ("members", "is_by_machine"),
    [
        ({"prompt": "<task-notification>\n<task-id>a</task-id>"}, True),
        ({"prompt": "\n <command-name>/x</command-name>"}, True),
        ({"prompt": "<command-message>x"}, True),
        ({"prompt": "<local-command-stdout>x"}, True),
        ({"prompt": "<system-reminder>x"}, True),
        ({"prompt": "wake up", "source": "loop_wakeup"}, True),
        ({"prompt": "wake up", "source": "poll_event"}, True),
        ({"prompt": "a mate's word", "agent_id": "a5b6"}, True),
        ({"prompt": "go", "source": "user"}, False),
        ({"prompt": "go", "source": "sdk"}, False),
        ({"prompt": "go", "source": None}, False),
        ({"prompt": "What does <task-notification> mean?"}, False),
        ({"prompt": "<div> is not closed"}, False),
        ({"prompt": ["odd"]}, False),
        ({}, False),
    ],
)
def test_a_prompt_says_whether_a_machine_made_it(members: Json, is_by_machine: bool) -> None:
    assert data_of(hook("UserPromptSubmit", **members)).get("machineMade", False) == is_by_machine


NO = "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it was a file edit …)"


@pytest.mark.parametrize(
    ("members", "is_rejected"),
    [
        ({"error": "Exit code 1", "is_interrupt": True}, True),
        ({"error": NO}, True),
        ({"error": NO.replace("'", "\u2019")}, True),
        ({"error": "[Request interrupted by user for tool use]"}, True),
        ({"error": "Exit code 3\nboom", "is_interrupt": False}, False),
        ({"error": "the peer rejected the connection"}, False),
        ({"error": "", "is_interrupt": "yes"}, False),
        ({"error": None}, False),
    ],
)
def test_a_call_says_whether_a_person_rejected_it(members: Json, is_rejected: bool) -> None:
    data = data_of(hook("PostToolUseFailure", **members))
    assert data.get("rejected", False) == is_rejected
    assert {name: data[name] for name in members} == members


def test_no_payload_can_say_so_itself() -> None:
    claims = {"rejected": True, "refused": True, "machineMade": True, "attentionId": "x"}
    for name in ("PostToolUse", "UserPromptSubmit", "PreToolUse"):
        data = data_of(hook(name, **claims))
        assert data["payload"] == claims
        assert not claims.keys() & data.keys()


@pytest.mark.parametrize("said", ["", "  ", None, ["words"]])
def test_a_stop_without_words_still_says_that_the_user_is_awaited(said: object) -> None:
    data = data_of(hook("Stop", last_assistant_message=said))
    assert data["message"] == said
    assert data["attention"] == {"reason": "input", "message": "Claude is done and waits for the next prompt"}


def test_a_long_last_message_is_kept_whole_and_quoted_in_part() -> None:
    data = data_of(hook("Stop", last_assistant_message="a" * 500))
    assert len(data["message"]) == 500
    assert len(data["attention"]["message"]) == 300


# Sessions, agents, goals


def test_the_session_of_the_container_wins_and_claudes_own_goes_into_the_metadata() -> None:
    event = event_of(hook("SessionStart", source="startup", model="claude-opus-5-5"), session_id="build-7")
    assert event["sessionId"] == "build-7"
    assert event["data"] == {
        "initial": {"source": "claude-code", "config": {"model": "claude-opus-5-5"}},
        "metadata": {
            "claudeSessionId": "5f2c",
            "session_id": "5f2c",
            "hook_event_name": "SessionStart",
            "source": "startup",
            "model": "claude-opus-5-5",
        },
    }


def test_claude_codes_own_title_is_the_agents() -> None:
    metadata = data_of(hook("SessionStart", session_title="Mend the cart", title="Forged", cwd="/srv/shop"))["metadata"]
    assert (metadata["title"], metadata["titleFrom"], metadata["where"]) == (
        "Mend the cart",
        "agent",
        {"cwd": "/srv/shop"},
    )
    assert (metadata["session_title"], metadata["payload"]) == ("Mend the cart", {"title": "Forged"})


def test_the_same_session_id_from_both_is_no_override() -> None:
    data = data_of(hook("SessionStart"), session_id="5f2c")
    assert "claudeSessionId" not in data["metadata"]


@pytest.mark.parametrize("own", [{}, {"session_id": 5}, {"session_id": "../x"}, {"session_id": ""}])
def test_with_a_session_given_claudes_own_id_may_be_anything(own: Json) -> None:
    event = event_of({"hook_event_name": "Stop", **own}, session_id="build-7")
    assert event["sessionId"] == "build-7"
    assert event["data"].get("session_id") == own.get("session_id")


def test_metadata_that_the_store_derives_is_never_set_from_a_payload() -> None:
    data = data_of(hook("SessionStart", status="won", metrics={}, payload=1, **{"tokenUsage.input": 5}, model=["m"]))
    assert data["initial"] == {"source": "claude-code"}
    aside = {"status": "won", "metrics": {}, "payload": 1, "tokenUsage.input": 5, "model": ["m"]}
    assert data["metadata"] == {**hook("SessionStart"), "payload": aside}


def test_a_member_that_would_pose_as_the_stores_goes_under_payload() -> None:
    data = data_of(hook("PreToolUse", tool_name="Bash", tool="x", seq=9, attention={}, payload={"a": 1}, more=2))
    aside = {"tool": "x", "seq": 9, "attention": {}, "payload": {"a": 1}}
    assert data == {"type": "tool_call", "tool": "Bash", "more": 2, "payload": aside, **hook("PreToolUse")}


@pytest.mark.parametrize(
    ("name", "member"),
    [("SessionEnd", "outcome"), ("SubagentStart", "task"), ("SubagentStop", "result"), ("TaskCreated", "priority")],
)
def test_a_member_that_would_change_a_record_goes_under_payload(name: str, member: str) -> None:
    data = data_of(hook(name, agent_id="a1", task_id="1", **{member: "x"}))
    assert data["payload"] == {member: "x"}
    assert member not in data


def test_an_agent_without_a_type_is_given_one_and_its_empty_type_is_kept() -> None:
    assert data_of(hook("SubagentStart", agent_id="a1"))["type"] == "subagent"
    data = data_of(hook("SubagentStop", agent_id="a1", agent_type=""))
    assert (data["type"], data["agent_type"]) == ("internal", "")


@pytest.mark.parametrize("name", ["SubagentStart", "SubagentStop"])
@pytest.mark.parametrize("agent", [{}, {"agent_id": None}, {"agent_id": "a/b"}, {"agent_id": 5}])
def test_an_agent_without_a_usable_id_is_an_action(name: str, agent: Json) -> None:
    event = event_of(hook(name, **agent, agent_type="x"))
    assert event["type"] == "action"
    assert event["data"] == {"type": snake_case(name), **hook(name, **agent, agent_type="x")}


@pytest.mark.parametrize("name", ["TaskCreated", "TaskCompleted"])
@pytest.mark.parametrize("task", [{}, {"task_id": None}, {"task_id": ""}, {"task_id": 5}])
def test_a_task_without_an_id_is_an_action(name: str, task: Json) -> None:
    event = event_of(hook(name, **task, task_subject="x"))
    assert event["type"] == "action"
    assert event["data"] == {"type": snake_case(name), **hook(name, **task, task_subject="x")}


@pytest.mark.parametrize(
    ("task_id", "goal_id"),
    [("1", "task-1"), ("a b/c", "task-a-b-c"), ("x...y", "task-x.--y"), ("ü", "task--"), (".", "task-.")],
)
def test_a_goal_has_the_tasks_id_made_safe(task_id: str, goal_id: str) -> None:
    assert data_of(hook("TaskCreated", task_id=task_id))["id"] == goal_id
    assert data_of(hook("TaskCompleted", task_id=task_id))["goalId"] == goal_id
    assert is_store_id(goal_id)


def test_tasks_of_several_claude_sessions_in_one_session_are_different_goals() -> None:
    payload = {**hook("TaskCreated", task_id="1"), "session_id": "527a3023-2deb-4550"}
    assert data_of(payload, session_id="build-7")["id"] == "task-527a3023-1"


def test_long_task_ids_that_begin_alike_are_different_goals() -> None:
    ids = {data_of(hook("TaskCreated", task_id="t" * 200 + end))["id"] for end in ("a", "b", "\ud800")}
    assert len(ids) == 3
    assert all(map(is_store_id, ids))


def test_a_task_without_a_subject_is_described_by_its_id() -> None:
    data = data_of(hook("TaskCreated", task_id="7", task_subject=["odd"]))
    assert (data["description"], data["task_subject"]) == ("7", ["odd"])


# Ids of events


@pytest.mark.parametrize("name", NATURALLY_KEYED)
def test_the_same_told_again_has_the_same_event_id_whatever_else_it_says(name: str) -> None:
    for payload in BY_HOOK[name]:
        event_id = event_of(payload)["eventId"]
        assert event_of(dict(reversed(payload.items())))["eventId"] == event_id
        assert event_of({**payload, "cwd": "/elsewhere", "novelty": 1})["eventId"] == event_id
        assert event_of({**payload, TELLING_ID[name]: "another"})["eventId"] != event_id


def test_different_real_payloads_never_share_an_event_id() -> None:
    ids: dict[str, set[str]] = defaultdict(set)
    for payload in PAYLOADS:
        ids[event_of(payload).get("eventId", "")].add(json.dumps(payload, sort_keys=True))
    del ids[""]
    assert ids
    assert all(len(payloads) == 1 for payloads in ids.values())


def test_every_id_made_from_a_real_payload_is_one_the_store_takes() -> None:
    for payload in PAYLOADS:
        for event in (event_of(payload), event_of(payload, session_id="build-7")):
            assert_ids_are_valid(event)


def assert_ids_are_valid(event: Json) -> None:
    made = [event["sessionId"], event.get("eventId", "none"), event.get("agentId", "none")]
    if event["type"].startswith("agent_"):
        made.append(event["data"]["agentId"])
    if event["type"].startswith("goal_"):
        made.append(event["data"]["id" if event["type"] == "goal_added" else "goalId"])
    assert all(map(is_store_id, made)), made


def test_an_event_id_names_the_hook_and_the_thing() -> None:
    event_id = event_of(hook("MessageDisplay", message_id="m-1", index=0, delta="hi"))["eventId"]
    assert re.fullmatch(r"MessageDisplay-m-1-0-[0-9a-f]{16}", event_id)
    for unique in ("toolu_01AbCdEfGhIjKlMnOpQrStUv", "chatcmpl-tool-0123456789abcdef", "call_AbCdEf0123456789"):
        assert event_of(hook("PreToolUse", tool_use_id=unique))["eventId"] == f"PreToolUse-{unique}"


@pytest.mark.parametrize("counted", ["call_0", "toolu_1", "functions.Bash:3", "7", "a-tool-call-of-mine"])
def test_ids_that_begin_anew_are_told_apart_by_what_they_are_about(counted: str) -> None:
    def named(**members: object) -> str:
        given: Json = {"tool_use_id": counted, "tool_name": "Bash", "tool_input": {"command": "ls"}, "prompt_id": "p1"}
        event_id: str = event_of(hook("PreToolUse", **given | members))["eventId"]
        return event_id

    assert named() == named(permission_mode="plan", slug="x")
    apart = [named(), named(prompt_id="p2"), named(tool_name="Read"), named(tool_input={"command": "pwd"})]
    assert len(set(apart)) == 4


@pytest.mark.parametrize("unsafe", ["a/b", "a..b", "x" * 200, "\ud800"])
def test_an_unsafe_id_is_left_out_of_the_event_id(unsafe: str) -> None:
    event_id = event_of(hook("Elicitation", elicitation_id=unsafe))["eventId"]
    assert re.fullmatch(r"Elicitation-[0-9a-f]{16}", event_id)


@pytest.mark.parametrize("named", [{}, {"tool_use_id": ""}, {"tool_use_id": None}, {"tool_use_id": {}}])
def test_a_payload_that_names_nothing_has_no_event_id(named: Json) -> None:
    assert "eventId" not in event_of(hook("PreToolUse", **named))


def test_a_payload_nested_beyond_all_bounds_is_mapped_without_an_event_id() -> None:
    nested: object = None
    for _ in range(100_000):
        nested = [nested]
    assert "eventId" not in event_of(hook("PreToolUse", tool_use_id="toolu_01", tool_input=nested))


# Nothing is lost

RENAMED = {
    "tool_use_id": "toolUseId",
    "tool_name": "tool",
    "tool_input": "input",
    "tool_response": "output",
    "duration_ms": "durationMs",
    "notification_type": "notificationType",
    "error_details": "errorDetails",
    "agent_id": "agentId",
    "agent_type": "type",
    "task_subject": "description",
    "task_description": "details",
}
LAST_MESSAGE = {"Stop": "message", "StopFailure": "message", "SubagentStop": "result"}


def leaves(value: object, path: tuple[object, ...] = ()) -> set[tuple[tuple[object, ...], str]]:
    """Every leaf with its path; as JSON text, so that 1, 1.0 and true stay apart and NaN is itself."""
    if isinstance(value, dict) and value:
        return {leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))}
    if isinstance(value, list) and value:
        return {leaf for place, inner in enumerate(value) for leaf in leaves(inner, (*path, place))}
    return {(path, json.dumps(value))}


def lost(payload: Json, event: Json) -> list[str]:
    """The members of the payload of which a leaf is nowhere in the event: not as it was, not renamed, not set aside."""
    home = event["data"]["metadata"] if event["type"] == "session_created" else event["data"]
    aside = home.get("payload", {})
    new_names = {**RENAMED, "last_assistant_message": LAST_MESSAGE.get(payload["hook_event_name"], "")}

    def is_kept(name: str, value: object) -> bool:
        places = [(home, name), (home, new_names.get(name)), (aside, name)]
        return any(key in place and leaves(value) == leaves(place[key]) for place, key in places)

    return [name for name, value in payload.items() if not is_kept(name, value)]


def test_nothing_of_a_real_payload_is_lost() -> None:
    for payload in PAYLOADS:
        assert lost(payload, event_of(payload)) == []
        assert lost(payload, event_of(payload, session_id="build-7")) == []


def test_a_loss_would_be_noticed() -> None:
    payload = hook("PreToolUse", tool_input={"command": "ls", "deep": [1, True]}, cwd="/work")
    event = event_of(payload)
    del event["data"]["cwd"]
    event["data"]["input"] = {"command": "ls", "deep": [1, 1]}
    assert lost(payload, event) == ["tool_input", "cwd"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMED_MEMBERS = names(
    """prompt prompt_id tool_use_id tool_name tool_input tool_response duration_ms error error_details message reason
    notification_type last_assistant_message agent_id agent_type task_id task_subject task_description elicitation_id
    message_id index model source cwd transcript_path permission_mode"""
)
CLAIMED_MEMBERS = names(
    """type seq cursor receivedAt timestamp eventId sessionId agentId userId attention payload tool input output status
    result id goalId description details outcome response exitCode metadata initial metrics tags a.b claudeSessionId
    $schema"""
)
LIKELY_TEXT = st.sampled_from(["a1", "../x", "a..b", "", "toolu_01", "idle_prompt", "Bash", "x" * 130, "\ud800"])
MEMBERS = st.dictionaries(
    st.sampled_from(NAMED_MEMBERS) | st.sampled_from(CLAIMED_MEMBERS) | st.text(max_size=8),
    LIKELY_TEXT | ANY_JSON,
    max_size=12,
)
HOSTILE = st.builds(
    lambda members, name, session: {**members, "hook_event_name": name, "session_id": session},
    MEMBERS,
    st.sampled_from(HOOKS) | st.text(min_size=1, max_size=12),
    st.sampled_from(["5f2c", "527a3023-2deb-4550"]),
)


@settings(max_examples=examples(300), deadline=None)
@given(HOSTILE, st.sampled_from([{}, {"session_id": "build-7"}]))
def test_nothing_of_a_hostile_payload_is_lost(payload: Json, given_members: dict[str, str]) -> None:
    before = copy.deepcopy(payload)
    event = event_of(payload, **given_members)
    assert leaves(payload) == leaves(before)
    assert lost(payload, event) == []
    assert_ids_are_valid(event)
    assert event["data"].get("type", "-") != ""
    assert json.dumps(event_of(before, **given_members)) == json.dumps(event)


@settings(max_examples=examples(200), deadline=None)
@given(ANY_JSON | st.dictionaries(st.sampled_from(["session_id", "hook_event_name", "agent_id"]), ANY_JSON))
def test_no_json_raises_anything_but_value_error(payload: object) -> None:
    try:
        claude_code_events(payload)
    except ValueError as refused:
        assert re.match(r"payload|session_id|hook_event_name", str(refused))


def test_real_payloads_are_not_mutated() -> None:
    for payload in PAYLOADS:
        before = copy.deepcopy(payload)
        claude_code_events(payload, session_id="build-7")
        assert payload == before


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "payload"),
        (["Stop"], "payload"),
        ({"session_id": "5f2c"}, "hook_event_name"),
        (hook(""), "hook_event_name"),
        ({"session_id": "5f2c", "hook_event_name": 5}, "hook_event_name"),
        ({"hook_event_name": "Stop"}, "session_id"),
        ({"hook_event_name": "Stop", "session_id": 5}, "session_id"),
        ({"hook_event_name": "Stop", "session_id": ""}, "session_id"),
        ({"hook_event_name": "Stop", "session_id": "a..b"}, "session_id"),
        ({"hook_event_name": "Stop", "session_id": "x" * 129}, "session_id"),
    ],
)
def test_a_refused_payload_is_told_which_field(payload: object, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        claude_code_events(payload)


def test_a_given_session_id_is_held_to_the_same_rule() -> None:
    with pytest.raises(ValueError, match=r"^session_id must be"):
        claude_code_events(hook("Stop"), session_id="../up")


# Lines of a batch


LINE_MEMBERS = st.dictionaries(
    st.sampled_from(
        names(
            "eventId timestamp userId agentId isReplaced isWithin parentSession tags error sessionId type cursor patch"
        )
    ),
    LIKELY_TEXT | ANY_JSON,
    max_size=8,
)
BOUNDS = Limits(1 << 20, lambda data: data)


@settings(max_examples=examples(400), deadline=None)
@given(LINE_MEMBERS, HOSTILE | ANY_JSON)
def test_no_line_is_refused_that_names_a_session(members: Json, payload: Any) -> None:
    line = json.dumps({**members, "sessionId": "build-7", "data": payload}).encode()
    drafts = drafts_of_line(line, BOUNDS)
    assert drafts == drafts_of_line(line, BOUNDS)  # whatever it has become, a retry is the same
    assert {draft.session_id for draft in drafts} <= {"build-7"}
    if not isinstance(payload, dict) or payload.get("hook_event_name") != "PostToolBatch":
        assert len(drafts) == 1


@settings(max_examples=examples(200), deadline=None)
@given(LINE_MEMBERS, HOSTILE | ANY_JSON)
def test_a_line_is_refused_by_a_problem_alone(members: Json, payload: Any) -> None:
    try:
        drafts_of_line(json.dumps({**members, "data": payload}).encode(), BOUNDS)
    except Problem as problem:
        assert problem.status == 422


def test_what_is_known_by_its_id_is_what_has_one_made_from_it() -> None:
    assert set(NATURAL_KEYS) == {kind for kind, member in NAMED.items() if member == "hook_event_name"}


# The file


def test_the_file_is_python_3_9() -> None:
    source = SOURCE.read_text()
    ast.parse(source, feature_version=(3, 9))
    with pytest.raises(SyntaxError):
        ast.parse("match 1:\n    case _: pass", feature_version=(3, 9))


def test_importing_the_file_needs_the_standard_library_alone_and_little_of_it() -> None:
    show = "import sys; before = set(sys.modules); import hook_agent; print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-S", "-c", show]
    ran = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=True)
    imported = {name.split(".")[0] for name in ran.stdout.split()} - {"hook_agent"}
    assert "fcntl" in imported
    assert imported <= sys.stdlib_module_names
    needless = {"os", "json", "re", "typing", "hashlib", "asyncio", "urllib", "subprocess", "threading"}
    assert imported.isdisjoint(needless)
