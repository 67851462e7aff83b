"""Prometheus text: what the server counts about itself. No session, user or agent is ever a label."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime

from . import __version__
from .access import Gate
from .disk import size_of
from .live import Listeners
from .store import Store

Sample = tuple[str, str, str, dict[str, str], float]
"""Name, type, help, labels, value."""


def prometheus(store: Store, listeners: Listeners, gate: Gate) -> str:
    """The exposition format 0.0.4."""
    lines: list[str] = []
    told = ""
    for name, kind, meaning, labels, value in samples(store, listeners, gate):
        if name != told:
            lines += [f"# HELP sessionstore_{name} {meaning}", f"# TYPE sessionstore_{name} {kind}"]
            told = name
        text = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"sessionstore_{name}{{{text}}} {value}" if text else f"sessionstore_{name} {value}")
    return "\n".join(lines) + "\n"


def samples(store: Store, listeners: Listeners, gate: Gate) -> Iterator[Sample]:
    writer, broadcaster, mirror = store.writer, store.broadcaster, store.mirror
    yield "build_info", "gauge", "The version that runs", {"version": __version__}, 1
    yield "sqlite_info", "gauge", "The SQLite library", {"version": sqlite3.sqlite_version}, 1
    yield "uptime_seconds", "gauge", "Since the start", {}, round(store.uptime(), 3)
    yield "ready", "gauge", "1 while writes are taken", {}, int(store.why_not_ready() is None)
    yield "events_committed_total", "counter", "Events stored by this process", {}, writer.committed_events
    yield "commits_total", "counter", "Transactions", {}, writer.commits
    yield "commit_duration_seconds_total", "counter", "Time spent in transactions", {}, round(writer.commit_seconds, 6)
    yield "commit_failures_total", "counter", "Transactions that failed", {}, writer.failures
    yield "write_queue_depth", "gauge", "Writes that wait", {}, writer.waiting
    yield "write_queue_bytes", "gauge", "Bytes of the writes that wait", {}, writer.waiting_bytes
    yield "db_bytes", "gauge", "Size of the database and its log", {}, store.database_bytes()
    yield "wal_bytes", "gauge", "Size of the log alone", {}, size_of(writer.log_path)
    yield "disk_free_bytes", "gauge", "Free on the disk of the database", {}, store.disk.free
    yield "disk_total_bytes", "gauge", "Size of that disk", {}, store.disk.total
    yield "disk_reserve_bytes", "gauge", "Free bytes below which writes are refused", {}, store.disk.reserve
    yield "db_last_cursor", "gauge", "The newest cursor", {}, writer.cursor
    yield "search_lag_events", "gauge", "Events that full-text search does not find yet", {}, writer.search_lag
    yield "ws_clients", "gauge", "WebSocket clients", {}, len(listeners.all)
    yield "ws_closed_slow_total", "counter", "WebSocket clients that did not keep up", {}, listeners.closed_slow
    yield "broadcast_events", "gauge", "Events in the broadcaster's ring", {}, len(broadcaster.events)
    if (last := store.backups.last) is not None:
        made = datetime.fromisoformat(last.manifest.made_at).timestamp()
        yield "backup_last_success_timestamp_seconds", "gauge", "When the newest backup was made", {}, made
        yield "backup_bytes", "gauge", "Size of the newest backup", {}, last.manifest.bytes
        if last.seconds is not None:
            yield "backup_duration_seconds", "gauge", "How long it took", {}, round(last.seconds, 3)
    yield "export_lag_events", "gauge", "Events that the file tree does not have yet", {}, mirror.lag
    yield "export_lag_seconds", "gauge", "Since the file tree last had them all", {}, round(mirror.lag_seconds(), 3)
    for name, number in mirror.errors.items():
        yield "export_errors_total", "counter", "Why the file tree could not be written", {"errno": name}, number
    for reason, number in gate.refused.items():
        yield "refused_total", "counter", "Requests that were not let in", {"reason": reason}, number
