"""An issuing CA that somebody's own PKI signs: the request, the import, and every rule that it has to keep.

The root's key never comes near this machine. `make_request` makes a key, keeps it encrypted, and writes a PKCS #10
request; the PKI signs it; `import_issuer` takes the certificate, any CAs between, and the root. Nothing of it is
believed: each rule has a name, and at the end leaves are signed in memory, for the CA itself and for every entry, and
put before the verifier that every sidecar uses. What fails there would have failed on the wire.

The first import completes a CA that `mesh ca init --external` began. A later one, under a root of the bundle, is
`prepared` and takes over on schedule, like an issuing CA that we made ourselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ca.config import ENROLMENT_DIR, KEYS_DIR, SETTINGS_FILE, STORE_FILE, CaSettings, load_settings
from ca.create import appear, workshop_for
from ca.entries import DEFAULT_TTL, Entry
from ca.errors import CaError, DamagedCa, ImportRefused
from ca.roots import active, find, key_path, load_signing_key, slot_of
from ca.signers import Issuer
from ca.slots import MIN_ISSUER_TTL
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from ca.template import digest_for, draw_up, key_usage, sign
from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import IdentityError, InvalidSvid, KeyUnavailable, UntrustedSvid
from certs.keys import PrivateKey, load_key, make_key, new_key, public_bytes, save_key
from certs.spiffe import SpiffeId, TrustDomain, ca_id
from certs.store import write_private
from certs.svid import check_signer
from certs.verify import explain_time, verify_chain

REQUEST_PREFIX = "request-"
GOOD_LIFE = 3 * DEFAULT_TTL  # Consul: an intermediate lives at least three times as long as a leaf (S6)


@dataclass(frozen=True, slots=True)
class Imported:
    """An issuing CA that was accepted. `warnings` are what the operator should hear all the same."""

    certificate: x509.Certificate
    root: x509.Certificate
    state: str
    warnings: tuple[str, ...]


def begin(directory: Path, settings: CaSettings) -> None:
    """A CA without any signing key yet, for `make_request`. Raises CaExists, OSError."""
    with workshop_for(directory) as workshop:
        for name in (KEYS_DIR, ENROLMENT_DIR):
            (workshop / name).mkdir(mode=0o700)
        write_private(workshop / SETTINGS_FILE, settings.to_json())
        SqliteStore(workshop / STORE_FILE, create=True).close()
        appear(workshop, directory)


def make_request(directory: Path, trust_domain: TrustDomain, passphrase: bytes) -> bytes:
    """A PKCS #10 request (PEM) for an issuing CA with a fresh key, which is kept encrypted. Raises KeyUnavailable.

    It asks for what the certificate must have: CA:TRUE, path length 0, keyCertSign and cRLSign, the trust domain's URI.
    """
    _check_passphrase(directory, passphrase)
    settings = load_settings(directory)
    key = make_key(settings.key_kind)
    label = f"{trust_domain.name[:32]} mesh issuing CA {_fingerprint(key)[:16]}"
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), False)
        .sign(key, digest_for(key))
    )
    path = directory / KEYS_DIR / f"{REQUEST_PREFIX}{_fingerprint(key)[:32]}.pem"
    save_key(path, key, passphrase, settings.kdf_rounds)
    return request.public_bytes(Encoding.PEM)


def import_issuer(
    directory: Path,
    store: Store,
    trust_domain: TrustDomain,
    passphrase: bytes,
    chain: Sequence[x509.Certificate],
    root: x509.Certificate,
    now: float,
) -> Imported:
    """Take an issuing CA (`chain`: itself, then what lies between it and the root) into use, if it keeps every rule.

    Raises ImportRefused, naming the rule; KeyUnavailable (wrong passphrase); SlotTaken where one is prepared already.
    """
    between = tuple(one for one in chain[1:] if one != root)
    certificate = chain[0]
    key, request = _find_key(directory, certificate, passphrase)
    warnings = check_import(Issuer(certificate, key, root, between), trust_domain, store.entries(), now)
    slots = store.slots()
    known_root = next((slot for slot in slots if slot.sha256 == root_hash(root)), None)
    first = not slots
    if known_root is not None and known_root.state != "active":
        raise ImportRefused(f"this root is {known_root.state}, not the one that is active [active_root]")
    if not first and known_root is None:
        raise ImportRefused(
            "this root is not in the trust bundle: sidecars would refuse all that the new issuing CA signs. A change of"
            " the root is a rotation: `mesh ca rotate-root --go --issuer CERTIFICATE --root ROOT` [known_root]"
        )
    if any(slot.sha256 == root_hash(certificate) for slot in slots):
        raise ImportRefused("this certificate was imported before [new]")
    save_key(key_path(directory, certificate), key, passphrase, load_settings(directory).kdf_rounds)
    if first:
        store.add_slot(slot_of(root, "root", now, has_key=False))
    state = "prepared" if find(slots, "issuer", "active") else "active"
    store.add_slot(
        slot_of(
            certificate, "issuer", now, "prepared" if state == "prepared" else "active",
            root=root_hash(root), chain=between,
        )
    )  # fmt: skip
    if request is not None:
        request.unlink(missing_ok=True)
    return Imported(certificate, root, state, warnings)


def accept_for_rotation(
    directory: Path,
    store: Store,
    trust_domain: TrustDomain,
    passphrase: bytes,
    chain: Sequence[x509.Certificate],
    root: x509.Certificate,
    now: float,
) -> tuple[Issuer, tuple[str, ...]]:
    """An issuing CA under a root that is new to us, held against every rule; and what should be heard of it.

    Its key is then where `ca.roots` looks for it; the store knows nothing yet. Raises ImportRefused, KeyUnavailable.
    """
    if any(slot.sha256 == root_hash(root) for slot in store.slots()):
        raise ImportRefused("this CA knows this root already; one that has left the bundle never comes back [new_root]")
    key, request = _find_key(directory, chain[0], passphrase)
    issuer = Issuer(chain[0], key, root, tuple(one for one in chain[1:] if one != root))
    warnings = check_import(issuer, trust_domain, store.entries(), now)
    save_key(key_path(directory, chain[0]), key, passphrase, load_settings(directory).kdf_rounds)
    if request is not None:
        request.unlink(missing_ok=True)
    return issuer, warnings


def check_import(issuer: Issuer, trust_domain: TrustDomain, entries: Sequence[Entry], now: float) -> tuple[str, ...]:
    """Hold an issuing CA against every rule; what should be heard although it is accepted. Raises ImportRefused."""
    certificate, root = issuer.certificate, issuer.root
    _check_signers(issuer, trust_domain)
    _check_path(issuer)
    _check_times(issuer, now)
    if certificate == root or _same_key(certificate, root):
        _refuse("own_key", "the issuing CA has the root's own key; the root's key must not be here")
    bundles = BundleSet((TrustBundle(trust_domain, (root,)),))
    warnings = []
    _rehearse(issuer, ca_id(trust_domain), (), bundles, now)
    for entry in entries:
        _rehearse(issuer, entry.spiffe_id, entry.dns_names, bundles, now)
    if issuer.not_after - now < GOOD_LIFE:
        warnings.append(f"it is {explain_time(certificate, now)}, less than three times the life of a leaf")
    if not _uris(certificate):
        warnings.append("it names no trust domain (no URI name): nothing but its root keeps it to this one")
    return tuple(warnings)


def _check_signers(issuer: Issuer, trust_domain: TrustDomain) -> None:
    """Every certificate is a CA, strong enough, and of this trust domain if it names one."""
    of = SpiffeId(trust_domain, "")
    for signer, name in zip(issuer.signers, _names(issuer), strict=True):
        try:
            check_signer(signer, of)
            constraints = signer.extensions.get_extension_for_class(x509.BasicConstraints)
        except (InvalidSvid, x509.ExtensionNotFound) as error:
            rule = error.rule if isinstance(error, InvalidSvid) else "signer_is_ca"
            _refuse(rule, f"{name} cannot sign SVIDs: {getattr(error, 'detail', error)}")
        if not constraints.critical:
            _refuse("constraints_critical", f"the basic constraints of {name} are not critical (RFC 5280 4.2.1.9)")
    usage = issuer.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.crl_sign:
        _refuse("crl_sign", "the issuing CA may not sign revocation lists (no cRLSign); it has to sign the denylist")
    try:
        issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        _refuse("key_identifier", "the issuing CA has no subject key identifier (RFC 5280 4.2.1.2)")
    if not list(issuer.certificate.subject):
        _refuse("subject", "the issuing CA has an empty subject, so no leaf could name it (RFC 5280 4.1.2.6)")


def _check_path(issuer: Issuer) -> None:
    """Each is issued by the next, the root by itself, and path lengths leave room for what is below."""
    root = issuer.root
    if not _issued(root, root):
        _refuse("self_signed", "the root is not self-signed: give the root itself, and the CAs between with --chain")
    for number, (lower, upper) in enumerate(zip(issuer.signers, issuer.signers[1:], strict=False)):
        name = _names(issuer)[number]
        if not _issued(lower, upper):
            _refuse("chain", f"{name} was not issued by {_names(issuer)[number + 1]}: wrong root, or a CA is missing")
    for below, signer in enumerate(issuer.signers):
        length = signer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if length is not None and length < below:
            _refuse("path_length", f"{_names(issuer)[below]} allows {length} CAs below itself; there would be {below}")


def _check_times(issuer: Issuer, now: float) -> None:
    for signer, name in zip(issuer.signers, _names(issuer), strict=True):
        if not signer.not_valid_before_utc.timestamp() <= now < signer.not_valid_after_utc.timestamp():
            _refuse("time", f"{name} is {explain_time(signer, now)}")
    if issuer.not_after - now < MIN_ISSUER_TTL:
        _refuse("time", f"the issuing CA, or one above it, ends in {issuer.not_after - now:.0f} s")


def _rehearse(
    issuer: Issuer, spiffe_id: SpiffeId, dns_names: tuple[str, ...], bundles: BundleSet, now: float
) -> None:
    """Sign a leaf that nobody will see and judge it as a sidecar would: name constraints, and what we overlooked."""
    key = new_key()
    template = draw_up(spiffe_id, dns_names, DEFAULT_TTL, key.public_key(), issuer.signers, now, b"\x01" * 16)
    leaf = sign(template, issuer.certificate, issuer.key)
    try:
        verify_chain((leaf, *issuer.signers[:-1]), bundles, now)
    except (InvalidSvid, UntrustedSvid) as error:
        rule = error.rule if isinstance(error, InvalidSvid) else error.reason
        names = f" with {', '.join(dns_names)}" if dns_names else ""
        _refuse(rule, f"a certificate for {spiffe_id}{names} that it signed would be refused: {error.detail}")


def _find_key(directory: Path, certificate: x509.Certificate, passphrase: bytes) -> tuple[PrivateKey, Path | None]:
    """The key of this certificate, out of an open request (or of an import that was cut short)."""
    if key_path(directory, certificate).exists():
        return load_signing_key(directory, certificate, passphrase), None
    requests = sorted((directory / KEYS_DIR).glob(f"{REQUEST_PREFIX}*.pem"))
    wanted = _hash_of(certificate)
    for path in requests:
        if path.stem.removeprefix(REQUEST_PREFIX) == wanted[:32]:
            key = load_key(path, passphrase)
            if public_bytes(key.public_key()) == _public(certificate):
                return key, path
            raise DamagedCa(f"{path} is not the key that its name says")
    raise ImportRefused(
        f"the certificate is for a key that is not here ({len(requests)} open requests); make a request with"
        " `mesh ca csr`, on this machine and for this CA [key_match]"
    )


def _check_passphrase(directory: Path, passphrase: bytes) -> None:
    """All keys of a CA have one passphrase: try it on one that is there. Raises KeyUnavailable."""
    with closing(SqliteStore(directory / STORE_FILE)) as store:
        try:
            slot = active(store, "issuer")
        except CaError:
            slot = None
    paths = [directory / KEYS_DIR / f"{slot.sha256[:32]}.pem"] if slot else []
    for path in (*paths, *sorted((directory / KEYS_DIR).glob(f"{REQUEST_PREFIX}*.pem"))):
        load_key(path, passphrase)
        return
    if not passphrase:
        raise KeyUnavailable("the passphrase is empty")


def _names(issuer: Issuer) -> tuple[str, ...]:
    between = (f"CA {number} between issuing CA and root" for number, _ in enumerate(issuer.chain, 1))
    return ("the issuing CA", *between, "the root")


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    return _public(one) == _public(other)


def _public(certificate: x509.Certificate) -> bytes:
    return public_bytes(certificate.public_key())  # type: ignore[arg-type]  # judged before it is used


def _hash_of(certificate: x509.Certificate) -> str:
    return hashlib.sha256(_public(certificate)).hexdigest()


def _fingerprint(key: PrivateKey) -> str:
    return hashlib.sha256(public_bytes(key.public_key())).hexdigest()


def _refuse(rule: str, detail: str) -> NoReturn:
    raise ImportRefused(f"{detail} [{rule}]")


def parse_certificates(data: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """PEM certificates, or one in DER. Raises ImportRefused."""
    try:
        if b"-----BEGIN" in data:
            return tuple(x509.load_pem_x509_certificates(data))
        return (x509.load_der_x509_certificate(data),)
    except (ValueError, x509.InvalidVersion, IdentityError) as error:
        raise ImportRefused(f"{what} holds no certificate in PEM or DER [malformed]") from error
