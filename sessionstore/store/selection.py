"""Selecting sessions: what is asked for as SQL, so that it is answered from indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


def conditions(*terms: tuple[str, Any]) -> tuple[str, list[Any]]:
    """The terms that have a value, joined by AND, and their values."""
    given = [(term, value) for term, value in terms if value is not None]
    values: list[Any] = []
    for _, value in given:
        values.extend(value if isinstance(value, list) else [value])
    return " AND ".join(term for term, _ in given) or "1", values


def one_of(column: str, names: Iterable[str]) -> tuple[str, list[str] | None]:
    wanted = list(names)
    return f"{column} IN ({', '.join('?' for _ in wanted)})", wanted or None


def either(*filters: tuple[str, Sequence[str]]) -> tuple[str, list[str]]:
    """What matches any of the filters that name something; all, where none does."""
    given = [one_of(column, names) for column, names in filters if names]
    values = [name for _, names in given for name in names or ()]
    return f"({' OR '.join(term for term, _ in given) or '1'})", values


# ------------------------------------------------------------ which sessions


class Which(NamedTuple):
    """Which sessions are looked for; None: any. `since` and `until`: those that went on at some time between them."""

    statuses: Sequence[str] = ()
    user_id: str | None = None
    tag: str | None = None
    parent: str | None = None
    origin: str | None = None
    text: str | None = None
    session_ids: Sequence[str] = ()
    project: str | None = None
    branch: str | None = None
    host: str | None = None
    is_pinned: bool | None = None
    since: str | None = None
    until: str | None = None

    def terms(self, counts: Sequence[int] = ()) -> Iterator[tuple[str, Any]]:
        """The conditions on a session s; `counts`: how many have each of the labels, up to COMMON."""
        yield one_of("s.status", self.statuses)
        yield one_of("s.session_id", self.session_ids)
        yield "s.user_id = ?", self.user_id
        yield "s.parent_session = ?", self.parent
        yield "s.updated >= ?", self.since
        yield "s.created < ?", self.until
        rarest = min(counts, default=COMMON)
        for number, (table, column, value) in enumerate(self.labels()):
            if rarest < COMMON and counts[number] == rarest:
                yield f"s.session_id IN (SELECT session_id FROM {table} WHERE {column} = ?)", value
            else:
                yield f"EXISTS (SELECT 1 FROM {table} l WHERE l.session_id = s.session_id AND l.{column} = ?)", value
        is_pinned = "s.session_id IN (SELECT session_id FROM labels WHERE is_pinned)"
        yield f"{'' if self.is_pinned else 'NOT '}{is_pinned}", None if self.is_pinned is None else []
        in_metadata = "SELECT 1 FROM metadata m WHERE m.session_id = s.session_id"
        yield f"EXISTS ({in_metadata} AND instr(lower(m.document), lower(?)))", self.text

    def labels(self) -> list[tuple[str, str, str]]:
        """Those that are asked for: the table, the column, the value."""
        named = [("tags", "tag", self.tag)]
        named += [("labels", column, getattr(self, column)) for column in ("project", "branch", "host", "origin")]
        return [(table, column, value) for table, column, value in named if value is not None]

    def counted(self) -> tuple[str, list[str]]:
        """A query for how many sessions have each of the labels, up to COMMON."""
        labels = self.labels()
        each = (f"(SELECT count(*) FROM (SELECT 1 FROM {t} WHERE {c} = ? LIMIT {COMMON}))" for t, c, _ in labels)
        return f"SELECT {', '.join(each)}", [value for _, _, value in labels]


# --------------------------------------------------------- what is said of them

DETAILS = """
substr(m.document, 1, length(m.document) - 1) || ',' || substr(json_object(
  'lastPrompt', coalesce(
     (SELECT substr(coalesce(p.data ->> '$.prompt', p.data ->> '$.text', p.data ->> '$.content'), 1, 300)
      FROM events p WHERE p.session_id = s.session_id AND p.type = 'action' AND p.kind = 'prompt'
        AND p.seq > s.actions - 200 AND NOT (SELECT is_machine_made FROM words w WHERE w.cursor = p.cursor)
      ORDER BY p.seq DESC LIMIT 1),
     (SELECT iif(json_type(i.document, '$.input') = 'text', substr(i.document ->> '$.input', 1, 300), NULL)
      FROM documents i WHERE i.session_id = s.session_id AND i.name = 'initial')),
  'lastAction', (SELECT json_object('type', a.kind, 'tool', a.data ->> '$.tool', 'text', substr(coalesce(
        a.data ->> '$.input.description', a.data ->> '$.input.command', a.data ->> '$.input.file_path',
        a.data ->> '$.input.pattern', a.data ->> '$.input.url', a.data ->> '$.input.query', a.data ->> '$.path',
        a.data ->> '$.command', a.data ->> '$.text', a.data ->> '$.message'), 1, 300))
      FROM events a WHERE a.session_id = s.session_id AND a.type = 'action' AND a.seq > s.actions - 50
        AND a.kind NOT IN ('prompt', 'message_display', 'notification', 'post_tool_batch', 'instructions_loaded')
      ORDER BY a.seq DESC LIMIT 1),
  'end', iif(s.status IN ('failed', 'cancelled'), (
     SELECT json_object('outcome', f.data -> '$.outcome', 'reason', f.data -> '$.reason',
       'exitCode', f.data -> '$.exitCode', 'error', coalesce(substr(f.data ->> '$.error', 1, 300), (
        SELECT substr(coalesce(x.data ->> '$.message', x.data ->> '$.errorDetails', x.data ->> '$.error'), 1, 300)
        FROM events x WHERE x.session_id = s.session_id AND x.type = 'response' AND x.kind = 'error'
          AND x.seq > s.responses - 5 ORDER BY x.seq DESC LIMIT 1)))
     FROM events f WHERE f.session_id = s.session_id AND f.seq IS NULL AND f.type = 'session_finalized'
     ORDER BY f.cursor DESC LIMIT 1), NULL),
  'errors', (SELECT count(*) FROM events x WHERE x.session_id = s.session_id AND x.type = 'response'
     AND x.seq > s.responses - 50 AND x.kind IN ('tool_error', 'error')
     AND NOT (SELECT is_rejected FROM verdicts v WHERE v.cursor = x.cursor)),
  'goalsCompleted', (SELECT count(*) FROM goals g WHERE g.session_id = s.session_id AND g.status = 'completed'),
  'agentsActive', (SELECT count(*) FROM agents w WHERE w.session_id = s.session_id
                   AND s.ended IS NULL AND w.status NOT IN ('completed', 'failed', 'cancelled')),
  'lastNote', (SELECT substr(n.data ->> '$.text', 1, 300) FROM events n INDEXED BY events_of_notes
     WHERE n.session_id = s.session_id AND n.type = 'note_added' AND n.cursor > s.created_cursor
     ORDER BY n.cursor DESC LIMIT 1)), 2)"""
"""The metadata of a session (s, and m in the view) and what it is at. What was long ago is not looked for."""

COMMON = 500
"""Of sessions that have a label: more are soon found among the newest changes, fewer are looked for one by one."""
ALONG_CHANGES = "INDEXED BY sessions_by_change"

SESSIONS = """
SELECT {what}, s.last_cursor
FROM (SELECT s.session_id AS chosen, s.last_cursor AS place FROM sessions s {index} WHERE {where}
      ORDER BY place DESC LIMIT ?)
CROSS JOIN sessions s ON s.session_id = chosen CROSS JOIN metadata m ON m.session_id = chosen ORDER BY place DESC"""
"""Which they are is settled first, of what indexes have: their documents are made after that."""

ACTIVE = f"""
SELECT {DETAILS}
FROM (SELECT session_id, row_number() OVER (
        ORDER BY status = 'waiting' DESC,
                 iif(status = 'waiting', (SELECT since FROM attention a WHERE a.session_id = o.session_id), NULL),
                 last_cursor DESC) AS place
      FROM sessions o WHERE status IN ('active', 'waiting') ORDER BY place LIMIT :limit) chosen
CROSS JOIN sessions s ON s.session_id = chosen.session_id
CROSS JOIN metadata m ON m.session_id = s.session_id ORDER BY chosen.place"""
"""Which they are is settled first, so that only those that are shown are looked into."""

BY_LABEL = "labels l ON l.session_id = s.session_id"
GROUPED = {
    "project": ("l.project", BY_LABEL),
    "user": ("s.user_id", BY_LABEL),
    "branch": ("l.branch", BY_LABEL),
    "host": ("l.host", BY_LABEL),
    "tag": ("t.tag", "tags t ON t.session_id = s.session_id"),
}
"""By what sessions are grouped: the key, and the table that has it."""
MOST_GROUPS = 1000


def groups(by: str, where: str) -> str:
    """How many sessions each has, by status, those with the most trouble first; the key is null for what has none."""
    key, table = GROUPED[by]
    return f"""
SELECT json_object('key', key, 'sessions', count(*), 'active', sum(status = 'active'),
                   'waiting', sum(status = 'waiting'), 'failed', sum(status = 'failed'), 'lost', sum(status = 'lost'),
                   'costUsd', round(sum(cost), 10))
FROM (SELECT {key} AS key, s.status,
             (SELECT sum(u.cost_usd) FROM usage_counted u WHERE u.session_id = s.session_id AND u.is_priced) AS cost
      FROM sessions s NOT INDEXED LEFT JOIN {table} WHERE {where})
GROUP BY key
ORDER BY sum(status IN ('failed', 'lost')) DESC, sum(status = 'waiting') DESC, sum(status = 'active') DESC,
         count(*) DESC, key LIMIT {MOST_GROUPS}"""
