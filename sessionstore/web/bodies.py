"""The bodies of requests under way: how many bytes they may hold, in all and of one caller."""

from __future__ import annotations

from collections.abc import Hashable

from sessionstore.model.problems import unavailable

MAX_BYTES = 128 << 20
SHARE = 4
"""One caller may have so great a part of them."""
PIECE = 1 << 20
"""More than comes at once: so much of a body is taken beyond what it may have, before it is found too large."""


class Bodies:
    """Counts what has come of every request that is not answered yet."""

    def __init__(self, largest: int) -> None:
        """`largest`: what a single one may have in any case."""
        self.most = max(MAX_BYTES, largest)
        self.most_of_one = max(MAX_BYTES // SHARE, largest + PIECE)
        self.bytes = 0
        self.of: dict[Hashable, int] = {}

    def has_room(self, who: Hashable, size: int) -> bool:
        return self.bytes + size <= self.most and self.of.get(who, 0) + size <= self.most_of_one

    def count(self, who: Hashable, size: int) -> None:
        self.bytes += size
        held = self.of.pop(who, 0) + size
        if held:
            self.of[who] = held


class BodyUnderWay:
    """One of them."""

    def __init__(self, bodies: Bodies, who: Hashable) -> None:
        self.bodies = bodies
        self.who = who
        self.size = 0

    def grow(self, size: int) -> None:
        """Raises Problem 503 where it must not."""
        if not self.bodies.has_room(self.who, size):
            raise unavailable("Too much is being sent at the same time: come back in a moment")
        self.hold(size)

    def hold(self, size: int) -> None:
        """What there is room for."""
        self.bodies.count(self.who, size)
        self.size += size

    def let_go(self, size: int | None = None) -> None:
        """So much of it, or all, is held no longer."""
        size = self.size if size is None else min(size, self.size)
        if size:
            self.bodies.count(self.who, -size)
            self.size -= size
