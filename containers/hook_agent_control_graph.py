"""Remote control of LangGraph (human in the loop): stop, pause and release of a graph, and answers to its interrupts.

One file, to be copied beside hook_agent.py with hook_agent_langchain.py and hook_agent_control.py; it is found by
`agent.langchain_handler(control=True)`. Python 3.9 or newer, and LangGraph 1.2 or newer for what drains a graph.

    What is answered   what a graph goes on with, of a person's answer
    Control            the calls that a handler has then: invoke, ainvoke, run_control
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from hook_agent import _beside, _Link, _process, _suppress, _text

if TYPE_CHECKING:
    Members = dict[str, Any]

_TICK_SECONDS = 0.1
_POLL_SECONDS, _SLACK_SECONDS = 20, 3
_AWAY_SECONDS = 1.0
_RUNS_KEPT = 100

# ---------------------------------------------------------------------------------------------------------------------
# What is answered
# ---------------------------------------------------------------------------------------------------------------------


def resumed_with(asked: object, answer: Members) -> Any:
    """What an interrupt with this value goes on with: what was answered; of a yes or no, True or False.

    To what LangChain's human-in-the-loop middleware asks, a decision for each of its actions.
    """
    message = _text(answer.get("message"))
    if answer["decision"] == "answer":
        return message if answer.get("answers") is None else answer["answers"]
    actions = asked.get("action_requests") if isinstance(asked, dict) else None
    if isinstance(actions, list):
        if answer["decision"] == "allow":
            return {"decisions": [{"type": "approve"} for _ in actions]}
        return {"decisions": [{"type": "reject", **({"message": message} if message else {})} for _ in actions]}
    return answer["decision"] == "allow"


# ---------------------------------------------------------------------------------------------------------------------
# Control
# ---------------------------------------------------------------------------------------------------------------------


class _Unable:
    """Stands for a RunControl where LangGraph has none."""

    drain_requested = False

    def request_drain(self, reason: str) -> None:
        pass


def _run_control() -> Any:
    try:
        from langgraph.runtime import RunControl
    except ImportError:  # no LangGraph, or one before 1.2
        return _Unable()
    return RunControl()


class GraphControl:
    """Runs graphs as people in the store order and answer; for any number of them, in any threads."""

    def __init__(self, agent: Any, handler: Any) -> None:
        self._agent, self._handler = agent, handler
        self._control = _beside("hook_agent_control", "langchain_handler(control=True)")
        if trouble := self._control.insecure(agent.service_url):
            raise ValueError(trouble)
        self._running: list[Any] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._answers: queue.Queue[tuple[str, Members | None]] = queue.Queue()
        self._asked: dict[str, threading.Thread] = {}  # by interrupt
        self._watching = threading.Thread(target=self._watch, name="hook_agent control", daemon=True)
        self._watching.start()

    # The calls

    def run_control(self) -> Any:
        """For one run of a graph: `graph.stream(…, control=handler.run_control())` drains it once that is ordered."""
        control = _run_control()
        with self._lock:
            self._running = [*(it for it in self._running if not it.drain_requested), control][-_RUNS_KEPT:]
        return control

    def invoke(self, graph: Any, given: Any, config: Any = None, **options: Any) -> Any:
        """As `graph.invoke`, but interrupts are answered from the store and a pause is waited for.

        Raises GraphDrained where somebody has ordered it to stop: `invoke(graph, None, config)` goes on from there, in
        whatever process. Returns with `__interrupt__` where nobody has answered in SESSION_CONTROL_WAIT seconds.
        """
        self._stopped = False
        while True:
            try:
                result = graph.invoke(given, self._configured(config), **self._controlled(), **options)
            except Exception as error:
                if not self._goes_on_after(error):
                    raise
                given = None
                continue
            found = self._answered(result)
            if found is None:
                return result
            given = found

    async def ainvoke(self, graph: Any, given: Any, config: Any = None, **options: Any) -> Any:
        """The same for `graph.ainvoke`."""
        import asyncio

        self._stopped, loop = False, asyncio.get_running_loop()
        while True:
            try:
                result = await graph.ainvoke(given, self._configured(config), **self._controlled(), **options)
            except Exception as error:
                if not await loop.run_in_executor(None, self._goes_on_after, error):
                    raise
                given = None
                continue
            found = await loop.run_in_executor(None, self._answered, result)
            if found is None:
                return result
            given = found

    def _configured(self, config: Any) -> Any:
        callbacks = (config or {}).get("callbacks") or []
        if isinstance(callbacks, list) and self._handler not in callbacks:
            callbacks = [*callbacks, self._handler]
        return {**(config or {}), "callbacks": callbacks}

    def _controlled(self) -> Members:
        control = self.run_control()
        return {} if isinstance(control, _Unable) else {"control": control}

    def _goes_on_after(self, error: Exception) -> bool:
        """Whether it was drained for a pause, which is over by then."""
        if type(error).__name__ != "GraphDrained":
            return False
        while self._is_paused():
            time.sleep(_TICK_SECONDS)
        return not self._is_stopped()

    # Orders

    @property
    def _known(self) -> Any:
        return self._control.Known(self._agent._outlet.spool, self._agent.session_id)

    def _orders(self, kind: str) -> list[Members]:
        with _suppress(OSError):
            return [it for it in self._known.items() if it["order"] == kind]
        return []

    def _is_paused(self) -> bool:
        return bool(self._orders("pause")) and not self._is_stopped()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _watch(self) -> None:
        own = _process(os.getpid())
        while True:
            with _suppress(OSError):
                spool = self._agent._outlet.spool
                if not spool.folder:
                    spool.settle()
                if self._known.process() != own:
                    self._known.enter(own)
                self._carry_out()
            time.sleep(_TICK_SECONDS)

    def _carry_out(self) -> None:
        known, can_drain = self._known, not isinstance(_run_control(), _Unable)
        for item in known.items():
            refused = "" if item["order"] in ("stop", "pause") else "it is a graph, to which nothing can be said"
            refused = refused or ("" if can_drain else "this version of LangGraph cannot be stopped between two steps")
            if item.get("agentId"):
                refused = "a graph stops and pauses as a whole"
            running = [control for control in self._running if not control.drain_requested]
            if not refused and not running and not self._asked:
                continue  # nothing runs that it could be told to
            if known.begin(item["id"], refused=refused) and not refused:
                self._stopped = self._stopped or item["order"] == "stop"
                for control in running:
                    control.request_drain(_text(item.get("text")) or item["order"])
            if item["order"] != "pause" or refused:
                known.drop(item["id"])

    # Answers

    def _answered(self, result: Any) -> Any:
        """The first answer to one of the interrupts that a run has ended with, as a Command; None: there is none."""
        interrupts = result.get("__interrupt__") if isinstance(result, dict) else None
        asks = self._handler._graphs.asks
        open_asks = {it.id: it.value for it in interrupts or () if getattr(it, "id", None) in asks}
        for name in open_asks:
            self._begin_to_ask(name, asks[name])
        until = time.monotonic() + self._control.wait_seconds()
        while open_asks and time.monotonic() < until and not self._stopped:
            try:
                name, answer = self._answers.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                continue
            self._asked.pop(name, None)
            if name in open_asks and answer is not None:
                from langgraph.types import Command

                return Command(resume={name: resumed_with(open_asks[name], answer)})
            open_asks.pop(name, None)
        return None

    def _begin_to_ask(self, name: str, ask_id: str) -> None:
        if name not in self._asked:
            thread = threading.Thread(target=self._ask, args=(name, ask_id), daemon=True)
            self._asked[name] = thread
            thread.start()

    def _ask(self, name: str, ask_id: str) -> None:
        link = _Link(self._agent.service_url, self._agent._outlet.sender.link.own_token)
        until = time.monotonic() + self._control.wait_seconds()
        answer: Members | None = None
        try:
            while answer is None and time.monotonic() < until and not self._stopped:
                answer = self._asked_once(link, ask_id, until)
        finally:
            link.close()
            self._answers.put((name, answer if answer and answer["kind"] == "answer" else None))

    def _asked_once(self, link: _Link, ask_id: str, until: float) -> Members | None:
        wait = max(1, min(_POLL_SECONDS, int(until - time.monotonic())))
        body = {"wait": wait, "ask": ask_id}
        try:
            said = self._control.ask(link, self._agent.session_id, body, wait + _SLACK_SECONDS, self._is_stopped)
            self._known.hear(said or [])
            about = [it for it in said or [] if it.get("askId") == ask_id]
            return next((it for it in about if it["kind"] == "closed" or self._known.begin(it["id"])), None)
        except Exception:  # the store is away, or does not know of it yet
            link.close()
            time.sleep(_AWAY_SECONDS)
            return None


def control_of(agent: Any, handler: Any) -> GraphControl:
    """Raises ValueError where answers would come over plain HTTP from another machine, and ImportError."""
    return GraphControl(agent, handler)
