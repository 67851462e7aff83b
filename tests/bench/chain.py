"""`chain`: what SESSIONS_ACK=bucket costs where an object takes a tenth of a second to be put."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target
from tests.bench.lake import REQUESTS, settings_of
from tests.bench.load import closed_loop, own_process
from tests.lake_gate import gate_before, through
from tests.lakes import storage
from tests.wire import NDJSON, http_request

PUT_SECONDS = 0.1
LINES, SENDERS = 200, 32
LINE = b'{"type":"action","sessionId":"bench-0","data":{"type":"file_write","path":"src/server.js","lines":42}}\n'
BATCH = http_request("POST", "/api/events", LINE * LINES, NDJSON)
CONNECTIONS = 64
SECONDS = 6.0


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        running = stack.enter_context(storage())
        gate = stack.enter_context(gate_before(running))
        gate.delay = PUT_SECONDS
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = through(gate, running.place())
        server = Appliance(folder, settings_of(place) | {"SESSIONS_ACK": "bucket", "SESSIONS_LAKE_EVERY": "5m"})
        stack.callback(server.kill)
        server.start("/ready")
        generator = stack.enter_context(own_process())
        alone, batches = (
            [generator.submit(closed_loop, server.port, *load, 1.0, SECONDS).result() for _ in range(rounds)]
            for load in ((REQUESTS, CONNECTIONS), ([BATCH], SENDERS))
        )
    of = f"acknowledged by a bucket in which an object takes {PUT_SECONDS:g} s"
    return [
        Figure(
            "chain",
            f"NDJSON of {LINES} events, {SENDERS} connections, {of}",
            "events a second",
            [sent.rate * LINES for sent in batches],
            Target(10_000),
        ),
        Figure(
            "chain",
            f"p99 of an action, {CONNECTIONS} connections, {of}",
            "ms",
            [sent.p99_ms for sent in alone],
            Target(250, at_most=True),
        ),
    ]
