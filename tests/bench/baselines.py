"""What the appliance is compared with: servers that store nothing, behind the same uvicorn settings.

`python -m tests.bench.baselines NAME` serves one of them on 127.0.0.1:PORT.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import uvicorn
from litestar import Litestar, get, post
from litestar.params import Body
from litestar.types import Receive, Scope, Send

from tests.appliance import Server

CONSTANT_ANSWER = b'{"success":true,"seq":1}'
JSON_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(CONSTANT_ANSWER)).encode())]


class Action(msgspec.Struct):
    type: str
    path: str | None = None
    lines: int | None = None


class Logged(msgspec.Struct):
    success: bool = True
    seq: int = 1


@post("/api/actions/{session_id:str}", status_code=200)
async def log_action(session_id: str, data: Annotated[Action, Body()]) -> Logged:
    return Logged()


@get("/health")
async def health() -> Logged:
    return Logged()


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers the same few bytes, whatever the request is."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": JSON_HEADERS})
    await send({"type": "http.response.body", "body": CONSTANT_ANSWER, "more_body": False})


def baseline(name: str) -> Server:
    return Server([sys.executable, "-m", "tests.bench.baselines", name], dict(os.environ))


def serve(name: str) -> None:
    apps: dict[str, Callable[..., Any]] = {"typed": Litestar([log_action, health]), "bare": bare}
    port = int(os.environ["PORT"])
    uvicorn.run(apps[name], port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    serve(sys.argv[1])
