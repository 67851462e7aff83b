"""What goes out of a session store, and comes back: `python -m export COMMAND`.

folders      file work that never leaves the folder it is given, whatever has been planted there
layout       what stands in the tree: every file's bytes, as the database has them
tree         the tree on disk, brought up to the database and kept there
backup       a consistent copy of the live database, checked
archive      one session as one compressed tar
drilled      what a drill leaves for the metrics of a server
verify       where tree and database differ
restore      a database from a tree
earlier      reading a tree of the earlier service
offline      appending to a store whose server does not run
recovery     a backup, or archives, back into a store
prune        what is archived leaves the store
scrub        what should not have been stored leaves it
loss         a database that has fallen behind is taken as it is
drill        whether all that comes back, tried out
__main__     the commands

It knows SQLite and files, never app.py. Those before `verify` use nothing of the server, because the server itself uses
`tree` to keep the tree (sessionstore/upkeep/tree.py); what writes to a database uses sessionstore's database and above.
A module uses only those above it. LAYOUT.md describes the tree file by file.
"""
