/* The views of a lake: those of views.sql, with its names and columns, over the tables that every store seals into.

   Written in SQLite's words, and made into those of each engine (lake/dialects.py). Beyond views.sql they end with
   `shard`, the store that an event is of, and those of events with `received_on`, by whose days the tables are divided:
   a question that names days reads only these. Times are text, RFC 3339, UTC, as in views.sql. A `cursor` is the place
   of an event within its shard. Three functions are none of SQLite: rfc3339(time), seconds(later, earlier), epoch(text). */

/* What stands before that cursor of that session is not to be seen: the session is deleted, or has moved to another
   shard, which has all of it. */
CREATE VIEW deleted AS
SELECT in_shard, of_session, max(cursor) AS before
FROM (
  SELECT shard AS in_shard, session_id AS of_session, cursor FROM {deletions}
  UNION ALL
  SELECT e.shard AS in_shard, e.session_id AS of_session, e.cursor AS cursor
  FROM {events} e JOIN (SELECT DISTINCT shard AS there, session_id AS known FROM {sessions}) s ON s.known = e.session_id
  WHERE e.ends = '>' AND s.there <> e.shard) gone
GROUP BY in_shard, of_session;

/* What is not deleted. */
CREATE VIEW kept_events AS
SELECT e.*
FROM {events} e
LEFT JOIN deleted d ON d.in_shard = e.shard AND d.of_session = e.session_id
WHERE e.cursor >= coalesce(d.before, 0);

CREATE VIEW sessions AS
SELECT s.session_id AS session_id, s.user_id AS user_id, s.status AS status, s.input AS input, s.model AS model,
       s.phase AS phase, s.current_step AS current_step, s.waiting_for AS waiting_for,
       s.waiting_message AS waiting_message, rfc3339(s.waiting_since) AS waiting_since, rfc3339(s.created) AS created,
       rfc3339(s.updated) AS updated, rfc3339(s.ended) AS ended, s.duration_s AS duration_s, s.outcome AS outcome,
       s.actions AS actions, s.responses AS responses, s.tool_calls AS tool_calls, s.files_modified AS files_modified,
       s.bash_commands AS bash_commands, s.agents AS agents, s.goals AS goals, s.goals_completed AS goals_completed,
       s.tokens_input AS tokens_input, s.tokens_output AS tokens_output, s.cost_usd AS cost_usd, s.resumes AS resumes,
       s.tags AS tags, s.title AS title, s.project AS project, s.branch AS branch, s.host AS host, s.pinned AS pinned,
       s.parent_session AS parent_session, s.last_cursor AS last_cursor, s.shard AS shard
FROM {sessions} s
JOIN (SELECT shard, session_id, max(sealed) AS sealed FROM {sessions} GROUP BY shard, session_id) n
  ON n.shard = s.shard AND n.session_id = s.session_id AND n.sealed = s.sealed
LEFT JOIN deleted d ON d.in_shard = s.shard AND d.of_session = s.session_id
WHERE s.last_cursor > coalesce(d.before, 0);

CREATE VIEW events AS
SELECT e.cursor, e.type, e.kind, e.session_id, e.user_id, e.agent_id, e.seq, rfc3339(e.timestamp) AS timestamp,
       rfc3339(e.received_at) AS received_at, nullif(e.actor, '') AS actor,
       iif(e.received_at >= e.timestamp, seconds(e.received_at, e.timestamp), NULL) AS delay_s, e.failed, e.bytes,
       e.event_id, e.data, e.day AS received_on, e.shard
FROM kept_events e;

CREATE VIEW actions AS
SELECT e.cursor, e.session_id, e.user_id, e.agent_id, e.seq, e.kind, e.tool,
       coalesce(e.data ->> '$.path', e.data ->> '$.input.file_path', e.data ->> '$.input.notebook_path',
                e.data ->> '$.file_path') AS path,
       coalesce(e.data ->> '$.command', e.data ->> '$.input.command') AS command,
       coalesce(e.data ->> '$.prompt', e.data ->> '$.message', e.data ->> '$.text',
                e.data ->> '$.attention.message') AS text,
       e.machine_made, rfc3339(e.timestamp) AS timestamp, e.data, rfc3339(e.received_at) AS received_at,
       e.day AS received_on, e.shard
FROM kept_events e
WHERE e.type = 'action';

CREATE VIEW responses AS
SELECT e.cursor, e.session_id, e.user_id, e.agent_id, e.seq, e.kind, e.failed, e.rejected, e.tool,
       iif(e.duration_ms >= 0, e.duration_ms, NULL) AS duration_ms,
       coalesce(e.data ->> '$.error', e.data ->> '$.message', e.data ->> '$.text', e.data ->> '$.errorDetails') AS text,
       e.data ->> '$.output' AS output, rfc3339(e.timestamp) AS timestamp, e.data,
       rfc3339(e.received_at) AS received_at, e.day AS received_on, e.shard
FROM kept_events e
WHERE e.type = 'response';

/* Calls and results of one id and run are like parentheses: what closes a call is the next of its depth. A result that
   nothing has called, when it came first, is of the first call. */
CREATE VIEW returns AS
SELECT shard, session_id, cursor,
       coalesce(iif(next_kind <> 'tool_call', next_cursor, NULL),
                iif(first_kind <> 'tool_call' AND calls = 1, first_cursor, NULL)) AS result_cursor
FROM (
  SELECT shard, session_id, cursor, kind, calls, first_kind, first_cursor,
         lead(kind) OVER (PARTITION BY shard, session_id, tool_use_id, run, depth ORDER BY cursor) AS next_kind,
         lead(cursor) OVER (PARTITION BY shard, session_id, tool_use_id, run, depth ORDER BY cursor) AS next_cursor
  FROM (
    SELECT e.shard, e.session_id, e.cursor, e.kind, e.tool_use_id, coalesce(e.run_id, '') AS run,
           sum(iif(e.kind = 'tool_call', 1, -1)) OVER (
             PARTITION BY e.shard, e.session_id, e.tool_use_id, coalesce(e.run_id, '') ORDER BY e.cursor)
             + iif(e.kind = 'tool_call', 0, 1) AS depth,
           sum(iif(e.kind = 'tool_call', 1, 0)) OVER (
             PARTITION BY e.shard, e.session_id, e.tool_use_id, coalesce(e.run_id, '') ORDER BY e.cursor) AS calls,
           first_value(e.kind) OVER (
             PARTITION BY e.shard, e.session_id, e.tool_use_id, coalesce(e.run_id, '') ORDER BY e.cursor) AS first_kind,
           first_value(e.cursor) OVER (
             PARTITION BY e.shard, e.session_id, e.tool_use_id, coalesce(e.run_id, '') ORDER BY e.cursor)
             AS first_cursor
    FROM kept_events e
    WHERE e.kind IN ('tool_call', 'tool_result', 'tool_error') AND e.tool_use_id IS NOT NULL) ordered) closed
WHERE kind = 'tool_call';

CREATE VIEW tool_calls AS
SELECT c.cursor AS cursor, c.session_id AS session_id, c.user_id AS user_id, c.agent_id AS agent_id, c.tool AS tool,
       CASE WHEN r.cursor IS NOT NULL
              THEN CASE WHEN r.rejected = 1 THEN 'rejected' WHEN r.failed = 1 THEN 'failed' ELSE 'ok' END
            WHEN c.tool_use_id IS NULL THEN 'unknown'
            WHEN s.ended IS NOT NULL OR a.cursor > c.cursor OR o.cursor > c.cursor THEN 'cancelled'
            ELSE 'open' END AS outcome,
       coalesce(iif(r.duration_ms >= 0, r.duration_ms, NULL),
                iif(r.timestamp >= c.timestamp, round(seconds(r.timestamp, c.timestamp) * 1000), NULL)) AS duration_ms,
       rfc3339(c.timestamp) AS called, rfc3339(r.timestamp) AS returned,
       coalesce(c.data ->> '$.input.file_path', c.data ->> '$.input.notebook_path', c.data ->> '$.input.path') AS path,
       c.data ->> '$.input.command' AS command, c.data ->> '$.input' AS input, r.data ->> '$.error' AS error,
       r.data ->> '$.output' AS output, r.cursor AS result_cursor, rfc3339(c.received_at) AS received_at,
       c.day AS received_on, c.shard AS shard
FROM kept_events c
LEFT JOIN returns m ON m.shard = c.shard AND m.session_id = c.session_id AND m.cursor = c.cursor
LEFT JOIN (SELECT * FROM kept_events WHERE kind IN ('tool_result', 'tool_error')) r
  ON r.shard = m.shard AND r.session_id = m.session_id AND r.cursor = m.result_cursor
LEFT JOIN (SELECT shard, session_id, ends, max(cursor) AS cursor FROM kept_events
           WHERE ends IS NOT NULL GROUP BY shard, session_id, ends) o
  ON o.shard = c.shard AND o.session_id = c.session_id AND o.ends = coalesce(c.agent_id, '')
LEFT JOIN (SELECT shard, session_id, max(cursor) AS cursor FROM kept_events
           WHERE ends = '*' GROUP BY shard, session_id) a ON a.shard = c.shard AND a.session_id = c.session_id
LEFT JOIN (SELECT shard, session_id, ended FROM sessions) s ON s.shard = c.shard AND s.session_id = c.session_id
WHERE c.kind = 'tool_call' AND c.type = 'action';

/* The newest of what was sealed of each session's goals, agents and costs. */
CREATE VIEW newest_details AS
SELECT d.*
FROM {details} d
LEFT JOIN deleted x ON x.in_shard = d.shard AND x.of_session = d.session_id
JOIN (SELECT what AS of_what, shard AS in_shard, session_id AS of_session, max(sealed) AS newest FROM {details}
      WHERE what IN ('goals', 'agents', 'costs') GROUP BY what, shard, session_id) n
  ON n.of_what = d.what AND n.in_shard = d.shard AND n.of_session = d.session_id AND n.newest = d.sealed
WHERE d.what IN ('goals', 'agents', 'costs') AND d.sealed >= coalesce(x.before, 0);

CREATE VIEW goals AS
SELECT s.session_id AS session_id, s.user_id AS user_id, g.goal_id AS goal_id, g.position AS position,
       g.description AS description, g.priority AS priority, g.status AS status, g.completed_at AS completed_at,
       s.status AS session_status, g.record AS record, s.shard AS shard
FROM newest_details g JOIN sessions s ON s.shard = g.shard AND s.session_id = g.session_id
WHERE g.what = 'goals' AND s.goals > 0;

CREATE VIEW agents AS
SELECT s.session_id AS session_id, s.user_id AS user_id, a.agent_id AS agent_id, a.parent_agent_id AS parent_agent_id,
       a.position AS position, a.type AS type, a.task AS task,
       iif(s.ended IS NULL OR a.status IN ('completed', 'failed', 'cancelled'), a.status, 'cancelled') AS status,
       a.spawned_at AS spawned_at, a.completed_at AS completed_at, a.duration_s AS duration_s,
       a.subsession AS subsession, a.result AS result, a.record AS record, s.shard AS shard
FROM newest_details a JOIN sessions s ON s.shard = a.shard AND s.session_id = a.session_id
WHERE a.what = 'agents' AND s.agents > 0;

CREATE VIEW state_changes AS
SELECT e.cursor, e.session_id, e.user_id,
       coalesce(iif(e.type IN ('agent_spawned', 'agent_updated', 'agent_completed'), e.data ->> '$.agentId', NULL),
                e.agent_id) AS agent_id, e.type,
       CASE e.type WHEN 'goal_added' THEN e.data ->> '$.id' WHEN 'goal_updated' THEN e.data ->> '$.goalId' END
         AS goal_id,
       iif(e.type = 'state_updated', e.data ->> '$.phase', NULL) AS phase,
       iif(e.type = 'state_updated', e.data ->> '$.currentStep', NULL) AS current_step,
       iif(e.type <> 'state_updated', e.data ->> '$.status', NULL) AS status, e.patch,
       rfc3339(e.timestamp) AS timestamp, e.data, rfc3339(e.received_at) AS received_at, e.day AS received_on, e.shard
FROM kept_events e
WHERE e.type IN ('state_updated', 'goal_added', 'goal_updated', 'agent_spawned', 'agent_updated', 'agent_completed');

CREATE VIEW notes AS
SELECT e.cursor, e.session_id, e.user_id, e.data ->> '$.at' AS about, e.data ->> '$.text' AS text,
       nullif(e.actor, '') AS actor, rfc3339(e.timestamp) AS timestamp, e.data, rfc3339(e.received_at) AS received_at,
       e.day AS received_on, e.shard
FROM kept_events e
WHERE e.type = 'note_added';

CREATE VIEW minutes AS
SELECT m.minute AS minute, m.events AS events, m.shard AS shard
FROM {details} m
JOIN (SELECT shard, minute, max(sealed) AS sealed FROM {details} WHERE what = 'minutes' GROUP BY shard, minute) n
  ON n.shard = m.shard AND n.minute = m.minute AND n.sealed = m.sealed
WHERE m.what = 'minutes';

CREATE VIEW usage AS
SELECT u.at AS at, u.session_id AS session_id, s.user_id AS user_id, s.project AS project, u.agent_id AS agent_id,
       u.prompt_id AS prompt_id, u.provider AS provider, u.model AS model, u.source AS source,
       u.input_tokens AS input_tokens, u.output_tokens AS output_tokens, u.cache_read_tokens AS cache_read_tokens,
       u.cache_write_tokens AS cache_write_tokens, u.cache_write_1h_tokens AS cache_write_1h_tokens,
       u.reasoning_tokens AS reasoning_tokens, u.total_tokens AS total_tokens, u.cost_usd AS cost_usd,
       u.cost_from AS cost_from, u.request_key AS request_key, u.cursor AS cursor, u.shard AS shard
FROM {details} u
JOIN (SELECT shard, session_id, request_key, max(sealed) AS sealed FROM {details}
      WHERE what = 'usage' GROUP BY shard, session_id, request_key) n
  ON n.shard = u.shard AND n.session_id = u.session_id AND n.request_key = u.request_key AND n.sealed = u.sealed
JOIN sessions s ON s.shard = u.shard AND s.session_id = u.session_id
JOIN (SELECT DISTINCT shard, session_id, coalesce(agent_id, '') AS agent, family FROM newest_details
      WHERE what = 'costs') b
  ON b.shard = u.shard AND b.session_id = u.session_id AND b.agent = coalesce(u.agent_id, '') AND b.family = u.family
LEFT JOIN deleted x ON x.in_shard = u.shard AND x.of_session = u.session_id
WHERE u.what = 'usage' AND u.is_copy = 0 AND u.cursor >= coalesce(x.before, 0);

CREATE VIEW costs AS
SELECT c.at AS at, c.session_id AS session_id, s.user_id AS user_id, s.project AS project, c.agent_id AS agent_id,
       c.model AS model, c.requests AS requests, c.input_tokens AS input_tokens, c.output_tokens AS output_tokens,
       c.cache_read_tokens AS cache_read_tokens, c.cache_write_tokens AS cache_write_tokens, c.cost_usd AS cost_usd,
       c.cost_from AS cost_from, c.unpriced AS unpriced, c.shard AS shard
FROM newest_details c JOIN sessions s ON s.shard = c.shard AND s.session_id = c.session_id
WHERE c.what = 'costs';

/* What one session has to tell over all shards: an event that several have is told once. */
CREATE VIEW story AS
SELECT cursor, type, kind, session_id, user_id, agent_id, seq, timestamp, received_at, actor, delay_s, failed, bytes,
       event_id, data, received_on, shard
FROM (
  SELECT e.*, row_number() OVER (PARTITION BY e.session_id, e.event_id
                                 ORDER BY e.received_at, e.shard, e.cursor) AS telling FROM events e) told
WHERE telling = 1
ORDER BY received_at, shard, cursor;
