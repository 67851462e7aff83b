"""A graph with two nodes at a time and a question to a person, as a process that can be killed.

`python -m tests.killed_graph STORE THREAD FOLDER [ANSWER]`: begins the graph, or goes on with it. Each node notes in
FOLDER that it ran; `slow` waits there for the file `go`.
"""

from __future__ import annotations

import operator
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from containers.langgraph_checkpointer import SessionStoreSaver


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def built(store: str, thread: str, folder: str, *answer: str) -> tuple[Any, RunnableConfig, Any]:
    """The graph, the configuration of its thread, and what it is to be given."""
    place = Path(folder)

    def note(name: str) -> None:
        with (place / "ran").open("a") as file:
            file.write(f"{name}\n")

    def fast(state: State) -> dict[str, Any]:
        note("fast")
        return {"said": ["fast"]}

    def slow(state: State) -> dict[str, Any]:
        note("slow")
        while not (place / "go").exists():
            time.sleep(0.01)
        return {"said": ["slow"]}

    def ask(state: State) -> dict[str, Any]:
        return {"said": [interrupt("May I?")]}

    builder = StateGraph(State)
    for name, node in (("fast", fast), ("slow", slow), ("ask", ask)):
        builder.add_node(name, node)
    builder.add_edge(START, "fast")
    builder.add_edge(START, "slow")
    builder.add_edge(["fast", "slow"], "ask")
    builder.add_edge("ask", END)
    graph = builder.compile(checkpointer=SessionStoreSaver(store))
    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    given: Any = {"said": ["begin"]}
    if graph.get_state(config).values:
        given = Command(resume=answer[0]) if answer else None
    return graph, config, given


def main(*arguments: str) -> None:
    graph, config, given = built(*arguments)
    print(graph.invoke(given, config, durability="sync"))


if __name__ == "__main__":
    main(*sys.argv[1:])
