"""A signature beside a JSON document: JWS in its compact form with the payload left out (RFC 7515 appendix F).

What is signed is the document's one canonical text: keys sorted, no blanks, ASCII (a part of RFC 8785 that is enough
for text, whole numbers, truth values and null; floats are written as Python writes them, on both sides). The key says
by which algorithm (RFC 7518, RFC 8037), and whoever verifies brings the key: nothing in the signature is believed, its
`kid` (the SHA-256 of the public key) is only there to tell people which one to bring.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from certs.errors import IdentityError
from certs.jwk import decode_base64url, encode_base64url
from certs.keys import PrivateKey, PublicKey

_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


class BadSignature(IdentityError):
    """A document is not what that key has signed."""

    name = "bad_signature"


def canonical(document: Any) -> bytes:
    """The one text of a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def key_id(key: PublicKey) -> str:
    """SHA-256 of the public key as SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def sign(document: Any, key: PrivateKey) -> str:
    """`header..signature`. Raises BadSignature for a key that is not for this."""
    public = key.public_key()
    header = encode_base64url(canonical({"alg": _algorithm(public), "kid": key_id(public)}))
    signed = header.encode() + b"." + encode_base64url(canonical(document)).encode()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(_hash(key.curve))))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, _PSS, hashes.SHA256())
    else:
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        signature = key.sign(signed)
    return f"{header}..{encode_base64url(signature)}"


def verify(document: Any, jws: str, key: PublicKey) -> None:
    """Make sure that the holder of this key has signed this document. Raises BadSignature."""
    parts = jws.split(".")
    if len(parts) != 3 or parts[1] or len(jws) > 4096:
        raise BadSignature("the signature is no detached JWS: header, nothing, signature")
    try:
        header, signature = json.loads(decode_base64url(parts[0])), decode_base64url(parts[2])
    except (ValueError, IdentityError):
        raise BadSignature("the signature cannot be read") from None
    if not isinstance(header, dict) or header.get("alg") != _algorithm(key) or "crit" in header or "b64" in header:
        raise BadSignature(f"the signature is not by {_algorithm(key)}, as one by this key would be")
    signed = parts[0].encode() + b"." + encode_base64url(canonical(document)).encode()
    try:
        _check(key, signature, signed)
    except (InvalidSignature, ValueError):
        raise BadSignature("it was changed after it was signed, or another key has signed it") from None


def _check(key: PublicKey, signature: bytes, signed: bytes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = (key.curve.key_size + 7) // 8
        if len(signature) != 2 * size:
            raise InvalidSignature
        r, s = (int.from_bytes(each, "big") for each in (signature[:size], signature[size:]))
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_hash(key.curve)))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, _PSS, hashes.SHA256())
    else:
        assert isinstance(key, ed25519.Ed25519PublicKey)
        key.verify(signature, signed)


def parse_public(pem: bytes) -> PublicKey:
    """The public key of PEM, or that of a certificate. Raises BadSignature."""
    try:
        found = (
            load_pem_x509_certificate(pem).public_key() if b"CERTIFICATE" in pem else load_pem_public_key(pem)
        )
    except (ValueError, TypeError):
        raise BadSignature("that is neither a public key nor a certificate in PEM") from None
    if not isinstance(found, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise BadSignature("a key of this kind signs nothing here: ECDSA on P-256 or P-384, Ed25519 or RSA does")
    return found


def _algorithm(key: PublicKey) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        found = {"secp256r1": "ES256", "secp384r1": "ES384"}.get(key.curve.name)
        if found is None:
            raise BadSignature(f"no signatures on {key.curve.name}")
        return found
    return "PS256" if isinstance(key, rsa.RSAPublicKey) else "EdDSA"


def _hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA384() if curve.name == "secp384r1" else hashes.SHA256()
