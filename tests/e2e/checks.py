"""What has to be true of all of it together, in the order in which it comes to be."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple
from uuid import uuid4

import httpx
from playwright.sync_api import expect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.browsing import launched

from .worlds import AGENTS, Failed, Json, Store, World, eventually

START_SECONDS = 60.0
WORK_SECONDS = 120.0
LEAST_GOALS = {"customer": 20, "email": 30, "claude": 2}
WRITERS = 4
LOAD_SECONDS = 3.0
SOME = 200
"""Writes that have to be acknowledged before it is worth killing anybody."""


def must(holds: object, why: str) -> None:
    if not holds:
        raise Failed(why)


class Listener(threading.Thread):
    """Somebody who watches the live feed from before the agents begin."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        headers = {"authorization": f"Bearer {token}"}
        self._socket: ClientConnection = connect(
            url.replace("http://", "ws://") + "/ws", additional_headers=headers, proxy=None
        )
        self.messages: list[str | bytes] = []
        self.start()

    def run(self) -> None:
        try:
            for message in self._socket:
                self.messages.append(message)
        except ConnectionClosed:  # with the store; what came before is what is looked at
            pass

    def close(self) -> None:
        self._socket.close()


class Scene:
    """A world, and what the checks have found out of it so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sessions: dict[str, str] = {}
        self.load: list[Load] = []

    def meet(self) -> None:
        """Now that the store is there: its tokens, and a listener."""
        self.store = Store(self.world.url, self.world.token("read"))
        self.listener = Listener(self.world.url, self.world.token("read"))

    def session(self, agent: str) -> Json:
        document: Json = self.store.get(f"/api/sessions/{self.sessions[agent]}", limit=10_000)
        return document

    def goals(self, agent: str) -> list[str]:
        return [goal["status"] for goal in self.session(agent)["state"]["goals"]]

    def close(self) -> None:
        if hasattr(self, "listener"):
            self.listener.close()


# ------------------------------------------------------------------- coming to be


def the_programs_are_built(scene: Scene) -> str:
    return scene.world.build()


def the_store_is_healthy(scene: Scene) -> str:
    scene.world.start_store()
    health = httpx.get(scene.world.url + "/health", timeout=10).json()
    must(health["status"] == "ok", f"it says {health}")
    must(health["tokens"], "it asks nobody for a token")
    must(httpx.get(scene.world.url + "/api/events", timeout=10).status_code == 401, "it tells strangers everything")
    scene.meet()
    must(scene.store.get("/ready")["status"] == "ready", "it takes no writes")
    return f"version {health['version']}, SQLite {scene.store.get('/health')['sqlite']}"


def the_agents_are_up(scene: Scene) -> str:
    scene.world.start_agents()
    states = scene.world.states()
    must(all(state in ("running", "0") for state in states.values()), f"they are {states}")
    return ", ".join(states)


def their_sessions_are_there(scene: Scene) -> str:
    eventually(lambda: len(scene.store.sessions()) == len(AGENTS), START_SECONDS, "three sessions")
    scene.sessions = scene.store.sessions()
    return ", ".join(scene.sessions.values())


def their_goals_are_done(scene: Scene) -> str:
    for agent, least in LEAST_GOALS.items():
        eventually(lambda: len(scene.goals(agent)) >= least, WORK_SECONDS, f"{least} goals of {agent}")  # noqa: B023
        eventually(lambda: set(scene.goals(agent)) == {"completed"}, WORK_SECONDS, f"all goals of {agent} done")  # noqa: B023
    return ", ".join(f"{len(scene.goals(agent))} of {agent}" for agent in AGENTS)


def their_states_say_so(scene: Scene) -> str:
    for agent in ("customer", "email"):
        eventually(lambda: scene.session(agent)["state"]["phase"] == "watching", WORK_SECONDS, f"{agent} watching")  # noqa: B023
        must(scene.session(agent)["metadata"]["status"] == "active", f"{agent} has ended")
    eventually(lambda: scene.session("claude")["final"], WORK_SECONDS, "Claude Code has ended")
    eventually(lambda: scene.world.states()["claude"] == "0", START_SECONDS, "its container has ended")
    final = scene.session("claude")["final"]
    must((final["status"], final["exitCode"]) == ("success", 0), f"Claude Code ended with {final}")
    (kept,) = scene.store.get(f"/api/sessions/{scene.sessions['claude']}/resume")["conversations"]
    beside = scene.store.get(f"/api/transcripts/{kept['folder']}/{kept['session']}/subkeys")
    must(kept["lines"] > 10 and len(beside) == 2, f"of its conversation there is {kept}, and {beside}")
    return "two watch for more, one is done"


def their_calls_have_results(scene: Scene) -> str:
    told = []
    for agent in AGENTS:
        session = scene.session(agent)
        calls = {action["toolUseId"] for action in session["actions"] if action["type"] == "tool_call"}
        results = {response["toolUseId"] for response in session["responses"] if "toolUseId" in response}
        must(calls and calls == results, f"of {agent}, calls without results {calls ^ results}")
        told.append(f"{len(calls)} of {agent}")
    return ", ".join(told)


def their_workers_are_linked(scene: Scene) -> str:
    """Each is done but the one that watches, has a parent that there is, and what it did carries its id."""
    told = []
    for agent in AGENTS:
        session = scene.session(agent)
        workers = {worker["agentId"]: worker for worker in session["state"]["agents"]["spawned"]}
        must(workers, f"{agent} has no workers")
        running = [worker for worker in workers.values() if worker["status"] != "completed"]
        must(len(running) == (agent != "claude"), f"of {agent} there run {running}")
        parents = {worker.get("parentAgentId") for worker in workers.values()} - {None}
        authors = {entry.get("agentId") for entry in session["actions"] + session["responses"]} - {None}
        must(parents | authors <= workers.keys(), f"{agent} names workers that it has not: {parents | authors}")
        must(authors, f"no worker of {agent} did anything")
        told.append(f"{len(workers)} of {agent}")
    return ", ".join(told)


# ------------------------------------------------------------------- being looked at


def a_listener_has_seen_it_live(scene: Scene) -> str:
    events = scene.store.events()
    awaited = len(events) + 1  # after the greeting
    eventually(lambda: len(scene.listener.messages) >= awaited, START_SECONDS, f"{awaited} messages")
    greeting, *seen = [json.loads(message) for message in scene.listener.messages]
    must(greeting["type"] == "connected", f"it was greeted with {greeting}")
    must(seen[: len(events)] == events, "it has not seen the same events in the same order")
    return f"{len(events)} events in order"


def the_dashboard_shows_them(scene: Scene) -> str:
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(scene.world.url)
        page.get_by_label("Token").fill(scene.world.token("read"))
        page.locator("#login button").click()
        expect(page.locator("#connection")).to_have_text("Live")
        for session_id in scene.sessions.values():
            shown = page.locator(f'a[href^="#/session/{session_id}"]').locator("visible=true")
            expect(shown.first).to_be_visible()
        page.goto(f"{scene.world.url}/#/session/{scene.sessions['claude']}/agents")
        expect(page.get_by_text("Review the rule").locator("visible=true").first).to_be_visible()
        must(not errors, f"the page says {errors}")
    return "all three, and the reviewer of Claude Code"


def datasette_answers(scene: Scene) -> str:
    sql = "SELECT count(*) AS number FROM events"
    (row,) = scene.store.get("/datasette/sessions.json", sql=sql, _shape="array")
    must(row["number"] == len(scene.store.events()), f"it has {row['number']} events")
    return f"{row['number']} events"


def the_tree_is_that_of_the_database(scene: Scene) -> str:
    ended = scene.world.export("verify")
    must(ended.returncode == 0, f"verify: {ended.stdout}{ended.stderr}")
    return (ended.stdout + ended.stderr).strip().splitlines()[-1]


def agents_may_only_write(scene: Scene) -> str:
    http = httpx.Client(base_url=scene.world.url, headers={"authorization": f"Bearer {scene.world.token('ingest')}"})
    with http:
        must(http.get("/ready").status_code == 200, "their token is not known")
        must(http.get("/api/events").status_code == 403, "they may read everything")
        must(http.delete(f"/api/sessions/{scene.sessions['claude']}").status_code == 403, "they may delete")
    return "their token reads nothing of others and deletes nothing"


# --------------------------------------------------------------------- going wrong


class Load(threading.Thread):
    """Writes one action after the other until the store is gone; what was not acknowledged is not counted."""

    numbers = count(1)

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.session = f"load-{next(self.numbers)}"
        self.acknowledged: list[str] = []
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=10)
        self.start()

    def run(self) -> None:
        with self._http:
            try:
                while True:
                    event_id = str(uuid4())
                    self._http.post(
                        f"/api/actions/{self.session}", json={"type": "load", "eventId": event_id}
                    ).raise_for_status()
                    self.acknowledged.append(event_id)
            except httpx.HTTPError:
                return


def nothing_is_lost_by_a_kill(scene: Scene) -> str:
    scene.listener.close()
    loads = [Load(scene.world.url, scene.world.token("ingest")) for _ in range(WRITERS)]
    begun = time.monotonic()
    eventually(
        lambda: sum(len(load.acknowledged) for load in loads) > SOME and time.monotonic() > begun + LOAD_SECONDS,
        START_SECONDS,
        f"{SOME} writes",
    )
    scene.world.kill_store()
    for load in loads:
        load.join(20)
        must(not load.is_alive(), "a writer has not noticed that the store is gone")
    scene.world.start_store()
    eventually(scene.store.is_healthy, START_SECONDS, "the store is healthy again")
    scene.load = loads
    return f"{check_load(scene)} acknowledged writes, each there once"


def check_load(scene: Scene) -> int:
    """How many acknowledged writes there are, each of which is there once."""
    for load in scene.load:
        entries = scene.store.get(f"/api/actions/{load.session}", limit=10_000)
        found = [entry["eventId"] for entry in entries]
        must(len(found) == len(set(found)), f"something of {load.session} is there twice")
        must(set(load.acknowledged) <= set(found), f"something of {load.session} that was acknowledged is lost")
        must(len(found) <= len(load.acknowledged) + 1, f"{load.session} has more than was written")
    return sum(len(load.acknowledged) for load in scene.load)


def a_restarted_agent_resumes(scene: Scene) -> str:
    before = scene.session("customer")
    scene.world.restart_agent("customer")
    eventually(lambda: resumes(scene, "customer") > before["metadata"]["resumes"], START_SECONDS, "it resumes")
    eventually(lambda: scene.session("customer")["state"]["phase"] == "watching", WORK_SECONDS, "it watches again")
    after = scene.session("customer")
    must(after["metadata"]["status"] == "active", f"its session is {after['metadata']['status']}")
    must(scene.store.sessions()["customer"] == scene.sessions["customer"], "it has another session now")
    must(set(scene.goals("customer")) == {"completed"}, "its goals are not done any more")
    must(len(after["state"]["goals"]) == len(before["state"]["goals"]), "it has set itself the same goals again")
    return f"the same session, resumed {after['metadata']['resumes']} times"


def resumes(scene: Scene, agent: str) -> int:
    number: int = scene.session(agent)["metadata"]["resumes"]
    return number


def all_is_there_after_down_and_up(scene: Scene) -> str:
    code = scene.world.stop_store()
    must(code == 0, f"told to stop, the store ended with {code}")
    scene.world.start_store()
    eventually(scene.store.is_healthy, START_SECONDS, "the store is healthy again")
    before = scene.store.events()
    scene.world.down()
    scene.world.start_store()
    eventually(scene.store.is_healthy, START_SECONDS, "the store is healthy again")
    after = scene.store.events()
    must(after[: len(before)] == before, "not all events are there as they were")
    check_load(scene)
    return f"{len(before)} events as they were, {the_tree_is_that_of_the_database(scene)}"


class Check(NamedTuple):
    name: str
    look: Callable[[Scene], str]
    """Says what it has found. Raises Failed, or whatever else goes wrong."""


LOOKS = (
    Check("what runs is built", the_programs_are_built),
    Check("the store is healthy", the_store_is_healthy),
    Check("the agents are up", the_agents_are_up),
    Check("their three sessions are there", their_sessions_are_there),
    Check("their goals are done", their_goals_are_done),
    Check("their states say so", their_states_say_so),
    Check("their calls have results", their_calls_have_results),
    Check("their workers are linked", their_workers_are_linked),
    Check("a listener has seen it all live", a_listener_has_seen_it_live),
    Check("the dashboard shows them", the_dashboard_shows_them),
    Check("Datasette answers", datasette_answers),
    Check("the tree is that of the database", the_tree_is_that_of_the_database),
    Check("agents may only write", agents_may_only_write),
)
FAULTS = (
    Check("kill -9 under load loses nothing", nothing_is_lost_by_a_kill),
    Check("a restarted agent resumes", a_restarted_agent_resumes),
    Check("down and up again: all is there", all_is_there_after_down_and_up),
)
