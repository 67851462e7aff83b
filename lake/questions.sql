/* Canned questions that a lake is asked in other words than the database of one store (queries.sql), which has indexes,
   and whose events no other store has. */

/* lost-sessions */
WITH lost AS (
  SELECT * FROM sessions WHERE status = 'lost' ORDER BY last_cursor DESC LIMIT 100
), last AS (
  SELECT w.shard, w.session_id, max(w.cursor) AS cursor
  FROM lost l JOIN events w ON w.shard = l.shard AND w.session_id = l.session_id
  WHERE w.type NOT IN ('session_lost', 'metadata_updated')
  GROUP BY w.shard, w.session_id
)
SELECT s.session_id, s.user_id, s.updated AS last_heard, s.phase, s.current_step, s.actions, e.cursor, e.type, e.kind,
       substr(e.data, 1, 300) AS last_word
FROM lost s
LEFT JOIN last w ON w.shard = s.shard AND w.session_id = s.session_id
LEFT JOIN events e ON e.session_id = w.session_id AND e.cursor = w.cursor
ORDER BY s.last_cursor DESC;

/* activity */
WITH chosen AS (
  SELECT coalesce(nullif(:to, ''), '9') AS high,
         coalesce(nullif(:from, ''), substr(time_of(
           epoch_now() - 1000 * max(60, coalesce(nullif(:step, ''), 3600))), 1, 16)) AS low
), counted AS (
  SELECT epoch(minute || ':00') AS since, events, 0 AS sessions
  FROM chosen CROSS JOIN minutes WHERE minute >= substr(low, 1, 16) AND minute < substr(high, 1, 16)
  UNION ALL
  SELECT epoch(substr(created, 1, 19)), 0, 1
  FROM chosen CROSS JOIN sessions WHERE created >= low AND created < high
)
SELECT time_of(since - since % max(60, coalesce(nullif(:step, ''), 3600))) AS at, sum(events) AS events,
       sum(sessions) AS sessions
FROM counted
GROUP BY 1
ORDER BY 1 DESC
LIMIT 1000;
