"""Hostile requests against a running server: what they leave in its memory, and for how long anybody else waits.

`tests/hostile.py` has hostile SQL; what is odd but of no weight is tried in `tests/test_bad_input.py`.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple, Self

import pytest

from tests import peers
from tests.appliance import Appliance
from tests.peers import dial, response_from
from tests.wire import JSON, NDJSON

MIB = 1 << 20
TOKENS = {"admin": "canary-admin-5f0c2b7e", "read": "canary-read-9d31aa02", "ingest": "canary-ingest-77e1c0d4"}
SETTINGS = {
    "SESSIONS_TOKEN": TOKENS["admin"],
    "SESSIONS_READ_TOKEN": TOKENS["read"],
    "SESSIONS_INGEST_TOKEN": TOKENS["ingest"],
    "SESSIONS_MAX_FAILURES": "off",
}
REFUSALS = 2000
"""Of each kind."""
KEPT = 5 * MIB
NOISE = 3 * MIB
"""What the allocator keeps one time and not another."""
STALL = 0.25
"""Seconds for which nobody may wait for anybody else."""
TRIES = 3
"""The least of which counts: the machine of the tests adds its own."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that needs tokens, and is attacked by whoever has one, or none."""
    with Appliance(tmp_path_factory.mktemp("hostile"), SETTINGS) as running:
        yield running


class Beside:
    """Somebody else, who asks for /health all the time, and notes the longest that it took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.longest = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            while not self.over.wait(0.002):
                begun = time.monotonic()
                connection.request("GET", "/health")
                assert connection.getresponse().read()
                self.longest = max(self.longest, time.monotonic() - begun)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(60)


class Damage(NamedTuple):
    """What an attack does to everybody else."""

    kept: int
    """Bytes by which the server is larger afterwards."""
    stall: float
    """Seconds for which somebody else waited, the longest of all in one go: in the best of a few."""


def damage(server: Appliance, attack: Callable[[], object]) -> Damage:
    before, least = peers.resident_bytes(server.process.pid), float("inf")
    for _ in range(TRIES):
        with Beside(server.port) as beside:
            attack()
            time.sleep(0.05)
        least = min(least, beside.longest)
        if least <= STALL:
            break
    return Damage(peers.resident_bytes(server.process.pid) - before, least)


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    token: str | None = "admin",
    **headers: str | bytes,
) -> bytes:
    """With the token of a role; headers have `_` for `-`, and an empty one is left out."""
    said: dict[str, str | bytes] = {"host": "127.0.0.1"}
    if token is not None:
        said["authorization"] = f"Bearer {TOKENS.get(token, token)}"
    if body is not None:
        said |= {"content-type": JSON, "content-length": str(len(body))}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = b"".join(
        b"%b: %b\r\n" % (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in said.items()
        if value
    )
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), path.encode(), lines, body or b"")


def ask(port: int, data: bytes) -> peers.Response:
    with closing(dial(port)) as peer:
        peer.settimeout(120)
        peer.sendall(data)
        return response_from(peer)


# ------------------------------------------------------------------ heads that are too large

LONG_HEADER = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 66_000 + b"\r\n\r\n"
LONG_TARGET = b"GET /" + b"x" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
ENDLESS_HEADERS = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 12_000


@pytest.mark.parametrize("head", [LONG_HEADER, LONG_TARGET, ENDLESS_HEADERS], ids=["header", "target", "headers"])
def test_refused_heads_leave_memory_where_it_was(server: Appliance, head: bytes) -> None:
    """Without a token, 136 KiB of each once stayed for ever."""

    def attack(times: int) -> None:
        for _ in range(times):
            assert ask(server.port, head).status == 431

    attack(200)
    assert damage(server, lambda: attack(REFUSALS)).kept <= KEPT + NOISE


# ------------------------------------------------------------------------------------ batches

BAD_LINES = {
    "no event": b"{}\n",
    "no object": b"[]\n",
    "no JSON": b"\xff\n",
    "too deep": b"[" * 65 + b"]" * 65 + b"\n",
    "no type that is known": b'{"type":"x","sessionId":"s"}\n',
    "nothing to change": b'{"type":"session_deleted","sessionId":"nowhere"}\n',
    "for the admin alone": b'{"type":"session_deleted","sessionId":"s"}\n',
}
MAX_LINES = 50_000


def post_batch(server: Appliance, body: bytes, token: str = "ingest") -> peers.Response:
    return ask(server.port, request("POST", "/api/events", body, token, content_type=NDJSON))


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_batch_of_bad_lines_holds_nobody_up_and_leaves_nothing(server: Appliance, line: bytes) -> None:
    token = "admin" if b"nowhere" in line else "ingest"

    def attack() -> None:
        answer = post_batch(server, line * MAX_LINES, token)
        assert answer.status == 200
        said = json.loads(answer.body)
        assert (said["accepted"], said["rejectedTotal"]) == (0, MAX_LINES)
        assert [told["line"] for told in said["rejected"]] == [*range(1, 1001)]
        assert len(answer.body) < 300_000

    attack()
    kept, stall = damage(server, attack)
    assert kept <= 4 * KEPT
    assert stall <= STALL


@pytest.mark.parametrize("body", [b"{}\n" * (MAX_LINES + 1), b"\n" * (32 * MIB - 1), b"{}\n" * (10 * MIB)])
def test_a_batch_of_too_many_lines_is_refused_before_it_is_read(server: Appliance, body: bytes) -> None:

    def attack() -> None:
        answer = post_batch(server, body)
        assert answer.status == 413
        assert b"50000 lines" in answer.body

    kept, stall = damage(server, attack)
    assert kept <= 40 * MIB, "the body itself, in the allocator"
    assert stall <= STALL


def test_a_batch_of_as_many_good_lines_as_may_be(server: Appliance) -> None:
    """In one transaction, which others wait for; but they are answered."""
    line = b'{"type":"action","sessionId":"wide","data":{"type":"x"}}\n'

    def attack() -> None:
        said = json.loads(post_batch(server, line * MAX_LINES).body)
        assert (said["accepted"], said["rejected"], said["rejectedTotal"]) == (MAX_LINES, [], 0)

    attack()
    kept, stall = damage(server, attack)
    assert kept <= 40 * MIB
    assert stall <= STALL
