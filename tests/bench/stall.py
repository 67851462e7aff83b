"""`stall`: how long anybody waits beside one event that is made to keep the store busy."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.stalls import EVENTS, Wait, body_of, post, worst_wait

MOST, MOST_WORK = 100.0, 20.0
"""Milliseconds."""
IDLE_SECONDS = 0.2


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as server:
        waits = {name: [_wait_beside(server, name) for _ in range(rounds)] for name in EVENTS}
        idle = [worst_wait(server, lambda: time.sleep(IDLE_SECONDS)) for _ in range(rounds)]
    kinds = f"of {len(EVENTS)} kinds of event of up to 1 MiB the worst"
    return [
        _figure(f"longest wait for /health, {kinds}", waits, lambda wait: wait.seconds, MOST),
        _figure(f"work of the server meanwhile, {kinds}", waits, lambda wait: wait.work, MOST_WORK),
        _figure("longest wait for /health beside nothing", {"": idle}, lambda wait: wait.seconds, MOST),
    ]


def _figure(
    compared: str, waits: Mapping[str, Sequence[Wait]], of_wait: Callable[[Wait], float], most: float
) -> Figure:
    rounds = {name: [of_wait(wait) * 1000 for wait in of_event] for name, of_event in waits.items()}
    worst = max(rounds, key=lambda name: median(rounds[name]))
    return Figure(
        "stall", f"{compared} ({worst})" if worst else compared, "ms", rounds[worst], Target(most, at_most=True)
    )


def _wait_beside(server: Appliance, name: str) -> Wait:
    answers: list[int] = []
    wait = worst_wait(server, lambda: answers.append(post(server, "/api/actions/stall", body_of(name))))
    if answers[0] not in (200, 413):
        raise Unsound(f"{name}: answered {answers[0]}")
    return wait
