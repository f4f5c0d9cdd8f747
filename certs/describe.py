"""A chain in words and as data: what each certificate says of itself, and how the verifier judges it, check by check.

Nothing here decides anything. `judge` asks the very functions that the handshake asks, so that `mesh certs verify` and
the mesh cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import IdentityError, InvalidSvid, UntrustedSvid
from certs.spiffe import TrustDomain
from certs.svid import check_leaf, check_signer
from certs.verify import explain_time, verify_chain


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and how it went. `name` is stable: profile, issuer, time, trust."""

    name: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The finding as data."""
        return {"check": self.name, "ok": self.ok, "detail": self.detail}


def describe(certificate: x509.Certificate, now: float) -> dict[str, Any]:
    """What a certificate says of itself, ready for JSON, whatever its content; `now` in seconds since the epoch."""
    names = _names(certificate)
    return {
        "uris": names.get_values_for_type(x509.UniformResourceIdentifier) if names else [],
        "dns_names": names.get_values_for_type(x509.DNSName) if names else [],
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.timestamp(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "time": explain_time(certificate, now),
        "key": _key(certificate),
        "ca": _is_ca(certificate),
        "sha256": root_hash(certificate),
    }


def judge(chain: Sequence[x509.Certificate], bundles: BundleSet | None, now: float) -> list[Finding]:
    """Each rule group of the verifier on this chain (leaf first); without bundles, trust is left open.

    The order is the reader's: is it an SVID, are its issuers CAs, is it the time, and does a root of its own trust
    domain vouch for it.
    """
    findings = [_ask("profile", lambda: f"an X.509-SVID of {check_leaf(chain[0])}")]
    for number, signer in enumerate(chain[1:], 1):
        findings.append(_ask("issuer", lambda signer=signer, number=number: _signer(signer, number)))
    findings.append(_time(chain, now))
    if bundles is not None:
        findings.append(
            _ask("trust", lambda: f"a root of its trust domain vouches for {verify_chain(chain, bundles, now)}")
        )
    return findings


def bundle_of_pem(trust_domain: TrustDomain, pem: bytes) -> TrustBundle:
    """Roots from PEM as the bundle of this trust domain. Raises ValueError: no PEM, InvalidSvid: no CA."""
    roots = tuple(x509.load_pem_x509_certificates(pem))
    for root in roots:
        check_signer(root)
    return TrustBundle(trust_domain, roots)


def _ask(name: str, question: Any) -> Finding:
    try:
        return Finding(name, True, question())
    except (InvalidSvid, UntrustedSvid) as error:
        stable = error.rule if isinstance(error, InvalidSvid) else error.reason
        return Finding(name, False, f"{error.detail} [{stable}]")
    except IdentityError as error:
        return Finding(name, False, str(error))


def _signer(certificate: x509.Certificate, number: int) -> str:
    check_signer(certificate)
    return f"issuer {number} ({certificate.subject.rfc4514_string() or 'no subject'}) may sign SVIDs"


def _time(chain: Sequence[x509.Certificate], now: float) -> Finding:
    """The first certificate whose time it is not, else how long the leaf still holds."""
    for certificate in chain:
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if not begins <= now <= ends:
            which = "the certificate" if certificate is chain[0] else "an issuer"
            return Finding("time", False, f"{which}: {explain_time(certificate, now)}")
    return Finding("time", True, explain_time(chain[0], now))


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, x509.UnsupportedGeneralNameType):
        return "unreadable"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else type(key).__name__
