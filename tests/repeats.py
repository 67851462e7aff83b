"""How often a fault is repeated: a few times in `make test`, many in `make test-long`, very many in `make soak`."""

from __future__ import annotations

import os

import pytest


def repeated(name: str, *, few: float, many: float, variable: str) -> pytest.MarkDecorator:
    """Run a test with `few` and, marked as long, with `many`, or as many as the environment says in `variable`."""
    often = type(many)(os.environ.get(variable, many))
    return pytest.mark.parametrize(name, [pytest.param(few, id="few"), pytest.param(often, id="many", marks=LONG)])


LONG = pytest.mark.long
