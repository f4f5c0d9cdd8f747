"""Renewal: the proof is the certificate in hand, shown over mTLS.

It has to hold *now*, not only at the handshake: a connection may outlive the certificate it began with. It has to be in
our own log, byte for byte, and the entry it was issued for has to be live still, with the same SPIFFE ID. An entry that
was removed and added again is another entry: its sidecars enrol anew.
"""

from __future__ import annotations

from cryptography import x509

from ca.attest.proof import Attested, nothing_to_settle
from ca.entries import Entry
from ca.errors import ClientCertificateNeeded, RenewalRefused
from ca.store.base import Issuance, Store
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet, root_hash
from certs.errors import InvalidSvid, UntrustedSvid
from certs.verify import verify_chain

Chain = tuple[x509.Certificate, ...]


async def attest(store: StoreThreads, bundles: BundleSet, chain: Chain, now: float) -> Attested:
    """Judge the chain that the caller showed. Raises ClientCertificateNeeded, RenewalRefused."""
    if not chain:
        raise ClientCertificateNeeded("renewal needs the current certificate over mTLS; without one, enrol again")
    try:
        spiffe_id = verify_chain(chain, bundles, now)
    except (InvalidSvid, UntrustedSvid) as error:
        raise RenewalRefused(f"the certificate shown does not hold: {error}. Enrol again") from error
    serial = f"{chain[0].serial_number:x}"
    shown = f"certificate {serial} of {spiffe_id} was shown; "
    issued, entry = await store.call(_look_up, store.store, serial)
    if issued is None or issued.certificate_sha256 != root_hash(chain[0]):
        raise RenewalRefused(shown + "this CA has no record of it. Enrol again")
    if entry is None or entry.spiffe_id != spiffe_id:
        raise RenewalRefused(f"{shown}its entry {issued.entry!r} was removed. Enrol again once it is added")
    return Attested(entry, "renewal", serial, nothing_to_settle)


def _look_up(store: Store, serial: str) -> tuple[Issuance | None, Entry | None]:
    """Both in one go: a change of thread costs as much as either."""
    issued = store.issuance(serial)
    return issued, None if issued is None else store.entry(issued.entry)
