"""The door answers to the letter as the ordinary handlers behind it do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import pytest

from app import create_app
from sessionstore.access import ASGI, Gate, Message, Receive, Scope, Send
from sessionstore.door import Door
from sessionstore.settings import Settings
from sessionstore.store import Store
from sessionstore.tokens import Tokens

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
CORPUS = (
    *(Asked(body, f"/api/actions/session{log}") for body in BODIES for log in ("", "/responses")),
    *(Asked(WELL % number, path) for number, path in enumerate(PATHS)),
    *(Asked(b'{"type":"note"}', "/api/actions/headers", headers) for headers in HEADERS),
)


@asynccontextmanager
async def running(folder: Path, *, with_door: bool) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the appliance, in this process: as it is, or with the ordinary handlers alone."""
    settings = Settings(directory=folder)
    store = Store(settings)
    gate = cast(Gate, create_app(store, Tokens(settings)))
    assert isinstance(gate.app, Door)
    if not with_door:
        gate.app = gate.app.app
    async with lifespan(gate):
        transport = httpx.ASGITransport(with_state(gate))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9000") as client:
            yield client


def with_state(app: ASGI) -> Any:
    """`app` as an ASGI server calls it: each request with a state of its own."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {}}, receive, send)

    return called


@asynccontextmanager
async def lifespan(app: ASGI) -> AsyncIterator[None]:
    """Start the app and stop it as an ASGI server does."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, outbox.put)
    )

    async def tell(moment: str) -> None:
        inbox.put_nowait({"type": f"lifespan.{moment}"})
        assert (await outbox.get())["type"] == f"lifespan.{moment}.complete"

    await tell("startup")
    try:
        yield
    finally:
        await tell("shutdown")
        await task


def answers(folder: Path, *, with_door: bool) -> list[Answered]:
    """What the corpus is answered, in its order, and in the end the logs that came of it."""

    async def ask() -> list[Answered]:
        async with running(folder, with_door=with_door) as client:
            found = [await client.post(asked.path, content=asked.body, headers=asked.headers) for asked in CORPUS]
            for session in ("session", "other", "headers"):
                found += [await client.get(f"/api/actions/{session}{log}") for log in ("", "/responses")]
            return [answered(answer) for answer in found]

    return asyncio.run(ask())


def answered(answer: httpx.Response) -> Answered:
    """An answer without what every store makes up for itself."""
    body = answer.json() if answer.content else None
    return Answered(answer.status_code, dict(answer.headers) | {"content-length": ""}, nameless(body))


def nameless(document: Any) -> Any:
    """`document` without the event ids and times that were not given."""
    if isinstance(document, list):
        return [nameless(item) for item in document]
    if not isinstance(document, dict):
        return document
    given = {name: value for name, value in document.items() if name != "timestamp" or "+01:00" in str(value)}
    return given | ({"eventId": len(given["eventId"]) > 8} if "eventId" in given else {})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("door")


def test_with_and_without_the_door_every_answer_is_the_same(folders: Path) -> None:
    with_door = answers(folders / "with", with_door=True)
    without = answers(folders / "without", with_door=False)
    for asked, here, there in zip(CORPUS, with_door, without, strict=False):
        assert here == there, (asked.path, asked.headers, asked.body[:80])
    assert with_door[len(CORPUS) :] == without[len(CORPUS) :]
    statuses = {answer.status for answer in with_door}
    assert statuses == {200, 400, 403, 404, 413, 415, 422}
