"""What the Claude container runs is one session, whatever it is; `make e2e-local` runs Claude Code in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.agents import remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.peers import eventually
from tests.test_claude_code import CLAUDE
from tests.test_node import is_new_enough, nodes

Json = dict[str, Any]

FOLDER = REPOSITORY / "containers" / "fly_achensee_claude"
SECONDS = 120.0


class Container:
    """The files of the image in a folder, and a project to work in; `claude` only says how it is called."""

    def __init__(self, folder: Path, node: str, url: str) -> None:
        self.opt, self.project, self.spool = folder / "opt", folder / "project", folder / "spool"
        self.node = node
        for made in (self.opt, self.project):
            made.mkdir()
        for file in (
            REPOSITORY / "containers" / "hook_agent.mjs",
            FOLDER / "session.mjs",
            REPOSITORY / "hook_agent.py",
        ):
            shutil.copy(file, self.opt)
        self.put(self.opt / "claude", 'echo "$*"; echo "$ANTHROPIC_BASE_URL $ANTHROPIC_API_KEY$ANTHROPIC_AUTH_TOKEN"')
        self.env = {
            "PATH": f"{self.opt}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SESSION_ID": "claude-box",
            "SESSION_SERVICE_URL": url,
            "SESSION_SPOOL_DIR": str(self.spool),
        }

    def put(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        line = [self.node, str(self.opt / "session.mjs"), *command]
        return subprocess.Popen(
            line,
            env=self.env | env,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **env: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.start(*command, **env)
        output, errors = process.communicate(timeout=SECONDS)
        return process.returncode, output, errors


@pytest.fixture
def container(tmp_path: Path, appliance: Appliance, session_id: str) -> Iterator[Container]:
    node = next(filter(is_new_enough, nodes()), None)
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Node 20 or newer here")
        pytest.skip("there is no Node 20 or newer here")
    made = Container(tmp_path, node, appliance.url)
    made.env["SESSION_ID"] = session_id
    yield made
    remove_spools(tmp_path)


def session(http: httpx.Client, session_id: str, runs: int = 1) -> Json:
    """The session once it has ended so many times: its end is delivered by the program itself, or just after it."""
    eventually(lambda: ends(http, session_id) == runs)
    found: Json = http.get(f"/api/sessions/{session_id}").raise_for_status().json()
    return found


def ends(http: httpx.Client, session_id: str) -> int:
    events = http.get(f"/api/sessions/{session_id}/events", params={"type": "session_finalized"})
    return len(events.json()["items"]) if events.status_code == 200 else 0


def test_a_command_keeps_its_output_and_exit_code_and_is_a_session(
    container: Container, http: httpx.Client, session_id: str
) -> None:
    assert container.run("sh", "-c", "echo $SESSION_ID; exit 3") == (3, f"{session_id}\n", "")
    stored = session(http, session_id)
    assert [action["type"] for action in stored["actions"]] == ["container_started", "container_ended"]
    assert stored["actions"][0]["command"] == ["sh", "-c", "echo $SESSION_ID; exit 3"]
    assert (stored["final"]["status"], stored["final"]["exitCode"]) == ("failed", 3)
    assert container.run("true") == (0, "", "")
    metadata = session(http, session_id, runs=2)["metadata"]
    assert (metadata["status"], metadata["resumes"]) == ("completed", 1)


def test_claude_code_asks_first_unless_it_is_told_not_to(
    container: Container, http: httpx.Client, session_id: str
) -> None:
    assert container.run() == (0, "\n \n", "")
    assert session(http, session_id)["metadata"]["yoloMode"] is False
    assert container.run(CLAUDE_PROMPT="look around")[1] == "--print look around\n \n"
    env = {"CLAUDE_PROMPT": "look", "CLAUDE_SKIP_PERMISSIONS": "1", "SESSION_ID": f"{session_id}-freely"}
    assert container.run(**env)[1] == "--print look --dangerously-skip-permissions\n \n"
    assert session(http, f"{session_id}-freely")["metadata"]["yoloMode"] is True


@pytest.mark.parametrize("credential", ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"])
def test_the_scripted_model_answers_only_where_there_is_no_key(container: Container, credential: str) -> None:
    model = "http://127.0.0.1:1"
    assert container.run(SCRIPTED_MODEL_URL=model)[1] == f"\n{model} none\n"
    output = container.run(SCRIPTED_MODEL_URL=model, **{credential: "a-key"})[1]
    assert model not in output
    assert output == f"\n {'a-key' if credential == 'ANTHROPIC_API_KEY' else ''}\n"


def test_a_project_with_a_program_of_its_own_runs_that(container: Container) -> None:
    container.put(container.project / "start", "echo mine")
    assert container.run() == (0, "mine\n", "")
    assert container.run("echo", "given") == (0, "given\n", "")


def test_a_command_that_is_not_there_is_said_and_stored(
    container: Container, http: httpx.Client, session_id: str
) -> None:
    code, output, errors = container.run("no-such-command")
    assert (code, output) == (127, "")
    assert "no-such-command" in errors
    assert session(http, session_id)["final"]["status"] == "failed"


def test_told_to_end_it_tells_its_program_and_says_so(
    container: Container, http: httpx.Client, session_id: str
) -> None:
    process = container.start("sh", "-c", "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, output, errors) == (7, "told\n", "")
    assert session(http, session_id)["metadata"]["status"] == "cancelled"


def test_without_a_store_the_program_runs_all_the_same(
    container: Container, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    code, output, errors = container.run("echo", "here", SESSION_SERVICE_URL="http://127.0.0.1:1")
    assert (code, output, errors) == (0, "here\n", "")
    assert http.get(f"/api/sessions/{session_id}").status_code == 404
    eventually(lambda: any(container.spool.rglob("*")))


def test_the_image_has_the_claude_code_that_the_tests_run() -> None:
    (pinned,) = re.findall(r"@anthropic-ai/claude-code@(\S+)", (FOLDER / "Dockerfile").read_text())
    said = subprocess.run([str(CLAUDE), "--version"], capture_output=True, text=True, timeout=SECONDS).stdout
    assert said.startswith(f"{pinned} ")
