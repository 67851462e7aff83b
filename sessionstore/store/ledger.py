"""Queries of the usage ledger: what a session, a person, a project or a day has used, and what that cost."""

from __future__ import annotations

from typing import Literal

from sessionstore.model.problems import no_session
from sessionstore.store.reader import Reader

MOST = 1000
"""Items of one answer, the dearest first."""

By = Literal["user", "project", "model", "tag", "day", "month", "session"]

TOTAL_TOKENS = "input_tokens + output_tokens + cache_read_tokens + cache_write_tokens + cache_write_1h_tokens"
SUMS = {
    "requests": "requests",
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_tokens",
    "cacheWriteTokens": "cache_write_tokens",
    "cacheWrite1hTokens": "cache_write_1h_tokens",
    "reasoningTokens": "reasoning_tokens",
    "totalTokens": TOTAL_TOKENS,
    "unpricedRequests": "unpriced",
}
"""Members of an item, as SQL over a row of `usage_counted`."""
SUMMED = [*(column for column in SUMS.values() if column != TOTAL_TOKENS), "cost_usd"]
FIGURES = ", ".join(f"'{name}', coalesce(sum({column}), 0)" for name, column in SUMS.items()) + (
    ", 'costUsd', iif(max(is_priced), round(sum(cost_usd), 10), NULL)"
)

DEAREST = f"ORDER BY sum(cost_usd) DESC, sum(input_tokens + output_tokens) DESC LIMIT {MOST}"

OF_SESSION = "usage_counted WHERE session_id = ?"
REQUESTS_OF_SESSION = """(
  SELECT *, 1 AS requests, cost_from = 'unpriced' AS unpriced, cost_from <> 'unpriced' AS is_priced FROM usage u
  WHERE session_id = ? AND NOT is_copy AND EXISTS (
    SELECT 1 FROM usage_counted o
    WHERE o.session_id = u.session_id AND o.agent_id = coalesce(u.agent_id, '') AND o.family = u.family))"""
PARTS = {
    "byModel": ("model", "nullif(model, '')", OF_SESSION),
    "byAgent": ("agentId", "nullif(agent_id, '')", OF_SESSION),
    "byPrompt": ("promptId", "prompt_id", REQUESTS_OF_SESSION),
}
"""Parts of what one session has used: what an item is called by, that as SQL, and whence the rows come."""

KEYS: dict[By, str] = {
    "user": "s.user_id",
    "project": "l.project",
    "model": "nullif(u.model, '')",
    "tag": "t.tag",
    "day": "date(u.quarter * 900, 'unixepoch', 'localtime')",
    "month": "strftime('%Y-%m', u.quarter * 900, 'unixepoch', 'localtime')",
    "session": "u.session_id",
}
"""By what usage is asked for, as SQL; days and months are those of the server's time zone."""
JOINED: dict[By, str] = {
    "user": "JOIN sessions s USING (session_id)",
    "project": "JOIN labels l USING (session_id)",
    "tag": "JOIN tags t USING (session_id)",
}
IN_TIME = (
    "(:since IS NULL OR quarter >= unixepoch(:since) / 900)"
    " AND (:until IS NULL OR quarter < (unixepoch(:until) + 899) / 900)"
)
BY_SESSION = f"""(
  SELECT session_id, {", ".join(f"sum({column}) AS {column}" for column in SUMMED)}, max(is_priced) AS is_priced
  FROM usage_counted WHERE {IN_TIME} GROUP BY session_id) u"""
"""What depends on the session alone is looked up once for each."""


def joined_for(by: By | None) -> str:
    """What `usage_counted u` is joined with so that KEYS[by] is known."""
    return JOINED.get(by, "") if by else ""


def summed(name: str, key: str, rows: str) -> str:
    return f"SELECT json_object('{name}', {key}, {FIGURES}) FROM {rows} GROUP BY {key} {DEAREST}"


async def usage_of_session(reader: Reader, session_id: str) -> dict[str, str]:
    """The members of GET /api/sessions/ID/usage, each as JSON text. Raises Problem 404."""
    async with reader.snapshot() as connection:
        if not await connection.rows("SELECT 1 FROM sessions WHERE session_id = ?", (session_id,)):
            raise no_session(session_id)
        found = {
            member: array_of(await connection.rows(summed(*part), (session_id,))) for member, part in PARTS.items()
        }
        ((total,),) = await connection.rows(f"SELECT json_object({FIGURES}) FROM {OF_SESSION}", (session_id,))
    return found | {"total": total}


async def usage_by(reader: Reader, by: By, since: str | None, until: str | None) -> str:
    """The items of GET /api/query/usage as a JSON array, the dearest first; times count by the quarter of an hour."""
    rows = f"{BY_SESSION} {JOINED[by]}" if by in JOINED else f"usage_counted u WHERE {IN_TIME}"
    return array_of(await reader.rows(summed(by, KEYS[by], rows), {"since": since, "until": until}))


def array_of(rows: list[tuple[str]]) -> str:
    return f"[{','.join(row[0] for row in rows)}]"
