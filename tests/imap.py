"""A stand-in for an IMAP server (RFC 3501), as far as reading mails by their UIDs goes, on loopback."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

USER, PASSWORD = "support", "correct horse"
UIDVALIDITY = 7


class Imap:
    """The server at `port` while in its `with`; `commands` is what it was asked, without the tags."""

    def __init__(self, mails: Sequence[bytes]) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Talk)
        self._server.daemon_threads = True
        self._server.imap = self  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]
        self.mails = dict(enumerate(mails, 101))
        self.commands: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, command: str) -> tuple[list[bytes], str]:
        """The untagged lines, and how it went."""
        self.commands.append(command)
        name, _, rest = command.partition(" ")
        if name.upper() == "CAPABILITY":
            return [b"* CAPABILITY IMAP4rev1"], "OK done"
        if name.upper() == "LOGIN":
            return [], "OK welcome" if rest == f'{USER} "{PASSWORD}"' else "NO wrong name or password"
        if name.upper() in ("EXAMINE", "NOOP"):
            return [f"* OK [UIDVALIDITY {UIDVALIDITY}] valid".encode()], "OK [READ-ONLY] done"
        if rest.upper() == "SEARCH UNSEEN":
            return [b"* SEARCH " + " ".join(map(str, self.mails)).encode()], "OK done"
        if fetched := re.match(r"FETCH (\d+) \(BODY\.PEEK\[\]", rest, re.I):
            mail = self.mails[int(fetched[1])]
            return [b"* 1 FETCH (UID %s BODY[]<0> {%d}\r\n%s)" % (fetched[1].encode(), len(mail), mail)], "OK done"
        return [], "BAD not understood"


class _Talk(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        imap: Imap = self.server.imap  # type: ignore[attr-defined]
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, _, command = line.decode().strip().partition(" ")
            untagged, outcome = imap.answer(command)
            self.wfile.write(b"".join(it + b"\r\n" for it in untagged) + f"{tag} {outcome}\r\n".encode())
