"""`kill`: what 50 kills under eight writers leave behind, and how soon the store is back."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.appliance import Appliance
from tests.bench.figures import Figure, Target
from tests.crash import run_kills

WRITERS = 8


def measure(kills: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance:
        report = run_kills(appliance, kills, WRITERS)
    acknowledged = f"of {report.acknowledged:,} acknowledged under {WRITERS} writers, in {kills} kills"
    none, soon = Target(0, at_most=True), Target(2, at_most=True)
    return [
        Figure("kill", f"lost, {acknowledged}", "", [len(report.lost)], none),
        Figure("kill", f"written twice, {acknowledged}", "", [len(report.repeated)], none),
        Figure("kill", f"at another seq than acknowledged, {acknowledged}", "", [len(report.misplaced)], none),
        Figure("kill", "logs with a gap in seq", "", [len(report.gaps)], none),
        Figure("kill", "from exec to ready after a kill", "s", report.restarts, soon),
        Figure("kill", "from exec to ready after a kill, the slowest", "s", [max(report.restarts)], soon),
    ]
