"""Events of all kinds, and odd ones, in several shards and a lake of theirs: what canned questions are asked of.

The same seed makes the same events. Their times are those of the last days, as questions look back from now.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from lake.sealer import open_store
from sessionstore.analytics.catalogue import views
from sessionstore.model.events import Draft, text_of_time
from sessionstore.store.appender import Appender
from sessionstore.store.schema import open_writer
from tests.lakes import seal

Json = dict[str, Any]
DAYS = 9
ODD = [
    "",
    "a\x00b",
    "日本 ñ \U0001f468\u200d\U0001f469",
    "it's \"so\" \\ 'here'",
    "=1+1",
    " Exit code 1\nno rule\nmore",
]
ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    7,
    -1.5,
    1e300,
    12345678901234567890,
    [1, {"a": None}],
    {"b": {"c": 1}},
    "{}",
]
TOOLS = ("Bash", "Edit", "Write", "Read", "mcp__hub__find")
ERRORS = (
    "Exit code 2\nundefined name x\nand more",
    "<tool_use_error>File has not been read yet</tool_use_error>",
    "The user doesn't want to proceed",
    "timeout: after 5 s",
)


class Teller:
    """What one shard is told."""

    def __init__(self, shard: str, seed: int) -> None:
        self.shard = shard
        self.dice = Random(seed)
        self.moment = datetime.now(UTC).timestamp() // 60 * 60 - DAYS * 86_400
        self.number = 0

    def draft(self, kind: str, session: str, data: Json, agent: str | None = None, **more: Any) -> Draft:
        """Now and then the agent was away for a while, or its clock is wrong."""
        self.number += 1
        self.moment += self.step
        late = self.dice.choice((0.05, 0.05, 0.05, 0.05, 400.0, -30.0))
        return Draft(
            type=kind,
            session_id=session,
            user_id=f"user-{int(session.rpartition('-')[2]) % 5}",
            event_id=f"{self.shard}-event-{self.number:06}",
            agent_id=agent,
            timestamp=text_of_time(self.moment - late),
            received_at=text_of_time(self.moment),
            data=data,
            **more,
        )

    def events(self, number: int) -> Iterator[Draft]:
        """Of sessions of which several go on at the same time."""
        self.step = round(DAYS * 86_400 * 0.99 / number, 3)
        going_on: list[Iterator[Draft]] = []
        sessions = 0
        for _ in range(number):
            while len(going_on) < 6:
                going_on.append(self.session(f"{self.shard}-{sessions}"))
                sessions += 1
            at = self.dice.randrange(len(going_on))
            while (event := next(going_on[at], None)) is None:
                going_on[at] = self.session(f"{self.shard}-{sessions}")
                sessions += 1
            yield event

    def session(self, name: str) -> Iterator[Draft]:
        dice = self.dice
        about = {"project": dice.choice(("alpha", "beta")), "title": dice.choice(ODD)} if dice.random() < 0.7 else {}
        model = {"model": dice.choice(("large-4", "small-2"))}
        first = {"initial": {"input": dice.choice([*ODD, "Build it"]), "config": model}, "tags": ["a", "b"]}
        if dice.random() < 0.3:
            first["parentSession"] = f"{self.shard}-{max(0, int(name.rpartition('-')[2]) - 6)}"
        yield self.draft("session_created", name, {**first, "metadata": about})
        yield self.draft("metadata_updated", name, {**about, "metrics": {"toolCalls": dice.choice((0, 3))}})
        for number in range(dice.randint(2, 7)):
            yield from self.turn(name, number)
        yield from self.ending(name)

    def turn(self, name: str, number: int) -> Iterator[Draft]:
        dice = self.dice
        prompt = dice.choice(["Please mend the Straße", "<command-name>/x</command-name>", *ODD])
        yield self.draft("action", name, {"type": "prompt", "prompt": prompt, "prompt_id": f"p{number}"})
        agent = f"agent-{number}" if dice.random() < 0.4 else None
        if agent:
            born = {"agentId": agent, "type": dice.choice(("explorer", "tester")), "task": dice.choice(ODD)}
            if dice.random() < 0.5 and number:
                born["parentAgentId"] = f"agent-{number - 1}"
            yield self.draft("agent_spawned", name, born)
        if dice.random() < 0.5:
            yield self.draft("goal_added", name, {"id": f"goal-{number}", "description": f"reach {number}"})
        for call in range(dice.randint(0, 6)):
            yield from self.call(name, agent, f"toolu-{name}-{number}-{call}", f"p{number}")
        yield from self.usage(name, agent, number)
        for odd in (self.odd, self.waiting, self.state):
            if dice.random() < 0.3:
                yield from odd(name, agent, number)
        if agent and dice.random() < 0.8:
            yield self.draft("agent_completed", name, {"agentId": agent, "result": dice.choice(ODD)})
        if dice.random() < 0.8:
            yield self.draft("response", name, {"type": "assistant_message", "message": dice.choice(ODD)})

    def call(self, name: str, agent: str | None, call: str, prompt: str) -> Iterator[Draft]:
        """Called, and mostly answered: not at all, twice, before it was called, or after it was called again."""
        dice = self.dice
        tool = dice.choice(TOOLS)
        given: Json = {"command": dice.choice(["make", *ODD])} if tool == "Bash" else {"file_path": f"src/{tool}.py"}
        run = {"runId": dice.choice(("r1", "r2"))} if dice.random() < 0.1 else {}
        called: Json = {
            "type": "tool_call",
            "tool": tool,
            "toolUseId": call,
            "input": given,
            "prompt_id": prompt,
            **run,
        }
        failed = dice.random() < 0.2
        came: Json = {"tool": tool, "toolUseId": call, **run} | (
            {"type": "tool_error", "error": dice.choice(ERRORS)}
            if failed
            else {"type": "tool_result", "output": dice.choice([*ODD, *ODD_VALUES])}
        )
        if dice.random() < 0.7:
            came["durationMs"] = dice.choice((0, 12, 250, 2.5, 90_000, -4))
        order = dice.choice(("cr", "cr", "cr", "cr", "cr", "c", "ccr", "rc", "crr", "ccrr", "crcr", "r", "rcc"))
        for step in order:
            yield self.draft("action" if step == "c" else "response", name, called if step == "c" else came, agent)
        if dice.random() < 0.05:
            yield self.draft("action", name, {"type": "tool_call", "tool": tool, "input": given}, agent)

    def usage(self, name: str, agent: str | None, number: int) -> Iterator[Draft]:
        dice = self.dice
        for source in dice.choice((["transcript"], ["transcript", "otlp_logs"], ["otlp_metrics"], ["otlp_spans"], [])):
            told: Json = {"source": source, "requestKey": f"{name}-{number}", "promptId": f"p{number}"}
            told |= {"model": dice.choice(("large-4", "small-2", None)), "inputTokens": dice.randrange(5000)}
            told |= {"outputTokens": dice.randrange(900), "cacheReadTokens": dice.randrange(9000)}
            if dice.random() < 0.8:
                told["costUsd"] = round(
                    dice.random(), 4
                )  # as answers are rounded: a sum of many is no half of the last digit
            told = {key: value for key, value in told.items() if value is not None}
            yield self.draft("usage_reported", name, told, agent)

    def odd(self, name: str, agent: str | None, number: int) -> Iterator[Draft]:
        """Values where nobody looks for such."""
        dice = self.dice
        kind = dice.choice(("file_write", "bash_exec", "note", "notification"))
        members = {key: dice.choice(ODD_VALUES) for key in ("lines", "status", "exitCode", "whatever")}
        said = {"path": dice.choice(ODD), "text": dice.choice(ODD), **members}
        yield self.draft("action", name, {"type": kind, **said}, agent)
        failed = {"type": "error", "errorDetails": dice.choice(ODD), "status": "failed"}
        yield self.draft("response", name, failed, agent)
        yield self.draft("note_added", name, {"text": dice.choice(ODD), "at": self.number})

    def waiting(self, name: str, agent: str | None, number: int) -> Iterator[Draft]:
        reason = self.dice.choice(("permission", "question", "input"))
        asks = {"reason": reason, "message": self.dice.choice(ODD), "id": f"ask-{number}"}
        yield self.draft("action", name, {"type": "permission_request", "tool": "Bash", "attention": asks}, agent)
        if self.dice.random() < 0.7:
            yield self.draft("action", name, {"type": "permission_answered", "attention": None}, agent)

    def state(self, name: str, agent: str | None, number: int) -> Iterator[Draft]:
        yield self.draft("state_updated", name, {"phase": self.dice.choice(ODD), "currentStep": f"step {number}"})
        if self.dice.random() < 0.5:
            yield self.draft("goal_updated", name, {"goalId": f"goal-{number}", "status": "completed"})
        if self.dice.random() < 0.1:
            yield self.draft("state_updated", name, {"goals": []})

    def ending(self, name: str) -> Iterator[Draft]:
        end = self.dice.choice(("completed", "failed", "cancelled", "lost", "deleted", "open", "open"))
        if end == "lost":
            yield self.draft("session_lost", name, {}, actor="store")
        elif end == "deleted":
            yield self.draft("session_deleted", name, {"reason": "person"})
            if self.dice.random() < 0.5:
                yield self.draft("session_created", name, {"initial": {"input": "again"}})
        elif end != "open":
            yield self.draft("session_finalized", name, {"status": end, "outcome": self.dice.choice(ODD)})


def tell(path: Path, shard: str, events: int, seed: int) -> None:
    """Make the database of a shard."""
    with closing(open_writer(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        appender = Appender(connection, clock=lambda: text_of_time(0), ids=iter(()), auto_create=True)
        appender.begin()
        for draft in Teller(shard, seed).events(events):
            appender.append(draft)
        appender.commit()


def seal_all(path: Path, url: str, shard: str) -> None:
    while seal(path, url, shard):
        pass


def together(paths: dict[str, Path]) -> sqlite3.Connection:
    """What the views of all shards say, in one database, for SQLite to answer the questions from."""
    joined = sqlite3.connect(":memory:", check_same_thread=False)
    for name, view in views().items():
        joined.execute(f"CREATE TABLE {name} ({', '.join(columns_of(name))})")
        for shard, path in paths.items():
            more = "".join(f", {RECEIVED}" for column in columns_of(name) if column not in {*view.columns, "shard"})
            with closing(open_store(path)) as database:
                rows = database.execute(f"SELECT v.*{more}, ? FROM {name} v", (shard,))
                joined.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns_of(name)))})", rows)
    joined.execute(FORGOTTEN)
    return joined


FORGOTTEN = """
UPDATE events SET (session_id, user_id, event_id, data) = (
  'forgotten-' || cursor, 'unknown', 'forgotten-' || cursor,
  json_object('sessionId', 'forgotten-' || cursor, 'reason', 'person', 'by', NULL))
WHERE type = 'session_deleted' AND data ->> '$.reason' = 'person'"""
"""In the lake the event that deletes a session does not name it."""
RECEIVED = "(SELECT e.received_at FROM main.events e WHERE e.cursor = v.cursor)"


def columns_of(name: str) -> list[str]:
    """As a lake has them, whose events are in order by when they came in."""
    columns = list(views()[name].columns)
    return [*columns, *(["received_at"] if name in ("actions", "responses", "tool_calls") else []), "shard"]
