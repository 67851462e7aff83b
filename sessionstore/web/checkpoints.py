"""Threads of LangGraph over HTTP: what a saver keeps and wants back, and their steps for people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from sessionstore.model.problems import Problem, invalid, invalid_value, not_json
from sessionstore.store import checkpoints
from sessionstore.store.checkpoints import ThreadRow
from sessionstore.store.threads import CheckpointRow, Chosen, Threads
from sessionstore.web import openapi_models as answers
from sessionstore.web.asgi import Receive
from sessionstore.web.bodies import BodyUnderWay
from sessionstore.web.openapi import CHECKPOINT_LINES, NDJSON, OF_A_THREAD, described
from sessionstore.web.openapi_models import exchanges, gives, problems
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    body_of,
    check_may_belong,
    check_may_list,
    check_media_type,
    headers_of,
    may_have,
    store_of,
)
from sessionstore.web.transcripts import MAX_LINE, decoded_part, said_in

INTERRUPT = "__interrupt__"
"""The channel of a write that asks a person for something."""

Namespace = Annotated[str | None, QueryParameter(description="Only of this one; empty: the outermost graph")]
OptionalId = Annotated[str | None, QueryParameter(max_length=512)]


async def lines_of(receive: Receive, body: BodyUnderWay) -> AsyncIterator[bytes]:
    """The lines of the body. Raises Problem 400, 413."""
    buffer, looked = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "The request ended before its body did")
        buffer += message.get("body", b"")
        while (end := buffer.find(b"\n", looked) + 1) > 0:
            yield bytes(memoryview(buffer)[:end])
            del buffer[:end]
            body.let_go(end)
            looked = 0
        looked = len(buffer)
        if looked > MAX_LINE:
            raise Problem(413, f"A line may have at most {MAX_LINE} bytes", limit=MAX_LINE)
        if not message.get("more_body", False):
            break
    if buffer:
        yield bytes(buffer)


def threads_of(request: Call) -> Threads:
    return store_of(request).threads


async def found_at(request: Call, thread: str) -> ThreadRow:
    """What is there for who asks. Raises Problem 404."""
    found = await threads_of(request).find(thread)
    if found is None or not await may_have(request, found.written_by, found.session_id):
        raise checkpoints.no_thread(thread)
    return found


async def check_is_not_of_others(request: Call, thread: str) -> None:
    """Raises Problem 404."""
    found = await threads_of(request).find(thread)
    if found is not None and not await may_have(request, found.written_by, found.session_id):
        raise checkpoints.no_thread(thread)


@post(
    "/api/checkpoints/{thread:str}",
    operation_class=described(CHECKPOINT_LINES, OF_A_THREAD),
    responses=gives(answers.KeptCheckpoints, 404, 413, 415, 422),
    status_code=200,
    tags=["checkpoints"],
)
async def put_checkpoints(request: Call, thread: FromPath[str]) -> JSONResponse:
    """Keep values, writes and checkpoints of a thread, a line each: all or none. The same again changes nothing."""
    name = decoded_part("thread", thread)
    check_media_type(headers_of(request), NDJSON)
    await check_is_not_of_others(request, name)
    said = said_in(request)
    await check_may_belong(request, said.session_id)
    lines = lines_of(request.receive, request.scope["state"]["body"])  # type: ignore[arg-type]
    count = await threads_of(request).take(name, said, lines)
    return answer(msgspec.json.encode({"success": True, "count": count}))


@get(
    "/api/checkpoints/{thread:str}",
    media_type=NDJSON,
    responses=problems(401, 404, 422, 503)
    | {200: ResponseSpec(bytes, description="Lines of JSON", media_type=NDJSON, generate_examples=False)},
    tags=["checkpoints"],
)
async def get_checkpoints(
    request: Call,
    thread: FromPath[str],
    ns: Namespace = None,
    id: OptionalId = None,
    before: OptionalId = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 1,
) -> Stream:
    """Checkpoints of a thread, the newest first, each behind the values that it names."""
    found = await found_at(request, decoded_part("thread", thread))
    chosen = Chosen(ns, id, before, limit)
    headers = {"cache-control": "no-store"}
    return Stream(threads_of(request).checkpoints(found, chosen), media_type=NDJSON, headers=headers)


@get("/api/checkpoints/{thread:str}/steps", responses=gives(answers.Steps, 404, 422), tags=["checkpoints"])
async def list_steps(
    request: Call,
    thread: FromPath[str],
    ns: Namespace = None,
    before: OptionalId = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> JSONResponse:
    """The steps of a thread without their values, the newest first; `waits`: for a person."""
    found = await found_at(request, decoded_part("thread", thread))
    page = await threads_of(request).steps(found, Chosen(ns, None, before, limit))
    reader = store_of(request).reader
    items = []
    for one in page:
        of_one = found.thread_row, one.ns, one.checkpoint
        written = [channel for (channel,) in await reader.rows(checkpoints.WRITTEN, of_one)]
        waits = INTERRUPT in written and bool((await reader.row(checkpoints.IS_NEWEST, of_one))[0])
        items.append(step_of(one, written, waits=waits))
    following = page[-1].checkpoint if page and (len(page) == limit or page[-1].more) else None
    return answer(msgspec.json.encode({"items": items, "nextBefore": following}))


def step_of(found: CheckpointRow, written: list[str], *, waits: bool) -> dict[str, Any]:
    return {
        "id": found.checkpoint,
        "ns": found.ns,
        "parent": found.parent,
        "at": found.created,
        "about": msgspec.Raw(found.about.encode()),
        "channels": sorted(msgspec.json.decode(found.versions)),
        "written": written,
        "waits": waits,
    }


@get("/api/checkpoints", responses=gives(answers.ThreadPage, 422), tags=["checkpoints"])
async def list_threads(
    request: Call,
    after: Annotated[str, QueryParameter(max_length=512)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    session_id: Annotated[str | None, QueryParameter(name="sessionId", description="Only those of this one")] = None,
) -> JSONResponse:
    """The threads that are kept, by name."""
    check_may_list(request)
    chosen = {"after": after, "limit": limit, "session": session_id}
    rows = await store_of(request).reader.rows(checkpoints.THREADS, chosen)
    items = [
        {"thread": thread, "sessionId": session_id, "created": created, "updated": updated, "checkpoints": number}
        for thread, session_id, created, updated, written_by, number in rows
        if await may_have(request, written_by, session_id)
    ]
    following = rows[-1][0] if len(rows) == limit else None
    return answer(msgspec.json.encode({"items": items, "nextAfter": following}))


@delete(
    "/api/checkpoints/{thread:str}",
    responses=gives(answers.DeletedMaterial, 404, 422),
    status_code=200,
    tags=["checkpoints"],
)
async def delete_thread(request: Call, thread: FromPath[str]) -> JSONResponse:
    """Delete all of a thread. That there is none is no error."""
    name = decoded_part("thread", thread)
    await check_is_not_of_others(request, name)
    return deleted(await threads_of(request).delete(name))


@delete("/api/checkpoints", responses=gives(answers.DeletedMaterial, 422), status_code=200, tags=["checkpoints"])
async def delete_runs(
    request: Call,
    run_ids: Annotated[list[str], QueryParameter(name="runId", description="May repeat", min_items=1)],
) -> JSONResponse:
    """Delete the checkpoints that some runs made, in all threads that are there for who asks."""
    rows = await store_of(request).reader.rows(checkpoints.RUNS, (checkpoints.json_of(run_ids),))
    own = [thread_row for thread_row, *whose in rows if await may_have(request, *whose)]
    return deleted(await threads_of(request).delete_runs(own, run_ids))


def deleted(number: int) -> JSONResponse:
    return answer(msgspec.json.encode({"success": True, "deleted": number}))


class Copy(msgspec.Struct):
    """Into which thread."""

    to: checkpoints.Name


@post(
    "/api/checkpoints/{thread:str}/copy",
    **exchanges(Copy, answers.Succeeded, 404, headers=OF_A_THREAD),
    tags=["checkpoints"],
)
async def copy_thread(request: Call, thread: FromPath[str]) -> JSONResponse:
    """Copy all of a thread into another; values are shared."""
    found = await found_at(request, decoded_part("thread", thread))
    target = decoded(await body_of(request), Copy).to
    await check_is_not_of_others(request, target)
    said = said_in(request)
    await check_may_belong(request, said.session_id)
    await threads_of(request).copy(found, target, said._replace(session_id=said.session_id or found.session_id))
    return answer(b'{"success":true}')


class Prune(msgspec.Struct):
    """Which checkpoints to keep, in each namespace; those that are newer than all of them stay, too."""

    keep: dict[str, list[checkpoints.Name]]


@post(
    "/api/checkpoints/{thread:str}/prune",
    **exchanges(Prune, answers.DeletedMaterial, 404, headers=()),
    tags=["checkpoints"],
)
async def prune_thread(request: Call, thread: FromPath[str]) -> JSONResponse:
    """Delete the checkpoints of a thread that are older than the newest of those to keep, and not among them."""
    found = await found_at(request, decoded_part("thread", thread))
    keep = decoded(await body_of(request), Prune).keep
    if not all(keep.values()):
        raise invalid("$.keep", "must name a checkpoint of each namespace: DELETE takes all")
    return deleted(await threads_of(request).prune(found, keep))


def decoded(body: bytes, shape: Any) -> Any:
    """Raises Problem 400, 422."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise invalid_value(error, shape) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(str(error)) from None
