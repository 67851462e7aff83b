"""What customers have written: from a folder of .eml and .txt files, or from a mailbox file (mbox)."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

from containers.email_message import Letter
from containers.work_loop import Trouble, id_from


class Enquiry(NamedTuple):
    id: str
    received: date
    name: str  # as the customer calls himself; empty if he does not
    address: str  # to answer to; empty if there is none
    subject: str
    text: str
    message_id: str


def read_enquiries(place: Path) -> list[Enquiry]:
    """All that are there, in the order of their names. Raises Trouble if the place cannot be read."""
    try:
        return list(_in_mailbox(place) if place.is_file() else _in_folder(place))
    except OSError as error:
        raise Trouble(f"The enquiries cannot be read: {error}") from None


def _in_folder(folder: Path) -> Iterator[Enquiry]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".eml":
            yield _from_letter(Letter.read(path.read_bytes()), id_from(path.stem))
        elif path.suffix == ".txt":
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            yield Enquiry(id_from(path.name), written, "", "", path.stem, text, "")


def _in_mailbox(path: Path) -> Iterator[Enquiry]:
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.keys():  # noqa: SIM118 - iterating over a mailbox gives its messages
            letter = Letter.read(box.get_bytes(key))
            yield _from_letter(letter, f"mail-{letter.digest[:16]}")
    finally:
        box.close()


def _from_letter(letter: Letter, enquiry_id: str) -> Enquiry:
    return Enquiry(
        enquiry_id, letter.received, letter.name, letter.sender, letter.subject, letter.text, letter.message_id
    )
