"""A fleet: the appliances that one of them shows together. The file that SESSIONS_FLEET names.

[[shards]]
name = "berlin"
url = "https://sessions-berlin.example.com"
token_file = "berlin.token"     # of the role read there; beside this file, or a whole path; left out: it needs none
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from sessionstore.budget_rules import Name, named_tables


class FleetShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One appliance, and how it is asked."""

    name: Name
    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@?#\x00-\x1f]{1,500}$")]
    token_file: str | None = None

    @property
    def token(self) -> str | None:
        """As it is now: a file may get a new one at any time. Raises OSError, ValueError."""
        if self.token_file is None:
            return None
        with open(self.token_file, encoding="ascii") as file:
            return file.read(4096).strip()


def shards(text: str) -> tuple[FleetShard, ...]:
    """Those of the file with this path. Raises ValueError with the line or the member that is wrong."""
    folder = Path(text).expanduser().absolute().parent
    return tuple(
        msgspec.structs.replace(
            one, url=one.url.rstrip("/"), token_file=one.token_file and str(folder / Path(one.token_file).expanduser())
        )
        for one in named_tables(text, "shards", FleetShard)
    )
