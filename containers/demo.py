"""Starts the store and both LangGraph agents as processes, without Docker, until Ctrl-C: `make demo`.

PORT is the store's (9000). With ANTHROPIC_API_KEY Claude answers the customers, without one rules do. All of it is in a
folder that is gone afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
AGENTS = {"fly_achensee_customer": "OUTBOX", "email_solver": "OUTGOING"}
"""The folder of each, and the variable that says where its answers go."""
READY_SECONDS = 60.0
END_SECONDS = 20.0


def start(folder: Path, cwd: Path, env: Mapping[str, str], *command: str) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C is for this program, which ends the others in order."""
    more = {"HOME": str(folder), "PYTHONPATH": str(ROOT), **env}
    line = [sys.executable, *command]
    return subprocess.Popen(line, cwd=cwd, env={**os.environ, **more}, stdin=subprocess.DEVNULL, start_new_session=True)


def wait_for(url: str, store: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and store.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("demo: the store did not start")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def demo(folder: Path) -> None:
    port = os.environ.get("PORT") or "9000"
    url = f"http://127.0.0.1:{port}"
    own = {"SESSIONS_DIR": str(folder / "sessions"), "SESSIONS_HOST": "127.0.0.1", "PORT": port}
    store = start(folder, ROOT, own, str(ROOT / "app.py"))
    agents: list[subprocess.Popen[bytes]] = []
    spool = {"SESSION_SERVICE_URL": url, "SESSION_SPOOL_DIR": str(folder / "spool")}
    try:
        wait_for(url, store)
        for name, answers in AGENTS.items():
            said = {**spool, "SESSION_ID": f"demo-{name}", "SESSION_USER_ID": "demo", answers: str(folder / name)}
            agents.append(start(folder, ROOT / "containers" / name, said, "-m", "src.main_with_session"))
        print(f"Two agents are at work: {url}/    Ctrl-C ends it.", flush=True)
        store.wait()
    except KeyboardInterrupt:
        print("Ending …", flush=True)
    finally:
        for agent in agents:
            end(agent)
        if agents and store.poll() is None:
            start(folder, ROOT, spool, str(ROOT / "hook_agent.py"), "flush").wait(END_SECONDS)
        end(store)


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    with tempfile.TemporaryDirectory(prefix="session-store-demo-", ignore_cleanup_errors=True) as folder:
        demo(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
