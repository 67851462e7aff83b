"""The probe of a bucket: what keeps its conditions passes, what ignores them is refused by name."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import obstore
import pytest

from lake.bucket import PROBES, BucketAway, BucketRefused, open_bucket, probe
from tests.appliance import REPOSITORY, reserve_port
from tests.lakes import Place, environment


def objects(url: str) -> list[str]:
    return [found["path"] for some in obstore.list(open_bucket(url)) for found in some]


class Careless(BaseHTTPRequestHandler):
    """An S3 of objects in memory, which keeps what conditions it is told to: its headers are signed, so that nothing
    before a real one could take them away."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    ignores: Callable[[str], bool]
    """Whether it looks past a header, asked once for each condition that comes."""

    @property
    def name(self) -> str:
        return self.path.partition("?")[0].removeprefix("/bucket/")

    def keeps(self, header: str) -> bool:
        return header in self.headers and not type(self).ignores(header)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        there = self.objects.get(self.name)
        if (self.keeps("If-None-Match") and there is not None) or (
            self.keeps("If-Match") and (there is None or self.headers["If-Match"] != etag(there))
        ):
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self.objects[self.name] = body
            self.answer(200, b"", etag(body))

    def do_GET(self) -> None:
        if "list-type" in self.path:
            prefix = parse_qs(self.path.partition("?")[2])["prefix"][0]
            names = sorted(name for name in self.objects if name.startswith(prefix))
            self.answer(200, f"<ListBucketResult>{''.join(map(LISTED.format, names))}</ListBucketResult>".encode())
        elif (there := self.objects.get(self.name)) is not None:
            self.answer(200, there, etag(there))
        else:
            self.answer(404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        gone = re.findall("<Key>(.*?)</Key>", body)
        for name in gone:
            del self.objects[name]
        said = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in gone)
        self.answer(200, f"<DeleteResult>{said}</DeleteResult>".encode())

    def answer(self, status: int, body: bytes, tag: str = '""') -> None:
        self.send_response(status)
        for name, value in (("etag", tag), ("content-length", f"{len(body)}"), ("last-modified", MODIFIED)):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


LISTED = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


@contextmanager
def careless(ignores: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Such a store for this process; its objects."""
    objects: dict[str, bytes] = {}
    handler = type("Handler", (Careless,), {"objects": objects, "ignores": staticmethod(ignores)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    for name, value in environment(f"http://127.0.0.1:{server.server_port}").items():
        monkeypatch.setenv(name, value)
    try:
        yield objects
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_store_that_keeps_its_conditions_passes_and_nothing_is_left(place: Place) -> None:
    probe(place.url)
    assert objects(place.url) == []


def test_a_store_that_ignores_a_condition_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = ""
    with careless(lambda header: header == ignored, monkeypatch) as objects:
        probe(URL)  # what the stub is besides is not what is refused
        for ignored in ("If-None-Match", "If-Match"):
            with pytest.raises(BucketRefused, match=f"^{URL} ignores {ignored}: .* Use a store that keeps"):
                probe(URL)
        assert objects == {}


URL = "s3://bucket/prefix"


def test_a_server_does_not_start_on_a_store_that_ignores_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with careless(lambda header: header == "If-None-Match", monkeypatch):
        environment = os.environ | {"SESSIONS_DIR": str(folder), "SESSIONS_LAKE": URL, "PORT": "0"}
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"session store: SESSIONS_LAKE: {URL} ignores If-None-Match: ")
    assert not (folder / "sessions.db").exists()


def test_a_store_that_lets_several_win_a_race_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the condition where one comes after the other, and looks too early where they come together."""
    asked: list[str] = []

    def ignores(header: str) -> bool:
        asked.append(header)
        return len(asked) > EARLIER

    with (
        careless(ignores, monkeypatch) as objects,
        pytest.raises(BucketRefused, match="lets 6 of 6 win that create the same object at once"),
    ):
        probe(URL)
    assert asked == ["If-None-Match"] * 2 + ["If-Match"] * 2 + ["If-None-Match"] * 6
    assert objects == {}


EARLIER = 4
"""Conditions of the trials before the race."""


def test_the_wrong_key_is_said_with_what_is_needed(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(BucketRefused, match=r"does not let this store in: .* AWS_SECRET_ACCESS_KEY"):
        probe(bucket.url)


def test_what_does_not_answer_is_away_and_not_refused(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with reserve_port() as nobody:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(BucketAway, match=f"{bucket.url} does not answer"):
            probe(bucket.url)


@pytest.mark.parametrize("url", ["ftp://bucket/prefix", "s3://", "bucket"])
def test_what_is_no_place_is_said_with_what_is(url: str) -> None:
    with pytest.raises(BucketRefused, match=r"no place for a lake: name one such as s3://bucket/prefix"):
        probe(url)


def test_what_a_probe_left_that_was_killed_goes_with_a_later_one(tmp_path: Path) -> None:
    left = tmp_path / PROBES / "killed"
    left.mkdir(parents=True)
    for name, seconds in {"old": 0, "new": None}.items():
        (left / name).write_bytes(b"first")
        if seconds is not None:
            os.utime(left / name, (seconds, seconds))
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "probe").write_bytes(b"somebody's")
    probe(tmp_path.as_uri())
    assert sorted(objects(tmp_path.as_uri())) == ["events/probe", f"{PROBES}/killed/new"]
