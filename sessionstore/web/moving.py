"""Taking over a session: its events as another store has them, with their ids and their times."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import post
from litestar.params import FromPath, QueryParameter

from sessionstore.model.events import Draft
from sessionstore.model.lines import drafts_of_history, lines_of_batch
from sessionstore.model.problems import Problem
from sessionstore.store.shard import FIRST, mark_of
from sessionstore.store.writer import LARGE
from sessionstore.web import openapi_models as answers
from sessionstore.web.fast_path import NDJSON, BatchWork
from sessionstore.web.openapi import LINES, described
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    check_media_type,
    headers_of,
    read_body,
    session_in_path,
    store_of,
)


@post(
    "/api/sessions/{session_id:str}/history",
    operation_class=described(LINES),
    responses=gives(answers.Batch, 404, 409, 413, 415),
    status_code=200,
    tags=["sessions"],
)
async def take_over(
    request: Call,
    session_id: FromPath[str],
    of_store: Annotated[
        str | None, QueryParameter(name="from", description="The mark of the store that has them")
    ] = None,
) -> JSONResponse:
    """Store events of a session as another store had them, one a line. What is here already is a duplicate."""
    store = store_of(request)
    session_id = session_in_path(session_id)
    first = await store.reader.row(FIRST)
    if of_store and first and of_store == mark_of(store.settings.database, first[0]):
        raise Problem(409, "This is the store that has them: a session cannot move to where it is")
    check_media_type(headers_of(request), NDJSON)
    body = await read_body(request.receive, store.settings.max_batch_bytes)  # type: ignore[arg-type]
    lines_of_batch(body)

    def read() -> tuple[BatchWork, list[Draft]]:
        lines = drafts_of_history(body, session_id)
        found = [draft for _, drafts in lines.drafts for draft in drafts]
        for draft in found:
            store.writer.redactor(draft)
        return BatchWork(lines), found

    work, found = await store.writer.beside(read) if len(body) > LARGE else read()
    return answer(msgspec.json.encode(await store.writer.submit(work, found, len(body))))
