"""Who may do what: by token and role, by Host, by Origin, over HTTP and WebSocket alike."""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPMessage
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from app import create_app
from sessionstore.settings import BadSetting, Settings
from sessionstore.web.pages import AGENTS
from sessionstore.web.refusal_log import REMEMBERED, RefusalLog
from sessionstore.web.tokens import ROLES, Tokens
from tests import commands, peers
from tests.appliance import Appliance
from tests.peers import eventually

Headers = Mapping[str, str]

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
TOKENS = {"admin": "canary-admin-5f0c2b7e", "read": "canary-read-91d4a6c3", "ingest": "canary-ingest-c8e7205b"}
SETTINGS = {
    "SESSIONS_TOKEN": TOKENS["admin"],
    "SESSIONS_READ_TOKEN": TOKENS["read"],
    "SESSIONS_INGEST_TOKEN": TOKENS["ingest"],
}
NOTE = '{"type":"note"}'
session_ids = (f"access-{number}" for number in count(1))

# ------------------------------------------------------------------------ asking


class Reply(NamedTuple):
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """Its problem document, checked to be one."""
        document: dict[str, Any] = json.loads(self.body)
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert {"type", "title", "status", "detail", "error"} <= set(document), self
        assert (document["status"], document["error"]) == (self.status, document["detail"]), self
        return document


def ask(server: Appliance, method: str, path: str, headers: Headers | None = None, body: bytes | str = b"") -> Reply:
    """One request with exactly these headers, a Host unless they have one, and a length."""
    sent = {"Host": f"127.0.0.1:{server.port}", **(headers or {})}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body or method not in ("GET", "HEAD", "OPTIONS"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if isinstance(body, str) else body)
        response = connection.getresponse()
        is_endless = response.status == 101 or response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return Reply(response.status, response.headers, b"" if is_endless else response.read())
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def cookie_for(server: Appliance, token: str) -> dict[str, str]:
    """What a browser sends once it has logged in."""
    reply = ask(server, "POST", "/api/login", JSON, json.dumps({"token": token}))
    assert reply.status == 200, reply
    return {"Cookie": reply.headers["Set-Cookie"].partition(";")[0]}


def cursor_of(server: Appliance) -> int:
    cursor: int = json.loads(ask(server, "GET", "/health").body)["cursor"]
    return cursor


class Named(NamedTuple):
    """Tokens with names: of each role, and two that opened everything and do no more."""

    good: dict[str, str]
    over: str
    removed: str


PORT_3000 = {"SESSIONS_ALLOWED_ORIGINS": "http://localhost:3000,http://127.0.0.1:3000"}
"""As compose.yaml has it."""


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A server without tokens."""
    with Appliance(tmp_path_factory.mktemp("open"), PORT_3000) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def named(home: Path) -> Named:
    def made(name: str, role: str, *more: str) -> str:
        ended = commands.token(home, "add", name, "--role", role, *more)
        assert ended.returncode == 0, ended
        return ended.stdout.strip()

    over, removed = made("over", "admin", "--expires", "1s"), made("removed", "admin")
    assert commands.token(home, "remove", "removed").returncode == 0
    good = {role: made(f"a-{role}", role) for role in ROLES}
    eventually(lambda: re.search("^over .* over ", commands.token(home, "list").stdout, re.MULTILINE))
    return Named(good, over, removed)


@pytest.fixture(scope="module")
def guarded(home: Path, named: Named) -> Iterator[Appliance]:
    """A server with a token for each role, and more of them by name."""
    with Appliance(home, SETTINGS | PORT_3000) as server:
        yield server


@pytest.fixture
def cookies(guarded: Appliance) -> dict[str, dict[str, str]]:
    return {role: cookie_for(guarded, token) for role, token in TOKENS.items()}


# ------------------------------------------------------------- who may do what


def test_health_tells_the_caller_its_role(guarded: Appliance, cookies: dict[str, dict[str, str]]) -> None:
    for role, token in TOKENS.items():
        for headers in (bearer(token), cookies[role]):
            health = json.loads(ask(guarded, "GET", "/health", headers).body)
            assert (health["role"], health["tokens"]) == (role, True)
    for headers in ({}, bearer("unknown")):
        assert json.loads(ask(guarded, "GET", "/health", headers).body)["role"] is None


PROMISED = {"status", "uptime", "uptimeSeconds", "websocket", "storage", "version", "cursor", "searchLag", "tree"}
"""What the contract says of /health."""
INSIDE = {"sqlite", "database", "backup", "disk", "retention", "verify", "webhooks", "material", "lake"}


def test_health_tells_a_stranger_less(guarded: Appliance) -> None:
    known = json.loads(ask(guarded, "GET", "/health", bearer(TOKENS["ingest"])).body)
    stranger = json.loads(ask(guarded, "GET", "/health").body)
    assert stranger.keys() == known.keys() - INSIDE
    assert stranger.keys() == PROMISED | {"role", "tokens", "checks"}
    assert stranger["tree"].keys() == {"status", "cursor", "lag"}
    assert known["tree"].keys() == {"status", "cursor", "lag", "error"}


def test_where_no_token_is_needed_health_tells_all(appliance: Appliance) -> None:
    health = json.loads(ask(appliance, "GET", "/health").body)
    assert health.keys() >= PROMISED | INSIDE
    assert health["storage"] == str(appliance.folder)


@pytest.mark.parametrize("tokens", [("admin", "read"), ("read", "admin"), ("admin", "admin"), ("unknown", "admin")])
@pytest.mark.parametrize("method_and_path", [("GET", "/api/events"), ("POST", "/api/actions/s"), ("GET", "/ws")])
def test_several_tokens_are_none(guarded: Appliance, tokens: tuple[str, str], method_and_path: tuple[str, str]) -> None:
    """A proxy may look at another one than the store does."""
    said = "".join(f"Authorization: Bearer {TOKENS.get(token, token)}\r\n" for token in tokens)
    head = "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n{}\r\n".format(*method_and_path, said)
    assert peers.ask(guarded.port, head.encode()).status == 400


def test_where_no_token_is_needed_everybody_is_admin(appliance: Appliance) -> None:
    health = json.loads(ask(appliance, "GET", "/health").body)
    assert (health["role"], health["tokens"]) == ("admin", False)


AGENTS_FILES = tuple(f"GET {path}" for path in AGENTS)
EVERYBODY = (
    *("GET /health", "GET /", "GET /dashboard/{file}", "POST /api/login", "DELETE /api/login"),
    *AGENTS_FILES,
)
AGENTS_READ = (
    "GET /ready",
    "GET /api/login",
    "GET /api/sessions/{session_id}",
    "GET /api/sessions/{session_id}/resume",
    "GET /api/state/{session_id}",
)
READERS_READ = (
    "GET /api/sessions/{session_id}/archive",
    "GET /api/sessions/{session_id}/conversation",
    "GET /api/sessions/{session_id}/changes",
    "GET /api/transcripts/{folder}",
    "GET /api/checkpoints",
    "GET /api/webhooks",
    "GET /api/push",
    "GET /api/asks",
    "GET /api/orders",
    "GET /api/sessions/{session_id}/orders",
    "GET /metrics",
    "GET /api/sessions",
    "GET /api/sessions/user/{user_id}",
    "GET /api/sessions/{session_id}/events",
    "GET /api/actions/{session_id}",
    "GET /api/actions/{session_id}/responses",
    "GET /api/state/{session_id}/history",
    "GET /api/events",
    "GET /api/events/stream",
    "GET /api/query/recent",
    "GET /api/query/active",
    "GET /api/query/stats",
    "GET /api/query/summary",
    "GET /api/query/usage",
    "GET /api/budgets",
    "GET /api/sessions/{session_id}/usage",
    "GET /api/query/questions",
    "GET /api/query/search",
    "GET /ws",
    "GET /datasette",
    "GET /schema",
    "GET /schema/openapi.json",
    "GET /schema/assets/{name}",
    "GET /schema/{path}",
    "GET /schema/oauth2-redirect.html",
)
OPERATION = {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}}
KIND = {"key": "type", "value": {"stringValue": "input"}}


def exported(signal: str, items: str, **item: Any) -> dict[str, Any]:
    """A request of OTLP with one item, of the session ID."""
    resource = {"attributes": [{"key": "session_id", "value": {"stringValue": "ID"}}]}
    return {f"resource{signal}": [{"resource": resource, f"scope{signal}": [{items: [item]}]}]}


WRITES: dict[str, dict[str, object]] = {
    "POST /api/sessions": {"sessionId": "ID-new", "userId": "alice", "initial": {}},
    "PUT /api/sessions/{session_id}": {"userId": "alice"},
    "PATCH /api/sessions/{session_id}/metadata": {"sandboxId": "box-1"},
    "POST /api/sessions/{session_id}/finalize": {"status": "failed"},
    "POST /api/actions/{session_id}": {"type": "file_write", "path": "a.py"},
    "POST /api/actions/{session_id}/responses": {"type": "tool_result", "ok": True},
    "PATCH /api/state/{session_id}": {"phase": "testing"},
    "POST /api/state/{session_id}/goals": {"description": "Build REST API"},
    "PATCH /api/state/{session_id}/goals/{goal_id}": {"status": "completed"},
    "POST /api/state/{session_id}/agents": {"type": "backend-dev"},
    "PATCH /api/state/{session_id}/agents/{agent_id}": {"status": "running"},
    "POST /api/state/{session_id}/agents/{agent_id}/complete": {"result": "done"},
    "POST /api/events": {"type": "action", "sessionId": "ID", "data": {"type": "note"}},
    "POST /v1/logs": exported("Logs", "logRecords", attributes=[{"key": "event.name", "value": {"stringValue": "x"}}]),
    "POST /v1/traces": exported("Spans", "spans", spanId="ab", attributes=[OPERATION]),
    "POST /v1/metrics": exported(
        "Metrics", "metrics", name="claude_code.token.usage", sum={"dataPoints": [{"asInt": 5, "attributes": [KIND]}]}
    ),
    "POST /api/hooks/claude-code": {"session_id": "ID", "hook_event_name": "UserPromptSubmit", "prompt": "Go"},
}
NOTES: dict[str, dict[str, object]] = {"POST /api/sessions/{session_id}/notes": {"text": "Look at this"}}
"""Each with a body that is right; ID stands for the session."""
PUSHES = ("POST /api/push", "DELETE /api/push")
POLL = "POST /api/sessions/{session_id}/control"
CONTROLS: dict[str, dict[str, object]] = {
    "POST /api/asks/{ask_id}/answer": {"decision": "deny"},
    "POST /api/sessions/{session_id}/orders": {"order": "pause"},
    "POST /api/orders": {"order": "say", "text": "Well done", "userId": "alice"},
}
BODIES = WRITES | NOTES | CONTROLS | {POLL: {"ask": "ask-ID"}}
DELETES = ("DELETE /api/sessions/{session_id}",)
SHARES = "/api/sessions/{session_id}/shares"
FOR_ADMIN: dict[str, object] = {
    "POST /api/import": {"type": "mode"},
    "POST /api/sessions/{session_id}/history": {},
    f"POST {SHARES}": {},
    f"GET {SHARES}": {},
    f"DELETE {SHARES}": {},
}

OWN = "/api/transcripts/{folder}/{session}"
THREAD = "/api/checkpoints/{thread}"
MATERIAL_READS = (f"GET {OWN}", f"GET {OWN}/subkeys", f"GET {OWN}/summary", f"GET {THREAD}/steps")
MATERIAL_WRITES: dict[str, object] = {
    f"POST {OWN}": {},
    f"PUT {OWN}/summary": {},
    f"DELETE {OWN}": {},
    f"POST {THREAD}": {},
    f"GET {THREAD}": {},
    f"DELETE {THREAD}": {},
    "DELETE /api/checkpoints": {},
    f"POST {THREAD}/copy": {"to": "copy-ID"},
    f"POST {THREAD}/prune": {"keep": {"": ["1"]}},
}
"""An agent has what it wrote itself, and of a thread the reader has the steps alone."""
STEP = {"id": "1", "checkpoint": {"type": "x", "data": ""}, "metadata": {"type": "x", "data": ""}, "versions": {}}

MAY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(EVERYBODY, (*ROLES, "nobody")),
    **dict.fromkeys(AGENTS_READ, ROLES),
    **dict.fromkeys(READERS_READ, ("admin", "control", "read")),
    **dict.fromkeys(WRITES, ("admin", "ingest")),
    **dict.fromkeys((*NOTES, *PUSHES), ("admin", "control", "read")),
    POLL: ("admin", "ingest"),
    **dict.fromkeys(CONTROLS, ("admin", "control")),
    **dict.fromkeys((*DELETES, *FOR_ADMIN), ("admin",)),
    **dict.fromkeys(MATERIAL_READS, ("admin", "control", "read", "ingest")),
    **dict.fromkeys(MATERIAL_WRITES, ("admin", "ingest")),
}
QUERIES = {"DELETE /api/checkpoints": "?runId=1", "POST /api/import": "?folder=f&session={}"}
STATUSES = {
    "POST /api/push": 415,  # nothing is pushed to
    "DELETE /api/push": 422,
    "POST /api/sessions": 201,
    f"POST {SHARES}": 201,
    "POST /api/sessions/{session_id}/orders": 201,
    "POST /api/orders": 201,
    POLL: 204,
    "GET /ws": 101,
    "GET /datasette": 307,
    "GET /schema/{path}": 404,
}
SPELLINGS = ("/{}", "{}/", "{}//")
"""Of a path, that the router reads as the same."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def routes_of_the_app() -> set[str]:
    app = create_app(Settings(directory=Path("/nowhere"))).litestar
    return {
        f"{method} {route.path_format}"
        for route in app.routes
        for method in (getattr(route, "methods", None) or {"GET"}) - {"OPTIONS"}
    }


def path_of(operation: str, session_id: str) -> str:
    path = operation.partition(" ")[2]
    return path.format(
        session_id=session_id,
        goal_id="goal-1",
        agent_id="agent-1",
        user_id="alice",
        name="swagger-ui.css",
        path="any",
        file="main.js",
        folder="folder",
        session=session_id,
        thread=session_id,
        ask_id=f"ask-{session_id}",
    ) + QUERIES.get(operation, "").format(session_id)


def attempt(server: Appliance, operation: str, session_id: str, credentials: Headers, spelt: str = "{}") -> Reply:
    """The operation as its callers do it, on this session; its path spelt in another way."""
    headers = {**credentials}
    body = ""
    if operation in BODIES:
        headers |= NDJSON if operation == "POST /api/events" else JSON
        body = json.dumps(BODIES[operation]).replace("ID", session_id)
    if operation in CONTROLS and "Cookie" in headers:
        fresh = json.loads(ask(server, "GET", "/api/login", credentials).body).get("pageToken") or ""
        headers |= {"Origin": server.url, "X-Page-Token": fresh}
    if operation in FOR_ADMIN:
        headers |= NDJSON if operation.endswith(("/import", "/history")) else JSON
        body = json.dumps(FOR_ADMIN[operation])
    if operation in (*MATERIAL_READS, *MATERIAL_WRITES):
        writes_material(server, session_id, credentials)
        body = json.dumps(MATERIAL_WRITES.get(operation)).replace("ID", session_id)
        is_lines = operation in (f"POST {OWN}", f"POST {THREAD}")
        body = json.dumps({"checkpoint": STEP}) if operation == f"POST {THREAD}" else body
        headers |= NDJSON if is_lines else JSON
    if operation == "POST /api/login":
        headers |= JSON
        body = json.dumps({"token": TOKENS["read"]})
    if operation == "GET /ws":
        headers |= UPGRADE
    return ask(server, operation.partition(" ")[0], spelt.format(path_of(operation, session_id)), headers, body)


def writes_material(server: Appliance, session_id: str, credentials: Headers) -> None:
    """Lines of a conversation with a summary, and a checkpoint, by one who may, else by the admin."""
    path, thread = (path_of(f"POST {place}", session_id) for place in (OWN, THREAD))
    for by in (dict(credentials), bearer(TOKENS["admin"])):
        if ask(server, "POST", path, NDJSON | by, "{}").status == 200:
            assert ask(server, "PUT", f"{path}/summary", JSON | by, "{}").status == 200
            assert ask(server, "POST", thread, NDJSON | by, json.dumps({"checkpoint": STEP})).status == 200
            return


def asks_a_person(server: Appliance, session_id: str, credentials: Headers) -> None:
    """An agent asks, and waits for the answer: by one who may, else by the admin."""
    said = {"type": "permission_request", "eventId": f"ask-{session_id}", "attention": {"reason": "permission"}}
    for by in (dict(credentials), bearer(TOKENS["admin"])):
        if ask(server, "POST", f"/api/actions/{session_id}", JSON | by, json.dumps(said)).status == 200:
            assert attempt(server, POLL, session_id, by).status == 204
            return


def new_session(server: Appliance) -> str:
    """A session with a goal, an agent and an entry in its log."""
    session_id = next(session_ids)
    events: list[dict[str, object]] = [
        {"type": "session_created", "userId": "alice"},
        {"type": "goal_added", "data": {"id": "goal-1", "description": "Build REST API"}},
        {"type": "agent_spawned", "data": {"agentId": "agent-1", "type": "backend-dev"}},
        {"type": "action", "data": {"type": "note"}},
    ]
    lines = "\n".join(json.dumps(event | {"sessionId": session_id}) for event in events)

    def begins() -> bool:
        """One token may begin so many in a second, and no more."""
        reply = ask(server, "POST", "/api/events", NDJSON | bearer(TOKENS["admin"]), lines)
        told = json.loads(reply.body)
        assert {line["status"] for line in told["rejected"]} <= {429}, reply
        return bool(told["accepted"] == len(events))

    eventually(begins)
    return session_id


def whole(server: Appliance, session_id: str) -> bytes:
    return ask(server, "GET", f"/api/sessions/{session_id}", bearer(TOKENS["admin"])).body


def test_the_table_has_every_route_and_no_other(guarded: Appliance) -> None:
    document = json.loads(ask(guarded, "GET", "/schema/openapi.json", bearer(TOKENS["read"])).body)
    documented = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    undocumented = {
        "GET /",
        "GET /ws",
        "GET /dashboard/{file}",
        *AGENTS_FILES,
        *(operation for operation in MAY if operation.startswith(("GET /schema", "GET /datasette"))),
    }
    assert documented == set(MAY) - undocumented
    assert routes_of_the_app() == set(MAY)


@pytest.mark.parametrize("operation", [operation for operation in MAY if operation not in EVERYBODY])
def test_who_has_no_token_or_a_bad_one_is_turned_away(guarded: Appliance, named: Named, operation: str) -> None:
    session_id = new_session(guarded)
    before, cursor = whole(guarded, session_id), cursor_of(guarded)
    reply = attempt(guarded, operation, session_id, {})
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="session store"'
    assert reply.problem["detail"]
    for credentials in (
        bearer("canary-wrong-00000000"),
        bearer(""),
        bearer(TOKENS["admin"] + "x"),
        bearer(TOKENS["admin"].upper()),
        bearer(named.over),
        bearer(named.removed),
        {"Authorization": TOKENS["admin"]},
        {"Authorization": f"Basic {TOKENS['admin']}"},
        {"Cookie": "session_store=admin"},
        {"Cookie": f"session_store={TOKENS['admin']}"},
        {"Cookie": f"session_store=admin.{'0' * 64}"},
    ):
        reply = attempt(guarded, operation, session_id, credentials)
        assert reply.status == 401, credentials
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="session store", error="invalid_token"'
        assert reply.problem["detail"]
    assert (whole(guarded, session_id), cursor_of(guarded)) == (before, cursor)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", MAY)
def test_a_role_may_do_what_the_table_says_and_nothing_else(
    guarded: Appliance, named: Named, operation: str, role: str
) -> None:
    expected = STATUSES.get(operation, 200)
    changes = operation in WRITES | NOTES | CONTROLS or operation in DELETES
    of_settings = [bearer(TOKENS[role]), cookie_for(guarded, TOKENS[role])] if role in TOKENS else []
    all_credentials = (bearer(named.good[role]), *of_settings)
    if role not in MAY[operation]:
        refuses(guarded, operation, role, all_credentials)
        return
    before = b""
    for credentials in all_credentials:
        if changes or operation in (POLL, *MATERIAL_READS, *MATERIAL_WRITES) or not before:
            session_id = session_for(guarded, operation, credentials)
            before, cursor = whole(guarded, session_id), cursor_of(guarded)
        reply = attempt(guarded, operation, session_id, credentials)
        is_changed = whole(guarded, session_id) != before
        assert reply.status == expected, reply
        assert (cursor_of(guarded) > cursor) == changes
        assert is_changed == (changes and operation != "POST /api/sessions")


def session_for(guarded: Appliance, operation: str, credentials: dict[str, str]) -> str:
    session_id = new_session(guarded)
    if operation in CONTROLS or operation == POLL:
        asks_a_person(guarded, session_id, credentials)
    return session_id


def refuses(guarded: Appliance, operation: str, role: str, all_credentials: tuple[dict[str, str], ...]) -> None:
    session_id = session_for(guarded, operation, all_credentials[0])
    before, cursor = whole(guarded, session_id), cursor_of(guarded)
    others = [(all_credentials[0], spelt) for spelt in SPELLINGS]
    for credentials, spelt in (*((credentials, "{}") for credentials in all_credentials), *others):
        reply = attempt(guarded, operation, session_id, credentials, spelt)
        assert reply.status == 403, spelt
        assert reply.headers["WWW-Authenticate"] == 'Bearer realm="session store", error="insufficient_scope"'
        assert f"The role {role} may not do this" in reply.problem["detail"]
    assert (whole(guarded, session_id), cursor_of(guarded)) == (before, cursor)


@pytest.mark.parametrize("operation", EVERYBODY)
def test_what_everybody_may_do_needs_no_token(guarded: Appliance, operation: str) -> None:
    assert attempt(guarded, operation, "any", {}).status == 200
    assert attempt(guarded, operation, "any", bearer("canary-wrong-00000000")).status == 200
    assert attempt(guarded, operation, "any", {}, "/{}").status == 200


def test_no_method_of_any_path_is_forgotten(guarded: Appliance) -> None:
    paths = {path_of(operation, "forgotten") for operation in MAY}
    cursor = cursor_of(guarded)
    open_paths = [path_of(operation, "forgotten") for operation in EVERYBODY if operation.startswith("GET ")]
    open_to_all = {(method, path) for path in open_paths for method in ("GET", "HEAD", "OPTIONS")}
    open_to_all |= {("POST", "/api/login"), ("DELETE", "/api/login")}
    for method, path in product(METHODS, paths):
        status = ask(guarded, method, path).status
        assert (status == 401) == ((method, path) not in open_to_all), (method, path, status)
        assert status < 500, (method, path)
    assert cursor_of(guarded) == cursor


@pytest.mark.parametrize(
    "path",
    [
        "/health/../api/events",
        "/health%2F..%2Fapi%2Fevents",
        "//api/events",
        "/./api/events",
        "/api//events",
        "/api/login/../events",
        "/api/sessions/ID/resume/../events",
        "/api/sessions/ID%2Fevents",
        "/api/sessions/user%2Falice",
        "/api/sessions/user/resume",
        "/api/state/ID%2Fhistory",
        "/api/state/ID/history/",
        "/API/events",
        "/api/events/",
        "/api/events%00/health",
        "/api/events?path=/health",
        "/api/events;/health",
        "/api/events#/health",
    ],
)
def test_a_disguised_path_opens_nothing(guarded: Appliance, path: str) -> None:
    path = path.replace("ID", new_session(guarded))
    assert ask(guarded, "GET", path).status in (400, 401)
    assert ask(guarded, "GET", path, bearer(TOKENS["ingest"])).status in (400, 403, 404)


def test_datasette_is_for_readers_alone(guarded: Appliance) -> None:
    path = "/datasette/sessions.json?sql=select+1+as+one"
    for method in METHODS:
        assert ask(guarded, method, path).status == 401
        assert ask(guarded, method, path, bearer(TOKENS["ingest"])).status == 403
    assert ask(guarded, "GET", path, bearer(TOKENS["read"])).status == 200


def test_a_token_in_the_query_opens_nothing(guarded: Appliance) -> None:
    for name in ("token", "access_token"):
        assert ask(guarded, "GET", f"/api/events?{name}={TOKENS['admin']}").status == 401
        assert ask(guarded, "GET", f"/ws?{name}={TOKENS['admin']}", UPGRADE).status == 401


def test_the_scheme_is_read_in_any_case(guarded: Appliance) -> None:
    assert ask(guarded, "GET", "/api/events", {"Authorization": f"bearer  {TOKENS['read']}"}).status == 200


def test_a_session_is_deleted_by_a_batch_only_for_an_admin(guarded: Appliance) -> None:
    session_id = new_session(guarded)
    deletion = {"type": "session_deleted", "sessionId": session_id}
    note = {"type": "action", "sessionId": session_id, "data": {"type": "note"}}
    lines = f"{json.dumps(deletion)}\n{json.dumps(note)}\n"

    answer = json.loads(ask(guarded, "POST", "/api/events", NDJSON | bearer(TOKENS["ingest"]), lines).body)
    assert answer["accepted"] == 1
    (rejected,) = answer["rejected"]
    assert (rejected["line"], rejected["status"]) == (1, 403)
    assert ask(guarded, "GET", f"/api/sessions/{session_id}", bearer(TOKENS["read"])).status == 200

    answer = json.loads(
        ask(guarded, "POST", "/api/events", NDJSON | bearer(TOKENS["admin"]), json.dumps(deletion)).body
    )
    assert (answer["accepted"], answer["rejected"]) == (1, [])
    assert ask(guarded, "GET", f"/api/sessions/{session_id}", bearer(TOKENS["read"])).status == 404


# ------------------------------------------------------------------------ tokens


def made_tokens(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text().strip() for file in folder.iterdir()}


def test_tokens_are_made_once_where_others_can_reach_the_server(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_HOST": "0.0.0.0"}) as server:
        tokens = made_tokens(folder / "tokens")
        assert sorted(tokens) == ["admin", "control", "ingest", "read"]
        assert len(set(tokens.values())) == 4
        assert min(map(len, tokens.values())) >= 32
        modes = {stat.S_IMODE(file.stat().st_mode) for file in (folder / "tokens").iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE((folder / "tokens").stat().st_mode) == 0o700
        assert server.said(f"the dashboard asks for one: {folder}/tokens/read, or admin, to delete too")
        told = r"Dashboard +http://127.0.0.1:\d+/, from elsewhere http://([^:/]+):(\d+)/$"
        found = re.search(told, server.output, re.MULTILINE)
        assert found, server.output
        with socket.create_connection((found[1], int(found[2])), timeout=10):
            pass  # the address that is named can be opened
        assert not any(token in server.output for token in tokens.values())

        assert ask(server, "GET", "/api/events").status == 401
        for role, status in {"admin": 200, "read": 200, "ingest": 403}.items():
            assert ask(server, "GET", "/api/events", bearer(tokens[role])).status == status
        server.stop()
        server.start()
        assert made_tokens(folder / "tokens") == tokens
        assert ask(server, "GET", "/api/events", bearer(tokens["read"])).status == 200


def test_made_tokens_are_kept_where_they_are_wanted(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "secrets" / "here"
    env = {"SESSIONS_HOST": "0.0.0.0", "SESSIONS_TOKENS_DIR": str(elsewhere)}
    elsewhere.mkdir(parents=True)
    (elsewhere / "read").write_text("from-a-secret-mount\n")
    with Appliance(folder, env) as server:
        tokens = made_tokens(elsewhere)
        assert sorted(tokens) == ["admin", "control", "ingest", "read"]
        assert tokens["read"] == "from-a-secret-mount"
        assert not (folder / "tokens").exists()
        assert ask(server, "GET", "/api/events", bearer("from-a-secret-mount")).status == 200


def test_the_token_of_agents_alone_is_copied_to_where_they_may_read_it(folder: Path, tmp_path: Path) -> None:
    handed_out = tmp_path / "agents" / "token"
    handed_out.parent.mkdir()
    handed_out.write_text("of another store\n")
    env = {"SESSIONS_HOST": "0.0.0.0", "SESSIONS_AGENT_TOKEN_FILE": str(handed_out)}
    with Appliance(folder, env):
        assert list(handed_out.parent.iterdir()) == [handed_out]
        assert handed_out.read_text() == (folder / "tokens" / "ingest").read_text()
        assert stat.S_IMODE(handed_out.stat().st_mode) == 0o444
        assert stat.S_IMODE((folder / "tokens" / "admin").stat().st_mode) == 0o600


def test_where_there_is_no_token_of_agents_none_is_copied(folder: Path, tmp_path: Path) -> None:
    with Appliance(folder, {"SESSIONS_AGENT_TOKEN_FILE": str(tmp_path / "token"), "SESSIONS_TOKEN": TOKENS["admin"]}):
        assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("kept", [b"short\n", b"two words here\n", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"])
def test_a_kept_token_that_cannot_be_used_is_told_by_its_file(folder: Path, kept: bytes) -> None:
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokens" / "read").write_bytes(kept)
    with pytest.raises(BadSetting, match=f"SESSIONS_TOKENS_DIR: the token in {folder}/tokens/read") as error:
        Tokens(Settings(directory=folder, host="0.0.0.0")).prepare()
    assert repr(kept)[2:-1] not in str(error.value)


def test_where_some_tokens_are_set_no_others_are_made(folder: Path) -> None:
    env = {"SESSIONS_HOST": "0.0.0.0", "SESSIONS_INGEST_TOKEN": TOKENS["ingest"], "SESSIONS_READ_TOKEN": TOKENS["read"]}
    with Appliance(folder, env) as server:
        assert not (folder / "tokens").exists()
        assert ask(server, "GET", "/api/events").status == 401
        assert ask(server, "GET", "/api/events", bearer(TOKENS["read"])).status == 200
        assert ask(server, "DELETE", "/api/sessions/any", bearer(TOKENS["read"])).status == 403
        note = ask(server, "POST", "/api/actions/any", JSON | bearer(TOKENS["ingest"]), '{"type":"note"}')
        assert note.status == 200


def test_without_tokens_all_is_open_to_this_machine_alone(appliance: Appliance) -> None:
    session_id = new_session(appliance)
    assert ask(appliance, "GET", "/api/events").status == 200
    assert ask(appliance, "GET", "/api/events", bearer("whatever")).status == 200
    assert ask(appliance, "DELETE", f"/api/sessions/{session_id}").status == 200
    assert made_tokens(appliance.folder / "tokens").keys() == {"control"}, "answers and orders are never open"
    assert appliance.said("open: only this machine can reach it")


# ---------------------------------------------------------------- wrong tokens


def test_wrong_tokens_are_counted_and_logged_and_shut_nobody_out(folder: Path) -> None:
    with Appliance(folder, SETTINGS) as server:
        cookie = cookie_for(server, TOKENS["read"])
        for number in range(40):
            assert ask(server, "GET", "/api/events", bearer(f"canary-guess-{number}")).status == 401
        assert ask(server, "POST", "/api/login", JSON, '{"token":"canary-guess-40"}').status == 401
        assert ask(server, "GET", "/ws", UPGRADE | bearer("canary-guess-41")).status == 401
        assert ask(server, "POST", "/api/actions/any", JSON | bearer("canary-guess-42"), NOTE).status == 401
        for good in (bearer(TOKENS["read"]), bearer(TOKENS["admin"]), cookie):
            assert ask(server, "GET", "/api/events", good).status == 200
        assert ask(server, "POST", "/api/actions/any", JSON | bearer(TOKENS["ingest"]), NOTE).status == 200

        metrics = ask(server, "GET", "/metrics", bearer(TOKENS["read"])).body.decode()
        (counted,) = re.findall(
            r'^sessionstore_auth_failures_total\{reason="token"\} ([0-9.]+)$', metrics, re.MULTILINE
        )
        assert float(counted) == 43
        eventually(lambda: server.output.count("token_refused") >= 10)
        told = [line for line in server.output.splitlines() if "token_refused" in line]
        assert len(told) == 10, "the first of an address in a minute"
        assert all("client=127.0.0.1" in line for line in told)
        assert "canary" not in server.output


def test_refusals_are_told_by_address_and_told_again_in_time() -> None:
    now = 0.0
    log = RefusalLog(lambda: now)

    def told(address: str, number: int) -> list[int]:
        return [more for _ in range(number) if (more := log.count("token", address)) is not None]

    assert told("192.0.2.1", 100) == [0] * 10
    assert told("::ffff:192.0.2.1", 100) == [], "the same address in other clothes"
    assert told("192.0.2.2", 100) == [0] * 10
    assert told("2001:db8::1", 100) == [0] * 10
    assert told("2001:db8::ffff:1", 100) == [], "one subscriber has all of a /64"
    now = 61.0
    assert told("192.0.2.1", 2) == [190, 0]
    for number in range(10_000):
        log.count("token", f"10.0.{number // 250}.{number % 250}")
    assert len(log.of) <= REMEMBERED


def test_a_token_that_is_short_is_good_and_warned_about(folder: Path) -> None:
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokens" / "read").write_text("canary-kept\n")
    with Appliance(folder, {"SESSIONS_HOST": "0.0.0.0"}) as server:
        assert ask(server, "GET", "/api/events", bearer("canary-kept")).status == 200
        assert server.said("too short, and may be guessed: read\n")
        assert server.said("read has fewer than 20 characters and may be guessed: set a longer one")
        assert "canary" not in server.output
    with Appliance(folder, SETTINGS | {"SESSIONS_TOKEN": "canary-set"}) as server:
        assert ask(server, "GET", "/api/events", bearer("canary-set")).status == 200
        assert server.said("may be guessed: SESSIONS_TOKEN\n")
        assert "canary" not in server.output
    with Appliance(folder, SETTINGS) as server:
        assert "guessed" not in server.output


def test_a_token_makes_only_so_many_requests_a_second_if_that_is_set(folder: Path) -> None:
    with (
        Appliance(folder, SETTINGS | {"SESSIONS_MAX_REQUESTS": "5"}) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection,
    ):

        def status(token: str) -> int:
            connection.request("GET", "/api/query/recent", headers=bearer(token))
            with connection.getresponse() as response:
                response.read()
                assert response.status == 200 or response.headers["Retry-After"] == "1"
                return response.status

        statuses = [status(TOKENS["read"]) for _ in range(30)]
        assert set(statuses) == {200, 429}
        assert statuses[:5] == [200] * 5
        assert status(TOKENS["admin"]) == 200
        eventually(lambda: status(TOKENS["read"]) == 200)


# ------------------------------------------------------------------ new sessions


def test_one_token_begins_a_hundred_sessions_a_second_whichever_way_it_takes(folder: Path) -> None:
    agent = bearer(TOKENS["ingest"])
    with Appliance(folder, SETTINGS) as server:

        def batch(ids: list[str], events: int = 1) -> dict[str, Any]:
            lines = "".join(
                json.dumps({"type": "action", "sessionId": name, "data": {"type": "x", "n": n}}) + "\n"
                for name in ids
                for n in range(events)
            )
            reply = ask(server, "POST", "/api/events", agent | {"Content-Type": "application/x-ndjson"}, lines)
            assert reply.status == 200
            answered: dict[str, Any] = json.loads(reply.body)
            return answered

        def is_refused(number: int, *, name: str, method: str, path: str, body: str) -> bool:
            batch([f"{name}-{number}-{n}" for n in range(100)])
            at = [text.replace("new-{}", f"{name}-{number}") for text in (path, body)]
            reply = ask(server, method, at[0], agent | JSON, at[1])
            assert reply.status in (200, 201, 429), reply
            assert reply.status != 429 or reply.headers["Retry-After"] == "1"
            return reply.status == 429

        ids = [f"s-{number}" for number in range(150)]
        first = batch(ids, events=2)
        rejected = first["rejected"]
        assert first["accepted"] == 200 and len(rejected) == 100
        assert {one["status"] for one in rejected} == {429}
        assert [one["line"] for one in rejected] == list(range(201, 301)), "all of a session, or nothing of it"
        for method, path, body in (
            ("POST", "/api/actions/new-{}", NOTE),
            ("PUT", "/api/sessions/new-{}", '{"userId": "x"}'),
            ("POST", "/api/sessions", '{"sessionId": "new-{}", "userId": "x", "initial": {}}'),
            ("PATCH", "/api/state/new-{}", '{"phase": "x"}'),
            ("POST", "/api/hooks/claude-code", '{"session_id": "new-{}", "hook_event_name": "SessionStart"}'),
        ):
            name = f"{method}-{path.count('/')}"

            asked = {"name": name, "method": method, "path": path, "body": body}
            assert any(is_refused(number, **asked) for number in range(20)), path
        assert ask(server, "POST", "/api/actions/s-0", agent | JSON, NOTE).status == 200, "what is there goes on"
        eventually(lambda: batch(ids, events=2)["rejected"] == [])


def test_without_tokens_as_many_sessions_begin_as_come(folder: Path) -> None:
    lines = "".join(f'{{"type":"action","sessionId":"s-{n}","data":{{"type":"x"}}}}\n' for n in range(500))
    with Appliance(folder) as server:
        reply = ask(server, "POST", "/api/events", {"Content-Type": "application/x-ndjson"}, lines)
        assert json.loads(reply.body)["accepted"] == 500


# ------------------------------------------------------------------------ log-in


@pytest.mark.parametrize("role", TOKENS)
def test_a_log_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(guarded: Appliance, role: str) -> None:
    reply = ask(guarded, "POST", "/api/login", JSON, json.dumps({"token": TOKENS[role]}))
    assert json.loads(reply.body) == {"success": True, "role": role}
    value, *attributes = reply.headers["Set-Cookie"].split("; ")
    assert {attribute.lower() for attribute in attributes} >= {"httponly", "samesite=strict", "path=/"}
    assert TOKENS[role] not in value


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"token": "canary-wrong-00000000"}', 401),
        ('{"token": ""}', 401),
        ('{"token": "\\u0000\\u00fc"}', 401),
        ('{"token": 5}', 422),
        ("{}", 422),
        ("[]", 422),
        ("{", 400),
    ],
)
def test_a_wrong_log_in_gives_no_cookie(guarded: Appliance, body: str, status: int) -> None:
    reply = ask(guarded, "POST", "/api/login", JSON, body)
    assert reply.status == status
    assert reply.problem["detail"]
    assert "Set-Cookie" not in reply.headers
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)


def test_the_cookie_opens_the_live_feed(guarded: Appliance, cookies: dict[str, dict[str, str]]) -> None:
    address = f"ws://127.0.0.1:{guarded.port}/ws"
    with connect(address, proxy=None, origin=None, additional_headers=cookies["read"]) as feed:
        assert json.loads(feed.recv(timeout=60))["type"] == "connected"
    assert ask(guarded, "GET", "/ws", UPGRADE | cookies["ingest"]).status == 403
    assert ask(guarded, "GET", "/ws", UPGRADE | {"Cookie": "session_store=read.0"}).status == 401


def test_the_cookie_is_found_among_those_of_other_programs(
    guarded: Appliance, cookies: dict[str, dict[str, str]]
) -> None:
    own = cookies["read"]["Cookie"]
    for others in ('theme={"dark":true}; {}', "a; {}", "=; {}", "x=\xff; {}", "{}; _ga=GA1.1; b=[1,2]", "session=1;{}"):
        cookie = others.replace("{}", own)
        assert ask(guarded, "GET", "/api/events", {"Cookie": cookie}).status == 200, cookie


def test_the_cookie_of_one_role_is_not_that_of_another(guarded: Appliance, cookies: dict[str, dict[str, str]]) -> None:
    proof = cookies["read"]["Cookie"].partition("=")[2]
    for value in (f"admin.{proof}", f"{proof}.admin", proof.upper(), proof[:-1], f"{proof}0", ""):
        assert ask(guarded, "GET", "/api/events", {"Cookie": f"session_store={value}"}).status == 401
    assert ask(guarded, "GET", "/api/events", {"Cookie": f"session_store={proof}"}).status == 200


def test_a_header_counts_for_more_than_a_cookie(guarded: Appliance, cookies: dict[str, dict[str, str]]) -> None:
    assert ask(guarded, "GET", "/api/events", bearer("canary-wrong-00000000") | cookies["read"]).status == 401
    assert ask(guarded, "GET", "/api/events", bearer(TOKENS["read"]) | {"Cookie": "session_store=x"}).status == 200


def test_logging_out_takes_the_cookie_away(guarded: Appliance) -> None:
    reply = ask(guarded, "DELETE", "/api/login")
    assert reply.status == 200
    assert reply.headers["Set-Cookie"].startswith('session_store="";')
    assert "max-age=0" in reply.headers["Set-Cookie"].lower()


def test_the_cookie_dies_with_the_token(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_READ_TOKEN": TOKENS["read"]}) as server:
        cookie = cookie_for(server, TOKENS["read"])
        assert ask(server, "GET", "/api/events", cookie).status == 200
    with Appliance(folder, {"SESSIONS_READ_TOKEN": "canary-read-22222222"}) as server:
        assert ask(server, "GET", "/api/events", cookie).status == 401
        assert ask(server, "GET", "/ws", UPGRADE | cookie).status == 401


# -------------------------------------------------------------- hosts and origins

LOOPBACK_HOSTS = ("127.0.0.1", "127.0.0.1:9", "localhost", "LOCALHOST:1", "LocalHost:65535", "[::1]", "[::1]:9000")
OTHER_HOSTS = (
    "evil.example",
    "evil.example:9000",
    "0.0.0.0",
    "0.0.0.0:9000",
    "192.168.0.1",
    "[::]:9000",
    "[2001:db8::1]",
    "session-storage:9000",
    "localhost.",
    "localhost.:9000",
    "127.0.0.1.",
    "localhost.evil.example",
    "evil.localhost",
    "127.0.0.1.evil.example",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
)
MALFORMED_HOSTS = (
    "",
    "::1",
    "user@localhost",
    "localhost@evil.example",
    "localhost/evil.example",
    "localhost, evil.example",
    "localhost:9000:9000",
    "localhost:port",
    "localhost evil.example",
    "http://localhost",
    "l\xf6calhost",
)
ALLOWED_ORIGINS = ("http://localhost:3000", "http://127.0.0.1:3000", "HTTP://LocalHost:3000")
OTHER_ORIGINS = (
    "null",
    "",
    "http://evil.example",
    "https://evil.example:3000",
    "http://localhost.evil.example",
    "http://localhost.evil.example:3000",
    "http://localhost:3000.evil.example",
    "http://127.0.0.1:3000.evil.example",
    "http://evil.example#http://localhost:3000",
    "http://localhost:3000@evil.example",
    "http://localhost:3000/",
    "http://localhost:3000, http://evil.example",
    "http://localhost:30000",
    "http://localhost:3001",
    "https://localhost:3000",
    "http://localhost.:3000",
    "http://0.0.0.0:3000",
    "localhost:3000",
    "file://",
    "chrome-extension://abcdefgh",
)


class Kind(NamedTuple):
    """A kind of request, and the answer to it where Host and Origin are let in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
KINDS = (
    Kind("GET", "/api/query/recent", {}, "", 200),
    Kind("GET", "/health", {}, "", 200),
    Kind("GET", "/", {"Accept": "text/html"}, "", 200),
    Kind("GET", "/api/sessions/nowhere", {}, "", 404),
    Kind("POST", "/api/actions/matrix", JSON, NOTE, 200),
    Kind("POST", "/api/actions/matrix", {"Content-Type": "text/plain"}, NOTE, 415),
    Kind("POST", "/api/actions/matrix", {"Content-Type": "application/x-www-form-urlencoded"}, "type=note", 415),
    Kind("POST", "/api/state/matrix/goals", {"Content-Type": "multipart/form-data; boundary=x"}, "--x--", 415),
    Kind("PUT", "/api/sessions/matrix", JSON, '{"userId":"alice"}', 200),
    Kind("PATCH", "/api/state/matrix", JSON, '{"phase":"x"}', 200),
    Kind("DELETE", "/api/sessions/nowhere", {}, "", 404),
    Kind("POST", "/api/login", JSON, '{"token":"whatever"}', 200),
    Kind("OPTIONS", "/api/actions/matrix", {}, "", 204),
)


def ask_as(server: Appliance, kind: Kind, host: str, origin: str | None, credentials: Headers) -> Reply:
    said = {} if origin is None else {"Origin": origin}
    return ask(server, kind.method, kind.path, {**kind.headers, **credentials, "Host": host, **said}, kind.body)


def test_a_foreign_host_or_origin_reaches_nothing(appliance: Appliance) -> None:
    """Every kind of request, from every origin, to every name: what is refused changes nothing, and may not be read."""
    assert ask(appliance, "POST", "/api/actions/matrix", JSON, NOTE).status == 200
    hosts = [*product(LOOPBACK_HOSTS, [True]), *product((*OTHER_HOSTS, *MALFORMED_HOSTS), [False])]
    origins = [(None, True), ("own", True), *product(ALLOWED_ORIGINS, [True]), *product(OTHER_ORIGINS, [False])]
    write = KINDS[4]
    cases = [
        *product(hosts, origins, [write]),
        *product(hosts, origins[:6], KINDS),
        *product([hosts[0], hosts[-1]], origins[6:], KINDS),
    ]
    before, writes = cursor_of(appliance), 0
    for (host, is_host), (name, is_origin), kind in cases:
        origin = f"http://{host}" if name == "own" else name
        reply = ask_as(appliance, kind, host, origin, {})
        case = (host, origin, kind, reply)
        is_let_in = is_host and is_origin
        assert reply.status == (kind.status if is_let_in else 403), case
        assert reply.headers["Access-Control-Allow-Origin"] == (origin if is_let_in else None), case
        if not is_let_in:
            assert reply.problem["detail"], case
        writes += (
            is_let_in and kind.method in ("POST", "PUT", "PATCH") and kind.status == 200 and "login" not in kind.path
        )
    assert len(cases) >= 400
    assert writes >= 20
    assert cursor_of(appliance) == before + writes


def test_a_foreign_host_or_origin_gets_no_live_feed(appliance: Appliance) -> None:
    hosts = [*product(LOOPBACK_HOSTS, [True]), *product((*OTHER_HOSTS, *MALFORMED_HOSTS), [False])]
    origins = [(None, True), ("own", True), *product(ALLOWED_ORIGINS, [True]), *product(OTHER_ORIGINS, [False])]
    for (host, is_host), (name, is_origin) in product(hosts, origins):
        origin = f"http://{host}" if name == "own" else name
        reply = ask_as(appliance, Kind("GET", "/ws", UPGRADE, "", 101), host, origin, {})
        assert reply.status == (101 if is_host and is_origin else 403), (host, origin)
        if reply.status == 403:
            assert reply.problem["detail"]


@pytest.mark.parametrize("env", [{}, SETTINGS], ids=["open", "guarded"])
def test_no_other_port_of_this_machine_is_trusted_unless_it_is_named(folder: Path, env: dict[str, str]) -> None:
    with Appliance(folder, env) as server:
        said = bearer(TOKENS["admin"]) if env else {}
        for origin in (*ALLOWED_ORIGINS, *OTHER_ORIGINS):
            for kind in (KINDS[0], KINDS[4], Kind("GET", "/ws", UPGRADE, "", 101)):
                assert ask_as(server, kind, "localhost", origin, said).status == 403, (origin, kind)
        assert ask_as(server, KINDS[4], f"localhost:{server.port}", server.url, said).status == 403
        assert ask_as(server, KINDS[4], server.url[7:], server.url, said).status == 200


def test_a_request_has_exactly_one_host(appliance: Appliance) -> None:
    for hosts in ([], ["localhost", "localhost"], ["localhost", "evil.example"]):
        connection = http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=20)
        connection.putrequest("GET", "/health", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        assert Reply(response.status, response.headers, response.read()).problem["status"] == 400
        connection.close()


def test_where_tokens_are_needed_any_host_is_answered(guarded: Appliance) -> None:
    recent, write, feed = KINDS[0], KINDS[4], Kind("GET", "/ws", UPGRADE, "", 101)
    admin = bearer(TOKENS["admin"])
    for host, kind in product((*LOOPBACK_HOSTS, *OTHER_HOSTS), (recent, write, feed)):
        assert ask_as(guarded, kind, host, None, admin).status == kind.status, (host, kind)
        assert ask_as(guarded, kind, host, f"http://{host}", admin).status == kind.status, (host, kind)
        assert ask_as(guarded, kind, host, None, {}).status == 401, (host, kind)
        assert ask_as(guarded, kind, host, "http://rebound.example", admin).status == 403, (host, kind)
    for host, kind in product(MALFORMED_HOSTS, (recent, write, feed)):
        assert ask_as(guarded, kind, host, None, admin).status == 403, (host, kind)


@pytest.mark.parametrize("tokens", [{}, SETTINGS], ids=["open", "guarded"])
def test_hosts_and_origins_can_be_named(folder: Path, tokens: dict[str, str]) -> None:
    named = {
        "SESSIONS_ALLOWED_HOSTS": "session-storage, Build.Example.com,[2001:DB8::1]",
        "SESSIONS_ALLOWED_ORIGINS": "https://app.example.com/, HTTP://other.example:80",
    }
    admin = bearer(TOKENS["admin"])
    with Appliance(folder, {**tokens, **named}) as server:
        recent = KINDS[0]
        for host in (
            "session-storage:9000",
            "SESSION-STORAGE",
            "build.example.com:1",
            "[2001:db8::1]:9000",
            "localhost",
        ):
            assert ask_as(server, recent, host, None, admin).status == 200, host
        for host in ("session-storage.", "evil.example", "www.build.example.com", "0.0.0.0", "session-storage.evil"):
            assert ask_as(server, recent, host, None, admin).status == 403, host
        for origin in ("https://app.example.com", "http://other.example"):
            assert ask_as(server, recent, "localhost", origin, admin).status == 200, origin
        for origin in ("http://app.example.com", "https://app.example.com:444", "http://localhost:3000"):
            assert ask_as(server, recent, "localhost", origin, admin).status == 403, origin


@pytest.mark.parametrize(
    ("method", "fetched", "status"),
    [
        ("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "own"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "own"}, 200),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, 200),
        ("POST", {"Sec-Fetch-Site": "none"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_a_page_elsewhere_that_hides_its_origin_is_told_by_how_it_fetches(
    appliance: Appliance, method: str, fetched: dict[str, str], status: int
) -> None:
    path, body = ("/api/query/recent", "") if method == "GET" else ("/api/actions/fetched", NOTE)
    headers = {name: value.replace("own", appliance.url) for name, value in fetched.items()}
    assert ask(appliance, method, path, JSON | headers, body).status == status


def test_an_allowed_origin_may_read_every_answer_also_a_refusal(guarded: Appliance) -> None:
    origin = {"Origin": "http://localhost:3000"}
    admin = bearer(TOKENS["admin"])
    replies = {
        200: ask(guarded, "GET", "/api/events", origin | admin),
        400: ask(guarded, "POST", "/api/actions/any", origin | admin | JSON, "{"),
        401: ask(guarded, "GET", "/api/events", origin),
        403: ask(guarded, "GET", "/api/events", origin | bearer(TOKENS["ingest"])),
        404: ask(guarded, "GET", "/api/nothing", origin | admin),
        405: ask(guarded, "PATCH", "/api/events", origin | admin | JSON, "{}"),
        415: ask(guarded, "POST", "/api/actions/any", origin | admin, "{}"),
        422: ask(guarded, "POST", "/api/actions/any", origin | admin | JSON, "{}"),
    }
    for status, reply in replies.items():
        assert reply.status == status
        assert reply.headers.get_all("Access-Control-Allow-Origin") == ["http://localhost:3000"], status
        assert reply.headers["Access-Control-Allow-Credentials"] == "true"
        assert "origin" in reply.headers["Vary"].lower()
    exposed = replies[200].headers["Access-Control-Expose-Headers"]
    assert {"etag", "link", "retry-after"} <= set(exposed.split(", "))


def test_a_preflight_needs_no_token_and_names_what_may_be_sent(guarded: Appliance) -> None:
    for path in ("/api/actions/any", "/api/sessions/any", "/api/login", "/api/nothing"):
        reply = ask(guarded, "OPTIONS", path, {"Origin": "http://localhost:3000"} | PREFLIGHT)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert {"PUT", "PATCH", "DELETE"} <= set(reply.headers["Access-Control-Allow-Methods"].split(", "))
        sent = {"authorization", "content-type", "idempotency-key", "if-match", "x-timestamp", "x-user-id"}
        assert sent <= set(reply.headers["Access-Control-Allow-Headers"].split(", "))
        foreign = ask(guarded, "OPTIONS", path, {"Origin": "http://evil.example"} | PREFLIGHT)
        assert foreign.status == 403
        assert not [name for name in foreign.headers if name.lower().startswith("access-control-")]
        assert ask(guarded, "OPTIONS", path, PREFLIGHT).status == 401


FORM_TYPES = (
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/json; charset=utf-16",
    "application/jsonx",
    "text/json",
    "",
)


@pytest.mark.parametrize("operation", [*WRITES, *NOTES, "POST /api/login"])
def test_a_form_of_another_site_is_never_taken_for_json(appliance: Appliance, operation: str) -> None:
    session_id = new_session(appliance)
    before, cursor = whole(appliance, session_id), cursor_of(appliance)
    method, path = operation.partition(" ")[0], path_of(operation, session_id)
    body = json.dumps((WRITES | NOTES).get(operation, {"token": "whatever"})).replace("ID", session_id)
    for form_type in FORM_TYPES:
        reply = ask(appliance, method, path, {"Content-Type": form_type}, body)
        assert reply.status == 415, (form_type, reply)
        assert reply.problem["detail"]
    assert ask(appliance, method, path, {}, body).status == 415
    assert (whole(appliance, session_id), cursor_of(appliance)) == (before, cursor)
    assert attempt(appliance, operation, session_id, {}).status in (200, 201)


def test_a_body_of_unknown_length_needs_its_type_too(appliance: Appliance) -> None:
    """A session is finalized without a body, or by what the body says; never by ignoring it."""
    session_id = new_session(appliance)
    before = whole(appliance, session_id)
    path, body = f"/api/sessions/{session_id}/finalize", b'{"status": "failed"}'
    chunked = {"Transfer-Encoding": "chunked"}
    with closing(http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=20)) as connection:
        connection.request("POST", path, iter([body]), chunked, encode_chunked=True)
        assert connection.getresponse().status == 415
        assert whole(appliance, session_id) == before
    with closing(http.client.HTTPConnection("127.0.0.1", appliance.port, timeout=20)) as connection:
        connection.request("POST", path, iter([body]), chunked | JSON, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert json.loads(whole(appliance, session_id))["metadata"]["status"] == "failed"


# ----------------------------------------------------------------------- secrets


def files_with(folder: Path, word: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_a_token_is_told_nowhere(folder: Path) -> None:
    """Neither a right token nor a wrong one is in an answer, the output or a file; a word that is logged is."""
    wrong = "canary-wrong-3c1f9d20"
    word = "canary-word-77aa0b12"
    kept = {
        "SESSIONS_LOG_REQUESTS": "on",
        "SESSIONS_BACKUP_DIR": str(folder / "backups"),
        "SESSIONS_BACKUP_EVERY": "1s",
    }
    with Appliance(folder, SETTINGS | kept) as server:
        replies = [
            ask(server, "POST", "/api/login", JSON, body)
            for token in (*TOKENS.values(), wrong)
            for body in (
                json.dumps({"token": token}),
                json.dumps({"token": token})[:-1],
                json.dumps({"token": [token]}),
            )
        ]
        cookies = [reply.headers["Set-Cookie"].partition(";")[0] for reply in replies if "Set-Cookie" in reply.headers]
        assert len(cookies) == 3
        credentials = [*map(bearer, (*TOKENS.values(), wrong)), *({"Cookie": cookie} for cookie in cookies)]
        credentials += [{"Authorization": f"Basic {wrong}"}, {"Cookie": f"session_store={wrong}"}]
        for held in credentials:
            replies += [attempt(server, operation, "secrets", held) for operation in MAY]
            replies.append(ask(server, "POST", "/api/actions/secrets", held | JSON, "{"))
            replies.append(ask(server, "GET", "/api/nothing", held))
            replies.append(ask(server, "GET", "/api/sessions/a..b", held))
        replies.append(ask(server, "GET", f"/api/events?token={TOKENS['admin']}&token={wrong}"))
        replies.append(ask(server, "GET", f"/ws?token={TOKENS['admin']}", UPGRADE))
        logged = ask(server, "POST", "/api/actions/secrets", JSON | bearer(TOKENS["ingest"]), f'{{"type":"{word}"}}')
        assert logged.status == 200
        eventually(lambda: files_with(folder / "backups", word))
        replies.append(ask(server, "GET", "/metrics", bearer(TOKENS["read"])))
        server.stop()
        assert files_with(folder, word)
        assert server.said("Session store")
        said = [server.output, *(f"{reply.headers} {reply.body!r}" for reply in replies)]
        for secret in (*TOKENS.values(), wrong):
            assert not [text for text in said if secret in text], secret
            assert files_with(folder, secret) == []
        for cookie in cookies:
            assert cookie not in server.output
            assert files_with(folder, cookie.partition("=")[2]) == []
