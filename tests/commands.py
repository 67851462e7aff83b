"""`python -m export` and `python app.py token`, run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

from tests import appliance
from tests.appliance import REPOSITORY
from tests.warm import ForkServer


def export(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command on the store in `folder`; no other setting reaches it."""
    return run(folder, ["-m", "export", *map(str, arguments)], environment)


def token(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Likewise."""
    return run(folder, ["app.py", "token", *arguments], environment)


def run(
    folder: Path, arguments: list[str], environment: dict[str, str], cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SESSIONS_", "PORT"))}
    command, env = [sys.executable, *arguments], {**inherited, "SESSIONS_DIR": str(folder), **environment}
    if (server := appliance.fork_server) and server.takes(command, env, REPOSITORY):
        return run_by(server, command, env, cwd)
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_by(server: ForkServer, command: list[str], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    with TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
        code = server.start(command[1:], env, out.fileno(), errors.fileno(), cwd).wait(60)
        for file in (out, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), errors.read())


def is_done(ended: subprocess.CompletedProcess[str]) -> bool:
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return True


def is_refused(ended: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Exit code 1, and lines for people on stderr that have these words."""
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended
    return all(word in ended.stderr for word in words)
