"""A LangGraph program that is watched by OpenInference, by OpenLLMetry or by the callback handler, as is said.

    python -m tests.traced_graph openinference|openllmetry|handler ...

Its model is scripted, and says what it has used. Where to is what OTEL_* and SESSION_* say.
"""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from hook_agent import SessionHookAgent

Json = dict[str, Any]


def usage(into: int, out: int, read: int) -> Any:
    details = {"input_token_details": {"cache_read": read}}
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out} | details


CALL = {"name": "add", "args": {"a": 2, "b": 3}, "id": "call-1"}
MODEL = {"model_name": "gpt-5"}
SAID = [
    AIMessage("", tool_calls=[CALL], usage_metadata=usage(100, 7, 60), response_metadata=MODEL),
    AIMessage("It is 5", usage_metadata=usage(140, 5, 100), response_metadata=MODEL),
    AIMessage("Short", usage_metadata=usage(30, 3, 0), response_metadata=MODEL),
]


class Scripted(GenericFakeChatModel):
    """Has a name, as real ones do."""

    def _get_ls_params(self, stop: list[str] | None = None, **options: Any) -> LangSmithParams:
        return super()._get_ls_params(stop, **options) | {"ls_model_name": "gpt-5", "ls_provider": "openai"}


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def graph() -> Any:
    """Asks a model, which has a tool called, and has a smaller graph sum up."""
    model = Scripted(messages=iter(SAID))
    inner = StateGraph(MessagesState)
    inner.add_node("sum_up", lambda state, config: {"messages": [model.invoke(state["messages"], config)]})
    inner.add_edge(START, "sum_up")
    outer = StateGraph(MessagesState)
    outer.add_node("ask", lambda state, config: {"messages": [model.invoke(state["messages"], config)]})
    outer.add_node("tools", ToolNode([add]))
    outer.add_node("writer", inner.compile(name="writer"))
    outer.add_edge(START, "ask")
    outer.add_conditional_edges("ask", tools_condition, {"tools": "tools", END: "writer"})
    outer.add_edge("tools", "ask")
    outer.add_edge("writer", END)
    return outer.compile(name="team")


def instrument(name: str) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(compression=Compression.Gzip)))
    trace.set_tracer_provider(provider)
    if name == "openinference":
        from openinference.instrumentation.langchain import LangChainInstrumentor as OpenInference

        OpenInference().instrument(tracer_provider=provider)
    else:
        from opentelemetry.instrumentation.langchain import LangchainInstrumentor as OpenLLMetry

        OpenLLMetry().instrument(tracer_provider=provider)
    return provider


def main(names: list[str]) -> None:
    agent = SessionHookAgent() if "handler" in names else None
    handlers: list[BaseCallbackHandler] = [agent.langchain_handler()] if agent else []
    providers = [instrument(name) for name in names if name != "handler"]
    config: RunnableConfig = {"callbacks": handlers, "configurable": {"thread_id": "thread-of-a-graph"}}
    graph().invoke({"messages": [HumanMessage("2 + 3?")]}, config)
    for provider in providers:
        provider.shutdown()
    if agent:
        assert agent.sync.flush(60)
        agent.sync.close()


if __name__ == "__main__":
    main(sys.argv[1:])
