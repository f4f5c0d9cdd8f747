"""The store's tables of who may exist, and what proves it: entries, enrolment keys, join tokens."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ca.chain import Event
from ca.entries import EnrolmentKeyRecord, Entry, JoinTokenRecord
from ca.errors import InvalidEntry, ProofRefused, TokenUsed, UnknownEntry
from ca.store.database import Database, log_to
from certs.spiffe import SpiffeId

_ENTRY = "id, spiffe_id, dns_names, ttl, created_at, selectors, expired_for"
_LIVE = "EXISTS (SELECT 1 FROM entries WHERE id = entry AND removed_at IS NULL)"


class Registry(Database):
    """Entries and proofs. See `ca.store.base.Store`, method by method."""

    def add_entry(self, entry: Entry) -> None:
        """See Store.add_entry."""
        names = list(entry.dns_names)
        selectors = list(entry.selectors)
        row = (
            entry.id, entry.spiffe_id.text, json.dumps(names), entry.ttl, entry.created_at, json.dumps(selectors),
            entry.expired_for,
        )  # fmt: skip
        facts = {
            "entry": entry.id, "spiffe_id": entry.spiffe_id.text, "dns_names": names, "ttl": entry.ttl,
            "selectors": selectors, "expired_for": entry.expired_for,
        }  # fmt: skip
        try:
            with self._write() as db:
                db.execute(f"INSERT INTO entries ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
                log_to(db, Event(entry.created_at, "entry_added", facts))
        except sqlite3.IntegrityError:
            raise InvalidEntry(f"{entry.spiffe_id} has an entry already; see `mesh ca entry list`") from None

    def entry(self, entry_id: str) -> Entry | None:
        """See Store.entry."""
        rows = self._read(f"SELECT {_ENTRY} FROM entries WHERE id = ? AND removed_at IS NULL", entry_id)  # noqa: S608
        return _entry(rows[0]) if rows else None

    def entries(self) -> tuple[Entry, ...]:
        """See Store.entries."""
        sql = f"SELECT {_ENTRY} FROM entries WHERE removed_at IS NULL ORDER BY created_at, id"  # noqa: S608
        return tuple(map(_entry, self._read(sql)))

    def remove_entry(self, entry_id: str, now: float) -> bool:
        """See Store.remove_entry."""
        with self._write() as db:
            sql = "UPDATE entries SET removed_at = ? WHERE id = ? AND removed_at IS NULL"
            if db.execute(sql, (now, entry_id)).rowcount != 1:
                return False
            log_to(db, Event(now, "entry_removed", {"entry": entry_id}))
            return True

    def add_key(self, key: EnrolmentKeyRecord) -> None:
        """See Store.add_key."""
        with self._write() as db:
            _require_live(db, key.entry)
            _insert_key(db, key)

    def keys(self, entry_id: str) -> tuple[EnrolmentKeyRecord, ...]:
        """See Store.keys."""
        sql = f"SELECT * FROM enrolment_keys WHERE entry = ? AND {_LIVE} ORDER BY created_at, key_id"  # noqa: S608
        return tuple(EnrolmentKeyRecord(*row) for row in self._read(sql, entry_id))

    def revoke_key(self, entry_id: str, key_id: str, now: float) -> bool:
        """See Store.revoke_key."""
        with self._write() as db:
            sql = "UPDATE enrolment_keys SET revoked_at = ? WHERE entry = ? AND key_id = ? AND revoked_at IS NULL"
            if db.execute(sql, (now, entry_id, key_id)).rowcount != 1:
                return False
            log_to(db, Event(now, "key_revoked", {"entry": entry_id, "key": key_id}))
            return True

    def add_token(self, token: JoinTokenRecord) -> None:
        """See Store.add_token."""
        row = (token.token_sha256, token.entry, token.created_at, token.expires_at)
        facts = {"entry": token.entry, "token": token.token_sha256, "until": token.expires_at}
        with self._write() as db:
            _require_live(db, token.entry)
            db.execute("INSERT INTO join_tokens VALUES (?, ?, ?, ?, NULL)", row)
            log_to(db, Event(token.created_at, "token_made", facts))

    def token(self, token_sha256: str) -> JoinTokenRecord | None:
        """See Store.token."""
        rows = self._read(f"SELECT * FROM join_tokens WHERE token_sha256 = ? AND {_LIVE}", token_sha256)  # noqa: S608
        return JoinTokenRecord(*rows[0]) if rows else None

    def redeem_token(self, token_sha256: str, key: EnrolmentKeyRecord, now: float) -> None:
        """See Store.redeem_token."""
        with self._write() as db:
            spent = db.execute(
                "UPDATE join_tokens SET used_at = ? WHERE token_sha256 = ? AND entry = ? AND used_at IS NULL"  # noqa: S608
                f" AND expires_at > ? AND {_LIVE}",
                (now, token_sha256, key.entry, now),
            ).rowcount
            if not spent:
                found = db.execute("SELECT used_at FROM join_tokens WHERE token_sha256 = ?", (token_sha256,)).fetchone()
                if found and found[0] is not None:
                    raise TokenUsed("this join token has been used already")
                raise ProofRefused("this join token is unknown, expired, or its entry was removed")
            log_to(db, Event(now, "token_used", {"entry": key.entry, "token": token_sha256}))
            _insert_key(db, key)


def _require_live(db: sqlite3.Connection, entry_id: str) -> None:
    if not db.execute("SELECT 1 FROM entries WHERE id = ? AND removed_at IS NULL", (entry_id,)).fetchone():
        raise UnknownEntry(f"no entry {entry_id!r}; see `mesh ca entry list`")


def _insert_key(db: sqlite3.Connection, key: EnrolmentKeyRecord) -> None:
    row = (key.key_id, key.entry, key.public_bytes, key.created_at, key.revoked_at, key.origin)
    try:
        db.execute("INSERT INTO enrolment_keys VALUES (?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise InvalidEntry("this enrolment key is registered already; make a fresh one") from None
    log_to(db, Event(key.created_at, "key_added", {"entry": key.entry, "key": key.key_id, "origin": key.origin}))


def _entry(row: tuple[Any, ...]) -> Entry:
    names, selectors = tuple(json.loads(row[2])), tuple(json.loads(row[5]))
    return Entry(row[0], SpiffeId.parse(row[1]), names, row[3], row[4], selectors, row[6])
