/* The session store's database, written to be read from top to bottom.

   Everything that happens is one row of `events`, written once and never
   changed. An INSERT into `events` is the only way anything changes: the
   triggers below fold it into the tables under "Derived", all of which could be
   dropped and made again from the events alone. The views at the end are what
   the API and the file tree read; those for people are in views.sql.

   Times are text, RFC 3339, UTC, milliseconds, Z: 2026-02-13T20:59:12.345Z, so
   that they sort as they stand. JSON is text, and checked. Ids are 1 to 128 of
   A-Z a-z 0-9 . _ - and case-sensitive; the server checks them before they come
   here. The connection that writes has four functions of sessionstore/model/folds.py
   registered: initial_document, metadata_after, metadata_with_prompt and state_after. */

PRAGMA application_id = 1399157617;   /* "Sesq", which marks the file as a session store */

------------------------------------------------------------------------------
-- The truth
------------------------------------------------------------------------------

CREATE TABLE events (
  cursor       INTEGER PRIMARY KEY,     -- position in the whole store, rising in commit order, never used twice
  type         TEXT NOT NULL            -- what happened; entries first: SQLite makes a longer list anew for each row
               CHECK (type IN ('action', 'response')
                      OR type IN ('session_created', 'session_resumed', 'metadata_updated', 'session_finalized',
                                  'session_lost', 'session_deleted', 'state_updated', 'goal_added', 'goal_updated',
                                  'agent_spawned', 'agent_updated', 'agent_completed', 'note_added', 'usage_reported',
                                  'budget_crossed', 'answered', 'ask_closed', 'ordered', 'order_delivered',
                                  'order_closed')),
  session_id   TEXT NOT NULL,           -- the session it happened in
  user_id      TEXT NOT NULL,           -- whose session it was at that time
  event_id     TEXT NOT NULL,           -- the caller's name for it, or one made here; a retry is recognised by it
  agent_id     TEXT,                    -- the agent it happened inside of, null for the session itself
  timestamp    TEXT NOT NULL,           -- when it happened at the caller, if the caller said so, else received_at
  received_at  TEXT NOT NULL,           -- when it was committed here
  patch        TEXT                     -- state_updated: how data changes the document (null: deep merge)
               CHECK (patch IS NULL OR (type = 'state_updated' AND patch IN ('merge-patch', 'replace'))),
  seq          INTEGER                  -- action, response: 1, 2, 3 … within this log of this session
               CHECK ((seq IS NULL) = (type NOT IN ('action', 'response'))),
  kind         TEXT                     -- action, response: the `type` that its data has
               CHECK ((kind IS NULL) = (seq IS NULL)),
  data         TEXT NOT NULL            -- what the caller said, a JSON object
               CHECK (json_type(data) = 'object'),
  actor        TEXT                     -- who caused it: the name of a token or person, budget:NAME, rule:NAME, store;
                                        -- empty: nobody is known; null: written before version 10 of this schema
) STRICT;

CREATE UNIQUE INDEX events_by_event_id ON events (event_id, session_id);
CREATE INDEX        events_by_session  ON events (session_id, cursor);
CREATE UNIQUE INDEX events_by_seq      ON events (session_id, type, seq) WHERE seq IS NOT NULL;

/* What the documents of a session are made of, as they were at any time. */
CREATE INDEX events_of_documents ON events (session_id, cursor) WHERE seq IS NULL;

/* What people ask for among many events, as views.sql does: a tool call and its result, prompts, failures. */
CREATE INDEX events_by_tool_use ON events (session_id, data ->> '$.toolUseId')
WHERE kind IN ('tool_call', 'tool_result', 'tool_error');
CREATE INDEX events_of_prompts ON events (cursor) WHERE kind = 'prompt';
CREATE INDEX events_of_failures ON events (cursor) WHERE kind = 'tool_error';
CREATE INDEX events_of_notes ON events (session_id, cursor) WHERE type = 'note_added';

------------------------------------------------------------------------------
-- Derived: sessions
------------------------------------------------------------------------------

CREATE TABLE sessions (
  session_id      TEXT PRIMARY KEY,
  user_id         TEXT NOT NULL,
  parent_session  TEXT,                        -- the session that started this one; it may be gone
  status          TEXT NOT NULL DEFAULT 'active'
                  CHECK (status IN ('active', 'waiting', 'completed', 'failed', 'cancelled', 'lost')),
  is_implicit     INTEGER NOT NULL DEFAULT 0   -- 1: made by its first word, and nobody has created it since
                  CHECK (is_implicit IN (0, 1)),
  created         TEXT NOT NULL,               -- timestamp of its session_created
  updated         TEXT NOT NULL,               -- received_at of its newest event
  heard           TEXT NOT NULL,               -- received_at of the last word from the agent itself
  ended           TEXT,                        -- timestamp of the session_finalized; null while it goes on
  created_cursor  INTEGER NOT NULL,
  last_cursor     INTEGER NOT NULL,            -- its newest event
  resumes         INTEGER NOT NULL DEFAULT 0,
  actions         INTEGER NOT NULL DEFAULT 0,  -- entries in the action log: its last seq
  responses       INTEGER NOT NULL DEFAULT 0,  -- entries in the response log: its last seq
  goals           INTEGER NOT NULL DEFAULT 0,
  agents          INTEGER NOT NULL DEFAULT 0,
  phase           TEXT,                        -- of the state, where it is text
  current_step    TEXT,
  agents_spawned  INTEGER NOT NULL DEFAULT 0,  -- counted from the actions; callers may add to these in the
  tool_calls      INTEGER NOT NULL DEFAULT 0,  --   metadata's "metrics", so read them from the view `metadata`
  mcp_calls       INTEGER NOT NULL DEFAULT 0,
  files_modified  INTEGER NOT NULL DEFAULT 0,
  bash_commands   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_change ON sessions (last_cursor);
CREATE INDEX sessions_by_user   ON sessions (user_id, created_cursor);
CREATE INDEX sessions_by_parent ON sessions (parent_session, created_cursor) WHERE parent_session IS NOT NULL;
CREATE INDEX sessions_by_status ON sessions (status);
CREATE INDEX sessions_by_end    ON sessions (ended) WHERE ended IS NOT NULL;

/* The larger documents of a session, apart from its row because that row is
   written again with every event. */
CREATE TABLE documents (
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  name        TEXT NOT NULL                    -- metadata: what callers set beyond the columns of sessions
              CHECK (name IN ('initial', 'metadata', 'state', 'final')),
  version     INTEGER NOT NULL DEFAULT 1,      -- rises with every change
  document    TEXT NOT NULL CHECK (json_type(document) = 'object'),
  PRIMARY KEY (session_id, name)
) STRICT;

/* By what sessions are looked for and grouped: of their metadata what is text, apart from their rows, which are written
   again with every event. */
CREATE TABLE labels (
  session_id  TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
  project     TEXT,
  branch      TEXT,
  host        TEXT,
  origin      TEXT,                            -- the session that it goes on from: it was cleared, or forked off that
  is_pinned   INTEGER NOT NULL DEFAULT 0 CHECK (is_pinned IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX labels_by_project ON labels (project) WHERE project IS NOT NULL;
CREATE INDEX labels_by_branch  ON labels (branch)  WHERE branch IS NOT NULL;
CREATE INDEX labels_by_host    ON labels (host)    WHERE host IS NOT NULL;
CREATE INDEX labels_by_origin  ON labels (origin)  WHERE origin IS NOT NULL;
CREATE INDEX labels_of_pinned  ON labels (session_id) WHERE is_pinned;

CREATE TABLE tags (
  tag         TEXT NOT NULL,
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  PRIMARY KEY (tag, session_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_session ON tags (session_id);

/* One row is something that a person is waited for: an open ask, or (reason
   input) that the main agent sits at its prompt. A session waits as long as it has
   a row here. What is asked stands in the event; here is, cut short, by what it is
   told apart from others, as the view `words` has it. */
CREATE TABLE asks (
  cursor      INTEGER PRIMARY KEY,             -- of the event that asked; the oldest is shown first
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  told        INTEGER NOT NULL,                -- of the event with the most exact words for it: Claude Code asks the
                                               --   same by a call, by a permission request and by a notification
  agent_id    TEXT,                            -- who asks; null for the main agent
  reason      TEXT NOT NULL,                   -- permission, question, plan …
  message     TEXT NOT NULL,
  own_id      TEXT,                            -- the asker's own name for what it asks
  tool_use_id TEXT,                            -- the call that it is about
  tool        TEXT,
  input       TEXT,                            -- of the call
  exactness   INTEGER NOT NULL,                -- 3: names its call or itself; 2: its tool; 0: not even who asks
  is_logged   INTEGER NOT NULL,                -- 0: by a metadata_updated
  deadline    TEXT                             -- when the asker gives up
) STRICT;

CREATE INDEX asks_by_session  ON asks (session_id, cursor);
CREATE INDEX asks_by_deadline ON asks (deadline) WHERE deadline IS NOT NULL;

/* Events that asked what was open already: whoever waits for an answer may name any of them. */
CREATE TABLE retold_asks (
  cursor      INTEGER PRIMARY KEY,
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  ask         INTEGER NOT NULL                 -- cursor of the event that asked first
) STRICT;

CREATE INDEX retold_asks_by_session ON retold_asks (session_id);

/* Asks that are not open any more. */
CREATE TABLE ended_asks (
  cursor      INTEGER PRIMARY KEY,             -- as in asks, and so are the others
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  told        INTEGER NOT NULL,
  agent_id    TEXT,
  reason      TEXT NOT NULL,
  tool_use_id TEXT,
  deadline    TEXT,
  ended       INTEGER NOT NULL,                -- cursor of the event that ended it
  status      TEXT NOT NULL                    -- closed: by a word of the agent, its end, or the deadline
              CHECK (status IN ('answered', 'closed'))
) STRICT;

CREATE INDEX ended_asks_by_session ON ended_asks (session_id, cursor);

/* What the agent's side is to carry out: an order, or the answer to an ask. It is offered until it is said what became
   of it; a pause until it is released. What it says stands in the event. */
CREATE TABLE orders (
  cursor      INTEGER PRIMARY KEY,             -- of the `ordered` or `answered`
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  order_id    TEXT NOT NULL,                   -- its event_id
  kind        TEXT NOT NULL CHECK (kind IN ('answer', 'stop', 'pause', 'release', 'say')),
  agent_id    TEXT,                            -- whom it is for; null: whoever is at work in the session
  about       INTEGER,                         -- cursor of the ask that is answered, of the pause that is released
  expires     TEXT,
  status      TEXT NOT NULL DEFAULT 'waiting'
              CHECK (status IN ('waiting', 'delivered', 'expired', 'refused')),
  settled     INTEGER,                         -- cursor of the event that made it so
  is_open     INTEGER NOT NULL DEFAULT 1       -- 1: it is offered
              CHECK (is_open IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX orders_by_id ON orders (session_id, order_id);
CREATE INDEX open_orders         ON orders (session_id, cursor) WHERE is_open;
CREATE INDEX orders_by_about     ON orders (about) WHERE about IS NOT NULL;
CREATE INDEX orders_by_expiry    ON orders (expires) WHERE is_open AND expires IS NOT NULL;

------------------------------------------------------------------------------
-- Derived: the lists of the state document, as rows
------------------------------------------------------------------------------

CREATE TABLE goals (
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  goal_id     TEXT NOT NULL,
  position    INTEGER NOT NULL,                -- in the document's `goals`, from 0
  status      TEXT NOT NULL,                   -- pending, in_progress, completed …: the caller's words
  record      TEXT NOT NULL CHECK (json_type(record) = 'object'),
  PRIMARY KEY (session_id, goal_id)
) STRICT;

CREATE TABLE agents (
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  agent_id    TEXT NOT NULL,
  position    INTEGER NOT NULL,                -- in the document's `agents.spawned`, from 0
  status      TEXT NOT NULL,                   -- spawned, running, completed, failed, cancelled …
  record      TEXT NOT NULL CHECK (json_type(record) = 'object'),
  PRIMARY KEY (session_id, agent_id)
) STRICT;

------------------------------------------------------------------------------
-- Derived: counts, so that totals cost the same with ten million events
------------------------------------------------------------------------------

CREATE TABLE counts (
  what    TEXT NOT NULL CHECK (what IN ('events', 'sessions', 'goals', 'agents')),
  name    TEXT NOT NULL,                       -- an event's type; the status of a session, goal or agent
  number  INTEGER NOT NULL,
  PRIMARY KEY (what, name)
) STRICT, WITHOUT ROWID;

INSERT INTO counts
SELECT 'events', value, 0
FROM json_each('["session_created", "session_resumed", "metadata_updated", "session_finalized", "session_lost",
                 "session_deleted", "action", "response", "state_updated", "goal_added", "goal_updated",
                 "agent_spawned", "agent_updated", "agent_completed", "note_added", "usage_reported", "budget_crossed",
                 "answered", "ask_closed", "ordered", "order_delivered", "order_closed"]')
WHERE true ON CONFLICT DO NOTHING;

CREATE TABLE users (
  user_id   TEXT PRIMARY KEY,
  sessions  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

/* When a session came to where somebody should look, or asked for more: what webhooks tell. */
CREATE TABLE status_changes (
  cursor      INTEGER PRIMARY KEY,             -- of the event that did it
  session_id  TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  status      TEXT NOT NULL CHECK (status IN ('waiting', 'failed', 'lost'))
) STRICT;

CREATE INDEX status_changes_by_session ON status_changes (session_id);

CREATE TABLE minutes (
  minute  TEXT PRIMARY KEY,                    -- 2026-02-13T20:59, of received_at
  events  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

------------------------------------------------------------------------------
-- Derived: what it cost
------------------------------------------------------------------------------

/* The ledger: one row is one request to a model, whoever told of it, and as the best
   of them did. Several may tell of the same: a transcript and the telemetry of one
   program name a request alike, while a span, or the sum that a metric is, cannot
   say which it means. So of what one agent did only its best family counts. */
CREATE TABLE usage (
  session_id            TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  request_key           TEXT NOT NULL,             -- what sources call the request
  message_id            TEXT,                      -- of the answer: gateways call each request the same
  cursor                INTEGER NOT NULL,          -- of the event that told of its tokens
  agent_id              TEXT,                      -- who asked the model; null for the main agent
  prompt_id             TEXT,                      -- what it was about
  source                TEXT NOT NULL,             -- transcript, sdk, otlp_logs, otlp_spans, otlp_metrics, or a caller's word
  grade                 INTEGER NOT NULL,          -- of the source: 1 transcript, sdk; 2 logs, and spans that name the
                                                   --   request; 3 others; 4 spans of agents that only a trace knows; 5 metrics
  family                INTEGER NOT NULL           -- of sources with a key in common: 1 the first two; else the grade
                        GENERATED ALWAYS AS (iif(grade < 3, 1, grade)),
  provider              TEXT,
  model                 TEXT,
  input_tokens          INTEGER NOT NULL,          -- without what the cache gave or took
  output_tokens         INTEGER NOT NULL,          -- with reasoning
  cache_read_tokens     INTEGER NOT NULL,
  cache_write_tokens    INTEGER NOT NULL,          -- without those that are kept for an hour
  cache_write_1h_tokens INTEGER NOT NULL,
  reasoning_tokens      INTEGER NOT NULL,          -- of the output
  total_tokens          INTEGER NOT NULL
                        GENERATED ALWAYS AS (input_tokens + output_tokens + cache_read_tokens + cache_write_tokens
                                             + cache_write_1h_tokens),
  cost_usd              REAL                       -- null: nobody knows
                        CHECK ((cost_usd IS NULL) = (cost_from = 'unpriced')),
  cost_from             TEXT NOT NULL              -- the client's own figure, the operator's prices, a price table
                        CHECK (cost_from IN ('reported', 'own', 'computed', 'unpriced')),
  at                    TEXT NOT NULL,             -- when the model answered
  is_copy               INTEGER NOT NULL DEFAULT 0 -- 1: it counts in another session, whose words this one has copied
                        CHECK (is_copy IN (0, 1)),
  PRIMARY KEY (session_id, request_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_request ON usage (request_key, at);

/* Sums of the ledger, few enough to be added up again by whatever is asked for. */
CREATE TABLE usage_sums (
  session_id            TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  agent_id              TEXT NOT NULL,             -- empty for the main agent
  family                INTEGER NOT NULL,
  quarter               INTEGER NOT NULL,          -- of an hour, since 1970: days are those of the reader's time zone
  model                 TEXT NOT NULL,             -- empty where nobody said
  cost_from             TEXT NOT NULL,
  requests              INTEGER NOT NULL,
  input_tokens          INTEGER NOT NULL,
  output_tokens         INTEGER NOT NULL,
  cache_read_tokens     INTEGER NOT NULL,
  cache_write_tokens    INTEGER NOT NULL,
  cache_write_1h_tokens INTEGER NOT NULL,
  reasoning_tokens      INTEGER NOT NULL,
  cost_usd              REAL NOT NULL,
  is_best               INTEGER NOT NULL DEFAULT 1 -- 1: no better family tells of what this agent did
                        CHECK (is_best IN (0, 1)),
  PRIMARY KEY (session_id, agent_id, family, quarter, model, cost_from)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_sums_by_time   ON usage_sums (quarter);
CREATE INDEX usage_sums_by_family ON usage_sums (session_id, family);

/* How full the context of a session's main agent is, as each source of that says. */
CREATE TABLE contexts (
  session_id   TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
  source       TEXT NOT NULL,                      -- hook, or as in the ledger
  at           TEXT NOT NULL,                      -- when it said so last
  tokens       INTEGER,                            -- read and written with the newest request; null: nobody said
  token_limit  INTEGER,                            -- that its model takes; null: nobody knows
  compactions  INTEGER NOT NULL DEFAULT 0,         -- how often it was made smaller, as far as this source tells
  PRIMARY KEY (session_id, source)
) STRICT, WITHOUT ROWID;

/* What was told of a budget, so that it is told once. */
CREATE TABLE budget_crossings (
  cursor  INTEGER PRIMARY KEY,                     -- of the budget_crossed
  data    TEXT NOT NULL CHECK (json_type(data) = 'object')
) STRICT;

------------------------------------------------------------------------------
-- Bookkeeping
------------------------------------------------------------------------------

CREATE TABLE progress (
  only      INTEGER PRIMARY KEY CHECK (only = 1),
  searched  INTEGER NOT NULL                   -- the full-text index holds what is at or below this cursor
) STRICT;
INSERT INTO progress VALUES (1, 0);

/* One row says that a newer version of this program has made documents anew of
   events up to this cursor, without a newer event: the file tree writes them again. */
CREATE TABLE remade (
  cursor  INTEGER PRIMARY KEY
) STRICT;

/* How this store is known in a lake, made once. No row: it has never been told of one. */
CREATE TABLE lake (
  only   INTEGER PRIMARY KEY CHECK (only = 1),
  shard  TEXT NOT NULL,                        -- SESSIONS_SHARD: under another name its events would be there twice
  store  TEXT NOT NULL                         -- what no other store has: two that share a name tell each other by it
) STRICT;

/* Events that a text was taken out of, for the lake that has them as they were: it knows itself which scrubs it has
   followed. None where there was no lake then. */
CREATE TABLE scrubs (
  scrub        TEXT NOT NULL,                  -- which one: what no other is called, in any store
  cursor       INTEGER NOT NULL,               -- of the event; it may have been deleted since
  session_id   TEXT NOT NULL,                  -- as in the event, and so is
  received_at  TEXT NOT NULL,
  PRIMARY KEY (scrub, cursor)
) STRICT, WITHOUT ROWID;

/* Deleted sessions whose events are still being removed, some at a time, so that
   deleting a large one holds nobody up. No view shows these events. The
   session_deleted itself stays, so that no cursor is ever given twice. */
CREATE TABLE purges (
  session_id  TEXT PRIMARY KEY,
  cursor      INTEGER NOT NULL                 -- of the session_deleted: what is older goes
) STRICT, WITHOUT ROWID;

/* Full text over what was logged, brought up behind the writing. Contentless: the
   words are those of the event with this rowid (sessionstore/store/search.py), which is
   kept once. Marks in `about` (its type, session, user, day …) narrow a search
   without a look at each event. */
CREATE VIRTUAL TABLE search USING fts5 (
  text,                                        -- what was said
  parts,                                       -- of names in it: get User By Id
  about,
  content = '', tokenize = "unicode61 remove_diacritics 2 categories 'L* M* N* Co'"
);
INSERT INTO search (search, rank) VALUES ('automerge', 0);      -- index_search merges, a little with every call
INSERT INTO search (search, rank) VALUES ('crisismerge', 100);
INSERT INTO search (search, rank) VALUES ('usermerge', 8);      -- so many pieces become one

------------------------------------------------------------------------------
-- Material: what agents' programs left here to have it back as it was
------------------------------------------------------------------------------

/* Not made of events, and no event is made of it: nobody searches it, and neither
   the views nor the file tree show it (sessionstore/store/material.py). Times are
   milliseconds since 1970. What is deleted is hidden at once, and removed some at a
   time. */

/* The lines of a conversation, or of a sub-agent in it, as the agent's program wrote them. */
CREATE TABLE transcripts (
  transcript      INTEGER PRIMARY KEY,
  folder          TEXT NOT NULL,               -- the program's own names for it: the Agent SDK's project key,
  session         TEXT NOT NULL,               --   its session id,
  subpath         TEXT NOT NULL,               --   and what is beside the conversation itself; empty: that
  generation      INTEGER NOT NULL,            -- 1, 2, 3 …: the newest counts; older ones are of a file that was replaced
  source          TEXT NOT NULL CHECK (source IN ('sdk', 'file')),
  session_id      TEXT,                        -- the session of the store that it belongs to, if any; it may be gone
  written_by      TEXT,                        -- the name of the token that began it; null where none was needed
  created         INTEGER NOT NULL,
  updated         INTEGER NOT NULL,
  lines           INTEGER NOT NULL DEFAULT 0,
  bytes           INTEGER NOT NULL DEFAULT 0,  -- of these lines
  pieces          INTEGER NOT NULL DEFAULT 0,  -- of transcript_pieces count so many, the first; what stands behind is
                                               --   of a batch that was broken off
  stored_bytes    INTEGER NOT NULL DEFAULT 0,  -- of its pieces
  digest          TEXT NOT NULL DEFAULT '',    -- SHA-256 of its bytes, hexadecimal
  source_bytes    INTEGER NOT NULL DEFAULT 0,  -- of what it was made from, before secrets were taken out
  source_digest   TEXT,                        -- of that; null: not known
  summary         TEXT,                        -- what the program folds of a main conversation; a JSON object
  summary_version INTEGER NOT NULL DEFAULT 0,  -- rises with every change of it
  summarized      INTEGER,                     -- when it last changed
  is_deleted      INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX transcripts_by_key ON transcripts (folder, session, subpath, generation) WHERE NOT is_deleted;
CREATE INDEX transcripts_by_session ON transcripts (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX transcripts_deleted    ON transcripts (transcript) WHERE is_deleted;

/* Their bytes one after the other, in pieces that end wherever they are full. */
CREATE TABLE transcript_pieces (
  transcript  INTEGER NOT NULL,
  number      INTEGER NOT NULL,                -- from 0
  packed      BLOB NOT NULL,                   -- zlib
  PRIMARY KEY (transcript, number)
) STRICT;

/* What was taken in already, so that the same again changes nothing. */
CREATE TABLE transcript_batches (
  transcript  INTEGER NOT NULL,
  batch       TEXT NOT NULL,                   -- the caller's name for it
  part        INTEGER NOT NULL,                -- from 0: a large batch is kept some lines at a time
  lines       INTEGER NOT NULL,
  digest      BLOB NOT NULL,                   -- SHA-256 of them as they came
  PRIMARY KEY (transcript, batch, part)
) STRICT, WITHOUT ROWID;

/* Material of these names belongs to this session: `claude:` and a conversation's id, `langgraph:` and a thread's. It
   says so in its metadata, or by running a graph in that thread; the last that says so has it. */
CREATE TABLE claims (
  name        TEXT NOT NULL,
  claimed_by  TEXT NOT NULL,                   -- the token that said so, which has to have written the material as well;
                                               --   empty: none was needed
  session_id  TEXT NOT NULL,
  PRIMARY KEY (name, claimed_by)
) STRICT, WITHOUT ROWID;

/* How much room material takes. A scope `rows of N` is what the rows of a thread take beside their values; it counts for
   the session that the thread belongs to then. */
CREATE TABLE material_sizes (
  scope  TEXT PRIMARY KEY,                     -- a session, or a thread of none; '-': transcripts of none; empty: all
  bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER transcript_grown AFTER UPDATE OF stored_bytes, session_id ON transcripts BEGIN
  UPDATE material_sizes SET bytes = bytes - OLD.stored_bytes WHERE scope IN ('', coalesce(OLD.session_id, '-'));
  INSERT INTO material_sizes VALUES ('', NEW.stored_bytes), (coalesce(NEW.session_id, '-'), NEW.stored_bytes)
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER transcript_gone AFTER DELETE ON transcripts BEGIN
  UPDATE material_sizes SET bytes = bytes - OLD.stored_bytes WHERE scope IN ('', coalesce(OLD.session_id, '-'));
  DELETE FROM material_sizes WHERE bytes = 0 AND scope = coalesce(OLD.session_id, '-');
END;

/* A thread of LangGraph: its checkpoints, and the writes of tasks that lead to the next one. What is in them is
   opaque; it is kept once for the same content within a scope. */
CREATE TABLE checkpoint_threads (
  thread_row  INTEGER PRIMARY KEY,
  thread      TEXT NOT NULL,                   -- the program's own name for it
  session_id  TEXT,                            -- the session of the store that it belongs to, if any; it may be gone
  written_by  TEXT,                            -- as of a transcript
  created     INTEGER NOT NULL,
  updated     INTEGER NOT NULL,
  is_deleted  INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX checkpoint_threads_by_name ON checkpoint_threads (thread) WHERE NOT is_deleted;
CREATE INDEX checkpoint_threads_by_session ON checkpoint_threads (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX checkpoint_threads_deleted    ON checkpoint_threads (thread_row) WHERE is_deleted;

CREATE TABLE checkpoints (
  thread_row  INTEGER NOT NULL,
  ns          TEXT NOT NULL,                   -- of a graph within the graph; empty: the outermost
  checkpoint  TEXT NOT NULL,                   -- sorts by time
  parent      TEXT,
  run_id      TEXT,
  created     INTEGER NOT NULL,
  about       TEXT NOT NULL                    -- for people: source, step …
              CHECK (json_type(about) = 'object'),
  versions    TEXT NOT NULL                    -- the version of each channel
              CHECK (json_type(versions) = 'object'),
  packed      BLOB NOT NULL,                   -- the checkpoint without values and versions, and its metadata
  PRIMARY KEY (thread_row, ns, checkpoint)
) STRICT, WITHOUT ROWID;

CREATE INDEX checkpoints_by_run ON checkpoints (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE checkpoint_channels (
  thread_row  INTEGER NOT NULL,
  ns          TEXT NOT NULL,
  channel     TEXT NOT NULL,
  version     TEXT NOT NULL,                   -- as JSON
  value       INTEGER NOT NULL,
  PRIMARY KEY (thread_row, ns, channel, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint_writes (
  thread_row  INTEGER NOT NULL,
  ns          TEXT NOT NULL,
  checkpoint  TEXT NOT NULL,                   -- which may come later than they
  task        TEXT NOT NULL,
  number      INTEGER NOT NULL,                -- negative: of a special kind, of which the last counts
  path        TEXT NOT NULL,                   -- of the task; they apply in the order of path, task, number
  channel     TEXT NOT NULL,
  value       INTEGER NOT NULL,
  PRIMARY KEY (thread_row, ns, checkpoint, task, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint_values (
  value         INTEGER PRIMARY KEY,
  scope         TEXT NOT NULL,                 -- the session, or the thread that belongs to none
  digest        BLOB NOT NULL,                 -- SHA-256 of type and content
  type          TEXT NOT NULL,                 -- how the program reads it
  pieces        INTEGER NOT NULL DEFAULT 0,    -- 0: it is not all here yet
  stored_bytes  INTEGER NOT NULL DEFAULT 0,
  uses          INTEGER NOT NULL DEFAULT 0,    -- by channels and writes
  touched       INTEGER NOT NULL               -- when it was last sent: what nobody uses goes some time after
) STRICT;

CREATE UNIQUE INDEX checkpoint_values_by_digest ON checkpoint_values (scope, digest);
CREATE INDEX checkpoint_values_unused ON checkpoint_values (touched) WHERE uses = 0;

CREATE TABLE checkpoint_pieces (
  value   INTEGER NOT NULL,
  number  INTEGER NOT NULL,                    -- from 0
  packed  BLOB NOT NULL,                       -- zlib
  PRIMARY KEY (value, number)
) STRICT;

CREATE TRIGGER checkpoint_value_kept AFTER UPDATE OF stored_bytes ON checkpoint_values BEGIN
  INSERT INTO material_sizes
  VALUES ('', NEW.stored_bytes - OLD.stored_bytes), (NEW.scope, NEW.stored_bytes - OLD.stored_bytes)
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER checkpoint_value_gone AFTER DELETE ON checkpoint_values BEGIN
  UPDATE material_sizes SET bytes = bytes - OLD.stored_bytes WHERE scope IN ('', OLD.scope);
  DELETE FROM material_sizes WHERE bytes = 0 AND scope = OLD.scope;
END;

CREATE TRIGGER checkpoint_channel_made AFTER INSERT ON checkpoint_channels BEGIN
  UPDATE checkpoint_values SET uses = uses + 1 WHERE value = NEW.value;
END;

CREATE TRIGGER checkpoint_channel_gone AFTER DELETE ON checkpoint_channels BEGIN
  UPDATE checkpoint_values SET uses = uses - 1 WHERE value = OLD.value;
END;

CREATE TRIGGER checkpoint_write_made AFTER INSERT ON checkpoint_writes BEGIN
  UPDATE checkpoint_values SET uses = uses + 1 WHERE value = NEW.value;
END;

CREATE TRIGGER checkpoint_write_gone AFTER DELETE ON checkpoint_writes BEGIN
  UPDATE checkpoint_values SET uses = uses - 1 WHERE value = OLD.value;
END;

------------------------------------------------------------------------------
-- Folding: log entries
------------------------------------------------------------------------------

/* Nearly every event is an entry of a log, so an entry has this one trigger to
   pass, and all other events go through the view `changes` to the one of theirs. */
CREATE TRIGGER entry_logged AFTER INSERT ON events WHEN NEW.seq IS NOT NULL BEGIN
  UPDATE sessions SET updated = NEW.received_at, heard = NEW.received_at, last_cursor = NEW.cursor,
         actions        = iif(NEW.type = 'action', NEW.seq, actions),
         responses      = iif(NEW.type = 'response', NEW.seq, responses),
         agents_spawned = agents_spawned + (NEW.type = 'action' AND NEW.kind = 'task_spawn'),
         tool_calls     = tool_calls     + (NEW.type = 'action' AND NEW.kind = 'tool_call'),
         mcp_calls      = mcp_calls      + (NEW.type = 'action' AND NEW.kind = 'mcp_call'),
         files_modified = files_modified + (NEW.type = 'action' AND NEW.kind IN ('file_write', 'file_edit')),
         bash_commands  = bash_commands  + (NEW.type = 'action' AND NEW.kind = 'bash_exec')
  WHERE session_id = NEW.session_id;

  /* Claude Code's own tools count as what they are as well. */
  UPDATE sessions SET
         mcp_calls      = mcp_calls      + coalesce(NEW.data ->> '$.tool' GLOB 'mcp__*', 0),
         files_modified = files_modified + coalesce(NEW.data ->> '$.tool' IN ('Write', 'Edit', 'MultiEdit',
                                                                              'NotebookEdit'), 0),
         bash_commands  = bash_commands  + coalesce(NEW.data ->> '$.tool' = 'Bash', 0)
  WHERE NEW.kind = 'tool_call' AND NEW.type = 'action' AND session_id = NEW.session_id;

  INSERT INTO asked SELECT NEW.cursor, NEW.session_id WHERE json_type(NEW.data, '$.attention') = 'object';

  UPDATE counts SET number = number + 1 WHERE what = 'events' AND name = NEW.type;
  INSERT INTO minutes VALUES (substr(NEW.received_at, 1, 16), 1) ON CONFLICT DO UPDATE SET events = events + 1;
END;

------------------------------------------------------------------------------
-- Folding: what a session waits for, and whether it is over
------------------------------------------------------------------------------

/* An event by what of it a session's waiting depends on. */
CREATE VIEW words AS
SELECT cursor, session_id, agent_id, type, kind, timestamp,
       coalesce(substr(data ->> '$.attention.reason', 1, 200), 'input') AS reason,
       coalesce(substr(data ->> '$.attention.message', 1, 500), '') AS message,
       iif(kind IS NOT NULL OR type = 'metadata_updated', json_type(data, '$.attention') = 'null', 0) AS asks_no_more,
       substr(data ->> '$.attention.id', 1, 200) AS own_id,
       substr(coalesce(data ->> '$.toolUseId', data ->> '$.tool_use_id'), 1, 200) AS tool_use_id,
       substr(coalesce(data ->> '$.tool', data ->> '$.attention.tool', data ->> '$.tool_name'), 1, 200) AS tool,
       length(coalesce(data -> '$.input', data -> '$.tool_input'))
         || substr(coalesce(data -> '$.input', data -> '$.tool_input'), 1, 500) AS input,
       CASE WHEN coalesce(data ->> '$.toolUseId', data ->> '$.attention.id') IS NOT NULL THEN 3
            WHEN kind IS 'notification' THEN 0                   -- which never says who asks
            WHEN data ->> '$.tool' IS NOT NULL THEN 2 ELSE 1 END AS exactness,
       kind IS NOT NULL AS is_logged,
       coalesce(data ->> '$.agentId', agent_id) AS about_agent,
       data ->> '$.status' AS status,
       substr(data ->> '$.attentionId', 1, 200) AS closes_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', data ->> '$.attention.deadline') AS deadline,
       coalesce(json_array_length(data, '$.background_tasks'), 0) > 0 AS goes_on_behind,
       data ->> '$.machineMade' IS 1 OR EXISTS (               -- as a prompt: Claude Code's own words
         SELECT 1 FROM json_each('["task-notification>", "command-name>", "command-message>", "local-command-",
                                   "system-reminder>"]') AS tag
         WHERE instr(ltrim(coalesce(data ->> '$.prompt', data ->> '$.text', data ->> '$.content'), char(9, 10, 13, 32)),
                     '<' || tag.value) = 1)
         AS is_machine_made
FROM events;

/* An event that asks, and the open ask that it repeats. What names its call, or has
   a name of its own, is the same if that is; a notification is of whatever is open;
   and all else has to be the same word for word, or the same call. */
CREATE VIEW repeated_asks AS
SELECT w.cursor, a.cursor AS ask, w.exactness >= a.exactness AS is_as_exact
FROM words w CROSS JOIN asks a ON a.session_id = w.session_id
WHERE (a.reason = 'input') = (w.reason = 'input') AND (a.reason = 'budget') = (w.reason = 'budget')
  AND CASE WHEN w.reason = 'input' THEN 1
           WHEN a.own_id IS NOT NULL AND w.own_id IS NOT NULL THEN a.own_id = w.own_id
           WHEN a.tool_use_id IS NOT NULL AND w.tool_use_id IS NOT NULL THEN a.tool_use_id = w.tool_use_id
           WHEN w.exactness = 0 THEN coalesce(w.agent_id, a.agent_id) IS a.agent_id
                                 AND coalesce(w.tool, a.tool) IS coalesce(a.tool, w.tool)
           WHEN a.exactness = 0 THEN coalesce(a.agent_id, w.agent_id) IS w.agent_id
                                 AND coalesce(a.tool, w.tool) IS coalesce(w.tool, a.tool)
           WHEN a.agent_id IS NOT w.agent_id OR a.tool IS NOT w.tool THEN 0
           WHEN a.tool IS NOT NULL THEN coalesce(a.input, w.input) IS coalesce(w.input, a.input)
           ELSE a.own_id IS w.own_id AND a.tool_use_id IS w.tool_use_id AND a.reason = w.reason
                AND (a.message = w.message OR NOT (w.is_logged OR a.is_logged)) END;

/* An event, and the open asks that it closes. That of a budget is only closed by who answers, or releases what is
   paused; and a caller who says that nothing is waited for closes what is his own. */
CREATE VIEW closed_asks AS
SELECT w.cursor, a.cursor AS ask
FROM words w CROSS JOIN asks a ON a.session_id = w.session_id
WHERE a.reason <> 'budget' AND (CASE
  WHEN w.kind = 'prompt' AND w.type = 'action' THEN a.agent_id IS w.agent_id
                                                    AND (a.reason = 'input' OR NOT w.is_machine_made)
  WHEN w.kind IN ('assistant_message', 'error') AND w.type = 'response' AND w.agent_id IS NULL
    THEN a.reason <> 'input' AND (a.agent_id IS NULL OR NOT w.goes_on_behind)
  WHEN w.kind = 'tool_call' THEN a.reason = 'input' AND w.agent_id IS NULL
  WHEN w.kind = 'post_tool_batch' THEN a.tool IS NOT NULL AND a.agent_id IS w.agent_id
  WHEN w.type IN ('agent_completed', 'agent_updated')
    THEN a.agent_id = w.about_agent AND (w.type = 'agent_completed' OR w.status IN ('completed', 'failed', 'cancelled'))
  ELSE 0 END
  OR w.asks_no_more AND CASE WHEN w.closes_id IS NOT NULL THEN a.own_id IS w.closes_id
                               ELSE a.agent_id IS w.agent_id AND (a.reason = 'input' OR
                                 (SELECT e.actor FROM events e WHERE e.cursor = w.cursor)
                                   IS (SELECT o.actor FROM events o WHERE o.cursor = a.cursor)) END
  OR w.kind IN ('tool_result', 'tool_error') AND w.agent_id IS NULL AND a.reason = 'input');

/* A result, an error or a refusal of a call, and the open asks that may have been about it: the oldest was. */
CREATE VIEW settled_asks AS
SELECT w.cursor, a.cursor AS ask, a.tool_use_id IS w.tool_use_id AS is_exact
FROM words w CROSS JOIN asks a ON a.session_id = w.session_id
WHERE w.kind IN ('tool_result', 'tool_error', 'permission_denied') AND a.reason <> 'input'
  AND CASE WHEN a.tool_use_id IS NOT NULL AND w.tool_use_id IS NOT NULL THEN a.tool_use_id = w.tool_use_id
           ELSE (a.agent_id IS w.agent_id OR a.exactness = 0 AND a.tool IS NOT NULL)
                AND (a.tool IS NOT NULL OR a.reason = 'permission') AND coalesce(a.tool, w.tool) IS w.tool
                AND coalesce(a.input, w.input) IS coalesce(w.input, a.input) END;

/* The newest event of a session that waits, is lost or is over. What answers an ask
   closes it. What an agent says of its own accord after the end brings the session
   back; what only closes what was open then does not, nor what others say. */
CREATE TRIGGER word_heard AFTER UPDATE OF last_cursor ON sessions WHEN OLD.status <> 'active' BEGIN
  DELETE FROM asks
  WHERE OLD.status = 'waiting' AND cursor IN (
    SELECT ask FROM closed_asks WHERE cursor = NEW.last_cursor
    UNION ALL SELECT * FROM (SELECT ask FROM settled_asks WHERE cursor = NEW.last_cursor
                             ORDER BY is_exact DESC, ask LIMIT 1));
  UPDATE sessions SET status = 'active', ended = NULL
  WHERE session_id = NEW.session_id AND OLD.status <> 'waiting' AND EXISTS (
    SELECT 1 FROM words w WHERE w.cursor = NEW.last_cursor AND CASE w.type
      WHEN 'action' THEN OLD.status = 'lost' OR w.kind NOT IN ('permission_denied', 'post_tool_batch', 'post_compact',
             'notification', 'program_ended', 'events_dropped', 'subagent_stop', 'session_end', 'setup',
             'instructions_loaded', 'config_change', 'cwd_changed', 'file_changed', 'worktree_remove',
             'post_model_switch') AND w.kind NOT GLOB '*_result'
      WHEN 'response' THEN OLD.status = 'lost' OR w.kind <> 'error' AND w.kind NOT GLOB '*_result'
             AND w.kind NOT GLOB '*_error' AND w.kind NOT GLOB '*_end'
      WHEN 'agent_completed' THEN OLD.status = 'lost'
      WHEN 'agent_updated' THEN OLD.status = 'lost' OR w.status NOT IN ('completed', 'failed', 'cancelled') IS NOT 0
      WHEN 'goal_updated' THEN OLD.status = 'lost' OR w.status NOT IN ('completed', 'failed', 'cancelled') IS NOT 0
      ELSE w.type IN ('state_updated', 'goal_added', 'agent_spawned') END
      AND (OLD.status = 'lost' OR w.timestamp > OLD.ended));
END;

/* Whoever says `attention` says that a person is waited for, and for what. */
CREATE VIEW asked AS SELECT cursor, session_id FROM asks;

CREATE TRIGGER ask_told INSTEAD OF INSERT ON asked BEGIN
  INSERT INTO retold_asks
  SELECT NEW.cursor, NEW.session_id, max(ask) FROM repeated_asks WHERE cursor = NEW.cursor HAVING max(ask) IS NOT NULL;
  UPDATE asks SET (told, agent_id, reason, message, own_id, tool_use_id, tool, input, exactness, is_logged, deadline) = (
    SELECT cursor, agent_id, reason, message, own_id, coalesce(tool_use_id, asks.tool_use_id), tool, input, exactness,
           is_logged, coalesce(deadline, asks.deadline)
    FROM words WHERE cursor = NEW.cursor)
  WHERE cursor = (SELECT max(ask) FROM repeated_asks WHERE cursor = NEW.cursor AND is_as_exact);
  INSERT INTO asks
  SELECT NEW.cursor, NEW.session_id, NEW.cursor, w.agent_id, w.reason, w.message, w.own_id, w.tool_use_id, w.tool,
         w.input, w.exactness, w.is_logged, w.deadline
  FROM words w CROSS JOIN sessions s ON s.session_id = w.session_id
  WHERE w.cursor = NEW.cursor AND NOT (w.reason = 'input' AND w.agent_id IS NOT NULL)
    AND (s.status IN ('active', 'waiting') OR w.is_logged AND w.timestamp > s.ended)
    AND NOT EXISTS (SELECT 1 FROM repeated_asks WHERE cursor = NEW.cursor)
    AND NOT (w.exactness = 0 AND w.reason <> 'input' AND EXISTS (       -- a notification of what was answered meanwhile
      SELECT 1 FROM (SELECT ended, status FROM ended_asks WHERE session_id = NEW.session_id
                     ORDER BY cursor DESC LIMIT 1) x CROSS JOIN events e ON e.cursor = x.ended
      WHERE x.status = 'answered' AND e.timestamp >= w.timestamp));
END;

CREATE TRIGGER ask_opened AFTER INSERT ON asks BEGIN
  UPDATE sessions SET status = 'waiting', ended = NULL WHERE session_id = NEW.session_id;
  INSERT INTO status_changes SELECT NEW.cursor, NEW.session_id, 'waiting' WHERE NEW.reason <> 'input' ON CONFLICT DO NOTHING;
  /* Of a hundred that nobody has answered the oldest gives way: each word is held against all. */
  DELETE FROM asks WHERE cursor = (SELECT cursor FROM asks WHERE session_id = NEW.session_id
                                   ORDER BY cursor DESC LIMIT 1 OFFSET 100);
END;

CREATE TRIGGER ask_closed AFTER DELETE ON asks BEGIN
  INSERT INTO ended_asks
  SELECT OLD.cursor, OLD.session_id, OLD.told, OLD.agent_id, OLD.reason, OLD.tool_use_id, OLD.deadline, last_cursor,
         iif((SELECT type FROM events WHERE cursor = last_cursor) = 'answered', 'answered', 'closed')
  FROM sessions WHERE session_id = OLD.session_id AND OLD.reason <> 'input';
  UPDATE sessions SET status = 'active'
  WHERE session_id = OLD.session_id AND status = 'waiting'
    AND NOT EXISTS (SELECT 1 FROM asks WHERE session_id = OLD.session_id);
END;

------------------------------------------------------------------------------
-- Folding: all other events
------------------------------------------------------------------------------

CREATE VIEW changes AS SELECT * FROM events WHERE seq IS NULL;

CREATE TRIGGER change_folded AFTER INSERT ON events WHEN NEW.seq IS NULL BEGIN
  UPDATE sessions SET updated = NEW.received_at, last_cursor = NEW.cursor WHERE session_id = NEW.session_id;
  UPDATE sessions SET heard = NEW.received_at
  WHERE session_id = NEW.session_id AND NEW.type NOT IN (        -- none of these is a word of the agent
    'metadata_updated', 'session_lost', 'note_added', 'usage_reported', 'budget_crossed', 'answered', 'ask_closed',
    'ordered', 'order_delivered', 'order_closed');
  INSERT INTO changes VALUES (NEW.cursor, NEW.type, NEW.session_id, NEW.user_id, NEW.event_id, NEW.agent_id,
                              NEW.timestamp, NEW.received_at, NEW.patch, NULL, NULL, NEW.data, NEW.actor);
  UPDATE counts SET number = number + 1 WHERE what = 'events' AND name = NEW.type;
  INSERT INTO minutes VALUES (substr(NEW.received_at, 1, 16), 1) ON CONFLICT DO UPDATE SET events = events + 1;
END;

CREATE TRIGGER event_purged AFTER DELETE ON events BEGIN
  UPDATE counts SET number = number - 1 WHERE what = 'events' AND name = OLD.type;
END;

CREATE TRIGGER session_created INSTEAD OF INSERT ON changes WHEN NEW.type = 'session_created' BEGIN
  INSERT INTO sessions (session_id, user_id, parent_session, is_implicit, created, updated, heard, created_cursor,
                        last_cursor)
  VALUES (NEW.session_id, NEW.user_id, NEW.data ->> '$.parentSession', NEW.data -> '$.implicit' IS 'true',
          NEW.timestamp, NEW.received_at, NEW.received_at, NEW.cursor, NEW.cursor);
  INSERT INTO documents (session_id, name, document)
  VALUES (NEW.session_id, 'initial', initial_document(NEW.data, NEW.timestamp)),
         (NEW.session_id, 'metadata', metadata_after('{}', '{}', NEW.type, NEW.data)),
         (NEW.session_id, 'state', state_after('{}', NEW.type, NULL, NEW.data, NEW.timestamp));
  UPDATE sessions SET phase = (SELECT document ->> '$.phase' FROM documents
                               WHERE session_id = NEW.session_id AND name = 'state')
  WHERE session_id = NEW.session_id;
END;

/* A session that was made by its first word takes its beginning from whoever
   creates it later; any other keeps the one it has. Claude Code also starts, and
   not only by being resumed, inside a session that goes on: beside whoever created
   it, or anew once it has compacted or cleared what was said. That resumes nothing. */
CREATE TRIGGER session_resumed INSTEAD OF INSERT ON changes WHEN NEW.type = 'session_resumed' BEGIN
  UPDATE documents SET version = version + 1, document = initial_document(NEW.data, NEW.timestamp)
  WHERE session_id = NEW.session_id AND name = 'initial' AND NEW.data -> '$.initial' IS NOT NULL
    AND (SELECT is_implicit FROM sessions WHERE session_id = NEW.session_id);
  UPDATE documents SET version = version + 1,
         document = metadata_after(document, (SELECT metrics FROM counted WHERE session_id = NEW.session_id),
                                   iif((SELECT is_implicit FROM sessions WHERE session_id = NEW.session_id),
                                       'session_created', NEW.type), NEW.data)
  WHERE session_id = NEW.session_id AND name = 'metadata';
  UPDATE sessions SET user_id = NEW.user_id, status = 'active', ended = NULL, is_implicit = 0,
         resumes = resumes + NOT (is_implicit OR status IN ('active', 'waiting') AND
                                  coalesce(NEW.data ->> '$.metadata.source' IN ('startup', 'compact', 'clear'), 0)),
         parent_session = coalesce(parent_session, NEW.data ->> '$.parentSession')
  WHERE session_id = NEW.session_id;
  DELETE FROM asks WHERE session_id = NEW.session_id AND reason <> 'budget';
  UPDATE sessions SET status = 'waiting'
  WHERE session_id = NEW.session_id AND EXISTS (SELECT 1 FROM asks WHERE session_id = NEW.session_id);
  DELETE FROM documents WHERE session_id = NEW.session_id AND name = 'final';
END;

CREATE TRIGGER claimed INSTEAD OF INSERT ON changes
WHEN json_type(coalesce(NEW.data -> '$.metadata.claims', NEW.data -> '$.claims')) = 'array' BEGIN
  INSERT OR REPLACE INTO claims
  SELECT value, coalesce(NEW.actor, ''), NEW.session_id
  FROM json_each(coalesce(NEW.data -> '$.metadata.claims', NEW.data -> '$.claims'))
  WHERE type = 'text' AND (value GLOB 'claude:?*' OR value GLOB 'langgraph:?*');
  UPDATE transcripts SET session_id = NEW.session_id
  WHERE session_id IS NULL AND coalesce(written_by, '') = coalesce(NEW.actor, '')
    AND 'claude:' || session IN (SELECT name FROM claims WHERE session_id = NEW.session_id);
  UPDATE checkpoint_threads SET session_id = NEW.session_id
  WHERE session_id IS NULL AND coalesce(written_by, '') = coalesce(NEW.actor, '')
    AND 'langgraph:' || thread IN (SELECT name FROM claims WHERE session_id = NEW.session_id);
END;

/* LangChain's handler says in which thread a graph runs. */
CREATE TRIGGER thread_claimed AFTER INSERT ON events
WHEN NEW.kind = 'graph_start' AND json_type(NEW.data, '$.threadId') = 'text' BEGIN
  INSERT OR REPLACE INTO claims
  VALUES ('langgraph:' || (NEW.data ->> '$.threadId'), coalesce(NEW.actor, ''), NEW.session_id);
  UPDATE checkpoint_threads SET session_id = NEW.session_id
  WHERE session_id IS NULL AND NOT is_deleted AND thread = NEW.data ->> '$.threadId'
    AND coalesce(written_by, '') = coalesce(NEW.actor, '');
END;

CREATE TRIGGER metadata_updated INSTEAD OF INSERT ON changes WHEN NEW.type = 'metadata_updated' BEGIN
  UPDATE documents SET version = version + 1,
         document = metadata_after(document, (SELECT metrics FROM counted WHERE session_id = NEW.session_id),
                                   NEW.type, NEW.data)
  WHERE session_id = NEW.session_id AND name = 'metadata';
  UPDATE sessions SET parent_session = NEW.data ->> '$.parentSession'
  WHERE session_id = NEW.session_id AND json_type(NEW.data, '$.parentSession') IS NOT NULL;
  DELETE FROM asks WHERE session_id = NEW.session_id AND NEW.data ->> '$.status' <> 'waiting';
  UPDATE sessions SET status = NEW.data ->> '$.status',
         ended = iif(NEW.data ->> '$.status' IN ('completed', 'failed', 'cancelled'), coalesce(ended, NEW.timestamp),
                     NULL)
  WHERE session_id = NEW.session_id AND NEW.data ->> '$.status' IS NOT NULL;
  INSERT INTO asked SELECT NEW.cursor, NEW.session_id WHERE json_type(NEW.data, '$.attention') = 'object';
  INSERT INTO asks
  SELECT NEW.cursor, NEW.session_id, NEW.cursor, NULL, 'input', '', NULL, NULL, NULL, NULL, 1, 0, NULL
  WHERE NEW.data ->> '$.status' = 'waiting' AND NOT EXISTS (SELECT 1 FROM asks WHERE session_id = NEW.session_id);
END;

/* What the main agent said last. It is not looked for far back. */
CREATE VIEW last_words AS
SELECT s.session_id, (
  SELECT coalesce(e.data -> '$.message', e.data -> '$.text', e.data -> '$.content') FROM events e
  WHERE e.session_id = s.session_id AND e.type = 'response' AND e.seq > s.responses - 1000
    AND e.kind = 'assistant_message' AND e.agent_id IS NULL AND e.cursor >= s.created_cursor
  ORDER BY e.seq DESC LIMIT 1) AS message
FROM sessions s;

CREATE TRIGGER session_finalized INSTEAD OF INSERT ON changes WHEN NEW.type = 'session_finalized' BEGIN
  INSERT INTO documents (session_id, name, document)
  SELECT NEW.session_id, 'final', json_object(
           '$schema', 'session-final-v1', 'timestamp', NEW.timestamp,
           'status', coalesce(NEW.data ->> '$.status', 'success'), 'outcome', NEW.data -> '$.outcome',
           'goalsAchieved', (SELECT json_group_array(json(record)) FROM (
              SELECT record FROM goals WHERE session_id = NEW.session_id AND status = 'completed' ORDER BY position)),
           'finalResponse', json(coalesce(nullif(NEW.data -> '$.response', 'null'), (
              SELECT message FROM last_words WHERE session_id = NEW.session_id))),
           'exitCode', NEW.data -> '$.exitCode', 'reason', NEW.data -> '$.reason', 'metrics', json(metrics),
           'subsessions', json(subsessions))
  FROM counted WHERE session_id = NEW.session_id
  ON CONFLICT DO UPDATE SET document = excluded.document, version = version + 1;
  DELETE FROM asks WHERE session_id = NEW.session_id;
  UPDATE sessions SET ended = NEW.timestamp,
         status = CASE NEW.data ->> '$.status' WHEN 'failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled'
                  ELSE 'completed' END
  WHERE session_id = NEW.session_id;
END;

CREATE TRIGGER session_lost INSTEAD OF INSERT ON changes WHEN NEW.type = 'session_lost' BEGIN
  DELETE FROM asks WHERE session_id = NEW.session_id;
  UPDATE sessions SET status = 'lost' WHERE session_id = NEW.session_id AND ended IS NULL;
END;

CREATE TRIGGER session_deleted INSTEAD OF INSERT ON changes WHEN NEW.type = 'session_deleted' BEGIN
  DELETE FROM sessions WHERE session_id = NEW.session_id;
  INSERT INTO purges VALUES (NEW.session_id, NEW.cursor) ON CONFLICT DO UPDATE SET cursor = excluded.cursor;
  DELETE FROM claims WHERE session_id = NEW.session_id;
  UPDATE transcripts SET is_deleted = 1 WHERE session_id = NEW.session_id;
  UPDATE checkpoint_threads SET is_deleted = 1 WHERE session_id = NEW.session_id;
END;

CREATE TRIGGER state_changed INSTEAD OF INSERT ON changes
WHEN NEW.type IN ('state_updated', 'goal_added', 'goal_updated', 'agent_spawned', 'agent_updated', 'agent_completed')
  OR NEW.type IN ('session_finalized', 'metadata_updated') AND json_type(NEW.data, '$.cancelledAgents') = 'array'
BEGIN
  UPDATE sessions SET agents_spawned = agents_spawned + 1
  WHERE NEW.type = 'agent_spawned' AND session_id = NEW.session_id;
  UPDATE documents SET version = version + 1,
         document = state_after(document, NEW.type, NEW.patch, NEW.data, NEW.timestamp)
  WHERE session_id = NEW.session_id AND name = 'state';
END;

------------------------------------------------------------------------------
-- Folding: answers and orders
------------------------------------------------------------------------------

/* An event that asked, whether it was the first to do so or not, and the ask. */
CREATE VIEW named_asks AS
SELECT e.session_id, e.event_id, coalesce(r.ask, e.cursor) AS ask
FROM events e LEFT JOIN retold_asks r ON r.cursor = e.cursor;

/* The answer to a budget's ask is carried out by the order that goes with it. */
CREATE TRIGGER answered INSTEAD OF INSERT ON changes WHEN NEW.type = 'answered' BEGIN
  INSERT INTO orders (cursor, session_id, order_id, kind, agent_id, about)
  SELECT NEW.cursor, NEW.session_id, NEW.event_id, 'answer', a.agent_id, a.cursor
  FROM named_asks n JOIN asks a ON a.cursor = n.ask AND a.reason NOT IN ('input', 'budget')
  WHERE n.session_id = NEW.session_id AND n.event_id = NEW.data ->> '$.askId';
  DELETE FROM asks WHERE reason <> 'input' AND cursor = (
    SELECT ask FROM named_asks WHERE session_id = NEW.session_id AND event_id = NEW.data ->> '$.askId');
END;

CREATE TRIGGER ask_given_up INSTEAD OF INSERT ON changes WHEN NEW.type = 'ask_closed' BEGIN
  DELETE FROM asks WHERE reason <> 'input' AND cursor = (
    SELECT ask FROM named_asks WHERE session_id = NEW.session_id AND event_id = NEW.data ->> '$.askId');
END;

/* A pause may ask a person whether it goes on; whoever releases it has answered that. */
CREATE TRIGGER ordered INSTEAD OF INSERT ON changes
WHEN NEW.type = 'ordered' AND NEW.data ->> '$.order' IN ('stop', 'pause', 'release', 'say') BEGIN
  INSERT INTO orders (cursor, session_id, order_id, kind, agent_id, about, expires)
  SELECT NEW.cursor, NEW.session_id, NEW.event_id, NEW.data ->> '$.order', NEW.data ->> '$.agentId',
         (SELECT cursor FROM orders WHERE session_id = NEW.session_id AND order_id = NEW.data ->> '$.releases'),
         NEW.data ->> '$.expires'
  FROM sessions WHERE session_id = NEW.session_id;
  INSERT INTO asked SELECT NEW.cursor, NEW.session_id WHERE json_type(NEW.data, '$.attention') = 'object';
  DELETE FROM asks WHERE NEW.data ->> '$.order' = 'release' AND reason = 'budget' AND cursor = (
    SELECT cursor FROM orders WHERE session_id = NEW.session_id AND order_id = NEW.data ->> '$.releases');
  UPDATE orders SET is_open = 0, status = iif(status = 'waiting', 'expired', status), settled = coalesce(settled, NEW.cursor)
  WHERE NEW.data ->> '$.order' = 'release' AND kind = 'pause' AND is_open
    AND session_id = NEW.session_id AND order_id = NEW.data ->> '$.releases';
END;

/* What was carried out was, whatever was thought of it before. */
CREATE TRIGGER order_delivered INSTEAD OF INSERT ON changes WHEN NEW.type = 'order_delivered' BEGIN
  UPDATE orders SET status = 'delivered', settled = NEW.cursor, is_open = is_open AND kind = 'pause'
  WHERE session_id = NEW.session_id AND order_id = NEW.data ->> '$.orderId' AND status IN ('waiting', 'expired');
END;

CREATE TRIGGER order_closed INSTEAD OF INSERT ON changes WHEN NEW.type = 'order_closed' BEGIN
  UPDATE orders SET is_open = 0, settled = iif(status = 'waiting', NEW.cursor, settled),
         status = iif(status = 'waiting', iif(NEW.data ->> '$.why' = 'refused', 'refused', 'expired'), status)
  WHERE session_id = NEW.session_id AND order_id = NEW.data ->> '$.orderId' AND is_open;
END;

/* Nobody is there any more to carry it out. */
CREATE TRIGGER orders_left AFTER UPDATE OF status ON sessions
WHEN NEW.status IN ('completed', 'failed', 'cancelled', 'lost') AND NEW.status <> OLD.status BEGIN
  UPDATE orders SET is_open = 0, status = iif(status = 'waiting', 'expired', status),
         settled = coalesce(settled, NEW.last_cursor)
  WHERE session_id = NEW.session_id AND is_open;
END;

------------------------------------------------------------------------------
-- Folding: the lists of the state document
------------------------------------------------------------------------------

CREATE TRIGGER state_indexed AFTER UPDATE OF document ON documents WHEN NEW.name = 'state' BEGIN
  UPDATE sessions SET
         phase        = iif(json_type(NEW.document, '$.phase') = 'text', NEW.document ->> '$.phase', NULL),
         current_step = iif(json_type(NEW.document, '$.currentStep') = 'text', NEW.document ->> '$.currentStep', NULL)
  WHERE session_id = NEW.session_id;
END;

CREATE TRIGGER goals_indexed AFTER UPDATE OF document ON documents
WHEN NEW.name = 'state' AND NEW.document -> '$.goals' IS NOT OLD.document -> '$.goals' BEGIN
  DELETE FROM goals WHERE session_id = NEW.session_id;
  INSERT INTO goals
  SELECT NEW.session_id, value ->> '$.id', key, CAST(coalesce(value ->> '$.status', 'pending') AS TEXT), value
  FROM json_each(NEW.document, '$.goals')
  WHERE typeof(key) = 'integer' AND type = 'object' AND json_type(value, '$.id') = 'text'
  ON CONFLICT DO NOTHING;
  UPDATE sessions SET goals = (SELECT count(*) FROM goals WHERE session_id = NEW.session_id)
  WHERE session_id = NEW.session_id;
END;

CREATE TRIGGER agents_indexed AFTER UPDATE OF document ON documents
WHEN NEW.name = 'state' AND NEW.document -> '$.agents' IS NOT OLD.document -> '$.agents' BEGIN
  DELETE FROM agents WHERE session_id = NEW.session_id;
  INSERT INTO agents
  SELECT NEW.session_id, value ->> '$.agentId', key, CAST(coalesce(value ->> '$.status', 'spawned') AS TEXT), value
  FROM json_each(NEW.document, '$.agents.spawned')
  WHERE typeof(key) = 'integer' AND type = 'object' AND json_type(value, '$.agentId') = 'text'
  ON CONFLICT DO NOTHING;
  UPDATE sessions SET agents = (SELECT count(*) FROM agents WHERE session_id = NEW.session_id)
  WHERE session_id = NEW.session_id;
END;

------------------------------------------------------------------------------
-- Folding: what sessions are called
------------------------------------------------------------------------------

/* The metadata by what of it sessions are looked for. */
CREATE VIEW labelled AS
SELECT session_id,
       iif(json_type(document, '$.project') = 'text', document ->> '$.project', NULL) AS project,
       iif(json_type(document, '$.where.branch') = 'text', document ->> '$.where.branch', NULL) AS branch,
       iif(json_type(document, '$.where.host') = 'text', document ->> '$.where.host', NULL) AS host,
       CASE 'text' WHEN json_type(document, '$.continues') THEN document ->> '$.continues'
                   WHEN json_type(document, '$.forkedFrom') THEN document ->> '$.forkedFrom' END AS origin,
       json_type(document, '$.pinned') IS 'true' AS is_pinned
FROM documents WHERE name = 'metadata';

CREATE VIEW tagged AS
SELECT DISTINCT t.value AS tag, d.session_id
FROM documents d, json_each(d.document, '$.tags') t WHERE d.name = 'metadata' AND t.type = 'text';

CREATE TRIGGER labels_begun AFTER INSERT ON documents WHEN NEW.name = 'metadata' BEGIN
  INSERT INTO labels SELECT * FROM labelled WHERE session_id = NEW.session_id;
  INSERT INTO tags SELECT * FROM tagged WHERE session_id = NEW.session_id;
END;

CREATE TRIGGER labels_changed AFTER UPDATE OF document ON documents WHEN NEW.name = 'metadata' BEGIN
  INSERT INTO labels SELECT * FROM labelled WHERE session_id = NEW.session_id
  ON CONFLICT DO UPDATE SET (project, branch, host, origin, is_pinned)
     = (excluded.project, excluded.branch, excluded.host, excluded.origin, excluded.is_pinned);
END;

CREATE TRIGGER tags_changed AFTER UPDATE OF document ON documents
WHEN NEW.name = 'metadata' AND NEW.document -> '$.tags' IS NOT OLD.document -> '$.tags' BEGIN
  DELETE FROM tags WHERE session_id = NEW.session_id;
  INSERT INTO tags SELECT * FROM tagged WHERE session_id = NEW.session_id;
END;

/* The first thing that a person asked for names a session that has no name; Claude Code may say its own with any
   prompt. It is not looked for far into the log: a session of an earlier version keeps its ways. */
CREATE TRIGGER prompt_names AFTER INSERT ON events
WHEN NEW.kind = 'prompt' AND NEW.type = 'action' AND NEW.agent_id IS NULL
 AND (NEW.seq <= 200 OR json_type(NEW.data, '$.session_title') = 'text') BEGIN
  UPDATE documents SET version = version + 1,
         document = metadata_with_prompt(document, NEW.data, NEW.seq <= 200 AND NOT EXISTS (
           SELECT 1 FROM events e CROSS JOIN words w ON w.cursor = e.cursor
           WHERE e.session_id = NEW.session_id AND e.type = 'action' AND e.seq < NEW.seq AND e.kind = 'prompt'
             AND e.agent_id IS NULL AND NOT w.is_machine_made))
  WHERE session_id = NEW.session_id AND name = 'metadata'
    AND (json_type(NEW.data, '$.session_title') = 'text'
         OR document ->> '$.title' IS NULL AND NOT (SELECT is_machine_made FROM words WHERE cursor = NEW.cursor));
END;

------------------------------------------------------------------------------
-- Folding: what it cost
------------------------------------------------------------------------------

/* A usage_reported as a row of the ledger. A gateway may have one name for all requests: where a source tells of two
   that cannot be the same, what went in is added to it, and if that is not enough the name of the answer or event. */
CREATE VIEW reports AS
SELECT r.*, CASE
  WHEN NOT EXISTS (SELECT 1 FROM usage WHERE session_id = r.session_id AND request_key = r.request_name)
  THEN r.request_name
  ELSE coalesce(
    (SELECT substr(min(iif(u.message_id = r.message_id, 0, 1 + (u.output_tokens <> r.output_tokens)) || u.request_key), 2)
     FROM usage u
     WHERE u.session_id = r.session_id AND u.request_key IN (
         SELECT r.request_name UNION ALL
         SELECT request_key FROM usage
         WHERE session_id = r.session_id AND request_key BETWEEN r.apart AND r.request_name || '/' || r.went_in || '0')
       AND CASE
         WHEN u.message_id = r.message_id THEN 1
         WHEN u.message_id <> r.message_id AND u.grade = r.grade THEN 0
         WHEN u.source = r.source AND r.is_over THEN u.at = r.at
         WHEN u.source = r.source OR r.went_in = u.input_tokens || ':' || u.cache_read_tokens || ':'
                                                 || (u.cache_write_tokens + u.cache_write_1h_tokens) THEN 1
         ELSE NOT EXISTS (SELECT 1 FROM usage o WHERE o.session_id = r.session_id
                            AND o.request_key BETWEEN r.request_name || '/' AND r.request_name || '0') END),
    iif(EXISTS (SELECT 1 FROM usage WHERE session_id = r.session_id AND request_key = r.apart),
        r.apart || coalesce(r.message_id, r.event_id), r.apart)) END AS request_key
FROM (SELECT *, request_name || '/' || went_in || '/' AS apart FROM (
      SELECT cursor, session_id, event_id, coalesce(data ->> '$.requestKey', event_id) AS request_name,
             coalesce(data ->> '$.inputTokens', 0) || ':' || coalesce(data ->> '$.cacheReadTokens', 0) || ':' || (
               coalesce(data ->> '$.cacheWriteTokens', 0) + coalesce(data ->> '$.cacheWrite1hTokens', 0)) AS went_in,
             data ->> '$.messageId' AS message_id, data -> '$.hasRequestId' IS 'true' AS is_over,
             coalesce(data ->> '$.agentId', agent_id) AS agent_id, data ->> '$.promptId' AS prompt_id,
             coalesce(data ->> '$.source', 'caller') AS source,
             CASE data ->> '$.source' WHEN 'transcript' THEN 1 WHEN 'sdk' THEN 1
                                      WHEN 'otlp_logs' THEN iif(data -> '$.requestKey' IS NULL, 3, 2)
                                      WHEN 'otlp_spans' THEN CASE WHEN data -> '$.hasRequestId' IS 'true' THEN 2
                                                               WHEN data -> '$.isTraced' IS 'true' THEN 4 ELSE 3 END
                                      WHEN 'otlp_metrics' THEN 5 ELSE 3 END AS grade,
             data ->> '$.provider' AS provider, data ->> '$.model' AS model,
             coalesce(data ->> '$.inputTokens', 0) AS input_tokens,
             coalesce(data ->> '$.outputTokens', 0) AS output_tokens,
             coalesce(data ->> '$.cacheReadTokens', 0) AS cache_read_tokens,
             coalesce(data ->> '$.cacheWriteTokens', 0) AS cache_write_tokens,
             coalesce(data ->> '$.cacheWrite1hTokens', 0) AS cache_write_1h_tokens,
             coalesce(data ->> '$.reasoningTokens', 0) AS reasoning_tokens, data ->> '$.costUsd' AS cost_usd,
             iif(data ->> '$.costUsd' IS NULL, 'unpriced', coalesce(data ->> '$.costFrom', 'reported')) AS cost_from,
             coalesce(data ->> '$.at', timestamp) AS at, json_type(data, '$.at') IS NOT NULL AS is_dated
      FROM events WHERE type = 'usage_reported' AND json_type(data, '$.compaction') IS NULL)) r;

/* Two rows that tell of one request, and which of their sessions has copied the words of the other: the younger one, a
   fork. Gateways call each request the same, and which one in a session has the name alone is as they come: it must be
   within an hour, as telemetry tells of a request when it is over and a file when the answer begins, and the same
   answer; where only one names that, the same time or tokens. */
CREATE VIEW twins AS
SELECT u.session_id, u.request_key,
       iif((s.created, s.session_id) < (t.created, t.session_id), t.session_id, s.session_id) AS copied_in
FROM (SELECT *, '/' || input_tokens || ':' || cache_read_tokens || ':' || (cache_write_tokens + cache_write_1h_tokens)
             || '/' AS went_in FROM usage) u
CROSS JOIN usage o ON o.session_id <> u.session_id AND o.request_key IN (
  u.request_key, u.request_key || u.went_in, substr(u.request_key, 1, instr(u.request_key, u.went_in) - 1))
 AND o.at BETWEEN strftime('%Y-%m-%dT%H:%M:%fZ', u.at, '-1 hour') AND strftime('%Y-%m-%dT%H:%M:%fZ', u.at, '+1 hour')
 AND iif(o.message_id IS NULL OR u.message_id IS NULL, o.at = u.at OR o.total_tokens = u.total_tokens,
         o.message_id = u.message_id)
CROSS JOIN sessions s ON s.session_id = u.session_id CROSS JOIN sessions t ON t.session_id = o.session_id
WHERE iif((s.created, s.session_id) < (t.created, t.session_id), o.grade, u.grade) = 1;

/* Of one request the better source is believed, and of the same source whoever says
   more, as a stream does line after line, or says it last, as a new price does. What
   it cost is the client's own figure, whichever source has it. What a fork or a
   resumed file has copied counts in the older session alone. */
CREATE TRIGGER usage_reported INSTEAD OF INSERT ON changes
WHEN NEW.type = 'usage_reported' AND json_type(NEW.data, '$.compaction') IS NULL BEGIN
  UPDATE usage SET
    (cursor, message_id, source, grade, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
     cache_write_1h_tokens, reasoning_tokens, at, agent_id, prompt_id, provider, model) = (
      SELECT r.cursor, coalesce(r.message_id, usage.message_id), r.source, r.grade, r.input_tokens, r.output_tokens,
             r.cache_read_tokens, r.cache_write_tokens, r.cache_write_1h_tokens, r.reasoning_tokens, r.at,
             coalesce(r.agent_id, usage.agent_id), coalesce(r.prompt_id, usage.prompt_id),
             coalesce(r.provider, usage.provider), coalesce(r.model, usage.model)
      FROM reports r WHERE r.cursor = NEW.cursor)
  WHERE EXISTS (SELECT 1 FROM usage WHERE session_id = NEW.session_id
                                     AND request_key = coalesce(NEW.data ->> '$.requestKey', NEW.event_id))
    AND (session_id, request_key) = (SELECT r.session_id, r.request_key FROM reports r WHERE r.cursor = NEW.cursor)
    AND EXISTS (
      SELECT 1 FROM reports r WHERE r.cursor = NEW.cursor AND (
        (r.grade, r.source) < (usage.grade, usage.source) OR r.source = usage.source AND total_tokens <= r.input_tokens
          + r.output_tokens + r.cache_read_tokens + r.cache_write_tokens + r.cache_write_1h_tokens));
  UPDATE usage SET (cost_usd, cost_from) = (SELECT r.cost_usd, r.cost_from FROM reports r WHERE r.cursor = NEW.cursor)
  WHERE EXISTS (SELECT 1 FROM usage WHERE session_id = NEW.session_id
                                     AND request_key = coalesce(NEW.data ->> '$.requestKey', NEW.event_id))
    AND (session_id, request_key) = (SELECT r.session_id, r.request_key FROM reports r WHERE r.cursor = NEW.cursor)
    AND EXISTS (
      SELECT 1 FROM reports r WHERE r.cursor = NEW.cursor AND CASE 'reported'
        WHEN r.cost_from THEN usage.cost_from <> 'reported' OR usage.cursor = NEW.cursor
        WHEN usage.cost_from THEN 0
        ELSE usage.cursor = NEW.cursor END);
  INSERT INTO usage (session_id, request_key, message_id, cursor, agent_id, prompt_id, source, grade, provider, model,
                     input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
                     reasoning_tokens, cost_usd, cost_from, at, is_copy)
  SELECT session_id, request_key, message_id, cursor, agent_id, prompt_id, source, grade, provider, model,
         input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens,
         cost_usd, cost_from, at, 0
  FROM reports r WHERE cursor = NEW.cursor
  ON CONFLICT DO NOTHING;
  UPDATE usage SET is_copy = 1
  WHERE NOT is_copy AND (session_id, request_key) IN (
    SELECT t.copied_in, t.request_key FROM reports r CROSS JOIN twins t USING (session_id, request_key)
    WHERE r.cursor = NEW.cursor AND r.is_dated);
END;

CREATE TRIGGER budget_crossed INSTEAD OF INSERT ON changes WHEN NEW.type = 'budget_crossed' BEGIN
  INSERT INTO budget_crossings VALUES (NEW.cursor, NEW.data);
END;

/* A row of the ledger that comes (sign 1) or goes (-1). What counts elsewhere counts here not at all. */
CREATE VIEW usage_signed AS SELECT 1 AS sign, * FROM usage;

CREATE TRIGGER usage_summed INSTEAD OF INSERT ON usage_signed WHEN NOT NEW.is_copy BEGIN
  INSERT INTO usage_sums
  SELECT NEW.session_id, coalesce(NEW.agent_id, ''), NEW.family, unixepoch(NEW.at) / 900, coalesce(NEW.model, ''),
         NEW.cost_from, NEW.sign, NEW.sign * NEW.input_tokens, NEW.sign * NEW.output_tokens,
         NEW.sign * NEW.cache_read_tokens, NEW.sign * NEW.cache_write_tokens, NEW.sign * NEW.cache_write_1h_tokens,
         NEW.sign * NEW.reasoning_tokens, NEW.sign * coalesce(NEW.cost_usd, 0.0), 1
  WHERE EXISTS (SELECT 1 FROM sessions WHERE session_id = NEW.session_id)
  ON CONFLICT DO UPDATE SET
    requests = requests + excluded.requests, input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
    cache_write_1h_tokens = cache_write_1h_tokens + excluded.cache_write_1h_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens, cost_usd = cost_usd + excluded.cost_usd;
END;

CREATE TRIGGER sum_begun AFTER INSERT ON usage_sums BEGIN
  UPDATE usage_sums SET is_best = NOT is_best
  WHERE session_id = NEW.session_id AND agent_id = NEW.agent_id AND is_best <> (family = (
    SELECT min(o.family) FROM usage_sums o
    WHERE o.session_id = NEW.session_id AND o.agent_id = NEW.agent_id AND o.requests > 0));
END;

CREATE TRIGGER sum_emptied AFTER UPDATE OF requests ON usage_sums WHEN (NEW.requests = 0) <> (OLD.requests = 0) BEGIN
  UPDATE usage_sums SET is_best = NOT is_best
  WHERE session_id = NEW.session_id AND agent_id = NEW.agent_id AND is_best <> (family = (
    SELECT coalesce(min(o.family), NEW.family) FROM usage_sums o
    WHERE o.session_id = NEW.session_id AND o.agent_id = NEW.agent_id AND o.requests > 0));
END;

CREATE TRIGGER usage_added AFTER INSERT ON usage BEGIN
  INSERT INTO usage_signed SELECT 1, * FROM usage WHERE session_id = NEW.session_id AND request_key = NEW.request_key;
END;

CREATE TRIGGER usage_changing BEFORE UPDATE ON usage BEGIN
  INSERT INTO usage_signed SELECT -1, * FROM usage WHERE session_id = OLD.session_id AND request_key = OLD.request_key;
END;

CREATE TRIGGER usage_changed AFTER UPDATE ON usage BEGIN
  INSERT INTO usage_signed SELECT 1, * FROM usage WHERE session_id = NEW.session_id AND request_key = NEW.request_key;
END;

CREATE TRIGGER usage_going BEFORE DELETE ON usage BEGIN
  INSERT INTO usage_signed SELECT -1, * FROM usage WHERE session_id = OLD.session_id AND request_key = OLD.request_key;
END;

/* What counted in a session that is deleted counts in the one that copied it. */
CREATE TRIGGER usage_gone AFTER DELETE ON usage WHEN NOT OLD.is_copy BEGIN
  UPDATE usage SET is_copy = 0
  WHERE (session_id, request_key) = (
    SELECT o.session_id, o.request_key
    FROM (SELECT '/' || OLD.input_tokens || ':' || OLD.cache_read_tokens || ':'
                 || (OLD.cache_write_tokens + OLD.cache_write_1h_tokens) || '/' AS went_in)
    CROSS JOIN usage o ON o.is_copy AND o.request_key IN (
      OLD.request_key, OLD.request_key || went_in, substr(OLD.request_key, 1, instr(OLD.request_key, went_in) - 1))
    WHERE o.at BETWEEN strftime('%Y-%m-%dT%H:%M:%fZ', OLD.at, '-1 hour')
                   AND strftime('%Y-%m-%dT%H:%M:%fZ', OLD.at, '+1 hour')
      AND coalesce(o.message_id = OLD.message_id, o.at = OLD.at OR o.total_tokens = OLD.total_tokens)
    ORDER BY o.cursor LIMIT 1);
END;

------------------------------------------------------------------------------
-- Folding: how full the context is
------------------------------------------------------------------------------

/* What an event says of the context of the main agent: a report of usage, and hooks, by their own names. */
CREATE VIEW contexts_told AS
SELECT cursor, session_id, coalesce(data ->> '$.source', 'caller') AS source, coalesce(data ->> '$.at', timestamp) AS at,
       data ->> '$.contextTokens' AS tokens, data ->> '$.contextLimit' AS token_limit,
       json_type(data, '$.compaction') IS NOT NULL AS compactions
FROM events WHERE type = 'usage_reported'
UNION ALL
SELECT cursor, session_id, 'hook', timestamp, coalesce(data ->> '$.metadata.context_tokens', data ->> '$.context_tokens'),
       NULL, kind IS 'post_compact'
FROM events WHERE type <> 'usage_reported';

CREATE TRIGGER context_told AFTER INSERT ON events WHEN CASE
  WHEN NEW.kind IN ('post_compact', 'post_model_switch') THEN NEW.agent_id IS NULL
  WHEN NEW.type = 'usage_reported' THEN coalesce(NEW.data -> '$.contextTokens', NEW.data -> '$.compaction') IS NOT NULL
  WHEN NEW.type IN ('session_created', 'session_resumed') THEN json_type(NEW.data, '$.metadata.context_tokens') = 'integer'
  END BEGIN
  INSERT INTO contexts (session_id, source, at, tokens, token_limit, compactions)
  SELECT session_id, source, at, tokens, token_limit, compactions FROM contexts_told WHERE cursor = NEW.cursor
  ON CONFLICT DO UPDATE SET
    compactions = compactions + excluded.compactions,
    token_limit = iif(excluded.at >= at, coalesce(excluded.token_limit, token_limit),
                      coalesce(token_limit, excluded.token_limit)),
    tokens = iif(excluded.at >= at, excluded.tokens, tokens), at = max(excluded.at, at);
END;

------------------------------------------------------------------------------
-- Folding: counts
------------------------------------------------------------------------------

CREATE TRIGGER session_counted AFTER INSERT ON sessions BEGIN
  INSERT INTO counts VALUES ('sessions', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
  INSERT INTO users VALUES (NEW.user_id, 1) ON CONFLICT DO UPDATE SET sessions = sessions + 1;
END;

CREATE TRIGGER session_recounted AFTER UPDATE OF status ON sessions WHEN NEW.status <> OLD.status BEGIN
  UPDATE counts SET number = number - 1 WHERE what = 'sessions' AND name = OLD.status;
  INSERT INTO counts VALUES ('sessions', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER status_changed AFTER UPDATE OF status ON sessions
WHEN NEW.status <> OLD.status AND NEW.status IN ('waiting', 'failed', 'lost') BEGIN
  INSERT INTO status_changes VALUES (NEW.last_cursor, NEW.session_id, NEW.status)
  ON CONFLICT DO UPDATE SET status = excluded.status;
END;

CREATE TRIGGER session_claimed AFTER UPDATE OF user_id ON sessions WHEN NEW.user_id <> OLD.user_id BEGIN
  UPDATE users SET sessions = sessions - 1 WHERE user_id = OLD.user_id;
  DELETE FROM users WHERE user_id = OLD.user_id AND sessions = 0;
  INSERT INTO users VALUES (NEW.user_id, 1) ON CONFLICT DO UPDATE SET sessions = sessions + 1;
END;

CREATE TRIGGER session_discounted AFTER DELETE ON sessions BEGIN
  UPDATE counts SET number = number - 1 WHERE what = 'sessions' AND name = OLD.status;
  UPDATE users SET sessions = sessions - 1 WHERE user_id = OLD.user_id;
  DELETE FROM users WHERE user_id = OLD.user_id AND sessions = 0;
END;

CREATE TRIGGER goal_counted AFTER INSERT ON goals BEGIN
  INSERT INTO counts VALUES ('goals', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER goal_discounted AFTER DELETE ON goals BEGIN
  UPDATE counts SET number = number - 1 WHERE what = 'goals' AND name = OLD.status;
END;

CREATE TRIGGER agent_counted AFTER INSERT ON agents BEGIN
  INSERT INTO counts VALUES ('agents', NEW.status, 1) ON CONFLICT DO UPDATE SET number = number + 1;
END;

CREATE TRIGGER agent_discounted AFTER DELETE ON agents BEGIN
  UPDATE counts SET number = number - 1 WHERE what = 'agents' AND name = OLD.status;
END;

------------------------------------------------------------------------------
-- Views: what everybody reads
------------------------------------------------------------------------------

/* A session's metrics as shown, and the sessions it started. CROSS JOIN, here and
   below, has SQLite begin with the sessions, which have the index to sort by. */
CREATE VIEW counted AS
SELECT s.session_id,
       json_patch(d.document -> '$.metrics', json_object(
         'agentsSpawned', s.agents_spawned + coalesce(d.document ->> '$.metrics.agentsSpawned', 0),
         'toolCalls',     s.tool_calls     + coalesce(d.document ->> '$.metrics.toolCalls', 0),
         'mcpCalls',      s.mcp_calls      + coalesce(d.document ->> '$.metrics.mcpCalls', 0),
         'filesModified', s.files_modified + coalesce(d.document ->> '$.metrics.filesModified', 0),
         'bashCommands',  s.bash_commands  + coalesce(d.document ->> '$.metrics.bashCommands', 0))) AS metrics,
       (SELECT json_group_array(session_id)
        FROM (SELECT c.session_id FROM sessions c WHERE c.parent_session = s.session_id
              ORDER BY c.created_cursor)) AS subsessions
FROM sessions s CROSS JOIN documents d ON d.session_id = s.session_id AND d.name = 'metadata';

/* What a session waits for, as its metadata shows it: the oldest ask, whole, with the
   others, cut short; else that the agent sits at its prompt. */
CREATE VIEW attention AS
SELECT session_id, json_array_length(asks) AS number, asks ->> '$[0].since' AS since,
       iif(json_array_length(asks) > 1, json_set(asks -> '$[0]', '$.others', json_remove(asks, '$[0]')),
           asks -> '$[0]') AS document
FROM (
  SELECT session_id, (
    SELECT json_group_array(json(document)) FROM (
      SELECT json_patch(CASE a.cursor WHEN min(a.cursor) OVER () THEN (
               SELECT json_patch(coalesce(data -> '$.attention', '{}'), json_object(
                        'message', coalesce(CAST(data ->> '$.attention.message' AS TEXT), '')))
               FROM events e WHERE e.cursor = a.told)
             ELSE json_object('message', a.message) END, json_object(
               'reason', a.reason, 'since', o.timestamp, 'askId', iif(a.reason = 'input', NULL, o.event_id),
               'agentId', a.agent_id, 'tool', a.tool)) AS document
      FROM asks a CROSS JOIN events o ON o.cursor = a.cursor
      WHERE a.session_id = s.session_id
        AND (a.reason <> 'input' OR NOT EXISTS (SELECT 1 FROM asks other
                                                WHERE other.session_id = s.session_id AND other.reason <> 'input'))
      ORDER BY a.cursor)) AS asks
  FROM sessions s);

/* The sums that count: of each agent those of its best family. Spans in agents that only their trace knows count where
   nobody better tells of the session, and where they count, metrics do not. */
CREATE VIEW usage_counted AS
SELECT *, iif(cost_from = 'unpriced', requests, 0) AS unpriced, cost_from <> 'unpriced' AS is_priced
FROM usage_sums u
WHERE is_best AND requests > 0 AND CASE family
  WHEN 4 THEN NOT EXISTS (SELECT 1 FROM usage_sums o WHERE o.session_id = u.session_id AND o.family < 4 AND o.requests > 0)
  WHEN 5 THEN NOT EXISTS (SELECT 1 FROM usage_sums o WHERE o.session_id = u.session_id AND o.family = 4 AND o.requests > 0)
  ELSE 1 END;

/* How full the context is, as who said so last has it: what is more than the limit shows that the limit is another. */
CREATE VIEW context AS
SELECT s.session_id, (
  SELECT json_object('tokens', tokens, 'limit', iif(most >= coalesce(tokens, 0), most, NULL), 'compactions', number)
  FROM (SELECT tokens, (SELECT max(y.compactions) FROM contexts y WHERE y.session_id = x.session_id) AS number,
               (SELECT y.token_limit FROM contexts y WHERE y.session_id = x.session_id AND y.token_limit IS NOT NULL
                ORDER BY y.at DESC LIMIT 1) AS most
        FROM contexts x WHERE x.session_id = s.session_id ORDER BY x.tokens IS NULL, x.at DESC LIMIT 1)) AS document
FROM sessions s;

/* metadata.json, as GET /api/sessions/ID has it too. What was used is the ledger's sum and what callers added
   themselves; `from` says where its price is from, of several the least certain. */
CREATE VIEW metadata AS
SELECT s.session_id, s.user_id, s.status, s.created, s.parent_session, s.created_cursor, s.last_cursor,
       d.document -> '$.tags' AS tags,
       rtrim(json_object(
         '$schema', 'session-metadata-v1', 'sessionId', s.session_id, 'userId', s.user_id, 'created', s.created,
         'updated', s.updated, 'status', s.status,
         'attention', CASE s.status WHEN 'waiting' THEN json((
            SELECT a.document FROM attention a WHERE a.session_id = s.session_id)) END,
         'phase', s.phase, 'currentStep', s.current_step, 'goals', s.goals, 'agents', s.agents, 'actions', s.actions,
         'responses', s.responses, 'metrics', json(c.metrics), 'parentSession', s.parent_session,
         'subsessions', json(c.subsessions), 'ended', s.ended,
         'duration', max(0, CAST(round((julianday(s.ended) - julianday(s.created)) * 86400000) AS INTEGER)),
         'resumes', s.resumes, 'lastCursor', s.last_cursor), '}')
       || coalesce(',"context":' || x.document, '') || ',' || substr(json_remove(json_replace(coalesce((
            SELECT json_set(json_remove(d.document, '$.metrics'), '$.cost', json(p.cost), '$.tokenUsage', json_patch(
                     d.document -> '$.tokenUsage', json_object(
                       'input', p.input + coalesce(d.document ->> '$.tokenUsage.input', 0),
                       'output', p.output + coalesce(d.document ->> '$.tokenUsage.output', 0),
                       'cacheRead', p.cache_read + coalesce(d.document ->> '$.tokenUsage.cacheRead', 0),
                       'cacheWrite', p.cache_write + coalesce(d.document ->> '$.tokenUsage.cacheWrite', 0),
                       'reasoning', p.reasoning + coalesce(d.document ->> '$.tokenUsage.reasoning', 0),
                       'total', p.total + coalesce(d.document ->> '$.tokenUsage.total', 0))))
            FROM (SELECT sum(requests) AS requests, sum(input_tokens) AS input, sum(output_tokens) AS output,
                         sum(cache_read_tokens) AS cache_read, sum(reasoning_tokens) AS reasoning,
                         sum(cache_write_tokens + cache_write_1h_tokens) AS cache_write,
                         sum(input_tokens + output_tokens + cache_read_tokens + cache_write_tokens
                             + cache_write_1h_tokens) AS total,
                         json_object('usd', iif(max(is_priced), round(sum(cost_usd), 10), NULL),
                                     'unpricedRequests', sum(unpriced),
                                     'from', CASE WHEN max(cost_from = 'computed') THEN 'computed'
                                                  WHEN max(cost_from = 'own') THEN 'own'
                                                  WHEN max(is_priced) THEN 'reported' ELSE 'unpriced' END) AS cost
                  FROM usage_counted u WHERE u.session_id = s.session_id) p WHERE p.requests > 0),
          json_remove(d.document, '$.metrics')), '$.asks', iif(s.status = 'waiting', (
            SELECT count(*) FROM asks a WHERE a.session_id = s.session_id AND a.reason <> 'input'), 0)),
          iif(x.document IS NULL, '$.metrics', '$.context')), 2) AS document
FROM sessions s CROSS JOIN documents d ON d.session_id = s.session_id AND d.name = 'metadata'
CROSS JOIN counted c ON c.session_id = s.session_id CROSS JOIN context x ON x.session_id = s.session_id;

/* What an event says of itself. Rejected is what a person said no to, or broke off;
   failed is what went wrong, in the words that agents have for it. */
CREATE VIEW verdicts AS
SELECT cursor, is_rejected,
       NOT is_rejected AND (
         coalesce(kind IN ('tool_error', 'error', 'permission_denied'), 0) OR type = 'session_lost'
         OR data -> '$.ok' IS 'false' OR data -> '$.success' IS 'false' OR data ->> '$.status' IS 'failed'
         OR coalesce(CAST(data ->> '$.exitCode' AS REAL), 0) <> 0
         OR coalesce(data -> '$.error', 'null') NOT IN ('null', 'false', '""', '{}', '[]')) AS is_failed
FROM (SELECT cursor, type, kind, data, kind IS 'tool_error' AND (
        data -> '$.rejected' IS 'true' OR data -> '$.is_interrupt' IS 'true' OR EXISTS (
          SELECT 1 FROM json_each('["The user doesn''t want to ", "[Request interrupted by user",
                                    "Request interrupted by user", "Tool use rejected", "User rejected"]') AS words
          WHERE instr(replace(ltrim(data ->> '$.error', char(9, 10, 13, 32)), '’', ''''), words.value) = 1))
        AS is_rejected
      FROM events);

/* The one shape of an event: the live feed, every list of events, events.jsonl. */
CREATE VIEW timeline AS
SELECT cursor, session_id, user_id, type, agent_id, timestamp, received_at,
       '{"cursor":' || cursor || ',"type":"' || type || '","sessionId":"' || session_id || '","userId":'
       || json_quote(user_id) || ',"eventId":"' || event_id || '","agentId":' || json_quote(agent_id)
       || ',"timestamp":"' || timestamp || '","receivedAt":"' || received_at
       || CASE WHEN actor IS NULL THEN '"' ELSE '","actor":' || json_quote(nullif(actor, '')) END || ',"data":'
       || CASE WHEN seq IS NULL THEN data ELSE '{"seq":' || seq || ',' || substr(data, 2) END
       || CASE WHEN patch IS NULL THEN '' ELSE ',"patch":"' || patch || '"' END || '}' AS document
FROM events
WHERE NOT EXISTS (SELECT 1 FROM purges WHERE purges.session_id = events.session_id AND events.cursor < purges.cursor);

/* The logs: actions.jsonl and responses.jsonl, the caller's members flat. */
CREATE VIEW entries AS
SELECT cursor, session_id, type AS log, seq, kind, agent_id,
       '{"seq":' || seq || CASE WHEN json_type(data, '$.timestamp') IS NULL THEN ',"timestamp":"' || timestamp || '"'
                           ELSE '' END
       || ',' || substr(data, 2, length(data) - 2) || ',"cursor":' || cursor || ',"eventId":"' || event_id || '"}'
       AS document
FROM events WHERE seq IS NOT NULL;
