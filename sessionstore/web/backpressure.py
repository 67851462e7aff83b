"""Backpressure: how many bytes of large answers may wait for their readers, of one caller and in all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable

from sessionstore.model.problems import unavailable
from sessionstore.web.asgi import Message, Send, answer, problem_headers

LARGE = PIECE = 1 << 20
"""Bytes: what has more is counted, and is sent in pieces of so many, each once the one before is on its way."""
MAX_BYTES, MAX_OF_ONE = 256 << 20, 128 << 20


class LargeAnswers:
    """Counts the large ones that are not sent yet: a reader may be slow, or may never read."""

    def __init__(self) -> None:
        self.bytes = 0
        self.of: Counter[Hashable] = Counter()

    def has_room(self, who: Hashable, size: int) -> bool:
        return self.bytes + size <= MAX_BYTES and self.of[who] + size <= MAX_OF_ONE

    def count(self, who: Hashable, size: int) -> None:
        self.bytes += size
        self.of[who] += size
        if not self.of[who]:
            del self.of[who]

    def counted(self, who: Hashable, send: Send) -> Send:
        """For one answer: what there is no room for is 503 in its place."""
        start: Message | None = None
        is_refused = False

        async def send_counted(message: Message) -> None:
            nonlocal start, is_refused
            if message["type"] == "http.response.start":
                start = message
                return
            size = len(message.get("body", b""))
            if start is not None:
                head, start = start, None
                if size > LARGE and not self.has_room(who, size):
                    is_refused = True
                    problem = unavailable("Too much is being read at the same time: come back in a moment")
                    await answer(send, problem.status, problem_headers(problem), problem.body())
                    return
                await send(head)
            if size > LARGE and not is_refused:
                await self.send_large(who, message, send)
            elif not is_refused:
                await send(message)

        return send_counted

    async def send_large(self, who: Hashable, message: Message, send: Send) -> None:
        body = memoryview(message["body"])
        self.count(who, len(body))
        try:
            for at in range(0, len(body), PIECE):
                await send({"type": message["type"], "body": bytes(body[at : at + PIECE]), "more_body": True})
                await asyncio.sleep(0)  # the connection takes it now, and says whether it can take more
            await send({**message, "body": b""})
        finally:
            self.count(who, -len(body))
