"""The world of compose.yaml: images that are built here, containers, volumes and a network of their own."""

from __future__ import annotations

import os
import socket
import subprocess
from itertools import islice
from random import sample
from typing import ClassVar

from tests.appliance import REPOSITORY

from .worlds import Failed, command

PROJECT = "session-store-e2e"
TAG = "e2e"
STORE = "session-storage"
SERVICES = {"customer": "fly-achensee-customer", "email": "email-solver", "claude": "fly-achensee-claude"}
IMAGES = ("session-store", *SERVICES.values())
BUILD_SECONDS = 600.0
SECONDS = 120.0
PORTS = range(20_000, 30_000)


def engine() -> str | None:
    """Why there is no engine to be used; None: there is one."""
    try:
        asked = command(["docker", "compose", "version"], SECONDS)
        asked = asked if asked.returncode else command(["docker", "info"], SECONDS)
    except FileNotFoundError:
        return "there is no program `docker`"
    return asked.stderr.strip().splitlines()[-1] if asked.returncode else None


def free_ports(number: int) -> list[str]:
    """Below those that the kernel gives to whoever asks for any: they stay free while the images are built."""
    return [str(port) for port in islice(filter(is_free, sample(PORTS, len(PORTS))), number)]


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


class Composed:
    name: ClassVar[str] = "compose"

    def __init__(self) -> None:
        port, second = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        chosen = {"STORE_PORT": port, "DASHBOARD_PORT": second, "IMAGE_TAG": TAG, "PACE_SECONDS": "0"}
        without_keys = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        self._env = {**without_keys, **chosen, "COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain"}
        self.end()  # what a run that was killed has left

    def build(self) -> str:
        self.compose("build", "--quiet", within=BUILD_SECONDS)
        sizes = {name: int(self.docker("image", "inspect", "-f", "{{.Size}}", f"{name}:{TAG}")) for name in IMAGES}
        return ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())

    def start_store(self) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", "90", STORE)

    def kill_store(self) -> None:
        self.compose("kill", "--signal", "KILL", STORE)

    def stop_store(self) -> int:
        self.compose("stop", STORE)
        return int(self.docker("inspect", "-f", "{{.State.ExitCode}}", self.container(STORE)))

    def start_agents(self) -> None:
        self.compose("up", "--detach")

    def states(self) -> dict[str, str]:
        shown = "{{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}"
        return {agent: self.docker("inspect", "-f", shown, self.container(SERVICES[agent])) for agent in SERVICES}

    def restart_agent(self, agent: str) -> None:
        self.compose("restart", SERVICES[agent])

    def down(self) -> None:
        self.compose("down", "--timeout", "20")

    def export(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.asked("exec", "-T", STORE, "python", "-m", "export", *arguments)

    def token(self, role: str) -> str:
        return self.inside(STORE, "cat", f"/var/claude-sessions/tokens/{role}").strip()

    def logs(self) -> str:
        return self.asked("logs", "--no-color", "--tail", "40").stdout

    def end(self) -> None:
        self.asked("down", "--volumes", "--remove-orphans", "--timeout", "5")
        command(["docker", "image", "rm", "--force", *(f"{name}:{TAG}" for name in IMAGES)], SECONDS)

    # ------------------------------------------------------------------ Docker

    def asked(self, *arguments: str, within: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """One `docker compose` command, whatever its exit code."""
        line = ["docker", "compose", "--project-name", PROJECT, "--profile", "demo", *arguments]
        file = ["--file", str(REPOSITORY / "compose.yaml")]
        return command([*line[:2], *file, *line[2:]], within, self._env)

    def compose(self, *arguments: str, within: float = SECONDS) -> str:
        return output_of(self.asked(*arguments, within=within))

    def docker(self, *arguments: str, given: str = "", within: float = SECONDS) -> str:
        return output_of(command(["docker", *arguments], within, self._env, given)).strip()

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inside(self, service: str, *line: str) -> str:
        """What a command prints that runs in a container."""
        return self.compose("exec", "-T", service, *line)


def output_of(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode:
        raise Failed(f"{' '.join(ended.args)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return ended.stdout
