"""HTTPS: by the server itself, and by nginx and Caddy in front of it, as docs/ sets them up."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import agents
from tests.appliance import Appliance
from tests.peers import eventually
from tests.proxies import (
    PASSWORD,
    USER,
    Caddy,
    Certificate,
    Nginx,
    Proxy,
    SecureAppliance,
    is_missing,
    make_certificate,
)
from tests.repeats import LONG
from tests.test_process import is_refused_plainly, start_and_end

ADMIN = "canary-admin-5f0c2b7e"
TOKEN = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureAppliance]:
    with SecureAppliance(tmp_path_factory.mktemp("secure"), certificate, {"SESSIONS_TOKEN": ADMIN}) as server:
        yield server


def client_of(server: SecureAppliance | Proxy, address: str = "127.0.0.1") -> httpx.Client:
    """One that asks from this address, of which a machine has many."""
    transport = httpx.HTTPTransport(verify=server.certificate.trust, local_address=address)
    return httpx.Client(base_url=server.url, transport=transport)


def is_live(server: SecureAppliance | Proxy, client: httpx.Client, session_id: str) -> bool:
    """Whether an action comes back by a WebSocket, and by a stream, at once."""
    address = f"{server.url.replace('https', 'wss')}/ws?session={session_id}"
    with (
        connect(address, ssl=server.certificate.trust, proxy=None, additional_headers=TOKEN) as feed,
        client.stream("GET", f"/api/events/stream?sessionId={session_id}", headers=TOKEN) as stream,
    ):
        assert json.loads(feed.recv(timeout=60))["type"] == "connected"
        pieces = stream.iter_text()
        assert next(pieces).startswith(": connected")
        posted = httpx.post(
            f"{server.url}/api/actions/{session_id}", json={"type": "x"}, headers=TOKEN, verify=server.certificate.trust
        )
        cursor = posted.raise_for_status().json()["cursor"]
        events = [json.loads(feed.recv(timeout=60)) for _ in range(2)]
        assert events[-1]["cursor"] == cursor
        text = next(pieces)
        while f"id: {cursor}" not in text:
            text += next(pieces)
    return True


# ------------------------------------------------------------------ the server itself


def test_the_server_speaks_https_and_the_live_feed_wss(secure: SecureAppliance) -> None:
    with client_of(secure) as client:
        assert is_live(secure, client, "tls")
        batch = "".join(f'{{"type":"action","sessionId":"tls","data":{{"type":"x","n":{n}}}}}\n' for n in range(20_000))
        answer = client.post("/api/events", content=batch, headers=TOKEN | {"Content-Type": "application/x-ndjson"})
        assert answer.json()["accepted"] == 20_000
    assert secure.said(f"https://127.0.0.1:{secure.port}/")


def test_over_https_the_cookie_is_sent_nowhere_else(secure: SecureAppliance) -> None:
    with client_of(secure) as client:
        cookie = client.post("/api/login", json={"token": ADMIN}).headers["Set-Cookie"]
        assert {"secure", "httponly", "samesite=strict"} <= set(cookie.lower().split("; "))


def test_over_https_a_page_of_http_is_foreign(secure: SecureAppliance) -> None:
    with client_of(secure) as client:
        for origin, status in ((secure.url, 200), (secure.url.replace("https", "http"), 403)):
            answer = client.post("/api/actions/tls", json={"type": "x"}, headers=TOKEN | {"Origin": origin})
            assert answer.status_code == status, origin


def test_who_speaks_no_tls_is_let_go_and_leaves_no_trace(secure: SecureAppliance) -> None:
    for words in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(200)):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=20) as peer:
            peer.sendall(words)
            while peer.recv(4096):
                pass
    assert "Traceback" not in secure.output
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{secure.url}/health", verify=ssl.create_default_context())


def serial_of(server: SecureAppliance) -> str:
    return ssl.get_server_certificate(("127.0.0.1", server.port))


@pytest.mark.long
def test_a_renewed_certificate_is_used_without_a_restart(folder: Path, tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    used = Certificate(tmp_path / "used.pem", tmp_path / "used.key")
    for old, new in zip(first, used, strict=True):
        shutil.copy(old, new)
    with SecureAppliance(folder, used) as server, client_of(server) as before:
        assert before.get("/health").status_code == 200
        assert serial_of(server) == first.file.read_text()
        shutil.copy(second.key, used.key)
        eventually(lambda: "The certificate stays as it was" in server.output)
        assert serial_of(server) == first.file.read_text(), "the key alone is no pair"
        shutil.copy(second.file, used.file)
        eventually(lambda: serial_of(server) == second.file.read_text())
        assert before.get("/health").status_code == 200, "who is connected stays so"
        with client_of(server) as after:
            assert after.get("/health").status_code == 200
        assert "Traceback" not in server.output


def test_a_pair_that_cannot_be_used_stops_the_start(folder: Path, tmp_path: Path, certificate: Certificate) -> None:
    other = make_certificate(tmp_path, "other")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(certificate.key), "-aes256", "-passout", "pass:secret", "-out"]
    subprocess.run([*command, str(locked)], check=True, capture_output=True, timeout=60)
    pairs = [(tmp_path / "none.pem", certificate.key), (certificate.file, other.key), (certificate.file, locked)]
    for cert, key in pairs:
        ended = start_and_end(folder, SESSIONS_TLS_CERT=str(cert), SESSIONS_TLS_KEY=str(key))
        assert is_refused_plainly(ended, "SESSIONS_TLS_CERT", str(cert), str(key)), ended
    assert is_refused_plainly(start_and_end(folder, SESSIONS_TLS_CERT=str(certificate.file)), "SESSIONS_TLS_KEY")


@pytest.mark.long
def test_an_end_is_as_orderly_as_without_tls(folder: Path, certificate: Certificate) -> None:
    with (
        SecureAppliance(folder, certificate) as server,
        client_of(server) as client,
        connect(f"{server.url.replace('https', 'wss')}/ws", ssl=certificate.trust, proxy=None) as feed,
    ):
        assert client.get("/health").status_code == 200
        ended = server.stop()
        assert ended.code == 0
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                feed.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1001, 1012)
        assert "Traceback" not in server.output


# ------------------------------------------------------------------------- agents

TEST_ASYNC = """
import asyncio
from hook_agent import SessionHookAgent
print(asyncio.run(SessionHookAgent().test_connection()))
"""


def test_an_agent_delivers_over_https_to_whom_the_system_or_ssl_cert_file_trusts(
    secure: SecureAppliance, tmp_path: Path, no_sender_is_left: None
) -> None:
    env = agents.environment(tmp_path, secure.url, SESSION_ID="by-tls", SESSION_TOKEN=ADMIN)
    trusting = env | {"SSL_CERT_FILE": str(secure.certificate.file)}
    assert agents.command("test", env).returncode == 1, "a certificate that nobody vouches for is not trusted"
    assert agents.command("test", trusting).returncode == 0
    assert [agents.run(TEST_ASYNC, of).strip() for of in (env, trusting)] == ["False", "True"]

    payload = json.dumps({"session_id": "x", "hook_event_name": "UserPromptSubmit", "prompt": "Go"}).encode()
    assert agents.hook(payload, trusting) == (0, b"", b"")
    with client_of(secure) as client:
        eventually(lambda: client.get("/api/actions/by-tls", headers=TOKEN).status_code == 200)


# ------------------------------------------------------------------------ proxies

PROXIES = [
    pytest.param(
        kind,
        marks=[pytest.mark.skipif(is_missing(kind.program), reason=f"there is no {kind.program} here"), *more],
    )
    for kind, more in ((Nginx, []), (Caddy, [LONG]))
]


def requests_of(appliance: Appliance, address: str) -> str:
    """The lines of the log about requests of this client."""
    lines = appliance.output.splitlines()
    return "\n".join(line for line in lines if " request " in line and f" client={address} " in line)


@pytest.mark.parametrize("kind", PROXIES)
def test_behind_a_proxy_all_is_as_without_one(
    folder: Path, tmp_path: Path, certificate: Certificate, kind: type[Proxy]
) -> None:
    """The live feed, large batches, the address of the client in limits and log, https in origins and the cookie."""
    env = {
        "SESSIONS_TOKEN": ADMIN,
        "SESSIONS_TRUSTED_PROXIES": "127.0.0.1",
        "SESSIONS_LOG_REQUESTS": "on",
    }
    with (
        Appliance(folder, env) as appliance,
        kind(tmp_path / "proxy", appliance, certificate) as proxy,
        client_of(proxy) as client,
    ):
        assert is_live(proxy, client, "proxied")
        line = json.dumps({"type": "action", "sessionId": "large", "data": {"type": "x", "text": "x" * 1_000_000}})
        batch = "".join(f"{line}\n" for _ in range(31))
        answer = client.post("/api/events", content=batch, headers=TOKEN | {"Content-Type": "application/x-ndjson"})
        assert answer.json()["accepted"] == 31

        login = client.post("/api/login", json={"token": ADMIN}, headers={"Origin": proxy.url})
        assert "secure" in login.headers["Set-Cookie"].lower()
        page = {"Origin": proxy.url.replace("https", "http")}
        assert client.post("/api/login", json={"token": ADMIN}, headers=page).status_code == 403

        with client_of(proxy, "127.0.0.5") as guesser, client_of(proxy, "127.0.0.6") as other:
            lie = {"X-Forwarded-For": "127.0.0.9", "X-Forwarded-Proto": "http"}
            tried = [
                guesser.get("/api/events", headers=lie | {"Authorization": f"Bearer canary-{n}"}).status_code
                for n in range(7)
            ]
            assert tried == [401] * 7
            assert other.get("/api/events", headers={"Authorization": "Bearer canary"}).status_code == 401
            assert guesser.get("/api/events", headers=TOKEN).status_code == 200
            assert other.post("/api/actions/proxied", json={"type": "x"}, headers=TOKEN).status_code == 200
        eventually(lambda: "method=POST" in requests_of(appliance, "127.0.0.6"))
        assert "status=401" in requests_of(appliance, "127.0.0.5")
        assert "actor=SESSIONS_TOKEN" in requests_of(appliance, "127.0.0.5")
        assert appliance.said("token_refused client=127.0.0.5")
        assert "client=127.0.0.9" not in appliance.output
        assert "canary" not in appliance.output


@pytest.mark.parametrize("kind", PROXIES)
def test_behind_a_proxy_that_knows_people_they_need_no_token(
    folder: Path, tmp_path: Path, certificate: Certificate, kind: type[Proxy]
) -> None:
    env = {
        "SESSIONS_TOKEN": ADMIN,
        "SESSIONS_TRUSTED_PROXIES": "127.0.0.1",
        "SESSIONS_USER_HEADER": "X-User",
        "SESSIONS_USER_ROLES": f"{USER}=admin,*=read",
    }
    with (
        Appliance(folder, env) as appliance,
        kind(tmp_path / "proxy", appliance, certificate, knows_people=True) as proxy,
        client_of(proxy) as client,
    ):
        lie = {"X-User": USER}
        for authorization in ("", "Basic YWxpY2U6eA==", "Bearerx x", "Bearer", "Bearer canary", "Digest x"):
            sent = lie | ({"Authorization": authorization} if authorization else {})
            assert client.get("/api/events", headers=sent).status_code == 401, authorization
        assert client.get("/health", headers=lie | TOKEN).json()["role"] == "admin"
        person = httpx.BasicAuth(USER, PASSWORD)
        wrote = client.post("/api/actions/theirs", json={"type": "x"}, auth=person, headers={"X-User": "mallory"})
        assert wrote.status_code == 200
        events = client.get("/api/sessions/theirs/events", auth=person).json()["items"]
        assert [event["actor"] for event in events] == [USER, USER]
        foreign = {"Origin": "https://evil.example"}
        assert client.post("/api/actions/theirs", json={"type": "x"}, auth=person, headers=foreign).status_code == 403


guesses = count(1)


def guess(appliance: Appliance, address: str, forwarded: str) -> str:
    """What the log says of a wrong token that comes from this address."""
    before = appliance.output
    headers = {"Authorization": f"Bearer canary-{next(guesses)}"}
    if forwarded:
        headers["X-Forwarded-For"] = forwarded
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        assert client.get(f"{appliance.url}/api/events", headers=headers).status_code == 401
    eventually(lambda: "token_refused" in appliance.output.removeprefix(before))
    return "\n".join(line for line in appliance.output.removeprefix(before).splitlines() if "token_refused" in line)


@pytest.mark.parametrize(
    ("peer", "said", "seen"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "10.7.7.7", "127.0.0.1"),
        ("127.0.0.9", "10.7.7.7", "10.7.7.7"),
        ("127.0.0.9", "6.6.6.6, 10.7.7.7", "10.7.7.7"),
        ("127.0.0.9", "6.6.6.6,10.7.7.7 , 127.0.1.4", "10.7.7.7"),
        ("127.0.0.9", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.9", "::ffff:10.7.7.7", "10.7.7.7"),
        ("127.0.0.9", "6.6.6.6, unknown", "127.0.0.9"),
        ("127.0.0.9", "6.6.6.6\tx", "127.0.0.9"),
        ("127.0.0.9", "", "127.0.0.9"),
        ("127.0.1.200", "127.0.1.201", "127.0.1.201"),
    ],
)
def test_only_a_proxy_that_is_named_is_believed(forwarding: Appliance, peer: str, said: str, seen: str) -> None:
    (line,) = guess(forwarding, peer, said).splitlines()
    assert f" token_refused client={seen} " in line


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    env = {"SESSIONS_TOKEN": ADMIN, "SESSIONS_TRUSTED_PROXIES": "127.0.0.9, 127.0.1.0/24"}
    with Appliance(tmp_path_factory.mktemp("forwarding"), env) as server:
        yield server


def test_with_a_proxy_a_loopback_address_is_no_protection(folder: Path) -> None:
    """Whoever reaches the proxy reaches the server: tokens are made."""
    with Appliance(folder, {"SESSIONS_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        assert httpx.get(f"{server.url}/api/events").status_code == 401
        admin = (folder / "tokens" / "admin").read_text().strip()
        answer = httpx.get(f"{server.url}/api/events", headers={"Authorization": f"Bearer {admin}"})
        assert answer.status_code == 200
