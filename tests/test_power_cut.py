"""What was acknowledged outlives a power cut, wherever it falls; with `normal` durability it does not."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from sessionstore.settings import Settings
from sessionstore.store.integrity import check_integrity
from sessionstore.store.schema import open_writer
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done, token
from tests.powercut import CALLS, Disk, File
from tests.repeats import LONG, repeated
from tests.tracing import Call, Injection, read, recording, wait_for_end
from tests.wire import NDJSON, HttpClient, connect, http_request

CUTS = repeated("number", few=8, many=100, variable="POWER_CUTS")
STARTS = 30
"""For so many cuts there is one on which a real server is started."""
WRITERS = 4
ROUNDS, MOST_ROUNDS = 60, 600


class Traced(NamedTuple):
    """What a server did under load until it was killed."""

    folder: Path
    calls: list[Call]


def is_begun_anew(log: Path) -> bool:
    """As its head says (https://www.sqlite.org/fileformat2.html#walformat)."""
    with log.open("rb") as file:
        return int.from_bytes(file.read(16)[12:]) > 0


async def write(port: int, number: int, is_enough: Callable[[], bool]) -> None:
    """Every kind of write, also such as make and remove files of the tree."""
    client = await connect(port, HttpClient)
    for turn in range(MOST_ROUNDS):
        if turn >= ROUNDS and is_enough():
            break
        session = f"s-{number}-{turn // 20}"
        name = f"{number}-{turn}"
        body = b'{"eventId":"%s","type":"file_write","text":"%s"}' % (name.encode(), b"x" * (97 * turn % 3000))
        passing = f"passing-{number}-{turn // 10}"
        line = b'{"type":"response","sessionId":"%s","data":{"type":"x"}}\n' % passing.encode()
        requests = [
            http_request("POST", f"/api/actions/{session}", body),
            http_request("PATCH", f"/api/state/{session}", b'{"turn":%d}' % turn),
            http_request("POST", "/api/events", line * 20, NDJSON),
            http_request("DELETE", f"/api/sessions/{passing}"),
        ]
        for request in requests[: 4 if turn % 10 == 9 else 1 + turn % 3]:
            while (answer := await client.ask(request)).status == 503:  # noqa: ASYNC110 (it is asked each time)
                await asyncio.sleep(0.01)
            assert answer.status == 200, answer
    client.close()


def trace(
    folder: Path, durability: str, *injections: Injection, is_enough: Callable[[], bool] = lambda: True
) -> Traced:
    record = folder.with_name("trace")
    environment = {"SESSIONS_DURABILITY": durability, "SESSIONS_TREE": "on" if durability == "full" else "off"}

    async def load() -> None:
        await asyncio.gather(*(write(server.port, number, is_enough) for number in range(WRITERS)))

    with Appliance(folder, environment, under=recording(record, CALLS, *injections)) as server:
        asyncio.run(load())
        server.kill()
    wait_for_end(record, server.process.pid)
    return Traced(folder, read(record))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Under load until its log was begun anew: how much goes into one depends on how busy the machine is."""
    folder = tmp_path_factory.mktemp("full") / "sessions"
    return trace(folder, "full", is_enough=lambda: is_begun_anew(folder / "sessions.db-wal"))


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    return trace(tmp_path_factory.mktemp("normal") / "sessions", "normal")


class Cut(NamedTuple):
    """What one cut left."""

    number: int
    folder: Path
    promised: dict[int, str]
    """Cursors that were told to somebody before it, with their eventId where that was told too."""


def cuts(traced: Traced, target: Path, number: int, seed: int = 0) -> Iterator[Cut]:
    """So many, each at a random moment from the birth of the folder on; what one leaves is the caller's to use up."""
    chance = random.Random(seed)
    disk = Disk(str(traced.folder), chance)
    lines = sorted(chance.choices([call.begun for call in traced.calls if disk.concerns(call)], k=number))
    made = 0
    for line in disk.play(traced.calls):
        while made < number and line >= lines[made]:
            folder = target / str(made)
            folder.mkdir()
            disk.cut(folder)
            yield Cut(made, folder, dict(disk.promised))
            shutil.rmtree(folder)
            made += 1


def faults_of(cut: Cut, durability: str) -> list[str]:
    """What is wrong with it, in sentences."""
    finding = check_integrity(Settings(directory=cut.folder, durability=durability))
    if finding is not None:
        return [f"the start is refused: {finding.detail}"]
    with closing(open_writer(cut.folder / "sessions.db", durability=durability)) as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    return [f"{fault}" for fault in (sound, *broken) if fault != "ok"]


def lost(cut: Cut) -> list[str]:
    """What was promised and is not there."""
    with closing(sqlite3.connect(cut.folder / "sessions.db")) as connection:
        events = dict(connection.execute("SELECT cursor, event_id FROM events"))
    newest = max(events, default=0)
    missing = [
        cursor for cursor, name in cut.promised.items() if cursor > newest or (name and events.get(cursor) != name)
    ]
    return [f"cut {cut.number}: {cut.promised[cursor] or 'an event'} had cursor {cursor}" for cursor in missing]


@CUTS
def test_no_power_cut_takes_what_was_acknowledged(full: Traced, tmp_path: Path, number: int) -> None:
    promises = 0
    for cut in cuts(full, tmp_path, number):
        assert faults_of(cut, "full") == [], cut.number
        assert lost(cut) == []
        promises = max(promises, len(cut.promised))
    assert promises > WRITERS * ROUNDS, "the last cuts come after nearly all of the load"


def test_the_cuts_fall_also_where_the_log_is_put_into_the_database_and_begun_anew(full: Traced) -> None:
    to_database = [call for call in full.calls if call.name == "pwrite64" and call.paths[0].endswith("/sessions.db")]
    heads = [call for call in full.calls if call.paths[:1] == [f"{full.folder}/sessions.db-wal"] and is_head(call)]
    assert len(to_database) > 100
    assert len(heads) > 2, "one for each of the two connections of a start, and one for the time it is begun anew"


def is_head(call: Call) -> bool:
    return call.name == "pwrite64" and call.words[-1] == "0"


@CUTS
def test_syncs_that_fail_before_the_power_cut_lose_nothing_either(tmp_path: Path, number: int) -> None:
    """What a failed sync gave up is written anew: to sync it again would say that it is there, and it is not."""
    (tmp_path / "cuts").mkdir()
    traced = trace(tmp_path / "sessions", "full", Injection("fdatasync", "EIO", "40+7"))
    assert sum(call.name == "fdatasync" and call.result < 0 for call in traced.calls) > 5
    for cut in cuts(traced, tmp_path / "cuts", number // 2):
        assert faults_of(cut, "full") == [], cut.number
        assert lost(cut) == []


@CUTS
def test_a_real_server_starts_on_what_a_power_cut_leaves_and_mends_its_tree(
    full: Traced, tmp_path: Path, number: int
) -> None:
    for cut in cuts(full, tmp_path, max(1, number // STARTS), seed=1):
        with Appliance(cut.folder) as server:
            assert httpx.get(f"{server.url}/ready").status_code == 200, cut.number
            server.stop()
            assert alarms(server.output) == []
        assert lost(cut) == []
        assert is_done(export(cut.folder, "verify", "--full"))


def alarms(output: str) -> list[str]:
    """All but that a log of the tree, which has holes then, was set aside and written anew, and that others could read
    what the test has laid there."""
    usual = re.compile("set-aside/|Other users could read")
    return [line for line in output.splitlines() if re.search("WARNING|ERROR", line) and not usual.search(line)]


@repeated("number", many=100, variable="POWER_CUTS")
def test_with_normal_durability_a_power_cut_takes_what_was_acknowledged(
    normal: Traced, tmp_path: Path, number: int
) -> None:
    """As it is documented; and if these cuts took nothing, the others would show nothing."""
    losing = 0
    for cut in cuts(normal, tmp_path, number):
        assert faults_of(cut, "normal") == [], cut.number
        losing += bool(lost(cut))
    assert losing > number // 4


def test_the_model_of_the_disk_has_what_the_disk_has(full: Traced) -> None:
    disk = Disk(str(full.folder), random.Random(0))
    for _ in disk.play(full.calls):
        pass
    there = {str(path.relative_to(full.folder)): path for path in full.folder.rglob("*") if path.is_file()}
    mapped = {"sessions.db-shm", ".newest.json"}
    assert disk.contents().keys() - mapped == {n for n, p in there.items() if not p.is_symlink()} - mapped
    for name in disk.contents().keys() - mapped:
        assert disk.contents()[name] == there[name].read_bytes(), name


@LONG
def test_a_token_that_was_taken_away_does_not_come_back(tmp_path: Path) -> None:
    """Nothing of what the command did is left to the next sync of somebody else."""
    folder, record = tmp_path / "sessions", tmp_path / "trace"
    assert token(folder, "add", "ci", "--role", "admin").returncode == 0
    command = [*recording(record, CALLS), sys.executable, "app.py", "token", "remove", "ci"]
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "SESSIONS_DIR": str(folder)}) as running:
        assert running.wait() == 0
    wait_for_end(record, running.pid)
    disk = Disk(str(folder), random.Random(0), {"tokens": None})
    assert [*disk.play(read(record))]
    assert len(disk.renamings) == disk.synced > 0
    assert not any(file.pending for file in disk.names.values() if isinstance(file, File))
