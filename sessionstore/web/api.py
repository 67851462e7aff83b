"""The REST API: each handler decodes, makes one call, answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlencode

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from sessionstore import __version__
from sessionstore.adapters import claude_code
from sessionstore.analytics.catalogue import questions
from sessionstore.model import drafts as requests
from sessionstore.model import folds
from sessionstore.model.drafts import draft_of, object_in
from sessionstore.model.events import Draft, is_id, now, utc
from sessionstore.model.folds import Document
from sessionstore.model.problems import MEDIA_TYPE, Problem, in_words, invalid
from sessionstore.store.appender import Appended
from sessionstore.store.closing import DeleteUnchanged
from sessionstore.store.reader import Page
from sessionstore.store.search import Narrowed
from sessionstore.store.selection import Which
from sessionstore.store.writer import LARGE
from sessionstore.web import openapi_models as answers
from sessionstore.web.fast_path import entry, logged, stored_batch
from sessionstore.web.forwarded import prefix_in
from sessionstore.web.gate import COOKIE, Gate, asked_in, cookie_of, who_is_shown
from sessionstore.web.openapi import (
    JSON,
    LINES,
    MERGE_PATCH,
    NDJSON,
    OF_A_CONDITIONAL_WRITE,
    OF_A_WRITE,
    described,
    takes,
)
from sessionstore.web.openapi_models import exchanges, gives, problems
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    append,
    body_of,
    caller_of,
    check_media_type,
    done,
    headers_of,
    if_match,
    joined,
    object_of,
    optional_object_of,
    read_body,
    session_in_path,
    split,
    store_of,
)
from sessionstore.web.transcripts import conversations_of

logger = logging.getLogger(__name__)

LOGIN_BYTES, LOGIN_SECONDS = 4 << 10, 5.0
"""What the body of a log-in, which anybody may send, may have, and how long it may take."""

MAX_CURSOR = 2**63 - 1

Cursor = Annotated[int, QueryParameter(ge=0, le=MAX_CURSOR)]
OptionalCursor = Annotated[int | None, QueryParameter(ge=0, le=MAX_CURSOR)]
Order = Literal["asc", "desc"]
Types = Annotated[list[str] | None, QueryParameter(name="type", description="Only these; may repeat")]
Kinds = Annotated[list[str] | None, QueryParameter(name="kind", description="Only entries of these types; may repeat")]
AgentId = Annotated[str | None, QueryParameter(name="agentId")]
SessionIds = Annotated[list[str] | None, QueryParameter(name="sessionId", description="Only these; may repeat")]
SessionId = Annotated[str | None, QueryParameter(name="sessionId")]
UserId = Annotated[str | None, QueryParameter(name="userId")]
GroupBy = Annotated[
    Literal["project", "user", "branch", "host", "tag"] | None,
    QueryParameter(name="groupBy", description="Answers `groups` instead: how many sessions of each status each has"),
]

# ----------------------------------------------------------------------- sessions


@post(
    "/api/sessions",
    operation_class=takes(requests.NewSession),
    responses=gives(answers.Entered, 400, 409, 413, 415, 422, status=201) | {200: ResponseSpec(answers.Entered)},
    tags=["sessions"],
)
async def create_session(request: Call) -> JSONResponse:
    """Create a session. 200 if it is there just so already, 409 if it is there in another way."""
    body = await object_of(request)
    require(body, "sessionId", "userId", "initial")
    session_id = requests.checked(body, requests.NewSession).session_id
    draft = draft_of("session_created", session_id, body, headers_of(request), must_be_new=True)
    return await entered(request, draft)


@put(
    "/api/sessions/{session_id:str}",
    operation_class=takes(requests.SessionEntry),
    responses=gives(answers.Entered, 400, 404, 413, 415, 422) | {201: ResponseSpec(answers.Entered)},
    tags=["sessions"],
)
async def enter_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Create a session or resume it: the agent's way in, safe to repeat."""
    body = await object_of(request)
    require(body, "userId")
    requests.checked(body, requests.SessionEntry)
    draft = draft_of("session_created", session_in_path(session_id), body, headers_of(request))
    return await entered(request, draft)


async def entered(request: Call, draft: Draft) -> JSONResponse:
    store = store_of(request)
    appended = await append(request, draft)
    is_new = appended.event.type == "session_created" and not appended.duplicate
    members = {
        "success": "true",
        "sessionId": folds.encode(draft.session_id),
        "path": folds.encode(str(store.settings.directory / "sessions" / draft.session_id)),
        "cursor": str(appended.event.cursor),
        "eventId": folds.encode(appended.event.event_id),
        "metadata": await store.reader.metadata(draft.session_id),
    }
    return answer(joined(members), 201 if is_new else 200)


async def told(
    request: Call,
    event_type: str,
    session_id: str,
    read: Callable[[Call], Awaitable[Document]] = object_of,
    *,
    is_new: bool = False,
    **named: str,
) -> Appended:
    """The event that the body is about: of something new in the session, or of what is there. `named`: by the path."""
    session_id = session_in_path(session_id)
    body = await read(request)
    body |= {name: id_in_path(text, name.removesuffix("Id")) for name, text in named.items()}
    draft = draft_of(event_type, session_id, body, headers_of(request), must_be_new=is_new, names_something=not is_new)
    return await append(request, draft)


def id_in_path(text: str, noun: str) -> str:
    if is_id(text):
        return text
    raise Problem(404, f"There is no {noun} {text!r} in this session")


def require(body: Document, *names: str) -> None:
    for name in names:
        if name not in body:
            raise Problem(400, f"{name} is missing", path=f"$.{name}")


@get("/api/sessions", responses=gives(answers.SessionPage, 422), tags=["sessions"])
async def list_sessions(
    request: Call,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
    cursor: OptionalCursor = None,
    status: Annotated[list[answers.Status] | None, QueryParameter(description="Only of these; may repeat")] = None,
    session_id: SessionIds = None,
    user_id: UserId = None,
    tag: FromQuery[str | None] = None,
    parent: FromQuery[str | None] = None,
    q: Annotated[str | None, QueryParameter(description="Text anywhere in the metadata", max_length=1000)] = None,
    project: FromQuery[str | None] = None,
    branch: FromQuery[str | None] = None,
    host: FromQuery[str | None] = None,
    pinned: FromQuery[bool | None] = None,
    origin: Annotated[str | None, QueryParameter(description="Only what goes on from this session")] = None,
    since: Annotated[str | None, QueryParameter(description="Not those that were over by then, RFC 3339")] = None,
    until: Annotated[str | None, QueryParameter(description="Only those that had begun before this time")] = None,
    details: Annotated[bool, QueryParameter(description="Also what each is at, as /api/query/active says it")] = False,
    group_by: GroupBy = None,
) -> JSONResponse:
    """Sessions, newest change first; or how many there are of each project, user …, those with most trouble first."""
    reader = store_of(request).reader
    which = Which(
        statuses=status or (),
        session_ids=session_id or (),
        user_id=user_id,
        tag=tag,
        parent=parent,
        origin=origin,
        text=q,
        project=project,
        branch=branch,
        host=host,
        is_pinned=pinned,
        since=since if since is None else utc(since, "$.since"),
        until=until if until is None else utc(until, "$.until"),
    )
    if group_by is not None:
        return answer(joined({"groups": (await reader.groups(group_by, which)).array()}))
    page = await reader.sessions(which, limit=limit, before=cursor, details=details)
    return answer(joined({"items": page.array(), "nextCursor": folds.encode(page.following)}))


@get("/api/sessions/{session_id:str}", responses=gives(answers.Session, 404, 422), tags=["sessions"])
async def get_session(
    request: Call,
    session_id: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=0, le=10000, description="The newest so many of each log")] = 1000,
) -> JSONResponse:
    """All of a session."""
    return answer(joined(await store_of(request).reader.session(session_in_path(session_id), limit)))


@get("/api/sessions/user/{user_id:path}", responses=gives(list[answers.SessionOfUser]), tags=["sessions"])
async def list_sessions_of_user(request: Call, user_id: FromPath[str]) -> JSONResponse:
    """The sessions of a user, newest first."""
    page = await store_of(request).reader.sessions_of_user(unquote(user_id.removeprefix("/")))
    return answer(page.array())


@patch(
    "/api/sessions/{session_id:str}/metadata",
    **exchanges(requests.MetadataChange, answers.Done, 404, 421),
    tags=["sessions"],
)
async def update_metadata(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Set members of the metadata. A dotted name goes into an object; a value "+N" on a number adds."""
    return done(await told(request, "metadata_updated", session_id))


@post("/api/sessions/{session_id:str}/notes", **exchanges(requests.Note, answers.Done, 404, 421), tags=["sessions"])
async def add_note(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Note something about a session, or about one of its events: for people, it is no word of the agent."""
    return done(await told(request, "note_added", session_id))


@post(
    "/api/sessions/{session_id:str}/finalize",
    **exchanges(requests.Finalization, answers.Done, 404, 421, is_required=False),
    tags=["sessions"],
)
async def finalize_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """End a session."""
    return done(await told(request, "session_finalized", session_id, optional_object_of))


@delete(
    "/api/sessions/{session_id:str}",
    operation_class=described(headers=OF_A_WRITE),
    responses=gives(answers.Done, 404, 412, 422),
    status_code=200,
    tags=["sessions"],
)
async def delete_session(
    request: Call,
    session_id: FromPath[str],
    last_cursor: Annotated[
        int | None, QueryParameter(name="lastCursor", ge=0, le=MAX_CURSOR, description="Only if this is its newest")
    ] = None,
    material: Annotated[
        str | None,
        QueryParameter(max_length=64, description="With lastCursor: only if its conversations have this stamp"),
    ] = None,
    reason: Annotated[requests.Reason, QueryParameter(description="Why: the event says it")] = "person",
    moved_to: Annotated[
        str | None,
        QueryParameter(name="movedTo", description="The URL of the store that has it now: writes here are 421"),
    ] = None,
) -> JSONResponse:
    """Delete a session and all that was logged in it; its sub-sessions stay."""
    session_id = session_in_path(session_id)
    why = {"reason": reason} | ({"movedTo": moved_to} if moved_to else {})
    draft = draft_of("session_deleted", session_id, why, headers_of(request))
    if reason in ("retention", "prune"):
        store_of(request).lake.check_sealed(last_cursor)
    if last_cursor is None:
        return done(await append(request, draft))
    caller_of(request).sign(draft)
    return done(await store_of(request).writer.submit(DeleteUnchanged(draft, last_cursor, material), (draft,)))


@get("/api/sessions/{session_id:str}/resume", responses=gives(answers.Resume, 404), tags=["sessions"])
async def resume_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """All that an agent needs to go on where the last one stopped; `conversations` are had at /api/transcripts."""
    members = await store_of(request).reader.resume(session_in_path(session_id))
    return answer(joined(members | {"conversations": await conversations_of(request, session_id)}))


@get(
    "/api/sessions/{session_id:str}/archive",
    media_type="application/gzip",
    responses=problems(401, 404, 503)
    | {200: ResponseSpec(bytes, description="A tar", media_type="application/gzip", generate_examples=False)},
    tags=["sessions"],
)
async def archive_session(request: Call, session_id: FromPath[str]) -> Stream:
    """A session as one compressed tar: its folder of the file tree, and a manifest; for admin with its material."""
    with_material = caller_of(request).role == "admin"
    download = await store_of(request).archives.download(session_in_path(session_id), with_material=with_material)
    headers = {"content-disposition": f'attachment; filename="{download.file_name}"', "cache-control": "no-store"}
    return Stream(download.pieces(), media_type="application/gzip", headers=headers)


@get("/api/sessions/{session_id:str}/events", responses=gives(answers.EventPage, 404, 422), tags=["events"])
async def list_session_events(
    request: Call,
    session_id: FromPath[str],
    after: Cursor = 0,
    before: OptionalCursor = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    order: FromQuery[Order] = "asc",
    types: Types = None,
    kinds: Kinds = None,
    agent_id: AgentId = None,
    errors: Annotated[bool, QueryParameter(description="Only what went wrong")] = False,
    brief: Annotated[bool, QueryParameter(description="Cut long data; `brief` in an event says so")] = False,
) -> JSONResponse:
    """The timeline of a session. In descending order `nextBefore` goes on, as `before`."""
    page = await store_of(request).reader.session_events(
        session_in_path(session_id),
        limit=limit,
        after=after,
        before=before,
        order=order,
        types=split(types),
        kinds=split(kinds),
        agent_id=agent_id,
        errors=errors,
        brief=brief,
    )
    return answer(event_page(page, order, after))


def event_page(page: Page, order: Order, after: int) -> str:
    if order == "desc":
        following = {"nextAfter": "null", "nextBefore": folds.encode(page.following)}
    else:
        following = {"nextAfter": str(after if page.following is None else page.following)}
    return joined({"items": page.array()} | following)


# --------------------------------------------------------------------------- logs


LOGS = ["/api/actions/{session_id:str}", "/api/actions/{session_id:str}/responses"]


def log_in_path(request: Call) -> str:
    """Of which of the two logs the path is."""
    return "response" if request.scope["path_template"].endswith("/responses") else "action"


@post(LOGS, **exchanges(requests.LogEntry, answers.Logged, 404, 421), tags=["logs"])
async def log_entry(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Log what the agent did or asked for, or what came back. The first word of an unknown session creates it."""
    store = store_of(request)
    body = await read_body(request.receive, store.settings.max_event_bytes)  # type: ignore[arg-type]
    read = partial(entry, log_in_path(request), session_in_path(session_id), headers_of(request), body)
    draft = read() if len(body) <= LARGE else await store.writer.beside(read)
    caller_of(request).sign(draft)
    return answer(logged(await store.writer.append(draft, len(body))))


@get(
    LOGS,
    operation_class=described(Link='The page after this one, as rel="next", where there is one'),
    responses=gives(list[answers.Entry], 404, 422),
    tags=["logs"],
)
async def list_entries(
    request: Call,
    session_id: FromPath[str],
    after: OptionalCursor = None,
    before: OptionalCursor = None,
    limit: Annotated[int, QueryParameter(ge=1, le=10000)] = 1000,
    order: FromQuery[Order] = "asc",
    types: Types = None,
    agent_id: AgentId = None,
) -> JSONResponse:
    """The log of actions, or of what came back, by seq. The header Link has rel="next" where there is more."""
    page = await store_of(request).reader.entries(
        session_in_path(session_id),
        log_in_path(request),
        limit=limit,
        after=after,
        before=before,
        order=order,
        kinds=split(types),
        agent_id=agent_id,
    )
    if page.following is None:
        return answer(page.array())
    return answer(page.array(), headers={"link": f'<{following_page(request, page, order)}>; rel="next"'})


def following_page(request: Call, page: Page, order: Order) -> str:
    """The path and query of the page after this one."""
    bound = "after" if order == "asc" else "before"
    query = [(name, value) for name, value in request.query_params.multi_items() if name != bound]
    return f"{prefix_in(request.scope)}{quote(request.scope['path'])}?{urlencode([*query, (bound, page.following)])}"


# -------------------------------------------------------------------------- state


@get(
    "/api/state/{session_id:str}",
    operation_class=described(ETag="The version of the state, for If-Match"),
    responses=gives(requests.Anything, 404, 422),
    tags=["state"],
)
async def get_state(request: Call, session_id: FromPath[str], at: OptionalCursor = None) -> JSONResponse:
    """The state document, now or as it was at a cursor. ETag is its version."""
    reader, session_id = store_of(request).reader, session_in_path(session_id)
    document, version = await (reader.state(session_id) if at is None else reader.state_at(session_id, at))
    return answer(document, headers={"etag": f'"{version}"'})


@patch(
    "/api/state/{session_id:str}",
    operation_class=takes(requests.Anything, JSON, MERGE_PATCH, headers=OF_A_CONDITIONAL_WRITE),
    responses=gives(answers.Versioned, 400, 404, 412, 413, 415, 422),
    tags=["state"],
)
async def update_state(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Merge into the state: objects merge, all else replaces; as a merge patch (RFC 7396), null removes."""
    session_id, headers = session_in_path(session_id), headers_of(request)
    body = await object_of(request, JSON, MERGE_PATCH)
    kind = "merge-patch" if check_media_type(headers, JSON, MERGE_PATCH) == MERGE_PATCH else None
    versions, must_be_there = if_match(headers), b"if-match" in headers
    draft = draft_of(
        "state_updated", session_id, body, headers, patch=kind, if_match=versions, names_something=must_be_there
    )
    appended = await append(request, draft)
    return done(appended, {"version": appended.version})


@get("/api/state/{session_id:str}/history", responses=gives(answers.EventPage, 404, 422), tags=["state"])
async def list_state_history(
    request: Call,
    session_id: FromPath[str],
    after: Cursor = 0,
    before: OptionalCursor = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    order: FromQuery[Order] = "asc",
) -> JSONResponse:
    """The events that changed the state: who, when, what."""
    page = await store_of(request).reader.session_events(
        session_in_path(session_id), limit=limit, after=after, before=before, order=order, of_state=True
    )
    return answer(event_page(page, order, after))


@post(
    "/api/state/{session_id:str}/goals", **exchanges(requests.NewGoal, answers.GoalDone, 404, 409, 421), tags=["state"]
)
async def add_goal(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Add a goal."""
    appended = await told(request, "goal_added", session_id, is_new=True)
    return done(appended, {"goal": appended.record, "version": appended.version})


@patch(
    "/api/state/{session_id:str}/goals/{goal_id:str}",
    **exchanges(requests.GoalChange, answers.GoalDone, 404, 421),
    tags=["state"],
)
async def update_goal(request: Call, session_id: FromPath[str], goal_id: FromPath[str]) -> JSONResponse:
    """Change a goal; the status `completed` sets `completedAt`."""
    appended = await told(request, "goal_updated", session_id, goalId=goal_id)
    return done(appended, {"goal": appended.record, "version": appended.version})


@post(
    "/api/state/{session_id:str}/agents", **exchanges(requests.NewAgent, answers.Spawned, 404, 409, 421), tags=["state"]
)
async def spawn_agent(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Note that an agent was spawned."""
    appended = await told(request, "agent_spawned", session_id, is_new=True)
    return done(appended, {"version": appended.version} | (appended.record or {}))


@patch(
    "/api/state/{session_id:str}/agents/{agent_id:str}",
    **exchanges(requests.AgentChange, answers.AgentDone, 404, 421),
    tags=["state"],
)
async def update_agent(request: Call, session_id: FromPath[str], agent_id: FromPath[str]) -> JSONResponse:
    """Change an agent."""
    appended = await told(request, "agent_updated", session_id, agentId=agent_id)
    return done(appended, {"agent": appended.record, "version": appended.version})


@post(
    "/api/state/{session_id:str}/agents/{agent_id:str}/complete",
    **exchanges(requests.AgentEnd, answers.AgentDone, 404, 421, is_required=False),
    tags=["state"],
)
async def complete_agent(request: Call, session_id: FromPath[str], agent_id: FromPath[str]) -> JSONResponse:
    """Note that an agent is done."""
    appended = await told(request, "agent_completed", session_id, optional_object_of, agentId=agent_id)
    return done(appended, {"agent": appended.record, "version": appended.version})


# ------------------------------------------------------------------------- events


@post(
    "/api/events",
    operation_class=described(LINES),
    responses=gives(answers.Batch, 413, 415),
    status_code=200,
    tags=["events"],
)
async def post_events(request: Call) -> JSONResponse:
    """Store many events, one a line. Good lines are kept whatever the bad ones are, in one transaction."""
    store = store_of(request)
    check_media_type(headers_of(request), NDJSON)
    body = await read_body(request.receive, store.settings.max_batch_bytes)  # type: ignore[arg-type]
    return answer(await stored_batch(body, caller_of(request), store))


@get("/api/events", responses=gives(answers.EventPage, 422), tags=["events"])
async def list_events(
    request: Call,
    after: Cursor = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    types: Types = None,
    session_id: SessionId = None,
    user_id: UserId = None,
) -> JSONResponse:
    """Events of all sessions, in cursor order. `nextAfter` goes on, also after an empty page."""
    page = await store_of(request).reader.events(
        after=after,
        limit=limit,
        types=split(types),
        session_ids=[session_id] if session_id else (),
        user_id=user_id,
    )
    return answer(event_page(page, "asc", after))


@post("/api/hooks/claude-code", **exchanges(requests.HookPayload, None, 421), tags=["hooks"])
async def claude_code_hook(request: Call) -> Response[bytes]:
    """Take one Claude Code hook payload as it is; what is too large or too deep is cut. The answer is empty."""
    store = store_of(request)
    check_media_type(headers_of(request), JSON)
    body = await read_body(request.receive, store.settings.max_batch_bytes)  # type: ignore[arg-type]
    told = requests.told_in(headers_of(request))

    def read() -> list[Draft]:
        redactor = store.writer.redactor
        bounds = claude_code.Limits(store.settings.max_event_bytes, redactor.data)
        drafts = claude_code.drafts_of_payload(body, told, bounds)
        for draft in drafts:
            redactor(draft)
        return drafts

    request.scope["state"]["bytes"] = len(body)
    for draft in await store.writer.beside(read) if len(body) > LARGE else read():
        await append(request, draft)
    return Response(b"", status_code=200, media_type=JSON)


# ------------------------------------------------------------------------ queries


@get("/api/query/recent", responses=gives(list[answers.Metadata], 422), tags=["queries"])
async def recent_sessions(request: Call, limit: Annotated[int, QueryParameter(ge=1, le=500)] = 10) -> JSONResponse:
    """Sessions, newest change first."""
    return answer((await store_of(request).reader.sessions(Which(), limit=limit)).array())


@get("/api/query/active", responses=gives(list[answers.Active], 422), tags=["queries"])
async def active_sessions(request: Call, limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 500) -> JSONResponse:
    """Sessions that go on and what they are at, those that wait for a person first."""
    return answer((await store_of(request).reader.active(limit)).array())


@get("/api/query/stats", responses=gives(answers.Stats), tags=["queries"])
async def stats(request: Call) -> JSONResponse:
    """Counts over the whole store."""
    store = store_of(request)
    counts = await store.reader.stats(now())
    return answer(f'{counts[:-1]},"databaseBytes":{store.database_bytes()}}}')


@get("/api/query/summary", responses=gives(answers.Summary), tags=["queries"])
async def summary(request: Call) -> JSONResponse:
    """A few figures, and the 50 sessions that have waited for a person for longest: what a fleet asks of each store."""
    said = await store_of(request).reader.summary(now())
    return answer(f'{said},"version":"{__version__}"}}')


@get("/api/query/questions", responses=gives(answers.Questions), tags=["queries"])
async def list_questions(request: Call) -> JSONResponse:
    """What people often ask in SQL, and where it is answered."""
    prefix = prefix_in(request.scope)
    items = [msgspec.structs.replace(one, path=prefix + one.path) for one in questions().values()]
    return answer(msgspec.json.encode({"items": items}))


@get("/api/query/search", responses=gives(answers.FoundPage, 422, 503), tags=["queries"])
async def search(
    request: Call,
    q: Annotated[
        str,
        QueryParameter(description='Words; `"a phrase"`, `begin*`, `-without` that word', max_length=1000),
    ] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    session_id: SessionId = None,
    types: Types = None,
    kinds: Kinds = None,
    user_id: UserId = None,
    agent_id: AgentId = None,
    since: Annotated[str | None, QueryParameter(description="Timestamps from this time on, RFC 3339")] = None,
    until: Annotated[str | None, QueryParameter(description="Timestamps before this time")] = None,
    brief: Annotated[bool, QueryParameter(description="Cut long data; `brief` in an event says so")] = False,
) -> JSONResponse:
    """Full text over what was logged, best first. `behind`: how many of the newest events are not searched yet."""
    store = store_of(request)
    narrowed = Narrowed(
        types=split(types),
        kinds=split(kinds),
        session_id=session_id,
        user_id=user_id,
        agent_id=agent_id,
        since=since if since is None else utc(since, "$.since"),
        until=until if until is None else utc(until, "$.until"),
    )
    await store.writer.catch_up_search()
    behind = store.writer.search_lag
    found = await store.reader.search(q, narrowed, limit=limit, brief=brief)
    return answer(joined({"items": f"[{','.join(found.items)}]", "total": str(found.total), "behind": str(behind)}))


# ------------------------------------------------------------------------- log-in


@post("/api/login", **exchanges(requests.Login, answers.LoggedIn, 408, headers=()), tags=["server"])
async def log_in(request: Call) -> JSONResponse:
    """Exchange a token for a cookie that a browser keeps, for 30 days at most."""
    try:
        async with asyncio.timeout(LOGIN_SECONDS):
            body = await body_of(request, limit=LOGIN_BYTES)
    except TimeoutError:
        raise Problem(408, "The request did not come in time", headers={"connection": "close"}) from None
    token = requests.checked(object_in(body), requests.Login).token
    gate: Gate = request.app.state.gate
    caller = gate.caller_with(token)
    if caller.token is None and not gate.tokens:
        return answer(b'{"success":true,"role":"admin"}')
    if caller.token is None:
        raise gate.wrong_token(request.client.host if request.client else "", caller)
    response = answer(msgspec.json.encode({"success": True, "role": caller.role}))
    is_https = request.scope["scheme"] == "https"
    if before := cookie_of(headers_of(request)):
        gate.logins.end(before)
    cookie, seconds = gate.logins.begin(caller.token)
    response.set_cookie(COOKIE, cookie, max_age=seconds, httponly=True, samesite="strict", secure=is_https)
    return response


@get("/api/login", responses=gives(answers.LoginState), tags=["server"])
async def who_am_i(request: Call) -> JSONResponse:
    """As whom this browser may answer and order, and what its page has to say with that, as X-Page-Token."""
    gate: Gate = request.app.state.gate
    caller = gate.caller(asked_in(request.scope))  # type: ignore[arg-type]
    can_control = caller.role in ("admin", "control")
    token = gate.logins.page_token(who) if can_control and (who := who_is_shown(caller)) else None
    return answer(
        folds.encode({"role": caller.role, "name": caller.name, "canControl": can_control, "pageToken": token})
    )


@delete("/api/login", responses=gives(answers.LoggedOut), status_code=200, tags=["server"])
async def log_out(request: Call) -> JSONResponse:
    """End the log-in of this browser, and its live feeds; the cookie is good for nothing afterwards."""
    if cookie := cookie_of(headers_of(request)):
        request.app.state.gate.logins.end(cookie)
    response = answer(b'{"success":true}')
    response.delete_cookie(COOKIE)
    return response


# ------------------------------------------------------------------------- errors


def on_problem(_: Call, problem: Problem) -> Response[bytes]:
    return Response(problem.body(), status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def on_http_exception(request: Call, error: HTTPException) -> Response[bytes]:
    """What the framework itself refuses."""
    if isinstance(error, ValidationException):
        first: Any = next(iter(error.extra or ()), {})
        known = request.route_handler.parsed_fn_signature.parameters.get(key := first.get("key", "query"))
        name = getattr(known and known.kwarg_definition, "name", None) or key  # as it is spelt there
        message = in_words(str(first.get("message", error.detail)), known.annotation if known else None)
        return on_problem(request, invalid(f"$.{name}", message))
    detail = {404: f"There is nothing at {request.scope['path']}", 405: "This path does not take that method"}
    headers = dict(error.headers or {})
    return on_problem(request, Problem(error.status_code, detail.get(error.status_code, error.detail), headers=headers))


def on_failure(request: Call, error: Exception) -> Response[bytes]:
    """A fault of ours: logged whole, told plainly."""
    logger.exception("%s %s failed", request.scope["method"], request.scope["path"], exc_info=error)
    return on_problem(request, Problem(500, "The server has a fault: its log says more"))
