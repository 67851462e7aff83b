"""`python -m tests.screenshots`: the pictures of the README, docs/home.png and docs/session.png."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.appliance import REPOSITORY, Appliance
from tests.browsing import MISSING, is_missing, launched
from tests.fleet import side_of, tell
from tests.replay import replay

DOCS = REPOSITORY / "docs"
SIZE = {"width": 1280, "height": 800}


def main() -> int:
    if is_missing():
        print(MISSING, file=sys.stderr)
        return 1
    DOCS.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Appliance(Path(folder)) as appliance,
        launched() as browser,
        browser.new_context(viewport=SIZE, color_scheme="dark") as context,  # type: ignore[arg-type]
    ):
        page = context.new_page()
        with many_at_work(appliance):
            page.goto(appliance.url)
            expect(page.locator(".ask").get_by_role("button", name="Allow")).to_have_count(2)
            take(page, "home.png")
        with httpx.Client(base_url=appliance.url) as http:
            session_id = replay(http)[0]
        page.goto(f"{appliance.url}/#/session/{session_id}")
        expect(page.locator(".message").first).to_be_visible()
        expect(page.locator(".map")).to_be_visible()
        take(page, "session.png")
    return 0


@contextmanager
def many_at_work(appliance: Appliance) -> Iterator[None]:
    """Agents at work, and three that wait for an answer."""
    with httpx.Client(base_url=appliance.url, timeout=60) as http:
        tell(http, live=20, ended=12)
    edit = {"file_path": "/srv/shop/cart.py", "old_string": "total = 1", "new_string": "total = 2"}
    asks: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("Remove the old build", "permission", {"tool": "Bash", "input": {"command": "rm -rf build && make all"}}),
        ("Correct the total of the cart", "permission", {"tool": "Edit", "input": edit}),
        ("Which database should the tests use?", "question", {}),
    )
    with ExitStack() as stack:
        for number, (title, reason, data) in enumerate(asks):
            side = stack.enter_context(side_of(appliance, f"asking-{number}"))
            side.wait(ask=side.ask(title, reason, **data))
        yield


def take(page: Page, name: str) -> None:
    expect(page.locator("#connection")).to_have_text(re.compile("^Live"))
    page.wait_for_load_state("networkidle")
    page.screenshot(path=DOCS / name)
    print(DOCS / name)


if __name__ == "__main__":
    sys.exit(main())
