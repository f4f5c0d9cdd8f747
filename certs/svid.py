"""X.509-SVIDs: a workload's certificate, its chain and its key, and the rules that such certificates keep.

The rules are those of X509-SVID.md sections 2 to 5 and Appendix A. We check them ourselves after the TLS handshake, on
both sides, because TLS libraries know nothing of SPIFFE: OpenSSL would accept a leaf with two identities. Each broken
rule has a name, the `rule` of the InvalidSvid raised, which stays the same in logs, metrics and tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import InvalidSpiffeId, InvalidSvid
from certs.keys import PrivateKey, public_bytes, why_unfit
from certs.spiffe import SpiffeId

MAX_CHAIN = 10  # certificates in a presented chain; SPIRE's deepest documented nesting is four

_BOTH_USES: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH})
_SIGNATURE_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_E = TypeVar("_E", bound=x509.ExtensionType)


@dataclass(frozen=True)
class X509Svid:
    """A SPIFFE ID with the certificates and the key that prove it. `chain` is leaf first, without the root."""

    spiffe_id: SpiffeId
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(compare=False)

    @classmethod
    def parse(cls, chain_pem: bytes, key: PrivateKey) -> X509Svid:
        """Read a PEM chain (leaf first, no root) and judge all of it but its time and its root. Raises InvalidSvid."""
        chain = parse_chain(chain_pem)
        spiffe_id = check_leaf(chain[0])
        if _key_of(chain[0]) != public_bytes(key.public_key()):
            raise InvalidSvid("key_matches", f"the certificate of {spiffe_id} is for another key")
        for lower, upper in pairwise(chain):
            check_signer(upper, spiffe_id)
            if _issued(upper, upper):
                raise InvalidSvid("chain_without_root", "the chain holds a root; roots come from the trust bundle only")
            if not _issued(lower, upper):
                raise InvalidSvid("chain_order", "each certificate must be issued by the one that follows it")
        return cls(spiffe_id, chain[0], chain, key)

    @cached_property
    def not_before(self) -> float:
        """From when the leaf is valid, in seconds since the epoch."""
        return self.leaf.not_valid_before_utc.timestamp()

    @cached_property
    def not_after(self) -> float:
        """Until when the leaf is valid, in seconds since the epoch."""
        return self.leaf.not_valid_after_utc.timestamp()

    @cached_property
    def serial(self) -> str:
        """The leaf's serial number in lower-case hex."""
        return f"{self.leaf.serial_number:x}"

    def chain_pem(self) -> bytes:
        """The chain as PEM, leaf first, without the root."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    def __repr__(self) -> str:
        return f"<X509Svid {self.spiffe_id} serial {self.serial}>"  # never the key


def parse_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read one to MAX_CHAIN PEM certificates. Raises InvalidSvid (rule `malformed` or `chain_length`)."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion) as error:
        raise InvalidSvid("malformed", "not a chain of PEM certificates") from error
    if len(chain) > MAX_CHAIN:
        raise InvalidSvid("chain_length", f"the chain has {len(chain)} certificates; at most {MAX_CHAIN} are accepted")
    return chain


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read one DER certificate. Raises InvalidSvid (rule `malformed`)."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise InvalidSvid("malformed", "not a DER certificate") from error


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Judge a certificate as a workload's X.509-SVID and return its SPIFFE ID. Raises InvalidSvid.

    Says nothing about time or trust: see `certs.verify`. Absent BasicConstraints mean CA:FALSE (RFC 5280 4.2.1.9).
    """
    extensions = _read(certificate)
    if certificate.serial_number <= 0:
        raise InvalidSvid("serial_positive", "the serial number is not positive, so nothing could name it")
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise InvalidSvid("not_a_ca", "a CA certificate is used as a leaf")
    _check_leaf_key_usage(_find(extensions, x509.KeyUsage))
    uses = _find(extensions, x509.ExtendedKeyUsage)
    if uses is not None and not set(uses.value) >= _BOTH_USES:
        raise InvalidSvid("eku_both", "the extended key usage lacks clientAuth or serverAuth")
    spiffe_id = _leaf_id(certificate, _find(extensions, x509.SubjectAlternativeName))
    _check_strength(certificate)
    return spiffe_id


def check_signer(certificate: x509.Certificate, of: SpiffeId | None = None) -> None:
    """Judge a certificate as an issuer of SVIDs; with `of`, as one that may sign for it. Raises InvalidSvid."""
    extensions = _read(certificate)
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise InvalidSvid("signer_is_ca", "an issuer in the chain is not a CA certificate (CA:TRUE is missing)")
    usage = _find(extensions, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        raise InvalidSvid("signer_cert_sign", "an issuer in the chain may not sign certificates (no keyCertSign)")
    uses = _find(extensions, x509.ExtendedKeyUsage)
    if uses is not None and not set(uses.value) >= _BOTH_USES:
        raise InvalidSvid("signer_eku", "an issuer in the chain may not sign for both clientAuth and serverAuth")
    _check_signer_id(_find(extensions, x509.SubjectAlternativeName), of)
    _check_strength(certificate)


def _check_leaf_key_usage(usage: x509.Extension[x509.KeyUsage] | None) -> None:
    if usage is None:
        raise InvalidSvid("digital_signature", "the certificate has no key usage, so it may not sign a handshake")
    if not usage.critical:
        raise InvalidSvid("key_usage_critical", "the key usage is not marked critical")
    if usage.value.key_cert_sign:
        raise InvalidSvid("no_cert_sign", "a leaf may sign certificates (keyCertSign)")
    if usage.value.crl_sign:
        raise InvalidSvid("no_crl_sign", "a leaf may sign revocation lists (cRLSign)")
    if not usage.value.digital_signature:
        raise InvalidSvid("digital_signature", "the key usage lacks digitalSignature")


def _leaf_id(certificate: x509.Certificate, names: x509.Extension[x509.SubjectAlternativeName] | None) -> SpiffeId:
    uris = _uris(names)
    if len(uris) != 1:
        raise InvalidSvid("one_uri_san", f"the certificate has {len(uris)} URI names; an SVID has exactly one")
    spiffe_id = _parse_id(uris[0])
    if not spiffe_id.path:
        raise InvalidSvid("path_required", f"{spiffe_id} names a trust domain, not a workload")
    if names is not None and not names.critical and not list(certificate.subject):
        raise InvalidSvid("san_critical_when_subject_empty", "the subject is empty and its alternative is not critical")
    return spiffe_id


def _check_signer_id(names: x509.Extension[x509.SubjectAlternativeName] | None, of: SpiffeId | None) -> None:
    uris = _uris(names)
    if len(uris) > 1:
        raise InvalidSvid("signer_one_uri_san", f"an issuer in the chain has {len(uris)} URI names")
    for uri in uris:
        signer = _parse_id(uri)
        if signer.path:
            raise InvalidSvid("signer_no_path", f"an issuer in the chain is the workload {signer}")
        if of is not None and signer.trust_domain != of.trust_domain:
            raise InvalidSvid("signer_trust_domain", f"an issuer of {signer.trust_domain} signed for {of}")


def _parse_id(uri: str) -> SpiffeId:
    if not uri.startswith("spiffe://"):
        raise InvalidSvid("spiffe_scheme", f"the URI name {uri[:64]!r} is not a SPIFFE ID")
    try:
        return SpiffeId.parse(uri)
    except InvalidSpiffeId as error:
        raise InvalidSvid("invalid_spiffe_id", str(error)) from error


def _uris(names: x509.Extension[x509.SubjectAlternativeName] | None) -> list[str]:
    return [] if names is None else names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _check_strength(certificate: x509.Certificate) -> None:
    try:
        unfit = why_unfit(certificate.public_key())
        digest = certificate.signature_hash_algorithm  # None for Ed25519, which brings its own
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidSvid("key_strength", "the certificate uses a key or a signature that we do not know") from error
    if unfit is not None:
        raise InvalidSvid("key_strength", f"the certificate holds {unfit}")
    if digest is not None and not isinstance(digest, _SIGNATURE_HASHES):
        raise InvalidSvid("signature_hash", f"the certificate is signed with {digest.name}; SHA-256 or more is needed")


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    """Whether `upper` issued `lower`, by name and by signature; both have passed the strength check."""
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):  # the names differ; the key is of another kind; the rest
        return False
    return True


def _read(certificate: x509.Certificate) -> x509.Extensions:
    """The extensions, once all that is decoded only on demand has been decoded, names too. Raises InvalidSvid."""
    try:
        _ = certificate.subject, certificate.issuer
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise InvalidSvid("malformed", "the names or extensions of the certificate cannot be read") from error


def _find(extensions: x509.Extensions, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _key_of(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return public_bytes(key)  # type: ignore[arg-type]  # check_leaf has found it to be one of ours
