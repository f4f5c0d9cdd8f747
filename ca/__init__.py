"""The mini-CA: decides who gets an identity, and is the only room with a signing key.

`entries` say who may exist; `attest/` turns one proof (a join token, a signed challenge, a current certificate) into an
entry; `template` draws up the certificate we would sign, from the entry and never from the CSR; `validate` has the last
look; `authority` reads it aloud: attest → entry → template → validate → sign → record. `store/` keeps entries and the
append-only issuance log in SQLite, `roots` the signing keys, encrypted, beside it. `api` and `watch` speak HTTPS,
`storekeeper` notices a full disk and its end, `health` and `metrics` tell of it and of all that could stop issuance,
`server` owns listeners and lifetimes, `cli` is `mesh ca …`, `bootstrap` prepares a whole CA for `mesh up`.

Imports: `certs`, `sidecar.net`, `sidecar.http`. Nothing in `sidecar` imports this package but the roof, `sidecar.cli`.
"""
