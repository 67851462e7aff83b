"""Costs made anew by the prices of today: an event for each request whose cost is another, and none for any other."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from sessionstore.admin.offline import appending
from sessionstore.admin.served import NotServed, Served, served
from sessionstore.model.events import STORE, Draft
from sessionstore.model.folds import Document, decode
from sessionstore.prices import MEMBERS, Prices, TokenCounts, is_sum_in, table
from sessionstore.settings import Settings
from sessionstore.store.appender import Appender
from sessionstore.store.owner import CannotStart

AT_ONCE = 500
"""Events of one transaction."""

ROWS = """
SELECT u.session_id, u.cursor, u.cost_usd, u.cost_from, json_object(
         'source', u.source, 'requestKey', u.request_key, 'messageId', u.message_id, 'provider', u.provider,
         'model', u.model, 'agentId', u.agent_id, 'promptId', u.prompt_id, 'inputTokens', u.input_tokens,
         'outputTokens', u.output_tokens, 'cacheReadTokens', u.cache_read_tokens,
         'cacheWriteTokens', u.cache_write_tokens, 'cacheWrite1hTokens', u.cache_write_1h_tokens,
         'reasoningTokens', u.reasoning_tokens, 'speed', e.data -> '$.speed',
         'hasRequestId', e.data -> '$.hasRequestId', 'at', u.at)
FROM usage u JOIN events e ON e.cursor = u.cursor
WHERE u.cost_from <> 'reported'"""
"""Of the ledger what no client has priced."""


@dataclass
class Change:
    """What requests of a model cost, in US dollars; what has no price is not in it."""

    requests: int = 0
    before: float = 0.0
    after: float = 0.0


@dataclass
class Changes:
    """What a reprice has found."""

    looked_at: int = 0
    by_model: dict[str, Change] = field(default_factory=dict)
    unpriced: Counter[str] = field(default_factory=Counter)
    """Requests that nobody can price, by model."""

    @property
    def changed(self) -> int:
        return sum(change.requests for change in self.by_model.values())


def reprice(
    settings: Settings, database: sqlite3.Connection, url: str | None, progress: Callable[[int], None]
) -> Changes:
    """Tell of the costs that are others than those in the ledger. Raises NotServed, Unsound."""
    changes = Changes()
    drafts = changed_costs(database, Prices(settings.prices), changes, progress)
    try:
        with appending(settings) as appender:
            for part in parts(drafts):
                append(appender, part)
    except CannotStart:
        with served(settings, url) as server:
            for part in parts(drafts):
                send(server, part)
    return changes


def parts(drafts: Iterator[Draft]) -> Iterator[list[Draft]]:
    while part := list(islice(drafts, AT_ONCE)):
        yield part


def append(appender: Appender, part: list[Draft]) -> None:
    appender.begin()
    for draft in part:
        appender.append(draft)
    appender.commit()


def send(server: Served, part: list[Draft]) -> None:
    """Raises NotServed."""
    body = b"\n".join(msgspec.json.encode(line_of(draft)) for draft in part)
    status, said = server.ask("POST", "/api/events", body, "application/x-ndjson")
    if status != 200 or said["rejectedTotal"]:
        raise NotServed(f"The server does not take what it costs now: {said.get('detail') or said['rejected'][0]}")


def changed_costs(
    database: sqlite3.Connection, prices: Prices, changes: Changes, progress: Callable[[int], None]
) -> Iterator[Draft]:
    for session_id, cursor, usd, source, text in database.execute(ROWS):
        changes.looked_at += 1
        progress(changes.looked_at)
        report: Document = {name: value for name, value in decode(text).items() if value is not None}
        model = str(report.get("model") or "no model named")
        price = prices.of(
            TokenCounts(*(report[member] for member in MEMBERS)),
            report.get("model"),
            provider=report.get("provider"),
            at=report["at"],
            speed=report.get("speed"),
            is_sum=is_sum_in(report),
        )
        if price.usd is None:
            changes.unpriced[model] += 1
        if (price.usd, price.source) == (usd, source):
            continue
        change = changes.by_model.setdefault(model, Change())
        change.requests += 1
        change.before += usd or 0.0
        change.after += price.usd or 0.0
        told = {"costUsd": price.usd, "costFrom": price.source, "priceTable": price.table}
        yield Draft(
            type="usage_reported",
            session_id=session_id,
            event_id=f"reprice-{cursor}",
            timestamp=report["at"],
            actor=STORE,
            agent_id=report.get("agentId"),
            data=report | {name: value for name, value in told.items() if value is not None},
        )


def line_of(draft: Draft) -> Document:
    return {
        "type": draft.type,
        "sessionId": draft.session_id,
        "eventId": draft.event_id,
        "timestamp": draft.timestamp,
        "data": draft.data,
    }


def dollars(usd: float) -> str:
    return f"${usd:,.4f}"


def tables() -> str:
    return f"SESSIONS_PRICES and {table()}"
