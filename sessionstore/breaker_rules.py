"""Circuit breaker: when an agent that goes wrong is asked about, paused or stopped. The file that SESSIONS_RULES names.

[[rules]]
name = "circles"         # its orders are by `rule:circles`
sameCallTimes = 5        # one after the other; or noProgressMinutes = 10; or errorRate = 0.8, of the last 20 calls
project = "web"          # or user, tag; none of them: everybody
then = "ask"             # or pause, stop
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sessionstore.budget_rules import Name, Named, named_tables


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """What must not happen, to whom, and what is done then."""

    name: Name
    same_call_times: Annotated[int, msgspec.Meta(ge=2, le=1000)] | None = None
    """An agent makes the same call so many times, one after the other."""
    no_progress_minutes: Annotated[float, msgspec.Meta(ge=0.01, le=525_600)] | None = None
    """An active session of which nothing was heard for so long."""
    error_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Of an agent's last calls so many have failed."""
    of_calls: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 20
    user: Named | None = None
    project: Named | None = None
    tag: Named | None = None
    then: Literal["ask", "pause", "stop"] = "ask"

    def __post_init__(self) -> None:
        kinds = (self.same_call_times, self.no_progress_minutes, self.error_rate)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("sameCallTimes, noProgressMinutes, errorRate: one of them, and not more")


def rules(text: str) -> tuple[Rule, ...]:
    """Those of the file with this path. Raises ValueError with the line or the member that is wrong."""
    return named_tables(text, "rules", Rule)
