"""What a program in a container is that works through items: it does its round, and then waits for more.

WorkItem        one thing to do
Pace        how quickly, and whether it goes on watching; read from the environment
Reporter     is told what happens; this one keeps it to itself
Work        what the program brings: what waits, and how one item is done
go_rounds   the loop
run         the loop as a process, which SIGTERM and SIGINT end in order
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, Self

ATTEMPTS = 3
"""How often an item is tried by one process; a new process tries anew."""
LOOK_SECONDS = 1.0
RETRY_SECONDS = 15.0
"""How long to wait after a round in which something failed."""


NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]+")


class WorkItem(NamedTuple):
    """`id` is the same in each process that meets it, and may stand in a file's name and a URL."""

    id: str
    title: str


def id_from(name: str) -> str:
    """The name, as far as it can be an id; what had to be changed is told from its likes by a digest."""
    plain = NOT_IN_AN_ID.sub("-", name).strip("-_")[:80]
    return plain if plain == name else f"{plain or 'item'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


class Pace(NamedTuple):
    between_items: float  # seconds, so that people can follow
    keep_watching: bool

    @classmethod
    def from_environment(cls) -> Self:
        """PACE_SECONDS (2) and KEEP_WATCHING (1). Raises SystemExit for what is not a number of seconds."""
        seconds = os.environ.get("PACE_SECONDS", "2")
        try:
            pace = max(0.0, float(seconds))
        except ValueError:
            raise SystemExit(f"PACE_SECONDS is to be a number of seconds, not {seconds!r}") from None
        return cls(pace, os.environ.get("KEEP_WATCHING", "1").lower() not in ("0", "false", "no", "off", ""))


class Trouble(Exception):
    """What keeps a whole round from being done, such as a mailbox that cannot be reached."""


class Reporter:
    """Is told what the program does. This one passes nothing on."""

    def callbacks(self) -> list[Any]:
        """What LangChain is to be run with."""
        return []

    def finds(self, items: Sequence[WorkItem], is_done: Callable[[str], bool]) -> None:
        """These, and no others, wait to be done; said at the beginning of each round. `is_done` tells of any id."""

    def begins(self, item: WorkItem) -> None: ...

    def finishes(self, item: WorkItem, outcome: str) -> None: ...

    def fails(self, item: WorkItem, error: Exception) -> None: ...

    def notes(self, kind: str, **members: Any) -> None:
        """Something that the program does beside its items."""

    def service(self, name: str, is_up: bool, **members: Any) -> None:
        """Something that the program leans on is there, or is not."""

    def rests(self) -> None:
        """All is done, for now; said each time that it has looked for more."""


class Work(Protocol):
    async def waiting(self) -> Sequence[WorkItem]:
        """What is not done yet, in order. Raises Trouble."""

    def is_done(self, item_id: str) -> bool:
        """Whether this process, or one before it, has done the item of this id."""

    def at_work(self) -> AbstractAsyncContextManager[Callable[[WorkItem], Awaitable[str]]]:
        """Opens what is needed for a round; gives what does one item and says how it went. Both raise Trouble."""


async def go_rounds(work: Work, reporter: Reporter, pace: Pace) -> bool:
    """Until all is done, or for ever where it keeps watching; whether something is left undone."""
    tried: Counter[str] = Counter()
    while True:
        went_well = await _one_round(work, reporter, pace, tried)
        if not pace.keep_watching:
            return not went_well
        if went_well:
            reporter.rests()
        await asyncio.sleep(LOOK_SECONDS if went_well else RETRY_SECONDS)


async def _one_round(work: Work, reporter: Reporter, pace: Pace, tried: Counter[str]) -> bool:
    try:
        items = [item for item in await work.waiting() if tried[item.id] < ATTEMPTS]
        reporter.finds(items, work.is_done)
        if not items:
            return True
        async with work.at_work() as do:
            return await _do_all(items, do, reporter, pace, tried)
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return False


async def _do_all(
    items: Sequence[WorkItem],
    do: Callable[[WorkItem], Awaitable[str]],
    reporter: Reporter,
    pace: Pace,
    tried: Counter[str],
) -> bool:
    went_well = True
    for item in items:
        tried[item.id] += 1
        reporter.begins(item)
        try:
            outcome = await do(item)
        except Trouble as trouble:  # the others could not be done either
            reporter.fails(item, trouble)
            raise
        except Exception as error:  # one that cannot be done must not keep the others from being done
            went_well = False
            reporter.fails(item, error)
            print(f"{item.id}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            reporter.finishes(item, outcome)
            print(f"{item.id}: {outcome}", flush=True)
        await asyncio.sleep(pace.between_items)
    return went_well


def run(program: Coroutine[Any, Any, bool]) -> int:
    """The exit code of a program that says whether something is left undone. One that was told to end ended well."""
    try:
        return int(asyncio.run(_until_told(program)))
    except asyncio.CancelledError:
        return 0


async def _until_told(program: Coroutine[Any, Any, bool]) -> bool:
    task = asyncio.ensure_future(program)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task
