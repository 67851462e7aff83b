"""Forwarded headers: whom a trusted proxy speaks for, and below which path it shows the store.

uvicorn's ProxyHeadersMiddleware takes whatever a proxy repeats for an address, and knows no IPv4 peer of a socket that
listens for IPv6 too; here what is no address does not count, and one address has one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, NamedTuple

from sessionstore.model.drafts import header_text
from sessionstore.model.events import STORE, is_user
from sessionstore.settings import Settings, plain_address
from sessionstore.web.asgi import ASGI, Receive, Scope, Send

FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-prefix", b"x-forwarded-proto"})
PREFIX = re.compile(r"(?=.{1,256}\Z)(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+")
SCHEMES = {"http": ("http", "https"), "websocket": ("ws", "wss")}


class Forwarded:
    """ASGI: from here on `client` and `scheme` are those of who asks, not those of a proxy."""

    def __init__(self, app: ASGI, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.told = FORWARDED.union(settings.user_header)
        """Headers in which a proxy speaks."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "lifespan":
            self.look_behind(scope)
        return self.app(scope, receive, send)

    def look_behind(self, scope: Scope) -> None:
        state = scope.setdefault("state", {})
        said = [(name, value) for name, value in scope["headers"] if name in self.told]
        if not said:
            return
        headers = dict(said)
        peer = (scope.get("client") or ("",))[0]
        is_proxy = is_trusted(peer, self.settings)
        if is_proxy and self.settings.user_header:
            state["user"] = user_of(said, self.settings.user_header)
        if is_proxy or is_of_this_machine(peer):
            state["prefix"] = prefix_of(headers)
        if is_proxy:
            chain = b",".join(value for name, value in said if name == b"x-forwarded-for")
            scope["client"] = (client_of(chain, peer, self.settings), 0)
            if (scheme := headers.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()) in HTTP:
                scope["scheme"] = SCHEMES[scope["type"]][scheme == b"https"]


class ProxyUser(NamedTuple):
    """Whom a trusted proxy has let in."""

    name: str
    groups: frozenset[str]


def user_of(said: list[tuple[bytes, bytes]], header: tuple[bytes, ...]) -> ProxyUser | None:
    """None: the proxy names nobody, or two, or one whose name nobody can have: a colon is the store's own."""
    names = [value.strip() for name, value in said if name == header[0]]
    if len(names) != 1 or not is_user(name := header_text(names[0])) or ":" in name or name == STORE:
        return None
    groups = (part.strip() for other, value in said if other in header[1:] for part in header_text(value).split(","))
    return ProxyUser(name, frozenset(filter(None, groups)))


HTTP = (b"http", b"https")


def client_of(chain: bytes, peer: str, settings: Settings) -> str:
    """The address of the client: a trusted proxy's word counts, and of what the client said itself nothing does."""
    address = peer
    for part in reversed(chain.decode("latin-1").split(",")):
        if not is_trusted(address, settings):
            break
        try:
            address = str(plain_address(part.strip()))
        except ValueError:
            break
    return address


def prefix_of(headers: dict[bytes, bytes]) -> str:
    """The path below which a proxy shows the store; empty: none. It changes nothing but links in the answer."""
    said = headers.get(b"x-forwarded-prefix", b"").decode("latin-1").rstrip("/")
    return said if PREFIX.fullmatch(said) else ""


def prefix_in(scope: Any) -> str:
    """What stands before our own paths in a link."""
    prefix: str = scope["state"].get("prefix", "")
    return prefix


def is_trusted(address: str, settings: Settings) -> bool:
    """Whether it is that of a proxy whose word counts."""
    if not settings.trusted_proxies:
        return False
    try:
        known = plain_address(address)
    except ValueError:
        return False
    return any(known in network for network in settings.trusted_proxies)


def is_of_this_machine(address: str) -> bool:
    try:
        return plain_address(address).is_loopback
    except ValueError:
        return False
