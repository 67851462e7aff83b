"""Rules and budgets that hold agents up: they are asked about, paused or stopped, if their side takes orders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sessionstore.breaker_rules import rules
from tests.appliance import Appliance, ServerError
from tests.peers import eventually
from tests.test_access import bearer
from tests.test_control import Json, Side, fate, numbers
from tests.test_events import batch
from tests.test_usage import report

RULES = """
[[rules]]
name = "circles"
sameCallTimes = 3
user = "in-circles"

[[rules]]
name = "breaks"
errorRate = 0.5
ofCalls = 4
then = "pause"

[[rules]]
name = "stands-still"
noProgressMinutes = 0.01
project = "still"
then = "stop"
"""
BUDGETS = """
[[budgets]]
name = "rich"
user = "rich"
usd = 1
then = "ask"

[[budgets]]
name = "each"
session = "*"
tokens = 1000
per = "session"
then = "stop"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("breaker")
    (folder / "rules.toml").write_text(RULES)
    (folder / "budgets.toml").write_text(BUDGETS)
    files = {"SESSIONS_RULES": str(folder / "rules.toml"), "SESSIONS_BUDGETS": str(folder / "budgets.toml")}
    with Appliance(folder / "store", files) as appliance:
        yield appliance


@pytest.fixture
def http(server: Appliance) -> Iterator[httpx.Client]:
    token = (server.folder / "tokens" / "control").read_text().strip()
    with httpx.Client(base_url=server.url, headers=bearer(token)) as client:
        yield client


def begun(http: httpx.Client, user: str = "ann", project: str = "web") -> Side:
    """A session whose agent takes orders."""
    agent = Side(http, f"b{next(numbers)}")
    http.put(f"/api/sessions/{agent.session}", json={"userId": user, "metadata": {"project": project}})
    agent.poll()
    return agent


def orders(agent: Side) -> list[tuple[str, str]]:
    items = agent.http.get(f"/api/sessions/{agent.session}/orders").json()["items"]
    return [(item["order"], item["by"]) for item in reversed(items)]


def call(agent: Side, command: str) -> None:
    agent.act("tool_call", tool="Bash", input={"command": command})


def test_who_goes_in_circles_waits_until_a_person_allows_it(http: httpx.Client) -> None:
    agent, other = begun(http, "in-circles"), begun(http, "another")
    for command in ("a", "a", "b", "b", "b", "b"):
        call(agent, command)
        call(other, command)
    eventually(lambda: agent.asks(sessionId=agent.session))
    (ask,) = agent.asks(sessionId=agent.session)
    assert (ask["kind"], ask["canAnswer"], agent.status()) == ("budget", True, "waiting")
    assert ask["text"] == "The rule circles: Bash was called the same way 3 times in a row"
    assert orders(agent) == [("pause", "rule:circles")], "one, as long as it is open"
    assert orders(other) == []
    (pause,) = agent.poll(at="t")
    assert (pause["order"], pause["id"]) == ("pause", ask["askId"])
    agent.respond("assistant_message", message="I wait")
    agent.act("prompt", prompt="Go on")
    assert agent.status() == "waiting", "none of these is an answer to that"
    with agent.waiting(at="t", done=[pause["id"]]) as items:
        assert agent.answer(ask["askId"]).status_code == 200
    assert [(item["order"], item["by"]) for item in items] == [("release", "control")]
    assert agent.status() == "active"
    assert agent.asks(askId=ask["askId"])[0]["answer"]["by"] == "control"
    for _ in range(3):
        call(agent, "c")
    eventually(lambda: len(agent.asks(sessionId=agent.session)) == 1)


def test_who_may_not_go_on_is_stopped(http: httpx.Client) -> None:
    agent = begun(http, "in-circles")
    for _ in range(3):
        call(agent, "a")
    eventually(lambda: agent.asks(sessionId=agent.session))
    (ask,) = agent.asks(sessionId=agent.session)
    assert agent.answer(ask["askId"], "answer", message="Maybe").status_code == 422
    assert agent.answer(ask["askId"], "deny", message="You go in circles").status_code == 200
    assert orders(agent) == [("pause", "rule:circles"), ("stop", "control")]
    assert agent.poll(agentId="a1")[1]["text"] == "You go in circles"
    assert agent.status() == "active", "it has its answer"


def test_calls_that_fail_and_silence_hold_an_agent_up(http: httpx.Client) -> None:
    failing, still, away = begun(http), begun(http, project="still"), begun(http)
    for kind in ("tool_error", "tool_result", "tool_result", "tool_result", "tool_error"):
        failing.respond(kind, tool="Bash")  # one of any four has failed
    assert orders(failing) == []
    failing.respond("tool_error", tool="Bash")
    eventually(lambda: orders(failing) == [("pause", "rule:breaks")])
    eventually(lambda: orders(still) == [("stop", "rule:stands-still")])
    assert orders(away) == []
    assert fate(still, still)[0][:2] == ("stop", "waiting")
    assert still.poll()[0]["text"] == "The rule stands-still: nothing was heard of it for 0.01 minutes"


def test_a_budget_asks_about_whose_it_is_and_stops_who_has_used_it(http: httpx.Client) -> None:
    first, second, poor = begun(http, "rich"), begun(http, "rich"), begun(http, "poor")
    batch(http, report(first.session, costUsd=1.5, requestKey=first.session))
    batch(http, report(poor.session, inputTokens=2000, requestKey=poor.session))
    for agent in (first, second):
        eventually(lambda: agent.asks(sessionId=agent.session))  # noqa: B023
    asks = [agent.asks(sessionId=agent.session)[0] for agent in (first, second)]
    assert asks[0]["text"] == asks[1]["text"] == "The budget rich: $1.50 of $1.00 used"
    eventually(lambda: orders(poor) == [("stop", "budget:each")])
    assert first.answer(asks[0]["askId"]).status_code == 200
    assert (first.status(), second.status()) == ("active", "waiting")
    body: Json = {"order": "release", "orderId": asks[1]["askId"]}
    assert http.post("/api/orders", json=body).json()["ordered"] == 1
    assert second.status() == "active", "whoever frees it has answered"
    assert second.asks(askId=asks[1]["askId"])[0]["status"] == "closed"
    batch(http, report(first.session, costUsd=1.5, requestKey=f"{first.session}-2"))
    third = begun(http, "rich")
    batch(http, report(third.session, costUsd=0.5, requestKey=third.session))
    eventually(lambda: orders(third) == [("pause", "budget:rich")])
    assert orders(first) == [("pause", "budget:rich"), ("release", "control")], "once a period"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rules = 3", "[[rules]]"),
        ('[[rules]]\nname = "a"', "one of them"),
        ('[[rules]]\nname = "a"\nsameCallTimes = 2\nerrorRate = 0.1', "one of them"),
        ('[[rules]]\nname = "a"\nsameCallTimes = 1', "sameCallTimes"),
        ('[[rules]]\nname = "a"\nerrorRate = 2', "errorRate"),
        ('[[rules]]\nname = "a"\nerrorRate = 0.5\nthen = "kill"', "then"),
        ('[[rules]]\nname = "rule:a"\nerrorRate = 0.5', "name"),
    ],
)
def test_bad_rules_are_refused_with_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(why)):
        rules(str(tmp_path / "rules.toml"))


def test_a_bad_file_of_rules_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("[[rules]]")
    with pytest.raises(ServerError) as refused, Appliance(tmp_path, {"SESSIONS_RULES": str(tmp_path / "rules.toml")}):
        pass
    assert "SESSIONS_RULES" in str(refused.value) and "Traceback" not in str(refused.value)
