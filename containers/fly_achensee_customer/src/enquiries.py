"""What customers have written: from a folder of .eml and .txt files, or from a mailbox file (mbox)."""

from __future__ import annotations

import hashlib
import mailbox
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import NamedTuple

from containers.rounds import Trouble

NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]+")


class Enquiry(NamedTuple):
    id: str
    received: date
    sender: str  # as it stands in the header; empty if nobody is named
    subject: str
    text: str
    message_id: str

    @property
    def name(self) -> str:
        """What the customer calls himself; empty if he does not."""
        return parseaddr(self.sender)[0]


def read_enquiries(place: Path) -> list[Enquiry]:
    """All that are there, oldest name first. Raises Trouble if the place cannot be read."""
    try:
        return list(_in_mailbox(place) if place.is_file() else _in_folder(place))
    except OSError as error:
        raise Trouble(f"The enquiries cannot be read: {error}") from None


def _in_folder(folder: Path) -> Iterator[Enquiry]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".eml":
            yield _from_bytes(path.read_bytes(), _id_of(path.stem))
        elif path.suffix == ".txt":
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
            text = path.read_text(encoding="utf-8", errors="replace")
            yield Enquiry(_id_of(path.stem), written, "", path.stem, text.strip(), "")


def _in_mailbox(path: Path) -> Iterator[Enquiry]:
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.keys():  # noqa: SIM118 - iterating over the mailbox gives its messages
            raw = box.get_bytes(key)
            yield _from_bytes(raw, f"mail-{hashlib.sha256(raw).hexdigest()[:16]}")
    finally:
        box.close()


def _id_of(name: str) -> str:
    """The name, as far as it can be an id; one that cannot is told from its likes by a digest."""
    plain = NOT_IN_AN_ID.sub("-", name).strip("-_")[:80]
    return plain if plain == name else f"{plain or 'enquiry'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _from_bytes(raw: bytes, enquiry_id: str) -> Enquiry:
    message = message_from_bytes(raw, policy=policy.default)
    return Enquiry(
        enquiry_id,
        _received(message),
        _header(message, "From"),
        _header(message, "Subject"),
        _text(message),
        _header(message, "Message-ID"),
    )


def _header(message: EmailMessage, name: str) -> str:
    """On one line: what comes from outside must not begin a header of its own in the answer."""
    return " ".join(str(message.get(name, "")).split())


def _received(message: EmailMessage) -> date:
    try:
        return message["Date"].datetime.date()  # type: ignore[no-any-return]
    except (AttributeError, ValueError):  # none, or none that can be read
        return datetime.now(UTC).date()


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain", "html"))
    if body is None:
        return ""
    try:
        text = str(body.get_content())
    except (LookupError, ValueError):  # an encoding that nobody knows
        payload = body.get_payload(decode=True)
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    return (re.sub(r"<[^>]+>", " ", text) if body.get_content_subtype() == "html" else text).strip()
