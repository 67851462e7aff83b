"""Thirty agents at work and two hundred sessions that have ended, told to a server as if they had just happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

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
