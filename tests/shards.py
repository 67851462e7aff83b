"""Fleets of real servers, and peers in the place of some that do not answer as a store does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.appliance import Appliance

READ, INGEST = "read-token-of-a-shard", "ingest-token-of-a-shard"


class Peer(BaseHTTPRequestHandler):
    """What is done is what the path begins with."""

    def do_GET(self) -> None:
        with suppress(OSError):
            getattr(self, self.path.split("/")[1])()

    do_HEAD = do_GET

    def hangs(self) -> None:
        self.server.released.wait(30)  # type: ignore[attr-defined]

    def fails(self) -> None:
        self.say(b"{}", 500)

    def moves(self) -> None:
        self.send_response(302)
        self.send_header("location", f"http://{self.headers['host']}/seen/api/query/summary")
        self.end_headers()

    def seen(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.say(b"{}")

    def huge(self) -> None:
        self.say(b'{"version":"' + b"x" * (8 << 20) + b'"}')

    def deep(self) -> None:
        self.say(b"[" * 100_000 + b"]" * 100_000)

    def odd(self) -> None:
        self.say(b'{"version":"1","cursor":-1,"sessions":[],"eventsToday":"<b>","eventsLastMinute":0,"waiting":{}}')

    def shouts(self) -> None:
        event = b'{"sessionId":"s","cursor":1,"type":"action","timestamp":"2026-01-01T00:00:00.000Z"}'
        hit = b'{"event":%b,"marked":[%b]}' % (event, b",".join([b'"%b"' % (b"x" * 400)] * 40))
        self.say(b'{"items":[%b],"total":90}' % b",".join([hit] * 90))

    def drips(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.released.wait(0.1):  # type: ignore[attr-defined]
            self.wfile.write(b" ")

    def tricks(self) -> None:
        """Of the right shape, and meant for the page: markup, an id and marks that turn what stands around them."""
        waits = (
            b'{"sessionId":"trick","userId":"<img src=x onerror=alert(1)>","since":"2026-01-01T00:00:00.000Z",'
            b'"title":"<script>alert(1)</script>\\u202egnp","reason":"input","message":"\\u001b[31mred"}'
        )
        figures = b'"cursor":1,"sessions":{"waiting":1},"eventsToday":1,"eventsLastMinute":0'
        summary = b'{"version":"<i>9</i>",' + figures + b',"waiting":['
        self.say(summary + waits + b"]}" if "summary" in self.path else b'{"items":[],"total":0,"behind":0}')

    def say(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def odd_peer() -> Iterator[tuple[str, list[str]]]:
    """Its URL, to which a path is added that says how it is, and what was asked of it by whoever followed it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    server.released, server.asked = threading.Event(), []  # type: ignore[attr-defined]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    finally:
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


class Place(NamedTuple):
    """Of one shard in the file."""

    name: str
    url: str


def fleet_file(folder: Path, places: Sequence[Place]) -> Path:
    """What SESSIONS_FLEET names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "read.token").write_text(f"{READ}\n")
    entries = (f'[[shards]]\nname = "{place.name}"\nurl = "{place.url}"\ntoken_file = "read.token"' for place in places)
    path = folder / "fleet.toml"
    path.write_text("\n\n".join(entries))
    return path


@contextmanager
def stores(folder: Path, *names: str) -> Iterator[list[Appliance]]:
    """Real servers, each with a token for reading; all of them start at once."""
    with ExitStack() as stack:
        tokens = {"SESSIONS_READ_TOKEN": READ, "SESSIONS_INGEST_TOKEN": INGEST}
        lean = {"SESSIONS_TREE": "off", "SESSIONS_VERIFY_EVERY": "off"}
        made = [Appliance(folder / name, tokens | lean) for name in names]
        starting = [threading.Thread(target=stack.enter_context, args=(one,)) for one in made]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        yield made


def work_in(store: Appliance, session_id: str, *texts: str, waits: bool = False) -> None:
    """Actions, after which the session waits for a person, or does not."""
    with httpx.Client(base_url=store.url, headers={"authorization": f"Bearer {INGEST}"}) as agent:
        for text in texts:
            agent.post(f"/api/actions/{session_id}", json={"type": "note", "text": text}).raise_for_status()
        if waits:
            asks = {
                "type": "assistant_message",
                "message": "?",
                "attention": {"reason": "permission", "message": "May I?"},
            }
            agent.post(f"/api/actions/{session_id}/responses", json=asks).raise_for_status()


def timed(call: object, *given: object, **more: object) -> tuple[float, httpx.Response]:
    begun = time.monotonic()
    answer = call(*given, **more)  # type: ignore[operator]
    return time.monotonic() - begun, answer
