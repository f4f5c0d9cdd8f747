"""The store's signing keys and what they vouch for: slots and their states, the bundle, revocations; and all acks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from ca.chain import Event
from ca.errors import DamagedCa, SlotTaken
from ca.slots import IN_BUNDLE, MOVES, SlotState
from ca.store.base import Ack, Revocation, RevocationKind, Slot
from ca.store.database import Database, log_to, next_number

_SLOT = "sha256, kind, state, certificate_der, created_at, changed_at, chain_pem, root, has_key"
_REVOCATION = "kind, target, reason, revoked_at, until"


class Authorities(Database):
    """Slots, bundle, revocations. See `ca.store.base.Store`, method by method."""

    def add_slot(self, slot: Slot) -> None:
        """See Store.add_slot."""
        with self._write() as db:
            insert_slot(db, slot)

    def set_slot_state(self, sha256: str, state: SlotState, now: float) -> None:
        """See Store.set_slot_state."""
        with self._write() as db:
            move_slot(db, sha256, state, now)

    def activate_slot(self, sha256: str, now: float) -> None:
        """See Store.activate_slot."""
        with self._write() as db:
            sql = (
                "SELECT sha256 FROM signing_slots WHERE state = 'active'"
                " AND kind = (SELECT kind FROM signing_slots WHERE sha256 = ?)"
            )
            for (active,) in db.execute(sql, (sha256,)).fetchall():
                move_slot(db, active, "retiring", now)
            move_slot(db, sha256, "active", now)

    def slots(self) -> tuple[Slot, ...]:
        """See Store.slots."""
        rows = self._read(f"SELECT {_SLOT} FROM signing_slots ORDER BY created_at, rowid")  # noqa: S608
        return tuple(map(_slot, rows))

    def bundle_sequence(self) -> int:
        """See Store.bundle_sequence."""
        return self._number("bundle_sequence")

    def revoke(self, revocation: Revocation) -> bool:
        """See Store.revoke."""
        one = revocation
        with self._write() as db:
            sql = "INSERT INTO revocations VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            if not db.execute(sql, (one.kind, one.target, one.reason, one.revoked_at, one.until)).rowcount:
                return False
            log_to(db, Event(one.revoked_at, "revoked", {"by": one.kind, "target": one.target, "reason": one.reason}))
            next_number(db, "denylist_sequence")
            return True

    def unrevoke(self, kind: RevocationKind, target: str, now: float) -> bool:
        """See Store.unrevoke."""
        with self._write() as db:
            if not db.execute("DELETE FROM revocations WHERE kind = ? AND target = ?", (kind, target)).rowcount:
                return False
            log_to(db, Event(now, "unrevoked", {"by": kind, "target": target}))
            next_number(db, "denylist_sequence")
            return True

    def revocation(self, kind: RevocationKind, target: str) -> Revocation | None:
        """See Store.revocation."""
        rows = self._read(f"SELECT {_REVOCATION} FROM revocations WHERE kind = ? AND target = ?", kind, target)  # noqa: S608
        return Revocation(*rows[0]) if rows else None

    def revocations(self, now: float) -> tuple[Revocation, ...]:
        """See Store.revocations."""
        sql = f"SELECT {_REVOCATION} FROM revocations WHERE until IS NULL OR until > ? ORDER BY revoked_at, target"  # noqa: S608
        return tuple(Revocation(*row) for row in self._read(sql, now))

    def denylist_sequence(self) -> int:
        """See Store.denylist_sequence."""
        return self._number("denylist_sequence")

    def next_crl_number(self, now: float) -> int:
        """See Store.next_crl_number."""
        with self._write() as db:
            sql = "UPDATE numbers SET value = max(value + 1, ?) WHERE name = 'crl_number' RETURNING value"
            return int(db.execute(sql, (int(now),)).fetchone()[0])

    def acknowledge(self, acks: Iterable[Ack]) -> None:
        """See Store.acknowledge."""
        with self._write(durable=False) as db:
            db.executemany(
                "INSERT INTO acks (spiffe_id, serial, topic, sequence, at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (serial, topic) DO UPDATE SET sequence = excluded.sequence, at = excluded.at",
                [(ack.spiffe_id, ack.serial, ack.topic, ack.sequence, ack.at) for ack in acks],
            )

    def acks(self) -> tuple[Ack, ...]:
        """See Store.acks."""
        rows = self._read("SELECT spiffe_id, serial, topic, sequence, at FROM acks ORDER BY spiffe_id, at, topic")
        return tuple(Ack(*row) for row in rows)

    def check_writable(self, now: float, room: int = 0) -> None:
        """See Store.check_writable."""
        with self._write(durable=False) as db:
            db.execute("UPDATE numbers SET value = ? WHERE name = 'last_check'", (now,))
            if room:
                db.execute("INSERT OR REPLACE INTO numbers VALUES ('room', zeroblob(?))", (room,))
        if room:
            with self._write(durable=False) as db:
                db.execute("DELETE FROM numbers WHERE name = 'room'")

    def _number(self, name: str) -> int:
        return int(self._read("SELECT value FROM numbers WHERE name = ?", name)[0][0])


def _slot(row: tuple[Any, ...]) -> Slot:
    values: list[Any] = [*row[:-1], bool(row[-1])]
    return Slot(*values)


def insert_slot(db: sqlite3.Connection, slot: Slot) -> None:
    """A new slot, logged, within the transaction that is open. Raises SlotTaken."""
    row = (
        slot.sha256, slot.kind, slot.state, slot.certificate_der, slot.created_at,
        slot.changed_at or slot.created_at, slot.chain_pem, slot.root, slot.has_key,
    )  # fmt: skip
    try:
        db.execute(f"INSERT INTO signing_slots ({_SLOT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    except sqlite3.IntegrityError:
        raise SlotTaken(f"this {slot.kind} is known, or another one is {slot.state} already") from None
    _log_slot(db, slot.sha256, slot.kind, slot.state, slot.created_at)
    if slot.kind == "root" and slot.state in IN_BUNDLE:
        next_number(db, "bundle_sequence")


def move_slot(db: sqlite3.Connection, sha256: str, state: SlotState, now: float) -> None:
    """Move a slot on, logged, within the transaction that is open. Raises DamagedCa for a move not in the table."""
    found: tuple[Any, Any] | None = db.execute(
        "SELECT kind, state FROM signing_slots WHERE sha256 = ?", (sha256,)
    ).fetchone()
    if found is None or state not in MOVES[found[1]]:
        raise DamagedCa(f"signing key {sha256[:16]} is {found[1] if found else 'unknown'} and cannot become {state}")
    kind, before = found
    db.execute("UPDATE signing_slots SET state = ?, changed_at = ? WHERE sha256 = ?", (state, now, sha256))
    _log_slot(db, sha256, kind, state, now, was=before)
    if kind == "root" and (before in IN_BUNDLE) != (state in IN_BUNDLE):
        next_number(db, "bundle_sequence")
    if state == "revoked":
        next_number(db, "denylist_sequence")


def _log_slot(db: sqlite3.Connection, sha256: str, kind: str, state: str, at: float, **more: str) -> None:
    log_to(db, Event(at, "slot", {"slot": sha256, "is": kind, "state": state, **more}))
