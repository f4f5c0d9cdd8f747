"""The first tables. Triggers, not good manners, keep the issuance log append-only and spent tokens spent."""

SQL = """
CREATE TABLE entries (
    id         TEXT PRIMARY KEY,
    spiffe_id  TEXT NOT NULL,
    dns_names  TEXT NOT NULL,
    ttl        REAL NOT NULL,
    created_at REAL NOT NULL,
    removed_at REAL
);
CREATE UNIQUE INDEX one_live_entry ON entries (spiffe_id) WHERE removed_at IS NULL;

CREATE TABLE enrolment_keys (
    key_id       TEXT PRIMARY KEY,
    entry        TEXT NOT NULL REFERENCES entries (id),
    public_bytes BLOB NOT NULL,
    created_at   REAL NOT NULL,
    revoked_at   REAL,
    origin       TEXT NOT NULL
);
CREATE INDEX keys_of_entry ON enrolment_keys (entry);

CREATE TABLE join_tokens (
    token_sha256 TEXT PRIMARY KEY,
    entry        TEXT NOT NULL REFERENCES entries (id),
    created_at   REAL NOT NULL,
    expires_at   REAL NOT NULL,
    used_at      REAL
);
CREATE TRIGGER a_token_is_spent_once BEFORE UPDATE OF used_at ON join_tokens WHEN OLD.used_at IS NOT NULL
BEGIN SELECT RAISE (ABORT, 'a join token is spent once'); END;

CREATE TABLE issuances (
    number             INTEGER PRIMARY KEY AUTOINCREMENT,
    serial             TEXT NOT NULL UNIQUE,
    entry              TEXT NOT NULL,
    spiffe_id          TEXT NOT NULL,
    dns_names          TEXT NOT NULL,
    not_before         REAL NOT NULL,
    not_after          REAL NOT NULL,
    issued_at          REAL NOT NULL,
    proof              TEXT NOT NULL,
    proof_detail       TEXT NOT NULL,
    issuer_serial      TEXT NOT NULL,
    certificate_sha256 TEXT NOT NULL
);
CREATE INDEX issuances_of_entry ON issuances (entry);
CREATE TRIGGER issuances_never_change BEFORE UPDATE ON issuances
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;
CREATE TRIGGER issuances_never_vanish BEFORE DELETE ON issuances
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;
CREATE TRIGGER issuances_are_never_replaced BEFORE INSERT ON issuances
WHEN EXISTS (SELECT 1 FROM issuances WHERE serial = NEW.serial OR number = NEW.number)
BEGIN SELECT RAISE (ABORT, 'the issuance log is append-only'); END;

CREATE TABLE slots (
    sha256          TEXT PRIMARY KEY,
    kind            TEXT NOT NULL CHECK (kind IN ('root', 'issuer')),
    state           TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'gone')),
    certificate_der BLOB NOT NULL,
    created_at      REAL NOT NULL
);
CREATE UNIQUE INDEX one_active_slot ON slots (kind) WHERE state = 'active';

CREATE TABLE acks (
    serial    TEXT NOT NULL,
    topic     TEXT NOT NULL,
    spiffe_id TEXT NOT NULL,
    sequence  INTEGER NOT NULL,
    at        REAL NOT NULL,
    PRIMARY KEY (serial, topic)
) WITHOUT ROWID;

CREATE TABLE numbers (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
INSERT INTO numbers VALUES ('bundle_sequence', 0), ('last_check', 0);
"""
