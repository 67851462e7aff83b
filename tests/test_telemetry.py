"""The OTLP receiver: OpenTelemetry's own exporters, in protobuf and JSON, and what nobody should send."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode

from tests.appliance import Appliance
from tests.peers import most_resident_bytes, resident_bytes
from tests.problems import assert_problem
from tests.repeats import marked
from tests.stalls import STALL, least_wait
from tests.test_events import events_of
from tests.test_usage import metadata_of, usage_of

numbers = count(1)
NANO = 10**9
NOON = 1_796_040_000 * NANO


@pytest.fixture
def session() -> str:
    return f"told-{next(numbers)}"


def value(given: Any) -> Any:
    if isinstance(given, bool):
        return {"boolValue": given}
    if isinstance(given, int):
        return {"intValue": str(given)}
    if isinstance(given, float):
        return {"doubleValue": given}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(item) for item in given]}}
    if isinstance(given, dict):
        return {"kvlistValue": {"values": pairs(given)}}
    return {"stringValue": given}


def pairs(attributes: dict[str, Any]) -> list[Any]:
    return [{"key": name, "value": value(given)} for name, given in attributes.items()]


def logs(*records: dict[str, Any], scope: str = "com.anthropic.claude_code.events", **resource: Any) -> Any:
    items = [
        {"timeUnixNano": str(NOON), "body": value(attributes.get("event.name", "")), "attributes": pairs(attributes)}
        for attributes in records
    ]
    scoped = {"scope": {"name": scope}, "logRecords": items}
    return {"resourceLogs": [{"resource": {"attributes": pairs(resource)}, "scopeLogs": [scoped]}]}


def request_of(session_id: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """A request to a model, as Claude Code tells of it."""
    return {
        "event.name": "api_request",
        "session.id": session_id,
        "prompt.id": "p1",
        "model": "claude-sonnet-4-5-20250929",
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_tokens": 300,
        "cache_creation_tokens": 40,
        "cost_usd": 0.125,
        "request_id": f"req_{session_id}_{number}",
    } | more


def post(http: httpx.Client, signal: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"/v1/{signal}", content=content, headers={"content-type": "application/json"} | headers)


def spans(*items: dict[str, Any], **resource: Any) -> Any:
    trace_id = f"{next(numbers):032x}"
    items = tuple(item | {"traceId": trace_id} for item in items)
    scoped = {"scope": {"name": "mine"}, "spans": list(items)}
    return {"resourceSpans": [{"resource": {"attributes": pairs(resource)}, "scopeSpans": [scoped]}]}


def span(number: int, name: str, parent: int | None = None, **attributes: Any) -> dict[str, Any]:
    named = {name.replace("__", "."): given for name, given in attributes.items()}
    above = {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    times = {"startTimeUnixNano": str(NOON + number * NANO), "endTimeUnixNano": str(NOON + (number + 1) * NANO)}
    ids = {"spanId": f"{number:016x}"}
    return ids | above | times | {"name": name, "attributes": pairs(named)}


# --------------------------------------------------------------------------- logs


@pytest.mark.parametrize("packed", [False, True])
def test_claude_codes_requests_are_in_the_ledger(http: httpx.Client, session: str, packed: bool) -> None:
    body = json.dumps(logs(request_of(session), request_of(session, 2, cache_creation_1h_tokens=15))).encode()
    headers = {"content-encoding": "gzip"} if packed else {}
    for _ in range(2):  # the answer was lost, and the exporter tries again
        answer = post(http, "logs", gzip.compress(body) if packed else body, **headers)
        assert (answer.status_code, answer.json()) == (200, {}), answer.text
    usage = usage_of(http, session)
    assert usage["total"] | {"totalTokens": 740, "costUsd": 0.25, "requests": 2} == usage["total"]
    assert (usage["total"]["cacheWriteTokens"], usage["total"]["cacheWrite1hTokens"]) == (65, 15)
    assert [item["promptId"] for item in usage["byPrompt"]] == ["p1"]
    assert metadata_of(http, session)["cost"]["from"] == "reported"


def test_the_containers_own_session_and_user_come_first(http: httpx.Client, session: str) -> None:
    body = logs(request_of("claude-own-id"), session_id=session, user_id="ann")
    assert post(http, "logs", body).status_code == 200
    assert metadata_of(http, session)["userId"] == "ann"
    assert http.get("/api/sessions/claude-own-id").status_code == 404


def test_numbers_may_come_as_text_and_as_numbers(http: httpx.Client, session: str) -> None:
    told = request_of(session, input_tokens="10", output_tokens=20.0, cost_usd="0.125")
    body = logs(told)
    for pair in body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"]:
        if "intValue" in pair["value"]:
            pair["value"]["intValue"] = int(pair["value"]["intValue"])  # as Claude Code sends it
    assert post(http, "logs", body).status_code == 200
    assert usage_of(http, session)["total"]["totalTokens"] == 370


def test_what_hooks_tell_is_not_told_again(http: httpx.Client, session: str) -> None:
    told = [{"event.name": name, "session.id": session} for name in ("user_prompt", "tool_result", "api_request")]
    assert post(http, "logs", logs(*told)).status_code == 200
    assert {event["type"] for event in events_of(http, session)} == {"session_created", "usage_reported"}


def test_the_logs_of_others_are_kept(http: httpx.Client, session: str) -> None:
    body = logs({"event.name": "deployed", "session.id": session, "deep": {"a": [1, {"b": "c"}]}}, scope="mine")
    assert post(http, "logs", body).status_code == 200
    (entry,) = http.get(f"/api/actions/{session}").json()
    assert entry["type"] == "log" and entry["attributes"]["deep"] == {"a": [1, {"b": "c"}]}


def test_requests_that_only_logs_tell_of_are_counted_each(http: httpx.Client, session: str) -> None:
    """Also where none is in a span, and where all are in one."""
    used = {"session.id": session, "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 1}
    body = logs(*(used | {"number": number} for number in range(6)), scope="mine")
    for number, record in enumerate(body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]):
        record["timeUnixNano"] = str(NOON + number * NANO)
        record |= {"traceId": f"{7:032x}", "spanId": f"{7:016x}"} if number > 2 else {}
    for _ in range(2):
        assert post(http, "logs", body).json() == {}
    total = usage_of(http, session)["total"]
    assert (total["requests"], total["totalTokens"]) == (6, 60)


def test_the_tokens_of_codex_are_in_the_ledger(http: httpx.Client, session: str) -> None:
    said = {"event.name": "codex.sse_event", "conversation.id": session, "model": "gpt-5"}
    used = {"input_token_count": "100", "output_token_count": 9, "cached_token_count": 60, "reasoning_token_count": 4}
    body = logs(said | {"event.kind": "response.created"}, said | used | {"event.kind": "response.completed"}, scope="")
    assert post(http, "logs", body).json() == {}
    total = usage_of(http, session)["total"]
    kinds = [total[f"{kind}Tokens"] for kind in ("input", "cacheRead", "output", "reasoning", "total")]
    assert (kinds, total["unpricedRequests"]) == ([40, 60, 9, 4, 109], 0)


# -------------------------------------------------------------------------- spans


def test_the_official_exporter_is_taken(appliance: Appliance, http: httpx.Client, session: str) -> None:
    exporter = OTLPSpanExporter(f"{appliance.url}/v1/traces", compression=Compression.Gzip)
    provider = TracerProvider(resource=Resource.create({"session_id": session, "user_id": "bob"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("invoke_agent researcher") as agent:
        agent.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "researcher"})
        with tracer.start_as_current_span("chat gpt-5") as chat:
            chat.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"})
            chat.set_attributes({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 5})
            chat.set_attribute("gen_ai.usage.cache_read.input_tokens", 60)
        with tracer.start_as_current_span("execute_tool search") as tool:
            tool.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"})
            tool.set_attributes({"gen_ai.tool.call.id": "call-1", "gen_ai.tool.call.arguments": '{"q": "x"}'})
            tool.set_status(Status(StatusCode.ERROR, "no network"))
    provider.shutdown()
    (call,) = http.get(f"/api/actions/{session}").json()
    assert (call["type"], call["tool"], call["toolUseId"], call["input"]) == (
        "tool_call",
        "search",
        "call-1",
        {"q": "x"},
    )
    (result,) = http.get(f"/api/actions/{session}/responses").json()
    assert (result["type"], result["error"], result["toolUseId"]) == ("tool_error", "no network", "call-1")
    (agent_record,) = http.get(f"/api/state/{session}").json()["agents"]["spawned"]
    assert (agent_record["type"], agent_record["status"]) == ("researcher", "completed")
    total = usage_of(http, session)["total"]
    assert (total["inputTokens"], total["cacheReadTokens"], total["totalTokens"]) == (40, 60, 105)
    assert total["costUsd"] and metadata_of(http, session)["userId"] == "bob"


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai__operation__name": "chat", "gen_ai__usage__input_tokens": 9, "gen_ai__usage__output_tokens": 1},
        {"gen_ai__operation__name": "chat", "gen_ai__usage__prompt_tokens": 9, "gen_ai__usage__completion_tokens": 1},
        {"openinference__span__kind": "LLM", "llm__token_count__prompt": 9, "llm__token_count__completion": 1},
        {"traceloop__span__kind": "llm", "gen_ai__usage__input_tokens": "9", "gen_ai__usage__output_tokens": "1"},
        {"span__type": "llm_request", "input_tokens": 9, "output_tokens": 1},
    ],
)
def test_a_request_to_a_model_is_known_by_any_of_its_names(
    http: httpx.Client, session: str, attributes: dict[str, Any]
) -> None:
    assert post(http, "traces", spans(span(1, "request", **attributes), session_id=session)).status_code == 200
    assert usage_of(http, session)["total"]["totalTokens"] == 10


def test_sums_that_a_parent_repeats_are_not_counted_again(http: httpx.Client, session: str) -> None:
    used: dict[str, Any] = {"gen_ai__usage__input_tokens": 9, "gen_ai__usage__output_tokens": 1}
    parent = span(1, "run", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="a", **used)
    child = span(2, "chat", 1, gen_ai__operation__name="chat", **used)
    assert post(http, "traces", spans(child, parent, session_id=session)).status_code == 200
    assert usage_of(http, session)["total"]["totalTokens"] == 10


def test_a_request_that_two_instrumentations_watch_is_counted_once(http: httpx.Client, session: str) -> None:
    used: dict[str, Any] = {"gen_ai__usage__input_tokens": 9, "gen_ai__usage__output_tokens": 1}
    outer = span(
        1, "ChatModel", openinference__span__kind="LLM", llm__token_count__prompt=9, llm__token_count__completion=1
    )
    between = span(2, "POST", 1, http__request__method="POST")
    inner = span(3, "chat", 2, gen_ai__operation__name="chat", **used)
    other = span(4, "chat", gen_ai__operation__name="chat", **used)
    assert post(http, "traces", spans(inner, between, outer, other, session_id=session)).status_code == 200
    total = usage_of(http, session)["total"]
    assert (total["requests"], total["totalTokens"]) == (2, 20)


def test_who_is_far_above_a_span_is_not_looked_for(http: httpx.Client, session: str) -> None:
    """Else a request of tens of thousands, each in the next, would take minutes."""
    agent = span(1, "run", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="a")
    between = [span(number, "step", number - 1) for number in range(2, 100)]
    tools = [span(place, "execute_tool t", place - 100, gen_ai__operation__name="execute_tool") for place in (110, 190)]
    assert post(http, "traces", spans(agent, *between, *tools, session_id=session)).status_code == 200
    near, far = http.get(f"/api/actions/{session}").json()
    assert (near["agentId"][:2], far.get("agentId")) == ("a-", None)


def test_a_program_that_names_no_session_is_one_by_its_trace(http: httpx.Client) -> None:
    body = spans(span(1, "execute_tool x", gen_ai__operation__name="execute_tool"), service__name="app")
    (one,) = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert post(http, "traces", body).status_code == 200
    assert len(http.get(f"/api/actions/trace-{one['traceId']}").json()) == 1


def test_a_span_that_is_odd_is_taken_as_what_it_can_be(http: httpx.Client, session: str) -> None:
    backwards = span(1, "execute_tool a", gen_ai__operation__name="execute_tool")
    backwards["endTimeUnixNano"] = "1"
    orphan = span(2, "execute_tool b", 99, gen_ai__operation__name="execute_tool")
    itself = span(3, "execute_tool c", 3, gen_ai__operation__name="execute_tool")
    timeless = span(4, "execute_tool d", gen_ai__operation__name="execute_tool")
    timeless |= {"startTimeUnixNano": "never", "endTimeUnixNano": str(10**40)}
    timeless["attributes"].append({"key": "vast", "value": {"intValue": "1" * 400}})
    wide = span(5, "execute_tool e", gen_ai__operation__name="execute_tool", **{f"k{n}": n for n in range(10_000)})
    strange = span(6, "chat", gen_ai__operation__name="chat", gen_ai__usage__input_tokens="inf", operation__cost="x")
    for name in ("gen_ai.usage.output_tokens", "operation.cost"):
        strange["attributes"].append({"key": name, "value": {"intValue": "1" * 400}})
    backwards["startTimeUnixNano"] = "1" * 400
    answer = post(http, "traces", spans(backwards, orphan, itself, timeless, wide, strange, session_id=session))
    assert (answer.status_code, answer.json()) == (200, {})
    assert len(http.get(f"/api/actions/{session}").json()) == 5


# ------------------------------------------------------------------------- metrics


def metric(name: str, temporality: int, *points: tuple[dict[str, Any], float, int]) -> Any:
    data = [
        {
            "attributes": pairs(attributes),
            "asDouble": number,
            "startTimeUnixNano": str(NOON),
            "timeUnixNano": str(NOON + at * NANO),
        }
        for attributes, number, at in points
    ]
    return {"name": name, "sum": {"aggregationTemporality": temporality, "isMonotonic": True, "dataPoints": data}}


def metrics(*items: Any) -> Any:
    return {"resourceMetrics": [{"scopeMetrics": [{"scope": {"name": "x"}, "metrics": list(items)}]}]}


@pytest.mark.parametrize(("temporality", "total"), [(1, 36), (2, 29)])
def test_metrics_count_where_nobody_has_told_better(
    http: httpx.Client, session: str, temporality: int, total: int
) -> None:
    """1: what has come since the last point; 2: what has come since the beginning."""
    said = {"session.id": session, "model": "m"}

    def points(at: int, more: int) -> Any:
        return metric(
            "claude_code.token.usage",
            temporality,
            (said | {"type": "input"}, 5 + more, at),
            (said | {"type": "output"}, 2 + more, at),
        )

    cost = metric("claude_code.cost.usage", temporality, (said, 0.5, 1))
    for body in (metrics(points(1, 0), cost), metrics(points(1, 0), cost), metrics(points(2, 11), cost)):
        assert post(http, "metrics", body).status_code == 200
    assert usage_of(http, session)["total"]["totalTokens"] == total
    assert post(http, "logs", logs(request_of(session))).status_code == 200
    assert usage_of(http, session)["total"]["totalTokens"] == 370, "the better source alone"


def test_what_the_cache_gave_is_not_in_the_input_of_metrics(http: httpx.Client, session: str) -> None:
    """By the conventions of today it is part of it, and each kind of token has a metric of its own."""

    def told(*factors: int) -> Any:
        """What has come since the beginning, several times in one request, as a collector sends it."""
        amounts = {
            "input_tokens": 100,
            "output_tokens": 5,
            "cache_read.input_tokens": 60,
            "cache_write.input_tokens": 30,
        }
        said = {"session.id": session, "gen_ai.request.model": "m"}
        return metrics(
            *(
                metric(
                    f"gen_ai.client.inference.usage.{name}", 2, *((said, number * factor, factor) for factor in factors)
                )
                for name, number in amounts.items()
            )
        )

    for body, factor in ((told(1), 1), (told(1, 2), 2), (told(2, 3), 3)):
        assert post(http, "metrics", body).status_code == 200
        total = usage_of(http, session)["total"]
        kinds = [total[f"{kind}Tokens"] for kind in ("input", "output", "cacheRead", "cacheWrite", "total")]
        assert kinds == [10 * factor, 5 * factor, 60 * factor, 30 * factor, 105 * factor]


# ----------------------------------------------------------------------- bad input


@pytest.mark.parametrize("signal", ["logs", "traces", "metrics"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"\xff", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"resourceLogs":' + b'{"a":' * 100 + b"1" + b"}" * 101, {}, 400),
        (b"\x0a\xff\xff\xff\xff\x0f", {"content-type": "application/x-protobuf"}, 400),
        (b"not gzip", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-4], {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"{", mtime=0), {"content-encoding": "gzip"}, 400),
        (b"{}", {"content-encoding": "br"}, 415),
        (b"{}", {"content-type": "application/grpc"}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
    ],
    ids=count(),
)
def test_what_cannot_be_read_is_refused_by_name(
    http: httpx.Client, signal: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert_problem(post(http, signal, body, **headers), status)


@pytest.mark.parametrize("body", [b"{}", b'{"resourceLogs":null}', b'{"resourceSpans":[1,{"scopeSpans":7}]}'])
def test_what_is_empty_or_unknown_is_passed_over(http: httpx.Client, body: bytes) -> None:
    for signal in ("logs", "traces", "metrics"):
        assert post(http, signal, body).status_code == 200


def test_a_token_may_come_as_exporters_write_it(folder: Path) -> None:
    token = "a-token-of-more-than-20"
    with Appliance(folder, {"SESSIONS_INGEST_TOKEN": token}) as server, httpx.Client(base_url=server.url) as http:
        for said, status in (("Bearer%20", 200), ("Bearer ", 200), ("Bearer%2", 401), ("", 401)):
            assert post(http, "logs", {}, authorization=f"{said}{token}").status_code == status, said


def test_all_forms_that_the_specification_shows_are_read(http: httpx.Client) -> None:
    """As its examples have them: times as numbers, ids in capitals, all kinds of values, maps with and without."""
    trace = "5B8EFFF798038103D269B633813FC60C"
    own = {"text": "a", "truth": True, "whole": 10, "broken": 637.5, "list": ["many", "values"], "map": {"a.key": "x"}}
    record = {"timeUnixNano": NOON, "observedTimeUnixNano": NOON, "severityText": "Information", "traceId": trace}
    record |= {"spanId": "EEE19B7EC3C1B174", "body": value("Something"), "attributes": pairs(own)}
    event = {"timeUnixNano": str(NOON), "traceId": trace.lower(), "severityNumber": 9, "eventName": "page_view"}
    event |= {"body": {"kvlistValue": pairs({"type": 0, "url": "https://example.org"})}}
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record, event]}]}]}
    assert post(http, "logs", body).json() == {}
    first, second = http.get(f"/api/actions/trace-{trace.lower()}").json()
    assert (first["text"], first["severity"], first["attributes"]) == ("Something", "Information", own)
    assert (second["name"], second["severity"]) == ("page_view", "INFO")
    assert second["text"] == {"type": 0, "url": "https://example.org"}
    gauge = {"name": "my.gauge", "gauge": {"dataPoints": [{"asDouble": 10, "timeUnixNano": NOON}]}}
    histogram = {"name": "gen_ai.client.token.usage", "histogram": {"aggregationTemporality": 1, "dataPoints": []}}
    point = {"count": 3, "sum": 3, "bucketCounts": [1, 1, 1], "explicitBounds": [1], "timeUnixNano": NOON}
    point |= {"attributes": pairs({"session.id": f"trace-{trace.lower()}", "gen_ai.token.type": "input"})}
    histogram["histogram"] = {"aggregationTemporality": 1, "dataPoints": [point]}
    assert post(http, "metrics", metrics(gauge, histogram)).json() == {}
    assert usage_of(http, f"trace-{trace.lower()}")["total"]["totalTokens"] == 3


def in_protobuf(signal: str, body: Any) -> bytes:
    kind = ExportLogsServiceRequest if signal == "logs" else ExportTraceServiceRequest
    return bytes(json_format.Parse(json.dumps(body), kind()).SerializeToString())


def nested(depth: int, core: Any) -> Any:
    return {"arrayValue": {"values": [nested(depth - 1, core)]}} if depth else core


@pytest.mark.parametrize(("depth", "status"), [(40, 200), (100, 400)])
def test_what_is_nested_too_deep_is_refused_whole(http: httpx.Client, session: str, depth: int, status: int) -> None:
    body = logs({"event.name": "a", "session.id": session}, {"event.name": "b", "session.id": session}, scope="mine")
    records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    if depth < 50:  # as JSON it is deeper than that
        records[1]["attributes"].append({"key": "deep", "value": nested(depth, value("x"))})
        packed = in_protobuf("logs", body)
    else:
        wire = within(0x0A, b"x")
        for _ in range(depth):
            wire = within(0x2A, within(0x0A, wire))
        attribute = within(0x32, within(0x0A, b"deep") + within(0x12, wire))
        packed = in_protobuf("logs", body) + within(0x0A, within(0x12, within(0x12, attribute)))
    assert post(http, "logs", packed, **{"content-type": PROTOBUF}).status_code == status
    kept = http.get(f"/api/actions/{session}")
    assert (len(kept.json()) if status == 200 else kept.status_code) == (2 if status == 200 else 404)


def test_what_is_no_number_is_none(http: httpx.Client, session: str) -> None:
    used: dict[str, Any] = {"gen_ai__usage__input_tokens": 1.5, "gen_ai__usage__output_tokens": 5}
    told = span(1, "chat", gen_ai__operation__name="chat", operation__cost=2.5, **used)
    body = spans(told | {"endTimeUnixNano": "1"}, session_id=session)
    packed = in_protobuf("traces", body).replace(struct.pack("<d", 1.5), struct.pack("<d", float("nan")))
    packed = packed.replace(struct.pack("<d", 2.5), struct.pack("<d", float("-inf")))
    assert post(http, "traces", packed, **{"content-type": PROTOBUF}).status_code == 200
    total = usage_of(http, session)["total"]
    assert (total["totalTokens"], total["costUsd"], total["unpricedRequests"]) == (5, None, 1)


def test_another_protocol_at_the_port_is_told_so(appliance: Appliance, http: httpx.Client) -> None:
    """gRPC speaks HTTP/2, and waits for no answer of HTTP/1."""
    with socket.create_connection(("127.0.0.1", appliance.port), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), answer
    assert http.get("/health").status_code == 200


def test_protobuf_is_answered_in_protobuf(http: httpx.Client) -> None:
    answer = post(http, "logs", b"", **{"content-type": "application/x-protobuf"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("application/x-protobuf")


def within(tag: int, body: bytes) -> bytes:
    """A message of protobuf as a member of another."""
    size, head = len(body), bytearray([tag])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes(head) + bytes([size]) + body


NEARLY_ALL = (4 << 20) - 200
JSON, PROTOBUF = "application/json", "application/x-protobuf"


def of_one_record(inside: bytes) -> bytes:
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[' + inside + b"]}]}]}]}"


def repeated(piece: bytes) -> bytes:
    return b",".join([piece] * (NEARLY_ALL // (len(piece) + 1)))


A_TEXT = within(0x32, within(0x0A, b"k") + within(0x12, within(0x0A, b"x" * 4000)))
POINTS = b",".join(b'{"asInt":1,"timeUnixNano":"%d"}' % (NOON + number * 10**6) for number in range(49_000))
A_POINT = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"gen_ai.client.token.usage","sum":{"dataPoints":['
WIDEST: dict[str, tuple[str, str, bytes, int]] = {
    "records": ("logs", PROTOBUF, within(0x0A, within(0x12, b"\x12\x00" * (NEARLY_ALL // 2))), 413),
    "attributes": ("logs", PROTOBUF, within(0x0A, within(0x12, within(0x12, b"\x32\x00" * (NEARLY_ALL // 2)))), 413),
    "array": (
        "logs",
        PROTOBUF,
        within(0x0A, within(0x12, within(0x12, within(0x2A, within(0x2A, b"\x0a\x00" * (NEARLY_ALL // 2)))))),
        413,
    ),
    "texts": ("logs", PROTOBUF, within(0x0A, within(0x12, within(0x12, A_TEXT * 1000))), 200),
    "resources": ("logs", JSON, b'{"resourceLogs":[' + repeated(b"{}") + b"]}", 413),
    "pairs": ("logs", JSON, of_one_record(repeated(b'{"key":"a","value":{"intValue":1}}')), 413),
    "values": (
        "logs",
        JSON,
        of_one_record(b'{"value":{"arrayValue":{"values":[' + repeated(b"{}")[:-40] + b"}]}}}"),
        413,
    ),
    "lists": ("logs", JSON, b'{"x":[' + repeated(b"[]") + b"]}", 413),
    "spans": ("traces", JSON, b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 49_000 + b"{}]}]}]}", 200),
    "points": ("metrics", JSON, A_POINT + POINTS + b"]}}]}]}]}", 200),
    "too large": ("logs", JSON, b"{}" + b" " * (NEARLY_ALL + 300), 413),
}
"""By name: signal, media type, body and status."""


@pytest.mark.parametrize(
    "name", marked(WIDEST, long=["attributes", "array", "resources", "values", "lists", "too large"])
)
def test_the_widest_that_may_come_holds_nobody_up_and_takes_bounded_memory(
    appliance: Appliance, http: httpx.Client, name: str
) -> None:
    signal, kind, body, status = WIDEST[name]
    packed = gzip.compress(body, 1)

    def send() -> None:
        answer = post(http, signal, packed, **{"content-type": kind, "content-encoding": "gzip"})
        assert answer.status_code == status, answer.text

    post(http, "logs", b"", **{"content-type": PROTOBUF})
    before = most_resident_bytes(appliance.process.pid)
    assert least_wait(appliance, send) < STALL
    assert most_resident_bytes(appliance.process.pid) < before + (100 << 20)


def test_a_bomb_is_refused_and_leaves_no_memory_behind(appliance: Appliance, http: httpx.Client) -> None:
    bomb = gzip.compress(b" " * (64 << 20), 9)
    post(http, "logs", gzip.compress(b" " * (3 << 20)), **{"content-encoding": "gzip"})
    before = resident_bytes(appliance.process.pid)
    for _ in range(5):
        assert_problem(post(http, "logs", bomb, **{"content-encoding": "gzip"}), 413)
    assert resident_bytes(appliance.process.pid) < before + (64 << 20)
