"""docs/operating.md, done word for word, on a store that has something in it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.appliance import Appliance
from tests.pages import check, examples

PAGE = "docs/operating.md"


@pytest.fixture
def lived_in(folder: Path) -> Appliance:
    """A store, stopped, that has taken in a session."""
    appliance = Appliance(folder)
    with appliance:
        said = {"type": "note", "text": "The key is ACME-0123456789abcdef0123456789abcdef"}
        httpx.post(f"{appliance.url}/api/actions/s", json=said).raise_for_status()
        httpx.post(f"{appliance.url}/api/sessions/s/finalize", json={}).raise_for_status()
    return appliance


def test_every_command_prints_what_is_shown(lived_in: Appliance) -> None:
    with Appliance(lived_in.folder) as appliance:
        check(PAGE, appliance)


def test_what_needs_a_stopped_server_is_told_from_what_does_not() -> None:
    wants = {
        example.command.split()[3]: example.wants_server for example in examples(PAGE) if "export" in example.command
    }
    assert wants["backup"]
    assert not wants["restore"]
