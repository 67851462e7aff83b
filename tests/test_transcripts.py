"""The lines of conversations: kept in order, byte for byte, each batch once, and given back."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionstore.store import checkpoints, material
from sessionstore.store.intake import PART
from sessionstore.store.material import PIECE, Key, Provenance
from tests.appliance import Appliance
from tests.databases import Database, drafted
from tests.peers import eventually, resident_bytes

names = (f"conversation-{number}" for number in count(1))
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture
def path() -> str:
    """Where nothing is yet."""
    return f"/api/transcripts/folder/{next(names)}"


def post(http: httpx.Client, path: str, lines: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post(path, content=lines, headers=NDJSON | given)


def kept(http: httpx.Client, path: str, lines: bytes | Iterator[bytes], **headers: str) -> tuple[int, int, int]:
    """What it answers: lines that were kept, that had been, that there are."""
    answer = post(http, path, lines, **headers)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return told["count"], told["duplicates"], told["lines"]


def sha256(lines: bytes) -> str:
    return hashlib.sha256(lines).hexdigest()


def in_pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


# ----------------------------------------------------------------------------- in and out

ODD = b'{"a":1}\n\nno json \x00 \xff\xfe\n{"n": 1e999, "s": "\\ud800"}\r\n {"b" : [ ] }\n'


def test_lines_come_back_byte_for_byte(http: httpx.Client, path: str) -> None:
    assert kept(http, path, ODD) == (5, 0, 5)
    assert kept(http, path, b"the last\n") == (1, 0, 6)
    answer = http.get(path)
    assert (answer.content, answer.headers["content-type"]) == (ODD + b"the last\n", "application/x-ndjson")
    head = http.head(path)
    assert (head.content, head.headers["content-length"], head.headers["x-lines"]) == (b"", str(len(ODD) + 9), "6")
    assert head.headers["x-kept-digest"] == head.headers["x-source-digest"] == sha256(answer.content)
    assert head.headers["x-source-bytes"] == str(len(answer.content))


def test_a_last_line_is_ended(http: httpx.Client, path: str) -> None:
    assert kept(http, path, b"one\ntwo") == (2, 0, 2)
    assert http.get(path).content == b"one\ntwo\n"
    assert http.head(path).headers["x-source-bytes"] == "7"


def test_nothing_is_there_before_something_was_kept(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == http.head(path).status_code == 404
    assert kept(http, path, b"") == (0, 0, 0)
    assert http.get(path).status_code == 404


def test_a_large_batch_is_the_same_however_it_comes(http: httpx.Client, path: str) -> None:
    lines = b"".join(json.dumps({"n": n, "x": os.urandom(40).hex()}).encode() + b"\n" for n in range(30_000))
    assert len(lines) > 2 * PART
    assert kept(http, path, lines, idempotency_key="batch") == (30_000, 0, 30_000)
    assert kept(http, path, in_pieces(lines, 99_999), idempotency_key="batch") == (0, 30_000, 30_000)
    assert http.get(path).content == lines


def test_a_line_may_have_thirty_two_mebibytes_and_no_more(http: httpx.Client, path: str) -> None:
    line = b"x" * (32 << 20)
    assert kept(http, path, b"first\n" + line + b"\nlast\n") == (3, 0, 3)
    assert sha256(http.get(path).content) == http.head(path).headers["x-kept-digest"]
    refused = post(http, path, line + b"y\n")
    assert (refused.status_code, refused.json()["limit"]) == (413, 32 << 20)
    assert http.head(path).headers["x-lines"] == "3"


@pytest.mark.long
def test_two_hundred_megabytes_go_in_and_out_in_constant_memory(tmp_path: Path) -> None:
    line = json.dumps({"type": "assistant", "text": "words and more words " * 40}).encode() + b"\n"
    body = line * (200_000_000 // len(line))
    with Appliance(tmp_path / "sessions") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        kept(client, "/api/transcripts/f/warm", body[: 8 << 20])
        before = resident_bytes(server.process.pid)
        kept(client, "/api/transcripts/f/s", in_pieces(body, 1 << 16))
        digest = hashlib.sha256()
        with client.stream("GET", "/api/transcripts/f/s") as answer:
            for piece in answer.iter_bytes():
                digest.update(piece)
        assert digest.hexdigest() == sha256(body)
        assert resident_bytes(server.process.pid) < before + (48 << 20)


# ---------------------------------------------------------------------------------- retries


def test_a_batch_that_is_sent_again_changes_nothing(http: httpx.Client, path: str) -> None:
    assert kept(http, path, b"a\nb\n", idempotency_key="one") == (2, 0, 2)
    assert kept(http, path, b"a\nb\n", idempotency_key="one") == (0, 2, 2)
    assert kept(http, path, b"a\nb\n", idempotency_key="two") == (2, 0, 4)
    assert kept(http, path, b"a\nb\n") == (2, 0, 6)
    assert post(http, path, b"other\n", idempotency_key="one").status_code == 422
    assert http.get(path).content == b"a\nb\n" * 3


def test_a_batch_whose_body_was_cut_is_completed_by_the_next_try(http: httpx.Client, path: str) -> None:
    lines = b"".join(b"%d" % number * 500 + b"\n" for number in range(10_000))

    def cut() -> Iterator[bytes]:
        yield lines[: 2 * PART]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        post(http, path, cut(), idempotency_key="k")
    eventually(lambda: http.head(path).status_code == 200)
    some = int(http.head(path).headers["x-lines"])
    assert 0 < some < 10_000
    count_, duplicates, total = kept(http, path, lines, idempotency_key="k")
    assert (count_ + duplicates, total) == (10_000, 10_000)
    assert duplicates >= some
    assert http.get(path).content == lines


def test_the_same_batch_at_the_same_time_is_kept_once(http: httpx.Client, path: str) -> None:
    told: list[tuple[int, int, int]] = []
    threads = [
        threading.Thread(target=lambda: told.append(kept(http, path, b"x\ny\n", idempotency_key="k"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [(0, 2, 2)] * 3 + [(2, 0, 2)]


def test_digests_are_known_again_after_a_restart(tmp_path: Path) -> None:
    path, lines = "/api/transcripts/f/s", b"x" * PIECE + b"\ny\n"
    with Appliance(tmp_path / "sessions") as server, httpx.Client(base_url=server.url) as client:
        kept(client, path, lines, idempotency_key="k")
        server.kill()
        server.start()
        assert kept(client, path, lines, idempotency_key="k") == (0, 2, 2)
        kept(client, path, b"z\n")
        head = client.head(path).headers
        assert head["x-kept-digest"] == head["x-source-digest"] == sha256(lines + b"z\n")


# --------------------------------------------------------------------------- whose it is


def test_a_conversation_has_one_source(http: httpx.Client, path: str) -> None:
    kept(http, path, b"a\n", x_source="file")
    refused = post(http, path, b"b\n")
    assert refused.status_code == 409 and "'file'" in refused.json()["detail"]
    assert post(http, path, b"b\n", x_source="other").status_code == 422
    assert http.get(path).content == b"a\n"


def test_a_file_goes_on_where_it_was_and_begins_anew_where_it_was_replaced(http: httpx.Client, path: str) -> None:
    early = post(http, path, b"c\n", x_source="file", x_source_offset="4")
    assert (early.status_code, early.headers["x-source-bytes"]) == (412, "0")
    assert http.head(path).status_code == 404
    kept(http, path, b"a\nb\n", x_source="file", x_source_offset="0")
    kept(http, path, b"c\n", x_source="file", x_source_offset="4")
    refused = post(http, path, b"d\n", x_source="file", x_source_offset="5")
    assert (refused.status_code, refused.headers["x-source-bytes"]) == (412, "6")
    assert http.get(path).content == b"a\nb\nc\n"
    assert kept(http, path, b"z\n", x_source="file", x_source_offset="0") == (1, 0, 1)
    assert http.get(path).content == b"z\n"
    assert http.head(path).headers["x-generation"] == "2"


def test_what_is_beside_a_conversation_goes_with_it(http: httpx.Client, path: str) -> None:
    for query in ("", "?subpath=subagents%2Fone", "?subpath=subagents%2Ftwo"):
        kept(http, path + query, b"x\n")
    assert http.get(f"{path}/subkeys").json() == ["subagents/one", "subagents/two"]
    assert http.delete(f"{path}?subpath=subagents%2Fone").json() == {"success": True, "deleted": 1}
    assert http.get(f"{path}/subkeys").json() == ["subagents/two"]
    assert http.delete(path).json()["deleted"] == 2
    assert http.delete(path).json()["deleted"] == 0
    assert http.get(f"{path}/subkeys").json() == []
    assert kept(http, path, b"again\n") == (1, 0, 1)


def test_what_is_deleted_leaves_nothing_in_the_file(appliance: Appliance, http: httpx.Client, path: str) -> None:
    kept(http, path, os.urandom(3 << 20).hex().encode() + b"\n", idempotency_key="k")
    http.delete(path)
    database = sqlite3.connect(f"file:{appliance.folder / 'sessions.db'}?mode=ro", uri=True)
    orphans = (
        "SELECT count(*) FROM {} WHERE transcript NOT IN (SELECT transcript FROM transcripts WHERE NOT is_deleted)"
    )
    tables = ("transcripts", "transcript_pieces", "transcript_batches")
    eventually(lambda: [database.execute(orphans.format(name)).fetchone()[0] for name in tables] == [0, 0, 0])
    database.close()


def test_it_goes_with_the_session_that_it_belongs_to(http: httpx.Client, path: str, session_id: str) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "x"})
    kept(http, path, b"x\n", x_session_id=session_id)
    assert http.delete(f"/api/sessions/{session_id}").status_code == 200
    assert http.get(path).status_code == 404
    assert post(http, path, b"x\n", x_session_id="../x").status_code == 422


# -------------------------------------------------------------------------------- summaries


def test_of_two_writers_of_one_summary_one_has_to_fold_again(http: httpx.Client, path: str) -> None:
    url = f"{path}/summary"
    assert http.put(url, json={"n": 0}).status_code == 404
    kept(http, path, b"x\n")
    assert (http.get(url).status_code, http.get(url).headers["etag"]) == (404, '"0"')
    assert http.put(url, json={"n": 1}, headers={"if-match": '"0"'}).json()["version"] == 1
    assert http.put(url, json={"n": 2}, headers={"if-match": '"0"'}).status_code == 412
    assert (http.get(url).json(), http.get(url).headers["etag"]) == ({"n": 1}, '"1"')
    assert http.put(url, json=[]).status_code == 422
    for body in (b"{", b"", b'{"a": NaN}', b"\xff", b"[" * 100_000):
        assert http.put(url, content=body, headers={"content-type": "application/json"}).status_code == 400, body[:9]


def test_a_summary_is_kept_as_it_is(http: httpx.Client, path: str) -> None:
    kept(http, path, b"x\n")
    body = b'{"data": {"first_prompt": "half \\ud800 a pair", "n": 1e999}}'
    answer = http.put(f"{path}/summary", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert http.get(f"{path}/summary").content == body
    assert body in http.get(f"{path.rpartition('/')[0]}?summaries=1").content


def test_a_list_has_each_conversation_with_its_summary(http: httpx.Client) -> None:
    folder = f"/api/transcripts/{next(names)}"
    for session in ("a", "b"):
        kept(http, f"{folder}/{session}", b"x\n")
        kept(http, f"{folder}/{session}?subpath=y", b"x\n")
    http.put(f"{folder}/a/summary", json={"data": {"t": 1}})
    listed: Any = {one["sessionId"]: one for one in http.get(f"{folder}?summaries=1").json()}
    assert listed["a"]["summary"] == {"data": {"t": 1}} and listed["b"]["summary"] is None
    assert listed["a"]["summaryMtime"] >= listed["a"]["mtime"] > 1e12
    assert [set(one) for one in http.get(folder).json()] == [{"sessionId", "mtime"}] * 2
    assert http.get("/api/transcripts/unknown").json() == []


# -------------------------------------------------------------------------------- bad input

BAD_KEYS = ("a%00b", "%2E%2E", "%2e", "x" * 513, "%ff", "%ed%a0%80")
EMPTY = ("/api/transcripts/{}/", "/api/transcripts//{}", "/api/transcripts/{}//{}", "/api/checkpoints/")
GOOD_KEYS = ("a%2Fb", "a%2F..%2Fb", "%25%2E%20", "x" * 512, "%C3%BC", "..a", "a%2Eb")


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_cannot_be_one_is_refused(http: httpx.Client, key: str) -> None:
    for path in (f"/api/transcripts/{key}/s", f"/api/transcripts/f/{key}", f"/api/transcripts/f/s?subpath={key}"):
        assert post(http, path, b"x\n").status_code == http.get(path).status_code == 422, path
        assert http.delete(path).status_code == 422
    assert http.get("/api/transcripts/f/s").status_code == 404


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_key_is_refused_and_is_not_taken_for_another_path(http: httpx.Client, path: str) -> None:
    """A list, which is read, may end with a slash."""
    url = path.format("not-empty", "x")
    assert post(http, url, b"x\n").status_code == http.delete(url).status_code == 422
    assert http.get(url).status_code == (200 if url.endswith("/") else 422)


@pytest.mark.parametrize("key", GOOD_KEYS)
def test_a_key_may_have_any_other_characters(http: httpx.Client, key: str) -> None:
    path, other = f"/api/transcripts/{key}/{key}", f"/api/transcripts/{key}/other"
    kept(http, path, b"x\n")
    kept(http, other, b"y\n")
    assert (http.get(path).content, http.get(other).content) == (b"x\n", b"y\n")


@pytest.mark.parametrize("subpath", ["..%2Fx", "a%2F..%2F..%2Fb", "..", ".%2Fx", "..%5Cx", ""])
def test_a_subpath_that_climbs_out_is_refused(http: httpx.Client, path: str, subpath: str) -> None:
    assert post(http, f"{path}?subpath={subpath}", b"x\n").status_code == 422
    assert http.get(f"{path}/subkeys").json() == []


def test_what_is_compressed_is_refused_before_it_is_unpacked(http: httpx.Client, path: str) -> None:
    assert post(http, path, b"\x1f\x8b" + b"\0" * 100, content_encoding="gzip").status_code == 415
    assert http.post(path, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    for headers in ({"x-source-offset": "-1"}, {"x-source-offset": "x"}, {"idempotency-key": "a b"}):
        assert http.post(path, content=b"x\n", headers=NDJSON | headers).status_code == 422
    assert http.get(path).status_code == 404


# ---------------------------------------------------------------------------- bounds, and who reads

KEY = "sk-ant-api03-" + "aB3dE6gH9" * 10 + "AA"


def test_secrets_are_taken_out_and_the_source_is_still_known(http: httpx.Client, path: str) -> None:
    lines = b'{"a": "KEY"}\n{"thinking": "KEY", "signature": "x"}\n{"b": 1}\n'.replace(b"KEY", KEY.encode())
    kept(http, path, lines, x_source="file", x_source_offset="0")
    found = http.get(path)
    assert found.content.count(KEY.encode()) == 1 and b'{"a": "[redacted:' in found.content
    assert found.headers["x-source-digest"] == sha256(lines) != found.headers["x-kept-digest"]
    kept(http, path, b"next\n", x_source="file", x_source_offset=f"{len(lines)}")
    assert http.head(path).headers["x-source-digest"] == sha256(lines + b"next\n")


def test_a_file_that_was_written_back_goes_on_behind_what_is_kept(http: httpx.Client, path: str) -> None:
    kept(http, path, b'{"a": "KEY"}\n'.replace(b"KEY", KEY.encode()), x_source="file", x_source_offset="0")
    written_back = http.get(path).content
    kept(http, path, b"next\n", x_source="file", x_source_offset=f"{len(written_back)}")
    head = http.head(path).headers
    assert head["x-generation"] == "1" and head["x-lines"] == "2"
    assert head["x-source-digest"] == head["x-kept-digest"] == sha256(written_back + b"next\n")


def test_there_is_a_bound_for_each_session_and_for_all(tmp_path: Path) -> None:
    settings = {"SESSIONS_MAX_MATERIAL": "1M,2M", "SESSIONS_REDACT_TRANSCRIPTS": "off"}
    lines = os.urandom(400 << 10).hex().encode() + b"\n"
    with Appliance(tmp_path / "sessions", settings) as server, httpx.Client(base_url=server.url) as http:
        told = [post(http, f"/api/transcripts/f/{n}", lines, x_session_id="one").status_code for n in range(4)]
        assert told == [200, 200, 413, 413]
        told = [post(http, f"/api/transcripts/f/{n}", lines, x_session_id=f"s{n}").status_code for n in range(4, 9)]
        assert told == [200, 200, 413, 413, 413]
        refused = post(http, "/api/transcripts/f/9", lines).json()
        assert refused["limit"] == 2 << 20 and "SESSIONS_MAX_MATERIAL" in refused["detail"]
        value = {"channel": "c", "version": 1, "value": {"type": "x", "data": lines.decode()[:400_000]}}
        body = json.dumps({"value": value}) + "\n"
        assert http.post("/api/checkpoints/t", content=body, headers=NDJSON).status_code == 413
        assert post(http, "/api/transcripts/f/0", KEY.encode() + b"\n", x_session_id="new").status_code == 200
        assert KEY in http.get("/api/transcripts/f/0").text
        assert post(http, "/api/transcripts/f/new", b"x\n", x_session_id="three").status_code == 200
        summary = http.put("/api/transcripts/f/new/summary", json={"x": lines.decode()[:700_000]})
        assert (summary.status_code, summary.json()["limit"]) == (413, 2 << 20)
        http.delete("/api/transcripts/f/4")
        eventually(lambda: post(http, "/api/transcripts/f/9", lines, x_session_id="s9").status_code == 200)


def test_how_much_there_is_is_told(http: httpx.Client, path: str) -> None:
    before = http.get("/health").json()["material"]
    kept(http, path, b"x\ny\n")
    after = http.get("/health").json()["material"]
    assert (after["transcripts"], after["lines"]) == (before["transcripts"] + 1, before["lines"] + 2)
    assert after["bytes"] > before["bytes"]
    assert f"sessionstore_material_lines {after['lines']}.0" in http.get("/metrics").text


def test_what_a_session_has_claimed_is_its_own(http: httpx.Client, session_id: str) -> None:
    early, late, named = f"{session_id}-early", f"{session_id}-late", f"{session_id}-named"
    for name in (named, session_id):
        http.post(f"/api/actions/{name}", json={"type": "x"})
    kept(http, f"/api/transcripts/f/{early}", b"x\n")
    http.patch(f"/api/sessions/{session_id}/metadata", json={"claims": [f"claude:{early}", f"claude:{late}", 7]})
    kept(http, f"/api/transcripts/f/{late}", b"x\n")
    kept(http, f"/api/transcripts/f/{named}", b"x\n")
    http.delete(f"/api/sessions/{session_id}")
    found = [http.get(f"/api/transcripts/f/{name}").status_code for name in (early, late, named)]
    assert found == [404, 404, 200]
    http.delete(f"/api/sessions/{named}")
    assert http.get(f"/api/transcripts/f/{named}").status_code == 404


def tables_of_material(server: Appliance) -> list[str]:
    database = sqlite3.connect(f"file:{server.folder / 'sessions.db'}?mode=ro", uri=True)
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    database.close()
    return [name for (name,) in rows if name.startswith(("transcript", "checkpoint", "material", "claims"))]


def test_nobody_finds_it_by_sql_search_or_in_the_tree(
    appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    http.post(f"/api/actions/{session_id}", json={"type": "x", "text": "spoken aloud"})
    kept(http, f"/api/transcripts/f/{session_id}", b'{"text": "whispered"}\n', x_session_id=session_id)
    tables = tables_of_material(appliance)
    assert len(tables) == 11
    for table in tables:
        for query in (f"select * from {table}", f"select * from main.{table}", f"select * from sessions.{table}"):
            answer = http.get("/datasette/sessions.json", params={"sql": query, "_shape": "array"})
            assert answer.status_code == 400, (query, answer.text)
    assert http.get("/datasette/sessions.json", params={"sql": "select 1 from sessions"}).status_code == 200
    assert http.get("/api/query/search?q=whispered").json()["items"] == []
    eventually(lambda: http.get("/api/query/search?q=aloud").json()["items"] != [])
    folder = appliance.folder / "sessions" / session_id
    eventually(lambda: "spoken aloud" in (folder / "events.jsonl").read_text() if folder.exists() else False)
    assert all("whispered" not in file.read_text() for file in folder.iterdir() if file.is_file())


def test_what_belongs_to_no_session_goes_some_time_after_its_last_change(tmp_path: Path) -> None:
    database = Database(tmp_path / "sessions.db")
    database.append(drafted("action", "s", {"type": "x"}))
    connection = database.connection
    for key, session_id in (("a", None), ("b", "s"), ("c", "gone"), ("d", None)):
        material.begin(connection, Key("f", key), Provenance(session_id=session_id), now=2 if key == "d" else 1)
        checkpoints.begin(connection, key, Provenance(session_id=session_id), now=2 if key == "d" else 1)
    assert material.expire(connection, before=2) == 4
    assert [found is not None for found in (material.find(connection, Key("f", key)) for key in "abcd")] == [
        *(False, True, False, True)
    ]
    database.close()
