"""The fleet: who waits where, which session is where, what all stores find; and who did not answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from playwright.sync_api import BrowserContext, Page, expect

from sessionstore.settings import BadSetting, read_settings
from sessionstore.shards import FleetShard
from sessionstore.upkeep import fleet
from sessionstore.web.gate import READERS, roles_for
from tests.appliance import REPOSITORY, Appliance, reserve_port
from tests.browsing import PHONE
from tests.peers import eventually, has_midnight_come
from tests.shards import READ, Place, fleet_file, odd_peer, stores, timed, work_in

Document = dict[str, Any]


class Seen(NamedTuple):
    """A store that shows a fleet, those of the fleet that are real, and a client of the first."""

    hub: Appliance
    shards: list[Appliance]
    client: httpx.Client


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Of four shards one is real: one is down, one hangs, one answers 500."""
    folder = tmp_path_factory.mktemp("fleet")
    with odd_peer() as (odd, _), reserve_port() as nobody, stores(folder, "berlin") as (berlin,):
        places = [
            Place("berlin", berlin.url),
            Place("down", f"http://127.0.0.1:{nobody.getsockname()[1]}"),
            Place("hanging", f"{odd}/hangs"),
            Place("failing", f"{odd}/fails"),
        ]
        work_in(berlin, "solver-1", "the heron flies", "w " * 200, waits=True)
        hub = Appliance(folder / "hub", {"SESSIONS_FLEET": str(fleet_file(folder, places))})
        with hub, httpx.Client(base_url=hub.url, timeout=10) as client:
            yield Seen(hub, [berlin], client)


def of(shards: list[Document], name: str) -> Document:
    return next(one for one in shards if name in (one.get("name"), one.get("shard")))


def test_who_does_not_answer_is_said_and_the_rest_shown(seen: Seen) -> None:
    seconds, answer = timed(seen.client.get, "/api/fleet")
    assert answer.status_code == 200 and seconds < 3
    shards = answer.json()["shards"]
    assert [one["name"] for one in shards] == ["berlin", "down", "hanging", "failing"]
    assert (answer.json()["silent"], [one["answers"] for one in shards]) == (3, [True, False, False, False])
    berlin = of(shards, "berlin")
    assert berlin["sessions"] == {"waiting": 1} and berlin["seen"]
    with httpx.Client(base_url=seen.shards[0].url) as http:
        assert berlin["eventsToday"] == 4 or has_midnight_come(http)
    assert "refused" in of(shards, "down")["error"]
    assert of(shards, "hanging")["error"] == "no answer in time"
    assert of(shards, "failing")["error"] == "it answers 500"


def test_who_waits_is_told_with_where(seen: Seen) -> None:
    said = seen.client.get("/api/fleet/waiting").json()
    (item,) = said["items"]
    assert (item["shard"], item["sessionId"], item["reason"], item["message"]) == (
        *("berlin", "solver-1"),
        *("permission", "May I?"),
    )
    assert item["link"] == f"{seen.shards[0].url}/#/session/solver-1" and item["isOld"] is False
    assert said["total"] == 1 and {one["shard"] for one in said["silent"]} == {"down", "hanging", "failing"}


def test_a_search_is_answered_in_time_and_says_by_whom(seen: Seen) -> None:
    seconds, answer = timed(seen.client.get, "/api/fleet/search", params={"q": "heron"})
    found = answer.json()
    assert seconds < fleet.SEARCH_SECONDS + 1
    (hit,) = found["items"]
    assert (hit["shard"], hit["sessionId"], hit["marked"][1]) == ("berlin", "solver-1", "heron")
    assert [(one["shard"], one["total"]) for one in found["answered"]] == [("berlin", 1)]
    assert {one["shard"] for one in found["silent"]} == {"down", "hanging", "failing"}
    assert seen.client.get("/api/fleet/search", params={"q": "x", "since": "soon"}).status_code == 422


def test_what_is_found_very_often_in_one_place_is_an_answer_too(seen: Seen) -> None:
    found = seen.client.get("/api/fleet/search", params={"q": "w"}).json()
    (hit,) = found["items"]
    assert hit["marked"].count("w") > 50 and [one["shard"] for one in found["answered"]] == ["berlin"]


def test_a_search_that_is_answered_with_more_text_than_a_store_has_is_not_shown() -> None:
    with odd_peer() as (url, _):
        asked = fleet.Fleet([FleetShard(name="shouts", url=f"{url}/shouts")])
        given = ("/api/query/search?q=x", 5.0, fleet.SEARCH_BYTES, fleet.SEARCH)
        (told,) = asyncio.run(asked.ask_all(*given))
    assert told.trouble == "what it answers is not what a store answers"


def test_the_id_of_a_session_leads_to_its_shard(seen: Seen) -> None:
    (place,) = seen.client.get("/api/fleet/sessions/solver-1").json()["items"]
    assert place["link"] == f"{seen.shards[0].url}/#/session/solver-1"
    unknown = seen.client.get("/api/fleet/sessions/nobody")
    assert unknown.status_code == 503 and "hanging" in unknown.json()["detail"], "it may be there"
    assert seen.client.get("/api/fleet/sessions/..nobody").status_code == 404


def test_one_that_hangs_is_not_asked_more_and_more(seen: Seen) -> None:
    before = threads_of(seen.hub)
    asking = [threading.Thread(target=seen.client.get, args=("/api/fleet/search?q=heron",)) for _ in range(24)]
    for thread in asking:
        thread.start()
    eventually(lambda: threads_of(seen.hub) > before)
    assert threads_of(seen.hub) <= before + 4 * fleet.MOST_UNDER_WAY
    for thread in asking:
        thread.join()
    eventually(lambda: threads_of(seen.hub) <= before)


def threads_of(appliance: Appliance) -> int:
    return len(list(Path(f"/proc/{appliance.process.pid}/task").iterdir()))


def test_what_a_shard_answers_is_bounded() -> None:
    kinds = ["moves", "huge", "deep", "odd", "drips", "hangs", "tricks"]
    with odd_peer() as (url, followed):
        asked = fleet.Fleet([FleetShard(name=kind, url=f"{url}/{kind}") for kind in kinds])
        asyncio.run(asked.refresh())
        said = {member.shard.name: member.trouble for member in asked.members}
        assert said == {
            "moves": "it answers 302",
            "huge": f"its answer has more than {fleet.SUMMARY_BYTES} bytes",
            "deep": "what it answers is not what a store answers",
            "odd": "what it answers is not what a store answers",
            "drips": "no answer in time",
            "hangs": "no answer in time",
            "tricks": None,
        }
        assert followed == []


def test_a_token_that_is_refused_or_missing_is_named(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("another-token")
    berlin = seen.shards[0].url
    asked = fleet.Fleet(
        [
            FleetShard(name="wrong", url=berlin, token_file=str(tmp_path / "wrong")),
            FleetShard(name="missing", url=berlin, token_file=str(tmp_path / "missing")),
        ]
    )
    asyncio.run(asked.refresh())
    wrong, missing = (member.trouble or "" for member in asked.members)
    assert "401" in wrong and "token_file" in wrong
    assert "No such file" in missing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[shards]]\nname = 'a'", "shard 1: Object missing required field `url`"),
        ("[[shards]]\nname = 'a'\nurl = 'ftp://a'", "shard 1"),
        ("[[shards]]\nname = 'a'\nurl = 'http://a'\ntoken = 'x'", "shard 1: Object contains unknown field `token`"),
        ("[[shards]]\nname = 'a'\nurl = 'http://a'\n[[shards]]\nname = 'a'\nurl = 'http://b'", "two shards"),
        ("shards = 1", r"\[\[shards\]\]"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(BadSetting, match=f"SESSIONS_FLEET.*{said}"):
        read_settings({"SESSIONS_FLEET": str(path)})


def test_a_token_is_beside_the_file(tmp_path: Path) -> None:
    (shard,) = read_settings({"SESSIONS_FLEET": str(fleet_file(tmp_path, [Place("a", "http://a/")]))}).fleet
    assert (shard.url, shard.token) == ("http://a", READ)


def test_its_api_is_described(seen: Seen) -> None:
    document = seen.client.get("/schema/openapi.json").json()
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    paths = {path for path in document["paths"] if "fleet" in path}
    assert paths == {"/api/fleet", "/api/fleet/waiting", "/api/fleet/search", "/api/fleet/sessions/{session_id}"}


def test_whoever_may_read_may_see_it_and_the_page_asks_for_a_token() -> None:
    for path in ("/api/fleet", "/api/fleet/waiting", "/api/fleet/search", "/api/fleet/sessions/solver-1"):
        assert roles_for("GET", path) == READERS
    assert roles_for("GET", "/fleet") is None


def test_the_metrics_count_who_is_silent(seen: Seen) -> None:
    lines = seen.client.get("/metrics").text.splitlines()
    assert "sessionstore_fleet_shards 4.0" in lines and "sessionstore_fleet_silent_shards 3.0" in lines


def test_nobody_without_a_fleet_has_any_of_it(tmp_path: Path, appliance: Appliance, http: httpx.Client) -> None:
    show = (
        "import sys, app\nfrom sessionstore.settings import read_settings\n"
        "for fleet in ('', sys.argv[1]):\n"
        "    app.create_app(read_settings({'SESSIONS_DIR': '/nowhere', 'SESSIONS_FLEET': fleet}))\n"
        "    print(*[name for name in sys.modules if name.startswith('sessionstore.')])"
    )
    command = [sys.executable, "-c", show, str(fleet_file(tmp_path, [Place("a", "http://a")]))]
    without, having = subprocess.check_output(command, cwd=REPOSITORY, text=True).splitlines()
    ours = {"sessionstore.shards", "sessionstore.upkeep.fleet", "sessionstore.web.fleet"}
    assert set(having.split()) - set(without.split()) == ours
    for path in ("/fleet", "/api/fleet", "/api/fleet/waiting", "/api/fleet/search"):
        assert http.get(path).status_code == 404
    assert "fleet" not in http.get("/metrics").text


# ------------------------------------------------------------------------------ the page


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in (REPOSITORY / "dashboard").glob("fleet.*")) <= 12_000


def test_the_page_says_within_three_seconds_who_does_not_answer(seen: Seen, page: Page) -> None:
    page.goto(f"{seen.hub.url}/fleet")
    silent = page.locator("#silent")
    expect(silent).to_have_text("3 of 4 did not answer: down, hanging, failing", timeout=3000)
    rows = page.locator("#shards tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("berlin")
    expect(page.locator("#waiting li")).to_contain_text("May I?")
    expect(page.locator("#waiting a")).to_have_attribute("href", f"{seen.shards[0].url}/#/session/solver-1")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_page_finds_with_the_keyboard_alone(seen: Seen, page: Page) -> None:
    page.goto(f"{seen.hub.url}/fleet")
    expect(page.locator("#shards tr")).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("heron")
    page.keyboard.press("Enter")
    expect(page.locator("#hits mark")).to_have_text("heron", timeout=4000)
    expect(page.locator("#from")).to_have_text(
        "1 event in 1 of 4 stores; 3 of 4 did not answer: down, hanging, failing"
    )
    page.locator("#find input").fill("solver-1")
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="Session solver-1")
    expect(link).to_have_attribute("href", f"{seen.shards[0].url}/#/session/solver-1", timeout=4000)


def test_a_shard_that_falls_silent_keeps_its_last_figures_and_may_not_speak_in_markup(
    tmp_path: Path, context: BrowserContext, page: Page
) -> None:
    tokens = {"SESSIONS_READ_TOKEN": READ}
    with odd_peer() as (odd, _), stores(tmp_path, "munich") as (munich,):
        work_in(munich, "builder-1", "brick", waits=True)
        places = [Place("munich", munich.url), Place("trickster", f"{odd}/tricks")]
        with Appliance(tmp_path / "hub", {"SESSIONS_FLEET": str(fleet_file(tmp_path, places)), **tokens}) as hub:
            page.goto(f"{hub.url}/fleet")
            page.get_by_label("Token").fill(READ)
            page.keyboard.press("Enter")
            expect(page.locator("#shards tr")).to_have_count(2)
            expect(page.locator("#silent")).to_be_hidden()
            expect(page.locator("#waiting a", has_text="<script>alert(1)</script>gnp")).to_be_visible()
            assert page.locator("#view").locator("script, img, i").count() == 0
            munich.stop()
            expect(page.locator("#silent")).to_have_text("1 of 2 did not answer: munich", timeout=3000)
            row = page.locator("#shards tr[data-answers=false]")
            expect(row).to_have_class("faint")
            expect(row).to_contain_text("silent for")
            expect(row.locator("td").nth(1)).to_have_text("1")
            expect(page.locator("#waiting li.faint")).to_contain_text("May I?")


# ------------------------------------------------------------------------------- thirty


@pytest.mark.long
def test_thirty_servers_of_which_three_do_not_answer(tmp_path: Path, page: Page) -> None:
    names = [f"shard-{number:02}" for number in range(30)]
    with odd_peer() as (odd, _), stores(tmp_path, *names) as shards:
        for number, shard in enumerate(shards):
            work_in(shard, f"session-{number}", f"heron {number}", waits=number % 3 == 0)
        places = [Place(name, shard.url) for name, shard in zip(names, shards, strict=True)]
        hub = Appliance(tmp_path / "hub", {"SESSIONS_FLEET": str(fleet_file(tmp_path, places))})
        with hub, httpx.Client(base_url=hub.url, timeout=10) as client:
            assert client.get("/api/fleet/sessions/nobody").status_code == 404
            assert client.get("/api/fleet").json()["silent"] == 0
        places[3] = Place("shard-03", f"{odd}/hangs")
        places[7] = Place("shard-07", f"{odd}/fails")
        shards[11].stop()
        fleet_file(tmp_path, places)
        with Appliance(tmp_path / "hub", {"SESSIONS_FLEET": str(tmp_path / "fleet.toml")}) as hub:
            page.goto(f"{hub.url}/fleet")
            expect(page.locator("#silent")).to_have_text(
                "3 of 30 did not answer: shard-03, shard-07, shard-11", timeout=3000
            )
            expect(page.locator("#shards tr[data-answers=true]")).to_have_count(27)
            expect(page.locator("#waiting li")).to_have_count(9)
            with httpx.Client(base_url=hub.url, timeout=10) as client:
                seconds, answer = timed(client.get, "/api/fleet/search", params={"q": "heron", "limit": 100})
                assert seconds < fleet.SEARCH_SECONDS + 0.5
                assert (len(answer.json()["items"]), len(answer.json()["silent"])) == (27, 3)
                for number in (0, 12, 29):
                    (place,) = client.get(f"/api/fleet/sessions/session-{number}").json()["items"]
                    assert place["shard"] == names[number]
