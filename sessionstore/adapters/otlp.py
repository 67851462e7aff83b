"""OTLP requests, protobuf or JSON, decoded to flat records: logs, spans and the points of metrics.

A record has its own attributes laid over those of its resource, by their names. Numbers may come as text, times are
nanoseconds since 1970 and become RFC 3339, ids become hexadecimal, and members that nobody knows are passed over.
Source: opentelemetry-proto, docs/specification.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sessionstore.adapters.otlp_levels import (
    MOST,
    Allowance,
    Level,
    ProtoLevel,
    Signal,
    classes,
    json_request,
    too_many,
)
from sessionstore.adapters.otlp_values import Tree
from sessionstore.model.events import text_of_time
from sessionstore.model.folds import Document

LATEST = 253_402_300_799 * 10**9
"""The end of the year 9999, in nanoseconds."""


class Record(NamedTuple):
    """A log record, a span, or a point of a metric."""

    name: str
    """Of the event, span or metric."""
    attributes: Document
    at: str | None
    """When it was; of a span or a point, when it ended. None: nobody said."""
    scope: str = ""
    """Which instrumentation made it."""
    severity: str = ""
    """Of a log record, in its program's words; where it has none, in OpenTelemetry's."""
    body: Any = None
    """Of a log record; of a point, its value."""
    trace_id: str = ""
    span_id: str = ""
    """Its own, or of the span that a log record was made in."""
    is_span: bool = False
    parent_id: str = ""
    began: str | None = None
    milliseconds: float | None = None
    """How long a span took; None where it ends before it begins, or nobody said when it did."""
    error: str | None = None
    """Why a span failed; None: it did not."""
    is_sum_so_far: bool = False
    """Of a point: whether it is what has come since `began`, and not since the last one."""


def records(signal: Signal, body: bytes, *, is_json: bool) -> Iterator[Record]:
    """The records of a request, one decoded after the other: none keeps the interpreter for long.

    Raises Problem 400 for what cannot be read, 413 for too many records, or too many values in one.
    """
    request: Level = json_request(body) if is_json else ProtoLevel(memoryview(body), Allowance(), classes()[signal])
    for number, record in enumerate(READ[signal](request)):
        if number == MOST:
            raise too_many()
        yield record


def partial_success(number: int, why: str) -> bytes:
    """The answer, in protobuf, where `number` records were not taken; it is the same for all signals."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = number
    response.partial_success.error_message = why
    return bytes(response.SerializeToString())


def time_of(nanoseconds: int | float) -> str | None:
    if not 0 < nanoseconds < LATEST:
        return None
    return text_of_time(nanoseconds / 1e9)


# --------------------------------------------------------------------- the signals


def scoped(request: Level, signal: str, items: str) -> Iterator[tuple[Document, str, Tree]]:
    """Each item with the attributes of its resource and the name of its scope."""
    for resource in request.levels(f"resource_{signal}"):
        described = resource.one("resource")
        of_resource = described.pairs("attributes") if described else {}
        for scope in resource.levels(f"scope_{signal}"):
            named = scope.one("scope")
            for item in scope.items(items):
                yield of_resource, named.text("name") if named else "", item


def severity_of(number: int | float) -> str:
    """The range that a severity number is in; empty: it says none."""
    names = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    return names[int(number - 1) // 4] if 1 <= number <= 24 else ""


def logs_in(request: Level) -> Iterator[Record]:
    for resource, scope, item in scoped(request, "logs", "log_records"):
        body = item.one("body")
        said, attributes = body.any() if body else None, item.pairs("attributes")
        name = item.text("event_name") or attributes.get("event.name") or (said if isinstance(said, str) else "")
        yield Record(
            name=str(name),
            attributes=resource | attributes,
            at=time_of(item.number("time_unix_nano")) or time_of(item.number("observed_time_unix_nano")),
            scope=scope,
            severity=item.text("severity_text") or severity_of(item.number("severity_number")),
            body=said,
            trace_id=item.hexadecimal("trace_id"),
            span_id=item.hexadecimal("span_id"),
        )


FAILED = ("2", "STATUS_CODE_ERROR")
"""The code of a span's status."""


def spans_in(request: Level) -> Iterator[Record]:
    for resource, scope, item in scoped(request, "spans", "spans"):
        begun, ended = item.number("start_time_unix_nano"), item.number("end_time_unix_nano")
        status, attributes = item.one("status"), item.pairs("attributes")
        has_failed = status is not None and status.text("code") in FAILED
        why = status.text("message") if status else ""
        yield Record(
            name=item.text("name"),
            attributes=resource | attributes,
            at=time_of(ended),
            scope=scope,
            trace_id=item.hexadecimal("trace_id"),
            span_id=item.hexadecimal("span_id"),
            is_span=True,
            parent_id=item.hexadecimal("parent_span_id"),
            began=time_of(begun),
            milliseconds=(ended - begun) / 1e6 if 0 < begun <= ended < LATEST else None,
            error=(why or str(attributes.get("error.type") or "It failed")) if has_failed else None,
        )


SO_FAR = 2
"""The temporality of a sum that is cumulative."""


def points_in(request: Level) -> Iterator[Record]:
    """Points of sums and histograms, whose value is their sum."""
    for resource, scope, metric in scoped(request, "metrics", "metrics"):
        for kind in ("sum", "histogram"):
            data = metric.one(kind)
            for point in data.all("data_points") if data else ():
                yield Record(
                    name=metric.text("name"),
                    attributes=resource | point.pairs("attributes"),
                    at=time_of(point.number("time_unix_nano")),
                    scope=scope,
                    body=value_of_point(point),
                    began=time_of(point.number("start_time_unix_nano")),
                    is_sum_so_far=bool(data and data.number("aggregation_temporality") == SO_FAR),
                )


def value_of_point(point: Tree) -> int | float:
    return next((point.number(name) for name in ("as_int", "as_double", "sum") if point.has(name)), 0)


READ: dict[Signal, Callable[[Level], Iterable[Record]]] = {"logs": logs_in, "traces": spans_in, "metrics": points_in}
