"""What goes out of a session store, and comes back: `python -m export COMMAND`.

folders      file work that never leaves the folder it is given, whatever has been planted there
layout       what stands in the tree: every file's bytes, as the database has them
tree         the tree on disk, brought up to the database and kept there
backup       a consistent copy of the live database, checked
material     conversations and checkpoints of a session, as lines
archive      one session as one compressed tar
drilled      what a drill leaves for the metrics of a server
verify       where tree and database differ
__main__     the commands, those of sessionstore/admin too

It knows SQLite and files, and nothing of the server, which uses it; only the command line reaches up, to
sessionstore/admin, for what changes a store at rest. A module uses only those above it. LAYOUT.md describes the tree
file by file.
"""
