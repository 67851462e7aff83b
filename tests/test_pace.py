"""The pace: how much one session, or one token, may have done in a second."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sessionstore.web.tokens import Token
from tests.databases import drafted
from tests.test_writer import answers, failures, held, run, store_in, word, writes


def test_what_is_run_again_counts_once_towards_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as much as one may do in a second nothing is put off for an entry of somebody else that is refused."""
    monkeypatch.setattr("sessionstore.store.pace.MAX_REWRITTEN", 1)
    monkeypatch.setattr("sessionstore.web.tokens.NEW_SESSIONS", 1)

    async def test() -> None:
        async with store_in(tmp_path) as store:
            await store.writer.append(word())
            with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
                database.execute(
                    "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN NEW.kind = 'bad'"
                    " BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
            token = Token.of("agent", "ingest", "secret-of-an-agent", "file")
            begun = drafted("session_created", "new", {"initial": {}})
            begun.by = token
            group = [drafted("state_updated", "s", {"a": 1}), begun, word(), drafted("action", "s", {"type": "bad"})]
            with held(store.writer):
                futures = [store.writer.submit(writes(draft)) for draft in group]
            assert failures(await answers(futures)) == [422]

    run(test)
