"""Redaction: secrets are taken out of what callers say before it is stored, by the table that the agents use as well.

An Aho-Corasick automaton finds all that secrets begin with in one pass over a text, however many patterns there are.
Nearly all that is said has nothing of it, and is let through by one look at its JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from ahocorasick_rs import BytesAhoCorasick

import hook_agent
from sessionstore.model.events import Draft
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem

PIECE = 1 << 15
"""Bytes of a long text that are looked through at a time: what is found may be many times as large."""


def check_texts(data: Document) -> None:
    """Raises Problem 413 where the data has more texts than one event may; `hook_agent.with_few_texts` cuts it."""
    if hook_agent.number_of_texts(data) > hook_agent.MOST_TEXTS:
        raise Problem(413, f"The data of one event may have at most {hook_agent.MOST_TEXTS} texts")


class Redaction(hook_agent.Redaction):
    """The agents' redaction, by an automaton."""

    def __init__(self, own: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(own)
        self.hints: dict[str, list[str]] = {}
        for hint in (hint for _, hints, _ in hook_agent.SECRETS for hint in hints):
            self.hints.setdefault(hook_agent._word_of(hint), []).append(hint)
        self.words = [*self.hints]
        self.search = BytesAhoCorasick([word.encode() for word in self.words]).find_matches_as_indexes
        self.longest = max(map(len, self.words))

    def words_in(self, lower: str) -> set[str]:
        return self.words_in_bytes(lower.encode(errors="replace"))

    def words_in_bytes(self, lower: bytes) -> set[str]:
        """What secrets begin with of that which is in UTF-8, in lower case; words may be within others."""
        found = self.search(lower, overlapping=True) if len(lower) <= PIECE else self.found_in_pieces(lower)
        return {self.words[index] for index, _, _ in found}

    def found_in_pieces(self, lower: bytes) -> Iterator[tuple[int, int, int]]:
        view = memoryview(lower)
        for at in range(0, len(lower), PIECE):
            yield from self.search(view[at : at + PIECE + self.longest], overlapping=True)

    def concerns_json(self, document: bytes) -> bool:
        """Whether JSON, as the store writes it, may hold any secret; right where the answer is no."""
        if self.has_own:
            return True
        words = self.words_in_bytes(document.lower())
        if not words:
            return False
        text = document.decode()
        lower = text.lower()
        hints = (hint for word in words for hint in self.hints[word])
        return any(is_hinted(lower if hint == hint.lower() else text, hint) for hint in hints)


def is_hinted(text: str, hint: str) -> bool:
    """As the agents' look, which takes for granted that the parts of a hint are not far from each other."""
    first, star, last = hint.partition("*")
    if not star:
        return hook_agent._is_hinted(text, hint)
    at = text.find(first)
    return at >= 0 and text.find(last, at) >= 0


class Redactor:
    """Called with a draft, takes the secrets out of its data, once."""

    def __init__(self, own: Sequence[tuple[str, str]] | None) -> None:
        """`own`: further patterns by name; None: nothing is taken out."""
        self.redaction = None if own is None else Redaction(own)

    def __call__(self, draft: Draft) -> None:
        if not draft.is_redacted:
            draft.is_redacted = True
            draft.data = self.data(draft.data)

    def data(self, data: Document) -> Document:
        """The same object where there is nothing to take out."""
        if self.redaction is None or not self.redaction.concerns_json(msgspec.json.encode(data)):
            return data
        return self.redaction.data(data)

    def text(self, text: str) -> str:
        """A text without secrets, by what they look like; in JSON text, too, where they are within a value."""
        return text if self.redaction is None else self.redaction.text(text)
