"""Structured logging through a bounded queue: one entry a line, as text for people or as JSON for machines.

An entry is handed to a thread that writes it: whoever reads the output slowly, or not at all, holds nobody up. What
cannot be written is dropped, and counted. No entry holds a body, a token or the query of a URL. Where lines go on,
into files that are rotated, say, is for who runs the server: Docker, journald, a shell.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import Any

from sessionstore.settings import Settings
from sessionstore.text import DIRECTIONS, shortened

MAX_WAITING = 10_000
"""Entries that are not written yet; what comes beyond them is given up."""
MAX_TEXT = 2000
"""Characters that are left of any one text: somebody else may have written it."""
MAX_TRACE = 20_000
LAST_WORDS_SECONDS = 2.0
"""For which the end waits until what is logged is written."""

lost: Counter[str] = Counter()
"""Entries that could not be written: `full`, too many waited; `failed`, as on a full disk."""

faults: Counter[str] = Counter()
"""Faults of our own that were logged and lived with, by what they concern."""

of_requests = logging.getLogger("sessionstore.requests")
of_security = logging.getLogger("sessionstore.security")


def security(event: str, **fields: Any) -> None:
    """Say something that concerns who may (`token_refused`): always, whatever else is said. Never hand it a secret."""
    of_security.warning(event, extra={"fields": fields})


def tell(event: str, **fields: Any) -> None:
    """Say something that a machine may wait for (`started`)."""
    logging.getLogger("sessionstore").info(event, extra={"fields": fields})


# ----------------------------------------------------------------------- the lines


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """An entry in its members, each text bounded. One that is only a sentence has it as `message`."""
    said: dict[str, Any] | None = getattr(record, "fields", None)
    moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    members = {
        "ts": f"{moment.isoformat(timespec='milliseconds')}Z",
        "level": record.levelname.lower(),
        "event": record.getMessage() if said is not None else "message",
        "source": record.name.rpartition(".")[2] if record.name.startswith("sessionstore.") else record.name,
    }
    if said is None:
        members["message"] = bounded(record.getMessage())
    if record.exc_info and record.exc_info[1]:
        members["trace"] = bounded("".join(traceback.format_exception(record.exc_info[1])), MAX_TRACE)
    return members | {name: bounded(value) for name, value in (said or {}).items() if value is not None}


def bounded(value: Any, most: int = MAX_TEXT) -> Any:
    if isinstance(value, bool | int | float):
        return value
    return shortened(str(value), most)


class JsonLines(logging.Formatter):
    """One object a line, in ASCII: nothing in it can begin a line, or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(fields_of(record), separators=(",", ":"))


UNSAFE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{DIRECTIONS}]")


class TextLines(logging.Formatter):
    """A sentence a line; a traceback follows, each of its lines set in, so that none looks like an entry."""

    def format(self, record: logging.LogRecord) -> str:
        members = fields_of(record)
        ts, level, event, source = (members.pop(name) for name in ("ts", "level", "event", "source"))
        trace = members.pop("trace", "")
        said = members.pop("message", event)
        rest = "".join(f" {name}={shown(value)}" for name, value in members.items())
        lines = [f"{ts} {level.upper()} {source}: {said}{rest}", *(f"    {line}" for line in trace.splitlines())]
        return "\n".join(UNSAFE.sub(escaped, line) for line in lines)


def shown(value: Any) -> str:
    text = str(value)
    return text if re.fullmatch(r"[!-~]+", text) and '"' not in text else json.dumps(text, ensure_ascii=False)


def escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


# ------------------------------------------------------------------------- the way


class Hand(QueueHandler):
    """Hands an entry to the thread that writes, as it is; one too many is given up."""

    def __init__(self, waiting: queue.Queue[logging.LogRecord | None], thread: threading.Thread) -> None:
        super().__init__(waiting)
        self.thread = thread

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record.msg, record.args = record.getMessage(), None  # what it names may have changed by then
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            lost["full"] += 1

    def finish(self) -> None:
        """Wait until all of it is written; what comes after it is not."""
        with suppress(queue.Full):
            self.queue.put_nowait(None)
        self.thread.join(LAST_WORDS_SECONDS)  # whoever reads it may have stopped reading for good


def write_lines(waiting: queue.Queue[logging.LogRecord | None], formatter: logging.Formatter, descriptor: int) -> None:
    """The thread that writes. Past Python's buffers: the interpreter would wait for them when it ends."""
    while (record := waiting.get()) is not None:
        try:
            left = f"{formatter.format(record)}\n".encode()
            while left:
                left = left[os.write(descriptor, left) :]
        except Exception:
            lost["failed"] += 1


@contextmanager
def logging_as(settings: Settings) -> Iterator[None]:
    """Until the end of the block, what is logged is written as the settings say; at its end all of it has been."""
    waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_WAITING)
    is_json = settings.log == "json"
    output = (JsonLines(), 1) if is_json else (TextLines(), 2)
    thread = threading.Thread(target=write_lines, args=(waiting, *output), name="log", daemon=True)
    hand = Hand(waiting, thread)
    root, own = logging.getLogger(), logging.getLogger("sessionstore")
    root.setLevel(logging.WARNING)
    own.setLevel(logging.INFO if is_json else logging.WARNING)
    of_requests.setLevel(logging.INFO if settings.log_requests else logging.WARNING)
    root.addHandler(hand)
    thread.start()
    try:
        yield
    finally:
        root.removeHandler(hand)
        hand.finish()


def last_words() -> None:
    """Have all that was logged written: nothing else ends the process in order."""
    for hand in logging.getLogger().handlers:
        if isinstance(hand, Hand):
            hand.finish()
