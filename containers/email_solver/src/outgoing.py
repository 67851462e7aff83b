"""The maildir of answers, and the ledger of what has been done with each mail.

new/reply-DIGEST    an answer; its name is made of the mail that it answers, so that there can be only one
ledger.jsonl        one line for each mail: {"key", "identity", "category", "reply"}
tickets.jsonl       what was handed to people
"""

from __future__ import annotations

import hashlib
import json
import os
from email.message import EmailMessage
from email.utils import format_datetime, localtime
from pathlib import Path

from containers.email_message import Letter

SUBJECT_LENGTH = 200
GREETING = {"de": "Guten Tag,", "en": "Hello,"}
SIGNATURE = {"de": "Freundliche Grüße\n{name}", "en": "Kind regards\n{name}"}


class Outgoing:
    def __init__(self, folder: Path, name: str, address: str) -> None:
        self.tickets = folder / "tickets.jsonl"
        self._folder = folder
        self._ledger = folder / "ledger.jsonl"
        self._name, self._address = name, address
        self._is_open = False
        self._handled: set[str] = set()
        self._identities: dict[str, str] = {}  # the key of the mail that had it first

    def open(self) -> None:
        """Again does nothing. Raises OSError if it cannot be written to."""
        if self._is_open:
            return
        for name in ("new", "cur", "tmp"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._ledger.touch()
        for line in self._ledger.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a process that was killed: it is done again
                continue
            self._remember(entry["key"], entry["identity"])
        self._is_open = True

    def _remember(self, key: str, identity: str) -> None:
        self._handled.add(key)
        self._identities.setdefault(identity, key)

    def has_handled(self, key: str) -> bool:
        return key in self._handled

    def is_duplicate(self, key: str, letter: Letter) -> bool:
        return self._identities.get(letter.identity, key) != key

    def note(self, key: str, letter: Letter, category: str, reply: str | None) -> None:
        """The mail is done with, also for later processes. Raises OSError."""
        entry = {"key": key, "identity": letter.identity, "category": category, "reply": reply}
        with self._ledger.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and _last_byte(file.fileno(), end) != b"\n":  # that process was killed in its last line
                file.write(b"\n")
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._remember(key, letter.identity)

    def put(self, letter: Letter, answer: str, language: str) -> str:
        """The name of the answer, which is there once, however often it is put. Raises OSError."""
        name = f"reply-{hashlib.sha256(letter.identity.encode()).hexdigest()[:24]}"
        if not self._has(name):
            text = f"{GREETING[language]}\n\n{answer}\n\n{SIGNATURE[language].format(name=self._name)}\n"
            self._deliver(name, self.reply_to(letter, name, text).as_bytes())
        return name

    def _has(self, name: str) -> bool:
        """Mail programs move it to `cur` and add flags to its name."""
        return (self._folder / "new" / name).exists() or any(self._folder.glob(f"cur/{name}*"))

    def _deliver(self, name: str, content: bytes) -> None:
        unfinished = self._folder / "tmp" / name
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._folder / "new" / name)

    def reply_to(self, letter: Letter, name: str, text: str) -> EmailMessage:
        """Of the mail's own words it has only an address, ids and a subject that have been read as such."""
        message = EmailMessage()
        message["From"] = f"{self._name} <{self._address}>"
        message["To"] = letter.sender
        message["Subject"] = _answered(letter)
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = f"<{name}@{self._address.partition('@')[2]}>"
        if letter.message_id:
            message["In-Reply-To"] = letter.message_id
            message["References"] = " ".join([*letter.references, letter.message_id])
        message["Auto-Submitted"] = "auto-replied"  # RFC 3834: so that no other program answers it
        message.set_content(text, cte="8bit")
        return message


def _answered(letter: Letter) -> str:
    short = letter.subject[:SUBJECT_LENGTH]
    return short if letter.is_reply else f"Re: {short}".strip()


def _last_byte(descriptor: int, end: int) -> bytes:
    return os.pread(descriptor, 1, end - 1)
