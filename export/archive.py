"""One session as one compressed tar: its folder of the tree to the byte, and a manifest as the last of its files.

    demo-1@4711.tar.gz     session demo-1 as it was after its event 4711
      demo-1/actions.jsonl, events.jsonl, initial.json, metadata.json …
      demo-1/subsessions/demo-2 -> ../../demo-2
      demo-1/manifest.json

The same session always gives the same tar. It is made a piece at a time, from the
database, so that its size does not matter.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sqlite3
import tarfile
import zlib
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from export import layout, material
from export.backup import MANIFEST_BYTES, synchronise
from export.layout import LOGS, METADATA, SUBSESSIONS, Log, TreeSession

MANIFEST = "manifest.json"
GZIP = 31
"""To zlib: with a gzip head, in which it writes no time."""


class ArchiveFailed(Exception):
    """The message says why."""


class NoSession(ArchiveFailed):
    """Nothing has this id."""


class Content(NamedTuple):
    """One file to be: its pieces hold `size` bytes together."""

    name: str
    size: int
    pieces: Iterator[bytes]


class FileSum(msgspec.Struct):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


class ArchiveManifest(msgspec.Struct, rename="camel", kw_only=True):
    """manifest.json"""

    schema: str = msgspec.field(default="session-archive-v1", name="$schema")
    session_id: str
    last_cursor: int
    files: dict[str, FileSum]


# ---------------------------------------------------------------------- making


class SessionSnapshot(NamedTuple):
    """A session as it was at one moment. What is written to it later is not in its contents."""

    session: TreeSession
    contents: list[Content]
    links: dict[str, str]

    @property
    def file_name(self) -> str:
        """No two states of a session have the same, nor two sessions that had the same id one after the other."""
        return f"{self.session.session_id}@{self.session.last_cursor}.tar.gz"


def take(database: sqlite3.Connection, session_id: str, *, with_material: bool = True) -> SessionSnapshot:
    """No snapshot is held afterwards: what a log has up to its last line does not change. Raises NoSession."""
    with layout.snapshot(database):
        session = layout.session(database, session_id)
        if session is None:
            raise NoSession(f"There is no session {session_id!r}")
        contents = [*documents(database, session), *logs(database, session)]
        if with_material and (size := sum(map(len, material.lines(database, session_id)))):
            contents.append(Content(material.NAME, size, material.lines(database, session_id)))
        return SessionSnapshot(session, sorted(contents), layout.subsessions(database, session_id))


def compressed(tar: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=GZIP)
    for piece in tar:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def tar_of(taken: SessionSnapshot) -> Iterator[bytes]:
    """Raises ArchiveFailed where the session is deleted meanwhile."""
    session = taken.session
    mtime = int(datetime.fromisoformat(msgspec.json.decode(session.metadata)["updated"]).timestamp())
    files: dict[str, FileSum] = {}
    for content in taken.contents:
        yield head(session, content.name, mtime, size=content.size)
        files[content.name] = yield from counted(content)
        yield padding(content.size)
    for child, target in sorted(taken.links.items()):
        yield head(session, f"{SUBSESSIONS}/{child}", mtime, target=target)
    manifest = ArchiveManifest(session_id=session.session_id, last_cursor=session.last_cursor, files=files)
    text = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    yield head(session, MANIFEST, mtime, size=len(text)) + text + padding(len(text))
    yield bytes(2 * tarfile.BLOCKSIZE)


def counted(content: Content) -> Generator[bytes, None, FileSum]:
    """The pieces of a file, and in the end what there was. Raises ArchiveFailed where it is not what it was to be."""
    digest, size = hashlib.sha256(), 0
    for piece in content.pieces:
        digest.update(piece)
        size += len(piece)
        yield piece
    if size != content.size:
        raise ArchiveFailed(f"{content.name} has {size} bytes instead of {content.size}: the session is being deleted")
    return FileSum(size, digest.hexdigest())


def documents(database: sqlite3.Connection, session: TreeSession) -> Iterator[Content]:
    whole = {METADATA: layout.pretty(session.metadata)} | layout.documents(database, session.session_id)
    for name, text in whole.items():
        if text is not None:
            yield Content(name, len(text), iter((text,)))


def logs(database: sqlite3.Connection, session: TreeSession) -> Iterator[Content]:
    for log in LOGS:
        yield Content(log.name, size_of(database, session, log), lines(database, session, log))


def lines(database: sqlite3.Connection, session: TreeSession, log: Log) -> Iterator[bytes]:
    pieces = layout.pieces(database, log, session.session_id, session.before_first(log), session.last(log))
    for _, piece in pieces:
        yield piece


def size_of(database: sqlite3.Connection, session: TreeSession, log: Log) -> int:
    values = {"id": session.session_id, "after": session.before_first(log), "last": session.last(log)}
    query = f"SELECT coalesce(sum(octet_length(document) + 1), 0) FROM ({log.lines} AND position <= :last)"
    if sqlite3.sqlite_version_info < (3, 43):
        query = query.replace("octet_length(document)", "length(CAST(document AS BLOB))")
    ((size,),) = database.execute(query, values).fetchall()
    return int(size)


def head(session: TreeSession, name: str, mtime: int, *, size: int = 0, target: str = "") -> bytes:
    member = tarfile.TarInfo(f"{session.session_id}/{name}")
    member.mtime, member.size, member.linkname = mtime, size, target
    member.type = tarfile.SYMTYPE if target else tarfile.REGTYPE
    return member.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


# ---------------------------------------------------------------------- keeping


def old_sessions(database: sqlite3.Connection, before: str) -> list[str]:
    """Those that have ended and have not changed since a time, oldest first."""
    rows = database.execute(
        "SELECT session_id FROM sessions WHERE ended IS NOT NULL AND updated < ? ORDER BY last_cursor", (before,)
    )
    return [session_id for (session_id,) in rows]


def keep(
    database: sqlite3.Connection, session_id: str, folder: Path, *, with_material: bool = True
) -> tuple[TreeSession, bool]:
    """Have the archive of a session in a folder: the session as it is there, and whether the archive is new.

    Either way it has been read back, and is what the database has. Material changes without an event: then the archive
    is made anew. Raises ArchiveFailed, OSError.
    """
    taken = take(database, session_id, with_material=with_material)
    path = folder / taken.file_name
    if path.exists() and {*check(path, database, taken.session, with_material)} != {material.NAME}:
        return taken.session, False
    part = folder / f".{path.name}.part"
    try:
        with open(part, "wb") as file:
            file.writelines(compressed(tar_of(taken)))
        synchronise(part)
        if check(part, database, taken.session, with_material):
            raise ArchiveFailed(f"The material of the session {session_id} has changed meanwhile")
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    synchronise(folder)
    return taken.session, True


def check(path: Path, database: sqlite3.Connection, session: TreeSession, with_material: bool) -> list[str]:
    """Raises ArchiveFailed unless a file, read back whole, holds what the database has of a session.

    Only in metadata.json it may differ, and in its links: these tell of other sessions, which come and go without a
    change to this one. Material that is another is what is answered.
    """
    archived = manifest_in(path).files
    taken = take(database, session.session_id, with_material=with_material)
    files = {content.name: digest_of(content.pieces) for content in taken.contents}
    other = [name for name in {*archived, *files} if archived.get(name) != files.get(name) and name != METADATA]
    if not {*other} <= {material.NAME} or METADATA not in archived:
        raise ArchiveFailed(f"{path} is something else than the session {session.session_id} as it is now")
    return other


# --------------------------------------------------------------------- reading

PIECE_BYTES = 1 << 18
MOST_FILES = 100
HEAD_BYTES = 1 << 16
"""Of a name too long for its head, and of all else that a pax head may say."""
PAX = re.compile(rb"[0-9]+ (path|linkpath|size)=([^\n]*)\n")
NUMBER = re.compile(rb"[0-9]{1,18}")
Member = tuple[str, str, Iterator[bytes]]
"""A file: the folder that it is in, its name there, its pieces."""


class Unpacked(gzip.GzipFile):
    """What is in an archive, a piece at a time. Raises ArchiveFailed where it is damaged."""

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self.damaged(error) from None

    def damaged(self, why: object) -> ArchiveFailed:
        return ArchiveFailed(f"{self.name} is damaged: {why}")


def files_in(path: Path) -> Iterator[Member]:
    """The files of an archive, in their order, whatever its size in a few pieces of memory. Raises ArchiveFailed.

    It is read here and not by tarfile, which takes as much memory as a hostile head asks for.
    """
    with Unpacked(path) as packed:
        try:
            yield from members_of(packed)
        except (tarfile.TarError, UnicodeError) as error:
            raise packed.damaged(error) from None


def members_of(packed: Unpacked) -> Iterator[Member]:
    said: dict[bytes, bytes] = {}
    while (block := packed.read(tarfile.BLOCKSIZE)) and any(block):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if member.type == tarfile.XHDTYPE:
            said = dict(PAX.findall(b"".join(content_of(packed, bounded(member.size, HEAD_BYTES)))))
            continue
        name = said.get(b"path", member.name.encode()).decode()
        size = int(said[b"size"]) if NUMBER.fullmatch(said.get(b"size", b"")) else member.size
        said = {}
        if member.isreg():
            folder, _, file = name.partition("/")
            content = content_of(packed, size)
            yield folder, file, content
            for _ in content:
                pass  # what was not asked for
        elif not member.issym() and not member.isdir():
            raise tarfile.ReadError(f"{name!r} is neither a file nor a link")


def bounded(size: int, limit: int) -> int:
    if not 0 <= size <= limit:
        raise tarfile.ReadError(f"a head of {size:,} bytes, where {limit:,} may be")
    return size


def content_of(packed: Unpacked, size: int) -> Iterator[bytes]:
    """The next `size` bytes, without what fills their last block."""
    left = size
    while left > 0:
        if not (piece := packed.read(min(left, PIECE_BYTES))):
            raise packed.damaged("it ends within a file")
        left -= len(piece)
        yield piece
    packed.read(-size % tarfile.BLOCKSIZE)


def manifest_in(path: Path) -> ArchiveManifest:
    """The manifest of an archive, all of whose files are as it says. Raises ArchiveFailed."""
    found: dict[str, FileSum] = {}
    folders, text = set(), b""
    for folder, name, pieces in files_in(path):
        folders.add(folder)
        if name == MANIFEST:
            text = joined(path, pieces)
        elif name in found or len(found) >= MOST_FILES:
            raise ArchiveFailed(f"{path} is damaged: it has {name!r} twice, or more than {MOST_FILES} files")
        else:
            found[name] = digest_of(pieces)
    try:
        manifest = msgspec.json.decode(text, type=ArchiveManifest)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ArchiveFailed(f"{path} is damaged: {error}") from None
    if manifest.files != found:
        raise ArchiveFailed(f"{path} is damaged: its files are not what its manifest says")
    if folders != {manifest.session_id}:
        raise ArchiveFailed(f"{path} is damaged: it has more than the session {manifest.session_id!r} of its manifest")
    return manifest


def joined(path: Path, pieces: Iterator[bytes]) -> bytes:
    text = b""
    for piece in pieces:
        text += piece
        if len(text) > MANIFEST_BYTES:
            raise ArchiveFailed(f"{path} is damaged: its manifest has more than {MANIFEST_BYTES:,} bytes")
    return text


def digest_of(pieces: Iterator[bytes]) -> FileSum:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return FileSum(size, digest.hexdigest())
