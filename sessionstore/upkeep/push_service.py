"""Web Push (RFC 8030, 8188, 8291, 8292): one encrypted message to a push service that whoever subscribes has chosen.

So it could be any address. It is looked up, has to be public, and is spoken to at the very address that was looked at:
what a name means cannot change in between. No redirect is followed.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sessionstore import __version__
from sessionstore.secret_files import write_secret
from sessionstore.upkeep.webhooks import ended_after

MISSING = "This server cannot push: it lacks an extra, pip install 'session-store[push]'"
CONTACT = re.compile(r"https://[\w-]+\.[\w.-]+")
NOBODY = "mailto:nobody@example.org"
"""A push service wants to know whom to write to; so it is told where SESSIONS_PUBLIC_URL does not say."""
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252}[a-z0-9])?")
PATH = re.compile(r"[!-~]{1,1000}")
TIMEOUT = 10.0
SIGNED_SECONDS = 6 * 3600
KEPT_SECONDS = 12 * 3600
"""For so long a push service keeps what a browser that is away has not taken."""
UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
Resolve = Callable[[str, int], list[str]]
Connect = Callable[[tuple[str, int], float], socket.socket]


class Unfit(ValueError):
    """Why an endpoint, or a key, cannot be one."""


def is_here() -> bool:
    """Whether the extra is installed. It is imported when something is pushed: 0.7 s, and 27 MB."""
    return find_spec("pywebpush") is not None


# --------------------------------------------------------------------- addresses


class Endpoint(NamedTuple):
    """Where a browser is reached."""

    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"https://{self.host}" + (f":{self.port}" if self.port != 443 else "")


def endpoint_in(text: str) -> Endpoint:
    """Raises Unfit."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise Unfit("is no URL") from None
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    if parts.scheme != "https" or "@" in parts.netloc or not HOST.fullmatch(host) or not PATH.fullmatch(path):
        raise Unfit("is no https URL of a push service")
    return Endpoint(host, port, path)


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet: not a machine itself, nor a network of one's own, nor a group."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in UNICAST or address.sixtofour or address.teredo or address.scope_id:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def addresses_of(host: str, port: int) -> list[str]:
    """Raises OSError, UnicodeError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def public_address(endpoint: Endpoint, resolve: Resolve) -> str:
    """The first, where all are public. Raises Unfit."""
    try:
        addresses = resolve(endpoint.host, endpoint.port)
    except (OSError, UnicodeError) as error:
        raise Unfit(f"cannot be looked up: {error}") from None
    if not addresses or not all(map(is_public, addresses)):
        raise Unfit("is not at a public address")
    return addresses[0]


# -------------------------------------------------------------------------- keys


def raw(text: str, size: int) -> bytes:
    """Of base64url. Raises Unfit."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unfit("is no base64url") from None
    if len(found) != size:
        raise Unfit(f"must have {size} bytes")
    return found


def check_point(text: str) -> None:
    """Whether a browser's key lies on the curve P-256. Raises Unfit."""
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw(text, 65))
    except ValueError as error:
        raise Unfit(str(error) if isinstance(error, Unfit) else "is no point of P-256") from None


class ServerKey:
    """By which push services know this server (VAPID), made when it is first needed and kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.read: Any = None

    def vapid(self) -> Any:
        """Raises OSError, ValueError."""
        from py_vapid import Vapid

        with self.lock:
            if self.read is None:
                if not self.path.exists():
                    made = Vapid()
                    made.generate_keys()
                    write_secret(self.path, made.private_pem())
                self.read = Vapid.from_pem(self.path.read_bytes())
            return self.read

    def public(self) -> str:
        """As a browser wants it: base64url of the uncompressed point."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        point = self.vapid().public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return base64.urlsafe_b64encode(point).rstrip(b"=").decode()


# ---------------------------------------------------------------------- messages


class PinnedConnection(http.client.HTTPSConnection):
    """To one address, whatever the name means by now; the certificate is held against the name."""

    def __init__(self, endpoint: Endpoint, address: str, context: ssl.SSLContext, connect: Connect) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=TIMEOUT, context=context)
        self.address = address
        self.context = context
        self.open = connect

    def connect(self) -> None:
        plain = self.open((self.address, self.port), TIMEOUT)
        try:
            self.sock = self.context.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class PushService:
    """Pushes to whichever service a browser has. What is looked up and connected to by, tests may say."""

    def __init__(
        self,
        key: ServerKey,
        public_url: str | None = None,
        *,
        resolve: Resolve = addresses_of,
        connect: Connect = socket.create_connection,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        contact = CONTACT.match(public_url or "")
        self.contact = contact[0] if contact else NOBODY
        self.resolve = resolve
        self.connect = connect
        self.context = context

    def push(self, url: str, p256dh: str, auth: str, message: bytes, topic: str | None, urgency: str) -> int:
        """One attempt: the status of the answer. A message of the same topic takes the place of one that is not
        delivered yet. Raises Unfit, OSError, http.client.HTTPException."""
        from pywebpush import WebPusher

        endpoint = endpoint_in(url)
        address = public_address(endpoint, self.resolve)
        body = WebPusher({"endpoint": url, "keys": {"p256dh": p256dh, "auth": auth}}).encode(message)["body"]
        claims = {"aud": endpoint.origin, "sub": self.contact, "exp": int(time.time()) + SIGNED_SECONDS}
        headers = {
            **self.key.vapid().sign(claims),
            **({"Topic": topic} if topic else {}),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(KEPT_SECONDS),
            "Urgency": urgency,
            "User-Agent": f"session-store/{__version__}",
        }
        return self.post(endpoint, address, body, headers)

    def post(self, endpoint: Endpoint, address: str, body: bytes, headers: dict[str, str]) -> int:
        self.context = self.context or ssl.create_default_context()
        connection = PinnedConnection(endpoint, address, self.context, self.connect)
        with ended_after(connection, TIMEOUT):
            connection.request("POST", endpoint.path, body, headers)
            return connection.getresponse().status
