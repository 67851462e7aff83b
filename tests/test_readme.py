"""The README, done word for word: its commands are run in a shell, and print what it says they print."""

from __future__ import annotations

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.pages import examples, fits, run


def test_every_command_prints_what_is_shown(appliance: Appliance) -> None:
    assert len(examples("README.md")) >= 10
    for example in examples("README.md"):
        printed = run(example.command, appliance)
        assert fits(example.shown, printed), f"$ {example.command}\nshows   {example.shown}\nprints  {printed}"


def test_a_command_that_prints_something_else_is_found() -> None:
    shown = '{"success":true,"cursor":…,"version":2}'
    assert fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":2}\n')
    assert not fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":3}\n')


def test_the_corpus_told_twice_is_stored_once(appliance: Appliance, http: httpx.Client) -> None:
    (replay,) = (example.command for example in examples("README.md") if "corpus" in example.command)
    run(replay, appliance)
    first = http.get("/api/events", params={"limit": 1000}).json()
    assert len(first["items"]) >= 464
    run(replay, appliance)
    assert http.get("/api/events", params={"limit": 1000}).json() == first


@pytest.mark.parametrize("line", ["Dashboard", "API", "Data", "Access"])
def test_the_greeting_is_the_one_shown(appliance: Appliance, line: str) -> None:
    assert f"\n  {line} " in (REPOSITORY / "README.md").read_text()
    assert f"\n  {line} " in appliance.output
