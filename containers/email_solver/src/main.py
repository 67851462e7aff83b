"""Answers the mails that customers write to support: `python -m src.main`.

MAILDIR             the maildir that mails come from; `inbox`, if not set
IMAP_HOST           an IMAP server that they come from instead, with IMAP_PORT, IMAP_USER, IMAP_PASSWORD_FILE (or
                    IMAP_PASSWORD), IMAP_FOLDER (INBOX) and IMAP_TLS (1)
OUTGOING            the maildir for the answers; `outgoing`
KNOWLEDGE           what the support desk knows; `knowledge.toml`
PACE_SECONDS        pause after each mail; 2
KEEP_WATCHING       0: end when all are answered; else wait for more
"""

from __future__ import annotations

import asyncio
import os
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from containers.work_loop import Pace, Reporter, Trouble, WorkItem, go_rounds, run

from .inbox import InboxError, inbox_from_environment
from .outgoing import Outgoing
from .pipeline import Pipeline, authenticate
from .support import support_tools

HERE = Path(__file__).parent.parent


class Support:
    """The work: a mail is done when it is in the ledger."""

    def __init__(self, reporter: Reporter) -> None:
        self._witness = reporter
        self._knowledge = Path(os.environ.get("KNOWLEDGE", HERE / "knowledge.toml")).absolute()
        shop = tomllib.loads(self._knowledge.read_text(encoding="utf-8"))["shop"]
        self._address: str = shop["address"]
        self._inbox = inbox_from_environment(HERE)
        folder = Path(os.environ.get("OUTGOING", HERE / "outgoing")).absolute()
        self._outgoing = Outgoing(folder, shop["name"], self._address)

    def close(self) -> None:
        self._inbox.close()

    async def waiting(self) -> Sequence[WorkItem]:
        try:
            self._outgoing.open()
            keys = await asyncio.to_thread(self._look)
        except (InboxError, OSError) as error:
            raise Trouble(str(error)) from None
        return [WorkItem(key, f"Mail {key}") for key in keys if not self.is_done(key)]

    def is_done(self, item_id: str) -> bool:
        return self._outgoing.has_handled(item_id)

    def _look(self) -> list[str]:
        authenticate(self._inbox, self._witness)
        return self._inbox.keys()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Callable[[WorkItem], Awaitable[str]]]:
        async with support_tools(self._witness, self._knowledge, self._outgoing.tickets) as tools:
            pipeline = Pipeline(self._inbox, self._outgoing, tools, self._address, self._witness)
            yield lambda item: pipeline.run(item.id)


async def answer_mails(reporter: Reporter) -> bool:
    """Whether something is left undone."""
    support = Support(reporter)
    try:
        return await go_rounds(support, reporter, Pace.from_environment())
    finally:
        support.close()


if __name__ == "__main__":
    sys.exit(run(answer_mails(Reporter())))
