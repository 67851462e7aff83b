"""A Messages API that the real Claude Code CLI talks to: it follows a script, which a prompt names as `[script]`."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from containers.fly_achensee_claude.scripted_model import Block, ScriptedModel, Step, answer, calls, says

__all__ = ["Block", "ClaudeStub", "Step", "answer", "calls", "says"]


class ClaudeStub:
    """The API at `url` on loopback while in its `with`."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self._server = ScriptedModel(("127.0.0.1", 0), {f"[{name}]": script for name, script in scripts.items()})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
