"""Datasette at /datasette/: the live database, read only, behind the same rules as the rest."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.appliance import Appliance


def ask(http: httpx.Client, sql: str) -> httpx.Response:
    return http.get("/datasette/sessions.json", params={"sql": sql, "_shape": "arrays"})


def test_it_answers_sql_about_what_was_just_stored(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "file_write", "path": "a.py"})
    answer = ask(http, f"select kind, data ->> '$.path' from events where session_id = '{session_id}' and seq = 1")
    assert answer.json()["rows"] == [["file_write", "a.py"]]


@pytest.mark.parametrize(
    "sql",
    [
        "delete from events",
        "with gone as (select 1) delete from events",
        "attach database '/tmp/x.db' as x",
        "pragma user_version = 9",
        "select hex(zeroblob(400000000))",
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
    ],
)
def test_nothing_can_be_written_or_held_up(http: httpx.Client, session_id: str, sql: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note"})
    before = http.get("/health").json()["cursor"]
    assert ask(http, sql).status_code == 400
    assert http.post(f"/api/actions/{session_id}", json={"type": "note"}).json()["cursor"] == before + 1


def test_every_link_leads_somewhere(http: httpx.Client, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "note"})
    pages = ["/datasette", "/datasette/sessions", "/datasette/sessions/events", "/datasette/sessions/events/1"]
    for page in pages:
        answer = http.get(page, follow_redirects=True)
        assert answer.status_code == 200, page
        links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', answer.text) if "datasette.io" not in link}
        assert links
        for link in links:
            assert "/datasette/datasette" not in link
            assert http.get(link.replace("&amp;", "&")).status_code == 200, f"{page} leads to {link}"


def test_only_who_may_read_may_ask(tmp_path: Path) -> None:
    tokens = {"SESSIONS_READ_TOKEN": "a-token-to-read", "SESSIONS_INGEST_TOKEN": "a-token-to-write"}
    with Appliance(tmp_path, tokens) as appliance, httpx.Client(base_url=appliance.url) as http:
        said = {
            token: http.get("/datasette/", headers={"Authorization": f"Bearer {token}"}).status_code
            for token in [*tokens.values(), "another-token"]
        }
        assert said == {"a-token-to-read": 200, "a-token-to-write": 403, "another-token": 401}
        assert http.get("/datasette/").status_code == 401


def test_a_question_that_is_refused_is_not_printed_with_all_around_it(appliance: Appliance, http: httpx.Client) -> None:
    ask(http, "select nothing from nowhere")
    assert "Traceback" not in appliance.output
