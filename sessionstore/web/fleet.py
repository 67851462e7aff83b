"""Routes of the fleet: who waits where, which session is where, and what all of them find. Only with SESSIONS_FLEET."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath, QueryParameter

from sessionstore import ROOT
from sessionstore.model.events import is_id, utc
from sessionstore.model.folds import Document
from sessionstore.model.problems import no_session, unavailable
from sessionstore.text import for_people
from sessionstore.upkeep.fleet import (
    MOST_WAITING,
    SEARCH,
    SEARCH_BYTES,
    SEARCH_SECONDS,
    Fleet,
    FoundThere,
    ShardReply,
    ShardState,
    WaitingThere,
    is_there,
)
from sessionstore.web.openapi_models import Shape, gives
from sessionstore.web.pages import POLICY, StaticFile, static
from sessionstore.web.request import Call, JSONResponse, answer, store_of


class Silent(Shape, kw_only=True):
    """A shard that did not answer, and why."""

    shard: str
    error: str


class FleetMember(Shape, kw_only=True):
    """A shard and its figures: the last ones, of `seen`, where it does not answer now."""

    name: str
    url: str
    answers: bool
    error: str | None
    seen: str | None
    version: str | None
    cursor: int | None
    sessions: dict[str, int]
    events_today: int | None
    events_last_minute: int | None


class FleetState(Shape, kw_only=True):
    """All shards; `silent`: how many did not answer."""

    shards: list[FleetMember]
    silent: int


class FleetWaiting(Shape, kw_only=True):
    """Sessions that wait for a person, the longest wait first; `isOld`: their shard does not answer now."""

    items: list[Document]
    total: int
    silent: list[Silent]


class FleetFound(Shape, kw_only=True):
    """What the shards found that answered in time, best first, and how many events each has in all."""

    items: list[Document]
    answered: list[Document]
    silent: list[Silent]


class FleetPlaces(Shape, kw_only=True):
    """The shards that have a session: one, or none, unless it went on elsewhere."""

    items: list[Document]
    silent: list[Silent]


def fleet_of(request: Call) -> Fleet:
    fleet = store_of(request).fleet
    assert fleet is not None  # else there are no such routes
    return fleet


def encoded(value: Any) -> JSONResponse:
    return answer(msgspec.json.encode(value))


@get("/api/fleet", responses=gives(FleetState), tags=["fleet"])
async def show_fleet(request: Call) -> JSONResponse:
    """All shards, and which of them do not answer."""
    fleet = fleet_of(request)
    await fleet.refresh()
    return encoded({"shards": [shown(member) for member in fleet.members], "silent": len(fleet.silent)})


def shown(member: ShardState) -> Document:
    said = member.summary
    return {
        "name": member.shard.name,
        "url": member.shard.url,
        "answers": member.trouble is None,
        "error": member.trouble,
        "seen": member.seen,
        "version": said and for_people(said.version, is_one_line=True),
        "cursor": said and said.cursor,
        "sessions": {for_people(name, is_one_line=True): number for name, number in said.sessions.items()}
        if said
        else {},
        "eventsToday": said and said.events_today,
        "eventsLastMinute": said and said.events_last_minute,
    }


@get("/api/fleet/waiting", responses=gives(FleetWaiting), tags=["fleet"])
async def list_waiting(request: Call) -> JSONResponse:
    """Who waits for a person, in all shards, the longest wait first."""
    fleet = fleet_of(request)
    await fleet.refresh()
    found = [(one, member) for member in fleet.members if member.summary for one in member.summary.waiting]
    found.sort(key=lambda pair: pair[0].since or "")
    total = sum(member.summary.sessions.get("waiting", 0) for member in fleet.members if member.summary)
    return encoded(
        {
            "items": [waiting_at(member, one) for one, member in found[:MOST_WAITING]],
            "total": total,
            "silent": [silent(member, member.trouble) for member in fleet.silent],
        }
    )


def waiting_at(member: ShardState, one: WaitingThere) -> Document:
    said = {name: for_people(text) if text else text for name, text in msgspec.to_builtins(one).items()}
    return said | place_of(member, one.session_id) | {"isOld": member.trouble is not None}


def place_of(member: ShardState, session_id: str) -> Document:
    return {"shard": member.shard.name, "sessionId": session_id, "link": member.link(session_id)}


def silent(member: ShardState, trouble: str | None) -> Document:
    return {"shard": member.shard.name, "error": trouble}


def silent_of(told: list[ShardReply[Any]]) -> list[Document]:
    return [silent(one.member, one.trouble) for one in told if one.trouble is not None]


@get("/api/fleet/search", responses=gives(FleetFound, 422), tags=["fleet"])
async def search_fleet(
    request: Call,
    q: Annotated[str, QueryParameter(description="As for /api/query/search", max_length=1000)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Of each shard, and of all together")] = 20,
    user_id: Annotated[str | None, QueryParameter(name="userId")] = None,
    since: Annotated[str | None, QueryParameter(description="Timestamps from this time on, RFC 3339")] = None,
    until: Annotated[str | None, QueryParameter(description="Timestamps before this time")] = None,
) -> JSONResponse:
    """Full text over all shards: what has come within 1.5 seconds, and from whom."""
    times = {"since": since and utc(since, "$.since"), "until": until and utc(until, "$.until")}
    asked = {"q": q, "limit": limit, "userId": user_id, **times, "brief": "true"}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    told = await fleet_of(request).ask_all(f"/api/query/search?{query}", SEARCH_SECONDS, SEARCH_BYTES, SEARCH)
    answered = [(one.member, one.answer, one.seconds) for one in told if one.answer is not None]
    ranked = [(rank, member, hit) for member, said, _ in answered for rank, hit in enumerate(said.items)]
    ranked.sort(key=lambda found: found[2].event.timestamp, reverse=True)
    ranked.sort(key=lambda found: found[0])
    return encoded(
        {
            "items": [found_at(member, hit) for _, member, hit in ranked[:limit]],
            "answered": [
                {"shard": member.shard.name, "total": said.total, "behind": said.behind, "seconds": round(seconds, 3)}
                for member, said, seconds in answered
            ],
            "silent": silent_of(told),
        }
    )


def found_at(member: ShardState, hit: FoundThere) -> Document:
    event = hit.event
    of_event = {"cursor": event.cursor, "type": for_people(event.type), "timestamp": for_people(event.timestamp)}
    return place_of(member, event.session_id) | of_event | {"marked": [for_people(text) for text in hit.marked]}


@get("/api/fleet/sessions/{session_id:str}", responses=gives(FleetPlaces, 404), tags=["fleet"])
async def find_session(request: Call, session_id: FromPath[str]) -> JSONResponse:
    """Where a session is. 404 once all shards have said that it is not there, 503 while some say nothing."""
    if not is_id(session_id):
        raise no_session(session_id)
    told = await fleet_of(request).ask_all(f"/api/sessions/{session_id}?limit=0", SEARCH_SECONDS, 0, is_there, "HEAD")
    items = [place_of(one.member, session_id) for one in told if one.answer]
    missing = silent_of(told)
    if not items and missing:
        names = ", ".join(one["shard"] for one in missing)
        raise unavailable(f"No other shard has a session {session_id!r}; these did not answer: {names}")
    if not items:
        raise no_session(session_id)
    return encoded({"items": items, "silent": missing})


@cache
def fleet_page() -> StaticFile:
    return static(ROOT / "dashboard" / "fleet.html", "text/html")


@get("/fleet", include_in_schema=False)
async def fleet_home(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The page of the fleet."""
    headers = {"content-security-policy": POLICY, "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
    return fleet_page().answer(request, **headers)
