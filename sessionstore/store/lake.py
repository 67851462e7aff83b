"""What the lake says at the start, asked of a child process: the server itself never imports what reads a bucket."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec

import msgspec

from sessionstore import ROOT
from sessionstore.settings import Settings
from sessionstore.store.owner import CannotStart

logger = logging.getLogger(__name__)

NEEDED = ("deltalake", "obstore", "arro3")
SECONDS = 15.0
"""For which a bucket is waited for. One that takes longer is away: agents wait meanwhile."""


class LakeSaid(msgspec.Struct):
    """As lake/witness.py says it."""

    cursor: int = 0
    shard: str = ""
    other: str = ""
    refused: str = ""
    away: str = ""


def check_installed() -> None:
    """Raises CannotStart where what reads a lake is not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise CannotStart(
            f"SESSIONS_LAKE is set, and {', '.join(missing)} is not installed: pip install 'session-store[lake]'"
        )


def ask_lake(settings: Settings) -> LakeSaid:
    """How far the lake has this store. Raises CannotStart where the bucket cannot have one.

    A bucket that does not answer keeps nobody from beginning: it is said, and agents are heard. What is not known is
    then found by whoever seals, once the bucket is back.
    """
    if settings.lake is None:
        return LakeSaid()
    check_installed()
    command = [sys.executable, "-m", "lake.witness", str(settings.database), settings.lake, settings.shard or ""]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=inherited, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
        )
        said = msgspec.json.decode(done.stdout, type=LakeSaid)
    except subprocess.TimeoutExpired:
        said = LakeSaid(away=f"{settings.lake} has not answered within {SECONDS:.0f} seconds")
    except msgspec.DecodeError:
        said = LakeSaid(away=f"{settings.lake} could not be asked: {done.stderr.decode(errors='replace')[-1000:]}")
    if said.refused:
        raise CannotStart(f"SESSIONS_LAKE: {said.refused}")
    if said.away:
        logger.error(
            "The lake was not asked whether it has more than the database: %s. Events are taken, and sealed once it is"
            " back",
            said.away,
        )
    return said
