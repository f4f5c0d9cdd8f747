"""Identities for tests: roots, issuers and SVIDs, good ones by default and bad ones on request.

    root = a_root("demo.mesh")
    issuer = an_issuer(root)
    web = an_svid(issuer, "web")                                  # spiffe://demo.mesh/ns/default/sa/web, a day long
    bad = an_svid(issuer, "web", uris=["spiffe://a/b", "spiffe://a/c"])
    bundles = BundleSet((a_bundle(root),))

Every function says what it breaks by a keyword; nothing is checked here, so that any rule can be broken. `NOW` is when
the tests began: certificates are valid around it both for code that is handed the time and for a real handshake.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.bundle import BundleSet, TrustBundle
from certs.keys import PrivateKey, new_key
from certs.spiffe import SpiffeId, TrustDomain, workload_id
from certs.svid import X509Svid

NOW = float(int(time.time()))
HOUR = 3600.0
DAY = 24 * HOUR
BACKDATE = 60.0

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
BOTH = (CLIENT_AUTH, SERVER_AUTH)
LEAF_USAGE = ("digital_signature",)
SIGNER_USAGE = ("key_cert_sign", "crl_sign")

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Authority:
    """Somebody who signs: a root (whose `chain` is empty) or an issuer (`chain` leads from it up, without the root)."""

    trust_domain: TrustDomain
    certificate: x509.Certificate
    key: PrivateKey
    root: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()


def a_root(
    trust_domain: str = "demo.mesh",
    *,
    now: float = NOW,
    days: float = 3650,
    name: str = "root",
    uris: Sequence[str] | None = None,
    key: PrivateKey | None = None,
    **broken: Any,
) -> Authority:
    """A self-signed root. `broken` goes to `a_certificate`, over a root's proper shape."""
    domain, key = TrustDomain.parse(trust_domain), key or new_key()
    shape: dict[str, Any] = {
        "subject": f"{trust_domain} {name}",
        "uris": [f"spiffe://{trust_domain}"] if uris is None else uris,
        "not_before": now - DAY,
        "not_after": now + days * DAY,
        "ca": True,
        "key_usage": SIGNER_USAGE,
        "eku": None,
        "san_critical": False,
    }
    certificate = a_certificate(key, None, key, **(shape | broken))
    return Authority(domain, certificate, key, certificate)


def an_issuer(
    parent: Authority,
    *,
    now: float = NOW,
    days: float = 30,
    name: str = "issuer",
    uris: Sequence[str] | None = None,
    key: PrivateKey | None = None,
    **broken: Any,
) -> Authority:
    """An issuing CA below a root or another issuer. `broken` goes to `a_certificate`, over an issuer's proper shape."""
    key = key or new_key()
    shape: dict[str, Any] = {
        "subject": f"{parent.trust_domain} {name}",
        "uris": [f"spiffe://{parent.trust_domain}"] if uris is None else uris,
        "not_before": now - DAY,
        "not_after": now + days * DAY,
        "ca": True,
        "key_usage": SIGNER_USAGE,
        "eku": None,
        "san_critical": False,
    }
    certificate = a_certificate(key, parent.certificate, parent.key, **(shape | broken))
    return Authority(parent.trust_domain, certificate, key, parent.root, (certificate, *parent.chain))


def an_svid(
    issuer: Authority,
    who: str | SpiffeId = "web",
    *,
    now: float = NOW,
    not_before: float | None = None,
    not_after: float | None = None,
    uris: Sequence[str] | None = None,
    key: PrivateKey | None = None,
    chain: Sequence[x509.Certificate] | None = None,
    **broken: Any,
) -> X509Svid:
    """An SVID for a service's name, a whole `spiffe://…`, or a SpiffeId; a day long, back-dated 60 s.

    `uris` replaces the one URI name, `chain` what follows the leaf; `broken` goes to `a_certificate`. The value's
    `spiffe_id` is whom it was asked for, whatever the certificate says.
    """
    spiffe_id = _id_of(issuer, who)
    key = key or new_key()
    shape: dict[str, Any] = {
        "uris": [str(spiffe_id)] if uris is None else uris,
        "not_before": now - BACKDATE if not_before is None else not_before,
        "not_after": now + DAY if not_after is None else not_after,
    }
    leaf = a_certificate(key, issuer.certificate, issuer.key, **(shape | broken))
    return X509Svid(spiffe_id, leaf, (leaf, *(issuer.chain if chain is None else chain)), key)


def a_certificate(
    key: PrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    *,
    uris: Sequence[str] = (),
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    not_before: float = NOW - BACKDATE,
    not_after: float = NOW + DAY,
    subject: str = "",
    ca: bool | None = False,
    path_length: int | None = None,
    key_usage: Sequence[str] | None = LEAF_USAGE,
    key_usage_critical: bool = True,
    eku: Sequence[x509.ObjectIdentifier] | None = BOTH,
    san_critical: bool = True,
    key_identifiers: bool = True,
    digest: hashes.SHA224 | hashes.SHA256 | None = None,
    serial: int | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """Any certificate at all; an issuer of None signs itself, None for `ca`, `key_usage` or `eku` leaves that out."""
    subject_name = _name(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(subject_name if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if key_usage is not None:
        wanted = {usage: usage in key_usage for usage in _USAGES}
        builder = builder.add_extension(x509.KeyUsage(**wanted), critical=key_usage_critical)
    if eku is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    names += [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ip_address(ip)) for ip in ips]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=san_critical)
    if key_identifiers:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(own, critical=False).add_extension(above, critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    if isinstance(issuer_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return builder.sign(issuer_key, None)
    return builder.sign(issuer_key, digest or hashes.SHA256())


def a_bundle(*roots: Authority, sequence: int = 1, refresh_hint: int | None = 300) -> TrustBundle:
    """The bundle of these roots, which are of one trust domain."""
    return TrustBundle(roots[0].trust_domain, tuple(root.certificate for root in roots), sequence, refresh_hint)


def a_bundle_set(*roots: Authority) -> BundleSet:
    """One bundle for each trust domain among these roots."""
    domains = dict.fromkeys(root.trust_domain for root in roots)
    return BundleSet.of_all(a_bundle(*(root for root in roots if root.trust_domain == domain)) for domain in domains)


def _id_of(issuer: Authority, who: str | SpiffeId) -> SpiffeId:
    if isinstance(who, SpiffeId):
        return who
    return SpiffeId.parse(who) if "://" in who else workload_id(issuer.trust_domain, "default", who)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])
