"""Web Push: who may be pushed to, what a browser is told, when that is taken back, and what the page makes of it."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import http_ece
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Page, expect
from py_vapid import Vapid02

from app import create_app
from sessionstore.model.rights import Bounds
from sessionstore.settings import Settings
from sessionstore.upkeep.push import KEY_FILE, MOST_OF_ONE, Push, Subscription
from sessionstore.upkeep.push_service import (
    MISSING,
    PushService,
    ServerKey,
    Unfit,
    addresses_of,
    endpoint_in,
    is_here,
    is_public,
    public_address,
)
from sessionstore.web.tokens import digest
from tests.appliance import Appliance
from tests.browsing import opened
from tests.peers import eventually
from tests.proxies import Certificate, make_certificate
from tests.test_access import TOKENS, bearer

PUBLIC = "93.184.215.14"
NOWHERE = "192.88.99.1"
"""Public as addresses go, and of nobody since RFC 7526."""
ENDPOINT = "https://localhost/push/one"
"""Of the name that the certificate of the stand-in has; where that is, the test says."""

# --------------------------------------------------------------------- addresses


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "64:ff9b::5db8:d70e"])
def test_a_public_address_is_one(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0"),
        *("169.254.169.254", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:93.184.215.14", "::127.0.0.1", "2002:7f00:1::", "2002:5db8::"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::5db8:d70e", "2001:0:5db8::1", "localhost", "", "1.1.1"),
    ],
)
def test_no_other_is(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/x", "https://", "https:///x", "https://user@example.com/", "https://example.com:x/"),
        *("https://exa mple.com/", "https://example.com/\r\nx: y", "https://[::1]/", "//example.com/x", "x", ""),
        *("https://example.com/\u00e4", f"https://example.com/{'x' * 1001}", "https://-example.com/", "https://e_x/"),
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(Unfit):
        endpoint_in(url)


def test_all_that_a_name_means_has_to_be_public() -> None:
    endpoint = endpoint_in("https://push.example.com:8443/a?b=c")
    assert endpoint == ("push.example.com", 8443, "/a?b=c")
    assert public_address(endpoint, lambda *_: [PUBLIC, "2606:4700::1111"]) == PUBLIC
    for addresses in ([], ["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"]):
        with pytest.raises(Unfit):
            public_address(endpoint, lambda *_, found=addresses: found)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
def test_a_name_that_means_this_machine_is_refused_as_it_is_looked_up(host: str) -> None:
    with pytest.raises(Unfit):
        public_address(endpoint_in(f"https://{host}/x"), addresses_of)


# ---------------------------------------------------------------------- messages


def url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class PushedBrowser:
    """The keys of one browser, and what it makes of what is pushed to it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.keys = {"p256dh": url64(point), "auth": url64(self.auth)}

    def subscription(self, endpoint: str = ENDPOINT, **members: Any) -> Subscription:
        given: dict[str, Any] = {"actor": None, "ends": 2**40, "cursor": 0, **self.keys, **members}
        return Subscription(endpoint=endpoint, **given)

    def read(self, body: bytes) -> Any:
        return json.loads(http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"))


class PushStandIn:
    """A push service on this machine: what it was sent, and what it answers."""

    def __init__(self, certificate: Certificate) -> None:
        self.status = 201
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.dialled: list[tuple[str, int]] = []
        stand_in = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                stand_in.taken.append((dict(self.headers), body))
                self.send_response(stand_in.status)
                self.send_header("location", "https://localhost/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.file, certificate.key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """The public internet, in which it has the address that was looked up."""
        self.dialled.append(address)
        return socket.create_connection(self.server.server_address[:2], timeout)  # type: ignore[arg-type]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("push"))


@pytest.fixture
def stand_in(certificate: Certificate) -> Iterator[PushStandIn]:
    running = PushStandIn(certificate)
    yield running
    running.close()


@pytest.fixture
def push(appliance: Appliance, tmp_path: Path, stand_in: PushStandIn, certificate: Certificate) -> Push:
    """Beside a running server, over its database; looked at by hand, so that nothing depends on time."""
    service = PushService(
        ServerKey(tmp_path / KEY_FILE),
        "https://store.example.org/",
        resolve=lambda *_: [PUBLIC],
        connect=stand_in.connect,
        context=certificate.trust,
    )
    made = Push(Settings(directory=appliance.folder), service)
    made.book.path = tmp_path / "subscriptions.json"
    made.bounds_of = lambda _: Bounds()
    return made


def asks(http: httpx.Client, session_id: str, name: str, command: str) -> int:
    attention = {"reason": "permission", "message": f"Bash: {command}", "id": name}
    body = {"type": "permission_request", "eventId": name, "tool": "Bash", "input": {"command": command}}
    answer = http.post(f"/api/actions/{session_id}", json=body | {"attention": attention}).raise_for_status()
    return int(answer.json()["cursor"])


def is_answered(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}/responses", json={"type": "x", "attention": None}).raise_for_status()


def looked(push: Push, browser: PushedBrowser, stand_in: PushStandIn) -> Any:
    """What comes of a look, once it has been taken."""
    before = len(stand_in.taken)
    push.look()
    eventually(lambda: not any(state.is_busy for state in push.states.values()))
    return browser.read(stand_in.taken[-1][1]) if len(stand_in.taken) > before else None


def later(push: Push) -> None:
    """As if its time had passed."""
    for state in push.states.values():
        state.news_at = state.fewer_at = 0.0


def begin(push: Push, http: httpx.Client, browser: PushedBrowser, session_id: str) -> Subscription:
    cursor = http.put(f"/api/sessions/{session_id}", json={"userId": "alice"}).raise_for_status().json()["cursor"]
    push.bounds_of = lambda _: Bounds(sessions=(session_id,))
    subscription = browser.subscription(cursor=cursor)
    push.book.add(subscription)
    push.head = cursor
    return subscription


def test_a_browser_is_told_who_asks_for_what_and_when_that_is_over(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser = PushedBrowser()
    begin(push, http, browser, session_id)
    assert looked(push, browser, stand_in) is None
    asks(http, session_id, f"{session_id}-1", "rm -rf\u202e build")
    told = looked(push, browser, stand_in)
    assert told["asks"]["n"] == 1 and told["isSilent"] is False
    assert told["asks"]["title"] == "An agent asks"
    assert told["asks"]["body"].endswith("Bash: rm -rf build")
    assert told["asks"]["hash"] == f"#/?ask={session_id}-1"
    headers, _ = stand_in.taken[0]
    assert stand_in.dialled == [(PUBLIC, 443)]
    assert (headers["Content-Encoding"], headers["Topic"], headers["Urgency"]) == ("aes128gcm", "asks", "high")
    assert Vapid02.verify(headers["Authorization"])
    later(push)
    assert looked(push, browser, stand_in) is None, "it has been told"
    is_answered(http, session_id)
    told = looked(push, browser, stand_in)
    assert told == {"asks": {"n": 0}, "isSilent": True}


def test_what_comes_within_a_minute_is_told_at_once_and_what_is_over_before(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser, other = PushedBrowser(), f"{session_id}-other"
    subscription = begin(push, http, browser, session_id)
    push.bounds_of = lambda _: Bounds(sessions=(session_id, other))
    first = asks(http, session_id, f"{session_id}-1", "one")
    assert looked(push, browser, stand_in)["asks"]["n"] == 1
    second = asks(http, other, f"{session_id}-2", "two")
    third = asks(http, other, f"{session_id}-3", "three")
    push.states[subscription.subscription_id].fewer_at = 0.0
    assert looked(push, browser, stand_in) is None, "what is new waits for its minute"
    is_answered(http, session_id)
    assert looked(push, browser, stand_in)["asks"] == {"n": 0}, "what is over does not"
    later(push)
    told = looked(push, browser, stand_in)
    assert (told["asks"]["title"], told["asks"]["hash"]) == ("2 agents ask", "#/")
    assert told["asks"]["body"].splitlines()[1].endswith("three")
    assert first not in subscription.told and {*subscription.told} == {second, third}
    push.book.read()
    assert {*push.book.all[subscription.subscription_id].told} == {second, third}, "also after a restart"


def test_it_is_told_of_failures_and_of_its_own_sessions_alone(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser, other = PushedBrowser(), f"{session_id}-other"
    begin(push, http, browser, session_id)
    asks(http, other, f"{session_id}-x", "of somebody else")
    for session in (other, session_id):
        http.post(f"/api/sessions/{session}/finalize", json={"status": "failed", "outcome": f"{session} has no paint"})
    told = looked(push, browser, stand_in)
    assert "asks" not in told and told["failures"]["n"] == 1
    assert told["failures"]["body"].endswith(f": {session_id} has no paint")
    assert "Topic" not in stand_in.taken[0][0], "none takes its place"
    later(push)
    assert looked(push, browser, stand_in) is None


@pytest.mark.parametrize("status", [404, 410])
def test_a_subscription_ends_where_the_service_does_not_know_it(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str, status: int
) -> None:
    browser = PushedBrowser()
    begin(push, http, browser, session_id)
    stand_in.status = status
    asks(http, session_id, f"{session_id}-1", "one")
    push.look()
    eventually(lambda: not push.book.all)


@pytest.mark.parametrize("status", [307, 500])
def test_a_service_that_does_not_take_it_is_asked_again_later_and_never_elsewhere(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str, status: int
) -> None:
    browser = PushedBrowser()
    subscription = begin(push, http, browser, session_id)
    stand_in.status = status
    asks(http, session_id, f"{session_id}-1", "one")
    assert looked(push, browser, stand_in)["asks"]["n"] == 1
    assert looked(push, browser, stand_in) is None and len(stand_in.taken) == 1 and not subscription.told
    stand_in.status = 201
    later(push)
    assert looked(push, browser, stand_in)["asks"]["n"] == 1 and len(subscription.told) == 1


def test_nothing_is_sent_once_the_name_means_another_address_or_another_certificate(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser = PushedBrowser()
    begin(push, http, browser, session_id)
    asks(http, session_id, f"{session_id}-1", "one")
    push.service.resolve = lambda *_: ["127.0.0.1"]
    assert looked(push, browser, stand_in) is None and stand_in.dialled == []
    push.service.resolve, push.service.context = lambda *_: [PUBLIC], ssl.create_default_context()
    later(push)
    assert looked(push, browser, stand_in) is None and stand_in.dialled == [(PUBLIC, 443)]


def test_who_has_no_right_any_more_hears_nothing(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser = PushedBrowser()
    begin(push, http, browser, session_id)
    asks(http, session_id, f"{session_id}-1", "one")
    push.bounds_of = lambda _: None
    assert looked(push, browser, stand_in) is None and not push.book.all


def test_who_cannot_be_struck_out_hears_nothing_and_keeps_nobody_from_hearing(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    over, browser = PushedBrowser(), PushedBrowser()
    push.book.add(over.subscription("https://localhost/over", actor="over"))
    begin(push, http, browser, session_id)
    push.bounds_of = lambda one: None if one.actor else Bounds(sessions=(session_id,))
    push.book.path = push.book.path / "no-folder"
    asks(http, session_id, f"{session_id}-1", "one")
    assert looked(push, browser, stand_in)["asks"]["n"] == 1 and len(stand_in.taken) == 1


def test_one_actor_has_a_few_and_the_oldest_ends(push: Push) -> None:
    browser = PushedBrowser()
    for number in range(MOST_OF_ONE + 2):
        push.book.add(browser.subscription(f"https://localhost/{number}", actor="alice"))
    push.book.add(browser.subscription("https://localhost/bob", actor="bob"))
    push.book.add(browser.subscription("https://localhost/2", actor="alice"))
    paths = [one.endpoint.rpartition("/")[2] for one in push.book.all.values()]
    assert paths == [*map(str, range(3, MOST_OF_ONE + 2)), "bob", "2"], "what is said again is the newest"
    assert push.book.path.stat().st_mode & 0o777 == 0o600
    assert not push.book.end(next(iter(push.book.all)), "bob"), "nobody ends what is another's"


def test_the_longest_message_is_one_that_push_services_take(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    browser, sessions = PushedBrowser(), tuple(f"{session_id}-{number}" for number in range(8))
    begin(push, http, browser, session_id)
    push.bounds_of = lambda _: Bounds(sessions=sessions)
    for number, session in enumerate(sessions):
        http.post(f"/api/actions/{session}", json={"type": "prompt", "prompt": "\U0001f3ee" * 500}).raise_for_status()
        if number % 2:
            asks(http, session, f"{session}-{'x' * 100}", "\U0001f5dd" * 500)
        else:
            http.post(f"/api/sessions/{session}/finalize", json={"status": "failed", "outcome": '"\U0001f525' * 300})
    told = looked(push, browser, stand_in)
    assert (told["asks"]["n"], told["failures"]["n"]) == (4, 4) and told["asks"]["body"].count("\n") == 2
    assert "\U0001f5dd" * 30 in told["asks"]["body"] and len(stand_in.taken[0][1]) <= 4096


def test_it_tells_by_itself_from_when_somebody_listens(
    push: Push, http: httpx.Client, stand_in: PushStandIn, session_id: str
) -> None:
    begin(push, http, PushedBrowser(), session_id)
    asks(http, session_id, f"{session_id}-1", "one")
    push.begin()
    eventually(lambda: stand_in.taken)
    push.stop()
    assert push.thread and not push.thread.is_alive()


# ------------------------------------------------------------------------ routes


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    env = {f"SESSIONS_{'' if role == 'admin' else f'{role.upper()}_'}TOKEN": TOKENS[role] for role in ("admin", "read")}
    with Appliance(tmp_path_factory.mktemp("pushing"), env | {"SESSIONS_INGEST_TOKEN": TOKENS["ingest"]}) as running:
        yield running


@pytest.fixture
def reader(guarded: Appliance) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url) as client:
        client.post("/api/login", json={"token": TOKENS["read"]}).raise_for_status()
        yield client


def test_a_browser_subscribes_with_the_key_of_the_server_and_ends_it(guarded: Appliance, reader: httpx.Client) -> None:
    key = reader.get("/api/push").json()["publicKey"]
    assert reader.get("/api/push").json() == {"publicKey": key, "why": None} and len(key) == 87
    assert (guarded.folder / KEY_FILE).stat().st_mode & 0o777 == 0o600
    browser = PushedBrowser()
    wish = {"endpoint": f"https://{NOWHERE}/push/1", "keys": browser.keys, "expirationTime": None}
    told = reader.post("/api/push", json=wish).raise_for_status().json()
    assert len(told["subscriptionId"]) == 32
    bob = bearer(TOKENS["admin"])
    ends = {"params": {"subscriptionId": told["subscriptionId"]}}
    assert httpx.delete(f"{guarded.url}/api/push", headers=bob, **ends).json()["ended"] is False  # type: ignore[arg-type]
    assert reader.delete("/api/push", **ends).json()["ended"] is True  # type: ignore[arg-type]
    assert reader.delete("/api/push", **ends).json()["ended"] is False  # type: ignore[arg-type]


def test_a_subscription_ends_with_its_log_in(guarded: Appliance, reader: httpx.Client) -> None:
    wish = {"endpoint": f"https://{NOWHERE}/push/2", "keys": PushedBrowser().keys}
    reader.post("/api/push", json=wish).raise_for_status()
    file = guarded.folder / ".push.json"
    assert [one["actor"] for one in json.loads(file.read_bytes())] == ["SESSIONS_READ_TOKEN"]
    reader.delete("/api/login").raise_for_status()
    eventually(lambda: json.loads(file.read_bytes()) == [], 20)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"endpoint": "https://localhost/x"}, "$.endpoint"),
        ({"endpoint": "https://169.254.169.254/latest"}, "$.endpoint"),
        ({"endpoint": f"http://{PUBLIC}/x"}, "$.endpoint"),
        ({"keys": {"p256dh": "A" * 87, "auth": "A" * 22}}, "$.keys.p256dh"),
        ({"keys": PushedBrowser().keys | {"auth": "AAAA"}}, "$.keys.auth"),
    ],
)
def test_what_cannot_be_pushed_to_is_refused(reader: httpx.Client, change: dict[str, Any], names: str) -> None:
    answer = reader.post("/api/push", json={"endpoint": f"https://{NOWHERE}/x", "keys": PushedBrowser().keys} | change)
    assert answer.status_code == 422 and names in answer.text


def test_where_the_extra_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_here()
    monkeypatch.setitem(sys.modules, "pywebpush", None)
    assert not is_here() and "session-store[push]" in MISSING


def test_a_right_lasts_as_long_as_what_gave_it(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path, admin_token=TOKENS["admin"], ingest_token=TOKENS["ingest"])
    app, browser = create_app(settings), PushedBrowser()
    app.tokens.prepare()
    bounds_of, digests = app.store.push.bounds_of, {role: digest(TOKENS[role]).hex() for role in TOKENS}
    reads = browser.subscription(actor="SESSIONS_TOKEN", token=digests["admin"])
    assert bounds_of(reads) == Bounds()
    cookie, _ = app.gate.logins.begin(app.tokens.given[0])
    logged_in = browser.subscription(actor="SESSIONS_TOKEN", token=digests["admin"], login=digest(cookie).hex())
    assert bounds_of(logged_in) == Bounds()
    app.gate.logins.end(cookie)
    assert bounds_of(logged_in) is None
    for members in ({"token": digests["read"]}, {"token": digests["ingest"]}, {"token": ""}):
        assert bounds_of(browser.subscription(actor="somebody", **members)) is None
    assert bounds_of(browser.subscription()) is None, "a token is needed"
    assert create_app(Settings(directory=tmp_path)).store.push.bounds_of(browser.subscription()) == Bounds()


def test_who_may_not_read_is_not_told(guarded: Appliance) -> None:
    wish = {"endpoint": f"https://{NOWHERE}/x", "keys": PushedBrowser().keys}
    for headers, status in (({}, 401), (bearer(TOKENS["ingest"]), 403)):
        assert httpx.post(f"{guarded.url}/api/push", json=wish, headers=headers).status_code == status
        assert httpx.get(f"{guarded.url}/api/push", headers=headers).status_code == status


# ---------------------------------------------------------------------- the page


def test_the_page_can_be_installed(http: httpx.Client) -> None:
    assert 'rel="manifest"' in http.get("/", headers={"accept": "text/html"}).text
    answer = http.get("/dashboard/manifest.webmanifest")
    told = answer.json()
    assert answer.headers["content-type"] == "application/manifest+json" and told["display"] == "standalone"
    icon = http.get(f"/dashboard/{told['icons'][0]['src']}")
    assert icon.headers["content-type"] == "image/svg+xml" and icon.text.startswith("<svg")
    assert http.get("/dashboard/sw.js").headers["service-worker-allowed"] == "../"


SUBSCRIBED = """([endpoint, keys]) => {
  const subscription = { toJSON: () => ({ endpoint, keys }), unsubscribe: async () => { globalThis.left = true; } };
  PushManager.prototype.subscribe = async (options) => { globalThis.wanted = options; return subscription; };
  PushManager.prototype.getSubscription = async () => subscription;
}"""
"""Chromium as it is here has no push service; the subscription that one would give it."""


def test_the_button_subscribes_and_ends_it(page: Page, appliance: Appliance, http: httpx.Client) -> None:
    page.context.grant_permissions(["notifications"], origin=appliance.url)
    opened(page, appliance)
    for session in {ask["sessionId"] for ask in http.get("/api/asks").json()["items"]}:  # or it is told of them
        http.delete(f"/api/sessions/{session}").raise_for_status()
    file, browser = appliance.folder / ".push.json", PushedBrowser()
    page.evaluate(SUBSCRIBED, [f"https://{NOWHERE}/button", browser.keys])
    button = page.get_by_role("button", name="Tell me when an agent asks")
    button.click()
    expect(page.get_by_text("though this page is closed")).to_be_visible()
    (kept,) = json.loads(file.read_bytes())
    assert (kept["endpoint"], kept["p256dh"]) == (f"https://{NOWHERE}/button", browser.keys["p256dh"])
    key = http.get("/api/push").json()["publicKey"]
    assert page.evaluate("wanted") == {"userVisibleOnly": True, "applicationServerKey": key}
    button.click()
    expect(page.get_by_text("You are not told any more")).to_be_visible()
    assert json.loads(file.read_bytes()) == [] and page.evaluate("left") is True


def test_where_the_server_cannot_push_the_page_tells_while_it_is_open(page: Page, appliance: Appliance) -> None:
    page.context.grant_permissions(["notifications"], origin=appliance.url)
    opened(page, appliance)
    page.route("**/api/push", lambda route: route.fulfill(json={"publicKey": None, "why": "It lacks an extra"}))
    page.get_by_role("button", name="Tell me when an agent asks").click()
    expect(page.get_by_text("and this page is not in sight")).to_be_visible()


def test_a_browser_shows_what_is_pushed_and_takes_it_away(page: Page, appliance: Appliance) -> None:
    page.context.grant_permissions(["notifications"], origin=appliance.url)
    opened(page, appliance)
    told: list[dict[str, Any]] = []
    tab = page.context.new_cdp_session(page)
    tab.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda event: told.extend(one for one in event["registrations"] if not one["isDeleted"]),
    )
    tab.send("ServiceWorker.enable")
    scope = page.evaluate("async () => (await (await import('/dashboard/push.js')).worker()).scope")
    assert scope == f"{appliance.url}/"
    found = tab.send("Page.getAppManifest")
    assert found["errors"] == [] and found["url"].endswith("manifest.webmanifest")
    assert [error["errorId"] for error in tab.send("Page.getInstallabilityErrors")["installabilityErrors"]] in (
        [],
        ["in-incognito"],
    )
    eventually(lambda: page.evaluate("1") and told)

    def pushes(**message: Any) -> list[list[str]]:
        given = {"origin": appliance.url, "registrationId": told[-1]["registrationId"], "data": json.dumps(message)}
        tab.send("ServiceWorker.deliverPushMessage", given)
        notes = "navigator.serviceWorker.ready.then((one) => one.getNotifications())"
        shown: list[list[str]] = page.evaluate(
            f"{notes}.then((all) => all.map((n) => [n.tag, n.title, n.body, n.data]))"
        )
        return shown

    asked = {"n": 1, "title": "An agent asks", "body": "attic: Bash: sweep", "hash": "#/?ask=a"}
    shown = [["asks", "An agent asks", "attic: Bash: sweep", "#/?ask=a"]]
    eventually(lambda: pushes(asks=asked, isSilent=False) == shown)
    failed = {"n": 1, "title": "An agent has failed", "body": "attic: paint", "hash": "#/session/s"}
    eventually(lambda: len(pushes(failures=failed, isSilent=False)) == 2)
    eventually(lambda: [one[0] for one in pushes(asks={"n": 0}, isSilent=True)] == ["failures"])
