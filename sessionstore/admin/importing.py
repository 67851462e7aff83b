"""Conversations on this machine's disk into the store, through its server: one request a file."""

from __future__ import annotations

import os
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sessionstore.adapters.import_paths import file_at
from sessionstore.admin.served import Served, served
from sessionstore.model.folds import Document
from sessionstore.settings import Settings

AT_ONCE = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)


class NotImported(Exception):
    """Nothing more can be imported. The message says why."""


def files_in(paths: list[Path]) -> list[Path]:
    """Those that are imported, a conversation before its sub-agents. Links are not followed. Raises NotImported."""
    found = []
    for path in paths:
        if not path.exists():
            raise NotImported(f"There is no {path}")
        inside = [path.absolute()] if path.is_file() else list(below(path.absolute()))
        known = [one for one in inside if file_at(one.as_posix())]
        if not known:
            raise NotImported(
                f"There is no conversation in {path}: name a `projects` folder, or files as they stand in it"
            )
        found += known
    return sorted(dict.fromkeys(found), key=lambda path: (path.with_suffix("").parts, path.name))


def below(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (path for name in names if stat.S_ISREG((path := Path(place, name)).lstat().st_mode))


def bring_in(
    settings: Settings,
    files: list[Path],
    url: str | None,
    user_id: str,
    report: Callable[[str], None],
    step: Callable[[int], None],
) -> Counter[str]:
    """How much of each was new. What is wrong with a file is reported. Raises NotServed where none can go."""
    counts: Counter[str] = Counter()
    for number, path in enumerate(files, 1):
        step(number)
        with served(settings, url) as server:
            said = send(server, path, f"/api/import?{urlencode({'userId': user_id})}")
        for refused in said.pop("refused"):
            counts["refused"] += 1
            report(f"{path}: {refused['why']}")
        counts.update({name: count for name, count in said.items() if name != "success"})
    return counts


def send(server: Served, path: Path, target: str) -> Document:
    """What the server answers. Raises NotServed."""
    try:
        with path.open("rb") as file:
            info = tarfile.TarInfo(path.as_posix().lstrip("/"))
            info.size = os.fstat(file.fileno()).st_size
            head = info.tobuf(tarfile.PAX_FORMAT)
            size = len(head) + info.size + -info.size % tarfile.BLOCKSIZE + len(END)
            status, said = server.ask("POST", target, packed(file, head, info.size), "application/x-tar", size)
    except OSError as error:
        return {"refused": [{"why": str(error)}]}
    return said if status == 200 else {"refused": [{"why": said["detail"]}]}


def packed(file: Any, head: bytes, size: int) -> Iterator[bytes]:
    """A tar with that file, as long as it was. Raises OSError where it has become shorter."""
    yield head
    left = size
    while left:
        if not (piece := file.read(min(left, AT_ONCE))):
            raise OSError("the file has become shorter")
        left -= len(piece)
        yield piece
    yield bytes(-size % tarfile.BLOCKSIZE) + END
