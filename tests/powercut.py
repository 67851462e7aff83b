"""What a power cut leaves of a folder, made from the system calls of a real server.

A call that has ended is in the kernel's memory, and only what was synced is on
the disk: of all else a cut keeps what it likes, in any order and 512 bytes at a
time. What a sync that fails was to put on the disk may never come there, though
a later one succeeds. Names change in their order, as in a journal, of which a
cut keeps the beginning; only the sync of a folder, or of everything, makes sure
of them.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sessionstore.store import high_water_mark as mark
from tests.tracing import Call

CALLS = (
    *("write", "pwrite64", "ftruncate", "openat", "fsync", "fdatasync", "syncfs"),
    *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "symlinkat"),
)
SECTOR = 512
KEPT = (0.0, 0.5, 0.95, 1.0)
"""Shares of what was not synced that a cut keeps; one is drawn for each file."""
ANSWER = re.compile(rb"HTTP/1\.1 20[01] .*\r\n\r\n(.*)", re.DOTALL)


class Change(NamedTuple):
    """Of a file: bytes at an offset, or, with none, its new length."""

    at: int
    data: bytes | None

    def sectors(self) -> Iterator[Change]:
        """The pieces that a disk writes wholly or not at all; a new length is one."""
        if self.data is None:
            yield self
            return
        begin = 0
        while begin < len(self.data):
            end = begin + SECTOR - (self.at + begin) % SECTOR
            yield Change(self.at + begin, self.data[begin:end])
            begin = end

    def make(self, content: bytearray) -> None:
        end = self.at + len(self.data or b"")
        if self.data is None:
            del content[end:]
        content.extend(bytes(max(0, end - len(content))))
        if self.data is not None:
            content[self.at : end] = self.data


@dataclass
class File:
    """Of whatever name: what is in it, and what of that is sure."""

    safe: bytearray = field(default_factory=bytearray)
    """What is on the disk."""
    pending: list[Change] = field(default_factory=list)
    synced: int = 0
    """How many changes were pending once, and are not any more."""

    @property
    def made(self) -> int:
        """How many changes there ever were."""
        return self.synced + len(self.pending)

    def content(self) -> bytes:
        """As whoever reads it sees it."""
        content = bytearray(self.safe)
        for change in self.pending:
            change.make(content)
        return bytes(content)

    def length(self) -> int:
        length = len(self.safe)
        for at, data in self.pending:
            length = at if data is None else max(length, at + len(data))
        return length

    def sync(self, made: int) -> None:
        """So many of the changes that there ever were are on the disk."""
        for change in self.taken(made):
            change.make(self.safe)

    def give_up(self, made: int, chance: random.Random) -> None:
        """Of so many of the changes that there ever were, some pieces are on the disk, and the others never will be."""
        for change in self.taken(made):
            for piece in change.sectors():
                if chance.random() < 0.5:
                    piece.make(self.safe)

    def taken(self, made: int) -> list[Change]:
        """Those of them that were pending, and are not any more."""
        number = max(0, made - self.synced)
        taken, self.pending = self.pending[:number], self.pending[number:]
        self.synced += number
        return taken

    def after_cut(self, chance: random.Random) -> bytes:
        """A file is not shortened before it is; what is written after it then is not there either."""
        content = bytearray(self.safe)
        kept = chance.choice(KEPT)
        for change in self.pending:
            if change.data is None and chance.random() >= kept:
                break
            for piece in change.sectors():
                if piece.data is None or chance.random() < kept:
                    piece.make(content)
        return bytes(content)


Node = File | str | None
"""What a name stands for: a file, the target of a link, or None for a folder."""
Names = dict[str, Node]
Renaming = Callable[[Names], None]


@dataclass
class Disk:
    """A folder, all paths in it, and what of it would outlive a cut."""

    folder: str
    chance: random.Random
    names: Names = field(default_factory=dict)
    safe_names: Names = field(default_factory=dict)
    renamings: list[Renaming] = field(default_factory=list)
    synced: int = 0
    """How many of the renamings have been made in `safe_names`."""
    promised: dict[int, str] = field(default_factory=dict)
    """Cursors that were told to somebody, with the eventId where it was told too."""

    def play(self, calls: Sequence[Call]) -> Iterator[int]:
        """Every line on which something begins or ends; then it has."""
        moments: list[tuple[int, Callable[[], None]]] = []
        for call in calls:
            moments += self.moments(call)
        for line, happen in sorted(moments, key=lambda moment: moment[0]):
            happen()
            yield line

    def concerns(self, call: Call) -> bool:
        """Whether it changes the folder, or puts it on the disk."""
        return any(path == self.folder or self.inside(path) for path in call.paths) or any(self.places(call))

    def moments(self, call: Call) -> Iterator[tuple[int, Callable[[], None]]]:
        if call.name in ("fsync", "fdatasync", "syncfs"):
            begun: list[tuple[File | None, int]] = []
            yield call.begun, lambda: begun.extend(self.unsynced(call))
            yield call.ended, lambda: self.sync(begun) if call.result == 0 else self.give_up(begun)
        elif call.result >= 0:
            yield call.begun, lambda: self.happen(call)

    def happen(self, call: Call) -> None:
        path = call.paths[0] if call.paths else ""
        if call.name in ("write", "pwrite64") and path.startswith("socket:"):
            self.note_promise(call.texts[0])
        elif call.name in ("write", "pwrite64", "ftruncate"):
            self.change(call, path)
        elif call.name == "openat":
            self.open(call)
        else:
            self.rename(call)

    def note_promise(self, sent: bytes) -> None:
        answered = ANSWER.match(sent)
        if answered and (cursor := re.search(rb'"cursor":(\d+)', answered[1])):
            event_id = re.search(rb'"eventId":"([^"]+)"', answered[1])
            self.promised[int(cursor[1])] = event_id[1].decode() if event_id else ""

    # ------------------------------------------------------------------ contents

    def change(self, call: Call, path: str) -> None:
        file = self.names.get(self.inside(path))
        if not isinstance(file, File):
            return  # it is elsewhere, or is deleted
        if call.name == "ftruncate":
            file.pending.append(Change(int(call.words[0]), None))
            return
        at = int(call.words[-1]) if call.name == "pwrite64" else file.length()
        file.pending.append(Change(at, call.texts[0][: call.result]))

    def unsynced(self, call: Call) -> Iterator[tuple[File | None, int]]:
        """What a call is about to put on the disk: how many changes to which file; of names, for None."""
        path = call.paths[0]
        node = self.names.get(self.inside(path))
        for file in self.names.values() if call.name == "syncfs" else [node]:
            if isinstance(file, File):
                yield file, file.made
        if call.name == "syncfs" or self.is_folder(path):
            yield None, len(self.renamings)

    def sync(self, begun: list[tuple[File | None, int]]) -> None:
        for file, number in begun:
            if file is not None:
                file.sync(number)
                continue
            for renaming in self.renamings[self.synced : number]:
                renaming(self.safe_names)
            self.synced = max(self.synced, number)

    def give_up(self, begun: list[tuple[File | None, int]]) -> None:
        """A sync that failed."""
        for file, number in begun:
            if file is not None:
                file.give_up(number, self.chance)

    # --------------------------------------------------------------------- names

    def inside(self, path: str) -> str:
        """Relative to the folder; empty: it is not in it."""
        return os.path.relpath(path, self.folder) if path.startswith(f"{self.folder}/") else ""

    def is_folder(self, path: str) -> bool:
        return path == self.folder or self.names.get(self.inside(path), "") is None

    def places(self, call: Call) -> list[str]:
        """The paths that a call names, each relative to the folder; those outside are empty."""
        names = [text.decode() for text in call.texts]
        if call.name == "symlinkat":
            names = names[1:]
        folders = call.paths or [""] * len(names)
        return [self.inside(os.path.normpath(os.path.join(*pair))) for pair in zip(folders, names, strict=False)]

    def open(self, call: Call) -> None:
        (place,) = self.places(call)
        flags = call.words[0].split("|")
        if place and "O_CREAT" in flags and place not in self.names:
            file = File()
            self.name(lambda names: names.update({place: file}))
        node = self.names.get(place)
        if "O_TRUNC" in flags and isinstance(node, File):
            node.pending.append(Change(0, None))

    def rename(self, call: Call) -> None:
        places = self.places(call)
        if not all(places):
            return
        if call.name.startswith("mkdir"):
            self.name(lambda names: names.update({places[0]: None}))
        elif call.name == "symlinkat":
            self.name(lambda names: names.update({places[0]: call.texts[0].decode()}))
        elif call.name.startswith("rename"):
            self.name(lambda names: move(names, *places))
        else:
            self.name(lambda names: move(names, places[0], None))

    def name(self, renaming: Renaming) -> None:
        renaming(self.names)
        self.renamings.append(renaming)

    # ----------------------------------------------------------------------- cuts

    def cut(self, target: Path) -> None:
        """Write into `target` what the power would leave if it went now."""
        chance = self.chance
        names = dict(self.safe_names)
        pending = self.renamings[self.synced :]
        for renaming in pending[: round(chance.choice(KEPT) * len(pending))]:
            renaming(names)
        for place, node in sorted(names.items()):
            write_node(target / place, node, chance)
        if (target / mark.NAME).exists() and chance.random() < 0.8 and self.promised:  # is written by no system call
            (target / mark.NAME).write_bytes(mark.Newest(max(self.promised)).record())

    def contents(self) -> dict[str, bytes]:
        """Every file as it is read now."""
        return {place: node.content() for place, node in self.names.items() if isinstance(node, File)}


def move(names: Names, old: str, new: str | None) -> None:
    """With all that is below it; without a new name it is gone."""
    below = [name for name in names if name == old or name.startswith(f"{old}/")]
    for name in below:
        node = names.pop(name)
        if new is not None:
            names[new + name.removeprefix(old)] = node


def write_node(path: Path, node: Node, chance: random.Random) -> None:
    if node is None:
        path.mkdir(parents=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(node, File):
        path.write_bytes(node.after_cut(chance))
    else:
        path.symlink_to(node)
