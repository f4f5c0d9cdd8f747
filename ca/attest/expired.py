"""Re-enrolment with a certificate that has ended: for a machine that slept through its renewals.

TLS refuses an expired certificate, so it is shown in the request, and its key signs a challenge together with the new
CSR. It has to be one of ours, byte for byte in our log; to have held up to its own last second, under a root that is in
the bundle today; neither it nor its identity nor any CA above it may be revoked; and its entry, which must be live, has
to allow it (`--expired-for`, at most 7 days). What a thief could do with a stolen key grows by that time, therefore it
is off unless an entry says so.
"""

from __future__ import annotations

from ca.attest.enrolment_key import Challenges
from ca.attest.proof import Attested, ExpiredProof, nothing_to_settle
from ca.durations import format_duration
from ca.entries import Entry
from ca.errors import ProofRefused
from ca.store.base import Issuance, Store
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet, root_hash
from certs.enrolment import challenge_message
from certs.errors import InvalidSvid, UntrustedSvid
from certs.signed import is_signed
from certs.spiffe import TrustDomain
from certs.svid import parse_chain
from certs.verify import verify_chain

KIND = "reenrol"  # of the statement that the old key signs


async def attest(
    store: StoreThreads,
    challenges: Challenges,
    trust_domain: TrustDomain,
    bundles: BundleSet,
    proof: ExpiredProof,
    csr_der: bytes,
    now: float,
) -> tuple[Attested, tuple[str, ...]]:
    """Judge the old certificate and use the nonce up; also the serials of it and of the CAs above it, to be looked up
    on the denylist. Raises ProofRefused, StoreUnavailable.
    """
    challenges.check(proof.entry, proof.nonce, now)
    try:
        chain = parse_chain(proof.chain_pem)
        ends = chain[0].not_valid_after_utc.timestamp()
        spiffe_id = verify_chain(chain, bundles, min(now, ends - 1))
    except (InvalidSvid, UntrustedSvid) as error:
        raise ProofRefused(f"an old certificate was presented that never held under today's roots: {error}") from None
    serial = f"{chain[0].serial_number:x}"
    ended = format_duration(max(0, now - ends))
    shown = f"certificate {serial} of {spiffe_id}, which ended {ended} ago, was presented; "
    issued, entry = await store.call(_look_up, store.store, serial)
    if issued is None or issued.certificate_sha256 != root_hash(chain[0]):
        raise ProofRefused(shown + "this CA has no record of it")
    if entry is None or entry.spiffe_id != spiffe_id or entry.id != proof.entry:
        raise ProofRefused(f"{shown}its entry {issued.entry!r} was removed, or is another")
    if not entry.expired_for:
        raise ProofRefused(f"{shown}entry {entry.id} accepts no expired ones (see `mesh ca entry add --expired-for`)")
    if now - ends > entry.expired_for:
        allowed = format_duration(entry.expired_for)
        raise ProofRefused(f"{shown}entry {entry.id} accepts them for {allowed} after their end")
    message = challenge_message(trust_domain, proof.entry, proof.nonce, csr_der)
    if not is_signed(KIND, message, proof.signature, chain[0].public_key()):
        raise ProofRefused(shown + "its key did not sign this challenge and this request")
    challenges.answer(proof.entry, proof.nonce, now)
    serials = tuple(f"{one.serial_number:x}" for one in chain)
    return Attested(entry, "expired_svid", serial, nothing_to_settle), serials


def _look_up(store: Store, serial: str) -> tuple[Issuance | None, Entry | None]:
    issued = store.issuance(serial)
    return issued, None if issued is None else store.entry(issued.entry)
