"""`python -m export lake COMMAND`: what people do with a lake, beside the server or without one."""

from __future__ import annotations

import re
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
from deltalake.exceptions import DeltaError

from export.layout import Step, open_reader
from lake import bucket, checking, keeping
from lake.back import NotInLake, restore
from lake.bucket import BucketAway, BucketRefused
from lake.columns import EVENTS
from lake.forgetting import erase as erase_sessions
from lake.forgetting import forget
from lake.rewriting import WHOLE, again, shards_of
from lake.scrubbing import follow
from lake.sealer import Sealer
from lake.table import Displaced, open_table, sealed_cursor
from sessionstore import EXPORT
from sessionstore.model.events import ID_PATTERN
from sessionstore.settings import BadSetting, Settings, read_settings
from sessionstore.store.owner import CannotStart, own_folder
from sessionstore.store.shard import kept_shard
from sessionstore.text import for_people


class Failed(click.ClickException):
    """What could not be done; said as all commands of `python -m export` say it."""

    def show(self, file: Any = None) -> None:
        print(f"export: {for_people(self.format_message())}", file=file or sys.stderr)


class LakeGroup(click.Group):
    """Its commands end with a sentence and 1 where the bucket or the database does not do what they need."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BucketAway, BucketRefused, Displaced, DeltaError, CannotStart, sqlite3.Error, OSError) as error:
            raise Failed(str(error)) from None
        except BadSetting as error:
            raise click.UsageError(str(error)) from None


class ShardPlace(NamedTuple):
    """A store, and its lake."""

    database: Path
    url: str
    shard: str


def url_of_lake() -> str:
    if (url := read_settings().lake) is None:
        raise click.UsageError("There is no lake: name it with SESSIONS_LAKE")
    return url


def place_of(folder: Path | None) -> ShardPlace:
    """Of the store in a folder, that of SESSIONS_DIR if none is named."""
    url, settings = url_of_lake(), read_settings()
    database = (folder or settings.directory) / "sessions.db"
    if not database.exists():
        raise Failed(f"There is no database {database}: name the store's folder with SESSIONS_DIR, or --dir")
    with closing(open_reader(database)) as connection:
        kept = kept_shard(connection)
    if kept is None and settings.shard is None:
        raise Failed("This store has no name in a lake yet: start its server once with SESSIONS_LAKE")
    return ShardPlace(database, url, kept.name if kept else settings.shard or "")


def sealed_in_lake(settings: Settings) -> int | None:
    """Up to which cursor the store's events are in its lake; None: it has none. Raises what deltalake says."""
    if settings.lake is None:
        return None
    with closing(open_reader(settings.database)) as database:
        kept = kept_shard(database)
    return sealed_cursor(open_table(f"{settings.lake}/events", EVENTS, ["day", "shard"]), kept.name) if kept else 0


FOLDER = click.Option(
    ["--dir", "folder"],
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="the store's folder (default: SESSIONS_DIR)",
)


@click.group(cls=LakeGroup)
def lake() -> None:
    """The lake that SESSIONS_LAKE names, of which the store in a folder is one shard."""


def status(folder: Path | None) -> None:
    """Say how far the lake is sealed, and what it does not have yet."""
    place = place_of(folder)
    sealed = Sealer(place.database, place.url, place.shard).sealed()
    with closing(open_reader(place.database)) as database:
        row = database.execute("SELECT count(*), min(received_at) FROM events WHERE cursor > ?", (sealed,)).fetchone()
    left = f"{row[0]:,} events are not, the oldest of {row[1]}" if row[0] else "that is all"
    print(f"{place.url} has {place.shard} up to cursor {sealed}: {left}")


def seal(folder: Path | None) -> None:
    """Seal what is not in the lake yet, while the server is stopped: one that runs does it by itself."""
    place = place_of(folder)
    own_folder(place.database.parent)
    sealer = Sealer(place.database, place.url, place.shard)
    while (upto := sealer.seal()) is not None:
        print(f"{place.shard} is sealed up to cursor {upto}")
    print(f"{place.url} has all of {place.shard}")


def erase(folder: Path | None, session: str | None, shard: str | None) -> None:
    """Take out of the lake now what was deleted and scrubbed in this store, which its server does by itself.

    With --session a session that no store has any more, of one shard, or of all that have it. Until it is gone from the
    bucket, too, a day passes, and `lake compact`, or the next server to do so.
    """
    if session is None:
        place = place_of(folder)
        Sealer(*place).sealed()
        scrubs, rows = follow(place.database, place.url, place.shard), forget(place.url, place.shard)
        print(f"{rows:,} rows of deleted sessions are erased, {scrubs:,} scrubs followed")
        return
    if not re.fullmatch(ID_PATTERN, session):
        raise click.UsageError("--session takes the id of a session")
    check_deleted(folder, session)
    url = url_of_lake()
    names = [shard] if shard else shards_of(url)
    gone = {name: again(partial(erase_of, url, name, session)) for name in names}
    if not any(gone.values()):
        raise Failed(f"{url} has nothing of {session}")
    for name, rows in gone.items():
        if rows:
            print(f"{name}: {rows:,} rows are erased")


def erase_of(url: str, shard: str, session: str) -> int:
    return erase_sessions(url, shard, {session: WHOLE})[1]


def check_deleted(folder: Path | None, session: str) -> None:
    """A store that has it would seal more of it. Raises Failed."""
    database = (folder or read_settings().directory) / "sessions.db"
    if database.exists():
        with closing(open_reader(database)) as connection:
            if connection.execute("SELECT 1 FROM sessions WHERE session_id = ?", (session,)).fetchone():
                raise Failed(f"The store in {database.parent} has {session}: delete it there, and the lake follows")


def compact(shard: str | None, megabytes: int) -> None:
    """Make large files of small ones, and remove for good what was replaced more than a day ago, with the log of it.

    Servers do that for their own shards by themselves.
    """
    url = url_of_lake()
    fewer = keeping.compact(url, shard, megabytes << 20)
    removed = keeping.clean(url)
    print(f"{url} has {fewer:,} files less to read; {removed:,} that nobody reads any more are removed")


def check(folder: Path | None) -> None:
    """Compare what this store has sealed with its database: each event once, byte for byte.

    Says also what waits to be erased, and whether the bucket keeps versions of what is removed.
    """
    place = place_of(folder)
    found = checking.check(*place, keeping.first_day(read_settings().lake_days))
    for said in found.faults + found.notes:
        print(for_people(said))
    if found.faults:
        raise Failed(f"{place.url} is not what {place.database} has")
    print(
        f"{place.url} has {place.shard} up to cursor {found.sealed}: {found.events:,} events compared, each there once"
    )


SESSION = click.Option(["--session"], metavar="ID", help="a session that no store has")
SHARD = click.Option(["--shard"], metavar="NAME", help="of this one alone")
MEGABYTES = click.Option(
    ["--megabytes"],
    type=click.IntRange(1, 1024),
    default=keeping.FILE_BYTES >> 20,
    show_default=True,
    metavar="N",
    help="how large files may become; to erase from one takes seven times as much memory",
)

COMMANDS: tuple[tuple[Callable[..., None], list[click.Parameter]], ...] = (
    (status, [FOLDER]),
    (seal, [FOLDER]),
    (erase, [FOLDER, SESSION, SHARD]),
    (compact, [SHARD, MEGABYTES]),
    (check, [FOLDER]),
)
for command, parameters in COMMANDS:
    lake.add_command(click.Command(command.__name__, callback=command, params=parameters, help=command.__doc__))


def bring_back(options: SimpleNamespace, into: Path, step: Step) -> int:
    """`python -m export restore s3://…`; 1 where something was odd."""
    (url,) = options.sources
    try:
        restored, origin = restore(
            url,
            into,
            options.shard or read_settings().shard,
            is_forced=options.force,
            is_newer=options.newer,
            is_open=options.open,
            step=step,
        )
    except (NotInLake, DeltaError) as error:
        raise Failed(str(error)) from None
    for odd in restored.odd:
        print(for_people(odd))
    print(
        f"{restored.events} events are in {into / 'sessions.db'}: {origin.shard}, which was sealed up to cursor"
        f" {origin.sealed}" + f", and acknowledged up to {origin.newest}" * (origin.newest > origin.sealed)
    )
    if options.open:
        print(THE_REST.format(url=url))
    return 1 if restored.odd else 0


THE_REST = (
    "They are of the sessions that had not ended: start the server. The rest is still in the lake: "
    f"`{EXPORT} restore "
    "{url} --into ANOTHER` brings all back while it runs; then stop it, which seals what is "
    f"left, `{EXPORT} restore "
    "{url} --newer --into ANOTHER`, and start it with that folder"
)


@contextmanager
def place_for_a_drill(url: str) -> Iterator[str]:
    """An empty place below a URL, of which nothing is left."""
    name = f"drill-{secrets.token_hex(6)}"
    try:
        with bucket.told_of(url):
            whole = bucket.open_bucket(url)
            bucket.remove(whole, name)  # nothing: whether it can be reached
        try:
            yield f"{url}/{name}"
        finally:
            with bucket.told_of(url):
                bucket.remove(whole, name)
    except (bucket.BucketRefused, bucket.BucketAway) as error:
        raise Failed(str(error)) from None
