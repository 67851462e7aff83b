"""What the words of the contract mean: pure, nothing here opens a file or a socket.

problems     every error, as RFC 9457 problem details
bounds       JSON that is too deep or too much, as far as it can be read
names        what people know a session by: title, project
folds        what an event does to a document
endings      how a session ended
delegations  which call a sub-agent is of
conversation  what was said, as people read it
rights       whose a write is, and the bounds of a token
events       ids, times, JSON, the event and its draft
redaction    secrets, taken out before anything is stored
verbatim     the same of JSON that is kept as it was written
coercion     a line that is not quite valid, kept as what it can be
metadata     what callers may make of that of a session
retries      whether what comes again says the same
drafts       from what a caller sends to drafts of events
control      what people answer and order, and what agents say of it
lines        the same of the lines of a batch
"""
