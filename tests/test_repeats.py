"""What is marked as long has a quick sibling: no promise is kept by `make test-long` and CI alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.appliance import REPOSITORY
from tests.repeats import examples

FILES = sorted(Path(__file__).parent.glob("test_*.py"))


def found_tests(source: str) -> list[tuple[str, bool]]:
    """Each test of a file, and whether all of it is long."""
    return [
        (node.name, any(ast.unparse(decorator) == "pytest.mark.long" for decorator in node.decorator_list))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_file_is_wholly_long(file: Path) -> None:
    source = file.read_text()
    tests = found_tests(source)
    assert tests and not all(is_long for _, is_long in tests)
    assert not re.search(r"^pytestmark\b.*\blong\b", source, re.MULTILINE)


def test_a_file_that_is_wholly_long_is_found_out() -> None:
    assert found_tests("@pytest.mark.long\ndef test_kills(): ...") == [("test_kills", True)]


def test_continuous_integration_runs_both() -> None:
    steps = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert {"make test", "make test-long"} <= set(steps)
    makefile = (REPOSITORY / "Makefile").read_text()
    assert '-m "not long"' in makefile and '-m "long or hypothesis"' in makefile


def test_there_are_fewer_examples_in_make_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXAMPLES", raising=False)
    assert (examples(400), examples(1)) == (100, 15)
    others = re.findall(r"\bEXAMPLES=(\d+)", (REPOSITORY / "Makefile").read_text())
    assert others == ["1", "20"]
    for more in others:
        monkeypatch.setenv("EXAMPLES", more)
        assert examples(400) == 400 * int(more)
