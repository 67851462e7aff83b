"""Lines of transcripts by their place: where each ends, so that a reader goes on there without reading what is before.

A place is a transcript, one of its pieces, and how many bytes of that, unpacked, are behind one. It holds until the
transcript is replaced, or scrubbed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from sessionstore.store.intake import Intake
from sessionstore.store.material import COLUMNS, IS_THERE, Transcript
from sessionstore.store.reader import Reader

OF_SESSION = f"SELECT {COLUMNS} FROM transcripts t WHERE session_id = ? AND {IS_THERE} ORDER BY transcript"


class Place(NamedTuple):
    """Behind a line, or at the beginning of a transcript."""

    transcript: int
    piece: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return "-".join(map(str, self))


def place_in(text: str) -> Place | None:
    """None: it says none."""
    match = re.fullmatch(r"([0-9]{1,15})-([0-9]{1,9})-([0-9]{1,9})", text)
    return Place(*map(int, match.groups())) if match else None


async def transcripts_of(reader: Reader, session_id: str) -> list[Transcript]:
    """Those that belong to a session, in the order in which they began."""
    return [Transcript(*row) for row in await reader.rows(OF_SESSION, (session_id,))]


class Lines:
    """The lines of one transcript from a place on, some pieces at a time."""

    def __init__(self, transcript: Transcript, place: Place) -> None:
        self.transcript = transcript
        self.place = place
        """Behind the last line that was given."""
        self.piece, self.skip = place.piece, place.offset
        self.rest: list[bytes] = []

    @property
    def is_over(self) -> bool:
        return self.piece >= self.transcript.pieces

    async def fetch(self, intake: Intake, pieces: int) -> list[bytes]:
        """The next pieces, packed. Raises ConnectionAbortedError where it was deleted meanwhile."""
        return await intake.pieces_of(self.transcript, self.piece, pieces)

    def cut(self, packed: list[bytes]) -> Iterator[bytes]:
        """Their lines; `place` is behind each as it is given."""
        for number, piece in enumerate(packed, self.piece):
            lines, at = zlib.decompress(piece), self.skip
            self.piece, self.skip = number + 1, 0
            while (end := lines.find(b"\n", at)) >= 0:
                self.rest.append(lines[at:end])
                line, self.rest, at = b"".join(self.rest), [], end + 1
                self.place = Place(self.transcript.transcript, number, at)
                yield line
            if at < len(lines):
                self.rest.append(lines[at:])
