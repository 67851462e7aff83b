"""LangGraph's `BaseCheckpointSaver` in the session store: a graph that was killed goes on in any other container.

One file, to be copied into the program's container. It needs langgraph, and nothing else.

    from langgraph_checkpointer import SessionStoreSaver
    graph = builder.compile(checkpointer=SessionStoreSaver())
    graph.invoke(None, {"configurable": {"thread_id": "1"}})     # goes on; `durability="sync"` leaves no step behind

    Wire      HTTP to the store, with patience while it is away
    Saver     LangGraph's methods, each a call of /api/checkpoints
    Lines     what is sent and what comes back

The store keeps what it is given as bytes and reads none of it. Whoever may write there decides what your program reads:
set LANGGRAPH_STRICT_MSGPACK=true, so that it makes no objects but those that you name.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import random
import time
import urllib.parse
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

PATIENCE = 60.0
"""Seconds for which a call tries again while the store cannot be reached, or asks to come back later."""
PAGE = 50
"""Checkpoints that are asked for at once."""

# ---------------------------------------------------------------------------------------------------------------------
# Wire (the same in claude_session_store.py)
# ---------------------------------------------------------------------------------------------------------------------

ANSWER_SECONDS = 30.0
PAUSES = (0.05, 0.1, 0.2, 0.4)
LATER = frozenset({408, 429, 500, 502, 503, 504})


class StoreUnavailable(ConnectionError):
    """The store could not be reached in time, or takes nothing now."""


class StoreRefused(Exception):
    """The store does not take or give this, now or later: `status`, and why in its own words."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def detail(self) -> str:
        with suppress(ValueError):
            document = json.loads(self.body)
            if isinstance(document, dict):
                return str(document.get("detail"))
        return self.body[:200].decode(errors="replace")


class Wire:
    """Calls of the store, from any number of threads. Each may be repeated: the store takes what it has as done."""

    def __init__(self, url: str | None, token: str | None) -> None:
        self.idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, close_all, self.idle)
        self.url = urllib.parse.urlsplit(url or os.environ.get("SESSION_SERVICE_URL") or "http://localhost:9000")
        if "," in self.url.geturl():
            raise ValueError("SESSION_SERVICE_URL lists several stores, and this takes one: name it with url=")
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise ValueError(f"{url!r} is not an http or https URL")
        self.own_token = token

    def token(self) -> str:
        """As it is now: a file may get a new one at any time."""
        if token := self.own_token or os.environ.get("SESSION_TOKEN"):
            return token
        with suppress(OSError, ValueError), open(os.environ.get("SESSION_TOKEN_FILE", ""), encoding="utf-8") as file:
            return file.read().strip()
        return ""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """The answer, a good one or a 404 or 412. Raises StoreUnavailable, StoreRefused."""
        if path.partition("?")[0].endswith("/") or "//" in path:
            raise StoreRefused(422, "a name is empty")
        until, attempt = time.monotonic() + PATIENCE, 0
        while True:
            pause = PAUSES[min(attempt, len(PAUSES) - 1)]
            try:
                answer = self.asked(method, path, body, headers)
                if answer.status not in LATER:
                    break
                trouble = f"{answer.status}: {answer.detail()}"
                pause = max(pause, min(2.0, float(answer.headers.get("retry-after") or 0)))
            except (OSError, http.client.HTTPException) as error:
                trouble = str(error) or type(error).__name__
            if time.monotonic() + pause > until:
                raise StoreUnavailable(f"{self.url.geturl()}: {trouble}")
            time.sleep(pause)
            attempt += 1
        if answer.status < 300 or answer.status in (404, 412):
            return answer
        raise StoreRefused(answer.status, answer.detail())

    def asked(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """One attempt. A connection that has been closed meanwhile is opened again."""
        connection = self.idle.pop() if self.idle else None
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token := self.token():
            given["Authorization"] = f"Bearer {token}"
        if connection is not None:
            with suppress(OSError, http.client.HTTPException):
                return self.exchanged(connection, method, path, body, given)
        return self.exchanged(self.connected(), method, path, body, given)

    def exchanged(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, given: dict[str, str]
    ) -> Answer:
        try:
            connection.request(method, self.url.path.rstrip("/") + path, body, given)
            response = connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self.idle.append(connection)
        return answer

    def connected(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        return kind(str(self.url.hostname), self.url.port, timeout=ANSWER_SECONDS)


def close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def quoted(text: str) -> str:
    """A name as a part of a path: all but letters, digits, _ and - is encoded, dots included."""
    return urllib.parse.quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


# ---------------------------------------------------------------------------------------------------------------------
# Saver
# ---------------------------------------------------------------------------------------------------------------------


class SessionStoreSaver(BaseCheckpointSaver[str]):
    """Checkpoints in the session store at `url`; for programs with and without an event loop.

    Where `url` and `token` are None, the environment says them, as it does for hook_agent.py: SESSION_SERVICE_URL,
    SESSION_TOKEN or SESSION_TOKEN_FILE; SESSION_ID, if set, is the session that the threads belong to. The methods
    raise StoreUnavailable and StoreRefused: a graph does not go on from what is not kept.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, serde: Any = None) -> None:
        super().__init__(serde=serde)
        self._wire = Wire(url, token)

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """Rises, and is another in each branch of a thread."""
        if current is None or isinstance(current, int):
            return f"{(current or 0) + 1:08d}.{random.getrandbits(40):010x}"
        number = current.partition(".")[0]
        return f"{int(number) + 1:0{len(number)}d}.{random.getrandbits(40):010x}"

    # ------------------------------------------------------------------------------------ writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread, ns, parent = place_of(config)
        values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        bare: dict[str, Any] = {
            name: value for name, value in checkpoint.items() if name not in ("channel_values", "channel_versions")
        }
        kept = get_checkpoint_metadata(config, metadata)
        lines: list[dict[str, Any]] = [
            {"value": {"ns": ns, "channel": channel, "version": version, "value": self._typed(values[channel])}}
            for channel, version in new_versions.items()
            if channel in values
        ]
        step: dict[str, Any] = {"ns": ns, "id": checkpoint["id"], "parent": parent, "versions": versions}
        step |= {"checkpoint": self._typed(bare), "metadata": self._typed(kept), "about": about(kept)}
        self._send(thread, [*lines, {"checkpoint": step}])
        return config_of(thread, ns, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread, ns, checkpoint = place_of(config)
        place = {"ns": ns, "checkpoint": checkpoint, "task": task_id, "path": task_path}
        numbered = [(WRITES_IDX_MAP.get(channel, at), channel, value) for at, (channel, value) in enumerate(writes)]
        if numbered:
            self._send(
                thread,
                [
                    {"write": {**place, "number": number, "channel": channel, "value": self._typed(value)}}
                    for number, channel, value in numbered
                ],
            )

    def _typed(self, value: Any) -> dict[str, str]:
        kind, data = self.serde.dumps_typed(value)
        return {"type": kind, "data": base64.b64encode(data).decode()}

    def _send(self, thread: str, lines: Sequence[Mapping[str, Any]]) -> None:
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self._call("POST", f"/api/checkpoints/{quoted(thread)}", body, Content_Type="application/x-ndjson")

    def _call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Raises StoreUnavailable, StoreRefused; a 404 is an answer where something is read or deleted."""
        if session_id := os.environ.get("SESSION_ID"):
            headers["X_Session_Id"] = session_id
        answer = self._wire.ask(method, path, body, **headers)
        if answer.status >= 400 and method == "POST" and "/prune" not in path:
            raise StoreRefused(answer.status, answer.detail())
        return answer

    # ------------------------------------------------------------------------------------ reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread, ns, checkpoint = place_of(config)
        chosen = {"ns": ns, "limit": "1"} | ({"id": checkpoint} if checkpoint else {})
        return next(iter(self._read(thread, chosen)), None)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        found = (one for page in self._pages(config, before, limit, filter) for one in page)
        for number, one in enumerate(one for one in found if fits(one, filter)):
            if limit is not None and number >= limit:
                return
            yield one

    def _pages(
        self,
        config: RunnableConfig | None,
        before: RunnableConfig | None,
        limit: int | None,
        filter: dict[str, Any] | None,
    ) -> Iterator[Sequence[CheckpointTuple]]:
        size = PAGE if limit is None or filter else max(1, min(PAGE, limit))
        for thread in self._threads() if config is None else [config["configurable"]["thread_id"]]:
            place = {} if config is None else config["configurable"]
            chosen = {"limit": str(size)}
            if place.get("checkpoint_ns") is not None:
                chosen["ns"] = place["checkpoint_ns"]
            if place.get("checkpoint_id"):
                chosen["id"] = place["checkpoint_id"]
            if before and (until := get_checkpoint_id(before)):
                chosen["before"] = until
            while True:
                yield (page := self._read(thread, chosen))
                if len(page) < size:
                    break
                chosen["before"] = page[-1].config["configurable"]["checkpoint_id"]

    def _threads(self) -> Iterator[str]:
        after = ""
        while after is not None:
            page = self._call("GET", f"/api/checkpoints?after={quoted(after)}").json()
            yield from (one["thread"] for one in page["items"])
            after = page["nextAfter"]

    def _read(self, thread: str, chosen: Mapping[str, str]) -> Sequence[CheckpointTuple]:
        query = "&".join(f"{name}={quoted(value)}" for name, value in chosen.items())
        answer = self._call("GET", f"/api/checkpoints/{quoted(thread)}?{query}")
        return [] if answer.status == 404 else list(self._tuples(thread, answer.body))

    def _tuples(self, thread: str, body: bytes) -> Iterator[CheckpointTuple]:
        values: dict[int, tuple[str, bytes]] = {}
        for line in map(json.loads, filter(None, body.split(b"\n"))):
            if "value" in line:
                values[line["value"]["number"]] = typed(line["value"])
            else:
                yield self._tuple(thread, line["checkpoint"], values)

    def _tuple(self, thread: str, step: dict[str, Any], values: Mapping[int, tuple[str, bytes]]) -> CheckpointTuple:
        load, ns = self.serde.loads_typed, step["ns"]
        channels = {channel: load(values[number]) for channel, number in step["values"].items()}
        checkpoint = load(typed(step["checkpoint"]))
        checkpoint |= {"channel_values": channels, "channel_versions": step["versions"]}
        return CheckpointTuple(
            config_of(thread, ns, step["id"]),
            checkpoint,
            load(typed(step["metadata"])),
            config_of(thread, ns, step["parent"]) if step["parent"] else None,
            [(task, channel, load(values[value])) for task, channel, _, _, value in step["writes"]],
        )

    # ------------------------------------------------------------------ deleting, copying, pruning

    def delete_thread(self, thread_id: str) -> None:
        self._call("DELETE", f"/api/checkpoints/{quoted(thread_id)}")

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self._call("DELETE", f"/api/checkpoints?runId={quoted(run_id)}")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Costs no more than its steps: values are shared."""
        body = json.dumps({"to": target_thread_id}).encode()
        path = f"/api/checkpoints/{quoted(source_thread_id)}/copy"
        answer = self._wire.ask("POST", path, body, Content_Type="application/json")
        if answer.status == 404 and self.get_tuple(config_of(source_thread_id, "", "")) is not None:
            raise StoreRefused(answer.status, answer.detail())

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the newest checkpoint of each namespace, with those before it that a delta channel is rebuilt from."""
        for thread in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread)
            elif strategy == "keep_latest":
                self._keep_latest(thread)
            else:
                raise ValueError(f"the strategy is keep_latest or delete, not {strategy!r}")

    def _keep_latest(self, thread: str) -> None:
        keep = {ns: self._chain(thread, ns) for ns in self._namespaces(thread)}
        if keep:
            body = json.dumps({"keep": keep}).encode()
            self._call("POST", f"/api/checkpoints/{quoted(thread)}/prune", body, Content_Type="application/json")

    def _namespaces(self, thread: str) -> set[str]:
        found: set[str] = set()
        before: str | None = ""
        while before is not None:
            query = f"?limit=1000&before={quoted(before)}" if before else "?limit=1000"
            answer = self._call("GET", f"/api/checkpoints/{quoted(thread)}/steps{query}")
            if answer.status == 404:
                break
            page = answer.json()
            found |= {step["ns"] for step in page["items"]}
            before = page["nextBefore"]
        return found

    def _chain(self, thread: str, ns: str) -> Sequence[str]:
        """The newest checkpoint, and its ancestors up to where each delta channel has its value whole."""
        one = self.get_tuple(config_of(thread, ns, ""))
        missing: set[str] = set((one.metadata.get("counters_since_delta_snapshot") or {}) if one else {})
        chain: list[str] = []
        while one is not None:
            chain.append(one.checkpoint["id"])
            missing -= one.checkpoint["channel_values"].keys()
            one = self.get_tuple(one.parent_config) if missing and one.parent_config else None
        return chain

    # ---------------------------------------------------------------- the same with an event loop

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (one := await asyncio.to_thread(next, found, None)) is not None:
            yield one

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(lambda: self.prune(thread_ids, strategy=strategy))


# ---------------------------------------------------------------------------------------------------------------------
# Lines
# ---------------------------------------------------------------------------------------------------------------------


def place_of(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Its thread, namespace, and checkpoint, if it names one."""
    place = config["configurable"]
    return str(place["thread_id"]), place.get("checkpoint_ns") or "", get_checkpoint_id(config) or None


def config_of(thread: str, ns: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint}}


def about(metadata: CheckpointMetadata) -> dict[str, Any]:
    """What of it people may read: the simple parts."""
    simple = {name: value for name, value in metadata.items() if isinstance(value, str | int | bool) or value is None}
    return {name: whole(value) if isinstance(value, str) else value for name, value in simple.items()}


def whole(text: str) -> str:
    """Without half a surrogate pair, which no other program could read."""
    return text.encode(errors="replace").decode()


def typed(value: Mapping[str, Any]) -> tuple[str, bytes]:
    return value["type"], base64.b64decode(value["data"])


def fits(one: CheckpointTuple, filter: Mapping[str, Any] | None) -> bool:
    return all(one.metadata.get(name) == value for name, value in (filter or {}).items())
