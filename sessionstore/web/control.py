"""Human in the loop: what agents ask of people, what people answer and order, and the long poll of agents' sides."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from sessionstore.appliance import Store
from sessionstore.model import control
from sessionstore.model.drafts import checked, told_in
from sessionstore.model.events import Draft, text_of_time
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem, invalid, no_session
from sessionstore.store import control as stored
from sessionstore.store.selection import Which, conditions, one_of
from sessionstore.web import openapi_models as answers
from sessionstore.web.openapi import takes
from sessionstore.web.openapi_models import exchanges, gives
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    caller_of,
    headers_of,
    joined,
    object_of,
    session_in_path,
    store_of,
)

LOOK_SECONDS = 1.0
"""How often it is looked whether a session that was not there has come."""

Limit = Annotated[int, QueryParameter(ge=1, le=500)]
Cursor = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1)]
UserId = Annotated[str | None, QueryParameter(name="userId")]
Project = Annotated[str | None, QueryParameter()]
AskStatus = Literal["open", "answered", "closed"]


@get("/api/asks", responses=gives(answers.AskPage, 422), tags=["control"])
async def list_asks(
    request: Call,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: Annotated[list[AskStatus] | None, QueryParameter(description="Open ones, else; may repeat")] = None,
    ask_id: Annotated[str | None, QueryParameter(name="askId", description="This one, whatever its status")] = None,
    session_id: Annotated[str | None, QueryParameter(name="sessionId")] = None,
    user_id: UserId = None,
    project: Project = None,
) -> JSONResponse:
    """What agents want from people, the oldest first. `canAnswer`: somebody waits who will hand the answer on."""
    store = store_of(request)
    statuses = status or (() if ask_id else ("open",))
    where, values = conditions(
        ("a.cursor > ?", cursor),
        one_of("a.status", statuses),
        ("a.cursor IN (SELECT ask FROM named_asks WHERE event_id = ?)", ask_id),
        ("a.session_id = ?", session_id),
        ("s.user_id = ?", user_id),
        ("l.project = ?", project),
    )
    tables = [
        *(("open",) if "open" in statuses or not statuses else ()),
        *(() if statuses == ("open",) else ("ended",)),
    ]
    query = stored.asks(stored.LISTED, where, of=tables, around="ORDER BY a.cursor LIMIT ?")
    found = await store.reader.some(
        f"SELECT * FROM ({query}) ORDER BY 2 LIMIT ?", [*[*values, limit + 1] * len(tables), limit + 1]
    )
    page = found.page(limit)
    items = [
        f'{row[0][:-1]},"canAnswer":{encode(row[3] == "open" and is_waited_for(store, row[1], row[2], row[4]))}}}'
        for row in found.rows[:limit]
    ]
    return answer(joined({"items": f"[{','.join(items)}]", "nextCursor": encode(page.following)}))


def is_waited_for(store: Store, cursor: int, session_id: str, reason: str) -> bool:
    """Whether somebody will hand on the answer to an ask; what a budget asks is carried out by orders."""
    if reason == "budget":
        return store.outbox.is_reachable(session_id)
    return store.outbox.can_answer(session_id, cursor)


@post("/api/asks/{ask_id:str}/answer", **exchanges(control.Answer, answers.Answered, 404, 409), tags=["control"])
async def answer_ask(request: Call, ask_id: FromPath[str]) -> JSONResponse:
    """Answer an ask. 409 if it is not open: who was faster; or if nobody waits for the answer."""
    store = store_of(request)
    said = checked(await object_of(request), control.Answer)
    found = await named_asks(request, ask_id, said.session_id)
    ask = stored.one_ask(found, ask_id)
    told = told_in(headers_of(request))
    draft = Draft(type="answered", session_id=ask.session_id, data={}, names_something=True)
    draft.event_id, draft.is_same_by_id = said.event_id or told.event_id, False
    caller_of(request).sign(draft)
    work = stored.GiveAnswer(ask, said, draft, store.writer.redactor)
    if ask.status == "open" and not is_waited_for(store, ask.cursor, ask.session_id, ask.reason):
        raise Problem(409, f"Nobody waits for the answer to {ask_id!r}: it is asked where the agent runs")
    event = (await store.writer.submit(work, (draft,))).event
    return answer(kept(event.cursor, event.event_id, answerId=event.event_id, askId=ask.ask_id))


def kept(cursor: int, event_id: str, **members: Any) -> str:
    """As every write is answered, and what it was."""
    return encode({"success": True, **members, "cursor": cursor, "eventId": event_id})


async def named_asks(request: Call, ask_id: str, session_id: str | None) -> list[stored.Ask]:
    rows = await store_of(request).reader.rows(stored.FOUND, {"name": ask_id, "session": session_id})
    return [stored.Ask(*row) for row in rows]


# ------------------------------------------------------------------------- orders

OrderStatus = Literal["waiting", "delivered", "expired", "refused"]
AT_ONCE = 100
"""Orders that the writer is given at once."""
MOST_SESSIONS = 10_000
MOST_LISTED = 1_000
"""Sessions that could not be reached, as the answer lists them."""


@post(
    "/api/sessions/{session_id:str}/orders",
    **exchanges(control.Order, answers.Ordered, 404, 409, status=201),
    tags=["control"],
)
async def order_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Stop, pause, release, or tell something to a session, or one agent of it. 409 where it cannot be reached."""
    session_id, store = session_in_path(session_id), store_of(request)
    said = checked(await object_of(request), control.Order)
    draft = order_draft(request, session_id, said)
    if said.order != "release" and not store.outbox.is_reachable(session_id):
        await store.reader.known(session_id)
        raise stored.unreachable(f"Nobody has asked for orders of the session {session_id!r} within 60 s")
    event = (await store.writer.submit(stored.GiveOrder(draft), (draft,))).event
    return answer(kept(event.cursor, event.event_id, orderId=event.event_id), 201)


def order_draft(request: Call, session_id: str, said: control.Order, event_id: str | None = None) -> Draft:
    """Raises Problem 422."""
    control.check_order(said)
    expires = None if said.expires is None else text_of_time(time.time() + said.expires)
    draft = Draft(type="ordered", session_id=session_id, data=control.ordered(said, expires), names_something=True)
    draft.event_id = event_id or said.event_id or told_in(headers_of(request)).event_id
    draft.is_same_by_id = True  # its expiry is counted from when it is said
    caller_of(request).sign(draft)
    return draft


@post("/api/orders", **exchanges(control.FleetOrder, answers.OrderedAll, status=201), tags=["control"])
async def order_sessions(request: Call) -> JSONResponse:
    """The same to all active sessions that match; a release to all that the order with `orderId` has paused."""
    store = store_of(request)
    said = checked(await object_of(request), control.FleetOrder)
    order_id = said.event_id or told_in(headers_of(request)).event_id or f"order-{secrets.token_hex(8)}"
    order_draft(request, "any", said, order_id)
    matching = await sessions_for(store, said)
    reached = [one for one in matching if said.order == "release" or store.outbox.is_reachable(one)]
    taken: list[str] = []
    for at in range(0, len(reached), AT_ONCE):
        drafts = [order_draft(request, one, said, order_id) for one in reached[at : at + AT_ONCE]]
        taken += await store.writer.submit(stored.GiveOrders(drafts), drafts)
    left = sorted({*matching}.difference(taken))
    members = {"ordered": len(taken), "unreachable": left[:MOST_LISTED], "unreachableTotal": len(left)}
    return answer(kept(store.writer.cursor, order_id, orderId=order_id, **members), 201)


async def sessions_for(store: Store, said: control.FleetOrder) -> list[str]:
    """Those that are meant. Raises Problem 422 where that is not said."""
    named = said.user_id is not None or said.project is not None or said.tag is not None
    if not named and not said.all and said.order != "release":
        raise invalid("$.all", "say userId, project or tag, or that all sessions are meant")
    which = Which(statuses=("active", "waiting"), user_id=said.user_id, project=said.project, tag=said.tag)
    where, values = conditions(*which.terms())
    if said.order == "release":
        where, values = f"s.session_id IN ({stored.PAUSED}) AND {where}", [said.order_id, *values]
    query = f"SELECT s.session_id FROM sessions s WHERE {where} ORDER BY s.session_id LIMIT {MOST_SESSIONS}"
    return [session_id for (session_id,) in await store.reader.rows(query, values)]


Statuses = Annotated[list[OrderStatus] | None, QueryParameter(description="Only of these; may repeat")]
OrderId = Annotated[str | None, QueryParameter(name="orderId")]


@get("/api/orders", responses=gives(answers.OrderPage, 422), tags=["control"])
async def list_orders(
    request: Call,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: Statuses = None,
    order_id: OrderId = None,
    user_id: UserId = None,
    project: Project = None,
) -> JSONResponse:
    """Orders of all sessions and what became of them, the newest first."""
    narrowed = ("r.order_id = ?", order_id), ("s.user_id = ?", user_id), ("l.project = ?", project)
    return answer(joined(await orders(store_of(request), limit, cursor, status, *narrowed)))


@get("/api/sessions/{session_id:str}/orders", responses=gives(answers.OrderPage, 404, 422), tags=["control"])
async def list_session_orders(
    request: Call, session_id: FromPath[str], limit: Limit = 100, cursor: Cursor = None, status: Statuses = None
) -> JSONResponse:
    """The same of a session, and whether orders reach it."""
    store, session_id = store_of(request), session_in_path(session_id)
    await store.reader.known(session_id)
    members = await orders(store, limit, cursor, status, ("r.session_id = ?", session_id))
    return answer(joined(members | {"reach": encode(reach(store, session_id))}))


async def orders(
    store: Store, limit: int, before: int | None, statuses: Iterable[str] | None, *terms: tuple[str, Any]
) -> dict[str, str]:
    where, values = conditions(("r.cursor < ?", before), one_of("r.status", statuses or ()), *terms)
    found = await store.reader.some(stored.ORDER.format(where=where), [*values, limit + 1])
    page = found.page(limit)
    return {"items": page.array(), "nextCursor": encode(page.following)}


def reach(store: Store, session_id: str) -> Document:
    """Whether orders reach a session: somebody has asked for them lately."""
    ago = store.outbox.last_poll(session_id)
    last = None if ago is None else text_of_time(time.time() - ago)
    return {"reachable": store.outbox.is_reachable(session_id), "lastPoll": last}


# -------------------------------------------------------------------- agents' side


@post(
    "/api/sessions/{session_id:str}/control",
    operation_class=takes(control.Poll, headers=()),
    responses=gives(answers.ControlItems, 400, 404, 413, 415, 422)
    | {204: ResponseSpec(None, description="Nothing", generate_examples=False)},
    status_code=200,
    tags=["control"],
)
async def poll_control(request: Call, session_id: FromPath[str]) -> Response[Any]:
    """What there is for an agent to carry out, for its own side: of the token that wrote the session. 204: nothing."""
    session_id = session_in_path(session_id)
    poll = checked(await object_of(request), control.Poll)
    more = {name: value for name, value in (("at", poll.at), ("agentId", poll.agent_id)) if value is not None}
    drafts = stored.settlements(session_id, poll.done, poll.refused, more, caller_of(request).sign)
    items = await while_connected(request, offered(request, session_id, poll, drafts))
    if not items:
        return Response(None, status_code=204)
    return answer(msgspec.json.encode({"items": items}))


async def offered(request: Call, session_id: str, poll: control.Poll, drafts: list[Draft]) -> list[Document]:
    """Raises Problem 404 where the session is not there, or another token's, for as long as the poll waits."""
    outbox, until = store_of(request).outbox, time.monotonic() + poll.wait
    while not await is_own(request, session_id):
        left = until - time.monotonic()
        if left <= 0 or outbox.is_closed:
            raise no_session(session_id)
        await outbox.changed(session_id, min(left, LOOK_SECONDS))
    await outbox.settle(drafts)
    return await outbox.poll(session_id, poll, until)


async def is_own(request: Call, session_id: str) -> bool:
    """Whether there is this session, and it is one that this token has written."""
    caller = caller_of(request)
    values: dict[str, object] = {"id": session_id, "actor": caller.name or ""}
    row = await store_of(request).reader.row(stored.WRITTEN_BY, values)
    bounds = caller.token and caller.token.bounds
    if row is None or (bounds and not bounds.hold(*row[:3])):
        return False
    return caller.role != "ingest" or bool(bounds or row[3])


async def while_connected(request: Call, work: Any) -> Any:
    """What it returns, unless who asked goes away; then nothing."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()


async def gone(request: Call) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
