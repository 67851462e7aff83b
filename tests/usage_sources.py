"""What the real Claude Code CLI used, told from every side at once: by its hooks, its telemetry and its conversations.

`python -m tests.usage_sources` records it anew into tests/corpus, beside what a stand-in for the Messages API answered.
Of conversations the lines that say nothing of usage are left out, and what was said in the others.
"""

from __future__ import annotations

import base64
import json
import lzma
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from containers.fly_achensee_claude.scripted_model import Handler, next_step, stream_of
from tests.claude_stub import Block, ClaudeStub, answer, calls, says

RECORDED = Path(__file__).parent / "corpus" / "claude-code-usage-2.1.330.json.xz"
EVENTS = "SessionStart UserPromptSubmit PreToolUse PostToolUse SubagentStart SubagentStop Stop PreCompact PostCompact"
RECORDER = (
    "import sys, json, datetime as d; now = d.datetime.now(d.UTC).isoformat()"
    "; print(json.dumps({'timestamp': now, 'hook': json.load(sys.stdin)}), file=open(sys.argv[1], 'a'))"
)
PROTOCOLS = {"json": "http/json", "protobuf": "http/protobuf"}
SECONDS = 90.0
SAYS_USAGE = ("assistant", "system")

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

    answers: list[Json]
    tag = "metered"
    """In the names of its answers."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.partition("?")[0] != "/v1/messages":
            self.send(404, "application/json", b"{}")
            return
        number = len(self.answers) + 1
        message = answer(next_step(self.server.scripts, body["messages"]), body["model"])
        usage = {
            "input_tokens": 10 + number,
            "output_tokens": 100 + number,
            "cache_read_input_tokens": 1000 * number,
            "cache_creation_input_tokens": 300 + number,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200 + number},
        }
        message |= {"id": f"msg_{self.tag}_{number:06}", "usage": usage}
        self.name = f"req_{self.tag}_{number:06}"
        self.answers.append({"requestKey": self.name, "model": body["model"], "usage": usage})
        if not body.get("stream"):
            self.send(200, "application/json", json.dumps(message).encode())
            return
        events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in stream_of(message))
        self.send(200, "text/event-stream", "".join(events).encode())

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Type":
            super().send_header("request-id", getattr(self, "name", "none"))
        super().send_header(keyword, value)


class Sink(BaseHTTPRequestHandler):
    """Keeps what is exported to it."""

    protocol_version = "HTTP/1.1"
    taken: list[Json]

    def do_POST(self) -> None:
        body, kind = self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Type"]
        signal = self.path.rpartition("/")[2]
        self.taken.append({"signal": signal, "kind": kind, "body": base64.b64encode(body).decode()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""


def record(folder: Path, protocol: str) -> Json:
    """Work with a sub-agent, taken up again, compacted, taken up again and forked; every source is on."""
    answers: list[Json] = []
    taken: list[Json] = []
    sink = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnSink", (Sink,), {"taken": taken}))
    threading.Thread(target=sink.serve_forever, args=(0.05,), daemon=True).start()
    home, project, hooks = folder / "home", folder / "project", folder / "hooks.jsonl"
    for made in (home / ".claude", home / "tmp", project):
        made.mkdir(parents=True)
    command = shlex.join([sys.executable, "-c", RECORDER, str(hooks)])
    installed = {
        name: [{"hooks": [{"type": "command", "command": command}]}] for name in [*EVENTS.split(), "SessionEnd"]
    }
    (home / ".claude" / "settings.json").write_text(json.dumps({"hooks": installed}))
    with ClaudeStub(SCRIPTS, type("OwnMeter", (Metered,), {"answers": answers})) as stub:
        env = environment(home, stub.url, f"http://127.0.0.1:{sink.server_port}", protocol)
        first = claude(env, project, "[work] please")
        for prompt in ("[greet] again", "/compact", "[greet] more"):
            claude(env, project, prompt, "--resume", first)
        fork = claude(env, project, "[greet] apart", "--resume", first, "--fork-session")
    sink.shutdown()
    sink.server_close()
    return {
        "sessions": {"first": first, "fork": fork},
        "answers": answers,
        "telemetry": taken,
        "hooks": [json.loads(line) for line in hooks.read_text().splitlines()],
        "transcripts": [*transcripts(home / ".claude" / "projects", (first, fork))],
    }


def environment(home: Path, api: str, collector: str, protocol: str) -> dict[str, str]:
    return exporting(collector, protocol) | {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_BASE_URL": api,
        "NO_PROXY": "127.0.0.1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }


def exporting(collector: str, protocol: str) -> dict[str, str]:
    """All that its telemetry tells, to a collector."""
    return {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": PROTOCOLS[protocol],
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
    }


def claude(env: dict[str, str], project: Path, prompt: str, *arguments: str) -> str:
    """One turn to its end; the id of the session that it was in."""
    program = distribution("claude-agent-sdk").locate_file("claude_agent_sdk/_bundled/claude")
    command = [str(program), "-p", "--dangerously-skip-permissions", "--output-format", "json", prompt, *arguments]
    done = subprocess.run(
        command, env=env, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done
    session_id: str = json.loads(done.stdout)["session_id"]
    return session_id


def transcripts(folder: Path, sessions: tuple[str, ...]) -> Iterator[Json]:
    for session in sessions:
        for path in [*folder.glob(f"*/{session}.jsonl"), *folder.glob(f"*/{session}/subagents/*.jsonl")]:
            beside = "" if path.stem == session else f"subagents/{path.stem}"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            kept = [without_words(line) for line in lines if line["type"] in SAYS_USAGE]
            yield {"session": session, "subpath": beside, "lines": kept}


def without_words(line: Json) -> Json:
    return line | {"message": line["message"] | {"content": []}} if "message" in line else line


def recordings() -> list[Json]:
    """Of both protocols."""
    found: list[Json] = json.loads(lzma.decompress(RECORDED.read_bytes()))
    return found


def through_gateway(recorded: Json, name: str | None) -> Json:
    """A recording in JSON as it would be with a gateway that gives all requests this name, or none."""
    sent = [told | {"body": as_named(base64.b64decode(told["body"]), name)} for told in recorded["telemetry"]]
    files = [
        part | {"lines": [line | {"requestId": name} for line in part["lines"]]} for part in recorded["transcripts"]
    ]
    return recorded | {"telemetry": sent, "transcripts": files}


def as_named(body: bytes, name: str | None) -> str:
    def named(members: Json) -> Json:
        if members.get("key") not in ("request_id", "gen_ai.response.id"):
            return members
        return members | ({"value": {"stringValue": name}} if name else {"key": "none"})

    return base64.b64encode(json.dumps(json.loads(body, object_hook=named)).encode()).decode()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = [record(Path(folder) / protocol, protocol) for protocol in PROTOCOLS]
    text = json.dumps(made, separators=(",", ":"))
    RECORDED.write_bytes(lzma.compress(text.replace(folder, "/work").encode()))


if __name__ == "__main__":
    main()
