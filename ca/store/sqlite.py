"""The store in one SQLite file: the connection (`database`), and four parts that each keep some tables."""

from __future__ import annotations

from ca.store.authorities import Authorities
from ca.store.ledger import Ledger
from ca.store.registry import Registry
from ca.store.tokens import Tokens


class SqliteStore(Registry, Ledger, Authorities, Tokens):
    """A `Store` (see `ca.store.base`) in one file, or in memory for tests. Safe to call from any thread."""
