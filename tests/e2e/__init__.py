"""All of it together: the store, three agents, a browser. `make e2e` runs it in containers, `make e2e-local` without.

worlds       where it runs: what can be done to the store and to the agents from outside
composed     the world of compose.yaml
processes    the world of plain processes of this machine
checks       what has to be true, in the order in which it comes to be
containment  what has to be true of the containers besides
"""
