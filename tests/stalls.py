"""Events that are made to keep a store busy, and how long others wait beside them."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.appliance import Server

MIB = 1 << 20
NEAR = "token=a1b2c3d4e5f6g7"


def long_text(unit: str) -> dict[str, Any]:
    return {"type": "x", "hint": "token=a", "text": unit * ((MIB - 256) // len(unit.encode()))}


def nested(depth: int, core: Any) -> Any:
    for _ in range(depth):
        core = [core, "x"]
    return core


EVENTS: dict[str, dict[str, Any]] = {
    "SECRET= over and over": long_text("SECRET="),
    "250,000 empty texts": {"type": "x", "texts": [""] * 250_000, "hint": "token=a"},
    "40,000 tokens": {"type": "x", "texts": [NEAR] * 40_000},
    "19,000 tokens": {"type": "x", "texts": [NEAR] * 19_000},
    "2,500 tokens": {"type": "x", "texts": [NEAR] * 2_500},
    "650 tokens, through the door": {"type": "x", "texts": [NEAR] * 650},
    "members named token": {"type": "x", "texts": [{"token": NEAR}] * 19_000},
    "deep": {"type": "x", "hint": "token=a", "deep": [nested(60, "token=a1")] * 300},
    "wide": {"type": "x", "hint": "token=a", "wide": [[]] * 250_000},
    "long names": {"type": "x", "hint": "token=a", "names": {f"{n:05}" + "token=" * 100: "x" for n in range(1_600)}},
    "one long line": long_text('token="a1' + "a" * MIB),
    "base64": long_text("QUJDa1+/"),
    "words of secrets": long_text("a token, the password of an api key, https://a:b task-12 secret_access_key "),
    "schemes": long_text("://a:"),
    "prefixes": long_text("sk-a "),
    "no ASCII": long_text("é token=a1 "),
    "marks": long_text("_-_@"),
    "prose": long_text("The build went well, and all of it took twelve seconds.\n"),
}
"""By name, the data of an action; each has at most 1 MiB."""


def body_of(name: str) -> bytes:
    return json.dumps(EVENTS[name], ensure_ascii=False, separators=(",", ":")).encode()


def post(server: Server, path: str, body: bytes, media_type: str = "application/json") -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60.0)
    try:
        connection.request("POST", path, body, {"content-type": media_type})
        return connection.getresponse().status
    finally:
        connection.close()


def worst_wait(server: Server, meanwhile: Callable[[], object]) -> float:
    """The longest that anybody who asks for /health, again and again, waits for it, in seconds."""
    worst, is_over = 0.0, threading.Event()

    def ask() -> None:
        nonlocal worst
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60.0)
        while not is_over.is_set():
            begun = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            worst = max(worst, time.perf_counter() - begun)
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        meanwhile()
    finally:
        is_over.set()
        asking.join()
    return worst
