"""The two hottest routes, one action and one response, in plain ASGI before the framework.

They behave to the letter as the ordinary handlers of api.py, which document
them and are built of the same functions; tests hold the two against each other.
"""

from __future__ import annotations

import re

from .access import ASGI, Headers, Receive, Scope, Send, answer, refuse
from .database import Appended
from .events import json_object
from .problems import Problem, unavailable
from .requests import check_media_type, entry_draft, read_body, session_in_path
from .store import Store
from .writer import Append

HOT = re.compile(r"/api/actions/([^/]+)(/responses)?")
OF_THE_DATABASE = re.compile(r"/(?:api/(?!login)|ws|datasette)")
"""What cannot be answered without the database."""
JSON = (b"content-type", b"application/json")


async def log_entry(store: Store, log: str, session_id: str, headers: Headers, body: bytes) -> bytes:
    """Store one entry of a log (`action` or `response`); the body of the answer. Raises Problem."""
    check_media_type(headers, "application/json")
    draft = entry_draft(log, session_id, json_object(body), headers)
    return logged(await store.writer.submit(Append(draft), (draft,), len(body)))


def logged(appended: Appended) -> bytes:
    event = appended.event
    return f'{{"success":true,"seq":{event.seq},"cursor":{event.cursor},"eventId":"{event.event_id}"}}'.encode()


class Door:
    """ASGI: answers what is hot, passes on all else, and lets nobody to a database that is not sound."""

    def __init__(self, app: ASGI, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.store.finding and scope["type"] != "lifespan" and OF_THE_DATABASE.match(scope["path"]):
            await refuse(unavailable(self.store.finding.detail, retry_after=30), scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or not (hot := HOT.fullmatch(scope["path"])):
            await self.app(scope, receive, send)
            return
        try:
            body = await read_body(receive, self.store.settings.max_event_bytes)
            log = "response" if hot[2] else "action"
            content = await log_entry(self.store, log, session_in_path(hot[1]), dict(scope["headers"]), body)
        except Problem as problem:
            await refuse(problem, scope, receive, send)
        else:
            await answer(send, 200, [JSON], content)
