"""The Agent SDK's `SessionStore` in the session store: conversations are kept there, and resumed from any container.

One file, to be copied into the program's container. It needs claude-agent-sdk, and nothing else.

    from claude_session_store import SessionStorageStore
    options = ClaudeAgentOptions(session_store=SessionStorageStore(), resume=session_id)

    Wire      HTTP to the store, with patience while it is away
    Store     the SDK's methods, each a call of /api/transcripts
    Summary   what the SDK folds of a conversation, so that a list of many needs none of them whole

What an `append` could not deliver is kept, in memory, and goes before the next lines of that conversation: each batch
has a name, so the store holds it once, however often it is sent.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import urllib.parse
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import anyio.to_thread
from claude_agent_sdk import SessionStore, fold_session_summary
from claude_agent_sdk.types import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

logger = logging.getLogger("claude_session_store")

KEPT_BYTES = 64 << 20
"""Of what could not be delivered: what is beyond is refused, and the SDK says so."""
PATIENCE = 15.0
"""Seconds for which a call tries again while the store cannot be reached, or asks to come back later."""
MOST_FOLDS = 8
"""How often a summary is folded again because another program was quicker."""

Result = TypeVar("Result")

# ---------------------------------------------------------------------------------------------------------------------
# Wire (the same in langgraph_checkpointer.py)
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
# Store
# ---------------------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Entries under the name by which the store knows them again."""

    name: str
    entries: Sequence[Any]
    body: bytes


class SessionStorageStore(SessionStore):
    """Conversations in the session store at `url`. `prefix` stands before every project key.

    Where `url` and `token` are None, the environment says them, as it does for hook_agent.py: SESSION_SERVICE_URL,
    SESSION_TOKEN or SESSION_TOKEN_FILE; SESSION_ID, if set, is the session that the conversations belong to.
    """

    def __init__(self, url: str | None = None, token: str | None = None, prefix: str = "") -> None:
        self._wire = Wire(url, token)
        self._prefix = prefix
        self._locks: dict[str, threading.Lock] = {}
        self._waiting: dict[str, list[Batch]] = {}
        self._summaries: dict[str, Summary] = {}

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Raises StoreUnavailable, StoreRefused; the SDK then calls again, and nothing is doubled by it."""
        if entries:
            await beside(self._append, key, entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        return await beside(self._load, self._path(key))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        listed = await beside(self._listed, project_key, "")
        return [{"session_id": one["sessionId"], "mtime": one["mtime"]} for one in listed]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        listed = await beside(self._listed, project_key, "?summaries=1")
        return [
            {"session_id": one["sessionId"], "mtime": one["summaryMtime"], "data": one["summary"].get("data", {})}
            for one in listed
            if one["summary"] is not None
        ]

    async def delete(self, key: SessionKey) -> None:
        await beside(self._delete, self._path(key))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        path = self._path({"project_key": key["project_key"], "session_id": key["session_id"]})
        answer = await beside(self._wire.ask, "GET", f"{path}/subkeys")
        return [str(subpath) for subpath in answer.json()]

    # ---------------------------------------------------------------- the same, in a thread

    def _path(self, key: SessionKey) -> str:
        path = f"/api/transcripts/{quoted(self._prefix + key['project_key'])}/{quoted(key['session_id'])}"
        subpath = key.get("subpath")
        return path if subpath is None else f"{path}?subpath={quoted(subpath)}"

    def _append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        path = self._path(key)
        with self._locks.setdefault(path, threading.Lock()):
            waiting = self._waiting.setdefault(path, [])
            body = lines_of(entries)
            if not any(batch.body == body for batch in waiting):
                if sum(len(batch.body) for queue in list(self._waiting.values()) for batch in queue) > KEPT_BYTES:
                    raise StoreUnavailable(f"{KEPT_BYTES} bytes that could not be delivered wait already")
                waiting.append(Batch(uuid.uuid4().hex, list(entries), body))
            self._deliver(key, path, waiting)

    def _deliver(self, key: SessionKey, path: str, waiting: list[Batch]) -> None:
        """All that waits, in order. Raises StoreUnavailable, StoreRefused."""
        headers = {"Content_Type": "application/x-ndjson"}
        if session_id := os.environ.get("SESSION_ID"):
            headers["X_Session_Id"] = session_id
        while waiting:
            batch = waiting[0]
            try:
                answer = self._wire.ask("POST", path, batch.body, Idempotency_Key=batch.name, **headers)
                if answer.status >= 400:
                    raise StoreRefused(answer.status, answer.detail())
            except StoreRefused as refusal:
                if refusal.status in (409, 413, 422):  # which it would be for ever
                    del waiting[0]
                raise
            del waiting[0]
            if key.get("subpath") is None:
                self._summarize(key, path, batch.entries, answer.json()["lines"])

    def _load(self, path: str) -> list[Any] | None:
        answer = self._wire.ask("GET", path)
        return None if answer.status == 404 else entries_in(answer.body)

    def _listed(self, project_key: str, query: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._wire.ask(
            "GET", f"/api/transcripts/{quoted(self._prefix + project_key)}{query}"
        ).json()
        return listed

    def _delete(self, path: str) -> None:
        with self._locks.setdefault(path, threading.Lock()):
            self._waiting.pop(path, None)
            self._summaries.pop(path, None)
            self._wire.ask("DELETE", path)

    # ------------------------------------------------------------------------------- Summary

    def _summarize(self, key: SessionKey, path: str, entries: Sequence[Any], total: int) -> None:
        """Fold entries that are kept, the last of `total` lines. That it does not succeed is made up for by a later
        one: a summary says how many lines are in it."""
        try:
            for _ in range(MOST_FOLDS):
                before = self._summaries.get(path) or self._summary(path)
                if before.lines >= total or self._put(key, path, before, entries, total):
                    return
        except (StoreUnavailable, StoreRefused) as error:
            logger.warning("The summary of a conversation is behind: %s", error)
        self._summaries.pop(path, None)

    def _summary(self, path: str) -> Summary:
        answer = self._wire.ask("GET", f"{path}/summary")
        version = answer.headers.get("etag", '"0"')
        document = answer.json() if answer.status == 200 else {}
        return Summary(document.get("data"), int(document.get("lines", 0)), version)

    def _put(self, key: SessionKey, path: str, before: Summary, entries: Sequence[Any], total: int) -> bool:
        """False: another program was quicker."""
        previous = before.data
        if before.lines + len(entries) != total:  # there are others between
            answer = self._wire.ask("GET", path)
            previous, entries, total = None, entries_in(answer.body), int(answer.headers.get("x-lines", 0))
        known: Any = previous and {"session_id": key["session_id"], "mtime": 0, "data": previous}
        data = fold_session_summary(known, key, list(entries))["data"]
        body = json.dumps({"data": data, "lines": total}).encode()
        headers = {"If_Match": before.version, "Content_Type": "application/json"}
        answer = self._wire.ask("PUT", f"{path}/summary", body, **headers)
        if answer.status != 200:
            self._summaries.pop(path, None)
            return False
        self._summaries[path] = Summary(data, total, answer.headers["etag"])
        return True


class Summary(NamedTuple):
    """What was folded of the first `lines` of a conversation, and the version of it in the store."""

    data: dict[str, Any] | None
    lines: int
    version: str


async def beside(work: Callable[..., Result], *arguments: Any) -> Result:
    """On a thread, so that the program goes on; one that is given up ends by itself."""
    return await anyio.to_thread.run_sync(lambda: work(*arguments), abandon_on_cancel=True)


def lines_of(entries: Sequence[Any]) -> bytes:
    """ASCII, so that half a surrogate pair, which is no UTF-8, is kept as well."""
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def entries_in(body: bytes) -> list[Any]:
    """The entries of a conversation; a line that is none, as of a file that was cut, is left out."""
    return [entry for line in body.split(b"\n") if (entry := entry_in(line)) is not None]


def entry_in(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        return entry if isinstance(entry, dict) else None
    return None
