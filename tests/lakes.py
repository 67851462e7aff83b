"""Places for a lake: a prefix of its own for each test, in the bucket of a real S3 server (SeaweedFS) on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from lake.sealer import Sealer
from tests.appliance import POLL_SECONDS, ServerError, reserve_port

WEED = str(Path(sysconfig.get_path("scripts")) / "weed")
BUCKET = "lakes"
PORTS = ("master", "volume", "filer", "s3", "admin")
"""Each has one for HTTP and one for gRPC."""
START_SECONDS = 60.0
numbers = count(1)


class Place(NamedTuple):
    """Where a lake is: SESSIONS_LAKE, and the environment in which programs reach it."""

    url: str
    environment: dict[str, str]


class Storage:
    """A running S3 server. Its keys are configured: without, it refuses uploads that are signed piece by piece."""

    def __init__(self, folder: Path) -> None:
        reservations = {name: (reserve_port(), reserve_port()) for name in PORTS}
        self.ports = {name: [held.getsockname()[1] for held in pair] for name, pair in reservations.items()}
        (folder / "keys.json").write_text(json.dumps({"identities": [IDENTITY]}))
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(folder),
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "GOMAXPROCS": "2"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.reservations = reservations

    def command(self, folder: Path) -> list[str]:
        listening = [
            option
            for name, (port, grpc) in self.ports.items()
            for option in (f"-{name}.port={port}", f"-{name}.port.grpc={grpc}")
        ]
        without = ("webdav=false", "admin.ui=false", "master.telemetry=false", "s3.port.iceberg=0", "s3.port.lance=0")
        return [
            *(WEED, "-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-dir={folder}", f"-s3.config={folder / 'keys.json'}", *listening, *(f"-{name}" for name in without)),
        ]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3'][0]}"

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.takes_objects():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"the S3 server does not answer: {self.log.read_text()[-4000:]}")
            time.sleep(POLL_SECONDS)

    def takes_objects(self) -> bool:
        """The first one makes the bucket."""
        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            access_key_id=KEYS["accessKey"],
            secret_access_key=KEYS["secretKey"],
            region="us-east-1",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        with suppress(BaseError):
            obstore.put(store, "ready", b"")
            return True
        return False

    def place(self, endpoint: str | None = None) -> Place:
        """A prefix that nobody else has, reached directly or through something that stands before the server."""
        return Place(f"s3://{BUCKET}/{next(numbers)}", environment(endpoint or self.endpoint))

    def shell(self, command: str) -> None:
        """What its administrator says to it."""
        master, filer = (f"127.0.0.1:{'.'.join(map(str, self.ports[name]))}" for name in ("master", "filer"))
        shell = [WEED, "shell", f"-master={master}", f"-filer={filer}"]
        subprocess.run(shell, input=f"{command}\nexit\n", text=True, capture_output=True, check=True, timeout=30)

    def end(self) -> None:
        """It would take seconds to end by itself, and leave sockets behind."""
        self.process.kill()
        self.process.wait()
        for pair in self.reservations.values():
            for held in pair:
                for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{held.getsockname()[1]}.sock"):
                    left.unlink(missing_ok=True)
                held.close()


KEYS = {"accessKey": "lake", "secretKey": "lake-secret"}
IDENTITY = {"name": "lake", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}


def environment(endpoint: str) -> dict[str, str]:
    """As a person sets it for a server of his own; obstore and deltalake read it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEYS["accessKey"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"],
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def storage() -> Iterator[Storage]:
    """The server, with an empty bucket. Its folder is in memory where the machine has such."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="lakes-", dir=memory if os.access(memory, os.W_OK) else None))
    running = Storage(folder)
    try:
        running.wait()
        yield running
    finally:
        running.end()
        shutil.rmtree(folder, ignore_errors=True)


def seal(path: Path, url: str, shard: str) -> int | None:
    """One range, by nobody who seals again."""
    return Sealer(path, url, shard).seal()
