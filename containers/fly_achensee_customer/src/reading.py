"""What plain rules can read out of an enquiry: its language, days, and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Literal

Language = Literal["de", "en"]


def _words(text: str) -> list[str]:
    return text.split()


GERMAN = frozenset(
    _words(
        "der die das und ich wir sie ist sind nicht mit für ein eine einen am im zu auf bei wie was wann kann können "
        "noch gibt mein meine uns unser euch ihr von haben möchte würde gerne bitte danke guten hallo grüße"
    )
)
ENGLISH = frozenset(
    _words(
        "the and i we you is are not with for a an on in to at how what when can could there my our us your from have "
        "would like please thanks thank hello hi dear regards do does it"
    )
)
MONTHS = {
    name: number
    for names in (
        "januar februar märz april mai juni juli august september oktober november dezember",
        "january february march april may june july august september october november december",
    )
    for number, name in enumerate(_words(names), 1)
}
MONTH = "|".join(MONTHS)
DAYS = [
    re.compile(r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b"),
    re.compile(r"\b(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.(?:\s?(?P<year>\d{4}))?"),
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:\.|st|nd|rd|th)?\s(?:of\s)?(?P<month>{MONTH})\b,?(?:\s(?P<year>\d{{4}}))?", re.I
    ),
    re.compile(rf"\b(?P<month>{MONTH})\s(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b,?(?:\s(?P<year>\d{{4}}))?", re.I),
]
NUMBERS = {
    name: number
    for names in (
        "zwei drei vier fünf sechs sieben acht",
        "zweit dritt viert fünft sechst siebt acht",  # zu zweit
        "two three four five six seven eight",
    )
    for number, name in enumerate(_words(names), 2)
}
NUMBER = "|".join([r"\d{1,2}", *NUMBERS])
PERSONS = re.compile(
    rf"\b(?:zu|wir sind|we are|we're|für uns|for|party of)\s({NUMBER})\b(?!\s?(?:kg|kilo|jahr|year|€|euro|minut|uhr))"
    rf"|\b({NUMBER})\s(?:personen|leute|erwachsene|people|persons|adults|friends|freunde|of us|kollegen|colleagues)\b",
    re.I,
)
WEIGHT = re.compile(r"\b(\d{2,3})\s?(?:kg|kilo)", re.I)
AGE = re.compile(
    r"\b(\d{1,2})(?:\s|-)?(?:jahre|jährig|years?[\s-]old)"
    r"|\b(?:is|aged|ist|wird|turns|turning)\s(\d{1,2})(?=[\s,.]*$|[.,!?]| und| and)",
    re.I | re.M,
)
VOUCHER = re.compile(r"\bACH-\d{4}-\d{4}\b")
SENTENCE_END = re.compile(r"(?<=[!?])\s+|(?<=[^\d\s]\.)\s+|\n\s*\n")


def language(text: str) -> Language:
    words = re.findall(r"[a-zäöüß]+", text.lower())
    return "en" if sum(word in ENGLISH for word in words) > sum(word in GERMAN for word in words) else "de"


def days(text: str, received: date) -> list[date]:
    """In the order in which they stand there, each once. One without a year is the next that comes."""
    matches = {match.start(): match for pattern in reversed(DAYS) for match in pattern.finditer(text)}
    found = [_day(matches[place], received) for place in sorted(matches)]
    said = {(day.month, day.day): day for day, has_year in filter(None, found) if has_year}
    return list(dict.fromkeys(said.get((day.month, day.day), day) for day, _ in filter(None, found)))


def _day(match: re.Match[str], received: date) -> tuple[date, bool] | None:
    """And whether its year is told; None for one that does not exist."""
    month = match["month"].lower()
    try:
        day = date(int(match["year"] or received.year), MONTHS.get(month) or int(month), int(match["day"]))
        comes_next_year = not match["year"] and day < received
        return (day.replace(year=day.year + 1) if comes_next_year else day), bool(match["year"])
    except ValueError:
        return None


def persons(text: str) -> int:
    """1, if nothing is said of others."""
    match = PERSONS.search(text)
    if not match:
        return 1
    number = (match[1] or match[2]).lower()
    return NUMBERS.get(number) or int(number) or 1


def weights(text: str) -> list[int]:
    return [int(number) for number in WEIGHT.findall(text)]


def ages(text: str) -> list[int]:
    return [int(one or other) for one, other in AGE.findall(text)]


def vouchers(text: str) -> list[str]:
    return list(dict.fromkeys(VOUCHER.findall(text)))


def sentences(text: str) -> list[str]:
    return [" ".join(sentence.split()) for sentence in SENTENCE_END.split(text) if sentence.strip()]


def mentions(text: str, words: Iterable[str]) -> bool:
    """Whether one of these begins a word of the text."""
    return re.search(rf"\b(?:{'|'.join(map(re.escape, words))})", text, re.I) is not None
