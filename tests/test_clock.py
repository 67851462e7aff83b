"""The clock may be set to anything at any time: order is by cursor, and nothing is lost or deleted for it."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx

from tests import crash
from tests.appliance import Appliance
from tests.insistent import Insistent, load
from tests.peers import eventually
from tests.repeats import repeated
from tests.tracing import tool

JUMP_SECONDS = 0.1
FIRST_JUMPS = ("-1d", "+10y", "+0")
RETENTION_DAYS = 30
DAY = 86_400
YEAR = 365 * DAY
"""Up to which a jump goes, to either side."""
LOST_AFTER = 3.0
READS = (
    "/api/query/stats",
    "/api/query/summary",
    "/api/query/recent",
    "/api/query/active",
    "/api/sessions",
    "/api/events",
    "/metrics",
    "/health",
)


def environment(**clock: str) -> dict[str, str]:
    """Of a server with another clock than this machine's, in the words of libfaketime."""
    library = next(Path(tool("faketime")).resolve().parent.parent.glob("lib/**/faketime/libfaketimeMT.so.1"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "SESSIONS_RETENTION_DAYS": str(RETENTION_DAYS),
        "SESSIONS_LOST_AFTER": str(LOST_AFTER),
        **clock,
    }


class Clock:
    """Of a running server, which asks it each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = environment(FAKETIME_TIMESTAMP_FILE=str(path), FAKETIME_NO_CACHE="1")
        self.set("+0")

    def set(self, offset: str) -> None:
        """`-1d`, `+10y`, `+30` seconds. At once: what is read is never half of it."""
        part = self.path.with_suffix(".part")
        part.write_text(offset)
        part.rename(self.path)


def call(server: Appliance, method: str, path: str, body: object = None) -> Any:
    answer = httpx.request(method, server.url + path, json=body)
    assert answer.is_success, answer.text
    return answer


def end(server: Appliance, session_id: str) -> None:
    call(server, "POST", f"/api/actions/{session_id}", {"type": "x"})
    call(server, "POST", f"/api/sessions/{session_id}/finalize", {})


def sessions(server: Appliance) -> set[str]:
    return {item["sessionId"] for item in call(server, "GET", "/api/sessions?limit=500").json()["items"]}


def times_and_types(server: Appliance) -> tuple[list[str], set[str]]:
    """Of all events that are there now, in the order of their cursors, which have no gap."""
    head = call(server, "GET", "/health").json()["cursor"]
    events: list[dict[str, Any]] = []
    while len(events) < head:  # reading them may take so long that somebody is lost meanwhile
        events += call(server, "GET", f"/api/events?limit=1000&after={len(events)}").json()["items"]
    del events[head:]
    assert [event["cursor"] for event in events] == list(range(1, head + 1))
    return [event["receivedAt"] for event in events], {event["type"] for event in events}


@repeated("jumps", many=20, variable="CLOCK_JUMPS")
def test_a_clock_that_jumps_about_changes_no_order_and_deletes_nothing(tmp_path: Path, jumps: int) -> None:
    chance = random.Random(0)
    clock = Clock(tmp_path / "offset")
    writers = [Insistent(f"w-{number}", f"timed-{number % 2}") for number in range(4)]
    with Appliance(tmp_path / "sessions", clock.environment) as server:
        end(server, "ended")
        for jump in (*FIRST_JUMPS, *(f"{chance.randint(-YEAR, 10 * YEAR):+d}" for _ in range(jumps))):
            clock.set(jump)
            asyncio.run(load(server.port, writers, JUMP_SECONDS))
            call(server, "GET", chance.choice(READS))
        clock.set("+10y")
        looked = time.monotonic() + 2 * LOST_AFTER
        while time.monotonic() < looked:  # meanwhile the store looks for what is lost or old
            asyncio.run(load(server.port, writers, JUMP_SECONDS))
        times, types = times_and_types(server)
        assert times != sorted(times), "the clock did jump"
        assert types == {"session_created", "session_finalized", "action"}, "nobody is lost who speaks"
        assert sessions(server) == {"ended", "timed-0", "timed-1"}
        logs = asyncio.run(crash.action_logs(server.port, sorted({writer.session for writer in writers})))
        eventually(lambda: "session_lost" in times_and_types(server)[1])  # now that they are silent
        assert server.stop().code == 0
        assert "Traceback" not in server.output
    assert {status for writer in writers for status in writer.statuses} == {200}
    assert crash.report(0, [], writers, logs).faults == []


def test_what_is_old_by_a_clock_that_goes_right_is_deleted(tmp_path: Path) -> None:
    """So that the jumps could have deleted something."""
    with Appliance(tmp_path / "sessions", environment(FAKETIME=f"-{RETENTION_DAYS + 1}d")) as server:
        end(server, "old")
    with Appliance(tmp_path / "sessions", environment(FAKETIME="+0")) as server:
        end(server, "new")
        eventually(lambda: sessions(server) == {"new"})
