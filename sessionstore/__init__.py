"""The server behind app.py, a wing for each concern: decode, validate, append, commit, publish.

text, secret_files, prices, budget_rules, breaker_rules, messengers, webhook_targets, shards  what settings name
settings, log, histogram, lifeline  for all
model/        events, documents, drafts, problems, redaction: pure
store/        the file: schema and migrations, appender, writer, reader, search, broadcaster, integrity, folder
upkeep/       what follows the writer: tree, backups, comparison, retention, archives, webhooks
adapters/     what other programs say in words of their own: Claude Code's hooks, OpenTelemetry
analytics/    canned queries, and Datasette beside the server
appliance     all of these as one thing, opened at the start and closed at the end
web/          ASGI: gate, fast path, routes, live feed, page, metrics, documentation
admin/        what changes a store at rest: restore, scrub, prune, compact, drill, tokens

A wing uses only those above it, and no module is in a circle: tests/test_docs.py says so. Each wing's head lists its
rooms in the order in which they build on each other.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the appliance: app.py, schema.sql, dashboard.html and what else it is made of."""
IS_INSTALLED = (ROOT / "__main__.py").exists()
EXPORT, TOKEN = (
    ("session-store export", "session-store token") if IS_INSTALLED else ("python -m export", "python app.py token")
)
"""How the commands are called here: by pip's package, or in a checkout and the image."""
__version__ = "0.1.0"
