"""A LangGraph run that OpenInference or OpenLLMetry watches: one session, and the tokens that the handler counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.test_events import events_of
from tests.test_telemetry import metric, metrics, post, span, spans
from tests.test_usage import usage_of

TOKENS = ("inputTokens", "outputTokens", "cacheReadTokens")
USED = {"inputTokens": 40 + 40 + 30, "outputTokens": 7 + 5 + 3, "cacheReadTokens": 60 + 100}


def run(appliance: Appliance, tmp_path: Path, session: str, *watchers: str) -> None:
    told = {
        "SESSION_ID": session,
        "SESSION_SERVICE_URL": appliance.url,
        "SESSION_SPOOL_DIR": str(tmp_path / "spool"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": appliance.url,
        "OTEL_RESOURCE_ATTRIBUTES": f"session_id={session},user_id=ann",
    }
    command = [sys.executable, "-m", "tests.traced_graph", *watchers]
    done = subprocess.run(
        command, env=os.environ | told, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("watcher", ["openinference", "openllmetry"])
def test_a_graph_that_is_watched_twice_is_one_session_and_counted_once(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, watcher: str
) -> None:
    run(appliance, tmp_path, watcher, watcher, "handler")
    told: dict[str, Counter[str]] = {}
    for event in events_of(http, watcher, type="usage_reported"):
        report = event["data"]
        told.setdefault(report["source"], Counter()).update({name: report.get(name, 0) for name in TOKENS})
    assert told == {"langchain": USED, "otlp_spans": USED}, "each tells of all"
    total = usage_of(http, watcher)["total"]
    assert total["requests"] == 3
    assert {name: total[name] for name in TOKENS} == USED
    names = {agent["type"] for agent in http.get(f"/api/state/{watcher}").json()["agents"]["spawned"]}
    assert names >= {"ask", "tools", "writer", "team"}, "of both"


def test_spans_alone_are_counted_also_where_each_comes_by_itself(http: httpx.Client) -> None:
    """An exporter sends what is over: what a span is in may come later, or never."""
    used = {"gen_ai__operation__name": "chat", "gen_ai__usage__input_tokens": 9, "gen_ai__usage__output_tokens": 1}
    agent = span(1, "run", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="a")
    trace = "ab" * 16
    for one in (span(2, "chat", 1, **used), span(3, "chat", 99, **used), agent):
        body = spans(one, session_id="apart")
        body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] = trace
        assert post(http, "traces", body).status_code == 200
    said = {"session.id": "apart", "gen_ai.request.model": "m", "gen_ai.token.type": "input"}
    counted = metric("gen_ai.client.token.usage", 1, (said, 18, 1))
    assert post(http, "metrics", metrics(counted)).status_code == 200
    assert usage_of(http, "apart")["total"]["totalTokens"] == 20
