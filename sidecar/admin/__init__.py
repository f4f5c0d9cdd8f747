"""Windows onto a running sidecar, in two kinds that must not be mixed (S30, decision D26).

health.py is read-only HTTP on TCP for probes and Prometheus. api.py is everything that shows topology or changes state,
and it is reachable only through a Unix socket in the run folder, by our own user or root: no container, page or
forged request that can open a TCP connection gets there. client.py is the other end of that socket, for the CLI.
"""
