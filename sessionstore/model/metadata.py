"""Metadata: what callers may make of that of a session."""

from __future__ import annotations

from typing import Annotated

import msgspec

from sessionstore.model import coercion, folds
from sessionstore.model.events import Draft
from sessionstore.model.folds import METRICS, Document
from sessionstore.model.problems import Problem, invalid, invalid_value

MAX_COUNT = 2**53


class MetadataMembers(msgspec.Struct, rename="camel"):
    """What callers may make of a session's metadata."""

    model: str | None
    yolo_mode: bool
    token_usage: dict[str, Annotated[int, msgspec.Meta(ge=-MAX_COUNT, le=MAX_COUNT)]]
    metrics: dict[str, int | float]
    tags: list[str]


def fit_for_metadata(document: Document, metrics: Document, event_type: str, draft: Draft) -> Draft:
    """The draft; a lenient one has beside the metadata what it cannot hold. Raises Problem 422 for any other such."""

    def is_fit(said: Document) -> bool:
        try:
            check_metadata(document, metrics, event_type, said)
        except Problem:
            return False
        return True

    if not draft.is_lenient:
        check_metadata(document, metrics, event_type, draft.data)
        return draft
    if is_fit(draft.data):
        return draft
    return msgspec.structs.replace(draft, data=coercion.holdable(event_type, draft.data, is_fit))


def check_metadata(document: Document, metrics: Document, event_type: str, said: Document) -> None:
    """Raises Problem 422 where what is said would make something else of the metadata than what it is."""
    shown = folds.metadata_shown(document, metrics, event_type, said)
    try:
        msgspec.convert(shown, MetadataMembers)
    except msgspec.ValidationError as error:
        raise invalid_value(error, MetadataMembers) from None
    for name in METRICS:
        number = shown["metrics"].get(name, 0)
        if not isinstance(number, int) or abs(number) > MAX_COUNT:
            raise invalid(f"$.metrics.{name}", f"must be a whole number of at most {MAX_COUNT}")
