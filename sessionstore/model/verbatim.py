"""Secrets out of JSON that is kept as it was written: each stands in a text, and that text alone is written anew.

Nothing within a signed part is touched, for it is good for nothing then: Claude's thinking, which is sent back to it
with its signature, would be refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import msgspec

import hook_agent
from sessionstore.model.redaction import Redaction

TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
ESCAPED_LETTER = re.compile(rb"\\u00[2-7]")
"""A letter that is written so hides what it is a part of."""
SIGNED = frozenset({"thinking", "redacted_thinking"})
"""Types of what has a signature."""
SIGNATURE = "signature"


class Edit(NamedTuple):
    """What takes the place of some bytes."""

    begin: int
    end: int
    text: bytes


class Level:
    """An object or a list that is open: the member that comes, what is to be edited in it, whether it is signed."""

    def __init__(self, is_object: bool) -> None:
        self.is_object = is_object
        self.awaits_name = is_object
        self.name = ""
        self.edits: list[Edit] = []
        self.is_signed = False


def lines_without_secrets(redaction: Redaction, lines: bytes) -> bytes:
    """Lines of JSON, or of anything: the same bytes where there is nothing to take out."""
    if not may_hold(redaction, lines):
        return lines
    return b"\n".join(without_secrets(redaction, line) for line in lines.split(b"\n"))


def may_hold(redaction: Redaction, text: bytes) -> bool:
    return redaction.has_own or bool(redaction.words_in_bytes(text.lower())) or bool(ESCAPED_LETTER.search(text))


def without_secrets(redaction: Redaction, line: bytes) -> bytes:
    if not may_hold(redaction, line):
        return line
    if not is_json(line):
        text = line.decode(errors="surrogateescape")
        return redaction.text(text).encode(errors="surrogateescape")
    parts, at = [], 0
    for edit in edits_of(redaction, line):
        parts += [line[at : edit.begin], edit.text]
        at = edit.end
    return b"".join([*parts, line[at:]])


def is_json(line: bytes) -> bool:
    """Whether it is, also with half a surrogate pair or a number that is none."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(line, type=msgspec.Raw)
        return True
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False


def edits_of(redaction: Redaction, line: bytes) -> Iterator[Edit]:
    """In their order. The line must be JSON."""
    levels = [Level(is_object=False)]
    for token in TOKEN.finditer(line):
        here, mark = levels[-1], token[0][:1]
        if mark in b"{[":
            levels.append(Level(mark == b"{"))
        elif mark in b"}]":
            levels.pop()
            levels[-1].edits += [] if here.is_signed else here.edits
        elif mark == b",":
            here.awaits_name = here.is_object
        elif mark == b":":
            here.awaits_name = False
        elif here.awaits_name:
            here.name = json.loads(token[0])
        else:
            note_text(redaction, here, token, has_ids=len(levels) == 2)
    yield from levels[0].edits


def note_text(redaction: Redaction, here: Level, token: re.Match[bytes], *, has_ids: bool) -> None:
    text = json.loads(token[0])
    name = here.name if here.is_object else ""
    here.is_signed |= name == SIGNATURE or (name == "type" and text in SIGNED)
    is_id = has_ids and here.is_object and hook_agent.names_something(name)
    if not is_id and (redacted := redaction.member(name, text)) != text:
        here.edits.append(Edit(token.start(), token.end(), json.dumps(redacted).encode()))
