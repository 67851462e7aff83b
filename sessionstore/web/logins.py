"""Log-ins: what a browser has for a token. Each ends by itself, and of its cookie only a hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from sessionstore.secret_files import write_secret
from sessionstore.settings import Settings
from sessionstore.web.tokens import Hash, Token, Tokens, alone, digest, state_of

FILE = ".log-ins.json"
"""Beside the database, for the folder of the tokens may be one that can only be read."""
LOCK = ".log-ins.lock"
SECONDS = 30 * 86_400
MOST = 1000
"""Of one token: beyond, the oldest ends."""


FRESH_SECONDS = 3600
"""For so long, and at most twice as long, a page may answer and order."""

Otherwise = TypeVar("Otherwise", list["BrowserLogin"], None)


class BrowserLogin(msgspec.Struct, frozen=True):
    """One browser that has shown a token. Times are seconds since 1970."""

    cookie: Hash
    """SHA-256 of its cookie, which is made of 256 random bits."""
    name: str
    """Of the token."""
    proof: Hash
    """That it was this token and no other of the name; nothing can be tried against it without the cookie."""
    ends: int


def make_cookie() -> str:
    """256 random bits, in a form by which they are known and taken out of what agents say."""
    return secrets.token_hex(32)


def proof_of(cookie: str, token: Token) -> str:
    return hmac.new(cookie.encode(), token.digest, hashlib.sha256).hexdigest()


class Logins:
    """Those that last, also over a restart."""

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self.path = settings.directory / FILE
        self.tokens = tokens
        self.seen = state_of(self.path)  # what changes while it is read is another state
        self.by_cookie = {login.cookie: login for login in read_logins(self.path, [])}  # else people log in again
        self.is_new = False
        """Whether there is something that the file does not have."""
        self.saved = frozenset(self.by_cookie)
        """Those that the file had when it was last looked at: one that it lacks since then was revoked."""
        self.saving = threading.Lock()
        self.page_key = secrets.token_bytes()

    def page_token(self, who: str, ago: int = 0) -> str:
        """What a page says that was shown to somebody lately, and since the server started."""
        moment = int(time.time()) // FRESH_SECONDS - ago
        return hmac.new(self.page_key, f"{moment} {who}".encode(), hashlib.sha256).hexdigest()

    def is_fresh(self, said: str, who: str) -> bool:
        return any(hmac.compare_digest(said.encode(), self.page_token(who, ago).encode()) for ago in (0, 1))

    def begin(self, token: Token) -> tuple[str, int]:
        """A new cookie, and for how many seconds it is good."""
        cookie, now = make_cookie(), int(time.time())
        seconds = SECONDS if token.expires is None else max(1, min(SECONDS, int(token.expires) - now))
        login = BrowserLogin(digest(cookie).hex(), token.name, proof_of(cookie, token), now + seconds)
        names = {known.name for known in self.tokens.by_digest.values()}
        lasting = [one for one in self.by_cookie.values() if one.ends > now and one.name in names]
        self.by_cookie = {one.cookie: one for one in lasting} | {login.cookie: login}
        own = [one.cookie for one in lasting if one.name == token.name]
        for oldest in own[: max(0, len(own) + 1 - MOST)]:
            del self.by_cookie[oldest]
        self.is_new = True
        return cookie, seconds

    def end(self, cookie: str) -> None:
        if self.by_cookie.pop(digest(cookie).hex(), None):
            self.is_new = True

    def holder(self, cookie: str) -> tuple[Token, BrowserLogin] | None:
        """Whose cookie it is, while the log-in and its token last."""
        login = self.by_cookie.get(digest(cookie).hex())
        if login is None or not self.lasts(login):
            return None
        token = self.tokens.named(login.name)
        is_same = token is not None and hmac.compare_digest(proof_of(cookie, token), login.proof)
        return (token, login) if token is not None and is_same else None

    def lasts(self, login: BrowserLogin) -> bool:
        """Its token apart."""
        return self.by_cookie.get(login.cookie) is login and login.ends > time.time()

    def save(self) -> None:
        """Called on any thread, each second. Without room they last as long as the process."""
        if not self.is_new and state_of(self.path) == self.seen:
            return
        with self.saving, suppress(OSError), alone(self.path.parent, LOCK):
            self.drop_revoked()
            if self.is_new:
                self.is_new = False
                logins = list(self.by_cookie.values())
                try:
                    write_logins(self.path, logins)
                except OSError:
                    self.is_new = True
                    raise
                self.saved = frozenset(login.cookie for login in logins)
            self.seen = state_of(self.path)

    def drop_revoked(self) -> None:
        """Those that a command has taken out of the file since it was last looked at. A file that is gone, or cannot be
        read, takes nobody out."""
        if state_of(self.path) in (self.seen, ()) or (kept := read_logins(self.path, None)) is None:
            return
        for cookie in self.saved.difference(login.cookie for login in kept):
            self.by_cookie.pop(cookie, None)
        self.saved = frozenset(login.cookie for login in kept)


def read_logins(path: Path, otherwise: Otherwise) -> list[BrowserLogin] | Otherwise:
    """`otherwise` where the file cannot be read."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeError):
        return msgspec.json.decode(path.read_bytes(), type=list[BrowserLogin])
    return otherwise


def write_logins(path: Path, logins: list[BrowserLogin]) -> None:
    write_secret(path, msgspec.json.encode(logins))


def revoke(path: Path, is_meant: Callable[[BrowserLogin], bool]) -> int:
    """Take log-ins out of the file, whether a server runs or not; how many. Raises OSError."""
    with alone(path.parent, LOCK):
        logins = read_logins(path, [])
        left = [login for login in logins if not is_meant(login)]
        if len(left) < len(logins):
            write_logins(path, left)
        return len(logins) - len(left)
