"""What is written about the appliance is true of it, and nothing that people need is left unwritten."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest
from litestar import Litestar

import sessionstore
from app import create_app
from sessionstore.appliance import Store
from sessionstore.model.events import EventType
from sessionstore.settings import TABLE, Settings
from sessionstore.web.pages import ENDPOINTS
from sessionstore.web.tokens import Tokens
from tests.appliance import REPOSITORY

PACKAGE = REPOSITORY / "sessionstore"
LISTED = re.findall(r"^([a-z]\w*) {2,}\S", sessionstore.__doc__ or "", re.MULTILINE)
"""The modules in the contents list of the package, in its order."""


def text_of(name: str) -> str:
    path = REPOSITORY / name
    assert path.exists(), f"there is no {name}"
    return path.read_text()


def variables_in(text: str) -> set[str]:
    """The server's settings that a text names."""
    return set(re.findall(r"\bSESSIONS_[A-Z_]+[A-Z]\b|\bPORT\b", text))


def routes() -> set[str]:
    """Every method and path of the API, each parameter as {}."""
    settings = Settings(directory=Path("/nowhere"))
    gate = create_app(Store(settings), Tokens(settings))
    app: Litestar = gate.app.app.app  # type: ignore[attr-defined]
    return {
        f"{method} {without_names(route.path_format)}"
        for route in app.routes
        for method in (getattr(route, "methods", None) or {"GET"}) - {"OPTIONS"}
        if not route.path_format.startswith("/schema/")
    }


def without_names(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def routes_in(text: str) -> set[str]:
    """The routes that a text names, without their queries; a method alone after a route has the same path."""
    named = set()
    for methods, path, further in re.findall(r"\b((?:[A-Z]+, )*[A-Z]+) (/[^\s`?]*)[^\s`]*((?:` `[A-Z]+(?=`))*)", text):
        named |= {f"{method} {without_names(path)}" for method in re.findall(r"[A-Z]+", methods + further)}
    return named


# ------------------------------------------------------------------------ README


def test_the_readme_names_every_setting_and_no_other() -> None:
    assert variables_in(text_of("README.md")) == {setting.variable for setting in TABLE}


def test_the_readme_names_every_route_of_the_api_and_no_other() -> None:
    named = routes_in(text_of("README.md"))
    known = routes()
    assert known - named - {"GET /", "GET /ws", "GET /schema"} == set()
    assert {route for route in named if " /api/" in route} - known == set()
    assert {"/ws", "/schema"} <= set(re.findall(r"/\w+", text_of("README.md")))


def test_a_route_or_setting_that_is_left_out_would_be_noticed() -> None:
    text = "`GET /api/state/{id}?at=N` `PATCH`, `GET, POST /api/actions/{id}/responses`; PORT, SESSIONS_DIR, SESSION_ID"
    assert routes_in(text) == {
        "GET /api/state/{}",
        "PATCH /api/state/{}",
        "GET /api/actions/{}/responses",
        "POST /api/actions/{}/responses",
    }
    assert variables_in(text) == {"PORT", "SESSIONS_DIR"}


def test_where_a_program_finds_what_is_true() -> None:
    known = {route.partition(" ")[2] for route in routes()} | {"/datasette/"}
    assert {without_names(path) for path in ENDPOINTS.values()} <= known


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE"])
def test_the_file_that_people_look_for_is_there(name: str) -> None:
    assert text_of(name).strip()


def test_the_changelog_begins_with_this_version() -> None:
    heads = re.findall(r"^## \[?v?(\d+\.\d+\.\d+|Unreleased)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert sessionstore.__version__ in heads[:2]


# --------------------------------------------------------------------- the image


@pytest.mark.parametrize("name", ["app.py", "dashboard.html", "schema.sql", "views.sql", "queries.sql"])
def test_the_image_has_every_file_that_the_server_reads(name: str) -> None:
    assert re.search(rf"^COPY .*\b{name}\b", text_of("Dockerfile"), re.MULTILINE)
    assert f"!{name}" in text_of(".dockerignore").splitlines()


# ---------------------------------------------------------------------- the page


def test_the_page_knows_every_type_of_event_and_no_other() -> None:
    faces = re.search(r"^const FACES = \{(.*?)^\};", text_of("dashboard.html"), re.MULTILINE | re.DOTALL)
    assert faces is not None
    assert set(re.findall(r"^  ([a-z_]+): ", faces[1], re.MULTILINE)) - {"__proto__"} == set(get_args(EventType))


# ---------------------------------------------------------------------- the code


def test_the_contents_list_has_every_module_and_no_other() -> None:
    assert sorted(LISTED) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", LISTED)
def test_a_module_uses_only_those_above_it(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    used = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for name in ([node.module] if node.module else [alias.name for alias in node.names])
    } - {"__version__"}
    assert used <= set(LISTED[: LISTED.index(module)])


def test_every_module_says_what_it_is() -> None:
    for path in [*PACKAGE.glob("*.py"), *REPOSITORY.glob("*.py"), *(REPOSITORY / "tests").glob("test_*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text())), path
