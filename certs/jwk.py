"""Public keys as JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037 section 2): read strictly, written the same way.

Base64url is read in its one canonical form: without padding, without spare bits. A key that brings its private half is
refused loudly, because somebody has published it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.keys import PublicKey, why_unfit

_CURVES: dict[str, tuple[str, ec.EllipticCurve, int]] = {
    "P-256": ("secp256r1", ec.SECP256R1(), 32),
    "P-384": ("secp384r1", ec.SECP384R1(), 48),
}
_MAX_NUMBER = 1024  # bytes of an RSA modulus: MAX_RSA_BITS


def public_jwk(key: object) -> dict[str, str]:
    """The members that say which key it is. Raises ValueError for a kind that JWKs here do not have."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        for name, (curve, _, size) in _CURVES.items():
            if curve == key.curve.name:
                members = {"x": encode_number(numbers.x, size), "y": encode_number(numbers.y, size)}
                return {"kty": "EC", "crv": name, **members}
    if isinstance(key, rsa.RSAPublicKey):
        modulus, exponent = key.public_numbers().n, key.public_numbers().e
        return {"kty": "RSA", "n": encode_number(modulus), "e": encode_number(exponent)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    raise ValueError("no JWK says this kind of key")


def parse_public_jwk(entry: dict[str, Any]) -> PublicKey:
    """The key that these members say. Raises ValueError, in words."""
    if "d" in entry:
        raise ValueError("the entry holds a private key, which is now known to everybody")
    match entry.get("kty"):
        case "EC":
            curve, size = _curve(entry.get("crv"))
            x, y = _number(entry, "x", size), _number(entry, "y", size)
            key: PublicKey = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        case "RSA":
            key = rsa.RSAPublicNumbers(_number(entry, "e"), _number(entry, "n")).public_key()
        case "OKP" if entry.get("crv") == "Ed25519":
            key = ed25519.Ed25519PublicKey.from_public_bytes(_bytes(entry, "x"))
        case _:
            raise ValueError("the entry is a key of a kind that is not accepted")
    if (unfit := why_unfit(key)) is not None:
        raise ValueError(f"the entry holds {unfit}")
    return key


def encode_number(number: int, size: int | None = None) -> str:
    """A number as JWKs have it: big-endian, of this many bytes where the curve says how many."""
    return encode_base64url(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def encode_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """What `encode_base64url` made, and nothing that merely decodes to the same. Raises ValueError."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("it is not base64url") from None
    if encode_base64url(data) != text:
        raise ValueError("it is not base64url in its one form")
    return data


def _curve(name: object) -> tuple[ec.EllipticCurve, int]:
    if not isinstance(name, str) or name not in _CURVES:
        raise ValueError("the entry is on a curve other than P-256 and P-384")
    return _CURVES[name][1], _CURVES[name][2]


def _number(entry: dict[str, Any], member: str, size: int | None = None) -> int:
    data = _bytes(entry, member)
    if size is not None and len(data) != size:
        raise ValueError(f"`{member}` has {len(data)} bytes; {size} are right")
    if not data or len(data) > _MAX_NUMBER or (size is None and data[0] == 0):
        raise ValueError(f"`{member}` is not a number as JWKs have it")
    return int.from_bytes(data, "big")


def _bytes(entry: dict[str, Any], member: str) -> bytes:
    value = entry.get(member)
    if not isinstance(value, str):
        raise ValueError(f"`{member}` is missing")
    return decode_base64url(value)
