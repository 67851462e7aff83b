"""Home, and how things are found: what waits, runs and has ended, the feed, the lists, as people see and drive them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.appliance import Appliance
from tests.browsing import PHONE, call, log, opened, respond
from tests.browsing import tell as tell_of
from tests.fleet import Side, side_of, tell

WAITS = {"reason": "permission", "message": "Bash: rm -rf build", "tool": "Bash"}


def rows_of(page: Page, text: str) -> Any:
    return page.locator("#groups .live", has_text=text)


# ------------------------------------------------------------------------- the list


def test_home_says_who_waits_what_runs_and_what_has_ended(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    opened(page, appliance)
    log(http, session_id, "", type="prompt", prompt="Tidy the attic")
    row = rows_of(page, "Tidy the attic")
    expect(row).to_have_attribute("data-is", "active")
    call(http, session_id, "Bash", "t1", command="sweep --all")
    expect(row).to_contain_text("sweep --all")
    waiting = {"reason": "permission", "message": "May I burn it?"}
    log(http, session_id, "", type="permission_request", attention=waiting)
    ask = page.locator(".ask", has_text="Tidy the attic")
    expect(ask).to_contain_text("May I burn it?")
    expect(ask).to_contain_text("answer in its terminal")
    expect(ask.get_by_role("button", name="Allow")).to_be_hidden()
    expect(row).to_have_count(0)
    expect(page).to_have_title(re.compile(r"^\([1-9]"))
    respond(http, session_id, type="tool_result", toolUseId="t1", tool="Bash", attention=None)
    expect(row).to_have_attribute("data-is", "active")
    expect(ask).to_have_count(0)
    log(http, session_id, "", attention={"reason": "input", "message": "Done"})
    expect(row).to_contain_text("at prompt")
    expect(ask).to_have_count(0)  # who merely sits at the prompt asks nothing
    http.post(f"/api/sessions/{session_id}/finalize", json={"status": "failed", "outcome": "It rained"})
    expect(row.locator(".state")).to_have_text("failed")
    expect(row.locator(".doing.bad")).to_have_text("It rained")


def test_what_has_ended_is_acknowledged_by_a_key_and_stays_so(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for name, status in (("fine", "success"), ("bad", "failed"), ("worse", "failed")):
        log(http, f"{session_id}-{name}", "works")
        http.post(f"/api/sessions/{session_id}-{name}/finalize", json={"status": status}).raise_for_status()
    opened(page, appliance)
    rows = rows_of(page, session_id)
    expect(rows).to_have_count(3)
    assert "fine" in rows.last.inner_text(), "failures come first"
    rows.filter(has_text="worse").locator(".name").focus()
    page.keyboard.press("x")
    expect(rows).to_have_count(2)
    page.reload()
    expect(rows).to_have_count(2)
    other = opened(page.context.new_page(), appliance)
    expect(rows_of(other, session_id)).to_have_count(2)
    page.keyboard.press("Shift+X")
    expect(rows).to_have_count(0)
    expect(page.locator(".tile[data-is=failed] b")).to_have_text("0")
    expect(rows_of(other, session_id)).to_have_count(0)
    other.close()
    log(http, f"{session_id}-bad", "a late word")  # what says something more is to be seen again
    expect(rows).to_have_count(1)


def test_it_is_sorted_grouped_and_folded_and_remembers_it(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for name, project, errors in (("a", "shop", 0), ("b", "shop", 2), ("c", "mail", 0)):
        about = {"title": f"{session_id} {name}", "project": f"{session_id}-{project}"}
        http.put(f"/api/sessions/{session_id}-{name}", json={"userId": "alice", "metadata": about}).raise_for_status()
        for number in range(errors):
            respond(http, f"{session_id}-{name}", type="tool_error", tool="Bash", toolUseId=str(number), error="no")
    log(http, f"{session_id}-c", "", type="permission_request", attention=WAITS)
    opened(page, appliance, f"?words={session_id}")
    rows = rows_of(page, session_id)
    expect(rows.locator(".name")).to_have_text([f"{session_id} b", f"{session_id} a"])
    expect(rows.first.locator("[data-slot=errors]")).to_have_text("2")
    page.get_by_label("Sort by").select_option("name")
    expect(rows.locator(".name")).to_have_text([f"{session_id} a", f"{session_id} b"])
    page.get_by_label("Group by").select_option("project")
    heads = page.locator("#groups .section")
    expect(heads.locator("b")).to_have_text(["Waiting for you", f"{session_id}-mail", f"{session_id}-shop"])
    expect(heads.nth(1).locator(".dot")).to_have_attribute("data-is", "asks")
    expect(heads.nth(2).locator(".dot")).to_have_attribute("data-is", "active")
    heads.nth(2).get_by_role("button").click()
    expect(rows).to_have_count(1)
    page.reload()
    expect(heads).to_have_count(3)
    expect(rows).to_have_count(1)
    expect(heads.nth(2).get_by_role("button")).to_have_attribute("aria-expanded", "false")
    heads.nth(2).get_by_role("button").click()
    page.get_by_label("Group by").select_option("user")
    expect(heads.nth(1)).to_contain_text("alice")
    for view in ("Cards", "Board"):
        page.get_by_role("navigation", name="As").get_by_role("link", name=view).click()
        expect(page.locator("#groups .cards > .live")).to_have_count(3)
        expect(page.locator("#groups .cards > .ask")).to_have_count(1)
        expect(page.locator("#groups > :not(.group)")).to_have_count(0, timeout=2000)  # and no row of the table
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.locator("#groups").evaluate("(list) => list.clientHeight") > 100, "and they are in sight"
    page.get_by_role("navigation", name="As").get_by_role("link", name="Rows").click()
    expect(page.locator("#groups.long .live")).to_have_count(3)


def test_an_ask_stands_for_itself_and_opens_to_all_that_is_asked(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    opened(page, appliance)
    call(http, session_id, "Bash", "t1", command="rm -rf build")
    log(
        http, session_id, "", type="permission_request", tool="Bash", input={"command": "rm -rf build"}, attention=WAITS
    )
    ask = page.locator(".ask", has_text=session_id)
    expect(ask.locator(".state")).to_have_text("permission")
    expect(ask.locator(".what")).to_have_text("Bash: rm -rf build")
    page.reload()
    expect(ask.locator(".what")).to_have_text("Bash: rm -rf build")
    ask.locator(".what").click()
    expect(ask.locator(".all")).to_contain_text("rm -rf build")
    ask.locator(".what").click()
    expect(ask.locator(".all")).to_be_hidden()

    page.goto(f"{appliance.url}/#/?ask={ask.get_attribute('data-ask')}")  # as a notice links it
    expect(ask.locator(".all")).to_contain_text("rm -rf build")
    page.goto(f"{appliance.url}/#/?ask=of-long-ago")
    expect(page.get_by_text("That ask is not open any more.")).to_be_visible()

    others = [
        {"reason": "question", "message": f"Which {number}?", "agentId": "w1", "askId": f"{session_id}-{number}"}
        for number in range(3)
    ]
    log(http, f"{session_id}-two", "", type="permission_request", attention=WAITS | {"others": others})
    more = page.locator(".ask", has_text=f"{session_id}-two")
    expect(more).to_have_count(4)
    expect(more.filter(has_text="Which 1?").locator(".place")).to_contain_text("w1")
    page.goto(f"{appliance.url}/#/session/{session_id}-two/log")
    expect(page.locator("#session .ask")).to_have_count(4)
    expect(page.locator("#session [data-slot=status]").first).to_have_text("asks 4 things")


@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}])
def test_long_prompts_stay_in_their_lists(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str, size: Any
) -> None:
    page.set_viewport_size(size)
    name = f"{session_id}-{size['width']}"
    log(http, name, "", type="prompt", prompt="Build all of it, please. " * 20)
    http.post(f"/api/sessions/{name}/finalize", json={"status": "failed"}).raise_for_status()
    opened(page, appliance, "?status=failed")
    row, panel = page.locator("#groups .live").first, page.locator("#groups")
    for part in (row, row.locator("[data-slot=since]")):
        inner, outer = part.bounding_box(), panel.bounding_box()
        assert inner and outer and inner["x"] + inner["width"] <= outer["x"] + outer["width"]


# ------------------------------------------------------------------------- the feed


def test_the_feed_follows_pauses_filters_and_keeps_its_place(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for number in range(40):
        log(http, session_id, f"before {number}")
    opened(page, appliance)
    feed = page.locator("#feed")
    log(http, session_id, "while it is open")
    expect(feed).to_contain_text("while it is open")

    page.get_by_role("button", name="Pause").click()
    log(http, session_id, "while it is paused")
    expect(page.locator("#feed-fresh")).to_have_text("Paused: 1 new")
    expect(feed).not_to_contain_text("while it is paused")
    page.get_by_role("button", name="Resume").click()
    expect(feed).to_contain_text("while it is paused")

    scroller = page.locator(".feed .scroller")
    scroller.evaluate("e => { e.scrollTop = 300; }")
    seen = feed.locator("li", has_text="before 30").first
    expect(seen).to_be_visible()
    place = seen.bounding_box()
    log(http, session_id, "far above")
    expect(page.locator("#feed-fresh")).to_have_text("1 new ↑")
    assert seen.bounding_box() == place
    page.locator("#feed-fresh").click()
    expect(feed).to_contain_text("far above")

    page.locator("#feed-text").fill("before 7")
    expect(feed.locator("li")).to_have_count(1)
    expect(page).to_have_url(re.compile("text=before"))
    page.locator("#feed-kind").select_option("asks")
    expect(page.locator("#feed-none")).to_be_visible()


def test_a_call_is_one_line_of_the_feed_that_grows_and_what_repeats_is_folded(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    http.put(f"/api/sessions/{session_id}", json={"userId": "alice", "metadata": {"title": f"Named {session_id}"}})
    opened(page, appliance)
    lines = page.locator("#feed li", has_text=f"Named {session_id}").filter(has_text=re.compile("Bash|Read"))
    call(http, session_id, "Bash", "t1", command="make test")
    expect(lines).to_have_count(1)
    expect(lines.locator(".took")).to_have_text("running")
    respond(http, session_id, type="tool_result", toolUseId="t1", tool="Bash", durationMs=1200, output="ok")
    expect(lines.locator(".took")).to_have_text("1.2 s")
    for number in range(14):
        call(http, session_id, "Read", f"r{number}", file_path=f"/src/{number}.py")
        respond(http, session_id, type="tool_result", toolUseId=f"r{number}", tool="Read", output="x", durationMs=3)
    log(http, session_id, "", type="post_tool_batch")
    http.patch(f"/api/state/{session_id}", json={"phase": "x"}).raise_for_status()
    expect(lines).to_have_count(2)
    expect(lines.first).to_contain_text("Read \u00d714")
    call(http, session_id, "Bash", "t2", command="make broken")
    respond(http, session_id, type="tool_error", toolUseId="t2", tool="Bash", error="Exit code 2\nno rule to make it")
    expect(lines.first.locator(".why")).to_have_text("Exit code 2: no rule to make it")
    feed = page.locator("#feed")
    expect(feed).not_to_contain_text("Tool batch")
    page.locator("#feed-kind").select_option("all")
    expect(feed).to_contain_text("Tool batch")
    expect(feed).to_contain_text("State: x")
    page.locator("#feed-kind").select_option("asks")
    expect(lines).to_have_count(1)


# -------------------------------------------------------------------------- find


def test_the_feed_names_sessions_that_home_does_not_have(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    names = [f"{session_id}-{number}" for number in range(40)]
    for number, name in enumerate(names):
        http.put(f"/api/sessions/{name}", json={"userId": "bob", "metadata": {"title": f"Chore {number}"}})
        http.post(f"/api/sessions/{name}/finalize", json={}).raise_for_status()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "sessionId=" in request.url else None)
    opened(page, appliance)
    for name in names[:3]:  # of those that have ended well home has the newest 30
        http.post(f"/api/sessions/{name}/notes", json={"text": f"Look at {name}"}).raise_for_status()
    rows = page.locator("#feed li", has_text="Note: Look at")
    expect(rows).to_have_count(3)
    expect(rows.first.locator("[data-slot=who]")).to_have_text("Chore 2")
    scroller = page.locator("#feed").locator("xpath=..")
    scroller.evaluate("(each) => each.scrollTo(0, each.scrollHeight)")
    assert len(asked) <= 6, "together, not one by one"


def test_what_was_deleted_is_gone_from_the_feed_and_what_asks_is_told_in_every_view(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    opened(page, appliance)
    log(http, session_id, "not for long")
    expect(page.locator("#feed")).to_contain_text("not for long")
    http.delete(f"/api/sessions/{session_id}").raise_for_status()
    expect(page.locator("#feed")).to_contain_text("Session deleted")
    expect(page.locator("#feed")).not_to_contain_text("not for long")
    ask = {"type": "permission_request", "tool": "Bash", "input": {}, "attention": WAITS}
    log(http, f"{session_id}-asks", "", **ask)
    opened(page, appliance, "sessions")
    page.reload()  # so that the title is of now
    expect(page).to_have_title(re.compile(r"^\(\d+\) Sessions"))
    waiting = int(page.title()[1:].partition(")")[0])
    log(http, f"{session_id}-asks-too", "", **ask)
    expect(page).to_have_title(re.compile(rf"^\({waiting + 1}\) "))
    http.delete(f"/api/sessions/{session_id}-asks-too").raise_for_status()
    expect(page).to_have_title(re.compile(rf"^\({waiting}\) "))


def test_a_note_stands_in_the_table_of_sessions(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    log(http, session_id, "", type="prompt", prompt="Tidy the attic")
    opened(page, appliance, f"sessions?q={session_id}")
    row = page.locator("#table li")
    expect(row).to_contain_text("Tidy the attic")
    http.post(f"/api/sessions/{session_id}/notes", json={"text": "Ask Bob first"}).raise_for_status()
    expect(row.locator("[data-slot=at]")).to_contain_text("✎ Ask Bob first")


def test_the_table_of_sessions_follows_too(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    http.put(f"/api/sessions/{session_id}", json={"userId": session_id}).raise_for_status()
    opened(page, appliance, f"sessions?userId={session_id}")
    rows = page.locator("#table li")
    expect(rows).to_have_count(1)
    http.put(f"/api/sessions/{session_id}-two", json={"userId": session_id}).raise_for_status()
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(f"{session_id}-two")
    http.post(f"/api/sessions/{session_id}/finalize", json={"status": "cancelled"}).raise_for_status()
    expect(rows.first).to_contain_text("cancelled")
    http.delete(f"/api/sessions/{session_id}-two").raise_for_status()
    expect(rows).to_have_count(1)
    page.keyboard.press("h")  # what comes while one is elsewhere is there when one comes back
    http.put(f"/api/sessions/{session_id}-three", json={"userId": session_id}).raise_for_status()
    expect(rows_of(page, f"{session_id}-three")).to_have_count(1)
    page.go_back()
    expect(rows).to_have_count(2)


def test_what_is_far_down_in_the_table_follows_too(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    names = [f"{session_id}-{number}" for number in range(3)]
    for name in names:
        http.put(f"/api/sessions/{name}", json={"userId": session_id}).raise_for_status()
    pattern = re.compile(r"/api/sessions\?.*limit=200")
    page.route(pattern, lambda route: route.continue_(url=route.request.url.replace("limit=200", "limit=1")))
    opened(page, appliance, f"sessions?userId={session_id}&status=active")
    shown = page.locator("#table [data-slot=name]")
    expect(shown).to_have_text([*reversed(names)])
    http.post(f"/api/sessions/{names[0]}/finalize", json={"status": "failed"}).raise_for_status()
    expect(shown).to_have_text([names[2], names[1]])
    http.delete(f"/api/sessions/{names[1]}").raise_for_status()
    expect(shown).to_have_text([names[2]])
    page.unroute_all()


def test_sessions_are_filtered_as_one_types_sorted_and_kept_as_views(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for name, branch, errors in (("apple", "main", 0), ("berry", "main", 2), ("cherry", "fix", 1)):
        about = {"title": f"{session_id} {name}", "where": {"branch": branch}, "pinned": name == "apple"}
        http.put(f"/api/sessions/{session_id}-{name}", json={"userId": "alice", "metadata": about}).raise_for_status()
        for number in range(errors):
            respond(http, f"{session_id}-{name}", type="tool_error", tool="Bash", toolUseId=str(number), error="no")
        used = {"source": "sdk", "requestKey": f"{session_id}-{name}", "inputTokens": 9, "costUsd": errors + 0.25}
        tell_of(http, f"{session_id}-{name}", ("usage_reported", None, 0, used))
    opened(page, appliance, "sessions")
    names = page.locator("#table [data-slot=name]")
    page.locator("#sessions-filter").get_by_label("Text").press_sequentially(f"{session_id} ")
    expect(names).to_have_text([f"{session_id} {name}" for name in ("cherry", "berry", "apple")])
    page.get_by_label("Branch").press_sequentially("main")
    expect(names).to_have_text([f"{session_id} berry", f"{session_id} apple"])
    page.locator(".cols.header").get_by_role("button", name="Session").click()
    expect(names).to_have_text([f"{session_id} apple", f"{session_id} berry"])
    page.get_by_label("Errors").check()
    expect(names).to_have_text([f"{session_id} berry"])
    page.get_by_role("button", name="Save view").click()
    page.locator("#ask input").fill("Broken on main")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Clear").click()
    expect(names).not_to_have_count(1)
    page.reload()
    page.get_by_role("link", name="Broken on main").click()
    expect(names).to_have_text([f"{session_id} berry"])
    expect(page.get_by_label("Branch")).to_have_value("main")
    page.get_by_role("button", name="\u00d7").click()
    expect(page.get_by_role("link", name="Broken on main")).to_have_count(0)
    page.goto(f"{appliance.url}/#/sessions?q={session_id}")
    page.get_by_label("Cost").fill("1.2")
    expect(names).to_have_text([f"{session_id} cherry", f"{session_id} berry"])
    page.get_by_label("Cost").fill("2.25")
    expect(names).to_have_text([f"{session_id} berry"])
    expect(page).to_have_url(re.compile("cost=2.25"))
    page.get_by_label("Cost").fill("")
    expect(names).to_have_count(3)
    page.get_by_label("Pinned").check()
    expect(names).to_have_text([f"{session_id} apple"])


def test_what_is_typed_before_the_list_is_there_counts(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    for name in ("apple", "berry"):
        log(http, f"{session_id}-{name}", "works")
    held: list[Any] = []
    page.route("**/dashboard/sessions.js", lambda route: held.append(route))
    opened(page, appliance, "sessions")
    page.locator("#sessions-filter").get_by_label("Text").fill(f"{session_id}-berry")
    held[0].continue_()
    expect(page.locator("#table [data-slot=name]")).to_have_text([re.compile("berry")])
    page.unroute_all()


def test_what_was_logged_is_found_and_the_hit_leads_to_it(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    log(http, session_id, "a needle in the haystack")
    opened(page, appliance)
    page.keyboard.press("/")
    page.keyboard.type("needle hay")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/search\?q=needle"))
    expect(page.locator("#results mark").first).to_have_text("needle")
    page.locator("#results .hit").first.click()
    expect(page.locator(".entry[aria-current=true]")).to_contain_text("needle")
    page.go_back()
    expect(page.locator("#results .hit")).to_have_count(1)
    page.locator("#search-filter").get_by_label("Words").fill("nothing like this")
    page.keyboard.press("Enter")
    expect(page.locator("#search-none")).to_contain_text("Nothing that was logged")
    log(http, session_id, "nothing like this was there until now")
    page.locator("#search-filter").get_by_role("button").click()
    expect(page.locator("#results .hit")).to_have_count(1)
    for words, when, hits in (
        ("hay", "24", 1),
        ('"needle hay"', "24", 0),
        ("haystack -need", "", 1),
        ("hay* -needle", "", 0),
    ):
        page.locator("#search-filter").get_by_label("Words").fill(words)
        page.locator("#search-filter").get_by_label("When").select_option(when)
        page.keyboard.press("Enter")
        expect(page.locator("#results .hit")).to_have_count(hits)
    expect(page.locator("#search-behind")).to_be_hidden()


def test_hits_stand_under_their_sessions_and_are_narrowed_by_facets(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    word = f"zebra{session_id.replace('-', '')}"
    for name, user, times in (("one", "alice", 5), ("two", "bob", 1)):
        about = {"userId": user, "metadata": {"title": f"{session_id} {name}"}}
        http.put(f"/api/sessions/{session_id}-{name}", json=about).raise_for_status()
        for number in range(times):
            call(http, f"{session_id}-{name}", "Bash", str(number), command=f"ride {word} {number}")
    log(http, f"{session_id}-two", f"a {word} runs")
    opened(page, appliance, f"search?q={word}")
    expect(page.locator("#search-count")).to_have_text("7 hits")
    groups = page.locator(".found")
    expect(groups).to_have_count(2)
    many = groups.filter(has_text=f"{session_id} one")
    expect(many).to_contain_text(re.compile("alice.*5 hits", re.DOTALL))
    expect(many.locator(".hit")).to_have_count(3)
    expect(many.locator(".snippet").first).to_have_text(re.compile(rf"^ride {word} \d$"))  # no internals
    many.get_by_role("button", name="2 more hits").click()
    expect(many.locator(".hit")).to_have_count(5)
    facets = page.locator("#facets")
    facets.get_by_role("button", name=re.compile("^1 +Note$")).click()
    expect(page.locator("#results .hit")).to_have_count(1)
    facets.get_by_role("button", name="All").click()
    facets.get_by_role("button", name=re.compile("^5 +alice$")).click()
    expect(page.locator("#results .hit")).to_have_count(5)
    expect(page).to_have_url(re.compile("user=alice"))


# ------------------------------------------------------------------- the first minute


def ways_in(page: Page) -> dict[str, str]:
    parts = page.locator(".welcome section")
    expect(parts).to_have_count(3)
    return {part.locator("h3").inner_text(): part.locator("pre").inner_text() for part in parts.all()}


def test_the_first_minute_shows_ways_in_that_work_and_listens(page: Page, tmp_path: Path) -> None:
    settings = {"SESSIONS_READ_TOKEN": "a-token-to-read", "SESSIONS_TOKEN": "a-token-for-all"}
    with Appliance(tmp_path / "store", settings) as appliance:
        page.goto(appliance.url)
        page.get_by_label("Token").fill("a-token-to-read")
        page.locator("#login button").click()
        expect(page.locator("#connection")).to_have_text("Live")
        assert all("tokens/ingest" in words for words in ways_in(page).values())
    with Appliance(tmp_path / "open") as appliance, httpx.Client(base_url=appliance.url) as http:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened(page, appliance)
        expect(page.locator(".listening")).to_be_visible()
        ways = ways_in(page)
        page.locator(".welcome").get_by_role("button", name="Copy").last.click()
        expect(page.locator("#notes")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == ways["curl"]
        home = tmp_path / "home"
        home.mkdir()
        folder = {"HOME": str(home), "USER": "zoe", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        for name in ("Claude Code", "Python", "curl"):
            done = subprocess.run(["bash", "-ec", ways[name]], cwd=home, env=folder, capture_output=True, text=True)
            assert done.returncode == 0, (name, done.stderr)
        assert "hooks" in json.loads((home / ".claude" / "settings.json").read_text())
        assert {item["sessionId"] for item in http.get("/api/sessions").json()["items"]} >= {"first-curl"}
        expect(rows_of(page, "first-curl")).to_be_visible()
        expect(page.locator(".welcome")).to_have_count(0)


# ------------------------------------------------------------- answers and orders


@pytest.fixture
def side(appliance: Appliance, session_id: str) -> Iterator[Side]:
    with side_of(appliance, session_id) as side:
        yield side


def unlocked(page: Page, appliance: Appliance) -> None:
    """This browser has the token that may answer, by asking for it once."""
    page.locator("#ask").get_by_label("Token").fill((appliance.folder / "tokens" / "control").read_text().strip())
    page.keyboard.press("Enter")


def test_asks_are_answered_from_home_and_gone_when_answered_elsewhere(
    page: Page, appliance: Appliance, side: Side
) -> None:
    edit = {"file_path": "/srv/shop/cart.py", "old_string": "total = 1", "new_string": "total = 2"}
    first = side.ask(f"May {side.session_id} edit?", tool="Edit", input=edit)
    side.wait(ask=first)
    opened(page, appliance)
    ask = page.locator(f".ask[data-ask='{first}']")
    expect(ask.locator(".what")).to_have_text("Edit: /srv/shop/cart.py")
    ask.locator(".name").focus()
    page.keyboard.press("e")
    expect(ask.locator(".all .del:not(.sign)")).to_have_text("total = 1")
    expect(ask.get_by_role("button", name="Allow")).to_be_visible()
    page.keyboard.press("a")
    unlocked(page, appliance)
    given = side.given()
    assert (given["decision"], given["by"]) == ("allow", "control")
    expect(ask).to_have_count(0)

    question = {"questions": [{"question": "Which database?", "options": [{"label": "sqlite"}, {"label": "postgres"}]}]}
    second = side.ask("Which database?", "question", tool="AskUserQuestion", input=question)
    side.wait(ask=second)
    ask = page.locator(f".ask[data-ask='{second}']")
    ask.get_by_role("button", name="Reply").click()
    page.locator("#ask").get_by_role("button", name="postgres").click()
    page.locator("#ask").get_by_role("button", name="Answer").click()
    assert side.given()["answers"] == {"Which database?": "postgres"}
    expect(ask).to_have_count(0)

    third = side.ask("rm -rf / ?", tool="Bash", input={"command": "rm -rf /"})
    side.wait(ask=third)
    ask = page.locator(f".ask[data-ask='{third}']")
    ask.get_by_role("button", name="Reply").click()
    page.locator("#ask textarea").fill("Only below build")
    page.locator("#ask").get_by_role("button", name="Deny with these words").click()
    given = side.given()
    assert (given["decision"], given["message"]) == ("deny", "Only below build")

    fourth = side.ask("make all?", tool="Bash", input={"command": "make all"})
    side.wait(ask=fourth)
    page.goto(f"{appliance.url}/#/session/{side.session_id}/log")  # and from the session's own page
    page.reload()
    page.locator("#session .ask").get_by_role("button", name="Allow").click()
    assert side.given()["decision"] == "allow"
    page.goto(appliance.url)

    last = side.ask("make ?", tool="Bash", input={"command": "make"})
    ask = page.locator(f".ask[data-ask='{last}']")
    expect(ask).to_contain_text("answer in its terminal")  # nobody waits: said before one types
    expect(ask.get_by_role("button", name="Reply")).to_be_hidden()
    respond(side.http, side.session_id, type="tool_result", tool="Bash", input={"command": "make"}, output="ok")
    expect(ask).to_have_count(0)


def test_orders_reach_the_agent_and_their_fate_is_shown(page: Page, appliance: Appliance, side: Side) -> None:
    log(side.http, side.session_id, "works")
    opened(page, appliance, f"session/{side.session_id}/log")
    orders = page.locator("#session .orders")
    expect(orders.get_by_role("button", name="Stop")).to_be_disabled()  # nobody asks for orders there yet
    side.wait()
    log(side.http, side.session_id, "works on")
    orders.get_by_role("button", name="Say").click()
    page.locator("#ask textarea").fill("Mind the tests")
    page.locator("#ask").get_by_role("button", name="Say").click()
    unlocked(page, appliance)
    assert side.given()["text"] == "Mind the tests"
    expect(orders.locator("li")).to_contain_text(re.compile("Say.*Mind the tests.*delivered", re.DOTALL))
    side.wait()
    orders.get_by_role("button", name="Pause").click()
    page.locator("#ask").get_by_role("button", name="Pause").click()
    assert side.given()["order"] == "pause"
    side.wait()
    orders.get_by_role("button", name="Release").click()
    assert side.given()["order"] == "release"
    expect(orders.get_by_role("button", name="Release")).to_have_count(0)


NOTICES = """() => {
    window.told = [];
    window.Notification = class {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title, { body }) { window.told.push(this); Object.assign(this, { title, body, isOpen: true }); }
        close() { this.isOpen = false; }
    };
}"""


def test_who_does_not_look_is_told_once_and_not_of_what_is_over(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    page.add_init_script(f"({NOTICES})()")
    opened(page, appliance)
    page.locator("#notify").click()
    expect(page.locator("#notes")).to_contain_text("You are told")
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    for number in range(3):
        log(http, f"{session_id}-{number}", "", type="permission_request", attention=WAITS)
    page.wait_for_function("() => window.told.length > 0")
    assert page.evaluate("window.told.length") == 1, "those that come together are one"
    assert "Bash: rm -rf build" in page.evaluate("window.told[0].body")
    for number in range(3):
        log(http, f"{session_id}-{number}", "", attention=None)
    page.wait_for_function("() => !window.told[0].isOpen")


# ------------------------------------------------------------------------ the walk

SIZES = {"small": {"width": 1280, "height": 800}, "large": {"width": 1920, "height": 1080},
         "phone": {"width": 390, "height": 844}}  # fmt: skip


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("fleet")) as appliance:
        with httpx.Client(base_url=appliance.url) as http:
            tell(http)
        yield appliance


@pytest.mark.parametrize(
    ("size", "scheme"), [("small", "dark"), pytest.param("large", "light", marks=pytest.mark.long)]
)
def test_an_operator_walks_by_keyboard_alone(page: Page, fleet: Appliance, size: str, scheme: Any) -> None:
    page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme)
    with side_of(fleet, f"asks-{size}") as side:
        ask = side.ask("Clean up?", tool="Bash", input={"command": "rm -rf build"})
        side.wait(ask=ask)
        opened(page, fleet)
        row = page.locator(f".ask[data-ask='{ask}']")  # who waits, and why
        expect(row.get_by_role("button", name="Allow")).to_be_visible()
        assert page.locator("#groups .live[data-is=active]").count() >= 8, "and what runs is in sight as well"
        expect(page.locator("#spent")).to_have_text(re.compile(r"^\$[\d,.]+.* today$"))
        page.keyboard.press("d")  # answer it
        unlocked(page, fleet)
        assert side.given()["decision"] == "deny"
        expect(row).to_have_count(0)

        page.keyboard.press("Tab")  # what failed since: in its own words
        page.locator(".tile[data-is=failed]").focus()
        page.keyboard.press("Enter")
        failed = page.locator("#groups .live[data-is=failed]")
        expect(failed).to_have_count(13)
        expect(page.locator("#groups .live:not([data-is=failed])")).to_have_count(0)
        page.reload()  # a filter stands in the address
        expect(page.locator(".tile[data-is=failed]")).to_have_attribute("aria-current", "true")
        expect(failed).to_have_count(13)
        expect(failed.first.locator(".doing")).to_contain_text("AssertionError: expected 3 rows, got 4")
        expect(failed.first.locator("[data-slot=cost]")).to_have_text(re.compile(r"^\$\d"))  # what did it cost
        page.keyboard.press("h")
        page.keyboard.press("Shift+X")
        expect(page.locator(".tile[data-is=failed] b")).to_have_text("0")

        page.keyboard.press("/")  # find the session that touched a file
        page.keyboard.type("module_17")
        page.keyboard.press("Enter")
        hit = page.locator("#results .hit").first
        expect(hit).to_contain_text("module_17.py")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("#session h1")).to_contain_text("17")
        expect(page.locator(".detail .body")).to_contain_text("module_17.py")
        page.keyboard.press("Escape")

        page.locator(".menu summary").focus()  # send it to a colleague
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Share a link")).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Share this session")
        expect(dialog.get_by_label("Ends after")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(dialog.locator(".mono")).to_contain_text("share=sst_share_")
        reads_as_a_colleague(page, dialog.locator(".mono").inner_text().split()[0])
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        page.keyboard.press("Escape")  # and back
        expect(page.locator("#results")).to_be_visible()
        page.keyboard.press("s")
        expect(page.locator("#table li").first).to_be_visible()


def reads_as_a_colleague(page: Page, address: str) -> None:
    """In a browser of their own, with the link alone: the session is there, and nothing else."""
    name = page.locator("#session h1").inner_text()
    session = page.url.split("/session/")[1].split("/")[0]
    assert page.context.browser
    with page.context.browser.new_context(viewport=page.viewport_size) as context:
        other, asked = context.new_page(), []
        other.on("request", lambda request: asked.append(request.url.partition(other.url.split("#")[0])[2]))
        other.goto(address)
        expect(other.locator("#session h1")).to_have_text(name)
        expect(other.locator(".message").first).to_be_visible()
        expect(other.locator(".title-line button:visible, .orders button:enabled")).to_have_count(1)  # copy its id
        expect(other.locator(".bar nav, .bar form, #new-session").filter(visible=True)).to_have_count(0)
        called = {path for path in asked if path.startswith("api/")}
        assert called and all(path.startswith(f"api/sessions/{session}") for path in called), called
        other.evaluate("location.hash = '#/sessions'")  # which the link does not reach
        expect(other.locator("#table-none")).not_to_have_text("No match.")
        expect(other.locator("#table li")).to_have_count(0)


def test_an_operator_walks_on_a_phone_with_one_thumb(page: Page, fleet: Appliance) -> None:
    page.set_viewport_size(SIZES["phone"])  # type: ignore[arg-type]
    with side_of(fleet, "asks-phone") as side:
        ask = side.ask("Clean up?", tool="Bash", input={"command": "rm -rf build"})
        side.wait(ask=ask)
        opened(page, fleet)
        row = page.locator(f".ask[data-ask='{ask}']")
        allow = row.get_by_role("button", name="Allow")
        expect(allow).to_be_visible()
        buttons = [*row.locator(".acts button:visible").all(), *page.locator(".bar nav a").all()]
        buttons += page.locator("#home .tile, #home-as a, .fleet select, .fold, .what, .brand").all()
        for target in buttons:
            box = target.bounding_box()
            assert box and box["height"] >= 44, target.inner_text()
        inner = page.locator(".ask, #groups .live").all()
        for each in inner:
            box = each.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
        allow.click()
        unlocked(page, fleet)
        assert side.given()["decision"] == "allow"
        expect(row).to_have_count(0)
        page.get_by_role("navigation", name="As").get_by_role("link", name="Feed").click()
        expect(page.locator("#feed li").first).to_be_visible()
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Sessions").click()
        page.locator("#sessions-filter").get_by_label("Text").fill("invoices")
        expect(page.locator("#table li").first).to_contain_text("invoices")
        page.locator("#table li a").first.click()
        expect(page.locator("#session h1")).to_contain_text("invoices")
        expect(page.locator(".message summary").first).to_be_visible()
        for target in page.locator(".message summary, .tabs a, #session .tools select").all():
            box = target.bounding_box()
            assert box and box["height"] >= 44, target.inner_text()

        menu = page.locator(".menu summary")
        boxes = [each.bounding_box() for each in [*page.locator(".title-line .right > button").all(), menu]]
        assert len(boxes) == 6 and len({box["y"] for box in boxes if box}) == 1, "they take one row"
        assert all(box and box["height"] >= 44 and box["x"] + box["width"] <= 390 for box in boxes)
        menu.click()  # send it to a colleague
        page.get_by_role("button", name="Share a link").click()
        dialog = page.get_by_role("dialog", name="Share this session")
        dialog.get_by_role("button", name="Make a link").click()
        expect(dialog.locator(".mono")).to_contain_text("share=sst_share_")
        box = dialog.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
        reads_as_a_colleague(page, dialog.locator(".mono").inner_text().split()[0])
        dialog.get_by_role("button", name="Close").click()
