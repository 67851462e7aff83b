"""Answers the enquiries that customers write: `python -m src.main`.

ENQUIRIES           a folder of .eml and .txt files, or a mailbox file; `enquiries`, if not set. What is still being
                    written is to have another ending, as what is there is answered at once
OUTBOX              the folder for the answers; `outbox`
ANTHROPIC_API_KEY   Claude answers, as ANTHROPIC_MODEL; without it, rules do
PACE_SECONDS        pause after each enquiry; 2
KEEP_WATCHING       0: end when all are answered; else wait for more
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from containers.work_loop import Pace, Reporter, Trouble, WorkItem, go_rounds, run

from .business import Business
from .desk import Answering
from .enquiries import Enquiry, read_enquiries
from .models import models_for
from .outbox import Outbox

HERE = Path(__file__).parent.parent


class CustomerDesk:
    """The work: an enquiry is done when its answer is in the outbox."""

    def __init__(self, reporter: Reporter) -> None:
        self._witness = reporter
        self._business = Business.load(HERE / "business.toml")
        self._place = Path(os.environ.get("ENQUIRIES", HERE / "enquiries"))
        self._outbox = Outbox(Path(os.environ.get("OUTBOX", HERE / "outbox")), self._business)
        self._models = models_for(self._business)
        self._enquiries: dict[str, Enquiry] = {}

    async def waiting(self) -> Sequence[WorkItem]:
        found = [enquiry for enquiry in read_enquiries(self._place) if not self.is_done(enquiry.id)]
        self._enquiries = {enquiry.id: enquiry for enquiry in found}
        return [WorkItem(enquiry.id, enquiry.subject or enquiry.id) for enquiry in found]

    def is_done(self, item_id: str) -> bool:
        return self._outbox.has(item_id)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Callable[[WorkItem], Awaitable[str]]]:
        try:
            self._outbox.open()
        except OSError as error:
            raise Trouble(f"The outbox cannot be opened: {error}") from None
        yield self._answer

    async def _answer(self, item: WorkItem) -> str:
        enquiry = self._enquiries[item.id]
        answering = Answering(self._business, self._models, enquiry)
        desk = await answering.run({"callbacks": self._witness.callbacks()})
        path = self._outbox.put(enquiry, desk["reply"])
        return f"{desk['kind']}, answered in {path.name}"


async def answer_enquiries(reporter: Reporter) -> bool:
    """Whether something is left undone."""
    return await go_rounds(CustomerDesk(reporter), reporter, Pace.from_environment())


if __name__ == "__main__":
    sys.exit(run(answer_enquiries(Reporter())))
