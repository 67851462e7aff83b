"""What is refused, counted by the address that tries it: nobody tries many wrong tokens, and nobody floods the log."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from sessionstore.settings import plain_address
from sessionstore.web.tokens import digest

REPEATED = 0.1
"""What a wrong token counts that the address has tried before: that is no guessing, but a container that has not heard
of the new token yet."""
REMEMBERED_TOKENS = 32
REMEMBERED_ADDRESSES = 4096
TOLD, TOLD_AGAIN = 10, 60.0
"""How many refusals of one kind and address the log tells, and after how many seconds again."""


class Verdict(NamedTuple):
    """What is to be done about a wrong token."""

    wait: int
    """Seconds for which the address must not try again; 0: it has not tried too often."""
    is_news: bool
    """Whether the log should tell."""


class Attempts:
    """What one address has tried: a level that rises with each wrong token, and sinks as time passes."""

    def __init__(self) -> None:
        self.level = 0.0
        self.at = 0.0
        self.tried: dict[bytes, None] = {}
        """Digests of its last wrong tokens."""
        self.was_told = False
        """Whether the log has that it tries too many."""

    def is_new(self, tried: str) -> bool:
        key = digest(tried)
        is_new = key not in self.tried
        self.tried[key] = None
        if len(self.tried) > REMEMBERED_TOKENS:
            del self.tried[next(iter(self.tried))]
        return is_new


class Failures:
    """The attempts of every address."""

    def __init__(self, allowed: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.allowed = math.inf if allowed is None else allowed
        """In a minute, of one address."""
        self.clock = clock
        self.attempts: dict[str, Attempts] = {}

    def note(self, address: str, tried: str, *, is_log_in: bool = False) -> Verdict:
        """Count one. A log-in counts whole whatever it tries: a person sends it, or somebody who plays one."""
        of, a_second = self.attempts_of(address), self.allowed / 60
        now = self.clock()
        of.level = max(0.0, of.level - (now - of.at) * a_second) if now > of.at else of.level
        of.at = now
        is_new = of.is_new(tried)
        if of.level + 1 > self.allowed:
            is_news, of.was_told = not of.was_told, True
            return Verdict(math.ceil((of.level + 1 - self.allowed) / a_second), is_news)
        of.level += 1 if is_new or is_log_in else REPEATED
        of.was_told = False
        return Verdict(0, is_new)

    def attempts_of(self, address: str) -> Attempts:
        """Those of its neighbourhood; of the addresses that have been quiet longest nothing is known any more."""
        name = neighbourhood(address)
        found = self.attempts.pop(name, None) or Attempts()
        self.attempts[name] = found
        if len(self.attempts) > REMEMBERED_ADDRESSES:
            del self.attempts[next(iter(self.attempts))]
        return found


class Telling:
    """The refusals of one kind and address: since when, how many, and how many of them were not told."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.number = 0
        self.untold = 0


class Tellings:
    """Which refusals the log tells."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.of: dict[tuple[str, str], Telling] = {}

    def note(self, reason: str, address: str) -> int | None:
        """None: do not tell it. Else how many there were of it that were not told."""
        name, now = (reason, neighbourhood(address)), self.clock()
        of = self.of.pop(name, None) or Telling(now)
        self.of[name] = of
        if len(self.of) > REMEMBERED_ADDRESSES:
            del self.of[next(iter(self.of))]
        if now >= of.since + TOLD_AGAIN:
            of.since, of.number = now, 0
        of.number += 1
        if of.number > TOLD:
            of.untold += 1
            return None
        more, of.untold = of.untold, 0
        return more


def neighbourhood(address: str) -> str:
    """The address; of IPv6 the /64 that one subscriber has."""
    try:
        known = plain_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((known, 64), strict=False)) if known.version == 6 else str(known)
