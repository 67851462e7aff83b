"""The live feed: every event once and in order, whoever else listens, writes, sleeps or falls away."""

from __future__ import annotations

import asyncio
import json
import random
import re
import select
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, closing, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection as Client
from websockets.sync.client import connect as dial_feed

from sessionstore.store.broadcaster import MAX_EVENTS
from tests import peers, wire
from tests.appliance import Appliance
from tests.peers import eventually, sockets_of
from tests.wire import NDJSON, http_request

Document = dict[str, Any]
WRITERS = 8


@pytest.fixture(autouse=True)
def quiet_log(appliance: Appliance) -> Iterator[None]:
    """Whatever a client does, the server has no fault to tell of."""
    before = appliance.output
    yield
    said = appliance.output.removeprefix(before)
    assert "Traceback" not in said
    assert " ERROR " not in said


def feed(appliance: Appliance, query: str = "") -> Client:
    return dial_feed(f"ws://127.0.0.1:{appliance.port}/ws{query}", proxy=None, max_size=None, compression=None)


def hear(client: Client) -> Document:
    message: Document = json.loads(client.recv(timeout=peers.SECONDS))
    return message


def hear_events(client: Client, number: int) -> list[Document]:
    """The next so many events, and a pong after them: that is all there were."""
    events = [hear(client) for _ in range(number)]
    client.send('{"type":"ping"}')
    assert hear(client) == {"type": "pong"}
    return events


def log(http: httpx.Client, session_id: str, number: int = 1, user: str = "unknown") -> list[int]:
    """Actions, and the cursors that they got."""
    return [
        http.post(f"/api/actions/{session_id}", json={"type": "note", "n": n}, headers={"X-User-Id": user})
        .raise_for_status()
        .json()["cursor"]
        for n in range(number)
    ]


def head(http: httpx.Client) -> int:
    cursor: int = http.get("/health").json()["cursor"]
    return cursor


def events_after(http: httpx.Client, after: int, **query: Any) -> list[Document]:
    """The log, page by page."""
    events: list[Document] = []
    while True:
        page = http.get("/api/events", params={"after": after, "limit": 1000, **query}).raise_for_status().json()
        if page["nextAfter"] == after:
            return events
        events += page["items"]
        after = page["nextAfter"]


def post_batch(http: httpx.Client, session_ids: list[str], number: int, padding: int = 0) -> int:
    """Events of these sessions in turn, in one go; the newest cursor."""
    lines = (
        json.dumps({"type": "action", "sessionId": name, "data": {"type": "note", "n": n, "padding": "x" * padding}})
        for n, name in zip(range(number), cycle(session_ids), strict=False)
    )
    answer = http.post("/api/events", content="\n".join(lines), headers={"Content-Type": NDJSON}).raise_for_status()
    assert answer.json()["rejected"] == []
    cursor: int = answer.json()["cursor"]
    return cursor


def cursors(events: list[Document]) -> list[int]:
    return [event["cursor"] for event in events]


# ------------------------------------------------------------------ what is said


def test_the_first_message_says_who_is_listened_to_and_from_where(appliance: Appliance, http: httpx.Client) -> None:
    newest = log(http, "hello")[-1]
    with feed(appliance, "?session=hello&session=other&user=alice") as client:
        hello = hear(client)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", hello.pop("timestamp"))
    assert hello == {"type": "connected", "userId": "alice", "sessionId": "hello", "cursor": newest}


def test_who_asks_for_all_is_told_so(appliance: Appliance) -> None:
    with feed(appliance) as client:
        hello = hear(client)
    assert (hello["userId"], hello["sessionId"]) == (None, None)


def test_a_message_is_an_event_as_the_log_has_it(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    before = head(http)
    with feed(appliance, f"?session={session_id}") as client:
        hear(client)
        http.put(f"/api/sessions/{session_id}", json={"userId": "zoë", "initial": {"config": {"model": "m"}}})
        http.post(f"/api/actions/{session_id}", content='{\n "type": "x",\r\n "text": "\\u2028 \\n ü" }', headers=JSON)
        http.post(f"/api/actions/{session_id}/responses", json={"type": "y", "agentId": "a-1"})
        http.patch(f"/api/state/{session_id}", json={"phase": "work"})
        http.patch(f"/api/state/{session_id}", content='{"phase":null}', headers={"Content-Type": MERGE})
        goal = http.post(f"/api/state/{session_id}/goals", json={"description": "d"}).json()["goal"]["id"]
        http.patch(f"/api/state/{session_id}/goals/{goal}", json={"status": "completed"})
        http.post(f"/api/state/{session_id}/agents", json={"type": "t", "agentId": "a-1"})
        http.post(f"/api/state/{session_id}/agents/a-1/complete")
        http.patch(f"/api/sessions/{session_id}/metadata", json={"tags": ["one"]})
        http.post(f"/api/sessions/{session_id}/finalize", json={"timestamp": "2026-01-01T01:00:00+01:00"})
        heard = hear_events(client, 11)
        assert heard == events_after(http, before, sessionId=session_id)
        http.delete(f"/api/sessions/{session_id}")
        (deleted,) = hear_events(client, 1)
    assert [event["type"] for event in heard[:3]] == ["session_created", "action", "response"]
    assert heard[10]["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert deleted["type"] == "session_deleted"


JSON = {"Content-Type": "application/json"}
MERGE = "application/merge-patch+json"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?session={0}-a", "a"),
        ("?session={0}-a&session={0}-b", "ab"),
        ("?user={0}-u", "bc"),
        ("?user={0}-u&user={0}-v", "bcd"),
        ("?session={0}-a&user={0}-v", "ad"),
        ("?session={0}-b&user={0}-u", "bc"),
        ("?session=&user=", "abcd"),
        ("", "abcd"),
        ("?session=nobody", ""),
    ],
)
def test_only_what_was_asked_for_is_sent(
    appliance: Appliance, http: httpx.Client, session_id: str, query: str, expected: str
) -> None:
    users = {"a": "t", "b": "u", "c": "u", "d": "v"}
    first = head(http)
    with feed(appliance, query.format(session_id)) as live:
        hear(live)
        for name, user in users.items():
            log(http, f"{session_id}-{name}", 2, f"{session_id}-{user}")
        wanted = [event for event in events_after(http, first) if event["sessionId"][-1] in expected]
        assert hear_events(live, len(wanted)) == wanted
    joiner = "&" if query else "?"
    with feed(appliance, f"{query.format(session_id)}{joiner}after={first}") as late:
        hear(late)
        assert hear_events(late, len(wanted)) == wanted
    assert len(wanted) == 3 * len(expected)


def test_what_came_since_a_cursor_is_sent_first(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    newest = log(http, session_id, 5)
    with feed(appliance, f"?after={newest[1]}") as client:
        assert hear(client)["cursor"] == newest[-1]
        newest += log(http, session_id)
        assert cursors(hear_events(client, 4)) == newest[2:]


def test_what_is_deleted_is_not_told_to_who_comes_later(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    start = head(http)
    log(http, session_id, 3)
    other = log(http, f"{session_id}-other")
    assert http.delete(f"/api/sessions/{session_id}").status_code == 200
    again = log(http, session_id)
    with feed(appliance, f"?after={start}") as client:
        hear(client)
        left = hear_events(client, 5)
    assert left == events_after(http, start)
    assert [event["cursor"] for event in left if event["type"] == "action"] == [*other, *again]


@pytest.mark.parametrize("after", ["none", "-1", "1.5", "9" * 30, ""])
def test_a_cursor_that_is_none_begins_now(
    appliance: Appliance, http: httpx.Client, session_id: str, after: str
) -> None:
    log(http, session_id)
    with feed(appliance, f"?after={after}") as client:
        hear(client)
        assert cursors(hear_events(client, 0)) == []


def test_a_cursor_beyond_the_newest_begins_now(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    log(http, session_id)
    with feed(appliance, f"?after={head(http) + 1000}") as client:
        assert hear(client)["cursor"] == head(http)
        newest = log(http, session_id)
        assert cursors(hear_events(client, 1)) == newest


# ---------------------------------------------------------------- what is obeyed


def test_a_subscription_adds_names_and_takes_them_away(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    one, two, three = (f"{session_id}-{n}" for n in range(3))
    for name in (one, two, three):
        log(http, name, 1, f"{name}-user")
    with feed(appliance, f"?session={one}") as client:
        hear(client)
        tell(client, type="subscribe", session=two, user=[f"{three}-user"])
        newest = [*log(http, one), *log(http, two), *log(http, three)]
        assert cursors(hear_events(client, 3)) == newest
        tell(client, type="unsubscribe", session=[one, two])
        newest = [*log(http, one), *log(http, two), *log(http, three)]
        assert cursors(hear_events(client, 1)) == newest[2:]
        tell(client, type="unsubscribe")
        log(http, three)
        assert hear_events(client, 0) == []
        tell(client, type="subscribe")
        assert cursors(hear_all(client, log(http, one)[-1])) == [head(http)]


def tell(client: Client, **message: Any) -> None:
    """Say it, and wait until it was heard."""
    client.send(json.dumps(message))
    hear_events(client, 0)


def hear_all(client: Client, newest: int) -> list[Document]:
    """Events up to this cursor."""
    events = [hear(client)]
    while events[-1]["cursor"] < newest:
        events.append(hear(client))
    return events


def test_who_asked_for_all_and_subscribes_gets_only_that(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    with feed(appliance) as client:
        hear(client)
        tell(client, type="subscribe", session=session_id)
        log(http, f"{session_id}-other")
        newest = log(http, session_id)
        assert cursors(hear_events(client, 2))[1:] == newest


def test_a_subscription_with_after_sends_what_was_not_sent(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    one, two = f"{session_id}-1", f"{session_id}-2"
    start = head(http)
    had = [*log(http, one, 2), *log(http, two, 2)]
    with feed(appliance, f"?session={one}") as client:
        hear(client)
        later = log(http, one, 2)
        assert cursors(hear_events(client, 2)) == later
        client.send(json.dumps({"type": "subscribe", "session": one, "after": start}))
        assert cursors(hear_events(client, 3))[1:] == had[:2], "what came before, and not again what was sent live"
        client.send(json.dumps({"type": "subscribe", "session": one, "after": start}))
        assert hear_events(client, 0) == [], "nothing twice"
        tell(client, type="subscribe", session=two)
        latest = log(http, two)
        assert cursors(hear_events(client, 1)) == latest
        client.send(json.dumps({"type": "subscribe", "session": two, "after": had[2]}))
        assert cursors(hear_events(client, 1)) == had[3:], "what came before the first subscription"


def test_a_subscription_in_the_middle_of_catching_up_misses_nothing(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    start = head(http)
    names = [f"{session_id}-{n}" for n in range(3)]
    post_batch(http, names, MAX_EVENTS + 1800)
    expected = [event for event in events_after(http, start) if event["sessionId"] != names[2]]
    for heard_before in (0, 100, 1500):
        with feed(appliance, f"?session={names[0]}&after={start}") as client:
            hear(client)
            heard = [hear(client) for _ in range(heard_before)]
            client.send(json.dumps({"type": "subscribe", "session": names[1], "after": start}))
            heard += [hear(client) for _ in range(len(expected) - heard_before)]
            hear_events(client, 0)
        assert sorted(heard, key=lambda event: event["cursor"]) == expected


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "null",
        "[]",
        '"ping"',
        "{}",
        '{"type":"connected"}',
        '{"type":null}',
        '{"type":"subscribe","session":5}',
        '{"type":"subscribe","after":-1}',
        '{"type":"subscribe","after":"1"}',
        '{"type":"subscribe","after":1e999}',
        '{"type":"\\ud800"}',
        '{"type":"subscribe","session":5,"user":"\\udc00"}',
        '{"type":"unsubscribe","user":{}}',
        '{"type":"ping"',
        "\ud7ff\x00",
        "[" * 60_000,
        b"",
        b'{"type":"unsubscribe"}',
        b"\xff\x00",
    ],
)
def test_anything_else_is_ignored(
    appliance: Appliance, http: httpx.Client, session_id: str, message: str | bytes
) -> None:
    with feed(appliance) as client:
        hear(client)
        client.send(message)
        newest = log(http, session_id)
        assert cursors(hear_events(client, 2))[1:] == newest


def test_half_a_character_in_a_message_is_one_that_stands_for_it(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    user = {"userId": "half \ufffd"}
    http.put(f"/api/sessions/{session_id}", json=user).raise_for_status()
    with feed(appliance) as client:
        hear(client)
        client.send('{"type":"subscribe","user":"half \\ud800","after":0}')
        assert [event["sessionId"] for event in hear_events(client, 1)] == [session_id]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (peers.frame(b"x" * 70_000), 1009),
        (peers.frame(b"", peers.TEXT)[:1] + b"\xff" + b"\x7f" * 8, 1009),
        (peers.frame(b"\xff\xfe"), 1007),
        (b"\x81\x02hi", 1002),
        (peers.frame(b"x", 3), 1002),
        (peers.frame(b"x" * 200, peers.PING), 1002),
        (peers.frame(b'{"type":"hello"}') * 1200, 1008),
    ],
    ids=["large", "huge", "not UTF-8", "not masked", "unknown opcode", "long ping", "flood"],
)
def test_what_may_not_be_sent_ends_this_connection_alone(
    appliance: Appliance, http: httpx.Client, session_id: str, message: bytes, code: int
) -> None:
    with feed(appliance) as bystander, peers.dial(appliance.port) as peer:
        hear(bystander)
        peer.sendall(peers.handshake())
        said = peer.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 101")
        peer.sendall(message)
        while (told := peers.close_code(said.partition(b"\r\n\r\n")[2])) is None:
            said += peers.more(peer, said)
        assert told == code
        newest = log(http, session_id)
        assert cursors(hear_events(bystander, 2))[1:] == newest


# ------------------------------------------------------------ no gap, no repeat


async def write_until(stop: asyncio.Event, port: int, name: str) -> None:
    client = await wire.connect(port, wire.HttpClient)
    for n in range(10_000):
        body = b'{"type":"note","n":%d}' % n
        assert (await client.ask(http_request("POST", f"/api/actions/{name}", body))).status == 200
        if stop.is_set():
            break
    client.close()


Reading = Callable[[int, int], AsyncGenerator[int]]


async def websocket_cursors(port: int, after: int) -> AsyncGenerator[int]:
    """Of the events that a WebSocket client hears."""
    url = f"ws://127.0.0.1:{port}/ws?after={after}"
    async with connect(url, proxy=None, max_size=None, compression=None, close_timeout=0.1) as client:
        await client.recv()
        async for message in client:
            yield json.loads(message)["cursor"]


async def stream_cursors(port: int, after: int) -> AsyncGenerator[int]:
    """Of the events of a stream of server-sent events, by their ids."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        writer.write(http_request("GET", f"/api/events/stream?after={after}"))
        while line := await reader.readline():
            if line.startswith(b"id: "):
                yield int(line[4:])
    finally:
        writer.close()


async def read_until(end: asyncio.Future[int], reading: Reading, port: int, after: int, stay: int) -> list[int]:
    """All cursors after one, until one beyond the end is heard; comes back after every so many events."""
    heard: list[int] = []
    while not end.done() or after <= end.result():
        async with aclosing(reading(port, after)) as connection:
            async for after in connection:
                heard.append(after)
                if len(heard) % stay == 0 or (end.done() and after > end.result()):
                    break
    return heard


@asynccontextmanager
async def writing(port: int, names: list[str]) -> AsyncGenerator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as writers:
        for name in names:
            writers.create_task(write_until(stop, port, name))
        yield
        stop.set()


@pytest.mark.parametrize("stay", [400, 1_000_000], ids=["coming back", "staying"])
@pytest.mark.parametrize("reading", [websocket_cursors, stream_cursors])
def test_readers_join_while_writers_write(
    appliance: Appliance, http: httpx.Client, session_id: str, reading: Reading, stay: int
) -> None:
    chance = random.Random(stay)
    oldest, port = head(http), appliance.port

    async def scenario() -> tuple[int, list[tuple[int, list[int]]]]:
        """The end; and of each reader, the cursor that it began at, and what it heard."""
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        readers: list[tuple[int, asyncio.Task[list[int]]]] = []
        async with asyncio.timeout(peers.SECONDS):
            async with writing(port, [f"{session_id}-{n}" for n in range(WRITERS)]):
                while len(readers) < 20:
                    await asyncio.sleep(chance.uniform(0, 0.03))
                    after = chance.randint(oldest, await newest_cursor(port))
                    reader = read_until(end, reading, port, after, stay)
                    readers.append((after, asyncio.create_task(reader)))
            end.set_result(await newest_cursor(port))
            await write_word(port, session_id)
            return end.result(), [(after, await task) for after, task in readers]

    end, readers = asyncio.run(scenario())
    for after, heard in readers:
        assert heard == list(range(after + 1, after + 1 + len(heard)))
        assert heard[-1] > end > oldest


async def subscriber(
    end: asyncio.Future[int], port: int, chance: random.Random, oldest: int, names: list[str]
) -> tuple[dict[str, int], list[int]]:
    """Names one session after another, until each has said something beyond the end.

    Since when it wants each; and the cursors that it heard.
    """
    after = chance.randint(oldest, await newest_cursor(port))
    since = dict.fromkeys(chance.sample(names, 2), after)
    heard: list[int] = []
    newest: dict[str, int] = {}
    moments = {chance.randrange(1, 50) for _ in range(4)}
    url = f"ws://127.0.0.1:{port}/ws?after={after}&session=" + "&session=".join(since)
    async with connect(url, proxy=None, max_size=None, compression=None, close_timeout=0.1) as client:
        await client.recv()
        while not end.done() or min(newest.get(name, 0) for name in since) <= end.result():
            event = json.loads(await client.recv())
            heard.append(event["cursor"])
            newest[event["sessionId"]] = event["cursor"]
            if len(heard) in moments and not end.done():  # beyond the end it may have said its last word already
                name, after = chance.choice(names), chance.randint(oldest, max(heard))
                since[name] = min(after, since.get(name, after))
                await client.send(json.dumps({"type": "subscribe", "session": name, "after": after}))
        await client.send('{"type":"ping"}')
        while (message := json.loads(await client.recv())) != {"type": "pong"}:
            heard.append(message["cursor"])
    return since, heard


def test_who_subscribes_at_any_moment_gets_each_event_once(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    chance = random.Random(5)
    oldest, names = head(http), [f"{session_id}-{n}" for n in range(WRITERS)]
    post_batch(http, names, 1000)

    async def scenario() -> list[tuple[dict[str, int], list[int]]]:
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(peers.SECONDS):
            async with writing(appliance.port, names):
                readers = []
                for _ in range(25):
                    await asyncio.sleep(0.02)
                    reader = subscriber(end, appliance.port, chance, oldest, names)
                    readers.append(asyncio.create_task(reader))
            end.set_result(await newest_cursor(appliance.port))
            for name in names:
                await write_word(appliance.port, name)
            return [await reader for reader in readers]

    readers = asyncio.run(scenario())
    stored = [(event["cursor"], event["sessionId"]) for event in events_after(http, oldest)]
    for since, heard in readers:
        assert sorted(heard) == [cursor for cursor, name in stored if name in since and cursor > since[name]]
    assert sum(len(since) for since, _ in readers) > 3 * len(readers), "each named some more, mostly"
    assert any(heard != sorted(heard) for _, heard in readers), "some asked for what was before"


async def newest_cursor(port: int) -> int:
    client = await wire.connect(port, wire.HttpClient)
    cursor: int = json.loads((await client.ask(http_request("GET", "/health"))).body)["cursor"]
    client.close()
    return cursor


async def write_word(port: int, session_id: str) -> None:
    client = await wire.connect(port, wire.HttpClient)
    await client.ask(http_request("POST", f"/api/actions/{session_id}", b'{"type":"end"}'))
    client.close()


def test_a_batch_beyond_the_ring_throws_nobody_out(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    start = head(http)
    with closing(Cursors(appliance.port)) as reader, stream(http, after=start) as lines:
        newest = post_batch(http, [session_id], 20_000)
        assert newest - start > 2 * MAX_EVENTS
        assert reader.up_to(newest) == list(range(start + 1, newest + 1))
        assert cursors(take(lines, newest - start)) == list(range(start + 1, newest + 1))
    with closing(Cursors(appliance.port, f"/ws?after={start}")) as late:
        assert late.up_to(newest) == list(range(start + 1, newest + 1))


class Cursors(wire.WsReader):
    """Keeps the cursors of what it hears."""

    def __init__(self, port: int, path: str = "/ws") -> None:
        self.heard: list[int] = []
        super().__init__(port, path)

    def message(self, payload: bytes) -> None:
        if payload.startswith(b'{"cursor":'):
            self.heard.append(int(payload[10 : payload.index(b",")]))

    def up_to(self, newest: int) -> list[int]:
        while not self.heard or self.heard[-1] < newest:
            assert select.select([self], [], [], peers.SECONDS)[0], "nothing came any more"
            assert self.take(), f"closed with {self.close_code}"
        return self.heard


# ------------------------------------------------------------- server-sent events


@contextmanager
def stream(http: httpx.Client, headers: dict[str, str] | None = None, /, **query: Any) -> Iterator[Iterator[str]]:
    """The lines of an event stream."""
    with http.stream("GET", "/api/events/stream", params=query, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        lines = lines_of(response)
        assert next(lines).startswith(":")
        yield lines


def lines_of(response: httpx.Response) -> Iterator[str]:
    """Lines end at a line feed here, and nowhere else: httpx would end them at U+2028 too."""
    left = b""
    for data in response.iter_raw():
        *lines, left = (left + data).split(b"\n")
        yield from (line.decode() for line in lines)


def take(lines: Iterator[str], number: int) -> list[Document]:
    """The next so many events, as the specification of EventSource reads them; each with its id checked."""
    events: list[Document] = []
    fields: dict[str, str] = {}
    while len(events) < number:
        line = next(lines)
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        elif fields:
            assert set(fields) == {"id", "data"}
            events.append(json.loads(fields["data"]))
            assert fields["id"] == str(events[-1]["cursor"])
            fields = {}
    return events


def test_a_stream_gives_events_as_the_log_has_them(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    start = head(http)
    body = b'{\r\n"type":"note",\n"text":"data: 1\\n\\nid: 2\\r\xe2\x80\xa8"}'
    http.post(f"/api/actions/{session_id}", content=body, headers=JSON)
    with stream(http, after=start) as lines:
        assert take(lines, 2) == events_after(http, start)
        log(http, session_id)
        assert take(lines, 1) == events_after(http, start)[2:]


def test_a_stream_without_a_cursor_begins_now(http: httpx.Client, session_id: str) -> None:
    log(http, session_id)
    with stream(http) as lines:
        newest = log(http, session_id)
        assert cursors(take(lines, 1)) == newest


def test_the_last_event_id_wins_over_after(http: httpx.Client, session_id: str) -> None:
    newest = log(http, session_id, 4)
    with stream(http, {"Last-Event-ID": str(newest[1])}, after=newest[0] - 1) as lines:
        assert cursors(take(lines, 2)) == newest[2:]
    with stream(http, {"Last-Event-ID": str(newest[0])}, after=newest[3]) as lines:
        assert cursors(take(lines, 3)) == newest[1:]


def test_a_last_event_id_that_is_none_leaves_after(http: httpx.Client, session_id: str) -> None:
    newest = log(http, session_id, 2)
    with stream(http, {"Last-Event-ID": "undefined"}, after=newest[0]) as lines:
        assert cursors(take(lines, 1)) == newest[1:]


def texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type": "action"}, ["action", "action"]),
        ({"type": ["action", "response"]}, ["action", "response", "action"]),
        ({"type": "goal_added,response"}, ["response", "goal_added"]),
        ({"sessionId": "{0}-a"}, ["session_created", "action", "response", "goal_added"]),
        ({"userId": "{0}-u"}, ["session_created", "action"]),
        ({"userId": "{0}-u", "type": "action"}, ["action"]),
        ({"sessionId": "{0}-b", "userId": "{0}-u", "type": "action"}, ["action"]),
        ({"sessionId": ["{0}-a", "{0}-b"], "userId": "{0}-u"}, ["session_created", "action"]),
    ],
)
def test_a_stream_has_only_what_was_asked_for(
    http: httpx.Client, session_id: str, query: Document, expected: list[str]
) -> None:
    start = head(http)
    a = f"{session_id}-a"
    wanted = {name: [text.format(session_id) for text in texts(value)] for name, value in query.items()}
    with stream(http, **wanted) as live:
        log(http, a)
        http.post(f"/api/actions/{a}/responses", json={"type": "y"})
        http.post(f"/api/state/{a}/goals", json={"description": "d"})
        log(http, f"{session_id}-b", 1, f"{session_id}-u")
        heard = take(live, len(expected))
    assert [event["type"] for event in heard] == expected
    with stream(http, after=start, **wanted) as late:
        assert take(late, len(expected)) == heard


@pytest.mark.parametrize("query", [{"after": "x"}, {"after": "-1"}, {"after": "9" * 30}])
def test_a_stream_after_what_is_no_cursor_is_refused(http: httpx.Client, query: Document) -> None:
    answer = http.get("/api/events/stream", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


# ------------------------------------------------------------ counts, and the end


def connections(http: httpx.Client) -> Document:
    counts: Document = http.get("/health").json()["websocket"]
    return counts


def test_health_counts_who_listens(appliance: Appliance, http: httpx.Client) -> None:
    eventually(lambda: connections(http)["totalConnections"] == 0)
    with feed(appliance, "?session=a&session=b&user=u"), feed(appliance, "?session=a"), feed(appliance) as third:
        hear(third)
        assert connections(http) == {"totalConnections": 3, "users": 1, "sessions": 2}
        tell(third, type="subscribe", user=["v", "u"])
        assert connections(http) == {"totalConnections": 3, "users": 2, "sessions": 2}
    eventually(lambda: connections(http) == {"totalConnections": 0, "users": 0, "sessions": 0})


@pytest.mark.long
def test_everybody_is_told_when_the_server_ends(folder: Path) -> None:
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http, ExitStack() as clients:
        post_batch(http, ["s"], 40, 200_000)
        mute = [clients.enter_context(peers.mute_reader(appliance.port, request)) for request in MUTE]
        listeners = [clients.enter_context(feed(appliance)) for _ in range(10)]
        half = clients.enter_context(peers.dial(appliance.port))
        half.sendall(b"POST /api/actions/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        with stream(http) as lines:
            assert appliance.stop().code == 0
            assert list(lines) in ([], [""])
        for listener in listeners:
            hear(listener)
            with pytest.raises(ConnectionClosed) as closed:
                listener.recv(timeout=peers.SECONDS)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in (1001, 1012)
        assert len(mute) == len(MUTE)
    assert "Traceback" not in appliance.output


# ------------------------------------------------- those that sleep or fall away

MUTE = (
    peers.handshake("/ws?after=0"),
    peers.handshake("/ws"),
    http_request("GET", "/api/events/stream?after=0"),
    http_request("GET", "/api/events/stream"),
)


@pytest.mark.long
def test_one_that_never_reads_holds_up_nobody_and_is_let_go(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    eventually(lambda: connections(http)["totalConnections"] == 0)
    before, start = sockets_of(appliance.process.pid), head(http)
    with ExitStack() as sleepers, feed(appliance) as good:
        hear(good)
        for request in MUTE * 3:
            sleepers.enter_context(peers.mute_reader(appliance.port, request))
        sleeper = sleepers.enter_context(peers.mute_reader(appliance.port, peers.handshake(f"/ws?after={start}")))
        eventually(lambda: connections(http)["totalConnections"] == 8)
        heard, were_there = [], 0
        for _ in range(12):
            newest = post_batch(http, [session_id], 20, 100_000)
            heard += cursors(hear_all(good, newest))
            were_there += connections(http)["totalConnections"] > 1
        assert heard == list(range(start + 1, newest + 1))
        assert were_there > 1, "they were there meanwhile; how long, the machine says"
        eventually(lambda: connections(http)["totalConnections"] == 1)
        eventually(lambda: sockets_of(appliance.process.pid) <= before + 1)
        said = peers.received(sleeper).partition(b"\r\n\r\n")[2]
        assert peers.close_code(said) in (1013, None)
        newest = log(http, session_id)[0]
        assert cursors(hear_events(good, 1)) == [newest]
    last = max([start, *map(int, re.findall(rb'\{"cursor":(\d+),"type":.{100,500}x{100000}"\}\}', said))])
    with closing(Cursors(appliance.port, f"/ws?after={last}")) as back:
        assert back.up_to(newest) == list(range(last + 1, newest + 1))


@pytest.mark.long
def test_one_that_takes_too_little_is_told_so(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    """It wakes up before the kernel gives it up, and finds the close frame behind what it was sent."""
    eventually(lambda: connections(http)["totalConnections"] == 0)
    first = log(http, session_id)[0]
    with peers.mute_reader(appliance.port, peers.handshake()) as sleeper:
        eventually(lambda: connections(http)["totalConnections"] == 1)
        newest = post_batch(http, [session_id], 40, 200_000)
        eventually(lambda: connections(http)["totalConnections"] == 0)
        said = peers.received(sleeper).partition(b"\r\n\r\n")[2]
    assert peers.close_code(said) == 1013
    heard = list(map(int, re.findall(rb'\{"cursor":(\d+),"type":.{100,500}x{200000}"\}\}', said)))
    with closing(Cursors(appliance.port, f"/ws?after={heard[-1]}")) as back:
        back.up_to(newest)
    assert heard + back.heard == list(range(first + 1, newest + 1))


def test_one_that_dozes_is_kept(appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    start = head(http)
    with feed(appliance) as client:
        hear(client)
        newest = post_batch(http, [session_id], 100, 200_000)
        eventually(lambda: head(http) == newest)
        assert cursors(hear_all(client, newest)) == list(range(start + 1, newest + 1))


@pytest.mark.parametrize("leave", [peers.reset, socket.socket.close], ids=["reset", "end"])
def test_those_that_fall_away_leave_nothing_behind(
    appliance: Appliance, http: httpx.Client, session_id: str, leave: Callable[[socket.socket], None]
) -> None:
    eventually(lambda: connections(http)["totalConnections"] == 0)
    post_batch(http, [session_id], 1000, 2000)
    before = sockets_of(appliance.process.pid)
    chance = random.Random(7)
    requests = [
        peers.handshake("/ws?after=0"),
        peers.handshake("/ws?after=0") + peers.frame(b'{"type":"subscribe","session":"a","after":0}'),
        http_request("GET", "/api/events/stream?after=0"),
        peers.handshake("/ws"),
        http_request("GET", "/api/events/stream"),
        b"",
    ]
    for number in range(120):
        request = requests[number % len(requests)]
        peer = peers.dial(appliance.port)
        peer.sendall(request)
        if request and (much := chance.choice((0, 1, 1000, 1 << 20))):
            peer.recv(much)
        leave(peer)
    eventually(lambda: connections(http)["totalConnections"] == 0)
    eventually(lambda: sockets_of(appliance.process.pid) <= before)
    assert log(http, session_id)


@pytest.mark.long
def test_one_that_ends_only_its_own_side_is_let_go(appliance: Appliance, http: httpx.Client) -> None:
    eventually(lambda: connections(http)["totalConnections"] == 0)
    with peers.dial(appliance.port) as peer:
        peer.sendall(peers.handshake())
        eventually(lambda: connections(http)["totalConnections"] == 1)
        peer.shutdown(socket.SHUT_WR)
        assert peers.received(peer).startswith(b"HTTP/1.1 101")
    eventually(lambda: connections(http)["totalConnections"] == 0)
