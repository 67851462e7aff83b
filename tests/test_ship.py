"""What Claude Code writes of a conversation is in the store as it grows: all of it, byte for byte, whatever happens."""

from __future__ import annotations

import filecmp
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

import hook_agent
from hook_agent import _Link
from tests.agents import command, environment, hook, run, senders_in, spool_in, stop_senders
from tests.appliance import Appliance
from tests.badlink import FAULTS, BadLink, Fake, Posted
from tests.peers import eventually, most_resident_bytes

ship: Any = hook_agent._beside("hook_agent_ship", "to ship")

pytestmark = pytest.mark.usefixtures("no_sender_is_left", "links")

KEY = "sk-ant-api03-" + "aB3dE6gH9" * 10 + "AA"
ODD = [
    b'{"a":1e999,"b" : "\\ud800 \\u0000"}',
    b"no json \xff\xfe\x00 at all",
    b"",
    b' {"deep":[[[{}]]]} \r',
    '{"text":"naïve 😀 \u2028"}'.encode(),
]


class Conversation:
    """A transcript as Claude Code lays it down, and what ships it, without the process around that."""

    links: ClassVar[list[_Link]] = []

    def __init__(self, folder: Path, url: str, session: str) -> None:
        self.session, self.folder = session, folder / "home" / ".claude" / "projects" / "-app"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{session}.jsonl"
        self.agents = self.folder / session / "subagents"
        self.url, self.spool = url, spool_in(folder, url)
        self.said: list[str] = []
        self.begin()

    def begin(self) -> None:
        """As another sender does."""
        self.links.append(_Link(self.url, ""))
        self.shipper = ship.Shipper(self.spool, self.links[-1], self.said.append)

    def payload(self, name: str = "UserPromptSubmit", **more: Any) -> dict[str, Any]:
        return {"session_id": self.session, "hook_event_name": name, "transcript_path": str(self.path), **more}

    def hear(self, name: str = "UserPromptSubmit", known: dict[str, Any] | None = None, **more: Any) -> None:
        self.shipper.hear([(known or {}, self.payload(name, **more), self.session)])

    def write(self, lines: bytes, mode: str = "ab") -> None:
        with self.path.open(mode) as file:
            file.write(lines)

    def ship(self) -> None:
        """All that there is to ship, without its pauses."""
        self.shipper._next = 0.0
        while self.shipper.step():
            pass

    def address(self, subpath: str = "") -> str:
        return f"/api/transcripts/-app/{self.session}" + (f"?subpath={subpath}" if subpath else "")


@pytest.fixture
def links() -> Iterator[None]:
    """They are closed afterwards."""
    yield
    while Conversation.links:
        Conversation.links.pop().close()


@pytest.fixture
def conversation(tmp_path: Path, appliance: Appliance, session_id: str) -> Conversation:
    made = Conversation(tmp_path, appliance.url, session_id)
    made.hear()
    return made


@pytest.fixture
def kept(http: httpx.Client, conversation: Conversation) -> Callable[..., bytes | None]:
    """What the store has of it."""

    def get(subpath: str = "") -> bytes | None:
        found = http.get(conversation.address(subpath))
        return found.content if found.status_code == 200 else None

    return get


Kept = Callable[..., "bytes | None"]


def generation(http: httpx.Client, conversation: Conversation) -> str:
    return http.head(conversation.address()).headers["x-generation"]


# ------------------------------------------------------------------------------ as it grows


def test_it_is_shipped_as_it_grows_and_half_a_line_waits(conversation: Conversation, kept: Kept) -> None:
    conversation.ship()
    assert kept() is None
    for number in range(3):
        conversation.write(b'{"n":%d}\n{"ha' % number)
        conversation.ship()
        assert (kept() or b"").endswith(b'{"n":%d}\n' % number)
        conversation.write(b'lf":1}\n')
    conversation.ship()
    assert kept() == conversation.path.read_bytes()


def test_odd_content_comes_as_it_is(conversation: Conversation, kept: Kept, http: httpx.Client) -> None:
    conversation.write(b"\n".join(ODD * 200) + b"\n" + b'{"long":"' + b"x" * (5 << 20) + b'"}\n')
    conversation.ship()
    assert kept() == conversation.path.read_bytes()
    assert http.head(conversation.address()).headers["x-lines"] == "1001"


def test_what_is_beside_it_comes_along(conversation: Conversation, kept: Kept, http: httpx.Client) -> None:
    (conversation.agents / "workflows" / "run").mkdir(parents=True)
    names = ("agent-a1", "workflows/run/agent-b2", "workflows/run/journal")
    for odd in (".jsonl", "..jsonl", os.fsdecode(b"agent-\xff.jsonl"), "a\\b.jsonl", "agent-c3.txt"):
        (conversation.agents / odd).write_text("{}\n")
    for name in names:
        (conversation.agents / f"{name}.jsonl").write_text(f'{{"of":"{name}"}}\n')
    meta = conversation.agents / "agent-a1.meta.json"
    meta.write_text('{"agentType":"Explore"')  # as far as it is written
    conversation.ship()
    assert kept("subagents/agent-a1.meta.json") is None
    for document in ('{"agentType":"Explore"}', '{"agentType":"Explore","finished":true}'):
        meta.write_text(document)
        conversation.ship()
        assert kept("subagents/agent-a1.meta.json") == f"{document}\n".encode()
    assert [kept(f"subagents/{name}") for name in names] == [f'{{"of":"{name}"}}\n'.encode() for name in names]
    conversation.begin()
    conversation.ship()
    assert len(http.get(f"{conversation.address()}/subkeys").json()) == 4
    assert http.head(conversation.address("subagents/agent-a1.meta.json")).headers["x-generation"] == "2"


def test_it_belongs_to_the_session_that_it_is_told_in(conversation: Conversation, http: httpx.Client) -> None:
    http.post(f"/api/actions/{conversation.session}", json={"type": "x"})
    conversation.write(b"{}\n")
    conversation.ship()
    (found,) = http.get(f"/api/sessions/{conversation.session}/resume").json()["conversations"]
    assert (found["folder"], found["session"], found["lines"]) == ("-app", conversation.session, 1)
    assert http.delete(f"/api/sessions/{conversation.session}").status_code == 200
    assert http.head(conversation.address()).status_code == 404
    conversation.write(b"[]\n")  # the agent goes on, and with it what it says
    for _ in range(2):
        conversation.ship()
    assert http.get(conversation.address()).content == b"{}\n[]\n"


# ------------------------------------------------------------------ another than it was


def replaced(conversation: Conversation) -> None:
    new = conversation.path.with_suffix(".new")
    new.write_bytes(b"a\nother\n")
    new.replace(conversation.path)


CHANGES: dict[str, Callable[[Conversation], Any]] = {
    "truncated": lambda it: it.write(b"a\n", "wb"),
    "truncated and grown": lambda it: it.write(b"a\nand more than there was\n", "wb"),
    "changed in place": lambda it: it.write(b"a\nc\nb\nd\n", "r+b"),
    "replaced": replaced,
}


@pytest.mark.parametrize("is_anew", [False, True], ids=["known", "by another sender"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_another_file_begins_a_new_generation(
    conversation: Conversation, kept: Kept, http: httpx.Client, change: Callable[[Conversation], Any], is_anew: bool
) -> None:
    conversation.write(b"a\nb\nc\n")
    conversation.ship()
    change(conversation)
    if is_anew:
        conversation.begin()
    conversation.ship()
    assert kept() == conversation.path.read_bytes()
    assert generation(http, conversation) == "2"


def test_who_comes_later_goes_on_where_the_store_is(conversation: Conversation, kept: Kept, http: httpx.Client) -> None:
    for number in range(3):
        conversation.write(b'{"n":%d}\n' % number)
        conversation.begin()
        conversation.ship()
    assert (kept(), generation(http, conversation)) == (conversation.path.read_bytes(), "1")


def test_what_was_written_back_without_secrets_goes_on_behind_it(
    conversation: Conversation, kept: Kept, http: httpx.Client
) -> None:
    conversation.write(b'{"text":"KEY"}\n'.replace(b"KEY", KEY.encode()))
    conversation.ship()
    without = kept() or b""
    assert KEY.encode() not in without
    conversation.write(without + b"next\n", "wb")
    conversation.ship()
    assert (kept(), generation(http, conversation)) == (without + b"next\n", "1")


# --------------------------------------------------------------------- links, stores, kills


def test_all_of_it_comes_over_a_bad_link(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    with BadLink(appliance.port) as link:
        it = Conversation(tmp_path, link.url, "bad-link")
        it.hear()
        for number in range(60):
            it.write(b'{"n":%d,"text":"%s"}\n' % (number, b"x" * 300_000))

        def is_whole() -> bool:
            it.ship()
            return bool(it.shipper.whole_at)

        eventually(is_whole)
        assert sum(link.happened[fault] for fault in FAULTS) > 5
    head = http.head(it.address())
    assert http.get(it.address()).content == it.path.read_bytes()
    assert head.headers["x-generation"] == "1"


def test_a_store_that_was_away_gets_all_of_it(appliance: Appliance, http: httpx.Client, tmp_path: Path) -> None:
    with BadLink(appliance.port, ["drop"], share=1.0) as link:
        it = Conversation(tmp_path, link.url, "away")
        it.hear("Stop")
        it.write(b"before\n")
        for _ in range(12):
            it.shipper._next = 0.0
            assert not it.shipper.step()
        assert it.shipper._next > time.monotonic() + 20  # so long it waits before it tries again
        assert not it.shipper.may_leave()  # there is something that the store lacks
        link.is_good = True
        it.ship()
        assert http.get(it.address()).content == b"before\n"
        assert it.shipper.may_leave()
        it.links.pop().close()


def test_that_not_all_of_it_could_be_delivered_is_said(tmp_path: Path) -> None:
    env = environment(tmp_path, "http://127.0.0.1:9")
    it = Conversation(tmp_path, "http://127.0.0.1:9", "s")
    it.write(b"{}\n")
    it.hear()
    flushed = command("flush", env, "--timeout", "0.2")
    assert flushed.returncode == 1 and "Not all of the transcripts is in the store yet.\n" in flushed.stdout


@contextmanager
def full_disk() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_no_hindrance(tmp_path: Path, appliance: Appliance, http: httpx.Client) -> None:
    it = Conversation(tmp_path, appliance.url, "full-disk")
    it.write(b"one\n")
    with full_disk():
        it.hear()
        it.ship()
        assert it.spool._read_json("transcripts.json") == {}
    assert http.get(it.address()).content == b"one\n"
    it.ship()
    assert [*it.spool._read_json("transcripts.json")] == [str(it.path)]


def test_a_kill_of_agent_and_sender_costs_nothing(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str
) -> None:
    it = Conversation(tmp_path, appliance.url, session_id)
    it.write(b"".join(b'{"n":%d}\n' % number for number in range(500_000)))
    env = environment(tmp_path, appliance.url, CLAUDE_PID=str(os.getpid()))
    assert hook(json.dumps(it.payload()).encode(), env) == (0, b"", b"")
    eventually(lambda: http.head(it.address()).status_code == 200)
    stop_senders(tmp_path)
    it.write(b"the last\n")
    assert http.head(it.address()).headers["content-length"] != f"{it.path.stat().st_size}"
    flushed = command("flush", env)
    assert (flushed.returncode, flushed.stderr) == (0, "")
    assert http.get(it.address()).content == it.path.read_bytes()
    assert generation(http, it) == "1"


def test_a_sender_stays_as_long_as_an_agent_works(tmp_path: Path, appliance: Appliance) -> None:
    it = Conversation(tmp_path, appliance.url, "at-work")
    it.write(b"{}\n")
    for hooks, may_leave in (
        (["UserPromptSubmit"], False),
        (["Stop", "Notification"], True),
        (["UserPromptSubmit", "Stop", "PreToolUse", "PostToolUse"], False),
        (["SessionEnd", "SessionStart"], True),
    ):
        for name in hooks:
            it.hear(name, {"ppid": os.getpid()})
        it.ship()
        assert it.shipper.may_leave() is may_leave
        assert (it.spool._read_json("transcripts.json") == {}) is may_leave
    child = os.spawnvp(os.P_NOWAIT, "true", ["true"])
    it.hear("UserPromptSubmit", {"ppid": child})
    os.waitpid(child, 0)
    it.ship()
    assert it.shipper.may_leave()  # whoever was at work is gone
    it.hear()
    os.utime(it.path, (0, 0))
    assert it.shipper.may_leave()  # nothing is heard of him any more


# ------------------------------------------------------------------------------- what is not


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    with Fake(lambda posted: posted.answer(500)) as store:
        it = Conversation(tmp_path, store.url, "s")
        outside, elsewhere = tmp_path / "s.jsonl", tmp_path / "elsewhere"
        outside.write_text("secret\n")
        elsewhere.mkdir()
        shutil.copy(outside, elsewhere / "s.jsonl")
        shutil.copy(outside, it.folder / "other.jsonl")
        (it.folder.parent / "-link").symlink_to(elsewhere)
        (it.folder / "s").symlink_to(elsewhere)
        (it.folder / "s.jsonl").symlink_to(outside)
        projects = it.folder.parent
        paths = [
            *(outside, elsewhere / "s.jsonl", it.folder / "other.jsonl", projects / "-link" / "s.jsonl", it.path),
            *(f"{projects}/-app/../s.jsonl", f"{projects}/../s.jsonl", "projects/-app/s.jsonl", "", 7, None),
        ]
        for path in paths:
            it.hear(transcript_path=str(path) if isinstance(path, Path) else path)
            it.ship()
        it.hear(session_id="../s")
        for odd in ("\ud800", "\0", 7):
            it.hear(transcript_path=f"{projects}/{odd}/s.jsonl", known={"redact": odd})
        it.path.unlink()
        os.mkfifo(it.path)
        it.hear()
        it.ship()
        assert store.posted == []
        it.path.unlink()
        it.write(b"{}\n")
        it.ship()
        assert it.shipper._failures == 1  # this one it asks for


@pytest.mark.parametrize(("setting", "is_kept"), [("off", False), ("no", False), ("on", True), ("", True)])
def test_a_setting_says_whether_it_is_kept(conversation: Conversation, kept: Kept, setting: str, is_kept: bool) -> None:
    conversation.write(b"{}\n")
    conversation.hear(known={"transcripts": setting})
    conversation.ship()
    assert (kept() is not None) is is_kept


def test_what_the_agent_sdk_keeps_itself_is_left_to_it(conversation: Conversation, kept: Kept) -> None:
    conversation.write(b"{}\n")
    child = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", "sleep 60", "--session-mirror"])
    eventually(lambda: b"--session-mirror" in Path(f"/proc/{child}/cmdline").read_bytes())
    conversation.hear(known={"ppid": child})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    conversation.ship()
    assert kept() is None
    conversation.begin()
    conversation.hear(known={"ppid": os.getpid()})
    conversation.ship()
    assert kept() == b"{}\n"
    conversation.write(b"[]\n")
    conversation.shipper._known[str(conversation.path)]["isMirrored"] = True  # what is begun here goes on here
    conversation.ship()
    assert kept() == b"{}\n[]\n"


# ----------------------------------------------------------------------------------- refusals


def answers_to_posts(status: int) -> Callable[[Posted], None]:
    return lambda posted: posted.refuse(status) if posted.method == "POST" else posted.answer(404)


@pytest.mark.parametrize(("status", "times"), [(404, 0), (409, 1), (413, 1), (422, 1)])
def test_a_store_that_refuses_is_asked_no_more_and_that_is_said_once(tmp_path: Path, status: int, times: int) -> None:
    with Fake(answers_to_posts(status)) as store:
        it = Conversation(tmp_path, store.url, "s")
        for number in range(3):
            it.write(b"{}\n")
            it.hear("Stop")
            it.ship()
            assert (len(store.posted), len(it.said)) == (1, times)
            assert it.shipper.may_leave() or number
        told = command("status", environment(tmp_path, store.url)).stdout
        assert told.count(f"is not kept: {store.url} answered {status}: It is bad") == times
        again = Conversation(tmp_path, store.url, "s")
        again.ship()
        assert again.said == []  # it was said before


def test_a_store_that_is_full_for_one_session_is_not_for_another(tmp_path: Path) -> None:
    def answer(posted: Posted) -> None:
        if posted.method == "POST" and "large" in posted.path:
            return posted.refuse(413)
        return posted.answer(200 if posted.method == "POST" else 404, b'{"generation":1}')

    with Fake(answer) as store:
        it, other = Conversation(tmp_path, store.url, "large"), Conversation(tmp_path, store.url, "small")
        for one in (it, other):
            one.write(b"{}\n")
            it.shipper.hear([({}, one.payload(), one.session)])
        for _ in range(2):
            it.ship()
            other.write(b"{}\n")
        assert (len(store.posted), len(it.said)) == (3, 1)
        assert it.shipper.whole_at > 0
        it.links[0].close()


@pytest.mark.parametrize("status", [400, 413, 502])
def test_what_a_proxy_answers_is_no_refusal(tmp_path: Path, status: int) -> None:
    with Fake(lambda posted: posted.answer(status if posted.method == "POST" else 404, b"<html>")) as store:
        it = Conversation(tmp_path, store.url, "s")
        it.write(b"x" * 100 + b"\n")
        it.hear()
        for _ in range(3):
            it.ship()
        assert len(store.posted) == 3 and it.said == []


# ---------------------------------------------------------------------------------- redaction


def test_own_patterns_are_taken_out_here_by_value_and_never_of_a_signed_part(
    appliance: Appliance, http: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "patterns").write_text("acme: ACME-[0-9]{4}\n")
    spared = b'{"thinking":"ACME-1234","signature":"x"}\n{"sessionId":"ACME-1234"}\n'
    lines = b'{"a": "ACME-1234"}\nno json: ACME-1234\n'
    for name, setting in (("own", str(tmp_path / "patterns")), ("none", ""), ("unreadable", "/nowhere/patterns")):
        it = Conversation(tmp_path, appliance.url, name)
        it.write(spared + lines)
        it.hear(known={"redact": setting})
        it.ship()
        it.write(lines)
        it.begin()
        it.ship()
    own = lines.replace(b"ACME-1234", b"[redacted:acme]")
    assert http.get("/api/transcripts/-app/own").content == spared + own + own
    assert http.head("/api/transcripts/-app/own").headers["x-generation"] == "1"
    assert http.get("/api/transcripts/-app/none").content == spared + lines + lines
    assert http.get("/api/transcripts/-app/unreadable").status_code == 404
    assert "SESSION_REDACT=/nowhere/patterns" in it.said[0]


# ------------------------------------------------------------------------------------ how large

ROOM = 48 << 20
PEAK = """
import sys
{call}
with open("/proc/self/status") as file:
    print(file.read().partition("VmHWM:")[2].split()[0])
"""
EXPORT = PEAK.format(call="from export.__main__ import cli; cli(sys.argv[1:], standalone_mode=False)")
RESTORE = PEAK.format(call="import hook_agent; hook_agent.main(sys.argv[1:])")


def peak(code: str, env: dict[str, str], *arguments: str) -> int:
    """The most bytes of memory that it had."""
    return int(run(code, env, *arguments).split()[-1]) << 10


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_hundred_megabytes_go_all_the_way_and_no_process_holds_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Appliance(first) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        it = Conversation(tmp_path, server.url, "large")
        line = json.dumps({"type": "assistant", "text": "words and more words " * 40}).encode() + b"\n"
        it.write(line * (200_000_000 // len(line)))
        env = environment(tmp_path, server.url, CLAUDE_PID=str(os.getpid()), SESSIONS_DIR=str(second))
        before = most_resident_bytes(server.process.pid)
        assert hook(json.dumps(it.payload()).encode(), env) == (0, b"", b"")
        size = f"{it.path.stat().st_size}"
        eventually(lambda: http.head(it.address()).headers.get("x-source-bytes") == size, within=400)
        (sender,) = senders_in(tmp_path)
        assert most_resident_bytes(sender) < ROOM
        archive = tmp_path / "large.tar.gz"
        with http.stream("GET", "/api/sessions/large/archive") as answer, archive.open("wb") as file:
            for piece in answer.iter_bytes():
                file.write(piece)
        assert most_resident_bytes(server.process.pid) < before + ROOM
        stop_senders(tmp_path)
    assert peak(EXPORT, env, "restore", str(archive)) < ROOM
    with Appliance(second) as server:
        env["SESSION_SERVICE_URL"] = server.url
        back = tmp_path / "back"
        env |= {"CLAUDE_CONFIG_DIR": str(back), "CLAUDE_CODE_PROJECT_DIR_NAME": "-app"}
        assert peak(RESTORE, env, "restore", "--session", "large") < ROOM
    assert filecmp.cmp(back / "projects" / "-app" / "large.jsonl", it.path, shallow=False)
