"""Bounds on connections and listeners: who asks too much is told so, and nobody else feels it."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests import peers
from tests.appliance import Appliance
from tests.peers import eventually, sockets_of
from tests.proxies import SecureAppliance, make_certificate
from tests.wire import http_request

ACTION = http_request("POST", "/api/actions/limits", b'{"type":"x"}')
CLOSED_SECONDS = 15.0
"""Within which one that says nothing is closed: 10 s is the bound, the rest is this machine's."""


def dial(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=peers.SECONDS, source_address=(address, 0))


def answer(port: int, data: bytes, address: str = "127.0.0.1") -> peers.Response:
    with dial(port, address) as peer:
        peer.sendall(data)
        return peers.response_from(peer)


def is_closed(peer: socket.socket) -> bool:
    """Whether the server has hung up, perhaps after some last words; looked at without waiting."""
    peer.setblocking(False)
    try:
        while peer.recv(1 << 16):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@contextmanager
def idle(port: int, number: int, data: bytes = b"", address: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """So many that say no more than this."""
    with ExitStack() as stack:
        held = []
        for _ in range(number):
            held.append(stack.enter_context(dial(port, address)))
            with suppress(ConnectionError):
                held[-1].sendall(data)
        yield held


# ------------------------------------------------------------- what says nothing


@pytest.mark.long
def test_many_that_say_nothing_are_let_go_and_leave_no_descriptor(appliance: Appliance) -> None:
    before = sockets_of(appliance.process.pid)
    with (
        idle(appliance.port, 100) as silent,
        idle(appliance.port, 100, ACTION[:30]) as halting,
        idle(appliance.port, 50, b"\r\n\r\n") as empty,
    ):
        begun = time.monotonic()
        while not all(map(is_closed, silent + halting + empty)):
            assert answer(appliance.port, ACTION).status == 200, "nobody else feels it"
            assert time.monotonic() < begun + CLOSED_SECONDS
        eventually(lambda: sockets_of(appliance.process.pid) <= before)


@pytest.mark.long
def test_over_tls_who_says_nothing_is_let_go_too(folder: Path, tmp_path: Path) -> None:
    """Before the handshake, in its middle, and after it."""
    with SecureAppliance(folder, make_certificate(tmp_path)) as server, ExitStack() as stack:
        before = sockets_of(server.process.pid)
        silent = stack.enter_context(idle(server.port, 50))
        silent += stack.enter_context(idle(server.port, 50, b"\x16\x03\x01"))
        for _ in range(20):
            wrapped = server.certificate.trust.wrap_socket(dial(server.port), server_hostname="localhost")
            stack.enter_context(closing(wrapped))
        eventually(lambda: all(map(is_closed, silent)), CLOSED_SECONDS)
        eventually(lambda: sockets_of(server.process.pid) <= before)
        assert "Traceback" not in server.output


# ---------------------------------------------------------------- of one address


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A server that takes 20 connections of one address."""
    with Appliance(tmp_path_factory.mktemp("narrow"), {"SESSIONS_MAX_CONNECTIONS": "20"}) as server:
        yield server


def test_of_one_address_too_many_idle_ones_make_room_for_those_that_ask(narrow: Appliance) -> None:
    before = sockets_of(narrow.process.pid)
    with idle(narrow.port, 10, ACTION[:30]) as first, idle(narrow.port, 50) as rest:
        assert [answer(narrow.port, ACTION).status for _ in range(5)] == [200] * 5
        eventually(lambda: all(map(is_closed, first)))
        eventually(lambda: sum(map(is_closed, rest)) >= 30)
        assert sockets_of(narrow.process.pid) <= before + 20


def test_who_never_said_anything_goes_before_who_has(narrow: Appliance) -> None:
    with dial(narrow.port) as known, idle(narrow.port, 19) as mute:
        known.sendall(ACTION)
        assert peers.response_from(known).status == 200
        time.sleep(1.5)  # so long they may say something
        with idle(narrow.port, 19) as new:
            eventually(lambda: all(map(is_closed, mute)))
            assert not any(map(is_closed, [known, *new]))


def test_one_that_is_at_work_is_not_closed_for_others(narrow: Appliance) -> None:
    """A request whose body is on its way, an answer that is awaited, a stream."""
    with dial(narrow.port) as sending, dial(narrow.port) as streaming, dial(narrow.port) as resting:
        sending.sendall(ACTION[:-1])
        streaming.sendall(http_request("GET", "/api/events/stream?sessionId=limits"))
        assert streaming.recv(4096).startswith(b"HTTP/1.1 200")
        resting.sendall(ACTION)
        assert peers.response_from(resting).status == 200
        with idle(narrow.port, 20, ACTION) as rest:
            eventually(lambda: is_closed(resting))
            assert sum(map(is_closed, rest)) <= 2
            sending.sendall(ACTION[-1:])
            assert peers.response_from(sending).status == 200
            streaming.settimeout(peers.SECONDS)
            while b'"x"' not in streaming.recv(4096):
                pass


def test_of_one_address_no_more_is_taken_when_all_are_at_work(narrow: Appliance) -> None:
    opening = peers.handshake()
    with idle(narrow.port, 20, opening) as feeds:
        assert [feed.recv(12) for feed in feeds] == [b"HTTP/1.1 101"] * 20
        refused = answer(narrow.port, b"")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["content-type"] == "application/problem+json"
        assert answer(narrow.port, ACTION, "127.0.0.2").status == 200, "another address is another matter"
        assert not any(map(is_closed, feeds))
        feeds[0].close()
        eventually(lambda: answer(narrow.port, ACTION).status == 200)
    metrics = httpx.get(f"{narrow.url}/metrics").text
    assert 'sessionstore_rate_limited_total{reason="connections"}' in metrics


def test_a_proxy_may_have_any_number_for_all_its_clients(folder: Path) -> None:
    env = {
        "SESSIONS_MAX_CONNECTIONS": "5",
        "SESSIONS_TRUSTED_PROXIES": "127.0.0.9",
        "SESSIONS_TOKEN": "canary-admin-5f0c2b7e",
    }
    with Appliance(folder, env) as server:
        with idle(server.port, 20, peers.handshake(), "127.0.0.9") as proxied:
            assert [peer.recv(12) for peer in proxied] == [b"HTTP/1.1 401"] * 20
        with idle(server.port, 20, address="127.0.0.9") as proxied, idle(server.port, 20) as others:
            eventually(lambda: sum(map(is_closed, others)) == 15)
            assert not any(map(is_closed, proxied))


# ---------------------------------------------------------------------- listeners


def test_no_more_listen_than_may(folder: Path) -> None:
    """WebSockets and streams together; the rest of the API goes on."""
    with Appliance(folder, {"SESSIONS_MAX_LISTENERS": "2"}) as server:
        stream = http_request("GET", "/api/events/stream")
        with dial(server.port) as first, dial(server.port) as second:
            first.sendall(peers.handshake())
            assert first.recv(12) == b"HTTP/1.1 101"
            second.sendall(stream)
            assert second.recv(4096).startswith(b"HTTP/1.1 200")
            for request in (peers.handshake(), stream):
                refused = answer(server.port, request)
                assert (refused.status, refused.headers["retry-after"]) == (503, "5")
                assert refused.headers["content-type"] == "application/problem+json"
            assert answer(server.port, ACTION).status == 200
        eventually(lambda: answer(server.port, stream).status == 200)


# -------------------------------------------------------------------- descriptors


class Cramped(Appliance):
    """One that the system gives 256 descriptors."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, env)
        self._command = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *self._command]


def test_with_few_descriptors_a_flood_of_idle_ones_stops_nobody(folder: Path) -> None:
    with Cramped(folder) as server:
        before = sockets_of(server.process.pid)
        with idle(server.port, 300) as held, closing(http.client.HTTPConnection("127.0.0.1", server.port, 30)) as kept:
            assert [answer(server.port, ACTION).status for _ in range(20)] == [200] * 20
            for _ in range(20):
                kept.request("GET", "/api/query/recent")
                assert kept.getresponse().read()
            assert sockets_of(server.process.pid) <= before + 130
            assert sum(map(is_closed, held)) >= 170
        eventually(lambda: sockets_of(server.process.pid) <= before)
        assert answer(server.port, ACTION).status == 200
        assert "Traceback" not in server.output
        assert "Too many open files" not in server.output
