"""One session as a download: the archive of export/archive.py, made a piece at a time as it is taken."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from export import archive, layout
from sessionstore.model.problems import no_session, unavailable

AT_ONCE = 8
"""Downloads: each has a thread and a connection for as long as its reader takes."""


class Archives:
    """Downloads of the sessions in one database."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.open: set[Download] = set()

    async def download(self, session_id: str, *, with_material: bool) -> Download:
        """Raises Problem 404, and 503 where too many are being taken."""
        if len(self.open) >= AT_ONCE:
            raise unavailable(f"{AT_ONCE} archives are being taken already", retry_after=5)
        download = Download(self, with_material)
        try:
            await download.begin(session_id)
        except BaseException as error:
            download.close()
            if isinstance(error, archive.NoSession):
                raise no_session(session_id) from None
            raise
        return download


class Download:
    """One archive. Its connection is used on its own thread alone, and holds no snapshot between two pieces."""

    def __init__(self, archives: Archives, with_material: bool) -> None:
        self.with_material = with_material
        self.archives = archives
        self.thread = ThreadPoolExecutor(1, "archive")
        self.database: sqlite3.Connection | None = None
        self.file_name = ""
        archives.open.add(self)

    async def begin(self, session_id: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self.thread, self.take, session_id)

    def take(self, session_id: str) -> None:
        self.database = layout.open_reader(self.archives.database)
        taken = archive.take(self.database, session_id, with_material=self.with_material)
        self.file_name = taken.file_name
        self.packed = archive.compressed(archive.tar_of(taken))

    async def pieces(self) -> AsyncIterator[bytes]:
        """Ends with an error where the session is deleted meanwhile, so that half an archive is not taken for one."""
        loop = asyncio.get_running_loop()
        try:
            while piece := await loop.run_in_executor(self.thread, next, self.packed, b""):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        self.archives.open.discard(self)
        self.thread.submit(self.close_database)
        self.thread.shutdown(wait=False)

    def close_database(self) -> None:
        if self.database is not None:
            self.database.close()
