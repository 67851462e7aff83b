"""README and docs/, done word for word: their commands are run in a shell, and print what is shown."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.pages import examples, fits, run

PAGES = ["README.md", "docs/agents.md", "docs/api.md", "docs/sql.md", "docs/files.md"]
"""In the order in which a reader does them; docs/operating.md and more-than-one-machine.md have tests of their own."""
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def test_every_command_prints_what_is_shown(appliance: Appliance) -> None:
    assert len(examples("README.md")) >= 8
    for page in PAGES:
        for example in examples(page):
            printed = run(example.command, appliance)
            assert fits(example.shown, printed), (
                f"{page}: $ {example.command}\nshows   {example.shown}\nprints  {printed}"
            )


def test_no_page_with_commands_is_left_out() -> None:
    pages = {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")} | {"README.md"}
    assert {page for page in pages if examples(page)} <= {*PAGES, "docs/operating.md", "docs/more-than-one-machine.md"}


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))])
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: str) -> None:
    place = REPOSITORY / page
    for target, heading in LINK.findall(place.read_text()):
        found = (place.parent / target).resolve() if target else place
        assert found.exists(), f"{page} links to {target}"
        if heading:
            heads = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert heading in known, f"{page} links to {target}#{heading}"


def test_a_command_that_prints_something_else_is_found() -> None:
    shown = '{"success":true,"cursor":…,"version":2}'
    assert fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":2}\n')
    assert not fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":3}\n')


def test_the_corpus_told_twice_is_stored_once(appliance: Appliance, http: httpx.Client) -> None:
    (replay,) = (example.command for example in examples("docs/agents.md") if "corpus" in example.command)
    run(replay, appliance)
    first = http.get("/api/events", params={"limit": 1000}).json()
    assert len(first["items"]) >= 464
    run(replay, appliance)
    assert http.get("/api/events", params={"limit": 1000}).json() == first


@pytest.mark.parametrize("line", ["Dashboard", "API", "Data", "Access"])
def test_the_greeting_is_the_one_shown(appliance: Appliance, line: str) -> None:
    assert f"\n  {line} " in (REPOSITORY / "README.md").read_text()
    assert appliance.said(f"\n  {line} ")
