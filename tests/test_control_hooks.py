"""`install --control`: what people answer and order in the store, Claude Code's hooks reply, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import hook_agent
from tests.agents import remove_spools, spool_in
from tests.appliance import REPOSITORY, Appliance
from tests.badlink import Fake
from tests.peers import eventually
from tests.repeats import marked, repeated
from tests.steered import Installed, Person, person, reply_of

Json = dict[str, Any]

BASH: Json = {"tool_name": "Bash", "tool_input": {"command": "rm -r build", "description": "Clean up"}}
QUESTIONS = [
    {"question": "Which colour?", "header": "Colour", "multiSelect": False, "options": [{"label": "Red"}]},
    {"question": "Which sizes?", "header": "Size", "multiSelect": True, "options": [{"label": "S"}, {"label": "M"}]},
]
CHOICE: Json = {"tool_name": "AskUserQuestion", "tool_input": {"questions": QUESTIONS}}
PLAN: Json = {"tool_name": "ExitPlanMode", "tool_input": {"plan": "First this, then that"}}
NOWHERE = "http://127.0.0.1:9"
STORES = ("away", "hangs", "answers 500", "answers nonsense", "answers html")
numbers = count(1)


@pytest.fixture(scope="module")
def claude(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("home"), appliance.url, SESSION_CONTROL_WAIT="30")
    yield installed
    installed.close()


@pytest.fixture(scope="module")
def alice(appliance: Appliance) -> Iterator[Person]:
    with person(appliance) as one:
        yield one


@pytest.fixture
def session(claude: Installed, alice: Person) -> str:
    """One that is controlled."""
    name = f"controlled-{next(numbers)}"
    claude.begin(name)
    eventually(lambda: alice.is_reachable(name))
    return name


def call(**more: Any) -> Json:
    return {**BASH, "tool_use_id": f"toolu_01{next(numbers):022}", "prompt_id": "prompt-1", **more}


def decision(reply: Json | None) -> Json:
    assert reply is not None
    assert reply.keys() == {"hookSpecificOutput"}
    assert reply["hookSpecificOutput"]["hookEventName"] == "PermissionRequest"
    found: Json = reply["hookSpecificOutput"]["decision"]
    return found


# ----------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("payload", "answer", "wanted"),
    [
        (BASH, {"decision": "allow"}, {"behavior": "allow"}),
        (
            BASH,
            {"decision": "allow", "input": {"command": "rm -ri build"}},
            {"behavior": "allow", "updatedInput": {"command": "rm -ri build"}},
        ),
        (
            BASH,
            {"decision": "deny", "message": "Use make clean"},
            {"behavior": "deny", "message": "Denied by control, through the session store: Use make clean"},
        ),
        (
            CHOICE,
            {"decision": "answer", "answers": {"Which colour?": "Blue", "Which sizes?": ["S", "M"]}},
            {
                "behavior": "allow",
                "updatedInput": {
                    "questions": QUESTIONS,
                    "answers": {"Which colour?": "Blue", "Which sizes?": "S, M"},
                },
            },
        ),
        (PLAN, {"decision": "allow"}, {"behavior": "allow", "updatedInput": PLAN["tool_input"]}),
    ],
    ids=["allow", "allow with another input", "deny with a message", "answer", "approve a plan"],
)
def test_a_permission_is_what_a_person_answers(
    claude: Installed, alice: Person, session: str, payload: Json, answer: Json, wanted: Json
) -> None:
    hook = claude.start("PermissionRequest", session, **payload)
    (ask,) = alice.asked(session)
    assert ask["tool"] == payload["tool_name"]
    alice.answer(ask, **answer)
    assert decision(reply_of(hook)) == wanted
    eventually(lambda: alice.asks(session, status="answered")[0]["answer"]["status"] == "delivered")


def test_what_is_said_with_a_yes_is_told_at_the_next_step(claude: Installed, alice: Person, session: str) -> None:
    hook = claude.start("PermissionRequest", session, **BASH)
    (ask,) = alice.asked(session)
    alice.answer(ask, "allow", message="But only this one")
    assert decision(reply_of(hook)) == {"behavior": "allow"}
    assert "says: But only this one" in str(claude.run("PostToolBatch", session))
    assert claude.run("PostToolBatch", session) is None


def test_each_of_two_that_ask_the_same_gets_its_own_answer(claude: Installed, alice: Person, session: str) -> None:
    first = claude.start("PermissionRequest", session, **BASH)
    (ask,) = alice.asked(session)
    second = claude.start("PermissionRequest", session, **BASH)
    (other,) = [it for it in alice.asked(session, number=2) if it["askId"] != ask["askId"]]
    alice.answer(other, "deny", message="the second")
    assert decision(reply_of(second))["message"].endswith("the second")
    assert first.poll() is None
    alice.answer(ask, "allow")
    assert decision(reply_of(first)) == {"behavior": "allow"}


def test_what_is_answered_elsewhere_is_not_waited_for(claude: Installed, alice: Person, session: str) -> None:
    """At the terminal: Claude Code goes on, whether or not it ends the hook."""
    asking = call()
    claude.run("PreToolUse", session, **asking)
    hook = claude.start("PermissionRequest", session, **BASH)
    alice.asked(session)
    claude.run("PostToolUse", session, **asking, tool_response={"stdout": ""})
    assert reply_of(hook) is None
    assert alice.asks(session) == []


def test_a_hook_that_nobody_reads_ends(claude: Installed, alice: Person, session: str) -> None:
    hook = claude.start("PermissionRequest", session, **BASH)
    alice.asked(session)
    assert hook.stdout and hook.stderr
    hook.stdout.close()
    assert hook.stderr.read() == b""
    hook.stderr.close()
    assert hook.wait(10) == 0


# ------------------------------------------------------------------------ orders


@pytest.mark.parametrize("event", ["PreToolUse", "PostToolBatch", "UserPromptSubmit", "Stop"])
def test_what_a_person_says_is_told_once_at_the_next_step(
    claude: Installed, alice: Person, session: str, event: str
) -> None:
    order = alice.order(session, "say", text="Use blue")
    claude.has_heard(session)
    payload = call() if event == "PreToolUse" else {}
    told = {"hookEventName": event, "additionalContext": "control, a person who follows this session, says: Use blue"}
    assert claude.run(event, session, **payload) == {"hookSpecificOutput": told}
    assert claude.run(event, session, **payload) is None
    assert alice.is_delivered(session, order)["at"] == payload.get("tool_use_id")


def test_of_many_hooks_at_once_one_tells_what_was_said(claude: Installed, alice: Person, session: str) -> None:
    alice.order(session, "say", text="Use blue")
    claude.has_heard(session)
    hooks = [claude.start("PreToolUse", session, **call()) for _ in range(6)]
    assert len([reply for reply in map(reply_of, hooks) if reply]) == 1


@repeated("kills", many=20, variable="SENDER_KILLS")
def test_what_is_said_is_told_at_most_once_whenever_a_hook_is_killed(
    claude: Installed, alice: Person, session: str, kills: int
) -> None:
    """A hook that is killed before it has noted that it tells it leaves that to the next."""
    chance, told_by_the_next = random.Random(7), 0
    for number in range(kills):
        order = alice.order(session, "say", text=f"Word {number}")
        claude.has_heard(session)
        killed = claude.start("PreToolUse", session, **call())
        time.sleep(chance.uniform(0, 0.12))
        for pid in (*children_of(killed.pid), killed.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        said, _ = killed.communicate(timeout=30)
        replies = [said.decode(), str(claude.run("PreToolUse", session, **call()))]
        told_by_the_next += f"Word {number}" in replies[1]
        assert sum(f"Word {number}" in reply for reply in replies) <= 1
        alice.is_delivered(session, order)
    assert told_by_the_next > 0


def test_an_end_is_not_put_off_for_ever(tmp_path: Path) -> None:
    """Claude Code itself ends a turn after eight, and what was said with the last would be lost."""
    known = hook_agent._beside("hook_agent_control", "this").Known(spool_in(tmp_path, NOWHERE), "s")
    known.enter("")
    assert [known.continued(is_again=number > 0) for number in range(9)] == [True] * 7 + [False] * 2
    assert known.continued(is_again=False)


def test_what_is_said_to_an_agent_is_told_to_it_alone(claude: Installed, alice: Person, session: str) -> None:
    alice.order(session, "say", text="Look again", agentId="a1")
    claude.has_heard(session)
    assert claude.run("PreToolUse", session, **call()) is None
    assert claude.run("PreToolUse", session, **call(agent_id="a2")) is None
    assert claude.run("SubagentStop", session, agent_id="a1") is not None


def test_a_stop_ends_all_that_runs_in_the_session_and_the_call_is_not_made(
    claude: Installed, alice: Person, session: str
) -> None:
    order = alice.order(session, "stop", text="It burns money")
    claude.has_heard(session)
    reason = "Stopped by control, through the session store: It burns money"
    for payload in (call(agent_id="a1"), call(), call()):  # of an agent, which is not the session; two at once
        reply = claude.run("PreToolUse", session, **payload)
        assert reply is not None
        assert (reply["continue"], reply["stopReason"]) == (False, reason)
        assert reply["hookSpecificOutput"]["permissionDecision"] == "deny"
    alice.is_delivered(session, order)
    assert claude.run("UserPromptSubmit", session, prompt="Go on", prompt_id="prompt-2") is None
    assert claude.run("PreToolUse", session, **call(prompt_id="prompt-2")) is None


def test_who_asks_is_told_to_stop(claude: Installed, alice: Person, session: str) -> None:
    hook = claude.start("PermissionRequest", session, **BASH)
    alice.asked(session)
    alice.order(session, "stop", text="Enough")
    reply = reply_of(hook)
    assert reply is not None and reply["continue"] is False
    assert reply["hookSpecificOutput"]["decision"]["interrupt"] is True


def test_a_pause_holds_each_call_until_it_is_released(claude: Installed, alice: Person, session: str) -> None:
    pause = alice.order(session, "pause")
    claude.has_heard(session)
    held = [claude.start("PreToolUse", session, **call()), claude.start("PreToolUse", session, **call(agent_id="a1"))]
    alice.is_delivered(session, pause)
    assert claude.run("PostToolBatch", session) is None
    assert [hook.poll() for hook in held] == [None, None]
    release = alice.order(session, "release", orderId=pause)
    assert [reply_of(hook) for hook in held] == [None, None]
    alice.is_delivered(session, release)
    assert claude.run("PreToolUse", session, **call()) is None


def test_a_call_that_is_held_too_long_is_denied_and_says_why(
    claude: Installed, alice: Person, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = alice.order(session, "pause", text="Lunch")
    claude.has_heard(session)
    monkeypatch.setitem(claude.env, "SESSION_CONTROL_WAIT", "1")
    reply = claude.run("PreToolUse", session, **call())
    alice.order(session, "release", orderId=pause)
    assert reply is not None
    assert reply["hookSpecificOutput"]["permissionDecision"] == "deny"
    assert "Paused by control, through the session store: Lunch" in str(reply)


def test_what_was_ordered_holds_while_the_store_is_away(tmp_path: Path) -> None:
    with Appliance(tmp_path / "store") as store:
        claude = Installed(tmp_path, store.url, SESSION_CONTROL_WAIT="20")
        try:
            claude.begin("away")
            with person(store) as alice:
                eventually(lambda: alice.is_reachable("away"))
                alice.order("away", "say", text="Mind the gap")
            claude.has_heard("away")
            store.kill()
            assert "Mind the gap" in str(claude.run("PreToolUse", "away", **call()))
        finally:
            claude.close()


# ----------------------------------------------------- nothing that is not ordered


def test_where_nothing_is_ordered_no_hook_asks_the_store(claude: Installed, session: str) -> None:
    """The process of a hook makes no connection; the first, of a session that nobody watches yet, does."""
    traced = ["strace", "-f", "-e", "trace=connect,socket", "-o", str(claude.folder / "trace")]
    command = ["sh", "-c", claude.hook("PreToolUse")["command"]]
    for name, is_asked in ((session, False), ("unwatched", True)):
        payload = json.dumps({"session_id": name, "hook_event_name": "PreToolUse", **call()}, separators=(",", ":"))
        subprocess.run([*traced, *command], env=claude.env, input=payload.encode(), check=True, timeout=60)
        assert ("AF_INET" in (claude.folder / "trace").read_text()) is is_asked


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("store", marked(STORES, long=("answers 500", "answers nonsense")))
def test_a_store_that_fails_changes_nothing_unless_that_is_wanted(tmp_path: Path, store: str, closed: bool) -> None:
    answers = {"answers 500": (500, b"{}"), "answers nonsense": (200, b'{"items":[7]}'), "answers html": (200, b"<p>")}
    env = {"SESSION_CONTROL_WAIT": "1", **({"SESSION_CONTROL_FAIL": "closed"} if closed else {})}

    def check(url: str) -> None:
        claude = Installed(tmp_path, url, **env)
        try:
            begun = time.monotonic()
            replies = [claude.run("PreToolUse", "s", **call()) for _ in range(2)]
            assert time.monotonic() - begun < 5
            replies.append(claude.run("PermissionRequest", "s", **BASH))
            others = [claude.run(event, "s") for event in ("Stop", "UserPromptSubmit", "PostToolBatch")]
        finally:
            claude.close()
        assert others == [None] * 3
        if closed and store != "answers nonsense":  # of which nothing is an order: the store is there
            assert all(reply and "SESSION_CONTROL_FAIL=closed" in str(reply) for reply in replies)
        elif not closed:
            assert replies == [None] * 3

    if store in answers:
        status, body = answers[store]
        with Fake(lambda posted: posted.answer(status, body)) as fake:
            check(fake.url)
    elif store == "hangs":
        with hanging() as url:
            check(url)
    else:
        check(NOWHERE)


def hanging() -> Any:
    import socket
    from contextlib import contextmanager

    @contextmanager
    def listening() -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"

    return listening()


def test_a_hook_that_is_killed_says_nothing(claude: Installed, alice: Person, session: str) -> None:
    hook = claude.start("PermissionRequest", session, **BASH)
    alice.asked(session)
    for pid in children_of(hook.pid):
        os.kill(pid, signal.SIGKILL)
    assert hook.communicate(timeout=30) == (b"", b"") or hook.returncode == 0


def children_of(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


# ----------------------------------------------------------------------- install


def test_control_takes_the_place_of_six_silent_hooks(claude: Installed) -> None:
    commands = {event: claude.hook(event) for event in claude.settings["hooks"]}
    controlled = {event for event, hook in commands.items() if "hook_agent.control(30)" in hook["command"]}
    assert controlled == {
        "PreToolUse", "PermissionRequest", "PostToolBatch", "Stop", "SubagentStop", "UserPromptSubmit"
    }  # fmt: skip
    assert not any("async" in commands[event] for event in controlled)
    assert commands["PreToolUse"]["timeout"] == commands["PermissionRequest"]["timeout"] > 30
    assert len(commands) == 29
    silent = claude.install("--user")
    assert silent.returncode == 0
    assert "hook_agent.control" not in (claude.folder / ".claude/settings.json").read_text()
    assert claude.install("--control").returncode == 0
    assert json.loads((claude.folder / ".claude/settings.json").read_text()) == claude.settings


def test_answers_over_plain_http_from_elsewhere_are_refused_unless_that_is_wanted(tmp_path: Path) -> None:
    elsewhere = "http://store.example.com:9000"
    claude = Installed(tmp_path, elsewhere, SESSION_CONTROL_INSECURE="1")
    before = (tmp_path / ".claude/settings.json").read_bytes()
    done = claude.install("--control", SESSION_CONTROL_INSECURE="0")
    assert (done.returncode, "plain HTTP" in done.stderr) == (1, True)
    assert (tmp_path / ".claude/settings.json").read_bytes() == before
    claude.close()


@pytest.mark.parametrize(
    ("url", "is_insecure"),
    [
        ("http://store.example.com:9000", True),
        ("http://10.0.0.1:9000", True),
        ("http://127.0.0.1.example.com:9000", True),
        ("http://127.0.0.2:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
        ("https://store.example.com", False),
    ],
)
def test_a_hook_takes_no_answer_over_plain_http_from_elsewhere(url: str, is_insecure: bool) -> None:
    assert bool(hook_agent._beside("hook_agent_control", "this").insecure(url)) is is_insecure


def test_without_its_file_the_agent_works_as_before(tmp_path: Path, appliance: Appliance) -> None:
    import shutil

    shutil.copy(REPOSITORY / "hook_agent.py", tmp_path)
    shutil.copy(REPOSITORY / "containers/hook_agent_install.py", tmp_path)
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SESSION_SERVICE_URL": appliance.url}
    install = [sys.executable, str(tmp_path / "hook_agent.py"), "install", "--control"]
    refused = subprocess.run(install, env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "copy containers/hook_agent_control.py" in refused.stderr
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import hook_agent; hook_agent.control(5)"
    payload = json.dumps({"session_id": "no-file", "hook_event_name": "PreToolUse", **call()}).encode()
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], env=env, input=payload, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    remove_spools(tmp_path)
