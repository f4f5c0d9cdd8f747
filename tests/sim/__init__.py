"""A small world in which the policies of `sidecar.traffic` can be watched: an hour of it takes seconds.

`engine` is time: a heap of what happens next. `world` has servers that queue, slow down, break and vanish, and sidecars
that ask them by the very objects that the proxy uses. `scenarios` are the bad days of distributed systems, each played
twice: with retries that nothing bounds and nobody watching, and with the budget and the breakers that we ship;
`throttling` has two callers of one server. `python -m tests.sim` plays all of them, prints what came of it and draws
docs/traffic.svg; `test_scenarios` holds the results to what docs/traffic.md says. All dice are seeded, so each run is
the same.
"""
