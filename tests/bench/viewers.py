"""`viewers`: how long after its commit an event is with those who read, while others do not take what they are sent."""

from __future__ import annotations

import selectors
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.appliance import Appliance
from tests.bench.feed import SECONDS, Crowd, Round, round_of, wait_for_readers
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import own_process
from tests.peers import handshake, mute_reader, resident_bytes, sockets_of

GOOD = Crowd(200, 1000)
NEVER_READ, DRIP = 50, 50
DRIP_SECONDS = 0.1
DRIP_BYTES = 16
GONE_SECONDS = 20.0
HOLD_SECONDS = SECONDS + 2 * GONE_SECONDS


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        poster, readers, crowd = (stack.enter_context(own_process()) for _ in range(3))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        appliance = stack.enter_context(Appliance(folder))
        pid = appliance.process.pid
        alone, among = [], []
        gone_after: list[float] = []
        round_of(appliance, poster, readers, GOOD)  # what is allocated once is
        before, sockets = resident_bytes(pid), sockets_of(pid)
        for _ in range(rounds):
            alone.append(round_of(appliance, poster, readers, GOOD))
            holding = crowd.submit(hold, appliance.port, HOLD_SECONDS)
            wait_for_readers(appliance, NEVER_READ + DRIP)
            among.append(round_of(appliance, poster, readers, GOOD, NEVER_READ + DRIP))
            gone_after.append(seconds_until_gone(pid, sockets))
            holding.result()
        grown = (resident_bytes(pid) - before) / (1 << 20)
    bad = f"{NEVER_READ} that never read and {DRIP} that take a few bytes now and then"
    return [
        Figure(
            "viewers", f"p99 from commit to receipt, {GOOD}, among {bad}", "ms", p99s(among), Target(100, at_most=True)
        ),
        Figure("viewers", "the same without them", "ms", p99s(alone), Target(100, at_most=True)),
        Figure(
            "viewers", "readers that got all, in cursor order (worst round)", "", whole(among), Target(GOOD.readers)
        ),
        Figure(
            "viewers",
            "after that, until all who took nothing are gone",
            "s",
            gone_after,
            Target(GONE_SECONDS, at_most=True),
        ),
        Figure("viewers", "growth of the server's memory", "MiB", [grown], Target(64, at_most=True)),
    ]


def p99s(found: list[Round]) -> list[float]:
    return [measured.p99_ms for measured in found]


def whole(found: list[Round]) -> list[float]:
    return [min(measured.whole for measured in found)]


def seconds_until_gone(pid: int, sockets: int) -> float:
    begun = time.monotonic()
    while sockets_of(pid) > sockets:
        if time.monotonic() > begun + GONE_SECONDS:
            raise Unsound(f"{sockets_of(pid)} sockets are left where {sockets} should be")
        time.sleep(0.05)
    return time.monotonic() - begun


def hold(port: int, seconds: float) -> None:
    """Connect so many that never read, and so many that take a few bytes now and then."""
    deadline = time.monotonic() + seconds
    with ExitStack() as stack, selectors.DefaultSelector() as dripping:
        for _ in range(NEVER_READ):
            stack.enter_context(mute_reader(port, handshake()))
        for _ in range(DRIP):
            dripping.register(stack.enter_context(mute_reader(port, handshake())), selectors.EVENT_READ)
        while time.monotonic() < deadline:
            time.sleep(DRIP_SECONDS)
            for key, _ in dripping.select(0):
                if is_over(key.fileobj):  # type: ignore[arg-type]
                    dripping.unregister(key.fileobj)


def is_over(peer: socket.socket) -> bool:
    try:
        return not peer.recv(DRIP_BYTES)
    except ConnectionError:
        return True
