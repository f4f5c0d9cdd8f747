"""Other trust domains: where their bundles come from, and the last one of each that was accepted."""

SQL = """
CREATE TABLE federation (
    trust_domain TEXT PRIMARY KEY,
    url          TEXT NOT NULL,
    web_roots    BLOB NOT NULL,
    added_at     REAL NOT NULL,
    bundle       BLOB NOT NULL,
    accepted_at  REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO numbers VALUES ('federation_sequence', 1);
"""
