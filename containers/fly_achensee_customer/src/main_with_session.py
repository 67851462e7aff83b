"""The same program as a session of the store: `python -m src.main_with_session`; hook_agent.py has its settings."""

from __future__ import annotations

import sys

from containers.session_reporter import SessionReporter, as_session
from containers.work_loop import run
from hook_agent import SessionHookAgent

from .main import answer_enquiries

TASK = "hands each enquiry to specialists, reviews what they write, and answers"


async def main() -> bool:
    initial = {"source": "fly_achensee_customer", "input": "Answer the enquiries of customers"}
    async with SessionHookAgent(initial=initial) as agent:
        reporter = SessionReporter(agent, noun="enquiry", worker="governor", task=TASK)
        return await as_session(agent, reporter, answer_enquiries(reporter))


if __name__ == "__main__":
    sys.exit(run(main()))
