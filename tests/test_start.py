"""A database that is damaged, or has lost commits, is noticed before any of it is served."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from sessionstore.settings import Settings
from sessionstore.store import high_water_mark as mark
from sessionstore.store.integrity import Fault, check_integrity
from tests.appliance import Appliance, ServerError
from tests.databases import Database, drafted
from tests.peers import eventually
from tests.test_wal import begin_to_read

SEEDS = range(int(os.environ.get("DAMAGES", 72)) // 6)
"""Of each of the six kinds of damage."""
PAGE = 4096
WAL_HEAD = 32
FRAME = PAGE + 24


class Killed(NamedTuple):
    """What a server left that was killed while its log held commits."""

    folder: Path
    old_log: bytes
    """What the log was some commits earlier."""
    events: list[tuple[object, ...]]


def post(appliance: Appliance, path: str, body: object) -> httpx.Response:
    return httpx.post(appliance.url + path, json=body)


def get(appliance: Appliance, path: str) -> httpx.Response:
    return httpx.get(appliance.url + path)


def write_actions(appliance: Appliance, number: int, longest: int = 300) -> None:
    texts = ("x" * (37 * number % longest) for number in range(number))
    lines = "".join(
        f'{{"type":"action","sessionId":"s-{n % 7}","data":{{"type":"file_write","text":"{text}"}}}}\n'
        for n, text in enumerate(texts)
    )
    answer = httpx.post(
        f"{appliance.url}/api/events", content=lines, headers={"content-type": "application/x-ndjson"}, timeout=30
    )
    assert answer.json()["accepted"] == number


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed") / "sessions"
    with Appliance(folder, {"SESSIONS_TREE": "off"}) as appliance:
        write_actions(appliance, 200, longest=9000)
        eventually(lambda: get(appliance, "/health").json()["searchLag"] == 0)
        appliance.stop()
        appliance.start()
        with closing(begin_to_read(folder / "sessions.db")):  # so that the log begins nowhere anew
            write_actions(appliance, 60)
            old_log = (folder / "sessions.db-wal").read_bytes()
            for number in range(8):
                write_actions(appliance, 10 + number)
            appliance.kill()
            left = shutil.copytree(folder, folder.with_name("left"))
    with closing(sqlite3.connect(shutil.copytree(left, folder.with_name("read")) / "sessions.db")) as connection:
        return Killed(left, old_log, events_in(connection))


def events_in(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM events ORDER BY cursor").fetchall()


def is_whole(folder: Path, killed: Killed) -> bool:
    """Whether SQLite finds every event in a folder that was damaged, read from a copy of it."""
    copy = shutil.copytree(folder, folder.with_name("look"))
    try:
        with closing(sqlite3.connect(copy / "sessions.db")) as connection:
            return events_in(connection) == killed.events
    except sqlite3.DatabaseError:
        return False
    finally:
        shutil.rmtree(copy)


# ---------------------------------------------------------------------- damages

Damage = Callable[[Path, random.Random, Killed], None]


def write_at(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def cut_log(log: Path, chance: random.Random, killed: Killed) -> None:
    with log.open("r+b") as file:
        file.truncate(chance.randrange(log.stat().st_size))


def flip_log(log: Path, chance: random.Random, killed: Killed) -> None:
    write_at(log, chance.randrange(WAL_HEAD, log.stat().st_size - 8), chance.randbytes(8))


def spoil_head_of_log(log: Path, chance: random.Random, killed: Killed) -> None:
    write_at(log, chance.randrange(WAL_HEAD - 8), chance.randbytes(8))


def delete_log(log: Path, chance: random.Random, killed: Killed) -> None:
    log.unlink()


def put_back_old_log(log: Path, chance: random.Random, killed: Killed) -> None:
    log.write_bytes(killed.old_log)


def spoil_page(log: Path, chance: random.Random, killed: Killed) -> None:
    database = log.with_name("sessions.db")
    page = chance.randrange(database.stat().st_size // PAGE)
    write_at(database, page * PAGE, chance.choice((bytes(PAGE), chance.randbytes(PAGE))))


DAMAGES: tuple[Damage, ...] = (cut_log, flip_log, spoil_head_of_log, delete_log, put_back_old_log, spoil_page)


def damaged(killed: Killed, folder: Path, damage: Damage, seed: int) -> Path:
    shutil.copytree(killed.folder, folder)
    damage(folder / "sessions.db-wal", random.Random(f"{damage.__name__} {seed}"), killed)
    return folder


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_damage_that_costs_an_event_is_noticed(killed: Killed, tmp_path: Path, damage: Damage) -> None:
    harmful = 0
    for seed in SEEDS:
        folder = damaged(killed, tmp_path / str(seed), damage, seed)
        if not is_whole(folder, killed):
            harmful += 1
            assert check_integrity(Settings(directory=folder)) is not None, seed
    assert harmful >= 3, "the damages do no harm, so that nothing is shown"


def test_what_a_killed_server_leaves_is_found_sound(killed: Killed, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    shutil.copytree(killed.folder, folder)
    assert (folder / "sessions.db-wal").stat().st_size > FRAME, "there are commits in the log"
    assert check_integrity(Settings(directory=folder)) is None


def test_without_the_mark_lost_commits_would_pass_every_check(killed: Killed, tmp_path: Path) -> None:
    folder = damaged(killed, tmp_path / "unmarked", delete_log, 0)
    (folder / mark.NAME).unlink()
    assert not is_whole(folder, killed)
    assert check_integrity(Settings(directory=folder)) is None


# -------------------------------------------------------------- the server then


@pytest.fixture(params=(cut_log, spoil_page), ids=lambda damage: damage.__name__)
def refusing(request: pytest.FixtureRequest, killed: Killed, tmp_path: Path) -> Iterator[Appliance]:
    """A server on a folder that is damaged so that it matters."""
    for seed in SEEDS:
        folder = damaged(killed, tmp_path / str(seed), request.param, seed)
        if not is_whole(folder, killed):
            break
    with Appliance(folder) as appliance:
        yield appliance


def test_nothing_of_an_unsound_database_is_served_and_the_way_out_is_told(refusing: Appliance) -> None:
    health = get(refusing, "/health").json()
    why = health["database"]["error"]
    assert health["status"] == "unavailable" and health["database"]["status"] in ("behind", "damaged")
    assert "python -m export restore" in why and refusing.said(why)
    refused = [
        get(refusing, "/ready"),
        get(refusing, "/api/query/recent"),
        get(refusing, "/api/sessions/s-1/resume"),
        get(refusing, "/datasette/"),
        post(refusing, "/api/actions/s-1", {"type": "x"}),
        post(refusing, "/api/state/s-1/goals", {"description": "x"}),
    ]
    for answer in refused:
        assert answer.status_code == 503 and answer.json()["detail"] == why, answer.request.url
        assert int(answer.headers["retry-after"]) >= 1
    for path in ("/", "/metrics", "/schema"):
        assert get(refusing, path).status_code == 200, path
    assert "sessionstore_ready 0" in get(refusing, "/metrics").text


def test_an_unsound_database_is_left_as_it_was_found(killed: Killed, tmp_path: Path) -> None:
    folder = damaged(killed, tmp_path / "kept", cut_log, 0)
    names = ("sessions.db", "sessions.db-wal", mark.NAME)
    before = {name: (folder / name).read_bytes() for name in names}
    with Appliance(folder) as appliance:
        assert get(appliance, "/ready").status_code == 503
        assert appliance.stop().code == 0
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_a_sound_database_is_served_after_a_kill(killed: Killed, tmp_path: Path) -> None:
    folder = tmp_path / "sound"
    shutil.copytree(killed.folder, folder)
    with Appliance(folder) as appliance:
        assert get(appliance, "/ready").status_code == 200
        assert get(appliance, "/health").json()["database"] == {"status": "ok", "error": None}
        assert get(appliance, "/health").json()["cursor"] == killed.events[-1][0]


# --------------------------------------------------------------------- the mark


def newest(folder: Path) -> int:
    return mark.read_newest(folder).cursor


def test_the_mark_has_every_acknowledged_cursor_at_once(folder: Path) -> None:
    with Appliance(folder) as appliance:
        for _ in range(20):
            cursor = post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"]
            assert newest(folder) >= cursor
        appliance.kill()
        last = newest(folder)
        appliance.start()
        assert post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"] == last + 1 == newest(folder)


def test_a_mark_that_cannot_be_read_is_made_anew(folder: Path) -> None:
    with Appliance(folder) as appliance:
        cursor = post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"]
        appliance.stop()
        (folder / mark.NAME).write_bytes(b"\0" * 10)
        appliance.start()
        assert newest(folder) == cursor
        assert appliance.said(mark.NAME)


def test_a_database_that_is_gone_is_not_taken_for_a_new_one(folder: Path) -> None:
    with Appliance(folder) as appliance:
        post(appliance, "/api/actions/s", {"type": "x"})
        appliance.stop()
        for path in folder.glob("sessions.db*"):
            path.unlink()
        appliance.start()
        assert get(appliance, "/ready").status_code == 503
        assert not (folder / "sessions.db").exists()


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_where_a_power_cut_may_take_commits_their_loss_is_said_and_no_more(folder: Path, durability: str) -> None:
    with Appliance(folder, {"SESSIONS_DURABILITY": durability}) as appliance:
        cursor = post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"]
        appliance.stop()
        mark.write_newest(folder, mark.Newest(cursor + 5))
        appliance.start()
        answer = post(appliance, "/api/actions/s", {"type": "x"})
        if durability == "full":
            assert answer.status_code == 503
        else:
            assert answer.json()["cursor"] == cursor + 6, "no cursor is given twice"
        assert appliance.said(str(cursor + 5))


def test_what_the_tree_still_has_is_not_given_up_to_a_power_cut(folder: Path) -> None:
    folder.mkdir()
    normal = Settings(directory=folder, durability="normal")
    database = Database(normal.database)
    cursor = database.append(drafted("action", "s", {"type": "x"})).event.cursor
    database.close()
    mark.write_newest(folder, mark.Newest(cursor + 5))
    assert check_integrity(normal) is None
    (folder / ".mirror.json").write_text(f'{{"cursor":{cursor + 3}}}\n')
    finding = check_integrity(normal)
    assert finding is not None
    assert "--newer" in finding.detail


@pytest.mark.long
def test_a_loss_that_was_accepted_is_no_finding_and_its_cursors_are_not_given_again(folder: Path) -> None:
    with Appliance(folder) as appliance:
        cursor = post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"]
        appliance.stop()
        mark.write_newest(folder, mark.Newest(cursor + 5, accepted=cursor))
        for _ in range(2):
            appliance.start(until="/ready")
            appliance.stop()
        appliance.start(until="/ready")
        assert post(appliance, "/api/actions/s", {"type": "x"}).json()["cursor"] == cursor + 6


def test_what_is_no_file_is_named_and_stops_the_start(folder: Path) -> None:
    (folder / "sessions.db").mkdir(parents=True)
    with pytest.raises(ServerError, match=r"session store: .*sessions\.db cannot be used") as ended, Appliance(folder):
        pass
    assert "Traceback" not in str(ended.value)


def test_the_file_of_another_program_is_not_called_damaged(folder: Path) -> None:
    folder.mkdir()
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert check_integrity(Settings(directory=folder)) is None
    mark.write_newest(folder, mark.Newest(3))
    found = check_integrity(Settings(directory=folder))
    assert isinstance(found, Fault) and found.status == "damaged"
