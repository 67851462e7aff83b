"""What a drill, or a comparison, leaves beside the database of a store, for the metrics of its server."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

FILE, COMPARED = ".drill.json", ".compared.json"

Kept = TypeVar("Kept")


class DrillSucceeded(msgspec.Struct):
    """A drill that was carried out to its end."""

    at: datetime
    rpo: float
    """Of how many seconds events were lost."""
    rto: float
    """How many seconds all was away."""


class Compared(msgspec.Struct):
    """A comparison of a database with itself and its tree that was carried out to its end."""

    at: datetime
    differences: int
    first: str
    """One of them."""
    seconds: float


def keep(kept: DrillSucceeded | Compared, folder: Path) -> None:
    """Leave word of it, if there is a database."""
    if (folder / "sessions.db").exists():
        name = FILE if isinstance(kept, DrillSucceeded) else COMPARED
        part = folder / f"{name}.part"
        part.write_bytes(msgspec.json.encode(kept))
        part.rename(folder / name)


def last(folder: Path) -> DrillSucceeded | None:
    """What was left; None if there is nothing that can be read."""
    return read(folder / FILE, DrillSucceeded)


def last_comparison(folder: Path) -> Compared | None:
    """Likewise."""
    return read(folder / COMPARED, Compared)


def read(path: Path, kind: type[Kept]) -> Kept | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None
