"""The clients that measure see what was sent, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import peers, wire
from tests.wire import Answer, HttpClient, WireError, WsReader, connect, http_request

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Listener(WsReader):
    def __init__(self, port: int) -> None:
        self.messages: list[bytes] = []
        super().__init__(port)
        self._socket.settimeout(peers.SECONDS)

    def message(self, payload: bytes) -> None:
        self.messages.append(payload)

    def take_all(self) -> None:
        while self.take():
            pass


@contextmanager
def server_saying(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and what it hears: it reads a request, sends `answer`, says that this is all, and listens on."""
    heard: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            heard.append(connection.recv(4096))
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while said := connection.recv(4096):
                heard.append(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], heard
        thread.join(peers.SECONDS)


@pytest.mark.parametrize("piece", [3, 1 << 18])
def test_frames_are_put_together_from_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RECEIVE_BYTES", piece)
    long, longest = b"x" * 300, b"y" * 70_000
    frames = b"\x81\x02hi" + b"\x81\x7e\x01\x2c" + long + b"\x81\x7f\0\0\0\0\0\x01\x11\x70" + longest
    with server_saying(UPGRADE + frames + b"\x88\x02\x03\xf5") as (port, _):
        listener = Listener(port)
        listener.take_all()
        listener.close()
    assert listener.messages == [b"hi", long, longest]
    assert listener.close_code == 1013


def test_a_ping_is_answered() -> None:
    with server_saying(UPGRADE + b"\x89\x02ab") as (port, heard):
        listener = Listener(port)
        listener.take_all()
        listener.close()
    assert heard[-1] == b"\x8a\x82\0\0\0\0ab"
    assert listener.close_code is None


def test_a_refused_upgrade_is_an_error() -> None:
    with server_saying(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (port, _), pytest.raises(WireError, match="403"):
        Listener(port)


def test_an_answer_is_put_together_from_pieces() -> None:
    answers: list[tuple[int, bytes]] = []

    class Noting(wire.HttpConnection):
        def answered(self, status: int, body: bytes) -> None:
            answers.append((status, body))

    connection = Noting()
    answer = b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 4\r\nx: y\r\n\r\nbody"
    for byte in answer + answer:
        connection.data_received(bytes((byte,)))
    assert answers == [(422, b"body"), (422, b"body")]


def test_an_answer_without_a_length_is_an_error() -> None:
    async def ask(port: int) -> Answer:
        return await (await connect(port, HttpClient)).ask(http_request("GET", "/"))

    with server_saying(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _), pytest.raises(WireError, match="content-length"):
        asyncio.run(ask(port))
