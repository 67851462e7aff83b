"""Secrets out of lines that are kept as they were written: only the text that has one is another."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.model.redaction import Redaction
from sessionstore.model.verbatim import lines_without_secrets

KEY = "sk-ant-api03-" + "aB3dE6gH9" * 10 + "AA"
MARK = "[redacted:"
redaction = Redaction()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(KEY),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


def kept(line: str | bytes) -> bytes:
    return lines_without_secrets(redaction, line.encode() if isinstance(line, str) else line)


def test_only_the_text_that_has_a_secret_is_another() -> None:
    line = '{ "a":1e999,"b" : "\\u00e9 KEY \\u2028" , "c":["KEY"],"KEY":{"d":"x"} }\r\n'.replace("KEY", KEY)
    found = kept(line).decode()
    assert found.startswith('{ "a":1e999,"b" : "\\u00e9 [redacted:') and found.endswith(f'"{KEY}":{{"d":"x"}} }}\r\n')
    assert found.count(MARK) == 2


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": f"the key is {KEY}", "signature": "c2lnbmVk"},
        {"signature": "c2lnbmVk", "anything": [{"deep": KEY}]},
        {"type": "redacted_thinking", "data": KEY},
    ],
)
def test_what_is_signed_stays_as_it_is(block: dict[str, Any]) -> None:
    line = json.dumps({"message": {"content": [block, {"type": "text", "text": KEY}]}})
    content = json.loads(kept(line))["message"]["content"]
    assert content[0] == block
    assert MARK in content[1]["text"]


def test_a_member_that_is_named_as_a_secret_loses_its_value() -> None:
    assert json.loads(kept('{"input": {"password": "hunter2hunter2"}}'))["input"]["password"].startswith(MARK)


def test_what_is_no_json_loses_its_secrets_too() -> None:
    found = kept(b'\xff{"half": "' + KEY.encode() + b"\nfollowed by " + KEY.encode())
    assert found.startswith(b'\xff{"half": "[redacted:') and found.count(MARK.encode()) == 2


def test_a_secret_whose_letters_are_escaped_is_found() -> None:
    assert MARK.encode() in kept('{"a": "' + "".join(f"\\u{ord(letter):04x}" for letter in KEY) + '"}')


@given(json_values, st.booleans())
def test_the_rest_is_the_same_to_the_byte(value: Any, is_ascii: bool) -> None:
    line = json.dumps(value, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    found = lines_without_secrets(redaction, line)
    assert re.sub(rb"\[redacted:[a-z_-]+\]", KEY.encode(), found) == line
    assert (found == line) == (KEY not in values_in(json.loads(line)))


def values_in(value: Any) -> list[Any]:
    """All of it, but for the names of members."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if not isinstance(value, dict | list) else [one for part in parts for one in values_in(part)]
