"""Human in the loop: what people may answer and order, and what an agent's side says of it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from sessionstore.model.drafts import Body, Id
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import invalid

MAX_TEXT = 4_000
"""Characters of what a person says to an agent: with what marks it as such it is less than hooks may say."""
MAX_INPUT = 64 << 10
"""Characters of the JSON of a changed input, or of answers."""
MAX_EXPIRES = 7 * 86_400
MAX_WAIT = 50.0
MAX_IDS = 100
"""Of what one call says that it was carried out, or refused."""

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Ids = Annotated[list[Id], msgspec.Meta(max_length=MAX_IDS)]
OrderKind = Literal["stop", "pause", "release", "say"]


class Answer(Body, kw_only=True):
    """What a person says to an ask. `answers`: to each question, or what goes on with an interrupt; `input`: of an
    allowed call, in the place of its own."""

    decision: Literal["allow", "deny", "answer"]
    message: Text | None = None
    answers: Any = None
    input: Document | None = None
    session_id: Annotated[Id | None, msgspec.Meta(description="Where several sessions have an ask of this id")] = None


class Order(Body, kw_only=True):
    """What a person wants of an agent: `agentId` of one agent alone; `orderId`: what is released; `expires`: seconds
    after which it is not to be carried out any more."""

    order: OrderKind
    text: Text | None = None
    agent_id: Id | None = None
    order_id: Id | None = None
    expires: Annotated[float, msgspec.Meta(gt=0, le=MAX_EXPIRES)] | None = None


class FleetOrder(Order, kw_only=True):
    """The same to all active sessions that match, or to `all`."""

    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    tag: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    all: bool = False


class Poll(msgspec.Struct, rename="camel", kw_only=True):
    """The agent's side asks what there is to carry out, and says what it has carried out. `ask`: the eventId of the
    action whose answer it waits for; `at`: the call before which it asks; `refused`: why, by id."""

    wait: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT)] = 0.0
    ask: Id | None = None
    done: Ids = []
    refused: Annotated[dict[Id, str], msgspec.Meta(max_length=MAX_IDS)] = {}
    at: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    agent_id: Id | None = None


TAKES: dict[str, tuple[str, ...]] = {
    "permission": ("allow", "deny"),
    "plan": ("allow", "deny"),
    "budget": ("allow", "deny"),
    "question": ("answer", "deny"),
    "elicitation": ("answer", "deny"),
    "interrupt": ("allow", "deny", "answer"),
}
"""The decisions that an ask of each kind takes."""


def check_answer(answer: Answer, kind: str) -> None:
    """Raises Problem 422 for what an ask of this kind does not take."""
    if answer.decision not in TAKES[kind]:
        raise invalid("$.decision", f"an ask of the kind {kind} takes {' or '.join(TAKES[kind])}")
    if answer.decision == "answer" and answer.answers is None and not (answer.message or "").strip():
        raise invalid("$.answers", "an answer needs answers, or a message")
    if answer.input is not None and (answer.decision != "allow" or kind != "permission"):
        raise invalid("$.input", "only an allowed call takes another input")
    for name in ("answers", "input"):
        if len(encode(getattr(answer, name))) > MAX_INPUT:
            raise invalid(f"$.{name}", f"may have at most {MAX_INPUT} characters of JSON")


def answered(answer: Answer, ask_id: str) -> Document:
    """The data of the event."""
    told = {"askId": ask_id, "decision": answer.decision, "message": answer.message, "answers": answer.answers}
    return {name: value for name, value in (told | {"input": answer.input}).items() if value is not None}


def check_order(order: Order) -> None:
    """Raises Problem 422 that names what it lacks, or has too much."""
    if order.order in ("stop", "say") and not (order.text or "").strip():
        raise invalid("$.text", f"the order {order.order} needs a text")
    if (order.order == "release") != (order.order_id is not None):
        raise invalid("$.orderId", "release needs the orderId of the pause, and no other order has one")


def ordered(order: Order, expires: str | None) -> Document:
    """The data of the event; `expires` as a time."""
    told = {"order": order.order, "text": order.text, "agentId": order.agent_id, "releases": order.order_id}
    return {name: value for name, value in (told | {"expires": expires}).items() if value is not None}
