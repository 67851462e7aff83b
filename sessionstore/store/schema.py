"""The SQLite file: opening it for writing, its schema, and the migrations of older ones."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from sessionstore import ROOT
from sessionstore.model import folds
from sessionstore.model.events import STATE_TYPES
from sessionstore.model.folds import encode

SCHEMA = ROOT / "schema.sql"


APPLICATION_ID = 1399157617


INCREMENTAL = 2
"""What PRAGMA auto_vacuum says of a database that can give pages back one by one."""


Migration = Callable[[sqlite3.Connection], None]


def find_events_by_their_id_first(connection: sqlite3.Connection) -> None:
    """Ids that are made one after the other stand together, so that a commit touches fewer pages."""
    connection.execute("DROP INDEX events_by_event_id")
    connection.execute("CREATE UNIQUE INDEX events_by_event_id ON events (event_id, session_id)")


def find_results_prompts_and_failures(connection: sqlite3.Connection) -> None:
    """What people ask for is found among any number of events."""
    connection.execute(
        "CREATE INDEX events_by_tool_use ON events (session_id, data ->> '$.toolUseId')\n"
        "WHERE kind IN ('tool_result', 'tool_error')"
    )
    connection.execute("CREATE INDEX events_of_prompts ON events (cursor) WHERE kind = 'prompt'")
    connection.execute("CREATE INDEX events_of_failures ON events (cursor) WHERE kind = 'tool_error'")


def note_status_changes(connection: sqlite3.Connection) -> None:
    """From now on: nobody is to be told of what was long ago."""
    create_schema(connection, re.compile(r"^CREATE (TABLE|INDEX) status_changes", re.MULTILINE))


def search_by_parts_and_marks(connection: sqlite3.Connection) -> None:
    """Another full-text index: it is filled anew behind the writing, and search says how far it has come."""
    connection.execute("DROP TABLE search")
    create_schema(connection, re.compile(r"^(CREATE VIRTUAL TABLE|INSERT INTO) search ", re.MULTILINE))
    connection.execute("UPDATE progress SET searched = 0")


def find_what_changes_a_state(connection: sqlite3.Connection) -> None:
    """So that a retry is answered at once, and a state of long ago soon, in a session with very many entries."""
    create_schema(connection, re.compile(r"^CREATE INDEX events_of_documents", re.MULTILINE))


def keep_each_ask(connection: sqlite3.Connection) -> None:
    """What a session waits for is found in its events, where they say it; final.json has the goals that were reached
    whole, as they were at the end."""
    create_schema(connection, re.compile(r"^CREATE (TABLE|INDEX) (asks|remade)", re.MULTILINE))
    connection.execute("INSERT INTO remade SELECT max(cursor) FROM events HAVING max(cursor) > 0")
    create_schema(connection, re.compile(r"^CREATE VIEW words", re.MULTILINE))
    connection.execute(LAST_ASKED)
    connection.execute("DROP VIEW words")
    connection.execute("ALTER TABLE sessions DROP COLUMN attention")
    after = ""
    while finals := connection.execute(FINALS_WITH_GOALS, (after,)).fetchall():
        for after, document, cursor in finals:
            connection.execute(MEND_FINAL, (goals_at_end(connection, after, document, cursor), after))


LAST_ASKED = """
INSERT INTO asks
SELECT w.cursor, w.session_id, w.cursor, iif(w.reason = 'input', NULL, w.agent_id), w.reason, w.message, w.own_id,
       w.tool_use_id, w.tool, w.input, w.exactness, w.is_logged, w.deadline
FROM words w JOIN (SELECT s.session_id, coalesce(
        (SELECT max(e.cursor) FROM events e
         WHERE e.session_id = s.session_id AND e.cursor >= s.created_cursor
           AND (e.seq IS NOT NULL OR e.type = 'metadata_updated') AND json_type(e.data, '$.attention') = 'object'),
        s.last_cursor) AS asked
      FROM sessions s WHERE s.status = 'waiting') ON w.cursor = asked"""


FINALS_WITH_GOALS = """
SELECT d.session_id, d.document,
       (SELECT max(e.cursor) FROM events e WHERE e.session_id = d.session_id AND e.type = 'session_finalized')
FROM documents d
WHERE d.name = 'final' AND d.session_id > ? AND json_type(d.document, '$.goalsAchieved[0]') = 'text'
ORDER BY d.session_id LIMIT 500"""


MEND_FINAL = "UPDATE documents SET document = ? WHERE session_id = ? AND name = 'final'"


def goals_at_end(connection: sqlite3.Connection, session_id: str, document: str, cursor: int) -> str:
    """final.json with the goals that it names by their ids."""
    final = folds.decode(document)
    goals = folds.goals_of(folds.state_at(connection.execute(STATE_EVENTS, (session_id, cursor))))
    records = {
        goal["id"]: goal for goal in reversed(goals) if isinstance(goal, dict) and isinstance(goal.get("id"), str)
    }
    final["goalsAchieved"] = [records.get(name, {"id": name}) for name in final["goalsAchieved"]]
    return encode(final)


def find_calls_by_their_id(connection: sqlite3.Connection) -> None:
    """An id may be used for one call after the other: which of them a result is of, the calls say."""
    connection.execute("DROP INDEX events_by_tool_use")
    create_schema(connection, re.compile(r"^CREATE INDEX events_by_tool_use", re.MULTILINE))


def name_status_changes(connection: sqlite3.Connection) -> None:
    """What was `turns`: a session began to wait, failed, or was lost."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'turns'").fetchone():
        connection.execute("DROP INDEX turns_by_session")
        connection.execute("ALTER TABLE turns RENAME TO status_changes")
        create_schema(connection, re.compile(r"^CREATE INDEX status_changes", re.MULTILINE))


def find_sessions_by_their_names(connection: sqlite3.Connection) -> None:
    """Projects, branches, hosts, pins and tags are found without a look at each session."""
    for table in ("labels", "tags"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    create_schema(connection, re.compile(r"^CREATE (TABLE|INDEX) (labels|tags)", re.MULTILINE))
    create_schema(connection, re.compile(r"^CREATE VIEW (labelled|tagged) ", re.MULTILINE))
    connection.execute("INSERT INTO labels SELECT * FROM labelled")
    connection.execute("INSERT INTO tags SELECT * FROM tagged")
    connection.execute("DROP VIEW labelled")
    connection.execute("DROP VIEW tagged")


def give_back_what_was_taken_in(connection: sqlite3.Connection) -> None:
    """Events have an actor, and more types; there are a ledger of usage, conversations and checkpoints;
    sessions are found by their names."""
    say_who(connection)
    create_missing(connection, "usage", "(TABLE|INDEX) (usage|budget)")
    create_missing(connection, "transcripts", "(UNIQUE )?(TABLE|INDEX) (transcript|checkpoint|claims|material)")
    find_sessions_by_their_names(connection)


def keep_answers_and_orders(connection: sqlite3.Connection) -> None:
    """Asks have a deadline; what became of them is kept, and what people answered and ordered."""
    if "deadline" not in columns_of(connection, "asks"):
        rewrite(connection, "asks")
        create_schema(connection, re.compile(r"^CREATE INDEX asks_by_deadline", re.MULTILINE))
    create_missing(connection, "orders", "(UNIQUE )?(TABLE|INDEX) (retold_asks|ended_asks|orders|open_orders)")


def note_contexts(connection: sqlite3.Connection) -> None:
    """How full a context is, from what hooks have said of it; a report of usage says so from now on."""
    connection.execute("DROP INDEX IF EXISTS usage_sums_by_family")  # it came with its table, where that is new
    create_schema(connection, re.compile("^CREATE INDEX usage_sums_by_family", re.MULTILINE))
    create_missing(connection, "contexts", "TABLE contexts")
    connection.execute(COMPACTIONS)
    connection.execute(
        "INSERT OR IGNORE INTO remade SELECT max(last_cursor) FROM sessions JOIN contexts USING (session_id)"
        " HAVING count(*) > 0"
    )


COMPACTIONS = """
INSERT INTO contexts (session_id, source, at, compactions)
SELECT e.session_id, 'hook', max(e.timestamp), count(*)
FROM events e JOIN sessions s ON s.session_id = e.session_id AND e.cursor > s.created_cursor
WHERE e.cursor > (SELECT max(cursor) FROM events) - 100000 AND e.kind = 'post_compact' AND e.agent_id IS NULL
GROUP BY e.session_id"""
"""They are not looked for far back: that would take long."""


def take_answers_and_contexts(connection: sqlite3.Connection) -> None:
    """People answer and order; and it is known how full contexts are."""
    keep_answers_and_orders(connection)
    note_contexts(connection)


def keep_the_name_in_a_lake(connection: sqlite3.Connection) -> None:
    """More than one machine; and the types of entries are looked for before all others, which changes no row. Notes are
    found by their session."""
    create_missing(connection, "lake", "TABLE lake")
    create_missing(connection, "scrubs", "TABLE scrubs")
    connection.execute("DROP INDEX IF EXISTS events_of_notes")
    create_schema(connection, re.compile(r"^CREATE INDEX events_of_notes", re.MULTILINE))
    rewrite(connection, "events")


def say_who(connection: sqlite3.Connection) -> None:
    """Events have an actor, and more types; the full-text index is merged more seldom.

    None of it changes a row that is there: a column at the end is null in rows that were written without it. Only the
    text of the table is written anew, which takes as long with ten million events as with none.
    https://www.sqlite.org/lang_altertable.html#otheralter
    """
    before = columns_of(connection, "events")
    rewrite(connection, "events")
    if (after := columns_of(connection, "events")) != [*before, "actor"]:
        raise DatabaseUnusable(f"its events have {', '.join(before)}, where version 10 has {', '.join(after)}")
    create_schema(connection, re.compile(r"^INSERT INTO (counts|search .*'usermerge')", re.MULTILINE))


def create_missing(connection: sqlite3.Connection, table: str, what: str) -> None:
    """What schema.sql creates of this kind, unless there is the table already."""
    if not columns_of(connection, table):
        create_schema(connection, re.compile(rf"^CREATE {what}", re.MULTILINE))


def rewrite(connection: sqlite3.Connection, table: str) -> None:
    """Have the text of a table as schema.sql has it, and leave its rows alone: they must be what it says already."""
    head = f"CREATE TABLE {table} "
    (statement,) = (text for text in statements(SCHEMA.read_text()) if f"\n{head}" in f"\n{text}")
    text = statement[statement.index(head) :].rstrip().removesuffix(";")
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?", (text, table))
        connection.execute(f"PRAGMA schema_version = {version + 1}")
    finally:
        connection.execute("PRAGMA writable_schema = RESET")


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


MIGRATIONS: tuple[Migration, ...] = (
    find_events_by_their_id_first,
    find_results_prompts_and_failures,
    note_status_changes,
    search_by_parts_and_marks,
    find_what_changes_a_state,
    keep_each_ask,
    find_calls_by_their_id,
    name_status_changes,
    give_back_what_was_taken_in,
    take_answers_and_contexts,
    keep_the_name_in_a_lake,
)
"""Append-only: what turns the tables of a database of version N, as PRAGMA user_version has it, into those of N + 1,
from version 1 on. Views and triggers need none: they are made anew wherever schema.sql has others. It is always of the
newest version; a database that is made new needs none of these."""


BUSY_MILLISECONDS = 5000
"""How long a write waits for a lock that somebody else has."""


ATTEMPT_MILLISECONDS = 50
"""How long one attempt to empty the log does."""


class DatabaseUnusable(Exception):
    """The file is there, but this program must not write to it. The message says why."""


def open_writer(path: Path, *, durability: str = "full") -> sqlite3.Connection:
    """The connection that writes, on a database of the newest version. `durability` is `full` or `normal`."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        prepare_writer(connection, durability)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_writer(connection: sqlite3.Connection, durability: str) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    check_owner(connection)
    if connection.execute("PRAGMA page_count").fetchone() == (0,):  # later it would take a VACUUM
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for pragma in (
        "journal_mode = WAL",
        f"synchronous = {durability}",
        "foreign_keys = ON",
        "cell_size_check = ON",
        "journal_size_limit = 67108864",
        "temp_store = MEMORY",
        "cache_size = -65536",
    ):
        connection.execute(f"PRAGMA {pragma}")
    folds.register(connection)
    migrate(connection)


def check_owner(connection: sqlite3.Connection) -> None:
    """Raises DatabaseUnusable for the file of another program; a file with nothing in it is nobody's."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise DatabaseUnusable("it belongs to another program")


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the database to the newest version, wholly or not at all; views and triggers, which hold no rows, are as
    schema.sql has them now. Raises DatabaseUnusable for one still newer."""
    newest = len(migrations) + 1
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > newest:
        raise DatabaseUnusable(f"it is of version {found}, this program knows {newest}: use a newer program")
    if found == newest and views_and_triggers_of(connection) == set(views_and_triggers()):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if found:
            drop_views_and_triggers(connection)
            for step in migrations[found - 1 :]:
                step(connection)
            create_schema(connection, HAS_NO_ROWS)
        else:
            create_schema(connection)
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


HAS_NO_ROWS = re.compile(r"^CREATE (VIEW|TRIGGER) ", re.MULTILINE)


def views_and_triggers() -> Iterator[str]:
    """Of schema.sql, each as SQLite keeps its text."""
    for statement in statements(SCHEMA.read_text()):
        if begins := HAS_NO_ROWS.search(statement):
            yield statement[begins.start() :].rstrip().removesuffix(";")


def views_and_triggers_of(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE type IN ('trigger', 'view')")
    return {text for (text,) in rows}


def drop_views_and_triggers(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY type")
    for kind, name in rows.fetchall():
        connection.execute(f"DROP {kind} {name}")


def create_schema(connection: sqlite3.Connection, which: re.Pattern[str] = re.compile("")) -> None:
    """What schema.sql says: all of it, or the statements that match."""
    for statement in filter(which.search, statements(SCHEMA.read_text())):
        connection.execute(statement)


def statements(script: str) -> Iterator[str]:
    """The statements of an SQL script one by one: executescript would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


CHANGES_STATE = f"""
(e.type IN ({", ".join(f"'{name}'" for name in STATE_TYPES)})
 OR e.type IN ('session_finalized', 'metadata_updated') AND json_type(e.data, '$.cancelledAgents') = 'array')"""
"""Whether an event e changes the state: an end does where it is that of agents, too."""


OF_STATE = f"""
WHERE session_id = ? AND cursor >= (SELECT created_cursor FROM sessions s WHERE s.session_id = e.session_id)
  AND cursor <= ? AND seq IS NULL AND (type = 'session_created' OR {CHANGES_STATE})"""
"""The events that a state is made of; values: session id, cursor."""


STATE_EVENTS = f"SELECT type, patch, data, timestamp FROM events e {OF_STATE} ORDER BY cursor"
"""What folds.state_at takes."""
STATE_EVENTS_AFTER = (
    f"SELECT data, type, patch, timestamp, cursor FROM events e {OF_STATE} AND cursor > ? ORDER BY cursor"
)
"""The same behind one of them, the longest member first, and the cursor."""
