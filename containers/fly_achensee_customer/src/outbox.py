"""The folder of answers, one .eml file for each enquiry: what is there has been answered."""

from __future__ import annotations

import os
from email.message import EmailMessage
from pathlib import Path

from .business import Business
from .enquiries import Enquiry


class Outbox:
    def __init__(self, folder: Path, business: Business) -> None:
        self._folder = folder
        self._business = business

    def open(self) -> None:
        """Raises OSError if it cannot be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, enquiry_id: str) -> Path:
        return self._folder / f"{enquiry_id}.eml"

    def has(self, enquiry_id: str) -> bool:
        return self.path(enquiry_id).exists()

    def put(self, enquiry: Enquiry, text: str) -> Path:
        """Whole or not at all, and on the disk when this returns. Raises OSError."""
        path = self.path(enquiry.id)
        unfinished = path.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(self._message(enquiry, text).as_bytes())
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        return path

    def _message(self, enquiry: Enquiry, text: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = f"{self._business.name} <{self._business.email}>"
        if enquiry.address:
            message["To"] = enquiry.address
        subject = enquiry.subject or self._business.name
        message["Subject"] = subject if subject.lower().startswith("re:") else f"Re: {subject}"
        if enquiry.message_id:
            message["In-Reply-To"] = message["References"] = enquiry.message_id
        message.set_content(text, cte="8bit")
        return message
