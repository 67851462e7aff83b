"""`timing`: whether how long a wrong token takes tells how much of it was right."""

from __future__ import annotations

import random
import secrets
import tempfile
import time
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

from sessionstore.settings import Settings
from sessionstore.web.tokens import Tokens
from tests.bench.figures import Figure, Target

PAIRS = 100_000
KEPT = 0.95
"""Of the times, the shortest: what takes longest is this machine's doing."""
TOKEN = secrets.token_urlsafe(24)
MOST_T = 4.5
"""Beyond it, the two differ: the bound that is usual for such tests of leaks."""


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        tokens = Tokens(Settings(directory=Path(folder), admin_token=TOKEN))
        tokens.prepare()
        ours = [welch_t(tokens.holder, seed) for seed in range(rounds)]
    control = [welch_t(is_right_letter_by_letter, seed) for seed in range(rounds)]
    compared = f"Welch's t, without its sign, of {PAIRS:,} pairs of wrong tokens, one nearly right"
    return [
        Figure("timing", compared, "", ours, Target(MOST_T, at_most=True)),
        Figure("timing", "the same where letters are compared one by one (the control)", "", control, Target(MOST_T)),
    ]


def is_right_letter_by_letter(token: str) -> bool:
    return all(one == other for one, other in zip(token, TOKEN, strict=True))


def welch_t(look_up: Callable[[str], object], seed: int) -> float:
    """Of Welch's test, without its sign: how surely the two kinds take different times."""
    chance = random.Random(seed)
    near, far = TOKEN[:-1] + "!", "!" + TOKEN[1:]
    took: dict[str, list[int]] = {near: [], far: []}
    for _ in range(PAIRS):
        for token in chance.sample((near, far), 2):
            begun = time.perf_counter_ns()
            look_up(token)
            took[token].append(time.perf_counter_ns() - begun)
    one, other = (sorted(times)[: int(PAIRS * KEPT)] for times in took.values())
    return abs(fmean(one) - fmean(other)) / sqrt(variance(one) / len(one) + variance(other) / len(other))
