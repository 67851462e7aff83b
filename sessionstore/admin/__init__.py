"""What changes a store at rest, or while its server looks away: the commands behind `python -m export` and `python
app.py token`.

loss         a database that has fallen behind is taken as it is
offline      appending while no server runs
served       asking the server that has the store
importing    conversations on this disk into the store
reprice      costs made anew by the prices of today
legacy_tree  reading a tree of the earlier service
restore      a database from a tree
material_back  material out of archives
recovery     a backup, or archives, back into a store
prune        what is archived leaves the store
move         a session goes to another store
scrub_material  the same of material
scrub        what should not have been stored leaves it
compact      the database written anew
drill        whether all that comes back, tried out
tokens       tokens added, listed, changed, removed
"""
