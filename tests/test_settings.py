"""Every setting: its default, what it takes, and that what it does not take stops the start."""

from __future__ import annotations

import os
import subprocess
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from sessionstore import settings
from sessionstore.settings import BadSetting, Settings, read_settings
from tests.appliance import Appliance
from tests.commands import run

DEFAULTS: dict[str, tuple[str, object]] = {
    "PORT": ("port", 9000),
    "SESSIONS_HOST": ("host", "127.0.0.1"),
    "SESSIONS_DURABILITY": ("durability", "full"),
    "SESSIONS_TOKEN": ("admin_token", None),
    "SESSIONS_READ_TOKEN": ("read_token", None),
    "SESSIONS_INGEST_TOKEN": ("ingest_token", None),
    "SESSIONS_TOKENS_DIR": ("tokens_directory", None),
    "SESSIONS_AGENT_TOKEN_FILE": ("agent_token_file", None),
    "SESSIONS_AGENT_TOKENS": ("agent_tokens", ()),
    "SESSIONS_MAX_EVENT_BYTES": ("max_event_bytes", 1 << 20),
    "SESSIONS_MAX_BATCH_BYTES": ("max_batch_bytes", 32 << 20),
    "SESSIONS_LOST_AFTER": ("lost_after", 900.0),
    "SESSIONS_RETENTION_DAYS": ("retention_days", None),
    "SESSIONS_RETENTION_BYTES": ("retention_bytes", None),
    "SESSIONS_ARCHIVE_DIR": ("archive_directory", None),
    "SESSIONS_ALLOWED_HOSTS": ("allowed_hosts", frozenset()),
    "SESSIONS_ALLOWED_ORIGINS": ("allowed_origins", frozenset()),
    "SESSIONS_AUTO_CREATE": ("auto_create", True),
    "SESSIONS_TREE": ("tree", True),
    "SESSIONS_BACKUP_DIR": ("backup_directory", None),
    "SESSIONS_BACKUP_EVERY": ("backup_every", 3600.0),
    "SESSIONS_VERIFY_EVERY": ("verify_every", 86_400.0),
    "SESSIONS_DISK_RESERVE": ("disk_reserve", None),
    "SESSIONS_UMASK": ("umask", 0o077),
    "SESSIONS_ALLOW_UNSAFE_FS": ("allows_unsafe", False),
    "SESSIONS_LOG": ("log", "text"),
    "SESSIONS_LOG_REQUESTS": ("log_requests", False),
    "SESSIONS_TLS_CERT": ("tls_certificate", None),
    "SESSIONS_TLS_KEY": ("tls_key", None),
    "SESSIONS_TRUSTED_PROXIES": ("trusted_proxies", ()),
    "SESSIONS_USER_HEADER": ("user_header", ()),
    "SESSIONS_USER_ROLES": ("user_roles", ()),
    "SESSIONS_MAX_REQUESTS": ("max_requests", None),
    "SESSIONS_MAX_CONNECTIONS": ("max_connections", 1024),
    "SESSIONS_MAX_LISTENERS": ("max_listeners", 1000),
    "SESSIONS_REDACT": ("own_patterns", ()),
    "SESSIONS_PRICES": ("prices", {}),
    "SESSIONS_BUDGETS": ("budgets", ()),
    "SESSIONS_RULES": ("rules", ()),
    "SESSIONS_REDACT_TRANSCRIPTS": ("redacts_transcripts", True),
    "SESSIONS_MAX_MATERIAL": ("max_material", (1 << 30, None)),
    "SESSIONS_MATERIAL_DAYS": ("material_days", 30),
    "SESSIONS_WEBHOOKS": ("webhooks", ()),
    "SESSIONS_PUBLIC_URL": ("public_url", None),
    "SESSIONS_FLEET": ("fleet", ()),
    "SESSIONS_LAKE": ("lake", None),
    "SESSIONS_SHARD": ("shard", None),
    "SESSIONS_LAKE_EVERY": ("lake_every", 300.0),
    "SESSIONS_LAKE_DAYS": ("lake_days", None),
    "SESSIONS_ACK": ("ack", "disk"),
}
"""All but SESSIONS_DIR, whose default depends on the machine."""


@pytest.mark.parametrize("variable", DEFAULTS)
def test_a_setting_has_its_default_also_when_it_is_empty(variable: str) -> None:
    field, default = DEFAULTS[variable]
    for environment in ({}, {variable: ""}, {variable: "  "}):
        assert getattr(read_settings(environment), field) == default
    assert getattr(Settings(directory=Path("/data")), field) == default


def test_the_table_has_every_setting_and_fills_every_field() -> None:
    assert [setting.variable for setting in settings.TABLE.values()] == ["SESSIONS_DIR", *DEFAULTS]
    assert [*settings.TABLE] == [*Settings.__struct_fields__]


def test_the_folder_is_the_usual_one_or_stands_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual, here = Path("/var/claude-sessions"), tmp_path / "claude-sessions"
    is_writable = os.access(usual if usual.exists() else usual.parent, os.W_OK | os.X_OK)
    assert read_settings({}).directory == (usual if is_writable else here)
    assert read_settings({"SESSIONS_DIR": "claude-sessions"}).directory == here
    assert read_settings({"SESSIONS_DIR": "~/claude-sessions"}).directory == here
    assert not here.exists()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("SESSIONS_HOST", "0.0.0.0", "0.0.0.0"),
        ("SESSIONS_HOST", "[::1]", "::1"),
        ("SESSIONS_HOST", "::", "::"),
        ("SESSIONS_HOST", "LOCALHOST", "localhost"),
        ("SESSIONS_DURABILITY", "normal", "normal"),
        ("SESSIONS_TOKEN", " eight-88\n", "eight-88"),
        ("SESSIONS_TOKENS_DIR", "/run/secrets/sessions", Path("/run/secrets/sessions")),
        ("SESSIONS_AGENT_TOKEN_FILE", "/run/session-store/token", Path("/run/session-store/token")),
        ("SESSIONS_MAX_EVENT_BYTES", "1024", 1024),
        ("SESSIONS_MAX_BATCH_BYTES", "268435456", 1 << 28),
        ("SESSIONS_LOST_AFTER", "0.1", 0.1),
        ("SESSIONS_ALLOWED_HOSTS", "A, b.example ,,[2001:DB8::0:1]", {"a", "b.example", "2001:db8::1"}),
        ("SESSIONS_ALLOWED_ORIGINS", "HTTPS://A.example/", {"https://a.example"}),
        ("SESSIONS_ALLOWED_ORIGINS", "http://a:80,https://b:443,https://c:80", {"http://a", "https://b", "https://c:80"}),
        ("SESSIONS_ALLOWED_ORIGINS", "chrome-extension://abc, http://[::1]:3000", {"chrome-extension://abc", "http://[::1]:3000"}),
        ("SESSIONS_AUTO_CREATE", "off", False),
        ("SESSIONS_TREE", "off", False),
        ("SESSIONS_BACKUP_DIR", "/mnt/backups", Path("/mnt/backups")),
        ("SESSIONS_BACKUP_EVERY", "90", 90.0),
        ("SESSIONS_BACKUP_EVERY", "15m", 900.0),
        ("SESSIONS_BACKUP_EVERY", "365d", 31_536_000.0),
        ("SESSIONS_TRUSTED_PROXIES", "10.1.0.0/24, ::1", (ip_network("10.1.0.0/24"), ip_network("::1"))),
        ("SESSIONS_MAX_REQUESTS", "1000", 1000),
        ("SESSIONS_MAX_LISTENERS", "0", 0),
        ("SESSIONS_RETENTION_BYTES", "20G", 20 << 30),
        ("SESSIONS_ARCHIVE_DIR", "/mnt/archives", Path("/mnt/archives")),
        ("SESSIONS_DISK_RESERVE", "0", 0),
        ("SESSIONS_DISK_RESERVE", "64M", 64 << 20),
        ("SESSIONS_LOG", "json", "json"),
        ("SESSIONS_LOG_REQUESTS", "on", True),
        ("SESSIONS_LAKE", "s3://bucket/teams/", "s3://bucket/teams"),
        ("SESSIONS_LAKE", "file:///mnt/lake", "file:///mnt/lake"),
        ("SESSIONS_SHARD", "berlin.1", "berlin.1"),
        ("SESSIONS_LAKE_DAYS", "365", 365),
    ],
)  # fmt: skip
def test_a_setting_is_read(variable: str, text: str, value: object) -> None:
    assert getattr(read_settings({variable: text}), DEFAULTS[variable][0]) == value


BAD = [
    ("SESSIONS_DIR", "~no-such-user/sessions"),
    ("PORT", "http"),
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("PORT", "9000.0"),
    ("PORT", "\u0669\u0660\u0660\u0660"),
    ("PORT", "9" * 5000),
    ("SESSIONS_HOST", "http://localhost"),
    ("SESSIONS_HOST", "localhost:9000"),
    ("SESSIONS_HOST", "a b"),
    ("SESSIONS_HOST", "[::1"),
    ("SESSIONS_HOST", "::1]x"),
    ("SESSIONS_HOST", "*"),
    ("SESSIONS_DURABILITY", "FULL"),
    ("SESSIONS_DURABILITY", "off"),
    ("SESSIONS_TOKEN", "short"),
    ("SESSIONS_READ_TOKEN", "with a space"),
    ("SESSIONS_INGEST_TOKEN", "schl\u00fcssel-1"),
    ("SESSIONS_TOKENS_DIR", "~no-such-user/tokens"),
    ("SESSIONS_AGENT_TOKEN_FILE", "~no-such-user/token"),
    ("SESSIONS_MAX_EVENT_BYTES", "1023"),
    ("SESSIONS_MAX_EVENT_BYTES", "1 MiB"),
    ("SESSIONS_MAX_BATCH_BYTES", "268435457"),
    ("SESSIONS_RETENTION_DAYS", "0"),
    ("SESSIONS_RETENTION_DAYS", "never"),
    ("SESSIONS_LOST_AFTER", "0"),
    ("SESSIONS_LOST_AFTER", "-5"),
    ("SESSIONS_LOST_AFTER", "nan"),
    ("SESSIONS_LOST_AFTER", "inf"),
    ("SESSIONS_LOST_AFTER", "15 minutes"),
    ("SESSIONS_ALLOWED_HOSTS", "session-storage:9000"),
    ("SESSIONS_ALLOWED_HOSTS", "good,http://session-storage"),
    ("SESSIONS_ALLOWED_HOSTS", "*"),
    ("SESSIONS_ALLOWED_HOSTS", "*.example.com"),
    ("SESSIONS_ALLOWED_ORIGINS", "*"),
    ("SESSIONS_ALLOWED_ORIGINS", "null"),
    *(("SESSIONS_UMASK", bad) for bad in ("77x", "8", "100", "0777", "-1", "off", "7")),
    ("SESSIONS_ALLOW_UNSAFE_FS", "yes"),
    *(("SESSIONS_VERIFY_EVERY", bad) for bad in ("0", "never", "1w")),
    ("SESSIONS_ALLOWED_ORIGINS", "localhost:3000"),
    ("SESSIONS_ALLOWED_ORIGINS", "http://localhost:3000/app"),
    ("SESSIONS_ALLOWED_ORIGINS", "http://*.example.com"),
    ("SESSIONS_AUTO_CREATE", "yes"),
    ("SESSIONS_AUTO_CREATE", "0"),
    ("SESSIONS_TREE", "yes"),
    ("SESSIONS_BACKUP_DIR", "~no-such-user/backups"),
    ("SESSIONS_BACKUP_EVERY", "0"),
    ("SESSIONS_BACKUP_EVERY", "0h"),
    ("SESSIONS_BACKUP_EVERY", "366d"),
    ("SESSIONS_BACKUP_EVERY", "1.5h"),
    ("SESSIONS_BACKUP_EVERY", "hourly"),
    ("SESSIONS_BACKUP_EVERY", "h"),
    ("SESSIONS_TLS_CERT", "~no-such-user/cert.pem"),
    ("SESSIONS_TLS_CERT", "/etc/cert.pem"),
    ("SESSIONS_TLS_KEY", "~no-such-user/key.pem"),
    ("SESSIONS_TRUSTED_PROXIES", "*"),
    ("SESSIONS_TRUSTED_PROXIES", "nginx"),
    ("SESSIONS_TRUSTED_PROXIES", "10.0.0.1/24"),
    ("SESSIONS_AGENT_TOKENS", "solver"),
    ("SESSIONS_USER_HEADER", "X User"),
    ("SESSIONS_USER_ROLES", "alice=ingest"),
    ("SESSIONS_MAX_REQUESTS", "0"),
    ("SESSIONS_MAX_REQUESTS", "1.5"),
    ("SESSIONS_MAX_CONNECTIONS", "0"),
    ("SESSIONS_MAX_CONNECTIONS", "off"),
    ("SESSIONS_MAX_LISTENERS", "-1"),
    ("SESSIONS_RETENTION_BYTES", "1023K"),
    ("SESSIONS_RETENTION_BYTES", "20 GB"),
    ("SESSIONS_ARCHIVE_DIR", "~no-such-user/archives"),
    ("SESSIONS_DISK_RESERVE", "-1"),
    ("SESSIONS_DISK_RESERVE", "2%"),
    ("SESSIONS_DISK_RESERVE", "9" * 5000),
    ("SESSIONS_LOG", "yaml"),
    ("SESSIONS_LOG_REQUESTS", "yes"),
    ("SESSIONS_REDACT", "yes"),
    ("SESSIONS_REDACT", "/nowhere/patterns"),
    ("SESSIONS_PRICES", "/nowhere/prices.json"),
    ("SESSIONS_BUDGETS", "/nowhere/budgets.toml"),
    ("SESSIONS_RULES", "/nowhere/rules.toml"),
    ("SESSIONS_MAX_MATERIAL", "1K"),
    ("SESSIONS_MATERIAL_DAYS", "0"),
    ("SESSIONS_REDACT_TRANSCRIPTS", "yes"),
    ("SESSIONS_MAX_MATERIAL", "1G,"),
    ("SESSIONS_WEBHOOKS", "/nowhere/webhooks.json"),
    ("SESSIONS_FLEET", "/nowhere/fleet.toml"),
    ("SESSIONS_PUBLIC_URL", "sessions.example.com"),
    ("SESSIONS_PUBLIC_URL", "https://me:secret@example.com"),
    *(
        ("SESSIONS_LAKE", bad)
        for bad in ("/mnt/lake", "file://lake", "https://bucket", "s3://key:secret@bucket", "s3://b?x")
    ),
    *(("SESSIONS_SHARD", bad) for bad in ("-a", "a b", "a..b", "a/b", "x" * 129)),
    ("SESSIONS_LAKE_EVERY", "off"),
    ("SESSIONS_LAKE_DAYS", "0"),
    ("SESSIONS_ACK", "bucket"),
    ("SESSIONS_ACK", "both"),
]


@pytest.mark.parametrize(("variable", "text"), BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_setting(variable: str, text: str) -> None:
    with pytest.raises(BadSetting, match=f"^{variable}[=:,]") as error:
        read_settings({variable: text})
    assert len(str(error.value)) > len(f"{variable}={text!r}: ") or "TOKEN" in variable


def test_every_setting_that_can_be_bad_is_tried() -> None:
    assert {variable for variable, _ in BAD} == {"SESSIONS_DIR", *DEFAULTS}


@pytest.mark.parametrize("text", ["sh0rt", "s3cret with a space", "s3cret-\u00fc-and-more"])
def test_a_bad_token_is_not_shown(text: str) -> None:
    with pytest.raises(BadSetting) as error:
        read_settings({"SESSIONS_TOKEN": text})
    assert text not in str(error.value)
    assert "8 or more printable ASCII characters" in str(error.value)


def test_two_roles_may_not_have_one_token() -> None:
    same = {"SESSIONS_READ_TOKEN": "the-same-token", "SESSIONS_TOKEN": "the-same-token"}
    with pytest.raises(BadSetting, match=r"^SESSIONS_TOKEN, SESSIONS_READ_TOKEN.*same token") as error:
        read_settings(same)
    assert "the-same-token" not in str(error.value)
    assert read_settings(same | {"SESSIONS_TOKEN": "another-token"}).read_token == "the-same-token"


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("session-storage", False),
        ("localhost.example.com", False),
    ],
)
def test_an_address_is_loopback_only_if_no_other_machine_reaches_it(host: str, is_loopback: bool) -> None:
    assert read_settings({"SESSIONS_HOST": host}).is_loopback == is_loopback


# -------------------------------------------------------------------- the start


def start(env: dict[str, str], folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """Start the appliance where it is expected to end by itself: what it said, and after how many seconds."""
    begun = time.monotonic()
    ended = run(folder, ["app.py"], {"PORT": "0", **env})
    return ended, time.monotonic() - begun


@pytest.mark.parametrize(
    ("variable", "text"),
    [("PORT", "http"), ("SESSIONS_TOKEN", "s3cret with a space"), ("SESSIONS_ALLOWED_ORIGINS", "*")],
)
def test_a_bad_value_stops_the_start_before_anything_is_made(variable: str, text: str, folder: Path) -> None:
    ended, seconds = start({variable: text}, folder)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"session store: {variable}")
    assert len(ended.stderr.splitlines()) == 1
    assert "s3cret" not in ended.stderr
    assert seconds < 15
    assert not folder.exists()


def test_what_only_the_machine_can_refuse_is_named_as_well(tmp_path: Path, appliance: Appliance) -> None:
    """With good words for a folder that cannot be, and for an address, a port or a token folder that cannot be had."""
    a_file = tmp_path / "file"
    a_file.touch()
    for number, (env, names) in enumerate(
        [
            ({"SESSIONS_DIR": str(a_file / "sessions")}, ["SESSIONS_DIR", str(a_file)]),
            (
                {"SESSIONS_HOST": "192.0.2.1", "SESSIONS_TOKEN": "long-enough-for-anybody"},
                ["SESSIONS_HOST", "192.0.2.1"],
            ),
            ({"PORT": str(appliance.port)}, ["PORT", str(appliance.port)]),
            ({"SESSIONS_HOST": "0.0.0.0", "SESSIONS_TOKENS_DIR": str(a_file)}, ["SESSIONS_TOKENS_DIR", str(a_file)]),
            (
                {
                    "SESSIONS_INGEST_TOKEN": "long-enough-for-anybody",
                    "SESSIONS_AGENT_TOKEN_FILE": str(a_file / "token"),
                },
                ["SESSIONS_AGENT_TOKEN_FILE", str(a_file)],
            ),
        ]
    ):
        ended, _ = start(env, tmp_path / f"sessions-{number}")
        assert ended.returncode == 1, env
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
        assert all(name in ended.stderr for name in names), ended.stderr


def test_good_values_start_it(folder: Path) -> None:
    env = {
        "SESSIONS_HOST": "localhost",
        "SESSIONS_DURABILITY": "normal",
        "SESSIONS_TOKEN": "long-enough-for-anybody",
        "SESSIONS_MAX_EVENT_BYTES": "2048",
        "SESSIONS_ALLOWED_HOSTS": "session-storage",
        "SESSIONS_AUTO_CREATE": "off",
    }
    with Appliance(folder, env) as server:
        assert server.said("by the tokens that are set")
        assert server.said(f"Data           {folder}")
        assert server.stop().code == 0
    assert (folder / "sessions.db").exists()
