"""The drill: a database is lost and comes back, and a drill that could not fail would show nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance import REPOSITORY
from tests.commands import export, is_done
from tests.peers import children_of, eventually, is_running
from tests.repeats import LONG


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"(?<![\d.])\d[\d,]*(?![\d.])", text)]


def test_every_acknowledged_event_comes_back_and_it_is_said_how_long_it_took(tmp_path: Path) -> None:
    ended = export(tmp_path, "drill", "--events", "1500")
    assert ended.returncode == 0, ended
    came_back, lost = ended.stdout.splitlines()
    from_backup, from_tree = numbers(came_back)[:2]
    assert from_backup >= 750 and from_tree == 750
    assert re.search(r"ready \d+\.\d s after", came_back)
    assert lost == "Lost, of 1,500 acknowledged events: 0"


@LONG
def test_without_the_tree_what_came_after_the_backup_is_lost_and_said_to_be(tmp_path: Path) -> None:
    ended = export(tmp_path, "drill", "--events", "1500", "--no-tree")
    assert ended.returncode == 1, ended
    assert ended.stdout.splitlines()[1] == "Lost, of 1,500 acknowledged events: 750"
    assert "accepted as lost" in ended.stderr


@LONG
def test_a_lake_brings_back_what_a_lost_folder_had_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ended = export(tmp_path, "drill", "--events", "600", "--lake", lake.as_uri())
    assert ended.returncode == 0, ended
    came_back, lost = ended.stdout.splitlines()
    assert numbers(came_back)[0] == 600 + 20  # and the sessions' beginnings
    assert "came back from the lake; the server was ready" in came_back
    assert lost == "Lost, of 600 acknowledged events: 0"
    assert "The server is killed, and its folder is gone" in ended.stderr
    assert list(lake.iterdir()) == []


@LONG
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_one_that_is_ended_in_the_middle_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "export", "drill", "--events", "1000000", "--dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path)}) as drill:
        eventually(lambda: list(tmp_path.glob("drill-*/store/sessions.db")))
        (server, *_) = children_of(drill.pid)
        drill.send_signal(number)
        drill.wait()
    eventually(lambda: not is_running(server))
    assert number == signal.SIGKILL or not [*tmp_path.iterdir()]


@pytest.mark.parametrize("events", ["0", "-1", "many"])
def test_wrong_use_is_exit_code_2(tmp_path: Path, events: str) -> None:
    assert export(tmp_path, "drill", "--events", events).returncode == 2


def test_the_help_of_every_command_says_what_it_does(tmp_path: Path) -> None:
    listed = re.findall(r"^ {2}([a-z-]+) {2,}\S", export(tmp_path, "--help").stdout, re.MULTILINE)
    assert {"backup", "archive", "restore", "accept-loss", "drill"} <= set(listed)
    for name in listed:
        assert is_done(ended := export(tmp_path, name, "--help"))
        assert len(ended.stdout.splitlines()) > 5
