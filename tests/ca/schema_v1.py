"""A store of version 1, made by the SQL that was released with it, with something in every table. Never edited."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ca.signers import Issuer
from certs.bundle import root_hash

TABLES = """
CREATE TABLE entries (id TEXT PRIMARY KEY, spiffe_id TEXT NOT NULL, dns_names TEXT NOT NULL, ttl REAL NOT NULL,
    created_at REAL NOT NULL, removed_at REAL);
CREATE UNIQUE INDEX one_live_entry ON entries (spiffe_id) WHERE removed_at IS NULL;
CREATE TABLE enrolment_keys (key_id TEXT PRIMARY KEY, entry TEXT NOT NULL REFERENCES entries (id),
    public_bytes BLOB NOT NULL, created_at REAL NOT NULL, revoked_at REAL, origin TEXT NOT NULL);
CREATE INDEX keys_of_entry ON enrolment_keys (entry);
CREATE TABLE join_tokens (token_sha256 TEXT PRIMARY KEY, entry TEXT NOT NULL REFERENCES entries (id),
    created_at REAL NOT NULL, expires_at REAL NOT NULL, used_at REAL);
CREATE TRIGGER a_token_is_spent_once BEFORE UPDATE OF used_at ON join_tokens WHEN OLD.used_at IS NOT NULL
BEGIN SELECT RAISE (ABORT, 'a join token is spent once'); END;
CREATE TABLE issuances (number INTEGER PRIMARY KEY AUTOINCREMENT, serial TEXT NOT NULL UNIQUE, entry TEXT NOT NULL,
    spiffe_id TEXT NOT NULL, dns_names TEXT NOT NULL, not_before REAL NOT NULL, not_after REAL NOT NULL,
    issued_at REAL NOT NULL, proof TEXT NOT NULL, proof_detail TEXT NOT NULL, issuer_serial TEXT NOT NULL,
    certificate_sha256 TEXT NOT NULL);
CREATE INDEX issuances_of_entry ON issuances (entry);
CREATE TRIGGER issuances_never_change BEFORE UPDATE ON issuances
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;
CREATE TRIGGER issuances_never_vanish BEFORE DELETE ON issuances
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;
CREATE TRIGGER issuances_are_never_replaced BEFORE INSERT ON issuances
WHEN EXISTS (SELECT 1 FROM issuances WHERE serial = NEW.serial OR number = NEW.number)
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;
CREATE TABLE slots (sha256 TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('root', 'issuer')),
    state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'gone')), certificate_der BLOB NOT NULL,
    created_at REAL NOT NULL);
CREATE UNIQUE INDEX one_active_slot ON slots (kind) WHERE state = 'active';
CREATE TABLE acks (serial TEXT NOT NULL, topic TEXT NOT NULL, spiffe_id TEXT NOT NULL, sequence INTEGER NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (serial, topic)) WITHOUT ROWID;
CREATE TABLE numbers (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
INSERT INTO numbers VALUES ('bundle_sequence', 1), ('last_check', 0);
PRAGMA user_version = 1;
"""
NOW = 1_800_000_000.0


def make(path: Path, issuer: Issuer) -> None:
    """Two entries, one of them removed; a key, a token, three certificates, an acknowledgement."""
    orders, web = "spiffe://demo.mesh/ns/default/sa/orders", "spiffe://demo.mesh/ns/default/sa/web"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(TABLES)
        db.execute("INSERT INTO entries VALUES ('orders-1', ?, '[\"a.b\"]', 3600, ?, NULL)", (orders, NOW))
        db.execute("INSERT INTO entries VALUES ('web-1', ?, '[]', 3600, ?, ?)", (web, NOW, NOW + 5))
        db.execute("INSERT INTO enrolment_keys VALUES ('k1', 'orders-1', ?, ?, NULL, 'operator')", (bytes(32), NOW))
        db.execute("INSERT INTO join_tokens VALUES ('t1', 'orders-1', ?, ?, NULL)", (NOW, NOW + 3600))
        for number in (1, 2, 3):
            row = (f"a{number}", orders, NOW - 60, NOW + 3600, NOW + number, "9f", issuer.serial, f"ff{number}")
            sql = "INSERT INTO issuances VALUES (NULL, ?, 'orders-1', ?, '[\"a.b\"]', ?, ?, ?, 'renewal', ?, ?, ?)"
            db.execute(sql, row)
        for kind, certificate in (("root", issuer.root), ("issuer", issuer.certificate)):
            der = certificate.public_bytes(Encoding.DER)
            row = (root_hash(certificate), kind, der, NOW)
            db.execute("INSERT INTO slots VALUES (?, ?, 'active', ?, ?)", row)
        db.execute("INSERT INTO slots VALUES ('00', 'issuer', 'gone', x'00', ?)", (NOW - 9,))
        db.execute("INSERT INTO acks VALUES ('a3', 'bundle', ?, 1, ?)", (orders, NOW))
        db.commit()
    path.chmod(0o600)
