"""A page of another origin, in a real browser, tries all that a page can: it reads nothing, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.appliance import Appliance
from tests.browsing import MISSING, is_missing, launched
from tests.repeats import LONG

EVIL = "evil.example"
SECRET = "canary-3e9b"
TOKEN = "admin-token-of-this-test"
PAGE = b"<!doctype html><title>a page</title><body><script>%b</script>"
ATTACKS = Path(__file__).with_name("foreign_page.js").read_bytes()


class Foreign(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = PAGE % ATTACKS
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of a server with such a page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if is_missing():
        pytest.skip(f"foreign pages are not tested: {MISSING}")
    with launched(f"MAP {EVIL} 127.0.0.1", "EXCLUDE 0.0.0.0") as browser:
        yield browser


@contextmanager
def store_with_secret(folder: Path, env: Mapping[str, str]) -> Iterator[Appliance]:
    with Appliance(folder, env) as server:
        headers = {"authorization": f"Bearer {TOKEN}"} if "SESSIONS_TOKEN" in env else {}
        answer = httpx.put(f"{server.url}/api/sessions/{SECRET}", json={"userId": "u"}, headers=headers)
        assert answer.is_success
        yield server


def cursor(server: Appliance) -> int:
    newest: int = httpx.get(f"{server.url}/health").json()["cursor"]
    return newest


def attacks_of(page: Page, *kinds: str) -> list[tuple[str, str]]:
    return [(kind, name) for kind in kinds for name in page.evaluate(f"Object.keys(attacks.{kind})")]


def attack(page: Page, server: Appliance, kind: str, name: str) -> str:
    """What the page got to read."""
    url = f"http://localhost:{server.port}"
    return str(page.evaluate("([kind, name, store]) => attack(kind, name, store)", [kind, name, url]))


def log_in(context: BrowserContext, server: Appliance) -> None:
    url = f"http://localhost:{server.port}/api"
    assert context.request.post(f"{url}/login", data={"token": TOKEN}).ok
    assert context.request.get(f"{url}/sessions/{SECRET}").ok, "the browser is logged in"


OPEN: dict[str, str] = {}
LOGGED_IN = {"SESSIONS_TOKEN": TOKEN}


@pytest.mark.parametrize(
    ("env", "host"),
    [
        pytest.param(OPEN, EVIL, id="open-another site"),
        pytest.param(OPEN, "localhost", id="open-the same site", marks=LONG),
        pytest.param(LOGGED_IN, EVIL, id="logged in-another site", marks=LONG),
        pytest.param(LOGGED_IN, "localhost", id="logged in-the same site"),
    ],
)
def test_a_foreign_page_reads_and_writes_nothing(
    browser: Browser, elsewhere: int, folder: Path, env: dict[str, str], host: str
) -> None:
    """Another port of this machine is of the same site: even a strict cookie goes with what its pages ask."""
    with store_with_secret(folder, env) as server, browser.new_context() as context:
        if env:
            log_in(context, server)
        before = cursor(server)
        page = context.new_page()
        page.goto(f"http://{host}:{elsewhere}/")
        attacks = attacks_of(page, "read", "peek", "write", "push")
        assert len(attacks) >= 20
        for kind, name in attacks:
            assert SECRET not in attack(page, server, kind, name), name
            assert cursor(server) == before, name


def test_a_page_that_is_let_in_does_read_and_write(browser: Browser, elsewhere: int, folder: Path) -> None:
    """So that it is the store that keeps the others out."""
    env = {"SESSIONS_ALLOWED_ORIGINS": f"http://{EVIL}:{elsewhere}", "SESSIONS_ALLOWED_HOSTS": "0.0.0.0"}
    with store_with_secret(folder, env) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{EVIL}:{elsewhere}/")
        for kind, name in attacks_of(page, "read"):
            assert SECRET in attack(page, server, kind, name), name
        for kind, name in attacks_of(page, "write"):
            before = cursor(server)
            attack(page, server, kind, name)
            assert cursor(server) > before, name


def test_a_page_whose_name_comes_to_mean_this_machine_reads_and_writes_nothing(browser: Browser, folder: Path) -> None:
    """DNS rebinding: to the browser the store is of the page's own origin then."""
    with store_with_secret(folder, {}) as server, browser.new_context() as context:
        before = cursor(server)
        page = context.new_page()
        answer = page.goto(f"http://{EVIL}:{server.port}/")
        assert answer is not None and answer.status == 403
        for path in ("/api/sessions", "/api/events", "/datasette/sessions.json", "/health", "/metrics"):
            status, text = page.evaluate(
                "async (path) => { const answer = await fetch(path); return [answer.status, await answer.text()]; }",
                path,
            )
            assert status == 403 and SECRET not in text, path
        options = {"method": "POST", "body": '{"type":"x"}', "headers": {"content-type": "application/json"}}
        sent = "async (options) => (await fetch('/api/actions/evil', options)).status"
        assert page.evaluate(sent, options) == 403
        assert cursor(server) == before
