"""Shares: read-only links to one session, each for a time. What a link has in its fragment is kept as a hash alone.

A share is a bound token of a role that nobody else has: it reads its session, and all others are not there to it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sessionstore.model.events import is_id
from sessionstore.model.problems import Problem
from sessionstore.model.rights import Bounds
from sessionstore.secret_files import write_secret
from sessionstore.settings import Settings
from sessionstore.web.tokens import Hash, Token, digest

FILE = ".shares.json"
"""Beside the database, as log-ins are: a copy of that lets nobody in."""
PREFIX = "sst_share_"
ROLE = "share"
MOST = 10_000


class Share(msgspec.Struct, frozen=True, rename="camel"):
    """One link. Times are seconds since 1970."""

    share_id: str
    capability: Hash
    """SHA-256 of 256 random bits."""
    session_id: str
    began: int
    """The cursor with which the session began: another of the same name is none of its business."""
    by: str | None
    created: int
    ends: int

    def token(self) -> Token:
        bounds = Bounds(sessions=(self.session_id,))
        name = f"share-{self.share_id}"
        return Token(name, ROLE, bytes.fromhex(self.capability), place=ROLE, expires=float(self.ends), bounds=bounds)


class ShareBook:
    """Those that last, also over a restart."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.directory / FILE
        self.by_capability = {share.capability: (share, share.token()) for share in read_shares(self.path)}

    def begin(self, session_id: str, began: int, by: str | None, seconds: int) -> tuple[Share, str]:
        """A new one, on disk, and the capability that is its link. Raises Problem 503 where it cannot be kept."""
        self.keep(share for share, token in self.by_capability.values() if not token.is_over)
        if len(self.by_capability) >= MOST:
            raise Problem(409, f"There are {MOST:,} shares: end some")
        capability, now = PREFIX + secrets.token_urlsafe(32), int(time.time())
        hashed = digest(capability).hex()
        share = Share(secrets.token_hex(6), hashed, session_id, began, by, now, now + seconds)
        self.keep([*self.all(), share])
        return share, capability

    def of(self, session_id: str) -> list[Share]:
        return [
            share
            for share, token in self.by_capability.values()
            if share.session_id == session_id and not token.is_over
        ]

    def end(self, session_id: str, share_id: str | None) -> int:
        """End one of a session's, or all; how many."""
        ended = [share for share in self.of(session_id) if share_id in (None, share.share_id)]
        self.keep(share for share in self.all() if share not in ended)
        return len(ended)

    def holder(self, capability: str) -> Token | None:
        """Whose it is, while it lasts. How long the look-up takes tells nothing, for nobody can choose a digest."""
        _, token = self.by_capability.get(digest(capability).hex(), (None, None))
        return None if token is None or token.is_over else token

    def holds(self, token: Token) -> bool:
        """Whether who was let in with it still would be."""
        known = self.by_capability.get(token.digest.hex())
        return known is not None and known[1] is token and not token.is_over

    def is_of(self, token: Token, began: int) -> bool:
        """Whether the session that began there is the one that is shared."""
        known = self.by_capability.get(token.digest.hex())
        return known is not None and known[0].began == began

    def all(self) -> list[Share]:
        return [share for share, _ in self.by_capability.values()]

    def keep(self, shares: Iterable[Share]) -> None:
        """These and no others, on disk first. Raises Problem 503."""
        kept = [*shares]
        if kept == self.all():
            return
        try:
            write_secret(self.path, msgspec.json.encode(kept))
        except OSError as error:
            raise Problem(503, f"Shares cannot be kept: {error.strerror}") from None
        known = self.by_capability
        self.by_capability = {share.capability: known.get(share.capability) or (share, share.token()) for share in kept}


def read_shares(path: Path) -> list[Share]:
    """What cannot be read lets nobody in."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Share])
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return []
    return [share for share in found if is_id(share.session_id)]
