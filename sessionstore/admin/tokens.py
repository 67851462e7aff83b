"""`python app.py token …`: tokens are added, listed, changed and taken away, whether the server runs or not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, NoReturn

import click

from sessionstore import TOKEN
from sessionstore.model.events import STORE, USER_RULE, is_id, is_user
from sessionstore.model.rights import Bounds
from sessionstore.secret_files import write_secret
from sessionstore.settings import BadSetting, Settings, interval, read_settings
from sessionstore.text import for_people
from sessionstore.web.logins import FILE as LOGINS
from sessionstore.web.logins import read_logins, revoke
from sessionstore.web.tokens import (
    NAME,
    NAMED,
    ROLES,
    VARIABLES,
    Named,
    Tokens,
    alone,
    make_token,
    read_kept,
    read_named,
    tokens_folder,
    write_named,
)

SHORT = 12
"""Characters of the hash of a cookie by which a log-in is told from others."""
DONE, REFUSED = 0, 1
"""Exit codes; 2, which click gives: used wrongly."""


class TokenRefused(Exception):
    """It cannot be done. The message says why."""


def main(arguments: Sequence[str]) -> NoReturn:
    """Do one command; SystemExit with its exit code."""
    sys.exit(cli(arguments, prog_name="app.py"))


def code_of(command: Callable[[Settings, SimpleNamespace], None], options: SimpleNamespace) -> int:
    try:
        settings = read_settings()
        os.umask(settings.umask)
        command(settings, options)
    except (TokenRefused, BadSetting) as error:
        print(f"session store: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"session store: {error.filename or 'the folder of the tokens'}: {error.strerror}", file=sys.stderr)
        return REFUSED
    return DONE


# ---------------------------------------------------------------------- commands


def add(settings: Settings, options: SimpleNamespace) -> None:
    """Make a token and print it on stdout. It is not shown again.

    NAME has letters, digits and . _ -; at most 64. --user, --project and --session bind a token of the role ingest: it
    writes to sessions that are of one of these users, and of one of these projects, and of these ids, and reads them
    back; what it names nothing of is not bounded. All others are to it as if they were not there.
    """
    folder, bounds = tokens_folder(settings), bounds_in(options)
    with alone(folder):
        named = read_named(folder)
        if options.name in [one.name for one in named or ()]:
            raise TokenRefused(
                f"There is a token {options.name} already: choose another name, or rotate or remove that one"
            )
        if options.role == "ingest" and named is None and not Tokens(settings).is_required:
            is_made = read_kept(folder / "read") or read_kept(folder / "admin")
            raise TokenRefused(
                "The store is open to this machine, and a token closes it: with none that may read, nobody could open "
                f"the dashboard. First make one for yourself: {TOKEN} add NAME --role read, or admin"
                + (". If its server has a SESSIONS_HOST, set that here, and no more is needed" if is_made else "")
            )
        token = make_token()
        expires = int(time.time() + options.expires) if options.expires else None
        added = Named.of(options.name, options.role, token, expires, bounds)
        write_named(folder, [*(named or ()), added])
    show(token)
    bound = f", bound to {bounds.said()}" if bounds else ""
    tell(f"{options.name} has the role {options.role}{bound}.")
    tell(f"The token is shown only now; its hash is in {folder / NAMED}.")
    if named is None and not Tokens(settings).is_required:
        tell("The store was open to this machine. From now on it needs a token, and so does the dashboard.")


def bounds_in(options: SimpleNamespace) -> Bounds | None:
    bounds = Bounds(users=options.user, projects=options.project, sessions=options.session)
    if bounds and options.role != "ingest":
        raise TokenRefused("Only a token of the role ingest can be bound: the others see the whole store")
    return bounds or None


def rotate(settings: Settings, options: SimpleNamespace) -> None:
    """Put a new token in the place of the old one.

    The old one ends at once, its log-ins and WebSockets within a second, its event streams with the next event or
    within fifteen seconds. For a change without a gap, add another token, give it out, and then remove the old one.
    """
    folder, token = tokens_folder(settings), make_token()
    with alone(folder):
        named = read_named(folder) or []
        if options.name in [one.name for one in named]:
            write_named(folder, [renewed(one, token) if one.name == options.name else one for one in named])
        elif is_kept(settings, options.name):
            write_secret(folder / options.name, token.encode() + b"\n")
        else:
            raise unknown(settings, options.name)
    show(token)
    tell(f"The old token {options.name} ends within a second. The new one is shown only now.")


def renewed(one: Named, token: str) -> Named:
    """For as long again, if it was to end."""
    expires = one.expires and int(time.time()) + one.expires - one.created
    return Named.of(one.name, one.role, token, expires, one.bounds)


def remove(settings: Settings, options: SimpleNamespace) -> None:
    """Take a token away.

    Its requests are refused at once, its log-ins and WebSockets end within a second, its event streams with the next
    event or within fifteen seconds.
    """
    folder = tokens_folder(settings)
    with alone(folder):
        named = read_named(folder) or []
        left = [one for one in named if one.name != options.name]
        if len(left) == len(named):
            if not is_kept(settings, options.name):
                raise unknown(settings, options.name)
            (folder / options.name).unlink()
        write_named(folder, left)  # also an empty list: it says that what is gone is not to be made again
    tell(f"The token {options.name} is gone: who uses it is turned away within a second.")
    if not known(settings).by_digest:
        tell("No token is left, and nobody gets in until one is added.")
        if settings.is_private:
            tell(f"To open the store to all of this machine instead, delete {folder / NAMED}.")


def list_tokens(settings: Settings, options: SimpleNamespace) -> None:
    """All tokens that are known here, and when each was last used; never the tokens themselves. Times are in UTC."""
    tokens = known(settings)
    named = {one.name: one for one in read_named(tokens.folder) or ()}
    over = [one for one in named.values() if one.expires is not None and one.expires <= time.time()]
    rows = [("NAME", "ROLE", "MADE", "ENDS", "LAST USED", "KEPT IN", "BOUND TO")]
    for token in tokens.by_digest.values():
        made = named[token.name].created if token.place == NAMED else None
        used = tokens.used.get(token.name)
        bound = token.bounds.said() if token.bounds else "-"
        rows.append((token.name, token.role, moment(made), moment(token.expires), moment(used), token.place, bound))
    rows += [(one.name, one.role, moment(one.created), "over", moment(None), NAMED, "-") for one in over]
    idle = [role for role in ROLES if role not in tokens.makes and read_kept(tokens.folder / role)]
    rows += [(role, role, moment(None), moment(None), moment(tokens.used.get(role)), role, "-") for role in idle]
    show_table(rows)
    if idle:
        tell(f"{', '.join(idle)}: made by the server; they count while SESSIONS_HOST is an address that others reach.")
    if not tokens:
        tell("No token is needed: the store is open to this machine.")


def list_logins(settings: Settings, options: SimpleNamespace) -> None:
    """The log-ins of the dashboard that last: which token each is of, and when it ends by itself, in UTC."""
    tokens = known(settings)
    logins = [one for one in read_logins(settings.directory / LOGINS, []) if one.ends > time.time()]
    rows = [("ID", "TOKEN", "ENDS")]
    rows += [(one.cookie[:SHORT], one.name, moment(one.ends)) for one in logins if one.name in tokens.by_name]
    show_table(rows)


def log_out(settings: Settings, options: SimpleNamespace) -> None:
    """End log-ins of the dashboard: one by its ID, as `logins` shows it, or all of a token by its name.

    The cookie is refused, and its WebSockets end, within a second or two, its event streams with the next event or
    within fifteen seconds.
    """
    path, which = settings.directory / LOGINS, options.which
    if not revoke(path, lambda one: which in (one.name, one.cookie[:SHORT])):
        raise TokenRefused(f"There is no log-in {which}: `token logins` lists them")
    tell(f"The log-ins {which} have ended.")


def known(settings: Settings) -> Tokens:
    tokens = Tokens(settings)
    tokens.load()
    return tokens


def is_kept(settings: Settings, name: str) -> bool:
    """Whether it is one of those that the server made, and knows."""
    tokens = Tokens(settings)
    return name in tokens.makes and read_kept(tokens.folder / name) is not None


def unknown(settings: Settings, name: str) -> TokenRefused:
    if name in VARIABLES:
        return TokenRefused(
            f"{name} is set in the environment of the server: change it there, and start the server anew"
        )
    names = [token.name for token in known(settings).by_digest.values()]
    return TokenRefused(f"There is no token {name}; there are: {', '.join(names) or 'none'}")


# ------------------------------------------------------------------ what is said


def show(text: str) -> None:
    """What a script takes."""
    print(for_people(text))


def show_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        show("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def tell(text: str) -> None:
    """What a person reads."""
    print(for_people(text), file=sys.stderr)


def moment(seconds: float | None) -> str:
    """In UTC; made, ends and last used are known to the minute, and not of every token."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


# -------------------------------------------------------------- what is understood


def name(text: str) -> str:
    if NAME.fullmatch(text) and text not in ROLES and text not in VARIABLES and text != STORE:
        return text
    raise click.BadParameter(
        f"{text!r}: a name has letters, digits and . _ -, at most 64, and is not that of a role, nor {STORE}"
    )


def text_like(is_right: Callable[[str], object], meaning: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if is_right(text):
            return text
        raise click.BadParameter(f"{text!r}: {meaning}")

    return read


def duration(text: str) -> float:
    try:
        return interval(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


NAME_OF = text_like(is_user, f"must have {USER_RULE}")
ID_OF = text_like(is_id, "is no id that a session can have")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The session store. Without a command the server runs, as the environment says (docs/settings.md has all)."""


@cli.group()
def token() -> None:
    """Who may: tokens beyond those of the environment.

    Tokens have a name and a role. Only their hashes are kept, in a file of SESSIONS_TOKENS_DIR. A running server takes
    up what changes within a second. Run this with the settings of the server, and as its user or root.
    """


def add_command(verb: str, run: Callable[[Settings, SimpleNamespace], None], *parameters: click.Parameter) -> None:
    """A command whose help is the docstring of what runs it."""

    def call(**given: Any) -> None:
        click.get_current_context().exit(code_of(run, SimpleNamespace(**given)))

    token.add_command(click.Command(verb, callback=call, params=[*parameters], help=run.__doc__))


add_command(
    "add",
    add,
    click.Argument(["name"], type=name, metavar="NAME"),
    click.Option(
        ["--role"],
        required=True,
        type=click.Choice(ROLES),
        help="ingest: agents; read: people; control: people who also answer and give orders; admin: all of it",
    ),
    click.Option(["--expires"], type=duration, metavar="TIME", help="it ends after so long, such as 12h or 30d"),
    click.Option(["--user"], type=NAME_OF, multiple=True, metavar="USER", help="bound to this user's; may repeat"),
    click.Option(["--project"], type=NAME_OF, multiple=True, metavar="P", help="bound to this project's; may repeat"),
    click.Option(["--session"], type=ID_OF, multiple=True, metavar="ID", help="bound to this session; may repeat"),
)
add_command("list", list_tokens)
add_command("logins", list_logins)
add_command("logout", log_out, click.Argument(["which"], metavar="ID|NAME"))
add_command("rotate", rotate, click.Argument(["name"], metavar="NAME"))
add_command("remove", remove, click.Argument(["name"], metavar="NAME"))
