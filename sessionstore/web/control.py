"""Human in the loop: what agents ask of people, what people answer and order, and the long poll of agents' sides."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from sessionstore.appliance import Store
from sessionstore.model import control
from sessionstore.model.drafts import checked, told_in
from sessionstore.model.events import Draft
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem, no_session
from sessionstore.store import control as stored
from sessionstore.store.selection import conditions, one_of
from sessionstore.web import openapi_models as answers
from sessionstore.web.openapi import takes
from sessionstore.web.openapi_models import gives
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

AskStatus = Literal["open", "answered", "closed"]


@get("/api/asks", responses=gives(answers.AskPage, 422), tags=["control"])
async def list_asks(
    request: Call,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1)] = None,
    status: Annotated[list[AskStatus] | None, QueryParameter(description="Open ones, else; may repeat")] = None,
    ask_id: Annotated[str | None, QueryParameter(name="askId", description="This one, whatever its status")] = None,
    session_id: Annotated[str | None, QueryParameter(name="sessionId")] = None,
    user_id: Annotated[str | None, QueryParameter(name="userId")] = None,
    project: Annotated[str | None, QueryParameter()] = None,
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


@post(
    "/api/asks/{ask_id:str}/answer",
    operation_class=takes(control.Answer),
    responses=gives(answers.Answered, 400, 404, 409, 413, 415, 422),
    status_code=200,
    tags=["control"],
)
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
    appended = await store.writer.submit(work, (draft,))
    return answer(encode({"success": True, "answerId": appended.event.event_id, "askId": ask.ask_id}))


async def named_asks(request: Call, ask_id: str, session_id: str | None) -> list[stored.Ask]:
    rows = await store_of(request).reader.rows(stored.FOUND, {"name": ask_id, "session": session_id})
    return [stored.Ask(*row) for row in rows]


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
    values: dict[str, object] = {"id": session_id, "actor": "" if caller.token is None else caller.token.name}
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


ROUTES = (list_asks, answer_ask, poll_control)
