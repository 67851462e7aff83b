"""Secrets are taken out of what callers say before it is stored. hook_agent.py, which has the table, does the same.

Nearly all that is said holds none, and is let through by one look at its JSON text.
"""

from __future__ import annotations

from collections.abc import Sequence

import hook_agent
from sessionstore.model.events import Draft
from sessionstore.model.folds import Document, encode
from sessionstore.model.problems import Problem


def check_texts(data: Document) -> None:
    """Raises Problem 413 where the data has more texts than one event may; `hook_agent.with_few_texts` cuts it."""
    if hook_agent.number_of_texts(data) > hook_agent.MOST_TEXTS:
        raise Problem(413, f"The data of one event may have at most {hook_agent.MOST_TEXTS} texts")


class Redactor:
    """Called with a draft, takes the secrets out of its data, once."""

    def __init__(self, own: Sequence[tuple[str, str]] | None) -> None:
        """`own`: further patterns by name; None: nothing is taken out."""
        self.redaction = None if own is None else hook_agent.Redaction(own)
        hook_agent.has_reason("")  # so that the table is compiled before there is anything to look for

    def __call__(self, draft: Draft) -> None:
        if not draft.is_redacted:
            draft.is_redacted = True
            draft.data = self.data(draft.data)

    def data(self, data: Document) -> Document:
        """The same object where there is nothing to take out."""
        if self.redaction is None:
            return data
        text = encode(data)
        if self.redaction.has_own or (hook_agent.has_reason(text.lower()) and self.redaction.concerns(text)):
            return self.redaction.data(data)
        return data
