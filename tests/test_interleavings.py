"""Asks in any order: agents ask, wait, move on and die, people answer, and the server is killed, all at once.

What the store says is held against a model: no answer is carried out twice, none that is waited for is lost, and a
session waits as long as something is open, and no longer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.web.tokens import Named, write_named
from tests.appliance import Appliance
from tests.repeats import repeated
from tests.test_access import SETTINGS, TOKENS, bearer

Json = dict[str, Any]
PEOPLE = {name: f"canary-{name}-0123456789abcdef" for name in ("carol", "dave")}
AT_ONCE = 100
"""Agents."""


class Store:
    """What all of them ask: whoever finds nobody there comes again with the same."""

    def __init__(self, server: Appliance, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def ask(self, method: str, path: str, token: str, body: Json | None = None, **query: Any) -> httpx.Response:
        while True:
            with suppress(httpx.TransportError):
                reply = await self.http.request(method, path, json=body, params=query, headers=bearer(token))
                if reply.status_code != 503:
                    return reply
            await asyncio.sleep(0.05)

    async def told(self, path: str, **query: Any) -> Json:
        told: Json = (await self.ask("GET", path, TOKENS["read"], **query)).raise_for_status().json()
        return told


class Agent:
    """One session, and what it knows of its asks: it has this from what it was answered, and from nothing else."""

    def __init__(self, store: Store, name: str, dice: random.Random, dies: bool) -> None:
        self.store = store
        self.name = name
        self.dice = dice
        self.dies = dies
        """Whether it now and then does; what it was offered then is offered again after ten seconds."""
        self.asked: list[str] = []
        self.moved_on: set[str] = set()
        self.is_awaited: set[str] = set()
        """Asks whose answer it waits for until there is one, or it has moved on."""
        self.carried_out: Counter[tuple[str, str]] = Counter()
        """By ask and answer. It is on its disk: an agent that dies remembers."""
        self.waiting: list[asyncio.Task[None]] = []

    async def live(self) -> None:
        for _ in range(self.dice.randint(2, 6)):
            await self.step()
        await asyncio.gather(*self.waiting)

    async def step(self) -> None:
        if self.asked and self.dice.random() < 0.35:
            await self.move_on(self.dice.choice(self.asked))
        else:
            await self.begin()
        shown = (await self.store.told(f"/api/sessions/{self.name}"))["metadata"]
        assert (shown["status"] == "waiting") == (shown["asks"] > 0) == (shown["attention"] is not None), shown
        await asyncio.sleep(self.dice.random() * 0.2)

    async def begin(self) -> None:
        ask = f"{self.name}-{len(self.asked)}"
        attention = {"reason": "permission", "message": "May I?", "id": ask}
        call = {"type": "permission_request", "tool": "Bash", "input": {}, "toolUseId": f"t-{ask}", "eventId": ask}
        path = f"/api/actions/{self.name}"
        (await self.store.ask("POST", path, TOKENS["ingest"], call | {"attention": attention})).raise_for_status()
        self.asked.append(ask)
        if self.dice.random() < 0.85:
            self.is_awaited.add(ask)
            self.waiting.append(asyncio.create_task(self.wait(ask)))

    async def move_on(self, ask: str) -> None:
        result = {"type": "tool_result", "tool": "Bash", "input": {}, "toolUseId": f"t-{ask}"}
        path = f"/api/actions/{self.name}/responses"
        reply = await self.store.ask("POST", path, TOKENS["ingest"], result | {"eventId": f"r-{ask}"})
        reply.raise_for_status()
        self.moved_on.add(ask)

    async def wait(self, ask: str) -> None:
        """Until it is answered, or closed; now and then it dies, and goes on with what it remembers."""
        done: list[str] = []
        while True:
            poll = asyncio.create_task(self.poll({"ask": ask, "wait": 3, "done": done}))
            if self.dies and self.dice.random() < 0.05:
                await asyncio.sleep(self.dice.random() * 0.3)
                poll.cancel()
                with suppress(asyncio.CancelledError):
                    await poll
                continue
            for item in await poll:
                if item["kind"] == "closed":
                    return
                if not self.carried_out[ask, item["id"]]:
                    self.carried_out[ask, item["id"]] += 1
                if not (self.dies and self.dice.random() < 0.1):  # else before it could say so
                    done = [item["id"]]

    async def poll(self, body: Json) -> list[Json]:
        reply = await self.store.ask("POST", f"/api/sessions/{self.name}/control", TOKENS["ingest"], body)
        items: list[Json] = reply.json()["items"] if reply.status_code == 200 else []
        return items


class Person:
    """Answers whatever can be answered, at the same time as others do."""

    def __init__(self, store: Store, name: str, dice: random.Random) -> None:
        self.store = store
        self.name = name
        self.dice = dice
        self.given: dict[str, str] = {}
        """Answers that were taken, by ask."""
        self.lost_to: dict[str, str | None] = {}

    async def live(self) -> None:
        cursor = 0
        while True:
            page = await self.store.told("/api/asks", limit=200, cursor=cursor)
            for ask in [ask["askId"] for ask in page["items"] if ask["canAnswer"]]:
                if self.dice.random() < 0.5:
                    await self.answer(ask)
            cursor = page["nextCursor"] or 0
            await asyncio.sleep(0.1)

    async def answer(self, ask: str) -> None:
        body = {"decision": self.dice.choice(["allow", "deny"]), "eventId": f"{ask}-{self.name}"}
        reply = await self.store.ask("POST", f"/api/asks/{ask}/answer", PEOPLE[self.name], body)
        assert reply.status_code in (200, 409), reply.text
        if reply.status_code == 200:
            self.given[ask] = reply.json()["answerId"]
        elif "answeredBy" in reply.json():
            self.lost_to[ask] = reply.json()["answeredBy"]


async def kill(server: Appliance, times: int, dice: random.Random) -> None:
    for _ in range(times):
        await asyncio.sleep(0.5 + dice.random())
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)


async def interleave(server: Appliance, number: int, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    async with httpx.AsyncClient(base_url=server.url, limits=httpx.Limits(max_connections=500)) as http:
        store, room = Store(server, http), asyncio.Semaphore(AT_ONCE)
        agents = [Agent(store, f"s{seed}-{at}", random.Random(dice.random()), kills > 2) for at in range(number)]
        people = [Person(store, name, random.Random(dice.random())) for name in PEOPLE]

        async def live(agent: Agent) -> None:
            async with room:
                await agent.live()

        answering = [asyncio.create_task(person.live()) for person in people]
        killing = asyncio.create_task(kill(server, kills, dice))
        await asyncio.gather(*map(live, agents), killing)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        for agent in agents:
            await check(agent, people)


async def check(agent: Agent, people: list[Person]) -> None:
    events = (await agent.store.told(f"/api/sessions/{agent.name}/events", limit=1000))["items"]
    answered = {event["data"]["askId"]: event["eventId"] for event in events if event["type"] == "answered"}
    assert len(answered) == sum(event["type"] == "answered" for event in events), "an ask was answered twice"
    delivered = [event["data"]["orderId"] for event in events if event["type"] == "order_delivered"]
    assert len(delivered) == len({*delivered}), "an answer was delivered twice"
    by_ask: dict[str, set[str]] = {}
    for ask, answer in agent.carried_out:
        by_ask.setdefault(ask, set()).add(answer)
        assert agent.carried_out[ask, answer] == 1
    for ask in agent.asked:
        assert by_ask.get(ask, set()) <= {answered.get(ask)}, "what is carried out is the one answer"
        if ask in answered and ask in agent.is_awaited and ask not in agent.moved_on:
            assert by_ask.get(ask) == {answered[ask]}, "an answer was lost"
            assert answered[ask] in delivered
        for person in people:
            assert person.given.get(ask, answered.get(ask)) == answered.get(ask), "both were told that they were first"
            if ask in person.lost_to:
                assert answered[ask] == f"{ask}-{person.lost_to[ask]}", "who was faster"
    still_open = [ask for ask in agent.asked if ask not in answered and ask not in agent.moved_on]
    shown = (await agent.store.told(f"/api/sessions/{agent.name}"))["metadata"]
    listed = (await agent.store.told("/api/asks", sessionId=agent.name))["items"]
    assert [ask["askId"] for ask in listed] == still_open
    assert (shown["status"], shown["asks"]) == ("waiting" if still_open else "active", len(still_open))
    assert (shown["attention"] or {}).get("askId") == (still_open[0] if still_open else None)


@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx leaves what is cancelled open
@repeated("number", few=6, many=400, variable="INTERLEAVINGS")
def test_no_answer_is_given_twice_or_lost_in_whatever_order_things_happen(tmp_path: Path, number: int) -> None:
    (tmp_path / "tokens").mkdir(mode=0o700)
    write_named(tmp_path / "tokens", [Named.of(name, "control", text) for name, text in PEOPLE.items()])
    with Appliance(tmp_path, {**SETTINGS, "SESSIONS_LOST_AFTER": "86400"}) as server:  # none, however long it takes
        asyncio.run(interleave(server, number, kills=max(1, number // 25), seed=number))
