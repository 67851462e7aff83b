"""Budgets: how much may be used, and that each crossing is told once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.upkeep.notices import spent_of
from tests.appliance import Appliance, ServerError
from tests.peers import eventually, midday
from tests.test_events import batch, page
from tests.test_usage import report

FILE = """
[[budgets]]
name = "ann-a-day"
user = "ann"
usd = 10.0
per = "day"

[[budgets]]
name = "each-session"
session = "*"
tokens = 1000
per = "session"
warn = 0.5

[[budgets]]
name = "all"
usd = 100
"""


@contextmanager
def served(folder: Path, text: str = FILE) -> Iterator[tuple[Appliance, httpx.Client]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "budgets.toml").write_text(text)
    settings = {"SESSIONS_BUDGETS": str(folder / "budgets.toml"), **midday()}
    with Appliance(folder / "store", settings) as server, httpx.Client(base_url=server.url) as http:
        yield server, http


def crossings(http: httpx.Client) -> list[tuple[str, str, str]]:
    found = page(http, type="budget_crossed")["items"]
    return [(event["data"]["name"], event["data"]["status"], event["sessionId"]) for event in found]


def standing(http: httpx.Client) -> dict[str, Any]:
    items = http.get("/api/budgets").json()["items"]
    return {item["name"]: (item["spent"], item["status"]) for item in items if item["key"] in (None, "s")}


def test_each_crossing_is_told_once_also_after_a_restart(folder: Path) -> None:
    with served(folder) as (server, http):
        assert standing(http) == {"ann-a-day": (0, "ok"), "all": (0, "ok")}, "of sessions there is none"
        batch(http, report("s", requestKey="1", costUsd=7.9, inputTokens=499))
        eventually(
            lambda: standing(http) == {"ann-a-day": (7.9, "ok"), "each-session": (499, "ok"), "all": (7.9, "ok")}
        )
        batch(http, report("s", requestKey="2", costUsd=0.2, inputTokens=1))
        eventually(lambda: sorted(crossings(http)) == [("ann-a-day", "warn", "s"), ("each-session", "warn", "s")])
        batch(http, report("s", requestKey="3", costUsd=5, inputTokens=2000))
        told = [
            ("ann-a-day", "over", "s"),
            ("ann-a-day", "warn", "s"),
            ("each-session", "over", "s"),
            ("each-session", "warn", "s"),
        ]
        eventually(lambda: sorted(crossings(http)) == told)
        server.stop()
        server.start()
        batch(http, report("other", requestKey="4", costUsd=80, userId="bob"))
        eventually(lambda: ("all", "warn", "other") in crossings(http))
        assert sorted(crossings(http)) == sorted([*told, ("all", "warn", "other")])
        assert http.get("/api/sessions/s").json()["metadata"]["status"] == "active"


def test_only_what_is_its_own_counts(folder: Path) -> None:
    with served(folder) as (_, http):
        http.put("/api/sessions/b", json={"userId": "bob"})
        batch(http, report("b", requestKey="1", costUsd=50), report("a", costUsd=1, at="2020-01-01T00:00:00Z"))
        eventually(lambda: standing(http)["all"] == (50, "ok"))
        assert standing(http)["ann-a-day"] == (0, "ok"), "another's, or of another day"
        batch(http, report("b", requestKey="2", inputTokens=9, model="model-x"))
        *_, everybody = http.get("/api/budgets").json()["items"]
        assert spent_of(everybody) == "The budget all: $50.00 of $100.00 used, and 1 request unpriced"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[budgets]", "line 1"),
        ("budgets = 3", "[[budgets]]"),
        ('[[budgets]]\nname = "a"', "usd or tokens"),
        ('[[budgets]]\nname = "a:b"\nusd = 1', "name"),
        ('[[budgets]]\nname = "a"\nusd = -1', "usd"),
        ('[[budgets]]\nname = "a"\nusd = 1\nuser = "x"\ntag = "y"', "at most one"),
        ('[[budgets]]\nname = "a"\nusd = 1\nper = "week"', "week"),
        ('[[budgets]]\nname = "a"\nusd = 1\n[[budgets]]\nname = "a"\nusd = 2', "two budgets"),
    ],
)
def test_a_bad_file_stops_the_start_and_says_what_is_wrong(folder: Path, text: str, why: str) -> None:
    with pytest.raises(ServerError) as refused, served(folder, text):
        pass
    assert "SESSIONS_BUDGETS" in str(refused.value) and why in str(refused.value)
    assert "Traceback" not in str(refused.value)
