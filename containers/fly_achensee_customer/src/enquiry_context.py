"""What a model is given to read: the enquiry, and which part of it is its own."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple, Self

from .enquiries import Enquiry

HEAD = "Received: {received}\nFrom: {name}\nSubject: {subject}\n\n"
PART = "\n\n--- Your part of it ---\n"
REMARK = "\n\n--- The governor's remark on your last draft ---\n"


class Slip(NamedTuple):
    received: date
    name: str
    subject: str
    text: str
    part: str = ""
    remark: str = ""

    @classmethod
    def of(cls, enquiry: Enquiry) -> Self:
        return cls(enquiry.received, enquiry.name, enquiry.subject, enquiry.text)

    def __str__(self) -> str:
        head = HEAD.format(received=self.received, name=self.name, subject=self.subject)
        part = PART + self.part if self.part else ""
        return head + self.text + part + (REMARK + self.remark if self.remark else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The other way round, for models that are rules."""
        text, _, remark = text.partition(REMARK)
        text, _, part = text.partition(PART)
        head, _, body = text.partition("\n\n")
        received, name, subject = (line.partition(": ")[2] for line in head.split("\n"))
        return cls(date.fromisoformat(received), name, subject, body, part, remark)
