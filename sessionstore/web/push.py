"""Routes of Web Push: the server's key, and which browsers hear of asks and failures though the page is closed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import QueryParameter

from sessionstore.log import security
from sessionstore.model.drafts import checked
from sessionstore.model.events import text_of_time
from sessionstore.model.problems import Problem, invalid
from sessionstore.model.rights import Bounds
from sessionstore.upkeep.push import SECONDS, Subscription
from sessionstore.upkeep.push_service import (
    MISSING,
    Unfit,
    addresses_of,
    check_point,
    endpoint_in,
    is_here,
    public_address,
    raw,
)
from sessionstore.web import openapi_models as answers
from sessionstore.web.gate import PUSH, READERS, Gate
from sessionstore.web.openapi_models import exchanges, gives
from sessionstore.web.request import Call, JSONResponse, answer, caller_of, object_of, store_of
from sessionstore.web.tokens import PROXY

LOOKUPS = threading.BoundedSemaphore(4)
"""Names that are looked up at once: each takes a thread, for as long as whose name it is likes."""
Text = Annotated[str, msgspec.Meta(max_length=1024)]


class PushKeys(msgspec.Struct):
    """Of the browser, in base64url: a point of P-256, and 16 bytes."""

    p256dh: Text
    auth: Text


class PushWish(msgspec.Struct):
    """What a browser's PushSubscription says of itself: the PushSubscriptionJSON of the Push API."""

    endpoint: Text
    keys: PushKeys


class Rights:
    """What a browser may hear of now; None: its log-in or its token has ended, or reads no more."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(self, subscription: Subscription) -> Bounds | None:
        tokens = self.gate.tokens
        if subscription.actor is None:
            return None if tokens else Bounds()
        if not subscription.token:
            return Bounds() if self.gate.settings.user_roles else None
        login = self.gate.logins.by_cookie.get(subscription.login or "")
        if subscription.login and (login is None or login.ends <= time.time()):
            return None
        token = tokens.by_digest.get(bytes.fromhex(subscription.token))
        return None if token is None or token.is_over or token.role not in READERS else token.bounds or Bounds()


@get(PUSH, responses=gives(answers.PushOffer), tags=["server"])
async def offer_push(request: Call) -> JSONResponse:
    """The key by which a browser subscribes; it is made when it is first asked for."""
    key = await asyncio.to_thread(store_of(request).push.key.public) if is_here() else None
    return answer(msgspec.json.encode({"publicKey": key, "why": None if key else MISSING}))


@post(PUSH, **exchanges(PushWish, answers.PushSubscribed, 409, headers=()), tags=["server"])
async def subscribe_push(request: Call) -> JSONResponse:
    """Have a browser told of asks and failures, for 30 days, or as long as its log-in. Said again it begins anew."""
    if not is_here():
        raise Problem(409, MISSING)
    wish, caller, push = checked(await object_of(request), PushWish), caller_of(request), store_of(request).push
    if not LOOKUPS.acquire(blocking=False):
        raise Problem(503, "Too many subscribe at once", headers={"retry-after": "1"})
    try:
        await asyncio.to_thread(check_wish, wish)
    finally:
        LOOKUPS.release()
    token, ends = caller.token, int(time.time()) + SECONDS
    subscription = Subscription(
        endpoint=wish.endpoint,
        p256dh=wish.keys.p256dh,
        auth=wish.keys.auth,
        actor=caller.name,
        token="" if token is None or token.place == PROXY else token.digest.hex(),
        login=None if caller.login is None else caller.login.cookie,
        ends=ends,
        cursor=store_of(request).writer.cursor,
    )
    name = push.book.add(subscription)
    push.begin()
    security("push_subscribed", subscription=name, actor=subscription.actor, host=endpoint_in(wish.endpoint).host)
    return answer(msgspec.json.encode({"success": True, "subscriptionId": name, "expires": text_of_time(ends)}))


def check_wish(wish: PushWish) -> None:
    """Raises Problem 422."""
    checks: dict[str, Callable[[], object]] = {
        "$.endpoint": lambda: public_address(endpoint_in(wish.endpoint), addresses_of),
        "$.keys.p256dh": lambda: check_point(wish.keys.p256dh),
        "$.keys.auth": lambda: raw(wish.keys.auth, 16),
    }
    for path, check in checks.items():
        try:
            check()
        except Unfit as error:
            raise invalid(path, str(error)) from None


@delete(PUSH, responses=gives(answers.PushEnded, 422), status_code=200, tags=["server"])
async def unsubscribe_push(
    request: Call,
    subscription_id: Annotated[str, QueryParameter(name="subscriptionId", description="As it was told then")],
) -> JSONResponse:
    """A browser is not told any more. None there is no error."""
    ended = store_of(request).push.book.end(subscription_id, caller_of(request).name)
    return answer(msgspec.json.encode({"success": True, "ended": ended}))
