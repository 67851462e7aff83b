"""Who is told what, by HTTP: the file that SESSIONS_WEBHOOKS names.

    [{"url": "https://example.com/hook", "secretFile": "/run/secrets/hook", "on": ["waiting", "failed"],
      "rules": {"noProgressMinutes": 10, "sameCallTimes": 5}},
     {"url": "https://hooks.slack.com/services/…", "format": "slack"}]

or the same as TOML, a [[webhooks]] for each.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

Occasion = Literal["waiting", "lost", "failed", "budget"]
MAX_TARGETS = 32


class Rules(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """What else a session does, or does not, that somebody wants to know of."""

    no_progress_minutes: Annotated[float, msgspec.Meta(ge=0.01, le=525_600)] | None = None
    """An active session of which nothing was heard for so long."""
    same_call_times: Annotated[int, msgspec.Meta(ge=2, le=1000)] | None = None
    """A session that makes the same call so many times, one after the other."""


class Target(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One who is told."""

    url: str
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    secret: Annotated[str, msgspec.Meta(min_length=8)] | None = None
    """`whsec_` and base64, or any text."""
    secret_file: str | None = None
    on: tuple[Occasion, ...] = ("waiting", "lost", "failed", "budget")
    rules: Rules = Rules()
    format: Literal["json", "slack"] = "json"
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 10.0

    @property
    def title(self) -> str:
        """Its name; without one, where it is, and enough of a digest to tell it from others there."""
        return self.name or f"{urlsplit(self.url).hostname}-{hashlib.sha256(self.url.encode()).hexdigest()[:6]}"

    @property
    def place(self) -> str:
        """As much of the URL as may be shown: its path may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def key(self) -> bytes | None:
        """What is signed with; None: nothing is signed."""
        if self.secret is None:
            return None
        return base64.b64decode(self.secret[6:]) if self.secret.startswith("whsec_") else self.secret.encode()


def targets(text: str) -> tuple[Target, ...]:
    """Those of the file with this path. Raises ValueError with the line or the member that is wrong."""
    if not text:
        return ()
    path = Path(text).expanduser()
    listed = entries(path)
    if len(listed) > MAX_TARGETS:
        raise ValueError(f"{path} has more than {MAX_TARGETS} webhooks")
    found = tuple(target_of(entry, f"{path}: webhook {number}") for number, entry in enumerate(listed, 1))
    titles = [target.title for target in found]
    if double := next((title for title in titles if titles.count(title) > 1), None):
        raise ValueError(f"{path}: two webhooks are {double!r}: give them a name each")
    return found


def entries(path: Path) -> list[Any]:
    try:
        content = path.read_text()
        listed = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"must be a file that can be read ({error})") from None
    except ValueError as error:  # with line and column, from either parser
        raise ValueError(f"{path}: {error}") from None
    if isinstance(listed, dict):
        listed = listed.get("webhooks")
    if not isinstance(listed, list):
        raise ValueError(f"{path} must be a list of webhooks, or have one as its member webhooks")
    return listed


def target_of(entry: Any, place: str) -> Target:
    try:
        target = msgspec.convert(entry, Target)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}") from None
    if target.secret and target.secret_file:
        raise ValueError(f"{place}: secret and secretFile: one of them is enough")
    if target.secret_file:
        target = msgspec.structs.replace(target, secret=secret_in(target.secret_file, place), secret_file=None)
    check_url(target, place)
    check_secret(target, place)
    return target


def secret_in(file: str, place: str) -> str:
    try:
        secret = Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{place}: secretFile: {error}") from None
    if len(secret) < 8:
        raise ValueError(f"{place}: secretFile: {file} must have 8 characters or more")
    return secret


def check_url(target: Target, place: str) -> None:
    """The URL itself is not shown: it may hold a secret."""
    try:
        parts = urlsplit(target.url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    if not is_right or not target.url.isascii() or re.search(r"[\x00-\x20\x7f]", target.url):
        raise ValueError(f"{place}: url must be an http or https URL")


def check_secret(target: Target, place: str) -> None:
    try:
        short = target.key is not None and len(target.key) < 8
    except (ValueError, binascii.Error):
        short = True
    if short:
        raise ValueError(f"{place}: secret must be whsec_ and base64, or 8 characters or more")
