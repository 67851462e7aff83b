"""Settings from environment variables, each declared once. A bad value stops the start and is named."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import msgspec

from hook_agent import own_patterns as patterns
from sessionstore.breaker_rules import Rule, rules
from sessionstore.budget_rules import Budget, budgets
from sessionstore.prices import Own, own_prices
from sessionstore.webhook_targets import Target, targets


class BadSetting(ValueError):
    """A setting that cannot be used; the message names it and says what it takes."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Setting(NamedTuple):
    """One environment variable: how its text is read, and what it means."""

    variable: str
    read: Callable[[str], Any]
    meaning: str


def is_loopback_name(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that comes in the clothes of IPv6 is an IPv4 address. Raises ValueError."""
    address = ipaddress.ip_address(text)
    return (address.ipv4_mapped or address) if address.version == 6 else address


# ------------------------------------------------------------- how text is read


def default_folder() -> Path:
    usual = Path("/var/claude-sessions")
    place = usual if usual.exists() else usual.parent
    return usual if os.access(place, os.W_OK | os.X_OK) else Path("claude-sessions").absolute()


def path_of(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("there is no such user") from None


def whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"must be a whole number from {low} to {high}")

    return read


def whole_or_off(low: int, high: int) -> Callable[[str], int | None]:
    return lambda text: None if text == "off" else whole(low, high)(text)


def days(text: str) -> int | None:
    return None if text == "off" else whole(1, 36_500)(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0.1 <= value <= 31_536_000:
        return value
    raise ValueError("must be a number of seconds from 0.1 to 31536000")


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def interval(text: str) -> float:
    """Seconds, or a number with its unit."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    if number.isascii() and number.isdigit() and 1 <= int(number) * UNITS[unit] <= 31_536_000:
        return int(number) * UNITS[unit]
    raise ValueError("must be a whole number of seconds, or one such as 15m, 1h, 1d, from 1 second to 365 days")


def interval_or_off(text: str) -> float | None:
    return None if text == "off" else interval(text)


SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}


def size(low: int) -> Callable[[str], int]:
    """Bytes, or a number with its unit: `64M` is 64 MiB."""

    def read(text: str) -> int:
        number, shift = (text[:-1], SIZES[text[-1]]) if text[-1:] in SIZES else (text, 0)
        if number.isascii() and number.isdigit() and low <= int(number) << shift <= 1 << 60:
            return int(number) << shift
        raise ValueError(f"must be a whole number of bytes, or one such as 64M, 2G, and at least {low}")

    return read


def optional_size(low: int, none: str) -> Callable[[str], int | None]:
    return lambda text: None if text == none else size(low)(text)


def two_sizes(text: str) -> tuple[int, int | None]:
    """One, or two with a comma."""
    one, comma, all_together = text.partition(",")
    return size(1 << 20)(one.strip()), size(1 << 20)(all_together.strip()) if comma else None


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"must be one of {', '.join(choices)}")

    return read


def switch(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def flag(text: str) -> bool:
    return one_of("1", "0")(text) == "1"


def umask_of(text: str) -> int:
    """What the owner may is not taken away: the server is the owner."""
    if re.fullmatch(r"0?0?[0-7]{2}", text):
        return int(text, 8)
    raise ValueError("must be an octal number from 000 to 077, such as 027")


def secret(text: str) -> str:
    if len(text) >= 8 and text.isascii() and text.isprintable() and " " not in text:
        return text
    raise ValueError("must be 8 or more printable ASCII characters without spaces")


HOST = r"[a-z0-9](?:[a-z0-9._-]{0,252})"
ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://(?:{HOST}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")
USUAL_PORTS = {"http": ":80", "https": ":443"}


def host_name(text: str) -> str:
    """A name, or an address of either kind, an IPv6 one with brackets or without."""
    name = text.lower()
    if re.fullmatch(HOST, name):
        return name
    try:
        return str(ipaddress.IPv6Address(re.sub(r"^\[(.*)]$", r"\1", name)))
    except ValueError:
        raise ValueError("must be a name or an address, without scheme and port") from None


def hosts(text: str) -> frozenset[str]:
    return frozenset(host_name(name) for name in items(text))


def origins(text: str) -> frozenset[str]:
    return frozenset(origin(name) for name in items(text))


def origin(text: str) -> str:
    """As a browser says it: in lower case, without the port that its scheme has anyway."""
    match = ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None:
        raise ValueError("must be origins such as https://example.com or http://localhost:3000")
    return match[0].removesuffix(USUAL_PORTS.get(match[1], " "))


def networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(item) for item in items(text))
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.5 or 10.0.0.0/24") from None


def url(text: str) -> str:
    if re.fullmatch(r"https?://[^\s@?#\x00-\x1f]+", text):
        return text.rstrip("/")
    raise ValueError("must be an http or https URL without user, query and fragment")


def lake_url(text: str) -> str:
    if re.fullmatch(r"(s3|gs|az)://[a-z0-9][a-z0-9._-]{1,62}(/[^\s?#\x00-\x1f]*)?|file:///[^\s?#\x00-\x1f]*", text):
        return text.rstrip("/")
    raise ValueError("must be a URL such as s3://BUCKET/PREFIX, gs://…, az://… or file:///FOLDER")


def shard_name(text: str) -> str:
    if re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text):
        return text
    raise ValueError("must be 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit, without `..`")


def prices_in(text: str) -> Own:
    """The prices in a file."""
    try:
        return own_prices(path_of(text).read_text())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


def header_names(text: str) -> tuple[bytes, ...]:
    """That of the user, and after a comma, where a proxy says them, that of his groups."""
    names = items(text.lower())
    if all(re.fullmatch(r"[a-z0-9-]{1,64}", name) for name in names) and 1 <= len(names) <= 2:
        return tuple(name.encode() for name in names)
    raise ValueError("must be the name of a header, and at most one more for groups, such as X-User,X-Groups")


def agents(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of the name of a token and the user whose sessions it has."""
    pairs = tuple((name.strip(), user.strip()) for name, _, user in (item.partition("=") for item in items(text)))
    names = {name for name, _ in pairs}
    is_right = all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) and user for name, user in pairs)
    if is_right and len(names) == len(pairs) and names.isdisjoint(("admin", "control", "read", "ingest", "store")):
        return pairs
    raise ValueError(
        "must be such as solver=alice,builder=bob: names of tokens, each once and none of a role, and users"
    )


def user_roles(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a name, of a user or group, and its role; `*` is everybody."""
    pairs = tuple((name.strip(), role.strip()) for name, _, role in (item.rpartition("=") for item in items(text)))
    if all(name and role in ("admin", "control", "read") for name, role in pairs):
        return pairs
    raise ValueError("must be such as alice=admin,oncall=control,*=read; the roles are admin, control and read")


def fleet(text: str) -> tuple[Any, ...]:
    """Whoever has none does without the code for one."""
    from sessionstore.shards import shards

    return shards(text)


def items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


# ---------------------------------------------------------------- the settings


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this appliance runs: each field with its variable, how that is read, what it means, and its default."""

    # fmt: off
    directory: Annotated[Path, Setting("SESSIONS_DIR", path_of, "Folder of the database and all else; "
        "/var/claude-sessions where that can be written, else "
        "./claude-sessions")] = msgspec.field(default_factory=default_folder)
    port: Annotated[int, Setting("PORT", whole(0, 65535), "TCP port; 0 takes a free one")] = 9000
    host: Annotated[str, Setting("SESSIONS_HOST", host_name, "Address to listen on. Any but a loopback address needs "
        "tokens")] = "127.0.0.1"
    durability: Annotated[str, Setting("SESSIONS_DURABILITY", one_of("full", "normal"), "full: what was answered 2xx "
        "outlives a power cut; normal: it outlives a crash of the process")] = "full"
    admin_token: Annotated[str | None, Setting("SESSIONS_TOKEN", secret, "Token of the role admin")] = None
    read_token: Annotated[str | None, Setting("SESSIONS_READ_TOKEN", secret, "Token of the role read")] = None
    ingest_token: Annotated[str | None, Setting("SESSIONS_INGEST_TOKEN", secret, "Token of the role ingest")] = None
    tokens_directory: Annotated[Path | None, Setting("SESSIONS_TOKENS_DIR", path_of, "Where tokens that the "
        "server makes are written; SESSIONS_DIR/tokens")] = None
    agent_token_file: Annotated[Path | None, Setting("SESSIONS_AGENT_TOKEN_FILE", path_of, "File into which "
        "the token of the role ingest is copied at the start, for every user to read: agents in other "
        "containers")] = None
    agent_tokens: Annotated[tuple[tuple[str, str], ...], Setting("SESSIONS_AGENT_TOKENS", agents, "Tokens of the role "
        "ingest, by name, each bound to a user, such as solver=alice: made at the first start, each in a folder of its "
        "name beside SESSIONS_AGENT_TOKEN_FILE, as NAME/token")] = ()
    max_event_bytes: Annotated[int, Setting("SESSIONS_MAX_EVENT_BYTES", whole(1024, 1 << 26), "Largest single "
        "event")] = 1 << 20
    max_batch_bytes: Annotated[int, Setting("SESSIONS_MAX_BATCH_BYTES", whole(1024, 1 << 28), "Largest batch of "
        "events")] = 32 << 20
    lost_after: Annotated[float, Setting("SESSIONS_LOST_AFTER", seconds, "Seconds without a word after which an active "
        "session is lost")] = 900.0
    retention_days: Annotated[int | None, Setting("SESSIONS_RETENTION_DAYS", days, "Days after their last change after "
        "which sessions that have ended are deleted; off: never")] = None
    retention_bytes: Annotated[int | None, Setting("SESSIONS_RETENTION_BYTES", optional_size(1 << 20, "off"),
        "Size of the database above which the sessions that have ended and have not changed for longest are deleted, "
        "such as 20G; off: never")] = None
    archive_directory: Annotated[Path | None, Setting("SESSIONS_ARCHIVE_DIR", path_of, "Folder into which a "
        "session is archived, and read back, before retention deletes it; best on another disk")] = None
    allowed_hosts: Annotated[frozenset[str], Setting("SESSIONS_ALLOWED_HOSTS", hosts, "Comma-separated names to answer "
        "to as Host, besides loopback names")] = frozenset()
    allowed_origins: Annotated[frozenset[str], Setting("SESSIONS_ALLOWED_ORIGINS", origins, "Comma-separated origins, "
        "besides the server's own, whose pages may use the API")] = frozenset()
    auto_create: Annotated[bool, Setting("SESSIONS_AUTO_CREATE", switch, "on: the first word of an unknown session "
        "creates it; off: 404")] = True
    tree: Annotated[bool, Setting("SESSIONS_TREE", switch, "on: the file tree beside the database follows it; off: it "
        "is written only when told (python -m export tree)")] = True
    backup_directory: Annotated[Path | None, Setting("SESSIONS_BACKUP_DIR", path_of, "Folder into which the "
        "server copies its database; best on another disk. None: it makes no backups")] = None
    backup_every: Annotated[float, Setting("SESSIONS_BACKUP_EVERY", interval, "How often it does so: seconds, or such "
        "as 15m, 1h, 1d")] = 3600.0
    verify_every: Annotated[float | None, Setting("SESSIONS_VERIFY_EVERY", interval_or_off, "How often the server "
        "compares its database with itself and with the file tree; off: never")] = 86_400.0
    disk_reserve: Annotated[int | None, Setting("SESSIONS_DISK_RESERVE", optional_size(0, "auto"), "Free bytes of the "
        "disk below which writes are refused; auto: 64 MiB, or 2 % of a small disk")] = None
    umask: Annotated[int, Setting("SESSIONS_UMASK", umask_of, "What other users may not, octal, of all that is "
        "written: 077, nothing; 027 leaves its group the right to read, for a backup job")] = 0o077
    allows_unsafe: Annotated[bool, Setting("SESSIONS_ALLOW_UNSAFE_FS", flag, "1: a file system that other machines "
        "share is taken for SESSIONS_DIR, with a warning")] = False
    log: Annotated[str, Setting("SESSIONS_LOG", one_of("text", "json"), "How the server logs: text, to stderr, for "
        "people; json, to stdout, one object a line")] = "text"
    log_requests: Annotated[bool, Setting("SESSIONS_LOG_REQUESTS", switch, "on: every request is logged, without body, "
        "token and query")] = False
    tls_certificate: Annotated[Path | None, Setting("SESSIONS_TLS_CERT", path_of, "File of the certificate "
        "chain, PEM; with it the server speaks HTTPS alone")] = None
    tls_key: Annotated[Path | None, Setting("SESSIONS_TLS_KEY", path_of, "File of its private key, PEM, "
        "without a passphrase")] = None
    trusted_proxies: Annotated[tuple[Network, ...], Setting("SESSIONS_TRUSTED_PROXIES", networks, "Comma-separated "
        "addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; with one tokens "
        "are needed")] = ()
    user_header: Annotated[tuple[bytes, ...], Setting("SESSIONS_USER_HEADER", header_names, "Header in which a "
        "trusted proxy says who its user is, and after a comma that of his groups; with it tokens are needed")] = ()
    user_roles: Annotated[tuple[tuple[str, str], ...], Setting("SESSIONS_USER_ROLES", user_roles, "What they may: "
        "names or groups, or * for everybody, and their roles, such as alice=admin,oncall=control,*=read")] = ()
    max_requests: Annotated[int | None, Setting("SESSIONS_MAX_REQUESTS", whole_or_off(1, 1_000_000),
        "Requests a second with one token; off: any number")] = None
    max_connections: Annotated[int, Setting("SESSIONS_MAX_CONNECTIONS", whole(1, 1_000_000), "Connections of one "
        "address")] = 1024
    max_listeners: Annotated[int, Setting("SESSIONS_MAX_LISTENERS", whole(0, 1_000_000), "WebSockets and event streams "
        "together")] = 1000
    own_patterns: Annotated[tuple[tuple[str, str], ...] | None, Setting("SESSIONS_REDACT", patterns,
        "on: keys, tokens and passwords are taken out before anything is stored; off; or a file of further patterns, "
        "one a line")] = ()
    prices: Annotated[Own, Setting("SESSIONS_PRICES", prices_in, "File, JSON, of own prices by model, in US dollars "
        "for a million tokens")] = msgspec.field(default_factory=dict)
    budgets: Annotated[tuple[Budget, ...], Setting("SESSIONS_BUDGETS", budgets, "File, TOML, of budgets: how much may "
        "be used before somebody is told")] = ()
    rules: Annotated[tuple[Rule, ...], Setting("SESSIONS_RULES", rules, "File, TOML, of rules: when an agent that goes "
        "wrong is asked about, paused or stopped")] = ()
    redacts_transcripts: Annotated[bool, Setting("SESSIONS_REDACT_TRANSCRIPTS", switch, "on: they are taken out of "
        "the lines of conversations as well, but for what is signed; off: these stay as they came")] = True
    max_material: Annotated[tuple[int, int | None], Setting("SESSIONS_MAX_MATERIAL", two_sizes, "Bytes on disk that "
        "the material of one session may take, and all of it together, such as 1G or 1G,50G; in all a quarter of the "
        "disk, if not said")] = (1 << 30, None)
    material_days: Annotated[int | None, Setting("SESSIONS_MATERIAL_DAYS", days, "Days after its last change after "
        "which material goes that belongs to no session; off: never")] = 30
    webhooks: Annotated[tuple[Target, ...], Setting("SESSIONS_WEBHOOKS", targets, "File, JSON or TOML, that says who "
        "is told, by webhook or messenger, of sessions that wait, fail or are lost")] = ()
    public_url: Annotated[str | None, Setting("SESSIONS_PUBLIC_URL", url, "Where people find the dashboard, for links "
        "in what webhooks tell")] = None
    fleet: Annotated[tuple[Any, ...], Setting("SESSIONS_FLEET", fleet, "File, TOML, of other appliances: their names, "
        "URLs and files of tokens. /fleet shows them together")] = ()
    lake: Annotated[str | None, Setting("SESSIONS_LAKE", lake_url, "Where the lake is that every event is sealed into: "
        "s3://BUCKET/PREFIX, gs://, az:// or file://; credentials come from the usual environment or role")] = None
    shard: Annotated[str | None, Setting("SESSIONS_SHARD", shard_name, "This store's name in the lake; made once, if "
        "not said, and kept in the database")] = None
    lake_every: Annotated[float, Setting("SESSIONS_LAKE_EVERY", interval, "How old an event may become before it is "
        "sealed: seconds, or such as 5m, 1h; many are sealed sooner")] = 300.0
    lake_days: Annotated[int | None, Setting("SESSIONS_LAKE_DAYS", days, "Days that the lake keeps, whole days are "
        "dropped from it; off: all")] = None
    ack: Annotated[str, Setting("SESSIONS_ACK", one_of("disk", "bucket"), "When a write is answered, and shown: disk, "
        "once that has it; bucket: once the bucket of the lake has it, too")] = "disk"
    # fmt: on

    @property
    def database(self) -> Path:
        return self.directory / "sessions.db"

    @property
    def is_loopback(self) -> bool:
        return is_loopback_name(self.host)

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the server, and no proxy brings others."""
        return self.is_loopback and not self.trusted_proxies


TABLE: dict[str, Setting] = {
    field: hint.__metadata__[0] for field, hint in get_type_hints(Settings, include_extras=True).items()
}
"""Every setting, by the field that it fills."""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises BadSetting."""
    values = {}
    for field, setting in TABLE.items():
        if text := environment.get(setting.variable, "").strip():
            try:
                values[field] = setting.read(text)
            except ValueError as error:
                said = "" if setting.read is secret else f"={text!r}"  # a token, good or bad, is shown nowhere
                raise BadSetting(f"{setting.variable}{said}: {error}") from None
    settings = Settings(**values)
    check_tokens_differ(settings)
    if settings.agent_tokens and not settings.agent_token_file:
        raise BadSetting("SESSIONS_AGENT_TOKENS needs SESSIONS_AGENT_TOKEN_FILE")
    if settings.user_header and not (settings.trusted_proxies and settings.user_roles):
        raise BadSetting("SESSIONS_USER_HEADER needs SESSIONS_TRUSTED_PROXIES and SESSIONS_USER_ROLES")
    if settings.ack == "bucket" and settings.lake is None:
        raise BadSetting("SESSIONS_ACK=bucket needs SESSIONS_LAKE")
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise BadSetting("SESSIONS_TLS_CERT, SESSIONS_TLS_KEY: the one needs the other")
    return settings


def check_tokens_differ(settings: Settings) -> None:
    tokens = [token for token in (settings.admin_token, settings.read_token, settings.ingest_token) if token]
    if len(set(tokens)) < len(tokens):
        raise BadSetting("SESSIONS_TOKEN, SESSIONS_READ_TOKEN, SESSIONS_INGEST_TOKEN: two roles have the same token")
