"""Retelling: what hooks would have told of a conversation, made of its lines, without what has been told already.

What comes out are lines of a batch with the payloads of hooks, so that a call has the id that its own hook gives it,
and one mapping serves both: whichever of the two comes later changes nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from sessionstore.adapters.claude_code import AGENT_TOOLS, OWN_WORDS, content_text, is_one, says_no, text_in
from sessionstore.adapters.conversation import CHAIN, Line, items_of
from sessionstore.adapters.transcripts import line_as
from sessionstore.model.events import utc
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem

TITLES = (b'"ai-title"', b'"custom-title"')
TOOL_USE = re.compile(rb'"id"\s*:\s*"(toolu_[A-Za-z0-9_-]{8,64})"')
CALLS_LOOKED_AT = 20
OPEN_CALLS = 1_000
"""Whose results may be still to come: of older ones only the id is known then."""
QUOTED = 500
"""Characters of a text by which it is known again."""


class TaleLine(Line, rename="camel", kw_only=True):
    """Of a line also what says how a session began."""

    cwd: Any = None
    session_id: Any = None
    forked_from: Any = None
    ai_title: Any = None
    custom_title: Any = None


class Told(msgspec.Struct):
    """What has been told of a session already: ids of calls, results, prompts and agents, and beginnings of texts."""

    calls: set[str] = msgspec.field(default_factory=set)
    results: set[str] = msgspec.field(default_factory=set)
    prompts: set[str] = msgspec.field(default_factory=set)
    messages: set[str] = msgspec.field(default_factory=set)
    agents: dict[str, str] = msgspec.field(default_factory=dict)
    """Their types."""
    ended_agents: set[str] = msgspec.field(default_factory=set)
    since: str | None = None
    """Where it goes on from another session: when it began; what was said before is copied."""
    is_own: bool = True
    """No hook has begun it: so nobody else says how it began and ended, and what it said last."""


class Whose(NamedTuple):
    """Of which session a conversation is, and of which agent in it."""

    session_id: str
    claude_id: str
    user_id: str
    agent_id: str | None = None


class Last(NamedTuple):
    """The last words of a turn, as far as it has come."""

    text: str
    is_error: bool
    line: bytes
    at: str | None


def is_copied(said: TaleLine, claude_id: str) -> bool:
    """Whether a line was said in another session, from which this one was forked: it was told there."""
    return said.forked_from is not None or said.session_id not in (None, claude_id)


def copied_lines(lines: bytes) -> int:
    """How many of the first are those of a conversation that this one was forked from: Claude Code copies them with the
    id of the first prompt of its own, and so with an id that several prompts have."""
    first, number = "", 0
    for place, line in enumerate(lines.split(b"\n")):
        said = line_as(line, TaleLine) if b'"promptSource"' in line else None
        if said and said.type == "user":
            first = first or said.prompt_id or ""
            number = place if first and said.prompt_id == first else number
    return number if first and is_not_the_first(lines, number) else 0


def is_not_the_first(lines: bytes, number: int) -> bool:
    return any(b'"promptSource"' in line for line in lines.split(b"\n")[:number])


def calls_in(lines: bytes, claude_id: str) -> list[str]:
    """The calls of a conversation by which it is known whose it is, of its first lines."""
    found: list[str] = []
    for line in lines.split(b"\n"):
        if len(found) >= CALLS_LOOKED_AT:
            break
        names = [name.decode() for name in TOOL_USE.findall(line)]
        said = line_as(line, TaleLine) if names else None
        if said and not is_copied(said, claude_id):
            found += names
    return found[:CALLS_LOOKED_AT]


def start_id(claude_id: str) -> str:
    """Of the event with which an import begins a session."""
    return event_id("start", claude_id.encode())


def event_id(kind: str, line: bytes) -> str:
    return f"import-{hashlib.sha256(line).hexdigest()[:32]}-{kind}"


class Retelling:
    """Of one conversation, some lines at a time: these of its first lines are copied from another."""

    def __init__(self, whose: Whose, told: Told) -> None:
        self.whose = whose
        self.told = told
        self.has_read = self.has_begun = False
        self.calls: dict[str, Document] = {}
        """Those without a result, as their hook told of them."""
        self.last: Last | None = None
        self.last_at: str | None = None
        self.title = ""

    def of(self, lines: bytes) -> Iterator[bytes]:
        """The lines of a batch that some lines make."""
        copied = 0 if self.has_read or not self.told.is_own else copied_lines(lines)
        self.has_read = True
        for line in lines.split(b"\n")[copied:]:
            if not CHAIN.search(line) and not any(title in line for title in TITLES):
                continue
            said = line_as(line, TaleLine)
            if said is None:
                continue
            said.timestamp = time_in(said.timestamp)
            is_before = self.told.since and said.timestamp and said.timestamp < self.told.since
            if not is_before and not is_copied(said, self.whose.claude_id):
                self.last_at = said.timestamp or self.last_at
                yield from self.of_line(said, line)

    def of_line(self, said: TaleLine, line: bytes) -> Iterator[bytes]:
        self.title = text_in(said.custom_title) or text_in(said.ai_title) or self.title
        if said.message is None:
            return
        if not self.has_begun:
            self.has_begun = True
            yield from self.begin(said)
        if said.type == "assistant":
            yield from self.answered(said, line)
        elif said.type == "user":
            yield from self.asked(said, line)

    def end(self) -> Iterator[bytes]:
        """What follows from that there is no more."""
        yield from self.turn_ends()
        agent_id, at = self.whose.agent_id, self.last_at
        if not self.has_begun:
            return
        if agent_id is not None and agent_id not in self.told.ended_agents:
            self.told.ended_agents.add(agent_id)
            about: Document = {"agent_id": agent_id, "agent_type": self.told.agents.get(agent_id) or "subagent"}
            yield self.hook("SubagentStop", event_id("end", f"{agent_id} {at}".encode()), at, **about)
        elif agent_id is None and self.told.is_own:
            name = event_id("end", f"{self.whose.claude_id} {at}".encode())
            yield self.hook("SessionEnd", name, at, known=self.titled(), reason="other")

    def titled(self) -> Document:
        return {"metadata": {"title": self.title}} if self.title else {}

    # ---- one kind after the other

    def begin(self, said: TaleLine) -> Iterator[bytes]:
        if self.whose.agent_id is not None:
            yield from self.agent_begins(self.whose.agent_id, "", said.timestamp)
        elif self.told.is_own:
            cwd: Document = {"cwd": said.cwd} if text_in(said.cwd) else {}
            yield self.hook("SessionStart", start_id(self.whose.claude_id), said.timestamp, source="import", **cwd)

    def agent_begins(self, agent_id: str, agent_type: str, at: str | None) -> Iterator[bytes]:
        if agent_id in self.told.agents or not is_one(agent_id):
            return
        self.told.agents[agent_id] = agent_type
        more: Document = {"agent_type": agent_type} if agent_type else {}
        yield self.hook("SubagentStart", event_id("agent", agent_id.encode()), at, agent_id=agent_id, **more)

    def answered(self, said: TaleLine, line: bytes) -> Iterator[bytes]:
        assert said.message is not None
        for item in items_of(said.message.content):
            if isinstance(item, dict) and item.get("type") == "tool_use":
                self.last = None
                yield from self.called(item, said)
        text = content_text(said.message.content)
        if text and not said.is_sidechain:
            self.last = Last(text, said.is_api_error_message, line, said.timestamp)

    def called(self, item: Document, said: TaleLine) -> Iterator[bytes]:
        tool_use_id, tool = text_in(item.get("id")), text_in(item.get("name"))
        if not tool_use_id or not tool:
            return
        about: Document = {"tool_use_id": tool_use_id, "tool_name": tool, "tool_input": with_full_path(item, said.cwd)}
        about |= {"prompt_id": said.prompt_id} if said.prompt_id else {}
        self.calls[tool_use_id] = about
        if len(self.calls) > OPEN_CALLS:
            del self.calls[next(iter(self.calls))]
        if tool_use_id not in self.told.calls:
            self.told.calls.add(tool_use_id)
            yield self.hook("PreToolUse", event_id("call", tool_use_id.encode()), said.timestamp, **about)

    def asked(self, said: TaleLine, line: bytes) -> Iterator[bytes]:
        assert said.message is not None
        items = items_of(said.message.content)
        results = [item for item in items if isinstance(item, dict) and item.get("type") == "tool_result"]
        for item in results:
            yield from self.given_back(item, said)
        text = content_text(said.message.content)
        is_machine = said.is_meta or said.is_sidechain or said.is_compact_summary or text.lstrip().startswith(OWN_WORDS)
        if results or not text or is_machine or says_no(text) or self.whose.agent_id is not None:
            return
        yield from self.turn_ends()
        if not self.told.prompts.isdisjoint({said.prompt_id or "", text[:QUOTED]}):
            return
        self.told.prompts |= {said.prompt_id or text[:QUOTED], text[:QUOTED]}
        more: Document = {"prompt_id": said.prompt_id} if said.prompt_id else {}
        yield self.hook("UserPromptSubmit", event_id("prompt", line), said.timestamp, prompt=text, **more)

    def given_back(self, item: Document, said: TaleLine) -> Iterator[bytes]:
        tool_use_id = text_in(item.get("tool_use_id"))
        about = self.calls.pop(tool_use_id, {"tool_use_id": tool_use_id})
        structured = said.tool_use_result
        agent_id = text_in(structured.get("agentId")) if isinstance(structured, dict) else ""
        if about.get("tool_name") in AGENT_TOOLS and agent_id:
            given = about["tool_input"] if isinstance(about.get("tool_input"), dict) else {}
            agent_type = text_in(given.get("subagent_type"))
            yield from self.agent_begins(agent_id, agent_type, said.timestamp)
            if agent_type and not self.told.agents.get(agent_id, agent_type):  # its own conversation came first
                self.told.agents[agent_id] = agent_type
                yield self.line("agent_updated", agent_id, {"agentId": agent_id, "type": agent_type})
        if not tool_use_id or tool_use_id in self.told.results:
            return
        self.told.results.add(tool_use_id)
        text = content_text(item.get("content"))
        name = event_id("result", tool_use_id.encode())
        if item.get("is_error") is True:
            yield self.hook("PostToolUseFailure", name, said.timestamp, **about, error=text)
        else:
            output = text if structured is None else structured
            yield self.hook("PostToolUse", name, said.timestamp, **about, tool_response=output)

    def turn_ends(self) -> Iterator[bytes]:
        last, self.last = self.last, None
        if last is None or self.whose.agent_id is not None or last.text[:QUOTED] in self.told.messages:
            return
        if self.told.is_own:
            said: Document = {"error": "api_error"} if last.is_error else {}
            hook = "StopFailure" if last.is_error else "Stop"
            name = event_id("stop", last.line)
            yield self.hook(hook, name, last.at, last_assistant_message=last.text, **said)

    def line(self, event_type: str, name: str, data: Document) -> bytes:
        """The line of a batch that is an event of its own."""
        line = {"type": event_type, "eventId": event_id("type", name.encode()), "sessionId": self.whose.session_id}
        return msgspec.json.encode(line | {"userId": self.whose.user_id, "data": data})

    def hook(self, hook: str, name: str, at: str | None, *, known: Document | None = None, **payload: Any) -> bytes:
        """The line of a batch that stands for the payload of a hook."""
        whose = self.whose
        payload |= {"hook_event_name": hook, "session_id": whose.claude_id}
        if whose.agent_id is not None and "agent_id" not in payload:
            payload["agent_id"] = whose.agent_id
        line = {
            "type": "hook",
            "eventId": name,
            "sessionId": whose.session_id,
            "userId": whose.user_id,
            **(known or {}),
        }
        return msgspec.json.encode(line | ({"timestamp": at} if at else {}) | {"data": payload})


def with_full_path(item: Document, folder: Any) -> Any:
    """What a tool was given as its hook has it, which names a file in full."""
    given = item.get("input")
    if not isinstance(given, dict) or not text_in(folder):
        return given
    named = {name: text for name in ("file_path", "notebook_path") if (text := text_in(given.get(name)))}
    return given | {name: text if text.startswith("/") else f"{folder}/{text}" for name, text in named.items()}


def time_in(text: str | None) -> str | None:
    """A time that the store takes; None: it says none."""
    try:
        return utc(text, "$.timestamp") if text else None
    except Problem:
        return None
