"""Budgets: how much may be used before somebody hears of it, or is asked. The file that SESSIONS_BUDGETS names.

[[budgets]]
name = "ann"            # told with each crossing
user = "ann"            # or project, tag, session; "*": each for itself; none of them: all together
usd = 20.0              # or tokens
per = "day"             # or session, month; days are those of the server's time zone
warn = 0.8              # of it
then = "notify"         # or, once all of it is used: ask, pause, stop
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec

MOST = 100
SCOPES = ("user", "project", "tag", "session")

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Of an entry of such a file."""
Named = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""Whom it is about."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """So much money, or so many tokens, for whom and for how long."""

    name: Name
    user: Named | None = None
    project: Named | None = None
    tag: Named | None = None
    session: Named | None = None
    usd: Annotated[float, msgspec.Meta(gt=0)] | None = None
    tokens: Annotated[int, msgspec.Meta(gt=0)] | None = None
    per: Literal["session", "day", "month"] = "month"
    warn: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    then: Literal["notify", "ask", "pause", "stop"] = "notify"

    def __post_init__(self) -> None:
        if (self.usd is None) == (self.tokens is None):
            raise ValueError("usd or tokens: one of them, and not both")
        if sum(getattr(self, scope) is not None for scope in SCOPES) > 1:
            raise ValueError(f"{', '.join(SCOPES)}: at most one of them")

    @property
    def scope(self) -> tuple[str, str] | None:
        """Whose it is: the kind and its name, `*` for each; None: everybody's together."""
        return next(((scope, name) for scope in SCOPES if (name := getattr(self, scope)) is not None), None)

    @property
    def limit(self) -> float:
        """In US dollars, or tokens."""
        return self.usd if self.usd is not None else float(self.tokens or 0)

    @property
    def unit(self) -> Literal["usd", "tokens"]:
        return "tokens" if self.usd is None else "usd"


def budgets(text: str) -> tuple[Budget, ...]:
    """Those of the file with this path. Raises ValueError with the line or the member that is wrong."""
    return named_tables(text, "budgets", Budget)


class Called(Protocol):
    """What has a name."""

    @property
    def name(self) -> str: ...


Table = TypeVar("Table", bound=Called)


def named_tables(text: str, member: str, shape: type[Table]) -> tuple[Table, ...]:
    """What a TOML file has as [[budgets]] or [[rules]], each with a name of its own. Raises ValueError."""
    path = Path(text).expanduser()
    try:
        listed: Any = tomllib.loads(path.read_text()).get(member)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"must be a file that can be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(listed, list) or len(listed) > MOST:
        raise ValueError(f"{path} must have a [[{member}]] for each, and {MOST} at most")
    found = tuple(table_of(entry, shape, f"{path}: {member[:-1]} {at}") for at, entry in enumerate(listed, 1))
    names = [one.name for one in found]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{path}: two {member} are called {double!r}")
    return found


Shape = TypeVar("Shape")


def table_of(entry: Any, shape: type[Shape], place: str) -> Shape:
    """Raises ValueError that names the member."""
    try:
        return msgspec.convert(entry, shape)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}") from None
