"""No request, however odd, gets a 5xx, an answer in another shape, or half a change."""

from __future__ import annotations

import gzip
import json
import random
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.tree import SCRATCH
from sessionstore.model.events import depth_of, is_id
from tests import peers
from tests.appliance import Appliance
from tests.peers import Response, ask, dial, eventually, handshake, resident_bytes, response_from, say, sockets_of
from tests.repeats import marked, repeated

Document = dict[str, Any]
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
MEBIBYTE = 1 << 20
HOSTILE_NAMES = 2000


def post(path: str = "/api/actions/bad", body: bytes = b'{"type":"x"}', head: bytes = HOST + JSON) -> bytes:
    return request("POST", path, body, head)


def request(method: str, path: str, body: bytes = b"", head: bytes = HOST + JSON) -> bytes:
    """With a Content-Length, if there is a body."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), path.encode(), head, length, body)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /api/actions/bad HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


CHUNKED = chunked(b'{"type":"x"}', end=b"").replace(b"/bad", b"/slow")
UPGRADE = HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


def counts(http: httpx.Client) -> Document:
    """What every write changes: each is an event, and has a cursor."""
    stats: Document = http.get("/api/query/stats").raise_for_status().json()
    page: Document = http.get("/api/events", params={"after": stats["events"] - 1}).raise_for_status().json()
    return {name: stats[name] for name in ("total", "actions", "goals", "agents", "events")} | page


def mirrored(folder: Path) -> int:
    """The cursor that the tree has come to; 0 before there is one."""
    place = folder / ".mirror.json"
    return int(json.loads(place.read_text())["cursor"]) if place.exists() else 0


def names(folder: Path) -> set[Path]:
    """All that stands there, but for what is on its way: the server writes there at its own times."""
    return {path for path in folder.rglob("*") if path.parent.name != SCRATCH}


@pytest.fixture(autouse=True)
def quiet_log(appliance: Appliance) -> Iterator[None]:
    """No fault of the server is in its log."""
    before = appliance.output
    yield
    said = appliance.output.removeprefix(before)
    assert "Traceback" not in said
    assert " ERROR " not in said


@pytest.fixture(scope="module", autouse=True)
def good(appliance: Appliance) -> None:
    """A session that is there."""
    assert ask(appliance.port, post("/api/actions/good")).status == 200


@pytest.fixture
def unchanged(appliance: Appliance, http: httpx.Client) -> Iterator[None]:
    """Nothing is stored by it, and the server goes on."""
    before = counts(http)
    yield
    assert counts(http) == before


def test_a_write_is_seen_by_this_check(appliance: Appliance, http: httpx.Client) -> None:
    for method, path in WRITES[:-1]:
        before = counts(http)
        body = b'{"note":1}' if path.endswith("/metadata") else VALID
        assert ask(appliance.port, request(method, path.replace("bad", "seen"), body)).status < 300
        assert counts(http) != before, (method, path)


def is_problem(response: Response) -> bool:
    """RFC 9457, with `error` for older clients."""
    document = json.loads(response.body)
    return (
        response.headers["content-type"] == "application/problem+json"
        and document["status"] == response.status
        and {"type", "title", "detail", "error"} <= document.keys()
        and document["error"] == document["detail"] != ""
    )


def refused(response: Response) -> int:
    """The status of a refusal in the one shape that there is."""
    assert is_problem(response), response
    assert 400 <= response.status < 500, response
    return response.status


# ----------------------------------------------------------- what does not come

SLOW = {
    "nothing": b"",
    "a request line": b"GET /health HTTP/1.1\r\n",
    "half the headers": post("/api/actions/slow")[:40],
    "half a body": post("/api/actions/slow")[:-1],
    "no last chunk": CHUNKED,
}
DRIPS = {
    "headers that drip": (b"GET /health HTTP/1.1\r\nX: ", b"x"),
    "a body that drips": (post("/api/actions/slow", b"x" * 9999)[:-9999], b"x"),
    "empty lines after an answer": (request("GET", "/health"), b"\r\n"),
    "empty lines after an upgrade that is not taken": (request("GET", "/health", head=UPGRADE), b"\r\n"),
}
TAKE_LONG = ("half a body", "no last chunk", "a body that drips")
"""A body has 30 s, what comes before it 10 s."""
PATIENCE = 45


@pytest.fixture(scope="module", autouse=True)
def slow(request: pytest.FixtureRequest, appliance: Appliance, good: None) -> Iterator[dict[str, Future[bytes]]]:
    """What each of the slow got in the end. They wait from the first test of this file to the last."""
    awaited = {item.name for item in request.session.items}
    kinds = {name: (data, b"") for name, data in SLOW.items()} | DRIPS
    with ThreadPoolExecutor(len(kinds)) as threads:
        yield {
            name: threads.submit(hold, appliance.port, data, drip)
            for name, (data, drip) in kinds.items()
            if f"test_what_does_not_come_in_time_is_given_up[{name}]" in awaited
        }


def hold(port: int, data: bytes, drip: bytes) -> bytes:
    """What comes back before the server hangs up on what never gets whole."""
    said = b""
    with dial(port) as peer, suppress(ConnectionError):
        peer.sendall(data)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if select.select([peer], [], [], 0.5)[0]:
                if not (piece := peer.recv(1 << 16)):
                    return said
                said += piece
            peer.sendall(drip)
        raise TimeoutError(f"still connected after {PATIENCE} s")
    return said


# -------------------------------------------------------------------------- HTTP

TOO_LARGE = b'{"type":"x","text":"' + b"x" * MEBIBYTE + b'"}'
NOT_HTTP = {
    "noise": b"\x00\x01\x02\xff\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
    "an unknown version": b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n",
    "the opening of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"BREW /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /he alth HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL in the path": b"GET /he\0alth HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without a name": b"GET /health HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "a space before a colon": b"GET /health HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    "a NUL in a header": b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\n" + HOST * 2 + b"\r\n",
    "two Hosts that differ": b"GET /health HTTP/1.1\r\n" + HOST + b"Host: localhost\r\n\r\n",
    "a length that is none": post(head=HOST + JSON + b"Content-Length: x\r\n", body=b""),
    "a negative length": post(head=HOST + JSON + b"Content-Length: -1\r\n", body=b""),
    "a length beyond numbers": post(head=HOST + JSON + b"Content-Length: " + b"9" * 30 + b"\r\n", body=b""),
    "two lengths": post(head=HOST + JSON + b"Content-Length: 1\r\n"),
    "a length and chunks": chunked(b'{"type":"x"}').replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 1),
    "an unknown coding": post(head=HOST + JSON + b"Transfer-Encoding: gzip\r\n", body=b"") + b"x",
    "chunks that are not last": post(head=HOST + JSON + b"Transfer-Encoding: chunked, gzip\r\n", body=b"")
    + b"0\r\n\r\n",
    "a chunk size that is none": chunked(end=b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than its size": chunked(end=b"2\r\n{}}}\r\n0\r\n\r\n"),
    "a chunk size beyond numbers": chunked(end=b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n"),
    "a target that is none": b"GET http:// HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
@pytest.mark.usefixtures("unchanged")
def test_what_is_not_http_is_400(appliance: Appliance, data: bytes) -> None:
    assert refused(ask(appliance.port, data)) in (400, 404, 405)


TRUNCATED = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "a method": b"POS",
    "a request line": b"POST /api/actions/bad HTTP/1.1\r\n",
    "a header": b"POST /api/actions/bad HTTP/1.1\r\n" + HOST + b"Content-Ty",
    "headers": post()[:-12],
    "half a body": post()[:-5],
    "all but a byte": post()[:-1],
    "no chunk": chunked(end=b""),
    "half a chunk": chunked(end=b'c\r\n{"type":'),
    "no last chunk": chunked(b'{"type":"x"}', end=b""),
    "half a last chunk": chunked(b'{"type":"x"}', end=b"0\r\n"),
}


@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
@pytest.mark.usefixtures("unchanged")
def test_what_ends_too_early_changes_nothing(appliance: Appliance, data: bytes) -> None:
    answer = say(appliance.port, data)
    assert not answer or refused(response_of(answer)) in (400, 408)


def response_of(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    return Response(*peers.parsed(head), body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(body=TOO_LARGE), 413),
        (chunked(*[b"x" * 65536] * 20), 413),
        (post(head=HOST + JSON + b"Expect: 100-continue\r\n", body=TOO_LARGE), 413),
        (request("PATCH", "/api/state/bad", TOO_LARGE), 413),
        (request("PUT", "/api/sessions/bad", TOO_LARGE), 413),
        (request("POST", "/api/sessions", TOO_LARGE), 413),
        (request("POST", "/api/login", TOO_LARGE), 413),
        (request("POST", "/api/events", b"x" * (33 * MEBIBYTE), HOST + b"Content-Type: application/x-ndjson\r\n"), 413),
        (request("GET", "/" + "x" * 70_000), 431),
        (request("GET", "/health", head=HOST + b"X: " + b"x" * 400_000 + b"\r\n"), 431),
        (b"GET /health HTTP/1.1\r\nX: " + b"x" * 400_000, 431),
        (b"GET /" + b"x" * 400_000, 431),
        (request("GET", "/health", head=HOST + b"X: y\r\n" * 20_000), 431),
    ],
    ids=lambda value: value if isinstance(value, int) else f"{value[:40]!r}",
)
@pytest.mark.usefixtures("unchanged")
def test_what_is_too_large_is_told_so(appliance: Appliance, data: bytes, status: int) -> None:
    assert refused(ask(appliance.port, data)) == status


def kept_of_line(http: httpx.Client, session_id: str, data: bytes) -> Document:
    """What the store has of a line with this data."""
    line = b'{"type":"action","sessionId":"%b","data":%b}' % (session_id.encode(), data)
    answer = http.post("/api/events", content=line, headers={"Content-Type": "application/x-ndjson"}).json()
    assert (answer["accepted"], answer["rejected"]) == (1, []), answer
    (entry,) = http.get(f"/api/actions/{session_id}").json()
    kept: Document = entry
    return kept


MANY = b"[" + b",".join([b'"x"'] * 300_000) + b"]"


@pytest.mark.parametrize(
    "data",
    [
        TOO_LARGE,
        b'{"type":"x","image":{"a":[{"data":"' + b"A" * (8 * MEBIBYTE) + b'"}]}}',
        b'{"many":' + MANY + b',"type":"x"}',
        b'{"%b":1,"type":"x"}' % (b"n" * 2 * MEBIBYTE),
        b'{"type":"x",' + b",".join(b'"%06d":"%b"' % (n, b"v" * 60) for n in range(20_000)) + b"}",
    ],
    ids=["a text", "an image", "many texts", "a name", "many members"],
)
def test_a_large_line_of_a_batch_is_cut_and_says_so(http: httpx.Client, session_id: str, data: bytes) -> None:
    kept = kept_of_line(http, session_id, data)
    assert kept["type"] == "x"
    assert kept["truncated"]["bytes"] == len(data)
    assert len(json.dumps(kept)) < MEBIBYTE


def test_a_secret_is_taken_out_of_a_large_line_before_it_is_cut(http: httpx.Client, session_id: str) -> None:
    secret = b"ghp_" + b"a1B2" * 9
    for most in (MEBIBYTE, MEBIBYTE // 2):  # where texts are cut
        text = b"x " * ((most - 20) // 2) + secret + b" " + b"y" * MEBIBYTE
        kept = kept_of_line(http, f"{session_id}-{most}", b'{"type":"x","text":"%b"}' % text)
        assert "ghp_" not in json.dumps(kept)


@pytest.mark.parametrize("kind", [b"[]", b"{}"])
@pytest.mark.parametrize("depth", [64, 70, 900, 20_000])
def test_a_deep_line_of_a_batch_is_cut_and_says_so(
    http: httpx.Client, session_id: str, depth: int, kind: bytes
) -> None:
    kept = kept_of_line(http, session_id, nested(depth, kind)[:-1] + b',"after":1}')
    assert (kept["type"], kept["after"], "truncated" in kept) == ("x", 1, True)
    assert "…" in json.dumps(kept["deep"], ensure_ascii=False)
    assert "truncated" not in kept_of_line(http, f"{session_id}-whole", nested(63, kind))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/health"),
        ("PUT", "/api/actions/bad"),
        ("PATCH", "/api/sessions"),
        ("POST", "/api/query/recent"),
        ("PUT", "/api/events"),
        ("DELETE", "/api/state/bad/goals/goal-1"),
        ("TRACE", "/api/sessions"),
        ("POST", "/api/events/stream"),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_wrong_method_is_405_and_told_what_is_right(appliance: Appliance, method: str, path: str) -> None:
    response = ask(appliance.port, request(method, path, b"{}"))
    assert refused(response) == 405
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} & set(response.headers["allow"].replace(" ", "").split(","))


WRITES = [
    ("POST", "/api/actions/bad"),
    ("POST", "/api/actions/bad/responses"),
    ("POST", "/api/sessions"),
    ("PUT", "/api/sessions/bad"),
    ("PATCH", "/api/sessions/good/metadata"),
    ("POST", "/api/sessions/good/finalize"),
    ("PATCH", "/api/state/bad"),
    ("POST", "/api/state/bad/goals"),
    ("POST", "/api/state/bad/agents"),
    ("POST", "/api/hooks/claude-code"),
    ("POST", "/api/login"),
]


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonx",
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_another_content_type_is_415(appliance: Appliance, media_type: str) -> None:
    head = HOST + (f"Content-Type: {media_type}\r\n".encode() if media_type else b"")
    for method, path in [*WRITES, ("POST", "/api/events")]:
        assert refused(ask(appliance.port, request(method, path, VALID, head))) == 415, (method, path)


VALID = json.dumps(
    {
        "type": "x",
        "sessionId": "bad",
        "userId": "u",
        "initial": {},
        "description": "d",
        "session_id": "bad",
        "hook_event_name": "Stop",
        "token": "t",
    }
).encode()


# -------------------------------------------------------------------------- JSON


def nested(depth: int, kind: bytes = b"[]") -> bytes:
    """An object whose deepest part is at this depth."""
    opening, closing = (b"[", b"]") if kind == b"[]" else (b'{"a":', b"}")
    inner = b"" if kind == b"[]" else b"1"
    return VALID[:-1] + b',"deep":' + opening * (depth - 1) + inner + closing * (depth - 1) + b"}"


NOT_JSON = {
    "half an object": b'{"type":"x"',
    "two objects": b'{"type":"x"}{"type":"x"}',
    "a comment": b'{"type":"x"/**/}',
    "a trailing comma": b'{"type":"x",}',
    "single quotes": b"{'type':'x'}",
    "a byte order mark": b'\xef\xbb\xbf{"type":"x"}',
    "UTF-16": '{"type":"x"}'.encode("utf-16"),
    "not UTF-8": b'{"type":"\xff"}',
    "overlong UTF-8": b'{"type":"\xc0\xaf"}',
    "half a character": b'{"type":"\xe2\x82"}',
    "a surrogate in UTF-8": b'{"type":"\xed\xa0\x80"}',
    "NaN": b'{"type":"x","n":NaN}',
    "Infinity": b'{"type":"x","n":-Infinity}',
    "1e999": b'{"type":"x","n":1e999}',
    "a leading zero": b'{"type":"x","n":01}',
    "5,000 digits": b'{"type":"x","n":' + b"1" * 5000 + b"}",
    "a control character": b'{"type":"\n"}',
    "a bad escape": b'{"type":"\\x41"}',
    "half a surrogate": b'{"type":"\\ud8"}',
    "a lone surrogate in what is not JSON": b'{"type":"\\ud800",}',
    "100,000 deep and not closed": b"[" * 100_000,
}
TOO_DEEP = {
    "65 deep": nested(65),
    "1,000 deep": nested(1000),
    "10,000 deep": nested(10_000),
    "100,000 deep": nested(100_000),
    "65 objects deep": nested(65, b"{}"),
    "100,000 objects deep": nested(100_000, b"{}"),
}
OF_REST = [(method, path) for method, path in WRITES if not path.startswith("/api/hooks/")]


@pytest.mark.parametrize("body", (NOT_JSON | TOO_DEEP).values(), ids=NOT_JSON | TOO_DEEP)
@pytest.mark.usefixtures("unchanged")
def test_what_is_not_json_is_400(appliance: Appliance, body: bytes) -> None:
    for method, path in OF_REST:
        status = 413 if path == "/api/login" and len(body) > 4096 else 400
        assert refused(ask(appliance.port, request(method, path, body))) == status, (method, path)


@pytest.mark.usefixtures("unchanged")
def test_a_compressed_body_is_415(appliance: Appliance) -> None:
    """It is not understood, and not taken for what it is not."""
    for method, path in WRITES:
        for coding in (b"gzip", b"br", b"identity, gzip", b"x"):
            head = HOST + b"Content-Type: application/json\r\nContent-Encoding: " + coding + b"\r\n"
            response = ask(appliance.port, request(method, path, gzip.compress(VALID), head))
            assert refused(response) == 415, (method, path, coding)
            assert response.headers["accept-encoding"] == "identity"
    head = HOST + b"Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n"
    assert ask(appliance.port, request("POST", "/api/events", gzip.compress(VALID), head)).status == 415


def test_a_body_that_says_that_it_is_as_it_is_is_taken(appliance: Appliance, session_id: str) -> None:
    head = HOST + b"Content-Type: application/json\r\nContent-Encoding: Identity\r\n"
    assert ask(appliance.port, request("POST", f"/api/actions/{session_id}", VALID, head)).status == 200


@pytest.mark.parametrize("body", [b"", b" "])
@pytest.mark.usefixtures("unchanged")
def test_no_body_is_400_where_one_is_needed(appliance: Appliance, body: bytes) -> None:
    for method, path in WRITES:
        if not path.endswith("/finalize"):
            assert refused(ask(appliance.port, request(method, path, body))) == 400, (method, path)


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.usefixtures("unchanged")
def test_a_line_that_is_not_json_is_one_bad_line(http: httpx.Client, body: bytes) -> None:
    line = b'{"type":"action","sessionId":"bad","data":%b}' % body.replace(b"\n", b"\x0b")
    answer = http.post("/api/events", content=line, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    assert [bad["status"] for bad in answer.json()["rejected"]] == [400]


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"true", b"[{}]"])
@pytest.mark.usefixtures("unchanged")
def test_json_that_is_no_object_is_422(appliance: Appliance, body: bytes) -> None:
    for method, path in WRITES:
        assert refused(ask(appliance.port, request(method, path, body))) == 422, (method, path)


HALVES = {
    rb"\ud800": "\ufffd",
    rb"\udc00!": "\ufffd!",
    rb"\uDBFF\uDBFF\uDFFF": "\ufffd\U0010ffff",
    rb"\ude00\ud83d": "\ufffd\ufffd",
    rb"\\ud83d\ude00": "\\ud83d\ufffd",
    rb"\\\ud800\n": "\\\ufffd\n",
    rb"\ud83d\ude00": "\U0001f600",
    rb"\\ud800": "\\ud800",
}


@pytest.mark.parametrize("text", HALVES, ids=lambda text: text.decode())
def test_half_a_character_is_one_that_stands_for_it(http: httpx.Client, session_id: str, text: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"type":"x","%b":["%b"]}' % (text, text)
    for path in (f"/api/actions/{session_id}", f"/api/actions/{session_id}/responses"):
        assert http.post(path, content=body, headers=headers).status_code == 200
        assert http.get(path).json()[0][HALVES[text]] == [HALVES[text]]
    assert http.patch(f"/api/state/{session_id}", content=body, headers=headers).status_code == 200
    assert http.get(f"/api/state/{session_id}").json()[HALVES[text]] == [HALVES[text]]
    user = b'{"userId":"u%b"}' % text.replace(rb"\n", b"")
    assert http.put(f"/api/sessions/{session_id}", content=user, headers=headers).status_code == 200
    named = b'{"sessionId":"s\\ud800","userId":"u","initial":{}}'
    assert http.post("/api/sessions", content=named, headers=headers).status_code == 422
    kept = kept_of_line(http, f"{session_id}-line", body)
    assert kept[HALVES[text]] == [HALVES[text]]


def test_many_escapes_beside_half_a_character_hold_nobody_up(http: httpx.Client, session_id: str) -> None:
    body = rb'{"type":"x","a":"\ud800' + rb"\n\ud83d\ude00\u0041" * 40_000 + b'"}'
    begun = time.monotonic()
    assert http.post(
        f"/api/actions/{session_id}", content=body, headers={"Content-Type": "application/json"}
    ).is_success
    assert time.monotonic() - begun < 5


def test_a_byte_order_mark_before_a_batch_is_passed_over(http: httpx.Client, session_id: str) -> None:
    line = json.dumps({"type": "action", "sessionId": session_id, "data": {"type": "x"}}).encode()
    content = b"\xef\xbb\xbf" + line + b"\n\xef\xbb\xbf" + line
    answer = http.post("/api/events", content=content, headers={"Content-Type": "application/x-ndjson"}).json()
    assert (answer["accepted"], [bad["line"] for bad in answer["rejected"]]) == (1, [2])


def depth(value: object) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


BRACKETS = st.text(alphabet='[]{}"\\/né\n')


@given(st.recursive(BRACKETS, lambda of: st.lists(of, max_size=3) | st.dictionaries(BRACKETS, of, max_size=3)))
def test_depth_is_counted_as_json_has_it(value: object) -> None:
    """Whatever stands in strings."""
    for is_ascii in (True, False):
        assert depth_of(json.dumps(value, ensure_ascii=is_ascii).encode()) == depth(value)


@pytest.mark.parametrize("kind", [b"[]", b"{}"])
def test_64_deep_is_taken(appliance: Appliance, http: httpx.Client, session_id: str, kind: bytes) -> None:
    assert ask(appliance.port, post(f"/api/actions/{session_id}", nested(64, kind))).status == 200
    assert http.get(f"/api/actions/{session_id}").json()[0]["deep"] == json.loads(nested(64, kind))["deep"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (rb'"a\u0000b"', "a\0b"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        ('"\u2028\ufffe\U0010ffff"'.encode(), "\u2028\ufffe\U0010ffff"),
        (b"9223372036854775808", 2**63),
        (b"-123456789012345678901234567890", -123456789012345678901234567890),
        (b"0.1", 0.1),
        (b'1,"n":2,"n":3', 3),
    ],
    ids=["NUL", "pair", "odd characters", "2^63", "30 digits", "fraction", "twice"],
)
def test_odd_values_are_kept_as_they_are(
    appliance: Appliance, http: httpx.Client, session_id: str, text: bytes, kept: object
) -> None:
    body = b'{"type":"x","n":%b}' % text
    assert ask(appliance.port, post(f"/api/actions/{session_id}", body)).status == 200
    (entry,) = http.get(f"/api/actions/{session_id}").json()
    assert entry["n"] == kept
    assert type(entry["n"]) is type(kept)
    assert ask(appliance.port, request("PATCH", f"/api/state/{session_id}", body)).status == 200
    assert http.get(f"/api/state/{session_id}").json()["n"] == kept
    last = http.get(f"/api/sessions/{session_id}/events").json()["items"][-1]
    assert last["data"]["n"] == kept


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/actions/bad", {"type": 1}),
        ("POST", "/api/actions/bad", {"type": None}),
        ("POST", "/api/actions/bad", {}),
        ("POST", "/api/actions/bad", {"type": "x", "timestamp": 2**70}),
        ("POST", "/api/actions/bad", {"type": "x", "timestamp": "2026-02-30T00:00:00Z"}),
        ("POST", "/api/actions/bad", {"type": "x", "timestamp": "0000-01-01T00:00:00Z"}),
        ("POST", "/api/actions/bad", {"type": "x", "timestamp": "0001-01-01T00:00:00+23:59"}),
        ("POST", "/api/actions/bad", {"type": "x", "eventId": 5}),
        ("POST", "/api/sessions/good/finalize", {"exitCode": 2**63}),
        ("POST", "/api/sessions/good/finalize", {"exitCode": -(2**70)}),
        ("POST", "/api/sessions/good/finalize", {"exitCode": 1.5}),
        ("POST", "/api/sessions/good/finalize", {"status": "won"}),
        ("POST", "/api/sessions", {"sessionId": "bad", "userId": "u\0", "initial": {}}),
        ("POST", "/api/sessions", {"sessionId": "bad", "userId": "x" * 257, "initial": {}}),
        ("POST", "/api/sessions", {"sessionId": "bad", "userId": "", "initial": {}}),
        ("POST", "/api/sessions", {"sessionId": "bad", "userId": "u", "initial": []}),
        ("POST", "/api/sessions", {"sessionId": "bad", "userId": "u", "initial": {}, "tags": "x"}),
        ("POST", "/api/state/bad/goals", {"description": 1}),
        ("POST", "/api/state/bad/agents", {"task": "x"}),
        ("PATCH", "/api/sessions/good/metadata", {"status": "won"}),
        ("PATCH", "/api/sessions/good/metadata", {"created": "2026"}),
        ("PATCH", "/api/sessions/good/metadata", {".".join("abcdefghij"): 1}),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_what_is_not_valid_is_422(appliance: Appliance, method: str, path: str, body: Document) -> None:
    response = ask(appliance.port, request(method, path, json.dumps(body).encode()))
    assert refused(response) == 422
    assert json.loads(response.body)["errors"][0]["path"].startswith("$")


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("POST", "/api/sessions/s/finalize", {"status": "done"}, "status: must be one of cancelled, failed, success"),
        ("GET", "/api/sessions?status=done", None, "status: must be one of active, cancelled, "),
        ("GET", "/api/query/usage?by=week", None, "by: must be one of day, model, "),
        ("POST", "/api/events", {"type": "x"}, "type: must be one of action, agent_completed, "),
        ("POST", "/api/actions/s", {"type": "x", "eventId": "a b"}, "eventId: must be 1 to 128 of A-Z a-z 0-9 . _ -"),
        ("POST", "/api/sessions", {"sessionId": "s", "userId": "", "initial": {}}, "userId: must be 1 to 256 char"),
    ],
)
def test_a_refusal_says_what_would_be_taken(
    http: httpx.Client, method: str, path: str, body: Document | None, said: str
) -> None:
    media_type = "application/x-ndjson" if path == "/api/events" else "application/json"
    content, headers = (json.dumps(body), {"content-type": media_type}) if body else (None, {})
    answer = http.request(method, path, content=content, headers=headers).json()
    problem = answer["rejected"][0] if "rejected" in answer else answer
    assert problem["detail"].startswith(said)
    assert answer.get("errors", [{"path": f"$.{said.partition(':')[0]}"}])[0]["path"] == f"$.{said.partition(':')[0]}"


@pytest.mark.parametrize("left_out", ["sessionId", "userId", "initial"])
@pytest.mark.usefixtures("unchanged")
def test_a_session_without_what_it_needs_is_400(appliance: Appliance, left_out: str) -> None:
    body = {"sessionId": "bad", "userId": "u", "initial": {}}
    del body[left_out]
    assert refused(ask(appliance.port, request("POST", "/api/sessions", json.dumps(body).encode()))) == 400


LIMITS = ["9" * 30, "-1", "ten", "1.5", "", "%00", "%ff", str(2**63)]


@pytest.mark.parametrize(
    "path",
    [
        "/api/events",
        "/api/sessions",
        "/api/sessions/good",
        "/api/sessions/good/events",
        "/api/actions/good",
        "/api/actions/good/responses",
        "/api/state/good/history",
        "/api/query/recent",
        "/api/query/search",
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_limit_that_is_none_is_422(appliance: Appliance, path: str) -> None:
    for limit in LIMITS:
        assert refused(ask(appliance.port, request("GET", f"{path}?limit={limit}"))) == 422, limit


@pytest.mark.parametrize(
    "query",
    [
        "/api/events?after=-1",
        f"/api/events?after={2**63}",
        "/api/events?after=x",
        f"/api/actions/good?before={'9' * 40}",
        "/api/actions/good?order=up",
        f"/api/state/good?at={2**64}",
        "/api/sessions?cursor=x",
        "/api/events/stream?after=x",
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_query_that_is_not_valid_is_422(appliance: Appliance, query: str) -> None:
    assert refused(ask(appliance.port, request("GET", query))) == 422


@pytest.mark.parametrize(
    "query",
    [
        "/api/events?type=nonsense&userId=%ff&sessionId=%00",
        "/api/sessions?q=%00%ff%27%22&tag=%25&status=x&userId=..",
        "/api/query/search?q=%22%20OR%20(*)%20NEAR%2F%00%ff",
        "/api/query/search?q=" + "x" * 5000,
        "/api/sessions/user/%00%ff",
        "/health?" + "&".join(f"a{n}=1" for n in range(5000)),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_an_odd_query_is_answered(appliance: Appliance, query: str) -> None:
    assert ask(appliance.port, request("GET", query)).status in (200, 404, 422)


# ------------------------------------------------------------------------- names

HOSTILE = {
    "two dots": "..",
    "a dot": ".",
    "encoded dots": "%2e%2e",
    "dots and a slash": "..%2f..%2fetc",
    "a way up": "..%5c..",
    "a NUL": "a%00b",
    "a bad byte": "%ff",
    "half a code": "%zz",
    "300 characters": "a" * 300,
    "129 characters": "a" * 129,
    "two dots within": "a..b",
    "a leading dot": ".a",
    "a leading minus": "-rf",
    "a space": "a%20b",
    "a line feed at the end": "a%0a",
    "a line feed": "a%0ab",
    "an accent": "%C3%A9",
    "wide digits": "%EF%BC%91",
    "nothing but a space": "%20",
    "a drive": "c:%5cx",
}
PATHS = [
    ("GET", "/api/sessions/{}"),
    ("PUT", "/api/sessions/{}"),
    ("DELETE", "/api/sessions/{}"),
    ("GET", "/api/sessions/{}/resume"),
    ("GET", "/api/sessions/{}/events"),
    ("PATCH", "/api/sessions/{}/metadata"),
    ("POST", "/api/sessions/{}/finalize"),
    ("POST", "/api/actions/{}"),
    ("POST", "/api/actions/{}/responses"),
    ("GET", "/api/actions/{}"),
    ("GET", "/api/actions/{}/responses"),
    ("GET", "/api/state/{}"),
    ("PATCH", "/api/state/{}"),
    ("GET", "/api/state/{}/history"),
    ("POST", "/api/state/{}/goals"),
    ("PATCH", "/api/state/good/goals/{}"),
    ("POST", "/api/state/{}/agents"),
    ("PATCH", "/api/state/good/agents/{}"),
    ("POST", "/api/state/good/agents/{}/complete"),
]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.usefixtures("unchanged")
def test_a_name_that_cannot_be_is_404_in_a_path(appliance: Appliance, http: httpx.Client, name: str) -> None:
    eventually(lambda: mirrored(appliance.folder) == http.get("/health").json()["cursor"])
    before = names(appliance.folder)
    for method, path in PATHS:
        body = b'{"userId":"u","type":"x","description":"d"}' if method in ("POST", "PUT", "PATCH") else b""
        assert refused(ask(appliance.port, request(method, path.format(name), body))) == 404, (method, path)
    assert names(appliance.folder) == before


HOSTILE_PARTS = [
    *HOSTILE.values(),
    "..",
    "%2e",
    "%2f",
    "%2F..%2F",
    "%5c",
    "%00",
    "%25",
    "%20",
    "~",
    "%7f",
    "%c0%ae",
    "%u002e",
]


@pytest.mark.usefixtures("unchanged")
def test_no_name_that_is_made_of_such_pieces_gets_anywhere(appliance: Appliance, http: httpx.Client) -> None:
    chance = random.Random(19)
    eventually(lambda: mirrored(appliance.folder) == http.get("/health").json()["cursor"])
    before = names(appliance.folder.parent)
    for number in range(HOSTILE_NAMES):
        parts = [chance.choice(HOSTILE_PARTS), *chance.choices([*HOSTILE_PARTS, "a", "etc", "passwd"], k=2)]
        chance.shuffle(parts)
        if is_id(unquote("".join(parts))):
            continue
        method, path = PATHS[number % len(PATHS)]
        body = b'{"userId":"u","type":"x","description":"d"}' if method in ("POST", "PUT", "PATCH") else b""
        whole = request(method, path.format("".join(parts)), body)
        assert refused(ask(appliance.port, whole)) in (404, 431), whole
    assert names(appliance.folder.parent) == before


@pytest.mark.parametrize(
    "name",
    ["", "..", ".", "a/b", "../x", "a\\b", "a\0b", "é", "\uff11", "a" * 129, "a..b", ".a", "-rf", "a b", "a\n", 5, {}],
)
@pytest.mark.usefixtures("unchanged")
def test_a_name_that_cannot_be_is_422_in_a_body(appliance: Appliance, http: httpx.Client, name: object) -> None:
    session = {"sessionId": "bad", "userId": "u", "initial": {}}
    action = {"type": "x"}
    bodies: list[tuple[str, Document]] = [
        ("/api/sessions", session | {"sessionId": name}),
        ("/api/sessions", session | {"parentSession": name}),
        ("/api/sessions", session | {"eventId": name}),
        ("/api/actions/bad", action | {"eventId": name}),
        ("/api/actions/bad", action | {"agentId": name}),
        ("/api/actions/bad/responses", action | {"eventId": name}),
        ("/api/state/bad/goals", {"description": "d", "id": name}),
        ("/api/state/bad/agents", {"type": "x", "agentId": name}),
        ("/api/state/bad/agents", {"type": "x", "parentAgentId": name}),
        ("/api/state/bad/agents", {"type": "x", "subsession": name}),
    ]
    for path, body in bodies:
        assert refused(ask(appliance.port, post(path, json.dumps(body).encode()))) == 422, (path, body)
    line = json.dumps({"type": "action", "sessionId": name, "data": action})
    answer = http.post("/api/events", content=line, headers={"Content-Type": "application/x-ndjson"}).json()
    assert [bad["status"] for bad in answer["rejected"]] == [422]


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "a.b.c", "a" * 128, "CON", "9", "a."])
def test_a_name_that_can_be_is_taken(appliance: Appliance, http: httpx.Client, name: str) -> None:
    assert ask(appliance.port, post(f"/api/actions/{name}")).status == 200
    assert http.get(f"/api/sessions/{name}").json()["metadata"]["sessionId"] == name


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Idempotency-Key", b"a b"),
        ("Idempotency-Key", b"\xff"),
        ("Idempotency-Key", b"x" * 200),
        ("Idempotency-Key", b""),
        ("Idempotency-Key", b'key"'),
        ("Idempotency-Key", b'""'),
        ("X-Timestamp", b"yesterday"),
        ("X-Timestamp", b"\xff"),
        ("X-User-Id", b"x" * 257),
        ("X-User-Id", b""),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_a_header_that_is_not_valid_is_422(appliance: Appliance, header: str, value: bytes) -> None:
    head = HOST + JSON + header.encode() + b": " + value + b"\r\n"
    assert refused(ask(appliance.port, post(head=head))) == 422
    assert refused(ask(appliance.port, request("PATCH", "/api/state/bad", b"{}", head))) == 422


# ----------------------------------------------------------- odd, but to be taken

TAKEN = {
    "HTTP/1.0": b"GET /health HTTP/1.0\r\n" + HOST + b"\r\n",
    "an absolute target": b"GET http://127.0.0.1/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an empty line first": b"\r\n" + request("GET", "/health"),
    "a body on GET": request("GET", "/health", b'{"a":1}'),
    "an encoded path": request("GET", "/%68ealth"),
    "a query that is nothing": request("GET", "/health?&&=&a"),
    "Expect": post("/api/actions/fine", head=HOST + JSON + b"Expect: 100-continue\r\n"),
    "one chunk": chunked(b'{"type":"x"}').replace(b"/bad", b"/fine"),
    "a chunk a byte": chunked(*(bytes((byte,)) for byte in b'{"type":"x"}')).replace(b"/bad", b"/fine"),
    "a charset": post("/api/actions/fine", head=HOST + b'Content-Type: Application/JSON; Charset="UTF-8"\r\n'),
    "an upgrade to something else": request("GET", "/health", head=UPGRADE),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_what_is_odd_but_right_is_taken(appliance: Appliance, data: bytes) -> None:
    assert ask(appliance.port, data).status == 200


def test_who_expects_to_be_told_to_go_on_is_told(appliance: Appliance) -> None:
    whole = post("/api/actions/fine", head=HOST + JSON + b"Expect: 100-continue\r\n")
    with dial(appliance.port) as peer:
        peer.sendall(whole[:-12])
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(whole[-12:])
        assert response_from(peer).status == 200


def test_requests_in_one_go_are_answered_in_their_order(appliance: Appliance, session_id: str) -> None:
    whole = b"".join(post(f"/api/actions/{session_id}", b'{"type":"x","n":%d}' % n) for n in range(20))
    with dial(appliance.port) as peer:
        peer.sendall(whole + request("GET", "/health", head=HOST + b"Connection: close\r\n"))
        answers = peers.received(peer)
    assert [int(seq) for seq in re.findall(rb'"seq":(\d+)', answers)] == list(range(1, 21))
    assert b'"status":"ok"' in answers


def test_a_request_before_nonsense_is_answered_before_it(appliance: Appliance, session_id: str) -> None:
    """Not with the 400 that the nonsense deserves: it was stored."""
    with dial(appliance.port) as peer:
        peer.sendall(post(f"/api/actions/{session_id}") + b"nonsense\r\n\r\n")
        answer = response_from(peer)
        assert (answer.status, json.loads(answer.body)["seq"]) == (200, 1)
        assert peers.received(peer) == b""


# --------------------------------------------------------------------- WebSocket

BAD_HANDSHAKES = {
    "no upgrade": (request("GET", "/ws"), 426),
    "a POST without an upgrade": (post("/ws"), 405),
    "no key": (handshake(sec_websocket_key=""), 400),
    "a short key": (handshake(sec_websocket_key="eA=="), 400),
    "a key that is none": (handshake(sec_websocket_key="!"), 400),
    "no version": (handshake(sec_websocket_version=""), 400),
    "an old version": (handshake(sec_websocket_version="8"), 400),
    "a POST": (handshake().replace(b"GET", b"POST", 1), 405),
    "a foreign origin": (handshake(origin="http://evil.example"), 403),
    "no origin": (handshake(origin="null"), 403),
    "a foreign Host": (handshake(host="evil.example"), 403),
    "no Host": (handshake(host=""), 400),
    "two Hosts": (handshake().replace(b"\r\n", b"\r\n" + HOST, 1), 400),
    "another path": (handshake("/nothing"), 403),
    "a path of HTTP": (handshake("/health"), 403),
    "a long header": (handshake(x="y" * 10_000), 431),
    "many headers": (handshake().replace(b"\r\n", b"\r\n" + b"X: y\r\n" * 300, 1), 431),
    "a long path": (handshake("/ws?session=" + "x" * 10_000), 414),
    "a header that does not parse": (handshake(x="\x01"), 400),
}


@pytest.mark.parametrize(("data", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
@pytest.mark.usefixtures("unchanged")
def test_a_websocket_that_is_not_opened_rightly_is_refused(
    appliance: Appliance, http: httpx.Client, data: bytes, status: int
) -> None:
    assert refused(ask(appliance.port, data)) == status
    eventually(lambda: http.get("/health").json()["websocket"]["totalConnections"] == 0)


def test_a_websocket_that_is_opened_rightly_is_not_refused(appliance: Appliance) -> None:
    assert ask(appliance.port, handshake()).status == 101


@pytest.mark.parametrize("path", ["/ws?session=%00&user=%ff", "/ws?after=%00", "/ws?" + "session=a&" * 700])
def test_an_odd_wish_is_no_fault(appliance: Appliance, path: str) -> None:
    assert ask(appliance.port, handshake(path)).status == 101


# ------------------------------------------------------------------- cut anywhere


@repeated("times", few=200, many=1000, variable="CUT_REQUESTS")
def test_requests_cut_at_any_byte_leave_nothing_behind(appliance: Appliance, http: httpx.Client, times: int) -> None:
    chance = random.Random(20260213)
    wholes = [
        post("/api/actions/cut"),
        post("/api/actions/cut/responses"),
        chunked(b'{"type":', b'"x"}').replace(b"/bad", b"/cut"),
        request("PUT", "/api/sessions/cut", b'{"userId":"u"}'),
        request("PATCH", "/api/state/cut", b'{"a":{"b":1}}'),
        request("POST", "/api/state/cut/goals", b'{"description":"d"}'),
        request("POST", "/api/state/cut/agents", b'{"type":"x"}'),
        request("POST", "/api/events", BATCH, HOST + b"Content-Type: application/x-ndjson\r\n"),
        handshake("/ws?after=0"),
        request("GET", "/api/events?limit=1000"),
    ]
    assert ask(appliance.port, post("/api/actions/cut")).status == 200
    sockets, memory = sockets_of(appliance.process.pid), resident_bytes(appliance.process.pid)
    before = counts(http)
    for number in range(times * 4 // 5):
        whole = wholes[number % len(wholes)]
        cut_off(appliance.port, whole[: chance.randrange(len(whole))], chance)
    assert counts(http) == before, "no request that was cut changed anything"
    written = 0
    for number in range(times // 5):
        whole = wholes[number % 8]
        written += cut_off(appliance.port, whole, chance)
    assert written
    eventually(lambda: sockets_of(appliance.process.pid) <= sockets)
    assert ask(appliance.port, post("/api/actions/cut")).status == 200
    by_type: dict[str, list[Document]] = {"action": [], "response": []}
    after = 0
    while page := http.get(f"/api/sessions/cut/events?limit=1000&type=action&type=response&after={after}").json()[
        "items"
    ]:
        after = page[-1]["cursor"]
        for event in page:
            by_type[event["type"]].append(event)
    for entries in by_type.values():
        assert [entry["data"]["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    batches = [entry for entry in by_type["action"] if "batch" in entry["data"]]
    assert len(batches) % BATCH_LINES == 0, "a batch is there whole or not at all"
    assert resident_bytes(appliance.process.pid) < memory + 64 * MEBIBYTE


BATCH_LINES = 20
BATCH = b'{"type":"action","sessionId":"cut","data":{"type":"x","batch":1}}\n' * BATCH_LINES


def cut_off(port: int, data: bytes, chance: random.Random) -> int:
    """Send it in two pieces, and leave without waiting for an answer."""
    middle = chance.randrange(len(data) + 1)
    with dial(port) as peer, suppress(ConnectionError):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(data[:middle])
        peer.sendall(data[middle:])
        if chance.random() < 0.5:
            peers.reset(peer)
    return len(data)


# ------------------------------------------------------------------- at the end


@pytest.mark.parametrize("name", marked([*SLOW, *DRIPS], long=TAKE_LONG))
def test_what_does_not_come_in_time_is_given_up(slow: dict[str, Future[bytes]], http: httpx.Client, name: str) -> None:
    """Headers have 10 s, a body 30 s."""
    answer = slow[name].result(PATIENCE)
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert refused(response_of(last)) == 408
    assert http.get("/api/sessions/slow").status_code == 404
