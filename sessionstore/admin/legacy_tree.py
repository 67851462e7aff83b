"""Reading a session's folder as the earlier service left it: what is in it, as drafts of events.

Such a folder has metadata.json, initial.json, state.json, actions.jsonl,
responses.jsonl and perhaps final.json, and no events.jsonl. Files may be missing,
the last line of a log may be half a line, a seq may be there twice or not at all.
All that can be read is kept; what is odd is said.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from export.folders import Folder, InTheWay
from sessionstore.model.events import MAX_DEPTH, STORE, UNKNOWN_USER, Draft, is_id, is_too_deep, is_user, utc
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem

LOGS = {"action": "actions.jsonl", "response": "responses.jsonl"}
ENDS = ("completed", "failed", "cancelled")
DOCUMENT_BYTES, LOG_BYTES = 16 << 20, 512 << 20
"""What is larger is left out, and said."""
BESIDE = ("seq", "cursor", "eventId")
"""Members of an entry that the store keeps beside it."""
DERIVED = frozenset(
    [
        "$schema", "sessionId", "userId", "created", "updated", "status", "attention", "phase", "currentStep", "goals",
        "agents", "actions", "responses", "parentSession", "subsessions", "ended", "duration", "resumes", "lastCursor",
        "tags",
    ]
)  # fmt: skip
"""Members of the metadata that follow from events, or that the session's creation says."""

Odd = Callable[[str, str], None]
"""Told of a file, and what is odd about it."""


class Reading:
    """One folder. `indexed` is what the tree's index.json says of the session."""

    def __init__(self, folder: Folder, session_id: str, indexed: Document, odd: Odd) -> None:
        self.folder = folder
        self.session_id = session_id
        self.odd = odd
        self.event_ids: set[str] = set()
        self.metadata = self.document("metadata.json", is_expected=True)
        self.initial = self.document("initial.json", is_expected=True)
        self.state = self.document("state.json", is_expected=True)
        self.final = self.document("final.json")
        self.entries = list(
            heapq.merge(*(self.log(log, name) for log, name in LOGS.items()), key=lambda draft: draft.timestamp or "")
        )
        self.user_id = self.user(self.metadata.get("userId"), self.initial.get("userId"), indexed.get("userId"))
        self.created = self.first_time(
            self.metadata.get("created"),
            self.initial.get("timestamp"),
            indexed.get("created"),
            self.state.get("timestamp"),
        )
        self.updated = max(filter(None, self.times()), default="")

    def drafts(self) -> Iterator[Draft]:
        """The session's events, the first of which creates it."""
        yield self.creation()
        for entry in self.entries:
            entry.timestamp = entry.timestamp or self.created
            yield self.received(entry)
        if self.state:
            yield self.draft("state_updated", self.state, self.state.get("timestamp"), patch="replace")
        if members := {name: value for name, value in self.metadata.items() if name not in DERIVED}:
            yield self.draft("metadata_updated", members, self.metadata.get("updated"))
        if self.final:
            yield self.draft("session_finalized", self.ending(), self.final.get("timestamp"))
        elif self.metadata.get("status") in ENDS:
            yield self.draft("metadata_updated", {"status": self.metadata["status"]}, self.metadata.get("updated"))

    def creation(self) -> Draft:
        """It keeps the documents that the store makes anew, as they were."""
        data: Document = {"initial": self.initial}
        parent, tags = self.metadata.get("parentSession"), self.metadata.get("tags")
        if isinstance(parent, str) and is_id(parent):
            data["parentSession"] = parent
        if isinstance(tags, list):
            data["tags"] = [tag for tag in tags if isinstance(tag, str)]
        data["earlier"] = {"metadata": self.metadata, "final": self.final or None}
        return self.draft("session_created", data, self.created)

    def ending(self) -> Document:
        status = self.final.get("status")
        members = {"outcome": "outcome", "response": "finalResponse", "exitCode": "exitCode", "reason": "reason"}
        known = {name: self.final[theirs] for name, theirs in members.items() if theirs in self.final}
        return {"status": status if status in ("success", "failed", "cancelled") else "success"} | known

    def draft(self, event_type: str, data: Document, time: Any, patch: str | None = None) -> Draft:
        timestamp = self.first_time(time) or self.updated or None
        draft = Draft(type=event_type, session_id=self.session_id, data=data, timestamp=timestamp, patch=patch)
        return self.received(draft)

    def received(self, draft: Draft) -> Draft:
        draft.user_id = self.user_id
        draft.received_at = draft.timestamp
        draft.actor = STORE
        return draft

    # ------------------------------------------------------------------- files

    def document(self, name: str, *, is_expected: bool = False) -> Document:
        """Empty where it is missing or cannot be read."""
        content = self.content(name)
        if content is None:
            if is_expected:
                self.odd(name, "is missing")
            return {}
        value = self.value(content, name)
        if not isinstance(value, dict):
            self.odd(name, "is not a JSON object")
            return {}
        return value

    def content(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name, LOG_BYTES if name.endswith(".jsonl") else DOCUMENT_BYTES)
        except InTheWay as error:
            self.odd(name, error.strerror or "cannot be read")
            return None

    def value(self, content: bytes, name: str) -> Any:
        """None where it is not JSON that the store takes."""
        try:
            value = msgspec.json.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if is_too_deep(content):
            self.odd(name, f"is nested deeper than {MAX_DEPTH}")
            return None
        return value

    def log(self, log: str, name: str) -> Iterator[Draft]:
        content = self.content(name)
        if content is None:
            self.odd(name, "is missing")
            return
        lines = content.split(b"\n")
        expected, timestamp = 1, None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entry = self.value(line, name)
            if not isinstance(entry, dict):
                what = "half a line" if number == len(lines) else "not a JSON object"
                self.odd(name, f"line {number}: is {what}, and is left out")
                continue
            seq = entry.get("seq")
            if seq != expected:
                self.odd(name, f"line {number}: has seq {seq} where {expected} should be")
            expected = (seq if isinstance(seq, int) else expected) + 1
            draft = self.entry(log, entry, f"{name}: line {number}", timestamp)
            timestamp = draft.timestamp
            yield draft

    def entry(self, log: str, entry: Document, place: str, timestamp_before: str | None) -> Draft:
        name, _, line = place.partition(": ")
        data = {member: value for member, value in entry.items() if member not in BESIDE}
        if not isinstance(data.get("type"), str):
            self.odd(name, f"{line}: has no type")
            data = data | {"type": "unknown"} | ({"givenType": data["type"]} if "type" in data else {})
        timestamp = self.first_time(entry.get("timestamp"))
        if timestamp is None:
            self.odd(name, f"{line}: has no time")
            data.pop("timestamp", None)
        agent_id = data.get("agentId")
        return Draft(
            type=log,
            session_id=self.session_id,
            data=data,
            event_id=self.event_id(entry.get("eventId")),
            agent_id=agent_id if isinstance(agent_id, str) and is_id(agent_id) else None,
            timestamp=timestamp or timestamp_before,
        )

    def event_id(self, given: Any) -> str | None:
        if not isinstance(given, str) or not is_id(given) or given in self.event_ids:
            return None
        self.event_ids.add(given)
        return given

    # -------------------------------------------------------------- who and when

    def user(self, *given: Any) -> str:
        for user_id in given:
            if isinstance(user_id, str) and is_user(user_id):
                return user_id
        self.odd("metadata.json", "does not say whose the session is")
        return UNKNOWN_USER

    def first_time(self, *given: Any) -> str | None:
        """The first of these that is a time, in UTC and milliseconds."""
        for time in given:
            try:
                return utc(time)
            except Problem:
                continue
        return None

    def times(self) -> Iterator[str | None]:
        yield self.created
        yield from (self.first_time(document.get("timestamp")) for document in (self.state, self.final))
        yield self.first_time(self.metadata.get("updated"))
        yield from (entry.timestamp for entry in self.entries)
