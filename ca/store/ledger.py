"""The store's log: one chain of lines (`ca.chain`), the certificates among them, and its signed heads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ca.chain import Event, Head, Line
from ca.errors import StoreUnavailable
from ca.store.base import Checkpoint, Issuance
from ca.store.database import Database, head_of, log_to


class Ledger(Database):
    """Issuance and everything else that is logged. See `ca.store.base.Store`, method by method."""

    def record(self, issuances: Sequence[Issuance]) -> frozenset[str]:
        """See Store.record."""
        try:
            with self._write() as db:
                refused = _revoked_meanwhile(db, issuances)
                log_to(db, *(_event(item) for item in issuances if item.serial not in refused))
                return refused
        except sqlite3.IntegrityError as error:
            raise StoreUnavailable(f"the issuance log refuses a line: {error}") from error

    def issuance(self, serial: str) -> Issuance | None:
        """See Store.issuance."""
        rows = self._read("SELECT number, line FROM log WHERE kind = 'issued' AND serial = ?", serial)
        return _issuance(*rows[0]) if rows else None

    def issuances(
        self, limit: int = 100, entry_id: str | None = None, *, spiffe_id: str | None = None, ends_after: float = 0.0
    ) -> tuple[Issuance, ...]:
        """See Store.issuances."""
        sql, values = "SELECT number, line FROM log WHERE kind = 'issued'", list[object]()
        for column, value in (("entry", entry_id), ("spiffe_id", spiffe_id)):
            if value is not None:
                sql, values = f"{sql} AND {column} = ?", [*values, value]
        if ends_after > 0:
            sql, values = f"{sql} AND not_after > ?", [*values, ends_after]
        rows = self._read(f"{sql} ORDER BY number DESC LIMIT ?", *values, limit)
        return tuple(_issuance(*row) for row in rows)

    def issued_count(self) -> int:
        """See Store.issued_count."""
        return int(self._read("SELECT count(*) FROM log WHERE kind = 'issued'")[0][0])

    def issued_by(self, issuer_serial: str, ends_after: float) -> tuple[int, float, float]:
        """See Store.issued_by."""
        count, first, last = self._read(
            "SELECT count(*), ifnull(min(not_after), 0), ifnull(max(not_after), 0) FROM log"
            " WHERE kind = 'issued' AND issuer_serial = ? AND not_after > ?",
            issuer_serial,
            ends_after,
        )[0]
        return int(count), float(first), float(last)

    def live(self, issuer_serial: str, now: float) -> tuple[Issuance, ...]:
        """See Store.live."""
        sql = "SELECT number, line FROM log WHERE kind = 'issued' AND issuer_serial = ? AND not_after > ?"
        return tuple(_issuance(*row) for row in self._read(f"{sql} ORDER BY number", issuer_serial, now))

    def lines(self, after: int = 0, limit: int = 1000) -> tuple[Line, ...]:
        """See Store.lines."""
        sql = "SELECT number, line, hash FROM log WHERE number > ? ORDER BY number LIMIT ?"
        return tuple(Line(*row) for row in self._read(sql, after, limit))

    def head(self) -> Head:
        """See Store.head."""
        rows = self._read("SELECT number, hash FROM log ORDER BY number DESC LIMIT 1")
        return Head(*rows[0]) if rows else Head()

    def note(self, at: float, kind: str, **facts: Any) -> None:
        """See Store.note."""
        with self._write() as db:
            log_to(db, Event(at, kind, facts))

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See Store.add_checkpoint."""
        try:
            with self._write() as db:
                row = (checkpoint.number, checkpoint.at, checkpoint.document)
                db.execute("INSERT INTO checkpoints VALUES (?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise StoreUnavailable(f"a checkpoint cannot be kept: {error}") from error

    def checkpoints(self, after: int = 0, limit: int = 1000) -> tuple[Checkpoint, ...]:
        """See Store.checkpoints."""
        sql = "SELECT number, at, document FROM checkpoints WHERE number > ? ORDER BY number LIMIT ?"
        return tuple(Checkpoint(*row) for row in self._read(sql, after, limit))

    def last_checkpoint(self) -> Checkpoint | None:
        """See Store.last_checkpoint."""
        rows = self._read("SELECT number, at, document FROM checkpoints ORDER BY number DESC LIMIT 1")
        return Checkpoint(*rows[0]) if rows else None

    def begin_again(self, now: float) -> int:
        """See Store.begin_again.

        Sequences jump to the seconds since the epoch: no CA makes more than one change a second for long, so whatever
        was told after the copy was made, by however many restored CAs, was told under a lower number.
        """
        with self._write() as db:
            jump = "UPDATE numbers SET value = max(value + 1, ?) WHERE name IN (?, ?, ?)"
            db.execute(jump, (int(now), "bundle_sequence", "denylist_sequence", "federation_sequence"))
            spent = db.execute("UPDATE join_tokens SET used_at = ? WHERE used_at IS NULL", (now,)).rowcount
            log_to(db, Event(now, "restored", {"tokens_ended": spent, "from_head": head_of(db).number}))
            return int(spent)


def _revoked_meanwhile(db: sqlite3.Connection, issuances: Sequence[Issuance]) -> frozenset[str]:
    """Serials of those that must not be issued any more. Asked inside the transaction that issues the others."""
    if not db.execute("SELECT EXISTS (SELECT 1 FROM revocations)").fetchone()[0]:
        return frozenset()
    sql = "SELECT 1 FROM revocations WHERE (kind, target) IN (VALUES ('spiffe_id', ?), ('serial', ?))"
    renewed = ((item, item.proof_detail if item.proof in ("renewal", "expired_svid") else "") for item in issuances)
    return frozenset(item.serial for item, old in renewed if db.execute(sql, (item.spiffe_id, old)).fetchone())


def _event(item: Issuance) -> Event:
    return Event(
        item.issued_at,
        "issued",
        {
            "serial": item.serial,
            "entry": item.entry,
            "spiffe_id": item.spiffe_id,
            "dns_names": list(item.dns_names),
            "not_before": item.not_before,
            "not_after": item.not_after,
            "proof": item.proof,
            "proof_detail": item.proof_detail,
            "issuer_serial": item.issuer_serial,
            "certificate_sha256": item.certificate_sha256,
        },
    )


def _issuance(number: int, text: str) -> Issuance:
    facts = json.loads(text)
    for name in ("n", "kind"):
        del facts[name]
    facts["dns_names"] = tuple(facts["dns_names"])
    return Issuance(issued_at=facts.pop("at"), number=number, **facts)
