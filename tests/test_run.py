"""`hook_agent.py run -- COMMAND` is to the command as if it were not there, and to the store a session."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually

Json = dict[str, Any]

RUN = (sys.executable, str(REPOSITORY / "hook_agent.py"), "run")
PASSED_ON = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")
SECONDS = 30.0

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

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        pipe: Json = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*RUN, *arguments], cwd=self.folder, **{"env": self.env, **pipe, **options})

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


@pytest.mark.parametrize(("name", "code"), [("no-such-command", 127), ("./not-a-program", 126)])
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
