"""One message of OTLP, a log record, a span, a metric, in JSON or in protobuf: both are read the same way.

In JSON members are in camel case, ids in hexadecimal, and whole numbers perhaps text; what nobody knows is passed over.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from sessionstore.model.folds import Document


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
        return text_in(self.value.get(camel(name)))

    def number(self, name: str) -> int | float:
        return number_in(self.value.get(camel(name)))

    def hexadecimal(self, name: str) -> str:
        return self.text(name).lower()

    def has(self, name: str) -> bool:
        return camel(name) in self.value

    def any(self) -> Any:
        return value_in(self.value)

    def pairs(self, name: str) -> Document:
        return pairs_in(self.value.get(camel(name)))


def value_in(value: Document) -> Any:
    """What JSON's AnyValue holds."""
    for kind, held in value.items():
        if kind in PLAIN:
            return held
        if kind == "intValue":
            return number_in(held)
        if kind == "arrayValue":
            return [item.any() for item in Json(held).all("values")]
        if kind == "kvlistValue":
            return pairs_in(held) if isinstance(held, list) else Json(held).pairs("values")
    return None


PLAIN = frozenset(["stringValue", "doubleValue", "boolValue", "bytesValue"])


def pairs_in(found: Any) -> Document:
    """What a list of pairs says, as far as they are that."""
    return {
        text_in(pair.get("key")): value_in(value)
        for pair in (found if isinstance(found, list) else ())
        if isinstance(pair, dict) and isinstance(value := pair.get("value"), dict)
    }


def text_in(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


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


@cache
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
