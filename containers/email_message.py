"""A mail as it came, read so that nothing in it can break what reads it, or write headers of what answers it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from html.parser import HTMLParser
from typing import NamedTuple

TEXT_LENGTH = 20_000
MARKUP_LENGTH = 100_000
HEADER_LENGTH = 4_000
# None of them takes a question mark: Python's email package reads encoded words (=?…?=) also in headers that it is to
# write, and then writes what they stand for, line breaks included.
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=^_{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
MESSAGE_ID = re.compile(r"<[!-;=@-~]{3,250}>")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
QUOTED = re.compile(
    r"^\s*(>.*|-{3,} ?(original message|ursprüngliche nachricht).*|(on|am) .{5,80}(wrote|schrieb).*:)$", re.I
)


class Letter(NamedTuple):
    subject: str
    name: str  # as the sender calls himself; empty if he does not
    sender: str  # the address that an answer goes to; empty if there is none that can be written to
    received: date
    text: str  # what he wrote, without what he quotes
    attachments: list[str]
    message_id: str  # <…>; empty if it has none that can be one
    references: list[str]
    headers: dict[str, str]  # the first of each name, in lower case, on one line
    digest: str  # of all of it

    @property
    def identity(self) -> str:
        """The same for a mail that comes twice."""
        return self.message_id or self.digest

    @property
    def is_reply(self) -> bool:
        return self.subject.lower().startswith(("re:", "aw:"))

    @classmethod
    def read(cls, raw: bytes) -> Letter:
        """Never raises."""
        message = message_from_bytes(raw)
        undecoded = {name.lower(): _on_one_line(_as_text(value)) for name, value in reversed([*message.raw_items()])}
        headers = {name: _decoded(value) for name, value in undecoded.items()}
        name, sender = _sender(undecoded)
        return cls(
            subject=headers.get("subject", ""),
            name=name,
            sender=sender,
            received=_received(headers.get("date", "")),
            text=_text(message),
            attachments=[_decoded(file) for part in message.walk() if (file := part.get_filename())],
            message_id="".join(MESSAGE_ID.findall(headers.get("message-id", ""))[:1]),
            references=MESSAGE_ID.findall(headers.get("references", "") or headers.get("in-reply-to", "")),
            headers=headers,
            digest=hashlib.sha256(raw).hexdigest(),
        )


# Headers


def _as_text(value: object) -> str:
    """What is not ASCII should not be there: it is UTF-8, or what the machines of Western Europe wrote before."""
    raw = str(value).encode("utf-8", "surrogateescape")
    return _in_some_encoding(raw, "utf-8")


def _on_one_line(text: str) -> str:
    return " ".join(CONTROL.sub(" ", text[:HEADER_LENGTH]).split())


def _decoded(value: str) -> str:
    """With its encoded words read, in which there can be line breaks; what then looks like one is none any more."""
    try:
        text = str(make_header(decode_header(value)))
    except (LookupError, ValueError, MessageError):  # an encoding that nobody knows, or that it is not in
        text = value
    return _on_one_line(text.encode("utf-8", "replace").decode()).replace("=?", "= ?")


def _sender(undecoded: dict[str, str]) -> tuple[str, str]:
    """Name and address. The addresses are found before encoded words are read: there can be others in those."""
    senders = _addresses(undecoded.get("from", ""))
    given = [*_addresses(undecoded.get("reply-to", "")), *senders]
    address = next((address for _, address in given if ADDRESS.fullmatch(address)), "")
    return _decoded(senders[0][0]) if senders else "", address


def _addresses(value: str) -> list[tuple[str, str]]:
    try:
        return getaddresses([value])
    except RecursionError:  # comments in comments
        return []


def _received(value: str) -> date:
    try:
        return parsedate_to_datetime(value).date()
    except (TypeError, ValueError, OverflowError):  # none, or none that can be read
        return datetime.now(UTC).date()


# The body


def _text(message: Message) -> str:
    parts = [part for part in message.walk() if not part.is_multipart() and not part.get_filename()]
    plain = next((part for part in parts if part.get_content_type() == "text/plain"), None)
    html = next((part for part in parts if part.get_content_type() == "text/html"), None)
    text = _payload(plain) if plain else _Shown.of(_payload(html)) if html else ""
    lines = [line for line in text[:TEXT_LENGTH].splitlines() if not QUOTED.match(line)]
    return "\n".join(lines).strip()


class _Shown(HTMLParser):
    """The text of a page, without what is not shown."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.hidden = False

    @classmethod
    def of(cls, page: str) -> str:
        shown = cls()
        shown.feed(page[:MARKUP_LENGTH])
        return " ".join(shown.pieces)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def _payload(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return _in_some_encoding(payload if isinstance(payload, bytes) else b"", part.get_content_charset() or "utf-8")


def _in_some_encoding(raw: bytes, said: str) -> str:
    """In the encoding that it is said to be in, if it is; else in one that it can be in."""
    for encoding in (said, "utf-8"):
        try:
            return raw.decode(encoding)
        except (LookupError, ValueError):
            continue
    return raw.decode("cp1252", "replace")
