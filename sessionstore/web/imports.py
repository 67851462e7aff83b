"""POST /api/import: conversations from before there was a store, or from where it could not be reached.

Each file is read once, as it comes, some lines at a time: of these the events that no hook has told, what they used,
and then the lines themselves are kept. So what was broken off goes on when it is sent again, and twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from litestar import post
from litestar.params import QueryParameter

from sessionstore.adapters.import_paths import File, agent_in, file_at
from sessionstore.adapters.retelling import QUOTED, Retelling, Told, Whose, calls_in, start_id
from sessionstore.adapters.transcripts import event_of, reports_in
from sessionstore.model.events import UNKNOWN_USER, decoded, is_id, known_user
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem, invalid
from sessionstore.store import material
from sessionstore.store.intake import PART
from sessionstore.store.material import Key, Provenance, Transcript
from sessionstore.web import openapi_models as answers
from sessionstore.web.bodies import BodyUnderWay
from sessionstore.web.fast_path import stored_at_last
from sessionstore.web.openapi import NDJSON, OF_AN_IMPORT, described
from sessionstore.web.openapi_models import gives
from sessionstore.web.request import Call, JSONResponse, answer, caller_of, check_media_type, headers_of, store_of
from sessionstore.web.tar_stream import BrokenTar, Tar, unpacked
from sessionstore.web.transcripts import MAX_LINE

TAR = ("application/x-tar", "application/tar", "application/gzip", "application/x-gzip", "application/octet-stream")
AT_ONCE = 400
"""Lines of a batch."""
MAX_DOCUMENT = 64 << 20
"""Bytes of a CI action's execution file, which is one JSON document, and of what is said of an agent."""
MOST_REFUSED = 100

# ---------------------------------------------------------------------------- lines


async def whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In parts that end with a line. A last line that is not ended is given if it is JSON: else half of it is to come.

    Raises Problem 413.
    """
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        end = buffer.rfind(b"\n") + 1
        if len(buffer) - end > MAX_LINE:
            raise Problem(413, f"A line may have at most {MAX_LINE} bytes", limit=MAX_LINE)
        if end >= PART:
            yield bytes(memoryview(buffer)[:end])
            del buffer[:end]
    end = buffer.rfind(b"\n") + 1
    rest = bytes(buffer[end:])
    if rest.strip() and is_json(rest):
        buffer, end = bytearray(buffer + b"\n"), len(buffer) + 1
    if end:
        yield bytes(buffer[:end])


def is_json(line: bytes) -> bool:
    try:
        decoded(line)
    except (Problem, RecursionError):
        return False
    return True


async def whole(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """Raises Problem 413."""
    document = bytearray()
    async for chunk in chunks:
        document += chunk
        if len(document) > most:
            raise Problem(413, f"A document may have at most {most} bytes", limit=most)
    return bytes(document)


def messages_in(document: bytes) -> list[tuple[str, str, bytes]]:
    """The messages of an execution file: the session, the call whose agent says it (empty: none), the line.

    Raises Problem 422.
    """
    found = decoded(document) if is_json(document) else [*map(decoded, filter(is_json, document.split(b"\n")))]
    if not isinstance(found, list):
        raise invalid("$", "must be a list of messages")
    return [
        (str(one.get("session_id") or ""), str(one.get("parent_tool_use_id") or ""), msgspec.json.encode(one))
        for one in found
        if isinstance(one, dict)
    ]


# --------------------------------------------------------------------------- import


CREATED_BY = """
SELECT EXISTS (SELECT 1 FROM events WHERE event_id = :start AND session_id = :id) OR
         coalesce((SELECT is_implicit FROM sessions WHERE session_id = :id), 1),
       (SELECT created FROM sessions JOIN labels USING (session_id) WHERE session_id = :id AND origin IS NOT NULL)"""
CALLS = """
SELECT kind, data ->> '$.toolUseId' FROM events
WHERE session_id = ? AND kind IN ('tool_call', 'tool_result', 'tool_error') AND data ->> '$.toolUseId' IS NOT NULL"""
PROMPTS = f"""
SELECT kind, data ->> '$.prompt_id', substr(coalesce(data ->> '$.prompt', data ->> '$.message', ''), 1, {QUOTED})
FROM events WHERE session_id = ? AND kind IN ('prompt', 'assistant_message') AND agent_id IS NULL"""
AGENTS = "SELECT agent_id, record ->> '$.type', record ->> '$.completedAt' FROM agents WHERE session_id = ?"
CLAIMED = """
SELECT session_id FROM transcripts WHERE folder = :folder AND session = :session AND NOT is_deleted
  AND session_id IS NOT NULL
UNION ALL SELECT session_id FROM claims WHERE name = 'claude:' || :session
UNION ALL SELECT session_id FROM sessions WHERE session_id = :session
UNION ALL SELECT e.session_id FROM json_each(:calls) c CROSS JOIN events e ON e.event_id = 'PreToolUse-' || c.value
                 JOIN sessions s ON s.session_id = e.session_id WHERE e.data ->> '$.session_id' = :session
LIMIT 1"""
CALLED_SO = """
SELECT document ->> '$.claudeSessionId', session_id FROM documents
WHERE name = 'metadata' AND document ->> '$.claudeSessionId' IS NOT NULL"""


class Import:
    """What one request brings."""

    def __init__(self, request: Call, user_id: str) -> None:
        self.request = request
        self.store = store_of(request)
        self.user_id = user_id
        self.counts = dict.fromkeys(("files", "passedOver", "lines", "events", "usage", "rejected"), 0)
        self.refused: list[Document] = []
        self.sessions: dict[str, str] = {}
        """Of the store, by the program's own name."""
        self.told: dict[str, Told] = {}
        self.called_so: dict[str, str] | None = None

    async def file(self, path: str, content: AsyncIterator[bytes]) -> None:
        """One of many: what is wrong with it is told, and the others are taken."""
        found = file_at(path)
        if found is None:
            self.counts["passedOver"] += 1
            return
        try:
            await self.take(found, content)
        except Problem as problem:
            if problem.status >= 500 or isinstance(problem, BrokenTar):
                raise
            self.refuse(path, problem.detail)

    def refuse(self, path: str, why: str) -> None:
        if len(self.refused) < MOST_REFUSED:
            self.refused.append({"path": path.encode(errors="replace").decode(), "why": why})

    async def take(self, file: File, content: AsyncIterator[bytes]) -> None:
        self.counts["files"] += 1
        if file.kind == "facts":
            await self.facts(file.key, await whole(content, MAX_DOCUMENT))
        elif file.kind == "document":
            await self.document(file.key, await whole(content, MAX_DOCUMENT))
        else:
            await self.lines(file.key, whole_lines(content))

    async def document(self, key: Key, document: bytes) -> None:
        """An execution file: what a sub-agent says stands between what the others do."""
        found = await self.beside(messages_in, document)
        if not found:
            raise invalid("$", "must have a message")
        session = next((session for session, _, _ in found if session), "")
        for call in dict.fromkeys(call for _, call, _ in found):
            lines = b"".join(line + b"\n" for _, of, line in found if of == call)
            about = msgspec.json.encode({"type": "agent_metadata", "toolUseId": call}) + b"\n" if call else b""
            subpath = f"subagents/agent-{call}" if call else ""
            await self.lines(key._replace(session=session, subpath=subpath), one(about + lines))

    async def facts(self, key: Key, document: bytes) -> None:
        """What is said of a sub-agent: the newest takes the place of what was."""
        found = await self.store.intake.find(material.checked(key))
        document = document if document.endswith(b"\n") else document + b"\n"
        if found is None or found.source_digest != hashlib.sha256(document).hexdigest():
            session_id = await self.session_of(key, b"")
            await self.store.intake.take(key, self.said(session_id, 0), None, one(document))

    async def lines(self, key: Key, parts: AsyncIterator[bytes]) -> None:
        """The lines of a conversation, and what they tell."""
        retelling, keeping = None, None
        async for part in parts:
            if retelling is None or keeping is None:
                key = material.checked(key if key.session else key._replace(session=session_in(part)))
                session_id = await self.session_of(key, part)
                whose = Whose(session_id, key.session, self.user_id, agent_in(key.subpath))
                retelling = Retelling(whose, await self.told_of(session_id, key.session))
                keeping = Keeping(self, key, session_id, await self.store.intake.find(key))
            await self.tell(await self.beside(lambda told=retelling, lines=part: [*told.of(lines)]))
            reports = await self.beside(reports_in, part)
            self.counts["usage"] += await self.post(event_of(report, session_id) for report in reports)
            self.counts["lines"] += await keeping.part(part)
        if retelling is not None and keeping is not None:
            await self.tell([*retelling.end()])
            keeping.check_is_whole()

    async def beside(self, work: Any, *arguments: Any) -> Any:
        return await self.store.intake.beside(work, *arguments)

    async def tell(self, lines: list[bytes]) -> None:
        self.counts["events"] += await self.post(lines)

    async def post(self, lines: Iterable[bytes]) -> int:
        """How many of the lines of a batch were new."""
        accepted, batch = 0, [*lines]
        for begin in range(0, len(batch), AT_ONCE):
            accepted += await self.stored(b"\n".join(batch[begin : begin + AT_ONCE]))
        return accepted

    async def stored(self, lines: bytes) -> int:
        """The same of some."""
        told = await stored_at_last(lines, caller_of(self.request), self.store)
        self.counts["rejected"] += told["rejectedTotal"]
        return int(told["accepted"])

    def said(self, session_id: str, offset: int | None) -> Provenance:
        return Provenance("file", session_id, caller_of(self.request).name, offset)

    # ---- what there is already

    async def session_of(self, key: Key, lines: bytes) -> str:
        """To which session of the store a conversation belongs: one that says so, or has told of its calls, else one
        of its name."""
        if key.session not in self.sessions:
            calls = await self.beside(calls_in, lines, key.session)
            about: dict[str, object] = {
                "folder": key.folder,
                "session": key.session,
                "calls": msgspec.json.encode(calls).decode(),
            }
            row = await self.store.reader.row(CLAIMED, about)
            self.sessions[key.session] = row[0] if row else (await self.named()).get(key.session, own_id(key.session))
        return self.sessions[key.session]

    async def named(self) -> dict[str, str]:
        """The sessions that are about a conversation of another name."""
        if self.called_so is None:
            self.called_so = {}
            with suppress(Problem):  # in a store of very many sessions it takes too long to find them
                self.called_so = dict(await self.store.reader.rows(CALLED_SO))
        return self.called_so

    async def told_of(self, session_id: str, claude_id: str) -> Told:
        if session_id not in self.told:
            reader, told = self.store.reader, Told()
            ((is_own, since),) = await reader.rows(CREATED_BY, {"id": session_id, "start": start_id(claude_id)})
            told.is_own, told.since = bool(is_own), since
            for kind, name in await reader.rows(CALLS, (session_id,)):
                (told.calls if kind == "tool_call" else told.results).add(name)
            for kind, prompt_id, text in await reader.rows(PROMPTS, (session_id,)):
                (told.prompts if kind == "prompt" else told.messages).update(filter(None, (prompt_id, text)))
            for agent_id, agent_type, completed in await reader.rows(AGENTS, (session_id,)):
                told.agents[agent_id] = str(agent_type or "")
                told.ended_agents.update({agent_id} if completed else ())
            self.told[session_id] = told
        return self.told[session_id]

    def document_of_all(self) -> Document:
        return {"success": True, "sessions": len({*self.sessions.values()}), **self.counts, "refused": self.refused}


def own_id(name: str) -> str:
    """Of a session that is named after its conversation."""
    return name if is_id(name) else f"claude-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def session_in(lines: bytes) -> str:
    """The session that the first line names. Raises Problem 422."""
    first = lines.split(b"\n", 1)[0]
    found = decoded(first) if is_json(first) else None
    name = found.get("sessionId") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name:
        raise invalid("sessionId", "must stand in the first line")
    return name


async def one(document: bytes) -> AsyncIterator[bytes]:
    yield document


class Keeping:
    """Keeps a file's lines: those that are there already are compared, and what is behind them goes on there."""

    def __init__(self, run: Import, key: Key, session_id: str, found: Transcript | None) -> None:
        self.run = run
        self.key = key
        self.session_id = session_id
        self.there = found.source_bytes if found else 0
        self.digest = found.source_digest if found else None
        self.is_others = found is not None and found.source != "file"
        """Another keeps it, who has it as well."""
        self.differs = False
        self.read = 0
        self.hash = hashlib.sha256()

    async def part(self, lines: bytes) -> int:
        """How many of them were new."""
        if self.is_others or self.differs:
            return 0
        known, new = b"", lines
        if self.read < self.there:
            known, new = lines[: self.there - self.read], lines[self.there - self.read :]
            self.hash.update(known)
            self.read += len(known)
            self.differs = self.read == self.there and self.hash.hexdigest() != self.digest
        if self.differs or not new:
            return 0
        said = self.run.said(self.session_id, self.read if self.read else None)
        kept = await self.run.store.intake.take(self.key, said, None, one(new))
        self.read += len(new)
        return kept.lines

    def check_is_whole(self) -> None:
        """Raises Problem 409 where what is kept under this name is of another file, or of more of it."""
        if self.differs:
            raise Problem(409, "What is kept under this name is of another file, and stays as it is")
        if self.read < self.there and not self.is_others:
            raise Problem(409, "What is kept under this name is longer, and stays as it is")


# ---------------------------------------------------------------------------- route


async def chunks_of(request: Call) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Problem 400."""
    body: BodyUnderWay = request.scope["state"]["body"]
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "The request ended before its body did")
        chunk: bytes = message.get("body", b"")  # type: ignore[assignment]
        body.let_go(len(chunk))
        yield chunk
        if not message.get("more_body", False):
            return


KeyPart = Annotated[str | None, QueryParameter(max_length=material.MAX_KEY)]


@post(
    "/api/import",
    operation_class=described(OF_AN_IMPORT, ()),
    responses=gives(answers.Imported, 400, 409, 412, 413, 415, 422),
    status_code=200,
    tags=["transcripts"],
)
async def import_conversations(
    request: Call,
    folder: KeyPart = None,
    session: KeyPart = None,
    subpath: KeyPart = None,
    user_id: Annotated[str | None, QueryParameter(name="userId", description="Whose new sessions are")] = None,
) -> JSONResponse:
    """Take conversations in: a tar of a `projects` folder or of an execution file, or the lines of one. Each makes the
    events that no hook has told, and what its requests used; the same again changes nothing."""
    kind = check_media_type(headers_of(request), NDJSON, *TAR)
    run = Import(request, UNKNOWN_USER if user_id is None else known_user(user_id, "$.userId"))
    if kind != NDJSON:
        async for member in Tar(unpacked(chunks_of(request))).members():
            await run.file(member.name, member.content)
        return answer(msgspec.json.encode(run.document_of_all()))
    if folder is None or session is None:
        raise invalid("$.folder", "and session must be given with lines")
    key = material.checked(Key(folder, session, subpath or ""))
    await run.take(File("facts" if key.subpath.endswith(".meta.json") else "lines", key), chunks_of(request))
    return answer(msgspec.json.encode(run.document_of_all()))
