"""`usage`: how much telemetry is taken a second, and how long it takes to ask what a million requests cost."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, get_args

import httpx

from sessionstore.model.events import text_of_time
from sessionstore.store.ledger import By
from sessionstore.store.schema import open_writer
from tests.appliance import Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.stalls import processor_seconds

RECORDS = 512
"""Of one request, as OpenTelemetry's exporters send at most."""
REQUESTS = 60
CONNECTIONS = 4
OF_THEM_REQUESTS = 10
"""One record of so many tells of a request to a model, as with Claude Code."""
ROWS, SESSIONS, USERS, PROJECTS = 1_000_000, 2_000, 40, 25
BEGIN = 1_790_000_000.0
MODELS = ("claude-opus-5-5", "claude-sonnet-5", "claude-haiku-4-5", "model-x")
JSON, PROTOBUF = "application/json", "application/x-protobuf"

COMMON = {"user.id": "0" * 64, "terminal.type": "xterm", "anthropic.provider": "firstParty", "prompt.id": "p" * 36}
TOOL = {"event.name": "tool_result", "tool_name": "Bash", "tool_use_id": "toolu_0123456789", "success": "true"}
TOLD = {
    "duration_ms": "43",
    "tool_input_size_bytes": "120",
    "tool_result_size_bytes": "800",
    "permission_mode": "default",
}
names = count()


def measure(rounds: int) -> list[Figure]:
    rates: dict[str, list[float]] = {JSON: [], PROTOBUF: []}
    costs: dict[str, list[float]] = {JSON: [], PROTOBUF: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Appliance(folder / "told"))
        bodies = {kind: [body_of(kind) for _ in range(REQUESTS * rounds)] for kind in rates}
        for _ in range(rounds):
            for kind, found in rates.items():
                work = processor_seconds(server.process.pid)
                found.append(taken_a_second(server, kind, [bodies[kind].pop() for _ in range(REQUESTS)]))
                work = processor_seconds(server.process.pid) - work
                costs[kind].append(work / (REQUESTS * RECORDS) * 1e6)
    with tempfile.TemporaryDirectory() as text:
        slowest = asked(Path(text), rounds)
    return [
        Figure("usage", f"OTLP logs in protobuf, {RECORDS} a request", "records/s", rates[PROTOBUF], Target(20_000)),
        Figure("usage", "the server's work for one", "µs", costs[PROTOBUF], Target(100, at_most=True)),
        Figure("usage", "the same in JSON", "records/s", rates[JSON], Target(10_000)),
        Figure("usage", "the server's work for one", "µs", costs[JSON], Target(200, at_most=True)),
        Figure(
            "usage",
            f"the slowest key among {ROWS:,} requests",
            "ms",
            [clock for clock, _ in slowest],
            Target(100, at_most=True),
        ),
        Figure("usage", "the server's work for it", "ms", [of for _, of in slowest], Target(100, at_most=True)),
    ]


# ------------------------------------------------------------------ what is told


def record(number: int, session: str) -> dict[str, Any]:
    said: dict[str, Any] = COMMON | {"session.id": session, "event.sequence": number}
    if number % OF_THEM_REQUESTS:
        return said | TOOL | TOLD
    tokens = {"input_tokens": 10, "output_tokens": number, "cache_read_tokens": 3000, "cache_creation_tokens": 40}
    named = {"request_id": f"req_{next(names)}", "model": MODELS[0], "cost_usd": 0.0125, "query_source": "sdk"}
    return said | tokens | named | {"event.name": "api_request", "duration_ms": 120}


def value(given: Any) -> Any:
    if isinstance(given, float):
        return {"doubleValue": given}
    return {"intValue": given} if isinstance(given, int) else {"stringValue": given}


def body_of(kind: str) -> bytes:
    session = f"s{next(names)}"
    records = [
        {
            "timeUnixNano": f"{int(BEGIN * 1e9) + number * 10**6}",
            "body": {"stringValue": "claude_code.x"},
            "attributes": [{"key": key, "value": value(given)} for key, given in record(number, session).items()],
        }
        for number in range(RECORDS)
    ]
    scoped = {"scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": records}
    text = json.dumps({"resourceLogs": [{"scopeLogs": [scoped]}]}, separators=(",", ":"))
    return text.encode() if kind == JSON else in_protobuf(text)


def in_protobuf(text: str) -> bytes:
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    return bytes(Parse(text, ExportLogsServiceRequest()).SerializeToString())


def taken_a_second(server: Appliance, kind: str, bodies: list[bytes]) -> float:
    with httpx.Client(base_url=server.url, timeout=60) as http, ThreadPoolExecutor(CONNECTIONS) as pool:
        begun = time.perf_counter()
        answers = list(
            pool.map(lambda body: http.post("/v1/logs", content=body, headers={"content-type": kind}), bodies)
        )
        seconds = time.perf_counter() - begun
    if any(answer.status_code != 200 or b"ejected" in answer.content for answer in answers):
        raise Unsound("telemetry was not taken")
    return len(bodies) * RECORDS / seconds


# ------------------------------------------------------------------ what is asked


def asked(folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Of each round the slowest of all keys: in milliseconds by the clock, and of the server's work."""
    folder.joinpath("store").mkdir()
    fill(folder / "store" / "sessions.db")
    with Appliance(folder / "store") as server, httpx.Client(base_url=server.url, timeout=60) as http:
        each = [[milliseconds(server, http, by) for by in get_args(By)] for _ in range(rounds)]
    return [(max(clock for clock, _ in found), max(work for _, work in found)) for found in each]


def milliseconds(server: Appliance, http: httpx.Client, by: str) -> tuple[float, float]:
    begun, work = time.perf_counter(), processor_seconds(server.process.pid)
    items = http.get("/api/query/usage", params={"by": by}).json()["items"]
    if not items:
        raise Unsound(f"nothing was found by {by}")
    return (time.perf_counter() - begun) * 1000, (processor_seconds(server.process.pid) - work) * 1000


def fill(path: Path) -> None:
    """Sessions, and the ledger of what they used, without the events that told of it."""
    dice = Random(7)
    with closing(open_writer(path)) as database:
        database.execute("BEGIN")
        for number in range(SESSIONS):
            begin_session(database, number)
        database.execute("DROP TRIGGER usage_added")
        for number in range(ROWS):
            database.execute(INSERT, row(dice, number))
        database.execute(SUM)
        database.execute("COMMIT")


def begin_session(database: sqlite3.Connection, number: int) -> None:
    moment = text_of_time(BEGIN + number * 3600)
    data = {"sessionId": f"s{number}", "metadata": {"project": f"p{number % PROJECTS}"}, "tags": [f"t{number % 10}"]}
    database.execute(
        "INSERT INTO events (cursor, type, session_id, user_id, event_id, timestamp, received_at, data)"
        " VALUES (?, 'session_created', ?, ?, ?, ?, ?, ?)",
        (number + 1, f"s{number}", f"u{number % USERS}", f"e{number}", moment, moment, json.dumps(data)),
    )


INSERT = """
INSERT INTO usage (session_id, request_key, cursor, agent_id, source, grade, model, input_tokens, output_tokens,
                   cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens, cost_usd, cost_from,
                   at)
VALUES (?, ?, 1, ?, 'transcript', 1, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?)"""
SUM = """
INSERT INTO usage_sums
SELECT session_id, coalesce(agent_id, ''), family, unixepoch(at) / 900, coalesce(model, ''), cost_from, count(*),
       sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
       sum(cache_write_1h_tokens), sum(reasoning_tokens), sum(coalesce(cost_usd, 0.0)), 1
FROM usage GROUP BY 1, 2, 3, 4, 5, 6"""


def row(dice: Random, number: int) -> tuple[Any, ...]:
    session = number % SESSIONS
    agent = dice.choice((None, None, "a1", "a2"))
    model = MODELS[(session + len(agent or "")) % len(MODELS)]
    at = text_of_time(BEGIN + session * 3600 + dice.random() * 4 * 3600)
    cost, source = (None, "unpriced") if model == "model-x" else (dice.random() / 10, "computed")
    return f"s{session}", f"r{number}", agent, model, 10, 300, 9000, cost, source, at
