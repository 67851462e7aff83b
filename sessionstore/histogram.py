"""How something is distributed, counted into a few buckets: cheap, since some of it is counted with every request."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""As OpenTelemetry's conventions for HTTP have them."""
NUMBERS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class Histogram:
    """Noted by one thread; read by any, which may then miss the newest."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each upper bound, as Prometheus writes it, and how many were at or below it."""
        total = 0
        for bound, number in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += number
            yield "+Inf" if bound == float("inf") else f"{bound:g}", total
