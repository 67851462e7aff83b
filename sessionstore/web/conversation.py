"""What was said in a session: GET /api/sessions/ID/conversation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import get
from litestar.params import FromPath, QueryParameter

from sessionstore.web import openapi_models as answers
from sessionstore.web.conversation_pages import Folding, source_of
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import Call, JSONResponse, answer, session_in_path, store_of

After = Annotated[str | None, QueryParameter(description="From here on, as `nextAfter` or a message's `cursor` says")]


@get(
    "/api/sessions/{session_id:str}/conversation",
    responses=gives(answers.Conversation, 404, 422),
    tags=["sessions"],
)
async def get_conversation(
    request: Call,
    session_id: FromPath[str],
    form: Annotated[Literal["json"], QueryParameter(name="format")] = "json",
    after: After = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Messages; of `json` alone")] = 200,
    agent_id: Annotated[str | None, QueryParameter(name="agentId", description="That of a sub-agent")] = None,
) -> JSONResponse:
    """What was said in a session, by people, models and tools, in order."""
    source = await source_of(store_of(request), session_in_path(session_id))
    page = await source.page(agent_id, after, limit)
    await Folding(source).fold(page.messages)
    members = {
        "from": source.name,
        "items": page.messages,
        "nextAfter": page.next_after,
        "more": page.more,
        "isAnew": page.is_anew,
        "agents": [agent.document() for agent in source.agents.values()],
    }
    return answer(msgspec.json.encode(members))


ROUTES = (get_conversation,)
