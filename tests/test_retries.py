"""However often an event is sent, and whatever becomes of the answers, it is stored once, and answered the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from itertools import count
from typing import Any, NamedTuple

import httpx
import msgspec

from tests.appliance import Appliance
from tests.repeats import repeated
from tests.wire import NDJSON, HttpClient, connect, http_request

MOST_TIMES = 5
CLIENTS = 16
UNHEARD = 0.2
"""Share of the requests whose client is gone before the answer comes."""
OTHERS = 100
"""How many ids are tried with other content."""

Document = dict[str, Any]
encode = msgspec.json.encode


class Sent(NamedTuple):
    """An event, and how it is sent."""

    event_id: str
    method: str
    path: str
    body: Document

    def request(self) -> bytes:
        """With its id where it belongs: in a body of the store's own shape, or else beside it."""
        if self.method == "POST":
            return http_request(self.method, self.path, encode({**self.body, "eventId": self.event_id}))
        head, _, body = http_request(self.method, self.path, encode(self.body)).partition(b"\r\n\r\n")
        return b"%b\r\nIdempotency-Key: %b\r\n\r\n%b" % (head, self.event_id.encode(), body)


def events(session: str, number: int) -> list[Sent]:
    """Mostly entries of the logs, and some of every other kind."""
    logs = [
        ("POST", f"/api/actions/{session}", {"type": "x"}),
        ("POST", f"/api/actions/{session}/responses", {"type": "x"}),
    ]
    others: list[tuple[str, str, Document]] = [
        ("POST", f"/api/state/{session}/goals", {"description": "x"}),
        ("POST", f"/api/state/{session}/agents", {"type": "x"}),
        ("PATCH", f"/api/state/{session}", {"phase": "x"}),
        ("PATCH", f"/api/sessions/{session}/metadata", {"m": 1}),
    ]
    kinds = [*logs * 20, *others]
    sent = []
    for n in range(number):
        method, path, body = kinds[n % len(kinds)]
        sent.append(Sent(f"{session}-{n}", method, path, {**body, "n": n}))
    return sent


class Told:
    """What clients were answered."""

    def __init__(self) -> None:
        self.answers: defaultdict[str, set[bytes]] = defaultdict(set)
        self.statuses: Counter[int] = Counter()

    async def send(self, port: int, sends: list[Sent], chance: random.Random) -> None:
        client = await connect(port, HttpClient)
        for sent in sends:
            if chance.random() < UNHEARD:
                await self.leave_early(port, sent)
                continue
            status, body = await client.ask(sent.request())
            self.statuses[status] += 1
            self.answers[sent.event_id].add(body)
        client.close()

    async def leave_early(self, port: int, sent: Sent) -> None:
        client = await connect(port, HttpClient)
        client.send(sent.request())
        client.close()

    async def send_all(self, port: int, sends: list[Sent], seed: int = 0) -> None:
        chance = random.Random(seed)
        await asyncio.gather(*(self.send(port, sends[n::CLIENTS], chance) for n in range(CLIENTS)))


def sent_again_and_again(sent: list[Sent], seed: int = 0) -> list[Sent]:
    chance = random.Random(seed)
    times = [copy for one in sent for copy in [one] * chance.randint(1, MOST_TIMES)]
    chance.shuffle(times)
    return times


def stored(http: httpx.Client, session: str) -> list[Document]:
    """What was sent to a session, as it is stored; what the store itself added is left out."""
    events: list[Document] = []
    after = 0
    while page := http.get(f"/api/sessions/{session}/events?limit=1000&after={after}").json()["items"]:
        events += page
        after = page[-1]["cursor"]
    return [event for event in events if event["type"] != "session_created"]


@repeated("number", few=200, many=3000, variable="RETRIED_EVENTS")
def test_an_event_that_is_sent_many_times_is_stored_once(appliance: Appliance, http: httpx.Client, number: int) -> None:
    session = f"again-{number}"
    sent = events(session, number)
    told = Told()
    asyncio.run(told.send_all(appliance.port, sent_again_and_again(sent)))
    for turn in count(1):  # those whose clients never waited, as such clients do
        unheard = [one for one in sent if one.event_id not in told.answers]
        assert unheard or turn > 1
        if not unheard:
            break
        asyncio.run(told.send_all(appliance.port, unheard, seed=turn))
    assert set(told.statuses) == {200}
    assert {event_id: answers for event_id, answers in told.answers.items() if len(answers) != 1} == {}
    times = Counter(event["eventId"] for event in stored(http, session))
    assert times == {one.event_id: 1 for one in sent}
    batch = b"".join(encode(event) + b"\n" for event in stored(http, session)[:1000])
    answer = http.post("/api/events", content=batch, headers={"content-type": NDJSON}).json()
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, min(number, 1000), [])


def test_an_id_that_was_used_is_refused_with_other_content(appliance: Appliance, http: httpx.Client) -> None:
    sent = events("other", OTHERS)
    asyncio.run(Told().send_all(appliance.port, sent * MOST_TIMES))
    before = stored(http, "other")
    others = Told()
    asyncio.run(others.send_all(appliance.port, [one._replace(body={**one.body, "other": True}) for one in sent]))
    assert set(others.statuses) == {422}
    assert stored(http, "other") == before


def test_with_an_id_each_time_it_is_stored_as_often_as_it_was_sent(appliance: Appliance, http: httpx.Client) -> None:
    """So that it is the id that makes an event the same."""
    sent = sent_again_and_again(events("nameless", OTHERS))
    numbered = [one._replace(event_id=f"{number}") for number, one in enumerate(sent)]
    asyncio.run(Told().send_all(appliance.port, numbered))
    times = Counter(event["data"].get("n") for event in stored(http, "nameless"))
    assert max(times.values()) == MOST_TIMES
