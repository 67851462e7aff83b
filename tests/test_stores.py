"""Several stores in SESSION_SERVICE_URL: each session has one of them, and keeps it; and sessions that move."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import hook_agent
from tests import agents
from tests.agents import environment, hook, run, spool_in, waiting_in
from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done
from tests.peers import eventually
from tests.test_node import is_new_enough, nodes

fleet: Any = hook_agent._beside("hook_agent_fleet", "several stores")
pytestmark = pytest.mark.usefixtures("no_sender_is_left")

LISTED = ["http://berlin:9000", "http://munich:9000", "https://sessions.example.com/paris"]
VECTORS = {
    "session-1": 2,
    "session-4": 1,
    "session-5": 1,
    "4f1c2a9e-0000-4000-8000-000000000000": 2,
    "demo-1": 0,
    "a.b_c-d": 1,
}
"""Which of the listed stores has a session, in whatever language it is asked."""


def test_both_languages_choose_the_same_store(node: str) -> None:
    assert {session: LISTED.index(fleet.ranked(session, LISTED)[0]) for session in VECTORS} == VECTORS
    module = REPOSITORY / "containers" / "hook_agent_fleet.cjs"
    show = (
        f"const {{ ranked, addresses }} = require({json.dumps(str(module))});"
        "const [listed, sessions] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify(sessions.map((session) => ranked(session, addresses(listed)))))"
    )
    many = [*VECTORS, *(f"session-{number}" for number in range(200))]
    given = json.dumps([f" {LISTED[0]}/ , {LISTED[1]},{LISTED[2]},{LISTED[0]}", many])
    said = json.loads(subprocess.check_output([node, "-e", show, given]))
    assert said == [fleet.ranked(session, LISTED) for session in many]
    firsts = [ranked[0] for ranked in said]
    assert all(40 < firsts.count(url) < 100 for url in LISTED), "each has its share"


def test_who_is_taken_off_the_list_moves_no_other() -> None:
    for number in range(100):
        before = fleet.ranked(f"session-{number}", LISTED)
        assert fleet.ranked(f"session-{number}", LISTED[:2]) == [url for url in before if url != LISTED[2]]


@pytest.fixture(scope="module")
def node() -> str:
    if found := next(filter(is_new_enough, nodes()), None):
        return found
    pytest.skip("there is no Node here")


class Stores(NamedTuple):
    """Two that are listed, and one that is not."""

    one: Appliance
    two: Appliance

    @property
    def listed(self) -> str:
        return f"{self.one.url},{self.two.url}"

    def of(self, session: str) -> tuple[Appliance, Appliance]:
        """Its own, and the other."""
        own = fleet.ranked(session, [self.one.url, self.two.url])[0]
        return (self.one, self.two) if own == self.one.url else (self.two, self.one)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    folder = tmp_path_factory.mktemp("stores")
    with Appliance(folder / "one") as one, Appliance(folder / "two") as two:
        yield Stores(one, two)


def ids_at(store: Appliance, session: str) -> list[str]:
    answer = httpx.get(f"{store.url}/api/sessions/{session}/events", params={"limit": 1000})
    return [event["eventId"] for event in answer.json()["items"]] if answer.status_code == 200 else []


def sessions_for(stores: Stores, name: str) -> tuple[str, str]:
    """Ids of two sessions, the first of which the first store has, and the second the other."""
    ids = [f"{name}-{number}" for number in range(40)]
    return tuple(next(one for one in ids if stores.of(one)[0] is store) for store in stores)  # type: ignore[return-value]


def prompt(session: str, text: str, **more: object) -> bytes:
    return json.dumps({"session_id": session, "hook_event_name": "UserPromptSubmit", "prompt": text, **more}).encode()


def test_hooks_go_to_the_store_of_their_session(tmp_path: Path, stores: Stores) -> None:
    env = environment(tmp_path, stores.listed)
    first, second = sessions_for(stores, "hooked")
    for session in (first, second):
        assert hook(prompt(session, "Go"), env) == (0, b"", b"")
    late = json.dumps(
        {"hook_event_name": "UserPromptSubmit", "tool_input": {"session_id": first}, "session_id": second}
    )
    assert hook(late.encode(), env) == (0, b"", b""), "also where its id stands last"
    eventually(lambda: ids_at(stores.one, first) and len(ids_at(stores.two, second)) == 3)
    assert ids_at(stores.one, second) == ids_at(stores.two, first) == []


def test_a_session_keeps_the_store_it_began_with(tmp_path: Path, stores: Stores) -> None:
    first, _ = sessions_for(stores, "kept")
    assert hook(prompt(first, "Go"), environment(tmp_path, stores.one.url + "," + stores.one.url + "/x")) == (
        0,
        b"",
        b"",
    )
    assert fleet.chosen(first, str(tmp_path / "spool")).startswith(stores.one.url)
    (tmp_path / "spool" / "chosen" / first).write_text(stores.two.url)
    env = environment(tmp_path, stores.listed)
    assert hook(prompt(first, "On"), env) == (0, b"", b"")
    eventually(lambda: ids_at(stores.two, first))
    (tmp_path / "spool" / "chosen" / first).write_text("http://not.listed")
    assert hook(prompt(first, "On and on"), env) == (0, b"", b"")
    assert (tmp_path / "spool" / "chosen" / first).read_text() == stores.one.url, (
        "one that is gone from the list is left"
    )


WORK = """
import hook_agent, os, sys
with hook_agent.SessionHookAgent(sys.argv[1]).sync as agent:
    for number in range(int(sys.argv[2])):
        agent.log_action("step", number=number)
    print(agent.service_url)
    agent.flush(float(sys.argv[3]))
"""


def test_a_program_waits_for_its_store_and_splits_nothing(tmp_path: Path, stores: Stores) -> None:
    session, _ = sessions_for(stores, "waits")
    with Appliance(tmp_path / "third") as third:
        listed, gone = f"{third.url},{stores.two.url}", third.url
    session = next(one for one in (f"waits-{n}" for n in range(40)) if fleet.ranked(one, listed.split(","))[0] == gone)
    assert run(WORK, environment(tmp_path, listed), session, "5", "0.5").strip() == gone
    assert ids_at(stores.two, session) == []
    assert len(waiting_in(spool_in(tmp_path, gone))) == 7, "begun, five steps, and ended"


def test_it_goes_on_elsewhere_where_that_is_said(tmp_path: Path, stores: Stores) -> None:
    nobody = "http://127.0.0.1:1"
    listed = f"{nobody},{stores.two.url}"
    session = next(
        one for one in (f"fails-{n}" for n in range(40)) if fleet.ranked(one, listed.split(","))[0] == nobody
    )
    env = environment(tmp_path, listed, SESSION_FAILOVER_AFTER="0.2")
    assert hook(prompt(session, "Go"), env) == (0, b"", b"")
    spool = spool_in(tmp_path, nobody)
    eventually(lambda: fleet.is_away(nobody, 0.2, str(tmp_path / "spool")))
    patient = environment(tmp_path, listed, SESSION_FAILOVER_AFTER="3600")
    assert hook(prompt(session, "Still there"), patient) == (0, b"", b"")
    assert ids_at(stores.two, session) == [] and len(waiting_in(spool)) == 2
    assert hook(prompt(session, "On"), env) == (0, b"", b"")
    eventually(lambda: ids_at(stores.two, session))
    assert fleet.chosen(session, str(tmp_path / "spool")) == stores.two.url
    assert len(waiting_in(spool)) == 2, "what was said before waits for the store that it was said to"


GOING_ON = """
import hook_agent, sys, time
with hook_agent.SessionHookAgent(sys.argv[1], user_id="alice").sync as agent:
    first, until = agent.service_url, time.monotonic() + 30
    while agent.service_url == first and time.monotonic() < until:
        agent.log_action("step")
        time.sleep(0.02)
    agent.log_action("last")
    print(agent.service_url, agent.flush(10))
"""


def test_a_program_under_way_goes_on_elsewhere(tmp_path: Path, stores: Stores) -> None:
    listed = ("http://127.0.0.1:1", stores.two.url)
    session = next(one for one in (f"under-way-{n}" for n in range(40)) if fleet.ranked(one, [*listed])[0] == listed[0])
    env = environment(tmp_path, ",".join(listed), SESSION_FAILOVER_AFTER="0.3")
    assert run(GOING_ON, env, session) == f"{stores.two.url} True\n"
    there = httpx.get(f"{stores.two.url}/api/sessions/{session}").json()
    assert there["metadata"]["userId"] == "alice", "it has entered there"
    assert waiting_in(spool_in(tmp_path, listed[0]))[0]["type"] == "session_created"


LONG_WORK = """
import hook_agent, sys, time
with hook_agent.SessionHookAgent(sys.argv[1]).sync as agent:
    number = 0
    while True:
        print(agent.log_action("step", number=number)["eventId"], flush=True)
        number += 1
        time.sleep(0.002)
"""


def moved(stores: Stores, session: str, at: Appliance, to: Appliance) -> subprocess.CompletedProcess[str]:
    return export(at.folder, "move", session, "--to", to.url, "--url", at.url)


def test_a_program_that_goes_on_writing_is_led_to_where_its_session_went(tmp_path: Path, stores: Stores) -> None:
    session, _ = sessions_for(stores, "moves")
    command = [sys.executable, "-c", LONG_WORK, session]
    env = environment(tmp_path, stores.listed)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = [program.stdout.readline().strip() for _ in range(200)]
        eventually(lambda: len(ids_at(stores.one, session)) > 50)
        assert is_done(moved(stores, session, stores.one, stores.two))
        said += [program.stdout.readline().strip() for _ in range(200)]
        program.terminate()
        said += program.stdout.read().split()
    assert agents.command("flush", env).returncode == 0, "what a program leaves that is killed"
    ids = all_ids_at(stores.two, session)
    assert set(said) <= set(ids) and len(ids) == len(set(ids)) and ids_at(stores.one, session) == []
    assert [one for one in ids if one in set(said)] == said, "in their order"
    assert fleet.chosen(session, str(tmp_path / "spool")) == stores.two.url
    assert not list((tmp_path / "spool").rglob("letters*"))


def all_ids_at(store: Appliance, session: str) -> list[str]:
    found: list[str] = []
    after = 0
    while True:
        page = httpx.get(f"{store.url}/api/sessions/{session}/events", params={"limit": 1000, "after": after}).json()
        if not page.get("items"):
            return found
        found += [event["eventId"] for event in page["items"]]
        after = page["nextAfter"]


def test_what_follows_to_a_store_that_is_not_listed_waits_for_it(tmp_path: Path, stores: Stores) -> None:
    """An agent takes its token only where its own setting says."""
    session, _ = sessions_for(stores, "unlisted")
    env = environment(tmp_path, stores.one.url)
    assert hook(prompt(session, "Go"), env) == (0, b"", b"")
    eventually(lambda: ids_at(stores.one, session))
    assert is_done(moved(stores, session, stores.one, stores.two))
    before = ids_at(stores.two, session)
    assert hook(prompt(session, "On"), env) == (0, b"", b"")
    spool = spool_in(tmp_path, stores.two.url)
    eventually(lambda: len(waiting_in(spool)) == 1)
    assert ids_at(stores.two, session) == before
    assert hook(prompt(session, "And on"), environment(tmp_path, stores.listed)) == (0, b"", b"")
    eventually(lambda: len(ids_at(stores.two, session)) == len(before) + 2)


def test_each_command_is_about_all_of_them(tmp_path: Path, stores: Stores) -> None:
    env = environment(tmp_path, stores.listed)
    tested = agents.command("test", env)
    assert tested.returncode == 0 and all(store.url in tested.stdout for store in stores)
    gone = agents.command("test", environment(tmp_path, f"http://127.0.0.1:1,{stores.one.url}"))
    assert gone.returncode == 1 and "127.0.0.1:1" in gone.stderr and stores.one.url in gone.stdout
    status = agents.command("status", env)
    assert status.returncode == 0 and status.stdout.count("0 events of 0 sessions wait") == 2


def test_without_its_file_the_first_is_taken(tmp_path: Path, stores: Stores) -> None:
    shutil.copy(REPOSITORY / "hook_agent.py", tmp_path)
    _, session = sessions_for(stores, "alone")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WORK}"
    env = environment(tmp_path, stores.listed)
    del env["PYTHONPATH"]
    assert run(code, env, session, "2", "10").strip() == stores.one.url
    assert len(ids_at(stores.one, session)) == 4


# ------------------------------------------------------------------------------------ Node

NODE_WORK = """
import { SessionHookAgent } from '%s';
const agent = new SessionHookAgent(process.argv[2]);
console.log(agent.serviceUrl);
for (let number = 0; number < Number(process.argv[3]); number += 1) {
  const { eventId } = await agent.logAction({ type: 'step', number });
  console.log(eventId);
  await new Promise((done) => setTimeout(done, 2));
}
console.log(await agent.flush(10_000));
"""


def node_program(tmp_path: Path) -> Path:
    (path := tmp_path / "program.mjs").write_text(NODE_WORK % (REPOSITORY / "containers" / "hook_agent.mjs"))
    return path


def test_a_node_program_has_the_same_store(node: str, tmp_path: Path, stores: Stores) -> None:
    for session, store in zip(sessions_for(stores, "node"), stores, strict=True):
        said = subprocess.check_output(
            [node, node_program(tmp_path), session, "3"], env=environment(tmp_path, stores.listed), text=True
        ).split()
        assert (said[0], said[-1]) == (store.url, "true")
        assert [one for one in ids_at(store, session) if one in said] == said[1:-1]
        assert fleet.chosen(session, str(tmp_path / "spool")) == store.url


def test_a_node_program_is_led_to_where_its_session_went(node: str, tmp_path: Path, stores: Stores) -> None:
    session, _ = sessions_for(stores, "node-moves")
    command = [node, str(node_program(tmp_path)), session, "400"]
    env = environment(tmp_path, stores.listed)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().strip() == stores.one.url
        eventually(lambda: len(ids_at(stores.one, session)) > 20)
        assert is_done(moved(stores, session, stores.one, stores.two))
        said = program.stdout.read().split()
    eventually(lambda: set(said[:-1]) <= set(all_ids_at(stores.two, session)))
    ids = all_ids_at(stores.two, session)
    assert len(ids) == len(set(ids)) and [one for one in ids if one in set(said)] == said[:-1]
