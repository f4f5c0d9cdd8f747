"""Join tokens: 256 random bits, worth one enrolment within their time, kept only as a SHA-256 (decision D14).

Hashed without salt or stretching: a token is random, so there is nothing to guess that a table could speed up. The one
use registers an enrolment key that the sidecar made, in the same transaction; should the answer be lost on its way, the
sidecar still holds that key and enrols with it.
"""

from __future__ import annotations

import base64
import hashlib
import math

from ca.attest.proof import Attested, TokenProof
from ca.entries import MAX_JOIN_TOKEN_TTL, EnrolmentKeyRecord, JoinTokenRecord
from ca.errors import InvalidEntry, ProofRefused, TokenUsed
from ca.store.threads import StoreThreads

TOKEN_BYTES = 32
_MAKE_ONE = "Make one with `mesh ca token ENTRY`"


def new_token(entry: str, now: float, ttl: float, entropy: bytes) -> tuple[str, JoinTokenRecord]:
    """A token for this entry and what to keep of it. `entropy` is 32 random bytes. Raises InvalidEntry."""
    if len(entropy) != TOKEN_BYTES:
        raise ValueError(f"a join token needs {TOKEN_BYTES} random bytes")
    if not (math.isfinite(ttl) and 1 <= ttl <= MAX_JOIN_TOKEN_TTL):
        raise InvalidEntry("a join token lives from 1s to 7d")
    token = base64.urlsafe_b64encode(entropy).rstrip(b"=").decode()
    return token, JoinTokenRecord(hash_token(token), entry, now, now + ttl)


def hash_token(token: str) -> str:
    """How a token is kept: SHA-256, hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


async def attest(store: StoreThreads, proof: TokenProof, now: float) -> Attested:
    """Judge a token without spending it. Raises TokenUsed, ProofRefused."""
    digest = hash_token(proof.token)
    presented = f"a join token (SHA-256 {digest[:12]}…) was presented; "
    token = await store.call(store.store.token, digest)
    if token is None:
        raise ProofRefused(presented + f"this CA knows no such token for a live entry. {_MAKE_ONE}")
    if token.used_at is not None:
        raise TokenUsed(
            f"{presented}it has been used already. The sidecar that used it goes on with its enrolment key; for another"
            f" sidecar a fresh token is needed. {_MAKE_ONE}"
        )
    if token.expires_at <= now:
        raise ProofRefused(presented + f"it expired {now - token.expires_at:.0f} s ago. {_MAKE_ONE}")
    entry = await store.call(store.store.entry, token.entry)
    if entry is None:
        raise ProofRefused(presented + "its entry was removed")
    key_id = hashlib.sha256(proof.public_bytes).hexdigest()
    key = EnrolmentKeyRecord(key_id, entry.id, proof.public_bytes, now, origin="join_token")

    async def spend() -> None:
        try:
            await store.call(store.store.redeem_token, digest, key, now)
        except InvalidEntry as error:
            raise ProofRefused(presented + str(error)) from None

    return Attested(entry, "join_token", digest, spend)
