"""`python -m export COMMAND`: the commands, what they are told, and what they say."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sessionstore.owner import CannotStart
from sessionstore.settings import BadSetting, read_settings

from . import layout
from .folders import open_folder
from .restore import NotEmpty, restore
from .tree import Tree, TreeAhead, TreeBusy, progress_of
from .verify import Verification

DONE, FOUND, WRONG = 0, 1, 2
"""Exit codes: done; something is amiss, or could not be done; used wrongly."""
POLL_SECONDS = 0.05
PATIENCE = 30.0
"""Seconds after which a server whose tree does not come any further is not waited for."""

# ---------------------------------------------------------------- what is said


class Progress:
    """How far a command is, on one line of a terminal that is written over; elsewhere nothing."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.shown_at = 0.0
        self.is_shown = False

    def __call__(self, number: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now > self.shown_at + 0.1:
            print(f"\r{number:,} {self.noun}\033[K", end="", file=sys.stderr, flush=True)
            self.shown_at, self.is_shown = now, True

    def end(self) -> None:
        if self.is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr)


# ---------------------------------------------------------------------- commands


def write_tree(options: argparse.Namespace) -> int:
    """Write the file tree, or bring one that is there up to the database.

    Everything that is there is compared, and written anew where it is not as it should be; what is in the way is put
    into `set-aside`. Where a server keeps the tree, this waits until it has caught up.
    """
    folder: Path = options.to or options.dir
    progress = Progress("sessions")
    with closing(layout.open_reader(options.dir / "sessions.db")) as database:
        try:
            tree = Tree(folder, say)
        except TreeBusy:
            return wait_for_tree(database, folder)
        with closing(tree):
            tree.rebuild(database, progress)
        progress.end()
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


def verify_tree(options: argparse.Namespace) -> int:
    """Compare the file tree with the database, and say by file where they differ.

    What has not changed since it was last found right is not read again, except with --full. A tree that a running
    server keeps may be a little behind: that is no difference.
    """
    folder: Path = options.tree or options.dir
    progress = Progress("sessions")
    with closing(layout.open_reader(options.dir / "sessions.db")) as database, open_folder(folder) as root:
        found = Verification(database, root, is_full=options.full).run(progress)
    progress.end()
    for difference in found.differences:
        print(difference)
    print(
        f"{len(found.differences)} differences in {found.sessions} sessions"
        + (f", of which {found.unchanged} have not changed since they were last found right" if found.unchanged else "")
        + (f"; of {found.moving}, which are being written to, only the logs were compared" if found.moving else "")
    )
    return FOUND if found.differences else DONE


def restore_tree(options: argparse.Namespace) -> int:
    """Make a database from a file tree.

    The tree may also be one of the earlier service, which has no events.jsonl. What is odd about it is said; the tree
    itself is not changed. No server may be running in the folder.
    """
    into: Path = options.into or options.dir
    progress = Progress("events")
    restored = restore(options.tree, into, is_forced=options.force, is_newer=options.newer, step=progress)
    progress.end()
    for odd in restored.odd:
        print(odd)
    print(
        f"{restored.events} events are in {into / 'sessions.db'}"
        + (f", {restored.earlier} sessions of them from the earlier service" if restored.earlier else "")
    )
    return FOUND if restored.odd else DONE


# --------------------------------------------------------------------- arguments


def store_folder() -> Path:
    return read_settings().directory


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="What goes out of a session store, and comes back.",
        epilog="Exit codes: 0 done; 1 something is amiss, and said; 2 used wrongly.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    tree = command(commands, "tree", write_tree)
    tree.add_argument("--to", type=Path, metavar="DIR", help="write the tree into another folder than the store's")
    verify = command(commands, "verify", verify_tree)
    verify.add_argument("--full", action="store_true", help="read everything")
    verify.add_argument("--tree", type=Path, metavar="DIR", help="a tree in another folder than the store's")
    restoring = command(commands, "restore", restore_tree)
    restoring.add_argument("tree", type=Path, metavar="TREE", help="the folder with the tree")
    restoring.add_argument(
        "--into", type=Path, metavar="DIR", help="the folder of the database (default: SESSIONS_DIR)"
    )
    how = restoring.add_mutually_exclusive_group()
    how.add_argument("--force", action="store_true", help="put a database that is there beside the new one")
    how.add_argument("--newer", action="store_true", help="keep the database, and add what only the tree has")
    return parser


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """A command whose help is the docstring of what runs it."""
    head, _, rest = (run.__doc__ or "").partition("\n")
    added = commands.add_parser(name, help=head, description=f"{head} {' '.join(rest.split())}")
    added.add_argument("--dir", type=Path, metavar="DIR", help="the store's folder (default: SESSIONS_DIR)")
    added.set_defaults(run=run)
    return added


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        options.dir = options.dir or store_folder()
        code: int = options.run(options)
    except BadSetting as error:
        say(f"export: {error}")
        return WRONG
    except (TreeBusy, TreeAhead, CannotStart, NotEmpty, sqlite3.Error, OSError) as error:
        say(f"export: {error}")
        return FOUND
    return code


if __name__ == "__main__":
    sys.exit(main())
