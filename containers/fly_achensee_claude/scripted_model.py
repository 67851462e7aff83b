#!/usr/bin/env python3
"""A stand-in for the Messages API, for Claude Code where there is no key: what the model says is written down here.

It answers nothing that it was not written for, and says so. Python 3.9 or newer, nothing besides.

    python3 scripted_model.py --host 0.0.0.0 --port 8080 --pause 1.5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

Block = dict[str, Any]
Step = Sequence[Block]
Scripts = Mapping[str, Sequence[Step]]
"""What the model says at each step, by a phrase of the prompt that it answers."""

numbers = count(1)

# ------------------------------------------------------------------------ script


def says(text: str) -> Block:
    return {"type": "text", "text": text}


def calls(tool: str, **arguments: object) -> Block:
    return {"type": "tool_use", "name": tool, "input": arguments}


RULE = "  if (wind > MOST_WIND)"
GUST_RULES = (
    "  if (!Number.isFinite(gusts)) return { flyable: false, reason: 'there is no reading of gusts' };\n"
    "  if (gusts > MOST_GUSTS && wind <= MOST_WIND)\n"
    "    return { flyable: false, reason: `there are gusts of ${gusts} km/h` };\n"
)


def scripts_for(project: str) -> Scripts:
    """What it says of the project that comes with this container, in the folder `project`."""
    rule, tests = f"{project}/src/flyable.js", f"{project}/test/flyable.test.js"

    def edits(old: str, new: str) -> Block:
        return calls("Edit", file_path=rule, old_string=old, new_string=new)

    change = [
        [
            says("I am a scripted model: there is no API key here. There are two tasks."),
            calls("TaskCreate", subject="Heed gusts in the rule", description="More than 30 km/h: nobody goes up"),
            calls("TaskCreate", subject="Have it reviewed", description="By the sub-agent safety-reviewer"),
        ],
        [
            calls("TaskUpdate", taskId="1", status="in_progress"),
            calls("Read", file_path=rule),
            calls("Bash", command="npm test", description="See which tests fail"),
        ],
        [
            says("One test fails: the rule does not look at gusts at all."),
            edits("const MOST_WIND = 25;", "const MOST_WIND = 25;\nconst MOST_GUSTS = 30;"),
        ],
        [edits("({ wind })", "({ wind, gusts })")],
        [edits(RULE, GUST_RULES + RULE)],
        [calls("Bash", command="npm test", description="See that all tests pass")],
        [
            calls("TaskUpdate", taskId="1", status="completed"),
            calls("TaskUpdate", taskId="2", status="in_progress"),
            calls(
                "Agent",
                description="Review the rule",
                prompt="Review the rule in src/flyable.js: could a guest be taken up in gusts?",
                subagent_type="safety-reviewer",
                run_in_background=False,
            ),
        ],
        [calls("TaskUpdate", taskId="2", status="completed")],
        [says("The rule heeds gusts now: all four tests pass, and the review says that it is safe.")],
    ]
    review = [
        [calls("Read", file_path=rule), calls("Read", file_path=tests)],
        [says("safe\nA missing reading of wind or gusts is a no, and so is each above its limit.")],
    ]
    return {"Make the flying rule heed gusts": change, "Review the rule in src/flyable.js": review}


NOT_WRITTEN = [says("I am a scripted model, and nothing is written down for this: a real one wants ANTHROPIC_API_KEY")]

# ---------------------------------------------------------------------- messages


def next_step(scripts: Scripts, messages: Sequence[Block]) -> Step:
    """What the model says after these messages: the step is how often it has spoken since the prompt."""
    for place in range(len(messages) - 1, -1, -1):
        phrase = last_phrase(scripts, messages[place])
        if phrase is not None:
            spoken = sum(message["role"] == "assistant" for message in messages[place + 1 :])
            script = scripts[phrase]
            return script[spoken] if spoken < len(script) else [says("That was all")]
    return NOT_WRITTEN


def last_phrase(scripts: Scripts, message: Block) -> str | None:
    text = text_of(message) if message["role"] == "user" else ""
    found = {text.rfind(phrase): phrase for phrase in scripts if phrase in text}
    return found[max(found)] if found else None


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
        begun, deltas = begun_with_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": message["usage"]}
    yield {"type": "message_stop"}


def begun_with_deltas(block: Block) -> tuple[Block, list[Block]]:
    """A block as it begins, and what then comes of it."""
    if block["type"] == "tool_use":
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    kind = block["type"]
    deltas = [{"type": f"{name}_delta", name: block[name]} for name in (kind, "signature") if name in block]
    return block | {name: "" for name in (kind, "signature") if name in block}, deltas


# ------------------------------------------------------------------------ server


class ScriptedModel(ThreadingHTTPServer):
    """The API at `address`; before each step that is written down it takes `pause` seconds, to be watched."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], scripts: Scripts, pause: float = 0.0) -> None:
        super().__init__(address, Handler)
        self.scripts, self.pause = scripts, pause


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedModel

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.startswith("/v1/messages?") and self.path != "/v1/messages":
            self.send(404, "application/json", b"{}")
            return
        step = next_step(self.server.scripts, body["messages"])
        time.sleep(0.0 if step is NOT_WRITTEN else self.server.pause)
        message = answer(step, body["model"])
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


def main() -> None:
    options = argparse.ArgumentParser(description="A stand-in for the Messages API that follows a script")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--project", default="/app/project", metavar="FOLDER", help="that Claude Code works in")
    options.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="before each step")
    given = options.parse_args()
    model = ScriptedModel((given.host, given.port), scripts_for(given.project), given.pause)
    print(f"A scripted model, at http://{given.host}:{model.server_port}", flush=True)
    model.serve_forever()


if __name__ == "__main__":
    main()
