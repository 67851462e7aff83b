"""People answer what agents ask: by HTTP, as both sides would, against a server that runs."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.model.events import text_of_time
from sessionstore.web.tokens import Named, write_named
from tests.appliance import Appliance
from tests.peers import eventually
from tests.test_access import SETTINGS, TOKENS, bearer

Json = dict[str, Any]
PEOPLE = {name: f"canary-{name}-0123456789abcdef" for name in ("carol", "dave", "other")}
ROLES: dict[str, Any] = {"carol": "control", "dave": "control", "other": "ingest"}
BASH: Json = {"tool": "Bash", "input": {"command": "rm x"}}
numbers = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("control")
    (folder / "tokens").mkdir(mode=0o700)
    write_named(folder / "tokens", [Named.of(name, ROLES[name], text) for name, text in PEOPLE.items()])
    with Appliance(folder, SETTINGS) as appliance:
        yield appliance


@contextmanager
def client_of(server: Appliance, token: str) -> Iterator[Side]:
    with httpx.Client(base_url=server.url, headers=bearer(token), timeout=60) as http:
        yield Side(http, f"s{next(numbers)}")


class Side:
    """One who asks the server; an agent's, with a session of its own."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self.http = http
        self.session = session

    def act(self, kind: str, agent: str | None = None, **data: Any) -> str:
        body = {"type": kind, **({"agentId": agent} if agent else {}), **data}
        answer: Json = self.http.post(f"/api/actions/{self.session}", json=body).raise_for_status().json()
        return str(answer["eventId"])

    def respond(self, kind: str, **data: Any) -> None:
        self.http.post(f"/api/actions/{self.session}/responses", json={"type": kind, **data}).raise_for_status()

    def ask(self, message: str = "rm x?", agent: str | None = None, **data: Any) -> str:
        attention = {"reason": "permission", "message": message, **data.pop("attention", {})}
        return self.act("permission_request", agent, attention=attention, **(data or BASH))

    def poll(self, **body: Any) -> list[Json]:
        reply = self.http.post(f"/api/sessions/{self.session}/control", json=body)
        assert reply.status_code in (200, 204), reply.text
        items: list[Json] = reply.json()["items"] if reply.status_code == 200 else []
        return items

    @contextmanager
    def waiting(self, **body: Any) -> Iterator[list[Json]]:
        """What a poll on a thread is given, there once the block is left."""
        items: list[Json] = []
        thread = threading.Thread(target=lambda: items.extend(self.poll(**{"wait": 30, **body})))
        thread.start()
        yield items
        thread.join()

    def status(self) -> str:
        return str(self.http.get(f"/api/sessions/{self.session}").raise_for_status().json()["metadata"]["status"])

    def asks(self, **query: Any) -> list[Json]:
        items: list[Json] = self.http.get("/api/asks", params=query).raise_for_status().json()["items"]
        return items

    def answer(self, ask: str, decision: str = "allow", **body: Any) -> httpx.Response:
        return self.http.post(f"/api/asks/{ask}/answer", json={"decision": decision, **body})


@pytest.fixture
def agent(server: Appliance) -> Iterator[Side]:
    with client_of(server, TOKENS["ingest"]) as side:
        yield side


@pytest.fixture
def carol(server: Appliance) -> Iterator[Side]:
    with client_of(server, PEOPLE["carol"]) as side:
        yield side


def until_it_waits(person: Side, ask: str) -> None:
    eventually(lambda: person.asks(askId=ask) and person.asks(askId=ask)[0]["canAnswer"])


# ----------------------------------------------------------------------- answers


def test_an_answer_reaches_who_waits_for_it_and_is_carried_out_once(
    server: Appliance, agent: Side, carol: Side
) -> None:
    ask = agent.ask()
    assert agent.status() == "waiting"
    (shown,) = carol.asks(sessionId=agent.session)
    assert (shown["askId"], shown["kind"], shown["tool"], shown["input"]) == (ask, "permission", "Bash", BASH["input"])
    assert (shown["status"], shown["canAnswer"], shown["answer"], shown["text"]) == ("open", False, None, "rm x?")
    with agent.waiting(ask=ask) as items:
        until_it_waits(carol, ask)
        reply = carol.answer(ask, message="But only this one", input={"command": "rm -i x"})
        assert reply.status_code == 200, reply.text
    answer_id = reply.json()["answerId"]
    (event,) = carol.http.get("/api/events", params={"sessionId": agent.session, "type": "answered"}).json()["items"]
    written = {"success": True, "cursor": event["cursor"], "eventId": answer_id}
    assert reply.json() == {**written, "answerId": event["eventId"], "askId": ask}
    assert items == [
        {"id": answer_id, "kind": "answer", "askId": ask, "decision": "allow", "message": "But only this one",
         "input": {"command": "rm -i x"}, "by": "carol"}
    ]  # fmt: skip
    assert agent.status() == "active"
    assert carol.asks(sessionId=agent.session) == []
    (waiting,) = carol.asks(askId=ask)
    assert (waiting["status"], waiting["answer"]["by"], waiting["answer"]["status"]) == ("answered", "carol", "waiting")
    assert agent.poll(ask=ask) == [], "it is leased"
    for _ in range(2):
        (closed,) = agent.poll(ask=ask, done=[answer_id], at="toolu_1")
        assert closed == {"id": ask, "kind": "closed", "askId": ask, "why": "answered"}
    with client_of(server, PEOPLE["dave"]) as dave:
        (delivered,) = dave.asks(status="answered", sessionId=agent.session)
        assert delivered["answer"]["status"] == "delivered"
        late = dave.answer(ask, "deny")
        assert late.status_code == 409
        assert (late.json()["answeredBy"], late.json()["at"]) == ("carol", delivered["answer"]["at"])
    events = carol.http.get(f"/api/sessions/{agent.session}/events").json()["items"]
    assert [(event["type"], event["actor"]) for event in events[2:]] == [
        ("answered", "carol"),
        ("order_delivered", "SESSIONS_INGEST_TOKEN"),
    ]


def test_the_same_answer_again_is_the_same_and_nobody_answers_where_nobody_waits(agent: Side, carol: Side) -> None:
    ask = agent.ask()
    refused = carol.answer(ask)
    assert refused.status_code == 409 and "Nobody waits" in refused.json()["detail"]
    assert agent.status() == "waiting"
    with agent.waiting(ask=ask) as items:
        until_it_waits(carol, ask)
        first, second = (carol.answer(ask, "deny", eventId="once") for _ in range(2))
    assert first.json() == second.json() and first.json()["answerId"] == "once"
    assert [item["id"] for item in items] == ["once"]


def test_an_ask_is_of_the_kind_that_is_said(agent: Side, carol: Side) -> None:
    kinds = ["permission", "question", "plan", "elicitation", "interrupt", "budget"]
    for kind in [*kinds, "another"]:
        agent.act("note", attention={"reason": kind, "message": kind})
    assert [ask["kind"] for ask in carol.asks(sessionId=agent.session)] == [*kinds, "question"]


def test_two_asks_are_answered_in_the_other_order(agent: Side, carol: Side) -> None:
    first, second = agent.ask("x?", tool="Bash", input={"command": "x"}), agent.ask("y?", tool="Bash", input={})
    with agent.waiting(ask=first) as of_first, agent.waiting(ask=second) as of_second:
        until_it_waits(carol, first)
        until_it_waits(carol, second)
        assert carol.answer(second, "deny", message="Not y").status_code == 200
        assert agent.status() == "waiting"
        assert carol.answer(first).status_code == 200
    assert [(item["askId"], item["decision"]) for item in of_first] == [(first, "allow")]
    assert [(item["askId"], item["decision"]) for item in of_second] == [(second, "deny")]
    assert agent.status() == "active"


def test_asks_that_are_alike_are_two_where_they_have_names_of_their_own(agent: Side, carol: Side) -> None:
    """A hook that waits for the answer names what it asks; one that only tells of it repeats what is open."""
    twins = [agent.ask(attention={"id": name}) for name in ("one", "two")]
    agent.act("notification", attention={"reason": "permission", "message": "Claude needs your permission"})
    assert [ask["askId"] for ask in carol.asks(sessionId=agent.session)] == twins
    with agent.waiting(ask=twins[0]) as of_first, agent.waiting(ask=twins[1]) as of_second:
        for twin in twins:
            until_it_waits(carol, twin)
        assert carol.answer(twins[1]).status_code == 200
        agent.respond("tool_result", **BASH)
    assert [item["kind"] for item in of_second] == ["answer"]
    assert of_first == [{"id": twins[0], "kind": "closed", "askId": twins[0], "why": "tool_result"}]


def test_who_waits_may_name_any_event_that_told_of_the_ask(agent: Side, carol: Side) -> None:
    question: Json = {"tool": "AskUserQuestion", "input": {"questions": [{"question": "Which?"}]}}
    asked: Json = {"attention": {"reason": "question", "message": "Which?", "options": ["a", "b"]}, **question}
    ask = agent.act("tool_call", toolUseId="toolu_q", **asked)
    retold = agent.act("permission_request", **asked)
    (shown,) = carol.asks(sessionId=agent.session)
    assert (shown["askId"], shown["kind"], shown["options"], shown["toolUseId"]) == (
        ask,
        "question",
        ["a", "b"],
        "toolu_q",
    )
    with agent.waiting(ask=retold) as items:
        until_it_waits(carol, ask)
        assert carol.answer(ask, "answer", answers={"Which?": "b"}).status_code == 200
    assert (items[0]["askId"], items[0]["answers"]) == (retold, {"Which?": "b"})


def test_an_ask_that_comes_later_than_the_poll_is_waited_for_and_so_is_its_session(agent: Side, carol: Side) -> None:
    with agent.waiting(ask="ask-1") as items:
        agent.act("permission_request", eventId="ask-1", attention={"reason": "plan", "message": "This?"})
        eventually(lambda: carol.asks(sessionId=agent.session)[0]["canAnswer"])
        assert carol.answer("ask-1", sessionId=agent.session).status_code == 200
    assert items[0]["decision"] == "allow"


def test_an_answer_that_nobody_has_carried_out_is_offered_after_a_restart(
    server: Appliance, agent: Side, carol: Side
) -> None:
    ask = agent.ask()
    with agent.waiting(ask=ask) as items:
        until_it_waits(carol, ask)
        carol.answer(ask).raise_for_status()
    server.kill()
    server.start()
    assert agent.poll(ask=ask, wait=5) == items
    assert agent.poll(ask=ask, done=[items[0]["id"]])[0]["kind"] == "closed"
    assert agent.status() == "active"


def test_an_ask_ends_at_its_deadline(agent: Side, carol: Side) -> None:
    deadline = text_of_time(time.time() + 0.5)
    ask = agent.ask(attention={"deadline": deadline})
    with agent.waiting(ask=ask) as items:
        assert carol.asks(askId=ask)[0]["deadline"] == deadline
    assert items == [{"id": ask, "kind": "closed", "askId": ask, "why": "ask_closed"}]
    assert agent.status() == "active"
    (event,) = carol.http.get(f"/api/sessions/{agent.session}/events", params={"type": "ask_closed"}).json()["items"]
    assert (event["actor"], event["data"]) == ("store", {"askId": ask, "why": "deadline"})


def test_whoever_goes_away_waits_no_more(server: Appliance, agent: Side, carol: Side) -> None:
    ask = agent.ask()
    with pytest.raises(httpx.ReadTimeout):
        agent.http.post(f"/api/sessions/{agent.session}/control", json={"ask": ask, "wait": 50}, timeout=0.3)
    until_it_waits(carol, ask)  # for he may be about to come back
    assert carol.answer(ask).status_code == 200
    assert agent.poll(ask=ask)[0]["decision"] == "allow", "nobody was offered it"


# --------------------------------------------------------------------------- who


def test_only_control_answers_and_an_agent_has_what_its_own_token_wrote(
    server: Appliance, agent: Side, carol: Side
) -> None:
    ask = agent.ask()
    for role, status in (("ingest", 403), ("read", 403), ("admin", 409)):
        with client_of(server, TOKENS[role]) as side:
            assert side.answer(ask).status_code == status, role
            assert side.http.get("/api/asks").status_code == (403 if role == "ingest" else 200)
    with client_of(server, PEOPLE["other"]) as other:
        for session in (agent.session, "nowhere"):
            reply = other.http.post(f"/api/sessions/{session}/control", json={"ask": ask, "wait": 0.1})
            assert (reply.status_code, reply.json()["detail"]) == (404, f"There is no session {session!r}")
    assert carol.http.post(f"/api/sessions/{agent.session}/control", json={}).status_code == 403
    assert not carol.asks(askId=ask)[0]["canAnswer"]


def test_a_cookie_answers_from_our_own_page_alone_and_from_a_fresh_one(server: Appliance, agent: Side) -> None:
    ask = agent.ask()
    with httpx.Client(base_url=server.url) as browser:
        assert browser.get("/api/login").status_code == 401
        browser.post("/api/login", json={"token": PEOPLE["carol"]}).raise_for_status()
        known = browser.get("/api/login").json()
        assert (known["role"], known["name"], known["canControl"]) == ("control", "carol", True)
        fresh = {"Origin": server.url, "X-Page-Token": known["pageToken"]}
        with agent.waiting(ask=ask):
            until_it_waits(Side(browser, ""), ask)
            for headers in (
                {},
                {"Origin": server.url},
                {"X-Page-Token": known["pageToken"]},
                {**fresh, "Origin": "http://localhost:3000"},
                {**fresh, "X-Page-Token": "0" * 64},
            ):
                reply = browser.post(f"/api/asks/{ask}/answer", json={"decision": "deny"}, headers=headers)
                assert reply.status_code == 403, headers
            reply = browser.post(f"/api/asks/{ask}/answer", json={"decision": "deny"}, headers=fresh)
            assert reply.status_code == 200, reply.text


def test_where_all_is_open_answers_are_not(tmp_path: Path) -> None:
    with Appliance(tmp_path) as server, httpx.Client(base_url=server.url) as browser:
        agent = Side(browser, "s")
        ask = agent.ask()
        assert browser.get("/api/asks").status_code == 200
        assert agent.answer(ask).status_code == 401 and "tokens/control" in agent.answer(ask).json()["detail"]
        for order in (
            "/api/orders",
            "/api/orders/",
            "/api//orders",
            "/api/sessions/s/orders/",
            f"/api/asks/{ask}/answer/",
        ):
            assert browser.post(order, json={"order": "pause", "decision": "deny"}).status_code == 401, order
        path = tmp_path / "tokens" / "control"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        browser.post("/api/login", json={"token": "another"}).raise_for_status()
        assert browser.get("/api/login").json() == {"role": None, "name": None, "canControl": False, "pageToken": None}
        browser.post("/api/login", json={"token": path.read_text().strip()}).raise_for_status()
        fresh = {"Origin": server.url, "X-Page-Token": browser.get("/api/login").json()["pageToken"]}
        agent.poll(ask=ask)
        assert browser.post(f"/api/asks/{ask}/answer", json={"decision": "deny"}).status_code == 403
        reply = browser.post(f"/api/asks/{ask}/answer", json={"decision": "deny"}, headers=fresh)
        assert reply.status_code == 200, reply.text
        (event,) = browser.get("/api/events", params={"type": "answered"}).json()["items"]
        assert event["actor"] == "control"


# --------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"decision": "perhaps"}, 422, "$.decision"),
        ({}, 422, "$"),
        ({"decision": "answer", "answers": {}}, 422, "$.decision"),
        ({"decision": "allow", "message": "x" * 4001}, 422, "$.message"),
        ({"decision": "deny", "input": {}}, 422, "$.input"),
        ({"decision": "allow", "input": []}, 422, "$.input"),
        ({"decision": "allow", "input": {"command": "x" * 70_000}}, 422, "$.input"),
        ({"decision": "allow", "input": {"command": "curl -H 'Authorization: Bearer abcdefghijkl12'"}}, 422, "$.input"),
        ({"decision": "allow", "input": {"command": "echo [redacted:bearer]"}}, 422, "$.input"),
        ({"decision": "allow", "eventId": "../x"}, 422, "$.eventId"),
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(agent: Side, carol: Side, body: Json, status: int, path: str) -> None:
    ask = agent.ask()
    agent.poll(ask=ask)
    reply = carol.http.post(f"/api/asks/{ask}/answer", json=body)
    assert (reply.status_code, reply.json()["errors"][0]["path"]) == (status, path), reply.text
    assert agent.status() == "waiting"


def test_what_nobody_asked_is_not_found(agent: Side, carol: Side) -> None:
    said = agent.act("note")
    for name in ("nothing", said, "a%20b"):
        assert carol.answer(name).status_code == 404, name
    assert (
        carol.http.post(
            f"/api/asks/{said}/answer", content=b"{", headers={"content-type": "application/json"}
        ).status_code
        == 400
    )


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"wait": 51}, "$.wait"),
        ({"wait": -1}, "$.wait"),
        ({"ask": "../x"}, "$.ask"),
        ({"done": ["x"] * 101}, "$.done"),
        ({"done": "x"}, "$.done"),
        ({"refused": {"x": 1}}, "$.refused[...]"),
        ({"at": 7}, "$.at"),
    ],
    ids=str,
)
def test_a_poll_that_is_none_is_refused(agent: Side, body: Json, path: str) -> None:
    agent.act("note")
    reply = agent.http.post(f"/api/sessions/{agent.session}/control", json=body)
    assert (reply.status_code, reply.json()["errors"][0]["path"]) == (422, path), reply.text


# ------------------------------------------------------------------------ orders


def order(person: Side, agent: Side, kind: str, **body: Any) -> str:
    reply = person.http.post(f"/api/sessions/{agent.session}/orders", json={"order": kind, **body})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["orderId"])


def fate(person: Side, agent: Side) -> list[tuple[str, str, str | None]]:
    """Of each order, the oldest first: what was ordered, what became of it, and at which call or why."""
    items = person.http.get(f"/api/sessions/{agent.session}/orders").raise_for_status().json()["items"]
    return [(item["order"], item["status"], item["at"] or item["why"]) for item in reversed(items)]


def test_orders_reach_an_agent_that_asks_for_them_and_their_fate_is_told(agent: Side, carol: Side) -> None:
    agent.act("note")
    path = f"/api/sessions/{agent.session}/orders"
    unheard = carol.http.post(path, json={"order": "stop", "text": "Enough"})
    assert (unheard.status_code, unheard.json()["reach"]) == (409, "none")
    assert carol.http.get(path).json()["reach"] == {"reachable": False, "lastPoll": None}
    with agent.waiting() as items:
        eventually(lambda: carol.http.get(path).json()["reach"]["reachable"])
        say = order(carol, agent, "say", text="Mind the tests")
    assert items == [
        {"id": say, "kind": "order", "order": "say", "text": "Mind the tests", "expires": None, "by": "carol"}
    ]
    stop = order(carol, agent, "stop", text="Enough", agentId="a1")
    assert agent.poll(agentId="a2") == [], "it is leased, or for another"
    (offered,) = agent.poll(agentId="a1", done=[say], at="toolu_1")
    assert (offered["id"], offered["agentId"]) == (stop, "a1")
    assert agent.poll(refused={stop: "It has ended"}) == []
    assert fate(carol, agent) == [("say", "delivered", "toolu_1"), ("stop", "refused", "It has ended")]
    order(carol, agent, "say", text="Too late", expires=0.001)
    order(carol, agent, "say", text="Never")
    assert [item["text"] for item in agent.poll()] == ["Never"]
    eventually(lambda: fate(carol, agent)[2][1:] == ("expired", "expired"))
    agent.http.post(f"/api/sessions/{agent.session}/finalize", json={}).raise_for_status()
    assert fate(carol, agent)[3][1:] == ("expired", "session_finalized")
    assert carol.http.post(path, json={"order": "pause"}).json()["reach"] == "none"


def test_a_release_frees_exactly_what_its_pause_holds(agent: Side, carol: Side) -> None:
    agent.act("note")
    agent.poll()
    first, second = order(carol, agent, "pause"), order(carol, agent, "pause", text="Wait", agentId="a2")
    offered = agent.poll(at="t1")
    assert [item["id"] for item in offered] == [first, second]
    held = [{"done": [first], "at": f"t{number}"} for number in (1, 2)]
    with agent.waiting(agentId="a1", **held[0]) as one, agent.waiting(agentId="a1", **held[1]) as two:
        eventually(lambda: fate(carol, agent)[0][1] == "delivered")
        release = order(carol, agent, "release", orderId=first)
    for items in (one, two):
        assert [(item["id"], item["releases"]) for item in items] == [(release, first)], "each call that is held"
    assert agent.poll(done=[release], at="t4", agentId="a2")[0]["id"] == second, "the other still holds"
    assert agent.poll(done=[first, release], at="t3", agentId="a1") == []
    path = f"/api/sessions/{agent.session}/orders"
    assert carol.http.post(path, json={"order": "release", "orderId": first}).status_code == 409
    assert carol.http.post(path, json={"order": "release", "orderId": release}).status_code == 404


def test_orders_to_many_say_whom_they_reach_and_one_release_frees_them_all(server: Appliance, carol: Side) -> None:
    project, agents = f"p{next(numbers)}", []
    with httpx.Client(base_url=server.url, headers=bearer(TOKENS["ingest"])) as http:
        for number in range(3):
            agents.append(side := Side(http, f"{project}-{number}"))
            body = {"userId": "ann", "metadata": {"project": project}}
            http.put(f"/api/sessions/{side.session}", json=body).raise_for_status()
            if number < 2:
                side.poll()
        told = carol.http.post("/api/orders", json={"order": "pause", "project": project}).json()
        assert (told["ordered"], told["unreachable"]) == (2, [f"{project}-2"])
        assert [[item["id"] for item in side.poll(at="t")] for side in agents] == [[told["orderId"]]] * 2 + [[]]
        other = order(carol, agents[0], "pause")
        freed = carol.http.post("/api/orders", json={"order": "release", "orderId": told["orderId"]}).json()
        assert (freed["ordered"], freed["eventId"], freed["cursor"] > told["cursor"]) == (2, freed["orderId"], True)
        listed = carol.http.get("/api/orders", params={"project": project, "status": "waiting"}).json()["items"]
        assert {(item["order"], item["sessionId"], item["isOpen"]) for item in listed} == {
            *(("release", side.session, True) for side in agents[:2]),
            ("pause", agents[0].session, True),
        }
        assert other in {item["orderId"] for item in listed}


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        ("/api/sessions/ID/orders", {"order": "run"}, "$.order"),
        ("/api/sessions/ID/orders", {"order": "say"}, "$.text"),
        ("/api/sessions/ID/orders", {"order": "stop", "text": " "}, "$.text"),
        ("/api/sessions/ID/orders", {"order": "release"}, "$.orderId"),
        ("/api/sessions/ID/orders", {"order": "pause", "orderId": "x"}, "$.orderId"),
        ("/api/sessions/ID/orders", {"order": "pause", "expires": 0}, "$.expires"),
        ("/api/sessions/ID/orders", {"order": "pause", "expires": 700_000}, "$.expires"),
        ("/api/orders", {"order": "pause"}, "$.all"),
        ("/api/orders", {"order": "pause", "all": "yes"}, "$.all"),
        ("/api/orders", {"order": "pause", "userId": ""}, "$.userId"),
    ],
    ids=str,
)
def test_an_order_that_is_none_is_refused(agent: Side, carol: Side, path: str, body: Json, member: str) -> None:
    agent.act("note")
    agent.poll()
    reply = carol.http.post(path.replace("ID", agent.session), json=body)
    assert (reply.status_code, reply.json()["errors"][0]["path"]) == (422, member), reply.text
    assert fate(carol, agent) == []
    assert carol.http.post("/api/sessions/nowhere/orders", json={"order": "pause"}).status_code == 404
