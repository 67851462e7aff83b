"""Who may: the Host, the Origin, the token and its role, for HTTP and WebSocket alike, before anything else runs."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .problems import MEDIA_TYPE, Problem
from .settings import BadSetting, Settings, is_loopback_name, secret

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]

ROLES = ("admin", "read", "ingest")
COOKIE = "session_store"

# ----------------------------------------------------------- which role for what

READS = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = (
    (READS, re.compile(r"/(health)?")),
    (frozenset({"POST", "DELETE"}), re.compile(r"/api/login")),
)
AGENT_READS = re.compile(r"/ready|/api/sessions/(?!user/)[^/]+(/resume)?|/api/state/[^/]+")
"""What an agent needs to read: its session, its state, and how to go on."""


def roles_for(method: str, path: str) -> tuple[str, ...] | None:
    """The roles that may do this; None: everybody."""
    if any(method in methods and pattern.fullmatch(path) for methods, pattern in PUBLIC):
        return None
    if method in READS:
        return ROLES if AGENT_READS.fullmatch(path) else ("admin", "read")
    if method == "DELETE":
        return ("admin",)
    return ("admin", "ingest")


# ------------------------------------------------------------------------ tokens


class Tokens:
    """The token of each role that has one, as hashes. None at all: everybody may do everything."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.digests = {role: digest(token) for role, token in tokens.items()}

    def __bool__(self) -> bool:
        return bool(self.digests)

    def role_of(self, token: str) -> str | None:
        """The role that a token has. Takes the same time whether it has one or not."""
        found = None
        for role, known in self.digests.items():
            if hmac.compare_digest(digest(token), known):
                found = role
        return found

    def cookie(self, role: str) -> str:
        """What a browser keeps instead of the token: it proves that the token was known, and dies with it."""
        proof = hmac.new(self.digests[role], b"session store cookie", hashlib.sha256).hexdigest()
        return f"{role}.{proof}"

    def role_of_cookie(self, value: str) -> str | None:
        role = value.partition(".")[0]
        if role in self.digests and hmac.compare_digest(value.encode(), self.cookie(role).encode()):
            return role
        return None


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def tokens_of(settings: Settings) -> dict[str, str]:
    """The tokens that are set; where none is and the address can be reached from elsewhere, three that are made.

    They are made once: files that are there already are read. Raises BadSetting where they cannot be kept.
    """
    given = {"admin": settings.admin_token, "read": settings.read_token, "ingest": settings.ingest_token}
    tokens = {role: token for role, token in given.items() if token}
    if tokens or settings.is_loopback:
        return tokens
    folder = tokens_folder(settings)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {role: kept_token(folder / role) for role in ROLES}
    except OSError as error:
        raise BadSetting(f"SESSIONS_TOKENS_DIR: no tokens can be kept in {folder}: {error.strerror}") from None


def tokens_folder(settings: Settings) -> Path:
    return settings.tokens_directory or settings.directory / "tokens"


def kept_token(path: Path) -> str:
    try:
        kept = secret(path.read_text().strip()) if path.exists() else None
    except ValueError as error:
        raise BadSetting(
            f"SESSIONS_TOKENS_DIR: the token in {path} {error}; without the file a new one is made"
        ) from None
    if kept is not None:
        return kept
    made = secrets.token_urlsafe(24)
    write_token(path, made, 0o600)
    return made


def write_token(path: Path, token: str, mode: int) -> None:
    """Wholly or not at all, and for good."""
    temporary = path.with_suffix(f".{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    temporary.rename(path)


def hand_out_ingest_token(settings: Settings, tokens: dict[str, str]) -> None:
    """Write the token that agents need, and no other, where they may read it. Raises BadSetting where that fails."""
    path = settings.agent_token_file
    if path is None or "ingest" not in tokens:
        return
    try:
        write_token(path, tokens["ingest"], 0o444)
    except OSError as error:
        raise BadSetting(f"SESSIONS_AGENT_TOKEN_FILE={str(path)!r} cannot be written: {error.strerror}") from None


# -------------------------------------------------------------------------- gate


class Asked(NamedTuple):
    """What the gate looks at: a request, or the opening of a WebSocket."""

    method: str
    path: str
    given: Sequence[tuple[bytes, bytes]]
    """Its headers as they came, in lower case."""
    headers: Headers
    """The same by name."""
    address: str = ""
    """Of the peer, without its port."""
    scheme: str = "http"


def asked_in(scope: Scope) -> Asked:
    given = scope["headers"]
    address = (scope.get("client") or ("",))[0]
    return Asked(scope.get("method", "GET"), scope["path"], given, dict(given), address, scope["scheme"])


class Caller(NamedTuple):
    """Who asks: the role, None if nobody was recognised, and why not."""

    role: str | None
    refusal: str = ""


ANYBODY = Caller("admin")
"""Who asks where no token is needed."""


class Gate:
    """ASGI: lets through who may, with `scope["state"]["role"]` set; answers all others itself."""

    def __init__(self, app: ASGI, settings: Settings, tokens: Tokens) -> None:
        self.app = app
        self.settings = settings
        self.tokens = tokens
        self.refused: dict[str, int] = {"host": 0, "origin": 0, "token": 0, "role": 0}
        self.hosts: dict[bytes, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        asked = asked_in(scope)
        try:
            self.check_place(asked)
            if b"origin" in asked.headers:
                send = with_cors(send, asked.headers[b"origin"])
            if is_preflight(asked):
                await answer(send, 204, PREFLIGHT)
                return
            scope["state"]["role"] = self.check_role(asked).role
        except Problem as problem:
            await refuse(problem, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def admit(self, asked: Asked) -> Caller:
        """Who asks, if that is one who may. Raises Problem. The answer to a page also wants `with_cors`."""
        self.check_place(asked)
        return self.check_role(asked)

    def check_place(self, asked: Asked) -> None:
        """Whom the request is meant for, and where it comes from. Raises Problem."""
        self.check_host(asked)
        self.check_origin(asked)

    def check_host(self, asked: Asked) -> None:
        """Raises Problem 400 for no Host or several, 403 for one that is not answered to."""
        host, given = asked.headers.get(b"host"), asked.given
        if host is None or (len(given) > len(asked.headers) and sum(name == b"host" for name, _ in given) > 1):
            raise Problem(400, "The request must have one Host header")
        known = self.hosts.get(host)
        if known is None:
            known = self.is_allowed_host(host.decode("latin-1"))
            if len(self.hosts) < 64:
                self.hosts[host] = known
        if not known:
            self.refused["host"] += 1
            raise Problem(403, "This server does not answer to that Host: add its name to SESSIONS_ALLOWED_HOSTS")

    def is_allowed_host(self, host: str) -> bool:
        name = host_name(host)
        if self.settings.allowed_hosts or not self.tokens:
            return name is not None and (is_loopback_name(name) or name in self.settings.allowed_hosts)
        return name is not None

    def check_origin(self, asked: Asked) -> None:
        """Raises Problem 403 for a page of a foreign origin."""
        headers = asked.headers
        if b"origin" in headers:
            host = headers[b"host"].decode("latin-1").lower()
            origin = headers[b"origin"].decode("latin-1").lower()
            known = origin in self.settings.allowed_origins or origin in (f"http://{host}", f"https://{host}")
        else:
            known = not is_foreign_fetch(asked)
        if not known:
            self.refused["origin"] += 1
            raise Problem(403, "Pages of that origin may not use this server: see SESSIONS_ALLOWED_ORIGINS")

    def check_role(self, asked: Asked) -> Caller:
        """Who asks. Raises Problem 401 for no token that is known, 403 for a role that may not."""
        if not self.tokens:
            return ANYBODY
        caller = self.caller(asked.headers)
        roles = roles_for(asked.method, asked.path)
        if roles is None or caller.role in roles:
            return caller
        if caller.role is None:
            self.refused["token"] += 1
            error = ', error="invalid_token"' if caller.refusal else ""
            raise Problem(
                401,
                caller.refusal or "A token is needed: send it as Authorization: Bearer TOKEN",
                headers={"www-authenticate": f'Bearer realm="session store"{error}'},
            )
        self.refused["role"] += 1
        scheme = 'Bearer realm="session store", error="insufficient_scope"'
        detail = f"The role {caller.role} may not do this; it takes {' or '.join(roles)}"
        raise Problem(403, detail, headers={"www-authenticate": scheme})

    def caller(self, headers: Headers) -> Caller:
        authorization = headers.get(b"authorization")
        if authorization is not None:
            scheme, _, token = authorization.decode("latin-1").partition(" ")
            role = self.tokens.role_of(token.strip()) if scheme.lower() == "bearer" else None
            return Caller(role, "" if role else "That token is not known here")
        if (value := cookie_of(headers)) is not None:
            role = self.tokens.role_of_cookie(value)
            return Caller(role, "" if role else "The log-in is not valid any more: log in again")
        return Caller(None)


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None if it is none."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
    return match[1].lower().strip("[]") if match else None


def cookie_of(headers: Headers) -> str | None:
    """The value of our cookie, whatever stands beside it: a browser sends the cookies of every port of localhost."""
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value.strip('"')
    return None


# -------------------------------------------------------------------------- CORS


def is_preflight(asked: Asked) -> bool:
    asks = b"origin" in asked.headers and b"access-control-request-method" in asked.headers
    return asks and asked.method == "OPTIONS"


def is_foreign_fetch(asked: Asked) -> bool:
    """Whether a page elsewhere asks for this without naming its origin, as for an image or a script.

    A link that is followed from there is none: it shows the answer to the person
    and to nobody else. https://www.w3.org/TR/fetch-metadata/
    """
    if asked.headers.get(b"sec-fetch-site") not in (b"cross-site", b"same-site"):
        return False
    return asked.method != "GET" or asked.headers.get(b"sec-fetch-mode") != b"navigate"


PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, if-match, x-timestamp, "
     b"x-user-id, last-event-id"),
    (b"access-control-max-age", b"600"),
]  # fmt: skip


def cors_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"etag, link, retry-after"),
        (b"vary", b"origin"),
    ]


def with_cors(send: Send, origin: bytes) -> Send:
    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *cors_headers(origin)]
        await send(message)

    return send_with_cors


# ----------------------------------------------------------------------- answers


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    """One whole plain ASGI response."""
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


def problem_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    return [*headers, (b"content-type", MEDIA_TYPE.encode())]


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a problem in plain ASGI, also to a WebSocket that has not been accepted."""
    headers = problem_headers(problem)
    if scope["type"] == "http":
        await answer(send, problem.status, headers, problem.body())
        return
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
        return
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body()})
