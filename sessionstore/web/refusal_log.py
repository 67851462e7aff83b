"""Rate limit of the log lines about refusals, by reason and address: nobody floods the log."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable

from sessionstore.settings import plain_address

REMEMBERED = 4096
TOLD, TOLD_AGAIN = 10, 60.0
"""How many refusals of one kind and address the log tells, and after how many seconds again."""


class RefusalCount:
    """The refusals of one kind and address: since when, how many, and how many of them were not told."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.number = 0
        self.untold = 0


class RefusalLog:
    """Which refusals the log tells."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.of: dict[tuple[str, str], RefusalCount] = {}

    def count(self, reason: str, address: str) -> int | None:
        """None: do not tell it. Else how many there were of it that were not told."""
        name, now = (reason, network_of(address)), self.clock()
        of = self.of.pop(name, None) or RefusalCount(now)
        self.of[name] = of
        if len(self.of) > REMEMBERED:
            del self.of[next(iter(self.of))]
        if now >= of.since + TOLD_AGAIN:
            of.since, of.number = now, 0
        of.number += 1
        if of.number > TOLD:
            of.untold += 1
            return None
        more, of.untold = of.untold, 0
        return more


def network_of(address: str) -> str:
    """The address; of IPv6 the /64 that one subscriber has."""
    try:
        known = plain_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((known, 64), strict=False)) if known.version == 6 else str(known)
