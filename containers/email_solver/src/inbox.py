"""Where mails come from: a maildir, or an IMAP server. Neither is changed by reading it."""

from __future__ import annotations

import imaplib
import os
import ssl
from pathlib import Path
from typing import Any, Protocol

from containers.work_loop import id_from

MAIL_BYTES = 4 << 20
"""How much of a mail is read: what is asked stands before what is attached."""
IMAP_SECONDS = 10.0


class InboxError(Exception):
    """The inbox cannot be reached, or does not let us in."""


class Inbox(Protocol):
    account: str

    def login(self) -> bool:
        """Whether this has let us in only now. Raises InboxError."""

    def keys(self) -> list[str]:
        """Of all mails, each the same for ever, and fit for an item's id; needs login. Raises InboxError."""

    def fetch(self, key: str) -> bytes:
        """Raises InboxError, also where it is gone."""

    def close(self) -> None: ...


class Maildir:
    """A folder with `new` and `cur` (cr.yp.to/proto/maildir.html), which is only read."""

    def __init__(self, folder: Path) -> None:
        self.account = folder.name
        self._folder = folder
        self._paths: dict[str, Path] = {}
        self._is_open = False

    def login(self) -> bool:
        if not os.access(self._folder / "new", os.R_OK | os.X_OK):
            raise InboxError(f"{self._folder} is no maildir that can be read")
        was_open, self._is_open = self._is_open, True
        return not was_open

    def keys(self) -> list[str]:
        found = [path for name in ("cur", "new") for path in self._folder.glob(f"{name}/[!.]*") if path.is_file()]
        self._paths = {self._key(path): path for path in found}
        return sorted(self._paths)

    def _key(self, path: Path) -> str:
        """The name without the flags that a mail program adds to it."""
        return id_from(path.name.partition(":")[0].removesuffix(".eml"))

    def fetch(self, key: str) -> bytes:
        try:
            with self._paths[key].open("rb") as file:
                return file.read(MAIL_BYTES)
        except (KeyError, OSError) as error:
            raise InboxError(f"{key} cannot be read: {error}") from None

    def close(self) -> None:
        self._is_open = False


class Imap:
    """A folder of an IMAP server (RFC 3501): the unseen mails, by their UIDs, without making them seen."""

    def __init__(self, host: str, port: int, user: str, password: str, folder: str, tls: bool) -> None:
        self.account = f"{user}@{host}"
        self._host, self._port, self._tls = host, port, tls
        self._user, self._password, self._folder = user, password, folder
        self._connection: imaplib.IMAP4 | None = None

    def login(self) -> bool:
        try:
            if self._connection:
                self._connection.noop()
                return False
            self._connection = self._connect()
        except (OSError, imaplib.IMAP4.error) as error:
            self.close()
            raise InboxError(f"{self.account}: {error}") from None
        return True

    def _connect(self) -> imaplib.IMAP4:
        if self._tls:
            context = ssl.create_default_context()
            connection: imaplib.IMAP4 = imaplib.IMAP4_SSL(
                self._host, self._port, ssl_context=context, timeout=IMAP_SECONDS
            )
        else:
            connection = imaplib.IMAP4(self._host, self._port, timeout=IMAP_SECONDS)
        connection.login(self._user, self._password)
        connection.select(self._folder, readonly=True)
        return connection

    def keys(self) -> list[str]:
        """With the folder's UIDVALIDITY: without it a UID can come to be another mail."""
        (validity,) = self._open().response("UIDVALIDITY")[1] or [None]
        (found,) = self._ask("SEARCH", "UNSEEN")
        return [f"imap-{(validity or b'0').decode()}-{uid.decode()}" for uid in (found or b"").split()]

    def fetch(self, key: str) -> bytes:
        uid = key.rpartition("-")[2]
        for part in self._ask("FETCH", uid, f"(BODY.PEEK[]<0.{MAIL_BYTES}>)"):
            if isinstance(part, tuple):
                return bytes(part[1])
        raise InboxError(f"{key} is gone")

    def _ask(self, command: str, *arguments: str) -> list[Any]:
        try:
            status, data = self._open().uid(command, *arguments)
        except (OSError, imaplib.IMAP4.error) as error:
            self.close()
            raise InboxError(f"{self.account}: {error}") from None
        if status != "OK":
            raise InboxError(f"{self.account} answers {command} with {status}")
        return data

    def _open(self) -> imaplib.IMAP4:
        if self._connection is None:
            raise InboxError(f"{self.account}: not logged in")
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.shutdown()


def inbox_from_environment(here: Path) -> Inbox:
    """IMAP, if IMAP_HOST is set; else the maildir. Raises SystemExit for settings that cannot be."""
    host = os.environ.get("IMAP_HOST")
    if not host:
        return Maildir(Path(os.environ.get("MAILDIR", here / "inbox")))
    tls = os.environ.get("IMAP_TLS", "1") not in ("0", "no", "false", "off")
    try:
        port = int(os.environ.get("IMAP_PORT", "993" if tls else "143"))
        user, password = os.environ["IMAP_USER"], _password()
    except (KeyError, ValueError, OSError) as error:
        raise SystemExit(f"IMAP_HOST also needs IMAP_USER and IMAP_PASSWORD_FILE: {error}") from None
    return Imap(host, port, user, password, os.environ.get("IMAP_FOLDER", "INBOX"), tls)


def _password() -> str:
    """Raises KeyError and OSError."""
    if path := os.environ.get("IMAP_PASSWORD_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    return os.environ["IMAP_PASSWORD"]
