"""Tokens of many: made, listed, changed and taken away while the server runs, and kept as hashes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from sessionstore.admin import tokens as commands
from sessionstore.model.rights import Bounds
from sessionstore.settings import BadSetting, Settings, read_settings
from sessionstore.web import logins
from sessionstore.web.tokens import ROLES, Token, Tokens
from tests.appliance import Appliance, ServerError
from tests.commands import is_refused, token
from tests.peers import eventually

NOTICE_SECONDS = 10.0
"""Far more than the second that it should take, far less than the 30 that it may."""


def made(folder: Path, *arguments: str, **environment: str) -> str:
    """The token that a command makes, the only thing it says to a script."""
    ended = token(folder, *arguments, **environment)
    assert ended.returncode == 0, ended
    (line,) = ended.stdout.splitlines()
    assert re.fullmatch(r"sst_[A-Za-z0-9_-]{32}", line)
    assert line not in ended.stderr
    return line


def status_with(server: Appliance, token: str | None, path: str = "/api/events") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(server.url + path, headers=headers, verify=False).status_code


def writes_with(server: Appliance, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{server.url}/api/actions/tokens"
    return httpx.post(url, json={"type": "note"}, headers=headers, verify=False).status_code == 200


def cookie_of(server: Appliance, token: str) -> str:
    answer = httpx.post(f"{server.url}/api/login", json={"token": token}, verify=False)
    assert answer.status_code == 200
    return answer.headers["set-cookie"].partition(";")[0]


def status_with_cookie(server: Appliance, cookie: str) -> int:
    return httpx.get(f"{server.url}/api/events", headers={"Cookie": cookie}, verify=False).status_code


def listed(folder: Path, **environment: str) -> dict[str, list[str]]:
    """The table of `list`, by name."""
    ended = token(folder, "list", **environment)
    assert ended.returncode == 0, ended
    head, *rows = [re.split(r" {2,}", line) for line in ended.stdout.splitlines()]
    assert head == ["NAME", "ROLE", "MADE", "ENDS", "LAST USED", "KEPT IN", "BOUND TO"]
    return {row[0]: row[1:] for row in rows}


def feed(server: Appliance, token: str | None) -> AbstractContextManager[ClientConnection]:
    return feed_by(server, **({"Authorization": f"Bearer {token}"} if token else {}))


@contextmanager
def feed_by(server: Appliance, **headers: str) -> Iterator[ClientConnection]:
    address = f"ws://127.0.0.1:{server.port}/ws"
    with connect(address, proxy=None, additional_headers=headers) as client:
        assert json.loads(client.recv(timeout=60))["type"] == "connected"
        yield client


def close_code(client: ClientConnection) -> int | None:
    """With which it is closed, within the time that this may take."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=NOTICE_SECONDS)
    return closed.value.rcvd.code if closed.value.rcvd else None


# -------------------------------------------------------------------------- adding


def test_a_token_of_each_role_is_made_before_the_first_start(folder: Path) -> None:
    tokens = {role: made(folder, "add", f"my-{role}", "--role", role) for role in ("admin", "read", "ingest")}
    with Appliance(folder) as server:
        assert status_with(server, None) == 401
        assert {role: status_with(server, text) for role, text in tokens.items()} == {
            "admin": 200,
            "read": 200,
            "ingest": 403,
        }
        assert [writes_with(server, tokens[role]) for role in ("admin", "read", "ingest")] == [True, False, True]
        assert server.said("by the tokens that are set")


def test_a_running_server_takes_up_a_token_and_is_open_no_more(folder: Path) -> None:
    with Appliance(folder) as server, feed(server, None) as before:
        assert status_with(server, None) == 200
        ended = token(folder, "add", "first", "--role", "admin")
        assert "From now on it needs a token" in ended.stderr
        first = ended.stdout.strip()
        eventually(lambda: status_with(server, None) == 401, NOTICE_SECONDS)
        assert status_with(server, first) == 200
        assert close_code(before) == 1008
        assert status_with_cookie(server, cookie_of(server, first)) == 200

        second = token(folder, "add", "second", "--role", "read")
        assert "From now on" not in second.stderr
        eventually(lambda: status_with(server, second.stdout.strip()) == 200, NOTICE_SECONDS)
        assert status_with(server, first) == 200


def test_only_hashes_are_kept_and_for_the_owner_alone(folder: Path) -> None:
    text = made(folder, "add", "secret", "--role", "admin")
    with Appliance(folder) as server:
        cookie = cookie_of(server, text)
        assert writes_with(server, text)
        server.stop()
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 5
        kept = {path: path.read_bytes() for path in files}
        for secret in (text, text.removeprefix("sst_"), cookie.partition("=")[2]):
            assert [path for path, content in kept.items() if secret.encode() in content] == []
            assert secret not in server.output
    tokens = folder / "tokens"
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in tokens.iterdir()} == {0o600}


def test_what_is_kept_opens_nothing(folder: Path) -> None:
    """Whoever reads the file has neither the token nor the cookie."""
    text = made(folder, "add", "secret", "--role", "admin")
    (kept,) = json.loads((folder / "tokens" / "tokens.json").read_text())
    with Appliance(folder) as server:
        assert status_with(server, text) == 200
        cookie = cookie_of(server, text)
        eventually(lambda: (folder / logins.FILE).exists())
        (login,) = json.loads((folder / logins.FILE).read_text())
        assert cookie.partition("=")[2] not in (folder / logins.FILE).read_text()
        for hash in (kept["token"], login["cookie"], login["proof"]):
            assert status_with(server, hash) == 401
            assert status_with_cookie(server, f"session_store={hash}") == 401
        assert status_with_cookie(server, cookie) == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_makes_belongs_to_whom_the_store_does(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 54321)
    made(folder, "add", "one", "--role", "read")
    for path in (folder / "tokens", folder / "tokens" / "tokens.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "a/b", "--role", "read"],
        ["add", "x" * 65, "--role", "read"],
        ["add", "admin", "--role", "admin"],
        ["add", "name", "--role", "owner"],
        ["add", "name"],
        ["add", "name", "--role", "read", "--expires", "soon"],
        ["remove"],
        ["show", "name"],
        [],
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["token", *arguments])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("Usage: app.py token")


def test_who_uses_it_wrongly_is_shown_how_and_nothing_is_made(folder: Path) -> None:
    ended = token(folder, "add", "name", "--role", "owner")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Usage: app.py token add [OPTIONS] NAME" in ended.stderr
    assert not folder.exists()


def test_a_name_is_given_once(folder: Path) -> None:
    first = made(folder, "add", "one", "--role", "read")
    again = token(folder, "add", "one", "--role", "admin")
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is a token one already" in again.stderr
    with Appliance(folder) as server:
        assert status_with(server, first) == 200
    assert listed(folder)["one"][0] == "read"


@pytest.mark.parametrize("verb", ["remove", "rotate"])
def test_a_token_that_is_not_there_is_exit_code_1(folder: Path, verb: str) -> None:
    made(folder, "add", "one", "--role", "read")
    ended = token(folder, verb, "two")
    assert ended.returncode == 1
    assert "There is no token two; there are: one" in ended.stderr
    given = token(folder, verb, "SESSIONS_TOKEN", SESSIONS_TOKEN="from-outside")
    assert given.returncode == 1
    assert "set in the environment" in given.stderr


def test_a_store_is_not_closed_by_a_token_that_may_not_read(folder: Path) -> None:
    refused = token(folder, "add", "ci", "--role", "ingest")
    assert refused.returncode == 1 and refused.stdout == "" and "--role read" in refused.stderr
    assert not (folder / "tokens" / "tokens.json").exists()
    made(folder, "add", "me", "--role", "read")
    made(folder, "add", "ci", "--role", "ingest")
    assert made(folder.with_name("set"), "add", "ci", "--role", "ingest", SESSIONS_READ_TOKEN="from-outside")
    assert made(folder.with_name("public"), "add", "ci", "--role", "ingest", SESSIONS_HOST="0.0.0.0")


def test_those_that_the_server_made_are_listed_whoever_asks(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_HOST": "0.0.0.0"}):
        pass
    for host in ("0.0.0.0", "127.0.0.1"):
        ended = token(folder, "list", SESSIONS_HOST=host)
        assert {"admin", "read", "ingest"} <= {line.split()[0] for line in ended.stdout.splitlines()}
        assert ("SESSIONS_HOST" in ended.stderr) == (host == "127.0.0.1")
    assert is_refused(
        token(folder, "add", "ci", "--role", "ingest"), "If its server has a SESSIONS_HOST, set that here"
    )


def test_commands_at_the_same_time_do_not_undo_each_other(folder: Path) -> None:
    names = [f"name-{number}" for number in range(4)]
    with ThreadPoolExecutor(len(names)) as pool:
        tokens = list(pool.map(lambda name: made(folder, "add", name, "--role", "read"), names))
    assert sorted(listed(folder)) == names
    with Appliance(folder) as server:
        assert {status_with(server, text) for text in tokens} == {200}


# ---------------------------------------------------------------------- taking away


@contextmanager
def stream(server: Appliance, token: str) -> Iterator[Iterator[bytes]]:
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(verify=False) as client,
        client.stream("GET", f"{server.url}/api/events/stream", headers=headers) as response,
    ):
        assert response.status_code == 200
        yield response.iter_raw()


@pytest.mark.long
def test_a_token_that_is_taken_away_ends_with_all_that_it_opened(folder: Path) -> None:
    """Its requests, its cookie, its WebSockets, its streams; and nobody else's."""
    gone, stays = (made(folder, "add", name, "--role", "read") for name in ("gone", "stays"))
    agent = {"Authorization": f"Bearer {made(folder, 'add', 'agent', '--role', 'ingest')}"}
    with Appliance(folder) as server:
        cookie = cookie_of(server, gone)
        with feed(server, gone) as ending, feed(server, stays) as staying, stream(server, gone) as events:
            assert next(events).startswith(b": connected")
            begun = time.monotonic()
            assert token(folder, "remove", "gone").returncode == 0
            assert close_code(ending) == 1008
            assert status_with(server, gone) == 401
            assert status_with_cookie(server, cookie) == 401
            httpx.post(f"{server.url}/api/actions/s", json={"type": "later"}, headers=agent).raise_for_status()
            assert b"later" not in b"".join(events)
            assert time.monotonic() - begun <= 30
            assert status_with(server, stays) == 200
            staying.send('{"type":"ping"}')
            heard = [json.loads(staying.recv(timeout=60))["type"] for _ in range(3)]
            assert heard == ["session_created", "action", "pong"]


def test_a_log_in_ends_with_its_log_out_and_takes_no_other_with_it(folder: Path) -> None:
    text = made(folder, "add", "team", "--role", "read")
    with Appliance(folder) as server:
        mine, yours = cookie_of(server, text), cookie_of(server, text)
        assert mine != yours
        with feed_by(server, Cookie=mine) as ending, feed_by(server, Cookie=yours) as staying:
            answer = httpx.delete(f"{server.url}/api/login", headers={"Cookie": mine})
            assert answer.status_code == 200
            assert status_with_cookie(server, mine) == 401
            assert close_code(ending) == 1008
            assert status_with_cookie(server, yours) == 200 and status_with(server, text) == 200
            staying.send('{"type":"ping"}')
            assert json.loads(staying.recv(timeout=60)) == {"type": "pong"}
        server.stop()
        server.start()
        assert (status_with_cookie(server, mine), status_with_cookie(server, yours)) == (401, 200)


def test_a_log_in_outlives_a_kill_and_is_for_nobody_else_to_read(folder: Path) -> None:
    text = made(folder, "add", "team", "--role", "read")
    with Appliance(folder) as server:
        cookie = cookie_of(server, text)
        eventually(lambda: (folder / logins.FILE).exists())
        assert stat.S_IMODE((folder / logins.FILE).stat().st_mode) == 0o600
        server.kill()
        server.start()
        assert status_with_cookie(server, cookie) == 200
        (folder / logins.FILE).write_text("[{")
        server.stop()
        server.start()
        assert status_with_cookie(server, cookie) in (200, 401) and status_with(server, text) == 200


def test_a_browser_that_logs_in_again_has_one_log_in(folder: Path) -> None:
    text = made(folder, "add", "team", "--role", "read")
    with Appliance(folder) as server:
        first = cookie_of(server, text)
        answer = httpx.post(f"{server.url}/api/login", json={"token": text}, headers={"Cookie": first})
        assert f"Max-Age={logins.SECONDS}" in answer.headers["set-cookie"]
        assert status_with_cookie(server, first) == 401
        assert status_with_cookie(server, answer.headers["set-cookie"].partition(";")[0]) == 200


def test_a_log_in_ends_with_a_token_that_is_changed_under_its_name(folder: Path) -> None:
    text = made(folder, "add", "team", "--role", "read")
    with Appliance(folder) as server:
        cookie = cookie_of(server, text)
        renewed = token(folder, "rotate", "team").stdout.strip()
        eventually(lambda: status_with_cookie(server, cookie) == 401, NOTICE_SECONDS)
        assert status_with_cookie(server, cookie_of(server, renewed)) == 200


def test_a_log_in_ends_after_thirty_days_or_with_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(directory=tmp_path, read_token="a-token-of-this-test")
    tokens = Tokens(settings)
    tokens.prepare()
    held = logins.Logins(settings, tokens)
    cookie, seconds = held.begin(tokens.by_name["SESSIONS_READ_TOKEN"])
    assert seconds == 30 * 86_400 and held.holder(cookie)
    ends = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: ends - 5)
    assert held.holder(cookie)
    monkeypatch.setattr(time, "time", lambda: ends + 1)
    assert held.holder(cookie) is None
    short = Token("short", "read", b"x" * 32, expires=time.time() + 60)
    assert held.begin(short)[1] <= 60


def test_no_more_log_ins_are_kept_than_may_be_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MOST", 3)
    settings = Settings(directory=tmp_path, read_token="a-token-of-this-test", admin_token="another-of-this-test")
    tokens = Tokens(settings)
    tokens.prepare()
    held = logins.Logins(settings, tokens)
    other, _ = held.begin(tokens.by_name["SESSIONS_TOKEN"])
    cookies = [held.begin(tokens.by_name["SESSIONS_READ_TOKEN"])[0] for _ in range(5)]
    assert [held.holder(cookie) is not None for cookie in cookies] == [False, False, True, True, True]
    assert held.holder(other), "those of another token are not driven out"
    held.save()
    again = logins.Logins(settings, tokens)
    assert [again.holder(cookie) is not None for cookie in cookies] == [False, False, True, True, True]


def test_a_file_of_named_tokens_of_an_earlier_version_is_read(folder: Path) -> None:
    text = made(folder, "add", "old", "--role", "read")
    path = folder / "tokens" / "tokens.json"
    path.write_text(json.dumps([one | {"cookie": "0" * 64, "expires": None} for one in json.loads(path.read_text())]))
    with Appliance(folder) as server:
        assert status_with(server, text) == 200


@pytest.mark.long
def test_a_token_ends_with_its_time(folder: Path) -> None:
    with Appliance(folder) as server:
        made(folder, "add", "other", "--role", "admin")
        short = made(folder, "add", "short", "--role", "read", "--expires", "10s")
        eventually(lambda: status_with(server, "another") == 401, NOTICE_SECONDS)
        eventually(lambda: status_with(server, short) == 200, NOTICE_SECONDS)
        with feed(server, short) as ending:
            cookie = cookie_of(server, short)
            assert close_code(ending) == 1008
        assert status_with(server, short) == 401
        assert status_with_cookie(server, cookie) == 401
        assert listed(folder)["short"][2] == "over"
        server.stop()
        server.start()
        assert status_with(server, short) == 401


def test_a_token_is_changed_for_another(folder: Path) -> None:
    made(folder, "add", "people", "--role", "read")
    old = made(folder, "add", "agents", "--role", "ingest", "--expires", "30d")
    with Appliance(folder) as server:
        assert writes_with(server, old)
        new = made(folder, "rotate", "agents")
        eventually(lambda: writes_with(server, new), NOTICE_SECONDS)
        assert not writes_with(server, old)
        assert listed(folder)["agents"][0] == "ingest"
        assert listed(folder)["agents"][2] != "-"


def test_when_the_last_is_taken_away_nobody_gets_in(folder: Path) -> None:
    only = made(folder, "add", "only", "--role", "admin")
    with Appliance(folder) as server:
        assert status_with(server, only) == 200
        ended = token(folder, "remove", "only")
        assert "nobody gets in" in ended.stderr
        eventually(lambda: status_with(server, only) == 401, NOTICE_SECONDS)
        assert status_with(server, None) == 401
        (folder / "tokens" / "tokens.json").unlink()
        eventually(lambda: status_with(server, None) == 200, NOTICE_SECONDS)


def test_tokens_that_the_server_made_are_changed_and_taken_away_too(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    env = {"SESSIONS_HOST": "0.0.0.0", "SESSIONS_AGENT_TOKEN_FILE": str(shared / "token")}
    with Appliance(folder, env) as server:
        files = {role: (folder / "tokens" / role).read_text().strip() for role in ROLES}
        assert listed(folder, **env).keys() == files.keys()
        new = made(folder, "rotate", "admin", **env)
        assert (folder / "tokens" / "admin").read_text().strip() == new
        ingest = made(folder, "rotate", "ingest", **env)
        eventually(lambda: (shared / "token").read_text().strip() == ingest, NOTICE_SECONDS)
        shutil.rmtree(shared)
        assert token(folder, "remove", "read", **env).returncode == 0
        eventually(lambda: status_with(server, files["read"]) == 401, NOTICE_SECONDS)
        assert server.said("SESSIONS_AGENT_TOKEN_FILE"), "that it could not be written is said, and stops nothing"
        assert status_with(server, new) == 200
        assert [status_with(server, files[role]) for role in ("admin", "ingest")] == [401, 401]
        assert writes_with(server, ingest)
        server.stop()
        shared.mkdir()
        server.start()
        assert sorted(listed(folder, **env)) == ["admin", "control", "ingest"]
        assert status_with(server, None) == 401
        assert token(folder, "remove", "read", **env).returncode == 1


# -------------------------------------------------------------------------- listing


def test_the_list_says_when_each_was_last_used_and_tells_no_token(folder: Path) -> None:
    used, unused = (made(folder, "add", name, "--role", "read") for name in ("used", "unused"))
    with Appliance(folder, {"SESSIONS_TOKEN": "from-the-environment"}) as server:
        assert status_with(server, used) == 200
        server.stop()
    rows = listed(folder, SESSIONS_TOKEN="from-the-environment")
    assert sorted(rows) == ["SESSIONS_TOKEN", "unused", "used"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", rows["used"][3])
    assert rows["unused"][3] == "-"
    assert rows["SESSIONS_TOKEN"] == ["admin", "-", "-", "-", "the environment", "-"]
    said = token(folder, "list", SESSIONS_TOKEN="from-the-environment").stdout
    assert not [text for text in (used, unused, "from-the-environment") if text in said]


def test_an_open_store_is_said_to_be_open(folder: Path) -> None:
    ended = token(folder, "list")
    assert ended.returncode == 0
    assert "No token is needed" in ended.stderr
    assert not folder.exists()


# ---------------------------------------------------------------------- a bad file


def test_a_file_that_cannot_be_read_changes_nothing_while_the_server_runs(folder: Path) -> None:
    good = made(folder, "add", "good", "--role", "read")
    path = folder / "tokens" / "tokens.json"
    with Appliance(folder) as server:
        content = path.read_text()
        path.write_text(content[:-20])
        eventually(lambda: "A change of the tokens is not taken up" in server.output, NOTICE_SECONDS)
        assert status_with(server, good) == 200
        assert status_with(server, None) == 401
        assert token(folder, "add", "more", "--role", "read").returncode == 1
        path.write_text(content)
        more = made(folder, "add", "more", "--role", "read")
        eventually(lambda: status_with(server, more) == 200, NOTICE_SECONDS)
        assert server.output.count("is not taken up") == 1


@pytest.mark.parametrize("content", ["", "{}", '[{"name":"x","role":"owner"}]', "[null]", "\udcff"])
def test_a_server_does_not_start_on_a_file_that_cannot_be_read(folder: Path, content: str) -> None:
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokens" / "tokens.json").write_text(content, errors="surrogateescape")
    with pytest.raises(ServerError, match=r"SESSIONS_TOKENS_DIR: .*tokens\.json cannot be read"), Appliance(folder):
        pass


# ------------------------------------------------------------------- bound tokens


def test_a_token_is_bound_when_it_is_added_and_stays_so(folder: Path) -> None:
    made(folder, "add", "boss", "--role", "admin")
    made(folder, "add", "a", "--role", "ingest", "--user", "alice", "--user", "bob", "--project", "web")
    assert token(folder, "add", "r", "--role", "read", "--session", "s").returncode == 1
    assert token(folder, "add", "i", "--role", "ingest", "--session", "no/id").returncode == 2
    assert token(folder, "add", "store", "--role", "read").returncode == 2  # which is the actor of what the store does
    made(folder, "rotate", "a")
    assert listed(folder)["a"][-1] == "user alice, user bob, project web"
    assert listed(folder)["boss"][-1] == "-"


def test_agents_find_bound_tokens_in_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    settings = read_settings(
        {
            "SESSIONS_DIR": str(tmp_path / "data"),
            "SESSIONS_HOST": "0.0.0.0",
            "SESSIONS_AGENT_TOKEN_FILE": str(tmp_path / "run" / "token"),
            "SESSIONS_AGENT_TOKENS": "solver=alice, builder=bob",
        }
    )
    (tmp_path / "data").mkdir()
    texts: list[dict[str, str]] = []
    for _ in range(2):
        tokens = Tokens(settings)
        tokens.prepare()
        texts.append({name: (tmp_path / "run" / name / "token").read_text().strip() for name in ("solver", "builder")})
    assert texts[0] == texts[1]
    held = {name: tokens.holder(text) for name, text in texts[0].items()}
    for name, user in (("solver", "alice"), ("builder", "bob")):
        one = held[name]
        assert one is not None and (one.name, one.role, one.bounds) == (name, "ingest", Bounds(users=(user,)))
        assert (tmp_path / "run" / name / "token").stat().st_mode & 0o777 == 0o444
    (tmp_path / "run" / "solver" / "token").unlink()
    tokens.refresh()
    assert tokens.holder(texts[0]["solver"]) is None and tokens.holder(texts[0]["builder"]) is not None


@pytest.mark.parametrize("said", ["solver", "=alice", "read=alice", "a=x,a=y", "a b=x", "a:b=x"])
def test_agents_tokens_that_cannot_be_are_refused(said: str) -> None:
    with pytest.raises(BadSetting, match="SESSIONS_AGENT_TOKENS"):
        read_settings({"SESSIONS_AGENT_TOKENS": said, "SESSIONS_AGENT_TOKEN_FILE": "/x/token"})
    with pytest.raises(BadSetting, match="needs SESSIONS_AGENT_TOKEN_FILE"):
        read_settings({"SESSIONS_AGENT_TOKENS": "solver=alice"})
