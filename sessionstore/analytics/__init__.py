"""Ad-hoc SQL over the views for people, beside the server.

catalogue          the canned queries and the views
sandbox            SQLite's authorizer and limits: the views can be read, and nothing else
datasette_process  starts and asks it
datasette_app      stock Datasette, and what is ours by its hooks
"""
