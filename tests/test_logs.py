"""The action and the response log: what is taken, what is kept, and how it is given back."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import Appliance
from tests.problems import assert_problem

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOGS = {"action": "", "response": "/responses"}

# ------------------------------------------------------------------ what is asked


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> str:
    """Each of the two logs: whatever is true of one is true of the other."""
    name: str = request.param
    return name


def path_of(log: str, session_id: str) -> str:
    return f"/api/actions/{session_id}{LOGS[log]}"


def post(http: httpx.Client, log: str, session_id: str, headers: Any = None, **entry: Any) -> Any:
    answer = http.post(path_of(log, session_id), json={"type": "note"} | entry, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def entries(http: httpx.Client, log: str, session_id: str, **query: Any) -> Any:
    answer = http.get(path_of(log, session_id), params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def seqs(http: httpx.Client, log: str, session_id: str, **query: Any) -> list[int]:
    return [entry["seq"] for entry in entries(http, log, session_id, **query)]


def events(http: httpx.Client, log: str, session_id: str) -> Any:
    return http.get(f"/api/sessions/{session_id}/events", params={"type": log}).json()["items"]


def walk(http: httpx.Client, answer: httpx.Response) -> Iterator[httpx.Response]:
    """The pages from this one on, as the header Link leads through them."""
    yield answer
    while following := answer.links.get("next"):
        answer = http.get(following["url"])
        assert answer.status_code == 200, answer.text
        yield answer


# ------------------------------------------------------------------------- write


def test_an_entry_is_answered_with_its_seq(http: httpx.Client, session_id: str, log: str) -> None:
    for seq in (1, 2, 3):
        answer = post(http, log, session_id)
        assert answer["success"] is True
        assert answer["seq"] == seq
        assert type(answer["cursor"]) is int
        assert isinstance(answer["eventId"], str) and answer["eventId"]


def test_each_log_has_its_own_seq(http: httpx.Client, session_id: str) -> None:
    answers = [post(http, log, session_id) for log in ("action", "action", "response", "action", "response")]
    assert [answer["seq"] for answer in answers] == [1, 2, 1, 3, 2]
    cursors = [answer["cursor"] for answer in answers]
    assert cursors == sorted(set(cursors))


def test_an_entry_is_given_back_flat(http: httpx.Client, session_id: str, log: str) -> None:
    given = {"type": "file_write", "path": "src/server.js", "lines": 42, "deep": {"a": [1, None, "ü", 1.5, True]}}
    answer = post(http, log, session_id, **given)
    (entry,) = entries(http, log, session_id)
    assert TIME.fullmatch(entry.pop("timestamp"))
    assert entry == given | {name: answer[name] for name in ("seq", "cursor", "eventId")}


def test_the_event_of_an_entry_is_the_one_of_the_contract(http: httpx.Client, session_id: str, log: str) -> None:
    answer = post(http, log, session_id, type="file_write", path="src/server.js", headers={"X-User-Id": "ünï".encode()})
    (event,) = events(http, log, session_id)
    assert TIME.fullmatch(event.pop("timestamp")) and TIME.fullmatch(event.pop("receivedAt"))
    assert event == {
        "cursor": answer["cursor"],
        "type": log,
        "sessionId": session_id,
        "userId": "ünï",
        "eventId": answer["eventId"],
        "agentId": None,
        "actor": None,
        "data": {"seq": 1, "type": "file_write", "path": "src/server.js"},
    }


@pytest.mark.parametrize(
    ("given", "in_utc"),
    [
        ("2026-02-13T20:59:12.345Z", "2026-02-13T20:59:12.345Z"),
        ("2026-02-13T20:59:12Z", "2026-02-13T20:59:12.000Z"),
        ("2026-02-13t20:59:12.345678z", "2026-02-13T20:59:12.345Z"),
        ("2026-02-14T02:29:12.3+05:30", "2026-02-13T20:59:12.300Z"),
        ("2026-02-13 12:59:12-08:00", "2026-02-13T20:59:12.000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
    ],
)
def test_an_entry_keeps_its_time_and_the_event_has_it_in_utc(
    http: httpx.Client, session_id: str, log: str, given: str, in_utc: str
) -> None:
    post(http, log, session_id, timestamp=given)
    assert entries(http, log, session_id)[0]["timestamp"] == given
    (event,) = events(http, log, session_id)
    assert event["timestamp"] == in_utc
    assert event["receivedAt"] > in_utc


def test_an_entry_without_a_time_has_that_of_its_commit(http: httpx.Client, session_id: str, log: str) -> None:
    post(http, log, session_id)
    (event,) = events(http, log, session_id)
    assert entries(http, log, session_id)[0]["timestamp"] == event["timestamp"] == event["receivedAt"]
    assert "timestamp" not in event["data"]


def test_a_time_can_come_as_a_header(http: httpx.Client, session_id: str, log: str) -> None:
    post(http, log, session_id, headers={"X-Timestamp": "2026-02-13T21:59:12+01:00"})
    assert events(http, log, session_id)[0]["timestamp"] == "2026-02-13T20:59:12.000Z"


@pytest.mark.parametrize("name", ["seq", "cursor", "receivedAt", "sessionId"])
@pytest.mark.parametrize("value", [999, "text", None, {"a": 1}], ids=str)
def test_what_the_store_gives_is_ignored_in_a_body(
    http: httpx.Client, session_id: str, log: str, name: str, value: object
) -> None:
    answer = post(http, log, session_id, **{name: value})
    (entry,) = entries(http, log, session_id)
    assert (entry["seq"], entry["cursor"]) == (1, answer["cursor"])
    assert "receivedAt" not in entry and "sessionId" not in entry


def test_every_text_comes_back_as_it_was(http: httpx.Client, session_id: str, log: str) -> None:
    texts = [
        "",
        "a\0b",
        "\x1b[31m",
        "</script>",
        "'; DROP TABLE events; --",
        "😀\U0010ffff",
        "\u2028",
        '"\\',
        "x" * 99999,
    ]
    post(http, log, session_id, texts=texts, **{"": 1, "ключ": 2, "a.b": 3})
    (entry,) = entries(http, log, session_id)
    assert entry["texts"] == texts
    assert (entry[""], entry["ключ"], entry["a.b"]) == (1, 2, 3)


@pytest.mark.parametrize("number", ["0", "-0.0", "9007199254740993", "18446744073709551616", "1e308", "0.1"])
def test_every_number_keeps_its_value(http: httpx.Client, session_id: str, log: str, number: str) -> None:
    content = f'{{"type":"note","number":{number}}}'
    answer = http.post(path_of(log, session_id), content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert entries(http, log, session_id)[0]["number"] == json.loads(number)


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({}, "$"),
        ({"type": None}, "$.type"),
        ({"type": 5}, "$.type"),
        ({"type": ["note"]}, "$.type"),
        ({"type": "note", "eventId": ""}, "$.eventId"),
        ({"type": "note", "eventId": "a/b"}, "$.eventId"),
        ({"type": "note", "eventId": 5}, "$.eventId"),
        ({"type": "note", "agentId": "a..b"}, "$.agentId"),
        ({"type": "note", "agentId": 5}, "$.agentId"),
        ({"type": "note", "timestamp": "yesterday"}, "$.timestamp"),
        ({"type": "note", "timestamp": "2026-02-30T00:00:00Z"}, "$.timestamp"),
        ({"type": "note", "timestamp": "2026-02-13T20:59:12"}, "$.timestamp"),
        ({"type": "note", "timestamp": 1771012752}, "$.timestamp"),
    ],
    ids=str,
)
def test_an_entry_that_is_not_valid_answers_422(
    http: httpx.Client, session_id: str, log: str, entry: dict[str, Any], path: str
) -> None:
    assert_problem(http.post(path_of(log, session_id), json=entry), 422, path)
    assert_problem(http.get(path_of(log, session_id)), 404)


@pytest.mark.parametrize(
    "headers",
    [{"Idempotency-Key": "a b"}, {"Idempotency-Key": ""}, {"X-Timestamp": "now"}, {"X-User-Id": ""}],
    ids=str,
)
def test_a_bad_header_answers_422(http: httpx.Client, session_id: str, log: str, headers: dict[str, str]) -> None:
    answer = http.post(path_of(log, session_id), json={"type": "note"}, headers=headers)
    assert_problem(answer, 422, next(iter(headers)))
    assert_problem(http.get(path_of(log, session_id)), 404)


def test_an_event_may_have_one_mebibyte_and_no_more(http: httpx.Client, session_id: str, log: str) -> None:
    headers = {"content-type": "application/json"}
    largest = b'{"type":"note","text":"%s"}' % (b"x" * ((1 << 20) - len(b'{"type":"note","text":""}')))
    assert http.post(path_of(log, session_id), content=largest, headers=headers).status_code == 200
    assert_problem(http.post(path_of(log, session_id), content=largest + b" ", headers=headers), 413)
    assert len(entries(http, log, session_id)) == 1


def test_a_body_without_a_length_is_held_to_the_same_limit(http: httpx.Client, session_id: str, log: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"type":"note","text":"'
        for _ in range(40):
            yield b"x" * (32 << 10)
        yield b'"}'

    answer = http.post(path_of(log, session_id), content=pieces(), headers={"content-type": "application/json"})
    assert_problem(answer, 413)
    assert_problem(http.get(path_of(log, session_id)), 404)


# ----------------------------------------------------------------------- retries


def test_a_retry_is_answered_as_the_first_time(http: httpx.Client, session_id: str, log: str) -> None:
    first = post(http, log, session_id, eventId="event-1", text="a")
    post(http, log, session_id, text="between")
    assert post(http, log, session_id, eventId="event-1", text="a") == first
    assert first["eventId"] == "event-1"
    assert seqs(http, log, session_id) == [1, 2]


def test_a_retry_may_carry_its_id_as_a_header(http: httpx.Client, session_id: str, log: str) -> None:
    first = post(http, log, session_id, eventId="event-1")
    assert post(http, log, session_id, headers={"Idempotency-Key": "event-1"}) == first
    assert post(http, log, session_id, headers={"Idempotency-Key": '"event-1"'}) == first
    assert seqs(http, log, session_id) == [1]


def test_the_same_event_id_with_other_content_answers_422(http: httpx.Client, session_id: str, log: str) -> None:
    post(http, log, session_id, eventId="event-1", text="a")
    for other in (
        {"text": "b"},
        {},
        {"text": "a", "more": 1},
        {"text": "a", "type": "other"},
        {"text": "a", "agentId": "a"},
    ):
        answer = http.post(path_of(log, session_id), json={"type": "note", "eventId": "event-1"} | other)
        assert_problem(answer, 422, "$.eventId")
    other_log = path_of({"action": "response", "response": "action"}[log], session_id)
    assert_problem(http.post(other_log, json={"type": "note", "eventId": "event-1", "text": "a"}), 422, "$.eventId")
    assert seqs(http, log, session_id) == [1]


def test_the_order_of_members_is_no_other_content(http: httpx.Client, session_id: str, log: str) -> None:
    headers = {"content-type": "application/json"}
    bodies = (b'{"type":"note","eventId":"e","a":1,"b":2}', b'{"b":2, "a":1, "eventId":"e", "type":"note"}')
    first, again = (http.post(path_of(log, session_id), content=body, headers=headers) for body in bodies)
    assert first.json() == again.json()
    assert seqs(http, log, session_id) == [1]


def test_an_event_id_counts_within_its_session_only(http: httpx.Client, session_id: str, log: str) -> None:
    for name in (f"{session_id}-a", f"{session_id}-b"):
        assert post(http, log, name, eventId="event-1", text=name)["seq"] == 1


def test_without_an_event_id_the_same_content_is_another_event(http: httpx.Client, session_id: str, log: str) -> None:
    first, second = (post(http, log, session_id, text="same") for _ in "12")
    assert (first["seq"], second["seq"]) == (1, 2)
    assert first["eventId"] != second["eventId"]


def test_retries_are_recognised_after_a_restart_and_a_kill(folder: Path) -> None:
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        first = [post(http, log, "a", eventId=f"{log}-1", text="kept") for log in LOGS]
        for end in (appliance.stop, appliance.kill):
            end()
            appliance.start()
            assert [post(http, log, "a", eventId=f"{log}-1", text="kept") for log in LOGS] == first
            for log in LOGS:
                answer = http.post(path_of(log, "a"), json={"type": "note", "eventId": f"{log}-1", "text": "other"})
                assert_problem(answer, 422, "$.eventId")
                assert seqs(http, log, "a") == [1]
        assert post(http, "action", "a")["cursor"] > max(answer["cursor"] for answer in first)


def test_many_retries_in_any_order_store_each_event_once(http: httpx.Client, session_id: str) -> None:
    dice = random.Random(14)
    sends = [number for number in range(100) for _ in range(dice.randint(1, 5))]
    dice.shuffle(sends)
    answers: dict[int, list[Any]] = {}
    for number in sends:
        answer = post(http, "action", session_id, eventId=f"event-{number}", number=number)
        answers.setdefault(number, []).append(answer)
    assert all(answer == same[0] for same in answers.values() for answer in same)
    assert sorted(entry["number"] for entry in entries(http, "action", session_id)) == list(range(100))


# -------------------------------------------------------------------------- read


def test_a_log_that_is_empty_is_an_empty_array(http: httpx.Client, session_id: str) -> None:
    post(http, "action", session_id)
    answer = http.get(path_of("response", session_id))
    assert (answer.status_code, answer.json()) == (200, [])
    assert "link" not in answer.headers


def test_the_log_of_a_session_that_is_not_there_answers_404(http: httpx.Client, session_id: str, log: str) -> None:
    assert_problem(http.get(path_of(log, session_id)), 404)


def test_an_agent_stands_in_the_entry_and_in_the_event(http: httpx.Client, session_id: str, log: str) -> None:
    post(http, log, session_id, agentId="agent-1")
    post(http, log, session_id, agentId=None)
    post(http, log, session_id)
    assert [entry.get("agentId") for entry in entries(http, log, session_id)] == ["agent-1", None, None]
    assert [event["agentId"] for event in events(http, log, session_id)] == ["agent-1", None, None]
    assert seqs(http, log, session_id, agentId="agent-1") == [1]
    assert seqs(http, log, session_id, agentId="agent-2") == []


def test_entries_are_found_by_every_parameter(http: httpx.Client, session_id: str, log: str) -> None:
    for kind in ("a", "b", "a", "c", "a", "b"):
        post(http, log, session_id, type=kind)
    assert seqs(http, log, session_id) == [1, 2, 3, 4, 5, 6]
    assert seqs(http, log, session_id, order="desc") == [6, 5, 4, 3, 2, 1]
    assert seqs(http, log, session_id, after=4) == [5, 6]
    assert seqs(http, log, session_id, before=3) == [1, 2]
    assert seqs(http, log, session_id, after=1, before=4) == [2, 3]
    assert seqs(http, log, session_id, after=4, before=4) == []
    assert seqs(http, log, session_id, limit=2) == [1, 2]
    assert seqs(http, log, session_id, limit=2, order="desc") == [6, 5]
    assert seqs(http, log, session_id, type="a") == [1, 3, 5]
    assert seqs(http, log, session_id, type=["b", "c"]) == [2, 4, 6]
    assert seqs(http, log, session_id, type="b,c") == [2, 4, 6]
    assert seqs(http, log, session_id, type="nothing") == []
    assert seqs(http, log, session_id, type="a", after=1, limit=1, order="desc") == [5]
    assert seqs(http, log, session_id, after=9223372036854775807) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("filters", [{}, {"type": "odd"}, {"type": ["odd", "even"]}, {"agentId": "a b&c"}], ids=str)
def test_the_link_leads_to_the_end(
    http: httpx.Client, session_id: str, log: str, order: str, filters: dict[str, Any]
) -> None:
    for number in range(1, 12):
        post(http, log, session_id, type="odd" if number % 2 else "even")
    query = filters | {"order": order, "limit": 3}
    pages = list(walk(http, http.get(path_of(log, session_id), params=query)))
    found = [entry["seq"] for page in pages for entry in page.json()]
    assert found == seqs(http, log, session_id, **filters, order=order)
    assert len(pages) == max(1, -(-len(found) // 3))


def test_the_link_keeps_both_bounds(http: httpx.Client, session_id: str, log: str) -> None:
    for _ in range(9):
        post(http, log, session_id)
    for order, expected in (("asc", [3, 4, 5, 6, 7]), ("desc", [7, 6, 5, 4, 3])):
        first = http.get(path_of(log, session_id), params={"after": 2, "before": 8, "order": order, "limit": 2})
        assert [entry["seq"] for page in walk(http, first) for entry in page.json()] == expected


def test_a_log_is_cut_at_a_thousand_unless_told_otherwise(http: httpx.Client, session_id: str) -> None:
    line = json.dumps({"type": "action", "sessionId": session_id, "data": {"type": "note"}})
    http.post("/api/events", content="\n".join([line] * 1001), headers={"content-type": "application/x-ndjson"})
    answer = http.get(path_of("action", session_id))
    assert [len(page.json()) for page in walk(http, answer)] == [1000, 1]
    whole = http.get(path_of("action", session_id), params={"limit": 10000})
    assert len(whole.json()) == 1001
    assert "link" not in whole.headers


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "10001"},
        {"limit": "99999999999999999999999"},
        {"limit": "1.5"},
        {"after": "-1"},
        {"after": "x"},
        {"before": "99999999999999999999999"},
        {"order": "sideways"},
    ],
    ids=str,
)
def test_a_log_refuses_bad_parameters(http: httpx.Client, session_id: str, log: str, query: dict[str, str]) -> None:
    post(http, log, session_id)
    assert_problem(http.get(path_of(log, session_id), params=query), 422, f"$.{next(iter(query))}")
