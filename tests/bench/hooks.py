"""`hooks`: what being watched costs an agent, and whether all that it says arrives over a bad link."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx

import hook_agent
from tests.agents import environment, hook, numbers_of, remove_spools, run, spool_in, stop_senders
from tests.appliance import Appliance
from tests.badlink import BadLink, Fake
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import percentile
from tests.claude_stub import ClaudeStub, calls, says
from tests.peers import eventually
from tests.steered import Installed, Person, person, reply_of

installer: Any = hook_agent._beside("hook_agent_install", "install")

PAYLOAD = (
    b'{"session_id":"5f2c","hook_event_name":"PreToolUse","tool_name":"Bash","tool_use_id":"toolu_01","cwd":"/workspace",'
    b'"transcript_path":"/root/.claude/projects/-workspace/5f2c.jsonl","tool_input":{"command":"make test"}}'
)
CHECKED_SHARE = 5
"""One run in so many is made once more without the `|| :` of the installed command, which would hide a failure."""
TEN_CALLS = [[calls("Bash", command=f"echo {number}", description="Count")] for number in range(10)] + [[says("done")]]
CLAUDE_ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "none",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "IS_SANDBOX": "1",  # lets root skip the permissions
    "NO_PROXY": "127.0.0.1",
}
EVENTS = 10_000
DELIVERY_SECONDS = 120.0
CALLS = """
import sys, time, hook_agent
agent = hook_agent.SessionHookAgent("calls").sync
agent.log_action(type="first")
for number in range(int(sys.argv[1])):
    begun = time.perf_counter()
    agent.log_action(type="file_write", path="src/server.js", lines=number)
    print(time.perf_counter() - begun)
"""
CALLS_A_ROUND = 5000
ANSWERS_A_ROUND = 20
LOG = """
import sys, hook_agent
agent = hook_agent.SessionHookAgent("bad-link").sync
for number in range(int(sys.argv[1])):
    agent.log_action(type="step", number=number)
"""


def measure(rounds: int, runs: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            claude = _claude_cost(folder / "claude", rounds)
            control = _control(folder / "control", rounds, runs)
            return [*_hook_costs(folder, runs), *claude, *control, _call_cost(folder, rounds), *_bad_link(folder)]
        finally:
            remove_spools(folder)


# ------------------------------------------------------------------------- a hook


def _hook_costs(folder: Path, runs: int) -> Iterator[Figure]:
    failures: list[int] = []
    checked = 0
    with _stores(folder) as urls:
        for mode, url in urls.items():
            env = environment(folder, url)
            hooks, starts = [], []
            for number in range(runs):
                hooks.append(_milliseconds(["sh", "-c", installer._hook_command()], env))
                starts.append(_milliseconds([_interpreter(), "-S", "-c", "pass"], env))
                if number % CHECKED_SHARE == 0:
                    checked += 1
                    failures += [1] if hook(PAYLOAD, env) != (0, b"", b"") else []
            stop_senders(folder)
            compared = f"`hook`, the store {mode}, against python3 -S -c pass, {len(hooks)} runs"
            yield Figure("hooks", compared, "ms", hooks, Target(1.5, at_most=True), starts)
    silent = f"`hook` runs that printed something or did not exit with 0, of {checked}"
    yield Figure("hooks", silent, "", [len(failures)], Target(0, at_most=True))


@contextmanager
def _stores(folder: Path) -> Iterator[dict[str, str]]:
    with (
        Appliance(folder / "store") as up,
        socket.create_server(("127.0.0.1", 0)) as hanging,
        Fake(lambda posted: posted.answer(500)) as failing,
    ):
        down = "http://127.0.0.1:9"
        silent = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        yield {"up": up.url, "down": down, "hanging": silent, "answering 500": failing.url}


def _interpreter() -> str:
    """The one that the installed command names."""
    return os.path.realpath(sys.executable)


def _milliseconds(command: list[str], env: dict[str, str], payload: bytes = PAYLOAD) -> float:
    begun = time.perf_counter()
    ran = subprocess.run(command, env=env, input=payload, capture_output=True)
    took = time.perf_counter() - begun
    if (ran.returncode, ran.stdout, ran.stderr) != (0, b"", b""):
        raise Unsound(f"{command} ended with {ran.returncode}: {ran.stdout + ran.stderr!r}")
    return took * 1000


# ---------------------------------------------------------------- the real command line


def _claude_cost(folder: Path, rounds: int) -> list[Figure]:
    """Ten calls of a tool by Claude Code without hooks, with them, with control, in turn; none where it is not here.

    With control nothing is ordered, which is to cost a call 60 ms more than the silent hooks do, at most.
    """
    claude = _claude()
    if claude is None:
        print(
            "no Claude Code here (pip install claude-agent-sdk, or REAL_CLAUDE): not measured …",
            end=" ",
            file=sys.stderr,
        )
        return []
    with Appliance(folder / "store") as appliance, ClaudeStub({"ten": TEN_CALLS}) as stub:
        known = {"ANTHROPIC_BASE_URL": stub.url, **CLAUDE_ENVIRONMENT}
        took: dict[str, list[float]] = {"without": [], "with": [], "control": []}
        for number in range(rounds + 1):
            for kind in took if number % 2 else reversed(took):
                (folder / kind).mkdir(exist_ok=True)
                env = environment(folder / kind, appliance.url, **known, SESSION_ID=f"{kind}-{number}")
                env["CLAUDE_CONFIG_DIR"] = str(folder / kind / ".claude")
                if kind != "without" and number == 0:
                    install = [sys.executable, hook_agent.__file__, "install", *["--control"] * (kind == "control")]
                    subprocess.run(install, env=env, check=True, capture_output=True)
                seconds = _turn(claude, folder / kind, env)
                took[kind] += [seconds] if number else []  # the first one warms up
        for kind in ("with", "control"):
            _check_told(appliance.url, f"{kind}-{rounds}")
    costs = [one - other for one, other in zip(took["with"], took["without"], strict=True)]
    compared = f"ten Bash calls of Claude Code, with hooks more than the {median(took['without']):.2f} s without"
    more = [
        (one - other) * 1000 / len(TEN_CALLS[:-1]) for one, other in zip(took["control"], took["with"], strict=True)
    ]
    steered = "a Bash call of Claude Code, with control and nothing ordered more than with silent hooks"
    return [
        Figure("hooks", compared, "s", costs, Target(0.4, at_most=True)),
        Figure("hooks", steered, "ms", more, Target(60, at_most=True)),
    ]


def _claude() -> str | None:
    if named := os.environ.get("REAL_CLAUDE"):
        return named
    with suppress(PackageNotFoundError):
        found = Path(str(distribution("claude-agent-sdk").locate_file("claude_agent_sdk/_bundled/claude")))
        return str(found) if found.exists() else None
    return None


def _turn(claude: str, folder: Path, env: dict[str, str]) -> float:
    begun = time.perf_counter()
    command = [claude, "-p", "[ten]", "--output-format", "json", "--dangerously-skip-permissions"]
    ran = subprocess.run(command, env=env, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.perf_counter() - begun
    if ran.returncode or json.loads(ran.stdout)["result"] != "done":
        raise Unsound(f"Claude Code ended with {ran.returncode}: {ran.stdout[-300:]}{ran.stderr[-300:]}")
    return took


def _check_told(url: str, session: str) -> None:
    """All of it is there: what is not waited for is not lost."""
    with httpx.Client(base_url=url) as http:
        path = f"/api/sessions/{session}"
        eventually(lambda: (http.get(path).json().get("metadata") or {}).get("ended"))
        told = http.get(path).json()
        types = Counter(entry["type"] for entry in told["actions"] + told["responses"])
    if [types[name] for name in ("prompt", "tool_call", "tool_result", "assistant_message")] != [1, 10, 10, 1]:
        raise Unsound(f"not all was told: {types}")


def _control(folder: Path, rounds: int, runs: int) -> list[Figure]:
    folder.mkdir()
    with Appliance(folder / "store") as appliance, person(appliance) as alice:
        claude = Installed(folder, appliance.url)
        try:
            return [*_quiet_costs(claude, runs), _answer_times(claude, alice, rounds)]
        finally:
            claude.close()


def _quiet_costs(claude: Installed, runs: int) -> Iterator[Figure]:
    """Of the two hooks that a call of a tool waits for where nothing is ordered; the process that watches is up."""
    claude.begin("5f2c")
    for event in ("PreToolUse", "PostToolBatch"):
        payload, command = PAYLOAD.replace(b"PreToolUse", event.encode()), ["sh", "-c", claude.hook(event)["command"]]
        hooks, starts = [], []
        for _ in range(runs):
            hooks.append(_milliseconds(command, claude.env, payload))
            starts.append(_milliseconds([_interpreter(), "-S", "-c", "pass"], claude.env))
        compared = f"{event} with control and nothing ordered, against python3 -S -c pass, {runs} runs"
        yield Figure("hooks", compared, "ms", hooks, Target(2, at_most=True), starts)


def _answer_times(claude: Installed, alice: Person, rounds: int) -> Figure:
    """From an answer in the store to the end of the hook that waits for it, with which the tool begins."""
    p99 = []
    for number in range(rounds):
        took = []
        for _ in range(ANSWERS_A_ROUND):
            hook = claude.start("PermissionRequest", f"asks-{number}", tool_name="Bash", tool_input={})
            (ask,) = alice.asked(f"asks-{number}")
            begun = time.perf_counter()
            alice.answer(ask, "allow")
            if not reply_of(hook):
                raise Unsound("an answer was not given")
            took.append(time.perf_counter() - begun)
        p99.append(percentile(took, 0.99) * 1000)
    compared = f"from an answer in the store to the reply of the hook, p99 of {ANSWERS_A_ROUND}"
    return Figure("hooks", compared, "ms", p99, Target(500, at_most=True))


# ------------------------------------------------------------------------- a call


def _call_cost(folder: Path, rounds: int) -> Figure:
    env = environment(folder, "http://127.0.0.1:9", SESSION_SPOOL_DIR=str(folder / "calls"))
    rounds_ms = []
    for _ in range(rounds):
        took = [float(seconds) for seconds in run(CALLS, env, str(CALLS_A_ROUND)).split()]
        rounds_ms.append(percentile(took, 0.99) * 1000)
    compared = f"log_action, the store down, p99 of {CALLS_A_ROUND:,} calls"
    return Figure("hooks", compared, "ms", rounds_ms, Target(1, at_most=True))


# -------------------------------------------------------------------- a bad link


def _bad_link(folder: Path) -> list[Figure]:
    with ExitStack() as stack:
        appliance = stack.enter_context(Appliance(folder / "behind"))
        link = stack.enter_context(BadLink(appliance.port))
        begun = time.monotonic()
        run(LOG, environment(folder, link.url), str(EVENTS))
        _wait_until_delivered(folder, link.url)
        took = time.monotonic() - begun
        http = stack.enter_context(httpx.Client(base_url=appliance.url, timeout=30))
        numbers = numbers_of(http, "bad-link")
        faults = sum(count for fault, count in link.happened.items() if fault)
    if not faults:
        raise Unsound("the link was good")
    over = f"of {EVENTS:,} events over a link with {faults} faults in {sum(link.happened.values())} requests"
    none = Target(0, at_most=True)
    twice = sum(count - 1 for count in Counter(numbers).values())
    misplaced = sum(before > after for before, after in pairwise(numbers))
    return [
        Figure("hooks", f"lost, {over}", "", [len(set(range(EVENTS)) - set(numbers))], none),
        Figure("hooks", f"written twice, {over}", "", [twice], none),
        Figure("hooks", f"out of order, {over}", "", [misplaced], none),
        Figure("hooks", "from the first of them to the delivery of the last", "s", [took], Target(60, at_most=True)),
    ]


def _wait_until_delivered(folder: Path, url: str) -> None:
    spool = spool_in(folder, url)
    deadline = time.monotonic() + DELIVERY_SECONDS
    while spool.segments():
        if time.monotonic() > deadline:
            raise Unsound(f"not delivered within {DELIVERY_SECONDS:g} s")
        time.sleep(0.01)
