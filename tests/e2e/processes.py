"""The world of plain processes: the same programs as in the containers, in folders of their own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, ClassVar

from tests.agents import remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.test_claude_code import CLAUDE
from tests.test_node import is_new_enough, nodes

from .worlds import AGENTS, Failed, command

CONTAINERS = REPOSITORY / "containers"
FOLDERS = {"customer": "fly_achensee_customer", "email": "email_solver"}
CLAUDE_FILES = (
    "hook_agent.py",
    "containers/hook_agent_control.py",
    "containers/hook_agent_facts.py",
    "containers/hook_agent_install.py",
    "containers/hook_agent_restore.py",
    "containers/hook_agent_ship.py",
    "containers/hook_agent.mjs",
    "containers/fly_achensee_claude/session.mjs",
)
SECONDS = 60.0


class Processes:
    name: ClassVar[str] = "processes"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="session-store-e2e-"))
        self._tokens = {role: secrets.token_urlsafe(24) for role in ("admin", "read", "ingest")}
        self._token_file = self._folder / "token"
        self._store = Appliance(
            self._folder / "sessions",
            {
                "SESSIONS_TOKEN": self._tokens["admin"],
                "SESSIONS_READ_TOKEN": self._tokens["read"],
                "SESSIONS_INGEST_TOKEN": self._tokens["ingest"],
                "SESSIONS_AGENT_TOKEN_FILE": str(self._token_file),
            },
        )
        self.url = self._store.url
        self._log = (self._folder / "log").open("ab")
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: dict[str, str] = {}
        self._model: subprocess.Popen[bytes] | None = None

    def build(self) -> str:
        """What the Claude container's Dockerfile does, for this user and in this folder."""
        for agent in AGENTS:
            (self._home(agent) / "tmp").mkdir(parents=True)
        opt, project = self._folder / "opt", self._folder / "project"
        opt.mkdir()
        for file in CLAUDE_FILES:
            shutil.copy(REPOSITORY / file, opt)
        (opt / "claude").symlink_to(CLAUDE)
        shutil.copytree(CONTAINERS / "fly_achensee_claude" / "project", project)
        config = json.loads((CONTAINERS / "fly_achensee_claude" / "claude.json").read_text())
        config["projects"] = {str(project): config["projects"]["/app/project"]}
        settings = self._home("claude") / ".claude"
        settings.mkdir()
        (settings / ".claude.json").write_text(json.dumps(config))
        install = [sys.executable, str(opt / "hook_agent.py"), "install", "--control"]
        if (done := command(install, SECONDS, self._environment("claude"))).returncode:
            raise Failed(f"hook_agent.py install: {done.stderr}")
        return f"this checkout, and {CLAUDE}"

    def start_store(self) -> None:
        self._store.start(until="/health", within=SECONDS)

    def kill_store(self) -> None:
        self._store.kill()

    def stop_store(self) -> int:
        return self._store.stop(within=20).code

    def start_agents(self) -> None:
        """Each with a session of its own, as new containers have."""
        self._sessions = {agent: f"test-{agent}-{secrets.token_hex(6)}" for agent in AGENTS}
        if self._model is None:
            self._model = self._start_model()
        for agent in AGENTS:
            self._start(agent)

    def states(self) -> dict[str, str]:
        codes = {agent: process.poll() for agent, process in self._agents.items()}
        return {agent: "running" if code is None else str(code) for agent, code in codes.items()}

    def restart_agent(self, agent: str) -> None:
        self._stop(self._agents.pop(agent))
        self._start(agent)

    def down(self) -> None:
        for agent in list(self._agents):
            self._stop(self._agents.pop(agent))
        self.stop_store()

    def export(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "SESSIONS_DIR": str(self._store.folder), "PYTHONPATH": str(REPOSITORY)}
        return command([sys.executable, "-m", "export", *arguments], SECONDS, env)

    def token(self, role: str) -> str:
        return self._tokens[role]

    def logs(self) -> str:
        return self._store.output[-2000:] + (self._folder / "log").read_text(errors="replace")[-4000:]

    def end(self) -> None:
        for process in [*self._agents.values(), *([self._model] if self._model else [])]:
            self._stop(process)
        if self._store.running:
            self._store.kill()
        remove_spools(self._folder)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --------------------------------------------------------------- processes

    def _home(self, agent: str) -> Path:
        return self._folder / agent

    def _environment(self, agent: str) -> dict[str, str]:
        """Nothing of the caller's: no key, no proxy, no settings of Claude Code."""
        home = self._home(agent)
        return {
            "PATH": os.pathsep.join((str(self._folder / "opt"), str(Path(node()).parent), os.environ["PATH"])),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "SESSION_SERVICE_URL": self.url,
            "SESSION_TOKEN_FILE": str(self._token_file),
            "SESSION_SPOOL_DIR": str(home / "spool"),
            "SESSION_USER_ID": f"user-of-{agent}",
            "SESSION_ID": self._sessions.get(agent, ""),
            "PACE_SECONDS": "0",
        }

    def _start(self, agent: str) -> None:
        env = self._environment(agent)
        home = self._home(agent)
        if agent == "claude":
            image = {
                "CLAUDE_CONFIG_DIR": str(home / ".claude"),
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_ENABLE_TODO_TOOLS": "1",
                "DISABLE_AUTOUPDATER": "1",
                "NO_PROXY": "127.0.0.1",
                "CLAUDE_PROMPT": "/heed-gusts",
                "SCRIPTED_MODEL_URL": self._model_url,
            }
            line = [node(), str(self._folder / "opt" / "session.mjs")]
            self._agents[agent] = self._popen(line, env | image, self._folder / "project")
            return
        places = {"OUTBOX": str(home / "outbox"), "OUTGOING": str(home / "outgoing")}
        line = [sys.executable, "-m", "src.main_with_session"]
        self._agents[agent] = self._popen(line, env | places, CONTAINERS / FOLDERS[agent])

    def _start_model(self) -> subprocess.Popen[bytes]:
        model = CONTAINERS / "fly_achensee_claude" / "scripted_model.py"
        line = [sys.executable, str(model), "--port", "0", "--project", str(self._folder / "project")]
        process = self._popen(line, {"PATH": os.environ["PATH"]}, self._folder, subprocess.PIPE)
        assert process.stdout
        self._model_url = process.stdout.readline().decode().split()[-1]
        return process

    def _popen(
        self, line: list[str], env: dict[str, str], cwd: Path, stdout: int | IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            line, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout or self._log, stderr=self._log
        )

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def node() -> str:
    found = next(filter(is_new_enough, nodes()), None)
    if found is None:
        raise Failed("there is no Node 20 or newer here")
    return found
