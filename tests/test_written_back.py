"""What the store keeps of a conversation is written back whole, in its own place, and over nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import hook_agent
from tests.agents import command, environment
from tests.appliance import Appliance
from tests.badlink import Fake, Posted

restore: Any = hook_agent._beside("hook_agent_restore", "to restore")

NDJSON = {"content-type": "application/x-ndjson"}
MAIN = b'{"n":1}\n{"text":"na\xc3\xafve \\ud800"}\n\nno json \xff\n'
BESIDE = {
    "subagents/agent-a1": b'{"of":"a1"}\n',
    "subagents/agent-a1.meta.json": b'{"agentType":"Explore"}\n',
    "subagents/workflows/run/journal": b"{}\n",
}
PLACES = {
    "subagents/agent-a1": "subagents/agent-a1.jsonl",
    "subagents/workflows/run/journal": "subagents/workflows/run/journal.jsonl",
}

pytestmark = pytest.mark.usefixtures("no_sender_is_left")


class Container:
    """Claude Code's folder in a new home, and the working directory of the last."""

    def __init__(
        self, folder: Path, url: str, http: httpx.Client, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.config, self.project = folder / "config", folder / "app"
        self.project.mkdir()
        self.http, self.session, self.url = http, session, url
        self.slug = restore.re.sub("[^a-zA-Z0-9]", "-", str(self.project))
        self.main = self.config / "projects" / self.slug / "uuid-1.jsonl"
        monkeypatch.chdir(self.project)
        monkeypatch.setenv("SESSION_SERVICE_URL", url)
        monkeypatch.setenv("SESSION_TOKEN", "")

    def keep(self, lines: bytes, subpath: str = "", uuid: str = "uuid-1", **headers: str) -> None:
        given = NDJSON | {"x-source": "file", "x-session-id": self.session}
        given |= {name.replace("_", "-"): text for name, text in headers.items()}
        where = {"subpath": subpath} if subpath else {}
        http_path = f"/api/transcripts/{self.slug}/{uuid}"
        self.http.post(http_path, params=where, content=lines, headers=given).raise_for_status()
        self.http.post(f"/api/actions/{self.session}", json={"type": "x"}).raise_for_status()

    def restored(self) -> str:
        return str(restore.restored(self.session, str(self.config)))

    def refusal(self) -> str:
        with pytest.raises(restore.CannotRestore) as refused:
            self.restored()
        return str(refused.value)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.config)) for path in self.config.rglob("*") if path.is_file())


@pytest.fixture
def container(
    tmp_path: Path, appliance: Appliance, http: httpx.Client, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> Container:
    return Container(tmp_path, appliance.url, http, session_id, monkeypatch)


# ----------------------------------------------------------------------------------- all of it


def test_all_of_it_is_written_back_byte_for_byte(container: Container, capsys: pytest.CaptureFixture[str]) -> None:
    container.keep(MAIN)
    for subpath, lines in BESIDE.items():
        container.keep(lines, subpath)
    assert container.restored() == "uuid-1"
    base = container.main.with_suffix("")
    assert container.main.read_bytes() == MAIN
    for subpath, lines in BESIDE.items():
        assert (base / PLACES.get(subpath, subpath)).read_bytes() == lines
    assert len(container.files()) == 4
    assert container.main.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr() == ("", "")


def test_a_thousand_odd_lines_go_there_and_back(container: Container) -> None:
    chance = random.Random(0)
    odd = [chance.randbytes(chance.randrange(200)).replace(b"\n", b"") for _ in range(500)]
    lines = [line for one in odd for line in (one, b'{"n":%d,"s":"\\ud83d\\u0000","x":1e999}\r' % len(one))]
    container.keep(b"\n".join(lines) + b"\n", x_source_offset="0")
    container.restored()
    assert container.main.read_bytes().split(b"\n") == [*lines, b""]


def test_it_goes_on_with_the_conversation_of_the_session_or_the_last_one(container: Container) -> None:
    for uuid in ("uuid-2", "uuid-1", "uuid-3"):
        container.keep(MAIN, uuid=uuid)
    assert container.restored() == "uuid-3"
    container.http.patch(f"/api/sessions/{container.session}/metadata", json={"claudeSessionId": "uuid-2"})
    assert container.restored() == "uuid-2"


def test_what_the_agent_sdk_has_kept_becomes_the_files_that_it_was(container: Container) -> None:
    container.keep(MAIN, x_source="sdk")
    odd = b'{"of":"a1"}\n{"type": "agent_metadata", cut\n["agent_metadata"]\n'
    about = b'{"type":"agent_metadata","agentType":"Explore"}\n'
    container.keep(about + odd, "subagents/agent-a1", x_source="sdk")
    container.restored()
    agents = container.main.with_suffix("") / "subagents"
    assert (agents / "agent-a1.jsonl").read_bytes() == odd
    assert json.loads((agents / "agent-a1.meta.json").read_text()) == {"agentType": "Explore"}


def test_a_link_in_the_place_of_what_is_said_of_an_agent_is_not_followed(container: Container, tmp_path: Path) -> None:
    container.keep(MAIN, x_source="sdk")
    container.keep(b'{"type":"agent_metadata"}\n{}\n', "subagents/agent-a1", x_source="sdk")
    agents = container.main.with_suffix("") / "subagents"
    agents.mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"kept")
    (agents / "agent-a1.meta.json").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic links"):
        container.restored()
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert container.files() == [f"projects/{container.slug}/uuid-1/subagents/agent-a1.meta.json"]


def test_another_working_directory_is_said(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    container.keep(MAIN)
    monkeypatch.chdir(tmp_path)
    container.restored()
    said = capsys.readouterr().err
    assert container.slug in said and f"this is {tmp_path}: " in said
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(container.config))
    monkeypatch.setenv("CLAUDE_CODE_PROJECT_DIR_NAME", container.slug)
    container.restored()
    assert capsys.readouterr().err == ""


def test_the_folder_of_a_long_path_is_known_by_its_beginning() -> None:
    path = "/" + "long/" * 60
    assert restore._is_folder_of("-" + "long-" * 39 + "long" + "-1x2y3z", path)
    assert not restore._is_folder_of("-" + "other-" * 39, path)


# ------------------------------------------------------------------------------ what is there


def test_a_beginning_is_completed_and_more_is_left_alone(container: Container) -> None:
    container.keep(MAIN)
    container.main.parent.mkdir(parents=True)
    for there, then in ((MAIN[:9], MAIN), (MAIN, MAIN), (MAIN + b"more\n", MAIN + b"more\n")):
        container.main.write_bytes(there)
        container.restored()
        assert container.main.read_bytes() == then


def test_what_a_secret_was_taken_out_of_is_known_by_its_source(container: Container) -> None:
    source = b'{"text":"sk-ant-api03-' + b"aB3dE6gH9" * 10 + b'AA"}\n'
    container.keep(source, x_source_offset="0")
    container.main.parent.mkdir(parents=True)
    container.main.write_bytes(source + b"more\n")
    container.restored()
    assert container.main.read_bytes() == source + b"more\n"


def test_anything_else_is_not_touched(container: Container, tmp_path: Path) -> None:
    container.keep(MAIN)
    container.main.parent.mkdir(parents=True)
    container.main.write_bytes(b"other\n")
    assert "is not what the store keeps: it is not touched" in container.refusal()
    assert container.main.read_bytes() == b"other\n"
    container.main.unlink()
    (tmp_path / "outside").write_bytes(MAIN[:9])
    container.main.symlink_to(tmp_path / "outside")
    assert "it is not touched" in container.refusal()
    assert (tmp_path / "outside").read_bytes() == MAIN[:9]
    assert container.files() == [f"projects/{container.slug}/uuid-1.jsonl"]


def test_a_link_in_the_place_of_a_folder_is_not_followed(container: Container, tmp_path: Path) -> None:
    container.keep(MAIN)
    (tmp_path / "outside").mkdir()
    container.main.parent.parent.mkdir(parents=True)
    container.main.parent.symlink_to(tmp_path / "outside")
    assert "leads elsewhere" in container.refusal()
    assert list((tmp_path / "outside").iterdir()) == []


# --------------------------------------------------------------------------- a store that lies


@pytest.fixture
def lying(tmp_path: Path, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Container]]:
    """A container whose store answers as it is told to."""
    monkeypatch.setattr(restore, "_PATIENCE_SECONDS", 0.0)
    answers: dict[str, tuple[bytes, str]] = {}

    def answer(posted: Posted) -> None:
        body, digest = answers.get(posted.path, (b"{}", ""))
        posted.answer(200, body, X_Kept_Digest=digest or hashlib.sha256(body).hexdigest())

    with Fake(answer) as store:

        def make(folder: str = "-app", session: str = "uuid-1", subkeys: list[str] | None = None) -> Container:
            kept = {"folder": folder, "session": session}
            answers["/api/sessions/s/resume"] = (json.dumps({"metadata": {}, "conversations": [kept]}).encode(), "")
            answers[f"/api/transcripts/{folder}/{session}/subkeys"] = (json.dumps(subkeys or []).encode(), "")
            answers[f"/api/transcripts/{folder}/{session}"] = (b"cut", "another digest")
            return Container(tmp_path, store.url, http, "s", monkeypatch)

        yield make


@pytest.mark.parametrize("subpath", ["../x", "a/../../b", "..", "/etc/x", "a//b", "a\\..\\b", "a\0b", "", "a/./b"])
def test_a_subpath_that_climbs_out_is_written_nowhere(lying: Callable[..., Container], subpath: str) -> None:
    container = lying(subkeys=[subpath])
    assert "nothing is written" in container.refusal()
    assert container.files() == []


@pytest.mark.parametrize(("folder", "session"), [("..", "x"), ("a/b", "x"), ("-app", ".."), ("-app", "a/b")])
def test_so_is_a_name(lying: Callable[..., Container], folder: str, session: str) -> None:
    container = lying(folder, session)
    assert "nothing is written" in container.refusal()
    assert container.files() == []


def test_a_file_that_was_cut_is_not_there(lying: Callable[..., Container]) -> None:
    container = lying()
    assert "the answer of the store was cut" in container.refusal()
    assert container.files() == []


# ------------------------------------------------------------------------------------ commands


def test_why_there_is_nothing_is_said(container: Container, tmp_path: Path) -> None:
    env = environment(tmp_path, container.url)
    for arguments, why in (((), "no session's id"), (("--session", "unknown-1"), "has no session 'unknown-1'")):
        done = command("restore", env, *arguments)
        assert (done.returncode, done.stdout) == (1, "") and why in done.stderr
    container.http.post(f"/api/actions/{container.session}", json={"type": "x"})
    assert "nothing is kept of a conversation" in container.refusal()


def test_a_command_is_told_what_it_goes_on_with(container: Container, tmp_path: Path) -> None:
    env = environment(tmp_path, container.url, SESSION_ID=container.session, CLAUDE_CONFIG_DIR=str(container.config))
    words = ("--restore", "--", "sh", "-c", "echo ${CLAUDE_SESSION_ID:-cold}")
    cold = command("run", env | {"SESSION_ID": "new-1"}, *words)
    assert (cold.returncode, cold.stdout) == (0, "cold\n") and cold.stderr == ""
    container.http.post(f"/api/actions/{container.session}", json={"type": "x"})
    assert "nothing is kept of a conversation" in command("run", env, *words).stderr
    container.keep(MAIN)
    warm = command("run", env, *words)
    assert (warm.returncode, warm.stdout, warm.stderr) == (0, "uuid-1\n", "")
    assert container.main.read_bytes() == MAIN
    assert os.environ.get("CLAUDE_SESSION_ID") is None
