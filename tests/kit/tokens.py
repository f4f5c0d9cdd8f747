"""Tokens and key sets for tests: signed by whatever key, right or wrong in any one place.

    signer = Signer("ES256", kid="a")
    signer.token(aud="orders")                                  # a good one, with the given claims over the usual ones
    signer.token(head={"crit": ["x"]})                          # with something more in its head
    raw_token(b'{"alg":"none"}', b'{"sub":"me"}', b"")          # any bytes at all
    key_set(signer, other)                                      # a JWK Set in JSON

`Shelf` is the keys of issuers in the memory driver: a test says what it has, and what a fetch brings.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from certs.jwk import encode_base64url, encode_number
from sidecar.config.schema_tokens import Issuer, Tokens
from sidecar.net.port import Signal
from sidecar.policy.jwk import KeySet
from sidecar.policy.tokens import ListenerTokens

NOW = 1_800_000_000.0
ISSUER = "https://login.example.org"
AUDIENCE = "https://orders.example.org"
_CURVES = {"ES256": (ec.SECP256R1(), "P-256", 32), "ES384": (ec.SECP384R1(), "P-384", 48),
           "ES512": (ec.SECP521R1(), "P-521", 66)}  # fmt: skip
_SHA = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """An RSA key, made once: it takes a while."""
    return rsa.generate_private_key(65537, bits)


class Signer:
    """One private key that signs by one algorithm."""

    def __init__(self, algorithm: str = "ES256", kid: str | None = "a", key: Any = None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key = key if key is not None else _made(algorithm)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its public half; a member that is None is left out."""
        found = {"kid": self.kid, "use": "sig", **_public(self.key), **more}
        return {name: value for name, value in found.items() if value is not None}

    def sign(self, data: bytes) -> bytes:
        """A signature as tokens have it."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        digest = _SHA[self.algorithm[2:]]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            size = (self.key.key_size + 7) // 8
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size) if self.algorithm[0] == "P" else None
        signature: bytes = self.key.sign(data, scheme or padding.PKCS1v15(), digest)
        return signature

    def token(self, *, head: dict[str, Any] | None = None, at: float = NOW, **claims: Any) -> bytes:
        """A token that is good at `at` but for what is said otherwise; a claim or member that is None is left out."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": at - 5, "exp": at + 300, **claims}
        return self.over({"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **(head or {})}, said)

    def over(self, head: dict[str, Any] | bytes, claims: dict[str, Any] | bytes) -> bytes:
        """A token over any head and claims, signed by this key."""
        return raw_token(_json(head), _json(claims), self.sign)


def _json(value: dict[str, Any] | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps({name: each for name, each in value.items() if each is not None}).encode()


def raw_token(head: bytes, claims: bytes, signature: bytes | Callable[[bytes], bytes]) -> bytes:
    """The compact form of these bytes."""
    signed = f"{encode_base64url(head)}.{encode_base64url(claims)}".encode()
    made = signature if isinstance(signature, bytes) else signature(signed)
    return signed + b"." + encode_base64url(made).encode()


def key_set(*signers: Signer | dict[str, Any]) -> bytes:
    """A JWK Set with these keys."""
    return json.dumps({"keys": [each.jwk() if isinstance(each, Signer) else each for each in signers]}).encode()


def fingerprint_claim(fingerprint: str) -> dict[str, str]:
    """`cnf` of a token that is bound to the certificate of this fingerprint (hex)."""
    return {"x5t#S256": base64.urlsafe_b64encode(bytes.fromhex(fingerprint)).rstrip(b"=").decode()}


def _made(algorithm: str) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm][0])
    return ed25519.Ed25519PrivateKey.generate() if algorithm[0] == "E" else rsa_key()


def _public(key: Any) -> dict[str, str]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        ours = key.public_key().public_numbers()
        _, name, size = next(each for each in _CURVES.values() if each[0].name == key.curve.name)
        return {"kty": "EC", "crv": name, "x": encode_number(ours.x, size), "y": encode_number(ours.y, size)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(key.public_key().public_bytes_raw())}
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "n": encode_number(numbers.n), "e": encode_number(numbers.e)}


class Shelf:
    """Keys of issuers, by name, and what fetching them brings."""

    def __init__(self, **sets: bytes) -> None:
        self.sets = {name: KeySet.parse(data) for name, data in sets.items()}
        self.wanted: list[str] = []  # fetches that were asked for
        self.allowed = True  # whether another fetch may begin
        self.is_fresh = False
        self.signal: Signal | None = None

    def current(self, issuer: Issuer) -> KeySet | None:
        """The set in force."""
        return self.sets.get(issuer.name)

    def want(self, issuer: Issuer) -> Signal | None:
        """Begin a fetch, which ends by `bring`."""
        if self.signal is None and self.allowed:
            self.wanted.append(issuer.name)
            self.signal = Signal()
        return self.signal

    def underway(self, issuer: Issuer) -> Signal | None:
        """The fetch under way."""
        return self.signal

    def fresh(self, issuer: Issuer) -> bool:
        """Whether the set in force was fetched a moment ago."""
        return self.is_fresh

    def bring(self, name: str, data: bytes | None) -> None:
        """The fetch ends: with this set, or with none."""
        if data is not None:
            self.sets[name] = KeySet.parse(data)
        self.is_fresh = data is not None
        signal, self.signal = self.signal, None
        if signal is not None:
            signal.fire()


def listener(shelf: Shelf, spec: Tokens | None = None, **issuer: Any) -> ListenerTokens:
    """A listener that asks for tokens of one issuer, `login`."""
    made = Issuer(name="login", **({"issuer": ISSUER, "audience": (AUDIENCE,)} | issuer))
    return ListenerTokens(spec or Tokens(("login",)), {"login": made}, "spiffe://demo.mesh/ns/default/sa/orders", shelf)
