"""How the store is: /health, /ready, /metrics, and the webhooks."""

from __future__ import annotations

import re
import sqlite3

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from sessionstore import __version__
from sessionstore.appliance import Store
from sessionstore.model.events import text_of_time
from sessionstore.model.folds import Document
from sessionstore.model.problems import Problem, unavailable
from sessionstore.store.disk import Disk
from sessionstore.upkeep.backups import Backups
from sessionstore.upkeep.comparison import Comparison
from sessionstore.upkeep.lake import Lake
from sessionstore.upkeep.retention import Retention
from sessionstore.upkeep.tree import Mirror
from sessionstore.upkeep.webhooks import WebhookSender
from sessionstore.web import openapi_models as answers
from sessionstore.web.asgi import ASGI, Receive, Scope, Send, refuse
from sessionstore.web.openapi_models import gives, problems
from sessionstore.web.request import (
    Call,
    JSONResponse,
    answer,
    caller_of,
    store_of,
)
from sessionstore.web.shares import ROLE as SHARE


@get("/health", responses={200: ResponseSpec(answers.Health, generate_examples=False)}, security=[{}], tags=["server"])
async def health(request: Call) -> JSONResponse:
    """How the server is. Needs no token: to who has none, where one is needed, it tells less."""
    store = store_of(request)
    seconds = store.uptime()
    said: Document = {
        "status": "ok" if store.why_not_ready() is None else "unavailable",
        "role": caller_of(request).role,
        "tokens": bool(request.app.state.gate.tokens),
        "uptime": f"{int(seconds)} seconds",
        "uptimeSeconds": round(seconds, 1),
        "websocket": request.app.state.listeners.counts(),
        "storage": str(store.settings.directory),
        "version": __version__,
        "cursor": store.finding.cursor if store.finding else store.writer.cursor,
        "searchLag": store.writer.search_lag,
        "checks": store.checks(),
        "tree": tree_health(store.mirror),
    }
    if caller_of(request).role in (None, SHARE):
        del said["tree"]["error"]  # it may name a path
        return answer(msgspec.json.encode(said))
    return answer(msgspec.json.encode(said | health_inside(store) | {"material": await material_health(store)}))


async def material_health(store: Store) -> Document | None:
    """How much there is of it; None where the database is not served."""
    if store.finding:
        return None
    sizes = await store.intake.sizes()
    return {"transcripts": sizes.transcripts, "lines": sizes.lines, "threads": sizes.threads, "bytes": sizes.stored}


def health_inside(store: Store) -> Document:
    """What nobody needs to know who may not come in."""
    return {
        "sqlite": sqlite3.sqlite_version,
        "database": database_health(store),
        "backup": backup_health(store.backups),
        "verify": verify_health(store.comparison),
        "disk": disk_health(store.disk),
        "retention": retention_health(store.retention),
        "lake": lake_health(store.lake),
        "webhooks": {"status": store.webhooks.status, "pending": store.webhooks.pending},
    }


def database_health(store: Store) -> Document:
    finding = store.finding
    return {"status": finding.status if finding else "ok", "error": finding.detail if finding else None}


def backup_health(backups: Backups) -> Document:
    last = backups.last.manifest if backups.last else None
    return {
        "status": backups.status,
        "last": last and last.made_at,
        "cursor": last and last.cursor,
        "error": backups.error,
    }


def tree_health(mirror: Mirror) -> Document:
    return {"status": mirror.status, "cursor": mirror.cursor, "lag": mirror.lag, "error": mirror.error}


def verify_health(comparison: Comparison) -> Document:
    last = comparison.last
    return {
        "status": comparison.status,
        "last": last and text_of_time(last.at.timestamp()),
        "error": comparison.said,
    }


def disk_health(disk: Disk) -> Document:
    return {
        "status": disk.status,
        "freeBytes": disk.free,
        "totalBytes": disk.total,
        "reserveBytes": disk.reserve,
        "freeFiles": disk.free_files,
        "totalFiles": disk.total_files,
    }


def retention_health(retention: Retention) -> Document:
    return {"status": retention.status, "deleted": retention.deleted, "error": retention.error}


def lake_health(lake: Lake) -> Document:
    return {
        "status": lake.status,
        "shard": lake.shard and lake.shard.name,
        "sealed": lake.sealed,
        "unsealedSeconds": round(lake.unsealed_seconds(), 1),
        "last": lake.last and text_of_time(lake.last),
        "error": lake.error,
    }


@get("/ready", responses=gives(answers.Ready), tags=["server"])
async def ready(request: Call) -> JSONResponse:
    """Whether writes are taken, and what may end that."""
    store = store_of(request)
    if why := store.why_not_ready():
        raise Problem(503, why, headers={"retry-after": "2"})
    return answer(msgspec.json.encode({"status": "ready", "checks": store.checks()}))


@get("/api/webhooks", responses=gives(answers.WebhookList), tags=["server"])
async def list_webhooks(request: Call) -> JSONResponse:
    """Who is told of sessions, and how that goes. Secrets, paths and messengers' addresses are not shown."""
    return answer(msgspec.json.encode({"items": [shown_webhook(one) for one in store_of(request).webhooks.all]}))


def shown_webhook(webhook: WebhookSender) -> Document:
    target = webhook.target
    return {
        "name": target.title,
        "place": target.place,
        "format": "apprise" if target.apprise else target.format,
        "on": target.on,
        "rules": {name: value for name, value in msgspec.to_builtins(target.rules).items() if value is not None},
        "quiet": target.quiet,
        "urgent": target.urgent,
        "atMost": target.at_most,
        "pending": webhook.pending,
        "held": webhook.held,
        "failures": webhook.failures,
        "delivered": webhook.results["delivered"],
        "refused": webhook.results["refused"],
        "lastDelivery": webhook.last_delivery,
        "error": webhook.error,
    }


@get("/metrics", media_type="text/plain", responses=problems(401), tags=["server"])
async def metrics(request: Call) -> Response[bytes]:
    """The same for Prometheus."""
    from sessionstore.web.metrics import prometheus  # with the first scrape: its library takes time to import

    state = request.app.state
    if not store_of(request).finding:
        await store_of(request).intake.sizes()
    if fleet := store_of(request).fleet:
        await fleet.refresh()
    text = prometheus(store_of(request), state.listeners, state.gate, state.traffic, state.questions)
    return Response(text, media_type="text/plain; version=0.0.4")


OF_THE_DATABASE = re.compile(r"/(?:api/(?!login)|ws|datasette)")
"""What cannot be answered without the database."""


class Sound:
    """ASGI: lets nobody to a database that is not sound."""

    def __init__(self, app: ASGI, store: Store) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.store.finding and scope["type"] != "lifespan" and OF_THE_DATABASE.match(scope["path"]):
            await refuse(unsound(self.store), scope, receive, send)
        else:
            await self.app(scope, receive, send)


def unsound(store: Store) -> Problem:
    assert store.finding is not None
    return unavailable(store.finding.detail, retry_after=30)
