"""More than one machine: a Delta Lake in a bucket that every appliance seals its events into, each exactly once.

Nothing here is imported, started or paid for unless SESSIONS_LAKE is set or a command names a lake. `python -m lake` is
the child process that seals as long as its server runs.

bucket      where it is, its objects, and whether it keeps the conditions that writers depend on
columns     what a row of the lake has, and how it is read from a database
table       the tables in the bucket: made, opened, how far each shard is sealed
dialects    SQL in SQLite's words made into those of DuckDB, Spark and ClickHouse
views       the views of a lake (views.sql) for an engine
published   those views in the bucket, and which shards seal into it
asking      `python -m export ask`: DuckDB over the lake, and canned questions (questions.sql)
rewriting   rows found and written anew, a bounded number of bytes at a time
forgetting  sessions hidden, and erased by cursor
witness     what the bucket says before a store begins
chain       what a store has acknowledged, an object after the other, in a child process
sealer      one range of cursors of one shard, in one commit
scrubbing   scrubs of the store followed
keeping     vacuum, compaction, days that are over
checking    compared with the store
back        a database from the lake
commands    `python -m export lake …`
"""
