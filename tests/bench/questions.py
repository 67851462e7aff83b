"""`questions`: what people who ask in SQL cost those who write, when they mean ill; and how soon they have an answer.

Single actions come at a steady rate, and beside them four people ask without a pause for what has no end, all the
memory, or everything joined with everything. The questions that are asked often are asked of a million events.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import httpx

from sessionstore.analytics.catalogue import questions
from tests.appliance import Appliance
from tests.bench import million
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import one_by_one, open_loop, own_process, percentile
from tests.hostile import BOMBS, REFUSED
from tests.wire import http_request

ASKERS = 4
ACTIONS_PER_SECOND = 500
SECONDS = 12
CONNECTIONS = 16
ASKED = 10
ACTION = b'{"type":"file_write","path":"src/server.js","lines":42}'
REQUESTS = [http_request("POST", f"/api/actions/bench-{n}", ACTION) for n in range(8)]
HOSTILE = [*BOMBS, *REFUSED]


def measure(rounds: int) -> list[Figure]:
    """Half a minute a round, so a minute of hostile questions in five; before that a million events are made."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        million.fill(folder / "sessions.db")
        million.index(folder / "sessions.db")
        appliance = stack.enter_context(Appliance(folder, {"SESSIONS_TREE": "off"}))
        poster = stack.enter_context(own_process())
        poster.submit(one_by_one, appliance.port, REQUESTS).result()
        often = [_often_asked(appliance.url) for _ in range(rounds)]
        return [*_held_up(appliance, poster, rounds), *_often_figures(often)]


# ------------------------------------------------------------------ hostile ones


def _held_up(appliance: Appliance, poster: Executor, rounds: int) -> list[Figure]:
    alone, beside, longest = [], [], []
    for _ in range(rounds):
        alone.append(_p99_ms(appliance, poster))
        with asking(appliance.url) as seconds:
            beside.append(_p99_ms(appliance, poster))
        longest.append(max(seconds))
    compared = f"p99 of single actions, {ACTIONS_PER_SECOND} a second, {ASKERS} asking hostile SQL against none"
    return [
        Figure("questions", compared, "ms", beside, Target(2, at_most=True), alone),
        Figure("questions", "the longest answer to a hostile question", "s", longest, Target(2, at_most=True)),
    ]


def _p99_ms(appliance: Appliance, poster: Executor) -> float:
    """Raises Unsound where one of them is not taken."""
    requests = [REQUESTS[number % len(REQUESTS)] for number in range(ACTIONS_PER_SECOND * SECONDS)]
    posted = poster.submit(open_loop, appliance.port, requests, ACTIONS_PER_SECOND, CONNECTIONS).result()
    return percentile([event.took_ms for event in posted], 0.99)


@contextmanager
def asking(url: str) -> Iterator[list[float]]:
    """Four people who ask all the time; how long each answer took, once they have stopped."""
    seconds: list[float] = []
    stop = threading.Event()
    with ThreadPoolExecutor(ASKERS) as pool:
        parts = [HOSTILE[number::ASKERS] for number in range(ASKERS)]
        askers = [pool.submit(_ask, url, part, seconds, stop) for part in parts]
        yield seconds
        stop.set()
        for asker in askers:
            asker.result()


def _ask(url: str, part: Sequence[str], seconds: list[float], stop: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        for sql in cycle(part):
            if stop.is_set():
                return
            begun = time.monotonic()
            answer = http.get("/datasette/sessions.json", params={"sql": sql, "_shape": "arrays"})
            seconds.append(time.monotonic() - begun)
            if answer.status_code not in (200, 400):
                raise Unsound(f"{sql[:200]} was answered {answer.status_code}: {answer.text[:200]}")


# ------------------------------------------------------------------- often asked


def _often_asked(url: str) -> dict[str, list[float]]:
    with httpx.Client(base_url=url, timeout=30) as http:
        session = http.get("/api/sessions?limit=1").json()["items"][0]["sessionId"]
        http.get("/datasette/")  # from now on it runs
        return {name: [_seconds(http, name, session) for _ in range(ASKED)] for name in questions()}


def _seconds(http: httpx.Client, name: str, session: str) -> float:
    question = questions()[name]
    given = {"session": session, "word": "token"}
    parameters = {parameter: given.get(parameter, "") for parameter in question.parameters}
    begun = time.monotonic()
    answer = http.get(f"{question.path}.json", params=parameters)
    if answer.status_code != 200:
        raise Unsound(f"{name} was answered {answer.status_code}: {answer.text[:200]}")
    return time.monotonic() - begun


def _often_figures(often: Sequence[dict[str, list[float]]]) -> list[Figure]:
    """The slowest of the questions, and its p95."""
    p95 = {name: [percentile(each[name], 0.95) for each in often] for name in questions()}
    slowest = max(p95, key=lambda name: sorted(p95[name])[len(often) // 2])
    compared = f"p95 of {slowest}, the slowest question, over a million events"
    return [Figure("questions", compared, "s", p95[slowest], Target(1, at_most=True))]
