"""Certificate signing requests: the proof that whoever asks holds the private key, and nothing more.

The CSR decides nothing but the public key. Names, lifetimes and usages that it may carry are never read: they come from
the registration entry. What we send is therefore empty but for the key.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import InvalidCsr
from certs.keys import PrivateKey, PublicKey, why_not_issued

MAX_CSR_BYTES = 16 * 1024  # an RSA 8192 request is under 3 KiB; the rest is room for what we ignore


@dataclass(frozen=True, slots=True)
class Csr:
    """A request whose signature was good: its public key."""

    public_key: PublicKey


def make_csr(key: PrivateKey) -> bytes:
    """A PKCS #10 request for this key, DER, with an empty subject and no extensions."""
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    return request.public_bytes(Encoding.DER)


def parse_csr(der: bytes) -> Csr:
    """Read a PKCS #10 request; its own key must have signed it and must be strong enough. Raises InvalidCsr."""
    if len(der) > MAX_CSR_BYTES:
        raise InvalidCsr(f"the request is {len(der)} bytes long; at most {MAX_CSR_BYTES} are accepted")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidCsr("not a PKCS #10 request in DER") from error
    unfit = why_not_issued(public_key)
    if unfit is not None:
        raise InvalidCsr(f"the request is for {unfit}")
    assert isinstance(public_key, PublicKey)
    if not request.is_signature_valid:  # False too for a signature algorithm that is unknown or of another kind of key
        raise InvalidCsr("the request is not signed by its own key")
    return Csr(public_key)
