"""The connections: how many there may be, of one address and in all, and which one goes where there are too many."""

from __future__ import annotations

import resource
from collections.abc import MutableMapping
from enum import IntEnum
from itertools import islice
from operator import itemgetter
from typing import Protocol

from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.web.forwarded import is_trusted

MAX_DESCRIPTORS = 1 << 16
RESERVED_DESCRIPTORS = 128
"""For the database, the tree, backups and archives."""
CANDIDATES = 64
"""How many are looked at when one has to go: in a flood this is done for each that comes."""


class Rest(IntEnum):
    """Kinds of doing nothing; the first is missed least."""

    MUTE = 1
    """It has brought no request, though it had the time."""
    UNKNOWN = 2
    """It has brought a part of one, of somebody who is not known."""
    BETWEEN = 3
    """It has brought one, and may bring another."""
    NEW = 4
    """It had no time yet."""


class Connection(Protocol):
    """What of uvicorn's protocols matters here."""

    client: tuple[str, int] | None

    @property
    def rest(self) -> Rest | None:
        """How it rests; None: a request is on its way, or an answer is owed."""

    def let_go(self) -> None:
        """Close it, without a word: on a connection at rest the peer would take it for the next answer."""


def take_descriptors() -> int:
    """As many as the system lets this process have, within reason; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class ConnectionTable:
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
            return self.make_room(
                connection, address, Problem(429, "Too many connections from this address", headers=SOON)
            )
        if self.number > self.most:
            most = max(self.of, key=lambda name: len(self.of[name]))
            return self.make_room(connection, most, Problem(503, "Too many connections", headers=SOON))
        return None

    def make_room(self, newcomer: Connection, address: str, otherwise: Problem) -> Problem | None:
        """Let one of this address go that does nothing: of the oldest, one that is missed least. Else the newcomer."""
        others = (connection for connection in self.of[address] if connection is not newcomer)
        resting = ((rest, connection) for connection in others if (rest := connection.rest) is not None)
        _, idle = min(islice(resting, CANDIDATES), key=itemgetter(0), default=(None, None))
        if idle is None:
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
