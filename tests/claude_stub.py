"""A stand-in for the Messages API that the real Claude Code CLI talks to: what the model says is written down before.

A prompt names the script that answers it, as `[script]`; a script is what the model says at each step, and the step is
how many times it has spoken since that prompt. What no script is named for (titles, summaries) gets a plain answer.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import TracebackType
from typing import Any, Self

Block = dict[str, Any]
Step = Sequence[Block]

NAMED = re.compile(r"\[([a-z]+)\]")
SUMMARY = "<summary>A summary of what was said</summary>"
numbers = count(1)


def says(text: str) -> Block:
    return {"type": "text", "text": text}


def calls(tool: str, **arguments: object) -> Block:
    return {"type": "tool_use", "name": tool, "input": arguments}


class ClaudeStub:
    """The API at `url` on loopback while in its `with`."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.scripts = scripts  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def next_step(scripts: Mapping[str, Sequence[Step]], messages: Sequence[Block]) -> Step:
    """What the model says after these messages."""
    for place in range(len(messages) - 1, -1, -1):
        named = NAMED.findall(text_of(messages[place])) if messages[place]["role"] == "user" else []
        if named and named[-1] in scripts:
            spoken = sum(message["role"] == "assistant" for message in messages[place + 1 :])
            script = scripts[named[-1]]
            return script[spoken] if spoken < len(script) else [says("That was all")]
    return [says("Yes")]


def text_of(message: Block) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(block["text"] for block in content if block["type"] == "text")


def answer(step: Step, model: str) -> Block:
    blocks = [block | {"id": f"toolu_{next(numbers):024}"} if block["type"] == "tool_use" else block for block in step]
    return {
        "id": f"msg_{next(numbers):024}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def stream_of(message: Block) -> Iterator[Block]:
    """The events that tell of a message as it comes to be."""
    yield {"type": "message_start", "message": message | {"content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        begun, rest = (
            (block | {"input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])})
            if block["type"] == "tool_use"
            else (block | {"text": ""}, {"type": "text_delta", "text": block["text"]})
        )
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        yield {"type": "content_block_delta", "index": index, "delta": rest}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": message["usage"]}
    yield {"type": "message_stop"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.startswith("/v1/messages?") and self.path != "/v1/messages":
            self.send(404, "application/json", b"{}")
            return
        scripts = self.server.scripts  # type: ignore[attr-defined]
        message = answer(next_step(scripts, body["messages"]), body["model"])
        if not body.get("stream"):
            self.send(200, "application/json", json.dumps(message).encode())
            return
        events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in stream_of(message))
        self.send(200, "text/event-stream", "".join(events).encode())

    def do_GET(self) -> None:
        self.send(404, "application/json", b"{}")

    do_HEAD = do_GET

    def send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing."""
