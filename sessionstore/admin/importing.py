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
from sessionstore.settings import Settings

SECONDS = 600.0
"""How long the server may take for one file."""
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
    """How much of each was new. What is wrong with a file is reported. Raises NotImported, NotServed where none
    can go."""
    counts: Counter[str] = Counter()
    with served(settings, url, SECONDS) as server:
        for number, path in enumerate(files, 1):
            step(number)
            told = send(server, path, f"/api/import?{urlencode({'userId': user_id})}")
            for refused in told.pop("refused"):
                counts["refused"] += 1
                report(f"{path}: {refused['why']}")
            counts.update({name: count for name, count in told.items() if name != "success"})
    return counts


def send(server: Served, path: Path, target: str) -> dict[str, Any]:
    """What the server answers. Raises NotImported, NotServed."""
    try:
        with path.open("rb") as file:
            info = tarfile.TarInfo(path.as_posix().lstrip("/"))
            info.size = os.fstat(file.fileno()).st_size
            head = info.tobuf(tarfile.PAX_FORMAT)
            size = len(head) + info.size + -info.size % tarfile.BLOCKSIZE + len(END)
            parts = packed(file, head, info.size)
            status, told = server.ask("POST", target, parts, content_type="application/x-tar", content_length=str(size))
    except OSError as error:
        raise NotImported(f"{path} cannot be read: {error}") from None
    if status != 200:
        server.connection.close()
        return {"refused": [{"why": told["detail"]}]}
    return told


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
