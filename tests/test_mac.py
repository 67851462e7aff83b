"""Where the system lacks what only Linux has, as a Mac does, server, backup, analytics and agent work as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import hook_agent
from tests.agents import environment
from tests.appliance import Appliance
from tests.commands import export, is_done

LACKING = """
import os, resource, signal, socket
del socket.TCP_USER_TIMEOUT, os.fdatasync, signal.sigwaitinfo, signal.sigtimedwait, resource.RLIMIT_AS
"""


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python has none of those names."""
    place = tmp_path_factory.mktemp("mac")
    (place / "sitecustomize.py").write_text(LACKING)
    return {"PYTHONPATH": str(place)}


@pytest.fixture(scope="module")
def mac(tmp_path_factory: pytest.TempPathFactory, lacking: dict[str, str]) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("store") / "sessions", lacking) as server:
        yield server


def test_the_names_are_gone(lacking: dict[str, str]) -> None:
    code = "import socket, os; print(hasattr(socket, 'TCP_USER_TIMEOUT'), hasattr(os, 'fdatasync'))"
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | lacking, capture_output=True, check=True)
    assert ended.stdout == b"False False\n"


def test_the_server_starts_takes_and_answers(mac: Appliance) -> None:
    assert httpx.post(f"{mac.url}/api/actions/s", json={"type": "x"}).json()["seq"] == 1
    assert httpx.get(f"{mac.url}/ready").status_code == 200


def test_a_backup_is_made(mac: Appliance, lacking: dict[str, str], tmp_path: Path) -> None:
    assert is_done(export(mac.folder, "backup", tmp_path / "copy.db", **lacking))
    assert (tmp_path / "copy.db").stat().st_size > 0


def test_questions_are_answered(mac: Appliance) -> None:
    answer = httpx.get(f"{mac.url}/datasette/sessions.json?sql=select+1+as+one&_shape=array", timeout=60)
    assert answer.json() == [{"one": 1}]


def test_a_command_is_run_and_its_signals_are_passed_on(
    lacking: dict[str, str], tmp_path: Path, no_sender_is_left: None
) -> None:
    code = "import os, signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(7)); print('ready', flush=True)"
    command = [sys.executable, hook_agent.__file__, "run", "--", sys.executable, "-c", f"{code}; signal.pause()"]
    env = environment(tmp_path, "http://127.0.0.1:9", **lacking)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGUSR1)
        assert running.wait(30) == 7
