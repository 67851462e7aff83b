"""Prometheus collector: what the server counts about itself. No session, user or agent is ever a label."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Distribution
from prometheus_client.registry import Collector

from export import drilled
from sessionstore import __version__, log
from sessionstore.appliance import Store
from sessionstore.histogram import Histogram
from sessionstore.store.disk import size_of
from sessionstore.web.datasette_mount import DatasetteMount
from sessionstore.web.gate import Gate
from sessionstore.web.live import Listeners
from sessionstore.web.request_metrics import Traffic

Labels = dict[str, str]
Sample = tuple[str, type[Any], str, Labels, Any]
"""Name, kind of family, help, labels, and the value: a number, or a Histogram."""

PREFIX = "sessionstore_"
FIXED_SQLITE = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""Of the branches of 3.44, of 3.50, and of all later ones: the first without the fault by which two connections that
empty the log at once can lose what is in it. https://www.sqlite.org/wal.html#walresetbug"""


class StoreCollector(Collector):
    """Has them collected when they are asked for. Imported with the first scrape: prometheus_client takes its time."""

    def __init__(self, *counted: *tuple[Store, Listeners, Gate, Traffic, DatasetteMount]) -> None:
        self.counted = counted

    def collect(self) -> Iterator[Metric]:
        for (name, kind, meaning), found in groupby(samples(*self.counted), itemgetter(0, 1, 2)):
            members = [(labels, value) for *_, labels, value in found]
            full_name = name if name.startswith("process_") else PREFIX + name
            family = kind(full_name, meaning, labels=[*members[0][0]])
            for labels, value in members:
                of = ([*value.buckets()], value.sum) if isinstance(value, Histogram) else (value,)
                family.add_metric([*labels.values()], *of)
            yield family


def prometheus(*counted: *tuple[Store, Listeners, Gate, Traffic, DatasetteMount]) -> bytes:
    """The exposition format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(*counted))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def samples(
    store: Store, listeners: Listeners, gate: Gate, traffic: Traffic, questions: DatasetteMount
) -> Iterator[Sample]:
    yield "build_info", Gauge, "The version that runs", {"version": __version__}, 1
    yield "uptime_seconds", Gauge, "Since the start", {}, round(store.uptime(), 3)
    yield "ready", Gauge, "1 while writes are taken", {}, int(store.why_not_ready() is None)
    yield from of_ingest(store)
    yield from of_sqlite(store)
    yield from of_material(store)
    yield from of_disk(store)
    yield from of_requests(traffic)
    yield from of_refusals(gate.refused)
    yield "request_body_bytes", Gauge, "Of requests that are not answered yet", {}, gate.bodies.bytes
    yield from of_listeners(store, listeners)
    yield from of_questions(questions)
    yield from of_tree(store)
    yield from of_backups(store)
    yield from of_drills(store)
    yield from of_verification(store)
    yield from of_retention(store)
    yield from of_lake(store)
    yield from of_webhooks(store)
    yield from of_fleet(store)
    yield from of_process(store)


def of_ingest(store: Store) -> Iterator[Sample]:
    writer, counts = store.writer, store.writer.counts
    for kind, number in sorted(counts.accepted.items()):
        yield "events_accepted_total", Counter, "Events stored by this process", {"type": kind}, number
    yield "event_bytes_total", Counter, "Characters of their data", {}, counts.accepted_bytes
    tally = dict(counts.tally)
    yield "events_duplicate_total", Counter, "Events that were there already", {}, tally.pop("duplicate", 0)
    for status, number in sorted(tally.items()):
        yield "events_rejected_total", Counter, "Events that could not be stored", {"status": str(status)}, number
    yield "producer_gaps_total", Counter, "Times that an agent said what it had to drop", {}, counts.gaps
    yield "commit_duration_seconds", Distribution, "Of a transaction", {}, counts.commit_seconds
    yield "commit_batch_size", Distribution, "Writes in a transaction", {}, counts.commit_sizes
    yield "commit_failures_total", Counter, "Transactions that failed", {}, counts.failures
    yield "write_queue_depth", Gauge, "Writes that wait", {}, writer.waiting
    yield "write_queue_bytes", Gauge, "Bytes of the writes that wait", {}, writer.waiting_bytes
    yield "write_queue_oldest_seconds", Gauge, "How long the oldest has waited", {}, round(writer.oldest(), 3)


def of_sqlite(store: Store) -> Iterator[Sample]:
    writer, counts, log = store.writer, store.writer.counts, store.writer.log
    version = {"version": sqlite3.sqlite_version, "wal_reset_fixed": str(is_fixed(sqlite3.sqlite_version_info)).lower()}
    yield "sqlite_info", Gauge, "The SQLite library", {**version}, 1
    for code, number in sorted(counts.errors.items()):
        yield "sqlite_errors_total", Counter, "Why transactions failed", {"code": str(code)}, number
    yield "database_sound", Gauge, "0: damaged or behind what was seen, and not served", {}, int(store.finding is None)
    yield "db_bytes", Gauge, "Size of the database and its log", {}, store.database_bytes()
    yield "wal_bytes", Gauge, "Size of the log alone", {}, size_of(log.path)
    yield "db_last_seq", Gauge, "The newest cursor", {}, writer.cursor
    yield "checkpoint_duration_seconds", Distribution, "Of emptying a log that had grown", {}, log.emptying_seconds
    yield "checkpoint_busy_total", Counter, "Times that readers kept the log from being emptied", {}, log.times_busy
    yield "reader_oldest_seconds", Gauge, "The query under way for longest", {}, round(store.reader.oldest(), 3)
    yield "search_lag_events", Gauge, "Events that full-text search does not find yet", {}, writer.search_lag


def of_material(store: Store) -> Iterator[Sample]:
    sizes = store.intake.last_sizes
    yield (
        "material_transcripts",
        Gauge,
        "Whose lines are kept, of conversations and beside them",
        {},
        sizes.transcripts,
    )
    yield "material_lines", Gauge, "Their lines", {}, sizes.lines
    yield "material_threads", Gauge, "Threads whose checkpoints are kept", {}, sizes.threads
    yield "material_bytes", Gauge, "What all that takes on disk", {}, sizes.stored


def of_disk(store: Store) -> Iterator[Sample]:
    disk = store.disk
    yield "disk_free_bytes", Gauge, "Free on the disk of the database", {}, disk.free
    yield "disk_total_bytes", Gauge, "Size of that disk", {}, disk.total
    yield "disk_reserve_bytes", Gauge, "Free bytes below which writes are refused", {}, disk.reserve
    yield "disk_free_inodes", Gauge, "Files that can still be made on it", {}, disk.free_files
    yield "disk_total_inodes", Gauge, "Files that it can have; 0: as many as it has room for", {}, disk.total_files
    yield "disk_full", Gauge, "1 while writes are refused for that", {}, int(disk.is_full)


def of_requests(traffic: Traffic) -> Iterator[Sample]:
    routes = sorted(traffic.routes.items())
    for (method, route), seen in routes:
        for status, number in sorted(seen.statuses.items()):
            labels: Labels = {"method": method, "http_route": route, "status": str(status)}
            yield "http_requests_total", Counter, "Requests answered", labels, number
    for kind, number in traffic.errors().items():
        yield "http_errors_total", Counter, "Those of them that were errors", {"class": kind}, number
    for (method, route), seen in routes:
        labels = {"method": method, "http_route": route}
        yield "http_request_duration_seconds", Distribution, "Until the answer began", labels, seen.seconds


def of_refusals(refused: Mapping[str, int]) -> Iterator[Sample]:
    """By what was wrong: the token, where it came from, or how much it was."""
    for reason in ("token", "role"):
        yield "auth_failures_total", Counter, "Requests without the right", {"reason": reason}, refused[reason]
    yield "origin_rejected_total", Counter, "Requests of pages of a foreign origin", {}, refused["origin"]
    yield "host_rejected_total", Counter, "Requests to a name that is not answered to", {}, refused["host"]
    yield "unreadable_requests_total", Counter, "What is no HTTP that can be read", {}, refused["unreadable"]
    for reason in ("rate", "connections", "idle", "listeners", "bodies"):
        yield "rate_limited_total", Counter, "What was too much", {"reason": reason}, refused[reason]


def of_listeners(store: Store, listeners: Listeners) -> Iterator[Sample]:
    yield "ws_clients", Gauge, "WebSocket clients", {}, len(listeners.all)
    for code, number in sorted({1013: 0, **listeners.closed}.items()):
        yield "ws_closed_total", Counter, "WebSocket clients closed by the server", {"code": str(code)}, number
    yield "ws_dropped_messages_total", Counter, "Events that those too slow had not had", {}, listeners.unsent
    yield "ws_queue_max", Gauge, "Events that the slowest has yet to be sent", {}, listeners.most_behind()
    yield "ws_fanout_duration_seconds", Distribution, "From a commit to a client's socket", {}, listeners.fanout
    yield "broadcast_events", Gauge, "Events in the broadcaster's ring", {}, store.broadcaster.events


def of_questions(questions: DatasetteMount) -> Iterator[Sample]:
    yield "datasette_starts_total", Counter, "Starts of Datasette's process", {}, questions.datasette.starts
    yield (
        "datasette_failures_total",
        Counter,
        "Questions to which it gave no answer",
        {},
        questions.datasette.failures,
    )


def of_tree(store: Store) -> Iterator[Sample]:
    mirror = store.mirror
    yield "export_lag_events", Gauge, "Events that the file tree does not have yet", {}, mirror.lag
    yield "export_lag_seconds", Gauge, "Since the file tree last had them all", {}, round(mirror.lag_seconds(), 3)
    yield "export_files_total", Counter, "Files of the tree that were written, or added to", {}, mirror.files
    yield "export_failing", Gauge, "1 while the file tree cannot be written", {}, int(mirror.status == "failed")
    for name, number in sorted(mirror.errors.items()):
        yield "export_errors_total", Counter, "Why the file tree could not be written", {"errno": name}, number


def of_backups(store: Store) -> Iterator[Sample]:
    backups = store.backups
    if backups.folder is None:
        return
    yield "backup_failures_total", Counter, "Backups that failed", {}, backups.failures
    if (last := backups.last) is not None:
        made = datetime.fromisoformat(last.manifest.made_at).timestamp()
        yield "backup_last_success_timestamp_seconds", Gauge, "When the newest backup was made", {}, made
        yield "backup_bytes", Gauge, "Size of the newest backup", {}, last.manifest.bytes
        if last.seconds is not None:
            yield "backup_duration_seconds", Gauge, "How long it took", {}, round(last.seconds, 3)


def of_drills(store: Store) -> Iterator[Sample]:
    """Of `python -m export drill`, which leaves word beside the database."""
    if (found := drilled.last(store.settings.directory)) is not None:
        made = found.at.timestamp()
        yield "restore_drill_last_success_timestamp_seconds", Gauge, "When a drill last succeeded", {}, made
        yield "restore_drill_rpo_seconds", Gauge, "Of how many seconds it lost the events", {}, found.rpo
        yield "restore_drill_rto_seconds", Gauge, "How long all was away", {}, found.rto


def of_verification(store: Store) -> Iterator[Sample]:
    """Of `python -m export verify --full`, whether the server has run it or somebody else."""
    yield "verify_failing", Gauge, "1 while nothing can be compared", {}, int(store.comparison.error is not None)
    if (found := store.comparison.last) is not None:
        made = found.at.timestamp()
        yield "verify_last_timestamp_seconds", Gauge, "When database and tree were last compared", {}, made
        yield "verify_differences", Gauge, "What was found wrong then", {}, found.differences
        yield "verify_duration_seconds", Gauge, "How long it took", {}, round(found.seconds, 3)


def of_retention(store: Store) -> Iterator[Sample]:
    retention = store.retention
    yield "retention_deleted_total", Counter, "Sessions deleted unasked", {}, retention.deleted
    yield "retention_archived_total", Counter, "Archives made before that", {}, retention.archived
    yield "retention_failures_total", Counter, "Looks that ended early", {}, retention.failures
    yield "retention_failing", Gauge, "1 while it cannot do what it should", {}, int(retention.status == "failed")


def of_lake(store: Store) -> Iterator[Sample]:
    lake = store.lake
    if not lake.is_on:
        return
    seconds = round(lake.unsealed_seconds(), 3)
    yield "lake_unsealed_seconds", Gauge, "Age of the oldest event that the lake does not have", {}, seconds
    yield "lake_every_seconds", Gauge, "How old it may become", {}, store.settings.lake_every
    yield "lake_sealed_cursor", Gauge, "The lake has all up to this one", {}, lake.sealed or 0
    yield "lake_events_total", Counter, "Events sealed by this process", {}, lake.events
    yield "lake_failures_total", Counter, "Seals that failed", {}, lake.failures
    yield "lake_erasing_failing", Gauge, "1 where what was deleted could not be erased", {}, int(not lake.is_kept)
    yield "lake_displaced", Gauge, "1 where another store has this one's name", {}, int(lake.is_displaced)
    if store.chain:
        is_failing = int(store.chain.status != "ok")
        yield "lake_chain_failing", Gauge, "1 while the bucket, by SESSIONS_ACK, acknowledges nothing", {}, is_failing


def of_webhooks(store: Store) -> Iterator[Sample]:
    webhooks = [(webhook, webhook.target.title) for webhook in store.webhooks.all]
    for webhook, title in webhooks:
        yield "webhook_pending", Gauge, "What a webhook has yet to be told", {"target": title}, webhook.pending
    for webhook, title in webhooks:
        yield "webhook_failures", Gauge, "Failures since the last success", {"target": title}, webhook.failures
    for webhook, title in webhooks:
        for result, number in webhook.results.items():
            labels: Labels = {"target": title, "result": result}
            yield "webhook_attempts_total", Counter, "How attempts to tell a webhook ended", labels, number


def of_fleet(store: Store) -> Iterator[Sample]:
    if store.fleet:
        yield "fleet_shards", Gauge, "Appliances of the fleet", {}, len(store.fleet.members)
        yield "fleet_silent_shards", Gauge, "Of these, how many do not answer", {}, len(store.fleet.silent)


def of_process(store: Store) -> Iterator[Sample]:
    """Beside what Prometheus's own collector says of it."""
    yield "event_loop_lag_seconds", Distribution, "By how much the event loop was late", {}, store.loop_lag
    for reason, number in sorted(({"full": 0, "failed": 0} | log.lost).items()):
        yield "log_lost_total", Counter, "Entries of the log that could not be written", {"reason": reason}, number
    for place, number in sorted(({"tokens": 0, "webhooks": 0} | log.faults).items()):
        yield "faults_total", Counter, "Faults that the log tells, and that ended nothing", {"place": place}, number
    yield "process_threads", Gauge, "Threads of Python", {}, threading.active_count()


def is_fixed(version: tuple[int, int, int]) -> bool:
    return any(version >= fixed and (version[:2] == fixed[:2] or fixed == FIXED_SQLITE[-1]) for fixed in FIXED_SQLITE)
