"""LangChain's callbacks: real LangGraph graphs run with the handler, and the store is asked what it holds."""

from __future__ import annotations

import asyncio
import itertools
import json
import operator
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast
from uuid import uuid4

import httpx
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun, dispatch_custom_event
from langchain_core.documents import Document
from langchain_core.language_models import BaseLLM
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, Generation, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

from hook_agent import SessionHookAgent
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually

Json = dict[str, Any]
SECONDS = 60.0  # for what happens at once


class Watched:
    """A session that graphs are watched in, and what the store holds of it."""

    def __init__(self, agent: SessionHookAgent, http: httpx.Client) -> None:
        self.agent = agent
        self.http = http
        self.config = self.configured()

    def configured(self, thread: str | None = None, **options: Any) -> RunnableConfig:
        """A configuration with a handler of its own."""
        handler = self.agent.langchain_handler(**options)
        return {"callbacks": [handler], "configurable": {"thread_id": thread} if thread else {}}

    def get(self, path: str = "") -> Json:
        assert self.agent.sync.flush(SECONDS), "not all was delivered"
        answer = self.http.get(f"/api/sessions/{self.agent.session_id}{path}")
        answer.raise_for_status()
        return cast(Json, answer.json())

    def events(self) -> list[Json]:
        items: list[Json] = self.get("/events?limit=1000")["items"]
        return [event for event in items if not event["type"].startswith("session_")]

    def said(self) -> list[str]:
        """The order in which things were said: the type of each entry, and of each other event, with the agent."""
        return [f"{event['agentId'] or '-'} {event['data'].get('status') or kind_of(event)}" for event in self.events()]

    def agents(self) -> dict[str, Json]:
        return {agent["agentId"]: agent for agent in self.get()["state"]["agents"]["spawned"]}

    def statuses(self) -> dict[str, str]:
        return {name: agent["status"] for name, agent in self.agents().items()}

    def entries(self, log: str, kind: str) -> list[Json]:
        return [entry for entry in self.get()[log] if entry["type"] == kind]

    def calls(self) -> dict[str, tuple[Json, Json | None]]:
        """Each tool call with what came back, by the id that pairs them."""
        session = self.get()
        ends = {entry["toolUseId"]: entry for entry in session["responses"] if entry["type"].startswith("tool_")}
        starts = [entry for entry in session["actions"] if entry["type"] == "tool_call"]
        return {entry["toolUseId"]: (entry, ends.get(entry["toolUseId"])) for entry in starts}


def kind_of(event: Json) -> str:
    return str(event["data"]["type"] if event["type"] in ("action", "response") else event["type"])


@pytest.fixture
def watched(appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path) -> Iterator[Watched]:
    agent = SessionHookAgent(session_id, appliance.url, "alice", spool_dir=tmp_path / "spool")
    yield Watched(agent, http)
    agent.sync.close()


# --------------------------------------------------------------------- graphs


class Numbers(TypedDict):
    x: int


class Collected(TypedDict):
    found: Annotated[list[str], operator.add]


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    if a < 0:
        raise ValueError(f"{a} is negative")
    return a + b


@tool
def ask_person(question: str) -> str:
    """Asks a person."""
    return str(interrupt({"question": question}))


USAGE: Any = {
    "input_tokens": 30,
    "output_tokens": 12,
    "total_tokens": 42,
    "input_token_details": {"cache_read": 20},
    "output_token_details": {"reasoning": 5},
}


def says(text: str = "", *calls: Json) -> AIMessage:
    about = {"model_name": "fake-1", "finish_reason": "tool_calls" if calls else "stop"}
    return AIMessage(text, tool_calls=[{**call} for call in calls], usage_metadata=USAGE, response_metadata=about)


def calls(name: str, call_id: str, **args: Any) -> Json:
    return {"name": name, "args": args, "id": call_id}


class Model(GenericFakeChatModel):
    """Says what it was given, also where it is streamed: word by word, and the usage at the end."""

    def _get_ls_params(self, stop: list[str] | None = None, **options: Any) -> Any:
        return {"ls_provider": "fake", "ls_model_name": "fake-1", "ls_model_type": "chat"}

    def _stream(self, messages: Any, *args: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        message = next(self.messages)
        assert isinstance(message, AIMessage)
        for word in message.content.split(" ") if isinstance(message.content, str) else ():
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=message.usage_metadata))


def agent_graph(*messages: AIMessage, tools: Iterable[Any] = (add,), handle: bool = True) -> Any:
    """The usual agent: a model and its tools, in turns."""
    model = Model(messages=iter(messages))

    def think(state: MessagesState) -> Json:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("agent", think)
    graph.add_node("tools", ToolNode(list(tools), handle_tool_errors=handle))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=InMemorySaver())


def chain_of(state: type, checkpointer: Any = None, **nodes: Any) -> Any:
    """The nodes, one after the other."""
    graph = StateGraph(cast(Any, state))
    names = [START, *nodes, END]
    for name, node in nodes.items():
        graph.add_node(name, node)
    for before, after in itertools.pairwise(names):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=checkpointer)


def increment(state: Numbers) -> Numbers:
    return {"x": state["x"] + 1}


def ask(state: Numbers) -> Numbers:
    return {"x": interrupt({"question": "How many more?"}) + state["x"]}


def fail(state: Numbers) -> Numbers:
    raise LookupError("no such number")


def run_async(graph: Any, given: Any, config: RunnableConfig) -> Any:
    return asyncio.run(graph.ainvoke(given, config))


def run_sync(graph: Any, given: Any, config: RunnableConfig) -> Any:
    return graph.invoke(given, config)


both_ways = pytest.mark.parametrize("run", [run_sync, run_async])
Run = Callable[[Any, Any, RunnableConfig], Any]


# --------------------------------------------------------------- what is told


@both_ways
def test_graph_is_told_of_in_the_order_in_which_it_happens(watched: Watched, run: Run) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=1, b=2)), says("It is 3"))
    run(graph, {"messages": [HumanMessage("What is 1 + 2?")]}, watched.configured("t"))
    assert watched.said() == [
        "- graph_start",
        "- state_updated",
        "agent running",
        "agent state_updated",
        "agent model_call",
        "agent model_result",
        "agent metadata_updated",
        "agent usage_reported",
        "agent completed",
        "tools running",
        "tools state_updated",
        "tools tool_call",
        "tools tool_result",
        "tools completed",
        "agent running",
        "agent state_updated",
        "agent model_call",
        "agent model_result",
        "agent usage_reported",
        "agent completed",
        "- completed",
        "- state_updated",
    ]


@both_ways
def test_each_node_is_an_agent_and_calls_its_tools(watched: Watched, run: Run) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=1, b=2)), says("It is 3"))
    run(graph, {"messages": [HumanMessage("What is 1 + 2?")]}, watched.configured("t"))
    assert watched.statuses() == {"agent": "completed", "tools": "completed"}
    agents = watched.agents()
    assert (agents["agent"]["type"], agents["agent"]["result"]) == ("agent", "It is 3")
    assert (agents["tools"]["task"], agents["tools"]["result"]) == ("calls add", "3")
    (call, result) = watched.calls()["call-1"]
    assert result is not None
    assert (call["tool"], call["input"], call["agentId"]) == ("add", {"a": 1, "b": 2}, "tools")
    assert (result["type"], result["tool"], result["output"], result["agentId"]) == ("tool_result", "add", "3", "tools")
    assert result["durationMs"] >= 0


def test_model_calls_say_what_was_asked_and_answered(watched: Watched) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=1, b=2)), says("It is 3"))
    graph.invoke({"messages": [HumanMessage("What is 1 + 2?")]}, watched.configured("t"))
    (asked, again), (first, last) = (
        watched.entries("actions", "model_call"),
        watched.entries("responses", "model_result"),
    )
    assert (asked["provider"], asked["model"], asked["operation"], asked["messages"]) == ("fake", "fake-1", "chat", 1)
    assert asked["lastMessage"] == {"role": "user", "text": "What is 1 + 2?"}
    assert again["lastMessage"] == {"role": "tool", "name": "add", "text": "3", "toolUseId": "call-1"}
    assert first["runId"] == asked["runId"] != again["runId"] == last["runId"]
    assert first["toolCalls"] == [{"toolUseId": "call-1", "tool": "add", "input": {"a": 1, "b": 2}}]
    assert (last["text"], last["model"], last["finishReason"]) == ("It is 3", "fake-1", "stop")
    assert last["usage"] == {
        "inputTokens": 30,
        "outputTokens": 12,
        "totalTokens": 42,
        "cacheReadTokens": 20,
        "reasoningTokens": 5,
    }


def test_tokens_of_all_model_calls_add_up_in_the_metadata(watched: Watched) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=1, b=2)), says("It is 3"))
    graph.invoke({"messages": [HumanMessage("What is 1 + 2?")]}, watched.configured("t"))
    metadata = watched.get()["metadata"]
    usage = {"input": 20, "output": 24, "cacheRead": 40, "cacheWrite": 0, "reasoning": 10, "total": 84}
    assert metadata["tokenUsage"] == usage
    assert metadata["cost"] == {"usd": None, "unpricedRequests": 2, "from": "unpriced"}
    assert (metadata["model"], metadata["metrics"]["toolCalls"]) == ("fake-1", 1)


def test_text_models_of_old_are_told_of_with_their_tokens(watched: Watched) -> None:
    class Writer(BaseLLM):
        @property
        def _llm_type(self) -> str:
            return "writer"

        def _generate(self, prompts: list[str], *args: Any, **options: Any) -> LLMResult:
            usage = {"prompt_tokens": 3, "completion_tokens": 4}
            generation = Generation(text="Once", generation_info={"finish_reason": "length"})
            return LLMResult(generations=[[generation]], llm_output={"token_usage": usage, "model_name": "writer-1"})

    Writer().invoke("Tell a tale", watched.config)
    (asked,), (result,) = watched.entries("actions", "model_call"), watched.entries("responses", "model_result")
    assert (asked["operation"], asked["lastMessage"], asked["name"]) == ("text_completion", "Tell a tale", "Writer")
    assert (result["text"], result["finishReason"], result["model"]) == ("Once", "length", "writer-1")
    assert result["usage"] == {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    usage = watched.get()["metadata"]["tokenUsage"]
    assert (usage["input"], usage["output"], usage["total"]) == (3, 4, 7)


def test_state_says_where_the_graph_is_and_in_the_end_what_it_gave(watched: Watched) -> None:
    seen: list[tuple[str, str]] = []

    def look(state: MessagesState) -> None:
        found = watched.get()["state"]
        seen.append((found["phase"], found["currentStep"]))

    chain_of(MessagesState, look=look).invoke({"messages": [HumanMessage("Look")]}, watched.config)
    state = watched.get()["state"]
    assert seen == [("running", "look")]
    assert (state["phase"], state["currentStep"]) == ("completed", None)
    assert state["output"] == {"messages": [{"role": "user", "text": "Look"}]}
    assert state["outputTruncated"] is False


def test_output_of_the_last_graph_is_no_part_of_the_next(watched: Watched) -> None:
    chain_of(Numbers, one=increment).invoke({"x": 1}, watched.config)
    chain_of(Collected, two=lambda state: {"found": ["it"]}).invoke({"found": []}, watched.config)
    assert watched.get()["state"]["output"] == {"found": ["it"]}


def test_without_the_handler_nothing_arrives(watched: Watched) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=1, b=2)), says("It is 3"))
    graph.invoke({"messages": [HumanMessage("What is 1 + 2?")]}, {"configurable": {"thread_id": "t"}})
    assert watched.agent.sync.flush(SECONDS)
    assert watched.http.get(f"/api/sessions/{watched.agent.session_id}").status_code == 404


@both_ways
def test_routing_and_inner_chains_make_no_noise(watched: Watched, run: Run) -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    chain = prompt | Model(messages=iter([says("Here")])) | (lambda message: message.content)

    class Asked(TypedDict):
        question: str

    graph = StateGraph(Asked)
    graph.add_node("answer", lambda state: {"question": chain.invoke({"question": state["question"]})})
    graph.add_conditional_edges(START, lambda state: "answer")
    run(graph.compile(), {"question": "Where?"}, watched.config)
    assert watched.statuses() == {"answer": "completed"}
    kinds = {kind_of(event) for event in watched.events() if event["type"] in ("action", "response")}
    assert kinds == {"graph_start", "model_call", "model_result", "graph_end"}


# ------------------------------------------------------- several at one time


def test_parallel_branches_are_agents_at_work_at_one_time(watched: Watched) -> None:
    together = threading.Barrier(2)

    def branch(name: str) -> Any:
        def work(state: Collected) -> Json:
            together.wait(SECONDS)
            found = add.invoke({"name": "add", "args": {"a": len(name), "b": 0}, "id": name, "type": "tool_call"})
            together.wait(SECONDS)
            return {"found": [found.content]}

        return work

    graph = StateGraph(Collected)
    for name in ("left", "right"):
        graph.add_node(name, branch(name))
        graph.add_edge(START, name)
    graph.compile().invoke({"found": []}, watched.config)
    assert watched.statuses() == {"left": "completed", "right": "completed"}
    assert {name: call["agentId"] for name, (call, _) in watched.calls().items()} == {"left": "left", "right": "right"}
    order = [event["type"] for event in watched.events() if event["type"] in ("agent_spawned", "agent_completed")]
    assert order == ["agent_spawned", "agent_spawned", "agent_completed", "agent_completed"]


@both_ways
def test_what_is_sent_to_one_node_several_times_is_an_agent_each(watched: Watched, run: Run) -> None:
    graph = StateGraph(Collected)
    graph.add_node("search", lambda topic: {"found": [topic]})
    graph.add_conditional_edges(START, lambda state: [Send("search", topic) for topic in ("bees", "ants", "wasps")])
    run(graph.compile(), {"found": []}, watched.config)
    agents = watched.agents()
    assert {name: agent["task"] for name, agent in agents.items()} == {
        "search.0": "bees",
        "search.1": "ants",
        "search.2": "wasps",
    }
    assert {(agent["type"], agent["status"]) for agent in agents.values()} == {("search", "completed")}


def test_one_handler_serves_many_runs_at_one_time(watched: Watched) -> None:
    waiting = 0
    runs = 8

    async def main() -> list[Any]:
        all_here = asyncio.Event()

        async def meet(state: Numbers) -> Numbers:
            nonlocal waiting
            waiting += 1
            if waiting == runs:
                all_here.set()
            await all_here.wait()
            await add.ainvoke(
                {"name": "add", "args": {"a": state["x"], "b": 0}, "id": f"c{state['x']}", "type": "tool_call"}
            )
            return {"x": state["x"] * 10}

        graph = chain_of(Numbers, meet=meet)
        return await asyncio.gather(*(graph.ainvoke({"x": number}, watched.config) for number in range(runs)))

    assert asyncio.run(main()) == [{"x": number * 10} for number in range(runs)]
    assert watched.statuses() == dict.fromkeys(("meet", *(f"meet-{n}" for n in range(2, runs + 1))), "completed")
    owners = [
        call["agentId"] for call, result in watched.calls().values() if result and result["agentId"] == call["agentId"]
    ]
    assert len(set(owners)) == runs
    ends = watched.entries("responses", "graph_end")
    assert {end["runId"] for end in ends} == {start["runId"] for start in watched.entries("actions", "graph_start")}
    assert sorted(end["output"]["x"] for end in ends) == [number * 10 for number in range(runs)]


def test_node_that_comes_again_is_the_same_agent(watched: Watched) -> None:
    graph = StateGraph(Numbers)
    graph.add_node("count", increment)
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", lambda state: "count" if state["x"] < 5 else END)
    graph.compile().invoke({"x": 0}, watched.config)
    agents = watched.agents()
    assert {name: (agent["status"], agent["result"]) for name, agent in agents.items()} == {
        "count": ("completed", '{"x":5}')
    }
    turns = [event for event in watched.events() if event["type"].startswith("agent_")]
    assert [event["type"] for event in turns] == [
        *("agent_spawned", "agent_completed"),
        *("agent_updated", "agent_completed") * 4,
    ]
    again = turns[2]["data"]
    assert (again["status"], again["task"], again["result"]) == ("running", '{"x":1}', None)
    assert watched.get()["metadata"]["metrics"]["agentsSpawned"] == 1


# ----------------------------------------------------------- graphs in graphs


@both_ways
def test_nodes_of_a_subgraph_have_the_node_around_them_as_parent(watched: Watched, run: Run) -> None:
    inner = chain_of(Numbers, one=increment, two=increment)
    graph = chain_of(Numbers, before=increment, team=inner, after=lambda state: inner.invoke(state))
    assert run(graph, {"x": 0}, watched.config) == {"x": 5}
    assert {name: agent.get("parentAgentId") for name, agent in watched.agents().items()} == {
        "before": None,
        "team": None,
        "team.one": "team",
        "team.two": "team",
        "after": None,
        "after.one": "after",
        "after.two": "after",
    }
    assert set(watched.statuses().values()) == {"completed"}
    assert len(watched.entries("actions", "graph_start")) == 1


def test_subgraph_that_a_node_runs_twice_is_no_agent_of_its_own(watched: Watched) -> None:
    inner = chain_of(Numbers, one=increment)
    chain_of(Numbers, twice=lambda state: inner.invoke(inner.invoke(state))).invoke({"x": 0}, watched.config)
    assert watched.statuses() == {"twice": "completed", "twice.one": "completed"}


@both_ways
def test_supervisor_hands_over_to_workers(watched: Watched, run: Run) -> None:
    def supervise(state: Numbers) -> Command[Any]:
        return Command(goto=("doubler" if state["x"] < 4 else "team") if state["x"] < 8 else END)

    def hand_over(state: Numbers) -> Command[Any]:
        return Command(goto="supervisor", update={"x": 8}, graph=Command.PARENT)

    team = StateGraph(Numbers)
    team.add_node("leader", hand_over)
    team.add_edge(START, "leader")
    graph = StateGraph(Numbers)
    graph.add_node("supervisor", supervise, destinations=("doubler", "team", END))
    graph.add_node("doubler", lambda state: Command(goto="supervisor", update={"x": state["x"] * 2}))
    graph.add_node("team", team.compile())
    graph.add_edge(START, "supervisor")
    assert run(graph.compile(), {"x": 1}, watched.config) == {"x": 8}
    assert watched.statuses() == dict.fromkeys(("supervisor", "doubler", "team", "team.leader"), "completed")
    (end,) = watched.entries("responses", "graph_end")
    assert (end["status"], end["output"]) == ("completed", {"x": 8})


def test_graph_can_work_for_an_agent_of_the_program(watched: Watched) -> None:
    worker = watched.agent.sync.spawn_agent({"type": "researcher", "task": "Find it"})["agentId"]
    chain_of(Numbers, look=increment).invoke({"x": 0}, watched.configured(agent_id=worker))
    assert watched.agents()[f"{worker}.look"]["parentAgentId"] == worker
    assert [entry["agentId"] for entry in watched.entries("actions", "graph_start")] == [worker]


# ------------------------------------------------------------ what goes wrong


@both_ways
@pytest.mark.parametrize("handle", [True, False])
def test_tool_that_fails_is_a_tool_error(watched: Watched, run: Run, handle: bool) -> None:
    graph = agent_graph(says("", calls("add", "call-1", a=-1, b=2)), says("It failed"), handle=handle)
    given = {"messages": [HumanMessage("What is -1 + 2?")]}
    if handle:
        run(graph, given, watched.configured("t"))
    else:
        with pytest.raises(ValueError, match="negative"):
            run(graph, given, watched.configured("t"))
    (_, result) = watched.calls()["call-1"]
    assert result is not None
    assert (result["type"], result["error"], result["errorType"]) == ("tool_error", "-1 is negative", "ValueError")
    assert "raise ValueError" in "\n".join(result["traceback"])
    assert watched.statuses() == {"agent": "completed", "tools": "completed" if handle else "failed"}


def test_tool_that_tells_the_model_of_its_error_is_a_tool_error_too(watched: Watched) -> None:
    told = add.model_copy(update={"handle_tool_error": True, "handle_validation_error": "not a number"})
    graph = agent_graph(says("", calls("add", "call-1", a="one", b=2)), says("It failed"), tools=[told])
    graph.invoke({"messages": [HumanMessage("What is one + 2?")]}, watched.configured("t"))
    (_, result) = watched.calls()["call-1"]
    assert result is not None
    assert (result["type"], result["error"]) == ("tool_error", "not a number")


@both_ways
def test_node_that_fails_is_a_failed_agent_and_fails_the_graph(watched: Watched, run: Run) -> None:
    with pytest.raises(LookupError):
        run(chain_of(Numbers, first=increment, second=fail, third=increment), {"x": 0}, watched.config)
    agents = watched.agents()
    assert watched.statuses() == {"first": "completed", "second": "failed"}
    assert agents["second"]["result"] == "LookupError: no such number"
    (error,) = watched.entries("responses", "graph_error")
    assert (error["error"], error["errorType"]) == ("no such number", "LookupError")
    assert any("in fail" in line for line in error["traceback"])
    state = watched.get()["state"]
    assert (state["phase"], state["currentStep"]) == ("failed", "second")


def test_model_that_fails_is_a_model_error(watched: Watched) -> None:
    class Failing(Model):
        def _generate(self, *args: Any, **options: Any) -> Any:
            raise TimeoutError("no answer")

    with pytest.raises(TimeoutError):
        Failing(messages=iter([])).invoke("Hello", watched.config)
    (error,) = watched.entries("responses", "model_error")
    assert (error["model"], error["error"], error["errorType"]) == ("fake-1", "no answer", "TimeoutError")


def test_cancelled_graph_is_cancelled_not_failed(watched: Watched) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def wait(state: Numbers) -> None:
            begun.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(chain_of(Numbers, wait=wait).ainvoke({"x": 0}, watched.config))
        await asyncio.wait_for(begun.wait(), SECONDS)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert watched.statuses() == {"wait": "cancelled"}
    assert [end["status"] for end in watched.entries("responses", "graph_end")] == ["cancelled"]
    assert watched.entries("responses", "graph_error") == []
    assert watched.get()["state"]["phase"] == "cancelled"


# ---------------------------------------------------------- waiting for people


@pytest.mark.parametrize(("answers", "status"), [([], "waiting"), ([10], "completed")])
def test_a_program_that_leaves_an_interrupt_open_has_not_ended_its_session(
    watched: Watched, answers: list[int], status: str
) -> None:
    async def main() -> None:
        graph = chain_of(Numbers, InMemorySaver(), asker=ask)
        async with watched.agent:
            for given in ({"x": 0}, *(Command(resume=answer) for answer in answers)):
                await graph.ainvoke(given, watched.configured("t"))

    asyncio.run(main())
    assert watched.get()["metadata"]["status"] == status


def test_a_program_that_fails_with_an_interrupt_open_has_failed(watched: Watched) -> None:
    with pytest.raises(KeyError), watched.agent.sync:
        chain_of(Numbers, InMemorySaver(), asker=ask).invoke({"x": 0}, watched.configured("t"))
        raise KeyError("x")
    assert watched.get()["metadata"]["status"] == "failed"


@both_ways
@pytest.mark.parametrize("same_handler", [True, False])
def test_interrupt_waits_for_a_person_until_it_is_resumed(watched: Watched, run: Run, same_handler: bool) -> None:
    graph = chain_of(Numbers, InMemorySaver(), before=increment, asker=ask, after=increment)
    config = watched.configured("t")
    run(graph, {"x": 0}, config)
    waiting = watched.get()
    assert waiting["metadata"]["status"] == "waiting"
    attention = waiting["metadata"]["attention"]
    assert (attention["reason"], attention["message"]) == ("question", "How many more?")
    assert (waiting["state"]["phase"], waiting["state"]["currentStep"]) == ("paused", "asker")
    assert watched.statuses() == {"before": "completed", "asker": "paused"}
    assert [end["status"] for end in watched.entries("responses", "graph_end")] == ["paused"]
    (asked,) = watched.entries("actions", "interrupt")
    assert [it["value"] for it in asked["interrupts"]] == [{"question": "How many more?"}]

    assert run(graph, Command(resume=10), config if same_handler else watched.configured("t")) == {"x": 12}
    resumed = watched.get()
    assert (resumed["metadata"]["status"], resumed["metadata"]["attention"]) == ("active", None)
    assert (resumed["state"]["phase"], resumed["state"]["output"]) == ("completed", {"x": 12})
    assert watched.statuses() == {"before": "completed", "asker": "completed", "after": "completed"}
    assert watched.entries("actions", "graph_start")[1]["input"] == {"resume": 10}


@both_ways
def test_interrupt_in_a_subgraph_is_asked_once(watched: Watched, run: Run) -> None:
    graph = chain_of(Numbers, InMemorySaver(), team=chain_of(Numbers, asker=ask))
    config = watched.configured("t")
    run(graph, {"x": 1}, config)
    assert watched.statuses() == {"team": "paused", "team.asker": "paused"}
    assert len(watched.entries("actions", "interrupt")) == 1
    assert run(graph, Command(resume=1), config) == {"x": 2}
    assert watched.statuses() == {"team": "completed", "team.asker": "completed"}


@pytest.mark.parametrize("same_handler", [True, False])
def test_of_several_at_one_node_the_one_that_asked_goes_on(watched: Watched, same_handler: bool) -> None:
    def search(topic: str) -> Json:
        return {"found": [interrupt("Ants or wasps?") if topic == "ants" else topic]}

    graph = StateGraph(Collected)
    graph.add_node("search", cast(Any, search))
    graph.add_conditional_edges(START, lambda state: [Send("search", topic) for topic in ("bees", "ants")])
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = watched.configured("t")
    compiled.invoke({"found": []}, config)
    assert watched.statuses() == {"search.0": "completed", "search.1": "paused"}
    assert watched.get()["metadata"]["attention"]["message"] == "Ants or wasps?"
    compiled.invoke(Command(resume="wasps"), config if same_handler else watched.configured("t"))
    assert watched.statuses() == {"search.0": "completed", "search.1": "completed"}


def test_of_several_tasks_at_one_time_the_one_that_asked_goes_on(watched: Watched) -> None:
    first_began, second_began = threading.Event(), threading.Event()

    @task
    def search(topic: str) -> str:
        if topic == "bees":
            first_began.set()
            second_began.wait(SECONDS)
            return topic
        second_began.set()
        return str(interrupt("Ants or wasps?"))

    @entrypoint(checkpointer=InMemorySaver())
    def flow(topics: list[str]) -> list[str]:
        bees = search(topics[0])
        first_began.wait(SECONDS)
        ants = search(topics[1])
        return [bees.result(), ants.result()]

    config = watched.configured("t")
    flow.invoke(["bees", "ants"], config)
    assert watched.statuses() == {"flow": "paused", "flow.search": "completed", "flow.search-2": "paused"}
    assert flow.invoke(Command(resume="wasps"), config) == ["bees", "wasps"]
    assert watched.statuses() == {"flow": "completed", "flow.search": "completed", "flow.search-2": "completed"}


def test_stream_that_is_left_at_a_question_is_paused(watched: Watched) -> None:
    graph = chain_of(Numbers, InMemorySaver(), asker=ask)
    config = watched.configured("t")
    for part in graph.stream({"x": 0}, config, stream_mode="updates"):
        if "__interrupt__" in part:
            break
    assert watched.get()["metadata"]["status"] == "waiting"
    assert [end["status"] for end in watched.entries("responses", "graph_end")] == ["paused"]
    assert graph.invoke(Command(resume=1), config) == {"x": 1}
    assert watched.get()["metadata"]["status"] == "active"


def test_graph_that_fails_waits_for_nobody(watched: Watched) -> None:
    def fail_later(state: Numbers) -> None:
        while watched.statuses().get("asker") != "paused":
            time.sleep(0.01)
        assert watched.get()["metadata"]["status"] == "waiting"
        raise LookupError("no such number")

    graph = StateGraph(Numbers)
    for name, node in {"asker": ask, "failer": fail_later}.items():
        graph.add_node(name, cast(Any, node))
        graph.add_edge(START, name)
    with pytest.raises(LookupError):
        graph.compile(checkpointer=InMemorySaver()).invoke({"x": 0}, watched.configured("t"))
    assert watched.get()["metadata"]["status"] == "active"
    assert watched.get()["state"]["phase"] == "failed"


def test_tool_that_asks_a_person_is_not_failed(watched: Watched) -> None:
    graph = agent_graph(says("", calls("ask_person", "call-1", question="Really?")), says("Yes"), tools=[ask_person])
    config = watched.configured("t")
    graph.invoke({"messages": [HumanMessage("Delete it")]}, config)
    (_, result) = watched.calls()["call-1"]
    assert result is None
    assert watched.get()["metadata"]["attention"]["message"] == "Really?"
    assert watched.statuses() == {"agent": "completed", "tools": "paused"}
    graph.invoke(Command(resume="yes"), config)
    (_, result) = watched.calls()["call-1"]
    assert result is not None
    assert (result["type"], result["output"]) == ("tool_result", "yes")


def test_breakpoint_waits_for_a_person_too(watched: Watched) -> None:
    graph = StateGraph(Numbers)
    graph.add_node("one", increment)
    graph.add_node("two", increment)
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    compiled = graph.compile(checkpointer=InMemorySaver(), interrupt_before=["two"])
    config = watched.configured("t")
    compiled.invoke({"x": 0}, config)
    assert watched.get()["metadata"]["status"] == "waiting"
    assert watched.get()["state"]["phase"] == "paused"
    assert compiled.invoke(None, config) == {"x": 2}
    assert watched.get()["metadata"]["status"] == "active"
    assert watched.get()["state"]["phase"] == "completed"


def test_work_on_another_thread_does_not_end_the_waiting(watched: Watched) -> None:
    graph = chain_of(Numbers, InMemorySaver(), asker=ask)
    config = watched.config
    for thread in ("first", "second"):
        graph.invoke({"x": 0}, {**config, "configurable": {"thread_id": thread}})
    graph.invoke(Command(resume=1), {**config, "configurable": {"thread_id": "first"}})
    assert watched.get()["metadata"]["status"] == "waiting"
    graph.invoke(Command(resume=1), {**config, "configurable": {"thread_id": "second"}})
    assert watched.get()["metadata"]["status"] == "active"


# --------------------------------------------------- streams, chains and words


def test_streamed_tokens_are_no_events(watched: Watched) -> None:
    graph = agent_graph(says("one two three four"))
    streamed = list(
        graph.stream({"messages": [HumanMessage("Count")]}, watched.configured("t"), stream_mode="messages")
    )
    assert len(streamed) >= 4, "the model was not streamed"
    (result,) = watched.entries("responses", "model_result")
    assert (result["text"].strip(), result["usage"]["totalTokens"]) == ("one two three four", 42)
    assert len(watched.events()) == 11


def test_stream_that_is_left_early_is_cancelled(watched: Watched) -> None:
    stream = chain_of(Numbers, one=increment, two=increment).stream({"x": 0}, watched.config)
    next(stream)
    stream.close()
    assert [end["status"] for end in watched.entries("responses", "graph_end")] == ["cancelled"]


def test_chain_without_a_graph_is_told_of_as_well(watched: Watched) -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    (prompt | Model(messages=iter([says("Here")]))).invoke({"question": "Where?"}, watched.config)
    assert watched.said() == [
        "- graph_start",
        "- state_updated",
        "- model_call",
        "- model_result",
        "- metadata_updated",
        "- usage_reported",
        "- completed",
        "- state_updated",
    ]


def test_retrievers_and_the_programs_own_events_are_logged(watched: Watched) -> None:
    class Library(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            return [Document("Bees dance", metadata={"page": 7})]

    def look(state: Numbers) -> None:
        Library().invoke("bees")
        dispatch_custom_event("halfDone", {"percent": 50})

    chain_of(Numbers, look=look).invoke({"x": 0}, watched.config)
    (asked,), (found,) = watched.entries("actions", "retriever_call"), watched.entries("responses", "retriever_result")
    assert (asked["retriever"], asked["query"], asked["agentId"]) == ("Library", "bees", "look")
    assert found["documents"] == [{"id": None, "text": "Bees dance", "metadata": {"page": 7}}]
    assert found["runId"] == asked["runId"]
    (custom,) = watched.entries("actions", "custom_event")
    assert (custom["name"], custom["data"], custom["agentId"]) == ("halfDone", {"percent": 50}, "look")


# ----------------------------------------------------------------- any values


class Point(BaseModel):
    x: int
    name: str = "here"


@dataclass
class Size:
    width: int
    tags: frozenset[str]


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("not me")

    __repr__ = __str__


class Matrix:
    """As numpy's arrays look from outside."""

    dtype, shape, size = "float64", (1000, 1000), 1_000_000


class Anything(TypedDict):
    value: Any


def shown(watched: Watched, value: object) -> Any:
    graph = chain_of(Anything, make=lambda state: {"value": value})
    graph.invoke({"value": None}, watched.config)
    assert watched.statuses() == {"make": "completed"}
    return watched.entries("responses", "graph_end")[-1]["output"]["value"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(x=1), {"x": 1, "name": "here"}),
        (Size(2, frozenset(["a"])), {"width": 2, "tags": ["a"]}),
        ((1, "two", None, True), [1, "two", None, True]),
        ({1: "one"}, {"1": "one"}),
        (b"\x00\xff", "<2 bytes>"),
        (Matrix(), "<Matrix of float64, 1000x1000>"),
        (Path("/tmp/x"), "/tmp/x"),
        (KeyError("k"), "KeyError: 'k'"),
        (object(), "<object object>"),
        (Rude(), "<Rude>"),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        (float("nan"), None),
        (10**5000, "<int>"),
        (
            AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c"}]),
            {"role": "assistant", "text": "", "toolCalls": [{"toolUseId": "c", "tool": "add", "input": {"a": 1}}]},
        ),
        (
            HumanMessage([{"type": "text", "text": "See"}, {"type": "image", "url": "x"}]),
            {"role": "user", "text": "See\n[image]"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_becomes_readable(watched: Watched, value: object, expected: object) -> None:
    assert shown(watched, value) == expected


def test_value_that_holds_itself_does_no_harm(watched: Watched) -> None:
    value: Json = {"name": "loop"}
    value["self"] = value
    assert shown(watched, value)["self"]["self"]["name"] == "loop"


def test_large_text_is_cut_and_its_entry_says_so(watched: Watched) -> None:
    value = shown(watched, "x" * 100_000)
    assert len(value) < 20_000
    assert value.endswith("x…")
    assert watched.entries("responses", "graph_end")[-1]["truncated"] is True


def test_error_that_cannot_be_told_is_an_error_all_the_same(watched: Watched) -> None:
    class Untellable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not me")

    def raise_it(state: Numbers) -> Numbers:
        raise Untellable

    with pytest.raises(Untellable):
        chain_of(Numbers, only=raise_it).invoke({"x": 0}, watched.config)
    assert watched.agents()["only"]["result"] == "Untellable: <Untellable>"
    assert [error["errorType"] for error in watched.entries("responses", "graph_error")] == ["Untellable"]


def test_large_entries_are_cut_and_say_so(watched: Watched) -> None:
    messages: list[AnyMessage] = [HumanMessage("x" * 100_000) for _ in range(50)]
    chain_of(MessagesState, keep=lambda state: {"messages": [says("The end")]}).invoke(
        {"messages": messages}, watched.config
    )
    (end,) = watched.entries("responses", "graph_end")
    assert end["truncated"] is True
    assert end["output"]["messages"][-1]["text"] == "The end"
    assert max(len(json.dumps(event)) for event in watched.events()) < 40_000
    state = watched.get()["state"]
    assert state["outputTruncated"] is True
    assert state["output"]["messages"][-1]["text"] == "The end"


# ------------------------------------------------------------- no harm is done


def test_async_graph_waits_for_no_thread(watched: Watched) -> None:
    async def main() -> Any:
        released = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            pool.submit(released.wait, SECONDS)  # as a tool that takes long
            try:
                return await asyncio.wait_for(chain_of(Numbers, one=later).ainvoke({"x": 0}, watched.config), 10)
            finally:
                released.set()

    async def later(state: Numbers) -> Numbers:
        return increment(state)

    assert asyncio.run(main()) == {"x": 1}
    assert watched.statuses() == {"one": "completed"}


def test_graph_does_not_suffer_from_a_store_that_is_away(tmp_path: Path) -> None:
    with Appliance(tmp_path / "sessions") as server, httpx.Client(base_url=server.url) as http:
        server.stop()
        watched = Watched(SessionHookAgent("away", server.url, "alice", spool_dir=tmp_path / "spool"), http)
        assert chain_of(Numbers, one=increment).invoke({"x": 0}, watched.config) == {"x": 1}
        server.start()
        assert watched.statuses() == {"one": "completed"}


def test_handler_that_fails_inside_is_silent(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    handler = watched.agent.langchain_handler()
    handler._graphs = None  # as broken as it can be
    assert chain_of(Numbers, one=increment).invoke({"x": 0}, {"callbacks": [handler]}) == {"x": 1}
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


# ------------------------------------------------------- told twice, told again


def another(watched: Watched, tmp_path: Path) -> Watched:
    """The same session, as another process has it."""
    url = watched.agent.service_url
    return Watched(SessionHookAgent(watched.agent.session_id, url, "alice", spool_dir=tmp_path / "other"), watched.http)


@both_ways
@pytest.mark.parametrize("same_handler", [True, False])
def test_handlers_at_compile_invoke_and_model_tell_once(watched: Watched, run: Run, same_handler: bool) -> None:
    first = watched.agent.langchain_handler()

    def handler() -> Any:
        return first if same_handler else watched.agent.langchain_handler()

    model = Model(messages=iter([says("Hello")]))

    def think(state: MessagesState, config: RunnableConfig) -> Json:
        return {"messages": [model.invoke(state["messages"], {**config, "callbacks": [handler()]})]}

    graph = chain_of(MessagesState, think=think).with_config({"callbacks": [handler()]})
    run(graph, {"messages": [HumanMessage("Hi")]}, {"callbacks": [handler()]})
    session = watched.get()
    kinds = [entry["type"] for entry in session["actions"] + session["responses"]]
    assert sorted(kinds) == ["graph_end", "graph_start", "model_call", "model_result"]
    assert session["metadata"]["tokenUsage"]["total"] == 42
    assert session["metadata"]["metrics"]["agentsSpawned"] == 1


def test_what_a_program_says_is_told_by_one_of_two_handlers(watched: Watched) -> None:
    def shout(state: Numbers) -> Numbers:
        dispatch_custom_event("loud", {"n": 1})
        return state

    config = {"callbacks": [watched.agent.langchain_handler(), watched.agent.langchain_handler()]}
    chain_of(Numbers, shout=shout).invoke({"x": 1}, cast(Any, config))
    assert len(watched.entries("actions", "custom_event")) == 1


@both_ways
def test_another_process_goes_on_with_what_was_asked(watched: Watched, run: Run, tmp_path: Path) -> None:
    graph = agent_graph(says("", calls("ask_person", "call-1", question="Really?")), says("Yes"), tools=[ask_person])
    run(graph, {"messages": [HumanMessage("Delete it")]}, watched.configured("t"))
    assert watched.get()["metadata"]["status"] == "waiting"
    other = another(watched, tmp_path)
    run(graph, Command(resume="yes"), other.configured("t"))
    session = other.get()
    assert (session["metadata"]["status"], session["metadata"]["attention"]) == ("active", None)
    metrics = session["metadata"]["metrics"]
    assert (metrics["toolCalls"], metrics["agentsSpawned"]) == (1, 3)  # the third is the model's, which begins anew
    assert other.statuses() == {"agent": "completed", "tools": "completed"}
    (called,), (result,) = other.entries("actions", "tool_call"), other.entries("responses", "tool_result")
    assert (called["runId"], called["toolUseId"]) == (result["runId"], result["toolUseId"])
    assert list((tmp_path / "other").rglob("dead/*")) == []


def test_another_process_answers_one_of_two_questions(watched: Watched, tmp_path: Path) -> None:
    graph = StateGraph(Collected)
    for name in ("ants", "bees"):
        graph.add_node(name, cast(Any, lambda state, name=name: {"found": [interrupt(f"Keep the {name}?")]}))
        graph.add_edge(START, name)
    compiled = graph.compile(checkpointer=InMemorySaver())
    asked = compiled.invoke({"found": []}, watched.configured("t"))["__interrupt__"]
    both = watched.get()["metadata"]["attention"]
    assert {both["message"], both["others"][0]["message"]} == {"Keep the ants?", "Keep the bees?"}
    first, second = sorted(asked, key=lambda it: str(it.value))
    other = another(watched, tmp_path)
    compiled.invoke(Command(resume={first.id: "yes"}), other.configured("t"))
    left = other.get()["metadata"]
    assert (left["status"], left["attention"]["message"], left["attention"].get("others")) == (
        "waiting",
        "Keep the bees?",
        None,
    )
    compiled.invoke(Command(resume={second.id: "yes"}), other.configured("t"))
    assert other.get()["metadata"]["status"] == "active"


def test_a_question_that_a_node_asks_again_is_a_new_one(watched: Watched) -> None:
    def ask_twice(state: Numbers) -> Numbers:
        return {"x": sum(interrupt("How many?") for _ in range(2))}

    graph = chain_of(Numbers, InMemorySaver(), asker=ask_twice)
    graph.invoke({"x": 0}, watched.configured("t"))
    for answer, status in ((1, "waiting"), (2, "active")):
        graph.invoke(Command(resume=answer), watched.configured("t"))
        assert watched.get()["metadata"]["status"] == status
    assert len(watched.entries("actions", "interrupt")) == 2


def test_something_new_on_a_thread_leaves_its_question_behind(watched: Watched) -> None:
    graph = chain_of(Numbers, InMemorySaver(), asker=ask)
    for _ in range(2):
        graph.invoke({"x": 0}, watched.configured("t"))
    attention = watched.get()["metadata"]["attention"]
    assert (attention["reason"], attention.get("others")) == ("question", None)
    assert watched.statuses() == {"asker": "paused"}
    graph.invoke(Command(resume=1), watched.configured("t"))
    assert watched.get()["metadata"]["status"] == "active"


def test_a_tool_that_is_tried_again_is_a_call_each_time(watched: Watched) -> None:
    tries = itertools.count()

    @tool
    def flaky() -> str:
        """Fails at first."""
        if next(tries) == 0:
            raise ConnectionError("not yet")
        return "now"

    graph = StateGraph(MessagesState)
    graph.add_node(
        "tools", ToolNode([flaky], handle_tool_errors=False), retry_policy=RetryPolicy(initial_interval=0.01)
    )
    graph.add_edge(START, "tools")
    graph.compile().invoke({"messages": [says("", calls("flaky", "call_0"))]}, watched.config)
    called = [entry["runId"] for entry in watched.entries("actions", "tool_call")]
    (failed,), (worked,) = watched.entries("responses", "tool_error"), watched.entries("responses", "tool_result")
    assert called == [failed["runId"], worked["runId"]]
    assert len(set(called)) == 2


def test_calls_whose_ids_begin_anew_have_runs_of_their_own(watched: Watched) -> None:
    call = calls("add", "call_0", a=1, b=2)
    agent_graph(says("", call), says("", call), says("3")).invoke(
        {"messages": [HumanMessage("Add")]}, watched.configured("t")
    )
    runs = [entry["runId"] for entry in watched.entries("actions", "tool_call")]
    assert len(runs) == len(set(runs)) == 2
    assert [entry["runId"] for entry in watched.entries("responses", "tool_result")] == runs


def test_all_that_is_to_be_approved_is_in_the_question(watched: Watched) -> None:
    requests = [{"name": "rm", "args": {}, "description": f"Delete {name}?"} for name in ("a", "b")]

    def approve(state: Numbers) -> Numbers:
        return {"x": len(interrupt({"action_requests": requests, "review_configs": []}))}

    chain_of(Numbers, InMemorySaver(), approve=approve).invoke({"x": 0}, watched.configured("t"))
    assert watched.get()["metadata"]["attention"]["message"] == "Delete a? / Delete b?"


def test_nobody_is_at_work_in_a_graph_that_was_left(watched: Watched) -> None:
    async def main() -> None:
        began = asyncio.Event()

        async def wait(state: Numbers) -> None:
            began.set()
            await asyncio.Event().wait()

        team = chain_of(Numbers, wait=wait)
        stream = chain_of(Numbers, one=increment, team=team).astream({"x": 0}, watched.config, subgraphs=True)
        await anext(stream)
        pulling = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(began.wait(), SECONDS)
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
        await stream.aclose()

    asyncio.run(main())
    assert watched.statuses() == {"one": "completed", "team": "cancelled", "team.wait": "cancelled"}
    assert watched.get()["state"]["agents"]["active"] == []


def test_what_was_interrupted_has_not_failed(watched: Watched) -> None:
    @tool
    def long() -> str:
        """Takes long."""
        raise KeyboardInterrupt

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([long]))
    graph.add_edge(START, "tools")
    with pytest.raises(KeyboardInterrupt):
        graph.compile().invoke({"messages": [says("", calls("long", "c1"))]}, watched.config)
    (_, result) = watched.calls()["c1"]
    assert result is not None
    assert (result["type"], result["error"], result["rejected"]) == ("tool_error", "KeyboardInterrupt", True)
    assert watched.statuses() == {"tools": "cancelled"}


def test_nodes_whose_end_nobody_tells_end_with_their_graph(watched: Watched) -> None:
    handler, root, node, call = watched.agent.langchain_handler(), *(uuid4() for _ in range(3))
    handler.on_chain_start(None, {}, run_id=root, name="graph")
    metadata = {"langgraph_checkpoint_ns": "work:1", "langgraph_step": 1}
    handler.on_chain_start(None, {}, run_id=node, parent_run_id=root, name="work", metadata=metadata)
    handler.on_tool_start(None, "", run_id=call, parent_run_id=node, name="add", tool_call_id="c1")
    handler.on_chain_error(GeneratorExit(), run_id=root)
    handler.on_chain_end({}, run_id=node)
    handler.on_tool_end("late", run_id=call)
    (_, result) = watched.calls()["c1"]
    assert result is not None
    assert (result["type"], result["rejected"]) == ("tool_error", True)
    assert watched.statuses() == {"work": "cancelled"}
    assert watched.get()["state"]["phase"] == "cancelled"


# ------------------------------------------------------------- a program's end


PROGRAM = """
import sys
sys.path.insert(0, {repository!r})
from typing import TypedDict
from hook_agent import SessionHookAgent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

class Numbers(TypedDict):
    x: int

def fail(state): raise LookupError("no such number")
def add(state): return {{"x": state["x"] + 1}}
def ask(state): return {{"x": interrupt("How many?")}}

def run(node):
    graph = StateGraph(Numbers)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    config = {{"callbacks": [agent.langchain_handler()], "configurable": {{"thread_id": "t"}}}}
    try:
        graph.compile(checkpointer=InMemorySaver()).invoke({{"x": 0}}, config)
    except LookupError:
        pass

agent = SessionHookAgent()
{main}
"""
ENDS: dict[str, tuple[str, str, int]] = {
    "run(add)": ("completed", "success", 1),
    "run(fail)": ("failed", "failed", 1),
    "run(fail); run(add)": ("completed", "success", 1),
    "run(ask)": ("waiting", "", 0),
    "run(add); agent.sync.finalize(status='cancelled')": ("cancelled", "cancelled", 1),
    "with agent.sync: run(add)": ("completed", "success", 1),
    "run(add); raise KeyError('later')": ("failed", "failed", 1),
    "import os\nrun(add)\nif not os.fork(): sys.exit()\nos.wait()": ("completed", "success", 1),
    "agent.sync.log_action(type='x')": ("active", "", 0),
}


FORKS = """
import gc, json, os, sys
import langgraph.checkpoint.memory, langgraph.graph, langgraph.types
gc.freeze()
for code, environment in json.load(sys.stdin):
    if not (child := os.fork()):
        os.environ.clear()
        os.environ.update(environment)
        exec(code, {"__name__": "__main__"})
        sys.exit()
    os.waitpid(child, 0)
"""
"""What takes longest, to import LangGraph, is done once for all programs, and no end of one looks through it again."""


@pytest.fixture(scope="module")
def ended(appliance: Appliance, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The session of each program, all of which have ended."""
    sessions = {main: f"ended-{number}" for number, main in enumerate(ENDS)}
    spool = str(tmp_path_factory.mktemp("ended") / "spool")
    environment = {"PATH": "/usr/bin:/bin", "SESSION_SERVICE_URL": appliance.url, "SESSION_SPOOL_DIR": spool}
    programs = [
        (PROGRAM.format(repository=str(REPOSITORY), main=main), environment | {"SESSION_ID": session_id})
        for main, session_id in sessions.items()
    ]
    command = [sys.executable, "-c", FORKS]
    subprocess.run(command, input=json.dumps(programs), text=True, capture_output=True, timeout=120, check=True)
    return sessions


@pytest.mark.parametrize("main", ENDS)
def test_a_program_that_ends_has_ended_its_session_as_its_last_graph_did(
    ended: dict[str, str], http: httpx.Client, main: str
) -> None:
    session_id = ended[main]
    status, final, ends = ENDS[main]

    def has_ended() -> bool:
        answer = http.get(f"/api/sessions/{session_id}")
        return answer.status_code == 200 and answer.json()["metadata"]["status"] == status

    eventually(has_ended, SECONDS)
    session = http.get(f"/api/sessions/{session_id}").json()
    assert (session["final"] or {}).get("status", "") == final
    events = http.get(f"/api/sessions/{session_id}/events?limit=1000").json()["items"]
    assert [event["type"] for event in events].count("session_finalized") == ends


def test_missing_langchain_is_said_when_it_is_asked_for() -> None:
    program = (
        "import sys; sys.modules['langchain_core'] = None; import hook_agent\n"
        "try: hook_agent.SessionHookAgent('s').langchain_handler()\n"
        "except ImportError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == "langchain_handler() needs LangChain: pip install langchain-core\n"


IN_A_CONTAINER = """
import hook_agent
try: print(type(hook_agent.SessionHookAgent("s").langchain_handler()).__name__)
except ImportError as error: print(error)
"""


@pytest.mark.parametrize("is_copied", [True, False])
def test_the_file_beside_the_agent_is_found_and_named_where_it_is_missing(tmp_path: Path, is_copied: bool) -> None:
    for file in ("hook_agent.py", "containers/hook_agent_langchain.py")[: 1 + is_copied]:
        shutil.copy(REPOSITORY / file, tmp_path)
    command = [sys.executable, "-c", IN_A_CONTAINER]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    copy = f"copy containers/hook_agent_langchain.py, or http://localhost:9000/hook_agent_langchain.py, to {tmp_path}"
    said = "SessionCallbackHandler" if is_copied else f"langchain_handler() needs another file: {copy}"
    assert ran.stdout == f"{said}\n"


def test_importing_the_agent_imports_no_langchain() -> None:
    program = "import sys, hook_agent; print([name for name in sys.modules if name.startswith('lang')])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
