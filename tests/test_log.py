"""What the server logs: one entry a line, whatever stands in it, and never more on disk than it may."""

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
from sessionstore.log import FILES, JsonLines, TextLines, logging_as, security
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


def in_file(path: Path, **settings: Any) -> Settings:
    return Settings(directory=path.parent, log_file=path, **settings)


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
    assert said["level"] == "warning" and said["source"] == "store.writer" and said["event"] == "message"
    assert said["message"] == text or text.startswith(said["message"].removesuffix("…"))
    assert "ValueError" in said["trace"] and len(line) < 200_000
    assert json.loads(JsonLines().format(entry("refused", path=text)))["event"] == "refused"


@pytest.mark.parametrize("text", HOSTILE)
def test_as_text_nothing_in_an_entry_begins_a_line_or_steers_a_terminal(text: str) -> None:
    record = entry(text)
    with raised(text) as record.exc_info:
        first, *trace = TextLines().format(record).split("\n")
    assert " WARNING store.writer: " in first
    assert trace and all(line.startswith("    ") for line in trace)
    assert all(line.isprintable() for line in (first, *trace, TextLines().format(entry("refused", path=text))))


def test_a_text_that_is_cut_is_seen_to_be_cut_and_numbers_stay_numbers() -> None:
    said = json.loads(JsonLines().format(entry("refused", path="x" * 5000, status=401, client=None)))
    assert said["path"] == "x" * log.MAX_TEXT + "…"
    assert said["status"] == 401
    assert "client" not in said


def test_what_concerns_security_is_logged_whatever_the_settings(tmp_path: Path) -> None:
    for name in ("text", "json"):
        path = tmp_path / f"{name}.log"
        with logging_as(in_file(path, log=name)):
            security("token_refused", client="192.0.2.1", path="/api/\nx")
        line = path.read_text()
        assert line.count("\n") == 1 and "token_refused" in line and "192.0.2.1" in line and "security" in line


def test_a_log_in_a_file_is_rotated_and_keeps_within_its_bytes_and_every_line_whole(tmp_path: Path) -> None:
    bound = 1 << 16
    with logging_as(in_file(tmp_path / "log", log="json", log_bytes=bound)):
        for number in range(2000):
            security("noticed", number=number, text=HOSTILE[number % len(HOSTILE)][:300])
    files = sorted(tmp_path.iterdir())
    numbers = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert len(files) == FILES
    assert sum(file.stat().st_size for file in files) <= bound
    assert sorted(numbers) == list(range(2000 - len(numbers), 2000)), "the newest are there, and none twice"


def test_when_the_block_ends_logging_is_as_it_was(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    with logging_as(in_file(tmp_path / "log")):
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


def test_what_is_logged_under_load_is_whole_while_its_file_is_rotated(folder: Path, tmp_path: Path) -> None:
    bound = 1 << 17
    settings = {
        "SESSIONS_LOG": "json",
        "SESSIONS_LOG_REQUESTS": "on",
        "SESSIONS_LOG_FILE": str(tmp_path / "log" / "sessions.log"),
        "SESSIONS_LOG_BYTES": str(bound),
    }
    hostile = "".join(f"%{byte:02x}" for byte in b'\r\n{"forged":1}\x1b[2J\x00\xff')
    with Appliance(folder, settings) as server, httpx.Client(base_url=server.url) as client:
        for number in range(800):
            client.get(f"/no/{number}/{hostile}")
        server.stop()
    files = sorted((tmp_path / "log").iterdir())
    assert len(files) == FILES and sum(file.stat().st_size for file in files) <= bound
    logged = [entry for file in files for entry in entries(file.read_text())]
    numbers = [int(entry["path"].split("/")[2]) for entry in logged if entry["event"] == "request"]
    assert sorted(numbers) == list(range(800 - len(numbers), 800)) and len(numbers) > 150
    assert "Session store" in server.output, "a person is greeted all the same"


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


def test_the_log_does_not_go_into_the_database(folder: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
    settings = {"SESSIONS_DIR": str(folder), "SESSIONS_LOG_FILE": str(folder / "sessions.db"), "PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "app.py"],
        cwd=REPOSITORY,
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and "SESSIONS_LOG_FILE" in ended.stderr
    assert not (folder / "sessions.db").exists()
