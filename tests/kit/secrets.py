"""What a secret can look like once it has leaked: raw, hexadecimal, base64 at any offset, decimal, PEM."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def spellings(secret: bytes | Any) -> list[bytes]:
    """The spellings of raw secret bytes, or of an EC private key's number; none shorter than 20 bytes."""
    if isinstance(secret, EllipticCurvePrivateKey):
        number = secret.private_numbers().private_value
        size = (secret.curve.key_size + 7) // 8
        raw = number.to_bytes(size, "big")
        return [str(number).encode(), *spellings(raw)]
    raw = bytes(secret)
    assert len(raw) >= 16, "too short to be looked for"
    found = [raw, raw.hex().encode(), raw.hex().upper().encode(), raw.hex(":").encode(), repr(raw)[2:-1].encode()]
    for offset in range(3):  # base64 of something longer in which it stands
        encoded = base64.b64encode(bytes(offset) + raw)
        inner = encoded[4 if offset else 0 : -4]
        found += [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]
    return [each for each in found if len(each) >= 16]
