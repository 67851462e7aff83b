"""`python -m export COMMAND`: the commands, what they are told, and what they say."""

from __future__ import annotations

import getpass
import os
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import click
import msgspec

from export import archive, backup, drilled, layout
from export.folders import open_folder
from export.tree import Tree, TreeAhead, TreeBusy, progress_of
from export.verify import Verification
from sessionstore import EXPORT
from sessionstore.admin import compact, drill, importing, loss, move, offline, prune, recovery, reprice, scrub, served
from sessionstore.admin.restore import NotEmpty, restore
from sessionstore.model.events import utc
from sessionstore.model.lines import longest_line
from sessionstore.model.problems import Problem
from sessionstore.settings import BadSetting, Settings, read_settings
from sessionstore.store.integrity import check_integrity
from sessionstore.store.material import stamp_of
from sessionstore.store.owner import CannotStart
from sessionstore.text import for_people

DONE, FOUND, WRONG = 0, 1, 2
"""Exit codes: done; something is amiss, or could not be done; used wrongly."""
POLL_SECONDS = 0.05
PATIENCE = 30.0
"""Seconds after which a server whose tree does not come any further is not waited for."""


class NoStore(Exception):
    """There is nothing in the folder that was named. The message says how to name another."""


class WrongUse(Exception):
    """The command cannot be meant so. The message says why."""


# ---------------------------------------------------------------- what is said


@contextmanager
def progress(noun: str) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, which is told how many are done, and of how many (0: nobody knows); elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total=0: None
        return
    with click.progressbar(length=0, label=noun, show_pos=True, file=sys.stderr) as bar:

        def step(done: int, total: int = 0) -> None:
            bar.length = total or None
            bar.update(done - bar.pos)

        yield step


def say(text: str) -> None:
    """In the place of the progress that is shown, if any is."""
    print(f"\r\033[K{for_people(text)}" if sys.stderr.isatty() else for_people(text), file=sys.stderr)


# ---------------------------------------------------------------------- commands


def write_tree(options: SimpleNamespace) -> int:
    """Write the file tree, or bring one that is there up to the database.

    Everything that is there is compared, and written anew where it is not as it should be; what is in the way is put
    into `set-aside`. Where a server keeps the tree, this waits until it has caught up.
    """
    folder: Path = options.to or options.dir
    with closing(reader_of(options.dir)) as database:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            tree = Tree(folder, say)
        except TreeBusy:
            return wait_for_tree(database, folder)
        with closing(tree), progress("sessions") as step:
            tree.rebuild(database, step)
    print(f"The tree in {folder} is at cursor {tree.cursor}")
    return FOUND if tree.skipped else DONE


def wait_for_tree(database: sqlite3.Connection, folder: Path) -> int:
    """Until the server that keeps it has come to where the database is now, or does not come any further."""
    with layout.snapshot(database) as head:
        pass
    cursor, moved_at = -1, time.monotonic()
    with open_folder(folder) as root:
        while cursor < head and time.monotonic() < moved_at + PATIENCE:
            found = progress_of(root)
            if found and found.cursor > cursor:
                cursor, moved_at = found.cursor, time.monotonic()
            time.sleep(POLL_SECONDS)
    print(f"The server keeps the tree in {folder}: it is at cursor {cursor}")
    return DONE if cursor >= head else FOUND


def verify_tree(options: SimpleNamespace) -> int:
    """Compare the file tree with the database, and say by file where they differ.

    Before that SQLite looks at every page of the database; with --no-tree that is all. What has not changed since it
    was last found right is not read again, except with --full. A tree that a running server keeps may be a little
    behind: that is no difference. What a --full comparison has found is noted beside the database, for the metrics of
    its server, which makes one of its own once a day.
    """
    begun = time.monotonic()
    with closing(reader_of(options.dir)) as database:
        found = faults_of(database)
        if not found and not options.no_tree:
            found = compared(database, options)
    if options.full and options.tree is None:
        first = found[0] if found else ""
        drilled.keep(drilled.Compared(datetime.now(UTC), len(found), first, time.monotonic() - begun), options.dir)
    return FOUND if found else DONE


def compared(database: sqlite3.Connection, options: SimpleNamespace) -> list[str]:
    """The differences of the tree, said as they are found."""
    with open_folder(options.tree or options.dir) as root, progress("sessions") as step:
        found = Verification(database, root, is_full=options.full).run(step)
    differences = [str(difference) for difference in found.differences]
    for difference in differences:
        print(for_people(difference))
    print(
        f"{len(differences)} differences in {found.sessions} sessions"
        + (f", of which {found.unchanged} have not changed since they were last found right" if found.unchanged else "")
        + (f"; of {found.moving}, which are being written to, only the logs were compared" if found.moving else "")
    )
    return differences


def faults_of(database: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the database, said as it is found."""
    try:
        found = [fault for (fault,) in database.execute("PRAGMA integrity_check(10)") if fault != "ok"]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        found = [str(error)]
    for fault in found:
        print(f"sessions.db: {fault}")
    return [f"sessions.db: {fault}" for fault in found]


def reader_of(folder: Path) -> sqlite3.Connection:
    """Raises NoStore where there is none to read."""
    path = folder / "sessions.db"
    if not path.exists():
        raise NoStore(f"There is no database {path}: name the store's folder with SESSIONS_DIR, or --dir")
    try:
        return layout.open_reader(path)
    except sqlite3.Error as error:
        raise NoStore(f"The database {path} cannot be read: {error}. See SESSIONS_DIR, or --dir") from None


def bring_back(options: SimpleNamespace) -> int:
    """Make a database from a file tree, a backup or a lake (s3://…), or bring archived sessions back into one.

    A tree may also be one of the earlier service, which has no events.jsonl. What is odd about it is said; the tree
    itself is not changed. No server may be running in the folder.
    """
    into: Path = options.into or options.dir
    kinds = {"lake" if isinstance(source, str) else recovery.kind_of(source) for source in options.sources}
    if kinds != {"archive"} and len(options.sources) > 1:
        raise WrongUse("Of trees, backups and lakes one at a time can be restored")
    if options.newer and (options.force or options.open):
        raise WrongUse("--newer keeps the database, --force puts it aside, --open begins one: not both")
    if (options.newer and not kinds <= {"tree", "lake"}) or (options.force and kinds == {"archive"}):
        raise WrongUse("--newer is for trees and lakes, --force for trees, backups and lakes")
    if (options.open or options.shard) and kinds != {"lake"}:
        raise WrongUse("--open and --shard are for lakes")
    if kinds == {"archive"}:
        return restore_archives(options.sources, store_settings(options, into), not options.without_material)
    (kind,) = kinds
    code = {"tree": restore_tree, "backup": restore_backup, "lake": restore_lake}[kind](options, into)
    if finding := check_integrity(store_settings(options, into)):
        say(f"The server will not serve this yet. {finding.detail}")
    return code


def restore_archives(sources: list[Path], settings: Settings, with_material: bool) -> int:
    with progress("archives") as step:
        restored = recovery.bring_back(sources, settings, step, with_material=with_material)
    for odd in restored.odd:
        print(for_people(odd))
    print(f"{restored.events} events of {len(sources)} archives are in {settings.database} again")
    return FOUND if restored.odd else DONE


def restore_backup(options: SimpleNamespace, into: Path) -> int:
    (source,) = options.sources
    manifest = recovery.put_back(source, into, is_forced=options.force)
    print(f"{into / 'sessions.db'} is what {source} was: it ends with cursor {manifest.cursor}")
    return DONE


def restore_tree(options: SimpleNamespace, into: Path) -> int:
    (source,) = options.sources
    longest = longest_line(read_settings().max_event_bytes)
    with progress("events") as step:
        restored = restore(source, into, is_forced=options.force, is_newer=options.newer, longest=longest, step=step)
    for odd in restored.odd:
        print(for_people(odd))
    print(
        f"{restored.events} events are in {into / 'sessions.db'}"
        + (f", {restored.earlier} sessions of them from the earlier service" if restored.earlier else "")
    )
    return FOUND if restored.odd else DONE


def restore_lake(options: SimpleNamespace, into: Path) -> int:
    with progress("events") as step:
        code: int = from_lake("bring_back")(options, into, step)
    return code


def back_up_now(options: SimpleNamespace) -> int:
    """Copy the database, also while the server writes; the copy is checked, and gets a manifest beside it."""
    with progress("pages") as step:
        manifest = backup.back_up(options.dir / "sessions.db", options.file, step)
    print(f"{options.file} has the database up to cursor {manifest.cursor}: {manifest.bytes:,} bytes, checked")
    return DONE


def archive_old(options: SimpleNamespace) -> int:
    """Write the sessions that ended, and last changed, before a time into one compressed tar each.

    What is there already is read and not written again. With --prune, sessions whose archives have been read back and
    are what the database has are deleted from the store, by its server where one runs.
    """
    if options.prune and options.without_material:
        raise WrongUse("--prune deletes the material, too: it is to be in the archives")
    kept, written, failed = archived(options)
    print(f"{options.to} has {len(kept):,} sessions, {written:,} of them new")
    if options.prune:
        gone = prune.prune(store_settings(options), kept, options.url, say, sealed_in_lake)
        print(f"{gone:,} of them are gone from the store")
        failed += len(kept) - gone
    return FOUND if failed else DONE


def sealed_in_lake(settings: Settings) -> int | None:
    """Up to which cursor the lake has the store's events; None: there is no lake."""
    if settings.lake is None:
        return None
    from lake import commands

    return commands.sealed_in_lake(settings)


def archived(options: SimpleNamespace) -> tuple[list[prune.Archived], int, int]:
    """The sessions whose archives are there now, how many of those are new, and how many sessions have none."""
    kept, written, failed = [], 0, 0
    with closing(reader_of(options.dir)) as database, progress("sessions") as step:
        options.to.mkdir(parents=True, exist_ok=True)
        ids = archive.old_sessions(database, options.before)
        for number, session_id in enumerate(ids, 1):
            stamp = stamp_of(database, session_id)
            try:
                session, is_new = archive.keep(
                    database, session_id, options.to, with_material=not options.without_material
                )
            except archive.ArchiveFailed as error:
                say(f"export: {error}")
                failed += 1
            else:
                kept.append((session, stamp))
                written += is_new
            step(number, len(ids))
    return kept, written, failed


def bring_conversations(options: SimpleNamespace) -> int:
    """Have the server take in conversations from before there was a store, or from where it could not be reached.

    PATH is a whole `projects` folder of Claude Code (~/.claude/projects), a file in one, or the execution file of a CI
    action. Each becomes events, as far as no hook has told them, its tokens and cost, and the conversation itself.
    What is there already changes nothing: what was broken off is simply started again.
    """
    settings = store_settings(options)
    files = importing.files_in(options.paths)
    with progress("files") as step:
        user = options.user or getpass.getuser()
        counts = importing.bring_in(settings, files, options.url, user, say, lambda done: step(done, len(files)))
    print(
        f"{len(files):,} files: {counts['lines']:,} lines, {counts['events']:,} events and {counts['usage']:,} reports "
        "of usage are new"
    )
    return FOUND if counts["refused"] else DONE


def move_away(options: SimpleNamespace) -> int:
    """Move a session to the store at URL, while it is written to; what is said of it here is then told where it is.

    Its events go with their ids and times. Then it is deleted here. What was broken off is simply started
    again. Conversations and checkpoints do not move: see --without-material.
    """
    token = options.token_file.read_text().strip() if options.token_file else None
    settings = store_settings(options)
    reader_of(options.dir).close()
    with progress("events") as step:
        moved = move.move(
            settings,
            options.session,
            options.to,
            token,
            url=options.url,
            without_material=options.without_material,
            step=step,
        )
    print(f"{options.session} is at {options.to.rstrip('/')}: {moved:,} events were handed over")
    return DONE


def accept_loss(options: SimpleNamespace) -> int:
    """Have the server start again with a database that has lost its newest events.

    A server that finds its database behind what was seen of it serves nothing. Where what is missing cannot be brought
    back, this says that it may go on without it. The numbers of lost events are never given again.
    """
    print(loss.accept_loss(store_settings(options)))
    return DONE


def write_anew(options: SimpleNamespace) -> int:
    """Make the database as small as it can be, while its server is stopped.

    The server gives the room of deleted sessions back to the disk by itself, but for a database that was made before
    it could: such a one is compacted once.
    """
    settings = store_settings(options)
    if not settings.database.exists():
        raise WrongUse(f"There is no database {settings.database}")
    with progress("million steps") as step:
        before, after = compact.compact(settings, step)
    print(f"{settings.database} has {after:,} bytes, {max(0, before - after):,} less than before")
    return DONE


def take_out(options: SimpleNamespace) -> int:
    """Take a secret that got in out of database, index and file tree, and say how often it was where.

    PATTERN is a regular expression for texts, - reads it from the standard input, where it stays out of the shell's
    history. No server may be running in the folder. What is found is not shown.
    """
    replace = what_to_take_out(options)
    with progress("events") as step:
        if options.dry_run:
            with closing(reader_of(options.dir)) as database:
                found = scrub.look(database, replace, step)
        else:
            found = scrub.scrub(store_settings(options), replace, step, say)
    for session_id, number in found.events.items():
        print(f"{session_id}: {number:,} events")
    would = "would be" if options.dry_run else "are"
    print(f"{found.texts:,} texts in {len(found.events):,} sessions {would} redacted")
    return tell_what_is_left(options, found, replace)


def what_to_take_out(options: SimpleNamespace) -> scrub.Replace:
    if options.known == (options.pattern is not None):
        raise WrongUse("Either a PATTERN or --known")
    if options.known:
        return scrub.known()
    text = sys.stdin.readline().rstrip("\r\n") if options.pattern == "-" else options.pattern
    try:
        return scrub.pattern(text, is_literal=options.literal)
    except scrub.BadPattern as error:
        raise WrongUse(str(error)) from None


def tell_what_is_left(options: SimpleNamespace, found: scrub.SecretFound, replace: scrub.Replace) -> int:
    for session_id in found.named:
        say(f"export: an id in the session {session_id} has it, and stays: delete that session")
    if options.dry_run:
        return DONE
    left = scrub.left_in(options.dir, replace)
    for path in left:
        say(f"export: {path} still has it, and is nothing that this may change: remove it")
    copies = list(scrub.copies_with(store_settings(options), replace))
    for copy in copies:
        say(f"export: {copy} was made before, and has it: remove it")
    if store_settings(options).lake:
        say(f"export: the lake has it until its server has run for some hours, or `{EXPORT} lake erase` has")
    say("export: copies elsewhere that were made before, and the spools of agents, may still have it")
    return FOUND if left or copies or found.named else DONE


def price_anew(options: SimpleNamespace) -> int:
    """Make costs anew by the prices of today, and say what has changed.

    What the client itself has said of a cost stays. Each change is an event; a second time there is none. The prices
    are those that SESSIONS_PRICES names, and behind them the table of genai-prices. Also while a server runs.
    """
    with closing(reader_of(options.dir)) as database, progress("requests") as step:
        changes = reprice.reprice(store_settings(options), database, options.url, step)
    for model, cost in sorted(changes.by_model.items()):
        print(f"{model}: {cost.requests:,} requests, {reprice.dollars(cost.before)} -> {reprice.dollars(cost.after)}")
    for model, number in sorted(changes.unpriced.items()):
        print(f"{model}: {number:,} requests that nobody can price")
    print(f"{changes.changed:,} of {changes.looked_at:,} requests cost something else by {reprice.tables()}")
    return DONE


def try_out(options: SimpleNamespace) -> int:
    """Try out whether all comes back: a server of its own, a backup, a kill, its database gone, and all restored.

    Says what was lost, and how long it took from the beginning of the restore until the server was ready. With
    --no-tree it shows what a backup alone brings back. Nothing is touched but a temporary folder; how it went is noted
    beside the database, if there is one, for the metrics of its server. With --lake its whole folder is lost, and comes
    back from a lake of its own below that URL, of which nothing is left afterwards.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FOUND))  # what it has made goes as at any other end
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        if options.lake:
            with from_lake("place_for_a_drill")(options.lake) as lake:
                result = drill.drill_lake(Path(folder), lake, options.events, say)
        else:
            result = drill.drill(Path(folder), options.events, say, has_tree=not options.no_tree)
    back = f"{result.from_backup:,} events came back from the backup, {result.from_tree:,} from the file tree"
    if options.lake:
        back = f"{result.from_lake:,} events came back from the lake"
    print(f"{back}; the server was ready {result.seconds:.1f} s after the restore began")
    print(f"Lost, of {result.acknowledged:,} acknowledged events: {len(result.lost):,}")
    if options.no_tree or not result.lost:  # without a tree, what came after the backup is lost as it has to be
        drilled.keep(result.succeeded, options.dir)
    return FOUND if result.lost else DONE


def ask_lake(options: SimpleNamespace) -> int:
    """Ask a lake, which many stores seal their events into: with DuckDB, in SQL, or a canned question.

    WHAT is one SELECT over the views of views.sql (`SHOW TABLES` says which there are), or the name of a question of
    queries.sql, and after it KEY=VALUE of what it takes: --list says which. The lake is as it is now, and is only read.
    """
    try:
        from lake import asking
    except ImportError as error:
        raise WrongUse(f"{error}: to ask a lake, pip install 'session-store[ask]'") from None
    if options.list:
        print(asking.listed(), end="")
        return DONE
    if not (url := options.lake or os.environ.get("SESSIONS_LAKE")):
        raise WrongUse("There is no lake to ask: name it with --lake or SESSIONS_LAKE, such as s3://bucket/prefix")
    try:
        answer = asking.answer(url.rstrip("/"), options.what, options.shard or "", options.rows)
    except asking.AskedWrongly as error:
        raise WrongUse(str(error)) from None
    except asking.AskFailed as error:
        say(f"export: {error}")
        return FOUND
    print(asking.shown(answer, options.format), end="")
    if answer.is_cut:
        say(f"export: these are the first {options.rows:,} rows: --rows says how many")
    return DONE


FAILURES = (
    archive.ArchiveFailed,
    backup.BackupFailed,
    drill.DrillFailed,
    importing.NotImported,
    move.NotMoved,
    loss.NothingLost,
    served.NotServed,
    offline.Unsound,
    recovery.Unknown,
    NoStore,
    CannotStart,
    NotEmpty,
    TreeBusy,
    TreeAhead,
    sqlite3.Error,
    OSError,
)
"""What a command can be stopped by; each says why."""

# --------------------------------------------------------------------- arguments


def store_settings(options: SimpleNamespace, folder: Path | None = None) -> Settings:
    return msgspec.structs.replace(read_settings(), directory=folder or options.dir)


def moment(text: str) -> str:
    """A date or a time, as the database has times."""
    try:
        return utc(f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text)
    except Problem:
        raise click.BadParameter("must be a date such as 2026-02-13, or an RFC 3339 time") from None


class NamedPath(click.ParamType):  # type: ignore[type-arg]
    """A path that is named: an empty one, as of a variable that is not set, would be the working directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        return Path(value) if value else self.fail("is empty", param, ctx)


FOLDER = NamedPath()


class RestoreSource(NamedPath):
    """A path, or the URL of a lake as a text."""

    name = "source"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        is_lake = re.match("(s3|gs|az|file)://", value)
        return value.rstrip("/") if is_lake else super().convert(value, param, ctx)


class WithLake(click.Group):
    """Has the commands of lake/ too, which are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *OF_LAKE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in OF_LAKE:
            return super().get_command(ctx, cmd_name)
        try:
            command: click.Command = of_lake(cmd_name)
        except ImportError:
            return without_lake(cmd_name)
        return command


OF_LAKE = ("lake",)


def of_lake(name: str) -> Any:
    """Something of lake/commands.py. Raises ImportError where the extra is not installed."""
    from lake import commands

    return getattr(commands, name)


def from_lake(name: str) -> Any:
    """The same, or the end of the command, which says what to install."""
    try:
        return of_lake(name)
    except ImportError as error:
        say(f"export: {error.name} is not installed: pip install 'session-store[lake]'")
        sys.exit(FOUND)


def without_lake(name: str) -> click.Command:
    """In the place of what cannot be imported: it stands in the help, and says what it needs."""
    return click.Command(
        name,
        callback=lambda: from_lake(name),
        help="Wants session-store[lake]: see and change the lake that SESSIONS_LAKE names.",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(
    cls=WithLake,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 something is amiss, and said; 2 used wrongly.",
)
def cli() -> None:
    """What goes out of a session store, and comes back."""


def add_command(name: str, run: Callable[[SimpleNamespace], int], *parameters: click.Parameter) -> None:
    """A command whose help is the docstring of what runs it."""
    folder = click.Option(["--dir"], type=FOLDER, metavar="DIR", help="the store's folder (default: SESSIONS_DIR)")

    def call(**given: Any) -> None:
        click.get_current_context().exit(code_of(run, SimpleNamespace(**given)))

    cli.add_command(click.Command(name, callback=call, params=[*parameters, folder], help=run.__doc__))


def option(name: str, meaning: str, **more: Any) -> click.Option:
    """One that takes a folder, unless `more` says what else."""
    given: dict[str, Any] = {"type": FOLDER, "metavar": "DIR", **more}
    return click.Option([name], help=meaning, **given)


def switch(name: str, meaning: str) -> click.Option:
    return click.Option([name], is_flag=True, help=meaning)


SERVER = option("--url", "where its server is (default: this machine, at PORT)", type=str, metavar="URL")
add_command("tree", write_tree, option("--to", "write the tree into another folder than the store's"))
add_command(
    "verify",
    verify_tree,
    switch("--full", "read everything"),
    switch("--no-tree", "only what SQLite finds wrong with the database"),
    option("--tree", "a tree in another folder than the store's"),
)
add_command(
    "restore",
    bring_back,
    click.Argument(["sources"], type=RestoreSource(), metavar="SOURCE...", nargs=-1, required=True),
    option("--into", "the folder of the database (default: SESSIONS_DIR)"),
    switch("--force", "put a database that is there beside the new one"),
    switch("--newer", "keep the database, and add what only the tree, or the lake, has"),
    option("--shard", "whose events of the lake (default: SESSIONS_SHARD, or all there are)", type=str, metavar="NAME"),
    switch("--open", "of the lake only sessions that had not ended"),
    switch("--without-material", "leave conversations and checkpoints in the archives out"),
)
add_command("backup", back_up_now, click.Argument(["file"], type=FOLDER, metavar="FILE"))
add_command(
    "archive",
    archive_old,
    option("--before", "such as 2026-02-13; UTC", type=moment, required=True, metavar="DATE"),
    option("--to", "where the archives are", required=True),
    switch("--prune", "delete from the store what is archived"),
    switch("--without-material", "leave conversations and checkpoints out"),
    SERVER,
)
add_command(
    "import",
    bring_conversations,
    click.Argument(["paths"], type=FOLDER, metavar="PATH...", nargs=-1, required=True),
    option("--user", "whose the sessions are that are new (default: you)", type=str, metavar="USER"),
    SERVER,
)
add_command(
    "move",
    move_away,
    click.Argument(["session"], metavar="ID"),
    option("--to", "the URL of the store that it goes to", type=str, required=True, metavar="URL"),
    option("--token-file", "a file with a token of the role admin there", metavar="FILE"),
    switch("--without-material", "delete conversations and checkpoints, which do not move"),
    SERVER,
)
add_command("accept-loss", accept_loss)
add_command("compact", write_anew)
add_command(
    "reprice",
    price_anew,
    SERVER,
)
add_command(
    "scrub",
    take_out,
    click.Argument(["pattern"], metavar="[PATTERN]", required=False),
    switch("--literal", "PATTERN is a text as it is"),
    switch("--known", "the keys, tokens and passwords that SESSIONS_REDACT means"),
    switch("--dry-run", "only say what would go; the server may be running"),
)
add_command(
    "drill",
    try_out,
    option("--events", "how many", type=click.IntRange(min=1), default=4000, show_default=True, metavar="N"),
    switch("--no-tree", "without a file tree: what a backup alone brings back"),
    option("--lake", "what a lake brings back, tried out below this URL", type=str, metavar="URL"),
)
add_command(
    "ask",
    ask_lake,
    click.Argument(["what"], metavar="WHAT [KEY=VALUE]...", nargs=-1),
    option("--lake", "where it is (default: SESSIONS_LAKE)", type=str, metavar="URL"),
    option("--shard", "only what this store has sealed", type=str, metavar="NAME"),
    option("--format", "how to say it", type=click.Choice(["table", "json", "csv"]), default="table", metavar="FORMAT"),
    option("--rows", "at most so many", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N"),
    switch("--list", "say which questions there are"),
)


def code_of(run: Callable[[SimpleNamespace], int], options: SimpleNamespace) -> int:
    try:
        settings = read_settings()
        os.umask(settings.umask)
        options.dir = options.dir or settings.directory
        return run(options)
    except (BadSetting, WrongUse) as error:
        say(f"export: {error}")
        return WRONG
    except FAILURES as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        say(f"export: {said}")
        return FOUND


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    sys.exit(cli(arguments, prog_name=EXPORT))


if __name__ == "__main__":
    main()
