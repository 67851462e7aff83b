"""Events that are made to keep the store busy: nobody else waits for them, and they are redacted all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.peers import resident_bytes
from tests.repeats import LONG
from tests.stalls import EVENTS, MIB, NEAR, STALL, body_of, least_wait, post, worst_wait

NDJSON = "application/x-ndjson"
HEAVY = ["SECRET= over and over", "250,000 empty texts", "members named token", "wide", "one long line"]
sessions = (f"hostile-{number}" for number in count())

Send = Callable[[Appliance, str, str], int]


def as_action(appliance: Appliance, session: str, name: str) -> int:
    return post(appliance, f"/api/actions/{session}", body_of(name))


def as_line(appliance: Appliance, session: str, name: str) -> int:
    line = json.dumps({"type": "action", "sessionId": session, "data": EVENTS[name]}, ensure_ascii=False)
    return post(appliance, "/api/events", line.encode(), NDJSON)


def as_hook(appliance: Appliance, session: str, name: str) -> int:
    payload = {"hook_event_name": "PreToolUse", "session_id": session, "tool_name": "T", "tool_input": EVENTS[name]}
    return post(appliance, "/api/hooks/claude-code", json.dumps(payload, separators=(",", ":")).encode())


def as_metadata(appliance: Appliance, session: str, name: str) -> int:
    body = json.dumps({"userId": "u", "metadata": EVENTS[name]}, ensure_ascii=False, separators=(",", ":"))
    return httpx.put(f"{appliance.url}/api/sessions/{session}", content=body, headers=JSON, timeout=60).status_code


JSON = {"content-type": "application/json"}


def newest(appliance: Appliance, session: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = httpx.get(f"{appliance.url}/api/actions/{session}", timeout=60).json()
    return found[-1]


@pytest.mark.parametrize("name", EVENTS)
def test_no_event_holds_up_others(appliance: Appliance, name: str) -> None:
    answers = []
    wait = least_wait(appliance, lambda: answers.append(as_action(appliance, next(sessions), name)))
    assert set(answers) == {413 if name in ("250,000 empty texts", "40,000 tokens") else 200}
    assert wait < STALL


WAYS = [
    pytest.param(send, name, id=f"{name}-{send.__name__}", marks=[] if is_quick else [LONG])
    for (row, name), (column, send) in product(enumerate(HEAVY), enumerate([as_line, as_hook, as_metadata]))
    for is_quick in [row % 3 == column or name == HEAVY[0]]
]
"""The first goes every way in `make test`, each of the others one of them; `make test-long` tries all."""


@pytest.mark.parametrize(("send", "name"), WAYS)
def test_no_way_in_holds_up_others(appliance: Appliance, send: Send, name: str) -> None:
    assert least_wait(appliance, lambda: send(appliance, next(sessions), name)) < STALL


@pytest.mark.long
def test_many_at_once_hold_up_others_little_longer_than_one(appliance: Appliance) -> None:
    def send_all() -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda name: as_action(appliance, next(sessions), name), HEAVY * 2))
        assert set(answers) == {200, 413}

    assert least_wait(appliance, send_all) < 2 * STALL


@pytest.mark.long
def test_what_holds_up_others_is_seen(folder: Path) -> None:
    """The control: an event so large that to decode it alone takes long, in one go."""
    body = json.dumps({"type": "x", "wide": [[]] * 5_000_000}, separators=(",", ":")).encode()
    with Appliance(folder, {"SESSIONS_MAX_EVENT_BYTES": f"{16 * MIB}"}) as server:
        assert worst_wait(server, lambda: post(server, "/api/actions/s", body)).work > STALL


@pytest.mark.long
def test_nothing_of_them_is_kept_in_memory(appliance: Appliance) -> None:
    pid = appliance.process.pid
    for name in HEAVY:
        as_action(appliance, next(sessions), name)
    before = resident_bytes(pid)
    for _ in range(4):
        for name in HEAVY:
            as_action(appliance, next(sessions), name)
    assert resident_bytes(pid) - before < 64 * MIB


@pytest.mark.parametrize("send", [as_action, as_line, as_hook])
def test_what_is_large_is_redacted(appliance: Appliance, send: Send) -> None:
    session = next(sessions)
    for name in ("one long line", "members named token", "650 tokens, through the door"):
        assert send(appliance, session, name) == 200
        stored = json.dumps(newest(appliance, session))
        assert "[redacted:secret]" in stored and "a1b2c3" not in stored and "aaaaaa" not in stored


def test_an_event_has_20000_texts_at_the_most(appliance: Appliance, http: httpx.Client) -> None:
    session = next(sessions)
    most = {"type": "x", "toolUseId": "not counted", "texts": ["a"] * 19_998, "more": {"b": "text"}}
    assert http.post(f"/api/actions/{session}", json=most | {"last": "text"}).status_code == 200
    refused = http.post(f"/api/actions/{session}", json=most | {"last": ["one", "too many"]})
    assert refused.status_code == 413 and "at most 20000 texts" in refused.json()["detail"]
    for path in (f"/api/state/{session}", f"/api/sessions/{session}/metadata"):
        assert http.patch(path, json={"texts": [""] * 20_001}).status_code == 413


@pytest.mark.parametrize("send", [as_line, as_hook])
def test_of_a_line_and_a_hook_what_is_beyond_is_cut(appliance: Appliance, send: Send) -> None:
    session = next(sessions)
    assert send(appliance, session, "250,000 empty texts") == 200
    entry = newest(appliance, session)
    texts = entry["texts"] if send is as_line else entry["input"]["texts"]
    assert 19_990 < len(texts) <= 20_000
    assert entry["truncated"]["texts"] > 250_000


def test_a_small_one_after_a_large_one_stays_after_it(appliance: Appliance) -> None:
    """Pipelined: the second is sent before the first is answered."""
    session = next(sessions)
    with httpx.Client(base_url=appliance.url, timeout=60) as http:
        for name in HEAVY:
            http.post(f"/api/actions/{session}", content=body_of(name), headers=JSON)
            http.post(f"/api/actions/{session}", json={"type": "after", "text": NEAR})
    kinds = [entry["type"] for entry in httpx.get(f"{appliance.url}/api/actions/{session}", timeout=60).json()]
    assert kinds == ["x", "after", "after", "x", "after", "x", "after", "x", "after"]
