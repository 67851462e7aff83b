"""The Agent SDK's session store over HTTP against a real server: the SDK's own contracts, and what they leave out."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    get_session_messages_from_store,
    list_sessions_from_store,
    query,
)
from claude_agent_sdk.testing import run_session_store_conformance

from containers.claude_session_store import Answer, SessionStorageStore, StoreRefused, StoreUnavailable, Wire
from tests.appliance import Appliance
from tests.claude_stub import ClaudeStub, says
from tests.crash import killed_every_second

prefixes = (f"store-{number}-" for number in count(1))
KILLS = 8
NDJSON = {"content-type": "application/x-ndjson"}
METHODS = {"append", "load", "list_sessions", "list_session_summaries", "delete", "list_subkeys"}


@pytest.fixture
def store(appliance: Appliance) -> SessionStorageStore:
    return made(appliance)


def made(server: Appliance) -> SessionStorageStore:
    """A store with nothing in it."""
    return SessionStorageStore(server.url, prefix=next(prefixes))


def key_of(session: str = "s", **more: str) -> Any:
    return {"project_key": "p", "session_id": session, **more}


# ------------------------------------------------------------------------ the SDK's own suite


def test_it_keeps_all_the_contracts_of_the_sdk(appliance: Appliance) -> None:
    stores = []

    def make_store() -> SessionStorageStore:
        stores.append(made(appliance))
        return stores[-1]

    asyncio.run(run_session_store_conformance(make_store))
    assert len(stores) == 15  # one for each of 14 contracts, and one to look at: none was skipped
    assert vars(SessionStorageStore).keys() >= METHODS


def test_it_keeps_them_where_every_other_answer_is_lost(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged, numbers = Wire.exchanged, count()

    def lose(*arguments: Any) -> Answer:
        answer = exchanged(*arguments)
        if next(numbers) % 2:
            raise ConnectionResetError("lost")
        return answer

    monkeypatch.setattr(Wire, "exchanged", lose)
    asyncio.run(run_session_store_conformance(partial(made, appliance)))
    assert next(numbers) > 100


def test_lines_without_a_name_for_their_batch_would_be_doubled(store: SessionStorageStore, http: httpx.Client) -> None:
    for _ in range(2):
        http.post(store._path(key_of()), content="{}\n", headers=NDJSON).raise_for_status()
    assert len(asyncio.run(store.load(key_of())) or []) == 2


@pytest.mark.long
def test_it_keeps_them_while_the_server_is_killed_every_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("containers.claude_session_store.PATIENCE", 60.0)
    with Appliance(tmp_path / "sessions") as server, killed_every_second(server) as kills:
        while kills() < KILLS:
            asyncio.run(run_session_store_conformance(partial(made, server)))


# --------------------------------------------------------------------------- what it leaves out

ODD: list[Any] = [
    {"type": "x", "text": "\ud800 lone, \x00 nul, \u2028, \U0001f9ff"},
    {"type": "x", "number": 10**400, "small": 1e-320, "beyond": float("inf"), "exact": 12345678901234567890.5},
    {"type": "x", "deep": [[[[[{"a": {"b": []}}]]]]], "": None},
    {"type": "x", "uuid": "same", "n": 1},
    {"type": "x", "uuid": "same", "n": 2},
    {"type": "x"},
    {"type": "x"},
]


def test_entries_come_back_as_they_were(store: SessionStorageStore) -> None:
    asyncio.run(store.append(key_of(), ODD))
    assert asyncio.run(store.load(key_of())) == ODD


def test_an_entry_may_have_twenty_mebibytes(store: SessionStorageStore) -> None:
    large: Any = {"type": "x", "image": "abcdefghij" * (2 << 20)}
    asyncio.run(store.append(key_of(), [large, {"type": "y"}]))
    assert asyncio.run(store.load(key_of())) == [large, {"type": "y"}]


@pytest.mark.parametrize("name", ["a/b", "..a", "%2F", "ü ?#&", "a\nb", "x" * 500, "~.", " "])
def test_keys_may_have_any_characters(store: SessionStorageStore, name: str) -> None:
    key: Any = {"project_key": name[:480], "session_id": name, "subpath": name}
    other: Any = {"project_key": name[:480], "session_id": name}
    asyncio.run(store.append(key, [{"type": "x"}]))
    assert asyncio.run(store.load(key)) == [{"type": "x"}]
    assert asyncio.run(store.load(other)) is None
    assert asyncio.run(store.list_subkeys(other)) == [name]


@pytest.mark.parametrize("bad", ["", "a\x00b", "x" * 600, "..", "../../etc/passwd"])
def test_a_subpath_that_cannot_be_one_is_refused(store: SessionStorageStore, bad: str) -> None:
    with pytest.raises(StoreRefused, match="422"):
        asyncio.run(store.append(key_of(subpath=bad), [{"type": "x"}]))
    assert asyncio.run(store.list_subkeys(key_of())) == []


def test_an_empty_id_is_no_conversation(store: SessionStorageStore) -> None:
    for call in (store.append(key_of(""), [{"type": "x"}]), store.load(key_of("")), store.delete(key_of(""))):
        with pytest.raises(StoreRefused, match="422"):
            asyncio.run(call)


def test_what_an_append_could_not_deliver_goes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("containers.claude_session_store.PATIENCE", 0.1)
    with Appliance(tmp_path / "sessions") as server:
        store = SessionStorageStore(server.url)
        first, second, third = ([{"type": "x", "n": number}] for number in range(3))
        asyncio.run(store.append(key_of(), first))  # type: ignore[arg-type]
        server.kill()
        for _ in range(3):  # as the SDK tries, before it gives the batch up
            with pytest.raises(StoreUnavailable):
                asyncio.run(store.append(key_of(), second))  # type: ignore[arg-type]
        server.start()
        asyncio.run(store.append(key_of(), third))  # type: ignore[arg-type]
        assert asyncio.run(store.load(key_of())) == first + second + third


def test_programs_that_fold_one_summary_lose_nothing_of_it(appliance: Appliance) -> None:
    prefix, prompts = next(prefixes), 12

    def write(number: int) -> None:
        own = SessionStorageStore(appliance.url, prefix=prefix)
        entries: list[Any] = [{"type": "x", "customTitle": "the title"} if number == 0 else {"type": "x"}]
        asyncio.run(own.append(key_of(), entries))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(prompts)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = SessionStorageStore(appliance.url, prefix=prefix)
    (summary,) = asyncio.run(store.list_session_summaries("p"))
    (session,) = asyncio.run(store.list_sessions("p"))
    assert summary["data"]["custom_title"] == "the title"
    assert len(asyncio.run(store.load(key_of())) or []) == prompts
    assert summary["mtime"] >= session["mtime"]


def test_a_summary_that_was_not_folded_is_made_up_for(store: SessionStorageStore, http: httpx.Client) -> None:
    asyncio.run(store.append(key_of(), [{"type": "x"}]))
    path = store._path(key_of())
    line = json.dumps({"type": "x", "customTitle": "unfolded"}) + "\n"
    http.post(path, content=line, headers=NDJSON).raise_for_status()
    asyncio.run(store.append(key_of(), [{"type": "x"}]))
    (summary,) = asyncio.run(store.list_session_summaries("p"))
    assert summary["data"]["custom_title"] == "unfolded"


# ------------------------------------------------------------------------------- the real program


@pytest.mark.long
def test_a_conversation_goes_on_under_another_home(appliance: Appliance, tmp_path: Path) -> None:
    """The SDK with its own Claude Code, which is given nothing but what the store has."""
    work, prefix = tmp_path / "work", next(prefixes)
    work.mkdir()

    async def say(stub: ClaudeStub, home: str, prompt: str, resume: str | None = None) -> ResultMessage:
        env = {
            "ANTHROPIC_BASE_URL": stub.url,
            "ANTHROPIC_API_KEY": "none",
            "HOME": str(tmp_path / home),
            "CLAUDE_CONFIG_DIR": str(tmp_path / home),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        store = SessionStorageStore(appliance.url, prefix=prefix)
        options = ClaudeAgentOptions(session_store=store, resume=resume, env=env, cwd=str(work))
        (result,) = [one async for one in query(prompt=prompt, options=options) if isinstance(one, ResultMessage)]
        return result

    async def converse() -> list[Any]:
        with ClaudeStub({"one": [[says("The first answer")]], "two": [[says("The second answer")]]}) as stub:
            first = await say(stub, "a", "[one] Begin")
            shutil.rmtree(tmp_path / "a", ignore_errors=True)
            second = await say(stub, "b", "[two] Go on", resume=first.session_id)
        assert (first.result, second.result) == ("The first answer", "The second answer")
        assert second.session_id == first.session_id
        store = SessionStorageStore(appliance.url, prefix=prefix)
        (listed,) = await list_sessions_from_store(store, directory=str(work))
        assert (listed.session_id, listed.first_prompt) == (first.session_id, "[one] Begin")
        return await get_session_messages_from_store(store, first.session_id, directory=str(work))

    messages = json.dumps([message.message for message in asyncio.run(converse())])
    told = ("[one] Begin", "The first answer", "[two] Go on", "The second answer")
    assert sorted(messages.index(text) for text in told) == [messages.index(text) for text in told]


def test_it_takes_one_store_where_several_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SERVICE_URL", "http://berlin:9000,http://munich:9000")
    with pytest.raises(ValueError, match="takes one"):
        Wire(None, None)
