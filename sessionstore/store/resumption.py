"""Resumption: the state that a new container is given, completed by what the log knows.

An agent that never says its state, as Claude Code by its hooks, still tells where it is, which files it writes, what
goes wrong and what it answers. That stands in the state where the agent itself has said nothing; what nobody said stays
as it is. The state itself is not changed by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sessionstore.model.folds import NEW_STATE, Document, decode, encode

LOOKED_AT = 5_000
"""Of the newest actions, and of the newest responses."""
MOST_FILES, MOST_ERRORS = 500, 10
ERROR_LENGTH = 2_000

FILES = f"""
SELECT path, max(is_new) FROM (
  SELECT c.cursor, coalesce(c.data ->> '$.input.file_path', c.data ->> '$.input.notebook_path',
                            c.data ->> '$.path') AS path, coalesce(r.data ->> '$.output.type' = 'create', 0) AS is_new
  FROM events c LEFT JOIN events r
    ON r.session_id = c.session_id AND r.kind IN ('tool_call', 'tool_result', 'tool_error')
   AND r.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND r.kind = 'tool_result'
  WHERE c.session_id = :id AND c.type = 'action'
    AND c.seq > (SELECT actions FROM sessions WHERE session_id = :id) - {LOOKED_AT}
    AND (c.kind IN ('file_write', 'file_edit')
         OR c.kind = 'tool_call' AND c.data ->> '$.tool' IN ('Write', 'Edit', 'MultiEdit', 'NotebookEdit')
            AND r.cursor IS NOT NULL))
WHERE typeof(path) = 'text' GROUP BY path ORDER BY max(cursor) DESC LIMIT {MOST_FILES}"""
"""What was written, the last first, and whether it was new; a call counts once its result is there."""

ERRORS = f"""
SELECT json_object('timestamp', e.timestamp, 'type', e.kind, 'tool', e.data ->> '$.tool', 'agentId', e.agent_id,
         'cursor', e.cursor, 'message', substr(coalesce(e.data ->> '$.error', e.data ->> '$.message',
                                                        e.data ->> '$.errorDetails', ''), 1, {ERROR_LENGTH}))
FROM events e WHERE e.session_id = :id AND e.type = 'response'
  AND e.seq > (SELECT responses FROM sessions WHERE session_id = :id) - {LOOKED_AT}
  AND (SELECT is_failed FROM verdicts v WHERE v.cursor = e.cursor)
ORDER BY e.seq DESC LIMIT {MOST_ERRORS}"""

KNOWN = """
SELECT (SELECT message FROM last_words WHERE session_id = :id),
       EXISTS (SELECT 1 FROM events e WHERE e.session_id = :id AND e.seq IS NULL AND e.type = 'state_updated')"""


def completed(state: str, metadata: str, files: Iterable[Any], errors: Iterable[Any], known: Any) -> str:
    """The state with what is known besides; `known`: the last answer, and whether anybody has ever said a state."""
    answer, is_said = known
    document, where = decode(state), decode(metadata).get("where")
    workspace = document.get("workspace", {})
    paths = [(path, is_new) for path, is_new in reversed(list(files))]
    found = place(where if isinstance(where, dict) else {}) | {
        "filesCreated": [path for path, is_new in paths if is_new],
        "filesModified": [path for path, is_new in paths if not is_new],
    }
    if isinstance(workspace, dict):
        document["workspace"] = laid_under(workspace, found, decode(NEW_STATE)["workspace"], is_said)
    said = {"errors": [decode(error) for (error,) in reversed(list(errors))]}
    if answer is not None:
        said["lastAnswer"] = decode(answer)
    return encode(laid_under(document, said, {"errors": []}, is_said))


def place(where: Document) -> Document:
    """The members of a workspace that say where it is."""
    checkout = {name: where[name] for name in ("repository", "branch", "commit") if where.get(name)}
    return {name: it for name, it in (("cwd", where.get("cwd")), ("gitStatus", checkout)) if it}


def laid_under(owner: Document, found: Document, untouched: Document, is_said: bool) -> Document:
    """What is found where the owner has nothing, or only what it began with."""
    return owner | {
        name: value
        for name, value in found.items()
        if value and (not is_said or name not in owner or owner[name] == untouched.get(name))
    }
