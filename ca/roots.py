"""The signing keys on disk, and what the store knows of each: made, loaded, prepared, taken into use.

Certificates and states (`ca.slots`) are in the store, each key in an encrypted PKCS #8 file named by its certificate's
hash. A key is on disk before its slot is in the store, and its slot says that it is gone before the file goes: killed
in between, what is left is a file that no certificate names. The server signs with the issuing CA's key; the root's is
opened to make the next issuing CA, and is not here at all where the root belongs to somebody's own PKI.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from ca.config import KEYS_DIR, load_settings
from ca.errors import DamagedCa, IssuerUnusable
from ca.signers import CA_BACKDATE, ISSUER_TTL, Issuer, make_issuer
from ca.slots import IN_BUNDLE, Life, SlotKind, SlotState
from ca.store.base import Slot, Store
from certs.bundle import JwtKey, TrustBundle, root_hash
from certs.keys import PrivateKey, load_key, make_key, public_bytes, save_key
from certs.spiffe import TrustDomain

REFRESH_HINT = 300  # seconds; what consumers without a watch should poll at (S3)


def prepare_issuer(
    directory: Path, store: Store, trust_domain: TrustDomain, passphrase: bytes, now: float, ttl: float = ISSUER_TTL
) -> Slot:
    """Make the next issuing CA under the active root; it is `prepared`.

    Raises IssuerUnusable where the root is at its end or its key is elsewhere, KeyUnavailable (wrong passphrase),
    SlotTaken where one is prepared already.
    """
    slot = active(store, "root")
    if not slot.has_key:
        raise IssuerUnusable(
            "the root's key is not on this machine: make a request with `mesh ca csr`, have your PKI sign it, and hand"
            " the certificate to `mesh ca import`"
        )
    root = certificate_of(slot)
    settings = load_settings(directory)
    root_key, key = load_signing_key(directory, root, passphrase), make_key(settings.key_kind)
    certificate = make_issuer(trust_domain, key, root, root_key, now, ttl)
    save_key(key_path(directory, certificate), key, passphrase, settings.kdf_rounds)
    prepared = slot_of(certificate, "issuer", now, "prepared", root=slot.sha256)
    store.add_slot(prepared)
    return prepared


def renew_issuer(
    directory: Path, store: Store, trust_domain: TrustDomain, passphrase: bytes, now: float, ttl: float = ISSUER_TTL
) -> Issuer:
    """Let another issuing CA take over now: the prepared one, or else a new one. Raises as `prepare_issuer`."""
    prepared = find(store.slots(), "issuer", "prepared")
    if prepared is None:
        prepared = prepare_issuer(directory, store, trust_domain, passphrase, now, ttl)
    store.activate_slot(prepared.sha256, now)
    return load_issuer(directory, store, passphrase)


def withdraw_prepared(store: Store, now: float) -> None:
    """Give up the prepared issuing CA, if there is one, before it has signed anything."""
    prepared = find(store.slots(), "issuer", "prepared")
    if prepared is not None:
        store.set_slot_state(prepared.sha256, "revoked", now)


def revoke_issuers(directory: Path, store: Store, now: float) -> tuple[str, ...]:
    """Revoke every issuing CA but the active one, and destroy their keys; the serials of those that held until now.

    What they signed is denied by every sidecar that hears of it, and has to be issued anew.
    """
    revoked = []
    for slot in store.slots():
        if slot.kind == "issuer" and slot.state in ("retiring", "prepared"):
            store.set_slot_state(slot.sha256, "revoked", now)
            revoked.append(f"{certificate_of(slot).serial_number:x}")
    for slot in store.slots():
        if slot.state == "revoked":
            key_file(directory, slot.sha256).unlink(missing_ok=True)
    return tuple(revoked)


def load_issuer(directory: Path, store: Store, passphrase: bytes) -> Issuer:
    """The active issuing CA with its key. Raises KeyUnavailable (wrong passphrase, open file), DamagedCa."""
    return load_slot(directory, store.slots(), active(store, "issuer"), passphrase)


def load_slot(directory: Path, slots: Iterable[Slot], slot: Slot, passphrase: bytes) -> Issuer:
    """This issuing CA with its key, the CAs above it and its root. Raises KeyUnavailable, DamagedCa."""
    root_slot = next((one for one in slots if one.kind == "root" and one.sha256 == slot.root), None)
    if root_slot is None or root_slot.state not in IN_BUNDLE:
        raise DamagedCa("the issuing CA was not issued by a root of this CA's bundle")
    certificate, root = certificate_of(slot), certificate_of(root_slot)
    chain = chain_of(slot)
    upward = (certificate, *chain, root)
    for lower, upper in pairwise(upward):
        try:
            lower.verify_directly_issued_by(upper)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise DamagedCa("the issuing CA was not issued by the root that its slot names") from error
    return Issuer(certificate, load_signing_key(directory, certificate, passphrase), root, chain)


def load_bundle(store: Store, trust_domain: TrustDomain) -> TrustBundle:
    """The trust bundle as it is now: every root, and every key of JWT-SVIDs, that is prepared, active or
    retiring (S3: overlap is plain union).
    """
    sequence = store.bundle_sequence()  # read first: a change in between makes this bundle too new, never too old
    roots = [certificate_of(slot) for slot in store.slots() if slot.kind == "root" and slot.state in IN_BUNDLE]
    jwt_keys = tuple(JwtKey(key.kid, key.public_der) for key in store.jwt_keys() if key.state in IN_BUNDLE)
    return TrustBundle(trust_domain, tuple(roots), sequence, REFRESH_HINT, jwt_keys)


def key_path(directory: Path, certificate: x509.Certificate) -> Path:
    """Where the key of this signing certificate lies."""
    return key_file(directory, root_hash(certificate))


def key_file(directory: Path, sha256: str) -> Path:
    """Where the key of the certificate with this hash lies."""
    return directory / KEYS_DIR / f"{sha256[:32]}.pem"


def load_signing_key(directory: Path, certificate: x509.Certificate, passphrase: bytes) -> PrivateKey:
    """The key of this signing certificate. Raises KeyUnavailable, DamagedCa where it is that of another."""
    key = load_key(key_path(directory, certificate), passphrase)
    if public_bytes(key.public_key()) != public_bytes(certificate.public_key()):  # type: ignore[arg-type]
        raise DamagedCa(f"{key_path(directory, certificate)} is not the key of its certificate")
    return key


def find(slots: Iterable[Slot], kind: SlotKind, state: SlotState) -> Slot | None:
    """The newest slot of this kind in this state."""
    return next((slot for slot in reversed(tuple(slots)) if (slot.kind, slot.state) == (kind, state)), None)


def active(store: Store, kind: SlotKind) -> Slot:
    """The active slot of this kind. Raises DamagedCa, NoCa where the first issuing CA has yet to be imported."""
    slots = store.slots()
    slot = find(slots, kind, "active")
    if slot is None and not slots:
        raise IssuerUnusable("no issuing CA yet: run `mesh ca csr`, let your PKI sign it, then `mesh ca import`")
    if slot is None:
        raise DamagedCa(f"the store has no active {kind}")
    return slot


def active_slot(store: Store, kind: SlotKind) -> x509.Certificate:
    """The certificate of the active slot of this kind. Raises as `active`."""
    return certificate_of(active(store, kind))


def certificate_of(slot: Slot) -> x509.Certificate:
    """The slot's certificate."""
    return x509.load_der_x509_certificate(slot.certificate_der)


def chain_of(slot: Slot) -> tuple[x509.Certificate, ...]:
    """The CAs between this slot and its root, nearest first."""
    return tuple(x509.load_pem_x509_certificates(slot.chain_pem)) if slot.chain_pem else ()


def slot_of(
    certificate: x509.Certificate,
    kind: SlotKind,
    now: float,
    state: SlotState = "active",
    *,
    root: str | None = None,
    chain: Iterable[x509.Certificate] = (),
    has_key: bool = True,
) -> Slot:
    """A slot for this certificate; without `root`, a root is its own."""
    sha256 = root_hash(certificate)
    pem = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
    der = certificate.public_bytes(Encoding.DER)
    return Slot(sha256, kind, state, der, now, now, pem, root or (sha256 if kind == "root" else ""), has_key)


def life_of(slot: Slot) -> Life:
    """The slot as the schedule sees it: measured from its making, not from its back-dated notBefore."""
    certificate = certificate_of(slot)
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    made = min(max(begins, slot.created_at), begins + CA_BACKDATE)
    return Life(slot.sha256, slot.state, made, begins, ends)
