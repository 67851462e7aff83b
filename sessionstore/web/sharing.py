"""Shares of a session: begun, listed, ended."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, QueryParameter

from sessionstore.log import security
from sessionstore.model.drafts import checked
from sessionstore.model.events import text_of_time
from sessionstore.model.folds import Document
from sessionstore.web import openapi_models as answers
from sessionstore.web.openapi_models import exchanges, gives
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    caller_of,
    optional_object_of,
    session_in_path,
    shares_of,
    store_of,
)
from sessionstore.web.shares import Share

A_DAY = 86_400


class ShareWish(msgspec.Struct):
    """For how many seconds it is to last."""

    expires: Annotated[int, msgspec.Meta(ge=60, le=90 * A_DAY)] = 7 * A_DAY


def told(share: Share) -> Document:
    times = {"created": text_of_time(share.created), "expires": text_of_time(share.ends)}
    return {"shareId": share.share_id, "sessionId": share.session_id, **times, "by": share.by}


@post(
    "/api/sessions/{session_id:str}/shares",
    **exchanges(ShareWish, answers.NewShare, 404, 409, is_required=False, headers=(), status=201),
    tags=["sessions"],
)
async def share_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Make a read-only link to one session, that ends. Its capability is told this once, and only its hash is kept."""
    wanted = checked(await optional_object_of(request), ShareWish)
    begin, caller = await store_of(request).reader.created(session_in_path(session_id)), caller_of(request)
    share, capability = shares_of(request).begin(session_id, begin, caller.name, wanted.expires)
    security("session_shared", session_id=session_id, share=share.share_id, actor=share.by)
    members = {"success": True, **told(share), "capability": capability}
    members["fragment"] = f"#/session/{session_id}?share={capability}"
    return answer(msgspec.json.encode(members), 201, headers={"cache-control": "no-store"})


@get("/api/sessions/{session_id:str}/shares", responses=gives(answers.Shares, 404), tags=["sessions"])
async def list_shares(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """The links to a session that last."""
    begin = await store_of(request).reader.created(session_in_path(session_id))
    items = [told(share) for share in shares_of(request).of(session_id) if share.began == begin]
    return answer(msgspec.json.encode({"items": items}))


@delete(
    "/api/sessions/{session_id:str}/shares",
    responses=gives(answers.EndedShares),
    status_code=200,
    tags=["sessions"],
)
async def end_shares(
    request: Call,
    session_id: FromPath[str],
    share_id: Annotated[str | None, QueryParameter(name="shareId", description="This one alone")] = None,
) -> JSONResponse:
    """End the links to a session, or one of them, at once. None there is no error."""
    ended = shares_of(request).end(session_id, share_id)
    security("shares_ended", session_id=session_id, number=ended, actor=caller_of(request).name)
    return answer(msgspec.json.encode({"success": True, "ended": ended}))
