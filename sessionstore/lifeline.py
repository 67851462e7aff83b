"""Children that end with their parent, however it ends: `python -m sessionstore.lifeline MODULE ARGUMENT…` < a pipe."""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = (sys.executable, "-m", __name__)
"""And after it the module that is to run as its own, with its arguments."""


@contextmanager
def lifeline() -> Iterator[int]:
    """The descriptor of a stdin for such a child, which lives no longer than what is done meanwhile."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


def end_with_parent() -> None:
    """From now on."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
