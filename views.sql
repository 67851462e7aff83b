/* What people ask in SQL: the views behind /datasette/, with a column for what is asked most.

   They are temporary, made anew on each connection that answers people, and stand in front of the tables of the same
   name in schema.sql, which the program itself reads. So `select * from sessions` means the first view below, and the
   tables stay free to change. In the SQLite shell: `sqlite3 -readonly sessions.db`, then `.read views.sql`.

   The comments here are what Datasette says about a view and its columns. Times are text, RFC 3339, UTC, with
   milliseconds and Z; `data` and `record` are JSON, so `data ->> '$.path'` is a member of it. `cursor` is the place of
   an event in the whole store. */

/* One run of one agent program. */
CREATE TEMP VIEW sessions (
  session_id,         -- its name
  user_id,            -- whose it is
  status,             -- active, waiting (for a person), completed, failed, cancelled, or lost (no word for long)
  input,              -- what it began with
  model,              -- the model that it was started with
  phase,              -- of its state
  current_step,       -- of its state
  waiting_for,        -- what a person is waited for: permission, input, question …; null unless the status is waiting
  waiting_message,    -- what the person was asked
  waiting_since,      -- since when
  created,            -- when it began
  updated,            -- when its newest event came in
  ended,              -- when it was finalized; null while it goes on
  duration_s,         -- seconds from its beginning to its end, or to its newest event; null where clocks disagree
  outcome,            -- what it said at its end
  actions,            -- how many entries its log of actions has
  responses,          -- how many its log of responses has
  tool_calls,         -- how many of the actions were tool calls
  files_modified,     -- how many wrote or edited a file
  bash_commands,      -- how many ran a command
  agents,             -- how many agents its state names
  goals,              -- how many goals it has
  goals_completed,    -- how many of them are completed
  tokens_input,       -- tokens that its models read, as far as it was said
  tokens_output,      -- tokens that its models wrote
  cost_usd,           -- what they cost, in US dollars, as far as that is known
  resumes,            -- how often it was taken up again
  tags,               -- its tags, with commas
  title,              -- what it is called
  project,            -- as it was said, else the name of its repository, else of its folder
  branch,             -- the branch that it works on
  host,               -- the machine that it runs on
  pinned,             -- 1: a person wants to keep it in sight
  parent_session,     -- the session that started it
  last_cursor         -- its newest event
) AS
SELECT s.session_id, s.user_id, s.status, i.document ->> '$.input', m.document ->> '$.model', s.phase, s.current_step,
       (SELECT coalesce(e.data ->> '$.attention.reason', 'input')
        FROM main.asks a CROSS JOIN main.events e ON e.cursor = a.told WHERE a.cursor = s.first_ask),
       (SELECT coalesce(e.data ->> '$.attention.message', '')
        FROM main.asks a CROSS JOIN main.events e ON e.cursor = a.told WHERE a.cursor = s.first_ask),
       (SELECT o.timestamp FROM main.events o WHERE o.cursor = s.first_ask),
       s.created, s.updated, s.ended,
       iif(coalesce(s.ended, s.updated) >= s.created,
           round((julianday(coalesce(s.ended, s.updated)) - julianday(s.created)) * 86400, 3), NULL),
       f.document ->> '$.outcome', s.actions, s.responses,
       s.tool_calls + coalesce(m.document ->> '$.metrics.toolCalls', 0),
       s.files_modified + coalesce(m.document ->> '$.metrics.filesModified', 0),
       s.bash_commands + coalesce(m.document ->> '$.metrics.bashCommands', 0),
       s.agents, s.goals,
       (SELECT count(*) FROM main.goals g WHERE g.session_id = s.session_id AND g.status = 'completed'),
       m.document ->> '$.tokenUsage.input' + coalesce((
         SELECT sum(u.input_tokens) FROM main.usage_counted u WHERE u.session_id = s.session_id), 0),
       m.document ->> '$.tokenUsage.output' + coalesce((
         SELECT sum(u.output_tokens) FROM main.usage_counted u WHERE u.session_id = s.session_id), 0),
       (SELECT round(sum(u.cost_usd), 10) FROM main.usage_counted u WHERE u.session_id = s.session_id AND u.is_priced),
       s.resumes,
       (SELECT group_concat(value, ', ') FROM json_each(m.document, '$.tags')),
       iif(json_type(m.document, '$.title') = 'text', m.document ->> '$.title', NULL), l.project, l.branch, l.host,
       coalesce(l.is_pinned, 0), s.parent_session, s.last_cursor
FROM (SELECT *, (SELECT a.cursor FROM main.asks a CROSS JOIN main.events e ON e.cursor = a.told
                 WHERE a.session_id = sessions.session_id
                 ORDER BY coalesce(e.data ->> '$.attention.reason', 'input') = 'input', a.cursor LIMIT 1) AS first_ask
      FROM main.sessions) s
CROSS JOIN main.documents m ON m.session_id = s.session_id AND m.name = 'metadata'
LEFT JOIN main.labels l ON l.session_id = s.session_id
LEFT JOIN main.documents i ON i.session_id = s.session_id AND i.name = 'initial'
LEFT JOIN main.documents f ON f.session_id = s.session_id AND f.name = 'final';

/* Everything that happened, one row each; nothing changes without one. */
CREATE TEMP VIEW events (
  cursor,             -- its place in the whole store, in the order of the commits
  type,               -- what happened: action, response, session_created, state_updated, goal_added …
  kind,               -- of an action or response: tool_call, prompt, tool_result …
  session_id,         -- the session it happened in
  user_id,            -- whose session it was at that time
  agent_id,           -- the agent it happened inside of; null for the session itself
  seq,                -- of an action or response: 1, 2, 3 … within its log
  timestamp,          -- when it happened, as the agent said
  received_at,        -- when it was stored
  actor,              -- who caused it: a token, a person, the store; null where nobody is known
  delay_s,            -- seconds from one to the other; null where the agent's clock is ahead
  failed,             -- 1: it tells of something that went wrong
  bytes,              -- how long its data is, in characters
  event_id,           -- the name by which a retry is recognised
  data                -- what was said
) AS
SELECT cursor, type, kind, session_id, user_id, agent_id, seq, timestamp, received_at, nullif(actor, ''),
       iif(received_at >= timestamp, round((julianday(received_at) - julianday(timestamp)) * 86400, 3), NULL),
       (SELECT is_failed FROM main.verdicts v WHERE v.cursor = events.cursor), length(data), event_id, data
FROM main.events
WHERE NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = events.session_id AND events.cursor < p.cursor);

/* What agents did or asked for: tool calls, prompts, files written. */
CREATE TEMP VIEW actions (
  cursor,             -- its place in the whole store
  session_id,         -- the session
  user_id,            -- whose session it was
  agent_id,           -- the agent that did it; null for the session itself
  seq,                -- its number in the session's log of actions
  kind,               -- tool_call, prompt, file_write, permission_request …
  tool,               -- the tool, where one is named
  path,               -- the file, where one is named
  command,            -- the command, where there is one
  text,               -- the prompt or message, where there is one
  machine_made,       -- 1: a prompt that no person said, such as the notice that a task is done
  timestamp,          -- when it happened
  data                -- all that was said
) AS
SELECT cursor, session_id, user_id, agent_id, seq, kind, data ->> '$.tool',
       coalesce(data ->> '$.path', data ->> '$.input.file_path', data ->> '$.input.notebook_path',
                data ->> '$.file_path'),
       coalesce(data ->> '$.command', data ->> '$.input.command'),
       coalesce(data ->> '$.prompt', data ->> '$.message', data ->> '$.text', data ->> '$.attention.message'),
       kind = 'prompt' AND (SELECT is_machine_made FROM main.words w WHERE w.cursor = events.cursor),
       timestamp, data
FROM main.events
WHERE type = 'action'
  AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = events.session_id AND events.cursor < p.cursor);

/* What came back: tool results, errors, messages of the assistant. */
CREATE TEMP VIEW responses (
  cursor,             -- its place in the whole store
  session_id,         -- the session
  user_id,            -- whose session it was
  agent_id,           -- the agent that it came back to; null for the session itself
  seq,                -- its number in the session's log of responses
  kind,               -- tool_result, tool_error, assistant_message, error …
  failed,             -- 1: it tells of something that went wrong
  rejected,           -- 1: a person said no to the call, or broke it off
  tool,               -- the tool, where one is named
  duration_ms,        -- milliseconds that it took, where that was said
  text,               -- the message or error, where there is one
  output,             -- what the tool gave back
  timestamp,          -- when it happened
  data                -- all that was said
) AS
SELECT cursor, session_id, user_id, agent_id, seq, kind,
       (SELECT is_failed FROM main.verdicts v WHERE v.cursor = events.cursor),
       (SELECT is_rejected FROM main.verdicts v WHERE v.cursor = events.cursor), data ->> '$.tool',
       iif(data ->> '$.durationMs' >= 0, data ->> '$.durationMs', NULL),
       coalesce(data ->> '$.error', data ->> '$.message', data ->> '$.text', data ->> '$.errorDetails'),
       data ->> '$.output', timestamp, data
FROM main.events
WHERE type = 'response'
  AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = events.session_id AND events.cursor < p.cursor);

/* A tool call and its result in one row. */
CREATE TEMP VIEW tool_calls (
  cursor,             -- of the call
  session_id,         -- the session
  user_id,            -- whose session it was
  agent_id,           -- the agent that called; null for the session itself
  tool,               -- Bash, Edit, mcp__server__tool …
  outcome,            -- ok, failed, rejected (by a person), open, cancelled (over without a result), unknown (no id)
  duration_ms,        -- milliseconds: as the result says, else from one to the other; null where clocks disagree
  called,             -- when it was called
  returned,           -- when its result came
  path,               -- the file that the input names
  command,            -- the command that it names
  input,              -- all of the input
  error,              -- what went wrong
  output,             -- what came back
  result_cursor       -- of the result
) AS
SELECT c.cursor, c.session_id, c.user_id, c.agent_id, c.data ->> '$.tool',
       CASE WHEN r.cursor IS NOT NULL
              THEN (SELECT CASE WHEN is_rejected THEN 'rejected' WHEN is_failed THEN 'failed' ELSE 'ok' END
                    FROM main.verdicts v WHERE v.cursor = r.cursor)
            WHEN c.data ->> '$.toolUseId' IS NULL THEN 'unknown'
            WHEN EXISTS (SELECT 1 FROM main.sessions s WHERE s.session_id = c.session_id AND s.ended IS NOT NULL)
              OR EXISTS (
                SELECT 1 FROM (
                  SELECT type = 'session_finalized' OR (type = 'agent_completed' AND data ->> '$.agentId' = c.agent_id)
                         OR (type = 'response' AND agent_id IS c.agent_id
                             AND (kind = 'assistant_message'
                                  OR (kind = 'error' AND data ->> '$.hook_event_name' = 'StopFailure'))) AS is_end
                  FROM main.events e
                  WHERE e.session_id = c.session_id AND e.cursor > c.cursor ORDER BY e.cursor LIMIT 200) WHERE is_end)
              THEN 'cancelled'
            ELSE 'open' END,
       coalesce(iif(r.data ->> '$.durationMs' >= 0, r.data ->> '$.durationMs', NULL),
                iif(r.timestamp >= c.timestamp,
                    CAST(round((julianday(r.timestamp) - julianday(c.timestamp)) * 86400000) AS INTEGER), NULL)),
       c.timestamp, r.timestamp,
       coalesce(c.data ->> '$.input.file_path', c.data ->> '$.input.notebook_path', c.data ->> '$.input.path'),
       c.data ->> '$.input.command', c.data ->> '$.input', r.data ->> '$.error', r.data ->> '$.output', r.cursor
FROM main.events c
LEFT JOIN main.events r ON r.cursor = coalesce(
  /* Nearly always the next that has this id, of this run, is the result. */
  (SELECT iif(e.kind = 'tool_call', NULL, e.cursor) FROM main.events e
   WHERE e.session_id = c.session_id AND e.kind IN ('tool_call', 'tool_result', 'tool_error')
     AND e.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND e.data ->> '$.runId' IS c.data ->> '$.runId'
     AND e.cursor > c.cursor ORDER BY e.cursor LIMIT 1),
  /* Another call of it came before that: the first result is of the last call. */
  (SELECT cursor FROM (
     SELECT cursor, sum(iif(kind = 'tool_call', 1, -1)) OVER (ORDER BY cursor) AS open
     FROM (SELECT e.cursor, e.kind FROM main.events e
           WHERE e.session_id = c.session_id AND e.kind IN ('tool_call', 'tool_result', 'tool_error')
             AND e.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND e.data ->> '$.runId' IS c.data ->> '$.runId'
             AND e.cursor > c.cursor ORDER BY e.cursor LIMIT 100))
   WHERE open = -1 ORDER BY cursor LIMIT 1),
  /* None came after it: the one that came before the first call of it is its own. */
  (SELECT iif(first.kind = 'tool_call', NULL, first.cursor) FROM (
     SELECT e.cursor, e.kind FROM main.events e
     WHERE e.session_id = c.session_id AND e.kind IN ('tool_call', 'tool_result', 'tool_error')
       AND e.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND e.data ->> '$.runId' IS c.data ->> '$.runId'
       AND e.cursor > coalesce((SELECT p.cursor FROM main.purges p WHERE p.session_id = c.session_id), 0)
     ORDER BY e.cursor LIMIT 1) first
   WHERE NOT EXISTS (
     SELECT 1 FROM main.events e
     WHERE e.session_id = c.session_id AND e.kind IN ('tool_call', 'tool_result', 'tool_error') AND e.kind = 'tool_call'
       AND e.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND e.data ->> '$.runId' IS c.data ->> '$.runId'
       AND e.cursor BETWEEN first.cursor AND c.cursor - 1)))
WHERE c.kind = 'tool_call' AND c.type = 'action'
  AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = c.session_id AND c.cursor < p.cursor);

/* What sessions set out to do. */
CREATE TEMP VIEW goals (
  session_id,         -- the session
  user_id,            -- whose session it is
  goal_id,            -- its name within the session
  position,           -- in the list of the session's goals, from 0
  description,        -- what is to be reached
  priority,           -- as the agent gave it
  status,             -- pending, in_progress, completed …: the agent's words
  completed_at,       -- when it was completed
  session_status,     -- what became of the session
  record              -- all that was said of it
) AS
SELECT s.session_id, s.user_id, g.goal_id, g.position, g.record ->> '$.description', g.record ->> '$.priority', g.status,
       g.record ->> '$.completedAt', s.status, g.record
FROM main.goals g JOIN main.sessions s ON s.session_id = g.session_id;

/* Workers inside sessions: sub-agents, nodes of a graph. */
CREATE TEMP VIEW agents (
  session_id,         -- the session
  user_id,            -- whose session it is
  agent_id,           -- its name within the session
  parent_agent_id,    -- the agent that started it; null for the session itself
  position,           -- in the list of the session's agents, from 0
  type,               -- what sort of agent it is
  task,               -- what it was told to do
  status,             -- spawned, running, completed, failed, cancelled …
  spawned_at,         -- when it began
  completed_at,       -- when it was done
  duration_s,         -- seconds from one to the other; null where clocks disagree
  subsession,         -- the session that it runs as, if it has one of its own
  result,             -- what it gave back
  record              -- all that was said of it
) AS
SELECT s.session_id, s.user_id, a.agent_id, a.record ->> '$.parentAgentId', a.position, a.record ->> '$.type',
       a.record ->> '$.task',
       iif(s.ended IS NULL OR a.status IN ('completed', 'failed', 'cancelled'), a.status, 'cancelled'),
       a.record ->> '$.spawnedAt', a.record ->> '$.completedAt',
       iif(julianday(a.record ->> '$.completedAt') >= julianday(a.record ->> '$.spawnedAt'),
           round((julianday(a.record ->> '$.completedAt') - julianday(a.record ->> '$.spawnedAt')) * 86400, 3), NULL),
       a.record ->> '$.subsession', a.record ->> '$.result', a.record
FROM main.agents a JOIN main.sessions s ON s.session_id = a.session_id;

/* What changed the states of sessions, their goals and agents. */
CREATE TEMP VIEW state_changes (
  cursor,             -- its place in the whole store
  session_id,         -- the session
  user_id,            -- whose session it was
  agent_id,           -- the agent that it happened inside of, or that it tells of
  type,               -- state_updated, goal_added, goal_updated, agent_spawned, agent_updated, agent_completed
  goal_id,            -- the goal that it tells of
  phase,              -- the phase, where it is changed
  current_step,       -- the step, where it is changed
  status,             -- the status of the goal or agent, where it is changed
  patch,              -- how data changes the state: merge-patch, replace, or null for a deep merge
  timestamp,          -- when it happened
  data                -- all that was said
) AS
SELECT cursor, session_id, user_id, coalesce(iif(type GLOB 'agent_*', data ->> '$.agentId', NULL), agent_id), type,
       CASE type WHEN 'goal_added' THEN data ->> '$.id' WHEN 'goal_updated' THEN data ->> '$.goalId' END,
       iif(type = 'state_updated', data ->> '$.phase', NULL), iif(type = 'state_updated', data ->> '$.currentStep', NULL),
       iif(type <> 'state_updated', data ->> '$.status', NULL), patch, timestamp, data
FROM main.events
WHERE type IN ('state_updated', 'goal_added', 'goal_updated', 'agent_spawned', 'agent_updated', 'agent_completed')
  AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = events.session_id AND events.cursor < p.cursor);

/* What people noted about sessions and their events. */
CREATE TEMP VIEW notes (
  cursor,             -- its place in the whole store
  session_id,         -- the session
  user_id,            -- whose session it was
  about,              -- the cursor of the event that it is about; null: the session
  text,               -- what was noted
  actor,              -- who noted it
  timestamp,          -- when
  data                -- all that was said
) AS
SELECT cursor, session_id, user_id, data ->> '$.at', data ->> '$.text', nullif(actor, ''), timestamp, data
FROM main.events
WHERE type = 'note_added'
  AND NOT EXISTS (SELECT 1 FROM main.purges p WHERE p.session_id = events.session_id AND events.cursor < p.cursor);

/* What agents wanted from people, and what they were answered. */
CREATE TEMP VIEW asks (
  cursor,             -- of the event that asked
  ask_id,             -- what it is answered by
  session_id,         -- the session
  user_id,            -- whose session it is
  agent_id,           -- who asks; null: the main agent
  kind,               -- permission, question, plan, budget …
  tool,               -- the tool that it is about
  text,               -- what was asked
  status,             -- open, answered, closed
  asked,              -- when
  ended,              -- when it was answered, or was not asked any more
  waited_s,           -- seconds until then
  decision,           -- allow, deny, answer
  answered_by,        -- who answered in the store
  ended_by,           -- the kind of the event that ended it: answered, tool_result, prompt …
  deadline            -- when the asker gives up
) AS
SELECT a.cursor, o.event_id, a.session_id, s.user_id, a.agent_id,
       iif(o.kind IN ('interrupt', 'elicitation'), o.kind, a.reason),
       coalesce(t.data ->> '$.tool', t.data ->> '$.attention.tool', o.data ->> '$.tool'),
       coalesce(t.data ->> '$.attention.message', ''), a.status, o.timestamp, e.timestamp,
       round((julianday(e.timestamp) - julianday(o.timestamp)) * 86400, 3), e.data ->> '$.decision',
       iif(e.type = 'answered', nullif(e.actor, ''), NULL), coalesce(e.kind, e.type), a.deadline
FROM (SELECT cursor, session_id, told, agent_id, reason, deadline, NULL AS ended, 'open' AS status
      FROM main.asks WHERE reason <> 'input'
      UNION ALL SELECT cursor, session_id, told, agent_id, reason, deadline, ended, status FROM main.ended_asks) a
CROSS JOIN main.events o ON o.cursor = a.cursor
CROSS JOIN main.events t ON t.cursor = a.told
CROSS JOIN main.sessions s ON s.session_id = a.session_id
LEFT JOIN main.events e ON e.cursor = a.ended;

/* What people, budgets and rules have ordered, and what became of it. */
CREATE TEMP VIEW orders (
  cursor,             -- of the event that ordered it
  order_id,           -- what it is released by
  session_id,         -- the session
  user_id,            -- whose session it is
  agent_id,           -- whom it is for; null: whoever is at work
  kind,               -- stop, pause, release, say
  text,               -- what is said with it
  actor,              -- who ordered it: a name, budget:NAME, rule:NAME
  status,             -- waiting, delivered, expired, refused
  is_open,            -- 1: it is still offered, as a pause until it is released
  ordered,            -- when
  settled,            -- when it was delivered, expired or was refused
  at                  -- the call at which it was delivered
) AS
SELECT r.cursor, r.order_id, r.session_id, s.user_id, r.agent_id, r.kind, x.data ->> '$.text', nullif(x.actor, ''),
       r.status, r.is_open, x.timestamp, f.timestamp, f.data ->> '$.at'
FROM main.orders r CROSS JOIN main.events x ON x.cursor = r.cursor
CROSS JOIN main.sessions s ON s.session_id = r.session_id
LEFT JOIN main.events f ON f.cursor = r.settled
WHERE r.kind <> 'answer';

/* How much came in, minute by minute; what was deleted later is counted, too. */
CREATE TEMP VIEW minutes (
  minute,             -- 2026-02-13T20:59
  events              -- how many events were stored in it
) AS
SELECT minute, events FROM main.minutes;

/* Requests to models, one row each, as the best source tells of it; those that count, so that a sum is the sum. */
CREATE TEMP VIEW usage (
  at,                 -- when the model answered
  session_id,         -- the session
  user_id,            -- whose session it is
  project,            -- what it works on, where that was said
  agent_id,           -- the agent that asked; null for the session itself
  prompt_id,          -- the prompt that it was about
  provider,           -- whose model it is
  model,              -- the model
  source,             -- who told of it: transcript, sdk, otlp_logs, otlp_spans, otlp_metrics, langchain …
  input_tokens,       -- without what the cache gave or took
  output_tokens,      -- with reasoning
  cache_read_tokens,  -- what the cache gave
  cache_write_tokens, -- what the cache took, for five minutes
  cache_write_1h_tokens, -- what it took for an hour
  reasoning_tokens,   -- of the output
  total_tokens,       -- all of these but reasoning
  cost_usd,           -- US dollars; null where nobody knows
  cost_from,          -- reported by the client, own prices, computed by a price table, or unpriced
  request_key,        -- what sources call the request
  cursor              -- of the event that told of it
) AS
SELECT u.at, u.session_id, s.user_id, l.project, u.agent_id, u.prompt_id, u.provider, u.model, u.source,
       u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens, u.cache_write_1h_tokens,
       u.reasoning_tokens, u.total_tokens, u.cost_usd, u.cost_from, u.request_key, u.cursor
FROM main.usage u JOIN main.sessions s USING (session_id)
LEFT JOIN main.labels l ON l.session_id = u.session_id
WHERE NOT u.is_copy AND EXISTS (
  SELECT 1 FROM main.usage_counted b WHERE b.session_id = u.session_id AND b.agent_id = coalesce(u.agent_id, '')
                                    AND b.family = u.family);

/* The same summed by session, agent, model and quarter of an hour: few rows, however many requests. */
CREATE TEMP VIEW costs (
  at,                 -- the beginning of the quarter of an hour
  session_id,         -- the session
  user_id,            -- whose session it is
  project,            -- what it works on, where that was said
  agent_id,           -- the agent that asked; null for the session itself
  model,              -- the model
  requests,           -- how many
  input_tokens,       -- without what the cache gave or took
  output_tokens,      -- with reasoning
  cache_read_tokens,  -- what the cache gave
  cache_write_tokens, -- what the cache took
  cost_usd,           -- US dollars, of the requests that have a price
  cost_from,          -- reported, own, computed or unpriced
  unpriced            -- how many requests nobody can price
) AS
SELECT strftime('%Y-%m-%dT%H:%M:00.000Z', u.quarter * 900, 'unixepoch'), u.session_id, s.user_id,
       l.project, nullif(u.agent_id, ''), nullif(u.model, ''), u.requests, u.input_tokens,
       u.output_tokens, u.cache_read_tokens, u.cache_write_tokens + u.cache_write_1h_tokens,
       iif(u.cost_from = 'unpriced', NULL, u.cost_usd), u.cost_from, u.unpriced
FROM main.usage_counted u JOIN main.sessions s USING (session_id)
LEFT JOIN main.labels l ON l.session_id = u.session_id;
