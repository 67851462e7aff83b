"""Callback handler for LangChain and LangGraph: graphs, nodes, models, tools and interrupts as events of a session.

One file, to be copied beside hook_agent.py, which finds it when `agent.langchain_handler()` is called. It needs
langchain-core, Python 3.9 or newer, and nothing else; no callback of it raises into the graph that it watches.

    Serialization   any value as JSON for people to read, within a bound
    Models          what a call of a model was given and gave, and its tokens
    Runs            what has begun: a graph, a node, a model, a tool
    Callbacks       LangChain's, each of which becomes an event
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import logging
import os
import re
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from hook_agent import (
    _CUT,
    _ID_LENGTH,
    _as_id,
    _beside,
    _clean,
    _encoded,
    _end_by,
    _is_id,
    _names,
    _Plain,
    _text,
    _text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from uuid import UUID

    Members = dict[str, Any]

logger = logging.getLogger("hook_agent")

_ENTRY_LENGTH = 32_000  # characters that the values of one entry may have: a graph's state can be of any size
_OUTPUT_LENGTH = 8_000  # of a graph's output in the state, which the store writes again with every change
_RESULT_LENGTH = 1_000  # of what an agent gave, which stands there too
_TASK_LENGTH = 200
_ITEMS_SHOWN = 100
_MESSAGES_SHOWN = 10  # the newest of a list of messages
_LEVELS_SHOWN = 16
_QUOTE_LENGTH = 300
_DIGEST_LENGTH = 16  # hex digits
_TRACEBACK_LINES = 12
_RUNS_KEPT = 10_000  # that have begun: those that are never said to have ended would pile up

_ROLES = {"human": "user", "HumanMessageChunk": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_ASKING_MEMBERS = ("question", "message", "prompt", "description", "query", "task", "action")
_BLOCKS_UNSHOWN = _names("tool_use tool_call tool_call_chunk function_call thinking reasoning")
_PAUSING = _names("GraphInterrupt GraphDrained")
_CANCELLING = _names("CancelledError KeyboardInterrupt GeneratorExit")


# ---------------------------------------------------------------------------------------------------------------------
# Serialization
# ---------------------------------------------------------------------------------------------------------------------

# Classes are known by what they have, so that nothing need be imported.


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def _content_text(content: object) -> str:
    """The text of a message's content, which is a text or a list of blocks; of an image, [image]."""
    return "\n".join(filter(None, map(_block_text, content))) if isinstance(content, list) else _text(content)


def _block_text(block: object) -> str:
    if not isinstance(block, dict):
        return _text(block)
    kind = _text(block.get("type"))
    return _text(block.get("text")) or ("" if kind in _BLOCKS_UNSHOWN else f"[{kind}]")


def _is_message(value: object) -> bool:
    return "Message" in type(value).__name__ and hasattr(value, "content") and hasattr(value, "type")


def _message_members(message: Any) -> Members:
    members = {
        "role": getattr(message, "role", None) or _ROLES.get(message.type, message.type),
        "name": getattr(message, "name", None),
        "text": _content_text(message.content),
        "toolCalls": _tool_calls(message),
        "toolUseId": getattr(message, "tool_call_id", None),
    }
    return {name: member for name, member in members.items() if member or name == "text"}


def _tool_calls(message: Any) -> list[Members]:
    return [
        {"toolUseId": call.get("id"), "tool": call.get("name"), "input": call.get("args")}
        for call in getattr(message, "tool_calls", None) or []
    ]


def _members_of(value: Any) -> Members | None:
    """The members of what has some: a dict, a message, a named tuple, a dataclass, a pydantic model; else None."""
    if isinstance(value, dict):
        return value
    if _is_message(value):
        return _message_members(value)
    if hasattr(value, "_asdict"):
        return dict(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return {name: it for name, it in members.items() if it} if type(value).__name__ == "Command" else members
    fields = getattr(type(value), "model_fields", None) or getattr(type(value), "__fields__", None)
    return {name: getattr(value, name, None) for name in fields} if isinstance(fields, dict) else None


def _items_of(value: Any) -> Sequence[Any] | None:
    """The items of a list, a set, or a small array (as of numpy); else None."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "tolist") and isinstance(getattr(value, "size", None), int) and value.size <= _ITEMS_SHOWN:
        items = value.tolist()
        return items if isinstance(items, list) else [items]
    return None


def _named(value: Any) -> str:
    """What is neither text nor number nor made of parts, in words, without addresses in memory."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{type(value).__name__} of {value.dtype}, {'x'.join(map(str, value.shape))}>"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {_text_of(value)}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


class _Reading:
    """Any values as JSON, together of about `length` characters; `is_cut` says that something was left out.

    One text has half of that, and less the deeper it lies, so that the last of many messages has room as well.
    """

    def __init__(self, length: int) -> None:
        self.length = self.left = length
        self.is_cut = False

    def of(self, value: object, level: int = 0) -> object:
        """Never raises, and looks at no more of the value than it shows."""
        if value is None or isinstance(value, (bool, int, float)):
            self.left -= 8
            return _Plain().value(value)
        if level > _LEVELS_SHOWN or self.left <= 0:
            self.is_cut = True
            return _CUT
        try:
            return self._text(value, level) if isinstance(value, str) else self._parts(value, level)
        except Exception:  # of the value's own code
            return f"<{type(value).__name__}>"

    def _text(self, value: str, level: int) -> str:
        room = max(0, min(self.left, self.length // 2 >> level))
        self.is_cut |= room < len(value)
        self.left -= min(room, len(value)) + 3  # quotes and comma
        return _clean(value if len(value) <= room else value[:room] + _CUT)

    def _parts(self, value: object, level: int) -> object:
        if (members := _members_of(value)) is not None:
            return {
                self._text(str(name), 0): self.of(member, level + 1) for name, member in self._some(members.items())
            }
        if (items := _items_of(value)) is not None:
            return [self.of(item, level + 1) for item in self._some(self._newest(items))]
        return self._text(_named(value), level)

    def _some(self, parts: Iterable[Any]) -> Iterator[Any]:
        for number, part in enumerate(parts):
            if number == _ITEMS_SHOWN or self.left <= 0:
                self.is_cut = True
                return
            yield part

    def _newest(self, items: Sequence[Any]) -> Sequence[Any]:
        if len(items) <= _MESSAGES_SHOWN or not _is_message(items[-1]):
            return items
        self.is_cut = True
        return items[-_MESSAGES_SHOWN:]


def _readable(length: int, /, **members: object) -> Members:
    """The members that are not None, as JSON of about `length` characters; `truncated` where they had more."""
    reading = _Reading(length)
    data = {name: reading.of(member) for name, member in members.items() if member is not None}
    return {**data, "truncated": True} if reading.is_cut else data


def _last_message(value: Any) -> Any:
    """The last message in what a node takes or gives, or None."""
    if type(value).__name__ == "Command":
        value = value.update
    value = value.get("messages", value) if isinstance(value, dict) else getattr(value, "messages", value)
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return value if _is_message(value) else None


def _summary(value: object, length: int) -> str:
    """What a value says in one short text: of messages the last, of anything else its JSON."""
    message = _last_message(value)
    if message is not None:
        tools = ", ".join(_text(call["tool"]) for call in _tool_calls(message))
        return (_content_text(message.content) or (f"calls {tools}" if tools else ""))[:length]
    shown = _Reading(length).of(value)
    if isinstance(shown, str):
        return shown
    return "" if shown is None else _encoded(shown).decode()[:length]


def _question(value: object) -> str:
    """What an interrupt asks a person, as a sentence."""
    asked = value.get("action_requests", value) if isinstance(value, dict) else value  # as LangChain's middleware asks
    all_asked = asked if isinstance(asked, list) else [asked]
    return " / ".join(filter(None, map(_asked_in, all_asked[:_ITEMS_SHOWN]))) or "The graph has paused"


def _asked_in(asked: object) -> str:
    if isinstance(asked, dict):
        asked = next((asked[name] for name in _ASKING_MEMBERS if _text(asked.get(name))), asked)
    return _summary(asked, _QUOTE_LENGTH)


def _resumed_by(value: object) -> Any:
    """The answer in what a graph is given; None where it is none."""
    return getattr(value, "resume", None) if type(value).__name__ == "Command" else None


def _error_members(error: BaseException) -> Members:
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    said = {"error": _text_of(error) or type(error).__name__, "errorType": type(error).__name__}
    return {**said, "rejected": _run_status(error) == "cancelled" or None, "traceback": lines[-_TRACEBACK_LINES:]}


def _run_status(error: BaseException) -> str:
    """The status of a run that ended so. LangGraph raises exceptions for what is no failure, too."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _PAUSING:
        return "paused"
    if kinds & _CANCELLING:
        return "cancelled"
    return "completed" if "GraphBubbleUp" in kinds else "failed"  # ParentCommand: it hands over to another node


# ---------------------------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------------------------


def _model_members(metadata: Members, parameters: Members, name: str) -> Members:
    tools = [tool.get("function", tool) for tool in parameters.get("tools") or [] if isinstance(tool, dict)]
    return {
        "name": name,
        "model": metadata.get("ls_model_name") or parameters.get("model") or parameters.get("model_name"),
        "provider": metadata.get("ls_provider"),
        "temperature": metadata.get("ls_temperature"),
        "maxTokens": metadata.get("ls_max_tokens"),
        "tools": [tool.get("name") for tool in tools] or None,
    }


def _usage(message: Any, output: Members) -> dict[str, int]:
    """Tokens; the input's include those that were read from a cache or written to it."""
    said = getattr(message, "usage_metadata", None) or output.get("token_usage") or output.get("usage")
    told = _members_of(said) or {}
    into, out_of = told.get("input_token_details") or {}, told.get("output_token_details") or {}
    counts = {
        "inputTokens": told.get("input_tokens", told.get("prompt_tokens")),
        "outputTokens": told.get("output_tokens", told.get("completion_tokens")),
        "totalTokens": told.get("total_tokens"),
        "cacheReadTokens": into.get("cache_read"),
        "cacheCreationTokens": into.get("cache_creation"),
        "reasoningTokens": out_of.get("reasoning"),
    }
    usage = {name: count for name, count in counts.items() if isinstance(count, int)}
    if usage:
        usage.setdefault("totalTokens", usage.get("inputTokens", 0) + usage.get("outputTokens", 0))
    return usage


def _result_members(response: Any) -> Members:
    generation = next((some[0] for some in response.generations if some), None)
    message = getattr(generation, "message", None)
    output = response.llm_output or {}
    about = {**output, **(getattr(generation, "generation_info", None) or {})}
    about.update(getattr(message, "response_metadata", None) or {})
    return {
        "model": about.get("model_name") or about.get("model"),
        "usage": _usage(message, output) or None,
        "finishReason": about.get("finish_reason") or about.get("stop_reason"),
        "toolCalls": _tool_calls(message) or None,
        "text": _content_text(getattr(message, "content", None)) or getattr(generation, "text", ""),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


class _Run:
    """One run of LangChain's that has begun: a graph, a node, a model, a tool, or one that makes no event."""

    def __init__(self, run_id: UUID, name: str, parent: _Run | None, options: Members, agent_id: str | None) -> None:
        metadata = options.get("metadata") or {}
        self.id = str(run_id)
        self.name = name
        self.root: _Run = parent.root if parent else self
        self.agent_id: str | None = parent.agent_id if parent else agent_id
        self.namespace: str = metadata.get("langgraph_checkpoint_ns") or (parent.namespace if parent else "")
        self.path: tuple[Any, ...] = tuple(metadata.get("langgraph_path") or ())
        self.is_node = (
            parent is not None
            and self.namespace != parent.namespace
            and "langsmith:hidden" not in (options.get("tags") or ())
        )
        self.thread = metadata.get("thread_id")
        self.asked: set[str] = set()  # of a graph: the interrupts by which it has paused
        self.goes_on = False  # of a graph: whether it does from where it has paused
        self.leaves_open = False  # and whether it is not known what was asked there
        self.steps: dict[str, Any] = {}  # of a graph: its first step, and those of the graphs inside
        self.attempts: dict[str, int] = {}
        self.step = metadata.get("langgraph_step")
        self.tool_use_id = ""
        self.call_id = self.id
        self.teller: object = None  # the handler that said that it has begun
        self.model: object = None
        self.provider: object = None
        self.begun = time.monotonic()

    def duration(self) -> int:
        """Milliseconds since it began."""
        return round((time.monotonic() - self.begun) * 1000)

    def is_first_again(self) -> bool:
        """Whether a node is the one at which its graph goes on: it may be known from another process."""
        step = self.root.steps.setdefault(self.namespace.rpartition("|")[0], self.step)
        return self.root.goes_on and step == self.step

    def name_call(self, tool_use_id: str | None) -> None:
        """By the task that it is called in, which has the same name when the graph is resumed, by whatever process."""
        self.tool_use_id = tool_use_id or self.id
        if not tool_use_id or not self.namespace:
            return
        key = f"{self.namespace} {tool_use_id}"
        attempt = self.root.attempts[key] = self.root.attempts.get(key, 0) + 1
        self.call_id = _digest(f"{key} {attempt}")

    def named(self, kind: str, *more: str) -> Members:
        """The id of an event that is to be one, however often the run is told of; {}: the run has no name."""
        return {} if self.call_id == self.id else {"eventId": "-".join([f"lg.{kind}", self.call_id, *more])}


def _worker_id(run: _Run) -> str:
    """The id of the agent that a node is, in each of its turns the same: the names of the nodes that it is inside of.

    What is sent to one node several times at once is numbered as LangGraph numbers it, so also when it is resumed.
    """
    sent = [str(run.path[1])] if run.path[:1] == ("__pregel_push",) and isinstance(run.path[1], int) else []
    named = ".".join([*filter(None, [run.agent_id]), run.name, *sent])
    return named if _is_id(named) else f"{_as_id(named, 'node')[: _ID_LENGTH // 2]}-{_digest(named)}"


def _run_name(serialized: Members | None, options: Members) -> str:
    serialized = serialized or {}
    return options.get("name") or serialized.get("name") or str((serialized.get("id") or ["run"])[-1])


def _call(run: _Run) -> Members:
    return {"runId": run.call_id, "toolUseId": run.tool_use_id, "tool": run.name}


def _ended_call(run: _Run) -> Members:
    return {**_call(run), "durationMs": run.duration()}


def _forget_oldest(kept: dict[Any, Any]) -> None:
    if len(kept) > _RUNS_KEPT:
        kept.pop(next(iter(kept)), None)


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """The callback, but whatever goes wrong in it stays out of the graph."""

    def guarded(*args: Any, **options: Any) -> None:
        try:
            callback(*args, **options)
        except _ToldAlready:
            pass
        except Exception:
            logger.debug("%s failed", callback.__name__, exc_info=True)

    return guarded


class _ToldAlready(Exception):
    """Of this run by another handler, or by this one, which was given twice."""


class _Graphs:
    """What is known of an agent's graphs, whichever handlers tell of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: dict[Any, _Run] = {}  # by their ids
        self.spawned: set[str] = set()  # agents that the store knows from here
        self.working: set[str] = set()
        self.paused: dict[str, tuple[str, Any]] = {}  # agents, and their threads, by the namespace of a node's turn
        self.waiting: dict[Any, dict[str, str | None]] = {}  # by thread: what was asked, and the agent that asked
        self.asks: dict[str, str] = {}  # by what was asked: the event that did
        self.step: str | None = None  # as last said
        self.model: object = None
        self.ended: Members | None = None  # how the session ends if nothing else happens; None: it does not
        self.is_ended_at_exit = False


def _is_interrupt_id(name: object) -> bool:
    return len(_text(name)) == 32 and set(_text(name)) <= set("0123456789abcdef")


def _graphs_of(agent: Any) -> _Graphs:
    graphs: _Graphs = vars(agent).setdefault("_graphs", _Graphs())
    return graphs


def _finalize_at_exit(agent: Any, process: int) -> None:
    """A program whose last graph has ended, and that has not ended its session, has ended like that graph."""
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    ended = _graphs_of(agent).ended
    if ended is not None and process == os.getpid() and not agent._is_finalized:
        agent.finalize(ended if error is None else _end_by(type(error), error))


# ---------------------------------------------------------------------------------------------------------------------
# Callbacks
# ---------------------------------------------------------------------------------------------------------------------


class _GraphLog:
    """LangChain's callbacks, as events of an agent's session; one for any number of runs, in any threads at once."""

    raise_error = False
    run_inline = True  # else an async graph waits for one of a pool's threads, each of which a tool may have

    def __init__(self, agent: Any, agent_id: str | None = None) -> None:
        super().__init__()
        self._agent = agent
        self._agent_id = agent_id
        self._graphs = _graphs_of(agent)

    # graphs and nodes

    @_guarded
    def on_chain_start(self, serialized: Members | None, inputs: object, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        if run.root is run:
            self._graph_begins(run, inputs)
        elif _resumed_by(inputs) is not None and not run.root.goes_on:  # a graph inside of a chain
            self._close(run.root, self._answered(run.root, inputs))
        if run.is_node:
            self._node_begins(run, inputs)

    @_guarded
    def on_chain_end(self, outputs: object, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        if run.is_node:
            self._node_ends(run, "completed", _summary(outputs, _RESULT_LENGTH))
        elif run.root is run:
            self._graph_ends(run, "paused" if run.asked else "completed", outputs)

    @_guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run, status = self._end(run_id), _run_status(error)
        if status == "paused" and run.root is not run:
            self._asks(run, error.args[0] if error.args else ())
        if run.is_node:
            handed_over = error.args[0] if status == "completed" and error.args else None
            self._node_ends(run, status, _summary(error if status == "failed" else handed_over, _RESULT_LENGTH))
        elif run.root is run:  # one that asks may be left at that, as by a loop over its stream
            self._graph_ends(run, "paused" if status == "cancelled" and run.asked else status, error)

    @_guarded
    def on_interrupt(self, event: Any) -> None:
        """Of LangGraph 1.2 and later: the only word of a breakpoint, which no node runs into."""
        run = self._graphs.runs.get(event.run_id)
        if run and (event.interrupts or not run.asked):
            self._asks(run, event.interrupts)

    def _graph_begins(self, run: _Run, inputs: object) -> None:
        self._graphs.ended = None
        run.goes_on = inputs is None
        closed = self._answered(run, inputs)
        said = _readable(_ENTRY_LENGTH, runId=run.id, graph=run.name, threadId=run.thread, input=inputs)
        if not closed and not self._graphs.waiting:  # as far as is known from here
            said["attention"] = None
        self._log("action", "graph_start", run, said)
        self._close(run, closed)
        self._graphs.step = None
        # The null makes room: the store merges objects, and the last output is no part of the next.
        self._record("state_updated", {"phase": "running", "currentStep": None, "output": None}, run)

    def _answered(self, graph: _Run, inputs: object) -> dict[str, str | None]:
        """What was asked on the graph's thread and is no question any more, now that it is given this."""
        answer, asked = _resumed_by(inputs), self._graphs.waiting.pop(graph.thread, {})
        graph.goes_on |= answer is not None
        if isinstance(answer, dict) and answer and all(map(_is_interrupt_id, answer)):  # to some of what was asked
            if left := {name: agent_id for name, agent_id in asked.items() if name not in answer}:
                self._graphs.waiting[graph.thread] = left
            return {name: asked.get(name) for name in answer}
        graph.leaves_open = graph.goes_on and not asked
        if not graph.goes_on:
            self._forget_paused(graph.thread)
        return asked

    def _forget_paused(self, thread: Any) -> None:
        """The turns of a thread that is given something new: nobody goes on with them."""
        with self._graphs.lock:
            paused = self._graphs.paused
            for namespace in [name for name, (_, its_thread) in paused.items() if its_thread == thread]:
                del paused[namespace]

    def _close(self, graph: _Run, asked: dict[str, str | None]) -> None:
        for name, agent_id in asked.items():
            said = {"type": "interrupt_closed", "runId": graph.id, "threadId": graph.thread, "attention": None}
            said.update({"attentionId": name} if name else {})  # else whatever the agent has asked
            self._agent._record("action", said, agent_id=agent_id or graph.agent_id)

    def _graph_ends(self, run: _Run, status: str, outcome: object) -> None:
        said: Members = {"runId": run.id, "graph": run.name, "status": status, "durationMs": run.duration()}
        state: Members = {"phase": status}
        if status == "completed":
            said["output"] = outcome
            output = _Reading(_OUTPUT_LENGTH)
            state.update(currentStep=None, output=output.of(outcome), outputTruncated=output.is_cut)
        if isinstance(outcome, BaseException) and status == "failed":
            said.update(_error_members(outcome))
        data = _readable(_ENTRY_LENGTH, **said)
        self._end_what_is_in(run)
        self._log("response", "graph_error" if status == "failed" else "graph_end", run, data)
        if status == "failed" and run.asked:  # with what it asked unanswered
            self._close(run, self._graphs.waiting.pop(run.thread, {}))
        self._record("state_updated", state, run)
        self._note_end(status)

    def _end_what_is_in(self, graph: _Run) -> None:
        """Of which no end was told: whoever reads a graph's stream may leave it at any point."""
        inside = [it for it in reversed(list(self._graphs.runs.items())) if it[1].root is graph]
        for run_id, run in inside:
            self._graphs.runs.pop(run_id, None)
            if run.is_node:
                self._node_ends(run, "cancelled", "")
            elif run.tool_use_id:
                self._returns(run, "error", error="cancelled with its graph", rejected=True)

    def _note_end(self, status: str) -> None:
        outcome = {"completed": "success"}.get(status, status)
        self._graphs.ended = None if status == "paused" or self._graphs.waiting else {"status": outcome}
        if not self._graphs.is_ended_at_exit:
            self._graphs.is_ended_at_exit = True
            atexit.register(_finalize_at_exit, self._agent, os.getpid())

    def _node_begins(self, run: _Run, inputs: object) -> None:
        parent = run.agent_id
        graphs = self._graphs
        with graphs.lock:
            paused, _ = graphs.paused.pop(run.namespace, ("", None))
            run.agent_id = self._free_id(paused or _worker_id(run))
            is_known = run.agent_id in graphs.spawned
            graphs.spawned.add(run.agent_id)
            graphs.working.add(run.agent_id)
        said = {"agentId": run.agent_id, "task": _summary(inputs, _TASK_LENGTH) or None, "status": "running"}
        is_again = run.is_first_again()
        if not is_known:
            more = {"parentAgentId": parent} if parent else {}
            turn = {"runId": run.id, "eventId": f"lg.turn-{_digest(run.namespace)}"}
            self._record("agent_spawned", {**said, "type": run.name, **more, **turn}, run)
        if is_known or is_again:
            self._record("agent_updated", {**said, "result": None}, run)
        if is_again and run.root.leaves_open:
            self._close(run, {"": run.agent_id})
        if graphs.step != run.name:
            graphs.step = run.name
            self._record("state_updated", {"currentStep": run.name}, run)

    def _node_ends(self, run: _Run, status: str, result: str) -> None:
        agent_id = run.agent_id or ""
        if status == "paused":
            self._record("agent_updated", {"agentId": agent_id, "status": status}, run)
        else:
            self._record("agent_completed", {"agentId": agent_id, "status": status, "result": result or None}, run)
        with self._graphs.lock:  # only now may another turn go by this id
            self._graphs.working.discard(agent_id)
            if status == "paused":
                self._graphs.paused[run.namespace] = (agent_id, run.root.thread)
                _forget_oldest(self._graphs.paused)

    def _free_id(self, agent_id: str) -> str:
        """The same node can be at work, or wait, twice at once, where two runs of a graph share a session."""
        taken = self._graphs.working | {paused for paused, _ in self._graphs.paused.values()}
        free, number = agent_id, 1
        while free in taken and number < _ITEMS_SHOWN:
            number += 1
            free = f"{agent_id[: _ID_LENGTH - 8]}-{number}"
        return free

    def _asks(self, run: _Run, interrupts: Any) -> None:
        """A person is waited for. What a node asks comes up through the graphs around it, but is asked once."""
        graph = run.root
        asked = {str(getattr(it, "id", None) or getattr(it, "interrupt_id", None) or it): it for it in interrupts}
        new = {name: it for name, it in asked.items() if name not in graph.asked}
        if not new and graph.asked:
            return
        graph.asked.update(new or {"breakpoint"})
        waiting = self._graphs.waiting.setdefault(graph.thread, {})
        _forget_oldest(self._graphs.waiting)
        for name, it in new.items():
            if name not in waiting:  # else it was asked before, and what was answered was something else
                self._ask(
                    run, name, _question(getattr(it, "value", it)), {"id": name, "value": getattr(it, "value", it)}
                )
        if not new:
            self._ask(run, f"breakpoint-{graph.thread}", f"{graph.name} has stopped at a breakpoint")

    def _ask(self, run: _Run, name: str, message: str, *interrupts: Members) -> None:
        graph = run.root
        self._graphs.waiting[graph.thread][name] = run.agent_id
        data = _readable(_ENTRY_LENGTH, runId=graph.id, threadId=graph.thread, interrupts=interrupts)
        data["attention"] = {"reason": "question", "message": message[:_QUOTE_LENGTH], "id": name}
        data["eventId"] = self._graphs.asks[name] = f"lg.ask-{os.urandom(_DIGEST_LENGTH // 2).hex()}"
        _forget_oldest(self._graphs.asks)
        self._log("action", "interrupt", run, data)

    # tools

    @_guarded
    def on_tool_start(self, serialized: Members | None, input_str: str, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        run.name_call(options.get("tool_call_id"))
        inputs = options.get("inputs")
        said = _readable(_ENTRY_LENGTH, **_call(run), input=input_str if inputs is None else inputs)
        self._log("action", "tool_call", run, {**said, **run.named("call")})

    @_guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        if _is_message(output) and getattr(output, "status", None) == "error":  # it told the model, and did not raise
            self._returns(run, "error", error=_content_text(output.content))
        else:
            self._returns(run, "result", output=output.content if _is_message(output) else output)

    @_guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run, status = self._end(run_id), _run_status(error)
        if status == "paused":  # it asks a person, and is called anew when the answer is there
            return
        if status == "completed":
            self._returns(run, "result", output=error.args[0] if error.args else None)
        else:
            self._returns(run, "error", **_error_members(error))

    def _returns(self, run: _Run, kind: str, **members: object) -> None:
        said = _readable(_ENTRY_LENGTH, **_ended_call(run), **members)
        self._log("response", f"tool_{kind}", run, {**said, **run.named("result", kind)})

    # models

    @_guarded
    def on_chat_model_start(
        self, serialized: Members | None, messages: list[list[Any]], *, run_id: UUID, **options: Any
    ) -> None:
        run = self._begin(run_id, serialized, options)
        self._model_called(run, "chat", options, [message for batch in messages for message in batch])

    @_guarded
    def on_llm_start(self, serialized: Members | None, prompts: list[str], *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        self._model_called(run, "text_completion", options, prompts)

    @_guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        result = _result_members(response)
        model = result.pop("model") or run.model
        self._say("response", "model_result", run, runId=run.id, model=model, durationMs=run.duration(), **result)
        self._count_tokens(run, model, result["usage"] or {})

    @_guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        said = {"runId": run.id, "model": run.model, "durationMs": run.duration(), **_error_members(error)}
        self._say("response", "model_error", run, **said)

    def _model_called(self, run: _Run, operation: str, options: Members, messages: list[Any]) -> None:
        about = _model_members(options.get("metadata") or {}, options.get("invocation_params") or {}, run.name)
        run.model, run.provider = about["model"], about["provider"]
        last = messages[-1] if messages else None
        said = {"runId": run.id, "operation": operation, **about, "messages": len(messages), "lastMessage": last}
        self._say("action", "model_call", run, **said)

    def _count_tokens(self, run: _Run, model: object, usage: dict[str, int]) -> None:
        """A row of the store's ledger, in which input is without cache."""
        if model and model != self._graphs.model:
            self._graphs.model = model
            self._record("metadata_updated", {"model": model}, run)
        if usage:
            read, written = usage.get("cacheReadTokens", 0), usage.get("cacheCreationTokens", 0)
            data = {
                "source": "langchain",
                "requestKey": run.id,
                "provider": run.provider,
                "model": model,
                "inputTokens": max(0, usage.get("inputTokens", 0) - read - written),
                "outputTokens": usage.get("outputTokens", 0),
                "cacheReadTokens": read,
                "cacheWriteTokens": written,
                "reasoningTokens": usage.get("reasoningTokens", 0),
            }
            self._record("usage_reported", {name: it for name, it in data.items() if it}, run)

    # retrievers, what a program says itself, agents of old

    @_guarded
    def on_retriever_start(self, serialized: Members | None, query: str, *, run_id: UUID, **options: Any) -> None:
        run = self._begin(run_id, serialized, options)
        self._say("action", "retriever_call", run, runId=run.id, retriever=run.name, query=query)

    @_guarded
    def on_retriever_end(self, documents: Any, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        found = [{"id": getattr(it, "id", None), "text": it.page_content, "metadata": it.metadata} for it in documents]
        said = {"runId": run.id, "retriever": run.name, "durationMs": run.duration(), "documents": found}
        self._say("response", "retriever_result", run, **said)

    @_guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **options: Any) -> None:
        run = self._end(run_id)
        said = {"runId": run.id, "retriever": run.name, "durationMs": run.duration(), **_error_members(error)}
        self._say("response", "retriever_error", run, **said)

    @_guarded
    def on_custom_event(self, name: str, data: object, *, run_id: UUID, **options: Any) -> None:
        self._say("action", "custom_event", self._told_here(run_id), name=name, data=data)

    @_guarded
    def on_agent_action(self, action: Any, *, run_id: UUID, **options: Any) -> None:
        said = {"tool": action.tool, "input": action.tool_input, "log": action.log}
        self._say("action", "agent_action", self._told_here(run_id), **said)

    @_guarded
    def on_agent_finish(self, finish: Any, *, run_id: UUID, **options: Any) -> None:
        self._say("response", "agent_finish", self._told_here(run_id), output=finish.return_values, log=finish.log)

    # what all of them need

    def _begin(self, run_id: UUID, serialized: Members | None, options: Members) -> _Run:
        """Raises _ToldAlready, as do the others that look for a run."""
        with self._graphs.lock:
            runs = self._graphs.runs
            if run_id in runs:
                raise _ToldAlready
            parent = runs.get(options.get("parent_run_id"))
            run = runs[run_id] = _Run(run_id, _run_name(serialized, options), parent, options, self._agent_id)
            run.teller = self
            _forget_oldest(runs)
        return run

    def _end(self, run_id: UUID) -> _Run:
        run = self._graphs.runs.pop(run_id, None)
        if run is None:
            raise _ToldAlready
        return run

    def _told_here(self, run_id: UUID) -> _Run | None:
        run = self._graphs.runs.get(run_id)
        if run is not None and run.teller is not self:
            raise _ToldAlready
        return run

    def _say(self, event_type: str, entry_type: str, run: _Run | None, /, **members: object) -> None:
        self._log(event_type, entry_type, run, _readable(_ENTRY_LENGTH, **members))

    def _log(self, event_type: str, entry_type: str, run: _Run | None, data: Members) -> None:
        self._record(event_type, {"type": entry_type, **data}, run)

    def _record(self, event_type: str, data: Members, run: _Run | None) -> None:
        self._agent._record(event_type, data, agent_id=run.agent_id if run else self._agent_id)


_handler_classes: list[Any] = []  # made when it is first asked for: importing LangChain takes most of a second


def handler_for(agent: Any, agent_id: str | None = None, control: bool = False) -> Any:
    """A callback handler that tells of all runs as the agent's. ImportError, if there is no LangChain."""
    if not _handler_classes:
        _handler_classes.append(type("SessionCallbackHandler", (_GraphLog, _callback_base()), {}))
    handler = _handler_classes[0](agent, _as_id(agent_id, "agent") if agent_id else None)
    if control:
        it = _beside("hook_agent_control_graph", "langchain_handler(control=True)").control_of(agent, handler)
        handler.invoke, handler.ainvoke, handler.run_control = it.invoke, it.ainvoke, it.run_control
    return handler


def _callback_base() -> type:
    try:
        from langchain_core.callbacks import BaseCallbackHandler
    except ImportError as error:
        raise ImportError("langchain_handler() needs LangChain: pip install langchain-core") from error
    try:
        from langgraph.callbacks import GraphCallbackHandler
    except ImportError:  # no LangGraph, or one before 1.2
        return BaseCallbackHandler
    return GraphCallbackHandler
