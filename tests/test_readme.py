"""The README, done word for word: its commands are run in a shell, and print what it says they print."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

import httpx
import pytest

from tests.appliance import REPOSITORY, Appliance


class Example(NamedTuple):
    """A command of the README, and what it shows; `…` stands for anything."""

    command: str
    shown: str


def examples() -> list[Example]:
    blocks = re.findall(r"```console\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    return [example for block in blocks for example in examples_in(block)]


def examples_in(block: str) -> list[Example]:
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        first, *rest = part.rstrip("\n").split("\n")
        continued = [line[2:] for line in rest if line.startswith("> ") or line == ">"]
        shown = [line for line in rest if not (line.startswith("> ") or line == ">")]
        found.append(Example("\n".join([first, *continued]), "\n".join(shown)))
    return found


def fits(shown: str, printed: str) -> bool:
    pattern = ".*?".join(re.escape(piece) for piece in shown.split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def curl(arguments: list[str]) -> str:
    """What curl does with the few options that the README uses, for machines that have none."""
    options = argparse.ArgumentParser()
    options.add_argument("-s", action="store_true")
    options.add_argument("-X", dest="method")
    options.add_argument("--json")
    options.add_argument("url")
    asked = options.parse_args(arguments)
    method = asked.method or ("POST" if asked.json else "GET")
    headers = {"Content-Type": "application/json", "Accept": "application/json"} if asked.json else {}
    return httpx.request(method, f"http://{asked.url}", content=asked.json, headers=headers, timeout=30).text


def run(command: str, appliance: Appliance) -> str:
    here = command.replace("localhost:9000", f"localhost:{appliance.port}")
    here = re.sub(r"(?<= )hook_agent\.py(?= run)|tests/corpus/\S+\.jsonl", lambda file: str(REPOSITORY / file[0]), here)
    here = here.replace("/var/claude-sessions", str(appliance.folder)).replace(".venv/bin/python", sys.executable)
    if here.startswith("curl "):
        return curl(shlex.split(here)[1:])
    home = appliance.folder.parent  # nothing here may touch the folders of whoever runs it
    env = {**os.environ, "HOME": str(home), "SESSIONS_DIR": str(appliance.folder), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", here], cwd=home, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_prints_what_is_shown(appliance: Appliance) -> None:
    assert len(examples()) >= 10
    for example in examples():
        printed = run(example.command, appliance)
        assert fits(example.shown, printed), f"$ {example.command}\nshows   {example.shown}\nprints  {printed}"


def test_a_command_that_prints_something_else_is_found() -> None:
    shown = '{"success":true,"cursor":…,"version":2}'
    assert fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":2}\n')
    assert not fits(shown, '{"success":true,"cursor":5,"eventId":"x","version":3}\n')


def test_the_corpus_told_twice_is_stored_once(appliance: Appliance, http: httpx.Client) -> None:
    (replay,) = (example.command for example in examples() if "corpus" in example.command)
    run(replay, appliance)
    first = http.get("/api/events", params={"limit": 1000}).json()
    assert len(first["items"]) >= 464
    run(replay, appliance)
    assert http.get("/api/events", params={"limit": 1000}).json() == first


@pytest.mark.parametrize("line", ["Dashboard", "API", "Data", "Access"])
def test_the_greeting_is_the_one_shown(appliance: Appliance, line: str) -> None:
    assert f"\n  {line} " in (REPOSITORY / "README.md").read_text()
    assert f"\n  {line} " in appliance.output
