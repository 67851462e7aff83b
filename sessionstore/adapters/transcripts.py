"""Lines of a conversation, as Claude Code and the Agent SDK write them: what their requests to models used.

One answer of a model is several lines, a content block each, with the same id and the same or growing usage. The format
is Claude Code's own and may change: what is not known is passed over.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from sessionstore.model.coercion import id_of
from sessionstore.model.folds import Document, decode, encode

SYNTHETIC = "<synthetic>"
"""The model of what Claude Code says itself."""
TOKENS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_input_tokens",
    "cacheWriteTokens": "cache_creation_input_tokens",
}


def reports_in(lines: bytes) -> list[Document]:
    """What some lines of a conversation say of requests to models, each request once, as the last line has it."""
    reports: dict[str, Document] = {}
    for line in lines.split(b"\n"):
        if b'"usage"' in line and (report := report_in(line)):
            reports[f"{report['requestKey']} {report['messageId']}"] = report
    return [*reports.values()]


def report_in(line: bytes) -> Document | None:
    """What a line says of a request to a model; None: nothing."""
    try:
        said = decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    message = said.get("message") if isinstance(said, dict) else None
    usage = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(usage, dict) or message.get("model") in (None, SYNTHETIC):
        return None
    tokens = {name: count(usage.get(own)) for name, own in TOKENS.items()}
    request, answer = said.get("requestId"), message.get("id")
    own = f"{answer}" if request else f"{answer}:{tokens['inputTokens']}:{tokens['cacheReadTokens']}"
    of_an_hour = count(member(usage, "cache_creation", "ephemeral_1h_input_tokens"))
    report = tokens | {
        "source": "transcript",
        "requestKey": request or answer,
        "messageId": own,
        "provider": "anthropic",
        "model": message.get("model"),
        "agentId": id_of(said.get("agentId")) or None,
        "promptId": said.get("promptId"),
        "cacheWriteTokens": max(0, tokens["cacheWriteTokens"] - of_an_hour),
        "cacheWrite1hTokens": of_an_hour,
        "reasoningTokens": count(member(usage, "output_tokens_details", "thinking_tokens")),
        "speed": "fast" if usage.get("speed") == "fast" else None,
        "at": said.get("timestamp"),
    }
    return {name: value for name, value in report.items() if value is not None} if report["requestKey"] else None


def member(owner: Document, *names: str) -> Any:
    found: Any = owner
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def event_of(report: Document, session_id: str) -> bytes:
    """The line of a batch. Told again it has the same id; once the usage of a request has grown, another."""
    name = f"transcript-{hashlib.sha256(encode(report).encode()).hexdigest()[:32]}"
    line = {"type": "usage_reported", "sessionId": session_id, "eventId": name, "data": report}
    return msgspec.json.encode(line | ({"timestamp": report["at"]} if "at" in report else {}))
