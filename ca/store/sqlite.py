"""The store in one SQLite file: the connection (`database`), and six parts that each keep some tables."""

from __future__ import annotations

from ca.store.authorities import Authorities
from ca.store.federations import Federations
from ca.store.ledger import Ledger
from ca.store.registry import Registry
from ca.store.rotations import Rotations
from ca.store.tokens import Tokens


class SqliteStore(Registry, Ledger, Authorities, Rotations, Federations, Tokens):
    """A `Store` (see `ca.store.base`) in one file, or in memory for tests. Safe to call from any thread."""
