"""Display names: what people know a session by, and by what they look for it.

A title comes from the strongest who gave one; a project is what was said, else the name of the repository, else that
of the folder. Pure functions on the metadata, which folds.py calls with each event.
"""

from __future__ import annotations

import re
from typing import Any

from sessionstore.text import for_people, shortened

Document = dict[str, Any]

SOURCES = ("prompt", "agent", "caller", "person")
"""Who gave a title, the weakest first."""
TITLE_LENGTH = 80
"""Characters of one that was made of a prompt."""
LOOKED_AT = 2000
"""Characters of a prompt among which its first sentence is looked for."""
GIVEN = "given"
"""The member of the metadata that keeps what cannot be what its name says."""
KINDS: dict[str, type] = {"title": str, "project": str, "pinned": bool, "where": dict}
"""What callers may say, and what it must be to be used."""
OF_THE_STORE = frozenset(("asks", "cost", "context"))
SETTLED_LAST = (["title"], ["titleFrom"], ["projectFrom"])
UNNAMED: Document = {"title": None, "titleFrom": None, "project": None, "pinned": False, "where": {}, "asks": 0}
"""Of a session of which nothing is known. `asks` holds a place: the view `metadata` counts them."""
NOT_SAID = {"pinned": False, "where": {}}
"""What null stands for."""

SENTENCE = re.compile(r"[^\n]*?(?:(?<![0-9])\.(?=\s+[^\sa-z]|\s*$)|[!?…](?=\s|$)|[\u3002\uff01\uff1f]|(?=\n)|$)")
"""A full stop before a small letter ends an abbreviation, and one after a digit an item of a list."""
MARKUP = re.compile(r"[\s#>*_`-]+|[0-9]+[.)]\s+")
WORKTREE = re.compile(r"(.*?[^/\\])[/\\](?:\.[^/\\]+[/\\])?\.?worktrees[/\\][^/\\]")


# ------------------------------------------------------------------------- titles


def strength(source: object) -> int:
    """How strong a source is; 0: it is none."""
    return SOURCES.index(source) + 1 if isinstance(source, str) and source in SOURCES else 0


def is_said(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def source_of(metadata: Document) -> str:
    """Who gave the title; of one from before there were sources a caller did."""
    if not is_said(metadata.get("title")):
        return ""
    source = metadata.get("titleFrom")
    return str(source) if strength(source) else "caller"


def with_title(metadata: Document, title: str | None, source: str) -> Document:
    """The metadata with this title, unless there is a stronger one; with none, what was given before is taken back."""
    if strength(source) < strength(source_of(metadata)):
        return metadata
    return metadata | ({"title": title, "titleFrom": source} if is_said(title) else {"title": None, "titleFrom": None})


def first_sentence(prompt: object) -> str:
    """The first sentence of a prompt, on one line and short enough for a title; empty where there is none."""
    if not isinstance(prompt, str):
        return ""
    text = for_people(prompt[:LOOKED_AT])
    while (mark := MARKUP.match(text)) and mark.end():
        text = text[mark.end() :]
    found = SENTENCE.match(text)
    words = " ".join((found[0] if found else text).split())
    return words if len(words) <= TITLE_LENGTH else shortened(words, TITLE_LENGTH - 1)


def prompt_in(data: Document) -> object:
    return next((data[name] for name in ("prompt", "text", "content") if data.get(name)), None)


def with_prompt(metadata: Document, data: Document, is_first: bool) -> Document:
    """After a prompt: Claude Code may say its own title with it; the first names a session that has no name."""
    if is_said(own := data.get("session_title")):
        return with_title(metadata, own, "agent")
    if is_first and not source_of(metadata):
        return with_title(metadata, first_sentence(prompt_in(data)), "prompt")
    return metadata


def with_input(metadata: Document, initial: Document) -> Document:
    """What a session begins with may be its first prompt."""
    given = initial.get("input")
    sentence = first_sentence(prompt_in(given) if isinstance(given, dict) else given)
    return metadata if source_of(metadata) or sentence.startswith("<") else with_title(metadata, sentence, "prompt")


# ----------------------------------------------------------------------- projects


def repository_name(repository: object) -> str:
    """`shop` of https://example.org/team/shop.git, of git@example.org:team/shop, and of a folder."""
    if not isinstance(repository, str):
        return ""
    return re.split(r"[/:\\]", repository.rstrip("/\\"))[-1].removesuffix(".git").strip()


def folder_name(folder: object) -> str:
    """The last part of a path; of a worktree that of the repository it belongs to."""
    if not isinstance(folder, str):
        return ""
    home = WORKTREE.match(folder)
    return re.split(r"[/\\]", (home[1] if home else folder).rstrip("/\\"))[-1].strip()


def with_project(metadata: Document) -> Document:
    """The metadata with the project that follows from where it ran, unless one was said."""
    source = metadata.get("projectFrom", "caller")
    if source == "caller" and metadata.get("project") is not None:
        return metadata
    where = metadata.get("where")
    where = where if isinstance(where, dict) else {}
    found = {
        "repository": repository_name(where.get("repository")),
        "folder": folder_name(where.get("cwd")) or folder_name(metadata.get("cwd")),
    }
    source = next((source for source, name in found.items() if name), None)
    if source is None:
        return metadata
    return metadata | {"project": found[source], "projectFrom": source}


# ----------------------------------------------------------------- what callers say


def place(path: list[str], value: object) -> list[str]:
    """Where a member is set: apart, where it cannot be what its name says, or is the store's. Empty: it is no member,
    but is settled after all others."""
    name, *rest = path
    kind = KINDS.get(name)
    if path in SETTLED_LAST and (value is None or isinstance(value, str)):
        return []
    is_other = kind is not None and ((rest and kind is not dict) or not (rest or value is None or type(value) is kind))
    return [GIVEN, *path] if is_other or name in OF_THE_STORE else path


def settled(metadata: Document, said: Document) -> Document:
    """The metadata after a caller has set members: its title by who gave it, and its project."""
    for name, unsaid in NOT_SAID.items():
        if name in said and said[name] is None:
            metadata = metadata | {name: unsaid}
    if (project := said.get("project", 0)) is None or isinstance(project, str):
        metadata = metadata | (
            {"projectFrom": "caller"} if is_said(project) else {"project": None, "projectFrom": None}
        )
    if (title := said.get("title", 0)) is None or isinstance(title, str):
        source = said.get("titleFrom")
        metadata = with_title(metadata, title, str(source) if strength(source) else "caller")
    return with_project(metadata)


def claimed(said: Document, source: str, most: str) -> Document:
    """Members of the metadata as the store takes them from somebody who is such a source of titles, and may say that a
    title is from another, no stronger than `most`."""
    if "title" not in said:
        return said
    other = said.get("titleFrom")
    return said | {"titleFrom": other if 0 < strength(other) <= strength(most) else source}
