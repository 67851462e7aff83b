"""`python -m tests.screenshots`: the pictures of the README, docs/home.png and docs/session.png, of recorded runs."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.appliance import REPOSITORY, Appliance
from tests.browsing import MISSING, is_missing, launched
from tests.replay import replay

DOCS = REPOSITORY / "docs"
SIZE = {"width": 1280, "height": 800}


def main() -> int:
    if is_missing():
        print(MISSING, file=sys.stderr)
        return 1
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance, launched() as browser:
        with httpx.Client(base_url=appliance.url) as http:
            session_id = replay(http)[0]
        with browser.new_context(viewport=SIZE, color_scheme="dark") as context:  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(appliance.url)
            expect(page.locator(".card").first).to_be_visible()
            take(page, "home.png")
            page.goto(f"{appliance.url}/#/session/{session_id}")
            expect(page.locator(".message").first).to_be_visible()
            expect(page.locator(".map")).to_be_visible()
            take(page, "session.png")
    return 0


def take(page: Page, name: str) -> None:
    expect(page.locator("#connection")).to_have_text(re.compile("^Live"))
    page.wait_for_load_state("networkidle")
    page.screenshot(path=DOCS / name)
    print(DOCS / name)


if __name__ == "__main__":
    sys.exit(main())
