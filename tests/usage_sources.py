"""What the real Claude Code CLI used, told from every side at once: by its hooks, its telemetry and its conversations.

`python -m tests.usage_sources` records it anew, beside what a stand-in for the Messages API has answered, into
tests/corpus. What is long and says nothing of usage is left out.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx

from containers.fly_achensee_claude.scripted_model import Handler, next_step, stream_of
from tests.claude_stub import Block, ClaudeStub, answer, calls, says

RECORDED = Path(__file__).parent / "corpus" / "claude-code-usage-2.1.330.jsonl"
CLAUDE = Path(str(distribution("claude-agent-sdk").locate_file("claude_agent_sdk/_bundled/claude")))
EVENTS = ("SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "SubagentStart", "SubagentStop", "Stop")
HOOKS = (*EVENTS, "PreCompact", "PostCompact", "SessionEnd")
RECORDER = "import sys; print(sys.stdin.read().strip(), file=open(sys.argv[1], 'a'))"
PROTOCOLS = {"protobuf": "http/protobuf", "json": "http/json"}
SECONDS = 90.0

Json = dict[str, Any]


def agent(prompt: str) -> Block:
    return calls("Agent", description="Look", prompt=prompt, subagent_type="general-purpose", run_in_background=False)


def bash(command: str) -> Block:
    return calls("Bash", command=command, description="It says so itself")


SCRIPTS = {
    "work": [[says("Both"), bash("echo one")], [agent("[look] around")], [says("All done")]],
    "look": [[bash("echo two")], [says("It is small")]],
    "greet": [[says("Hello")]],
}


class Metered(Handler):
    """Says with each answer what it used, no two alike, and keeps that."""

    answers: list[Json] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.partition("?")[0] == "/v1/messages":
            self.send(404, "application/json", b"{}")
            return
        number = len(self.answers) + 1
        name = f"req_metered_{number:06}"
        message = answer(next_step(self.server.scripts, body["messages"]), body["model"])
        message["id"] = f"msg_metered_{number:06}"
        message["usage"] = usage = {
            "input_tokens": 10 + number,
            "output_tokens": 100 + number,
            "cache_read_input_tokens": 1000 * number,
            "cache_creation_input_tokens": 300 + number,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200 + number},
        }
        self.answers.append({"requestKey": name, "model": body["model"], "usage": usage})
        self.request_name = name
        if not body.get("stream"):
            self.send(200, "application/json", json.dumps(message).encode())
            return
        events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in stream_of(message))
        self.send(200, "text/event-stream", "".join(events).encode())

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Type":
            super().send_header("request-id", getattr(self, "request_name", "none"))
        super().send_header(keyword, value)


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken: list[Json] = []

    def do_POST(self) -> None:
        body, kind = self.body(), self.headers["Content-Type"]
        self.taken.append({"source": self.path.rpartition("/")[2], "kind": kind, "body": base64.b64encode(body).decode()})
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""
