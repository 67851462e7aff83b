"""The status of an end, from what was said in the session: the facts that an end's event is completed by.

Claude Code's SessionEnd says that a conversation is over, and not what became of it. The store looks at the last words
of the main agent: an error is a failure; a prompt without an answer, an open ask or an open call a cancellation.
"""

from __future__ import annotations

import sqlite3

from sessionstore.model.folds import DONE, Document, decode

LOOKED_AT = 5_000
"""Entries of a session among which its last words are looked for, the newest."""
OUTCOME_LENGTH = 2_000
STATUSES = {"completed": "success", "failed": "failed", "cancelled": "cancelled"}
"""What the end is called that brought a session to a status."""

STANDING = """
SELECT s.status, f.document ->> '$.outcome', EXISTS (SELECT 1 FROM asks a
       WHERE a.session_id = s.session_id AND a.reason <> 'input'),
  (SELECT e.cursor FROM events e WHERE e.session_id = s.session_id AND e.seq IS NULL AND e.type = 'session_finalized'
   ORDER BY e.cursor DESC LIMIT 1)
FROM sessions s LEFT JOIN documents f ON f.session_id = s.session_id AND f.name = 'final' WHERE s.session_id = ?"""
LAST_WORD = f"""
SELECT cursor, kind, data FROM (
  SELECT cursor, kind, data, agent_id FROM events
  WHERE session_id = ?1 AND seq IS NOT NULL
    AND cursor >= (SELECT created_cursor FROM sessions s WHERE s.session_id = ?1)
  ORDER BY cursor DESC LIMIT {LOOKED_AT}) e
WHERE agent_id IS NULL
  AND (kind IN ('assistant_message', 'error', 'graph_error')
       OR kind = 'prompt' AND NOT (SELECT is_machine_made FROM words w WHERE w.cursor = e.cursor))
ORDER BY cursor DESC LIMIT 1"""
OPEN_CALL = f"""
SELECT 1 FROM (
  SELECT cursor, kind, data, agent_id FROM events WHERE session_id = ?1 AND seq IS NOT NULL AND cursor > ?2
  ORDER BY cursor DESC LIMIT {LOOKED_AT}) c
WHERE kind = 'tool_call' AND agent_id IS NULL AND data ->> '$.toolUseId' IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM events r
                  WHERE r.session_id = ?1 AND r.kind IN ('tool_result', 'tool_error') AND r.cursor > ?2
                    AND r.data ->> '$.toolUseId' = c.data ->> '$.toolUseId') LIMIT 1"""
AT_WORK = f"""
SELECT agent_id FROM agents
WHERE session_id = ? AND status NOT IN ({", ".join(f"'{status}'" for status in DONE)}) ORDER BY position"""
CLEARED = """
SELECT s.session_id, m.document ->> '$.cwd', m.document ->> '$.transcript_path', (
  SELECT e.data FROM events e WHERE e.session_id = s.session_id AND e.seq IS NULL AND e.type = 'session_finalized'
  ORDER BY e.cursor DESC LIMIT 1)
FROM sessions s CROSS JOIN documents m ON m.session_id = s.session_id AND m.name = 'metadata'
WHERE s.ended BETWEEN strftime('%Y-%m-%dT%H:%M:%fZ', ?1, '-60 seconds')
                  AND strftime('%Y-%m-%dT%H:%M:%fZ', ?1, '+1 second')
  AND s.user_id = ?2 AND s.session_id <> ?3 ORDER BY s.ended DESC, s.last_cursor DESC LIMIT 100"""


def is_undecided(end: Document) -> bool:
    """Whether an end leaves it to the store what became of the session."""
    return end.get("hook_event_name") == "SessionEnd" and "status" not in end


def decided(database: sqlite3.Connection, session_id: str, end: Document) -> Document:
    """What became of a session that ends now: its `status`, and the `outcome` where it failed."""
    if error := end.get("error"):
        return {"status": "failed", "outcome": end.get("outcome") or text_of(error)}
    status, outcome, has_open_ask, ended_at = database.execute(STANDING, (session_id,)).fetchone()
    last = database.execute(LAST_WORD, (session_id,)).fetchone()
    cursor, kind, data = last or (0, None, "{}")
    if status in DONE and cursor < (ended_at or 0):  # nothing was said since it ended before
        return {"status": STATUSES[status], **({"outcome": outcome} if outcome else {})}
    if kind in ("error", "graph_error"):
        return {"status": "failed", "outcome": error_in(decode(data))}
    is_cut_short = kind == "prompt" or has_open_ask or database.execute(OPEN_CALL, (session_id, cursor)).fetchone()
    return {"status": "cancelled" if is_cut_short else "success"}


def error_in(entry: Document) -> str:
    """What an error says, in the most telling of its members."""
    for name in ("message", "error", "errorDetails", "text"):
        if entry.get(name):
            return text_of(entry[name])
    return "error"


def text_of(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("message") or value.get("text") or value
    return str(value)[:OUTCOME_LENGTH]


def agents_at_work(database: sqlite3.Connection, session_id: str) -> list[str]:
    return [agent_id for (agent_id,) in database.execute(AT_WORK, (session_id,))]


def cleared_before(
    database: sqlite3.Connection, session_id: str, user_id: str, moment: str, start: Document
) -> str | None:
    """The session of the same user and folder that was just cleared, so that this one goes on in its place."""
    for found, cwd, transcript, end in database.execute(CLEARED, (moment, user_id, session_id)):
        said = decode(end) if end else {}
        there, transcripts = said.get("cwd") or cwd, said.get("transcript_path") or transcript
        if said.get("reason") == "clear" and (
            is_same_folder(start.get("cwd"), there)
            or is_same_folder(folder_of(start.get("transcript_path")), folder_of(transcripts))
        ):
            return str(found)
    return None


def is_same_folder(one: object, other: object) -> bool:
    return isinstance(one, str) and one != "" and one == other


def folder_of(path: object) -> str:
    return path.rpartition("/")[0] if isinstance(path, str) else ""
