"""Keys of JWT-SVIDs; selectors of entries, what they allow an expired certificate; clusters whose tokens we believe."""

SQL = """
CREATE TABLE jwt_keys (
    kid        TEXT PRIMARY KEY,
    state      TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'retired', 'revoked')),
    public_der BLOB NOT NULL,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    ends_at    REAL NOT NULL
);
CREATE UNIQUE INDEX one_active_jwt_key ON jwt_keys (state) WHERE state = 'active';
CREATE UNIQUE INDEX one_prepared_jwt_key ON jwt_keys (state) WHERE state = 'prepared';

ALTER TABLE entries ADD COLUMN selectors TEXT NOT NULL DEFAULT '[]';
ALTER TABLE entries ADD COLUMN expired_for REAL NOT NULL DEFAULT 0;

CREATE TABLE clusters (
    name       TEXT PRIMARY KEY,
    document   TEXT NOT NULL,
    created_at REAL NOT NULL
);
"""
