"""What the server logs: one entry a line, whatever stands in it, and never more on disk than it may."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionstore import log
from sessionstore.log import FILES, JsonLines, TextLines, logging_as, security
from sessionstore.settings import Settings

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
    record = logging.LogRecord("sessionstore.writer", logging.WARNING, "", 0, "%s", (text,), None)
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


def test_a_log_that_cannot_be_written_holds_nobody_up_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    failed = log.lost["failed"]
    with logging_as(Settings(directory=tmp_path, log="json")):
        security("noticed")
    assert log.lost["failed"] == failed + 1


def test_when_the_block_ends_logging_is_as_it_was(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    with logging_as(in_file(tmp_path / "log")):
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before
