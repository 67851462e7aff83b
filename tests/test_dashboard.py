"""The page at /, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.appliance import Appliance

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-pings",
    "--metrics-recording-only",
]
"""What keeps Chromium from asking for anything but the page."""
USUAL = ("401", "ERR_CONNECTION_REFUSED", "WebSocket connection to")
"""What Chromium itself says where a token is missing or the server is away."""
ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("the dashboard is not tested: there is no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, ONLY_HERE])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not complain of anything."""
    with browser.new_context() as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        yield page
        assert [text for text in complaints if not any(usual in text for usual in USUAL)] == []


def log(http: httpx.Client, session_id: str, text: str) -> None:
    body = {"type": "note", "text": text}
    assert http.post(f"/api/actions/{session_id}", json=body).status_code == 200


def test_it_lists_sessions_and_follows_the_feed(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    log(http, session_id, "before the page")
    page.goto(appliance.url)
    expect(page.locator("#connection")).to_have_text("Live.")
    expect(page.locator("#sessions")).to_contain_text(session_id)
    log(http, session_id, "while it is open")
    expect(page.locator("#feed")).to_contain_text("while it is open")
    log(http, f"{session_id}-new", "another")
    expect(page.locator("#sessions")).to_contain_text(f"{session_id}-new")


def test_what_agents_say_is_shown_as_text(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    page.goto(appliance.url)
    expect(page.locator("#connection")).to_have_text("Live.")
    log(http, session_id, "<img src=x onerror=alert(1)>")
    expect(page.locator("#feed")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("img")).to_have_count(0)


def test_after_a_restart_it_goes_on_where_it_was(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance, httpx.Client(base_url=appliance.url) as http:
        page.goto(appliance.url)
        expect(page.locator("#connection")).to_have_text("Live.")
        log(http, "s", "first")
        expect(page.locator("#feed li")).to_have_count(2)
        appliance.stop()
        expect(page.locator("#connection")).to_contain_text("may be old")
        appliance.start()
        log(http, "s", "second")
        expect(page.locator("#feed li")).to_have_count(3, timeout=20_000)
        expect(page.locator("#connection")).to_have_text("Live.")


def test_it_asks_for_a_token_where_one_is_needed(page: Page, tmp_path: Path) -> None:
    with Appliance(tmp_path, {"SESSIONS_READ_TOKEN": "a-token-to-read"}) as appliance:
        page.goto(appliance.url)
        page.get_by_label("token").fill("a-token-that-is-wrong")
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("not known")
        page.get_by_label("token").fill("a-token-to-read")
        page.get_by_role("button").click()
        expect(page.locator("#connection")).to_have_text("Live.")
