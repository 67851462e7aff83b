"""A mixed load goes on for long while everything that can go wrong does, at random; then all is as it should be."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests import crash
from tests.appliance import Appliance
from tests.commands import export, is_done
from tests.insistent import Insistent, Reader
from tests.peers import dial, eventually, reset, resident_bytes, sockets_of
from tests.repeats import repeated
from tests.test_disk_faults import injection, tree_is_level
from tests.tracing import failing
from tests.wire import NDJSON, HttpClient, connect, http_request

MINUTES = float(os.environ.get("SOAK_MINUTES", 0.4))
SESSIONS = 4
WRITERS = 8
READS = (
    "/api/actions/soak-0?limit=100&order=desc",
    "/api/query/search?q=needle",
    "/api/query/stats",
    "/api/sessions/soak-1?limit=500",
    "/datasette/sessions/events.json?_size=100",
)
MOST_LOG_BYTES = 256 << 20
MOST_GROWTH = 64 << 20
"""Of the server's memory in the second half: what caches take, and no more however long it lasts."""
MOST_UNHEARD = 10_000
"""How far a listener may be behind at the end."""


class Soak:
    """A server, its clients, and a bad spirit."""

    def __init__(self, server: Appliance, seconds: float, seed: int = 0) -> None:
        self.server = server
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.writers = [Insistent(f"w-{n}", f"soak-{n % SESSIONS}") for n in range(WRITERS)]
        self.readers = [Reader(path) for path in READS]
        self.batch_statuses: Counter[int] = Counter()
        self.heard: list[int] = []
        """Cursors in the order in which a listener was told of them."""
        self.faults: Counter[str] = Counter()
        self.memory: list[int] = []
        self.largest_log = 0
        self.end = 0.0

    @property
    def clients(self) -> list[Insistent | Reader]:
        return [*self.writers, *self.readers]

    async def run(self) -> None:
        begun = time.monotonic()
        self.end = begun + self.seconds
        works = [self.keep_on(client.insist) for client in self.clients]
        works += [self.keep_on(client) for client in (self.batches, self.listen)]
        await asyncio.gather(*works, self.spirit(begun + self.seconds / 2), self.watch(begun + self.seconds / 2))

    # ------------------------------------------------------------------ clients

    async def keep_on(self, client: Callable[[int, float], Coroutine[Any, Any, None]]) -> None:
        """Also when the server goes away."""
        while time.monotonic() < self.end:
            with suppress(OSError, websockets.WebSocketException):
                await client(self.server.port, self.end)
            await asyncio.sleep(0.05)

    async def batches(self, port: int, until: float) -> None:
        """Many events of sessions that come and go."""
        client = await connect(port, HttpClient)
        while time.monotonic() < until:
            session = f"passing-{self.chance.randrange(50)}"
            line = b'{"type":"response","sessionId":"%b","data":{"type":"x","text":"a needle"}}\n' % session.encode()
            self.batch_statuses[(await client.ask(http_request("POST", "/api/events", line * 50, NDJSON))).status] += 1
            if self.chance.random() < 0.1:
                await client.ask(http_request("DELETE", f"/api/sessions/{session}"))
            await asyncio.sleep(0.05)
        client.close()

    async def listen(self, port: int, until: float) -> None:
        after = self.heard[-1] if self.heard else 0
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws?after={after}") as connection:
            with suppress(TimeoutError):
                async with asyncio.timeout(until - time.monotonic()):
                    async for message in connection:
                        if '"cursor"' in str(message)[:12]:
                            self.heard.append(int(str(message)[10:].partition(",")[0]))

    # ------------------------------------------------------------------- faults

    async def spirit(self, half: float) -> None:
        """In the second half the process stays the same, so that it can be seen whether it grows."""
        lasting = (self.disk, self.pin, self.lock, self.crowd, self.pause)
        begun: list[Callable[[], None]] = [self.kill, self.stop]
        while (now := time.monotonic()) < self.end:
            fault = (
                begun.pop()
                if begun
                else self.chance.choice(lasting if now > half else (*lasting, self.kill, self.stop))
            )
            self.faults[fault.__name__] += 1
            await asyncio.to_thread(fault)
            await asyncio.sleep(self.chance.uniform(0.2, 1.0))

    def disk(self) -> None:
        with failing(self.server.process.pid, injection(self.chance)):
            time.sleep(0.3)

    def pin(self) -> None:
        """Another program reads one state for a while."""
        with closing(sqlite3.connect(self.server.folder / "sessions.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sessions").fetchone()
            time.sleep(1.0)

    def lock(self) -> None:
        """Another program writes, and takes its time."""
        with closing(sqlite3.connect(self.server.folder / "sessions.db", isolation_level=None, timeout=10)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE progress SET searched = searched")
            time.sleep(0.3)
            writer.execute("COMMIT")

    def crowd(self) -> None:
        """Many who come, say half a word, and are gone."""
        with ExitStack() as peers:
            for _ in range(100):
                peer = peers.enter_context(dial(self.server.port))
                peer.sendall(b"POST /api/actions/soak-0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
                if self.chance.random() < 0.5:
                    reset(peer)

    def pause(self) -> None:
        """The whole machine stands still, as far as the server can tell."""
        self.server.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        self.server.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.server.kill()
        self.server.start(until="/ready")

    def stop(self) -> None:
        assert self.server.stop().code == 0
        self.server.start(until="/ready")

    # -------------------------------------------------------------------- watch

    async def watch(self, half: float) -> None:
        log = self.server.folder / "sessions.db-wal"
        while time.monotonic() < self.end:
            with suppress(FileNotFoundError):
                self.largest_log = max(self.largest_log, log.stat().st_size)
            if time.monotonic() > half:
                self.memory.append(resident_bytes(self.server.process.pid))
            await asyncio.sleep(0.2)

    def growth(self) -> int:
        """Of the memory, from the first quarter of what was seen of it to the last."""
        quarter = max(1, len(self.memory) // 4)
        return max(self.memory[-quarter:]) - max(self.memory[:quarter])

    def told(self) -> str:
        acknowledged = sum(len(writer.acknowledged) for writer in self.writers)
        return (
            f"{self.seconds:.0f} s: {acknowledged:,} writes acknowledged, {len(self.heard):,} events heard, "
            f"faults: {dict(self.faults)}, log at most {self.largest_log >> 20} MiB, "
            f"memory {self.memory[-1] >> 20} MiB, grown by {self.growth() >> 20} MiB"
        )


@pytest.mark.timeout(180 + 120 * MINUTES)
@repeated("minutes", many=MINUTES, variable="SOAK_MINUTES")
def test_a_mixed_load_with_everything_going_wrong(tmp_path: Path, minutes: float) -> None:
    with Appliance(tmp_path) as server:
        for number in range(SESSIONS):
            httpx.post(f"{server.url}/api/actions/soak-{number}/responses", json={"type": "x"})
        httpx.get(f"{server.url}/datasette/", timeout=60)  # its process stays
        sockets = sockets_of(server.process.pid)
        asyncio.run((soak := Soak(server, 60 * minutes)).run())
        print(soak.told())
        eventually(lambda: sockets_of(server.process.pid) <= sockets)
        eventually(lambda: httpx.get(f"{server.url}/ready").status_code == 200, 5.0)
        eventually(lambda: tree_is_level(server), 60.0)
        logs = asyncio.run(crash.action_logs(server.port, sorted({writer.session for writer in soak.writers})))
        head = httpx.get(f"{server.url}/health").json()["cursor"]
        assert server.stop().code == 0
        assert "Traceback" not in server.output
    assert crash.report(0, [], soak.writers, logs).faults == []
    assert set(soak.batch_statuses) <= {200, 503}
    assert {status for client in soak.clients for status in client.statuses} <= {200, 503}
    assert soak.largest_log < MOST_LOG_BYTES
    assert soak.growth() < MOST_GROWTH
    assert soak.heard == sorted(set(soak.heard)) and soak.heard[-1] > head - MOST_UNHEARD
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        stored = {cursor for (cursor,) in connection.execute("SELECT cursor FROM events") if cursor <= soak.heard[-1]}
        assert stored - set(soak.heard) == set()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert is_done(export(tmp_path, "verify", "--full"))
