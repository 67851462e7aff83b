"""The lake as a witness: a server whose database is behind it, or another, serves nothing, and says what to do."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from lake.back import restore
from lake.sealer import Sealer
from lake.table import Displaced
from lake.witness import witness
from sessionstore.admin.loss import NothingLost, accept_loss
from sessionstore.settings import Settings
from sessionstore.store.high_water_mark import read_newest
from sessionstore.store.integrity import check_integrity
from sessionstore.store.lake import ask_lake
from tests.appliance import REPOSITORY, Appliance, reserve_port
from tests.databases import Database, drafted
from tests.lakes import Place
from tests.repeats import LONG
from tests.test_lake_restore import made, seal_all


def post(server: Appliance, *numbers: int) -> httpx.Response:
    lines = "".join(LINE.format(number=number) for number in numbers)
    return httpx.post(f"{server.url}/api/events", content=lines, headers={"content-type": "application/x-ndjson"})


def events_after(server: Appliance, cursor: int) -> list[dict[str, Any]]:
    """A page of them."""
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/api/events?after={cursor}&limit=100").json()["items"]
    return found


LINE = '{{"type": "action", "sessionId": "s", "eventId": "e-{number}", "data": {{"type": "note"}}}}\n'


def test_a_server_behind_the_lake_serves_nothing_until_it_is_brought_back(
    bucket: Place, folder: Path, tmp_path: Path
) -> None:
    settings = {"SESSIONS_LAKE": bucket.url, "SESSIONS_SHARD": "berlin", "SESSIONS_TREE": "off"}
    server = Appliance(folder, settings)
    with server:
        assert post(server, 1, 2).status_code == 200
        server.stop()  # which seals
        shutil.copy(folder / "sessions.db", tmp_path / "old.db")
        server.start()
        assert post(server, 3, 4).status_code == 200
        server.stop()
        shutil.copy(tmp_path / "old.db", folder / "sessions.db")
        (folder / ".newest.json").unlink()  # as on another machine: the lake alone knows
        server.start()
        ready = httpx.get(f"{server.url}/ready")
        assert ready.status_code == 503
        remedy = f"python -m export restore {bucket.url} --newer"
        assert f"The database ends with cursor 3, but the lake {bucket.url} has seen 5" in ready.text
        assert remedy in ready.text
        assert post(server, 5).status_code == 503
        server.stop()
        command = [sys.executable, *shlex.split(remedy)[1:], "--dir", str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        server.start("/ready")
        assert post(server, 5).status_code == 200
        events = [*events_after(server, 0), *events_after(server, 5)]
        assert [event["eventId"] for event in events][1:] == [f"e-{number}" for number in range(1, 6)]
        cursors = [event["cursor"] for event in events]
        assert cursors[:5] == [1, 2, 3, 4, 5] and cursors[5] > 1_000_000_000  # no number is given twice


def test_a_bucket_that_is_away_keeps_no_server_from_taking_events(folder: Path, bucket: Place) -> None:
    with reserve_port() as nobody:
        away = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}", "SESSIONS_LAKE": bucket.url}
        with Appliance(folder, away) as server:
            assert server.said(f"The lake was not asked whether it has more than the database: {bucket.url} does not")
            assert post(server, 1).status_code == 200
            assert httpx.get(f"{server.url}/ready").status_code == 200


@LONG
def test_a_bucket_that_hangs_holds_a_start_up_for_some_seconds_and_no_longer(folder: Path, bucket: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        hanging = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{mute.getsockname()[1]}", "SESSIONS_LAKE": bucket.url}
        with Appliance(folder, hanging) as server:
            assert server.said("The lake was not asked whether it has more than the database")
            assert post(server, 1).status_code == 200
            server.kill()


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Settings, Database]:
    """A store of which the lake has all: its settings, and its database."""
    database = made(tmp_path / "store")
    for _ in range(3):
        database.append(drafted("action", "s", {"type": "note"}))
    lake = (tmp_path / "lake").as_uri()
    seal_all(database, lake)
    return Settings(directory=tmp_path / "store", lake=lake, shard="berlin"), database


def seen(settings: Settings) -> dict[str, Any]:
    assert settings.lake is not None
    return witness(settings.database, settings.lake, settings.shard)


def test_the_lake_has_seen_what_is_sealed_and_no_more(sealed: tuple[Settings, Database]) -> None:
    settings, database = sealed
    database.append(drafted("action", "s", {"type": "note"}))
    assert seen(settings) == {"cursor": 4, "shard": "berlin", "other": ""}
    assert check_integrity(settings) is None
    database.close()


def test_another_store_of_the_same_name_is_noticed(sealed: tuple[Settings, Database], tmp_path: Path) -> None:
    settings, database = sealed
    other = made(tmp_path / "other")
    for number in range(5):
        other.append(drafted("action", "s", {"type": "note"}, event_id=f"other-{number}"))
    other.close()
    database.close()
    theirs = Settings(directory=tmp_path / "other", lake=settings.lake, shard="berlin")
    assert seen(theirs)["other"] == "event 4 of berlin is event-4 in the lake, and other-2 here"
    finding = check_integrity(theirs)
    assert finding and "If this is another store, name it with SESSIONS_SHARD" in finding.detail


def test_an_empty_folder_under_a_name_that_the_lake_knows_is_behind(
    sealed: tuple[Settings, Database], tmp_path: Path
) -> None:
    settings, database = sealed
    database.close()
    empty = Settings(directory=tmp_path / "new", lake=settings.lake, shard="berlin")
    (tmp_path / "new").mkdir()
    finding = check_integrity(empty)
    assert finding and f"`python -m export restore {settings.lake} --newer`" in finding.detail
    assert check_integrity(Settings(directory=tmp_path / "new", lake=settings.lake, shard="munich")) is None


def test_what_the_lake_has_may_be_accepted_as_lost(sealed: tuple[Settings, Database], tmp_path: Path) -> None:
    settings, database = sealed
    database.connection.execute("DELETE FROM events WHERE cursor > 2")
    database.close()
    assert check_integrity(settings) is not None
    assert "What came after cursor 2, up to 4, is accepted as lost" in accept_loss(settings)
    assert check_integrity(settings) is None


def test_what_is_brought_back_in_two_steps_is_served(sealed: tuple[Settings, Database], tmp_path: Path) -> None:
    """As beside a server that goes on with the open sessions meanwhile."""
    settings, database = sealed
    assert settings.lake is not None
    again = Settings(directory=tmp_path / "again", lake=settings.lake, shard="berlin")
    restore(settings.lake, again.directory)
    database.append(drafted("action", "s", {"type": "note"}))
    seal_all(database, settings.lake)
    database.close()
    spent = read_newest(again.directory).cursor
    restore(settings.lake, again.directory, is_newer=True)
    assert check_integrity(again) is None
    assert read_newest(again.directory).cursor == spent
    assert read_newest(again.directory).accepted == 5


def test_nothing_is_accepted_as_lost_while_the_lake_cannot_be_asked(
    sealed: tuple[Settings, Database], bucket: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, database = sealed
    database.close()
    with reserve_port() as nobody:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(NothingLost, match=r"does not answer: .* What it has of this store cannot be known"):
            accept_loss(Settings(directory=settings.directory, lake=bucket.url, shard="berlin"))


def test_what_the_start_could_not_ask_is_found_by_the_sealer(sealed: tuple[Settings, Database]) -> None:
    settings, database = sealed
    assert settings.lake is not None
    assert Sealer(database.path, settings.lake, "berlin").seal() is None
    database.connection.execute("DELETE FROM events WHERE cursor > 2")
    with pytest.raises(Displaced, match="the database ends with cursor 2, and the lake has berlin up to 4"):
        Sealer(database.path, settings.lake, "berlin").seal()
    database.close()
    gone_on = Database(settings.database)
    for number in range(5):
        gone_on.append(drafted("action", "s", {"type": "note"}, event_id=f"new-{number}"))
    with pytest.raises(Displaced, match="event 4 of berlin is event-4 in the lake, and new-1 here"):
        Sealer(settings.database, settings.lake, "berlin").seal()
    gone_on.close()


def test_without_a_lake_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert ask_lake(Settings(directory=tmp_path)).cursor == 0
