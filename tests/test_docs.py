"""What is written about the appliance is true of it, and nothing that people need is left unwritten."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

import sessionstore
from app import create_app
from sessionstore.model.events import EventType
from sessionstore.settings import TABLE, Settings
from sessionstore.shards import FleetShard
from sessionstore.web.pages import AGENTS, ENDPOINTS
from tests.appliance import REPOSITORY

PACKAGE = REPOSITORY / "sessionstore"
LISTED = [
    name.removesuffix("/")
    for names in re.findall(r"^([a-z][\w, /]*?) {2,}\S", sessionstore.__doc__ or "", re.MULTILINE)
    for name in names.split(", ")
]
"""The wings in the contents list of the package, in its order."""


def text_of(name: str) -> str:
    path = REPOSITORY / name
    assert path.exists(), f"there is no {name}"
    return path.read_text()


def variables_in(text: str) -> set[str]:
    """The server's settings that a text names."""
    return set(re.findall(r"\bSESSIONS_[A-Z_]+[A-Z]\b|\bPORT\b", text))


@cache
def routes() -> set[str]:
    """Every method and path of the API, each parameter as {}."""
    shard = FleetShard(name="berlin", url="https://sessions-berlin.example.com")
    app = create_app(Settings(directory=Path("/nowhere"), fleet=(shard,))).litestar
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


# ------------------------------------------------------------- routes and settings


def test_the_list_of_settings_has_every_one_and_no_other() -> None:
    assert variables_in(text_of("docs/settings.md")) == {setting.variable for setting in TABLE.values()}


def test_the_list_of_routes_has_every_one_and_no_other() -> None:
    named = routes_in(text_of("docs/api.md"))
    files = {f"GET {path}" for path in AGENTS}
    known = {route for route in routes() - files if not route.startswith("GET /dashboard/")}
    assert known - named - {"GET /", "GET /ws", "GET /schema"} == set()
    assert {route for route in named if " /api/" in route} - known == set()
    assert {"/ws", "/schema"} <= set(re.findall(r"/\w+", text_of("docs/api.md")))


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
    faces = re.search(r"^const FACES = \{(.*?)^\};", text_of("dashboard/model/faces.js"), re.MULTILINE | re.DOTALL)
    assert faces is not None
    assert set(re.findall(r"^  ([a-z_]+): ", faces[1], re.MULTILINE)) - {"__proto__"} == set(get_args(EventType))


# ---------------------------------------------------------------------- the code


@cache
def modules() -> dict[str, ast.Module]:
    """The source of every module of the server, of export/, of lake/ and of app.py, by its full name."""
    paths = [REPOSITORY / "app.py", *PACKAGE.rglob("*.py")]
    paths += [*(REPOSITORY / "export").glob("*.py"), *(REPOSITORY / "lake").glob("*.py")]
    named = {str(path.relative_to(REPOSITORY).with_suffix("")).replace("/", "."): path for path in paths}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in named.items()}


def imports(tree: ast.Module, known: Iterable[str]) -> set[str]:
    """The modules, of those that are known, that a module uses, wherever in it that is said."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            used |= (names & set(known)) or {node.module}
    return used & set(known)


def wing_of(module: str) -> str:
    """The wing that a module stands in; what needs no wing of its own is one by itself."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "sessionstore" and rest else package


WINGS = ["export", "sessionstore", *LISTED, "app", "lake"]
"""From the ground to the roof."""


def test_the_contents_list_has_every_wing_and_no_other() -> None:
    known = {wing_of(module) for module in modules()} - {"export", "sessionstore", "app", "lake"}
    assert sorted(LISTED) == sorted(known)


HEADS = [*sorted(PACKAGE.glob("*/__init__.py")), REPOSITORY / "lake/__init__.py"]


@pytest.mark.parametrize("head", HEADS, ids=[path.parent.name for path in HEADS])
def test_the_head_of_a_wing_lists_its_rooms_as_they_build_on_each_other(head: Path) -> None:
    wing = head.parent
    rooms = re.findall(r"^([a-z]\w*) {2,}\S", ast.get_docstring(ast.parse(head.read_text())) or "", re.MULTILINE)
    assert sorted(rooms) == sorted(path.stem for path in wing.glob("[!_]*.py"))
    found = modules()
    names = [".".join([*wing.relative_to(REPOSITORY).parts, room]) for room in rooms]
    for number, name in enumerate(names):
        assert imports(found[name], found) & set(names) <= set(names[:number]), name


def test_a_wing_uses_only_those_above_it() -> None:
    found = modules()
    climbing = {
        f"{module} uses {used}"
        for module, tree in found.items()
        for used in imports(tree, found)
        if WINGS.index(wing_of(used)) > WINGS.index(wing_of(module)) and module != "export.__main__"
    }
    assert climbing == set()


def test_no_module_is_in_a_circle() -> None:
    found = modules()
    TopologicalSorter({module: imports(tree, found) for module, tree in found.items()}).prepare()


def test_an_upward_import_or_a_circle_would_be_noticed() -> None:
    lazy = ast.parse("def f():\n    from sessionstore.web import api")
    assert imports(lazy, modules()) == {"sessionstore.web.api"}
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_no_class_has_the_name_of_another() -> None:
    found = modules()
    named = [node.name for tree in found.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert {name for name, number in Counter(named).items() if number > 1} == set()


def test_every_module_says_what_it_is() -> None:
    for path in [*PACKAGE.rglob("[!_]*.py"), *REPOSITORY.glob("*.py"), *(REPOSITORY / "tests").glob("test_*.py")]:
        assert re.match(r'(#!.*\n)?"""[\w`]', path.read_text()), path
