"""Proofs of identity, one per file: each turns what was presented into a live registration entry, or refuses.

`join_token` is spent once and exchanged for an enrolment key; `enrolment_key` answers a challenge; `svid` renews with
the certificate in hand, `expired` enrols with one that has ended; `kubernetes` (for the `clusters` that an operator
names) and `socket_peer` show selectors, for which `ca.selectors` finds the entry. A refusal says what was presented and
what to do, never a secret; it does not tell an unknown entry from a wrong key, for the caller is nobody yet.
"""
