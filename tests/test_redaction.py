"""Secrets are taken out of what is said: in the agents before it is spooled, in the server before it is stored."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hook_agent
from hook_agent import Redaction, has_reason
from sessionstore.model import redaction
from sessionstore.model.folds import decode, encode
from sessionstore.model.redaction import Redactor
from sessionstore.web.gate import COOKIE
from sessionstore.web.logins import make_cookie
from sessionstore.web.tokens import make_token
from tests.agents import Json, command, environment, hook, run, spool_in, waiting_in
from tests.appliance import REPOSITORY, Appliance
from tests.repeats import examples
from tests.test_settings import start

CORPUS = REPOSITORY / "tests/corpus/claude-code-hooks-2.1.330.jsonl"
PEM = "-----BEGIN {0}PRIVATE KEY-----\n{1}MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF0DQ\nk7v==\n-----END {0}PRIVATE KEY-----"
HEADERS = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n"
GITHUB = "ghp_" + "a1B2" * 9
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
JWT = ".".join(("eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"))
TOKEN = "sst_" + "a1B2-_D4" * 4
LOGIN = "a1b2c3d4" * 8
# Put together here, so that nobody who looks for secrets finds this file.

FOUND = [
    (AWS, "[redacted:aws]"),
    (f"key {AWS}, in words", "key [redacted:aws], in words"),
    (GITHUB, "[redacted:github]"),
    ("github_pat_" + "11ABC_" * 5, "[redacted:github]"),
    ("glpat-" + "x1Y2z" * 4, "[redacted:gitlab]"),
    ("sk-ant-" + "api03-a1B2c3D4-e5F6_g7", "[redacted:anthropic]"),
    ("sk-" + "a1B2c3D4" * 6, "[redacted:openai]"),
    ("sk-proj-" + "a1-B2_c3D4e5" * 4, "[redacted:openai]"),
    ("xoxb-" + "123456789012-abcDEF", "[redacted:slack]"),
    (
        "https://hooks.slack.com/services/" + "T0001/B0001/a1B2c3D4e5F6",
        "https://hooks.slack.com/services/[redacted:slack]",
    ),
    ("AIza" + "Sy-a_1B2" * 4 + "abc", "[redacted:google]"),
    ("sk_live_" + "a1B2" * 6, "[redacted:stripe]"),
    ("whsec_" + "a1B2" * 8 + "=", "[redacted:webhook]"),
    ("npm_" + "a1B2" * 9, "[redacted:npm]"),
    ("pypi-" + "AgEIcHlwaS5vcmcCJ" + "a1B2" * 6, "[redacted:pypi]"),
    ("hf_" + "aBcDe" * 7, "[redacted:huggingface]"),
    (JWT, "[redacted:jwt]"),
    (PEM.format("", ""), "[redacted:private-key]"),
    (PEM.format("RSA ", HEADERS) + " and more", "[redacted:private-key] and more"),
    (PEM.format("EC ", "").replace("\n", "\\n"), "[redacted:private-key]"),
    ("Authorization: Bearer abc123", "Authorization: Bearer [redacted:authorization]"),
    ("curl -H 'authorization: Basic dXNlcjpwYXNz'", "curl -H 'authorization: Basic [redacted:authorization]'"),
    ("Bearer 0123456789abcdef", "Bearer [redacted:bearer]"),
    ("postgres://user:pa55@db/x", "postgres://user:[redacted:url]@db/x"),
    ("password=hunter2", "password=[redacted:password]"),
    ('{"passwd": "hunter2!"}', '{"passwd": "[redacted:password]"}'),
    ("api_key = 'abcd-1234-efgh'", "api_key = '[redacted:secret]'"),
    ("X-Api-Key: abcd1234efgh", "X-Api-Key: [redacted:secret]"),
    ("export DB_PASSWORD=supersecret\nexport X=1", "export DB_PASSWORD=[redacted:secret]\nexport X=1"),
    (f'{{\\"env\\":\\"A=1\\nB={AWS}\\"}}', '{\\"env\\":\\"A=1\\nB=[redacted:aws]\\"}'),
    (f"line\\n{GITHUB}\\n", "line\\n[redacted:github]\\n"),
    (f"https://{GITHUB}@github.com", "https://[redacted:github]@github.com"),
    (TOKEN, "[redacted:session-store]"),
    (f"SESSION_STORE_URL=x\\n{TOKEN}", "SESSION_STORE_URL=x\\n[redacted:session-store]"),
    (f"Cookie: a=b; {COOKIE}={LOGIN}; c=d", f"Cookie: a=b; {COOKIE}=[redacted:session-store]; c=d"),
    (f"localhost\tFALSE\t/\t{COOKIE}\t{LOGIN}", f"localhost\tFALSE\t/\t{COOKIE}\t[redacted:session-store]"),
    ("SG." + "a1B2c3D4e5F6g7H8i9J0k1" + "." + "a1B2c3D4e5F" * 4, "[redacted:sendgrid]"),
    ("dop_v1_" + "a1b2c3d4" * 8, "[redacted:digitalocean]"),
    ("VAULT hvs." + "CAESIJ" * 10, "VAULT [redacted:vault]"),
    ("shpat_" + "a1b2" * 8, "[redacted:shopify]"),
    ("AGE-SECRET-KEY-1" + "QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L" * 2, "[redacted:age]"),
    ("sntrys_" + "eyJpYXQiOjE2ODczMzY1NDMuNjk4NTksInVybCI6bnVsbH0" + "=_" + "a1B2" * 10, "[redacted:sentry]"),
    ("/bot123456789:AA" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q/getMe", "/bot123456789:[redacted:telegram]/getMe"),
    (
        "https://discord.com/api/webhooks/123456789012345678/" + "a1B2c3" * 11,
        "https://discord.com/api/webhooks/123456789012345678/[redacted:discord]",
    ),
    (
        "AccountName=a;AccountKey=" + "a1B2" * 21 + "ab==;EndpointSuffix=x",
        "AccountName=a;AccountKey=[redacted:azure];EndpointSuffix=x",
    ),
    ("SharedAccessKey=" + "a1B2" * 10 + "abc=", "SharedAccessKey=[redacted:azure]"),
    ("    client-key-data: " + "LS0tLS1C" * 8 + "Cg==\n", "    client-key-data: [redacted:kubeconfig]\n"),
    ('{"auths":{"r.io":{"auth":"dXNlcjpwYXNzMQ=="}}}', '{"auths":{"r.io":{"auth":"[redacted:docker]"}}}'),
    (
        "machine api.x.io\n  login me\n  password hunter2\n",
        "machine api.x.io\n  login me\n  password [redacted:netrc]\n",
    ),
    ("curl -s -u user:pw https://x", "curl -s -u user:[redacted:curl] https://x"),
    ("curl -X POST --user 'user:pw' x", "curl -X POST --user 'user:[redacted:curl]' x"),
]

LEFT = [
    "550e8400-e29b-41d4-a716-446655440000",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "toolu_01A09q90qw90lq917835lq9",
    "task-1234567890abcdef1234567890abcdef",
    "risk-ant-1234567890abcdef",
    "sk-fading-circle sk-loading-1",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg",
    "password = get_password1()",
    "password=settings.password1",
    "token: str = None",
    "const token = tokens[0]; token=token1",
    "api_key=os.environ['KEY_1']",
    "max_tokens: 123456789012",
    "nextPageToken=abcdefgh12345678",
    "Authorization: Bearer $TOKEN",
    "Bearer authentication required",
    "https://host:8080/path@x http://localhost:9000",
    "https://user:${PASSWORD}@host/",
    "git@github.com:owner/name.git",
    "the file begins with -----BEGIN PRIVATE KEY-----",
    "ghp_short AKIA AKIAshort eyJ.eyJ.x sk-ant- whsec_",
    "Asia/Tokyo",
    "sst_ sst_short first_sst_x lasst_" + "a" * 40,
    "session_store=off session_store: true; the session_store cookie, 64 digits",
    "MSG.encode.decode SG.1 in SG.",
    "shpat_1 hvs.x dop_v1_ sntrys_ AGE-SECRET-KEY-1 :AA",
    "00:AA:bb:cc 2001:db8::AAAA 10:AAabc",
    "the machine learning login page asks for a password reset",
    "docker run -u 1000:1000 image; curl -o a:b https://x | sort -u a:b; curl -u user https://x",
    "curl -u user:$PASSWORD x; curl --user-agent Mozilla/5.0 https://host:80",
    '{"auth":"oauth2-provider","auth":"basic","auth": "OAuthAuthenticationProvider"}',
    "POST /api/webhooks/123456789012345678/short client-key-data: /path/to/key AccountKey=short",
]

MEMBERS: list[tuple[Json, Json]] = [
    ({"password": "correct horse"}, {"password": "[redacted:password]"}),
    ({"client_secret": "abcdef"}, {"client_secret": "[redacted:secret]"}),
    ({"a": [{"apiKey": "abcdef"}]}, {"a": [{"apiKey": "[redacted:secret]"}]}),
    ({"env": {"GITHUB_TOKEN": "abcdef"}}, {"env": {"GITHUB_TOKEN": "[redacted:secret]"}}),
    ({"token": "abcdefgh1234"}, {"token": "[redacted:secret]"}),
    ({"Authorization": "Basic abc"}, {"Authorization": "Basic [redacted:authorization]"}),
    ({"authorization": "abc"}, {"authorization": "[redacted:authorization]"}),
    ({"login.password": "x"}, {"login.password": "[redacted:password]"}),
    ({"auths": {"r.io": {"auth": "dXNlcjpwYXNzMQ=="}}}, {"auths": {"r.io": {"auth": "[redacted:docker]"}}}),
    ({"cookies": {COOKIE: LOGIN}}, {"cookies": {COOKIE: "[redacted:session-store]"}}),
]

MEMBERS_LEFT: list[Json] = [
    {"password": "$PASSWORD", "secret": "<secret>", "api_key": "{{ key }}"},
    {"password": None, "secret": True, "token": 5, "properties": {"password": {"type": "string"}}},
    {"token": "Hello", "tokens": ["abcdefgh1234"], "tokenCount": "123456789012a"},
    {"auth": "bearer", "deep": {"auth": "OAuth2ForProviders", "sessionStore": "memory"}, "password": ""},
    {"secret": "two words", "keyword": "abcdefgh1234", "passwordField": "abcdef1"},
    {"id": AWS, "agentId": AWS, "tool_use_id": AWS, "type": AWS},
]

UNENDING = [
    "token=", "token='a1", "password: ", "sk-", "sk-ant-", "-eyJ", "eyJaaaaaaaa.", "://a:", "a", "\\n",
    "-----BEGIN PRIVATE KEY-----", "bearer a", "authorization: bearer ", "AKIA", "glpat-", "xoxb-", "secret=1a.",
    'api-key: "aaaaaaaaaaaaa', "curl -a ", "curl -u a", "machine a.a login a password ", "a.", "session_store", "sst_",
    "AccountKey=", "client-key-data: ", "'auth':'aA1=", "12345678:AA", "sntrys_", "SECRET=", "access_", "İtoken=",
]  # fmt: skip
"""What, repeated without an end, would take a careless pattern time that grows with its square."""


# ----------------------------------------------------------------------- patterns


@pytest.mark.parametrize(("text", "redacted"), FOUND)
def test_a_secret_is_replaced_by_its_name(text: str, redacted: str) -> None:
    assert Redaction().text(text) == redacted
    assert Redaction().text(redacted) == redacted


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert Redaction().text(text) == text


@pytest.mark.parametrize(("members", "redacted"), MEMBERS)
def test_a_member_is_redacted_by_its_name(members: Json, redacted: Json) -> None:
    assert Redaction().data(members) == redacted
    assert Redaction().data(redacted) == redacted


@pytest.mark.parametrize("members", MEMBERS_LEFT)
def test_a_name_alone_redacts_no_placeholder_no_word_and_no_id(members: Json) -> None:
    assert Redaction().data(members) == members


NEAR = [
    "token", "TOKEN", "Token", "secret", "SECRET", "access", "client_", "api", "_", "-", "key", "KEY", "password",
    "PASSWD", "passphrase", "=", ": ", ":=", "=>", "'", '"', "\\", "\\n", '\\"', "a1b2c3d4e5f6", "abcdef", "A" * 20,
    ".", "://", "@", "user:", "/", " ", "\n", "\t", "sk-", "ghp_", "AKIA", "IOSFODNN7EXAMPLE", "eyJ", "eyJhbGciOiJI",
    "bearer ", "Bearer ", "authorization", "Basic ", "-----BEGIN ", "PRIVATE KEY-----",
    "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn1", "İ", "é", "$", "[", "{", "[redacted:", "]", "(", "hf_", "npm_", "xoxb-",
    "AIza", "glpat-", "session", "refresh", "auth", "curl -u ", "sst_", "machine x.y login a password ",
    "session_store=", "a" * 64, "SG.", "hvs.", ":AA", "12345678", "client-key-data: ", "AccountKey=", "==",
    'auth": "', "dXNlcjpwYXNz", "d1==",
]  # fmt: skip


def replaced_one_after_the_other(text: str) -> str:
    """What the table says, read as simply as it can be."""
    for name, _, pattern in hook_agent.SECRETS:
        kept = r"\g<1>" if re.compile(pattern).groups else ""
        text = re.sub(pattern, f"{kept}[redacted:{name}]", text)
    return text


@settings(deadline=None, max_examples=examples(500))
@given(st.lists(st.sampled_from(NEAR), max_size=40).map("".join))
def test_quick_ways_find_what_the_patterns_find(text: str) -> None:
    redacted = replaced_one_after_the_other(text)
    assert Redaction().text(text) == redacted == Redaction().text(redacted)
    assert Redactor(()).data({"a": text}) == {"a": redacted}


ODD = [
    *map(chr, range(32)),
    " ",
    '"',
    "'",
    "\\",
    "/",
    "=",
    ":",
    "é",
    "中",
    "😀",
    "\x7f",
    "\u2028",
    "\\n",
    '\\"',
    "x" * 350,
]


@settings(deadline=None, max_examples=examples(1000))
@given(
    st.sampled_from([text for text, _ in FOUND]) | st.lists(st.sampled_from(NEAR), max_size=8).map("".join),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(ODD)), max_size=4),
)
@example("\x1b" + AWS, [])
@example("password\\\\\\'\t\t\t\t=hunter2", [])
@example("curl" + f" {'x' * 90}" * 10 + " -u user:pw https://x", [])
def test_none_is_missed_whatever_is_around_it(text: str, odd: list[tuple[float, str]]) -> None:
    """By the look at JSON that spares most of it the closer one, which is the same in the agents and in the server."""
    for where, inserted in odd:
        at = round(where * len(text))
        text = text[:at] + inserted + text[at:]
    data = {"a": text}
    redacted = hook_agent.Redaction().data(data)
    assert Redactor(()).data(data) == redacted
    assert Redactor(()).text(text) == redacted["a"]
    if redacted != data:
        assert all(Redaction().concerns(json.dumps(data, ensure_ascii=is_ascii)) for is_ascii in (True, False))


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.sampled_from(NEAR), max_size=60).map("".join), st.sampled_from([16, 48, 500]))
def test_long_texts_are_searched_in_pieces_that_overlap(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook_agent, "_PIECE", piece)
        patch.setattr(redaction, "PIECE", piece)
        assert Redaction().text(text) == Redactor(()).text(text) == replaced_one_after_the_other(text)


def test_no_word_is_missed_between_two_pieces() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "PIECE", 16)
        for at in range(40):
            assert Redactor(()).text("." * at + GITHUB) == "." * at + "[redacted:github]"


OWN = ["ACME-[0-9]{4}", r"\bk-[a-z]{3,}\b", r"(?<=id=)\d{3,9}", "x[a-z]{0,20}$", "^ab+", "a(?!b)", "q[a-z-]{4,25}(?= )"]
OWN_PARTS = ["ACME-", "12345", "k-", "abc", "id=", " ", "x", "\n", "q-"]


@settings(deadline=None, max_examples=examples(300))
@given(
    st.sampled_from(OWN),
    st.lists(st.sampled_from(OWN_PARTS), max_size=80),
)
def test_so_are_they_with_own_patterns(pattern: str, parts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, length in (("_PIECE", 64), ("_OVERLAP", 32), ("_BESIDE", 8)):
            patch.setattr(hook_agent, name, length)
        text = "".join(parts)
        assert hook_agent._without_own(text, re.compile(pattern), "#") == re.sub(pattern, "#", text)


def test_tokens_and_cookies_of_the_store_are_taken_out() -> None:
    for token in (make_token() for _ in range(200)):
        texts = (f"cat token\n{token}\n", f"Cookie: {COOKIE}={make_cookie()}")
        assert [Redaction().text(text) for text in texts] == [
            "cat token\n[redacted:session-store]\n",
            f"Cookie: {COOKIE}=[redacted:session-store]",
        ]


def test_the_payloads_of_real_runs_come_through_as_they_are() -> None:
    payloads = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    assert len(payloads) > 400
    assert all(Redaction().data(payload) == payload for payload in payloads)
    payloads[7]["payload"]["tool_input"] = {"command": f"GITHUB={GITHUB} make"}
    assert Redaction().data(payloads[7]) != payloads[7]


def test_whatever_is_redacted_is_worth_a_closer_look() -> None:
    """The quick look of the server, and that of the agents, at JSON text as it is written."""
    samples = [{"text": text} for text, _ in FOUND] + [members for members, _ in MEMBERS]
    for data in samples:
        assert has_reason(encode(data).lower()), data
        assert Redaction().concerns(encode(data)) and Redaction().concerns(json.dumps(data)), data
        assert Redactor(()).data(data) == Redaction().data(data)
    plain = '{"type":"tool_call","tool":"Bash","toolUseId":"toolu_01","input":{"command":"make test"}}'
    assert not has_reason(plain) and not Redaction().concerns(plain)
    assert Redactor(()).data(data := decode(plain)) is data


@pytest.mark.parametrize("unit", UNENDING)
def test_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    opening = "token=1aaaaaaaa ://@ bearer PRIVATE KEY AKIA eyJ sk- "  # so that every pattern is tried
    agents, server = Redaction(), Redactor(())
    assert_time_grows_with_the_length(agents.text, opening, unit)
    assert_time_grows_with_the_length(server.text, opening, unit)
    assert_time_grows_with_the_length(agents.concerns, "", unit)
    assert_time_grows_with_the_length(lambda text: server.data({"a": text}), "", unit)


@pytest.mark.parametrize("hint", [hint for _, hints, _ in hook_agent.SECRETS for hint in hints if "*" in hint])
def test_so_does_a_look_at_a_hint(hint: str) -> None:
    first, _, last = hint.partition("*")
    for text in (first, f"{first}{'x' * 5_000}{last}"):
        assert_time_grows_with_the_length(lambda text: hook_agent._is_hinted(text, hint), "", text)


def assert_time_grows_with_the_length(look: Callable[[str], object], opening: str, unit: str) -> None:
    def seconds(length: int) -> float:
        text = (opening + unit * (length // len(unit) + 1))[:length]
        begun = time.thread_time()
        look(text)
        return time.thread_time() - begun

    def is_even() -> bool:
        return seconds(160_000) < 20 * max(seconds(20_000), 0.0005)

    assert any(is_even() for _ in range(3)), "eight times the text: its square is 64 times as much"


# --------------------------------------------------------------------- one's own


def test_own_patterns_have_names_if_they_are_given(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_text("# ours\n\nacme: ACME-[0-9]{4}\nEMP: [0-9]+\nstaff \\d{6}\n")
    own = hook_agent.own_patterns(str(file))
    assert own == (("acme", "ACME-[0-9]{4}"), ("EMP", "[0-9]+"), ("custom", "staff \\d{6}"))
    assert Redaction(own[:1]).data({"a": "an ACME-1234."}) == {"a": "an [redacted:acme]."}


SLOW = [
    "(a+)+x", "ACME-(a+)+x", r"(\w+\s?)+!", "(a|aa)+$", "(foo|fo|o)+x", "(?:[a-z]|[x-z0])+y", "(.*,){11}P",
    r"^(([a-z])+.)+[A-Z]([a-z])+$", r"[A-Z]+-\d+", r"\s+$", r"acme[\s\S]+END",
]  # fmt: skip
QUICK = [
    "ACME-[0-9]{4}", "[0-9]+", r"acme_(?:live|test)_[A-Za-z0-9]{24,}", "(?i)corp-[a-z0-9]{1,100}-x",
    r"\bk-[\w-]{20,64}\b", r"(?<=id=)\d{9}", r"-----BEGIN ACME-----[A-Za-z0-9\n]{10,}", "(?:[a-z]{3}-){3}[0-9]{4}",
    "(?:key|pin)=(?:[0-9]{4}-?)+!",
]  # fmt: skip


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_would_take_long_is_refused(tmp_path: Path, pattern: str) -> None:
    file = tmp_path / "patterns"
    file.write_text(f"good\n{pattern}\n")
    begun = time.thread_time()
    with pytest.raises(ValueError, match=f"^line 2 of {re.escape(str(file))}: {re.escape(repr(pattern))} would take"):
        hook_agent.own_patterns(str(file))
    assert time.thread_time() - begun < 2


@pytest.mark.parametrize("pattern", QUICK)
def test_a_pattern_that_takes_no_longer_than_its_text_is_taken(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "patterns").write_text(pattern)
    assert hook_agent.own_patterns(str(tmp_path / "patterns")) == (("custom", pattern),)


@pytest.mark.parametrize("pattern", ["(", "x*", ".+", "redacted"])
def test_a_pattern_that_cannot_be_used_is_named(tmp_path: Path, pattern: str) -> None:
    file = tmp_path / "patterns"
    file.write_text(f"good\n{pattern}\n")
    with pytest.raises(ValueError, match=f"^line 2 of {re.escape(str(file))}: {re.escape(repr(pattern))} "):
        hook_agent.own_patterns(str(file))


@pytest.mark.parametrize("pattern", ["[", "(a+)+x", "(?:[a-z]|[x-z0])+y"])
def test_a_bad_pattern_stops_the_start_of_the_server(tmp_path: Path, folder: Path, pattern: str) -> None:
    file = tmp_path / "patterns"
    file.write_text(f"acme: {pattern}\n")
    ended, _ = start({"SESSIONS_REDACT": str(file)}, folder)
    assert ended.returncode == 1
    assert ended.stderr.startswith("session store: SESSIONS_REDACT=") and "line 1" in ended.stderr
    assert not folder.exists()


# ------------------------------------------------------------------------ server


def say_everything(http: httpx.Client, session: str, secret: str) -> None:
    """The secret by every way in."""
    answers = [
        http.put(f"/api/sessions/{session}", json={"userId": "u", "initial": {"a": secret}, "metadata": {"m": secret}}),
        http.post(f"/api/actions/{session}", json={"type": "a", "text": secret}),
        http.post(f"/api/actions/{session}/responses", json={"type": "r", "deep": [{"er": f"x {secret} y"}]}),
        http.post(f"/api/actions/{session}", json={"type": "b", "eventId": "named", "text": secret}),
        http.patch(f"/api/state/{session}", json={"workspace": {"note": secret}}),
        http.patch(f"/api/sessions/{session}/metadata", json={"own.note": secret}),
        http.post(f"/api/state/{session}/goals", json={"description": secret}),
        http.post(f"/api/state/{session}/agents", json={"type": "worker", "task": secret}),
        http.post(
            "/api/events",
            content=json.dumps({"type": "action", "sessionId": session, "data": {"type": "c", "text": secret}}),
            headers={"content-type": "application/x-ndjson"},
        ),
        http.post(
            "/api/hooks/claude-code",
            json={"hook_event_name": "UserPromptSubmit", "session_id": session, "prompt": secret},
        ),
        http.post(f"/api/sessions/{session}/finalize", json={"outcome": secret}),
    ]
    assert [answer.status_code for answer in answers] == [201] + [200] * 10, [answer.text for answer in answers]


def files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_no_way_in_stores_a_secret(folder: Path) -> None:
    with Appliance(folder) as server, httpx.Client(base_url=server.url) as http:
        say_everything(http, "careless", GITHUB)
        texts = [http.get(f"/api/sessions/careless{rest}").text for rest in ("", "/events", "/resume")]
        assert all("[redacted:github]" in text and GITHUB not in text for text in texts)
        assert http.get("/api/query/search", params={"q": GITHUB}).json()["items"] == []
    assert files_with(folder, GITHUB) == []
    assert len(files_with(folder, "[redacted:github]")) > 5  # what is not there cannot be found: the marks are


def test_a_secret_is_stored_where_redaction_is_off(folder: Path) -> None:
    with Appliance(folder, {"SESSIONS_REDACT": "off"}) as server, httpx.Client(base_url=server.url) as http:
        say_everything(http, "careless", GITHUB)
        assert GITHUB in http.get("/api/sessions/careless").text
    assert len(files_with(folder, GITHUB)) > 5


def test_own_patterns_are_taken_out_by_the_server(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "patterns").write_text("acme: ACME-[0-9]{4}\n")
    env = {"SESSIONS_REDACT": str(tmp_path / "patterns")}
    with Appliance(folder, env) as server, httpx.Client(base_url=server.url) as http:
        say_everything(http, "careless", f"ACME-1234 {AWS}")
        assert "[redacted:acme] [redacted:aws]" in http.get("/api/sessions/careless").text
    assert files_with(folder, "ACME-1234") == []


def test_a_retry_of_what_was_redacted_is_a_duplicate(http: httpx.Client, session_id: str) -> None:
    said = {"type": "a", "eventId": "once", "text": f"with {GITHUB}"}
    first, again, redacted = (
        http.post(f"/api/actions/{session_id}", json=said | {"text": text}).json()
        for text in (said["text"], said["text"], "with [redacted:github]")
    )
    assert first == again == redacted
    assert http.post(f"/api/actions/{session_id}", json=said | {"text": "else"}).status_code == 422


def test_a_retry_of_what_was_stored_before_redaction_is_a_duplicate(folder: Path) -> None:
    said = {"type": "a", "eventId": "once", "text": GITHUB}
    with Appliance(folder, {"SESSIONS_REDACT": "off"}) as server:
        first = httpx.post(f"{server.url}/api/actions/s", json=said).json()
    with Appliance(folder) as server:
        assert httpx.post(f"{server.url}/api/actions/s", json=said).json() == first
        assert httpx.post(f"{server.url}/api/actions/s", json=said | {"text": "else"}).status_code == 422


# ------------------------------------------------------------------------ agents

LOG = f"""
import hook_agent
agent = hook_agent.SessionHookAgent("library").sync
agent.log_action(type="note", text="with {GITHUB}")
agent.update_state(env=dict(API_TOKEN="abcdef"))
"""
NOWHERE = "http://127.0.0.1:9"
pytestmark = pytest.mark.usefixtures("no_sender_is_left")


def spooled(tmp_path: Path) -> bytes:
    spool = spool_in(tmp_path, NOWHERE)
    return b"".join(Path(spool._segment(number)).read_bytes() for number in spool.segments())


@pytest.mark.parametrize(
    "payload",
    [
        {"hook_event_name": "Stop", "session_id": "s", "text": f"line\n{GITHUB}\n"},
        {"hook_event_name": "Stop", "session_id": "s", "text": GITHUB, "half": "\ud800"},
        {
            "hook_event_name": "PreToolUse",
            "session_id": "s",
            "tool_input": {"env": {"API_TOKEN": "abcdef"}, "x": GITHUB},
        },
    ],
)
def test_a_hook_spools_no_secret(tmp_path: Path, payload: Json) -> None:
    assert hook(json.dumps(payload).encode(), environment(tmp_path, NOWHERE)) == (0, b"", b"")
    (record,) = waiting_in(spool_in(tmp_path, NOWHERE))
    assert record["hook"] == Redaction().data(hook_agent._Plain().value(payload)) != payload


@pytest.mark.parametrize(
    "payload",
    [
        f'{{"hook_event_name": "Stop", "session_id": "s", "text": "{GITHUB}'.encode(),
        GITHUB.encode() + b"\xff",
        json.dumps({"text": GITHUB}).replace("g", "\\u0067").encode(),
    ],
)
def test_a_hook_spools_no_secret_of_an_odd_payload(tmp_path: Path, payload: bytes) -> None:
    assert hook(payload, environment(tmp_path, NOWHERE)) == (0, b"", b"")
    assert GITHUB.removeprefix("g").encode() not in spooled(tmp_path) and b"[redacted:github]" in spooled(tmp_path)


def test_a_hook_waits_for_no_pattern_that_takes_long(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("(a+)+x\n")
    env = environment(tmp_path, NOWHERE, SESSION_REDACT=str(tmp_path / "patterns"))
    payload = {"hook_event_name": "Stop", "session_id": "s", "text": "a" * 40, "other": GITHUB}
    assert hook(json.dumps(payload).encode(), env) == (0, b"", b"")
    (record,) = waiting_in(spool_in(tmp_path, NOWHERE))
    assert record["hook"] == payload | {"other": "[redacted:github]"}
    assert "line 1 of" in (said := command("status", env).stderr) and "would take very long for 'aaa'" in said


def test_the_library_cuts_what_has_too_many_texts(tmp_path: Path) -> None:
    code = """import hook_agent
hook_agent.SessionHookAgent("many").sync.log_action(texts=["x"] * 30_000, type="note", toolUseId="t1", path="a")"""
    run(code, environment(tmp_path, NOWHERE))
    entry = waiting_in(spool_in(tmp_path, NOWHERE))[-1]["data"]
    assert (entry["type"], entry["toolUseId"], entry["path"]) == ("note", "t1", "a")
    assert len(entry["texts"]) == 20_000 - 1, "an id is not counted, nor the type; the path is"
    assert entry["truncated"]["texts"] == 30_001 and entry["truncated"]["bytes"] > 120_000


def test_a_hook_leaves_what_holds_no_secret_to_the_letter(tmp_path: Path) -> None:
    payload = b'{"hook_event_name" : "Stop","session_id":"s","n":1e400,"text":"task-12, a token, a pass\\u00e9word"}'
    assert hook(payload, environment(tmp_path, NOWHERE)) == (0, b"", b"")
    assert payload in spooled(tmp_path)


def test_the_library_spools_no_secret(tmp_path: Path) -> None:
    run(LOG, environment(tmp_path, NOWHERE))
    assert [event["data"] for event in waiting_in(spool_in(tmp_path, NOWHERE))[1:]] == [
        {"type": "note", "text": "with [redacted:github]"},
        {"env": {"API_TOKEN": "[redacted:secret]"}},
    ]


def test_agents_redact_as_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("acme: ACME-[0-9]{4}\n")
    payload = f'{{"hook_event_name":"Stop","session_id":"s","text":"ACME-1234 {GITHUB}"}}'.encode()
    for setting in ("off", str(tmp_path / "patterns")):
        assert hook(payload, environment(tmp_path, NOWHERE, SESSION_REDACT=setting)) == (0, b"", b"")
    texts = [event["hook"]["text"] for event in waiting_in(spool_in(tmp_path, NOWHERE))]
    assert texts == [f"ACME-1234 {GITHUB}", "[redacted:acme] [redacted:github]"]


def test_a_setting_that_cannot_be_used_is_said_once_and_breaks_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path, NOWHERE, SESSION_REDACT="/nowhere/patterns")
    assert hook(f'{{"hook_event_name":"Stop","session_id":"s","text":"{GITHUB}"}}'.encode(), env) == (0, b"", b"")
    assert "[redacted:github]" in spooled(tmp_path).decode()
    assert command("status", env).stderr.count("SESSION_REDACT=/nowhere/patterns") == 1
    with pytest.raises(AssertionError, match="SESSION_REDACT=/nowhere/patterns"):
        run(LOG, env)
    assert GITHUB not in spooled(tmp_path).decode()
