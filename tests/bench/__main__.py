"""`python -m tests.bench [NAME ...]`: measure, and print a table. A figure that is not reached is no failure."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import (
    actions,
    ask,
    backup,
    batches,
    chain,
    feed,
    groups,
    hooks,
    hostile,
    idle,
    kill,
    lake,
    material,
    page,
    questions,
    reads,
    search,
    stall,
    start,
    timing,
    tree,
    usage,
    viewers,
    waiting,
    write,
)
from tests.bench.figures import Figure, raw_numbers, table

BENCHES: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "actions": lambda options: actions.measure(options.rounds),
    "write": lambda options: write.measure(options.rounds, options),
    "batches": lambda options: batches.measure(options.rounds),
    "reads": lambda options: reads.measure(options.rounds),
    "groups": lambda options: groups.measure(options.rounds),
    "search": lambda options: search.measure(options.rounds),
    "feed": lambda options: feed.measure(options.rounds),
    "viewers": lambda options: viewers.measure(options.rounds),
    "waiting": lambda options: waiting.measure(options.rounds),
    "idle": lambda options: idle.measure(options.rounds),
    "hostile": lambda options: hostile.measure(options.rounds),
    "tree": lambda options: tree.measure(options.rounds),
    "material": lambda options: material.measure(options.rounds),
    "usage": lambda options: usage.measure(options.rounds),
    "backup": lambda options: backup.measure(options.rounds),
    "hooks": lambda options: hooks.measure(options.rounds, options.hooks),
    "questions": lambda options: questions.measure(options.rounds),
    "ask": lambda options: ask.measure(options.rounds),
    "page": lambda options: page.measure(options.rounds),
    "timing": lambda options: timing.measure(options.rounds),
    "stall": lambda options: stall.measure(options.rounds),
    "lake": lambda options: lake.measure(options.rounds),
    "chain": lambda options: chain.measure(options.rounds),
    "kill": lambda options: kill.measure(options.kills),
    "start": lambda options: start.measure(options.rounds),
}


def main(arguments: Sequence[str]) -> int:
    """0; 1 if something could not be measured because what was measured did not do its work; 2 if used wrongly."""
    options = _options(arguments)
    figures: list[Figure] = []
    failed = []
    for name in options.names or BENCHES:
        try:
            figures += _measured(name, options)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    print(table(figures))
    print(f"\n{_machine()}; medians of {options.rounds} rounds.")
    if options.verbose:
        print("\n" + "\n".join(map(raw_numbers, figures)))
    if failed:
        print(f"not measured: {', '.join(failed)} (see above)", file=sys.stderr)
    return 1 if failed else 0


def _measured(name: str, options: argparse.Namespace) -> list[Figure]:
    begun = time.monotonic()
    print(f"measuring {name} …", end=" ", file=sys.stderr, flush=True)
    figures = BENCHES[name](options)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    return figures


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = f"what to measure: {', '.join(BENCHES)} (default: all)"
    parser.add_argument("names", metavar="NAME", nargs="*", help=names)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="alternating rounds (default 5)")
    parser.add_argument(
        "--hooks",
        type=int,
        default=500,
        metavar="N",
        help="how many hooks to run in each state of the store (default 500)",
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how often to kill (default 50)")
    of_write = parser.add_argument_group("of `write`")
    of_write.add_argument("--against", type=Path, metavar="PATH", help="compare with the server of this working tree")
    loads = f"which loads: {', '.join(write.LOADS)} (default: all)"
    of_write.add_argument("--loads", nargs="+", choices=write.LOADS, default=[*write.LOADS], metavar="LOAD", help=loads)
    of_write.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each load (default 2)")
    of_write.add_argument("--paced-seconds", type=float, default=10.0, metavar="S", help="for the lags (default 10)")
    parser.add_argument("--verbose", action="store_true", help="print the number of every round, too")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - BENCHES.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    return options


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
