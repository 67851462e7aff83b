"""Agents at work, sessions that have ended, as if it had just happened; and agents that ask and wait."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import Queue
from typing import Any

import httpx

from tests.appliance import Appliance

PROJECTS, USERS = ("shop", "billing", "search"), ("alice", "bob", "carol", "dave")
TASKS = (
    "Build the checkout page with a cart",
    "Migrate the invoices to the new schema",
    "Find out why the login test is flaky",
    "Write the release notes of 2.4",
    "Make the product search quick",
    "Translate the welcome mails",
)
ERROR = "AssertionError: expected 3 rows, got 4\nTraceback (most recent call last)"


def work(number: int, is_over: bool) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """The events of a session: type, seconds since its begin, data."""
    task, project = TASKS[number % 6], PROJECTS[number % 3]
    where = {"branch": f"fix/{number % 5}" if number % 2 else "main", "host": f"node-{number % 3}"}
    about = {"title": f"{task} {number}", "project": project, "model": "claude-opus-4-5", "where": where}
    yield "session_created", 0, {"initial": {"input": task}, "tags": ["nightly"] * (number % 3 == 0), "metadata": about}
    yield "action", 1, {"type": "prompt", "prompt": f"{task}, and say when it is done"}
    path = f"/srv/{project}/module_{number}.py"
    calls = (("Read", {"file_path": path}), ("Bash", {"command": "pytest -q"}),
             ("Edit", {"file_path": path, "old_string": "a = 1", "new_string": "a = 2"}))  # fmt: skip
    for place, (tool, given) in enumerate(calls):
        of_call = {"tool": tool, "toolUseId": f"use-{number}-{place}"}
        yield "action", 2 + place, {"type": "tool_call", "input": given, **of_call}
        if (number + place) % 9 == 0:
            yield "response", 2.4 + place, {"type": "tool_error", "error": "Exit code 1\n2 failed", **of_call}
        elif is_over or place < 2:
            yield "response", 2.3 + place, {"type": "tool_result", "output": "ok", "durationMs": 300, **of_call}
    used = {"inputTokens": 2000 * (number + 1), "outputTokens": 400 * (number + 1), "source": "sdk"}
    asked = {"provider": "anthropic", "model": "claude-opus-4-5", "requestKey": f"request-{is_over}-{number}"}
    yield "usage_reported", 6, used | asked
    if is_over:
        failed = {"status": "failed", "outcome": ERROR}
        yield "session_finalized", 60, failed if number % 16 == 3 else {"status": "success", "outcome": "Done"}
    elif number % 5 == 2:
        yield "response", 7, {"type": "assistant_message", "message": "Done.", "attention": {"reason": "input"}}


def tell(http: httpx.Client, *, live: int = 30, ended: int = 200) -> None:
    now, lines = time.time(), []
    for is_over, number in [*((True, n) for n in range(ended)), *((False, n) for n in range(live))]:
        begun = now - 9000 - 60 * (ended - number) if is_over else now - 40 * (live - number) - 20
        for kind, after, data in work(number, is_over):
            at = datetime.fromtimestamp(begun + after, UTC).isoformat()
            name = f"{'ended' if is_over else 'live'}-{number}"
            event = {"type": kind, "sessionId": name, "userId": USERS[number % 4], "timestamp": at, "data": data}
            lines.append(json.dumps(event))
    for place in range(0, len(lines), 1000):
        body, headers = "\n".join(lines[place : place + 1000]), {"content-type": "application/x-ndjson"}
        assert http.post("/api/events", content=body, headers=headers).json()["rejected"] == []


class Side:
    """An agent's side: it asks, and polls for what it is to carry out."""

    def __init__(self, http: httpx.Client, session_id: str) -> None:
        self.http, self.session_id, self.got = http, session_id, Queue[Any]()
        self.threads: list[threading.Thread] = []

    def ask(self, title: str, reason: str = "permission", **data: Any) -> str:
        self.http.put(f"/api/sessions/{self.session_id}", json={"userId": "alice", "metadata": {"title": title}})
        body = {"type": "permission_request", "attention": {"reason": reason, "message": title}, **data}
        return str(self.http.post(f"/api/actions/{self.session_id}", json=body).raise_for_status().json()["eventId"])

    def wait(self, **body: Any) -> None:
        """A poll on a thread: what it is given comes into the queue."""

        def poll() -> None:
            answer = self.http.post(f"/api/sessions/{self.session_id}/control", json={"wait": 30, **body})
            self.got.put(answer.json()["items"] if answer.status_code == 200 else [])

        self.threads.append(threading.Thread(target=poll))
        self.threads[-1].start()

    def given(self) -> dict[str, Any]:
        (item,) = self.got.get(timeout=20)
        self.http.post(f"/api/sessions/{self.session_id}/control", json={"done": [item["id"]]}).raise_for_status()
        return dict(item)


@contextmanager
def side_of(appliance: Appliance, session_id: str) -> Iterator[Side]:
    with httpx.Client(base_url=appliance.url, timeout=60) as http:
        side = Side(http, session_id)
        try:
            yield side
        finally:
            http.post(f"/api/sessions/{session_id}/finalize", json={})  # whoever waits does no more
            for thread in side.threads:
                thread.join(60)
