"""The tables of the SQLite store, as the list of steps that led to them. A step that was released is never edited."""

from ca.store.migrations import m0001_first

STEPS: tuple[str, ...] = (m0001_first.SQL,)
"""Step n takes a database of `PRAGMA user_version` n - 1 to n."""
