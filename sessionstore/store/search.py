"""Full-text search, apart from SQL: the words an event has, what a question asks for, and where a text answers it.

SQLite's tokenizer makes words of letters and digits, whatever the language, and
drops case and accents. What it cannot know is done to the text before: it has
no words for what is written without spaces, and does not look into getUserById.
"""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sessionstore.model.folds import decode

COLUMNS = "text, parts, about"
"""Of the index: what was said; the parts of names such as getUserById in it; what narrows a search."""
EVENT = "cursor, type, kind, session_id, user_id, agent_id, timestamp, received_at, data"
"""The columns of an event that `entry` takes."""

MAX_TERMS = 64
SHORTEST_BEGINNING = 2
"""Characters that `be*` must have: fewer would be nearly every word."""
SHORTEST_LAST_WORD = 3
"""Characters from which on the last word of a question may be the beginning of one, though it has no `*`."""
LONGEST_NAME = 64

# ----------------------------------------------------------------- words of an event


def entry(
    cursor: int,
    event_type: str,
    kind: str | None,
    session_id: str,
    user_id: str,
    agent_id: str | None,
    timestamp: str,
    received_at: str,
    data: str,
) -> tuple[int, str, str, str]:
    """The row of the index for an event; taking it out again needs the same values."""
    text = text_of(data)
    marks = marks_of(event_type, kind, session_id, user_id, agent_id, timestamp[:10], received_at[:10])
    return cursor, spaced(text), "\n".join(map(parts_of, sorted(names_in(text)))), marks


def text_of(data: str) -> str:
    """Every text and number in an event's data, one a line."""
    return "\n".join(leaves(decode(data)))


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from leaves(member)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


LATER, EARLIER, EARLIEST = "later", "earlier", "2000-01-01"
"""Marks of events that say they happened on a later day than they were received, or in another century."""
NOT_OF_A_WORD = re.compile(r"[\W_]+")


@lru_cache(16_384)
def marks_of(
    event_type: str, kind: str | None, session_id: str, user_id: str, agent_id: str | None, day: str, received_day: str
) -> str:
    """What narrows a search to an event."""
    marks = [mark("type", event_type), mark("session", session_id), mark("user", user_id)]
    marks += [mark("day", day[:length]) for length in (4, 7, 10)]
    if kind is not None:
        marks.append(mark("kind", kind))
    if agent_id is not None:
        marks.append(mark("agent", agent_id))
    if day > received_day:
        marks.append(LATER)
    if day < EARLIEST:
        marks.append(EARLIER)
    return " ".join(marks)


def mark(what: str, value: str) -> str:
    """One word for a value that can be asked for. Two values may share it: it narrows, the event's row decides."""
    return what + NOT_OF_A_WORD.sub("", value)


# ---- without spaces: pairs of characters, 東京都 as 東京 京都 都

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese; and Korean, which has spaces, but adds to its words."""
UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")


def spaced(text: str) -> str:
    if text.isascii():
        return text
    return UNSPACED_RUN.sub(pairs, unicodedata.normalize("NFC", text))


def pairs(run: re.Match[str]) -> str:
    characters = run[0]
    return f" {' '.join(characters[at : at + 2] for at in range(len(characters)))} "


# ---- names in which a capital begins a word

KINDS_OF_LETTER = bytes(
    ord("a") if chr(code).islower() else ord("A") if chr(code).isupper() else ord("0") if chr(code).isalnum() else 32
    for code in range(256)
)
PART = re.compile(r"[A-ZÀ-ÖØ-Þ]+(?![a-zß-öø-ÿ])\d*|[A-ZÀ-ÖØ-Þ]?[a-zß-öø-ÿ]+\d*|\d+")


def names_in(text: str) -> set[str]:
    """Words such as getUserById. Most texts have few, so what is looked for is a small letter before a capital."""
    kinds = text.encode("latin-1", "replace").translate(KINDS_OF_LETTER)
    found = set()
    at = kinds.find(b"aA")
    while at >= 0:
        start, end = kinds.rfind(b" ", 0, at) + 1, kinds.find(b" ", at)
        end = len(kinds) if end < 0 else end
        if end - start <= LONGEST_NAME:  # longer ones are not names
            found.add(text[start:end])
        at = kinds.find(b"aA", end)
    return found


@lru_cache(16_384)
def parts_of(name: str) -> str:
    """`get User By Id` of getUserById."""
    return " ".join(PART.findall(name))


# ------------------------------------------------------------------------- questions


class Term(NamedTuple):
    """A word or phrase that is asked for."""

    text: str
    is_beginning: bool = False
    """It says so: `begin*`."""
    is_last: bool = False
    """It may be the beginning of a word as well, unless many have it as it stands."""
    is_excluded: bool = False


TERM = re.compile(r'(?P<minus>-(?=["\w]))?(?:"(?P<phrase>[^"]+)"(?P<more>\*?)|(?P<word>[^\s"]+))')
WORD = re.compile(r"[^\W_]+")


def terms(question: str) -> list[Term]:
    """What is asked for: `word`, `"a phrase"`, `begin*`, `-without`.

    Where nothing but what shall not be there is said, that is what is looked for.
    """
    found = list(filter(None, map(term_of, TERM.finditer(question.replace("\0", " ")))))
    if all(term.is_excluded for term in found):
        return [term._replace(is_excluded=False) for term in found]
    return found


def term_of(match: re.Match[str]) -> Term | None:
    text = match["phrase"] or match["word"]
    words = WORD.findall(text)
    if not words:
        return None
    is_open = match["more"] or (match["word"] and text.endswith("*"))
    is_last = match["word"] and not match["minus"] and not match.string[match.end() :].strip()
    return Term(
        text,
        is_beginning=bool(is_open) and len(words[-1]) >= SHORTEST_BEGINNING,
        is_last=bool(is_last) and len(words[-1]) >= SHORTEST_LAST_WORD,
        is_excluded=bool(match["minus"]),
    )


def readings(sought: list[Term]) -> Iterator[list[Term]]:
    """What the terms mean: as they stand, and then with the last word as a beginning."""
    yield sought
    *others, last = sought
    if last.is_last and not last.is_beginning:
        yield [*others, last._replace(is_beginning=True)]


class Narrowed(NamedTuple):
    """To what a search is narrowed; nothing said: to nothing."""

    types: Sequence[str] = ()
    kinds: Sequence[str] = ()
    session_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    since: str | None = None
    """UTC, milliseconds, as events have it; the moment itself included."""
    until: str | None = None
    """Likewise, the moment itself excluded."""

    def marks(self, today: str) -> Iterator[list[str]]:
        """For each thing that narrows: the marks of which an event has one."""
        yield [mark("type", name) for name in self.types]
        yield [mark("kind", name) for name in self.kinds]
        yield [mark("session", self.session_id)] if self.session_id else []
        yield [mark("user", self.user_id)] if self.user_id else []
        yield [mark("agent", self.agent_id)] if self.agent_id else []
        yield periods(self.since, self.until, today) if self.since or self.until else []


def periods(since: str | None, until: str | None, today: str) -> list[str]:
    """Marks of the years, months and days that a time touches."""
    first = max(since or EARLIEST, EARLIEST)[:10]
    last = min(until or today, today)[:10]
    found = [] if since and since >= EARLIEST else [EARLIER]
    day, end = date.fromisoformat(first), date.fromisoformat(last)
    while day <= end:
        year, month = date(day.year, 12, 31), date(day.year, day.month, monthrange(day.year, day.month)[1])
        whole_year, whole_month = day.month == day.day == 1 and year <= end, day.day == 1 and month <= end
        last_day, length = (year, 4) if whole_year else (month, 7) if whole_month else (day, 10)
        found.append(mark("day", str(day)[:length]))
        day = last_day + timedelta(1)
    return [*found, LATER]


def match_of(sought: Sequence[Term], narrowed: Iterable[list[str]] = ()) -> str:
    """The expression for FTS5, for whatever text: every term is in quotes."""
    included = " AND ".join(map(phrase, wanted(sought)))
    excluded = " OR ".join(phrase(term) for term in sought if term.is_excluded)
    expression = f"{{text parts}} : ({f'({included}) NOT ({excluded})' if excluded else included})"
    for marks in filter(None, narrowed):
        expression += f" AND about : ({' OR '.join(map(quoted, marks))})"
    return expression


def phrase(term: Term) -> str:
    """A name such as UserById is also found inside of another."""
    text, is_beginning = open_at_its_end(unicodedata.normalize("NFC", term.text), term.is_beginning)
    star = "*" if is_beginning else ""
    names = names_in(term.text)
    if names == {term.text.strip("*")}:
        return f"({quoted(text)}{star} OR parts : {quoted(parts_of(*names))}{star})"
    return quoted(text) + star


UNSPACED_END = re.compile(f"([{UNSPACED}]+)[\\W_]*\\Z")


def open_at_its_end(text: str, is_beginning: bool) -> tuple[str, bool]:
    """`text` for the index. Where it ends without spaces, it may go on in what is found."""
    end = UNSPACED_END.search(text)
    if end is None:
        return spaced(text), is_beginning
    before, characters = f"{spaced(text[: end.start()])} ", end[1]
    if len(characters) == 1:
        return before + characters, True
    return before + " ".join(characters[at : at + 2] for at in range(len(characters) - 1)), False


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


# -------------------------------------------------------------------------- answers

SNIPPET = 160
BEFORE = 40
"""Characters of a snippet, and how many of them stand before what was found."""
USUAL_LENGTH = 600
"""Characters of a text that is neither long nor short."""


def line_of(data: Any) -> str:
    """The text of an event's data in one line."""
    text = " ".join(" ".join(leaves(data)).split())
    return text if text.isascii() else unicodedata.normalize("NFC", text)


LOOKS = 20_000_000
"""Characters that one search goes through, each for each word that is asked for: 100 texts may have a megabyte each."""


def looked_at(texts: int, sought: Iterable[Term]) -> int:
    """Characters of each text in which the words are looked for."""
    words = sum(len(WORD.findall(term.text)) for term in sought)
    return LOOKS // max(1, texts * words)


def score(text: str, sought: Sequence[Term], within: int = LOOKS) -> float:
    """How much a text is about what was asked for: BM25 for each term, but all terms weigh the same.

    Where one stands as it was asked for counts more than where it is inside of a name. `within`: so many characters.
    """
    plain, length = folded(text[:within]), 1.2 * (0.25 + 0.75 * len(text) / USUAL_LENGTH)
    total = 0.0
    for term in wanted(sought):
        as_word, inside = patterns((term,))
        times = len(as_word.findall(plain)) or 0.5 * len(inside.findall(plain))
        total += times * 2.2 / (times + length)
    return total


class Snippet(NamedTuple):
    """A piece of a text. `marked` is the same in pieces: every second one is what was asked for."""

    text: str
    marked: list[str]


def snippet(text: str, sought: Sequence[Term], within: int = LOOKS) -> Snippet:
    """The piece of a text around the first place of what was asked for, if that is `within` so many characters."""
    places = places_of(text[:within], wanted(sought))
    start = max(0, places[0][0] - BEFORE) if places else 0
    end = start + SNIPPET
    marked, at = ["…" if start else ""], start
    for first, last in places:
        if last > end:
            break
        marked[-1] += text[at:first]
        marked += [text[first:last], ""]
        at = last
    marked[-1] += text[at:end] + ("…" if end < len(text) else "")
    return Snippet("".join(marked), marked)


def wanted(sought: Iterable[Term]) -> tuple[Term, ...]:
    return tuple(term for term in sought if not term.is_excluded)


def places_of(text: str, sought: tuple[Term, ...]) -> list[tuple[int, int]]:
    """Where the terms stand as words; nowhere: where they stand inside of names."""
    plain = folded(text)
    for pattern in patterns(sought):
        if places := [found.span() for found in pattern.finditer(plain)]:
            return places
    return []


@lru_cache(256)
def patterns(sought: tuple[Term, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds any of the terms in a folded text: as words, and inside of words."""
    as_words = sorted(map(literal, sought), key=len, reverse=True)
    inside = sorted((literal(term, "", "") for term in sought), key=len, reverse=True)
    return re.compile("|".join(as_words)), re.compile("|".join(inside))


START, END = r"(?<![^\W_])", r"(?![^\W_])"


def literal(term: Term, start: str = START, end: str = END) -> str:
    words = [re.escape(word) for word in WORD.findall(folded(term.text))]
    start = "" if UNSPACED_RUN.match(words[0]) else start
    end = "" if UNSPACED_RUN.match(words[-1]) or term.is_beginning else end
    return start + r"[\W_]+".join(words) + end


class CharacterFolding(dict[int, str]):
    """For str.translate: every character as one, without case and accent."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        base = character if UNSPACED_RUN.match(character) else unicodedata.normalize("NFD", character)[0]
        lower = base.lower()
        self[code] = lower if len(lower) == 1 else base
        return self[code]


FOLDING = CharacterFolding()


def folded(text: str) -> str:
    """`text` as the index compares it, each character in its place."""
    return text.lower() if text.isascii() else text.translate(FOLDING)
