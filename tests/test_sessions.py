"""Sessions: how they begin, are listed, change, end, go on, and are deleted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.appliance import Appliance
from tests.peers import eventually
from tests.problems import assert_problem

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
METRICS = ("agentsSpawned", "toolCalls", "mcpCalls", "filesModified", "bashCommands")
BAD_IDS = ("", ".", "..", "a..b", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "a\0", "x" * 129)
BAD_USERS = ("", "a\0b", "a\nb", "\x7f", "x" * 257)
LONG_ID = "L" + "o" * 126 + "g"

# ------------------------------------------------------------------ what is asked


def create(http: httpx.Client, session_id: str, **members: Any) -> Any:
    body = {"sessionId": session_id, "userId": "test-user-alice", "initial": {"input": {"prompt": "Begin"}}} | members
    answer = http.post("/api/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def enter(http: httpx.Client, session_id: str, **members: Any) -> httpx.Response:
    return http.put(f"/api/sessions/{session_id}", json={"userId": "test-user-alice"} | members)


def act(http: httpx.Client, session_id: str, **action: Any) -> Any:
    answer = http.post(f"/api/actions/{session_id}", json={"type": "note"} | action)
    assert answer.status_code == 200, answer.text
    return answer.json()


def respond(http: httpx.Client, session_id: str, **response: Any) -> None:
    answer = http.post(f"/api/actions/{session_id}/responses", json={"type": "note"} | response)
    assert answer.status_code == 200, answer.text


def session(http: httpx.Client, session_id: str) -> Any:
    answer = http.get(f"/api/sessions/{session_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def metadata(http: httpx.Client, session_id: str) -> Any:
    return session(http, session_id)["metadata"]


def set_metadata(http: httpx.Client, session_id: str, members: dict[str, Any]) -> httpx.Response:
    return http.patch(f"/api/sessions/{session_id}/metadata", json=members)


def finalize(http: httpx.Client, session_id: str, **members: Any) -> None:
    answer = http.post(f"/api/sessions/{session_id}/finalize", json=members)
    assert answer.status_code == 200, answer.text


def event_types(http: httpx.Client, session_id: str) -> list[str]:
    return [event["type"] for event in http.get(f"/api/sessions/{session_id}/events").json()["items"]]


def listed(http: httpx.Client, **query: Any) -> list[str]:
    """The ids of all sessions that match, over all pages."""
    return [item["sessionId"] for page in pages(http, **query) for item in page]


def pages(http: httpx.Client, **query: Any) -> Iterator[list[Any]]:
    while True:
        page = http.get("/api/sessions", params=query).json()
        yield page["items"]
        if page["nextCursor"] is None:
            return
        query["cursor"] = page["nextCursor"]


def assert_done(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["success"] is True
    assert type(body["cursor"]) is int and body["cursor"] > 0
    assert isinstance(body["eventId"], str) and body["eventId"]


# ------------------------------------------------------------------------ create


def test_a_new_session_is_answered_with_201_and_its_metadata(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    answer = create(http, session_id)
    assert answer["success"] is True
    assert answer["sessionId"] == session_id
    assert answer["path"] == str(appliance.folder / "sessions" / session_id)
    assert type(answer["cursor"]) is int
    assert isinstance(answer["eventId"], str)
    assert answer["metadata"] == metadata(http, session_id)


def test_new_metadata_has_every_member_of_the_contract(http: httpx.Client, session_id: str) -> None:
    answer = create(http, session_id)
    made = answer["metadata"]
    assert TIME.fullmatch(made["created"]) and TIME.fullmatch(made["updated"])
    expected = {
        "$schema": "session-metadata-v1",
        "sessionId": session_id,
        "userId": "test-user-alice",
        "sandboxId": None,
        "status": "active",
        "model": None,
        "yoloMode": False,
        "tokenUsage": {"input": 0, "output": 0, "total": 0},
        "metrics": dict.fromkeys(METRICS, 0),
        "tags": [],
        "parentSession": None,
        "subsessions": [],
        "phase": "initialization",
        "currentStep": None,
        "attention": None,
        "goals": 0,
        "agents": 0,
        "actions": 0,
        "responses": 0,
        "ended": None,
        "duration": None,
        "resumes": 0,
        "lastCursor": answer["cursor"],
    }
    assert {name: made[name] for name in expected} == expected


def test_model_and_yolo_mode_come_from_the_config(http: httpx.Client, session_id: str) -> None:
    config = {"model": "claude-opus", "dangerouslySkipPermissions": True}
    made = create(http, session_id, initial={"config": config})["metadata"]
    assert (made["model"], made["yoloMode"]) == ("claude-opus", True)


def test_tags_and_metadata_can_be_given_at_the_start(http: httpx.Client, session_id: str) -> None:
    made = create(http, session_id, tags=["night", "ci"], metadata={"cwd": "/src", "tokenUsage.input": 7})["metadata"]
    assert made["tags"] == ["night", "ci"]
    assert made["cwd"] == "/src"
    assert made["tokenUsage"]["input"] == 7


def test_initial_is_what_was_given_and_more(http: httpx.Client, session_id: str) -> None:
    create(http, session_id, initial={"source": "ci", "input": {"prompt": "Begin"}, "extra": [1, None, "ü"]})
    initial = session(http, session_id)["initial"]
    assert TIME.fullmatch(initial.pop("timestamp"))
    assert initial == {
        "$schema": "session-initial-v1",
        "source": "ci",
        "input": {"prompt": "Begin"},
        "config": {},
        "extra": [1, None, "ü"],
    }


def test_creating_a_session_again_just_so_answers_200_and_changes_nothing(http: httpx.Client, session_id: str) -> None:
    first = create(http, session_id, tags=["a"])
    body = {
        "sessionId": session_id,
        "userId": "test-user-alice",
        "initial": {"input": {"prompt": "Begin"}},
        "tags": ["a"],
    }
    again = http.post("/api/sessions", json=body)
    assert again.status_code == 200
    assert again.json() == first
    assert event_types(http, session_id) == ["session_created"]


@pytest.mark.parametrize(
    "other", [{"initial": {}}, {"userId": "test-user-bob"}, {"tags": ["b"]}, {"parentSession": "elsewhere"}], ids=str
)
def test_an_id_that_exists_in_another_way_answers_409(
    http: httpx.Client, session_id: str, other: dict[str, Any]
) -> None:
    create(http, session_id)
    body = {"sessionId": session_id, "userId": "test-user-alice", "initial": {"input": {"prompt": "Begin"}}} | other
    assert_problem(http.post("/api/sessions", json=body), 409)
    assert event_types(http, session_id) == ["session_created"]


@pytest.mark.parametrize("name", ["sessionId", "userId", "initial"])
def test_a_session_with_a_field_missing_answers_400(http: httpx.Client, session_id: str, name: str) -> None:
    body = {"sessionId": session_id, "userId": "test-user-alice", "initial": {}}
    del body[name]
    assert_problem(http.post("/api/sessions", json=body), 400, f"$.{name}")
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("sessionId", value) for value in BAD_IDS],
        *[("userId", value) for value in BAD_USERS],
        *[("parentSession", value) for value in BAD_IDS],
        ("sessionId", 1),
        ("userId", None),
        ("initial", None),
        ("initial", []),
        ("initial", "Begin"),
        ("tags", "night"),
        ("tags", [1]),
        ("metadata", []),
        ("timestamp", "yesterday"),
        ("timestamp", 5),
        ("eventId", "../x"),
    ],
)
def test_a_session_with_a_bad_field_answers_422(http: httpx.Client, session_id: str, name: str, value: object) -> None:
    body = {"sessionId": session_id, "userId": "test-user-alice", "initial": {}} | {name: value}
    answer = http.post("/api/sessions", json=body)
    assert_problem(answer, 422)
    assert answer.json()["errors"][0]["path"].startswith(f"$.{name}")
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


@pytest.mark.parametrize("session_id", ["a", "9", "A.b_c-d", LONG_ID])
def test_every_id_of_the_contract_is_taken(http: httpx.Client, session_id: str) -> None:
    assert create(http, session_id)["sessionId"] == session_id


def test_ids_are_case_sensitive(http: httpx.Client, session_id: str) -> None:
    create(http, f"{session_id}-a", tags=["small"])
    create(http, f"{session_id}-A", tags=["large"])
    assert metadata(http, f"{session_id}-a")["tags"] == ["small"]
    assert metadata(http, f"{session_id}-A")["tags"] == ["large"]


@pytest.mark.parametrize("path", ["", "/resume", "/events"])
@pytest.mark.parametrize("bad", ["a..b", "-a", "%2e%2e", "..%2fetc", "a%00", "a%0a", "%ff", "a%20b", "x" * 129])
def test_a_path_that_names_no_possible_session_answers_404(http: httpx.Client, bad: str, path: str) -> None:
    assert_problem(http.get(f"/api/sessions/{bad}{path}"), 404)


def test_a_path_that_names_no_possible_session_creates_none(http: httpx.Client) -> None:
    assert_problem(http.put("/api/sessions/a..b", json={"userId": "test-user-alice"}), 404)
    assert_problem(http.post("/api/actions/a..b", json={"type": "note"}), 404)


def test_a_body_that_cannot_be_taken_creates_nothing(http: httpx.Client, session_id: str) -> None:
    headers = {"content-type": "application/json"}
    deep = b'{"sessionId":"%s","userId":"u","initial":{"a":%s}}' % (session_id.encode(), b"[" * 70 + b"]" * 70)
    for content in (b"", b"{", b"nonsense", b'{"a": NaN}', b'{"a": 1e999}', b'"\xff"', deep, b"[" * 9999):
        assert_problem(http.post("/api/sessions", content=content, headers=headers), 400)
    for content in (b"[]", b"null", b"1", b'"text"', b'"\\ud800"'):
        assert_problem(http.post("/api/sessions", content=content, headers=headers), 422, "$")
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


def test_json_nested_64_deep_is_taken(http: httpx.Client, session_id: str) -> None:
    deep = json.loads("[" * 62 + "]" * 62)  # inside the object `initial` inside the body
    create(http, session_id, initial={"a": deep})
    assert session(http, session_id)["initial"]["a"] == deep


@pytest.mark.parametrize(
    "media_type",
    ["", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/json; charset=utf-16"],
)
def test_a_body_that_is_not_sent_as_json_answers_415(http: httpx.Client, session_id: str, media_type: str) -> None:
    content = json.dumps({"sessionId": session_id, "userId": "u", "initial": {}})
    headers = {"content-type": media_type} if media_type else {}
    assert_problem(http.post("/api/sessions", content=content.encode(), headers=headers), 415)
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


def test_a_body_over_one_mebibyte_answers_413(http: httpx.Client, session_id: str) -> None:
    body = {"sessionId": session_id, "userId": "test-user-alice", "initial": {"input": "x" * (1 << 20)}}
    assert_problem(http.post("/api/sessions", json=body), 413)
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)


def test_a_wrong_method_answers_405_with_what_is_allowed(http: httpx.Client, session_id: str) -> None:
    answer = http.post(f"/api/sessions/{session_id}", json={})
    assert_problem(answer, 405)
    assert {"GET", "PUT", "DELETE"} <= {method.strip() for method in answer.headers["allow"].split(",")}


def test_nothing_at_a_path_answers_404(http: httpx.Client) -> None:
    assert_problem(http.get("/api/nothing"), 404)


def test_a_session_that_is_not_there_answers_404(http: httpx.Client, session_id: str) -> None:
    at = f"/api/sessions/{session_id}"
    assert_problem(http.get(at), 404)
    assert_problem(http.get(f"{at}/resume"), 404)
    assert_problem(http.get(f"{at}/events"), 404)
    assert_problem(http.patch(f"{at}/metadata", json={"model": "m"}), 404)
    assert_problem(http.post(f"{at}/finalize", json={}), 404)
    assert_problem(http.delete(at), 404)
    assert_problem(http.get(at), 404)


# -------------------------------------------------------------- enter and resume


def test_put_creates_a_session(http: httpx.Client, session_id: str) -> None:
    answer = enter(http, session_id, initial={"input": "first"}, tags=["a"])
    assert answer.status_code == 201
    body = answer.json()
    assert body["success"] is True
    assert body["sessionId"] == session_id
    assert body["metadata"] == metadata(http, session_id)
    assert event_types(http, session_id) == ["session_created"]


def test_put_needs_only_a_user(http: httpx.Client, session_id: str) -> None:
    assert_problem(http.put(f"/api/sessions/{session_id}", json={}), 400, "$.userId")
    assert_problem(http.put(f"/api/sessions/{session_id}", json={"userId": ""}), 422, "$.userId")
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)
    assert enter(http, session_id).status_code == 201


def test_put_resumes_a_session_that_has_ended(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id, initial={"input": "first"}, tags=["a"])
    finalize(http, session_id, status="failed")
    assert session(http, session_id)["final"] is not None

    answer = enter(http, session_id, initial={"input": "second"}, tags=["b"], metadata={"cwd": "/src"})
    assert answer.status_code == 200
    resumed = session(http, session_id)
    assert answer.json()["metadata"] == resumed["metadata"]
    assert resumed["final"] is None
    assert resumed["initial"]["input"] == "first"
    made = resumed["metadata"]
    assert (made["status"], made["ended"], made["duration"], made["resumes"]) == ("active", None, None, 1)
    assert made["tags"] == ["a", "b"]
    assert made["cwd"] == "/src"
    assert event_types(http, session_id) == ["session_created", "session_finalized", "session_resumed"]


def test_a_retry_of_put_is_answered_as_the_first_time(http: httpx.Client, session_id: str) -> None:
    first = enter(http, session_id, eventId="in-1")
    again = enter(http, session_id, eventId="in-1")
    assert (again.status_code, again.json()) == (200, first.json())
    assert enter(http, session_id, eventId="in-2").json()["eventId"] == "in-2"
    assert event_types(http, session_id) == ["session_created", "session_resumed"]


def test_a_session_stays_with_its_user(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    assert enter(http, session_id, userId="test-user-mallory").status_code == 200
    assert metadata(http, session_id)["userId"] == "test-user-alice"


def test_a_first_word_creates_the_session(http: httpx.Client, session_id: str) -> None:
    assert act(http, session_id)["seq"] == 1
    assert event_types(http, session_id) == ["session_created", "action"]
    made = session(http, session_id)
    assert made["metadata"]["userId"] == "unknown"
    assert made["initial"]["$schema"] == "session-initial-v1"


def test_a_first_word_may_say_whose_it_is(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note"}, headers={"X-User-Id": "test-user-bob"})
    assert metadata(http, session_id)["userId"] == "test-user-bob"


def test_a_session_made_by_its_first_word_is_claimed_by_who_enters_it(http: httpx.Client, session_id: str) -> None:
    act(http, session_id)
    config = {"model": "claude-opus", "dangerouslySkipPermissions": True}
    answer = enter(http, session_id, userId="test-user-bob", initial={"config": config}, parentSession="elsewhere")
    assert answer.status_code == 200
    claimed = session(http, session_id)
    made = claimed["metadata"]
    assert (made["userId"], made["model"], made["yoloMode"]) == ("test-user-bob", "claude-opus", True)
    assert made["parentSession"] == "elsewhere"
    assert claimed["initial"]["config"] == config
    assert len(claimed["actions"]) == 1
    assert session_id in [item["sessionId"] for item in http.get("/api/sessions/user/test-user-bob").json()]


def test_a_session_is_claimed_only_once(http: httpx.Client, session_id: str) -> None:
    act(http, session_id)
    enter(http, session_id, userId="test-user-bob", initial={"input": "first"})
    enter(http, session_id, userId="test-user-mallory", initial={"input": "second"})
    claimed = session(http, session_id)
    assert claimed["metadata"]["userId"] == "test-user-bob"
    assert claimed["initial"]["input"] == "first"


def test_without_auto_create_nothing_but_its_creation_makes_a_session(folder: Path) -> None:
    line = json.dumps({"type": "action", "sessionId": "a", "data": {"type": "note"}})
    with (
        Appliance(folder, {"SESSIONS_AUTO_CREATE": "off"}) as appliance,
        httpx.Client(base_url=appliance.url) as http,
    ):
        assert_problem(http.post("/api/actions/a", json={"type": "note"}), 404)
        assert_problem(http.post("/api/actions/a/responses", json={"type": "note"}), 404)
        assert_problem(http.patch("/api/state/a", json={"phase": "x"}), 404)
        assert_problem(http.post("/api/state/a/goals", json={"description": "x"}), 404)
        assert_problem(http.post("/api/state/a/agents", json={"type": "x"}), 404)
        batch = http.post("/api/events", content=line, headers={"content-type": "application/x-ndjson"}).json()
        assert [(bad["line"], bad["status"]) for bad in batch["rejected"]] == [(1, 404)]
        assert_problem(http.get("/api/sessions/a"), 404)
        assert enter(http, "a").status_code == 201
        assert act(http, "a")["seq"] == 1


def test_resume_gives_all_that_an_agent_needs(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    for number in range(1, 26):
        act(http, session_id, number=number)
    respond(http, session_id)
    http.patch(f"/api/state/{session_id}", json={"phase": "implementation"})
    given = http.get(f"/api/sessions/{session_id}/resume").json()
    whole = session(http, session_id)
    assert {name: given[name] for name in ("metadata", "initial", "state")} == {
        name: whole[name] for name in ("metadata", "initial", "state")
    }
    assert given["lastActions"] == whole["actions"][-20:]
    assert [entry["number"] for entry in given["lastActions"]] == list(range(6, 26))
    assert given["lastResponses"] == whole["responses"]


def test_a_session_is_given_with_the_newest_of_its_logs(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    for _ in range(5):
        act(http, session_id)
    respond(http, session_id)
    whole = session(http, session_id)
    assert [entry["seq"] for entry in whole["actions"]] == [1, 2, 3, 4, 5]
    assert "truncated" not in whole
    part = http.get(f"/api/sessions/{session_id}", params={"limit": 2}).json()
    assert [entry["seq"] for entry in part["actions"]] == [4, 5]
    assert [entry["seq"] for entry in part["responses"]] == [1]
    assert part["truncated"] == {"actions": 3, "responses": 0}


def test_a_session_is_given_with_what_the_single_routes_give(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    act(http, session_id, path="src/server.js")
    respond(http, session_id, ok=True)
    whole = session(http, session_id)
    assert whole["actions"] == http.get(f"/api/actions/{session_id}").json()
    assert whole["responses"] == http.get(f"/api/actions/{session_id}/responses").json()
    assert whole["state"] == http.get(f"/api/state/{session_id}").json()
    assert whole["final"] is None


# ------------------------------------------------------------------------- lists


def test_a_parent_knows_its_subsessions(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    create(http, f"{session_id}-1", parentSession=session_id)
    enter(http, f"{session_id}-2", parentSession=session_id)
    assert metadata(http, session_id)["subsessions"] == [f"{session_id}-1", f"{session_id}-2"]
    assert metadata(http, f"{session_id}-1")["parentSession"] == session_id
    assert listed(http, parent=session_id) == [f"{session_id}-2", f"{session_id}-1"]


def test_a_parent_may_come_later(http: httpx.Client, session_id: str) -> None:
    create(http, f"{session_id}-1", parentSession=session_id)
    create(http, session_id)
    assert metadata(http, session_id)["subsessions"] == [f"{session_id}-1"]


def test_the_sessions_of_a_user_are_listed(http: httpx.Client, session_id: str) -> None:
    user = f"{session_id}/Zoë Ω?&#%"
    made = [create(http, f"{session_id}-{n}", userId=user)["metadata"] for n in (1, 2)]
    create(http, f"{session_id}-3", userId="test-user-other")
    found = http.get(f"/api/sessions/user/{httpx.URL('', params={'u': user}).query.decode()[2:].replace('+', '%20')}")
    assert found.status_code == 200
    expected = [{name: item[name] for name in ("sessionId", "userId", "created")} for item in made]
    assert sorted(found.json(), key=lambda item: str(item["sessionId"])) == expected
    assert http.get(f"/api/sessions/user/nobody-{session_id}").json() == []


@pytest.mark.parametrize("user", ["/{}", "{}/", "{}//b", "//{}", "{}%2Fb", "../{}", "{};a,b+c", " {} ", "{}😀"])
def test_a_user_in_a_path_is_to_the_letter(http: httpx.Client, session_id: str, user: str) -> None:
    user = user.format(session_id)
    create(http, f"{session_id}-1", userId=user)
    create(http, f"{session_id}-2", userId=session_id)
    found = http.get(f"/api/sessions/user/{quote(user, safe='')}").json()
    assert [(item["sessionId"], item["userId"]) for item in found] == [(f"{session_id}-1", user)]


def test_sessions_are_listed_with_the_newest_change_first(http: httpx.Client, session_id: str) -> None:
    names = [f"{session_id}-{n}" for n in (1, 2, 3)]
    for name in names:
        create(http, name, tags=[session_id])
    assert listed(http, tag=session_id) == [names[2], names[1], names[0]]
    act(http, names[0])
    assert listed(http, tag=session_id) == [names[0], names[2], names[1]]
    page = http.get("/api/sessions", params={"tag": session_id}).json()
    assert page["items"][0] == metadata(http, names[0])
    assert page["nextCursor"] is None


def test_sessions_are_found_by_each_filter_and_by_all(http: httpx.Client, session_id: str) -> None:
    one, two = f"{session_id}-one", f"{session_id}-two"
    create(http, one, userId=f"{session_id}-user", tags=[session_id, "a"], metadata={"note": f"Grün {session_id}"})
    create(http, two, parentSession=one, tags=[session_id, "b"])
    finalize(http, two)
    both = [two, one]
    assert listed(http, tag=session_id) == both
    assert listed(http, tag=session_id, status="completed") == [two]
    assert listed(http, tag=session_id, status="active") == [one]
    assert listed(http, tag=session_id, status=["active", "completed"]) == both
    assert_problem(http.get("/api/sessions", params={"status": ["active", "asleep"]}), 422, "$.status")
    assert listed(http, userId=f"{session_id}-user") == [one]
    assert listed(http, parent=one) == [two]
    assert listed(http, q=f"grün {session_id}".upper().replace("Ü", "ü")) == [one]
    assert listed(http, q=one) == [two, one]  # as its id, and as a parent
    assert listed(http, tag=session_id, status="completed", userId="test-user-alice", parent=one, q="two") == [two]
    assert listed(http, tag=session_id, status="completed", userId=f"{session_id}-user") == []
    assert listed(http, tag=session_id[:-1] + "%") == []


def test_pages_of_sessions_do_not_overlap(http: httpx.Client, session_id: str) -> None:
    names = [f"{session_id}-{n}" for n in range(7)]
    for name in names:
        create(http, name, tags=[session_id])
    found = list(pages(http, tag=session_id, limit=3))
    assert [len(page) for page in found] == [3, 3, 1]
    assert [item["sessionId"] for page in found for item in page] == names[::-1]


def test_a_page_that_is_just_full_is_the_last(http: httpx.Client, session_id: str) -> None:
    for n in range(4):
        create(http, f"{session_id}-{n}", tags=[session_id])
    assert [len(page) for page in pages(http, tag=session_id, limit=2)] == [2, 2]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "99999999999999999999999"},
        {"limit": "many"},
        {"cursor": "-1"},
        {"cursor": "99999999999999999999999"},
        {"status": "done"},
    ],
    ids=str,
)
def test_a_list_refuses_bad_parameters(http: httpx.Client, query: dict[str, str]) -> None:
    assert_problem(http.get("/api/sessions", params=query), 422, f"$.{next(iter(query))}")


# ---------------------------------------------------------------------- metadata


def test_metadata_takes_members_and_dotted_names(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    members = {"sandboxId": "box-1", "tokenUsage.input": 120, "git.branch.name": "main", "tags": ["a"], "model": "m"}
    assert_done(set_metadata(http, session_id, members))
    made = metadata(http, session_id)
    assert (made["sandboxId"], made["tags"], made["model"]) == ("box-1", ["a"], "m")
    assert made["tokenUsage"] == {"input": 120, "output": 0, "total": 0}
    assert made["git"] == {"branch": {"name": "main"}}
    assert event_types(http, session_id) == ["session_created", "metadata_updated"]


def test_a_plus_adds_to_a_number_only(http: httpx.Client, session_id: str) -> None:
    create(http, session_id, metadata={"price": 1.5, "note": "text"})
    for _ in range(2):
        members = {"tokenUsage.input": "+5", "metrics.toolCalls": "+1", "price": "+2.25", "note": "+3", "new": "+4"}
        assert_done(set_metadata(http, session_id, members))
    made = metadata(http, session_id)
    assert made["tokenUsage"]["input"] == 10
    assert made["metrics"]["toolCalls"] == 2
    assert made["price"] == 6.0
    assert (made["note"], made["new"]) == ("+3", "+4")


def test_metrics_that_callers_add_to_are_still_counted(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    act(http, session_id, type="tool_call")
    assert_done(set_metadata(http, session_id, {"metrics.toolCalls": "+10", "metrics.custom": 3}))
    act(http, session_id, type="tool_call")
    assert metadata(http, session_id)["metrics"] == dict.fromkeys(METRICS, 0) | {"toolCalls": 12, "custom": 3}
    assert_done(set_metadata(http, session_id, {"metrics.toolCalls": 0}))
    act(http, session_id, type="tool_call")
    assert metadata(http, session_id)["metrics"]["toolCalls"] == 1


def test_a_retry_adds_only_once(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    answers = [
        http.patch(
            f"/api/sessions/{session_id}/metadata",
            json={"tokenUsage.input": "+5"},
            headers={"Idempotency-Key": "usage-1"},
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["eventId"] == "usage-1"
    assert metadata(http, session_id)["tokenUsage"]["input"] == 5


BAD_METADATA: tuple[dict[str, Any], ...] = (
    {"userId": "test-user-mallory"},
    {"created": "2020-01-01T00:00:00.000Z"},
    {"actions": 7},
    {"lastCursor": 1},
    {"status": "lost"},
    {"status": "done"},
    {"parentSession": "../x"},
    {"attention": "look"},
    {"tags": "night"},
    {"tags": [1]},
    {"tokenUsage": 5},
    {"metrics": []},
    {"metrics.toolCalls": "many"},
    {"yoloMode": "yes"},
    {"a.b.c.d.e.f.g.h.i": 1},
)


@pytest.mark.parametrize("members", BAD_METADATA, ids=str)
def test_metadata_cannot_become_something_else(http: httpx.Client, session_id: str, members: dict[str, Any]) -> None:
    create(http, session_id)
    before = metadata(http, session_id)
    assert_problem(set_metadata(http, session_id, members | {"note": "not kept either"}), 422)
    assert metadata(http, session_id) == before


@pytest.mark.parametrize(
    "members", [bad for bad in BAD_METADATA if not {"status", "attention", "parentSession"} & {*bad}], ids=str
)
def test_metadata_cannot_begin_as_something_else(http: httpx.Client, session_id: str, members: dict[str, Any]) -> None:
    assert_problem(enter(http, session_id, metadata=members), 422)
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)
    act(http, session_id)
    before = metadata(http, session_id)
    assert_problem(enter(http, session_id, metadata=members), 422)
    assert metadata(http, session_id) == before


def test_metadata_can_end_a_session_and_open_it_again(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    assert_done(set_metadata(http, session_id, {"status": "completed"}))
    made = metadata(http, session_id)
    assert made["status"] == "completed"
    assert TIME.fullmatch(made["ended"]) and type(made["duration"]) is int
    assert_done(set_metadata(http, session_id, {"status": "active"}))
    made = metadata(http, session_id)
    assert (made["status"], made["ended"], made["duration"]) == ("active", None, None)


# ----------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("action", "counted"),
    [
        ({"type": "task_spawn"}, ["agentsSpawned"]),
        ({"type": "tool_call"}, ["toolCalls"]),
        ({"type": "mcp_call"}, ["mcpCalls"]),
        ({"type": "file_write"}, ["filesModified"]),
        ({"type": "file_edit"}, ["filesModified"]),
        ({"type": "bash_exec"}, ["bashCommands"]),
        ({"type": "file_read"}, []),
        ({"type": "tool_call", "tool": "Write"}, ["toolCalls", "filesModified"]),
        ({"type": "tool_call", "tool": "Edit"}, ["toolCalls", "filesModified"]),
        ({"type": "tool_call", "tool": "Bash"}, ["toolCalls", "bashCommands"]),
        ({"type": "tool_call", "tool": "mcp__github__search"}, ["toolCalls", "mcpCalls"]),
        ({"type": "tool_call", "tool": "Read"}, ["toolCalls"]),
        ({"type": "tool_call", "tool": 5}, ["toolCalls"]),
        ({"type": "note", "tool": "Bash"}, []),
    ],
    ids=str,
)
def test_actions_are_counted_by_type(
    http: httpx.Client, session_id: str, action: dict[str, Any], counted: Iterable[str]
) -> None:
    act(http, session_id, **action)
    assert metadata(http, session_id)["metrics"] == dict.fromkeys(METRICS, 0) | dict.fromkeys(counted, 1)


def test_responses_are_not_counted_as_actions(http: httpx.Client, session_id: str) -> None:
    respond(http, session_id, type="tool_call", tool="Bash")
    made = metadata(http, session_id)
    assert made["metrics"] == dict.fromkeys(METRICS, 0)
    assert (made["actions"], made["responses"]) == (0, 1)


def test_every_spawned_agent_is_counted(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    http.post(f"/api/state/{session_id}/agents", json={"type": "backend-dev"})
    act(http, session_id, type="task_spawn")
    made = metadata(http, session_id)
    assert made["metrics"]["agentsSpawned"] == 2
    assert made["agents"] == 1


def test_metadata_follows_the_state(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    http.patch(f"/api/state/{session_id}", json={"phase": "implementation", "currentStep": "write"})
    http.post(f"/api/state/{session_id}/goals", json={"description": "Build REST API"})
    made = metadata(http, session_id)
    assert (made["phase"], made["currentStep"], made["goals"]) == ("implementation", "write", 1)
    http.patch(f"/api/state/{session_id}", json={"phase": {"not": "text"}, "currentStep": 5})
    made = metadata(http, session_id)
    assert made["phase"] is None
    assert made["currentStep"] is None


# ----------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, "completed", "success"),
        ({"status": "success"}, "completed", "success"),
        ({"status": "failed"}, "failed", "failed"),
        ({"status": "cancelled"}, "cancelled", "cancelled"),
    ],
    ids=str,
)
def test_finalizing_ends_a_session(
    http: httpx.Client, session_id: str, body: dict[str, Any], status: str, said: str
) -> None:
    create(http, session_id)
    assert_done(http.post(f"/api/sessions/{session_id}/finalize", json=body))
    ended = session(http, session_id)
    assert ended["metadata"]["status"] == status
    assert TIME.fullmatch(ended["metadata"]["ended"])
    assert type(ended["metadata"]["duration"]) is int and ended["metadata"]["duration"] >= 0
    assert ended["final"]["status"] == said


def test_final_has_every_member_of_the_contract(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    create(http, f"{session_id}-child", parentSession=session_id)
    act(http, session_id, type="bash_exec")
    for number, status in enumerate(("completed", "pending"), 1):
        http.post(f"/api/state/{session_id}/goals", json={"description": f"{number}", "status": status})
    finalize(http, session_id, outcome={"merged": True}, response="Done.", exitCode=0)
    final, state = (session(http, session_id)[name] for name in ("final", "state"))
    assert TIME.fullmatch(final["timestamp"])
    assert (state["goals"][0]["status"], state["goals"][0]["description"]) == ("completed", "1")
    expected = {
        "$schema": "session-final-v1",
        "status": "success",
        "outcome": {"merged": True},
        "goalsAchieved": state["goals"][:1],
        "finalResponse": "Done.",
        "exitCode": 0,
        "metrics": dict.fromkeys(METRICS, 0) | {"bashCommands": 1},
        "subsessions": [f"{session_id}-child"],
    }
    assert {name: final[name] for name in expected} == expected


def test_a_session_can_be_finalized_with_no_body_at_all(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    assert_done(http.post(f"/api/sessions/{session_id}/finalize"))
    assert session(http, session_id)["final"]["status"] == "success"


@pytest.mark.parametrize("body", [{"status": "completed"}, {"status": 1}, {"exitCode": "0"}], ids=str)
def test_a_bad_end_answers_422(http: httpx.Client, session_id: str, body: dict[str, Any]) -> None:
    create(http, session_id)
    assert_problem(http.post(f"/api/sessions/{session_id}/finalize", json=body), 422, f"$.{next(iter(body))}")
    assert metadata(http, session_id)["status"] == "active"


def test_duration_is_measured_by_the_callers_clock(http: httpx.Client, session_id: str) -> None:
    create(http, session_id, timestamp="2026-02-13T20:00:00Z")
    finalize(http, session_id, timestamp="2026-02-13T21:00:01.5+00:00")
    made = metadata(http, session_id)
    assert (made["created"], made["ended"]) == ("2026-02-13T20:00:00.000Z", "2026-02-13T21:00:01.500Z")
    assert made["duration"] == 3_601_500


BEFORE, END, AFTER = (f"2026-02-13T21:00:0{second}.000Z" for second in (1, 2, 3))


def test_words_of_before_the_end_are_kept_and_do_not_reopen(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    finalize(http, session_id, timestamp=END)
    final = session(http, session_id)["final"]
    act(http, session_id, type="prompt", timestamp=BEFORE)
    respond(http, session_id, timestamp=END)
    earlier = {"X-Timestamp": BEFORE}
    http.patch(f"/api/state/{session_id}", json={"phase": "afterwards"}, headers=earlier)
    http.post(f"/api/state/{session_id}/goals", json={"description": "late"}, headers=earlier)
    set_metadata(http, session_id, {"note": "late"})
    after = session(http, session_id)
    assert after["metadata"]["status"] == "completed"
    assert after["final"] == final
    assert len(after["actions"]) == len(after["responses"]) == 1
    assert (after["state"]["phase"], after["metadata"]["note"]) == ("afterwards", "late")


Words = dict[str, list[dict[str, Any]]]
WORDS: Words = {
    "actions": [{"type": "prompt", "prompt": "more"}, {"type": "tool_call", "agentId": "a1"}, {"type": "own-kind"}],
    "actions/{}/responses": [{"type": "assistant_message", "message": "more"}, {"type": "own-kind"}],
    "state/{}/goals": [{"description": "more"}],
    "state/{}/agents": [{"type": "worker"}],
}
NO_WORDS: Words = {
    "actions": [{"type": "permission_denied"}, {"type": "elicitation_result", "attention": None}],
    "actions/{}/responses": [{"type": kind} for kind in ("tool_result", "tool_error", "graph_end", "model_error")],
    "state/{}/agents/a1/complete": [{}],
}  # fmt: skip


def addressed(words: Words) -> list[tuple[str, dict[str, Any]]]:
    named = ((path if "{}" in path else f"{path}/{{}}", bodies) for path, bodies in words.items())
    return [(f"/api/{path}", body) for path, bodies in named for body in bodies]


def ended_with_an_agent(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    http.post(f"/api/state/{session_id}/agents", json={"type": "worker", "agentId": "a1", "timestamp": BEFORE})
    finalize(http, session_id, timestamp=END)


@pytest.mark.parametrize(("path", "body"), addressed(WORDS), ids=str)
def test_a_later_word_brings_an_ended_session_back(
    http: httpx.Client, session_id: str, path: str, body: dict[str, Any]
) -> None:
    ended_with_an_agent(http, session_id)
    final = session(http, session_id)["final"]
    http.post(path.format(session_id), json=body | {"timestamp": AFTER}).raise_for_status()
    after = session(http, session_id)
    assert (after["metadata"]["status"], after["metadata"]["ended"]) == ("active", None)
    assert after["final"] == final, "until the next end"
    finalize(http, session_id, status="failed")
    assert session(http, session_id)["final"]["status"] == "failed"


@pytest.mark.parametrize(("path", "body"), addressed(NO_WORDS), ids=str)
def test_what_closes_what_was_open_leaves_an_end(
    http: httpx.Client, session_id: str, path: str, body: dict[str, Any]
) -> None:
    ended_with_an_agent(http, session_id)
    http.post(path.format(session_id), json=body | {"timestamp": AFTER}).raise_for_status()
    assert metadata(http, session_id)["status"] == "completed"
    assert metadata(http, session_id)["ended"] == END


def test_a_later_word_that_asks_has_an_ended_session_wait(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    finalize(http, session_id, timestamp=END)
    respond(http, session_id, type="error", timestamp=AFTER, attention={"reason": "input", "message": "Log in"})
    made = metadata(http, session_id)
    assert (made["status"], made["attention"]["message"], made["ended"]) == ("waiting", "Log in", None)


def test_what_others_say_of_an_ended_session_leaves_it_ended(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    finalize(http, session_id, timestamp=END)
    asks = {"attention": {"reason": "permission", "message": "May I?"}, "note": "seen"}
    http.patch(f"/api/sessions/{session_id}/metadata", json=asks, headers={"X-Timestamp": AFTER}).raise_for_status()
    assert (metadata(http, session_id)["status"], metadata(http, session_id)["attention"]) == ("completed", None)


def test_a_retry_of_the_end_is_answered_as_the_first_time(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    first, again = (
        http.post(f"/api/sessions/{session_id}/finalize", json={"eventId": "end", "status": "failed"}) for _ in "12"
    )
    assert (again.status_code, again.json()) == (200, first.json())
    other = http.post(f"/api/sessions/{session_id}/finalize", json={"eventId": "end", "status": "success"})
    assert_problem(other, 422, "$.eventId")
    assert metadata(http, session_id)["status"] == "failed"


# ------------------------------------------------------------- waiting and lost


def test_a_session_that_asks_for_a_person_waits(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    assert_done(set_metadata(http, session_id, {"attention": {"reason": "permission", "message": "May I?"}}))
    made = metadata(http, session_id)
    assert made["status"] == "waiting"
    assert made["attention"]["reason"] == "permission"
    assert made["attention"]["message"] == "May I?"
    assert TIME.fullmatch(made["attention"]["since"])
    assert_done(set_metadata(http, session_id, {"attention": None}))
    made = metadata(http, session_id)
    assert (made["status"], made["attention"]) == ("active", None)


def test_a_session_that_is_said_to_wait_has_attention(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    assert_done(set_metadata(http, session_id, {"status": "waiting"}))
    made = metadata(http, session_id)
    assert made["status"] == "waiting"
    assert {type(made["attention"][name]) for name in ("reason", "message", "since")} == {str}


def test_an_action_can_ask_for_a_person_and_a_prompt_answers(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="permission_request", attention={"reason": "permission", "message": "May I?"})
    assert metadata(http, session_id)["status"] == "waiting"
    act(http, session_id, type="note")
    assert metadata(http, session_id)["status"] == "waiting"
    act(http, session_id, type="prompt", text="Yes")
    made = metadata(http, session_id)
    assert (made["status"], made["attention"]) == ("active", None)


def test_a_session_that_waits_ends_with_nobody_to_wait_for(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    set_metadata(http, session_id, {"attention": {"reason": "input", "message": "?"}})
    finalize(http, session_id)
    made = metadata(http, session_id)
    assert (made["status"], made["attention"]) == ("completed", None)


def test_a_silent_session_is_lost_until_its_next_word(folder: Path) -> None:
    with (
        Appliance(folder, {"SESSIONS_LOST_AFTER": "0.2"}) as appliance,
        httpx.Client(base_url=appliance.url) as http,
    ):
        create(http, "silent")
        create(http, "ended")
        create(http, "waiting")
        finalize(http, "ended")
        set_metadata(http, "waiting", {"attention": {"reason": "input", "message": "?"}})
        eventually(lambda: metadata(http, "silent")["status"] == "lost")
        statuses = {name: metadata(http, name)["status"] for name in ("silent", "ended", "waiting")}
        assert statuses == {"silent": "lost", "ended": "completed", "waiting": "waiting"}
        assert event_types(http, "silent") == ["session_created", "session_lost"]
        eventually(lambda: act(http, "silent") and metadata(http, "silent")["status"] == "active")


# ------------------------------------------------------------------------ delete


def test_a_deleted_session_is_gone_from_everywhere(http: httpx.Client, session_id: str) -> None:
    user, word = f"{session_id}-user", f"needle{session_id}".replace("-", "")
    create(http, session_id, userId=user)
    act(http, session_id, text=word)
    assert len(http.get("/api/query/search", params={"q": word}).json()["items"]) == 1
    before = http.get("/api/query/stats").json()

    assert_done(http.delete(f"/api/sessions/{session_id}"))
    at = f"/api/sessions/{session_id}"
    for path in (at, f"{at}/resume", f"{at}/events", f"/api/actions/{session_id}", f"/api/state/{session_id}"):
        assert_problem(http.get(path), 404)
    assert_problem(http.delete(at), 404)
    assert listed(http, userId=user) == []
    assert http.get(f"/api/sessions/user/{user}").json() == []
    assert session_id not in [item["sessionId"] for item in http.get("/api/query/recent?limit=500").json()]
    assert session_id not in [item["sessionId"] for item in http.get("/api/query/active").json()]
    assert http.get("/api/query/search", params={"q": word}).json()["items"] == []
    left = http.get("/api/events", params={"sessionId": session_id}).json()["items"]
    assert [event["type"] for event in left] == ["session_deleted"]
    after = http.get("/api/query/stats").json()
    assert (after["total"], after["users"]) == (before["total"] - 1, before["users"] - 1)


def test_the_id_of_a_deleted_session_can_be_used_afresh(http: httpx.Client, session_id: str) -> None:
    create(http, session_id, tags=["old"], eventId="creation")
    cursors = [act(http, session_id, eventId="one", text="old")["cursor"]]
    cursors.append(http.delete(f"/api/sessions/{session_id}").json()["cursor"])
    made = create(http, session_id, userId="test-user-bob", eventId="creation")
    assert made["metadata"]["tags"] == []
    again = act(http, session_id, eventId="one", text="new")
    assert again["seq"] == 1
    assert min(made["cursor"], again["cursor"]) > max(cursors)
    assert event_types(http, session_id) == ["session_created", "action"]
    assert [entry["text"] for entry in http.get(f"/api/actions/{session_id}").json()] == ["new"]


def test_subsessions_outlive_their_parent(http: httpx.Client, session_id: str) -> None:
    child = f"{session_id}-child"
    create(http, session_id)
    create(http, child, parentSession=session_id)
    act(http, child)
    assert_done(http.delete(f"/api/sessions/{session_id}"))
    kept = session(http, child)
    assert len(kept["actions"]) == 1
    assert kept["metadata"]["parentSession"] == session_id


def test_a_deleted_subsession_leaves_its_parents_list(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    create(http, f"{session_id}-child", parentSession=session_id)
    http.delete(f"/api/sessions/{session_id}-child")
    assert metadata(http, session_id)["subsessions"] == []


def test_a_big_session_is_deleted_at_once_as_seen_from_outside(http: httpx.Client, session_id: str) -> None:
    size, neighbour = 20_000, f"{session_id}-neighbour"
    line = {"type": "action", "sessionId": session_id, "data": {"type": "note", "text": "big"}}
    batch = http.post(
        "/api/events",
        content="\n".join([json.dumps(line)] * size),
        headers={"content-type": "application/x-ndjson"},
    ).json()
    assert batch["accepted"] == size
    last = act(http, neighbour)["cursor"]
    begin = batch["cursor"] - size - 1

    assert_done(http.delete(f"/api/sessions/{session_id}"))
    assert_problem(http.get(f"/api/sessions/{session_id}"), 404)
    found, after = [], begin
    while after < last:
        page = http.get("/api/events", params={"after": after, "limit": 1000}).json()
        found += [(event["sessionId"], event["type"]) for event in page["items"]]
        after = page["nextAfter"]
    assert found[:2] == [(neighbour, "session_created"), (neighbour, "action")]
    assert (session_id, "action") not in found

    assert act(http, session_id)["seq"] == 1
    stats = http.get("/api/query/stats").json()
    assert stats["actions"] < size


def test_a_retry_of_a_deletion_does_not_delete_what_came_after(http: httpx.Client, session_id: str) -> None:
    create(http, session_id)
    headers = {"Idempotency-Key": "gone"}
    first = http.delete(f"/api/sessions/{session_id}", headers=headers)
    assert_done(first)
    assert http.delete(f"/api/sessions/{session_id}", headers=headers).json() == first.json()
    create(http, session_id)
    assert http.delete(f"/api/sessions/{session_id}", headers=headers).json() == first.json()
    assert event_types(http, session_id) == ["session_created"]


# ------------------------------------------------------------------------ times that cannot be


ABSURD = ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "2099-01-01T00:00:00+01:00", "9999-12-31T23:59:59Z")


@pytest.mark.parametrize("told", ABSURD)
def test_a_session_did_not_begin_in_a_year_that_cannot_be(http: httpx.Client, session_id: str, told: str) -> None:
    """Nor did it end then: the store's own time counts. An entry keeps what it was told."""
    body = {"sessionId": session_id, "userId": "alice", "initial": {}, "timestamp": told}
    assert http.post("/api/sessions", json=body).json() == http.post("/api/sessions", json=body).json()
    entry = {"type": "x", "timestamp": told}
    assert http.post(f"/api/actions/{session_id}", json=entry).status_code == 200
    assert http.post(f"/api/actions/{session_id}-b", json=entry).status_code == 200
    assert http.post(f"/api/sessions/{session_id}/finalize", json={"timestamp": told}).status_code == 200
    now = datetime.now(UTC)
    for session in (session_id, f"{session_id}-b"):
        found = http.get(f"/api/sessions/{session}").json()
        times = [found["metadata"][name] for name in ("created", "ended") if found["metadata"][name]]
        assert all(abs(now - datetime.fromisoformat(time)) < timedelta(minutes=5) for time in times)
        assert found["actions"][0]["timestamp"] == told
    (first,) = http.get(f"/api/sessions/{session_id}/events?type=action").json()["items"]
    assert datetime.fromisoformat(first["timestamp"]) == datetime.fromisoformat(told)


def test_a_time_that_can_be_is_kept(http: httpx.Client, session_id: str) -> None:
    """From 1970 on, and of a clock that is less than a day ahead."""
    ahead = (datetime.now(UTC) + timedelta(hours=23)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for number, told in enumerate(("1970-01-01T00:00:00.000Z", "2001-02-03T04:05:06.789Z", ahead)):
        session = f"{session_id}-{number}"
        http.put(f"/api/sessions/{session}", json={"userId": "alice", "timestamp": told}).raise_for_status()
        assert http.get(f"/api/sessions/{session}").json()["metadata"]["created"] == told
