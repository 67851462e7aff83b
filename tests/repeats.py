"""How often a fault is repeated: a few times in `make test`, many in `make test-long`, very many in `make soak`."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from typing import Any

import pytest


def repeated(name: str, *, few: float, many: float, variable: str) -> pytest.MarkDecorator:
    """Run a test with `few` and, marked as long, with `many`, or as many as the environment says in `variable`."""
    often = type(many)(os.environ.get(variable, many))
    return pytest.mark.parametrize(name, [pytest.param(few, id="few"), pytest.param(often, id="many", marks=LONG)])


def marked(values: Iterable[Any], *, long: Container[Any]) -> list[Any]:
    """The values of a parameter, of which some make a test long."""
    return [pytest.param(value, marks=[LONG] if value in long else []) for value in values]


LONG = pytest.mark.long
