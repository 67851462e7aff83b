"""A link to one session: it reads that one for a time, and reaches nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.test_access import METHODS, TOKENS, bearer, path_of, routes_of_the_app
from tests.test_conversation import keep, says, text, user

numbers = count(1)
ENV = {"SESSIONS_TOKEN": TOKENS["admin"], "SESSIONS_READ_TOKEN": TOKENS["read"]}


@pytest.fixture(scope="module", params=["guarded", "open"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One that wants tokens, and one that is open to its machine."""
    with Appliance(tmp_path_factory.mktemp("shared"), ENV if request.param == "guarded" else {}) as running:
        yield running


@pytest.fixture
def boss(store: Appliance) -> Iterator[httpx.Client]:
    headers = bearer(TOKENS["admin"]) if "SESSIONS_TOKEN" in store._env else {}
    with httpx.Client(base_url=store.url, headers=headers) as client:
        yield client


def begun(boss: httpx.Client) -> str:
    session = f"shared-{next(numbers)}"
    boss.put(f"/api/sessions/{session}", json={"userId": "alice"}).raise_for_status()
    boss.post(f"/api/actions/{session}", json={"type": "prompt", "prompt": f"secret of {session}"}).raise_for_status()
    return session


def shared(boss: httpx.Client, session: str, **body: Any) -> dict[str, Any]:
    answer = boss.post(f"/api/sessions/{session}/shares", json=body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def reads(store: Appliance, share: dict[str, Any], path: str) -> httpx.Response:
    return httpx.get(f"{store.url}{path}", headers=bearer(share["capability"]))


def own_paths(session: str) -> list[str]:
    return [f"/api/sessions/{session}{rest}" for rest in ("", "/conversation", "/events", "/conversation?format=html")]


def test_a_link_reads_its_session(store: Appliance, boss: httpx.Client) -> None:
    session = begun(boss)
    keep(boss, session, [user("the words"), says("m", text("so"))])
    share = shared(boss, session)
    assert share["fragment"] == f"#/session/{session}?share={share['capability']}"
    for path in own_paths(session):
        answer = reads(store, share, path)
        assert answer.status_code == 200, (path, answer.text)
    assert "the words" in reads(store, share, f"/api/sessions/{session}/conversation").text


REACHED = {
    "GET /api/sessions/{session_id}",
    "GET /api/sessions/{session_id}/conversation",
    "GET /api/sessions/{session_id}/changes",
    "GET /api/sessions/{session_id}/events",
    "GET /api/events/stream",
}
PUBLIC = {"GET /", "GET /health", "POST /api/login", "DELETE /api/login"}


def test_no_other_route_is_reached(store: Appliance, boss: httpx.Client) -> None:
    session = begun(boss)
    share = shared(boss, session)
    with httpx.Client(base_url=store.url, headers=bearer(share["capability"])) as client:
        for operation in sorted(routes_of_the_app() - REACHED - PUBLIC):
            method = operation.partition(" ")[0]
            path = path_of(operation, session)
            if path.startswith(("/dashboard/", "/hook_agent", "/claude_", "/langgraph_")):
                continue
            answer = client.request(method, path)
            assert answer.status_code == 403, (operation, answer.status_code, answer.text)
        for method, path in product(METHODS, own_paths(session)):
            if method not in ("GET", "HEAD", "OPTIONS"):
                assert client.request(method, path).status_code == 403, (method, path)
        lines = {"content-type": "application/x-ndjson"}
        assert client.post("/api/events", content=b"{}", headers=lines).status_code == 403
        assert client.get("/api/sessions/user/alice").status_code == 403
        assert client.post("/api/login", json={"token": share["capability"]}).status_code in (200, 401)
        assert "session_store" not in client.cookies or "SESSIONS_TOKEN" not in store._env
        assert {"database", "disk"} & client.get("/health").json().keys() == set()


def test_another_session_is_not_there(store: Appliance, boss: httpx.Client) -> None:
    session, other = begun(boss), begun(boss)
    keep(boss, other, [user("their words")])
    share = shared(boss, session)
    for path in (*own_paths(other), *own_paths("nobody"), f"/api/events/stream?sessionId={other}"):
        answer = reads(store, share, path)
        assert (answer.status_code, "secret" in answer.text) == (404, False), path
    both = reads(store, share, f"/api/events/stream?sessionId={session}&sessionId={other}")
    assert both.status_code == 404
    odd = (f"/api/sessions/{session}/../{other}", f"/api/sessions/{session}%2F..%2F{other}", f"/api//sessions/{other}")
    for path in odd:
        assert reads(store, share, path).status_code in (403, 404), path
    assert reads(store, share, f"/api/sessions/{session}/conversation?agentId=../{other}").status_code == 404


@pytest.mark.parametrize("query", ["", "?sessionId={}", "?userId=alice", "?after=0"])
def test_the_live_feed_has_its_session_alone(store: Appliance, boss: httpx.Client, query: str) -> None:
    session, other = begun(boss), begun(boss)
    share = shared(boss, session)
    url = f"{store.url}/api/events/stream{query.format(session)}"
    with httpx.stream("GET", url, headers=bearer(share["capability"])) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines) == ": connected"
        boss.post(f"/api/actions/{other}", json={"type": "note", "text": "theirs"}).raise_for_status()
        boss.post(f"/api/actions/{session}", json={"type": "note", "text": "the last"}).raise_for_status()
        heard = []
        for line in lines:
            heard += [json.loads(line[6:])] if line.startswith("data: {") else []
            if "the last" in line:
                break
    assert {event["sessionId"] for event in heard} == {session}


def test_it_ends_by_itself_when_it_is_revoked_and_with_its_session(store: Appliance, boss: httpx.Client) -> None:
    session = begun(boss)
    first, second = shared(boss, session), shared(boss, session, expires=60)
    path = f"/api/sessions/{session}"
    listed = boss.get(f"{path}/shares").json()["items"]
    assert [one["shareId"] for one in listed] == [first["shareId"], second["shareId"]]
    assert "capability" not in json.dumps(listed)
    assert boss.delete(f"{path}/shares?shareId={first['shareId']}").json()["ended"] == 1
    assert (reads(store, first, path).status_code, reads(store, second, path).status_code) == (401, 200)
    assert boss.delete(path).status_code == 200
    assert reads(store, second, path).status_code == 404
    boss.put(path, json={"userId": "bob"}).raise_for_status()  # another session of the same name
    assert reads(store, second, path).status_code == 404
    assert boss.get(f"{path}/shares").json()["items"] == []
    assert boss.delete(f"{path}/shares").json()["ended"] == 1
    assert reads(store, second, path).status_code == 401


def test_what_it_takes_is_checked(store: Appliance, boss: httpx.Client) -> None:
    session = begun(boss)
    for body in ({"expires": 5}, {"expires": 10**9}, {"expires": "week"}):
        assert boss.post(f"/api/sessions/{session}/shares", json=body).status_code == 422
    assert boss.post("/api/sessions/nobody/shares").status_code == 404
    assert boss.post(f"/api/sessions/{session}/shares").status_code == 201
    for capability in ("sst_share_", "sst_share_" + "x" * 43):
        assert reads(store, {"capability": capability}, f"/api/sessions/{session}").status_code == 401


def test_only_a_hash_is_kept_and_it_lasts_over_a_restart(tmp_path: Path) -> None:
    with Appliance(tmp_path / "sessions", ENV) as server:
        with httpx.Client(base_url=server.url, headers=bearer(TOKENS["admin"])) as boss:
            session = begun(boss)
            share = shared(boss, session, expires=600)
        server.stop()
        secret = share["capability"].encode()
        assert [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()] == []
        assert secret.decode() not in server.output
        kept = tmp_path / "sessions/.shares.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        document = json.loads(kept.read_bytes())
        server.start()
        assert reads(server, share, f"/api/sessions/{session}").status_code == 200
        server.stop()
        kept.write_text(json.dumps([document[0] | {"ends": int(time.time()) - 1}]))
        server.start()
        assert reads(server, share, f"/api/sessions/{session}").status_code == 401
