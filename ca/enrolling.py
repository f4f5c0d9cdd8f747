"""What an operator hands out: join tokens and enrolment keys for entries, as enrolment files (decisions D14, D15)."""

from __future__ import annotations

import hashlib
import os

from ca.attest.join_token import TOKEN_BYTES, new_token
from ca.entries import JOIN_TOKEN_TTL, EnrolmentKeyRecord, Entry, NewEntry, check_entry, entry_id
from ca.roots import load_bundle
from ca.store.base import Store
from certs.enrolment import Enrolment, EnrolmentKey, JoinToken, KubernetesToken, Proof, UnixSocket
from certs.spiffe import SpiffeId, TrustDomain


def register(store: Store, trust_domain: TrustDomain, new: NewEntry, now: float) -> Entry:
    """Add an entry. Raises InvalidEntry."""
    check_entry(new, trust_domain)
    entry = Entry(
        entry_id(new.spiffe_id, os.urandom(4)), new.spiffe_id, new.dns_names, new.ttl, now, new.selectors,
        new.expired_for,
    )  # fmt: skip
    store.add_entry(entry)
    return entry


def grant_token(store: Store, entry: Entry, ca_address: str, now: float, ttl: float = JOIN_TOKEN_TTL) -> Enrolment:
    """A file with a join token for one enrolment within `ttl` seconds. Raises InvalidEntry, UnknownEntry."""
    token, record = new_token(entry.id, now, ttl, os.urandom(TOKEN_BYTES))
    store.add_token(record)
    return _enrolment(store, entry, ca_address, JoinToken(token))


def grant_key(store: Store, entry: Entry, ca_address: str, now: float) -> Enrolment:
    """A file with a fresh enrolment key, whose public half is registered. Raises UnknownEntry."""
    key = EnrolmentKey.generate()
    store.add_key(EnrolmentKeyRecord(key_id(key), entry.id, key.public_bytes, now))
    return _enrolment(store, entry, ca_address, key)


def key_id(key: EnrolmentKey) -> str:
    """By what the CA knows this key: the SHA-256 of its public half, in hex."""
    return hashlib.sha256(key.public_bytes).hexdigest()


def describe(store: Store, entry: Entry, ca_address: str, proof: KubernetesToken | UnixSocket) -> Enrolment:
    """A file for a sidecar that proves who it is by where it runs; it holds no secret."""
    return _enrolment(store, entry, ca_address, proof)


def _enrolment(store: Store, entry: Entry, ca_address: str, proof: Proof) -> Enrolment:
    trust_domain = entry.spiffe_id.trust_domain
    roots = load_bundle(store, trust_domain).root_hashes()
    return Enrolment(trust_domain, ca_address, roots, entry.id, entry.spiffe_id, proof)


def file_name(spiffe_id: SpiffeId) -> str:
    """An enrolment file's name: `orders.json`, or `shop~orders.json` for a namespace other than the default one.

    `~` is in no SPIFFE ID, so two identities never share a file.
    """
    return spiffe_id.short.replace("/", "~") + ".json"
