"""A conversation as people read it: messages in order, each call of a tool with its result, whoever wrote them down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

TEXT = 100_000
"""Characters of one text that are given; `leftOut` says how many more there were."""
IMAGE = 4 << 20
"""Characters (base64) that an image may have; a larger one is left out."""
MEMBERS, DEPTH = 1_000, 40
"""Of what a tool was given: members or items of one object or list, and levels."""

Role = Literal["user", "assistant", "system", "compaction", "conversation", "results"]


class ConversationPart(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A member that says nothing is left out."""


class Text(ConversationPart, tag_field="type", tag="text"):
    text: str
    left_out: int = 0
    """Characters that are not here."""


class Thinking(ConversationPart, tag_field="type", tag="thinking"):
    """Empty: it was said encrypted."""

    text: str
    left_out: int = 0


class Image(ConversationPart, tag_field="type", tag="image"):
    media_type: str
    data: str
    """Base64; empty: it was left out, or stands elsewhere."""
    left_out: int = 0


class Result(ConversationPart, tag_field="type", tag="result"):
    """What a tool gave back."""

    tool_use_id: str
    blocks: list[Text | Image] = []
    at: str | None = None
    is_error: bool = False
    is_rejected: bool = False
    """A person said no to the call, or broke it off."""
    duration_ms: int | None = None
    agent_id: str | None = None
    """Of the agent that did it."""


class Agent(ConversationPart):
    """An agent that a call was for, and how its own conversation begins."""

    agent_id: str
    agent_type: str | None = None
    task: str | None = None
    messages: list[Message] = []
    next_after: str | None = None
    more: bool = False
    """Whether there is more of it behind `nextAfter`."""


class Call(ConversationPart, tag_field="type", tag="call", kw_only=True):
    """A call of a tool; without an id it has no result."""

    tool_use_id: str | None = None
    tool: str
    input: Any = None
    left_out: int = 0
    result: Result | None = None
    agent: Agent | None = None


Block = Text | Thinking | Image | Call | Result


class Usage(ConversationPart):
    """Tokens of one request to a model, as the ledger counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write1h_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None


class Compaction(ConversationPart):
    """Up to here the model is told a summary."""

    trigger: str | None = None
    pre_tokens: int | None = None
    post_tokens: int | None = None


class Message(ConversationPart):
    """What one side said at a time. `results` are those whose calls stand on an earlier page."""

    cursor: str
    role: Role
    blocks: list[Block]
    id: str | None = None
    at: str | None = None
    agent_id: str | None = None
    model: str | None = None
    prompt_id: str | None = None
    request_id: str | None = None
    usage: Usage | None = None
    compaction: Compaction | None = None
    is_machine_made: bool = False
    """A prompt that no person said."""
    is_summary: bool = False
    """What the model is told in the place of what was compacted."""
    is_sidechain: bool = False
    """Said by a sub-agent of an old version, which has no conversation of its own."""
    is_error: bool = False


def cut(text: str) -> Text:
    return Text(text=text[:TEXT], left_out=max(0, len(text) - TEXT))


def cut_thinking(text: str) -> Thinking:
    return Thinking(text=text[:TEXT], left_out=max(0, len(text) - TEXT))


def image(media_type: str, data: str) -> Image:
    fits = len(data) <= IMAGE
    return Image(media_type=media_type, data=data if fits else "", left_out=0 if fits else len(data))


def call(tool: str, given: Any, tool_use_id: str | None = None) -> Call:
    left_out = [0]
    return Call(tool_use_id=tool_use_id, tool=tool, input=fitted(given, left_out), left_out=left_out[0])


def fitted(value: Any, left_out: list[int], depth: int = DEPTH) -> Any:
    """What a tool was given, with no more than is shown; `left_out` grows by what is not."""
    if isinstance(value, str) and len(value) > TEXT:
        left_out[0] += len(value) - TEXT
        return value[:TEXT]
    if isinstance(value, (dict, list)) and not depth:
        left_out[0] += 1
        return None
    if isinstance(value, dict):
        left_out[0] += max(0, len(value) - MEMBERS)
        return {name: fitted(value[name], left_out, depth - 1) for name in list(value)[:MEMBERS]}
    if isinstance(value, list):
        left_out[0] += max(0, len(value) - MEMBERS)
        return [fitted(item, left_out, depth - 1) for item in value[:MEMBERS]]
    return value


class Joined:
    """Messages as they come, up to so many: what belongs together is put together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.messages: list[Message] = []
        self.open: dict[str, Call] = {}

    def add(self, message: Message) -> bool:
        """False: it would be one too many, and was not taken."""
        last = self.messages[-1] if self.messages else None
        if message.role == "results":
            message.blocks = [block for block in message.blocks if not self.is_joined(block)]
            if not message.blocks:
                if last:
                    last.cursor = message.cursor
                return True
        elif last and message.id and message.role == last.role == "assistant" and message.id == last.id:
            last.blocks += message.blocks
            last.usage = message.usage or last.usage
            last.cursor = message.cursor
            self.note_calls(message)
            return True
        if len(self.messages) >= self.limit:
            return False
        self.messages.append(message)
        self.note_calls(message)
        return True

    def note_calls(self, message: Message) -> None:
        self.open |= {block.tool_use_id: block for block in calls_in(message) if block.tool_use_id}

    def is_joined(self, block: Block) -> bool:
        if not isinstance(block, Result) or (of := self.open.pop(block.tool_use_id, None)) is None:
            return False
        of.result = block
        return True


def calls_in(message: Message) -> Iterator[Call]:
    return (block for block in message.blocks if isinstance(block, Call))
