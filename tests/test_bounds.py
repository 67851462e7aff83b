"""Bound tokens: who tries another's sessions, by whatever way, reads nothing, writes nothing and learns nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sessionstore.model.rights import Bounds
from sessionstore.web.tokens import Named, Role, write_named
from tests.appliance import Appliance
from tests.test_access import (
    AGENTS_READ,
    EVERYBODY,
    JSON,
    MATERIAL_READS,
    MATERIAL_WRITES,
    MAY,
    NDJSON,
    POLL,
    STEP,
    WRITES,
    Reply,
    ask,
    attempt,
    bearer,
    cookie_for,
    cursor_of,
)

BOUND = {
    "of-alice": Bounds(users=("alice", "alice-2")),
    "of-bob": Bounds(users=("bob",)),
    "of-web": Bounds(projects=("web", "docs")),
    "of-one": Bounds(sessions=("one",)),
    "of-alice-in-web": Bounds(users=("alice",), projects=("web",)),
}
OTHERS: dict[str, Role] = {"boss": "admin", "agents": "ingest", "controller": "control"}
NOTE: dict[str, Any] = {"type": "note_added", "actor": "store", "data": {"text": "x"}}
numbers = count(1)


def secret_of(name: str) -> dict[str, str]:
    return bearer(f"canary-{name}-0123456789")


def ids() -> str:
    return f"bound-{next(numbers)}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("bounds")
    (folder / "tokens").mkdir()
    roles = OTHERS | dict.fromkeys(BOUND, "ingest")
    named = [
        Named.of(name, role, secret_of(name)["Authorization"].removeprefix("Bearer "), None, BOUND.get(name))
        for name, role in roles.items()
    ]
    write_named(folder / "tokens", named)
    with Appliance(folder) as server:
        yield server


def send(store: Appliance, who: str, operation: str, body: object = None, **headers: str) -> Reply:
    method, _, path = operation.partition(" ")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    text = "" if body is None else json.dumps(body)
    return ask(store, method, path, secret_of(who) | (JSON if text else {}) | named, text)


def batch(store: Appliance, who: str, *lines: dict[str, Any]) -> dict[str, Any]:
    body = "\n".join(map(json.dumps, lines))
    told: dict[str, Any] = json.loads(ask(store, "POST", "/api/events", secret_of(who) | NDJSON, body).body)
    return told


def begun(store: Appliance, user: str, project: str | None = None, session_id: str = "") -> str:
    """A session with a goal and an agent, as the table of all routes wants it."""
    session_id = session_id or ids()
    metadata = {"project": project} if project else {}
    lines: list[dict[str, Any]] = [
        {"type": "session_created", "userId": user, "data": {"metadata": metadata}},
        {"type": "goal_added", "data": {"id": "goal-1", "description": "x"}},
        {"type": "agent_spawned", "data": {"agentId": "agent-1", "type": "x"}},
        {"type": "action", "eventId": "known", "data": {"type": "canary-of-the-other"}},
    ]
    assert batch(store, "boss", *(line | {"sessionId": session_id} for line in lines))["accepted"] == len(lines)
    return session_id


def whole(store: Appliance, session_id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(send(store, "boss", f"GET /api/sessions/{session_id}").body)
    return document


def events_of(store: Appliance, session_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(send(store, "boss", f"GET /api/sessions/{session_id}/events").body)[
        "items"
    ]
    return items


def is_not_there(reply: Reply, session_id: str) -> bool:
    assert reply.status == 404, reply
    return bool(reply.problem["detail"] == f"There is no session {session_id!r}")


OWN, THREAD = "/api/transcripts/folder/{}", "/api/checkpoints/{}"
LISTS = ("GET /api/transcripts/{folder}", "GET /api/checkpoints")
OF_MATERIAL = (*MATERIAL_READS, *MATERIAL_WRITES, *LISTS)
"""What is there for who has written it, or for whose session it belongs to."""


def keeps(store: Appliance, who: str, name: str, session_id: str | None) -> list[int]:
    """Lines of a conversation and a checkpoint of this name, that belong to a session."""
    belongs = {"X-Session-Id": session_id} if session_id else {}
    headers = secret_of(who) | NDJSON | belongs
    bodies = {OWN: "{}", THREAD: json.dumps({"checkpoint": STEP})}
    return [ask(store, "POST", path.format(name), headers, body).status for path, body in bodies.items()]


def tries(store: Appliance, who: str, name: str) -> set[int]:
    """What somebody is answered who wants it."""
    reads = [f"GET {OWN}", f"HEAD {OWN}", f"GET {OWN}/summary", f"GET {THREAD}", f"GET {THREAD}/steps"]
    operations = [*reads, f"DELETE {OWN}", f"DELETE {THREAD}"]
    found = {send(store, who, operation.format(name)).status for operation in operations}
    found.add(send(store, who, f"PUT {OWN}/summary".format(name), {"a": 1}).status)
    found.add(send(store, who, f"POST {THREAD}/copy".format(name), {"to": ids()}).status)
    found.add(send(store, who, f"POST {THREAD}/prune".format(name), {"keep": {"": ["1"]}}).status)
    found.update(keeps(store, who, name, None))
    return found


def listed(store: Appliance, who: str, name: str) -> bool:
    lists = ("GET /api/transcripts/folder", "GET /api/checkpoints?limit=1000")
    return any(f'"{name}"'.encode() in send(store, who, operation).body for operation in lists)


@pytest.mark.parametrize("belongs", [True, False])
def test_of_anothers_material_nothing_is_read_written_or_learned(store: Appliance, belongs: bool) -> None:
    theirs = begun(store, "bob")
    assert keeps(store, "of-bob", theirs, theirs if belongs else None) == [200, 200]
    before = send(store, "boss", f"GET {OWN}".format(theirs)).body
    for who in ("of-alice", "of-web", "of-one", "agents"):
        assert tries(store, who, theirs) == {404}, who
        assert json.loads(send(store, who, f"GET {OWN}/subkeys".format(theirs)).body) == []
        assert who == "agents" or not listed(store, who, theirs)
    assert {send(store, "agents", operation).status for operation in ("GET /api/checkpoints", *LISTS[:1])} == {403}
    assert keeps(store, "of-alice", ids(), theirs) == [404, 404]
    mine = begun(store, "alice")
    claims = {"claims": [f"claude:{theirs}", f"langgraph:{theirs}"]}
    assert send(store, "of-alice", f"PATCH /api/sessions/{mine}/metadata", claims).status == 200
    assert tries(store, "of-alice", theirs) == {404}
    assert send(store, "boss", f"GET {OWN}".format(theirs)).body == before
    assert listed(store, "of-bob", theirs)


def test_material_of_ones_own_sessions_is_there_whoever_wrote_it(store: Appliance) -> None:
    mine, name = begun(store, "alice"), ids()
    assert keeps(store, "boss", name, mine) == [200, 200]
    assert send(store, "of-alice", f"GET {OWN}".format(name)).body == b"{}\n"
    assert listed(store, "of-alice", name) and not listed(store, "of-bob", name)
    assert keeps(store, "of-alice", name, None) == [200, 200]
    assert keeps(store, "of-alice", ids(), ids()) == [200, 200]  # of a session that is still to come
    assert 200 in tries(store, "of-alice", name)


# ------------------------------------------------------------ each way, each other's


@pytest.mark.parametrize(
    ("who", "user", "project"),
    [
        ("of-alice", "bob", None),
        ("of-bob", "alice", "web"),
        ("of-web", "alice", None),
        ("of-web", "alice", "shop"),
        ("of-one", "alice", "web"),
        ("of-alice-in-web", "alice", "docs"),
        ("of-alice-in-web", "bob", "web"),
    ],
)
def test_by_no_way_anything_of_another_is_read_written_or_learned(
    store: Appliance, who: str, user: str, project: str | None
) -> None:
    theirs, absent = begun(store, user, project), ids()
    before, cursor = whole(store, theirs), cursor_of(store)
    for operation in MAY:
        if operation in EVERYBODY or operation == "POST /api/sessions" or operation in OF_MATERIAL:
            continue
        reply = attempt(store, operation, theirs, secret_of(who))
        assert b"canary" not in reply.body, operation
        if operation == "POST /api/events":
            (refused,) = json.loads(reply.body)["rejected"]
            assert (refused["status"], refused["detail"]) == (404, f"There is no session {theirs!r}")
        elif operation.startswith("POST /v1/"):  # OpenTelemetry's partial success
            assert f"There is no session {theirs!r}" in reply.body.decode(), reply
        elif operation in ("GET /ready", "GET /api/login"):
            assert reply.status == 200
        elif operation in WRITES or operation in (*AGENTS_READ, POLL):
            assert is_not_there(reply, theirs), operation
        else:
            assert reply.status == 403, operation
        if operation not in WRITES:  # word for word what is said of one that is not there
            assert reply.body.replace(theirs.encode(), b"?") == attempt(
                store, operation, absent, secret_of(who)
            ).body.replace(absent.encode(), b"?")
    again = {"sessionId": theirs, "userId": user, "initial": {}}
    assert is_not_there(send(store, who, "POST /api/sessions", again), theirs)
    assert is_not_there(send(store, who, f"GET /api/state/{theirs}?at={cursor}"), theirs)
    assert send(store, who, f"HEAD /api/sessions/{theirs}").status == 404
    known = {"type": "canary-of-the-other", "eventId": "known"}
    assert is_not_there(send(store, who, f"POST /api/actions/{theirs}", known), theirs)
    assert (whole(store, theirs), cursor_of(store)) == (before, cursor)


@pytest.mark.parametrize(
    ("who", "user", "project"),
    [("of-alice", "alice", None), ("of-web", "bob", "docs"), ("of-alice-in-web", "alice", "web")],
)
def test_what_is_its_own_a_bound_token_writes_and_reads_back(
    store: Appliance, who: str, user: str, project: str | None
) -> None:
    for operation in (*AGENTS_READ, *WRITES):
        own = begun(store, user, project)
        cursor = cursor_of(store)
        if operation in ("POST /api/sessions", "PUT /api/sessions/{session_id}") and user != "alice":
            continue  # these bodies are alice's
        reply = attempt(store, operation, own, secret_of(who))
        assert reply.status in (200, 201), (operation, reply)
        assert (cursor_of(store) > cursor) == (operation in WRITES), operation
        if operation in WRITES and operation != "POST /api/sessions":
            assert events_of(store, own)[-1]["actor"] == who


# ------------------------------------------------------------------ forged


def test_nobody_says_that_he_is_another(store: Appliance) -> None:
    """By no header, no envelope and no body: not of a session that is there, and not of one that is to begin."""
    own, cursor = begun(store, "alice"), cursor_of(store)
    for session_id in (own, ids()):
        assert is_not_there(
            send(store, "of-alice", f"POST /api/actions/{session_id}", {"type": "x"}, X_User_Id="bob"), session_id
        )
        assert is_not_there(send(store, "of-alice", f"PUT /api/sessions/{session_id}", {"userId": "bob"}), session_id)
        line = {"type": "action", "sessionId": session_id, "userId": "bob", "data": {"type": "x"}}
        assert batch(store, "of-alice", line)["rejected"][0]["status"] == 404
        hook = {"session_id": session_id, "hook_event_name": "SessionStart", "source": "startup"}
        assert is_not_there(send(store, "of-alice", "POST /api/hooks/claude-code", hook, X_User_Id="bob"), session_id)
    assert cursor_of(store) == cursor


def test_no_session_is_put_into_another_project_or_below_another_parent(store: Appliance) -> None:
    own, theirs = begun(store, "alice", "web"), begun(store, "bob", "shop")
    cursor = cursor_of(store)
    for metadata in ({"project": "shop"}, {"project.x": 1}, {"project": None}, {"project": ["web"]}):
        assert is_not_there(send(store, "of-web", f"PATCH /api/sessions/{own}/metadata", metadata), own)
        assert (
            send(store, "of-web", f"PUT /api/sessions/{own}", {"userId": "alice", "metadata": metadata}).status == 404
        )
    new = ids()
    for session_id in (own, new):
        body = {"userId": "alice", "parentSession": theirs}
        assert is_not_there(send(store, "of-web", f"PUT /api/sessions/{session_id}", body), theirs)
    assert is_not_there(send(store, "of-web", f"PATCH /api/sessions/{own}/metadata", {"parentSession": theirs}), theirs)
    assert (cursor_of(store), whole(store, theirs)["metadata"]["subsessions"]) == (cursor, [])
    assert send(store, "of-web", f"PATCH /api/sessions/{own}/metadata", {"project": "docs"}).status == 200
    assert send(store, "of-web", f"PUT /api/sessions/{new}", {"userId": "zoe", "parentSession": own}).status == 201


def test_a_conversation_goes_on_from_none_that_is_anothers(store: Appliance) -> None:
    """After `clear` the store looks for the one before, of the same user."""

    def told(session_id: str, name: str, **more: str) -> dict[str, Any]:
        hook = {"session_id": session_id, "hook_event_name": name, "cwd": "/work", **more}
        return {"type": "hook", "eventId": ids(), "userId": "cleared", "data": hook}

    before = ids()
    batch(store, "agents", told(before, "SessionStart", source="startup"), told(before, "SessionEnd", reason="clear"))
    batch(store, "of-one", told("one", "SessionStart", source="clear"))
    after = ids()
    batch(store, "agents", told(after, "SessionStart", source="clear"))
    assert "continues" not in whole(store, "one")["metadata"]
    assert whole(store, after)["metadata"]["continues"] == before  # to whom it may be told


# ------------------------------------------------------------- what begins


def test_what_a_bound_token_begins_is_its_own(store: Appliance) -> None:
    first, second, third = ids(), ids(), ids()
    assert send(store, "of-alice", f"POST /api/actions/{first}", {"type": "x"}).status == 200
    assert send(store, "of-alice", f"POST /api/actions/{second}", {"type": "x"}, X_User_Id="alice-2").status == 200
    assert batch(store, "of-alice-in-web", {"type": "response", "sessionId": third})["accepted"] == 1
    assert [whole(store, name)["metadata"]["userId"] for name in (first, second, third)] == [
        "alice",
        "alice-2",
        "alice",
    ]
    assert whole(store, third)["metadata"]["project"] == "web"
    assert send(store, "of-one", "POST /api/actions/one", {"type": "x"}).status == 200
    claimed = send(store, "of-alice-in-web", f"PUT /api/sessions/{third}", {"userId": "alice", "initial": {"a": 1}})
    assert (claimed.status, whole(store, third)["metadata"]["project"]) == (200, "web")


def test_what_is_begun_again_is_the_same(store: Appliance) -> None:
    """Although the store has added to it which project it is of."""
    session_id = ids()
    body = {"sessionId": session_id, "userId": "alice", "initial": {}, "eventId": "begin"}
    assert [send(store, "of-web", "POST /api/sessions", body).status for _ in range(2)] == [201, 200]
    plain = {"sessionId": ids(), "userId": "alice", "initial": {}}
    assert [send(store, "of-web", "POST /api/sessions", plain).status for _ in range(2)] == [201, 200]
    assert [event["type"] for event in events_of(store, session_id)] == ["session_created"]


# ------------------------------------------------------------------ actors


def test_who_wrote_an_event_follows_from_the_token_alone(store: Appliance) -> None:
    session_id = begun(store, "alice")
    forged = {"type": "action", "sessionId": session_id, "actor": "boss", "data": {"type": "x", "actor": "boss"}}
    batch(store, "of-alice", forged, NOTE | {"sessionId": session_id})
    send(store, "agents", f"PATCH /api/state/{session_id}", {"actor": "boss"})
    ask(store, "POST", "/api/hooks/claude-code", cookie_for(store, "canary-agents-0123456789") | JSON,
        json.dumps({"session_id": session_id, "hook_event_name": "Stop", "actor": "boss"}))  # fmt: skip
    batch(store, "boss", NOTE | {"sessionId": session_id})
    actors = [event["actor"] for event in events_of(store, session_id)[4:]]
    assert actors == ["of-alice", "of-alice", "agents", "agents", "boss"]
    (entry,) = [action for action in whole(store, session_id)["actions"] if action["type"] == "x"]
    assert entry["actor"] == "boss"  # which is only what it says


def test_a_retry_by_another_is_still_the_same_event(store: Appliance) -> None:
    session_id = begun(store, "alice")
    body = {"type": "x", "eventId": "once"}
    answers = [send(store, who, f"POST /api/actions/{session_id}", body).body for who in ("of-alice", "agents")]
    assert answers[0] == answers[1]
    assert [event["actor"] for event in events_of(store, session_id) if event["eventId"] == "once"] == ["of-alice"]


@pytest.mark.parametrize(
    "event_type", ["budget_crossed", "answered", "ask_closed", "ordered", "order_delivered", "order_closed"]
)
def test_what_the_store_says_no_agent_says(store: Appliance, event_type: str) -> None:
    line = {"type": event_type, "sessionId": begun(store, "alice")}
    for who in ("agents", "of-alice"):
        (refused,) = batch(store, who, line)["rejected"]
        assert (refused["status"], refused["detail"]) == (403, f"Only the role admin may send a {event_type}")
    assert batch(store, "boss", line)["accepted"] == 1


def test_a_deletion_says_by_whom_and_why(store: Appliance) -> None:
    one, two, other = begun(store, "alice"), begun(store, "alice"), begun(store, "alice")
    after = cursor_of(store)
    send(store, "boss", f"DELETE /api/sessions/{one}", Idempotency_Key="gone")
    assert send(store, "boss", f"DELETE /api/sessions/{one}", Idempotency_Key="gone").status == 200
    last = whole(store, two)["metadata"]["lastCursor"]
    assert send(store, "boss", f"DELETE /api/sessions/{two}?lastCursor={last}&reason=prune").status == 200
    forged = {"type": "session_deleted", "sessionId": other, "data": {"by": "store", "reason": "moved"}}
    assert batch(store, "boss", forged)["accepted"] == 1
    told = json.loads(send(store, "boss", f"GET /api/events?after={after}").body)["items"]
    assert [(event["actor"], event["data"]["by"], event["data"]["reason"]) for event in told] == [
        ("boss", "boss", "person"),
        ("boss", "boss", "prune"),
        ("boss", "boss", "moved"),
    ]


def test_control_may_what_read_may_and_not_write(store: Appliance) -> None:
    session_id = begun(store, "alice")
    for path in ("/api/asks/any/answer", f"/api/sessions/{session_id}/orders", "/api/orders"):
        assert send(store, "controller", f"POST {path}", {}).status == 422
        assert send(store, "agents", f"POST {path}", {}).status == 403
