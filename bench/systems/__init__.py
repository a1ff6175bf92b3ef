"""One module a system, each run in a process of its own. Those that run in a
host language share its workloads: `host.py` and `host.mjs`."""
