"""Processes and lifetimes. `generation` is the one place that knows constructors; `worker` tells the life of a sidecar
in order: identity before listeners, listeners before readiness, drain before exit.
"""
