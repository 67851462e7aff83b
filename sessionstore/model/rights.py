"""Rights: in whose name something is written, and the bounds of a token: whose sessions are its own."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a token is bound to: sessions of one of these users, and of one of these projects, and of these ids. What
    names nothing bounds nothing."""

    users: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.users or self.projects or self.sessions)

    def said(self) -> str:
        """For people."""
        kinds = {"user": self.users, "project": self.projects, "session": self.sessions}
        return ", ".join(f"{kind} {name}" for kind, names in kinds.items() for name in names)

    def hold(self, session_id: str, user_id: str | None, project: str | None) -> bool:
        """Whether a session that is there is within them."""
        return (
            (not self.sessions or session_id in self.sessions)
            and (not self.users or user_id in self.users)
            and (not self.projects or project in self.projects)
        )


class Right(Protocol):
    """By which right a draft comes: whose token it came with."""

    name: str
    bounds: Bounds | None
    """None: it may write to any session."""
    created: int
    """Sessions begun in this second."""

    def may_create(self, second: str) -> bool:
        """Whether it may begin one more session in this second."""
