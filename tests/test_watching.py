"""What watches the server: its metrics, and the alert rules and the dashboard that are made of them.

A fault is provoked, the metrics before and after it are handed to promtool, and
promtool says which of the alerts go off.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from tests.appliance import REPOSITORY, Appliance
from tests.commands import export
from tests.disks import fill, release, small_disk
from tests.peers import children_of, dial, eventually, handshake, mute_reader, response_from
from tests.repeats import marked
from tests.wire import http_request

ALERTS = REPOSITORY / "docs" / "alerts.yaml"
DASHBOARD = REPOSITORY / "docs" / "grafana.json"
SAMPLE = re.compile(r"^([a-z_]+(?:\{[^\n]*\})?) (\S+)$", re.MULTILINE)
NAME = re.compile(r"\b(?:sessionstore|process)_[a-z_]+\b")
TOKEN, READ_TOKEN = "admin-token-of-this-test", "read-token-of-this-test"

SILENT = re.compile(r'expr: ".* # (.+)", time: \S+,\s+exp: .*\s+got: nil')
"""The name of a case in which, says promtool, an alert does not go off."""
Series = list[tuple[str, str]]
"""Names and labels of metrics, with the values of each."""
Metrics = dict[str, float]
"""Values by series: its name and labels, as the server writes them."""


@pytest.fixture(scope="module")
def promtool() -> str:
    if found := shutil.which("promtool"):
        return found
    message = "the alert rules are not tested: there is no promtool here (apt-get install prometheus)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def metrics_of(server: Appliance, token: str = "") -> Metrics:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {series: float(value) for series, value in SAMPLE.findall(answer.text)}


def total(metrics: Metrics, name: str) -> float:
    return sum(value for series, value in metrics.items() if re.fullmatch(rf"{name}(\{{.*)?", series))


# ------------------------------------------------------------------------ the faults


class Fault(NamedTuple):
    """What was provoked, and the metrics before and after."""

    name: str
    before: Metrics
    after: Metrics


EXPECTED = {
    "the disk is full": {"DiskFull", "NotReady", "Errors"},
    "the tree cannot be written": {"TreeBehind"},
    "no backup can be made": {"BackupsFail"},
    "no archive can be made": {"RetentionFails"},
    "somebody holds the lock": {"CommitsFail", "Errors"},
    "somebody guesses tokens": {"RefusesMany"},
    "a page of elsewhere asks": {"RefusesMany"},
    "an agent had to drop events": {"AgentsLose"},
    "listeners take nothing": {"ListenersSlow"},
    "a webhook does not answer": {"WebhooksFail"},
    "Datasette is killed": {"QuestionsFail"},
    "the database is damaged": {"DatabaseUnsound", "NotReady"},
    "the lake is away": {"LakeBehind"},
}
"""What goes off at each fault, if nothing else does."""

MOVED = {
    "the disk is full": ("sessionstore_disk_full", "sessionstore_disk_free_bytes", "sessionstore_ready"),
    "the tree cannot be written": ("sessionstore_export_failing",),
    "no backup can be made": ("sessionstore_backup_failures_total",),
    "no archive can be made": ("sessionstore_retention_failing", "sessionstore_retention_failures_total"),
    "somebody holds the lock": ('sessionstore_sqlite_errors_total{code="SQLITE_BUSY"}',),
    "somebody guesses tokens": ('sessionstore_auth_failures_total{reason="token"}',),
    "a page of elsewhere asks": ("sessionstore_origin_rejected_total",),
    "an agent had to drop events": ("sessionstore_producer_gaps_total",),
    "listeners take nothing": ('sessionstore_ws_closed_total{code="1013"}', "sessionstore_ws_dropped_messages_total"),
    "a webhook does not answer": (
        'sessionstore_webhook_failures{target="dead"}',
        'sessionstore_webhook_attempts_total{result="failed",target="dead"}',
    ),
    "Datasette is killed": ("sessionstore_datasette_failures_total", "sessionstore_datasette_starts_total"),
    "the database is damaged": ("sessionstore_database_sound",),
    "the lake is away": ("sessionstore_lake_unsealed_seconds", "sessionstore_lake_failures_total"),
}
"""The metrics that name each fault."""


@contextmanager
def provoked(name: str, server: Appliance, token: str = "") -> Iterator[Callable[[str], float]]:
    """Takes the metrics before the block, and those that were asked for last in it, or else after it."""
    before = metrics_of(server, token)
    asked: list[Metrics] = []

    def now(metric: str) -> float:
        asked.append(metrics_of(server, token))
        return total(asked[-1], metric)

    yield now
    FAULTS[name] = Fault(name, before, asked[-1] if asked else metrics_of(server, token))


FAULTS: dict[str, Fault] = {}


TAKE_LONG = {
    "listeners take nothing",
    "a page of elsewhere asks",
    "an agent had to drop events",
    "a webhook does not answer",
    "Datasette is killed",
}
"""Those that `provoke_by_who_is_told` provokes."""


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fault]:
    with ThreadPoolExecutor() as pool:
        places = [tmp_path_factory.mktemp("faults") for _ in range(2)]
        list(pool.map(lambda provoke, place: provoke(place), (provoke_on_small_disk, provoke_by_others), places))
    return FAULTS


@pytest.fixture(scope="module")
def more_faults(tmp_path_factory: pytest.TempPathFactory) -> None:
    provoke_by_who_is_told(tmp_path_factory.mktemp("told"))


@pytest.fixture
def fault(request: pytest.FixtureRequest, faults: dict[str, Fault], name: str) -> Fault:
    if name in TAKE_LONG:
        request.getfixturevalue("more_faults")
    return faults[name]


def write(server: Appliance, size: int = 100, *, session: str = "s", token: str = "") -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body = {"type": "x", "text": "x" * size}
    return httpx.post(f"{server.url}/api/actions/{session}", json=body, headers=headers).status_code


def provoke_on_small_disk(place: Path) -> None:
    backups, archives = place / "backups", place / "archives"
    settings = {
        "SESSIONS_BACKUP_DIR": str(backups),
        "SESSIONS_BACKUP_EVERY": "1",
        "SESSIONS_ARCHIVE_DIR": str(archives),
        "SESSIONS_RETENTION_BYTES": "1M",
    }
    with small_disk(place / "disk", 32 << 20) as disk, Appliance(disk / "sessions", settings) as server:
        assert write(server) == 200
        eventually(lambda: any(backups.glob("*.db")))
        with provoked("nothing", server):
            assert write(server) == 200
        with provoked("no backup can be made", server) as now:
            shutil.rmtree(backups)
            backups.write_text("in the way")
            eventually(lambda: now("sessionstore_backup_failures_total") > 0)
        with provoked("no archive can be made", server) as now:
            archives.write_text("in the way")
            for _ in range(3):
                write(server, 900_000)
            httpx.post(f"{server.url}/api/sessions/s/finalize", json={})
            eventually(lambda: now("sessionstore_retention_failing") == 1, 60.0)
        with provoked("the disk is full", server) as now:
            fill(disk, left=0)
            eventually(lambda: now("sessionstore_disk_full") == 1)
            assert write(server) == 503
            now("sessionstore_disk_full")
            release(disk)
            eventually(lambda: write(server) == 200)
        with provoked("the tree cannot be written", server) as now, in_the_way(disk / "sessions" / "sessions" / "t"):
            assert write(server, session="t") == 200
            eventually(lambda: now("sessionstore_export_failing") == 1)


@contextmanager
def in_the_way(folder: Path) -> Iterator[None]:
    """Another disk in the place of a session's folder, with something in it."""
    with small_disk(folder, 1 << 20):
        (folder / "theirs").touch()
        yield


def provoke_by_others(place: Path) -> None:
    settings = {"SESSIONS_TOKEN": TOKEN, "SESSIONS_READ_TOKEN": READ_TOKEN, "SESSIONS_WEBHOOKS": dead_webhook(place)}
    lake = place / "lake"
    with Appliance(place, settings | {"SESSIONS_LAKE": lake.as_uri(), "SESSIONS_LAKE_EVERY": "1"}) as server:
        assert write(server, token=TOKEN) == 200
        eventually(lambda: metrics_of(server, READ_TOKEN)["sessionstore_lake_sealed_cursor"] == 2)
        with provoked("the lake is away", server, READ_TOKEN) as now:
            lake.rename(place / "elsewhere")
            lake.write_text("in the way")
            assert write(server, token=TOKEN) == 200
            eventually(
                lambda: now("sessionstore_lake_unsealed_seconds") > 1.5 and now("sessionstore_lake_failures_total")
            )
        lake.unlink()
        (place / "elsewhere").rename(lake)  # with a file in its place no server would start
        assert export(place, "drill", "--events", "200").returncode == 0
        assert export(place, "verify", "--full").returncode == 0
        with (
            provoked("somebody holds the lock", server, READ_TOKEN),
            closing(sqlite3.connect(place / "sessions.db", isolation_level=None)) as other,
        ):
            other.execute("BEGIN IMMEDIATE")
            assert write(server, token=TOKEN) == 503
        eventually(lambda: write(server, token=TOKEN) == 200)
        with provoked("somebody guesses tokens", server, READ_TOKEN), httpx.Client(base_url=server.url) as client:
            for number in range(30):
                client.get("/api/sessions", headers={"authorization": f"Bearer wrong-{number}"})
        before = metrics_of(server, READ_TOKEN)
        server.stop()
        with open(place / "sessions.db", "r+b") as database:
            database.truncate(8192)
        server.start()
        FAULTS["the database is damaged"] = Fault("", before, metrics_of(server, READ_TOKEN))


def dead_webhook(place: Path) -> str:
    (webhooks := place / "webhooks.json").write_text(json.dumps([{"url": "http://127.0.0.1:1/", "name": "dead"}]))
    return str(webhooks)


def provoke_by_who_is_told(place: Path) -> None:
    with Appliance(place / "sessions", {"SESSIONS_WEBHOOKS": dead_webhook(place)}) as server:
        assert write(server) == 200
        with provoked("a webhook does not answer", server) as now:
            attention = {"type": "permission_request", "attention": {"reason": "permission"}}
            httpx.post(f"{server.url}/api/actions/s", json=attention).raise_for_status()
            eventually(lambda: now("sessionstore_webhook_failures") > 3)
        with provoked("listeners take nothing", server) as now, ExitStack() as listeners:
            for _ in range(12):
                listeners.enter_context(mute_reader(server.port, handshake()))
            eventually(lambda: now("sessionstore_ws_clients") == 12)
            for _ in range(12):
                assert write(server, 900_000) == 200
            eventually(lambda: now("sessionstore_ws_closed_total") > 10)
        with provoked("a page of elsewhere asks", server):
            for _ in range(30):
                httpx.get(f"{server.url}/api/sessions", headers={"origin": "http://evil.example"})
        with provoked("an agent had to drop events", server):
            dropped = {"type": "events_dropped", "count": 3}
            httpx.post(f"{server.url}/api/actions/s", json=dropped).raise_for_status()
        with provoked("Datasette is killed", server), dial(server.port) as asking:
            assert httpx.get(f"{server.url}/datasette/", timeout=60).status_code == 200
            explorer, *_ = children_of(server.process.pid)
            os.kill(explorer, signal.SIGSTOP)
            asking.sendall(http_request("GET", "/datasette/sessions"))
            assert write(server) == 200, "what was sent before has been read as well"
            os.kill(explorer, signal.SIGKILL)
            assert response_from(asking).status == 503
            assert httpx.get(f"{server.url}/datasette/", timeout=60).status_code == 200


@pytest.mark.parametrize("name", marked(MOVED, long=TAKE_LONG))
def test_a_fault_moves_the_metrics_that_name_it(fault: Fault, name: str) -> None:
    for metric in MOVED[name]:
        before, after = (found.get(metric, 0.0) for found in (fault.before, fault.after))
        assert before != after, f"{metric} is {after} as before"


# ------------------------------------------------------------------------ the alerts


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def short(alert: str) -> str:
    return alert.removeprefix("SessionStore")


SYNTHETIC: dict[str, Metrics] = {
    "Down": {'up{job="session-store"}': 0},
    "DiskLow": {"sessionstore_disk_free_bytes": 9, "sessionstore_disk_total_bytes": 100},
    "WritesWait": {"sessionstore_write_queue_oldest_seconds": 6},
    "LogLarge": {"sessionstore_wal_bytes": 300 << 20},
    "BackupOld": {"sessionstore_backup_last_success_timestamp_seconds": -7300},
    "DrillOld": {"sessionstore_restore_drill_last_success_timestamp_seconds": -36 * 3600},
    "Faults": {'sessionstore_faults_total{place="webhooks"}': 3},
    "InodesLow": {"sessionstore_disk_free_inodes": 9, "sessionstore_disk_total_inodes": 100},
    "VerifyDiffers": {"sessionstore_verify_differences": 1, "sessionstore_verify_failing": 0},
    "VerifyOld": {"sessionstore_verify_last_timestamp_seconds": -48 * 3600},
    "FleetSilent": {"sessionstore_fleet_silent_shards": 9},
    "LakeDisplaced": {"sessionstore_lake_displaced": 1},
    "LakeUnacknowledged": {"sessionstore_lake_chain_failing": 1},
    "LakeNotErased": {"sessionstore_lake_erasing_failing": 9},
    "LogLost": {'sessionstore_log_lost_total{reason="full"}': 3},
    "DescriptorsShort": {'process_open_fds{job="session-store"}': 90, 'process_max_fds{job="session-store"}': 100},
}
"""What is not provoked here, as it would be seen."""

RISING = {
    "CommitsSlow": "sessionstore_commit_duration_seconds_bucket",
    "LoopLate": "sessionstore_event_loop_lag_seconds_bucket",
}
"""Of these the alert looks at the distribution: all of it beyond a second."""

END = "20m"


def firing(promtool: str, place: Path, asked: dict[str, tuple[Series, str]]) -> set[str]:
    """Of the cases, each a name with its series and an alert, or what matches several: those where promtool says that
    it goes off. One run of it is for all of them, as each takes it as long to begin."""
    path = place / "test.yaml"
    tests = [expected(name, series, alert) for name, (series, alert) in asked.items()]
    path.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": tests}))
    ended = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    said = ended.stdout + ended.stderr
    silent = set(SILENT.findall(said))
    assert silent <= asked.keys() and bool(silent) == bool(ended.returncode), said
    assert said.count("got:") == len(silent), said
    return asked.keys() - silent


def expected(name: str, series: Series, alert: str) -> dict[str, Any]:
    """A test of promtool that an alert goes off."""
    selector = f'ALERTS{{alertname=~"SessionStore{alert}",alertstate="firing"}}'
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": f"clamp_max(sum(count_over_time({selector}[30m])), 1) # {name}",
                "eval_time": END,
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


def as_series(fault: Fault) -> Iterator[tuple[str, str]]:
    """What was before for ten minutes, then what came after."""
    for name in fault.before.keys() | fault.after.keys():
        before, after = fault.before.get(name), fault.after.get(name)
        begin = "_x39" if before is None else f"{before:g}+0x39"
        yield name, f"{begin} {'_x40' if after is None else f'{after:g}+0x40'}"


@pytest.mark.parametrize("name", marked(EXPECTED, long=TAKE_LONG))
def test_a_fault_sets_off_its_alerts(promtool: str, fault: Fault, name: str, tmp_path: Path) -> None:
    series = list(as_series(fault))
    assert firing(promtool, tmp_path, {alert: (series, alert) for alert in EXPECTED[name]}) == EXPECTED[name]


def test_where_nothing_is_wrong_no_alert_goes_off(promtool: str, faults: dict[str, Fault], tmp_path: Path) -> None:
    assert not firing(promtool, tmp_path, {"any": (list(as_series(faults["nothing"])), ".*")})


def synthetic(alert: str) -> tuple[Series, Series]:
    """Where it is to go off, and where it is not."""
    well = {name: 0.0 if name.endswith("_total") or value > 5 else 1.0 for name, value in SYNTHETIC[alert].items()}
    if alert in (
        "DiskLow",
        "InodesLow",
        "VerifyDiffers",
        "VerifyOld",
        "BackupOld",
        "DrillOld",
        "DescriptorsShort",
        "LakeDisplaced",
        "LakeUnacknowledged",
    ):
        well |= {name: 100.0 for name in well if "disk" in name or "max" in name}
        well |= {name: 0.0 for name in well if re.search("verify_differences|failing|displaced", name)}
    ill = as_series(Fault("", well, {**SYNTHETIC[alert]}))
    return list(ill), list(as_series(Fault("", well, well)))


def rising(alert: str) -> tuple[Series, Series]:
    def series(quick: int) -> Series:
        bounds = {"0.005": quick, "1": quick, "2.5": 10, "+Inf": 10}
        return [(f'{RISING[alert]}{{le="{bound}"}}', f"0+{number}x79") for bound, number in bounds.items()]

    return series(quick=0), series(quick=10)


def restarts(_: str) -> tuple[Series, Series]:
    name = 'process_start_time_seconds{job="session-store"}'
    return [(name, "1x39 2x3 3x3 4x40")], [(name, "1x39 2x40")]


MADE_UP = dict.fromkeys(SYNTHETIC, synthetic) | dict.fromkeys(RISING, rising) | {"Restarts": restarts}


@pytest.fixture(scope="module")
def fired(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Of all that is made up, what goes off."""
    asked = {}
    for alert, made in MADE_UP.items():
        asked[alert], asked[f"{alert}, well"] = ((series, alert) for series in made(alert))
    return firing(promtool, tmp_path_factory.mktemp("fired"), asked)


@pytest.mark.parametrize("alert", MADE_UP)
def test_what_is_not_provoked_sets_off_its_alert_too(fired: set[str], alert: str) -> None:
    assert alert in fired
    assert f"{alert}, well" not in fired


def test_every_alert_is_proven() -> None:
    proven = set().union(*EXPECTED.values(), MADE_UP)
    assert {short(rule["alert"]) for rule in rules()} == proven


def test_every_alert_says_what_it_is_about_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


# ------------------------------------------------------------------------ the names


def queries_of_dashboard() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return queries + [annotation["expr"] for annotation in dashboard["annotations"]["list"]]


def test_every_metric_that_alerts_and_dashboard_name_is_there(faults: dict[str, Fault]) -> None:
    served = {series.partition("{")[0] for fault in faults.values() for series in fault.after}
    named = set(NAME.findall(" ".join([*(rule["expr"] for rule in rules()), *queries_of_dashboard()])))
    assert len(named) > 40
    assert named - served <= {
        "sessionstore_events_rejected_total",
        "sessionstore_export_errors_total",
        "sessionstore_fleet_silent_shards",
        "sessionstore_lake_chain_failing",
    }


def test_the_dashboard_asks_what_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    queries = [query.replace("$job", "session-store") for query in queries_of_dashboard()]
    asked = [{"record": f"dashboard:query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": asked}]}))
    for file in (path, ALERTS):
        checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    path.write_text(json.dumps({"groups": [{"name": "bad", "rules": [{"record": "a", "expr": "rate(a[5m]"}]}]}))
    bad = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, check=False)
    assert bad.returncode != 0


def test_what_prometheus_reads_is_well_formed(promtool: str, tmp_path: Path) -> None:
    with Appliance(tmp_path / "sessions") as server:
        assert write(server) == 200
        assert httpx.post(f"{server.url}/api/actions/s", content=b"{").status_code == 415
        assert httpx.get(f"{server.url}/no/such/{'x' * 100}").status_code == 404
        text = httpx.get(f"{server.url}/metrics").text
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        problems = [line for line in (checked.stdout + checked.stderr).splitlines() if "error while linting" in line]
        assert checked.returncode in (0, 3) and problems == [], checked.stderr
        found = metrics_of(server)
        assert 'sessionstore_http_requests_total{http_route="other",method="GET",status="404"}' in found
        hot = 'http_route="/api/actions/{session_id}",method="POST"'
        assert found[f'sessionstore_http_requests_total{{{hot},status="200"}}'] == 1
        assert found[f"sessionstore_http_request_duration_seconds_count{{{hot}}}"] == 2
        assert found['sessionstore_events_accepted_total{type="action"}'] == 1
        assert "x" * 100 not in text
