"""What sessions are called, where they ran, and how they are found and grouped by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.layout import unseen
from sessionstore.admin.scrub import pattern, scrub_rows
from sessionstore.model.names import TITLE_LENGTH, UNNAMED, first_sentence, folder_name, repository_name
from tests.databases import Database, drafted
from tests.problems import assert_problem
from tests.wire import NDJSON


@pytest.fixture
def page(http: httpx.Client) -> dict[str, str]:
    """What a browser sends with a write of the page: on an open store that tells a person from a program."""
    return {"Origin": str(http.base_url).rstrip("/")}


def metadata(http: httpx.Client, session_id: str) -> Any:
    return http.get(f"/api/sessions/{session_id}").raise_for_status().json()["metadata"]


def enter(http: httpx.Client, session_id: str, **body: Any) -> Any:
    said = {"userId": "names", **body}
    return http.put(f"/api/sessions/{session_id}", json=said).raise_for_status().json()["metadata"]


def say(http: httpx.Client, session_id: str, headers: Any = None, **members: Any) -> Any:
    answer = http.patch(f"/api/sessions/{session_id}/metadata", json=members, headers=headers)
    assert answer.status_code == 200, answer.text
    return metadata(http, session_id)


def act(http: httpx.Client, session_id: str, **action: Any) -> Any:
    return http.post(f"/api/actions/{session_id}", json=action).raise_for_status().json()


def batch(http: httpx.Client, *events: dict[str, Any]) -> Any:
    body = "".join(json.dumps(event) + "\n" for event in events)
    return http.post("/api/events", content=body, headers={"Content-Type": NDJSON}).raise_for_status().json()


def named(made: dict[str, Any]) -> tuple[Any, Any]:
    return made["title"], made["titleFrom"]


# ------------------------------------------------------------------------- titles


def test_a_session_of_which_nothing_is_known_has_no_name(http: httpx.Client, session_id: str) -> None:
    made = enter(http, session_id)
    assert {name: made[name] for name in UNNAMED} == UNNAMED


def test_the_first_prompt_names_a_session(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="prompt", prompt="<task-notification>done</task-notification>")
    assert named(metadata(http, session_id)) == (None, None)
    act(http, session_id, type="prompt", prompt="Mend the cart. Then run the tests", agentId="worker")
    assert named(metadata(http, session_id)) == (None, None)
    act(http, session_id, type="prompt", prompt="  Mend `cart.py`, e.g. its sum.\nThen run the tests.")
    act(http, session_id, type="prompt", prompt="And the other one")
    assert named(metadata(http, session_id)) == ("Mend `cart.py`, e.g. its sum.", "prompt")


def test_what_a_session_begins_with_is_its_first_prompt(http: httpx.Client, session_id: str) -> None:
    made = enter(http, session_id, initial={"input": "Build a REST API"})
    act(http, session_id, type="prompt", prompt="Another thing")
    assert named(made) == named(metadata(http, session_id)) == ("Build a REST API", "prompt")


def test_a_later_prompt_is_not_the_first(http: httpx.Client, session_id: str, page: dict[str, str]) -> None:
    enter(http, session_id, metadata={"title": "Said"})
    act(http, session_id, type="prompt", prompt="One")
    assert named(say(http, session_id, page, title=None)) == (None, None)
    act(http, session_id, type="prompt", prompt="Two")
    assert named(metadata(http, session_id)) == (None, None)


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Fix cart.py. Then test", "Fix cart.py."),
        ("# Task\nDo it", "Task"),
        ("1. First\n2. Second", "First"),
        ("Go to 3.11. Now", "Go to 3.11. Now"),
        ("Why? Because", "Why?"),
        ("今天天气。很好", "今天天气。"),
        ("\x1b[31mRed\x1b[0m\tand \u202eback", "Red and back"),
        ("   \n", ""),
        (None, ""),
    ],
)
def test_a_first_sentence_is_one(prompt: Any, title: str) -> None:
    assert first_sentence(prompt) == title


def test_a_long_sentence_is_cut() -> None:
    cut = first_sentence("word " * 100)
    assert len(cut) <= TITLE_LENGTH and cut.endswith("…")
    assert first_sentence("x" * TITLE_LENGTH) == "x" * TITLE_LENGTH


def test_a_weaker_title_never_replaces_a_stronger(http: httpx.Client, session_id: str, page: dict[str, str]) -> None:
    act(http, session_id, type="prompt", prompt="By prompt", session_title="By agent")
    assert named(metadata(http, session_id)) == ("By agent", "agent")
    act(http, session_id, type="prompt", prompt="More", session_title="By agent, again")
    assert named(metadata(http, session_id)) == ("By agent, again", "agent")
    assert named(say(http, session_id, title="By caller")) == ("By caller", "caller")
    act(http, session_id, type="prompt", prompt="More", session_title="By agent, late")
    assert named(say(http, session_id, title="Weak", titleFrom="agent")) == ("By caller", "caller")
    assert named(say(http, session_id, page, title="By a person")) == ("By a person", "person")
    assert named(say(http, session_id, title="By caller")) == ("By a person", "person")
    assert named(say(http, session_id, title="Forged", titleFrom="person")) == ("By a person", "person")
    assert named(say(http, session_id, page, title=" ")) == (None, None)


def test_who_gave_a_title_is_not_taken_from_the_body(http: httpx.Client, session_id: str) -> None:
    assert named(enter(http, session_id, metadata={"title": "T", "titleFrom": "person"})) == ("T", "caller")
    for forged in ("robot", 7, None):
        assert named(say(http, session_id, title=f"{forged}", titleFrom=forged)) == (f"{forged}", "caller")
    assert named(say(http, session_id, titleFrom="person")) == ("None", "caller")
    event = http.get(f"/api/sessions/{session_id}/events?type=metadata_updated").json()["items"][0]
    assert event["data"] == {"title": "robot", "titleFrom": "caller"}


def test_a_title_that_is_told_again_is_a_retry(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    once = {"Idempotency-Key": f"title-{session_id}"}
    path, said = f"/api/sessions/{session_id}/metadata", {"title": "T", "titleFrom": "person"}
    answers = [http.patch(path, json=said, headers=once).raise_for_status().json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert_problem(http.patch(path, json={"title": "U"}, headers=once), 422, "$.eventId")


# --------------------------------------------------------------- projects and where


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("https://example.org/team/shop.git", "shop"),
        ("git@example.org:team/shop.git", "shop"),
        ("/srv/git/shop/", "shop"),
        ("", ""),
        (5, ""),
    ],
)
def test_a_repository_has_a_name(repository: Any, name: str) -> None:
    assert repository_name(repository) == name


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/srv/shop", "shop"),
        ("/srv/shop/.claude/worktrees/fix", "shop"),
        ("C:\\work\\shop\\", "shop"),
        ("/", ""),
        (None, ""),
    ],
)
def test_a_folder_has_a_name(folder: Any, name: str) -> None:
    assert folder_name(folder) == name


def test_a_project_is_as_said_else_the_repository_else_the_folder(http: httpx.Client, session_id: str) -> None:
    assert enter(http, session_id, metadata={"cwd": "/srv/first"})["project"] == "first"
    assert say(http, session_id, where={"cwd": "/srv/second"})["project"] == "second"
    where = {"cwd": "/srv/second", "repository": "git@example.org:a/third.git", "branch": "main"}
    made = say(http, session_id, where=where)
    assert (made["project"], made["where"]) == ("third", where)
    assert say(http, session_id, project="said")["project"] == "said"
    assert say(http, session_id, where={"cwd": "/srv/fourth"})["project"] == "said"
    assert say(http, session_id, project=None)["project"] == "fourth"
    assert say(http, session_id, **{"where.branch": "topic"})["where"] == {"cwd": "/srv/fourth", "branch": "topic"}


def test_what_is_of_another_type_is_kept_and_not_used(http: httpx.Client, session_id: str) -> None:
    odd = {"title": 5, "project": ["p"], "pinned": "yes", "where": "here", "asks": 7, "cost": 0.1, "context": {}}
    made = enter(http, session_id, metadata=odd)
    assert {name: made[name] for name in UNNAMED} == UNNAMED
    assert made["given"] == odd
    assert not {"cost", "context"} & made.keys()
    made = say(http, session_id, **{"cost": "+0", "title.x": 1, "pinned": True, "title": "T", "where": None})
    assert (made["title"], made["pinned"], made["where"]) == ("T", True, {})
    assert say(http, session_id, pinned=None)["pinned"] is False


def test_asks_says_how_many_are_open(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    for call in ("one", "two"):
        act(http, session_id, type="tool_call", toolUseId=call, tool="T", attention={"reason": "permission"})
    assert metadata(http, session_id)["asks"] == 2
    path = f"/api/actions/{session_id}/responses"
    http.post(path, json={"type": "tool_result", "toolUseId": "one", "tool": "T"}).raise_for_status()
    assert metadata(http, session_id)["asks"] == 1
    http.post(path, json={"type": "assistant_message", "attention": {"reason": "input"}}).raise_for_status()
    made = metadata(http, session_id)
    assert (made["asks"], made["status"]) == (0, "waiting")


def test_events_give_the_same_names_again(tmp_path: Path, http: httpx.Client, session_id: str) -> None:
    """Of a session with all of it, told to another store by its events."""
    enter(http, session_id, metadata={"where": {"cwd": "/srv/shop", "branch": "main"}, "title": 5})
    act(http, session_id, type="prompt", prompt="Do it. Now")
    say(http, session_id, title="By caller", pinned=True)
    say(http, session_id, {"Origin": str(http.base_url).rstrip("/")}, title="By a person")
    wanted = metadata(http, session_id)
    events = http.get(f"/api/sessions/{session_id}/events?limit=1000").json()["items"]
    again = f"{session_id}-again"
    assert batch(http, *({**event, "sessionId": again} for event in events))["rejected"] == []
    names = ("title", "titleFrom", "project", "projectFrom", "pinned", "where", "given")
    made = metadata(http, again)
    assert {name: made.get(name) for name in names} == {name: wanted.get(name) for name in names}


# --------------------------------------------------------------- filters and groups


@pytest.fixture(scope="module")
def many(http: httpx.Client) -> list[str]:
    """Six sessions of two projects: a pinned one, one that failed, one that waits."""
    names = [f"many-{number}" for number in range(6)]
    for number, name in enumerate(names):
        where = {"cwd": f"/srv/{'shop' if number < 4 else 'blog'}", "host": f"host-{number % 2}", "branch": "main"}
        said = {"where": where, "pinned": number == 5}
        enter(http, name, userId=f"many-{number % 3}", metadata=said, tags=["many", f"tag-{number % 2}"])
    http.post(f"/api/sessions/{names[4]}/finalize", json={"status": "failed"}).raise_for_status()
    act(http, names[0], type="x", attention={"reason": "permission"})
    return names


def listed(http: httpx.Client, **query: Any) -> list[str]:
    items = http.get("/api/sessions", params={"tag": "many", **query}).raise_for_status().json()["items"]
    return [item["sessionId"] for item in items]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [0, 4, 5, 3, 2, 1]),
        ({"project": "shop"}, [0, 3, 2, 1]),
        ({"project": "Shop"}, []),
        ({"host": "host-1"}, [5, 3, 1]),
        ({"branch": "main", "host": "host-0", "project": "blog"}, [4]),
        ({"pinned": "true"}, [5]),
        ({"pinned": "false"}, [0, 4, 3, 2, 1]),
        ({"status": "failed"}, [4]),
        ({"userId": "many-1", "q": "host-0"}, [4]),
        ({"tag": "tag-1"}, [5, 3, 1]),
        ({"since": "2020-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}, [0, 4, 5, 3, 2, 1]),
        ({"since": "2999-01-01T00:00:00Z"}, []),
        ({"until": "2020-01-01T00:00:00Z"}, []),
    ],
    ids=str,
)
def test_sessions_are_found_by_where_they_ran(
    http: httpx.Client, many: list[str], query: dict[str, Any], found: list[int]
) -> None:
    assert listed(http, **query) == [many[number] for number in found]


def test_filters_are_paged(http: httpx.Client, many: list[str]) -> None:
    seen: list[Any] = []
    query: dict[str, Any] = {"project": "shop", "tag": "many", "limit": 1}
    while (page := http.get("/api/sessions", params=query).raise_for_status().json())["nextCursor"] is not None:
        seen += page["items"]
        query["cursor"] = page["nextCursor"]
    assert [item["sessionId"] for item in [*seen, *page["items"]]] == [many[number] for number in (0, 3, 2, 1)]


def grouped(http: httpx.Client, by: str, **query: Any) -> list[tuple[Any, ...]]:
    page = http.get("/api/sessions", params={"tag": "many", "groupBy": by, **query}).raise_for_status().json()
    assert list(page) == ["groups"]
    for group in page["groups"]:
        assert group.pop("costUsd") is None
        assert list(group) == ["key", "sessions", "active", "waiting", "failed", "lost"]
    return [tuple(group.values()) for group in page["groups"]]


def test_groups_begin_with_the_worst(http: httpx.Client, many: list[str]) -> None:
    assert grouped(http, "project") == [("blog", 2, 1, 0, 1, 0), ("shop", 4, 3, 1, 0, 0)]
    assert grouped(http, "user") == [
        ("many-1", 2, 1, 0, 1, 0),
        ("many-0", 2, 1, 1, 0, 0),
        ("many-2", 2, 2, 0, 0, 0),
    ]
    assert grouped(http, "host", project="shop") == [("host-0", 2, 1, 1, 0, 0), ("host-1", 2, 2, 0, 0, 0)]
    assert grouped(http, "branch", pinned="true") == [("main", 1, 1, 0, 0, 0)]
    assert grouped(http, "tag", status="failed") == [("many", 1, 0, 0, 1, 0), ("tag-0", 1, 0, 0, 1, 0)]
    enter(http, "many-nowhere", tags=["lonely"])
    assert grouped(http, "project", tag="lonely") == [(None, 1, 1, 0, 0, 0)]


@pytest.mark.parametrize("query", [{"groupBy": "colour"}, {"pinned": "maybe"}, {"since": "yesterday"}], ids=str)
def test_what_cannot_be_asked_is_refused(http: httpx.Client, query: dict[str, str]) -> None:
    assert_problem(http.get("/api/sessions", params=query), 422, f"$.{next(iter(query))}")


def test_what_a_session_is_found_by_follows_its_metadata(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("session_created", "s", {"initial": {}, "tags": ["a"], "metadata": {"project": "p"}}))
    labels = "SELECT project, branch, is_pinned FROM labels"
    assert database.rows(labels) == [("p", None, 0)]
    said = {"project": 5, "where": {"branch": "b", "host": 7}, "pinned": True, "tags": ["b", "c", "b"]}
    database.append(drafted("metadata_updated", "s", said))
    assert database.rows(labels) == [("p", "b", 1)]
    assert database.rows("SELECT tag FROM tags ORDER BY 1") == [("b",), ("c",)]
    database.append(drafted("session_deleted", "s"))
    assert database.rows("SELECT * FROM labels") == database.rows("SELECT * FROM tags") == []
    database.close()


# -------------------------------------------------------------------------- notes


def noted(http: httpx.Client, session_id: str, **body: Any) -> httpx.Response:
    return http.post(f"/api/sessions/{session_id}/notes", json=body)


def test_a_note_is_an_event_and_no_word_of_the_agent(http: httpx.Client, session_id: str) -> None:
    cursor = act(http, session_id, type="x")["cursor"]
    http.post(f"/api/sessions/{session_id}/finalize", json={}).raise_for_status()
    before = metadata(http, session_id)
    answer = noted(http, session_id, text="Look at this", at=cursor, colour="red").raise_for_status().json()
    assert answer["success"] is True
    event = http.get(f"/api/sessions/{session_id}/events?order=desc&limit=1").json()["items"][0]
    assert (event["type"], event["cursor"]) == ("note_added", answer["cursor"])
    assert event["data"] == {"text": "Look at this", "at": cursor, "colour": "red"}
    after = metadata(http, session_id)
    changed = {"updated": after["updated"], "lastCursor": answer["cursor"]}
    assert after == before | changed and after["status"] == "completed"


def test_a_note_can_be_told_again(http: httpx.Client, session_id: str) -> None:
    act(http, session_id, type="x")
    answers = [noted(http, session_id, text="Once", eventId="note-1").raise_for_status().json() for _ in range(2)]
    assert answers[0] == answers[1]


def test_a_note_that_is_none_is_refused(http: httpx.Client, session_id: str) -> None:
    assert_problem(noted(http, session_id, text="Nobody is there"), 404)
    other = act(http, f"{session_id}-other", type="x")["cursor"]
    act(http, session_id, type="x")
    for body, path in (
        ({}, "$"),
        ({"text": ""}, "$.text"),
        ({"text": "x", "at": 0}, "$.at"),
        ({"text": 5}, "$.text"),
    ):
        assert_problem(noted(http, session_id, **body), 422, path)
    assert_problem(noted(http, session_id, text="x", at=other), 422, "$.at")
    line = {"type": "note_added", "sessionId": session_id, "data": {"text": "x", "at": other}}
    assert batch(http, line)["accepted"] == 1


@pytest.mark.parametrize("begun", [{}, {"input": "INPUT"}, {"input": {"prompt": "INPUT"}}], ids=str)
def test_a_title_has_no_part_of_a_secret_that_was_taken_out(tmp_path: Path, begun: dict[str, Any]) -> None:
    """Though it was cut in the middle of it."""
    database = Database(tmp_path / "sessions.db")
    said = f"{'a ' * 33}password-1234567890-1234567890"
    initial = json.loads(json.dumps(begun).replace("INPUT", said))
    database.append(drafted("session_created", "s", {"initial": initial}))
    database.append(drafted("action", "s", {"type": "prompt", "prompt": said}))
    assert "password-" in json.loads(database.document("s", "metadata"))["title"]
    scrub_rows(database.connection, pattern(r"password-[0-9]{10}-[0-9]{10}"), unseen)
    made = json.loads(database.document("s", "metadata"))
    assert "password" not in made["title"]
    assert (made["title"][:5], made["titleFrom"]) == ("a a a", "prompt")
    database.close()


# ----------------------------------------------------------------- sub-agents' tasks


def hooked(database: Database, name: str, **data: Any) -> Any:
    """An event as the adapter makes it of a hook."""
    event_type = {"call": "action", "result": "response", "start": "agent_spawned"}[name]
    return database.append(drafted(event_type, "s", {"hook_event_name": f"Hook{name}", **data})).event


def call_agent(database: Database, use: str, description: str, kind: str = "Explore") -> None:
    given = {"description": description, "subagent_type": kind}
    hooked(database, "call", type="tool_call", tool="Agent", toolUseId=use, input=given)


def start_agent(database: Database, agent_id: str, kind: str = "Explore", **data: Any) -> Any:
    start = {"hook_event_name": "SubagentStart", "agentId": agent_id, "type": kind, **data}
    database.append(drafted("agent_spawned", "s", start))
    record = json.loads(database.value("SELECT record FROM agents WHERE agent_id = ?", agent_id))
    return record.get("task"), record.get("toolUseId")


def test_a_sub_agent_has_the_task_of_the_oldest_call_that_fits(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    assert start_agent(database, "before") == (None, None)
    call_agent(database, "use-1", "Review cart.py")
    call_agent(database, "use-2", "Plan it", "Plan")
    call_agent(database, "use-3", "Check payments")
    assert start_agent(database, "a") == ("Review cart.py", "use-1")
    assert start_agent(database, "b") == ("Check payments", "use-3")
    assert start_agent(database, "c") == (None, None)
    assert start_agent(database, "d", "Plan", task="Said by itself") == ("Said by itself", "use-2")
    database.close()


def test_a_call_that_is_over_is_of_no_other_agent(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    call_agent(database, "use-1", "Refused")
    hooked(database, "result", type="tool_error", toolUseId="use-1", error="no")
    call_agent(database, "use-2", "Another's")
    hooked(database, "result", type="tool_result", toolUseId="use-2", output={"agentId": "other"})
    call_agent(database, "use-3", "Its own")
    hooked(database, "result", type="tool_result", toolUseId="use-3", output={"agentId": "a"})
    call_agent(database, "use-4", "Still open")
    assert start_agent(database, "a") == ("Its own", "use-3")
    database.close()


# --------------------------------------------------------------------- resumption


def resumed(http: httpx.Client, session_id: str) -> Any:
    return http.get(f"/api/sessions/{session_id}/resume").raise_for_status().json()["state"]


def write(http: httpx.Client, session_id: str, use: str, path: str, kind: str | None = "update") -> None:
    act(http, session_id, type="tool_call", tool="Write", toolUseId=use, input={"file_path": path})
    if kind:
        result = {"type": "tool_result", "toolUseId": use, "output": {"type": kind}}
        http.post(f"/api/actions/{session_id}/responses", json=result).raise_for_status()


def test_a_new_container_is_told_what_the_log_knows(http: httpx.Client, session_id: str) -> None:
    where = {"cwd": "/srv/shop", "branch": "main", "commit": "c0ffee", "repository": "git@example.org:a/shop"}
    enter(http, session_id, metadata={"where": where})
    responses = f"/api/actions/{session_id}/responses"
    write(http, session_id, "1", "/srv/shop/new.py", "create")
    write(http, session_id, "2", "/srv/shop/old.py")
    write(http, session_id, "3", "/srv/shop/new.py")
    write(http, session_id, "4", "/srv/shop/open.py", None)
    act(http, session_id, type="file_edit", path="by-api.py")
    http.post(responses, json={"type": "tool_error", "tool": "Bash", "error": "boom"}).raise_for_status()
    http.post(responses, json={"type": "tool_error", "error": "no", "rejected": True}).raise_for_status()
    http.post(responses, json={"type": "assistant_message", "message": "Half done"}).raise_for_status()
    state = resumed(http, session_id)
    assert state["workspace"] == {
        "cwd": "/srv/shop",
        "filesCreated": ["/srv/shop/new.py"],
        "filesModified": ["/srv/shop/old.py", "by-api.py"],
        "gitStatus": {"repository": where["repository"], "branch": "main", "commit": "c0ffee"},
    }
    assert [(error["type"], error["tool"], error["message"]) for error in state["errors"]] == [
        ("tool_error", "Bash", "boom")
    ]
    assert state["lastAnswer"] == "Half done"
    kept = http.get(f"/api/state/{session_id}").json()
    assert (kept["version"], kept["errors"]) == (state["version"], [])
    assert kept["workspace"]["cwd"] == "/srv/shop"


def test_what_the_agent_itself_said_stays(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id, metadata={"where": {"cwd": "/srv/shop"}})
    said = {"workspace": {"cwd": "/own", "filesModified": ["own.py"]}, "errors": ["own"], "lastAnswer": 1}
    http.patch(f"/api/state/{session_id}", json=said).raise_for_status()
    write(http, session_id, "1", "/srv/shop/new.py", "create")
    state = resumed(http, session_id)
    assert {name: state[name] for name in ("errors", "lastAnswer")} == {"errors": ["own"], "lastAnswer": 1}
    assert state["workspace"] == {
        "cwd": "/own", "filesCreated": ["/srv/shop/new.py"], "filesModified": ["own.py"], "gitStatus": {},
    }  # fmt: skip


@pytest.mark.parametrize("state", [{"workspace": 5, "errors": {}}, {}, {"workspace": []}], ids=str)
def test_a_state_of_another_shape_is_given_as_it_is(http: httpx.Client, session_id: str, state: Any) -> None:
    enter(http, session_id, metadata={"where": 5})
    line = {"type": "state_updated", "sessionId": session_id, "patch": "replace", "data": state}
    assert batch(http, line)["accepted"] == 1
    write(http, session_id, "1", "x.py", "create")
    given = resumed(http, session_id)
    assert given["version"] == 2
    assert given.get("errors") == state.get("errors")
    assert given.get("workspace") == state.get("workspace", {"filesCreated": ["x.py"]})


def test_a_new_state_has_what_old_clients_read(http: httpx.Client, session_id: str) -> None:
    enter(http, session_id)
    state = resumed(http, session_id)
    assert (state, state["workspace"]["cwd"]) == (http.get(f"/api/state/{session_id}").json(), "/workspace")
