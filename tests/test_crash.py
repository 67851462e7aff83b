"""What was acknowledged outlives the process, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.appliance import Appliance, Server
from tests.crash import Entry, Writer, report, run_kills
from tests.repeats import repeated


@repeated("kills", few=2, many=20, variable="KILLS")
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path, kills: int) -> None:
    with Appliance(tmp_path) as appliance:
        found = run_kills(appliance, rounds=kills, longest=0.5)
    assert found.acknowledged > 0
    assert found.faults == []


def test_a_store_that_only_remembers_is_found_out() -> None:
    with Server([sys.executable, "-m", "tests.forgetful"], dict(os.environ)) as forgetful:
        found = run_kills(forgetful, rounds=1, longest=0.5)
    assert found.acknowledged > 0
    assert len(found.lost) == found.acknowledged


def test_every_kind_of_fault_is_found() -> None:
    crew = [Writer("writer-0", "crash-0", {"kept": 1, "moved": 2, "gone": 3})]
    log = [Entry(1, "kept"), Entry(4, "moved"), Entry(5, "kept")]
    found = report(0, [], crew, {"crash-0": log})
    assert found.lost == ["gone was acknowledged and is not in crash-0"]
    assert found.repeated == ["kept is in the store 2 times"]
    assert found.misplaced == [
        "moved was acknowledged as 2 and is 4 in crash-0",
        "kept was acknowledged as 1 and is 5 in crash-0",
    ]
    assert found.gaps == ["crash-0 has seq 4 where 2 should be"]
