"""Ad-hoc SQL over the views for people, beside the server.

catalogue       the canned queries and the views
worker_process  a process of our own that is asked and answers
sandbox         runs untrusted, read-only SQL
datasette_app   Datasette over it
"""
