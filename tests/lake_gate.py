"""A proxy before an S3 server that fails on purpose: at a commit, or for everything; and sealers that it kills."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.appliance import REPOSITORY
from tests.lakes import Place, Storage

COMMIT = re.compile(r"/(events|sessions|details)/_delta_log/\d{20}\.json$")
Fault = Literal["", "before", "after", "cut", "refuse"]


class Gate(ThreadingHTTPServer):
    """Passes all on; `fault` says what happens at the next commit: its sealer (`victim`) is killed before the bucket
    has it, or after; or the answer is cut. `refuse`: nothing comes through, until it is taken back."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = urlsplit(upstream).netloc
        self.fault: Fault = ""
        self.only = COMMIT
        self.spared = 0
        """How many commits come through before it strikes."""
        self.delay = 0.0
        """Seconds that an object takes longer to be put: as in a bucket that is far away."""
        self.victim: subprocess.Popen[bytes] | None = None
        self.struck: list[str] = []
        """What faults have come to pass."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""

    def take(self, method: str, path: str) -> Fault:
        """The fault of one request."""
        if self.fault == "refuse":
            return "refuse"
        if not (self.fault and method == "PUT" and self.only.search(path)):
            return ""
        if self.spared:
            self.spared -= 1
            return ""
        fault, self.fault = self.fault, ""
        self.struck.append(fault)
        return fault

    def kill(self) -> None:
        assert self.victim is not None
        self.victim.kill()


class Passing(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms: a log of many commits is many answers

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.delay and self.command == "PUT":
            time.sleep(self.server.delay)
        fault = self.server.take(self.command, self.path)
        if fault == "before":
            self.server.kill()
        if fault in ("before", "refuse"):
            self.close_connection = True
            return
        answer, said = self.asked(body)
        if fault == "after":
            self.server.kill()
        if fault in ("after", "cut"):
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("content-length", answer.getheader("content-length") or str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def asked(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def gate_before(storage: Storage) -> Iterator[Gate]:
    with Gate(storage.endpoint) as gate:
        threading.Thread(target=gate.serve_forever, args=(0.05,), daemon=True).start()
        yield gate
        gate.shutdown()


def through(gate: Gate, place: Place) -> Place:
    return Place(place.url, {**place.environment, "AWS_ENDPOINT_URL": gate.endpoint})


# ----------------------------------------------------------------------- the sealer


def start_sealer(path: Path, place: Place, shard: str, *options: str) -> subprocess.Popen[bytes]:
    """One that ends when everything is sealed, in commits of a few events."""
    command = [sys.executable, "-m", "tests.lake_gate", str(path), place.url, shard, *options]
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **place.environment}, stderr=subprocess.DEVNULL)


def seal_all(path: Path, url: str, shard: str, mark: str = "") -> None:
    """`mark`: a file that says how far it is sealed, in the place of the table's own transactions: what must not be."""
    from lake import sealer

    sealer.MAX_EVENTS = 20
    if mark:
        forget_transactions(Path(mark))
    sealing = sealer.Sealer(path, url, shard)
    while (upto := sealing.seal()) is not None:
        if mark:
            Path(mark).write_text(str(upto))


def forget_transactions(mark: Path) -> None:
    from arro3.core import RecordBatchReader
    from deltalake import write_deltalake

    from lake import sealer
    from lake.columns import schema_of

    def append(into: Any, rows: Any, columns: Any, shard: str, cursor: int, store: str) -> None:
        reader = RecordBatchReader.from_batches(schema_of(columns), rows)
        write_deltalake(into, reader, mode="append", schema_mode="merge")

    def marked(*_: Any) -> int:
        return int(mark.read_text()) if mark.exists() else 0

    vars(sealer).update(append=append, sealed_by=marked)


if __name__ == "__main__":
    seal_all(Path(sys.argv[1]), *sys.argv[2:])
