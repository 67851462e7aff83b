"""`python -m export reprice`: costs made anew by other prices, as new events, with a server and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.admin.reprice import tables
from tests.appliance import Appliance
from tests.commands import export, is_done
from tests.test_events import batch, events_of
from tests.test_usage import SONNET, metadata_of, report

CHEAP = '{"model-x": {"input": 1, "output": 4}}'
PRICES = '{"model-x": {"input": 2, "output": 4}, "model-y": {"input": 1, "output": 1}}'
DEARER = '{"model-x": {"input": 3, "output": 4}, "model-y": {"input": 1, "output": 1}}'


def costs(http: httpx.Client) -> Any:
    metadata = metadata_of(http, "s")
    return metadata["cost"]["usd"], metadata["cost"]["unpricedRequests"], metadata["tokenUsage"]["total"]


def test_only_what_costs_something_else_is_told_and_once(folder: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(CHEAP)
    settings = {"SESSIONS_PRICES": str(prices)}
    with Appliance(folder, settings) as server, httpx.Client(base_url=server.url) as http:
        used: dict[str, Any] = {"inputTokens": 100_000, "source": "transcript"}
        batch(
            http,
            report("s", requestKey="known", model=SONNET, agentId="w", **used),
            report("s", requestKey="new", model="model-x", promptId="p", **used),
            report("s", requestKey="said", model="model-x", costUsd=7, **used),
            report("s", requestKey="unknown", model="model-y", **used),
        )
        assert costs(http) == (0.3 + 0.1 + 7, 1, 400_000)

        def reprice(text: str) -> list[str]:
            prices.write_text(text)
            done = export(folder, "reprice", "--url", server.url, **settings)
            is_done(done)
            return done.stdout.splitlines()

        server.stop()
        assert reprice(PRICES) == [
            "model-x: 1 requests, $0.1000 -> $0.2000",
            "model-y: 1 requests, $0.0000 -> $0.1000",
            f"2 of 3 requests cost something else by {tables()}",
        ]
        server.start()
        assert costs(http) == (pytest.approx(0.3 + 0.2 + 7 + 0.1), 0, 400_000)
        told = next(event["data"] for event in events_of(http, "s") if event["data"].get("costUsd") == 0.2)
        assert (told["costFrom"], told["requestKey"], told["promptId"]) == ("own", "new", "p")
        before = len(events_of(http, "s"))
        assert reprice(PRICES)[-1].startswith("0 of 3 ")
        assert len(events_of(http, "s")) == before, "a second time there is nothing to say"
        assert reprice(DEARER)[0] == "model-x: 1 requests, $0.2000 -> $0.3000"
        assert reprice(CHEAP)[-2] == "model-y: 1 requests that nobody can price"
        assert costs(http) == (0.3 + 0.1 + 7, 1, 400_000), "there and back again"
