"""The lake: what a shard has, is in the table of the bucket, each event once, whatever dies while it is sealed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable, QueryBuilder

from sessionstore.model.events import ID_PATTERN
from sessionstore.settings import BadSetting
from sessionstore.store.closing import UNSEALED
from sessionstore.store.shard import keep_shard, kept_shard
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_refused
from tests.databases import Database, drafted
from tests.lake_gate import gate_before, through
from tests.lakes import Place, Storage, seal
from tests.peers import children_of, eventually

Row = tuple[Any, ...]
SEALED = "SELECT cursor, event_id, session_id, type, data FROM t WHERE shard = '{shard}' ORDER BY cursor"
WRITTEN = "SELECT cursor, event_id, session_id, type, data FROM events ORDER BY cursor"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "sessions.db")
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> Place:
    return Place((tmp_path / "lake").as_uri(), {})


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
            "status": "ok", "shard": "berlin", "sealed": 4, "unsealedSeconds": 0.0, "last": None, "error": None,
            "chain": "off",
        }  # fmt: skip
        act(server, "late")
        assert server.stop().code == 0
    assert sealed(place, "berlin") == written(folder / "sessions.db") != []
    assert sorted(path.name for path in folder.glob("sessions.db*")) == ["sessions.db"]
    told = export(folder, "lake", "status", **settings_of(place))
    assert told.stdout == f"{place.url} has berlin up to cursor 6: that is all\n"


def health_of(server: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/health").json()
    return found


def test_while_the_bucket_is_away_nothing_goes_that_is_not_sealed(
    storage: Storage, bucket: Place, folder: Path
) -> None:
    with gate_before(storage) as gate:
        settings = settings_of(through(gate, bucket), SESSIONS_RETENTION_BYTES="1M")
        with Appliance(folder, settings) as server, httpx.Client(base_url=server.url) as http:
            act(server)
            eventually(lambda: lake_of(server)["sealed"] == 2)
            gate.fault = "refuse"
            for number in range(4):
                body = {"type": "x", "text": "x" * 900_000}
                http.post(f"/api/actions/large-{number}", json=body).raise_for_status()
                http.post(f"/api/sessions/large-{number}/finalize", json={}).raise_for_status()
            eventually(lambda: lake_of(server)["error"] and lake_of(server)["unsealedSeconds"] > 2)
            eventually(lambda: "in the lake" in (health_of(server)["retention"]["error"] or ""))
            assert health_of(server)["retention"]["deleted"] == 0
            assert health_of(server)["checks"]["lake"] == "warn"
            pruned = http.delete("/api/sessions/large-0", params={"lastCursor": 5, "reason": "prune"})
            assert (pruned.status_code, pruned.json()["detail"]) == (412, UNSEALED)
            before = written(folder / "sessions.db")
            assert http.delete("/api/sessions/s").status_code == 200  # a person need not wait
            gate.fault = ""
            eventually(lambda: health_of(server)["retention"]["deleted"] > 0, 60.0)
            eventually(lambda: lake_of(server)["status"] == "ok" and lake_of(server)["unsealedSeconds"] == 0)
        assert set(sealed(bucket, "berlin")) >= set(before)


def test_of_two_servers_with_one_name_one_says_so(files: Place, tmp_path: Path) -> None:
    with Appliance(tmp_path / "one", settings_of(files)) as one, Appliance(tmp_path / "two", settings_of(files)) as two:
        act(one, number=3)
        eventually(lambda: lake_of(one)["sealed"] == 4)
        act(two, number=9)
        eventually(lambda: lake_of(two)["status"] == "displaced")
        assert "Another store seals as 'berlin'" in lake_of(two)["error"]
        assert httpx.get(f"{two.url}/ready").json()["checks"]["lake"] == "warn"
        assert two.said("Another store seals as 'berlin'")
        assert "sessionstore_lake_displaced 1.0" in httpx.get(f"{two.url}/metrics").text
        act(one)
        eventually(lambda: lake_of(one)["sealed"] == 5)
    assert sealed(files, "berlin") == written(tmp_path / "one/sessions.db")


def test_what_a_server_had_begun_to_seal_when_it_was_killed_is_sealed_once(files: Place, folder: Path) -> None:
    with Appliance(folder, settings_of(files)) as server:
        act(server, number=20)
        (sealer,) = children_of(server.process.pid)
        server.kill()
        eventually(lambda: has_ended(sealer))  # nobody has told it
        server.start()
        act(server)
        eventually(lambda: lake_of(server)["sealed"] == health_of(server)["cursor"])
        os.kill(children_of(server.process.pid)[0], signal.SIGKILL)
        act(server)
        eventually(lambda: "has ended with -9" in server.output)
        eventually(lambda: lake_of(server)["sealed"] == health_of(server)["cursor"])
        assert lake_of(server)["status"] == "ok"
    assert sealed(files, "berlin") == written(folder / "sessions.db")


def has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_what_is_pruned_without_a_server_is_sealed_first(files: Place, folder: Path) -> None:
    with Appliance(folder, settings_of(files)) as server:
        act(server)
        httpx.post(f"{server.url}/api/sessions/s/finalize", json={}).raise_for_status()
    elsewhere = Place(f"{files.url}-that-has-nothing", {})
    prune = ("archive", "--prune", "--before", "2100-01-01", "--to", folder.parent / "archives")
    stays = export(folder, *prune, **settings_of(elsewhere))
    assert is_refused(stays, f"s stays: {UNSEALED}") and written(folder / "sessions.db") != []
    assert export(folder, *prune, **settings_of(files)).returncode == 0
    assert [row[3] for row in written(folder / "sessions.db")] == ["session_deleted"]
    assert len(sealed(files, "berlin")) == 3


# ------------------------------------------------------------------ without a lake


def test_without_a_lake_nothing_of_it_is_there(appliance: Appliance) -> None:
    act(appliance)
    assert children_of(appliance.process.pid) == []
    mapped = Path(f"/proc/{appliance.process.pid}/maps").read_text()
    assert "sqlite" in mapped and not re.search(r"deltalake|obstore|arro3|duckdb", mapped)
    assert lake_of(appliance)["status"] == "off"
    assert "sessionstore_lake" not in httpx.get(f"{appliance.url}/metrics").text
    with closing(sqlite3.connect(appliance.folder / "sessions.db")) as database:
        assert kept_shard(database) is None
    made = "app.create_app(app.read_settings({'SESSIONS_DIR': '/nowhere'}))"
    modules = f"import sys, app, export.__main__\n{made}\nprint([name for name in sys.modules if re.match(LAKE, name)])"
    names = r"import re; LAKE = r'(lake|deltalake|obstore|arro3|duckdb|sessionstore\.store\.chain)\b'"
    command = [sys.executable, "-c", f"{names}\n{modules}"]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_server_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['deltalake'] = None")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SESSIONS_DIR": str(tmp_path), "SESSIONS_LAKE": "file:///nowhere"}
    ended = subprocess.run([sys.executable, "app.py"], cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "deltalake is not installed: pip install 'session-store[lake]'" in ended.stderr


def test_commands_without_the_extra_are_in_the_help_and_say_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['deltalake'] = None")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SESSIONS_DIR": str(tmp_path)}

    def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "export", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)

    helped, refused = ended("--help"), ended("lake", "status", "--dir", str(tmp_path))
    assert helped.returncode == 0 and re.search("^ +verify .*^ +lake .*session-store.lake", helped.stdout, re.M | re.S)
    assert is_refused(refused, "deltalake", "is not installed: pip install 'session-store[lake]'")
