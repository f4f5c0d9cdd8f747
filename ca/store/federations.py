"""The store's memory of other trust domains, each with the last bundle that was accepted."""

from __future__ import annotations

import sqlite3
from typing import Any

from ca.chain import Event
from ca.errors import FederationRefused
from ca.federation import Partner
from ca.store.database import Database, log_to, next_number
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain

_COLUMNS = "trust_domain, url, web_roots, added_at, bundle, accepted_at"


class Federations(Database):
    """See `ca.store.base.Store`, method by method."""

    def add_partner(self, partner: Partner) -> None:
        """See Store.add_partner."""
        name = partner.trust_domain.name
        row = (name, partner.url, partner.web_roots, partner.added_at, b"", 0.0)
        try:
            with self._write() as db:
                db.execute(f"INSERT INTO federation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608
                log_to(db, Event(partner.added_at, "federation_added", {"trust_domain": name, "url": partner.url}))
        except sqlite3.IntegrityError:
            raise FederationRefused(f"{name} is federated with already; see `mesh ca federation list`") from None

    def remove_partner(self, trust_domain: TrustDomain, now: float) -> bool:
        """See Store.remove_partner."""
        with self._write() as db:
            if not db.execute("DELETE FROM federation WHERE trust_domain = ?", (trust_domain.name,)).rowcount:
                return False
            log_to(db, Event(now, "federation_removed", {"trust_domain": trust_domain.name}))
            next_number(db, "federation_sequence")
            return True

    def partners(self) -> tuple[Partner, ...]:
        """See Store.partners."""
        return tuple(map(_partner, self._read(f"SELECT {_COLUMNS} FROM federation ORDER BY trust_domain")))  # noqa: S608

    def accept_bundle(self, before: Partner, bundle: TrustBundle, now: float) -> bool:
        """See Store.accept_bundle."""
        held = b"" if before.bundle is None else before.bundle.to_jwks()
        name = bundle.trust_domain.name
        facts = {"trust_domain": name, "sequence": bundle.sequence, "roots": list(bundle.root_hashes())}
        with self._write() as db:
            sql = "UPDATE federation SET bundle = ?, accepted_at = ? WHERE trust_domain = ? AND url = ? AND bundle = ?"
            if not db.execute(sql, (bundle.to_jwks(), now, name, before.url, held)).rowcount:
                return False
            if bundle.to_jwks() != held:
                log_to(db, Event(now, "federated_bundle", facts))
                next_number(db, "federation_sequence")
            return True

    def federation_sequence(self) -> int:
        """See Store.federation_sequence."""
        return int(self._read("SELECT value FROM numbers WHERE name = 'federation_sequence'")[0][0])


def _partner(row: tuple[Any, ...]) -> Partner:
    name, url, web_roots, added_at, bundle, accepted_at = row
    trust_domain = TrustDomain.parse(name)
    held = TrustBundle.parse_jwks(trust_domain, bundle) if bundle else None
    return Partner(trust_domain, url, web_roots, added_at, held, accepted_at)
