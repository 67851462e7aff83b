"""Delegation: which call of the Agent tool a sub-agent is of, so that it has that call's task.

Claude Code says that a sub-agent starts, and of what type it is; what it is to do stands in a call just before. The
result of the call will name the agent; until then the oldest call that fits, and that no other agent is of, is its own.
"""

from __future__ import annotations

import sqlite3

from sessionstore.model.folds import Document

LOOKED_AT = 200
"""Of the newest actions of a session, among which the call is."""

CALL = f"""
SELECT c.data ->> '$.input.description', c.data ->> '$.toolUseId'
FROM (SELECT e.cursor, e.kind, e.data FROM events e
      WHERE e.session_id = :session AND e.type = 'action'
        AND e.seq > (SELECT actions FROM sessions WHERE session_id = :session) - {LOOKED_AT}) c
LEFT JOIN events r ON r.session_id = :session AND r.kind IN ('tool_call', 'tool_result', 'tool_error')
  AND r.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND r.kind <> 'tool_call'
WHERE c.kind = 'tool_call' AND c.data ->> '$.tool' IN ('Agent', 'Task')
  AND json_type(c.data, '$.input.description') = 'text' AND json_type(c.data, '$.toolUseId') = 'text'
  AND coalesce(c.data ->> '$.input.subagent_type', :type) = :type
  AND (r.cursor IS NULL OR r.data ->> '$.output.agentId' = :agent)
  AND NOT EXISTS (SELECT 1 FROM agents a
                  WHERE a.session_id = :session AND a.record ->> '$.toolUseId' = c.data ->> '$.toolUseId')
ORDER BY r.cursor IS NULL, c.cursor LIMIT 1"""


def found(database: sqlite3.Connection, session_id: str, agent: Document) -> Document:
    """The `task` and the `toolUseId` of an agent that starts; nothing where no call fits."""
    about = {"session": session_id, "type": agent.get("type"), "agent": agent.get("agentId")}
    row = database.execute(CALL, about).fetchone()
    return {"task": row[0], "toolUseId": row[1]} if row else {}
