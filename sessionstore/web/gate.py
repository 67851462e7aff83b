"""Who may: the Host, the Origin, the token and its role, for HTTP and WebSocket alike, before anything else runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from sessionstore.log import security
from sessionstore.model.drafts import Headers
from sessionstore.model.events import Draft
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings, is_loopback_name
from sessionstore.store.turns import WHO
from sessionstore.web.asgi import ASGI, Message, Receive, Scope, Send, answer, refuse
from sessionstore.web.backpressure import LargeAnswers
from sessionstore.web.bodies import Bodies, BodyUnderWay
from sessionstore.web.forwarded import ProxyUser
from sessionstore.web.logins import BrowserLogin, Logins
from sessionstore.web.refusal_log import RefusalLog
from sessionstore.web.shares import PREFIX, ROLE, ShareBook
from sessionstore.web.tokens import PROXY, ROLES, Token, Tokens

COOKIE = "session_store"
PAGE_TOKEN = "X-Page-Token"
MOST_USERS = 10_000
"""Of a proxy, that are known at once."""
BEARER = re.compile(rb"bearer(?: |%20)", re.IGNORECASE)
"""Exporters of telemetry send what stands in OTEL_EXPORTER_OTLP_HEADERS as it stands there."""

# ----------------------------------------------------------- which role for what

READS = frozenset({"GET", "HEAD", "OPTIONS"})
READERS = ("admin", "control", "read")
FILES = (
    "hook_agent.py",
    "hook_agent_control.py",
    "hook_agent_control_graph.py",
    "hook_agent_facts.py",
    "hook_agent_fleet.py",
    "hook_agent_install.py",
    "hook_agent_patterns.py",
    "hook_agent_run.py",
    "hook_agent_ship.py",
    "hook_agent_restore.py",
    "hook_agent_langchain.py",
    "claude_session_store.py",
    "langgraph_checkpointer.py",
    "hook_agent.mjs",
    "hook_agent_control.mjs",
    "hook_agent_fleet.cjs",
)
"""What an agent's machine fetches; nothing in them is secret."""
PUBLIC = frozenset(
    {
        *product(READS, ("/", "/fleet", "/health", *(f"/{name}" for name in FILES))),
        *product(("POST", "DELETE"), ("/api/login",)),
    }
)
AGENT_READS = re.compile(r"/ready|/api/login|/api/sessions/(?!user/)[^/]+(/resume)?|/api/state/[^/]+")
"""What an agent needs to read: its session, its state, and how to go on; and who it is."""
MATERIAL = ("/api/transcripts/", "/api/checkpoints")
"""Below these is what agents' programs left here, to have it back or take it away."""
OF_USERS = "/api/sessions/user/"
"""Below it is the id of a user, which may have any characters but control ones."""
VALUES_OF_A_THREAD = re.compile(r"/api/checkpoints/[^/]+/?")
"""What shows more than its steps."""
NOTES = re.compile(r"/api/sessions/[^/]+/notes")
"""What whoever reads may add."""
PUSH = "/api/push"
"""What whoever reads may have told to his browser."""
FOR_ADMIN = re.compile(r"/api/import|/api/sessions/[^/]+/(?:history|shares(?:/[^/]+)?)")
CONTROLS = re.compile(r"/api/asks/[^/]+/answer|/api/sessions/[^/]+/orders|/api/orders")
"""Answers and orders."""


SHARED = re.compile(r"/api/sessions/(?!user/)[^/]+(?:/conversation|/changes|/events)?|/api/events/stream")
"""What whoever has a link to one session may read, of that session."""


def is_shared(method: str, path: str) -> bool:
    return method in READS and SHARED.fullmatch(path) is not None


def roles_for(method: str, path: str) -> tuple[str, ...] | None:
    """The roles that may do this; None: everybody."""
    if (method, path) in PUBLIC or (method in READS and path.startswith("/dashboard/")):
        return None
    if FOR_ADMIN.fullmatch(path):
        return ("admin",)
    if path.startswith(MATERIAL):
        if method not in READS or VALUES_OF_A_THREAD.fullmatch(path):
            return ("admin", "ingest")
        return ROLES
    if method in READS or path.startswith("/datasette"):
        return ROLES if AGENT_READS.fullmatch(path) else READERS
    if path == PUSH:
        return READERS
    if method == "DELETE":
        return ("admin",)
    if method == "POST" and NOTES.fullmatch(path):
        return READERS
    if method == "POST" and CONTROLS.fullmatch(path):
        return ("admin", "control")
    return ("admin", "ingest")


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
    """Of who asks, without a port."""
    scheme: str = "http"
    user: ProxyUser | None = None
    """Whom a trusted proxy says it speaks for."""


def asked_in(scope: Scope) -> Asked:
    given = scope["headers"]
    address = (scope.get("client") or ("",))[0]
    user = scope.get("state", {}).get("user")
    return Asked(scope.get("method", "GET"), scope["path"], given, dict(given), address, scope["scheme"], user)


class Caller(NamedTuple):
    """Who asks: the role, None if nobody was recognised, and why not."""

    role: str | None
    token: Token | None = None
    """By which; None also where none is needed."""
    login: BrowserLogin | None = None
    """By which cookie for it."""
    refusal: str = ""

    @property
    def name(self) -> str | None:
        """Of his token; None: without any."""
        return None if self.token is None else self.token.name

    def sign(self, draft: Draft) -> None:
        """What he writes says who he is, and comes by his right."""
        draft.by = self.token
        draft.actor = self.name or ""


ANYBODY = Caller("admin")
"""Who asks where no token is needed."""
NOBODY = Caller(None)
REASONS = (
    *("host", "origin", "token", "role", "rate"),
    *("connections", "idle", "listeners", "bodies", "unreadable"),
)
"""Why somebody is not let in, or let go, as the metrics count it."""


class Gate:
    """ASGI: lets through who may, with `scope["state"]["caller"]` set; answers all others itself."""

    def __init__(self, app: ASGI, settings: Settings, tokens: Tokens) -> None:
        self.app = app
        self.settings = settings
        self.tokens = tokens
        self.logins = Logins(settings, tokens)
        self.shares = ShareBook(settings)
        self.users: dict[tuple[str, str], Token] = {}
        """By name and role: those whom a proxy has named."""
        self.refused = dict.fromkeys(REASONS, 0)
        self.hosts: tuple[dict[bytes, bool], dict[bytes, bool]] = ({}, {})
        """Which are answered to: while no token is needed, and while one is."""
        self.refusal_log = RefusalLog()
        self.bodies = Bodies(max(settings.max_batch_bytes, settings.max_event_bytes))
        self.answers = LargeAnswers()

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
            scope["state"]["caller"] = caller = self.check_role(asked)
        except Problem as problem:
            await refuse(problem, scope, receive, send)
            return
        scope["state"]["body"] = body = self.body_of(caller, asked)
        WHO.set(body.who)
        if scope["type"] == "http":
            send = self.answers.counted(body.who, send)

        async def receive_bounded() -> Message:
            message = await receive()
            self.grow(body, len(message.get("body") or b""))
            return message

        try:
            await self.app(scope, receive_bounded, send)
        finally:
            body.let_go()

    def body_of(self, caller: Caller, asked: Asked) -> BodyUnderWay:
        """What comes of the request, counted with all else of its token, or of its address."""
        return BodyUnderWay(self.bodies, caller.token or asked.address)

    def expected(self, asked: Asked, size: int) -> BodyUnderWay | None:
        """What is about to come of a request of somebody known, counted already; None: of a stranger, or too much."""
        caller = self.caller(asked) if self.tokens else ANYBODY
        body = self.body_of(caller, asked)
        if caller.role is None or not self.bodies.has_room(body.who, size):
            return None
        body.hold(size)
        return body

    def grow(self, body: BodyUnderWay, size: int) -> None:
        """Raises Problem 503 where more is under way than may be."""
        try:
            body.grow(size)
        except Problem:
            self.refused["bodies"] += 1
            raise

    def admit(self, asked: Asked) -> Caller:
        """Who asks, if that is one who may. Raises Problem. The answer to a page also wants `with_cors`."""
        self.check_place(asked)
        return self.check_role(asked)

    def check_place(self, asked: Asked) -> None:
        """Whom the request is meant for, and where it comes from. Raises Problem."""
        if len(asked.given) > len(asked.headers):
            check_single(asked.given)
        self.check_host(asked)
        self.check_origin(asked)

    def check_host(self, asked: Asked) -> None:
        """Raises Problem 400 for no Host, 403 for one that is not answered to."""
        host = asked.headers.get(b"host")
        if host is None:
            raise Problem(400, "The request must have one Host header")
        hosts = self.hosts[self.tokens.is_required]
        known = hosts.get(host)
        if known is None:
            known = self.is_allowed_host(host.decode("latin-1"))
            if len(hosts) < 64:
                hosts[host] = known
        if not known:
            self.note_refusal("host", asked, said=host.decode("latin-1"))
            raise Problem(403, "This server does not answer to that Host: add its name to SESSIONS_ALLOWED_HOSTS")

    def note_refusal(self, reason: str, asked: Asked, **fields: str) -> None:
        self.refused[reason] += 1
        self.tell_refusal(reason, asked.address, method=asked.method, path=asked.path, **fields)

    def note_unreadable(self, address: str) -> None:
        """No HTTP that can be read: of the peer, for nothing in it says whom a proxy speaks for."""
        self.refused["unreadable"] += 1
        self.tell_refusal("unreadable", address)

    def tell_refusal(self, kind: str, address: str, **fields: str) -> None:
        """Into the log: the first few of an address in a minute, and then how many more there were."""
        if (more := self.refusal_log.count(kind, address)) is not None:
            security(f"{kind}_refused", client=address, **fields, more=more or None)

    def is_allowed_host(self, host: str) -> bool:
        name = host_name(host)
        if self.settings.allowed_hosts or not self.tokens:
            return name is not None and (is_loopback_name(name) or name in self.settings.allowed_hosts)
        return name is not None

    def check_origin(self, asked: Asked) -> None:
        """Raises Problem 403 for a page of a foreign origin."""
        origin = asked.headers.get(b"origin")
        known = not is_foreign_fetch(asked) if origin is None else self.is_allowed_origin(origin, asked)
        if not known:
            self.note_refusal("origin", asked, said=(origin or b"").decode("latin-1"))
            raise Problem(403, "Pages of that origin may not use this server: see SESSIONS_ALLOWED_ORIGINS")

    def is_allowed_origin(self, said: bytes, asked: Asked) -> bool:
        origin = said.decode("latin-1").lower()
        if origin in self.settings.allowed_origins:
            return True
        return origin in own_origins(asked) and not is_foreign_fetch(asked)

    def check_role(self, asked: Asked) -> Caller:
        """Who asks. Raises Problem 401 for no token that is known, 403 for a role that may not, 429 for too much."""
        controls = asked.method == "POST" and CONTROLS.fullmatch(asked.path)
        if not self.tokens and not controls and not is_by_share(asked):
            return ANYBODY
        caller = self.caller(asked)
        roles = roles_for(asked.method, asked.path)
        if caller.token is None:
            if roles is not None:
                raise self.wrong_token(asked.address, caller)
            return caller
        caller.token.requests += 1
        if roles is None or caller.role in roles or (caller.role == ROLE and is_shared(asked.method, asked.path)):
            self.check_rate(caller.token)
            if controls and who_is_shown(caller):
                self.check_page(asked, caller)
            return caller
        self.note_refusal("role", asked, actor=caller.token.name)
        raise beyond_role(caller, roles)

    def check_rate(self, token: Token) -> None:
        """Raises Problem 429 for more requests in this second than one token may make."""
        if self.settings.max_requests is not None and token.is_beyond(self.settings.max_requests):
            self.refused["rate"] += 1
            raise Problem(429, "Too many requests a second: see SESSIONS_MAX_REQUESTS", headers={"retry-after": "1"})

    def check_page(self, asked: Asked, caller: Caller) -> None:
        """What comes by a right that a browser adds by itself has to come from our own page, and from one that was
        there lately. Raises Problem 403."""
        said = asked.headers.get(PAGE_TOKEN.lower().encode(), b"").decode("latin-1")
        is_own = asked.headers.get(b"origin", b"").decode("latin-1").lower() in own_origins(asked)
        if not is_own or not self.logins.is_fresh(said, who_is_shown(caller)):
            self.note_refusal("origin", asked)
            raise Problem(403, f"The page has to say by {PAGE_TOKEN} that it is fresh: GET /api/login has it")

    def wrong_token(self, address: str, caller: Caller) -> Problem:
        """Counted and logged, but not held against its address: nobody guesses 20 characters, and many containers may
        have one address."""
        self.refused["token"] += 1
        if not caller.refusal:
            which = "A token" if self.tokens else f"A token of the role control, as in {self.tokens.folder}/control,"
            return unknown_caller(f"{which} is needed: send it as Authorization: Bearer TOKEN")
        self.tell_refusal("token", address, reason=caller.refusal)
        return unknown_caller(caller.refusal, "invalid_token")

    def caller(self, asked: Asked) -> Caller:
        """By a token; or as a trusted proxy says, which may leave there by what it was convinced; or by a cookie."""
        headers, authorization = asked.headers, asked.headers.get(b"authorization")
        if asked.user is not None and (authorization is None or authorization[:6].lower() == b"basic "):
            return self.caller_behind(asked.user)
        if authorization is not None:
            text = bearer_in(authorization)
            return self.caller_sharing(text) if text.startswith(PREFIX) else self.caller_with(text)
        if (value := cookie_of(headers)) is not None:
            if held := self.logins.holder(value):
                return Caller(held[0].role, *held)
            return Caller(None, refusal="The log-in is not valid any more: log in again")
        return NOBODY

    def caller_behind(self, user: ProxyUser) -> Caller:
        """With the strongest role that is his by name or group; of whom nothing is said, with that of `*`."""
        own = [role for name, role in self.settings.user_roles if name == user.name or name in user.groups]
        role = min(own, key=ROLES.index) if own else dict(self.settings.user_roles).get("*")
        if role is None:
            return Caller(None, refusal="No role is given to that user: see SESSIONS_USER_ROLES")
        if len(self.users) >= MOST_USERS:
            self.users.clear()
        token = self.users.setdefault((user.name, role), Token(user.name, role, b"", place=PROXY))
        return Caller(role, token)

    def still_lets_in(self, caller: Caller) -> bool:
        """Whether who was let in so still would be."""
        if caller.token is not None and caller.token.place in (PROXY, ROLE):
            return caller.token.place == PROXY or self.shares.holds(caller.token)
        return self.tokens.holds(caller.token) and (caller.login is None or self.logins.lasts(caller.login))

    def caller_with(self, text: str) -> Caller:
        """Whoever says this token."""
        token = self.tokens.holder(text)
        return Caller(token.role, token) if token else Caller(None, refusal="That token is not known here")

    def caller_sharing(self, text: str) -> Caller:
        """Whoever has this link."""
        token = self.shares.holder(text)
        return Caller(ROLE, token) if token else Caller(None, refusal="That link has ended, or is not known here")


def bearer_in(authorization: bytes) -> str:
    bearer = BEARER.match(authorization)
    return authorization[bearer.end() :].strip().decode("latin-1") if bearer else ""


def is_by_share(asked: Asked) -> bool:
    """Whether somebody comes with a link, who is to have no more of an open store than of any other."""
    return bearer_in(asked.headers.get(b"authorization", b"")).startswith(PREFIX)


def beyond_role(caller: Caller, roles: Sequence[str]) -> Problem:
    """403, as RFC 6750 has it."""
    scheme = 'Bearer realm="session store", error="insufficient_scope"'
    detail = f"The role {caller.role} may not do this; it takes {' or '.join(roles)}"
    return Problem(403, detail, headers={"www-authenticate": scheme})


def check_single(given: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises Problem 400 for several of a header by which somebody is let in: a proxy may look at another than we."""
    for header in (b"host", b"authorization", b"origin"):
        if sum(name == header for name, _ in given) > 1:
            raise Problem(400, f"The request must have one {header.decode().capitalize()} header")


def unknown_caller(detail: str, error: str = "") -> Problem:
    """401, as RFC 6750 has it."""
    said = f', error="{error}"' if error else ""
    return Problem(401, detail, headers={"www-authenticate": f'Bearer realm="session store"{said}'})


def own_origins(asked: Asked) -> list[str]:
    """Of our own pages, as a browser says it."""
    host = asked.headers[b"host"].decode("latin-1").lower()
    schemes = ("https",) if asked.scheme in ("https", "wss") else ("http", "https")
    return [f"{scheme}://{host}" for scheme in schemes]


def who_is_shown(caller: Caller) -> str:
    """By whose cookie, or on whose behalf a proxy asks; empty: by a token that was sent for this request."""
    if caller.login is not None:
        return f"login {caller.login.cookie}"
    return f"user {caller.token.name}" if caller.token is not None and caller.token.place == PROXY else ""


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
     b"x-user-id, x-session-id, last-event-id"),
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
