"""How far each target of notices has been told: a file beside the database, so that telling goes on after any end."""

from __future__ import annotations

import logging
import threading
from copy import copy
from pathlib import Path

import msgspec

from sessionstore.log import faults
from sessionstore.secret_files import write_secret
from sessionstore.upkeep.notices import Notice

logger = logging.getLogger(__name__)

FILE = ".webhooks.json"
MOST_HELD = 500
MOST_ASKS = 1000


class Position(msgspec.Struct):
    """How far a target has been told. Its lists are replaced, never changed."""

    cursor: int
    quiet: dict[str, int] = {}
    """Sessions of whose quiet it was told, and their last cursor then."""
    asks: list[int] = []
    """Cursors of the asks of which it was told, and not that they do not wait any more."""
    held: list[Notice] = []
    """What it is told later, without what agents said."""
    more: int = 0
    """How many more there are than are held."""
    told_at: float = 0.0
    """When it was told last, in Unix seconds."""

    def hold(self, notices: list[Notice]) -> None:
        kept = (msgspec.structs.replace(one, message="", details={}) if one.is_told_anew else one for one in notices)
        self.held = [*self.held, *kept]
        self.more += max(0, len(self.held) - MOST_HELD)
        self.held = self.held[-MOST_HELD:]

    def told(self, notices: list[Notice]) -> None:
        """That it was told of these: it is to hear what becomes of the asks among them."""
        self.asks = [*self.asks, *(one.ask for one in notices if one.ask and one.occasion == "waiting")][-MOST_ASKS:]


class Positions:
    """Those of all targets, in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.known: dict[str, Position] = {}

    def read(self) -> None:
        try:
            self.known = msgspec.json.decode(self.path.read_bytes(), type=dict[str, Position])
        except FileNotFoundError:
            self.known = {}
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("%s cannot be read: webhooks are told of what comes from now on: %s", self.path, error)
            self.known = {}

    def keep(self, title: str, position: Position) -> None:
        """Wholly or not at all, and on disk. Where that fails, a notice may come once more after a restart."""
        with self.lock:
            self.known[title] = copy(position)
            try:
                write_secret(self.path, msgspec.json.encode(self.known))
            except OSError as error:
                faults["webhooks"] += 1
                logger.warning("How far webhooks have been told cannot be kept in %s: %s", self.path, error)
