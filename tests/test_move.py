"""A session moves to another store while it is written to: nothing is lost, nothing doubled, whatever breaks off."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from sessionstore.web.gate import roles_for
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done, is_refused

ADMIN = "admin-token-of-the-other-store"
Document = dict[str, Any]


class Pair(NamedTuple):
    """Where sessions are, where they go, the client of each, and the file of the token there."""

    old: Appliance
    new: Appliance
    here: httpx.Client
    there: httpx.Client
    token: Path

    def move(self, session_id: str, *more: str) -> subprocess.CompletedProcess[str]:
        to = ("--to", self.new.url, "--token-file", str(self.token))
        return export(self.old.folder, "move", session_id, *to, "--url", self.old.url, *more)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("move")
    (token := folder / "token").write_text(f"{ADMIN}\n")
    old, new = Appliance(folder / "old"), Appliance(folder / "new", {"SESSIONS_TOKEN": ADMIN})
    headers = {"authorization": f"Bearer {ADMIN}"}
    with old, new, httpx.Client(base_url=old.url) as here, httpx.Client(base_url=new.url, headers=headers) as there:
        yield Pair(old, new, here, there, token)


def events_of(client: httpx.Client, session_id: str) -> list[Document]:
    """But for what each store says by itself: its cursors, and seq, which follows from the order."""
    found: list[Document] = []
    after = 0
    while True:
        page = client.get(f"/api/sessions/{session_id}/events", params={"after": after, "limit": 1000})
        if page.status_code == 404 or not page.json()["items"]:
            return found
        found += page.json()["items"]
        after = page.json()["nextAfter"]


def told(events: list[Document]) -> list[Document]:
    return [{name: value for name, value in event.items() if name not in ("cursor", "actor")} for event in events]


def begin(client: httpx.Client, session_id: str, entries: int = 3) -> None:
    client.put(f"/api/sessions/{session_id}", json={"userId": "alice", "metadata": {"title": "A walk"}})
    client.post(f"/api/state/{session_id}/goals", json={"description": "arrive"})
    client.post(f"/api/state/{session_id}/agents", json={"type": "guide"})
    lines = [
        f'{{"type":"action","sessionId":"{session_id}","eventId":"e-{n}","timestamp":"2026-01-02T03:04:05.678Z",'
        f'"data":{{"type":"step","number":{n}}}}}'
        for n in range(entries)
    ]
    headers = {"content-type": "application/x-ndjson"}
    said = client.post("/api/events", content="\n".join(lines), headers=headers).raise_for_status()
    assert said.json()["accepted"] == entries
    client.post(f"/api/sessions/{session_id}/notes", json={"text": "mind the gap"}).raise_for_status()


def test_every_event_goes_as_it_is(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id, entries=1200)
    pair.here.post(f"/api/sessions/{session_id}/finalize", json={"status": "success"}).raise_for_status()
    before, metadata = events_of(pair.here, session_id), pair.here.get(f"/api/sessions/{session_id}").json()["metadata"]
    moved = pair.move(session_id)
    assert is_done(moved) and f"{len(before):,} events" in moved.stdout
    assert told(events_of(pair.there, session_id)) == told(before)
    assert pair.here.get(f"/api/sessions/{session_id}").status_code == 404
    same = ("status", "title", "userId", "created", "goals", "agents", "actions", "ended")
    after = pair.there.get(f"/api/sessions/{session_id}").json()["metadata"]
    assert {name: after[name] for name in same} == {name: metadata[name] for name in same}


def test_the_old_store_says_where_it_is(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id)
    assert is_done(pair.move(session_id))
    answer = pair.here.post(f"/api/actions/{session_id}", json={"type": "late"})
    assert (answer.status_code, answer.json()["movedTo"]) == (421, pair.new.url)
    lines = f'{{"type":"action","sessionId":"{session_id}","data":{{"type":"x"}}}}\n' + (
        f'{{"type":"action","sessionId":"{session_id}-other","data":{{"type":"x"}}}}'
    )
    said = pair.here.post("/api/events", content=lines, headers={"content-type": "application/x-ndjson"}).json()
    assert said["accepted"] == 1, "another session is not held up"
    assert [(one["line"], one["status"], one["movedTo"]) for one in said["rejected"]] == [(1, 421, pair.new.url)]
    gone = pair.here.get("/api/events", params={"sessionId": session_id, "type": "session_deleted", "limit": 1000})
    (event,) = gone.json()["items"]
    assert (event["data"]["reason"], event["data"]["movedTo"]) == ("moved", pair.new.url)


def test_moving_under_writing_loses_and_doubles_nothing(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id, entries=400)
    acknowledged: list[str] = [event["eventId"] for event in events_of(pair.here, session_id)]
    is_over, at_new = threading.Event(), threading.Event()

    def write() -> None:
        client = pair.here
        for number in count():
            if is_over.is_set():
                return
            entry = {"type": "step", "eventId": f"live-{number}"}
            answer = client.post(f"/api/actions/{session_id}", json=entry)
            if answer.status_code == 421:
                client = pair.there
                at_new.set()
                answer = client.post(f"/api/actions/{session_id}", json=entry)
            assert answer.status_code == 200
            acknowledged.append(f"live-{number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        moved = pair.move(session_id)
        assert at_new.wait(10)
    finally:
        is_over.set()
        writer.join()
    assert is_done(moved)
    assert [event["eventId"] for event in events_of(pair.there, session_id)] == acknowledged
    assert events_of(pair.here, session_id) == []


def test_what_is_broken_off_is_simply_started_again(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id, entries=1500)
    before = events_of(pair.here, session_id)
    chance = random.Random(16)
    command = [sys.executable, "-m", "export", "move", session_id, "--dir", str(pair.old.folder), "--url", pair.old.url]
    command += ["--to", pair.new.url, "--token-file", str(pair.token)]
    taken = set[int]()
    for _ in range(20):
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as moving:
            while moving.poll() is None and not events_of(pair.there, session_id):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            moving.kill()
        taken.add(len(events_of(pair.there, session_id)))
        if pair.here.get(f"/api/sessions/{session_id}").status_code == 404 or len(taken) > 1:
            break
    assert taken and max(taken) > 0
    assert is_done(pair.move(session_id))
    assert is_done(pair.move(session_id)), "once more does nothing"
    assert told(events_of(pair.there, session_id)) == told(before)
    assert pair.here.get(f"/api/sessions/{session_id}").status_code == 404


def test_who_said_it_is_who_the_other_store_says(pair: Pair, session_id: str) -> None:
    """Nobody there is taken for somebody here: an actor follows from who asks, and no name has a colon."""
    pair.there.put(f"/api/sessions/{session_id}", json={"userId": "alice"}).raise_for_status()
    back = ("move", session_id, "--to", pair.old.url, "--url", pair.new.url)
    assert is_done(export(pair.new.folder, *back, SESSIONS_TOKEN=ADMIN))
    assert [event["actor"] for event in events_of(pair.here, session_id)] == ["moved:SESSIONS_TOKEN"]
    pair.here.post(f"/api/actions/{session_id}", json={"type": "on"}).raise_for_status()
    assert is_done(pair.move(session_id))
    assert [event["actor"] for event in events_of(pair.there, session_id)] == ["moved:SESSIONS_TOKEN", "moved:unknown"]


def test_it_may_come_back(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id)
    before = events_of(pair.here, session_id)
    assert is_done(pair.move(session_id))
    back = export(
        pair.new.folder, "move", session_id, "--to", pair.old.url, "--url", pair.new.url, SESSIONS_TOKEN=ADMIN
    )
    assert is_done(back)
    assert told(events_of(pair.here, session_id)) == told(before)
    assert pair.here.post(f"/api/actions/{session_id}", json={"type": "on"}).status_code == 200
    assert pair.there.post(f"/api/actions/{session_id}", json={"type": "on"}).status_code == 421


def test_where_no_server_has_the_store_it_moves_as_well(pair: Pair, tmp_path: Path, session_id: str) -> None:
    with Appliance(tmp_path / "third") as third, httpx.Client(base_url=third.url) as client:
        begin(client, session_id)
        before = events_of(client, session_id)
    moved = export(third.folder, "move", session_id, "--to", pair.new.url, "--token-file", str(pair.token))
    assert is_done(moved)
    assert told(events_of(pair.there, session_id)) == told(before)
    with closing(sqlite3.connect(third.folder / "sessions.db")) as database:
        assert database.execute("SELECT type FROM events WHERE session_id = ?", (session_id,)).fetchall() == [
            ("session_deleted",)
        ]


def test_what_cannot_move_stays(pair: Pair, session_id: str) -> None:
    begin(pair.here, session_id)
    assert is_refused(export(pair.old.folder, "move", "nobody", "--to", pair.new.url), "There is no session 'nobody'")
    without = export(pair.old.folder, "move", session_id, "--to", pair.new.url, "--url", pair.old.url)
    assert is_refused(without, "--token-file")
    itself = export(pair.old.folder, "move", session_id, "--to", pair.old.url, "--url", pair.old.url)
    assert is_refused(itself, "cannot move to where it is")
    away = export(pair.old.folder, "move", session_id, "--to", "http://127.0.0.1:1", "--url", pair.old.url)
    assert is_refused(away, "it has to be there")
    line = f'{{"type":"user","uuid":"u","sessionId":"{session_id}"}}'
    kept = pair.here.post(
        f"/api/transcripts/project/{session_id}",
        params={"sessionId": session_id, "batch": "1"},
        content=line,
        headers={"content-type": "application/x-ndjson"},
    )
    assert kept.status_code == 200, kept.text
    assert is_refused(pair.move(session_id), "--without-material")
    assert len(events_of(pair.here, session_id)) == 7
    assert events_of(pair.there, session_id) == []
    assert is_done(pair.move(session_id, "--without-material"))


def test_only_an_admin_hands_a_session_over() -> None:
    assert roles_for("POST", "/api/sessions/some/history") == ("admin",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sessionId": "another"}, "must be an event of the session"),
        ({"type": "session_deleted", "data": {}}, "must be an event of the session"),
        ({"receivedAt": "soon"}, "receivedAt"),
        ({"receivedAt": None}, "receivedAt"),
        ({"actor": "a\nb"}, "actor"),
        ({"eventId": None}, "must be an event of the session"),
    ],
)
def test_what_is_no_event_of_another_store_is_not_taken(
    pair: Pair, session_id: str, change: Document, said: str
) -> None:
    event = {
        "type": "session_created",
        "sessionId": session_id,
        "eventId": "e",
        "timestamp": "2026-01-02T03:04:05.678Z",
    }
    whole: Document = event | {"receivedAt": "2026-01-02T03:04:05.678Z", "actor": None, "data": {"initial": {}}}
    path, headers = f"/api/sessions/{session_id}/history", {"content-type": "application/x-ndjson"}
    bad = pair.there.post(path, content=httpx.Request("POST", "http://a", json=whole | change).content, headers=headers)
    assert said in bad.json()["rejected"][0]["detail"]
    good = pair.there.post(path, content=httpx.Request("POST", "http://a", json=whole).content, headers=headers)
    assert good.json()["accepted"] == 1
