"""Lines of a conversation, and events of a session, as messages that people read: one at a time, and pure.

The format of lines is Claude Code's own and may change: what is not known is passed over. What it says in a person's
name is told apart from what a person said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from sessionstore.adapters.claude_code import OWN_WORDS, names, says_no, text_in
from sessionstore.adapters.transcripts import (
    SYNTHETIC,
    CompactMetadata,
    Envelope,
    ModelMessage,
    has_too_much,
    line_as,
    report_of,
)
from sessionstore.model.conversation import (
    Block,
    Call,
    Compaction,
    Image,
    Message,
    Result,
    Text,
    Thinking,
    Usage,
    call,
    cut,
    cut_thinking,
    image,
)
from sessionstore.model.events import decoded
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
CHAIN = re.compile(rb'"type"\s*:\s*"(?:user|assistant|system|agent_metadata)"')
"""What is in every line that says something."""
SAID_BY_SYSTEM = ("api_error", "local_command", "informational", "away_summary", "scheduled_task_fire")

# ---------------------------------------------------------------------------- lines


class Said(ModelMessage):
    content: str | list[Any] | None = None


class Line(Envelope, rename="camel", kw_only=True):
    """Of a line what is shown."""

    type: str
    subtype: str | None = None
    message: Said | None = None
    content: Any = None
    uuid: str | None = None
    is_meta: bool = False
    is_compact_summary: bool = False
    is_api_error_message: bool = False
    compact_metadata: CompactMetadata | None = None
    origin: Any = None
    tool_use_result: Any = None


def message_of_line(line: bytes, cursor: str) -> Message | None:
    """What a line says; None: nothing that is shown."""
    if not CHAIN.search(line) or has_too_much(line):
        return None
    said = line_as(line, Line)
    build = LINES.get(said.type) if said else None
    message = build(said, cursor) if said and build else None
    if said and message:
        message.at, message.is_sidechain = said.timestamp, said.is_sidechain
        message.agent_id, message.prompt_id = said.agent_id, said.prompt_id
        message.id = message.id or said.uuid
    return message


def assistant(line: Line, cursor: str) -> Message | None:
    if line.message is None:
        return None
    said = line.message
    blocks = [block for item in items_of(said.content) for block in block_of(item)]
    return Message(
        cursor=cursor,
        role="assistant",
        id=said.id,
        model=None if said.model == SYNTHETIC else said.model,
        request_id=line.request_id,
        blocks=blocks,
        usage=usage_in(report_of(line, said)),
        is_error=line.is_api_error_message,
    )


def usage_in(report: Document | None) -> Usage | None:
    return Usage(**{name: report[key] for name, key in USED.items()}) if report else None


USED = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_read_tokens": "cacheReadTokens",
    "cache_write_tokens": "cacheWriteTokens",
    "cache_write1h_tokens": "cacheWrite1hTokens",
    "reasoning_tokens": "reasoningTokens",
}


def user(line: Line, cursor: str) -> Message | None:
    """A prompt, or what tools gave back."""
    items = items_of(line.message.content if line.message else None)
    results = [result for item in items if (result := result_of(item, line.tool_use_result, line.timestamp))]
    if results:
        return Message(cursor=cursor, role="results", blocks=[*results])
    blocks = [block for item in items for block in block_of(item)]
    if not blocks:
        return None
    return Message(
        cursor=cursor,
        role="user",
        blocks=blocks,
        is_machine_made=line.is_meta or line.is_compact_summary or is_own(line, blocks),
        is_summary=line.is_compact_summary,
    )


def is_own(line: Line, blocks: list[Block]) -> bool:
    """Whether a program says it in the name of a person."""
    kind = line.origin.get("kind") if isinstance(line.origin, dict) else None
    first = blocks[0]
    is_word = isinstance(first, Text) and first.text.lstrip().startswith(OWN_WORDS)
    return is_word or (isinstance(kind, str) and kind != "human")


def system(line: Line, cursor: str) -> Message | None:
    if line.subtype == "compact_boundary":
        found = line.compact_metadata or CompactMetadata()
        compaction = Compaction(trigger=found.trigger, pre_tokens=found.pre_tokens, post_tokens=found.post_tokens)
        return Message(cursor=cursor, role="compaction", blocks=[], compaction=compaction)
    text = text_in(line.content)
    if line.subtype not in SAID_BY_SYSTEM or not text:
        return None
    return Message(cursor=cursor, role="system", blocks=[cut(text)], is_error=line.subtype == "api_error")


LINES: dict[str, Callable[[Line, str], Message | None]] = {"assistant": assistant, "user": user, "system": system}


def items_of(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [content] if content else []


def block_of(item: Any) -> Iterator[Block]:
    """A block of a message, as the Messages API has it."""
    if isinstance(item, str):
        yield cut(item)
    elif isinstance(item, dict):
        kind = text_in(item.get("type"))
        if kind.endswith("tool_use"):
            yield call(text_in(item.get("name")) or "?", item.get("input"), text_in(item.get("id")) or None)
        elif kind == "thinking":
            yield cut_thinking(text_in(item.get("thinking")))
        elif kind == "redacted_thinking":
            yield Thinking(text="")
        elif kind.endswith("tool_result"):
            yield Result(tool_use_id=text_in(item.get("tool_use_id")), blocks=[*shown(item.get("content"))])
        else:
            yield from shown(item)


def shown(content: Any) -> Iterator[Text | Image]:
    """Texts and images of a content, whatever it is."""
    for item in items_of(content):
        if isinstance(item, str):
            yield cut(item)
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            yield cut(item["text"])
        elif isinstance(item, dict):
            yield picture(item) or cut(f"[{text_in(item.get('type')) or 'block'}]")


def picture(item: Document) -> Image | None:
    source = item.get("source")
    if item.get("type") != "image" or not isinstance(source, dict):
        return None
    media_type, data = text_in(source.get("media_type")), text_in(source.get("data"))
    return image(media_type, data) if media_type in IMAGES and data else None


def result_of(item: Any, structured: Any, at: str | None) -> Result | None:
    if not isinstance(item, dict) or item.get("type") != "tool_result":
        return None
    blocks = [*shown(item.get("content"))]
    is_error = item.get("is_error") is True
    told = structured if isinstance(structured, dict) else {}
    return Result(
        tool_use_id=text_in(item.get("tool_use_id")),
        blocks=blocks,
        at=at,
        is_error=is_error,
        is_rejected=is_error and bool(blocks) and isinstance(blocks[0], Text) and says_no(blocks[0].text),
        agent_id=text_in(told.get("agentId")) or None,
    )


class AgentFacts(NamedTuple):
    """What is said of a sub-agent beside its conversation."""

    agent_type: str | None
    task: str | None
    tool_use_id: str | None
    """Of the call that it is of."""


def facts_in(document: bytes, *, is_line: bool) -> AgentFacts | None:
    """The same of a file, or of a line among those of the conversation; None: it says nothing."""
    with suppress(Problem, msgspec.MsgspecError, RecursionError):
        found = decoded(document)
        if isinstance(found, dict) and (not is_line or found.get("type") == "agent_metadata"):
            return AgentFacts(*(text_in(found.get(name)) or None for name in ("agentType", "description", "toolUseId")))
    return None


# --------------------------------------------------------------------------- events

TEXTS = ("message", "text", "content", "prompt", "response", "errorDetails", "error")
"""Members in which what was said stands, the likeliest first."""
SILENT = names(
    """notification permission_request elicitation elicitation_result model_call graph_start graph_end message_display
    subagent_stop internal hook events_dropped program_ended post_tool_batch interrupt_closed config_change
    instructions_loaded cwd_changed file_changed setup stop session_start session_end user_prompt_expansion
    teammate_idle"""
)
"""Kinds of entries that say nothing to people, or what another says better."""


def message_of_event(
    text: str, cursor: int, event_type: str, kind: str | None, agent_id: str | None, at: str
) -> Message | None:
    """What an event says; `text`: its data. None: nothing that is shown."""
    data = msgspec.json.decode(text)
    message = Message(cursor=str(cursor), role="system", blocks=[], at=at, agent_id=agent_id)
    message.prompt_id = text_in(data.get("prompt_id")) or None
    if event_type == "session_created":
        initial = data.get("initial")
        return says(message, "user", text_in(initial.get("input")) if isinstance(initial, dict) else "")
    if event_type == "action":
        return acted(message, str(kind), data)
    return answered(message, str(kind), data)


def says(message: Message, role: Any, text: str) -> Message | None:
    message.role, message.blocks = role, [cut(text)]
    return message if text.strip() else None


def said_in(data: Document) -> str:
    return next((text for name in TEXTS if (text := text_in(data.get(name))).strip()), "")


def acted(message: Message, kind: str, data: Document) -> Message | None:
    if kind in ("pre_compact", "post_compact"):
        message.role, message.compaction = "compaction", Compaction(trigger=text_in(data.get("trigger")) or None)
        return message if kind == "pre_compact" else None
    if kind == "prompt":
        text = text_in(data.get("prompt")) or said_in(data)
        message.is_machine_made = data.get("machineMade") is True or text.lstrip().startswith(OWN_WORDS)
        return says(message, "user", text)
    if kind in SILENT:
        return None
    message.role = "assistant"
    if kind == "tool_call":
        tool_use_id = text_in(data.get("toolUseId")) or None
        message.blocks = [call(text_in(data.get("tool")) or "?", data.get("input"), tool_use_id)]
    elif kind == "interrupt":
        asked = data.get("attention")
        return says(message, "system", text_in(asked.get("message")) if isinstance(asked, dict) else "")
    else:
        given = {name: value for name, value in data.items() if name not in ("type", "attention")}
        message.blocks = [Call(tool=kind, input=call(kind, given).input)]
    return message


def answered(message: Message, kind: str, data: Document) -> Message | None:
    if kind in ("tool_result", "tool_error") and text_in(data.get("toolUseId")):
        message.role, message.blocks = "results", [result_in(kind, data, message.at)]
        return message
    if kind in SILENT:
        return None
    message.model = text_in(data.get("model")) or None
    message.is_error = kind in ("error", "tool_error", "model_error", "graph_error")
    return says(message, "system" if message.is_error else "assistant", said_in(data))


def result_in(kind: str, data: Document, at: str | None) -> Result:
    output = data.get("error") if kind == "tool_error" else data.get("output")
    took, told = data.get("durationMs"), output if isinstance(output, dict) else {}
    return Result(
        tool_use_id=data["toolUseId"],
        blocks=[*output_shown(output)],
        at=at,
        is_error=kind == "tool_error",
        is_rejected=data.get("rejected") is True,
        duration_ms=took if isinstance(took, int) else None,
        agent_id=text_in(told.get("agentId")) or None,
    )


def output_shown(output: Any) -> Iterator[Text | Image]:
    """Claude Code's tools give objects of their own: what people know of them, and else all of it."""
    if isinstance(output, dict):
        if isinstance(output.get("content"), (str, list)):
            output = output["content"]
        elif isinstance(output.get("stdout"), str):
            parts = (text_in(output.get(name)).rstrip("\n") for name in ("stdout", "stderr"))
            output = "\n".join(filter(None, parts))
    if output is None or isinstance(output, str):
        yield from [cut(output)] if output else []
    elif isinstance(output, list) and all(isinstance(item, dict) and "type" in item for item in output):
        yield from shown(output)
    else:
        yield cut(encode(output))
