"""Pages of documentation, done word for word: the commands of their console blocks, and what they show."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx

from tests import commands
from tests.appliance import REPOSITORY, Appliance

BLOCK = re.compile(r"(<!-- the server is stopped -->\n)?```console\n(.*?)```", re.DOTALL)


class Example(NamedTuple):
    """A command of the README, and what it shows; `…` stands for anything."""

    command: str
    shown: str
    wants_server: bool = True


def examples(page: str) -> list[Example]:
    blocks = BLOCK.findall((REPOSITORY / page).read_text())
    return [example._replace(wants_server=not stopped) for stopped, block in blocks for example in examples_in(block)]


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
    return re.fullmatch(pattern, printed.replace("\r\n", "\n").strip(), re.DOTALL) is not None


def curl(arguments: list[str]) -> str:
    """What curl does with the few options that the README uses, for machines that have none."""
    options = argparse.ArgumentParser()
    options.add_argument("-s", action="store_true")
    options.add_argument("-X", dest="method")
    options.add_argument("-H", dest="header", default="")
    options.add_argument("-d", dest="data")
    options.add_argument("url")
    asked = options.parse_args(arguments)
    method = asked.method or ("POST" if asked.data else "GET")
    name, _, value = asked.header.partition(":")
    headers = {name: value.strip()} if name else {}
    return httpx.request(method, f"http://{asked.url}", content=asked.data, headers=headers).text


def run(command: str, appliance: Appliance, settings: Mapping[str, str] = {}) -> str:
    """What it prints, here: with the server, the folder and the Python of the test."""
    here = command.replace("localhost:9000", f"localhost:{appliance.port}")
    here = re.sub(
        r"(?<= )(?:hook_agent|app)\.py(?= run| token)|tests/corpus/\S+\.jsonl",
        lambda file: str(REPOSITORY / file[0]),
        here,
    )
    here = here.replace("/var/claude-sessions", str(appliance.folder)).replace(".venv/bin/python", sys.executable)
    if here.startswith("curl "):
        return curl(shlex.split(here)[1:])
    home = appliance.folder.parent  # nothing here may touch the folders of whoever runs it
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folders = {"HOME": str(home), "SESSIONS_DIR": str(appliance.folder), "PYTHONPATH": str(REPOSITORY), "PATH": path}
    folders |= settings
    if here.startswith(sys.executable) and not set("|<>*$\n").intersection(here):  # a shell would add nothing
        done = commands.run(appliance.folder, shlex.split(here)[1:], folders, home)
        assert done.returncode == 0, done.stderr
        return done.stdout
    env = {**os.environ, **folders}
    done = subprocess.run(["bash", "-c", here], cwd=home, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(page: str, appliance: Appliance, settings: Mapping[str, str] = {}) -> None:
    """Do all of a page, with the server running but where it says that it is stopped. Raises AssertionError."""
    for example in examples(page):
        if appliance.running and not example.wants_server:
            appliance.stop()
        elif example.wants_server and not appliance.running:
            appliance.start()
        printed = run(example.command, appliance, settings)
        assert fits(example.shown, printed), f"$ {example.command}\nshows   {example.shown}\nprints  {printed}"
