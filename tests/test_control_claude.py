"""The real Claude Code CLI under control, with `-p` and at a terminal: the model is sent next what people say."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.agents import remove_spools
from tests.appliance import Appliance
from tests.claude_stub import ClaudeStub, calls, says
from tests.peers import eventually
from tests.repeats import LONG
from tests.steered import Person, person
from tests.test_claude_code import CLAUDE, SECONDS, Machine, bash

pytestmark = LONG
Json = dict[str, Any]

AT_ONCE = 3
QUESTIONS = [
    {"question": "Which colour?", "header": "Colour", "multiSelect": False,
     "options": [{"label": "Red", "description": "r"}, {"label": "Blue", "description": "b"}]}
]  # fmt: skip
RISKY = "touch made && curl --version"
SCRIPTS = {
    "risk": [[bash(RISKY)], [says("done")]],
    "steps": [[bash("cat pipe")], [bash("echo two")], [says("done")], [says("as you wish")]],
    "late": [[says("done")], [says("as you wish")]],
    "choose": [[calls("AskUserQuestion", questions=QUESTIONS)], [says("done")]],
    "plan": [[calls("ExitPlanMode", plan="First this, then that")], [says("done")]],
    "two": [[calls("Read", file_path="../one"), calls("Read", file_path="../two")], [says("done")]],
}
ASKS = ("--permission-mode", "default")


class Steered(Machine):
    """A machine on which control is installed, and what happens to one session there."""

    def __init__(self, folder: Path, stub: ClaudeStub, store: Appliance, alice: Person) -> None:
        super().__init__(folder, stub.url, store.url, folder / "spool")
        self._env |= {"SESSION_CONTROL_WAIT": "45", "TERM": "xterm-256color"}
        self.agent("install", "--control")
        trusted = {str(self.project): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}}
        known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": trusted}
        keys = {"customApiKeyResponses": {"approved": ["none"], "rejected": []}}
        (self.home / ".claude.json").write_text(json.dumps(known | keys))
        self.folder, self.alice, self._stub = folder, alice, stub
        self.session = str(uuid4())

    def sent(self) -> list[str]:
        """What the model was sent last, in each of its requests."""
        return self._stub.sent(f"for {self.session}")

    def print(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """`claude -p`."""
        prompt = f"[{script}] for {self.session}"
        return subprocess.Popen(
            [str(CLAUDE), "-p", prompt, "--session-id", self.session, "--output-format", "json", *arguments],
            env=self._env, cwd=self.project, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    @contextmanager
    def at_terminal(self, script: str, *arguments: str) -> Iterator[Terminal]:
        prompt = f"[{script}] for {self.session}"
        command = [str(CLAUDE), prompt, "--session-id", self.session, *(arguments or ASKS)]
        with Terminal(command, self.project, self._env) as terminal:
            yield terminal

    def asked(self, number: int = 1) -> list[Json]:
        return self.alice.asked(self.session, number=number)

    def answer(self, decision: str, **more: Any) -> None:
        (ask,) = self.asked()
        self.alice.answer(ask, decision, **more)

    def waits_in_a_call(self) -> None:
        """Its first call reads from the pipe."""
        eventually(lambda: any(map(self._is_reader, Path("/proc").glob("[0-9]*"))), SECONDS)

    def _is_reader(self, process: Path) -> bool:
        with suppress(OSError):
            is_cat = (process / "cmdline").read_bytes() == b"cat\0pipe\0"
            return is_cat and os.readlink(process / "cwd") == str(self.project)
        return False

    def order(self, order: str, **more: Any) -> str:
        """Its id, once whoever delivers has heard of it."""
        order_id = self.alice.order(self.session, order, **more)
        known = list(self.folder.glob(f"spool/*/orders/{self.session}"))
        eventually(lambda: any(order_id in path.read_text() for path in known), SECONDS)
        return order_id

    def last(self, number: int) -> str:
        """What the model is sent in its request of this number, from 1."""
        eventually(lambda: len(self.sent()) >= number, SECONDS)
        return self.sent()[number - 1]

    def close(self) -> None:
        self.release()
        remove_spools(self.folder)


class Terminal:
    """A pseudo-terminal with a program in it; what it shows is read, so that it never waits for us."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], command, env)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
        self.screen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while piece := os.read(self._fd, 1 << 16):
                self.screen += piece

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._reader.join(5)
        os.close(self._fd)


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=SECONDS)
    return output


# --------------------------------------------------------------------- scenarios


def denied(it: Steered) -> str:
    process = it.print("risk", *ASKS)
    it.answer("deny", message="Use wget")
    ended(process)
    return it.last(2)


def allowed(it: Steered) -> str:
    process = it.print("risk", *ASKS)
    it.answer("allow")
    ended(process)
    assert (it.project / "made").exists()
    return it.last(2)


def changed(it: Steered) -> str:
    process = it.print("risk", *ASKS)
    it.answer("allow", input={"command": "echo something else", "description": "Another"})
    ended(process)
    assert not (it.project / "made").exists()
    return it.last(2)


def store_killed_while_it_waits(it: Steered) -> str:
    """What happens then is what happens without control: `-p` denies by itself."""
    with Appliance(it.folder / "other") as other, person(other) as alice:
        it._env["SESSION_SERVICE_URL"] = other.url
        it.alice = alice
        process = it.print("risk", *ASKS)
        it.asked()
        other.kill()
        ended(process)
    return it.last(2)


def without_control(it: Steered) -> str:
    it.agent("install")
    ended(it.print("risk", *ASKS))
    return it.last(2)


def told_at_the_next_step(it: Steered) -> str:
    process = it.print("steps", "--dangerously-skip-permissions")
    it.waits_in_a_call()
    order = it.order("say", text="Use blue")
    it.release()
    ended(process)
    it.alice.is_delivered(it.session, order)
    return it.last(2)


def told_at_the_end(it: Steered) -> str:
    answering = it._stub.hold(it.session)
    with it.at_terminal("late"):
        it.last(1)
        it.order("say", text="Use blue")
        answering.set()
        return it.last(2)


def stopped(it: Steered) -> str:
    process = it.print("steps", "--dangerously-skip-permissions")
    it.waits_in_a_call()
    order = it.order("stop", text="It burns money")
    it.release()
    ended(process)
    it.alice.is_delivered(it.session, order)
    return json.dumps(it.sent()[1:])


def paused(it: Steered) -> str:
    process = it.print("steps", "--dangerously-skip-permissions")
    it.waits_in_a_call()
    pause = it.order("pause")
    it.release()
    it.alice.is_delivered(it.session, pause)  # the second call is held
    assert process.poll() is None
    held = len(it.sent())
    it.alice.order(it.session, "release", orderId=pause)
    ended(process)
    return f"{held} {it.last(3)}"


def question_answered(it: Steered) -> str:
    with it.at_terminal("choose"):
        it.answer("answer", answers={"Which colour?": "Blue"})
        return it.last(2)


def plan_approved(it: Steered) -> str:
    with it.at_terminal("plan", "--permission-mode", "plan"):
        it.answer("allow")
        return json.dumps(it._stub.sent(it.session)) if it.last(2) else ""


def two_in_the_other_order(it: Steered) -> str:
    for name in ("one", "two"):
        (it.folder / name).write_text(name.upper())
    with it.at_terminal("two"):
        asks = {ask["input"]["file_path"][-3:]: ask for ask in it.asked(2)}
        it.alice.answer(asks["two"], "deny", message="not two")
        eventually(lambda: len(it.alice.asks(it.session)) == 1, SECONDS)
        it.alice.answer(asks["one"], "allow")
        return it.last(2)


def answered_at_the_terminal(it: Steered) -> str:
    with it.at_terminal("choose") as terminal:
        (ask,) = it.asked()
        eventually(lambda: b"Which colour" in terminal.screen, SECONDS)
        terminal.type("\r")
        said = it.last(2)
        eventually(lambda: it.alice.asks(it.session) == [], SECONDS)
        (closed,) = it.alice.asks(it.session, status="closed")
        assert (closed["askId"], closed["canAnswer"], closed["answer"]) == (ask["askId"], False, None)
        return said


SCENARIOS = (
    denied, allowed, changed, store_killed_while_it_waits, without_control, told_at_the_next_step, told_at_the_end,
    stopped, paused, question_answered, plan_approved, two_in_the_other_order, answered_at_the_terminal,
)  # fmt: skip
Played = dict[str, Future[str]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """What the model was sent next in each scenario, by its name, under way."""
    folder = tmp_path_factory.mktemp("steered")
    with (
        Appliance(folder / "store") as store,
        ClaudeStub(SCRIPTS) as stub,
        person(store) as alice,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):

        def play(scenario: Any) -> str:
            (folder / scenario.__name__).mkdir()
            it = Steered(folder / scenario.__name__, stub, store, alice)
            try:
                said: str = scenario(it)
                return said
            finally:
                it.close()

        scenarios = {scenario.__name__: pool.submit(play, scenario) for scenario in SCENARIOS}
        yield scenarios
        wait(scenarios.values())
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------- tests


def test_the_model_reads_why_its_call_was_denied(played: Played) -> None:
    said = played["denied"].result()
    assert "Denied by control, through the session store: Use wget" in said and '"is_error": true' in said


def test_an_allowed_call_is_made(played: Played) -> None:
    assert '"is_error": false' in played["allowed"].result()


def test_a_call_is_made_with_the_input_that_a_person_has_given_it(played: Played) -> None:
    assert '"content": "something else"' in played["changed"].result()


def test_a_store_that_is_killed_while_a_hook_waits_changes_nothing(played: Played) -> None:
    said, wanted = played["store_killed_while_it_waits"].result(), played["without_control"].result()
    assert [block["content"] for block in json.loads(said)["content"]] == [
        block["content"] for block in json.loads(wanted)["content"]
    ]


@pytest.mark.parametrize("scenario", ["told_at_the_next_step", "told_at_the_end"])
def test_the_model_is_told_what_a_person_says(played: Played, scenario: str) -> None:
    assert "control, a person who follows this session, says: Use blue" in played[scenario].result()


def test_a_stopped_session_asks_the_model_no_more(played: Played) -> None:
    assert played["stopped"].result() == "[]"


def test_a_paused_call_is_made_once_it_is_released(played: Played) -> None:
    held, _, said = played["paused"].result().partition(" ")
    assert held == "2"
    assert '"content": "two"' in said


def test_a_question_is_answered(played: Played) -> None:
    assert '"Which colour?\\"=\\"Blue\\"' in played["question_answered"].result()


def test_a_plan_is_approved(played: Played) -> None:
    assert "You have exited plan mode" in json.loads(played["plan_approved"].result())[1]


def test_of_two_prompts_each_gets_its_own_answer_in_whatever_order(played: Played) -> None:
    results = {
        block["tool_use_id"]: block for block in json.loads(played["two_in_the_other_order"].result())["content"]
    }
    denied, read = sorted(results.values(), key=lambda block: "ONE" in block["content"])
    assert "not two" in denied["content"] and denied["is_error"] is True
    assert "ONE" in read["content"]


def test_an_answer_at_the_terminal_is_taken_and_the_ask_is_closed(played: Played) -> None:
    assert '"Which colour?\\"=\\"Red\\"' in played["answered_at_the_terminal"].result()
