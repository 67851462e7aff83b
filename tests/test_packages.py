"""The two wheels: what they need is named, what they lay down has one name, and installed alone they do their job."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sessionstore
from sessionstore.web.gate import FILES
from tests.appliance import REPOSITORY, Server

OWN = {"app", "export", "lake", "sessionstore"}
SECONDS = 120.0
IN_THE_CHECKOUT = ("*.egg-info", ".*", "build", "__pycache__", "tests", "claude-sessions")


def project(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
    return found


SERVER, AGENT = project("."), project("packages/hook-agent")
EXTRAS = SERVER["optional-dependencies"]
REQUIREMENTS = [*SERVER["dependencies"], *(need for name in ("notify", "push", "lake", "ask") for need in EXTRAS[name])]
NEEDED = {str(canonicalize_name(need.name)): need for need in map(Requirement, REQUIREMENTS)}

# ------------------------------------------------------------------------ what they need


def imported() -> set[str]:
    """The first names of all that the server and the exporter import, wherever in a module that is said."""
    names = set()
    rooms = (path for folder in ("sessionstore", "export", "lake") for path in (REPOSITORY / folder).rglob("*.py"))
    for path in [REPOSITORY / "app.py", *rooms]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - OWN


def test_all_that_the_server_imports_is_a_requirement_by_name() -> None:
    providers, names = packages_distributions(), imported()
    unnamed = {
        name for name in names if not {canonicalize_name(found) for found in providers.get(name, [])} & NEEDED.keys()
    }
    assert names >= {"litestar", "uvicorn", "hook_agent"}
    assert unnamed == set()


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_requirement_has_an_upper_bound_and_is_pinned_within_it(name: str) -> None:
    assert {"==", "<"} & {bound.operator for bound in NEEDED[name].specifier}
    if name == "hook-agent":
        assert NEEDED[name].specifier.contains(AGENT["version"])
        return
    pins = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().split())
    pinned = {str(canonicalize_name(other)): version for other, version in pins.items()}
    assert NEEDED[name].specifier.contains(pinned[name])


def test_both_have_the_version_of_the_program() -> None:
    assert SERVER["version"] == AGENT["version"] == sessionstore.__version__


def test_an_agent_needs_nothing() -> None:
    assert "dependencies" not in AGENT


# ------------------------------------------------------------------------ what they are


def run(*command: object, **more: Any) -> str:
    line = [str(word) for word in command]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        line, capture_output=True, text=True, timeout=SECONDS, **more
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both, by the name of the package, built without the network from a copy, so that nothing old is in it."""
    copy, made = tmp_path_factory.mktemp("build") / "checkout", tmp_path_factory.mktemp("wheels")
    shutil.copytree(REPOSITORY, copy, symlinks=True, ignore=shutil.ignore_patterns(*IN_THE_CHECKOUT))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    for folder in (copy, copy / "packages/hook-agent"):
        run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", made, folder)
    return {path.name.split("-")[0].replace("_", "-"): path for path in made.glob("*.whl")}


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


def test_the_store_is_one_package_with_all_that_it_reads(wheels: dict[str, Path]) -> None:
    names = names_in(wheels["session-store"])
    assert {name.split("/")[0] for name in names} == {"session_store"}
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).split()
    tops = ("app.py", "sessionstore/", "export/", "dashboard/", "dashboard.html")
    read = {name for name in listed if name.startswith(tops) or re.fullmatch(r"[a-z]+\.sql", name)}
    assert {f"session_store/{name}" for name in read if (REPOSITORY / name).exists()} <= names


def test_the_agent_is_its_files(wheels: dict[str, Path]) -> None:
    assert names_in(wheels["hook-agent"]) == {path.name for path in (REPOSITORY / "packages/hook-agent").glob("*.py")}


# ------------------------------------------------------------------------ what they do


class Environment:
    """A virtual environment with wheels, and nothing else but what `needs` has: it downloads nothing."""

    def __init__(self, folder: Path, *wheels: Path, needs: Path | None = None) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.bin = folder / "bin"
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.bin / "python")
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", *wheels)
        if needs:
            (site,) = folder.glob("lib/python*/site-packages")
            (site / "needs.pth").write_text(f"{needs}\n")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "SESSIONS_DIR": str(folder / "store"),
            "SESSION_SPOOL_DIR": str(folder / "spool"),
        }

    def run(self, command: str, *arguments: str, **more: Any) -> str:
        env = {**self.env, **more.pop("env", {})}
        return run(self.bin / command, *arguments, cwd=self.bin.parent, env=env, **more)


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    needs = Path(sysconfig.get_path("purelib"))
    return Environment(tmp_path_factory.mktemp("store"), *wheels.values(), needs=needs)


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("agent"), wheels["hook-agent"])


def test_the_installed_store_serves_exports_and_knows_its_tokens(installed: Environment) -> None:
    with Server([str(installed.bin / "session-store"), "serve"], installed.env) as server:
        said = httpx.post(f"{server.url}/api/actions/s", json={"type": "note"})
        assert said.json()["seq"] == 1
        files = (*(f"/{name}" for name in FILES), "/dashboard/main.js")
        for path in ("/", "/schema", "/datasette/", "/api/query/questions", *files):
            assert httpx.get(f"{server.url}{path}", follow_redirects=True).status_code == 200
        assert "has the database up to" in installed.run("session-store", "export", "backup", "backup.db")
        assert installed.run("session-store", "token", "add", "me", "--role", "admin").startswith("sst_")
    assert installed.run("session-store", "export", "verify") == "0 differences in 1 sessions\n"


def test_the_installed_store_starts_itself_anew_for_a_drill(installed: Environment) -> None:
    said = installed.run("session-store", "export", "drill", "--events", "50")
    assert said.endswith("Lost, of 50 acknowledged events: 0\n")


def test_the_installed_store_says_what_there_is(installed: Environment) -> None:
    assert installed.run("session-store", "--version") == f"session-store {sessionstore.__version__}\n"
    assert "serve" in installed.run("session-store", "--help")
    told = installed.run(
        "python", "-c", "from session_store import __main__; import sessionstore as s; print(s.EXPORT, s.TOKEN)"
    )
    assert told == "session-store export session-store token\n"
    wrong = subprocess.run([installed.bin / "session-store"], capture_output=True, text=True, timeout=SECONDS)
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_nothing_else_is_named_by_the_store(installed: Environment) -> None:
    look = "import importlib.util as u; print([n for n in ('app', 'export', 'sessionstore') if u.find_spec(n)])"
    assert installed.run("python", "-c", look) == "[]\n"


def test_the_installed_agent_keeps_and_delivers_what_a_hook_says(alone: Environment, server: Server) -> None:
    payload = {"hook_event_name": "UserPromptSubmit", "session_id": "from-a-wheel", "prompt": "Say hello"}
    url = {"SESSION_SERVICE_URL": server.url}
    assert alone.run("hook-agent", "hook", input=json.dumps(payload), env=url) == ""
    alone.run("hook-agent", "flush", env=url)
    actions = httpx.get(f"{server.url}/api/actions/from-a-wheel").json()
    assert [action["prompt"] for action in actions if action["type"] == "prompt"] == ["Say hello"]


@pytest.fixture
def server(appliance: Server) -> Server:
    return appliance
