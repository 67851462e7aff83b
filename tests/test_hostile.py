"""Hostile requests against a running server: what they leave in its memory, and for how long anybody else waits.

`tests/hostile.py` has hostile SQL; what is odd but of no weight is tried in `tests/test_bad_input.py`.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, islice, product
from string import ascii_letters
from typing import BinaryIO, NamedTuple, Self

import pytest
import websockets.sync.client

from sessionstore.model.events import Draft
from sessionstore.model.problems import Problem
from sessionstore.web.bodies import Bodies, BodyUnderWay
from sessionstore.web.fast_path import check_time
from tests import peers
from tests.appliance import Appliance
from tests.peers import dial, eventually, response_from
from tests.repeats import marked
from tests.stalls import Clock
from tests.wire import JSON, NDJSON

MIB = 1 << 20
TOKENS = {"admin": "canary-admin-5f0c2b7e", "read": "canary-read-9d31aa02", "ingest": "canary-ingest-77e1c0d4"}
SETTINGS = {
    "SESSIONS_TOKEN": TOKENS["admin"],
    "SESSIONS_READ_TOKEN": TOKENS["read"],
    "SESSIONS_INGEST_TOKEN": TOKENS["ingest"],
}
REFUSALS = 2000
"""Of each kind."""
KEPT = 5 * MIB
NOISE = 3 * MIB
"""What the allocator keeps one time and not another."""
STALL = 0.25
"""Seconds for which nobody may wait for anybody else."""
TRIES = 3
"""The least of which counts: the machine of the tests adds its own, beyond the time in which it runs others."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that needs tokens, and is attacked by whoever has one, or none."""
    with Appliance(tmp_path_factory.mktemp("hostile"), SETTINGS) as running:
        yield running


class Beside:
    """Somebody else, who asks for /health all the time, and notes the longest that it took."""

    def __init__(self, server: Appliance) -> None:
        self.server = server
        self.longest = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self) -> None:
        clock = Clock(self.server)
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)) as connection:
            while not self.over.wait(0.002):
                begun = clock.now()
                connection.request("GET", "/health")
                assert connection.getresponse().read()
                self.longest = max(self.longest, clock.now() - begun)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(60)


class Damage(NamedTuple):
    """What an attack does to everybody else."""

    kept: int
    """Bytes by which the server is larger afterwards."""
    stall: float
    """Seconds for which somebody else waited, the longest of all in one go: in the best of a few."""


def damage(server: Appliance, attack: Callable[[], object]) -> Damage:
    before, least = peers.resident_bytes(server.process.pid), float("inf")
    for _ in range(TRIES):
        with Beside(server) as beside:
            attack()
            time.sleep(0.05)
        least = min(least, beside.longest)
        if least <= STALL:
            break
    return Damage(peers.resident_bytes(server.process.pid) - before, least)


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    token: str | None = "admin",
    **headers: str | bytes,
) -> bytes:
    """With the token of a role; headers have `_` for `-`, and an empty one is left out."""
    said: dict[str, str | bytes] = {"host": "127.0.0.1"}
    if token is not None:
        said["authorization"] = f"Bearer {TOKENS.get(token, token)}"
    if body is not None:
        said |= {"content-type": JSON, "content-length": str(len(body))}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = b"".join(
        b"%b: %b\r\n" % (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in said.items()
        if value
    )
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), path.encode(), lines, body or b"")


def ask(port: int, data: bytes) -> peers.Response:
    with closing(dial(port)) as peer:
        peer.settimeout(120)
        peer.sendall(data)
        return response_from(peer)


# ------------------------------------------------------------------ heads that are too large

LONG_HEADER = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 66_000 + b"\r\n\r\n"
LONG_TARGET = b"GET /" + b"x" * 66_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
ENDLESS_HEADERS = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 12_000


@pytest.mark.parametrize("head", [LONG_HEADER, LONG_TARGET, ENDLESS_HEADERS], ids=["header", "target", "headers"])
def test_refused_heads_leave_memory_where_it_was(server: Appliance, head: bytes) -> None:
    """Without a token, 136 KiB of each once stayed for ever."""

    def attack(times: int) -> None:
        for _ in range(times):
            assert ask(server.port, head).status == 431

    attack(100)
    before = peers.resident_bytes(server.process.pid)
    attack(REFUSALS if head is not ENDLESS_HEADERS else REFUSALS // 4)  # which take long to read
    assert peers.resident_bytes(server.process.pid) - before <= KEPT + NOISE


# ------------------------------------------------------------------------------------ batches

BAD_LINES = {
    "no event": b"{}\n",
    "no object": b"[]\n",
    "no JSON": b"\xff\n",
    "too deep": b"[" * 65 + b"]" * 65 + b"\n",
    "no type that is known": b'{"type":"x","sessionId":"s"}\n',
    "nothing to change": b'{"type":"session_deleted","sessionId":"nowhere"}\n',
    "for the admin alone": b'{"type":"session_deleted","sessionId":"s"}\n',
}
MAX_LINES = 50_000


def post_batch(server: Appliance, body: bytes, token: str = "ingest") -> peers.Response:
    return ask(server.port, request("POST", "/api/events", body, token, content_type=NDJSON))


@pytest.mark.parametrize("kind", marked(BAD_LINES, long=["no object", "no JSON", "too deep", "no type that is known"]))
def test_a_batch_of_bad_lines_holds_nobody_up_and_leaves_nothing(server: Appliance, kind: str) -> None:
    line = BAD_LINES[kind]
    token = "admin" if b"nowhere" in line else "ingest"

    def attack() -> None:
        answer = post_batch(server, line * MAX_LINES, token)
        assert answer.status == 200
        said = json.loads(answer.body)
        assert (said["accepted"], said["rejectedTotal"]) == (0, MAX_LINES)
        assert [told["line"] for told in said["rejected"]] == [*range(1, 1001)]
        assert len(answer.body) < 500_000

    attack()
    kept, stall = damage(server, attack)
    assert kept <= 4 * KEPT
    assert stall <= STALL


@pytest.mark.parametrize("body", [b"{}\n" * (MAX_LINES + 1), b"\n" * (32 * MIB - 1), b"{}\n" * (10 * MIB)])
def test_a_batch_of_too_many_lines_is_refused_before_it_is_read(server: Appliance, body: bytes) -> None:

    def attack() -> None:
        answer = post_batch(server, body)
        assert answer.status == 413
        assert b"50000 lines" in answer.body

    kept, stall = damage(server, attack)
    assert kept <= 40 * MIB, "the body itself, in the allocator"
    assert stall <= STALL


def test_a_batch_of_as_many_good_lines_as_may_be(server: Appliance) -> None:
    """In one transaction, which others wait for; but they are answered."""
    line = b'{"type":"action","sessionId":"wide","data":{"type":"x"}}\n'

    def attack() -> None:
        said = json.loads(post_batch(server, line * MAX_LINES).body)
        assert (said["accepted"], said["rejected"], said["rejectedTotal"]) == (MAX_LINES, [], 0)

    attack()
    kept, stall = damage(server, attack)
    assert kept <= 100 * MIB, "what so many events take, in the allocator"
    assert stall <= STALL


@pytest.mark.parametrize("value", [b"[]", b'{"a":1}'])
def test_a_batch_of_many_small_values_takes_no_more_memory_than_another(server: Appliance, value: bytes) -> None:
    """31 MiB of empty lists once took 1 GiB: what a container has."""
    line = b'{"type":"action","sessionId":"m","data":{"type":"x","a":[%s]}}\n' % b",".join(
        [value] * (90_000 // len(value))
    )
    before = peers.most_resident_bytes(server.process.pid)
    refused = post_batch(server, line * (31 * MIB // len(line)))
    assert (refused.status, b"several" in refused.body) == (413, True)
    assert peers.most_resident_bytes(server.process.pid) - before <= 350 * MIB
    assert json.loads(post_batch(server, line).body)["accepted"] == 1


def test_one_session_is_not_changed_faster_than_others_can_bear(server: Appliance) -> None:
    """Each change of a state writes all of it anew: a batch of 50,000 once held all who write up for three minutes."""
    assert ask(server.port, request("PATCH", "/api/state/grown", encoded(a="x" * 1_000_000))).status == 200
    change = b'{"type":"state_updated","sessionId":"grown","data":{"b":%d}}\n'
    word = b'{"type":"action","sessionId":"%s","data":{"type":"x"}}\n'
    lines = b"".join(change % number for number in range(160))
    said = json.loads(post_batch(server, lines + word % b"grown" + word % b"another").body)
    rejected = {one["line"]: one["status"] for one in said["rejected"]}
    assert 100 < said["accepted"] < 140
    assert rejected == dict.fromkeys(range(said["accepted"], 162), 429), (
        "all of the session from there on, and no other"
    )
    eventually(lambda: json.loads(post_batch(server, change % 40 + word % b"grown").body)["accepted"] == 2)
    goal = b'{"type":"goal_added","sessionId":"grown","data":{"description":"x"}}\n' * 70
    said = json.loads(post_batch(server, goal).body)
    assert said["accepted"] < 50, "a list costs more"


def test_a_batch_that_takes_too_long_is_taken_in_parts() -> None:
    draft = Draft(type="note_added", session_id="s", data={})
    check_time([draft], time.thread_time() + 60)
    with pytest.raises(Problem, match="taken later") as put_off:
        check_time([draft], time.thread_time() - 1)
    assert put_off.value.status == 429
    check_time([Draft(type="note_added", session_id="s", data={}, received_at="2026-01-01T00:00:00.000Z")], 0.0)


# -------------------------------------------------------------------- bodies that are on their way

PART = b" " * (31 * MIB)


def half_batch(token: str | None) -> bytes:
    """The head of one that would be large, without its body."""
    return request("POST", "/api/events", None, token, content_type=NDJSON, content_length=str(32 * MIB))


def test_bodies_that_do_not_end_are_bounded_together(server: Appliance) -> None:
    """A quarter of the bound is for one token; another is not held up. Each once kept 31 MB for half a minute."""
    before = peers.resident_bytes(server.process.pid)
    with ExitStack() as stack, Beside(server) as beside:
        held = [stack.enter_context(closing(dial(server.port))) for _ in range(8)]
        for peer in held:
            peer.sendall(half_batch("ingest") + PART)
        eventually(lambda: body_bytes(server) <= 33 * MIB)
        refused = [response_from(peer) for peer in held if is_answered(peer)]
        assert len(refused) == 7
        assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(503, "1")}
        assert peers.resident_bytes(server.process.pid) - before <= 70 * MIB
        small = b'{"type":"x","text":"%s"}' % (b"x" * MIB)[:900_000]
        assert ask(server.port, request("POST", "/api/actions/others", small, "admin")).status == 200
        large = b'{"type":"action","sessionId":"others","data":{"type":"x"}}\n' * 1000
        assert post_batch(server, large, "admin").status == 200
        metrics = ask(server.port, request("GET", "/metrics", token="read")).body
        assert b'sessionstore_rate_limited_total{reason="bodies"} 7.0\n' in metrics
    assert beside.longest <= 2 * STALL
    eventually(lambda: body_bytes(server) == 0)
    assert post_batch(server, b'{"type":"action","sessionId":"others","data":{"type":"x"}}').status == 200


def is_answered(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0.2)[0])


def body_bytes(server: Appliance) -> int:
    metrics = ask(server.port, request("GET", "/metrics", token="read")).body
    found = re.search(rb"^sessionstore_request_body_bytes (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_answers_that_nobody_reads_are_bounded_together(server: Appliance) -> None:
    """Half of the bound is for one token; another is not held up. Each once kept all of its 32 MB."""
    line = b'{"type":"action","sessionId":"long","data":{"type":"x","a":"%s"}}\n' % (b"x" * 900_000)
    assert json.loads(post_batch(server, line * 34).body)["accepted"] == 34
    path = "/api/sessions/long/events?limit=1000"
    with ExitStack() as stack:
        held = [stack.enter_context(closing(dial(server.port))) for _ in range(8)]
        for peer in held:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.sendall(request("GET", path, token="read"))
        heads = [peer.recv(20, socket.MSG_PEEK) for peer in held]
        statuses = Counter(int(head.split()[1]) for head in heads)
        assert statuses[200] <= 5 and statuses[503] >= 3 and sum(statuses.values()) == 8
        assert ask(server.port, request("GET", "/api/sessions/long/events?limit=1", token="read")).status == 200
        assert len(ask(server.port, request("GET", path)).body) > 30_000_000
    eventually(lambda: ask(server.port, request("GET", path, token="read")).status == 200)


@pytest.mark.parametrize(("size", "counted"), [(16_000, 16_000), (60_000, 59_999)], ids=["hot", "large"])
def test_small_bodies_that_do_not_end_are_counted_too(server: Appliance, size: int, counted: int) -> None:
    """Those of the hot routes with all that they are going to have."""
    with ExitStack() as stack:
        for _ in range(100):
            peer = stack.enter_context(closing(dial(server.port)))
            peer.sendall(request("POST", "/api/actions/slow", b"x" * size)[:-1])
        eventually(lambda: body_bytes(server) == 100 * counted)
    eventually(lambda: body_bytes(server) == 0)


@pytest.mark.parametrize("path", ["/api/actions/s", "/api/actions/s/responses", "/api/events", "/api/state/s"])
def test_a_stranger_is_refused_before_the_body_is_there(server: Appliance, path: str) -> None:
    for token in (None, "a-wrong-token"):
        with closing(dial(server.port)) as peer:
            peer.sendall(request("POST", path, b"x" * 60_000, token)[:-1])
            assert response_from(peer).status == 401
    assert body_bytes(server) == 0


def test_all_callers_together_have_a_bound() -> None:
    bodies = Bodies(32 * MIB)
    for caller in range(3):
        BodyUnderWay(bodies, caller).grow(32 * MIB)
    last = BodyUnderWay(bodies, "last")
    last.grow(20 * MIB)
    with pytest.raises(Problem, match="Too much is being sent"):
        BodyUnderWay(bodies, "one more").grow(13 * MIB)
    last.let_go()
    BodyUnderWay(bodies, "one more").grow(32 * MIB)
    assert (bodies.bytes, len(bodies.of)) == (128 * MIB, 4)


# -------------------------------------------------------------------------------------- strangers


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that needs tokens, and takes 20 connections of one address, one wrong token a minute, and no listener."""
    bounds = {"CONNECTIONS": "20", "FAILURES": "1", "LISTENERS": "0"}
    settings = SETTINGS | {f"SESSIONS_MAX_{name}": bound for name, bound in bounds.items()}
    with Appliance(tmp_path_factory.mktemp("narrow"), settings) as running:
        yield running


LOGIN = request("POST", "/api/login", b'{"token":"%s"}' % (b"x" * 100), None)
HEALTH = request("GET", "/health", token=None)


def test_half_a_login_makes_room_for_everybody_else(narrow: Appliance) -> None:
    """The oldest first; what is known to be at work stays."""
    with ExitStack() as stack:
        working = stack.enter_context(closing(dial(narrow.port)))
        working.sendall(request("POST", "/api/events", b'{"type":"x"}', "ingest", content_type=NDJSON)[:-1])
        strangers = [stack.enter_context(closing(dial(narrow.port))) for _ in range(19)]
        for peer in strangers:
            peer.sendall(LOGIN[:-10])
        for number in range(30):
            assert ask(narrow.port, HEALTH).status == 200, number
        assert response_from(strangers[0]).status == 408
        assert not is_answered(strangers[-1])
        working.sendall(b"}")
        assert response_from(working).status == 200


@pytest.mark.long
def test_half_a_login_has_five_seconds(narrow: Appliance) -> None:
    with closing(dial(narrow.port)) as peer:
        begun = time.monotonic()
        peer.sendall(LOGIN[:-1])
        assert response_from(peer).status == 408
        assert 4.5 <= time.monotonic() - begun <= 8


def test_a_login_has_four_kilobytes(narrow: Appliance) -> None:
    said = b'{"token":"%s"}' % (b"x" * 5000)
    assert ask(narrow.port, request("POST", "/api/login", said, None)).status == 413
    said = b'{"token":"%s"}' % TOKENS["read"].encode()
    assert ask(narrow.port, request("POST", "/api/login", said, None)).status == 200


UNREADABLE = [b"\r\n\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]


def test_what_cannot_be_read_is_counted_and_told_a_few_times(narrow: Appliance) -> None:
    said = narrow.output.count("unreadable_refused")
    for number in range(600):
        assert peers.say(narrow.port, UNREADABLE[number % 3]).startswith(b"HTTP/1.1 400 ")
    metrics = ask(narrow.port, request("GET", "/metrics", token="read")).body
    assert b"sessionstore_unreadable_requests_total 600.0\n" in metrics
    eventually(lambda: "unreadable_refused" in narrow.output)
    lines = [line for line in narrow.output.splitlines() if "unreadable_refused" in line]
    assert 1 <= len(lines) - said <= 20
    assert all("client=127.0.0.1" in line for line in lines)
    assert "Invalid HTTP request" not in narrow.output


def test_other_refusals_do_not_flood_the_log_either(narrow: Appliance) -> None:
    for _ in range(200):
        assert ask(narrow.port, request("GET", "/api/events", origin="https://elsewhere.example")).status == 403
        assert ask(narrow.port, request("GET", "/api/events", token="ingest")).status == 403
    for kind in ("origin_refused", "role_refused"):
        eventually(lambda kind=kind: kind in narrow.output)  # type: ignore[misc]
        assert narrow.output.count(kind) <= 20


# ------------------------------------------------------------------------------------- WebSockets

READER = {"authorization": f"Bearer {TOKENS['read']}"}


@contextmanager
def feed(server: Appliance, query: str = "") -> Iterator[socket.socket]:
    """A WebSocket that has been told that it is connected."""
    with closing(dial(server.port)) as peer:
        peer.sendall(peers.handshake(f"/ws{query}", **READER))
        said = b""
        while b'"connected"' not in said:
            said += peers.more(peer, said)
        assert said.startswith(b"HTTP/1.1 101 ")
        yield peer


def subscription(first: int, number: int, noun: str = "session") -> bytes:
    names = [f"{noun}-{n}" for n in range(first, first + number)]
    return peers.frame(json.dumps({"type": "subscribe", noun: names}).encode())


def close_code_of(peer: socket.socket, said: bytes = b"") -> int:
    while (code := peers.close_code(said)) is None:
        said += peers.more(peer, said)
    return code


def test_a_listener_may_name_a_thousand(server: Appliance) -> None:
    with feed(server) as peer:
        for first in range(0, 1000, 100):
            peer.sendall(subscription(first, 50) + subscription(first, 50, "user"))
        peer.sendall(peers.frame(b'{"type":"ping"}'))
        assert b'"pong"' in peers.more(peer, b"")
        counts = json.loads(ask(server.port, HEALTH).body)["websocket"]
        assert (counts["users"], counts["sessions"]) == (500, 500)
        peer.sendall(subscription(0, 50))  # known already
        peer.sendall(peers.frame(b'{"type":"ping"}'))
        assert b'"pong"' in peers.more(peer, b"")
        peer.sendall(subscription(5000, 1))
        assert close_code_of(peer) == 1008
    eventually(lambda: json.loads(ask(server.port, HEALTH).body)["websocket"]["sessions"] == 0)


def test_a_listener_may_not_name_more_at_once_either(server: Appliance) -> None:
    """In 8 KiB, which is as long as a target may be there."""
    query = "&".join(f"user={a}{b}" for a, b in islice(product(ascii_letters, repeat=2), 1001))
    with closing(dial(server.port)) as peer:
        peer.sendall(peers.handshake(f"/ws?{query}", **READER))
        head = b""
        while b"\r\n\r\n" not in head:
            head += peers.more(peer, head)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert close_code_of(peer, head.partition(b"\r\n\r\n")[2]) == 1008


@pytest.mark.parametrize("noun", ["sessionId", "userId"])
def test_neither_may_who_reads_a_stream(server: Appliance, noun: str) -> None:
    query = "&".join(f"{noun}={n}" for n in range(1001))
    assert ask(server.port, request("GET", f"/api/events/stream?{query}", token="read")).status == 422


def test_listeners_who_name_more_and_more_leave_nothing(server: Appliance) -> None:
    """250,000 names a socket once took 27 MB each, for as long as it stayed."""

    def attack() -> None:
        with ExitStack() as stack:
            listeners = [stack.enter_context(feed(server)) for _ in range(20)]
            for number in range(20):
                names = subscription(number * 2500, 2500)
                for listener in listeners:
                    listener.sendall(names)
            assert [close_code_of(listener) for listener in listeners] == [1008] * 20

    attack()
    kept, stall = damage(server, attack)
    assert kept <= 2 * KEPT + NOISE
    assert stall <= STALL


def test_long_names_are_not_kept(server: Appliance) -> None:
    names = json.dumps({"type": "subscribe", "user": ["x" * 60_000]}).encode()
    with ExitStack() as stack:
        listeners = [stack.enter_context(feed(server)) for _ in range(10)]
        before = peers.resident_bytes(server.process.pid)
        for number in range(100):
            for listener in listeners:
                listener.sendall(peers.frame(names.replace(b"xxxx", b"%04d" % number, 1)))
        for listener in listeners:
            listener.sendall(peers.frame(b'{"type":"ping"}'))
            assert b'"pong"' in peers.more(listener, b"")
        assert peers.resident_bytes(server.process.pid) - before <= 2 * KEPT


FRAGMENT = bytes((0x00, 0xFE)) + (60_000).to_bytes(2, "big") + bytes(4) + b"x" * 60_000
TOO_MUCH = {
    "one byte": (peers.frame(b"x" * 65_537), 1009),
    "a megabyte": (peers.frame(b"x" * MIB), 1009),
    "17 megabytes": (peers.frame(b"x" * 17 * MIB), 1009),
    "binary": (peers.frame(b"x" * 17 * MIB, peers.BINARY), 1009),
    "in fragments": (bytes((0x01,)) + FRAGMENT[1:] + FRAGMENT * 200, 1009),
    "not UTF-8, and more": (peers.frame(b"\xff") + peers.frame(b"x" * 60_000) * 200, 1007),
    "not masked, and more": (bytes((0x81, 0x7E, 0xFF, 0xFF)) + b"x" * 8 * MIB, 1002),
    "an opcode that is none, and more": (peers.frame(b"x", 5) + b"x" * 8 * MIB, 1002),
}


@pytest.mark.parametrize(("data", "code"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_who_sends_too_much_is_told_so(server: Appliance, data: bytes, code: int) -> None:
    """Closed with something unread, a connection is reset, and of the reason nothing is seen: 1006."""
    for _ in range(5):
        with feed(server) as peer:
            peer.sendall(data)
            assert close_code_of(peer) == code


def test_a_client_sees_why_it_was_closed(server: Appliance) -> None:
    for _ in range(5):
        url = f"ws://127.0.0.1:{server.port}/ws"
        with websockets.sync.client.connect(url, additional_headers=READER) as client:
            client.recv()
            with suppress(websockets.ConnectionClosed):
                client.send("x" * 17 * MIB)
            with pytest.raises(websockets.ConnectionClosed):
                client.recv()
            assert client.close_code == 1009


# ------------------------------------------------------------------------- every kind of problem

KNOWN = {"sessionId": "known", "userId": "alice", "initial": {}}


def encoded(**members: object) -> bytes:
    return json.dumps(members).encode()


PROBLEMS = {
    "400 no JSON": request("POST", "/api/actions/s", b"{"),
    "400 no JSON, not by the hot way": request("PATCH", "/api/state/s", b"{"),
    "400 too deep": request("POST", "/api/actions/s", b"[" * 100 + b"]" * 100),
    "400 a member is missing": request("POST", "/api/sessions", b'{"sessionId":"s"}'),
    "400 no Host": request("GET", "/health", host=""),
    "400 two tokens": request("GET", "/health").replace(b"host", b"authorization: Bearer x\r\nhost"),
    "401 no token": request("GET", "/api/events", token=None),
    "401 a wrong token": request("POST", "/api/actions/s", b"{}", "a-wrong-token"),
    "403 a role that may not": request("GET", "/api/events", token="ingest"),
    "403 a foreign origin": request("GET", "/api/events", origin="https://elsewhere.example"),
    "404 no such place": request("GET", "/nowhere"),
    "404 no such session": request("GET", "/api/sessions/nowhere"),
    "404 no such goal": request("PATCH", "/api/state/known/goals/nowhere", b"{}"),
    "404 nothing to be ended": request("POST", "/api/sessions/nowhere/finalize", b"{}"),
    "405 a method that is none": request("DELETE", "/api/events"),
    "409 there is one": request("POST", "/api/sessions", encoded(**KNOWN | {"userId": "bob"})),
    "412 the state has moved on": request("PATCH", "/api/state/known", b"{}", if_match='"7"'),
    "413 too large": request("POST", "/api/login", b'"%s"' % (b"x" * 5000)),
    "415 another media type": request("POST", "/api/actions/s", b"{}", content_type="text/plain"),
    "415 compressed": request("POST", "/api/actions/s", b"{}", content_encoding="gzip"),
    "422 a bad member": request("POST", "/api/actions/s", b'{"type":1}'),
    "422 other content": request("POST", "/api/actions/known", b'{"type":"y","eventId":"e"}'),
    "422 a bad query": request("GET", "/api/events?limit=x"),
    "426 not a WebSocket": request("GET", "/ws"),
}


def status_in(answers: BinaryIO) -> int:
    """Of the next answer, of which nothing is left there."""
    status, length = int(answers.readline().split()[1]), 0
    while line := answers.readline().strip().lower():
        if line.startswith(b"content-length:"):
            length = int(line[15:])
    answers.read(length)
    return status


def statuses(port: int, data: bytes, times: int, at_once: int = 50) -> Counter[int]:
    """Of the answers to so many of one request, on one connection."""
    with closing(dial(port)) as peer, peer.makefile("rb") as answers:
        found: Counter[int] = Counter()
        for _ in range(0, times, at_once):
            peer.sendall(data * at_once)
            found.update(status_in(answers) for _ in range(at_once))
        return found


FIRST = {kind[:3]: kind for kind in reversed(PROBLEMS)}.values()
"""One of each status; `make test-long` tries the others too."""


@pytest.mark.parametrize("kind", marked(PROBLEMS, long=PROBLEMS.keys() - FIRST))
def test_a_problem_leaves_nothing(server: Appliance, kind: str) -> None:
    assert ask(server.port, request("POST", "/api/sessions", encoded(**KNOWN))).status in (200, 201)
    assert ask(server.port, request("POST", "/api/actions/known", b'{"type":"x","eventId":"e"}')).status == 200
    status = int(kind[:3])
    assert statuses(server.port, PROBLEMS[kind], 200) == {status: 200}
    before = peers.resident_bytes(server.process.pid)
    assert statuses(server.port, PROBLEMS[kind], REFUSALS) == {status: REFUSALS}
    assert peers.resident_bytes(server.process.pid) - before <= KEPT + NOISE


def test_neither_does_a_bound_that_is_reached(narrow: Appliance) -> None:
    data = request("GET", "/api/events/stream", token="read")
    assert statuses(narrow.port, data, 200)[503] >= 199
    before = peers.resident_bytes(narrow.process.pid)
    assert statuses(narrow.port, data, REFUSALS) == {503: REFUSALS}
    assert peers.resident_bytes(narrow.process.pid) - before <= KEPT + NOISE


def test_neither_do_those_who_make_room(narrow: Appliance) -> None:
    def attack(times: int) -> None:
        with ExitStack() as stack:
            strangers: deque[socket.socket] = deque()
            for _ in range(times):
                strangers.append(stack.enter_context(closing(dial(narrow.port))))
                strangers[-1].sendall(LOGIN[:-10])
                if len(strangers) > 20:
                    assert response_from(strangers.popleft()).status == 408

    attack(200)
    before = peers.resident_bytes(narrow.process.pid)
    attack(REFUSALS)
    assert peers.resident_bytes(narrow.process.pid) - before <= KEPT + NOISE


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One whose disk is full, as it thinks."""
    with Appliance(tmp_path_factory.mktemp("full"), {"SESSIONS_DISK_RESERVE": "100000T"}) as running:
        yield running


def test_neither_does_what_cannot_be_written_now(full: Appliance) -> None:
    for path in ("/api/actions/s", "/api/sessions"):
        data = request("POST", path, encoded(**KNOWN, type="x"), None)
        assert statuses(full.port, data, 200) == {503: 200}
        before = peers.resident_bytes(full.process.pid)
        assert statuses(full.port, data, REFUSALS) == {503: REFUSALS}
        assert peers.resident_bytes(full.process.pid) - before <= KEPT + NOISE


# ------------------------------------------------- the largest, the deepest, the widest that is legal

MOST = MIB - 200
"""Of an event; the rest is what stands around it here."""


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def wide(piece: str) -> str:
    return f"[{','.join([piece] * (MOST // (len(piece) + 1)))}]"


def filled(form: str, shape: str) -> bytes:
    return (form % SHAPES[shape]()).encode()


SHAPES: dict[str, Callable[[], str]] = {
    "large": lambda: f'"{"x" * MOST}"',
    "deep": lambda: wide(nested(61)),
    "wide": lambda: wide("0"),
    "of objects": lambda: wide("{}"),
    "of members": lambda: "{" + ",".join(f'"{number}":0' for number in range(MOST // 10)) + "}",
    "of escapes": lambda: '"' + "\\u0000" * (MOST // 6) + '"',
    "a number": lambda: "1" * 4000,
}
"""Values of JSON, of about a megabyte where they can have it."""
INTAKES = {
    "an action": ("POST", "/api/actions/{}", '{"type":"x","a":%s}'),
    "a response": ("POST", "/api/actions/{}/responses", '{"type":"x","a":%s}'),
    "a state": ("PATCH", "/api/state/{}", '{"a":%s}'),
    "a goal": ("POST", "/api/state/{}/goals", '{"description":"d","a":%s}'),
    "an agent": ("POST", "/api/state/{}/agents", '{"type":"t","a":%s}'),
    "metadata": ("PATCH", "/api/sessions/{}/metadata", '{"a":%s}'),
    "a session": ("PUT", "/api/sessions/{}", '{"userId":"alice","initial":{"a":%s}}'),
    "an end": ("POST", "/api/sessions/{}/finalize", '{"outcome":%s}'),
    "a hook": (
        "POST",
        "/api/hooks/claude-code",
        '{"hook_event_name":"PostToolUse","session_id":"wide","tool_name":"T","tool_use_id":"u","tool_response":%s}',
    ),
    "a batch": ("POST", "/api/events", '{"type":"action","sessionId":"wide","data":{"type":"x","a":%s}}'),
}


@pytest.fixture(scope="module")
def taker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("taker"), {"SESSIONS_TREE": "off"}) as running:
        yield running


numbers = count(1)


LARGEST = [
    pytest.param(intake, shape, id=f"{intake}-{shape}", marks=[] if is_quick else [pytest.mark.long])
    for (row, intake), (column, shape) in product(enumerate(INTAKES), enumerate(SHAPES))
    for is_quick in [row % len(SHAPES) == column or intake == "an action"]
]
"""Each intake is tried with one shape in `make test`, and an action with all of them; the others take long."""


@pytest.mark.parametrize(("intake", "shape"), LARGEST)
def test_the_most_that_an_intake_takes_holds_nobody_up(taker: Appliance, intake: str, shape: str) -> None:
    """In a new session each time: what a state has grown to, every change of it pays for."""
    method, path, form = INTAKES[intake]
    body = filled(form, shape)

    def attack() -> None:
        session = f"wide-{next(numbers)}"
        assert ask(taker.port, request("PUT", f"/api/sessions/{session}", b'{"userId":"alice"}', None)).status == 201
        media = NDJSON if path == "/api/events" else JSON
        answer = ask(taker.port, request(method, path.format(session), body, None, content_type=media))
        assert answer.status == 200
        assert b'"rejectedTotal":0' in answer.body or intake != "a batch"

    kept, stall = damage(taker, attack)
    assert stall <= STALL
    assert kept <= 250 * MIB, "what decoding it takes, in the allocator"


HEADERS = {
    "an Idempotency-Key": {"idempotency_key": "x" * 60_000},
    "a time": {"x_timestamp": "2026-01-01T00:00:00." + "0" * 60_000 + "Z"},
    "a user": {"x_user_id": "x" * 60_000},
    "versions": {"if_match": ",".join(['"1"'] * 15_000)},
    "a cookie": {"cookie": "; ".join(["a=b"] * 12_000)},
    "a media type": {"content_type": "application/json;" + " " * 60_000 + "charset=utf-8"},
    "addresses": {"x_forwarded_for": ",".join(["10.0.0.1"] * 6_000)},
    "a Host": {"host": "x" * 60_000},
    "an origin": {"origin": "https://" + "x" * 60_000},
}


@pytest.mark.parametrize("name", marked(HEADERS, long=("a user", "a media type", "a Host", "an origin")))
def test_the_longest_header_holds_nobody_up(taker: Appliance, name: str) -> None:
    data = request("PATCH", "/api/state/headers", b"{}", None, **HEADERS[name])
    kept, stall = damage(taker, lambda: [ask(taker.port, data) for _ in range(20)])
    assert stall <= STALL
    assert kept <= KEPT + NOISE


QUERIES = {
    "search": f"/api/query/search?q={'+'.join(['a*'] * 300)}",
    "a long word": f"/api/query/search?q={'x' * 900}*",
    "types": f"/api/events?{'&'.join(f'type=t{n}' for n in range(6000))}",
    "text in metadata": f"/api/sessions?q={'%25_' * 300}&limit=500",
    "kinds": f"/api/query/search?q=x&{'&'.join(f'kind=k{n}' for n in range(5000))}",
    "a whole session": "/api/sessions/asked?limit=10000",
    "a long path": f"/api/sessions/{'x' * 60_000}",
}


@pytest.fixture(scope="module")
def asked(server: Appliance) -> Appliance:
    """With a session of which there is much to say."""
    lines = b"".join(b'{"type":"action","sessionId":"asked","data":{"type":"x","a":"b%d"}}\n' % n for n in range(5000))
    assert post_batch(server, lines).status == 200
    health = request("GET", "/health")
    peers.eventually(lambda: json.loads(ask(server.port, health).body)["searchLag"] == 0)  # it takes memory, too
    return server


@pytest.mark.parametrize("name", marked(QUERIES, long=("types", "kinds", "a long path")))
def test_the_longest_question_holds_nobody_up(asked: Appliance, name: str) -> None:
    data = request("GET", QUERIES[name])
    kept, stall = damage(asked, lambda: [ask(asked.port, data) for _ in range(5)])
    assert stall <= STALL
    assert kept <= 40 * MIB
