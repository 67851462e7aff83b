"""A call of the server that has the store, with the token of its admin."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from sessionstore.settings import Settings
from sessionstore.web.tokens import tokens_folder


def connection_to(settings: Settings, url: str | None, seconds: float) -> http.client.HTTPConnection:
    """To `url`, else to where a server with these settings is. `seconds`: how long it may take for an answer."""
    host = settings.host if settings.is_loopback else "127.0.0.1"
    scheme = "https" if settings.tls_certificate else "http"
    at = urlsplit(url or f"{scheme}://{host}:{settings.port}")
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    return kind(at.hostname or "", at.port, timeout=seconds)


def credentials(settings: Settings) -> dict[str, str]:
    """The header with the token that is set, or that the server made."""
    token = settings.admin_token
    made = tokens_folder(settings) / "admin"
    if not token and made.exists():
        token = made.read_text().strip()
    return {"authorization": f"Bearer {token}"} if token else {}
