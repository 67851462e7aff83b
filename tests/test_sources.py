"""Of what the real Claude Code CLI used, each request is counted once: whichever sources tell of it, in any order."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
from itertools import chain, combinations, count
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore import ROOT
from tests.appliance import Appliance
from tests.claude_stub import ClaudeStub
from tests.peers import eventually
from tests.test_claude_code import Machine
from tests.test_usage import usage_of
from tests.usage_sources import (
    PROTOCOLS,
    SCRIPTS,
    Json,
    Metered,
    exporting,
    record,
    recordings,
    through_gateway,
    transcripts,
)

SOURCES = ("hooks", "transcripts", "logs", "traces", "metrics")
SUBSETS = [*chain.from_iterable(combinations(SOURCES, number) for number in range(1, len(SOURCES) + 1))]
WITH_METRICS = [subset for subset in SUBSETS if subset[-1] == "metrics" and subset[0] not in ("hooks", "metrics")]
TELL_ALL = {"logs", "traces"}
ROWS = """
SELECT request_key, session_id, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
       cache_write_1h_tokens, agent_id IS NOT NULL FROM usage WHERE session_id IN (?, ?) ORDER BY 1"""
numbers = count(1)

Row = tuple[Any, ...]


class Replay:
    """A recording, told to a server under names of its own unless it has told already."""

    def __init__(self, recorded: Json, *, is_told: bool = False) -> None:
        number = next(numbers)
        named = {name: name[:-7] + f"{number:07}" for name in ("metered", *recorded["sessions"].values())}
        self.renamed: dict[str, str] = {} if is_told else named
        self.recorded: Json = json.loads(self.with_names(json.dumps(recorded)))
        self.sessions: dict[str, str] = self.recorded["sessions"]
        self.answers: list[Json] = self.recorded["answers"]

    def with_names(self, text: str) -> str:
        for name, own in self.renamed.items():
            text = text.replace(name, own)
        return text

    def requests(self, source: str) -> list[tuple[str, bytes, dict[str, str]]]:
        """What a source sends, in its order: path, body and headers of each."""
        if source == "hooks":
            lines = [self.hook(line, place) for place, line in enumerate(self.recorded["hooks"])]
            return [
                ("/api/events", b"\n".join(part), {"content-type": "application/x-ndjson"}) for part in parts(lines)
            ]
        if source == "transcripts":
            return [self.lines(part) for part in self.recorded["transcripts"]]
        return [
            (f"/v1/{source}", self.exported(sent), {"content-type": sent["kind"]})
            for sent in self.recorded["telemetry"]
            if sent["signal"] == source
        ]

    def hook(self, line: Json, place: int) -> bytes:
        event = {"type": "hook", "eventId": f"hook-{place}", "timestamp": line["timestamp"], "data": line["hook"]}
        return json.dumps(event).encode()

    def lines(self, part: Json) -> tuple[str, bytes, dict[str, str]]:
        body = b"\n".join(json.dumps(line).encode() for line in part["lines"])
        headers = {"content-type": "application/x-ndjson", "x-session-id": part["session"], "x-source": "file"}
        beside = f"?subpath={part['subpath']}" if part["subpath"] else ""
        return f"/api/transcripts/-work-project/{part['session']}{beside}", body, headers

    def exported(self, sent: Json) -> bytes:
        body = base64.b64decode(sent["body"])
        for name, own in self.renamed.items():
            body = body.replace(name.encode(), own.encode())
        return body

    def tell(self, http: httpx.Client, sources: tuple[str, ...], dice: random.Random) -> None:
        """Each source in its own order, as they come mixed."""
        waiting = [self.requests(source) for source in sources]
        while waiting := [requests for requests in waiting if requests]:
            path, body, headers = dice.choice(waiting).pop(0)
            answer = http.post(path, content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            assert b"ejected" not in answer.content or answer.json()["rejected"] == []

    def expected(self, sources: tuple[str, ...]) -> list[Row]:
        """What the model has answered; conversations do not have the requests that made them smaller."""
        lines = [line for part in self.recorded["transcripts"] for line in part["lines"]]
        written = {line.get("requestId") for line in lines}
        written = written if "transcripts" in sources else set()
        return [
            self.row(said, knows_hour="logs" in sources or said["requestKey"] in written)
            for said in self.answers
            if TELL_ALL.intersection(sources) or said["requestKey"] in written
        ]

    def row(self, said: Json, *, knows_hour: bool) -> Row:
        """Spans do not say how long the cache is to keep what it took."""
        usage, last = said["usage"], self.answers[-1]["requestKey"]
        written, hour = usage["cache_creation_input_tokens"], usage["cache_creation"]["ephemeral_1h_input_tokens"]
        number = int(said["requestKey"][-6:])
        return (
            said["requestKey"],
            self.sessions["fork" if said["requestKey"] == last else "first"],
            said["model"],
            usage["input_tokens"],
            usage["output_tokens"],
            usage["cache_read_input_tokens"],
            written - hour if knows_hour else written,
            hour if knows_hour else 0,
            number in (3, 4),
        )


def parts(lines: list[bytes]) -> list[list[bytes]]:
    return [lines[place : place + 7] for place in range(0, len(lines), 7)]


def ledger(appliance: Appliance, *sessions: str) -> list[Row]:
    connection = sqlite3.connect(f"file:{appliance.folder}/sessions.db?mode=ro", uri=True)
    connection.executescript((ROOT / "views.sql").read_text())
    try:
        return [(*row[:-1], bool(row[-1])) for row in connection.execute(ROWS, sessions)]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def recorded() -> dict[str, Json]:
    return dict(zip(PROTOCOLS, recordings(), strict=True))


def check(appliance: Appliance, http: httpx.Client, replay: Replay, sources: tuple[str, ...]) -> None:
    first, fork = replay.sessions["first"], replay.sessions["fork"]
    if replay.expected(sources):
        assert ledger(appliance, first, fork) == replay.expected(sources)
        contexts = [http.get(f"/api/sessions/{name}").json()["metadata"]["context"] for name in (first, fork)]
        assert [context["tokens"] for context in contexts] == [9437, 10440]
        assert contexts[0]["limit"] == 1_000_000
        assert contexts[0]["compactions"] == (sources != ("traces",) and sources != ("traces", "metrics"))
    elif "metrics" in sources:
        totals = [usage_of(http, name)["total"]["totalTokens"] for name in (first, fork)]
        used = [sum(row[3:8]) for row in replay.expected(("logs",))]
        assert totals == [sum(used[:-1]), used[-1]]


@pytest.mark.parametrize("sources", SUBSETS, ids="+".join)
def test_the_ledger_is_what_the_model_answered(
    appliance: Appliance, http: httpx.Client, recorded: dict[str, Json], sources: tuple[str, ...]
) -> None:
    dice = random.Random("+".join(sources))
    replay = Replay(recorded[dice.choice([*PROTOCOLS])])
    replay.tell(http, sources, dice)
    check(appliance, http, replay, sources)


@pytest.mark.parametrize("name", [None, "req_metered"])
def test_a_gateway_that_names_no_request_or_all_alike_changes_no_sum(
    http: httpx.Client, recorded: dict[str, Json], name: str | None
) -> None:
    """Without names what a transcript tells counts, as nobody can say which of it telemetry tells, too."""
    gateway = through_gateway(recorded["json"], name)
    for sources in WITH_METRICS:
        is_written = name is None and "transcripts" in sources
        used = [sum(row[3:8]) for row in Replay(recorded["json"]).expected(("transcripts",) if is_written else sources)]
        replay = Replay(gateway)
        replay.tell(http, sources, random.Random("+".join(sources)))
        totals = [usage_of(http, session)["total"] for session in replay.sessions.values()]
        assert [(total["requests"], total["totalTokens"]) for total in totals] == [
            (len(used) - 1, sum(used[:-1])),
            (1, used[-1]),
        ], sources


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(2))
def test_all_sources_at_once_in_any_order_and_again(
    appliance: Appliance, http: httpx.Client, recorded: dict[str, Json], protocol: str, seed: int
) -> None:
    replay = Replay(recorded[protocol])
    for _ in range(2):
        replay.tell(http, SOURCES, random.Random(seed))
        check(appliance, http, replay, SOURCES)


def test_a_request_that_is_missing_would_be_noticed(
    appliance: Appliance, http: httpx.Client, recorded: dict[str, Json]
) -> None:
    replay = Replay(recorded["json"])
    replay.recorded["telemetry"].remove(next(sent for sent in replay.recorded["telemetry"] if sent["signal"] == "logs"))
    replay.tell(http, ("metrics", "logs"), random.Random(1))
    with pytest.raises(AssertionError):
        check(appliance, http, replay, ("metrics", "logs"))


@pytest.mark.long
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_recording_is_what_the_command_line_tells_today(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, protocol: str
) -> None:
    replay = Replay(record(tmp_path, protocol))
    replay.tell(http, SOURCES, random.Random(protocol))
    check(appliance, http, replay, SOURCES)


@pytest.mark.long
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hooks_shipping_and_telemetry_of_the_real_command_line_at_once(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, protocol: str
) -> None:
    answers: list[Json] = []
    with ClaudeStub(SCRIPTS, type("OwnMeter", (Metered,), {"answers": answers, "tag": protocol})) as stub:
        machine = Machine(tmp_path / "machine", stub.url, appliance.url, tmp_path / "spool")
        machine._env |= exporting(appliance.url, protocol)
        first = machine.claude("[work] please")
        for prompt in ("[greet] again", "/compact", "[greet] more"):
            machine.claude(prompt, "--resume", first)
        fork = machine.claude("[greet] apart", "--resume", first, "--fork-session")
    sessions = {"first": first, "fork": fork}
    files = [*transcripts(machine.home / ".claude" / "projects", (first, fork))]
    told = Replay(
        {"sessions": sessions, "answers": answers, "telemetry": [], "hooks": [], "transcripts": files}, is_told=True
    )
    eventually(lambda: ledger(appliance, first, fork) == told.expected(SOURCES))
    check(appliance, http, told, SOURCES)
