"""Secrets out of JSON that is kept as it was written: each stands in a text, and that text alone is written anew.

How, is said once, where agents have it as well (containers/hook_agent_ship.py). Here most lines are let through by one
look at all of them.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec

import hook_agent
from sessionstore.model.redaction import Redaction

ship: Any = hook_agent._beside("hook_agent_ship", "redaction")
TOKEN: re.Pattern[bytes] = ship.TOKEN
ESCAPED_LETTER = re.compile(rb"\\u00[2-7]")
"""A letter that is written so hides what it is a part of."""


LOOK = 64 << 10
"""Bytes that are looked at in one go: no other thread of Python goes on meanwhile."""


def lines_without_secrets(redaction: Redaction, lines: bytes) -> bytes:
    """Lines of JSON, or of anything: the same bytes where there is nothing to take out."""
    done, at = [], 0
    while at < len(lines):
        end = lines.find(b"\n", at + LOOK) + 1 or len(lines)
        done.append(part_without_secrets(redaction, lines[at:end]))
        at = end
    return b"".join(done)


def part_without_secrets(redaction: Redaction, lines: bytes) -> bytes:
    if not may_hold(redaction, lines):
        return lines
    return b"\n".join(without_secrets(redaction, line) for line in lines.split(b"\n"))


def may_hold(redaction: Redaction, text: bytes) -> bool:
    return redaction.has_own or bool(redaction.words_in_bytes(text.lower())) or bool(ESCAPED_LETTER.search(text))


def without_secrets(redaction: Redaction, line: bytes) -> bytes:
    if not may_hold(redaction, line):
        return line
    found: bytes = ship.without_secrets(redaction, line, is_json)
    return found


def is_json(line: bytes) -> bool:
    """Whether it is, also with half a surrogate pair or a number that is none."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(line, type=msgspec.Raw)
        return True
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False
