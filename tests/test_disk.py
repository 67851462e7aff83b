"""A disk that fills up: said before it happens, refused in words, read from all the while, healed by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.store.disk import Disk
from tests.appliance import Appliance
from tests.databases import Database
from tests.disks import fill, release, small_disk
from tests.peers import eventually
from tests.repeats import repeated

DISK_BYTES = 64 << 20
HEALED_SECONDS = 5.0
READS = (
    "/health",
    "/metrics",
    "/api/sessions",
    "/api/sessions/s",
    "/api/actions/s?limit=10",
    "/api/events?limit=10",
    "/api/query/stats",
    "/api/query/recent",
    "/api/query/search?q=needle",
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_BYTES) as path:
        yield path


class Agent:
    """Writes, and knows what was acknowledged."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.number = 0
        self.acknowledged: set[str] = set()

    def write(self, size: int = 5000) -> int:
        self.number += 1
        event_id = f"event-{self.number}"
        body = {"type": "x", "eventId": event_id, "text": "needle " + "x" * size}
        answer = self.client.post("/api/actions/s", json=body)
        if answer.status_code == 200:
            self.acknowledged.add(event_id)
        else:
            assert answer.status_code == 503, answer.text
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            assert "full" in answer.json()["detail"]
        return answer.status_code

    def write_until(self, status: int, within: float) -> None:
        eventually(lambda: self.write() == status, within)


@contextmanager
def served(disk: Path, **environment: str) -> Iterator[tuple[Appliance, Agent]]:
    with (
        Appliance(disk / "sessions", environment) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield server, Agent(client)
    assert "Traceback" not in server.output


def stored(disk: Path) -> list[str]:
    database = Database(disk / "sessions" / "sessions.db")
    try:
        assert database.value("PRAGMA integrity_check") == "ok"
        return [event_id for (event_id,) in database.rows("SELECT event_id FROM events WHERE type = 'action'")]
    finally:
        database.close()


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"sessionstore_{name}"))


def is_read(client: httpx.Client) -> bool:
    return [path for path in READS if client.get(path).status_code != 200] == []


@repeated("rounds", many=20, variable="DISK_ROUNDS")
def test_however_often_full_it_loses_nothing_is_read_all_the_while_and_heals_within_seconds(
    disk: Path, rounds: int
) -> None:
    with served(disk) as (server, agent):
        client = agent.client
        agent.write()
        for _ in range(rounds):
            fill(disk, left=2 << 20)
            agent.write_until(503, within=20)
            assert is_read(client)
            fill(disk, left=0)
            assert {agent.write() for _ in range(5)} == {503}
            assert is_read(client)
            assert client.get("/ready").status_code == 503
            assert metric(client, "ready") == 0
            release(disk)
            agent.write_until(200, within=HEALED_SECONDS)
            assert client.get("/ready").status_code == 200
        assert server.running and server.stop().code == 0
    found = stored(disk)
    assert len(found) == len(set(found))
    assert set(found) >= agent.acknowledged and len(agent.acknowledged) > rounds


def test_without_a_reserve_a_full_disk_is_found_by_writing_and_heals_too(disk: Path) -> None:
    with served(disk, SESSIONS_DISK_RESERVE="0", SESSIONS_TREE="off") as (_, agent):
        agent.write()
        for _ in range(2):
            fill(disk, left=1 << 20)
            agent.write_until(503, within=20)
            assert is_read(agent.client)
            eventually(lambda: metric(agent.client, "disk_free_bytes") < 1 << 20)
            release(disk)
            agent.write_until(200, within=HEALED_SECONDS)
        assert metric(agent.client, "commit_failures_total") > 0, "with a reserve no commit would have failed"
    assert set(stored(disk)) >= agent.acknowledged


def test_a_disk_that_is_getting_full_is_said_while_writes_are_still_taken(disk: Path) -> None:
    with served(disk) as (server, agent):
        assert agent.client.get("/ready").json()["checks"]["disk"] == "pass"
        fill(disk, left=5 << 20)
        eventually(lambda: agent.client.get("/health").json()["disk"]["status"] == "low")
        assert agent.client.get("/ready").json()["checks"]["disk"] == "warn"
        assert agent.write() == 200
        assert server.said("The disk is getting full: ")
        fill(disk, left=1 << 20)
        eventually(lambda: agent.client.get("/ready").status_code == 503)
        assert "SESSIONS_RETENTION_BYTES" in agent.client.get("/ready").json()["detail"]
        assert agent.client.get("/health").json()["checks"]["disk"] == "fail"
        assert server.said("The disk is full: ")


def test_what_makes_room_is_let_in_while_all_else_is_refused(disk: Path) -> None:
    with served(disk) as (_, agent):
        agent.write()
        fill(disk, left=1 << 20)
        eventually(lambda: agent.client.get("/ready").status_code == 503)
        assert agent.write() == 503
        assert agent.client.patch("/api/state/s", json={"phase": "x"}).status_code == 503
        lines = b'{"type":"action","sessionId":"s","data":{"type":"x"}}\n'
        headers = {"content-type": "application/x-ndjson"}
        assert agent.client.post("/api/events", content=lines, headers=headers).status_code == 503
        assert agent.client.delete("/api/sessions/s").status_code == 200
        assert agent.client.get("/api/sessions/s").status_code == 404


def test_a_server_starts_on_a_disk_that_is_full_and_answers_what_is_asked(disk: Path) -> None:
    with served(disk) as (server, agent):
        agent.write()
        server.stop()
        fill(disk, left=1 << 20)
        server.start()
        assert is_read(agent.client)
        assert agent.write() == 503
        release(disk)
        agent.write_until(200, within=HEALED_SECONDS)


def test_a_disk_that_can_take_no_more_files_is_full_before_it_is(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", disk], check=True)
        with served(disk) as (server, agent):
            assert agent.write() == 200
            found = agent.client.get("/health").json()["disk"]
            assert found["totalFiles"] == metric(agent.client, "disk_total_inodes") == 1000
            for number in range(found["freeFiles"] - 60):
                (disk / f"file-{number}").touch()
            eventually(lambda: agent.client.get("/ready").json()["checks"]["disk"] == "warn")
            assert agent.write() == 200 and server.said("files (inodes)")
            with suppress(OSError):
                for number in range(50):
                    (disk / f"more-{number}").touch()
            agent.write_until(503, within=20)
            assert "inodes" in agent.client.get("/ready").json()["detail"]
            for path in disk.glob("*-*"):
                path.unlink()
            agent.write_until(200, within=HEALED_SECONDS)


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [
        (1 << 40, 2 << 30, "ok"),
        (1 << 40, 1 << 29, "low"),
        (1 << 40, 65 << 20, "low"),
        (1 << 40, 63 << 20, "full"),
        (64 << 20, 7 << 20, "ok"),
        (64 << 20, 2 << 20, "low"),
        (64 << 20, 1 << 20, "full"),
        (0, 0, "ok"),
    ],
)
def test_what_is_kept_in_reserve_goes_by_the_size_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, total: int, free: int, status: str
) -> None:
    disk = said_to_be(monkeypatch, tmp_path, total, free)
    disk.look()
    assert (disk.status, disk.is_full) == (status, status == "full")


def test_what_is_full_is_not_taken_for_healed_by_a_little_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses: list[Any] = []
    for free in (63, 65, 71, 73, 200):
        disk = said_to_be(monkeypatch, tmp_path, 1 << 40, free << 20)
        disk.note(statuses[-1] if statuses else "ok")
        disk.look()
        statuses.append(disk.status)
    assert statuses == ["full", "full", "full", "low", "low"]


def said_to_be(monkeypatch: pytest.MonkeyPatch, path: Path, total: int, free: int) -> Disk:
    class Said:
        f_frsize = 1
        f_files = f_favail = 0
        f_blocks = total
        f_bavail = free

    said: Any = Said()
    monkeypatch.setattr(os, "statvfs", lambda _: said)
    return Disk(path)
