"""SESSIONS_ACK=bucket: what is answered, or shown, is in the bucket, whatever dies, sleeps or is lost, and of two
servers of one store one stops before it has told anybody."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import obstore
import pytest

import lake.chain
from lake.back import NotInLake, restore
from lake.bucket import folder_of
from lake.chain import Holder, Lost, Tail, known
from lake.sealer import Sealer
from sessionstore.model.events import Event
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store.chain import Chain
from sessionstore.store.disk import Disk
from sessionstore.store.folder import Ground
from sessionstore.store.shard import Shard
from sessionstore.store.writer import Writer
from tests.appliance import Appliance
from tests.databases import Database, drafted
from tests.lake_gate import Gate, gate_before, through
from tests.lake_objects import holding
from tests.lakes import Place, Storage
from tests.peers import children_of, eventually, frozen
from tests.repeats import LONG, repeated
from tests.test_lake_restore import made, seal_all

SHARD = "berlin"
LINE = '{{"type": "action", "sessionId": "{session}", "eventId": "{name}", "data": {{"type": "note"}}}}\n'
TAIL = lake.chain.ROOT


def settings_of(place: Place, ack: str = "bucket") -> dict[str, str]:
    return {
        **place.environment,
        "SESSIONS_LAKE": place.url,
        "SESSIONS_SHARD": SHARD,
        "SESSIONS_ACK": ack,
        "SESSIONS_LAKE_EVERY": "1",
        "SESSIONS_TREE": "off",
    }


def post(server: Appliance, name: str, session: str = "s") -> httpx.Response:
    line = LINE.format(session=session, name=name)
    headers = {"content-type": "application/x-ndjson"}
    return httpx.post(f"{server.url}/api/events", content=line, headers=headers)


def is_ready(server: Appliance) -> bool:
    return get(server, "/ready").status_code == 200


def get(server: Appliance, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}")


def names_in(path: Path) -> list[tuple[int, str]]:
    """The cursors of all events in a database, with their ids."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT cursor, event_id FROM events ORDER BY cursor").fetchall()


def restored(place: Place, into: Path) -> list[tuple[int, str]]:
    """What the bucket has."""
    for _ in range(20):
        with suppress(NotInLake):  # it was being sealed meanwhile
            restore(place.url, into, SHARD, is_forced=True)
            return names_in(into / "sessions.db")
    raise AssertionError("it is sealed all the time")


class Listener:
    """Reads a server's feed from the beginning, as long as it is there."""

    def __init__(self, server: Appliance) -> None:
        self.server = server
        self.shown: set[tuple[int, str]] = set()
        self.is_over = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        after = 0
        with httpx.Client(timeout=httpx.Timeout(5.0, read=1.0)) as client:
            while not self.is_over:
                with (
                    suppress(httpx.HTTPError),
                    client.stream("GET", f"{self.server.url}/api/events/stream?after={after}") as stream,
                ):
                    for line in stream.iter_lines():
                        if line.startswith("data: {"):
                            event = json.loads(line[6:])
                            after = event["cursor"]
                            self.shown.add((after, event["eventId"]))
                time.sleep(0.05)

    def end(self) -> set[tuple[int, str]]:
        self.is_over = True
        self.thread.join(10.0)
        return self.shown


# --------------------------------------------------------------------------- one server


def test_what_is_answered_is_in_the_bucket_and_a_server_that_sleeps_is_kept_out(
    bucket: Place, storage: Storage, tmp_path: Path
) -> None:
    with gate_before(storage) as gate:
        settings = settings_of(through(gate, bucket))
        first, second = Appliance(tmp_path / "first", settings), Appliance(tmp_path / "second", settings)
        with gone_afterwards([first, second]):
            first.start("/ready")
            feed = Listener(first)
            assert post(first, "e-1").status_code == 200
            gate.only, gate.fault = PUT_OF_TAIL, "cut"  # it is done, and the answer lost
            assert post(first, "e-2").status_code in (200, 503)
            eventually(lambda: is_ready(first))
            assert post(first, "e-2").status_code == 200
            eventually(lambda: "e-2" in {name for _, name in feed.shown})
            check_bucket_away(first, gate, feed)
            with frozen(first.process.pid):
                shutil.copytree(first.folder, second.folder)
                second.start("/ready")
                assert post(second, "e-4").status_code == 200
            refused = post(first, "e-5")
            assert refused.status_code == 503 and "another server has taken over 'berlin'" in refused.text
            eventually(lambda: "another server has taken over" in get(first, "/ready").text)
            assert get(first, "/api/events").status_code == 503
            assert get(first, "/health").json()["database"]["status"] == "displaced"
            assert post(second, "e-5").status_code == 200
            first.stop()
            second.kill()
            shutil.rmtree(second.folder)  # the machine is gone
            found = restored(bucket, second.folder)
            assert Counter(name for _, name in found if name.startswith("e-")) == Counter(f"e-{n}" for n in range(1, 6))
            assert feed.end() <= set(found)


PUT_OF_TAIL = re.compile(rf"/{TAIL}/")


@contextmanager
def gone_afterwards(servers: list[Appliance]) -> Iterator[None]:
    """Also those that sleep."""
    try:
        yield
    finally:
        for server in servers:
            if server.running:
                server.kill()
            server.__exit__(None, None, None)


def check_bucket_away(server: Appliance, gate: Gate, feed: Listener) -> None:
    """Nothing is taken, or shown, and it is said; and all goes on once it is back."""
    gate.fault = "refuse"
    refused = post(server, "e-3")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "does not answer" in refused.text
    assert post(server, "e-3").status_code == 503
    assert get(server, "/health").json()["lake"]["chain"] == "away"
    assert "sessionstore_lake_chain_failing 1" in get(server, "/metrics").text
    assert [event["eventId"] for event in get(server, "/api/events?limit=100").json()["items"]][-1] == "e-2"
    assert "e-3" not in {name for _, name in feed.shown}
    gate.fault = ""
    eventually(lambda: is_ready(server))
    assert post(server, "e-3").status_code == 200


# ----------------------------------------------------------------------------- the chain


class End:
    """One server's end of a chain, without the server: what it writes is kept as the server would."""

    def __init__(self, database: Database, url: str, by: str, store: str = "") -> None:
        self.database = database
        kept = database.connection.execute("SELECT store FROM lake").fetchone()
        self.child = Holder(database.path, url, SHARD, store or kept[0], by)
        database.appender.keep = self.keep

    def keep(self, events: list[Event]) -> None:
        lines = b"\n".join(msgspec.json.encode(msgspec.structs.astuple(event)) for event in events)
        self.child.put(events[-1].cursor, known(events[-1].event_id), lines)

    def take(self) -> None:
        self.child.take(is_first=True)
        self.database.appender.reload()

    def say(self, *names: str) -> None:
        """Each in a transaction of its own. Raises what the chain does; then it is rolled back."""
        for name in names:
            try:
                self.database.append(drafted("action", "s", {"type": "note"}, event_id=name))
            except BaseException:
                self.database.appender.rollback()
                raise

    @property
    def chain(self) -> Tail:
        return self.child.chain


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "lake").as_uri()


@pytest.fixture
def end(tmp_path: Path, url: str) -> Iterator[End]:
    """One that has said two things."""
    database = made(tmp_path / "store", SHARD)
    with closing(database):
        end = End(database, url, "first")
        end.take()
        end.say("e-1", "e-2")
        yield end


def copy_of(end: End, folder: Path, by: str, url: str) -> End:
    folder.mkdir()
    with closing(sqlite3.connect(folder / "sessions.db")) as copy:
        end.database.connection.backup(copy)
    return End(Database(folder / "sessions.db"), url, by)


def test_of_two_that_go_on_from_one_state_one_has_the_chain(end: End, url: str, tmp_path: Path) -> None:
    second = copy_of(end, tmp_path / "copy", "second", url)
    end.say("e-3")  # which the copy does not have
    second.take()
    assert [name for _, name in names_in(second.database.path)][-3:] == ["e-1", "e-2", "e-3"]
    second.say("e-4")
    with pytest.raises(Lost, match="another server has taken over 'berlin'"):
        end.say("e-5")
    with pytest.raises(Lost, match="another server has taken over 'berlin', up to cursor 5"):
        end.child.take(is_first=False)
    second.database.close()


@pytest.mark.parametrize("is_left", [True, False])
def test_what_a_killed_server_has_left_behind_takes_the_chain_from_nobody(
    end: End, url: str, tmp_path: Path, is_left: bool
) -> None:
    """Its child was just bringing the database up, and comes to it when the next server has done so."""
    (store,) = end.database.connection.execute("SELECT store FROM lake").fetchone()
    arguments = [str(end.database.path), url, SHARD, store, "killed"]
    with subprocess.Popen(
        [sys.executable, "-m", "lake.chain", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin and child.stdout
        with frozen(child.pid):
            child.stdin.write(b'{"take": true}\n')
            child.stdin.flush()
            if is_left:
                child.stdin.close()
            end.child = Holder(end.database.path, url, SHARD, store, "next")
            end.take()
            before = end.chain.numbers()
        assert child.stdout.readline() if not is_left else child.wait() == 0
    assert (end.chain.numbers() == before) == is_left
    with nullcontext() if is_left else pytest.raises(Lost, match="another server has taken over"):
        end.say("e-3")


def test_without_created_only_once_both_acknowledge(
    end: End, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test before would not see if it could not."""

    def overwrite(bucket: Any, path: str, content: bytes) -> object:
        return obstore.put(bucket, path, content) if content != b"?" else None

    monkeypatch.setattr(lake.chain, "create", overwrite)
    second = copy_of(end, tmp_path / "copy", "second", url)
    second.take()
    end.say("lost")
    second.say("kept")
    second.database.close()
    end.database.close()
    names = {name for _, name in names_in(end.database.path)} & {name for _, name in names_in(second.database.path)}
    assert "lost" not in names and "kept" not in names


def test_one_that_was_asleep_for_long_meets_the_claim_after_all_else_is_gone(
    end: End, url: str, tmp_path: Path
) -> None:
    second = copy_of(end, tmp_path / "copy", "second", url)
    second.take()
    for number in range(3, 9):
        second.say(f"e-{number}")
    seal_all(second.database, url)
    second.child.sealed(1_000)
    second.child.deleting.shutdown()
    assert len(second.chain.numbers()) == 3  # two claims, and the newest, which has no event
    with pytest.raises(Lost, match="another server has taken over"):
        end.say("e-9")
    second.database.close()


def test_what_is_deleted_is_nowhere_in_the_bucket_after_the_next_seal(end: End, url: str) -> None:
    end.database.append(drafted("session_deleted", "s", {}))
    assert holding(url, "e-1", "e-2")
    seal_all(end.database, url)
    ((upto,),) = end.database.connection.execute("SELECT max(cursor) FROM events").fetchall()
    end.child.sealed(upto)
    end.child.deleting.shutdown()
    assert not {path for path in holding(url, "e-1", "e-2", '"s"') if path.startswith(TAIL)}
    end.child.take(is_first=False)


def test_a_database_behind_what_is_gone_from_the_chain_is_named_the_way_back(
    end: End, url: str, tmp_path: Path
) -> None:
    second = copy_of(end, tmp_path / "copy", "second", url)
    end.say("e-3")
    seal_all(end.database, url)
    end.say("e-4")
    end.child.sealed(4)
    end.child.deleting.shutdown()
    before = end.chain.numbers()
    with pytest.raises(Lost, match=f"bring back what is missing: `python -m export restore {url} --newer`"):
        second.take()
    assert end.chain.numbers() == before  # and whoever has the chain keeps it
    second.database.close()
    restore(url, second.database.path.parent, is_newer=True)
    assert names_in(second.database.path) == names_in(end.database.path)


def test_other_events_and_another_store_are_refused(end: End, url: str, tmp_path: Path) -> None:
    other = made(tmp_path / "other", SHARD)
    with closing(other), pytest.raises(Lost, match="another store acknowledges as 'berlin'"):
        End(other, url, "other").take()
    copy = copy_of(end, tmp_path / "copy", "second", url)
    copy.database.appender.keep = None
    copy.say("by itself")
    end.say("e-3")
    with closing(copy.database), pytest.raises(Lost, match="has other events as berlin than the database"):
        copy.take()


def test_what_was_acknowledged_before_there_was_a_chain_comes_into_it(url: str, tmp_path: Path) -> None:
    database = made(tmp_path / "store", SHARD)
    with closing(database):
        for number in range(3):
            database.append(drafted("action", "s", {"type": "note"}, event_id=f"e-{number}"))
        Sealer(database.path, url, SHARD).seal()
        database.append(drafted("action", "s", {"type": "note"}, event_id="e-3"))
        end = End(database, url, "first")
        end.take()
        assert [event.event_id for some in end.chain.events([2], 0) for event in some] == ["e-3"]
        restore(url, tmp_path / "again")
        assert names_in(tmp_path / "again" / "sessions.db") == names_in(database.path)


def test_a_database_comes_back_from_the_chain_alone_table_by_table(end: End, url: str, tmp_path: Path) -> None:
    """Nothing was sealed yet; sessions begin anew, end, and are deleted."""
    for draft in (
        drafted("session_created", "again", {"initial": {"input": "x"}}, user_id="alice"),
        drafted("action", "again", {"type": "tool_call", "tool": "Bash"}),
        drafted("session_deleted", "again", {}),
        drafted("session_created", "again", {"initial": {}}, user_id="bob"),
        drafted("state_updated", "again", {"a": 1}, patch="merge-patch"),
        drafted("session_finalized", "again", {"final": {"ok": True}}),
    ):
        end.database.append(draft)
    again = tmp_path / "again"
    found, origin = restore(url, again)
    assert (found.odd, origin.sealed, origin.newest) == ([], 0, 9)
    assert {path.name for path in Path(folder_of(url)).iterdir()} == {"tail"}  # it was only read
    with closing(sqlite3.connect(again / "sessions.db")) as database:
        for table in ("sessions", "documents", "counts", "users", "minutes", "lake"):
            query = f"SELECT * FROM {table} ORDER BY 1, 2"
            assert database.execute(query).fetchall() == end.database.connection.execute(query).fetchall(), table
    copy = End(Database(again / "sessions.db"), url, "second")
    copy.take()
    copy.database.close()


def test_a_writer_whom_nobody_reads_beside_goes_on_with_the_log_that_it_finds(url: str, tmp_path: Path) -> None:
    """Whoever is the last to close the database takes its log away: here that is the process with the chain."""

    async def writes() -> str | None:
        settings = Settings(directory=tmp_path, lake=url, ack="bucket")
        chain = Chain(settings, lambda: Shard(SHARD, "store"), lambda: 0, lambda lost: None)
        ground, ids = Ground(tmp_path), (f"e-{number}" for number in range(9))
        writer = Writer(
            settings.database, publish=lambda events: None, ids=ids, disk=Disk(tmp_path), ground=ground, chain=chain
        )
        await writer.start()
        for _ in range(2):
            with suppress(Problem):  # the first word after trouble may come before the look into the bucket
                await writer.append(drafted("action", "s", {"type": "note"}))
            await asyncio.to_thread(eventually, lambda: not writer.trouble)
            ground.look()
            assert chain.process is not None
            chain.process.kill()
            chain.process.wait()
        await writer.stop()
        return ground.why

    assert asyncio.run(asyncio.wait_for(writes(), 60.0)) is None


# -------------------------------------------------------------------------- all at once


class Campaign:
    """A store that is written to while servers of it come and go."""

    def __init__(self, place: Place, gate: Gate, folder: Path, seed: int, ack: str = "bucket") -> None:
        self.place, self.gate, self.folder = place, gate, folder
        self.settings = settings_of(through(gate, place), ack)
        self.random = random.Random(seed)
        self.servers: list[Appliance] = []
        self.all: list[Appliance] = []
        self.listeners: list[Listener] = []
        self.acknowledged: set[str] = set()
        self.is_over = False
        self.begin(folder / "0")
        self.writers = [threading.Thread(target=self.write, args=(number,), daemon=True) for number in range(6)]
        for writer in self.writers:
            writer.start()

    @property
    def server(self) -> Appliance:
        return self.servers[-1]

    def begin(self, folder: Path) -> None:
        server = Appliance(folder, self.settings)
        self.servers = [*self.servers[-2:], server]
        self.all.append(server)
        server.start("/ready", within=60.0)
        self.listeners.append(Listener(server))

    def part_with(self, server: Appliance) -> None:
        server.kill()
        self.listeners[self.all.index(server)].end()

    def write(self, writer: int) -> None:
        """One event after the other, each again, anywhere, until somebody has acknowledged it."""
        chance = random.Random(writer)
        number = 0
        headers = {"content-type": "application/x-ndjson"}
        with httpx.Client(timeout=2.0, headers=headers) as client:
            while not self.is_over:
                name = f"w{writer}-{number}"
                line = LINE.format(session=f"s{writer}", name=name)
                with suppress(httpx.HTTPError):
                    answer = client.post(f"{chance.choice(self.servers).url}/api/events", content=line)
                    if answer.status_code == 200:
                        self.acknowledged.add(name)
                        number += 1
                time.sleep(0.01)

    def more(self, events: int = 20) -> None:
        wanted = len(self.acknowledged) + events
        try:
            eventually(lambda: len(self.acknowledged) >= wanted, within=60.0)
        except AssertionError:
            raise AssertionError(self.described()) from None

    def described(self) -> str:
        """Each server, as far as it answers, and what it wrote last."""
        lines = [f"{len(self.acknowledged)} are acknowledged"]
        for server in self.servers:
            try:
                said = httpx.get(f"{server.url}/ready", timeout=5.0).text
            except httpx.HTTPError as problem:
                said = repr(problem)
            lines += [f"{server.folder.name}: {said}", server.output[-3000:]]
        return "\n".join(lines)

    # ---- what happens

    def lose_answers(self) -> None:
        for _ in range(3):
            self.gate.only, self.gate.fault = PUT_OF_TAIL, "cut"
            eventually(lambda: not self.gate.fault)
            self.more(3)

    def be_away(self) -> None:
        self.gate.fault = "refuse"
        time.sleep(self.random.uniform(0.1, 2.0))
        self.gate.fault = ""

    def kill(self) -> None:
        self.server.kill()
        self.server.start("/ready", within=60.0)

    def kill_child(self) -> None:
        for pid in children_of(self.server.process.pid):
            if b"lake.chain" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def sleep(self) -> None:
        """While another takes its place, with a copy of the folder."""
        old = self.server
        with frozen(old.process.pid):
            folder = self.folder / f"{len(self.listeners)}"
            shutil.copytree(old.folder, folder)
            self.begin(folder)
            self.more()
        self.more()
        post(old, "only to wake it", "nobody")
        eventually(lambda: "another server has taken over" in get(old, "/ready").text)
        self.part_with(old)

    def lose_machine(self) -> None:
        old = self.server
        self.part_with(old)
        shutil.rmtree(old.folder)
        folder = self.folder / f"{len(self.listeners)}"
        restored(self.place, folder)
        self.begin(folder)

    def end(self) -> None:
        self.is_over = True
        for writer in self.writers:
            writer.join(30.0)
        shown = {pair for listener in self.listeners for pair in listener.end()}
        self.server.kill()
        found = restored(self.place, self.folder / "end")
        counted = Counter(name for _, name in found)
        assert self.acknowledged <= counted.keys(), sorted(self.acknowledged - counted.keys())[:9]
        assert max(counted.values()) == 1
        assert shown <= set(found), sorted(shown - set(found))[:9]
        assert len(shown) > len(self.acknowledged) / 2


@contextmanager
def campaign(storage: Storage, place: Place, folder: Path, seed: int, ack: str = "bucket") -> Iterator[Campaign]:
    with gate_before(storage) as gate:
        running = Campaign(place, gate, folder, seed, ack)
        with gone_afterwards(running.all):
            yield running
        running.is_over = True


@pytest.mark.timeout(7200)
@repeated("runs", many=12, variable="CHAIN_RUNS")
def test_whatever_happens_nothing_acknowledged_is_lost_or_there_twice(
    bucket: Place, storage: Storage, tmp_path: Path, runs: int
) -> None:
    with campaign(storage, bucket, tmp_path, runs) as running:
        happenings: list[Callable[[], None]] = [
            running.lose_answers,
            running.sleep,
            running.kill,
            running.kill_child,
            running.lose_machine,
            running.be_away,
        ]
        for number in range(runs):
            running.more()
            happenings[number % len(happenings)]()
        running.more()
        running.end()


@LONG
def test_with_disk_a_machine_that_is_lost_takes_something_with_it(
    bucket: Place, storage: Storage, tmp_path: Path
) -> None:
    """What the test before would not see if it could not."""
    with campaign(storage, bucket, tmp_path, 0, ack="disk") as running:
        running.settings["SESSIONS_LAKE_EVERY"] = "60"
        eventually(lambda: get(running.server, "/health").json()["lake"]["sealed"], within=60.0)
        running.kill()
        running.more(50)
        running.server.kill()
        shutil.rmtree(running.server.folder)
        names = {name for _, name in restored(bucket, running.server.folder)}
        assert running.acknowledged - names
