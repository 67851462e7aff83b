"""Full-text search: the words of events, the questions that find them, and the index that follows the writing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.store import search
from sessionstore.store.maintenance import index_search, purge
from sessionstore.store.schema import open_writer
from tests.appliance import Appliance
from tests.databases import Database, drafted, temporary_database
from tests.peers import eventually
from tests.problems import assert_problem
from tests.repeats import examples
from tests.test_query import act, enter
from tests.test_query import found as found_in

# ---------------------------------------------------------------------- the words


def test_texts_and_numbers_are_searched_names_and_switches_are_not() -> None:
    assert search.text_of('{"name":"text","list":[1,{"x":"deep"},true,null,2.5]}').split("\n") == [
        "text",
        "1",
        "deep",
        "2.5",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x = getUserById(ofHTTPServer)", {"getUserById": "get User By Id", "ofHTTPServer": "of HTTP Server"}),
        ("get_userById toBase64Url sha256", {"userById": "user By Id", "toBase64Url": "to Base64 Url"}),
        ("istGrößerAls ÜberGabe", {"istGrößerAls": "ist Größer Als", "ÜberGabe": "Über Gabe"}),
        ("plain Title UPPER x1 Zażółć ПриветМир", {}),
        ("aB" * 40, {}),
    ],
    ids=str,
)
def test_names_are_taken_apart_where_a_capital_begins_a_word(text: str, names: dict[str, str]) -> None:
    assert {name: search.parts_of(name) for name in search.names_in(text)} == names


class Index:
    """The full-text index alone, of events that are nothing but a text each."""

    def __init__(self, *texts: str) -> None:
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute(INDEX)
        for cursor, text in enumerate(texts, 1):
            event = search.entry(cursor, "action", "note", "s", "u", None, NOON, NOON, search_data(text))
            self.connection.execute("INSERT INTO search (rowid, text, parts, about) VALUES (?, ?, ?, ?)", event)

    def finds(self, question: str) -> list[int]:
        sought = search.terms(question)
        if not sought:
            return []
        *_, last = search.readings(sought)
        rows = self.connection.execute(
            "SELECT rowid FROM search WHERE search MATCH ? ORDER BY 1", (search.match_of(last),)
        )
        return [cursor for (cursor,) in rows]


NOON = "2026-02-14T12:00:00.000Z"
with closing(open_writer(Path(":memory:"))) as made:
    ((INDEX,),) = made.execute("SELECT sql FROM sqlite_master WHERE name = 'search'")


def search_data(text: str) -> str:
    return json.dumps({"text": text})


@pytest.mark.parametrize(
    ("text", "questions", "others"),
    [
        ("getUserById", ["user", "UserById", "byId", "getUser", "user by id", '"user by id"'], ["ser", "Users"]),
        ("src/server.js", ["server", "server.js", "src/server", "js -py"], ["erver", "server.ts", "src -js"]),
        ("東京都庁へ行く", ["東京", "京都", "都", "東京都庁", "行く", "京都庁へ"], ["北京", "庁都", "東都"]),
        ("v2東京 設定 file", ["v2東京", "東京 file", "設定", "定", "v2"], ["設東", "v3東京"]),
        ("한국어를 배우다", ["한국어", "배우", "국어"], ["한어"]),
        ("ภาษาไทยที่ดี", ["ไทย", "ภาษา", "ที่"], ["ไท่"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"], ["हिन", "भ"]),
        ("Österreich naïve Straße", ["österreich", "OSTERREICH", "naive", "straße", "Osterr*"], ["strasse"]),
        ("O\u0308BB cafe\u0301", ["ÖBB", "öbb", "café", "cafe"], ['"caf"']),
        ("ёлка ДОМ", ["ёлка", "дом", "дом*"], ["до"]),
        ("the quick brown fox", ['"quick brown"', "fox quick", "bro*", '"brown fo"*'], ['"quick fox"', '"bro"', "b*"]),
        ("git push --force", ["git -pull", '-"push now" git', "--force", "-force", "push -"], ["git -push", "git --f"]),
    ],
    ids=str,
)
def test_what_is_found_and_what_is_not(text: str, questions: list[str], others: list[str]) -> None:
    index = Index("something else", text)
    assert {question: index.finds(question) for question in questions} == {question: [2] for question in questions}
    assert {question: index.finds(question) for question in others} == {question: [] for question in others}


@given(st.text(max_size=80))
@settings(max_examples=examples(300))
def test_no_question_is_an_error_of_sqlite(question: str) -> None:
    Index(question).finds(question)


ODD_LETTERS = st.text(alphabet="\"*-+^:(){}|\\' \0aB_1ÖöÉ́東京都ทที่한И.")


@given(ODD_LETTERS, ODD_LETTERS)
@settings(max_examples=examples(300))
def test_signs_of_fts5_are_but_signs(question: str, text: str) -> None:
    Index(text).finds(question)


@given(st.text(alphabet="東京都庁設定ーภาษาไทย한국 aBc.", min_size=1, max_size=30), st.data())
@settings(max_examples=examples(200))
def test_any_piece_of_a_text_without_spaces_is_found(text: str, data: st.DataObject) -> None:
    run = data.draw(st.sampled_from(search.UNSPACED_RUN.findall(text) or ["東"]))
    start = data.draw(st.integers(0, len(run) - 1))
    piece = run[start : data.draw(st.integers(start + 1, len(run)))]
    assert Index("設定", f"{text} 東").finds(f'"{piece}"')[-1:] == [2] or not search.terms(piece)


# -------------------------------------------------------------------- the time


MOMENTS = st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z")


@given(MOMENTS, MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS)
@settings(max_examples=examples(300))
def test_the_marks_of_a_time_leave_out_nothing_in_it(
    timestamp: str, received_at: str, since: str | None, until: str | None
) -> None:
    if (since and timestamp < since) or (until and timestamp >= until) or not (since or until):
        return
    today = max(received_at, NOON)  # when it is asked: not before it was received
    (_, _, _, about) = search.entry(1, "action", "x", "s", "u", None, timestamp, received_at, "{}")
    assert set(about.split()) & set(search.periods(since, until, today))


def test_a_time_is_marked_by_its_years_months_and_days() -> None:
    marks = search.periods("2023-11-29T10:00:00.000Z", "2026-02-02T00:00:00.000Z", NOON)
    assert marks == ["day20231129", "day20231130", "day202312", "day2024", "day2025", "day202601", "day20260201",
                     "day20260202", "later"]  # fmt: skip


# ------------------------------------------------------------------ the snippets


@pytest.mark.parametrize(
    ("text", "question", "marked"),
    [
        ("a server.js b", "server.js", ["a ", "server.js", " b"]),
        ("the ÖBB and the öbb", "obb the", ["", "the", " ", "ÖBB", " and ", "the", " ", "öbb", ""]),
        ("present absent sent", "sent", ["present absent ", "sent", ""]),
        ("return getUserById", "user", ["return get", "User", "ById"]),
        ("設定を変える", "定", ["設", "定", "を変える"]),
        ("<b>&amp; needle</b>", "needle", ["<b>&amp; ", "needle", "</b>"]),
        ("needless needle", "needle*", ["", "needle", "ss ", "needle", ""]),
        ("one two three", "three -two one", ["", "one", " two ", "three", ""]),
        ("nothing of it", "absent", ["nothing of it"]),
    ],
    ids=str,
)
def test_a_snippet_shows_what_was_asked_for(text: str, question: str, marked: list[str]) -> None:
    found = search.snippet(text, search.terms(question))
    assert found.marked == marked
    assert found.text == text


@given(st.text(max_size=600), st.text(min_size=1, max_size=20))
def test_every_second_piece_of_a_snippet_was_asked_for(text: str, question: str) -> None:
    sought = search.terms(question)
    if not sought:
        return
    text = search.line_of(text)
    found = search.snippet(text, sought)
    assert found.text == "".join(found.marked)
    assert found.text.strip("…") in text or "…" in text
    assert len(found.marked) % 2 == 1
    assert all(found.marked[1::2])


def test_the_score_is_higher_for_a_text_that_is_about_it() -> None:
    texts = ["needle", "needle " + "hay " * 30, "myNeedle " + "hay " * 30, "hay " * 1000 + "needle", "hay"]
    scores = [search.score(text, search.terms("needle")) for text in texts]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0 < scores[-2]


# ------------------------------------------------------------------- what narrows


def test_a_search_is_narrowed_by_what_it_is_about(http: httpx.Client, session_id: str) -> None:
    word = "needle" + session_id.replace("-", "")
    other = f"{session_id}.other"
    enter(http, session_id, user="ann.lee@example.com")
    enter(http, other, user="ann-lee@example.com")  # the same mark as the other: the rows tell them apart
    act(http, session_id, type="prompt", text=word, timestamp="2026-03-05T10:00:00Z")
    act(http, session_id, type="tool_call", text=word, agentId="agent-7", timestamp="2026-04-05T10:00:00Z")
    act(http, other, type="prompt", text=word, timestamp="2031-04-05T10:00:00Z")
    http.post(f"/api/actions/{other}/responses", json={"type": "note", "text": word}).raise_for_status()
    both = [other, session_id]
    for query, sessions in (
        ({"sessionId": session_id}, [session_id]),
        ({"userId": "ann.lee@example.com"}, [session_id]),
        ({"userId": "ann-lee@example.com"}, [other]),
        ({"kind": "prompt"}, both),
        ({"kind": "prompt,tool_call", "sessionId": session_id}, [session_id]),
        ({"type": "response"}, [other]),
        ({"type": "response", "kind": "prompt"}, []),
        ({"agentId": "agent-7"}, [session_id]),
        ({"since": "2026-03-05T10:00:00Z", "until": "2026-03-05T10:00:00.001Z"}, [session_id]),
        ({"until": "2026-03-05T12:00:00+02:00"}, []),
        ({"since": "2026-04-05T10:00:00.001Z"}, [other]),
        ({"until": "2026-04-05T10:00:00.001Z"}, [session_id]),
    ):
        assert sorted(set(found_in(http, word, **query))) == sorted(sessions), query


def test_a_time_that_is_none_and_too_many_words_are_refused(http: httpx.Client) -> None:
    for name in ("since", "until"):
        assert_problem(http.get("/api/query/search", params={"q": "a", name: "yesterday"}), 422, f"$.{name}")
    assert_problem(http.get("/api/query/search", params={"q": "a " * 65}), 422, "$.q")
    assert http.get("/api/query/search", params={"q": "a " * 64}).status_code == 200


def test_a_hit_says_what_is_marked_and_how_many_there_are(http: httpx.Client, session_id: str) -> None:
    word = "needle" + session_id.replace("-", "")
    for number in range(3):
        act(http, session_id, text=f"<i>{word}</i> {number}")
    answer = http.get("/api/query/search", params={"q": word, "limit": 2}).json()
    assert (answer["total"], answer["behind"], len(answer["items"])) == (3, 0, 2)
    assert answer["items"][0]["marked"] == ["note <i>", word, "</i> 2"]
    assert answer["items"][0]["snippet"] == f"note <i>{word}</i> 2"


# ------------------------------------------------------------------- the index


EVENTS = 12_000


@pytest.fixture
def unsearched(folder: Path) -> Path:
    """A store of many events of which none is in the index, as after an upgrade, and of a session that is deleted."""
    folder.mkdir()
    database = Database(folder / "sessions.db")
    with database.transaction() as appender:
        for number in range(EVENTS):
            appender.append(drafted("action", f"s{number % 10}", {"type": "note", "text": f"needle n{number}"}))
    database.append(drafted("session_deleted", "s3"))
    database.close()
    return folder


class Indexed(NamedTuple):
    """What the index has, and what it should have."""

    needles: set[int]
    """The events that a word finds."""
    rows: int
    """How many texts it counts: one that is put in twice, too."""

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Indexed:
        connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.words USING fts5vocab(main, search, instance)")
        needles = connection.execute("SELECT DISTINCT doc FROM words WHERE term = 'needle'")
        ((averages,),) = connection.execute("SELECT block FROM search_data WHERE id = 1").fetchall() or [(b"\0",)]
        return cls({cursor for (cursor,) in needles}, varint(averages))

    @classmethod
    def wanted(cls, connection: sqlite3.Connection) -> Indexed:
        needles = connection.execute("SELECT cursor FROM events WHERE kind = 'note'")
        ((rows,),) = connection.execute("SELECT count(*) FROM events")
        return cls({cursor for (cursor,) in needles}, rows)


def varint(block: bytes) -> int:
    """The first number of a record of FTS5: https://www.sqlite.org/fileformat2.html#varint"""
    number = 0
    for byte in block:
        number = number << 7 | byte & 127
        if byte < 128:
            return number
    return number


@pytest.mark.long
def test_a_search_says_how_far_behind_it_is_and_a_kill_neither_loses_nor_repeats_a_word(unsearched: Path) -> None:
    with Appliance(unsearched) as appliance:
        answer = httpx.get(f"{appliance.url}/api/query/search", params={"q": "needle"}).json()
        assert 0 < answer["behind"] <= EVENTS + 100
        for _ in range(2):
            appliance.kill()
            appliance.start()
        eventually(lambda: httpx.get(f"{appliance.url}/health").json()["searchLag"] == 0)
        answer = httpx.get(f"{appliance.url}/api/query/search", params={"q": f"n{EVENTS - 1}"}).json()
        assert (answer["total"], answer["behind"]) == (1, 0)
        eventually(lambda: httpx.get(f"{appliance.url}/api/query/stats").json()["actions"] == EVENTS * 9 // 10)
    with closing(sqlite3.connect(unsearched / "sessions.db")) as connection:
        wanted = Indexed.wanted(connection)
        assert len(wanted.needles) == EVENTS * 9 // 10
        assert Indexed.of(connection) == wanted
        last = connection.execute(f"SELECT {search.EVENT} FROM events WHERE kind = 'note' ORDER BY 1 DESC").fetchone()
        for statement in (
            "INSERT INTO search (rowid, text, parts, about) VALUES (?, ?, ?, ?)",
            "INSERT INTO search (search, rowid, text, parts, about) VALUES ('delete', ?, ?, ?, ?)",
        ):
            connection.execute(statement, search.entry(*last))
            assert Indexed.of(connection) != wanted  # repeated; missed


def test_words_of_a_deleted_session_are_in_no_column(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("action", "gone", {"type": "note", "text": "secretWord 東京都"}, user_id="bob"))
    database.append(drafted("action", "kept", {"type": "note", "text": "otherWord"}, user_id="ann"))
    index_search(database.connection, limit=10)
    before = words_of(database.connection)
    secrets = {"secretword", "secret", "東京", "京都", "都"}
    assert secrets | {"otherword", "other"} <= before
    database.append(drafted("session_deleted", "gone"))
    database.appender.begin()
    database.appender.finish_purge("gone")
    database.appender.commit()
    index_search(database.connection, limit=10)
    assert before - words_of(database.connection) == secrets
    database.close()


def words_of(connection: sqlite3.Connection) -> set[str]:
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.words USING fts5vocab(main, search, row)")
    return {word for (word,) in connection.execute("SELECT term FROM words")}


@given(st.lists(st.sampled_from(["index", "delete a", "delete b", "write a", "write b"]), max_size=20))
@settings(max_examples=examples(30))
def test_the_index_has_every_event_once_whatever_comes_between(steps: Sequence[str]) -> None:
    with temporary_database() as database:
        for step in [*steps, "index", "index"]:
            do(database, step)
        assert Indexed.of(database.connection) == Indexed.wanted(database.connection)


def do(database: Database, step: str) -> None:
    what, _, name = step.partition(" ")
    if what == "index":
        while index_search(database.connection, limit=3)[1]:
            pass
    elif what == "write":
        database.append(drafted("action", name, {"type": "note", "text": "needle"}))
    elif database.rows("SELECT 1 FROM sessions WHERE session_id = ?", name):
        database.append(drafted("session_deleted", name))
    if what != "delete":
        while purge(database.connection, limit=2):
            pass


def test_however_much_is_asked_no_search_looks_at_more() -> None:
    """Sixty words in a hundred texts of a megabyte each once took minutes, for whoever asked beside it as well."""
    for question in ("word", '"a b c"', "a b " * 32, f'"{"a " * 500}"'):
        sought = search.terms(question)
        words = sum(len(search.WORD.findall(term.text)) for term in sought)
        assert search.LOOKS * 0.99 < search.looked_at(100, sought) * 100 * words <= search.LOOKS
    text, sought = "x " * 1000 + "needle", search.terms("needle")
    assert search.score(text, sought) > 0 == search.score(text, sought, 2000)
    assert search.snippet(text, sought).marked[1] == "needle"
    assert search.snippet(text, sought, 2000).marked == [search.snippet(text, sought, 2000).text]
