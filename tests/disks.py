"""Disks of a test's own, small enough to be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes. Only who is not root goes without, and sees that as a test that was skipped."""
    path.mkdir(parents=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    mounted = subprocess.run(options, capture_output=True, text=True, check=False)
    if mounted.returncode and os.geteuid():
        pytest.skip("only root may mount a disk")
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, left: int) -> None:
    """Take what is free but for so many bytes."""
    for name in ("ballast", "more"):
        with suppress(OSError), open(disk / name, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, file.tell() + max(0, free_bytes(disk) - left))


def release(disk: Path) -> None:
    """Give back what `fill` took."""
    for name in ("ballast", "more"):
        (disk / name).unlink(missing_ok=True)
