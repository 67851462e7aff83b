"""The usage ledger: each request once, as its best source tells it, and what it cost."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from itertools import count, permutations
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.prices import MEMBERS, Prices, TokenCounts, own_prices
from sessionstore.settings import BadSetting, read_settings
from sessionstore.store.changes import MOST_LOOKS, Left, hunks_of
from sessionstore.store.schema import open_writer
from tests.appliance import Appliance, ServerError
from tests.test_events import batch, events_of, line

SONNET = "claude-sonnet-4-5-20250929"
numbers = count(1)


@pytest.fixture
def session() -> str:
    return f"spends-{next(numbers)}"


def report(session_id: str, event_id: str | None = None, **data: Any) -> Any:
    named = {} if event_id is None else {"eventId": event_id}
    return line(session_id, "usage_reported", data=data, userId="ann", **named)


def usage_of(http: httpx.Client, session_id: str) -> Any:
    answer = http.get(f"/api/sessions/{session_id}/usage")
    assert answer.status_code == 200, answer.text
    return answer.json()


def metadata_of(http: httpx.Client, session_id: str) -> Any:
    return http.get(f"/api/sessions/{session_id}").json()["metadata"]


def total_of(http: httpx.Client, session_id: str) -> Any:
    total = usage_of(http, session_id)["total"]
    return total["requests"], total["totalTokens"], total["costUsd"], total["unpricedRequests"]


# --------------------------------------------------------------- what came of it


def called(session_id: str, use: str, tool: str, given: Any, /, **outcome: Any) -> list[Any]:
    """A call of a tool and its result; without an outcome it has none."""
    data = {"type": "tool_call", "tool": tool, "toolUseId": use, "input": given}
    kind = "tool_error" if "error" in outcome else "tool_result"
    result = {"type": kind, "tool": tool, "toolUseId": use, "durationMs": 7} | outcome
    return [line(session_id, data=data), *([line(session_id, "response", data=result)] if outcome else [])]


def came_of(http: httpx.Client, session_id: str, *calls: list[Any]) -> Any:
    assert batch(http, *(each for call in calls for each in call))["rejected"] == []
    answer = http.get(f"/api/sessions/{session_id}/changes")
    assert answer.status_code == 200, answer.text
    return answer.json()


def swap(old: str, new: str, path: str = "/a/b.py", **more: Any) -> dict[str, Any]:
    return {"file_path": path, "old_string": old, "new_string": new, **more}


def test_edits_of_a_file_are_told_by_what_they_come_to(http: httpx.Client, session: str) -> None:
    text = "".join(f"line {number}\n" for number in range(40)) + "x\n"
    calls = [
        called(session, "u1", "Edit", swap("line 9", "$&"), output={"originalFile": text}),
        called(session, "u2", "Edit", swap("x", "y"), output={"originalFile": text.replace("line 9", "$&")}),
        called(session, "u3", "Edit", swap("$&", "line 9"), output={}),  # how it was is known from the edits before
        called(session, "u4", "Edit", swap("y", "z"), error="String to replace not found"),
        called(session, "u5", "Edit", swap("y", "z"), error="The user doesn't want to proceed"),
        called(session, "u6", "Edit", swap("y", "z")),  # no result came
        called(session, "u7", "Write", {"file_path": "/a/new.py", "content": "1\n2\n"}, output={"type": "create"}),
        called(session, "u8", "Edit", swap("no", "one\ntwo", "/c.py"), output={}),
        called(session, "u9", "NotebookEdit", {"notebook_path": "/n.ipynb", "new_source": "s"}, output="done"),
    ]
    calls.append([line(session, data={"type": "file_write", "path": "/w"})])  # which does not say what it wrote
    files = {file["path"]: file for file in came_of(http, session, *calls)["files"]}
    assert list(files) == sorted(files)
    whole = files["/a/b.py"]
    assert (whole["added"], whole["removed"], whole["edits"], whole["failed"], whole["isNet"]) == (1, 1, 3, 1, True)
    (hunk,) = whole["hunks"]
    assert hunk["lines"] == [" line 37", " line 38", " line 39", "-x", "+y"]
    assert (hunk["oldStart"], hunk["oldLines"], hunk["newStart"], hunk["newLines"]) == (38, 4, 38, 4)
    new = files["/a/new.py"]
    assert (new["isNew"], new["added"], new["removed"], new["hunks"][0]["lines"]) == (True, 2, 0, ["+1", "+2"])
    guessed = files["/c.py"]  # where it is not known how it was, each edit counts
    assert (guessed["isNet"], guessed["added"], guessed["removed"], guessed["unknown"]) == (False, 2, 1, 0)
    for path in ("/n.ipynb", "/w"):
        assert (files[path]["edits"], files[path]["unknown"], files[path]["hunks"]) == (1, 1, [])


def test_a_call_that_was_told_twice_is_one_and_ids_may_restart(http: httpx.Client, session: str) -> None:
    edit, told = swap("x", "y"), {"originalFile": "x\n"}
    again = called(session, "u1", "Edit", swap("y", "x"), output={"originalFile": "y\n"})
    first = called(session, "u1", "Edit", edit, output=told)
    (file,) = came_of(http, session, first[:1], first, again)["files"]
    assert (file["edits"], file["added"], file["removed"], file["hunks"]) == (2, 0, 0, [])


def test_tests_commits_and_pull_requests_are_known_by_their_commands(http: httpx.Client, session: str) -> None:
    def ran(use: str, command: str, output: str, **more: Any) -> list[Any]:
        return called(session, use, "Bash", {"command": command}, **({"output": {"stdout": output}} | more))

    found = came_of(
        http,
        session,
        ran("u1", "cd x && npm run test:unit", "== 3 passed, 1 failed in 2 s ==", error="Exit code 1\n1 failed"),
        ran("u2", "cat tests/test_a.py", "9 passed"),
        ran("u3", "git commit -m x", "[main 1234abc] Say it\n 1 file changed"),
        ran("u4", "echo '[main 1234abc] no'", "[main 1234abc] no"),
        ran("u5", "gh pr create", "https://github.com/a/b/pull/7\n"),
    )
    tests = found["tests"]
    assert (tests["command"], tests["status"], tests["durationMs"]) == ("cd x && npm run test:unit", "failed", 7)
    assert tests["verdict"] == "1 failed" and tests["cursor"] == events_of(http, session)[1]["cursor"]
    assert [each["text"] for each in found["commits"]] == ["1234abc Say it"]
    assert [each["text"] for each in found["pullRequests"]] == ["https://github.com/a/b/pull/7"]


def test_of_very_much_that_commands_print_the_newest_is_read(http: httpx.Client, session: str) -> None:
    def committed(use: str, number: str) -> list[Any]:
        return called(session, use, "Bash", {"command": "git commit"}, output={"stdout": f"[main {number}] Say it"})

    ran = [
        called(session, f"v{number}", "Bash", {"command": "git " * 500}, output="x" * 12_000) for number in range(700)
    ]
    found = came_of(http, session, committed("u1", "1234abc"), *ran, committed("u2", "abc1234"))
    assert [each["text"] for each in found["commits"]] == ["abc1234 Say it"]


def test_nothing_came_of_most_sessions(http: httpx.Client, session: str) -> None:
    nothing: Any = {"files": [], "tests": None, "commits": [], "pullRequests": []}
    assert came_of(http, session, [line(session)]) == nothing
    assert http.get("/api/sessions/nobody/changes").status_code == 404


@pytest.mark.parametrize("output", [None, "text", 7, [], {"structuredPatch": [{"lines": 7}]}, {"originalFile": 7}])
def test_what_tools_say_of_edits_may_be_anything(http: httpx.Client, session: str, output: Any) -> None:
    calls = [
        called(session, f"u{place}", tool, given, output=output)
        for place, tool in enumerate(("Edit", "MultiEdit", "Write", "NotebookEdit", "Bash"))
        for given in ({"file_path": "/a", "edits": [7, {"new_string": 1}], "content": {}, "command": []},)
    ]
    (file,) = came_of(http, session, *calls, called(session, "v", "Edit", "text", output=output))["files"]
    assert file["edits"] == 4 and file["path"] == "/a"


def test_what_is_too_long_to_compare_is_all_out_and_all_in() -> None:
    before, after = "\n".join("ab" * 2000), "\n".join("ba" * 2000)
    (hunk,) = hunks_of(f"first\n{before}\nlast", f"first\n{after}\nlast", Left())
    assert (len(hunk["lines"]), hunk["lines"][0], hunk["oldStart"]) == (8000 + 4, "-first", 1)
    blank = "\n" * 9000
    (hunk,) = hunks_of(f"{blank}a{blank}b", f"{blank}a{blank}c", Left())  # lines in which nothing is are no pairs
    assert hunk["lines"] == [" ", " ", " ", "-b", "+c"]


def test_comparing_ends_where_each_line_is_found_alone() -> None:
    """With no equal line beside an equal one, all others are looked through for each: 20,000 took minutes."""
    before, after = ("\n".join(f"{name}{n}\nx{n}" for n in range(4_000)) for name in "ab")
    left = Left()
    hunks = [*hunks_of(before, after, left)]
    assert -MOST_LOOKS < left.looks < 0
    lines = [text for hunk in hunks for text in hunk["lines"]]
    assert [text[1:] for text in lines if text[0] != "+"] == before.split("\n")
    assert [text[1:] for text in lines if text[0] != "-"] == after.split("\n")
    ordinary = Left()
    text = [f"line {number}" for number in range(3_000)]
    changed = [f"{line}!" if number % 100 == 50 else line for number, line in enumerate(text)]
    assert len([*hunks_of("\n".join(text), "\n".join(changed), ordinary)]) == 30
    assert ordinary.looks > 0


def test_what_edits_come_to_is_not_followed_beyond_all_bounds(http: httpx.Client, session: str) -> None:
    """Each makes the file ten thousand times as long: the third would have made it a terabyte."""
    calls = [called(session, "w", "Write", {"file_path": "/a/b.py", "content": "a"}, output={"type": "create"})]
    grows = swap("a", "a" * 10_000, replace_all=True)
    calls += [called(session, use, "Edit", grows, output="done") for use in "xyz"]
    (file,) = came_of(http, session, *calls)["files"]
    assert (file["edits"], file["isNew"], file["isNet"]) == (4, True, False)
    assert len(file["hunks"]) == 4, "of each edit, as it says itself"
    (file,) = came_of(
        http, f"{session}-2", *[[{**line, "sessionId": f"{session}-2"} for line in call] for call in calls[:2]]
    )["files"]
    assert (file["isNet"], len(file["hunks"][0]["lines"][0])) == (True, 10_001)


# ------------------------------------------------------------------------ prices


def priced(*tokens: int, model: str = SONNET, provider: str | None = None, speed: str | None = None) -> float | None:
    at = "2026-11-01T12:00:00.000Z"
    return Prices().of(TokenCounts(*tokens), model, provider=provider, at=at, speed=speed).usd


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        (SONNET, None),
        ("claude-sonnet-4-5", "anthropic"),
        ("claude-sonnet-4-5[1m]", None),
        ("anthropic/claude-sonnet-4-5", None),
        ("openrouter/anthropic/claude-sonnet-4.5", None),
        ("claude-sonnet-4-5@20250929", "vertex_ai"),
        ("claude-sonnet-4-5", "a-gateway-that-nobody-knows"),
    ],
)
def test_a_model_is_known_by_what_gateways_call_it(model: str, provider: str | None) -> None:
    assert priced(1000, 100, model=model, provider=provider) == pytest.approx(1000 * 3e-6 + 100 * 15e-6)


@pytest.mark.parametrize("model", ["model-x", "claude-sonnet-9", "<other>", "x" * 500, "gpt", "a.b.c/d", "🦜"])
def test_what_no_table_knows_is_unpriced_and_not_free(model: str) -> None:
    assert priced(1000, 100, model=model) is None
    assert priced(0, 0, model=model) == 0


def test_each_kind_of_token_has_its_price() -> None:
    one = 1000
    assert priced(one) == pytest.approx(one * 3e-6)
    assert priced(0, one) == pytest.approx(one * 15e-6)
    assert priced(0, 0, one) == pytest.approx(one * 0.3e-6)
    assert priced(0, 0, 0, one) == pytest.approx(one * 3.75e-6), "kept for five minutes"
    assert priced(0, 0, 0, 0, one) == pytest.approx(one * 6e-6), "kept for an hour"
    long = priced(300_000) or 0
    assert long > 300_000 * 3e-6, "a long prompt costs more a token, so requests are priced one by one"


def test_a_sum_that_may_be_of_long_prompts_is_unpriced() -> None:
    report = {"source": "otlp_metrics", "model": SONNET, "inputTokens": 150_000}
    at = "2026-11-01T12:00:00.000Z"
    assert Prices().members(report, at)["costUsd"] == pytest.approx(150_000 * 3e-6)
    report |= {"inputTokens": 300_000}
    assert Prices().members(report, at) == {"costFrom": "unpriced"}
    assert Prices().members(report | {"source": "otlp_spans"}, at)["costUsd"] > 300_000 * 3e-6


def test_what_is_sent_fast_costs_what_fast_costs() -> None:
    fast, normal, slow = (priced(1000, 100, model="claude-opus-5", speed=speed) for speed in ("fast", "normal", None))
    assert [fast, normal, slow] == pytest.approx([0.015, 0.0075, 0.0075])
    assert priced(1000, 100, model=SONNET, speed="fast") is None, "what that costs the table does not say"


def test_own_prices_come_first() -> None:
    own = own_prices('{"model-x": {"input": 1, "output": 2}, "gate/claude-sonnet-4-5": {"input": 4, "output": 5}}')
    prices = Prices(own)

    def of(model: str, provider: str | None = None) -> Any:
        return prices.of(TokenCounts(10, 10, 10), model, provider=provider, at="2026-11-01T00:00:00.000Z", speed=None)

    assert of("model-x") == (pytest.approx(40e-6), "own", "SESSIONS_PRICES"), "a cache costs what input costs"
    assert of("claude-sonnet-4-5", "gate").source == "own"
    assert of("claude-sonnet-4-5").source == "computed"


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "truncated"), ("[]", "object"), ('{"m": {"input": -1, "output": 1}}', "from 0"), ('{"m": {"in": 1}}', "in")],
)
def test_a_bad_file_of_prices_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "prices.json").write_text(text)
    with pytest.raises(BadSetting) as refused:
        read_settings({"SESSIONS_PRICES": str(tmp_path / "prices.json")})
    assert "SESSIONS_PRICES" in str(refused.value) and why in str(refused.value)


def test_a_bad_file_of_prices_stops_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="SESSIONS_PRICES") as refused,
        Appliance(tmp_path / "f", {"SESSIONS_PRICES": str(tmp_path / "prices.json")}),
    ):
        pass
    assert "Traceback" not in str(refused.value)


# ----------------------------------------------------------------- what is counted


def test_a_request_is_priced_and_stands_in_the_metadata(http: httpx.Client, session: str) -> None:
    said: dict[str, Any] = {"requestKey": "req_1", "source": "transcript", "model": SONNET, "promptId": "p1"}
    tokens: dict[str, Any] = {"inputTokens": 100, "outputTokens": 20, "cacheReadTokens": 3000, "reasoningTokens": 7}
    batch(http, report(session, **said, **tokens))
    cost = 100 * 3e-6 + 20 * 15e-6 + 3000 * 0.3e-6
    metadata = metadata_of(http, session)
    usage = {"input": 100, "output": 20, "cacheRead": 3000, "cacheWrite": 0, "reasoning": 7, "total": 3120}
    assert metadata["tokenUsage"] == usage
    assert metadata["cost"] == {"usd": pytest.approx(cost), "unpricedRequests": 0, "from": "computed"}
    (stored,) = [event["data"] for event in events_of(http, session, type="usage_reported")]
    assert stored["costUsd"] == pytest.approx(cost) and stored["costFrom"] == "computed"
    assert stored["priceTable"].startswith("genai-prices ")
    found = usage_of(http, session)
    assert [item["model"] for item in found["byModel"]] == [SONNET]
    assert [item["agentId"] for item in found["byAgent"]] == [None]
    assert [(item["promptId"], item["totalTokens"]) for item in found["byPrompt"]] == [("p1", 3120)]


def test_what_callers_add_themselves_is_added(http: httpx.Client, session: str) -> None:
    batch(http, report(session, inputTokens=5, outputTokens=1, model="m"))
    http.patch(f"/api/sessions/{session}/metadata", json={"tokenUsage.input": "+10", "tokenUsage.total": "+10"})
    assert metadata_of(http, session)["tokenUsage"]["input"] == 15
    assert metadata_of(http, session)["tokenUsage"]["total"] == 16


def test_a_card_says_what_was_used_and_how_full_the_context_is(http: httpx.Client, session: str) -> None:
    batch(http, line(session, data={"type": "prompt"}))
    assert "context" not in metadata_of(http, session), "nobody has told of it"
    full: dict[str, Any] = {"requestKey": "r1", "model": SONNET, "inputTokens": 9, "contextTokens": 150_000}
    batch(http, report(session, at="2026-11-30T08:00:00Z", **full))
    batch(http, report(session, requestKey="aside", inputTokens=1, at="2026-11-30T08:00:01Z"))
    for path, items in (("/api/query/active", "items"), ("/api/sessions", "items")):
        answer = http.get(path).json()
        cards = answer[items] if isinstance(answer, dict) else answer
        (card,) = (card for card in cards if card["sessionId"] == session)
        assert card["context"] == {"tokens": 150_000, "limit": 200_000, "compactions": 0}, path
        assert card["cost"]["unpricedRequests"] == 1 and card["tokenUsage"]["total"] == 10


def test_a_context_is_as_the_newest_has_it_in_any_order(http: httpx.Client, session: str) -> None:
    for seed in range(4):
        name = f"{session}-{seed}"
        full: dict[str, Any] = {"requestKey": f"{name}-1", "model": SONNET, "contextTokens": 90}
        told = [
            report(name, source="transcript", at="2026-11-30T08:00:00Z", **full),
            report(name, source="transcript", compaction={}, contextTokens=20, at="2026-11-30T08:01:00Z"),
            report(name, source="otlp_logs", compaction={}, contextTokens=21, at="2026-11-30T08:01:01Z"),
            line(name, data={"type": "post_compact"}, timestamp="2026-11-30T08:01:02Z"),
            report(name, source="otlp_logs", requestKey=f"{name}-2", contextTokens=30, at="2026-11-30T08:02:00Z"),
        ]
        random.Random(seed).shuffle(told)
        batch(http, *told)
        assert metadata_of(http, name)["context"] == {"tokens": 30, "limit": 200_000, "compactions": 1}
        assert usage_of(http, name)["total"]["requests"] == 2, "what was made smaller is no request"


def test_what_is_more_than_a_model_takes_shows_that_it_takes_more(http: httpx.Client, session: str) -> None:
    batch(http, report(session, model=SONNET, contextTokens=500_000))
    assert metadata_of(http, session)["context"] == {"tokens": 500_000, "limit": None, "compactions": 0}


def test_unpriced_is_said_beside_what_is_known(http: httpx.Client, session: str) -> None:
    batch(
        http,
        report(session, requestKey="a", inputTokens=1000, model=SONNET),
        report(session, requestKey="b", inputTokens=1000, model="model-x"),
    )
    assert total_of(http, session) == (2, 2000, pytest.approx(0.003), 1)
    assert metadata_of(http, session)["cost"]["unpricedRequests"] == 1
    only = f"{session}-only"
    batch(http, report(only, inputTokens=1000, model="model-x"))
    assert metadata_of(http, only)["cost"] == {"usd": None, "unpricedRequests": 1, "from": "unpriced"}


def test_usage_that_grows_within_a_request_is_counted_once_and_whole(http: httpx.Client, session: str) -> None:
    grown = [report(session, requestKey="r", source="transcript", inputTokens=10, outputTokens=n) for n in (1, 40, 30)]
    batch(http, *grown)
    assert total_of(http, session)[:2] == (1, 50)


def test_the_better_source_wins_whoever_comes_first_and_the_clients_own_figure_is_kept(
    http: httpx.Client, session: str
) -> None:
    told: list[dict[str, Any]] = [
        {"source": "transcript", "inputTokens": 10, "outputTokens": 5, "model": SONNET},
        {"source": "otlp_logs", "inputTokens": 11, "outputTokens": 6, "model": SONNET, "costUsd": 0.25},
    ]
    for number, order in enumerate((told, told[::-1])):
        name = f"{session}-{number}"
        batch(http, *(report(name, requestKey="req_9", **said) for said in order))
        assert total_of(http, name) == (1, 15, 0.25, 0)


def test_of_sources_without_a_key_in_common_only_the_best_of_an_agent_counts(http: httpx.Client, session: str) -> None:
    worker: dict[str, Any] = {"agentId": "worker"}
    reports = [
        report(session, requestKey="metric", source="otlp_metrics", inputTokens=900),
        report(session, requestKey="span-1", source="otlp_spans", inputTokens=500),
        report(session, requestKey="req_1", source="otlp_logs", inputTokens=100),
        report(session, requestKey="req_2", source="transcript", inputTokens=10),
        report(session, requestKey="span-2", source="otlp_spans", inputTokens=7, **worker),
    ]
    random.Random(3).shuffle(reports)
    batch(http, *reports)
    assert {item["agentId"]: item["totalTokens"] for item in usage_of(http, session)["byAgent"]} == {
        None: 110,
        "worker": 7,
    }


def test_what_a_fork_has_copied_counts_in_the_older_session_until_that_is_deleted(
    http: httpx.Client, session: str
) -> None:
    fork, at = f"{session}-fork", {"at": "2026-11-30T08:00:00Z"}
    said: dict[str, Any] = {"requestKey": f"req_{session}", "source": "transcript", "inputTokens": 100}
    batch(
        http,
        report(session, **said, **at),
        report(fork, **said, **at),
        report(fork, requestKey="own", source="transcript", inputTokens=1),
    )
    assert (total_of(http, session)[1], total_of(http, fork)[1]) == (100, 1)
    assert http.delete(f"/api/sessions/{session}").status_code == 200
    assert total_of(http, fork)[1] == 101


def test_the_same_key_at_another_time_is_another_request(http: httpx.Client, session: str) -> None:
    for name in (session, f"{session}-other"):
        batch(http, report(name, requestKey="constant", inputTokens=100))
        assert total_of(http, name)[1] == 100


def test_a_retry_changes_nothing_and_usage_revives_nothing(http: httpx.Client, session: str) -> None:
    batch(http, line(session, data={"type": "prompt"}))
    assert http.post(f"/api/sessions/{session}/finalize", json={}).status_code == 200
    once = report(session, "usage-1", requestKey="r", inputTokens=5, model=SONNET)
    assert batch(http, once)["accepted"] == 1
    assert batch(http, once)["duplicates"] == 1
    assert total_of(http, session)[:2] == (1, 5)
    assert metadata_of(http, session)["status"] == "completed"


@pytest.mark.parametrize(
    "said",
    [
        {"inputTokens": "12", "outputTokens": 3.0},
        {"inputTokens": 12, "outputTokens": 3, "costUsd": "not a number", "model": 7},
        {"inputTokens": 12, "outputTokens": 3, "cacheReadTokens": -5, "agentId": "../x", "at": "yesterday"},
        {"inputTokens": 12, "outputTokens": 3, "cacheWriteTokens": 1e300, "requestKey": "x" * 10_000},
        {"inputTokens": 12, "outputTokens": 3, "costFrom": "guessed", "source": ["a"], "costUsd": -1},
    ],
)
def test_a_report_that_is_not_quite_valid_is_kept_as_what_it_can_be(
    http: httpx.Client, session: str, said: dict[str, Any]
) -> None:
    assert batch(http, report(session, **said))["rejected"] == []
    assert total_of(http, session)[:2] == (1, 15)
    (stored,) = [event["data"] for event in events_of(http, session, type="usage_reported")]
    assert stored["given"], "what was said is not lost"


def test_usage_is_asked_for_by_whom_and_what_and_when(http: httpx.Client, session: str) -> None:
    http.put(f"/api/sessions/{session}", json={"userId": f"u-{session}", "tags": [f"t-{session}", "shared"]})
    batch(
        http, report(session, requestKey="1", model=f"m-{session}", inputTokens=9, costUsd=2, at="2024-03-09T12:00:00Z")
    )

    def of(by: str, **query: str) -> Any:
        answer = http.get("/api/query/usage", params={"by": by} | query)
        assert answer.status_code == 200, answer.text
        return {item[by]: (item["totalTokens"], item["costUsd"]) for item in answer.json()["items"]}

    for by, key in (("user", f"u-{session}"), ("tag", f"t-{session}"), ("model", f"m-{session}"), ("session", session)):
        assert of(by)[key] == (9, 2)
    narrow = {"since": "2024-03-09T00:00:00Z", "until": "2024-03-10T00:00:00Z"}
    assert of("day", **narrow) == {"2024-03-09": (9, 2)} or len(of("day", **narrow)) == 1
    assert of("month", **narrow) == {"2024-03": (9, 2)}
    assert of("month", since="2024-04-01T00:00:00Z").get("2024-03") is None
    assert http.get("/api/query/usage", params={"by": "colour"}).status_code in (400, 422)


def test_days_are_those_of_the_time_zone(folder: Path) -> None:
    with Appliance(folder, {"TZ": "Pacific/Auckland"}) as server, httpx.Client(base_url=server.url) as http:
        batch(http, report("s", inputTokens=1, at="2026-11-30T11:30:00Z"))
        items = http.get("/api/query/usage", params={"by": "day"}).json()["items"]
        assert [item["day"] for item in items] == ["2026-12-01"]


# ------------------------------------------------------------------- from transcripts


def answer_of(tag: str, number: int, *, message: str | None = None, output: int = 20, **more: Any) -> dict[str, Any]:
    """A line of a conversation with what a model answered."""
    usage = {"input_tokens": 10, "output_tokens": output, "cache_read_input_tokens": number}
    cache = {"cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 20}}
    said = {"id": message or f"msg_{tag}_{number}", "role": "assistant", "model": SONNET, "usage": usage | cache}
    time = {"timestamp": f"2026-11-30T08:00:{number:02d}.000Z"}
    return {"type": "assistant", "requestId": f"req_{tag}_{number}", "promptId": "p1", "message": said} | time | more


def ship(http: httpx.Client, session_id: str, *lines: Any, name: str = "") -> None:
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    headers = {"content-type": "application/x-ndjson", "x-session-id": session_id, "x-source": "file"}
    posted = http.post(f"/api/transcripts/-work/{name or session_id}", content=content, headers=headers)
    assert posted.status_code == 200, posted.text


@pytest.fixture
def shipping(http: httpx.Client, session: str) -> str:
    """A session that a hook has told of."""
    batch(http, line(session, data={"type": "prompt"}))
    return session


def test_what_a_conversation_says_of_requests_is_in_the_ledger(http: httpx.Client, shipping: str) -> None:
    grown = [answer_of(shipping, 1, output=output) for output in (1, 20, 20)]
    odd: list[Any] = [{"type": "user", "usage": 5}, {"message": {"usage": {}, "model": "<synthetic>"}}, ["usage"], "x"]
    ship(http, shipping, *odd, *grown, answer_of(shipping, 2, agentId="w1", requestId="req_two"))
    usage = usage_of(http, shipping)
    assert usage["total"]["requests"] == 2
    assert usage["total"]["totalTokens"] == 10 + 20 + 1 + 30 + 10 + 20 + 2 + 30
    assert (usage["total"]["cacheWriteTokens"], usage["total"]["cacheWrite1hTokens"]) == (20, 40)
    assert {item["agentId"] for item in usage["byAgent"]} == {None, "w1"}
    assert usage["total"]["costUsd"] and usage["total"]["unpricedRequests"] == 0
    kinds = {event["type"] for event in events_of(http, shipping)}
    assert kinds == {"session_created", "action", "usage_reported"}, "and nothing else"


def test_a_line_that_is_odd_or_very_wide_says_what_it_used(http: httpx.Client, shipping: str) -> None:
    wide = answer_of(shipping, 2, toolUseResult=[{}] * 500_000)
    half = answer_of(shipping, 1, text="half a character: \ud83d")
    ship(http, shipping, half, wide, answer_of(shipping, 3, requestId=7), {"message": "usage"})
    assert usage_of(http, shipping)["total"]["requests"] == 3


@pytest.mark.parametrize("request_id", [None, "", "the-same-for-all"])
def test_gateways_that_call_each_request_the_same_or_nothing_are_counted_right(
    http: httpx.Client, shipping: str, request_id: str | None
) -> None:
    lines = [
        answer_of(shipping, number, requestId=request_id and f"{request_id}-{shipping}", output=output)
        for number in (1, 2, 3)
        for output in (5, 20)
    ]
    ship(http, shipping, *lines)
    assert usage_of(http, shipping)["total"]["requests"] == 3
    assert usage_of(http, shipping)["total"]["outputTokens"] == 60


def test_a_gateway_that_calls_each_answer_the_same_is_counted_right(http: httpx.Client, shipping: str) -> None:
    ship(
        http,
        shipping,
        *(answer_of(shipping, number, requestId=None, message=f"constant-{shipping}") for number in (1, 1, 2, 3)),
    )
    assert usage_of(http, shipping)["total"]["requests"] == 3


def test_a_conversation_that_is_shipped_again_is_counted_once(http: httpx.Client, shipping: str) -> None:
    for name in ("one", "again"):
        ship(http, shipping, answer_of(shipping, 1), answer_of(shipping, 2), name=f"{shipping}-{name}")
    assert usage_of(http, shipping)["total"]["requests"] == 2


def test_what_was_kept_before_it_was_known_whose_it_is_is_counted(http: httpx.Client, session: str) -> None:
    """A program keeps its conversation, and those of its agents, while what its hooks say is on its way."""
    headers = {"content-type": "application/x-ndjson"}
    agents: tuple[dict[str, str], ...] = ({}, {"agentId": "a1"}, {"agentId": "a2"})

    def keep(number: int) -> None:
        for place, agent in enumerate(agents):
            text = json.dumps(answer_of(session, 10 * place + number) | agent)
            params = {"subpath": f"subagents/agent-{agent['agentId']}"} if agent else {}
            path = f"/api/transcripts/-work/{session}-own"
            http.post(path, params=params, content=text, headers=headers).raise_for_status()

    keep(1)
    keep(2)
    claims = {"claims": [f"claude:{session}-own"]}
    http.put(f"/api/sessions/{session}", json={"userId": "ann", "metadata": claims}).raise_for_status()
    keep(3)
    assert usage_of(http, session)["total"]["requests"] == 9


def test_the_same_requests_in_three_files_after_resume_and_fork_are_counted_once(
    http: httpx.Client, session: str
) -> None:
    """Whichever is shipped first: in the session, in another file of it, in a fork with one request of its own."""
    for order in range(6):
        name, fork = f"{session}-{order}", f"{session}-{order}-fork"
        for number, who in enumerate((name, fork)):
            batch(http, line(who, data={"type": "prompt"}, timestamp=f"2026-11-30T0{7 + number}:00:00Z"))
        said = [answer_of(name, number) for number in (1, 2, 3)]
        files: list[tuple[str, str, list[Any]]] = [
            (name, name, said),
            (name, f"{name}-resumed", said),
            (fork, fork, [*said, answer_of(fork, 4)]),
        ]
        for who, file, lines in permuted(files, order):
            ship(http, who, *lines, name=file)
        assert [usage_of(http, who)["total"]["requests"] for who in (name, fork)] == [3, 1], order


def test_a_fork_of_a_gateways_that_calls_each_request_the_same_counts_its_own_alone(
    http: httpx.Client, session: str
) -> None:
    """What has the name for itself in one of them does not in the other."""
    fork, constant = f"{session}-fork", f"constant-{session}"
    for number, who in enumerate((session, fork)):
        batch(http, line(who, data={"type": "prompt"}, timestamp=f"2026-11-30T0{7 + number}:00:00Z"))
    said = [answer_of(session, number, requestId=constant) for number in (1, 2, 3, 4)]
    ship(http, session, *said[:3])
    ship(http, fork, *said[1:])
    assert [usage_of(http, who)["total"]["requests"] for who in (session, fork)] == [3, 1]
    assert http.delete(f"/api/sessions/{session}").status_code == 200
    assert usage_of(http, fork)["total"]["requests"] == 3


def permuted(files: list[Any], order: int) -> list[Any]:
    return list([*permutations(files)][order])


# --------------------------------------------------------------- sums and their rows


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "sessions.db")
    yield connection
    connection.close()


RECOUNTED = """
SELECT session_id, coalesce(agent_id, ''), family, unixepoch(at) / 900, coalesce(model, ''), cost_from, count(*),
       sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
       sum(cache_write_1h_tokens), sum(reasoning_tokens), round(sum(coalesce(cost_usd, 0.0)), 6)
FROM usage WHERE NOT is_copy GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"""
SUMS = """
SELECT session_id, agent_id, family, quarter, model, cost_from, requests, input_tokens, output_tokens,
       cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens, abs(round(cost_usd, 6))
FROM usage_sums WHERE requests <> 0 ORDER BY 1, 2, 3, 4, 5, 6"""


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_are_what_a_recount_finds(database: sqlite3.Connection, seed: int) -> None:
    dice, cursors = random.Random(seed), count(1)
    alive = {"a", "b", "c"}

    def tell(event_type: str, session_id: str, data: dict[str, Any]) -> None:
        cursor, moment = next(cursors), f"2026-11-30T0{dice.randrange(3)}:00:00.000Z"
        database.execute(
            "INSERT INTO events (cursor, type, session_id, user_id, event_id, timestamp, received_at, data)"
            " VALUES (?, ?, ?, 'u', ?, ?, ?, ?)",
            (cursor, event_type, session_id, f"e{cursor}", moment, moment, json.dumps(data)),
        )

    for name in sorted(alive):
        tell("session_created", name, {"sessionId": name})
    for number in range(400):
        name = dice.choice(sorted(alive))
        data: dict[str, Any] = {member: dice.randrange(100) for member in dice.sample(MEMBERS, 3)}
        data |= {"requestKey": f"r{dice.randrange(20)}", "at": f"2026-11-30T0{dice.randrange(2)}:00:00.000Z"}
        data |= {"source": dice.choice(["transcript", "otlp_logs", "otlp_spans", "mine"]), "model": dice.choice("xy")}
        if dice.random() < 0.7:
            data |= {"costUsd": dice.random(), "costFrom": dice.choice(["reported", "own", "computed"])}
        if dice.random() < 0.3:
            data["agentId"] = dice.choice(["w1", "w2"])
        tell("usage_reported", name, data)
        if number in (150, 300):
            tell("session_deleted", name, {})
            tell("session_created", name, {"sessionId": name})
    rows = database.execute(RECOUNTED).fetchall()
    assert database.execute(SUMS).fetchall() == rows
    assert len(rows) > 10
    twice = "SELECT request_key, at, count(*) FROM usage WHERE NOT is_copy GROUP BY 1, 2 HAVING count(*) > 1"
    assert all(len(row) == 3 for row in database.execute(twice))
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
