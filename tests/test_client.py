"""A program says what it does, in whatever way it calls, and is never slowed, stopped or spoken to by being watched."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections import UserDict
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hook_agent
from hook_agent import SessionHookAgent, SyncSessionHookAgent
from tests.agents import (
    Json,
    entries_of,
    environment,
    letters_in,
    numbers_of,
    run,
    senders_in,
    spool_in,
    start,
    waiting_in,
)
from tests.appliance import REPOSITORY, Appliance
from tests.badlink import Fake
from tests.peers import eventually
from tests.repeats import examples, marked

NOWHERE = "http://127.0.0.1:9"


pytestmark = pytest.mark.usefixtures("no_sender_is_left")


@pytest.fixture
def agent(appliance: Appliance, tmp_path: Path, session_id: str) -> SessionHookAgent:
    return SessionHookAgent(f"client-{session_id}", appliance.url, "alice", spool_dir=tmp_path / "spool")


@pytest.fixture
def away(tmp_path: Path) -> SyncSessionHookAgent:
    """An agent whose store is not there: what it writes can be looked at in the spool."""
    return SessionHookAgent("away", NOWHERE, spool_dir=tmp_path / "spool").sync


def written(agent: SyncSessionHookAgent) -> list[Json]:
    return waiting_in(agent._outlet.spool)


def last(agent: SyncSessionHookAgent) -> Json:
    return written(agent)[-1]


def session_of(http: httpx.Client, session_id: str) -> Json:
    session: Json = http.get(f"/api/sessions/{session_id}").json()
    return session


# --------------------------------------------------------------- what programs do


def test_a_program_as_the_documentation_has_it(http: httpx.Client, agent: SessionHookAgent) -> None:
    async def program() -> None:
        async with agent:
            assert await agent.test_connection()
            await agent.log_action({"type": "file_write", "path": "src/server.js", "lines": 42})
            await agent.log_response({"type": "tool_result", "ok": True})
            await agent.update_state({"phase": "implementation"})
            goal = await agent.add_goal({"description": "Build REST API", "priority": "high"})
            await agent.update_goal(goal["id"], {"status": "completed"})
            worker = await agent.spawn_agent({"type": "backend-dev", "task": "Implement authentication"})
            await agent.complete_agent(worker["agentId"], result="done")
            assert await agent.flush(60)
            resumed = await agent.resume()
            assert resumed is not None and resumed["state"]["phase"] == "implementation"
            await agent.finalize({"status": "success", "outcome": "built"})
            await agent.close()

    asyncio.run(program())
    session = session_of(http, agent.session_id)
    assert session["metadata"]["status"] == "completed"
    assert session["metadata"]["userId"] == "alice"
    assert session["metadata"]["resumes"] == 0
    assert [entry["type"] for entry in session["actions"]] == ["file_write"]
    assert [entry["type"] for entry in session["responses"]] == ["tool_result"]
    assert session["state"]["phase"] == "implementation"
    assert [goal["status"] for goal in session["state"]["goals"]] == ["completed"]
    assert [worker["result"] for worker in session["state"]["agents"]["spawned"]] == ["done"]
    assert session["final"]["outcome"] == "built"


def test_the_same_without_an_event_loop(http: httpx.Client, agent: SessionHookAgent) -> None:
    with agent.sync as plain:
        assert plain.test_connection()
        plain.log_action(type="file_write", path="src/server.js")
        goal = plain.add_goal("Build REST API")
        plain.update_goal(goal["id"], status="completed")
        assert plain.flush(60)
        resumed = plain.resume()
        assert resumed is not None and len(resumed["lastActions"]) == 1
    session = session_of(http, agent.session_id)
    assert session["metadata"]["status"] == "completed"
    assert session["state"]["goals"][0]["description"] == "Build REST API"


def test_the_plain_calls_work_inside_a_loop(http: httpx.Client, agent: SessionHookAgent) -> None:
    async def program() -> bool:
        agent.sync.log_action(type="step", number=1)
        return agent.sync.flush(60)

    assert asyncio.run(program())
    assert numbers_of(http, agent.session_id) == [1]


def test_one_agent_serves_two_loops_and_threads(http: httpx.Client, agent: SessionHookAgent) -> None:
    async def program(first: int) -> None:
        for number in range(first, first + 50):
            await agent.log_action(type="step", number=number)
        assert await agent.flush(60)

    threads = [threading.Thread(target=asyncio.run, args=(program(100 * part),)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = numbers_of(http, agent.session_id)
    for part in range(4):
        ours = range(100 * part, 100 * part + 50)
        assert [number for number in numbers if number in ours] == list(ours)
    assert len(numbers) == 200
    assert session_of(http, agent.session_id)["metadata"]["resumes"] == 0


def test_a_session_is_entered_once_and_again_by_the_next_program(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    for _ in range(2):
        with SessionHookAgent("again", appliance.url, "alice", spool_dir=tmp_path / "spool").sync as agent:
            agent.log_action(type="step")
    session = session_of(http, "again")
    assert session["metadata"]["resumes"] == 1
    assert session["metadata"]["status"] == "completed"
    assert len(session["actions"]) == 2


def test_what_is_given_at_the_beginning_is_in_the_session(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    agent = SessionHookAgent(
        "told",
        appliance.url,
        "bob",
        parent_session="mother",
        tags=["a", "b"],
        initial={"input": "do it"},
        spool_dir=tmp_path,
    )
    with agent.sync:
        pass
    session = session_of(http, "told")
    assert session["metadata"]["parentSession"] == "mother"
    assert session["metadata"]["tags"] == ["a", "b"]
    assert session["initial"]["input"] == "do it"


# --------------------------------------------------------------------- the way out


@pytest.mark.parametrize(
    ("raised", "status", "outcome"),
    [
        (ValueError("no such file"), "failed", "ValueError: no such file"),
        (asyncio.CancelledError(), "cancelled", "CancelledError"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (SystemExit(0), "completed", None),
    ],
)
def test_a_session_ends_as_its_program_does(
    http: httpx.Client, agent: SessionHookAgent, raised: BaseException, status: str, outcome: str | None
) -> None:
    with pytest.raises(type(raised)) as caught, agent.sync:
        raise raised
    assert caught.value is raised
    session = session_of(http, agent.session_id)
    assert (session["metadata"]["status"], session["final"]["outcome"]) == (status, outcome)


def test_a_task_that_is_cancelled_ends_its_session_as_cancelled(http: httpx.Client, agent: SessionHookAgent) -> None:
    async def work(begun: asyncio.Event) -> None:
        async with agent:
            begun.set()
            await asyncio.sleep(60)

    async def program() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(work(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    assert session_of(http, agent.session_id)["metadata"]["status"] == "cancelled"


def test_a_session_is_not_ended_twice(http: httpx.Client, agent: SessionHookAgent) -> None:
    with agent.sync as plain:
        plain.finalize(status="failed", outcome="as it was")
    events = http.get(f"/api/sessions/{agent.session_id}/events").json()["items"]
    assert [event["type"] for event in events] == ["session_created", "session_finalized"]
    assert session_of(http, agent.session_id)["final"]["outcome"] == "as it was"


def test_an_agent_may_be_used_again_after_it_was_closed(http: httpx.Client, agent: SessionHookAgent) -> None:
    with agent.sync:
        pass
    agent.sync.close()
    agent.sync.close()
    with agent.sync as again:
        again.log_action(type="step", number=1)
    assert numbers_of(http, agent.session_id) == [1]
    assert session_of(http, agent.session_id)["metadata"]["resumes"] == 1


EXIT = """
import sys, hook_agent
agent = hook_agent.SessionHookAgent("exits").sync
for number in range(20):
    agent.log_action(type="step", number=number)
"""


def test_a_program_that_ends_with_its_last_call_has_delivered(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    env = environment(tmp_path, appliance.url)
    run(EXIT, env)
    assert numbers_of(http, "exits") == list(range(20))
    assert list(senders_in(tmp_path)) == []


def test_a_program_that_ends_without_its_store_leaves_a_sender(tmp_path: Path, folder: Path) -> None:
    appliance = Appliance(folder)
    run(EXIT, environment(tmp_path, appliance.url))
    spool = spool_in(tmp_path, appliance.url)
    assert len(waiting_in(spool)) == 21
    assert spool.who_delivers() is not None
    with appliance, httpx.Client(base_url=appliance.url) as http:
        eventually(lambda: numbers_of(http, "exits") == list(range(20)), within=40)


def test_what_is_said_while_the_interpreter_leaves_arrives(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    late = """
import atexit
@atexit.register
def last_words():
    agent.log_action(type="step", number=2)
import hook_agent
agent = hook_agent.SessionHookAgent("leaves").sync
agent.log_action(type="step", number=1)
"""
    run(late, environment(tmp_path, appliance.url))
    eventually(lambda: numbers_of(http, "leaves") == [1, 2])


def test_a_forked_child_speaks_for_itself(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    forks = """
import os, hook_agent
agent = hook_agent.SessionHookAgent("forks").sync
agent.log_action(type="step", number=0)
for number in range(1, 6):
    child = os.fork()
    if not child:
        agent.log_action(type="step", number=number)
        os._exit(0 if agent.flush(60) else 1)
    assert os.waitpid(child, 0)[1] == 0
agent.log_action(type="step", number=6)
assert agent.flush(60)
"""
    run(forks, environment(tmp_path, appliance.url))
    assert numbers_of(http, "forks") == list(range(7))


def test_a_child_that_outlives_its_parent_delivers(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    forks = """
import os, sys, time, hook_agent
agent = hook_agent.SessionHookAgent("orphan").sync
agent.log_action(type="step", number=0)
parent = os.getpid()
if not os.fork():
    while os.getppid() == parent:
        time.sleep(0.01)
    agent.log_action(type="step", number=1)
    os._exit(0 if agent.flush(60) else 1)
"""
    run(forks, environment(tmp_path, appliance.url))
    eventually(lambda: numbers_of(http, "orphan") == [0, 1])


def test_processes_of_a_pool_speak_as_well(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    pool = """
import multiprocessing, hook_agent
agent = hook_agent.SessionHookAgent("pool").sync
def work(number):
    agent.log_action(type="step", number=number)
if __name__ == "__main__":
    agent.log_action(type="step", number=0)
    workers = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert agent.flush(60)
"""
    run(pool, environment(tmp_path, appliance.url))
    eventually(lambda: sorted(numbers_of(http, "pool")) == list(range(5)))


def test_a_program_that_is_killed_has_lost_nothing(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE)
    program = start(EXIT + "print(1, flush=True); import time; time.sleep(60)", env)
    assert program.stdout is not None and program.stdout.readline() == b"1\n"
    program.kill()
    program.communicate()
    assert [event["data"].get("number") for event in waiting_in(spool_in(tmp_path, NOWHERE))] == [None, *range(20)]


# ------------------------------------------------------------- never in the way


def test_importing_fixes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_ID", "set-later")
    monkeypatch.setenv("SESSION_SERVICE_URL", NOWHERE)
    monkeypatch.setenv("SESSION_USER_ID", "carol")
    late = SessionHookAgent()
    assert (late.session_id, late.service_url, late.user_id) == ("set-later", NOWHERE, "carol")
    monkeypatch.setenv("SESSION_ID", "too-late")
    assert late.session_id == "set-later"
    assert isinstance(hook_agent.hook_agent, SessionHookAgent)
    assert hook_agent.hook_agent.sync._who is None


def test_a_session_without_a_name_gets_one_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_ID", raising=False)
    first, second = SessionHookAgent(), SessionHookAgent()
    assert hook_agent._is_id(first.session_id)
    assert first.session_id == first.session_id != second.session_id


@pytest.mark.parametrize(
    ("given", "becomes"),
    [("my session", "my-session"), ("../../etc", "etc"), ("a" * 200, "a" * 128), ("ä", "session"), ("ok.1", "ok.1")],
)
def test_a_name_that_the_store_does_not_take_becomes_one_that_it_does(given: str, becomes: str) -> None:
    assert SessionHookAgent(given).session_id == becomes


def test_without_a_store_every_call_returns_at_once_and_true(tmp_path: Path) -> None:
    async def program() -> None:
        async with SessionHookAgent("away", NOWHERE, spool_dir=tmp_path) as agent:
            assert not await agent.test_connection()
            assert await agent.resume() is None
            assert (await agent.log_action({"type": "step"}))["success"] is True
            assert not await agent.flush(0.05)

    asyncio.run(program())


def test_a_hanging_store_is_known_after_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_agent, "_TEST_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        agent = SessionHookAgent("x", f"http://127.0.0.1:{silent.getsockname()[1]}", spool_dir=tmp_path)
        assert not agent.sync.test_connection()
        assert not asyncio.run(agent.test_connection())
        assert agent.sync.resume() is None


def test_a_store_that_is_not_well_is_no_connection(tmp_path: Path) -> None:
    with Fake(lambda posted: posted.answer(500)) as store:
        agent = SessionHookAgent("x", store.url, spool_dir=tmp_path)
        assert not agent.sync.test_connection()
        assert not asyncio.run(agent.test_connection())


def test_what_no_spool_takes_is_delivered_from_memory(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = environment(tmp_path, appliance.url, SESSION_SPOOL_DIR=str(tmp_path / "file"), TMPDIR=str(tmp_path / "file"))
    run(EXIT, env)
    assert numbers_of(http, "exits")[-20:] == list(range(20))


def test_a_disk_that_was_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    full = """
import resource, sys, hook_agent
agent = hook_agent.SessionHookAgent("full").sync
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for number in range(50):
    assert agent.log_action(type="step", number=number)["success"]
print(len(agent._outlet.memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""
    kept = run(full, environment(tmp_path, NOWHERE))
    assert int(kept) > 0
    events = waiting_in(spool_in(tmp_path, NOWHERE))
    assert [event["data"].get("number") for event in events] == [None, *range(50)]


def test_what_memory_cannot_hold_is_counted(tmp_path: Path) -> None:
    full = """
import resource, hook_agent
hook_agent._MEMORY_BYTES = 2000
agent = hook_agent.SessionHookAgent("full").sync
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for number in range(50):
    agent.log_action(type="step", number=number)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""
    run(full, environment(tmp_path, NOWHERE))
    spool = spool_in(tmp_path, NOWHERE)
    events = waiting_in(spool)
    assert 0 < spool.dropped_so_far()["full"]["count"] == 51 - len(events)


# ------------------------------------------------------------------ shapes of calls

Call = Callable[[SyncSessionHookAgent], Json]


@pytest.mark.parametrize(
    ("call", "event_type", "data"),
    [
        (lambda a: a.log_action({"type": "x", "n": 1}), "action", {"type": "x", "n": 1}),
        (lambda a: a.log_action(type="x", n=1), "action", {"type": "x", "n": 1}),
        (lambda a: a.log_action({"type": "x"}, n=1), "action", {"type": "x", "n": 1}),
        (lambda a: a.log_action("x", n=1), "action", {"type": "x", "n": 1}),
        (lambda a: a.log_action(), "action", {}),
        (lambda a: a.log_action({"n": 1}), "action", {"n": 1}),
        (lambda a: a.log_action(17), "action", {"type": 17}),
        (lambda a: a.log_response({"type": "y"}), "response", {"type": "y"}),
        (lambda a: a.update_state({"phase": "p"}), "state_updated", {"phase": "p"}),
        (lambda a: a.update_state(phase="p"), "state_updated", {"phase": "p"}),
        (lambda a: a.update_state("p"), "state_updated", {"phase": "p"}),
        (lambda a: a.update_metadata({"a.b": "+1"}), "metadata_updated", {"a.b": "+1"}),
        (lambda a: a.update_goal("g", {"status": "completed"}), "goal_updated", {"status": "completed", "goalId": "g"}),
        (lambda a: a.update_goal("g", status="completed"), "goal_updated", {"status": "completed", "goalId": "g"}),
        (lambda a: a.update_goal("g", "completed"), "goal_updated", {"status": "completed", "goalId": "g"}),
        (lambda a: a.update_goal({"id": "g"}, "completed"), "goal_updated", {"status": "completed", "goalId": "g"}),
        (lambda a: a.update_agent("w", status="running"), "agent_updated", {"status": "running", "agentId": "w"}),
        (
            lambda a: a.complete_agent("w", result="done"),
            "agent_completed",
            {"result": "done", "agentId": "w", "status": "completed"},
        ),
        (
            lambda a: a.complete_agent("w", {"result": [1], "status": "error"}),
            "agent_completed",
            {"result": [1], "status": "error", "agentId": "w"},
        ),
        (
            lambda a: a.complete_agent({"agentId": "w"}, "done"),
            "agent_completed",
            {"result": "done", "agentId": "w", "status": "completed"},
        ),
        (lambda a: a.finalize(), "session_finalized", {"status": "success"}),
        (lambda a: a.finalize({"status": "failed"}), "session_finalized", {"status": "failed"}),
        (
            lambda a: a.finalize(status="cancelled", exitCode=3),
            "session_finalized",
            {"status": "cancelled", "exitCode": 3},
        ),
        (
            lambda a: a.finalize_session({"status": "completed"}),
            "session_finalized",
            {"status": "completed"},
        ),
        (
            lambda a: a.finalize("timeout"),
            "session_finalized",
            {"status": "timeout"},
        ),
    ],
)
def test_a_call_takes_what_is_meant(away: SyncSessionHookAgent, call: Call, event_type: str, data: Json) -> None:
    answer = call(away)
    event = last(away)
    assert (event["type"], event["data"]) == (event_type, data)
    assert answer["success"] is True
    assert answer["eventId"] == event["eventId"]


def test_goals_and_agents_get_ids_that_nobody_else_has(away: SyncSessionHookAgent) -> None:
    goals = [away.add_goal({"description": "Build", "priority": "high"}) for _ in range(2)]
    assert len({goal["id"] for goal in goals}) == 2
    assert goals[0]["goal"]["id"] == goals[0]["id"]
    assert (goals[0]["description"], goals[0]["priority"], goals[0]["status"]) == ("Build", "high", "pending")
    assert away.add_goal(id="mine", description="x")["id"] == "mine"
    assert away.spawn_agent("dev", task="t")["agentId"] != away.spawn_agent({"type": "dev"})["agentId"]
    assert away.spawn_agent({"type": "dev", "agentId": "mine"})["agentId"] == "mine"
    assert last(away)["data"] == {"type": "dev", "agentId": "mine"}


def test_an_event_id_and_a_time_of_the_callers_own_are_kept(away: SyncSessionHookAgent) -> None:
    away.log_action({"type": "x", "eventId": "my-id", "timestamp": "2026-01-02T03:04:05+01:00"})
    event = last(away)
    assert (event["eventId"], event["timestamp"]) == ("my-id", "2026-01-02T03:04:05+01:00")
    assert event["data"] == {"type": "x", "timestamp": "2026-01-02T03:04:05+01:00"}
    away.log_action({"type": "x", "eventId": "no id", "timestamp": 1767323045.5})
    event = last(away)
    assert hook_agent._is_id(event["eventId"]) and event["timestamp"].endswith("Z")
    assert event["data"] == {"type": "x", "timestamp": 1767323045.5}


class Weird:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Colour(StrEnum):
    RED = "red"


def test_what_json_cannot_hold_is_held_all_the_same(http: httpx.Client, agent: SessionHookAgent) -> None:
    endless: list[object] = []
    endless += [endless, endless]
    deep: object = "bottom"
    for _ in range(200):
        deep = [deep]
    values = {
        "nan": float("nan"),
        "infinity": float("-inf"),
        "big": 2**63,
        "least": -(2**63),
        "huge": 10**5000,
        "half": "a\ud800b",
        "pair": "\ud83d\ude00",
        "bytes": b"caf\xc3\xa9 \xff",
        "set": {1},
        "tuple": (1, "2"),
        "colour": Colour.RED,
        "path": Path("/a"),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "weird": Weird(),
        "endless": endless,
        "deep": deep,
        3: "number",
        None: "none",
        ("a", "b"): "tuple",
        "control": "\x00\x1b[0m\u2028",
    }
    agent.sync.log_action(type="odd", values=values)
    assert agent.sync.flush(60)
    (entry,) = entries_of(http, agent.session_id)
    found = entry["values"]
    expected = {
        "nan": None,
        "infinity": None,
        "big": "9223372036854775808",
        "least": -(2**63),
        "huge": "<int>",
        "half": "a\ufffdb",
        "pair": "\U0001f600",
        "bytes": "caf\u00e9 \ufffd",
        "set": [1],
        "tuple": [1, "2"],
        "colour": "red",
        "path": "/a",
        "time": "2026-01-02 00:00:00+00:00",
        "weird": "<Weird>",
        "3": "number",
        "None": "none",
        "('a', 'b')": "tuple",
        "control": "\x00\x1b[0m\u2028",
    }
    assert {name: found[name] for name in expected} == expected
    assert "bottom" not in json.dumps(found["deep"])


def test_an_event_that_is_too_large_is_cut_and_says_so(http: httpx.Client, agent: SessionHookAgent) -> None:
    plain = agent.sync
    plain.log_action(type="large", output="x" * 3_000_000, path="src/server.js", note="é" * 900_000)
    plain.log_action(type="many", items=[{"n": number, "text": "abc"} for number in range(150_000)], path="kept")
    plain.log_action(type="step", number=1)
    assert plain.flush(60)
    large, many, step = entries_of(http, agent.session_id)
    assert large["path"] == "src/server.js"
    assert large["output"].startswith("xxx") and large["output"].endswith("…")
    assert large["truncated"]["bytes"] > 3_000_000
    assert len(large["truncated"]["sha256"]) == 64
    assert (many["type"], many["path"]) == ("many", "kept")
    assert many["truncated"]["bytes"] > 1 << 20
    assert step["number"] == 1
    assert letters_in(plain._outlet.spool) == []


def test_an_event_that_fits_is_not_touched(away: SyncSessionHookAgent) -> None:
    away.log_action(type="large", output="x" * 1_000_000)
    assert last(away)["data"] == {"type": "large", "output": "x" * 1_000_000}


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEANINGFUL = """type status agentId description priority id goalId task result parentAgentId subsession exitCode outcome
timestamp eventId sessionId seq cursor initial tags metadata attention other"""
members = st.dictionaries(
    st.sampled_from(MEANINGFUL.split()) | st.text(max_size=5),
    json_like,
    max_size=5,
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(members | json_like, min_size=1, max_size=8))
def test_whatever_is_given_the_store_takes_it(
    http: httpx.Client, appliance: Appliance, tmp_path_factory: pytest.TempPathFactory, given: list[Any]
) -> None:
    """Nothing raises, nothing is refused: each call is one event in the store."""
    folder = tmp_path_factory.mktemp("any")
    plain = SessionHookAgent(None, appliance.url, spool_dir=folder).sync
    calls: list[Callable[[Any], Json]] = [
        plain.log_action,
        plain.log_response,
        plain.update_state,
        plain.add_goal,
        lambda value: plain.update_goal(value, value),
        plain.spawn_agent,
        lambda value: plain.update_agent(value, value),
        lambda value: plain.complete_agent(value, value),
        plain.finalize,
    ]
    event_ids = [call(value)["eventId"] for value in given for call in calls]
    assert plain.flush(60)
    assert letters_in(plain._outlet.spool) == []
    items = http.get(f"/api/sessions/{plain.session_id}/events?limit=1000").json()["items"]
    assert set(event_ids) <= {event["eventId"] for event in items}
    plain._outlet.sender.resign()


class Hostile(dict[str, object]):
    """A dict that is none of the ordinary ones."""

    def keys(self) -> Any:
        raise RuntimeError("no")

    items = __iter__ = keys


def test_a_class_that_raises_costs_only_itself(away: SyncSessionHookAgent) -> None:
    for call in (away.log_action, away.add_goal, away.spawn_agent, away.finalize, away.update_state):
        assert call(Hostile(type="x"))["success"] is True
    away.log_action(type="x", part=Hostile(a=1), other=1)
    assert last(away)["data"] == {"type": "x", "part": "<Hostile>", "other": 1}


def test_a_mapping_that_is_no_dict_is_not_lost(away: SyncSessionHookAgent) -> None:
    away.log_action(UserDict({"type": "x"}))
    assert "x" in json.dumps(last(away)["data"])


def test_the_ways_of_record_are_the_same_for_all(away: SyncSessionHookAgent) -> None:
    """What the other parts of the client build on."""
    event = away._record("response", {"type": "x"}, agent_id="w", timestamp="2026-01-01T00:00:00.000Z")
    assert event == last(away)
    assert (event["agentId"], event["timestamp"]) == ("w", "2026-01-01T00:00:00.000Z")
    assert [written_one["type"] for written_one in written(away)] == ["session_created", "response"]


# ------------------------------------------------------------ each Python that there is

ROUND = """
import os, sys, json, asyncio, subprocess
import hook_agent
async def program():
    async with hook_agent.SessionHookAgent("round-" + sys.argv[1]) as agent:
        await agent.log_action(type="step", number=1)
        await agent.complete_agent((await agent.spawn_agent("dev"))["agentId"], "done")
        assert await agent.test_connection()
        assert await agent.flush(60)
asyncio.run(program())
payload = json.dumps({"session_id": "x", "hook_event_name": "Stop", "last_assistant_message": "done"})
code = "import sys; sys.path.append(%r); import hook_agent; hook_agent.hook()" % os.path.dirname(hook_agent.__file__)
env = {**os.environ, "SESSION_ID": "round-" + sys.argv[1]}
ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], input=payload.encode(), env=env, stdout=-1, stderr=-1)
assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b""), ran
run = [sys.executable, hook_agent.__file__, "run", "--output-lines", "1", "--", "echo", "said"]
ran = subprocess.run(run, env={**os.environ, "SESSION_ID": "run-" + sys.argv[1]}, stdout=-1, stderr=-1)
assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"said\\n", b""), ran
ran = subprocess.run([sys.executable, hook_agent.__file__, "flush", "--timeout", "20"], stdout=-1, stderr=-1)
assert (ran.returncode, ran.stderr) == (0, b""), ran
"""
COPIED = [Path(hook_agent.__file__), *sorted((REPOSITORY / "containers").glob("hook_agent_*.py"))]


def pythons() -> dict[str, str]:
    """Every Python that the file is meant for and that this machine has: that of the tests at least."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    folders = [*os.environ["PATH"].split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for minor in range(9, 15):
        for folder in folders:
            path = Path(folder, f"python3.{minor}")
            if "shims" not in folder and path.exists():
                found.setdefault(f"3.{minor}", str(path))
    return found


@pytest.mark.parametrize("file", COPIED, ids=lambda file: file.name)
def test_it_is_written_in_the_oldest_python_that_it_is_for(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))


@pytest.mark.skipif("CI" not in os.environ, reason="3.9 need not be on each machine")
def test_the_oldest_python_is_among_those_it_is_tried_on() -> None:
    assert "3.9" in pythons()


@pytest.mark.parametrize("version", marked(sorted(pythons()), long=["3.10", "3.11", "3.12"]))
def test_it_runs_on(appliance: Appliance, http: httpx.Client, tmp_path: Path, version: str) -> None:
    env = environment(tmp_path, appliance.url) | {"PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [pythons()[version], "-W", "error", "-c", ROUND, version], env=env, capture_output=True, text=True, timeout=60
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    session = f"round-{version}"
    eventually(lambda: len(session_of(http, session)["responses"]) == 1)
    found = session_of(http, session)
    assert [entry["number"] for entry in found["actions"]] == [1]
    assert found["responses"][0]["type"] == "assistant_message"
    final = session_of(http, f"run-{version}")["final"]
    assert (final["status"], final["finalResponse"]) == ("success", "said")
