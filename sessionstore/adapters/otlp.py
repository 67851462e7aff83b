"""OTLP requests, protobuf or JSON, decoded to flat records: logs, spans and the points of metrics.

A record has its own attributes laid over those of its resource, by their names. Numbers may come as text, times are
nanoseconds since 1970 and become RFC 3339, ids become hexadecimal, and members that nobody knows are passed over.
Source: opentelemetry-proto, docs/specification.md.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from sessionstore.model.events import json_object, text_of_time
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem

Signal = Literal["logs", "traces", "metrics"]
SIGNALS: tuple[Signal, ...] = ("logs", "traces", "metrics")

LATEST = 253_402_300_799 * 10**9
"""The end of the year 9999, in nanoseconds."""
MOST = 50_000
"""Records of one request."""


class Record(NamedTuple):
    """A log record, a span, or a point of a metric."""

    name: str
    """Of the event, span or metric."""
    attributes: Document
    at: str | None
    """When it was; of a span or a point, when it ended. None: nobody said."""
    scope: str = ""
    """Which instrumentation made it."""
    body: Any = None
    """Of a log record; of a point, its value."""
    trace_id: str = ""
    span_id: str = ""
    """Its own, or of the span that a log record was made in."""
    is_span: bool = False
    parent_id: str = ""
    began: str | None = None
    milliseconds: float | None = None
    """How long a span took; None where it ends before it begins."""
    error: str | None = None
    """Why a span failed; None: it did not."""
    is_sum_so_far: bool = False
    """Of a point: whether it is what has come since `began`, and not since the last one."""


def records(signal: Signal, body: bytes, *, is_json: bool) -> list[Record]:
    """The records of a request. Raises Problem 400 for what cannot be read, 413 for too many."""
    tree = Json(json_of(body)) if is_json else Proto(message_of(signal, body))
    found: list[Record] = []
    for record in READ[signal](tree):
        if len(found) == MOST:
            raise Problem(413, f"One request may have at most {MOST} records: let the exporter send smaller batches")
        found.append(record)
    return found


def json_of(body: bytes) -> Document:
    try:
        return json_object(body)
    except Problem as problem:
        raise Problem(400, problem.detail) from None


def message_of(signal: Signal, body: bytes) -> Any:
    """Raises Problem 400. The classes take 40 ms to import: only where something comes."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    kinds: dict[Signal, Any] = {
        "logs": ExportLogsServiceRequest,
        "traces": ExportTraceServiceRequest,
        "metrics": ExportMetricsServiceRequest,
    }
    try:
        return kinds[signal].FromString(body)
    except DecodeError as error:
        raise Problem(400, f"The body is no OTLP {signal} request: {error}") from None


def partial_success(number: int, why: str) -> bytes:
    """The answer, in protobuf, where `number` records were not taken; it is the same for all signals."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = number
    response.partial_success.error_message = why
    return bytes(response.SerializeToString())


# ------------------------------------------------------------- one tree, two clothes


class Json:
    """A message as JSON has it: members in camel case, ids in hexadecimal, whole numbers perhaps as text."""

    def __init__(self, value: Any) -> None:
        self.value = value if isinstance(value, dict) else {}

    def all(self, name: str) -> Iterator[Json]:
        found = self.value.get(camel(name))
        return map(Json, found if isinstance(found, list) else ())

    def one(self, name: str) -> Json | None:
        found = self.value.get(camel(name))
        return Json(found) if isinstance(found, dict) else None

    def text(self, name: str) -> str:
        found = self.value.get(camel(name))
        return found if isinstance(found, str) else str(found) if isinstance(found, int) else ""

    def number(self, name: str) -> int | float:
        return number_in(self.value.get(camel(name)))

    hexadecimal = text

    def has(self, name: str) -> bool:
        return camel(name) in self.value

    def any(self) -> Any:
        """An AnyValue."""
        for kind, value in self.value.items():
            if kind == "kvlistValue":
                return Json(value).pairs("values")
            if kind == "arrayValue":
                return [item.any() for item in Json(value).all("values")]
            if kind == "intValue":
                return number_in(value)
            if kind in ("stringValue", "doubleValue", "boolValue", "bytesValue"):
                return value
        return None

    def pairs(self, name: str) -> Document:
        return {pair.text("key"): value.any() for pair in self.all(name) if (value := pair.one("value")) is not None}


class Proto:
    """The same as protobuf's own objects have it."""

    def __init__(self, message: Any) -> None:
        self.message = message

    def all(self, name: str) -> Iterator[Proto]:
        return map(Proto, getattr(self.message, name, ()))

    def one(self, name: str) -> Proto | None:
        return Proto(getattr(self.message, name)) if self.has(name) else None

    def text(self, name: str) -> str:
        return str(getattr(self.message, name, ""))

    def number(self, name: str) -> int | float:
        return number_in(getattr(self.message, name, 0))

    def hexadecimal(self, name: str) -> str:
        return bytes(getattr(self.message, name, b"")).hex()

    def has(self, name: str) -> bool:
        try:
            return bool(self.message.HasField(name))
        except ValueError:
            return False

    def any(self) -> Any:
        return value_of(self.message)

    def pairs(self, name: str) -> Document:
        return {pair.key: value_of(pair.value) for pair in getattr(self.message, name)}


def value_of(message: Any) -> Any:
    """What protobuf's AnyValue holds."""
    kind = message.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(message, kind)
    if kind == "array_value":
        return [value_of(item) for item in value.values]
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.values}
    return base64.b64encode(value).decode() if kind == "bytes_value" else value


Tree = Json | Proto


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def number_in(value: Any) -> int | float:
    """A number, also one that came as text; 0 for anything else."""
    if isinstance(value, int | float):
        return value
    for kind in (int, float):
        with suppress(TypeError, ValueError):
            return kind(value)
    return 0


def time_of(nanoseconds: int | float) -> str | None:
    if not 0 < nanoseconds < LATEST:
        return None
    return text_of_time(nanoseconds / 1e9)


# --------------------------------------------------------------------- the signals


def scoped(tree: Tree, signal: str, items: str) -> Iterator[tuple[Document, str, Tree]]:
    """Each item with the attributes of its resource and the name of its scope."""
    for resource in tree.all(f"resource_{signal}"):
        described = resource.one("resource")
        of_resource = described.pairs("attributes") if described else {}
        for scope in resource.all(f"scope_{signal}"):
            named = scope.one("scope")
            for item in scope.all(items):
                yield of_resource, named.text("name") if named else "", item


def logs_in(tree: Tree) -> Iterator[Record]:
    for resource, scope, item in scoped(tree, "logs", "log_records"):
        body = item.one("body")
        said, attributes = body.any() if body else None, item.pairs("attributes")
        name = item.text("event_name") or attributes.get("event.name") or (said if isinstance(said, str) else "")
        yield Record(
            name=str(name),
            attributes=resource | attributes,
            at=time_of(item.number("time_unix_nano")) or time_of(item.number("observed_time_unix_nano")),
            scope=scope,
            body=said,
            trace_id=item.hexadecimal("trace_id"),
            span_id=item.hexadecimal("span_id"),
        )


FAILED = ("2", "STATUS_CODE_ERROR")
"""The code of a span's status."""


def spans_in(tree: Tree) -> Iterator[Record]:
    for resource, scope, item in scoped(tree, "spans", "spans"):
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
            milliseconds=(ended - begun) / 1e6 if ended >= begun else None,
            error=(why or str(attributes.get("error.type") or "It failed")) if has_failed else None,
        )


SO_FAR = 2
"""The temporality of a sum that is cumulative."""


def points_in(tree: Tree) -> Iterator[Record]:
    """Points of sums and histograms, whose value is their sum."""
    for resource, scope, metric in scoped(tree, "metrics", "metrics"):
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


READ: dict[Signal, Callable[[Tree], Iterable[Record]]] = {"logs": logs_in, "traces": spans_in, "metrics": points_in}
