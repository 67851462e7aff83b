"""`hostile`: what a store keeps of ten thousand refused heads, and how long others wait beside the worst batches."""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.peers import ask, resident_bytes
from tests.wire import NDJSON, http_request

HEADS = 10_000
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 66_000 + b"\r\n\r\n"
LINES = 50_000
BATCHES = {
    "bad": b"{}\n" * LINES,
    "good": b'{"type":"action","sessionId":"s","data":{"type":"x"}}\n' * LINES,
}
MEBIBYTE = 1 << 20


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance:
        refuse_heads(appliance, 500)
        kept = [growth(appliance, lambda: refuse_heads(appliance, HEADS)) for _ in range(rounds)]
        figures = [
            Figure("hostile", f"memory after {HEADS:,} refused heads", "MiB more", kept, Target(5, at_most=True))
        ]
        for kind, body in BATCHES.items():
            request = http_request("POST", "/api/events", body, NDJSON)
            waits = [longest_wait(appliance, request) for _ in range(rounds)]
            what = f"longest wait of others beside a batch of {LINES:,} {kind} lines"
            figures.append(Figure("hostile", what, "ms", waits, Target(100, at_most=True)))
        return figures


def refuse_heads(appliance: Appliance, number: int) -> None:
    for _ in range(number):
        if (status := ask(appliance.port, HEAD).status) != 431:
            raise Unsound(f"a head that is too large is answered with {status}")


def growth(appliance: Appliance, attack: Callable[[], None]) -> float:
    before = resident_bytes(appliance.process.pid)
    attack()
    return (resident_bytes(appliance.process.pid) - before) / MEBIBYTE


def longest_wait(appliance: Appliance, request: bytes) -> float:
    """Milliseconds that /health took, the longest of all while this one is answered."""
    over, longest = threading.Event(), [0.0]

    def look() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=60)) as connection:
            while not over.wait(0.002):
                begun = time.perf_counter()
                connection.request("GET", "/health")
                connection.getresponse().read()
                longest.append((time.perf_counter() - begun) * 1000)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        if (status := ask(appliance.port, request).status) != 200:
            raise Unsound(f"a batch is answered with {status}")
    finally:
        over.set()
        looking.join()
    return max(longest)
