"""Enrolment keys: a challenge, signed by a key that the entry knows; reusable, revocable, tied to one entry (D14).

Challenges cost the CA nothing to give: a nonce is random bytes and an end, sealed with a secret of this process for the
entry it was asked for. Whoever floods us with requests for challenges fills no table. Only a nonce whose challenge was
*answered* with a good signature is remembered, until it expires anyway, so that it works once. A restart forgets the
secret, and with it every open challenge; the sidecar asks for another.

A challenge is given for any name of an entry, and a refused answer never tells an unknown entry from a wrong key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass

from ca.attest.proof import Attested, KeyProof, nothing_to_settle
from ca.entries import EnrolmentKeyRecord, Entry
from ca.errors import ProofRefused
from ca.store.base import Store
from ca.store.threads import StoreThreads
from certs.enrolment import signature_is_by
from certs.spiffe import TrustDomain

NONCE_SECONDS = 60.0
SALT_BYTES = 16
_SEAL_BYTES = 32
_TIME = struct.Struct(">d")


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the CA asks to be signed, and until when (seconds since the epoch)."""

    nonce: str
    expires_at: float


class Challenges:
    """Single-use nonces. Synchronous throughout, so of two answers with one nonce exactly one is first."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._answered: dict[str, float] = {}

    def issue(self, entry: str, now: float, salt: bytes) -> Challenge:
        """A challenge for this entry. `salt` is 16 random bytes."""
        body = _TIME.pack(now + NONCE_SECONDS) + salt
        nonce = base64.urlsafe_b64encode(body + self._seal(entry, body)).rstrip(b"=").decode()
        return Challenge(nonce, now + NONCE_SECONDS)

    def check(self, entry: str, nonce: str, now: float) -> float:
        """When this nonce expires, if it is ours, for this entry, and open. Raises ProofRefused."""
        try:
            raw = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ProofRefused("the nonce is not one of this CA's; ask for a challenge first") from None
        body, seal = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == nonce
        ours = len(body) == _TIME.size + SALT_BYTES and hmac.compare_digest(seal, self._seal(entry, body))
        if not canonical or not ours:
            raise ProofRefused("the nonce was not made by this CA, since its last start, for this entry; ask again")
        expires_at = float(_TIME.unpack_from(body)[0])
        if not expires_at - NONCE_SECONDS - 1 <= now < expires_at:
            raise ProofRefused(f"the nonce is older than {NONCE_SECONDS:.0f} s; ask for another challenge")
        if nonce in self._answered:
            raise ProofRefused("the nonce has been used already; ask for another challenge")
        return expires_at

    def answer(self, entry: str, nonce: str, now: float) -> None:
        """Use the nonce up. Raises ProofRefused."""
        expires_at = self.check(entry, nonce, now)
        for old in [known for known, end in self._answered.items() if end < now - 1]:
            del self._answered[old]
        self._answered[nonce] = expires_at

    def _seal(self, entry: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, entry.encode() + b"\0" + body, hashlib.sha256)


async def attest(
    store: StoreThreads, challenges: Challenges, trust_domain: TrustDomain, proof: KeyProof, csr_der: bytes, now: float
) -> Attested:
    """Judge a signed challenge and use its nonce up. Raises ProofRefused."""
    challenges.check(proof.entry, proof.nonce, now)
    keys, entry = await store.call(_look_up, store.store, proof.entry)
    for key in keys:
        if key.revoked_at is None and signature_is_by(
            key.public_bytes, proof.signature, trust_domain, proof.entry, proof.nonce, csr_der
        ):
            break
    else:
        entry = None
    if entry is None:
        raise ProofRefused(
            f"a signed challenge for entry {proof.entry!r} was presented; no live enrolment key of a live entry of that"
            f" name in {trust_domain} made this signature. See `mesh ca entry show {proof.entry}`"
        )
    challenges.answer(proof.entry, proof.nonce, now)
    return Attested(entry, "enrolment_key", key.key_id, nothing_to_settle)


def _look_up(store: Store, name: str) -> tuple[tuple[EnrolmentKeyRecord, ...], Entry | None]:
    """Both in one go: a change of thread costs as much as either."""
    return store.keys(name), store.entry(name)
