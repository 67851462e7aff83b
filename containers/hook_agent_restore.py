"""Restore of a conversation: what the store keeps of it is written back, so that `claude --resume` goes on with it.

One file, to be copied beside hook_agent.py, which finds it, with hook_agent_ship.py. Python 3.9 or newer and its
standard library, nothing else. A file is whole when it is there, and one that has more, or other, is not touched.

    Store     what it keeps of a session, and each of its files as it comes
    Folder    where Claude Code looks for them
    Command   restore; `run --restore` begins with it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from hook_agent import _ANSWER_SECONDS, _beside, _is_id, _Link, _parser, _service_url, _setting, _suppress, _Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Members = dict[str, Any]

_PIECE_BYTES = 1 << 20
_PATIENCE_SECONDS = 15.0  # with a store that is away
_PAUSE_SECONDS = 0.5
_LONGEST_SECONDS, _SLOWEST_BYTES = 60.0, 4 << 10  # for an answer, and in each further second: a peer may drip for ever
_SLUG_LENGTH = 200
_META = ".meta.json"


_quoted = _beside("hook_agent_ship", "restore").quoted


class CannotRestore(Exception):
    """Why, in words."""


class NoSession(CannotRestore):
    """There is none yet."""


class Conversation(NamedTuple):
    """One that is kept: Claude Code's own names for its folder and for itself."""

    folder: str
    session: str

    @property
    def address(self) -> str:
        return f"/api/transcripts/{_quoted(self.folder)}/{_quoted(self.session)}"


# ---------------------------------------------------------------------------------------------------------------------
# Store
# ---------------------------------------------------------------------------------------------------------------------


def _patiently(work: Callable[[], Any]) -> Any:
    """What it returns, with patience while the store is away. Raises CannotRestore."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return work()
        except (_Unreachable, ConnectionError, TimeoutError, socket.gaierror, HTTPException) as trouble:
            if time.monotonic() + _PAUSE_SECONDS > deadline:
                raise CannotRestore(f"{trouble or type(trouble).__name__}") from None
        time.sleep(_PAUSE_SECONDS)


def _asked(link: _Link, path: str) -> Any:
    """What is there, decoded; None: nothing. Raises _Unreachable, CannotRestore."""
    answer = link.ask("GET", path)
    if answer.status == 200:
        with _suppress(ValueError):
            return json.loads(answer.body)
    if answer.status == 404:
        return None
    said = f"{link.service_url} answered {answer.status}: {answer.said()}"
    if answer.status in (401, 403):
        raise CannotRestore(f"{said} {link.token_trouble()}".rstrip())
    raise _Unreachable(said)


def conversation_of(link: _Link, session_id: str) -> Conversation:
    """The one that a session goes on with: of its Claude Code, else the last to change. Raises CannotRestore."""
    known = _patiently(lambda: _asked(link, f"/api/sessions/{session_id}/resume"))
    if known is None:
        raise NoSession(f"{link.service_url} has no session {session_id!r}")
    kept = known.get("conversations")
    if kept is None:
        raise CannotRestore(f"{link.service_url} is older than this file, and keeps no conversations")
    if not kept:
        raise CannotRestore(f"nothing is kept of a conversation of {session_id!r}")
    wanted = (session_id, known["metadata"].get("claudeSessionId"))
    found = next((it for name in wanted for it in reversed(kept) if it["session"] == name), kept[-1])
    return Conversation(found["folder"], found["session"])


class _Kept:
    """A file as the store has it, a piece at a time; it may be iterated over once."""

    def __init__(self, link: _Link, address: str) -> None:
        """Raises OSError, HTTPException."""
        link.close()  # another may be half read
        connection, base = link._connected()
        token = link.token()
        connection.sock.settimeout(_ANSWER_SECONDS)
        watch = threading.Timer(_LONGEST_SECONDS, connection.sock.shutdown, (2,))
        watch.daemon = True
        watch.start()
        try:
            connection.request("GET", base + address, headers={"Authorization": f"Bearer {token}"} if token else {})
            self.answer = connection.getresponse()
        finally:
            watch.cancel()
        self.headers = self.answer.headers
        if self.answer.status != 200:
            raise ConnectionError(f"{link.service_url} answered {self.answer.status}")

    def __iter__(self) -> Iterator[bytes]:
        """Raises ConnectionError where it is not all of it."""
        digest, until = hashlib.sha256(), time.monotonic() + _LONGEST_SECONDS
        while piece := self.answer.read1(_PIECE_BYTES):
            digest.update(piece)
            until += len(piece) / _SLOWEST_BYTES
            if time.monotonic() > until:
                raise ConnectionError("the answer of the store came too slowly")
            yield piece
        if digest.hexdigest() != self.headers.get("x-kept-digest"):
            raise ConnectionError("the answer of the store was cut")

    def is_there(self, path: str) -> bool:
        """Whether a file begins with it, be it with what was taken out of it for a secret."""
        of_source = (self.headers.get("x-source-bytes"), self.headers.get("x-source-digest"))
        of_kept = (self.headers.get("content-length"), self.headers.get("x-kept-digest"))
        return any(size and digest and _begins_with(path, int(size), digest) for size, digest in (of_source, of_kept))


def _begins_with(path: str, size: int, digest: str) -> bool:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (piece := file.read(min(_PIECE_BYTES, size))):
            found.update(piece)
            size -= len(piece)
    return size == 0 and found.hexdigest() == digest


# ---------------------------------------------------------------------------------------------------------------------
# Folder
# ---------------------------------------------------------------------------------------------------------------------


def _config_folder(chosen: str | None) -> str:
    return os.path.abspath(chosen or _setting("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude"))


def _is_folder_of(name: str, folder: str) -> bool:
    """Whether Claude Code, at work in a folder, has its conversations under this name."""
    own = _setting("CLAUDE_CODE_PROJECT_DIR_NAME") if _setting("CLAUDE_CONFIG_DIR") else ""
    slug = own or re.sub("[^a-zA-Z0-9]", "-", folder)
    return name == slug if len(slug) <= _SLUG_LENGTH else name.startswith(slug[:_SLUG_LENGTH])


def _checked_name(name: str) -> str:
    """One that is a file's name and leads nowhere else. Raises CannotRestore."""
    if not name.strip(".") or "/" in name or "\\" in name or "\0" in name or not name.isprintable():
        raise CannotRestore(f"{name!r} is kept under a name that is none of Claude Code's: nothing is written")
    return name


def _place(base: str, subpath: str) -> str:
    """Where what is kept beside a conversation belongs. Raises CannotRestore for what would lead out."""
    parts = [_checked_name(part) for part in subpath.split("/")]
    return "/".join([base, *parts]) + ("" if subpath.endswith(_META) else ".jsonl")


def _make_folder(path: str, below: str) -> None:
    """With those above it, `below` that one: none of them may be a link. Raises OSError, CannotRestore."""
    os.makedirs(path, 0o700, exist_ok=True)
    if os.path.realpath(path) != os.path.realpath(below) + path[len(below) :]:
        raise CannotRestore(f"{path} leads elsewhere: nothing is written there")


def _write(kept: _Kept, path: str) -> None:
    """Whole or not at all, in place of what is its beginning. Raises OSError, CannotRestore."""
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            for piece in kept:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if kept.headers.get("x-source") == "sdk":
            _take_out_metadata(new, path)
        if os.path.lexists(path) and (os.path.islink(path) or not _is_beginning(path, new)):
            raise CannotRestore(f"{path} is there, and is not what the store keeps: it is not touched")
        os.replace(new, path)
    finally:
        for name in (new, f"{new}.lines"):
            with _suppress(FileNotFoundError):
                os.unlink(name)


def _is_beginning(path: str, whole: str) -> bool:
    with open(path, "rb") as one, open(whole, "rb") as other:
        while piece := one.read(_PIECE_BYTES):
            if other.read(len(piece)) != piece:
                return False
    return True


def _take_out_metadata(new: str, path: str) -> None:
    """What the Agent SDK has put among the lines of a sub-agent becomes the file that it was."""
    with open(new, "rb") as file, open(f"{new}.lines", "wb") as lines:
        for line in file:
            about = _metadata_in(line) if b'"agent_metadata"' in line else None
            if about is None:
                lines.write(line)
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(path[: -len(".jsonl")] + _META, flags, 0o600), "w", encoding="utf-8") as meta:
                json.dump(about, meta)
    os.replace(f"{new}.lines", new)


def _metadata_in(line: bytes) -> Members | None:
    with _suppress(ValueError, RecursionError):
        entry = json.loads(line)
        if isinstance(entry, dict) and entry.pop("type", None) == "agent_metadata":
            return entry
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Command
# ---------------------------------------------------------------------------------------------------------------------


def restored(session_id: str, config_folder: str | None = None) -> str:
    """Write back what the store keeps of a session's conversation: Claude Code's id of it. Raises CannotRestore."""
    if not _is_id(session_id):
        raise CannotRestore(f"{session_id!r} is no session's id: --session or SESSION_ID says it")
    link = _Link(_service_url(session_id))
    try:
        found = conversation_of(link, session_id)
        base = _base(found, _config_folder(config_folder))
        beside = _patiently(lambda: _asked(link, f"{found.address}/subkeys")) or []
        places = {_place(base, subpath): f"{found.address}?subpath={_quoted(subpath)}" for subpath in beside}
        for path, address in places.items():
            _fetch(link, address, path, base)
        _fetch(link, found.address, f"{base}.jsonl", base)
    finally:
        link.close()
    return found.session


def _base(found: Conversation, config: str) -> str:
    """Where a conversation belongs, without `.jsonl`; that Claude Code will not find it there is said."""
    projects = f"{config}/projects"
    folder = f"{projects}/{_checked_name(found.folder)}"
    _make_folder(folder, projects)
    if not _is_folder_of(found.folder, os.getcwd()):
        print(
            f"hook_agent.py: the conversation is of a working directory that Claude Code calls {found.folder}, and this"
            f" is {os.getcwd()}: claude --resume finds it only in a directory of the same path",
            file=sys.stderr,
        )
    return f"{folder}/{_checked_name(found.session)}"


def _fetch(link: _Link, address: str, path: str, base: str) -> None:
    """Unless it is there already, or more. Raises OSError, CannotRestore."""

    def fetch() -> None:
        kept = _Kept(link, address)
        _make_folder(os.path.dirname(path), os.path.dirname(base))
        is_file = os.path.isfile(path) and not os.path.islink(path)
        if not is_file or not (path.endswith(_META) or kept.is_there(path)):
            _write(kept, path)

    _patiently(fetch)


def restore(arguments: list[str]) -> int:
    """write a session's conversation back, and print the id for claude --resume: restore [--session ID]"""
    parser = _parser("restore", restore)
    parser.add_argument("--session", default=_setting("SESSION_ID"), metavar="ID", help="else SESSION_ID")
    parser.add_argument("--config-dir", metavar="DIR", help="else CLAUDE_CONFIG_DIR, else ~/.claude")
    options = parser.parse_args(arguments)
    try:
        print(restored(options.session, options.config_dir))
    except (CannotRestore, OSError) as reason:
        print(f"hook_agent.py restore: {reason}", file=sys.stderr)
        return 1
    return 0


def prepared() -> dict[str, str]:
    """What `run --restore` gives its command: CLAUDE_SESSION_ID, where there is a conversation to go on with."""
    try:
        return {"CLAUDE_SESSION_ID": restored(_setting("SESSION_ID"))}
    except NoSession:  # it begins with this
        return {}
    except Exception as reason:  # whatever it is, the command runs
        print(f"hook_agent.py run --restore: {reason}", file=sys.stderr)
        return {}
