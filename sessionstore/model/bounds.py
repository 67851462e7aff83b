"""Truncation before parsing: JSON text without what is nested too deep or too much, so that any text can be read."""

from __future__ import annotations

import json
import re
from typing import Any

MARKS = 1_200_000
"""Of JSON: its brackets, commas and texts. More would not fit into an event, and take memory many times over."""
DEEPEST = 100
"""What is deeper is not even read."""
LONGEST_NUMBER = 100
"""Digits."""
CUT = "…"


def decoded_in_part(text: bytes) -> Any:
    """JSON, without what is too deep or too much, and with U+FFFD for what is not UTF-8. Raises ValueError."""
    said = text.decode("utf-8-sig", errors="replace")
    if len(said) > MARKS and sum(map(said.count, ",[{")) > MARKS:
        said = bounded(said)
    try:
        return json.loads(said, strict=False)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError):  # the second: a number of thousands of digits
        return json.loads(bounded(said), strict=False, parse_int=whole_number)


def whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) < LONGEST_NUMBER else digits


def bounded(text: str) -> str:
    """JSON text without what is nested deeper than any event is, and only its beginning where it has too many parts."""
    kept: list[str] = []
    closing, depth, start = "", 0, 0
    beginning = 0, 0, 0, ""  # at the last comma: the pieces by then, what has come after them, and what is open
    for parts, mark in enumerate(re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]},]', text, re.DOTALL)):
        if parts > MARKS:
            pieces, start, end, closing = beginning
            return "".join([*kept[:pieces], text[start:end], closing])
        if mark[0] in "[{":
            depth += 1
            if depth < DEEPEST:
                closing = "]}"[mark[0] == "{"] + closing
            elif depth == DEEPEST:
                kept.append(text[start : mark.start()])
        elif mark[0] in "]}":
            if depth == DEEPEST:
                kept.append(f'"{CUT}"')
                start = mark.end()
            elif depth < DEEPEST:
                closing = closing[1:]
            depth -= 1
        elif mark[0] == "," and depth < DEEPEST:
            beginning = len(kept), start, mark.start(), closing
    return "".join([*kept, text[start:]]) if depth < DEEPEST else ""
