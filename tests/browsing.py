"""A real Chromium, kept from asking for anything but the page; and what is told and looked at in it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.appliance import Appliance
from tests.peers import midday

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
    "--enable-precise-memory-info",
    "--js-flags=--expose-gc",
    "--renderer-process-limit=1",
]
NAMES = ("MAP * ~NOTFOUND", "EXCLUDE localhost", "EXCLUDE 127.0.0.1")
MISSING = "there is no Chromium here (apt-get install chromium)"


def chromium() -> str | None:
    """The browser of this machine; in CI, where it has to be, Playwright says what is wrong with it."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def is_missing() -> bool:
    return chromium() is None and not os.environ.get("CI")


@contextmanager
def launched(*names: str) -> Iterator[Browser]:
    """`names`: what more of its rules about names are, before those that let it out nowhere."""
    rules = f"--host-resolver-rules={', '.join((*names, *NAMES))}"
    with sync_playwright() as playwright:
        env: dict[str, Any] = os.environ | midday()
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, rules], env=env)
        yield browser
        browser.close()


def keep_warm(context: BrowserContext) -> None:
    """Hold a page of this machine open, so that the process that draws such pages stays, with what it has compiled."""
    page = context.new_page()
    page.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"))
    page.goto("http://127.0.0.1/")


def forget(context: BrowserContext) -> None:
    """Take from a context what a test has left in it: all pages but the first, and what the browser keeps of sites."""
    first, *others = context.pages
    tab = context.new_cdp_session(first)
    tab.send("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
    tab.detach()
    context.clear_cookies()
    context.clear_permissions()
    for page in others:
        page.close()


expect.set_options(timeout=20_000)  # milliseconds; five seconds are not enough of a busy machine


USUAL = (
    "401",
    "403",
    "404",
    "409",
    "422",
    "503",
    "ERR_CONNECTION_REFUSED",
    "ERR_NETWORK_CHANGED",
    "WebSocket connection to",
    "Push API",
)
"""What Chromium itself says where something is refused, the server is away, or this machine has one more network."""
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1440, "height": 900}
TABS = ("conversation", "changes", "usage", "timeline", "log", "state", "goals", "agents", "raw")


@contextmanager
def uncomplaining(page: Page) -> Iterator[Page]:
    """A page that must not complain of anything."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    unusual = [text for text in complaints if not any(usual in text for usual in USUAL)]
    assert not unusual, unusual


def log(http: httpx.Client, session_id: str, text: str, **members: Any) -> int:
    answer = http.post(f"/api/actions/{session_id}", json={"type": "note", "text": text} | members)
    assert answer.status_code == 200, answer.text
    cursor: int = answer.json()["cursor"]
    return cursor


def respond(http: httpx.Client, session_id: str, **members: Any) -> None:
    http.post(f"/api/actions/{session_id}/responses", json=members).raise_for_status()


def call(http: httpx.Client, session_id: str, tool: str, use: str, /, **tool_input: Any) -> int:
    return log(http, session_id, "", type="tool_call", tool=tool, toolUseId=use, input=tool_input)


def hook(http: httpx.Client, session_id: str, event: str, /, **members: Any) -> None:
    payload = {"hook_event_name": event, "session_id": session_id, **members}
    http.post("/api/hooks/claude-code", json=payload).raise_for_status()


def tell(http: httpx.Client, session_id: str, *events: tuple[str, str | None, float, dict[str, Any]]) -> None:
    """Events of a type and an agent, so many seconds after a time ten minutes ago."""
    begun = time.time() - 600
    lines = [
        json.dumps(
            {
                "type": kind,
                "sessionId": session_id,
                "data": data,
                "timestamp": datetime.fromtimestamp(begun + after, UTC).isoformat(),
            }
            | ({"agentId": agent} if agent else {})
        )
        for kind, agent, after, data in events
    ]
    batch = http.post("/api/events", content="\n".join(lines), headers={"content-type": "application/x-ndjson"})
    assert batch.json()["rejected"] == []


def opened(page: Page, appliance: Appliance, path: str = "") -> Page:
    """The page at a place, live."""
    page.goto(f"{appliance.url}/#/{path}")
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def settled(page: Page) -> None:
    """Everything that was asked for has come and is drawn."""
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("main > section:visible h1")).not_to_have_count(0)  # its code may be fetched first
    page.wait_for_load_state("networkidle")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
