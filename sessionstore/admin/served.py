"""Asking the server that has a store for what a command may not do beside it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

from sessionstore.model.folds import Document
from sessionstore.settings import Settings
from sessionstore.web.tokens import tokens_folder

SECONDS = 60.0
"""How long the server may take for one request, or for a part of a large one."""


class NotServed(Exception):
    """There is no use in asking again. The message says why."""


class Served:
    """A server, over one connection."""

    def __init__(self, connection: http.client.HTTPConnection, token: str | None, prefix: str = "") -> None:
        self.connection = connection
        self.prefix = prefix
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    @property
    def at(self) -> str:
        return f"{self.connection.host}:{self.connection.port}"

    def ask(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, media_type: str = "", size: int = 0
    ) -> tuple[int, Document]:
        """The status, and what the server says. `size`: of a body that comes in pieces. Raises NotServed."""
        headers = self.headers | ({"content-type": media_type} if media_type else {})
        headers |= {"content-length": str(size)} if size else {}
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has refused it already, and says why
                self.connection.request(method, self.prefix + path, body, headers)
            answer = self.connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotServed(
                f"A server has the store, and cannot be reached at {self.at} ({error}): say with --url where it is"
            ) from None
        if answer.status in (401, 403):
            raise NotServed(f"The server does not let this be done: set SESSIONS_TOKEN ({said['detail']})")
        return answer.status, said


@contextmanager
def served(settings: Settings, url: str | None) -> Iterator[Served]:
    """The server at `url`, or where the settings say that one of this machine is."""
    host = settings.host if settings.is_loopback else "127.0.0.1"
    scheme = "https" if settings.tls_certificate else "http"
    with served_at(url or f"{scheme}://{host}:{settings.port}", admin_token(settings)) as server:
        yield server


@contextmanager
def served_at(url: str, token: str | None) -> Iterator[Served]:
    """The server there, which that token is for."""
    at = urlsplit(url)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    with closing(kind(at.hostname or "", at.port, timeout=SECONDS)) as connection:
        yield Served(connection, token, at.path.rstrip("/"))


def admin_token(settings: Settings) -> str | None:
    """The one that is set, or that the server made."""
    if settings.admin_token:
        return settings.admin_token
    made = tokens_folder(settings) / "admin"
    return made.read_text().strip() if made.exists() else None
