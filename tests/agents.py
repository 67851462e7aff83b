"""Agents as they run: programs and hooks in processes of their own, with a spool of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

import hook_agent
from hook_agent import Spool
from tests.appliance import REPOSITORY
from tests.peers import eventually

Json = dict[str, Any]

SECONDS = 60.0
"""How long a process may take before it counts as stuck."""
HOOK = f"import sys; sys.path.append({str(REPOSITORY)!r}); import hook_agent; hook_agent.hook()"
"""What the command in Claude Code's settings runs, without the `|| :` around it that would hide a failure."""


def environment(folder: Path, url: str, **more: str) -> dict[str, str]:
    """Nothing of the caller's, so that no setting or proxy of this machine has a part in it."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(REPOSITORY),
        "SESSION_SERVICE_URL": url,
        "SESSION_SPOOL_DIR": str(folder / "spool"),
        **more,
    }


def start(code: str, env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """A program with the text `code`; warnings are errors in it, too."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(code: str, env: dict[str, str], *arguments: str) -> str:
    """What the program printed; that it ended well, and silently but for that, is part of it."""
    program = start(code, env, *arguments)
    output, errors = program.communicate(timeout=SECONDS)
    assert errors == b"" and program.returncode == 0, f"{program.returncode}: {errors.decode()}"
    return output.decode()


def hook(payload: bytes, env: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of one run of it."""
    command = [sys.executable, "-I", "-S", "-c", HOOK]
    ran = subprocess.run(command, env=env, input=payload, capture_output=True, timeout=SECONDS)
    return ran.returncode, ran.stdout, ran.stderr


def command(name: str, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python hook_agent.py NAME …`."""
    return subprocess.run(
        [sys.executable, hook_agent.__file__, name, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


# ------------------------------------------------------------------------- spools


def spool_in(folder: Path, url: str, limit: int = hook_agent._SPOOL_BYTES) -> Spool:
    """The one that processes with `environment(folder, url)` share."""
    spool = Spool(url, str(folder / "spool"), limit)
    spool.settle()
    return spool


def waiting_in(spool: Spool) -> list[Json]:
    """The events that wait, without delivering them; lines that nobody can read are left out."""
    found = []
    for number in spool.segments():
        with open(spool._segment(number), "rb") as segment:
            segment.seek(spool._offset(number))
            for line in segment:
                with suppress(ValueError):
                    found.append(json.loads(line))
    return found


def letters_in(spool: Spool) -> list[Json]:
    """The dead letters that are whole: a large one may just be written."""
    files = sorted(Path(spool.path("dead")).glob("*.ndjson"))
    lines = (line for file in files for line in file.read_text().splitlines(keepends=True))
    return [json.loads(line) for line in lines if line.endswith("\n")]


def line_of(number: int, session: str = "test", **data: object) -> bytes:
    """An event as a library writes it into the spool."""
    event = {
        "sessionId": session,
        "eventId": f"event-{number}",
        "timestamp": f"2026-01-01T00:00:00.{number % 1000:03}Z",
        "type": "action",
        "data": {"type": "step", "number": number, **data},
    }
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def senders_in(folder: Path) -> Iterator[int]:
    """The processes that deliver from any spool below."""
    for lock in folder.rglob("sender.lock"):
        words = lock.read_text().split()
        if words and is_python(int(words[0])):
            yield int(words[0])


def is_python(pid: int) -> bool:
    """Whether the process is still there, and no other has its number."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def stop_senders(folder: Path) -> None:
    """They are gone afterwards, and their locks with them."""
    for pid in set(senders_in(folder)) - {os.getpid()}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_python(pid))  # noqa: B023


def remove_spools(folder: Path) -> None:
    """So that nothing is left to be delivered, by a sender that is only just starting either: it leaves."""
    stop_senders(folder)
    for lock in [*folder.rglob("sender.lock"), *folder.rglob("lock")]:
        shutil.rmtree(lock.parent, ignore_errors=True)


# -------------------------------------------------------------------------- store


def numbers_of(http: httpx.Client, session: str) -> list[int]:
    """What `line_of` or a program counted, as the store has it, in the order of its log."""
    answer = http.get(f"/api/actions/{session}", params={"limit": 10_000})
    return [entry["number"] for entry in answer.json() if "number" in entry] if answer.status_code == 200 else []


def entries_of(http: httpx.Client, session: str, log: str = "") -> list[Json]:
    answer = http.get(f"/api/actions/{session}{log}", params={"limit": 10_000})
    entries: list[Json] = answer.json() if answer.status_code == 200 else []
    return entries
