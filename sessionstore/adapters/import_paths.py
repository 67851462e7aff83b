"""What a file is that a program left, by its path: `projects/FOLDER/SESSION.jsonl`, a sub-agent's beside it, others."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sessionstore.model.events import is_id
from sessionstore.store.material import Key

LINES = re.compile(
    r"(?:.*/)?(?P<folder>[^/]+)/(?P<session>[0-9a-fA-F-]{36})(?:/(?P<subpath>subagents/.+?))?(?P<ending>\.jsonl|\.meta\.json)"
)
FLAT = re.compile(r"(?:.*/)?(?P<folder>[^/]+)/(?P<agent>agent-[A-Za-z0-9-]+)\.jsonl")
"""Of old versions: which session it is of stands in its lines."""
EXECUTION = re.compile(r"(?:.*/)?[^/]*execution[^/]*\.json")
"""What a CI action leaves of a run."""
CI = "ci"
"""The folder of these, which have none."""


class File(NamedTuple):
    """One that is imported. Its session is empty where the file itself says it."""

    kind: Literal["lines", "facts", "document"]
    """Of a conversation; of a sub-agent, one document; a whole conversation in one document."""
    key: Key


def file_at(path: str) -> File | None:
    """None: it is nothing that is imported."""
    if match := LINES.fullmatch(path):
        folder, session, subpath, ending = match.groups()
        if ending == ".jsonl":
            return File("lines", Key(folder, session, subpath or ""))
        return File("facts", Key(folder, session, f"{subpath}{ending}")) if subpath else None
    if match := FLAT.fullmatch(path):
        return File("lines", Key(match["folder"], "", f"subagents/{match['agent']}"))
    return File("document", Key(CI, "")) if EXECUTION.fullmatch(path) else None


def agent_in(subpath: str) -> str | None:
    """The agent whose conversation is at a subpath."""
    name = subpath.rsplit("/", 1)[-1].removeprefix("agent-")
    return name if subpath and is_id(name) else None
