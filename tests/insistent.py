"""Clients that go on whatever the server answers, and remember what that was."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests import crash
from tests.wire import HttpClient, connect, http_request

PAUSE_SECONDS = 0.01
"""After a write was refused."""


@dataclass
class Insistent(crash.Writer):
    """Sends again what was refused, until it is told to stop."""

    statuses: Counter[int] = field(default_factory=Counter)

    async def insist(self, port: int, until: float) -> None:
        client = await connect(port, HttpClient)
        while time.monotonic() < until:
            event_id = f"{self.name}-{len(self.acknowledged) + 1}"
            answer = await client.ask(crash.action(self.session, event_id))
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.acknowledged[event_id] = crash.acknowledged_seq(answer)
            else:
                await asyncio.sleep(PAUSE_SECONDS)
        client.close()


@dataclass
class Reader:
    """Reads the same page again and again."""

    path: str
    statuses: Counter[int] = field(default_factory=Counter)

    async def insist(self, port: int, until: float) -> None:
        client = await connect(port, HttpClient)
        while time.monotonic() < until:
            self.statuses[(await client.ask(http_request("GET", self.path))).status] += 1
        client.close()


async def load(port: int, clients: Sequence[Insistent | Reader], seconds: float) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(*(client.insist(port, until) for client in clients))
