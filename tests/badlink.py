"""A link to the store on which everything happens that happens on links, and stores that are not as they should be."""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

FAULTS = ("drop", "delay", "500", "429", "reset after commit", "cut answer")
DELAY_SECONDS = 0.05


class Fake:
    """A server on loopback whose every answer to a POST is one call of `answer(body) -> (status, headers, body)`."""

    def __init__(self, answer: Callable[[Posted], None]) -> None:
        self.posted: list[bytes] = []
        self.times: list[float] = []
        self.tokens: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        """Of each POST, their names in lower case."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.times.append(time.monotonic())
                fake.tokens.append(self.headers["Authorization"])
                fake.headers.append({name.lower(): value for name, value in self.headers.items()})
                fake.posted.append(body)
                answer(Posted(self, body, len(fake.posted)))

            def do_GET(self) -> None:
                answer(Posted(self, b"", 0))

            do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Posted:
    """One request, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes, number: int) -> None:
        self._handler = handler
        self.path, self.method, self.headers = handler.path, handler.command, handler.headers
        self.body = body
        self.number = number

    @property
    def lines(self) -> list[bytes]:
        return self.body.split(b"\n")

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        if self.method != "HEAD":
            self._handler.wfile.write(body)

    def accept(self) -> None:
        self.answer(200, b'{"success":true,"accepted":%d,"duplicates":0,"rejected":[]}' % len(self.lines))

    def refuse(self, status: int, detail: str = "It is bad") -> None:
        """As the store itself does."""
        problem = {"type": "about:blank", "title": "Bad", "status": status, "detail": detail, "error": detail}
        self.answer(status, json.dumps(problem).encode(), Content_Type="application/problem+json")

    def tell(self, accepted: int, rejected: list[dict[str, object]], **more: int) -> None:
        """What came of a batch."""
        told = {"success": True, "accepted": accepted, "duplicates": 0, "rejected": rejected, **more}
        self.answer(200, json.dumps(told).encode(), Content_Type="application/json")

    def cut(self) -> None:
        """Half an answer."""
        self._handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{")
        self.drop()

    def drop(self) -> None:
        self._handler.close_connection = True

    def reset(self) -> None:
        """So that the other side is told of an error, not of an end."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True
        self._handler.connection.close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """The other side may go away at any time."""


class BadLink(Fake):
    """Passes requests on to the store behind it, or does one of `FAULTS`, by chance; `happened` counts them."""

    def __init__(self, port: int, faults: Iterable[str] = FAULTS, share: float = 0.6, seed: int = 0) -> None:
        super().__init__(self._pass_on)
        self.happened: Counter[str] = Counter()
        self.is_good = False
        self._behind = port
        self._faults = tuple(faults)
        self._share = share
        self._chance = random.Random(seed)

    def _pass_on(self, posted: Posted) -> None:
        fault = "" if self.is_good or self._chance.random() > self._share else self._chance.choice(self._faults)
        self.happened[fault] += 1
        if fault == "drop":
            return posted.drop()
        if fault in ("500", "429"):
            return posted.answer(int(fault), Retry_After="0")
        if fault == "delay":
            time.sleep(DELAY_SECONDS)
        status, body, headers = self._behind_answers(posted)
        if fault == "reset after commit":
            return posted.reset()
        if fault == "cut answer":
            return posted.cut()
        return posted.answer(status, body, **headers)

    def _behind_answers(self, posted: Posted) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._behind, timeout=30)
        try:
            headers = dict(posted.headers.items()) | {"Content-Type": "application/x-ndjson"}
            connection.request(posted.method, posted.path, posted.body or None, headers)
            response = connection.getresponse()
            told = {n: t for n, t in response.getheaders() if n.lower().startswith(("content-type", "x-"))}
            return response.status, response.read(), told
        finally:
            connection.close()
