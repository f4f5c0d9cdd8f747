"""The tables of the SQLite store, as the list of steps that led to them. A step that was released is never edited.

Step n takes a database of `PRAGMA user_version` n - 1 to n, whole or not at all; the table `schema_versions` remembers
when. Every released version has a store in the tests, made by the SQL of its time, that is brought up to today's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from ca.store.migrations import m0001_first, m0002_chain, m0003_proofs, m0004_federation


@dataclass(frozen=True, slots=True)
class Step:
    """One step: SQL, and what SQL cannot say, done after it in the same transaction."""

    name: str
    sql: str
    fill: Callable[[sqlite3.Connection], None] | None = None


STEPS: tuple[Step, ...] = (
    Step("first", m0001_first.SQL),
    Step("chain", m0002_chain.SQL, m0002_chain.fill),
    Step("proofs", m0003_proofs.SQL),
    Step("federation", m0004_federation.SQL),
)
