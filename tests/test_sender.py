"""What waits in the spool reaches the store: all of it, once, in order, whatever the link, the store or a kill do."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import hook_agent
from hook_agent import Sender, Spool, _Link
from tests.agents import (
    command,
    entries_of,
    environment,
    hook,
    letters_in,
    line_of,
    numbers_of,
    run,
    senders_in,
    spool_in,
    start,
    stop_senders,
    waiting_in,
)
from tests.appliance import Appliance
from tests.badlink import FAULTS, BadLink, Fake, Posted
from tests.peers import eventually
from tests.repeats import marked, repeated

LOG = """
import sys, hook_agent
agent = hook_agent.SessionHookAgent(sys.argv[1]).sync
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    agent.log_action(type="step", number=number)
    print(number, flush=True)
"""
SLOW_LOG = LOG.replace("print(", "__import__('time').sleep(0.0005); print(")
GAP = 1_000_000
SEND = """
import sys, hook_agent
hook_agent._IDLE_SECONDS = float(sys.argv[1])
spool = hook_agent._own_spool()
lock = hook_agent._sender_lock(spool)
sys.argv = ["", str(lock), spool.folder]
hook_agent.send_detached()
"""


pytestmark = pytest.mark.usefixtures("no_sender_is_left")


def sender_to(url: str, folder: Path, token: str | None = "") -> Sender:
    return Sender(spool_in(folder, url), _Link(url, token))


def fill(spool: Spool, numbers: range, session: str = "test") -> None:
    for number in numbers:
        spool.append(line_of(number, session))


def deliver_all(sender: Sender) -> None:
    """Without its pauses."""
    eventually(lambda: sender.step() is None)


# ----------------------------------------------------------------------- the link


def test_everything_arrives_over_a_bad_link(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    with BadLink(appliance.port) as link:
        env = environment(tmp_path, link.url)
        output = run(LOG, env, "bad-link", "0", "1500")
        spool = spool_in(tmp_path, link.url)
        eventually(lambda: spool.segments() == [], within=60)
    assert output.split() == [str(number) for number in range(1500)]
    assert numbers_of(http, "bad-link") == list(range(1500))
    assert letters_in(spool) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_link_costs_nothing(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str, fault: str
) -> None:
    with BadLink(appliance.port, [fault], share=0.5) as link:
        sender = sender_to(link.url, tmp_path)
        fill(sender.spool, range(4000), session_id)
        deliver_all(sender)
        sender.link.close()
    assert link.happened[fault] > 0
    assert numbers_of(http, session_id) == list(range(4000))


def test_a_store_that_is_down_is_waited_for(tmp_path: Path, folder: Path, session_id: str) -> None:
    appliance = Appliance(folder)
    env = environment(tmp_path, appliance.url)
    run(LOG, env, session_id, "0", "50")
    spool = spool_in(tmp_path, appliance.url)
    assert [event["data"].get("number") for event in waiting_in(spool)] == [None, *range(50)]
    eventually(lambda: list(senders_in(tmp_path)))  # left behind by the program, which has ended
    with appliance, httpx.Client(base_url=appliance.url) as http:
        eventually(lambda: numbers_of(http, session_id) == list(range(50)), within=40)


def test_a_hanging_store_is_left_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_agent._Link.ask, "__defaults__", (None, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = sender_to(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() is not None
    assert sender.failures == 1
    assert len(waiting_in(sender.spool)) == 1


def test_an_idle_connection_that_the_store_has_closed_is_no_failure(tmp_path: Path) -> None:
    def accept_once(posted: Posted) -> None:
        posted.accept()
        posted.drop()  # without a word of it in the answer

    with Fake(accept_once) as store:
        sender = sender_to(store.url, tmp_path)
        for number in range(3):
            fill(sender.spool, range(number, number + 1))
            assert sender.step() == 0.0
        sender.link.close()
    assert sender.failures == 0
    assert len(store.posted) == 3


def test_the_proxy_of_the_environment_is_not_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Fake(Posted.accept) as store:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() == 0.0
        sender.link.close()


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with Fake(Posted.accept) as elsewhere, Fake(lambda posted: posted.answer(307, Location=elsewhere.url)) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() not in (None, 0.0)
        sender.link.close()
    assert elsewhere.posted == []
    assert len(waiting_in(sender.spool)) == 1


@pytest.mark.parametrize("body", [b"", b"<html>Welcome to the airport</html>", b"{}", b'{"success":true}', b"[]"])
def test_a_200_that_is_not_the_stores_is_no_acknowledgement(tmp_path: Path, body: bytes) -> None:
    with Fake(lambda posted: posted.answer(200, body)) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() not in (None, 0.0)
        sender.link.close()
    assert len(waiting_in(sender.spool)) == 1


@pytest.mark.parametrize("status", [301, 400, 404, 405, 408, 413, 422, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(tmp_path: Path, status: int) -> None:
    with Fake(lambda posted: posted.answer(status) if posted.number == 1 else posted.accept()) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() not in (None, 0.0)
        assert sender.step() == 0.0
        sender.link.close()
    assert store.posted[0] == store.posted[1]
    assert letters_in(sender.spool) == []


def test_the_store_says_when_to_come_back(tmp_path: Path) -> None:
    with Fake(lambda posted: posted.answer(503, Retry_After="17")) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert (sender.step() or 0.0) >= 17
        sender.link.close()
    with Fake(lambda posted: posted.answer(503, Retry_After="99999")) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(1))
        assert sender.step() == hook_agent._LONGEST_RETRY_AFTER_SECONDS
        sender.link.close()


def test_pauses_grow_to_a_bound(tmp_path: Path) -> None:
    sender = sender_to("http://127.0.0.1:9", tmp_path)
    fill(sender.spool, range(1))
    pauses = [sender.step() or 0.0 for _ in range(30)]
    assert max(pauses[:2]) <= 0.8
    assert 0.8 < max(pauses) <= 30.0
    assert len(set(pauses)) == len(pauses)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::"])
def test_an_address_that_is_none_is_a_store_that_is_away(tmp_path: Path, url: str) -> None:
    sender = sender_to(url, tmp_path)
    fill(sender.spool, range(1))
    assert sender.step() not in (None, 0.0)
    assert len(waiting_in(sender.spool)) == 1


# ------------------------------------------------------------------------ poison


def test_nothing_behind_a_bad_line_is_blocked(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str
) -> None:
    sender = sender_to(appliance.url, tmp_path)
    bad = [
        b'{"sessionId":"' + session_id.encode() + b'","eventId":"half',
        b"\xff\xfe not even text",
        b'{"sessionId":"' + session_id.encode() + b'","type":"nonsense","data":{}}',
        b'{"sessionId":"../etc","type":"action","data":{"type":"step"}}',
        b'{"sessionId":"' + session_id.encode() + b'","data":{"type":"step"}}',
        b'{"sessionId":"' + session_id.encode() + b'","type":"session_deleted","data":[1]}',
        b"[" * 5000,
        b'{"sessionId":null,"eventId":"e","timestamp":"t","hook":not json}',
        b'{"sessionId":null,"eventId":"e","timestamp":"t","hook":{"hook_event_name":"Stop"}}',
        b'{"sessionId":null,"hook":{"hook_event_name":"Stop","session_id":"x"}}',
    ]
    for number, line in enumerate(bad):
        sender.spool.append(line + b"\n")
        fill(sender.spool, range(number, number + 1), session_id)
    deliver_all(sender)
    sender.link.close()
    assert numbers_of(http, session_id) == list(range(len(bad)))
    letters = letters_in(sender.spool)
    assert sorted(letter["record"] for letter in letters) == sorted(line.decode(errors="replace") for line in bad)
    assert all(letter["reason"] for letter in letters)


def test_a_batch_that_is_refused_is_searched_for_the_one_bad_event(tmp_path: Path) -> None:
    def refuse_poison(posted: Posted) -> None:
        if b"poison" in posted.body:
            return posted.refuse(413, "too much")
        taken.extend(json.loads(line)["data"]["number"] for line in posted.lines)
        return posted.accept()

    taken: list[int] = []
    with Fake(refuse_poison) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(100))
        sender.spool.append(line_of(100, text="poison"))
        fill(sender.spool, range(101, 200))
        deliver_all(sender)
        sender.link.close()
    assert taken == [*range(100), *range(101, 200)]
    (letter,) = letters_in(sender.spool)
    assert (letter["status"], json.loads(letter["record"])["data"]["number"]) == (413, 100)


NGINX = b"<html><head><title>%d</title></head><body><center><h1>nginx</h1></center></body></html>"
REFUSAL = b'{"type":"about:blank","title":"Bad","status":%d,"detail":"bad"}'
PROBLEM = "application/problem+json"


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422, 451])
@pytest.mark.parametrize(
    ("body", "media_type"),
    [(NGINX, "text/html"), (NGINX, PROBLEM), (REFUSAL, "application/json"), (b'{"status":9%d}', PROBLEM)],
    ids=["nginx", "HTML by another name", "some other service", "another status"],
)
def test_who_is_not_the_store_refuses_nothing(tmp_path: Path, status: int, body: bytes, media_type: str) -> None:
    with Fake(lambda posted: posted.answer(status, body % status, Content_Type=media_type)) as proxy:
        sender = sender_to(proxy.url, tmp_path)
        fill(sender.spool, range(3))
        assert sender.take_charge()
        assert sender.step() not in (None, 0.0)
        sender.link.close()
    assert letters_in(sender.spool) == []
    assert len(waiting_in(sender.spool)) == 3
    assert (sender.spool.word(), f"answered {status}" in sender.spool.trouble()) == ("away", True)
    sender.resign()


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("media_type", [PROBLEM, "Application/Problem+JSON; charset=utf-8"])
def test_what_the_store_itself_refuses_is_given_up(tmp_path: Path, status: int, media_type: str) -> None:
    with Fake(lambda posted: posted.answer(status, REFUSAL % status, Content_Type=media_type)) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(3))
        deliver_all(sender)
        sender.link.close()
    assert [letter["status"] for letter in letters_in(sender.spool)] == [status] * 3


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_problem_of_another_kind_is_no_refusal_of_an_event(tmp_path: Path, status: int) -> None:
    with Fake(lambda posted: posted.refuse(status)) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(3))
        assert sender.step() not in (None, 0.0)
        sender.link.close()
    assert (letters_in(sender.spool), len(waiting_in(sender.spool))) == ([], 3)


def test_a_proxy_that_takes_little_at_a_time_gets_little(tmp_path: Path) -> None:
    def take_little(posted: Posted) -> None:
        return posted.answer(413, NGINX % 413) if len(posted.body) > 1000 else posted.accept()

    with Fake(take_little) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(100))
        deliver_all(sender)
        sender.link.close()
    taken = [line for body in store.posted if len(body) <= 1000 for line in body.split(b"\n")]
    assert taken == [line_of(number).rstrip(b"\n") for number in range(100)]


def test_a_slow_way_gets_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch does not arrive in time, a smaller one does, and what is large has more time."""
    monkeypatch.setattr(hook_agent._Link.ask, "__defaults__", (None, 0.5))
    monkeypatch.setattr(hook_agent, "_SLOW_BYTES", 8 << 20)

    def take_slowly(posted: Posted) -> None:
        time.sleep(len(posted.body) / (512 << 10))
        posted.accept()

    with Fake(take_slowly) as store:
        sender = sender_to(store.url, tmp_path)
        for number in range(20):
            sender.spool.append(line_of(number, text="x" * 30_000))
        eventually(lambda: sender.step() is None, within=60)
        sender.link.close()
    sizes = [len(body) for body in store.posted]
    assert sizes[0] > 480_000
    assert min(sizes) < 130_000


def test_the_time_for_an_answer_grows_with_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_slowly(posted: Posted) -> None:
        time.sleep(0.5)
        posted.accept()

    with Fake(take_slowly) as store:
        sender = sender_to(store.url, tmp_path)
        for slow_bytes, pause in ((1 << 30, "away"), (1 << 10, "there")):
            monkeypatch.setattr(hook_agent, "_SLOW_BYTES", slow_bytes)
            monkeypatch.setattr(hook_agent._Link.ask, "__defaults__", (None, 0.1))
            sender.spool.append(line_of(0, text="x" * 30_000))
            sender.step()
            assert sender._word.split()[0] == pause
        sender.link.close()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_a_line_that_cannot_be_taken_now_is_kept_and_sent_again(tmp_path: Path, status: int) -> None:
    def take_at_the_second_time(posted: Posted) -> None:
        later = [{"line": 2, "status": status, "detail": "Too many new sessions"}]
        return posted.tell(2, later) if posted.number == 1 else posted.accept()

    with Fake(take_at_the_second_time) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(3))
        assert sender.step() not in (None, 0.0)
        assert len(waiting_in(sender.spool)) == 3
        assert sender.step() == 0.0
        sender.link.close()
    assert store.posted[0] == store.posted[1]
    assert letters_in(sender.spool) == []


BAD = {"status": 422, "detail": "bad"}


@pytest.mark.parametrize(
    ("accepted", "rejected", "more"),
    [
        (0, [], {}),
        (2, [], {}),
        (4, [], {}),
        (2, [{"line": 2, **BAD}], {"duplicates": 1}),
        (2, [{"line": 4, **BAD}], {}),
        (2, [{"line": 0, **BAD}], {}),
        (2, [{"line": 2}], {}),
        (2, [{"line": 2, **BAD}], {"rejectedTotal": 2}),
        (2, [], {"rejectedTotal": -1, "duplicates": 2}),
        (3.0, [], {}),
    ],
)
def test_a_200_that_does_not_add_up_forgets_nothing(tmp_path: Path, accepted: int, rejected: Any, more: Any) -> None:
    with Fake(lambda posted: posted.tell(accepted, rejected, **more)) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(3))
        assert sender.step() not in (None, 0.0)
        sender.link.close()
    assert (letters_in(sender.spool), len(waiting_in(sender.spool))) == ([], 3)


def test_a_list_of_rejections_that_is_cut_is_asked_for_in_pieces(tmp_path: Path) -> None:
    """The store lists a thousand; a hundred and one here. Every third line is bad."""
    longest = 20

    def list_few(posted: Posted) -> None:
        numbers = [json.loads(line)["data"]["number"] for line in posted.lines]
        bad = [{"line": at, **BAD} for at, number in enumerate(numbers, 1) if number % 3 == 0]
        posted.tell(len(numbers) - len(bad), bad[:longest], rejectedTotal=len(bad))

    with Fake(list_few) as store:
        sender = sender_to(store.url, tmp_path)
        fill(sender.spool, range(301))
        deliver_all(sender)
        sender.link.close()
    buried = [json.loads(letter["record"])["data"]["number"] for letter in letters_in(sender.spool)]
    assert buried == list(range(0, 301, 3))


def test_dead_letters_are_tried_again_when_they_are_asked_for(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str
) -> None:
    env = environment(tmp_path, appliance.url)
    spool = spool_in(tmp_path, appliance.url)
    hopeless = b'{"sessionId":"%s","type":"nonsense","data":{}}' % session_id.encode()
    for number in range(1500):  # in both files
        spool.bury(line_of(number, session_id, text="x" * 4000).rstrip(b"\n"), 400, NGINX.decode())
        if number in (3, 1400):
            spool.bury(hopeless, 422, "type")
    there = spool.letters()
    assert there > 900
    assert command("flush", env).returncode == 0
    assert spool.letters() == there  # not asked for
    spool.append(line_of(9999, session_id))
    done = command("flush", env, "--dead", "--timeout", "60")
    assert (done.returncode, done.stderr) == (0, "")
    assert "were refused for good" in done.stdout
    assert {letter["record"] for letter in letters_in(spool)} == {hopeless.decode()}
    numbers = numbers_of(http, session_id)
    assert numbers[0] == 9999 and numbers[1:] == sorted(numbers[1:]) and numbers[-1] == 1499
    assert len(numbers) - 1 + spool.letters() == there


def test_dead_letters_stay_while_the_store_is_away(tmp_path: Path) -> None:
    env = environment(tmp_path, "http://127.0.0.1:9")
    spool = spool_in(tmp_path, "http://127.0.0.1:9")
    spool.bury(line_of(1).rstrip(b"\n"), 422, "bad")
    spool.append(line_of(2))
    assert command("flush", env, "--dead", "--timeout", "0.3").returncode == 1
    assert (spool.letters(), len(waiting_in(spool))) == (1, 1)


def test_what_is_refused_where_nothing_can_be_kept_is_said(tmp_path: Path) -> None:
    program = """
import hook_agent
agent = hook_agent.SessionHookAgent("refused").sync
for number in range(3):
    agent.log_action(type="step", number=number)
assert agent.flush(60)
"""
    with Fake(lambda posted: posted.refuse(422, "No such thing")) as store:
        sealed = {"SESSION_SPOOL_DIR": "/dev/null", "TMPDIR": "/dev/null"}
        _, errors = start(program, environment(tmp_path, store.url, **sealed)).communicate(timeout=60)
    (line,) = errors.decode().splitlines()
    assert "refused an event" in line
    assert "No such thing" in line


# ------------------------------------------------------------- what hooks have told before


def record_of(monkeypatch: pytest.MonkeyPatch, payload: Mapping[str, object], session: str = "") -> bytes:
    monkeypatch.setenv("SESSION_ID", session)
    return hook_agent._hook_record(json.dumps(payload).encode())


START = {"session_id": "claude-a", "hook_event_name": "SessionStart", "source": "startup"}


def test_what_hooks_have_told_is_known_to_the_next_who_delivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nested program is a lane only because another is known to be at work, and a hook that is told twice is one."""
    nested = {**START, "session_id": "claude-b"}
    said = {"session_id": "claude-b", "hook_event_name": "UserPromptSubmit", "prompt": "go"}
    with Fake(Posted.accept) as store:
        for payload in (START, nested, said, said, {**said, "prompt": "on"}):
            sender = sender_to(store.url, tmp_path)
            sender.spool.append(record_of(monkeypatch, payload, "outer"))
            assert sender.take_charge()
            deliver_all(sender)
            sender.resign()
            sender.link.close()
    events = [json.loads(line) for body in store.posted for line in body.splitlines()]
    assert {event["type"] for event in events} == {"hook"}
    told = [(event["data"]["hook_event_name"], event.get("agentId"), event["data"].get("prompt")) for event in events]
    lane = "claude-claude-b"
    assert told == [
        ("SessionStart", None, None),
        ("SessionStart", lane, None),
        ("UserPromptSubmit", lane, "go"),
        ("UserPromptSubmit", lane, "on"),
    ]


def test_an_older_store_that_does_not_know_hooks_loses_nothing_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes what else is in the batch; all of it waits, and is told again to the store that comes in its place."""

    def as_before(posted: Posted) -> None:
        refused = [number for number, line in enumerate(posted.lines, 1) if b'"type":"hook"' in line]
        detail = "type: invalid enum value 'hook'"
        posted.tell(2 - len(refused), [{"line": line, "status": 422, "detail": detail} for line in refused])

    is_old = True
    with Fake(lambda posted: as_before(posted) if is_old else posted.accept()) as store:
        sender = sender_to(store.url, tmp_path)
        sender.spool.append(record_of(monkeypatch, START))
        fill(sender.spool, range(1))
        assert sender.take_charge()
        pauses = [sender.step() for _ in range(3)]
        assert None not in pauses and "is older than this file" in sender.spool.trouble()
        assert (len(waiting_in(sender.spool)), sender.spool.letters()) == (2, 0)
        is_old = False
        deliver_all(sender)
        sender.resign()
        sender.link.close()
    assert (sender.spool.segments(), len(store.posted)) == ([], 4)


def test_a_hook_that_is_larger_than_what_the_store_takes_is_cut(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"session_id": "large", "hook_event_name": "Odd", "text": "x" * (3 << 20), "cwd": "/w"}
    with (
        Appliance(folder, {"SESSIONS_MAX_BATCH_BYTES": f"{1 << 20}"}) as appliance,
        httpx.Client(base_url=appliance.url) as http,
    ):
        sender = sender_to(appliance.url, tmp_path)
        sender.spool.append(record_of(monkeypatch, payload))
        deliver_all(sender)
        sender.link.close()
        (entry,) = entries_of(http, "large")
    assert (entry["cwd"], entry["truncated"]["bytes"] > 3 << 20, sender.spool.letters()) == ("/w", True, 0)


def test_who_reads_hooks_again_begins_with_what_was_known_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the store's answer and the note of how far it has come."""
    payloads = [START, {**START, "session_id": "claude-b"}, {"session_id": "claude-a", "hook_event_name": "Stop"}]
    with Fake(Posted.accept) as store:
        first, second = sender_to(store.url, tmp_path), sender_to(store.url, tmp_path)
        first.spool.append(record_of(monkeypatch, payloads[0], "outer"))
        fill(first.spool, range(1))
        deliver_all(first)
        for payload in payloads[1:]:
            first.spool.append(record_of(monkeypatch, payload, "outer"))
        monkeypatch.setattr(first.spool, "done", lambda batch: None)
        first.step()
        monkeypatch.undo()
        deliver_all(second)
        for sender in (first, second):
            sender.link.close()
    assert store.posted[-2] == store.posted[-1]
    assert len(store.posted[-1].splitlines()) == 2
    assert second.spool.segments() == []


@pytest.mark.parametrize(
    "state",
    [
        {"recent": 5},
        {"recent": {"a": [1]}, "sessions": {}},
        {"recent": {"a": [1, None, "Stop", ""]}, "sessions": {}},
        {"recent": {}, "sessions": []},
        {"recent": {}, "sessions": {"outer": {"main": "claude-b"}}},
    ],
)
def test_what_was_told_in_another_form_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, object]
) -> None:
    """Then a nested program may pass for the first; no hook is refused for it."""
    with Fake(Posted.accept) as store:
        sender = sender_to(store.url, tmp_path)
        sender.spool.append(record_of(monkeypatch, START, "outer"))
        Path(sender.spool.path("told.json")).write_text(json.dumps({"known": [{"place": [0, 0], "state": state}]}))
        deliver_all(sender)
        sender.link.close()
    assert (len(store.posted), sender.spool.letters()) == (1, 0)
    assert hook_agent.HookNarrator(state).state == hook_agent.HookNarrator().state


# -------------------------------------------------------------------------- bound


def test_what_had_to_go_is_reported_as_an_event(folder: Path, tmp_path: Path) -> None:
    appliance = Appliance(folder)
    env = environment(tmp_path, appliance.url, SESSION_SPOOL_BYTES="100000")
    run(LOG, env, "one", "0", "300")
    run(LOG, env, "two", "0", "700")
    stop_senders(tmp_path)
    spool = spool_in(tmp_path, appliance.url, 100_000)
    left = waiting_in(spool)
    with appliance, httpx.Client(base_url=appliance.url) as http:
        assert command("flush", env).returncode == 0
        for session, count in (("one", 301), ("two", 701)):
            kept = sum(event["sessionId"] == session for event in left)
            events = http.get(f"/api/sessions/{session}/events?limit=1000").json()["items"]
            reports = [event["data"] for event in events if event["data"].get("type") == "events_dropped"]
            assert sum(report["count"] for report in reports) == count - kept
            assert len(reports) == 1
            assert reports[0]["from"] <= reports[0]["to"] <= events[-1]["timestamp"]
    assert spool.dropped() == {}


def test_a_report_whose_answer_is_lost_is_not_made_twice(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str
) -> None:
    with BadLink(appliance.port, ["reset after commit"], share=0.7, seed=3) as link:
        sender = Sender(spool_in(tmp_path, link.url, 5000), _Link(link.url, ""))
        fill(sender.spool, range(100), session_id)
        deliver_all(sender)
        sender.link.close()
    assert link.happened["reset after commit"] > 0
    reports = [entry for entry in entries_of(http, session_id) if entry["type"] == "events_dropped"]
    assert [report["count"] for report in reports] == [100 - len(numbers_of(http, session_id))]


# ------------------------------------------------------- what the version before left

KNOWN_BEFORE = {
    "recent": {},
    "sessions": {
        "outer": {
            "main": "claude-a",
            "process": "",
            "isOver": False,
            "before": [],
            "lanes": ["claude-b"],
            "isToldOf": False,
        }
    },
}


def spool_of_before(spool: Spool) -> None:
    """As the version before wrote it: of the first of two segments two lines are delivered, and seven had to go."""
    first = [line_of(number, "outer") for number in range(5)]
    prompt = {"session_id": "claude-b", "hook_event_name": "UserPromptSubmit", "prompt": "go"}
    head = {"sessionId": "outer", "eventId": "01a0", "timestamp": "2026-01-01T00:00:01.000Z", "ppid": 1}
    hooked = json.dumps({**head, "hook": prompt}, separators=(",", ":")).encode() + b"\n"
    done = len(b"".join(first[:2]))
    times = {"from": "2025-12-31T00:00:00.000Z", "to": "2025-12-31T00:00:01.000Z"}
    files: dict[str, bytes | Any] = {
        "00000003.ndjson": b"".join(first),
        "00000004.ndjson": hooked + line_of(5, "outer"),
        "lock": b"00000004",
        "position.json": {"segment": 3, "offset": done},
        "told.json": {"known": [{"place": [3, done], "state": KNOWN_BEFORE}, {"place": [3, 0], "state": {}}]},
        "dropped.json": {"id": "01a1", "sessions": {"outer": {"count": 7, **times}}},
        "dead/letters.ndjson": {"at": "x", "status": 422, "reason": "bad", "record": line_of(6, "outer").decode()[:-1]},
    }
    os.mkdir(spool.path("dead"))
    for name, content in files.items():
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        Path(spool.path(name)).write_bytes(text)


def test_what_the_version_before_left_is_delivered_whole(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    spool = spool_in(tmp_path, appliance.url)
    spool_of_before(spool)
    assert command("flush", environment(tmp_path, appliance.url), "--dead").returncode == 0
    assert numbers_of(http, "outer") == [2, 3, 4, 5, 6]
    events = http.get("/api/sessions/outer/events").json()["items"]
    assert [event["agentId"] for event in events if event["data"].get("type") == "prompt"] == ["claude-claude-b"]
    dropped = [event["data"]["count"] for event in events if event["data"].get("type") == "events_dropped"]
    assert (dropped, spool.segments(), spool.letters()) == ([7], [], 0)


# -------------------------------------------------------------------------- token


WAITS = """
import hook_agent, sys
agent = hook_agent.SessionHookAgent("told").sync
agent.log_action(type="step")
sys.stdin.readline()
"""


def said_while_it_waits(env: dict[str, str], *before: str) -> str:
    """What a program that cannot deliver says of that: one line."""
    with subprocess.Popen([*before, sys.executable, "-c", WAITS], env=env, stdin=-1, stderr=-1, text=True) as running:
        assert running.stderr is not None
        line = running.stderr.readline()
        assert running.communicate("\n", timeout=60)[1] == "" and running.returncode == 0
    return line


def test_a_refused_token_is_said_once_and_nothing_is_lost(tmp_path: Path, folder: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("wrong-token\n")
    program = """
import sys, hook_agent
agent = hook_agent.SessionHookAgent("secret").sync
for number in range(20):
    agent.log_action(type="step", number=number)
sys.stdin.readline()
assert agent.flush(60)
"""
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN_FILE=str(token_file))
        with subprocess.Popen(
            [sys.executable, "-c", program], env=env, stdin=-1, stdout=-1, stderr=-1, text=True
        ) as running:
            assert running.stderr is not None
            line = running.stderr.readline()
            token_file.write_text("right-token\n")
            _, more = running.communicate("\n", timeout=60)
        assert running.returncode == 0
        headers = {"Authorization": "Bearer right-token"}
        with httpx.Client(base_url=appliance.url, headers=headers) as http:
            assert numbers_of(http, "secret") == list(range(20))
    assert "401" in line and appliance.url in line and not more
    assert "wrong-token" not in line


def test_a_program_ends_well_while_nobody_reads_what_is_said(tmp_path: Path, folder: Path) -> None:
    """The interpreter aborts if at its end another thread is in the buffers of stderr."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN="wrong-token")
        with subprocess.Popen([sys.executable, "-c", WAITS], env=env, stdin=-1, stderr=writing) as running:
            eventually(lambda: is_in_a_write(running.pid))
            running.communicate(b"\n", timeout=60)
    os.close(reading)
    os.close(writing)
    assert running.returncode == 0


def is_in_a_write(pid: int) -> bool:
    """Whether a thread waits for a reader of its pipe."""
    return any("pipe_write" in (task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


def test_a_hook_says_nothing_of_a_refused_token(tmp_path: Path, folder: Path) -> None:
    payload = b'{"session_id":"quiet","hook_event_name":"Stop"}'
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN="wrong-token")
        assert hook(payload, env) == (0, b"", b"")
        spool = spool_in(tmp_path, appliance.url)
        eventually(lambda: spool.word() != "there")
        assert len(waiting_in(spool)) == 1


def test_a_program_says_it_also_where_somebody_else_delivers(tmp_path: Path, folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN="wrong-token")
        hook(b'{"session_id":"quiet","hook_event_name":"Stop"}', env)
        spool = spool_in(tmp_path, appliance.url)
        eventually(lambda: spool.word() == "refuses")
        assert "refuses the token" in said_while_it_waits(env)


def test_a_token_file_is_found_from_everywhere(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender that a hook starts has another working directory."""
    (tmp_path / "token").write_text("right-token")
    monkeypatch.chdir(tmp_path)
    headers = {"Authorization": "Bearer right-token"}
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN_FILE="token")
        hook(b'{"session_id":"relative","hook_event_name":"Stop"}', env)
        with httpx.Client(base_url=appliance.url, headers=headers) as http:
            eventually(lambda: entries_of(http, "relative", "/responses"))


TROUBLES = {
    "of another": "belongs to uid",
    "not there": "No such file",
    "a folder": "Is a directory",
    "empty": "is empty",
    "no text": "not UTF-8",
}
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown", "--inh-caps=-all")


@pytest.mark.parametrize("trouble", marked(TROUBLES, long=["a folder", "empty", "no text"]))
def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path, folder: Path, trouble: str) -> None:
    path = tmp_path / "token"
    if trouble == "a folder":  # as a container's engine makes one where there is nothing to mount
        path.mkdir()
    elif trouble != "not there":
        path.write_bytes(b"" if trouble == "empty" else b"\xff\xfe" if trouble == "no text" else b"right-token")
    before: tuple[str, ...] = ()
    if trouble == "of another":
        if os.geteuid() or not shutil.which("setpriv"):
            pytest.skip("needs root, and setpriv")
        path.chmod(0o600)
        os.chown(path, 1234, 1234)
        before = (*WITHOUT_RIGHTS, "--reuid=0")
    with Appliance(folder, {"SESSIONS_TOKEN": "right-token"}) as appliance:
        env = environment(tmp_path, appliance.url, SESSION_TOKEN_FILE=str(path))
        said = [said_while_it_waits(env, *before)]
        for word in ("test", "status"):
            words = [*before, sys.executable, hook_agent.__file__, word]
            ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
            assert ran.returncode == 1
            said.append(ran.stdout if word == "status" else ran.stderr)
        for text in said:
            line, *_ = [line for line in text.splitlines() if str(path) in line]
            assert TROUBLES[trouble] in line
            if trouble == "of another":
                assert "uid 0" in line and "1234" in line and "chown" in line
        good = environment(tmp_path, appliance.url, SESSION_TOKEN_FILE=str(path), SESSION_TOKEN="right-token")
        assert str(path) not in command("test", good).stderr  # the file is not asked then


def test_a_token_is_sent_as_bearer(tmp_path: Path) -> None:
    with Fake(Posted.accept) as store:
        for token in ("abc", ""):
            sender = sender_to(store.url, tmp_path, token)
            fill(sender.spool, range(1))
            assert sender.step() == 0.0
            sender.link.close()
    assert store.tokens == ["Bearer abc", None]


# -------------------------------------------------------------- one at a time, always


def test_a_fault_of_the_sender_is_no_store_that_is_away(
    appliance: Appliance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spool = spool_in(tmp_path, appliance.url)
    spool.append(b"{}\n")
    position = Path(spool.path("position.json"))
    position.mkdir()
    sender = Sender(spool, _Link(appliance.url, ""))
    assert sender.take_charge() is not None
    assert sender.step() == hook_agent._FAULT_PAUSE_SECONDS
    assert spool.word() == "fails" and "IsADirectoryError" in spool.trouble()
    position.rmdir()
    hook_agent._tell_status(spool)
    assert f"Process {os.getpid()} delivers, but fails by itself: IsADirectoryError: " in capsys.readouterr().out
    spool.append(b"{}\n")
    assert sender.step() == 0.0
    assert spool.word() == "there"
    sender.resign()
    sender.link.close()


def test_one_sender_delivers_at_a_time(tmp_path: Path) -> None:
    first, second = (sender_to("http://127.0.0.1:9", tmp_path) for _ in range(2))
    assert first.take_charge()
    assert not second.take_charge()
    assert second.spool.who_delivers() == os.getpid()
    first.resign()
    assert second.take_charge()
    second.resign()
    assert first.spool.who_delivers() is None


def test_many_hooks_at_once_start_one_sender(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url, SESSION_ID="many-hooks")
    payload = b'{"session_id":"x","hook_event_name":"Notification","number":%d}'
    threads = [threading.Thread(target=hook, args=(payload % number, env)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(numbers_of(http, "many-hooks")) == 20)
    spool = spool_in(tmp_path, appliance.url)
    ours = [pid for pid in processes() if spool.folder.encode() in pid[1]]
    assert [pid for pid, _ in ours] == [spool.who_delivers()]


def processes() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes()
            except OSError:
                continue


def test_a_detached_sender_leaves_when_nothing_comes(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url)
    spool = spool_in(tmp_path, appliance.url)
    fill(spool, range(10), "leaving")
    run(SEND, env, "0.2")
    assert numbers_of(http, "leaving") == list(range(10))
    assert spool.who_delivers() is None


def test_what_comes_while_a_sender_leaves_is_delivered(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    """Its writer saw that somebody delivers, and started nobody."""
    env = environment(tmp_path, appliance.url)
    spool = spool_in(tmp_path, appliance.url)
    late = f"""
import hook_agent
resign, left = hook_agent.Sender.resign, [2]
def append_and_resign(self):
    if left[0]:
        left[0] -= 1
        self.spool.append(({line_of(0, "too-late")!r}, {line_of(1, "too-late")!r})[left[0]])
    resign(self)
hook_agent.Sender.resign = append_and_resign
{SEND}"""
    run(late, env, "0.1")
    assert numbers_of(http, "too-late") == [1, 0]
    assert spool.segments() == []


def test_a_sender_whose_folder_is_gone_leaves(appliance: Appliance, tmp_path: Path) -> None:
    env = environment(tmp_path, appliance.url)
    sender = start(SEND, env, "60")
    spool = spool_in(tmp_path, appliance.url)
    eventually(lambda: spool.who_delivers() == sender.pid)
    shutil.rmtree(spool.folder)
    assert sender.communicate(timeout=20) == (b"", b"")


# -------------------------------------------------------------------------- kills


@repeated("times", few=1, many=4, variable="SENDER_KILLS")
def test_kills_lose_nothing_and_double_nothing(folder: Path, tmp_path: Path, times: int) -> None:
    """The program, the sender and the store are killed at random moments, over and over."""
    chance = random.Random(29)
    produced: list[int] = []
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        env = environment(tmp_path, appliance.url)
        spool = spool_in(tmp_path, appliance.url)
        for life, kind in enumerate(["program", "sender", "store"] * times):
            program = start(SLOW_LOG, env, "killed", str(life * GAP), str((life + 1) * GAP))
            time.sleep(chance.uniform(0.15, 0.5))
            if kind == "store":
                appliance.kill()
                appliance.start()
            program.kill()
            output, errors = program.communicate(timeout=30)
            assert errors == b""
            produced += [int(word) for word in output.split()]
            if kind == "sender":
                sender = start(SEND, env, "60")
                time.sleep(chance.uniform(0.05, 0.3))
                sender.kill()
                sender.communicate()
        assert command("flush", env, "--timeout", "60").returncode == 0
        stored = all_numbers(http, "killed")
    assert spool.segments() == []
    assert len(produced) > 25 * times
    assert len(stored) == len(set(stored))
    # The last one before a kill may be there without having been said.
    assert [number for number in stored if number in set(produced)] == produced
    assert len(stored) - len(produced) <= 3 * times


def all_numbers(http: httpx.Client, session: str) -> list[int]:
    numbers: list[int] = []
    after = 0
    while page := http.get(f"/api/actions/{session}?limit=10000&after={after}").json():
        numbers += [entry["number"] for entry in page]
        after = page[-1]["seq"]
    return numbers
