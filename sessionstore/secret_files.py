"""Files with secrets: for their owner alone, and written wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from export.backup import synchronise


def give(path: Path) -> None:
    """To whom the folder around it belongs: where root makes it, the server has to read it."""
    if os.geteuid() == 0:
        around = path.parent.stat()
        os.chown(path, around.st_uid, around.st_gid, follow_symlinks=False)


def write_secret(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Wholly or not at all, on disk, and for its owner alone, unless `mode` says more."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    give(part)
    part.rename(path)
    synchronise(path.parent)  # or a power cut would bring back what was revoked
