"""LangGraph's checkpointer over HTTP against a real server: the official suite, and what it leaves out."""

from __future__ import annotations

import asyncio
import base64
import json
import operator
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import START, StateGraph

from containers.langgraph_checkpointer import SessionStoreSaver, StoreRefused
from hook_agent import SyncSessionHookAgent
from tests.appliance import REPOSITORY, Appliance
from tests.crash import killed_every_second
from tests.peers import eventually

threads = (f"thread-{number}" for number in count(1))
CHECKS, KILLS = 81, 8
NDJSON = {"content-type": "application/x-ndjson"}
WRITE = b"""\
{"write": {"checkpoint": "1", "task": "t", "number": NUMBER, "channel": "c", "value": {"type": "x", "data": ""}}}"""


VALUE = b'{"channel": "c", "version": 1, "value": {"type": "x", "data": ""}}'


@pytest.fixture
def thread() -> str:
    """One that nobody has used."""
    return next(threads)


@pytest.fixture
def saver(appliance: Appliance) -> SessionStoreSaver:
    return SessionStoreSaver(appliance.url)


def config_of(thread: str, **more: str) -> Any:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **more}}


def put(saver: SessionStoreSaver, config: Any, **values: Any) -> Any:
    """A checkpoint with these values, all of them new; the configuration that names it."""
    checkpoint = empty_checkpoint()
    versions: Any = {name: saver.get_next_version(None, None) for name in values}
    checkpoint |= {"channel_values": values, "channel_versions": versions}
    return saver.put(config, checkpoint, {"source": "loop", "step": 1}, versions)


def typed(data: bytes = b"x", kind: str = "msgpack") -> dict[str, str]:
    return {"type": kind, "data": base64.b64encode(data).decode()}


# --------------------------------------------------------------------------- the official suite


def test_it_passes_every_check_of_the_official_suite(appliance: Appliance) -> None:
    passes_every_check(appliance)


@pytest.mark.long
def test_it_passes_them_while_the_server_is_killed_every_second(tmp_path: Path) -> None:
    with Appliance(tmp_path / "sessions") as server, killed_every_second(server) as kills:
        while kills() < KILLS:
            passes_every_check(server)


def passes_every_check(server: Appliance) -> None:
    @checkpointer_test(name="SessionStoreSaver")
    async def savers() -> AsyncIterator[SessionStoreSaver]:
        yield SessionStoreSaver(server.url)

    report = asyncio.run(validate(savers))
    results = report.results.values()
    assert [failure for result in results for failure in result.failures] == []
    assert all(result.detected and not result.tests_skipped for result in results)
    assert sum(result.tests_passed for result in results) == CHECKS


# ---------------------------------------------------------------------------- killed, and resumed


def test_a_graph_that_was_killed_goes_on_in_another_process(
    appliance: Appliance, http: httpx.Client, thread: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.killed_graph", appliance.url, thread, str(tmp_path)]
    steps = f"/api/checkpoints/{thread}/steps"

    def ran() -> list[str]:
        return (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []

    def newest() -> Any:
        answer = http.get(steps)
        found = answer.json()["items"] if answer.status_code == 200 else []
        return found[0] if found else {"written": []}

    def went_on(*answer: str) -> str:
        return subprocess.run([*command, *answer], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout

    first = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        eventually(lambda: "said" in newest()["written"] and set(ran()) == {"fast", "slow"}, within=60.0)
    finally:
        first.kill()
        first.wait()
    (tmp_path / "go").touch()
    assert "__interrupt__" in went_on()
    assert sorted(ran()) == ["fast", "slow", "slow"]  # fast had finished, and did not run again
    assert newest()["waits"] is True
    assert "['begin', 'fast', 'slow', 'yes']" in went_on("yes")
    assert sorted(ran()) == ["fast", "slow", "slow"]
    asked = [step for step in http.get(steps).json()["items"] if "__interrupt__" in step["written"]]
    assert [step["waits"] for step in asked] == [False]  # it has waited


class State(TypedDict):
    log: Annotated[list[int], operator.add]


def test_a_graph_on_an_event_loop_has_its_history(saver: SessionStoreSaver, thread: str) -> None:
    builder = StateGraph(State)
    builder.add_node("node", lambda state: {"log": [len(state["log"])]})
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)

    async def run() -> list[Any]:
        for _ in range(2):
            await graph.ainvoke({"log": []}, config_of(thread))
        return [state async for state in graph.aget_state_history(config_of(thread))]

    history = asyncio.run(run())
    assert history[0].values == {"log": [0, 1]}
    fork = graph.update_state(history[2].config, {"log": [7]})
    assert graph.get_state(fork).values["log"][-1] == 7
    assert graph.get_state(history[0].config).values == {"log": [0, 1]}


# ------------------------------------------------------------------------------------------ room


def pages_of(server: Appliance) -> int:
    """Bytes of the database that are used."""
    with sqlite3.connect(f"file:{server.folder / 'sessions.db'}?mode=ro", uri=True) as database:
        ((used,),) = database.execute(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
    database.close()
    return int(used)


def test_a_step_costs_what_has_changed_in_it(appliance: Appliance, saver: SessionStoreSaver, thread: str) -> None:
    large = {f"channel-{number}": os.urandom(5_000) for number in range(10)}
    config = put(saver, config_of(thread), **large)
    saved = saver.get_tuple(config)
    assert saved is not None
    before, steps = pages_of(appliance), 100
    for _ in range(steps):
        checkpoint = empty_checkpoint()
        versions: Any = saved.checkpoint["channel_versions"] | {"small": saver.get_next_version(None, None)}
        values = {**large, "small": os.urandom(1_000)}
        checkpoint |= {"channel_values": values, "channel_versions": versions}
        config = saver.put(config, checkpoint, {"step": 1}, {"small": versions["small"]})
        saver.put_writes(config, [("small", values["small"])], "task")
    assert (pages_of(appliance) - before) / steps < 4_000
    again = saver.get_tuple(config)
    assert again is not None and again.checkpoint["channel_values"] == values


def test_there_is_a_bound_for_the_steps_too(tmp_path: Path) -> None:
    """Whatever they are made of: what the program reads, what people may read, names."""

    def step(number: int, **large: Any) -> str:
        bare: dict[str, Any] = {"id": f"{number}", "versions": {}, "checkpoint": typed(), "metadata": typed()}
        return json.dumps({"checkpoint": bare | large})

    def written(number: int) -> str:
        names = {"checkpoint": "1", "task": f"{number}", "path": "x" * 4000, "channel": "y" * 4000}
        return "\n".join(json.dumps({"write": names | {"number": n, "value": typed()}}) for n in range(50))

    random = os.urandom(400_000)
    kinds: dict[str, Callable[[int], str]] = {
        "checkpoint": lambda number: step(number, checkpoint=typed(random)),
        "about": lambda number: step(number, about={"x": random.hex()[:400_000]}),
        "versions": lambda number: step(number, versions={random.hex()[:400_000]: 1}),
        "names": written,
    }
    bounds = {"SESSIONS_MAX_MATERIAL": "1M,5000000"}
    with Appliance(tmp_path / "sessions", bounds) as server, httpx.Client(base_url=server.url) as http:

        def told(thread: str, kind: str, number: int, **more: str) -> int:
            url, headers = f"/api/checkpoints/{thread}", NDJSON | more
            return http.post(url, content=kinds[kind](number), headers=headers).status_code

        for kind in kinds:
            of_one = [told(f"{kind}-{n % 2}", kind, n, **{"x-session-id": kind}) for n in range(4)]
            assert of_one == [200, 200, 413, 413], kind
        same = [told("lone", "about", 0) for _ in range(3)]  # which takes no more
        assert [*same, *(told("lone", "about", n) for n in (1, 2))] == [200, 200, 200, 200, 413]
        assert [told(f"other-{n}", "about", n) for n in range(4)] == [200, 200, 413, 413]  # that is all of them
        assert http.post("/api/checkpoints/lone/copy", json={"to": "copy"}).status_code == 413
        for thread in [one["thread"] for one in http.get("/api/checkpoints").json()["items"]]:
            http.delete(f"/api/checkpoints/{thread}")
        eventually(lambda: told("other", "about", 1) == 200)


def test_a_copy_shares_its_values(appliance: Appliance, saver: SessionStoreSaver, thread: str) -> None:
    config = put(saver, config_of(thread), large=os.urandom(1 << 20))
    before = pages_of(appliance)
    saver.copy_thread(thread, f"{thread}-copy")
    assert pages_of(appliance) - before < 1 << 18
    saver.delete_thread(thread)
    assert saver.get_tuple(config) is None
    copied = saver.get_tuple(config_of(f"{thread}-copy"))
    assert copied is not None and len(copied.checkpoint["channel_values"]["large"]) == 1 << 20


def values_of(server: Appliance, scope: str) -> list[int]:
    with sqlite3.connect(f"file:{server.folder / 'sessions.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT uses FROM checkpoint_values WHERE scope = ?", (f"thread {scope}",)).fetchall()
    database.close()
    return sorted(uses for (uses,) in rows)


def test_prune_leaves_nothing_of_what_nobody_names(appliance: Appliance, saver: SessionStoreSaver, thread: str) -> None:
    config = config_of(thread)
    for number in range(4):
        config = put(saver, config, own=number, same="same")
    assert values_of(appliance, thread) == [1, 1, 1, 1, 4]
    saver.prune([thread])
    assert values_of(appliance, thread) == [0, 0, 0, 1, 1]
    last = saver.get_tuple(config_of(thread))
    assert last is not None and last.checkpoint["channel_values"] == {"own": 3, "same": "same"}


def test_prune_keeps_what_a_delta_channel_is_rebuilt_from(saver: SessionStoreSaver, thread: str) -> None:
    config = put(saver, config_of(thread), other=0)
    config = whole = put(saver, config, delta="whole")
    for number in range(3):
        checkpoint = empty_checkpoint()
        checkpoint["channel_versions"] = {"delta": f"{number}"}
        config = saver.put(config, checkpoint, {"counters_since_delta_snapshot": {"delta": (1, 1)}}, {})
    saver.prune([thread])
    kept = [one.checkpoint["id"] for one in saver.list(config_of(thread))]
    assert len(kept) == 4 and kept[-1] == whole["configurable"]["checkpoint_id"]


def test_a_value_may_have_twenty_mebibytes(saver: SessionStoreSaver, thread: str) -> None:
    large = os.urandom(20 << 20)
    config = put(saver, config_of(thread), large=large, small=1)
    found = saver.get_tuple(config)
    assert found is not None and found.checkpoint["channel_values"] == {"large": large, "small": 1}


# ----------------------------------------------------------------------------------- whose it is


def test_a_thread_goes_with_the_session_that_it_belongs_to(
    saver: SessionStoreSaver, http: httpx.Client, thread: str, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "x"})
    monkeypatch.setenv("SESSION_ID", session_id)
    config = put(saver, config_of(thread), a=1)
    listed: Any = {one["thread"]: one for one in http.get("/api/checkpoints?limit=1000").json()["items"]}
    assert listed[thread]["sessionId"] == session_id
    own = http.get("/api/checkpoints", params={"sessionId": session_id}).json()["items"]
    assert [one["thread"] for one in own] == [thread]
    http.delete(f"/api/sessions/{session_id}")
    assert saver.get_tuple(config) is None


def test_handler_and_saver_agree_on_the_session_of_a_thread(
    appliance: Appliance, saver: SessionStoreSaver, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    early, late = next(threads), next(threads)
    put(saver, config_of(early), a=1)
    with SyncSessionHookAgent(session_id, appliance.url, "alice", spool_dir=tmp_path / "spool") as agent:
        builder = StateGraph(State)
        builder.add_node("node", lambda state: {"log": [1]})
        builder.add_edge(START, "node")
        graph = builder.compile(checkpointer=saver)
        for thread in (early, late):
            graph.invoke({"log": []}, config_of(thread) | {"callbacks": [agent.langchain_handler()]})
        assert agent.flush(60)
    listed: Any = {one["thread"]: one for one in http.get("/api/checkpoints?limit=1000").json()["items"]}
    assert [listed[thread]["sessionId"] for thread in (early, late)] == [session_id, session_id]


# ------------------------------------------------------------------------------------- bad input


def test_bytes_that_are_no_msgpack_are_kept_as_they_are(http: httpx.Client, thread: str) -> None:
    value = {"channel": "c", "version": 1, "value": typed(b"\xc1 no msgpack")}
    step = {"id": "1", "checkpoint": typed(b"\xff"), "metadata": typed(b""), "versions": {"c": 1}}
    body = "".join(json.dumps(line) + "\n" for line in ({"value": value}, {"checkpoint": step}))
    answer = http.post(f"/api/checkpoints/{thread}", content=body, headers=NDJSON)
    assert answer.json() == {"success": True, "count": 2}
    given, found = map(json.loads, http.get(f"/api/checkpoints/{thread}").text.splitlines())
    assert base64.b64decode(given["value"]["data"]) == b"\xc1 no msgpack"
    assert found["checkpoint"]["checkpoint"] == typed(b"\xff")


def test_names_may_be_as_long_as_graphs_within_graphs_make_them(saver: SessionStoreSaver, thread: str) -> None:
    """A graph goes by them, so one that is refused would stop it."""
    node, graph = "node" * 300, StateGraph(State)
    graph.add_node(node, lambda state: {"log": [1]})
    graph.add_edge(START, node)
    for depth in range(12):
        around = StateGraph(State)
        around.add_node("a_graph_within_a_graph", graph.compile(checkpointer=None if depth else True))
        around.add_edge(START, "a_graph_within_a_graph")
        graph = around
    config: Any = config_of(thread) | {"metadata": {"note": "half \ud800 a pair"}, "recursion_limit": 100}
    assert graph.compile(checkpointer=saver).invoke({"log": []}, config)["log"] == [1]
    kept = [*saver.list({"configurable": {"thread_id": thread}})]
    assert max(len(one.config["configurable"]["checkpoint_ns"]) for one in kept) > 512
    assert kept[0].metadata["note"] == "half ? a pair"  # type: ignore[typeddict-item]


def test_an_empty_id_is_no_thread(saver: SessionStoreSaver) -> None:
    for call in (lambda: put(saver, config_of("")), lambda: saver.get_tuple(config_of(""))):
        with pytest.raises(StoreRefused, match="422"):
            call()


def test_of_runs_those_are_deleted_that_are_named(saver: SessionStoreSaver, thread: str) -> None:
    for run in ("a", "a,b"):
        saver.put(config_of(thread), empty_checkpoint(), {"step": 1, "run_id": run}, {})
    saver.delete_for_runs(["a,b"])
    assert [one.metadata["run_id"] for one in saver.list(config_of(thread))] == ["a"]


def checkpoint(number: int, about: str = "{}") -> bytes:
    said = {"id": f"{number:03}", "versions": {}, "checkpoint": typed(), "metadata": typed(), "about": "ABOUT"}
    return json.dumps({"checkpoint": said}).replace('"ABOUT"', about).encode() + b"\n"


def test_a_page_of_steps_has_a_bound_of_bytes(http: httpx.Client, thread: str) -> None:
    """What is said of each may be large, and a page may have a thousand."""
    path = f"/api/checkpoints/{thread}"
    for number in range(3):
        large = json.dumps({"text": "x" * (9 << 20)})
        assert http.post(path, content=checkpoint(number, large), headers=NDJSON).status_code == 200
    pages: list[list[str]] = []
    before: str | None = ""
    while before is not None and len(pages) < 5:
        page = http.get(f"{path}/steps?limit=1000{before and f'&before={before}'}").json()
        pages.append([one["id"] for one in page["items"]])
        before = page["nextBefore"]
    assert pages == [["002"], ["001"], ["000"]]
    lines = http.get(f"{path}?limit=1000").text.splitlines()
    assert [json.loads(line)["checkpoint"]["id"] for line in lines] == ["002", "001", "000"]


def test_what_takes_memory_many_times_over_is_refused(http: httpx.Client, thread: str) -> None:
    """16 million empty lists, of two bytes each, took a gigabyte, and held everybody up."""
    path = f"/api/checkpoints/{thread}"
    for lists, status in ((90_000, 200), (110_000, 413)):
        line = checkpoint(1, f'{{"a": [{",".join(["[]"] * (lists // 2))}]}}')
        assert http.post(path, content=line, headers=NDJSON).status_code == status


@pytest.mark.long
def test_as_many_lines_come_at_once_as_may_be(http: httpx.Client, thread: str) -> None:
    """Each was once compared with all that came before it."""
    write = {"checkpoint": "1", "task": "t", "channel": "c", "value": typed()}
    lines = [json.dumps({"write": write | {"number": number}}) for number in range(10_001)]
    for number, status in ((10_000, 200), (10_001, 413)):
        body = "\n".join(lines[:number])
        assert http.post(f"/api/checkpoints/{thread}", content=body, headers=NDJSON).status_code == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"\x82\xa1a no json", 400),
        (b"{}", 422),
        (WRITE.replace(b"NUMBER", b"1")[:-1] + b', "value": ' + VALUE + b"}", 422),
        (b'{"value": {"channel": "c", "version": 1}}', 422),
        (b'{"value": {"channel": "c", "version": 1, "value": {"type": "x", "data": "no base64!"}}}', 422),
        (b'{"value": {"channel": "a\\u0000", "version": 1, "value": {"type": "x", "data": ""}}}', 422),
        (b'{"other": 1}', 422),
        (b'{"value": {"channel": "c", "version": true, "value": {"type": "x", "data": ""}}}', 422),
        (WRITE.replace(b"NUMBER", b"9223372036854775808"), 422),
        (b'{"value": {"channel": "\\ud800", "version": 1, "value": {"type": "x", "data": ""}}}', 400),
    ],
)
def test_a_line_that_cannot_be_kept_takes_the_others_with_it(
    http: httpx.Client, thread: str, line: bytes, status: int
) -> None:
    good = json.dumps({"write": {"checkpoint": "1", "task": "t", "number": 0, "channel": "c", "value": typed()}})
    answer = http.post(f"/api/checkpoints/{thread}", content=good.encode() + b"\n" + line + b"\n", headers=NDJSON)
    assert answer.status_code == status
    assert http.get(f"/api/checkpoints/{thread}/steps").status_code == 404


def test_what_is_not_there_is_told_so(http: httpx.Client, thread: str) -> None:
    for path in ("", "/steps"):
        assert http.get(f"/api/checkpoints/{thread}{path}").status_code == 404
    assert http.post(f"/api/checkpoints/{thread}/prune", json={"keep": {"": ["1"]}}).status_code == 404
    assert http.post(f"/api/checkpoints/{thread}/copy", json={"to": "x"}).status_code == 404
    assert http.delete(f"/api/checkpoints/{thread}").json()["deleted"] == 0
    for name in ("%00", "%2E%2E", "x" * 513, "%ff"):
        assert http.get(f"/api/checkpoints/{name}").status_code == 422
    assert http.post(f"/api/checkpoints/{thread}", content=b"{}", headers={"content-type": "text/x"}).status_code == 415


def test_both_files_speak_to_the_store_in_the_same_way() -> None:
    """Each is copied alone, so each has it."""
    texts = [
        (REPOSITORY / "containers" / name).read_text()
        for name in ("claude_session_store.py", "langgraph_checkpointer.py")
    ]
    wires = [text[text.index("ANSWER_SECONDS") : text.index("def quoted")] for text in texts]
    assert wires[0] == wires[1] and len(wires[0]) > 2000


def test_it_takes_one_store_where_several_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSION_SERVICE_URL", "http://berlin:9000,http://munich:9000")
    with pytest.raises(ValueError, match="takes one"):
        SessionStoreSaver()
