"""Peers that do not do as they should, on plain sockets, and what can be seen of the server from outside."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx

SECONDS = 60.0
"""How long a test waits for what has to happen: long, as only what never comes takes it; the machine may be busy."""
POLL_SECONDS = 0.02
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, section 1.3
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def eventually(condition: Callable[[], object], within: float = SECONDS) -> None:
    """Wait until `condition` holds; that it does not within that time is the failure."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(POLL_SECONDS)


def midday() -> dict[str, str]:
    """The environment of a time zone in which it is about noon: where something counts by days, none ends in a test."""
    return {"TZ": f"Etc/GMT{datetime.now(UTC).hour - 12:+}"}  # by the sign of these names, west is more


def has_midnight_come(http: httpx.Client) -> bool:
    """Whether the events of a store are not all of this day, in UTC: then the figures of a day tell nothing."""
    received = [event["receivedAt"][:10] for event in http.get("/api/events?limit=1000").json()["items"]]
    return {*received} != {datetime.now(UTC).date().isoformat()}


def sockets_of(pid: int) -> int:
    """How many sockets a process holds."""
    return sum(target.startswith("socket:") for target in descriptors_of(pid))


def descriptors_of(pid: int) -> Iterator[str]:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since it was listed
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_resident_bytes(pid: int) -> int:
    """The most that it ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def children_of(pid: int) -> list[int]:
    """A process's children, each followed by its own."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread, or a child, may end meanwhile
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *children_of(child)]
    return found


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process and its children stand still meanwhile, as in a container that is paused."""
    stopped: list[int] = []
    try:
        while still := {pid, *children_of(pid)}.difference(stopped):
            for process in still:
                signal_to(process, signal.SIGSTOP)
            stopped += still
        eventually(lambda: all(is_stopped(process) for process in stopped))
        yield
    finally:
        for process in stopped:
            signal_to(process, signal.SIGCONT)


def signal_to(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Not so one that has ended, and whose end nobody has asked for."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def is_stopped(pid: int) -> bool:
    """All its threads; or it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return {stat.rpartition(") ")[2][0] for stat in stats} <= {"T", "Z"}
    return not Path(f"/proc/{pid}").exists()


# ----------------------------------------------------------------------- sockets


def dial(port: int, receive_buffer: int | None = None) -> socket.socket:
    """A connection; `receive_buffer`: how little it takes while nobody reads it."""
    peer = socket.socket()
    if receive_buffer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.settimeout(SECONDS)
    peer.connect(("127.0.0.1", port))
    return peer


def mute_reader(port: int, request: bytes) -> socket.socket:
    """One that asks, and then never reads."""
    peer = dial(port, receive_buffer=1024)
    peer.sendall(request)
    return peer


def reset(peer: socket.socket) -> None:
    """Close it so that the other side is told of an error, not of an end."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def received(peer: socket.socket) -> bytes:
    """Everything up to the end of the connection, however that comes. Raises TimeoutError if it does not."""
    data = b""
    with suppress(ConnectionError):
        while piece := peer.recv(1 << 16):
            data += piece
    return data


def say(port: int, *parts: bytes) -> bytes:
    """What the server says to these bytes until it hangs up, or until it has nothing to say after our end."""
    with dial(port) as peer:
        with suppress(ConnectionError):
            for part in parts:
                peer.sendall(part)
            peer.shutdown(socket.SHUT_WR)
        return received(peer)


def ask(port: int, *parts: bytes) -> Response:
    """The first response to these bytes; the connection stays open while it is awaited."""
    with dial(port) as peer:
        with suppress(ConnectionError):
            for part in parts:
                peer.sendall(part)
        return response_from(peer)


def response_from(peer: socket.socket, left: bytes = b"") -> Response:
    """The next response, which has a content-length or no body at all."""
    data = left
    while b"\r\n\r\n" not in data:
        data += more(peer, data)
    head, _, body = data.partition(b"\r\n\r\n")
    status, headers = parsed(head)
    if status == 100:
        return response_from(peer, body)
    while len(body) < int(headers.get("content-length", 0)):
        body += more(peer, data)
    return Response(status, headers, body)


def more(peer: socket.socket, so_far: bytes) -> bytes:
    if piece := peer.recv(1 << 16):
        return piece
    raise ConnectionError(f"hung up after {so_far!r}")


def parsed(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


# --------------------------------------------------------------------- WebSocket


def handshake(path: str = "/ws", **changes: str) -> bytes:
    """The opening of a WebSocket; `changes` replace headers (`_` for `-`), an empty one is left out."""
    headers = {
        "host": "127.0.0.1",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame: masked, with a key of zeros, which leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + bytes(4) + payload
    if size < 1 << 16:
        return bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big") + bytes(4) + payload
    return bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big") + bytes(4) + payload


def close_code(data: bytes) -> int | None:
    """The code of the close frame in what a server sent after the handshake; None if there is none, as yet."""
    at = 0
    while at + 2 <= len(data):
        kind, size, start = data[at] & 0x0F, data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + width], "big"), start + width
        if kind == CLOSE and len(data) >= start + 2:
            return int.from_bytes(data[start : start + 2], "big")
        at = start + size
    return None
