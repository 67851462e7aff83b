"""A tar as it comes, compressed or not: its members one after the other, and nothing of it on disk.

What is no plain file is refused: a link, a device, a name that climbs out. So is what unpacks to far more than came.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from sessionstore.model.problems import Problem

BLOCK = 512
MOST_MEMBERS = 100_000
MAX_NAME = 64 << 10
"""Bytes of what stands before a member because its name is long."""
UNPACKED_AT_ONCE = 1 << 20
RATIO, FREE = 250, 64 << 20
"""So many times as much as came, and as much more, may come of it: text is compressed by 10 to 50."""
GZIP = b"\x1f\x8b"
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LONG_NAME, PAX, PAX_FOR_ALL = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE
KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class Member(NamedTuple):
    """A file in a tar; `content` is to be read before the next one, or is passed over."""

    name: str
    size: int
    content: AsyncIterator[bytes]


class BrokenTar(Problem):
    """Nothing more of it can be taken."""


def refused(why: str) -> BrokenTar:
    return BrokenTar(422, f"The tar cannot be taken: {why}")


async def unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, without its compression if it has one. Raises Problem 422 for a bomb, and for what is no gzip."""
    came = gone = 0
    inflating, is_first = None, True
    async for chunk in chunks:
        came += len(chunk)
        if is_first and chunk:
            is_first = False
            inflating = zlib.decompressobj(31) if chunk.startswith(GZIP) else None
        if inflating is None:
            yield chunk
            continue
        while chunk:
            try:
                piece = inflating.decompress(chunk, UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise refused(f"it is not compressed as it should be ({error})") from None
            gone += len(piece)
            if gone > RATIO * came + FREE:
                raise refused(f"it unpacks to more than {RATIO} times its size")
            yield piece
            chunk = inflating.unconsumed_tail
            if inflating.eof:
                chunk, inflating = inflating.unused_data, zlib.decompressobj(31)
    if inflating is not None:
        yield inflating.flush()


class Tar:
    """The members of a tar."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self.chunks = chunks
        self.buffer = bytearray()
        self.left = 0
        """Bytes of the member that are still to come."""

    async def fill(self) -> bool:
        async for chunk in self.chunks:
            if chunk:
                self.buffer += chunk
                return True
        return False

    async def exactly(self, size: int) -> bytes:
        """Raises Problem 422 where there is less."""
        while len(self.buffer) < size:
            if not await self.fill():
                raise refused("it ends in the middle")
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    async def content(self) -> AsyncIterator[bytes]:
        while self.left:
            if not self.buffer and not await self.fill():
                raise refused("it ends in the middle")
            piece = bytes(self.buffer[: self.left])
            del self.buffer[: len(piece)]
            self.left -= len(piece)
            yield piece

    async def members(self) -> AsyncIterator[Member]:
        """Raises Problem 422 for what is no tar, or has what is no plain file."""
        name, number = None, 0
        while (info := await self.header()) is not None:
            number += 1
            if number > MOST_MEMBERS:
                raise refused(f"it has more than {MOST_MEMBERS:,} members")
            if info.type in (LONG_NAME, PAX, PAX_FOR_ALL):
                said = await self.small(info)
                name = name_in(info.type, said) or name
                continue
            own, name = name or info.name, None
            check_name(own)
            if info.type in KINDS:
                raise refused(f"{own!r} is {KINDS[info.type]}, and only files are read")
            self.left = info.size
            if info.type in PLAIN and not own.endswith("/"):
                yield Member(own, info.size, self.content())
            async for _ in self.content():
                pass
            await self.exactly(-info.size % BLOCK)

    async def header(self) -> tarfile.TarInfo | None:
        """None: here it ends."""
        if not self.buffer and not await self.fill():
            return None
        block = await self.exactly(BLOCK)
        if not block.strip(b"\0"):
            async for _ in self.chunks:  # whoever sends it is not to be cut off
                pass
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise refused("it is no tar, or is broken") from None
        if info.size < 0:
            raise refused("it is broken")
        return info

    async def small(self, info: tarfile.TarInfo) -> bytes:
        if info.size > MAX_NAME:
            raise refused("a name in it is too long")
        said = await self.exactly(info.size)
        await self.exactly(-info.size % BLOCK)
        return said


def name_in(kind: bytes, said: bytes) -> str | None:
    """The name that stands before a member; of all that POSIX lets stand there (`27 path=…`), that alone."""
    if kind == LONG_NAME:
        return said.rstrip(b"\0").decode("utf-8", "surrogateescape")
    while kind == PAX and said:
        length, _, record = said.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(said):
            raise refused("it is broken")
        key, _, value = record[: int(length) - len(length) - 1].partition(b"=")
        if key == b"size":
            raise refused("a file in it is too large")
        if key == b"path":
            return value.rstrip(b"\n").decode("utf-8", "surrogateescape")
        said = said[int(length) :]
    return None


def check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name:
        raise refused(f"{name!r} is no path below its folder")
