"""What takes long says how far it is: by a bar on a terminal, and by nothing where its output is kept."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance
from tests.commands import export, is_done

SESSIONS = 3


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that has ended, with some sessions that have ended too."""
    folder = tmp_path_factory.mktemp("lived") / "store"
    with Appliance(folder) as server:
        for number in range(SESSIONS):
            httpx.post(f"{server.url}/api/actions/s{number}", json={"type": "x"})
            httpx.post(f"{server.url}/api/sessions/s{number}/finalize")
    return folder


def shown(folder: Path, *arguments: str) -> str:
    """What a command writes to the terminal that its errors go to."""
    terminal, other = pty.openpty()
    env = {**os.environ, "SESSIONS_DIR": str(folder), "TERM": "xterm"}
    command = [sys.executable, "-m", "export", *arguments]
    with os.fdopen(terminal, "rb") as screen:
        ended = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=other, timeout=60)
        os.close(other)
        written = bytearray()
        with suppress(OSError):  # nobody has the other end any more
            while piece := os.read(screen.fileno(), 65536):
                written += piece
    assert ended.returncode == 0, (ended, written)
    return written.decode()


FULL = f"[{'#' * 36}]"


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ("tree --to TO", f"sessions  {FULL}  {SESSIONS}/{SESSIONS}"),
        ("archive --before 2999-01-01 --to TO", f"sessions  {FULL}  {SESSIONS}/{SESSIONS}"),
        ("backup TO/copy.db", f"pages  {FULL}"),
        ("compact", "million steps  ["),
        ("restore STORE --into TO", f"events  {FULL}  {3 * SESSIONS}/{3 * SESSIONS}"),
    ],
)
def test_a_bar_on_a_terminal_says_how_far_it_is_and_elsewhere_nothing(
    lived: Path, tmp_path: Path, arguments: str, last: str
) -> None:
    def said(to: Path) -> list[str]:
        to.mkdir()
        return arguments.replace("STORE", str(lived)).replace("TO", str(to)).split()

    assert last in shown(lived, *said(tmp_path / "shown"))
    assert is_done(export(lived, *said(tmp_path / "kept")))
