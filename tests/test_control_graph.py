"""`langchain_handler(control=True)`: real graphs stop, pause and go on as people order, and interrupts are answered."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from hook_agent import SessionHookAgent
from tests.agents import SECONDS
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually
from tests.repeats import LONG
from tests.steered import Person, person

Json = dict[str, Any]


class State(TypedDict):
    said: Annotated[list[str], operator.add]


class Run:
    """A session in which a graph runs on a thread of its own, until what a test does has ended it."""

    def __init__(self, agent: SessionHookAgent, alice: Person) -> None:
        self.agent, self.alice = agent, alice
        self.handler = agent.langchain_handler(control=True)
        self.result: Any = None
        self.config: Json = {"configurable": {"thread_id": "1"}}

    def start(self, graph: Any, given: Any) -> threading.Thread:
        def run() -> None:
            try:
                self.result = self.handler.invoke(graph, given, self.config)
            except BaseException as error:
                self.result = error

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def order(self, order: str, **more: Any) -> str:
        eventually(lambda: self.alice.is_reachable(self.agent.session_id), SECONDS)
        return self.alice.order(self.agent.session_id, order, **more)


@pytest.fixture(scope="module")
def alice(appliance: Appliance) -> Iterator[Person]:
    with person(appliance) as one:
        yield one


@pytest.fixture
def run(appliance: Appliance, alice: Person, tmp_path: Path, session_id: str) -> Run:
    return Run(SessionHookAgent(f"graph-{session_id}", appliance.url, spool_dir=str(tmp_path / "spool")), alice)


def asking(*names: str) -> Any:
    """Nodes that each ask a person, all in one step."""
    builder = StateGraph(State)

    def node(name: str) -> Any:
        return lambda state: {"said": [f"{name}: {interrupt({'question': f'{name}?'})}"]}

    for name in names:
        builder.add_node(name, node(name))
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder.compile(checkpointer=InMemorySaver())


def steps(go: threading.Event, ran: list[str]) -> Any:
    """Two nodes after one another, of which the first waits for `go`."""
    builder = StateGraph(State)

    def first(state: State) -> Json:
        ran.append("first")
        go.wait(SECONDS)
        return {"said": ["first"]}

    def second(state: State) -> Json:
        ran.append("second")
        return {"said": ["second"]}

    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=InMemorySaver())


def test_of_two_interrupts_in_one_step_each_is_answered_by_itself(run: Run) -> None:
    session = run.agent.session_id
    thread = run.start(asking("left", "right"), {"said": []})
    asks = {ask["text"]: ask for ask in run.alice.asked(session, number=2)}
    assert {ask["kind"] for ask in asks.values()} == {"interrupt"}
    run.alice.answer(asks["right?"], "answer", answers="to the right")
    (left,) = run.alice.asked(session)
    assert (left["askId"], thread.is_alive()) == (asks["left?"]["askId"], True)
    run.alice.answer(left, "allow")
    thread.join(SECONDS)
    assert sorted(run.result["said"]) == ["left: True", "right: to the right"]
    assert run.alice.asks(session) == []


def test_a_coroutine_is_answered_too(run: Run) -> None:
    graph = asking("left")

    async def answered() -> Any:
        running = asyncio.create_task(run.handler.ainvoke(graph, {"said": []}, run.config))
        (ask,) = await asyncio.to_thread(run.alice.asked, run.agent.session_id)
        await asyncio.to_thread(run.alice.answer, ask, "deny")
        return await running

    assert asyncio.run(answered())["said"] == ["left: False"]


def test_a_graph_that_is_told_to_stop_ends_after_its_step_and_goes_on_where_it_was(run: Run) -> None:
    go, ran = threading.Event(), list[str]()
    graph = steps(go, ran)
    thread = run.start(graph, {"said": []})
    order = run.order("stop", text="It burns money")
    run.alice.is_delivered(run.agent.session_id, order)
    go.set()
    thread.join(SECONDS)
    assert isinstance(run.result, GraphDrained) and "It burns money" in str(run.result)
    assert ran == ["first"]
    assert run.handler.invoke(graph, None, run.config)["said"] == ["first", "second"]
    assert ran == ["first", "second"]


def test_a_paused_graph_goes_on_once_it_is_released(run: Run) -> None:
    go, ran = threading.Event(), list[str]()
    thread = run.start(steps(go, ran), {"said": []})
    pause = run.order("pause")
    run.alice.is_delivered(run.agent.session_id, pause)
    go.set()
    eventually(lambda: phase(run) == "paused", SECONDS)
    assert (ran, thread.is_alive()) == (["first"], True)
    run.order("release", orderId=pause)
    thread.join(SECONDS)
    assert run.result["said"] == ["first", "second"]


def phase(run: Run) -> str:
    return str(run.alice.session(run.agent.session_id)["state"].get("phase"))


def test_what_cannot_be_said_to_a_graph_is_refused(run: Run) -> None:
    go = threading.Event()
    thread = run.start(steps(go, []), {"said": []})
    order = run.order("say", text="Use blue")
    eventually(lambda: run.alice.fate(run.agent.session_id, order)["status"] == "refused", SECONDS)
    go.set()
    thread.join(SECONDS)


DRAINED = """
import sys
from langgraph.errors import GraphDrained
from hook_agent import SessionHookAgent
from tests.killed_graph import built
store, thread, folder = sys.argv[1:]
handler = SessionHookAgent(thread, store).langchain_handler(control=True)
graph, config, given = built(store, thread, folder)
try:
    print(handler.invoke(graph, given, config, durability="sync"))
except GraphDrained as error:
    print(error)
"""


@LONG
def test_a_drained_graph_goes_on_in_another_process(
    appliance: Appliance, alice: Person, tmp_path: Path, session_id: str
) -> None:
    """`fast` and `slow` ran before it was drained, and not again; what it then asks is answered."""
    session = f"drained-{session_id}"

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRAINED, appliance.url, session, str(tmp_path)]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)

    first = begin()
    eventually(lambda: alice.is_reachable(session), SECONDS)
    eventually(lambda: (tmp_path / "ran").exists() and "slow" in (tmp_path / "ran").read_text(), SECONDS)
    alice.is_delivered(session, alice.order(session, "stop", text="Move on"))
    (tmp_path / "go").touch()
    assert first.communicate(timeout=SECONDS)[0] == "Graph drained: Move on\n"
    second = begin()
    (ask,) = alice.asked(session)
    alice.answer(ask, "answer", answers="you may")
    assert "'you may'" in second.communicate(timeout=SECONDS)[0]
    assert sorted((tmp_path / "ran").read_text().split()) == ["fast", "slow"]
