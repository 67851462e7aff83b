"""Log shipper of transcripts: what Claude Code writes of a conversation is in the store as it grows, by byte offset.

One file, to be copied beside hook_agent.py, which finds it. Python 3.9 or newer and its standard library, nothing else.
Whoever delivers the spool ships as well, a piece after each batch, so that neither waits for the other. How far the
store is it says itself: it goes on behind what a file begins with, and any other file begins a new generation. So all
that is kept here is which conversations there are, until the store has all of them.

    Which         what hooks name, and is Claude Code's own: no other file is ever opened
    Redaction     where patterns of one's own are to be taken out, which the store does not know
    File          one of a conversation's, from where the store is with it
    Shipper       all of them, in turn

    transcripts.json    in the spool's folder: by path, the session and the process that a conversation is of
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from hook_agent import (
    _REFUSED_PAUSE_SECONDS,
    Redaction,
    _clean,
    _is_gone,
    _is_id,
    _Link,
    _Lock,
    _process,
    _suppress,
    _text,
    _Unreachable,
    names_something,
    own_patterns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hook_agent import Spool, _Answer

    Members = dict[str, Any]

_KNOWN = "transcripts.json"
_PIECE_BYTES, _SMALLEST_PIECE = 2 << 20, 64 << 10
_LINE_BYTES, _META_BYTES = 32 << 20, 1 << 20
_TAIL_BYTES = 1024  # of what is shipped, by which a file is known again
_LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 30.0
_SLOW_SECONDS, _QUICK_SECONDS = 1.0, 0.25  # of one piece: events wait for it
_LONGEST_PAUSE_SECONDS = 30.0
_QUIET_SECONDS = 3600.0  # an agent of which nothing is heard for so long is taken for one that rests
_MOST_CONVERSATIONS, _MOST_FILES, _DEEPEST = 100, 2000, 4
_BEGINS_WORK = ("UserPromptSubmit", "PreToolUse")
_ENDS_WORK = ("Stop", "StopFailure", "SessionEnd")


class Stopped(Exception):
    """The store does not take a conversation, whatever is tried. The message says why, or nothing."""


# ---------------------------------------------------------------------------------------------------------------------
# Which
# ---------------------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A name as a part of a path: all but letters, digits, _ and - is encoded, dots included."""
    return urllib.parse.quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


def _is_transcript(path: str, session: object) -> bool:
    """Whether this may be where Claude Code keeps that session: …/projects/FOLDER/SESSION.jsonl, by its name."""
    if path != _clean(path) or "\0" in path:
        return False
    parts = path.split("/")
    is_there = len(parts) > 3 and parts[0] == "" and parts[-3] == "projects" and ".." not in parts
    return is_there and _is_id(session) and parts[-1] == f"{session}.jsonl" and bool(parts[-2].strip("."))


def _is_own_folder(path: str) -> bool:
    """Whether it is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _files_below(folder: str, depth: int = 0) -> Iterator[str]:
    """The transcripts of sub-agents, and what is said of them; links are passed over."""
    if depth > _DEEPEST or not _is_own_folder(folder):
        return
    with _suppress(OSError), os.scandir(folder) as found:
        for entry in filter(lambda it: _is_id(it.name), found):
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path, depth + 1)
            elif entry.name.endswith((".jsonl", ".meta.json")) and entry.is_file(follow_symlinks=False):
                yield entry.path


def _subpath(base: str, path: str) -> str:
    """What the store finds a file beside a conversation by: `subagents/agent-ID`, `subagents/agent-ID.meta.json`."""
    beside = path[len(base) + 1 :]
    return beside[: -len(".jsonl")] if beside.endswith(".jsonl") else beside


def _is_mirrored(process: object) -> bool:
    """Whether the Agent SDK itself keeps what this program says, in a store of its program's choice."""
    with _suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return b"--session-mirror" in file.read()
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Redaction
# ---------------------------------------------------------------------------------------------------------------------

# Secrets out of JSON that is kept as it was written: each stands in a text, and that text alone is written anew.
# Nothing within a signed part is touched, for it is good for nothing then: Claude's thinking, which is sent back to it
# with its signature, would be refused. The store does the same with what it takes, by this very code.

TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_SIGNED = ("thinking", "redacted_thinking")  # types of what has a signature
_SIGNATURE = "signature"


class _Edit(NamedTuple):
    """What takes the place of some bytes."""

    begin: int
    end: int
    text: bytes


class _Level:
    """An object or a list that is open: the member that comes, what is to be edited in it, whether it is signed."""

    def __init__(self, is_object: bool) -> None:
        self.is_object = self.awaits_name = is_object
        self.name = ""
        self.edits: list[_Edit] = []
        self.is_signed = False


def without_secrets(redaction: Redaction, line: bytes, is_json: Callable[[bytes], bool] | None = None) -> bytes:
    """A line of JSON, or of anything: the same bytes where there is nothing to take out."""
    if not (is_json or _is_json)(line):
        text = line.decode(errors="surrogateescape")
        return redaction.text(text).encode(errors="surrogateescape")
    parts, at = [], 0
    for edit in _edits_of(redaction, line):
        parts += [line[at : edit.begin], edit.text]
        at = edit.end
    return b"".join([*parts, line[at:]])


def _is_json(line: bytes) -> bool:
    """Whether it is, also with half a surrogate pair or a number that is none."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _edits_of(redaction: Redaction, line: bytes) -> list[_Edit]:
    """In their order. The line must be JSON."""
    levels = [_Level(is_object=False)]
    for token in TOKEN.finditer(line):
        here, mark = levels[-1], token[0][:1]
        if mark in b"{[":
            levels.append(_Level(mark == b"{"))
        elif mark in b"}]":
            levels.pop()
            levels[-1].edits += [] if here.is_signed else here.edits
        elif mark in b",:":
            here.awaits_name = here.is_object and mark == b","
        elif here.awaits_name:
            here.name = json.loads(token[0])
        else:
            _note_text(redaction, here, token, has_ids=len(levels) == 2)
    return levels[0].edits


def _note_text(redaction: Redaction, here: _Level, token: re.Match[bytes], *, has_ids: bool) -> None:
    text = json.loads(token[0])
    name = here.name if here.is_object else ""
    here.is_signed |= name == _SIGNATURE or (name == "type" and text in _SIGNED)
    is_id = has_ids and here.is_object and names_something(name)
    if not is_id and (redacted := redaction.member(name, text)) != text:
        here.edits.append(_Edit(token.start(), token.end(), json.dumps(redacted).encode()))


def _redaction_of(setting: str) -> Redaction | None:
    """What a SESSION_REDACT of patterns of one's own takes out; all other settings leave that to the store.

    Raises Stopped where they cannot be used.
    """
    if setting in ("", "on", "off"):
        return None
    try:
        return Redaction(own_patterns(setting) or ())
    except ValueError as error:
        raise Stopped(f"SESSION_REDACT={setting}: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# File
# ---------------------------------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """How to the store: what is asked there, for which session, and what is taken out before."""

    link: _Link
    session_id: str
    redaction: Redaction | None

    def lines(self, lines: bytes) -> bytes:
        if self.redaction is None:
            return lines
        return b"\n".join(without_secrets(self.redaction, line) for line in lines.split(b"\n"))

    def known(self, address: str) -> Mapping[str, str]:
        """What the store has there; {}: nothing. Raises _Unreachable."""
        answer = self.link.ask("HEAD", address, None, _ANSWER_SECONDS)
        if answer.status == 404 or (answer.status == 200 and "x-source-bytes" in answer.headers):
            return answer.headers if answer.status == 200 else {}
        raise self._away(answer)

    def post(self, address: str, lines: bytes, offset: int) -> None:
        """Raises _Unreachable, also where the store is elsewhere in the file; Stopped."""
        told = {"X_Source": "file", "X_Source_Offset": f"{offset}", "X_Session_Id": self.session_id}
        answer = self.link.ask("POST", address, lines, _ANSWER_SECONDS, **told)
        if answer.status == 200 and "generation" in answer.document():
            return
        if answer.status == 404:  # an older store, or what is another's
            raise Stopped("")
        if answer.is_refusal() or answer.status == 409:
            raise Stopped(f"{self.link.service_url} answered {answer.status}: {answer.said()}")
        raise self._away(answer)

    def _away(self, answer: _Answer) -> _Unreachable:
        token = self.link.token() if answer.status in (401, 403) else None
        return _Unreachable(
            f"{self.link.service_url} answered {answer.status}: {answer.said()}", answer.retry_after, token
        )


class File:
    """A file of a conversation, and how far the store is with it. `sent` is what was shipped of it, `offset` what that
    was made of: the same, but for secrets."""

    def __init__(self, path: str, address: str) -> None:
        self.path, self.address = path, address
        self.offset = self.sent = 0
        self.is_known = False
        self.number = -1
        self.tail = b""
        self.whole: tuple[int, int, int] | None = None  # what it looked like when there was nothing to ship
        self.piece = _PIECE_BYTES

    def ship(self, way: Way) -> bool:
        """Ship what is next of it; whether anything was. Raises _Unreachable, Stopped."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # not there yet, or no more
            return False
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            looks = (found.st_ino, found.st_size, found.st_mtime_ns)
            if not stat.S_ISREG(found.st_mode) or looks == self.whole:
                return False
            has_shipped = self._shipped(file, found, way)
            if not has_shipped and self.is_known:
                self.whole = looks
            return has_shipped

    def _shipped(self, file: BinaryIO, found: os.stat_result, way: Way) -> bool:
        if not self._goes_on(file, found):
            self._find(file, way)
            self.number, self.is_known = found.st_ino, True
        lines = _whole_lines(file, self.offset, self.piece)
        if not lines:
            return False
        ready, begun = way.lines(lines), time.monotonic()
        self.is_known = False  # as long as it is not answered
        try:
            way.post(self.address, ready, self.sent)
        finally:
            self._pace(time.monotonic() - begun)
        self._pass(lines, ready)
        self.is_known = True
        return True

    def _pass(self, lines: bytes, ready: bytes) -> None:
        self.offset, self.sent, self.tail = self.offset + len(lines), self.sent + len(ready), lines[-_TAIL_BYTES:]

    def _goes_on(self, file: BinaryIO, found: os.stat_result) -> bool:
        """Whether it is the file that it was, and has only grown."""
        is_longer = self.is_known and found.st_ino == self.number and found.st_size >= self.offset
        return is_longer and os.pread(file.fileno(), len(self.tail), self.offset - len(self.tail)) == self.tail

    def _find(self, file: BinaryIO, way: Way) -> None:
        """Go to where the store is, be it with this file or with one that was written back; else to its beginning."""
        known = way.known(self.address)
        for size, digest in (("x-source-bytes", "x-source-digest"), ("content-length", "x-kept-digest")):
            if known.get(size) and known.get(digest) and self._begins_with(file, int(known[size]), known[digest], way):
                return
        self.offset, self.sent, self.tail = 0, 0, b""

    def _begins_with(self, file: BinaryIO, size: int, digest: str, way: Way) -> bool:
        known = hashlib.sha256()
        self.offset = self.sent = 0
        while self.sent < size:
            most = min(_PIECE_BYTES, size - self.sent) if way.redaction is None else 1
            lines = _whole_lines(file, self.offset, most)
            ready = way.lines(lines)
            known.update(ready)
            self._pass(lines, ready)
            if not lines:
                return False
        return self.sent == size and known.hexdigest() == digest

    def _pace(self, seconds: float) -> None:
        """The slower the way, the smaller the pieces: events wait for one, never for more."""
        if seconds > _SLOW_SECONDS:
            self.piece = max(_SMALLEST_PIECE, self.piece // 2)
        elif seconds < _QUICK_SECONDS:
            self.piece = min(_PIECE_BYTES, self.piece * 2)


class Meta(File):
    """What is said of a sub-agent: one small document, written anew each time."""

    def _shipped(self, file: BinaryIO, found: os.stat_result, way: Way) -> bool:
        self.is_known = True
        document = file.read(_META_BYTES + 1)
        if len(document) > _META_BYTES or not _is_json(document):  # only half of it is there
            return False
        ready = way.lines(document)
        if way.known(self.address).get("x-source-digest") == hashlib.sha256(ready).hexdigest():
            return False
        way.post(self.address, ready, 0)
        return True


def _whole_lines(file: BinaryIO, offset: int, most: int) -> bytes:
    """From there on as many lines as have so many bytes, at least one; nothing of one that is not ended yet.

    Raises Stopped for one that is longer than the store takes.
    """
    file.seek(offset)
    piece = bytearray(file.read(most))
    end = piece.rfind(b"\n") + 1
    while not end:
        more = file.read(max(_SMALLEST_PIECE, most))
        if not more:
            return b""
        end = (more.find(b"\n") + 1) and len(piece) + more.find(b"\n") + 1
        piece += more
        if not end and len(piece) > _LINE_BYTES:
            raise Stopped(f"a line of it has more than {_LINE_BYTES} bytes")
    return bytes(piece[:end])


# ---------------------------------------------------------------------------------------------------------------------
# Shipper
# ---------------------------------------------------------------------------------------------------------------------


class Shipper:
    """Ships the transcripts that the hooks in a spool have named, for whoever delivers it. No call of it raises.

    `whole_at`: when it last found that the store has all of them (time.monotonic()).
    """

    def __init__(self, spool: Spool, link: _Link, say: Callable[[str], None] = lambda text: None) -> None:
        self.spool, self.link, self._say = spool, link, say
        self.whole_at = 0.0
        kept = spool._read_json(_KNOWN).items()
        self._known = {path: about for path, about in kept if isinstance(about, dict) and about.get("sessionId")}
        self._files: dict[str, dict[str, File]] = {}
        self._redactions: dict[str, Redaction | None] = {}
        self._stopped: set[str] = set()
        self._next = 0.0
        self._turn = 0
        self._failures = 0
        self._is_kept = True

    # What there is

    def hear(self, heard: Iterable[tuple[Members, Members, str]]) -> None:
        """Note what hooks name: each with what stood around it in the spool, and the session that it is of."""
        before = {path: {**about} for path, about in self._known.items()}
        for known, payload, session_id in heard:
            with _suppress(Exception):  # whatever it is, events must not wait for it
                self._note(known, payload, session_id)
        for path in list(self._known)[:-_MOST_CONVERSATIONS]:
            del self._known[path]
            self._files.pop(path, None)
        if self._known != before:
            self._keep()
        self.whole_at = 0.0
        self._next = self._next if self._failures else 0.0

    def _note(self, known: Members, payload: Members, session_id: str) -> None:
        path, hook = _text(payload.get("transcript_path")), payload["hook_event_name"]
        if known.get("transcripts") not in (None, "", "on") or not _is_transcript(path, payload.get("session_id")):
            self._known.pop(path, None)
            return
        about = self._known[path] = self._known.pop(path, {"isAtWork": False})  # the last one heard of comes last
        process = _process(known.get("ppid"))
        if process and process != about.get("process"):
            about.update(process=process, isMirrored=_is_mirrored(known["ppid"]))
            self._stopped.discard(path)
        about.update(sessionId=session_id, redact=_text(known.get("redact")))
        about["isAtWork"] = hook in _BEGINS_WORK or (about.get("isAtWork", False) and hook not in _ENDS_WORK)

    def _keep(self) -> None:
        self._is_kept = False
        with _suppress(OSError), _Lock(self.spool, must_be_held=True):
            self.spool._write(_KNOWN, self._known)
            self._is_kept = True

    def may_leave(self) -> bool:
        """Whether there is nothing left to do; what is whole is then forgotten."""
        if self._failures or any(map(self._is_at_work, self._known)):
            return False
        self._known = {it: about for it, about in self._known.items() if about.get("refused") and os.path.exists(it)}
        self._keep()
        return True

    def _is_at_work(self, path: str) -> bool:
        about = self._known[path]
        if not about.get("isAtWork") or path in self._stopped or _is_gone(about.get("process", "")):
            return False
        changed = max(map(_changed_at, [path, *self._beside(path)]))
        return time.time() - changed < _QUIET_SECONDS

    def _beside(self, path: str) -> list[str]:
        base = path[: -len(".jsonl")]
        return [] if not _is_own_folder(base) else sorted(_files_below(f"{base}/subagents"))[:_MOST_FILES]

    # Shipping

    def step(self) -> bool:
        """Ship a piece of what is next; whether anything was shipped."""
        now = time.monotonic()
        if now < self._next:
            return False
        if not self._is_kept:  # the disk was full
            self._keep()
        try:
            has_shipped = any(map(self._ship, self._in_turn()))
        except _Unreachable as trouble:
            self._failures += 1
            longest = _REFUSED_PAUSE_SECONDS if trouble.token is not None else _LONGEST_PAUSE_SECONDS
            self._next = now + min(longest, max(trouble.pause, _LOOK_SECONDS * 2.0 ** min(self._failures, 10)))
            return False
        except Exception:  # of a disk, or something that nobody foresaw
            self._next = now + _LOOK_SECONDS
            return False
        self._failures = 0
        if not has_shipped:
            self._next, self.whole_at = now + _LOOK_SECONDS, now
        return has_shipped

    def _in_turn(self) -> list[tuple[str, File]]:
        """All files, those first that it is the turn of, so that one that grows and grows holds up no other."""
        files = [(path, self._file(path, name)) for path in self._shipped() for name in (path, *self._beside(path))]
        self._turn += 1
        at = self._turn % len(files) if files else 0
        return files[at:] + files[:at]

    def _shipped(self) -> list[str]:
        known = [path for path in self._known if path not in self._stopped and _is_own_folder(os.path.dirname(path))]
        return [path for path in known if not self._known[path].get("isMirrored") or self._is_ours(path)]

    def _is_ours(self, path: str) -> bool:
        """Whether the store has a conversation from here: then it has it from nobody else. Raises _Unreachable."""
        known = Way(self.link, "", None).known(self._file(path, path).address)
        if known.get("x-source") != "file":
            self._stopped.add(path)
        return known.get("x-source") == "file"

    def _file(self, main: str, path: str) -> File:
        files = self._files.setdefault(main, {})
        if path not in files:
            base = main[: -len(".jsonl")]
            folder, session = base.split("/")[-2:]
            beside = f"?subpath={quoted(_subpath(base, path))}" if path != main else ""
            kind = Meta if path.endswith(".meta.json") else File
            files[path] = kind(path, f"/api/transcripts/{quoted(folder)}/{quoted(session)}{beside}")
        return files[path]

    def _ship(self, named: tuple[str, File]) -> bool:
        path, file = named
        about = self._known[path]
        try:
            has_shipped = file.ship(Way(self.link, about["sessionId"], self._redaction(about.get("redact", ""))))
        except Stopped as reason:
            self._stopped.add(path)
            self._tell(path, str(reason))
            return False
        if has_shipped and about.pop("refused", None):
            self._keep()
        return has_shipped

    def _redaction(self, setting: str) -> Redaction | None:
        if setting not in self._redactions:
            self._redactions[setting] = _redaction_of(setting)
        return self._redactions[setting]

    def _tell(self, path: str, reason: str) -> None:
        """Once: on stderr, if there is one, and for the command `status`."""
        if reason and reason != self._known[path].get("refused"):
            self._known[path]["refused"] = reason
            self._keep()
            self._say(f"{path} is not kept: {reason}")


def _changed_at(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0
