"""People: log-ins that end when they are told to, and users whom a proxy names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sessionstore.settings import BadSetting, read_settings
from tests import commands
from tests.appliance import Appliance
from tests.peers import eventually
from tests.test_access import JSON, SETTINGS, TOKENS, Headers, Reply, ask, bearer, cookie_for

# ------------------------------------------------------------------- log-ins


def ids_of(folder: Path) -> list[str]:
    ended = commands.token(folder, "logins", **SETTINGS)
    assert ended.returncode == 0, ended
    head, *rows = (line.split() for line in ended.stdout.splitlines())
    assert head == ["ID", "TOKEN", "ENDS"] and all(row[1] == "SESSIONS_READ_TOKEN" for row in rows)
    return [row[0] for row in rows]


def is_in(server: Appliance, cookie: Headers) -> bool:
    return ask(server, "GET", "/api/query/stats", cookie).status == 200


def test_a_log_in_is_revoked_by_command_and_no_other_with_it(tmp_path: Path) -> None:
    with Appliance(tmp_path, SETTINGS) as server:
        first = cookie_for(server, TOKENS["read"])
        eventually(lambda: len(ids_of(tmp_path)) == 1)
        (revoked,) = ids_of(tmp_path)
        second = cookie_for(server, TOKENS["read"])
        assert commands.token(tmp_path, "logout", "nobody", **SETTINGS).returncode == 1
        with connect(f"ws://127.0.0.1:{server.port}/ws", additional_headers=dict(first)) as feed:
            assert json.loads(feed.recv())["type"] == "connected"
            assert commands.token(tmp_path, "logout", revoked, **SETTINGS).returncode == 0
            eventually(lambda: not is_in(server, first))
            with pytest.raises(ConnectionClosed, match="1008"):
                feed.recv(timeout=60)
        assert is_in(server, second)
        eventually(lambda: len(ids_of(tmp_path)) == 1)
        assert revoked not in ids_of(tmp_path)
        server.stop()
        server.start()
        assert (is_in(server, first), is_in(server, second)) == (False, True)
        assert commands.token(tmp_path, "logout", "SESSIONS_READ_TOKEN", **SETTINGS).returncode == 0
        eventually(lambda: not is_in(server, second))


# ------------------------------------------------------------ users of a proxy

BEHIND = {
    **SETTINGS,
    "SESSIONS_USER_HEADER": "X-User, X-Groups",
    "SESSIONS_USER_ROLES": "alice=admin, oncall=control, team=read",
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A store to which this machine is a proxy."""
    with Appliance(tmp_path_factory.mktemp("behind"), BEHIND | {"SESSIONS_TRUSTED_PROXIES": "127.0.0.1"}) as server:
        yield server


def role_of(server: Appliance, headers: Headers) -> str | None:
    role: str | None = json.loads(ask(server, "GET", "/health", headers).body).get("role")
    return role


@pytest.mark.parametrize(
    ("headers", "role"),
    [
        ({"X-User": "alice"}, "admin"),
        ({"X-User": "Alice"}, None),
        ({"X-User": "bob", "X-Groups": "team, oncall"}, "control"),
        ({"X-User": "zo\u00eb", "X-Groups": "team"}, "read"),
        ({"X-User": "eve"}, None),
        ({"X-User": "", "X-Groups": "oncall"}, None),
        ({"X-Groups": "oncall"}, None),
        ({"X-User": "budget:alice", "X-Groups": "team"}, None),
        ({"X-User": "store", "X-Groups": "team"}, None),
        ({"X-User": "alice", "Authorization": "Basic YWxpY2U6c2VjcmV0"}, "admin"),
        ({"X-User": "alice", **bearer(TOKENS["ingest"])}, "ingest"),
        ({"X-User": "alice", **bearer("canary-wrong-00000000")}, None),
        ({}, None),
    ],
)
def test_a_user_may_what_his_name_or_group_may(behind: Appliance, headers: dict[str, str], role: str | None) -> None:
    sent = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert role_of(behind, sent) == role
    assert ask(behind, "GET", "/api/events", sent).status == {None: 401, "ingest": 403}.get(role, 200)


def test_what_he_writes_bears_his_name_and_a_foreign_page_writes_nothing(behind: Appliance) -> None:
    def writes(**headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(behind, "POST", "/api/actions/by-a-person", JSON | {"X-User": "alice"} | named, '{"type":"x"}')

    assert writes().status == 200
    for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"X-User": "eve"}):
        assert writes(**{name.replace("-", "_"): value for name, value in foreign.items()}).status in (401, 403)
    page = json.loads(ask(behind, "GET", "/api/sessions/by-a-person/events", {"X-User": "alice"}).body)
    assert [event["actor"] for event in page["items"]] == ["alice", "alice"]
    with connect(f"ws://127.0.0.1:{behind.port}/ws?after=0", additional_headers={"X-User": "alice"}) as feed:
        assert [json.loads(feed.recv())["type"] for _ in range(3)] == ["connected", "session_created", "action"]


def test_the_header_of_anybody_else_is_nothing(tmp_path: Path) -> None:
    """Also behind a proxy that is trusted, of whom it comes from elsewhere."""
    with Appliance(tmp_path, BEHIND | {"SESSIONS_TRUSTED_PROXIES": "10.11.12.13"}) as server:
        assert role_of(server, {"X-User": "alice"}) is None
        assert role_of(server, {"X-User": "alice", "X-Forwarded-For": "10.11.12.13"}) is None
        assert role_of(server, {"X-User": "alice", **bearer(TOKENS["read"])}) == "read"


@pytest.mark.parametrize(
    "wrong",
    [
        {"SESSIONS_USER_HEADER": "X-User"},
        {"SESSIONS_USER_HEADER": "X-User", "SESSIONS_TRUSTED_PROXIES": "127.0.0.1"},
        {"SESSIONS_USER_HEADER": "X User"},
        {"SESSIONS_USER_HEADER": "A,B,C"},
        {"SESSIONS_USER_ROLES": "alice"},
        {"SESSIONS_USER_ROLES": "alice=ingest"},
        {"SESSIONS_USER_ROLES": "=admin"},
    ],
)
def test_half_a_setting_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="SESSIONS_USER"):
        read_settings(wrong)
    both = {"SESSIONS_USER_HEADER": "X-User", "SESSIONS_USER_ROLES": "*=read", "SESSIONS_TRUSTED_PROXIES": "10.0.0.1"}
    assert read_settings(both).user_roles == (("*", "read"),)
