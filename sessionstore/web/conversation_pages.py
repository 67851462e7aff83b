"""Pages of a conversation: of its transcripts, where it has some, else put together of its events.

A page is bounded in messages and in bytes, and so is what is read for it, however large the conversation is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

from sessionstore.adapters.claude_code import AGENT_TOOLS
from sessionstore.adapters.conversation import facts_in, message_of_event, message_of_line
from sessionstore.appliance import Store
from sessionstore.model.conversation import Agent, Joined, Message, calls_in
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem
from sessionstore.store.intake import Intake
from sessionstore.store.material import Transcript
from sessionstore.store.places import Lines, Place, place_in, transcripts_of
from sessionstore.store.reader import Reader

PAGE_BYTES = 4 << 20
"""Of lines or events, as they are kept, that one page is made of, and as much more as the last of them has."""
PAGE_MESSAGES, WRITTEN_BYTES = 100, 1 << 20
"""Of a page that is written out, one after the other."""
PIECES = 64
"""Pieces that are read for one page: what says nothing to people may be long."""
AT_ONCE = 4
ROWS_AT_ONCE, ROWS_AT_MOST = 500, 10_000
MOST_ASKED = 500
FOLDED, DEEPEST, MOST_FOLDED = 50, 4, 100
"""Messages of a sub-agent that stand in the page of the one that called it; levels of these; sub-agents of one page."""

OF_AGENT = re.compile(r"(?:.*/)?agent-(.+?)(\.meta\.json)?")
"""What the program says of an agent beside its conversation is a file of its own."""
AGENTS = """
SELECT agent_id, record ->> '$.type', record ->> '$.task', record ->> '$.toolUseId' FROM agents
WHERE session_id = ? ORDER BY position"""
OF_CONVERSATION = """
SELECT data, cursor, type, kind, agent_id, timestamp FROM events
WHERE session_id = :session AND cursor {of}
  AND cursor >= (SELECT created_cursor FROM sessions WHERE session_id = :session)
  AND (type IN ('action', 'response') OR type = 'session_created' AND :agent IS NULL)
  AND iif(:agent IS NULL, coalesce(agent_id, '') NOT IN (SELECT value FROM json_each(:folded)), agent_id IS :agent)
ORDER BY cursor {order} LIMIT :limit"""
EVENTS = OF_CONVERSATION.format(of="> :after", order="")
EVENTS_BEFORE = OF_CONVERSATION.format(of="< :before", order="DESC")


class MessagePage(NamedTuple):
    """Some messages; `next_after`: from where to go on, also after an empty page."""

    messages: list[Message]
    next_after: str
    more: bool
    bytes: int
    """Of lines or events that it is made of."""
    is_anew: bool = False
    """`after` was of what is not there any more: this is the first page."""
    next_before: str | None = None
    """Of a page that was read backwards: from where to go on so; None: it begins with the first message."""


class Known(NamedTuple):
    """What is known of an agent of a session."""

    agent_id: str
    agent_type: str | None = None
    task: str | None = None
    tool_use_id: str | None = None

    def document(self) -> Document:
        return dict(zip(("agentId", "agentType", "task", "toolUseId"), self, strict=True))


class Source(Protocol):
    """Where a conversation stands."""

    name: str
    agents: dict[str, Known]
    """By their ids: those that have a conversation of their own."""

    async def page(self, agent_id: str | None, after: str | None, limit: int, most: int = PAGE_BYTES) -> MessagePage:
        """Of the main conversation, or of a sub-agent's. Raises Problem 404."""

    async def page_before(self, agent_id: str | None, before: str | None, limit: int) -> MessagePage:
        """The last messages before a place; None: of all. Raises Problem 404."""

    async def find_callers(self) -> None:
        """Find out of which calls agents are, where that is known of none."""

    def check(self, agent_id: str | None) -> None:
        """Raises Problem 404 for an agent that has no conversation of its own."""

    def lines(self, agent_id: str | None) -> AsyncIterator[bytes]:
        """What it is made of, as it is kept: lines of JSON."""


async def source_of(store: Store, session_id: str) -> Source:
    """Raises Problem 404."""
    await store.reader.known(session_id)
    rows = [Known(*row) for row in await store.reader.rows(AGENTS, (session_id,))]
    known = {agent.agent_id: agent for agent in rows}
    transcripts = await transcripts_of(store.reader, session_id)
    if any(not transcript.subpath for transcript in transcripts):
        return FromTranscripts(store.intake, transcripts, known)
    return FromEvents(store.reader, session_id, known)


def no_agent(agent_id: str) -> Problem:
    return Problem(404, f"There is no conversation of an agent {agent_id!r} in this session")


# ---------------------------------------------------------------------- transcripts


class FromTranscripts:
    """Of what an agent's program wrote."""

    name = "transcript"

    def __init__(self, intake: Intake, transcripts: list[Transcript], known: Mapping[str, Known]) -> None:
        self.intake = intake
        self.asked: set[str] = set()
        """Agents of whose calls it was asked already."""
        self.main = [transcript for transcript in transcripts if not transcript.subpath]
        named = [(match, one) for one in transcripts if (match := OF_AGENT.fullmatch(one.subpath))]
        self.beside = {match[1]: one for match, one in named if not match[2]}
        self.metas = {match[1]: one for match, one in named if match[2]}
        self.agents = {agent_id: known.get(agent_id, Known(agent_id)) for agent_id in self.beside}

    def check(self, agent_id: str | None) -> None:
        if agent_id is not None and agent_id not in self.beside:
            raise no_agent(agent_id)

    def those_of(self, agent_id: str | None) -> list[Transcript]:
        self.check(agent_id)
        return self.main if agent_id is None else [self.beside[agent_id]]

    async def lines(self, agent_id: str | None) -> AsyncIterator[bytes]:
        for transcript in self.those_of(agent_id):
            async for lines in self.intake.bytes_of(transcript):
                yield lines

    async def page(self, agent_id: str | None, after: str | None, limit: int, most: int = PAGE_BYTES) -> MessagePage:
        transcripts = self.those_of(agent_id)
        numbers = [transcript.transcript for transcript in transcripts]
        place = place_in(after) if after else Place(numbers[0])
        is_anew = place is None or place.transcript not in numbers
        if place is None or is_anew:
            place = Place(numbers[0])
        made, pieces = Making(limit, most), PIECES
        for transcript in transcripts[numbers.index(place.transcript) :]:
            if transcript.transcript != place.transcript:
                begins = Message(
                    cursor=str(Place(transcript.transcript)), role="conversation", blocks=[], id=transcript.session
                )
                if not made.takes(begins, 0):
                    break
                made.place = place = Place(transcript.transcript)
            lines = Lines(transcript, place)
            while not (lines.is_over or made.is_full or (pieces <= 0 and not lines.rest)):
                packed = await lines.fetch(self.intake, AT_ONCE)
                pieces -= len(packed)
                await self.intake.beside(made.read, lines, packed)
                place = made.place or place
            if made.is_full or not lines.is_over:
                return made.page(str(place), True, is_anew)
        return made.page(str(place), made.is_full, is_anew)

    async def page_before(self, agent_id: str | None, before: str | None, limit: int) -> MessagePage:
        transcripts = self.those_of(agent_id)
        numbers = [transcript.transcript for transcript in transcripts]
        end = place_in(before) if before else None
        is_anew = before is not None and (end is None or end.transcript not in numbers)
        if end is None or is_anew:
            end = Place(numbers[-1], transcripts[-1].pieces)
        number = numbers.index(end.transcript)
        made, is_whole = await self.read_back(transcripts[number], end, limit)
        messages, begins = made.last(limit, PAGE_BYTES)
        if begins is None and is_whole and number:
            before_it = transcripts[number - 1]
            cursor = Place(numbers[number])
            messages.insert(
                0, Message(cursor=str(cursor), role="conversation", blocks=[], id=transcripts[number].session)
            )
            begins = Place(before_it.transcript, before_it.pieces)
        elif begins is None and not is_whole:
            begins = made.began
        previous = None if begins is None else str(begins)
        return MessagePage(messages, str(made.place or end), previous is not None, made.bytes, is_anew, previous)

    async def read_back(self, transcript: Transcript, end: Place, limit: int) -> tuple[Making, bool]:
        """The lines before a place, of so many pieces as have more messages than `limit`; whether these are all."""
        pieces = AT_ONCE
        while True:
            first = max(0, end.piece + 1 - pieces)
            made, lines = Making(1 << 30, 1 << 60), Lines(transcript, Place(transcript.transcript, first))
            made.skips = first > 0  # the half of a line
            while not lines.is_over and not made.is_full:
                await self.intake.beside(made.read, lines, await lines.fetch(self.intake, AT_ONCE), end)
            if first == 0 or pieces >= PIECES or len(made.joined.messages) > limit:
                return made, first == 0
            pieces *= 2

    async def find_callers(self) -> None:
        """It stands beside each, or among its first lines."""
        unknown = [
            agent for agent in self.agents.values() if agent.tool_use_id is None and agent.agent_id not in self.asked
        ]
        for known in unknown[:MOST_ASKED]:
            self.asked.add(known.agent_id)
            meta = self.metas.get(known.agent_id)
            transcript = meta or self.beside[known.agent_id]
            lines = Lines(transcript, Place(transcript.transcript))
            all_lines = [*lines.cut(await lines.fetch(self.intake, 1))]
            documents = [b"\n".join(all_lines)] if meta else all_lines
            found = next(filter(None, (facts_in(one, is_line=meta is None) for one in documents)), None)
            if found:
                self.agents[known.agent_id] = known._replace(
                    agent_type=known.agent_type or found.agent_type,
                    task=known.task or found.task,
                    tool_use_id=found.tool_use_id,
                )


class Making:
    """A page that is being made, of lines or of events."""

    def __init__(self, limit: int, most: int) -> None:
        self.joined = Joined(limit)
        self.left = most
        self.bytes = 0
        self.place: Any = None
        """Behind the last line or event that is in it, or says nothing."""
        self.is_full = False
        self.skips = False
        """Whether the first line is only the rest of one."""
        self.began: Any = None
        """Behind which its first line stands."""
        self.starts: list[tuple[Any, int]] = []
        """Of each message: behind what it begins, and its bytes."""

    def read(self, lines: Lines, packed: list[bytes], end: Place | None = None) -> None:
        start = lines.place
        for line in lines.cut(packed):
            if end is not None and lines.place > end:
                self.is_full = True
                return
            message = None if self.skips else message_of_line(line, str(lines.place))
            if message is not None and not self.takes(message, len(line), start):
                return
            if self.skips or self.began is None:
                self.began, self.skips = lines.place if self.skips else start, False
            self.place = start = lines.place

    def read_events(self, rows: list[Any]) -> None:
        for row in rows:
            message = message_of_event(*row)
            if message is not None and not self.takes(message, len(row[0]), row[1]):
                return
            self.place = row[1]

    def takes(self, message: Message, size: int, start: Any = None) -> bool:
        """False: it is full."""
        if self.bytes > self.left:
            self.joined.limit = 0
        self.is_full = not self.joined.add(message)
        if self.is_full:
            return False
        self.bytes += size
        if len(self.starts) < len(self.joined.messages):
            self.starts.append((start, 0))
        if self.starts:
            self.starts[-1] = self.starts[-1][0], self.starts[-1][1] + size
        return True

    def last(self, limit: int, most: int) -> tuple[list[Message], Any]:
        """The last messages, at least one, and behind what they begin; None: these are all of them."""
        number = size = 0
        for _, bytes_ in reversed(self.starts):
            size += bytes_
            if number and (number >= limit or size > most):
                break
            number += 1
        is_all = number == len(self.starts)
        return self.joined.messages[len(self.starts) - number :], None if is_all else self.starts[-number][0]

    def page(self, next_after: str, more: bool, is_anew: bool) -> MessagePage:
        return MessagePage(self.joined.messages, next_after, more, self.bytes, is_anew)


# --------------------------------------------------------------------------- events


class FromEvents:
    """Of what was told of a session. An agent that no call is known of speaks in the main conversation."""

    name = "events"

    def __init__(self, reader: Reader, session_id: str, known: Mapping[str, Known]) -> None:
        self.reader = reader
        self.session_id = session_id
        self.agents = {agent_id: agent for agent_id, agent in known.items() if agent.tool_use_id}

    def check(self, agent_id: str | None) -> None:
        if agent_id is not None and agent_id not in self.agents:
            raise no_agent(agent_id)

    async def lines(self, agent_id: str | None) -> AsyncIterator[bytes]:
        after = 0
        while True:
            page = await self.reader.session_events(
                self.session_id, limit=ROWS_AT_ONCE, after=after, before=None, order="asc", agent_id=agent_id
            )
            if not page.documents:
                return
            yield "".join(f"{document}\n" for document in page.documents).encode()
            after = page.following or after

    async def page(self, agent_id: str | None, after: str | None, limit: int, most: int = PAGE_BYTES) -> MessagePage:
        self.check(agent_id)
        number = int(after) if after and re.fullmatch("[0-9]{1,18}", after) else None
        made, looked = Making(limit, most), 0
        made.place = number or 0
        about: dict[str, object] = {"session": self.session_id, "agent": agent_id, "folded": encode([*self.agents])}
        more = True
        while more and not made.is_full and looked < ROWS_AT_MOST:
            async with self.reader.lend() as connection:
                asked = about | {"after": made.place, "limit": ROWS_AT_ONCE}
                rows, is_cut = await connection.some(EVENTS, asked, PAGE_BYTES)
            looked += len(rows)
            more = is_cut or len(rows) == ROWS_AT_ONCE
            await asyncio.to_thread(made.read_events, rows)
        return made.page(str(made.place), more or made.is_full, bool(after) and number is None)

    async def page_before(self, agent_id: str | None, before: str | None, limit: int) -> MessagePage:
        self.check(agent_id)
        number = int(before) if before and re.fullmatch("[0-9]{1,18}", before) else None
        about: dict[str, object] = {"session": self.session_id, "agent": agent_id, "folded": encode([*self.agents])}
        made, asked = Making(1 << 30, 1 << 60), ROWS_AT_ONCE
        while True:
            async with self.reader.lend() as connection:
                values: dict[str, object] = about | {"before": number or 1 << 62, "limit": asked}
                rows, is_cut = await connection.some(EVENTS_BEFORE, values, PAGE_BYTES)
            made = Making(1 << 30, 1 << 60)
            await asyncio.to_thread(made.read_events, rows[::-1])
            is_whole = not is_cut and len(rows) < asked
            if is_whole or is_cut or asked >= ROWS_AT_MOST or len(made.joined.messages) > limit:
                break
            asked *= 4
        messages, begins = made.last(limit, PAGE_BYTES)
        if begins is None and not is_whole:
            begins = rows[-1][1]
        previous = None if begins is None else str(begins)
        is_anew = before is not None and number is None
        return MessagePage(messages, str(made.place or 0), previous is not None, made.bytes, is_anew, previous)

    async def find_callers(self) -> None:
        """Events say it."""


# ----------------------------------------------------------------------- sub-agents


class Folding:
    """Puts the beginning of each sub-agent's conversation at the call that it is of."""

    def __init__(self, source: Source, depth: int = DEEPEST) -> None:
        """`depth`: levels of conversations; 0: the calls name their agents, and no more."""
        self.source = source
        self.depth = depth
        self.left, self.more = PAGE_BYTES, MOST_FOLDED

    async def fold(self, messages: list[Message], depth: int = 0) -> None:
        calls = [call for message in messages for call in calls_in(message) if call.tool_use_id]
        if not calls or not self.source.agents:
            return
        if any(call.tool in AGENT_TOOLS for call in calls):
            await self.source.find_callers()
        by_call = {agent.tool_use_id: agent for agent in self.source.agents.values()}
        for call in calls:
            named = call.result.agent_id if call.result else None
            agent = by_call.get(call.tool_use_id) or self.source.agents.get(named or "")
            if agent is not None:
                call.agent = Agent(agent_id=agent.agent_id, agent_type=agent.agent_type, task=agent.task, more=True)
                await self.begin(call.agent, depth)

    async def begin(self, agent: Agent, depth: int) -> None:
        if depth >= self.depth or self.left <= 0 or not self.more:
            return
        page = await self.source.page(agent.agent_id, None, FOLDED, self.left)
        self.left -= page.bytes
        self.more -= 1
        agent.messages, agent.next_after, agent.more = page.messages, page.next_after, page.more
        await self.fold(page.messages, depth + 1)


async def pages(source: Source, agent_id: str | None) -> AsyncIterator[list[Message]]:
    """All of a conversation, each call with the agent that it was for."""
    after, more, folding = None, True, Folding(source, depth=0)
    while more:
        page = await source.page(agent_id, after, PAGE_MESSAGES, WRITTEN_BYTES)
        await folding.fold(page.messages)
        yield page.messages
        after, more = page.next_after, page.more
