"""What the CA must remember: entries, keys, tokens, signing slots, acknowledgements, and the append-only issuance log.

`base` says what a store promises, `sqlite` keeps the promise in one file, `migrations/` is the history of its tables.
A second store passes when `tests/ca/store/test_store.py` passes over it.
"""
