"""What follows the writer, each on a thread of its own, and none of it can slow a write.

tree        the file tree, kept up with the database
backups     copies of the database, made unasked
comparison  database and tree held against each other, once a day
lake        the process that seals events into a lake
retention   what leaves the store unasked, archived first
archives    one session as a download
notices     which sessions are worth a word
budgets     what was used, held against budgets
breaker     agents that go wrong are asked about, paused, stopped
outbox      answers and orders, until agents have them
positions   how far each target has been told
messages    what is written to whom
webhooks    telling it by HTTP or a messenger, in order, until it is taken
fleet       other appliances asked, with a deadline
push_service  one Web Push message, to a public address alone
push        who hears of asks and failures by Web Push
"""
