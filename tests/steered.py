"""Both sides of control: people who answer and order, and the commands that `install --control` puts into settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.agents import SECONDS, environment, remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually

Json = dict[str, Any]


class Person:
    """Who may answer and order, with the token that the store has made for that."""

    def __init__(self, appliance: Appliance) -> None:
        token = (appliance.folder / "tokens" / "control").read_text().strip()
        self._http = httpx.Client(base_url=appliance.url, headers={"Authorization": f"Bearer {token}"})

    def close(self) -> None:
        self._http.close()

    def asks(self, session: str, **query: str) -> list[Json]:
        items: list[Json] = self._http.get("/api/asks", params={"sessionId": session, **query}).json()["items"]
        return items

    def asked(self, session: str, *, number: int = 1) -> list[Json]:
        """The open asks, once there are so many that somebody waits for."""
        eventually(lambda: sum(ask["canAnswer"] for ask in self.asks(session)) == number, SECONDS)
        return self.asks(session)

    def answer(self, ask: Json, decision: str, **more: Any) -> Json:
        path = f"/api/asks/{ask['askId']}/answer"
        answer: Json = self._http.post(path, json={"decision": decision, **more}).raise_for_status().json()
        return answer

    def order(self, session: str, order: str, **more: Any) -> str:
        """Its id; the session has to be reachable."""
        path = f"/api/sessions/{session}/orders"
        answer = self._http.post(path, json={"order": order, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["orderId"])

    def session(self, session: str) -> Json:
        found: Json = self._http.get(f"/api/sessions/{session}").raise_for_status().json()
        return found

    def knows(self, session: str) -> bool:
        return self._http.get(f"/api/sessions/{session}").status_code == 200

    def is_reachable(self, session: str) -> bool:
        """Whether an agent's side asks for orders."""
        answer = self._http.get(f"/api/sessions/{session}/orders")
        return answer.status_code == 200 and bool(answer.json()["reach"]["reachable"])

    def fate(self, session: str, order_id: str) -> Json:
        orders: list[Json] = self._http.get(f"/api/sessions/{session}/orders").raise_for_status().json()["items"]
        return next(order for order in orders if order["orderId"] == order_id)

    def is_delivered(self, session: str, order_id: str) -> Json:
        """The order, once the agent's side has said so."""
        eventually(lambda: self.fate(session, order_id)["status"] == "delivered", SECONDS)
        return self.fate(session, order_id)


@contextmanager
def person(appliance: Appliance) -> Iterator[Person]:
    one = Person(appliance)
    try:
        yield one
    finally:
        one.close()


class Installed:
    """A home in which `install --control` was run, and its commands, as Claude Code runs them."""

    def __init__(self, folder: Path, url: str, *arguments: str, **env: str) -> None:
        self.folder = folder
        self.claude = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.env = environment(folder, url, CLAUDE_PID=str(self.claude.pid), **env)
        done = self.install("--control", *arguments)
        assert done.returncode == 0, done
        self.settings: Json = json.loads((folder / ".claude" / "settings.json").read_text())

    def install(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / "hook_agent.py"), "install", *arguments]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=SECONDS)

    def hook(self, event: str) -> Json:
        ((hook,),) = [group["hooks"] for group in self.settings["hooks"][event]]
        found: Json = hook
        return found

    def start(self, event: str, session: str, **payload: Any) -> subprocess.Popen[bytes]:
        told = {"session_id": session, "hook_event_name": event, **payload}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            ["sh", "-c", self.hook(event)["command"]], env=self.env, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert process.stdin
        process.stdin.write(json.dumps(told, separators=(",", ":")).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, event: str, session: str, **payload: Any) -> Json | None:
        """What Claude Code would be told; None: nothing."""
        return reply_of(self.start(event, session, **payload))

    def known(self, session: str) -> Iterator[Path]:
        """What is ordered, as the spool has it."""
        return self.folder.glob(f"spool/*/orders/{session}")

    def is_watched(self, session: str) -> bool:
        """Whether whoever delivers has just heard from the store that nothing, or what, is ordered."""
        return any(time.time() - path.stat().st_mtime < 9 for path in self.known(session))

    def begin(self, session: str) -> None:
        """As a session does, until its orders are asked for."""
        self.run("UserPromptSubmit", session, prompt="Begin")
        eventually(lambda: self.is_watched(session) and not any(self.folder.glob("spool/*/0*.ndjson")), SECONDS)

    def has_heard(self, session: str) -> None:
        eventually(lambda: any(path.stat().st_size for path in self.known(session)), SECONDS)

    def close(self) -> None:
        self.claude.communicate(b"\n")
        remove_spools(self.folder)
        shutil.rmtree(self.folder / "spool", ignore_errors=True)


def reply_of(process: subprocess.Popen[bytes]) -> Json | None:
    output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, b"")
    return json.loads(output) if output else None
