"""What the server logs: one entry a line, whatever stands in it, and nobody waits for who reads it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore import log
from sessionstore.log import JsonLines, TextLines, logging_as, security
from sessionstore.settings import Settings
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually

HOSTILE = [
    "a\nb",
    'x\r\n{"ts":"2026-01-01T00:00:00.000Z","level":"info","event":"forged"}',
    "\x1b[2J\x1b[31mred\x9b0m\x07",
    "line\u2028separator\u2029and\x85next",
    "half a pair \ud800, \x00, \x7f",
    'quotes " and \\ and {"json":true}',
    "x" * 1_000_000,
]


def entry(text: str, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("sessionstore.store.writer", logging.WARNING, "", 0, "%s", (text,), None)
    if fields:
        record.fields = fields
    return record


@contextmanager
def raised(message: str) -> Iterator[Any]:
    try:
        raise ValueError(message)
    except ValueError as error:
        yield (type(error), error, error.__traceback__)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_entry_is_one_line_of_json_whatever_is_in_it(text: str) -> None:
    record = entry(text)
    with raised(text) as record.exc_info:
        line = JsonLines().format(record)
    said = json.loads(line)
    assert line.isascii() and line.isprintable()
    assert said["level"] == "warning" and said["source"] == "writer" and said["event"] == "message"
    assert said["message"] == text or text.startswith(said["message"].removesuffix("…"))
    assert "ValueError" in said["trace"] and len(line) < 200_000
    assert json.loads(JsonLines().format(entry("refused", path=text)))["event"] == "refused"


@pytest.mark.parametrize("text", HOSTILE)
def test_as_text_nothing_in_an_entry_begins_a_line_or_steers_a_terminal(text: str) -> None:
    record = entry(text)
    with raised(text) as record.exc_info:
        first, *trace = TextLines().format(record).split("\n")
    assert " WARNING writer: " in first
    assert trace and all(line.startswith("    ") for line in trace)
    assert all(line.isprintable() for line in (first, *trace, TextLines().format(entry("refused", path=text))))


def test_a_text_that_is_cut_is_seen_to_be_cut_and_numbers_stay_numbers() -> None:
    said = json.loads(JsonLines().format(entry("refused", path="x" * 5000, status=401, client=None)))
    assert said["path"] == "x" * log.MAX_TEXT + "…"
    assert said["status"] == 401
    assert "client" not in said


@pytest.mark.parametrize("kind", ["text", "json"])
def test_what_concerns_security_is_logged_whatever_the_settings(capfd: pytest.CaptureFixture[str], kind: str) -> None:
    with logging_as(Settings(directory=Path("/nowhere"), log=kind)):
        security("token_refused", client="192.0.2.1", path="/api/\nx")
    line = "".join(capfd.readouterr())
    assert line.count("\n") == 1 and "token_refused" in line and "192.0.2.1" in line and "security" in line


def test_when_the_block_ends_logging_is_as_it_was() -> None:
    before = list(logging.getLogger().handlers)
    with logging_as(Settings(directory=Path("/nowhere"))):
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before


# ---------------------------------------------------------------------- of a server


def entries(text: str) -> list[dict[str, Any]]:
    """Each line is an object, and nothing else."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"ts", "level", "event", "source"} <= entry.keys() for entry in found)
    return found


def test_as_json_the_output_has_an_object_a_line_from_the_start_to_the_end(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_LOG": "json"}) as server:
        assert httpx.post(f"{server.url}/api/actions/s", json={"type": "x"}).status_code == 200
        server.stop()
    started, stopped = entries(server.output)
    assert (started["event"], started["data"]) == ("started", str(folder))
    assert started["dashboard"] == f"{server.url}/" and started["access"].startswith("open")
    assert stopped["event"] == "stopped"


def test_a_request_that_is_logged_shows_its_route_and_nothing_that_it_carries(folder: Path) -> None:
    secret = "secret-token-of-this-test"
    settings = {"SESSIONS_LOG": "json", "SESSIONS_LOG_REQUESTS": "on", "SESSIONS_TOKEN": secret}
    with Appliance(folder, settings) as server, httpx.Client(base_url=server.url) as client:
        client.headers["authorization"] = f"Bearer {secret}"
        client.post("/api/actions/s", json={"type": "x", "text": "canary-in-a-body"})
        client.get("/api/sessions/s?limit=1&canary=canary-in-a-query")
        client.get("/api/events", headers={"x-canary": "canary-in-a-header"})
        client.get("/nowhere%0a%1b[2J/%7b")
        client.get("/api/sessions", headers={"authorization": "Bearer canary-in-a-token"})
        client.patch("/api/state/s", content=b"{")
        server.stop()
    requests = [
        entry for entry in entries(server.output) if entry["event"] == "request" and entry["route"] != "/health"
    ]
    assert [(entry["method"], entry["route"], entry["status"]) for entry in requests] == [
        ("POST", "/api/actions/{session_id}", 200),
        ("GET", "/api/sessions/{session_id}", 200),
        ("GET", "/api/events", 200),
        ("GET", "other", 404),
        ("GET", "other", 401),
        ("PATCH", "/api/state/{session_id}", 415),
    ]
    assert {entry["client"] for entry in requests} == {"127.0.0.1"}
    assert [entry.get("session_id") for entry in requests] == ["s", "s", None, None, None, "s"]
    assert len({entry["request_id"] for entry in requests}) == 6
    assert all(entry["duration_ms"] >= 0 and entry["bytes"] > 0 for entry in requests)
    assert {entry.get("actor") for entry in requests} == {"SESSIONS_TOKEN", None} and "actor" not in requests[4]
    assert "canary" not in server.output and secret not in server.output


def test_what_is_logged_under_load_is_whole(folder: Path) -> None:
    hostile = "".join(f"%{byte:02x}" for byte in b'\r\n{"forged":1}\x1b[2J\x00\xff')
    settings = {"SESSIONS_LOG": "json", "SESSIONS_LOG_REQUESTS": "on"}
    with Appliance(folder, settings) as server, httpx.Client(base_url=server.url) as client:
        for number in range(800):
            client.get(f"/no/{number}/{hostile}")
        server.stop()
    requests = [entry for entry in entries(server.output) if entry["event"] == "request"]
    numbers = [int(entry["path"].split("/")[2]) for entry in requests if entry["path"].startswith("/no/")]
    assert sorted(numbers) == list(range(800))


@contextmanager
def writing_to(output: Any, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server that logs requests as JSON into this file."""
    settings = {"SESSIONS_DIR": str(folder), "SESSIONS_LOG": "json", "SESSIONS_LOG_REQUESTS": "on"}
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, **settings, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, stdout=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            eventually(lambda: is_up(client))
            yield process, client
            process.terminate()
            assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()


def test_a_reader_of_the_output_that_takes_nothing_holds_nobody_up(folder: Path) -> None:
    """More than a pipe holds is logged, and nobody reads it."""
    reading, writing = os.pipe()
    with writing_to(writing, folder) as (_, client):
        for number in range(1000):
            assert client.get(f"/nowhere/{number}/{'x' * 200}").status_code == 404
        assert client.post("/api/actions/s", json={"type": "x"}).status_code == 200
    os.close(writing)
    os.close(reading)


def test_a_log_that_cannot_be_written_holds_nobody_up_and_is_counted(folder: Path) -> None:
    with open("/dev/full", "wb") as full, writing_to(full, folder) as (_, client):
        assert client.post("/api/actions/s", json={"type": "x"}).status_code == 200
        eventually(lambda: 'sessionstore_log_lost_total{reason="failed"} 0' not in client.get("/metrics").text)


def is_up(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False
