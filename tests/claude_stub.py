"""A Messages API that the real Claude Code CLI talks to: it follows a script, which a prompt names as `[script]`."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from containers.fly_achensee_claude.scripted_model import (
    Block,
    Handler,
    ScriptedModel,
    Step,
    answer,
    calls,
    next_step,
    says,
)

__all__ = ["Block", "ClaudeStub", "Step", "answer", "calls", "fails", "says"]


def fails(message: str) -> Block:
    """In place of a step: the API itself refuses the request."""
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


class Refusing(Handler):
    """What it is not written to refuse, it answers as any other."""

    def do_POST(self) -> None:
        whole = self.rfile.read(int(self.headers["Content-Length"]))
        self.rfile = io.BytesIO(whole)
        messages = json.loads(whole).get("messages", [])
        step = next_step(self.server.scripts, messages)
        if isinstance(self.server, Remembering):
            self.server.requests.append(messages)
            self.server.wait_for(json.dumps(messages))
        if step[0]["type"] == "error":
            self.send(400, "application/json", json.dumps(step[0]).encode())
        else:
            super().do_POST()
        self.rfile = self.connection.makefile("rb", -1)


class Remembering(ScriptedModel):
    """Keeps what it was sent: the messages of each request."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        super().__init__(("127.0.0.1", 0), scripts)
        self.requests: list[list[Block]] = []
        self.gates: dict[str, threading.Event] = {}

    def wait_for(self, messages: str) -> None:
        for gate in [gate for prompt, gate in self.gates.items() if prompt in messages]:
            gate.wait(60)


class ClaudeStub:
    """The API at `url` on loopback while in its `with`."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]], handler: type[Handler] = Refusing) -> None:
        self._server = Remembering({f"[{name}]": script for name, script in scripts.items()})
        self._server.RequestHandlerClass = handler
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hold(self, prompt: str) -> threading.Event:
        """What sets free the answers in a conversation that has this prompt."""
        return self._server.gates.setdefault(prompt, threading.Event())

    def sent(self, prompt: str) -> list[str]:
        """What the model was sent last in each request of a conversation that has this prompt, as JSON."""
        return [json.dumps(it[-1]) for it in list(self._server.requests) if prompt in json.dumps(it)]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
