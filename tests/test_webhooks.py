"""Webhooks: who is told of sessions, of what, in which order, how often, and how it is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.upkeep.messages import message
from sessionstore.upkeep.notices import Notice
from sessionstore.upkeep.positions import MOST_HELD, Position
from sessionstore.webhook_targets import Target, targets
from tests.agents import Json
from tests.appliance import REPOSITORY, Appliance
from tests.badlink import Fake, Posted
from tests.peers import eventually
from tests.test_settings import start

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver(Fake):
    """Takes what it is sent, once the answers that it has first are used up."""

    def __init__(self, *first: Callable[[Posted], None]) -> None:
        self.first = list(first)
        super().__init__(self.answered)

    def answered(self, posted: Posted) -> None:
        if self.first:
            self.first.pop(0)(posted)
        else:
            posted.answer(204, b"")

    @property
    def told(self) -> list[Json]:
        return [json.loads(body) for body in self.posted]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers in self.headers]


def answers(status: int, **headers: str) -> Callable[[Posted], None]:
    return lambda posted: posted.answer(status, b"{}", **headers)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def settings(tmp_path: Path, *webhooks: Json) -> dict[str, str]:
    file = tmp_path / "webhooks.json"
    file.write_text(json.dumps(list(webhooks)))
    return {"SESSIONS_WEBHOOKS": str(file), "SESSIONS_PUBLIC_URL": "https://sessions.example.com/"}


def ask(http: httpx.Client, session: str, message: str = "May I?") -> None:
    """The session waits for a person."""
    attention = {"reason": "permission", "tool": "Bash", "message": message}
    answer = http.post(f"/api/actions/{session}", json={"type": "permission_request", "attention": attention})
    assert answer.status_code == 200


def go_on(http: httpx.Client, session: str) -> None:
    assert http.post(f"/api/actions/{session}", json={"type": "prompt"}).status_code == 200


def fail(http: httpx.Client, session: str, outcome: str = "It broke") -> None:
    http.post(f"/api/actions/{session}", json={"type": "a"})
    answer = http.post(f"/api/sessions/{session}/finalize", json={"status": "failed", "outcome": outcome})
    assert answer.status_code == 200


def shown(http: httpx.Client) -> Json:
    """The only webhook, as the API has it."""
    (webhook,) = http.get("/api/webhooks").json()["items"]
    return dict(webhook)


def served(stack: ExitStack, folder: Path, env: dict[str, str]) -> tuple[Appliance, httpx.Client]:
    server = stack.enter_context(Appliance(folder, env))
    return server, stack.enter_context(httpx.Client(base_url=server.url))


# ------------------------------------------------------------------- what is told


def test_a_session_that_waits_fails_or_is_lost_is_told_of(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    env = settings(tmp_path, {"url": receiver.url}) | {"SESSIONS_LOST_AFTER": "2"}
    _, http = served(stack, folder, env)
    http.put("/api/sessions/quiet", json={"userId": "alice"})
    ask(http, "asking")
    fail(http, "failing")
    http.post("/api/actions/fine", json={"type": "a"})
    http.post("/api/sessions/fine/finalize", json={})
    eventually(lambda: len(receiver.told) == 3)
    waiting, failed, lost = receiver.told
    assert waiting["type"] == "session.waiting" and waiting["timestamp"].endswith("Z")
    assert waiting["data"] == {
        "sessionId": "asking",
        "userId": "unknown",
        "cursor": waiting["data"]["cursor"],
        "message": "May I?",
        "reason": "permission",
        "tool": "Bash",
        "url": "https://sessions.example.com/#/session/asking",
    }
    assert (failed["type"], failed["data"]["message"]) == ("session.failed", "It broke")
    assert (lost["type"], lost["data"]["sessionId"], lost["data"]["userId"]) == ("session.lost", "quiet", "alice")


def test_one_is_told_only_of_what_it_asks_for_and_once(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    _, http = served(stack, folder, settings(tmp_path, {"url": receiver.url, "on": ["waiting"]}))
    fail(http, "failing")
    ask(http, "asking")
    ask(http, "asking", "May I now?")  # it waits already
    go_on(http, "asking")
    ask(http, "asking", "And again?")
    eventually(lambda: len(receiver.told) == 2)
    ask(http, "last")
    eventually(lambda: len(receiver.told) == 3)
    assert [told["data"]["message"] for told in receiver.told] == ["May I?", "And again?", "May I?"]
    assert len(set(receiver.ids)) == 3


@pytest.mark.long
def test_a_session_of_which_nothing_is_heard_is_told_of_once(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    hook = {"url": receiver.url, "on": [], "rules": {"noProgressMinutes": 0.02}}
    server, http = served(stack, folder, settings(tmp_path, hook))
    http.post("/api/actions/still", json={"type": "a"})
    ask(http, "asking")  # it is silent for a good reason
    eventually(lambda: len(receiver.told) == 1)
    server.stop()
    server.start()
    time.sleep(0.5)
    http.post("/api/actions/still", json={"type": "a"})
    eventually(lambda: len(receiver.told) == 2)
    assert [(told["type"], told["data"]["sessionId"]) for told in receiver.told] == [("session.quiet", "still")] * 2
    assert len(set(receiver.ids)) == 2


def call(http: httpx.Client, session: str, command: str, number: int) -> None:
    entry = {"type": "tool_call", "tool": "Bash", "input": {"command": command}, "toolUseId": f"toolu_{number}"}
    assert http.post(f"/api/actions/{session}", json=entry).status_code == 200


def test_a_session_that_goes_in_circles_is_told_of(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    hook = {"url": receiver.url, "on": [], "rules": {"sameCallTimes": 3}}
    server, http = served(stack, folder, settings(tmp_path, hook))
    for number, command in enumerate(["make", "make", "ls", "make", "make"]):
        call(http, "circling", command, number)
        call(http, "other", f"{command} {number}", number)
    server.stop()
    server.start()  # what came before it is not forgotten
    for number in range(5, 8):
        call(http, "circling", "make", number)
    eventually(lambda: len(receiver.told) == 1)
    call(http, "circling", "ls", 8)
    for number in range(9, 12):
        call(http, "circling", "make", number)
    eventually(lambda: len(receiver.told) == 2)
    for told in receiver.told:
        assert (told["type"], told["data"]["sessionId"]) == ("session.repeating", "circling")
        assert (told["data"]["tool"], told["data"]["times"]) == ("Bash", 3)


def test_slack_is_told_in_its_own_form(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    _, http = served(stack, folder, settings(tmp_path, {"url": f"{receiver.url}/T0/B0", "format": "slack"}))
    ask(http, "asking", "Is 1 < 2 & <!channel>?")
    eventually(lambda: receiver.told)
    assert receiver.told[0] == {
        "text": "*waiting* <https://sessions.example.com/#/session/asking|asking> (unknown): "
        "Is 1 &lt; 2 &amp; &lt;!channel&gt;?"
    }


def test_what_is_told_is_fit_for_people_and_makes_nobody_dial(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    dialed: list[Posted] = []
    elsewhere = stack.enter_context(Receiver(*[dialed.append] * 9))
    there = f"{elsewhere.url}/a.png"
    slack, plain, chat = (stack.enter_context(Receiver(*first)) for first in ((), (), [answers(307, Location=there)]))
    hooks = [{"url": slack.url, "format": "slack", "name": "slack"}, {"url": plain.url}, messenger(chat)]
    _, http = served(stack, folder, settings(tmp_path, *hooks))
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    dialing = f"{there} ![]({there}) attach={there} json://127.0.0.1:{elsewhere.port} "
    dialing += "x" * (489 - len(dialing))
    ask(http, "asking", "\x1b[31mMay\x1b[0m I\b \u202e?\r\n" + dialing + family + "y" * 100)
    eventually(lambda: slack.told and plain.told and len(chat.told) == 2)
    end = f"May I\u2408 ?\n{dialing}\u2026"
    assert slack.told[0]["text"].endswith(end)
    assert plain.told[0]["data"]["message"].endswith(end)
    assert end in chat.told[1]["message"]
    assert not dialed
    with suppress(httpx.HTTPError):
        httpx.get(there, timeout=0.2)
    assert len(dialed) == 1  # it would have been seen


# --------------------------------------------------------------------- messengers


def messenger(receiver: Receiver, **more: Any) -> Json:
    """As apprise has it: each POST is a JSON object with `title` and `message`."""
    return {"name": "chat", "apprise": f"json://127.0.0.1:{receiver.port}/s3cret-path", "atMost": "0s"} | more


def texts(receiver: Receiver) -> list[str]:
    return [f"{told['title']}\n{told['message']}" for told in receiver.told]


def answer(http: httpx.Client, folder: Path, session: str) -> None:
    """As who has the token of the control role, once somebody waits for it."""
    (open_ask,) = http.get("/api/asks", params={"sessionId": session}).json()["items"]
    poll = {"ask": open_ask["askId"], "wait": 0}
    assert http.post(f"/api/sessions/{session}/control", json=poll).status_code in (200, 204)
    token = (folder / "tokens" / "control").read_text().strip()
    said = http.post(
        f"/api/asks/{open_ask['askId']}/answer",
        json={"decision": "allow"},
        headers={"authorization": f"Bearer {token}"},
    )
    assert said.status_code == 200, said.text


def test_a_messenger_is_told_of_an_ask_and_of_its_end(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver, signed, plain = (stack.enter_context(Receiver()) for _ in range(3))
    hooks = [
        messenger(receiver, on=["waiting", "answered"]),
        {"url": signed.url, "name": "signed", "on": ["answered", "waiting"]},
        {"url": plain.url, "name": "plain"},
    ]
    server, http = served(stack, folder, settings(tmp_path, *hooks))
    ask(http, "one", "May I @everyone?\x1b[31m " + "x" * 3000)
    eventually(lambda: len(receiver.posted) == 1)
    (one,) = http.get("/api/asks").json()["items"]
    title, message, link = texts(receiver)[0].split("\n")
    assert title == "one waits for a person"
    assert message.startswith("unknown: May I @\u200beveryone? xxx") and len(message) < 600
    assert link == f"https://sessions.example.com/#/?ask={one['askId']}"
    answer(http, folder, "one")
    eventually(lambda: len(receiver.posted) == 2)
    assert texts(receiver)[1].startswith("one no longer waits\nunknown: Answered by control: May I")
    ask(http, "two", "And I?")
    eventually(lambda: is_kept(shown_as(http, "chat"), 3) and is_kept(shown_as(http, "signed"), 3))
    server.kill()
    server.start()  # how it ends is still told to who was told
    go_on(http, "two")
    eventually(lambda: len(receiver.posted) == 4)
    assert texts(receiver)[3].startswith("two no longer waits\nunknown: No longer waits: And I?\n")
    ask(http, "three", "Last?")
    eventually(lambda: len(receiver.posted) == 5)
    assert "Last?" in texts(receiver)[4]  # and once
    eventually(lambda: len(signed.told) == 5)
    ends = [told["data"] for told in signed.told if told["type"] == "session.answered"]
    assert [(end["status"], end["answeredBy"]) for end in ends] == [("answered", "control"), ("closed", None)]
    assert (ends[0]["askId"], ends[1]["message"]) == (one["askId"], "No longer waits: And I?")
    assert {told["type"] for told in plain.told} == {"session.waiting"}  # who did not ask for it
    chat = shown_as(http, "chat")
    assert "s3cret" not in server.output + json.dumps(chat) + http.get("/metrics").text
    assert (chat["place"], chat["format"]) == ("json://", "apprise")


def at_three(part_of_day: str) -> dict[str, str]:
    """A time zone in which it is about three o'clock, in the morning or in the afternoon."""
    ahead = ({"am": 3, "pm": 15}[part_of_day] - time.gmtime().tm_hour + 11) % 24 - 11
    return {"TZ": f"HERE{-ahead:+d}"}


def test_in_quiet_hours_only_what_is_urgent_is_told(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    """The rest at their end, as it stands then, and whatever happened to the server meanwhile."""
    receiver = stack.enter_context(Receiver())
    hook = messenger(receiver, quiet="22:30-12:00", urgent=["failed"])
    server, http = served(stack, folder, settings(tmp_path, hook) | at_three("am"))
    for session in ("one", "two", "gone"):
        ask(http, session, f"May I, {session}?")
    fail(http, "broken")
    kept = folder / ".webhooks.json"
    eventually(lambda: receiver.posted and len(json.loads(kept.read_text())["chat"]["held"]) == 3)
    assert [text.split("\n")[0] for text in texts(receiver)] == ["broken failed"]
    go_on(http, "two")
    assert http.delete("/api/sessions/gone").is_success
    assert "May I" not in kept.read_text()
    server.kill()
    _, http = served(stack, folder, settings(tmp_path, hook) | at_three("pm"))
    eventually(lambda: len(receiver.posted) == 2)
    title, *lines = texts(receiver)[1].split("\n")
    assert title == "2 notices of sessions"
    assert lines[0].startswith("• one waits for a person: May I, one? https://sessions.example.com/#/?ask=")
    assert lines[1:] == [
        "• two no longer waits: No longer waits: May I, two? https://sessions.example.com/#/session/two"
    ]
    go_on(http, "one")
    eventually(lambda: len(receiver.posted) == 3)
    assert texts(receiver)[2].startswith("one no longer waits\n")
    eventually(lambda: shown(http)["held"] == 0)  # once the receiver's answer has come


def test_what_comes_soon_after_is_told_at_once_later(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    """With a count, also when the server is killed before, or it is not taken at first; a webhook has all of it."""
    receiver, other = stack.enter_context(Receiver()), stack.enter_context(Receiver())
    hooks = [messenger(receiver, atMost="2s"), {"url": other.url, "name": "signed", "secret": SECRET, "atMost": "2s"}]
    server, http = served(stack, folder, settings(tmp_path, *hooks))
    ask(http, "first")
    eventually(lambda: len(receiver.posted) == len(other.posted) == 1)
    for number in range(12):
        ask(http, f"next-{number}", "May I? " + "x" * 300)
    eventually(lambda: [hook["held"] for hook in http.get("/api/webhooks").json()["items"]] == [12, 12])
    receiver.first.append(answers(503))
    server.kill()
    server.start()
    eventually(lambda: len(receiver.posted) == 3 and len(other.posted) == 2)
    assert texts(receiver)[0].startswith("first waits for a person\n")
    assert receiver.times[1] - receiver.times[0] > 1.7 and other.times[1] - other.times[0] > 1.7
    title, *lines = texts(receiver)[2].split("\n")
    shown_lines = [line for line in lines if line.startswith("• next-")]
    assert title == "12 notices of sessions" and 2 < len(shown_lines) < 12 and len("\n".join(lines)) < 1200
    assert lines[len(shown_lines) :] == [f"and {12 - len(shown_lines)} more", "https://sessions.example.com"]
    digest = other.told[1]
    assert (digest["type"], digest["data"]["count"]) == ("digest", 12)
    assert [item["data"]["sessionId"] for item in digest["data"]["items"]] == [f"next-{number}" for number in range(12)]
    assert is_signed(other.headers[1], other.posted[1], KEY)
    eventually(lambda: shown_as(http, "chat")["delivered"] == 1)
    assert "s3cret" not in server.output


def said_of(receiver: Receiver) -> list[tuple[str, str]]:
    """What it was told of which session, in digests or alone."""
    items = [item for told in receiver.told for item in told["data"].get("items", [told])]
    return [(item["type"], item["data"]["sessionId"]) for item in items]


@pytest.mark.long
def test_nothing_is_lost_by_kills_and_nothing_told_twice_for_each(
    stack: ExitStack, folder: Path, tmp_path: Path
) -> None:
    receiver, kills = stack.enter_context(Receiver()), 8
    hook = {"url": receiver.url, "on": ["waiting", "answered"], "atMost": "1s"}
    server, http = served(stack, folder, settings(tmp_path, hook))
    for number in range(kills):
        for part in range(5):
            ask(http, f"{number}-{part}")
            time.sleep(0.3 * ((number * 5 + part) % 7) / 7)
        go_on(http, f"{number}-0")
        server.kill()
        server.start()
    everything = {("session.waiting", f"{number}-{part}") for number in range(kills) for part in range(1, 5)}
    everything |= {("session.answered", f"{number}-0") for number in range(kills)}
    eventually(lambda: everything <= set(said_of(receiver)))
    said = said_of(receiver)
    assert len(receiver.ids) - len(set(receiver.ids)) <= kills
    assert len(said) - len(set(said)) <= 6 * kills  # a digest that was taken as its server died


def shown_as(http: httpx.Client, name: str) -> Json:
    return next(hook for hook in http.get("/api/webhooks").json()["items"] if hook["name"] == name)


def test_more_than_are_held_are_counted() -> None:
    def notice(cursor: int) -> Notice:
        return Notice(
            cursor=cursor, type="session.failed", session_id="one", user_id="ann", timestamp="", message="It broke"
        )

    position = Position(0)
    for cursor in range(MOST_HELD + 100):
        position.hold([notice(cursor)])
    assert (len(position.held), position.more, position.held[-1].cursor) == (MOST_HELD, 100, MOST_HELD + 99)
    told = message([notice(1), notice(2)], 100, Target(apprise="ntfys://topic"), None)
    assert (told.title, told.shown) == ("102 notices of sessions", 2) and told.body.endswith("It broke\nand 100 more")


def test_the_manual_shows_what_works(tmp_path: Path) -> None:
    said = (REPOSITORY / "docs/operating.md").read_text().partition("## Webhooks")[2]
    (tmp_path / "webhook").write_text(SECRET)
    (tmp_path / "slack").write_text("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    (mail,) = re.findall(r"mailtos:\S+", said)
    (tmp_path / "mail").write_text(mail)
    file = tmp_path / "webhooks.toml"
    file.write_text(said.partition("```toml")[2].partition("```")[0].replace("/run/secrets", str(tmp_path)))
    assert [target.place for target in targets(str(file))] == [
        "https://ops.example.com",
        "ntfys://",
        "https://",
        "mailtos://",
    ]


@pytest.mark.parametrize("is_file", [False, True])
def test_without_apprise_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool) -> None:
    """And whoever names no messenger does not need it."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    (tmp_path / "secret").write_text("ntfys://s3cret-topic\n")
    entry = {"appriseFile": str(tmp_path / "secret")} if is_file else {"apprise": "ntfys://s3cret-topic"}
    with pytest.raises(ValueError) as error:
        targets(settings(tmp_path, entry)["SESSIONS_WEBHOOKS"])
    assert "pip install 'session-store[notify]'" in str(error.value) and "s3cret" not in str(error.value)
    plain = [{"url": "http://a"}, {"url": "https://hooks.slack.com/services/T0/B0/x", "format": "slack"}]
    assert [target.at_most for target in targets(settings(tmp_path, *plain)["SESSIONS_WEBHOOKS"])] == ["0s", "0s"]


def test_a_messenger_is_told_once_a_minute_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    url = "ntfys://s3cret-topic"
    entries: list[Json] = [{"apprise": url, "name": "a"}, {"apprise": url, "name": "b", "atMost": "2h", "on": ["lost"]}]
    first, second = targets(settings(tmp_path, *entries)["SESSIONS_WEBHOOKS"])
    assert (first.at_most_seconds, first.on) == (60, ("waiting", "lost", "failed", "budget", "answered"))
    assert (second.at_most_seconds, second.on) == (7200, ("lost",))


# ---------------------------------------------------------------------- signature


def is_signed(headers: dict[str, str], body: bytes, key: bytes) -> bool:
    """As a receiver does it, by the text of Standard Webhooks."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split()


def test_what_is_told_is_signed(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver, plain = stack.enter_context(Receiver()), stack.enter_context(Receiver())
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    hooks = [{"url": receiver.url, "secretFile": str(tmp_path / "secret")}, {"url": plain.url}]
    _, http = served(stack, folder, settings(tmp_path, *hooks))
    ask(http, "asking")
    eventually(lambda: receiver.told and plain.told)
    (headers,), (body,) = receiver.headers, receiver.posted
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert is_signed(headers, body, KEY)
    assert not is_signed(headers, body.replace(b"May", b"Can"), KEY)
    assert not is_signed(headers | {"webhook-timestamp": "1"}, body, KEY)
    assert not is_signed(headers, body, KEY[::-1])
    assert "webhook-signature" not in plain.headers[0]


# ------------------------------------------------------------- order and attempts


def test_each_is_told_in_order_until_it_takes_it(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    """Whatever goes wrong with the first notice, and however well another target is doing."""
    at_once = {"Retry_After": "0"}
    wrongs = [lambda posted: posted.drop(), answers(500, **at_once), answers(429, **at_once)]
    wrongs.append(answers(302, Location="/elsewhere", **at_once))
    receiver, other = stack.enter_context(Receiver(*wrongs)), stack.enter_context(Receiver())
    hooks = [{"url": receiver.url, "name": "first"}, {"url": other.url, "name": "second"}]
    _, http = served(stack, folder, settings(tmp_path, *hooks))
    for number in range(3):
        ask(http, f"session-{number}")
    eventually(lambda: len(other.told) == 3)
    eventually(lambda: len(receiver.told) == 7)
    sessions = [told["data"]["sessionId"] for told in receiver.told]
    assert sessions == ["session-0"] * 5 + ["session-1", "session-2"]
    assert len(set(receiver.posted[:5])) == len(set(receiver.ids[:5])) == 1
    eventually(
        lambda: {
            'sessionstore_webhook_attempts_total{result="failed",target="first"} 4.0',
            'sessionstore_webhook_attempts_total{result="delivered",target="first"} 3.0',
            'sessionstore_webhook_failures{target="first"} 0.0',
        }.issubset(http.get("/metrics").text.splitlines())
    )


@pytest.mark.long
def test_one_who_does_not_answer_is_asked_again(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    def drip(posted: Posted) -> None:
        """An answer that would never end, though something comes all the time."""
        for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
            posted._handler.wfile.write(bytes([letter]))
            time.sleep(0.05)

    receiver = stack.enter_context(Receiver(lambda posted: time.sleep(1.5), drip))
    _, http = served(stack, folder, settings(tmp_path, {"url": receiver.url, "timeoutSeconds": 0.5}))
    ask(http, "asking")
    begun = time.monotonic()
    ask(http, "another")
    assert time.monotonic() - begun < 5  # nobody who writes waits for it
    eventually(lambda: len(receiver.told) == 4)
    assert receiver.ids[0] == receiver.ids[1] == receiver.ids[2] != receiver.ids[3]


def test_a_notice_that_is_refused_for_good_keeps_no_other_waiting(
    stack: ExitStack, folder: Path, tmp_path: Path
) -> None:
    receiver = stack.enter_context(Receiver(answers(422)))
    _, http = served(stack, folder, settings(tmp_path, {"url": receiver.url}))
    ask(http, "refused")
    ask(http, "taken")
    eventually(lambda: shown(http)["delivered"] == 1)
    assert [told["data"]["sessionId"] for told in receiver.told] == ["refused", "taken"]
    assert shown(http)["refused"] == 1


# ----------------------------------------------------------------------- restarts


def is_kept(webhook: Json, number: int) -> bool:
    """Whether so many were delivered since the start, and that on disk too."""
    return (webhook["delivered"], webhook["pending"]) == (number, 0)


def test_what_was_pending_is_told_after_a_kill(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver(*[answers(503)] * 1000))
    server, http = served(stack, folder, settings(tmp_path, {"url": receiver.url}))
    ask(http, "first")
    fail(http, "second")
    eventually(lambda: receiver.told)
    eventually(lambda: shown(http)["pending"] == 2)
    server.kill()
    tried = set(receiver.ids)
    before = len(receiver.posted)
    receiver.first.clear()
    server.start()
    eventually(lambda: shown(http)["delivered"] == 2)
    # By id: what the killed one had under way may arrive late, and is told again then.
    told = {id: told["data"]["sessionId"] for id, told in list(zip(receiver.ids, receiver.told, strict=True))[before:]}
    assert list(told.values()) == ["first", "second"]
    assert next(iter(told)) in tried
    eventually(lambda: shown(http)["pending"] == 0)


def test_what_was_told_is_not_told_again(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver())
    server, http = served(stack, folder, settings(tmp_path, {"url": receiver.url}))
    for number in range(3):
        ask(http, f"before-{number}")
    eventually(lambda: is_kept(shown(http), 3))
    for number in range(2):
        server.stop() if number else server.kill()
        server.start()
        ask(http, f"after-{number}")
        eventually(lambda: is_kept(shown(http), 1))
    sessions = [told["data"]["sessionId"] for told in receiver.told]
    assert sessions == ["before-0", "before-1", "before-2", "after-0", "after-1"]


def test_a_new_target_is_told_of_nothing_old(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    with Appliance(folder) as server, httpx.Client(base_url=server.url) as http:
        ask(http, "old")
    receiver = stack.enter_context(Receiver())
    _, http = served(stack, folder, settings(tmp_path, {"url": receiver.url}))
    ask(http, "new")
    eventually(lambda: receiver.told)
    assert [told["data"]["sessionId"] for told in receiver.told] == ["new"]


def test_the_end_of_the_server_waits_for_nobody(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    slow = [stack.enter_context(Receiver(lambda posted: time.sleep(8))) for _ in range(2)]
    server, http = served(stack, folder, settings(tmp_path, {"url": slow[0].url}, messenger(slow[1])))
    ask(http, "asking")
    eventually(lambda: all(receiver.posted for receiver in slow))
    assert server.stop().seconds < 6
    assert not (folder / "sessions.db-wal").exists()


# ------------------------------------------------------------------ what is shown


def test_neither_secrets_nor_paths_are_shown(stack: ExitStack, folder: Path, tmp_path: Path) -> None:
    receiver = stack.enter_context(Receiver(*[answers(500, Retry_After="0")] * 3))
    url = receiver.url.replace("http://", "http://me:s3cret-login@") + "/s3cret-path?key=s3cret-query"
    server, http = served(stack, folder, settings(tmp_path, {"url": url, "secret": "s3cret-signature"}))
    ask(http, "asking")
    eventually(lambda: shown(http)["delivered"] == 1)
    assert shown(http)["place"] == receiver.url
    everywhere = server.output + http.get("/metrics").text + json.dumps(shown(http))
    assert server.said("it answers 500") and "s3cret" not in everywhere
    assert receiver.tokens[0] == f"Basic {base64.b64encode(b'me:s3cret-login').decode()}"


BAD: list[tuple[str, Any, list[str]]] = [
    ("json", "[{", ["line 1"]),
    ("toml", "[[webhooks]]\nurl = ?\n", ["line 2"]),
    ("json", {"hooks": []}, ["webhooks"]),
    ("json", [{"url": "http://a"}, {"url": "ftp://a"}], ["webhook 2", "url"]),
    ("json", [{"url": "http://a", "on": ["waiting", "lots"]}], ["webhook 1", "$.on[1]"]),
    ("json", [{"url": "http://a", "event": []}], ["webhook 1", "event"]),
    ("json", [{"url": "http://a", "rules": {"sameCallTimes": 1}}], ["webhook 1", "$.rules.sameCallTimes"]),
    ("json", [{"url": "http://a", "secret": "whsec_%"}], ["webhook 1", "secret"]),
    ("json", [{"url": "http://a", "secretFile": "/nowhere/secret"}], ["webhook 1", "secretFile", "/nowhere/secret"]),
    ("json", [{"name": "a"}], ["webhook 1", "url, apprise or appriseFile"]),
    ("json", [{"url": "http://a", "apprise": "ntfys://topic"}], ["webhook 1", "url, apprise or appriseFile"]),
    ("json", [{"apprise": "nonsense://topic"}], ["webhook 1", "apprise knows no messenger"]),
    ("json", [{"apprise": "ntfys://topic", "secret": "12345678"}], ["webhook 1", "secret and format"]),
    ("json", [{"url": "http://a", "quiet": "22-7"}], ["webhook 1", "$.quiet"]),
    ("json", [{"url": "http://a", "atMost": "soon"}], ["webhook 1", "$.atMost"]),
    ("json", [{"url": "http://a", "name": "a"}, {"url": "http://b", "name": "a"}], ["'a'"]),
]


@pytest.mark.parametrize(("suffix", "content", "words"), BAD)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(
    tmp_path: Path, suffix: str, content: Any, words: list[str]
) -> None:
    file = tmp_path / f"webhooks.{suffix}"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError) as error:
        targets(str(file))
    assert all(word in str(error.value) for word in [str(file), *words]), error.value


def test_it_stops_the_start_of_the_server(tmp_path: Path, folder: Path) -> None:
    ended, _ = start(settings(tmp_path, {"url": "http://a", "on": ["never"]}), folder)
    assert ended.returncode == 1 and ended.stderr.startswith("session store: SESSIONS_WEBHOOKS="), ended
    assert "webhook 1" in ended.stderr and "$.on[0]" in ended.stderr
    assert not folder.exists()


def test_the_file_may_be_toml(tmp_path: Path) -> None:
    file = tmp_path / "webhooks.toml"
    file.write_text(
        '[[webhooks]]\nurl = "https://example.com/x"\non = ["failed"]\n[webhooks.rules]\nsameCallTimes = 4\n'
    )
    (target,) = targets(str(file))
    assert (target.on, target.rules.same_call_times, target.place) == (("failed",), 4, "https://example.com")
