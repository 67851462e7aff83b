"""A real Chromium, kept from asking for anything but the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

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
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, rules])
        yield browser
        browser.close()
