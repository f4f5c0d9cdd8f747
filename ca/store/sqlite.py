"""The store in one SQLite file.

One connection behind one lock, in WAL mode with `synchronous=FULL`: a commit has reached the disk when it returns
(sqlite.org/pragma.html#pragma_synchronous). Other processes (`mesh ca entry add` while the server runs) are other
connections to the same file; every write is a `BEGIN IMMEDIATE`, so that nobody reads, decides and then finds the world
changed. Nothing is cached here: what one process removes, the next request of another does not find.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ca.entries import EnrolmentKeyRecord, Entry, JoinTokenRecord
from ca.errors import DamagedCa, InvalidEntry, ProofRefused, StoreUnavailable, TokenUsed, UnknownEntry
from ca.store.base import IN_BUNDLE, MOVES, Ack, Issuance, Slot, SlotState
from ca.store.migrations import STEPS
from ca.store.trouble import trouble
from certs.spiffe import SpiffeId

BUSY_TIMEOUT = 5.0  # seconds to wait for another process's commit, each of which takes milliseconds
# fullfsync: on macOS alone, a plain fsync leaves data in the drive's cache
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", "trusted_schema=OFF")
_ISSUANCE_COLUMNS = (
    "serial, entry, spiffe_id, dns_names, not_before, not_after, issued_at, proof, proof_detail, issuer_serial,"
    " certificate_sha256, number"
)
_LIVE = "EXISTS (SELECT 1 FROM entries WHERE id = entry AND removed_at IS NULL)"


class SqliteStore:
    """A `Store` (see `ca.store.base`) in one file, or in memory for tests. Safe to call from any thread."""

    def __init__(self, path: Path | None, *, create: bool = False) -> None:
        """Open the file; with `create` make it, 0600. Raises StoreUnavailable."""
        self._lock = threading.Lock()
        self._path = path
        try:
            if path is not None:
                _make_or_find(path, create)
            target = ":memory:" if path is None else str(path)
            self._db = sqlite3.connect(target, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise trouble(f"cannot open the CA's store {path}", error, path) from error

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            raise StoreUnavailable(f"the store has version {version}, this program knows {len(STEPS)}; use a newer one")
        for number, step in enumerate(STEPS[version:], version + 1):
            self._db.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")

    # ---- entries -------------------------------------------------------------------------------------------------

    def add_entry(self, entry: Entry) -> None:
        """See Store.add_entry."""
        row = (entry.id, entry.spiffe_id.text, json.dumps(entry.dns_names), entry.ttl, entry.created_at)
        try:
            with self._write() as db:
                db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, NULL)", row)
        except sqlite3.IntegrityError:
            raise InvalidEntry(f"{entry.spiffe_id} has an entry already; see `mesh ca entry list`") from None

    def entry(self, entry_id: str) -> Entry | None:
        """See Store.entry."""
        rows = self._read("SELECT * FROM entries WHERE id = ? AND removed_at IS NULL", entry_id)
        return _entry(rows[0]) if rows else None

    def entries(self) -> tuple[Entry, ...]:
        """See Store.entries."""
        return tuple(map(_entry, self._read("SELECT * FROM entries WHERE removed_at IS NULL ORDER BY created_at, id")))

    def remove_entry(self, entry_id: str, now: float) -> bool:
        """See Store.remove_entry."""
        with self._write() as db:
            sql = "UPDATE entries SET removed_at = ? WHERE id = ? AND removed_at IS NULL"
            return db.execute(sql, (now, entry_id)).rowcount == 1

    # ---- proofs --------------------------------------------------------------------------------------------------

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
            return db.execute(sql, (now, entry_id, key_id)).rowcount == 1

    def add_token(self, token: JoinTokenRecord) -> None:
        """See Store.add_token."""
        row = (token.token_sha256, token.entry, token.created_at, token.expires_at)
        with self._write() as db:
            _require_live(db, token.entry)
            db.execute("INSERT INTO join_tokens VALUES (?, ?, ?, ?, NULL)", row)

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
            _insert_key(db, key)

    # ---- the log -------------------------------------------------------------------------------------------------

    def record(self, issuances: Sequence[Issuance]) -> None:
        """See Store.record."""
        sql = f"INSERT INTO issuances ({_ISSUANCE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"  # noqa: S608
        try:
            with self._write() as db:
                db.executemany(sql, [_issuance_row(item) for item in issuances])
        except sqlite3.IntegrityError as error:
            raise StoreUnavailable(f"the issuance log refuses a line: {error}") from error

    def issuance(self, serial: str) -> Issuance | None:
        """See Store.issuance."""
        rows = self._read(f"SELECT {_ISSUANCE_COLUMNS} FROM issuances WHERE serial = ?", serial)  # noqa: S608
        return _issuance(rows[0]) if rows else None

    def issuances(self, limit: int = 100, entry_id: str | None = None) -> tuple[Issuance, ...]:
        """See Store.issuances."""
        sql = f"SELECT {_ISSUANCE_COLUMNS} FROM issuances WHERE ?1 IS NULL OR entry = ?1 ORDER BY number DESC LIMIT ?2"  # noqa: S608
        return tuple(map(_issuance, self._read(sql, entry_id, limit)))

    # ---- signing slots and the bundle ----------------------------------------------------------------------------

    def add_slot(self, slot: Slot) -> None:
        """See Store.add_slot."""
        with self._write() as db:
            row = (slot.sha256, slot.kind, slot.state, slot.certificate_der, slot.created_at)
            db.execute("INSERT INTO slots VALUES (?, ?, ?, ?, ?)", row)
            if slot.kind == "root":
                _next_bundle(db)

    def set_slot_state(self, sha256: str, state: SlotState) -> None:
        """See Store.set_slot_state."""
        with self._write() as db:
            _move_slot(db, sha256, state)

    def activate_slot(self, sha256: str) -> None:
        """See Store.activate_slot."""
        with self._write() as db:
            sql = "SELECT sha256 FROM slots WHERE state = 'active' AND kind = (SELECT kind FROM slots WHERE sha256 = ?)"
            for (active,) in db.execute(sql, (sha256,)).fetchall():
                _move_slot(db, active, "retiring")
            _move_slot(db, sha256, "active")

    def slots(self) -> tuple[Slot, ...]:
        """See Store.slots."""
        return tuple(Slot(*row) for row in self._read("SELECT * FROM slots ORDER BY created_at, rowid"))

    def bundle_sequence(self) -> int:
        """See Store.bundle_sequence."""
        return int(self._read("SELECT value FROM numbers WHERE name = 'bundle_sequence'")[0][0])

    # ---- acknowledgements and health -----------------------------------------------------------------------------

    def acknowledge(self, acks: Sequence[Ack]) -> None:
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

    def close(self) -> None:
        """See Store.close."""
        with self._lock:
            self._db.close()

    # ---- how we talk to SQLite -----------------------------------------------------------------------------------

    def _read(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise trouble("the CA's store cannot be read", error, self._path) from error

    @contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing. IntegrityError is the caller's to explain, other trouble is ours."""
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._is_open() and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                    raise trouble("the CA's store cannot be written", error, self._path) from error
                raise

    def _is_open(self) -> bool:
        try:
            return self._db.total_changes >= 0
        except sqlite3.ProgrammingError:
            return False


def _make_or_find(path: Path, create: bool) -> None:
    """Create the file 0600 before SQLite would with the umask's mode, or insist that it is there."""
    if create:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    elif not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))


def _require_live(db: sqlite3.Connection, entry_id: str) -> None:
    if not db.execute("SELECT 1 FROM entries WHERE id = ? AND removed_at IS NULL", (entry_id,)).fetchone():
        raise UnknownEntry(f"no entry {entry_id!r}; see `mesh ca entry list`")


def _insert_key(db: sqlite3.Connection, key: EnrolmentKeyRecord) -> None:
    row = (key.key_id, key.entry, key.public_bytes, key.created_at, key.revoked_at, key.origin)
    try:
        db.execute("INSERT INTO enrolment_keys VALUES (?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError:
        raise InvalidEntry("this enrolment key is registered already; make a fresh one") from None


def _move_slot(db: sqlite3.Connection, sha256: str, state: SlotState) -> None:
    found = db.execute("SELECT kind, state FROM slots WHERE sha256 = ?", (sha256,)).fetchone()
    if found is None or state not in MOVES[found[1]]:
        raise DamagedCa(f"signing key {sha256[:16]} is {found[1] if found else 'unknown'} and cannot become {state}")
    db.execute("UPDATE slots SET state = ? WHERE sha256 = ?", (state, sha256))
    if found[0] == "root" and (found[1] in IN_BUNDLE) != (state in IN_BUNDLE):
        _next_bundle(db)


def _next_bundle(db: sqlite3.Connection) -> None:
    db.execute("UPDATE numbers SET value = value + 1 WHERE name = 'bundle_sequence'")


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], SpiffeId.parse(row[1]), tuple(json.loads(row[2])), row[3], row[4])


def _issuance(row: tuple[Any, ...]) -> Issuance:
    values: list[Any] = [*row[:3], tuple(json.loads(row[3])), *row[4:]]
    return Issuance(*values)


def _issuance_row(item: Issuance) -> tuple[Any, ...]:
    return (
        item.serial, item.entry, item.spiffe_id, json.dumps(item.dns_names), item.not_before, item.not_after,
        item.issued_at, item.proof, item.proof_detail, item.issuer_serial, item.certificate_sha256,
    )  # fmt: skip
