"""The certificate we would sign: drawn up from the registration entry, the issuer and the time, never from the CSR.

Profile: X509-SVID.md sections 2 to 4. Empty subject, so a critical SAN with the SPIFFE ID first and the entry's DNS
names after it; CA:FALSE; critical key usage digitalSignature; both extended key usages, for every workload is client
and server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.entries import MIN_TTL
from ca.errors import IssuerUnusable
from certs.keys import PrivateKey, PublicKey
from certs.spiffe import SpiffeId
from certs.verify import explain_time

BACKDATE = 60.0  # semantics S5: step-ca's minute; covers the clocks of a fleet with NTP
SERIAL_BYTES = 16  # RFC 5280 4.1.2.2 allows 20 octets; 128 random bits never meet again


@dataclass(frozen=True, slots=True)
class Template:
    """All that the certificate will say. Times are whole seconds since the epoch, as X.509 has them."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    not_before: int
    not_after: int
    serial: int
    public_key: PublicKey


def draw_up(
    spiffe_id: SpiffeId,
    dns_names: tuple[str, ...],
    ttl: float,
    public_key: PublicKey,
    signers: Sequence[x509.Certificate],
    now: float,
    serial_bytes: bytes,
) -> Template:
    """The certificate for this identity at this moment, cut so that it outlives none of its signers (S6).

    `signers` are the issuing CA first, the root last. Raises IssuerUnusable where one of them is not valid now, or has
    less than the shortest lifetime left.
    """
    for signer in signers:
        if not signer.not_valid_before_utc.timestamp() <= now < signer.not_valid_after_utc.timestamp():
            name = "issuing CA" if signer is signers[0] else "root" if signer is signers[-1] else "CA above the issuer"
            raise IssuerUnusable(f"the {name}'s certificate is {explain_time(signer, now)}")
    end = min(signer.not_valid_after_utc.timestamp() for signer in signers)
    if end - now < MIN_TTL:
        raise IssuerUnusable(f"the issuing CA ends in {end - now:.0f} s; renew it with `mesh ca renew-issuer`")
    begin = max(signer.not_valid_before_utc.timestamp() for signer in signers)
    return Template(
        spiffe_id=spiffe_id,
        dns_names=dns_names,
        not_before=math.floor(max(now - BACKDATE, begin)),
        not_after=math.floor(min(now + ttl, end)),
        serial=int.from_bytes(serial_bytes[:SERIAL_BYTES], "big") | 1,
        public_key=public_key,
    )


def sign(template: Template, issuer: x509.Certificate, key: PrivateKey) -> x509.Certificate:
    """The signed certificate. Give it to `ca.validate.check_signed` before anyone else."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(template.spiffe_id.text)]
    names.extend(x509.DNSName(name) for name in template.dns_names)
    builder = (
        x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=issuer.subject)
        .public_key(template.public_key)
        .serial_number(template.serial)
        .not_valid_before(datetime.fromtimestamp(template.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(template.not_after, UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(LEAF_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage(BOTH_USES), critical=False)
        .add_extension(authority_key_id(issuer), critical=False)
    )
    return builder.sign(key, digest_for(key))


def key_usage(*, digital_signature: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    """KeyUsage with these bits: a leaf signs data, a CA signs certificates and revocation lists."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """How a certificate points at the key of its issuer."""
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def digest_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """The digest for a signature by this key: as strong as its curve (RFC 5480 section 4); Ed25519 has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return hashes.SHA384() if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256 else hashes.SHA256()


LEAF_USAGE = key_usage(digital_signature=True)
BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
