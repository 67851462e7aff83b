"""The fast path answers to the letter as the ordinary handlers do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app import create_app
from sessionstore.settings import Settings
from sessionstore.web.asgi import Scope
from sessionstore.web.fast_path import FastPath
from tests.appliance import Appliance

JSON = {"content-type": "application/json"}
WELL = b'{"type":"note","eventId":"%d"}'
MEBIBYTE = 1 << 20


class Asked(NamedTuple):
    """One request: the path after the id of a session, or a whole path; `None`: no header of that name."""

    body: bytes
    path: str = "/api/actions/session"
    headers: dict[str, str] = JSON


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


BODIES = (
    b'{"type":"note"}',
    b'{"type":"note","eventId":"event-1","timestamp":"2026-02-13T21:59:12+01:00","agentId":"agent-1","a":[null,1.5]}',
    b'{"eventId":"event-1","a":[null,1.5],"type":"note","timestamp":"2026-02-13T21:59:12+01:00","agentId":"agent-1"}',
    b'{"type":"other","eventId":"event-1"}',
    b'{"type":"tool_call","tool":"Bash","seq":9,"cursor":9,"receivedAt":"x","sessionId":"y"}',
    b'{"type":"note","attention":{"reason":"input","message":"?"}}',
    b' {"type" : "\\u00fc\\u0000\\ud83d\\ude00"} ',
    b'{"type":"note","type":"twice"}',
    b'{"type":"note","number":123456789012345678901234567890}',
    b'{"type":"note","text":"%s"}' % (b"x" * (MEBIBYTE - 25)),
    b'{"type":"note","text":"%s"}' % (b"x" * (MEBIBYTE - 24)),
    b'{"type":"note","deep":%s}' % (b"[" * 63 + b"]" * 63),
    b'{"type":"note","deep":%s}' % (b"[" * 64 + b"]" * 64),
    b"[" * 5000,
    b'{"type":"note","number":NaN}',
    b'{"type":"note","number":1e999}',
    b'{"type":"\\ud800"}',
    b'{"type":"\xff"}',
    b'{"type":"note"',
    b'{"type":"note"}{}',
    b"",
    b" ",
    b"null",
    b"[]",
    b'"note"',
    b"{}",
    b'{"type":null}',
    b'{"type":5}',
    b'{"type":"note","eventId":"../x"}',
    b'{"type":"note","eventId":null}',
    b'{"type":"note","agentId":""}',
    b'{"type":"note","timestamp":"yesterday"}',
    b'{"type":"note","timestamp":"2026-02-30T00:00:00Z"}',
)
PATHS = (
    "/api/actions/other",
    "/api/actions/other/responses",
    "/api/actions/a..b",
    "/api/actions/a..b/responses",
    "/api/actions/-a",
    "/api/actions/a%20b",
    "/api/actions/a%2fb",
    "/api/actions/%ff",
    "/api/actions/a%00",
    "/api/actions/a%0a",
    "/api/actions/" + "x" * 128,
    "/api/actions/" + "x" * 129,
    "/api/actions/other?type=note&limit=0",
    "/api/actions/other/",
    "/api/actions/other/responses/",
    "/api/actions/other/response",
    "/api/actions/",
    "/api/actions",
    "/api/actions//responses",
    "/api//actions/other",
    "/API/actions/other",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "text/plain"},
    {"content-type": "application/x-ndjson"},
    {"content-type": "application/json; charset=utf-8"},
    {"content-type": "Application/JSON;charset=UTF-8"},
    {"content-type": "application/json; charset=latin-1"},
    JSON | {"idempotency-key": "header-1"},
    JSON | {"idempotency-key": "a b"},
    JSON | {"x-timestamp": "2026-02-13T20:59:12Z"},
    JSON | {"x-timestamp": "now"},
    JSON | {"x-user-id": "test-user-bob"},
    JSON | {"x-user-id": ""},
    JSON | {"accept": "text/html"},
    JSON | {"content-encoding": "gzip"},
    JSON | {"origin": "http://localhost:3000"},
    JSON | {"origin": "http://evil.example"},
    JSON | {"host": "evil.example"},
    JSON | {"if-match": '"9"'},
)
NDJSON = {"content-type": "application/x-ndjson"}
LINE = b'{"type":"action","sessionId":"lines","eventId":"line-%d","data":{"type":"note"}}\n'
BATCHES: tuple[tuple[bytes, dict[str, str]], ...] = (
    (LINE % 1, NDJSON),
    (LINE % 1 + LINE % 2 + LINE % 2, NDJSON),
    (LINE % 3 + b"{]\n" + LINE % 4, NDJSON),
    (LINE % 5 + b"\xff\xfe\n" + (LINE % 6).rstrip(), NDJSON),
    (b"\xef\xbb\xbf" + LINE % 7 + b"\r\n\n", NDJSON),
    (b'{"type":"goal_added","sessionId":"lines","data":{}}', NDJSON),
    (b'{"type":"unheard_of","sessionId":"lines"}\n{"type":"action"}', NDJSON),
    (b'{"type":"session_deleted","sessionId":"lines-2"}', NDJSON),
    (b"".join(LINE % number for number in range(100, 260)), NDJSON),
    (b"\n" * 600, NDJSON),
    (b"", NDJSON),
    (b"null", NDJSON),
    (LINE % 8, JSON),
    (LINE % 9, {}),
    (LINE % 10, NDJSON | {"content-encoding": "gzip"}),
    (LINE % 11, NDJSON | {"host": "evil.example"}),
    (LINE % 12, NDJSON | {"idempotency-key": "x"}),
)
CORPUS = (
    *(Asked(body, f"/api/actions/session{log}") for body in BODIES for log in ("", "/responses")),
    *(Asked(WELL % number, path) for number, path in enumerate(PATHS)),
    *(Asked(b'{"type":"note"}', "/api/actions/headers", headers) for headers in HEADERS),
    *(Asked(body, "/api/events", headers) for body, headers in BATCHES),
)


def answers(folder: Path, body: Callable[[bytes], Iterable[bytes] | bytes]) -> list[Answered]:
    """What the corpus is answered, in its order, and in the end the logs that came of it."""
    origins = {"SESSIONS_ALLOWED_ORIGINS": "http://localhost:3000"}
    with Appliance(folder, origins) as appliance, httpx.Client(base_url=appliance.url) as client:
        found = [client.post(asked.path, content=body(asked.body), headers=asked.headers) for asked in CORPUS]
        for session in ("session", "other", "headers", "lines"):
            found += [client.get(f"/api/actions/{session}{log}") for log in ("", "/responses")]
        return [answered(answer) for answer in found]


def whole(body: bytes) -> bytes:
    """A body of a known length: the fast path takes it."""
    return body


def in_chunks(body: bytes) -> Iterable[bytes]:
    """A body whose length nobody knows before its end: it goes the ordinary way."""
    yield body


def answered(answer: httpx.Response) -> Answered:
    """An answer without what every store makes up for itself."""
    body = answer.json() if answer.content else None
    return Answered(answer.status_code, dict(answer.headers) | {"content-length": "", "date": ""}, nameless(body))


def nameless(document: Any) -> Any:
    """`document` without the event ids and times that were not given."""
    if isinstance(document, list):
        return [nameless(item) for item in document]
    if not isinstance(document, dict):
        return document
    given = {name: value for name, value in document.items() if name != "timestamp" or "+01:00" in str(value)}
    return given | ({"eventId": len(given["eventId"]) > 8} if "eventId" in given else {})


def test_by_the_fast_path_and_the_ordinary_way_every_answer_is_the_same(tmp_path: Path) -> None:
    hot, ordinary = answers(tmp_path / "hot", whole), answers(tmp_path / "ordinary", in_chunks)
    for asked, here, there in zip(CORPUS, hot, ordinary, strict=False):
        assert here == there, (asked.path, asked.headers, asked.body[:80])
    assert hot[len(CORPUS) :] == ordinary[len(CORPUS) :]
    assert {answer.status for answer in hot} == {200, 400, 403, 404, 413, 415, 422}


@pytest.fixture
def fast(folder: Path) -> FastPath:
    folder.mkdir()
    app = create_app(Settings(directory=folder))
    return FastPath(app.gate, app.gate, app.store, app.traffic)


def takes(fast: FastPath, url: str, headers: dict[bytes, bytes]) -> bool:
    path, _, query = url.partition("?")
    scope: Scope = {"type": "http", "method": "POST", "path": path, "query_string": query.encode(), "scheme": "http"}
    return fast.take({**scope, "headers": list(headers.items()), "client": ("127.0.0.1", 40000)}) is not None


def test_what_comes_whole_is_taken(fast: FastPath) -> None:
    assert takes(fast, "/api/actions/s", {b"content-length": b"15"})
    assert takes(fast, "/api/actions/s/responses", {b"content-length": b"16384", b"connection": b"keep-alive"})
    assert takes(fast, "/api/events", {b"content-length": b"16384"})


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("/api/actions/s?a=b", {b"content-length": b"15"}),
        ("/api/actions/a..b", {b"content-length": b"15"}),
        ("/api/actions/s/", {b"content-length": b"15"}),
        ("/api/state/s", {b"content-length": b"15"}),
        ("/api/events/", {b"content-length": b"15"}),
        ("/api/events", {b"content-length": b"16385"}),
        ("/api/actions/s", {}),
        ("/api/actions/s", {b"transfer-encoding": b"chunked"}),
        ("/api/actions/s", {b"content-length": b"16385"}),
        ("/api/actions/s", {b"content-length": b"15", b"expect": b"100-continue"}),
        ("/api/actions/s", {b"content-length": b"15", b"upgrade": b"h2c"}),
        ("/api/actions/s", {b"content-length": b"15", b"origin": b"http://127.0.0.1"}),
    ],
)
def test_what_needs_more_than_that_goes_the_ordinary_way(fast: FastPath, url: str, headers: dict[bytes, bytes]) -> None:
    assert not takes(fast, url, headers)
