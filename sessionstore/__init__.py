"""The server behind app.py, in the order in which data flows: decode, validate, append, commit, publish.

settings     what the environment says
problems     every error, and the one shape in which it is told
events       the words of the contract: ids, times, JSON, the event
folds        what an event does to a document: pure functions
database     the SQLite file: opening it, and appending one event
writer       the one thread that writes, many callers to a commit
reader       read-only connections and every query of the API
broadcaster  committed events, handed to whoever listens
access       who may: hosts, origins, tokens, roles
requests     from a request to drafts of events
door         the two hottest routes, in plain ASGI
api          every other route
live         WebSocket and server-sent events
metrics      Prometheus text
process      the socket, the lock, the deadlines, the signals

A module uses only those above it.
"""

__version__ = "0.1.0"
