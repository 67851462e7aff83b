"""Messengers: Slack, Teams, Discord, ntfy, Telegram, mail and a hundred more, by the library apprise.

It is an extra of the package, and imported only where a target names a messenger. Its URLs are secrets, and so may be
whatever it logs: of that only a number comes out of here.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apprise import NotifyBase

REMEDY = (
    "apprise is not installed: pip install 'session-store[notify]', or build the image with --build-arg EXTRAS=notify"
)
STATUS = re.compile(r"\berror=(\d{3})\b")


class Attempts(logging.Handler):
    """Keeps what apprise says of an attempt on the thread that makes it, in place of writing it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if found := STATUS.search(record.getMessage()):
            self.said.status = int(found[1])


attempts = Attempts()


def quieted() -> None:
    """Its log, and that of what it sends with, is written nowhere: they name addresses."""
    for name in ("apprise", "urllib3"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [attempts]


def messenger_of(url: str) -> NotifyBase | None:
    """The one that a URL names; None: there is none. Raises ImportError. Redirects are not followed."""
    import apprise

    quieted()
    asset = apprise.AppriseAsset(
        app_id="Session store", http_redirects=False, image_url_mask="", image_url_logo="", storage_mode="memory"
    )
    found: NotifyBase | None = apprise.Apprise.instantiate(url, asset=asset)
    return found


def check_messenger(url: str, place: str) -> None:
    """Raises ValueError, in which the URL is not."""
    try:
        messenger = messenger_of(url)
    except ImportError:
        raise ValueError(f"{place}: {REMEDY}") from None
    except Exception as error:  # whatever one of a hundred parsers does not foresee
        raise ValueError(f"{place}: apprise cannot use its URL ({type(error).__name__})") from None
    if messenger is None:
        raise ValueError(f"{place}: apprise knows no messenger by its URL, or misses a part of it")


def send(messenger: NotifyBase, title: str, body: str, timeout_seconds: float) -> int:
    """One attempt, on this thread: the status of the answer, 200 where it was taken. Raises OSError."""
    from apprise import NotifyFormat

    messenger.socket_connect_timeout = messenger.socket_read_timeout = timeout_seconds
    attempts.said.status = 0
    try:
        if messenger.notify(body=body, title=title, body_format=NotifyFormat.TEXT):
            return 200
    except Exception as error:
        raise OSError(type(error).__name__) from None
    if not attempts.said.status:
        raise OSError("no answer that apprise understands")
    return int(attempts.said.status)
