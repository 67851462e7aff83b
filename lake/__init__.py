"""More than one machine: a Delta Lake in a bucket that every appliance seals its events into, each exactly once.

Nothing here is imported, started or paid for unless SESSIONS_LAKE is set or a command names a lake. Its rooms:

    bucket.py     where it is, its objects, and whether it keeps the conditions that writers depend on
    columns.py    what a row of the lake has, and how it is read from a database
    table.py      the tables in the bucket: made, opened, how far each shard is sealed
    sealer.py     one range of cursors of one shard, in one commit
    rewriting.py  rows found and written anew, a bounded number of bytes at a time
    forgetting.py sessions hidden, and erased by cursor
    scrubbing.py  scrubs of the store followed
    keeping.py    vacuum, compaction, days that are over
    checking.py   compared with the store
    witness.py    what the bucket says before a store begins
    back.py       a database from the lake
    __main__.py   the child process that seals as long as its server runs
    views.py      the views of a lake: views.sql made into the words of an engine by dialects.py
    published.py  those views in the bucket, and which shards seal into it
    asking.py     `python -m export ask`: DuckDB over the lake, and canned questions (questions.sql)
    commands.py   `python -m export lake …`
"""
