"""The same program as a session of the store: `python -m src.main_with_session`; hook_agent.py has its settings."""

from __future__ import annotations

import sys

from containers.session_reporter import SessionReporter, as_session
from containers.work_loop import run
from hook_agent import SessionHookAgent

from .main import answer_mails

TASK = "authenticates, fetches, classifies, solves and replies, mail by mail"


async def main() -> bool:
    initial = {"source": "email_solver", "input": "Answer the mails to support"}
    async with SessionHookAgent(initial=initial) as agent:
        reporter = SessionReporter(agent, noun="mail", worker="pipeline", task=TASK)
        return await as_session(agent, reporter, answer_mails(reporter))


if __name__ == "__main__":
    sys.exit(run(main()))
