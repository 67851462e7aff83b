"""`python -m tests.bench.unindexed`: the server, but its full-text index never comes forward."""

from __future__ import annotations

import sys
from unittest import mock

import app
from sessionstore.store.writer import Writer

if __name__ == "__main__":
    with mock.patch.object(Writer, "index", lambda writer, *_: False):
        sys.exit(app.serve())
