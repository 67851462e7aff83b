"""`python -m lake.witness`: what a bucket says before a store begins, as one JSON object on stdout.

{"refused": "…"}                                       it cannot have a lake: nothing may begin
{"away": "…"}                                          it does not answer: nobody knows
{"cursor": 1200, "shard": "berlin", "other": "…"}      up to where it has the shard; `other`: another store's, and why
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

from export.layout import open_reader
from lake.bucket import BucketAway, BucketRefused, probe
from lake.table import sealed_cursor
from sessionstore.model.events import is_id
from sessionstore.store.high_water_mark import read_newest
from sessionstore.store.integrity import open_to_look
from sessionstore.store.shard import kept_shard

COMPARED = 100
"""How many events of both are compared."""
WINDOW = 100_000
"""Of cursors, in which they are looked for: more than one seal holds."""
SEALED = """
SELECT cursor, event_id FROM events WHERE shard = '{shard}' AND cursor > {after} AND cursor <= {upto}
ORDER BY cursor DESC LIMIT {number}"""


def contradiction(database: sqlite3.Connection, events: DeltaTable, shard: str, sealed: int) -> str:
    """Where the newest events that both have are not the same ones; an empty text where they are.

    A copy of an old database that has gone on by itself gives the same cursors to other events.
    """
    ((head,),) = database.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
    upto = min(head, sealed)
    query = SEALED.format(shard=shard, after=upto - WINDOW, upto=upto, number=COMPARED)
    for batch in QueryBuilder().register("events", events).execute(query):
        for cursor, event_id in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found = database.execute("SELECT event_id FROM events WHERE cursor = ?", (cursor,)).fetchone()
            if found and event_id not in (found[0], f"forgotten-{cursor}"):
                return f"event {cursor} of {shard} is {event_id} in the lake, and {found[0]} here"
    return ""


def doubt(database: Path, events: DeltaTable, shard: str, sealed: int) -> str:
    """Why the lake is not that of this database; an empty text where it is. Raises sqlite3.Error.

    What the start would have found, had the bucket answered then.
    """
    with closing(open_reader(database)) as connection:
        ((head,),) = connection.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchall()
        if head < sealed and head != read_newest(database.parent).accepted:
            return f"the database ends with cursor {head}, and the lake has {shard} up to {sealed}"
        return contradiction(connection, events, shard, sealed)


def name_in(database: Path) -> str | None:
    """The store's name in a lake, as its database has it; nothing is changed."""
    with suppress(sqlite3.Error), open_to_look(database) as connection:
        kept = kept_shard(connection)
        return kept.name if kept else None
    return None


def witness(database: Path, url: str, wanted: str | None) -> dict[str, object]:
    """What the lake has of the store's shard. Raises what deltalake says of the bucket."""
    shard = (name_in(database) if database.exists() else None) or wanted
    if not shard or not is_id(shard):
        return {"cursor": 0, "shard": "", "other": ""}
    try:
        events = DeltaTable(f"{url}/events")
    except TableNotFoundError:
        return {"cursor": 0, "shard": shard, "other": ""}
    sealed = sealed_cursor(events, shard)
    other = ""
    if sealed and database.exists():
        with suppress(sqlite3.Error), open_to_look(database) as connection:
            other = contradiction(connection, events, shard, sealed)
    return {"cursor": sealed, "shard": shard, "other": other}


def main(database: str, url: str, wanted: str = "") -> int:
    try:
        probe(url)
        said = witness(Path(database), url, wanted or None)
    except BucketRefused as refused:
        said = {"refused": str(refused)}
    except BucketAway as away:
        said = {"away": str(away)}
    except (DeltaError, OSError) as error:
        said = {"away": f"{url} cannot be read: {error}".partition("\n")[0]}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
