"""The tokens: who holds which, and what is kept of them.

Those of the environment are as they are set. Where none is, and others can reach the server, it makes four, one
file a role. Any number more are added by name, and of these only hashes are kept. They are never in the database:
people query that, and copy it. A running server notices within a second what has changed in the files.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sessionstore.log import faults
from sessionstore.model.events import NEW_SESSIONS
from sessionstore.model.rights import Bounds
from sessionstore.secret_files import give, write_secret
from sessionstore.settings import BadSetting, Settings, secret

logger = logging.getLogger("sessionstore.web.tokens")

ROLES = ("admin", "control", "read", "ingest")
Role = Literal["admin", "control", "read", "ingest"]
ALWAYS_MADE = ("control",)
"""The roles of which the server makes a token though nothing else needs one: answers and orders are never open. Where
none is set and one is needed, it makes one of each role."""
VARIABLES = {"SESSIONS_TOKEN": "admin", "SESSIONS_READ_TOKEN": "read", "SESSIONS_INGEST_TOKEN": "ingest"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMED = "tokens.json"
"""In the folder of the tokens: those with a name."""
PROXY = "a proxy"
"""The place of what is no token, but the right of one whom a trusted proxy names."""
USED = ".tokens-used.json"
"""Beside the database, for the folder of the tokens may be one that can only be read: when each was last used."""
LONG_ENOUGH = 20
"""Characters of a token that nobody guesses, if it was made at random; one that is set with fewer is warned about."""
SAVE_SECONDS = 60.0
"""How often that is written, at most."""


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class Token:
    """One token while the server runs: not what it reads, only whose it is."""

    def __init__(
        self,
        name: str,
        role: str,
        token: bytes,
        *,
        place: str = NAMED,
        expires: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.digest = token
        self.bounds = bounds
        """None: it is not bound."""
        self.place = place
        """Where it is kept: a file in the folder, or the environment."""
        self.expires = expires
        self.is_short = False
        """Whether it was set with so few characters that it may be guessed."""
        self.requests = 0
        """All that were made with it."""
        self.requests_before = 0
        """How many they were when the use was last noted."""
        self.second = 0
        self.requests_until_then = 0
        self.creating = ""
        self.created = 0
        """Sessions begun in the second `creating`."""

    @classmethod
    def of(cls, name: str, role: str, text: str, place: str) -> Token:
        token = cls(name, role, digest(text), place=place)
        token.is_short = len(text) < LONG_ENOUGH
        return token

    def is_as(self, other: Token | None) -> bool:
        members = ("name", "role", "expires", "bounds")
        return other is not None and all(getattr(self, member) == getattr(other, member) for member in members)

    @property
    def is_over(self) -> bool:
        return self.expires is not None and self.expires <= time.time()

    def is_beyond(self, most: int) -> bool:
        """Whether it made more requests than `most` in this second, the last of them counted already."""
        second = int(time.monotonic())
        if second != self.second:
            self.second, self.requests_until_then = second, self.requests - 1
        return self.requests - self.requests_until_then > most

    def may_create(self, second: str) -> bool:
        """Whether it may begin one more session. Called on the writer's thread, with the time of the transaction."""
        if second != self.creating:
            self.creating, self.created = second, 0
        self.created += 1
        return self.created <= NEW_SESSIONS


# ------------------------------------------------------------------------- files

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a token with a name: times are seconds since 1970."""

    name: str
    role: Role
    token: Hash
    """SHA-256 of the token: made of 192 random bits, it wants neither salt nor stretching."""
    created: int
    expires: int | None = None
    bounds: Bounds | None = None
    cookie: Hash | None = None
    """Of an earlier version, which had one cookie for a token."""

    @classmethod
    def of(cls, name: str, role: Role, text: str, expires: int | None = None, bounds: Bounds | None = None) -> Named:
        return cls(name, role, digest(text).hex(), int(time.time()), expires, bounds)

    def held(self) -> Token:
        return Token(self.name, self.role, bytes.fromhex(self.token), expires=self.expires, bounds=self.bounds)


def tokens_folder(settings: Settings) -> Path:
    return settings.tokens_directory or settings.directory / "tokens"


def make_token() -> str:
    """192 random bits, and a beginning by which people and scanners know what it is."""
    return f"sst_{secrets.token_urlsafe(24)}"


def make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        give(folder)


@contextmanager
def alone(folder: Path, lock: str = "") -> Iterator[None]:
    """While two change the files one waits for the other. `lock`: a file in the folder, where something else has locked
    that. Raises OSError."""
    make_folder(folder)
    kind = os.O_CREAT if lock else os.O_DIRECTORY
    descriptor = os.open(folder / lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, 0o600)
    try:
        if lock:
            give(folder / lock)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_named(folder: Path) -> list[Named] | None:
    """The tokens with names; None: there is no such file. Raises BadSetting."""
    path = folder / NAMED
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Named])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadSetting(f"SESSIONS_TOKENS_DIR: {path} cannot be read: {why}") from None


def write_named(folder: Path, named: Iterable[Named]) -> None:
    write_secret(folder / NAMED, msgspec.json.format(msgspec.json.encode([*named])) + b"\n")


def read_kept(path: Path) -> str | None:
    """The token of a role in its file; None: there is none. Raises BadSetting."""
    try:
        text = path.read_text().strip()
        return secret(text) if text else None
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadSetting(
            f"SESSIONS_TOKENS_DIR: the token in {path} {error}; without the file a new one is made"
        ) from None
    except OSError as error:
        raise BadSetting(f"SESSIONS_TOKENS_DIR: {path} cannot be read: {error.strerror}") from None


def read_used(path: Path) -> dict[str, int]:
    """When each was last used, as far as it is known."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    return {}


# ------------------------------------------------------------------- all of them


class Tokens:
    """Every token that is known now. False: none is needed, everybody may do everything."""

    def __init__(self, settings: Settings) -> None:
        self.folder = tokens_folder(settings)
        given = (settings.admin_token, settings.read_token, settings.ingest_token)
        self.given = [
            Token.of(name, role, text, "the environment")
            for (name, role), text in zip(VARIABLES.items(), given, strict=True)
            if text
        ]
        self.given_ingest = settings.ingest_token
        self.handed_out = settings.agent_token_file
        self.bound = settings.agent_tokens
        """Names and users of those that agents find in folders of their own."""
        self.keeps_roles = not settings.is_private and not self.given
        self.makes = () if self.given else ROLES if self.keeps_roles else ALWAYS_MADE
        self.is_required = not settings.is_private or bool(self.given)
        self.by_digest: dict[bytes, Token] = {}
        self.by_name: dict[str, Token] = {}
        self.seen: list[tuple[int, ...]] = []
        self.used_file = settings.directory / USED
        self.used = read_used(self.used_file)
        self.saved_at = time.monotonic()

    def __bool__(self) -> bool:
        return self.is_required

    def prepare(self) -> None:
        """Make the token of each role where none is set and one is needed; then read all. Raises BadSetting."""
        if self.makes and not (self.folder / NAMED).exists():
            try:
                make_folder(self.folder)
                for role in self.makes:
                    if read_kept(self.folder / role) is None:
                        write_secret(self.folder / role, make_token().encode() + b"\n")
            except OSError as error:
                raise BadSetting(
                    f"SESSIONS_TOKENS_DIR: no tokens can be kept in {self.folder}: {error.strerror}"
                ) from None
        self.make_bound()
        self.seen = self.state_of_files()
        self.load()
        self.warn_of_short()
        self.hand_out()

    # ---- who holds which

    def holder(self, token: str) -> Token | None:
        """Whose it is. How long the look-up takes tells nothing: nobody can choose the digest of what he tries."""
        return self.by_digest.get(digest(token))

    def named(self, name: str) -> Token | None:
        token = self.by_name.get(name)
        return None if token is None or token.is_over else token

    def holds(self, token: Token | None) -> bool:
        """Whether who was let in with this token, None: without any, still would be."""
        return not self.is_required if token is None else self.by_digest.get(token.digest) is token

    # ---- what has changed

    def refresh(self) -> None:
        """Look at the files, and at what has run out. What cannot be read changes nothing."""
        state = self.state_of_files()
        if state != self.seen:
            self.seen = state
            for take_up in (self.load, self.warn_of_short, self.hand_out):
                try:
                    take_up()
                except BadSetting as error:
                    faults["tokens"] += 1
                    logger.warning("A change of the tokens is not taken up: %s", error)
        if any(token.is_over for token in self.by_digest.values()):
            self.know(self.by_digest.values())
        if time.monotonic() >= self.saved_at + SAVE_SECONDS:
            self.save_use()

    def state_of_files(self) -> list[tuple[int, ...]]:
        """Changes when a file does. Only asked of the file system, each second."""
        files = [self.folder / name for name in (NAMED, *self.makes)]
        return [*map(state_of, files), *(state_of(self.place_of(name)) for name, _ in self.bound)]

    def made(self, role: str) -> Path | None:
        """Where the token of a role can be read that the server made; None: there is none."""
        return next((self.folder / role for token in self.by_digest.values() if token.place == role), None)

    def load(self) -> None:
        """Raises BadSetting, and then leaves all as it was."""
        named = read_named(self.folder)
        tokens = [*self.given, *self.kept()]
        tokens += [one.held() for one in named or ()]
        if named is not None:
            self.is_required = True
        elif not self.given and not self.keeps_roles:
            self.is_required = False
        self.know(tokens)

    def short(self) -> list[str]:
        """The names of those that may be guessed."""
        return [token.name for token in self.by_digest.values() if token.is_short]

    def warn_of_short(self) -> None:
        for name in self.short():
            logger.warning("%s has fewer than %d characters and may be guessed: set a longer one", name, LONG_ENOUGH)

    def hand_out(self) -> None:
        """Write the token that agents need, and no other, where they may read it. Raises BadSetting."""
        path, text = self.handed_out, self.given_ingest
        if text is None and self.keeps_roles:
            text = read_kept(self.folder / "ingest")
        if path is None or text is None:
            return
        try:
            write_secret(path, text.encode() + b"\n", 0o444)
        except OSError as error:
            raise BadSetting(f"SESSIONS_AGENT_TOKEN_FILE={str(path)!r} cannot be written: {error.strerror}") from None

    def make_bound(self) -> None:
        """Those that are not there yet. Raises BadSetting."""
        for name, _ in self.bound:
            path = self.place_of(name)
            if read_kept(path) is None:
                try:
                    path.parent.mkdir(mode=0o755, exist_ok=True)
                    path.parent.chmod(0o755)  # whatever the umask is: whoever mounts it is another user
                    write_secret(path, make_token().encode() + b"\n", 0o444)
                except OSError as error:
                    raise BadSetting(f"SESSIONS_AGENT_TOKENS: {path} cannot be written: {error.strerror}") from None

    def place_of(self, name: str) -> Path:
        """A folder of its own, so that an agent can be shown this token and no other."""
        assert self.handed_out is not None  # the settings see to it
        return self.handed_out.parent / name / "token"

    def kept(self) -> Iterator[Token]:
        for name, user in self.bound:
            if text := read_kept(self.place_of(name)):
                place = str(self.place_of(name))
                yield Token(name, "ingest", digest(text), place=place, bounds=Bounds(users=(user,)))
        for role in self.makes:
            if text := read_kept(self.folder / role):
                yield Token.of(role, role, text, role)

    def know(self, tokens: Iterable[Token]) -> None:
        """These and no others; one that is as it was stays the same object."""
        known = self.by_digest
        self.by_digest = {
            token.digest: known[token.digest] if token.is_as(known.get(token.digest)) else token
            for token in tokens
            if not token.is_over
        }
        self.by_name = {token.name: token for token in self.by_digest.values()}

    # ---- when they were used

    def save_use(self) -> None:
        """For `token list`."""
        self.saved_at = time.monotonic()
        self.used = {token.name: at for token in self.by_digest.values() if (at := self.last_use(token))}
        if self.used != read_used(self.used_file):
            with suppress(OSError):  # as on a full disk: it is a convenience
                write_secret(self.used_file, msgspec.json.encode(self.used))

    def last_use(self, token: Token) -> int | None:
        """Seconds since 1970; as exact as it is asked for, for the time of each request is noted nowhere."""
        if token.requests == token.requests_before:
            return self.used.get(token.name)
        token.requests_before = token.requests
        return int(time.time())


def state_of(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_mtime_ns, state.st_size
