"""What was used, and what it cost: of one session, or by person, project, model, tag, day; what came of a session."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get
from litestar.params import FromPath, FromQuery, QueryParameter

from sessionstore.model.events import utc
from sessionstore.store.changes import changes_of
from sessionstore.store.ledger import By, usage_by, usage_of_session
from sessionstore.web import openapi_models as answers
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import Call, JSONResponse, answer, joined, session_in_path, store_of

Moment = Annotated[str | None, QueryParameter(description="RFC 3339, taken to the quarter of an hour")]


@get("/api/sessions/{session_id:str}/usage", responses=gives(answers.SessionUsage, 404), tags=["usage"])
async def session_usage(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """What a session has used, by model, agent and prompt."""
    return answer(joined(await usage_of_session(store_of(request).reader, session_in_path(session_id))))


@get("/api/sessions/{session_id:str}/changes", responses=gives(answers.SessionChanges, 404), tags=["sessions"])
async def session_changes(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """What came of a session: files with their net diffs, the last run of tests, commits and pull requests."""
    return answer(await changes_of(store_of(request).reader, session_in_path(session_id)))


@get("/api/query/usage", responses=gives(answers.UsagePage, 422), tags=["usage"])
async def query_usage(
    request: Call, by: FromQuery[By] = "day", since: Moment = None, until: Moment = None
) -> JSONResponse:
    """What was used, and what it cost, the dearest first. Days and months are those of the server's time zone."""
    times = (text if text is None else utc(text, path) for text, path in ((since, "$.since"), (until, "$.until")))
    return answer(joined({"items": await usage_by(store_of(request).reader, by, *times)}))


@get("/api/budgets", responses=gives(answers.Budgets), tags=["usage"])
async def list_budgets(request: Call) -> JSONResponse:
    """Where each budget stands, for everybody whose it is."""
    standings = await store_of(request).budgets.standings()
    return answer(msgspec.json.encode({"items": [standing.document() for standing in standings]}))
