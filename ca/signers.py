"""Roots and issuing CAs, drawn up and signed.

Lifetimes (S6): the root lasts 10 years (Istio's self-signed root), since replacing it means reaching every sidecar; the
issuing CA 30 days, the longest that S6 takes, since its key is the one in memory all day, and replacing it costs nobody
anything. Every signer has a name of its own, so that no path builder ever confuses an old one with a new one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.config import ISSUER_TTL as ISSUER_TTL
from ca.durations import HOUR, YEAR
from ca.entries import MIN_TTL
from ca.errors import InvalidEntry, IssuerUnusable
from ca.slots import MIN_ISSUER_TTL
from ca.template import authority_key_id, digest_for, key_usage
from certs.keys import PrivateKey
from certs.spiffe import TrustDomain
from certs.verify import explain_time

ROOT_TTL = 10 * YEAR
MAX_ROOT_TTL = 50 * YEAR
CA_BACKDATE = HOUR  # a fresh CA must not look unborn to a machine whose clock is a little slow


@dataclass(frozen=True, slots=True)
class Issuer:
    """What signs leaves: the issuing CA's certificate and key, the CAs above it (nearest first), and the root."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    root: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def serial(self) -> str:
        """The issuing CA's serial number in lower-case hex."""
        return f"{self.certificate.serial_number:x}"

    @property
    def not_after(self) -> float:
        """When the first of issuing CA, root and those between ends, in seconds since the epoch."""
        return min(item.not_valid_after_utc.timestamp() for item in self.signers)

    @property
    def signers(self) -> tuple[x509.Certificate, ...]:
        """Every certificate above a leaf: the issuing CA first, the root last."""
        return (self.certificate, *self.chain, self.root)


def check_lifetimes(root_ttl: float, issuer_ttl: float) -> None:
    """Raise InvalidEntry unless these lifetimes (seconds) make sense for root and issuing CA."""
    if not MIN_ISSUER_TTL <= issuer_ttl <= root_ttl <= MAX_ROOT_TTL:
        raise InvalidEntry(f"lifetimes must hold: {MIN_ISSUER_TTL:.0f}s ≤ issuing CA ≤ root ≤ 50y")


def make_root(trust_domain: TrustDomain, key: PrivateKey, now: float, ttl: float) -> x509.Certificate:
    """A self-signed root for this trust domain, valid for `ttl` seconds from now."""
    return _make_signer(trust_domain, "root", key, now, now + ttl, path_length=1, parent=None)


def make_issuer(
    trust_domain: TrustDomain, key: PrivateKey, root: x509.Certificate, root_key: PrivateKey, now: float, ttl: float
) -> x509.Certificate:
    """An issuing CA under this root, which it never outlives. Raises IssuerUnusable where the root is at its end."""
    end = min(now + ttl, root.not_valid_after_utc.timestamp())
    if end - now < MIN_TTL:
        raise IssuerUnusable(f"the root's certificate is {explain_time(root, now)}; a new root is needed")
    return _make_signer(trust_domain, "issuing CA", key, now, end, path_length=0, parent=(root, root_key))


def _make_signer(
    trust_domain: TrustDomain,
    what: str,
    key: PrivateKey,
    now: float,
    end: float,
    *,
    path_length: int,
    parent: tuple[x509.Certificate, PrivateKey] | None,
) -> x509.Certificate:
    serial = int.from_bytes(os.urandom(16), "big") | 1
    label = f"{trust_domain.name[:32]} mesh {what} {serial:032x}"[:64]  # X.520: a common name has at most 64 characters
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    begin = now - CA_BACKDATE if parent is None else max(now - CA_BACKDATE, parent[0].not_valid_before_utc.timestamp())
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject if parent is None else parent[0].subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(int(begin), UTC))
        .not_valid_after(datetime.fromtimestamp(int(end), UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(own_id, critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), False)
    )
    if parent is None:
        aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id)
        return builder.add_extension(aki, critical=False).sign(key, digest_for(key))
    return builder.add_extension(authority_key_id(parent[0]), critical=False).sign(parent[1], digest_for(parent[1]))
