"""HEAD is answered wherever GET is: with the status and the headers that GET has, and without a body."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.appliance import Appliance
from tests.peers import dial, eventually, more
from tests.wire import http_request

SESSION = "head-1"
STREAM = "/api/events/stream"
FOUND = [
    "/",
    "/health",
    "/ready",
    "/metrics",
    "/api/webhooks",
    "/api/sessions?limit=3",
    f"/api/sessions/{SESSION}",
    f"/api/sessions/{SESSION}/resume",
    f"/api/sessions/{SESSION}/events?order=desc",
    f"/api/sessions/{SESSION}/archive",
    "/api/sessions/user/alice",
    f"/api/actions/{SESSION}?limit=1",
    f"/api/actions/{SESSION}/responses",
    f"/api/state/{SESSION}",
    f"/api/state/{SESSION}/history",
    "/api/events",
    "/api/query/recent",
    "/api/query/active",
    "/api/query/stats",
    "/api/query/summary",
    "/api/query/questions",
    "/api/query/search?q=x",
    "/schema/openapi.json",
    "/schema/assets/swagger-ui.css",
    "/datasette/",
    "/datasette",
    "/api/login",
    "/hook_agent.py",
    f"/api/sessions/{SESSION}/conversation?format=markdown",
    f"/api/sessions/{SESSION}/conversation?format=html",
]
REFUSED = [
    "/nowhere",
    "/ws",
    "/api/sessions/nowhere",
    "/api/state/..",
    "/api/events?limit=x",
    "/api/hooks/claude-code",
    "/datasette/-/versions",
]
VARYING = {"date", "x-cache", "server-timing"}


@pytest.fixture(scope="module")
def known(http: httpx.Client) -> httpx.Client:
    http.put(f"/api/sessions/{SESSION}", json={"userId": "alice"}).raise_for_status()
    for number in range(3):
        http.post(f"/api/actions/{SESSION}", json={"type": "x", "number": number}).raise_for_status()
    return http


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VARYING}


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", [*FOUND, *REFUSED])
def test_head_is_get_without_its_body(known: httpx.Client, path: str, accept: str) -> None:
    get, head = (known.request(method, path, headers={"accept": accept}) for method in ("GET", "HEAD"))
    assert head.status_code == get.status_code
    assert (get.status_code < 400) == (path in FOUND)
    assert head.content == b""
    assert get.headers.get("content-type", "").count("charset") <= 1
    if path in ("/metrics", "/health", "/api/query/stats"):  # whose length is another each time
        assert head.headers["content-type"] == get.headers["content-type"]
        return
    gone = {"transfer-encoding"}  # RFC 9110, section 9.3.2: what is known only once the body is made
    assert headers_of(head) == {name: value for name, value in headers_of(get).items() if name not in gone}


def test_a_path_says_which_methods_it_takes(known: httpx.Client) -> None:
    """By `Allow`, where it is asked and where it does not take one; and it takes those, and no others."""
    for path, operations in known.get("/schema/openapi.json").json()["paths"].items():
        url = re.sub(r"\{[^}]*\}", "x", path)
        own = {name.upper() for name in operations} | {"OPTIONS"}
        expected = own | {"HEAD"} if "GET" in own else own
        answers = [known.request(method, url) for method in ("OPTIONS", "TRACE")]
        assert [answer.status_code for answer in answers] == [204, 405], path
        assert [set(answer.headers["allow"].split(", ")) for answer in answers] == [expected, expected], path
    assert known.options("/nowhere").status_code == 404


def test_nothing_of_a_body_follows_an_answer_to_head(appliance: Appliance) -> None:
    """The next answer on the same connection does."""
    paths = ("/api/events", "/nowhere", STREAM, "/ws")
    said = b""
    with dial(appliance.port) as peer:
        peer.sendall(b"".join(http_request("HEAD", path) for path in paths) + http_request("GET", "/nowhere"))
        while not said.endswith(b"}"):
            said += more(peer, said)
    *heads, problem = said.split(b"\r\n\r\n")
    assert [head[9:12] for head in heads] == [b"200", b"404", b"200", b"426", b"404"]
    assert json.loads(problem)["status"] == 404


def test_head_of_a_stream_ends_at_once(appliance: Appliance, http: httpx.Client) -> None:
    for _ in range(20):
        answer = http.head(STREAM)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    eventually(lambda: "sessionstore_ws_clients 0.0\n" in http.get("/metrics").text)
    for _ in range(20):
        assert http.head(f"{STREAM}?sessionId={SESSION}").status_code == 200
    assert 'http_route="/api/events/stream",method="HEAD",status="200"} ' in http.get("/metrics").text
    assert "Traceback" not in appliance.output


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    tokens = {"SESSIONS_TOKEN": "canary-admin-5f0c2b7e", "SESSIONS_MAX_LISTENERS": "1"}
    with Appliance(tmp_path_factory.mktemp("guarded"), tokens) as running:
        yield running


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/health", 200), ("/api/events", 401), (STREAM, 401)])
def test_head_needs_a_token_where_get_does(guarded: Appliance, path: str, status: int) -> None:
    head, get = (httpx.request(method, guarded.url + path) for method in ("HEAD", "GET"))
    assert (head.status_code, get.status_code, head.content) == (status, status, b"")
    assert head.headers.get("www-authenticate") == get.headers.get("www-authenticate")


def test_head_of_a_stream_is_no_listener_that_stays(guarded: Appliance) -> None:
    """Where one may listen, twenty may ask."""
    for _ in range(20):
        headers = {"authorization": "Bearer canary-admin-5f0c2b7e"}
        eventually(lambda headers=headers: httpx.head(guarded.url + STREAM, headers=headers).status_code == 200)  # type: ignore[misc]
