"""Signed JSON Web Tokens in their compact form (RFC 7515, RFC 7519): taken apart strictly, judged by one key at a time.

Nothing in a token is believed before its signature has held, and the key decides which algorithms may have made it, not
the token (RFC 8725 section 3.1): an EC key on P-256 is good for ES256 alone, an RSA key for the RS and PS families.
`none`, HMAC and everything unknown do not exist here. Header parameters that ask for more than we understand (`crit`),
or that bring a key of their own (`jwk`, `jku`, `x5u`, `x5c`), are refused: nothing that checks a token needs them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from certs.errors import IdentityError
from certs.jwk import decode_base64url, encode_base64url
from certs.keys import PublicKey
from certs.strict_json import read

MAX_TOKEN_BYTES = 16 * 1024  # a Kubernetes token is under 2 KiB, ours under 1 KiB
_SHA: Final[Mapping[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]]] = {
    "256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512,
}  # fmt: skip
_OF_CURVE: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FOREIGN_KEYS: Final = ("crit", "jwk", "jku", "x5u", "x5c", "b64")


class InvalidJwt(IdentityError):
    """A token cannot be believed. `reason` is short and stable; neither it nor the detail quotes the token."""

    name = "invalid_jwt"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Jwt:
    """A token, taken apart and not yet believed."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, token: str) -> Jwt:
        """Take the compact form apart. Raises InvalidJwt: `malformed`, `header`."""
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidJwt("malformed", f"the token is longer than {MAX_TOKEN_BYTES} characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise InvalidJwt("malformed", "the token is not of three parts, joined by dots")
        try:
            header, claims = _parse_object(decode_base64url(parts[0])), _parse_object(decode_base64url(parts[1]))
            signature = decode_base64url(parts[2])
        except ValueError as error:
            raise InvalidJwt("malformed", f"a part of the token cannot be read: {error}") from None
        if found := [name for name in _FOREIGN_KEYS if name in header]:
            raise InvalidJwt("header", f"the token's header has `{found[0]}`, which is not accepted")
        if header.get("typ", "JWT") not in ("JWT", "JOSE"):
            raise InvalidJwt("header", "the token's `typ` is neither JWT nor JOSE")
        if not isinstance(header.get("alg"), str):
            raise InvalidJwt("header", "the token names no algorithm")
        if not isinstance(header.get("kid", ""), str):
            raise InvalidJwt("header", "the token's `kid` is not text")
        return cls(header, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), signature)

    @property
    def kid(self) -> str:
        """Which key is said to have signed; empty where it does not say."""
        return str(self.header.get("kid", ""))

    def check_signature(self, key: PublicKey) -> None:
        """Hold the signature against this key, by an algorithm that is right for it. Raises InvalidJwt."""
        algorithm = self.header["alg"]
        if algorithm not in algorithms_of(key):
            raise InvalidJwt("algorithm", f"the token is signed by {algorithm!r:.20}, which its key is not for")
        digest = _SHA[algorithm[2:]]()
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(_der(self.signature, (key.key_size + 7) // 8), self.signed, ec.ECDSA(digest))
            elif isinstance(key, rsa.RSAPublicKey):
                pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
                key.verify(self.signature, self.signed, pss if algorithm[0] == "P" else padding.PKCS1v15(), digest)
        except (InvalidSignature, ValueError):
            raise InvalidJwt("signature", "the token was changed, or another key has signed it") from None

    def check_times(self, now: float, leeway: float) -> None:
        """Hold `exp`, which must be there, `nbf` and `iat` against this moment, seconds since the epoch.

        `leeway` excuses a token that is from a clock ahead of ours; its end is its end. Raises InvalidJwt.
        """
        ends = self.time("exp")
        if ends is None:
            raise InvalidJwt("expiry", "the token has no `exp`, so it would be good for ever")
        if now >= ends:
            raise InvalidJwt("expired", f"the token expired {now - ends:.0f} s ago")
        for name in ("nbf", "iat"):
            begins = self.time(name)
            if begins is not None and begins > now + leeway:
                raise InvalidJwt("not_yet_valid", f"the token is from {begins - now:.0f} s ahead (`{name}`): a clock")

    def time(self, name: str) -> float | None:
        """A claim that is a time; None where there is none. Raises InvalidJwt."""
        value = self.claims.get(name)
        if value is None and name not in self.claims:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidJwt("malformed", f"the token's `{name}` is not a time")
        return float(value)

    def audience(self) -> tuple[str, ...]:
        """Whom the token is for: `aud`, which is text or a list of it. Raises InvalidJwt."""
        value = self.claims.get("aud")
        found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
        if not found or not all(isinstance(each, str) and each for each in found):
            raise InvalidJwt("audience", "the token names no audience")
        return found

    def text(self, name: str) -> str:
        """A claim that is text. Raises InvalidJwt."""
        value = self.claims.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidJwt("malformed", f"the token has no `{name}`")
        return value


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """The compact form, signed by a key on P-256 (ES256) or P-384 (ES384)."""
    (algorithm,) = algorithms_of(key.public_key())
    signed = f"{_part({'alg': algorithm, **header})}.{_part(claims)}"
    r, s = decode_dss_signature(key.sign(signed.encode("ascii"), ec.ECDSA(_SHA[algorithm[2:]]())))
    size = (key.key_size + 7) // 8
    return f"{signed}.{encode_base64url(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"


def algorithms_of(key: object) -> tuple[str, ...]:
    """The algorithms by which this key may sign tokens (RFC 7518 section 3.1); none where it is not for that."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _OF_CURVE:
        return (_OF_CURVE[key.curve.name],)
    return _OF_RSA if isinstance(key, rsa.RSAPublicKey) else ()


def _der(signature: bytes, size: int) -> bytes:
    """RFC 7518 section 3.4: r and s, each as long as the curve's numbers; nothing else is one."""
    if len(signature) != 2 * size:
        raise InvalidSignature
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


def _part(value: Mapping[str, Any]) -> str:
    return encode_base64url(json.dumps(value, separators=(",", ":")).encode())


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        value = read(data)
    except ValueError:
        raise ValueError("it is not JSON, or names a member twice") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value
