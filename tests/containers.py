"""The agents of the folder containers as they run: child processes, offline, and what the store holds of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.agents import SECONDS, environment
from tests.appliance import REPOSITORY
from tests.peers import eventually

Json = dict[str, Any]


class Container:
    """One of the agents, with its files in `folder`; what is not in `settings` is as for one quick pass."""

    def __init__(self, name: str, folder: Path, url: str, session_id: str, **settings: object) -> None:
        self.session_id = session_id
        self._home = REPOSITORY / "containers" / name
        quick = {"SESSION_ID": session_id, "PACE_SECONDS": "0", "KEEP_WATCHING": "0"}
        self._env = environment(folder, url, **quick, **{key: str(value) for key, value in settings.items()})

    def run(self, module: str = "src.main_with_session", **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(module),
            cwd=self._home,
            env=self._env | {key: str(value) for key, value in settings.items()},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    @contextmanager
    def running(self, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
        """Watching, while in the `with`; it is gone afterwards."""
        env = self._env | {"KEEP_WATCHING": "1"} | {key: str(value) for key, value in settings.items()}
        command = self._command("src.main_with_session")
        program = subprocess.Popen(command, cwd=self._home, env=env, stdout=subprocess.DEVNULL)
        try:
            yield program
        finally:
            program.kill()
            program.wait()

    def _command(self, module: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", module]


def told_to_end(program: subprocess.Popen[bytes]) -> int:
    program.send_signal(signal.SIGTERM)
    return program.wait(SECONDS)


class Session:
    """What the store holds of a session."""

    def __init__(self, http: httpx.Client, session_id: str) -> None:
        document = http.get(f"/api/sessions/{session_id}", params={"limit": 10_000}).raise_for_status().json()
        self.metadata: Json = document["metadata"]
        self.state: Json = document["state"]
        self.final: Json | None = document["final"]
        self.actions: list[Json] = document["actions"]
        self.responses: list[Json] = document["responses"]

    def goals(self) -> dict[str, str]:
        return {goal["id"]: goal["status"] for goal in self.state["goals"]}

    def agents(self) -> dict[str, Json]:
        return {agent["agentId"]: agent for agent in self.state["agents"]["spawned"]}

    def begun(self, kind: str) -> list[str]:
        return [entry["goalId"] for entry in self.actions if entry["type"] == kind]

    def calls_of(self, begun: str) -> dict[str, list[Json]]:
        """The tool calls of each item, by its goal: those that come after the action that it began with."""
        calls: dict[str, list[Json]] = {}
        for entry in self.actions:
            if entry["type"] == begun:
                calls[entry["goalId"]] = []
            elif entry["type"] == "tool_call":
                calls[list(calls)[-1]].append(entry)
        return calls

    def unpaired_calls(self) -> list[Json]:
        ended = {entry["toolUseId"] for entry in self.responses if entry["type"].startswith("tool_")}
        return [entry for entry in self.actions if entry["type"] == "tool_call" and entry["toolUseId"] not in ended]


def delivered(http: httpx.Client, session_id: str, status: str) -> Session:
    """Once a session that has ended so is there: a process of its own delivers what a program has left behind."""
    eventually(lambda: status_of(http, session_id) == status)
    return Session(http, session_id)


def status_of(http: httpx.Client, session_id: str) -> str | None:
    answer = http.get(f"/api/sessions/{session_id}")
    return answer.json()["metadata"]["status"] if answer.status_code == 200 else None


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}
