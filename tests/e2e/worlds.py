"""Where it all runs: what can be done to the store and to the agents from outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import httpx

Json = dict[str, Any]
T = TypeVar("T")

AGENTS = ("customer", "email", "claude")
"""Each agent's session is named `test-AGENT-…`."""
POLL_SECONDS = 0.1


class Failed(Exception):
    """Something is not as it should be; the message says what."""


class World(Protocol):
    """A store and three agents. Everything that is made here is gone after `end`."""

    name: ClassVar[str]
    url: str
    """Of the store, from here."""

    def build(self) -> str:
        """Make what runs; says what that is."""

    def start_store(self) -> None: ...

    def kill_store(self) -> None:
        """With SIGKILL: it learns nothing of it."""

    def stop_store(self) -> int:
        """In order; the exit code."""

    def start_agents(self) -> None: ...

    def states(self) -> dict[str, str]:
        """Of each agent: `running`, or its exit code."""

    def restart_agent(self, agent: str) -> None:
        """Told to stop, and started again as it was."""

    def down(self) -> None:
        """Stop and remove everything but what is to be kept."""

    def export(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m export …` on the store's folder."""

    def token(self, role: str) -> str: ...

    def logs(self) -> str:
        """The end of what everybody wrote."""

    def end(self) -> None: ...


def eventually(found: Callable[[], T], within: float, what: str) -> T:
    """The first thing found that is not empty. Raises Failed if there is none in time."""
    deadline = time.monotonic() + within
    while not (it := found()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within:g} s: {what}")
        time.sleep(POLL_SECONDS)
    return it


def command(
    line: Sequence[str], within: float, env: dict[str, str] | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """One that has to end in time, whatever its exit code."""
    try:
        return subprocess.run(line, env=env, input=given, capture_output=True, text=True, timeout=within)
    except subprocess.TimeoutExpired:
        raise Failed(f"did not end within {within:g} s: {' '.join(line)}") from None


class Store:
    """What the store says, to somebody with a token."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)

    def get(self, path: str, **query: str | int) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()

    def sessions(self) -> dict[str, str]:
        """The ids of the agents' sessions, the newest of each agent."""
        items = self.get("/api/sessions", limit=100)["items"]
        ids = [item["sessionId"] for item in items]
        newest = {agent: next((name for name in ids if name.startswith(f"test-{agent}-")), "") for agent in AGENTS}
        return {agent: session_id for agent, session_id in newest.items() if session_id}

    def events(self, after: int = 0) -> list[Json]:
        """All of them after a cursor."""
        found: list[Json] = []
        while page := self.get("/api/events", after=after, limit=1000)["items"]:
            found += page
            after = page[-1]["cursor"]
        return found

    def is_healthy(self) -> bool:
        try:
            return bool(self.get("/health")["status"] == "ok")
        except (httpx.HTTPError, json.JSONDecodeError):
            return False
