"""Who is told what: the file that SESSIONS_WEBHOOKS names.

    [{"url": "https://example.com/hook", "secretFile": "/run/secrets/hook", "on": ["waiting", "failed"],
      "rules": {"noProgressMinutes": 10, "sameCallTimes": 5}},
     {"appriseFile": "/run/secrets/ntfy", "quiet": "22:00-07:00", "urgent": ["waiting"], "atMost": "1m"}]

or the same as TOML, a [[webhooks]] for each.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from sessionstore.budget_rules import Name, table_of
from sessionstore.messengers import check_messenger

Occasion = Literal["waiting", "lost", "failed", "budget", "answered"]
"""`answered`: an ask of which it was told is answered, or does not wait any more."""
Urgent = Literal["waiting", "lost", "failed", "budget", "answered", "quiet", "repeating"]
OCCASIONS: tuple[Occasion, ...] = ("waiting", "lost", "failed", "budget")
FOR_PEOPLE: dict[str, tuple[str, Any]] = {"on": ("on", (*OCCASIONS, "answered")), "at_most": ("atMost", "1m")}
"""What holds for a messenger unless its entry says otherwise: by the attribute, the member of the entry, and it."""
MAX_TARGETS = 32
SECONDS = {"s": 1, "m": 60, "h": 3600}


class Rules(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """What else a session does, or does not, that somebody wants to know of."""

    no_progress_minutes: Annotated[float, msgspec.Meta(ge=0.01, le=525_600)] | None = None
    """An active session of which nothing was heard for so long."""
    same_call_times: Annotated[int, msgspec.Meta(ge=2, le=1000)] | None = None
    """A session that makes the same call so many times, one after the other."""


class Target(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One who is told: by our webhook at `url`, or by the messenger that `apprise` names."""

    url: str | None = None
    apprise: str | None = None
    """A URL of apprise's, as in `slack://…`; a secret."""
    apprise_file: str | None = None
    name: Name | None = None
    secret: Annotated[str, msgspec.Meta(min_length=8)] | None = None
    """`whsec_` and base64, or any text."""
    secret_file: str | None = None
    on: tuple[Occasion, ...] = OCCASIONS
    rules: Rules = Rules()
    quiet: Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = None
    """Hours of the server's time zone in which it is told of nothing but what is urgent; at their end of the rest."""
    urgent: tuple[Urgent, ...] = ()
    at_most: Annotated[str, msgspec.Meta(pattern=r"^\d{1,4}[smh]$")] = "0s"
    """It is told once in so long a time, of all that came in it."""
    format: Literal["json", "slack"] = "json"
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 10.0

    @property
    def address(self) -> str:
        return self.url or self.apprise or ""

    @property
    def title(self) -> str:
        """Its name; without one, where it is, and enough of a digest to tell it from others there."""
        parts = urlsplit(self.address)
        where = parts.hostname if self.url else parts.scheme
        return self.name or f"{where}-{hashlib.sha256(self.address.encode()).hexdigest()[:6]}"

    @property
    def place(self) -> str:
        """As much of the URL as may be shown: its path may be a secret, of a messenger's all of it."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if self.url else f"{parts.scheme}://"

    @property
    def at_most_seconds(self) -> int:
        return int(self.at_most[:-1]) * SECONDS[self.at_most[-1]]

    @property
    def holds(self) -> bool:
        """Whether what there is to tell may have to wait."""
        return self.quiet is not None or self.at_most_seconds > 0

    def is_quiet(self, moment: float) -> bool:
        if self.quiet is None:
            return False
        begin, _, end = self.quiet.partition("-")
        now = time.strftime("%H:%M", time.localtime(moment))
        return begin <= now < end if begin <= end else now >= begin or now < end

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
    target = table_of(entry, Target, place)
    for name in ("secret", "apprise"):
        target = with_file(target, name, place)
    if (target.url is None) == (target.apprise is None):
        raise ValueError(f"{place}: url, apprise or appriseFile: one of them")
    if target.apprise is None:
        check_url(target, place)
        check_secret(target, place)
        return target
    if target.secret or target.format != "json":
        raise ValueError(f"{place}: secret and format are for a url, not for apprise")
    check_messenger(target.apprise, place)
    unsaid = {name: value for name, (member, value) in FOR_PEOPLE.items() if member not in entry}
    return msgspec.structs.replace(target, **unsaid)


def with_file(target: Target, name: str, place: str) -> Target:
    """With what stands in the file that is named in its stead."""
    file = getattr(target, f"{name}_file")
    if file is None:
        return target
    if getattr(target, name):
        raise ValueError(f"{place}: {name} and {name}File: one of them is enough")
    return msgspec.structs.replace(target, **{name: secret_in(file, f"{place}: {name}File"), f"{name}_file": None})


def secret_in(file: str, place: str) -> str:
    try:
        secret = Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{place}: {error}") from None
    if len(secret) < 8:
        raise ValueError(f"{place}: {file} must have 8 characters or more")
    return secret


def check_url(target: Target, place: str) -> None:
    """The URL itself is not shown: it may hold a secret."""
    try:
        parts = urlsplit(target.address)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_right = False
    if not is_right or not target.address.isascii() or re.search(r"[\x00-\x20\x7f]", target.address):
        raise ValueError(f"{place}: url must be an http or https URL")


def check_secret(target: Target, place: str) -> None:
    try:
        short = target.key is not None and len(target.key) < 8
    except (ValueError, binascii.Error):
        short = True
    if short:
        raise ValueError(f"{place}: secret must be whsec_ and base64, or 8 characters or more")
