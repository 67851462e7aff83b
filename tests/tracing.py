"""strace: what system calls a real server makes, and calls that fail because it says so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers import eventually

LONGEST = 1 << 20
"""Bytes of a call's data that are recorded."""


def tool(name: str) -> str:
    """Where a program is that a test needs; without it the test is skipped, and in CI fails."""
    if found := shutil.which(name):
        return found
    message = f"what needs {name} is not tested: apt-get install {name}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Injection(NamedTuple):
    """Which calls fail."""

    call: str
    error: str
    when: str
    """The number of the first one, as each thread counts; `N+`: and all after it, `N+M`: and every M-th after it."""

    def __str__(self) -> str:
        return f"{self.call}:error={self.error}:when={self.when}"


class Call(NamedTuple):
    """A system call that has ended."""

    begun: int
    """The line of the record on which it begins, and that on which it ends."""
    ended: int
    name: str
    paths: list[str]
    """The files of its descriptors, in their order."""
    texts: list[bytes]
    words: list[str]
    """Numbers and flags."""
    result: int
    """-1: it has failed."""


def recording(record: Path, calls: Sequence[str], *injections: Injection) -> list[str]:
    """The command that starts another one and records these of its calls; the other one is the child."""
    options = ["-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", str(LONGEST), "-e", f"trace={','.join(calls)}"]
    for injection in injections:
        options += ["-e", f"inject={injection}"]
    return [tool("strace"), *options, "-o", str(record)]


def wait_for_end(record: Path, pid: int) -> None:
    """strace writes down the end of a process a little after it."""
    end = re.compile(rb"^%d +\+\+\+ " % pid, re.MULTILINE)
    eventually(lambda: end.search(record.read_bytes()))


LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)")
UNFINISHED = " <unfinished ...>"
WHOLE = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
ARGUMENT = re.compile(r'\w+<((?:\\x..)*)>(?:\(deleted\))?|"((?:\\x..)*)"(\.{3})?|([\w|]+)')


def read(record: Path) -> list[Call]:
    """The calls of a record that have ended, in the order in which they began."""
    calls = []
    begun: dict[str, tuple[int, str]] = {}
    with record.open() as lines:
        for number, line in enumerate(lines):
            matched = LINE.match(line)
            assert matched, line
            pid, text = matched.groups()
            first, head = begun.pop(pid, (number, ""))
            if text.endswith(UNFINISHED):
                begun[pid] = first, text.removesuffix(UNFINISHED)
            elif whole := WHOLE.match(head + text):
                calls.append(call(first, number, whole))
    return sorted(calls)


def call(begun: int, ended: int, whole: re.Match[str]) -> Call:
    name, arguments, result = whole.groups()
    paths, texts, words = [], [], []
    for path, text, cut, word in ARGUMENT.findall(arguments):
        if word:
            words.append(word)
        elif path:
            paths.append(decoded(path).decode())
        else:
            assert not cut, f"{name} takes more than {LONGEST} bytes"
            texts.append(decoded(text))
    return Call(begun, ended, name, paths, texts, words, int(result))


def decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@contextmanager
def failing(pid: int, *injections: Injection, path: Path | None = None) -> Iterator[None]:
    """In the block the calls of a process fail as they are told to; only those that concern `path`, if it is given."""
    command = [tool("strace"), "-f", "-q", "-p", str(pid), "-e", f"trace={','.join(rule.call for rule in injections)}"]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    if path is not None:
        command += ["-P", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            eventually(lambda: is_traced(pid) or strace.poll() is not None)
            assert strace.poll() is None, f"strace cannot trace: it ended with {strace.returncode}"
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(10)


def is_traced(pid: int) -> bool:
    """Whether every thread is."""
    threads = Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in status.read_text() for status in threads)
