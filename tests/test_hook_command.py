"""`hook`: Claude Code is neither slowed nor spoken to, and each payload becomes what it would have been if posted."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import hook_agent
from tests.agents import (
    HOOK,
    Json,
    command,
    entries_of,
    environment,
    hook,
    letters_in,
    line_of,
    run,
    spool_in,
    stop_senders,
    waiting_in,
)
from tests.appliance import REPOSITORY, Appliance
from tests.badlink import Fake
from tests.peers import eventually

NOWHERE = "http://127.0.0.1:9"
CORPUS = REPOSITORY / "tests/corpus/claude-code-hooks-2.1.330.jsonl"
PAYLOADS: list[Json] = [json.loads(line)["payload"] for line in CORPUS.read_text().splitlines()]
STOP = b'{"session_id":"claude-1","hook_event_name":"Stop","last_assistant_message":"done"}'
SILENT = (0, b"", b"")


pytestmark = pytest.mark.usefixtures("no_sender_is_left")


def events_of(http: httpx.Client, session: str) -> list[Json]:
    answer = http.get(f"/api/sessions/{session}/events?limit=1000")
    events: list[Json] = answer.json()["items"] if answer.status_code == 200 else []
    return events


def said(event: Json) -> str:
    """What of an event does not depend on when it was stored, and by which way it came."""
    data = {name: value for name, value in event["data"].items() if name not in ("seq", "spawnedAt")}
    data.get("metadata", {}).pop("where", None)
    return json.dumps([event["type"], event["sessionId"], event["agentId"], data], sort_keys=True)


# ---------------------------------------------------------------------- what arrives


def test_real_payloads_become_what_they_become_when_posted(tmp_path: Path, folder: Path) -> None:
    told = [payload for payload in PAYLOADS[:160] if payload["hook_event_name"] != "PostToolBatch"]  # told otherwise
    payloads = list(dict.fromkeys(json.dumps(payload).encode() for payload in told))
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        env = environment(tmp_path, appliance.url)
        for payload in payloads:
            assert hook(payload, env) == SILENT
        assert command("flush", env, "--timeout", "30").returncode == 0
        by_hook = all_events(http)
    with Appliance(tmp_path / "other") as appliance, httpx.Client(base_url=appliance.url) as http:
        for number, payload in enumerate(payloads):
            headers = {"content-type": "application/json", "idempotency-key": f"payload-{number}"}
            http.post("/api/hooks/claude-code", content=payload, headers=headers).raise_for_status()
        posted = all_events(http)
    assert list(map(said, by_hook)) == list(map(said, posted))
    assert len(by_hook) >= len(payloads)
    assert letters_in(spool_in(tmp_path, "http://x")) == []


def all_events(http: httpx.Client) -> list[Json]:
    events: list[Json] = http.get("/api/events?limit=1000").json()["items"]
    return events


def test_a_hook_says_when_it_was_and_who_it_is(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    origin = {"SESSION_USER_ID": "Zoë", "SESSION_PARENT_ID": "mother", "SESSION_TAGS": "a, b"}
    env = environment(tmp_path, appliance.url, **origin)
    start = {"session_id": "claude-origin", "hook_event_name": "SessionStart", "source": "startup", "model": "m"}
    hook(json.dumps(start).encode(), env)
    eventually(lambda: events_of(http, "claude-origin"))
    (event,) = events_of(http, "claude-origin")
    metadata = http.get("/api/sessions/claude-origin").json()["metadata"]
    assert event["timestamp"] < event["receivedAt"]
    assert (metadata["userId"], metadata["parentSession"], metadata["tags"]) == ("Zoë", "mother", ["a", "b"])
    assert metadata["where"]["host"] == os.uname().nodename
    assert Path(metadata["where"]["cwd"]).is_absolute()


@pytest.mark.parametrize("session", ["own", 'my "own" session', "ünï"])
def test_the_session_may_have_a_name_of_its_own(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session: str
) -> None:
    env = environment(tmp_path, appliance.url, SESSION_ID=session)
    assert hook(STOP, env) == SILENT
    name = hook_agent.SessionHookAgent(session).session_id
    eventually(lambda: entries_of(http, name, "/responses"))
    assert entries_of(http, "claude-1", "/responses") == []


def test_hooks_at_once_are_all_there(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url)
    payloads = [json.dumps({"session_id": "many", "hook_event_name": "Odd", "n": n}).encode() for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda payload: hook(payload, env), payloads)) == [SILENT] * 40
    eventually(lambda: len(entries_of(http, "many")) == 40)
    assert Counter(entry["n"] for entry in entries_of(http, "many")) == Counter(range(40))


def test_a_hook_after_a_while_starts_a_sender_again(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url, SESSION_ID="killed-sender")
    for number in range(3):
        hook(STOP.replace(b"done", b"done %d" % number), env)
        eventually(lambda: len(entries_of(http, "killed-sender", "/responses")) == number + 1)  # noqa: B023
        stop_senders(tmp_path)


def test_a_payload_of_many_lines_is_one_event(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    payload = json.dumps({"session_id": "lines", "hook_event_name": "Odd", "text": "a\nb\r\n\u2028c"}, indent=4)
    hook(payload.replace("\n", "\r\n").encode(), environment(tmp_path, appliance.url))
    eventually(lambda: entries_of(http, "lines"))
    assert entries_of(http, "lines")[0]["text"] == "a\nb\r\n\u2028c"


def test_a_payload_that_is_too_large_is_cut(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    payload = json.dumps({"session_id": "large", "hook_event_name": "Odd", "text": "x" * 5_000_000, "cwd": "/w"})
    assert hook(payload.encode(), environment(tmp_path, appliance.url)) == SILENT
    eventually(lambda: entries_of(http, "large"))
    (entry,) = entries_of(http, "large")
    assert entry["cwd"] == "/w"
    assert entry["truncated"]["bytes"] > 5_000_000


def test_of_what_is_beyond_sixteen_mebibytes_the_end_is_kept_as_well(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    payload = {
        "session_id": "vast",
        "hook_event_name": "PostToolUse",
        "tool_response": "é\\\n" * 2_500_000,
        "cwd": "/w",
    }
    assert hook(json.dumps(payload).encode(), environment(tmp_path, appliance.url)) == SILENT
    eventually(lambda: entries_of(http, "vast", "/responses"), within=30)
    (entry,) = entries_of(http, "vast", "/responses")
    assert entry["cwd"] == "/w"
    assert entry["truncated"]["bytes"] > 10_000_000


CUT = """
import hook_agent, json, os, random, sys
hook_agent._PAYLOAD_BYTES, hook_agent._END_BYTES, hook_agent._READ_BYTES = 900, 100, 64
random.seed(int(sys.argv[1]))
for number in range(3000):
    parts = ["x", "\\\\", '"', "\\n", "\u00e9", "\U0001f600", "\\1"]
    text = "".join(random.choices(parts, k=random.randrange(200, 2500)))
    payload = json.dumps({"text": text, "id": "t"}, ensure_ascii=number % 2 == 0).encode()
    reading, writing = os.pipe()
    os.write(writing, payload)
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    given = hook_agent._standard_input()
    told = hook_agent._decoded(given)
    assert told["id"] == "t", payload
    assert given == payload or ("\u2026" in told["text"] and len(given) < 1200), payload
print("whole")
"""


def test_wherever_a_text_is_cut_it_is_json(tmp_path: Path) -> None:
    seed = str(time.time_ns())
    assert run(CUT, environment(tmp_path, "http://127.0.0.1:1"), seed) == "whole\n", seed


# --------------------------------------------------------------------- never in the way


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"not json", "Expecting value"),
        (b'{"session_id":"x"', "Expecting ',' delimiter"),
        (b"[1,2]", "payload must be a JSON object"),
        (b'{"hook_event_name":"Stop"}', "session_id must be a string"),
        (b'{"session_id":"../x","hook_event_name":"Stop"}', "session_id must be 1 to 128"),
        (b"{}}", "Extra data"),
        (b'{},"sessionId":{}', "Extra data"),
        (b"[" * 100_000, ""),
        (b"x" * 5_000_000, "Expecting value"),
        (b"\xff\xfe\x00", "Expecting value"),
        (b'{"hook_event_name":7}', "hook_event_name must be"),
    ],
)
def test_what_is_no_payload_is_kept_with_the_reason(
    appliance: Appliance, tmp_path: Path, payload: bytes, reason: str
) -> None:
    env = environment(tmp_path, appliance.url)
    assert hook(payload, env) == SILENT
    spool = spool_in(tmp_path, appliance.url)
    eventually(lambda: letters_in(spool))
    (letter,) = letters_in(spool)
    assert reason in letter["reason"]
    assert payload[:1000].decode(errors="replace") in letter["record"]
    assert command("status", env).returncode == 0


def test_text_that_is_not_utf_8_is_not_lost(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    hook(b'{"session_id":"latin","hook_event_name":"Odd","text":"caf\xe9"}', environment(tmp_path, appliance.url))
    eventually(lambda: entries_of(http, "latin"))
    assert entries_of(http, "latin")[0]["text"] == "caf\ufffd"


@pytest.mark.parametrize("payload", [b"", b"\n", b"   \r\n"])
def test_nothing_on_stdin_is_nothing_to_keep(tmp_path: Path, payload: bytes) -> None:
    assert hook(payload, environment(tmp_path, NOWHERE)) == SILENT
    assert not (tmp_path / "spool").exists()


def test_a_closed_stdin_is_no_failure(tmp_path: Path) -> None:
    shell = f"exec {sys.executable} -I -S -c {shlex.quote(HOOK)} <&-"
    ran = subprocess.run(["sh", "-c", shell], env=environment(tmp_path, NOWHERE), capture_output=True, timeout=30)
    assert (ran.returncode, ran.stdout, ran.stderr) == SILENT


def test_a_store_that_is_down_hangs_or_fails_is_not_felt(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Fake(lambda posted: posted.answer(500)) as failing,
        Fake(lambda posted: posted.drop()) as dropping,
    ):
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url in (NOWHERE, hanging, failing.url, dropping.url, "nonsense", "http://256.1.1.1"):
            env = environment(tmp_path, url)
            assert [hook(STOP, env) for _ in range(3)] == [SILENT] * 3
            assert len(waiting_in(spool_in(tmp_path, url))) == 3
        stop_senders(tmp_path)


@pytest.mark.parametrize("trouble", ["a file", "full", "no home"])
def test_a_spool_that_cannot_be_written_is_not_felt(tmp_path: Path, trouble: str) -> None:
    env = environment(tmp_path, NOWHERE)
    (tmp_path / "file").touch()
    if trouble == "a file":
        env |= {"SESSION_SPOOL_DIR": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "file")}
    if trouble == "no home":
        env = {"TMPDIR": "/dev/null"} | {name: env[name] for name in ("PATH", "SESSION_SERVICE_URL")}
        env |= {"HOME": "/dev/null"}
    limit = "ulimit -f 0; " if trouble == "full" else ""
    shell = f"{limit}exec {sys.executable} -I -S -c {shlex.quote(HOOK)}"
    ran = subprocess.run(["sh", "-c", shell], env=env, input=STOP, capture_output=True, timeout=30)
    assert (ran.returncode, ran.stdout, ran.stderr) == SILENT


def test_a_full_disk_is_no_failure_of_a_hook_and_the_next_one_is_kept(tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE)
    spool = spool_in(tmp_path, NOWHERE)
    spool.append(line_of(0, text="x" * 5000))
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); " + HOOK
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", limited], env=env, input=STOP, capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == SILENT
    assert len(waiting_in(spool)) == 1
    assert hook(STOP, env) == SILENT
    assert len(waiting_in(spool)) == 2


SEALED = {"SESSION_SPOOL_DIR": "/dev/null", "TMPDIR": "/dev/null", "HOME": "/dev/null"}


@pytest.mark.parametrize("trouble", ["no folder", "full"])
def test_what_cannot_be_kept_is_sent_from_memory(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, trouble: str
) -> None:
    env = environment(tmp_path, appliance.url, SESSION_ID=f"memory-{trouble[:2]}")
    secret = STOP.replace(b"done", b"sk-ant-api03-" + b"a1B2c3D4e5" * 9)
    command = [sys.executable, "-I", "-S", "-c", HOOK]
    if trouble == "full":
        command[-1] = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); " + HOOK
    else:
        env |= SEALED
    for payload in (STOP, secret):
        ran = subprocess.run(command, env=env, input=payload, capture_output=True, timeout=30)
        assert (ran.returncode, ran.stdout, ran.stderr) == SILENT
    first, second = entries_of(http, env["SESSION_ID"], "/responses")  # without a wait: nobody else would send them
    assert "done" in first.values()
    assert "sk-ant" not in json.dumps(second)


def test_what_cannot_be_kept_or_sent_holds_nobody_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, Fake(lambda posted: posted.answer(500)) as failing:
        for url in (f"http://127.0.0.1:{silent.getsockname()[1]}", failing.url, NOWHERE, "nonsense"):
            begun = time.monotonic()
            assert hook(STOP, environment(tmp_path, url, **SEALED)) == SILENT
            assert time.monotonic() - begun < hook_agent._AT_ONCE_SECONDS + 3
        assert len(failing.posted) == 1


def test_hooks_that_overtake_one_another_say_when_they_began(tmp_path: Path) -> None:
    """A hook that is held up after its start is not later for that."""
    env = environment(tmp_path, NOWHERE)
    held = HOOK.replace(
        "hook_agent.hook()", "import select; print(flush=True); select.select([0], [], []); hook_agent.hook()"
    )
    first = subprocess.Popen([sys.executable, "-I", "-S", "-c", held], env=env, stdin=-1, stdout=-1)
    assert first.stdout is not None and first.stdout.readline()  # it has begun
    assert hook(b'{"session_id":"x","hook_event_name":"PostToolUse"}', env) == SILENT
    first.communicate(b'{"session_id":"x","hook_event_name":"PreToolUse"}')
    result, call = waiting_in(spool_in(tmp_path, NOWHERE))
    assert [record["hook"]["hook_event_name"] for record in (call, result)] == ["PreToolUse", "PostToolUse"]
    assert call["timestamp"] < result["timestamp"]


def test_a_batch_that_tells_nothing_new_is_not_kept(tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE)
    batch = {"session_id": "x", "hook_event_name": "PostToolBatch", "tool_calls": [{"tool_response": "fine"}]}
    assert hook(json.dumps(batch).encode(), env) == SILENT
    assert not (tmp_path / "spool").exists()
    batch["tool_calls"] = [{"tool_response": "<tool_use_error>No such tool</tool_use_error>"}]
    assert hook(json.dumps(batch).encode(), env) == SILENT
    assert len(waiting_in(spool_in(tmp_path, NOWHERE))) == 1


def test_the_command_works_as_a_script_as_well(tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE)
    ran = subprocess.run(
        [sys.executable, hook_agent.__file__, "hook"], env=env, input=STOP, capture_output=True, timeout=30
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == SILENT
    assert len(waiting_in(spool_in(tmp_path, NOWHERE))) == 1


def test_the_sender_has_nothing_of_the_hooks(tmp_path: Path) -> None:
    """Whoever waits for the end of the hook's output, or of a pipe that it was given, does not wait for the sender."""
    env = environment(tmp_path, NOWHERE)
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe:
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "-c", HOOK], env=env, input=STOP, capture_output=True, pass_fds=[writer]
        )
        os.close(writer)
        assert (ran.returncode, ran.stdout, ran.stderr) == SILENT
        assert pipe.read() == b""
    spool = spool_in(tmp_path, NOWHERE)
    eventually(lambda: spool.word() != "there")
    who = spool.who_delivers()
    assert who is not None
    assert os.getsid(who) == who
    assert os.readlink(f"/proc/{who}/cwd") == "/"
    opened: list[Any] = [os.readlink(f"/proc/{who}/fd/{number}") for number in range(3)]
    assert opened == ["/dev/null"] * 3


def test_what_a_hook_imports_is_little(tmp_path: Path) -> None:
    """Its cost is the start of Python: what it imports is what can be seen of that without a clock."""
    show = "import sys, posix; posix._exit = lambda code: print(*sorted(sys.modules)); " + HOOK
    env = environment(tmp_path, NOWHERE)
    hook(STOP, env)  # which starts the sender
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", show], env=env, input=STOP, capture_output=True)
    loaded = set(ran.stdout.decode().split())
    assert {"posix", "fcntl", "hook_agent"} <= loaded
    assert loaded.isdisjoint(
        {"os", "json", "re", "typing", "threading", "argparse", "subprocess", "http", "contextlib"}
    )


# ------------------------------------------------------------------------ the others


def test_status_tells_what_waits(tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE)
    nothing = command("status", env)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    assert nothing.stdout.startswith("0 events of 0 sessions wait in ")
    hook(STOP, env)
    spool = spool_in(tmp_path, NOWHERE)
    eventually(lambda: spool.word() != "there")
    spool.bury(b"x", 422, "bad")
    spool.note_dropped(hook_agent._tally([line_of(0), line_of(1)]))
    told = command("status", env)
    assert told.returncode == 1
    first, dropped, letters, who, trouble = told.stdout.splitlines()
    assert first == f"1 events of 1 sessions wait in {spool.folder} for {NOWHERE}."
    assert dropped.startswith("2 events had to go")
    assert letters.startswith("1 were refused for good")
    assert who == f"Process {spool.who_delivers()} delivers, but the store does not take it now."
    assert trouble.startswith(f"The last try failed: {NOWHERE}: ") and "refused" in trouble


@pytest.mark.parametrize("name", ["status", "flush"])
def test_where_there_can_be_no_spool_it_is_said_how_to_have_one(tmp_path: Path, name: str) -> None:
    told = command(name, environment(tmp_path, NOWHERE, SESSION_SPOOL_DIR="/dev/null", TMPDIR="/dev/null"))
    assert (told.returncode, told.stdout, len(told.stderr.splitlines())) == (1, "", 1)
    assert told.stderr.startswith("hook_agent.py: Neither /dev/null ") and "SESSION_SPOOL_DIR" in told.stderr


def test_flush_delivers_what_waits(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url)
    spool = spool_in(tmp_path, appliance.url)
    spool.append(line_of(1, "flushed"))
    ran = command("flush", env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("0 events of 0 sessions wait")
    assert len(entries_of(http, "flushed")) == 1
    assert command("flush", environment(tmp_path, NOWHERE)).returncode == 0
    spool_in(tmp_path, NOWHERE).append(line_of(1))
    assert command("flush", environment(tmp_path, NOWHERE), "--timeout", "0.3").returncode == 1


def test_test_tells_whether_the_store_takes_what_is_sent(tmp_path: Path, folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_INGEST_TOKEN": "right-token"}) as appliance:
        good = command("test", environment(tmp_path, appliance.url, SESSION_TOKEN="right-token"))
        bad = command("test", environment(tmp_path, appliance.url, SESSION_TOKEN="wrong-token"))
    away = command("test", environment(tmp_path, appliance.url))
    assert (good.returncode, good.stdout) == (0, f"{appliance.url} is there and takes what is sent.\n")
    assert bad.returncode == 1 and "401" in bad.stderr
    assert away.returncode == 1 and "refused" in away.stderr


@pytest.mark.parametrize("name", sorted(hook_agent.COMMANDS))
def test_every_command_is_in_the_help_and_has_help_of_its_own(tmp_path: Path, name: str) -> None:
    env = environment(tmp_path, NOWHERE)
    shown = command("--help", env)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"  {name}" in shown.stdout
    if name != "hook":  # which prints nothing, whatever it is told
        own = command(name, env, "--help")
        assert own.returncode == 0
        assert f"hook_agent.py {name}" in own.stdout


@pytest.mark.parametrize(("name", "file"), [("install", "install"), ("uninstall", "install"), ("run", "run")])
def test_a_command_whose_file_is_missing_says_which_to_copy(tmp_path: Path, name: str, file: str) -> None:
    agent = shutil.copy(hook_agent.__file__, tmp_path)

    def ran() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, agent, name, "--help"]
        return subprocess.run(arguments, env=environment(tmp_path, NOWHERE), capture_output=True, text=True)

    said = f"{name} needs another file: copy containers/hook_agent_{file}.py, or {NOWHERE}/hook_agent_{file}.py, to "
    missing = ran()
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == f"hook_agent.py: {said}{tmp_path}\n"
    shutil.copy(REPOSITORY / f"containers/hook_agent_{file}.py", tmp_path)
    assert (ran().returncode, ran().stderr) == (0, "")


def test_without_what_is_found_out_a_session_has_host_and_folder_and_own_patterns_are_taken_out(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    agent = shutil.copy(hook_agent.__file__, tmp_path)
    (tmp_path / "patterns").write_text("acme: ACME-[0-9]{4}\n")
    env = environment(tmp_path, appliance.url, PYTHONPATH=str(tmp_path), SESSION_REDACT=str(tmp_path / "patterns"))
    env |= {"SESSION_ID": "alone", "PWD": str(tmp_path)}
    start = b'{"session_id":"c","hook_event_name":"SessionStart","source":"startup"}'
    program = "import hook_agent as it; it.SessionHookAgent().sync.log_action('note', text='ACME-1234')"
    for words, given in (([agent, "hook"], start), (["-c", program], b"")):
        ran = subprocess.run([sys.executable, *words], env=env, cwd=tmp_path, input=given, capture_output=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == SILENT
    eventually(lambda: entries_of(http, "alone"))
    where = http.get("/api/sessions/alone").json()["metadata"]["where"]
    assert where == {"host": os.uname().nodename, "cwd": str(tmp_path)}
    assert entries_of(http, "alone")[0]["text"] == "[redacted:acme]"
    said = subprocess.run([sys.executable, agent, "test"], env=env, capture_output=True, text=True).stdout
    assert "copy containers/hook_agent_facts.py" in said and "copy containers/hook_agent_patterns.py" in said


def test_a_command_that_there_is_not_is_used_wrongly(tmp_path: Path) -> None:
    for arguments in ([], ["nonsense"]):
        ran = subprocess.run(
            [sys.executable, hook_agent.__file__, *arguments], env=environment(tmp_path, NOWHERE), capture_output=True
        )
        assert (ran.returncode, ran.stdout) == (2, b"")
        assert b"usage" in ran.stderr
