"""What runs beside an agent and tells the session store what the agent does.

One file, to be copied into each container: Python 3.9 or newer on Linux or another Unix, the standard library only.
No call of it raises into the program that it serves, or waits for the store: what is written goes to a spool on disk
first, and from there to the store in order, each event once.

    Events                  what is said: ids, times, and JSON that the store can take
    Spool                   the folder in which events wait, shared by all processes of the container
    Claude Code's hooks     the pure mapping: one hook payload becomes one event of the store
    The hook command        one payload from stdin into the spool, as quickly as Python starts
    Sender                  from the spool to the store
    Client                  SessionHookAgent, its plain twin `.sync`, and `hook_agent`, which reads the environment
    Commands                python hook_agent.py hook, test, flush, status
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

# Every hook starts an interpreter: what it does not need is imported where it is used, and typing not at all.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from http.client import HTTPConnection
    from types import TracebackType
    from typing import Any, NoReturn, TypeGuard

    Members = dict[str, Any]
    Tally = dict[str, Members]
    # Takes what it renames out of the members that are left of a payload, and knows Claude Code's own session id where
    # the session has another (else ""). None: the payload does not name what the event needs.
    Builder = Callable[[Members, str], "tuple[str, Members] | None"]

# ---------------------------------------------------------------------------------------------------------------------
# Events
# ---------------------------------------------------------------------------------------------------------------------

_ID_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ID_RULE = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit, no '..'"
_ID_LENGTH = 128
_USER_LENGTH = 256
_EVENT_BYTES = (1 << 20) - 4096  # the store takes 1 MiB of data; the rest is for what stands around it
_DEPTH = 60  # the store takes 64 levels, of which the event itself is one
_PARTS = 200_000  # of one event: what is built of itself many times over must not be unfolded for ever
_LARGEST = 1 << 63
_SHORTEST_CUT = 16
_CUT = "…"


def _is_id(value: object) -> TypeGuard[str]:
    """Whether the store takes this as an id; no regular expression, so that a hook need not compile one."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _ID_LENGTH
        and value[0] not in "._-"
        and ".." not in value
        and _ID_ALPHABET.issuperset(value)
    )


def _as_id(value: object, otherwise: str) -> str:
    """The id that is nearest to what was given."""
    if _is_id(value):
        return value
    text = "".join(character if character in _ID_ALPHABET else "-" for character in _text_of(value))
    while ".." in text:
        text = text.replace("..", ".")
    return text.lstrip("._-")[:_ID_LENGTH] or otherwise


def _as_user(value: object) -> str | None:
    """The name without control characters; None if nothing is left of it."""
    text = "" if value is None else _clean(_text_of(value))
    return "".join(filter(_is_no_control, text))[:_USER_LENGTH] or None


def _is_no_control(character: str) -> bool:
    return character >= " " and not "\x7f" <= character <= "\x9f"


def _event_id() -> str:
    """Unlike any other, and in the order of the clock."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def _now() -> str:
    moment = time.time_ns() // 1_000_000
    year, month, day, hour, minute, second = time.gmtime(moment // 1000)[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{moment % 1000:03}Z"


# JSON that the store can take


def _clean(text: str) -> str:
    """Text that is UTF-8: halves of a surrogate pair are joined, and one without the other becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if type(text) is str else str.__str__(text)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a __str__ of the program's own may do anything
        return f"<{type(value).__name__}>"


class _Plain:
    """Turns what a program gives into what JSON can hold; one is used for one event."""

    def __init__(self) -> None:
        self.parts = 0

    def value(self, value: Any, depth: int = 0) -> Any:
        self.parts += 1
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return _clean(value)
        if isinstance(value, int):
            return int(value) if -_LARGEST <= value < _LARGEST else _text_of(int(value))
        if isinstance(value, float):
            return float(value) if value - value == 0 else None  # neither infinite nor NaN
        if isinstance(value, (bytes, bytearray)):
            return bytes(value).decode(errors="replace")
        return self.container(value, depth)

    def container(self, value: Any, depth: int) -> Any:
        is_object = isinstance(value, dict)
        if not is_object and not isinstance(value, (list, tuple, set, frozenset)):
            return _clean(_text_of(value))
        if depth >= _DEPTH or self.parts > _PARTS:
            return _CUT
        if is_object:
            return {self.name(name): self.value(part, depth + 1) for name, part in list(value.items())}
        return [self.value(part, depth + 1) for part in list(value)]

    def name(self, name: object) -> str:
        return _clean(name if isinstance(name, str) else _text_of(name))


def _encoded(value: object) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _decoded(text: bytes) -> Any:
    """Raises ValueError for what is not JSON, or nested too deep to read. What is not UTF-8 is replaced."""
    import json

    try:
        return json.loads(text.decode(errors="replace"), strict=False)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _line(event: Members) -> bytes:
    """The event as one line of a batch; where it is too large, its longest texts are cut until it fits."""
    line = _encoded(event)
    if len(line) <= _EVENT_BYTES:
        return line
    whole = _encoded(event["data"])
    truncated = {"bytes": len(whole), "sha256": _sha256(whole)}
    longest = _EVENT_BYTES
    while len(line) > _EVENT_BYTES and longest > _SHORTEST_CUT:
        longest //= 2
        line = _encoded({**event, "data": {**_cut(event["data"], longest), "truncated": truncated}})
    if len(line) <= _EVENT_BYTES:
        return line
    few = {name: value for name, value in list(event["data"].items())[:100] if not isinstance(value, (dict, list))}
    start = whole[: _EVENT_BYTES // 4].decode(errors="ignore")
    return _encoded({**event, "data": {**_cut(few, 1000), "text": start, "truncated": truncated}})


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + _CUT
    if isinstance(value, dict):
        return {name: _cut(part, longest) for name, part in value.items()}
    return [_cut(part, longest) for part in value] if isinstance(value, list) else value


def _sha256(text: bytes) -> str:
    import hashlib

    return hashlib.sha256(text).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Spool
# ---------------------------------------------------------------------------------------------------------------------

# One line is one event, or a hook's payload as it came. All processes append to the newest segment, so that the order
# of the lines is the order in which things were said. Nothing is fsynced: what is spooled outlives every process, and
# needs to outlive no more than that.
#
#     00000007.ndjson     a segment; numbers only rise
#     position.json       how much of the first segment has been delivered
#     lock                flock: whoever changes the folder holds it, for microseconds. Its content is the last number
#     sender.lock         flock: whoever delivers holds it, for as long as he lives. Its content is the process id
#     dropped.json        how much had to go for the bound, by session; reporting.json while the store is being told
#     dead/               what the store refused for good, and why

_SPOOL_BYTES = 64 << 20
_SEGMENT_BYTES = 1 << 20
_DEAD_BYTES = 4 << 20  # of each of two files
_LOCK_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.0002
_BATCH_BYTES = 512 << 10
_BATCH_EVENTS = 500
_SERVICE_URL = "http://localhost:9000"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class SpoolUnusable(OSError):
    """There is no folder that a spool could be in."""


class _Batch:
    """Whole lines from the beginning of what waits, and the offset at which they end."""

    def __init__(self, segment: int, lines: list[bytes], end: int) -> None:
        self.segment = segment
        self.lines = lines
        self.end = end


class Spool:
    """The folder in which events for one store wait until that store has them."""

    def __init__(self, service_url: str, folder: str | None = None, limit: int = _SPOOL_BYTES) -> None:
        self.folder = ""
        self.limit = limit
        self.segment_bytes = min(_SEGMENT_BYTES, limit // 8)
        self._service_url = service_url
        self._chosen = folder

    # Where it is

    def settle(self) -> None:
        """Find the first folder that can be written to, and locked in. Raises SpoolUnusable."""
        name = _folder_name(self._service_url)
        for parent in (self._chosen_folder, _temporary_folder):
            try:
                folder = os.path.join(parent(), name)
                os.makedirs(folder, 0o700, exist_ok=True)
                _check_lockable(f"{folder}/lock")
            except OSError:
                continue
            self.folder = folder
            return
        raise SpoolUnusable(f"Neither {self._chosen_folder()} nor a folder for temporary files can be written to")

    def _chosen_folder(self) -> str:
        return self._chosen or _default_folder()

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _segment(self, number: int) -> str:
        return f"{self.folder}/{number:08}.ndjson"

    def segments(self) -> list[int]:
        """Their numbers, rising. Other agents may keep files of their own here."""
        try:
            names = os.listdir(self.folder) if self.folder else []
        except FileNotFoundError:
            return []
        return sorted(
            int(name[:8]) for name in names if len(name) == 15 and name.endswith(".ndjson") and name[:8].isdigit()
        )

    # Appending

    def append(self, lines: bytes) -> tuple[int, int]:
        """Add whole lines: the segment and the offset at which they end. Raises OSError, and then none was added."""
        with _Lock(self) as lock:
            descriptor, length = self._newest(len(lines), lock)
            try:
                if length and os.pread(descriptor, 1, length - 1) != b"\n":  # a writer was killed in its last line
                    lines = b"\n" + lines
                written = os.write(descriptor, lines)
                if written != len(lines):
                    os.ftruncate(descriptor, length)
                    raise OSError("the disk is full")
            finally:
                os.close(descriptor)
            return self._number, length + written

    def _newest(self, size: int, lock: _Lock) -> tuple[int, int]:
        """The segment to append to, and how long it is."""
        numbers = self.segments()
        if numbers and lock.is_held:
            self._number = numbers[-1]
            descriptor = os.open(self._segment(self._number), _OPEN | os.O_APPEND, 0o600)
            length = os.fstat(descriptor).st_size
            if length + size <= self.segment_bytes:
                return descriptor, length
            os.close(descriptor)
        if lock.is_held:
            self._make_room(numbers, size)
        return self._new(max([lock.number, *numbers]) + 1, lock), 0

    def _new(self, number: int, lock: _Lock) -> int:
        """A new segment; where the lock could not be had, others may be doing the same."""
        while True:
            try:
                descriptor = os.open(self._segment(number), _OPEN | os.O_APPEND | os.O_EXCL, 0o600)
            except FileExistsError:
                number += 1
                continue
            self._number = lock.number = number
            return descriptor

    # The bound

    def _make_room(self, numbers: list[int], size: int) -> None:
        """Remove the oldest segments until there is room for a new one; what goes is noted first."""
        if len(numbers) * self.segment_bytes + size < self.limit // 2:
            return  # no need to look
        sizes = [os.stat(self._segment(number)).st_size for number in numbers]
        room = self.limit - max(self.segment_bytes, size)
        while numbers and sum(sizes) > room:
            self._drop(numbers.pop(0))
            del sizes[0]

    def _drop(self, number: int) -> None:
        with open(self._segment(number), "rb") as segment:
            segment.seek(self._offset(number))
            self._note_dropped(_tally(segment))
        self._forget(number)

    def note_dropped(self, tally: Tally) -> None:
        with _Lock(self):
            self._note_dropped(tally)

    def _note_dropped(self, tally: Tally) -> None:
        noted = self._read_json("dropped.json") or {"id": _event_id(), "sessions": {}}
        _add(noted["sessions"], tally)
        self._write("dropped.json", noted)

    def note_not_dropped(self, tally: Tally) -> None:
        """Take back what was delivered while its segment was being dropped."""
        with _Lock(self):
            noted = self._read_json("dropped.json")
            for session, more in tally.items() if noted else ():
                if session in noted["sessions"]:
                    noted["sessions"][session]["count"] -= more["count"]
            if noted:
                self._write("dropped.json", noted)

    def dropped(self) -> Members:
        """What the store is to be told, the same until `told_dropped`: {"id", "sessions": {ID: {"count", …}}}."""
        names = os.listdir(self.folder)
        if "reporting.json" not in names:
            if "dropped.json" not in names:
                return {}
            with _Lock(self):
                os.rename(self.path("dropped.json"), self.path("reporting.json"))
        return self._read_json("reporting.json") or {"sessions": {}}

    def dropped_so_far(self) -> Tally:
        """What had to go and the store has not been told of."""
        tally: Tally = {}
        for name in ("reporting.json", "dropped.json"):
            _add(tally, self._read_json(name).get("sessions", {}))
        return tally

    def told_dropped(self) -> None:
        os.unlink(self.path("reporting.json"))

    # Delivering

    def read(self) -> _Batch | None:
        """What is next, without removing it; None: nothing waits."""
        while numbers := self.segments():
            batch = self._read(numbers[0])
            if batch.lines:
                return batch
            self.done(batch)
        return None

    def _read(self, number: int) -> _Batch:
        """Under the lock, so that a last line without its end is one that no writer is going to end."""
        start = self._offset(number)
        with _Lock(self, must_be_held=True):
            try:
                with open(self._segment(number), "rb") as segment:
                    segment.seek(start)
                    data = segment.read(_BATCH_BYTES)
                    if b"\n" not in data:
                        data += segment.readline()
            except FileNotFoundError:  # dropped since it was listed
                data = b""
        whole = data.rfind(b"\n") + 1 or len(data)
        lines: list[bytes] = []
        end = start
        for line in data[:whole].split(b"\n")[:_BATCH_EVENTS]:
            end = min(end + len(line) + 1, start + whole)
            if line.strip():
                lines.append(line)
        return _Batch(number, lines, end)

    def done(self, batch: _Batch) -> None:
        """The store has the batch. A segment of which it has all goes, unless it has grown."""
        with _Lock(self, must_be_held=True):
            try:
                size = os.stat(self._segment(batch.segment)).st_size
            except FileNotFoundError:
                size = -1
            if size > batch.end:
                self._write("position.json", {"segment": batch.segment, "offset": batch.end})
            elif size >= 0:
                self._forget(batch.segment)
        if size < 0 and batch.lines:
            self.note_not_dropped(_tally(batch.lines))

    def _forget(self, number: int) -> None:
        """First the position: one that is missing costs a second delivery, one that is wrong would cost events."""
        if os.path.exists(self.path("position.json")):
            os.unlink(self.path("position.json"))
        os.unlink(self._segment(number))

    def _offset(self, number: int) -> int:
        position = self._read_json("position.json")
        return position["offset"] if position.get("segment") == number else 0

    def waiting(self) -> Tally:
        """What waits, by session."""
        tally: Tally = {}
        for number in self.segments():
            with open(self._segment(number), "rb") as segment:
                segment.seek(self._offset(number))
                _add(tally, _tally(segment))
        return tally

    def has_delivered(self, mark: tuple[int, int]) -> bool:
        """Whether everything up to there is gone from here: delivered, refused for good, or dropped."""
        first = next(iter(self.segments()), None)
        return first is None or (first, self._offset(first)) >= mark

    # Who delivers

    def who_delivers(self) -> int | None:
        """The process; None: nobody does."""
        lock = _sender_lock(self)
        if lock is None:
            return int(self._word_of_sender()[0])
        os.close(lock)
        return None

    def is_store_away(self) -> bool:
        """What whoever delivers says of it."""
        return self._word_of_sender()[1] == "away"

    def _word_of_sender(self) -> tuple[str, str]:
        try:
            with open(self.path("sender.lock"), encoding="ascii") as file:
                process, word = file.read().split()
        except (OSError, ValueError):  # not there, or just being written
            return "0", ""
        return process, word

    def sync(self) -> None:
        """What has to wait is to outlive a crash of the machine as well, if that can be done."""
        from contextlib import suppress

        for number in self.segments()[-1:]:
            with suppress(OSError), open(self._segment(number), "rb") as segment:
                os.fsync(segment.fileno())

    # Dead letters

    def bury(self, record: bytes, status: int | None, reason: str) -> None:
        """Keep what the store refused for good, with the reason; the oldest go."""
        text = record[:_EVENT_BYTES].decode(errors="replace")
        letter = _encoded({"at": _now(), "status": status, "reason": _clean(reason), "record": text}) + b"\n"
        os.makedirs(self.path("dead"), 0o700, exist_ok=True)
        name = self.path("dead/letters.ndjson")
        descriptor = os.open(name, _OPEN | os.O_APPEND, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(letter) > _DEAD_BYTES:
                os.rename(name, self.path("dead/letters-before.ndjson"))
                os.close(descriptor)
                descriptor = os.open(name, _OPEN | os.O_APPEND, 0o600)
            os.write(descriptor, letter)
        finally:
            os.close(descriptor)

    def letters(self) -> int:
        """How many dead letters there are."""
        from contextlib import suppress

        number = 0
        for name in ("letters-before.ndjson", "letters.ndjson"):
            with suppress(FileNotFoundError), open(self.path(f"dead/{name}"), "rb") as file:
                number += sum(1 for _ in file)
        return number

    # Small files

    def _read_json(self, name: str) -> Members:
        """{} for one that is not there or was only half written when the machine stopped."""
        try:
            with open(self.path(name), "rb") as file:
                value = _decoded(file.read())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _write(self, name: str, value: Members) -> None:
        """Whole or not at all; only under the lock."""
        descriptor = os.open(self.path(f"{name}.new"), _OPEN | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, _encoded(value))
        finally:
            os.close(descriptor)
        os.replace(self.path(f"{name}.new"), self.path(name))


def _check_lockable(path: str) -> None:
    descriptor = os.open(path, _OPEN, 0o600)
    try:
        _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Lock:
    """The spool's lock, which nobody holds for long.

    An agent is not to wait for one who was stopped while he held it: after a second `is_held` is False, and a writer
    then begins a segment of its own. With `must_be_held` BlockingIOError is raised instead.
    """

    def __init__(self, spool: Spool, must_be_held: bool = False) -> None:
        self._spool = spool
        self._must_be_held = must_be_held
        self.is_held = False

    def __enter__(self) -> _Lock:
        self._descriptor = self._opened()
        deadline = 0.0
        self.is_held = _try_lock(self._descriptor)
        while not self.is_held:
            deadline = deadline or time.monotonic() + _LOCK_SECONDS
            if time.monotonic() > deadline:
                break
            time.sleep(_LOCK_POLL_SECONDS)
            self.is_held = _try_lock(self._descriptor)
        if self._must_be_held and not self.is_held:
            os.close(self._descriptor)
            raise BlockingIOError(f"{self._spool.folder} is locked")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_held:  # not left to close(): a process forked meanwhile has the descriptor as well
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def _opened(self) -> int:
        for _ in range(2):
            if self._spool.folder:
                try:
                    return os.open(self._spool.path("lock"), _OPEN, 0o600)
                except FileNotFoundError:  # somebody has removed the folder
                    pass
            self._spool.settle()
        raise SpoolUnusable(f"{self._spool.folder} is removed again and again")

    @property
    def number(self) -> int:
        """The highest number that a segment was ever given."""
        text = os.pread(self._descriptor, 8, 0)
        return int(text) if text.isdigit() else 0

    @number.setter
    def number(self, number: int) -> None:
        os.pwrite(self._descriptor, b"%08d" % number, 0)


def _sender_lock(spool: Spool) -> int | None:
    """Become the one who delivers, if nobody is."""
    descriptor = os.open(spool.path("sender.lock"), _OPEN, 0o600)
    if _try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _sign(lock: int, is_away: bool) -> None:
    """Leave word of who delivers, and whether the store is away."""
    text = b"%d %s\n" % (os.getpid(), b"away" if is_away else b"there")
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)
    except OSError:  # a full disk; it is only a word
        pass


def _folder_name(service_url: str) -> str:
    """One spool for each store, so that nothing is delivered to the wrong one."""
    name = service_url.rstrip("/")
    letters = (character if character.isalnum() and character.isascii() else "-" for character in name)
    return "".join(letters)[:100] or "-"


def _default_folder() -> str:
    if chosen := os.environ.get("SESSION_SPOOL_DIR"):
        return os.path.abspath(chosen)
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "session-store", "spool")


def _temporary_folder() -> str:
    """For where there is no other. Raises OSError if somebody else has made it, or something else in its place."""
    import stat

    folder = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"session-store-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise SpoolUnusable(f"{folder} is not this user's own folder") from None
    return os.path.join(folder, "spool")


def _spool_limit() -> int:
    text = os.environ.get("SESSION_SPOOL_BYTES", "")
    return int(text) if text.isdigit() and int(text) else _SPOOL_BYTES


def _tally(lines: Iterable[bytes]) -> Tally:
    """How many events there are by session, and the times of the first and the last, read off without decoding."""
    tally: Tally = {}
    for line in lines:
        session = (
            _member(line, b'"sessionId":"') or _member(line, b'"session_id":"') or _member(line, b'"session_id": "')
        )
        if not session:
            continue
        moment = _member(line, b'"timestamp":"')
        known = tally.setdefault(session, {"count": 0, "from": moment, "to": moment})
        known["count"] += 1
        known["to"] = moment
    return tally


def _add(tally: Tally, later: Tally) -> None:
    for session, more in later.items():
        known = tally.setdefault(session, {**more, "count": 0})
        known["count"] += more["count"]
        known["to"] = more["to"]


def _member(line: bytes, name: bytes) -> str:
    at = line.find(name)
    if at < 0:
        return ""
    start = at + len(name)
    return line[start : line.find(b'"', start)].decode(errors="replace")


# ---------------------------------------------------------------------------------------------------------------------
# Claude Code's hooks
# ---------------------------------------------------------------------------------------------------------------------


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DIGEST_LENGTH = 16  # hex digits: enough to tell apart the payloads of one session

# What the store gives an entry or a record, or reads a meaning into: no leftover member may pose as one of these.
_ENTRY_HAS = _names("type seq cursor receivedAt timestamp eventId sessionId agentId userId attention payload")
_AGENT_HAS = _names("task status result spawnedAt completedAt parentAgentId subsession")
_GOAL_HAS = _names("id goalId description details priority status completedAt")
_RECORD_HAS = {
    "agent_spawned": _AGENT_HAS,
    "agent_completed": _AGENT_HAS,
    "goal_added": _GOAL_HAS,
    "goal_updated": _GOAL_HAS,
    "session_finalized": _names("status outcome response exitCode"),
}
_METADATA_HAS = _names(
    """$schema sessionId sandboxId userId created updated status yoloMode tokenUsage metrics tags parentSession
    subsessions phase currentStep attention goals agents actions responses ended duration resumes lastCursor payload"""
)

_ASKING_NOTIFICATIONS = {
    "permission_prompt": "permission",
    "idle_prompt": "input",
    "agent_needs_input": "input",
    "elicitation_dialog": "question",
    "elicitation_url_dialog": "question",
}
_UNSAID = {
    "permission": "Claude asks for permission",
    "input": "Claude is done and waits for the next prompt",
    "question": "Claude has a question",
}
_TELLING_INPUTS = ("command", "file_path", "notebook_path", "path", "url", "pattern", "query", "description", "prompt")
_GIST_LENGTH = 200
_QUOTE_LENGTH = 300


def snake_case(name: str) -> str:
    """A hook's name as the type of an entry, never empty: PreCompact is pre_compact."""
    import re

    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"\W+", "_", parted).strip("_").lower() or "hook"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _digest(text: str) -> str:
    import hashlib  # here, because a hook that brings its own event id never gets this far

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def _renamed(left: Members, **names: str) -> Members:
    return {new: left.pop(old) for old, new in names.items() if old in left}


def _renamed_texts(left: Members, **names: str) -> Members:
    """As `_renamed`, for members that the store takes only as text: anything else stays left."""
    return _renamed(left, **{old: new for old, new in names.items() if _text(left.get(old))})


def _keep(left: Members, home: Members, reserved: Iterable[str]) -> None:
    """Moves all that is left into `home`, as it is; what would pose as something else goes together under `payload`."""
    taken = frozenset(home).union(reserved)
    aside = {name: left.pop(name) for name in list(left) if name in taken}
    home.update(left)
    if aside:
        home["payload"] = aside
    left.clear()


# For whom or what the session waits


def _attention(reason: str, message: object, **more: str) -> Members:
    said = _text(message) if _text(message).strip() else _UNSAID[reason]
    return {"attention": {"reason": reason, "message": said, **more}}


def _gist(tool_input: object) -> str:
    """The text in a tool's input that tells a person most, on one line; empty if there is none."""
    if not isinstance(tool_input, dict):
        return ""
    values = [tool_input.get(name) for name in _TELLING_INPUTS] + list(tool_input.values())
    words = next(filter(None, (_text(value).split() for value in values)), [])
    return " ".join(words)[:_GIST_LENGTH]


def _asks_nobody(left: Members) -> Members:
    return {}


def _asks_no_longer(left: Members) -> Members:
    return {"attention": None}


def _asks_permission(left: Members) -> Members:
    tool = _text(left.get("tool_name"))
    message = ": ".join(filter(None, (tool, _gist(left.get("tool_input")))))
    return _attention("permission", message, **({"tool": tool} if tool else {}))


def _asks_if_so_notified(left: Members) -> Members:
    reason = _ASKING_NOTIFICATIONS.get(_text(left.get("notification_type")))
    return _attention(reason, left.get("message")) if reason else {}


def _asks_question(left: Members) -> Members:
    return _attention("question", left.get("message"))


def _asks_next_prompt(left: Members) -> Members:
    return _attention("input", _text(left.get("last_assistant_message"))[:_QUOTE_LENGTH])


# One builder for each kind of event


def _logs(
    event_type: str, entry_type: str, asks: Callable[[Members], Members] = _asks_nobody, /, **renamed: str
) -> Builder:
    def build(left: Members, claude_id: str) -> tuple[str, Members]:
        attention = asks(left)
        return event_type, {"type": entry_type, **_renamed(left, **renamed), **attention}

    return build


def _named_action(left: Members, claude_id: str) -> tuple[str, Members]:
    return "action", {"type": snake_case(left["hook_event_name"])}


def _session_created(left: Members, claude_id: str) -> tuple[str, Members]:
    initial: Members = {"source": "claude-code"}
    reserved = {*_METADATA_HAS, *(name for name in left if "." in name)}  # a dotted name would reach into an object
    if isinstance(left.get("model"), str):
        initial["config"] = {"model": left["model"]}
    else:
        reserved.add("model")
    metadata = {"claudeSessionId": claude_id} if claude_id else {}
    _keep(left, metadata, reserved)
    return "session_created", {"initial": initial, "metadata": metadata}


def _session_finalized(left: Members, claude_id: str) -> tuple[str, Members]:
    return "session_finalized", {"status": "success"}


def _agent(left: Members) -> Members:
    return {**_renamed(left, agent_id="agentId"), **_renamed_texts(left, agent_type="type")}


def _agent_spawned(left: Members, claude_id: str) -> tuple[str, Members] | None:
    if not _is_id(left.get("agent_id")):
        return None
    return "agent_spawned", {"type": "subagent", **_agent(left)}


def _agent_completed(left: Members, claude_id: str) -> tuple[str, Members] | None:
    if not _is_id(left.get("agent_id")):
        return None
    result = _renamed(left, last_assistant_message="result")
    return "agent_completed", {"type": "internal", **_agent(left), "status": "completed", **result}


def _goal_id(task_id: str, claude_id: str) -> str:
    """Claude Code counts tasks from 1 in each of its sessions, and several of those may share one of the store's."""
    import re

    named = "-".join(filter(None, ("task", claude_id[:8], task_id)))
    safe = re.sub(r"[^A-Za-z0-9._-]|(?<=\.)\.", "-", named)
    if len(safe) <= _ID_LENGTH:
        return safe
    return f"{safe[: _ID_LENGTH - _DIGEST_LENGTH - 1]}-{_digest(named)}"


def _task(left: Members) -> Members:
    return {**_renamed_texts(left, task_subject="description"), **_renamed(left, task_description="details")}


def _goal_added(left: Members, claude_id: str) -> tuple[str, Members] | None:
    task_id = _text(left.get("task_id"))
    if not task_id:
        return None
    return "goal_added", {"id": _goal_id(task_id, claude_id), "description": task_id, **_task(left)}


def _goal_updated(left: Members, claude_id: str) -> tuple[str, Members] | None:
    task_id = _text(left.get("task_id"))
    if not task_id:
        return None
    return "goal_updated", {"goalId": _goal_id(task_id, claude_id), "status": "completed", **_task(left)}


# The mapping

_TOOL = {"tool_name": "tool", "tool_input": "input"}
_CALL = {"tool_use_id": "toolUseId", **_TOOL}
_ENDED_CALL = {**_CALL, "duration_ms": "durationMs"}

# Members that keep their name (prompt, error, message, reason …) need no mention: whatever is left is kept.
_BUILDERS: dict[str, Builder] = {
    "SessionStart": _session_created,
    "UserPromptSubmit": _logs("action", "prompt"),
    "PreToolUse": _logs("action", "tool_call", **_CALL),
    "PostToolUse": _logs("response", "tool_result", tool_response="output", **_ENDED_CALL),
    "PostToolUseFailure": _logs("response", "tool_error", **_ENDED_CALL),
    "PermissionRequest": _logs("action", "permission_request", _asks_permission, **_TOOL),
    "Notification": _logs("action", "notification", _asks_if_so_notified, notification_type="notificationType"),
    "Elicitation": _logs("action", "elicitation", _asks_question),
    "ElicitationResult": _logs("action", "elicitation_result", _asks_no_longer),
    "Stop": _logs("response", "assistant_message", _asks_next_prompt, last_assistant_message="message"),
    "StopFailure": _logs("response", "error", error_details="errorDetails", last_assistant_message="message"),
    "SubagentStart": _agent_spawned,
    "SubagentStop": _agent_completed,
    "TaskCreated": _goal_added,
    "TaskCompleted": _goal_updated,
    "SessionEnd": _session_finalized,
}

# What names the one thing that a payload is about, so that a second delivery can be recognised.
_NATURAL_KEYS = {
    "PreToolUse": ("tool_use_id",),
    "PostToolUse": ("tool_use_id",),
    "PostToolUseFailure": ("tool_use_id",),
    "PermissionDenied": ("tool_use_id",),
    "SubagentStart": ("agent_id",),
    "TaskCreated": ("task_id",),
    "MessageDisplay": ("message_id", "index"),
    "Elicitation": ("elicitation_id",),
    "ElicitationResult": ("elicitation_id",),
}


def _typed_data(payload: Members, claude_id: str) -> tuple[str, Members]:
    left = dict(payload)
    build = _BUILDERS.get(payload["hook_event_name"], _named_action)
    event_type, data = build(left, claude_id) or _named_action(left, claude_id)
    _keep(left, data, _ENTRY_HAS | _RECORD_HAS.get(event_type, frozenset()))
    return event_type, data


def _natural_key(payload: Members) -> str | None:
    hook: str = payload["hook_event_name"]
    parts = [payload.get(name) for name in _NATURAL_KEYS.get(hook, ())]
    if not parts or not all(isinstance(part, (str, int)) and part != "" for part in parts):
        return None
    import json

    try:
        digest = _digest(json.dumps(payload, sort_keys=True, separators=(",", ":")))
    except RecursionError:  # nested deeper than the store takes anyway
        return None
    key = "-".join([hook, *map(str, parts), digest])
    return key if _is_id(key) else f"{hook}-{digest}"


def _checked_session_id(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("session_id must be a string")
    if not _is_id(value):
        raise ValueError(f"session_id must be {_ID_RULE}: {value!r:.80}")
    return value


def _replaced_id(payload: Members, session: str) -> str:
    own = _text(payload.get("session_id"))
    return "" if own == session else own


def claude_code_events(
    payload: object,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    event_id: str | None = None,
    timestamp: str | None = None,
) -> list[dict[str, Any]]:
    """The events, as lines of a batch, that one Claude Code hook payload (decoded JSON) stands for: exactly one.

    `session_id` replaces Claude Code's own. Without `event_id` a payload that names one thing gets an id made from it.
    Raises ValueError, naming the field, if the payload is not an object, or its hook or its session is not named.
    """
    if not isinstance(payload, dict):
        raise ValueError("payload must be a JSON object")
    if not _text(payload.get("hook_event_name")):
        raise ValueError("hook_event_name must be a non-empty string")
    session = _checked_session_id(payload.get("session_id") if session_id is None else session_id)
    event_type, data = _typed_data(payload, claude_id=_replaced_id(payload, session))
    agent_id = payload.get("agent_id")
    event = {
        "type": event_type,
        "sessionId": session,
        "eventId": _natural_key(payload) if event_id is None else event_id,
        "userId": user_id,
        "agentId": agent_id if _is_id(agent_id) else None,
        "timestamp": timestamp,
        "data": data,
    }
    return [{name: value for name, value in event.items() if value is not None}]


# ---------------------------------------------------------------------------------------------------------------------
# The hook command
# ---------------------------------------------------------------------------------------------------------------------

_PAYLOAD_BYTES = 16 << 20
_READ_BYTES = 1 << 20
# A script that is `__main__` is compiled anew each time it starts, a module that it imports is not.
_AS_MODULE = "import sys; sys.path.insert(0, {folder!r}); import {name}; {name}.{call}"


def hook() -> NoReturn:
    """One payload of a Claude Code hook from stdin into the spool. Prints nothing and exits with 0, whatever happens.

    It decodes nothing: the sender does that.
    """
    try:
        payload = _standard_input()
        if payload.strip():
            spool = Spool(_service_url(), limit=_spool_limit())
            spool.append(_hook_record(payload))
            _ensure_sender(spool)
    finally:
        os._exit(0)  # also with an exception under way, which is then not shown


def _service_url() -> str:
    return os.environ.get("SESSION_SERVICE_URL") or _SERVICE_URL


def _standard_input() -> bytes:
    """All of it, so that nobody is left writing; what is beyond 16 MiB is thrown away."""
    parts, size = [], 0
    while part := os.read(0, _READ_BYTES):
        if size < _PAYLOAD_BYTES:
            parts.append(part)
        size += len(part)
    return b"".join(parts)


def _hook_record(payload: bytes) -> bytes:
    """The payload as it came, last in a line with what it does not say itself."""
    known = {
        "sessionId": os.environ.get("SESSION_ID") or None,
        "userId": os.environ.get("SESSION_USER_ID"),
        "parentSession": os.environ.get("SESSION_PARENT_ID"),
        "tags": os.environ.get("SESSION_TAGS"),
        "eventId": _event_id(),
        "timestamp": _now(),
    }
    head = ",".join(f'"{name}":{_quoted(text)}' for name, text in known.items() if text or name == "sessionId")
    body = payload.translate(_ONE_LINE)
    return b'{%s,"hook":%s}\n' % (head.encode(), body)


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _quoted(text: str | None) -> str:
    if text is None:
        return "null"
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _encoded(_clean(text)).decode()


def _event_of_hook(record: bytes) -> bytes | None:
    """The line of the event that a hook's record stands for; None: the line is an event already.

    Raises ValueError if the payload is not one.
    """
    head, named, payload = record.partition(b',"hook":')
    if not named or b',"data":' in head or not record.endswith(b"}"):
        return None
    known = _decoded(head + b"}")
    (event,) = claude_code_events(
        _decoded(payload[:-1]),
        session_id=_as_id(known["sessionId"], "session") if known["sessionId"] else None,
        user_id=_as_user(known.get("userId")),
        event_id=known["eventId"],
        timestamp=known["timestamp"],
    )
    if event["type"] == "session_created":
        event["data"].update(_origin(known.get("parentSession"), known.get("tags")))
    plain = _Plain()
    return _line({**event, "data": plain.value(event["data"])})


def _origin(parent: object, tags: object) -> Members:
    """Where a session comes from, as far as it is known: the session that started it, and its tags."""
    origin: Members = {}
    if parent:
        origin["parentSession"] = _as_id(parent, "session")
    if tags:
        parts = (
            tags.split(",") if isinstance(tags, str) else list(tags) if isinstance(tags, (list, tuple, set)) else [tags]
        )
        origin["tags"] = [_clean(_text_of(part)).strip()[:256] for part in parts if _text_of(part).strip()]
    return origin


# The detached sender


def _ensure_sender(spool: Spool) -> None:
    """See to it that somebody delivers: if nobody holds the sender's lock, start one and let him have it."""
    lock = _sender_lock(spool)
    if lock is None:
        return
    try:
        _spawn_sender(spool, lock)
    finally:
        os.close(lock)


def _spawn_sender(spool: Spool, lock: int, **known: str) -> None:
    """Start a sender of its own session, with nothing of ours but the lock, which is taken for as long as it lives.

    `known` is put into its environment.
    """
    folder, name = os.path.split(os.path.abspath(__file__))
    code = _AS_MODULE.format(folder=folder, name=os.path.splitext(name)[0], call="send_detached()")
    given = 3 if lock != 3 else 4  # another than the original, so that it is one that is inherited
    arguments = [sys.executable, "-I", "-S", "-c", code, str(given), spool.folder]
    environment = {**os.environ, **known}
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
        (os.POSIX_SPAWN_DUP2, lock, given),
    ]
    try:
        os.posix_spawn(sys.executable, arguments, environment, file_actions=files, setsid=True)
    except NotImplementedError:  # this libc cannot
        os.posix_spawn(sys.executable, arguments, environment, file_actions=files, setpgroup=0)


# ---------------------------------------------------------------------------------------------------------------------
# Sender
# ---------------------------------------------------------------------------------------------------------------------

_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_RETRY_AFTER_SECONDS = 300.0
_REFUSED_PAUSE_SECONDS = 60.0
_FIRST_LOOK_SECONDS = 0.02
_LOOK_SECONDS = 0.25
_FAULT_PAUSE_SECONDS = 1.0
_IDLE_SECONDS = 30.0
_NDJSON = "application/x-ndjson"
_BAD_REQUEST = (400, 413, 422)  # what is wrong is in the batch, and need not be in all of it


class _Answer:
    def __init__(self, status: int, body: bytes, retry_after: str | None) -> None:
        self.status = status
        self.body = body
        self.retry_after = float(retry_after) if retry_after and retry_after.isdigit() else 0.0

    def said(self) -> str:
        """What it says of the matter."""
        detail = self.document().get("detail")
        return detail if isinstance(detail, str) else self.body[:200].decode(errors="replace")

    def document(self) -> Members:
        """{} where it is not a JSON object."""
        try:
            value = _decoded(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class _Unreachable(Exception):
    """The store did not take it, now; whether it has it all the same is not known."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _TokenRefused(_Unreachable):
    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason)
        self.token = token


class _Link:
    """One connection to the store, opened when it is needed. No proxy, no redirect."""

    def __init__(self, service_url: str, own_token: str | None = None) -> None:
        self.service_url = service_url
        self.own_token = own_token
        self._connection: HTTPConnection | None = None

    def token(self) -> str:
        """As it is now: a file may get a new one at any time."""
        if self.own_token is not None:
            return self.own_token
        if token := os.environ.get("SESSION_TOKEN"):
            return token
        try:
            with open(os.environ.get("SESSION_TOKEN_FILE") or "", encoding="utf-8") as file:
                return file.read().strip()
        except (OSError, ValueError):
            return ""

    def known(self) -> dict[str, str]:
        """What an environment has to have for a link like this one."""
        token = {} if self.own_token is None else {"SESSION_TOKEN": self.own_token}
        return {"SESSION_SERVICE_URL": self.service_url, **token}

    def ask(self, method: str, path: str, body: bytes | None = None, seconds: float | None = None) -> _Answer:
        """Raises _Unreachable. A connection that the store has closed meanwhile is opened again."""
        from http.client import HTTPException

        is_fresh = self._connection is None
        try:
            return self._asked(method, path, body, seconds or _ANSWER_SECONDS)
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            if is_fresh or isinstance(error, TimeoutError):
                raise _Unreachable(f"{self.service_url}: {error or type(error).__name__}") from error
        return self.ask(method, path, body, seconds)

    def _asked(self, method: str, path: str, body: bytes | None, seconds: float) -> _Answer:
        connection, base = self._connected()
        connection.sock.settimeout(seconds)
        headers = {"Content-Type": _NDJSON} if body is not None else {}
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, base + path, body, headers)
        response = connection.getresponse()
        answer = _Answer(response.status, response.read(), response.headers.get("Retry-After"))
        if response.will_close:
            self.close()
        return answer

    def _connected(self) -> tuple[HTTPConnection, str]:
        from http.client import HTTPConnection, HTTPSConnection
        from urllib.parse import urlsplit

        url = urlsplit(self.service_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("not an http or https URL")
        if self._connection is None:
            kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
            self._connection = kind(url.hostname, url.port, timeout=_CONNECT_SECONDS)
            self._connection.connect()
        return self._connection, url.path.rstrip("/")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Sender:
    """Delivers what waits in a spool, batch by batch. There is at most one for a spool: who has its lock."""

    def __init__(self, spool: Spool, link: _Link, say: Callable[[str], None] = lambda text: None) -> None:
        self.spool = spool
        self.link = link
        self.lock: int | None = None
        self.failures = 0
        self._say = say
        self._refused: str | None = None

    def take_charge(self) -> bool:
        """Whether it is this one that delivers; raises OSError."""
        if self.lock is None:
            self.lock = _sender_lock(self.spool)
            if self.lock is not None:
                _sign(self.lock, self.failures > 0)
        return self.lock is not None

    def resign(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def step(self) -> float | None:
        """Deliver one batch. How many seconds to wait before the next, or None: nothing waits."""
        return self._tried(self._step)

    def send(self, lines: list[bytes]) -> float | None:
        """The same for lines that are in no spool: 0 if they are delivered."""
        return self._tried(lambda: bool(self._post(lines)) or True)

    def _tried(self, work: Callable[[], bool]) -> float | None:
        try:
            has_worked = work()
        except _Unreachable as trouble:
            return self._pause(trouble)
        except Exception:  # the spool cannot be read or written now, or something that nobody foresaw
            self._note(self.failures + 1)
            return _FAULT_PAUSE_SECONDS
        if not has_worked:
            return None
        self._note(0)
        self._refused = None
        return 0.0

    def is_worth_a_try(self) -> bool:
        """Whether the token that was refused is another now."""
        return self._refused is not None and self._refused != self.link.token()

    def _note(self, failures: int) -> None:
        has_changed = (failures > 0) != (self.failures > 0)
        self.failures = failures
        if has_changed and self.lock is not None:
            _sign(self.lock, failures > 0)

    def _pause(self, trouble: _Unreachable) -> float:
        self._note(self.failures + 1)
        self.spool.sync()
        if isinstance(trouble, _TokenRefused):
            if self._refused is None:
                self._say(str(trouble))
            self._refused = trouble.token
            return _REFUSED_PAUSE_SECONDS
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures, 10))
        return max(_chance() * longest, min(trouble.pause, _LONGEST_RETRY_AFTER_SECONDS))

    # Batches

    def _step(self) -> bool:
        """Whether there was anything to say."""
        batch = self.spool.read()
        if batch is not None:
            self._deliver(batch)
        return self._tell_dropped() or batch is not None

    def _deliver(self, batch: _Batch) -> None:
        sent: list[tuple[bytes, bytes]] = []
        refused: list[tuple[bytes, int | None, str]] = []
        for record in batch.lines:
            line, fault = _sendable(record)
            if fault:
                refused.append((record, None, fault))
            else:
                sent.append((record, line))
        for index, status, reason in self._post([line for _, line in sent]) if sent else ():
            refused.append((sent[index][0], status, reason))
        for letter in refused:
            self.spool.bury(*letter)
        self.spool.done(batch)

    def _post(self, lines: list[bytes]) -> list[tuple[int, int, str]]:
        """The store has the lines, but for those that are returned: refused for good. Raises _Unreachable."""
        answer = self._answer(lines)
        if answer.status == 200:
            return [(one["line"] - 1, one["status"], one["detail"]) for one in answer.document()["rejected"]]
        if len(lines) == 1:
            return [(0, answer.status, answer.body[:1000].decode(errors="replace"))]
        middle = len(lines) // 2
        after = self._post(lines[:middle])
        return after + [(middle + index, status, reason) for index, status, reason in self._post(lines[middle:])]

    def _answer(self, lines: list[bytes]) -> _Answer:
        """200 and what was rejected, or the status of a bad batch. Raises _Unreachable for all else."""
        token = self.link.token()
        answer = self.link.ask("POST", "/api/events", b"\n".join(lines))
        is_taken = answer.status == 200 and isinstance(answer.document().get("rejected"), list)
        if is_taken or answer.status in _BAD_REQUEST:
            return answer
        reason = f"{self.link.service_url} answered {answer.status}: {answer.said()}"
        if answer.status in (401, 403):
            raise _TokenRefused(f"hook_agent: {reason} What is written is kept until it is let in.", token)
        raise _Unreachable(reason, answer.retry_after)

    def _tell_dropped(self) -> bool:
        """Report what had to go for the bound, once the store is there to hear it."""
        dropped = self.spool.dropped()
        if not dropped:
            return False
        lines = [
            _line(_dropped_event(session, f"dropped-{dropped['id']}", known))
            for session, known in dropped["sessions"].items()
            if known["count"] > 0
        ]
        for index, status, reason in self._post(lines) if lines else ():
            self.spool.bury(lines[index], status, reason)
        self.spool.told_dropped()
        return True


def _chance() -> float:
    """From 0 to 1; not of the module `random`, whose state is the program's own."""
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


def _sendable(record: bytes) -> tuple[bytes, str]:
    """The line to send for a record, or why there is none."""
    try:
        return _event_of_hook(record) or record, ""
    except ValueError as error:
        return b"", str(error) or "unreadable"


def _dropped_event(session: str, event_id: str, known: Members) -> Members:
    return {
        "sessionId": _as_id(session, "session"),
        "eventId": event_id,
        "timestamp": known["to"] or _now(),
        "type": "action",
        "data": {"type": "events_dropped", **known},
    }


def send_detached() -> None:
    """What `_spawn_sender` starts: delivers until nothing has come for a while. It has nowhere to print to."""
    lock, folder = int(sys.argv[1]), sys.argv[2]
    os.closerange(3, lock)
    os.closerange(lock + 1, 1024)
    os.chdir("/")
    spool = Spool(_service_url(), limit=_spool_limit())
    spool.folder = folder
    sender = Sender(spool, _Link(_service_url()))
    sender.lock = lock
    _sign(lock, is_away=False)
    while sender.lock is not None:
        _send_until_idle(sender)
        sender.resign()
        if spool.segments():  # somebody appended before that, saw the lock taken and relies on us
            sender.take_charge()
    sender.link.close()


def _send_until_idle(sender: Sender) -> None:
    """Returns when nothing has come for half a minute, or the folder is gone."""
    idle_since, look = time.monotonic(), _FIRST_LOOK_SECONDS
    while time.monotonic() < idle_since + _IDLE_SECONDS and os.path.isdir(sender.spool.folder):
        pause = sender.step()
        if pause is None:
            time.sleep(look)
            look = min(look * 1.5, _LOOK_SECONDS)
            continue
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0 and not sender.is_worth_a_try():
            time.sleep(min(left, _LOOK_SECONDS))
        idle_since, look = time.monotonic(), _FIRST_LOOK_SECONDS


# ---------------------------------------------------------------------------------------------------------------------
# Client
# ---------------------------------------------------------------------------------------------------------------------

_CLOSE_SECONDS = 2.0
_FLUSH_SECONDS = 10.0
_TEST_SECONDS = 5.0
_FLUSH_POLL_SECONDS = 0.005
_MEMORY_BYTES = 8 << 20  # for what the spool does not take
_RANDOM_BYTES = 4


class _Outlet:
    """What one process has for one spool: a place for what the spool does not take, and a thread that delivers."""

    def __init__(self, spool: Spool, link: _Link) -> None:
        self.spool = spool
        self.has_said = False
        self.begin(link)

    def begin(self, link: _Link) -> None:
        """Also for a forked child, whose parent delivers what it had in memory."""
        import threading

        self.lock = threading.RLock()
        self.sender = Sender(self.spool, link, self._say)
        self.memory: list[bytes] = []
        self.memory_bytes = 0
        self.lost: Tally = {}
        self.mark = (0, 0)
        self.work = threading.Event()
        self.hurry = threading.Event()
        self.thread: threading.Thread | None = None
        self.is_exiting = False

    def _say(self, text: str) -> None:
        """Once for each process."""
        if not self.has_said:
            self.has_said = True
            print(text, file=sys.stderr)

    # Writing

    def write(self, line: bytes) -> None:
        """To the spool, after what the spool did not take before; to memory if it does not take it now."""
        with self.lock:
            self.memory.append(line)
            self.memory_bytes += len(line)
            self.empty_memory()
            self._bound_memory()
        self._start()
        self.work.set()

    def empty_memory(self) -> None:
        with self.lock:
            try:
                while self.memory:
                    self._spool_first()
                if self.lost:
                    self.spool.note_dropped(self.lost)
                    self.lost = {}
            except OSError:  # a full disk, no folder: it is tried again with the next event, and by the thread
                pass

    def _spool_first(self) -> None:
        """Taken out before it is written: a signal's handler may write something in between."""
        line = self.memory.pop(0)
        try:
            self.mark = self.spool.append(line)
        except BaseException:
            self.memory.insert(0, line)
            raise
        self.memory_bytes -= len(line)

    def _bound_memory(self) -> None:
        while self.memory_bytes > _MEMORY_BYTES:
            line = self.memory.pop(0)
            self.memory_bytes -= len(line)
            _add(self.lost, _tally([line]))

    # Delivering

    def _start(self) -> None:
        """See to it that somebody delivers: a thread, or at the end of the process a detached sender."""
        if not self.is_exiting and (self.thread is None or not self.thread.is_alive()):
            self._start_thread()
        if self.is_exiting:
            self._hand_over()

    def _start_thread(self) -> None:
        import atexit
        import threading

        with self.lock:
            if self.thread is None:
                atexit.register(self._exit)
            self.thread = threading.Thread(target=self._run, name="hook_agent", daemon=True)
            try:
                self.thread.start()
            except RuntimeError:  # the interpreter is leaving
                self.is_exiting = True

    def _run(self) -> None:
        while not self.is_exiting:
            pause = self._step()
            if pause is None:
                self.work.wait(_LOOK_SECONDS)  # not for ever: other processes write to the spool, too
                self.work.clear()
                continue
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0 and not self.sender.is_worth_a_try():
                if self.hurry.wait(min(left, _LOOK_SECONDS)):
                    break
            self.hurry.clear()

    def _step(self) -> float | None:
        """As `Sender.step`, but never raises; None also where somebody else delivers."""
        self.empty_memory()
        try:
            is_in_charge = self.sender.take_charge()
        except OSError:
            is_in_charge = False
        if self.memory and not self.spool.segments():
            return self._deliver_memory()
        return self.sender.step() if is_in_charge else None

    def _deliver_memory(self) -> float | None:
        """There is nothing that it could be behind, and no spool for it."""
        with self.lock:
            lines = self.memory[:_BATCH_EVENTS]
        pause = self.sender.send([line.rstrip(b"\n") for line in lines])
        if not pause:
            with self.lock:
                del self.memory[: len(lines)]
                self.memory_bytes = sum(map(len, self.memory))
        return pause

    def has_delivered(self) -> bool:
        try:
            return not self.memory and self.spool.has_delivered(self.mark)
        except OSError:
            return False

    def seems_reachable(self) -> bool:
        """As far as is known: whoever delivers leaves word of it."""
        return self.sender.failures == 0 and (self.sender.lock is not None or not self.spool.is_store_away())

    # Leaving

    def _exit(self) -> None:
        """At the end of the process: a moment for what is left, and then somebody else has to deliver it."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        self.work.set()
        while not self.has_delivered() and self.seems_reachable() and time.monotonic() < deadline:
            time.sleep(_FLUSH_POLL_SECONDS)
        self.is_exiting = True
        self.empty_memory()
        self._hand_over()

    def _hand_over(self) -> None:
        """To a detached sender, with the lock, if anything waits."""
        try:
            if not self.spool.segments():
                self.sender.resign()
            if self.spool.segments() and self.sender.take_charge():
                _spawn_sender(self.spool, self.sender.lock or 0, **self.sender.link.known())
                self.sender.resign()
        except OSError:  # the next one that writes will see to it
            pass


_outlets: dict[str, _Outlet] = {}
_left_to_parent: list[Sender] = []  # not to be torn down here: a thread of the parent may have been at work in it


def _outlet_for(service_url: str, folder: str | None, token: str | None) -> _Outlet:
    """One for each spool in this process."""
    key = f"{folder or ''} {service_url}"
    if key not in _outlets:
        if not _outlets:
            os.register_at_fork(after_in_child=_begin_outlets)
        _outlets.setdefault(key, _Outlet(Spool(service_url, folder, _spool_limit()), _Link(service_url, token)))
    return _outlets[key]


def _begin_outlets() -> None:
    for outlet in _outlets.values():
        outlet.sender.resign()  # in this process: it leaves the lock with the parent
        _left_to_parent.append(outlet.sender)
        outlet.begin(_Link(outlet.sender.link.service_url, outlet.sender.link.own_token))


# What calls are given


def _members(given: object, more: Members, name: str) -> Members:
    """What a call was given, in any of the ways: a dict, keyword arguments, or one value, which is its `name`."""
    if given is None:
        return dict(more)
    if isinstance(given, dict):
        return {**given, **more}
    return {name: given, **more}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_id_or_none(value: object) -> bool:
    return value is None or _is_id(value)


def _is_time(value: object) -> bool:
    """Whether it is an RFC 3339 time that exists."""
    import re
    from datetime import datetime, timezone

    pattern = r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)"
    match = re.fullmatch(pattern, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        return False
    date, minute, second, zone = match.groups()
    try:
        text = f"{date}T{minute}:{min(second, '59')}{'+00:00' if zone in 'Zz' else zone}"
        datetime.fromisoformat(text).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return False
    return True


def _is_exit_code(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


_ENDS = ("completed", "failed", "cancelled")
_OUTCOMES = ("success", "failed", "cancelled")
_SPOKEN = {
    "success": _names("success succeeded successful completed complete done ok finished"),
    "cancelled": _names("cancelled canceled cancel aborted interrupted"),
}
# What the store requires of members that mean something to it; one that is otherwise would cost the whole event.
_REQUIRED: dict[str, dict[str, Callable[[object], bool]]] = {
    "session_created": {"initial": _is_object, "parentSession": _is_id_or_none, "metadata": _is_object},
    "session_finalized": {"exitCode": _is_exit_code},
    "action": {"type": _is_text, "agentId": _is_id_or_none},
    "response": {"type": _is_text, "agentId": _is_id_or_none},
    "goal_added": {"description": _is_text, "priority": _is_text_or_none, "status": _is_text},
    "goal_updated": {"description": _is_text, "priority": _is_text_or_none, "status": _is_text},
    "agent_spawned": {
        "type": _is_text,
        "status": _is_text,
        "parentAgentId": _is_id_or_none,
        "subsession": _is_id_or_none,
    },
    "agent_updated": {"status": _is_text},
}
_NEEDED: dict[str, Members] = {
    "action": {"type": "action"},
    "response": {"type": "response"},
    "goal_added": {"description": ""},
    "agent_spawned": {"type": "agent"},
}
_DOCUMENTS = ("state_updated", "metadata_updated")  # all their members are the caller's own


def _settled(event_type: str, data: Members) -> Members:
    """The data as the store takes it: what a member that means something cannot be is kept under `given`."""
    required = {"timestamp": _is_time, **_REQUIRED.get(event_type, {})}
    given = {name: data[name] for name, is_right in required.items() if name in data and not is_right(data[name])}
    for name, value in given.items():
        del data[name]
        if required[name] is _is_text and value is not None:
            data[name] = _text_of(value)
    if given:
        data["given"] = given
    return {**_NEEDED.get(event_type, {}), **data}


def _spoken(status: object, words: tuple[str, ...]) -> str:
    """The status that a word stands for: one of `words`, which are what went well, badly, and was cancelled."""
    well, badly, cancelled = words
    word = _text_of(status).strip().lower()
    if status is None or word in _SPOKEN["success"]:
        return well
    return cancelled if word in _SPOKEN["cancelled"] else badly


def _ending(data: Members, words: tuple[str, ...]) -> Members:
    """`data` with a status that the store knows; the caller's own word is kept."""
    given = data.get("status")
    status = _spoken(given, words)
    own = {} if given is None or given == status else {"givenStatus": given}
    return {**data, **own, "status": status}


def _end_by(kind: type[BaseException] | None, error: BaseException | None) -> Members:
    """How a session ends that was left in this way."""
    import asyncio

    if kind is None or (isinstance(error, SystemExit) and not error.code):
        return {"status": "success"}
    status = "cancelled" if issubclass(kind, (KeyboardInterrupt, asyncio.CancelledError)) else "failed"
    said = _text_of(error) if error is not None else ""
    return {"status": status, "outcome": f"{kind.__name__}: {said}" if said else kind.__name__}


def _seconds(timeout: float | None, otherwise: float) -> float:
    return otherwise if timeout is None else timeout


class SyncSessionHookAgent:
    """Tells the store of one session. Every call writes to the spool and returns; none raises for the store's sake.

    What is None is taken from the environment when the first call is made. Members can be given as a dict, as keyword
    arguments, or both.
    """

    def __init__(
        self,
        session_id: str | None = None,
        service_url: str | None = None,
        user_id: str | None = None,
        *,
        token: str | None = None,
        parent_session: str | None = None,
        tags: Iterable[str] | None = None,
        initial: Members | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._given = (session_id, service_url, user_id)
        self._token = token
        self._parent_session = parent_session
        self._tags = tags
        self._initial = initial
        self._spool_dir = None if spool_dir is None else os.path.abspath(os.fspath(spool_dir))
        self._who: tuple[str, str, str | None] | None = None
        self._is_entered = False
        self._is_finalized = False

    def _known(self) -> tuple[str, str, str | None]:
        """Session, store and user; from the first call on they stay what they are."""
        if self._who is None:
            session, url, user = self._given
            session = session or os.environ.get("SESSION_ID") or f"session-{_event_id()}"
            user = user or os.environ.get("SESSION_USER_ID")
            self._who = (_as_id(session, "session"), url or _service_url(), _as_user(user))
        return self._who

    @property
    def session_id(self) -> str:
        return self._known()[0]

    @property
    def service_url(self) -> str:
        return self._known()[1]

    @property
    def user_id(self) -> str:
        return self._known()[2] or "unknown"

    @property
    def _outlet(self) -> _Outlet:
        return _outlet_for(self.service_url, self._spool_dir, self._token)

    # Events

    def _record(
        self, event_type: str, data: Members, *, agent_id: str | None = None, timestamp: str | None = None
    ) -> Members:
        """Write one event, of a session that is entered by then, and return it. Never raises."""
        try:
            outlet = self._outlet
            with outlet.lock:
                if not self._is_entered and event_type != "session_created":
                    self._enter()
                event = self._event(event_type, data, agent_id, timestamp)
                outlet.write(_line(event) + b"\n")
            return event
        except Exception as error:  # the program is not to suffer from what it is watched by
            return {"eventId": None, "type": event_type, "data": {}, "error": _text_of(error)}

    def _event(self, event_type: str, data: Members, agent_id: str | None, timestamp: str | None) -> Members:
        session, _, user = self._known()
        plain: Members = _Plain().value(data)
        event_id = None
        if event_type not in _DOCUMENTS:
            event_id = plain.pop("eventId", None)
            plain = _settled(event_type, plain)
            timestamp = timestamp or plain.get("timestamp")
        event = {
            "sessionId": session,
            "eventId": event_id if _is_id(event_id) else _event_id(),
            "timestamp": timestamp or _now(),
            "type": event_type,
        }
        if user is not None:
            event["userId"] = user
        if _is_id(agent_id):
            event["agentId"] = agent_id
        return {**event, "data": plain}

    def _told(self, event_type: str, data: Members, **answer: Any) -> Members:
        event = self._record(event_type, data)
        return {"success": event["eventId"] is not None, "eventId": event["eventId"], **answer}

    def _enter(self) -> Members:
        self._is_entered, self._is_finalized = True, False
        parent = self._parent_session or os.environ.get("SESSION_PARENT_ID")
        tags = self._tags or os.environ.get("SESSION_TAGS")
        return self._told("session_created", {"initial": self._initial or {}, **_origin(parent, tags)})

    def log_action(self, action: Any = None, /, **members: Any) -> Members:
        """Something that the agent does or asks for: {"type": …, …}."""
        return self._told("action", _members(action, members, "type"))

    def log_response(self, response: Any = None, /, **members: Any) -> Members:
        """What came back: {"type": …, …}."""
        return self._told("response", _members(response, members, "type"))

    def update_state(self, change: Any = None, /, **members: Any) -> Members:
        """Merge into the session's state: {"phase": …, "currentStep": …, …}."""
        return self._told("state_updated", _members(change, members, "phase"))

    def update_metadata(self, change: Any = None, /, **members: Any) -> Members:
        """Set members of the session's metadata; a dotted name goes into an object, "+N" adds."""
        return self._told("metadata_updated", _members(change, members, "note"))

    def add_goal(self, goal: Any = None, /, **members: Any) -> Members:
        """{"description": …, "priority"?, "id"?}; the answer has its `id`, and all of it as `goal` as well."""
        given = _members(goal, members, "description")
        goal_id = _as_id(given.get("id") or _new_id("goal"), "goal")
        added = {"status": "pending", "priority": "medium", **given, "id": goal_id}
        event = self._record("goal_added", added)
        return {
            **event["data"],
            "success": event["eventId"] is not None,
            "eventId": event["eventId"],
            "id": goal_id,
            "goal": event["data"],
        }

    def update_goal(self, goal_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        """{"status": …}: `completed` is what ends it."""
        goal_id = _as_id(goal_id.get("id") if isinstance(goal_id, dict) else goal_id, "goal")
        return self._told("goal_updated", {**_members(change, members, "status"), "goalId": goal_id}, id=goal_id)

    def spawn_agent(self, agent: Any = None, /, **members: Any) -> Members:
        """{"type": …, "task"?, "agentId"?}; the answer has its `agentId`."""
        given = _members(agent, members, "type")
        agent_id = _as_id(given.get("agentId") or _new_id("agent"), "agent")
        event = self._record("agent_spawned", {**given, "agentId": agent_id})
        return {
            **event["data"],
            "success": event["eventId"] is not None,
            "eventId": event["eventId"],
            "agentId": agent_id,
        }

    def update_agent(self, agent_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        """{"status"?, "task"?, …}."""
        agent_id = _as_id(agent_id.get("agentId") if isinstance(agent_id, dict) else agent_id, "agent")
        change = {**_members(change, members, "status"), "agentId": agent_id}
        return self._told("agent_updated", change, agentId=agent_id)

    def complete_agent(self, agent_id: Any = None, result: Any = None, /, **members: Any) -> Members:
        """{"result"?, "status"?: `completed`, `failed` or `cancelled`}; anything but a dict is the result."""
        agent_id = _as_id(agent_id.get("agentId") if isinstance(agent_id, dict) else agent_id, "agent")
        end = _ending({**_members(result, members, "result"), "agentId": agent_id}, _ENDS)
        return self._told("agent_completed", end, agentId=agent_id)

    def finalize(self, end: Any = None, /, **members: Any) -> Members:
        """{"status"?: `success`, `failed` or `cancelled`, "outcome"?, "response"?, "exitCode"?}."""
        told = self._told("session_finalized", _ending(_members(end, members, "status"), _OUTCOMES))
        self._is_finalized = True
        return told

    finalize_session = finalize

    # The store

    def test_connection(self) -> bool:
        """Whether the store is there, and well. Takes five seconds at the most."""
        status, _ = self._get("/health", _TEST_SECONDS)
        return status == 200

    def resume(self) -> Members | None:
        """All that is needed to go on where the session stopped; None: it is not there, or the store is not."""
        status, document = self._get(f"/api/sessions/{self.session_id}/resume", _TEST_SECONDS)
        return document if status == 200 else None

    def _get(self, path: str, seconds: float) -> tuple[int, Members]:
        """Status 0: no answer within that time, which includes finding the address."""
        import threading

        answers: list[tuple[int, Members]] = []

        def ask() -> None:
            link = _Link(self.service_url, self._token)
            try:
                answer = link.ask("GET", path, seconds=seconds)
                answers.append((answer.status, answer.document()))
            except Exception:  # no answer is all that there is to say
                pass
            finally:
                link.close()

        asking = threading.Thread(target=ask, name="hook_agent test", daemon=True)
        asking.start()
        asking.join(seconds)
        return answers[0] if answers else (0, {})

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that this process has written is delivered. False: it was not within `timeout` seconds."""
        deadline = time.monotonic() + _seconds(timeout, _FLUSH_SECONDS)
        self._hurry()
        while not self._outlet.has_delivered():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_FLUSH_POLL_SECONDS)
        return True

    def _hurry(self) -> None:
        self._outlet.hurry.set()
        self._outlet.work.set()

    def close(self) -> None:
        """Give what is left a moment, if the store is there. The agent may be used again."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._has_hope(deadline):
            time.sleep(_FLUSH_POLL_SECONDS)

    def _has_hope(self, deadline: float) -> bool:
        outlet = self._outlet
        return not outlet.has_delivered() and outlet.seems_reachable() and time.monotonic() < deadline

    def __enter__(self) -> SyncSessionHookAgent:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(kind, error)
        self.close()

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if not self._is_finalized:
            self.finalize(_end_by(kind, error))


def _new_id(noun: str) -> str:
    return f"{noun}-{os.urandom(_RANDOM_BYTES).hex()}"


class SessionHookAgent:
    """The same calls as coroutines; `sync` has them as plain functions, for where no event loop runs."""

    def __init__(
        self,
        session_id: str | None = None,
        service_url: str | None = None,
        user_id: str | None = None,
        *,
        token: str | None = None,
        parent_session: str | None = None,
        tags: Iterable[str] | None = None,
        initial: Members | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.sync = SyncSessionHookAgent(
            session_id,
            service_url,
            user_id,
            token=token,
            parent_session=parent_session,
            tags=tags,
            initial=initial,
            spool_dir=spool_dir,
        )

    @property
    def session_id(self) -> str:
        return self.sync.session_id

    @property
    def service_url(self) -> str:
        return self.sync.service_url

    @property
    def user_id(self) -> str:
        return self.sync.user_id

    def _record(
        self, event_type: str, data: Members, *, agent_id: str | None = None, timestamp: str | None = None
    ) -> Members:
        return self.sync._record(event_type, data, agent_id=agent_id, timestamp=timestamp)

    async def log_action(self, action: Any = None, /, **members: Any) -> Members:
        return self.sync.log_action(action, **members)

    async def log_response(self, response: Any = None, /, **members: Any) -> Members:
        return self.sync.log_response(response, **members)

    async def update_state(self, change: Any = None, /, **members: Any) -> Members:
        return self.sync.update_state(change, **members)

    async def update_metadata(self, change: Any = None, /, **members: Any) -> Members:
        return self.sync.update_metadata(change, **members)

    async def add_goal(self, goal: Any = None, /, **members: Any) -> Members:
        return self.sync.add_goal(goal, **members)

    async def update_goal(self, goal_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        return self.sync.update_goal(goal_id, change, **members)

    async def spawn_agent(self, agent: Any = None, /, **members: Any) -> Members:
        return self.sync.spawn_agent(agent, **members)

    async def update_agent(self, agent_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        return self.sync.update_agent(agent_id, change, **members)

    async def complete_agent(self, agent_id: Any = None, result: Any = None, /, **members: Any) -> Members:
        return self.sync.complete_agent(agent_id, result, **members)

    async def finalize(self, end: Any = None, /, **members: Any) -> Members:
        return self.sync.finalize(end, **members)

    finalize_session = finalize

    async def test_connection(self) -> bool:
        status, _ = await self._get("/health")
        return status == 200

    async def resume(self) -> Members | None:
        status, document = await self._get(f"/api/sessions/{self.session_id}/resume")
        return document if status == 200 else None

    async def _get(self, path: str) -> tuple[int, Members]:
        import asyncio

        try:
            import httpx
        except ImportError:  # the file was copied without it
            return await asyncio.to_thread(self.sync._get, path, _TEST_SECONDS)
        link = _Link(self.service_url, self.sync._token)
        headers = {"Authorization": f"Bearer {link.token()}"} if link.token() else {}
        try:
            async with httpx.AsyncClient(timeout=_TEST_SECONDS, trust_env=False) as client:
                url = self.service_url.rstrip("/") + path
                response = await asyncio.wait_for(client.get(url, headers=headers), _TEST_SECONDS)
                return response.status_code, _Answer(response.status_code, response.content, None).document()
        except Exception:  # no answer is all that there is to say
            return 0, {}

    async def flush(self, timeout: float | None = None) -> bool:
        import asyncio

        deadline = time.monotonic() + _seconds(timeout, _FLUSH_SECONDS)
        self.sync._hurry()
        while not self.sync._outlet.has_delivered():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(_FLUSH_POLL_SECONDS)
        return True

    async def close(self) -> None:
        import asyncio

        deadline = time.monotonic() + _CLOSE_SECONDS
        while self.sync._has_hope(deadline):  # noqa: ASYNC110 - it comes about in files, of which asyncio knows nothing
            await asyncio.sleep(_FLUSH_POLL_SECONDS)

    async def __aenter__(self) -> SessionHookAgent:
        self.sync._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync._leave(kind, error)
        await self.close()


hook_agent = SessionHookAgent()


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------


def _own_spool() -> Spool:
    spool = Spool(_service_url(), limit=_spool_limit())
    spool.settle()
    return spool


def _test(arguments: list[str]) -> int:
    """whether the store can be reached, and takes what is sent with this token"""
    _parser("test", _test).parse_args(arguments)
    link = _Link(_service_url())
    try:
        answer = link.ask("POST", "/api/events", b"", _TEST_SECONDS)
    except _Unreachable as trouble:
        print(f"No answer from {trouble}", file=sys.stderr)
        return 1
    finally:
        link.close()
    if answer.status != 200:
        print(f"{link.service_url} answers {answer.status}: {answer.said()}", file=sys.stderr)
        return 1
    print(f"{link.service_url} is there and takes what is sent.")
    return 0


def _flush(arguments: list[str]) -> int:
    """deliver what waits, and wait until it is delivered"""
    parser = _parser("flush", _flush)
    parser.add_argument("--timeout", type=float, default=_FLUSH_SECONDS, metavar="SECONDS")
    options = parser.parse_args(arguments)
    spool = _own_spool()
    sender = Sender(spool, _Link(_service_url()), lambda text: print(text, file=sys.stderr))
    deadline = time.monotonic() + options.timeout
    while spool.segments() and time.monotonic() < deadline:
        pause = sender.step() if sender.take_charge() else _FLUSH_POLL_SECONDS
        time.sleep(max(0.0, min(pause or 0.0, deadline - time.monotonic(), _LOOK_SECONDS)))
    sender.resign()
    sender.link.close()
    return _tell_status(spool)


def _status(arguments: list[str]) -> int:
    """what waits, what was refused or had to go, and who delivers; 1 if anything waits"""
    _parser("status", _status).parse_args(arguments)
    return _tell_status(_own_spool())


def _tell_status(spool: Spool) -> int:
    waiting, dropped = spool.waiting(), spool.dropped_so_far()
    events = _total(waiting)
    print(f"{events} events of {len(waiting)} sessions wait in {spool.folder} for {_service_url()}.")
    if dropped:
        print(f"{_total(dropped)} events had to go for the bound of {spool.limit} bytes; the store is yet to be told.")
    if letters := spool.letters():
        print(f"{letters} were refused for good: see {spool.path('dead')}")
    if who := spool.who_delivers():
        print(f"Process {who} delivers{', but the store does not take it now' if spool.is_store_away() else ''}.")
    return 1 if events else 0


def _total(tally: Tally) -> int:
    return sum(known["count"] for known in tally.values())


def _parser(name: str, command: Callable[[list[str]], int]) -> Any:
    import argparse

    return argparse.ArgumentParser(prog=f"hook_agent.py {name}", description=command.__doc__)


def _hook(arguments: list[str]) -> int:
    """one payload of a Claude Code hook from stdin into the spool; prints nothing and exits with 0, always"""
    hook()


COMMANDS: dict[str, Callable[[list[str]], int]] = {"hook": _hook, "test": _test, "flush": _flush, "status": _status}


def main(arguments: list[str]) -> int:
    """0; 1 if it was not as it should be; 2 if used wrongly."""
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
    lines = [f"  {name:10} {command.__doc__}" for name, command in COMMANDS.items()]
    text = "\n".join(["usage: python hook_agent.py COMMAND …", "", *lines, "", "COMMAND --help says more."])
    print(text, file=sys.stdout if wants_help else sys.stderr)
    return 0 if wants_help else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
