"""Typed lines: what is read quickly becomes what the long way makes of it, which takes all that is special."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sessionstore.model.events import Draft
from sessionstore.model.folds import encode
from sessionstore.model.lines import FEW_TEXTS_BYTES, LOOK, drafts_of_batch, plain_draft, special_draft, values_in
from sessionstore.model.problems import Problem
from sessionstore.model.redaction import Redactor
from tests.repeats import repeated

LIMIT = 4096
redacted = Redactor(()).data
IDS = ["s", "session-1", "0123456789ab-1f-0000000e12ab", "x" * 128, "a.b", "PreToolUse-toolu_01", "lg.call-1"]
ODD_IDS: list[Any] = ["", "a..b", ".a", "-a", "x" * 129, "a b", "a\n", "é", "a/b", 7, None, True, ["a"], {}, "a."]
TIMES = ["2026-11-30T07:51:36.123Z", "2024-02-29T23:59:59.999Z", "1970-01-01T00:00:00.000Z"]
ODD_TIMES: list[Any] = [
    "2026-02-30T00:00:00.000Z", "2026-11-30T07:51:36Z", "2026-11-30T07:51:36.1234Z", "2026-11-30T08:51:36.123+01:00",
    "2026-11-30t07:51:36.123z", "2026-11-30 07:51:36.123Z", "2016-12-31T23:59:60.000Z", "2026-11-30T24:00:00.000Z",
    "2026-11-30T07:60:00.000Z", "0000-01-01T00:00:00.000Z", "2026-11-30T07:51:36.123Z\n", "", "noon", 5, None, [],
    "२०२६-11-30T07:51:36.123Z", "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z",
]  # fmt: skip
USERS = ["u", "test-user-alice", "Ärger & Söhne", "x" * 256]
ODD_USERS: list[Any] = ["", "x" * 257, "a\nb", "a\u0085", None, 3, {}, "a\n"]
TYPES = ["action", "response"]
ODD_TYPES: list[Any] = [
    "state_updated", "goal_added", "goal_updated", "agent_spawned", "agent_updated", "agent_completed",
    "session_created", "session_resumed", "session_finalized", "session_lost", "session_deleted", "metadata_updated",
    "actions", "", None, 1, "Action",
]  # fmt: skip
VALUES = [
    "1", "0", "-0", "-0.0", "1.0", "1e15", "1e308", "123456789012345678901234567890", "1.5e-7", "true", "false",
    "null", '""', '"text"', '"a\\u0000b"', '"\\u00fc\\ud83d\\ude00"', '"\\/x"', "[]", "{}", "[1,[2,{}]]",
    '{"a":{"a":1,"a":2}}', '{"type":5}', '"' + "long " * 50 + '"',
    "[" * 61 + "]" * 61, "[" * 62 + "]" * 62, "[" * 63 + "]" * 63,
]  # fmt: skip
ODD_VALUES = [
    '"\\ud800"', '"\\udc00x"', "1e999", "NaN", "01", "'x'", '"\x00"', '"a\tb"', "[1,]", "{,}", "nul", '"\\x"',
    "[" * 64 + "]" * 64, '"\\ud800\\u0041"', '"' + "y" * LIMIT + '"', "[" * 3000,
]  # fmt: skip
NAMES = ["tool", "input", "n", "a", "given", "hook_event_name", "runId", "truncated", "text", "", "type ", "password"]
SPECIAL_NAMES = [
    "seq", "cursor", "receivedAt", "sessionId", "eventId", "timestamp", "agentId", "userId", "type", "data", "patch",
    "actor",
]  # fmt: skip


class Lines:
    """An endless supply of lines, most of which are nearly as they should be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.line()

    def is_odd(self, share: float = 0.03) -> bool:
        return self.random.random() < share

    def one_of(self, values: list[Any], odd: list[Any]) -> str:
        return self.text(self.random.choice(odd if self.is_odd() else values))

    def text(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self.is_odd(0.5))

    def line(self) -> bytes:
        members = [("type", self.one_of(TYPES, ODD_TYPES)), ("sessionId", self.one_of(IDS, ODD_IDS))]
        for name, values, odd in (("eventId", IDS, ODD_IDS), ("agentId", IDS, ODD_IDS), ("userId", USERS, ODD_USERS)):
            if self.is_odd(0.5):
                members.append((name, self.one_of(values, odd)))
        if self.is_odd(0.5):
            members.append(("timestamp", self.one_of(TIMES, ODD_TIMES)))
        members.append(("data", self.value() if self.is_odd() else self.data()))
        if self.is_odd():
            members.append((self.random.choice(SPECIAL_NAMES), self.value()))
        if self.is_odd(0.3):
            self.random.shuffle(members)
        if self.is_odd():
            members.pop(self.random.randrange(len(members)))
        return self.damaged(self.object(members).encode("utf-8", "surrogatepass"))

    def data(self) -> str:
        members = [] if self.is_odd() else [("type", self.value() if self.is_odd() else '"tool_call"')]
        members += [(self.random.choice(NAMES), self.value()) for _ in range(self.random.randrange(4))]
        if self.is_odd(0.1):
            values = [self.one_of(IDS, ODD_IDS), self.one_of(TIMES, ODD_TIMES), self.value()]
            members.append((self.random.choice(SPECIAL_NAMES), self.random.choice(values)))
        self.random.shuffle(members)
        return self.object(members)

    def value(self) -> str:
        return self.random.choice(ODD_VALUES if self.is_odd() else VALUES)

    def object(self, members: list[tuple[str, str]]) -> str:
        space = " " if self.is_odd(0.2) else ""
        return "{" + f",{space}".join(f"{self.text(name)}{space}:{space}{value}" for name, value in members) + "}"

    def damaged(self, line: bytes) -> bytes:
        if self.is_odd(0.2):
            line = self.random.choice([b" ", b"\t", b""]) + line + self.random.choice([b"\r", b" ", b""])
        if self.is_odd() and line:
            at = self.random.randrange(len(line))
            line = line[:at] + self.random.choice([b"", b"\xff", b'"', b"\\", b"}", b",", b"\xc3"]) + line[at + 1 :]
        return line


def outcome(line: bytes, limit: int) -> tuple[Draft, str] | tuple[int, str]:
    """What the long way makes of a line: its draft, and its data to the letter; or its problem."""
    try:
        draft = special_draft(line, limit, redacted)
    except Problem as problem:
        return problem.status, problem.detail
    return draft, encode(draft.data)


@repeated("number", few=4_000, many=200_000, variable="LINES")
def test_a_line_read_quickly_is_what_the_long_way_makes_of_it(number: int) -> None:
    ways: Counter[str] = Counter()
    for line, _ in zip(Lines(number), range(number), strict=False):
        quick, slow = plain_draft(line, LIMIT), outcome(line, LIMIT)
        ways["quick" if quick else "slow" if isinstance(slow[0], Draft) else "refused"] += 1
        assert quick is None or (quick, encode(quick.data)) == slow, line
    assert ways["quick"] > number / 4 and ways["slow"] > number / 8 and ways["refused"] > number / 50, ways


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"goal_added","sessionId":"s","data":{"description":"x"}}',
        b'{"type":"action","sessionId":"s","data":{"type":"x","timestamp":"2026-11-30T07:51:36.123Z"}}',
        b'{"type":"action","sessionId":"s","agentId":"a","data":{"type":"x","agentId":"a"}}',
        b'{"type":"action","sessionId":"s","timestamp":"2026-11-30T08:51:36.123+01:00","data":{"type":"x"}}',
        b'{"type":"action","sessionId":"s","data":{"type":"x"},"cursor":1}',
        b'{"type":"action","sessionId":"s","data":{"type":5}}',
        b'{"type":"action","sessionId":"s","data":{"type":"x","deep":%s}}' % (b"[" * 63 + b"]" * 63),
        b'{"type":"action","sessionId":"s","data":{"type":"x","long":"%s"}}' % (b"x" * LIMIT),
    ],
)
def test_what_is_special_goes_the_long_way(line: bytes) -> None:
    assert plain_draft(line, LIMIT) is None


@pytest.mark.parametrize(
    ("line", "values"),
    [("{}", 1), ("[[],{}]", 4), ('{"a,[{":"],[{\\\\","b":"\\",[{"}', 2), ('["\\\\\\",["]', 1), ('["a,b', 1), ("", 0)],
)
def test_what_stands_in_texts_is_no_value(line: str, values: int) -> None:
    assert values_in(line.encode()) == values


def test_neither_is_it_in_texts_that_are_longer_than_what_is_looked_through_in_one_go() -> None:
    assert values_in(b'["' + b"x,[" * 600_000 + b'",' + b"{}," * 3 + b'"", "' + b"," * LOOK + b'", 1]') == 10


def test_a_line_that_may_have_too_many_texts_goes_the_long_way() -> None:
    texts = [""] * 20_002
    line = json.dumps(
        {"type": "action", "sessionId": "s", "data": {"type": "x", "texts": texts}}, separators=(",", ":")
    )
    assert len(line) > FEW_TEXTS_BYTES and plain_draft(line.encode(), 1 << 20) is None
    ((_, (draft,)),), _ = drafts_of_batch(
        line.encode(), max_event_bytes=1 << 20, is_admin=False, redacted=redacted, hook=lambda line: []
    )
    assert draft.data["truncated"]["texts"] == 20_002, "the type is not counted"
