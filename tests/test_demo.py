"""`make demo`: the store and two agents without Docker, all of it gone after Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.appliance import REPOSITORY
from tests.peers import eventually

SECONDS = 60.0
SESSIONS = {"demo-email_solver", "demo-fly_achensee_customer"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_both_agents_work_until_ctrl_c_and_nothing_is_left(tmp_path: Path) -> None:
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SESSION", "ANTHROPIC_"))}
    env = {**inherited, "PORT": str(port), "TMPDIR": str(tmp_path), "PACE_SECONDS": "0"}
    line = [sys.executable, str(REPOSITORY / "containers/demo.py")]
    demo = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def at_work() -> set[str]:
        try:
            found = httpx.get(f"http://127.0.0.1:{port}/api/sessions").json()["items"]
        except httpx.TransportError:
            return set()
        return {session["sessionId"] for session in found if session["responses"]}

    try:
        eventually(lambda: at_work() == SESSIONS, SECONDS)
    finally:
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, said
    assert "Two agents are at work" in said and "Traceback" not in said
    assert list(tmp_path.glob("session-store-demo-*")) == []
