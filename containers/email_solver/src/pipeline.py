"""A mail on its way: authenticate, fetch, classify, solve, reply; what is not to be answered is not solved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast
from uuid import uuid4

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph

from containers.email_message import Letter
from containers.work_loop import Reporter

from .classification import Classification, classify
from .inbox import Inbox, InboxError
from .outgoing import Outgoing


class Mail(TypedDict, total=False):
    key: str
    account: str
    letter: Letter
    category: str
    language: str
    calls: list[tuple[str, dict[str, Any]]]
    answers: list[str]
    reply: str | None


class Pipeline:
    """`tools` are the support desk's, by name."""

    def __init__(
        self, inbox: Inbox, outgoing: Outgoing, tools: Mapping[str, BaseTool], own_address: str, reporter: Reporter
    ) -> None:
        self._inbox = inbox
        self._outgoing = outgoing
        self._tools = tools
        self._own_address = own_address
        self._witness = reporter
        self._graph = self._compiled()

    async def run(self, key: str) -> str:
        """How it went with the mail. Raises InboxError, OSError, and what the tools raise, Trouble included."""
        config: RunnableConfig = {"callbacks": self._witness.callbacks()}
        mail = cast(Mail, await self._graph.ainvoke({"key": key}, config))
        self._outgoing.note(key, mail["letter"], mail["category"], mail.get("reply"))
        return f"{mail['category']}, answered" if mail.get("reply") else f"{mail['category']}, not to be answered"

    def _compiled(self) -> Any:
        graph: Any = StateGraph(Mail)
        graph.add_node("authenticate", self._authenticate)
        graph.add_node("fetch", self._fetch)
        graph.add_node("classify", self._classify)
        graph.add_node("solve", self._solve)
        graph.add_node("reply", self._reply)
        graph.add_edge(START, "authenticate")
        graph.add_edge("authenticate", "fetch")
        graph.add_edge("fetch", "classify")
        graph.add_conditional_edges("classify", _next, ["solve", END])
        graph.add_edge("solve", "reply")
        graph.add_edge("reply", END)
        return graph.compile(name="email pipeline")

    def _authenticate(self, mail: Mail) -> Mail:
        authenticate(self._inbox, self._witness)
        return {"account": self._inbox.account}

    def _fetch(self, mail: Mail) -> Mail:
        return {"letter": Letter.read(self._inbox.fetch(mail["key"]))}

    def _classify(self, mail: Mail) -> Mail:
        letter = mail["letter"]
        verdict = classify(letter, self._own_address)
        if self._outgoing.is_duplicate(mail["key"], letter):
            verdict = Classification("duplicate", verdict.language, [])
        return {"category": verdict.category, "language": verdict.language, "calls": verdict.calls}

    async def _solve(self, mail: Mail) -> Mail:
        return {"answers": [await self._ask(name, arguments) for name, arguments in mail["calls"]]}

    async def _ask(self, name: str, arguments: dict[str, Any]) -> str:
        call = {
            "name": self._tools[name].name,
            "args": arguments,
            "id": f"call-{uuid4().hex[:12]}",
            "type": "tool_call",
        }
        said = cast(ToolMessage, await self._tools[name].ainvoke(call))
        return str(json.loads(str(said.content))["answer"])

    def _reply(self, mail: Mail) -> Mail:
        return {"reply": self._outgoing.put(mail["letter"], "\n\n".join(mail["answers"]), mail["language"])}


def _next(mail: Mail) -> Literal["solve", "__end__"]:
    return "solve" if mail["calls"] else "__end__"


def authenticate(inbox: Inbox, reporter: Reporter) -> None:
    """Lets the reporter know where it was not logged in already. Raises InboxError."""
    try:
        is_new = inbox.login()
    except InboxError as error:
        reporter.service("mailbox", False, account=inbox.account, error=str(error))
        raise
    if is_new:
        reporter.notes("authentication", account=inbox.account, method=type(inbox).__name__.lower())
        reporter.service("mailbox", True, account=inbox.account)
