"""What was said in a session: GET /api/sessions/ID/conversation, in each of its forms."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from sessionstore.model.conversation import Agent, Message
from sessionstore.model.folds import Document, decode, encode
from sessionstore.model.problems import unavailable
from sessionstore.store.reader import Reader
from sessionstore.web import openapi_models as answers
from sessionstore.web.conversation_pages import Folding, MessagePage, Source, pages, source_of
from sessionstore.web.conversation_text import SERVED_POLICY, Form, Html, Markdown
from sessionstore.web.openapi import NDJSON, tells_also
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import Call, JSONResponse, answer, session_in_path, store_of

DEEPEST = 8
"""Levels of agents within agents that are written out."""
WRITTEN: dict[str, tuple[type[Form], str, str]] = {
    "markdown": (Markdown, "text/markdown", "md"),
    "html": (Html, "text/html", "html"),
}

After = Annotated[str | None, QueryParameter(description="From here on, as `nextAfter` or a message's `cursor` says")]


@get(
    "/api/sessions/{session_id:str}/conversation",
    operation_class=tells_also("text/markdown", "text/html", NDJSON),
    responses=gives(answers.Conversation, 404, 422),
    tags=["sessions"],
)
async def get_conversation(
    request: Call,
    session_id: FromPath[str],
    form: Annotated[
        Literal["json", "markdown", "html", "jsonl"],
        QueryParameter(name="format", description="A page of messages; all as text; as one file; the lines as kept"),
    ] = "json",
    after: After = None,
    before: Annotated[
        str | None,
        QueryParameter(description="The last messages before this, as `nextBefore` says, or `end`: the last"),
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Messages; of `json` alone")] = 200,
    agent_id: Annotated[str | None, QueryParameter(name="agentId", description="That of a sub-agent")] = None,
) -> Response[bytes] | Stream:
    """What was said in a session, by people, models and tools, in order."""
    store = store_of(request)
    source = await source_of(store, session_in_path(session_id))
    source.check(agent_id)
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if form == "jsonl":
        return Stream(source.lines(agent_id), media_type=NDJSON, headers=headers)
    if form != "json":
        kind, media_type, ending = WRITTEN[form]
        metadata = decode(await store.reader.metadata(session_id))
        headers["content-disposition"] = f'inline; filename="{session_id}.{ending}"'
        headers |= {"content-security-policy": SERVED_POLICY, "referrer-policy": "no-referrer"}
        return Stream(written(source, kind(), metadata, agent_id), media_type=media_type, headers=headers)
    try:
        if before is None:
            page = await source.page(agent_id, after, limit)
        else:
            page = await source.page_before(agent_id, None if before == "end" else before, limit)
        return await told(store.reader, session_id, source, page)
    except ConnectionAbortedError:
        raise unavailable("The conversation was deleted or replaced while it was read: ask again") from None


async def told(reader: Reader, session_id: str, source: Source, page: MessagePage) -> JSONResponse:
    """A page, with what each request cost and the beginnings of what sub-agents said."""
    await Folding(source).fold(page.messages)
    await price(reader, session_id, page.messages)
    members = {
        "from": source.name,
        "items": page.messages,
        "nextAfter": page.next_after,
        "nextBefore": page.next_before,
        "more": page.more,
        "isAnew": page.is_anew,
        "agents": [agent.document() for agent in source.agents.values()],
    }
    return answer(msgspec.json.encode(members), headers={"cache-control": "no-store"})


COSTS = """
SELECT request_key, cost_usd FROM usage
WHERE session_id = ? AND request_key IN (SELECT value FROM json_each(?)) AND cost_usd IS NOT NULL"""


async def price(reader: Reader, session_id: str, messages: list[Message]) -> None:
    """What each request cost, as the ledger has it: of those messages that have one of their own."""
    found = [message for message in messages if message.usage is not None]
    names = Counter(message.request_id or message.id for message in found)
    costs = dict(await reader.rows(COSTS, (session_id, encode([*names])))) if names else {}
    for message in found:
        name = message.request_id or message.id
        if message.usage is not None and names[name] == 1:
            message.usage.cost_usd = costs.get(name)


# --------------------------------------------------------------------------- written


@cache
def writer() -> ThreadPoolExecutor:
    """One thread writes for all, a message at a time: what is long takes nobody's turn."""
    return ThreadPoolExecutor(1, "conversation")


async def written(source: Source, form: Form, metadata: Document, agent_id: str | None) -> AsyncIterator[bytes]:
    """A conversation in a form, piece by piece; each sub-agent where it was called, those of no known call last."""
    writing = Writing(source, form, metadata["userId"])
    yield form.head(metadata).encode()
    async for text in writing.conversation(agent_id, 0):
        yield text.encode()
    for other in [] if agent_id else [known for known in source.agents if known not in writing.seen]:
        async for text in writing.agent(Agent(agent_id=other, agent_type=source.agents[other].agent_type), 0):
            yield text.encode()
    yield form.foot().encode()


class Writing:
    """A conversation that is being written."""

    def __init__(self, source: Source, form: Form, person: str) -> None:
        self.source = source
        self.form = form
        self.person = person
        self.seen: set[str] = set()
        """Agents that have been written: none is twice, whatever is said of whom it calls."""

    async def conversation(self, agent_id: str | None, depth: int) -> AsyncIterator[str]:
        async for messages in pages(self.source, agent_id):
            for message in messages:
                parts = await asyncio.get_running_loop().run_in_executor(writer(), self.parts_of, message, depth)
                for part in parts:
                    if isinstance(part, str):
                        yield part
                        continue
                    async for text in self.agent(part, depth):
                        yield text

    def parts_of(self, message: Message, depth: int) -> list[str | Agent]:
        parts = self.form.message(message, self.person)
        return [self.indented(part, depth) if isinstance(part, str) else part for part in parts]

    def indented(self, text: str, depth: int) -> str:
        indent = self.form.indent * depth
        return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True)) if indent else text

    async def agent(self, agent: Agent, depth: int) -> AsyncIterator[str]:
        """Its whole conversation."""
        depth += 1
        yield self.indented(self.form.agent_begins(agent), depth)
        if agent.agent_id in self.seen or depth > DEEPEST:
            yield self.indented(self.form.note("Written elsewhere"), depth)
        else:
            self.seen.add(agent.agent_id)
            async for text in self.conversation(agent.agent_id, depth):
                yield text
        yield self.indented(self.form.agent_ends(), depth)
