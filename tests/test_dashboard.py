"""The page at /, in a real browser, as its users see and drive it; its model is tested in tests/node."""

from __future__ import annotations

import json
import re
import shutil
import signal
import tarfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from tests.appliance import REPOSITORY, Appliance
from tests.browsing import PHONE, TABS, call, forget, hook, log, opened, respond, settled, tell
from tests.hostile_texts import PAYLOADS, SCRIPT, SPOOFS, WRAPPERS, tell_with
from tests.peers import eventually
from tests.repeats import LONG, marked
from tests.replay import replay


@pytest.fixture(scope="module")
def told(appliance: Appliance, http: httpx.Client) -> str:
    """The id of a recorded session with everything in it, on a server that has many."""
    return replay(http)[0]


# ------------------------------------------------------------- what a person does


def test_a_new_user_makes_a_session_works_in_it_and_removes_it(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        opened(page, appliance)
        expect(page.locator("#home-none")).to_contain_text("No sessions yet")
        page.locator("#new-session").click()
        page.locator("#ask").get_by_role("button", name="Cancel").click()
        assert httpx.get(f"{appliance.url}/api/sessions").json()["items"] == [], "it asks first"
        page.locator("#home-none").get_by_role("button", name="Create a test session").click()
        page.locator("#ask").get_by_role("button", name="Create").click()
        expect(page.locator("#session h1")).to_have_text("A test session, made from the dashboard")
        expect(page.locator("#session header code")).to_contain_text("test-")
        expect(page.locator("#session [data-slot=status]").first).to_have_text("active")

        page.get_by_role("button", name="Rename").click()
        expect(page.get_by_label("Name")).to_have_value("A test session, made from the dashboard")
        page.keyboard.type("Never mind")
        page.keyboard.press("Escape")
        expect(page.locator("#session h1")).to_have_text("A test session, made from the dashboard")
        page.get_by_role("button", name="Rename").click()
        page.keyboard.type("By a person")
        page.keyboard.press("Enter")
        expect(page.locator("#session h1")).to_have_attribute("data-from", "person")
        page.get_by_role("button", name="Pin").click()
        expect(page.get_by_role("button", name="Unpin")).to_be_visible()
        page.get_by_role("button", name="Note").click()
        page.locator("#ask input").fill("Look at this again")
        page.locator("#ask").get_by_role("button", name="Add").click()
        expect(page.locator(".entry").last).to_contain_text("Look at this again")
        expect(page).to_have_title("By a person · Session store")

        page.get_by_role("link", name="Goals").click()
        page.get_by_label("A new goal").fill("Build the API")
        page.get_by_role("button", name="Add goal").click()
        expect(page.locator(".goal")).to_contain_text("Build the API")
        page.get_by_role("button", name="Mark completed").click()
        expect(page.locator(".goal .chip")).to_have_text("completed")
        expect(page.get_by_role("link", name="Goals 1/1")).to_be_visible()

        page.get_by_role("button", name="Tags").click()
        page.locator("#ask input").fill("nightly, demo, nightly")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".facts-line .tag")).to_have_text(["nightly", "demo"])

        page.get_by_role("button", name="Finalize").click()
        page.locator("#ask select").select_option("failed")
        page.locator("#ask input").fill("It rained")
        page.locator("#ask").get_by_role("button", name="Finalize").click()
        expect(page.locator("#session [data-slot=status]").first).to_have_text("failed")
        page.get_by_role("link", name="Log").click()
        expect(page.locator(".entry").last).to_contain_text("It rained")

        with page.expect_download() as download:
            page.locator(".menu summary").click()
            page.get_by_role("link", name="Download all of it").click()
        with tarfile.open(download.value.path()) as archive:
            assert any(name.endswith("/events.jsonl") for name in archive.getnames())

        page.locator(".menu summary").click()
        page.get_by_role("button", name="Delete").click()
        page.locator("#ask").get_by_role("button", name="Cancel").click()
        expect(page.locator("#session h1")).to_be_visible()
        page.locator(".menu summary").click()
        page.get_by_role("button", name="Delete").click()
        page.locator("#ask").get_by_role("button", name="Delete").click()
        expect(page.locator("#home-none")).to_contain_text("No sessions yet")


# -------------------------------------------------------------------------- live


def test_after_a_restart_it_goes_on_where_it_was(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        opened(page, appliance)
        log(http, "s", "first")
        expect(page.locator("#feed li")).to_have_count(2)
        appliance.stop()
        expect(page.locator("#stale")).to_contain_text("may be old")
        expect(page.locator("#connection")).not_to_have_text("Live")
        page.locator(".bar nav").get_by_role("link", name="Analytics").click()  # whose code is not there yet
        appliance.start()
        expect(page.locator("#panels section")).to_have_count(8)
        page.go_back()
        for number in range(5):
            log(http, "s", f"later {number}")
        expect(page.locator("#feed li")).to_have_count(7, timeout=20_000)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#stale")).to_be_hidden()
        expect(page.locator("#feed li").first).to_contain_text("later 4")


def test_another_store_at_the_same_address_is_shown_from_its_beginning(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with Appliance(folder) as appliance, httpx.Client(base_url=appliance.url) as http:
        for number in range(9):
            log(http, "old", f"{number}")
        opened(page, appliance)
        expect(page.locator("#groups")).to_contain_text("old")
        page.keyboard.press("X")  # all that the other has is not seen by that
        appliance.stop()
        shutil.rmtree(folder)
        appliance.start()
        log(http, "new", "hello")
        http.post("/api/sessions/new/finalize", json={"status": "failed"}).raise_for_status()
        expect(page.locator("#groups")).to_contain_text("new", timeout=20_000)
        expect(page.locator("#groups")).not_to_contain_text("old")
        expect(page.locator(".tile[data-is=failed] b")).to_have_text("1")


def test_who_was_away_for_long_begins_with_the_newest(page: Page, tmp_path: Path) -> None:
    sockets: list[WebSocketRoute] = []
    frames: list[str | bytes] = []

    def connect(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: pass_on(socket, message))
        sockets.append(socket)

    def pass_on(socket: WebSocketRoute, message: str | bytes) -> None:
        frames.append(message)
        socket.send(message)

    page.route_web_socket(re.compile("/ws"), connect)
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        log(http, "s", "first")
        opened(page, appliance, "session/s/log")
        expect(page.locator(".entry", has_text="first")).to_be_visible()
        page.route("**/health", lambda route: route.abort())
        sockets[-1].close()
        expect(page.locator("#stale")).to_be_visible()
        lines = [f'{{"type":"action","sessionId":"s","data":{{"type":"note","text":"{n}"}}}}' for n in range(6000)]
        headers = {"content-type": "application/x-ndjson"}
        http.post("/api/events", content="\n".join(lines), headers=headers, timeout=60).raise_for_status()
        page.unroute("**/health")
        expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
        expect(page.locator(".entry", has_text="5999")).to_be_visible()
        assert len(frames) < 1000, "what is shown as live is not the past"


def test_a_store_that_cannot_serve_says_why(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        log(http, "s", "kept")
        opened(page, appliance)
        appliance.stop()
        for path in tmp_path.glob("sessions.db*"):
            path.unlink()
        appliance.start()
        why = http.get("/ready").json()["detail"]
        expect(page.locator("#trouble")).to_contain_text(why, timeout=20_000)
        expect(page.locator("#connection")).not_to_have_text("Live")


def test_home_is_there_once_the_server_has_time_for_it(page: Page, appliance: Appliance, http: httpx.Client) -> None:
    log(http, "s-busy", "works")
    refused = iter(range(4))

    def busy(route: Route) -> None:
        problem = {"status": 503, "content_type": "application/problem+json", "body": '{"detail":"Busy"}'}
        route.continue_() if next(refused, None) is None else route.fulfill(**problem)  # type: ignore[arg-type]

    settled(opened(page, appliance, "sessions"))
    page.route("**/api/query/active*", busy)
    page.keyboard.press("h")
    expect(page.locator("#home-none")).to_contain_text("Busy")
    expect(page.locator("#groups")).to_contain_text("s-busy", timeout=20_000)
    expect(page.locator("#home-none")).to_be_empty()
    page.unroute_all()


@pytest.mark.long
def test_where_websockets_are_blocked_it_asks_again_and_again(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    def refuse(socket: WebSocketRoute) -> None:
        socket.close(code=1011)

    page.route_web_socket(re.compile("/ws"), refuse)
    page.goto(appliance.url)
    expect(page.locator("#connection")).to_contain_text("WebSockets are blocked", timeout=15_000)
    log(http, session_id, "without a socket")
    expect(page.locator("#feed")).to_contain_text("without a socket")
    expect(page.locator("#groups")).to_contain_text(session_id)


@pytest.mark.long
def test_a_server_that_says_nothing_any_more_is_not_called_live(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        opened(page, appliance)
        appliance.process.send_signal(signal.SIGSTOP)
        try:
            expect(page.locator("#stale")).to_contain_text("may be old", timeout=30_000)
        finally:
            appliance.process.send_signal(signal.SIGCONT)
        log(http, "s", "awake again")
        expect(page.locator("#feed")).to_contain_text("awake again", timeout=30_000)
        expect(page.locator("#connection")).to_have_text("Live")


# ----------------------------------------------------------------------- session


def test_a_call_and_its_result_are_one_row_and_each_tool_has_its_own_look(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    call(http, session_id, "Bash", "b", command="make test", description="Run the tests")
    respond(http, session_id, type="tool_result", toolUseId="b", tool="Bash", durationMs=1200,
            output={"stdout": "\x1b[32m3 passed\x1b[0m", "stderr": "one warning"})  # fmt: skip
    call(http, session_id, "Edit", "e", file_path="/src/a.py", old_string="x = 1\ny = 2", new_string="x = 1\ny = 3")
    respond(http, session_id, type="tool_result", toolUseId="e", tool="Edit", output={})
    call(http, session_id, "Read", "r", file_path="/src/b.py")
    content = {"type": "text", "file": {"content": "def f():\n    pass", "startLine": 41}}
    respond(http, session_id, type="tool_result", toolUseId="r", tool="Read", output=content)
    call(http, session_id, "Bash", "open", command="sleep 100")
    opened(page, appliance, f"session/{session_id}/log")
    rows = page.locator(".entry")
    expect(rows.filter(has_text="make test")).to_contain_text("1.2 s")
    expect(rows.filter(has_text="sleep 100")).to_contain_text("running")
    expect(rows).to_have_count(5)

    body = page.locator(".detail .body")
    rows.filter(has_text="make test").click()
    expect(body.locator(".command")).to_have_text("make test")
    expect(body).to_contain_text("3 passed")
    expect(body).not_to_contain_text("[32m")
    expect(body.locator(".bad")).to_have_text("one warning")
    rows.filter(has_text="/src/a.py").click()
    expect(body.locator(".lines .del:not(.sign)")).to_have_text("y = 2")
    expect(body.locator(".lines .add:not(.sign)")).to_have_text("y = 3")
    rows.filter(has_text="/src/b.py").click()
    expect(body.locator(".lines .no").first).to_contain_text("41")
    page.get_by_role("button", name="Raw JSON").click()
    expect(body.locator("pre").last).to_contain_text('"startLine": 41')

    log(http, session_id, "", type="prompt", prompt="Never mind")
    expect(rows.filter(has_text="sleep 100")).to_contain_text("no result")


def test_the_log_filters_by_kind_and_errors_and_says_so_in_the_address(
    page: Page, appliance: Appliance, told: str
) -> None:
    opened(page, appliance, f"session/{told}/log")
    expect(page.locator(".entry").first).to_be_visible()
    page.get_by_label("Errors only").check()
    expect(page.locator(".entry[data-state=error]").first).to_be_visible()
    expect(page.locator(".entry:not([data-state=error])")).to_have_count(0)
    expect(page).to_have_url(re.compile("errors=yes"))
    page.get_by_label("Errors only").uncheck()
    page.get_by_label("Show").select_option("talk")
    expect(page.locator(".entry:not([data-kind=prompt], [data-kind=answer], [data-kind=says])")).to_have_count(0)
    expect(page.locator(".entry[data-kind=prompt]").first).to_be_visible()
    page.reload()
    expect(page.get_by_label("Show")).to_have_value("talk")


def test_a_long_session_opens_at_its_end_and_loads_what_one_scrolls_to(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    lines = (
        json.dumps({"type": "action", "sessionId": session_id, "data": {"type": "note", "text": f"entry {number}"}})
        for number in range(5000)
    )
    batch = http.post("/api/events", content="\n".join(lines), headers={"content-type": "application/x-ndjson"})
    assert batch.json()["accepted"] == 5000
    opened(page, appliance, f"session/{session_id}/log")
    expect(page.locator(".entry", has_text="entry 4999")).to_be_visible()
    assert page.locator(".entry").count() < 100, "only what is in sight is in the document"

    scroller = page.locator("#session .scroller")
    scroller.evaluate("e => { e.scrollTop = 0; }")
    expect(page.locator("[data-slot=said]")).to_contain_text(re.compile(r"[1-4],\d{3} rows"))
    row = page.locator(".entry").nth(20)
    text, place = row.inner_text(), row.bounding_box()
    log(http, session_id, "the newest")
    expect(page.locator("#session .tabs")).to_contain_text("5,001")
    assert (row.inner_text(), row.bounding_box()) == (text, place), "it stays where one reads"

    first = http.get(f"/api/actions/{session_id}?limit=1").json()[0]["cursor"]
    page.goto(f"{appliance.url}/#/session/{session_id}/log?entry={first + 100}")
    expect(page.locator(".entry[aria-current=true]")).to_contain_text("entry 100")
    expect(page.locator(".detail .body")).to_contain_text("entry 100")
    page.get_by_role("button", name="To the newest").click()
    expect(page.locator(".entry", has_text="the newest")).to_be_visible()


def test_a_long_text_is_fetched_when_it_is_opened(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    cursor = log(http, session_id, "word " * 5000 + "the end")
    opened(page, appliance, f"session/{session_id}/log")
    expect(page.locator(".entry", has_text="word")).not_to_contain_text("the end")
    page.locator(".entry", has_text="word").click()
    expect(page).to_have_url(re.compile(f"entry={cursor}"))
    expect(page.locator(".detail .body")).to_contain_text("the end")


def test_the_timeline_has_a_lane_for_each_agent_and_leads_to_the_entry(
    page: Page, appliance: Appliance, told: str
) -> None:
    opened(page, appliance, f"session/{told}/timeline")
    expect(page.locator(".lane-names li")).to_contain_text(["session", "Look at note"])
    bars = page.locator("rect.mark[data-kind=tool]")
    expect(bars.first).to_be_visible()
    before = page.locator(".chart svg").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    expect(page).to_have_url(re.compile("zoom=1.6"))
    after = page.locator(".chart svg").bounding_box()
    assert before and after and after["width"] > before["width"] * 1.3
    bars.first.click()
    expect(page.locator(".detail h2")).not_to_be_empty()
    page.get_by_role("link", name="In the log").click()
    expect(page.locator(".entry[aria-current=true]")).to_be_visible()


def test_a_lane_has_the_name_of_its_agent_once_that_is_known(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    log(http, session_id, "begins")
    opened(page, appliance, f"session/{session_id}/timeline")
    expect(page.locator(".lane-names li")).to_contain_text(["session"])
    held: list[Route] = []
    document = re.compile(rf"/{session_id}\?limit=0")
    page.route(document, lambda route: held.append(route))
    agent = "0123456789abcdef01"
    spawned = ("agent_spawned", None, 0, {"agentId": agent, "type": "reviewer", "task": "Review it"})
    with page.expect_request(document):
        tell(http, session_id, spawned, ("action", agent, 1, {"type": "note", "text": "hi"}))
    expect(page.locator(".lane-names li")).to_contain_text(["session", "01234567"])
    held[0].continue_()
    page.unroute_all()
    expect(page.locator(".lane-names li")).to_contain_text(["session", "reviewer"])


def test_the_state_can_be_stepped_through_version_by_version(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for number in range(3):
        http.patch(f"/api/state/{session_id}", json={"currentStep": f"step {number}"}).raise_for_status()
    opened(page, appliance, f"session/{session_id}/state")
    expect(page.locator(".version")).to_have_count(4)
    expect(page.locator(".tree")).to_contain_text("step 2")
    page.locator(".version", has_text="v3").click()
    expect(page.locator(".changes")).to_contain_text('"step 0" → "step 1"')
    expect(page.locator(".tree .changed")).to_contain_text("step 1")
    page.get_by_role("button", name="Older version").click()
    expect(page.locator(".tree")).to_contain_text("step 0")
    http.patch(f"/api/state/{session_id}", json={"currentStep": "step 3"}).raise_for_status()
    expect(page.locator(".version")).to_have_count(5)
    expect(page.locator(".tree")).to_contain_text("step 0")
    page.get_by_role("link", name="Now", exact=True).click()
    expect(page.locator(".tree")).to_contain_text("step 3")


def test_the_agents_stand_under_those_that_spawned_them(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for agent in ({"agentId": "lead", "type": "planner", "task": "Plan it"},
                  {"agentId": "hand", "type": "coder", "parentAgentId": "lead"}):  # fmt: skip
        http.post(f"/api/state/{session_id}/agents", json=agent).raise_for_status()
    http.post(f"/api/state/{session_id}/agents/hand/complete", json={"result": "It works"}).raise_for_status()
    opened(page, appliance, f"session/{session_id}/agents")
    inner = page.locator(".worker .worker")
    expect(inner).to_contain_text("coder")
    expect(inner).to_contain_text("It works")
    expect(page.locator(".worker").first).to_contain_text("Plan it")


def test_the_raw_files_are_what_the_server_has_to_the_letter(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    http.patch(f"/api/state/{session_id}", json={"size": 1.0, "big": 2**60 + 1}).raise_for_status()
    log(http, session_id, "a line")
    opened(page, appliance, f"session/{session_id}/raw?file=state.json")
    lines = page.locator(".raw-line")
    expect(lines.filter(has_text='"size": 1.0,')).to_have_count(1)
    expect(lines.filter(has_text=f'"big": {2**60 + 1}')).to_have_count(1)
    pretty = "async json => (await import('/dashboard/model.js')).pretty(json)"
    shown = page.evaluate(pretty, http.get(f"/api/state/{session_id}").text)
    assert mirrored(appliance.folder / "sessions" / session_id / "state.json", shown) == shown + "\n"
    page.get_by_role("link", name="actions.jsonl").click()
    expect(lines).to_have_count(1)
    entry = http.get(f"/api/actions/{session_id}").text.strip()[1:-1]
    expect(lines.locator("[data-slot=text]")).to_have_text(entry)
    log(http, session_id, "another")
    expect(lines).to_have_count(2)
    page.get_by_role("link", name="final.json").click()
    expect(page.locator("#session .empty")).to_contain_text("has not ended")


def mirrored(path: Path, expected: str) -> str:
    """A file of the tree, once it has what is expected; what it has, if that takes too long."""
    deadline = time.monotonic() + 10
    while not path.exists() or (path.read_text() != expected + "\n" and time.monotonic() < deadline):
        assert time.monotonic() < deadline, f"there is no {path}"
        time.sleep(0.05)
    return path.read_text()


def test_a_session_that_is_not_there_is_said_to_be_so_until_it_is(
    page: Page, appliance: Appliance, http: httpx.Client
) -> None:
    opened(page, appliance, "session/nobody/log")
    expect(page.locator("#session")).to_contain_text("There is no session nobody")
    log(http, "nobody", "somebody now")
    expect(page.locator(".entry", has_text="somebody now")).to_be_visible()


# ------------------------------------------------------------- what is true


WAITS = {"reason": "permission", "message": "Bash: rm -rf build", "tool": "Bash"}


@pytest.mark.parametrize("scheme", marked(["dark", "light"], long=["light"]))
def test_an_end_is_shown_as_it_was_and_why(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str, scheme: Any
) -> None:
    page.emulate_media(color_scheme=scheme)
    red, grey = {
        "dark": ("rgb(255, 133, 123)", "rgb(163, 175, 189)"),
        "light": ("rgb(179, 38, 30)", "rgb(76, 88, 102)"),
    }[scheme]
    ends = {"failed": red, "cancelled": grey}
    for status in ends:
        name = f"{session_id}-{scheme}-{status}"
        hook(http, name, "UserPromptSubmit", prompt="Build the shop. " * 30)
        hook(http, name, "StopFailure", error="rate_limit", last_assistant_message="API Error: 429 out of tokens")
        http.post(f"/api/sessions/{name}/finalize", json={"status": status}).raise_for_status()
    opened(page, appliance)
    for status, colour in ends.items():
        name = f"{session_id}-{scheme}-{status}"
        row = page.locator("#groups .live", has_text=name)
        expect(row.locator(".state")).to_have_text(status)
        expect(row.locator(".state")).to_have_css("color", colour)
        expect(row).to_contain_text("API Error: 429 out of tokens")
        page.goto(f"{appliance.url}/#/session/{name}/log")
        expect(page.locator("#session .chip").first).to_have_css("color", colour)
        expect(page.locator(".entry").last).to_contain_text(f"Session {status}")
        page.goto(f"{appliance.url}/#/")
    page.goto(f"{appliance.url}/#/session/{session_id}-{scheme}-failed/state")
    expect(page.locator(".end-line")).to_have_text("Failed: API Error: 429 out of tokens")
    expect(page.locator(".end-line")).to_have_css("color", red)
    hook(http, f"{session_id}-well", "Stop", last_assistant_message="All is built")
    http.post(f"/api/sessions/{session_id}-well/finalize", json={"reason": "other"}).raise_for_status()
    page.goto(f"{appliance.url}/#/session/{session_id}-well/log")
    expect(page.locator(".entry").last).to_have_text(re.compile("Session ended *other"))


def test_failures_are_listed_with_what_failed_and_how(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    call(http, session_id, "Bash", "b", command="make test")
    call(http, session_id, "WebFetch", "w", url="http://example.org/prices")
    call(http, session_id, "Bash", "fine", command="ls")
    respond(http, session_id, type="tool_result", toolUseId="fine", tool="Bash", output="", error="")
    respond(
        http, session_id, type="tool_error", toolUseId="b", tool="Bash", error="Exit code 2\nno rule to make it\nmore"
    )
    respond(http, session_id, type="tool_error", toolUseId="w", tool="WebFetch", error={"message": "ENOTFOUND"})
    call(http, session_id, "Bash", "open", command="sleep 100")
    respond(http, session_id, type="assistant_message", message="I give up")
    opened(page, appliance, f"session/{session_id}/log?errors=yes")
    rows = page.locator(".entry")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("make test")
    expect(rows.nth(0).locator(".why")).to_have_text("Exit code 2: no rule to make it")
    expect(rows.nth(1)).to_contain_text("http://example.org/prices")
    expect(rows.nth(1).locator(".why")).to_have_text("ENOTFOUND")
    call(http, session_id, "Read", "live", file_path="/src/a.py")
    respond(http, session_id, type="tool_error", toolUseId="live", tool="Read", error="EACCES")
    expect(rows.nth(2)).to_contain_text("/src/a.py")
    expect(rows.nth(2).locator(".why")).to_have_text("EACCES")

    page.goto(f"{appliance.url}/#/session/{session_id}/timeline")
    wrong = page.locator(".summary-lists section").first
    expect(wrong.locator("h2")).to_have_text("Went wrong (3)")
    expect(wrong.locator(".why").filter(has_text="no rule")).to_be_visible()
    expect(wrong.locator("li").last).to_contain_text(re.compile("sleep 100.*no result", re.DOTALL))


def test_what_a_person_rejected_is_no_failure(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    call(http, session_id, "Edit", "e", file_path="/src/a.py")
    respond(http, session_id, type="tool_error", toolUseId="e", tool="Edit", error="No, use tabs", rejected=True)
    opened(page, appliance, f"session/{session_id}/log")
    row = page.locator(".entry[data-state=rejected]")
    expect(row).to_contain_text(re.compile("/src/a.py.*No, use tabs.*rejected", re.DOTALL))
    row.click()
    expect(page.locator(".detail .chip")).to_have_text("rejected")
    page.goto(f"{appliance.url}/#/session/{session_id}/timeline")
    expect(page.locator(".summary-lists section").first).to_contain_text("Nothing did")


def test_what_a_machine_says_is_no_prompt_of_a_person(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    hook(http, session_id, "UserPromptSubmit", prompt="Build the shop")
    notice = (
        "<task-notification>\n<task-id>a1</task-id>\n<summary>The tests have passed</summary>\n</task-notification>"
    )
    opened(page, appliance)
    hook(http, session_id, "UserPromptSubmit", prompt=notice)
    expect(page.locator("#feed")).to_contain_text("System notice: The tests have passed")
    expect(page.locator("#main")).not_to_contain_text("task-notification")
    row = page.locator("#groups .live", has=page.locator("code", has_text=re.compile(f"^{session_id}$")))
    expect(row.locator(".doing")).to_have_text("Build the shop")
    page.goto(f"{appliance.url}/#/session/{session_id}/log")
    expect(page.locator(".entry[data-kind=prompt]")).to_have_count(1)
    expect(page.locator(".entry[data-kind=notice]")).to_contain_text("The tests have passed")


def test_compaction_is_shown_as_such_and_counts_as_no_agent(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    hook(http, session_id, "SubagentStart", agent_id="a1", agent_type="Explore")
    summary = "<analysis>\nthinking\n</analysis>\n<summary>It builds a shop</summary>"
    hook(http, session_id, "SubagentStop", agent_id="a7107e0f", agent_type="", last_assistant_message=summary)
    hook(http, session_id, "PostCompact", trigger="manual", compact_summary=summary)
    opened(page, appliance, f"session/{session_id}/log")
    expect(page.locator(".entry", has_text="Compaction").first).to_contain_text("It builds a shop")
    expect(page.locator("#session")).not_to_contain_text("analysis")
    expect(page.locator(".tabs")).to_contain_text("Agents 1")
    page.get_by_role("link", name="Agents 1").click()
    expect(page.locator(".worker")).to_have_count(1)
    expect(page.locator(".worker")).to_contain_text("Explore")


def test_nobody_works_in_a_session_that_is_over(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    hook(http, session_id, "SubagentStart", agent_id="a1", agent_type="Explore")
    hook(
        http,
        session_id,
        "PreToolUse",
        agent_id="a1",
        tool_name="Bash",
        tool_use_id="t",
        tool_input={"command": "sleep 9"},
    )
    opened(page, appliance, f"session/{session_id}/agents")
    expect(page.locator(".worker .chip")).to_have_text("spawned")
    http.post(f"/api/sessions/{session_id}/finalize", json={}).raise_for_status()
    expect(page.locator(".worker .chip")).to_have_text(re.compile("no end came|cancelled"))
    page.goto(f"{appliance.url}/#/session/{session_id}/log?show=tools")
    expect(page.locator(".entry", has_text="sleep 9")).to_contain_text("no result")


def test_nodes_of_a_graph_go_by_their_names_and_each_run_has_its_time(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    node, task = "pipeline.fetch", '{"question": "mail 1"}'
    running, done = {"agentId": node, "task": task, "status": "running"}, {"agentId": node, "status": "completed"}
    tell(http, session_id, ("agent_spawned", node, 0, running | {"type": "fetch"}), ("agent_completed", node, 1, done),
         ("agent_updated", node, 50, running), ("agent_completed", node, 52, done | {"result": '{"answer": "spam"}'}),
         ("response", None, 53, {"type": "graph_end", "runId": "01a229a8-f933", "graph": "email_solver"}))  # fmt: skip
    opened(page, appliance, f"session/{session_id}/log")
    rows = page.locator(".entry[data-kind=agent]")
    expect(rows.locator(".title")).to_have_text(
        ["fetch begins", "fetch completed", "fetch begins again", "fetch completed"]
    )
    expect(rows.locator(".who")).to_have_text(["fetch"] * 4)
    expect(rows.nth(1).locator(".took")).to_have_text("1.0 s")
    expect(rows.nth(3)).to_contain_text(re.compile("spam.*2.0 s", re.DOTALL))
    expect(page.locator(".entry", has_text="Graph end")).to_have_count(0)
    page.get_by_label("Bookkeeping").check()
    expect(page.locator(".entry", has_text="Graph end")).to_contain_text("email_solver")
    page.goto(f"{appliance.url}/#/session/{session_id}/timeline")
    expect(page.locator(".lane-names li").last).to_have_text("fetch")
    spans = page.locator("rect.span title")
    expect(spans).to_have_text(["fetch, run 1 of 2: 1.0 s", "fetch, run 2 of 2: 2.0 s"])
    page.goto(f"{appliance.url}/#/session/{session_id}/agents")
    expect(page.locator(".worker")).to_contain_text("2 runs, 3.0 s in all, the last 2.0 s")
    expect(page.locator(".worker .tree").first).to_have_text("question: mail 1")


def test_goals_go_by_what_they_are(page: Page, appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    opened(page, appliance)
    goals = f"/api/state/{session_id}/goals"
    http.post(goals, json={"description": "Build the API"}).raise_for_status()
    http.patch(f"{goals}/goal-1", json={"status": "in_progress"}).raise_for_status()
    expect(page.locator("#feed")).to_contain_text("Goal in progress: Build the API")
    for tab in ("log", "goals"):
        page.goto(f"{appliance.url}/#/session/{session_id}/{tab}")
        expect(page.locator("#session .tab")).to_contain_text(re.compile("in progress.*Build the API", re.DOTALL))
        expect(page.locator("#session .tab")).not_to_contain_text(re.compile("goal-1|in_progress"))


def test_a_session_leads_to_the_one_that_it_continues(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    place = {"cwd": "/home/dev/shop/.claude/worktrees/agent-1"}
    beginning = {"userId": "alice", "parentSession": f"{session_id}-a", "metadata": {"source": "clear"} | place}
    http.put(f"/api/sessions/{session_id}-a", json={"userId": "alice"}).raise_for_status()
    http.put(f"/api/sessions/{session_id}-b", json=beginning).raise_for_status()
    opened(page, appliance, f"session/{session_id}-b/log")
    expect(page.locator(".facts-line div", has_text="Continues")).to_contain_text(f"{session_id}-a")
    expect(page.locator(".facts-line")).not_to_contain_text("Parent")
    page.locator(".facts-line").get_by_role("link", name=f"{session_id}-a").click()
    expect(page.locator("#session h1")).to_have_text(f"{session_id}-a")
    page.goto(f"{appliance.url}/#/sessions?q={session_id}-b")
    expect(page.locator("#table li", has_text=f"{session_id}-b")).to_contain_text("shop")
    expect(page.locator("#table")).not_to_contain_text("agent-1")


# -------------------------------------------------------------------------- find


def test_the_keyboard_alone_is_enough(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance)
    expect(page.locator("#groups .live").first).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type(told[:8])
    first = page.locator("#palette-list [role=option]").first
    expect(first).to_contain_text(told[:8])
    expect(first.locator(".chip")).not_to_have_text("find")  # the server has answered
    page.keyboard.press("Enter")
    expect(page.locator("#session header code")).to_have_text(told)
    expect(page.locator(".entry").first).to_be_visible()
    page.keyboard.press("k")
    expect(page.locator(".entry[aria-current=true]")).to_be_visible()
    chosen = page.locator(".entry[aria-current=true]").inner_text()
    page.keyboard.press("k")
    expect(page.locator(".entry[aria-current=true]")).not_to_have_text(chosen)
    page.keyboard.press("Escape")
    expect(page.locator(".detail")).to_have_count(0)
    page.keyboard.press("]")
    expect(page.locator(".tabs [aria-current]")).to_have_text("State")
    page.keyboard.press("[")
    page.keyboard.press("[")
    expect(page.locator(".tabs [aria-current]")).to_have_text("Timeline")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".detail")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    expect(page.locator("#groups .live").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#session h1")).to_be_visible()


# -------------------------------------------------------------------- who may, how


def test_it_asks_for_a_token_where_one_is_needed_and_forgets_it_again(page: Page, tmp_path: Path) -> None:
    tokens = {"SESSIONS_READ_TOKEN": "a-token-to-read", "SESSIONS_INGEST_TOKEN": "a-token-to-write"}
    with Appliance(tmp_path, tokens) as appliance:
        page.goto(appliance.url)
        refused = page.locator("#login [role=alert]")
        for token, answer in (("a-token-that-is-wrong", "not known"), ("a-token-to-write", "may only write")):
            page.get_by_label("Token").fill(token)
            page.locator("#login button").click()
            expect(refused).to_contain_text(answer)
        page.get_by_label("Token").fill("a-token-to-read")
        page.locator("#login button").click()
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#new-session")).to_be_hidden()  # who may only read is offered nothing else
        page.reload()
        expect(page.locator("#connection")).to_have_text("Live")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator("#home")).to_be_hidden()


def test_who_may_only_read_is_not_asked_to_try_what_that_takes(page: Page, tmp_path: Path) -> None:
    with Appliance(
        tmp_path, {"SESSIONS_READ_TOKEN": "a-token-to-read", "SESSIONS_TOKEN": "a-token-for-all"}
    ) as appliance:
        page.goto(appliance.url)
        expect(page.get_by_label("Token")).to_be_visible()
        for part in (".bar nav", "#find", "#new-session", "#show-keys"):
            expect(page.locator(part)).to_be_hidden()
        for token, sees in (("a-token-to-read", 0), ("a-token-for-all", 1)):
            page.get_by_label("Token").fill(token)
            page.locator("#login button").click()
            expect(page.locator("#home-none")).to_contain_text("No sessions yet")
            expect(page.locator("#home-none").get_by_text("Or Create").filter(visible=True)).to_have_count(sees)
            expect(page.locator(".bar nav")).to_be_visible()
            page.get_by_role("button", name="Log out").click()


def test_both_themes_follow_the_system_until_a_person_chooses(page: Page, appliance: Appliance) -> None:
    opened(page, appliance)
    body, dark, light = page.locator("body"), "rgb(13, 16, 21)", "rgb(245, 246, 248)"
    expect(body).to_have_css("background-color", dark)
    page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", light)
    page.get_by_role("button", name="Theme: system").click()
    page.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", light)
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Theme: light").click()
    expect(body).to_have_css("background-color", dark)
    page.reload()
    expect(body).to_have_css("background-color", dark)


# ------------------------------------------------------------------ analytics


def test_analytics_shows_what_the_queries_answer(
    page: Page, appliance: Appliance, http: httpx.Client, told: str
) -> None:
    opened(page, appliance, "analytics?range=all")
    for name, title in {
        "tools": "Tools",
        "users": "Users",
        "models": "Models",
        "status-mix": "Sessions by status",
    }.items():
        rows = http.get(f"/datasette/sessions/{name}.json", params={"_shape": "array"}).json()
        shown = page.get_by_role("region", name=title).locator("tbody tr")
        expect(shown).to_have_count(len(rows))
        for place, row in enumerate(rows):
            names = [str(value) for value in row.values() if isinstance(value, str)]
            expect(shown.nth(place)).to_contain_text(names[0])
    calls = http.get("/datasette/sessions/tools.json", params={"_shape": "array"}).json()[0]
    expect(page.get_by_role("region", name="Tools").locator("tbody tr").first).to_contain_text(f"{calls['calls']:,}")


def test_each_picture_leads_to_the_sql_behind_it(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, "analytics?range=week")
    expect(page.get_by_role("img", name=re.compile("Activity over time: [1-9].* events"))).to_be_visible()
    page.get_by_role("link", name="SQL behind Activity").click()
    expect(page.get_by_role("heading", name="Activity over time")).to_be_visible()
    assert re.search(r"/datasette/sessions/activity\?from=\d{4}-.*&step=10800", page.url)


def test_a_time_in_which_nothing_happened_is_said_to_be_so(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, "analytics?range=days&from=2001-01-01&to=2001-01-03")
    expect(page.get_by_text("Nothing in that time.")).to_have_count(8)
    page.locator("#analytics-filter select").select_option("everything")
    expect(page.get_by_role("region", name="Tools").locator("tbody tr").first).to_be_visible()
    assert page.url.endswith("#/analytics?range=all")


def views_of(session_id: str) -> list[str]:
    return [
        "",
        "?as=board&group=project",
        "?as=feed",
        "sessions",
        "search?q=note",
        "analytics?range=all",
        *(f"session/{session_id}/{tab}" for tab in TABS),
        "session/none/log",
    ]


def test_analytics_is_there_when_one_clicks_on_it_and_nothing_happens(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        log(http, "s", "the only word")
        opened(page, appliance)
        page.locator(".bar nav").get_by_role("link", name="Analytics").click()
        expect(page.locator("#panels section")).to_have_count(8)
        expect(page.get_by_role("region", name="Sessions by status").locator("tbody tr")).to_have_count(
            1, timeout=20_000
        )
        page.keyboard.press("h")
        log(http, "s", "a word while one is elsewhere")
        expect(page.locator("#feed")).to_contain_text("a word while one is elsewhere")
        page.go_back()
        expect(page.locator("#panels .tip")).to_contain_text("3 events", timeout=20_000)


@pytest.mark.parametrize("scheme", marked(["dark", "light"], long=["light"]))
def test_a_phone_has_a_navigation_that_a_thumb_can_use(
    page: Page, appliance: Appliance, told: str, scheme: Any
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    opened(page, appliance)
    nav = page.get_by_role("navigation", name="Main")
    for name, view in {"Sessions": "#sessions", "Analytics": "#analytics", "Home": "#home"}.items():
        place = nav.get_by_role("link", name=name)
        place.click()
        expect(page.locator(view)).to_be_visible()
        expect(place).to_have_attribute("aria-current", "page")
    targets = [*nav.get_by_role("link").all(), *page.locator(".bar button:visible").all()]
    assert len(targets) >= 6
    for target in targets:
        box = target.bounding_box()
        assert box and box["height"] >= 44 and box["width"] >= 44, target.inner_text()
    page.goto(f"{appliance.url}/#/session/{told}/log")
    last = page.locator(".entry").last
    last.scroll_into_view_if_needed()
    last.click(trial=True)  # and does not lie over what is shown


def test_an_empty_list_says_so_where_its_first_row_would_be(page: Page, appliance: Appliance) -> None:
    opened(page, appliance, "sessions?userId=nobody")
    page.wait_for_function("""() => {
        const [head, none] = [".table .header", "#table-none"]
            .map((each) => document.querySelector(each).getBoundingClientRect());
        return none.height > 0 && none.top - head.bottom < 10;
    }""")


def test_a_prompt_of_one_line_has_one(page: Page, appliance: Appliance, http: httpx.Client, session_id: str) -> None:
    log(
        http,
        session_id,
        "",
        type="prompt",
        prompt="Build the shop with a cart, a checkout, and a page for each of its products",
    )
    log(http, session_id, "", type="prompt", prompt="Build the shop. " * 20)
    opened(page, appliance, f"session/{session_id}/log")
    heights = [page.locator(".entry", has_text="Build").nth(number).bounding_box() for number in (0, 1)]
    assert [box and box["height"] for box in heights] == [34, 68]
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    expect(page.locator(".entry.tall")).to_have_count(2)


def test_nothing_is_wider_than_a_phone(page: Page, appliance: Appliance, told: str) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for view in views_of(told):
        page.goto(f"{appliance.url}/#/{view}")
        settled(page)
        for box in ("document.documentElement", "document.getElementById('main')"):
            assert page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") == 0, view
    opened(page, appliance, f"session/{told}/log")
    page.locator(".entry").last.click()
    expect(page.locator(".detail .body")).to_be_visible()


SOME, ALL = slice(None, None, 3), slice(None)


@pytest.mark.parametrize(
    ("scheme", "which"),
    [
        pytest.param("dark", SOME, id="dark-some"),
        pytest.param("dark", ALL, id="dark-all", marks=LONG),
        pytest.param("light", ALL, id="light-all", marks=LONG),
    ],
)
def test_axe_finds_nothing(
    page: Page, appliance: Appliance, http: httpx.Client, told: str, scheme: Any, which: slice
) -> None:
    waiting = {"reason": "question", "message": "Which one?"}
    log(http, "asks", "", type="elicitation", attention=waiting)
    http.post("/api/state/asks/goals", json={"description": "Ask"}).raise_for_status()
    axe = (files("axe_playwright_python") / "axe.min.js").read_text()
    page.emulate_media(color_scheme=scheme)
    error = http.get(f"/api/sessions/{told}/events?errors=true&limit=1").json()["items"][0]["cursor"]
    for view in ["session/asks/goals", *views_of(told), f"session/{told}/log?entry={error}"][which]:
        page.goto(f"{appliance.url}/#/{view}")
        settled(page)
        assert problems_of(page, axe) == [], view
    for key in ("?", "Control+k"):
        page.keyboard.press(key)
        assert problems_of(page, axe) == [], key
        page.keyboard.press("Escape")
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert problems_of(page, axe), "what is wrong would be found"


def problems_of(page: Page, axe: str) -> list[Any]:
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [(each["id"], each["impact"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found]


# -------------------------------------------------------------------------- safe


@pytest.mark.timeout(240)
def test_no_script_that_was_logged_ever_runs(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    assert len(set(PAYLOADS)) >= 300
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    opened(page, appliance)
    tell_with(http, session_id, PAYLOADS)
    expect(page.locator("#feed")).to_contain_text("Waits for a person")
    views = [
        "",
        "?as=cards&group=tag",
        "?as=feed&feed=all",
        "sessions",
        "search?q=hacked",
        *(f"session/{session_id}/{tab}" for tab in TABS),
    ]
    views += [f"session/{session_id}/raw?file={name}" for name in ("state.json", "events.jsonl", "initial.json")]
    for view in views:
        page.goto(f"{appliance.url}/#/{view}")
        settled(page)
        expect(page.locator("#main")).to_contain_text("hacked")
        page.evaluate("for (const each of document.querySelectorAll('#main details')) each.open = true")
        assert page.evaluate("window.hacked") is None, view
    for event in http.get(f"/api/sessions/{session_id}/events?limit=60").json()["items"][::5]:
        page.goto(f"{appliance.url}/#/session/{session_id}/log?entry={event['cursor']}")
        expect(page.locator(".detail .body > *").nth(1)).to_be_attached()
    settled(page)
    assert page.evaluate("window.hacked") is None
    for element in ("img", "iframe", "object", "video", "math", "a[href^=javascript]"):
        assert page.locator(element).count() == 0, element


STEERS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
SHOWN = """() => [...document.querySelectorAll(":not(script, style, template)")]
  .flatMap((each) => [...each.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data)
    .concat(["title", "aria-label", "placeholder"].map((name) => each.getAttribute(name) ?? "")))
  .concat(document.title).join("\\n")"""


@pytest.mark.long
@pytest.mark.timeout(240)
def test_nothing_that_was_logged_steers_the_screen(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    tell_with(http, session_id, SPOOFS)
    views = [
        "",
        "?as=cards&group=tag",
        "?as=feed&feed=all",
        "sessions",
        "search?q=payload",
        *(f"session/{session_id}/{tab}" for tab in TABS),
    ]
    views += [f"session/{session_id}/raw?file={name}" for name in ("state.json", "events.jsonl", "initial.json")]
    events = http.get(f"/api/sessions/{session_id}/events?limit=60").json()["items"]
    assert re.search(STEERS, json.dumps(events, ensure_ascii=False).encode().decode("unicode_escape", "ignore"))
    for view in [*views, *(f"session/{session_id}/log?entry={event['cursor']}" for event in events)]:
        page.goto(f"{appliance.url}/#/{view}")
        settled(page)
        assert re.findall(rf".{{0,30}}{STEERS}", page.evaluate(SHOWN)) == [], view
    page.get_by_role("button", name="Raw JSON").click()
    assert re.findall(STEERS, page.evaluate(SHOWN)) == []
    page.keyboard.press("Control+k")
    page.keyboard.type(session_id)
    expect(page.locator("#palette-list [role=option]").first).to_contain_text(re.compile("."))
    assert re.findall(STEERS, page.evaluate(SHOWN)) == []
    page.evaluate("document.querySelector('h1').title = '\u202e'")
    assert re.findall(STEERS, page.evaluate(SHOWN)), "what steers would be found"


def test_a_script_that_did_run_would_be_noticed(browser: Browser, appliance: Appliance) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content("<p></p>")  # no policy here
        page.evaluate("html => { document.querySelector('p').innerHTML = html; }", WRAPPERS[1](SCRIPT))
        page.wait_for_function("window.hacked === 1")
        page.goto(appliance.url)  # and here the policy forbids what the page itself would let through
        page.evaluate("html => { document.body.innerHTML = html; }", WRAPPERS[1](SCRIPT))
        page.evaluate("new Promise((done) => setTimeout(done, 200))")
        assert page.evaluate("window.hacked") is None


def test_a_page_finds_nothing_of_the_one_before_it(page: Page, appliance: Appliance) -> None:
    def kept(page: Page) -> Any:
        return page.evaluate("caches.keys().then((keys) => [localStorage.length, document.cookie, keys.length])")

    opened(page, appliance)
    page.evaluate("localStorage.mark = document.cookie = 'mark=1', caches.open('mark').then(() => 0)")
    other = opened(page.context.new_page(), appliance)
    assert all(kept(other)), "it is kept while nobody takes it away"
    forget(page.context)
    after = opened(page.context.new_page(), appliance)
    assert other.is_closed() and "mark" not in str(kept(after)) and not kept(after)[2]


def test_nobody_may_frame_it_and_nothing_comes_from_elsewhere(appliance: Appliance) -> None:
    answer = httpx.get(appliance.url, headers={"accept": "text/html"})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text)
    assert not re.search(r"""<[^>]+\son[a-z]+=|\sstyle=["']""", answer.text)
    sources = [path.read_text() for path in (REPOSITORY / "dashboard").rglob("*.js")]
    assert len(sources) > 20 and not any("innerHTML" in source for source in sources)


def test_how_webhooks_go_is_shown(page: Page, folder: Path, tmp_path: Path) -> None:
    """Folded away at the end of the page, and nothing of it where there are none."""
    file = tmp_path / "webhooks.json"
    file.write_text('[{"name": "ops", "url": "http://127.0.0.1:9/path", "rules": {"sameCallTimes": 5}}]')
    with Appliance(folder, {"SESSIONS_WEBHOOKS": str(file)}) as server:
        asking = {"type": "a", "attention": {"reason": "permission", "message": "May I?"}}
        httpx.post(f"{server.url}/api/actions/asking", json=asking)
        eventually(lambda: httpx.get(f"{server.url}/health").json()["webhooks"] == {"status": "failing", "pending": 1})
        page.goto(server.url)
        page.locator("#webhooks summary", has_text="Webhooks: failing, 1 waiting").click()
        row = page.locator("#webhooks tbody tr")
        expect(row).to_contain_text("ops (http://127.0.0.1:9)")
        expect(row).to_contain_text("waiting, lost, failed, budget, same call 5 times")
        expect(row).to_contain_text("it cannot be reached: ConnectionRefusedError")
        assert "path" not in page.locator("#webhooks").inner_text()


def test_nothing_is_shown_of_webhooks_where_there_are_none(page: Page, appliance: Appliance, told: str) -> None:
    page.goto(appliance.url)
    expect(page.locator("#server")).to_contain_text("version")
    expect(page.locator("#webhooks")).to_be_hidden()
