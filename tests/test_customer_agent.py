"""The customer desk: all enquiries answered by rules, a few by a model, and what the store holds of it."""

from __future__ import annotations

import json
import mailbox
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from containers.fly_achensee_claude.scripted_model import Block, Step, answer, calls, says
from tests.agents import SECONDS, remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.containers import Container, Json, Session, contents_of, delivered, told_to_end
from tests.peers import eventually

NAME = "fly_achensee_customer"
ENQUIRIES = REPOSITORY / "containers" / NAME / "enquiries"
ALL = sorted(path.stem for path in ENQUIRIES.glob("*.eml"))


class Expected(NamedTuple):
    outcome: str
    language: str
    calls: list[str]  # the tools with what they were asked, in order
    answer: list[str]  # stands in the answer


def enquiry(language: str, calls: list[str], *answer: str) -> Expected:
    return Expected("enquiry", language, calls, [*answer])


EXPECTED = {
    "01-termin-zu-zweit": enquiry("de", ["free_places 2026-08-14 2"], "Am 14.8.2026 haben wir für 2 Personen Platz"),
    "02-how-much": enquiry("en", ["price thermal 2 True"], "€ 189 a person", "photos and video € 35", "€ 448 for 2"),
    "03-gewicht": enquiry("de", ["passenger_check 118"], "Mit 118 kg können wir leider nicht starten"),
    "04-kind": enquiry(
        "de", ["passenger_check 31 9", "price panorama 1 False"], "9 Jahren und 31 kg ist", "eines Elternteils", "139 €"
    ),
    "05-weather-tomorrow": enquiry(
        "en", ["house_rule cancelling", "house_rule weather"], "because of the weather you pay nothing", "6 pm"
    ),
    "06-gutschein-gueltig": enquiry("de", ["voucher ACH-2024-0117"], "ist gültig bis 31.12.2027"),
    "07-expired-voucher": enquiry(
        "en", ["free_places 2026-07-03 1", "voucher ACH-2022-0033"], "On July 3, 2026 we have room", "expired on"
    ),
    "08-ausgebucht": enquiry("de", ["free_places 2026-08-15 3"], "sind wir leider ausgebucht"),
    "09-past-date": enquiry("en", ["free_places 2026-04-12 2"], "April 12, 2026 is already past"),
    "10-hoehenangst": enquiry("de", ["house_rule clothing", "house_rule fear"], "feste Schuhe", "Höhenangst"),
    "11-pregnant": enquiry("en", ["house_rule health"], "We cannot take passengers who are pregnant"),
    "12-betriebsausflug": enquiry(
        "de",
        ["free_places 2026-09-04 8", "house_rule payment", "house_rule discount"],
        "höchstens 4 auf einmal",
        "Rechnung",
        "zehn Prozent",
    ),
    "13-abzocke": Expected("abusive", "de", [], ["In diesem Ton möchten wir nicht schreiben"]),
    "14-rank-higher": Expected("off_topic", "en", [], ["tandem paragliding flights are all that we do"]),
    "15-winter": enquiry("en", ["free_places 2026-12-27 2"], "our season is from April 15 to October 31"),
    "16-anreise": enquiry("de", ["house_rule meeting_point", "house_rule duration"], "Rofanseilbahn", "zwei Stunden"),
    "17-gift-voucher": enquiry(
        "en", ["price panorama 1 False", "house_rule voucher_terms", "house_rule payment"], "€ 139", "three years"
    ),
    "18-eingeloest": enquiry(
        "de", ["voucher ACH-2025-0420", "voucher ACH-2023-9999"], "bereits eingelöst", "ACH-2023-9999 finden wir nicht"
    ),
    "19-wind-and-light": enquiry(
        "en", ["passenger_check 19 5", "house_rule wind"], "at least 25 kg", "at least 6 years", "more than 25 km/h"
    ),
    "20-alles-auf-einmal": enquiry(
        "de",
        [
            "free_places 2026-07-02 4",
            "house_rule cancelling",
            "passenger_check 62 16",
            "house_rule safety",
            "passenger_check 62 16",
            "house_rule safety",
            "price thermal 4 True",
        ],
        "für 4 Personen Platz",
        "eines Elternteils",
        "haftpflichtversichert",
        "896 €",
        "kostenlos umbuchen oder stornieren",
    ),
}
SENT_BACK = ["04-kind", "20-alles-auf-einmal"]
"""A minor flies, and the first draft does not say that a parent has to consent: these are looked up anew."""


class Answered(NamedTuple):
    session: Session
    outbox: Path
    printed: str


@pytest.fixture(scope="module")
def answered(appliance: Appliance, http: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    """All twenty, in one pass."""
    folder = tmp_path_factory.mktemp("desk")
    ran = Container(NAME, folder, appliance.url, "desk", OUTBOX=folder / "outbox").run()
    assert (ran.returncode, ran.stderr) == (0, "")
    yield Answered(delivered(http, "desk", "completed"), folder / "outbox", ran.stdout)
    remove_spools(folder)


@pytest.fixture
def desk(appliance: Appliance, session_id: str, tmp_path: Path) -> Iterator[Container]:
    """With the first four enquiries, in a folder of its own."""
    chosen(tmp_path, ALL[:4])
    yield container(tmp_path, appliance.url, session_id)
    remove_spools(tmp_path)


def container(folder: Path, url: str, session_id: str, **settings: object) -> Container:
    places = {"ENQUIRIES": folder / "enquiries", "OUTBOX": folder / "outbox"}
    return Container(NAME, folder, url, session_id, **places, **settings)


def chosen(folder: Path, names: list[str]) -> None:
    (folder / "enquiries").mkdir(exist_ok=True)
    for name in names:
        shutil.copy(ENQUIRIES / f"{name}.eml", folder / "enquiries")


# ------------------------------------------------------------- what is answered


def test_every_enquiry_has_an_answer_in_the_outbox(answered: Answered) -> None:
    assert list(contents_of(answered.outbox)) == [f"{name}.eml" for name in EXPECTED]
    assert list(EXPECTED) == ALL and len(ALL) == 20


@pytest.mark.parametrize("name", EXPECTED)
def test_rules_decide_look_up_and_answer_as_expected(answered: Answered, name: str) -> None:
    expected = EXPECTED[name]
    asked = answered.session.calls_of("enquiry_begun")[name]
    if name == "04-kind":  # its passenger is looked up again for the second draft
        asked = asked[1:]
    said = [" ".join([it["tool"], *(str(value) for value in it["input"].values())]) for it in asked]
    text = message_from_bytes((answered.outbox / f"{name}.eml").read_bytes(), policy=policy.default).get_content()
    assert f"{name}: {expected.outcome}, answered in {name}.eml" in answered.printed.splitlines()
    assert said == expected.calls
    assert text.startswith({"de": "Guten Tag", "en": "Hello"}[expected.language])
    assert [part for part in expected.answer if part not in text] == []


def test_answers_are_mails_to_who_asked(answered: Answered) -> None:
    message = message_from_bytes((answered.outbox / "04-kind.eml").read_bytes(), policy=policy.default)
    assert (message["To"], message["Subject"]) == ("lechner.familie@post.example", "Re: Flug für unsere Tochter")
    assert message["In-Reply-To"] == message["References"] == "<kind.1148@post.example>"


def test_governor_sends_back_what_leaves_out_the_parents(answered: Answered) -> None:
    reviews = [
        entry["toolCalls"][0]["input"]["accepted"]
        for entry in answered.session.responses
        if entry["type"] == "model_result" and entry["agentId"] == "governor.review"
    ]
    assert reviews.count(False) == len(SENT_BACK)


# ------------------------------------------------------- what the store holds


def test_each_enquiry_is_a_goal_that_is_reached(answered: Answered) -> None:
    assert answered.session.goals() == dict.fromkeys(EXPECTED, "completed")
    assert answered.session.final is not None
    assert answered.session.final["outcome"] == "20 of 20 done, 0 failed"
    assert answered.session.state["progress"] == {"done": 20, "failed": 0, "known": 20}


def test_governor_and_specialists_are_linked_agents_that_completed(answered: Answered) -> None:
    agents = answered.session.agents()
    specialists = {"governor.booking", "governor.weather_and_safety", "governor.vouchers_and_prices"}
    assert specialists < agents.keys()
    assert {agent["status"] for agent in agents.values()} == {"completed"}
    assert {agent.get("parentAgentId") for name, agent in agents.items() if name != "governor"} == {"governor"}


def test_each_tool_call_has_its_result_and_its_specialist(answered: Answered) -> None:
    tools = [entry for entry in answered.session.actions if entry["type"] == "tool_call"]
    assert answered.session.unpaired_calls() == []
    assert answered.session.metadata["metrics"]["toolCalls"] == len(tools)
    assert {entry["agentId"] for entry in tools if entry["tool"] == "free_places"} == {"governor.booking"}


# ------------------------------------------- going on, and being without a store


@pytest.mark.long
def test_restart_goes_on_with_what_is_not_answered(desk: Container, http: httpx.Client, tmp_path: Path) -> None:
    session_id = desk.session_id
    with desk.running(PACE_SECONDS="0.5") as program:
        eventually(lambda: len(contents_of(tmp_path / "outbox")) == 2)
        assert told_to_end(program) == 0
    first = delivered(http, session_id, "cancelled")
    before = contents_of(tmp_path / "outbox")
    assert first.goals() == dict(zip(ALL[:4], ["completed", "completed", "pending", "pending"], strict=True))
    assert first.agents()["governor"]["status"] == "cancelled"
    assert desk.run().returncode == 0
    session = delivered(http, session_id, "completed")
    assert session.metadata["resumes"] == 1
    assert session.goals() == dict.fromkeys(ALL[:4], "completed")
    assert session.begun("enquiry_begun") == ALL[:4]
    after = contents_of(tmp_path / "outbox")
    assert {name: after[name] for name in before} == before and len(after) == 4


@pytest.mark.long
def test_killed_while_the_store_was_away_says_nothing_twice(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    """The one that takes over cannot ask the store what it has, and says it all again."""
    chosen(tmp_path, ALL[:4])
    desk = container(tmp_path, appliance.url, session_id)
    appliance.stop()
    try:
        with desk.running(PACE_SECONDS="0.5"):
            eventually(lambda: len(contents_of(tmp_path / "outbox")) == 2)
        assert desk.run().returncode == 0
        assert len(contents_of(tmp_path / "outbox")) == 4
    finally:
        appliance.start()
    session = delivered(http, session_id, "completed")
    assert session.goals() == dict.fromkeys(ALL[:4], "completed")
    assert not list((tmp_path / "spool").rglob("dead/*"))
    remove_spools(tmp_path)


def test_enquiry_that_comes_later_is_answered_too(desk: Container, http: httpx.Client, tmp_path: Path) -> None:
    with desk.running() as program:
        eventually(lambda: phase_of(http, desk.session_id) == "watching")
        chosen(tmp_path, ["13-abzocke"])
        eventually(lambda: (tmp_path / "outbox" / "13-abzocke.eml").exists())
        eventually(lambda: phase_of(http, desk.session_id) == "watching")
        assert told_to_end(program) == 0
    session = delivered(http, desk.session_id, "completed")
    assert session.goals() == dict.fromkeys([*ALL[:4], "13-abzocke"], "completed")


def phase_of(http: httpx.Client, session_id: str) -> str | None:
    answer = http.get(f"/api/state/{session_id}")
    return str(answer.json()["phase"]) if answer.status_code == 200 else None


def test_program_itself_knows_no_store_and_reads_a_mailbox_file(tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(REPOSITORY / "containers" / NAME, app, ignore=shutil.ignore_patterns("__pycache__", "outbox"))
    (app / "src" / "main_with_session.py").unlink()
    (app / "containers").mkdir()
    for name in ("email_message.py", "work_loop.py"):
        shutil.copy(REPOSITORY / "containers" / name, app / "containers")
    box = mailbox.mbox(tmp_path / "box")
    for name in ALL[:2]:
        box.add((ENQUIRIES / f"{name}.eml").read_bytes())
    box.close()
    env = {
        "PATH": "",
        "HOME": str(tmp_path),
        "PACE_SECONDS": "0",
        "KEEP_WATCHING": "0",
        "ENQUIRIES": str(tmp_path / "box"),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "src.main"], cwd=app, env=env, capture_output=True, text=True, timeout=SECONDS
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    subjects = [message_from_bytes(it, policy=policy.default)["Subject"] for it in contents_of(app / "outbox").values()]
    assert sorted(subjects) == ["Re: Price of a flight", "Re: Termin am 14. August"]


# ----------------------------------------------------------------- a real model


class Api:
    """A stand-in for the Messages API: what is said depends on the tools that are offered."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked: list[Json] = []

    def step(self, body: Json) -> Step:
        self.asked.append(body)
        tools = {tool["name"] for tool in body.get("tools", ())}
        if "Assignment" in tools:
            question = {"specialist": "booking", "text": "Are there two places on 14 August?"}
            return [calls("Assignment", kind="enquiry", language="de", questions=[question])]
        if "Review" in tools:
            return [calls("Review", accepted=True, remark="")]
        if "free_places" in tools:
            return self.specialist(body["messages"])
        return [says("Guten Tag Frau Huber, am 14. August ist Platz.")]

    def specialist(self, messages: list[Block]) -> Step:
        """Asks for what cannot be, then for what can, then writes."""
        spoken = sum(message["role"] == "assistant" for message in messages)
        days = ["the 14th", "2026-08-14"]
        return [calls("free_places", day=days[spoken], persons=2)] if spoken < 2 else [says("Am 14. August ist Platz.")]


@contextmanager
def serving(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = json.dumps(answer(api.step(body), body["model"])).encode()
            self.send_response(api.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *values: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.long
def test_claude_answers_where_there_is_a_key(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    chosen(tmp_path, ALL[:1])
    api = Api()
    with serving(api) as url:
        claude = {"ANTHROPIC_API_KEY": "none", "ANTHROPIC_BASE_URL": url, "ANTHROPIC_MODEL": "claude-test"}
        ran = container(tmp_path, appliance.url, session_id, **claude).run()
    assert (ran.returncode, ran.stderr) == (0, "")
    session = delivered(http, session_id, "completed")
    assert b"am 14. August ist Platz" in (tmp_path / "outbox" / f"{ALL[0]}.eml").read_bytes()
    assert [entry["type"] for entry in session.responses if entry["type"].startswith("tool_")] == [
        "tool_error",
        "tool_result",
    ]
    assert session.metadata["model"] == "claude-test"
    assert session.metadata["tokenUsage"]["total"] == 15 * len(api.asked) == 15 * 6
    remove_spools(tmp_path)


@pytest.mark.long
def test_enquiry_that_cannot_be_answered_is_told_as_failed_and_tried_again(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    chosen(tmp_path, ALL[:1])
    desk = container(tmp_path, appliance.url, session_id)
    with serving(Api(status=401)) as url:
        assert desk.run(ANTHROPIC_API_KEY="wrong", ANTHROPIC_BASE_URL=url).returncode == 1
    session = delivered(http, session_id, "failed")
    assert (session.goals(), contents_of(tmp_path / "outbox")) == ({ALL[0]: "failed"}, {})
    assert session.agents()["governor.assign"]["status"] == "failed"
    assert desk.run().returncode == 0
    assert delivered(http, session_id, "completed").goals() == {ALL[0]: "completed"}
    remove_spools(tmp_path)
