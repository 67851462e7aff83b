"""Idempotency: whether what comes again, under the id of something that is stored, says the same."""

from __future__ import annotations

from collections.abc import Iterable

from sessionstore.model import coercion, folds
from sessionstore.model.events import Draft, Event
from sessionstore.model.folds import Document

ADDED = {
    "session_created": ("sessionId",),
    "session_deleted": ("sessionId", "by", "reason"),
    "session_finalized": ("status", "outcome", "cancelledAgents"),
    "metadata_updated": ("cancelledAgents",),
    "usage_reported": ("costUsd", "costFrom", "priceTable", "contextLimit"),
    "goal_added": ("id", "description", "priority", "status"),
    "agent_spawned": (
        *("agentId", "type", "task", "status", "spawnedAt", "subsession", "completedAt", "endedBy", "toolUseId"),
    ),
    "agent_updated": ("completedAt", "endedBy"),
}
"""The members that the store adds to the data where the caller left them out."""


def is_same(draft: Draft, event: Event) -> bool:
    """Whether a draft says what is stored, apart from what the store added to it."""
    kinds = {"session_resumed": "session_created"}
    if kinds.get(draft.type, draft.type) != kinds.get(event.type, event.type):
        return False
    if (draft.patch, draft.agent_id) != (event.patch, event.agent_id):
        return False
    stored, added = folds.decode(event.data), ADDED.get(event.type, ())
    given, kept = (coercion.in_metadata(event.type, data) for data in (draft.data, stored))
    for members in (given, kept):
        members.pop("titleFrom", None)  # the store's
    if event.type in coercion.BEGINNINGS:
        for name in ("continues", "project"):  # what the store may have added
            if name not in given:
                kept.pop(name, None)
        if not kept and "metadata" not in draft.data:
            stored.pop("metadata", None)
    return is_same_data(draft.data, stored, added) or (
        draft.is_lenient
        and is_same_data(coercion.told(draft.type, draft.data), coercion.told(draft.type, stored), added)
    )


def is_same_data(given: Document, stored: Document, added: Iterable[str]) -> bool:
    return given == {name: value for name, value in stored.items() if name in given or name not in added}
