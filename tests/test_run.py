"""`hook_agent.py run -- COMMAND` is to the command as if it were not there, and to the store a session."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import hook_agent
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually
from tests.steered import Person, person

Json = dict[str, Any]

RUN = (sys.executable, str(REPOSITORY / "hook_agent.py"), "run")
PASSED_ON = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")
SECONDS = 60.0

TELLS_SIGNALS = """
import os, signal, time
seen = []
def tell(number, frame):
    seen.append(signal.Signals(number).name)
    os.write(1, (seen[-1] + os.linesep).encode())
for name in os.environ["SIGNALS"].split():
    signal.signal(getattr(signal, name), tell)
print("ready", flush=True)
while os.environ["LAST"] not in seen:
    time.sleep(0.01)
"""
"""Says which signals come, until the last one has."""

LEAVES_AN_ORPHAN = """
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(write, b"%d" % os.getpid())
    os._exit(0)
os.wait()
orphan = os.read(read, 20).decode()
while os.path.exists(f"/proc/{orphan}"):
    time.sleep(0.01)
"""
"""Ends only when somebody has reaped the process that it leaves behind."""


class Runner:
    """Runs commands in a folder of its own, on behalf of one session."""

    def __init__(self, folder: Path, service_url: str, session_id: str) -> None:
        self.folder, self.spool, self.session_id = folder, folder / "spool", session_id
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SESSION_ID": session_id,
            "SESSION_SERVICE_URL": service_url,
            "SESSION_SPOOL_DIR": str(self.spool),
        }

    def start(self, *arguments: str, before: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[bytes]:
        pipe: Json = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*before, *RUN, *arguments], cwd=self.folder, **{"env": self.env, **pipe, **options})

    def run(self, *arguments: str, given: bytes = b"", **options: Any) -> tuple[int, bytes, bytes]:
        with self.start(*arguments, **options) as process:
            output, errors = process.communicate(given, SECONDS)
            return process.returncode, output, errors


@pytest.fixture
def runner(tmp_path: Path, appliance: Appliance, session_id: str) -> Iterator[Runner]:
    runner = Runner(tmp_path, appliance.url, session_id)
    yield runner
    shutil.rmtree(runner.spool, ignore_errors=True)  # with which whoever delivers from it leaves


def ended(http: httpx.Client, session_id: str) -> Json:
    """A session once it has come to its end."""
    path = f"/api/sessions/{session_id}"
    eventually(lambda: (http.get(path).json().get("final") or {}).get("exitCode") is not None, SECONDS)
    session: Json = http.get(path).json()
    return session


# ------------------------------------------------------------------- the session


def test_a_command_that_ends_well_is_a_session_that_was_a_success(runner: Runner, http: httpx.Client) -> None:
    assert runner.run("--", "sh", "-c", 'echo "$SESSION_ID"') == (0, f"{runner.session_id}\n".encode(), b"")
    session = ended(http, runner.session_id)
    assert (session["metadata"]["status"], session["metadata"]["resumes"]) == ("completed", 0)
    final, initial = session["final"], session["initial"]
    assert (final["status"], final["exitCode"], final["outcome"], final["finalResponse"]) == ("success", 0, None, None)
    assert initial["command"] == ["sh", "-c", 'echo "$SESSION_ID"']
    assert (initial["source"], initial["cwd"], initial["host"]) == ("run", str(runner.folder), socket.gethostname())
    assert session["metadata"]["created"] >= initial["start"] > "2026"


def test_without_a_session_id_one_is_made_and_given_to_the_command(runner: Runner, http: httpx.Client) -> None:
    del runner.env["SESSION_ID"]
    code, output, _ = runner.run("--", "sh", "-c", 'echo "$SESSION_ID"')
    assert code == 0
    assert ended(http, output.decode().strip())["metadata"]["status"] == "completed"


@pytest.mark.parametrize(
    ("script", "code", "outcome"),
    [("exit 3", 3, "exit code 3"), ("kill -KILL $$", 137, "killed by signal 9: Killed"), ("kill -TERM $$", 143, "15")],
)
def test_a_command_that_fails_is_a_session_that_failed(
    runner: Runner, http: httpx.Client, script: str, code: int, outcome: str
) -> None:
    assert runner.run("--", "sh", "-c", script) == (code, b"", b"")
    session = ended(http, runner.session_id)
    assert session["metadata"]["status"] == session["final"]["status"] == "failed"
    assert session["final"]["exitCode"] == code
    assert outcome in session["final"]["outcome"]


@pytest.mark.parametrize(("name", "code"), [("no-such-command", 127), ("./not-a-program", 126), ("", 126)])
def test_a_command_that_cannot_be_started_is_said_so(runner: Runner, http: httpx.Client, name: str, code: int) -> None:
    (runner.folder / "not-a-program").touch()
    got, output, errors = runner.run("--output-lines", "3", "--", name)
    assert (got, output) == (code, b"")
    assert name in errors.decode()
    assert len(errors.splitlines()) == 1
    final = ended(http, runner.session_id)["final"]
    assert (final["status"], final["exitCode"]) == ("failed", code)
    assert name in final["outcome"]


@pytest.mark.parametrize("stream", [1, 2])
def test_the_last_lines_are_kept_if_asked_for(runner: Runner, http: httpx.Client, stream: int) -> None:
    script = rf"printf 'one\ntwo\nh\303\251\377\nfour' >&{stream}"
    written = b"one\ntwo\nh\xc3\xa9\xff\nfour"
    code, *streams = runner.run("--output-lines", "3", "--", "sh", "-c", script)
    assert (code, streams[stream - 1], streams[2 - stream]) == (0, written, b"")
    assert ended(http, runner.session_id)["final"]["finalResponse"] == "two\nhé\ufffd\nfour"


def test_a_store_that_is_away_is_nothing_to_the_command_and_hears_of_it_later(tmp_path: Path) -> None:
    late = Appliance(tmp_path / "late")
    runner = Runner(tmp_path, late.url, "away-1")
    assert runner.run("--", "sh", "-c", "cat; exit 5", given=b"word") == (5, b"word", b"")
    with late, httpx.Client(base_url=late.url) as http:
        session = ended(http, runner.session_id)
        assert (session["metadata"]["status"], session["final"]["exitCode"]) == ("failed", 5)
    shutil.rmtree(runner.spool)


def test_a_spool_that_cannot_be_is_nothing_to_the_command(runner: Runner) -> None:
    runner.spool.write_text("in the way")
    code, output, _ = runner.run("--", "sh", "-c", "cat; exit 5", given=b"word")
    runner.spool.unlink()
    runner.spool.mkdir()
    assert (code, output) == (5, b"word")


def test_what_stands_behind_the_dashes_is_the_commands_alone(runner: Runner) -> None:
    command = ["printf", "%s,", "--output-lines", "--help", "--", "a b", ""]
    assert runner.run("--", *command) == (0, b"--output-lines,--help,--,a b,,", b"")


@pytest.mark.parametrize("arguments", [[], ["--"], ["--output-lines", "many", "--", "true"]])
def test_used_wrongly_it_runs_nothing(runner: Runner, arguments: list[str]) -> None:
    code, output, errors = runner.run(*arguments)
    assert (code, output) == (2, b"")
    assert b"usage" in errors


# ------------------------------------------------------------------- how it ended


def test_an_end_has_a_certificate(runner: Runner, http: httpx.Client) -> None:
    """Its last words are those of its errors, without secrets; the first end of a session knows nothing of another."""
    script = "echo out; echo 'no password=hunter2hunter2' >&2; kill -SEGV $$"
    for restarts in (None, 1):
        assert runner.run("--output-lines", "5", "--", "sh", "-c", script)[0] == 139
        eventually(lambda: certificate(http, runner.session_id).get("restarts", "") == restarts)  # noqa: B023
        said = certificate(http, runner.session_id)
        assert (said["signal"], said["ordered"]) == ("SIGSEGV", None)
        assert said["lastWords"] == "no password=[redacted:password]"
        assert said["memory"].keys() == {"killed", "limit", "peak", "wasCommand"}
        assert said["undelivered"]["bytes"] >= 0


def test_what_is_not_known_of_an_end_is_null(runner: Runner, http: httpx.Client) -> None:
    runner.run("--", "true")
    ended(http, runner.session_id)
    said = certificate(http, runner.session_id)
    assert (said["signal"], said["restarts"], said["lastWords"]) == (None, None, None)


def test_what_waits_for_a_store_that_is_away_is_told(tmp_path: Path) -> None:
    late = Appliance(tmp_path / "late")
    runner = Runner(tmp_path, late.url, "away-2")
    for _ in range(2):
        runner.run("--", "true")
    with late, httpx.Client(base_url=late.url) as http:
        eventually(lambda: len(ends_of(http, "away-2")) == 2)
        undelivered = certificate(http, "away-2")["undelivered"]
        assert undelivered["events"] == 3  # how it began, and ended, and began again
        assert undelivered["bytes"] > 500
    shutil.rmtree(runner.spool)


def certificate(http: httpx.Client, session_id: str) -> Json:
    """Of the last end of a session."""
    answer = http.get(f"/api/sessions/{session_id}/events", params={"type": "session_finalized"}).json()
    found: list[Json] = [event["data"]["certificate"] for event in answer.get("items", [])]
    return found[-1] if found else {}


# ------------------------------------------------------------------- as ordered

COUNTS = "echo ready; while :; do echo x; sleep 0.02; done"


@pytest.fixture
def steered(runner: Runner, appliance: Appliance) -> Iterator[Steered]:
    with person(appliance) as alice, runner.start("--control", "--", "sh", "-c", COUNTS) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        eventually(lambda: alice.is_reachable(runner.session_id), SECONDS)
        yield Steered(alice, process, runner.session_id)
        process.kill()


class Steered:
    """A program that writes all the time, and who orders it."""

    def __init__(self, alice: Person, process: subprocess.Popen[bytes], session: str) -> None:
        self.alice, self.process, self.session = alice, process, session

    def order(self, order: str, **more: Any) -> Json:
        return self.alice.is_delivered(self.session, self.alice.order(self.session, order, **more))

    def signals(self) -> list[str]:
        actions = self.alice.session(self.session)["actions"]
        return [action["signal"] for action in actions if action["type"] == "signal_sent"]

    def writes(self) -> bool:
        """Whether anything comes that was not written before."""
        assert self.process.stdout
        output = self.process.stdout.fileno()
        while select.select([output], [], [], 0)[0]:
            os.read(output, 1 << 16)
        return bool(select.select([output], [], [], 0.5)[0])


def test_a_program_is_paused_and_goes_on_and_is_stopped(steered: Steered, http: httpx.Client) -> None:
    pause = steered.order("pause")
    assert not steered.writes()
    steered.order("release", orderId=pause["orderId"])
    eventually(steered.writes)
    stop = steered.alice.order(steered.session, "stop", text="It burns money")
    assert steered.process.wait(SECONDS) == 143
    final = ended(http, steered.session)["final"]
    assert (final["status"], final["exitCode"]) == ("cancelled", 143)
    assert certificate(http, steered.session)["ordered"] == {"signal": "SIGTERM", "orderId": stop, "by": "control"}
    assert steered.signals() == ["SIGSTOP", "SIGCONT", "SIGTERM"]
    assert steered.alice.is_delivered(steered.session, stop)


def test_a_paused_program_can_be_stopped(steered: Steered) -> None:
    steered.order("pause")
    steered.alice.order(steered.session, "stop", text="Enough")
    assert steered.process.wait(SECONDS) == 143


def test_what_a_program_cannot_do_is_refused(steered: Steered) -> None:
    order = steered.alice.order(steered.session, "say", text="Hello")
    eventually(lambda: steered.alice.fate(steered.session, order)["status"] == "refused", SECONDS)
    assert steered.writes()


def test_what_is_ordered_is_left_to_an_agent_that_is_under_control_itself(
    runner: Runner, appliance: Appliance, http: httpx.Client
) -> None:
    """Its hooks tell it what is said, which a program would have refused."""
    code = f"import sys; sys.path.append({str(REPOSITORY)!r}); import hook_agent; hook_agent.control(5)"
    payload = json.dumps({"session_id": "claude-8", "hook_event_name": "PostToolBatch"}, separators=(",", ":"))
    hook = f"printf %s {shlex.quote(payload)} | {shlex.join([sys.executable, '-c', code])}"
    script = f"export CLAUDE_PID=$$; {hook}; echo ready; read line; {hook}"
    with person(appliance) as alice, begun(runner.start("--control", "--", "sh", "-c", script)) as process:
        eventually(lambda: alice.is_reachable(runner.session_id), SECONDS)
        order = alice.order(runner.session_id, "say", text="Use blue")
        eventually(lambda: any(order in path.read_text() for path in runner.spool.glob("*/orders/*")))
        output, _ = process.communicate(b"\n", timeout=SECONDS)
        assert b"says: Use blue" in output
        assert alice.is_delivered(runner.session_id, order)


def test_without_control_nobody_can_be_reached(runner: Runner, appliance: Appliance) -> None:
    with person(appliance) as alice, begun(runner.start("--", "sh", "-c", WAITS)) as process:
        eventually(lambda: alice.knows(runner.session_id))
        assert not alice.is_reachable(runner.session_id)
        process.communicate(b"\n", timeout=SECONDS)


def test_orders_over_plain_http_from_elsewhere_are_refused(runner: Runner) -> None:
    runner.env["SESSION_SERVICE_URL"] = "http://store.example.com"
    code, output, errors = runner.run("--control", "--", "echo", "x")
    assert (code, output) == (2, b"")
    assert b"plain HTTP" in errors


# ------------------------------------------------------------------- as if it were not there


@pytest.mark.parametrize("arguments", [[], ["--output-lines", "2"]], ids=["untouched", "kept"])
def test_every_byte_goes_through(runner: Runner, arguments: list[str]) -> None:
    everything = bytes(range(256)) * 4096
    assert runner.run(*arguments, "--", "cat", given=everything) == (0, everything, b"")
    assert runner.run(*arguments, "--", "sh", "-c", "cat >&2", given=everything) == (0, b"", everything)


@pytest.mark.parametrize("arguments", [[], ["--output-lines", "2"]], ids=["untouched", "kept"])
def test_a_command_that_nobody_listens_to_ends_as_it_would_alone(runner: Runner, arguments: list[str]) -> None:
    with runner.start(*arguments, "--", "yes") as process:
        assert process.stdout
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(SECONDS) == 128 + signal.SIGPIPE


def test_output_that_a_daemon_holds_does_not_hold_the_end(runner: Runner) -> None:
    pipe = runner.folder / "pipe"
    os.mkfifo(pipe)
    code, output, _ = runner.run("--output-lines", "1", "--", "sh", "-c", "cat pipe 2>/dev/null & echo done")
    assert (code, output) == (0, b"done\n")
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))  # the daemon still waited there, and goes now


def test_every_signal_is_passed_on(runner: Runner) -> None:
    names = [f"SIG{name}" for name in PASSED_ON]
    runner.env |= {"SIGNALS": " ".join(names), "LAST": names[-1]}
    with runner.start("--", sys.executable, "-c", TELLS_SIGNALS) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        for name in names:
            process.send_signal(getattr(signal, name))
        output, _ = process.communicate(timeout=SECONDS)
    assert sorted(output.decode().split()) == sorted(names)
    assert process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes a second user")
def test_a_signal_that_may_not_be_passed_on_is_said_and_ends_nothing(runner: Runner, http: httpx.Client) -> None:
    """A container without CAP_KILL whose command is another user's."""
    as_another = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo ready; read line")
    weak = ("setpriv", "--bounding-set=-kill", "--inh-caps=-all")
    with runner.start("--", *as_another, before=weak) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stderr
        assert b"SIGTERM could not be passed on" in process.stderr.readline()
        process.communicate(b"go on\n", timeout=SECONDS)
    assert process.returncode == 0
    assert ended(http, runner.session_id)["final"]["status"] == "success"


def test_a_signal_that_ends_the_command_is_its_end_and_not_ours(runner: Runner, http: httpx.Client) -> None:
    with runner.start("--", "sh", "-c", "echo ready; exec sleep 60") as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 143
    assert ended(http, runner.session_id)["final"]["exitCode"] == 143


def test_what_is_ignored_stays_ignored_and_what_is_not_does_not(runner: Runner) -> None:
    def masks(*before: str) -> list[int]:
        """Of the signals that a program can send: which ones are blocked, and which are ignored."""
        command = ["nohup", *before, "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
        output = subprocess.run(command, capture_output=True, check=True, env=runner.env).stdout
        return [int(line.split()[1], 16) & 0x7FFF_FFFF for line in output.splitlines()]

    assert masks() == [0, 1 << (signal.SIGHUP - 1)]
    assert masks(*RUN, "--") == masks()


def test_an_end_is_heard_of_also_where_whoever_started_us_ignores_ends(runner: Runner) -> None:
    before = ("sh", "-c", 'trap "" CHLD; exec "$@"', "sh")
    assert runner.run("--", "sh", "-c", "exit 8", before=before) == (8, b"", b"")


def test_a_terminal_stays_one_and_its_signals_come_once(runner: Runner) -> None:
    runner.env |= {"SIGNALS": "SIGINT SIGUSR1", "LAST": "SIGUSR1"}
    code = f"import os, sys; print([os.isatty(n) for n in range(3)]); {TELLS_SIGNALS}"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(runner.folder)
        os.execve(RUN[0], [*RUN, "--", sys.executable, "-c", code], runner.env)
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        lines = iter(screen.readline, b"")
        assert next(lines) == b"[True, True, True]\r\n"
        assert next(lines) == b"ready\r\n"
        screen.write(b"\x03")
        assert next(lines).removeprefix(b"^C") == b"SIGINT\r\n"
        os.kill(child, signal.SIGUSR1)  # by then a second SIGINT would have been passed on
        assert next(lines) == b"SIGUSR1\r\n"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_orphans_are_reaped(runner: Runner) -> None:
    becomes_their_parent = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", becomes_their_parent, *RUN, "--", sys.executable, "-c", LEAVES_AN_ORPHAN]
    assert subprocess.run(command, env=runner.env, cwd=runner.folder, timeout=SECONDS).returncode == 0


# ------------------------------------------------------------------- several programs, one session


ENDS = {"session_finalized", "program_ended"}
WAITS = 'echo "ready"; read line'
AGENT = """
import asyncio, sys
sys.path.append(sys.argv[1])
from hook_agent import SessionHookAgent
async def main():
    async with SessionHookAgent() as agent:
        await agent.log_action(type="step")
        if len(sys.argv) > 2:
            print("ready", flush=True)
            sys.stdin.readline()
        await agent.finalize(outcome="its own")
asyncio.run(main())
"""


def ends_of(http: httpx.Client, session: str) -> list[tuple[str, int | None]]:
    """The ends that were told, in order, each with its exit code."""
    events = http.get(f"/api/sessions/{session}/events?limit=1000").json().get("items", [])
    told = [(event["data"].get("type", event["type"]), event["data"].get("exitCode")) for event in events]
    return [(kind, code) for kind, code in told if kind in ENDS]


def begun(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_program_in_a_program_does_not_end_the_session(runner: Runner, http: httpx.Client) -> None:
    inner = [*RUN, "--", "sh", "-c", "exit 3"]
    assert runner.run("--", "sh", "-c", f"{shlex.join(inner)}; exit 5")[0] == 5
    assert ended(http, runner.session_id)["final"]["exitCode"] == 5
    assert ends_of(http, runner.session_id) == [("program_ended", 3), ("session_finalized", 5)]


def test_an_agent_under_run_says_that_it_has_ended_and_run_that_all_has(runner: Runner, http: httpx.Client) -> None:
    assert runner.run("--", sys.executable, "-c", AGENT, str(REPOSITORY))[0] == 0
    session = ended(http, runner.session_id)
    assert session["final"]["exitCode"] == 0
    assert ends_of(http, runner.session_id) == [("program_ended", None), ("session_finalized", 0)]
    (told,) = [entry for entry in session["actions"] if entry["type"] == "program_ended"]
    assert (told["status"], told["outcome"]) == ("success", "its own")


@pytest.mark.parametrize("is_first_the_first", [True, False])
def test_of_two_side_by_side_the_last_to_go_ends_the_session(
    runner: Runner, http: httpx.Client, is_first_the_first: bool
) -> None:
    programs = [begun(runner.start("--", "sh", "-c", f"{WAITS}; exit {code}")) for code in (1, 2)]
    order = programs if is_first_the_first else programs[::-1]
    codes: list[int] = []
    for process in order:
        if codes:
            assert http.get(f"/api/sessions/{runner.session_id}").json()["final"] is None
        process.communicate(b"\n", timeout=SECONDS)
        codes.append(process.returncode)
    assert ended(http, runner.session_id)["final"]["exitCode"] == codes[1]
    assert ends_of(http, runner.session_id) == [("program_ended", codes[0]), ("session_finalized", codes[1])]


def test_a_program_that_is_killed_does_not_count_any_more(runner: Runner, http: httpx.Client) -> None:
    killed = begun(runner.start("--", "sh", "-c", WAITS))
    other = begun(runner.start("--", sys.executable, "-c", AGENT, str(REPOSITORY), "wait"))
    killed.kill()
    killed.communicate()
    other.communicate(b"\n", timeout=SECONDS)
    final = ended(http, runner.session_id)["final"]
    assert (final["status"], final["exitCode"]) == ("success", 0)


def test_those_that_end_at_once_end_the_session_once_and_last(runner: Runner, http: httpx.Client) -> None:
    programs = [runner.start("--", "sh", "-c", f"{WAITS}; exit {code}") for code in range(6)]
    for process in programs:
        begun(process)
    for process in programs:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
    codes = [process.wait(SECONDS) for process in programs]
    for process in programs:
        process.communicate()
    assert codes == list(range(6))
    eventually(lambda: len(ends_of(http, runner.session_id)) == 6)
    ends = ends_of(http, runner.session_id)
    assert [kind for kind, _ in ends] == ["program_ended"] * 5 + ["session_finalized"]
    assert sorted(code for _, code in ends if code is not None) == codes
    assert list((runner.spool).glob("*/programs/*")) == []


def test_without_a_spool_each_program_ends_the_session(runner: Runner, http: httpx.Client) -> None:
    """Nobody can know of the others then; nothing fails, and nothing is left open.

    What cannot be kept is sent once, for a moment: a busy machine may miss that, though hardly ten times.
    """
    runner.env |= {"SESSION_SPOOL_DIR": "/dev/null", "TMPDIR": "/dev/null"}
    inner = [*RUN, "--", "sh", "-c", "exit 3"]
    ends: list[tuple[str, int | None]] = []
    for attempt in range(10):
        session = runner.env["SESSION_ID"] = f"{runner.session_id}-{attempt}"
        assert runner.run("--", "sh", "-c", f"{shlex.join(inner)}; exit 5")[0] == 5
        with suppress(AssertionError):
            eventually(lambda: len(ends_of(http, runner.env["SESSION_ID"])) == 2, within=5.0)
        ends = ends_of(http, session)
        if len(ends) == 2:
            break
    assert ends == [("session_finalized", 3), ("session_finalized", 5)]


@pytest.mark.parametrize("is_alone", [False, True])
def test_the_end_of_claude_code_is_the_end_of_the_session_only_where_it_is_alone(
    runner: Runner, http: httpx.Client, is_alone: bool
) -> None:
    hook = shlex.join([sys.executable, str(REPOSITORY / "hook_agent.py"), "hook"])
    payloads: list[Json] = [
        {"session_id": "claude-7", "hook_event_name": "SessionStart", "source": "startup"},
        {"session_id": "claude-7", "hook_event_name": "SessionEnd", "reason": "other"},
    ]
    script = "; ".join(f"printf %s {shlex.quote(json.dumps(payload))} | {hook}" for payload in payloads)
    command = ["sh", "-c", script] if is_alone else [*RUN, "--", "sh", "-c", f"{script}; exit 4"]
    assert subprocess.run(command, env=runner.env, cwd=runner.folder, timeout=SECONDS).returncode == (
        0 if is_alone else 4
    )
    wanted = [("session_finalized", None)] if is_alone else [("program_ended", None), ("session_finalized", 4)]
    eventually(lambda: ends_of(http, runner.session_id) == wanted)
    if not is_alone:
        actions = http.get(f"/api/sessions/{runner.session_id}").json()["actions"]
        assert [entry["reason"] for entry in actions if entry["type"] == "program_ended"] == ["other"]


# ------------------------------------------------------------------- memory


LIMITS, PEAKS = ("memory.max", "memory.limit_in_bytes"), ("memory.peak", "memory.max_usage_in_bytes")
CULPRITS = [(0, -9, False), (1, -9, True), (2, -9, None), (None, -9, None), (1, -15, False), (1, 137, False)]


@pytest.mark.parametrize("code", [0, 9])
@pytest.mark.parametrize("version", [1, 2])
def test_that_a_process_was_killed_for_memory_is_noted(
    runner: Runner, http: httpx.Client, version: int, code: int
) -> None:
    counts = runner.folder / ("memory.oom_control" if version == 1 else "memory.events")
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n" if version == 1 else "low 0\noom_kill 2\n")
    files = [str(runner.folder / "not there"), str(counts)]
    script = f"sed -i 's/oom_kill 2/oom_kill 3/' {counts}; exit {code}"
    program = f"""
import sys; sys.path.append({str(REPOSITORY)!r}); import hook_agent
hook_agent._beside("hook_agent_run", "run")._memory_files = lambda: iter({files!r})
sys.exit(hook_agent.main(["run", "--", "sh", "-c", {script!r}]))
"""
    first = version == 1
    for name, text in ((LIMITS[first], "67108864\n"), (PEAKS[first], "66000000\n")):
        (runner.folder / name).write_text(text)
    assert subprocess.run([sys.executable, "-c", program], env=runner.env, timeout=SECONDS).returncode == code
    because = ["exit code 9"] * (code == 9) + ["the kernel killed 1 of its processes for want of memory"]
    final = ended(http, runner.session_id)["final"]
    assert final["outcome"] == "; ".join(because)
    known = {"killed": 1, "limit": 67108864, "peak": 66000000, "wasCommand": False}
    assert certificate(http, runner.session_id)["memory"] == known


@pytest.mark.parametrize(("killed", "code", "wanted"), CULPRITS)
def test_whether_it_was_the_command_that_was_killed_for_memory(
    killed: int | None, code: int, wanted: bool | None
) -> None:
    assert hook_agent._beside("hook_agent_run", "run")._was_command(code, killed, None) is wanted


def test_what_was_killed_by_an_order_was_not_killed_for_memory() -> None:
    ordered = {"signal": "SIGKILL", "orderId": "o", "by": "alice"}
    assert hook_agent._beside("hook_agent_run", "run")._was_command(-9, 1, ordered) is False


def test_no_limit_is_said_so_and_what_cannot_be_known_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = hook_agent._beside("hook_agent_run", "run")
    monkeypatch.setattr(module, "_memory_files", lambda: iter([str(tmp_path / "memory.events")]))
    assert module._memory() == {"killed": None, "limit": None, "peak": None}
    (tmp_path / "memory.events").write_text("oom 0\noom_kill 0\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert module._memory() == {"killed": 0, "limit": "none", "peak": None}


def test_the_files_of_either_version_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(text: str) -> list[str]:
        opened = io.StringIO(text)
        monkeypatch.setattr("builtins.open", lambda *_, **__: opened)
        return list(hook_agent._beside("hook_agent_run", "run")._memory_files())

    assert found("4:cpu,memory:/docker/abc\n1:name=systemd:/x\n") == [
        "/sys/fs/cgroup/memory/docker/abc/memory.oom_control",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ]
    assert found("0::/\n")[0] == "/sys/fs/cgroup/memory.events"
    assert found("0::/user.slice/a:b\n")[0] == "/sys/fs/cgroup/user.slice/a:b/memory.events"
