"""The recorded hooks of real Claude Code runs, told to a server as if they had just happened."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.appliance import REPOSITORY

CORPUS = REPOSITORY / "tests" / "corpus" / "claude-code-hooks-2.1.330.jsonl"
USERS = ("alice", "bob", "carol")
APART = 97
"""Seconds between the ends of two runs, so that they do not all seem to end at once."""

Hook = dict[str, Any]


def runs() -> list[list[Hook]]:
    """The hooks of each recorded session, in their order; what was recorded by `http` as well is taken once."""
    hooks = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    by_session: dict[str, list[Hook]] = defaultdict(list)
    for hook in sorted((hook for hook in hooks if hook["transport"] == "command"), key=lambda hook: hook["t"]):
        by_session[hook["payload"]["session_id"]].append(hook)
    return list(by_session.values())


def part_of(run: list[Hook], number: int) -> Iterator[Hook]:
    """All of a run; but some have not come to their end yet, and some wait for their first result."""
    for hook in run:
        event = hook["payload"]["hook_event_name"]
        if (number % 10 == 0 and event == "SessionEnd") or (number % 6 == 5 and event == "PostToolUse"):
            return
        yield hook


def replay(http: httpx.Client) -> list[str]:
    """Tell all runs, and return their session ids, the one with the most hooks first."""
    recorded = runs()
    for number, run in enumerate(recorded):
        until = time.time() - 10 - APART * (len(recorded) - number)
        for place, hook in enumerate(part_of(run, number)):
            happened = datetime.fromtimestamp(until - (run[-1]["t"] - hook["t"]), UTC)
            headers = {
                "Idempotency-Key": f"replay-{number}-{place}",
                "X-Timestamp": happened.isoformat(timespec="milliseconds"),
                "X-User-Id": USERS[number % len(USERS)],
            }
            http.post("/api/hooks/claude-code", json=hook["payload"], headers=headers).raise_for_status()
    return [run[0]["payload"]["session_id"] for run in sorted(recorded, key=len, reverse=True)]
