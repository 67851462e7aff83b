"""Text that somebody else wrote, fit for people: nothing in it steers the screen, and no character is cut in two."""

from __future__ import annotations

import logging
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hook_agent
from sessionstore.log import TextLines
from sessionstore.text import for_people, shortened

SHOWN = {
    "\x1b[2J\x1b[H\x1b[31mX\x1b[0m\x1b]0;T\x07": "X",
    "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\": "here",
    "\x1b[38;2;56;52;44m[16:23]\x1b[0m GET": "[16:23] GET",
    "\x1bP1;2|payload\x1b\\after": "after",
    "\x9b31mred\x9b0m": "red",
    "passwd\b\bSPOOF": "passwd\u2408\u2408SPOOF",
    "a real command\rb": "a real command\u240db",
    "one\r\ntwo\n\tthree": "one\ntwo\n\tthree",
    "a\x0bb\x0cc\x00d\x7f": "a\u240bb\u240cc\u2400d\u2421",
    "safe \u202egnp.exe\u202c \u2066a\u2069\u200e\u200f\u061c": "safe gnp.exe a",
    "half \ud83d": "half \ufffd",
    "next\x85line\u2028and\u2029on": "next\ufffdline\nand\non",
    "\x1b[31": "31",
    "\x1b]0;never ends": "0;never ends",
    "\u65e5\u672c \U0001f468\u200d\U0001f469 e\u0301": "\u65e5\u672c \U0001f468\u200d\U0001f469 e\u0301",
}


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_nothing_steers_a_screen(text: str) -> None:
    assert for_people(text) == SHOWN[text]
    assert for_people(text, is_one_line=True) == " ".join(SHOWN[text].split())


@given(st.text(st.characters(codec=None), max_size=200))
def test_what_is_fit_has_no_control_character_and_stays_as_it_is(text: str) -> None:
    fit = for_people(text)
    assert not [one for one in fit if unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t"]
    assert not set(fit) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert for_people(fit) == fit
    assert len(fit) <= len(text)


@pytest.mark.parametrize(
    "piece", ["\x1b", "\x1b[", "\x1b]", "\x1bP", "\x9b1;", "\x1b ", "\x1b]\x1b", "\r", "\u202e"], ids=ascii
)
def test_it_takes_no_longer_than_the_text_warrants(piece: str) -> None:
    begun = time.process_time()
    for_people(piece * 200_000)
    assert time.process_time() - begun < 2


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc\u2026"),
        (f"ab{FAMILY}cd", 4, "ab\u2026"),
        (f"ab{FAMILY}cd", 7, f"ab{FAMILY}\u2026"),
        ("abe\u0301f", 3, "ab\u2026"),
        ("ok\U0001f44d\U0001f3fdx", 3, "ok\u2026"),
        ("ok\u2764\ufe0fx", 3, "ok\u2026"),
        ("x" + "\u0301" * 100, 50, "x" + "\u0301" * 49 + "\u2026"),
    ],
    ids=ascii,
)
def test_what_is_one_character_to_people_is_not_cut_in_two(text: str, most: int, cut: str) -> None:
    assert shortened(text, most) == cut


def test_a_line_of_the_log_turns_no_text_around() -> None:
    record = logging.LogRecord("sessionstore", logging.WARNING, "", 0, "an odd name: \u202egnp.exe\x1b[31m", (), None)
    line = TextLines().format(record)
    assert line.endswith("an odd name: \\u202egnp.exe\\x1b[31m")


def test_what_the_agent_prints_of_others_is_one_line_without_what_steers() -> None:
    said = hook_agent._Answer(500, b"\x1b[31mno\r\nway \xe2\x80\xae\xff", None).said()
    assert said == "[31mno way \ufffd"


@pytest.mark.parametrize("text", ["\x9d", "\x1b]", "\x1b[1", "\x9b1", "\x90a", "\x1b(", "\x9d\x9b"], ids=repr)
def test_sequences_that_never_end_take_no_longer_than_their_text(text: str) -> None:
    begun = time.process_time()
    for_people(text * 100_000)
    assert time.process_time() - begun < 5  # a quadratic search takes minutes
