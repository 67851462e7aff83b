"""What a drill leaves beside the database of a store, for the metrics of its server."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

FILE = ".drill.json"


class Succeeded(msgspec.Struct):
    """A drill that was carried out to its end."""

    at: datetime
    rpo: float
    """Of how many seconds events were lost."""
    rto: float
    """How many seconds all was away."""


def keep(succeeded: Succeeded, folder: Path) -> None:
    """Leave word of it, if there is a database."""
    if (folder / "sessions.db").exists():
        part = folder / f"{FILE}.part"
        part.write_bytes(msgspec.json.encode(succeeded))
        part.rename(folder / FILE)


def last(folder: Path) -> Succeeded | None:
    """What was left; None if there is nothing that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Succeeded)
    except (OSError, msgspec.DecodeError):
        return None
