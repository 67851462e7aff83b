"""An OTLP request down to its records, which are decoded one after the other: none keeps the interpreter for long.

A request has resources, a resource scopes, a scope records. What stands above the records is looked through as text, or
as the fields of protobuf's encoding, and how many there are is bounded; so is what one large record may hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import msgspec

from sessionstore.adapters.otlp_values import Json, Proto
from sessionstore.model.events import MAX_DEPTH, decoded, is_too_deep, read_json, too_deep
from sessionstore.model.folds import decode
from sessionstore.model.problems import Problem, not_json

Signal = Literal["logs", "traces", "metrics"]

MOST = 50_000
"""Records of one request, and resources and scopes of it."""
LARGE = 1 << 20
"""Bytes of a record of which the values are counted before it is decoded."""
VALUES = 100_000
"""Of such a record."""
FEW = 300_000
"""Commas in JSON that may be taken apart at once: it takes 20 ms where each stands in the same array."""
PLENTY = 1_250_000
"""Of a large request in JSON: brackets, texts and commas; as many as the shortest attributes there are would have."""
MARKS = 4
"""Of one value: its brackets, a name and a comma."""


def too_many() -> Problem:
    return Problem(413, f"One request may have at most {MOST} records: let the exporter send smaller batches")


def too_wide() -> Problem:
    return Problem(413, f"One record of more than {LARGE} bytes may have at most {VALUES} values")


class Allowance:
    """How many resources, scopes and records a request may still have."""

    def __init__(self) -> None:
        self.left = MOST

    def spend(self) -> None:
        """Raises Problem 413."""
        self.left -= 1
        if self.left < 0:
            raise too_many()


# ------------------------------------------------- the levels above records, in JSON


NOTHING = msgspec.Raw(b"")
LEVELS = tuple(f"{level}_{items}" for level in ("resource", "scope") for items in ("logs", "spans", "metrics"))
Layer = msgspec.defstruct(
    "Layer",
    [(name, msgspec.Raw, NOTHING) for name in (*LEVELS, "resource", "scope", "log_records", "spans", "metrics")],
    rename="camel",
)
"""A request, a resource or a scope: what is in it stays text until it is asked for."""
TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)


class JsonLevel:
    """What stands above the records. Raises Problem 400, 413."""

    def __init__(self, text: bytes, budget: Allowance) -> None:
        self.budget = budget
        try:
            self.layer = decoded(text, Layer)
        except msgspec.ValidationError as error:
            raise not_json(str(error)) from None
        except RecursionError:
            raise too_deep() from None

    def levels(self, name: str) -> Iterator[JsonLevel]:
        return (JsonLevel(element, self.budget) for element in self.elements(name))

    def items(self, name: str) -> Iterator[Json]:
        return (Json(leaf(element)) for element in self.elements(name))

    def elements(self, name: str) -> Iterator[bytes]:
        for element in elements(bytes(getattr(self.layer, name))):
            self.budget.spend()
            if element[:1] == b"{":
                yield element

    def one(self, name: str) -> Json | None:
        text = bytes(getattr(self.layer, name))
        return Json(leaf(text)) if text[:1] == b"{" else None


def json_request(body: bytes) -> JsonLevel:
    """Raises Problem 400."""
    check_depth(body)
    return JsonLevel(body, Allowance())


def elements(text: bytes) -> Iterator[bytes]:
    """Of JSON that is known to be right, if it is an array, one after the other. Raises Problem 400, 413."""
    if text[:1] != b"[":
        measure(text)
    elif text.count(b",") <= FEW:
        yield from map(bytes, decode(text, list[msgspec.Raw]))
    else:
        yield from split(text)


def split(text: bytes) -> Iterator[bytes]:
    """The same of an array that may have very many: whoever has had enough of them stops."""
    depth, begun = 0, 1
    for token in TOKENS.finditer(text):
        mark = token[0]
        depth += (mark in (b"[", b"{")) - (mark in (b"]", b"}"))
        if depth == 0 or (depth == 1 and mark == b","):
            if element := text[begun : token.start()].strip():
                yield element
            begun = token.end()


def check_depth(text: bytes) -> None:
    """Raises Problem 400, 413. What is large is looked at bit by bit."""
    if len(text) > LARGE:
        measure(text, PLENTY)
    elif is_too_deep(text):
        raise too_deep()


def measure(text: bytes, most: int = MARKS * VALUES) -> None:
    """Raises Problem 400 for JSON that is too deep, 413 for too many brackets, texts and commas."""
    depth = 0
    for number, token in enumerate(TOKENS.finditer(text)):
        mark = token[0]
        depth += (mark in (b"[", b"{")) - (mark in (b"]", b"}"))
        if depth > MAX_DEPTH:
            raise too_deep()
        if number > most:
            raise too_wide()


def leaf(text: bytes) -> Any:
    if len(text) > LARGE:
        measure(text)
    return read_json(text)


# --------------------------------------------- the levels above records, in protobuf


@cache
def classes() -> dict[Signal, dict[str, Any]]:
    """Of what is decoded as a whole. They take 40 ms to import: only where something comes."""
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    common = {"resource": Resource, "scope": InstrumentationScope}
    return {
        "logs": common | {"log_records": LogRecord},
        "traces": common | {"spans": Span},
        "metrics": common | {"metrics": Metric},
    }


class ProtoLevel:
    """What stands above the records: in each its own description is 1, and what is in it 2; a request has only 1."""

    def __init__(self, body: memoryview, budget: Allowance, kinds: dict[str, Any]) -> None:
        self.body, self.budget, self.kinds = body, budget, kinds

    def levels(self, name: str) -> Iterator[ProtoLevel]:
        return (ProtoLevel(part, self.budget, self.kinds) for part in self.parts(name))

    def items(self, name: str) -> Iterator[Proto]:
        return (self.decoded(name, part) for part in self.parts(name))

    def parts(self, name: str) -> Iterator[memoryview]:
        for part in parts(self.body, 1 if name.startswith("resource_") else 2):
            self.budget.spend()
            yield part

    def one(self, name: str) -> Proto | None:
        found = next(parts(self.body, 1), None)
        return None if found is None else self.decoded(name, found)

    def decoded(self, name: str, part: memoryview) -> Proto:
        """Raises Problem 400, 413."""
        from google.protobuf.message import DecodeError

        if len(part) > LARGE and count_values(part, "record", VALUES) < 0:
            raise too_wide()
        try:
            return Proto(self.kinds[name].FromString(bytes(part)))
        except DecodeError as error:
            raise Problem(400, f"The body is no OTLP request: {error}") from None


def parts(body: memoryview, wanted: int) -> Iterator[memoryview]:
    """What a message has in one of its fields. Raises Problem 400."""
    return (part for number, part in fields(body) if number == wanted)


def fields(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length. Raises Problem 400.

    https://protobuf.dev/programming-guides/encoding
    """
    at, end, left = 0, len(body), MARKS * VALUES
    while at < end:
        if left == 0:
            raise too_wide()
        left -= 1
        key, at = varint(body, at)
        kind = key & 7
        size, at = varint(body, at) if kind in (0, 2) else ({1: 8, 5: 4}.get(kind, end), at)
        if kind == 0:
            continue
        if at + size > end:
            raise Problem(400, "The body is no OTLP request: it ends too soon")
        if kind == 2:
            yield key >> 3, body[at : at + size]
        at += size


def varint(body: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises Problem 400."""
    number = 0
    for place in range(10):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at
    raise Problem(400, "The body is no OTLP request: a number does not end")


Level = JsonLevel | ProtoLevel

DEEPEST = 100
"""Of the messages in a record, as protobuf itself has it."""
INSIDE = {
    ("record", 5): "value",
    ("record", 6): "pair",
    ("record", 7): "points",
    ("record", 9): "pair",
    ("record", 11): "record",
    ("record", 13): "record",
    ("points", 1): "record",
    ("pair", 2): "value",
    ("value", 5): "array",
    ("value", 6): "pairs",
    ("array", 1): "value",
    ("pairs", 1): "pair",
}
"""In what of a log record, a span or a metric there may be many values."""


def count_values(body: memoryview, kind: str, most: int, depth: int = 0) -> int:
    """How many more than it has there may be; less than 0 are too many. Raises Problem 400 for what is too deep."""
    if depth > DEEPEST:
        raise too_deep()
    for number, part in fields(body):
        most -= 1
        inside = INSIDE.get((kind, number))
        if inside and most >= 0:
            most = count_values(part, inside, most, depth + 1)
        if most < 0:
            break
    return most
