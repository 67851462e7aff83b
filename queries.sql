/* Questions that are asked often, over the views of views.sql; /datasette/sessions/NAME answers each, NAME.json and
   NAME.csv for programs. The comment above each is its NAME, a colon, its title, and what to know about it. The names
   stay: others link to them. A parameter may be left empty. Where a question could have to read everything, it looks
   at the newest so many instead, and says so, so that it takes the same with ten million events as with thousands. */

/* sessions-by-day: Sessions by user and day
   How many sessions each user began, and what became of them. `user`: only theirs; `days`: so far back (30). */
SELECT substr(created, 1, 10) AS day, user_id, count(*) AS sessions,
       sum(status = 'completed') AS completed, sum(status = 'failed') AS failed, sum(status = 'cancelled') AS cancelled,
       sum(status = 'lost') AS lost, sum(status IN ('active', 'waiting')) AS going_on,
       sum(tool_calls) AS tool_calls, round(sum(duration_s) / 3600, 2) AS hours
FROM sessions
WHERE created >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
  AND user_id = coalesce(nullif(:user, ''), user_id)
GROUP BY day, user_id
ORDER BY day DESC, sessions DESC;

/* longest-sessions: Longest sessions
   From the beginning to the end, or to the newest event. `user`: only theirs. */
SELECT session_id, user_id, status, duration_s, created, ended, actions, responses, tool_calls, agents, phase, input
FROM sessions
WHERE user_id = coalesce(nullif(:user, ''), user_id)
ORDER BY duration_s DESC, session_id
LIMIT 100;

/* lost-sessions: Sessions that were lost
   Nothing has been heard of them for long: what they were doing, and their last word. */
SELECT s.session_id, s.user_id, s.updated AS last_heard, s.phase, s.current_step, s.actions, e.cursor, e.type, e.kind,
       substr(e.data, 1, 300) AS last_word
FROM sessions s
LEFT JOIN events e ON e.cursor = (
  SELECT max(w.cursor) FROM events w
  WHERE w.session_id = s.session_id AND w.type NOT IN ('session_lost', 'metadata_updated'))
WHERE s.status = 'lost'
ORDER BY s.last_cursor DESC
LIMIT 100;

/* waiting-sessions: Who waits for a person now
   Those that have waited longest first. */
SELECT session_id, user_id, waiting_for, waiting_message, waiting_since,
       iif(julianday(waiting_since) <= julianday('now'),
           round((julianday('now') - julianday(waiting_since)) * 1440, 1), NULL) AS minutes
FROM sessions
WHERE status = 'waiting'
ORDER BY waiting_since;

/* longest-waits: Sessions that waited longest for a person
   From a word that asks for a person to the next that does not; a wait that goes on lasts until now. Among the newest
   `newest` actions and responses (10000). */
WITH said AS (
  SELECT cursor, session_id, agent_id, timestamp,
         iif(instr(data, '"attention":{') > 0 AND json_type(data, '$.attention') = 'object', 1, 0) AS asks,
         data ->> '$.attention.reason' AS reason
  FROM events
  WHERE type IN ('action', 'response')
  ORDER BY cursor DESC
  LIMIT coalesce(nullif(:newest, ''), 10000)
), turns AS (
  SELECT *, asks - lag(asks, 1, 0) OVER (PARTITION BY session_id ORDER BY cursor) AS turn
  FROM said
), waits AS (
  SELECT session_id, cursor, reason, turn, timestamp AS since,
         lead(timestamp) OVER (PARTITION BY session_id ORDER BY cursor) AS until
  FROM turns
  WHERE turn <> 0
), lasted AS (
  SELECT w.session_id AS session_id, w.cursor AS cursor, w.reason AS reason,
         (julianday(coalesce(w.until, iif(s.status = 'waiting', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), s.ended)))
          - julianday(w.since)) * 1440 AS minutes
  FROM waits w JOIN sessions s ON s.session_id = w.session_id
  WHERE w.turn = 1
)
SELECT s.session_id AS session_id, s.user_id AS user_id, s.status AS status, count(*) AS waits, round(sum(l.minutes), 1) AS minutes,
       round(max(l.minutes), 1) AS longest, group_concat(DISTINCT l.reason) AS reasons, max(l.cursor) AS cursor
FROM lasted l JOIN sessions s ON s.session_id = l.session_id
WHERE l.minutes >= 0
GROUP BY s.session_id, s.user_id, s.status
ORDER BY minutes DESC, session_id
LIMIT 100;

/* held-up: Where people hold agents up
   How long what was asked of a person waited, by the hour of the day at which it was asked (UTC), its kind, and whose
   session it was; what still waits counts until now. An agent that merely sits at its prompt asks nothing. `from`, `to`:
   times in UTC, the second not included (everything). Among the newest `newest` actions and responses (10000). */
WITH said AS (
  SELECT cursor, session_id, timestamp,
         iif(instr(data, '"attention":{') > 0 AND json_type(data, '$.attention') = 'object'
             AND coalesce(data ->> '$.attention.reason', '') <> 'input', 1, 0) AS asks,
         data ->> '$.attention.reason' AS reason
  FROM events
  WHERE type IN ('action', 'response')
    AND timestamp >= coalesce(nullif(:from, ''), '0') AND timestamp < coalesce(nullif(:to, ''), '9')
  ORDER BY cursor DESC
  LIMIT coalesce(nullif(:newest, ''), 10000)
), turns AS (
  SELECT *, asks - lag(asks, 1, 0) OVER (PARTITION BY session_id ORDER BY cursor) AS turn
  FROM said
), waits AS (
  SELECT session_id, reason, turn, timestamp AS since,
         lead(timestamp) OVER (PARTITION BY session_id ORDER BY cursor) AS until
  FROM turns
  WHERE turn <> 0
), lasted AS (
  SELECT w.reason, substr(w.since, 12, 2) AS hour, s.user_id,
         (julianday(coalesce(w.until, iif(s.status = 'waiting', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), s.ended)))
          - julianday(w.since)) * 1440 AS minutes
  FROM waits w JOIN sessions s ON s.session_id = w.session_id
  WHERE w.turn = 1
)
SELECT user_id, coalesce(reason, 'unknown') AS reason, hour, count(*) AS waits, round(sum(minutes), 1) AS minutes,
       round(max(minutes), 1) AS longest
FROM lasted
WHERE minutes >= 0
GROUP BY 1, 2, 3
ORDER BY minutes DESC
LIMIT 1000;

/* slowest-tools: Slowest tools
   How long half of the calls took at most (p50), and 95 of 100 (p95), in milliseconds.
   Among the newest `newest` calls (10000). */
WITH calls AS (
  SELECT tool, duration_ms, outcome
  FROM tool_calls
  ORDER BY cursor DESC
  LIMIT coalesce(nullif(:newest, ''), 10000)
), ranked AS (
  SELECT tool, duration_ms, outcome, row_number() OVER (PARTITION BY tool ORDER BY duration_ms) AS place,
         count(*) OVER (PARTITION BY tool) AS calls
  FROM calls
  WHERE duration_ms IS NOT NULL
)
SELECT tool, max(calls) AS calls, min(iif(place >= calls * 0.5, duration_ms, NULL)) AS p50,
       min(iif(place >= calls * 0.95, duration_ms, NULL)) AS p95, max(duration_ms) AS longest,
       round(sum(duration_ms) / 60000.0, 1) AS minutes, sum(outcome = 'failed') AS failed
FROM ranked
GROUP BY tool
ORDER BY p95 DESC;

/* slowest-calls: Slowest tool calls
   One by one. `tool`: only calls of it. Among the newest `newest` calls (10000). */
SELECT cursor, session_id, user_id, agent_id, tool, outcome, duration_ms, called, path, substr(command, 1, 200) AS command
FROM (SELECT * FROM tool_calls
      WHERE tool = coalesce(nullif(:tool, ''), tool)
      ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 10000))
ORDER BY duration_ms DESC, cursor DESC
LIMIT 100;

/* tool-failures: Tool failures
   The newest 200, with what went wrong; what a person said no to is none. `tool`, `user`: only theirs. */
SELECT cursor, timestamp, session_id, user_id, agent_id, tool, duration_ms, substr(text, 1, 500) AS error
FROM responses
WHERE kind = 'tool_error' AND rejected = 0
  AND (nullif(:tool, '') IS NULL OR tool = :tool)
  AND user_id = coalesce(nullif(:user, ''), user_id)
ORDER BY cursor DESC
LIMIT 200;

/* failing-tools: Tools that fail most
   Among the newest `newest` results (10000). */
SELECT tool, count(*) AS results, sum(failed) AS failed, round(100.0 * sum(failed) / count(*), 1) AS percent,
       count(DISTINCT iif(failed = 1, session_id, NULL)) AS sessions_with_failures
FROM (SELECT tool, failed, session_id FROM responses
      WHERE kind IN ('tool_result', 'tool_error')
      ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 10000))
GROUP BY tool
ORDER BY failed DESC, results DESC;

/* failure-groups: Failures that are alike
   By the tool, or the kind, and the first line of what it said; with the second where the first is an exit code alone.
   How often, in how many sessions, since when, whose. `from`, `to`: times in UTC, the second not included (everything).
   Among the newest `newest` failures of tools (3000), and the errors among as many newest answers of all kinds. */
WITH failures AS (
  SELECT * FROM (
    SELECT cursor, session_id, user_id, timestamp, coalesce(tool, 'a tool') AS kind, substr(text, 1, 1000) AS text
    FROM responses
    WHERE kind = 'tool_error' AND rejected = 0
      AND timestamp >= coalesce(nullif(:from, ''), '0') AND timestamp < coalesce(nullif(:to, ''), '9')
    ORDER BY cursor DESC
    LIMIT coalesce(nullif(:newest, ''), 3000))
  UNION ALL
  SELECT cursor, session_id, user_id, timestamp, 'error', substr(text, 1, 1000)
  FROM (SELECT * FROM responses ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 3000))
  WHERE kind = 'error' AND timestamp >= coalesce(nullif(:from, ''), '0') AND timestamp < coalesce(nullif(:to, ''), '9')
), cut AS (
  SELECT *, instr(text || char(10), char(10)) AS first_end FROM (
    SELECT cursor, session_id, user_id, timestamp, kind,
           ltrim(replace(replace(coalesce(text, ''), '<tool_use_error>', ''), '</tool_use_error>', ''), char(9, 10, 13, 32)) AS text
    FROM failures)
), said AS (
  SELECT *, row_number() OVER (PARTITION BY kind, line ORDER BY cursor DESC) AS age FROM (
  SELECT cursor, session_id, user_id, timestamp, kind, substr(trim(
           iif(text LIKE 'exit code %' AND first_end < 20,
               substr(text, 1, first_end - 1) || ': ' || substr(substr(text, first_end + 1), 1,
                 instr(substr(text, first_end + 1) || char(10), char(10)) - 1),
               substr(text, 1, first_end - 1)), char(9, 13, 32) || ':'), 1, 300) AS line
  FROM cut) lines
)
SELECT kind, line, count(*) AS times, count(DISTINCT session_id) AS sessions, min(timestamp) AS first,
       max(timestamp) AS last, group_concat(DISTINCT user_id) AS users,
       max(iif(age = 1, session_id, NULL)) AS session_id, max(cursor) AS cursor,
       group_concat(DISTINCT session_id) AS session_ids
FROM said
GROUP BY kind, line
ORDER BY times DESC, cursor DESC
LIMIT 500;

/* open-calls: Tool calls that never returned
   No result has come: it goes on still (open), or its turn, its agent or its session was over before (cancelled). Among
   the newest `newest` calls (10000). */
SELECT c.cursor, c.called, c.session_id, c.user_id, c.agent_id, c.tool, c.outcome, s.status AS session_status, c.path,
       substr(c.command, 1, 200) AS command
FROM (SELECT * FROM tool_calls ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 10000)) c
JOIN sessions s ON s.session_id = c.session_id
WHERE c.outcome IN ('open', 'cancelled')
ORDER BY c.cursor DESC
LIMIT 200;

/* sub-agents: Sub-agents, by session
   How deep they were nested, and what they cost in time: the seconds of all together, and of the longest. Those of
   sessions with more than `agents` of them (0). */
WITH RECURSIVE nested AS (
  SELECT session_id, agent_id, 1 AS depth
  FROM agents WHERE parent_agent_id IS NULL
  UNION ALL
  SELECT a.session_id, a.agent_id, n.depth + 1
  FROM nested n JOIN agents a ON a.session_id = n.session_id AND a.parent_agent_id = n.agent_id
  WHERE n.depth < 20
), depths AS (
  SELECT session_id, max(depth) AS depth FROM nested GROUP BY session_id
)
SELECT a.session_id AS session_id, a.user_id AS user_id, count(*) AS agents, coalesce(max(d.depth), 1) AS depth, sum(a.status = 'failed') AS failed,
       sum(a.completed_at IS NULL) AS unfinished, round(sum(a.duration_s), 1) AS seconds,
       round(max(a.duration_s), 1) AS longest, group_concat(DISTINCT a.type) AS types
FROM agents a LEFT JOIN depths d ON d.session_id = a.session_id
GROUP BY a.session_id, a.user_id
HAVING count(*) > coalesce(nullif(:agents, ''), 0) + 0
ORDER BY seconds DESC, session_id
LIMIT 200;

/* sub-sessions: Sessions that started others
   How many each has started, and what became of them. */
SELECT p.session_id AS session_id, p.user_id AS user_id, p.status AS status, count(*) AS started, sum(c.status = 'completed') AS completed,
       sum(c.status = 'failed') AS failed, sum(c.status = 'lost') AS lost, round(sum(c.duration_s), 1) AS seconds,
       group_concat(c.session_id, ', ') AS them
FROM sessions c JOIN sessions p ON p.session_id = c.parent_session
GROUP BY p.session_id, p.user_id, p.status
ORDER BY started DESC, session_id
LIMIT 100;

/* most-written-files: Files most written, and by whom
   Among the newest `newest` actions (20000); a tool that writes counts like an action that does. */
SELECT path, count(*) AS writes, count(DISTINCT session_id) AS sessions, group_concat(DISTINCT user_id) AS users,
       max(timestamp) AS last_written, max(iif(age = 1, session_id, NULL)) AS last_session, max(cursor) AS cursor
FROM (SELECT *, row_number() OVER (PARTITION BY path ORDER BY cursor DESC) AS age
      FROM (SELECT * FROM actions ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 20000)) newest
      WHERE path IS NOT NULL
        AND (kind IN ('file_write', 'file_edit')
             OR (kind = 'tool_call' AND tool IN ('Write', 'Edit', 'MultiEdit', 'NotebookEdit')))) written
GROUP BY path
ORDER BY writes DESC, path
LIMIT 100;

/* busiest-hours: Busiest hours
   Events by the hour of the day, in UTC. `days`: so far back (30). */
SELECT substr(minute, 12, 2) || ':00' AS hour, sum(events) AS events, count(*) AS busy_minutes,
       max(events) AS most_in_a_minute, count(DISTINCT substr(minute, 1, 10)) AS days
FROM minutes
WHERE minute >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
GROUP BY hour
ORDER BY events DESC;

/* goals-by-outcome: Goals by outcome
   What became of goals, beside what became of their sessions. `user`: only theirs. */
SELECT session_status, status, count(*) AS goals, count(DISTINCT session_id) AS sessions,
       count(DISTINCT user_id) AS users, min(description) AS for_example
FROM goals
WHERE user_id = coalesce(nullif(:user, ''), user_id)
GROUP BY session_status, status
ORDER BY goals DESC;

/* unreached-goals: Goals that were not reached
   Of sessions that have ended or were lost. `user`: only theirs. */
SELECT g.session_id, g.user_id, g.session_status, g.goal_id, g.status, g.priority, g.description, s.ended
FROM goals g JOIN sessions s ON s.session_id = g.session_id
WHERE g.status <> 'completed' AND g.session_status NOT IN ('active', 'waiting')
  AND g.user_id = coalesce(nullif(:user, ''), g.user_id)
ORDER BY s.last_cursor DESC, g.position
LIMIT 200;

/* prompts-with: Prompts containing a word
   The newest 100 of those that a person said. `word`: what the prompt contains, in any case of A to Z; `user`: only
   theirs. */
SELECT cursor, timestamp, session_id, user_id, text AS prompt
FROM actions
WHERE kind = 'prompt' AND machine_made = 0
  AND text LIKE '%' || :word || '%'
  AND user_id = coalesce(nullif(:user, ''), user_id)
ORDER BY cursor DESC
LIMIT 100;

/* late-events: Events that arrived late
   By more than `seconds` (60): the store, or the way to it, was away. Among the newest `newest` events (20000). */
SELECT cursor, session_id, user_id, type, kind, timestamp, received_at, delay_s
FROM (SELECT * FROM events ORDER BY cursor DESC LIMIT coalesce(nullif(:newest, ''), 20000))
WHERE delay_s > coalesce(nullif(:seconds, ''), 60) + 0
ORDER BY delay_s DESC, cursor DESC
LIMIT 200;

/* database-growth: Growth of the database
   Events a day, and altogether by then; what was deleted later is counted, too. The megabytes are of the data alone,
   estimated from the newest 5000 events. */
WITH days AS (
  SELECT substr(minute, 1, 10) AS day, sum(events) AS events FROM minutes GROUP BY day
), size AS (
  SELECT avg(bytes) AS bytes FROM (SELECT bytes FROM events ORDER BY cursor DESC LIMIT 5000)
)
SELECT day, events, sum(events) OVER (ORDER BY day) AS events_by_then, round(events * bytes / 1e6, 2) AS megabytes,
       round(sum(events) OVER (ORDER BY day) * bytes / 1e6, 2) AS megabytes_by_then
FROM days CROSS JOIN size
ORDER BY day DESC
LIMIT 400;

/* tokens: Tokens by user and model
   As far as agents have said how many they used. `days`: sessions begun so far back (30). */
SELECT user_id, model, count(*) AS sessions, sum(tokens_input) AS tokens_input, sum(tokens_output) AS tokens_output,
       round(sum(tokens_output) * 1.0 / count(*)) AS output_per_session
FROM sessions
WHERE created >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
GROUP BY user_id, model
ORDER BY tokens_output DESC;

/* story: One session as a story
   What happened, in its order, a line for each thing. `session`: its id. A call is told with what came of it. */
SELECT e.cursor, substr(e.timestamp, 1, 19) AS time, coalesce(e.agent_id, 'session') AS who,
       CASE coalesce(e.kind, e.type)
         WHEN 'session_created' THEN 'begins' WHEN 'session_resumed' THEN 'goes on' WHEN 'session_finalized' THEN 'ends'
         WHEN 'session_lost' THEN 'is not heard of any more'
         WHEN 'prompt' THEN iif(p.machine_made = 1, 'is notified', 'is told')
         WHEN 'assistant_message' THEN 'says' WHEN 'tool_call' THEN 'uses ' || coalesce(c.tool, 'a tool')
         WHEN 'goal_added' THEN 'sets a goal' WHEN 'goal_updated' THEN 'has a goal ' || coalesce(e.data ->> '$.status', '')
         WHEN 'agent_spawned' THEN 'starts an agent' WHEN 'agent_completed' THEN 'has an agent back'
         WHEN 'state_updated' THEN 'is at' ELSE replace(coalesce(e.kind, e.type), '_', ' ') END AS does,
       substr(coalesce(c.command, c.path, c.input, e.data ->> '$.prompt', e.data ->> '$.message',
                       e.data ->> '$.description', e.data ->> '$.task', e.data ->> '$.result', e.data ->> '$.path',
                       e.data ->> '$.initial.input', e.data ->> '$.outcome', e.data ->> '$.error', e.data ->> '$.text',
                       e.data ->> '$.delta', e.data ->> '$.currentStep', e.data ->> '$.phase', ''), 1, 500) AS what,
       substr(CASE c.outcome WHEN 'failed' THEN 'failed: ' || coalesce(c.error, '')
                             ELSE coalesce(c.outcome, e.data ->> '$.status', '') END, 1, 300) AS outcome,
       c.duration_ms, e.session_id
FROM events e
LEFT JOIN (SELECT * FROM tool_calls WHERE session_id = :session) c ON c.cursor = e.cursor
LEFT JOIN (SELECT * FROM actions WHERE session_id = :session AND kind = 'prompt') p ON p.cursor = e.cursor
WHERE e.session_id = :session AND coalesce(e.kind, '') NOT IN ('tool_result', 'tool_error')
ORDER BY e.cursor
LIMIT 1000;

/* activity: Activity over time
   Events that came in and sessions that began, in steps of `step` seconds (3600, at least 60); what was deleted later is
   counted among the events. `from`, `to`: times in UTC, the second not included (1000 steps, up to now). */
WITH steps AS (
  SELECT max(60, coalesce(nullif(:step, ''), 3600) + 0) AS step
), chosen AS (
  SELECT step, coalesce(nullif(:to, ''), '9') AS high,
         coalesce(nullif(:from, ''), strftime('%Y-%m-%dT%H:%M', 'now', '-' || 1000 * step || ' seconds'), '0') AS low
  FROM steps
), counted AS (
  SELECT strftime('%s', minute) / step * step AS at, events, 0 AS sessions
  FROM chosen CROSS JOIN minutes
  WHERE minute >= substr(low, 1, 16) AND minute < substr(high, 1, 16)
  UNION ALL
  SELECT strftime('%s', created) / step * step, 0, 1
  FROM chosen CROSS JOIN sessions
  WHERE created >= low AND created < high
)
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', at, 'unixepoch') AS at, events, sessions
FROM (SELECT at, sum(events) AS events, sum(sessions) AS sessions FROM counted GROUP BY at)
ORDER BY 1 DESC
LIMIT 1000;

/* status-mix: Sessions by status
   Of the sessions that began in that time. `from`, `to`: times in UTC, the second not included (everything). */
SELECT status, count(*) AS sessions, round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent
FROM sessions
WHERE created >= coalesce(nullif(:from, ''), '0') AND created < coalesce(nullif(:to, ''), '9')
GROUP BY status
ORDER BY sessions DESC;

/* tools: Tools by use, failure and duration
   Calls that came back, and how long half of them (p50) and 95 of 100 (p95) took at most, in milliseconds. `from`, `to`:
   times in UTC, the second not included (everything). Among the newest `newest` of them (10000). */
WITH results AS (
  SELECT coalesce(tool, 'not said') AS tool, failed, duration_ms
  FROM responses
  WHERE kind IN ('tool_result', 'tool_error')
    AND timestamp >= coalesce(nullif(:from, ''), '0') AND timestamp < coalesce(nullif(:to, ''), '9')
  ORDER BY cursor DESC
  LIMIT coalesce(nullif(:newest, ''), 10000)
), ranked AS (
  SELECT *, row_number() OVER (PARTITION BY tool ORDER BY duration_ms) AS place,
         count(duration_ms) OVER (PARTITION BY tool) AS timed
  FROM results
  WHERE duration_ms IS NOT NULL
), took AS (
  SELECT tool, min(iif(place >= timed * 0.5, duration_ms, NULL)) AS p50,
         min(iif(place >= timed * 0.95, duration_ms, NULL)) AS p95
  FROM ranked
  GROUP BY tool
)
SELECT r.tool, count(*) AS calls, sum(r.failed) AS failed, round(100.0 * sum(r.failed) / count(*), 1) AS percent_failed,
       t.p50, t.p95
FROM results r LEFT JOIN took t ON t.tool = r.tool
GROUP BY r.tool, t.p50, t.p95
ORDER BY calls DESC
LIMIT 100;

/* users: Users by sessions
   Of the sessions that began in that time. `from`, `to`: times in UTC, the second not included (everything). */
SELECT user_id, count(*) AS sessions, sum(status IN ('active', 'waiting')) AS going_on, sum(status = 'failed') AS failed,
       sum(status = 'lost') AS lost, sum(tool_calls) AS tool_calls, sum(tokens_output) AS tokens_output,
       round(sum(duration_s) / 3600, 2) AS hours
FROM sessions
WHERE created >= coalesce(nullif(:from, ''), '0') AND created < coalesce(nullif(:to, ''), '9')
GROUP BY user_id
ORDER BY sessions DESC
LIMIT 100;

/* models: Models by sessions
   Of the sessions that began in that time. `from`, `to`: times in UTC, the second not included (everything). */
SELECT coalesce(model, 'not said') AS model, count(*) AS sessions, sum(status = 'failed') AS failed,
       sum(tool_calls) AS tool_calls, sum(tokens_input) AS tokens_input, sum(tokens_output) AS tokens_output
FROM sessions
WHERE created >= coalesce(nullif(:from, ''), '0') AND created < coalesce(nullif(:to, ''), '9')
GROUP BY 1
ORDER BY sessions DESC
LIMIT 100;

/* costs-by-day: What it costs, by day and user
   By the quarters of an hour of the ledger, in UTC. `user`: only theirs; `days`: so far back (30). */
SELECT substr(at, 1, 10) AS day, user_id, sum(requests) AS requests, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens, round(sum(cost_usd), 4) AS cost_usd,
       sum(unpriced) AS unpriced
FROM costs
WHERE at >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
  AND user_id = coalesce(nullif(:user, ''), user_id)
GROUP BY day, user_id
ORDER BY day DESC, cost_usd DESC;

/* costs-by-model: What each model costs
   With how much of the input came from the cache. `user`: only theirs; `days`: so far back (30). */
SELECT model, sum(requests) AS requests, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
       round(1.0 * sum(cache_read_tokens) / nullif(sum(input_tokens + cache_read_tokens + cache_write_tokens), 0), 3)
         AS cache_hits,
       round(sum(cost_usd), 4) AS cost_usd, sum(unpriced) AS unpriced
FROM costs
WHERE at >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
  AND user_id = coalesce(nullif(:user, ''), user_id)
GROUP BY model
ORDER BY cost_usd DESC;

/* costs-by-user: What the sessions of each user cost
   With what their sub-agents used, and how much of the input came from the cache. `days`: so far back (30). */
SELECT user_id, count(DISTINCT session_id) AS sessions, sum(requests) AS requests,
       round(1.0 * sum(cache_read_tokens) / nullif(sum(input_tokens + cache_read_tokens + cache_write_tokens), 0), 3)
         AS cache_hits,
       round(sum(cost_usd), 4) AS cost_usd, round(sum(iif(agent_id IS NULL, 0, cost_usd)), 4) AS of_agents,
       sum(unpriced) AS unpriced
FROM costs
WHERE at >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
GROUP BY user_id
ORDER BY cost_usd DESC
LIMIT 100;

/* costs-by-project: What the sessions of each project cost
   With the mean of those that have a price. `days`: so far back (30). */
WITH spent AS (
  SELECT project, session_id, sum(requests) AS requests, sum(cost_usd) AS cost_usd, sum(unpriced) AS unpriced
  FROM costs
  WHERE at >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
  GROUP BY session_id, project
)
SELECT coalesce(project, 'not said') AS project, count(*) AS sessions, sum(requests) AS requests,
       round(sum(cost_usd), 4) AS cost_usd, round(avg(cost_usd), 4) AS mean_usd, sum(unpriced) AS unpriced
FROM spent
GROUP BY 1
ORDER BY cost_usd DESC
LIMIT 100;

/* delegated-costs: What sub-agents cost, by what they are
   Beside the main agents' own. `user`: only theirs; `days`: so far back (30). */
SELECT iif(c.agent_id IS NULL, 'the main agent', coalesce(a.type, 'not said')) AS agent,
       count(DISTINCT c.session_id) AS sessions, sum(c.requests) AS requests, round(sum(c.cost_usd), 4) AS cost_usd,
       round(sum(c.cost_usd) / nullif(sum(sum(c.cost_usd)) OVER (), 0), 3) AS share, sum(c.unpriced) AS unpriced
FROM costs c
LEFT JOIN agents a ON a.session_id = c.session_id AND a.agent_id = c.agent_id
WHERE c.at >= strftime('%Y-%m-%d', 'now', '-' || coalesce(nullif(:days, ''), 30) || ' days')
  AND c.user_id = coalesce(nullif(:user, ''), c.user_id)
GROUP BY 1
ORDER BY cost_usd DESC
LIMIT 100;

/* costs-by-tool: What it costs to use each tool
   What a prompt has cost is shared among the tool calls that it led to. Of the 100 sessions that used a model last; `user`:
   only theirs. */
WITH newest AS (
  SELECT session_id, max(at) AS last_used FROM costs WHERE user_id = coalesce(nullif(:user, ''), user_id)
  GROUP BY session_id ORDER BY last_used DESC, session_id LIMIT 100
), priced AS (
  SELECT u.session_id AS session_id, u.prompt_id AS prompt_id, sum(u.cost_usd) AS cost_usd
  FROM newest n CROSS JOIN usage u ON u.session_id = n.session_id
  WHERE u.prompt_id IS NOT NULL GROUP BY 1, 2
), called AS (
  SELECT a.session_id AS session_id, a.data ->> '$.prompt_id' AS prompt_id, a.tool AS tool, count(*) AS calls
  FROM newest n CROSS JOIN actions a ON a.session_id = n.session_id
  WHERE a.kind = 'tool_call' GROUP BY 1, 2, 3
), shared AS (
  SELECT *, 1.0 * calls / sum(calls) OVER (PARTITION BY session_id, prompt_id) AS share FROM called
)
SELECT s.tool AS tool, sum(s.calls) AS calls, round(sum(s.share * p.cost_usd), 4) AS cost_usd,
       round(sum(s.share * p.cost_usd) / sum(s.calls), 6) AS a_call
FROM shared s JOIN priced p USING (session_id, prompt_id)
GROUP BY s.tool
ORDER BY cost_usd DESC
LIMIT 100;

/* dearest-sessions: Sessions that cost most
   And how much of it sub-agents used. `user`: only theirs. */
SELECT c.session_id AS session_id, c.user_id AS user_id, sum(c.requests) AS requests,
       round(sum(c.cost_usd), 4) AS cost_usd,
       round(sum(iif(c.agent_id IS NULL, 0, c.cost_usd)), 4) AS of_agents, sum(c.unpriced) AS unpriced
FROM costs c
WHERE c.user_id = coalesce(nullif(:user, ''), c.user_id)
GROUP BY c.session_id, c.user_id
ORDER BY cost_usd DESC, session_id
LIMIT 100;

/* dearest-prompts: Prompts that cost most
   All the requests that one prompt has led to, of the session `session`. */
SELECT u.prompt_id AS prompt_id, max(substr(a.text, 1, 200)) AS text,
       count(*) AS requests, sum(u.total_tokens) AS tokens, round(sum(u.cost_usd), 4) AS cost_usd
FROM usage u
LEFT JOIN (SELECT prompt_id, text FROM (
             SELECT data ->> '$.prompt_id' AS prompt_id, text,
                    row_number() OVER (PARTITION BY data ->> '$.prompt_id' ORDER BY cursor) AS telling
             FROM actions WHERE session_id = :session AND kind = 'prompt') told
           WHERE telling = 1) a ON a.prompt_id = u.prompt_id
WHERE u.session_id = :session
GROUP BY u.prompt_id
ORDER BY cost_usd DESC
LIMIT 100;

/* dear-outliers: Sessions that cost more than twice their project's mean
   Of the sessions that have a price. */
WITH spent AS (
  SELECT session_id, user_id, project, sum(cost_usd) AS spent FROM costs
  GROUP BY session_id, user_id, project HAVING sum(cost_usd) > 0
), means AS (
  SELECT project, avg(spent) AS mean, count(*) AS sessions FROM spent GROUP BY project
)
SELECT s.session_id, s.user_id, s.project, round(s.spent, 4) AS cost_usd, round(m.mean, 4) AS mean_usd
FROM spent s JOIN means m ON coalesce(m.project, '') = coalesce(s.project, '')
WHERE s.spent > 2 * m.mean
ORDER BY s.spent DESC, s.session_id
LIMIT 100;

/* unpriced-models: Models that nobody can price
   SESSIONS_PRICES is where to say what they cost. */
SELECT model, sum(unpriced) AS requests, count(DISTINCT session_id) AS sessions, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens
FROM costs
WHERE cost_from = 'unpriced'
GROUP BY model
ORDER BY requests DESC;
