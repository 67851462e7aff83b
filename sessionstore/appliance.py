"""The store as one thing: writer, reader, broadcaster; opened at the start and closed at the end."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

from sessionstore.histogram import Histogram
from sessionstore.model.events import Event, event_ids
from sessionstore.model.redaction import Redactor
from sessionstore.prices import Prices
from sessionstore.settings import Settings
from sessionstore.store.broadcaster import Broadcaster
from sessionstore.store.disk import Disk, size_of
from sessionstore.store.folder import Ground
from sessionstore.store.intake import Intake
from sessionstore.store.integrity import Fault, check_integrity
from sessionstore.store.reader import Reader
from sessionstore.store.schema import DatabaseUnusable, open_writer
from sessionstore.store.threads import Threads
from sessionstore.store.writer import Writer
from sessionstore.upkeep.archives import Archives
from sessionstore.upkeep.backups import Backups
from sessionstore.upkeep.breaker import Breaker
from sessionstore.upkeep.budgets import BudgetWatch
from sessionstore.upkeep.comparison import Comparison
from sessionstore.upkeep.lake import Lake
from sessionstore.upkeep.outbox import Outbox
from sessionstore.upkeep.push import Push
from sessionstore.upkeep.retention import Retention
from sessionstore.upkeep.tree import Mirror
from sessionstore.upkeep.webhooks import Webhooks

if TYPE_CHECKING:
    from sessionstore.store.chain import Chain
    from sessionstore.upkeep.fleet import Fleet

logger = logging.getLogger(__name__)

LOOP_LOOK_SECONDS = 0.5


class Store:
    """What the API works on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.broadcaster = Broadcaster()
        self.disk = Disk(settings.directory, settings.disk_reserve)
        self.ground = Ground(settings.directory)
        self.mirror = Mirror(settings, self.ground)
        self.lake = Lake(settings)
        self.chain = self.chain_of(settings)
        self.writer = Writer(
            settings.database,
            publish=self.publish,
            ids=event_ids(),
            durability=settings.durability,
            auto_create=settings.auto_create,
            lost_after=settings.lost_after,
            disk=self.disk,
            ground=self.ground,
            redactor=Redactor(settings.own_patterns),
            prices=Prices(settings.prices),
            spared=lambda: self.outbox.reachable(),
            chain=self.chain,
            at_end=self.conclude,
        )
        self.reader = Reader(settings.database)
        redaction = self.writer.redactor.redaction if settings.redacts_transcripts else None
        self.intake = Intake(self.writer, self.reader, redaction, settings.max_material)
        self.threads = Threads(self.intake)
        self.backups = Backups(settings, self.disk, self.ground)
        self.comparison = Comparison(settings, self.ground)
        self.retention = Retention(settings, self.writer, sealed=lambda: self.lake.prunable)
        self.webhooks = Webhooks(settings)
        self.push = Push(settings)
        self.outbox = Outbox(self.reader, self.writer)
        self.budgets = BudgetWatch(settings.budgets, self.reader, self.writer, self.outbox.is_reachable)
        self.breaker = Breaker(settings.rules, self.reader, self.writer, self.outbox.is_reachable)
        self.archives = Archives(settings.database)
        self.fleet = fleet_of(settings)
        self.finding: Fault | None = None
        """Why the database is not served. If that was found at the start nothing of it is open, so that it stays as it
        was found."""
        self.is_open = False
        self.housekeeping: asyncio.Task[None] | None = None
        self.loop_lag = Histogram()
        """How much later than asked for the event loop came back: seconds that everybody waited."""
        self.is_prepared = False
        self.started_at = time.monotonic()
        self.draining = False

    def prepare(self) -> None:
        """Make the database, or bring it to the newest version. Raises DatabaseUnusable with a message for people."""
        if self.is_prepared:
            return
        self.settings.directory.mkdir(parents=True, exist_ok=True)
        self.finding = check_integrity(self.settings)
        self.is_prepared = True
        if self.finding:
            logger.critical("%s", self.finding.detail)
            return
        try:
            with closing(open_writer(self.settings.database)) as writer:
                self.lake.prepare(writer)
        except (DatabaseUnusable, sqlite3.Error) as error:
            raise DatabaseUnusable(f"The database {self.settings.database} cannot be used: {error}") from error

    async def start(self) -> None:
        self.prepare()
        self.watching = asyncio.create_task(self.watch_loop())
        if self.finding:
            return
        await self.writer.start()
        self.is_open = True  # what is begun from here on `stop` ends, also where a later step fails
        self.broadcaster.start(self.writer.cursor)
        await self.reader.start()
        self.housekeeping = asyncio.create_task(self.intake.keep_house(self.settings.material_days))
        self.backups.start()
        self.comparison.start()
        self.lake.start()
        self.retention.start()
        self.mirror.start(self.writer.cursor)
        self.webhooks.start(self.writer.cursor)
        self.push.start(self.writer.cursor)
        await self.budgets.start()
        self.breaker.start()
        self.outbox.start()

    async def stop(self) -> None:
        self.drain()
        self.watching.cancel()
        if not self.is_open:
            return
        await self.outbox.stop()
        await self.breaker.stop()
        await self.budgets.stop()
        await asyncio.to_thread(self.backups.stop)
        await asyncio.to_thread(self.comparison.stop)
        await asyncio.to_thread(self.retention.stop)
        await asyncio.to_thread(self.webhooks.stop)
        await asyncio.to_thread(self.push.stop)
        if self.housekeeping:
            self.housekeeping.cancel()
        self.intake.stop()
        await self.reader.stop()  # before the writer: whoever closes the database last leaves nothing beside it
        await self.writer.stop()

    def conclude(self) -> None:
        """Once the last write is committed: what follows the writer has all of it, as far as time allows."""
        self.lake.end()
        self.mirror.stop()
        self.lake.stop()

    async def watch_loop(self) -> None:
        while True:
            due = time.monotonic() + LOOP_LOOK_SECONDS
            await asyncio.sleep(LOOP_LOOK_SECONDS)
            self.loop_lag.note(max(0.0, time.monotonic() - due))

    def publish(self, events: list[Event]) -> None:
        """Tell whoever follows, in the order of the commits."""
        self.broadcaster.publish(events)
        self.mirror.wake(events[-1].cursor)
        self.webhooks.wake(events[-1].cursor)
        self.push.wake(events[-1].cursor)
        self.budgets.wake(events)
        self.breaker.wake(events)
        self.outbox.wake(events)

    def drain(self) -> None:
        """Take no more writes, and let every listener go; what was taken is finished by `stop`."""
        self.draining = True
        self.writer.closing = True
        self.broadcaster.close()
        self.outbox.close()

    def chain_of(self, settings: Settings) -> Chain | None:
        """Where the disk alone acknowledges there is no code for more."""
        if settings.ack == "disk":
            return None
        from sessionstore.store.chain import Chain

        def on_lost(said: str) -> None:
            self.writer.loop.call_soon_threadsafe(self.give_way, said)

        return Chain(settings, lambda: self.lake.shard, lambda: self.lake.sealed, on_lost)

    def give_way(self, said: str) -> None:
        """Another server acknowledges in this one's place: nothing is served from now on."""
        self.finding = Fault("displaced", self.writer.cursor, f"Nothing is served and nothing is written: {said}")
        logger.critical("%s", self.finding.detail)
        self.drain()
        self.lake.end_at_once()
        self.leaving = asyncio.create_task(self.writer.stop())

    def why_not_ready(self) -> str | None:
        """Why writes are not taken; None while they are."""
        if self.finding:
            return self.finding.detail
        if self.draining:
            return "The server is shutting down"
        if self.ground.why:
            return self.ground.why
        if self.disk.is_full:
            return self.disk.said()
        if self.writer.trouble:
            return f"The last commit failed: {self.writer.trouble}"
        if not self.writer.thread.is_alive():
            return "The writer has stopped"
        return None

    def checks(self) -> dict[str, str]:
        """`fail` where it keeps writes from being taken, `warn` where it does not, `pass`."""
        warnings = {
            "backup": self.backups.status == "failed",
            "tree": self.mirror.status in ("failed", "behind"),
            "verify": self.comparison.status == "failed",
            "retention": self.retention.status == "failed",
            "lake": self.lake.status in ("failed", "displaced"),
            "disk": self.disk.status == "low",
            "folder": self.ground.doubt is not None,
        }
        failures = {
            "database": self.finding is not None,
            "disk": self.disk.is_full,
            "folder": self.ground.why is not None,
            "writer": self.writer.trouble is not None or not (self.finding or self.writer.thread.is_alive()),
        }
        found = {name: "warn" if is_so else "pass" for name, is_so in warnings.items()}
        return found | {name: "fail" if is_so else found.get(name, "pass") for name, is_so in failures.items()}

    def database_bytes(self) -> int:
        return size_of(self.settings.database) + size_of(self.writer.log.path)

    def uptime(self) -> float:
        return time.monotonic() - self.started_at


def fleet_of(settings: Settings) -> Fleet | None:
    """Whoever shows no other appliances does without the code for it."""
    if not settings.fleet:
        return None
    from sessionstore.upkeep.fleet import Fleet

    return Fleet(settings.fleet)
