"""A peer that drips an answer, a byte now and then and for ever, holds neither the sender nor a restore."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from containers import hook_agent_restore
from hook_agent import _Link
from tests.peers import SECONDS

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(params=[HEAD + b"X-Some: ", HEAD + b"Content-Length: 1000000\r\n\r\n"], ids=["head", "body"])
def link(request: pytest.FixtureRequest) -> Iterator[_Link]:
    """To one that begins its answer so."""

    def drip() -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer, suppress(OSError):
                    peer.recv(1 << 16)
                    peer.sendall(request.param)
                    while True:
                        time.sleep(0.02)
                        peer.sendall(b"x")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=drip, daemon=True).start()
        yield (link := _Link(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        link.close()
        listener.shutdown(socket.SHUT_RDWR)


def ends(work: Callable[[], object]) -> bool:
    """Whether it comes to an end, be it by an error."""

    def attempt() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(SECONDS / 3)
    return not thread.is_alive()


def test_a_dripped_answer_ends(link: _Link) -> None:
    assert ends(lambda: link.ask("POST", "/api/events", b"{}\n", 0.1))


def test_a_dripped_conversation_ends(link: _Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_agent_restore, "_LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(hook_agent_restore, "_SLOWEST_BYTES", 1000)
    assert ends(lambda: b"".join(hook_agent_restore._Kept(link, "/api/transcripts/f/s")))
