"""The signing keys and the table of states that each of them goes through.

    prepared → active → retiring → gone        a root is in the bundle in all but the last

Certificates and states are in the store, each key in an encrypted PKCS #8 file named by its certificate's hash. The
server needs only the issuing CA's key; the root's is opened to make the next issuing CA.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.config import KEYS_DIR
from ca.errors import DamagedCa
from ca.signers import ISSUER_TTL, Issuer, make_issuer
from ca.store.base import IN_BUNDLE, Slot, SlotKind, SlotState, Store
from certs.bundle import TrustBundle, root_hash
from certs.keys import PrivateKey, load_key, new_key, public_bytes, save_key
from certs.spiffe import TrustDomain

REFRESH_HINT = 300  # seconds; what consumers without a watch should poll at (S3)


def renew_issuer(
    directory: Path, store: Store, trust_domain: TrustDomain, passphrase: bytes, now: float, ttl: float = ISSUER_TTL
) -> Issuer:
    """Make a new issuing CA under the active root and let it take over; the old one retires.

    Raises IssuerUnusable where the root is at its end, KeyUnavailable where the passphrase is wrong.
    """
    root = active_slot(store, "root")
    root_key, key = _load_signing_key(directory, root, passphrase), new_key()
    certificate = make_issuer(trust_domain, key, root, root_key, now, ttl)
    save_key(key_path(directory, certificate), key, passphrase)
    slot = slot_of(certificate, "issuer", now, "prepared")
    store.add_slot(slot)
    store.activate_slot(slot.sha256)
    return Issuer(certificate, key, root)


def load_issuer(directory: Path, store: Store, passphrase: bytes) -> Issuer:
    """The active issuing CA with its key. Raises KeyUnavailable (wrong passphrase, open file), DamagedCa."""
    root, certificate = active_slot(store, "root"), active_slot(store, "issuer")
    try:
        certificate.verify_directly_issued_by(root)
    except Exception as error:  # InvalidSignature, ValueError, TypeError: whichever, this CA does not hold together
        raise DamagedCa("the active issuing CA was not issued by the active root") from error
    return Issuer(certificate, _load_signing_key(directory, certificate, passphrase), root)


def load_bundle(store: Store, trust_domain: TrustDomain) -> TrustBundle:
    """The trust bundle as it is now: every root that is prepared, active or retiring (S3: overlap is plain union)."""
    sequence = store.bundle_sequence()  # read first: a change in between makes this bundle too new, never too old
    roots = [
        x509.load_der_x509_certificate(slot.certificate_der)
        for slot in store.slots()
        if slot.kind == "root" and slot.state in IN_BUNDLE
    ]
    return TrustBundle(trust_domain, tuple(roots), sequence, REFRESH_HINT)


def key_path(directory: Path, certificate: x509.Certificate) -> Path:
    """Where the key of this signing certificate lies."""
    return directory / KEYS_DIR / f"{root_hash(certificate)[:32]}.pem"


def _load_signing_key(directory: Path, certificate: x509.Certificate, passphrase: bytes) -> PrivateKey:
    key = load_key(key_path(directory, certificate), passphrase)
    if public_bytes(key.public_key()) != public_bytes(certificate.public_key()):  # type: ignore[arg-type]
        raise DamagedCa(f"{key_path(directory, certificate)} is not the key of its certificate")
    return key


def active_slot(store: Store, kind: SlotKind) -> x509.Certificate:
    for slot in store.slots():
        if slot.kind == kind and slot.state == "active":
            return x509.load_der_x509_certificate(slot.certificate_der)
    raise DamagedCa(f"the store has no active {kind}")


def slot_of(certificate: x509.Certificate, kind: SlotKind, now: float, state: SlotState = "active") -> Slot:
    return Slot(root_hash(certificate), kind, state, certificate.public_bytes(Encoding.DER), now)
