"""What is written to whom: the JSON of a webhook, Slack's text, or title and text for a messenger."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

import msgspec

from sessionstore.model.folds import Document
from sessionstore.text import for_people, shortened
from sessionstore.upkeep.notices import Notice, name_of
from sessionstore.webhook_targets import Target

MOST_ITEMS = 100
"""Notices that a webhook is told of at once; a messenger is told of as many as BODY has room for."""
BODY = 1000
"""Characters; Pushover takes 1,024, Discord 2,000."""
LINE = 160
SESSION = 80
TITLES = {
    "waiting": "waits for a person",
    "answered": "no longer waits",
    "failed": "failed",
    "lost": "is lost",
    "quiet": "is quiet",
    "repeating": "goes in circles",
    "budget": "has used a budget",
}


class NoticeText(NamedTuple):
    """What is told at once: `body` is JSON for a webhook, text for a messenger."""

    name: str
    title: str
    body: str
    shown: int
    """How many of the notices are written out in it; the others are only counted."""


def message(notices: list[Notice], more: int, target: Target, public_url: str | None) -> NoticeText:
    """Of one notice, always the same; of several, and of `more` that are only counted, a digest."""
    is_one = len(notices) == 1 and not more
    name = notices[0].name if is_one else name_of(" ".join(["digest", str(more), *(one.name for one in notices)]))
    count = len(notices) + more
    if target.apprise is None:
        document = (in_slack if target.format == "slack" else for_programs)(notices, more, public_url)
        return NoticeText(name, "", msgspec.json.encode(document).decode(), len(notices))
    if is_one:
        return NoticeText(name, title_of(notices[0]), text_of(notices[0], public_url), 1)
    lines = lines_of(notices, public_url)
    rest = count - len(lines)
    body = "\n".join(
        [*lines, *([f"and {rest:,} more"] if rest else []), *([public_url] if rest and public_url else [])]
    )
    return NoticeText(name, f"{count:,} notices of sessions", body, len(lines))


def for_programs(notices: list[Notice], more: int, public_url: str | None) -> Document:
    items = [payload(notice, public_url) for notice in notices]
    if len(items) == 1 and not more:
        return items[0]
    last = notices[-1].timestamp if notices else None
    return {"type": "digest", "timestamp": last, "data": {"count": len(items) + more, "items": items}}


def in_slack(notices: list[Notice], more: int, public_url: str | None) -> Document:
    lines = [slack_line(notice, public_url) for notice in notices]
    return {"text": "\n".join([*lines, *([f"and {more:,} more"] if more else [])])}


def link_of(notice: Notice, public_url: str | None) -> str | None:
    return f"{public_url}/#/session/{notice.session_id}" if public_url else None


def payload(notice: Notice, public_url: str | None) -> Document:
    data = {
        "sessionId": notice.session_id,
        "userId": notice.user_id,
        "cursor": notice.cursor,
        "message": notice.message,
        **notice.details,
        "url": link_of(notice, public_url),
    }
    return {"type": notice.type, "timestamp": notice.timestamp, "data": data}


def slack_line(notice: Notice, public_url: str | None) -> str:
    link = link_of(notice, public_url)
    shown = f"<{link}|{notice.session_id}>" if link else notice.session_id
    what = notice.type.removeprefix("session.")
    return f"*{what}* {shown} ({for_slack(notice.user_id)}): {for_slack(notice.message)}"


def for_slack(text: str) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping: no link, mention or channel of theirs."""
    return for_people(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -------------------------------------------------------------------------- messengers


def title_of(notice: Notice) -> str:
    return f"{tame(' '.join(notice.session_id.split()), SESSION)} {TITLES[notice.occasion]}"


def text_of(notice: Notice, public_url: str | None) -> str:
    said = tame(notice.message, len(notice.message))
    return "\n".join(line for line in (f"{tame(notice.user_id, SESSION)}: {said}", opens(notice, public_url)) if line)


def lines_of(notices: list[Notice], public_url: str | None) -> list[str]:
    """A line for each, as far as there is room."""
    lines: list[str] = []
    for notice in notices:
        said = f"{title_of(notice)}: {tame(' '.join(notice.message.split()), LINE)}"
        line = " ".join(part for part in ("•", said, opens(notice, public_url)) if part)
        if sum(map(len, lines)) + len(line) > BODY:
            break
        lines.append(line)
    return lines


def opens(notice: Notice, public_url: str | None) -> str | None:
    """The page at that ask, as long as it is one to answer, else at that session. It proves nothing by itself."""
    if public_url and notice.ask_id and notice.occasion == "waiting":
        return f"{public_url}/#/?ask={quote(notice.ask_id, safe='')}"
    return f"{public_url}/#/session/{quote(notice.session_id, safe='')}" if public_url else None


def tame(text: str, most: int) -> str:
    """Bounded, and without mentions of people or channels."""
    return shortened(for_people(text), most).replace("@", "@\u200b")
