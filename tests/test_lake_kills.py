"""Each event once in the lake, byte for byte, whatever dies at whatever moment, and whoever else writes to it."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sessionstore.store.shard import keep_shard
from sessionstore.upkeep.lake import ENVIRONMENT
from tests.appliance import REPOSITORY
from tests.databases import Database, drafted
from tests.lake_gate import Fault, Gate, gate_before, start_sealer, through
from tests.lakes import Place, Storage
from tests.peers import most_resident_bytes
from tests.repeats import LONG, repeated
from tests.test_lake_seal import asked, sealed, written

SHARDS = ("berlin", "munich")
FAULTS: tuple[Fault, ...] = ("before", "after", "cut", "")
"""The last one: killed at any moment."""
SECONDS = 170.0
WITH_EVENTS = re.compile(r"/events/_delta_log/\d{19}[1-9]\.json$")
"""Not that which makes the table."""


class Sealed(NamedTuple):
    """A shard that is being sealed through a gate of its own."""

    name: str
    database: Database
    gate: Gate
    place: Place

    def add(self, events: int) -> None:
        with self.database.transaction() as appender:
            for step in range(events):
                appender.append(drafted("action", f"s-{step % 3}", {"type": "x", "step": step, "text": "ünïcode " * 9}))

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        self.gate.victim = start_sealer(self.database.path, self.place, self.name, *options)
        return self.gate.victim

    def finish(self) -> None:
        """Until a sealer has found that nothing is left."""
        self.gate.fault = ""
        for _ in range(10):
            if self.start().wait() == 0:  # however much is left: the test's own time is its bound
                return
        raise AssertionError("it does not come to an end")


@contextmanager
def shards(storage: Storage, place: Place, folder: Path, names: tuple[str, ...] = SHARDS) -> Iterator[list[Sealed]]:
    with ExitStack() as stack:
        made = []
        for name in names:
            (folder / name).mkdir()
            database = Database(folder / name / "sessions.db")
            stack.callback(database.close)
            keep_shard(database.connection, name)
            gate = stack.enter_context(gate_before(storage))
            made.append(Sealed(name, database, gate, through(gate, place)))
        yield made


def strike(shard: Sealed, fault: Fault, dice: random.Random) -> int | None:
    """One sealer, to its end: how it ended."""
    shard.gate.fault, shard.gate.spared = fault, dice.randint(0, 5)
    sealer = shard.start()
    if not fault:
        time.sleep(dice.uniform(0.3, 1.2))  # no condition is waited for: the moment is to be any
        sealer.kill()
    return sealer.wait(SECONDS)


def check_each_event_once(place: Place, shards: list[Sealed]) -> None:
    for shard in shards:
        assert sealed(place, shard.name) == written(shard.database.path)
        rows = asked(f"{place.url}/sessions", f"SELECT session_id, sealed FROM t WHERE shard = '{shard.name}'")
        assert len(rows) == len(set(rows)) > 0
        newest = "SELECT session_id, max(last_cursor) FROM t WHERE shard = '{}' GROUP BY 1 ORDER BY 1"
        wanted = shard.database.rows("SELECT session_id, last_cursor FROM sessions ORDER BY 1")
        assert asked(f"{place.url}/sessions", newest.format(shard.name)) == wanted


@repeated("kills", few=2, many=30, variable="SEAL_KILLS")
def test_two_shards_whose_sealers_are_killed_have_each_event_once(
    storage: Storage, bucket: Place, tmp_path: Path, kills: int
) -> None:
    dice = random.Random(kills)
    with shards(storage, bucket, tmp_path) as both:

        def seal_and_die(shard: Sealed, faults: list[Fault]) -> None:
            for fault in faults:
                shard.add(dice.randint(10, 30))
                ended = strike(shard, fault, dice)
                assert ended in (0, -9, 1), fault
            shard.finish()

        planned = [FAULTS[number % len(FAULTS)] for number in range(kills)]
        dice.shuffle(planned)
        threads = [threading.Thread(target=seal_and_die, args=(shard, planned[at::2])) for at, shard in enumerate(both)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_each_event_once(bucket, both)
        assert sum(len(shard.gate.struck) for shard in both) >= kills // 4


@LONG
def test_without_the_mark_in_the_commit_events_would_be_there_twice(
    storage: Storage, bucket: Place, tmp_path: Path
) -> None:
    """The control: a file says how far it is sealed, as one would do it without a table's transactions."""
    with shards(storage, bucket, tmp_path, ("berlin",)) as (shard,):
        shard.add(20)
        shard.gate.only = WITH_EVENTS
        shard.gate.fault = "after"
        mark = str(tmp_path / "mark")
        assert shard.start(mark).wait(SECONDS) == -9
        assert shard.start(mark).wait(SECONDS) == 0
        found = [row[0] for row in sealed(bucket, "berlin")]
        assert (len(set(found)), len(found)) == (23, 20 + 23)


@LONG
def test_a_table_that_is_written_anew_meanwhile_keeps_each_event(
    storage: Storage, bucket: Place, tmp_path: Path
) -> None:
    """Compaction and a merge of another conflict with appends: these are tried again, and nothing is lost by it."""
    with shards(storage, bucket, tmp_path, ("berlin",)) as (shard,):
        shard.add(100)
        sealer = shard.start()
        compacted = 0
        while sealer.poll() is None:
            try:
                DeltaTable(f"{bucket.url}/events").optimize.compact()
                compacted += 1
            except DeltaError:
                continue
        shard.finish()
        assert compacted > 0
        check_each_event_once(bucket, [shard])


@pytest.mark.parametrize("second", ["another store", "a copy"])
def test_of_two_stores_with_one_name_one_stops(storage: Storage, bucket: Place, tmp_path: Path, second: str) -> None:
    with shards(storage, bucket, tmp_path) as (berlin, other):
        from lake.sealer import Sealer
        from lake.table import Displaced

        berlin.add(5)
        first = Sealer(berlin.database.path, bucket.url, "berlin")
        assert first.seal() == 8
        if second == "another store":
            other.add(50)
            with pytest.raises(Displaced, match=r"Another store seals as 'berlin'.*SESSIONS_SHARD"):
                Sealer(other.database.path, bucket.url, "berlin").seal()
        else:
            copy = Sealer(berlin.database.path, bucket.url, "berlin")
            berlin.add(1)
            assert copy.seal() == 9
            berlin.add(1)
            with pytest.raises(Displaced, match="A copy of this store seals as 'berlin' too: the lake is at cursor 9"):
                first.seal()
        berlin.finish()
        check_each_event_once(bucket, [berlin])


# --------------------------------------------------------------------------- memory


def of_usual_size(database: Database) -> None:
    for number in range(400):
        with database.transaction() as appender:
            for step in range(100):
                text = f"{step * number:x} make -C src/{number} " * 40
                appender.append(drafted("action", f"s-{number % 90}", {"type": "x", "step": step, "text": text}))


def of_a_mebibyte(database: Database) -> None:
    for number in range(64):
        database.append(drafted("action", "s", {"type": "x", "text": "\U0001f9ff" + f"{number} of many " * 65_000}))


def of_other_days(database: Database) -> None:
    for _ in range(400):
        database.ticks = count(next(database.ticks) + 2 * 11_520)  # two days
        database.append(drafted("action", "s", {"type": "x", "text": "x" * 300}))


@LONG
@pytest.mark.parametrize("fill", [of_usual_size, of_a_mebibyte, of_other_days])
def test_a_sealer_needs_little_memory_whatever_it_seals(
    bucket: Place, tmp_path: Path, fill: Callable[[Database], None]
) -> None:
    database = Database(tmp_path / "sessions.db")
    fill(database)
    keep_shard(database.connection, "berlin")
    database.close()
    assert most_memory_to_seal(database.path, bucket) <= 250 << 20
    assert sealed(bucket, "berlin") == written(database.path)


def most_memory_to_seal(path: Path, place: Place) -> int:
    """Bytes that the server's child had at most until everything was sealed."""
    head = written(path)[-1][0]
    command = [sys.executable, "-m", "lake", str(path), place.url, "berlin", "1", "off"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, **ENVIRONMENT}, stdin=pipe, stdout=pipe, text=True
    ) as sealer:
        assert sealer.stdout is not None
        while json.loads(sealer.stdout.readline()).get("sealed") != head:
            pass
        most = most_resident_bytes(sealer.pid)
        sealer.kill()
    return most
