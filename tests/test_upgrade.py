"""A store that an earlier version has filled is served as if nothing had happened: tests/upgrade holds such stores.

Each archive has a database as its server left it, and what that server answered about it.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.commands import export, is_done
from tests.peers import eventually

ARCHIVES = sorted((Path(__file__).parent / "upgrade").glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """A client of a server of today over it, and the answers of then, by their paths."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    answers = json.loads((tmp_path / "answers.json").read_text())
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        yield http, answers


def test_it_answers_as_before(upgraded: tuple[httpx.Client, dict[str, Any]]) -> None:
    http, answers = upgraded
    assert len(answers) > 30
    for path, answer in answers.items():
        now = http.get(path).raise_for_status().json()
        if path == "/api/query/stats":
            now = {name: now[name] for name in answer}
        assert now == answer, path


def test_it_takes_up_where_it_was(upgraded: tuple[httpx.Client, dict[str, Any]], tmp_path: Path) -> None:
    http, answers = upgraded
    again = {"type": "file_write", "path": "a0.py", "lines": 0, "eventId": "e-0"}
    assert http.post("/api/actions/built", json=again).json()["seq"] == 1
    added = http.post("/api/actions/built", json={"type": "after"}).raise_for_status().json()
    assert added["seq"] == 4
    assert added["cursor"] == answers["/api/events?limit=1000"]["nextAfter"] + 1
    eventually(lambda: http.get("/health").json()["tree"]["lag"] == 0)
    is_done(export(tmp_path, "verify"))
