"""The database file: one writer with group commit, read-only readers, and the ring buffer that readers of the feed
share.

owner            one process on a folder
folder           the file system below it: fit, closed to others, still there
disk             the room that is left; backpressure before there is none
high_water_mark  the newest cursor, beside the database
search           full-text search, apart from SQL
schema           opening the file, migrations
shard            the name in a lake
lake             how far the lake has it, asked of a child process
integrity        whether the file can be served, looked at once at the start
material         conversations' lines, as functions of a connection
checkpoints      LangGraph's checkpoints, likewise
maintenance      purge, search index, room that is given back
write_ahead_log  checkpoints: when, and what if one fails
rights           whether a bound token may write to a session, or read it
pace             how fast a session's documents are written anew
appender         one event into the database
control          asks, answers and orders
turns            what is scarce goes round robin to those who wait: fair queueing
closing          sessions that are lost, or deleted unless they have moved on
chain            what is committed is in the bucket first, by a child process
writer           the writer thread: group commit
selection        which sessions are asked for, as SQL
resumption       the state that a new container is given
broadcaster      the ring buffer of committed events
reader           read-only connections and every query of the API
ledger           queries of what was used and what it cost
changes          what came of a session: net diffs, tests, commits
intake           material by bounded pieces, in and out
threads          checkpoints likewise
places           lines of transcripts by their place
"""
