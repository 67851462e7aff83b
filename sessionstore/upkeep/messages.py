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
"""Notices that are written out in a digest for programs; people get as many as BODY has room for."""
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


def message(notices: list[Notice], more: int, target: Target, public_url: str | None) -> NoticeText:
    """Of one notice, always the same; of several, and of `more` that are only counted, a digest."""
    is_one = len(notices) == 1 and not more
    name = notices[0].name if is_one else name_of(" ".join(["digest", str(more), *(one.name for one in notices)]))
    count = len(notices) + more
    if target.apprise is not None:
        title = title_of(notices[0]) if is_one else f"{count:,} notices of sessions"
        return NoticeText(
            name, title, text_of(notices[0], public_url) if is_one else digest(notices, count, public_url)
        )
    if target.format == "slack":
        lines = [slack_line(notice, public_url) for notice in notices[:MOST_ITEMS]]
        lines += [f"and {count - len(lines):,} more"] if count > len(lines) else []
        return NoticeText(name, "", encoded({"text": "\n".join(lines)}))
    payloads = [payload(notice, public_url) for notice in notices[:MOST_ITEMS]]
    if is_one:
        return NoticeText(name, "", encoded(payloads[0]))
    last = notices[-1].timestamp if notices else None
    return NoticeText(
        name, "", encoded({"type": "digest", "timestamp": last, "data": {"count": count, "items": payloads}})
    )


def encoded(document: Document) -> str:
    return msgspec.json.encode(document).decode()


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


def digest(notices: list[Notice], count: int, public_url: str | None) -> str:
    """As many as there is room for, and how many more there are."""
    lines: list[str] = []
    for notice in notices:
        said = f"{title_of(notice)}: {tame(' '.join(notice.message.split()), LINE)}"
        line = " ".join(part for part in ("•", said, opens(notice, public_url)) if part)
        if sum(map(len, lines)) + len(line) > BODY:
            break
        lines.append(line)
    rest = count - len(lines)
    return "\n".join(
        [*lines, *([f"and {rest:,} more"] if rest else []), *([public_url] if rest and public_url else [])]
    )


def opens(notice: Notice, public_url: str | None) -> str | None:
    """The page at that ask, as long as it is one to answer, else at that session. It proves nothing by itself."""
    if public_url and notice.ask_id and notice.occasion == "waiting":
        return f"{public_url}/#/?ask={quote(notice.ask_id, safe='')}"
    return f"{public_url}/#/session/{quote(notice.session_id, safe='')}" if public_url else None


def tame(text: str, most: int) -> str:
    """Bounded, and without mentions of people or channels."""
    return shortened(for_people(text), most).replace("@", "@\u200b")
