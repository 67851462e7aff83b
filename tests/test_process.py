"""The process from outside: how it starts, refuses to start, ends, and begins again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from app import App, create_app
from sessionstore.settings import Settings
from tests.appliance import REPOSITORY, Appliance
from tests.commands import run
from tests.peers import descriptors_of, dial, eventually, response_from
from tests.repeats import marked, repeated
from tests.wire import NDJSON, HttpClient, connect, http_request

"""At once, on one folder."""
ENDS = int(os.environ.get("ENDS", 10))
"""Under load, each at another moment."""
IN_FLIGHT = 200
WEBSOCKETS = 50
STREAMS = 5
END_SECONDS = 10.0
"""The bound of the contract on an orderly end."""


def action(event_id: str, session: str = "s") -> bytes:
    return http_request("POST", f"/api/actions/{session}", b'{"eventId":"%s","type":"x"}' % event_id.encode())


def get(appliance: Appliance, path: str) -> httpx.Response:
    """Without certificates: reading them takes longer than the request."""
    return httpx.get(appliance.url + path, verify=False, follow_redirects=True)


def post(appliance: Appliance, path: str, body: object) -> httpx.Response:
    return httpx.post(appliance.url + path, json=body, verify=False)


def status_of(appliance: Appliance, session: str) -> str:
    metadata = get(appliance, f"/api/sessions/{session}").json()["metadata"]
    return str(metadata["status"])


def types_of(appliance: Appliance, session: str) -> list[str]:
    items = get(appliance, f"/api/sessions/{session}/events?limit=1000").json()["items"]
    return [item["type"] for item in items]


def has_no_traceback(output: str) -> bool:
    return "Traceback" not in output and "ERROR" not in output


def start_and_end(folder: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an appliance that cannot start, to its end."""
    return run(Path(folder), ["app.py"], {"PORT": "0", **environment})


def is_refused_plainly(ended: subprocess.CompletedProcess[str], *words: str) -> bool:
    """One line on stderr that names what it is about, and exit code 1."""
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode == 1, ended
    assert ended.stdout == "", "nobody is greeted by a server that does not start"
    assert len(lines) == 1, ended.stderr
    return lines[0].startswith("session store: ") and all(word in lines[0] for word in words)


# ------------------------------------------------------------------- starting


def test_the_greeting_names_the_dashboard_the_api_and_the_data(folder: Path) -> None:
    with Appliance(folder) as appliance:
        eventually(lambda: "Access" in appliance.output)
        assert re.search(rf"^  Dashboard +{appliance.url}/$", appliance.output, re.M)
        assert re.search(rf"^  API +{appliance.url}/schema$", appliance.output, re.M)
        assert re.search(rf"^  Data +{folder}$", appliance.output, re.M)
        for page in ("/", "/schema"):
            assert get(appliance, page).status_code == 200


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.usefixtures("cold")
def test_what_prices_need_is_not_read_before_something_is_priced(folder: Path) -> None:
    """Pydantic takes 9 MB; Litestar would read it at each start, because it is there."""
    used = {"model": "claude-sonnet-4-5", "provider": "anthropic", "inputTokens": 1000}
    line = json.dumps({"type": "usage_reported", "sessionId": "s", "data": used})
    with Appliance(folder) as server:
        read = Path(f"/proc/{server.process.pid}/maps")
        assert "pydantic_core" not in read.read_text()
        answer = httpx.post(f"{server.url}/api/events", content=line, headers={"content-type": NDJSON})
        assert answer.json()["accepted"] == 1
        assert "pydantic_core" in read.read_text()


def test_a_second_process_on_the_same_folder_leaves_at_once_and_writes_nothing(folder: Path) -> None:
    with Appliance(folder) as appliance:
        assert post(appliance, "/api/actions/s", {"type": "x"}).status_code == 200
        before = get(appliance, "/api/events").text
        owner = (folder / ".lock").read_text()
        ended = start_and_end(folder)
        assert is_refused_plainly(ended, str(folder), str(appliance.process.pid))
        assert (folder / ".lock").read_text() == owner
        assert get(appliance, "/api/events").text == before
        assert post(appliance, "/api/actions/s", {"type": "x"}).json()["seq"] == 2


@repeated("number", few=2, many=12, variable="STARTS")
def test_of_many_that_start_together_one_serves(folder: Path, number: int) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}
    environment = {**inherited, "SESSIONS_DIR": str(folder), "PORT": "0"}
    started = [
        subprocess.Popen(
            [sys.executable, "app.py"], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(number)
    ]
    try:
        eventually(lambda: sum(process.poll() is not None for process in started) == number - 1, within=300)
        (serving,) = (process for process in started if process.poll() is None)
        assert (folder / ".lock").read_text() == f"{serving.pid}\n"
        for process in started:
            if process is not serving:
                out, error = process.communicate(timeout=30)
                assert (process.returncode, out) == (1, b"")
                assert error.decode().startswith("session store: Another session store (process ")
                assert error.count(b"\n") == 1
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=30)


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert is_refused_plainly(start_and_end(folder, PORT=port), "127.0.0.1", port, "in use", "Set PORT")


@pytest.mark.parametrize("place", ["below a file", "in /proc"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    folder = {"below a file": str(tmp_path / "file" / "sessions"), "in /proc": "/proc/sessions"}[place]
    assert is_refused_plainly(start_and_end(folder), folder, "cannot be written", "Set SESSIONS_DIR")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSIONS_DURABILITY", "eventual"),
        ("SESSIONS_HOST", "no.such.host.invalid"),
    ],
)
def test_a_bad_setting_is_named(folder: Path, name: str, value: str) -> None:
    assert is_refused_plainly(start_and_end(folder, **{name: value}), name, value)


def test_a_database_that_cannot_be_used_is_named(folder: Path) -> None:
    folder.mkdir()
    database = folder / "sessions.db"
    database.write_text("some text, and rather much of it. " * 100)
    assert is_refused_plainly(start_and_end(folder), str(database), "not a database")
    database.unlink()
    with closing(sqlite3.connect(database)) as theirs:
        theirs.execute("CREATE TABLE theirs (a)")
    assert is_refused_plainly(start_and_end(folder), str(database), "another program")


def test_weaker_durability_starts_and_stores(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_DURABILITY": "normal"}) as appliance:
        assert post(appliance, "/api/actions/s", {"type": "x"}).status_code == 200
        assert types_of(appliance, "s") == ["session_created", "action"]


# --------------------------------------------------------------------- ending


class Load:
    """Clients of every kind that are busy when the end comes."""

    def __init__(self, appliance: Appliance) -> None:
        self.port = appliance.port
        self.acknowledged: set[str] = set()
        self.statuses: set[int] = set()
        self.close_codes: list[int | None] = []
        self.streams_ended = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.is_loaded = asyncio.Event()
        self.half_sent: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def begin(self) -> None:
        sockets = [await websockets.connect(f"ws://127.0.0.1:{self.port}/ws") for _ in range(WEBSOCKETS)]
        works = [self.listen(socket) for socket in sockets]
        works += [self.stream() for _ in range(STREAMS)]
        works += [self.write(number) for number in range(IN_FLIGHT)]
        self.tasks = [asyncio.create_task(work) for work in works]
        for length in (b"100", b"100000"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            head = b"POST /api/actions/s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            writer.write(head + b"Content-Length: " + length + b'\r\n\r\n{"type":')
            await writer.drain()
            self.half_sent.append((reader, writer))
        await self.is_loaded.wait()

    async def finish(self) -> None:
        await asyncio.gather(*self.tasks)
        for reader, writer in self.half_sent:
            self.statuses.add(int((await reader.read()).split()[1]))
            writer.close()

    async def write(self, number: int) -> None:
        """One post after the other, each sent as soon as the last was answered, until the connection ends."""
        with suppress(OSError):
            client = await connect(self.port, HttpClient)
            for event in range(100_000):
                event_id = f"w{number}-{event}"
                status = (await client.ask(action(event_id))).status
                self.statuses.add(status)
                if status != 200:
                    client.close()
                    return
                self.acknowledged.add(event_id)
                if len(self.acknowledged) >= IN_FLIGHT:
                    self.is_loaded.set()

    async def listen(self, connection: ClientConnection) -> None:
        with suppress(websockets.ConnectionClosed):
            async for _ in connection:
                pass
        self.close_codes.append(connection.close_code)

    async def stream(self) -> None:
        async with httpx.AsyncClient(timeout=None, verify=False) as client:
            with suppress(httpx.TransportError):
                async with client.stream("GET", f"http://127.0.0.1:{self.port}/api/events/stream") as response:
                    async for _ in response.aiter_bytes():
                        pass
        self.streams_ended += 1


def action_ids(folder: Path) -> set[str]:
    with closing(sqlite3.connect(f"{(folder / 'sessions.db').as_uri()}?mode=ro", uri=True)) as database:
        return {event_id for (event_id,) in database.execute("SELECT event_id FROM events WHERE type = 'action'")}


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize("turn", marked(range(ENDS), long=range(1, ENDS)))
def test_an_end_under_load_is_orderly_and_loses_nothing(folder: Path, turn: int) -> None:
    async def test() -> float:
        await load.begin()
        await asyncio.sleep(random.Random(turn).uniform(0.0, 0.2))
        begun = time.monotonic()
        appliance.process.send_signal(signal.SIGTERM if turn else signal.SIGINT)
        await asyncio.wait_for(asyncio.to_thread(appliance.process.wait), END_SECONDS * 2)
        seconds = time.monotonic() - begun
        await asyncio.wait_for(load.finish(), END_SECONDS)
        return seconds

    with Appliance(folder) as appliance:
        load = Load(appliance)
        seconds = asyncio.run(test())
        assert appliance.process.returncode == 0
        assert seconds <= END_SECONDS
        assert load.statuses <= {200, 503}
        assert len(load.close_codes) == WEBSOCKETS
        assert set(load.close_codes) <= {1001, 1012}
        assert load.streams_ended == STREAMS
        assert load.acknowledged - action_ids(folder) == set()
        assert has_no_traceback(appliance.output), appliance.output[-4000:]


@pytest.mark.usefixtures("cold")
def test_an_orderly_end_leaves_nothing_beside_the_database(folder: Path) -> None:
    with Appliance(folder) as appliance:
        assert post(appliance, "/api/actions/s", {"type": "x"}).status_code == 200
        assert (folder / "sessions.db-wal").stat().st_size > 0
        assert appliance.stop().code == 0
        beside = {file.name for file in folder.iterdir() if file.is_file()} - {"sessions.db"}
        assert beside == {".lock", ".newest.json", ".mirror.json", "index.json", "deleted.jsonl"}
        assert has_no_traceback(appliance.output)


def is_reached(appliance: Appliance) -> bool:
    try:
        return get(appliance, "/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.usefixtures("cold")
def test_what_was_taken_is_finished_and_answered_while_nothing_new_is_let_in(folder: Path) -> None:
    """Somebody else's lock on the database holds the write, and with it the end."""

    async def test() -> int:
        client = await connect(appliance.port, HttpClient)
        other.execute("BEGIN IMMEDIATE")
        answer = asyncio.ensure_future(client.ask(action("taken")))
        await asyncio.to_thread(eventually, lambda: "write_queue_depth 1.0\n" in metrics_of(appliance))
        appliance.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(eventually, lambda: not is_reached(appliance))
        assert not answer.done()
        other.execute("COMMIT")
        status = (await answer).status
        client.close()
        return status

    with Appliance(folder) as appliance:
        assert is_reached(appliance)
        with closing(sqlite3.connect(folder / "sessions.db", isolation_level=None, check_same_thread=False)) as other:
            assert asyncio.run(test()) == 200
        assert appliance.process.wait(END_SECONDS) == 0
        assert has_no_traceback(appliance.output)
    assert action_ids(folder) == {"taken"}


def metrics_of(appliance: Appliance) -> str:
    return get(appliance, "/metrics").text


# ------------------------------------------------------------------- descriptors


def test_a_start_that_fails_in_the_middle_leaves_nothing_that_keeps_the_process(tmp_path: Path) -> None:
    """Whatever keeps a later step from being done, here too few descriptors: a process that stays has the folder."""
    before, failed_late = set(threading.enumerate()), 0
    for spare in range(0, 12, 2):
        app = create_app(Settings(directory=tmp_path / str(spare), tree=False))
        app.prepare()
        if asyncio.run(is_started(app, spare)):
            break
        failed_late += app.store.is_open
        eventually(lambda: all(thread.daemon for thread in set(threading.enumerate()) - before))
    assert failed_late


async def is_started(app: App, spare: int) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
    try:
        async with app.lifespan(app.litestar):
            return True
    except (sqlite3.Error, OSError):
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
def test_when_descriptors_run_out_those_who_are_connected_go_on_and_all_heals(folder: Path) -> None:
    """Taken away while the server runs: from the start it would keep some back (tests/test_limits.py)."""
    with Appliance(folder) as appliance, dial(appliance.port) as old:
        pid = appliance.process.pid
        old.sendall(action("e-0"))
        assert response_from(old).status == 200
        eventually(lambda: (folder / "sessions" / "s" / "metadata.json").exists())
        before = number_of(descriptors_of(pid))
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # what is open stays open
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{appliance.url}/ready", timeout=1)
        for number in range(1, 100):
            old.sendall(action(f"e-{number}"))
            assert response_from(old).status == 200
        old.sendall(http_request("GET", "/api/query/recent"))
        assert response_from(old).status == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: is_reached(appliance))
        eventually(lambda: tree_is_level(appliance))
        assert len(action_ids(folder)) == 100
        eventually(lambda: number_of(descriptors_of(pid)) <= before + 2)
        assert "Traceback" not in appliance.output


def tree_is_level(appliance: Appliance) -> bool:
    tree = get(appliance, "/health").json()["tree"]
    return (tree["status"], tree["lag"]) == ("ok", 0)


def number_of(things: Iterable[object]) -> int:
    return sum(1 for _ in things)


# --------------------------------------------------------------- beginning again


def test_a_restart_finds_everything_as_it_was(folder: Path) -> None:
    paths = ["/api/sessions", "/api/sessions/s", "/api/events", "/api/state/s", "/api/query/active", "/api/actions/s"]
    with Appliance(folder) as appliance:
        post(appliance, "/api/sessions", {"sessionId": "s", "userId": "alice", "initial": {"input": {"task": "x"}}})
        post(appliance, "/api/actions/s", {"type": "file_write", "path": "ä", "text": "a needle"})
        post(appliance, "/api/state/s/goals", {"description": "d"})
        post(appliance, "/api/state/s/agents", {"type": "t"})
        before = [get(appliance, path).json() for path in paths]
        for end in (appliance.stop, appliance.kill):
            end()
            appliance.start()
            assert [get(appliance, path).json() for path in paths] == before
        assert get(appliance, "/health").json()["cursor"] == 4
        answer = post(appliance, "/api/actions/s", {"type": "x"}).json()
        assert (answer["seq"], answer["cursor"]) == (2, 5)
        found = get(appliance, "/api/query/search?q=needle").json()["items"]
        assert [item["event"]["cursor"] for item in found] == [2]


# ------------------------------------------------------------------------ lost


def test_a_silent_session_is_lost_and_its_next_word_brings_it_back(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_LOST_AFTER": "1"}) as appliance:
        for session in ("silent", "waiting", "finished"):
            post(appliance, f"/api/actions/{session}", {"type": "x"})
        httpx.patch(
            f"{appliance.url}/api/sessions/waiting/metadata", json={"status": "waiting"}, timeout=30, verify=False
        )
        post(appliance, "/api/sessions/finished/finalize", {})
        eventually(lambda: status_of(appliance, "silent") == "lost")
        assert types_of(appliance, "silent") == ["session_created", "action", "session_lost"]
        assert (status_of(appliance, "waiting"), status_of(appliance, "finished")) == ("waiting", "completed")
        post(appliance, "/api/actions/silent", {"type": "x"})
        assert status_of(appliance, "silent") in ("active", "lost")
        assert types_of(appliance, "silent")[3] == "action"
        eventually(lambda: types_of(appliance, "silent").count("session_lost") == 2)
        assert "session_lost" not in types_of(appliance, "waiting") + types_of(appliance, "finished")


@pytest.mark.long
def test_silence_before_the_start_does_not_count(folder: Path) -> None:
    """Nobody could be heard then: every session has its time after the start."""
    with Appliance(folder, {"SESSIONS_LOST_AFTER": "1.5"}) as appliance:
        post(appliance, "/api/actions/s", {"type": "x"})
        appliance.stop()
        with closing(sqlite3.connect(folder / "sessions.db")) as database, database:
            database.execute("UPDATE sessions SET heard = '2020-01-01T00:00:00.000Z'")
        begun = time.time()
        appliance.start()
        eventually(lambda: status_of(appliance, "s") == "lost")
        last = get(appliance, "/api/sessions/s/events").json()["items"][-1]
        assert last["type"] == "session_lost"
        assert datetime.fromisoformat(last["receivedAt"]).timestamp() - begun >= 1.5
