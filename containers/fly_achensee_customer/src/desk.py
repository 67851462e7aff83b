"""The customer desk: a governor hands each question to a specialist, reviews the draft, and answers.

         ┌────────────────────── next question, or the draft again ──────────────────────┐
         ▼                                                                               │
assign ──┬──▶ booking ───────────────┬──▶ review ────────────────────────────────────────┤
         ├──▶ weather_and_safety ────┤                                                   ▼
         ├──▶ vouchers_and_prices ───┘                                                 reply
         └─────────────────────────── nothing to look up ────────────────────────────────▲
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypedDict, TypeVar, cast

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from . import prompts
from .business import SPECIALISTS, Business, Specialist
from .enquiries import Enquiry
from .enquiry_context import Slip
from .models import Models
from .tools import tools_of

ROUNDS_WITH_TOOLS = 5
DRAFTS_OF_A_QUESTION = 2
"""The governor sends a draft back once; then it is taken as it is."""

Decision = TypeVar("Decision", bound=BaseModel)


class Question(BaseModel):
    """What one specialist is to answer."""

    specialist: Specialist
    text: str = Field(description="the part of the enquiry, in the customer's words")


class Assignment(BaseModel):
    """Who is to answer what."""

    kind: Literal["enquiry", "abusive", "off_topic"]
    language: str = Field(description="of the enquiry: de, en, …")
    questions: list[Question]


class Review(BaseModel):
    """Whether a draft can go to the customer."""

    accepted: bool
    remark: str = Field("", description="what is to be changed")


class Desk(TypedDict, total=False):
    enquiry: str  # its subject; all of it is in the slip
    kind: str
    language: str
    open: list[Question]  # the first is being answered
    draft: str
    looked_up: list[str]  # what the tools told for the draft
    written: int  # drafts for the first question
    remark: str
    accepted: list[str]
    reply: str


class Answering:
    """One enquiry on its way over the desk."""

    def __init__(self, business: Business, models: Models, enquiry: Enquiry) -> None:
        self._business = business
        self._models = models
        self._slip = Slip.of(enquiry)
        self._tools = tools_of(business, enquiry.received)

    async def run(self, config: RunnableConfig) -> Desk:
        """Raises what the model raises."""
        return cast(Desk, await self._graph().ainvoke({"enquiry": self._slip.subject, "accepted": []}, config))

    def _graph(self) -> Any:
        graph: Any = StateGraph(Desk)
        graph.add_node("assign", self._assign)
        graph.add_node("review", self._review)
        graph.add_node("reply", self._reply)
        for name in SPECIALISTS:
            graph.add_node(name, self._specialist(name))
            graph.add_edge(name, "review")
        graph.add_edge(START, "assign")
        graph.add_conditional_edges("assign", _next, [*SPECIALISTS, "reply"])
        graph.add_conditional_edges("review", _next, [*SPECIALISTS, "reply"])
        graph.add_edge("reply", END)
        return graph.compile(name="customer desk")

    async def _assign(self, state: Desk) -> Desk:
        assignment = await self._decide(Assignment, "assign", prompts.assign(self._business), str(self._slip))
        return {
            "kind": assignment.kind,
            "language": assignment.language,
            "open": assignment.questions,
            "written": 0,
            "remark": "",
        }

    def _specialist(self, name: Specialist) -> Callable[[Desk], Awaitable[Desk]]:
        async def answer(state: Desk) -> Desk:
            slip = self._slip._replace(part=state["open"][0].text, remark=state["remark"])
            system = SystemMessage(prompts.specialist(self._business, name))
            messages: list[BaseMessage] = [system, HumanMessage(str(slip))]
            draft = await self._work(name, messages)
            looked_up = [str(message.content) for message in messages if message.type == "tool"]
            return {"draft": draft, "looked_up": looked_up, "written": state["written"] + 1}

        return answer

    async def _work(self, name: Specialist, messages: list[BaseMessage]) -> str:
        """Model and tools in turns, until the model has a draft."""
        tools = {tool.name: tool for tool in self._tools[name]}
        model = self._models(name).bind_tools(list(tools.values()))
        for _ in range(ROUNDS_WITH_TOOLS):
            said = await model.ainvoke(messages)
            messages.append(said)
            if not said.tool_calls:
                return said.text
            messages += [await _use(tools, call) for call in said.tool_calls]
        raise RuntimeError(f"{name} has no draft after {ROUNDS_WITH_TOOLS} rounds with its tools")

    async def _review(self, state: Desk) -> Desk:
        question, *rest = state["open"]
        text = f"Part: {question.text}\n\nTools: {' '.join(state['looked_up'])}\n\nDraft: {state['draft']}"
        review = await self._decide(Review, "review", prompts.review(self._business), text)
        if not review.accepted and state["written"] < DRAFTS_OF_A_QUESTION:
            return {"remark": review.remark}
        return {"open": rest, "accepted": [*state["accepted"], state["draft"]], "written": 0, "remark": ""}

    async def _reply(self, state: Desk) -> Desk:
        given = {
            "name": self._slip.name,
            "language": state["language"],
            "kind": state["kind"],
            "drafts": state["accepted"],
        }
        prompt = SystemMessage(prompts.reply(self._business, state["language"]))
        said = await self._models("reply").ainvoke([prompt, HumanMessage(json.dumps(given, ensure_ascii=False))])
        return {"reply": said.text}

    async def _decide(self, kind: type[Decision], role: str, prompt: str, text: str) -> Decision:
        model = self._models(role).with_structured_output(kind)
        return cast(Decision, await model.ainvoke([SystemMessage(prompt), HumanMessage(text)]))


def _next(state: Desk) -> str:
    return state["open"][0].specialist if state["open"] else "reply"


async def _use(tools: dict[str, BaseTool], call: Any) -> BaseMessage:
    """What the tool gives; a model that asks for what cannot be is told so."""
    try:
        return cast(BaseMessage, await tools[call["name"]].ainvoke({**call, "type": "tool_call"}))
    except Exception as error:
        said = f"{call['name']} cannot be used so: {type(error).__name__}: {error}"
        return ToolMessage(said, tool_call_id=call["id"], name=call["name"], status="error")
