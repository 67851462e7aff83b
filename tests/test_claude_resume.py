"""The real Claude Code CLI goes on in a new container: killed in one home, resumed in another from the store alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from tests.agents import environment, remove_spools
from tests.appliance import REPOSITORY, Appliance
from tests.claude_stub import ClaudeStub, Refusing, calls, says
from tests.peers import eventually
from tests.test_claude_code import COMMAND, agent, bash

Json = dict[str, Any]

SECONDS = 120.0
BEHIND_SECONDS = 5.0
SCRIPTS = {
    "work": [
        [{"type": "thinking", "thinking": "First one command.", "signature": "c2lnbmVk"}, bash("echo one")],
        [calls("Write", file_path="note.txt", content="naïve 😀\n"), agent("[read] the note")],
        [says("All done")],
    ],
    "read": [[bash("cat note.txt")], [says("It is naïve")]],
    "wait": [
        [{"type": "thinking", "thinking": "And two.", "signature": "c2lnbmVk"}, bash("echo two")],
        [bash("touch begun; cat pipe")],
        [says("No longer")],
    ],
    "on": [[says("I know all of it")]],
}


class Recording(Refusing):
    """Remembers what it was asked."""

    requests: ClassVar[list[Json]] = []

    def do_POST(self) -> None:
        whole = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(json.loads(whole))
        self.rfile = io.BufferedReader(io.BytesIO(whole))
        super().do_POST()


class Home:
    """A container's home with the hooks installed; the project in which it works is at the same path in each."""

    def __init__(self, folder: Path, name: str, urls: tuple[str, str], session_id: str) -> None:
        self.folder, self.project = folder / name, folder / "project"
        for made in (self.folder / "tmp", self.project):
            made.mkdir(parents=True, exist_ok=True)
        self.spool = self.folder / "spool"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "USER": name,
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_BASE_URL": urls[0],
            "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",  # lets root skip the permissions
            "SESSION_ID": session_id,
            "SESSION_SERVICE_URL": urls[1],
            "SESSION_SPOOL_DIR": str(self.spool),
        }
        self.agent("install")

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of hook_agent.py."""
        command = [sys.executable, str(REPOSITORY / "hook_agent.py"), *arguments]
        return subprocess.run(
            command, env=self.env, cwd=self.project, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.env,
            cwd=self.project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def files(self) -> dict[str, bytes]:
        """What Claude Code has written of conversations, by its place below `projects`."""
        top = self.folder / ".claude" / "projects"
        found = [*top.rglob("*.jsonl"), *top.rglob("*.meta.json")]
        return {str(path.relative_to(top)): path.read_bytes().strip() for path in found}

    def end(self) -> None:
        remove_spools(self.folder)
        shutil.rmtree(self.folder)

    def talk(self, *prompts: str) -> subprocess.Popen[str]:
        """Claude Code, at work on the last of these prompts, and done with those before it."""
        claude = self.start("--input-format", "stream-json", "--output-format", "stream-json", "--verbose")
        assert claude.stdin and claude.stdout
        for prompt in prompts[:-1]:
            claude.stdin.write(asked(prompt))
            claude.stdin.flush()
            next(line for line in claude.stdout if json.loads(line)["type"] == "result")
        claude.stdin.write(asked(prompts[-1]))
        claude.stdin.flush()
        return claude

    def ask(self, prompt: str, *arguments: str) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        claude = self.start(prompt, *arguments)
        output, _ = claude.communicate(timeout=SECONDS)
        return claude.returncode, output


def is_released(pipe: Path) -> bool:
    """Whether who waits for a pipe is let go: what the killed one had started goes on."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # nobody waits yet
        return False
    return True


def asked(prompt: str) -> str:
    """A prompt as a line of its standard input."""
    return json.dumps({"type": "user", "message": {"role": "user", "content": prompt}}) + "\n"


def kept(http: httpx.Client, name: str) -> bytes | None:
    """What the store has of a file; what is said of an agent ends there with a line's end."""
    folder, _, rest = name.partition("/")
    session, _, beside = rest.removesuffix(".jsonl").partition("/")
    found = http.get(f"/api/transcripts/{folder}/{session}", params={"subpath": beside} if beside else {})
    return found.content.strip() if found.status_code == 200 else None


def sent_with(prompt: str) -> list[list[tuple[str, Json]]]:
    """What the model was sent with a prompt, each time: who said it, and a part of it."""
    all_messages = (request.get("messages", []) for request in Recording.requests)
    return [list(parts_of(messages)) for messages in all_messages if prompt in json.dumps(messages)]


def parts_of(messages: list[Json]) -> Iterator[tuple[str, Json]]:
    """Without what is only said of caching it."""
    for message in messages:
        content = message["content"]
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            yield message["role"], {name: value for name, value in part.items() if name != "cache_control"}


def types(parts: list[tuple[str, Json]]) -> set[str]:
    return {part["type"] for _, part in parts}


@pytest.mark.long
def test_a_conversation_goes_on_in_a_new_container(
    appliance: Appliance, http: httpx.Client, tmp_path: Path, session_id: str
) -> None:
    with ClaudeStub(SCRIPTS, Recording) as stub:
        urls = (stub.url, appliance.url)
        first = Home(tmp_path, "one", urls, session_id)
        os.mkfifo(first.project / "pipe")
        claude = first.talk("[work] on it", "/compact", "[wait] for me")
        eventually(lambda: any(b"cat pipe" in text for text in first.files().values()), within=SECONDS)
        eventually((first.project / "begun").exists)
        os.killpg(claude.pid, signal.SIGKILL)
        claude.communicate()
        eventually(lambda: is_released(first.project / "pipe"))
        written = first.files()
        assert len(written) == 3  # the conversation, its sub-agent, and what is said of that
        eventually(lambda: all(kept(http, name) == text for name, text in written.items()), within=BEHIND_SECONDS)
        first.end()
        before = sent_with("[wait] for me")[-1]
        assert {"thinking", "tool_use", "tool_result"} <= types(before)
        assert "This session is being continued" in before[0][1]["text"]

        second = Home(tmp_path, "two", urls, session_id)
        (main,) = (name for name in written if name.count("/") == 1)
        cold = second.ask("[on] you go", "--resume", Path(main).stem)
        assert cold[0] == 1 and "No conversation found" in cold[1]
        restored = second.agent("restore")
        assert (restored.returncode, restored.stdout, restored.stderr) == (0, f"{Path(main).stem}\n", "")
        assert second.files() == written
        assert second.ask("[on] you go", "--resume", Path(main).stem) == (0, "I know all of it\n")
        (after,) = sent_with("[on] you go")
        assert after[: len(before)] == before
        assert [part.get("name") or part.get("text") for _, part in after[len(before) :]][:1] == ["Bash"]
        second.agent("flush")
        events = http.get(f"/api/sessions/{session_id}/events", params={"limit": 1000}).json()["items"]
        lifecycle = [event["type"] for event in events if event["type"].startswith("session_")]
        assert lifecycle[0] == "session_created" and lifecycle[-2:] == ["session_resumed", "session_finalized"]
        grown = second.files()[main]
        assert grown.startswith(written[main]) and kept(http, main) == grown
        head = http.head(f"/api/transcripts/{main.removesuffix('.jsonl')}")
        assert head.headers["x-generation"] == "1"
        second.end()


# ------------------------------------------------------------------------ the README's three ways

CURL = f"""#!{sys.executable}
import sys, urllib.request
urllib.request.urlretrieve("http://" + sys.argv[2], sys.argv[2].rpartition("/")[2])
"""


def ways() -> dict[str, str]:
    """What the README has for each: by the language of the block, and what is imported there."""
    text = (REPOSITORY / "README.md").read_text()
    _, _, section = text.partition("\n## Go on in a new container\n")
    plain = re.sub("^> ", "", section.partition("\n## ")[0], flags=re.MULTILINE)
    blocks = re.findall(r"```(?:sh|python)\n(.*?)```", plain, re.DOTALL)
    return dict(zip(("claude", "sdk", "langgraph"), blocks, strict=True))


def test_each_way_has_five_lines_at_most() -> None:
    assert [len(block.splitlines()) <= 5 for block in ways().values()] == [True, True, True]


class NewContainer:
    """A home with nothing in it but what an image has: Claude Code, curl, Python with what is installed."""

    def __init__(self, folder: Path, urls: tuple[str, str]) -> None:
        self.home, self.project = folder, folder.parent / "app"
        for made in (folder / "bin", folder / "tmp", self.project):
            made.mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "claude").symlink_to(COMMAND[0])
        (folder / "bin" / "python3").symlink_to(sys.executable)
        (folder / "bin" / "curl").write_text(CURL)
        (folder / "bin" / "curl").chmod(0o755)
        self.urls = urls
        self.env = environment(
            folder,
            urls[1],
            ANTHROPIC_API_KEY="none",
            ANTHROPIC_BASE_URL=urls[0],
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            DISABLE_AUTOUPDATER="1",
            PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
            PYTHONPATH=str(REPOSITORY / "containers"),
        )

    def does(self, language: str, lines: str) -> str:
        """What it prints; the project is the image's own, and so as it was in each."""
        here = lines.replace("localhost:9000", self.urls[1].removeprefix("http://"))
        command = ["bash", "-ec", here] if language == "claude" else [sys.executable, "-c", here]
        done = subprocess.run(
            command, env=self.env, cwd=self.project, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done
        remove_spools(self.home)
        for path in (self.home, self.project):
            shutil.rmtree(path)
        return done.stdout


@pytest.mark.long
def test_a_graph_goes_on_by_what_the_readme_says(appliance: Appliance, tmp_path: Path) -> None:
    said = [NewContainer(tmp_path / name, ("", appliance.url)).does("langgraph", ways()["langgraph"]) for name in "ab"]
    assert [text.count("Go on") for text in said] == [1, 2]


@pytest.mark.long
@pytest.mark.parametrize("way", ["claude", "sdk"])
def test_a_conversation_goes_on_by_what_the_readme_says(appliance: Appliance, tmp_path: Path, way: str) -> None:
    Recording.requests.clear()
    with ClaudeStub({}, Recording) as stub:
        for name in "ab":
            NewContainer(tmp_path / name, (stub.url, appliance.url)).does(way, ways()[way])
    prompts = [
        [part["text"] for role, part in parts if role == "user" and part.get("text") == "Go on"]
        for parts in sent_with("Go on")
    ]
    assert [len(said) for said in prompts if said] == [1, 2]
