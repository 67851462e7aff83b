"""How often a fault is repeated: a few times in `make test`, many in `make test-long`, very many in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from typing import Any

import pytest


def repeated(name: str, *, few: float | None = None, many: float, variable: str) -> pytest.MarkDecorator:
    """Run a test with `few`, if that is worth its time, and, marked as long, with `many`, or as many as the environment
    says in `variable`."""
    often = pytest.param(type(many)(os.environ.get(variable, many)), id="many", marks=LONG)
    return pytest.mark.parametrize(name, [often] if few is None else [pytest.param(few, id="few"), often])


def marked(values: Iterable[Any], *, long: Container[Any]) -> list[Any]:
    """The values of a parameter, or of several as tuples, of which some make a test long."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else [value]), marks=[LONG] if value in long else [])
        for value in values
    ]


def examples(many: int) -> int:
    """Of how many examples of hypothesis there are to be `many` in `make test-long`; in `make test` it is a quarter."""
    return max(15, int(many * float(os.environ.get("EXAMPLES", "0.25"))))


LONG = pytest.mark.long
