"""The server behind app.py: decode, validate, append, commit, publish.

text         somebody else's words, made fit for people
targets      who is told by HTTP, and of what: the file of webhooks
settings     what the environment says
log          what the server says while it runs, as text or JSON
histogram    how something is distributed, counted into buckets
owner        one process on a folder
disk         the room that is left
tokens       who holds which, in files; adding and taking away while the server runs
attempts     wrong tokens and other refusals, counted by address
problems     every error, and the one shape in which it is told
folds        what an event does to a document: pure functions
events       the words of the contract: ids, times, JSON, the event
redaction    secrets, taken out before anything is stored
search       full text: the words of an event, what a question asks for, where a text answers it
endings      how a session ended, from what was said in it
database     the SQLite file: opening it, and appending one event
catalogue    what people can ask: the views and the questions of views.sql and queries.sql
mark         the newest cursor, kept beside the database
soundness    whether the database can be served: looked at once, at the start
backups      copies of the database, made unasked
archives     one session as a download
writer       the one thread that writes, many callers to a commit
retention    what leaves the store unasked: by age, by size, archived first
broadcaster  committed events, handed to whoever listens
mirror       the file tree, kept beside the database while the server runs
notices      what is worth telling somebody
webhooks     telling it, each target on a thread of its own
reader       read-only connections and every query of the API
store        these as one thing, opened at the start and closed at the end
bodies       what requests bring: how much at the same time
access       who may: hosts, origins, tokens, roles
connections  how many, of one address and in all
traffic      every request counted, and logged where that is asked for
requests     from a request to drafts of events
door         the two hottest routes, taken before ASGI
answers      the shapes of the answers, for the documentation
live         WebSocket and server-sent events
child        a process of our own that is asked and answers
walls        a connection for the SQL of strangers, in such a process
explorer     Datasette over it, in another
questions    where both are asked: /datasette/
metrics      Prometheus text
api          every other route
pages        what a browser gets: the dashboard, the documentation
process      the socket, the deadlines, the signals
commands     what app.py can be told: tokens

A module uses only those above it.
"""

__version__ = "0.1.0"
