"""The command `session-store`: serve, export and token, also by `pipx run` and `uvx`.

Its folder has what a checkout has at its top (app.py, export/, sessionstore/, the SQL, the page), and goes on Python's
path for this process alone: to all others there is one package, and no module named `app` or `export`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

USAGE = """usage: session-store COMMAND …

  serve    take in what agents do, and show it; settings are variables of the environment (SESSIONS_DIR, PORT …)
  export   what goes out and comes back: tree, verify, backup, archive, restore, import, scrub …
  token    who may: add, list, rotate, remove

COMMAND --help says more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0; 1 if something is amiss; 2 if used wrongly. The groups of click exit with theirs."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command == "serve" and not rest:
        from app import serve

        return serve()
    if command == "export":
        from export.__main__ import cli as export

        export(rest, prog_name="session-store export")
    if command == "token":
        from sessionstore.admin.tokens import token

        token(rest, prog_name="session-store token")
    return explain(command)


def explain(command: str) -> int:
    """Say what there is: on stdout to who asked for it, on stderr to who missed it."""
    from sessionstore import __version__

    if command == "--version":
        print(f"session-store {__version__}")
        return 0
    is_asked_for = command in ("-h", "--help", "help")
    print(USAGE, file=sys.stdout if is_asked_for else sys.stderr)
    return 0 if is_asked_for else 2


if __name__ == "__main__":
    sys.exit(main())
