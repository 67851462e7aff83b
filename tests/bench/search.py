"""`search`: a million events: what a search takes, what the index costs the writing, and how large the database is."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from sessionstore.model.events import Draft
from sessionstore.model.folds import encode
from tests.appliance import Appliance, Server
from tests.bench import million
from tests.bench.figures import Figure, Target
from tests.bench.load import closed_loop, one_by_one, own_process, percentile
from tests.wire import NDJSON, http_request

SEARCHES = 200
FREQUENT = ("the", "file", "server", "error", "return", "user", "config")
FILTERS = (
    {"type": "response"},
    {"kind": "tool_error"},
    {"kind": "prompt,assistant_message"},
    {"userId": "user-7"},
    {"sessionId": million.session_id(100)},
    {"since": "2026-11-01T00:00:00Z"},
    {"since": "2026-03-01T00:00:00Z", "until": "2026-03-15T00:00:00Z"},
    {"until": "2026-06-01T00:00:00Z"},
)
BATCH_EVENTS = 100
CONNECTIONS = 8
WARM_UP_SECONDS, SECONDS = 1.0, 5.0
TINY_EVENTS = 200_000


def measure(rounds: int) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(own_process())
        return [
            *_with_a_million(generator, folder / "million", rounds),
            _size_of_tiny(folder / "tiny.db"),
            _ingestion(generator, folder, rounds),
        ]


# ------------------------------------------------------------- a million events


def _with_a_million(generator: Executor, folder: Path, rounds: int) -> Iterator[Figure]:
    folder.mkdir()
    database = folder / "sessions.db"
    put_in = million.fill(database)
    million.index(database)
    yield _size("a million events", put_in, database)
    with Appliance(folder, {"SESSIONS_TREE": "off"}) as appliance:
        for name, questions in _questions().items():
            requests = [http_request("GET", f"/api/query/search?{urlencode(question)}") for question in questions]
            generator.submit(one_by_one, appliance.port, requests).result()
            p95 = [_p95_ms(generator, appliance, requests) for _ in range(rounds)]
            yield Figure("search", f"p95 among a million events: {name}", "ms", p95, Target(100, at_most=True))


def _p95_ms(generator: Executor, appliance: Server, requests: list[bytes]) -> float:
    return percentile(generator.submit(one_by_one, appliance.port, requests).result(), 0.95) * 1000


def _questions() -> dict[str, list[dict[str, str]]]:
    """As many of each kind as there are of the others, and all together."""
    author, random = million.Author(), Random(7)
    words = author.pool.split()

    def some(length: int) -> list[list[str]]:
        starts = random.choices(range(len(words) - length), k=SEARCHES // 8)
        return [words[start : start + length] for start in starts]

    kinds = {
        "frequent words": [{"q": random.choice(FREQUENT)} for _ in range(SEARCHES // 8)],
        "words as they come, most of them rare": [{"q": word} for (word,) in some(1)],
        "two words": [{"q": " ".join(pair)} for pair in some(2)],
        "phrases": [{"q": f'"{" ".join(phrase)}"'} for phrase in some(3)],
        "beginnings of three letters or more": [{"q": f"{word[:5]}*"} for (word,) in some(1) if len(word) > 2],
        "file names": [{"q": random.choice(author.paths)} for _ in range(SEARCHES // 8)],
        "one word without another": [{"q": f"{random.choice(FREQUENT)} -{word}"} for (word,) in some(1)],
        "narrowed by kind, user, session, time": [
            {"q": random.choice(FREQUENT), **FILTERS[number % len(FILTERS)]} for number in range(SEARCHES // 8)
        ],
    }
    return {"all kinds": [question for each in kinds.values() for question in each], **kinds}


# ------------------------------------------------------------------------- size


def _size_of_tiny(database: Path) -> Figure:
    put_in = million.fill(database, million.tiny_drafts(TINY_EVENTS))
    million.index(database)
    return _size("nothing but actions of about 120 bytes each", put_in, database)


def _size(what: str, put_in: int, database: Path) -> Figure:
    """The database, everything included, and the JSON that went in, in MB."""
    bytes_of = database.stat().st_size
    compared = f"bytes of the database against those of the JSON that went in: {what}"
    return Figure("search", compared, "MB", [bytes_of / 1e6], Target(2.5, at_most=True), [put_in / 1e6])


# -------------------------------------------------------------------- ingestion


def _ingestion(generator: Executor, folder: Path, rounds: int) -> Figure:
    """Two servers in turn, of which one never brings its index forward."""
    with ExitStack() as stack:
        indexing = stack.enter_context(Appliance(folder / "indexing"))
        environment = {"SESSIONS_DIR": str(folder / "unindexed"), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "tests.bench.unindexed"]
        unindexed = stack.enter_context(Server(command, environment))
        requests = _batches()
        rates = [(_rate(generator, indexing, requests), _rate(generator, unindexed, requests)) for _ in range(rounds)]
    with_index, without = zip(*rates, strict=True)
    compared = f"NDJSON of {BATCH_EVENTS} events, {CONNECTIONS} connections, with the index against without"
    return Figure("search", compared, "events a second", with_index, Target(0.85), without)


def _rate(generator: Executor, server: Server, requests: list[bytes]) -> float:
    load = generator.submit(closed_loop, server.port, requests, CONNECTIONS, WARM_UP_SECONDS, SECONDS).result()
    return load.rate * BATCH_EVENTS


def _batches() -> list[bytes]:
    """Without eventIds, so that the same request is new events each time."""
    drafts = islice(million.drafts(), CONNECTIONS * BATCH_EVENTS)
    lines = [_line(draft) for draft in drafts if draft.type in ("action", "response")]
    return [
        http_request("POST", "/api/events", "\n".join(lines[at::CONNECTIONS][:BATCH_EVENTS]).encode(), NDJSON)
        for at in range(CONNECTIONS)
    ]


def _line(draft: Draft) -> str:
    return encode({"type": draft.type, "sessionId": draft.session_id, "data": draft.data})
