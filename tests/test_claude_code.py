"""The real Claude Code CLI, with the hooks that `install` puts in, and what the store then holds of what it did.

The CLI is the one in the package claude-agent-sdk. It talks to a stand-in for the Messages API, so what the model says
is known, and its own transcripts say what became of it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

import claude_agent_sdk
import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.claude_stub import ClaudeStub, calls, says
from tests.peers import eventually

Json = dict[str, Any]

CLAUDE = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
SECONDS = 60.0
LOST_AFTER_SECONDS = 2
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
        self.agent("install", check=True)

    def agent(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, str(REPOSITORY / "hook_agent.py"), *arguments]
        return subprocess.run(command, env=self._env, cwd=self.project, capture_output=True, timeout=SECONDS, **options)

    def start(self, *arguments: str, before: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
        command = [*before, str(CLAUDE), "-p", "--dangerously-skip-permissions", *arguments]
        return subprocess.Popen(
            command,
            env=self._env | env,
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def claude(self, prompt: str, *arguments: str, **options: Any) -> Json:
        """One turn of Claude Code, to its end: what it says of it."""
        process = self.start(prompt, "--output-format", "json", *arguments, **options)
        output, _ = process.communicate("", timeout=SECONDS)
        assert process.returncode == 0, output
        result: Json = json.loads(output)
        return result

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
        return {block["id"]: (block["name"], block["input"]) for _, block in self._blocks("tool_use")}

    def results(self) -> dict[str, object]:
        """What each tool call gave: the structured result, or the text of the error."""
        return {
            block["tool_use_id"]: block["content"] if block.get("is_error") else line["toolUseResult"]
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
        self.metadata, self.state, self.final = session["metadata"], session["state"], session["final"]
        self.actions, self.responses, self.events = session["actions"], session["responses"], events

    def prompts(self) -> list[str]:
        return [action["prompt"] for action in self.actions if action["type"] == "prompt"]

    def calls(self) -> list[tuple[str, tuple[str, Json]]]:
        return [(a["toolUseId"], (a["tool"], a["input"])) for a in self.actions if a["type"] == "tool_call"]

    def results(self) -> list[tuple[str, object]]:
        return [
            (response["toolUseId"], response.get("error") or response["output"])
            for response in self.responses
            if response["type"] in ("tool_result", "tool_error")
        ]

    def lifecycle(self) -> list[str]:
        return [event["type"] for event in self.events if event["type"].startswith("session_")]


class World:
    """The store, the model, and as many machines as there are scenarios."""

    def __init__(self, folder: Path, store: Appliance, stub: ClaudeStub) -> None:
        self.folder, self.store, self.stub = folder, store, stub
        self.http = httpx.Client(base_url=store.url, timeout=30)

    def machine(self, name: str) -> Machine:
        return Machine(self.folder / name, self.stub.url, self.store.url, self.folder / "spool")

    def status(self, session_id: str) -> str | None:
        answer = self.http.get(f"/api/sessions/{session_id}")
        return answer.json()["metadata"]["status"] if answer.status_code == 200 else None

    def stored(self, session_id: str) -> Stored:
        return stored(self.http, session_id)

    def has_begun(self, session_id: str, tool: str = "Bash") -> bool:
        answer = self.http.get(f"/api/actions/{session_id}")
        return answer.status_code == 200 and tool in [action.get("tool") for action in answer.json()]


def stored(http: httpx.Client, session_id: str) -> Stored:
    session = http.get(f"/api/sessions/{session_id}").raise_for_status().json()
    events = http.get(f"/api/sessions/{session_id}/events", params={"limit": 1000}).raise_for_status().json()
    return Stored(session, events["items"])
