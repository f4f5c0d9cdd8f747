"""The store's keys of JWT-SVIDs and the record of each token; and the clusters whose tokens count as proofs."""

from __future__ import annotations

import sqlite3
from typing import Any

from ca.chain import Event
from ca.errors import DamagedCa, InvalidEntry, SlotTaken
from ca.slots import IN_BUNDLE, MOVES, SlotState
from ca.store.base import Cluster, JwtIssuance, JwtSlot
from ca.store.database import Database, log_to, next_number

_KEY = "kid, state, public_der, created_at, changed_at, ends_at"


class Tokens(Database):
    """See `ca.store.base.Store`, method by method."""

    def add_jwt_key(self, key: JwtSlot) -> None:
        """See Store.add_jwt_key."""
        row = (key.kid, key.state, key.public_der, key.created_at, key.created_at, key.ends_at)
        try:
            with self._write() as db:
                db.execute(f"INSERT INTO jwt_keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608
                log_to(db, Event(key.created_at, "jwt_key", {"kid": key.kid, "state": key.state, "until": key.ends_at}))
                if key.state in IN_BUNDLE:
                    _next_bundle(db)
        except sqlite3.IntegrityError:
            raise SlotTaken(f"a key of JWT-SVIDs is {key.state} already") from None

    def set_jwt_key_state(self, kid: str, state: SlotState, now: float) -> None:
        """See Store.set_jwt_key_state."""
        with self._write() as db:
            _move(db, kid, state, now)

    def activate_jwt_key(self, kid: str, now: float) -> None:
        """See Store.activate_jwt_key."""
        with self._write() as db:
            for (active,) in db.execute("SELECT kid FROM jwt_keys WHERE state = 'active'").fetchall():
                _move(db, active, "retiring", now)
            _move(db, kid, "active", now)

    def jwt_keys(self) -> tuple[JwtSlot, ...]:
        """See Store.jwt_keys."""
        rows = self._read(f"SELECT {_KEY} FROM jwt_keys ORDER BY created_at, rowid")  # noqa: S608
        return tuple(JwtSlot(*row) for row in rows)

    def record_jwt(self, token: JwtIssuance) -> bool:
        """See Store.record_jwt."""
        facts = {
            "entry": token.entry, "spiffe_id": token.spiffe_id, "audience": list(token.audience), "kid": token.kid,
            "until": token.ends_at, "asked_with": token.serial,
        }  # fmt: skip
        sql = "SELECT 1 FROM revocations WHERE (kind, target) IN (VALUES ('spiffe_id', ?), ('serial', ?))"
        with self._write() as db:
            if db.execute(sql, (token.spiffe_id, token.serial)).fetchone():
                return False
            log_to(db, Event(token.issued_at, "jwt_issued", facts))
            return True

    def add_cluster(self, cluster: Cluster) -> None:
        """See Store.add_cluster."""
        try:
            with self._write() as db:
                row = (cluster.name, cluster.document, cluster.created_at)
                db.execute("INSERT INTO clusters VALUES (?, ?, ?)", row)
                log_to(db, Event(cluster.created_at, "cluster_added", {"cluster": cluster.name}))
        except sqlite3.IntegrityError:
            raise InvalidEntry(f"cluster {cluster.name!r} is known already; remove it first") from None

    def remove_cluster(self, name: str, now: float) -> bool:
        """See Store.remove_cluster."""
        with self._write() as db:
            if not db.execute("DELETE FROM clusters WHERE name = ?", (name,)).rowcount:
                return False
            log_to(db, Event(now, "cluster_removed", {"cluster": name}))
            return True

    def clusters(self) -> tuple[Cluster, ...]:
        """See Store.clusters."""
        rows: list[tuple[Any, ...]] = self._read("SELECT name, document, created_at FROM clusters ORDER BY name")
        return tuple(Cluster(*row) for row in rows)


def _move(db: sqlite3.Connection, kid: str, state: SlotState, now: float) -> None:
    found: tuple[Any] | None = db.execute("SELECT state FROM jwt_keys WHERE kid = ?", (kid,)).fetchone()
    if found is None or state not in MOVES[found[0]]:
        raise DamagedCa(f"key {kid[:16]} of JWT-SVIDs is {found[0] if found else 'unknown'} and cannot become {state}")
    db.execute("UPDATE jwt_keys SET state = ?, changed_at = ? WHERE kid = ?", (state, now, kid))
    log_to(db, Event(now, "jwt_key", {"kid": kid, "state": state, "was": found[0]}))
    if (found[0] in IN_BUNDLE) != (state in IN_BUNDLE):
        _next_bundle(db)


def _next_bundle(db: sqlite3.Connection) -> None:
    """One more for the bundle, unless there is none yet: the first root is what makes the first."""
    if db.execute("SELECT EXISTS (SELECT 1 FROM signing_slots WHERE kind = 'root')").fetchone()[0]:
        next_number(db, "bundle_sequence")
