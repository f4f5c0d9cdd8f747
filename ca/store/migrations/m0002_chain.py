"""The log becomes one hash chain of everything that happens; signing keys get all their states; revocation.

What a line of the log says is in its text alone; the columns beside it are computed from the text, so that an index can
find it and nothing can contradict it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from ca.chain import Event, Head, append

SQL = """
CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at REAL NOT NULL);
INSERT INTO schema_versions VALUES (1, 'first', 0);

CREATE TABLE log (
    number        INTEGER PRIMARY KEY,
    line          TEXT NOT NULL,
    hash          TEXT NOT NULL,
    kind          TEXT AS (json_extract (line, '$.kind')) VIRTUAL,
    serial        TEXT AS (json_extract (line, '$.serial')) VIRTUAL,
    entry         TEXT AS (json_extract (line, '$.entry')) VIRTUAL,
    spiffe_id     TEXT AS (json_extract (line, '$.spiffe_id')) VIRTUAL,
    issuer_serial TEXT AS (json_extract (line, '$.issuer_serial')) VIRTUAL,
    not_after     REAL AS (json_extract (line, '$.not_after')) VIRTUAL
);
CREATE UNIQUE INDEX issued_once ON log (serial) WHERE kind = 'issued';
CREATE INDEX issued_for_entry ON log (entry, number) WHERE kind = 'issued';
CREATE INDEX issued_to ON log (spiffe_id, number) WHERE kind = 'issued';
CREATE INDEX issued_by ON log (issuer_serial, not_after) WHERE kind = 'issued';
CREATE TRIGGER log_lines_never_change BEFORE UPDATE ON log
BEGIN SELECT RAISE (ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_lines_never_vanish BEFORE DELETE ON log
BEGIN SELECT RAISE (ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_lines_come_last BEFORE INSERT ON log
WHEN NEW.number IS NOT (SELECT ifnull (max (number), 0) + 1 FROM log)
BEGIN SELECT RAISE (ABORT, 'the log is append-only'); END;
CREATE TRIGGER a_serial_is_issued_once BEFORE INSERT ON log
WHEN json_extract (NEW.line, '$.kind') = 'issued'
 AND EXISTS (SELECT 1 FROM log WHERE kind = 'issued' AND serial = json_extract (NEW.line, '$.serial'))
BEGIN SELECT RAISE (ABORT, 'the log is append-only: this serial was issued before'); END;

CREATE TABLE checkpoints (
    number   INTEGER PRIMARY KEY REFERENCES log (number),
    at       REAL NOT NULL,
    document TEXT NOT NULL
);
CREATE TRIGGER checkpoints_never_change BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE (ABORT, 'checkpoints are append-only'); END;
CREATE TRIGGER checkpoints_never_vanish BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE (ABORT, 'checkpoints are append-only'); END;

CREATE TABLE revocations (
    kind       TEXT NOT NULL CHECK (kind IN ('serial', 'spiffe_id')),
    target     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    revoked_at REAL NOT NULL,
    until      REAL,
    PRIMARY KEY (kind, target)
) WITHOUT ROWID;
INSERT INTO numbers VALUES ('denylist_sequence', 1), ('crl_number', 0);

CREATE TABLE signing_slots (
    sha256          TEXT PRIMARY KEY,
    kind            TEXT NOT NULL CHECK (kind IN ('root', 'issuer')),
    state           TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'retired', 'revoked')),
    certificate_der BLOB NOT NULL,
    created_at      REAL NOT NULL,
    changed_at      REAL NOT NULL,
    chain_pem       BLOB NOT NULL,
    root            TEXT NOT NULL,
    has_key         INTEGER NOT NULL
);
INSERT INTO signing_slots SELECT sha256, kind, iif (state = 'gone', 'retired', state), certificate_der, created_at,
    created_at, x'', CASE kind WHEN 'root' THEN sha256
    ELSE ifnull ((SELECT sha256 FROM slots WHERE kind = 'root' AND state = 'active'), '') END, 1
    FROM slots ORDER BY created_at, rowid;
DROP TABLE slots;
CREATE UNIQUE INDEX one_active ON signing_slots (kind) WHERE state = 'active';
CREATE UNIQUE INDEX one_prepared ON signing_slots (kind) WHERE state = 'prepared';
"""

_OLD_LOG = (
    "SELECT issued_at, serial, entry, spiffe_id, dns_names, not_before, not_after, proof, proof_detail, issuer_serial,"
    " certificate_sha256 FROM issuances ORDER BY number"
)
_OLD_NAMES = (
    "serial", "entry", "spiffe_id", "dns_names", "not_before", "not_after", "proof", "proof_detail", "issuer_serial",
    "certificate_sha256",
)  # fmt: skip


def fill(db: sqlite3.Connection) -> None:
    """Chain what the old log held, then say what stood at this moment; the old table goes."""
    lines = append(Head(), _history(db))
    db.executemany("INSERT INTO log (number, line, hash) VALUES (?, ?, ?)", ((n.number, n.text, n.hash) for n in lines))
    db.execute("DROP TABLE issuances")


def _history(db: sqlite3.Connection) -> Iterator[Event]:
    at = 0.0
    for at, *values in db.execute(_OLD_LOG):
        values[3] = json.loads(values[3])
        yield Event(at, "issued", dict(zip(_OLD_NAMES, values, strict=True)))
    standing = list(_standing(db))
    at = max([at, *(event.at for event in standing)])
    for event in standing:
        yield Event(at, event.kind, event.facts)
    if at:
        yield Event(at, "migrated", {"version": 2})


def _standing(db: sqlite3.Connection) -> Iterator[Event]:
    for sha256, kind, state, at in db.execute("SELECT sha256, kind, state, created_at FROM signing_slots"):
        yield Event(at, "slot", {"slot": sha256, "is": kind, "state": state})
    for entry, spiffe_id, dns_names, ttl, at, removed in db.execute("SELECT * FROM entries ORDER BY created_at, id"):
        facts = {"entry": entry, "spiffe_id": spiffe_id, "dns_names": json.loads(dns_names), "ttl": ttl}
        yield Event(at, "entry_added", facts)
        if removed is not None:
            yield Event(removed, "entry_removed", {"entry": entry})
