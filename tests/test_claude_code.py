"""The real Claude Code CLI, with the hooks that `install` puts in, and what the store then holds of what it did.

The CLI is the one in the package claude-agent-sdk. It talks to a stand-in for the Messages API, so what the model says
is known, and its own transcripts say what became of it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.claude_stub import ClaudeStub, calls, fails, says
from tests.peers import eventually
from tests.repeats import marked

Json = dict[str, Any]

CLAUDE = Path(str(distribution("claude-agent-sdk").locate_file("claude_agent_sdk/_bundled/claude")))
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org")
COMMAND = (str(CLAUDE), "-p", "--dangerously-skip-permissions")
SECONDS = 120.0
LOST_AFTER_SECONDS = 12
"""More than the command line takes to start on a busy machine: whoever starts has said nothing yet."""
AT_ONCE = 4
"""How many scenarios run at the same time."""


def bash(command: str) -> Json:
    return calls("Bash", command=command, description="It says so itself")


def agent(prompt: str) -> Json:
    return calls("Agent", description="Look", prompt=prompt, subagent_type="general-purpose", run_in_background=False)


SCRIPTS = {
    "greet": [[says("Hello")]],
    "work": [
        [says("Two at once"), bash("echo one"), bash("echo two")],
        [bash("echo boom >&2; exit 3"), calls("Write", file_path="note.txt", content="naïve 😀\n")],
        [agent("[read] the note")],
        [says("All done")],
    ],
    "read": [[bash("cat note.txt")], [says("It is naïve")]],
    "wait": [[bash("cat pipe")], [says("No longer")]],
    "delegate": [[agent("[wait] for me")], [says("It is back")]],
    "break": [[fails("no such model")]],
    "break later": [[bash("echo one")], [fails("no such model")]],
    "nest": [[bash(f"{shlex.join(COMMAND)} '[work] inside' < /dev/null; echo over")], [says("It is over")]],
    "misuse": [[calls("NoSuchTool", depth=1), bash("echo one")], [says("Never mind")]],
}


class Machine:
    """A home and a project in which Claude Code runs, with its hooks installed, and its way to the store."""

    def __init__(self, folder: Path, stub_url: str, service_url: str, spool: Path) -> None:
        self.home, self.project = folder / "home", folder / "project"
        for made in (self.home / "tmp", self.project):
            made.mkdir(parents=True)
        self.pipe = self.project / "pipe"
        os.mkfifo(self.pipe)
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "LANG": "C.UTF-8",
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_BASE_URL": stub_url,
            "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",  # lets root skip the permissions
            "SESSION_SERVICE_URL": service_url,
            "SESSION_SPOOL_DIR": str(spool),
            "SESSION_USER_ID": "alice",
        }
        self.agent_url = service_url
        self.agent("install")
        self.resumed: Json = {}

    def move_to_worktree(self) -> None:
        """From now on it works in a worktree of a repository whose remote has a password in its address."""
        repository, self.project = self.home.parent / "shop", self.home.parent / "fix"
        remote = "https://user:secret-of-the-remote@example.org/team/shop.git"
        for command in (
            ["init", "-q", str(repository)],
            ["-C", str(repository), "remote", "add", "origin", remote],
            ["-C", str(repository), *IDENTITY, "commit", "-q", "--allow-empty", "-m", "First"],
            ["-C", str(repository), "worktree", "add", "-q", "-b", "fix/cart", str(self.project)],
        ):
            subprocess.run(["git", *command], check=True, env=self._env)

    def agent(self, *arguments: str, **env: str) -> str:
        """What a command of hook_agent.py says; it has to end well."""
        command = [sys.executable, str(REPOSITORY / "hook_agent.py"), *arguments]
        done = subprocess.run(
            command, env=self._env | env, cwd=self.project, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self._env | env,
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def claude(self, prompt: str, *arguments: str) -> str:
        """One turn of Claude Code, to its end: the id of the session that it was in."""
        process = self.start(prompt, "--output-format", "json", *arguments)
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, output
        self.settle()
        session_id: str = json.loads(output)["session_id"]
        return session_id

    def settle(self) -> None:
        """The hooks that nobody waited for are through, and what they said is delivered, where the store is there."""
        eventually(lambda: not any(map(self.is_hook, Path("/proc").glob("[0-9]*"))), SECONDS)
        subprocess.run([sys.executable, str(REPOSITORY / "hook_agent.py"), "flush"], env=self._env, capture_output=True)

    def is_hook(self, process: Path) -> bool:
        with suppress(OSError):
            is_own = f"HOME={self.home}\0".encode() in (process / "environ").read_bytes()
            return is_own and b"hook_agent.hook()" in (process / "cmdline").read_bytes()
        return False

    def release(self) -> None:
        """Let go whoever waits for the pipe."""
        try:
            os.close(os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody waits
                raise

    def transcript(self, session_id: str) -> Transcript:
        folder = self.home / ".claude" / "projects"
        paths = [*folder.glob(f"*/{session_id}.jsonl"), *folder.glob(f"*/{session_id}/subagents/*.jsonl")]
        return Transcript([json.loads(line) for path in paths for line in path.read_text().splitlines()])


def with_full_path(tool_input: Json, folder: str) -> Json:
    path = tool_input.get("file_path")
    return tool_input | {"file_path": os.path.join(folder, path)} if path else tool_input


class Transcript:
    """What Claude Code itself has written down of a session and of the agents in it."""

    def __init__(self, lines: list[Json]) -> None:
        self.said = [line for line in lines if line["type"] in ("user", "assistant")]
        self.uuids = {line["uuid"] for line in self.said}

    def without(self, origin: Transcript) -> Transcript:
        """What is not copied from the session that this one was forked from."""
        return Transcript([line for line in self.said if line["uuid"] not in origin.uuids])

    def prompts(self) -> list[str]:
        return [line["message"]["content"] for line in self.said if line.get("promptSource")]

    def calls(self) -> dict[str, tuple[str, Json]]:
        """Each tool call, with the full name of the file, as hooks get it."""
        return {
            block["id"]: (block["name"], with_full_path(block["input"], line["cwd"]))
            for line, block in self._blocks("tool_use")
        }

    def results(self) -> dict[str, object]:
        """What each tool call gave, structured as hooks get it; the transcript of an agent has only its text."""
        return {
            block["tool_use_id"]: line.get("toolUseResult", block["content"])
            for line, block in self._blocks("tool_result")
        }

    def _blocks(self, kind: str) -> Iterator[tuple[Json, Json]]:
        for line in self.said:
            for block in line["message"]["content"]:
                if isinstance(block, dict) and block["type"] == kind:
                    yield line, block


class Stored:
    """A session as the store has it."""

    def __init__(self, session: Json, events: list[Json]) -> None:
        self.id: str = session["metadata"]["sessionId"]
        self.metadata, self.state, self.final = session["metadata"], session["state"], session["final"]
        self.actions, self.responses, self.events = session["actions"], session["responses"], events

    def prompts(self) -> list[str]:
        return [action["prompt"] for action in self.actions if action["type"] == "prompt"]

    def calls(self) -> list[tuple[str, tuple[str, Json]]]:
        return [(a["toolUseId"], (a["tool"], a["input"])) for a in self.actions if a["type"] == "tool_call"]

    def results(self) -> list[tuple[str, object]]:
        return [
            (response["toolUseId"], "Error: " + response["error"] if "error" in response else response["output"])
            for response in self.responses
            if "toolUseId" in response
        ]

    def lifecycle(self) -> list[str]:
        return [event["type"] for event in self.events if event["type"].startswith("session_")]


class Store:
    """What the store says of sessions."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **query: int | str) -> Any:
        return self._http.get(path, params=query).raise_for_status().json()

    def session(self, session_id: str) -> Stored:
        events = self.get(f"/api/sessions/{session_id}/events", limit=1000)["items"]
        return Stored(self.get(f"/api/sessions/{session_id}"), events)

    def status(self, session_id: str) -> str:
        answer = self._http.get(f"/api/sessions/{session_id}")
        return "" if answer.status_code == 404 else answer.json()["metadata"]["status"]

    def types(self, session_id: str) -> list[str]:
        """The types of the events of a session, which need not be there yet."""
        answer = self._http.get(f"/api/sessions/{session_id}/events")
        return [] if answer.status_code == 404 else [event["type"] for event in answer.json()["items"]]

    def goes_on(self, session_id: str, event_type: str, after: int) -> bool:
        """Whether there is an event of this type after so many of them all."""
        return event_type in self.types(session_id)[after:]

    def tools(self, session_id: str) -> list[str]:
        """The tools that were called in it."""
        answer = self._http.get(f"/api/actions/{session_id}", params={"type": "tool_call"})
        return [] if answer.status_code == 404 else [action["tool"] for action in answer.json()]

    def wait_for(self, session_id: str, status: str) -> None:
        eventually(lambda: self.status(session_id) == status, SECONDS)


class World:
    """The store, the model, and a machine for each scenario. They share a spool, as the programs of a container do."""

    def __init__(self, folder: Path, url: str, store: Store, stub: ClaudeStub) -> None:
        self.folder, self.url, self.store, self._stub = folder, url, store, stub

    def machine(self, name: str, url: str = "") -> Machine:
        return Machine(self.folder / name, self._stub.url, url or self.url, self.folder / "spool")


# --------------------------------------------------------------------- scenarios


def a_conversation(world: World) -> tuple[Machine, dict[str, Stored]]:
    """Work in a worktree, taken up again, forked, compacted and cleared."""
    machine = world.machine("conversation")
    machine.move_to_worktree()
    first = machine.claude("[work] please")
    machine.claude("[greet] again", "--resume", first)
    forked = machine.claude("[greet] apart", "--resume", first, "--fork-session")
    machine.claude("/compact", "--resume", first)
    cleared = machine.claude("/clear", "--resume", first)
    world.store.wait_for(cleared, "completed")  # which is the last word of all, and they come in their order
    resumed = world.store.get(f"/api/sessions/{first}/resume")
    origins = world.store.get("/api/sessions", origin=first)["items"]
    assert {item["sessionId"] for item in origins} == {forked, cleared}
    machine.resumed = resumed
    return machine, {
        name: world.store.session(session_id)
        for name, session_id in (("first", first), ("forked", forked), ("cleared", cleared))
    }


def interrupted(world: World, prompt: str, tools: list[str], number: signal.Signals) -> tuple[Machine, str]:
    """A signal comes in the middle of a tool call, of which the store knows."""
    session_id = str(uuid4())
    machine = world.machine(session_id)
    process = machine.start(prompt, "--session-id", session_id)
    eventually(lambda: world.store.tools(session_id) == tools, SECONDS)
    assert world.store.status(session_id) == "active"
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    machine.release()
    return machine, session_id


def terminated(world: World) -> tuple[Machine, Stored]:
    machine, session_id = interrupted(world, "[wait] for me", ["Bash"], signal.SIGTERM)
    world.store.wait_for(session_id, "cancelled")
    return machine, world.store.session(session_id)


def terminated_in_an_agent(world: World) -> tuple[Machine, Stored]:
    machine, session_id = interrupted(world, "[delegate] it", ["Agent", "Bash"], signal.SIGTERM)
    world.store.wait_for(session_id, "cancelled")
    return machine, world.store.session(session_id)


def killed(world: World) -> tuple[Machine, Stored, Stored]:
    """Killed and lost, and then taken up again."""
    machine, session_id = interrupted(world, "[wait] for me", ["Bash"], signal.SIGKILL)
    world.store.wait_for(session_id, "lost")
    lost = world.store.session(session_id)
    machine.claude("[greet] after all", "--resume", session_id)
    world.store.wait_for(session_id, "completed")
    return machine, lost, world.store.session(session_id)


def without_a_store(world: World) -> tuple[Machine, Stored]:
    """The store is started only when all is over."""
    late = Appliance(world.folder / "late")
    machine = world.machine("early", late.url)
    session_id = machine.claude("[work] alone")
    with late, httpx.Client(base_url=late.url) as http:
        store = Store(http)
        store.wait_for(session_id, "completed")
        return machine, store.session(session_id)


def cleared_in_a_shared_session(world: World) -> tuple[Machine, Stored, list[str]]:
    """SESSION_ID is set, and the conversation is cleared while Claude Code runs on: the statuses on the way."""
    machine, session_id, seen = world.machine("shared"), "shared-session", []
    process = machine.start(
        "--input-format=stream-json", "--output-format=stream-json", "--verbose", SESSION_ID=session_id
    )
    assert process.stdin
    types: list[str] = []
    for prompt, until in (("[greet] one", "response"), ("/clear", "session_resumed"), ("[greet] two", "response")):
        process.stdin.write(json.dumps({"type": "user", "message": {"role": "user", "content": prompt}}) + "\n")
        process.stdin.flush()
        eventually(partial(world.store.goes_on, session_id, until, len(types)), SECONDS)
        seen.append(world.store.status(session_id))
        types = world.store.types(session_id)
    process.communicate(timeout=SECONDS)
    world.store.wait_for(session_id, "completed")
    return machine, world.store.session(session_id), seen


def run_as_a_session(world: World) -> tuple[Machine, Stored]:
    """`run` makes the session and ends it, and Claude Code's hooks are in it."""
    machine, session_id = world.machine("run"), "run-session"
    machine.agent("run", "--output-lines", "1", "--", *COMMAND, "[greet] there", SESSION_ID=session_id)
    machine.settle()
    eventually(lambda: "session_finalized" in world.store.types(session_id), SECONDS)
    return machine, world.store.session(session_id)


def refused_by_the_api(world: World) -> dict[str, Stored]:
    """At once, and after a call; and once more with a prompt that is answered."""
    sessions = {}
    machine = world.machine("refused")
    for prompt in ("[break] it", "[break later] then"):
        session_id = str(uuid4())
        process = machine.start(prompt, "--session-id", session_id)
        process.communicate(timeout=SECONDS)
        assert process.returncode == 1
        world.store.wait_for(session_id, "failed")
        sessions[prompt] = world.store.session(session_id)
    machine.claude("[greet] after all", "--resume", session_id)
    world.store.wait_for(session_id, "completed")
    return sessions | {"after all": world.store.session(session_id)}


def nested(world: World) -> tuple[Machine, Stored]:
    """SESSION_ID is set, and what Claude Code runs there is Claude Code."""
    machine, session_id = world.machine("nested"), "nested-session"
    process = machine.start("[nest] another", SESSION_ID=session_id)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    world.store.wait_for(session_id, "completed")
    return machine, world.store.session(session_id)


def misused(world: World) -> Stored:
    """A tool is called that there is not."""
    session_id = world.machine("misused").claude("[misuse] it")
    world.store.wait_for(session_id, "completed")
    return world.store.session(session_id)


SCENARIOS = (
    a_conversation,
    terminated,
    cleared_in_a_shared_session,
    run_as_a_session,
    refused_by_the_api,
    nested,
    misused,
)
OF_LONG_TESTS = (terminated_in_an_agent, killed, without_a_store)


Played = dict[str, Future[Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Played]:
    """The scenarios, each by its name, under way."""
    folder = tmp_path_factory.mktemp("claude-code")
    is_long = any(test.path == request.path and test.get_closest_marker("long") for test in request.session.items)
    with (
        Appliance(folder / "store", {"SESSIONS_LOST_AFTER": str(LOST_AFTER_SECONDS)}) as appliance,
        ClaudeStub(SCRIPTS) as stub,
        httpx.Client(base_url=appliance.url) as http,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        world = World(folder, appliance.url, Store(http), stub)
        all_of_them = (*SCENARIOS, *(OF_LONG_TESTS if is_long else ()))
        scenarios = {scenario.__name__: pool.submit(scenario, world) for scenario in all_of_them}
        yield scenarios
        wait(scenarios.values())
        shutil.rmtree(folder / "spool")  # with which those leave who deliver from it


# ------------------------------------------------------------------------- tests


def check(transcript: Transcript, session: Stored) -> None:
    """Each prompt, call and result of the transcript is in the store once, and nothing else is."""
    assert session.prompts() == transcript.prompts()
    assert once(session.calls()) == transcript.calls()
    written, results = transcript.results(), once(session.results())
    assert results.keys() == written.keys()
    in_words = [call for call, result in written.items() if isinstance(result, str) and isinstance(results[call], dict)]
    assert results | {call: results[call]["stdout"] for call in in_words} == written


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_each_prompt_call_and_result_is_in_the_store_once(played: Played) -> None:
    machine, sessions = played["a_conversation"].result()
    transcript = machine.transcript(sessions["first"].id)
    assert transcript.prompts() == ["[work] please", "[greet] again"]
    assert len(transcript.calls()) == len(transcript.results()) == 6
    check(transcript, sessions["first"])


def imported(url: str, machine: Machine) -> Any:
    """What a store says that is given all that Claude Code has written there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(machine.home / ".claude" / "projects", "projects")
    headers = {"content-type": "application/gzip"}
    answer = httpx.post(f"{url}/api/import", content=packed.getvalue(), headers=headers, timeout=60)
    return answer.raise_for_status().json()


def test_an_import_adds_nothing_to_what_hooks_have_told_and_tells_the_same_elsewhere(
    played: Played, tmp_path: Path
) -> None:
    machine, sessions = played["a_conversation"].result()
    first = sessions["first"]
    url = machine.agent_url
    head = httpx.get(f"{url}/health").json()["cursor"]
    told = imported(url, machine)
    new = httpx.get(f"{url}/api/events", params={"after": head, "limit": 1000}).json()["items"]
    of_import = [event for event in new if event["type"] != "usage_reported" and event["eventId"].startswith("import-")]
    assert (told["refused"], of_import) == ([], [])
    with httpx.Client(base_url=url) as http:
        after = Store(http).session(first.id)
    assert (after.actions, after.responses, after.metadata["status"]) == (
        first.actions,
        first.responses,
        first.metadata["status"],
    )
    with Appliance(tmp_path / "elsewhere") as other, httpx.Client(base_url=other.url) as http:
        assert imported(other.url, machine)["refused"] == []
        elsewhere = Store(http).session(first.id)
        check(machine.transcript(first.id), elsewhere)
        agent = elsewhere.state["agents"]["spawned"][0]
        assert all(agent[name] == first.state["agents"]["spawned"][0][name] for name in ("type", "task", "status"))
        assert elsewhere.metadata["status"] == first.metadata["status"]
        fork = Store(http).session(sessions["forked"].id)
        check(machine.transcript(fork.id).without(machine.transcript(first.id)), fork)
        shown = Store(http).get(f"/api/sessions/{first.id}/conversation")["items"]
        prompts = [one["blocks"][0]["text"] for one in shown if one["role"] == "user" and "isMachineMade" not in one]
        assert prompts == machine.transcript(first.id).prompts()
        made = [block for one in shown for block in one["blocks"] if block["type"] == "call"]
        assert all("result" in call for call in made)


def test_what_is_missing_or_there_twice_would_be_noticed(played: Played) -> None:
    machine, sessions = played["a_conversation"].result()
    transcript, first = machine.transcript(sessions["first"].id), sessions["first"]
    for actions, responses in (
        ([a for a in first.actions if a["type"] != "prompt"], first.responses),
        ([a for a in first.actions if a.get("tool") != "Write"], first.responses),
        (first.actions, [r for r in first.responses if r["type"] != "tool_error"]),
        (first.actions, first.responses + first.responses[:1]),
        (first.actions + first.actions[1:2], first.responses),
    ):
        session = {"metadata": first.metadata, "state": first.state, "final": first.final}
        with pytest.raises(AssertionError):
            check(transcript, Stored(session | {"actions": actions, "responses": responses}, first.events))


def test_a_fork_has_only_what_is_its_own(played: Played) -> None:
    machine, sessions = played["a_conversation"].result()
    first, forked = sessions["first"], sessions["forked"]
    copied = machine.transcript(forked.id)
    assert copied.prompts() == ["[work] please", "[greet] again", "[greet] apart"]
    check(copied.without(machine.transcript(first.id)), forked)
    assert (forked.metadata["source"], forked.lifecycle()) == ("fork", ["session_created", "session_finalized"])


def test_calls_at_the_same_time_and_failing_calls_read_as_what_they_are(played: Played) -> None:
    _, sessions = played["a_conversation"].result()
    first: Stored = sessions["first"]
    responses = {response["toolUseId"]: response for response in first.responses if "toolUseId" in response}
    by_input = {given.get("command", tool): responses[call] for call, (tool, given) in first.calls()}
    assert by_input["echo one"]["output"]["stdout"] == "one"
    assert by_input["echo two"]["output"]["stdout"] == "two"
    assert by_input["echo boom >&2; exit 3"]["type"] == "tool_error"
    assert by_input["echo boom >&2; exit 3"]["error"] == "Exit code 3\nboom"
    assert by_input["Write"]["output"]["content"] == "naïve 😀\n"
    assert [r["message"] for r in first.responses if r["type"] == "assistant_message"] == ["All done", "Hello"]
    metrics = first.metadata["metrics"]
    assert (metrics["toolCalls"], metrics["bashCommands"], metrics["filesModified"]) == (6, 4, 1)


def test_an_agent_has_a_start_an_end_and_a_result(played: Played) -> None:
    _, sessions = played["a_conversation"].result()
    agent, *internal = sessions["first"].state["agents"]["spawned"]
    assert (agent["type"], agent["status"], agent["result"]) == ("general-purpose", "completed", "It is naïve")
    assert agent["task"] == "Look"
    assert agent["spawnedAt"] < agent["completedAt"]
    own = [event for event in sessions["first"].events if event["agentId"] == agent["agentId"]]
    inside = [event["data"]["type"] for event in own if event["type"] != "usage_reported"]  # by its transcript
    assert sorted(inside) == [*["general-purpose"] * 2, "tool_call", "tool_result"], "hooks may overtake each other"
    assert {other["type"] for other in internal} == {"internal"}  # of the compaction
    assert sessions["first"].state["agents"]["active"] == []


def test_a_session_says_where_it_ran_and_what_it_is_called(played: Played) -> None:
    machine, sessions = played["a_conversation"].result()
    made = sessions["first"].metadata
    where = made["where"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=machine.project, capture_output=True, text=True).stdout
    assert (where["cwd"], where["branch"], where["commit"]) == (str(machine.project), "fix/cart", head.strip())
    assert (where["repository"], made["project"]) == ("https://example.org/team/shop.git", "shop")
    assert where["host"] == os.uname().nodename
    assert (made["title"], made["titleFrom"]) == ("[work] please", "prompt")
    assert made["claudeCodeVersion"][:1].isdigit()
    assert "secret-of-the-remote" not in json.dumps(sessions["first"].events)


def test_a_session_knows_what_it_goes_on_from(played: Played) -> None:
    _, sessions = played["a_conversation"].result()
    first = sessions["first"].id
    assert sessions["cleared"].metadata["continues"] == first
    assert sessions["forked"].metadata["forkedFrom"] == first


def test_a_new_container_is_told_what_the_hooks_said(played: Played) -> None:
    machine, sessions = played["a_conversation"].result()
    state = machine.resumed["state"]
    workspace = state["workspace"]
    assert (workspace["cwd"], workspace["gitStatus"]["branch"]) == (str(machine.project), "fix/cart")
    assert (workspace["filesCreated"], workspace["filesModified"]) == ([str(machine.project / "note.txt")], [])
    assert [(error["tool"], error["message"]) for error in state["errors"]] == [("Bash", "Exit code 3\nboom")]
    assert state["lastAnswer"] == "Hello"
    assert sessions["first"].state["workspace"]["cwd"] == str(machine.project)


def test_a_session_counts_when_it_was_resumed_and_not_when_it_was_compacted(played: Played) -> None:
    _, sessions = played["a_conversation"].result()
    first: Stored = sessions["first"]
    types = [action["type"] for action in first.actions]
    assert types.count("post_compact") <= 1, "Claude Code may end before this hook, for which it does not wait"
    sources = [event["data"]["metadata"]["source"] for event in first.events if "metadata" in event["data"]]
    assert sources == ["startup", "resume", "resume", "compact", "resume"]
    assert first.metadata["resumes"] == 3
    assert first.final["reason"] == "clear"


def test_a_cleared_conversation_goes_on_as_another_session(played: Played) -> None:
    _, sessions = played["a_conversation"].result()
    cleared: Stored = sessions["cleared"]
    assert (cleared.metadata["source"], cleared.metadata["status"]) == ("clear", "completed")


@pytest.mark.parametrize("scenario", marked(["terminated", "terminated_in_an_agent"], long=["terminated_in_an_agent"]))
def test_a_session_that_was_told_to_end_has_ended_with_its_calls_open(played: Played, scenario: str) -> None:
    machine, session = played[scenario].result()
    transcript = machine.transcript(session.id)
    assert session.prompts() == transcript.prompts()
    assert once(session.calls()) == transcript.calls() != {}
    assert session.results() == []  # no hook tells of it, though the transcript may have an error of the call
    assert (session.metadata["status"], session.metadata["attention"]) == ("cancelled", None)
    assert session.final["reason"] == "other"


@pytest.mark.long
def test_a_session_that_was_killed_is_lost_and_comes_back(played: Played) -> None:
    machine, lost, back = played["killed"].result()
    assert (lost.metadata["status"], lost.final, len(lost.calls()), lost.results()) == ("lost", None, 1, [])
    assert (back.metadata["status"], back.metadata["resumes"]) == ("completed", 1)
    assert back.lifecycle()[:2] == ["session_created", "session_lost"]
    assert back.lifecycle()[-1] == "session_finalized"
    assert back.prompts() == machine.transcript(back.id).prompts() == ["[wait] for me", "[greet] after all"]


@pytest.mark.long
def test_what_was_done_while_the_store_was_away_is_there_once_it_is_back(played: Played) -> None:
    machine, session = played["without_a_store"].result()
    check(machine.transcript(session.id), session)
    assert len(session.results()) == 6
    told = [event for event in session.events if event["type"] != "usage_reported"]  # by who sends transcripts
    waited_for = [event for event in told if event["data"].get("type") in ("prompt", "assistant_message", None)]
    assert len(waited_for) > 2
    assert waited_for == sorted(waited_for, key=lambda event: event["timestamp"])
    assert max(e["timestamp"] for e in session.events) < min(e["receivedAt"] for e in session.events)


def test_a_shared_session_does_not_end_because_a_conversation_is_cleared(played: Played) -> None:
    _, session, seen = played["cleared_in_a_shared_session"].result()
    assert seen == ["waiting", "active", "waiting"]
    assert session.lifecycle() == ["session_created", "session_resumed", "session_finalized"]
    assert session.metadata["resumes"] == 0
    assert session.prompts() == ["[greet] one", "[greet] two"]
    (cleared,) = [action for action in session.actions if action["type"] == "session_end"]
    assert cleared["reason"] == "clear"
    assert session.metadata["claudeSessionId"] != cleared["session_id"]


def test_an_error_of_the_api_fails_the_session_and_is_told_with_its_text(played: Played) -> None:
    sessions = played["refused_by_the_api"].result()
    for prompt in ("[break] it", "[break later] then"):
        session: Stored = sessions[prompt]
        assert (session.metadata["status"], session.final["status"], session.final["reason"]) == (
            "failed",
            "failed",
            "other",
        )
        assert session.final["outcome"] == "API Error: 400 no such model"  # whether a hook told it or the transcript
    assert sessions["after all"].final["outcome"] is None


def test_a_nested_program_is_a_lane_and_ends_nothing_but_itself(played: Played) -> None:
    _, session = played["nested"].result()
    assert session.lifecycle() == ["session_created", "session_finalized"]
    lanes = {agent["agentId"]: agent for agent in session.state["agents"]["spawned"]}
    (lane,) = [name for name in lanes if name.startswith("claude-")]
    assert (lanes[lane]["type"], lanes[lane]["status"]) == ("claude", "completed")
    inside = {event["data"]["type"] for event in session.events if event["agentId"] == lane and "seq" in event["data"]}
    assert {"prompt", "tool_call", "tool_result", "assistant_message"} <= inside
    (outer,) = [
        event["data"] for event in session.events if event["data"].get("type") == "prompt" and not event["agentId"]
    ]
    assert (outer["prompt"], session.metadata["claudeSessionId"]) == ("[nest] another", outer["session_id"])
    (reader,) = [agent for name, agent in lanes.items() if name != lane]
    assert (reader["parentAgentId"], reader["status"]) == (lane, "completed")
    assert session.metadata["status"] == "completed"


def test_a_call_that_no_hook_tells_is_a_refused_call(played: Played) -> None:
    session: Stored = played["misused"].result()
    assert {tool for _, (tool, _) in session.calls()} == {"NoSuchTool", "Bash"}
    (refused,) = [response for response in session.responses if response["type"] == "tool_error"]
    assert (refused["tool"], refused["refused"]) == ("NoSuchTool", True)
    assert "No such tool available" in refused["error"]
    assert "tool_use_error" not in refused["error"]
    assert [action["type"] for action in session.actions].count("post_tool_batch") == 0


def test_hooks_inside_run_belong_to_its_session(played: Played) -> None:
    _, session = played["run_as_a_session"].result()
    assert session.prompts() == ["[greet] there"]
    assert [action["reason"] for action in session.actions if action["type"] == "program_ended"] == ["other"]
    assert session.lifecycle().count("session_finalized") == 1
    assert (session.metadata["status"], session.metadata["resumes"]) == ("completed", 0)
    assert (session.final["exitCode"], session.final["finalResponse"]) == (0, "Hello")
    assert session.metadata["userId"] == "alice"
    assert session.lifecycle()[-1] == "session_finalized"
