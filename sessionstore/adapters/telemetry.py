"""OpenTelemetry as events: what Claude Code tells of itself, and spans by any of the names that agents' have.

Names are those of the GenAI conventions (of today and before), OpenInference, OpenLLMetry and LangSmith, the newest
first. Each event has an id that follows from its record, so that a request that is sent again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sessionstore.adapters.otlp import Record
from sessionstore.adapters.otlp_levels import Signal
from sessionstore.model.coercion import id_of, number_of, user_of
from sessionstore.model.folds import Document, decode, encode
from sessionstore.prices import MEMBERS

SESSION = (
    "session_id",
    "session.id",
    "gen_ai.conversation.id",
    "conversation.id",
    "traceloop.association.properties.session_id",
    "langsmith.trace.session_id",
    "langsmith.metadata.session_id",
    "traceloop.association.properties.thread_id",
    "langsmith.metadata.thread_id",
    "thread_id",
)
"""What says which session a record is of; the first, from OTEL_RESOURCE_ATTRIBUTES, is the container's own."""
USER = ("user_id", "user.email", "enduser.id", "user.account_uuid", "user.id", "gen_ai.user.id")
MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "llm.request.model_name", "model")
UNKNOWN = "unknown"
"""What OpenLLMetry calls a model that has not said its name."""
PROVIDER = ("gen_ai.provider.name", "llm.provider", "gen_ai.system", "llm.system")
OPERATION = ("gen_ai.operation.name", "openinference.span.kind", "traceloop.span.kind", "langsmith.span.kind")
AGENT = ("gen_ai.agent.name", "agent.name", "graph.node.id", "traceloop.entity.name", "gen_ai.workflow.name")
TASK = ("gen_ai.agent.description", "traceloop.entity.input", "input.value")
TOOL = ("gen_ai.tool.name", "tool.name", "tool_call.function.name", "tool_name", "traceloop.entity.name")
CALL = ("gen_ai.tool.call.id", "tool_call.id", "tool_use_id")
GIVEN = ("gen_ai.tool.call.arguments", "tool_call.function.arguments", "traceloop.entity.input", "input.value")
RETURNED = ("gen_ai.tool.call.result", "traceloop.entity.output", "output.value")
CLAUDE = "com.anthropic.claude_code"
"""What the scopes of Claude Code's own telemetry begin with."""
MAIN = ("sdk", "repl_main_thread")
"""What Claude Code says of a request of its main agent, or begins with that."""
COST = ("cost_usd", "llm.cost.total", "operation.cost")
TOKENS = {
    "inputTokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "outputTokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cacheReadTokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "gen_ai.usage.details.cache_read_tokens",
    ),
    "cacheWriteTokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "gen_ai.usage.details.cache_write_tokens",
    ),
    "reasoningTokens": ("gen_ai.usage.reasoning.output_tokens", "llm.token_count.completion_details.reasoning"),
}
"""Input by these names has the cache in it, which the ledger's has not."""
CODEX = {
    "input_token_count": TOKENS["inputTokens"][0],
    "output_token_count": TOKENS["outputTokens"][0],
    "cached_token_count": TOKENS["cacheReadTokens"][0],
    "cache_write_token_count": TOKENS["cacheWriteTokens"][0],
    "reasoning_token_count": TOKENS["reasoningTokens"][0],
}
"""What Codex calls them where a response is complete."""
PLAIN_TOKENS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_tokens",
    "cacheWriteTokens": "cache_creation_tokens",
}
"""Claude Code's own names, by which input has no cache in it."""
ASKS_A_MODEL = frozenset(
    ["chat", "text_completion", "generate_content", "completion", "embeddings", "llm", "embedding", "llm_request"]
)
CALLS_A_TOOL = frozenset(["execute_tool", "tool"])
IS_AN_AGENT = frozenset(["invoke_agent", "create_agent", "invoke_workflow", "agent", "workflow", "chain", "task"])
HIGHEST = 50
"""Spans above another that are looked at."""
LONGEST = 10_000
"""Characters of a text that a span gives or returns."""


def first(attributes: Document, names: Iterable[str]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name) not in (None, "")), None)


def number(value: Any) -> int | float:
    """A number, also one that came as text; 0 for anything else, and for what is not finite."""
    return number_of(value) or 0


def dollars(value: Any) -> int | float | None:
    """A cost; None where nobody has said one."""
    found = number_of(value)
    return found if found is None or found >= 0 else None


def session_of(record: Record) -> str:
    """The session that it names, else its trace, else its program."""
    named = id_of(first(record.attributes, SESSION))
    if named or record.trace_id:
        return named or f"trace-{record.trace_id}"
    return id_of(f"otel-{first(record.attributes, ('service.instance.id', 'service.name')) or 'unknown'}")


def digest_of(record: Record) -> str:
    return hashlib.sha256(encode([record.name, record.at, record.attributes]).encode()).hexdigest()[:32]


def event(record: Record, event_type: str, what: str, data: Document, *, at: str | None = None) -> Document:
    """The line of a batch; `what` tells the events of one record apart."""
    known = {name: value for name, value in data.items() if value is not None}
    own = f"{record.trace_id}-{record.span_id}" if record.is_span and record.span_id else ""
    line = {
        "type": event_type,
        "sessionId": session_of(record),
        "eventId": f"otel-{own or digest_of(record)}-{what}"[:128],
        "data": known,
    }
    user, moment = first(record.attributes, USER), at or record.at
    return line | ({"timestamp": moment} if moment else {}) | ({"userId": user_of(user)} if user is not None else {})


# ----------------------------------------------------------------------------- logs


def events_of_logs(found: Iterable[Record]) -> Iterator[Document]:
    """What a hook cannot tell: requests to the model. All else Claude Code's hooks tell better, and others' logs are
    kept as they are."""
    for record in found:
        is_claude = record.scope.startswith(CLAUDE)
        name = str(record.attributes.get("event.name") or record.name).removeprefix("claude_code.")
        if name == "codex.sse_event":
            record = record._replace(attributes={CODEX.get(own, own): it for own, it in record.attributes.items()})
        if is_claude and name == "api_request":
            yield usage_of_request(record)
        elif is_claude and name == "compaction":
            yield from compaction(record)
        elif first(record.attributes, TOKENS["inputTokens"]) is not None:
            yield usage_of_span(record, "otlp_logs")
        elif not is_claude:
            data = {"type": "log", "name": name, "severity": record.severity or None, "text": record.body}
            data["attributes"] = record.attributes
            yield event(record, "action", "log", data)


def usage_of_request(record: Record) -> Document:
    """Claude Code's api_request, which has the same name for a request as its transcript."""
    said = record.attributes
    hour, minutes = number(said.get("cache_creation_1h_tokens")), said.get("cache_creation_5m_tokens")
    written = number(said.get("cache_creation_tokens"))
    data = {name: number(said.get(own)) for name, own in PLAIN_TOKENS.items()} | {
        "source": "otlp_logs",
        "requestKey": said.get("request_id") or None,
        "hasRequestId": bool(said.get("request_id")) or None,
        "provider": "anthropic",
        "model": said.get("model"),
        "promptId": said.get("prompt.id"),
        "agentId": said.get("agent_id"),
        "cacheWriteTokens": number(minutes) if minutes is not None else max(0, written - hour),
        "cacheWrite1hTokens": hour,
        "costUsd": dollars(said.get("cost_usd")),
        "speed": said.get("speed"),
        "durationMs": number(said.get("duration_ms")),
        "at": record.at,
    }
    return event(record, "usage_reported", "usage", data | context(said, data))


def context(said: Document, data: Document) -> Document:
    """What is in the context of the main agent after one of its own requests: not after one that compacts or names."""
    source = str(first(said, ("query_source", "query_source_safe")) or "")
    is_main = source.startswith(MAIN) and not data.get("agentId")
    return {"contextTokens": sum(data.get(name, 0) for name in MEMBERS)} if is_main else {}


def compaction(record: Record) -> Iterator[Document]:
    """That Claude Code has made the context smaller; of its numbers and truths some come as text."""
    said = record.attributes
    if str(said.get("success")).lower() == "true" and not said.get("agent_id"):
        tokens = {"preTokens": number(said.get("pre_tokens")), "postTokens": number(said.get("post_tokens"))}
        told = {"source": "otlp_logs", "compaction": {"trigger": said.get("trigger")} | tokens, "at": record.at}
        yield event(record, "usage_reported", "compaction", told | {"contextTokens": tokens["postTokens"] or None})


# ---------------------------------------------------------------------------- spans


def events_of_spans(records: Iterable[Record]) -> Iterator[Document]:
    """Agents, tool calls and their results, and requests to models; other spans say nothing of agents. Of Claude Code's
    own the requests: all else its hooks tell better. Of two around one request the inner counts."""
    found = sorted(records, key=lambda record: record.began or "")
    by_id = {record.span_id: record for record in found}
    asked = (record for record in found if operation_of(record) in ASKS_A_MODEL and tells_tokens(record))
    repeating = {above.span_id for record in asked for above in around(record, by_id)}
    for record in found:
        operation = operation_of(record)
        if record.scope.startswith(CLAUDE):
            if operation == "llm_request":
                yield usage_of_span(record, "otlp_spans", id_of(record.attributes.get("agent_id")) or None)
        elif operation in CALLS_A_TOOL:
            yield from tool_call(record, agent_above(record, by_id))
        elif operation in IS_AN_AGENT:
            yield from agent(record, agent_above(record, by_id))
        elif operation in ASKS_A_MODEL and record.span_id not in repeating:
            yield usage_of_span(record, "otlp_spans", agent_above(record, by_id))


def tells_tokens(record: Record) -> bool:
    return any(first(record.attributes, names) is not None for names in (*TOKENS.values(), PLAIN_TOKENS.values()))


def operation_of(record: Record) -> str:
    return str(first(record.attributes, OPERATION) or record.attributes.get("span.type") or "").lower()


def around(record: Record, by_id: dict[str, Record]) -> Iterator[Record]:
    """The spans that a span is in, the nearest first, as far as the request says, and HIGHEST at most."""
    seen = {record.span_id}
    while (above := by_id.get(record.parent_id)) and above.span_id not in seen and len(seen) <= HIGHEST:
        seen.add(above.span_id)
        record = above
        yield above


def agent_above(record: Record, by_id: dict[str, Record]) -> str | None:
    """The nearest agent that a span is in; None: the session itself."""
    above = record
    for above in around(record, by_id):
        if operation_of(above) in IS_AN_AGENT:
            return agent_id_of(above)
    return id_of(above.attributes.get("agent_id")) or None


def agent_id_of(record: Record) -> str:
    return id_of(f"{first(record.attributes, AGENT) or record.name or 'agent'}"[:100]) + f"-{record.span_id[:16]}"


def agent(record: Record, above: str | None) -> Iterator[Document]:
    agent_id = agent_id_of(record)
    name = first(record.attributes, AGENT) or record.name
    begins = {"agentId": agent_id, "type": name, "task": cut(first(record.attributes, TASK)), "parentAgentId": above}
    yield event(record, "agent_spawned", "spawned", begins, at=record.began)
    ends = {
        "agentId": agent_id,
        "status": "completed" if record.error is None else "failed",
        "result": cut(record.error or first(record.attributes, RETURNED)),
    }
    yield event(record, "agent_completed", "completed", ends)


def tool_call(record: Record, above: str | None) -> Iterator[Document]:
    said = record.attributes
    call = {
        "toolUseId": first(said, CALL) or record.span_id,
        "tool": first(said, TOOL) or record.name,
        "agentId": above,
    }
    given = structured(first(said, GIVEN))
    yield event(record, "action", "call", {"type": "tool_call", **call, "input": given}, at=record.began)
    took = None if record.milliseconds is None else round(record.milliseconds)
    back = {"output": cut(first(said, RETURNED))} if record.error is None else {"error": cut(record.error)}
    kind = "tool_result" if record.error is None else "tool_error"
    yield event(record, "response", "result", {"type": kind, **call, "durationMs": took, **back})


def usage_of_span(record: Record, source: str, above: str | None = None) -> Document:
    said = record.attributes
    is_plain = "input_tokens" in said
    request_id = said.get("request_id") if is_plain else None
    is_traced = source == "otlp_spans" and not request_id and (is_plain or "agent_id" not in said)
    names: dict[str, Any] = {name: (own,) for name, own in PLAIN_TOKENS.items()} if is_plain else TOKENS
    tokens = {name: number(first(said, own)) for name, own in names.items()}
    if not is_plain:
        tokens["inputTokens"] = max(0, tokens["inputTokens"] - tokens["cacheReadTokens"] - tokens["cacheWriteTokens"])
    data = tokens | {
        "source": source,
        "requestKey": request_id or (f"{record.trace_id}/{record.span_id}" if record.span_id else digest_of(record)),
        "hasRequestId": bool(request_id) or source == "otlp_logs" or None,
        "isTraced": is_traced or None,
        "provider": first(said, PROVIDER),
        "model": first({name: it for name, it in said.items() if it != UNKNOWN}, MODEL),
        "agentId": above,
        "costUsd": dollars(first(said, COST)),
        "durationMs": None if record.milliseconds is None else round(record.milliseconds),
        "error": record.error,
        "at": record.at,
    }
    return event(record, "usage_reported", "usage", data | context(said, data))


def structured(value: Any) -> Any:
    """What a text of JSON says; else the text."""
    if not isinstance(value, str) or len(value) > LONGEST or value[:1] not in ("{", "["):
        return cut(value)
    try:
        return decode(value)
    except ValueError:
        return value


def cut(value: Any) -> Any:
    return value[:LONGEST] if isinstance(value, str) else value


# -------------------------------------------------------------------------- metrics


METRICS: dict[str, dict[str, str]] = {
    "claude_code.token.usage": {
        "input": "inputTokens",
        "output": "outputTokens",
        "cacheRead": "cacheReadTokens",
        "cacheCreation": "cacheWriteTokens",
    },
    "gen_ai.client.token.usage": {"input": "inputTokens", "output": "outputTokens"},
    "gen_ai.client.inference.usage.input_tokens": {"": "inputTokens"},
    "gen_ai.client.inference.usage.output_tokens": {"": "outputTokens"},
    "gen_ai.client.inference.usage.cache_read.input_tokens": {"": "cacheReadTokens"},
    "gen_ai.client.inference.usage.cache_write.input_tokens": {"": "cacheWriteTokens"},
    "gen_ai.client.inference.usage.reasoning.output_tokens": {"": "reasoningTokens"},
    "claude_code.cost.usage": {"": "costUsd"},
}
"""Metrics of tokens and money, and which member each kind of theirs is."""
IN_INPUT = tuple(f"gen_ai.client.inference.usage.cache_{way}.input_tokens" for way in ("read", "write"))
"""Those whose tokens the metric of input has in it, too."""
Whose = tuple[str, str, str]
"""Session, model, and who in it has asked."""
KIND = ("type", "gen_ai.token.type")


def events_of_metrics(found: Iterable[Record]) -> Iterator[Document]:
    """One report for all points of one model, of the same time; of a sum so far, since it began."""
    reports: dict[str, tuple[Record, Whose, Document]] = {}
    so_far: dict[str, int | float] = {}
    cached: dict[Whose, int | float] = {}
    for point in found:
        kinds = METRICS.get(point.name, {})
        member = kinds.get(str(first(point.attributes, KIND) or ""), kinds.get(""))
        if member is None:
            continue
        model, who = first(point.attributes, MODEL), first(point.attributes, ("query_source", "agent_id", "agent.name"))
        since, amount = point.at, number(point.body)
        if point.is_sum_so_far:  # a request may have several points of one series
            since, series = point.began, encode([point.name, point.began, point.attributes])
            amount, so_far[series] = amount - so_far.get(series, 0), amount
        whose = session_of(point), str(model), str(who)
        key = encode(["metric", whose[0], model, who, since])
        begun: Document = {"source": "otlp_metrics", "requestKey": key[:512], "model": model}
        _, _, data = reports.setdefault(key, (point, whose, begun))
        data[member] = data.get(member, 0) + amount
        data["at"] = point.at
        if point.name in IN_INPUT:
            cached[whose] = cached.get(whose, 0) + amount
    for point, whose, data in reports.values():
        if taken := min(cached.get(whose, 0), data.get("inputTokens", 0)):
            cached[whose] -= taken
            data["inputTokens"] -= taken
        yield event(point._replace(attributes=point.attributes | {"": data}), "usage_reported", "usage", data)


EVENTS: dict[Signal, Callable[[Iterable[Record]], Iterator[Document]]] = {
    "logs": events_of_logs,
    "traces": events_of_spans,
    "metrics": events_of_metrics,
}
"""What the records of a request become, as lines of a batch."""
