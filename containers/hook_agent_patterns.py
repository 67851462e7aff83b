"""Denial-of-service check of regular expressions: a pattern of one's own that would take very long is refused.

One file, to be copied beside hook_agent.py where SESSION_REDACT names a file of patterns. Python 3.9 or newer.
"""

from __future__ import annotations

import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A pattern of one's own could take for ever: `(a+)+x` twice as long for each a more, `[A-Z]+-x` with the square of a
# text of capitals. Whether one does is not read off it but tried, with texts made of it: what comes before each of its
# parentheses and repetitions, then, over and over, what may repeat there, and last something that ends no match.

_TRIED_LENGTH = 8_000
_TRY_SECONDS, _TRY_SECONDS_A_LETTER = 0.0005, 1e-6
_ATOM = (
    r"\\[\s\S]|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P?<\w+>|[a-zA-Z-]*[:)]|<?[=!])|[()|^$]|[*+?][+?]?|"
    r"\{\d*(?:,\d*)?\}[+?]?|[\s\S]"
)
_SAMPLES = {
    r"\d": "0",
    r"\w": "a",
    r"\s": " ",
    r"\n": "\n",
    r"\t": "\t",
    r"\r": "\r",
    r"\D": "-",
    r"\S": "a",
    r"\W": "-",
    ".": "a",
}
_NOWHERE = (r"\b", r"\B", r"\A", r"\Z", "^", "$", "|")


def refuse_slow(pattern: str) -> None:
    """Raises ValueError where a text of 8,000 letters takes it longer than it should."""
    search = re.compile(pattern).search
    for before, unit in _hostile_texts(pattern):
        length = 16
        while length <= _TRIED_LENGTH:
            text = f"{before}{unit * (length // len(unit))}\x01"
            bound = _TRY_SECONDS + _TRY_SECONDS_A_LETTER * len(text)
            if _search_seconds(search, text) > bound and _search_seconds(search, text) > bound:
                raise ValueError(
                    f"{pattern!r} would take very long for {f'{before}{unit * 3}'!r}, if that went on: "
                    "put bounds to what repeats, such as {1,100}, and repeat nothing that repeats"
                )
            length += length // 2


def _search_seconds(search: Callable[[str], object], text: str) -> float:
    begun = time.thread_time()
    search(text)
    return time.thread_time() - begun


def _hostile_texts(pattern: str) -> Iterator[tuple[str, str]]:
    """What comes first, and what then over and over: samples of what the pattern is made of."""
    sample, last, places = "", "", {0}
    for atom in re.findall(_ATOM, pattern):
        if atom[0] in "(*+?{" and atom != "{":
            places.add(len(sample) - len(last) * (atom[0] != "("))
            times = int("0" + atom[1:].partition(",")[0].rstrip("}+?")) if atom[0] == "{" else 1
            sample, last = sample + last * (min(times, 50) - 1), "" if atom[0] == "(" else last
        else:
            last = _sample_of(atom)
            sample += last
    letters = {letter for letter in f"{pattern}a0 -" if letter.isalnum() or letter in " -_./:,"}
    for place in sorted(places):
        units = letters | {sample[place : place + length] for length in range(2, 8)}
        yield from ((sample[:place], unit) for unit in sorted(units) if unit)


def _sample_of(atom: str) -> str:
    """One character that it matches, as far as that is easily said."""
    if atom in _NOWHERE or atom == ")":
        return ""
    if atom[0] != "[" or len(atom) < 3:
        return _SAMPLES.get(atom, atom[-1])
    if atom[1] == "^":
        return next((letter for letter in "a0 -" if letter not in atom), "a")
    return _SAMPLES.get(atom[1:3], atom[1])
