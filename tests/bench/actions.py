"""`actions`: single durable actions a second, against handlers that store nothing."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path

from tests.appliance import Appliance, Server
from tests.bench.baselines import baseline
from tests.bench.figures import Figure, Target
from tests.bench.load import Throughput, closed_loop, own_process
from tests.wire import http_request

CONNECTIONS = 64
SESSIONS = 8
WARM_UP_SECONDS = 0.5
SECONDS = 3.0
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'


def measure(rounds: int) -> list[Figure]:
    requests = [http_request("POST", f"/api/actions/bench-{n}", ACTION) for n in range(SESSIONS)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        servers: list[Server] = [Appliance(folder), baseline("typed"), baseline("bare")]
        for server in servers:
            stack.enter_context(server)
        results = [[_load(generator, server, requests) for server in servers] for _ in range(rounds)]
    return _figures(*(list(column) for column in zip(*results, strict=True)))


def _load(generator: Executor, server: Server, requests: list[bytes]) -> Throughput:
    return generator.submit(closed_loop, server.port, requests, CONNECTIONS, WARM_UP_SECONDS, SECONDS).result()


def _figures(durable: list[Throughput], typed: list[Throughput], bare: list[Throughput]) -> list[Figure]:
    def figure(compared: str, target: float, baseline: list[Throughput]) -> Figure:
        return Figure("actions", compared, "a second", _rates(durable), Target(target), _rates(baseline))

    latencies = [load.p99_ms for load in durable]
    shares = [load.cpu_share * 100 for load in bare]
    return [
        figure("single durable actions against a typed Litestar handler that stores nothing", 1.0, typed),
        figure("single durable actions against a bare ASGI function that stores nothing", 0.5, bare),
        figure("single durable actions", 2000, []),
        Figure("actions", "p99 of the acknowledgement", "ms", latencies, Target(50, at_most=True)),
        Figure("actions", "what the generator uses of a core (bare ASGI)", "%", shares, Target(80, at_most=True)),
    ]


def _rates(loads: list[Throughput]) -> list[float]:
    return [load.rate for load in loads]
