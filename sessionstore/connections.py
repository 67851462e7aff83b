"""The connections: how many there may be, of one address and in all, and which one goes where there are too many."""

from __future__ import annotations

import resource
from collections.abc import MutableMapping
from typing import Protocol

from .access import is_trusted
from .problems import Problem
from .settings import Settings

MAX_DESCRIPTORS = 1 << 16
RESERVED_DESCRIPTORS = 128
"""For the database, the tree, backups and archives."""


class Connection(Protocol):
    """What of uvicorn's protocols matters here."""

    client: tuple[str, int] | None

    @property
    def may_go(self) -> bool:
        """Whether nobody would miss it: no request is on its way, no answer is owed."""

    def let_go(self) -> None:
        """Close it, without a word: on a connection at rest the peer would take it for the next answer."""


def take_descriptors() -> int:
    """As many as the system lets this process have, within reason; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class Connections:
    """All that are open, by address, the oldest first."""

    def __init__(self, settings: Settings, refused: MutableMapping[str, int]) -> None:
        self.settings = settings
        self.refused = refused
        """Counts, by reason, for the metrics."""
        descriptors = take_descriptors()
        self.most = descriptors - min(RESERVED_DESCRIPTORS, descriptors // 2)
        self.number = 0
        self.of: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: Connection) -> Problem | None:
        """Make room for it; why it has to go, if there is none."""
        address = address_of(connection)
        self.of.setdefault(address, {})[connection] = None
        self.number += 1
        if len(self.of[address]) > self.settings.max_connections and not is_trusted(address, self.settings):
            return self.make_room(address, Problem(429, "Too many connections from this address", headers=SOON))
        if self.number > self.most:
            most = max(self.of, key=lambda name: len(self.of[name]))
            return self.make_room(most, Problem(503, "Too many connections", headers=SOON))
        return None

    def make_room(self, address: str, otherwise: Problem) -> Problem | None:
        """Let the one go that has been at rest since the earliest; else the newcomer, who is the last."""
        *earlier, _ = self.of[address]
        if (idle := next((connection for connection in earlier if connection.may_go), None)) is None:
            self.refused["connections"] += 1
            return otherwise
        self.refused["idle"] += 1
        self.leave(idle)
        idle.let_go()
        return None

    def leave(self, connection: Connection) -> None:
        """It is closed, or about to be."""
        address = address_of(connection)
        if connection in (those := self.of.get(address, {})):
            del those[connection]
            self.number -= 1
            if not those:
                del self.of[address]

    def replace(self, connection: Connection, successor: Connection) -> None:
        """What was HTTP is a WebSocket now."""
        self.leave(connection)
        self.of.setdefault(address_of(successor), {})[successor] = None
        self.number += 1


SOON = {"retry-after": "1"}


def address_of(connection: Connection) -> str:
    return connection.client[0] if connection.client else ""
