"""The lines of conversations over HTTP: kept in order as they came, and given back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from sessionstore.adapters.import_paths import agent_in
from sessionstore.adapters.transcripts import event_of, reports_in
from sessionstore.model.drafts import unquoted
from sessionstore.model.events import is_too_deep, known_id, too_deep
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem, invalid, not_json
from sessionstore.store import material
from sessionstore.store.intake import PART, Intake, Kept
from sessionstore.store.material import Key, Provenance, Transcript
from sessionstore.web import openapi_models as answers
from sessionstore.web.asgi import Receive
from sessionstore.web.bodies import BodyUnderWay
from sessionstore.web.fast_path import stored_at_last
from sessionstore.web.openapi import (
    JSON,
    NDJSON,
    OF_A_SUMMARY,
    OF_A_TRANSCRIPT,
    OF_TRANSCRIPT_LINES,
    SUMMARY,
    TRANSCRIPT,
    described,
)
from sessionstore.web.openapi_models import gives, problems
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    body_of,
    caller_of,
    check_may_belong,
    check_may_list,
    check_media_type,
    headers_of,
    if_match,
    may_have,
    store_of,
)

MAX_LINE = 32 << 20
MAX_SUMMARY = 1 << 20
AT_ONCE = 1000
"""Reports of usage."""
CONVERSATION = ("folder", "session", "source", "lines", "bytes", "mtime")
MAY_BE_THERE = """
SELECT 1 WHERE EXISTS (SELECT 1 FROM sessions WHERE session_id = :id)
  OR NOT EXISTS (SELECT 1 FROM events WHERE session_id = :id AND type = 'session_deleted')"""
"""A session whose hooks come later is made by what its conversation used; one that was deleted is not."""

TRANSCRIPTS_KNOWN = 10_000

HAS_TOLD = "SELECT 1 FROM usage WHERE session_id = ? AND agent_id IS ? AND source = 'transcript' LIMIT 1"

Subpath = Annotated[str | None, QueryParameter(description="What is beside the conversation, such as a sub-agent's")]

# ----------------------------------------------------------------------- request


def decoded(name: str, text: str | bytes) -> str:
    """What stands percent-encoded in a path or a query. Raises Problem 422."""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise invalid(f"$.{name}", "must be UTF-8") from None


def decoded_part(name: str, text: str) -> str:
    """A part of a key as it stands in a path. Raises Problem 422."""
    return material.checked_key(name, decoded(name, text))


def key_of(request: Call, folder: str, session: str, subpath: str | None = None) -> Key:
    decoded("subpath", request.scope["query_string"])
    beside = "" if subpath is None else material.checked_subpath(subpath)
    return Key(decoded_part("folder", folder), decoded_part("session", session), beside)


def batch_in(request: Call) -> str | None:
    said = headers_of(request).get(b"idempotency-key")
    return None if said is None else known_id(unquoted(said.decode("latin-1")), "Idempotency-Key")


def said_in(request: Call) -> Provenance:
    """Raises Problem 422."""
    headers = headers_of(request)
    source = headers.get(b"x-source", b"sdk").decode("latin-1")
    if source not in ("sdk", "file"):
        raise invalid("X-Source", "must be sdk or file")
    offset = headers.get(b"x-source-offset")
    if offset is not None and not re.fullmatch(rb"[0-9]{1,18}", offset):
        raise invalid("X-Source-Offset", "must be a number of bytes")
    session_id = headers.get(b"x-session-id")
    return Provenance(
        source,
        None if session_id is None else known_id(session_id.decode("latin-1"), "X-Session-Id"),
        caller_of(request).name,
        None if offset is None else int(offset),
    )


async def parts_of(receive: Receive, body: BodyUnderWay) -> AsyncIterator[bytes]:
    """The body in parts that end with a line, each at the first that ends at PART bytes or later: however it comes, it
    has the same parts. What is given counts no longer as under way. Raises Problem 400, 413."""
    buffer, looked = bytearray(), PART - 1
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "The request ended before its body did")
        buffer += message.get("body", b"")
        while (end := buffer.find(b"\n", looked) + 1) > 0:
            check_line(buffer, end)
            yield bytes(memoryview(buffer)[:end])
            del buffer[:end]
            body.let_go(end)
            looked = PART - 1
        looked = max(looked, len(buffer))
        check_line(buffer, len(buffer))
        if not message.get("more_body", False):
            break
    if buffer:
        yield bytes(buffer)


def check_line(buffer: bytearray, end: int) -> None:
    """The last line before `end`: others are shorter than a part. Raises Problem 413."""
    if end - buffer.rfind(b"\n", 0, min(end, PART) - 1) > MAX_LINE + 2:
        raise Problem(413, f"A line may have at most {MAX_LINE} bytes", limit=MAX_LINE)


def intake_of(request: Call) -> Intake:
    return store_of(request).intake


async def found_at(request: Call, key: Key) -> Transcript:
    """What is there for who asks. Raises Problem 404."""
    found = await intake_of(request).find(key)
    if found is None or not found.lines or not await may_have(request, found.written_by, found.session_id):
        raise material.nothing_at(key)
    return found


async def conversations_of(request: Call, session_id: str) -> str:
    """Those of a session that are there for who asks, the last to change last, as JSON text."""
    rows = await store_of(request).reader.rows(material.OF_A_SESSION, (session_id,))
    own = [row for *row, written_by, owner in rows if await may_have(request, written_by, owner)]
    return encode([dict(zip(CONVERSATION, row, strict=True)) for row in own])


async def check_is_not_of_others(request: Call, key: Key, found: Transcript | None) -> None:
    """Raises Problem 404."""
    if found is not None and not await may_have(request, found.written_by, found.session_id):
        raise material.nothing_at(key)


class Ledger:
    """What the lines of a request say of requests to models. Told again after a crash in between it is the same."""

    def __init__(self, request: Call) -> None:
        self.request = request
        self.reports: list[Document] = []

    async def reads(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same parts, which have been looked through."""
        async for lines in parts:
            self.reports += await intake_of(self.request).beside(reports_in, lines)
            yield lines

    async def keep(self, kept: Kept) -> None:
        """Of a conversation that belongs to a session, which may have yet to come."""
        store, transcript = store_of(self.request), kept.transcript
        session_id = transcript.session_id if transcript else None
        if not transcript or not session_id or not await store.reader.rows(MAY_BE_THERE, {"id": session_id}):
            return
        looked_through, number = intake_of(self.request).looked_through, transcript.transcript
        is_told = kept.lines == transcript.lines or number in looked_through
        if not is_told and not await store.reader.rows(HAS_TOLD, (session_id, agent_in(transcript.subpath))):
            await self.read_all(transcript)
        for begin in range(0, len(self.reports), AT_ONCE):
            lines = (event_of(report, session_id) for report in self.reports[begin : begin + AT_ONCE])
            await stored_at_last(b"\n".join(lines), caller_of(self.request), store)
        looked_through[number] = None
        looked_through.move_to_end(number)
        if len(looked_through) > TRANSCRIPTS_KNOWN:
            looked_through.popitem(last=False)

    async def read_all(self, transcript: Transcript) -> None:
        """What was kept before it was known whose it is."""
        intake, rest, self.reports = intake_of(self.request), b"", []
        async for piece in intake.bytes_of(transcript):
            lines, _, rest = (rest + piece).rpartition(b"\n")
            self.reports += await intake.beside(reports_in, lines)


# ------------------------------------------------------------------------- routes


@post(
    "/api/transcripts/{folder:str}/{session:str}",
    operation_class=described(TRANSCRIPT, OF_A_TRANSCRIPT),
    responses=gives(answers.KeptLines, 404, 409, 412, 413, 415, 422),
    status_code=200,
    tags=["transcripts"],
)
async def append_lines(
    request: Call, folder: FromPath[str], session: FromPath[str], subpath: Subpath = None
) -> JSONResponse:
    """Keep lines of a conversation, in order, behind those that are there. The same batch again changes nothing."""
    key = key_of(request, folder, session, subpath)
    check_media_type(headers_of(request), NDJSON)
    parts = parts_of(request.receive, request.scope["state"]["body"])  # type: ignore[arg-type]
    said, ledger = said_in(request), Ledger(request)
    await check_may_belong(request, said.session_id)
    check = partial(check_is_not_of_others, request, key)
    kept = await intake_of(request).take(key, said, batch_in(request), ledger.reads(parts), check)
    await ledger.keep(kept)
    lines, generation = (kept.transcript.lines, kept.transcript.generation) if kept.transcript else (0, 0)
    members = {"success": True, "count": kept.lines, "duplicates": kept.duplicates}
    return answer(msgspec.json.encode(members | {"lines": lines, "generation": generation}))


@get(
    "/api/transcripts/{folder:str}/{session:str}",
    operation_class=described(None, (), **OF_TRANSCRIPT_LINES),
    media_type=NDJSON,
    responses=problems(401, 404, 422, 503)
    | {200: ResponseSpec(bytes, description="The lines", media_type=NDJSON, generate_examples=False)},
    tags=["transcripts"],
)
async def get_lines(request: Call, folder: FromPath[str], session: FromPath[str], subpath: Subpath = None) -> Stream:
    """The lines of a conversation as they were kept."""
    found = await found_at(request, key_of(request, folder, session, subpath))
    headers = {
        "content-length": str(found.bytes),
        "x-lines": str(found.lines),
        "x-source-bytes": str(found.source_bytes),
        "x-kept-digest": found.digest,
        "x-generation": str(found.generation),
        "x-source": found.source,
        "cache-control": "no-store",
    }
    if found.source_digest:
        headers["x-source-digest"] = found.source_digest
    return Stream(intake_of(request).bytes_of(found), media_type=NDJSON, headers=headers)


@delete(
    "/api/transcripts/{folder:str}/{session:str}",
    responses=gives(answers.DeletedMaterial, 404, 422),
    status_code=200,
    tags=["transcripts"],
)
async def delete_lines(
    request: Call, folder: FromPath[str], session: FromPath[str], subpath: Subpath = None
) -> JSONResponse:
    """Delete a conversation with all that is beside it, or what is at a subpath alone. None there is no error."""
    key = key_of(request, folder, session, subpath)
    await check_is_not_of_others(request, key, await intake_of(request).find(key))
    deleted = await intake_of(request).delete(key)
    return answer(msgspec.json.encode({"success": True, "deleted": deleted}))


@get("/api/transcripts/{folder:str}", responses=gives(list[answers.KeptSession], 422), tags=["transcripts"])
async def list_conversations(
    request: Call,
    folder: FromPath[str],
    summaries: Annotated[bool, QueryParameter(description="With the summary of each, as it was put")] = False,
) -> Stream | JSONResponse:
    """The conversations in a folder, and when each last changed (milliseconds since 1970)."""
    check_may_list(request)
    all_rows = await store_of(request).reader.rows(material.SESSIONS, (decoded_part("folder", folder),))
    rows = [row for *row, written_by, session_id in all_rows if await may_have(request, written_by, session_id)]
    if summaries:
        return Stream(summarized(request, rows), media_type=JSON)
    return answer(msgspec.json.encode([item_of(*row) for row in rows]))


def item_of(session: str, updated: int, _: int) -> Document:
    return {"sessionId": session, "mtime": updated}


async def summarized(request: Call, rows: list[Any]) -> AsyncIterator[bytes]:
    """A list of JSON, of which one summary is held at a time: each may have a megabyte."""
    between = b"["
    for row in rows:
        summary, version, when = await store_of(request).reader.row(material.SUMMARY, row[-1:]) or (None, 0, None)
        said = {"summary": summary and msgspec.Raw(summary.encode()), "version": version, "summaryMtime": when}
        yield between + msgspec.json.encode(item_of(*row) | said)
        between = b","
    yield b"]" if rows else b"[]"


@get("/api/transcripts/{folder:str}/{session:str}/subkeys", responses=gives(list[str], 422), tags=["transcripts"])
async def list_subpaths(request: Call, folder: FromPath[str], session: FromPath[str]) -> JSONResponse:
    """The subpaths at which something is beside a conversation."""
    key = key_of(request, folder, session)
    rows = await store_of(request).reader.rows(material.SUBPATHS, key[:2])
    own = [subpath for subpath, *whose in rows if await may_have(request, *whose)]
    return answer(msgspec.json.encode(own))


@get(
    "/api/transcripts/{folder:str}/{session:str}/summary",
    operation_class=described(ETag="The version of the summary, for If-Match"),
    responses=gives(dict[str, Any], 404, 422),
    tags=["transcripts"],
)
async def get_summary(request: Call, folder: FromPath[str], session: FromPath[str]) -> JSONResponse:
    """The summary of a conversation as it was put."""
    found = await found_at(request, key_of(request, folder, session))
    if found.summary is None:
        raise Problem(404, "The conversation has no summary", headers={"etag": f'"{found.summary_version}"'})
    return answer(found.summary, headers={"etag": f'"{found.summary_version}"'})


@put(
    "/api/transcripts/{folder:str}/{session:str}/summary",
    operation_class=described(SUMMARY, OF_A_SUMMARY),
    responses=gives(answers.Summarized, 400, 404, 412, 413, 415, 422),
    tags=["transcripts"],
)
async def put_summary(request: Call, folder: FromPath[str], session: FromPath[str]) -> JSONResponse:
    """Set what the program folds of a conversation: a JSON object, kept as it is."""
    key, versions = key_of(request, folder, session), if_match(headers_of(request))
    await found_at(request, key)
    body = await body_of(request, limit=MAX_SUMMARY)
    version = await intake_of(request).summarize(key, summary_in(body), versions)
    return answer(msgspec.json.encode({"success": True, "version": version}), headers={"etag": f'"{version}"'})


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def summary_in(body: bytes) -> str:
    """Raises Problem 400, 422."""
    if is_too_deep(body):
        raise too_deep()
    try:
        text = body.decode()
        is_object = isinstance(json.loads(text, parse_constant=no_constant), dict)
    except ValueError as error:
        raise not_json(str(error)) from None
    if not is_object:
        raise invalid("$", "must be an object")
    return text
