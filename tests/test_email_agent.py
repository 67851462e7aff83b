"""The mail pipeline: good mails and broken ones answered, by a real MCP server, and what the store holds of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

import httpx
import hypothesis
import pytest
from hypothesis import strategies as st
from mcp import Client, StdioServerParameters

from containers.email_message import Letter
from containers.email_solver.src.classification import classify
from containers.email_solver.src.outgoing import Outgoing
from tests.agents import SECONDS, remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.containers import Container, Json, Session, contents_of, delivered
from tests.imap import PASSWORD, UIDVALIDITY, USER, Imap
from tests.peers import eventually
from tests.repeats import examples

NAME = "email_solver"
HOME = REPOSITORY / "containers" / NAME
INBOX = HOME / "inbox" / "new"
ALL = sorted(path.stem for path in INBOX.glob("*.eml"))
OWN = "bergladen-achensee.example"

# Whom the answer goes to, and what stands in it.
EXPECTED: dict[str, tuple[str, str, str]] = {
    "01-wo-ist-mein-paket": ("order_status", "lena.maier@post.example", "BA-10234 ist seit 8.5.2026 unterwegs"),
    "02-order-status": ("order_status", "oliver.smith@mail.example", "BA-10251 is being packed"),
    "03-passwort": ("password_reset", "monika.kern@web.example", "„Passwort vergessen“"),
    "04-invoice": ("invoice_lookup", "emma.jones@mail.example", "has been paid, thank you"),
    "05-rechnung": ("invoice_lookup", "buchhaltung@alpenhof.example", "bis 31.5.2026 zu zahlen"),
    "06-umtausch": ("return_instructions", "sven.krueger@post.example", "innerhalb von 30 Tagen"),
    "07-shipping-uk": ("shipping_info", "harriet.cole@mail.example", "Great Britain takes 6-9 working days"),
    "08-lieferung-schweiz": ("shipping_info", "urs.meier@bluemail.example", "Dorthin versenden wir noch nicht"),
    "09-two-orders": ("order_status+password_reset", "giulia.conti@posta.example", "delayed, sorry"),
    "10-fremde-bestellung": ("order_status", "max@neugierig.example", "unter Ihrer E-Mail-Adresse nichts"),
    "11-delivered-not-here": ("order_status", "franz.berger@web.example", "bei den Nachbarn gefragt"),
    "12-beschwerde": ("open_ticket", "irmgard.wolf@post.example", "eine Kollegin persönlich an"),
    "13-job": ("open_ticket", "nadine.vogel@web.example", "A colleague will look into this"),
    "14-latin1-says-utf8": ("return_instructions", "joerg.baecker@web.example", "innerhalb von 30 Tagen"),
    "15-unknown-charset": ("password_reset", "piotr.nowak@poczta.example", "Forgot password"),
    "16-no-body": ("order_status", "rosa.lang@post.example", "Zu BA-10999 finden wir"),
    "17-nothing-at-all": ("ask_back", "someone@mail.example", "leer bei uns angekommen"),
    "18-html-only": ("shipping_info", "kathrin.bauer@web.example", "Nach Deutschland dauert"),
    "19-attachment": ("invoice_lookup", "emma.jones@mail.example", "R-2026-0790 of € 89.90"),
    "20-broken-multipart": ("return_instructions", "tim.sommer@web.example", "innerhalb von 30 Tagen"),
    "27-header-injection": ("order_status", "mallory@evil.example", "We find nothing for BA-10251"),
    "28-injection-in-the-sender": ("return_instructions", "eve@evil.example", "You can return anything"),
    "31-reply-to": ("order_status", "juergen.gross@post.example", "BA-10260 ist seit 12.5.2026"),
    "32-thread": ("shipping_info", "sven.krueger@post.example", "Nach Österreich dauert"),
    "34-no-message-id": ("password_reset", "paula.stein@post.example", "„Passwort vergessen“"),
    "35-kein-datum": ("open_ticket", "ali.demir@web.example", "eine Kollegin persönlich an"),
    "36-null-bytes": ("shipping_info", "zoe@null.example", "Italy takes 3-5 working days"),
    "37-injection-encoded-twice": ("open_ticket", "mallory@evil.example", "A colleague will look into this"),
}
UNANSWERED = {
    "21-bounce": "bounce",
    "22-bounce-without-report": "bounce",
    "23-out-of-office": "auto_reply",
    "24-old-vacation": "auto_reply",
    "25-newsletter": "newsletter",
    "26-same-again": "duplicate",
    "29-forged": "forged",
    "30-no-sender": "no_sender",
    "33-own-loop": "own",
}
HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted"}
HEADERS |= {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"}
STAGES = ["authenticate", "fetch", "classify", "solve", "reply"]


def container(folder: Path, url: str, session_id: str, **settings: object) -> Container:
    return Container(NAME, folder, url, session_id, **{"OUTGOING": folder / "outgoing", **settings})


def ledger_of(folder: Path) -> dict[str, Json]:
    lines = (folder / "outgoing" / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines})
    return {entry["key"]: entry for entry in map(json.loads, lines)}


def replies_in(folder: Path) -> dict[str, bytes]:
    return contents_of(folder / "outgoing" / "new")


def chosen(folder: Path, names: list[str]) -> Path:
    (folder / "inbox" / "new").mkdir(parents=True)
    for name in names:
        shutil.copy(INBOX / f"{name}.eml", folder / "inbox" / "new")
    return folder / "inbox"


class Answered(NamedTuple):
    session: Session
    folder: Path
    ledger: dict[str, Json]

    def reply(self, key: str) -> EmailMessage:
        raw = replies_in(self.folder)[self.ledger[key]["reply"]]
        return message_from_bytes(raw, policy=policy.default)


@pytest.fixture(scope="module")
def answered(appliance: Appliance, http: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    """All mails, in one pass."""
    folder = tmp_path_factory.mktemp("support")
    ran = container(folder, appliance.url, "support").run()
    assert (ran.returncode, ran.stderr) == (0, "")
    yield Answered(delivered(http, "support", "completed"), folder, ledger_of(folder))
    remove_spools(folder)


# ------------------------------------------------------------- what is answered


def test_every_mail_has_been_dealt_with(answered: Answered) -> None:
    assert len(ALL) == 37 and list(answered.ledger) == ALL == sorted([*EXPECTED, *UNANSWERED])
    assert {key: entry["category"] for key, entry in answered.ledger.items() if not entry["reply"]} == UNANSWERED
    assert len(replies_in(answered.folder)) == len(EXPECTED)


@pytest.mark.parametrize("key", EXPECTED)
def test_mail_is_classified_and_answered_as_expected(answered: Answered, key: str) -> None:
    category, to, text = EXPECTED[key]
    reply = answered.reply(key)
    assert (answered.ledger[key]["category"], reply["To"]) == (category, to)
    assert text in reply.get_content()


def test_answers_stand_in_the_thread_and_ask_programs_not_to_answer(answered: Answered) -> None:
    reply = answered.reply("32-thread")
    assert reply["In-Reply-To"] == "<thread@post.example>"
    assert reply["References"].split() == [
        "<umtausch@post.example>",
        f"<reply-1@{OWN}>",
        "<thread@post.example>",
    ]
    assert (reply["Subject"], reply["Auto-Submitted"]) == ("Re: Umtausch Regenjacke", "auto-replied")
    assert "In-Reply-To" not in answered.reply("34-no-message-id")


def test_no_mail_writes_headers_of_its_answer(answered: Answered) -> None:
    for key in EXPECTED:
        reply = answered.reply(key)
        assert set(reply.keys()) <= HEADERS
        assert len(reply["To"].addresses) == 1
    assert answered.reply("27-header-injection")["Subject"].startswith("Re: Order BA-10251 Bcc: everyone")
    assert answered.reply("28-injection-in-the-sender")["References"].count("<") == 3


FRAGMENTS = [
    *(b"\n" + name + b": " for name in (b"From", b"Reply-To", b"Subject", b"Message-ID", b"References", b"Bcc")),
    *(b"\nContent-Type: text/html\n", b"\nContent-Transfer-Encoding: base64\n", b"; charset=idna", b"; charset=\xe9"),
    *(b"=?utf-8?q?=0aBcc:x@y.example?=", b"=?utf-8?q?=3D=3Futf-8=3Fq=3F=0ABcc:x@y.example=3F=3D?="),
    *(b"=?utf-8?b?////?=", b"=?utf-7?q?+2AA-?=", b"a@b.example", b"\r\n ", b"\n\n", b"\x00", b"\xff", b"\xe2\x80\xa8"),
    *(bytes([character]) for character in b'<>(";'),
]


@hypothesis.settings(max_examples=examples(200))
@hypothesis.given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=30))
@hypothesis.example([b"=?utf-8?b?abcde?="])
@hypothesis.example([b"\nReply-To: " + b"(" * 3000])
@hypothesis.example([b"\nReply-To: =?utf-8?q?=0ABcc=3Ax?=@a.example\n"])
def test_nothing_in_a_mail_breaks_what_reads_it_or_comes_to_be_a_header(pieces: list[bytes]) -> None:
    letter = Letter.read(b"From: a@b.example\nSubject: " + b"".join(pieces))
    classify(letter, "support@example.org")
    outgoing = Outgoing(Path("/nowhere"), "Support", "support@example.org")
    raw = outgoing.reply_to(letter._replace(sender=letter.sender or "a@b.example"), "reply-1", "Yes").as_bytes()
    assert set(re.findall(rb"^([^\s:]+):", raw.partition(b"\n\n")[0], re.M)) <= {name.encode() for name in HEADERS}


# -------------------------------------------------------- what the store holds


def test_each_mail_is_a_goal_that_is_reached(answered: Answered) -> None:
    assert answered.session.goals() == dict.fromkeys(ALL, "completed")
    assert answered.session.begun("mail_begun") == ALL


def test_stages_are_linked_agents_that_completed(answered: Answered) -> None:
    agents = answered.session.agents()
    assert list(agents) == ["pipeline", *(f"pipeline.{stage}" for stage in STAGES)]
    assert {agent["status"] for agent in agents.values()} == {"completed"}
    assert {agent.get("parentAgentId") for name, agent in agents.items() if name != "pipeline"} == {"pipeline"}


def test_authentication_and_services_are_told(answered: Answered) -> None:
    (login,) = [entry for entry in answered.session.actions if entry["type"] == "authentication"]
    (start,) = [entry for entry in answered.session.actions if entry["type"] == "mcp_start"]
    (up,) = [entry for entry in answered.session.responses if entry["type"] == "support_up"]
    assert (login["account"], login["method"], start["server"]) == ("inbox", "maildir", "support")
    assert "order_status" in up["tools"]
    assert answered.session.state["services"]["mailbox"] == {"status": "up", "account": "inbox"}
    assert answered.session.state["services"]["support"]["status"] == "down"  # with the program


def test_tool_calls_are_of_the_mcp_server_and_have_their_results(answered: Answered) -> None:
    calls = answered.session.calls_of("mail_begun")
    tools = {key: "+".join(entry["tool"].removeprefix("mcp__support__") for entry in it) for key, it in calls.items()}
    assert tools == {key: EXPECTED[key][0] if key in EXPECTED else "" for key in ALL}
    assert answered.session.unpaired_calls() == []
    assert answered.session.metadata["metrics"]["mcpCalls"] == len([tool for it in calls.values() for tool in it])


# ------------------------------------------------------------- only once, always


def test_second_run_answers_nothing_again(answered: Answered, appliance: Appliance, http: httpx.Client) -> None:
    before = replies_in(answered.folder)
    assert container(answered.folder, appliance.url, "support-again").run().returncode == 0
    assert delivered(http, "support-again", "completed").goals() == {}
    assert replies_in(answered.folder) == before and ledger_of(answered.folder) == answered.ledger


@pytest.mark.long
def test_mail_is_answered_once_also_where_the_process_is_killed(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    solver = container(tmp_path, appliance.url, session_id, MAILDIR=chosen(tmp_path, ALL[:5]))
    with solver.running(PACE_SECONDS="0.5"):
        eventually(lambda: len(replies_in(tmp_path)) == 2)
    before, ledger = replies_in(tmp_path), tmp_path / "outgoing" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])  # as if it had been killed while it wrote down the last one
    assert solver.run().returncode == 0
    session = delivered(http, session_id, "completed")
    after = replies_in(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 5
    assert session.goals() == dict.fromkeys(ALL[:5], "completed")
    assert session.metadata["resumes"] == 1
    remove_spools(tmp_path)


@pytest.mark.long
def test_mail_that_no_help_was_to_be_had_for_is_answered_later(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    inbox = chosen(tmp_path, ["01-wo-ist-mein-paket", "03-passwort"])
    (tmp_path / "poor.toml").write_text((HOME / "knowledge.toml").read_text().replace("[orders.", "[lost."))
    solver = container(tmp_path, appliance.url, session_id, MAILDIR=inbox)
    assert solver.run(KNOWLEDGE=tmp_path / "poor.toml").returncode == 1
    session = delivered(http, session_id, "failed")
    assert session.goals() == {"01-wo-ist-mein-paket": "failed", "03-passwort": "completed"}
    assert next(entry["type"] for entry in session.responses if entry["type"].startswith("tool_")) == "tool_error"
    assert solver.run().returncode == 0
    assert delivered(http, session_id, "completed").goals() == dict.fromkeys(session.goals(), "completed")
    assert len(replies_in(tmp_path)) == 2
    remove_spools(tmp_path)


# ---------------------------------------------------------------- the MCP server


@pytest.mark.long
def test_support_server_that_dies_costs_one_mail_its_round(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    solver = container(tmp_path, appliance.url, session_id, MAILDIR=chosen(tmp_path, ALL[:5]))
    with solver.running(KEEP_WATCHING="0", PACE_SECONDS="0.5") as program:
        eventually(lambda: len(replies_in(tmp_path)) == 2)
        kill_child_of(program.pid)
        assert program.wait(SECONDS) == 1
    session = delivered(http, session_id, "failed")
    assert sorted(session.goals().values()) == ["completed", "completed", "failed", "pending", "pending"]
    assert session.state["services"]["support"]["status"] == "down"
    remove_spools(tmp_path)


def kill_child_of(pid: int) -> None:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)


def test_support_server_speaks_mcp_and_tells_nobody_of_the_orders_of_others(tmp_path: Path) -> None:
    async def talk() -> tuple[set[str], list[Json], bool]:
        environment = {"TICKETS": str(tmp_path / "tickets.jsonl")}
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "src.support_server"], cwd=HOME, env=environment
        )
        async with Client(server) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            order = {"order_number": "BA-10234", "language": "en"}
            answers = [
                await client.call_tool("order_status", {**order, "customer": "Lena.Maier@post.example"}),
                await client.call_tool("order_status", {**order, "customer": "max@neugierig.example"}),
                *[await client.call_tool("open_ticket", ticket) for _ in range(2)],
            ]
            refused = await client.call_tool("order_status", {"order_number": "BA-10234"})
            return tools, [dict(it.structured_content or {}) for it in answers], refused.is_error

    ticket = {"reference": "<1@a>", "customer": "a@b.example", "subject": "Help", "language": "en"}
    tools, (own, other, first, again), refused = asyncio.run(talk())
    assert tools >= {"order_status", "invoice_lookup", "password_reset", "open_ticket"}
    assert (own["status"], other["status"], refused) == ("shipped", "not_found", True)
    assert first == again and len((tmp_path / "tickets.jsonl").read_text().splitlines()) == 1


# -------------------------------------------------------------------------- IMAP


def imap_settings(port: int, password: str) -> dict[str, object]:
    return {"IMAP_HOST": "127.0.0.1", "IMAP_PORT": port, "IMAP_TLS": 0, "IMAP_USER": USER, "IMAP_PASSWORD": password}


@pytest.mark.long
def test_mails_of_an_imap_server_are_answered_and_stay_unseen(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    mails = [(INBOX / f"{name}.eml").read_bytes() for name in ("02-order-status", "03-passwort", "23-out-of-office")]
    with Imap(mails) as imap:
        ran = container(tmp_path, appliance.url, session_id, **imap_settings(imap.port, PASSWORD)).run()
        assert (ran.returncode, ran.stderr) == (0, "")
    session = delivered(http, session_id, "completed")
    assert list(ledger_of(tmp_path)) == [f"imap-{UIDVALIDITY}-{uid}" for uid in imap.mails]
    assert len(replies_in(tmp_path)) == 2
    assert session.state["services"]["mailbox"] == {"status": "up", "account": f"{USER}@127.0.0.1"}
    assert not [command for command in imap.commands if command.upper().startswith(("SELECT", "UID STORE"))]
    remove_spools(tmp_path)


@pytest.mark.long
def test_refused_login_is_told_and_ends_a_single_pass(
    appliance: Appliance, http: httpx.Client, session_id: str, tmp_path: Path
) -> None:
    with Imap([]) as imap:
        ran = container(tmp_path, appliance.url, session_id, **imap_settings(imap.port, "wrong horse")).run()
    session = delivered(http, session_id, "failed")
    assert ran.returncode == 1 and "wrong name or password" in ran.stderr
    assert session.state["services"]["mailbox"]["status"] == "down"
    assert "wrong horse" not in json.dumps([session.state, session.actions, session.responses])
    remove_spools(tmp_path)
