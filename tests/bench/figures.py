"""A figure is a median over rounds, alone or against a baseline, and the target it has to reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


class Unsound(Exception):
    """What was measured did not do its work, so that its timing means nothing."""


@dataclass(frozen=True)
class Target:
    """Holds for the ratio where there is a baseline, for the figure itself where there is none."""

    limit: float
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:,g}"

    def reached(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Figure:
    name: str
    compared: str
    unit: str
    rounds: Sequence[float]
    target: Target
    baseline: Sequence[float] = ()

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def ratio(self) -> float | None:
        return self.median / median(self.baseline) if self.baseline else None

    @property
    def reached(self) -> bool:
        return self.target.reached(self.median if self.ratio is None else self.ratio)


def table(figures: Iterable[Figure]) -> str:
    return rows_of(("figure", "what is compared", "median", "ratio", "target", "reached"), map(_row, figures))


def rows_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _row(figure: Figure) -> tuple[str, ...]:
    medians = number_of(figure.median)
    if figure.baseline:
        medians += f" against {number_of(median(figure.baseline))}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    reached = "yes" if figure.reached else "no"
    return figure.name, figure.compared, f"{medians} {figure.unit}".strip(), ratio, str(figure.target), reached


def raw_numbers(figure: Figure) -> str:
    lines = [f"{figure.name}, {figure.compared}: {' '.join(map(number_of, figure.rounds))}"]
    if figure.baseline:
        lines.append(f"    what it is compared with: {' '.join(map(number_of, figure.baseline))}")
    return "\n".join(lines)


def number_of(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
