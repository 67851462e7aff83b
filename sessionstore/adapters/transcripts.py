"""Lines of a conversation, as Claude Code and the Agent SDK write them: what their requests to models used.

One answer of a model is several lines, a content block each, with the same id and the same or growing usage. The format
is Claude Code's own and may change: what is not known is passed over, and is not even built: a line may have 32 MiB.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import TypeVar

import msgspec

from sessionstore.model.coercion import id_of
from sessionstore.model.events import decoded, with_whole_pairs
from sessionstore.model.folds import Document, encode
from sessionstore.model.lines import values_in
from sessionstore.model.problems import Problem

SYNTHETIC = "<synthetic>"
"""The model of what Claude Code says itself."""


class CacheWrites(msgspec.Struct):
    ephemeral_1h_input_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class MessageUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheWrites | None = None
    output_tokens_details: OutputDetails | None = None
    speed: str | None = None


class ModelMessage(msgspec.Struct):
    model: str | None = None
    id: str | None = None
    usage: MessageUsage | None = None


class CompactMetadata(msgspec.Struct, rename="camel"):
    trigger: str | None = None
    pre_tokens: int | None = None
    post_tokens: int | None = None


class Envelope(msgspec.Struct, rename="camel"):
    """Of a line what says when it was written, and about what."""

    request_id: str | None = None
    agent_id: str | None = None
    is_sidechain: bool = False
    prompt_id: str | None = None
    timestamp: str | None = None


class UsageLine(Envelope, rename="camel", kw_only=True):
    """Of a line of a conversation what says what a request used, or that the context was made smaller."""

    message: ModelMessage | None = None
    uuid: str | None = None
    compact_metadata: CompactMetadata | None = None


Said = TypeVar("Said", bound=Envelope)


def line_as(line: bytes, kind: type[Said]) -> Said | None:
    """What a line says, but for members of other types than we know; None: nothing."""
    with suppress(Problem, msgspec.ValidationError, RecursionError):
        found: Said = decoded(line, kind)
        return found
    if has_too_much(line):
        return None
    with suppress(ValueError, LookupError, RecursionError):
        document = json.loads(with_whole_pairs(line))  # also with a number that is beyond any, or none
        for _ in range(MOST_ODD):
            try:
                return msgspec.convert(document, kind)
            except msgspec.ValidationError as error:
                leave_out(document, ODD.split(str(error))[1])
    return None


def has_too_much(line: bytes) -> bool:
    """Whether to build all of it would take memory many times over: an empty list has two bytes there."""
    return len(line) > MAX_VALUES and values_in(line) > MAX_VALUES


MAX_VALUES = 1_000_000
"""Of one line, by what stands outside of its texts."""
ODD = re.compile(r" - at `\$\.([\w.]+)`$")
MOST_ODD = 20
"""Members of one line."""


def leave_out(document: Document, place: str) -> None:
    """What is there, as `message.usage`. Raises LookupError where nothing is."""
    *above, name = place.split(".")
    for part in above:
        document = document[part]
    del document[name]


def reports_in(lines: bytes) -> list[Document]:
    """What some lines of a conversation say of requests to models, each request once, as the last line has it."""
    reports: dict[str, Document] = {}
    for line in lines.split(b"\n"):
        if (b'"usage"' in line or b'"compactMetadata"' in line) and (report := report_in(line)):
            reports[f"{report['requestKey']} {report.get('messageId')}"] = report
    return [*reports.values()]


def report_in(line: bytes) -> Document | None:
    """What a line says of a request to a model, or of the context; None: nothing."""
    said = line_as(line, UsageLine)
    if said is None:
        return None
    report = report_of(said, said.message) if said.message else compaction(said)
    return report and {name: value for name, value in report.items() if value is not None}


def compaction(said: UsageLine) -> Document | None:
    done = said.compact_metadata
    if done is None or not said.uuid or said.agent_id or said.is_sidechain:
        return None
    return {
        "source": "transcript",
        "requestKey": said.uuid,
        "compaction": {"trigger": done.trigger, "preTokens": done.pre_tokens, "postTokens": done.post_tokens},
        "contextTokens": None if done.post_tokens is None else count(done.post_tokens),
        "at": said.timestamp,
    }


def report_of(said: Envelope, message: ModelMessage) -> Document | None:
    """What an answer of a model says of its request; None: nothing. A line that used nothing is a copy that a fork has
    made of what was compacted."""
    usage = message.usage
    key = said.request_id or message.id
    if usage is None or not key or message.model in (None, SYNTHETIC):
        return None
    into, read = count(usage.input_tokens), count(usage.cache_read_input_tokens)
    of_an_hour = count(usage.cache_creation.ephemeral_1h_input_tokens) if usage.cache_creation else 0
    details = usage.output_tokens_details
    tokens = into + count(usage.output_tokens) + read + count(usage.cache_creation_input_tokens)
    is_main = not said.agent_id and not said.is_sidechain
    if not tokens:
        return None
    return {
        "source": "transcript",
        "requestKey": key,
        "messageId": f"{message.id}" if said.request_id else f"{message.id}:{into}:{read}",
        "provider": "anthropic",
        "model": message.model,
        "agentId": id_of(said.agent_id) or None,
        "promptId": said.prompt_id,
        "inputTokens": into,
        "outputTokens": count(usage.output_tokens),
        "cacheReadTokens": read,
        "cacheWriteTokens": max(0, count(usage.cache_creation_input_tokens) - of_an_hour),
        "cacheWrite1hTokens": of_an_hour,
        "reasoningTokens": count(details.thinking_tokens) if details else 0,
        "speed": "fast" if usage.speed == "fast" else None,
        "contextTokens": tokens if is_main else None,
        "at": said.timestamp,
    }


def count(value: int | None) -> int:
    return max(0, value or 0)


def event_of(report: Document, session_id: str) -> bytes:
    """The line of a batch. Told again it has the same id; once the usage of a request has grown, another."""
    name = f"transcript-{hashlib.sha256(encode(report).encode()).hexdigest()[:32]}"
    line = {"type": "usage_reported", "sessionId": session_id, "eventId": name, "data": report}
    return msgspec.json.encode(line | ({"timestamp": report["at"]} if "at" in report else {}))
