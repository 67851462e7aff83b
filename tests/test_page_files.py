"""What the page is made of, as the server gives it out, and the agents' own files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import httpx
import pytest

from sessionstore import __version__
from sessionstore.model.events import LOGS, EventType
from sessionstore.store.reader import BRIEF, BRIEF_DEPTH, BRIEF_ITEMS, BRIEF_MEMBERS
from sessionstore.store.selection import DETAILS
from sessionstore.web import gate
from sessionstore.web.openapi_models import Status
from tests.appliance import REPOSITORY, Appliance

PAGE = REPOSITORY / "dashboard"
FILES = sorted(str(p.relative_to(REPOSITORY)) for p in PAGE.rglob("*") if p.suffix in (".js", ".css"))


LATER = {
    *("analytics", "figures", "fleet", "fleet.css", "model/spans", "model/timeline"),
    *("push", "search", "sessions", "sw", "welcome"),
} | {str(path.relative_to(PAGE)).removesuffix(".js") for path in (PAGE / "session").glob("*.js")}
"""What is fetched when it is first opened."""
AT_ONCE, WHOLE = 205_700, 336_400
"""Bytes at most of all that the page is before that, and of all of it; the fleet's page counts for itself."""


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_page_is_served_and_asked_for_once(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/{name}")
    assert answer.status_code == 200 and answer.content == (REPOSITORY / name).read_bytes()
    assert answer.headers["content-type"].startswith("text/css" if name.endswith(".css") else "text/javascript")
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = http.get(f"/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    is_later = name.removeprefix("dashboard/").removesuffix(".js") in LATER
    page = http.get("/", headers={"accept": "text/html"}).text
    assert (f'"{name}"' in page) is not is_later, "what is needed at once is asked for at once"


def test_the_page_is_small() -> None:
    at_once = [name for name in FILES if name.removeprefix("dashboard/").removesuffix(".js") not in LATER]
    assert len(at_once) == len(FILES) - len(LATER), "each is there"
    assert sum((REPOSITORY / name).stat().st_size for name in ("dashboard.html", *at_once)) <= AT_ONCE
    of_the_page = [name for name in FILES if not name.startswith("dashboard/fleet.")]
    assert sum((REPOSITORY / name).stat().st_size for name in ("dashboard.html", *of_the_page)) <= WHOLE


def test_nothing_that_is_fetched_later_is_asked_for_at_once() -> None:
    for path in PAGE.rglob("*.js"):
        name = str(path.relative_to(PAGE)).removesuffix(".js")
        told = re.findall(r"""^import (?:[^"]* from )?"(.+)\.js";$""", path.read_text(), re.MULTILINE)
        named = {str((path.parent / each).resolve().relative_to(PAGE)) for each in told}
        assert name in LATER or not named & LATER, name


@pytest.mark.parametrize(
    "path", ["..%2fapp.py", "%2e%2e/app.py", "package.json", "model", "", "none.js", "%2fetc%2fpasswd"]
)
def test_nothing_else_is(http: httpx.Client, path: str) -> None:
    assert http.get(f"/dashboard/{path}").status_code == 404


def test_the_page_runs_its_own_files_alone(http: httpx.Client) -> None:
    page = http.get("/", headers={"accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "sha256" not in policy
    assert not re.search(r"<style|<script>| style=| on[a-z]+=", page.text)


TOP = ("hook_agent.py",)
"""Not in containers/."""


@pytest.mark.parametrize("name", [*TOP, *(f"containers/{name}" for name in gate.FILES if name not in TOP)])
def test_the_agents_files_are_there_to_be_fetched(appliance: Appliance, name: str) -> None:
    path = REPOSITORY / name
    answer = httpx.get(f"{appliance.url}/{Path(name).name}")
    assert answer.content == path.read_bytes() and answer.headers["x-version"] == __version__


def test_the_page_goes_by_the_same_lists_as_the_server() -> None:
    said = (REPOSITORY / "dashboard" / "vocabulary.js").read_text()
    lists = {name: re.findall(r'"([^"]*)"', listed) for name, listed in re.findall(r'"(\w+)": \[(.*?)\]', said)}
    schema = (REPOSITORY / "schema.sql").read_text()
    assert lists["logs"] == list(LOGS) and set(lists["ended"]) < set(get_args(Status))
    faces = (REPOSITORY / "dashboard" / "model" / "faces.js").read_text().split("const FACES = {")[1].split("\n};")[0]
    told = set(re.findall(r"^  (\w+):", faces, re.MULTILINE)) - {"__proto__"}
    assert set(get_args(EventType)) <= told, "each has words of its own"
    assert f"a.kind NOT IN ({', '.join(map(repr, lists['noStep']))})" in DETAILS
    assert f"kind IN ({', '.join(map(repr, lists['failures']))})" in schema
    assert [int(number) for number in re.findall(r": (\d+)", said)] == [BRIEF, BRIEF_MEMBERS, BRIEF_ITEMS, BRIEF_DEPTH]
    for word in [*lists["notWanted"], *(tag.removeprefix("<") for tag in lists["machineMade"])]:
        assert f'"{word.replace(chr(39), chr(39) * 2)}"' in schema, word
