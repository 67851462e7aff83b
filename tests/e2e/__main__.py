"""`python -m tests.e2e compose|processes`: one line a check; exit code 0, 1 (something is not so), 2 (no engine)."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from .checks import FAULTS, LOOKS, Check, Scene
from .composed import Composed, engine
from .containment import CONTAINMENT
from .processes import Processes
from .worlds import World

SECONDS = 900
"""After so long it ends, whatever it waits for."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.e2e", description="All of it together, checked")
    options.add_argument("world", choices=["compose", "processes"])
    chosen = options.parse_args(arguments).world
    if chosen == "compose" and (why := engine()):
        print(f"There is no Docker engine to run this with ({why}): `make e2e-local` does the same with processes.")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"It took more than {SECONDS} s"))
    signal.alarm(SECONDS)
    world: World = Composed() if chosen == "compose" else Processes()
    try:
        return run(world)
    finally:
        world.end()


def run(world: World) -> int:
    """The exit code. The first check that fails is the last."""
    scene = Scene(world)
    checks = [*LOOKS, *(CONTAINMENT if isinstance(world, Composed) else ()), *FAULTS]
    begun = time.monotonic()
    try:
        for number, check in enumerate(checks, start=1):
            if not holds(number, check, scene):
                return 1
    finally:
        scene.close()
    print(f"{len(checks)} checks hold, with {world.name}, in {time.monotonic() - begun:.0f} s")
    return 0


def holds(number: int, check: Check, scene: Scene) -> bool:
    begun = time.monotonic()
    try:
        found, mark = check.look(scene), "ok"
    except Exception as error:
        found, mark = f"{type(error).__name__}: {error}", "FAILED"
        print(scene.world.logs())
    print(f"{mark:6} {number:2} {check.name} ({time.monotonic() - begun:.1f} s): {found}", flush=True)
    return mark == "ok"


if __name__ == "__main__":
    sys.exit(main())
