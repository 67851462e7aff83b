"""Kills the server at random moments while writers write, and looks for what an acknowledgement promised in vain."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from tests.appliance import Server
from tests.wire import Answer, HttpClient, connect, http_request

WRITERS_PER_SESSION = 2
PAGE = 10_000


class Refused(Exception):
    """The server answered with something else than it should, so that there is nothing to look at."""


class Entry(msgspec.Struct, rename="camel", frozen=True):
    """An entry of an action log, as far as it matters here."""

    seq: int
    event_id: str


class _Acknowledgement(msgspec.Struct):
    seq: int


@dataclass
class Writer:
    """Posts one action after the other to one session; what was not acknowledged is sent again, as it was."""

    name: str
    session: str
    acknowledged: dict[str, int] = field(default_factory=dict)

    async def write(self, port: int) -> None:
        """Until the connection is lost."""
        with suppress(OSError):
            client = await connect(port, HttpClient)
            while True:
                event_id = f"{self.name}-{len(self.acknowledged) + 1}"
                self.acknowledged[event_id] = acknowledged_seq(await client.ask(action(self.session, event_id)))


@dataclass(frozen=True)
class Report:
    """What `run_kills` found; a fault is a sentence."""

    seed: int
    acknowledged: int
    restarts: Sequence[float]
    """Seconds from exec to GET /ready being 200, after each kill."""
    lost: Sequence[str]
    repeated: Sequence[str]
    misplaced: Sequence[str]
    gaps: Sequence[str]

    @property
    def faults(self) -> list[str]:
        return [*self.lost, *self.repeated, *self.misplaced, *self.gaps]


def run_kills(server: Server, rounds: int, writers: int = 8, seed: int = 0, longest: float = 1.0) -> Report:
    """Kill a running `server` `rounds` times, each at a random moment within `longest` seconds of writing."""
    moments = random.Random(seed)
    crew = [Writer(f"writer-{n}", f"crash-{n // WRITERS_PER_SESSION}") for n in range(writers)]
    restarts = []
    for _ in range(rounds):
        asyncio.run(_write_until_killed(server, crew, moments.uniform(0.0, longest)))
        restarts.append(server.start(until="/ready"))
    logs = asyncio.run(action_logs(server.port, sorted({writer.session for writer in crew})))
    return report(seed, restarts, crew, logs)


@contextmanager
def killed_every_second(server: Server) -> Iterator[Callable[[], int]]:
    """A server that is killed and started again; how often so far."""
    is_over = threading.Event()
    kills: list[float] = []

    def kill() -> None:
        while not is_over.wait(1.0):
            server.kill()
            server.start()
            kills.append(time.monotonic())

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield lambda: len(kills)
    finally:
        is_over.set()
        killer.join()


def report(seed: int, restarts: Sequence[float], crew: Sequence[Writer], logs: Mapping[str, Sequence[Entry]]) -> Report:
    return Report(
        seed=seed,
        acknowledged=sum(len(writer.acknowledged) for writer in crew),
        restarts=restarts,
        lost=list(_lost(crew, logs)),
        repeated=list(_repeated(logs)),
        misplaced=list(_misplaced(crew, logs)),
        gaps=list(_gaps(logs)),
    )


async def _write_until_killed(server: Server, crew: Sequence[Writer], seconds: float) -> None:
    async with asyncio.TaskGroup() as writing:
        tasks = [writing.create_task(writer.write(server.port)) for writer in crew]
        await asyncio.sleep(seconds)
        if any(task.done() for task in tasks):
            raise Refused(f"the server hung up on a writer before it was killed:\n{server.output}")
        server.kill()


def action(session: str, event_id: str) -> bytes:
    body = b'{"eventId":"%s","type":"file_write","path":"src/server.js","lines":42}' % event_id.encode()
    return http_request("POST", f"/api/actions/{session}", body)


def acknowledged_seq(answer: Answer) -> int:
    return msgspec.json.decode(expect_200(answer), type=_Acknowledgement).seq


def expect_200(answer: Answer) -> bytes:
    if answer.status != 200:
        raise Refused(f"answered {answer.status}: {answer.body[:500]!r}")
    return answer.body


async def action_logs(port: int, sessions: Sequence[str]) -> dict[str, list[Entry]]:
    client = await connect(port, HttpClient)
    logs = {session: await _action_log(client, session) for session in sessions}
    client.close()
    return logs


async def _action_log(client: HttpClient, session: str) -> list[Entry]:
    log: list[Entry] = []
    while True:
        after = log[-1].seq if log else 0
        answer = await client.ask(http_request("GET", f"/api/actions/{session}?limit={PAGE}&after={after}"))
        page = msgspec.json.decode(expect_200(answer), type=list[Entry])
        if page and page[0].seq <= after:
            raise Refused(f"entry {page[0].seq} of {session} was given again after {after}")
        log += page
        if len(page) < PAGE:
            return log


def _lost(crew: Sequence[Writer], logs: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    for writer in crew:
        kept = {entry.event_id for entry in logs[writer.session]}
        for event_id in writer.acknowledged.keys() - kept:
            yield f"{event_id} was acknowledged and is not in {writer.session}"


def _repeated(logs: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    for event_id, times in Counter(entry.event_id for log in logs.values() for entry in log).items():
        if times > 1:
            yield f"{event_id} is in the store {times} times"


def _misplaced(crew: Sequence[Writer], logs: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    for writer in crew:
        for entry in logs[writer.session]:
            promised = writer.acknowledged.get(entry.event_id, entry.seq)
            if promised != entry.seq:
                yield f"{entry.event_id} was acknowledged as {promised} and is {entry.seq} in {writer.session}"


def _gaps(logs: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    for session, log in logs.items():
        for expected, entry in enumerate(log, start=1):
            if entry.seq != expected:
                yield f"{session} has seq {entry.seq} where {expected} should be"
                break
