"""The lake: what a shard has, is in the table of the bucket, each event once, whatever dies while it is sealed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable, QueryBuilder

from lake.sealer import seal
from sessionstore.model.events import ID_PATTERN
from sessionstore.settings import BadSetting
from sessionstore.store.shard import keep_shard, kept_shard
from tests.appliance import Appliance
from tests.commands import export
from tests.databases import Database, drafted
from tests.lakes import Place
from tests.peers import eventually

Row = tuple[Any, ...]
SEALED = "SELECT cursor, event_id, session_id, type, data FROM t WHERE shard = '{shard}' ORDER BY cursor"
WRITTEN = "SELECT cursor, event_id, session_id, type, data FROM events ORDER BY cursor"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "sessions.db")
    yield made
    made.close()


def fill(database: Database, sessions: int = 3, actions: int = 20) -> None:
    for number in range(sessions):
        with database.transaction() as appender:
            for step in range(actions):
                data = {"type": "tool_use", "tool": "Bash", "command": f"make {step} ünïcode"}
                appender.append(drafted("action", f"s-{number}", data))


def asked(url: str, query: str) -> list[Row]:
    """The rows of one table of a lake, `t`."""
    result = QueryBuilder().register("t", DeltaTable(url)).execute(query).read_all()
    return list(zip(*(column.to_pylist() for column in result.columns), strict=True)) if result.num_rows else []


def sealed(place: Place, shard: str) -> list[Row]:
    return asked(f"{place.url}/events", SEALED.format(shard=shard))


def written(path: Path) -> list[Row]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(WRITTEN).fetchall()


def test_every_event_is_in_the_table_as_it_is_in_the_database(place: Place, database: Database) -> None:
    fill(database)
    head = database.value("SELECT max(cursor) FROM events")
    assert seal(database.path, place.url, "berlin") == head
    assert sealed(place, "berlin") == written(database.path) != []
    assert seal(database.path, place.url, "berlin") is None
    fill(database)
    head = database.value("SELECT max(cursor) FROM events")
    assert seal(database.path, place.url, "berlin") == head
    assert sealed(place, "berlin") == written(database.path)


# ------------------------------------------------------------------------ one name


def test_a_store_keeps_the_name_that_it_was_given_first(database: Database) -> None:
    assert kept_shard(database.connection) is None
    kept = keep_shard(database.connection, "berlin")
    assert (kept.name, keep_shard(database.connection, None)) == ("berlin", kept)
    with pytest.raises(BadSetting, match=r"SESSIONS_SHARD='munich'.*as 'berlin'"):
        keep_shard(database.connection, "munich")
    assert kept_shard(database.connection) == kept


def test_a_name_that_nobody_gave_is_made_once(database: Database) -> None:
    made = keep_shard(database.connection, None)
    assert re.fullmatch(ID_PATTERN, made.name)
    assert keep_shard(database.connection, None) == made == keep_shard(database.connection, made.name)


# ------------------------------------------------------------------ beside a server


def lake_of(server: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/health").json()["lake"]
    return found


def settings_of(place: Place, **more: str) -> dict[str, str]:
    return {
        "SESSIONS_LAKE": place.url,
        "SESSIONS_SHARD": "berlin",
        "SESSIONS_LAKE_EVERY": "1",
        **place.environment,
    } | more


def act(server: Appliance, session: str = "s", number: int = 1) -> None:
    for step in range(number):
        httpx.post(f"{server.url}/api/actions/{session}", json={"type": "x", "step": step}).raise_for_status()


def test_a_server_seals_while_it_runs_and_what_is_left_at_its_end(place: Place, folder: Path) -> None:
    with Appliance(folder, settings_of(place)) as server:
        act(server, number=3)
        eventually(lambda: lake_of(server)["sealed"] == 4)
        assert lake_of(server) | {"last": None} == {
            "status": "ok", "shard": "berlin", "sealed": 4, "unsealedSeconds": 0.0, "last": None, "error": None
        }  # fmt: skip
        act(server, "late")
        assert server.stop().code == 0
    assert sealed(place, "berlin") == written(folder / "sessions.db") != []
    assert sorted(path.name for path in folder.glob("sessions.db*")) == ["sessions.db"]
    told = export(folder, "lake", "status", **settings_of(place))
    assert told.stdout == f"{place.url} has berlin up to cursor 6: that is all\n"
