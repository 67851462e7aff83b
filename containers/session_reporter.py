"""Tells the session store what a program in a container does: one session, and a goal for each item."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from containers.work_loop import Reporter, WorkItem
from hook_agent import SessionHookAgent

HEARTBEAT_SECONDS = 300.0
"""The store takes a session for lost that it has not heard of for 900 s."""
OPEN = ("pending", "in_progress")


class SessionReporter(Reporter):
    """`noun` is what an item is called, `worker` the agent that all nodes of the program's graph work for.

    What is said of an item has an eventId made of the item's id: a process that takes over may say it again, also
    while the store is away, and the store holds it once.
    """

    def __init__(self, agent: SessionHookAgent, noun: str, worker: str, task: str) -> None:
        self._agent = agent.sync
        self._noun = noun
        self._worker = worker
        self._task = task
        self._handler: Any = None
        self._goals: dict[str, str] = {}  # status by id
        self._said = time.monotonic()
        self._is_resting = False

    def resumes(self, document: dict[str, Any] | None) -> None:
        """Begins, with what the store has of an earlier process: its answer to `resume()`, None if it has none."""
        goals = document["state"].get("goals", []) if document else []
        self._goals = {goal["id"]: goal["status"] for goal in goals}
        self._agent.spawn_agent(agentId=self._worker, type=self._worker, task=self._task, status="running")
        self._agent.update_state(phase="starting", progress=self._progress())

    def callbacks(self) -> list[Any]:
        """One handler for all runs, so that each node stays one agent."""
        self._handler = self._handler or self._agent.langchain_handler(self._worker)
        return [self._handler]

    def finds(self, items: Sequence[WorkItem], is_done: Callable[[str], bool]) -> None:
        self._settle({item.id for item in items}, is_done)
        if not items:
            return
        self._is_resting = False
        for item in items:
            if item.id not in self._goals:
                self._agent.add_goal(id=item.id, description=item.title, eventId=f"{item.id}.found")
                self._goals[item.id] = "pending"
        self._says_how_far()

    def _settle(self, waiting: set[str], is_done: Callable[[str], bool]) -> None:
        """What a process before was killed over: it had done the item and not said so, or the item is gone."""
        for item_id, status in self._goals.items():
            if status in OPEN and item_id not in waiting:
                self._set_goal(item_id, "completed" if is_done(item_id) else "cancelled")

    def begins(self, item: WorkItem) -> None:
        self._set_goal(item.id, "in_progress")
        self._agent.log_action(type=f"{self._noun}_begun", goalId=item.id, title=item.title)

    def finishes(self, item: WorkItem, outcome: str) -> None:
        self._agent.log_response(type=f"{self._noun}_done", goalId=item.id, outcome=outcome)
        self._set_goal(item.id, "completed")
        self._says_how_far()

    def fails(self, item: WorkItem, error: Exception) -> None:
        said = {"error": str(error), "errorType": type(error).__name__}
        self._agent.log_response(type="error", goalId=item.id, **said)
        self._set_goal(item.id, "failed")
        self._says_how_far()

    def notes(self, kind: str, **members: Any) -> None:
        self._agent.log_action(type=kind, **members)

    def service(self, name: str, is_up: bool, **members: Any) -> None:
        state = "up" if is_up else "down"
        self._agent.log_response(type=f"{name}_{state}", **members)
        self._agent.update_state(services={name: {"status": state, **members}})

    def rests(self) -> None:
        is_due = time.monotonic() - self._said > HEARTBEAT_SECONDS
        if self._is_resting and not is_due:
            return
        self._is_resting, self._said = True, time.monotonic()
        self._agent.update_state(phase="watching", currentStep=None, progress=self._progress())

    def is_told_to_end(self) -> None:
        """A program that only waits for more has done all that it could."""
        done = "failed" if "failed" in self._goals.values() else "completed"
        self.ends(done if self._is_resting else "cancelled")

    def ends(self, status: str) -> None:
        """`completed`, `failed` or `cancelled`."""
        for item_id, its_status in self._goals.items():
            if its_status == "in_progress":
                self._set_goal(item_id, "pending")
        self._agent.complete_agent(self._worker, self._summary(), status=status)
        self._agent.update_state(phase=status, progress=self._progress())
        self._agent.finalize(status="success" if status == "completed" else status, outcome=self._summary())

    def _says_how_far(self) -> None:
        """With the phase, which the graph's handler sets to how its last run ended."""
        self._agent.update_state(phase="working", progress=self._progress())

    def _set_goal(self, item_id: str, status: str) -> None:
        self._goals[item_id] = status
        self._agent.update_goal(item_id, status=status)

    def _progress(self) -> dict[str, int]:
        statuses = list(self._goals.values())
        return {"done": statuses.count("completed"), "failed": statuses.count("failed"), "known": len(statuses)}

    def _summary(self) -> str:
        progress = self._progress()
        return f"{progress['done']} of {progress['known']} done, {progress['failed']} failed"


async def as_session(agent: SessionHookAgent, reporter: SessionReporter, program: Coroutine[Any, Any, bool]) -> bool:
    """Runs the program as this session. Told to end, it leaves a session that the same SESSION_ID goes on with."""
    reporter.resumes(await agent.resume())
    try:
        is_left = await program
    except Exception:
        reporter.ends("failed")
        raise
    except asyncio.CancelledError:
        reporter.is_told_to_end()
        raise
    reporter.ends("failed" if is_left else "completed")
    return is_left
