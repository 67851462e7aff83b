"""Secrets are taken out of what callers say before it is stored. hook_agent.py, which has the table, does the same.

Nearly all that is said holds none, and is let through quickly: one regular
expression, made of the table's hints, looks whether there is reason to look closer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

import hook_agent

from .events import Draft
from .folds import Document, encode
from .problems import Problem

RARE = "@_-zqxjkvbwyfgmpucldrhsnioate:./ "
"""Characters that stand in JSON text, about the rarest first."""


def search_for(hints: set[str]) -> re.Pattern[str]:
    """Finds any of the hints in lower case. `re` skips to a letter that it knows: so each begins with its rarest."""
    stops = sorted({stop_of(hint) for hint in hints})
    groups = groupby(stops, lambda stop: stop[0])
    return re.compile("|".join(f"{letter}(?:{'|'.join(around for _, around in group)})" for letter, group in groups))


def stop_of(hint: str) -> tuple[str, str]:
    """The rarest letter of a hint, and a pattern for what is around it."""
    text = (hint.partition("*")[2] or hint).strip("^=").lower()
    at = min(range(len(text)), key=lambda index: RARE.find(text[index]))
    return re.escape(text[at]), f"(?<={re.escape(text[: at + 1])}){re.escape(text[at + 1 :])}"


reason_in = search_for({hint for _, hints, _ in hook_agent.SECRETS for hint in hints}).search


def check_texts(data: Document) -> None:
    """Raises Problem 413 where the data has more texts than one event may; `hook_agent.with_few_texts` cuts it."""
    if hook_agent.number_of_texts(data) > hook_agent.MOST_TEXTS:
        raise Problem(413, f"The data of one event may have at most {hook_agent.MOST_TEXTS} texts")


class Redactor:
    """Called with a draft, takes the secrets out of its data, once."""

    def __init__(self, own: Sequence[tuple[str, str]] | None) -> None:
        """`own`: further patterns by name; None: nothing is taken out."""
        self.redaction = None if own is None else hook_agent.Redaction(own)

    def __call__(self, draft: Draft) -> None:
        if not draft.is_redacted:
            draft.is_redacted = True
            draft.data = self.data(draft.data)

    def data(self, data: Document) -> Document:
        """The same object where there is nothing to take out."""
        if self.redaction is None:
            return data
        text = encode(data)
        if self.redaction.has_own or (reason_in(text.lower()) and self.redaction.concerns(text)):
            return self.redaction.data(data)
        return data
