"""Text of somebody else's making, made fit for people: whoever wrote it may mean to steer the screen that shows it.

Terminals, spreadsheets and chat programs obey control characters and let what is written from right to left pose as
something else. What is stored stays as it came; this is for where it is shown.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor, what is erased
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"
)
"""Of ECMA-48, each whole. None can begin again inside what another has passed, so it takes no longer than the text."""
DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks that turn the order of the characters around them."""
LEFT = re.compile(rf"\r\n|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{DIRECTIONS}]")
JOINERS = frozenset("\u200d\ufe0e\ufe0f\u20e3")
LONGEST_CHARACTER = 32


def for_people(text: str, *, is_one_line: bool = False) -> str:
    """The text without what steers a screen; control characters become their pictures, half a character U+FFFD.

    Lines and tabs stay, unless it is to be one line.
    """
    if text.isascii() and text.isprintable():
        return text
    fit = LEFT.sub(shown, SEQUENCES.sub("", text))
    return " ".join(fit.split()) if is_one_line else fit


RUN_BY_SPREADSHEETS = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
"""What a text begins with that Excel and others take for a formula, as
https://owasp.org/www-community/attacks/CSV_Injection has it."""


def for_spreadsheet(cell: Any) -> Any:
    if isinstance(cell, bytes):
        return cell.hex()
    if not isinstance(cell, str):
        return cell
    text = for_people(cell)
    return f"'{text}" if text.startswith(RUN_BY_SPREADSHEETS) else text


def shown(match: re.Match[str]) -> str:
    found = match[0]
    if found in ("\r\n", "\u2028", "\u2029"):
        return "\n"
    if found < " ":
        return chr(0x2400 + ord(found))
    if found == "\x7f":
        return "\u2421"
    return "\ufffd" if found < "\xa0" or "\ud800" <= found <= "\udfff" else ""


def shortened(text: str, most: int) -> str:
    """At most so many characters, and `…` where there were more; what is one character to people is not cut in two."""
    return text if len(text) <= most else f"{text[: whole(text, most)]}…"


def whole(text: str, at: int) -> int:
    """The nearest place before `at`, or there, at which a character ends."""
    for place in range(at, max(0, at - LONGEST_CHARACTER), -1):
        if not is_joined(text[place - 1], text[place]):
            return place
    return at


def is_joined(before: str, after: str) -> bool:
    """Whether they belong together: an accent, a skin tone, a family, a flag."""
    is_tone = "\U0001f3fb" <= after <= "\U0001f3ff"
    is_flag = all("\U0001f1e6" <= letter <= "\U0001f1ff" for letter in (before, after))
    return after in JOINERS or before == "\u200d" or is_tone or is_flag or unicodedata.category(after) in ("Mn", "Me")
